//! How fast does a UDX stream carry bytes, beside the real udx-native, on loopback and over a link that delays and loses?
//!
//! ```text
//! sender (ours or native) -- loopback, or 25 ms each way with so many per cent lost each way -- receiver (ours or native)
//! ```
//!
//! Every figure: megabytes a second between the receiver's first byte and its last, median of the rounds, the four pairs in turn within one run.
//!
//! `BENCH_UDX_STATS=1` also prints what our sender knows of its path, four times a second.
//!
//! usage: udx [MEGABYTES] [ROUNDS] [PERCENT LOST...]     (50, 3, then loopback and 0 1 3 10; `loopback` alone names that one). Needs node and npm.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgbee_replication::transport::udp::{BareMux, Udp, UdpOptions, UdxStream};
use pgbee_replication::udp::{Random, SocketId};
use pgbee_replication::udx::{Config, Mux, Path};
use pgbee_tests::{JavaScript, UdpLink, Weather};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

const EACH_WAY: Duration = Duration::from_millis(25);
/// A transfer slower than this is given up.
const LONGEST: Duration = Duration::from_secs(300);
const PAIRS: [(bool, bool, &str); 4] = [
    (true, true, "ours to ours"),
    (true, false, "ours to native"),
    (false, true, "native to ours"),
    (false, false, "native to native"),
];

fn main() {
    let mut words = std::env::args().skip(1);
    let megabytes: usize = words.next().map_or(50, |word| word.parse().expect("a number of megabytes"));
    let rounds: u64 = words.next().map_or(3, |word| word.parse().expect("a number of rounds"));
    let mut links: Vec<Option<f64>> =
        words.map(|word| (word != "loopback").then(|| word.parse().expect("per cent"))).collect();
    if links.is_empty() {
        links = vec![None, Some(0.0), Some(1.0), Some(3.0), Some(10.0)];
    }
    println!("{megabytes} MB, medians of {rounds} rounds, MB/s (beside native to native)");
    for lost in links {
        let mut found = [const { Vec::new() }; 4];
        for round in 0..rounds {
            for (of_pair, (from, to, _)) in found.iter_mut().zip(PAIRS) {
                of_pair.push(carry(from, to, megabytes * 1_000_000, lost, round));
            }
        }
        let medians = found.map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        });
        let name = lost.map_or("loopback".to_owned(), |lost| format!("50 ms, {lost} % lost"));
        let row: Vec<String> = PAIRS
            .iter()
            .zip(medians)
            .map(|((.., pair), rate)| format!("{pair} {rate:.1} ({:.2})", rate / medians[3]))
            .collect();
        println!("{name}: {}", row.join(", "));
    }
}

/// Megabytes a second from one end to the other.
fn carry(is_from_ours: bool, is_to_ours: bool, size: usize, lost: Option<f64>, round: u64) -> f64 {
    let (mut from, mut to) = (End::start(is_from_ours), End::start(is_to_ours));
    let link = lost.map(|lost| {
        let weather = Weather {
            lost_per_million: (lost * 10_000.0) as u32,
            delay: (EACH_WAY, EACH_WAY),
            seed: 1 + round,
            ..Weather::default()
        };
        UdpLink::between(from.address(), to.address(), weather)
    });
    let (to_address, from_address) = match &link {
        Some(link) => (link.near, link.far),
        None => (to.address(), from.address()),
    };
    let (from_id, to_id) = (from.open(1), to.open(2));
    to.connect(from_address, from_id);
    from.connect(to_address, to_id);
    from.send(size);
    if let End::Ours(ours) = &from
        && std::env::var_os("BENCH_UDX_STATS").is_some()
    {
        ours.print_stats();
    }
    size as f64 / 1e6 / to.received(size)
}

/// One end of a stream, on sockets and threads, or in a process, of its own.
enum End {
    Ours(Box<Ours>),
    Native { peer: Box<JavaScript>, address: SocketAddrV4 },
}

