//! The state of all channels of one stream.

use bytes::Bytes;
use pgbee_engine::encoding::compact::DecodeError;

/// One of our channels. Never reused by a [`Mux`], unlike its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId {
    local: u32,
    generation: u32,
}

/// What a peer may make us hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Channels at a time, of either side.
    pub channels_max: usize,
    /// Opens of the remote that wait for [`Mux::open`] or [`Mux::reject`].
    pub pending_opens_max: usize,
    /// The whole `open` message: protocol, id and handshake.
    pub open_bytes_max: usize,
    /// One message's body.
    pub message_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { channels_max: 16_384, pending_opens_max: 4096, open_bytes_max: 4096, message_bytes_max: 1 << 24 }
    }
}

/// What happened on the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The remote opens a channel that none of ours waits for: answer with [`Mux::open`] or [`Mux::reject`], now or later.
    OpenRequested {
        /// The protocol's name as the remote calls it (it may be an alias).
        protocol: String,
        /// Which of that protocol's channels; empty if it has one only.
        id: Vec<u8>,
    },
    /// Both sides opened the channel.
    Opened {
        /// Ours.
        channel: ChannelId,
        /// The remote's handshake, as sent.
        handshake: Bytes,
    },
    /// A message; only between `Opened` and `Closed`.
    Message {
        /// The channel it came on.
        channel: ChannelId,
        /// The type's number. Unknown ones must be ignored.
        kind: u64,
        /// The rest.
        body: Bytes,
    },
    /// The remote closed or rejected the channel; its id says nothing any more. Not told of channels we closed.
    Closed {
        /// The channel that was.
        channel: ChannelId,
        /// How it ended.
        reason: CloseReason,
    },
}

/// How the remote ended a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// It never was open at the remote.
    Rejected,
    /// It was open, and the remote closed it.
    Closed,
}

/// What a peer broke (destroy the stream), or what of ours cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    /// A frame ends early or holds an impossible number.
    #[error("a frame cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// The remote opened a channel under a number that is not its next.
    #[error("invalid open message")]
    InvalidOpen,
    /// The remote rejected a channel that does not wait.
    #[error("invalid reject message")]
    InvalidReject,
    /// A batch within a batch.
    #[error("a batch inside a batch")]
    NestedBatch,
    /// More of something than the limits allow.
    #[error("too many or too large: {0}")]
    Limit(&'static str),
    /// Ours: a channel of this protocol and id is open already.
    #[error("the channel is open already")]
    AlreadyOpen,
    /// Ours: the channel is closed.
    #[error("the channel is closed")]
    Closed,
}

/// All channels of one stream, without I/O: frames in and out on one side, channels on the other.
pub struct Mux {}

impl Mux {
    /// No channels yet.
    pub fn new(_limits: Limits) -> Mux {
        unimplemented!()
    }

    /// Take a frame from the secret stream. It is read while events are polled, so poll until `None`.
    pub fn handle_frame(&mut self, _frame: Bytes) -> Result<(), MuxError> {
        unimplemented!()
    }

    /// What happened next. An error is the remote's fault and ends the stream; it comes again when polled again. Answers to a batch
    /// are held back (corked) until the poll behind its last event. `None` while [`is_congested`](Self::is_congested).
    pub fn poll_event(&mut self) -> Result<Option<Event>, MuxError> {
        unimplemented!()
    }

    /// Open a channel, or accept the remote's pending open of this protocol (or an alias) and id. Messages may be sent at once.
    ///
    /// # Errors
    ///
    /// [`MuxError::AlreadyOpen`] if we have one of this key; [`MuxError::Limit`].
    pub fn open(
        &mut self,
        _protocol: &str,
        _aliases: &[&str],
        _id: &[u8],
        _handshake: Vec<u8>,
    ) -> Result<ChannelId, MuxError> {
        unimplemented!()
    }

    /// As [`open`](Self::open), even if one of this key is open.
    pub fn open_another(
        &mut self,
        _protocol: &str,
        _aliases: &[&str],
        _id: &[u8],
        _handshake: Vec<u8>,
    ) -> Result<ChannelId, MuxError> {
        unimplemented!()
    }

    /// Refuse the oldest pending open of the remote under this protocol and id, if any.
    pub fn reject(&mut self, _protocol: &str, _id: &[u8]) {}

    /// Close a channel; closed ones are ignored. Its events that were not polled yet are dropped.
    pub fn close(&mut self, _channel: ChannelId) {}

    /// Send a message on a channel, also before the remote has opened it.
    ///
    /// # Errors
    ///
    /// [`MuxError::Closed`]; [`MuxError::Limit`] if it does not fit into a frame.
    pub fn send(&mut self, _channel: ChannelId, _kind: u64, _body: &[u8]) -> Result<(), MuxError> {
        unimplemented!()
    }

    /// Collect what is sent into one batch until the matching [`uncork`](Self::uncork). Corks nest.
    pub fn cork(&mut self) {}

    /// See [`cork`](Self::cork).
    pub fn uncork(&mut self) {}

    /// The next frame for the secret stream.
    pub fn poll_frame(&mut self) -> Option<Bytes> {
        unimplemented!()
    }

    /// Bytes of frames that were not polled yet, those under a cork too.
    pub fn pending_bytes(&self) -> usize {
        unimplemented!()
    }

    /// Too much is buffered for opens of the remote that wait for our answer: read no more from the transport until it is not.
    pub fn is_congested(&self) -> bool {
        unimplemented!()
    }

    /// Whether both sides opened the channel.
    pub fn is_open(&self, _channel: ChannelId) -> bool {
        unimplemented!()
    }

    /// Whether no channel of ours exists.
    pub fn is_idle(&self) -> bool {
        unimplemented!()
    }
}
