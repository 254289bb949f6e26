//! One connection: an encrypted stream, channels on it, and a core on each channel. [`Connection`].
//!
//! ```text
//! bytes <-> SecretStream <-> frames <-> Mux <-> channels <-> messages of cores
//! ```
//!
//! Here a channel becomes a core's: it is opened with a capability, and the remote's is checked before anything of the core is said or heard.
//!
//! What must stay true: no message leaves on a channel, and none arrives from one, before the remote has proved to know the core's key; whatever the remote
//! breaks ends this connection and nothing else. No I/O: bytes go in and come out.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pgbee_engine::{CoreKey, DiscoveryKey};

use crate::error::Fault;
use crate::protocol::capability::Handshake;
use crate::protocol::messages::Message;
use crate::protocol::{PROTOCOL, PROTOCOL_ALIAS};
use crate::protomux::{self, ChannelId, Limits, Mux};
use crate::secret_stream::{Identity, Randomness, Role, SecretStream};

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
}

struct Channel {
    key: CoreKey,
    discovery: DiscoveryKey,
}

impl Connection {
    /// A connection whose handshake begins.
    pub fn new(role: Role, identity: &Identity, random: Randomness) -> Connection {
        Connection {
            stream: SecretStream::new(role, identity, random),
            mux: Mux::new(Limits::default()),
            channels: BTreeMap::new(),
            by_core: BTreeMap::new(),
            events: VecDeque::new(),
            is_ready: false,
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

    /// Bytes came. Poll the events next, also after an error: they were before it.
    ///
    /// # Errors
    /// The remote's fault: the connection has to end.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let handled = self.stream.handle_bytes(bytes);
        if self.stream.is_open() && !std::mem::replace(&mut self.is_ready, true) {
            self.events.push_back(Event::Ready);
        }
        while let Some(frame) = self.stream.poll_message() {
            self.mux.handle_frame(frame)?;
            self.pump()?;
        }
        Ok(handled?)
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Read on where an unanswered open held things up. Call it after [`open`](Connection::open) and [`reject`](Connection::reject).
    ///
    /// # Errors
    /// As [`handle_bytes`](Connection::handle_bytes).
    pub fn pump(&mut self) -> Result<(), Fault> {
        while let Some(event) = self.mux.poll_event()? {
            self.handle_event(event)?;
        }
        Ok(())
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
