//! What SQL needs of peers, without knowing any: [`Network`], which the program implements and gives to an [`Instance`](crate::session::Instance).
//!
//! ```text
//! sql            which cores are followed, what their peers are doing (bee_peers, bee_cores)
//! engine         wants of a core: which blocks someone waits for; the replicator takes them from there
//! the program    addresses, sockets, the replicator
//! ```
//!
//! What must stay true: no method waits for a peer; blocks themselves come by way of the core's wants, never through here.

use std::sync::Arc;
use std::time::SystemTime;

use pgbee_engine::txn::Database;
use pgbee_engine::{DiscoveryKey, Version};

use crate::error::{Result, SqlError, state};
pub use pgbee_engine::CoreKey;
pub use pgbee_engine::corestore::Store;
pub use pgbee_engine::hypercore::Core;
pub use pgbee_engine::hypercore::encryption::EncryptionKey as ReadKey;

/// Peers, as SQL sees them.
pub trait Network: Send + Sync {
    /// Begins to follow a core, or goes on: keeps it up to date with every peer that has it, fetches what is wanted of it, and keeps connections to these `host:port` addresses,
    /// besides those it already keeps. Returns at once.
    ///
    /// # Errors
    /// 22023 for an address that cannot be one.
    fn follow(&self, core: &Arc<Core>, addresses: &[String]) -> Result<()>;
    /// Ends following a core; connections kept only for it are closed.
    fn unfollow(&self, key: CoreKey);
    /// Whether the swarm is told that we have a core. It is not until this says so, followed or not. Returns at once.
    fn announce(&self, key: CoreKey, on: bool);
    /// All connections, once for each core they carry.
    fn peers(&self) -> Vec<Peer>;
    /// What is known of a core beyond what is stored; None for one that is not replicated.
    fn remote(&self, key: CoreKey) -> Option<Remote>;
    /// The swarm that peers are found in; None without one.
    fn swarm(&self) -> Option<Swarm>;
    /// How the search for peers of a core goes, in a sentence for people; None without a swarm.
    fn search(&self, key: CoreKey) -> Option<String>;
}

/// Our place in a swarm: the row of bee_swarm, with those of bee_swarm_topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swarm {
    /// Who we are to peers.
    pub public_key: [u8; 32],
    /// Whom we asked first: `public`, or the nodes of a private network.
    pub bootstrap: String,
    /// The address that is bound.
    pub address: String,
    /// The address others see; None while that is not known, or not the same for all.
    pub public_address: Option<String>,
    /// What is between us and others: unknown, open, consistent, random.
    pub nat: &'static str,
    /// Whether others keep us among their nodes.
    pub is_persistent: bool,
    /// Nodes of the DHT we know.
    pub nodes: u64,
    /// Peers we are connected to.
    pub connections: u64,
    /// Of those, through a relay.
    pub relayed: u64,
    /// Times a hole was to be punched.
    pub punches_tried: u64,
    /// Times that worked.
    pub punches_won: u64,
    /// What happened last that a person may want to know.
    pub last_note: Option<String>,
    /// What peers are looked for by.
    pub topics: Vec<SwarmTopic>,
}

/// One topic of the swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwarmTopic {
    /// A core's.
    pub discovery_key: [u8; 32],
    /// Others find us by it.
    pub is_announced: bool,
    /// We look for others by it.
    pub is_looked_up: bool,
    /// Peers known to announce it.
    pub peers: u64,
    /// Those of them we are connected to.
    pub connections: u64,
    /// How the search goes.
    pub state: String,
}

/// One peer of one core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The core.
    pub core: CoreKey,
    /// The peer's own public key: who it is on this connection.
    pub peer_key: [u8; 32],
    /// Its address.
    pub address: String,
    /// How it is reached: "tcp", or "udx" for one that the swarm found.
    pub transport: &'static str,
    /// The length it says the core has.
    pub remote_length: u64,
    /// Blocks received of this core.
    pub blocks_in: u64,
    /// Blocks sent of this core.
    pub blocks_out: u64,
    /// Bytes received on the connection.
    pub bytes_in: u64,
    /// Bytes sent on the connection.
    pub bytes_out: u64,
    /// Smoothed time from request to answer, in microseconds; None before the first answer.
    pub round_trip_micros: Option<u64>,
    /// When it connected.
    pub connected_at: SystemTime,
}

