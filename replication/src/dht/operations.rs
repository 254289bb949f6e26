//! What the owner asks the DHT for: look up, announce, put, get. Each a walk towards a target and, for what changes something, a request to each of the nodes
//! that were found closest.
//!
//! ```text
//! find_peer      FIND_PEER walk                 Peers as nodes tell them; only the record of that key
//! lookup         LOOKUP walk                    Peers as nodes tell them
//! announce       LOOKUP walk                    Peers too; then ANNOUNCE to the 20 closest, signed for each; the first time also what unannounce does
//! unannounce     LOOKUP walk                    UNANNOUNCE to each node that has our record, or so many that it may have
//! mutable_put    MUTABLE_GET walk               then MUTABLE_PUT to the 20 closest
//! mutable_get    MUTABLE_GET walk               the latest value that its owner signed
//! immutable_put  IMMUTABLE_GET walk             then IMMUTABLE_PUT to the 20 closest
//! immutable_get  IMMUTABLE_GET walk             the first value that has the hash; the walk ends there
//! ```
//!
//! A token holds for 7.5 s at least, a walk may take longer: a node that finds it too old gives a new one, and is asked once more.
//!
//! What must stay true: every operation ends with exactly one [`Outcome`], unless it is cancelled; a value counts only if its signature or hash is right, a
//! record of a key only if it is that key's; other records are hints, which cost a connect that fails if they are lies.
//!
//! Source: hyperdht `index.js`.

use std::net::SocketAddrV4;

use pgbee_engine::encoding::compact;

use super::messages::{
    self, Announcement, LookupReply, MutableValue, PeerRecord, Place, RECORDS_MAX, RELAYS_MAX, Signed, command,
};
use super::rpc::{Outgoing, Query, QueryId, Reply, RequestError, RequestId, message};
use super::{Asker, Context, DhtEvent, OperationId, Tag};
use crate::secret_stream::handshake::Identity;

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The walk is over. For what changes something, so many nodes keep it now, or forgot it; otherwise so many answered.
    Ended {
        /// How many.
        nodes: usize,
    },
    /// The latest value that its owner signed; None if no node has any.
    Mutable(Option<MutableValue>),
    /// The value that has the hash; None if no node has it.
    Immutable(Option<Vec<u8>>),
    /// A node keeps a later value than the one put, or another under the same number. So many others keep it.
    Outdated {
        /// How many.
        nodes: usize,
    },
}

/// What an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A node forgets an old announcement of ours.
    Clear,
    /// A node keeps something, or forgets it.
    Commit {
        /// It was asked before, with a token that was too old.
        is_retry: bool,
    },
}

/// What is asked.
pub(super) enum Wish {
    FindPeer,
    Lookup,
    Announce { identity: Identity, relays: Vec<SocketAddrV4>, is_first: bool },
    Unannounce { identity: Identity },
    MutablePut { public_key: [u8; 32], value: MutableValue },
    MutableGet { public_key: [u8; 32], seq_min: u64 },
    ImmutablePut { value: Vec<u8> },
    ImmutableGet,
}

impl Wish {
    /// What each node of the walk is asked.
    fn walk(&self) -> (u64, Option<Vec<u8>>) {
        match self {
            Wish::FindPeer => (command::FIND_PEER, None),
            Wish::Lookup | Wish::Announce { .. } | Wish::Unannounce { .. } => (command::LOOKUP, None),
            Wish::MutablePut { .. } => (command::MUTABLE_GET, Some(encode_uint(0))),
            Wish::MutableGet { seq_min, .. } => (command::MUTABLE_GET, Some(encode_uint(*seq_min))),
            Wish::ImmutablePut { .. } | Wish::ImmutableGet => (command::IMMUTABLE_GET, None),
        }
    }

