//! One attempt to open a way through two NATs: when to send a one-byte packet, from which socket, to where.
//!
//! ```text
//! new() ── a fresh socket, four pings from it ──> analyze() ── unstable? up to three other sockets ──> punch()
//!
//! punch()      consistent, consistent   ten rounds a second apart; addresses that did not prove themselves only each fourth
//!              consistent, random       1750 random ports of the proven host, one each 20 ms
//!              random, consistent       256 sockets, a low-TTL packet from each to open our NAT; then in turn, one each 20 ms
//!
//! a packet comes in    initiator: Connected, the other sockets are given back       other: answered with one of ours; the first packet of the
//!                                                                                   stream tells that it is connected, and over which socket
//! tries used up        Aborted
//! ```
//!
//! The one who waits for a one-byte packet cannot tell a forged one. A packet from a host that neither the peer named nor we sent to is believed only if for
//! two seconds nothing better came; and what is believed wrongly costs a connect that its owner tries again.
//!
//! What must stay true: after `Connected` the puncher holds the socket heard on and no other, after `Aborted` or [`Puncher::destroy`] none; nothing is sent
//! after either; only a proven host is sent random punches. Source: `lib/holepuncher.js` of hyperdht.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::nat::{Firewall, Nat};
use super::{Context, PuncherId};
use crate::udp::{Now, SocketId, Transmit};

/// Sockets of a random punch.
pub const BIRTHDAY_SOCKETS: usize = 256;
/// Sockets opened at a time.
const BIRTHDAY_BATCH: usize = 16;
const BIRTHDAY_PAUSE: Duration = Duration::from_millis(2);
/// From the last socket opened to the first packet after.
const KEEP_ALIVE_PAUSE: Duration = Duration::from_millis(100);
/// Far enough to pass our NAT, not far enough to reach theirs.
const LOW_TTL: u8 = 5;
const CONSISTENT_ROUNDS: u32 = 10;
const CONSISTENT_PAUSE: Duration = Duration::from_secs(1);
const RANDOM_TRIES: u32 = 1750;
const RANDOM_PAUSE: Duration = Duration::from_millis(20);
/// Sockets tried in the hope of a better NAT mapping.
const REOPENS_MAX: u8 = 3;
/// Random ports begin here.
const PORT_MIN: u16 = 1000;
/// How long a packet from an unknown host waits for one from a known host.
const STRANGER_WAIT: Duration = Duration::from_secs(2);
/// Hosts we sent to that are remembered.
const HOSTS_MAX: usize = 16;
/// One-byte packets answered in one attempt.
const ANSWERS_MAX: u32 = 4096;

/// What a puncher wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ping a node from this socket, without retries; tell the puncher by [`Puncher::handle_sample`], with the same step.
    Sample {
        /// The node.
        to: SocketAddrV4,
        /// From here; the socket's opening may still wait in [`Punching`](super::Punching).
        step: Step,
    },
    /// [`Puncher::analyze`] had no answer before; now it has.
    Analyzed,
    /// The initiator heard the other side: connect the stream, from this socket to there.
    Connected {
        /// Ours.
        socket: SocketId,
        /// Theirs.
        from: SocketAddrV4,
    },
    /// Nothing was heard in all tries. The puncher is destroyed.
    Aborted,
}

/// What a ping was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step(pub SocketId);

/// What the other side's last payload said.
#[derive(Clone, Debug, Default)]
pub struct RemoteState {
    /// It punches.
    pub is_punching: bool,
    /// Its NAT.
    pub firewall: Firewall,
    /// Where it may be.
    pub addresses: Vec<SocketAddrV4>,
    /// A host where it proved to be, by a token that came back.
    pub verified: Option<Ipv4Addr>,
}

#[derive(Clone, Copy, Debug)]
struct RemoteAddress {
    address: SocketAddrV4,
    is_verified: bool,
}

/// Where a reopening of the socket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reopening {
    Never,
    Running { left: u8 },
    Ended { is_stable: bool },
}

