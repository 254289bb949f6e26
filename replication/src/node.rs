//! Many cores, many connections: [`Node`], the corestore level of replication. No I/O but the store's, no clock, no task.
//!
//! ```text
//!   bytes of a connection                                             bytes for a connection
//!           |                                                                  ^
//!           v  handle_bytes: decrypt, decode                                   |  take_output: encrypt
//!   Link (Connection) --Opened, Message, Closed--> inbox of the Slot           |
//!     |  Asked: a core we may have                    |                        |
//!     v  answer: look it up in the store              v  run: the Replicator   |
//!   open or reject                                  Slot (one core) ----messages to the channels of all its peers
//! ```
//!
//! Two kinds of call, for two kinds of thread. `handle_bytes` and `take_output` touch one connection and no store: a driver calls them from the task that reads and
//! writes the socket. `run` and `answer` may block on the disk; a core's `run` is one at a time, so its order is kept. Both tell what has to be called next.
//!
//! Locks, in the order they are taken: a slot's state, a link's connection, then any inbox. No lock is held across I/O of a socket.
//!
//! What must stay true: a core we do not have is rejected without a trace of whether others are here; what one connection has in inboxes is bounded by its
//! reader stopping, in the middle of a frame if need be ([`Link::is_backed_up`], [`Link::can_go_on`]), what it has to be written by answers stopping ([`OUTPUT_HIGH`]) and, for all else, by its end ([`OUTPUT_MAX`]).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use pgbee_engine::corestore::Store;
use pgbee_engine::hypercore::Core;
use pgbee_engine::{CoreKey, DiscoveryKey};

use crate::connection::{Connection, Event};
use crate::error::Fault;
use crate::protocol::messages::Message;
use crate::protomux::ChannelId;
use crate::replicator::{Now, Output, PeerId, PeerStatus, Replicator};
use crate::secret_stream::handshake::Session;
use crate::secret_stream::{Identity, Randomness, Role};

/// Answers stop while so many bytes of a connection wait to be written.
pub const OUTPUT_HIGH: usize = 1 << 20;
/// They go on once there are no more than so many.
pub const OUTPUT_LOW: usize = 256 << 10;
/// A connection that lets so many bytes wait is ended. More than any block and what is sent unasked.
pub const OUTPUT_MAX: usize = 64 << 20;
/// The same for one that has proved to know no core yet: more than opening as many channels as there can be takes.
pub const OUTPUT_UNPROVEN_MAX: usize = 16 << 20;
/// A connection is not read while so many bytes of it wait in inboxes.
pub const INBOX_HIGH: usize = 8 << 20;
/// What a message in an inbox counts besides its bytes.
const MESSAGE_COST: usize = size_of::<Input>();
/// How often events are taken from a connection in one go, so that others have their turn.
const EVENT_ROUNDS: usize = 16;
/// How often one connection's channel of a core is opened again after the remote closed it.
const REOPENS_MAX: u32 = 8;
/// Of how many connections that is remembered for a core.
const REOPENED_MAX: usize = 1024;

/// One connection of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A connection and what the node knows about it.
pub struct Link {
    id: LinkId,
    connection: Mutex<Connection>,
    routes: Mutex<BTreeMap<ChannelId, Route>>,
    /// Bytes of messages in inboxes.
    waiting: AtomicUsize,
    fault: Mutex<Option<Fault>>,
    is_gone: AtomicBool,
    /// Cores whose answers wait for room.
    blocked: Mutex<Vec<Arc<Slot>>>,
}

/// Where a channel leads.
#[derive(Clone)]
struct Route {
    slot: Arc<Slot>,
    /// `None` until both sides opened the channel.
    peer: Option<PeerId>,
}

/// One replicated core.
pub struct Slot {
    id: u64,
    core: Arc<Core>,
    discovery: DiscoveryKey,
    is_downloading: AtomicBool,
    /// Channels that are open, or about to be.
    channels: AtomicUsize,
    inbox: Mutex<VecDeque<Input>>,
    state: Mutex<State>,
    status: Mutex<Status>,
}

struct State {
    replicator: Replicator,
    routes: BTreeMap<PeerId, (Arc<Link>, ChannelId)>,
    reopened: HashMap<LinkId, u32>,
}

