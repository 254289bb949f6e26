//! One of our connects: find nodes that know the peer, shake hands through them, and take the shortest way that works.
//!
//! ```text
//!   searching ── an answer that fits ──> chosen ──┬── direct, open ──────────────────────────────> open
//!      |                                          ├── we are open: wait 10 s for a packet ───────> open
//!      |                                          ├── same public host: ping in our network ─────> open
//!      |                                          ├── rounds, then punches ──────────────────────> open
//!      |                                          └── a relay ───────────────────────────────────> open, may move later
//!      +── nothing left ──> failed                      all of them failed ──> failed
//!
//! rounds    probe     a low-TTL packet to where the server seems to be; a message by one of its own nodes: what we know of our NAT
//!           probe     again, if it or we did not know enough, or on a fresh socket if ours is unstable; its answer carries a token
//!           punch     by our node, to prove with that token where we are: now both begin
//!           later     a random punch runs elsewhere: while a relay carries the connection, ask again in 10 to 20 s
//! ```
//!
//! What must stay true: an answer counts only if it decrypts under the handshake's keys; answers that do not are as if none came; each wait ends by itself;
//! what is called after the end does nothing.
//!
//! Source: hyperdht `lib/connect.js`.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::link::Link;
use super::payload::{Initiation, Misfit, Payload, RelayInfo, RelayThrough, Secrets, Udx, fault};
use super::search::{Next, Search};
use super::{Answered, ConnectError, ConnectOptions, Verdict, address, destroy, drive, seen};
use crate::dht::messages::{self, Handshake, Holepunch, Mode, PeerRecord, command};
use crate::dht::punch::{self, Firewall, Puncher, RemoteState, Sealer};
use crate::dht::rpc::{Outgoing, Query, QueryId, Reply, RequestId};
use crate::dht::{Asker, ConnectionId, Context, DhtEvent, Effect, Path, PuncherId, Tag, Via};
use crate::udp::{Now, SocketId};

/// How long an open client waits for the server's first packet.
const PASSIVE_WAIT: Duration = Duration::from_secs(10);
/// How long a server that does not know its NAT is given to find out, or to get through by luck.
const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// Probes in one attempt, also with fresh sockets.
const PROBES_MAX: u32 = 5;
/// Before a relayed connection asks again whether it may punch.
const LATER_MIN_MS: u64 = 10_000;
const LATER_SPREAD_MS: u64 = 10_000;
/// Until some answer must have fitted.
const SEARCH_WAIT: Duration = Duration::from_secs(90);
const SEARCH_RETRIES: u8 = 3;

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A handshake through this node.
    Handshake(SocketAddrV4),
    /// A ping of the server in our network.
    Lan(SocketAddrV4),
    /// A round of hole punching; its number.
    Round(u64),
    /// The message that we give up.
    Farewell,
}

/// A connect, from its beginning until its stream is closed.
pub struct Client {
    id: ConnectionId,
    remote_key: [u8; 32],
    stream: u32,
    is_lan_allowed: bool,
    /// Ours: a relay, and a token of ours.
    relay_through: Option<RelayThrough>,
    phase: Phase,
    /// The first thing that went wrong, should all go wrong.
    error: Option<ConnectError>,
}

enum Phase {
    Searching(Box<Searching>),
    Chosen(Box<Chosen>),
    /// Failed, closed or aborted.
    Over,
}

struct Searching {
    search: Search,
    query: Option<QueryId>,
    requests: Vec<(RequestId, SocketAddrV4)>,
    initiation: Initiation,
    /// The message, once it was needed.
    noise: Option<Vec<u8>>,
    claims_open: bool,
    is_anyone_there: bool,
    has_misfits: bool,
    /// A packet for the stream came from there before any answer.
    early: Option<(SocketId, SocketAddrV4)>,
    until: Now,
}

/// What an answer that fits says.
struct Chosen {
    link: Link,
    /// The server's.
    payload: Payload,
    /// The node that the answer came through.
    node: SocketAddrV4,
    /// Where that node sees the server.
    server_address: SocketAddrV4,
    tried: Vec<SocketAddrV4>,
    passive_until: Option<Now>,
    lan: Option<(RequestId, SocketAddrV4)>,
    punch: Option<Box<Punch>>,
}

struct Punch {
    puncher: Puncher,
    sealer: Sealer,
    /// The server's number for the connection.
    remote_id: u64,
    /// One of the server's nodes, and the server as seen there.
    relay: RelayInfo,
    /// Where the server seems to be.
    server_address: SocketAddrV4,
    /// The server's, to be shown in the next round.
    token: Option<[u8; 32]>,
    round: u64,
    probes: u32,
    is_delayed: bool,
    /// A random punch of ours is agreed upon; to be given back.
    is_reserved: bool,
    request: Option<RequestId>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A probe is under way.
    Probe {
        may_retry: bool,
    },
    /// Its answer is here; the server did not know its NAT.
    Pause {
        may_retry: bool,
        until: Now,
        peer_address: SocketAddrV4,
    },
    /// Waiting for the verdict on our NAT.
    Analyze {
        may_retry: bool,
        may_reopen: bool,
        peer_address: SocketAddrV4,
    },
    /// The message that we shall punch later is under way.
    Later,
    Sleep {
        until: Now,
    },
    /// The message that we punch now is under way.
    Commit,
    Punching,
}

