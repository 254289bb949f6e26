//! One connection: an encrypted stream, channels on it, and a core on each channel. [`Connection`].
//!
//! ```text
//! bytes <-> SecretStream <-> frames <-> Mux <-> channels <-> messages of cores
//! ```
//!
//! Here a channel becomes a core's: it is opened with a capability, and the remote's is checked before anything of the core is said or heard.
//!
//! What must stay true: no message leaves on a channel, and none arrives from one, before the remote has proved to know the core's key; whatever the remote
//! breaks ends this connection and nothing else; a frame of a million messages becomes a few events at a time. No I/O: bytes go in and come out.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pgbee_engine::{CoreKey, DiscoveryKey};

use crate::error::Fault;
use crate::protocol::capability::Handshake;
use crate::protocol::messages::Message;
use crate::protocol::{PROTOCOL, PROTOCOL_ALIAS};
use crate::protomux::{self, ChannelId, Limits, Mux};
use crate::secret_stream::handshake::Session;
use crate::secret_stream::{Identity, Randomness, Role, SecretStream};

/// How many events wait to be polled at most: an event takes more memory than the three bytes a message may have.
const EVENTS_MAX: usize = 1024;

/// What happened on a connection.
#[derive(Debug)]
pub enum Event {
    /// The handshake is over: channels can be opened.
    Ready,
    /// The remote wants a core: [`Connection::open`] or [`Connection::reject`].
    Asked(DiscoveryKey),
    /// Both sides opened the channel, and the remote knows the key.
    Opened(ChannelId, DiscoveryKey),
    /// A message, and how many bytes it had.
    Message(ChannelId, Message, usize),
    /// The remote closed the channel, or rejected it.
    Closed(ChannelId),
}

/// One connection, without I/O.
pub struct Connection {
    stream: SecretStream,
    mux: Mux,
    channels: BTreeMap<ChannelId, Channel>,
    by_core: BTreeMap<DiscoveryKey, ChannelId>,
    events: VecDeque<Event>,
    is_ready: bool,
    has_more: bool,
}

struct Channel {
    key: CoreKey,
    discovery: DiscoveryKey,
}

impl Connection {
    /// A connection whose handshake begins.
    pub fn new(role: Role, identity: &Identity, random: Randomness) -> Connection {
        Connection::over(SecretStream::new(role, identity, random))
    }

    /// A connection whose handshake is over, as those are that the DHT makes: it is ready at once. The random bytes must be fresh.
    pub fn established(role: Role, session: &Session, stream_header: [u8; 24]) -> Connection {
        let mut connection = Connection::over(SecretStream::established(role, session, stream_header));
        connection.is_ready = true;
        connection.events.push_back(Event::Ready);
        connection
    }

    fn over(stream: SecretStream) -> Connection {
        Connection {
            stream,
            mux: Mux::new(Limits::default()),
            channels: BTreeMap::new(),
            by_core: BTreeMap::new(),
            events: VecDeque::new(),
            is_ready: false,
            has_more: false,
        }
    }

    /// Whether the handshake is over.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Who the other side is, once the handshake is over.
    pub fn remote_public_key(&self) -> Option<[u8; 32]> {
        self.stream.remote_public_key()
    }

