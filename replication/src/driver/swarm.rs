//! Peers that are found: a core followed or announced is a topic of a swarm, and who the swarm connects us to is served as anybody else.
//!
//! ```text
//! follow, unfollow, announce --> Purpose of a topic --> Finder::join, Finder::leave
//!                                                       Finder --Found--> Inner::serve_found --> the tasks of a connection
//!
//! followed    looked up: who announces it is connected to
//! announced   others find us by it; and looked up, too, for who cannot be reached by others may reach them
//! ```
//!
//! A [`Finder`] is a swarm as a [`Network`] needs it, whatever it is made of: the endpoint over UDP, or a test's.
//!
//! What must stay true: nobody is told of a core that is neither followed nor announced, and none of one that is only followed is told that we have it; a topic
//! is joined and left in the order in which its purpose changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::pin::Pin;
use std::sync::Arc;

use pgbee_engine::{CoreKey, DiscoveryKey};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Inner, Network, randomness};
use crate::secret_stream::Role;
use crate::secret_stream::handshake::Session;

/// What the views call the transport of who the swarm connects us to.
const OVER_SWARM: &str = "udx";

/// What a core is in a swarm for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purpose {
    /// We want what others have of it.
    pub is_followed: bool,
    /// Others may know that we have it.
    pub is_announced: bool,
}

impl Purpose {
    /// Whether we look for others.
    pub fn is_client(self) -> bool {
        self.is_followed || self.is_announced
    }
    /// Whether others find us.
    pub fn is_server(self) -> bool {
        self.is_announced
    }
}

/// A swarm, as a network needs it. No method waits for a peer.
pub trait Finder: Send + Sync {
    /// From now on a topic is looked up, and announced or not. It may be joined already, in another way.
    fn join(&self, topic: DiscoveryKey, purpose: Purpose);
    /// It is not looked up any more, and what was announced is taken back.
    fn leave(&self, topic: DiscoveryKey);
    /// What is to be shown of it.
    fn info(&self) -> SwarmInfo;
    /// What is to be shown of one topic; None for one that is not joined.
    fn topic(&self, topic: DiscoveryKey) -> Option<TopicInfo> {
        self.info().topics.into_iter().find(|info| info.topic == topic)
    }
    /// Tells nodes and peers that we go, and ends.
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Our place in a swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwarmInfo {
    /// Who we are to peers.
    pub public_key: [u8; 32],
    /// The address that is bound.
    pub address: SocketAddrV4,
    /// The address others see, if it is the same for all.
    pub public_address: Option<SocketAddrV4>,
    /// What is between us and others: "unknown", "open", "consistent" or "random".
    pub nat: &'static str,
    /// Whether others keep us among their nodes.
    pub is_persistent: bool,
    /// Nodes of the DHT that we know.
    pub nodes: usize,
    /// Peers that we are connected to.
    pub connections: usize,
    /// Of those, through a relay.
    pub relayed: usize,
    /// Times a hole was to be punched.
    pub punches_tried: u64,
    /// Times that worked.
    pub punches_won: u64,
    /// What a person may want to know, the latest last.
    pub notes: Vec<String>,
    /// What peers are looked for by.
    pub topics: Vec<TopicInfo>,
}

/// One topic of a swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// The topic.
    pub topic: DiscoveryKey,
    /// Others find us by it.
    pub is_announced: bool,
    /// We look for others by it.
    pub is_looked_up: bool,
    /// It was looked up to the end at least once.
    pub was_looked_up: bool,
    /// Nodes answered the last time.
    pub was_answered: bool,
    /// Peers known to announce it.
    pub peers: usize,
    /// Those of them we are connected to.
    pub connections: usize,
    /// Those of them that are being connected to, or wait for their turn.
    pub connecting: usize,
    /// Why the last one that was not reached was not.
    pub last_failure: Option<String>,
}

impl TopicInfo {
    /// Whether it is too early to say that there is nobody.
    pub fn is_searching(&self) -> bool {
        self.is_looked_up && !self.was_looked_up || self.connecting > 0
    }

