//! What [`Udp`](super::Udp) drives: [`Machine`]; and the smallest one, streams without a DHT: [`BareMux`].
//!
//! What must stay true: a machine does no I/O and reads no clock; it is called under one lock, so it never blocks.

use std::net::SocketAddrV4;

use crate::udp::{Now, SocketChange, SocketId, Transmit};
use crate::udx::{Handled, Mux, StreamEvent};

/// A sans-I/O machine over UDP sockets.
pub trait Machine: Send + 'static {
    /// What it tells: changes of sockets, what happened to streams, and what only its owner understands.
    type Event: Send + 'static;
    /// A datagram came in.
    fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]);
    /// The next datagrams to send.
    fn poll_transmit(&mut self, now: Now) -> Option<Transmit>;
    /// When [`handle_timeout`](Machine::handle_timeout) wants to be called.
    fn poll_timeout(&mut self) -> Option<Now>;
    /// Time has passed.
    fn handle_timeout(&mut self, now: Now);
    /// What happened.
    fn poll_event(&mut self) -> Option<Self::Event>;
    /// Its streams.
    fn mux(&mut self) -> &mut Mux;
    /// The event, if it is for whoever keeps the sockets. The owner does not see it.
    fn as_socket_change(event: &Self::Event) -> Option<SocketChange>;
    /// The event, if it is a stream's. Of these the owner sees only that one closed, or moved.
    fn as_stream_event(event: &Self::Event) -> Option<(u32, &StreamEvent)>;
    /// This computer's addresses, with the server socket's port, are others now.
    fn network_changed(&mut self, now: Now, addresses: &[SocketAddrV4]) {
        let _ = (now, addresses);
    }
    /// Say what is to be said before the sockets close. Streams that are in use are destroyed already.
    fn shutdown(&mut self, now: Now) {
        let _ = now;
    }
    /// Whether all of that is said and, where an answer is wanted, answered.
    fn is_shut_down(&self) -> bool {
        true
    }
}

/// Streams that their owner connects by number and address. Packets of strangers are dropped.
pub struct BareMux(pub Mux);

impl Machine for BareMux {
    type Event = (u32, StreamEvent);

    fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) {
        // Nobody is asked about streams that are not connected, and there is no DHT.
        let (Handled::Stream(_) | Handled::Unconnected(_) | Handled::NotOurs) =
            self.0.handle_datagram(now, socket, from, datagram);
    }
    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        self.0.poll_transmit(now)
    }
    fn poll_timeout(&mut self) -> Option<Now> {
        self.0.poll_timeout()
    }
    fn handle_timeout(&mut self, now: Now) {
        self.0.handle_timeout(now);
    }
    fn poll_event(&mut self) -> Option<Self::Event> {
        self.0.poll_event()
    }
    fn mux(&mut self) -> &mut Mux {
        &mut self.0
    }
    fn as_socket_change(_: &Self::Event) -> Option<SocketChange> {
        None
    }
    fn as_stream_event((id, event): &Self::Event) -> Option<(u32, &StreamEvent)> {
        Some((*id, event))
    }
}
