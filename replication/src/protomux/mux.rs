//! The state of all channels of one stream.

mod pairing;

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use pgbee_engine::encoding::compact::{DecodeError, Decoder};

use super::frame::{BATCH, BATCH_BYTES_MAX, Batch, CONTROL, Control, OVERHEAD_MAX, put_message};
use crate::secret_stream::MESSAGE_BYTES_MAX;
use pairing::{PairingId, Pairings};

/// How much may be buffered for opens that wait for our answer before the stream has to wait, and what each message counts beside its bytes: as in
/// JavaScript.
const BUFFERED_BYTES_MAX: usize = 32_768;
const BUFFERED_MESSAGE_COST: usize = 512;

/// What a frame that waits to be written takes beside its bytes: a small one takes more than it has.
const FRAME_COST: usize = 64;

/// Room for frames to write is taken in pieces of this size.
const OUTPUT_PIECE: usize = 16 << 10;

/// One of our channels. Never used twice by a [`Mux`], unlike its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId {
    /// Its place in [`Mux::channels`]: one less than its number.
    place: usize,
    serial: u64,
}

/// What a peer may make us hold. Beyond it the stream ends with [`MuxError::Limit`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Channels at a time, counted for each side.
    pub channels_max: usize,
    /// Opens of the remote that wait for [`Mux::open`] or [`Mux::reject`].
    pub pending_opens_max: usize,
    /// An `open` message: protocol, id and handshake together.
    pub open_bytes_max: usize,
    /// One message's body.
    pub message_bytes_max: usize,
}

impl Default for Limits {
    /// Many cores on one stream, as a Corestore has; at most 16 MiB of opens that wait.
    fn default() -> Limits {
        Limits {
            channels_max: 65_536,
            pending_opens_max: 16_384,
            open_bytes_max: 1024,
            message_bytes_max: MESSAGE_BYTES_MAX,
        }
    }
}

/// What happened on the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The remote opens a channel that none of ours waits for: answer with [`Mux::open`] or [`Mux::reject`], now or later. If `open` refuses, as it does a
    /// second channel of one key, reject; an open that is never answered stays pending.
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
        /// The rest: a piece of the frame, which lives as long as its pieces.
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
    /// The remote opened a channel under a number that is neither its next nor a freed one.
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

/// A channel of ours, at the place of its number less one.
struct Channel {
    serial: u64,
    state: State,
    pairing: PairingId,
}

enum State {
    /// Its number is free.
    Free,
    /// We opened it, the remote has not.
    Waiting,
    /// We closed it before the remote answered our open; its number is not free before that.
    Abandoned,
    /// Both opened it; the place of the remote's number.
    Open { remote: usize },
}

/// A number of the remote's, less one.
enum Remote {
    Free,
    /// Opened, and we have not answered.
    Pending(Box<Pending>),
    /// Open; the place of ours.
    Open(usize),
}

struct Pending {
    pairing: PairingId,
    handshake: Bytes,
    messages: Vec<(u64, Bytes)>,
}

impl Pending {
    fn cost(&self) -> usize {
        self.messages.iter().map(|(_, body)| message_cost(body)).sum()
    }
}

fn message_cost(body: &Bytes) -> usize {
    BUFFERED_MESSAGE_COST + body.len()
}

/// A batch that is being read, an entry a time: events never take more space than the one that is polled.
struct Reading {
    rest: Bytes,
    channel: u64,
    /// Whether our answers wait for its end, for it has more than one entry.
    corked: bool,
}

/// One entry of a batch, or a frame that is none.
struct Entry {
    channel: u64,
    kind: u64,
    body: Bytes,
}

/// All channels of one stream, without I/O: frames in and out on one side, channels on the other.
pub struct Mux {
    limits: Limits,
    next_serial: u64,

    channels: Vec<Channel>,
    /// Places of free numbers of ours; the last is used first.
    free: Vec<usize>,
    remotes: Vec<Remote>,
    pairings: Pairings,
    pending_opens: usize,
    /// What messages for pending opens cost.
    buffered: usize,

    frames: VecDeque<Bytes>,
    reading: Option<Reading>,
    /// Events of an open we have just answered; everything else is read when polled.
    events: VecDeque<Event>,
    failed: Option<MuxError>,

    corks: usize,
    batch: Batch,
    output: BytesMut,
    outgoing: VecDeque<Bytes>,
    outgoing_bytes: usize,
}

