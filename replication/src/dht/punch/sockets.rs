//! Sockets for hole punching: opened for one attempt, kept while a stream uses them, closed in the end.
//!
//! ```text
//!  acquire()            release(), no stream                        idle for 3 s
//! ---------> (held) ---------------------------> (closed)  <--------------------- (lingering)
//!               |  \                                                                 ^   |
//!               |   `-- stream_opened() --> (in use) -- the last stream closed ------'   |
//!               |                              ^           and reusable                  |
//!               `------------------------------`-------------- stream_opened() <---------'
//! ```
//!
//! A socket that once reached a peer through both NATs is worth something: the way stays open for a while. So a reusable one lingers, and [`Route`]s remember
//! which peer it leads to, for a next connection to the same key.
//!
//! What must stay true: whoever holds or uses a socket is counted, and one that nobody does is closed, at the latest after lingering; numbers are not used
//! again; there are never more than [`SOCKETS_MAX`]. Source: `lib/socket-pool.js` of hyperdht.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

use super::PuncherId;
use crate::udp::{Now, SocketChange, SocketId};

/// Sockets open at a time: a random punch takes 256, other attempts one each. With the two that are always open, what the UDP driver allows.
pub const SOCKETS_MAX: usize = 318;
/// How long a reusable socket stays open without a stream.
const LINGER: Duration = Duration::from_secs(3);
/// Peers whose way is remembered; the oldest are forgotten first.
const ROUTES_MAX: usize = 512;

/// A way that led to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// From this socket of ours.
    pub socket: SocketId,
    /// To this address.
    pub address: SocketAddrV4,
}

#[derive(Debug, Default)]
struct Socket {
    holder: Option<PuncherId>,
    streams: usize,
    is_reusable: bool,
    had_stream: bool,
    lingers_until: Option<Now>,
}

/// All sockets but the two that are always open.
#[derive(Debug)]
pub struct SocketPool {
    next: u32,
    sockets: HashMap<SocketId, Socket>,
    lingering: BTreeSet<(Now, SocketId)>,
    changes: VecDeque<SocketChange>,
    routes: HashMap<[u8; 32], Route>,
    routes_order: VecDeque<[u8; 32]>,
}

impl Default for SocketPool {
    fn default() -> Self {
        SocketPool {
            next: SocketId::CLIENT.0 + 1,
            sockets: HashMap::new(),
            lingering: BTreeSet::new(),
            changes: VecDeque::new(),
            routes: HashMap::new(),
            routes_order: VecDeque::new(),
        }
    }
}

impl SocketPool {
    /// A new socket, held by a puncher; `None` if too many are open.
    pub fn acquire(&mut self, holder: PuncherId) -> Option<SocketId> {
        if self.sockets.len() >= SOCKETS_MAX {
            return None;
        }
        let id = SocketId(self.next);
        self.next += 1;
        self.sockets.insert(id, Socket { holder: Some(holder), ..Socket::default() });
        self.changes.push_back(SocketChange::Open(id));
        Some(id)
    }

