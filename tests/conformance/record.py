#!/usr/bin/env python3
"""Records what PostgreSQL 15 answers to the statements of this folder, so that the test needs no PostgreSQL.

usage: record.py DSN > expected.json       (a database named postgres with nothing in it; needs psycopg 3)

Every statement runs on one connection, in order, after queries.setup.sql. An answer is either rows (as text), type oids and labels, or a SQLSTATE. Statements
whose rows depend on the day, the machine or chance are marked `varies`: only types and labels are compared.
"""
import json
import sys

import psycopg
from psycopg import pq

VARIES = ("EXPLAIN", "SHOW server_version")


def run(conn, statement):
    result = conn.pgconn.exec_(statement.encode())
    if result.status == pq.ExecStatus.TUPLES_OK:
        value = lambda r, c: None if result.get_value(r, c) is None else result.get_value(r, c).decode()
        return {
            "rows": [[value(r, c) for c in range(result.nfields)] for r in range(result.ntuples)],
            "types": [result.ftype(c) for c in range(result.nfields)],
            "labels": [result.fname(c).decode() for c in range(result.nfields)],
        }
    if result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY):
        return {"tag": (result.command_status or b"").decode()}
    if result.status == pq.ExecStatus.COPY_OUT:
        rows = []
        while True:
            n, data = conn.pgconn.get_copy_data(0)
            if n <= 0:
                break
            rows.append([bytes(data).decode().rstrip("\n")])
        while conn.pgconn.get_result():
            pass
        return {"copy": rows}
    state = result.error_field(pq.DiagnosticField.SQLSTATE) or b"?????"
    return {"state": state.decode(), "message": (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode()}


def statements(path):
    group = "-"
    for line in open(path, encoding="utf-8"):
        line = line.rstrip("\n")
        if line.startswith("## "):
            group = line[3:]
        elif line.strip() and not line.startswith("#"):
            yield group, line


def main():
    conn = psycopg.connect(sys.argv[1], autocommit=True)
    for statement in open("queries.setup.sql", encoding="utf-8").read().split(";\n"):
        if statement.strip():
            assert "state" not in run(conn, statement)
    out = []
    for path in ("expressions.sql", "queries.sql"):
        for group, statement in statements(path):
            answer = run(conn, statement)
            entry = {"group": group, "sql": statement} | answer
            if statement.startswith(VARIES):
                entry["varies"] = True
            out.append(entry)
    print("[\n" + ",\n".join(json.dumps(e, ensure_ascii=False) for e in out) + "\n]")


main()
