//! What HyperDHT nodes say to each other inside of dht-rpc's requests and replies, byte for byte; and what is signed.
//!
//! ```text
//! nr command         target            value                              token  reply's value
//!  0 PEER_HANDSHAKE  hash(server key)  handshake                            -    handshake
//!  1 PEER_HOLEPUNCH  hash(server key)  hole punch                           -    hole punch
//!  2 FIND_PEER       hash(key)         -                                    -    peer record
//!  3 LOOKUP          topic             -                                    -    uint count, peer records, uint bump (may be missing)
//!  4 ANNOUNCE        topic, hash(key)  announcement                        yes   -
//!  5 UNANNOUNCE      same              announcement without relays         yes   -
//!  6 MUTABLE_PUT     hash(key)         key[32], uint seq, buffer, sig[64]  yes   -
//!  7 MUTABLE_GET     hash(key)         uint lowest seq wanted               -    uint seq, buffer value, signature[64]
//!  8 IMMUTABLE_PUT   hash(value)       the value                           yes   -
//!  9 IMMUTABLE_GET   hash(value)       -                                    -    the value
//! 10 PLUGIN          any               plugin request                       ?    the plugin's
//!
//! addr4           four bytes, port u16le
//! peer record     key[32], uint count, addr4 of each relay
//! announcement    uint flags, then by flag  1 peer record  2 refresh[32]  4 signature[64]  8 uint bump
//! handshake       uint flags, uint mode, buffer noise, then by flag  1 peer address  2 relay address
//! hole punch      uint flags, uint mode, uint id, buffer payload, then by flag  1 peer address
//! plugin request  string plugin, uint version, uint command, uint flags (1 value), then buffer value
//! address         key[32], uint flags (1), uint count, addr4 of nodes that may know the way
//!
//! signed: namespace[32] || H( target || storing node's id || token || peer record || refresh, if any )       announcements
//!         MUTABLE_PUT[32] || H( uint seq || buffer value )                                                   mutable values
//! ```
//!
//! What must stay true: bytes of strangers are held against limits before anything is allocated for them; what lies behind a message is ignored, for a newer
//! version may have put it there; a signature is over the bytes that we would write, not over those that came, so there is one way to say a thing.
//!
//! Sources: hyperdht `lib/messages.js`, `lib/constants.js`, `lib/persistent.js`. Vectors: `tests/vectors/swarm/{announce,mutable,immutable,hyperdht-messages,
//! addresses,namespaces,targets}.json`.

use std::net::SocketAddrV4;
use std::sync::LazyLock;

use pgbee_engine::crypto::hash;
use pgbee_engine::crypto::key::PublicKey;
use pgbee_engine::encoding::compact::{self, DecodeError, Decoder};

use crate::secret_stream::handshake::Identity;

pub use super::rpc::message::{put_address, put_addresses, read_address as take_address};

/// The numbers of the commands.
pub mod command {
    /// A Noise handshake on its way to a server, or back.
    pub const PEER_HANDSHAKE: u64 = 0;
    /// A round of hole punching on its way to a server, or back.
    pub const PEER_HOLEPUNCH: u64 = 1;
    /// Who has this key?
    pub const FIND_PEER: u64 = 2;
    /// Who announced this topic?
    pub const LOOKUP: u64 = 3;
    /// I am to be found under this topic, or I am this key's owner.
    pub const ANNOUNCE: u64 = 4;
    /// I am not, any longer.
    pub const UNANNOUNCE: u64 = 5;
    /// Keep this signed value, which may be replaced.
    pub const MUTABLE_PUT: u64 = 6;
    /// Which value did this key's owner sign last?
    pub const MUTABLE_GET: u64 = 7;
    /// Keep this value under its hash.
    pub const IMMUTABLE_PUT: u64 = 8;
    /// Which value has this hash?
    pub const IMMUTABLE_GET: u64 = 9;
    /// Something that only some nodes understand.
    pub const PLUGIN: u64 = 10;
}

