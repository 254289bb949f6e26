//! Sockets for hole punching: opened for one attempt, kept while a stream uses them, closed in the end.
//!
//! ```text
//!  acquire()            release(), no stream
//! ---------> (held) ---------------------------> (closed)
//!               |                                   ^
//!               `-- stream_opened() --> (in use) ---'  the last stream closed, released
//! ```
//!
//! hyperdht can keep such a socket for a next connection to the same peer (`reusableSocket`); hyperswarm never asks for it, and neither do we.
//!
//! What must stay true: whoever holds or uses a socket is counted, and one that nobody does is closed; numbers are not used again; there are never more than
//! [`SOCKETS_MAX`]. Source: `lib/socket-pool.js` of hyperdht.

use std::collections::{HashMap, VecDeque};

use super::PuncherId;
use crate::udp::{SocketChange, SocketId};

/// Sockets open at a time: a random punch takes 256, other attempts one each. With the two that are always open, what the UDP driver allows.
pub const SOCKETS_MAX: usize = 318;

#[derive(Debug, Default)]
struct Socket {
    holder: Option<PuncherId>,
    streams: usize,
}

/// All sockets but the two that are always open.
#[derive(Debug)]
pub struct SocketPool {
    next: u32,
    sockets: HashMap<SocketId, Socket>,
    changes: VecDeque<SocketChange>,
}

impl Default for SocketPool {
    fn default() -> Self {
        SocketPool { next: SocketId::CLIENT.0 + 1, sockets: HashMap::new(), changes: VecDeque::new() }
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
    pub fn release(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.holder = None;
            self.close_unused(id);
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

    /// How many are open.
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
        }
    }

    /// A stream that used the socket is closed, or moved away.
    pub fn stream_closed(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.streams = socket.streams.saturating_sub(1);
            self.close_unused(id);
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

    fn close_unused(&mut self, id: SocketId) {
        if self.sockets.get(&id).is_some_and(|socket| socket.holder.is_none() && socket.streams == 0) {
            self.close(id);
        }
    }

    fn close(&mut self, id: SocketId) {
        if self.sockets.remove(&id).is_some() {
            self.changes.push_back(SocketChange::Close(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDER: PuncherId = PuncherId(1);

    fn changes(pool: &mut SocketPool) -> Vec<SocketChange> {
        std::iter::from_fn(|| pool.poll_change()).collect()
    }

    #[test]
    fn a_socket_nobody_uses_is_closed_at_once() {
        let mut pool = SocketPool::default();
        let id = pool.acquire(HOLDER).unwrap();
        assert_eq!(pool.holder(id), Some(HOLDER));
        pool.release(id);
        assert_eq!(changes(&mut pool), [SocketChange::Open(id), SocketChange::Close(id)]);
        assert_ne!(pool.acquire(HOLDER), Some(id));
    }

    #[test]
    fn a_stream_keeps_its_socket() {
        let mut pool = SocketPool::default();
        let id = pool.acquire(HOLDER).unwrap();
        pool.stream_opened(id);
        pool.release(id);
        assert_eq!(changes(&mut pool), [SocketChange::Open(id)]);
        pool.stream_closed(id);
        assert_eq!(changes(&mut pool), [SocketChange::Close(id)]);
        assert!(pool.is_empty());
    }

    #[test]
    fn sockets_are_bounded() {
        let mut pool = SocketPool::default();
        let ids: Vec<SocketId> = std::iter::from_fn(|| pool.acquire(HOLDER)).collect();
        assert_eq!(ids.len(), SOCKETS_MAX);
        pool.close_all();
        assert_eq!(changes(&mut pool).len(), 2 * SOCKETS_MAX);
        assert!(pool.is_empty());
    }
}
