//! The walks of a node: begun, fed with answers, ended.
//!
//! What must stay true: a walk that ended has no request under way; a limited number of walks runs at once, the others wait for their turn.

use std::net::SocketAddrV4;

use super::event::{Outgoing, Query, QueryId, Reply, RpcEvent};
use super::message::{DOWN_HINT, address_bytes};
use super::query::{DownHint, Purpose, Step, Walk};
use super::{Owner, Rpc, upkeep};
use crate::udp::Now;

/// Nodes that a walk of no haste asks at once while others have requests under way.
const BACKGROUND_CONCURRENCY: usize = 2;
/// Requests under way that make such a walk yield.
const BUSY: usize = 3;
/// "That node does not answer", sent in a tick.
const DOWN_HINTS_MAX: u32 = 50;

impl<T> Rpc<T> {
    /// Walk towards a target. Each answer is an [`RpcEvent::QueryReply`], the end an [`RpcEvent::QueryEnded`].
    pub fn query(&mut self, now: Now, query: Query) -> QueryId {
        self.next_query += 1;
        let id = QueryId(self.next_query);
        self.refresh_ticks = upkeep::REFRESH_TICKS;
        self.stats.queries_total += 1;
        let limits = &self.options.limits;
        if self.is_suspended || self.walks_waiting.len() >= limits.queries_waiting_max {
            self.events.push_back(RpcEvent::QueryEnded { query: id, closest: Vec::new() });
        } else if self.walks.len() >= limits.queries_max {
            self.walks_waiting.push_back((id, query));
        } else {
            self.begin_walk(now, id, query, Purpose::Owner);
        }
        id
    }

    /// Forget a query and its requests; nothing is told of it any more.
    pub fn cancel_query(&mut self, query: QueryId) {
        let now = self.last_tick;
        self.walks_waiting.retain(|(id, _)| *id != query);
        if self.walks.remove(&query).is_some() {
            self.forget_requests_of(now, query);
            self.begin_waiting_walks(now);
        }
    }

    /// A walk of this node itself, for which others have precedence.
    pub(super) fn begin_background_walk(&mut self, now: Now, target: [u8; 32], purpose: Purpose) -> QueryId {
        self.next_query += 1;
        let id = QueryId(self.next_query);
        self.refresh_ticks = upkeep::REFRESH_TICKS;
        self.stats.queries_total += 1;
        self.begin_walk(now, id, Query::find_node(target), purpose);
        id
    }

    pub(super) fn has_walk(&self, purpose: Purpose) -> bool {
        self.walks.values().any(|walk| walk.purpose == purpose)
    }

    fn begin_walk(&mut self, now: Now, id: QueryId, query: Query, purpose: Purpose) {
        let concurrency = if purpose == Purpose::Owner { self.options.concurrency } else { BACKGROUND_CONCURRENCY };
        let mut walk = Walk::new(query, purpose, concurrency, self.options.limits.closest_per_subnet);
        if walk.missing() > 0 {
            self.give_table(&mut walk);
        }
        self.walks.insert(id, walk);
        self.advance(now, id);
    }

    /// The closest nodes of the table, and bootstrap nodes if these are too few.
    fn give_table(&self, walk: &mut Walk) {
        let target = walk.query.target;
        walk.add_known(self.table.closest(&target, walk.missing()).map(|node| node.address));
        if walk.missing() > 0 {
            walk.add_known(self.bootstrap_nodes());
        }
    }

