#!/usr/bin/env bash
# pgbee against PostgreSQL 15, side by side: what does the wire, the SQL and the commit cost? Both with fsync, both on this machine's disk, both driven by
# the same psql and pgbench. Runs alternate between the two; the table shows medians of $ROUNDS and their ratio (above 1: pgbee is faster).
# usage: server.sh PGBEE_BINARY
set -euo pipefail
pgbee=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
demo=$here/../../server/demo
rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-4}
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] && [ -x "$bin/initdb" ] || { echo "install postgresql-15 for the peer" >&2; exit 1; }
work=$(mktemp -d)
pids=()
stop() { for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait 2>/dev/null || true; rm -rf "$work"; }
trap stop EXIT
psql() { command psql -X -q "$@"; }
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
as "exec $bin/postgres -D $work/pg -p $pg -c listen_addresses=127.0.0.1 -c unix_socket_directories=" 2>"$work/pg.log" &
pids+=($!)
# The cache is set, for its default goes by the memory of the machine and the peak shall be comparable.
"$pgbee" serve --data "$work/bee" --listen "127.0.0.1:$bee" --max-connections 100 --cache-mb 256 2>"$work/bee.log" &
beepid=$!
pids+=($beepid)
for p in $pg $bee; do
    for _ in $(seq 100); do psql -h 127.0.0.1 -p "$p" -U postgres -c 'SELECT 1' >/dev/null 2>&1 && break; sleep 0.1; done
done
on() { local p=$1; shift; psql -h 127.0.0.1 -p "$p" -U postgres -v ON_ERROR_STOP=1 -At "$@"; }
median() { grep . | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
row() { # name unit higher-is-better pg-figures bee-figures
    local a b
    a=$(median <<<"$4"); b=$(median <<<"$5")
    awk -v n="$1" -v u="$2" -v up="$3" -v a="$a" -v b="$b" 'BEGIN { printf "%-44s %12.4g %12.4g %-8s %6.2fx\n", n, a, b, u, up ? b / a : a / b }'
}
printf '%-44s %12s %12s %-8s %7s\n' question postgresql pgbee unit ratio

# COPY of the flights: text that is decompressed before the clock starts.
xz -dc "$demo/data/flights.csv.xz" >"$work/flights.csv"
for p in $pg $bee; do on "$p" -f "$demo/schema.sql" >/dev/null; done
timed() { local from; from=$(date +%s.%N); "$@" >/dev/null; awk -v a="$from" -v b="$(date +%s.%N)" 'BEGIN { print b - a }'; }
declare -A figures
add() { figures[$1]+="$2"$'\n'; }
for _ in $(seq "$rounds"); do
    for p in $pg $bee; do
        on "$p" -c 'TRUNCATE flights' >/dev/null
        add "copy$p" "$(timed on "$p" -c "\\copy flights FROM '$work/flights.csv' WITH (FORMAT csv, HEADER true, NULL 'NA')")"
    done
done
peak() { awk -v n="$1" '/VmHWM/ { printf "%-44s %12s %12.4g MiB\n", n, "-", $2 / 1024 }' "/proc/$beepid/status"; }
peak 'peak memory of pgbee after the COPYs'
row 'COPY of 336,776 flights' s 0 "${figures[copy$pg]}" "${figures[copy$bee]}"
for name in airlines airports planes; do
    xz -dc "$demo/data/$name.csv.xz" >"$work/$name.csv"
    for p in $pg $bee; do on "$p" -c "\\copy $name FROM '$work/$name.csv' WITH (FORMAT csv, HEADER true, NULL 'NA')"; done
done
on "$bee" -c 'CREATE TAG loaded'
on "$pg" -c 'VACUUM ANALYZE'

# pgbench: transactions a second of a script.
tps() { # port clients mode script
    pgbench -n -h 127.0.0.1 -p "$1" -U postgres -c "$2" -j "$(($2 < 2 ? 1 : 2))" -M "$3" -T "$seconds" -f "$4" postgres 2>/dev/null | awk '/^tps/ { print $3 }'
}
cat >"$work/select.sql" <<'SQL'
\set id random(1, 100000)
SELECT v FROM points WHERE id = :id;
SQL
cat >"$work/insert.sql" <<'SQL'
INSERT INTO log (v) VALUES ('a row of some length, as rows are');
SQL
for p in $pg $bee; do
    on "$p" -c "CREATE TABLE points (id int PRIMARY KEY, v text NOT NULL); INSERT INTO points SELECT i, 'value ' || i FROM generate_series(1, 100000) i; CREATE TABLE log (id bigserial PRIMARY KEY, v text)" >/dev/null
done
on "$pg" -c 'VACUUM ANALYZE points'
compare_tps() { # name clients mode script
    local key=$RANDOM$RANDOM
    for _ in $(seq "$rounds"); do for p in $pg $bee; do add "$key$p" "$(tps "$p" "$2" "$3" "$work/$4")"; done; done
    row "$1" tps 1 "${figures[$key$pg]}" "${figures[$key$bee]}"
}
compare_tps 'point SELECT, prepared, 1 client' 1 prepared select.sql
compare_tps 'point SELECT, prepared, 8 clients' 8 prepared select.sql
compare_tps 'point SELECT, simple, 1 client' 1 simple select.sql
for n in 1 8 32; do compare_tps "single-row INSERT commits, $n clients" "$n" prepared insert.sql; done

# Queries over all flights, by \timing of one psql session; the first run warms the caches and is not counted.
ms() { # port sql
    { echo '\timing on'; for _ in $(seq $((rounds + 1))); do echo "$2"; done; } | on "$1" | awk '/^Time:/ { print $2 }' | tail -n "$rounds"
}
group='SELECT carrier, count(*), avg(dep_delay) FROM flights%s GROUP BY carrier ORDER BY carrier;'
a=$(ms "$pg" "$(printf "$group" '')"); b=$(ms "$bee" "$(printf "$group" '')")
row 'GROUP BY over all flights' ms 0 "$a" "$b"
join='SELECT a.name, count(*), avg(f.arr_delay) FROM flights f JOIN airlines a USING (carrier) GROUP BY a.name ORDER BY 3 DESC;'
row 'join with aggregation' ms 0 "$(ms "$pg" "$join")" "$(ms "$bee" "$join")"
on "$bee" -c "UPDATE flights SET dep_delay = dep_delay + 1 WHERE carrier = 'UA' AND month = 1" >/dev/null
live=$(ms "$bee" "$(printf "$group" '')"); old=$(ms "$bee" "$(printf "$group" ' AS OF TAG loaded')")
awk -v a="$(median <<<"$live")" -v b="$(median <<<"$old")" 'BEGIN { printf "%-44s %12s %12.4g %-8s %6.2fx of live\n", "GROUP BY AS OF the loaded version", "-", b, "ms", b / a }'
peak 'peak memory of pgbee after everything'