struct Ours {
    runtime: Runtime,
    udp: Arc<Udp<BareMux>>,
    id: u32,
    stream: Option<UdxStream<BareMux>>,
}

impl Ours {
    /// Until the runtime ends.
    fn print_stats(&self) {
        let (udp, id) = (self.udp.clone(), self.id);
        self.runtime.spawn(async move {
            while let Some(stats) = udp.with(|machine, _| machine.0.stream(id).map(|stream| stream.stats())) {
                eprintln!("{:?}: {stats:?}", udp.now());
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        });
    }
}

impl End {
    fn start(is_ours: bool) -> End {
        if is_ours {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
            let udp = {
                let _in_runtime = runtime.enter();
                let mux = Mux::new(Config::default(), Random::new([9; 32]));
                Udp::start(|_, _, _| BareMux(mux), UdpOptions::default()).expect("a free port").0
            };
            return End::Ours(Box::new(Ours { runtime, udp, id: 0, stream: None }));
        }
        let mut peer = JavaScript::run("udx.mjs");
        let port = peer.ask("socket", json!({"as": "socket"}))["port"].as_u64().expect("a port") as u16;
        End::Native { peer: Box::new(peer), address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port) }
    }

    fn address(&self) -> SocketAddrV4 {
        match self {
            End::Ours(ours) => ours.udp.server_address(),
            End::Native { address, .. } => *address,
        }
    }

    /// A stream; native ones take the number.
    fn open(&mut self, id: u32) -> u32 {
        match self {
            End::Ours(ours) => {
                ours.id = ours.udp.with(|machine, _| machine.0.open());
                ours.stream = Some(ours.udp.stream(ours.id));
                ours.id
            }
            End::Native { peer, .. } => {
                peer.ask("stream", json!({"as": "s", "id": id}));
                peer.ask("plain", json!({"as": "s"}));
                id
            }
        }
    }

    fn connect(&mut self, remote: SocketAddrV4, remote_id: u32) {
        match self {
            End::Ours(ours) => {
                let (id, path) = (ours.id, Path { socket: SocketId::SERVER, remote, remote_id });
                ours.udp.with(|machine, now| machine.0.connect(now, id, path));
            }
            End::Native { peer, .. } => {
                let more = json!({"as": "s", "socket": "socket", "remoteId": remote_id, "port": remote.port()});
                peer.ask("connect", more);
            }
        }
    }

    fn send(&mut self, size: usize) {
        match self {
            End::Ours(ours) => {
                let mut stream = ours.stream.take().expect("it was opened");
                ours.runtime.spawn(async move {
                    let piece = vec![0; 64 << 10];
                    let mut left = size;
                    while left > 0 {
                        let count = left.min(piece.len());
                        stream.write_all(&piece[..count]).await.expect("the other side reads");
                        left -= count;
                    }
                    let _ = stream.shutdown().await;
                    // A dropped stream is destroyed: it lives until its runtime ends.
                    std::future::pending::<()>().await;
                });
            }
            End::Native { peer, .. } => {
                peer.ask("write", json!({"as": "s", "count": size, "plain": true}));
            }
        }
    }

    /// Seconds between the first byte and the last.
    fn received(&mut self, size: usize) -> f64 {
        match self {
            End::Ours(ours) => {
                let stream = ours.stream.as_mut().expect("it was opened");
                let reading = async {
                    let (mut buffer, mut count, mut first) = (vec![0; 64 << 10], 0, None);
                    while count < size {
                        count += stream.read(&mut buffer).await.expect("the other side writes");
                        first.get_or_insert_with(Instant::now);
                    }
                    first.expect("there were bytes").elapsed().as_secs_f64()
                };
                ours.runtime.block_on(async { tokio::time::timeout(LONGEST, reading).await.expect("in time") })
            }
            End::Native { peer, .. } => {
                let answer: Value = peer.ask("received", json!({"as": "s", "count": size}));
                assert_eq!(answer["reason"], Value::Null);
                answer["seconds"].as_f64().expect("a number")
            }
        }
    }
}