/// Errors in replies, beside those of dht-rpc.
pub mod error {
    /// Another value has this sequence number already.
    pub const SEQ_REUSED: u64 = 16;
    /// A later value is known.
    pub const SEQ_TOO_LOW: u64 = 17;
}

/// How many relays a record may name and be kept with.
pub const RELAYS_MAX: usize = 3;
/// How many relays of a record we read; an honest one has at most three.
const RELAYS_READ_MAX: usize = 16;
/// How many records a lookup's reply has at most.
pub const RECORDS_MAX: usize = 20;
/// How many nodes an address may name.
pub const ADDRESS_NODES_MAX: usize = 16;
/// How long a value put on the DHT may be: with everything around it, one datagram.
pub const VALUE_BYTES_MAX: usize = 1000;

/// The prefixes of what is signed and keyed, one a purpose.
pub mod namespace {
    use super::{LazyLock, command, hash};

    fn of(command: u64) -> hash::Hash {
        hash::namespace("hyperswarm/dht", command as u8)
    }
    /// Of announcements.
    pub static ANNOUNCE: LazyLock<hash::Hash> = LazyLock::new(|| of(command::ANNOUNCE));
    /// Of unannouncements.
    pub static UNANNOUNCE: LazyLock<hash::Hash> = LazyLock::new(|| of(command::UNANNOUNCE));
    /// Of mutable values.
    pub static MUTABLE_PUT: LazyLock<hash::Hash> = LazyLock::new(|| of(command::MUTABLE_PUT));
    /// Of Noise handshakes that go through the DHT: their prologue.
    pub static PEER_HANDSHAKE: LazyLock<hash::Hash> = LazyLock::new(|| of(command::PEER_HANDSHAKE));
    /// Of the secret that rounds of hole punching are sealed with.
    pub static PEER_HOLEPUNCH: LazyLock<hash::Hash> = LazyLock::new(|| of(command::PEER_HOLEPUNCH));
    /// Of plugins.
    pub static PLUGIN: LazyLock<hash::Hash> = LazyLock::new(|| of(command::PLUGIN));
}

type Decoded<T> = Result<T, DecodeError>;

/// Where on the DHT a key, or a value, belongs.
pub fn target_of(bytes: &[u8]) -> [u8; 32] {
    hash::hash(&[bytes])
}

/// Read a list of addresses; a longer one than `most` is refused.
pub fn take_addresses(from: &mut Decoder<'_>, most: usize) -> Decoded<Vec<SocketAddrV4>> {
    let count = from.size()?;
    if count > most {
        return Err(DecodeError::TooLarge);
    }
    (0..count).map(|_| take_address(from)).collect()
}

/// Who says it is there, and which nodes forward to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerRecord {
    /// The peer's key.
    pub public_key: [u8; 32],
    /// Nodes that forward handshakes to it.
    pub relays: Vec<SocketAddrV4>,
}

impl PeerRecord {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(33 + 6 * self.relays.len());
        self.encode_to(&mut out);
        out
    }
    fn encode_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.public_key);
        put_addresses(out, &self.relays);
    }
    fn decode_from(from: &mut Decoder<'_>) -> Decoded<PeerRecord> {
        Ok(PeerRecord { public_key: from.fixed()?, relays: take_addresses(from, RELAYS_READ_MAX)? })
    }
    /// From bytes.
    ///
    /// # Errors
    /// If they end too early or name more relays than any peer has.
    pub fn decode(bytes: &[u8]) -> Decoded<PeerRecord> {
        PeerRecord::decode_from(&mut Decoder::new(bytes))
    }
}

/// The answer to a lookup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookupReply {
    /// Who announced the topic there.
    pub peers: Vec<PeerRecord>,
    /// A time that announcers gave, in milliseconds; nobody signed it.
    pub bump: u64,
}

