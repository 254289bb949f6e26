#!/usr/bin/env bash
# Records expected/*.out from a PostgreSQL 15: makes a cluster in a temporary directory, runs every spec on it (once, then again, for what is not the same every time),
# and stops it. usage: record.sh [again-runs, 4]   PGBEE_SPEC=name records the specs called so.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${PGBIN:-/usr/lib/postgresql/15/bin}
directory=$(mktemp -d)
port=$((20000 + RANDOM % 20000))
as() { if [ "$(id -u)" = 0 ]; then su postgres -c "$1"; else bash -c "$1"; fi; }
[ "$(id -u)" = 0 ] && chown postgres "$directory"
trap 'as "$bin/pg_ctl -D $directory/data -m immediate stop" >/dev/null 2>&1 || true; rm -rf "$directory"' EXIT
as "$bin/initdb -D $directory/data -A trust -U postgres --locale=C -E UTF8" >/dev/null
# Nothing of its own may wake up and take locks.
as "$bin/pg_ctl -D $directory/data -w -l $directory/log -o '-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$directory -c fsync=off -c autovacuum=off' start" >/dev/null
PGBEE_POSTGRES=$port PGBEE_RECORD=1 cargo test -p pgbee-tests --test isolation -- outcomes
for _ in $(seq "${1:-4}"); do PGBEE_POSTGRES=$port PGBEE_RECORD=again cargo test -p pgbee-tests --test isolation -- outcomes; done