/// What [`Puncher::punch`] began.
#[derive(Clone, Copy, Debug)]
enum Plan {
    /// Nothing.
    Wait,
    Consistent {
        round: u32,
    },
    RandomPorts {
        host: Ipv4Addr,
        tries: u32,
    },
    /// Open sockets; those from `sent` on have not sent yet.
    Birthday {
        to: SocketAddrV4,
        sent: usize,
    },
    KeepAlive {
        to: SocketAddrV4,
        tries: u32,
        next: usize,
        is_low_ttl: bool,
    },
}

/// One attempt; see the module.
pub struct Puncher {
    id: PuncherId,
    is_initiator: bool,
    nat: Nat,
    remote_firewall: Firewall,
    remote_addresses: Vec<RemoteAddress>,
    is_remote_punching: bool,
    /// Hosts that we sent something.
    hosts: Vec<Ipv4Addr>,
    /// The first is the one talked over; the others are a random punch's. Never empty before the end.
    sockets: Vec<SocketId>,
    /// The one talked over last, for those who ask after the end.
    socket: SocketId,
    reopening: Reopening,
    is_awaited: bool,
    plan: Plan,
    next_at: Option<Now>,
    punched: Option<bool>,
    is_punching: bool,
    is_random: bool,
    is_connected: bool,
    is_destroyed: bool,
    stranger: Option<(Now, SocketId, SocketAddrV4)>,
    answers: u32,
}

impl Puncher {
    /// Open a socket and ask nodes how it is seen. `None` if too many sockets are open.
    pub fn new(cx: &mut Context<'_>, is_initiator: bool, remote_firewall: Firewall) -> Option<Puncher> {
        let id = cx.shared.next_id();
        let socket = cx.shared.sockets.acquire(id)?;
        let mut puncher = Puncher {
            id,
            is_initiator,
            nat: Nat::new(cx.is_firewalled),
            remote_firewall,
            remote_addresses: Vec::new(),
            is_remote_punching: false,
            hosts: Vec::new(),
            sockets: vec![socket],
            socket,
            reopening: Reopening::Never,
            is_awaited: false,
            plan: Plan::Wait,
            next_at: None,
            punched: None,
            is_punching: false,
            is_random: false,
            is_connected: false,
            is_destroyed: false,
            stranger: None,
            answers: 0,
        };
        puncher.sample(cx);
        Some(puncher)
    }

    /// Which attempt this is: one-byte packets find it by [`Punching::puncher_of`](super::Punching::puncher_of).
    pub fn id(&self) -> PuncherId {
        self.id
    }

    /// The socket that requests and answers about this attempt have to leave from.
    pub fn socket(&self) -> SocketId {
        self.socket
    }

    /// What is known about our NAT.
    pub fn nat(&self) -> &Nat {
        &self.nat
    }

    /// A node saw our socket as `to`, in another request or reply than those of [`Effect::Sample`].
    pub fn observe(&mut self, cx: &mut Context<'_>, to: SocketAddrV4, from: SocketAddrV4) {
        if !self.is_done() {
            self.nat.add(to, from, cx.is_firewalled);
            self.sample(cx);
        }
    }

    /// We tell the other side about our NAT now: that does not change any more.
    pub fn freeze(&mut self) {
        self.nat.freeze();
    }

    /// It may change again.
    pub fn unfreeze(&mut self, cx: &Context<'_>) {
        self.nat.unfreeze(cx.is_firewalled);
    }

    /// What the other side said about itself.
    pub fn update_remote(&mut self, state: &RemoteState) {
        let is_verified = |host: &Ipv4Addr| {
            state.verified.as_ref() == Some(host)
                || self.remote_addresses.iter().any(|known| known.is_verified && known.address.ip() == host)
        };
        let usable =
            state.addresses.iter().filter(|address| is_usable(*address.ip())).take(super::payload::ADDRESSES_MAX);
        let addresses = usable.map(|&address| RemoteAddress { address, is_verified: is_verified(address.ip()) });
        self.remote_addresses = addresses.collect();
        self.remote_firewall = state.firewall;
        self.is_remote_punching = state.is_punching;
    }

    /// The other side's NAT, as last said.
    pub fn remote_firewall(&self) -> Firewall {
        self.remote_firewall
    }

