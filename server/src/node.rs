//! A running server: what is started, in which order, and how it stops.
//!
//! Start: data directory (locked, recovered), then the peers (a swarm only where one was chosen), then the listener, then the line that says so. Stop, on SIGTERM or Ctrl-C: no peers any more, no new connections, idle ones are told
//! 57P01, running statements are cancelled once [`DRAIN`] is over, commits under way finish, the store is flushed, exit code 0. A second signal exits at once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgbee_replication::driver::endpoint::SwarmOptions;
use pgbee_sql::SqlError;
use pgbee_sql::follow::CoreKey;
use pgbee_sql::session::Instance;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Failure, failed};
use crate::config::{Config, Problem};
use crate::network::Peers;
use crate::swarm::SwarmChoice;
use crate::{follow, keys, pg};

/// How long running statements may go on after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(5);

/// Files the store keeps open (1,000 at most), and sockets of peers.
const FILES_OF_STORE_AND_PEERS: u64 = 1_256;
/// The same of a small store without peers.
const FILES_MIN: u64 = 128;

/// Stack of a thread that runs statements: the binder's depth limit is chosen for it.
const STACK_BYTES: usize = 16 << 20;

/// Runs the server until it is told to stop; with a key, as a follower of it.
///
/// # Errors
/// The data directory cannot be opened, or the address not listened on.
pub fn serve(config: Config, follow: Option<CoreKey>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .max_blocking_threads(threads_max(config.max_connections))
        .build()
        .map_err(failed)?;
    let served = runtime.block_on(run(config, follow));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// Threads at most: one for each session that runs or waits for a lock, so that whoever holds the lock has one too; those who come in; peers and upkeep.
fn threads_max(max_connections: usize) -> usize {
    max_connections + pg::STRANGERS_MAX + 64
}

/// Makes room for all clients' sockets beside the store's files, as far as the system allows.
///
/// # Errors
/// It does not allow what the clients alone take.
fn raise_file_limit(max_connections: usize) -> Result<(), Failure> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let sockets = (max_connections + pg::STRANGERS_MAX) as u64;
    let wanted = sockets + FILES_OF_STORE_AND_PEERS;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let highest = limit.maximum.unwrap_or(wanted).min(wanted);
    limit.current = Some(highest);
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files could not be raised to {highest}: {error}");
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(wanted);
    if allowed < sockets + FILES_MIN {
        return Err(failed(format!(
            "--max-connections {max_connections} takes {} open files, and the system allows {allowed}: raise ulimit -n, or allow fewer",
            sockets + FILES_MIN
        )));
    }
    if allowed < wanted {
        tracing::warn!(
            "{allowed} files may be open, and {max_connections} connections beside a large store take {wanted}: raise ulimit -n"
        );
    }
    Ok(())
}

async fn run(config: Config, follow: Option<CoreKey>) -> Result<(), Failure> {
    raise_file_limit(config.max_connections)?;
    refuse_strange_directory(&config.data)?;
    let instance = Instance::open(&config.data, config.instance_options()).map_err(|e| failed(describe(&e)))?;
    if !config.listen.ip().is_loopback() && instance.password_verifier("postgres").is_none() {
        return Err(failed(format!(
            "{} can be reached from other machines, and role postgres has no password: set one with pgbee password, or listen on 127.0.0.1",
            config.listen
        )));
    }
    let followed = follow.map(|key| follow::begin(&instance, key, &config)).transpose()?;
    let has_peers = |key| instance.followed().iter().any(|(_, known, peers)| *known == key && !peers.is_empty());
    let choice = SwarmChoice::of(&config, follow.is_some(), follow.is_some_and(has_peers));
    let peers = Peers::start(&instance);
    join_swarm(&choice, &config, &instance, &peers)?;
    if let Some(address) = config.peer_listen {
        let address = peers.listen(address).map_err(|e| failed(format!("cannot listen on {address}: {e}")))?;
        tell_keys(&instance, &address.to_string());
    }
    instance.set_network(peers.clone()).map_err(|e| failed(describe(&e)))?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|e| failed(format!("cannot listen on {}: {e}", config.listen)))?;
    let address = listener.local_addr().map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tracing::info!("data directory {}, databases: {}", config.data.display(), instance.databases().join(", "));
    let database = followed.as_ref().map_or_else(String::new, |name| format!(" -d {name}"));
    tracing::info!("listening on {address}: psql -h {} -p {} -U postgres{database}", address.ip(), address.port());
    let mirroring = match followed.filter(|_| config.mirror) {
        Some(name) => Some(follow::mirror(instance.clone(), name)?),
        None => None,
    };

    let clients = Arc::new(pg::Clients::new(config.max_connections, config.max_message_mb << 20));
    let accepting = tokio::spawn(pg::accept(listener, instance.clone(), clients.clone()));
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("interrupt: stopping"),
    }
    accepting.abort();
    if let Some(mirroring) = mirroring {
        mirroring.abort();
    }
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::warn!("second signal: stopping at once");
        std::process::exit(1);
    });
    // Nobody is told of what the last commits are before they are safe here.
    instance.clear_network();
    peers.stop().await;
    clients.stop(DRAIN).await;
    tokio::task::spawn_blocking(move || instance.shutdown())
        .await
        .map_err(failed)?
        .map_err(|e| failed(describe(&e)))?;
    tracing::info!("stopped");
    Ok(())
}

