//! Blind relays, both ends: our streams to relays that others run, and the sessions of those who use us as one. [`Relaying`].
//!
//! ```text
//! as a client   connection needs a relay --> Wish::Connect --> pair(token, our stream's id)
//!                                                              <-- pair(the id to send to) --> Wish::Paired(a path over the relay)
//! as a relay    two sessions ask for one token --> two streams of ours that relay to each other; each side is told the id of its own, and the first packet that
//!               comes for it tells where that side is
//!
//! a channel     UDX stream -- SecretStream -- protomux channel `blind-relay`, its id the client's key
//! kind 0, pair  flags (1: the side that named the relay), token 32, stream id uint, first packet's number uint
//! kind 1, unpair  flags 0, token 32
//! ```
//!
//! What must stay true: a relay sees no byte that the two peers did not encrypt for each other; one stream to each relay, which ends a while after it was last
//! needed; what a client of ours can make us hold is bounded; pairs end with either of their sessions.
//!
//! Source: blind-relay index.js, hyperdht lib/connect.js.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

use pgbee_engine::encoding::compact::{self, Decoder};

use super::peers::Key;
use crate::dht::{ConnectionId, Note, Opened};
use crate::protomux::{ChannelId, Event, Limits, Mux as Channels, MuxError};
use crate::secret_stream::{Identity, Role, SecretStream, StreamError};
use crate::udp::{Now, Random, SocketId};
use crate::udx::{Mux, Path, StreamEvent};

/// The protocol's name.
const PROTOCOL: &str = "blind-relay";
/// How long a stream to a relay stays when no connection needs it.
const IDLE: Duration = Duration::from_secs(30);
/// A sign of life, for the NATs between.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Relays that we are connected to at a time.
const LINKS_MAX: usize = 16;
/// Connections that need one relay at a time.
const WANTED_MAX: usize = 256;
/// Streams of those who use us as a relay.
const SESSIONS_MAX: usize = 512;
/// Pairs of one of them, whole or half.
const PAIRS_A_SESSION_MAX: usize = 64;
/// How long half a pair waits for its other half.
const HALF_PAIR_AGE: Duration = Duration::from_secs(60);
/// The longest message on a channel.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Bytes that a slow reader may leave with us.
const UNSENT_MAX: usize = 256 << 10;

type Token = [u8; 32];

/// What is to be done.
pub enum Wish {
    /// Connect to a relay, then say [`Relaying::opened`] or [`Relaying::failed`].
    Connect(Key),
    /// A connection has a path through its relay.
    Paired(ConnectionId, Path),
    /// It will not get one.
    Failed(ConnectionId),
    /// For a person.
    Note(Note),
}

/// A channel over a stream.
struct Channel {
    secret: SecretStream,
    mux: Channels,
    channel: Option<ChannelId>,
}

/// Why a channel ended.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Mux(#[from] MuxError),
    #[error("it reads nothing")]
    Full,
}

impl Channel {
    fn new(opened: &Opened, header: [u8; 24]) -> Channel {
        let role = if opened.is_initiator { Role::Initiator } else { Role::Responder };
        let mut secret = SecretStream::established(role, &opened.session, header);
        secret.set_message_bytes_max(64 << 10);
        let limits = Limits {
            channels_max: 8,
            pending_opens_max: 8,
            open_bytes_max: MESSAGE_BYTES_MAX,
            message_bytes_max: MESSAGE_BYTES_MAX,
        };
        Channel { secret, mux: Channels::new(limits), channel: None }
    }

    fn send(&mut self, kind: u64, body: &[u8]) {
        if let Some(channel) = self.channel {
            // Of our own making: it fits, and a closed channel ends the session anyway.
            let _ = self.mux.send(channel, kind, body);
        }
    }

    /// Reads all there is.
    fn receive(&mut self, stream: &mut crate::udx::Stream) -> Result<Vec<Event>, Broken> {
        let mut events = Vec::new();
        while let Some(bytes) = stream.read(64 << 10) {
            self.secret.handle_bytes(&bytes)?;
            while let Some(message) = self.secret.poll_message() {
                if !message.is_empty() {
                    self.mux.handle_frame(message)?;
                }
            }
            while let Some(event) = self.mux.poll_event()? {
                events.push(event);
            }
        }
        Ok(events)
    }

