//! Requests and replies of dht-rpc, byte for byte, and the addresses and ids in them.
//!
//! ```text
//! request  03  flags  tid u16le  to addr4  [1: id 32]  [2: token 32]  command uint  [8: target 32]  [16: value buf]      4: the command is internal
//! reply    13  flags  tid u16le  to addr4  [1: id 32]  [2: token 32]  [4: closer addr4[]]  [8: error uint]  [16: value buf]
//! addr4    four address bytes, port u16le
//! ```
//!
//! What must stay true: an id is the hash of its node's address, so the one on the wire is only a claim that [`checked_id`] proves; decoding takes no more
//! memory than the datagram has bytes. Bytes behind the end are let through, for what a newer version may add there.
//! Source: dht-rpc `lib/io.js`, `lib/peer.js`, `lib/commands.js`, `lib/errors.js`.

use std::net::{Ipv4Addr, SocketAddrV4};

use pgbee_engine::crypto::hash;
use pgbee_engine::encoding::compact::{self, DecodeError, Decoder};

/// Internal command: are you there?
pub const PING: u64 = 0;
/// Internal command: answer to this port of mine.
pub const PING_NAT: u64 = 1;
/// Internal command: which nodes do you know that are close to the target?
pub const FIND_NODE: u64 = 2;
/// Internal command: a node that you told me of does not answer.
pub const DOWN_HINT: u64 = 3;
/// Internal command: answer after so many milliseconds.
pub const DELAYED_PING: u64 = 4;

/// Error of a reply: the command is not known, or not answered by this node.
pub const UNKNOWN_COMMAND: u64 = 1;
/// Error of a reply: the token is none of ours, or too old. The reply carries a fresh one.
pub const INVALID_TOKEN: u64 = 2;

/// Nodes in a reply, and in a row of the table.
pub const K: usize = 20;

const REQUEST: u8 = 0x03;
const REPLY: u8 = 0x13;
const ID: u64 = 1;
const TOKEN: u64 = 2;
const INTERNAL: u64 = 4;
const CLOSER: u64 = 4;
const TARGET: u64 = 8;
const ERROR: u64 = 8;
const VALUE: u64 = 16;

/// A request as it is on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number.
    pub tid: u16,
    /// Whom it is sent to.
    pub to: SocketAddrV4,
    /// The id that the sender claims.
    pub id: Option<[u8; 32]>,
    /// A token that the receiver gave.
    pub token: Option<[u8; 32]>,
    /// Whether the command is dht-rpc's own.
    pub internal: bool,
    /// What is asked.
    pub command: u64,
    /// What it is about.
    pub target: Option<[u8; 32]>,
    /// What goes with it; an empty one is read as none.
    pub value: Option<Vec<u8>>,
}

/// A reply as it is on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request's number.
    pub tid: u16,
    /// The requester as the replier saw it.
    pub to: SocketAddrV4,
    /// The id that the sender claims.
    pub id: Option<[u8; 32]>,
    /// A token for a later request.
    pub token: Option<[u8; 32]>,
    /// Nodes closer to the target; of those that came, the first [`K`].
    pub closer: Vec<SocketAddrV4>,
    /// 0, or what went wrong.
    pub error: u64,
    /// What goes with it; an empty one is read as none.
    pub value: Option<Vec<u8>>,
}

/// What a datagram holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A request.
    Request(Request),
    /// A reply.
    Reply(Reply),
}

/// Whether a datagram says that it is one of dht-rpc's; it may be broken nevertheless.
pub fn is_message(datagram: &[u8]) -> bool {
    matches!(datagram, [REQUEST | REPLY, _, ..])
}

impl Message {
    /// Reads a datagram.
    ///
    /// # Errors
    ///
    /// It ends too soon, or is of another kind.
    pub fn decode(datagram: &[u8]) -> Result<Message, DecodeError> {
        let mut rest = Decoder::new(datagram);
        match rest.uint8()? {
            REQUEST => Request::decode(&mut rest).map(Message::Request),
            REPLY => Reply::decode(&mut rest).map(Message::Reply),
            _ => Err(DecodeError::Unknown("kind of message")),
        }
    }
}

impl Request {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(112 + self.value.as_ref().map_or(0, Vec::len));
        let flags = [
            (ID, self.id.is_some()),
            (TOKEN, self.token.is_some()),
            (INTERNAL, self.internal),
            (TARGET, self.target.is_some()),
            (VALUE, self.value.is_some()),
        ];
        put_head(&mut out, REQUEST, flags, self.tid, self.to);
        out.extend(self.id.iter().chain(&self.token).flatten());
        compact::uint(&mut out, self.command);
        out.extend(self.target.iter().flatten());
        put_value(&mut out, self.value.as_deref());
        out
    }

    fn decode(rest: &mut Decoder<'_>) -> Result<Request, DecodeError> {
        let (flags, tid, to) = read_head(rest)?;
        Ok(Request {
            tid,
            to,
            id: read_fixed(rest, flags & ID)?,
            token: read_fixed(rest, flags & TOKEN)?,
            internal: flags & INTERNAL != 0,
            command: rest.uint()?,
            target: read_fixed(rest, flags & TARGET)?,
            value: read_value(rest, flags)?,
        })
    }
}

