//! What two punching peers tell each other, sealed: the nodes that pass it on read none of it.
//!
//! ```text
//! sealed     nonce (24) | XSalsa20-Poly1305 of payload: tag (16), bytes         key: the punch secret of the handshake
//! payload    uint flags | uint error | uint firewall | uint round | addresses | remote address | token | remote token
//!
//! flag   1 connected   2 punching   4 addresses: uint count, addr4 each   8 remote address: addr4   16 token: 32   32 remote token: 32
//! addr4      four bytes | port u16le
//! token      BLAKE2b-256 of the host as text ("1.2.3.4"), keyed with a secret of ours
//! ```
//!
//! A token proves where a peer is: it went to the host it is made for, over a node that we chose, and came back. Random punching only ever aims at a host so
//! proven, so nobody can point thousands of packets at a third party.
//!
//! What must stay true: no byte of a payload is believed before its tag was checked; a nonce is never used twice. Source: `lib/secure-payload.js` and
//! `lib/messages.js` of hyperdht. Vectors: `holepunch-payload.json`, `hyperdht-messages.json`.

use std::net::{Ipv4Addr, SocketAddrV4};

use pgbee_engine::crypto::hash;
use pgbee_engine::encoding::compact::{self, DecodeError, Decoder};
use poly1305::universal_hash::KeyInit;
use poly1305::{Poly1305, Tag};
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use super::nat::Firewall;
use crate::dht::messages::{put_address, put_addresses, take_address};
use crate::udp::Random;

/// Addresses of a peer that are kept; more are read over. Ours never tells more than four.
pub const ADDRESSES_MAX: usize = 8;

const NONCE: usize = 24;
const TAG: usize = 16;
/// The first bytes of the key stream are Poly1305's key.
const MAC_KEY: usize = 32;

/// No error.
pub const ERROR_NONE: u64 = 0;
/// The sender gave up.
pub const ERROR_ABORTED: u64 = 1;
/// The sender punches elsewhere right now; a relayed connection may ask again.
pub const ERROR_TRY_LATER: u64 = 3;

/// One round's message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// [`ERROR_NONE`] or why the sender stops.
    pub error: u64,
    /// The sender's NAT, as far as it knows.
    pub firewall: Firewall,
    /// Which round the sender is in.
    pub round: u64,
    /// The sender has heard the other.
    pub is_connected: bool,
    /// The sender punches, or is about to.
    pub is_punching: bool,
    /// Where the sender may be reached.
    pub addresses: Option<Vec<SocketAddrV4>>,
    /// Where the sender has opened its NAT to.
    pub remote_address: Option<SocketAddrV4>,
    /// To be sent back.
    pub token: Option<[u8; 32]>,
    /// The other's token, sent back.
    pub remote_token: Option<[u8; 32]>,
}

impl Payload {
    /// As sent, before it is sealed.
    pub fn encode(&self) -> Vec<u8> {
        let flags = u64::from(self.is_connected)
            | u64::from(self.is_punching) << 1
            | u64::from(self.addresses.is_some()) << 2
            | u64::from(self.remote_address.is_some()) << 3
            | u64::from(self.token.is_some()) << 4
            | u64::from(self.remote_token.is_some()) << 5;
        let mut out = Vec::with_capacity(96);
        for number in [flags, self.error, self.firewall.to_wire(), self.round] {
            compact::uint(&mut out, number);
        }
        if let Some(addresses) = &self.addresses {
            put_addresses(&mut out, addresses);
        }
        if let Some(address) = self.remote_address {
            put_address(&mut out, address);
        }
        for token in [self.token, self.remote_token].into_iter().flatten() {
            out.extend_from_slice(&token);
        }
        out
    }