    /// Where the other side may be, as last said.
    pub fn remote_addresses(&self) -> impl Iterator<Item = SocketAddrV4> {
        self.remote_addresses.iter().map(|remote| remote.address)
    }

    /// Whether the other side punches, as last said.
    pub fn is_remote_punching(&self) -> bool {
        self.is_remote_punching
    }

    /// Whether [`punch`](Self::punch) is at it.
    pub fn is_punching(&self) -> bool {
        self.is_punching
    }

    /// Whether the other side was heard.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Whether it is over.
    pub fn is_destroyed(&self) -> bool {
        self.is_destroyed
    }

    /// Send one packet that should arrive.
    pub fn ping(&mut self, cx: &mut Context<'_>, to: SocketAddrV4) {
        self.send_expecting(cx, to, None);
    }

    /// Send one packet that opens our NAT for what comes from there, and dies on its way.
    pub fn open_session(&mut self, cx: &mut Context<'_>, to: SocketAddrV4) {
        self.send_expecting(cx, to, Some(LOW_TTL));
    }

    /// Whether our NAT is known well enough to punch, given theirs. `None`: ask again after [`Effect::Analyzed`]. With `is_reopening_allowed` an unstable
    /// socket is exchanged for another, up to three times: do that only while the other side does not punch at it.
    pub fn analyze(&mut self, cx: &mut Context<'_>, is_reopening_allowed: bool) -> Option<bool> {
        if self.is_done() {
            return Some(self.is_connected);
        }
        if is_reopening_allowed && self.nat.is_decided() && self.is_unstable() && self.reopening == Reopening::Never {
            self.reopening = Reopening::Running { left: REOPENS_MAX };
            self.sample(cx);
        }
        match self.reopening {
            Reopening::Running { .. } => self.wait(),
            _ if !self.nat.is_decided() => self.wait(),
            _ if !self.is_unstable() => Some(true),
            Reopening::Ended { is_stable } if is_reopening_allowed => Some(is_stable),
            _ => Some(false),
        }
    }

    /// A ping of [`Effect::Sample`] ended: by whom and as whom we were seen, or `None`.
    pub fn handle_sample(&mut self, cx: &mut Context<'_>, step: Step, seen: Option<(SocketAddrV4, SocketAddrV4)>) {
        if self.is_done() || step.0 != self.socket {
            return;
        }
        match seen {
            Some((to, from)) => self.nat.answered(to, from, cx.is_firewalled),
            None => self.nat.failed(),
        }
        self.sample(cx);
    }

    /// Begin to punch, or say whether it has begun. False: these two NATs cannot be passed this way, or the other side did not say enough.
    pub fn punch(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(punched) = self.punched {
            return punched;
        }
        let punched = !self.is_done() && self.begin(cx);
        self.punched = Some(punched);
        punched
    }

    /// A one-byte packet came in on a socket of this puncher.
    pub fn handle_punch_packet(&mut self, cx: &mut Context<'_>, socket: SocketId, from: SocketAddrV4) {
        if self.is_done() || !self.sockets.contains(&socket) {
            return;
        }
        if !self.is_initiator {
            if self.answers < ANSWERS_MAX {
                self.answers += 1;
                cx.send(socket, from, None);
            }
        } else if self.is_expected(*from.ip()) {
            self.connect(cx, socket, from);
        } else if self.stranger.is_none() {
            self.stranger = Some((cx.now + STRANGER_WAIT, socket, from));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Now> {
        let stranger = self.stranger.map(|(at, ..)| at);
        self.next_at.into_iter().chain(stranger).min()
    }

    /// Send what is due.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        if self.is_done() {
            return;
        }
        if let Some((_, socket, from)) = self.stranger.filter(|(at, ..)| *at <= cx.now) {
            return self.connect(cx, socket, from);
        }
        if self.next_at.is_some_and(|at| at <= cx.now) {
            self.next_at = None;
            self.advance(cx);
        }
    }

