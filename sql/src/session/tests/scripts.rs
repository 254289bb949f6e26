//! The scripts in `cases`: a statement a line after `> `, and below them what psql -At (verbose errors, no locations) shows.
//!
//! The expected text of those named `pg_*` came from PostgreSQL 15; the others show what PostgreSQL does not have or does differently.
//! Rows for COPY FROM STDIN follow the statement after `< `.

use super::*;

/// Runs a script and compares.
fn check(name: &str, script: &str) {
    let instance = instance();
    let mut session = connect(&instance);
    let mut failures = Vec::new();
    for case in parse(script) {
        let shown = show_copying(&mut session, &case.sql, &case.data);
        if shown != case.expected {
            failures.push(format!("> {}\n--- expected\n{}\n--- shown\n{shown}\n", case.sql, case.expected));
        }
    }
    assert!(failures.is_empty(), "{name}: {} differences\n{}", failures.len(), failures.join("\n"));
}

pub(super) struct Case {
    pub sql: String,
    pub data: String,
    pub expected: String,
}

pub(super) fn parse(script: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in script.lines().filter(|l| !l.starts_with('#')) {
        if let Some(sql) = line.strip_prefix("> ") {
            cases.push(Case { sql: sql.to_owned(), data: String::new(), expected: String::new() });
        } else if let Some(case) = cases.last_mut() {
            if let Some(data) = line.strip_prefix("< ") {
                case.data += &format!("{data}\n");
            } else {
                case.expected += &format!("{line}\n");
            }
        }
    }
    for case in &mut cases {
        case.expected.truncate(case.expected.trim_end().len());
    }
    cases
}

macro_rules! scripts {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name), include_str!(concat!("../cases/", stringify!($name), ".txt")));
        })*
    };
}

scripts!(pg_dml pg_ddl pg_foreign_keys pg_foreign_key_ddl pg_transactions pg_settings pg_copy pg_sequences pg_views pg_queries stored past maintenance);

/// Shows what a script in a file named by the environment gives: for those who write cases.
#[test]
#[ignore = "a tool, not a test"]
fn scratch() {
    let Ok(path) = std::env::var("PGBEE_SCRATCH") else { return };
    let instance = instance();
    let mut session = connect(&instance);
    for case in parse(&std::fs::read_to_string(path).unwrap()) {
        println!("> {}\n{}", case.sql, show_copying(&mut session, &case.sql, &case.data));
    }
}
