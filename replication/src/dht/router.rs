//! The way of handshakes and hole punches through this node: to a server of ours, or on to a peer that announced itself here.
//!
//! ```text
//! handshake    client --FromClient--> we --FromRelay--> server         server is one whose route we know, by its own signed announcement
//!              client <--Reply------- we <--FromServer- server         the client's transaction id stays the same on all hops
//! hole punch   the same; the client may name the address to pass it to (where the server told it to be)
//! ```
//!
//! A node that passes on what strangers send can be made a weapon. What must stay true:
//!
//! * a [`Mode::Reply`] goes only to who asked here, with that transaction id, within 20 s, and three times at most: nobody can have us send to a third party
//!   in the guise of a server;
//! * a handshake goes on only along a known route; a hole punch also to an address that a server answered from lately, and to any other address only a few
//!   times a second, per source and per destination, and never to one that reaches less far than the source's: no stranger reaches into our network;
//! * nothing grows on the way but by a dozen bytes; what one host sends through us, and what one host is sent, is bounded.
//!
//! Source: hyperdht `lib/router.js`, whose authors left these limits to be done.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::messages::{Handshake, Holepunch, Mode, command};
use super::rpc::limits::charged;
use super::rpc::recent::Recent;
use super::rpc::{Answer, Incoming, Rpc, scope};
use super::storage::{Fair, Storage};
use super::{Context, ServerId};
use crate::udp::{Now, SocketId};

/// How long a client may wait for what we passed on; requests of JavaScript's clients are over long before.
const PENDING_AGE: Duration = Duration::from_secs(20);
/// How many replies one request may get: it may have been sent again, and answered each time.
const REPLIES_MAX: u8 = 3;
/// How long the address that a server answered from is one that punches may go to.
const ANSWERED_AGE: Duration = Duration::from_secs(120);
/// Bytes of either table.
const TABLE_BYTES: usize = 1 << 20;

/// What one host may send through us in a second, beyond a burst of twice as much.
const SOURCE_RATE: u32 = 50;
/// What one host may be sent through us.
const DESTINATION_RATE: u32 = 200;
/// What may go from one host, or to one, where no route leads.
const UNKNOWN_RATE: u32 = 2;
/// All that goes through us.
const TOTAL_RATE: u32 = 2000;
/// On this machine's own addresses a whole network may live at one of them.
const LOOPBACK_FACTOR: u32 = 100;

/// What is for a server of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForServer {
    /// A handshake; answer it with [`answer_handshake`].
    Handshake(ServerId, Handshake),
    /// A round of hole punching; answer it with [`answer_holepunch`].
    Holepunch(ServerId, Holepunch),
}

/// Passes on what is not for us, and tells what is.
pub struct Router {
    servers: BTreeMap<[u8; 32], ServerId>,
    /// Who waits for a reply through us, and how many it got.
    pending: Fair<(SocketAddrV4, u16), u8>,
    /// Where servers answered from.
    answered: Fair<([u8; 32], SocketAddrV4), ()>,
    sources: Buckets,
    destinations: Buckets,
    unknown_sources: Buckets,
    unknown_destinations: Buckets,
    total: Buckets,
    /// Passed on, and refused for a limit.
    relayed: u64,
    refused: u64,
}

impl Default for Router {
    fn default() -> Router {
        Router {
            servers: BTreeMap::new(),
            pending: Fair::new(TABLE_BYTES, PENDING_AGE),
            answered: Fair::new(TABLE_BYTES, ANSWERED_AGE),
            sources: Buckets::new(SOURCE_RATE),
            destinations: Buckets::new(DESTINATION_RATE),
            unknown_sources: Buckets::new(UNKNOWN_RATE),
            unknown_destinations: Buckets::new(UNKNOWN_RATE),
            total: Buckets::new(TOTAL_RATE),
            relayed: 0,
            refused: 0,
        }
    }
}

impl Router {
    /// A server of ours listens; `target` is the hash of its key. False: another one has that key.
    pub fn listen(&mut self, target: [u8; 32], server: ServerId) -> bool {
        *self.servers.entry(target).or_insert(server) == server
    }

    /// It does not any longer.
    pub fn close(&mut self, server: ServerId) {
        self.servers.retain(|_, listening| *listening != server);
    }