    /// Bytes came. Poll the events next, also after an error: they were before it. Then, while it [has more](Connection::has_more), [`pump`](Connection::pump).
    ///
    /// # Errors
    /// The remote's fault: the connection has to end.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let handled = self.stream.handle_bytes(bytes);
        if self.stream.is_open() && !std::mem::replace(&mut self.is_ready, true) {
            self.events.push_back(Event::Ready);
        }
        self.pump()?;
        Ok(handled?)
    }

    /// Whether it stopped reading what has come because enough events wait to be polled.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Read on where an unanswered open, or too many events, held things up. Call it after [`open`](Connection::open) and [`reject`](Connection::reject).
    ///
    /// # Errors
    /// As [`handle_bytes`](Connection::handle_bytes).
    pub fn pump(&mut self) -> Result<(), Fault> {
        // What is answered here and makes no event counts, too.
        let mut read = 0;
        self.has_more = false;
        loop {
            if self.events.len() >= EVENTS_MAX || read >= EVENTS_MAX {
                self.has_more = true;
                return Ok(());
            }
            if let Some(event) = self.mux.poll_event()? {
                read += 1;
                self.handle_event(event)?;
            } else if let Some(frame) = self.stream.poll_message() {
                self.mux.handle_frame(frame)?;
            } else {
                return Ok(());
            }
        }
    }

    fn handle_event(&mut self, event: protomux::Event) -> Result<(), Fault> {
        match event {
            protomux::Event::OpenRequested { protocol, id } if protocol == PROTOCOL || protocol == PROTOCOL_ALIAS => {
                let discovery = DiscoveryKey(id.as_slice().try_into().map_err(|_| Fault::ChannelId)?);
                if self.by_core.contains_key(&discovery) {
                    self.mux.reject(PROTOCOL, &id);
                } else {
                    self.events.push_back(Event::Asked(discovery));
                }
            }
            protomux::Event::OpenRequested { protocol, id } => self.mux.reject(&protocol, &id),
            protomux::Event::Opened { channel, handshake } => {
                let Some(Channel { key, discovery }) = self.channels.get(&channel) else { return Ok(()) };
                let handshake = Handshake::decode(&handshake).map_err(|_| Fault::Capability)?;
                let hash = self.stream.handshake_hash().ok_or(Fault::Capability)?;
                if !handshake.proves(*key, self.stream.is_initiator(), hash) {
                    return Err(Fault::Capability);
                }
                self.events.push_back(Event::Opened(channel, *discovery));
            }
            protomux::Event::Message { channel, kind, body } => {
                if let Some(message) = Message::decode(kind, &body).map_err(|why| Fault::Message { kind, why })? {
                    self.events.push_back(Event::Message(channel, message, body.len()));
                }
            }
            protomux::Event::Closed { channel, .. } => {
                self.forget(channel);
                self.events.push_back(Event::Closed(channel));
            }
        }
        Ok(())
    }

    /// Open a channel for a core, or accept the remote's. `None` if there is one, or none can be.
    pub fn open(&mut self, key: CoreKey) -> Option<ChannelId> {
        let discovery = key.discovery_key();
        if self.by_core.contains_key(&discovery) {
            return None;
        }
        let handshake = Handshake::new(key, self.stream.is_initiator(), self.stream.handshake_hash()?);
        let channel = self.mux.open(PROTOCOL, &[PROTOCOL_ALIAS], &discovery.0, handshake.encode()).ok()?;
        self.channels.insert(channel, Channel { key, discovery });
        self.by_core.insert(discovery, channel);
        Some(channel)
    }

    /// We do not have the core that the remote asked for.
    pub fn reject(&mut self, discovery: DiscoveryKey) {
        self.mux.reject(PROTOCOL, &discovery.0);
    }

    /// Close a channel.
    pub fn close(&mut self, channel: ChannelId) {
        self.forget(channel);
        self.mux.close(channel);
    }

    fn forget(&mut self, channel: ChannelId) {
        if let Some(Channel { discovery, .. }) = self.channels.remove(&channel) {
            self.by_core.remove(&discovery);
        }
    }

    /// Send a message on a channel. One that is closed swallows it.
    pub fn send(&mut self, channel: ChannelId, message: &Message) {
        if let Err(error) = self.mux.send(channel, message.kind(), &message.encode()) {
            // Closed meanwhile; or a block that fits into no frame, which nobody else can have got into a core either.
            tracing::debug!(%error, kind = message.kind(), "a message was not sent");
        }
    }

    /// What is sent from now on travels together.
    pub fn cork(&mut self) {
        self.mux.cork();
    }

    /// See [`cork`](Connection::cork).
    pub fn uncork(&mut self) {
        self.mux.uncork();
    }

    /// Tell the other side that we are there.
    pub fn keep_alive(&mut self) {
        if self.is_ready && self.pending_bytes() == 0 {
            // It is refused only before the stream is open.
            let _ = self.stream.keep_alive();
        }
    }

    /// Bytes that wait to be written.
    pub fn pending_bytes(&self) -> usize {
        self.mux.pending_bytes() + self.stream.output().len()
    }

    /// Whether reading further would only fill buffers.
    pub fn is_read_blocked(&self) -> bool {
        self.mux.is_congested()
    }

    /// At most so many bytes to write; encrypts them.
    pub fn take_output(&mut self, max: usize) -> Bytes {
        while self.is_ready && self.stream.output().len() < max {
            let Some(frame) = self.mux.poll_frame() else { break };
            if let Err(error) = self.stream.send(&frame) {
                tracing::error!(%error, "a frame was not sent");
            }
        }
        self.stream.take_output(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: CoreKey = CoreKey([7; 32]);

    fn connection(role: Role, seed: u8) -> Connection {
        let random = Randomness::new([seed; 56]);
        Connection::new(role, &Identity::from_seed([seed + 100; 32]), random)
    }

    fn events(connection: &mut Connection) -> Vec<String> {
        std::iter::from_fn(|| connection.poll_event()).map(|event| format!("{event:?}")).collect()
    }

    /// Move bytes until neither side has any. The first error of either side.
    fn settle(one: &mut Connection, other: &mut Connection) -> Result<(), Fault> {
        loop {
            let (there, back) = (one.take_output(1 << 20), other.take_output(1 << 20));
            if there.is_empty() && back.is_empty() {
                return Ok(());
            }
            other.handle_bytes(&there)?;
            one.handle_bytes(&back)?;
        }
    }

    fn ready() -> (Connection, Connection) {
        let (mut one, mut other) = (connection(Role::Initiator, 1), connection(Role::Responder, 2));
        settle(&mut one, &mut other).unwrap();
        assert!(one.is_ready() && other.is_ready());
        assert_eq!((events(&mut one), events(&mut other)), (vec!["Ready".to_string()], vec!["Ready".to_string()]));
        (one, other)
    }

    /// A connection, and a side that says what it likes: its stream and multiplexer.
    fn with_stranger() -> (Connection, SecretStream, Mux) {
        let mut honest = connection(Role::Responder, 2);
        let random = Randomness::new([1; 56]);
        let mut stranger = SecretStream::new(Role::Initiator, &Identity::from_seed([101; 32]), random);
        while !stranger.is_open() || !honest.is_ready() {
            honest.handle_bytes(&stranger.take_output(1 << 20)).unwrap();
            stranger.handle_bytes(&honest.take_output(1 << 20)).unwrap();
        }
        events(&mut honest);
        (honest, stranger, Mux::new(Limits::default()))
    }

    fn deliver(honest: &mut Connection, stranger: &mut SecretStream, mux: &mut Mux) -> Result<(), Fault> {
        while let Some(frame) = mux.poll_frame() {
            stranger.send(&frame).unwrap();
        }
        honest.handle_bytes(&stranger.take_output(1 << 24))
    }

    #[test]
    fn a_channel_opens_where_both_know_the_key() {
        let (mut one, mut other) = ready();
        let channel = one.open(KEY).unwrap();
        assert_eq!(one.open(KEY), None, "there is one");
        settle(&mut one, &mut other).unwrap();
        assert_eq!(events(&mut other), [format!("Asked({:?})", KEY.discovery_key())]);
        other.open(KEY).unwrap();
        other.pump().unwrap();
        settle(&mut one, &mut other).unwrap();
        assert!(matches!(one.poll_event(), Some(Event::Opened(opened, _)) if opened == channel));
        assert!(matches!(other.poll_event(), Some(Event::Opened(..))));
        one.send(channel, &Message::Cancel { request: 5 });
        settle(&mut one, &mut other).unwrap();
        assert!(matches!(other.poll_event(), Some(Event::Message(_, Message::Cancel { request: 5 }, 1))));
        one.close(channel);
        settle(&mut one, &mut other).unwrap();
        assert!(matches!(other.poll_event(), Some(Event::Closed(_))));
        // And what is not there is rejected.
        one.open(CoreKey([8; 32])).unwrap();
        settle(&mut one, &mut other).unwrap();
        other.reject(CoreKey([8; 32]).discovery_key());
        settle(&mut one, &mut other).unwrap();
        assert!(matches!(one.poll_event(), Some(Event::Closed(_))));
    }

    /// Both sides of a handshake that was made elsewhere.
    fn sessions() -> (Session, Session) {
        use crate::secret_stream::handshake::{Handshake, Pattern};
        let (one, other) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let key = Some(other.public_key());
        let mut initiator = Handshake::new(Pattern::Ik, Role::Initiator, &one, [3; 32], &[], key).unwrap();
        let mut responder = Handshake::new(Pattern::Ik, Role::Responder, &other, [4; 32], &[], None).unwrap();
        responder.receive(&initiator.send(b"there").unwrap()).unwrap();
        initiator.receive(&responder.send(b"back").unwrap()).unwrap();
        (initiator.finish().unwrap(), responder.finish().unwrap())
    }

    #[test]
    fn after_a_handshake_made_elsewhere_channels_open_at_once() {
        let (initiators, responders) = sessions();
        let mut one = Connection::established(Role::Initiator, &initiators, [5; 24]);
        let mut other = Connection::established(Role::Responder, &responders, [6; 24]);
        assert!(one.is_ready() && one.remote_public_key() == Some(Identity::from_seed([2; 32]).public_key()));
        assert_eq!(events(&mut one), ["Ready"]);
        other.open(KEY).unwrap();
        one.open(KEY).unwrap();
        settle(&mut one, &mut other).unwrap();
        assert!(matches!(one.poll_event(), Some(Event::Opened(..))));
        assert_eq!(events(&mut other).first().map(String::as_str), Some("Ready"), "once, and first");
        assert!(!events(&mut one).iter().chain(&events(&mut other)).any(|event| event == "Ready"));
    }

    #[test]
    fn who_has_another_session_is_not_listened_to() {
        let (initiators, mut responders) = sessions();
        responders.hash[0] ^= 1;
        let mut one = Connection::established(Role::Initiator, &initiators, [5; 24]);
        let mut other = Connection::established(Role::Responder, &responders, [6; 24]);
        let refused = settle(&mut one, &mut other);
        assert_eq!(refused, Err(Fault::Stream(crate::secret_stream::StreamError::Header)));
    }

    #[test]
    fn who_does_not_know_the_key_hears_nothing() {
        // It knows the discovery key, and tries with a made-up capability, and with ours sent back.
        for reflect in [false, true] {
            let (mut honest, mut stranger, mut mux) = with_stranger();
            let discovery = KEY.discovery_key();
            let shown = if reflect {
                Handshake::new(KEY, false, stranger.handshake_hash().unwrap())
            } else {
                Handshake { seeks: true, capability: [9; 32] }
            };
            mux.open(PROTOCOL, &[], &discovery.0, shown.encode()).unwrap();
            deliver(&mut honest, &mut stranger, &mut mux).unwrap();
            assert_eq!(events(&mut honest).len(), 1);
            let opened = honest.open(KEY).map(|_| honest.pump());
            assert_eq!(opened, Some(Err(Fault::Capability)));
            assert!(events(&mut honest).is_empty());
        }
    }

    #[test]
    fn ids_that_are_no_discovery_keys_end_the_connection() {
        for len in [0usize, 31, 33] {
            let (mut honest, mut stranger, mut mux) = with_stranger();
            mux.open(PROTOCOL, &[], &vec![1; len], vec![0; 33]).unwrap();
            assert_eq!(deliver(&mut honest, &mut stranger, &mut mux), Err(Fault::ChannelId), "{len}");
        }
        // Another protocol is none of ours, and is rejected.
        let (mut honest, mut stranger, mut mux) = with_stranger();
        mux.open("another", &[], &[1; 5], Vec::new()).unwrap();
        deliver(&mut honest, &mut stranger, &mut mux).unwrap();
        assert!(events(&mut honest).is_empty() && honest.pending_bytes() > 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_frame_panics(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..20)) {
            let (mut honest, mut stranger, mut mux) = with_stranger();
            let handshake = Handshake::new(KEY, true, stranger.handshake_hash().unwrap());
            mux.open(PROTOCOL, &[], &KEY.discovery_key().0, handshake.encode()).unwrap();
            deliver(&mut honest, &mut stranger, &mut mux).unwrap();
            honest.open(KEY).unwrap();
            honest.pump().unwrap();
            for (at, mut frame) in frames.into_iter().enumerate() {
                if at % 2 == 0 {
                    // On the open channel, of a type that is known.
                    let kind = frame.first().map_or(0, |byte| byte % 10);
                    frame.splice(0..frame.len().min(1), [1, kind]);
                }
                stranger.send(&frame).unwrap();
                if honest.handle_bytes(&stranger.take_output(1 << 20)).is_err() {
                    break;
                }
                events(&mut honest);
            }
        }
    }
}