/// What to do after an answer of the server's.
enum Heard {
    Reply { peer_address: SocketAddrV4, payload: punch::Payload },
    TryLater,
}

/// Whose node we sent a round by, and where that node was to send it on.
#[derive(Clone, Copy)]
struct Way {
    node: SocketAddrV4,
    peer: SocketAddrV4,
}

impl Client {
    /// Begins to search. `stream`: an id that no path is known for yet.
    pub fn new(
        cx: &mut Context<'_>,
        id: ConnectionId,
        remote_key: [u8; 32],
        options: ConnectOptions,
        stream: u32,
    ) -> Client {
        let relay_through = options.relay_through.map(|relay| RelayThrough { relay, token: cx.random.bytes() });
        let searching = Searching {
            search: Search::new(options.relay_addresses),
            query: None,
            requests: Vec::new(),
            initiation: Initiation::new(&options.identity, remote_key, cx.random.bytes()),
            noise: None,
            claims_open: false,
            is_anyone_there: false,
            has_misfits: false,
            early: None,
            until: cx.now + SEARCH_WAIT,
        };
        let mut client = Client {
            id,
            remote_key,
            stream,
            is_lan_allowed: options.is_lan_allowed,
            relay_through,
            phase: Phase::Searching(Box::new(searching)),
            error: None,
        };
        client.search_on(cx);
        client
    }

    /// Its stream.
    pub fn stream(&self) -> u32 {
        self.stream
    }

    /// Who is asked for.
    pub fn remote_key(&self) -> [u8; 32] {
        self.remote_key
    }

    /// Whether it can be dropped: it failed, or its stream is closed.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// A request of ours came to its end.
    pub fn handle_answer(&mut self, cx: &mut Context<'_>, step: Step, result: Answered) {
        match step {
            Step::Handshake(node) => self.handle_handshake(cx, node, result),
            Step::Lan(address) => self.handle_lan(cx, address, result),
            Step::Round(round) => self.handle_round(cx, round, result),
            Step::Farewell => {}
        }
    }

    /// A node answered the walk.
    pub fn handle_query_reply(&mut self, cx: &mut Context<'_>, query: QueryId, reply: &Reply) {
        let remote_key = self.remote_key;
        let Phase::Searching(searching) = &mut self.phase else { return };
        if searching.query != Some(query) {
            return;
        }
        searching.is_anyone_there = true;
        let record = reply.value.as_deref().and_then(|value| PeerRecord::decode(value).ok());
        // Its own key is the one thing in a record of a peer that tells nothing new; one with another key is none.
        if record.is_some_and(|record| record.public_key == remote_key) {
            searching.search.found(reply.from);
            self.search_on(cx);
        }
    }

    /// The walk is over.
    pub fn handle_query_end(&mut self, cx: &mut Context<'_>, query: QueryId, closest: Vec<Reply>) {
        let Phase::Searching(searching) = &mut self.phase else { return };
        if searching.query.take_if(|running| *running == query).is_none() {
            return;
        }
        searching.is_anyone_there |= !closest.is_empty();
        searching.search.walked();
        self.search_on(cx);
    }

    /// A ping of our puncher's came to its end.
    pub fn handle_punch_answer(&mut self, cx: &mut Context<'_>, step: punch::Step, result: Answered) {
        self.with_puncher(cx, |puncher, cx| puncher.handle_sample(cx, step, seen(result)));
    }

    /// A one-byte packet came in. False: not on a socket of ours.
    pub fn handle_punch_packet(&mut self, cx: &mut Context<'_>, socket: SocketId, from: SocketAddrV4) -> bool {
        let holder = cx.punching.puncher_of(socket);
        if holder.is_none() || self.punch().map(|punch| punch.puncher.id()) != holder {
            return false;
        }
        if address::is_reachable(from) {
            self.with_puncher(cx, |puncher, cx| puncher.handle_punch_packet(cx, socket, from));
        }
        true
    }

    /// A packet of our stream came in over a socket that it is not connected with.
    pub fn handle_stream_packet(&mut self, cx: &mut Context<'_>, socket: SocketId, from: SocketAddrV4) -> Verdict {
        if !address::is_reachable(from) {
            return Verdict::Refuse;
        }
        match &mut self.phase {
            // The server may be faster than its answer; where from is of use once the answer is here.
            Phase::Searching(searching) => {
                searching.early = Some((socket, from));
                Verdict::Refuse
            }
            Phase::Chosen(chosen) if chosen.is_direct(cx, socket, from) => {
                let via = chosen.via_of(cx, socket);
                self.open(cx, socket, from, via)
            }
            _ => Verdict::Refuse,
        }
    }