    /// Give up, or be done: sockets are given back. A stream's socket stays open if the pool was told of the stream.
    pub fn destroy(&mut self, cx: &mut Context<'_>) {
        if self.is_destroyed {
            return;
        }
        self.is_destroyed = true;
        self.end(cx);
        for socket in std::mem::take(&mut self.sockets) {
            cx.shared.sockets.release(socket);
        }
    }

    fn is_done(&self) -> bool {
        self.is_destroyed || self.is_connected
    }

    fn wait(&mut self) -> Option<bool> {
        self.is_awaited = true;
        None
    }

    fn is_unstable(&self) -> bool {
        let (ours, theirs) = (self.nat.firewall(), self.remote_firewall);
        ours == Firewall::Unknown || (ours == Firewall::Random && theirs == Firewall::Random)
    }

    /// Ask nodes, change the socket if that is wanted, and tell who waits for it.
    fn sample(&mut self, cx: &mut Context<'_>) {
        loop {
            for to in self.nat.sample(cx.nodes) {
                cx.effects.push(Effect::Sample { to, step: Step(self.socket) });
            }
            if !self.nat.is_decided() {
                return;
            }
            let Reopening::Running { left } = self.reopening else { break };
            if self.is_unstable() && left > 0 && !self.is_punching && self.reopen(cx) {
                self.reopening = Reopening::Running { left: left - 1 };
            } else {
                self.reopening = Reopening::Ended { is_stable: self.nat.firewall().is_predictable() };
                break;
            }
        }
        if std::mem::take(&mut self.is_awaited) {
            cx.effects.push(Effect::Analyzed);
        }
    }

    fn reopen(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(socket) = cx.shared.sockets.acquire(self.id) else { return false };
        cx.shared.sockets.release(self.socket);
        self.socket = socket;
        self.sockets = vec![socket];
        self.nat = Nat::new(cx.is_firewalled);
        true
    }

    fn begin(&mut self, cx: &mut Context<'_>) -> bool {
        if self.remote_addresses.is_empty() {
            return false;
        }
        let verified = self.remote_addresses.iter().find(|remote| remote.is_verified).map(|remote| remote.address);
        let (ours, theirs) = (self.nat.firewall(), self.remote_firewall);
        if ours.is_predictable() && theirs.is_predictable() {
            cx.shared.stats.consistent += 1;
            self.is_punching = true;
            self.plan = Plan::Consistent { round: 0 };
            // The other side sends one at once when it hears of the first (`ping`).
            let pause = if self.is_initiator { Duration::ZERO } else { CONSISTENT_PAUSE };
            self.next_at = Some(cx.now + pause);
            return true;
        }
        let Some(to) = verified else { return false };
        self.plan = if ours.is_predictable() && theirs == Firewall::Random {
            Plan::RandomPorts { host: *to.ip(), tries: RANDOM_TRIES }
        } else if ours == Firewall::Random && theirs.is_predictable() && to.port() != 0 {
            Plan::Birthday { to, sent: self.sockets.len() }
        } else {
            return false;
        };
        cx.shared.stats.random += 1;
        cx.shared.random_punch_began();
        self.is_punching = true;
        self.is_random = true;
        self.expect(*to.ip());
        self.next_at = Some(cx.now);
        true
    }

    fn advance(&mut self, cx: &mut Context<'_>) {
        match self.plan {
            Plan::Wait => {}
            Plan::Consistent { round } => self.consistent_round(cx, round),
            Plan::RandomPorts { tries: 0, .. } | Plan::KeepAlive { tries: 0, .. } => self.abort(cx),
            Plan::RandomPorts { host, tries } => {
                let port = PORT_MIN + cx.shared.random.below(u64::from(u16::MAX - PORT_MIN) + 1) as u16;
                cx.send(self.socket, SocketAddrV4::new(host, port), None);
                self.plan = Plan::RandomPorts { host, tries: tries - 1 };
                self.next_at = Some(cx.now + RANDOM_PAUSE);
            }
            Plan::Birthday { to, sent } => self.birthday_batch(cx, to, sent),
            Plan::KeepAlive { to, tries, next, is_low_ttl } => {
                cx.send(self.sockets[next], to, is_low_ttl.then_some(LOW_TTL));
                let is_round_over = next + 1 == self.sockets.len();
                let (next, is_low_ttl) = if is_round_over { (0, false) } else { (next + 1, is_low_ttl) };
                self.plan = Plan::KeepAlive { to, tries: tries - 1, next, is_low_ttl };
                self.next_at = Some(cx.now + RANDOM_PAUSE);
            }
        }
    }

