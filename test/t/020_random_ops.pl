# A random sequence of everything that one can do to a store, against a model of it in Perl: what each step answers
# or fails with is foretold, and every so often the whole store is compared with the model, event by event. The seed
# is printed; RF_SEED sets it, RF_STEPS how many steps each backend gets.
use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RillflowCluster;
use Storable qw(dclone);
use Test::More;

my $seed = $ENV{RF_SEED} || (time() ^ ($$ << 8)) & 0x7fffffff;
my $steps = $ENV{RF_STEPS} || ($ENV{RF_SLOW_TESTS} ? 5000 : 1000);
my $chunk = 100;
my @letters = ('a' .. 'f', '0' .. '9');
my @months = map { sprintf '2024-%02d', $_ } 1 .. 6;

# The model: {streams}{letter} = {last, archived ('', marked, closed), events => [{label, seq, tier, at, body,
# tombstone}]}, {keys}{key} = [letter, number], {unknown}{letter} for those without a row of their own.
my ($model, $backend, $labels, $step, @script, @expected);

srand($seed);
note("RF_SEED=$seed");

sub pick { return $_[ int rand @_ ]; }
sub chance { return rand() < $_[0]; }
sub id { return "'00000000-0000-0000-0000-00000000000$_[0]'"; }
sub label { return 'e' . ++$labels; }
sub at { return sprintf '%s-%02d %02d:00:00+00', pick(@months), 1 + int rand 28, int rand 24; }
sub month { return substr($_[0], 0, 7) . '-01'; }
sub redirects { return $model->{redirect} || $backend eq 'partitioned'; }

