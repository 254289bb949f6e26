#!/usr/bin/env bash
# Loads the flights into a running server, unless they are there: COPY over the wire, a bar while it runs, then a second commit that corrects some rows.
# usage: load.sh [psql connection words...]     e.g. load.sh -h 127.0.0.1 -p 5433 -U postgres
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
sql() { psql -X -q -v ON_ERROR_STOP=1 "${connection[@]}" "$@"; }
connection=("$@")

# pv draws the bar; without it the load is silent but the same. A compressed file is measured by what is read of it.
bar() {
    if command -v pv >/dev/null 2>&1 && [ -t 2 ]; then pv -N "$(printf '%-9s' "$1")" -p -t -e -r "$2"; else cat "$2"; fi
}

count() { sql -At -c "SELECT count(*) FROM $1"; }

# Each step looks whether it is done, so that a load that was interrupted anywhere is completed by running it again.
if [ "$(count "pg_catalog.pg_class WHERE relname = 'flights'")" != 0 ]; then
    echo "The flights are here already: $(count flights) rows."
else
    # Schema and data are one transaction: interrupted, it leaves nothing behind. \copy of a table per psql call would be five commits, so one psql reads all
    # of it from a pipe: its COPY FROM STDIN data comes inline.
    table() {
        echo "COPY $1 FROM STDIN WITH (FORMAT csv, HEADER true, NULL 'NA');"
        bar "$1" "$here/data/$1.csv.xz" | xz -dc
        echo '\.'
    }
    start=$(date +%s.%N)
    {
        echo "BEGIN; SET LOCAL bee.commit_message = 'flights of 2013, as published';"
        cat "$here/schema.sql"
        for name in airlines airports planes weather flights; do table "$name"; done
        echo "COMMIT;"
    } | sql -f -
    awk -v a="$start" -v b="$(date +%s.%N)" 'BEGIN { printf "Loaded in %.1f s.\n", b - a }'
fi

if [ "$(count "bee_tags WHERE name = 'as-published'")" = 0 ]; then
    sql -c 'CREATE TAG "as-published"'
fi

# The correction: on 1 January three departures were logged against the schedule, not the clock.
if [ "$(count "bee_commits WHERE message = 'departures of 1 January corrected'")" = 0 ]; then
    sql <<'SQL'
BEGIN;
SET LOCAL bee.commit_message = 'departures of 1 January corrected';
UPDATE flights SET dep_time = dep_time + 10, dep_delay = dep_delay + 10
WHERE year = 2013 AND month = 1 AND day = 1 AND carrier = 'UA' AND flight IN (1545, 1714, 1696);
COMMIT;
SQL
fi