impl Reply {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        let flags = [
            (ID, self.id.is_some()),
            (TOKEN, self.token.is_some()),
            (CLOSER, !self.closer.is_empty()),
            (ERROR, self.error > 0),
            (VALUE, self.value.is_some()),
        ];
        put_head(&mut out, REPLY, flags, self.tid, self.to);
        out.extend(self.id.iter().chain(&self.token).flatten());
        if !self.closer.is_empty() {
            put_addresses(&mut out, &self.closer);
        }
        if self.error > 0 {
            compact::uint(&mut out, self.error);
        }
        put_value(&mut out, self.value.as_deref());
        out
    }

    /// How many bytes [`encode`](Reply::encode) makes.
    pub fn encoded_len(&self) -> usize {
        let fixed = 32 * (usize::from(self.id.is_some()) + usize::from(self.token.is_some()));
        let closer = if self.closer.is_empty() {
            0
        } else {
            compact::uint_len(self.closer.len() as u64) + 6 * self.closer.len()
        };
        let error = if self.error > 0 { compact::uint_len(self.error) } else { 0 };
        let value = self.value.as_ref().map_or(0, |value| compact::uint_len(value.len() as u64) + value.len());
        10 + fixed + closer + error + value
    }

    fn decode(rest: &mut Decoder<'_>) -> Result<Reply, DecodeError> {
        let (flags, tid, to) = read_head(rest)?;
        Ok(Reply {
            tid,
            to,
            id: read_fixed(rest, flags & ID)?,
            token: read_fixed(rest, flags & TOKEN)?,
            closer: if flags & CLOSER != 0 { read_addresses(rest, K)? } else { Vec::new() },
            error: if flags & ERROR != 0 { rest.uint()? } else { 0 },
            value: read_value(rest, flags)?,
        })
    }
}

fn put_head(out: &mut Vec<u8>, kind: u8, flags: [(u64, bool); 5], tid: u16, to: SocketAddrV4) {
    let flags = flags.iter().map(|&(flag, is_set)| flag * u64::from(is_set)).sum::<u64>();
    out.extend([kind, flags as u8]);
    out.extend(tid.to_le_bytes());
    put_address(out, to);
}

fn read_head(rest: &mut Decoder<'_>) -> Result<(u64, u16, SocketAddrV4), DecodeError> {
    Ok((rest.uint()?, u16::from_le_bytes(rest.fixed()?), read_address(rest)?))
}

fn read_fixed(rest: &mut Decoder<'_>, is_there: u64) -> Result<Option<[u8; 32]>, DecodeError> {
    if is_there == 0 { Ok(None) } else { rest.fixed().map(Some) }
}

fn put_value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    if let Some(value) = value {
        compact::uint(out, value.len() as u64);
        out.extend_from_slice(value);
    }
}

fn read_value(rest: &mut Decoder<'_>, flags: u64) -> Result<Option<Vec<u8>>, DecodeError> {
    if flags & VALUE == 0 {
        return Ok(None);
    }
    Ok(rest.optional_buffer()?.map(<[u8]>::to_vec))
}

/// Append an address: four bytes, then the port, the low byte first.
pub fn put_address(out: &mut Vec<u8>, address: SocketAddrV4) {
    out.extend(address_bytes(address));
}

/// Reads what [`put_address`] wrote.
///
/// # Errors
///
/// Too few bytes.
pub fn read_address(rest: &mut Decoder<'_>) -> Result<SocketAddrV4, DecodeError> {
    let host = Ipv4Addr::from(rest.fixed::<4>()?);
    Ok(SocketAddrV4::new(host, u16::from_le_bytes(rest.fixed()?)))
}

/// Append a count, then so many addresses.
pub fn put_addresses(out: &mut Vec<u8>, addresses: &[SocketAddrV4]) {
    compact::uint(out, addresses.len() as u64);
    for &address in addresses {
        put_address(out, address);
    }
}

/// Reads what [`put_addresses`] wrote; keeps the first `max`.
///
/// # Errors
///
/// Too few bytes for the count.
pub fn read_addresses(rest: &mut Decoder<'_>, max: usize) -> Result<Vec<SocketAddrV4>, DecodeError> {
    let count = rest.size()?;
    let bytes = rest.bytes(count.checked_mul(6).ok_or(DecodeError::TooLarge)?)?;
    let mut items = Decoder::new(bytes);
    (0..count.min(max)).map(|_| read_address(&mut items)).collect()
}

