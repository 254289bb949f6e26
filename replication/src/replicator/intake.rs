//! What peers answered, on its way into the store.
//!
//! ```text
//! data --matches its request?--> incoming --(work)--> Intake::verify .. add   all that waits, one batch
//!   |  no: like noData                                   |            \
//!   v                                                    v             commit --> announce to others, ask for more
//! id 0: evidence of a conflict?                        a bad one: the peer is suspect
//!   |  yes: told to all peers, the core freezes           ask it for its whole history, with id 0
//!   v  no: the suspect is closed  <-----------------------'
//! ```
//!
//! Blocks are written without waiting for the disk: after a crash a replica may lack what it had, and fetches it again. A head is written durably, with all
//! that was written before it, so that a length which peers were told of is never taken back.
//!
//! What must stay true: one bad proof in a batch costs nothing but itself; a failing store costs no peer anything.

use std::time::Duration;

use pgbee_engine::hypercore::intake::{Applied, Intake, Verified};
use pgbee_engine::hypercore::proof::{Proof, Request, UpgradeRequest};
use pgbee_engine::hypercore::watch::Position;
use pgbee_engine::storage::Durability;
use pgbee_engine::{BlockIndex, Error, Length};

use super::peer::Question;
use super::{NO_DATA_MAX, Now, PAUSE, PeerId, Replicator, shown};
use crate::error::Fault;
use crate::protocol::messages::{Data, Message, Reason, Requested};

/// How many bytes of blocks one batch may have.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How many proofs one batch may have.
const BATCH_PROOFS_MAX: usize = 8192;
/// After a failure of the store, nothing is asked for so long.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How long a suspect has to show that the writer signed two histories.
const SUSPECT_TIME: Duration = Duration::from_secs(5);
/// How much unfounded evidence a peer may send.
const EVIDENCE_MAX: u32 = 4;

/// A message that waits to be taken in.
pub(super) enum Incoming {
    /// The answer to a question.
    Answer { peer: PeerId, request: u64, question: Question, proof: Proof },
    /// What may be evidence that the writer signed two histories.
    Evidence { peer: PeerId, proof: Proof },
}

/// Whose fault an error of the engine is.
fn is_of_peer(error: &Error) -> bool {
    matches!(error, Error::InvalidProof(_) | Error::InvalidSignature | Error::InvalidManifest(_))
}

