#!/usr/bin/env bash
# Every comparison, medians, each against its peer in the same run. usage: benches/run.sh [engine] [writes] [server] [replication] [udx] [discovery] [connections] [pgbench]     (all when none is named)
#
#   engine   the bee against JavaScript's hyperbee, and its cost from 10,000 to 10,000,000 keys (BENCH_SIZES)
#   writes   what a commit of one row writes to disk, and lets a database grow by, beside PostgreSQL's (SECONDS_EACH, GROWTH)
#   server   pgbee against a PostgreSQL 15 with its default durability, both driven by pgbench and psql
#   replication   a whole copy against JavaScript's, lookups over a slow link, lookups on a copy against the writer's (BENCH_ROWS)
#   udx   streams against udx-native's, on loopback and over 50 ms there and back at 0 to 10 % loss (BENCH_UDX_MEGABYTES, ROUNDS)
#   connections   1,000 silent clients and 300 that wait for one row, against PostgreSQL 15 (BENCH_IDLE, SECONDS_EACH)
#   pgbench   pgbench -i -s 10, its standard script and -S, on pgbee and on a PostgreSQL 15 with its default durability (SCALE, ROUNDS, SECONDS_EACH, CACHE_MB, CLIENTS)
#   discovery   from a key to the first row on a server that has nothing, against hyperswarm and hyperbee (BENCH_ROUNDS)
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
parts=${*:-engine writes server replication udx discovery connections pgbench}
for part in $parts; do
    case $part in
    engine)
        cargo build --release -p pgbee-benches
        "$target/release/bee" ${BENCH_SIZES:-10000 100000 1000000 10000000}
        if command -v npm >/dev/null 2>&1; then
            (cd tests/interop && npm ci --no-audit --no-fund --silent && echo "hyperbee (JavaScript), ${BENCH_JS_ENTRIES:-1000000} keys" && node ../../benches/compare/hyperbee.mjs "${BENCH_JS_ENTRIES:-1000000}")
        else
            echo "node and npm are not installed: no JavaScript peer"
        fi
        ;;
    writes)
        cargo build --release -p pgbee-benches -p pgbee-server
        "$target/release/commits" "${SECONDS_EACH:-5}" "${GROWTH:-1000000}"
        bash benches/compare/writes.sh "$target/release/pgbee"
        ;;
    server)
        cargo build --release -p pgbee-server --bin pgbee
        bash benches/compare/server.sh "$target/release/pgbee"
        ;;
    pgbench)
        cargo build --release -p pgbee-server --bin pgbee
        bash benches/compare/pgbench.sh "$target/release/pgbee"
        ;;
    replication)
        cargo build --release -p pgbee-server -p pgbee-benches
        "$target/release/replication" "${BENCH_ROWS:-1000000}" "${BENCH_JS_ENTRIES:-100000}"
        ;;
    udx)
        cargo build --release -p pgbee-benches
        "$target/release/udx" "${BENCH_UDX_MEGABYTES:-50}" "${ROUNDS:-3}"
        ;;
    discovery)
        cargo build --release -p pgbee-server -p pgbee-benches
        "$target/release/discovery" 100000 "${BENCH_ROUNDS:-11}"
        ;;
    connections)
        cargo build --release -p pgbee-server -p pgbee-benches
        ulimit -n "$(ulimit -Hn)"
        "$target/release/connections" "${BENCH_IDLE:-1000}" "${SECONDS_EACH:-4}"
        ;;
    *) echo "there is no bench $part" >&2; exit 2 ;;
    esac
done
