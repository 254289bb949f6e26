//! What peers asked of us and we owe them: `Uploads`, one peer's queue, and what it wants to be told, `RemoteWants`.
//!
//! ```text
//! request   -> queue, by priority, oldest first   at most REQUESTS_MAX, beyond that the peer is closed
//! want      -> queue                              at most WANTS_MAX
//! extension -> queue                              at most EXTENSIONS_MAX of EXTENSION_BYTES_MAX, beyond that they are forgotten: they are hints
//!                |
//!                v  peer after peer, a few each, while its connection takes more
//! data, noData, range, bitfield, extension
//! ```
//!
//! What must stay true: what a peer makes us hold or do is bounded, whatever it sends; one peer's requests never keep another waiting for more than a turn.

use std::collections::{BTreeSet, HashSet, VecDeque};

use std::time::Duration;

use bytes::Bytes;
use pgbee_engine::hypercore::proof::{Proof, Request};
use pgbee_engine::{BlockIndex, Error};

use super::{Fault, Now, PeerId, Replicator};
use crate::protocol::messages::{Data, Message, Reason, Requested, SEGMENT_BLOCKS, Span};

/// Requests of one peer that wait. JavaScript sends 512 at a time at most.
pub const REQUESTS_MAX: usize = 2048;
/// Windows of which one peer may ask at a time, as in JavaScript; beyond that it is told everything.
pub const WANTS_MAX: usize = 512;
/// Extension messages of one peer that wait.
pub const EXTENSIONS_MAX: usize = 64;
/// The longest of them: a question names two keys and a path, an answer some two thousand blocks.
pub const EXTENSION_BYTES_MAX: usize = 64 << 10;
/// How many requests of a peer may be impossible to answer until its connection is ended, as in JavaScript.
pub const INVALID_REQUESTS_MAX: u32 = 64;

/// How many requests of one peer are answered before it is the next one's turn.
const TURN: usize = 32;
/// How many requests are answered in one go, so that what else happens is not kept waiting.
const ANSWERS_MAX: usize = 1024;
/// What answers an extension message may read two thousand blocks for it: it counts as so many requests.
const EXTENSION_ANSWERS: usize = 128;
/// How many bytes one peer is sent in one go: its connection is looked at again before the next ones.
const PEER_BYTES_MAX: usize = 1 << 20;
/// How many bytes all peers are sent in one go.
const BYTES_MAX: usize = 16 << 20;

/// What one peer waits for.
#[derive(Default)]
pub(super) struct Uploads {
    urgent: VecDeque<Requested>,
    normal: VecDeque<Requested>,
    /// The ids in both queues.
    open: HashSet<u64>,
    wants: VecDeque<Span>,
    extensions: VecDeque<(String, Bytes)>,
    /// Refusals that are held back, so that impossible requests cost who sends them time.
    refusals: VecDeque<(Now, Message)>,
    pub invalid_requests: u32,
    pub remote_wants: RemoteWants,
    /// Its connection takes no more at the moment.
    pub is_congested: bool,
}

impl Uploads {
    /// A request. `false` if it is one too many.
    pub fn push(&mut self, requested: Requested) -> bool {
        // A request with an id that is still open replaces the old one.
        self.cancel(requested.id);
        if self.urgent.len() + self.normal.len() >= REQUESTS_MAX {
            return false;
        }
        self.open.insert(requested.id);
        match requested.priority {
            0 => self.normal.push_back(requested),
            priority => {
                let behind = self.urgent.iter().rposition(|other| other.priority >= priority).map_or(0, |at| at + 1);
                self.urgent.insert(behind, requested);
            }
        }
        true
    }

    /// A request need not be answered.
    pub fn cancel(&mut self, id: u64) {
        if !self.open.remove(&id) {
            return;
        }
        for queue in [&mut self.urgent, &mut self.normal] {
            if let Some(at) = queue.iter().position(|requested| requested.id == id) {
                queue.remove(at);
            }
        }
    }

    /// The next request to answer.
    pub fn pop(&mut self) -> Option<Requested> {
        let next = self.urgent.pop_front().or_else(|| self.normal.pop_front())?;
        self.open.remove(&next.id);
        Some(next)
    }