    /// Read one; what a newer peer may append is ignored.
    ///
    /// # Errors
    ///
    /// It ends early, or a number is impossible.
    pub fn decode(bytes: &[u8]) -> Result<Payload, DecodeError> {
        let mut from = Decoder::new(bytes);
        let flags = from.uint()?;
        Ok(Payload {
            error: from.uint()?,
            firewall: Firewall::from_wire(from.uint()?),
            round: from.uint()?,
            is_connected: flags & 1 != 0,
            is_punching: flags & 2 != 0,
            addresses: (flags & 4 != 0).then(|| take_addresses(&mut from)).transpose()?,
            remote_address: (flags & 8 != 0).then(|| take_address(&mut from)).transpose()?,
            token: (flags & 16 != 0).then(|| from.fixed()).transpose()?,
            remote_token: (flags & 32 != 0).then(|| from.fixed()).transpose()?,
        })
    }
}

/// Seals and opens the payloads of one handshake.
pub struct Sealer {
    shared: Zeroizing<[u8; 32]>,
    local: Zeroizing<[u8; 32]>,
    random: Random,
}

impl Sealer {
    /// From the handshake's punch secret.
    pub fn new(punch_secret: [u8; 32], mut random: Random) -> Sealer {
        Sealer { shared: Zeroizing::new(punch_secret), local: Zeroizing::new(random.bytes()), random }
    }

    /// Ready to be sent.
    pub fn seal(&mut self, payload: &Payload) -> Vec<u8> {
        let nonce = self.random.bytes();
        self.seal_with(nonce, &payload.encode())
    }

    fn seal_with(&self, nonce: [u8; NONCE], plain: &[u8]) -> Vec<u8> {
        let (mut mac_key, mut cipher) = self.streams(&nonce);
        let mut sealed = Vec::with_capacity(NONCE + TAG + plain.len());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&[0; TAG]);
        sealed.extend_from_slice(plain);
        cipher.apply_keystream(&mut sealed[NONCE + TAG..]);
        let tag = tag(&mut mac_key, &sealed[NONCE + TAG..]);
        sealed[NONCE..NONCE + TAG].copy_from_slice(&tag);
        sealed
    }

    /// What the other sent; `None` if it was not made with our secret, or makes no sense.
    pub fn open(&self, sealed: &[u8]) -> Option<Payload> {
        let (nonce, boxed) = sealed.split_at_checked(NONCE)?;
        let (sent_tag, body) = boxed.split_at_checked(TAG)?;
        let (mut mac_key, mut cipher) = self.streams(nonce.try_into().ok()?);
        let sent_tag: [u8; TAG] = sent_tag.try_into().ok()?;
        // `Tag` compares in constant time.
        if tag(&mut mac_key, body) != Tag::from(sent_tag) {
            return None;
        }
        let mut plain = body.to_vec();
        cipher.apply_keystream(&mut plain);
        Payload::decode(&plain).ok()
    }

    /// What a peer at this host has to send back to prove that it is there.
    pub fn token(&self, host: Ipv4Addr) -> [u8; 32] {
        hash::keyed(&*self.local, &[host.to_string().as_bytes()])
    }

    /// Poly1305's key, and the cipher behind it.
    fn streams(&self, nonce: &[u8; NONCE]) -> (Zeroizing<[u8; MAC_KEY]>, XSalsa20) {
        let mut cipher = XSalsa20::new((&*self.shared).into(), nonce.into());
        let mut mac_key = Zeroizing::new([0; MAC_KEY]);
        cipher.apply_keystream(&mut *mac_key);
        (mac_key, cipher)
    }
}

fn tag(mac_key: &mut Zeroizing<[u8; MAC_KEY]>, body: &[u8]) -> Tag {
    Poly1305::new((&**mac_key).into()).compute_unpadded(body)
}

