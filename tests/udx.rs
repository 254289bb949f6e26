//! Our UDX streams and those of the real udx-native: over sockets of the operating system, through links that lose, delay and overtake, ended in every way.
//!
//! Needs node and the packages pinned in `interop/package-lock.json`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use pgbee_replication::transport::udp::{BareMux, Udp, UdpOptions, UdxStream};
use pgbee_replication::udp::{Random, SocketId};
use pgbee_replication::udx::{Config, Mux, Path};
use pgbee_tests::{JavaScript, UdpLink, Weather};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(120);
const SIZE: usize = 5_000_000;

/// Byte `i` of what a stream carries: the rule of `interop/udx.mjs`.
fn rule(i: usize) -> u8 {
    (i.wrapping_mul(31) + (i >> 8) * 7 + (i >> 16) * 13) as u8
}

/// What is for a stream, from a place on.
fn content(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(rule).collect()
}

struct Native {
    peer: JavaScript,
    port: u16,
}

impl Native {
    fn start() -> Native {
        let mut peer = JavaScript::run("udx.mjs");
        let port = peer.ask("socket", json!({"as": "socket"}))["port"].as_u64().expect("a port") as u16;
        Native { peer, port }
    }
    fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port)
    }
    /// One command about a stream.
    fn ask(&mut self, what: &str, stream: u32, mut more: Value) -> Value {
        more["as"] = json!(stream.to_string());
        self.peer.ask(what, more)
    }
    /// A stream under a number, towards a port.
    fn connect(&mut self, id: u32, remote_id: u32, port: u16) {
        self.ask("stream", id, json!({"id": id}));
        self.ask("connect", id, json!({"socket": "socket", "remoteId": remote_id, "port": port}));
    }
}

type Ours = Arc<Udp<BareMux>>;

fn ours_with(config: Config, seed: u8) -> Ours {
    let mux = Mux::new(config, Random::new([seed; 32]));
    Udp::start(|_, _, _| BareMux(mux), UdpOptions::default()).expect("loopback has free ports").0
}

fn ours() -> Ours {
    ours_with(Config::default(), 1)
}

fn connect(udp: &Ours, remote: SocketAddrV4, remote_id: u32) -> UdxStream<BareMux> {
    let id = udp.with(|machine, _| machine.0.open());
    connect_as(udp, id, remote, remote_id)
}

fn connect_as(udp: &Ours, id: u32, remote: SocketAddrV4, remote_id: u32) -> UdxStream<BareMux> {
    let stream = udp.stream(id);
    udp.with(|machine, now| machine.0.connect(now, id, Path { socket: SocketId::SERVER, remote, remote_id }));
    stream
}

/// Ours to native over a direct path.
fn pair(udp: &Ours, native: &mut Native, native_id: u32) -> UdxStream<BareMux> {
    let stream = connect(udp, native.address(), native_id);
    native.connect(native_id, stream.id(), udp.server_address().port());
    stream
}

/// Two of ours, each with sockets of its own.
fn pair_of_ours(weather: Option<Weather>) -> (UdxStream<BareMux>, UdxStream<BareMux>, Option<UdpLink>) {
    let (a, b) = (ours_with(Config::default(), 1), ours_with(Config::default(), 2));
    let link = weather.map(|weather| UdpLink::between(a.server_address(), b.server_address(), weather));
    let (to_b, to_a) = match &link {
        Some(link) => (link.near, link.far),
        None => (b.server_address(), a.server_address()),
    };
    let (at_a, at_b) = (a.with(|machine, _| machine.0.open()), b.with(|machine, _| machine.0.open()));
    (connect_as(&a, at_a, to_b, at_b), connect_as(&b, at_b, to_a, at_a), link)
}

/// Reads to the end; what came is what the rule says.
async fn read_all(stream: &mut (impl AsyncReadExt + Unpin)) -> usize {
    let (mut buffer, mut count) = (vec![0; 64 << 10], 0);
    loop {
        let read = timeout(LONG, stream.read(&mut buffer)).await.expect("in time").expect("no error");
        if read == 0 {
            return count;
        }
        let wrong = (0..read).find(|&i| buffer[i] != rule(count + i));
        assert_eq!(wrong, None, "after {count} bytes");
        count += read;
    }
}

async fn write_all_and_end(stream: &mut (impl AsyncWriteExt + Unpin), size: usize) {
    timeout(LONG, stream.write_all(&content(0, size))).await.expect("in time").expect("written");
    timeout(LONG, stream.shutdown()).await.expect("in time").expect("ended");
}

