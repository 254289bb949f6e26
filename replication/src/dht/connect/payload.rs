//! What both sides tell each other inside of the Noise handshake that goes through the DHT, and what the handshake leaves behind.
//!
//! ```text
//! client -> server   Noise IK, message 1: e, es, s, ss, payload      prologue = namespace("hyperswarm/dht", PEER_HANDSHAKE)
//! client <- server   Noise IK, message 2: e, ee, se, payload
//!
//! payload   uint version 1, uint flags, uint error, uint firewall, then by flag
//!    1      holepunch: uint id, uint count, per relay: relay addr4, the server's address as that relay sees it addr4
//!    2, 4   addresses: uint count, addr4 each; uint count, addr6 each
//!    8      udx: uint 1, uint features (1: reusable socket), uint stream id of the sender, uint seq 0
//!    16     secret stream: uint 1
//!    32     relay through: uint 1, uint 0, relay's key[32], token[32]
//!    64     relay addresses of the server, for the client's next time: uint count, addr4 each
//!
//! hole punch secret = H(key = handshake hash, namespace("hyperswarm/dht", PEER_HOLEPUNCH))
//! ```
//!
//! What must stay true: a reply that does not fit leaves the handshake as it was, so that a node on the way that answers with rubbish cannot end an attempt
//! that another node serves well; lists of a stranger are kept to [`ADDRESSES_MAX`]; a session exists only for the key that was asked for.
//!
//! Sources: hyperdht `lib/noise-wrap.js`, `lib/messages.js`. Vectors: `tests/vectors/swarm/noise.json`, `hyperdht-messages.json`.

use std::net::{Ipv6Addr, SocketAddrV4, SocketAddrV6};

use pgbee_engine::crypto::hash;
use pgbee_engine::encoding::compact::{self, DecodeError, Decoder};

use crate::dht::messages::{namespace, put_address, take_address};
use crate::dht::punch::Firewall;
use crate::secret_stream::Role;
use crate::secret_stream::handshake::{Handshake, HandshakeError, Identity, Pattern, Session};

/// How many addresses of each of a peer's lists we keep; the rest is read and forgotten.
pub const ADDRESSES_MAX: usize = 16;

/// The only version of payloads there is.
pub const VERSION: u64 = 1;

/// Why a side refuses, in payloads of handshakes and of hole punching alike.
pub mod fault {
    /// All is well.
    pub const NONE: u64 = 0;
    /// It cannot, or does not want to go on.
    pub const ABORTED: u64 = 1;
    /// It does not know the version of our payload.
    pub const VERSION_MISMATCH: u64 = 2;
    /// It is punching for someone else.
    pub const TRY_LATER: u64 = 3;
}

const HAS_HOLEPUNCH: u64 = 1;
const HAS_ADDRESSES: u64 = 2;
const HAS_ADDRESSES6: u64 = 4;
const HAS_UDX: u64 = 8;
const HAS_SECRET_STREAM: u64 = 16;
const HAS_RELAY_THROUGH: u64 = 32;
const HAS_RELAY_ADDRESSES: u64 = 64;

const FEATURE_REUSABLE_SOCKET: u64 = 1;

/// What one side tells the other about how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// [`VERSION`]; nothing else is known of a payload of another version.
    pub version: u64,
    /// One of [`fault`].
    pub error: u64,
    /// What the sender knows of its own NAT.
    pub firewall: Firewall,
    /// How to punch towards the sender; servers that are not open give it.
    pub holepunch: Option<Holepunch>,
    /// Its public address if it is open, and those on its own network.
    pub addresses: Vec<SocketAddrV4>,
    /// Read and written, not acted upon.
    pub addresses6: Vec<SocketAddrV6>,
    /// The stream it is waiting with.
    pub udx: Option<Udx>,
    /// The version of the encrypted stream it speaks.
    pub secret_stream: Option<u64>,
    /// A relay at which to meet while nothing direct works.
    pub relay_through: Option<RelayThrough>,
    /// Where the server can be asked for next time without a search.
    pub relay_addresses: Option<Vec<SocketAddrV4>>,
}

/// Where a server takes part in hole punching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holepunch {
    /// Which of its handshakes.
    pub id: u64,
    /// The nodes that forward to it.
    pub relays: Vec<RelayInfo>,
}

/// A node that forwards to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayInfo {
    /// The node.
    pub relay: SocketAddrV4,
    /// The server as that node sees it.
    pub server: SocketAddrV4,
}

