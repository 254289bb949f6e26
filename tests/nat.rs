//! Two peers behind the kernel's NATs, in network namespaces: `nat/nat.py`, with the program itself (`nat/pgbee.py`), with an endpoint alone
//! (`nat/peer.rs`), and with JavaScript on either side (`nat/peer.cjs`).
//!
//! ```text
//! make test          the pairs that differ in how they are passed, and the relay
//! --ignored          every pair, in both directions, with both kinds of DHT nodes; the tables of the README are its output
//! ```
//!
//! Only root may make namespaces: elsewhere each test says that it was skipped, and why.
//!
//! What must stay true: no pair has to be faster than a JavaScript pair is (where a port has to be guessed both try for half a minute, and then again: 70 s were
//! seen); no namespace has a way out; several runs at a time are in no one's way.

use std::io::Write;
use std::process::{Command, Stdio};

use pgbee_tests::{binary, install_packages, repository};

/// The endpoint alone, as Cargo built it.
const PEER: &str = env!("CARGO_BIN_EXE_nat-peer");

const NODES: &str = "nodes {hosts}";
const SERVE: &str = "serve {bootstrap} {relay}";
const CONNECT: &str = "connect {bootstrap} {key} {relay}";
/// The same with a database: who has it, and who reads it.
const WRITER: &str = "{bootstrap} {dir} {relay}";
const READER: &str = "{bootstrap} {key} {dir} {relay}";
/// Nodes that relay, and peers that are told so.
const RELAY: [&str; 2] = ["--relay-ready", r"^relay (\S+)"];
/// A pair that can be passed after all.
const NOT_HOPELESS: [&str; 2] = ["--hopeless", ""];
/// All pairs.
const ALL: [&str; 2] = ["--kinds", "open,consistent,random,lan"];

fn endpoint(words: &str) -> String {
    format!("{PEER} {words}")
}

fn javascript(words: &str) -> String {
    format!("node {} {words}", repository().join("tests/nat/peer.cjs").display())
}

fn program(words: &str) -> String {
    format!("python3 {} {words}", repository().join("tests/nat/pgbee.py").display())
}

fn harness() -> Command {
    let mut command = Command::new("python3");
    command.arg(repository().join("tests/nat/nat.py"));
    command
}

/// Past the test's captured output: a test that did not run must not look like one that did.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether it cannot run here, which it says.
fn is_skipped() -> bool {
    let reason = match harness().arg("check").output() {
        Ok(output) if output.status.success() => return false,
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => format!("python3: {error}"),
    };
    tell(&format!("skipped: {}: {reason}", std::thread::current().name().unwrap_or("a test of NATs")));
    true
}