    /// Writes what fits.
    fn flush(&mut self, stream: &mut crate::udx::Stream) -> Result<(), Broken> {
        while let Some(frame) = self.mux.poll_frame() {
            self.secret.send(&frame)?;
        }
        while !self.secret.output().is_empty() {
            let written = stream.write(self.secret.output());
            if written == 0 {
                break;
            }
            self.secret.consume_output(written);
        }
        if self.secret.output().len() > UNSENT_MAX { Err(Broken::Full) } else { Ok(()) }
    }
}

/// Our stream to a relay.
#[derive(Default)]
struct Link {
    /// None while it is on its way.
    open: Option<(u32, Channel)>,
    wanted: BTreeMap<ConnectionId, Wanted>,
    idle_since: Option<Now>,
    keep_alive_at: Now,
}

struct Wanted {
    /// Our stream for the connection.
    stream: u32,
    token: Token,
    is_initiator: bool,
}

/// A stream of someone who uses us as a relay.
struct Session {
    channel: Channel,
    pairs: Vec<Token>,
    keep_alive_at: Now,
}

/// One side of a pair.
#[derive(Clone, Copy)]
struct Half {
    session: u32,
    /// The side's own number for its stream.
    remote_id: u32,
    /// Our stream to it; None until both halves are there.
    leg: Option<u32>,
}

struct PairState {
    since: Now,
    /// By whether it is the initiator.
    halves: [Option<Half>; 2],
}

/// A stream of ours that relays.
struct Leg {
    token: Token,
    remote_id: u32,
}

/// Both ends of blind relays. See the module.
pub struct Relaying {
    random: Random,
    own_key: Key,
    links: BTreeMap<Key, Link>,
    sessions: HashMap<u32, Session>,
    pairs: BTreeMap<Token, PairState>,
    legs: HashMap<u32, Leg>,
    closed_legs: Vec<u32>,
    wishes: VecDeque<Wish>,
}

