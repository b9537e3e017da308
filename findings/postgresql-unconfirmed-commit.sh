#!/bin/sh
# Needs the programs of PostgreSQL 15 (Debian: postgresql-15) and, as root, the user nobody; exits 77 without them.
#
# PostgreSQL 15 (15.18 here): neither statement_timeout nor a client's cancel keeps a commit that no standby has
#   confirmed from success.
#
# Source: the documentation of statement_timeout ("abort any statement that takes more than the specified amount of
#   time"), of synchronous_standby_names, and of pg_cancel_backend ("cancels the current query").
# One would guess: with a synchronous standby that is away, an INSERT outside of a transaction fails at its
#   statement_timeout; and where it is cancelled, the client gets an error, as from any cancelled statement.
# What is so: the wait for the standby is after the statement, so that its timeout does not count it: the INSERT waits
#   without limit. A cancel then ends the wait, but reports success, with a warning that most drivers put into a log
#   or nowhere; and from then on everybody reads the row, which exists on this one disk.
# Output, with statement_timeout = 100 ms:
#   | three seconds later the INSERT is active and waits for SyncRep
#   | another session sees rows: 0
#   | after pg_cancel_backend the client gets INSERT 0 1, with exit code 0
#   | another session sees rows: 1
# Why it matters: an application that bounds its statements by statement_timeout has no bound here, and a pool that
#   cancels what takes too long, as most do, turns "no standby has this" into an acknowledged write. A failover then
#   loses it. Who needs the truth must treat warning 01000 on commit as "outcome known here only", or end the session,
#   not the query.

set -eu
expected=$(sed -n 's/^#   | //p' "$0")
bin=
for folder in /usr/lib/postgresql/15/bin "$(dirname "$(command -v initdb || echo /none/initdb)")"; do
    [ -x "$folder/initdb" ] && [ -x "$folder/psql" ] && case $("$folder/postgres" --version) in
        *" 15."*) bin=$folder; break ;;
    esac
done
[ -n "$bin" ] || { echo "skipped: there is no PostgreSQL 15"; exit 77; }

# The server refuses to run as root.
as_user=
if [ "$(id -u)" = 0 ]; then
    id nobody >/dev/null 2>&1 && command -v setpriv >/dev/null || { echo "skipped: cannot become nobody"; exit 77; }
    as_user="setpriv --reuid=nobody --regid=$(id -g nobody) --clear-groups"
fi
folder=$(mktemp -d)
trap '$as_user "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM
[ -z "$as_user" ] || chown nobody "$folder"
cd "$folder"
export PGHOST="$folder" PGUSER=tester PGDATABASE=postgres LC_ALL=C

$as_user "$bin/initdb" -D data -U tester -A trust -N >/dev/null
cat >>data/postgresql.conf <<CONF
listen_addresses = ''
unix_socket_directories = '$folder'
synchronous_standby_names = 'standby'
CONF
$as_user "$bin/pg_ctl" -D data -w -l "$folder/log" start >/dev/null
sql() {
    "$bin/psql" -XAtq -c "$1"
}
sql "SET synchronous_commit = local; CREATE TABLE t (id int)" >/dev/null

# Waits for a query to say t.
wait_for() {
    deadline=$(($(date +%s) + 60))
    until [ "$(sql "$1")" = t ]; do
        [ "$(date +%s)" -lt "$deadline" ] || { echo "did not come about within 60 s: $1"; exit 2; }
        sleep 0.05
    done
}

run() {
    "$bin/psql" -XAt -c "SET statement_timeout = '100ms'" -c "INSERT INTO t VALUES (1)" >client.out 2>client.err &
    client=$!
    wait_for "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'INSERT%' AND state = 'active'
        AND wait_event = 'SyncRep' AND clock_timestamp() - query_start > '3 s'"
    echo "three seconds later the INSERT is active and waits for SyncRep"
    echo "another session sees rows: $(sql "SELECT count(*) FROM t")"
    sql "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'" >/dev/null
    code=0
    wait $client || code=$?
    echo "after pg_cancel_backend the client gets $(tail -1 client.out), with exit code $code"
    grep -q "The transaction has already committed locally" client.err || echo "and no warning"
    echo "another session sees rows: $(sql "SELECT count(*) FROM t")"
}

actual=$(run)
printf '%s\n' "$actual"
if [ "$actual" != "$expected" ]; then
    printf 'CHANGED: this was expected:\n%s\n' "$expected"
    exit 1
fi