/// What a core was last seen doing.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Its peers, and the connections they are on.
    pub peers: Vec<(LinkId, PeerStatus)>,
    /// The longest length a peer claims.
    pub remote_length: u64,
    /// Messages that failed verification.
    pub verification_failures: u64,
}

enum Input {
    Opened(PeerId, Arc<Link>, ChannelId),
    Message(PeerId, Message, usize, Arc<Link>),
    Closed(PeerId, Arc<Link>),
    Downloading(bool),
}

/// What has to be called next.
#[derive(Default)]
pub struct Effects {
    /// [`Node::run`] these.
    pub run: Vec<Arc<Slot>>,
    /// [`Node::answer`] these: the remote asked for them.
    pub asked: Vec<DiscoveryKey>,
    /// These have output, or read on, or have ended: [`Node::take_output`], [`Link::fault`].
    pub links: Vec<Arc<Link>>,
    /// Whether the core that ran wants to be run again at once.
    pub again: bool,
    /// When it wants to be run again at the latest.
    pub timeout: Option<Now>,
}

/// Many cores, many connections.
pub struct Node {
    store: Arc<Store>,
    identity: Identity,
    cores: Mutex<BTreeMap<DiscoveryKey, Arc<Slot>>>,
    links: Mutex<BTreeMap<LinkId, Arc<Link>>>,
    next: AtomicU64,
}

impl Link {
    /// Its number.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// Why it has to end, if it has to.
    pub fn fault(&self) -> Option<Fault> {
        self.fault.lock().clone()
    }

    /// Whether it should not be read now.
    pub fn is_backed_up(&self) -> bool {
        let is_blocked = || {
            let connection = self.connection.lock();
            connection.is_read_blocked() || connection.has_more()
        };
        self.is_inbox_full() || is_blocked()
    }

    /// Whether something has come that was not looked at yet, and can be now: [`Node::handle_bytes`] it, without new ones.
    pub fn can_go_on(&self) -> bool {
        !self.is_inbox_full() && self.connection.lock().has_more()
    }

    fn is_inbox_full(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > INBOX_HIGH
    }

    /// Who is at the other end, once that is proved.
    pub fn remote_public_key(&self) -> Option<[u8; 32]> {
        self.connection.lock().remote_public_key()
    }

    /// Whether the handshake is over.
    pub fn is_ready(&self) -> bool {
        self.connection.lock().is_ready()
    }

    /// Whether it carries no channel.
    pub fn is_unused(&self) -> bool {
        self.routes.lock().is_empty()
    }

    fn fail(&self, fault: Fault) {
        self.fault.lock().get_or_insert(fault);
    }
}

impl Slot {
    /// A number of its own, never used twice in a node.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The core.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// What it was last seen doing.
    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }

    /// What its replicator is at, for who looks for a bug.
    pub fn describe(&self) -> String {
        self.state.lock().replicator.describe()
    }

    /// Whether it is kept up to date.
    pub fn is_downloading(&self) -> bool {
        self.is_downloading.load(Ordering::Acquire)
    }
}

