//! `pgbee dht`: a plain node of the DHT. A private network begins with one; a few of them keep it when some go.
//!
//! ```text
//! pgbee dht --listen 10.0.0.1:49737                                    the first: others begin with it
//! pgbee dht --listen 10.0.0.2:49737 --bootstrap 10.0.0.1:49737         the next ones
//! pgbee dht --listen 10.0.0.3:49737 --bootstrap 10.0.0.1:49737 --relay carries connections of those who cannot reach each other, too
//! ```
//!
//! It keeps what others announce, bounded and for a while, and nothing on disk but its key (`DIR/node-seed`, readable by its owner only), and that only where
//! `--data` says so.
//!
//! What must stay true: it asks nobody but the nodes it was given and those they name; the first of a network asks nobody; on loopback nothing leaves the machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::path::{Path, PathBuf};

use pgbee_replication::driver::endpoint::{DhtNode, DhtNodeOptions};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Failure, failed};
use crate::config::{Config, Problem, is_address};
use crate::swarm::{is_node, resolve};
use crate::{keys, logging};

/// Where it is, if nothing is said.
const LISTEN: &str = "127.0.0.1:49737";
/// The file of its key.
const SEED_FILE: &str = "node-seed";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    listen: String,
    bootstrap: Vec<String>,
    is_relay: bool,
    data: Option<PathBuf>,
    log: String,
    log_json: bool,
}

impl Options {
    fn read(arguments: &[String]) -> Result<Options, Problem> {
        let Config { log, log_json, .. } = Config::default();
        let listen = LISTEN.to_owned();
        let mut options = Options { listen, bootstrap: Vec::new(), is_relay: false, data: None, log, log_json };
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            let flag = word.strip_prefix("--").ok_or_else(|| Problem(format!("{word} is one word too many")))?;
            if flag == "relay" {
                options.is_relay = true;
                continue;
            }
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => (flag, rest.next().ok_or_else(|| Problem(format!("--{flag} wants a value")))?.clone()),
            };
            options.set(name, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), Problem> {
        let wrong = |what: &str| Problem(format!("--{name} wants {what}, not {value}"));
        match name {
            "listen" if is_address(&value) => self.listen = value,
            "bootstrap" => {
                let nodes: Vec<String> = value.split(',').map(|node| node.trim().to_owned()).collect();
                if !nodes.iter().all(|node| is_node(node)) {
                    return Err(wrong("HOST:PORT"));
                }
                self.bootstrap.extend(nodes);
            }
            "listen" => return Err(wrong("HOST:PORT")),
            "data" => self.data = Some(PathBuf::from(value)),
            "log" => self.log = value,
            "log-format" => match value.as_str() {
                "json" => self.log_json = true,
                "text" => self.log_json = false,
                _ => return Err(wrong("text or json")),
            },
            _ => return Err(Problem(format!("there is no option --{name} of pgbee dht"))),
        }
        Ok(())
    }

    /// Where it is bound.
    fn address(&self) -> Result<SocketAddrV4, Problem> {
        let is_v4 = |address: SocketAddr| if let SocketAddr::V4(v4) = address { Some(v4) } else { None };
        let found = self.listen.to_socket_addrs().map_err(|error| Problem(format!("{}: {error}", self.listen)))?;
        let address = found.filter_map(is_v4).next();
        let address = address.ok_or_else(|| Problem(format!("{} has no IPv4 address", self.listen)))?;
        if address.ip().is_unspecified() && self.bootstrap.is_empty() {
            return Err(Problem(format!(
                "{address} is no address that others can begin with: name the one they reach this machine by, or --bootstrap"
            )));
        }
        Ok(address)
    }
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// Code 2 for a command line that makes no sense, 1 if the address cannot be bound.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let options = Options::read(arguments)?;
    let address = options.address()?;
    let bootstrap = resolve(&options.bootstrap)?;
    let logging = Config { log: options.log.clone(), log_json: options.log_json, ..Config::default() };
    logging::start(&logging).map_err(failed)?;
    let seed = seed(options.data.as_deref()).map_err(failed)?;
    let node = DhtNodeOptions { address, bootstrap, seed, is_relay: options.is_relay };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(serve(node))
}