    pub(super) fn bootstrap_nodes(&self) -> impl Iterator<Item = SocketAddrV4> + '_ {
        self.options.bootstrap.iter().copied().filter(|node| Some(*node) != self.remote_address())
    }

    pub(super) fn walk_answered(&mut self, now: Now, id: QueryId, reply: Reply, is_slow: bool) {
        let Some(mut walk) = self.walks.remove(&id) else { return };
        let own = *self.table.id();
        let is_good =
            |node: &SocketAddrV4| self.is_node_allowed(reply.from, *node) && super::message::node_id(*node) != own;
        let hints = walk.answered(&reply, reply.closer.iter().copied().filter(is_good), is_slow);
        if reply.error == 0 {
            self.walk_succeeded(id, &mut walk, reply);
        }
        self.walks.insert(id, walk);
        self.send_down_hints(hints);
        self.go_on(now, id);
    }

    fn walk_succeeded(&mut self, id: QueryId, walk: &mut Walk, reply: Reply) {
        if walk.purpose == Purpose::Bootstrap {
            self.bootstrap_answered(&reply);
        }
        if walk.purpose == Purpose::Owner {
            self.events.push_back(RpcEvent::QueryReply { query: id, reply });
        } else {
            walk.concurrency =
                if self.inflight.len() < BUSY { self.options.concurrency } else { BACKGROUND_CONCURRENCY };
        }
    }

    pub(super) fn walk_missed(&mut self, now: Now, id: QueryId, node: SocketAddrV4, is_slow: bool) {
        let Some(walk) = self.walks.get_mut(&id) else { return };
        let hints = walk.missed(node, is_slow);
        self.send_down_hints(hints);
        self.go_on(now, id);
    }

    pub(super) fn walk_slowed(&mut self, now: Now, id: QueryId) {
        if let Some(walk) = self.walks.get_mut(&id) {
            walk.slowed();
            self.go_on(now, id);
        }
    }

    /// Something happened to a walk.
    fn go_on(&mut self, now: Now, id: QueryId) {
        self.advance(now, id);
        self.begin_waiting_walks(now);
    }

    fn advance(&mut self, now: Now, id: QueryId) {
        while let Some(mut walk) = self.walks.remove(&id) {
            match walk.step() {
                Step::Ask(node) => {
                    if !self.ask(id, &walk, node) {
                        walk.missed(node, false);
                    }
                }
                Step::NeedsTable => self.give_table(&mut walk),
                Step::Wait => {
                    self.walks.insert(id, walk);
                    return;
                }
                Step::End => return self.end_walk(now, id, walk),
            }
            self.walks.insert(id, walk);
        }
    }

    fn ask(&mut self, id: QueryId, walk: &Walk, node: SocketAddrV4) -> bool {
        let request = Outgoing {
            internal: walk.query.internal,
            target: Some(walk.query.target),
            value: walk.query.value.clone(),
            retries: Some(walk.retries()),
            ..Outgoing::new(node, walk.query.command)
        };
        self.begin_request(request, Owner::Walk { query: id, is_slow: false }).is_ok()
    }

    fn end_walk(&mut self, now: Now, id: QueryId, walk: Walk) {
        self.forget_requests_of(now, id);
        match walk.purpose {
            Purpose::Owner => self.events.push_back(RpcEvent::QueryEnded { query: id, closest: walk.into_closest() }),
            Purpose::Bootstrap => self.bootstrap_walked(now),
            Purpose::Refresh => {}
        }
    }

    fn begin_waiting_walks(&mut self, now: Now) {
        while self.walks.len() < self.options.limits.queries_max {
            let Some((id, query)) = self.walks_waiting.pop_front() else { return };
            self.begin_walk(now, id, query, Purpose::Owner);
        }
    }

    fn forget_requests_of(&mut self, now: Now, id: QueryId) {
        self.inflight.remove_where(now, |owner| matches!(owner, Owner::Walk { query, .. } if *query == id));
    }

    /// All walks end with what they have; their requests are gone already.
    pub(super) fn end_all_walks(&mut self) {
        let running = std::mem::take(&mut self.walks).into_iter().filter(|(_, walk)| walk.purpose == Purpose::Owner);
        let running = running.map(|(id, walk)| (id, walk.into_closest()));
        let waiting = std::mem::take(&mut self.walks_waiting).into_iter().map(|(id, _)| (id, Vec::new()));
        self.events.extend(running.chain(waiting).map(|(query, closest)| RpcEvent::QueryEnded { query, closest }));
    }

    fn send_down_hints(&mut self, hints: Vec<DownHint>) {
        for hint in hints {
            if !self.options.sends_down_hints || self.down_hints_sent >= DOWN_HINTS_MAX {
                return;
            }
            self.down_hints_sent += 1;
            self.begin_internal(hint.to, DOWN_HINT, Some(address_bytes(hint.about).to_vec()), 1, Owner::Nobody);
        }
    }
}
