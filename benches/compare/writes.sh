#!/usr/bin/env bash
# What does a commit of one row write? pgbee beside PostgreSQL 15, both with fsync, the same single-row UPDATE by key, prepared, at 1, 8 and 32 clients: commits a second, fsyncs
# a commit (perf counts fsync and fdatasync), bytes written to the disk a commit. Those are the block device's, so nothing else may write meanwhile: what /proc/PID/io says is counted
# in folios, which the page cache makes 256 KiB large for files that were written whole before, and PostgreSQL's log is such a file. Then what $GROWTH such commits let the
# directory grow by, not synced one by one. Needs perf that may count system calls, so root mostly.
# usage: writes.sh PGBEE_BINARY
set -euo pipefail
pgbee=$(realpath "$1")
seconds=${SECONDS_EACH:-10}
growth=${GROWTH:-1000000}
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] && [ -x "$bin/initdb" ] || { echo "install postgresql-15 for the peer" >&2; exit 1; }
work=$(mktemp -d)
pids=()
stop() { for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait 2>/dev/null || true; rm -rf "$work"; }
trap stop EXIT
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
declare -A at root directory
at[postgresql]=$(port)
at[pgbee]=$(port)
if [ "$(id -u)" = 0 ]; then chown postgres "$work"; as() { su postgres -c "$*"; }; else as() { bash -c "$*"; }; fi
as "$bin/initdb -D $work/postgresql -U postgres -A trust --locale=C -E UTF8 >/dev/null"
as "exec $bin/postgres -D $work/postgresql -p ${at[postgresql]} -c listen_addresses=127.0.0.1 -c unix_socket_directories=" 2>"$work/postgresql.log" &
pids+=($!)
"$pgbee" serve --data "$work/pgbee" --listen "127.0.0.1:${at[pgbee]}" --max-connections 100 2>"$work/pgbee.log" &
pids+=($!)
root[pgbee]=$!
on() { command psql -X -q -h 127.0.0.1 -p "${at[$1]}" -U postgres -v ON_ERROR_STOP=1 -At -c "$2"; }
for s in postgresql pgbee; do
    directory[$s]=$work/$s
    for _ in $(seq 100); do on $s 'SELECT 1' >/dev/null 2>&1 && break; sleep 0.1; done
    on $s "CREATE TABLE rows (id int PRIMARY KEY, n int NOT NULL, v text NOT NULL)" >/dev/null
    on $s "INSERT INTO rows SELECT i, 0, repeat('x', 84) FROM generate_series(0, 99999) i" >/dev/null
done
root[postgresql]=$(head -n 1 "$work/postgresql/postmaster.pid")
on postgresql 'VACUUM ANALYZE rows'
on postgresql 'CHECKPOINT'
cat >"$work/update.sql" <<'SQL'
\set id random(0, 99999)
UPDATE rows SET n = n + 1 WHERE id = :id;
SQL
processes() { echo "${root[$1]}"; pgrep -P "${root[$1]}" || true; }
device=/sys/dev/block/$(stat -c '%Hd:%Ld' "$work")/stat
written() { sync -f "$work"; awk '{ printf "%.0f\n", $7 * 512 }' "$device"; }
commits() { on "$1" 'SELECT sum(n) FROM rows'; }
printf '%-12s %8s %12s %16s %16s\n' server clients commits/s 'fsyncs each' 'bytes each'
for clients in 1 8 32; do
    for s in postgresql pgbee; do
        pgbench -n -h 127.0.0.1 -p "${at[$s]}" -U postgres -c $clients -j $((clients < 2 ? 1 : 2)) -M prepared -T $((seconds + 4)) -f "$work/update.sql" postgres >"$work/out" 2>&1 &
        bench=$!
        sleep 2
        before=$(written) first=$(commits $s) from=$(date +%s.%N)
        perf stat -x, -o "$work/perf" -e syscalls:sys_enter_fdatasync,syscalls:sys_enter_fsync -p "$(processes $s | paste -sd,)" sleep "$seconds" 2>/dev/null || true
        last=$(commits $s) after=$(written) to=$(date +%s.%N)
        wait $bench || { cat "$work/out" >&2; exit 1; }
        syncs=$(awk -F, '/sys_enter/ { sum += $1 } END { print sum + 0 }' "$work/perf")
        awk -v s=$s -v c=$clients -v n=$((last - first)) -v f="$syncs" -v b=$((after - before)) -v t0="$from" -v t1="$to" -v window="$seconds" \
            'BEGIN { t = t1 - t0; printf "%-12s %8d %12.0f %16.3f %16.0f\n", s, c, n / t, f / (n / t * window), b / n }'
    done
done
for s in postgresql pgbee; do
    [ "$growth" -gt 0 ] || break
    [ $s = postgresql ] && on $s CHECKPOINT
    before=$(du -sb "${directory[$s]}" | cut -f1) log=$(du -sb "$work/postgresql/pg_wal" | cut -f1)
    # The option is libpq's: every session of the run has it.
    PGOPTIONS='-c synchronous_commit=off' pgbench -n -h 127.0.0.1 -p "${at[$s]}" -U postgres -c 8 -j 2 -M prepared -t $((growth / 8)) -f "$work/update.sql" postgres >"$work/out" 2>&1 || { cat "$work/out" >&2; exit 1; }
    [ $s = postgresql ] && on $s CHECKPOINT
    after=0
    while now=$(du -sb "${directory[$s]}" | cut -f1) && [ "$now" != "$after" ]; do after=$now; sleep 3; done
    [ $s = postgresql ] && log=$(($(du -sb "$work/postgresql/pg_wal" | cut -f1) - log)) || log=0
    awk -v s=$s -v n="$growth" -v g=$((after - before)) -v l=$log 'BEGIN { printf "%s: %d commits grew the directory by %.1f MB, %.0f bytes each; %.1f MB of it write-ahead log kept\n", s, n, g / 1e6, g / n, l / 1e6 }'
done
