//! Rules about the code itself: the architecture's invariants, READMEs without dead links, files that open by teaching.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgbee_tests::repository;

fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                if path.file_name().is_some_and(|n| n != "node_modules" && n != "target") {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("a text");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&repository().join(folder), &mut found);
    assert!(!found.is_empty(), "no Rust in {folder}");
    found
}

/// Lines of code, comments and strings of tests left in: a name in a comment is no use of it.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, l)| (i + 1, l)).filter(|(_, l)| !l.trim_start().starts_with("//"))
}

fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let after = line[at + word.len()..].chars().next().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        before && after
    })
}

fn forbid(folder: &str, words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in rust_files(folder) {
        // One that ends with a slash is a folder.
        let is_in = |folder: &str| path.to_string_lossy().contains(folder);
        if allowed.iter().any(|a| path.ends_with(a) || a.ends_with('/') && is_in(a)) {
            continue;
        }
        for (number, line) in code_lines(&text) {
            for word in words.iter().filter(|w| names(line, w)) {
                found.push(format!("{}:{number}: {word}", path.display()));
            }
        }
    }
    found
}

/// Direct dependencies of each of our packages, by `cargo metadata`; development ones left out.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(repository())
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let of = |p: &serde_json::Value| {
        let all = p["dependencies"].as_array().cloned().unwrap_or_default();
        all.iter().filter(|d| d["kind"].is_null()).filter_map(|d| d["name"].as_str().map(str::to_owned)).collect()
    };
    packages.iter().map(|p| (p["name"].as_str().unwrap_or("").to_owned(), of(p))).collect()
}

#[test]
fn crates_depend_downwards_only() {
    let dependencies = dependencies();
    let rules: [(&str, &[&str]); 4] = [
        (
            "pgbee-engine",
            &["pgbee-sql", "pgbee-replication", "pgbee-server", "tokio", "sqlparser", "pgwire", "futures"],
        ),
        ("pgbee-replication", &["pgbee-sql", "pgbee-server", "sqlparser", "pgwire"]),
        ("pgbee-sql", &["pgbee-replication", "pgbee-server", "pgwire", "tokio", "rocksdb"]),
        ("pgbee-server", &["rocksdb", "pgbee-engine", "sqlparser"]),
    ];
    for (package, forbidden) in rules {
        let own = dependencies.get(package).unwrap_or_else(|| panic!("no package {package}"));
        let broken: Vec<_> = own.iter().filter(|d| forbidden.contains(&d.as_str())).collect();
        assert!(broken.is_empty(), "{package} may not depend on {broken:?}");
    }
}

#[test]
fn the_engine_has_no_runtime_socket_clock_or_thread() {
    let found =
        forbid("engine/src", &["tokio", "TcpStream", "UdpSocket", "SystemTime", "Instant", "sqlparser", "pgwire"], &[]);
    assert!(found.is_empty(), "{found:#?}");
    // Tests may start threads to race each other; the engine itself may not.
    let mut starts = Vec::new();
    for (path, text) in rust_files("engine/src") {
        let code = text.split("#[cfg(test)]").next().unwrap_or("");
        if !path.to_string_lossy().contains("test")
            && code_lines(code).any(|(_, l)| l.contains("thread::spawn") || l.contains("thread::Builder"))
        {
            starts.push(path);
        }
    }
    assert!(starts.is_empty(), "{starts:?}");
}

#[test]
fn a_core_never_looks_inside_a_block_and_a_bee_never_knows_where_blocks_come_from() {
    let found = forbid("engine/src/hypercore", &["protobuf"], &[]);
    assert!(found.is_empty(), "{found:#?}");
    let found = forbid("engine/src/bee", &["storage", "rocksdb", "Backend", "corestore"], &[]);
    assert!(found.is_empty(), "{found:#?}");
}

/// The map in lib.rs names the engine's modules in reading order, each built on those above it.
#[test]
fn engine_modules_use_only_those_above_them() {
    let lib = std::fs::read_to_string(repository().join("engine/src/lib.rs")).expect("a text");
    let map = lib.split("//! ```").nth(1).expect("a map of the modules");
    let order: Vec<&str> = map.lines().skip(1).filter_map(|l| l.strip_prefix("//! ")?.split(' ').next()).collect();
    let declared = lib.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';'));
    assert_eq!(
        declared.collect::<std::collections::BTreeSet<_>>(),
        order.iter().copied().collect(),
        "the map is whole"
    );
    let mut found = Vec::new();
    for (path, text) in rust_files("engine/src") {
        let inside = path.strip_prefix(repository().join("engine/src")).expect("a file of the engine");
        let module = inside.components().next().map(|c| c.as_os_str().to_string_lossy().replace(".rs", ""));
        let Some(at) = order.iter().position(|m| module.as_deref() == Some(m)) else { continue };
        for (number, line) in code_lines(&text) {
            for below in order[at + 1..].iter().filter(|m| names(line, &format!("crate::{m}"))) {
                // An error names the core it is about.
                if (order[at], *below) != ("error", "crypto") {
                    found.push(format!("{}:{number}: {below}", path.display()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn protocol_logic_does_no_io_and_reads_no_clock() {
    let words = ["tokio", "TcpStream", "TcpListener", "UdpSocket", "SystemTime", "Instant"];
    let drivers = ["src/driver/", "transport/tcp.rs", "transport/udp/", "tests.rs"];
    let found = forbid("replication/src", &words, &drivers);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn sql_knows_no_socket_and_the_server_no_store() {
    let found =
        forbid("sql/src", &["TcpStream", "TcpListener", "pgwire", "tokio", "rocksdb", "pgbee_replication"], &[]);
    assert!(found.is_empty(), "{found:#?}");
    let found = forbid("server/src", &["rocksdb", "pgbee_engine", "Bee", "sqlparser"], &[]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_file_opens_by_teaching() {
    let mut bare = Vec::new();
    for folder in ["engine/src", "replication/src", "sql/src", "server/src", "tests", "benches"] {
        for (path, text) in rust_files(folder) {
            if !text.starts_with("//!") {
                bare.push(path);
            }
        }
    }
    assert!(bare.is_empty(), "no opening comment: {bare:#?}");
}

#[test]
fn nothing_is_left_undone_in_the_code() {
    let mut found = Vec::new();
    for folder in ["engine/src", "replication/src", "sql/src", "server/src"] {
        for (path, text) in rust_files(folder) {
            for (number, line) in
                code_lines(&text).filter(|(_, l)| ["todo!(", "unimplemented!(", "dbg!("].iter().any(|w| l.contains(w)))
            {
                found.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Relative links of Markdown files lead somewhere.
#[test]
fn links_lead_somewhere() {
    let output = Command::new("git").args(["ls-files", "*.md"]).current_dir(repository()).output().expect("git runs");
    let mut dead = Vec::new();
    for file in String::from_utf8_lossy(&output.stdout).lines() {
        let path = repository().join(file);
        let text = std::fs::read_to_string(&path).expect("a text");
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#', ' ']).next().unwrap_or("");
            if target.is_empty() || target.contains("://") {
                continue;
            }
            if !path.parent().expect("a folder").join(target).exists() {
                dead.push(format!("{file}: {target}"));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}