/// Takes part in the swarm that was chosen, if any was, and says in which, and who can be found there.
fn join_swarm(choice: &SwarmChoice, config: &Config, instance: &Instance, peers: &Peers) -> Result<(), Failure> {
    let Some(reach) = tokio::task::block_in_place(|| choice.reach())? else {
        if config.relay.is_some() {
            return Err(Problem("--relay is for peers that a swarm finds: it wants --swarm".to_owned()).into());
        }
        return Ok(());
    };
    let (host, port) = (reach.host, config.swarm_port);
    let asked = reach.bootstrap.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let options = SwarmOptions { bootstrap: reach.bootstrap, host, port, relay_through: config.relay };
    // Said before it is done.
    match choice {
        SwarmChoice::Public => tracing::info!("peers are looked for in the public HyperDHT, by asking {asked}"),
        _ => tracing::info!("peers are looked for in the private network of {asked}"),
    }
    let bound = peers
        .join_swarm(choice.title(), options)
        .map_err(|e| failed(format!("cannot take part in a swarm on {host}:{port}: {e}")))?;
    tracing::info!("in the swarm as {}, on UDP {bound}", keys::z_base_32(&peers.public_key()));
    for name in instance.databases().iter().filter(|name| instance.is_announced(name)) {
        match instance.key(name) {
            Ok(key) => tracing::info!("database {name} is announced: pgbee follow {}", keys::z_base_32(&key)),
            Err(error) => tracing::warn!("database {name}: {}", describe(&error)),
        }
    }
    Ok(())
}

/// Says what others need to follow our databases.
fn tell_keys(instance: &Instance, address: &str) {
    tracing::info!("listening for peers on {address}");
    for name in instance.databases() {
        match instance.key(&name) {
            Ok(key) => {
                tracing::info!("database {name}: pgbee follow {} --peer {address}", keys::z_base_32(&key));
            }
            Err(error) => tracing::warn!("database {name}: {}", describe(&error)),
        }
    }
}

/// A directory that holds something, but no store of ours, is somebody else's: nothing is put into it.
///
/// # Errors
/// It is such a directory; what it holds is named.
pub fn refuse_strange_directory(data: &Path) -> Result<(), Failure> {
    let Ok(entries) = std::fs::read_dir(data) else { return Ok(()) };
    let mut names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    // A store that was begun and not even named yet is as good as none.
    let store = data.join("store");
    let begun = || std::fs::read_dir(&store).is_ok_and(|mut entries| entries.next().is_none());
    let ours = |name: &String| name == "pgbee.toml" || name.ends_with(".log") || (name == "store" && begun());
    if store.join("FORMAT").is_file() || names.iter().all(ours) {
        return Ok(());
    }
    names.sort();
    names.truncate(3);
    Err(failed(format!("{} is not empty and holds no pgbee data (it has {})", data.display(), names.join(", "))))
}

/// An error with its detail and hint, on one line.
pub fn describe(error: &SqlError) -> String {
    let report = &error.0;
    let mut text = report.message.clone();
    for part in [&report.detail, &report.hint].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(part);
    }
    text
}