# say_step(sql, sqlstate, answer): a step of the script, what it is to end with, and what it answers.
sub say_step
{
	my ($sql, $state, $answer) = @_;

	$step++;
	push @script, "\\echo step $step", $sql, '\echo state :SQLSTATE';
	push @expected, [ $step, $sql, $state // '00000', $answer ];
	return $state;
}

sub new_event
{
	my %event = (label => label(), at => at(), tombstone => chance(0.1) ? 'true' : 'false', key => '');
	$event{body} = pick('1', '"text"', qq({"a": [1, null, "x'y"]}), 'null', '[]');
	return \%event;
}

# land(letter, tier, events...): the next numbers of the stream go to these events.
sub land
{
	my ($letter, $tier, @events) = @_;
	my $stream = $model->{streams}{$letter} //= { last => 0, archived => '', events => [] };

	for my $event (@events)
	{
		push @{ $stream->{events} }, { %$event, seq => ++$stream->{last}, tier => $tier };
		$model->{keys}{ $event->{key} } = [ $letter, $stream->{last} ] if $event->{key} ne '';
	}
	$stream->{archived} = '' if $tier eq 'hot' && $stream->{archived} eq 'closed';
}

sub stream
{
	my ($letter) = @_;
	return $model->{streams}{$letter} // { last => 0, archived => '', events => [] };
}

# headers(event): sometimes with an idempotency key, often one that was used.
sub headers
{
	my ($event) = @_;
	$event->{key} = chance(0.1) ? 'k' . int rand 30 : '';
	return $event->{key} eq '' ? pick('{}', '{"x": null}') : qq({"idempotency_key": "$event->{key}"});
}

sub quote
{
	my ($text) = @_;
	$text =~ s/'/''/g;
	return "'$text'";
}

# Steps.

sub append
{
	my $letter = pick(@letters);
	my $stream = stream($letter);
	my $event = new_event();
	my $headers = headers($event);
	my $allow = chance(0.3) ? 'true' : 'false';
	my $wanted = pick('NULL', 'NULL', $stream->{last}, $stream->{last} + pick(-1, 1, 5));
	my $owner = $model->{keys}{ $event->{key} };
	my $sql = sprintf q(SELECT 'answer ' || stream_seq FROM rf_append(%s, '%s', %s, %s, expected_seq => %s, created_at => '%s', is_tombstone => %s, allow_archived => %s);),
	  id($letter), $event->{label}, quote($event->{body}), quote($headers), $wanted, $event->{at}, $event->{tombstone}, $allow;

	return say_step($sql, '22023') if $wanted ne 'NULL' && $wanted < 0;
	return say_step($sql, 'RF003') if $owner && $owner->[0] ne $letter;
	return say_step($sql, undef, $owner->[1]) if $owner;
	return say_step($sql, 'RF002') if $stream->{archived} eq 'marked' && $allow eq 'false';
	return say_step($sql, 'RF001') if $wanted ne 'NULL' && $wanted != $stream->{last};
	land($letter, $stream->{archived} ne '' && $allow eq 'true' && redirects() ? 'cold' : 'hot', $event);
	return say_step($sql, undef, stream($letter)->{last});
}

sub append_batch
{
	my $letter = pick(@letters);
	my $stream = stream($letter);
	my @events = map { new_event() } 1 .. 1 + int rand 5;
	my $allow = chance(0.3) ? 'true' : 'false';
	my $first = $stream->{last} + 1;
	my $sql = sprintf q(SELECT 'answer ' || min(stream_seq) FROM rf_append_batch(%s, %s, allow_archived => %s);), id($letter),
	  quote('[' . join(', ', map { sprintf '{"type": "%s", "body": %s, "created_at": "%s", "is_tombstone": %s}',
				@$_{qw(label body at tombstone)} } @events) . ']'), $allow;

	return say_step($sql, 'RF002') if $stream->{archived} eq 'marked' && $allow eq 'false';
	land($letter, $stream->{archived} ne '' && $allow eq 'true' && redirects() ? 'cold' : 'hot', @events);
	return say_step($sql, undef, $first);
}

# raw(numbered, copy): rows of several streams in one statement, each with its number or none.
sub raw
{
	my ($numbered, $copy) = @_;
	my $before = dclone($model);
	my (@rows, $state, %seen);

	for (1 .. 1 + int rand 6)
	{
		my $letter = pick(@letters[ 0 .. 5 ], pick(@letters));
		my $event = new_event();
		my $headers = chance(0.5) ? headers($event) : '{}';
		my $stream = stream($letter);
		my $number = $stream->{last} + 1;
		if ($numbered && !$state && chance(0.05))
		{
			$number += pick(-1, -2, 2);
			$state = $number <= 0 ? '22023' : $number > $stream->{last} ? 'RF001' : '23505';
		}
		my @values = ("00000000-0000-0000-0000-00000000000$letter", @$event{qw(label body)}, $headers,
			@$event{qw(tombstone at)}, month($event->{at}));
		push @values, $number if $numbered;
		push @rows, \@values;
		next if $state;
		$seen{ $event->{key} }++ if $event->{key} ne '';
		if ($event->{key} ne '' && ($before->{keys}{ $event->{key} } || $seen{ $event->{key} } > 1))
		{
			$state = 'key';
			next;
		}
		land($letter, $stream->{archived} ne '' && redirects() ? 'cold' : 'hot', $event);
	}
	# A key that is taken is told at the end of the statement, when a wrong number has failed already; which of two
	# errors it is depends on the stream that has it.
	$state = '23505|RF003|21000' if defined $state && $state eq 'key';
	if (defined $state)
	{
		$state .= '|RF001|23505|22023' if $state =~ /RF003/;
		$model = $before;
	}
	# The variable SQLSTATE of psql 15 tells nothing of a COPY that failed; the comparison of the store does.
	$state = '\w+' if defined $state && $copy;
	my $columns = 'stream_id, event_type, body, headers, is_tombstone, created_at, bucket_month' . ($numbered ? ', stream_seq' : '');
	return say_step("INSERT INTO events ($columns) VALUES "
		  . join(', ', map { '(' . join(', ', map { quote($_) } @$_) . ')' } @rows) . ';', $state)
	  if !$copy;
	return say_step("COPY events ($columns) FROM STDIN;\n"
		  . join("\n", map { join "\t", map { s/\\/\\\\/gr } @$_ } @rows) . "\n\\.", $state);
}

sub mark
{
	my $letter = pick(@letters);
	my $stream = $model->{streams}{$letter} //= { last => 0, archived => '', events => [] };
	$stream->{archived} = 'marked';
	return say_step('SELECT \'answer \' || last_seq FROM rf_archive_mark(' . id($letter) . ", 'a ''reason''');", undef, $stream->{last});
}

sub reactivate
{
	my $letter = pick(@letters);
	my $stream = $model->{streams}{$letter};
	my $restore = pick('true', 'true', 'false');
	my $sql = 'SELECT \'answer \' || last_seq FROM rf_archive_reactivate(' . id($letter) . ", $restore);";

	return say_step($sql, '42704') if !$stream;
	$stream->{archived} = '';
	if ($restore eq 'true') { $_->{tier} = 'hot' for @{ $stream->{events} }; }
	return say_step($sql, undef, $stream->{last});
}

sub move
{
	my ($run) = @_;
	my $before = pick('infinity', '-infinity', (map { "$_-01" } @months), (map { "$_-15" } @months));
	my $letter = chance(0.3) ? pick(@letters) : undef;
	my $archived = chance(0.3);
	my $dry = !$run && chance(0.2);
	my $arguments = join ', ', "'$before'", 'batch_size => ' . pick(1, 2, 7, 100),
	  defined $letter ? 'stream_id => ' . id($letter) : (), $archived ? 'only_archived => true' : (), $dry ? 'dry_run => true' : ();
	my $sql = $run ? "CALL rf_archive_run($arguments);" : "SELECT 'answer ' || events_moved || ' ' || streams_touched FROM rf_archive_move($arguments);";
	my ($moved, $touched) = (0, 0);

	return say_step($sql, '42704') if defined $letter && !$model->{streams}{$letter};
	for my $name (keys %{ $model->{streams} })
	{
		my $stream = $model->{streams}{$name};
		next if defined $letter && $letter ne $name || $archived && $stream->{archived} eq '';
		my @taken = grep { $_->{tier} eq 'hot' && $before ne '-infinity' && ($before eq 'infinity' || $_->{at} lt $before) } @{ $stream->{events} };
		next if !@taken;
		$moved += @taken;
		$touched++;
		next if $dry;
		$_->{tier} = 'cold' for @taken;
		$stream->{archived} = 'closed'
		  if !$archived && $stream->{archived} eq '' && !grep { $_->{tier} eq 'hot' } @{ $stream->{events} };
	}
	return say_step($sql, undef, $run ? undef : "$moved $touched");
}

# A batch of the replay, hot or whole, against a query of events_all on the same snapshot.
sub read_all
{
	my $whole = pick('true', 'false');
	my $types = pick('NULL', 'NULL', 'ARRAY(SELECT event_type FROM events_all WHERE global_seq % 3 = 0)');
	my $after = pick(0, '(SELECT coalesce(max(global_seq), 0) - ' . int(rand 50) . ' FROM events_all)', 1 + int rand 500);
	my $limit = pick(1, 5, 50, 'NULL');
	my $columns = 'global_seq, stream_id, stream_seq, event_type, body, headers, causation_id, correlation_id, event_version,'
	  . ' tenant_id, user_id, is_tombstone, created_at, retention_class';

	return say_step("SELECT 'answer ' || (ARRAY(SELECT e::text FROM rf_read_all($after, $limit, $types, $whole) AS e)"
		  . " = ARRAY(SELECT ROW($columns)::text FROM events_all WHERE global_seq > $after AND ($types IS NULL OR event_type = ANY ($types))"
		  . " AND ($whole OR retention_class = 'hot') ORDER BY global_seq LIMIT $limit));", undef, 'true');
}

# The labels of a stream, or of a part of it.
sub read_stream
{
	my $letter = pick(@letters);
	my $backward = chance(0.4) ? 'true' : 'false';
	my $after = pick(0, 0, 1, 3, stream($letter)->{last});
	my $limit = pick('NULL', 'NULL', 1, 3);
	my $whole = pick('true', 'false');
	my @events = grep { $whole eq 'true' || $_->{tier} eq 'hot' } @{ stream($letter)->{events} };

	@events = grep { $backward eq 'true' ? $after == 0 || $_->{seq} < $after : $_->{seq} > $after } @events;
	@events = reverse @events if $backward eq 'true';
	splice @events, $limit if $limit ne 'NULL' && @events > $limit;
	return say_step("SELECT 'answer ' || coalesce(string_agg(event_type || retention_class, ' '), 'nothing') FROM rf_read_stream("
		  . id($letter) . ", $after, $limit, $backward, $whole);", undef,
		join(' ', map { "$_->{label}$_->{tier}" } @events) || 'nothing');
}

sub create_partition
{
	return say_step(sprintf q(SELECT FROM rf_create_partition('%s', '%s-01');), pick('hot', 'cold'), pick(@months));
}

sub toggle
{
	my $to = pick('true', 'false');
	my $which = pick('redirect', 'redirect', 'notify', 'include_archived');
	$model->{redirect} = $to eq 'true' if $which eq 'redirect';
	return say_step("SELECT FROM rf_archive_set_$which($to);");
}

sub forbidden
{
	return say_step(pick('DELETE FROM events;', "UPDATE events SET body = '0';", 'TRUNCATE events_archive;',
			'DELETE FROM events_hot_default;', 'INSERT INTO events_archive SELECT *, now(), NULL FROM events LIMIT 1;'), '55000');
}

# A transaction that is kept or not, with savepoints that are kept or not.
sub transaction
{
	my $before = dclone($model);
	my $failed = 0;

	say_step('BEGIN;');
	for (1 .. 1 + int rand 5)
	{
		my $saved = dclone($model);
		say_step('SAVEPOINT s;');
		my $state;
		for (1 .. 1 + int rand 3)
		{
			$state = one_step(1);
			last if defined $state;
		}
		if (defined $state || chance(0.4))
		{
			say_step('ROLLBACK TO s;');
			$model = $saved;
		}
		elsif (chance(0.5))
		{
			say_step('RELEASE s;');
		}
	}
	if (chance(0.4))
	{
		say_step('ROLLBACK;');
		$model = $before;
	}
	else
	{
		say_step('COMMIT;');
	}
	return;
}

# one_step(inside a transaction): any of them; its SQLSTATE when it fails.
sub one_step
{
	my ($inside) = @_;
	my $dice = rand;

	return chance(0.5) ? read_all() : read_stream() if chance(0.15);
	return append() if $dice < 0.25;
	return append_batch() if $dice < 0.33;
	return raw(1, 0) if $dice < 0.43;
	return raw(0, 0) if $dice < 0.51;
	return raw(chance(0.5), 1) if $dice < 0.57;
	return mark() if $dice < 0.65;
	return reactivate() if $dice < 0.72;
	return move(0) if $dice < 0.81;
	return $inside ? move(0) : move(1) if $dice < 0.85;
	return $inside ? append() : create_partition() if $dice < 0.88;
	return toggle() if $dice < 0.92;
	return forbidden() if $dice < 0.94;
	return $inside ? raw(1, 0) : transaction();
}

# The store as text, of the model and of the database.
sub expected_state
{
	my @lines;

	for my $letter (sort keys %{ $model->{streams} })
	{
		my $stream = $model->{streams}{$letter};
		push @lines, "$letter $stream->{last} $stream->{archived}";
		push @lines, join ' ', $letter, $_->{seq}, @$_{qw(label tier at tombstone)}, $_->{body} =~ s/\s//gr
		  for @{ $stream->{events} };
	}
	push @lines, map { "$_ $model->{keys}{$_}[0] $model->{keys}{$_}[1]" } sort keys %{ $model->{keys} };
	return join "\n", @lines;
}

my $state_query = <<'SQL';
SET timezone = 'UTC';
SELECT line FROM (
	SELECT 1, right(stream_id::text, 1) COLLATE "C", 0, right(stream_id::text, 1) || ' ' || last_seq || ' '
		|| CASE WHEN archived_at IS NULL THEN '' WHEN archived_by = 'archive_move' THEN 'closed' ELSE 'marked' END
	FROM rf_streams
	UNION ALL
	SELECT 1, right(stream_id::text, 1) COLLATE "C", stream_seq, right(stream_id::text, 1) || ' ' || stream_seq || ' ' || event_type || ' '
		|| retention_class || ' ' || created_at || ' ' || is_tombstone || ' ' || regexp_replace(body::text, '\s', '', 'g')
	FROM events_all
	UNION ALL
	SELECT 2, idempotency_key COLLATE "C", 0, idempotency_key || ' ' || right(stream_id::text, 1) || ' ' || stream_seq
	FROM rf_event_keys
) AS l(part, name, n, line)
ORDER BY part, name, n
SQL

# compare_answers(output): each step against what was foretold; the first that differs, if any.
sub compare_answers
{
	my ($output) = @_;
	my %answers = $output =~ /^step (\d+)\n(.*?)(?=^step|\z)/msg;

	for (@expected)
	{
		my ($number, $sql, $state, $answer) = @$_;
		my ($got_state) = ($answers{$number} // '') =~ /^state (\w+)$/m;
		my ($got_answer) = ($answers{$number} // '') =~ /^answer (.*)$/m;
		return "step $number ended with " . ($got_state // 'nothing') . " and not with $state: $sql"
		  if !defined $got_state || $got_state !~ /^(?:$state)$/;
		return "step $number answered " . ($got_answer // 'nothing') . " and not $answer: $sql"
		  if defined $answer && ($got_answer // '') ne $answer;
	}
	return '';
}

sub difference
{
	my ($got, $expected) = @_;
	my %expected = map { $_ => 1 } split /\n/, $expected;
	my %got = map { $_ => 1 } split /\n/, $got;

	return join "\n", (map { "too much: $_" } grep { !$expected{$_} } sort keys %got),
	  map { "missing: $_" } grep { !$got{$_} } sort keys %expected;
}

for (qw(dual_table partitioned))
{
	$backend = $_;
	my $node = new_store("random_$backend", 'fsync = off');
	$node->safe_psql('postgres', "SELECT rf_archive_set_backend('$backend')");
	($model, $labels, $step) = ({ streams => {}, keys => {}, redirect => 0 }, 0, 0);

	my $wrong = '';
	my %seen = (hot => 0, cold => 0);
	while ($step < $steps && $wrong eq '')
	{
		my $first = $step + 1;
		(@script, @expected) = ();
		one_step(0) while $step < $first + $chunk;
		my (undef, $output, $err) = $node->psql('postgres', join("\n", '\unset ON_ERROR_STOP', '\set SQLSTATE 00000', @script), on_error_stop => 0);
		$wrong = compare_answers($output);
		my $state = $node->safe_psql('postgres', $state_query);
		$wrong .= "\n" . difference($state, expected_state()) if $state ne expected_state();
		$wrong .= "\n" . violations($node);
		$wrong =~ s/^\n*|\n*$//g;
		$seen{ $_->{tier} }++ for map { @{ $_->{events} } } values %{ $model->{streams} };
		is($wrong, '', "$backend: steps $first to $step") or diag("RF_SEED=$seed\n" . join "\n", @script);
	}

	# The sequence was one that did something: events seen at the comparisons, added up.
	cmp_ok($seen{$_}, '>', $steps / 10, "$backend: there were $_ events") for qw(hot cold);
	is(broken_indexes($node), '', "$backend: indexes and heaps agree");
	$node->stop;
}

done_testing();