    /// How many messages were passed on, and how many were not for a limit.
    pub fn counts(&self) -> (u64, u64) {
        (self.relayed, self.refused)
    }

    /// A handshake or a hole punch came.
    pub fn handle_request<T>(
        &mut self,
        now: Now,
        rpc: &mut Rpc<T>,
        storage: &mut Storage,
        request: &Incoming,
    ) -> Option<ForServer> {
        self.pending.expire(now);
        self.answered.expire(now);
        let (target, value) = (request.target.as_ref()?, request.value.as_deref()?);
        let server = self.servers.get(target).copied();
        if request.command == command::PEER_HANDSHAKE {
            let handshake = Handshake::decode(value).ok().filter(|handshake| !handshake.noise.is_empty())?;
            if let Some(server) = server {
                let is_asked = matches!(handshake.mode, Mode::FromClient | Mode::FromRelay | Mode::FromSecondRelay);
                return is_asked.then_some(ForServer::Handshake(server, handshake));
            }
            self.pass_handshake(now, rpc, storage, request, target, handshake);
        } else {
            let holepunch = Holepunch::decode(value).ok()?;
            if holepunch.mode == Mode::FromRelay {
                return holepunch.peer_address.and(server).map(|server| ForServer::Holepunch(server, holepunch));
            }
            self.pass_holepunch(now, rpc, storage, request, target, holepunch);
        }
        None
    }

    fn pass_handshake<T>(
        &mut self,
        now: Now,
        rpc: &mut Rpc<T>,
        storage: &mut Storage,
        request: &Incoming,
        target: &[u8; 32],
        handshake: Handshake,
    ) {
        let route = storage.route(now, target).map(|route| route.relay);
        let from = Some(request.from);
        match (handshake.mode, route) {
            // No way from here, but perhaps from nodes that are closer.
            (Mode::FromClient, None) => rpc.answer(now, request, Answer { closer: true, ..Answer::default() }),
            (Mode::FromClient, Some(to)) if self.may_pass(now, request.from, to, true) => {
                self.expect(now, request);
                let value = Handshake { mode: Mode::FromRelay, peer_address: from, relay_address: None, ..handshake };
                rpc.relay(now, request, value.encode(), to, None);
            }
            (Mode::FromRelay, Some(to)) if self.may_pass(now, request.from, to, true) => {
                let value = Handshake { mode: Mode::FromSecondRelay, relay_address: from, ..handshake };
                rpc.relay(now, request, value.encode(), to, None);
            }
            (Mode::FromServer, _) => {
                let Some(client) = handshake.peer_address.filter(|&client| self.is_expected(now, request, client))
                else {
                    return;
                };
                self.answered.insert(now, (*target, request.from), (), request.from, 0);
                let value = Handshake { mode: Mode::Reply, peer_address: from, relay_address: None, ..handshake };
                rpc.answer(now, request, Answer { to: Some(client), value: Some(value.encode()), ..Answer::default() });
            }
            _ => {}
        }
    }

    fn pass_holepunch<T>(
        &mut self,
        now: Now,
        rpc: &mut Rpc<T>,
        storage: &mut Storage,
        request: &Incoming,
        target: &[u8; 32],
        holepunch: Holepunch,
    ) {
        let from = Some(request.from);
        match holepunch.mode {
            Mode::FromClient => {
                let route = storage.route(now, target).map(|route| route.relay);
                let Some(to) = holepunch.peer_address.or(route).filter(|to| to.port() != 0) else { return };
                let is_known = Some(to) == route || self.answered.get(&(*target, to)).is_some();
                if self.may_pass(now, request.from, to, is_known) {
                    self.expect(now, request);
                    let value = Holepunch { mode: Mode::FromRelay, peer_address: from, ..holepunch };
                    rpc.relay(now, request, value.encode(), to, None);
                }
            }
            Mode::FromServer => {
                let Some(client) = holepunch.peer_address.filter(|&client| self.is_expected(now, request, client))
                else {
                    return;
                };
                self.answered.insert(now, (*target, request.from), (), request.from, 0);
                let value = Holepunch { mode: Mode::Reply, peer_address: from, ..holepunch };
                rpc.answer(now, request, Answer { to: Some(client), value: Some(value.encode()), ..Answer::default() });
            }
            Mode::FromRelay | Mode::FromSecondRelay | Mode::Reply => {}
        }
    }

