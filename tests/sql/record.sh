#!/usr/bin/env bash
# Prints the .out of every script that begins with `-- postgres` by running it on a PostgreSQL 15. usage: record.sh [psql connection words...]
set -euo pipefail
cd "$(dirname "$0")"
for script in *.sql; do
    head -n 1 "$script" | grep -q '^-- postgres' || continue
    psql -X -q "$@" -d postgres -c 'DROP DATABASE IF EXISTS golden' -c "CREATE DATABASE golden TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'"
    # As the test prints it: standard output, then standard error, messages without the script's name.
    psql -X -a -q "$@" -d golden -f "$script" >"${script%.sql}.out" 2>/tmp/golden.err || true
    sed "s|^psql:$script:|psql:|" /tmp/golden.err >>"${script%.sql}.out"
    psql -X -q "$@" -d postgres -c 'DROP DATABASE golden'
done