fn take_addresses(from: &mut Decoder<'_>) -> Result<Vec<SocketAddrV4>, DecodeError> {
    let mut addresses = from.array(take_address)?;
    addresses.truncate(ADDRESSES_MAX);
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret_stream::vectors;

    fn sealer(secret: [u8; 32]) -> Sealer {
        Sealer::new(secret, Random::new([3; 32]))
    }

    #[test]
    fn sealed_as_in_javascript() {
        let file = vectors::read("swarm/holepunch-payload");
        let mut of_token = sealer([0; 32]);
        of_token.local = Zeroizing::new(vectors::bytes(&file["token"], "local_secret").try_into().unwrap());
        let host = vectors::text(&file["token"], "host").parse().unwrap();
        assert_eq!(of_token.token(host).to_vec(), vectors::bytes(&file["token"], "token"));
        for case in file["cases"].as_array().unwrap() {
            let sealer = sealer(vectors::bytes(case, "secret").try_into().unwrap());
            let (plain, sealed) = (vectors::bytes(case, "plain"), vectors::bytes(case, "bytes"));
            let nonce = vectors::bytes(case, "nonce").try_into().unwrap();
            assert_eq!(sealer.seal_with(nonce, &plain), sealed);
            assert_eq!(sealer.open(&sealed).unwrap().encode(), plain);
        }
    }

    fn address(value: &serde_json::Value) -> Option<SocketAddrV4> {
        let host = value["host"].as_str()?.parse().unwrap();
        Some(SocketAddrV4::new(host, value["port"].as_u64().unwrap() as u16))
    }

    fn token(value: &serde_json::Value) -> Option<[u8; 32]> {
        value.as_str().map(|hex| vectors::unhex(hex).try_into().unwrap())
    }

    #[test]
    fn laid_out_as_in_javascript() {
        let file = vectors::read("swarm/hyperdht-messages");
        let cases: Vec<_> =
            file["cases"].as_array().unwrap().iter().filter(|case| case["schema"] == "holepunchPayload").collect();
        assert!(cases.len() >= 2);
        for case in cases {
            let value = &case["value"];
            let payload = Payload {
                error: value["error"].as_u64().unwrap(),
                firewall: Firewall::from_wire(value["firewall"].as_u64().unwrap()),
                round: value["round"].as_u64().unwrap(),
                is_connected: value["connected"].as_bool().unwrap(),
                is_punching: value["punching"].as_bool().unwrap(),
                addresses: value["addresses"].as_array().map(|all| all.iter().filter_map(address).collect()),
                remote_address: address(&value["remoteAddress"]),
                token: token(&value["token"]),
                remote_token: token(&value["remoteToken"]),
            };
            assert_eq!(payload.encode(), vectors::bytes(case, "bytes"));
            assert_eq!(Payload::decode(&vectors::bytes(case, "bytes")), Ok(payload));
        }
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_refused() {
        let mut a = sealer([7; 32]);
        let b = Sealer::new([7; 32], Random::new([4; 32]));
        let payload = Payload { round: 3, token: Some([9; 32]), ..Payload::default() };
        let sealed = a.seal(&payload);
        assert_ne!(sealed, a.seal(&payload), "another nonce");
        assert_eq!(b.open(&sealed), Some(payload));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(b.open(&changed), None, "byte {at}");
            assert_eq!(b.open(&sealed[..at]), None, "cut at {at}");
        }
        assert_eq!(sealer([8; 32]).open(&sealed), None, "another secret");
    }

    #[test]
    fn of_many_addresses_the_first_are_kept_and_the_rest_is_read_over() {
        let all: Vec<SocketAddrV4> = (1..100).map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).collect();
        let payload = Payload { addresses: Some(all.clone()), token: Some([5; 32]), ..Payload::default() };
        let read = Payload::decode(&payload.encode()).unwrap();
        assert_eq!(read.addresses.unwrap(), all[..ADDRESSES_MAX]);
        assert_eq!(read.token, Some([5; 32]));
        // A count that no bytes follow.
        assert!(Payload::decode(&[4, 0, 0, 0, 0xfe, 0xff, 0xff, 0x0f, 0]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Payload::decode(&bytes);
            let _ = sealer([1; 32]).open(&bytes);
        }
    }
}
