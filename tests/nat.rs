//! Two peers of ours behind the kernel's NATs, in network namespaces: `nat/nat.py` with `nat/peer.rs`, and with the JavaScript peers where they are installed.
//!
//! Only root may make namespaces: elsewhere it is skipped, and says why.

use std::process::Command;

use pgbee_tests::repository;

/// The peer, as Cargo built it.
const PEER: &str = env!("CARGO_BIN_EXE_nat-peer");

fn harness() -> Command {
    let mut command = Command::new("python3");
    command.arg(repository().join("tests/nat/nat.py"));
    command
}

/// Why not, if it cannot run here.
fn skipped() -> Option<String> {
    let output = match harness().arg("check").output() {
        Ok(output) => output,
        Err(error) => return Some(format!("python3: {error}")),
    };
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run(arguments: &[&str]) {
    if let Some(reason) = skipped() {
        eprintln!("skipped: {reason}");
        return;
    }
    let ours = |words: &str| format!("{PEER} {words}");
    let output = harness()
        .args(["run", "--timeout", "45"])
        .args(["--nodes", &ours("nodes {hosts}")])
        .args(["--left", &ours("serve {bootstrap} {relay}")])
        .args(["--right", &ours("connect {bootstrap} {key} {relay}")])
        .args(arguments)
        .output()
        .expect("python3 runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    eprintln!("{told}");
}

#[test]
fn every_pair_of_nats_but_two_random_ones_is_passed() {
    run(&["--kinds", "open,consistent,lan"]);
    run(&["--pairs", "open-random,random-open,consistent-random,random-consistent"]);
}

#[test]
fn two_random_nats_need_a_relay() {
    run(&["--pairs", "random-random", "--timeout", "10"]);
    run(&["--pairs", "random-random", "--hopeless", "", "--relay-ready", r"^relay (\S+)"]);
}

#[test]
fn a_lossy_internet_is_passed_too() {
    run(&["--pairs", "consistent-consistent", "--loss", "0.1", "--repeat", "3"]);
}
