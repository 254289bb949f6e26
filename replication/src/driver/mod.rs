//! Where the state machines meet sockets: [`Network`].
//!
//! ```text
//! listener task      accepts, up to a limit
//! dialer task        one an address: connects, and again when that ends, after 100 ms, 200 ms, .. 10 s
//! connection task    one a connection: read -> Node::handle_bytes; Node::take_output -> write; keepalive; timeouts
//! core task          one a core: waits until there is something to do, then Node::run on a thread that may block
//!
//!   socket -> connection task -> inbox of the core -> core task -> channel of a connection -> connection task -> socket
//! ```
//!
//! Connections are of two kinds: those to and from known addresses, over TCP, are made here; those that a swarm found come with their handshake done ([`swarm`]).
//! Both are served alike.
//!
//! A core's task is woken by messages, by the core itself (it grew), by its wants, and by its replicator's timeout.
//!
//! What must stay true: only `Node::run` and `Node::answer` touch the store, and they run on blocking threads; a connection whose core is behind is not read, one
//! that does not read is not answered, so that neither fills memory; whatever goes wrong on a connection ends that connection only.

pub mod endpoint;
pub mod swarm;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use pgbee_engine::corestore::Store;
use pgbee_engine::crypto::hash;
use pgbee_engine::hypercore::Core;
use pgbee_engine::{CoreKey, DiscoveryKey};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::error::{Fault, FollowError};
use crate::node::{Effects, Link, LinkId, Node, Slot};
use crate::secret_stream::{Identity, Randomness, Role};
use crate::transport::tcp;

/// How much is read at a time.
const READ_BYTES: usize = 64 << 10;
/// How much is encrypted and written at a time.
const WRITE_BYTES: usize = 256 << 10;
/// A connection is not read while the remote waits to hear of so many cores whether we have them.
const ASKED_MAX: usize = 1024;
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that lasted so long was a good one: the next attempt comes quickly again.
const GOOD_CONNECTION: Duration = Duration::from_secs(5);
/// How often a writer whose appends are not yet durable is looked at.
const DURABLE_POLL: Duration = Duration::from_millis(20);
/// How long a shutdown waits for what still runs.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// How a [`Network`] behaves.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// The seed of our key pair; by default it comes from the store's primary key, so that peers know us again.
    pub seed: Option<[u8; 32]>,
    /// How many connections others may have to us.
    pub connections_max: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How often we say that we are there.
    pub keep_alive: Duration,
    /// A connection on which nothing is heard for so long is ended.
    pub receive_timeout: Duration,
    /// A connection of others that carries no core for so long is ended.
    pub unused_timeout: Duration,
    /// The first and the longest wait before an address is tried again.
    pub reconnect: (Duration, Duration),
}

impl Default for NetworkOptions {
    fn default() -> NetworkOptions {
        NetworkOptions {
            seed: None,
            connections_max: 1024,
            handshake_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(5),
            receive_timeout: Duration::from_secs(30),
            unused_timeout: Duration::from_secs(60),
            reconnect: (Duration::from_millis(100), Duration::from_secs(10)),
        }
    }
}

/// One peer of one core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// The core.
    pub core: CoreKey,
    /// The peer's own public key.
    pub peer_key: [u8; 32],
    /// Its address.
    pub address: String,
    /// How it is reached: "tcp", or "udx" for one that the swarm found.
    pub transport: &'static str,
    /// The length it claims.
    pub remote_length: u64,
    /// Blocks received of this core.
    pub blocks_in: u64,
    /// Blocks sent of this core.
    pub blocks_out: u64,
    /// Bytes received on the connection.
    pub bytes_in: u64,
    /// Bytes sent on the connection.
    pub bytes_out: u64,
    /// Smoothed time from request to answer; None before the first answer.
    pub round_trip_micros: Option<u64>,
    /// When it connected.
    pub connected_at: SystemTime,
}

/// What peers say about a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteInfo {
    /// The longest length a connected peer claims.
    pub length: u64,
    /// Connected peers.
    pub peers: usize,
    /// Messages that failed verification since it is replicated.
    pub verification_failures: u64,
    /// The swarm's search for its peers is still at its beginning, or some that it named are about to be reached.
    pub is_searching: bool,
}