impl Node {
    /// Of a store, under a key pair.
    pub fn new(store: Arc<Store>, identity: Identity) -> Node {
        Node { store, identity, cores: Mutex::default(), links: Mutex::default(), next: AtomicU64::new(1) }
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Our key pair.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    // ---- cores

    /// Keep a core up to date, and fetch what is wanted of it.
    pub fn follow(&self, core: &Arc<Core>) -> Effects {
        // With what it has to do in its inbox it is not released.
        let slot = self.slot(core, |slot| {
            if !slot.is_downloading.swap(true, Ordering::AcqRel) {
                slot.inbox.lock().push_back(Input::Downloading(true));
            }
        });
        Effects { run: vec![slot], ..Effects::default() }
    }

    /// Only serve it from now on.
    pub fn unfollow(&self, key: CoreKey) -> Effects {
        let slot = self.cores.lock().get(&key.discovery_key()).cloned();
        let mut effects = Effects::default();
        if let Some(slot) = slot.filter(|slot| slot.is_downloading.swap(false, Ordering::AcqRel)) {
            slot.inbox.lock().push_back(Input::Downloading(false));
            effects.run.push(slot);
        }
        effects
    }

    /// What is being done for a core.
    pub fn core(&self, key: CoreKey) -> Option<Arc<Slot>> {
        self.cores.lock().get(&key.discovery_key()).cloned()
    }

    /// All replicated cores.
    pub fn cores(&self) -> Vec<Arc<Slot>> {
        self.cores.lock().values().cloned().collect()
    }

    /// A core's slot, made if there is none. What is done with it in `with` is done before it can be released.
    fn slot(&self, core: &Arc<Core>, with: impl FnOnce(&Slot)) -> Arc<Slot> {
        let mut cores = self.cores.lock();
        let slot = cores.entry(core.discovery_key()).or_insert_with(|| {
            let state = State {
                replicator: Replicator::new(core.clone(), false),
                routes: BTreeMap::new(),
                reopened: HashMap::new(),
            };
            Arc::new(Slot {
                id: self.number(),
                core: core.clone(),
                discovery: core.discovery_key(),
                is_downloading: AtomicBool::new(false),
                channels: AtomicUsize::new(0),
                inbox: Mutex::default(),
                state: Mutex::new(state),
                status: Mutex::default(),
            })
        });
        with(slot);
        slot.clone()
    }

    /// Forget a core that nobody needs any longer. Whether it was one.
    pub fn release(&self, slot: &Arc<Slot>) -> bool {
        let mut cores = self.cores.lock();
        let is_needed =
            slot.is_downloading() || slot.channels.load(Ordering::Acquire) > 0 || !slot.inbox.lock().is_empty();
        if !is_needed && cores.get(&slot.discovery).is_some_and(|known| Arc::ptr_eq(known, slot)) {
            cores.remove(&slot.discovery);
        }
        !is_needed
    }

    // ---- connections

    /// A connection was made.
    pub fn connect(&self, role: Role, random: Randomness) -> Arc<Link> {
        self.link(Connection::new(role, &self.identity, random))
    }

    /// A connection was made, and its handshake with it: [`handle_bytes`](Node::handle_bytes) it with none, so that channels are opened. The random bytes must be fresh.
    pub fn connect_established(&self, role: Role, session: &Session, stream_header: [u8; 24]) -> Arc<Link> {
        self.link(Connection::established(role, session, stream_header))
    }

    fn link(&self, connection: Connection) -> Arc<Link> {
        let link = Arc::new(Link {
            id: LinkId(self.number()),
            connection: Mutex::new(connection),
            routes: Mutex::default(),
            waiting: AtomicUsize::new(0),
            fault: Mutex::default(),
            is_gone: AtomicBool::new(false),
            blocked: Mutex::default(),
        });
        self.links.lock().insert(link.id, link.clone());
        link
    }

    /// A connection has ended.
    pub fn disconnect(&self, link: &Arc<Link>) -> Effects {
        self.links.lock().remove(&link.id);
        let mut effects = Effects::default();
        let routes = {
            // Whoever opens a channel holds the connection: none is opened after this.
            let _connection = link.connection.lock();
            link.is_gone.store(true, Ordering::Release);
            std::mem::take(&mut *link.routes.lock())
        };
        for route in routes.into_values() {
            self.closed(link, &route, &mut effects);
        }
        link.blocked.lock().clear();
        effects
    }

    /// All connections.
    pub fn all_links(&self) -> Vec<Arc<Link>> {
        self.links.lock().values().cloned().collect()
    }

    /// Bytes came in on a connection.
    ///
    /// # Errors
    /// The remote's fault: [`disconnect`](Node::disconnect) it, once the effects that are put into `effects` are done with.
    pub fn handle_bytes(&self, link: &Arc<Link>, bytes: &[u8], effects: &mut Effects) -> Result<(), Fault> {
        let mut connection = link.connection.lock();
        let mut handled = connection.handle_bytes(bytes);
        for _ in 0..EVENT_ROUNDS {
            self.handle_events(link, &mut connection, effects);
            if handled.is_err() || !connection.has_more() || link.is_inbox_full() {
                break;
            }
            handled = connection.pump();
        }
        self.handle_events(link, &mut connection, effects);
        check_output(link, &connection);
        handled
    }

    fn handle_events(&self, link: &Arc<Link>, connection: &mut Connection, effects: &mut Effects) {
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Ready => {
                    connection.cork();
                    for slot in self.cores() {
                        if slot.is_downloading() {
                            open(link, connection, &slot);
                        }
                    }
                    connection.uncork();
                    push_link(&mut effects.links, link);
                }
                Event::Asked(discovery) => {
                    let slot = self.claim(discovery);
                    match slot {
                        Some(slot) => {
                            if !open(link, connection, &slot) {
                                connection.reject(discovery);
                            }
                            slot.channels.fetch_sub(1, Ordering::AcqRel);
                            if let Err(fault) = connection.pump() {
                                link.fail(fault);
                            }
                            push_link(&mut effects.links, link);
                        }
                        None => effects.asked.push(discovery),
                    }
                }
                Event::Opened(channel, _) => {
                    let mut routes = link.routes.lock();
                    if let Some(route) = routes.get_mut(&channel) {
                        let peer = PeerId(self.number());
                        route.peer = Some(peer);
                        link.waiting.fetch_add(MESSAGE_COST, Ordering::AcqRel);
                        route.slot.inbox.lock().push_back(Input::Opened(peer, link.clone(), channel));
                        push_slot(&mut effects.run, &route.slot);
                    }
                }
                Event::Message(channel, message, bytes) => {
                    let routes = link.routes.lock();
                    if let Some(Route { slot, peer: Some(peer) }) = routes.get(&channel) {
                        let cost = bytes + MESSAGE_COST;
                        link.waiting.fetch_add(cost, Ordering::AcqRel);
                        slot.inbox.lock().push_back(Input::Message(*peer, message, cost, link.clone()));
                        push_slot(&mut effects.run, slot);
                    }
                }
                Event::Closed(channel) => {
                    let route = link.routes.lock().remove(&channel);
                    if let Some(route) = route {
                        self.closed(link, &route, effects);
                    }
                }
            }
        }
    }

    /// A replicated core, kept from being released until its `channels` are one less.
    fn claim(&self, discovery: DiscoveryKey) -> Option<Arc<Slot>> {
        let cores = self.cores.lock();
        let slot = cores.get(&discovery)?;
        slot.channels.fetch_add(1, Ordering::AcqRel);
        Some(slot.clone())
    }

    fn closed(&self, link: &Arc<Link>, route: &Route, effects: &mut Effects) {
        route.slot.channels.fetch_sub(1, Ordering::AcqRel);
        if let Some(peer) = route.peer {
            link.waiting.fetch_add(MESSAGE_COST, Ordering::AcqRel);
            route.slot.inbox.lock().push_back(Input::Closed(peer, link.clone()));
        }
        push_slot(&mut effects.run, &route.slot);
    }

    fn open(&self, link: &Arc<Link>, slot: &Arc<Slot>) -> bool {
        open(link, &mut link.connection.lock(), slot)
    }

    /// The remote asked for a core that is not replicated yet: open it if the store has it. Reads the store.
    pub fn answer(&self, link: &Arc<Link>, discovery: DiscoveryKey) -> Effects {
        let found = self.store.get_by_discovery_key(discovery).unwrap_or_else(|error| {
            tracing::error!(%error, "a core that a peer asked for could not be opened");
            None
        });
        let mut effects = Effects::default();
        let claim = |slot: &Slot| _ = slot.channels.fetch_add(1, Ordering::AcqRel);
        let claimed = found.map(|core| self.slot(&core, claim));
        let mut connection = link.connection.lock();
        match claimed {
            Some(slot) => {
                if !open(link, &mut connection, &slot) {
                    // A second one of the same core, which is none. Nothing happens if the first has answered it.
                    connection.reject(discovery);
                }
                slot.channels.fetch_sub(1, Ordering::AcqRel);
                push_slot(&mut effects.run, &slot);
            }
            None => connection.reject(discovery),
        }
        if let Err(fault) = connection.pump() {
            link.fail(fault);
        }
        self.handle_events(link, &mut connection, &mut effects);
        check_output(link, &connection);
        push_link(&mut effects.links, link);
        effects
    }

    /// At most so many bytes to write to a connection. The cores that can go on answering are put into `effects`.
    pub fn take_output(&self, link: &Arc<Link>, max: usize, effects: &mut Effects) -> Bytes {
        let mut connection = link.connection.lock();
        let output = connection.take_output(max);
        if connection.pending_bytes() <= OUTPUT_LOW {
            effects.run.append(&mut link.blocked.lock());
        }
        output
    }

    /// Say that we are there, if nothing else is said.
    pub fn keep_alive(&self, link: &Arc<Link>) {
        link.connection.lock().keep_alive();
    }

    // ---- work

    /// Let a core's replicator do what there is to do. Reads and writes the store; waits for no peer.
    pub fn run(&self, slot: &Arc<Slot>, now: Now) -> Effects {
        let mut state = slot.state.lock();
        let State { replicator, routes, reopened } = &mut *state;
        let mut effects = Effects::default();
        let mut has_begun = false;
        for (&peer, (link, _)) in &*routes {
            let connection = link.connection.lock();
            let is_congested = connection.pending_bytes() > OUTPUT_HIGH;
            replicator.set_congested(peer, is_congested);
            if is_congested {
                // While the connection is held, for it looks at this when it has been written.
                push_slot(&mut link.blocked.lock(), slot);
            }
        }
        let inputs = std::mem::take(&mut *slot.inbox.lock());
        for input in inputs {
            match input {
                Input::Opened(peer, link, channel) => {
                    taken(&link, MESSAGE_COST, &mut effects);
                    routes.insert(peer, (link, channel));
                    replicator.peer_opened(peer);
                }
                Input::Message(peer, message, cost, link) => {
                    taken(&link, cost, &mut effects);
                    replicator.handle_message(peer, message, now);
                }
                Input::Closed(peer, link) => {
                    taken(&link, MESSAGE_COST, &mut effects);
                    routes.remove(&peer);
                    if reopened.len() > REOPENED_MAX {
                        reopened.clear();
                    }
                    let again = reopened.entry(link.id).or_default();
                    if link.is_gone.load(Ordering::Acquire) {
                        reopened.remove(&link.id);
                        replicator.peer_closed(peer);
                    } else if replicator.peer_closed(peer) && *again < REOPENS_MAX {
                        *again += 1;
                        self.open(&link, slot);
                        push_link(&mut effects.links, &link);
                    }
                }
                Input::Downloading(is_downloading) => {
                    has_begun = is_downloading;
                    replicator.set_downloading(is_downloading);
                }
            }
        }
        replicator.handle_core_changed();
        replicator.handle_wants(slot.core.wants().take());
        effects.again = replicator.work(now);
        let corked = self.deliver(slot, replicator, routes);
        for link in corked {
            let mut connection = link.connection.lock();
            connection.uncork();
            check_output(&link, &connection);
            drop(connection);
            push_link(&mut effects.links, &link);
        }
        if has_begun {
            // After channels that had nothing to do were closed: those are opened anew.
            for link in self.all_links() {
                if link.is_ready() && self.open(&link, slot) {
                    push_link(&mut effects.links, &link);
                }
            }
        }
        effects.timeout = replicator.poll_timeout();
        *slot.status.lock() = Status {
            peers: routes
                .iter()
                .filter_map(|(peer, (link, _))| Some((link.id, replicator.peer_status(*peer)?)))
                .collect(),
            remote_length: replicator.remote_length().0,
            verification_failures: replicator.verification_failures(),
        };
        effects
    }

    /// Put what the replicator has to say on the channels, which stay corked.
    fn deliver(
        &self,
        slot: &Arc<Slot>,
        replicator: &mut Replicator,
        routes: &mut BTreeMap<PeerId, (Arc<Link>, ChannelId)>,
    ) -> Vec<Arc<Link>> {
        let mut corked: BTreeMap<LinkId, Arc<Link>> = BTreeMap::new();
        while let Some(output) = replicator.poll_output() {
            let peer = match &output {
                Output::Send(peer, _) | Output::Close(peer) | Output::Destroy(peer, _) => *peer,
            };
            let Some((link, channel)) = routes.get(&peer).cloned() else { continue };
            let mut connection = link.connection.lock();
            corked.entry(link.id).or_insert_with(|| {
                connection.cork();
                link.clone()
            });
            match output {
                Output::Send(_, message) => connection.send(channel, &message),
                Output::Close(_) => {
                    connection.close(channel);
                    routes.remove(&peer);
                    if link.routes.lock().remove(&channel).is_some() {
                        slot.channels.fetch_sub(1, Ordering::AcqRel);
                    }
                }
                Output::Destroy(_, fault) => {
                    routes.remove(&peer);
                    link.fail(fault);
                }
            }
        }
        corked.into_values().collect()
    }
}

