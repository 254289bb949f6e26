//! Keeps a server to be found: it announces itself at the three nodes closest to its key (of different /24s, if it can be), and these forward to it.
//!
//! ```text
//!   start --> walk (FIND_PEER) --> ANNOUNCE to the closest until three keep it --> UNANNOUNCE where it was before and is not now
//!               ^                                                                        |
//!               |    after about 5 minutes, or when one does not answer,                 v
//!               +--- or our address changed ------------------------------------- PING each, every 3 s
//! ```
//!
//! The pings do two things: they tell when a node is gone, and they keep the mapping of our NAT open through which the node reaches us. They leave from the
//! socket that the announcement left from. The three nodes are the server's relays: what it tells others in announcements of topics and in handshakes.
//!
//! What must stay true: while the network is there, a server is announced at three nodes, or at all there are; what is announced is unannounced when the server
//! stops or is suspended, as far as nodes answer; without any node it tries again, ever more slowly, up to once a minute.
//!
//! Source: hyperdht `lib/announcer.js`.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::time::Duration;

use super::connect::RelayInfo;
use super::connect::server::Announced;
use super::messages::{self, Announcement, Place, Signed, command};
use super::rpc::scope::subnet;
use super::rpc::{Outgoing, Query, QueryId, Reply, RequestError};
use super::{Asker, Context, ServerId, Tag};
use crate::secret_stream::handshake::Identity;
use crate::udp::Now;

/// Nodes that forward to a server.
pub const RELAYS: usize = 3;
/// From the answers to some pings to the next ones.
const PING_PAUSE: Duration = Duration::from_secs(3);
/// Pings of each relay until it is announced anew.
const PINGS: u32 = 100;
/// Until another try when nobody keeps the announcement; twice as long each time.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A node keeps our announcement, or not.
    Announce(SocketAddrV4),
    /// A relay is there, or not.
    Ping(SocketAddrV4),
    /// A node gives a token, to be told with to forget us.
    Leave(SocketAddrV4),
    /// It forgot us.
    Left(SocketAddrV4),
}

enum State {
    /// Until then, or until it is resumed.
    Waits(Option<Now>),
    Walks(QueryId),
    /// Candidates not asked yet, the farthest first; whom we wait for; who keeps it.
    Announces {
        candidates: Vec<Reply>,
        pending: Vec<Reply>,
        relays: Vec<RelayInfo>,
    },
    /// How often each was pinged; who did not answer yet; when to ping next.
    Pings {
        times: u32,
        pending: BTreeSet<SocketAddrV4>,
        at: Option<Now>,
    },
}

/// Announces one server; see the module.
pub struct Announcer {
    server: ServerId,
    identity: Identity,
    target: [u8; 32],
    /// What clients are told.
    announced: Announced,
    /// The closest nodes of the last walk: the next one begins there.
    closest: Vec<SocketAddrV4>,
    state: State,
    /// The network changed since the walk began.
    is_refreshing: bool,
    is_suspended: bool,
    is_stopped: bool,
    retry: Duration,
    /// Nodes that are asked to forget us.
    leaving: BTreeSet<SocketAddrV4>,
}

impl Announcer {
    /// Begin with a walk.
    pub fn start(cx: &mut Context<'_>, server: ServerId, identity: Identity) -> Announcer {
        let target = messages::target_of(&identity.public_key());
        let mut announcer = Announcer {
            server,
            identity,
            target,
            announced: Announced::default(),
            closest: Vec::new(),
            state: State::Waits(None),
            is_refreshing: false,
            is_suspended: false,
            is_stopped: false,
            retry: RETRY_FIRST,
            leaving: BTreeSet::new(),
        };
        announcer.walk(cx);
        announcer
    }

    /// What clients are told.
    pub fn announced(&self) -> &Announced {
        &self.announced
    }

    /// Nodes that forward to the server.
    pub fn relays(&self) -> &[RelayInfo] {
        &self.announced.relays
    }

    /// What to put into announcements of topics: our own address if it can be reached, then relays; three at most.
    pub fn relay_addresses(&self) -> &[SocketAddrV4] {
        &self.announced.relay_addresses
    }

    /// Whether a walk for it is this one's.
    pub fn is_walking(&self, query: QueryId) -> bool {
        matches!(self.state, State::Walks(walk) if walk == query)
    }