    /// It wants to know.
    pub fn want(&mut self, span: Span) {
        if self.remote_wants.add(span) && self.wants.len() < WANTS_MAX && !self.wants.contains(&span) {
            self.wants.push_back(span);
        }
    }

    /// It no longer wants to know.
    pub fn unwant(&mut self, span: Span) {
        self.remote_wants.remove(span);
        self.wants.retain(|want| *want != span);
    }

    /// The next want to answer.
    pub fn pop_want(&mut self) -> Option<Span> {
        self.wants.pop_front()
    }

    /// An extension message. A copy, lest a small one keep a large frame.
    pub fn extension(&mut self, name: String, payload: &[u8]) {
        if self.extensions.len() < EXTENSIONS_MAX && payload.len() <= EXTENSION_BYTES_MAX {
            self.extensions.push_back((name, Bytes::copy_from_slice(payload)));
        }
    }

    /// The next extension message to answer.
    pub fn pop_extension(&mut self) -> Option<(String, Bytes)> {
        self.extensions.pop_front()
    }

    /// Refuse a request after a while.
    pub fn refuse_at(&mut self, at: Now, refusal: Message) {
        self.refusals.push_back((at, refusal));
    }

    /// A refusal that is due.
    pub fn pop_refusal(&mut self, now: Now) -> Option<Message> {
        if self.refusals.front()?.0 > now {
            return None;
        }
        self.refusals.pop_front().map(|(_, refusal)| refusal)
    }

    /// When the next refusal is due.
    pub fn next_refusal(&self) -> Option<Now> {
        self.refusals.front().map(|(at, _)| *at)
    }

    /// Whether there is anything to answer that can be answered now.
    pub fn is_ready(&self) -> bool {
        let idle =
            self.urgent.is_empty() && self.normal.is_empty() && self.wants.is_empty() && self.extensions.is_empty();
        !self.is_congested && !idle
    }
}

/// Which blocks a peer wants to be told of as we get them.
#[derive(Default)]
pub(super) struct RemoteWants {
    /// Everything: it asked for too much, or in a way that is not kept.
    all: bool,
    windows: BTreeSet<(u64, u64)>,
}

impl RemoteWants {
    /// `false` if the want is to be ignored.
    pub fn add(&mut self, span: Span) -> bool {
        if !span.any && span.length > SEGMENT_BLOCKS {
            return false;
        }
        if span.any || !is_aligned(span) || self.windows.len() >= WANTS_MAX {
            self.all = true;
        } else {
            self.windows.insert((span.length, span.start.0));
        }
        true
    }

    pub fn remove(&mut self, span: Span) {
        self.windows.remove(&(span.length, span.start.0));
    }

    /// Whether it wants to be told of any of these.
    pub fn wants(&self, start: BlockIndex, length: u64) -> bool {
        if self.all {
            return true;
        }
        let end = start.0.saturating_add(length);
        let mut size = 32;
        while size <= SEGMENT_BLOCKS {
            // Windows of one size are in order: the last that begins before the end is the one.
            let last = self.windows.range((size, 0)..(size, end)).next_back();
            if last.is_some_and(|&(_, first)| first + size > start.0) {
                return true;
            }
            size *= 2;
        }
        false
    }
}

