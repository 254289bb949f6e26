//! What to ask of whom, how much at once, and when to ask again: [`Schedule`].
//!
//! ```text
//! newer fork      one peer at a time     upgrade from 0, then hashes down to where the histories part
//! manifest        one peer               if there is nothing longer to ask for
//! upgrade         one peer               the longest that can prove it, of those that have kept their word
//! single blocks   whoever will be first  readers wait for these: priority 1
//! ranges          runs of 1024, a peer each, in order: neighbours share hashes, so their proofs stay small
//! ```
//!
//! A block is asked of one peer. If that does not answer in three round trips (but not before half a second), another one is asked, too; the first answer wins, and
//! the other request is cancelled. A peer that is too late gets less to do.
//!
//! What must stay true: a single block that is wanted is in the queue, or asked, or here; a cursor behind which something became possible goes back to 0.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use pgbee_engine::hypercore::proof::{BlockRequest, Request, UpgradeRequest};
use pgbee_engine::hypercore::reorg::Reorg;
use pgbee_engine::{BlockIndex, Fork, Length, NodeIndex, flat_tree};

use super::peer::{IN_FLIGHT_MAX, Peer};
use super::{Now, PeerId, Replicator};
use crate::protocol::messages::{Message, Requested, SEGMENT_BLOCKS};

/// How many blocks of a range one peer is asked for before the next peer's are. Twice as many as may be in flight: see [`Runs`].
const RUN_BLOCKS: u64 = 1024;
/// One block of so many leads its neighbours: it is asked for a run ahead of them.
const LEADER_EVERY: u64 = 8;
/// How many blocks a peer is asked for before it is the next one's turn.
const TURN_BLOCKS: usize = 64;
/// How many single blocks are looked at in one go.
const SINGLES_LOOKED_AT: usize = 4096;
/// How many windows of ranges a peer is asked about at a time.
const RANGE_WINDOWS: usize = 3;
/// What a reader waits for goes before what is fetched ahead.
const PRIORITY_SINGLE: u64 = 1;
/// A request for an upgrade is given up after so long at least.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(2);
/// What is thought of a peer that has not answered yet.
const ROUND_TRIP_GUESS: Duration = Duration::from_millis(50);

/// The blocks of a range that one peer is about to be asked for, in an order that keeps proofs small.
///
/// A block's proof leads up to the first hash that is known when it is asked for. With hundreds in flight, that of its left neighbour is not known yet. So one block
/// of eight is asked for a whole run ahead: its answer brings the hashes that the others' proofs then end at.
///
/// ```text
/// leaders of run 1    leaders of run 2    rest of run 1    leaders of run 3    rest of run 2  ..
/// ```
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    /// Its leaders were asked for; the others are next.
    rest: Range<u64>,
    /// Its leaders are asked for now.
    ahead: Range<u64>,
    leader: u64,
}

impl Runs {
    fn next(&mut self) -> Option<BlockIndex> {
        if self.leader < self.ahead.end {
            let leader = self.leader;
            self.leader = (leader / LEADER_EVERY + 1) * LEADER_EVERY;
            return Some(BlockIndex(leader));
        }
        self.rest.next().map(BlockIndex)
    }

    /// Nothing is left of the rest: go on to what is ahead, with another run ahead of that, which may be empty. Whether there is anything left.
    fn advance(&mut self, ahead: Range<u64>) -> bool {
        self.rest = std::mem::replace(&mut self.ahead, ahead);
        self.leader = self.ahead.start;
        !self.rest.is_empty() || !self.ahead.is_empty()
    }

    fn next_back(&mut self) -> Option<BlockIndex> {
        self.ahead.next_back().or_else(|| self.rest.next_back()).map(BlockIndex)
    }

    /// Where the run that a block is in ends.
    fn end_of(&self, block: u64) -> Option<u64> {
        [&self.rest, &self.ahead].into_iter().find(|run| run.contains(&block)).map(|run| run.end)
    }

    /// What [`next_back`](Runs::next_back) gave is to stay.
    fn put_back(&mut self, block: BlockIndex) {
        if block.0 == self.ahead.end {
            self.ahead.end += 1;
        } else {
            self.rest.end = block.0 + 1;
        }
    }
}

