# What tests of the monitoring share: Prometheus and exporters on ports of localhost that are free, what they answer,
# and the text that Prometheus scrapes.
package RillflowMonitoring;
use strict;
use warnings FATAL => 'all';
use Exporter 'import';
use File::Basename qw(dirname);
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Test::More;

our @EXPORT = qw(
  monitoring missing_programs start_postgres_exporter start_sql_exporter start_prometheus
  fetch ask ask_value samples_of sample_key readme_block);

# The files that users take.
my $directory = dirname(__FILE__) . '/../../monitoring';

sub monitoring { return "$directory/$_[0]"; }

# missing_programs(program...): those that are not in the path.
sub missing_programs
{
	return grep { my $name = $_; !grep { -x "$_/$name" } split(/:/, $ENV{PATH}) } @_;
}

# ---- processes

my @running;

# run_until_up(url, environment, command...): as a child that ends with us; until that address answers.
sub run_until_up
{
	my ($url, $environment, @command) = @_;
	my $log = PostgreSQL::Test::Utils::tempdir() . '/' . @running . '.log';
	local %ENV = (%ENV, %$environment);
	my $child = IPC::Run::start(\@command, '<', \undef, '>', $log, '2>&1');

	push @running, $child;
	wait_until("$command[0] is up", sub {
		die "$command[0] ended: " . slurp_file($log) unless $child->pumpable;
		return HTTP::Tiny->new(timeout => 10)->get($url)->{success};
	});
	return $log;
}

END
{
	my $status = $?;
	$_->kill_kill(grace => 5) foreach @running;
	$? = $status;
}

sub free_address { return '127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port(); }

# start_postgres_exporter(node, role): its address, and its log.
sub start_postgres_exporter
{
	my ($node, $role) = @_;
	my $address = free_address();
	my $log = run_until_up(
		"http://$address/",
		{ DATA_SOURCE_NAME => 'host=' . $node->host . ' port=' . $node->port . " user=$role dbname=postgres sslmode=disable" },
		'prometheus-postgres-exporter', '--extend.query-path=' . monitoring('queries.yaml'),
		'--disable-default-metrics', '--disable-settings-metrics', "--web.listen-address=$address");

	return ($address, $log);
}

# start_sql_exporter(node, role): with the file that users take, but for the connection and the interval.
sub start_sql_exporter
{
	my ($node, $role) = @_;
	my $address = free_address();
	my $file = PostgreSQL::Test::Utils::tempdir() . '/sql_exporter.yml';
	my $url = "postgres://$role@/postgres?host=" . $node->host . '&port=' . $node->port . '&sslmode=disable';

	append_to_file($file, substituted('sql_exporter.yml', [ qr{postgres://\S+} => $url ], [ qr/interval: \S+/ => 'interval: 500ms' ]));
	my $log = run_until_up("http://$address/metrics", { LOGLEVEL => 'info' },
		'prometheus-sql-exporter', '-config.file', $file, '-web.listen-address', $address);
	return ($address, $log);
}

# start_prometheus(exporter, SQL exporter): with the file that users take, but for the targets and the intervals, and
# for the job of the second one where there is none.
sub start_prometheus
{
	my ($exporter, $sql_exporter) = @_;
	my $address = free_address();
	my $dir = PostgreSQL::Test::Utils::tempdir();

	append_to_file("$dir/prometheus.yml", substituted('prometheus.yml',
		[ qr/localhost:9187/ => $exporter ], [ qr/(?<=_interval: )\S+/ => '1s' ], [ qr/alerts\.yml/ => monitoring('alerts.yml') ],
		$sql_exporter ? [ qr/localhost:9237/ => $sql_exporter ] : [ qr/\n  # The name of a metric.*/s => '' ]));
	run_until_up("http://$address/-/ready", {},
		'prometheus', "--config.file=$dir/prometheus.yml", "--storage.tsdb.path=$dir/prometheus",
		"--web.listen-address=$address", '--log.level=warn');
	return $address;
}

# substituted(file, [pattern, text]...): each pattern has to be there.
sub substituted
{
	my ($file, @changes) = @_;
	my $text = slurp_file(monitoring($file));

	foreach (@changes)
	{
		my ($pattern, $new) = @$_;
		$text =~ s/$pattern/$new/g or die "$file has no $pattern";
	}
	return $text;
}

# ---- what they answer

sub fetch
{
	my ($url, $form) = @_;
	my $http = HTTP::Tiny->new(timeout => 30);
	my $answer = $form ? $http->post_form($url, $form) : $http->get($url);

	die "$url: $answer->{status} $answer->{content}" unless $answer->{success};
	return $answer->{content};
}

# ask(Prometheus, expression): what it says just now, a list of { metric, value }.
sub ask
{
	my ($prometheus, $expression) = @_;
	return @{ decode_json(fetch("http://$prometheus/api/v1/query", { query => $expression }))->{data}{result} };
}

# ask_value(Prometheus, expression): the value of the only series; undef where there is none.
sub ask_value
{
	my ($prometheus, $expression) = @_;
	my @series = ask($prometheus, $expression);

	die "$expression has " . @series . ' series' if @series > 1;
	return @series ? $series[0]{value}[1] : undef;
}

# sample_key(name, labels): empty labels are none; bounds are numbers.
sub sample_key
{
	my ($name, $labels) = @_;
	return join("\0", $name, map { "$_=" . ($_ eq 'le' ? lc($labels->{le}) + 0 : $labels->{$_}) }
		  grep { ($labels->{$_} // '') ne '' } sort keys %$labels);
}

# samples_of(text, labels left out...): the samples of a text in the format that Prometheus scrapes, by their keys.
sub samples_of
{
	my ($text, @ignored) = @_;
	my %samples;

	foreach my $line (grep { !/^(?:#|$)/ } split /\n/, $text)
	{
		my ($name, undef, $labels, $value) = $line =~ /^(\w+)(\{(.*)\})? (\S+)$/ or die "not a sample: $line";
		my %label;
		while (($labels // '') =~ /\G(\w+)="((?:[^"\\]|\\.)*)",?/gc)
		{
			my ($key, $escaped) = ($1, $2);
			$label{$key} = $escaped =~ s/\\(.)/$1 eq 'n' ? "\n" : $1/ger;
		}
		delete @label{@ignored};
		my $key = sample_key($name, \%label);
		die "twice: $line" if exists $samples{$key};
		$samples{$key} = $value;
	}
	return \%samples;
}

# ---- the README

# readme_block(pattern): the only block of SQL in which that is.
sub readme_block
{
	my ($pattern) = @_;
	my @blocks = grep { /$pattern/ } slurp_file("$directory/../README.md") =~ /^```sql\n(.*?)^```/msg;

	die 'the README has ' . @blocks . " blocks with $pattern" unless @blocks == 1;
	return $blocks[0];
}

1;