/// So many bytes of a connection wait in inboxes no longer.
fn taken(link: &Arc<Link>, cost: usize, effects: &mut Effects) {
    let before = link.waiting.fetch_sub(cost, Ordering::AcqRel);
    if before > INBOX_HIGH && before - cost <= INBOX_HIGH {
        push_link(&mut effects.links, link);
    }
}

/// Who asks and does not read the answers is not kept.
fn check_output(link: &Arc<Link>, connection: &Connection) {
    let pending = connection.pending_bytes();
    let is_proven = || link.routes.lock().values().any(|route| route.peer.is_some());
    if pending > OUTPUT_MAX || pending > OUTPUT_UNPROVEN_MAX && !is_proven() {
        link.fail(Fault::DoesNotRead);
    }
}

/// Open a channel for a core on a connection. Whether there was none.
fn open(link: &Arc<Link>, connection: &mut Connection, slot: &Arc<Slot>) -> bool {
    if link.is_gone.load(Ordering::Acquire) {
        return false;
    }
    let Some(channel) = connection.open(slot.core.key()) else { return false };
    slot.channels.fetch_add(1, Ordering::AcqRel);
    link.routes.lock().insert(channel, Route { slot: slot.clone(), peer: None });
    true
}

fn push_slot(slots: &mut Vec<Arc<Slot>>, slot: &Arc<Slot>) {
    if !slots.iter().any(|other| Arc::ptr_eq(other, slot)) {
        slots.push(slot.clone());
    }
}

