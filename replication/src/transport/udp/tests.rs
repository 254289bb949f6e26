//! The driver with a machine that only answers: sockets, timeouts, events and their owner.

use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{EVENTS_MAX, Machine, Udp, UdpOptions};
use crate::udp::{Now, Random, SocketChange, SocketId, Transmit};
use crate::udx::{self, Mux, StreamEvent};

#[derive(Debug)]
enum Told {
    Socket(SocketChange),
    Datagram(SocketId, Vec<u8>),
    TimedOut(Now),
}

/// Answers each datagram with itself, from the socket it came to, and tells of it.
struct Echo {
    mux: Mux,
    out: VecDeque<Transmit>,
    told: VecDeque<Told>,
    due: Option<Now>,
}

impl Machine for Echo {
    type Event = Told;
    fn handle_datagram(&mut self, _: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) {
        self.out.push_back(Transmit::new(socket, from, datagram.to_vec()));
        self.told.push_back(Told::Datagram(socket, datagram.to_vec()));
    }
    fn poll_transmit(&mut self, _: Now) -> Option<Transmit> {
        self.out.pop_front()
    }
    fn poll_timeout(&mut self) -> Option<Now> {
        self.due
    }
    fn handle_timeout(&mut self, now: Now) {
        self.due = None;
        self.told.push_back(Told::TimedOut(now));
    }
    fn poll_event(&mut self) -> Option<Told> {
        self.told.pop_front()
    }
    fn mux(&mut self) -> &mut Mux {
        &mut self.mux
    }
    fn as_socket_change(event: &Told) -> Option<SocketChange> {
        match event {
            Told::Socket(change) => Some(*change),
            _ => None,
        }
    }
    fn as_stream_event(_: &Told) -> Option<(u32, &StreamEvent)> {
        None
    }
}

fn start() -> (Arc<Udp<Echo>>, mpsc::Receiver<Told>) {
    let mux = Mux::new(udx::Config::default(), Random::new([1; 32]));
    let echo = |_, _, _| Echo { mux, out: VecDeque::new(), told: VecDeque::new(), due: None };
    Udp::start(echo, UdpOptions::default()).expect("loopback has free ports")
}

async fn peer() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.expect("a free port")
}

async fn answer(peer: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; 2000];
    let (count, from) =
        timeout(Duration::from_secs(5), peer.recv_from(&mut bytes)).await.expect("in time").expect("bytes");
    bytes.truncate(count);
    (bytes, from)
}

async fn told(events: &mut mpsc::Receiver<Told>) -> Told {
    timeout(Duration::from_secs(5), events.recv()).await.expect("in time").expect("it runs")
}

#[tokio::test]
async fn datagrams_go_back_from_the_socket_they_came_to() {
    let (udp, mut events) = start();
    let peer = peer().await;
    for (to, id) in [(udp.server_address(), SocketId::SERVER), (udp.client_address(), SocketId::CLIENT)] {
        peer.send_to(b"hello", to).await.expect("sent");
        assert_eq!(answer(&peer).await, (b"hello".to_vec(), SocketAddr::V4(to)));
        assert!(matches!(told(&mut events).await, Told::Datagram(socket, bytes) if socket == id && bytes == b"hello"));
    }
}

#[tokio::test]
async fn sockets_open_and_close_as_the_machine_wants() {
    let (udp, mut events) = start();
    let peer = peer().await;
    let SocketAddr::V4(to) = peer.local_addr().expect("bound") else { panic!("IPv4") };
    let send = |ids: std::ops::Range<u32>, change: Option<fn(SocketId) -> SocketChange>| {
        udp.with(|echo, _| {
            for id in ids {
                echo.told.extend(change.map(|change| Told::Socket(change(SocketId(id)))));
                echo.out.push_back(Transmit::new(SocketId(id), to, id.to_le_bytes().to_vec()));
            }
        });
    };
    // As many as punching opens; each sends one datagram as soon as it is open.
    let mut ports = std::collections::HashMap::new();
    // A hundred at a time: what waits for the peer has to fit into its socket.
    for ids in [2..102, 102..202, 202..302] {
        send(ids.clone(), Some(SocketChange::Open));
        for _ in ids {
            let (bytes, from) = answer(&peer).await;
            ports.insert(from, bytes);
        }
    }
    assert_eq!(ports.len(), 300);
    // An opened socket receives under its number.
    let (&port, bytes) = ports.iter().next().expect("300 of them");
    peer.send_to(b"back", port).await.expect("sent");
    let id = SocketId(u32::from_le_bytes(bytes[..].try_into().expect("four bytes")));
    assert!(matches!(told(&mut events).await, Told::Datagram(socket, bytes) if socket == id && bytes == b"back"));
    assert_eq!(answer(&peer).await.0, b"back");
    // What is sent along with the close still leaves; afterwards the ports are free again.
    for ids in [2..102, 102..202, 202..302] {
        send(ids.clone(), Some(SocketChange::Close));
        for _ in ids {
            answer(&peer).await;
        }
    }
    for port in ports.keys() {
        for attempt in 0.. {
            if UdpSocket::bind(port).await.is_ok() {
                break;
            }
            assert!(attempt < 500, "{port} is still bound");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn timeouts_come_when_they_are_due() {
    let (udp, mut events) = start();
    let due = udp.with(|echo, now| {
        echo.due = Some(now + Duration::from_secs(60));
        now + Duration::from_millis(30)
    });
    // An earlier one later on: the driver task has to wake before it meant to.
    udp.with(|echo, _| echo.due = Some(due));
    assert!(matches!(told(&mut events).await, Told::TimedOut(at) if at >= due && at < due + Duration::from_secs(2)));
}

#[tokio::test]
async fn an_owner_that_takes_no_events_is_sent_no_more() {
    let (udp, mut events) = start();
    let peer = peer().await;
    let sent = (EVENTS_MAX + 2000) as u32;
    for number in 0..sent {
        peer.send_to(&number.to_le_bytes(), udp.server_address()).await.expect("sent");
        if number % 64 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let held = udp.shared.lock().held.len();
    assert!(held <= 64 * 16, "{held} events are held");
    // It goes on when the owner does, and in order.
    let mut last = None;
    while last != Some(sent - 1) {
        if let Told::Datagram(_, bytes) = told(&mut events).await {
            let number = u32::from_le_bytes(bytes[..].try_into().expect("four bytes"));
            assert!(last.is_none_or(|last| last < number));
            last = Some(number);
        }
    }
}

#[tokio::test]
async fn a_shutdown_sends_what_is_left_and_frees_the_ports() {
    let (udp, mut events) = start();
    let peer = peer().await;
    let SocketAddr::V4(to) = peer.local_addr().expect("bound") else { panic!("IPv4") };
    udp.with(|echo, _| echo.out.push_back(Transmit::new(SocketId::CLIENT, to, b"bye".to_vec())));
    udp.shutdown().await;
    assert_eq!(answer(&peer).await.0, b"bye");
    assert!(timeout(Duration::from_secs(5), events.recv()).await.expect("in time").is_none());
    for attempt in 0.. {
        if UdpSocket::bind(udp.server_address()).await.is_ok() {
            break;
        }
        assert!(attempt < 500, "the port is still bound");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
