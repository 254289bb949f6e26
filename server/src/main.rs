//! The `pgbee` program: reads the command line, does what it says, and turns the outcome into an exit code.
//!
//! ```text
//! cli      what was asked       config   flags over environment over pgbee.toml
//! node     start and stop       pg/      PostgreSQL's wire protocol, one task a connection
//! network  peers for SQL        follow   pgbee follow: the database, and its mirror
//! memory   what the default cache size is taken from
//! swarm    where peers are found, and how far that reaches
//! dht      pgbee dht: a node that others begin with
//! ```

mod cli;
mod config;
mod dht;
mod follow;
mod keys;
mod logging;
mod memory;
mod network;
mod node;
mod password;
mod pg;
mod swarm;

use std::process::ExitCode;

/// RocksDB's memory comes from it, too. Why it: decisions/0004.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match cli::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("pgbee: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}