/// What is wanted, and what is asked for.
#[derive(Default)]
pub(super) struct Schedule {
    /// Single blocks that are wanted.
    wanted: HashSet<BlockIndex>,
    /// Those of them that are not asked of anyone.
    queue: VecDeque<BlockIndex>,
    /// What is wanted whole.
    pub ranges: Vec<Range<BlockIndex>>,
    /// Blocks that are asked for, or wait to be taken in.
    asked: HashMap<BlockIndex, Askers>,
    /// The upgrade in flight.
    upgrade: Option<(PeerId, u64)>,
    /// The request for nothing but the manifest.
    manifest: Option<(PeerId, u64)>,
    /// The newer fork that is followed.
    pub following: Option<Following>,
}

/// Whom a block is asked of: peers and ids of requests.
#[derive(Clone, Copy, Debug, Default)]
struct Askers {
    first: Option<(PeerId, u64)>,
    second: Option<(PeerId, u64)>,
}

/// A newer fork on its way to being followed.
pub(super) struct Following {
    pub fork: Fork,
    pub question: Option<(PeerId, u64)>,
    pub reorg: Option<Reorg>,
}

impl Askers {
    fn iter(self) -> impl Iterator<Item = (PeerId, u64)> {
        self.first.into_iter().chain(self.second)
    }

    fn contains(self, peer: PeerId) -> bool {
        self.iter().any(|(asker, _)| asker == peer)
    }
}

impl Schedule {
    /// Begin with what is wanted now.
    pub fn restart(&mut self, singles: Vec<BlockIndex>, ranges: Vec<Range<BlockIndex>>) {
        self.ranges = ranges;
        singles.into_iter().for_each(|block| self.want_single(block));
    }

    /// For who looks for a bug.
    pub fn describe(&self) -> String {
        let following =
            self.following.as_ref().map(|following| (following.fork, following.question, following.reorg.is_some()));
        let (wanted, queued, asked) = (self.wanted.len(), self.queue.len(), self.asked.len());
        format!(
            "{wanted} wanted, {queued} queued, {asked} asked, ranges {:?}, upgrade {:?}, manifest {:?}, following {following:?}",
            self.ranges, self.upgrade, self.manifest
        )
    }

    pub fn want_single(&mut self, block: BlockIndex) {
        if self.wanted.insert(block) && !self.asked.contains_key(&block) {
            self.queue.push_back(block);
        }
    }

    /// Nobody waits for it any longer. What can be cancelled; nothing if a range wants it, too.
    pub fn drop_single(&mut self, block: BlockIndex) -> Vec<(PeerId, u64)> {
        if !self.wanted.remove(&block) || self.is_in_range(block) {
            return Vec::new();
        }
        self.asked.get(&block).map_or(Vec::new(), |askers| askers.iter().collect())
    }

    fn is_in_range(&self, block: BlockIndex) -> bool {
        self.ranges.iter().any(|range| range.contains(&block))
    }

    /// A block is here. Whom it was asked of.
    pub fn arrived(&mut self, block: BlockIndex) -> impl Iterator<Item = (PeerId, u64)> + use<> {
        self.wanted.remove(&block);
        self.asked.remove(&block).unwrap_or_default().iter()
    }

    /// A request was answered, refused or cancelled: what it asked for is not asked of that peer any longer.
    pub fn release(&mut self, peer: PeerId, request: u64, asked: &Request) {
        let this = Some((peer, request));
        if let Some(block) = asked.block.map(|block| block.index)
            && let Some(askers) = self.asked.get_mut(&block)
        {
            if askers.first == this {
                askers.first = askers.second.take();
            } else if askers.second == this {
                askers.second = None;
            }
            if askers.first.is_none() {
                self.asked.remove(&block);
                if self.wanted.contains(&block) {
                    self.queue.push_front(block);
                }
            }
        }
        if self.upgrade == this {
            self.upgrade = None;
        }
        if self.manifest == this {
            self.manifest = None;
        }
        if self.following.as_ref().is_some_and(|following| following.question == this) {
            self.following = None;
        }
    }

    /// A peer is gone; its requests were released.
    pub fn forget_peer(&mut self, peer: PeerId) {
        debug_assert!(self.upgrade.is_none_or(|(asked, _)| asked != peer));
        if self.following.as_ref().is_some_and(|following| following.question.is_some_and(|(asked, _)| asked == peer)) {
            self.following = None;
        }
    }