    /// Whether it does nothing any more: it stopped or is suspended, and all was said.
    pub fn is_quiet(&self) -> bool {
        (self.is_stopped || self.is_suspended) && self.leaving.is_empty()
    }

    /// Announce anew, as soon as what is under way is over.
    pub fn refresh(&mut self, cx: &mut Context<'_>) {
        self.is_refreshing = true;
        self.retry = RETRY_FIRST;
        if matches!(self.state, State::Waits(Some(_)) | State::Pings { .. }) {
            self.walk(cx);
        }
    }

    /// Unannounce and wait.
    pub fn suspend(&mut self, cx: &mut Context<'_>) {
        if !self.is_suspended {
            self.is_suspended = true;
            self.halt(cx);
        }
    }

    /// Go on after [`suspend`](Announcer::suspend).
    pub fn resume(&mut self, cx: &mut Context<'_>) {
        if self.is_suspended && !self.is_stopped {
            self.is_suspended = false;
            self.retry = RETRY_FIRST;
            self.leaving.clear();
            self.walk(cx);
        }
    }

    /// Unannounce for good. Drop it when it is quiet.
    pub fn stop(&mut self, cx: &mut Context<'_>) {
        if !self.is_stopped {
            self.is_stopped = true;
            self.halt(cx);
        }
    }

    fn halt(&mut self, cx: &mut Context<'_>) {
        match std::mem::replace(&mut self.state, State::Waits(None)) {
            State::Walks(query) => cx.cancel_query(query),
            State::Announces { relays, .. } => self.announced.relays.extend(relays),
            State::Waits(_) | State::Pings { .. } => {}
        }
        let relays: BTreeSet<_> = std::mem::take(&mut self.announced).relays.iter().map(|relay| relay.relay).collect();
        relays.into_iter().for_each(|relay| self.leave(cx, relay));
    }

    fn walk(&mut self, cx: &mut Context<'_>) {
        self.is_refreshing = false;
        let query =
            Query { target: self.target, command: command::FIND_PEER, nodes: self.closest.clone(), ..Query::default() };
        self.state = State::Walks(cx.query(Asker::Announcer(self.server), query));
    }

    /// The walk is over: announce to the closest.
    pub fn handle_query_end(&mut self, cx: &mut Context<'_>, mut closest: Vec<Reply>) {
        closest.retain(|reply| reply.from_id.is_some() && reply.token.is_some());
        if !closest.is_empty() {
            self.closest = closest.iter().map(|reply| reply.from).collect();
        }
        // Who owns one host's ports shall not be all three: the closest of each /24 come first.
        let mut subnets = BTreeSet::new();
        closest.sort_by_cached_key(|reply| !subnets.insert(subnet(*reply.from.ip())));
        closest.reverse();
        self.state = State::Announces { candidates: closest, pending: Vec::new(), relays: Vec::new() };
        self.announce(cx);
    }

    /// Ask as many nodes as are missing; if none is left to ask or to wait for, that was it.
    fn announce(&mut self, cx: &mut Context<'_>) {
        let State::Announces { candidates, pending, relays } = &mut self.state else { return };
        while relays.len() + pending.len() < RELAYS {
            let Some(reply) = candidates.pop() else { break };
            let (Some(node), Some(token)) = (reply.from_id, reply.token) else { continue };
            let place = Place { target: &self.target, node: &node, token: &token };
            let value = Announcement::signed(Signed::Announce, &place, &self.identity, &[]).encode();
            let outgoing = Outgoing {
                target: Some(self.target),
                token: Some(token),
                value: Some(value),
                ..Outgoing::new(reply.from, command::ANNOUNCE)
            };
            cx.request(outgoing, Tag::Announcer(self.server, Step::Announce(reply.from)));
            pending.push(reply);
        }
        if pending.is_empty() {
            let relays = std::mem::take(relays);
            self.settle(cx, relays);
        }
    }