impl Replicator {
    pub(super) fn handle_data(&mut self, id: PeerId, data: Data, now: Now) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Data { request, proof } = data;
        if request == 0 {
            let is_evidence = proof.upgrade.as_ref().is_some_and(|upgrade| upgrade.start == Length(0));
            peer.evidence += u32::from(is_evidence);
            if peer.evidence > EVIDENCE_MAX {
                return self.destroy(id, Fault::UnfoundedConflicts);
            }
            if is_evidence {
                self.incoming.push_back(Incoming::Evidence { peer: id, proof });
            }
            return;
        }
        // Answers to what was cancelled come to nothing.
        let Some(question) = peer.questions.answered(request) else { return };
        peer.pace.answered(now.saturating_sub(question.sent_at));
        if !answers(&proof, &question) {
            return self.refused(id, request, &question, Reason::Unknown, now);
        }
        peer.no_data = [0; 2];
        self.incoming.push_back(Incoming::Answer { peer: id, request, question, proof });
    }

    pub(super) fn handle_no_data(&mut self, id: PeerId, request: u64, reason: Reason, now: Now) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(question) = peer.questions.answered(request) else { return };
        peer.pace.answered(now.saturating_sub(question.sent_at));
        self.refused(id, request, &question, reason, now);
    }

    /// A question was not answered. Others are asked; who does it all the time is left alone for a while.
    fn refused(&mut self, id: PeerId, request: u64, question: &Question, reason: Reason, now: Now) {
        self.schedule.release(id, request, &question.request);
        self.are_holders_stale = true;
        self.reset_cursors();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if question.fork < self.position.fork || question.fork != peer.fork() {
            // It was of a history that one of us has left: that says nothing of what the peer has now.
            return;
        }
        if let Some(block) = &question.request.block {
            // It said that it has it, and does not: so that it is not asked again at once.
            peer.has.range(true, block.index, 1, super::LENGTH_MAX);
        }
        if question.request.upgrade.is_some() {
            peer.upgrade_failed(now);
        }
        let kind = usize::from(reason == Reason::InvalidRequest);
        peer.no_data[kind] += 1;
        if peer.no_data[kind] >= NO_DATA_MAX {
            peer.no_data[kind] = 0;
            peer.paused_until = Some(now + PAUSE);
        }
    }

    /// A peer is gone: what it sent is not looked at any more.
    pub(super) fn drop_incoming(&mut self, id: PeerId) {
        let schedule = &mut self.schedule;
        self.incoming.retain(|incoming| match incoming {
            Incoming::Answer { peer, request, question, .. } if *peer == id => {
                schedule.release(id, *request, &question.request);
                false
            }
            Incoming::Answer { .. } => true,
            Incoming::Evidence { peer, .. } => *peer != id,
        });
    }

    /// Take in all that has come, in batches.
    pub(super) fn take_in(&mut self, now: Now) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(incoming) = self.incoming.pop_front() {
            match incoming {
                Incoming::Evidence { peer, proof } => {
                    self.take_in_batch(std::mem::take(&mut batch), now);
                    self.check_evidence(peer, &proof, now);
                }
                Incoming::Answer { peer, request, question, proof } if question.fork > self.position.fork => {
                    self.take_in_batch(std::mem::take(&mut batch), now);
                    self.follow_fork_answer(peer, request, &question, proof, now);
                }
                Incoming::Answer { peer, request, question, proof } => {
                    bytes += proof.block.as_ref().map_or(0, |block| block.value.len());
                    batch.push((peer, request, question, proof));
                }
            }
            if bytes >= BATCH_BYTES_MAX || batch.len() >= BATCH_PROOFS_MAX {
                self.take_in_batch(std::mem::take(&mut batch), now);
                bytes = 0;
            }
        }
        self.take_in_batch(batch, now);
    }

    fn take_in_batch(&mut self, batch: Vec<(PeerId, u64, Question, Proof)>, now: Now) {
        if batch.is_empty() {
            return;
        }
        let core = self.core.clone();
        let mut intake = core.intake();
        let mut taken = Vec::with_capacity(batch.len());
        let mut durability = Durability::NoSync;
        for (peer, request, question, proof) in batch {
            if question.fork != self.position.fork || !self.peers.contains_key(&peer) {
                self.schedule.release(peer, request, &question.request);
                continue;
            }
            let has_head = proof.upgrade.is_some();
            match self.verify(&intake, proof) {
                Ok(verified) => {
                    if let Some(verified) = verified {
                        intake.add(verified);
                    }
                    if has_head {
                        durability = Durability::Sync;
                    }
                    taken.push((peer, request, question));
                }
                Err(error) if is_of_peer(&error) => {
                    self.schedule.release(peer, request, &question.request);
                    self.suspect(peer, error, now);
                }
                // Perhaps it came too late. If not, who sends it again and again must not keep others from being asked.
                Err(Error::Invalid(_)) => self.refused(peer, request, &question, Reason::Unknown, now),
                Err(error) => {
                    if !matches!(error, Error::Frozen(_)) {
                        self.store_failed(&error, now);
                    }
                    self.schedule.release(peer, request, &question.request);
                    self.reset_cursors();
                }
            }
        }
        match intake.commit(durability) {
            Ok(applied) => self.taken(taken, applied),
            Err(error) => {
                for (peer, request, question) in taken {
                    self.schedule.release(peer, request, &question.request);
                }
                self.store_failed(&error, now);
            }
        }
    }

    /// `None` for a proof that is a manifest and nothing else.
    fn verify(&self, intake: &Intake<'_>, mut proof: Proof) -> pgbee_engine::Result<Option<Verified>> {
        let is_empty = proof.block.is_none() && proof.hash.is_none() && proof.seek.is_none() && proof.upgrade.is_none();
        match proof.manifest.take() {
            Some(manifest) if is_empty => self.core.learn_manifest(manifest).map(|()| None),
            manifest => intake.verify(Proof { manifest, ..proof }).map(Some),
        }
    }

    /// A batch is in the store.
    fn taken(&mut self, taken: Vec<(PeerId, u64, Question)>, applied: Applied) {
        for (id, request, question) in taken {
            if question.request.upgrade.is_some()
                && let Some(peer) = self.peers.get_mut(&id)
            {
                (peer.upgrade_failures, peer.has_upgraded_us) = (0, true);
            }
            let Some(block) = question.request.block.map(|block| block.index) else {
                self.schedule.release(id, request, &question.request);
                continue;
            };
            if question.request.upgrade.is_some() {
                self.schedule.release(id, request, &Request { block: None, ..question.request });
            }
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.blocks_in += 1;
            }
            for (other, other_request) in self.schedule.arrived(block) {
                if (other, other_request) != (id, request) {
                    self.lost_race(other, other_request);
                }
            }
        }
        self.applied(applied);
    }

    /// Someone else answered first.
    fn lost_race(&mut self, id: PeerId, request: u64) {
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.questions.get(request).is_some()
        {
            peer.pace.lost();
            self.cancel(id, request);
        }
    }

    fn applied(&mut self, applied: Applied) {
        let before = std::mem::replace(&mut self.position, shown(&self.core));
        if let Some(kept) = applied.truncated_to {
            self.truncated(before, kept.min(before.length));
        } else if self.position != before {
            for id in self.ids() {
                self.signal_upgrade(id);
            }
            self.reset_cursors();
        }
        for (start, length) in runs(&applied.blocks) {
            for id in self.ids() {
                self.announce(id, start, length);
            }
        }
        let behind: Vec<PeerId> = self.peers.iter().filter(|(_, peer)| !peer.can_upgrade).map(|(id, _)| *id).collect();
        for id in behind {
            self.became_provable(id);
        }
    }

    /// New nodes may lead from a peer's length to ours: then it is told.
    fn became_provable(&mut self, id: PeerId) {
        let Position { fork, length } = self.position;
        let Some(peer) = self.peers.get(&id) else { return };
        if peer.said.is_some() && peer.fork() == fork && length > peer.length() {
            self.signal_upgrade(id);
        }
    }

    fn store_failed(&mut self, error: &Error, now: Now) {
        // Answers that were on their way fail alike: one line for all of them.
        if self.store_failed_until.is_none() {
            tracing::error!(core = %self.core.key(), %error, "what peers sent could not be stored");
        }
        if let Error::Storage(error) = error {
            self.core.wants().note_failure(error);
        }
        self.store_failed_until = Some(now + STORE_PAUSE);
        self.reset_cursors();
    }

    /// A peer sent what does not verify. Perhaps the writer signed two histories, and it has the other: it is asked for that, and closed if it is not so.
    fn suspect(&mut self, id: PeerId, error: Error, now: Now) {
        self.verification_failures += 1;
        let position = self.position;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.suspect_until.is_some() {
            return;
        }
        tracing::warn!(core = %self.core.key(), %error, "a peer sent what does not verify");
        let length = position.length.min(peer.length());
        if length == Length(0) || peer.fork() != position.fork {
            return self.destroy(id, Fault::Unverified(error));
        }
        peer.suspect_until = Some(now + SUSPECT_TIME);
        self.cancel_all(id);
        let upgrade = Some(UpgradeRequest { start: Length(0), length: length.0 });
        let request = Request { upgrade, ..Request::default() };
        self.send(id, Message::Request(Requested { id: 0, fork: position.fork, priority: 0, request }));
    }

    fn check_evidence(&mut self, id: PeerId, proof: &Proof, now: Now) {
        let Some(peer) = self.peers.get(&id) else { return };
        let is_suspect = peer.suspect_until.is_some();
        match self.core.check_conflict(proof) {
            Ok(Some(conflict)) => {
                tracing::error!(core = %self.core.key(), length = %conflict.length, "the writer signed two histories: the core is frozen");
                // Others learn of it by our history, which they hold against theirs. Then there is nothing more to say.
                for id in self.ids() {
                    self.show_history(id);
                }
                if let Err(error) = self.core.freeze(conflict) {
                    self.store_failed(&error, now);
                }
                for id in self.ids() {
                    self.close(id);
                }
            }
            Ok(None) if is_suspect => {
                self.destroy(id, Fault::Unverified(Error::InvalidProof("it has no other history to show".to_string())))
            }
            Ok(None) => {}
            Err(error) if is_of_peer(&error) => {
                self.verification_failures += u64::from(!is_suspect);
                self.destroy(id, Fault::Unverified(error));
            }
            Err(error) => self.store_failed(&error, now),
        }
    }

    /// Send our history as evidence, with request id 0.
    fn show_history(&mut self, id: PeerId) {
        let position = self.position;
        let Some(peer) = self.peers.get(&id) else { return };
        let length = position.length.min(peer.length());
        if length == Length(0) || peer.fork() != position.fork {
            return;
        }
        let upgrade = Some(UpgradeRequest { start: Length(0), length: length.0 });
        if let Ok(proof) = self.core.prove(&Request { upgrade, ..Request::default() }) {
            self.send(id, Message::Data(Data { request: 0, proof }));
        }
    }

    /// An answer about a newer fork.
    fn follow_fork_answer(&mut self, id: PeerId, request: u64, question: &Question, proof: Proof, now: Now) {
        let Some(mut following) = self.schedule.following.take() else { return };
        if following.question != Some((id, request)) || following.fork != question.fork {
            self.schedule.following = Some(following);
            return;
        }
        following.question = None;
        let received = match following.reorg.take() {
            None => self.core.reorg(proof),
            Some(mut reorg) => reorg.receive(proof).map(|()| reorg),
        };
        let reorg = match received {
            Ok(reorg) => reorg,
            Err(error) if is_of_peer(&error) => {
                self.verification_failures += 1;
                return self.destroy(id, Fault::Unverified(error));
            }
            // Nothing that can be followed now: perhaps later, and others meanwhile.
            Err(Error::Invalid(_)) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.upgrade_failed(now);
                }
                return;
            }
            Err(error) => return self.store_failed(&error, now),
        };
        if let Some(next) = reorg.next_request() {
            following.reorg = Some(reorg);
            let Some(peer) = self.peers.get_mut(&id) else { return };
            let request = peer.questions.ask(next.clone(), following.fork, now);
            self.send(
                id,
                Message::Request(Requested { id: request, fork: following.fork, priority: 0, request: next }),
            );
            following.question = Some((id, request));
            self.schedule.following = Some(following);
            return;
        }
        match reorg.commit(Durability::Sync) {
            Ok(applied) => self.applied(applied),
            Err(Error::Invalid(_)) => {}
            Err(error) => self.store_failed(&error, now),
        }
    }

    /// Suspects who had nothing to show in time are closed.
    pub(super) fn close_suspects(&mut self, now: Now) {
        let over = |until: Option<Now>| until.is_some_and(|until| now >= until);
        let late: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| over(peer.suspect_until)).map(|(id, _)| *id).collect();
        for id in late {
            self.destroy(id, Fault::Unverified(Error::InvalidProof("it showed no other history".to_string())));
        }
    }
}