impl LookupReply {
    /// Its bytes, from records that are encoded already.
    pub fn encode<R: AsRef<[u8]>>(records: &[R], bump: u64) -> Vec<u8> {
        let mut out = Vec::new();
        compact::uint(&mut out, records.len() as u64);
        records.iter().for_each(|record| out.extend_from_slice(record.as_ref()));
        compact::uint(&mut out, bump);
        out
    }
    /// From bytes. More records than a reply may have are refused: whoever sends them is not honest.
    ///
    /// # Errors
    /// If they end too early, or there are too many.
    pub fn decode(bytes: &[u8]) -> Decoded<LookupReply> {
        let mut from = Decoder::new(bytes);
        let count = from.size()?;
        // JavaScript adds the route of a key to the twenty of a topic.
        if count > RECORDS_MAX + 1 {
            return Err(DecodeError::TooLarge);
        }
        let peers = (0..count).map(|_| PeerRecord::decode_from(&mut from)).collect::<Decoded<_>>()?;
        let bump = if from.is_empty() { 0 } else { from.uint()? };
        Ok(LookupReply { peers, bump })
    }
}

/// What is announced or unannounced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// Who; None in a renewal, which shows a secret only.
    pub peer: Option<PeerRecord>,
    /// In an announcement the hash of a secret; in a renewal the secret itself.
    pub refresh: Option<[u8; 32]>,
    /// The peer's signature.
    pub signature: Option<[u8; 64]>,
    /// When the topic last had news, in milliseconds; nobody signs it.
    pub bump: u64,
}

impl Announcement {
    /// A signed announcement of a peer.
    pub fn signed(kind: Signed, place: &Place<'_>, identity: &Identity, relays: &[SocketAddrV4]) -> Announcement {
        let peer = PeerRecord { public_key: identity.public_key(), relays: relays.to_vec() };
        let signature = identity.sign(&announce_signable(kind, place, &peer, None));
        Announcement { peer: Some(peer), refresh: None, signature: Some(signature), bump: 0 }
    }

    /// The record, if the one it is about signed it for this very place.
    pub fn verify(&self, kind: Signed, place: &Place<'_>) -> Option<&PeerRecord> {
        let (peer, signature) = (self.peer.as_ref()?, self.signature.as_ref()?);
        let signable = announce_signable(kind, place, peer, self.refresh.as_ref());
        PublicKey::from(peer.public_key).verify(&signable, signature).then_some(peer)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let flag = |is: bool, bit: u64| if is { bit } else { 0 };
        let mut out = Vec::with_capacity(1 + 33 + 18 + 64);
        let flags = flag(self.peer.is_some(), 1)
            | flag(self.refresh.is_some(), 2)
            | flag(self.signature.is_some(), 4)
            | flag(self.bump != 0, 8);
        compact::uint(&mut out, flags);
        if let Some(peer) = &self.peer {
            peer.encode_to(&mut out);
        }
        if let Some(refresh) = &self.refresh {
            out.extend_from_slice(refresh);
        }
        if let Some(signature) = &self.signature {
            out.extend_from_slice(signature);
        }
        if self.bump != 0 {
            compact::uint(&mut out, self.bump);
        }
        out
    }

    /// From bytes.
    ///
    /// # Errors
    /// If they end too early or name more relays than any peer has.
    pub fn decode(bytes: &[u8]) -> Decoded<Announcement> {
        let mut from = Decoder::new(bytes);
        let flags = from.uint()?;
        Ok(Announcement {
            peer: if flags & 1 != 0 { Some(PeerRecord::decode_from(&mut from)?) } else { None },
            refresh: if flags & 2 != 0 { Some(from.fixed()?) } else { None },
            signature: if flags & 4 != 0 { Some(from.fixed()?) } else { None },
            bump: if flags & 8 != 0 { from.uint()? } else { 0 },
        })
    }
}

/// Which of the two a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// I am there.
    Announce,
    /// I am not.
    Unannounce,
}

/// Where an announcement is kept. It is signed for one node and for the token that this node gave, so nobody can say it elsewhere, or again later.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The topic, or the hash of the announcer's key.
    pub target: &'a [u8; 32],
    /// The node's id.
    pub node: &'a [u8; 32],
    /// The token it gave.
    pub token: &'a [u8; 32],
}