impl Replicator {
    /// Answer what peers wait for, a few each in turn. Whether more could be answered at once.
    pub(super) fn serve(&mut self, now: Now) -> bool {
        let mut ids: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.uploads.is_ready() || peer.uploads.next_refusal().is_some())
            .map(|(id, _)| *id)
            .collect();
        if ids.is_empty() {
            return false;
        }
        let first = self.turn % ids.len();
        ids.rotate_left(first);
        self.turn = self.turn.wrapping_add(1);
        let mut sent: Vec<usize> = vec![0; ids.len()];
        let mut answers = 0;
        while answers < ANSWERS_MAX && sent.iter().sum::<usize>() < BYTES_MAX {
            let before = answers;
            for (&id, sent) in ids.iter().zip(&mut sent) {
                answers += self.serve_turn(id, sent, now);
            }
            if answers == before {
                break;
            }
        }
        self.peers.values().any(|peer| peer.uploads.is_ready())
    }

    /// One peer's turn: how much was answered.
    fn serve_turn(&mut self, id: PeerId, sent: &mut usize, now: Now) -> usize {
        let mut answers = 0;
        while let Some(peer) = self.peers.get_mut(&id) {
            if let Some(refusal) = peer.uploads.pop_refusal(now) {
                self.send(id, refusal);
                continue;
            }
            if peer.uploads.is_congested || answers >= TURN || *sent >= PEER_BYTES_MAX {
                break;
            }
            let answer = if let Some(want) = peer.uploads.pop_want() {
                self.answer_want(want)
            } else if let Some(requested) = peer.uploads.pop() {
                self.answer(id, requested, now).into_iter().collect()
            } else if let Some((name, payload)) = peer.uploads.pop_extension() {
                self.answer_extension(id, &name, &payload);
                answers += EXTENSION_ANSWERS;
                Vec::new()
            } else {
                break;
            };
            answers += 1;
            for message in answer {
                *sent += message.size_hint();
                self.send(id, message);
            }
        }
        answers
    }

    fn answer(&mut self, id: PeerId, requested: Requested, now: Now) -> Option<Message> {
        let Requested { id: request, fork, request: asked, .. } = requested;
        let unavailable = Message::NoData { request, reason: Reason::NotAvailable };
        let manifest = if asked.manifest { self.manifest_to_send() } else { None };
        let only_manifest = |manifest| {
            let proof = Proof { fork: self.position.fork, manifest: Some(manifest), ..Proof::default() };
            Message::Data(Data { request, proof })
        };
        if fork != self.position.fork || asked == (Request { manifest: true, ..Request::default() }) {
            return Some(manifest.map_or(unavailable, only_manifest));
        }
        // Whether the manifest may be sent is decided here, not by who makes the proof.
        match self.core.prove(&Request { manifest: false, ..asked }) {
            Ok(proof) => {
                if let Some(block) = &proof.block
                    && let Some(peer) = self.peers.get_mut(&id)
                {
                    peer.blocks_out += 1;
                    self.uploaded_bytes += block.value.len() as u64;
                }
                Some(Message::Data(Data { request, proof: Proof { manifest, ..proof } }))
            }
            Err(Error::MissingBlock(_) | Error::Frozen(_)) => Some(unavailable),
            Err(Error::Invalid(_)) => {
                self.refuse(id, request, now);
                None
            }
            Err(error) => {
                tracing::error!(core = %self.core.key(), %error, "a block could not be read for a peer");
                Some(unavailable)
            }
        }
    }

    /// An impossible request: it is refused after a while, and too many of them cost the peer its connection.
    fn refuse(&mut self, id: PeerId, request: u64, now: Now) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.uploads.invalid_requests += 1;
        let wait = match peer.uploads.invalid_requests {
            INVALID_REQUESTS_MAX.. => return self.destroy(id, Fault::InvalidRequests),
            1 => Duration::from_millis(200),
            2..5 => Duration::from_millis(500),
            5..40 => Duration::from_secs(1),
            _ => Duration::from_secs(5),
        };
        peer.uploads.refuse_at(now + wait, Message::NoData { request, reason: Reason::InvalidRequest });
    }

    /// What we have of a window. Nothing is said where we have nothing.
    fn answer_want(&self, want: Span) -> Vec<Message> {
        let length = self.position.length.0;
        let contiguous = self.core.contiguous_len().0.min(length);
        let (start, end) = (want.start.0, want.start.0.saturating_add(want.length));
        if end < contiguous || contiguous == length || (want.any && start < contiguous) {
            return vec![Message::Range { drop: false, start: BlockIndex(0), length: contiguous }];
        }
        let mut messages = Vec::new();
        let mut at = start & !31;
        let end = end.min(length);
        while at < end {
            let segment_end = (at / SEGMENT_BLOCKS + 1) * SEGMENT_BLOCKS;
            let words = self.core.bitfield_words(BlockIndex(at), (end.min(segment_end) - at).div_ceil(32) as usize);
            if let Some(first) = words.iter().position(|&word| word != 0) {
                if want.any {
                    let block = at + 32 * first as u64 + u64::from(words[first].trailing_zeros());
                    return vec![Message::Range { drop: false, start: BlockIndex(block), length: 1 }];
                }
                messages.push(Message::Bitfield { start: BlockIndex(at), words });
            }
            at = segment_end;
        }
        messages
    }

    fn answer_extension(&mut self, id: PeerId, name: &str, payload: &[u8]) {
        let Some((name, handler)) = self.core.extensions().handler(name) else { return };
        for answer in handler.handle(payload) {
            self.send_extension(id, name, &answer);
        }
    }
}

