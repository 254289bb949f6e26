//! The answers of PostgreSQL 15 to 435 statements, against ours: rows as text, type oids, labels, SQLSTATEs.
//!
//! `conformance/expected.json` was recorded by `conformance/record.py` from a PostgreSQL 15. What PostgreSQL answers we may refuse for now, with a SQLSTATE; what we answer must
//! be right, and what PostgreSQL refuses must be refused. The share of exact answers may only grow.

use std::collections::BTreeMap;

use pgbee_tests::{Answer, Client, Server, repository};
use serde_json::Value;

/// Exact answers of the last commit that changed their number; raise it when it grows.
const OK_AT_LEAST: usize = 410;

/// About a table whose creation is refused (it has columns of types we lack).
const WITHOUT_THEIR_TABLE: [&str; 2] = ["SELECT * FROM sx.t", "DROP TABLE sx.t"];

fn verdict(expected: &Value, answer: &Result<Answer, pgbee_tests::WireError>) -> &'static str {
    let (state, varies) = (expected.get("state").and_then(Value::as_str), expected.get("varies").is_some());
    match (state, answer) {
        (Some(state), Err(error)) => return if error.state() == state { "ok" } else { "code" },
        (Some(_), Ok(_)) => return "accepted",
        (None, Err(_)) => return "missing",
        (None, Ok(_)) => {}
    }
    let Ok(answer) = answer else { return "missing" };
    if let Some(tag) = expected.get("tag").and_then(Value::as_str) {
        return if answer.tag == tag { "ok" } else { "label" };
    }
    let rows: Vec<Vec<Option<String>>> =
        serde_json::from_value(expected.get("rows").or(expected.get("copy")).cloned().unwrap_or_default())
            .expect("recorded rows");
    if rows != answer.rows && !varies {
        return "value";
    }
    if expected.get("copy").is_some() {
        return "ok";
    }
    let types: Vec<u32> = serde_json::from_value(expected["types"].clone()).expect("recorded types");
    let labels: Vec<String> = serde_json::from_value(expected["labels"].clone()).expect("recorded labels");
    if types != answer.types {
        "type"
    } else if labels != answer.labels {
        "label"
    } else {
        "ok"
    }
}

#[test]
fn answers_are_postgresqls() {
    let folder = repository().join("tests/conformance");
    let expected: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(folder.join("expected.json")).expect("it is there"))
            .expect("JSON");
    let server = Server::start();
    let mut client: Client = server.client();
    for statement in std::fs::read_to_string(folder.join("queries.setup.sql"))
        .expect("it is there")
        .split(";\n")
        .filter(|s| !s.trim().is_empty())
    {
        client.query(statement);
    }
    let (mut counts, mut wrong) = (BTreeMap::<&str, usize>::new(), Vec::new());
    for entry in &expected {
        let sql = entry["sql"].as_str().expect("a statement");
        let found = match client.try_query(sql) {
            Ok(answer) => {
                let found = verdict(entry, &answer);
                if matches!(found, "value" | "accepted") {
                    wrong.push(format!("[{found}] {sql}: {answer:?}"));
                }
                // A missing feature is said to be missing, not met by a chance error.
                if let ("missing", Err(error)) = (found, &answer)
                    && !matches!(error.state(), "0A000" | "42883" | "42704")
                    && !WITHOUT_THEIR_TABLE.contains(&sql)
                {
                    wrong.push(format!("[missing] {sql}: {} {}", error.state(), error.message()));
                }
                found
            }
            Err(error) => {
                wrong.push(format!("[lost] {sql}: {error}"));
                client = server.client();
                "lost"
            }
        };
        *counts.entry(found).or_default() += 1;
    }
    println!("{counts:?} of {}", expected.len());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let ok = counts.get("ok").copied().unwrap_or(0);
    assert!(ok >= OK_AT_LEAST, "{ok} exact answers, {OK_AT_LEAST} before: {counts:?}");
}