    /// The stream heard something over its present path.
    pub fn handle_path_confirmed(&mut self, cx: &mut Context<'_>) {
        if let Phase::Chosen(chosen) = &mut self.phase {
            chosen.link.path_confirmed(cx);
        }
    }

    /// Both sides are at the relay.
    pub fn relay_paired(&mut self, cx: &mut Context<'_>, path: Path) {
        if let Phase::Chosen(chosen) = &mut self.phase {
            chosen.link.relay_paired(cx, path);
        }
    }

    /// The relay does not help.
    pub fn relay_failed(&mut self, cx: &mut Context<'_>) {
        if let Phase::Chosen(chosen) = &mut self.phase {
            chosen.link.give_up_relay(cx);
            self.error.get_or_insert(ConnectError::RelayFailed);
            self.settle(cx);
        }
    }

    /// The stream is gone.
    pub fn stream_closed(&mut self, cx: &mut Context<'_>) {
        self.end(cx);
    }

    /// Nobody wants the connection any more. Nothing is said of it after this, save that a relay is not needed.
    pub fn abort(&mut self, cx: &mut Context<'_>) {
        self.end(cx);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Now> {
        match &self.phase {
            Phase::Searching(searching) => Some(searching.until),
            Phase::Chosen(chosen) => {
                let punch = chosen.punch.as_ref();
                let stage = punch.and_then(|punch| match punch.stage {
                    Stage::Pause { until, .. } | Stage::Sleep { until } => Some(until),
                    _ => None,
                });
                let puncher = punch.and_then(|punch| punch.puncher.poll_timeout());
                [chosen.link.poll_timeout(), chosen.passive_until, stage, puncher].into_iter().flatten().min()
            }
            Phase::Over => None,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        match &mut self.phase {
            Phase::Searching(searching) if searching.until <= now => {
                return self.fail(cx, ConnectError::Timeout { seconds: SEARCH_WAIT.as_secs() });
            }
            Phase::Chosen(chosen) => {
                if chosen.passive_until.is_some_and(|until| until <= now) {
                    return self.fail(cx, ConnectError::NoPacket);
                }
                if chosen.link.handle_timeout(cx) {
                    self.error.get_or_insert(ConnectError::RelayFailed);
                    self.settle(cx);
                }
            }
            _ => return,
        }
        match self.punch().map(|punch| punch.stage) {
            Some(Stage::Pause { may_retry, until, peer_address }) if until <= now => {
                self.analyze(cx, Stage::Analyze { may_retry, may_reopen: false, peer_address });
            }
            Some(Stage::Sleep { until }) if until <= now => self.commit(cx),
            _ => {}
        }
        if self.punch().and_then(|punch| punch.puncher.poll_timeout()).is_some_and(|at| at <= now) {
            self.with_puncher(cx, |puncher, cx| puncher.handle_timeout(cx));
        }
    }

    // Searching.

    fn search_on(&mut self, cx: &mut Context<'_>) {
        loop {
            let Phase::Searching(searching) = &mut self.phase else { return };
            match searching.search.next() {
                Next::Try(node) => {
                    if let Err(error) = self.try_node(cx, node) {
                        return self.fail(cx, error);
                    }
                }
                Next::Walk(nodes) => {
                    let target = messages::target_of(&self.remote_key);
                    let query = Query {
                        target,
                        command: command::FIND_PEER,
                        nodes,
                        retries: Some(SEARCH_RETRIES),
                        ..Query::default()
                    };
                    searching.query = Some(cx.query(Asker::Client(self.id), query));
                }
                Next::Wait => return,
                Next::Exhausted => {
                    let attempts = searching.search.tried().len();
                    let error = match () {
                        () if searching.has_misfits => ConnectError::HandshakeInvalid,
                        () if attempts > 0 => ConnectError::NoAnswer { attempts },
                        () if searching.is_anyone_there => ConnectError::PeerNotFound,
                        () => ConnectError::NoNodeReachable,
                    };
                    return self.fail(cx, error);
                }
            }
        }
    }

    fn try_node(&mut self, cx: &mut Context<'_>, node: SocketAddrV4) -> Result<(), ConnectError> {
        let Phase::Searching(searching) = &mut self.phase else { return Ok(()) };
        if searching.noise.is_none() {
            let public = cx.rpc.remote_address();
            searching.claims_open = public.is_some();
            let local = if self.is_lan_allowed { cx.local_addresses } else { &[] };
            let payload = Payload {
                addresses: public.into_iter().chain(local.iter().copied()).collect(),
                udx: Some(Udx { version: 1, is_socket_reusable: false, id: self.stream, seq: 0 }),
                secret_stream: Some(1),
                relay_through: self.relay_through,
                ..Payload::new(fault::NONE, if searching.claims_open { Firewall::Open } else { Firewall::Unknown })
            };
            searching.noise = Some(searching.initiation.send(&payload).map_err(|_| ConnectError::KeyInvalid)?);
        }
        let noise = searching.noise.clone().unwrap_or_default();
        let value = Handshake { mode: Mode::FromClient, noise, peer_address: None, relay_address: None }.encode();
        let target = Some(messages::target_of(&self.remote_key));
        let outgoing = Outgoing { target, value: Some(value), ..Outgoing::new(node, command::PEER_HANDSHAKE) };
        let request = cx.request(outgoing, Tag::Client(self.id, Step::Handshake(node)));
        searching.requests.push((request, node));
        Ok(())
    }

    fn handle_handshake(&mut self, cx: &mut Context<'_>, node: SocketAddrV4, result: Answered) {
        let Phase::Searching(searching) = &mut self.phase else { return };
        searching.requests.retain(|(_, asked)| *asked != node);
        let reply = result.ok();
        searching.is_anyone_there |= reply.is_some();
        let fitting = reply.and_then(|reply| {
            let handshake = reply.value.as_deref().and_then(|value| Handshake::decode(value).ok())?;
            if handshake.mode != Mode::Reply || handshake.noise.is_empty() {
                return None;
            }
            match searching.initiation.receive(&handshake.noise) {
                Ok((payload, secrets)) => Some((reply, handshake.peer_address, payload, secrets)),
                Err(Misfit::Noise(_) | Misfit::Payload(_)) => {
                    searching.has_misfits = true;
                    None
                }
            }
        });
        match fitting {
            Some((reply, peer_address, payload, secrets)) => {
                self.choose(cx, node, &reply, peer_address, payload, secrets)
            }
            None => {
                searching.search.failed(node);
                self.search_on(cx);
            }
        }
    }

    // Chosen.

    fn choose(
        &mut self,
        cx: &mut Context<'_>,
        node: SocketAddrV4,
        reply: &Reply,
        peer_address: Option<SocketAddrV4>,
        payload: Payload,
        secrets: Secrets,
    ) {
        let remote_id = match (&payload.udx, payload.version, payload.error) {
            (_, version, _) if version != super::payload::VERSION => {
                return self.fail(cx, ConnectError::Incompatible { version });
            }
            (_, _, code) if code != fault::NONE => return self.fail(cx, ConnectError::Refused { code }),
            (None, ..) => return self.fail(cx, ConnectError::NoStream),
            (Some(udx), ..) => udx.id,
        };
        let Phase::Searching(searching) = std::mem::replace(&mut self.phase, Phase::Over) else { return };
        let tried = searching.search.tried().to_vec();
        let (claims_open, early) = (searching.claims_open, searching.early);
        stop_searching(cx, *searching);
        let Secrets { session, holepunch } = secrets;
        let server_address = peer_address.unwrap_or(node);
        let chosen = Chosen {
            link: Link::new(self.id, self.stream, remote_id, session, None),
            payload,
            node,
            server_address,
            tried,
            passive_until: None,
            lan: None,
            punch: None,
        };
        self.phase = Phase::Chosen(Box::new(chosen));
        if let Some((socket, from)) = early {
            self.open(cx, socket, from, Via::Direct);
        } else if peer_address.is_none() {
            self.open(cx, reply.socket, node, Via::Direct);
        } else {
            self.take_a_way(cx, (reply.socket, reply.to), claims_open, holepunch);
        }
    }

    /// The server is elsewhere than the node that forwarded to it.
    fn take_a_way(
        &mut self,
        cx: &mut Context<'_>,
        (asked_by, client_address): (SocketId, SocketAddrV4),
        claims_open: bool,
        punch_secret: [u8; 32],
    ) {
        let (is_lan_allowed, ours) = (self.is_lan_allowed, self.relay_through);
        let Phase::Chosen(chosen) = &mut self.phase else { return };
        let mut holepunch = chosen.payload.holepunch.take();
        if let Some(holepunch) = &mut holepunch {
            holepunch.relays.retain(|info| address::is_reachable(info.relay) && address::is_reachable(info.server));
        }
        let holepunch = holepunch.filter(|holepunch| !holepunch.relays.is_empty());
        let relay = chosen.payload.relay_through.map(|theirs| (theirs, false)).or(ours.map(|ours| (ours, true)));
        if chosen.payload.firewall == Firewall::Open || (holepunch.is_none() && relay.is_none()) {
            let public = chosen
                .payload
                .addresses
                .iter()
                .find(|address| !address::is_bogon(*address.ip()) && address::is_reachable(**address));
            let to = public.copied().unwrap_or(chosen.server_address);
            if !address::is_reachable(to) {
                return self.fail(cx, ConnectError::CannotHolepunch);
            }
            // Not the node's socket of now, which is another one since it was found to be open: where the question came from is where the server sends to.
            self.open(cx, asked_by, to, Via::Direct);
            return;
        }
        if claims_open {
            chosen.passive_until = Some(cx.now + PASSIVE_WAIT);
            return;
        }
        if let Some((through, is_initiator)) = relay {
            chosen.link.start_relay(cx, through, is_initiator);
        }
        if is_lan_allowed && client_address.ip() == chosen.server_address.ip() {
            chosen.ping_in_lan(cx, self.id);
        }
        match holepunch {
            Some(holepunch) => self.start_punching(cx, holepunch.id, &holepunch.relays, punch_secret),
            None => {
                self.error.get_or_insert(ConnectError::CannotHolepunch);
                self.settle(cx);
            }
        }
    }

    fn handle_lan(&mut self, cx: &mut Context<'_>, address: SocketAddrV4, result: Answered) {
        let Phase::Chosen(chosen) = &mut self.phase else { return };
        if chosen.lan.take_if(|(_, asked)| *asked == address).is_none() {
            return;
        }
        match result {
            Ok(_) => {
                self.open(cx, SocketId::SERVER, address, Via::Lan);
            }
            Err(_) => self.settle(cx),
        }
    }

    /// A direct way: connect the stream, or move it there.
    fn open(&mut self, cx: &mut Context<'_>, socket: SocketId, from: SocketAddrV4, via: Via) -> Verdict {
        let Phase::Chosen(chosen) = &mut self.phase else { return Verdict::Refuse };
        let verdict = chosen.link.take(cx, socket, from, via);
        if verdict != Verdict::Refuse {
            let told = chosen.payload.relay_addresses.take().filter(|relays| !relays.is_empty());
            let relays = told.unwrap_or_else(|| std::mem::take(&mut chosen.tried));
            if !relays.is_empty() {
                cx.effects.push(Effect::RememberRelays { key: self.remote_key, relays });
            }
            chosen.passive_until = None;
            chosen.stop(cx);
        }
        verdict
    }

    /// Some way has failed: fail if it was the last.
    fn settle(&mut self, cx: &mut Context<'_>) {
        let Phase::Chosen(chosen) = &self.phase else { return };
        let is_hopeful =
            chosen.link.is_open() || chosen.link.is_relay_pending() || chosen.lan.is_some() || chosen.punch.is_some();
        if !is_hopeful && chosen.passive_until.is_none() {
            let error = self.error.unwrap_or(ConnectError::CannotHolepunch);
            self.fail(cx, error);
        }
    }

    fn fail(&mut self, cx: &mut Context<'_>, error: ConnectError) {
        if !self.is_done() {
            self.end(cx);
            cx.event(DhtEvent::Failed { connection: self.id, stream: self.stream, error });
        }
    }

    fn end(&mut self, cx: &mut Context<'_>) {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Searching(searching) => stop_searching(cx, *searching),
            Phase::Chosen(mut chosen) => {
                chosen.stop(cx);
                chosen.link.close(cx);
            }
            Phase::Over => {}
        }
    }

    // Hole punching.

    fn punch(&self) -> Option<&Punch> {
        match &self.phase {
            Phase::Chosen(chosen) => chosen.punch.as_deref(),
            _ => None,
        }
    }

    fn punch_mut(&mut self) -> Option<&mut Punch> {
        match &mut self.phase {
            Phase::Chosen(chosen) => chosen.punch.as_deref_mut(),
            _ => None,
        }
    }

    /// Calls the puncher, and does what it says.
    fn with_puncher<R>(
        &mut self,
        cx: &mut Context<'_>,
        call: impl FnOnce(&mut Puncher, &mut punch::Context<'_>) -> R,
    ) -> Option<R> {
        let id = self.id;
        let punch = self.punch_mut()?;
        let (result, heard) = drive(cx, sample_tag(id), |cx| call(&mut punch.puncher, cx));
        if let Some((socket, from)) = heard.connected {
            self.open(cx, socket, from, Via::Punched);
        } else if heard.is_aborted {
            self.stop_punching(cx, ConnectError::HolepunchTimeout);
        } else if heard.is_analyzed
            && let Some(stage @ Stage::Analyze { .. }) = self.punch().map(|punch| punch.stage)
        {
            self.analyze(cx, stage);
        }
        Some(result)
    }

    fn start_punching(&mut self, cx: &mut Context<'_>, remote_id: u64, relays: &[RelayInfo], punch_secret: [u8; 32]) {
        let id = self.id;
        let Phase::Chosen(chosen) = &mut self.phase else { return };
        let Some(relay) = relays.iter().find(|info| info.relay == chosen.node).or(relays.first()).copied() else {
            return;
        };
        let firewall = chosen.payload.firewall;
        let (puncher, _) = drive(cx, sample_tag(id), |cx| Puncher::new(cx, true, firewall));
        let Some(puncher) = puncher else {
            self.error.get_or_insert(ConnectError::Busy);
            return self.settle(cx);
        };
        chosen.punch = Some(Box::new(Punch {
            puncher,
            sealer: Sealer::new(punch_secret, cx.random.fork()),
            remote_id,
            relay,
            server_address: chosen.server_address,
            token: None,
            round: 0,
            probes: 0,
            is_delayed: false,
            is_reserved: false,
            request: None,
            stage: Stage::Probe { may_retry: true },
        }));
        self.probe(cx, true);
    }

    /// Tell the server by one of its own nodes what we know, with our NAT open for an answer straight from it.
    fn probe(&mut self, cx: &mut Context<'_>, may_retry: bool) {
        let Some(punch) = self.punch_mut() else { return };
        punch.probes += 1;
        punch.stage = Stage::Probe { may_retry };
        let (server, way) = (punch.server_address, Way { node: punch.relay.relay, peer: punch.relay.server });
        self.with_puncher(cx, |puncher, cx| puncher.open_session(cx, server));
        self.send_round(cx, way, |payload| payload.remote_address = Some(server));
    }

    /// The verdict on our NAT is here, or is waited for.
    fn analyze(&mut self, cx: &mut Context<'_>, stage: Stage) {
        let Stage::Analyze { may_retry, may_reopen, peer_address } = stage else { return };
        if let Some(punch) = self.punch_mut() {
            punch.stage = stage;
        }
        // While a verdict is asked for, "analyzed" would call back in here.
        let id = self.id;
        let Some(punch) = self.punch_mut() else { return };
        let (stable, _) = drive(cx, sample_tag(id), |cx| punch.puncher.analyze(cx, may_reopen));
        let probes = punch.probes;
        match stable {
            None => {}
            Some(false) if !may_reopen => {
                self.analyze(cx, Stage::Analyze { may_retry, may_reopen: true, peer_address })
            }
            Some(true) if may_reopen && probes < PROBES_MAX => self.probe(cx, false),
            Some(_) => self.probed(cx, may_retry, peer_address),
        }
    }

    /// A probe told what it could.
    fn probed(&mut self, cx: &mut Context<'_>, may_retry: bool, peer_address: SocketAddrV4) {
        let Phase::Chosen(chosen) = &mut self.phase else { return };
        let Some(punch) = chosen.punch.as_deref_mut() else { return };
        let (ours, theirs) = (punch.puncher.nat().firewall(), punch.puncher.remote_firewall());
        if may_retry && (theirs == Firewall::Unknown || punch.token.is_none()) {
            return self.probe(cx, false);
        }
        if ours == Firewall::Unknown || theirs == Firewall::Unknown {
            return self.say_goodbye(cx, ConnectError::NatUnknown);
        }
        if ours == Firewall::Random && theirs == Firewall::Random {
            return self.say_goodbye(cx, ConnectError::DoubleRandomNat);
        }
        // The node of the server's that we used is ours as well: then what it sees of the server now is where the server punches from.
        if punch.relay.relay == chosen.node
            && punch.server_address != peer_address
            && address::is_reachable(peer_address)
        {
            punch.server_address = peer_address;
            self.with_puncher(cx, |puncher, cx| puncher.open_session(cx, peer_address));
        }
        self.commit(cx);
    }

    /// Both sides know enough: say that we punch now, unless another random punch forbids it.
    fn commit(&mut self, cx: &mut Context<'_>) {
        let Phase::Chosen(chosen) = &mut self.phase else { return };
        let has_relay = chosen.link.has_relay();
        let node = chosen.node;
        let Some(punch) = chosen.punch.as_deref_mut() else { return };
        punch.puncher.freeze();
        let by_ours = Way { node, peer: punch.server_address };
        let by_theirs = Way { node: punch.relay.relay, peer: punch.relay.server };
        let host = *punch.server_address.ip();
        let (our_token, their_token) = (punch.sealer.token(host), punch.token);
        let is_random =
            punch.puncher.remote_firewall() == Firewall::Random || punch.puncher.nat().firewall() == Firewall::Random;
        if is_random && !cx.punching.is_random_punch_allowed(cx.now) {
            if !has_relay {
                return self.stop_punching(cx, ConnectError::TryLater);
            }
            if std::mem::replace(&mut punch.is_delayed, true) {
                return self.sleep(cx);
            }
            punch.stage = Stage::Later;
            return self.send_round(cx, by_ours, |payload| {
                payload.token = Some(our_token);
                payload.remote_token = their_token;
            });
        }
        if is_random {
            punch.is_reserved = true;
            cx.punching.reserve_random_punch();
        }
        punch.stage = Stage::Commit;
        let is_delayed = punch.is_delayed;
        self.send_round(cx, if is_delayed { by_theirs } else { by_ours }, |payload| {
            payload.is_punching = true;
            payload.token = (!is_delayed).then_some(our_token);
            payload.remote_token = their_token;
        });
    }

    fn sleep(&mut self, cx: &mut Context<'_>) {
        let until = cx.now + Duration::from_millis(LATER_MIN_MS + cx.random.below(LATER_SPREAD_MS));
        if let Some(punch) = self.punch_mut() {
            punch.stage = Stage::Sleep { until };
        }
    }

    fn send_round(&mut self, cx: &mut Context<'_>, way: Way, fill: impl FnOnce(&mut punch::Payload)) {
        let (id, target) = (self.id, messages::target_of(&self.remote_key));
        let Some(punch) = self.punch_mut() else { return };
        let round = punch.round;
        punch.round += 1;
        let nat = punch.puncher.nat();
        let (firewall, addresses) = (nat.firewall(), nat.addresses().map(<[_]>::to_vec));
        let mut payload = punch::Payload { firewall, round, addresses, ..punch::Payload::default() };
        fill(&mut payload);
        let value = punch.message(&payload, way);
        let outgoing = Outgoing {
            socket: Some(punch.puncher.socket()),
            target: Some(target),
            value: Some(value),
            ..Outgoing::new(way.node, command::PEER_HOLEPUNCH)
        };
        punch.request = Some(cx.request(outgoing, Tag::Client(id, Step::Round(round))));
    }

    fn handle_round(&mut self, cx: &mut Context<'_>, round: u64, result: Answered) {
        let Phase::Chosen(chosen) = &mut self.phase else { return };
        let (has_relay, node) = (chosen.link.has_relay(), chosen.node);
        let Some(punch) =
            chosen.punch.as_deref_mut().filter(|punch| punch.round == round + 1 && punch.request.is_some())
        else {
            return;
        };
        punch.request = None;
        punch.unreserve(cx);
        let heard = match result {
            Ok(reply) => {
                let (to, from) = (reply.to, reply.from);
                let heard = punch.read(&reply, node, has_relay);
                // Our socket was seen by one more node, unless it was exchanged meanwhile.
                if reply.socket == punch.puncher.socket() {
                    self.with_puncher(cx, |puncher, cx| puncher.observe(cx, to, from));
                }
                heard
            }
            Err(_) => Err(ConnectError::RoundTimeout),
        };
        let Some(stage) = self.punch().map(|punch| punch.stage) else { return };
        match (heard, stage) {
            (Err(error), _) => self.stop_punching(cx, error),
            (Ok(Heard::Reply { peer_address, payload }), Stage::Probe { may_retry }) => {
                self.probe_answered(cx, may_retry, peer_address, &payload)
            }
            (Ok(Heard::Reply { .. }), Stage::Commit) => self.punch_now(cx),
            (Ok(_), Stage::Later) => self.sleep(cx),
            (Ok(Heard::TryLater), Stage::Commit) => {
                if let Some(punch) = self.punch_mut() {
                    punch.is_delayed = true;
                }
                self.sleep(cx);
            }
            _ => {}
        }
    }

    fn probe_answered(
        &mut self,
        cx: &mut Context<'_>,
        may_retry: bool,
        peer_address: SocketAddrV4,
        payload: &punch::Payload,
    ) {
        let now = cx.now;
        let Some(punch) = self.punch_mut() else { return };
        punch.token = payload.token;
        if punch.puncher.remote_firewall() == Firewall::Unknown {
            punch.stage = Stage::Pause { may_retry, until: now + PROBE_PAUSE, peer_address };
        } else {
            self.analyze(cx, Stage::Analyze { may_retry, may_reopen: false, peer_address });
        }
    }

    fn punch_now(&mut self, cx: &mut Context<'_>) {
        let Some(punch) = self.punch_mut() else { return };
        if !punch.puncher.is_remote_punching() {
            return self.stop_punching(cx, ConnectError::RemoteNotPunching);
        }
        punch.stage = Stage::Punching;
        if self.with_puncher(cx, |puncher, cx| puncher.punch(cx)) == Some(false) {
            self.stop_punching(cx, ConnectError::RemoteNotPunchable);
        }
    }

    /// Tell the server that it need not wait, and stop.
    fn say_goodbye(&mut self, cx: &mut Context<'_>, error: ConnectError) {
        let (id, target) = (self.id, messages::target_of(&self.remote_key));
        if let Some(punch) = self.punch_mut() {
            let payload = punch::Payload { error: fault::ABORTED, round: punch.round, ..punch::Payload::default() };
            let way = Way { node: punch.relay.relay, peer: punch.relay.server };
            let value = punch.message(&payload, way);
            let outgoing = Outgoing {
                target: Some(target),
                value: Some(value),
                ..Outgoing::new(way.node, command::PEER_HOLEPUNCH)
            };
            cx.request(outgoing, Tag::Client(id, Step::Farewell));
        }
        self.stop_punching(cx, error);
    }

    fn stop_punching(&mut self, cx: &mut Context<'_>, error: ConnectError) {
        let Phase::Chosen(chosen) = &mut self.phase else { return };
        chosen.stop_punching(cx);
        if chosen.link.is_open() {
            cx.note(Some(self.remote_key), format!("the connection stays relayed: {error}"));
        }
        self.error.get_or_insert(error);
        self.settle(cx);
    }
}

fn sample_tag(id: ConnectionId) -> impl Fn(punch::Step) -> Tag {
    move |step| Tag::Puncher(PuncherId::Client(id), step)
}

fn stop_searching(cx: &mut Context<'_>, searching: Searching) {
    if let Some(query) = searching.query {
        cx.cancel_query(query);
    }
    for (request, _) in searching.requests {
        cx.rpc.cancel(request);
    }
}

impl Chosen {
    fn ping_in_lan(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        let is_usable =
            |address: &SocketAddrV4| !address::is_reserved(*address.ip()) && address::is_reachable(*address);
        // Behind a carrier's NAT the server may live at our own private address, in another home: there we would meet ourselves.
        let is_ours = |address: &SocketAddrV4| cx.local_addresses.contains(address);
        let theirs: Vec<_> =
            self.payload.addresses.iter().copied().filter(is_usable).filter(|address| !is_ours(address)).collect();
        let Some(to) = address::nearest(cx.local_addresses, &theirs).or(theirs.first().copied()) else { return };
        let outgoing = Outgoing { socket: Some(SocketId::SERVER), ..Outgoing::ping(to) };
        self.lan = Some((cx.request(outgoing, Tag::Client(id, Step::Lan(to))), to));
    }

    /// Whether a packet from there may have come straight from the server. A path to a relay needs another stream id than the server's, so while one is wanted
    /// only places are believed where a relay is not.
    fn is_direct(&self, cx: &Context<'_>, socket: SocketId, from: SocketAddrV4) -> bool {
        let is_ours = self.via_of(cx, socket) == Via::Punched;
        let is_told = from == self.server_address || self.payload.addresses.contains(&from);
        !self.link.is_relay_path(socket, from) && (!self.link.has_relay() || is_ours || is_told)
    }

    fn via_of(&self, cx: &Context<'_>, socket: SocketId) -> Via {
        let holder = cx.punching.puncher_of(socket);
        match &self.punch {
            Some(punch) if holder == Some(punch.puncher.id()) => Via::Punched,
            _ => Via::Direct,
        }
    }

    /// No way is looked for any more.
    fn stop(&mut self, cx: &mut Context<'_>) {
        if let Some((request, _)) = self.lan.take() {
            cx.rpc.cancel(request);
        }
        self.stop_punching(cx);
    }

    fn stop_punching(&mut self, cx: &mut Context<'_>) {
        if let Some(mut punch) = self.punch.take() {
            punch.unreserve(cx);
            if let Some(request) = punch.request {
                cx.rpc.cancel(request);
            }
            destroy(cx, punch.puncher);
        }
    }
}

impl Punch {
    fn message(&mut self, payload: &punch::Payload, way: Way) -> Vec<u8> {
        let payload = self.sealer.seal(payload);
        Holepunch { mode: Mode::FromClient, id: self.remote_id, payload, peer_address: Some(way.peer) }.encode()
    }

    /// What the server says in a reply, and keep what it tells of itself.
    fn read(&mut self, reply: &Reply, our_node: SocketAddrV4, has_relay: bool) -> Result<Heard, ConnectError> {
        let holepunch = reply.value.as_deref().and_then(|value| Holepunch::decode(value).ok());
        let holepunch =
            holepunch.filter(|holepunch| holepunch.mode == Mode::Reply).ok_or(ConnectError::RoundInvalid)?;
        let payload = self.sealer.open(&holepunch.payload).ok_or(ConnectError::RoundInvalid)?;
        if payload.error == fault::TRY_LATER && has_relay && self.stage == Stage::Commit {
            return Ok(Heard::TryLater);
        }
        if payload.error != fault::NONE {
            return Err(ConnectError::RemoteAborted { code: payload.error });
        }
        // Our token went to the server by our node, which saw it there; that it comes back shows that the server is at that host.
        let host = *self.server_address.ip();
        let is_proven = reply.from == our_node && payload.remote_token == Some(self.sealer.token(host));
        self.puncher.update_remote(&RemoteState {
            is_punching: payload.is_punching,
            firewall: payload.firewall,
            addresses: payload.addresses.clone().unwrap_or_default(),
            verified: is_proven.then_some(host),
        });
        Ok(Heard::Reply { peer_address: holepunch.peer_address.unwrap_or(reply.from), payload })
    }

    fn unreserve(&mut self, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.is_reserved) {
            cx.punching.unreserve_random_punch();
        }
    }
}
