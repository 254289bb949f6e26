//! A key of ours that others connect to: their handshakes answered, once each, and the way to each of them found.
//!
//! ```text
//! handshake ── known noise bytes ──> the same answer again, whichever node it came by
//!           ── too many, banned, not for our key ──> nothing
//!           ── version or stream missing ──> an answer with an error
//!           ── straight from the client, or the client is open ──> answer; open at once
//!           ── otherwise ──> answer, from a fresh socket that punches; wait 10 s ──> rounds ──> the stream's first packet ──> open
//!                                                                                                 (beside it, a relay)
//! ```
//!
//! Each handshake has a slot; its index is the number that the client's rounds carry. A slot is kept for 10 s after its end, for copies of the handshake.
//!
//! What strangers can cause is bounded: a handshake is four Diffie-Hellman operations (under a millisecond), perhaps a socket with four pings. Hosts and nodes
//! that forward have a pace each, and there is one for all of them; slots, slots that are half open, punching sockets and relays that were asked for by clients
//! have limits. The noise bytes that were answered last are remembered, so that a copy sent later is not another connection.
//!
//! What must stay true: a client that the firewall refuses learns nothing; a client's address counts as proven only for the token that came back from it; who
//! the client is was proved by its handshake, that it is there only by the first frame of its stream.
//!
//! Source: hyperdht `lib/server.js`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use pgbee_engine::crypto::hash;

use super::limit::{Limit, Pace};
use super::link::Link;
use super::payload::{Holepunch as HolepunchInfo, Payload, RelayInfo, RelayThrough, Response, Udx, VERSION, fault};
use super::{Answered, ConnectError, ServerOptions, Verdict, address, destroy, drive, seen};
use crate::dht::messages::{self, Handshake, Holepunch, Mode};
use crate::dht::punch::{self, Firewall, Puncher, RemoteState, Sealer};
use crate::dht::router;
use crate::dht::rpc::Incoming;
use crate::dht::{ConnectionId, Context, DhtEvent, Path, PuncherId, ServerId, Tag, Via};
use crate::secret_stream::Identity;
use crate::udp::{Now, SocketId};

/// How long a handshake is remembered after its end.
const CLEAR_WAIT: Duration = Duration::from_secs(10);
/// How long a client may take to begin its rounds, or to send a packet.
const PREPUNCH_WAIT: Duration = Duration::from_secs(10);
/// Handshakes remembered.
pub const SLOTS_MAX: usize = 1024;
/// Handshakes of one host that are not open yet.
pub const HALF_OPEN_PER_HOST_MAX: usize = 16;
/// Handshakes with a puncher.
pub const PUNCHERS_MAX: usize = 64;
/// Of those, for one host.
pub const PUNCHERS_PER_HOST_MAX: usize = 4;
/// Relays that clients asked us to meet them at, before they are there.
pub const RELAYS_PENDING_MAX: usize = 8;
/// Noise bytes answered last, by their hash.
const SEEN_MAX: usize = 4096;
/// Rounds of one client that wait for the verdict on our NAT.
const WAITING_MAX: usize = 4;
/// Longer messages are not read; JavaScript's clients send some 200 bytes.
const NOISE_BYTES_MAX: usize = 1024;
/// Handshakes of one host.
const PACE_OF_HOST: Pace = Pace { burst: 16, per_second: 2 };
/// Handshakes that one node forwards: those of all clients that found that node.
const PACE_OF_FORWARDER: Pace = Pace { burst: 64, per_second: 32 };
/// Handshakes of all.
const PACE_OF_ALL: Pace = Pace { burst: 128, per_second: 64 };

/// What a request was for. A server makes none but those of its punchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {}

/// What the announcer has made of a server: where clients can come through.
#[derive(Clone, Debug, Default)]
pub struct Announced {
    /// Nodes that forward to it, and where they see it.
    pub relays: Vec<RelayInfo>,
    /// Where clients should ask next time.
    pub relay_addresses: Vec<SocketAddrV4>,
}