fn is_aligned(span: Span) -> bool {
    span.length >= 32 && span.length.is_power_of_two() && span.start.0.is_multiple_of(span.length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgbee_engine::Fork;
    use pgbee_engine::hypercore::proof::Request;

    fn requested(id: u64, priority: u64) -> Requested {
        Requested { id, fork: Fork(0), priority, request: Request::default() }
    }

    #[test]
    fn urgent_requests_are_first_and_cancelled_ones_are_gone() {
        let mut uploads = Uploads::default();
        for (id, priority) in [(1, 0), (2, 1), (3, 0), (4, 2), (5, 1), (6, 0)] {
            assert!(uploads.push(requested(id, priority)));
        }
        uploads.cancel(3);
        assert!(uploads.push(requested(1, 0)), "replaces the first");
        let order: Vec<u64> = std::iter::from_fn(|| uploads.pop()).map(|requested| requested.id).collect();
        assert_eq!(order, [4, 2, 5, 6, 1]);
    }

    #[test]
    fn a_flood_is_one_too_many() {
        let mut uploads = Uploads::default();
        assert!((1..=REQUESTS_MAX as u64).all(|id| uploads.push(requested(id, id % 2))));
        assert!(!uploads.push(requested(9999, 0)));
        for window in 0..3000 {
            uploads.want(Span { start: BlockIndex(window * 4096), length: 4096, any: false });
            uploads.extension("x".to_string(), &[]);
        }
        assert!(
            uploads.wants.len() <= WANTS_MAX
                && uploads.remote_wants.windows.len() <= WANTS_MAX
                && uploads.extensions.len() <= EXTENSIONS_MAX
        );
        assert!(uploads.remote_wants.wants(BlockIndex(u64::MAX >> 12), 1), "more than is kept is everything");
    }

    #[test]
    fn extension_messages_that_wait_are_small() {
        let mut uploads = Uploads::default();
        uploads.extension("x".to_string(), &[7; EXTENSION_BYTES_MAX + 1]);
        assert_eq!(uploads.pop_extension(), None);
        let frame = Bytes::from(vec![7; EXTENSION_BYTES_MAX]);
        uploads.extension("x".to_string(), &frame[5..9]);
        assert!(frame.try_into_mut().is_ok(), "it is not kept");
        assert_eq!(uploads.pop_extension(), Some(("x".to_string(), Bytes::from_static(&[7; 4]))));
    }

    #[test]
    fn wants_are_windows() {
        let mut wants = RemoteWants::default();
        let window = |start, length| Span { start: BlockIndex(start), length, any: false };
        assert!(!wants.add(window(0, 2 * SEGMENT_BLOCKS)), "too large");
        assert!(wants.add(window(SEGMENT_BLOCKS, SEGMENT_BLOCKS)) && wants.add(window(64, 32)));
        assert!(
            wants.wants(BlockIndex(SEGMENT_BLOCKS + 5), 1)
                && wants.wants(BlockIndex(90), 10)
                && wants.wants(BlockIndex(0), 65)
        );
        assert!(!wants.wants(BlockIndex(96), 10) && !wants.wants(BlockIndex(0), 64));
        wants.remove(window(64, 32));
        assert!(!wants.wants(BlockIndex(90), 1));
        assert!(wants.add(window(5, 33)) && wants.wants(BlockIndex(1), 1), "not aligned is everything");
    }
}
