//! What a connection is to both sides: a stream, the path that its packets take, and a relay that may stand in until there is a better one.
//!
//! ```text
//!   nothing ── take(path) ──────────────────────────────────────────> open, direct
//!      |                                                                  ^
//!   needs a relay ── relay_paired(path) ──> open, relayed ── take(path) ──+── confirmed, or 15 s ──> the relay is given up
//!      |                                          |
//!      +── 15 s, or relay_failed ──> no relay     +── stream closed ──> the relay is given up
//! ```
//!
//! What must stay true: `Open` is said once, with the keys of the handshake; `Moved` at most once, only away from a relay; every `NeedsRelay` is followed by
//! one `RelayUnneeded`; every socket of the pool that a stream was said to use is said to be free again.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::Verdict;
use super::payload::RelayThrough;
use crate::dht::{ConnectionId, Context, DhtEvent, Opened, Path, ServerId, Via};
use crate::secret_stream::handshake::Session;
use crate::udp::{Now, SocketId};

/// How long the relay and the other side may take to meet us.
pub const RELAY_WAIT: Duration = Duration::from_secs(15);
/// How long after a move the relay is kept if the new path was not heard on.
const CONFIRM_WAIT: Duration = Duration::from_secs(15);

/// One connection, from the end of its handshake on.
pub struct Link {
    /// Which.
    pub id: ConnectionId,
    /// Its stream, by our number.
    pub stream: u32,
    /// Who is on the other end.
    pub remote_key: [u8; 32],
    server: Option<ServerId>,
    /// The stream, by the other side's number.
    remote_id: u32,
    /// Until it is open.
    session: Option<Session>,
    opened: Option<(Path, Via)>,
    relay: Relay,
    confirm_by: Option<Now>,
    is_closed: bool,
}

/// Where a relay stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relay {
    /// None was asked for, or it is given up.
    None,
    /// Asked for.
    Pending { until: Now },
    /// Packets go through it, or did until the move.
    Paired(Path),
}

impl Link {
    /// After the handshake. `server`: the one of ours that was asked.
    pub fn new(id: ConnectionId, stream: u32, remote_id: u32, session: Session, server: Option<ServerId>) -> Link {
        Link {
            id,
            stream,
            remote_key: session.remote_public_key,
            server,
            remote_id,
            session: Some(session),
            opened: None,
            relay: Relay::None,
            confirm_by: None,
            is_closed: false,
        }
    }

    /// Whether the stream has a path.
    pub fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// Whether nothing better will come: a direct path, or the end.
    pub fn is_settled(&self) -> bool {
        self.is_closed || self.opened.is_some_and(|(_, via)| via != Via::Relayed)
    }

    /// Whether a relay is asked for or in use.
    pub fn has_relay(&self) -> bool {
        self.relay != Relay::None
    }

    /// Whether the relay may still open the connection.
    pub fn is_relay_pending(&self) -> bool {
        matches!(self.relay, Relay::Pending { .. })
    }

    /// Whether packets come from there because the relay sends them.
    pub fn is_relay_path(&self, socket: SocketId, from: SocketAddrV4) -> bool {
        matches!(self.relay, Relay::Paired(path) if path.socket == socket && path.remote == from)
    }

    /// A direct way was found: open the connection over it, or move there.
    pub fn take(&mut self, cx: &mut Context<'_>, socket: SocketId, remote: SocketAddrV4, via: Via) -> Verdict {
        let path = Path { socket, remote, remote_id: self.remote_id };
        if self.is_settled() {
            return Verdict::Refuse;
        }
        if self.open(cx, path, via) {
            self.give_up_relay(cx);
            return Verdict::Connect(path);
        }
        if let Some((old, _)) = self.opened.replace((path, via)) {
            cx.punching.sockets.stream_closed(old.socket);
        }
        cx.punching.sockets.stream_opened(socket);
        self.confirm_by = Some(cx.now + CONFIRM_WAIT);
        cx.event(DhtEvent::Moved { connection: self.id, stream: self.stream, path });
        Verdict::Move(path)
    }

    /// False: it is open already.
    fn open(&mut self, cx: &mut Context<'_>, path: Path, via: Via) -> bool {
        let Some(session) = self.session.take().filter(|_| self.opened.is_none()) else { return false };
        self.opened = Some((path, via));
        cx.punching.sockets.stream_opened(path.socket);
        cx.event(DhtEvent::Open(Opened {
            connection: self.id,
            stream: self.stream,
            path,
            session,
            is_initiator: self.server.is_none(),
            remote_key: self.remote_key,
            server: self.server,
            via,
        }));
        true
    }

    /// Ask for a relay.
    pub fn start_relay(&mut self, cx: &mut Context<'_>, through: RelayThrough, is_initiator: bool) {
        self.relay = Relay::Pending { until: cx.now + RELAY_WAIT };
        let RelayThrough { relay, token } = through;
        cx.event(DhtEvent::NeedsRelay { connection: self.id, stream: self.stream, relay, token, is_initiator });
    }

    /// Both sides are at the relay.
    pub fn relay_paired(&mut self, cx: &mut Context<'_>, path: Path) {
        if !self.is_relay_pending() {
            return;
        }
        self.relay = Relay::Paired(path);
        if self.is_settled() || !self.open(cx, path, Via::Relayed) {
            self.give_up_relay(cx);
        }
    }

    /// The relay is not needed, or will not help.
    pub fn give_up_relay(&mut self, cx: &mut Context<'_>) {
        self.confirm_by = None;
        if std::mem::replace(&mut self.relay, Relay::None) != Relay::None {
            cx.event(DhtEvent::RelayUnneeded { connection: self.id });
        }
    }

    /// A packet came over the path that the stream was moved to.
    pub fn path_confirmed(&mut self, cx: &mut Context<'_>) {
        if self.confirm_by.is_some() {
            self.give_up_relay(cx);
        }
    }

    /// The stream is gone, or nobody wants it any more.
    pub fn close(&mut self, cx: &mut Context<'_>) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        self.session = None;
        if let Some((path, _)) = self.opened {
            cx.punching.sockets.stream_closed(path.socket);
        }
        self.give_up_relay(cx);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Now> {
        let pending = if let Relay::Pending { until } = self.relay { Some(until) } else { None };
        pending.into_iter().chain(self.confirm_by).min()
    }

    /// Time has passed. True: the relay was waited for in vain.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) -> bool {
        let is_late = matches!(self.relay, Relay::Pending { until } if until <= cx.now);
        if is_late || self.confirm_by.is_some_and(|by| by <= cx.now) {
            self.give_up_relay(cx);
        }
        is_late
    }
}
