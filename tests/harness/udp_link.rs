//! A bad link for datagrams: a relay on loopback that loses, holds back and overtakes as it is told, from one seed.
//!
//! ```text
//! a  <-->  near socket | queue by due time, each way | far socket  <-->  b
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pgbee_replication::transport::simulated::Random;

/// What happens to datagrams on their way.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Of a million so many are lost.
    pub lost_per_million: u32,
    /// Of a million so many come twice.
    pub doubled_per_million: u32,
    /// The shortest and the longest time on the way; where they differ, datagrams overtake each other.
    pub delay: (Duration, Duration),
    /// Longer ones are lost.
    pub payload_bytes_max: usize,
    /// What is random comes from this.
    pub seed: u64,
}

impl Default for Weather {
    /// A link that does nothing.
    fn default() -> Weather {
        Weather {
            lost_per_million: 0,
            doubled_per_million: 0,
            delay: (Duration::ZERO, Duration::ZERO),
            payload_bytes_max: usize::MAX,
            seed: 1,
        }
    }
}

/// The relay. Dropping it ends its threads.
pub struct UdpLink {
    /// What `a` takes for `b`.
    pub near: SocketAddrV4,
    /// What `b` takes for `a`.
    pub far: SocketAddrV4,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    is_cut: AtomicBool,
    carried: AtomicU64,
    lost: AtomicU64,
}

impl UdpLink {
    /// Between two sockets of this machine.
    pub fn between(a: SocketAddrV4, b: SocketAddrV4, weather: Weather) -> UdpLink {
        let bind = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            let reference = socket2::SockRef::from(&socket);
            // Only the weather loses anything.
            reference.set_recv_buffer_size(4 << 20).expect("a buffer");
            reference.set_send_buffer_size(4 << 20).expect("a buffer");
            socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
            let SocketAddr::V4(address) = socket.local_addr().expect("bound") else { panic!("IPv4") };
            (Arc::new(socket), address)
        };
        let ((near_socket, near), (far_socket, far)) = (bind(), bind());
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        let ways = [(a, &near_socket, &far_socket, b), (b, &far_socket, &near_socket, a)];
        for (way, (sender, from, to, receiver)) in ways.into_iter().enumerate() {
            let (give, take) = mpsc::channel();
            let (from, to, reading, writing) = (from.clone(), to.clone(), shared.clone(), shared.clone());
            let random = Random::new(weather.seed * 2 + way as u64);
            threads.push(std::thread::spawn(move || reading.read(&from, sender, weather, random, &give)));
            threads.push(std::thread::spawn(move || writing.write(&to, receiver, &take)));
        }
        UdpLink { near, far, shared, threads }
    }

    /// From now on nothing passes, or everything again.
    pub fn set_cut(&self, is_cut: bool) {
        self.shared.is_cut.store(is_cut, Ordering::SeqCst);
    }

    /// Datagrams carried and lost, both ways together.
    pub fn carried_and_lost(&self) -> (u64, u64) {
        (self.shared.carried.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed))
    }
}

impl Drop for UdpLink {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

type Due = Reverse<(Instant, u64, Vec<u8>)>;

impl Shared {
    fn read(
        &self,
        socket: &UdpSocket,
        from: SocketAddrV4,
        weather: Weather,
        mut random: Random,
        give: &mpsc::Sender<Due>,
    ) {
        let mut bytes = vec![0; 64 << 10];
        let mut number = 0;
        while !self.is_over.load(Ordering::SeqCst) {
            let Ok((count, sender)) = socket.recv_from(&mut bytes) else { continue };
            if sender != SocketAddr::V4(from) {
                continue;
            }
            let now = Instant::now();
            let is_lost =
                random.below(1_000_000) < u64::from(weather.lost_per_million) || count > weather.payload_bytes_max;
            if is_lost || self.is_cut.load(Ordering::SeqCst) {
                self.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            self.carried.fetch_add(1, Ordering::Relaxed);
            let copies = 1 + u64::from(random.below(1_000_000) < u64::from(weather.doubled_per_million));
            for _ in 0..copies {
                number += 1;
                let due = now + random.between(weather.delay);
                if give.send(Reverse((due, number, bytes[..count].to_vec()))).is_err() {
                    return;
                }
            }
        }
    }

    fn write(&self, socket: &UdpSocket, to: SocketAddrV4, take: &mpsc::Receiver<Due>) {
        let mut waiting: BinaryHeap<Due> = BinaryHeap::new();
        loop {
            while let Some(Reverse((due, ..))) = waiting.peek()
                && *due <= Instant::now()
            {
                let Some(Reverse((_, _, bytes))) = waiting.pop() else { break };
                // Whoever was there may have gone.
                let _ = socket.send_to(&bytes, to);
            }
            let next = waiting
                .peek()
                .map_or(Duration::from_millis(100), |Reverse((due, ..))| due.saturating_duration_since(Instant::now()));
            match take.recv_timeout(next) {
                Ok(due) => {
                    waiting.push(due);
                    waiting.extend(take.try_iter());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}