impl Mux {
    /// No channels yet.
    pub fn new(limits: Limits) -> Mux {
        Mux {
            limits,
            next_serial: 0,
            channels: Vec::new(),
            free: Vec::new(),
            remotes: Vec::new(),
            pairings: Pairings::default(),
            pending_opens: 0,
            buffered: 0,
            frames: VecDeque::new(),
            reading: None,
            events: VecDeque::new(),
            failed: None,
            corks: 0,
            batch: Batch::default(),
            output: BytesMut::new(),
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
        }
    }

    /// Take a frame from the secret stream. It is read while events are polled: poll until `None` before giving more.
    ///
    /// # Errors
    ///
    /// The one that [`poll_event`](Self::poll_event) gave before.
    pub fn handle_frame(&mut self, frame: Bytes) -> Result<(), MuxError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if !frame.is_empty() {
            self.frames.push_back(frame);
        }
        Ok(())
    }

    /// What happened next. Answers to a batch of several entries are held back, to be one batch too, until the poll behind its last event. `None` also while
    /// [congested](Self::is_congested): poll again after answering an open, even if no frame came.
    ///
    /// # Errors
    ///
    /// The remote's fault: the stream must end. It comes again when polled again.
    pub fn poll_event(&mut self) -> Result<Option<Event>, MuxError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let polled = self.next_event();
        if let Err(error) = polled {
            self.failed = Some(error);
            self.frames.clear();
            self.reading = None;
        }
        polled
    }

    /// Open a channel, or accept the remote's oldest pending open of this protocol (or an alias) and id. Messages may be sent at once.
    ///
    /// # Errors
    ///
    /// [`MuxError::AlreadyOpen`] if we have one of this key; [`MuxError::Limit`] for too many channels or a handshake that fits no frame.
    pub fn open(
        &mut self,
        protocol: &str,
        aliases: &[&str],
        id: &[u8],
        handshake: Vec<u8>,
    ) -> Result<ChannelId, MuxError> {
        if self.pairings.has_open(protocol, aliases, id) {
            return Err(MuxError::AlreadyOpen);
        }
        self.open_another(protocol, aliases, id, handshake)
    }

    /// As [`open`](Self::open), even if one of this key is open.
    ///
    /// # Errors
    ///
    /// [`MuxError::Limit`].
    pub fn open_another(
        &mut self,
        protocol: &str,
        aliases: &[&str],
        id: &[u8],
        handshake: Vec<u8>,
    ) -> Result<ChannelId, MuxError> {
        if self.channels.len() - self.free.len() >= self.limits.channels_max {
            return Err(MuxError::Limit("channels"));
        }
        if protocol.len() + id.len() + handshake.len() > MESSAGE_BYTES_MAX - OVERHEAD_MAX {
            return Err(MuxError::Limit("an open"));
        }
        let pairing = self.pairings.find_or_add(protocol, aliases, id);
        let place = self.take_place(pairing);
        let channel = ChannelId { place, serial: self.channels[place].serial };
        let remote = self.pairings.answer(pairing, place);
        self.put_control(Control::Open { number: wire_number(place), protocol, id, handshake: &handshake });
        if let Some(remote) = remote {
            self.accept(channel, remote);
        }
        Ok(channel)
    }

    /// Refuse the oldest pending open of the remote under this protocol and id, if any.
    pub fn reject(&mut self, protocol: &str, id: &[u8]) {
        if let Some(remote) = self.pairings.oldest_incoming(protocol, id) {
            self.reject_pending(remote);
        }
    }

    /// Close a channel; closed ones are ignored. Its events that were not polled yet are dropped.
    pub fn close(&mut self, channel: ChannelId) {
        let Some(place) = self.place(channel) else { return };
        let state = match self.channels[place].state {
            State::Open { remote } => {
                self.remotes[remote] = Remote::Free;
                State::Free
            }
            _ => State::Abandoned,
        };
        self.end(place, state);
        self.put_control(Control::Close { number: wire_number(place) });
    }

    /// Send a message on a channel, also before the remote has opened it.
    ///
    /// # Errors
    ///
    /// [`MuxError::Closed`]; [`MuxError::Limit`] if it does not fit into a frame.
    pub fn send(&mut self, channel: ChannelId, kind: u64, body: &[u8]) -> Result<(), MuxError> {
        let place = self.place(channel).ok_or(MuxError::Closed)?;
        if body.len() > MESSAGE_BYTES_MAX - OVERHEAD_MAX {
            return Err(MuxError::Limit("a message"));
        }
        if self.corks > 0 {
            self.make_room(body.len());
            self.batch.put(wire_number(place), kind, body);
        } else {
            self.put_frame(wire_number(place), kind, body);
        }
        Ok(())
    }

    /// Collect what is sent into one batch until the matching [`uncork`](Self::uncork). Corks nest.
    pub fn cork(&mut self) {
        self.corks += 1;
    }

    /// The end of a cork: what was collected becomes a frame, unless another cork is on.
    ///
    /// # Panics
    ///
    /// If there is no cork.
    pub fn uncork(&mut self) {
        assert!(self.corks > 0, "uncorked without a cork");
        self.corks -= 1;
        if self.corks == 0 {
            self.flush_batch();
        }
    }

    /// The next frame for the secret stream.
    pub fn poll_frame(&mut self) -> Option<Bytes> {
        let frame = self.outgoing.pop_front()?;
        self.outgoing_bytes -= frame.len() + FRAME_COST;
        Some(frame)
    }

    /// Bytes that frames take which were not polled yet, those under a cork too: somewhat more than they have.
    pub fn pending_bytes(&self) -> usize {
        self.outgoing_bytes + self.batch.len()
    }

    /// Too much is buffered for opens of the remote that wait for our answer: read no more from the transport until it is not.
    pub fn is_congested(&self) -> bool {
        self.buffered > BUFFERED_BYTES_MAX
    }

    /// Whether both sides opened the channel.
    pub fn is_open(&self, channel: ChannelId) -> bool {
        self.place(channel).is_some_and(|place| matches!(self.channels[place].state, State::Open { .. }))
    }

    /// Whether no channel of ours exists.
    pub fn is_idle(&self) -> bool {
        self.channels.len() == self.free.len()
    }

    // Reading.

    fn next_event(&mut self) -> Result<Option<Event>, MuxError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                if self.is_told(&event) {
                    return Ok(Some(event));
                }
                continue;
            }
            if self.is_congested() {
                return Ok(None);
            }
            let Some(entry) = self.next_entry()? else { return Ok(None) };
            if let Some(event) = self.handle_entry(entry)? {
                return Ok(Some(event));
            }
        }
    }

    /// Whether an event that waited is still about something: we may have closed its channel meanwhile.
    fn is_told(&self, event: &Event) -> bool {
        match event {
            Event::Opened { channel, .. } | Event::Message { channel, .. } => self.place(*channel).is_some(),
            Event::OpenRequested { .. } | Event::Closed { .. } => true,
        }
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, MuxError> {
        loop {
            if let Some(reading) = &mut self.reading {
                if let Some((mut entry, more)) = reading.next()? {
                    if more && !reading.corked {
                        reading.corked = true;
                        self.corks += 1;
                    }
                    let kind = take_uint(&mut entry.body)?;
                    if entry.channel == CONTROL && kind == BATCH {
                        return Err(MuxError::NestedBatch);
                    }
                    return Ok(Some(Entry { kind, ..entry }));
                }
                let corked = reading.corked;
                self.reading = None;
                if corked {
                    self.uncork();
                }
            }
            let Some(mut frame) = self.frames.pop_front() else { return Ok(None) };
            let channel = take_uint(&mut frame)?;
            let kind = take_uint(&mut frame)?;
            if channel != CONTROL || kind != BATCH {
                return Ok(Some(Entry { channel, kind, body: frame }));
            }
            let channel = take_uint(&mut frame)?;
            self.reading = Some(Reading { rest: frame, channel, corked: false });
        }
    }

    fn handle_entry(&mut self, entry: Entry) -> Result<Option<Event>, MuxError> {
        if entry.channel == CONTROL {
            return self.handle_control(entry.kind, &entry.body);
        }
        if entry.body.len() > self.limits.message_bytes_max {
            return Err(MuxError::Limit("a message"));
        }
        let remote = usize::try_from(entry.channel - 1).ok().and_then(|place| self.remotes.get_mut(place));
        Ok(match remote {
            // Closed by us, while this was on its way.
            None | Some(Remote::Free) => None,
            Some(Remote::Open(place)) => {
                let channel = ChannelId { place: *place, serial: self.channels[*place].serial };
                Some(Event::Message { channel, kind: entry.kind, body: entry.body })
            }
            Some(Remote::Pending(pending)) => {
                // A copy, lest a small message keep a large frame.
                let body = Bytes::copy_from_slice(&entry.body);
                self.buffered += message_cost(&body);
                pending.messages.push((entry.kind, body));
                None
            }
        })
    }

    fn handle_control(&mut self, kind: u64, body: &[u8]) -> Result<Option<Event>, MuxError> {
        match Control::decode(kind, body)? {
            Control::Open { number, protocol, id, handshake } => {
                if body.len() > self.limits.open_bytes_max {
                    return Err(MuxError::Limit("an open"));
                }
                self.handle_open(number, protocol, id, handshake)
            }
            Control::Reject { number } => self.handle_reject(number),
            Control::Close { number } => Ok(self.handle_close(number)),
            Control::Unknown => Ok(None),
        }
    }

    fn handle_open(
        &mut self,
        number: u64,
        protocol: &str,
        id: &[u8],
        handshake: &[u8],
    ) -> Result<Option<Event>, MuxError> {
        let remote = self.claim_remote(number)?;
        let handshake = Bytes::copy_from_slice(handshake);
        if let Some(place) = self.pairings.oldest_outgoing(protocol, id) {
            self.pairings.answered(self.channels[place].pairing, place);
            if matches!(self.channels[place].state, State::Abandoned) {
                // If the remote waited for our open, our close behind it reached a channel. But a JavaScript peer that was asked ignores a close while it
                // thinks, so this open may be its answer, and its channel would live on under a number that we use again. Again, then: a second one is ignored.
                self.put_control(Control::Close { number: wire_number(place) });
                self.set_free(place);
                return Ok(None);
            }
            self.channels[place].state = State::Open { remote };
            self.remotes[remote] = Remote::Open(place);
            let channel = ChannelId { place, serial: self.channels[place].serial };
            return Ok(Some(Event::Opened { channel, handshake }));
        }
        if self.pending_opens >= self.limits.pending_opens_max {
            return Err(MuxError::Limit("opens that wait"));
        }
        self.pending_opens += 1;
        let pairing = self.pairings.find_or_add(protocol, &[], id);
        self.pairings.request(pairing, remote);
        self.remotes[remote] = Remote::Pending(Box::new(Pending { pairing, handshake, messages: Vec::new() }));
        Ok(Some(Event::OpenRequested { protocol: protocol.to_owned(), id: id.to_vec() }))
    }

    /// The place of a number under which the remote may open: its next, or a free one.
    fn claim_remote(&mut self, number: u64) -> Result<usize, MuxError> {
        let place = number.checked_sub(1).and_then(|place| usize::try_from(place).ok()).ok_or(MuxError::InvalidOpen)?;
        if place == self.remotes.len() {
            if place >= self.limits.channels_max {
                return Err(MuxError::Limit("channels"));
            }
            self.remotes.push(Remote::Free);
        }
        match self.remotes.get(place) {
            Some(Remote::Free) => Ok(place),
            _ => Err(MuxError::InvalidOpen),
        }
    }

    fn handle_reject(&mut self, number: u64) -> Result<Option<Event>, MuxError> {
        let place =
            number.checked_sub(1).and_then(|place| usize::try_from(place).ok()).ok_or(MuxError::InvalidReject)?;
        let channel = self.channels.get(place).ok_or(MuxError::InvalidReject)?;
        let id = ChannelId { place, serial: channel.serial };
        match channel.state {
            State::Waiting => {
                self.pairings.answered(channel.pairing, place);
                self.end(place, State::Free);
                Ok(Some(Event::Closed { channel: id, reason: CloseReason::Rejected }))
            }
            State::Abandoned => {
                self.pairings.answered(channel.pairing, place);
                self.set_free(place);
                Ok(None)
            }
            State::Free | State::Open { .. } => Err(MuxError::InvalidReject),
        }
    }

    fn handle_close(&mut self, number: u64) -> Option<Event> {
        let remote = usize::try_from(number.checked_sub(1)?).ok()?;
        match self.remotes.get(remote)? {
            Remote::Free => None,
            Remote::Pending(_) => {
                // The remote waits for an answer before it frees its number. An open of ours that comes later is a new channel.
                self.reject_pending(remote);
                None
            }
            &Remote::Open(place) => {
                let channel = ChannelId { place, serial: self.channels[place].serial };
                self.remotes[remote] = Remote::Free;
                self.end(place, State::Free);
                Some(Event::Closed { channel, reason: CloseReason::Closed })
            }
        }
    }

    // Channels.

    /// Where a channel is that we opened and nobody closed.
    fn place(&self, channel: ChannelId) -> Option<usize> {
        let place = channel.place;
        let found = self.channels.get(place).filter(|found| found.serial == channel.serial)?;
        matches!(found.state, State::Waiting | State::Open { .. }).then_some(place)
    }

    /// A number for a new channel of ours.
    fn take_place(&mut self, pairing: PairingId) -> usize {
        self.next_serial += 1;
        let channel = Channel { serial: self.next_serial, state: State::Waiting, pairing };
        if let Some(place) = self.free.pop() {
            self.channels[place] = channel;
            return place;
        }
        self.channels.push(channel);
        self.channels.len() - 1
    }

    /// A channel of ours that is open or waits is so no longer: free, or abandoned.
    fn end(&mut self, place: usize, state: State) {
        self.pairings.closed(self.channels[place].pairing);
        match state {
            State::Free => self.set_free(place),
            state => self.channels[place].state = state,
        }
    }

    fn set_free(&mut self, place: usize) {
        self.channels[place].state = State::Free;
        self.free.push(place);
        self.pairings.tidy(self.channels[place].pairing);
    }

    /// Pair a channel of ours with a pending open, and tell what came for it.
    fn accept(&mut self, channel: ChannelId, remote: usize) {
        let place = channel.place;
        let taken = std::mem::replace(&mut self.remotes[remote], Remote::Open(place));
        let Remote::Pending(pending) = taken else { unreachable!("only pending opens wait for an answer") };
        self.channels[place].state = State::Open { remote };
        self.pending_opens -= 1;
        self.buffered -= pending.cost();
        self.events.push_back(Event::Opened { channel, handshake: pending.handshake });
        for (kind, body) in pending.messages {
            self.events.push_back(Event::Message { channel, kind, body });
        }
    }

    fn reject_pending(&mut self, remote: usize) {
        let taken = std::mem::replace(&mut self.remotes[remote], Remote::Free);
        let Remote::Pending(pending) = taken else { unreachable!("only pending opens are rejected") };
        self.pending_opens -= 1;
        self.buffered -= pending.cost();
        self.pairings.refused(pending.pairing, remote);
        self.put_control(Control::Reject { number: wire_number(remote) });
    }

    // Writing.

    fn put_control(&mut self, control: Control<'_>) {
        let message = control.encode();
        if self.corks > 0 {
            self.make_room(message.len());
            self.batch.put_control(&message);
        } else {
            let (kind, body) = message.split_first().expect("a control message has a kind");
            self.put_frame(CONTROL, u64::from(*kind), body);
        }
    }

    fn put_frame(&mut self, channel: u64, kind: u64, body: &[u8]) {
        if self.output.capacity() < body.len() + OVERHEAD_MAX {
            self.output.reserve((body.len() + OVERHEAD_MAX).max(OUTPUT_PIECE));
        }
        put_message(&mut self.output, channel, kind, body);
        let frame = self.output.split().freeze();
        self.push_frame(frame);
    }

    /// Send the batch if it has reached its size, or could not take so much more without outgrowing a frame.
    fn make_room(&mut self, body_len: usize) {
        if self.batch.len() >= BATCH_BYTES_MAX || self.batch.len() + body_len + OVERHEAD_MAX > MESSAGE_BYTES_MAX {
            self.flush_batch();
        }
    }

    fn flush_batch(&mut self) {
        if !self.batch.is_empty() {
            let frame = self.batch.take().freeze();
            self.push_frame(frame);
        }
    }

    fn push_frame(&mut self, frame: Bytes) {
        self.outgoing_bytes += frame.len() + FRAME_COST;
        self.outgoing.push_back(frame);
    }
}

impl Reading {
    /// The next entry, its kind still in its body, and whether anything is behind it.
    fn next(&mut self) -> Result<Option<(Entry, bool)>, MuxError> {
        while !self.rest.is_empty() {
            let len = take_uint(&mut self.rest)?;
            if len == 0 {
                self.channel = take_uint(&mut self.rest)?;
                continue;
            }
            let len = usize::try_from(len).ok().filter(|&len| len <= self.rest.len());
            let body = self.rest.split_to(len.ok_or(DecodeError::OutOfBounds)?);
            return Ok(Some((Entry { channel: self.channel, kind: 0, body }, !self.rest.is_empty())));
        }
        Ok(None)
    }
}

/// Read a number off the front.
fn take_uint(bytes: &mut Bytes) -> Result<u64, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let n = decoder.uint()?;
    let read = bytes.len() - decoder.rest().len();
    bytes.advance(read);
    Ok(n)
}

/// The number on the wire of a place.
fn wire_number(place: usize) -> u64 {
    place as u64 + 1
}

#[cfg(test)]
mod tests;