/// Something that blocks, beside the runtime: it begins at once.
fn beside<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> impl Future<Output = R> {
    let task = tokio::task::spawn_blocking(f);
    async { timeout(LONG, task).await.expect("in time").expect("no panic") }
}

/// Both ways at once, ended by both.
async fn exchange(stream: UdxStream<BareMux>, mut native: Native, native_id: u32, size: usize) {
    native.ask("write", native_id, json!({"count": size}));
    let javascript = beside(move || {
        native.ask("end", native_id, json!({}));
        let received = native.ask("received", native_id, json!({"close": true}));
        assert_eq!(received["count"], json!(size));
        assert_eq!(received["wrong"], Value::Null);
        assert_eq!(received["ended"], json!(true));
        assert_eq!(received["reason"], Value::Null);
    });
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = tokio::spawn(async move { write_all_and_end(&mut writer, size).await });
    assert_eq!(read_all(&mut reader).await, size);
    writing.await.expect("no panic");
    javascript.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_megabytes_each_way_on_loopback() {
    let (udp, mut native) = (ours(), Native::start());
    let stream = pair(&udp, &mut native, 7);
    exchange(stream, native, 7, SIZE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_megabytes_each_way_through_loss_delay_and_overtaking() {
    let (udp, mut native) = (ours(), Native::start());
    let weather = Weather {
        lost_per_million: 20_000,
        doubled_per_million: 5_000,
        delay: (Duration::from_millis(5), Duration::from_millis(12)),
        ..Weather::default()
    };
    let link = UdpLink::between(udp.server_address(), native.address(), weather);
    let stream = connect(&udp, link.near, 7);
    native.connect(7, stream.id(), link.far.port());
    exchange(stream, native, 7, SIZE).await;
    let (carried, lost) = link.carried_and_lost();
    assert!(lost > carried / 100, "{lost} lost of {carried}: the link was to be a bad one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ours_to_ours_through_loss_delay_and_overtaking() {
    let weather = Weather {
        lost_per_million: 20_000,
        doubled_per_million: 5_000,
        delay: (Duration::from_millis(5), Duration::from_millis(12)),
        ..Weather::default()
    };
    for weather in [None, Some(weather)] {
        let (a, b, _link) = pair_of_ours(weather);
        let ((mut a_reads, mut a_writes), (mut b_reads, mut b_writes)) = (tokio::io::split(a), tokio::io::split(b));
        let a_writing = tokio::spawn(async move { write_all_and_end(&mut a_writes, SIZE).await });
        let b_writing = tokio::spawn(async move { write_all_and_end(&mut b_writes, SIZE).await });
        let a_reading = tokio::spawn(async move { read_all(&mut a_reads).await });
        assert_eq!(read_all(&mut b_reads).await, SIZE);
        assert_eq!(a_reading.await.expect("no panic"), SIZE);
        a_writing.await.expect("no panic");
        b_writing.await.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_mtu_on_the_way_is_found() {
    let (udp, mut native) = (ours(), Native::start());
    let weather = Weather {
        payload_bytes_max: 1250,
        delay: (Duration::from_millis(1), Duration::from_millis(1)),
        ..Weather::default()
    };
    let link = UdpLink::between(udp.server_address(), native.address(), weather);
    let stream = connect(&udp, link.near, 7);
    native.connect(7, stream.id(), link.far.port());
    exchange(stream, native, 7, 1_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroyed_stream_is_an_error_on_the_other_side() {
    let (udp, mut native) = (ours(), Native::start());
    let (first, mut second) = (pair(&udp, &mut native, 1), pair(&udp, &mut native, 2));
    native.ask("write", 1, json!({"count": 10}));
    native.ask("write", 2, json!({"count": 10}));
    let mut ten = [0; 10];
    second.read_exact(&mut ten).await.expect("ten bytes");
    drop(first);
    let (closed, mut native) = beside(move || (native.ask("received", 1, json!({"close": true})), native)).await;
    assert_eq!(closed["reason"], json!("ECONNRESET"));
    assert_eq!(closed["ended"], json!(false));
    native.ask("destroy", 2, json!({}));
    let error = timeout(LONG, second.read(&mut ten)).await.expect("in time").expect_err("it was destroyed");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(second.write(&ten).await.expect_err("it was destroyed").kind(), std::io::ErrorKind::BrokenPipe);
    drop(second);
    // What is over is forgotten.
    for attempt in 0.. {
        if udp.with(|machine, _| machine.0.is_empty()) {
            break;
        }
        assert!(attempt < 100, "streams are left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_tells_the_other_side() {
    let (udp, mut native) = (ours(), Native::start());
    let mut stream = pair(&udp, &mut native, 1);
    stream.write_all(&content(0, 10)).await.expect("written");
    let (_, mut native) = beside(move || (native.ask("received", 1, json!({"count": 10})), native)).await;
    udp.shutdown().await;
    let closed = beside(move || native.ask("received", 1, json!({"close": true}))).await;
    assert_eq!(closed["reason"], json!("ECONNRESET"));
    assert!(stream.read(&mut [0; 10]).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_beside_the_stream() {
    let (udp, mut native) = (ours(), Native::start());
    let stream = pair(&udp, &mut native, 1);
    assert!(stream.send_message(b"hello"));
    assert!(stream.send_message(b""));
    native.ask("send", 1, json!({"message": "0102"}));
    let message = timeout(LONG, stream.message()).await.expect("in time").expect("a message");
    assert_eq!(&message[..], [1, 2]);
    let (messages, mut native) = beside(move || (native.ask("messages", 1, json!({"count": 2})), native)).await;
    assert_eq!(messages["messages"], json!(["68656c6c6f", ""]));
    assert!(!stream.send_message(&[0; 4000]), "longer than any packet");
    native.ask("destroy", 1, json!({}));
    assert!(timeout(LONG, stream.message()).await.expect("in time").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_keep_the_way_open_and_change_nothing() {
    let udp = ours_with(Config { keep_alive: Some(Duration::from_millis(100)), ..Config::default() }, 3);
    let mut native = Native::start();
    let stream = pair(&udp, &mut native, 1);
    native.ask("keepalive", 1, json!({"ms": 100}));
    let before = native.ask("stats", 1, json!({}))["packetsReceived"].as_u64().expect("a number");
    let ours_before = stream.stats().expect("it lives").packets_received;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = native.ask("stats", 1, json!({}))["packetsReceived"].as_u64().expect("a number");
    let ours_after = stream.stats().expect("it lives").packets_received;
    assert!(after - before >= 5, "native received {before} and then {after} packets");
    assert!(ours_after - ours_before >= 5, "ours received {ours_before} and then {ours_after} packets");
    exchange(stream, native, 1, 100_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_streams_over_one_socket() {
    const STREAMS: u32 = 200;
    const EACH: usize = 60_000;
    let (udp, mut native) = (ours(), Native::start());
    let streams: Vec<_> = (1..=STREAMS).map(|id| pair(&udp, &mut native, id)).collect();
    for id in 1..=STREAMS {
        native.ask("write", id, json!({"count": EACH}));
    }
    let tasks: Vec<_> = streams
        .into_iter()
        .map(|stream| {
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(stream);
                let writing = tokio::spawn(async move { write_all_and_end(&mut writer, EACH).await });
                assert_eq!(read_all(&mut reader).await, EACH);
                writing.await.expect("no panic");
            })
        })
        .collect();
    let native = beside(move || {
        for id in 1..=STREAMS {
            native.ask("end", id, json!({}));
        }
        native
    });
    let mut native = native.await;
    for task in tasks {
        timeout(LONG, task).await.expect("in time").expect("no panic");
    }
    beside(move || {
        for id in 1..=STREAMS {
            let received = native.ask("received", id, json!({"end": true}));
            assert_eq!((&received["count"], &received["wrong"]), (&json!(EACH), &Value::Null), "stream {id}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_waited_for() {
    let config = Config { receive_window: 256 << 10, write_buffer_max: 512 << 10, ..Config::default() };
    let (udp, mut native) = (ours_with(config, 4), Native::start());
    let mut stream = pair(&udp, &mut native, 1);
    // Native writes far more than our window: it stops, and goes on as we read.
    native.ask("write", 1, json!({"count": SIZE}));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let held = udp.with(|machine, _| machine.0.stream(stream.id()).expect("it lives").readable_bytes());
    assert!(held <= (256 << 10) + 3000, "{held} bytes are held for a window of 256 KiB");
    let native = beside(move || {
        native.ask("end", 1, json!({}));
        native
    });
    assert_eq!(read_all(&mut stream).await, SIZE);
    drop(native.await);
    // Native receivers take all, read or not; ours hold back who writes, and it goes on later.
    let (mut from, mut to, _) = pair_of_ours(None);
    let data = content(0, 4 * SIZE);
    let mut taken = 0;
    while let Ok(count) = timeout(Duration::from_millis(500), from.write(&data[taken..])).await {
        taken += count.expect("written");
        assert!(taken < data.len(), "all of it was taken, and nobody reads");
    }
    let writing = tokio::spawn(async move {
        timeout(LONG, from.write_all(&data[taken..])).await.expect("in time").expect("written");
        timeout(LONG, from.shutdown()).await.expect("in time").expect("ended");
    });
    assert_eq!(read_all(&mut to).await, 4 * SIZE);
    writing.await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn native_streams_relayed_by_ours() {
    let (udp, mut one, mut other) = (ours(), Native::start(), Native::start());
    let port = udp.server_address().port();
    let legs: Vec<(u32, u32)> = [1, 2]
        .map(|native_id| {
            let ids = udp.with(|machine, _| (machine.0.open(), machine.0.open()));
            udp.with(|machine, now| {
                let path = |remote, remote_id| Path { socket: SocketId::SERVER, remote, remote_id };
                machine.0.connect(now, ids.0, path(one.address(), native_id));
                machine.0.connect(now, ids.1, path(other.address(), native_id));
                machine.0.relay(ids.0, ids.1);
            });
            one.connect(native_id, ids.0, port);
            other.connect(native_id, ids.1, port);
            ids
        })
        .into();
    assert_eq!(legs.len(), 2);
    for side in [&mut one, &mut other] {
        side.ask("write", 1, json!({"count": 1_000_000}));
    }
    let (mut one, mut other) = beside(move || {
        for side in [&mut one, &mut other] {
            side.ask("end", 1, json!({}));
        }
        for side in [&mut one, &mut other] {
            let received = side.ask("received", 1, json!({"close": true}));
            assert_eq!((&received["count"], &received["wrong"]), (&json!(1_000_000), &Value::Null));
            assert_eq!((&received["ended"], &received["reason"]), (&json!(true), &Value::Null));
        }
        (one, other)
    })
    .await;
    one.ask("send", 2, json!({"message": "07"}));
    let (messages, mut other) = beside(move || (other.ask("messages", 2, json!({"count": 1})), other)).await;
    assert_eq!(messages["messages"], json!(["07"]));
    one.ask("destroy", 2, json!({}));
    let closed = beside(move || other.ask("received", 2, json!({"close": true}))).await;
    assert_eq!(closed["reason"], json!("ECONNRESET"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_stream_moves_to_another_socket() {
    let (udp, mut native) = (ours(), Native::start());
    let stream = pair(&udp, &mut native, 1);
    let (id, remote) = (stream.id(), native.address());
    let (mut reader, mut writer) = tokio::io::split(stream);
    writer.write_all(&content(0, 1_000_000)).await.expect("written");
    // Native hears of the move by its own way: it is told to send to the other port.
    udp.with(|machine, now| {
        machine.0.change_path(now, id, Path { socket: SocketId::CLIENT, remote, remote_id: 1 });
    });
    let to = udp.client_address().port();
    let mut native = beside(move || {
        native.ask("move", 1, json!({"socket": "socket", "remoteId": id, "port": to}));
        native
    })
    .await;
    native.ask("write", 1, json!({"count": 1_000_000}));
    let javascript = beside(move || {
        native.ask("end", 1, json!({}));
        native.ask("received", 1, json!({"close": true}))
    });
    let writing = tokio::spawn(async move {
        writer.write_all(&content(1_000_000, 1_000_000)).await.expect("written");
        timeout(LONG, writer.shutdown()).await.expect("in time").expect("ended");
    });
    assert_eq!(read_all(&mut reader).await, 1_000_000);
    writing.await.expect("no panic");
    let received = javascript.await;
    assert_eq!((&received["count"], &received["wrong"]), (&json!(2_000_000), &Value::Null));
    assert_eq!(received["reason"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_that_is_cut_for_good_ends_the_stream() {
    let (mut a, b, link) = pair_of_ours(Some(Weather::default()));
    a.write_all(&content(0, 1000)).await.expect("written");
    link.as_ref().expect("a link").set_cut(true);
    a.write_all(&content(1000, 1000)).await.expect("written");
    let error = timeout(LONG, a.read(&mut [0; 10])).await.expect("in time").expect_err("nobody answers");
    assert!(matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::ConnectionReset), "{error}");
    drop(b);
}