    /// A client waits for a reply through us.
    fn expect(&mut self, now: Now, request: &Incoming) {
        self.pending.insert(now, (request.from, request.tid), REPLIES_MAX, request.from, 0);
    }

    /// Whether a client asked for this reply here.
    fn is_expected(&mut self, now: Now, request: &Incoming, client: SocketAddrV4) -> bool {
        let Some(left) = self.pending.get_mut(&(client, request.tid)).filter(|left| **left > 0) else { return false };
        *left -= 1;
        let is_allowed = self.destinations.take(now, *client.ip());
        self.count(is_allowed)
    }

    fn may_pass(&mut self, now: Now, from: SocketAddrV4, to: SocketAddrV4, is_known: bool) -> bool {
        let (source, destination) = (*from.ip(), *to.ip());
        let is_unknown_allowed = |router: &mut Router| {
            scope::is_believable(from, to)
                && router.unknown_sources.take(now, source)
                && router.unknown_destinations.take(now, destination)
        };
        let is_allowed = (is_known || is_unknown_allowed(self))
            && self.sources.take(now, source)
            && self.destinations.take(now, destination)
            && self.total.take(now, Ipv4Addr::UNSPECIFIED);
        self.count(is_allowed)
    }

    fn count(&mut self, is_allowed: bool) -> bool {
        *(if is_allowed { &mut self.relayed } else { &mut self.refused }) += 1;
        is_allowed
    }
}

/// Answer a handshake that came for a server of ours, the way it came.
pub fn answer_handshake(
    cx: &mut Context<'_>,
    request: &Incoming,
    handshake: &Handshake,
    noise: Vec<u8>,
    socket: Option<SocketId>,
) {
    let back = |mode, peer_address| Handshake { mode, noise, peer_address, relay_address: None }.encode();
    match handshake.mode {
        Mode::FromClient => {
            let value = Some(back(Mode::Reply, None));
            cx.rpc.answer(cx.now, request, Answer { socket, value, ..Answer::default() });
        }
        Mode::FromRelay => {
            cx.rpc.relay(cx.now, request, back(Mode::FromServer, handshake.peer_address), request.from, socket)
        }
        Mode::FromSecondRelay => {
            // The first node is one that the second names, without proof.
            let Some(to) = handshake.relay_address.filter(|&to| cx.router.may_pass(cx.now, request.from, to, false))
            else {
                return;
            };
            cx.rpc.relay(cx.now, request, back(Mode::FromServer, handshake.peer_address), to, socket);
        }
        Mode::FromServer | Mode::Reply => {}
    }
}

/// Answer a round of hole punching that came for a server of ours, the way it came.
pub fn answer_holepunch(
    cx: &mut Context<'_>,
    request: &Incoming,
    holepunch: &Holepunch,
    payload: Vec<u8>,
    socket: Option<SocketId>,
) {
    let value = Holepunch { mode: Mode::FromServer, id: 0, payload, peer_address: holepunch.peer_address };
    cx.rpc.relay(cx.now, request, value.encode(), request.from, socket);
}

/// How many hosts a limit is remembered of, in each of two halves.
const BUCKETS_MAX: usize = 2048;
/// What a host may do at once: as much as in this time.
const BURST: Duration = Duration::from_secs(2);

/// So many a second per host, and a burst of twice as many. Who was not heard of for long is forgotten, which gives it no more than it would have.
struct Buckets {
    rate: u32,
    empty_at: Recent<Ipv4Addr, Now>,
}

impl Buckets {
    fn new(rate: u32) -> Buckets {
        Buckets { rate, empty_at: Recent::new(BUCKETS_MAX) }
    }

    fn take(&mut self, now: Now, host: Ipv4Addr) -> bool {
        let rate = if host.is_loopback() { self.rate * LOOPBACK_FACTOR } else { self.rate };
        let empty_at = self.empty_at.entry(host, || now);
        let Some(after) = charged(*empty_at, now, 1, rate, BURST) else { return false };
        *empty_at = after;
        true
    }
}
