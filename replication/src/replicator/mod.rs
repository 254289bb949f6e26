//! One core and its peers: [`Replicator`], what to ask of whom and what to give.
//!
//! A node has one replicator for every core it replicates, and that has a `Peer` for every connection on which the core has a channel. It knows no
//! connection and no clock: it is told what happened, with the time, and asked what to do.
//!
//! ```text
//!   peer_opened, handle_message, handle_wants, ...        work(now)                      poll_output, poll_timeout
//!                  |                                          |                                     ^
//!                  v                                          v                                     |
//!   sync      where each peer stands              1 take in     what was received, one batch  -> sync, range: what is news to whom
//!   range,    what each has           mod.rs      2 ask         upgrade, wanted blocks        -> request, want, cancel
//!   bitfield                                      3 serve       what was asked of us          -> data, noData, bitfield
//!   data      waits to be taken in    intake.rs
//!   request   waits to be served      upload.rs
//!   wants     which blocks someone waits for      schedule.rs
//! ```
//!
//! `handle_*` only note what they are told; whatever reads or writes the store happens in [`work`](Replicator::work), so that a driver can run it where
//! blocking is allowed, and so that all blocks that came in meanwhile are one batch.
//!
//! **How a reader gets longer.** Each side says where it stands with `sync`; `remoteLength` in it is what it last heard of the other. Who is behind asks one peer at
//! a time for an upgrade, once that peer has acknowledged the reader's own length and says it can prove the way from there. The answer carries a signed length; only
//! then are blocks asked for, each with as many hashes as lead up to one that is known.
//!
//! **How it learns who has what.** A peer that holds everything says so (`range 0..n`), a sparse one is asked about windows of 2^21 blocks (`want`) and answers with
//! a bitfield, and from then on tells what it gets.
//!
//! **What a peer can do to us.** Nothing it sends is stored before it is verified against signed roots. What does not verify ends its connection, after it was asked
//! for its history: if the writer signed two, the core freezes. What it makes us hold is bounded: see [`remote_bitfield`], [`upload`], [`peer`]. If it does not
//! answer, others are asked.
//!
//! What must stay true: at most one upgrade and one reorg are in flight; a block is asked of at most two peers at a time; a block that is asked of someone is in
//! `Schedule::asked` until it is taken in, refused, or the peer is gone; peers are walked in the order of their ids, so that a run can be repeated.
//! Source: hypercore `lib/replicator.js`.

mod intake;
pub mod peer;
pub mod remote_bitfield;
mod schedule;
#[cfg(test)]
mod tests;
pub mod upload;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pgbee_engine::crypto::manifest::Manifest;
use pgbee_engine::encoding::compact::{self, Decoder};
use pgbee_engine::hypercore::Core;
use pgbee_engine::hypercore::wants::Change;
use pgbee_engine::hypercore::watch::Position;
use pgbee_engine::{BlockIndex, Length};

use crate::error::Fault;
use crate::protocol::messages::{Message, Sync};
use intake::Incoming;
use peer::{Peer, Windows};
use schedule::{Runs, Schedule};

/// A moment: the time since any moment that is the same for all calls.
pub type Now = Duration;

/// A channel of this core on some connection. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// Blocks at the end of a core are news to every peer, not only to those who want their window.
const LAST_BLOCKS: u64 = 256;
/// How many `noData` answers of one kind pause a peer, as in JavaScript.
const NO_DATA_MAX: u32 = 32;
/// For how long.
const PAUSE: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message.
    Send(PeerId, Message),
    /// Close the channel: there is nothing to say on it. The peer is forgotten already.
    Close(PeerId),
    /// End the connection: the peer broke the rules. It is forgotten already.
    Destroy(PeerId, Fault),
}

/// What is known of a peer, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The length it claims.
    pub length: Length,
    /// Blocks received from it.
    pub blocks_in: u64,
    /// Blocks sent to it.
    pub blocks_out: u64,
    /// The smoothed time from request to answer.
    pub round_trip: Option<Duration>,
}

/// One core and its peers.
pub struct Replicator {
    core: Arc<Core>,
    is_downloading: bool,
    /// Where the core stands, as peers were told.
    position: Position,
    peers: BTreeMap<PeerId, Peer>,
    schedule: Schedule,
    incoming: VecDeque<Incoming>,
    outputs: VecDeque<Output>,
    /// Whose turn it is to be served or asked first.
    turn: usize,
    /// The store failed: nothing is asked before this.
    store_failed_until: Option<Now>,
    /// How many may have a wanted block is to be said again.
    are_holders_stale: bool,
    verification_failures: u64,
    uploaded_bytes: u64,
    was_busy: bool,
}

