//! Blind relays, both ends: our streams to relays that others run, and the sessions of those who use us as one. [`Relaying`].
//!
//! ```text
//! as a client   connection needs a relay --> Wish::Connect --> pair(token, our stream's id)
//!                                                              <-- pair(the id to send to) --> Wish::Paired(a path over the relay)
//! as a relay    two sessions ask for one token --> two streams of ours that relay to each other; each side is told the id of its own, and the first packet that
//!               comes for it tells where that side is
//!
//! a channel     UDX stream -- SecretStream -- protomux channel, its messages and the relay's register of pairs in [`relay`](super::relay)
//! ```
//!
//! What must stay true: a relay sees no byte that the two peers did not encrypt for each other; one stream to each relay, which ends a while after it was last
//! needed; what a client of ours can make us hold is bounded; pairs end with either of their sessions, and their legs without a word.
//!
//! Source: blind-relay index.js, hyperdht lib/connect.js.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

use super::peers::Key;
use super::relay::{PAIR, PROTOCOL, Pair, Register, Token, UNPAIR, Unpair};
use crate::dht::{ConnectionId, Note, Opened};
use crate::protomux::{ChannelId, Event, Limits, Mux as Channels, MuxError};
use crate::secret_stream::{Identity, Role, SecretStream, StreamError};
use crate::udp::{Now, Random, SocketId};
use crate::udx::{Mux, Path, StreamEvent};

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
/// The longest message on a channel.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Bytes that a slow reader may leave with us.
const UNSENT_MAX: usize = 256 << 10;

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
    keep_alive_at: Now,
}

/// Both ends of blind relays. See the module.
pub struct Relaying {
    random: Random,
    own_key: Key,
    links: BTreeMap<Key, Link>,
    sessions: BTreeMap<u32, Session>,
    register: Register,
    wishes: VecDeque<Wish>,
}

impl Relaying {
    /// Of the peer with this identity, with no relay yet.
    pub fn new(random: Random, identity: &Identity) -> Relaying {
        Relaying {
            random,
            own_key: identity.public_key(),
            links: BTreeMap::new(),
            sessions: BTreeMap::new(),
            register: Register::default(),
            wishes: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    /// Relays that we are connected to, and pairs that we relay for.
    pub fn counts(&self) -> (usize, usize) {
        (self.links.values().filter(|link| link.open.is_some()).count(), self.register.len())
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
            channel.send(UNPAIR, &Unpair { token: wanted.token }.encode());
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
        self.sessions.insert(opened.stream, Session { channel, keep_alive_at: now + KEEP_ALIVE });
        self.flush_session(opened.stream, mux);
    }

    /// Whether a stream of ours relays, and where its packets go from now on that one came from `from`.
    pub fn leg_path(&self, id: u32, socket: SocketId, from: SocketAddrV4) -> Option<Path> {
        Some(Path { socket, remote: from, remote_id: self.register.remote_id(id)? })
    }

    /// Something happened to a stream that relays. True if it is one.
    pub fn leg_event(&mut self, id: u32, event: StreamEvent, mux: &mut Mux) -> bool {
        let is_leg = self.register.remote_id(id).is_some();
        if is_leg && matches!(event, StreamEvent::Closed(_)) {
            remove(mux, self.register.leg_closed(id));
        }
        is_leg
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
        if self.sessions.remove(&id).is_some() {
            remove(mux, self.register.session_closed(id));
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
        links.chain(sessions).chain(self.register.poll_timeout()).min()
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
        self.register.handle_timeout(now);
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
                    if let Some(unpair) = Unpair::decode(&body) {
                        remove(mux, self.register.cancel(id, &unpair.token));
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
        let Some(sides) = self.register.ask(now, id, asked, || mux.open()) else { return };
        mux.relay(sides[0].leg, sides[1].leg);
        for side in sides {
            if let Some(session) = self.sessions.get_mut(&side.session) {
                session.channel.send(PAIR, &side.answer.encode());
            }
            self.flush_session(side.session, mux);
        }
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

/// Drops legs. They are not destroyed: the peers would take that for the end of a stream that may go on without us.
fn remove(mux: &mut Mux, legs: Vec<u32>) {
    legs.into_iter().for_each(|leg| mux.remove(leg));
}

fn destroy(mux: &mut Mux, id: u32) {
    if let Some(stream) = mux.stream(id) {
        stream.destroy();
    }
}