/// A server; see the module.
pub struct Server {
    id: ServerId,
    identity: Identity,
    options: ServerOptions,
    slots: Vec<Option<Box<Asked>>>,
    by_noise: HashMap<[u8; 32], usize>,
    seen: HashSet<[u8; 32]>,
    seen_order: VecDeque<[u8; 32]>,
    /// Connections whose slots were cleared, by stream.
    open: HashMap<u32, Link>,
    hosts: Limit,
    forwarders: Limit,
    is_closed: bool,
}

/// One client's handshake.
struct Asked {
    noise_hash: [u8; 32],
    /// The answer.
    noise: Vec<u8>,
    /// None if the answer is an error, or all is over.
    link: Option<Link>,
    connection: Option<ConnectionId>,
    host: Ipv4Addr,
    /// As the client said in its handshake.
    addresses: Vec<SocketAddrV4>,
    sealer: Option<Sealer>,
    puncher: Option<Puncher>,
    replies_from_puncher: bool,
    round: u64,
    waiting: VecDeque<Round>,
    prepunch_until: Option<Now>,
    clear_at: Option<Now>,
    error: ConnectError,
}

/// A round that came in.
struct Round {
    request: Incoming,
    message: Holepunch,
    peer: SocketAddrV4,
    payload: punch::Payload,
    is_by_our_relay: bool,
    may_reopen: bool,
}

impl Server {
    /// For a key. It is announced by an announcer.
    pub fn new(id: ServerId, identity: Identity, options: ServerOptions) -> Server {
        Server {
            id,
            identity,
            options,
            slots: Vec::new(),
            by_noise: HashMap::new(),
            seen: HashSet::new(),
            seen_order: VecDeque::new(),
            open: HashMap::new(),
            hosts: Limit::new(PACE_OF_HOST, PACE_OF_ALL),
            forwarders: Limit::new(PACE_OF_FORWARDER, PACE_OF_ALL),
            is_closed: false,
        }
    }

    /// Its key pair.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where nodes look for it: the hash of its key.
    pub fn target(&self) -> [u8; 32] {
        messages::target_of(&self.identity.public_key())
    }

    /// Somebody shakes hands with this server's key, straight or by nodes.
    pub fn handle_handshake(
        &mut self,
        cx: &mut Context<'_>,
        announced: &Announced,
        request: Incoming,
        message: Handshake,
    ) {
        let client = match message.mode {
            Mode::FromClient => request.from,
            Mode::FromRelay => match message.peer_address {
                Some(client) => client,
                None => return,
            },
            Mode::FromSecondRelay => match (message.peer_address, message.relay_address) {
                (Some(client), Some(relay)) if address::is_reachable(relay) => client,
                _ => return,
            },
            Mode::FromServer | Mode::Reply => return,
        };
        if self.is_closed || !address::is_reachable(client) || message.noise.len() > NOISE_BYTES_MAX {
            return;
        }
        let noise_hash = hash::hash(&[&message.noise]);
        let slot = match self.by_noise.get(&noise_hash) {
            Some(slot) => *slot,
            None if self.seen.contains(&noise_hash) => return,
            None => match self.accept(cx, announced, &request, &message, client, noise_hash) {
                Some(slot) => slot,
                None => return,
            },
        };
        let Some(asked) = self.slots.get(slot).and_then(Option::as_ref) else { return };
        let from_puncher = asked.puncher.as_ref().filter(|_| asked.replies_from_puncher);
        router::answer_handshake(cx, &request, &message, asked.noise.clone(), from_puncher.map(Puncher::socket));
    }

    /// A round of hole punching of one of our clients.
    pub fn handle_holepunch(
        &mut self,
        cx: &mut Context<'_>,
        announced: &Announced,
        request: Incoming,
        message: Holepunch,
    ) {
        let (Mode::FromRelay, Some(peer)) = (message.mode, message.peer_address) else { return };
        let Ok(slot) = usize::try_from(message.id) else { return };
        let Some(asked) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        let Some(payload) = asked.sealer.as_ref().and_then(|sealer| sealer.open(&message.payload)) else { return };
        if self.is_closed || !address::is_reachable(peer) || asked.link.as_ref().is_some_and(Link::is_settled) {
            return;
        }
        let is_by_our_relay = announced.relays.iter().any(|info| info.relay == request.from);
        let round = Round { request, message, peer, payload, is_by_our_relay, may_reopen: false };
        if round.payload.error != fault::NONE {
            asked.round = asked.round.max(round.payload.round);
            asked.error = ConnectError::RemoteAborted { code: round.payload.error };
            return self.refuse(cx, slot, &round, fault::ABORTED);
        }
        let Some(puncher) = &asked.puncher else { return self.refuse(cx, slot, &round, fault::ABORTED) };
        if round.request.socket == puncher.socket() {
            let (to, from) = (round.request.to, round.request.from);
            self.with_puncher(cx, slot, |puncher, cx| puncher.observe(cx, to, from));
        }
        self.update_remote(slot, &round);
        self.analyze(cx, slot, round);
    }