    /// What a node at the end of the walk is asked, given its id and its token.
    fn commit(&self, target: &[u8; 32], node: &[u8; 32], token: &[u8; 32]) -> Option<(u64, Vec<u8>)> {
        let place = Place { target, node, token };
        match self {
            Wish::Announce { identity, relays, .. } => {
                Some((command::ANNOUNCE, Announcement::signed(Signed::Announce, &place, identity, relays).encode()))
            }
            Wish::MutablePut { public_key, value } => Some((command::MUTABLE_PUT, value.encode_put(public_key))),
            Wish::ImmutablePut { value } => Some((command::IMMUTABLE_PUT, value.clone())),
            Wish::FindPeer | Wish::Lookup | Wish::Unannounce { .. } | Wish::MutableGet { .. } | Wish::ImmutableGet => {
                None
            }
        }
    }
}

fn encode_uint(n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    compact::uint(&mut out, n);
    out
}

/// One operation under way.
pub(super) struct Operation {
    id: OperationId,
    target: [u8; 32],
    wish: Wish,
    query: Option<QueryId>,
    requests: Vec<RequestId>,
    /// Requests not yet answered.
    pending: usize,
    /// The closest nodes, once the walk is over, until they are asked.
    closest: Option<Vec<Reply>>,
    /// Nodes that answered the walk; nodes that did as they were asked.
    answered: usize,
    done: usize,
    is_outdated: bool,
    latest: Option<MutableValue>,
    outcome: Option<Outcome>,
}

impl Operation {
    /// Begin the walk; nodes found by an earlier one are asked first.
    pub(super) fn start(
        cx: &mut Context<'_>,
        id: OperationId,
        target: [u8; 32],
        wish: Wish,
        nodes: Vec<SocketAddrV4>,
    ) -> Operation {
        let (command, value) = wish.walk();
        let query = cx.query(Asker::Operation(id), Query { target, command, value, nodes, ..Query::default() });
        Operation {
            id,
            target,
            wish,
            query: Some(query),
            requests: Vec::new(),
            pending: 0,
            closest: None,
            answered: 0,
            done: 0,
            is_outdated: false,
            latest: None,
            outcome: None,
        }
    }

    /// Forget what is under way.
    pub(super) fn cancel(&mut self, cx: &mut Context<'_>) {
        self.query.take().into_iter().for_each(|query| cx.cancel_query(query));
        self.requests.drain(..).for_each(|request| cx.rpc.cancel(request));
    }

    /// Whether it takes an announcement back: what a node that stops still does.
    pub(super) fn is_farewell(&self) -> bool {
        matches!(self.wish, Wish::Unannounce { .. })
    }

    /// Where to.
    pub(super) fn target(&self) -> [u8; 32] {
        self.target
    }

    /// How it ended, once it did.
    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// A node answered the walk.
    pub(super) fn handle_query_reply(&mut self, cx: &mut Context<'_>, reply: &Reply) {
        self.answered += 1;
        let Some(value) = reply.value.as_deref() else { return };
        match &self.wish {
            Wish::FindPeer => {
                let record = PeerRecord::decode(value).ok();
                let record = record.filter(|record| messages::target_of(&record.public_key) == self.target);
                self.found(cx, record.into_iter().collect(), reply.from);
            }
            Wish::Lookup => self.found(cx, LookupReply::decode(value).unwrap_or_default().peers, reply.from),
            Wish::Announce { identity, is_first, .. } => {
                let peers = LookupReply::decode(value).unwrap_or_default().peers;
                if *is_first {
                    let identity = identity.clone();
                    self.clear(cx, &identity, reply, &peers);
                }
                self.found(cx, peers, reply.from);
            }
            Wish::Unannounce { identity } => {
                let identity = identity.clone();
                let peers = LookupReply::decode(value).unwrap_or_default().peers;
                self.clear(cx, &identity, reply, &peers);
            }
            Wish::MutableGet { public_key, seq_min } => {
                let is_later = |seq| seq >= *seq_min && self.latest.as_ref().is_none_or(|latest| seq > latest.seq);
                let value = MutableValue::decode(value).ok().filter(|value| is_later(value.seq));
                if let Some(value) = value.filter(|value| value.is_signed_by(public_key)) {
                    self.latest = Some(value);
                }
            }
            Wish::ImmutableGet if messages::target_of(value) == self.target => {
                self.cancel(cx);
                self.outcome = Some(Outcome::Immutable(Some(value.to_vec())));
            }
            Wish::ImmutableGet | Wish::MutablePut { .. } | Wish::ImmutablePut { .. } => {}
        }
    }

