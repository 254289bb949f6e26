#!/usr/bin/env python3
"""The program itself behind the NATs of nat.py, in the words of peer.cjs: what psql says of it inside its namespace.

    pgbee.py nodes HOST...                         a `pgbee dht` at each, the last one a relay; prints `bootstrap HOST:PORT` and `relay KEY`
    pgbee.py serve HOST:PORT DIR [RELAY]           `pgbee serve` with an announced database; prints `listening KEY`
    pgbee.py follow HOST:PORT KEY DIR [RELAY]      `pgbee follow` of such a database, and
    pgbee.py follow-bee HOST:PORT KEY DIR [RELAY]  of one that JavaScript wrote: prints `connected ...` when a query was answered by what it had to fetch,
                                                   `moved ...` when no connection runs through a relay any more and another query was answered,
                                                   `refused ...` when a query failed and both its error and the log say that the writer was not reached, and why

The binary is $PGBEE. Nothing listens but in this namespace: psql's port is the same in all of them.

What must stay true: the reader has nothing of the database before its first query; what it prints happened; it and what it started end together, for they are
one process group, which nat.py ends.
"""

import os
import re
import subprocess
import sys
import threading
import time

PORT = 49737
ROWS = 1000
PSQL = ["psql", "-X", "-h", "127.0.0.1", "-p", "5432", "-U", "postgres"]
ALPHABET = "ybndrfg8ejkmcpqxot1uwisza345h769"
BINARY = os.environ.get("PGBEE", "pgbee")


def say(text):
    """A line for nat.py, at once and whole, whichever thread says it."""
    os.write(1, f"{text}\n".encode())


class Program:
    """A pgbee that runs, and its log."""

    def __init__(self, *words):
        self.log, self.changed = [], threading.Condition()
        # What is said here is all it gets: an environment that names a swarm would be another one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PGBEE_")}
        words = [BINARY, *words, "--log", "info,pgbee_replication=debug"]
        self.child = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        """Collect its log, and pass it on to nat.py's."""
        for line in self.child.stderr:
            say(f"log: {line.rstrip()}")
            with self.changed:
                self.log.append(line)
                self.changed.notify_all()
        with self.changed:
            self.log.append(None)
            self.changed.notify_all()

    def found(self, pattern):
        """The last line of the log that matches so far, or None."""
        matches = [match for line in self.log if line is not None and (match := re.search(pattern, line))]
        return matches[-1] if matches else None

    def wait_for(self, pattern):
        """The same, waited for; the end of the program is the end of this one."""
        with self.changed:
            while not (match := self.found(pattern)):
                if self.log and self.log[-1] is None:
                    sys.exit("pgbee ended")
                self.changed.wait()
            return match


def hex_of(key):
    """A z-base-32 key as JavaScript takes it."""
    bits = "".join(f"{ALPHABET.index(character):05b}" for character in key)
    return f"{int(bits[:256], 2):064x}"


def psql(database, sql):
    """(output, None) or (None, error)."""
    done = subprocess.run([*PSQL, "-d", database, "-qAtc", sql], capture_output=True, text=True)
    return (done.stdout.strip(), None) if done.returncode == 0 else (None, done.stderr)


def must(database, sql):
    """What it answers; anything else ends this program."""
    answer, error = psql(database, sql)
    if error is not None:
        sys.exit(f"{sql}: {error}")
    return answer


def nodes(*hosts):
    """A network that is kept until the end."""
    first, *_ = hosts
    kept = []
    for host in hosts:
        words = ["--bootstrap", f"{first}:{PORT}"] if kept else []
        words += ["--relay"] if host == hosts[-1] else []
        kept.append(Program("dht", "--listen", f"{host}:{PORT}", *words))
        kept[-1].wait_for("listening on")
    relay = kept[-1].wait_for(r"--relay (\w+)").group(1)
    say(f"bootstrap {first}:{PORT}")
    say(f"relay {hex_of(relay)}")
    threading.Event().wait()


def through(relay):
    """The words that name a relay."""
    return ["--relay", relay[0]] if relay else []


def serve(bootstrap, folder, *relay):
    """A writer."""
    server = Program("serve", "--data", f"{folder}/data", "--swarm", bootstrap, *through(relay))
    server.wait_for("listening on 127.0.0.1:5432")
    must("postgres", "CREATE TABLE t (id int PRIMARY KEY, v text)")
    must("postgres", f"INSERT INTO t SELECT i, 'value ' || i FROM generate_series(1, {ROWS}) i")
    must("postgres", "ALTER DATABASE postgres SET bee.announce = on")
    while must("postgres", "SELECT announced FROM bee_swarm_topics WHERE database = 'postgres'") != "t":
        time.sleep(0.05)
    say(f"listening {must('postgres', 'SELECT bee_key($$hex$$)')}")
    threading.Event().wait()


def ours(number):
    """One row of ours, and what it holds."""
    return f"SELECT v FROM t WHERE id = {number}", f"value {number}"


def theirs(number):
    """One entry of JavaScript's, and what it holds."""
    return f"SELECT convert_from(value, 'UTF8') FROM bee WHERE key = 'k{number:04}'", f"value {number}"


def follow(row, bootstrap, key, folder, *relay):
    """A reader."""
    began = time.monotonic()
    after = lambda: f"{time.monotonic() - began:.2f} s"
    server = Program("follow", key, "--name", "shop", "--data", f"{folder}/data", "--swarm", bootstrap, *through(relay))
    server.wait_for("listening on 127.0.0.1:5432")
    ready = after()

    def read(number):
        sql, wanted = row(number)
        answer, error = psql("shop", f"SET bee.fetch_wait = '2s'; {sql}")
        if error is None and answer != wanted:
            sys.exit(f"{sql}: {answer!r} instead of {wanted!r}")
        return error

    is_refused = False
    while (error := read(7)) is not None:
        logged = server.found(r"swarm: (peer \w+: not reached: .*)")
        detail = re.search(r"DETAIL:\s+(.*none was reached: .*)", error)
        if logged and detail and not is_refused:
            is_refused = True
            say(f"refused after {after()}: {detail.group(1)}")
        time.sleep(0.1)
    via = server.wait_for(r"connected to peer \w+ at (\S+) \((.*)\)")
    say(f"connected in {after()} (it was up after {ready}) to {via.group(1)} {via.group(2)}")
    while must("shop", "SELECT connections > 0 AND relayed = 0 FROM bee_swarm") != "t":
        time.sleep(0.1)
    number = ROWS
    while read(number) is not None:
        time.sleep(0.1)
    say(f"moved after {after()}; the first row was there {via.group(2)}")
    threading.Event().wait()


def main():
    """The command line."""
    commands = {
        "nodes": nodes,
        "serve": serve,
        "follow": lambda *words: follow(ours, *words),
        "follow-bee": lambda *words: follow(theirs, *words),
    }
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit("nodes, serve, follow or follow-bee")
    commands[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