fn announce_signable(kind: Signed, place: &Place<'_>, peer: &PeerRecord, refresh: Option<&[u8; 32]>) -> [u8; 64] {
    let namespace = match kind {
        Signed::Announce => &namespace::ANNOUNCE,
        Signed::Unannounce => &namespace::UNANNOUNCE,
    };
    let refresh = refresh.map_or(&[] as &[u8], |refresh| refresh);
    signable(namespace, &[place.target, place.node, place.token, &peer.encode(), refresh])
}

fn signable(namespace: &[u8; 32], parts: &[&[u8]]) -> [u8; 64] {
    let mut signable = [0; 64];
    signable[..32].copy_from_slice(namespace);
    signable[32..].copy_from_slice(&hash::hash(parts));
    signable
}

/// A value that its key's owner signed and may replace by one with a higher sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MutableValue {
    /// Which of the owner's values: the highest is the latest.
    pub seq: u64,
    /// The value.
    pub value: Vec<u8>,
    /// The owner's.
    pub signature: [u8; 64],
}

impl MutableValue {
    /// Sign a value.
    pub fn sign(identity: &Identity, seq: u64, value: Vec<u8>) -> MutableValue {
        let signature = identity.sign(&mutable_signable(seq, &value));
        MutableValue { seq, value, signature }
    }
    /// Whether the owner of this key signed it.
    pub fn is_signed_by(&self, public_key: &[u8; 32]) -> bool {
        PublicKey::from(*public_key).verify(&mutable_signable(self.seq, &self.value), &self.signature)
    }
    /// As the answer to a get.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + 12 + self.value.len());
        self.encode_to(&mut out);
        out
    }
    fn encode_to(&self, out: &mut Vec<u8>) {
        compact::uint(out, self.seq);
        compact::buffer(out, &self.value);
        out.extend_from_slice(&self.signature);
    }
    fn decode_from(from: &mut Decoder<'_>) -> Decoded<MutableValue> {
        Ok(MutableValue { seq: from.uint()?, value: from.buffer()?.to_vec(), signature: from.fixed()? })
    }
    /// From the answer to a get.
    ///
    /// # Errors
    /// If the bytes end too early.
    pub fn decode(bytes: &[u8]) -> Decoded<MutableValue> {
        MutableValue::decode_from(&mut Decoder::new(bytes))
    }
    /// As a put.
    pub fn encode_put(&self, public_key: &[u8; 32]) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + 64 + 12 + self.value.len());
        out.extend_from_slice(public_key);
        self.encode_to(&mut out);
        out
    }
    /// From a put: whose, and what.
    ///
    /// # Errors
    /// If the bytes end too early.
    pub fn decode_put(bytes: &[u8]) -> Decoded<([u8; 32], MutableValue)> {
        let mut from = Decoder::new(bytes);
        Ok((from.fixed()?, MutableValue::decode_from(&mut from)?))
    }
}

fn mutable_signable(seq: u64, value: &[u8]) -> [u8; 64] {
    let mut encoded = Vec::with_capacity(12 + value.len());
    compact::uint(&mut encoded, seq);
    compact::buffer(&mut encoded, value);
    signable(&namespace::MUTABLE_PUT, &[&encoded])
}

/// Who passes a handshake or a hole punch on to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A client, to a node or to the server itself.
    FromClient,
    /// A server, to the node that asked it.
    FromServer,
    /// A node, to the server or to a node that knows it.
    FromRelay,
    /// A second node, to the server.
    FromSecondRelay,
    /// The last hop, back to the client.
    Reply,
}

impl Mode {
    fn decode(n: u64) -> Decoded<Mode> {
        Ok(match n {
            0 => Mode::FromClient,
            1 => Mode::FromServer,
            2 => Mode::FromRelay,
            3 => Mode::FromSecondRelay,
            4 => Mode::Reply,
            _ => return Err(DecodeError::Unknown("mode")),
        })
    }
}

/// A Noise message on its way between a client and a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Who sends it.
    pub mode: Mode,
    /// The Noise message.
    pub noise: Vec<u8>,
    /// The other end, as who sends this sees it.
    pub peer_address: Option<SocketAddrV4>,
    /// A node on the way.
    pub relay_address: Option<SocketAddrV4>,
}

