# A formatter for prove that also writes down, for script/test, how each test file ended: a line each,
# verdict, name and reason, separated by tabs, in the file that RF_TALLY names.
package RillflowTally;

use strict;
use warnings;
use base 'TAP::Formatter::File';

# A skipped part of a file leaves no trace in the aggregate but its number, so it is caught in passing.
sub open_test
{
	my ($self, $test, $parser) = @_;
	my $session = $self->SUPER::open_test($test, $parser);
	$parser->callback(
		test => sub {
			my ($result) = @_;
			$self->note('part', $test, $result->explanation) if $result->has_skip;
		});
	return $session;
}

sub summary
{
	my ($self, $aggregate, @rest) = @_;
	foreach my $test ($aggregate->descriptions)
	{
		my ($parser) = $aggregate->parsers($test);
		if ($parser->has_problems || !$parser->plan)
		{
			$self->note('failed', $test, 'see above');
		}
		elsif (defined $parser->skip_all)
		{
			$self->note('skipped', $test, $parser->skip_all);
		}
		else
		{
			$self->note('passed', $test, '');
		}
	}
	return $self->SUPER::summary($aggregate, @rest);
}

# The same reason, given by several tests of a file in a row, counts once.
sub note
{
	my ($self, $verdict, $test, $reason) = @_;
	my ($name) = $test =~ m{([^/]+?)(?:\.pl)?$};
	my $line = join("\t", $verdict, $name, $reason =~ s/\s+/ /gr);
	return if $self->{rillflow_noted}{$line}++;
	open(my $file, '>>', $ENV{RF_TALLY}) or die "could not open $ENV{RF_TALLY}: $!";
	print $file "$line\n";
	close($file);
}

1;