    /// Its puncher needs it no more.
    pub fn release(&mut self, now: Now, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.holder = None;
            self.close_unused(now, id);
        }
    }

    /// Which puncher holds a socket: where its one-byte packets go.
    pub fn holder(&self, id: SocketId) -> Option<PuncherId> {
        self.sockets.get(&id)?.holder
    }

    /// Whether this is an open socket of the pool.
    pub fn contains(&self, id: SocketId) -> bool {
        self.sockets.contains_key(&id)
    }

    /// How many are open, the lingering ones too.
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// A stream uses the socket from now on; to be said before its puncher is destroyed. Others than the pool's are ignored.
    pub fn stream_opened(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.streams += 1;
            socket.had_stream = true;
            if let Some(until) = socket.lingers_until.take() {
                self.lingering.remove(&(until, id));
            }
        }
    }

    /// A stream that used the socket is closed, or moved away.
    pub fn stream_closed(&mut self, now: Now, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.streams = socket.streams.saturating_sub(1);
            self.close_unused(now, id);
        }
    }

    /// Remember the way to a peer; both sides said that they reuse sockets. The first way known to it stays.
    pub fn add_route(&mut self, key: [u8; 32], route: Route) {
        if let Some(socket) = self.sockets.get_mut(&route.socket) {
            socket.is_reusable = true;
        }
        if self.routes.contains_key(&key) {
            return;
        }
        if self.routes.len() >= ROUTES_MAX
            && let Some(oldest) = self.routes_order.pop_front()
        {
            self.routes.remove(&oldest);
        }
        self.routes.insert(key, route);
        self.routes_order.push_back(key);
    }

    /// The way to a peer.
    pub fn route(&self, key: &[u8; 32]) -> Option<Route> {
        self.routes.get(key).copied()
    }

    /// A stream to this peer over this socket broke: the way is no good any more.
    pub fn route_failed(&mut self, key: &[u8; 32], id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.is_reusable = false;
        }
        if self.routes.get(key).is_some_and(|route| route.socket == id) {
            self.routes.remove(key);
            self.routes_order.retain(|known| known != key);
        }
    }

    /// Close all sockets, whoever uses them.
    pub fn close_all(&mut self) {
        let mut ids: Vec<SocketId> = self.sockets.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.close(id);
        }
    }

    /// What to open and close, in this order.
    pub fn poll_change(&mut self) -> Option<SocketChange> {
        self.changes.pop_front()
    }

    /// Whether sockets wait to be opened or closed.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// When a lingering socket closes.
    pub fn poll_timeout(&self) -> Option<Now> {
        self.lingering.first().map(|(until, _)| *until)
    }

    /// Close what has lingered long enough.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((until, id)) = self.lingering.first().copied().filter(|(until, _)| *until <= now) {
            self.lingering.remove(&(until, id));
            self.close(id);
        }
    }

    fn close_unused(&mut self, now: Now, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        if socket.holder.is_some() || socket.streams > 0 || socket.lingers_until.is_some() {
            return;
        }
        if socket.is_reusable && socket.had_stream {
            socket.had_stream = false;
            socket.lingers_until = Some(now + LINGER);
            self.lingering.insert((now + LINGER, id));
        } else {
            self.close(id);
        }
    }

    fn close(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.remove(&id) {
            if let Some(until) = socket.lingers_until {
                self.lingering.remove(&(until, id));
            }
            self.routes.retain(|_, route| route.socket != id);
            self.routes_order.retain(|key| self.routes.contains_key(key));
            self.changes.push_back(SocketChange::Close(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HOLDER: PuncherId = PuncherId(1);
    const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5);

    fn changes(pool: &mut SocketPool) -> Vec<SocketChange> {
        std::iter::from_fn(|| pool.poll_change()).collect()
    }

    #[test]
    fn a_socket_nobody_uses_is_closed_at_once() {
        let mut pool = SocketPool::default();
        let id = pool.acquire(HOLDER).unwrap();
        assert_eq!(pool.holder(id), Some(HOLDER));
        pool.release(Now::ZERO, id);
        assert_eq!(changes(&mut pool), [SocketChange::Open(id), SocketChange::Close(id)]);
        assert_ne!(pool.acquire(HOLDER), Some(id));
    }

    #[test]
    fn a_stream_keeps_its_socket() {
        let mut pool = SocketPool::default();
        let id = pool.acquire(HOLDER).unwrap();
        pool.stream_opened(id);
        pool.release(Now::ZERO, id);
        assert_eq!(changes(&mut pool), [SocketChange::Open(id)]);
        pool.stream_closed(Now::ZERO, id);
        assert_eq!(changes(&mut pool), [SocketChange::Close(id)]);
        assert!(pool.is_empty());
    }

    #[test]
    fn a_reusable_socket_lingers_and_its_route_with_it() {
        let mut pool = SocketPool::default();
        let id = pool.acquire(HOLDER).unwrap();
        pool.stream_opened(id);
        pool.release(Now::ZERO, id);
        let route = Route { socket: id, address: ADDRESS };
        pool.add_route([1; 32], route);
        pool.stream_closed(Now::ZERO, id);
        assert_eq!(pool.poll_timeout(), Some(LINGER));
        // Used again before that: the time starts anew.
        pool.stream_opened(id);
        pool.handle_timeout(LINGER);
        assert_eq!(pool.route(&[1; 32]), Some(route));
        pool.stream_closed(LINGER, id);
        pool.handle_timeout(LINGER * 2);
        assert_eq!(pool.route(&[1; 32]), None);
        assert_eq!(changes(&mut pool), [SocketChange::Open(id), SocketChange::Close(id)]);
        assert_eq!(pool.poll_timeout(), None);
    }

    #[test]
    fn a_broken_stream_ends_the_reuse() {
        let mut pool = SocketPool::default();
        let id = pool.acquire(HOLDER).unwrap();
        pool.stream_opened(id);
        pool.release(Now::ZERO, id);
        pool.add_route([1; 32], Route { socket: id, address: ADDRESS });
        pool.route_failed(&[1; 32], id);
        pool.stream_closed(Now::ZERO, id);
        assert_eq!(changes(&mut pool).last(), Some(&SocketChange::Close(id)));
    }

    #[test]
    fn sockets_and_routes_are_bounded() {
        let mut pool = SocketPool::default();
        let ids: Vec<SocketId> = std::iter::from_fn(|| pool.acquire(HOLDER)).collect();
        assert_eq!(ids.len(), SOCKETS_MAX);
        for number in 0..2000_u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_le_bytes());
            pool.add_route(key, Route { socket: SocketId::SERVER, address: ADDRESS });
        }
        assert_eq!((pool.routes.len(), pool.routes_order.len()), (ROUTES_MAX, ROUTES_MAX));
        pool.close_all();
        assert_eq!(changes(&mut pool).len(), 2 * SOCKETS_MAX);
        assert!(pool.is_empty());
    }
}
