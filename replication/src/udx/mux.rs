//! All streams over all sockets.

use std::collections::HashMap;
use std::net::SocketAddrV4;

use super::{Config, Path, Stream, StreamEvent};
use crate::udp::{Now, Random, SocketId, Transmit};

/// Whose a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// A stream's, and it has been processed.
    Stream(u32),
    /// A stream's that is not connected, or is with another socket. Ask the firewall; connect or move the stream and hand the datagram in again, or drop it.
    Unconnected(u32),
    /// No stream's: the DHT's, perhaps.
    NotOurs,
}

/// All streams over all sockets.
pub struct Mux {
    config: Config,
    random: Random,
    streams: HashMap<u32, Stream>,
}

impl Mux {
    /// With no stream.
    pub fn new(config: Config, random: Random) -> Mux {
        Mux { config, random, streams: HashMap::new() }
    }
    /// A stream that is not connected yet, under a fresh random id.
    pub fn open(&mut self) -> u32 {
        let _ = &self.config;
        loop {
            let id = u32::from_le_bytes(self.random.bytes());
            if !self.streams.contains_key(&id) {
                self.streams.insert(id, Stream::new());
                return id;
            }
        }
    }
    /// Connects it. Packets that came before over that socket are processed now.
    pub fn connect(&mut self, _now: Now, id: u32, path: Path) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.connect(path);
        }
    }
    /// Moves a live stream to another path; connects one that is not connected.
    pub fn change_path(&mut self, _now: Now, id: u32, path: Path) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.connect(path);
        }
    }
    /// Packets for `a` go on to where `b` is connected, and those for `b` to where `a` is.
    pub fn relay(&mut self, _a: u32, _b: u32) {}
    /// One datagram from a socket.
    pub fn handle_datagram(&mut self, _now: Now, _socket: SocketId, _from: SocketAddrV4, _datagram: &[u8]) -> Handled {
        Handled::NotOurs
    }
    /// A stream, to write, read or end.
    pub fn stream(&mut self, id: u32) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }
    /// Forgets a stream; one that is still open is destroyed.
    pub fn remove(&mut self, id: u32) {
        self.streams.remove(&id);
    }
    /// The next datagrams to send.
    pub fn poll_transmit(&mut self, _now: Now) -> Option<Transmit> {
        None
    }
    /// The next event of a stream.
    pub fn poll_event(&mut self) -> Option<(u32, StreamEvent)> {
        None
    }
    /// When to call [`Mux::handle_timeout`].
    pub fn poll_timeout(&mut self) -> Option<Now> {
        None
    }
    /// Time has passed.
    pub fn handle_timeout(&mut self, _now: Now) {}
}