async fn serve(options: DhtNodeOptions) -> Result<(), Failure> {
    let is_relay = options.is_relay;
    let asked = options.address;
    let node = DhtNode::start(options).map_err(|e| failed(format!("cannot listen on {asked}: {e}")))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let address = node.address();
    let told = if address.ip().is_unspecified() { format!("HOST:{}", address.port()) } else { address.to_string() };
    if is_relay {
        tracing::info!("relay: pgbee serve --swarm {told} --relay {}", keys::z_base_32(&node.public_key()));
    }
    tracing::info!("node of a DHT, listening on {address}: pgbee serve --swarm {told}");
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("interrupt: stopping"),
    }
    node.shutdown().await;
    tracing::info!("stopped");
    Ok(())
}

/// The seed of the node's key: the one that is kept, or a new one, which is kept if there is a place for it.
fn seed(data: Option<&Path>) -> Result<[u8; 32], String> {
    let fresh = || -> Result<[u8; 32], String> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| format!("no random bytes: {error}"))?;
        Ok(seed)
    };
    let Some(data) = data else { return fresh() };
    let path = data.join(SEED_FILE);
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    match std::fs::File::open(&path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(33).read_to_end(&mut bytes).map_err(told)?;
            bytes.try_into().map_err(|_| format!("{} is no seed of 32 bytes", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let seed = fresh()?;
            std::fs::create_dir_all(data).map_err(told)?;
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&path).map_err(told)?;
            file.write_all(&seed).and_then(|()| file.sync_all()).map_err(told)?;
            Ok(seed)
        }
        Err(error) => Err(told(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Result<Options, Problem> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Options::read(&words)
    }

    #[test]
    fn nobody_is_asked_and_loopback_is_bound_unless_that_is_said() {
        let options = options("").expect("nothing has to be said");
        assert!(options.bootstrap.is_empty() && !options.is_relay && options.data.is_none());
        assert!(options.address().expect("an address").ip().is_loopback());
    }

    #[test]
    fn options_are_read_and_wrong_ones_refused() {
        let read = options(
            "--listen 127.0.0.1:0 --bootstrap 127.0.0.1:1,127.0.0.1:2 --bootstrap=127.0.0.1:3 --relay --log warn",
        )
        .expect("good options");
        assert_eq!(read.bootstrap, ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
        assert!(read.is_relay && read.log == "warn");
        for wrong in [
            "x",
            "--listen",
            "--listen nowhere",
            "--bootstrap public",
            "--bootstrap 127.0.0.1:0",
            "--peer a:1",
            "--log-format xml",
        ] {
            assert!(options(wrong).is_err(), "{wrong} was accepted");
        }
        // A first node that nobody can name is of no use.
        assert!(options("--listen 0.0.0.0:4000").expect("read").address().is_err());
        assert!(options("--listen 0.0.0.0:4000 --bootstrap 127.0.0.1:1").expect("read").address().is_ok());
        assert!(options("--listen [::1]:4000").expect("read").address().is_err());
    }

    #[test]
    fn a_key_is_kept_where_that_is_said_and_nobody_else_reads_it() {
        let directory = std::env::temp_dir().join(format!("pgbee-dht-{}", std::process::id()));
        let first = seed(Some(&directory)).expect("a seed");
        assert_eq!(seed(Some(&directory)).expect("the same"), first);
        assert_ne!(seed(None).expect("another"), first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(directory.join(SEED_FILE)).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        std::fs::write(directory.join(SEED_FILE), "short").expect("written");
        assert!(seed(Some(&directory)).is_err());
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}