impl Relaying {
    /// Of the peer with this identity, with no relay yet.
    pub fn new(random: Random, identity: &Identity) -> Relaying {
        Relaying {
            random,
            own_key: identity.public_key(),
            links: BTreeMap::new(),
            sessions: HashMap::new(),
            pairs: BTreeMap::new(),
            legs: HashMap::new(),
            closed_legs: Vec::new(),
            wishes: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    /// Relays that we are connected to, and pairs that we relay for.
    pub fn counts(&self) -> (usize, usize) {
        (self.links.values().filter(|link| link.open.is_some()).count(), self.legs.len() / 2)
    }

    /// A connection needs a relay for its stream.
    pub fn need(
        &mut self,
        connection: ConnectionId,
        stream: u32,
        relay: Key,
        token: Token,
        is_initiator: bool,
        mux: &mut Mux,
    ) {
        let is_new = !self.links.contains_key(&relay);
        let is_refused = is_new && self.links.len() >= LINKS_MAX || relay == self.own_key;
        if is_refused || self.links.get(&relay).is_some_and(|link| link.wanted.len() >= WANTED_MAX) {
            self.wishes.push_back(Wish::Failed(connection));
            return;
        }
        let link = self.links.entry(relay).or_default();
        link.idle_since = None;
        link.wanted.insert(connection, Wanted { stream, token, is_initiator });
        if is_new {
            self.wishes.push_back(Wish::Connect(relay));
        } else if let Some((_, channel)) = &mut link.open {
            channel.send(PAIR, &Pair { is_initiator, token, id: stream }.encode());
        }
        self.flush_link(&relay, mux);
    }

    /// It does not need it any longer.
    pub fn unneeded(&mut self, now: Now, connection: ConnectionId, mux: &mut Mux) {
        let Some((relay, link)) = self.links.iter_mut().find(|(_, link)| link.wanted.contains_key(&connection)) else {
            return;
        };
        let relay = *relay;
        if let (Some(wanted), Some((_, channel))) = (link.wanted.remove(&connection), &mut link.open) {
            channel.send(UNPAIR, &encode_unpair(&wanted.token));
        }
        if link.wanted.is_empty() {
            link.idle_since = Some(now);
        }
        self.flush_link(&relay, mux);
    }

    /// Our stream to a relay is open.
    pub fn opened(&mut self, now: Now, opened: &Opened, mux: &mut Mux) {
        let mut channel = Channel::new(opened, self.random.bytes());
        let Some(link) = self.links.get_mut(&opened.remote_key) else {
            destroy(mux, opened.stream);
            return;
        };
        channel.channel = channel.mux.open(PROTOCOL, &[], &self.own_key, Vec::new()).ok();
        for wanted in link.wanted.values() {
            channel.send(
                PAIR,
                &Pair { is_initiator: wanted.is_initiator, token: wanted.token, id: wanted.stream }.encode(),
            );
        }
        link.keep_alive_at = now + KEEP_ALIVE;
        link.open = Some((opened.stream, channel));
        self.flush_link(&opened.remote_key, mux);
    }

    /// A relay was not reached.
    pub fn failed(&mut self, relay: &Key) {
        if let Some(link) = self.links.remove(relay) {
            self.wishes.extend(link.wanted.into_keys().map(Wish::Failed));
        }
    }

    /// Someone wants to use us as a relay.
    pub fn accepted(&mut self, now: Now, opened: &Opened, mux: &mut Mux) {
        if self.sessions.len() >= SESSIONS_MAX {
            destroy(mux, opened.stream);
            return;
        }
        let mut channel = Channel::new(opened, self.random.bytes());
        channel.channel = channel.mux.open(PROTOCOL, &[], &opened.remote_key, Vec::new()).ok();
        self.sessions.insert(opened.stream, Session { channel, pairs: Vec::new(), keep_alive_at: now + KEEP_ALIVE });
        self.flush_session(opened.stream, mux);
    }

    /// Whether a stream of ours relays, and where its packets go from now on that one came from `from`.
    pub fn leg_path(&self, id: u32, socket: SocketId, from: SocketAddrV4) -> Option<Path> {
        let leg = self.legs.get(&id)?;
        Some(Path { socket, remote: from, remote_id: leg.remote_id })
    }

    /// Something happened to a stream that relays. True if it is one.
    pub fn leg_event(&mut self, id: u32, event: StreamEvent, mux: &mut Mux) -> bool {
        let Some(leg) = self.legs.get(&id) else { return false };
        if let StreamEvent::Closed(_) = event {
            let token = leg.token;
            self.end_pair(&token, mux);
        }
        true
    }

    /// Something happened to a stream to a relay, or to one of who uses us as one.
    pub fn stream_event(&mut self, now: Now, id: u32, event: StreamEvent, mux: &mut Mux) {
        let relay = self
            .links
            .iter()
            .find(|(_, link)| link.open.as_ref().is_some_and(|(stream, _)| *stream == id))
            .map(|(key, _)| *key);
        let result = match relay {
            Some(relay) => self.read_link(&relay, mux),
            None => self.read_session(now, id, mux),
        };
        if let Err(error) = result {
            let text = format!("a relay's stream ended: {error}");
            self.wishes.push_back(Wish::Note(Note { peer: relay, text }));
            destroy(mux, id);
            return;
        }
        if event == StreamEvent::RemoteEnded
            && let Some(stream) = mux.stream(id)
        {
            stream.end();
        }
        match relay {
            Some(relay) => self.flush_link(&relay, mux),
            None => self.flush_session(id, mux),
        }
    }

    /// Such a stream is over.
    pub fn stream_closed(&mut self, id: u32, mux: &mut Mux) {
        let relay = self
            .links
            .iter()
            .find(|(_, link)| link.open.as_ref().is_some_and(|(stream, _)| *stream == id))
            .map(|(key, _)| *key);
        if let Some(relay) = relay {
            self.failed(&relay);
        }
        if let Some(session) = self.sessions.remove(&id) {
            for token in session.pairs {
                self.end_pair(&token, mux);
            }
        }
    }

    /// Ends everything.
    pub fn close_all(&mut self, mux: &mut Mux) {
        for link in self.links.values() {
            if let Some((stream, _)) = &link.open {
                destroy(mux, *stream);
            }
        }
        for id in self.sessions.keys() {
            destroy(mux, *id);
        }
    }

    /// When [`Relaying::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Now> {
        let links = self.links.values().filter(|link| link.open.is_some());
        let links =
            links.flat_map(|link| [Some(link.keep_alive_at), link.idle_since.map(|since| since + IDLE)]).flatten();
        let sessions = self.sessions.values().map(|session| session.keep_alive_at);
        let halves = self
            .pairs
            .values()
            .filter(|pair| pair.halves.iter().any(Option::is_none))
            .map(|pair| pair.since + HALF_PAIR_AGE);
        links.chain(sessions).chain(halves).min()
    }

    /// Time came.
    pub fn handle_timeout(&mut self, now: Now, mux: &mut Mux) {
        for key in self.links.keys().copied().collect::<Vec<_>>() {
            let Some(link) = self.links.get_mut(&key) else { continue };
            let Some((stream, channel)) = &mut link.open else { continue };
            if link.idle_since.is_some_and(|since| now >= since + IDLE) {
                link.idle_since = None;
                link.keep_alive_at = now + IDLE;
                destroy(mux, *stream);
            } else if now >= link.keep_alive_at {
                link.keep_alive_at = now + KEEP_ALIVE;
                let _ = channel.secret.keep_alive();
                self.flush_link(&key, mux);
            }
        }
        for id in self
            .sessions
            .iter()
            .filter(|(_, session)| now >= session.keep_alive_at)
            .map(|(id, _)| *id)
            .collect::<Vec<_>>()
        {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.keep_alive_at = now + KEEP_ALIVE;
                let _ = session.channel.secret.keep_alive();
            }
            self.flush_session(id, mux);
        }
        let is_late = |pair: &PairState| pair.halves.iter().any(Option::is_none) && now >= pair.since + HALF_PAIR_AGE;
        for token in self.pairs.iter().filter(|(_, pair)| is_late(pair)).map(|(token, _)| *token).collect::<Vec<_>>() {
            self.end_pair(&token, mux);
        }
    }