/// Peers of all cores of a store.
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    node: Node,
    options: NetworkOptions,
    runtime: tokio::runtime::Handle,
    started: Instant,
    closing: watch::Sender<bool>,
    inbound: Arc<Semaphore>,
    tasks: Mutex<JoinSet<()>>,
    /// What wakes a core's task, by the slot's number.
    core_tasks: Mutex<HashMap<u64, Arc<Notify>>>,
    connections: Mutex<BTreeMap<LinkId, Arc<Wire>>>,
    dialers: Mutex<HashMap<String, Dialer>>,
    swarm: Mutex<swarm::Topics>,
}

/// The driver's side of a connection.
struct Wire {
    address: String,
    transport: &'static str,
    wake: Notify,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    connected_at: SystemTime,
    peer_key: Mutex<Option<[u8; 32]>>,
    /// The cores that the remote asked for and that were not looked up yet.
    asked: Mutex<VecDeque<DiscoveryKey>>,
    is_answering: AtomicBool,
}

/// An address that a connection is kept to.
struct Dialer {
    /// For these cores.
    cores: HashSet<CoreKey>,
    stop: Arc<watch::Sender<bool>>,
}

impl Network {
    /// Begin, without any connection. Call it inside a runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(store: Arc<Store>, options: NetworkOptions) -> Arc<Network> {
        let seed =
            options.seed.unwrap_or_else(|| hash::keyed(store.primary_key(), &[&hash::namespace("pgbee/network", 0)]));
        let inner = Inner {
            node: Node::new(store, Identity::from_seed(seed)),
            runtime: tokio::runtime::Handle::current(),
            started: Instant::now(),
            closing: watch::channel(false).0,
            inbound: Arc::new(Semaphore::new(options.connections_max)),
            tasks: Mutex::default(),
            core_tasks: Mutex::default(),
            connections: Mutex::default(),
            dialers: Mutex::default(),
            swarm: Mutex::default(),
            options,
        };
        Arc::new(Network { inner: Arc::new(inner) })
    }

    /// Our public key: who we are to peers.
    pub fn public_key(&self) -> [u8; 32] {
        self.inner.node.identity().public_key()
    }

    /// Accept connections. The address that was bound, which is of use if the port was 0.
    ///
    /// # Errors
    /// If the address is in use, or cannot be.
    pub fn listen(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        let _runtime = self.inner.runtime.enter();
        let listener = tcp::listen(address)?;
        let bound = listener.local_addr()?;
        let inner = self.inner.clone();
        self.inner.spawn(async move {
            let mut closing = inner.closing.subscribe();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = closing.wait_for(|closing| *closing) => return,
                };
                match accepted {
                    Ok((stream, from)) => inner.accept(stream, from),
                    Err(error) => {
                        // Out of file descriptors, most likely: what is connected goes on, and ends at times.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(bound)
    }

    /// Keep a core up to date with every peer that has it, fetch what is wanted of it, and keep connections to these addresses, besides those that are kept
    /// already. Returns at once.
    ///
    /// # Errors
    /// For what cannot be an address; then nothing has changed.
    pub fn follow(&self, core: &Arc<Core>, addresses: &[String]) -> Result<(), FollowError> {
        if let Some(bad) = addresses.iter().find(|address| !tcp::is_address(address)) {
            return Err(FollowError::Address(bad.clone()));
        }
        let effects = self.inner.node.follow(core);
        self.inner.apply(effects);
        for address in addresses {
            self.inner.dial(address, core.key());
        }
        self.inner.change_topic(core.discovery_key(), |purpose| purpose.is_followed = true);
        Ok(())
    }

    /// End keeping a core up to date. Connections that were kept only for it are closed; it is still served on others.
    pub fn unfollow(&self, key: CoreKey) {
        let effects = self.inner.node.unfollow(key);
        self.inner.apply(effects);
        self.inner.change_topic(key.discovery_key(), |purpose| purpose.is_followed = false);
        self.inner.dialers.lock().retain(|_, dialer| {
            let was_for_it = dialer.cores.remove(&key);
            let is_over = was_for_it && dialer.cores.is_empty();
            if is_over {
                dialer.stop.send_replace(true);
            }
            !is_over
        });
    }

    /// All connections, once for each core they carry.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let wires = self.inner.connections.lock().clone();
        let mut peers = Vec::new();
        for slot in self.inner.node.cores() {
            for (link, status) in slot.status().peers {
                let Some(wire) = wires.get(&link) else { continue };
                let Some(peer_key) = *wire.peer_key.lock() else { continue };
                peers.push(PeerInfo {
                    core: slot.core().key(),
                    peer_key,
                    address: wire.address.clone(),
                    transport: wire.transport,
                    remote_length: status.length.0,
                    blocks_in: status.blocks_in,
                    blocks_out: status.blocks_out,
                    bytes_in: wire.bytes_in.load(Ordering::Relaxed),
                    bytes_out: wire.bytes_out.load(Ordering::Relaxed),
                    round_trip_micros: status.round_trip.map(|time| time.as_micros() as u64),
                    connected_at: wire.connected_at,
                });
            }
        }
        peers
    }

    /// What is known of a core beyond what is stored; None for one that is not replicated.
    pub fn remote(&self, key: CoreKey) -> Option<RemoteInfo> {
        let status = self.inner.node.core(key)?.status();
        let (length, verification_failures) = (status.remote_length, status.verification_failures);
        let is_searching = self.inner.is_searching(key.discovery_key());
        Some(RemoteInfo { length, peers: status.peers.len(), verification_failures, is_searching })
    }

    /// End all connections and tasks. The swarm is told that we go.
    pub async fn shutdown(&self) {
        self.inner.closing.send_replace(true);
        let finder = self.inner.swarm.lock().finder.take();
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock());
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, all).await.is_err() {
            tracing::warn!("some peers' tasks did not end in time");
            tasks.abort_all();
        }
        if let Some(finder) = finder {
            finder.stop().await;
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.inner.closing.send_replace(true);
    }
}

