//! One UDP socket of the operating system: many datagrams a call, none of them fragmented.
//!
//! ```text
//! Transmit with segments --> sendmsg, the kernel cuts it (GSO) --> network
//! network --> recvmmsg, up to BATCH messages of up to 64 datagrams each (GRO) --> Buffers
//! ```
//!
//! What must stay true: a socket on a loopback address sends to loopback addresses only; whatever the kernel or an ICMP message reports about one datagram is a
//! lost datagram and nothing more; a send either is done or would block, and then it goes on where it stopped.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::udp::Transmit;

/// Messages a call receives; each may hold several datagrams.
const BATCH: usize = 16;
/// The largest message: what GRO joins never exceeds an IP packet.
const MESSAGE_BYTES: usize = 64 << 10;
/// The most that one UDP send takes, whether it is cut into segments or not.
const SEND_BYTES_MAX: usize = 65_507;
/// What the kernel is asked to keep for us each way; it may give less. Two megabytes are 160 ms at 100 Mbit/s: longer than we are ever kept from reading.
const KERNEL_BYTES: usize = 2 << 20;
/// How many ports after the wished one are tried.
const NEXT_PORTS: u16 = 4;

/// A bound socket.
#[derive(Debug)]
pub(super) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddrV4,
    ttl: u32,
}

/// How a send ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It left, or is lost.
    Done,
    /// The kernel takes no more for now.
    Blocked,
}

impl Socket {
    /// On a port; 0 for any. Call it inside a runtime.
    pub(super) fn bind(host: Ipv4Addr, port: u16) -> io::Result<Socket> {
        let socket = socket2::Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind(&SocketAddr::from((host, port)).into())?;
        socket.set_nonblocking(true)?;
        // Systems with small limits give what they have.
        let _ = socket.set_recv_buffer_size(KERNEL_BYTES);
        let _ = socket.set_send_buffer_size(KERNEL_BYTES);
        let socket = std::net::UdpSocket::from(socket);
        // This sets Don't Fragment, too: what is too large for the way is lost, which is how a path's MTU is found.
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let SocketAddr::V4(local) = socket.local_addr()? else {
            return Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
        };
        let ttl = socket.ttl()?;
        Ok(Socket { io: UdpSocket::from_std(socket)?, state, local, ttl })
    }

    /// On a wished port or one of the next four, else on any; with `is_exact`, on that one or not at all.
    pub(super) fn bind_near(host: Ipv4Addr, port: u16, is_exact: bool) -> io::Result<Socket> {
        if is_exact || port == 0 {
            return Socket::bind(host, port);
        }
        let near = (0..=NEXT_PORTS).filter_map(|further| port.checked_add(further));
        near.chain([0])
            .find_map(|port| match Socket::bind(host, port) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
                bound => Some(bound),
            })
            .unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::AddrInUse)))
    }

    /// Where it is bound.
    pub(super) fn local(&self) -> SocketAddrV4 {
        self.local
    }

    /// Until there may be something to receive.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.io.readable().await
    }

    /// Until something can be sent.
    pub(super) async fn writable(&self) -> io::Result<()> {
        self.io.writable().await
    }

    /// Receive what is there, up to a batch.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; others come from ICMP messages and mean nothing here.
    pub(super) fn receive(&self, buffers: &mut Buffers) -> io::Result<()> {
        buffers.count = 0;
        buffers.count = self.io.try_io(Interest::READABLE, || {
            let mut chunks = buffers.bytes.chunks_exact_mut(MESSAGE_BYTES);
            let mut slices: [IoSliceMut<'_>; BATCH] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().expect("one chunk a message")));
            self.state.recv(UdpSockRef::from(&self.io), &mut slices, &mut buffers.metas)
        })?;
        Ok(())
    }

    /// Send what is left of a transmit; `done` counts the bytes that were sent before and are sent now.
    pub(super) fn send(&self, transmit: &Transmit, done: &mut usize) -> Sent {
        if !self.may_reach(transmit.to) {
            return Sent::Done;
        }
        let Some(ttl) = transmit.ttl else { return self.send_segments(transmit, done) };
        // Nobody else sends on this socket meanwhile: the sender holds the outbox.
        if self.io.set_ttl(u32::from(ttl)).is_err() {
            return Sent::Done;
        }
        let sent = self.send_segments(transmit, done);
        if let Err(error) = self.io.set_ttl(self.ttl) {
            tracing::warn!(%error, "a socket keeps a short time to live");
        }
        sent
    }

    fn send_segments(&self, transmit: &Transmit, done: &mut usize) -> Sent {
        while *done < transmit.payload.len() {
            let rest = &transmit.payload[*done..];
            let segment = transmit.segment.unwrap_or(rest.len()).clamp(1, rest.len());
            let count = self.state.max_gso_segments().min(SEND_BYTES_MAX / segment).max(1);
            let piece = &rest[..(count * segment).min(rest.len())];
            match self.send_once(transmit.to, piece, segment) {
                Ok(()) => *done += piece.len(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Sent::Blocked,
                // The network card cannot cut: that is known from now on, and each datagram goes by itself.
                Err(_) if piece.len() > segment && self.state.max_gso_segments() == 1 => {}
                // Too large for the way (a probe), no route, a firewall's refusal, a port that was closed: lost like any other.
                Err(error) => {
                    tracing::trace!(%error, to = %transmit.to, bytes = piece.len(), "a datagram was not sent");
                    *done += piece.len();
                }
            }
        }
        Sent::Done
    }

    fn send_once(&self, to: SocketAddrV4, piece: &[u8], segment: usize) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: SocketAddr::V4(to),
            ecn: None,
            contents: piece,
            segment_size: (segment < piece.len()).then_some(segment),
            src_ip: None,
        };
        let send = || self.state.try_send(UdpSockRef::from(&self.io), &transmit);
        match send() {
            // Once more in a way that lets the runtime notice: else nobody would be told when there is room.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.io.try_io(Interest::WRITABLE, send),
            sent => sent,
        }
    }

    /// No datagram leaves loopback from a loopback address, and none goes where UDP cannot go: the kernel would call it a mistake of the socket's owner.
    fn may_reach(&self, to: SocketAddrV4) -> bool {
        let host = to.ip();
        let is_single = to.port() != 0 && host.octets()[0] != 0 && !host.is_broadcast() && !host.is_multicast();
        is_single && (!self.local.ip().is_loopback() || host.is_loopback())
    }
}