    fn read_link(&mut self, relay: &Key, mux: &mut Mux) -> Result<(), Broken> {
        let Some(link) = self.links.get_mut(relay) else { return Ok(()) };
        let Some((id, channel)) = &mut link.open else { return Ok(()) };
        let Some(stream) = mux.stream(*id) else { return Ok(()) };
        let Some(path) = stream.path() else { return Ok(()) };
        for event in channel.receive(stream)? {
            match event {
                Event::Message { kind: PAIR, body, .. } => {
                    let Some(pair) = Pair::decode(&body) else { continue };
                    let of_pair =
                        |wanted: &Wanted| wanted.token == pair.token && wanted.is_initiator == pair.is_initiator;
                    if let Some((connection, _)) = link.wanted.iter().find(|(_, wanted)| of_pair(wanted)) {
                        let path = Path { remote_id: pair.id, ..path };
                        self.wishes.push_back(Wish::Paired(*connection, path));
                    }
                }
                Event::OpenRequested { protocol, id } => channel.mux.reject(&protocol, &id),
                Event::Closed { .. } => stream.destroy(),
                Event::Message { .. } | Event::Opened { .. } => {}
            }
        }
        Ok(())
    }

    fn read_session(&mut self, now: Now, id: u32, mux: &mut Mux) -> Result<(), Broken> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let Some(stream) = mux.stream(id) else { return Ok(()) };
        for event in session.channel.receive(stream)? {
            match event {
                Event::Message { kind: PAIR, body, .. } => {
                    if let Some(pair) = Pair::decode(&body) {
                        self.pair(now, id, pair, mux);
                    }
                }
                Event::Message { kind: UNPAIR, body, .. } => {
                    if let Some(token) = decode_unpair(&body)
                        && self.sessions.get(&id).is_some_and(|session| session.pairs.contains(&token))
                    {
                        self.end_pair(&token, mux);
                    }
                }
                Event::OpenRequested { protocol, id: channel } => {
                    if let Some(session) = self.sessions.get_mut(&id) {
                        session.channel.mux.reject(&protocol, &channel);
                    }
                }
                Event::Closed { .. } => destroy(mux, id),
                Event::Message { .. } | Event::Opened { .. } => {}
            }
        }
        Ok(())
    }

    /// A session asks for a pair.
    fn pair(&mut self, now: Now, id: u32, asked: Pair, mux: &mut Mux) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let pair = self.pairs.get(&asked.token);
        let is_taken = pair.is_some_and(|pair| pair.halves[usize::from(asked.is_initiator)].is_some());
        if is_taken || session.pairs.len() >= PAIRS_A_SESSION_MAX {
            return;
        }
        session.pairs.push(asked.token);
        let pair = self.pairs.entry(asked.token).or_insert(PairState { since: now, halves: [None, None] });
        pair.halves[usize::from(asked.is_initiator)] = Some(Half { session: id, remote_id: asked.id, leg: None });
        let [Some(one), Some(other)] = &mut pair.halves else { return };
        let (one_leg, other_leg) = (mux.open(), mux.open());
        (one.leg, other.leg) = (Some(one_leg), Some(other_leg));
        mux.relay(one_leg, other_leg);
        let halves = [(false, *one, one_leg), (true, *other, other_leg)];
        for (is_initiator, half, leg) in halves {
            self.legs.insert(leg, Leg { token: asked.token, remote_id: half.remote_id });
            if let Some(session) = self.sessions.get_mut(&half.session) {
                session.channel.send(PAIR, &Pair { is_initiator, token: asked.token, id: leg }.encode());
            }
            self.flush_session(half.session, mux);
        }
    }

    fn end_pair(&mut self, token: &Token, mux: &mut Mux) {
        let Some(pair) = self.pairs.remove(token) else { return };
        for half in pair.halves.into_iter().flatten() {
            if let Some(session) = self.sessions.get_mut(&half.session) {
                session.pairs.retain(|other| other != token);
            }
            if let Some(leg) = half.leg {
                self.legs.remove(&leg);
                destroy(mux, leg);
                self.closed_legs.push(leg);
            }
        }
    }

    /// Streams that relayed and do not any more: to be removed once what they had to say has left.
    pub fn take_closed_leg(&mut self, id: u32) -> bool {
        let before = self.closed_legs.len();
        self.closed_legs.retain(|leg| *leg != id);
        self.closed_legs.len() < before
    }

    fn flush_link(&mut self, relay: &Key, mux: &mut Mux) {
        if let Some((id, channel)) = self.links.get_mut(relay).and_then(|link| link.open.as_mut())
            && let Some(stream) = mux.stream(*id)
            && channel.flush(stream).is_err()
        {
            stream.destroy();
        }
    }

    fn flush_session(&mut self, id: u32, mux: &mut Mux) {
        if let Some(session) = self.sessions.get_mut(&id)
            && let Some(stream) = mux.stream(id)
            && session.channel.flush(stream).is_err()
        {
            stream.destroy();
        }
    }
}