    /// A request of ours came to its end.
    pub fn handle_answer(&mut self, _cx: &mut Context<'_>, step: Step, _result: Answered) {
        match step {}
    }

    /// A ping of a puncher's came to its end.
    pub fn handle_punch_answer(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        step: punch::Step,
        result: Answered,
    ) {
        if let Some(slot) = self.slot_of(|asked| asked.connection == Some(connection)) {
            self.with_puncher(cx, slot, |puncher, cx| puncher.handle_sample(cx, step, seen(result)));
        }
    }

    /// A one-byte packet came in. False: not on a socket of ours.
    pub fn handle_punch_packet(&mut self, cx: &mut Context<'_>, socket: SocketId, from: SocketAddrV4) -> bool {
        let Some(holder) = cx.punching.puncher_of(socket) else { return false };
        let slot = self.slot_of(|asked| asked.puncher.as_ref().is_some_and(|puncher| puncher.id() == holder));
        let Some(slot) = slot else { return false };
        if address::is_reachable(from) {
            self.with_puncher(cx, slot, |puncher, cx| puncher.handle_punch_packet(cx, socket, from));
        }
        true
    }

    /// A packet came in for a stream over a socket that it is not connected with. None: the stream is not of this server.
    pub fn handle_stream_packet(
        &mut self,
        cx: &mut Context<'_>,
        stream: u32,
        socket: SocketId,
        from: SocketAddrV4,
    ) -> Option<Verdict> {
        if self.open.contains_key(&stream) {
            return Some(Verdict::Refuse);
        }
        let slot = self.slot_of(|asked| asked.is_with(stream))?;
        let asked = self.slots[slot].as_deref_mut()?;
        if self.is_closed || !address::is_reachable(from) || !asked.is_direct(cx, socket, from) {
            return Some(Verdict::Refuse);
        }
        let via = asked.via_of(cx, socket, from);
        Some(asked.take(cx, socket, from, via))
    }

    /// A stream heard something over its present path.
    pub fn handle_path_confirmed(&mut self, cx: &mut Context<'_>, stream: u32) {
        if let Some(asked) = self.slots.iter_mut().flatten().find(|asked| asked.is_with(stream)) {
            if let Some(link) = &mut asked.link {
                link.path_confirmed(cx);
            }
            asked.clear_later(cx.now);
        }
    }

    /// Whether a connection is, or is to be, one of this server's.
    pub fn has_connection(&self, id: ConnectionId) -> bool {
        self.slots.iter().flatten().any(|asked| asked.connection == Some(id))
            || self.open.values().any(|link| link.id == id)
    }

    /// Both sides are at the relay.
    pub fn relay_paired(&mut self, cx: &mut Context<'_>, id: ConnectionId, path: Path) {
        if let Some(asked) = self.slots.iter_mut().flatten().find(|asked| asked.connection == Some(id)) {
            asked.prepunch_until = asked.prepunch_until.filter(|_| asked.puncher.is_some());
            if let Some(link) = &mut asked.link {
                link.relay_paired(cx, path);
            }
        }
    }

    /// The relay does not help.
    pub fn relay_failed(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        if let Some(asked) = self.slots.iter_mut().flatten().find(|asked| asked.connection == Some(id)) {
            asked.relay_failed(cx);
        }
    }

    /// Nobody wants the connection any more.
    pub fn abort(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        let stream = self.link_mut(|link| link.id == id).map(|link| link.stream);
        if let Some(stream) = stream {
            self.stream_closed(cx, stream);
        }
    }