/// An address in six bytes.
pub fn address_bytes(address: SocketAddrV4) -> [u8; 6] {
    let ([a, b, c, d], [low, high]) = (address.ip().octets(), address.port().to_le_bytes());
    [a, b, c, d, low, high]
}

/// The id of the node at an address: BLAKE2b-256 of its six bytes.
pub fn node_id(address: SocketAddrV4) -> [u8; 32] {
    hash::hash(&[&address_bytes(address)])
}

/// The id that a sender claims, if it is the one of its address.
pub fn checked_id(claimed: Option<[u8; 32]>, from: SocketAddrV4) -> Option<[u8; 32]> {
    claimed.filter(|id| *id == node_id(from))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::secret_stream::vectors::{bytes, read, text};

    fn address(value: &Value) -> SocketAddrV4 {
        SocketAddrV4::new(text(value, "host").parse().expect("a host"), value["port"].as_u64().expect("a port") as u16)
    }

    fn optional(value: &Value, name: &str) -> Option<Vec<u8>> {
        value[name].as_str().map(|_| bytes(value, name))
    }

    fn fixed(value: &Value, name: &str) -> Option<[u8; 32]> {
        optional(value, name).map(|bytes| bytes.try_into().expect("32 bytes"))
    }

    fn number(value: &Value, name: &str) -> u64 {
        value[name].as_u64().expect("a number")
    }

    fn request(case: &Value) -> Request {
        Request {
            tid: number(case, "tid") as u16,
            to: address(&case["to"]),
            id: fixed(case, "id"),
            token: fixed(case, "token"),
            internal: case["internal"].as_bool().expect("a flag"),
            command: number(case, "command"),
            target: fixed(case, "target"),
            value: optional(case, "value"),
        }
    }

    fn reply(case: &Value) -> Reply {
        Reply {
            tid: number(case, "tid") as u16,
            to: address(&case["to"]),
            id: fixed(case, "id"),
            token: fixed(case, "token"),
            closer: case["closer"].as_array().expect("nodes").iter().map(address).collect(),
            error: number(case, "error"),
            value: optional(case, "value"),
        }
    }

    #[test]
    fn vectors() {
        let file = read("swarm/dht-rpc-messages");
        let (requests, replies) = (file["cases"]["requests"].as_array(), file["cases"]["replies"].as_array());
        for case in requests.expect("requests") {
            assert_eq!(request(case).encode(), bytes(case, "bytes"), "{}", case["name"]);
            assert_eq!(Message::decode(&bytes(case, "bytes")), Ok(Message::Request(request(case))), "{}", case["name"]);
        }
        for case in replies.expect("replies") {
            assert_eq!(reply(case).encode(), bytes(case, "bytes"), "{}", case["name"]);
            assert_eq!(reply(case).encoded_len(), bytes(case, "bytes").len(), "{}", case["name"]);
            assert_eq!(Message::decode(&bytes(case, "bytes")), Ok(Message::Reply(reply(case))), "{}", case["name"]);
        }
    }

    #[test]
    fn ids() {
        for case in read("swarm/node-ids")["cases"].as_array().expect("cases") {
            assert_eq!(address_bytes(address(case)).to_vec(), bytes(case, "address"));
            assert_eq!(node_id(address(case)).to_vec(), bytes(case, "id"));
            assert_eq!(checked_id(fixed(case, "id"), address(case)), fixed(case, "id"));
        }
        let here = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        assert_eq!(checked_id(Some([0; 32]), here), None);
    }

    #[test]
    fn a_count_is_no_promise() {
        let head = [REPLY, CLOSER as u8, 0, 0, 1, 1, 1, 1, 1, 0];
        for count in
            [&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &[0xfe, 0, 0, 0, 0x80], &[1, 1, 2, 3, 4, 5]]
        {
            assert!(Message::decode(&[&head[..], count].concat()).is_err());
        }
        let many = [&head[..], &[30], &[9; 180]].concat();
        assert!(matches!(Message::decode(&many), Ok(Message::Reply(reply)) if reply.closer.len() == K));
    }

    proptest! {
        #[test]
        fn what_is_decoded_is_what_was_said(datagram in prop::collection::vec(any::<u8>(), 0..200), is_reply: bool) {
            let mut datagram = datagram;
            if let Some(first) = datagram.first_mut() {
                *first = if is_reply { REPLY } else { REQUEST };
            }
            if let Ok(message) = Message::decode(&datagram) {
                let again = match &message {
                    Message::Request(request) => request.encode(),
                    Message::Reply(reply) => reply.encode(),
                };
                prop_assert_eq!(Message::decode(&again), Ok(message));
            }
        }
    }
}