/// Message kinds of the channel.
const PAIR: u64 = 0;
const UNPAIR: u64 = 1;
/// Flag of a pair: from the side that named the relay.
const INITIATOR: u8 = 1;

/// Asks for a pair, or says that it is there: then the id is the relay's.
struct Pair {
    is_initiator: bool,
    token: Token,
    id: u32,
}

impl Pair {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![if self.is_initiator { INITIATOR } else { 0 }];
        out.extend_from_slice(&self.token);
        compact::uint(&mut out, u64::from(self.id));
        compact::uint(&mut out, 0);
        out
    }

    fn decode(body: &[u8]) -> Option<Pair> {
        let (flags, rest) = body.split_first()?;
        let (token, rest) = rest.split_first_chunk::<32>()?;
        let mut rest = Decoder::new(rest);
        let id = u32::try_from(rest.uint().ok()?).ok()?;
        // The first packet's number is 0 from all that there are; another one would be no reason to refuse.
        rest.uint().ok()?;
        Some(Pair { is_initiator: flags & INITIATOR != 0, token: *token, id })
    }
}

fn encode_unpair(token: &Token) -> Vec<u8> {
    [&[0], &token[..]].concat()
}

fn decode_unpair(body: &[u8]) -> Option<Token> {
    body.get(1..33)?.try_into().ok()
}

fn destroy(mux: &mut Mux, id: u32) {
    if let Some(stream) = mux.stream(id) {
        stream.destroy();
    }
}