/// One end of a UDX stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udx {
    /// Of the layout; 1.
    pub version: u64,
    /// Whether the socket may be used for further connections to the same peer.
    pub is_socket_reusable: bool,
    /// The id that packets to the sender carry.
    pub id: u32,
    /// Where it starts to count; 0.
    pub seq: u64,
}

/// A meeting point at a blind relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayThrough {
    /// The relay's public key.
    pub relay: [u8; 32],
    /// What both sides show there.
    pub token: [u8; 32],
}

impl Payload {
    /// One that says no more than this.
    pub fn new(error: u64, firewall: Firewall) -> Payload {
        Payload {
            version: VERSION,
            error,
            firewall,
            holepunch: None,
            addresses: Vec::new(),
            addresses6: Vec::new(),
            udx: None,
            secret_stream: None,
            relay_through: None,
            relay_addresses: None,
        }
    }

    /// The bytes of it.
    pub fn encode(&self) -> Vec<u8> {
        let mut flags = 0;
        let mut fields = Vec::new();
        let out = &mut fields;
        if let Some(holepunch) = &self.holepunch {
            flags |= HAS_HOLEPUNCH;
            compact::uint(out, holepunch.id);
            compact::array(out, &holepunch.relays, |out, info| {
                put_address(out, info.relay);
                put_address(out, info.server);
            });
        }
        if !self.addresses.is_empty() {
            flags |= HAS_ADDRESSES;
            compact::array(out, &self.addresses, |out, address| put_address(out, *address));
        }
        if !self.addresses6.is_empty() {
            flags |= HAS_ADDRESSES6;
            compact::array(out, &self.addresses6, |out, address| write_address6(out, *address));
        }
        if let Some(udx) = &self.udx {
            flags |= HAS_UDX;
            compact::uint(out, udx.version);
            compact::uint(out, if udx.is_socket_reusable { FEATURE_REUSABLE_SOCKET } else { 0 });
            compact::uint(out, udx.id.into());
            compact::uint(out, udx.seq);
        }
        if let Some(version) = self.secret_stream {
            flags |= HAS_SECRET_STREAM;
            compact::uint(out, version);
        }
        if let Some(through) = &self.relay_through {
            flags |= HAS_RELAY_THROUGH;
            compact::uint(out, 1);
            compact::uint(out, 0);
            out.extend_from_slice(&through.relay);
            out.extend_from_slice(&through.token);
        }
        if let Some(addresses) = &self.relay_addresses {
            flags |= HAS_RELAY_ADDRESSES;
            compact::array(out, addresses, |out, address| put_address(out, *address));
        }
        let mut bytes = Vec::with_capacity(fields.len() + 4);
        compact::uint(&mut bytes, self.version);
        compact::uint(&mut bytes, flags);
        compact::uint(&mut bytes, self.error);
        compact::uint(&mut bytes, self.firewall.to_wire());
        bytes.extend_from_slice(&fields);
        bytes
    }

    /// Reads one; of a version that is not ours only the version. Bytes behind the end are of a newer version and ignored, as in JavaScript.
    pub fn decode(bytes: &[u8]) -> Result<Payload, DecodeError> {
        let mut from = Decoder::new(bytes);
        let version = from.uint()?;
        if version != VERSION {
            return Ok(Payload { version, ..Payload::new(fault::NONE, Firewall::Unknown) });
        }
        let flags = from.uint()?;
        let error = from.uint()?;
        let firewall = Firewall::from_wire(from.uint()?);
        let has = |flag| flags & flag != 0;
        Ok(Payload {
            version,
            error,
            firewall,
            holepunch: has(HAS_HOLEPUNCH).then(|| read_holepunch(&mut from)).transpose()?,
            addresses: if has(HAS_ADDRESSES) { read_list(&mut from, take_address)? } else { Vec::new() },
            addresses6: if has(HAS_ADDRESSES6) { read_list(&mut from, read_address6)? } else { Vec::new() },
            udx: has(HAS_UDX).then(|| read_udx(&mut from)).transpose()?,
            secret_stream: has(HAS_SECRET_STREAM).then(|| from.uint()).transpose()?,
            relay_through: has(HAS_RELAY_THROUGH).then(|| read_relay_through(&mut from)).transpose()?,
            relay_addresses: has(HAS_RELAY_ADDRESSES).then(|| read_list(&mut from, take_address)).transpose()?,
        })
    }
}