/// Where a batch is received.
pub(super) struct Buffers {
    // The kernel hands out memory for it page by page, as it is used: most messages are one small datagram.
    bytes: Vec<u8>,
    metas: [RecvMeta; BATCH],
    count: usize,
}

impl Buffers {
    pub(super) fn new() -> Buffers {
        Buffers { bytes: vec![0; BATCH * MESSAGE_BYTES], metas: [RecvMeta::default(); BATCH], count: 0 }
    }

    /// The messages of the last batch: who sent it, and its datagrams.
    pub(super) fn messages(&self) -> impl Iterator<Item = (SocketAddrV4, std::slice::Chunks<'_, u8>)> {
        let chunks = self.bytes.chunks_exact(MESSAGE_BYTES);
        self.metas[..self.count].iter().zip(chunks).filter_map(|(meta, chunk)| {
            let SocketAddr::V4(from) = meta.addr else { return None };
            let bytes = &chunk[..meta.len.min(MESSAGE_BYTES)];
            Some((from, bytes.chunks(meta.stride.max(1))))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::{Buffers, Sent, Socket};
    use crate::udp::{SocketId, Transmit};

    fn socket() -> Socket {
        Socket::bind(Ipv4Addr::LOCALHOST, 0).expect("loopback has free ports")
    }

    async fn receive(socket: &Socket, count: usize) -> Vec<Vec<u8>> {
        let (mut buffers, mut found) = (Buffers::new(), Vec::new());
        while found.len() < count {
            tokio::time::timeout(Duration::from_secs(5), socket.readable()).await.expect("in time").expect("readable");
            if socket.receive(&mut buffers).is_ok() {
                found.extend(buffers.messages().flat_map(|(_, datagrams)| datagrams.map(<[u8]>::to_vec)));
            }
        }
        found
    }

    #[tokio::test]
    async fn segments_arrive_as_datagrams() {
        let (from, to) = (socket(), socket());
        let payload: Vec<u8> = (0..100_000u32).map(|i| (i / 7) as u8).collect();
        let mut transmit = Transmit::new(SocketId::SERVER, to.local(), payload.clone());
        transmit.segment = Some(1200);
        let mut done = 0;
        while from.send(&transmit, &mut done) == Sent::Blocked {
            from.writable().await.expect("writable");
        }
        let found = receive(&to, 84).await;
        assert!(found[..83].iter().all(|datagram| datagram.len() == 1200));
        assert_eq!(found.concat(), payload);
    }

    #[tokio::test]
    async fn a_short_time_to_live_holds_for_one_datagram() {
        let (from, to) = (socket(), socket());
        let usual = from.io.ttl().expect("a number");
        let mut transmit = Transmit::new(SocketId::SERVER, to.local(), vec![1]);
        transmit.ttl = Some(5);
        assert_eq!(from.send(&transmit, &mut 0), Sent::Done);
        assert_eq!(from.io.ttl().expect("a number"), usual);
        assert_eq!(receive(&to, 1).await, [[1]]);
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_lost_and_harms_nothing() {
        let (from, to) = (socket(), socket());
        let segments = from.state.max_gso_segments();
        for lost in ["8.8.8.8:53", "10.0.0.1:1", "255.255.255.255:9", "224.0.0.1:9", "0.0.0.0:9", "127.0.0.1:0"] {
            let transmit = Transmit::new(SocketId::SERVER, lost.parse().expect("an address"), vec![0; 9]);
            assert!(!from.may_reach(transmit.to));
            assert_eq!(from.send(&transmit, &mut 0), Sent::Done);
        }
        // A datagram of more than UDP can carry, and one to a port that nobody listens on.
        let closed = socket().local();
        for (address, size) in [(to.local(), 70_000), (closed, 10), (closed, 10)] {
            assert_eq!(from.send(&Transmit::new(SocketId::SERVER, address, vec![3; size]), &mut 0), Sent::Done);
        }
        assert_eq!(from.send(&Transmit::new(SocketId::SERVER, to.local(), vec![2]), &mut 0), Sent::Done);
        assert_eq!(receive(&to, 1).await, [[2]]);
        assert_eq!(from.state.max_gso_segments(), segments);
    }

    #[tokio::test]
    async fn the_wished_port_or_one_near_it() {
        let first = socket();
        let port = first.local().port();
        let near = Socket::bind_near(Ipv4Addr::LOCALHOST, port, false).expect("one near it, or any");
        assert_ne!(near.local().port(), port);
        Socket::bind_near(Ipv4Addr::LOCALHOST, port, true).expect_err("it is taken");
        drop(first);
        assert_eq!(Socket::bind_near(Ipv4Addr::LOCALHOST, port, true).expect("it is free").local().port(), port);
    }
}