    fn consistent_round(&mut self, cx: &mut Context<'_>, round: u32) {
        if round == CONSISTENT_ROUNDS {
            return self.abort(cx);
        }
        let round = round + 1;
        for remote in &self.remote_addresses {
            if remote.is_verified || round.is_multiple_of(4) {
                cx.send(self.socket, remote.address, None);
            }
        }
        self.plan = Plan::Consistent { round };
        self.next_at = Some(cx.now + CONSISTENT_PAUSE);
    }

    /// Sockets open while others, opened before, send: whoever drives us has had the time to open those.
    fn birthday_batch(&mut self, cx: &mut Context<'_>, to: SocketAddrV4, sent: usize) {
        for socket in &self.sockets[sent..] {
            cx.send(*socket, to, Some(LOW_TTL));
        }
        let sent = self.sockets.len();
        for _ in sent..BIRTHDAY_SOCKETS.min(sent + BIRTHDAY_BATCH) {
            let Some(socket) = cx.shared.sockets.acquire(self.id) else { break };
            self.sockets.push(socket);
        }
        if self.sockets.len() > sent {
            self.plan = Plan::Birthday { to, sent };
            self.next_at = Some(cx.now + BIRTHDAY_PAUSE);
        } else {
            self.plan = Plan::KeepAlive { to, tries: RANDOM_TRIES, next: 0, is_low_ttl: true };
            self.next_at = Some(cx.now + KEEP_ALIVE_PAUSE);
        }
    }

    fn connect(&mut self, cx: &mut Context<'_>, socket: SocketId, from: SocketAddrV4) {
        self.is_connected = true;
        for other in std::mem::replace(&mut self.sockets, vec![socket]) {
            if other != socket {
                cx.shared.sockets.release(other);
            }
        }
        self.socket = socket;
        cx.shared.stats.heard += 1;
        self.end(cx);
        cx.effects.push(Effect::Connected { socket, from });
    }

    fn abort(&mut self, cx: &mut Context<'_>) {
        if let Some((_, socket, from)) = self.stranger {
            return self.connect(cx, socket, from);
        }
        self.destroy(cx);
        cx.shared.stats.aborted += 1;
        cx.effects.push(Effect::Aborted);
    }

    /// Nothing is sent any more.
    fn end(&mut self, cx: &mut Context<'_>) {
        self.is_punching = false;
        self.is_awaited = false;
        self.plan = Plan::Wait;
        self.next_at = None;
        self.stranger = None;
        if std::mem::take(&mut self.is_random) {
            cx.shared.random_punch_ended(cx.now);
        }
    }

    fn send_expecting(&mut self, cx: &mut Context<'_>, to: SocketAddrV4, ttl: Option<u8>) {
        if !self.is_done() {
            self.expect(*to.ip());
            cx.send(self.socket, to, ttl);
        }
    }

    fn expect(&mut self, host: Ipv4Addr) {
        if !self.hosts.contains(&host) && self.hosts.len() < HOSTS_MAX {
            self.hosts.push(host);
        }
    }

    fn is_expected(&self, host: Ipv4Addr) -> bool {
        self.hosts.contains(&host) || self.remote_addresses.iter().any(|remote| *remote.address.ip() == host)
    }
}

impl Context<'_> {
    fn send(&mut self, socket: SocketId, to: SocketAddrV4, ttl: Option<u8>) {
        if to.port() != 0 && is_usable(*to.ip()) {
            self.shared.send(Transmit { ttl, ..Transmit::new(socket, to, vec![0]) });
        }
    }
}

/// Whether one host can be behind this address.
fn is_usable(host: Ipv4Addr) -> bool {
    !(host.is_unspecified() || host.is_multicast() || host.is_broadcast())
}