    fn found(&self, cx: &mut Context<'_>, mut peers: Vec<PeerRecord>, from: SocketAddrV4) {
        for peer in &mut peers {
            peer.relays.truncate(RELAYS_MAX);
            peer.relays.retain(|relay| relay.port() != 0);
        }
        if !peers.is_empty() {
            cx.event(DhtEvent::Peers { operation: self.id, peers, from });
        }
    }

    /// If a node has an announcement of ours, or too many to say, have it forget.
    fn clear(&mut self, cx: &mut Context<'_>, identity: &Identity, reply: &Reply, peers: &[PeerRecord]) {
        let own = identity.public_key();
        let (Some(node), Some(token)) = (reply.from_id, reply.token) else { return };
        // A node tells a sample of 20, or fewer with relays that fill the datagram.
        if peers.len() < RECORDS_MAX / 2 && !peers.iter().any(|peer| peer.public_key == own) {
            return;
        }
        let place = Place { target: &self.target, node: &node, token: &token };
        let value = Announcement::signed(Signed::Unannounce, &place, identity, &[]).encode();
        self.request(cx, reply.from, token, command::UNANNOUNCE, value, Step::Clear);
    }

    fn request(
        &mut self,
        cx: &mut Context<'_>,
        to: SocketAddrV4,
        token: [u8; 32],
        command: u64,
        value: Vec<u8>,
        step: Step,
    ) {
        let (target, token, value) = (Some(self.target), Some(token), Some(value));
        let outgoing = Outgoing { target, token, value, ..Outgoing::new(to, command) };
        self.requests.push(cx.request(outgoing, Tag::Operation(self.id, step)));
        self.pending += 1;
    }

    /// The walk is over.
    pub(super) fn handle_query_end(&mut self, cx: &mut Context<'_>, closest: Vec<Reply>) {
        self.query = None;
        self.closest = Some(closest);
        self.proceed(cx);
    }

    /// A node did as it was asked, or not.
    pub(super) fn handle_answer(&mut self, cx: &mut Context<'_>, step: Step, result: Result<Reply, RequestError>) {
        self.pending = self.pending.saturating_sub(1);
        if let Ok(reply) = result {
            let is_counted = step != Step::Clear || matches!(self.wish, Wish::Unannounce { .. });
            match (reply.error, step) {
                (0, _) => self.done += usize::from(is_counted),
                (message::INVALID_TOKEN, Step::Commit { is_retry: false }) => self.commit(cx, &reply, true),
                (messages::error::SEQ_REUSED | messages::error::SEQ_TOO_LOW, _) => self.is_outdated = true,
                _ => {}
            }
        }
        self.proceed(cx);
    }

    /// Once the walk is over and what was to be forgotten is: ask the closest; once they have answered: done.
    fn proceed(&mut self, cx: &mut Context<'_>) {
        if self.pending > 0 || self.outcome.is_some() {
            return;
        }
        if let Some(closest) = self.closest.take() {
            closest.iter().for_each(|reply| self.commit(cx, reply, false));
        } else if self.query.is_some() {
            return;
        }
        if self.pending == 0 {
            self.outcome = Some(self.end());
        }
    }

    fn commit(&mut self, cx: &mut Context<'_>, reply: &Reply, is_retry: bool) {
        let (Some(node), Some(token)) = (reply.from_id, reply.token) else { return };
        if let Some((command, value)) = self.wish.commit(&self.target, &node, &token) {
            self.request(cx, reply.from, token, command, value, Step::Commit { is_retry });
        }
    }

    fn end(&mut self) -> Outcome {
        match self.wish {
            Wish::FindPeer | Wish::Lookup => Outcome::Ended { nodes: self.answered },
            Wish::MutableGet { .. } => Outcome::Mutable(self.latest.take()),
            Wish::ImmutableGet => Outcome::Immutable(None),
            _ if self.is_outdated => Outcome::Outdated { nodes: self.done },
            _ => Outcome::Ended { nodes: self.done },
        }
    }
}