impl Replicator {
    /// Of a core, which nobody is connected for. It serves; with `is_downloading` it keeps the core up to date, too, and fetches what is wanted of it.
    pub fn new(core: Arc<Core>, is_downloading: bool) -> Replicator {
        let position = shown(&core);
        let mut replicator = Replicator {
            core,
            is_downloading: false,
            position,
            peers: BTreeMap::new(),
            schedule: Schedule::default(),
            incoming: VecDeque::new(),
            outputs: VecDeque::new(),
            turn: 0,
            store_failed_until: None,
            are_holders_stale: false,
            verification_failures: 0,
            uploaded_bytes: 0,
            was_busy: false,
        };
        replicator.set_downloading(is_downloading);
        replicator
    }

    /// The core.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Whether it keeps the core up to date.
    pub fn is_downloading(&self) -> bool {
        self.is_downloading
    }

    /// Whether nobody is connected.
    pub fn is_idle(&self) -> bool {
        self.peers.is_empty()
    }

    /// How many peers there are.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// How many messages of peers failed verification.
    pub fn verification_failures(&self) -> u64 {
        self.verification_failures
    }

    /// The longest length that a peer claims.
    pub fn remote_length(&self) -> Length {
        self.peers.values().map(Peer::length).max().unwrap_or_default()
    }

    /// What is known of a peer.
    pub fn peer_status(&self, id: PeerId) -> Option<PeerStatus> {
        let peer = self.peers.get(&id)?;
        let (blocks_in, blocks_out) = (peer.blocks_in, peer.blocks_out);
        Some(PeerStatus { length: peer.length(), blocks_in, blocks_out, round_trip: peer.pace.round_trip() })
    }

    /// Begin or end keeping the core up to date.
    pub fn set_downloading(&mut self, is_downloading: bool) {
        if self.is_downloading == is_downloading {
            return;
        }
        self.is_downloading = is_downloading;
        if is_downloading {
            let wants = self.core.wants();
            wants.take();
            self.schedule.restart(wants.all(), wants.ranges());
            self.reset_cursors();
        } else {
            for id in self.ids() {
                self.cancel_all(id);
            }
            self.schedule = Schedule::default();
        }
        for id in self.ids() {
            self.signal_upgrade(id);
            self.close_if_idle(id);
        }
    }

    /// A channel was opened on both sides, and the peer has proved to know the key.
    pub fn peer_opened(&mut self, id: PeerId) {
        if self.core.conflict().is_some() {
            // It gets nothing from us, and we want nothing from it.
            return self.outputs.push_back(Output::Close(id));
        }
        self.peers.insert(id, Peer::new());
        self.send_sync(id);
        let contiguous = self.core.contiguous_len().0.min(self.position.length.0);
        if contiguous > 0 {
            self.announce(id, BlockIndex(0), contiguous);
        }
        self.peers_changed();
    }

    /// A channel was closed, by the remote or with its connection. Whether it should be opened again: the remote had nothing to do any longer, but we have.
    pub fn peer_closed(&mut self, id: PeerId) -> bool {
        let said = self.peers.get(&id).and_then(|peer| peer.said);
        self.forget(id);
        self.is_downloading && said.is_some_and(|said| !said.downloading && said.uploading)
    }