impl Handshake {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(18 + self.noise.len());
        compact::uint(&mut out, u64::from(self.peer_address.is_some()) | u64::from(self.relay_address.is_some()) << 1);
        compact::uint(&mut out, self.mode as u64);
        compact::buffer(&mut out, &self.noise);
        self.peer_address.iter().chain(&self.relay_address).for_each(|&address| put_address(&mut out, address));
        out
    }
    /// From bytes.
    ///
    /// # Errors
    /// If they end too early, or the mode is none we know.
    pub fn decode(bytes: &[u8]) -> Decoded<Handshake> {
        let mut from = Decoder::new(bytes);
        let flags = from.uint()?;
        Ok(Handshake {
            mode: Mode::decode(from.uint()?)?,
            noise: from.buffer()?.to_vec(),
            peer_address: if flags & 1 != 0 { Some(take_address(&mut from)?) } else { None },
            relay_address: if flags & 2 != 0 { Some(take_address(&mut from)?) } else { None },
        })
    }
}

/// A round of hole punching on its way between a client and a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holepunch {
    /// Who sends it.
    pub mode: Mode,
    /// The server's number for the connection.
    pub id: u64,
    /// Sealed; nodes on the way cannot read it.
    pub payload: Vec<u8>,
    /// From a client: the node to pass it on to. Otherwise the other end, as who sends this sees it.
    pub peer_address: Option<SocketAddrV4>,
}

impl Holepunch {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20 + self.payload.len());
        compact::uint(&mut out, u64::from(self.peer_address.is_some()));
        compact::uint(&mut out, self.mode as u64);
        compact::uint(&mut out, self.id);
        compact::buffer(&mut out, &self.payload);
        self.peer_address.iter().for_each(|&address| put_address(&mut out, address));
        out
    }
    /// From bytes.
    ///
    /// # Errors
    /// If they end too early, or the mode is none we know.
    pub fn decode(bytes: &[u8]) -> Decoded<Holepunch> {
        let mut from = Decoder::new(bytes);
        let flags = from.uint()?;
        Ok(Holepunch {
            mode: Mode::decode(from.uint()?)?,
            id: from.uint()?,
            payload: from.buffer()?.to_vec(),
            peer_address: if flags & 1 != 0 { Some(take_address(&mut from)?) } else { None },
        })
    }
}

/// A request to a plugin. We have none and answer none; it is read so that a log can name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginRequest {
    /// Its name.
    pub plugin: String,
    /// Its version.
    pub version: u64,
    /// Its command.
    pub command: u64,
    /// What comes with it.
    pub value: Option<Vec<u8>>,
}

impl PluginRequest {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        compact::string(&mut out, &self.plugin);
        compact::uint(&mut out, self.version);
        compact::uint(&mut out, self.command);
        compact::uint(&mut out, u64::from(self.value.is_some()));
        if let Some(value) = &self.value {
            compact::buffer(&mut out, value);
        }
        out
    }
    /// From bytes.
    ///
    /// # Errors
    /// If they end too early or the name is no text.
    pub fn decode(bytes: &[u8]) -> Decoded<PluginRequest> {
        let mut from = Decoder::new(bytes);
        Ok(PluginRequest {
            plugin: from.string()?.to_owned(),
            version: from.uint()?,
            command: from.uint()?,
            value: if from.uint()? & 1 != 0 { Some(from.buffer()?.to_vec()) } else { None },
        })
    }
}

/// A peer's key, and nodes that may know the way to it: what people hand each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The peer's key.
    pub public_key: [u8; 32],
    /// Nodes to ask first.
    pub nodes: Vec<SocketAddrV4>,
}

