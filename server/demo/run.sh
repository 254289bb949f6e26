#!/usr/bin/env bash
# The main job, end to end: a server on a data directory, the flights loaded over the wire, and what to ask them. `make run` comes here.
# environment: PGBEE (the binary), PGBEE_DEMO_DATA (data directory), PGBEE_DEMO_PORT, PGBEE_DEMO_PEER_PORT
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
pgbee=${PGBEE:-pgbee}
data=${PGBEE_DEMO_DATA:-.pgbee}
port=${PGBEE_DEMO_PORT:-5433}
peer_port=${PGBEE_DEMO_PEER_PORT:-49737}
connection=(-h 127.0.0.1 -p "$port" -U postgres)
export PGDATABASE=postgres PGCONNECT_TIMEOUT=5

mkdir -p "$data"
"$pgbee" serve --data "$data" --listen "127.0.0.1:$port" --peer-listen "127.0.0.1:$peer_port" 2>>"$data/server.log" &
server=$!
trap 'kill -TERM $server 2>/dev/null; wait $server 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM

for _ in $(seq 1 100); do
    psql -X "${connection[@]}" -At -c 'SELECT 1' >/dev/null 2>&1 && break
    if ! kill -0 $server 2>/dev/null; then
        echo "The server did not start:" >&2
        tail -n 5 "$data/server.log" >&2
        exit 1
    fi
    sleep 0.1
done
if ! kill -0 $server 2>/dev/null; then
    echo "Another server answers on port $port; set PGBEE_DEMO_PORT." >&2
    exit 1
fi

bash "$here/load.sh" "${connection[@]}"
key=$(psql -X "${connection[@]}" -At -c 'SELECT bee_key()')

cat <<TEXT

pgbee is serving database postgres from $data (log: $data/server.log).
Its key: $key

  psql -h 127.0.0.1 -p $port -U postgres

A copy that fetches what its queries touch, from a second terminal:
  $pgbee follow $key --name copy --data /tmp/copy --listen 127.0.0.1:$((port + 1)) --peer 127.0.0.1:$peer_port
  psql -h 127.0.0.1 -p $((port + 1)) -U postgres copy

A join with aggregation: which airlines kept New York waiting?
  SELECT a.name, count(*), round(avg(f.dep_delay), 1) AS avg_delay
  FROM flights f JOIN airlines a USING (carrier) GROUP BY a.name ORDER BY avg_delay DESC;

A point lookup by primary key:
  SELECT * FROM flights WHERE time_hour = '2013-01-01 10:00+00' AND carrier = 'UA' AND flight = 1545;

The same rows before and after the correction:
  SELECT o.flight, o.dep_time AS published, n.dep_time AS corrected
  FROM flights AS OF TAG 'as-published' o JOIN flights n USING (time_hour, carrier, flight)
  WHERE o.dep_time <> n.dep_time;

TEXT
if [ -t 0 ] && [ -t 1 ]; then
    echo "You are in psql now; \\q leaves it and stops the server."
    psql "${connection[@]}" || true
else
    echo "Serving until interrupted."
    wait $server
fi