impl Inner {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        if !self.is_closing() {
            tasks.spawn_on(task, &self.runtime);
        }
    }

    /// Wake whoever has something to do now.
    fn apply(self: &Arc<Self>, effects: Effects) {
        for slot in effects.run {
            self.wake(&slot);
        }
        if effects.links.is_empty() {
            return;
        }
        let connections = self.connections.lock();
        for link in effects.links {
            if let Some(wire) = connections.get(&link.id()) {
                wire.wake.notify_one();
            }
        }
    }

    // ---- cores

    fn wake(self: &Arc<Self>, slot: &Arc<Slot>) {
        let mut tasks = self.core_tasks.lock();
        let notify = tasks.entry(slot.id()).or_insert_with(|| {
            let notify = Arc::new(Notify::new());
            self.spawn(core_task(self.clone(), slot.clone(), notify.clone()));
            notify
        });
        notify.notify_one();
    }

    /// Whether nobody needs a core any longer; then its task has to end, and whoever wakes it from now on begins another.
    fn is_over(&self, slot: &Arc<Slot>) -> bool {
        let mut tasks = self.core_tasks.lock();
        let is_over = self.node.release(slot);
        if is_over {
            tasks.remove(&slot.id());
        }
        is_over
    }

    // ---- connections

    fn accept(self: &Arc<Self>, stream: TcpStream, from: SocketAddr) {
        let Ok(permit) = self.inbound.clone().try_acquire_owned() else {
            tracing::warn!(%from, "a connection was refused: there are too many");
            return;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%from, %error, "a connection was gone at once");
            return;
        }
        let inner = self.clone();
        self.spawn(async move { inner.serve(stream, Role::Responder, from.to_string(), Some(permit), None).await });
    }

    fn dial(self: &Arc<Self>, address: &str, core: CoreKey) {
        let mut dialers = self.dialers.lock();
        let dialer = dialers.entry(address.to_string()).or_insert_with(|| {
            let stop = Arc::new(watch::channel(false).0);
            self.spawn(dial_task(self.clone(), address.to_string(), stop.subscribe()));
            Dialer { cores: HashSet::new(), stop }
        });
        dialer.cores.insert(core);
    }

    /// A connection over TCP, from its first byte to its last.
    async fn serve(
        self: &Arc<Self>,
        stream: TcpStream,
        role: Role,
        address: String,
        _permit: Option<OwnedSemaphorePermit>,
        stop: Option<watch::Receiver<bool>>,
    ) {
        let Some(random) = randomness() else { return };
        let link = self.node.connect(role, Randomness::new(random));
        self.serve_link(stream, link, address, "tcp", stop).await;
    }

    /// A connection of any kind.
    async fn serve_link<S: AsyncRead + AsyncWrite + Unpin>(
        self: &Arc<Self>,
        stream: S,
        link: Arc<Link>,
        address: String,
        transport: &'static str,
        stop: Option<watch::Receiver<bool>>,
    ) {
        let wire = Arc::new(Wire {
            address,
            transport,
            wake: Notify::new(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            connected_at: SystemTime::now(),
            peer_key: Mutex::new(None),
            asked: Mutex::default(),
            is_answering: AtomicBool::new(false),
        });
        self.connections.lock().insert(link.id(), wire.clone());
        let ended = self.talk(stream, &link, &wire, stop).await;
        self.connections.lock().remove(&link.id());
        let effects = self.node.disconnect(&link);
        self.apply(effects);
        match ended {
            Ok(()) => tracing::debug!(address = %wire.address, "a connection ended"),
            Err(Ended::Fault(fault)) => tracing::warn!(address = %wire.address, %fault, "a connection was ended"),
            Err(Ended::Io(error)) => tracing::debug!(address = %wire.address, %error, "a connection broke"),
        }
    }

    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        self: &Arc<Self>,
        stream: S,
        link: &Arc<Link>,
        wire: &Arc<Wire>,
        stop: Option<watch::Receiver<bool>>,
    ) -> Result<(), Ended> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut buffer = vec![0; READ_BYTES];
        let mut output = bytes::Bytes::new();
        let mut closing = self.closing.subscribe();
        let (begun, mut heard, mut said) = (Instant::now(), Instant::now(), Instant::now());
        let mut unused_since = Instant::now();
        let mut is_ready = false;
        let is_inbound = stop.is_none();
        let mut stop = stop.unwrap_or_else(|| self.closing.subscribe());
        if link.is_ready() {
            // Its handshake was made elsewhere.
            self.received(link, wire, &[])?;
        }
        loop {
            if let Some(fault) = link.fault() {
                return Err(Ended::Fault(fault));
            }
            if output.is_empty() {
                let mut effects = Effects::default();
                output = self.node.take_output(link, WRITE_BYTES, &mut effects);
                self.apply(effects);
            }
            if !link.is_unused() {
                unused_since = Instant::now();
            }
            if link.can_go_on() {
                self.received(link, wire, &[])?;
                tokio::task::yield_now().await;
                continue;
            }
            let may_read = !link.is_backed_up() && wire.asked.lock().len() < ASKED_MAX;
            let quiet =
                if is_ready { heard + self.options.receive_timeout } else { begun + self.options.handshake_timeout };
            let unused = if is_inbound { unused_since + self.options.unused_timeout } else { quiet };
            let deadline = quiet.min(said + self.options.keep_alive).min(unused);
            tokio::select! {
                read = reader.read(&mut buffer), if may_read => {
                    let read = read?;
                    if read == 0 {
                        return Ok(());
                    }
                    heard = Instant::now();
                    wire.bytes_in.fetch_add(read as u64, Ordering::Relaxed);
                    self.received(link, wire, &buffer[..read])?;
                    if !is_ready && link.is_ready() {
                        is_ready = true;
                        *wire.peer_key.lock() = link.remote_public_key();
                    }
                }
                written = writer.write(&output), if !output.is_empty() => {
                    let written = written?;
                    if written == 0 {
                        return Ok(());
                    }
                    said = Instant::now();
                    wire.bytes_out.fetch_add(written as u64, Ordering::Relaxed);
                    output = output.slice(written..);
                }
                () = wire.wake.notified() => {}
                () = tokio::time::sleep_until(deadline.into()) => {
                    let now = Instant::now();
                    // Nothing is heard of a peer that we do not listen to.
                    heard = if may_read { heard } else { now };
                    if now >= quiet && may_read {
                        return Err(Ended::Fault(if is_ready { Fault::Silent } else { Fault::HandshakeTimeout }));
                    }
                    if is_inbound && now >= unused {
                        return Ok(());
                    }
                    if now >= said + self.options.keep_alive {
                        self.node.keep_alive(link);
                        said = now;
                    }
                }
                _ = closing.wait_for(|closing| *closing) => return Ok(()),
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            }
        }
    }

    fn received(self: &Arc<Self>, link: &Arc<Link>, wire: &Arc<Wire>, bytes: &[u8]) -> Result<(), Ended> {
        let mut effects = Effects::default();
        let handled = self.node.handle_bytes(link, bytes, &mut effects);
        if !effects.asked.is_empty() {
            wire.asked.lock().extend(std::mem::take(&mut effects.asked));
            self.answer(link, wire);
        }
        self.apply(effects);
        handled.map_err(Ended::Fault)
    }

    /// Look up the cores that the remote asked for, one after the other: who asks for many waits for them alone.
    fn answer(self: &Arc<Self>, link: &Arc<Link>, wire: &Arc<Wire>) {
        if wire.is_answering.swap(true, Ordering::AcqRel) {
            return;
        }
        let (inner, link, wire) = (self.clone(), link.clone(), wire.clone());
        self.runtime.spawn_blocking(move || {
            loop {
                let asked = wire.asked.lock().pop_front();
                if let Some(discovery) = asked {
                    let mut effects = inner.node.answer(&link, discovery);
                    wire.asked.lock().extend(std::mem::take(&mut effects.asked));
                    inner.apply(effects);
                    continue;
                }
                wire.is_answering.store(false, Ordering::Release);
                // What came between the look and the store has found us still answering.
                if wire.asked.lock().is_empty() || wire.is_answering.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        });
    }
}