    /// There is another history: nothing that was asked of the old one counts.
    pub fn forget_asked(&mut self) {
        self.asked.clear();
        (self.upgrade, self.manifest, self.following) = (None, None, None);
        let mut queue: Vec<BlockIndex> = self.wanted.iter().copied().collect();
        queue.sort_unstable();
        self.queue = queue.into();
    }
}

impl Replicator {
    /// Ask peers for what is wanted.
    pub(super) fn ask(&mut self, now: Now) {
        if !self.is_downloading
            || self.store_failed_until.is_some()
            || self.peers.is_empty()
            || self.core.is_writable()
            || self.core.conflict().is_some()
        {
            return;
        }
        self.ask_fork(now);
        self.ask_manifest(now);
        self.ask_upgrade(now);
        self.ask_singles(now);
        self.ask_ranges(now);
    }

    /// Ask, and note what was asked.
    fn question(&mut self, id: PeerId, request: Request, priority: u64, now: Now) -> Option<(PeerId, u64)> {
        let peer = self.peers.get_mut(&id)?;
        let fork = peer.fork();
        let number = peer.questions.ask(request.clone(), fork, now);
        if peer.room() == 0 {
            peer.pace.full();
        }
        self.send(id, Message::Request(Requested { id: number, fork, priority, request }));
        Some((id, number))
    }

