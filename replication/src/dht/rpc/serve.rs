//! Requests of others: dht-rpc's own are answered here, the rest is handed out; and how replies are made.
//!
//! What must stay true: one datagram in, at most two out (the reply, and a ping to a stranger who claims an id or is to get much), the reply within [`limits`](super::limits);
//! nothing that comes in panics.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

use super::event::{Answer, Incoming, Outgoing, RpcEvent};
use super::message::{self, DELAYED_PING, DOWN_HINT, FIND_NODE, INVALID_TOKEN, K, PING, PING_NAT, UNKNOWN_COMMAND};
use super::{CANDIDATES_MAX, MET_MAX, MET_TICKS, Owner, Rpc, scope};
use crate::udp::{Now, SocketId, Transmit};

/// A row is well if each of its nodes was heard of within so many ticks: 20 minutes, in which the table's turn of pings comes round.
const WELL_TICKS: u64 = 240;
/// Delayed pings that wait for one host.
const DELAYED_PINGS_PER_HOST: usize = 8;
/// A reply so many times as large as its request waits until a stranger has answered a ping.
const PROOF_FACTOR: usize = 6;
/// Replies that wait so, in all and for one host.
const HELD_MAX: usize = 32;
const HELD_PER_HOST: usize = 8;
/// Pings because somebody said that a node does not answer.
const CHECKS_MAX: usize = 10;

impl<T> Rpc<T> {
    /// Answer a request. To a stranger the closer nodes may be fewer than we know, and a reply with a value much larger than the request waits until the stranger
    /// has answered a ping, or is not sent at all: see [`limits`](super::limits).
    pub fn answer(&mut self, now: Now, request: &Incoming, answer: Answer) {
        if self.is_suspended || self.transmits.len() >= self.options.limits.transmits_max {
            return;
        }
        let (socket, to) = (answer.socket.unwrap_or(request.socket), answer.to.unwrap_or(request.from));
        let mut reply = message::Reply {
            tid: request.tid,
            to,
            id: self.id_from(socket),
            token: answer.token.then(|| self.tokens.issue(now, *to.ip())),
            closer: request.target.filter(|_| answer.closer).map_or(Vec::new(), |target| self.closest_for(to, &target)),
            error: answer.error,
            value: answer.value,
        };
        if !request.has_valid_token && self.is_proof_wanted(now, &reply, request.size) && self.held.len() < HELD_MAX {
            return self.hold(socket, &reply);
        }
        if !request.has_valid_token && !self.fit(now, &mut reply, request.size) {
            self.stats.replies_refused += 1;
            return;
        }
        self.stats.replies_sent += 1;
        self.transmits.push_back(Transmit::new(socket, to, reply.encode()));
    }

    fn is_proof_wanted(&mut self, now: Now, reply: &message::Reply, request: usize) -> bool {
        reply.encoded_len() > PROOF_FACTOR * request
            && scope::Scope::of(reply.to) != Some(scope::Scope::Loopback)
            && !self.limits.is_proven(now, *reply.to.ip())
    }

    /// Ask its receiver whether it is there, and send the reply when it says so.
    fn hold(&mut self, socket: SocketId, reply: &message::Reply) {
        let to = reply.to;
        let of_host = self.held.iter().filter(|held| held.to.ip() == to.ip()).count();
        let is_asked = self.held.iter().any(|held| held.to == to);
        let ping = Outgoing { socket: Some(socket), retries: Some(0), ..Outgoing::ping(to) };
        if of_host >= HELD_PER_HOST || !(is_asked || self.begin_request(ping, Owner::Proof).is_ok()) {
            self.stats.replies_refused += 1;
            return;
        }
        self.stats.replies_held += 1;
        self.held.push_back(Transmit::new(socket, to, reply.encode()));
    }

    /// It is there, or not: send what waits for it, or drop it.
    pub(super) fn release(&mut self, to: SocketAddrV4, is_there: bool) {
        let room = self.options.limits.transmits_max.saturating_sub(self.transmits.len());
        let (released, held): (VecDeque<_>, _) =
            std::mem::take(&mut self.held).into_iter().partition(|held| held.to == to);
        self.held = held;
        if is_there {
            self.stats.replies_sent += released.len().min(room) as u64;
            self.transmits.extend(released.into_iter().take(room));
        }
    }

    /// The closest nodes that the requester can reach: nobody outside is told of a local network.
    fn closest_for(&self, to: SocketAddrV4, target: &[u8; 32]) -> Vec<SocketAddrV4> {
        let nodes = self.table.closest(target, usize::MAX).map(|node| node.address);
        nodes.filter(|&node| scope::is_believable(to, node)).take(K).collect()
    }

    /// Makes a reply as small as it must be; false: it cannot be.
    fn fit(&mut self, now: Now, reply: &mut message::Reply, request: usize) -> bool {
        let len = reply.encoded_len();
        let max = self.limits.reply_bytes_max(now, reply.to, request, len);
        if len <= max {
            return true;
        }
        self.stats.replies_shortened += 1;
        while reply.encoded_len() > max && reply.closer.pop().is_some() {}
        reply.encoded_len() <= max
    }