    /// How the search goes, in a sentence.
    pub fn sentence(&self, nodes: usize) -> String {
        if self.peers == 0 && self.connections > 0 {
            let who = if self.connections == 1 {
                "1 peer has".to_owned()
            } else {
                format!("{} peers have", self.connections)
            };
            return format!("{who} found us and nobody else announces it.");
        }
        if self.peers == 0 {
            let nobody = if self.is_announced { "Nobody else" } else { "Nobody" };
            let is_silent = nodes == 0 || self.was_looked_up && !self.was_answered;
            return match (is_silent, self.was_looked_up) {
                (true, _) => "No node of the swarm answers.".to_owned(),
                (_, false) => format!("Peers are being looked for; we know {} of the swarm.", counted(nodes, "node")),
                (_, true) => {
                    format!("{nobody} announces it in this swarm, of which we know {}.", counted(nodes, "node"))
                }
            };
        }
        let announced = if self.peers == 1 { "1 peer is".to_owned() } else { format!("{} peers are", self.peers) };
        let announced = format!("{announced} announced");
        match (self.connections, self.connecting, &self.last_failure) {
            (connected @ 1.., ..) => format!("{announced}, {connected} connected."),
            (0, connecting @ 1.., _) => format!("{announced}, {connecting} being connected to."),
            (0, 0, Some(why)) => format!("{announced}, and none was reached: {why}."),
            (0, 0, None) => format!("{announced}, and none is connected."),
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A connection that a swarm made.
pub(super) struct Found<S> {
    /// Its bytes.
    pub stream: S,
    /// Its handshake.
    pub session: Session,
    /// Whether we began it.
    pub role: Role,
    /// Where the peer is.
    pub address: String,
}

/// Topics and the swarm they are joined in.
#[derive(Default)]
pub(super) struct Topics {
    pub finder: Option<Arc<dyn Finder>>,
    purposes: BTreeMap<DiscoveryKey, Purpose>,
}

impl Network {
    /// Look for peers of what is followed, and announce what is announced, in this swarm from now on; also of what was before.
    pub fn set_finder(&self, finder: Arc<dyn Finder>) {
        let mut topics = self.inner.swarm.lock();
        for (topic, purpose) in &topics.purposes {
            finder.join(*topic, *purpose);
        }
        topics.finder = Some(finder);
    }

    /// Whether the swarm is told that we have a core. It is not until this says so, followed or not.
    pub fn announce(&self, key: CoreKey, on: bool) {
        self.inner.change_topic(key.discovery_key(), |purpose| purpose.is_announced = on);
    }

    /// Our place in the swarm; None without one.
    pub fn swarm(&self) -> Option<SwarmInfo> {
        let mut info = self.inner.finder()?.info();
        // Who found us says only on the connection what for.
        let mut exchanged: BTreeMap<DiscoveryKey, BTreeSet<[u8; 32]>> = BTreeMap::new();
        for peer in self.peers().into_iter().filter(|peer| peer.transport == OVER_SWARM) {
            exchanged.entry(peer.core.discovery_key()).or_default().insert(peer.peer_key);
        }
        for topic in &mut info.topics {
            topic.connections = topic.connections.max(exchanged.get(&topic.topic).map_or(0, BTreeSet::len));
        }
        Some(info)
    }

    /// How the search for a core's peers goes, in a sentence for people; None without a swarm.
    pub fn search(&self, key: CoreKey) -> Option<String> {
        let info = self.swarm()?;
        let discovery = key.discovery_key();
        let topic = info.topics.iter().find(|topic| topic.topic == discovery)?;
        Some(topic.sentence(info.nodes))
    }
}

impl Inner {
    /// Serve a connection that the swarm made, until it ends.
    pub(super) fn serve_found<S>(self: &Arc<Self>, found: Found<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let inner = self.clone();
        self.spawn(async move {
            let Some(header) = randomness() else { return };
            let link = inner.node.connect_established(found.role, &found.session, header);
            let (address, peer) = (found.address.clone(), link.remote_public_key());
            inner.serve_link(found.stream, link, found.address, OVER_SWARM, None).await;
            if let Some(peer) = peer.filter(|_| !inner.is_closing()) {
                tracing::info!("peer {} at {address} is gone", CoreKey(peer).to_z32());
            }
        });
    }

    fn finder(&self) -> Option<Arc<dyn Finder>> {
        self.swarm.lock().finder.clone()
    }

    pub(super) fn is_searching(&self, topic: DiscoveryKey) -> bool {
        self.finder().and_then(|finder| finder.topic(topic)).is_some_and(|info| info.is_searching())
    }

    pub(super) fn change_topic(&self, topic: DiscoveryKey, change: impl FnOnce(&mut Purpose)) {
        let mut topics = self.swarm.lock();
        let before = topics.purposes.get(&topic).copied().unwrap_or_default();
        let mut purpose = before;
        change(&mut purpose);
        if purpose == before {
            return;
        }
        let is_over = purpose == Purpose::default();
        if is_over {
            topics.purposes.remove(&topic);
        } else {
            topics.purposes.insert(topic, purpose);
        }
        // Under the lock, so that the order is kept; it waits for nobody.
        if let Some(finder) = &topics.finder {
            if is_over {
                finder.leave(topic);
            } else {
                finder.join(topic, purpose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use parking_lot::Mutex;
    use pgbee_engine::BlockIndex;
    use pgbee_engine::corestore::{Options, Store};
    use pgbee_engine::hypercore::BlockSource;
    use pgbee_engine::storage::Durability;
    use pgbee_engine::storage::memory::Memory;

    use crate::driver::NetworkOptions;
    use crate::secret_stream::Identity;
    use crate::secret_stream::handshake::{Handshake, Pattern};

    /// A swarm that only writes down what it is asked.
    #[derive(Default)]
    struct Noted(Mutex<Vec<String>>, Mutex<Vec<TopicInfo>>);

    impl Finder for Noted {
        fn join(&self, topic: DiscoveryKey, purpose: Purpose) {
            let role = match (purpose.is_client(), purpose.is_server()) {
                (true, true) => "both",
                (true, false) => "client",
                _ => "nothing",
            };
            self.0.lock().push(format!("join {} {role}", topic.0[0]));
        }
        fn leave(&self, topic: DiscoveryKey) {
            self.0.lock().push(format!("leave {}", topic.0[0]));
        }
        fn info(&self) -> SwarmInfo {
            SwarmInfo {
                public_key: [1; 32],
                address: SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1),
                public_address: None,
                nat: "unknown",
                is_persistent: false,
                nodes: 3,
                connections: 0,
                relayed: 0,
                punches_tried: 0,
                punches_won: 0,
                notes: Vec::new(),
                topics: self.1.lock().clone(),
            }
        }
        fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            Box::pin(async { self.0.lock().push("stop".into()) })
        }
    }

    fn store(byte: u8) -> Arc<Store> {
        Store::open(Arc::new(Memory::new()), Options { primary_key: Some([byte; 32]) }).unwrap()
    }

    fn network(store: &Arc<Store>) -> Arc<Network> {
        Network::start(store.clone(), NetworkOptions::default())
    }

    /// Both sides of a handshake that a DHT made.
    fn sessions() -> (Session, Session) {
        let (one, other) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let key = Some(other.public_key());
        let mut initiator = Handshake::new(Pattern::Ik, Role::Initiator, &one, [3; 32], &[], key).unwrap();
        let mut responder = Handshake::new(Pattern::Ik, Role::Responder, &other, [4; 32], &[], None).unwrap();
        responder.receive(&initiator.send(&[]).unwrap()).unwrap();
        initiator.receive(&responder.send(&[]).unwrap()).unwrap();
        (initiator.finish().unwrap(), responder.finish().unwrap())
    }

    #[tokio::test]
    async fn a_swarm_hears_of_what_is_followed_and_announced_and_of_nothing_else() {
        let store = store(1);
        let network = network(&store);
        let (mine, theirs) = (store.get_by_name("mine").unwrap(), store.get_by_key(CoreKey([9; 32])).unwrap());
        let (own, other) = (mine.discovery_key().0[0], theirs.discovery_key().0[0]);
        network.follow(&theirs, &[]).unwrap();
        let noted = Arc::new(Noted::default());
        network.set_finder(noted.clone());
        let heard = || std::mem::take(&mut *noted.0.lock());
        assert_eq!(
            heard(),
            [format!("join {other} client")],
            "what was followed before, and nothing of the other core"
        );
        network.announce(mine.key(), true);
        network.announce(mine.key(), true);
        network.announce(theirs.key(), true);
        assert_eq!(heard(), [format!("join {own} both"), format!("join {other} both")]);
        network.unfollow(theirs.key());
        assert_eq!(heard(), [format!("join {other} both")]);
        network.announce(theirs.key(), false);
        network.announce(mine.key(), false);
        network.unfollow(mine.key());
        assert_eq!(heard(), [format!("leave {other}"), format!("leave {own}")]);
        network.shutdown().await;
        assert_eq!(heard(), ["stop"]);
    }

    #[tokio::test]
    async fn without_a_swarm_there_is_nothing_to_tell() {
        let store = store(1);
        let network = network(&store);
        let core = store.get_by_name("mine").unwrap();
        network.announce(core.key(), true);
        assert_eq!((network.swarm(), network.search(core.key())), (None, None));
        network.shutdown().await;
    }

    #[tokio::test]
    async fn a_search_is_told_in_words() {
        let store = store(1);
        let (network, noted) = (network(&store), Arc::new(Noted::default()));
        let core = store.get_by_key(CoreKey([9; 32])).unwrap();
        network.set_finder(noted.clone());
        network.follow(&core, &[]).unwrap();
        let info = TopicInfo {
            topic: core.discovery_key(),
            is_announced: false,
            is_looked_up: true,
            was_looked_up: false,
            was_answered: true,
            peers: 0,
            connections: 0,
            connecting: 0,
            last_failure: None,
        };
        for (info, is_searching, words) in [
            (info.clone(), true, "Peers are being looked for; we know 3 nodes of the swarm."),
            (
                TopicInfo { was_looked_up: true, ..info.clone() },
                false,
                "Nobody announces it in this swarm, of which we know 3 nodes.",
            ),
            (
                TopicInfo { was_looked_up: true, was_answered: false, ..info.clone() },
                false,
                "No node of the swarm answers.",
            ),
            (
                TopicInfo { was_looked_up: true, is_announced: true, ..info.clone() },
                false,
                "Nobody else announces it in this swarm, of which we know 3 nodes.",
            ),
            (
                TopicInfo { was_looked_up: true, is_announced: true, connections: 2, ..info.clone() },
                false,
                "2 peers have found us and nobody else announces it.",
            ),
            (
                TopicInfo { was_looked_up: true, peers: 1, connecting: 1, ..info.clone() },
                true,
                "1 peer is announced, 1 being connected to.",
            ),
            (
                TopicInfo { was_looked_up: true, peers: 2, last_failure: Some("no answer".into()), ..info.clone() },
                false,
                "2 peers are announced, and none was reached: no answer.",
            ),
            (
                TopicInfo { was_looked_up: true, peers: 2, connections: 1, ..info },
                false,
                "2 peers are announced, 1 connected.",
            ),
        ] {
            *noted.1.lock() = vec![info];
            assert_eq!(network.search(core.key()).as_deref(), Some(words));
            assert_eq!(network.remote(core.key()).map(|remote| remote.is_searching), Some(is_searching), "{words}");
        }
        network.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_was_found_is_served_as_anybody_else() {
        let (here, there) = (store(1), store(2));
        let written = here.get_by_name("log").unwrap();
        written.append(&[b"one".as_slice(), b"two"].map(bytes::Bytes::from_static), Durability::Sync).unwrap();
        let (writer, follower) = (network(&here), network(&there));
        let copy = there.get_by_key(written.key()).unwrap();
        follower.follow(&copy, &[]).unwrap();
        let _all = copy.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX));
        let ((mine, theirs), (one, other)) = (sessions(), tokio::io::duplex(4096));
        let address = || "127.0.0.1:9".to_owned();
        follower.inner.serve_found(Found { stream: one, session: mine, role: Role::Initiator, address: address() });
        writer.inner.serve_found(Found { stream: other, session: theirs, role: Role::Responder, address: address() });
        for _ in 0..1000 {
            if copy.held_blocks() == 2 && !follower.peers().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(copy.block(BlockIndex(1)).unwrap().as_ref(), b"two");
        let peers = follower.peers();
        assert_eq!(peers.len(), 1);
        let told = (peers[0].transport, peers[0].address.as_str(), peers[0].peer_key);
        assert_eq!(told, (OVER_SWARM, "127.0.0.1:9", Identity::from_seed([2; 32]).public_key()));
        follower.shutdown().await;
        writer.shutdown().await;
        assert!(follower.peers().is_empty());
    }
}
