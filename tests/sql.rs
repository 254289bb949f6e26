//! Golden scripts: `sql/*.sql` through psql against a fresh server, compared with `sql/*.out`.
//!
//! A script whose first line says `-- postgres` means the same in PostgreSQL: its `.out` was printed by a PostgreSQL 15 (`sql/record.sh`), not by us. The
//! others show what only pgbee has; their `.out` was printed by the run and read by a person. `PGBEE_BLESS=1` writes those of the second kind anew.

use pgbee_tests::{Server, repository};

/// When a commit was made is different every time, and its number another one when a definition takes a block more.
fn without_times(text: &str) -> String {
    const RANGE: &str = "Versions go from ";
    let mut parts = text.split(RANGE);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find("; each is the end").unwrap_or(0);
        clean.push_str(RANGE);
        clean.push_str("<version> (committed at <time>) to <version>");
        clean.push_str(&part[end..]);
    }
    clean
}

#[test]
fn scripts_print_what_was_recorded() {
    let folder = repository().join("tests/sql");
    let mut scripts: Vec<_> = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "sql"))
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    let mut wrong = Vec::new();
    for script in scripts {
        let server = Server::start();
        let text = std::fs::read_to_string(&script).expect("a text");
        let got = server.psql(&["-a", "-q", "-f", &script.to_string_lossy()]);
        // psql names the script in its messages by the path it was given.
        let got = without_times(&got.replace(&format!("psql:{}:", script.display()), "psql:"));
        let out = script.with_extension("out");
        if std::env::var_os("PGBEE_BLESS").is_some() && !text.starts_with("-- postgres") {
            std::fs::write(&out, &got).expect("it can be written");
        }
        let expected = std::fs::read_to_string(&out).unwrap_or_default();
        if got != expected {
            let at = got
                .lines()
                .zip(expected.lines())
                .position(|(a, b)| a != b)
                .unwrap_or_else(|| got.lines().count().min(expected.lines().count()));
            let around =
                |text: &str| text.lines().skip(at.saturating_sub(3)).take(8).collect::<Vec<_>>().join("\n    ");
            wrong.push(format!(
                "{} differs at line {}:\n  got\n    {}\n  expected\n    {}",
                script.display(),
                at + 1,
                around(&got),
                around(&expected)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