fn read_holepunch(from: &mut Decoder<'_>) -> Result<Holepunch, DecodeError> {
    let id = from.uint()?;
    let relays = read_list(from, |from| Ok(RelayInfo { relay: take_address(from)?, server: take_address(from)? }))?;
    Ok(Holepunch { id, relays })
}

fn read_udx(from: &mut Decoder<'_>) -> Result<Udx, DecodeError> {
    let version = from.uint()?;
    let features = from.uint()?;
    let id = u32::try_from(from.uint()?).map_err(|_| DecodeError::TooLarge)?;
    Ok(Udx { version, is_socket_reusable: features & FEATURE_REUSABLE_SOCKET != 0, id, seq: from.uint()? })
}

fn read_relay_through(from: &mut Decoder<'_>) -> Result<RelayThrough, DecodeError> {
    let _version = from.uint()?;
    let _flags = from.uint()?;
    Ok(RelayThrough { relay: from.fixed()?, token: from.fixed()? })
}

/// A list of a stranger: every item must be there, the first [`ADDRESSES_MAX`] are kept.
fn read_list<T>(
    from: &mut Decoder<'_>,
    mut item: impl FnMut(&mut Decoder<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = from.size()?;
    let mut kept = Vec::new();
    for at in 0..count {
        let item = item(from)?;
        if at < ADDRESSES_MAX {
            kept.push(item);
        }
    }
    Ok(kept)
}

fn write_address6(out: &mut Vec<u8>, address: SocketAddrV6) {
    out.extend_from_slice(&address.ip().octets());
    out.extend_from_slice(&address.port().to_le_bytes());
}

fn read_address6(from: &mut Decoder<'_>) -> Result<SocketAddrV6, DecodeError> {
    Ok(SocketAddrV6::new(Ipv6Addr::from(from.fixed::<16>()?), u16::from_le_bytes(from.fixed()?), 0, 0))
}

/// A client's handshake with one server, from before its message to the first answer that fits.
pub struct Initiation(Handshake);

impl Initiation {
    /// For the server with this key. The seed must be fresh and random.
    pub fn new(identity: &Identity, remote_key: [u8; 32], ephemeral_seed: [u8; 32]) -> Initiation {
        let handshake =
            Handshake::new(Pattern::Ik, Role::Initiator, identity, ephemeral_seed, &prologue(), Some(remote_key));
        Initiation(handshake.expect("an initiator that knows the remote key"))
    }

    /// The message, to be sent through any number of nodes; once.
    ///
    /// # Errors
    ///
    /// The key asked for is no public key that anyone has, or the message was made before.
    pub fn send(&mut self, payload: &Payload) -> Result<Vec<u8>, HandshakeError> {
        self.0.send(&payload.encode())
    }

    /// Reads an answer. One that does not fit changes nothing, and the next one may.
    pub fn receive(&mut self, noise: &[u8]) -> Result<(Payload, Secrets), Misfit> {
        let mut handshake = self.0.clone();
        let payload = handshake.receive(noise).map_err(Misfit::Noise)?;
        let payload = Payload::decode(&payload).map_err(Misfit::Payload)?;
        let secrets = Secrets::of(handshake).ok_or(Misfit::Noise(HandshakeError::Turn))?;
        Ok((payload, secrets))
    }
}

/// A server's handshake with one client, after the client's message.
pub struct Response {
    handshake: Handshake,
    remote_key: [u8; 32],
}

impl Response {
    /// Reads a client's message. The seed must be fresh and random.
    pub fn new(identity: &Identity, noise: &[u8], ephemeral_seed: [u8; 32]) -> Result<(Response, Payload), Misfit> {
        let handshake = Handshake::new(Pattern::Ik, Role::Responder, identity, ephemeral_seed, &prologue(), None);
        let mut handshake = handshake.expect("a responder needs no remote key");
        let payload = handshake.receive(noise).map_err(Misfit::Noise)?;
        let payload = Payload::decode(&payload).map_err(Misfit::Payload)?;
        let remote_key = handshake.remote_public_key().expect("IK's first message names its sender");
        Ok((Response { handshake, remote_key }, payload))
    }

    /// Who the client says it is; proved by its message, save that the message may be one seen before.
    pub fn remote_key(&self) -> [u8; 32] {
        self.remote_key
    }

    /// The answer, and what is now shared with the client.
    pub fn send(mut self, payload: &Payload) -> Result<(Vec<u8>, Secrets), HandshakeError> {
        let noise = self.handshake.send(&payload.encode())?;
        let secrets = Secrets::of(self.handshake).ok_or(HandshakeError::Turn)?;
        Ok((noise, secrets))
    }
}

/// Why bytes are no message of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// They are not Noise of that key.
    #[error(transparent)]
    Noise(HandshakeError),
    /// They are, and what is inside cannot be read.
    #[error(transparent)]
    Payload(DecodeError),
}