/// Fresh random bytes; none where the operating system has none, which is told.
fn randomness<const N: usize>() -> Option<[u8; N]> {
    let mut random = [0; N];
    match getrandom::fill(&mut random) {
        Ok(()) => Some(random),
        Err(error) => {
            tracing::error!(%error, "there is no randomness for a connection");
            None
        }
    }
}

/// Runs a core's replicator whenever there is something to do, until nobody needs the core any longer.
async fn core_task(inner: Arc<Inner>, slot: Arc<Slot>, notify: Arc<Notify>) {
    let mut closing = inner.closing.subscribe();
    while !inner.is_closing() {
        // Looked at before the run: what changes during it shows after it.
        let (wants, watch) = (slot.core().wants().clone(), slot.core().watch().clone());
        let (seen, position) = (wants.generation(), watch.position());
        let (running, core) = (inner.clone(), slot.clone());
        let ran = inner.runtime.spawn_blocking(move || running.node.run(&core, running.now())).await;
        let Ok(effects) = ran else {
            // It panicked, which is a bug of ours: the core's state is not to be trusted any longer.
            tracing::error!(core = %slot.core().key(), "replication of a core has failed");
            break;
        };
        let (again, timeout) = (effects.again, effects.timeout);
        inner.apply(effects);
        if again {
            continue;
        }
        if inner.is_over(&slot) {
            return;
        }
        let core = slot.core();
        let durable = (core.durable_len() < core.len()).then(|| Instant::now() + DURABLE_POLL);
        let due = timeout.map(|at| inner.started + at).into_iter().chain(durable).min();
        let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            () = notify.notified() => {}
            _ = wants.changed(seen) => {}
            _ = watch.changed(position) => {}
            () = tokio::time::sleep_until(due.into()) => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }
    inner.core_tasks.lock().remove(&slot.id());
}