fn push_link(links: &mut Vec<Arc<Link>>, link: &Arc<Link>) {
    if !links.iter().any(|other| Arc::ptr_eq(other, link)) {
        links.push(link.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PROTOCOL;
    use crate::protocol::capability::Handshake;
    use crate::protocol::messages::Sync;
    use crate::protomux::{Limits, Mux};
    use crate::secret_stream::SecretStream;
    use pgbee_engine::corestore::Options;
    use pgbee_engine::storage::memory::Memory;

    /// A node, and a stranger that is connected to it and says what it likes.
    struct Meeting {
        node: Node,
        link: Arc<Link>,
        stream: SecretStream,
        mux: Mux,
        effects: Effects,
    }

    impl Meeting {
        fn new() -> Meeting {
            let store = Store::open(Arc::new(Memory::new()), Options { primary_key: Some([1; 32]) }).unwrap();
            let node = Node::new(store, Identity::from_seed([2; 32]));
            let link = node.connect(Role::Responder, Randomness::new([3; 56]));
            let identity = Identity::from_seed([4; 32]);
            let mut stream = SecretStream::new(Role::Initiator, &identity, Randomness::new([5; 56]));
            let mut effects = Effects::default();
            while !stream.is_open() || !link.is_ready() {
                node.handle_bytes(&link, &stream.take_output(1 << 20), &mut effects).unwrap();
                stream.handle_bytes(&node.take_output(&link, 1 << 20, &mut effects)).unwrap();
            }
            Meeting { node, link, stream, mux: Mux::new(Limits::default()), effects }
        }

        /// What the stranger has to say reaches the node, which answers nothing that is read.
        fn say(&mut self) {
            while let Some(frame) = self.mux.poll_frame() {
                self.stream.send(&frame).unwrap();
            }
            let bytes = self.stream.take_output(usize::MAX);
            self.node.handle_bytes(&self.link, &bytes, &mut self.effects).unwrap();
        }
    }

    #[test]
    fn a_frame_of_a_million_messages_is_taken_in_piece_by_piece() {
        let mut meeting = Meeting::new();
        let core = meeting.node.store().get_by_name("log").unwrap();
        let hash = *meeting.stream.handshake_hash().unwrap();
        let handshake = Handshake::new(core.key(), true, &hash);
        let channel = meeting.mux.open(PROTOCOL, &[], &core.discovery_key().0, handshake.encode()).unwrap();
        meeting.say();
        let asked = meeting.effects.asked.pop().unwrap();
        let slot = meeting.node.answer(&meeting.link, asked).run.pop().unwrap();
        meeting.node.run(&slot, Now::ZERO);
        assert_eq!(slot.channels.load(Ordering::Acquire), 1);

        let cancel = Message::Cancel { request: 7 };
        meeting.mux.cork();
        (0..1_000_000).for_each(|_| meeting.mux.send(channel, cancel.kind(), &cancel.encode()).unwrap());
        meeting.mux.uncork();
        meeting.say();
        let (mut most, mut runs) = (0, 0);
        loop {
            assert!(meeting.link.waiting.load(Ordering::Acquire) <= INBOX_HIGH + 2048 * MESSAGE_COST);
            most = most.max(slot.inbox.lock().len());
            if !meeting.link.is_backed_up() {
                break;
            }
            runs += 1;
            assert!(runs < 10_000, "it ends");
            if meeting.link.can_go_on() {
                meeting.node.handle_bytes(&meeting.link, &[], &mut meeting.effects).unwrap();
            } else {
                assert!(!meeting.node.run(&slot, Now::ZERO).links.is_empty(), "its task is told to go on");
            }
        }
        assert!(most < 100_000 && runs > 10, "{most} at a time, {runs} times");
        assert_eq!(meeting.link.fault(), None);
    }

    #[test]
    fn a_core_that_is_followed_again_has_its_channels_again() {
        let mut meeting = Meeting::new();
        let core = meeting.node.store().get_by_name("log").unwrap();
        let hash = *meeting.stream.handshake_hash().unwrap();
        let handshake = Handshake::new(core.key(), true, &hash);
        let channel = meeting.mux.open(PROTOCOL, &[], &core.discovery_key().0, handshake.encode()).unwrap();
        let sync = Message::Sync(Sync { uploading: true, ..Sync::default() });
        let slot = meeting.node.follow(&core).run.pop().unwrap();
        meeting.node.run(&slot, Now::ZERO);
        meeting.say();
        meeting.mux.send(channel, sync.kind(), &sync.encode()).unwrap();
        meeting.say();
        meeting.node.run(&slot, Now::ZERO);
        assert_eq!(slot.status().peers.len(), 1);
        // The remote has nothing to do, so that is the end of the channel. By the time it is, the core is followed again.
        meeting.node.unfollow(core.key());
        meeting.node.follow(&core);
        meeting.node.run(&slot, Now::ZERO);
        assert_eq!((slot.status().peers.len(), slot.channels.load(Ordering::Acquire)), (0, 1), "another is opened");
        assert!(!meeting.node.release(&slot) && meeting.node.unfollow(core.key()).run.len() == 1);
    }

    #[test]
    fn who_asks_and_does_not_read_is_not_kept() {
        let mut meeting = Meeting::new();
        {
            // Most of what it may leave unread, so that it takes no minute to send the rest.
            let mut connection = meeting.link.connection.lock();
            let channel = connection.open(CoreKey([9; 32])).unwrap();
            let payload = Bytes::from(vec![0; OUTPUT_UNPROVEN_MAX - (1 << 19)]);
            connection.send(channel, &Message::Extension { name: String::new(), payload });
        }
        for round in 0..200 {
            for number in 0..100u8 {
                // Of a protocol that nobody knows; what was rejected before may be opened again.
                meeting.stream.send(&[0, 1, 1 + number, 1, b'x', 0]).unwrap();
            }
            meeting.say();
            if let Some(fault) = meeting.link.fault() {
                assert_eq!(fault, Fault::DoesNotRead);
                return;
            }
            assert!(meeting.link.connection.lock().pending_bytes() <= OUTPUT_UNPROVEN_MAX, "round {round}");
        }
        panic!("what it does not read is kept for it");
    }
}