/// What a handshake leaves to both sides.
pub struct Secrets {
    /// The keys of the encrypted stream, and who is on its other end.
    pub session: Session,
    /// Seals the messages of hole punching.
    pub holepunch: [u8; 32],
}

impl Secrets {
    fn of(handshake: Handshake) -> Option<Secrets> {
        let session = handshake.finish()?;
        let holepunch = hash::keyed(&session.hash, &[&*namespace::PEER_HOLEPUNCH]);
        Some(Secrets { session, holepunch })
    }
}

fn prologue() -> [u8; 32] {
    *namespace::PEER_HANDSHAKE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_stream::vectors::{bytes, read, text};
    use proptest::prelude::*;
    use serde_json::Value;

    fn address(value: &Value) -> SocketAddrV4 {
        let port = value["port"].as_u64().expect("a port");
        SocketAddrV4::new(text(value, "host").parse().expect("a host"), port.try_into().expect("a port"))
    }

    fn addresses(value: &Value) -> Vec<SocketAddrV4> {
        value.as_array().into_iter().flatten().map(address).collect()
    }

    fn key(value: &Value, name: &str) -> [u8; 32] {
        bytes(value, name).try_into().expect("32 bytes")
    }

    fn payload_of(value: &Value) -> Payload {
        let present = |name: &str| Some(&value[name]).filter(|field| !field.is_null());
        Payload {
            holepunch: present("holepunch").map(|field| Holepunch {
                id: field["id"].as_u64().expect("an id"),
                relays: field["relays"]
                    .as_array()
                    .expect("relays")
                    .iter()
                    .map(|info| RelayInfo {
                        relay: address(&info["relayAddress"]),
                        server: address(&info["peerAddress"]),
                    })
                    .collect(),
            }),
            addresses: addresses(&value["addresses4"]),
            udx: present("udx").map(|field| Udx {
                version: 1,
                is_socket_reusable: field["reusableSocket"].as_bool().expect("a bool"),
                id: field["id"].as_u64().expect("an id").try_into().expect("32 bits"),
                seq: field["seq"].as_u64().expect("a seq"),
            }),
            secret_stream: present("secretStream").map(|_| 1),
            relay_through: present("relayThrough")
                .map(|field| RelayThrough { relay: key(field, "publicKey"), token: key(field, "token") }),
            relay_addresses: present("relayAddresses").map(addresses),
            ..Payload::new(
                value["error"].as_u64().expect("an error"),
                Firewall::from_wire(value["firewall"].as_u64().expect("a firewall")),
            )
        }
    }

    #[test]
    fn payloads_are_those_of_javascript() {
        let vectors = read("swarm/hyperdht-messages");
        let mut seen = 0;
        for case in vectors["cases"].as_array().expect("cases").iter().filter(|case| case["schema"] == "noisePayload") {
            let payload = payload_of(&case["value"]);
            assert_eq!(payload.encode(), bytes(case, "bytes"), "{}", case["name"]);
            assert_eq!(Payload::decode(&bytes(case, "bytes")), Ok(payload), "{}", case["name"]);
            seen += 1;
        }
        assert_eq!(seen, 4);
    }

    #[test]
    fn handshakes_are_those_of_javascript() {
        let vectors = read("swarm/noise");
        let case = vectors["cases"]
            .as_array()
            .expect("cases")
            .iter()
            .find(|case| case["pattern"] == "IK")
            .expect("an IK case");
        assert_eq!(prologue().to_vec(), bytes(case, "prologue"));
        let (client, server) =
            (Identity::from_seed(key(case, "initiator_seed")), Identity::from_seed(key(case, "responder_seed")));
        let mut initiation = Initiation::new(&client, server.public_key(), key(case, "initiator_ephemeral_seed"));
        let said = |at: usize| {
            (
                Payload::decode(&bytes(&case["messages"][at], "payload")).expect("a payload"),
                bytes(&case["messages"][at], "bytes"),
            )
        };
        let ((request, request_noise), (reply, reply_noise)) = (said(0), said(1));

        assert_eq!(initiation.send(&request).expect("the first"), request_noise);
        let (response, received) =
            Response::new(&server, &request_noise, key(case, "responder_ephemeral_seed")).expect("a message");
        assert_eq!((received, response.remote_key()), (request, client.public_key()));
        let (noise, at_server) = response.send(&reply).expect("in turn");
        assert_eq!(noise, reply_noise);
        let (received, at_client) = initiation.receive(&noise).expect("an answer");
        assert_eq!(received, reply);

        for secrets in [&at_client, &at_server] {
            assert_eq!(secrets.session.hash.to_vec(), bytes(case, "handshake_hash"));
            assert_eq!(secrets.holepunch.to_vec(), bytes(case, "holepunch_secret"));
        }
        assert_eq!(at_client.session.send_key.to_vec(), bytes(case, "initiator_tx"));
        assert_eq!(at_client.session.receive_key.to_vec(), bytes(case, "initiator_rx"));
        assert_eq!(at_client.session.remote_public_key, server.public_key());
        assert_eq!(at_server.session.remote_public_key, client.public_key());
    }

    fn pair() -> (Initiation, Vec<u8>, Vec<u8>) {
        let (client, server) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let mut initiation = Initiation::new(&client, server.public_key(), [3; 32]);
        let request = initiation.send(&Payload::new(fault::NONE, Firewall::Open)).expect("the first");
        let (response, _) = Response::new(&server, &request, [4; 32]).expect("a message");
        let (answer, _) = response.send(&Payload::new(fault::NONE, Firewall::Consistent)).expect("in turn");
        (initiation, request, answer)
    }

    /// Every answer with one byte changed is refused, and the true one is still taken afterwards.
    #[test]
    fn an_answer_that_does_not_fit_changes_nothing() {
        let (mut initiation, _, answer) = pair();
        for at in 0..answer.len() {
            let mut changed = answer.clone();
            changed[at] ^= 0x40;
            assert!(initiation.receive(&changed).is_err(), "byte {at}");
            assert!(initiation.receive(&answer[..at]).is_err(), "cut at {at}");
        }
        let (payload, secrets) = initiation.receive(&answer).expect("unchanged");
        assert_eq!(payload.firewall, Firewall::Consistent);
        assert_eq!(secrets.session.remote_public_key, Identity::from_seed([2; 32]).public_key());
    }

    #[test]
    fn nobody_answers_for_another_key() {
        let (mut initiation, request, _) = pair();
        let impostor = Identity::from_seed([5; 32]);
        assert!(Response::new(&impostor, &request, [6; 32]).is_err());
        // An impostor that makes a handshake of its own up to the point of an answer has said it for a request that we never made.
        let mut other = Initiation::new(&Identity::from_seed([1; 32]), impostor.public_key(), [3; 32]);
        let other_request = other.send(&Payload::new(fault::NONE, Firewall::Open)).expect("the first");
        let (response, _) = Response::new(&impostor, &other_request, [6; 32]).expect("a message");
        let (answer, _) = response.send(&Payload::new(fault::NONE, Firewall::Open)).expect("in turn");
        assert!(initiation.receive(&answer).is_err());
    }

    #[test]
    fn long_lists_are_cut_and_versions_are_told() {
        let many = Payload {
            addresses: (0..100).map(|n| SocketAddrV4::new(std::net::Ipv4Addr::new(1, 2, 3, n), 4)).collect(),
            addresses6: vec![SocketAddrV6::new(Ipv6Addr::LOCALHOST, 5, 0, 0)],
            ..Payload::new(fault::TRY_LATER, Firewall::Random)
        };
        let read = Payload::decode(&many.encode()).expect("a payload");
        assert_eq!(read.addresses, many.addresses[..ADDRESSES_MAX]);
        assert_eq!((read.addresses6, read.error, read.firewall), (many.addresses6, fault::TRY_LATER, Firewall::Random));
        assert_eq!(Payload::decode(&[2, 0xff]).expect("only the version").version, 2);
        assert_eq!(
            Payload::decode(&[1, 2, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0xff]),
            Err(DecodeError::OutOfBounds),
            "a count with nothing behind"
        );
    }

    proptest! {
        #[test]
        fn strangers_do_not_panic_us(bytes in proptest::collection::vec(any::<u8>(), 0..200), flags in 0_u8..128) {
            let _ = Payload::decode(&bytes);
            let mut ours = vec![1, flags, 0, 0];
            ours.extend_from_slice(&bytes);
            let _ = Payload::decode(&ours);
            prop_assert!(Response::new(&Identity::from_seed([2; 32]), &bytes, [4; 32]).is_err());
        }
    }
}