/// Keeps a connection to an address.
async fn dial_task(inner: Arc<Inner>, address: String, mut stop: watch::Receiver<bool>) {
    let (first, longest) = inner.options.reconnect;
    let mut wait = first;
    let mut closing = inner.closing.subscribe();
    loop {
        let begun = Instant::now();
        let while_connected = stop.clone();
        let connected = tokio::select! {
            connected = tcp::connect(&address, CONNECT_TIMEOUT) => connected,
            _ = stop.wait_for(|stop| *stop) => return,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        match connected {
            Ok(stream) => inner.serve(stream, Role::Initiator, address.clone(), None, Some(while_connected)).await,
            Err(error) => tracing::debug!(%address, %error, "no connection"),
        }
        wait = if begun.elapsed() >= GOOD_CONNECTION { first } else { wait };
        tokio::select! {
            () = tokio::time::sleep(jittered(wait)) => {}
            _ = stop.wait_for(|stop| *stop) => return,
            _ = closing.wait_for(|closing| *closing) => return,
        }
        wait = (wait * 2).min(longest);
    }
}

/// Between half and all of it, so that those who lost one server do not come back to it as one.
fn jittered(wait: Duration) -> Duration {
    let mut random = [0];
    // Without randomness they come back as one.
    let _ = getrandom::fill(&mut random);
    wait / 2 + wait * u32::from(random[0]) / 510
}

/// Why a connection ended other than by being closed.
enum Ended {
    Fault(Fault),
    Io(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Io(error)
    }
}