    pub(super) fn handle_request(
        &mut self,
        now: Now,
        socket: SocketId,
        from: SocketAddrV4,
        request: message::Request,
        size: usize,
    ) {
        if !self.limits.admits(now, from) {
            self.stats.requests_refused += 1;
            return;
        }
        let has_valid_token = request.token.is_some_and(|token| self.tokens.is_valid(now, *from.ip(), &token));
        let incoming = Incoming {
            tid: request.tid,
            from,
            from_id: message::checked_id(request.id, from),
            to: request.to,
            socket,
            has_valid_token,
            token: request.token,
            command: request.command,
            target: request.target,
            value: request.value,
            size,
        };
        if request.token.is_some() && !has_valid_token {
            self.stats.tokens_refused += 1;
            self.answer(now, &incoming, Answer { token: true, ..Answer::error(INVALID_TOKEN) });
            return;
        }
        if has_valid_token {
            self.limits.prove(now, *from.ip());
        }
        self.meet(&incoming);
        if request.internal {
            self.serve(now, incoming);
            return;
        }
        self.stats.others_received += 1;
        if self.events.len() >= self.options.limits.events_max {
            self.stats.requests_refused += 1;
            return;
        }
        self.events.push_back(RpcEvent::Request(incoming));
    }

    /// Somebody who asks claims to be a node. If that is news, it is asked whether it is there: its request may be forged.
    fn meet(&mut self, request: &Incoming) {
        let Some(id) = request.from_id else { return };
        if !self.is_node_allowed(request.from, request.from) {
            return;
        }
        if request.has_valid_token {
            self.heard_of_node(request.from, request.to, request.socket == self.socket());
            return;
        }
        let tick = self.tick;
        if self.met.len() >= MET_MAX {
            self.met.retain(|_, asked| tick - *asked < MET_TICKS);
        }
        // Two nodes that have no room for each other would ping each other for each other's pings without end.
        let is_asked_lately = self.met.get(&request.from).is_some_and(|asked| tick - *asked < MET_TICKS);
        let row = self.table.row_of(&id);
        let is_room = row.len() < K;
        // Old nodes that answer are worth more than new ones: a row full of them needs nobody. Else every request of a large network's strangers costs two pings.
        let is_row_well = !is_room && row.iter().all(|node| tick - node.seen < WELL_TICKS);
        let is_useless = self.table.get(&id).is_some()
            || is_row_well
            || id == *self.table.id()
            || is_asked_lately
            || self.met.len() >= MET_MAX
            || self.candidates.contains(&request.from)
            || self.candidates.len() >= if is_room { CANDIDATES_MAX } else { 2 };
        if !is_useless && self.begin_internal(request.from, PING, None, 1, Owner::Candidate) {
            self.candidates.insert(request.from);
            self.met.insert(request.from, tick);
        }
    }

    fn serve(&mut self, now: Now, mut request: Incoming) {
        if let Some(count) =
            usize::try_from(request.command).ok().and_then(|command| self.stats.internal_received.get_mut(command))
        {
            *count += 1;
        }
        let value = request.value.as_deref().unwrap_or_default();
        match request.command {
            PING => self.answer(now, &request, Answer::default()),
            PING_NAT => {
                let Some(&port) = value.first_chunk::<2>() else { return };
                request.from.set_port(u16::from_le_bytes(port));
                if request.from.port() != 0 {
                    self.answer(now, &request, Answer::default());
                }
            }
            FIND_NODE => {
                if request.target.is_some() {
                    self.answer(now, &request, Answer { closer: true, ..Answer::default() });
                }
            }
            DOWN_HINT => {
                let Some(&address) = value.first_chunk::<6>() else { return };
                self.handle_down_hint(address);
                self.answer(now, &request, Answer::default());
            }
            DELAYED_PING => {
                let Some(&delay) = value.first_chunk::<4>() else { return };
                self.delay_ping(now, Duration::from_millis(u32::from_le_bytes(delay).into()), request);
            }
            _ => self.answer(now, &request, Answer::error(UNKNOWN_COMMAND)),
        }
    }

    fn handle_down_hint(&mut self, address: [u8; 6]) {
        let id = pgbee_engine::crypto::hash::hash(&[&address]);
        let (tick, has_time) = (self.tick, self.checks < CHECKS_MAX);
        if let Some(node) =
            self.table.get_mut(&id).filter(|node| has_time && (node.pinged < tick || node.down_hints == 0))
        {
            node.down_hints += 1;
            self.check(&id);
        }
    }

    fn delay_ping(&mut self, now: Now, delay: Duration, request: Incoming) {
        let host = request.from.ip();
        let of_host = self.delayed_pings.values().filter(|other| other.from.ip() == host).count();
        let is_full = of_host >= DELAYED_PINGS_PER_HOST && !host.is_loopback();
        if delay > self.options.ping_delay_max
            || is_full
            || self.delayed_pings.len() >= self.options.limits.delayed_pings_max
        {
            return;
        }
        self.next_delayed_ping += 1;
        self.delayed_pings.insert((now + delay, self.next_delayed_ping), request);
    }

    pub(super) fn send_delayed_pings(&mut self, now: Now) {
        while let Some(entry) = self.delayed_pings.first_entry().filter(|entry| entry.key().0 <= now) {
            let request = entry.remove();
            self.answer(now, &request, Answer::default());
        }
    }
}