    /// A request need not be answered any longer.
    pub(super) fn cancel(&mut self, id: PeerId, request: u64) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(question) = peer.questions.cancel(request) else { return };
        self.schedule.release(id, request, &question.request);
        self.send(id, Message::Cancel { request });
    }

    pub(super) fn cancel_all(&mut self, id: PeerId) {
        let requests = self.peers.get(&id).map_or(Vec::new(), |peer| peer.questions.ids());
        for request in requests {
            self.cancel(id, request);
        }
    }

    // ---- heads

    /// A peer is on a newer fork: begin to follow it. One is followed to its end, or until its peer fails: claiming a still newer one costs nothing.
    fn ask_fork(&mut self, now: Now) {
        if self.schedule.following.is_some() {
            return;
        }
        let current = self.position.fork;
        let newer = |peer: &Peer| {
            peer.is_active(now) && now >= peer.upgrade_after && peer.fork() > current && peer.length() > Length(0)
        };
        let worth = |peer: &Peer| (Reverse(peer.upgrade_failures), peer.has_upgraded_us, peer.fork());
        let newest = self.peers.iter().filter(|(_, peer)| newer(peer)).max_by_key(|(_, peer)| worth(peer));
        let Some((&id, peer)) = newest else { return };
        let (fork, length) = (peer.fork(), peer.length().0);
        let upgrade = Some(UpgradeRequest { start: Length(0), length });
        let manifest = self.core.manifest().is_none();
        let question = self.question(id, Request { upgrade, manifest, ..Request::default() }, 0, now);
        self.schedule.following = Some(Following { fork, question, reorg: None });
    }

    /// There is nothing longer, but someone knows the manifest.
    fn ask_manifest(&mut self, now: Now) {
        if self.schedule.manifest.is_some() || self.core.verifier().is_some() {
            return;
        }
        let knows = |peer: &Peer| {
            peer.is_active(now)
                && now >= peer.upgrade_after
                && peer.said.is_some_and(|said| said.has_manifest && said.length == Length(0))
        };
        let first = self.peers.iter().find(|(_, peer)| knows(peer)).map(|(id, _)| *id);
        if let Some(id) = first {
            self.schedule.manifest = self.question(id, Request { manifest: true, ..Request::default() }, 0, now);
        }
    }

    fn ask_upgrade(&mut self, now: Now) {
        if self.schedule.upgrade.is_some() {
            return;
        }
        let position = self.position;
        let can = |peer: &Peer| {
            let may =
                peer.is_active(now) && now >= peer.upgrade_after && peer.said.is_some_and(|said| said.can_upgrade);
            may && peer.fork() == position.fork
                && peer.length() > position.length
                && peer.acknowledged == position.length
        };
        // Any length can be claimed: whoever has given an upgrade comes before who has not, and who has withheld one comes last.
        let worth = |peer: &Peer| {
            let (failures, round_trip) = (Reverse(peer.upgrade_failures), Reverse(peer.pace.round_trip()));
            (failures, peer.has_upgraded_us, peer.length(), round_trip)
        };
        let best = self.peers.iter().filter(|(_, peer)| can(peer)).max_by_key(|(_, peer)| worth(peer));
        let Some((&id, peer)) = best else { return };
        let upgrade = Some(UpgradeRequest { start: position.length, length: peer.length().0 - position.length.0 });
        let manifest = self.core.verifier().is_none() && peer.said.is_some_and(|said| said.has_manifest);
        // The newest block travels with the head if it is wanted anyway: one round trip less.
        let last = BlockIndex(peer.length().0 - 1);
        let is_wanted = self.schedule.is_in_range(last) || self.schedule.wanted.contains(&last);
        let is_free = !self.schedule.asked.contains_key(&last) && peer.has.get(last);
        let block = (is_wanted && is_free).then_some(BlockRequest { index: last, nodes: 0 });
        let asked = self.question(id, Request { block, upgrade, manifest, ..Request::default() }, 0, now);
        self.schedule.upgrade = asked;
        if block.is_some() {
            self.schedule.asked.insert(last, Askers { first: asked, second: None });
        }
    }

    // ---- blocks

    /// Whether a peer could prove this block to us now.
    fn can_give(&self, peer: &Peer, block: BlockIndex) -> bool {
        peer.fork() == self.position.fork && block.0 < peer.length().0 && peer.has.get(block) && {
            let is_behind = peer.length() < self.position.length;
            let is_related =
                peer.can_upgrade || (peer.upgradable.0 == self.position.fork && block.0 < peer.upgradable.1.0);
            !is_behind || is_related
        }
    }

    fn ask_block(&mut self, id: PeerId, block: BlockIndex, priority: u64, now: Now) -> bool {
        let nodes = self.core.missing_nodes(block.node());
        let Some(peer) = self.peers.get(&id) else { return false };
        if peer.length() < self.position.length && !reaches(block.node(), nodes, peer.length()) {
            // The hash that we know lies above what it has.
            return false;
        }
        let request = Request { block: Some(BlockRequest { index: block, nodes }), ..Request::default() };
        let asked = self.question(id, request, priority, now);
        let askers = self.schedule.asked.entry(block).or_default();
        match askers.first {
            None => askers.first = asked,
            Some(_) => askers.second = asked,
        }
        true
    }

    /// Who will probably be the first to answer.
    fn best_peer(&self, block: BlockIndex, not: Askers, now: Now) -> Option<PeerId> {
        let may = |id: PeerId, peer: &Peer| {
            peer.is_active(now)
                && peer.questions.len() < IN_FLIGHT_MAX
                && !not.contains(id)
                && self.can_give(peer, block)
        };
        let wait = |peer: &Peer| {
            let round_trip = peer.pace.round_trip().unwrap_or(ROUND_TRIP_GUESS);
            let usual = round_trip + round_trip * peer.questions.len() as u32 / peer.pace.limit() as u32;
            peer.pace.silence(peer.patience()).map_or(usual, |silence| usual.max(silence))
        };
        self.peers.iter().filter(|(id, peer)| may(**id, peer)).min_by_key(|(_, peer)| wait(peer)).map(|(id, _)| *id)
    }

    fn ask_singles(&mut self, now: Now) {
        for _ in 0..self.schedule.queue.len().min(SINGLES_LOOKED_AT) {
            let Some(block) = self.schedule.queue.pop_front() else { break };
            if !self.schedule.wanted.contains(&block) || self.schedule.asked.contains_key(&block) {
                continue;
            }
            if self.core.has(block) {
                self.schedule.wanted.remove(&block);
                continue;
            }
            let best =
                self.position.length.contains(block).then(|| self.best_peer(block, Askers::default(), now)).flatten();
            match best {
                Some(id) if self.ask_block(id, block, PRIORITY_SINGLE, now) => {}
                _ => {
                    self.schedule.queue.push_back(block);
                    self.ask_who_has(block, now);
                }
            }
        }
    }

    /// Ask all peers whether they have a block, if they have not said so.
    fn ask_who_has(&mut self, block: BlockIndex, now: Now) {
        let fork = self.position.fork;
        for id in self.ids() {
            if let Some(peer) = self.peers.get(&id)
                && peer.is_active(now)
                && peer.fork() == fork
                && block.0 < peer.length().0
                && !peer.has.get(block)
            {
                self.ask_window(id, block, now);
            }
        }
    }

    fn ask_window(&mut self, id: PeerId, block: BlockIndex, now: Now) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (unwant, want) = peer.windows.use_for(block, now);
        if let Some(span) = unwant {
            self.send(id, Message::Unwant(span));
        }
        if let Some(span) = want {
            self.send(id, Message::Want(span));
        }
    }

    fn ask_ranges(&mut self, now: Now) {
        if self.schedule.ranges.is_empty() {
            return;
        }
        let mut ids = self.ids();
        let first = self.turn % ids.len().max(1);
        ids.rotate_left(first);
        loop {
            ids.retain(|&id| self.ask_run(id, now));
            if ids.is_empty() {
                break;
            }
        }
    }

    /// Ask a peer for some blocks of a range. Whether there may be more to ask of it.
    fn ask_run(&mut self, id: PeerId, now: Now) -> bool {
        for _ in 0..TURN_BLOCKS {
            let Some(peer) = self.peers.get_mut(&id) else { return false };
            if !peer.is_active(now) || peer.fork() != self.position.fork {
                return false;
            }
            if peer.room() == 0 {
                peer.pace.full();
                return false;
            }
            let Some(block) = self.next_in_ranges(id) else {
                self.ask_range_windows(id, now);
                return false;
            };
            self.ask_block(id, block, 0, now);
        }
        true
    }

    /// The next block of a wanted range that this peer can be asked for.
    fn next_in_ranges(&mut self, id: PeerId) -> Option<BlockIndex> {
        loop {
            let peer = self.peers.get_mut(&id)?;
            if let Some(block) = peer.runs.next() {
                if self.is_askable(id, block) {
                    return Some(block);
                }
                continue;
            }
            let ahead = self.next_run(id).unwrap_or_default();
            if !self.peers.get_mut(&id)?.runs.advance(ahead) {
                return self.steal(id);
            }
        }
    }

    fn is_askable(&self, id: PeerId, block: BlockIndex) -> bool {
        let Some(peer) = self.peers.get(&id) else { return false };
        !self.schedule.asked.contains_key(&block)
            && self.schedule.is_in_range(block)
            && !self.core.has(block)
            && self.position.length.contains(block)
            && self.can_give(peer, block)
    }

    /// The next blocks of a range that are missing, that the peer has, and that nobody else is about to be asked for.
    fn next_run(&mut self, id: PeerId) -> Option<Range<u64>> {
        let peer = self.peers.get(&id)?;
        let length = self.position.length.0.min(peer.length().0);
        let mut ranges: Vec<Range<u64>> =
            self.schedule.ranges.iter().map(|range| range.start.0..range.end.0.min(length)).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        for range in ranges {
            let mut at = peer.cursor.max(range.start);
            while at < range.end {
                let missing = self.core.first_missing(BlockIndex(at)).0;
                let Some(BlockIndex(held)) = peer.has.first_set(BlockIndex(missing)) else { break };
                if held > missing {
                    at = held;
                    continue;
                }
                if missing >= range.end {
                    break;
                }
                if self.schedule.asked.contains_key(&BlockIndex(missing)) {
                    at = missing + 1;
                    continue;
                }
                if let Some(end) = self.peers.values().find_map(|peer| peer.runs.end_of(missing)) {
                    at = end;
                    continue;
                }
                let end = ((missing / RUN_BLOCKS + 1) * RUN_BLOCKS).min(range.end);
                self.peers.get_mut(&id)?.cursor = end;
                return Some(missing..end);
            }
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.cursor = u64::MAX;
        }
        None
    }

    /// Nothing is left but what others are about to be asked for: take of that, from the end.
    fn steal(&mut self, id: PeerId) -> Option<BlockIndex> {
        for other in self.ids() {
            while let Some(peer) = self.peers.get_mut(&other)
                && other != id
                && let Some(block) = peer.runs.next_back()
            {
                if self.is_askable(id, block) {
                    return Some(block);
                }
                if self.is_askable(other, block) {
                    // Only the other one can be asked for it.
                    if let Some(peer) = self.peers.get_mut(&other) {
                        peer.runs.put_back(block);
                    }
                    break;
                }
            }
        }
        None
    }

    /// A sparse peer has nothing more of the ranges, as far as is known: ask it about the next windows.
    fn ask_range_windows(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.get(&id) else { return };
        let length = self.position.length.0.min(peer.length().0);
        let mut unknown = Vec::new();
        for range in &self.schedule.ranges {
            let (mut at, end) = (range.start.0, range.end.0.min(length));
            while at < end && unknown.len() < RANGE_WINDOWS {
                at = self.core.first_missing(BlockIndex(at)).0;
                let known = peer.has.first_missing(BlockIndex(at)).0;
                if known > at {
                    at = known;
                    continue;
                }
                if at < end && !peer.windows.is_answered(BlockIndex(at), now) {
                    unknown.push(BlockIndex(at));
                }
                at = (at / SEGMENT_BLOCKS + 1) * SEGMENT_BLOCKS;
            }
        }
        for block in unknown {
            self.ask_window(id, block, now);
        }
    }

    // ---- time

    /// When [`work`](Replicator::work) has to be called, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Now> {
        let of_peer = |peer: &Peer| {
            let slow = peer.questions.peek_oldest().map(|at| at + peer.patience());
            let retry = (peer.upgrade_after > Now::ZERO).then_some(peer.upgrade_after);
            let is_asking = !self.schedule.queue.is_empty() || !self.schedule.ranges.is_empty();
            let windows = peer.windows.next_answer().filter(|_| is_asking);
            [slow, retry, windows, peer.suspect_until, peer.paused_until, peer.uploads.next_refusal()]
                .into_iter()
                .flatten()
                .min()
        };
        self.peers.values().filter_map(of_peer).chain(self.store_failed_until).min()
    }

    /// Time has passed: ask others instead of slow peers, and end what has lasted too long.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        self.close_suspects(now);
        self.store_failed_until = self.store_failed_until.filter(|until| now < *until);
        for id in self.ids() {
            if let Some(peer) = self.peers.get_mut(&id) {
                if peer.paused_until.is_some_and(|until| now >= until) {
                    peer.paused_until = None;
                    peer.cursor = 0;
                }
                if peer.upgrade_after <= now {
                    peer.upgrade_after = Now::ZERO;
                }
                self.are_holders_stale |= peer.windows.expire(now);
            }
            self.ask_others(id, now);
        }
    }

    /// What a peer has not answered in time is asked of another.
    fn ask_others(&mut self, id: PeerId, now: Now) {
        while let Some(peer) = self.peers.get_mut(&id)
            && let Some((number, at)) = peer.questions.oldest()
            && at + peer.patience() <= now
        {
            peer.questions.postpone_oldest(now);
            peer.pace.silent();
            let Some(question) = peer.questions.get(number) else { break };
            let (request, sent_at) = (question.request.clone(), question.sent_at);
            let Some(block) = request.block.filter(|_| request.upgrade.is_none()).map(|block| block.index) else {
                if now >= sent_at + UPGRADE_PATIENCE.max(4 * peer.patience()) {
                    peer.upgrade_failed(now);
                    self.cancel(id, number);
                }
                continue;
            };
            let Some(&askers) = self.schedule.asked.get(&block) else { continue };
            let Some(other) = self.best_peer(block, askers, now) else { continue };
            if askers.second.is_some() {
                // Both are slow. The one asked first has had its time.
                self.cancel(id, number);
            }
            self.ask_block(other, block, PRIORITY_SINGLE, now);
        }
    }

    /// Tell readers how many peers have the blocks they wait for, where that is known.
    pub(super) fn note_holders(&mut self, now: Now) {
        self.are_holders_stale = false;
        let wants = self.core.wants();
        for &block in self.schedule.queue.iter().take(SINGLES_LOOKED_AT) {
            let is_known = self.peers.values().all(|peer| peer.knows(block, now));
            let holders = self.peers.values().filter(|peer| peer.is_active(now) && self.can_give(peer, block)).count();
            wants.note_holders(block, is_known.then_some(holders));
        }
    }
}

/// Whether the node so many steps above lies within a tree of this length.
fn reaches(node: NodeIndex, steps: u64, length: Length) -> bool {
    let mut node = node;
    for _ in 0..steps.min(64) {
        node = flat_tree::parent(node);
    }
    length.contains(flat_tree::last_block(node))
}