/// What peers say about a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// The longest length a connected peer claims. Claims are not proofs.
    pub length: u64,
    /// Connected peers.
    pub peers: usize,
    /// Messages of peers that failed verification since the start.
    pub verification_failures: u64,
    /// The swarm has not yet been asked for all it knows of peers, or some of those it named are about to be reached.
    pub is_searching: bool,
}

/// A peer and the database it is a peer of, if that is one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Name of the database.
    pub database: Option<String>,
    /// We follow it; otherwise the peer may be following us.
    pub is_followed: bool,
    /// The peer.
    pub peer: Peer,
}

/// A topic of the swarm and the database it is of, if that is one of ours: a row of bee_swarm_topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicStatus {
    /// Name of the database.
    pub database: Option<String>,
    /// The topic.
    pub topic: SwarmTopic,
}

/// What is known of a database's core: a row of bee_cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreStatus {
    /// Name of the database.
    pub database: String,
    /// It is written elsewhere.
    pub is_followed: bool,
    /// The core's key.
    pub key: CoreKey,
    /// What peers find it by.
    pub discovery_key: DiscoveryKey,
    /// Its verified length.
    pub length: u64,
    /// The newest version; None before the first commit.
    pub version: Option<u64>,
    /// Blocks that are here.
    pub held_blocks: u64,
    /// Bytes in them, as they are stored; None where the store could not be read.
    pub held_bytes: Option<u64>,
    /// What peers say; None while none is connected.
    pub remote: Option<Remote>,
    /// Time of the newest commit in microseconds since 1970, if it is here.
    pub last_append_at: Option<i64>,
    /// Two histories were signed: from which length on they differ.
    pub conflict: Option<String>,
}

impl CoreStatus {
    /// Of an open database; reads what is here only.
    pub(crate) fn of(name: &str, database: &Database, is_followed: bool, remote: Option<Remote>) -> CoreStatus {
        let core = database.core();
        let (head, held_blocks) = (core.head(), core.held_blocks());
        let length = head.length.0;
        let conflict = core.conflict().map(|c| format!("two signatures for length {} of fork {}", c.length, c.fork));
        CoreStatus {
            database: name.to_owned(),
            is_followed,
            key: core.key(),
            discovery_key: core.discovery_key(),
            length,
            version: (length > 1).then_some(length),
            held_blocks,
            held_bytes: core.held_bytes().ok(),
            remote: remote.filter(|r| r.peers > 0 || r.verification_failures > 0),
            last_append_at: database.commit_record(Version(length)).ok().map(|r| r.time_micros),
            conflict,
        }
    }
}

/// Something that fetches much: a row of bee_progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressStatus {
    /// Process id of the session that does it.
    pub pid: i32,
    /// Its database.
    pub database: String,
    /// What is fetched.
    pub what: String,
    /// Blocks fetched so far.
    pub blocks_done: u64,
    /// How many there are to fetch, if that is known.
    pub blocks_total: Option<u64>,
    /// Bytes in what was fetched.
    pub bytes: u64,
    /// When it began, in microseconds since 1970.
    pub started_at: i64,
}

/// Reads a key as people write it: z-base-32, hex, or a pear:// link.
///
/// # Errors
/// 22023.
pub fn parse_key(text: &str) -> Result<CoreKey> {
    text.parse().map_err(|_| {
        SqlError::new(state::INVALID_PARAMETER_VALUE, format!("invalid key: \"{text}\""))
            .hint("A key has 52 characters of z-base-32 or 64 hexadecimal digits, with or without pear:// in front.")
    })
}

/// Reads a read key as `bee_read_key()` and `pgbee key` show it.
///
/// # Errors
/// 22023.
pub fn parse_read_key(text: &str) -> Result<ReadKey> {
    // The text is a secret: it is not repeated.
    ReadKey::parse(text).map_err(|_| {
        SqlError::new(state::INVALID_PARAMETER_VALUE, "invalid read key")
            .hint("A read key has 64 hexadecimal digits, as bee_read_key() shows it.")
    })
}