    /// A stream is gone.
    pub fn stream_closed(&mut self, cx: &mut Context<'_>, stream: u32) {
        if let Some(mut link) = self.open.remove(&stream) {
            link.close(cx);
        }
        if let Some(asked) = self.slots.iter_mut().flatten().find(|asked| asked.is_with(stream)) {
            asked.end(cx);
        }
    }

    /// Forget all handshakes, as a node that is suspended does. What is open stays open.
    pub fn suspend(&mut self, cx: &mut Context<'_>) {
        for slot in 0..self.slots.len() {
            self.clear(cx, slot);
        }
        self.trim();
    }

    /// No handshake is answered any more. What is open stays open.
    pub fn close(&mut self, cx: &mut Context<'_>) {
        self.is_closed = true;
        self.suspend(cx);
    }

    /// Whether it is closed and none of its connections is left.
    pub fn is_done(&self) -> bool {
        self.is_closed && self.open.is_empty()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Now> {
        self.slots.iter().flatten().filter_map(|asked| asked.poll_timeout()).min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        for slot in 0..self.slots.len() {
            let Some(asked) = self.slots[slot].as_deref_mut() else { continue };
            if asked.poll_timeout().is_none_or(|at| at > cx.now) {
                continue;
            }
            if asked.clear_at.is_some_and(|at| at <= cx.now) {
                self.clear(cx, slot);
                continue;
            }
            if asked.link.as_mut().is_some_and(|link| link.handle_timeout(cx)) {
                asked.relay_failed(cx);
            }
            if asked.prepunch_until.is_some_and(|until| until <= cx.now) {
                asked.give_up(cx, ConnectError::ClientGone);
            }
            if asked.puncher.as_ref().and_then(Puncher::poll_timeout).is_some_and(|at| at <= cx.now) {
                self.with_puncher(cx, slot, |puncher, cx| puncher.handle_timeout(cx));
            }
            if let Some(asked) = self.slots[slot].as_deref_mut() {
                asked.clear_later(cx.now);
            }
        }
        self.trim();
    }

    // Handshakes.

    /// A new handshake: None if it is not to be answered.
    fn accept(
        &mut self,
        cx: &mut Context<'_>,
        announced: &Announced,
        request: &Incoming,
        message: &Handshake,
        client: SocketAddrV4,
        noise_hash: [u8; 32],
    ) -> Option<usize> {
        let is_direct = message.mode == Mode::FromClient;
        if !self.is_within_limits(cx.now, request, client, is_direct) {
            return None;
        }
        let (response, theirs) = Response::new(&self.identity, &message.noise, cx.random.bytes()).ok()?;
        let remote_key = response.remote_key();
        if !(cx.firewall)(&remote_key) {
            cx.note(Some(remote_key), "refused: the firewall does not let this key in");
            return None;
        }
        let slot = self.free_slot()?;
        let remote_id = theirs.udx.map(|udx| udx.id);
        let error = match (theirs.version, remote_id) {
            (VERSION, Some(_)) => fault::NONE,
            (VERSION, None) => fault::ABORTED,
            _ => fault::VERSION_MISMATCH,
        };
        let stream = if error == fault::NONE { Some(cx.stream_ids.pop_front()?) } else { None };
        let is_random = matches!(cx.rpc.public_address(), Some((_, None)));
        let own_relay = self.options.relay_through.filter(|_| is_random || !self.options.is_relay_for_random_only);
        let own_relay = own_relay.map(|relay| RelayThrough { relay, token: cx.random.bytes() });
        let ours = self.answer(cx, announced, slot, error, stream.unwrap_or(0), own_relay);
        let is_open_here = ours.firewall == Firewall::Open;
        let Ok((noise, secrets)) = response.send(&ours) else {
            if let Some(stream) = stream {
                cx.event(DhtEvent::UnusedStream(stream));
            }
            return None;
        };
        let mut asked = Asked::new(noise_hash, noise, *client.ip(), theirs.addresses.clone());
        self.remember(noise_hash, slot);
        if let (Some(stream), Some(remote_id)) = (stream, remote_id) {
            let id = cx.new_connection();
            asked.connection = Some(id);
            asked.link = Some(Link::new(id, stream, remote_id, secrets.session, Some(self.id)));
            if is_direct || theirs.firewall == Firewall::Open {
                let socket = if is_direct { request.socket } else { cx.rpc.socket() };
                asked.take(cx, socket, client, Via::Direct);
            } else {
                self.start_relay(cx, &mut asked, own_relay, theirs.relay_through);
                asked.prepunch_until = Some(cx.now + PREPUNCH_WAIT);
                let is_near = client.ip() == request.to.ip() && self.shares_network(cx, &theirs.addresses);
                if is_near || (self.options.is_punching_allowed && !is_open_here) {
                    asked.replies_from_puncher = !is_near;
                    self.prepare_puncher(cx, &mut asked, theirs.firewall, secrets.holepunch);
                }
            }
        }
        asked.clear_later(cx.now);
        self.slots[slot] = Some(Box::new(asked));
        Some(slot)
    }

    fn is_within_limits(&mut self, now: Now, request: &Incoming, client: SocketAddrV4, is_direct: bool) -> bool {
        // Many hosts of a test network may be this one.
        let host = *client.ip();
        if host.is_loopback() {
            return self.forwarders.take_of_all(now);
        }
        let half_open = self.slots.iter().flatten().filter(|asked| asked.host == host && asked.is_half_open()).count();
        half_open < HALF_OPEN_PER_HOST_MAX
            && self.hosts.take(now, host)
            && (is_direct || self.forwarders.take(now, *request.from.ip()))
    }

    fn free_slot(&mut self) -> Option<usize> {
        let free = self.slots.iter().position(Option::is_none);
        if free.is_none() && self.slots.len() < SLOTS_MAX {
            self.slots.push(None);
            return Some(self.slots.len() - 1);
        }
        free
    }

    /// What we answer in the handshake.
    fn answer(
        &self,
        cx: &Context<'_>,
        announced: &Announced,
        slot: usize,
        error: u64,
        stream: u32,
        relay_through: Option<RelayThrough>,
    ) -> Payload {
        let public = cx.rpc.remote_address();
        let local = if self.options.is_lan_allowed { cx.local_addresses } else { &[] };
        let holepunch = HolepunchInfo { id: slot as u64, relays: announced.relays.clone() };
        let relays = announced.relay_addresses.clone();
        Payload {
            holepunch: public.is_none().then_some(holepunch),
            addresses: public.into_iter().chain(local.iter().copied()).collect(),
            udx: Some(Udx { version: 1, is_socket_reusable: false, id: stream, seq: 0 }),
            secret_stream: Some(1),
            relay_through,
            relay_addresses: Some(relays).filter(|relays| !relays.is_empty()),
            ..Payload::new(error, if public.is_some() { Firewall::Open } else { Firewall::Unknown })
        }
    }

    fn remember(&mut self, noise_hash: [u8; 32], slot: usize) {
        self.by_noise.insert(noise_hash, slot);
        self.seen.insert(noise_hash);
        self.seen_order.push_back(noise_hash);
        if self.seen_order.len() > SEEN_MAX
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }

    fn start_relay(
        &self,
        cx: &mut Context<'_>,
        asked: &mut Asked,
        ours: Option<RelayThrough>,
        theirs: Option<RelayThrough>,
    ) {
        let pending =
            self.slots.iter().flatten().filter(|asked| asked.link.as_ref().is_some_and(Link::is_relay_pending)).count();
        let Some(link) = &mut asked.link else { return };
        if pending >= RELAYS_PENDING_MAX {
            return;
        }
        if let Some((through, is_initiator)) = ours.map(|ours| (ours, true)).or(theirs.map(|theirs| (theirs, false))) {
            link.start_relay(cx, through, is_initiator);
        }
    }

    /// Whether one of a client's private addresses may be on a network of ours: then it will ping us there.
    fn shares_network(&self, cx: &Context<'_>, addresses: &[SocketAddrV4]) -> bool {
        let private: Vec<_> = addresses.iter().copied().filter(|address| address::is_private(*address.ip())).collect();
        self.options.is_lan_allowed && address::nearest(cx.local_addresses, &private).is_some()
    }

    fn prepare_puncher(&self, cx: &mut Context<'_>, asked: &mut Asked, firewall: Firewall, secret: [u8; 32]) {
        let Some(id) = asked.connection else { return };
        let punching = || self.slots.iter().flatten().filter(|asked| asked.puncher.is_some());
        let same_host = punching().filter(|other| other.host == asked.host && !other.host.is_loopback()).count();
        asked.sealer = Some(Sealer::new(secret, cx.random.fork()));
        if punching().count() < PUNCHERS_MAX && same_host < PUNCHERS_PER_HOST_MAX {
            let (puncher, _) = drive(cx, sample_tag(self.id, id), |cx| Puncher::new(cx, false, firewall));
            asked.puncher = puncher;
        }
        if asked.puncher.is_none() {
            asked.error = ConnectError::Busy;
        }
    }

    // Rounds.

    /// Keep what the client tells of itself. Its token proves where it is if it went there from a node of ours.
    fn update_remote(&mut self, slot: usize, round: &Round) {
        let Some(asked) = self.slots[slot].as_deref_mut() else { return };
        let (Some(sealer), Some(puncher)) = (&asked.sealer, &mut asked.puncher) else { return };
        let host = *round.peer.ip();
        if round.payload.round < asked.round {
            return;
        }
        asked.round = round.payload.round;
        let is_proven = round.is_by_our_relay && round.payload.remote_token == Some(sealer.token(host));
        puncher.update_remote(&RemoteState {
            is_punching: round.payload.is_punching,
            firewall: round.payload.firewall,
            addresses: round.payload.addresses.clone().unwrap_or_default(),
            verified: is_proven.then_some(host),
        });
    }

    /// Answer a round once the verdict on our NAT is here.
    fn analyze(&mut self, cx: &mut Context<'_>, slot: usize, mut round: Round) {
        let may_reopen = round.may_reopen;
        let id = self.id;
        let Some(asked) = self.slots[slot].as_deref_mut() else { return };
        let (Some(puncher), Some(connection)) = (&mut asked.puncher, asked.connection) else { return };
        let (stable, _) = drive(cx, sample_tag(id, connection), |cx| puncher.analyze(cx, may_reopen));
        let is_remote_punching = puncher.is_remote_punching();
        match stable {
            None => {
                if asked.waiting.len() < WAITING_MAX {
                    asked.waiting.push_back(round);
                }
            }
            Some(false) if !is_remote_punching && !may_reopen => {
                round.may_reopen = true;
                self.analyze(cx, slot, round);
            }
            Some(false) if !is_remote_punching => {
                asked.error = ConnectError::NatUnknown;
                self.refuse(cx, slot, &round, fault::ABORTED);
            }
            Some(_) => self.answer_round(cx, slot, &round),
        }
    }

    fn answer_round(&mut self, cx: &mut Context<'_>, slot: usize, round: &Round) {
        let Some(asked) = self.slots[slot].as_deref_mut() else { return };
        let Some(puncher) = &asked.puncher else { return };
        let nat = puncher.nat();
        // The client has opened its NAT for what comes from the address that we turn out to have: one packet may be enough.
        let is_expected = round
            .payload
            .remote_address
            .is_some_and(|address| nat.addresses().is_some_and(|ours| ours.contains(&address)));
        if nat.firewall().is_predictable() && is_expected {
            let peer = round.peer;
            self.with_puncher(cx, slot, |puncher, cx| puncher.ping(cx, peer));
        }
        let Some(asked) = self.slots[slot].as_deref_mut() else { return };
        let Some(puncher) = &asked.puncher else { return };
        let mut error = fault::NONE;
        if puncher.is_remote_punching() {
            asked.prepunch_until = None;
            let is_random =
                puncher.remote_firewall() == Firewall::Random || puncher.nat().firewall() == Firewall::Random;
            if is_random && !puncher.is_punching() && !cx.punching.is_random_punch_allowed(cx.now) {
                asked.error = ConnectError::TryLater;
                if !asked.link.as_ref().is_some_and(Link::has_relay) {
                    return self.refuse(cx, slot, round, fault::TRY_LATER);
                }
                error = fault::TRY_LATER;
            } else if self.with_puncher(cx, slot, |puncher, cx| puncher.punch(cx)) != Some(true) {
                if let Some(asked) = self.slots[slot].as_deref_mut() {
                    asked.error = ConnectError::RemoteNotPunchable;
                }
                return self.refuse(cx, slot, round, fault::ABORTED);
            }
        }
        self.reply_round(cx, slot, round, error);
    }

    fn reply_round(&mut self, cx: &mut Context<'_>, slot: usize, round: &Round, error: u64) {
        let Some(asked) = self.slots[slot].as_deref_mut() else { return };
        let (Some(sealer), Some(puncher)) = (&mut asked.sealer, &mut asked.puncher) else { return };
        if error == fault::NONE && puncher.nat().firewall() != Firewall::Unknown {
            puncher.freeze();
        }
        let nat = puncher.nat();
        let payload = punch::Payload {
            error,
            firewall: nat.firewall(),
            round: asked.round,
            is_connected: puncher.is_connected(),
            is_punching: puncher.is_punching(),
            addresses: nat.addresses().map(<[_]>::to_vec),
            remote_address: None,
            token: round.is_by_our_relay.then(|| sealer.token(*round.peer.ip())),
            remote_token: round.payload.token,
        };
        let sealed = sealer.seal(&payload);
        router::answer_holepunch(cx, &round.request, &round.message, sealed, Some(puncher.socket()));
    }

    /// Answer a round with an error, and give up punching for this client.
    fn refuse(&mut self, cx: &mut Context<'_>, slot: usize, round: &Round, error: u64) {
        let Some(asked) = self.slots[slot].as_deref_mut() else { return };
        if let Some(sealer) = &mut asked.sealer {
            let sealed = sealer.seal(&punch::Payload { error, round: asked.round, ..punch::Payload::default() });
            let socket = cx.rpc.socket();
            router::answer_holepunch(cx, &round.request, &round.message, sealed, Some(socket));
        }
        let why = asked.error;
        asked.give_up(cx, why);
        asked.clear_later(cx.now);
    }

    /// Calls a slot's puncher, and does what it says.
    fn with_puncher<R>(
        &mut self,
        cx: &mut Context<'_>,
        slot: usize,
        call: impl FnOnce(&mut Puncher, &mut punch::Context<'_>) -> R,
    ) -> Option<R> {
        let id = self.id;
        let asked = self.slots[slot].as_deref_mut()?;
        let connection = asked.connection?;
        let puncher = asked.puncher.as_mut()?;
        let (result, heard) = drive(cx, sample_tag(id, connection), |cx| call(puncher, cx));
        if heard.is_aborted {
            asked.give_up(cx, ConnectError::HolepunchTimeout);
            asked.clear_later(cx.now);
        } else if heard.is_analyzed {
            for round in std::mem::take(&mut asked.waiting) {
                self.analyze(cx, slot, round);
            }
        }
        Some(result)
    }

    // Slots.

    fn slot_of(&self, is_it: impl Fn(&Asked) -> bool) -> Option<usize> {
        self.slots.iter().position(|asked| asked.as_deref().is_some_and(&is_it))
    }

    fn link_mut(&mut self, is_it: impl Fn(&Link) -> bool) -> Option<&mut Link> {
        let asked = self.slots.iter_mut().flatten().filter_map(|asked| asked.link.as_mut());
        asked.chain(self.open.values_mut()).find(|link| is_it(link))
    }

    fn clear(&mut self, cx: &mut Context<'_>, slot: usize) {
        let Some(mut asked) = self.slots[slot].take() else { return };
        self.by_noise.remove(&asked.noise_hash);
        if asked.link.as_ref().is_some_and(Link::is_open) {
            asked.stop_punching(cx);
            self.open.extend(asked.link.map(|link| (link.stream, link)));
        } else {
            asked.fail(cx, ConnectError::Aborted);
        }
    }

    fn trim(&mut self) {
        while self.slots.last().is_some_and(Option::is_none) {
            self.slots.pop();
        }
    }
}

impl Asked {
    fn new(noise_hash: [u8; 32], noise: Vec<u8>, host: Ipv4Addr, addresses: Vec<SocketAddrV4>) -> Asked {
        Asked {
            noise_hash,
            noise,
            link: None,
            connection: None,
            host,
            addresses,
            sealer: None,
            puncher: None,
            replies_from_puncher: false,
            round: 0,
            waiting: VecDeque::new(),
            prepunch_until: None,
            clear_at: None,
            error: ConnectError::ClientGone,
        }
    }

    fn is_with(&self, stream: u32) -> bool {
        self.link.as_ref().is_some_and(|link| link.stream == stream)
    }

    fn is_half_open(&self) -> bool {
        self.link.as_ref().is_some_and(|link| !link.is_open())
    }

    /// Whether a packet from there may have come straight from the client, as for a client.
    fn is_direct(&self, cx: &Context<'_>, socket: SocketId, from: SocketAddrV4) -> bool {
        let Some(link) = &self.link else { return false };
        let is_punched = self.via_of(cx, socket, from) == Via::Punched;
        !link.is_relay_path(socket, from) && (!link.has_relay() || is_punched || self.addresses.contains(&from))
    }

    fn via_of(&self, cx: &Context<'_>, socket: SocketId, from: SocketAddrV4) -> Via {
        let holder = cx.punching.puncher_of(socket);
        match &self.puncher {
            Some(puncher) if holder == Some(puncher.id()) => Via::Punched,
            _ if self.addresses.contains(&from) && address::is_private(*from.ip()) => Via::Lan,
            _ => Via::Direct,
        }
    }

    /// The client is there: connect the stream, or move it.
    fn take(&mut self, cx: &mut Context<'_>, socket: SocketId, from: SocketAddrV4, via: Via) -> Verdict {
        let Some(link) = &mut self.link else { return Verdict::Refuse };
        let verdict = link.take(cx, socket, from, via);
        if verdict != Verdict::Refuse {
            self.stop_punching(cx);
            self.clear_later(cx.now);
        }
        verdict
    }

    fn relay_failed(&mut self, cx: &mut Context<'_>) {
        let Some(link) = &mut self.link else { return };
        link.give_up_relay(cx);
        if self.puncher.is_none() && self.prepunch_until.is_none() && !link.is_open() {
            self.fail(cx, ConnectError::RelayFailed);
        }
        self.clear_later(cx.now);
    }

    /// Punching is over; a relay may still do.
    fn give_up(&mut self, cx: &mut Context<'_>, error: ConnectError) {
        self.stop_punching(cx);
        if !self.link.as_ref().is_some_and(|link| link.is_open() || link.is_relay_pending()) {
            self.fail(cx, error);
        }
    }

    fn fail(&mut self, cx: &mut Context<'_>, error: ConnectError) {
        self.stop_punching(cx);
        if let Some(mut link) = self.link.take() {
            link.close(cx);
            if !link.is_open() {
                cx.event(DhtEvent::Failed { connection: link.id, stream: link.stream, error });
            }
        }
        self.clear_later(cx.now);
    }

    /// The stream is gone.
    fn end(&mut self, cx: &mut Context<'_>) {
        self.stop_punching(cx);
        if let Some(mut link) = self.link.take() {
            link.close(cx);
        }
        self.clear_later(cx.now);
    }

    fn stop_punching(&mut self, cx: &mut Context<'_>) {
        self.prepunch_until = None;
        self.waiting.clear();
        if let Some(puncher) = self.puncher.take() {
            destroy(cx, puncher);
        }
    }

    /// Once nothing can change any more, the slot is kept for copies of the handshake only.
    fn clear_later(&mut self, now: Now) {
        let is_over = self.link.as_ref().is_none_or(|link| link.is_settled() && !link.has_relay());
        if is_over && self.clear_at.is_none() {
            self.clear_at = Some(now + CLEAR_WAIT);
        }
    }

    fn poll_timeout(&self) -> Option<Now> {
        let link = self.link.as_ref().and_then(Link::poll_timeout);
        let puncher = self.puncher.as_ref().and_then(Puncher::poll_timeout);
        [self.prepunch_until, self.clear_at, link, puncher].into_iter().flatten().min()
    }
}

fn sample_tag(server: ServerId, connection: ConnectionId) -> impl Fn(punch::Step) -> Tag {
    move |step| Tag::Puncher(PuncherId::Server(server, connection), step)
}