/// Whether a proof is about what was asked.
fn answers(proof: &Proof, question: &Question) -> bool {
    let Request { block, hash, seek, upgrade, .. } = &question.request;
    let is_block = proof.block.as_ref().map(|proof| proof.index) == block.map(|block| block.index);
    let is_hash = proof.hash.as_ref().map(|proof| proof.index) == hash.map(|hash| hash.index);
    let is_seek = proof.seek.as_ref().is_none_or(|proof| seek.is_some_and(|seek| seek.bytes == proof.bytes));
    let is_upgrade = proof.upgrade.as_ref().map(|proof| proof.start) == upgrade.map(|upgrade| upgrade.start);
    let is_anything =
        proof.block.is_some() || proof.hash.is_some() || proof.upgrade.is_some() || proof.manifest.is_some();
    is_block && is_hash && is_seek && is_upgrade && is_anything && proof.fork == question.fork
}

/// Blocks in a row, together.
fn runs(blocks: &[BlockIndex]) -> Vec<(BlockIndex, u64)> {
    let mut blocks: Vec<u64> = blocks.iter().map(|block| block.0).collect();
    blocks.sort_unstable();
    let mut runs: Vec<(BlockIndex, u64)> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some((start, length)) if start.0 + *length == block => *length += 1,
            Some((start, length)) if block < start.0 + *length => {}
            _ => runs.push((BlockIndex(block), 1)),
        }
    }
    runs
}
