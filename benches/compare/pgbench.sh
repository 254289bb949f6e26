#!/usr/bin/env bash
# Unmodified pgbench on pgbee and on PostgreSQL 15, side by side: what does a transaction cost, alone and among others?
# Both with fsync, both on this machine's disk, both with the same memory for pages or nodes. Runs alternate between the two; the table shows medians of $ROUNDS and
# their ratio (above 1: pgbee is faster). After every run of the standard script the sums of branches, tellers, accounts and history must agree,
# and no transaction may have failed. The processor time a transaction takes is that of the server's processes.
# usage: pgbench.sh PGBEE_BINARY          (SCALE=10 ROUNDS=3 SECONDS_EACH=10 CACHE_MB=1024 CLIENTS="1 8 32")
set -euo pipefail
pgbee=$(realpath "$1")
rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-10}
scale=${SCALE:-10}
cache=${CACHE_MB:-1024}
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] && [ -x "$bin/initdb" ] || { echo "install postgresql-15 for the peer" >&2; exit 1; }
work=$(mktemp -d)
pids=()
stop() { for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait 2>/dev/null || true; rm -rf "$work"; }
trap stop EXIT
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
pg=$(port)
bee=$(port)
if [ "$(id -u)" = 0 ]; then
    chown postgres "$work"
    as() { su postgres -c "$*"; }
else
    as() { bash -c "$*"; }
fi
as "$bin/initdb -D $work/pg -U postgres -A trust --locale=C -E UTF8 >/dev/null"
as "exec $bin/postgres -D $work/pg -p $pg -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c shared_buffers=${cache}MB" 2>"$work/pg.log" &
pids+=($!)
"$pgbee" serve --data "$work/bee" --listen "127.0.0.1:$bee" --max-connections 100 --cache-mb "$cache" 2>"$work/bee.log" &
beepid=$!
pids+=($beepid)
on() { local p=$1; shift; psql -X -q -h 127.0.0.1 -p "$p" -U postgres -v ON_ERROR_STOP=1 -At "$@" postgres; }
for p in $pg $bee; do
    for _ in $(seq 100); do on "$p" -c 'SELECT 1' >/dev/null 2>&1 && break; sleep 0.1; done
done
for p in $pg $bee; do
    pgbench -i -s "$scale" -q -h 127.0.0.1 -p "$p" -U postgres postgres 2>&1 | tail -n 1
    # All of it is read once, so that no run pays for the first look.
    on "$p" -c 'SELECT sum(abalance), max(filler) FROM pgbench_accounts' >/dev/null
done

# Clock ticks the server's processes have used.
postmaster=$(head -n 1 "$work/pg/postmaster.pid")
ticks() {
    if [ "$1" = "$bee" ]; then awk '{ print $14 + $15 }' "/proc/$beepid/stat"; return; fi
    # Backends that have gone are counted with their parent; one that is just going would be counted nowhere.
    for _ in $(seq 100); do pgrep -P "$postmaster" -f '127\.0\.0\.1\(' >/dev/null || break; sleep 0.05; done
    { awk '{ print $14 + $15 + $16 + $17 }' "/proc/$postmaster/stat"; for pid in $(pgrep -P "$postmaster"); do awk '{ print $14 + $15 }' "/proc/$pid/stat" 2>/dev/null || true; done; } | awk '{ s += $1 } END { print s }'
}
invariants() {
    local sums
    sums=$(on "$1" -c "SELECT (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history) AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history) AND (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)")
    [ "$sums" = t ] || { echo "the sums differ after a run on port $1" >&2; exit 1; }
}
median() { grep . | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
# run PORT CLIENTS MODE [-S]: "tps microseconds"
run() {
    local p=$1 clients=$2 mode=$3 before out
    shift 3
    before=$(ticks "$p")
    out=$(pgbench -n -h 127.0.0.1 -p "$p" -U postgres -c "$clients" -j "$((clients < 2 ? 1 : 2))" -M "$mode" -T "$seconds" "$@" postgres 2>&1) || { echo "$out" >&2; exit 1; }
    grep -q 'number of failed transactions: 0 ' <<<"$out" || { echo "$out" >&2; exit 1; }
    [ $# -gt 0 ] || invariants "$p"
    awk -v ticks="$(($(ticks "$p") - before))" -v hz="$(getconf CLK_TCK)" '/^number of transactions actually/ { split($6, n, "/") } /^tps/ { printf "%s %.1f\n", $3, ticks * 1000000 / hz / n[1] }' <<<"$out"
}
printf '| %s | %s | %s | %s | %s | %s |\n| --- | ---: | ---: | ---: | ---: | ---: |\n' "scale $scale" PostgreSQL pgbee ratio 'server µs a transaction: PostgreSQL' pgbee
compare() { # name clients mode [-S]
    local name=$1 a= b= x
    shift
    for _ in $(seq "$rounds"); do
        x=$(run "$pg" "$@"); a+="$x"$'\n'
        x=$(run "$bee" "$@"); b+="$x"$'\n'
    done
    awk -v n="$name" -v a="$(median <<<"$a")" -v b="$(median <<<"$b")" -v ca="$(awk '{ print $2 }' <<<"$a" | median)" -v cb="$(awk '{ print $2 }' <<<"$b" | median)" \
        'BEGIN { printf "| %s | %.0f /s | %.0f /s | %.2f | %.0f | %.0f |\n", n, a, b, b / a, ca, cb }'
}
for n in 1 8; do compare "\`-S\` prepared, $n clients" "$n" prepared -S; done
for n in 1 8; do compare "\`-S\` simple, $n clients" "$n" simple -S; done
for mode in simple prepared; do
    for n in ${CLIENTS:-1 8 32}; do compare "standard script, $mode, $n clients" "$n" "$mode"; done
done
awk '/VmHWM/ { printf "peak memory of pgbee: %.0f MiB\n", $2 / 1024 }' "/proc/$beepid/status"