impl Address {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(34 + 6 * self.nodes.len());
        out.extend_from_slice(&self.public_key);
        compact::uint(&mut out, 1);
        put_addresses(&mut out, &self.nodes);
        out
    }
    /// From bytes; a key alone is an address too.
    ///
    /// # Errors
    /// If they end too early or name too many nodes.
    pub fn decode(bytes: &[u8]) -> Decoded<Address> {
        let mut from = Decoder::new(bytes);
        let public_key = from.fixed()?;
        let has_nodes = !from.is_empty() && from.uint()? & 1 != 0;
        let nodes = if has_nodes { take_addresses(&mut from, ADDRESS_NODES_MAX)? } else { Vec::new() };
        Ok(Address { public_key, nodes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::secret_stream::vectors::{bytes, read, text};

    fn cases(file: &str) -> Vec<Value> {
        let cases = read(&format!("swarm/{file}"))["cases"].as_array().expect("cases").clone();
        assert!(!cases.is_empty());
        cases
    }

    fn key(value: &Value, name: &str) -> [u8; 32] {
        bytes(value, name).try_into().expect("32 bytes")
    }

    fn address(value: &Value) -> Option<SocketAddrV4> {
        let port = u16::try_from(value["port"].as_u64()?).expect("a port");
        Some(SocketAddrV4::new(text(value, "host").parse().expect("a host"), port))
    }

    fn addresses(value: &Value) -> Vec<SocketAddrV4> {
        value.as_array().expect("a list").iter().filter_map(address).collect()
    }

    #[test]
    fn announcements_are_those_of_javascript() {
        for case in cases("announce") {
            let identity = Identity::from_seed(key(&case, "seed"));
            assert_eq!(identity.public_key(), key(&case, "public_key"));
            let (target, node, token) = (key(&case, "target"), key(&case, "node_id"), key(&case, "token"));
            let place = Place { target: &target, node: &node, token: &token };
            let kind = if text(&case, "name") == "unannounce" { Signed::Unannounce } else { Signed::Announce };
            let peer = PeerRecord { public_key: identity.public_key(), relays: addresses(&case["relay_addresses"]) };
            assert_eq!(peer.encode(), bytes(&case, "peer_record"));
            let refresh = (!case["refresh"].is_null()).then(|| key(&case, "refresh"));
            assert_eq!(announce_signable(kind, &place, &peer, refresh.as_ref()).to_vec(), bytes(&case, "signable"));
            let signature = identity.sign(&announce_signable(kind, &place, &peer, refresh.as_ref()));
            assert_eq!(signature.to_vec(), bytes(&case, "signature"));
            let bump = case["bump"].as_u64().expect("a bump");
            let announcement = Announcement { peer: Some(peer.clone()), refresh, signature: Some(signature), bump };
            assert_eq!(announcement.encode(), bytes(&case, "value"));
            assert_eq!(Announcement::decode(&bytes(&case, "value")), Ok(announcement.clone()));
            assert_eq!(announcement.verify(kind, &place), Some(&peer));
            if refresh.is_none() && bump == 0 {
                assert_eq!(Announcement::signed(kind, &place, &identity, &peer.relays), announcement);
            }
            // For another node, with another token, for another topic, or as the other kind it is worth nothing.
            let other = [9; 32];
            let kinds = [Signed::Announce, Signed::Unannounce];
            let places =
                [Place { target: &other, ..place }, Place { node: &other, ..place }, Place { token: &other, ..place }];
            assert!(places.iter().all(|place| announcement.verify(kind, place).is_none()));
            assert!(
                kinds.iter().filter(|&&other| other != kind).all(|&kind| announcement.verify(kind, &place).is_none())
            );
        }
    }

    #[test]
    fn values_are_those_of_javascript() {
        for case in cases("mutable") {
            let identity = Identity::from_seed(key(&case, "seed"));
            let public_key = identity.public_key();
            assert_eq!(target_of(&public_key), key(&case, "target"));
            let value = MutableValue::sign(&identity, case["seq"].as_u64().expect("a number"), bytes(&case, "value"));
            assert_eq!(mutable_signable(value.seq, &value.value).to_vec(), bytes(&case, "signable"));
            assert_eq!(value.signature.to_vec(), bytes(&case, "signature"));
            assert!(value.is_signed_by(&public_key) && !value.is_signed_by(&[1; 32]));
            assert_eq!(value.encode_put(&public_key), bytes(&case, "put_value"));
            assert_eq!(MutableValue::decode_put(&bytes(&case, "put_value")), Ok((public_key, value.clone())));
            assert_eq!(value.encode(), bytes(&case, "get_reply"));
            assert_eq!(MutableValue::decode(&bytes(&case, "get_reply")), Ok(value));
        }
        for case in cases("immutable") {
            assert_eq!(target_of(&bytes(&case, "value")), key(&case, "target"));
        }
    }

    #[test]
    fn names_are_those_of_javascript() {
        let mut compared = 0;
        for case in cases("namespaces") {
            let namespace = match text(&case, "name") {
                "ANNOUNCE" => &namespace::ANNOUNCE,
                "UNANNOUNCE" => &namespace::UNANNOUNCE,
                "MUTABLE_PUT" => &namespace::MUTABLE_PUT,
                "PEER_HANDSHAKE" => &namespace::PEER_HANDSHAKE,
                "PEER_HOLEPUNCH" => &namespace::PEER_HOLEPUNCH,
                "PLUGIN" => &namespace::PLUGIN,
                _ => continue,
            };
            compared += 1;
            assert_eq!(namespace.to_vec(), bytes(&case, "value"));
        }
        assert_eq!(compared, 6);
        for case in cases("targets") {
            assert_eq!(target_of(&bytes(&case, "key")), key(&case, "peer_target"));
            let core = pgbee_engine::CoreKey::from(key(&case, "key"));
            assert_eq!(core.discovery_key().as_bytes(), &key(&case, "discovery_key"));
        }
        for case in cases("addresses") {
            let address = Address { public_key: key(&case, "key"), nodes: addresses(&case["nodes"]) };
            assert_eq!(address.encode(), bytes(&case, "encoded"));
            assert_eq!(Address::decode(&bytes(&case, "encoded")), Ok(address.clone()));
            let alone = Address { nodes: Vec::new(), ..address };
            assert_eq!(Address::decode(&bytes(&case, "key")), Ok(alone));
        }
    }

    #[test]
    fn messages_are_those_of_javascript() {
        let mut kinds = std::collections::BTreeSet::new();
        for case in cases("hyperdht-messages") {
            let (encoded, value) = (bytes(&case, "bytes"), &case["value"]);
            kinds.insert(text(&case, "schema").to_owned());
            let mode = || Mode::decode(value["mode"].as_u64().expect("a mode")).expect("a known one");
            match text(&case, "schema") {
                "handshake" => {
                    let handshake = Handshake {
                        mode: mode(),
                        noise: bytes(value, "noise"),
                        peer_address: address(&value["peerAddress"]),
                        relay_address: address(&value["relayAddress"]),
                    };
                    assert_eq!(handshake.encode(), encoded);
                    assert_eq!(Handshake::decode(&encoded), Ok(handshake));
                }
                "holepunch" => {
                    let holepunch = Holepunch {
                        mode: mode(),
                        id: value["id"].as_u64().expect("a number"),
                        payload: bytes(value, "payload"),
                        peer_address: address(&value["peerAddress"]),
                    };
                    assert_eq!(holepunch.encode(), encoded);
                    assert_eq!(Holepunch::decode(&encoded), Ok(holepunch));
                }
                "peer" => {
                    let record =
                        PeerRecord { public_key: key(value, "publicKey"), relays: addresses(&value["relayAddresses"]) };
                    assert_eq!(record.encode(), encoded);
                    assert_eq!(PeerRecord::decode(&encoded), Ok(record));
                }
                "lookupRawReply" => {
                    let peers = value["peers"].as_array().expect("peers");
                    let records: Vec<_> = peers
                        .iter()
                        .map(|hex| crate::secret_stream::vectors::unhex(hex.as_str().expect("hex")))
                        .collect();
                    let bump = value["bump"].as_u64().expect("a bump");
                    assert_eq!(LookupReply::encode(&records, bump), encoded);
                    let decoded = LookupReply::decode(&encoded).expect("a reply");
                    assert_eq!(decoded.bump, bump);
                    assert_eq!(decoded.peers.iter().map(PeerRecord::encode).collect::<Vec<_>>(), records);
                    if bump == 0 {
                        assert_eq!(
                            LookupReply::decode(&encoded[..encoded.len() - 1]),
                            Ok(decoded),
                            "the bump may be missing"
                        );
                    }
                }
                "pluginRequest" => {
                    let request = PluginRequest {
                        plugin: text(value, "plugin").to_owned(),
                        version: value["version"].as_u64().expect("a version"),
                        command: value["command"].as_u64().expect("a command"),
                        value: Some(bytes(value, "value")),
                    };
                    assert_eq!(request.encode(), encoded);
                    assert_eq!(PluginRequest::decode(&encoded), Ok(request));
                }
                // Those inside of Noise and of sealed rounds are read in `connect` and `punch`.
                "noisePayload" => {
                    let payload = super::super::connect::payload::Payload::decode(&encoded).expect("a payload");
                    assert_eq!(payload.encode(), encoded);
                }
                "holepunchPayload" => {
                    let payload = super::super::punch::Payload::decode(&encoded).expect("a payload");
                    assert_eq!(payload.encode(), encoded);
                }
                other => panic!("{other}: no such schema"),
            }
        }
        assert_eq!(kinds.len(), 7);
    }

    #[test]
    fn counts_of_strangers_are_held_against_limits() {
        let mut many = vec![7; 32];
        compact::uint(&mut many, 17);
        many.extend([0; 17 * 6]);
        assert_eq!(PeerRecord::decode(&many), Err(DecodeError::TooLarge));
        let mut endless = Vec::new();
        compact::uint(&mut endless, 1 << 40);
        assert_eq!(LookupReply::decode(&endless), Err(DecodeError::TooLarge));
        assert!(Handshake::decode(&[0, 9, 0]).is_err(), "an unknown mode");
    }

    /// Any bytes are read without panic, and what is read is said in one way only.
    fn all_read(bytes: &[u8]) {
        if let Ok(read) = Handshake::decode(bytes) {
            assert_eq!(Handshake::decode(&read.encode()), Ok(read));
        }
        if let Ok(read) = Holepunch::decode(bytes) {
            assert_eq!(Holepunch::decode(&read.encode()), Ok(read));
        }
        if let Ok(read) = PeerRecord::decode(bytes) {
            assert_eq!(PeerRecord::decode(&read.encode()), Ok(read));
        }
        if let Ok(read) = LookupReply::decode(bytes) {
            let records: Vec<_> = read.peers.iter().map(PeerRecord::encode).collect();
            assert_eq!(LookupReply::decode(&LookupReply::encode(&records, read.bump)), Ok(read));
        }
        if let Ok(read) = Announcement::decode(bytes) {
            assert_eq!(Announcement::decode(&read.encode()), Ok(read));
        }
        if let Ok(read) = MutableValue::decode(bytes) {
            assert_eq!(MutableValue::decode(&read.encode()), Ok(read));
        }
        if let Ok((key, read)) = MutableValue::decode_put(bytes) {
            assert_eq!(MutableValue::decode_put(&read.encode_put(&key)), Ok((key, read)));
        }
        if let Ok(read) = PluginRequest::decode(bytes) {
            assert_eq!(PluginRequest::decode(&read.encode()), Ok(read));
        }
        if let Ok(read) = Address::decode(bytes) {
            assert_eq!(Address::decode(&read.encode()), Ok(read));
        }
    }

    #[test]
    fn changed_messages_are_read_without_panic() {
        let mut all: Vec<Vec<u8>> = cases("hyperdht-messages").iter().map(|case| bytes(case, "bytes")).collect();
        all.extend(cases("announce").iter().map(|case| bytes(case, "value")));
        all.extend(cases("mutable").iter().flat_map(|case| [bytes(case, "put_value"), bytes(case, "get_value")]));
        for message in all {
            for cut in 0..=message.len() {
                all_read(&message[..cut]);
            }
            for at in 0..message.len() {
                for byte in [0, 1, 0x7f, 0xfc, 0xfd, 0xfe, 0xff] {
                    let mut changed = message.clone();
                    changed[at] = byte;
                    all_read(&changed);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            all_read(&bytes);
        }
    }
}