    /// So many nodes keep it: ping them from now on.
    fn settle(&mut self, cx: &mut Context<'_>, relays: Vec<RelayInfo>) {
        let own = cx.rpc.remote_address().filter(|_| !cx.rpc.is_firewalled());
        let relay_addresses = own.into_iter().chain(relays.iter().map(|relay| relay.relay)).take(RELAYS).collect();
        let before = std::mem::replace(&mut self.announced, Announced { relays, relay_addresses });
        for relay in before.relays {
            if !self.announced.relays.iter().any(|now| now.relay == relay.relay) {
                self.leave(cx, relay.relay);
            }
        }
        if self.announced.relays.is_empty() {
            self.state = State::Waits(Some(cx.now + self.retry));
            self.retry = (self.retry * 2).min(RETRY_MAX);
            self.closest.clear();
            return;
        }
        self.retry = RETRY_FIRST;
        self.state = State::Pings { times: 0, pending: BTreeSet::new(), at: Some(cx.now + PING_PAUSE) };
        if self.is_refreshing {
            self.walk(cx);
        }
    }

    /// An answer came, or none will.
    pub fn handle_answer(&mut self, cx: &mut Context<'_>, step: Step, result: Result<Reply, RequestError>) {
        match step {
            Step::Announce(node) => self.announce_answered(cx, node, result.is_ok_and(|reply| reply.error == 0)),
            Step::Ping(relay) => self.pinged(cx, relay, result.is_ok()),
            Step::Leave(node) => match result {
                Ok(reply) if self.leaving.contains(&node) => self.unannounce(cx, &reply),
                _ => drop(self.leaving.remove(&node)),
            },
            Step::Left(node) => drop(self.leaving.remove(&node)),
        }
    }

    fn announce_answered(&mut self, cx: &mut Context<'_>, node: SocketAddrV4, is_kept: bool) {
        let State::Announces { pending, relays, .. } = &mut self.state else {
            // It was halted meanwhile, but the node keeps it now.
            if is_kept && (self.is_stopped || self.is_suspended) {
                self.leave(cx, node);
            }
            return;
        };
        let Some(at) = pending.iter().position(|reply| reply.from == node) else { return };
        let reply = pending.swap_remove(at);
        if is_kept {
            relays.push(RelayInfo { relay: reply.from, server: reply.to });
        }
        self.announce(cx);
    }

    fn pinged(&mut self, cx: &mut Context<'_>, relay: SocketAddrV4, is_there: bool) {
        let State::Pings { pending, at, .. } = &mut self.state else { return };
        if !pending.remove(&relay) {
            return;
        }
        if !is_there {
            // Too few are left: find others.
            self.walk(cx);
        } else if pending.is_empty() {
            *at = Some(cx.now + PING_PAUSE);
        }
    }

    /// Have a node forget us: ask for a token first.
    fn leave(&mut self, cx: &mut Context<'_>, node: SocketAddrV4) {
        if self.leaving.insert(node) {
            let outgoing =
                Outgoing { target: Some(self.target), retries: Some(1), ..Outgoing::new(node, command::FIND_PEER) };
            cx.request(outgoing, Tag::Announcer(self.server, Step::Leave(node)));
        }
    }

    fn unannounce(&mut self, cx: &mut Context<'_>, reply: &Reply) {
        let (Some(node), Some(token), true) = (reply.from_id, reply.token, reply.value.is_some()) else {
            self.leaving.remove(&reply.from);
            return;
        };
        let place = Place { target: &self.target, node: &node, token: &token };
        let value = Announcement::signed(Signed::Unannounce, &place, &self.identity, &[]).encode();
        let outgoing = Outgoing {
            target: Some(self.target),
            token: Some(token),
            value: Some(value),
            retries: Some(1),
            ..Outgoing::new(reply.from, command::UNANNOUNCE)
        };
        cx.request(outgoing, Tag::Announcer(self.server, Step::Left(reply.from)));
    }

    /// When [`handle_timeout`](Announcer::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Now> {
        match &self.state {
            State::Waits(at) | State::Pings { at, .. } => *at,
            State::Walks(_) | State::Announces { .. } => None,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        if self.poll_timeout().is_none_or(|at| at > cx.now) {
            return;
        }
        match &mut self.state {
            State::Pings { times, pending, at } if *times < PINGS => {
                *times += 1;
                *at = None;
                pending.extend(self.announced.relays.iter().map(|relay| relay.relay));
                for &relay in pending.iter() {
                    cx.request(Outgoing::ping(relay), Tag::Announcer(self.server, Step::Ping(relay)));
                }
            }
            _ => self.walk(cx),
        }
    }
}
