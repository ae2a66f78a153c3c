# What the lints share: sources without what is no code, and reporting. Lints run in the top directory,
# print what is wrong as file:line and exit non-zero then.
package Source;

use strict;
use warnings;
use Exporter 'import';
our @EXPORT = qw(slurp code sql_statements line_of complain);

my $faults = 0;

sub slurp
{
	my ($file) = @_;
	open(my $handle, '<', $file) or die "could not open $file: $!\n";
	local $/;
	return scalar <$handle>;
}

# A C file with comments and the insides of its strings blanked, line by line as it was.
sub code
{
	my $text = slurp(@_);
	$text =~ s{(/\*.*?\*/|//[^\n]*)|("(?:\\.|[^"\\\n])*")|('(?:\\.|[^'\\\n])*')}
		{ my $all = $&; defined $1 ? blank($all) : quoted($all) }gsex;
	return $text;
}

sub blank  { return $_[0] =~ s/[^\n]/ /gr; }
sub quoted { return substr($_[0], 0, 1) . blank(substr($_[0], 1, -1)) . substr($_[0], -1); }

# A SQL script as statements: a hash each of its line, its text with comments and quotes blanked, and the
# quotes as they stand, strings in dollars among them. Lines for psql are statements of their own.
sub sql_statements
{
	my $text = slurp(@_);
	my (@statements, $now);
	my $fresh = sub { return { line => 0, text => '', quotes => [] } };
	$now = $fresh->();
	while ($text =~ m{\G(?:(--[^\n]*|/\*.*?\*/)|('(?:[^']|'')*'|"(?:[^"]|"")*"|(\$\w*\$).*?\3)|(\\[^\n]*|;)|(\s+)|(\w+|.))}gsc)
	{
		my ($comment, $quote, $end, $space, $word, $start) = ($1, $2, $4, $5, $6, $-[0]);
		next if defined $comment;
		$now->{line} ||= line_of($text, $start) unless defined $space;
		push @{ $now->{quotes} }, $quote if defined $quote;
		$now->{text} .= defined $space ? ' ' : defined $quote ? name_or_blank($quote) : $end // $word;
		next unless defined $end;
		push @statements, $now;
		$now = $fresh->();
	}
	push @statements, $now if $now->{text} =~ /\S/;
	return @statements;
}

# A quoted name is part of what a statement says, a string is not.
sub name_or_blank { return $_[0] =~ /^"/ ? $_[0] : "''"; }

sub line_of
{
	my ($text, $offset) = @_;
	return 1 + (substr($text, 0, $offset) =~ tr/\n//);
}

sub complain
{
	print "@_\n";
	$faults++;
}

# A lint that says nothing of its own has this exit status.
END { $? ||= $faults ? 1 : 0; }

1;