    /// A peer's connection takes no more at the moment, or takes more again.
    pub fn set_congested(&mut self, id: PeerId, is_congested: bool) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.uploads.is_congested = is_congested;
        }
    }

    /// A message of a peer. It is only noted: [`work`](Replicator::work) next.
    pub fn handle_message(&mut self, id: PeerId, message: Message, now: Now) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match message {
            Message::Sync(sync) => self.handle_sync(id, sync),
            Message::Request(requested) => {
                if !peer.uploads.push(requested) {
                    self.destroy(id, Fault::TooManyRequests);
                }
            }
            Message::Cancel { request } => peer.uploads.cancel(request),
            Message::Data(data) => self.handle_data(id, data, now),
            Message::NoData { request, reason } => self.handle_no_data(id, request, reason, now),
            Message::Want(span) => peer.uploads.want(span),
            Message::Unwant(span) => peer.uploads.unwant(span),
            Message::Bitfield { start, words } => {
                peer.has.bitfield(start, &words, LENGTH_MAX);
                peer.windows.answered(start);
                self.has_changed(id);
            }
            Message::Range { drop, start, length } => {
                if drop && start.0 < peer.has.contiguous() {
                    // It was held whole, and is sparse now: what is known of it may be less than it said.
                    peer.windows = Windows::default();
                }
                peer.has.range(drop, start, length, LENGTH_MAX);
                if start.0 == 0 && !drop {
                    peer.windows.answered_all();
                }
                self.has_changed(id);
            }
            Message::Extension { name, payload } => {
                if !name.is_empty() {
                    peer.extension_received = name;
                }
                let name = peer.extension_received.clone();
                // The payload is a compact `buffer`: it has a length of its own.
                if let Ok(body) = Decoder::new(&payload).buffer()
                    && self.core.extensions().handler(&name).is_some()
                {
                    peer.uploads.extension(name, body);
                }
            }
        }
    }

    /// What is wanted of the core has changed. Extension messages that wait are sent, too.
    pub fn handle_wants(&mut self, change: Change) {
        for (name, payload) in self.core.extensions().take() {
            for id in self.ids() {
                self.send_extension(id, name, &payload);
            }
        }
        if !self.is_downloading {
            return;
        }
        for block in change.dropped {
            for (peer, request) in self.schedule.drop_single(block) {
                self.cancel(peer, request);
            }
        }
        for block in change.wanted {
            self.schedule.want_single(block);
        }
        if change.ranges {
            self.schedule.ranges = self.core.wants().ranges();
            self.reset_cursors();
        }
        self.are_holders_stale = true;
    }

    /// The core may have moved: blocks were appended, it was truncated, or it is more durable than it was.
    pub fn handle_core_changed(&mut self) {
        let position = shown(&self.core);
        if position == self.position {
            return;
        }
        let before = std::mem::replace(&mut self.position, position);
        if position.fork != before.fork || position.length < before.length {
            let kept = self.core.unchanged_since(before.fork).min(before.length).min(position.length);
            return self.truncated(before, kept);
        }
        if self.core.contiguous_len() >= position.length {
            for id in self.ids() {
                self.announce(id, BlockIndex(before.length.0), position.length.0 - before.length.0);
            }
        }
        for id in self.ids() {
            self.signal_upgrade(id);
        }
        self.reset_cursors();
    }

    /// Take in, ask, serve. Reads and writes the store. Whether there is more to do at once.
    pub fn work(&mut self, now: Now) -> bool {
        self.handle_timeout(now);
        self.take_in(now);
        self.ask(now);
        let more_uploads = self.serve(now);
        if self.are_holders_stale {
            self.note_holders(now);
        }
        self.tell_whether_busy();
        more_uploads
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What it is at, for who looks for a bug.
    pub fn describe(&self) -> String {
        let peers: Vec<String> = self.peers.iter().map(|(id, peer)| peer.describe(*id)).collect();
        format!("{:?}, {}; {}", self.position, self.schedule.describe(), peers.join("; "))
    }

    /// Whether there is work that can be done right now.
    pub fn has_work(&self) -> bool {
        !self.incoming.is_empty() || self.peers.values().any(|peer| peer.uploads.is_ready())
    }

    fn ids(&self) -> Vec<PeerId> {
        self.peers.keys().copied().collect()
    }

    pub(self) fn send(&mut self, id: PeerId, message: Message) {
        self.outputs.push_back(Output::Send(id, message));
    }

    fn send_extension(&mut self, id: PeerId, name: &'static str, payload: &[u8]) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let is_same = std::mem::replace(&mut peer.extension_sent, name) == name;
        let mut body = Vec::with_capacity(payload.len() + 5);
        compact::buffer(&mut body, payload);
        let name = if is_same { String::new() } else { name.to_string() };
        self.send(id, Message::Extension { name, payload: Bytes::from(body) });
    }

    /// The manifest, if it is known and not implied by the key.
    fn manifest_to_send(&self) -> Option<Manifest> {
        self.core.manifest().filter(|manifest| !manifest.is_compat_with(self.core.key()))
    }

    fn is_busy(&self) -> bool {
        self.is_downloading || self.peers.values().any(|peer| !peer.questions.is_empty())
    }

    // ---- where everyone stands

    fn handle_sync(&mut self, id: PeerId, sync: Sync) {
        let (position, is_busy) = (self.position, self.is_busy());
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let is_length_new = sync.length != peer.length();
        let is_same_fork = sync.fork == position.fork;
        peer.said = Some(sync);
        if !sync.downloading && !is_busy {
            return self.close(id);
        }
        peer.acknowledged = if is_same_fork { sync.remote_length } else { Length(0) };
        let can_upgrade = if is_length_new && is_same_fork {
            self.can_upgrade(sync.length)
        } else {
            peer.can_upgrade && is_same_fork
        };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.can_upgrade = can_upgrade;
        if can_upgrade {
            peer.upgradable = (sync.fork, sync.length);
        }
        if is_same_fork && position.length > sync.length {
            self.signal_upgrade(id);
        }
        self.has_changed(id);
    }

    /// Whether the way from this length to ours can be proved.
    fn can_upgrade(&self, from: Length) -> bool {
        from == Length(0) || (from < self.position.length && self.core.can_prove_upgrade(from))
    }

    /// Our length is news to a peer: say it, unless it could do nothing with it.
    fn signal_upgrade(&mut self, id: PeerId) {
        let position = self.position;
        let Some(peer) = self.peers.get(&id) else { return };
        if peer.fork() == position.fork && position.length > peer.length() && !peer.can_upgrade {
            let from = peer.length();
            if !self.can_upgrade(from) {
                return;
            }
            let Some(peer) = self.peers.get_mut(&id) else { return };
            peer.can_upgrade = true;
            peer.upgradable = (position.fork, from);
        }
        self.send_sync(id);
    }

    fn send_sync(&mut self, id: PeerId) {
        let (position, downloading) = (self.position, self.is_busy());
        let has_manifest = self.manifest_to_send().is_some();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let is_same_fork = peer.fork() == position.fork;
        peer.can_upgrade &= is_same_fork;
        let sync = Sync {
            fork: position.fork,
            length: position.length,
            remote_length: if is_same_fork { peer.length() } else { Length(0) },
            can_upgrade: peer.can_upgrade,
            uploading: true,
            downloading,
            has_manifest,
            allow_push: false,
        };
        self.send(id, Message::Sync(sync));
    }

    /// A core that is not downloaded says so once nothing is in flight any longer.
    fn tell_whether_busy(&mut self) {
        let is_busy = self.is_busy();
        if std::mem::replace(&mut self.was_busy, is_busy) && !is_busy {
            for id in self.ids() {
                self.signal_upgrade(id);
                self.close_if_idle(id);
            }
        }
    }

    fn close_if_idle(&mut self, id: PeerId) {
        let is_remote_idle = self.peers.get(&id).and_then(|peer| peer.said).is_some_and(|said| !said.downloading);
        if is_remote_idle && !self.is_busy() {
            self.close(id);
        }
    }

    // ---- what is here

    /// Tell a peer of blocks that are here now, if that is news to it.
    fn announce(&mut self, id: PeerId, start: BlockIndex, length: u64) {
        let own = self.position.length.0;
        let is_full = self.core.contiguous_len().0 >= own;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (mut start, mut length) = (start, length);
        let mut is_news = false;
        if is_full {
            (start, length) = (BlockIndex(0), own);
            // It has to know when a sparse core has become a full one.
            is_news = peer.told_full < length;
            peer.told_full = length;
        } else if start.0 + LAST_BLOCKS < own && !peer.uploads.remote_wants.wants(start, length) {
            return;
        }
        if is_news || !peer.has.has_all(start, length) {
            self.send(id, Message::Range { drop: false, start, length });
        }
    }

    /// The core has another history, or less of it: what was said and asked of the old one is void.
    fn truncated(&mut self, before: Position, kept: Length) {
        self.incoming.clear();
        self.schedule.forget_asked();
        let dropped = before.length.0.saturating_sub(kept.0);
        let contiguous = self.core.contiguous_len().0.min(self.position.length.0);
        for id in self.ids() {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            peer.told_full = peer.told_full.min(kept.0);
            peer.runs = Runs::default();
            if dropped > 0 {
                self.send(id, Message::Range { drop: true, start: BlockIndex(kept.0), length: dropped });
            }
            self.send_sync(id);
            if self.position.length > kept && contiguous > kept.0 {
                self.announce(id, BlockIndex(kept.0), contiguous - kept.0);
            }
        }
        self.reset_cursors();
    }

    /// What a peer has is other than it was.
    fn has_changed(&mut self, id: PeerId) {
        self.are_holders_stale = true;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.cursor = 0;
        }
    }

    fn reset_cursors(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.cursor = 0);
    }

    // ---- who is here

    fn peers_changed(&mut self) {
        self.core.wants().note_peers(self.peers.len());
        self.are_holders_stale = true;
    }

    /// Nothing more is heard of a peer: what was asked of it is asked of others.
    fn forget(&mut self, id: PeerId) {
        let Some(peer) = self.peers.remove(&id) else { return };
        for request in peer.questions.ids() {
            if let Some(question) = peer.questions.get(request) {
                self.schedule.release(id, request, &question.request);
            }
        }
        self.drop_incoming(id);
        self.schedule.forget_peer(id);
        self.reset_cursors();
        self.peers_changed();
    }

    fn close(&mut self, id: PeerId) {
        self.forget(id);
        self.outputs.push_back(Output::Close(id));
    }

    /// End a peer's connection.
    fn destroy(&mut self, id: PeerId, fault: Fault) {
        self.forget(id);
        self.outputs.push_back(Output::Destroy(id, fault));
    }
}

/// No core is longer: JavaScript counts no further.
const LENGTH_MAX: u64 = (1 << 53) - 1;

/// Where a core stands, as far as peers may know: a writer shows only what would survive a crash.
fn shown(core: &Core) -> Position {
    let head = core.head();
    let length = if core.is_writable() { head.length.min(core.durable_len()) } else { head.length };
    Position { fork: head.fork, length }
}