/// Three commands behind the NATs of these arguments; all pairs must connect, or not, as expected. What is said of them is printed.
fn run(nodes: &str, left: &str, right: &str, arguments: &[&str]) {
    let output = harness()
        .args(["run", "--required", "--timeout", "120", "--start-timeout", "60"])
        .args(["--nodes", nodes, "--left", left, "--right", right])
        .args(arguments)
        .env("NODE_PATH", repository().join("tests/interop/node_modules"))
        .env("PGBEE", binary())
        .stdin(Stdio::null())
        .output()
        .expect("python3 runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    eprintln!("{told}");
}

fn endpoints(arguments: &[&str]) {
    run(&endpoint(NODES), &endpoint(SERVE), &endpoint(CONNECT), arguments);
}

/// `pgbee serve` and `pgbee follow`.
fn programs(arguments: &[&str]) {
    let (left, right) = (program(&format!("serve {WRITER}")), program(&format!("follow {READER}")));
    run(&program(NODES), &left, &right, arguments);
}

/// `pgbee serve`, read by hyperswarm and hyperbee.
fn read_by_javascript(nodes: &str, arguments: &[&str]) {
    run(nodes, &program(&format!("serve {WRITER}")), &javascript(&format!("read {READER}")), arguments);
}

/// Written by hyperswarm and hyperbee, read by `pgbee follow`.
fn written_by_javascript(nodes: &str, arguments: &[&str]) {
    run(nodes, &javascript(&format!("write {WRITER}")), &program(&format!("follow-bee {READER}")), arguments);
}

#[test]
fn a_database_behind_a_nat_is_found_by_its_key_and_read() {
    if is_skipped() {
        return;
    }
    let punched = "consistent-consistent,consistent-random,random-consistent,random-open";
    programs(&["--pairs", punched]);
    programs(&["--pairs", "open-open,lan-lan"]);
}

#[test]
fn two_random_nats_need_a_relay_and_a_person_is_told_so() {
    if is_skipped() {
        return;
    }
    let refused =
        r"^refused (.*none was reached: .*both sides are behind NATs with random ports: only a relay helps.*)";
    programs(&[&["--pairs", "random-random", "--right-done", refused], &NOT_HOPELESS[..]].concat());
    let relayed = r"^connected (.* through a relay)$";
    programs(&[&["--pairs", "random-random", "--right-done", relayed], &NOT_HOPELESS[..], &RELAY].concat());
}

#[test]
fn a_connection_leaves_its_relay_where_it_can() {
    if is_skipped() {
        return;
    }
    let moved = r"^moved (.*)";
    programs(&[&["--pairs", "random-consistent", "--right-done", moved], &RELAY[..]].concat());
}

#[test]
fn with_javascript_on_the_other_side_it_is_the_same() {
    if is_skipped() {
        return;
    }
    install_packages();
    let pairs = ["--pairs", "consistent-consistent,random-consistent"];
    read_by_javascript(&javascript(NODES), &pairs);
    written_by_javascript(&program(NODES), &pairs);
    let relayed = [&["--pairs", "random-random"], &NOT_HOPELESS[..], &RELAY].concat();
    read_by_javascript(&program(NODES), &relayed);
    written_by_javascript(&javascript(NODES), &relayed);
}

#[test]
fn what_a_killed_run_left_behind_is_removed() {
    if is_skipped() {
        return;
    }
    let names = || {
        let output = Command::new("ip").args(["netns", "list"]).output().expect("ip runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let mut killed = harness()
        .args(["run", "--pairs", "lan-lan", "--nodes", "sleep 1000", "--start-timeout", "1000"])
        .stdout(Stdio::null())
        .spawn()
        .expect("python3 runs");
    let own = format!("pgbee-{}-", killed.id());
    let is_up = || names().lines().any(|name| name.starts_with(&own) && name.contains("hostA1"));
    let until = |wanted: &dyn Fn() -> bool| {
        (0..600).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            wanted()
        })
    };
    assert!(until(&is_up), "{}", names());
    killed.kill().expect("it runs");
    killed.wait().expect("it ends");
    assert!(names().contains(&own), "nobody was there to remove it");
    assert!(harness().arg("clean").status().expect("python3 runs").success());
    assert!(!names().contains(&own), "{}", names());
}

#[test]
#[ignore = "minutes: every pair of endpoints alone, and a lossy internet"]
fn endpoints_alone_pass_every_pair_but_two_random_nats() {
    if is_skipped() {
        return;
    }
    endpoints(&[&ALL[..], &["--timeout", "30"]].concat());
    endpoints(&[&["--pairs", "random-random"], &NOT_HOPELESS[..], &RELAY].concat());
    endpoints(&["--pairs", "consistent-consistent", "--loss", "0.1", "--repeat", "3"]);
}

#[test]
#[ignore = "minutes: every pair of pgbee and pgbee"]
fn every_pair_of_programs() {
    if is_skipped() {
        return;
    }
    programs(&[&ALL[..], &["--timeout", "60"]].concat());
    programs(&[&ALL[..], &NOT_HOPELESS, &RELAY].concat());
}

#[test]
#[ignore = "minutes: every pair of pgbee and JavaScript, with JavaScript nodes and with ours"]
fn every_pair_with_javascript() {
    if is_skipped() {
        return;
    }
    install_packages();
    for nodes in [javascript(NODES), program(NODES)] {
        let relayed = [&["--pairs", "random-random"], &NOT_HOPELESS[..], &RELAY].concat();
        read_by_javascript(&nodes, &[&ALL[..], &["--timeout", "60"]].concat());
        read_by_javascript(&nodes, &relayed);
        written_by_javascript(&nodes, &[&ALL[..], &["--timeout", "60"]].concat());
        written_by_javascript(&nodes, &relayed);
    }
}
