//! UDX against what native streams sent, and against itself over links that lose, delay, reorder, duplicate and cut ([`world`]).

mod hostile;
mod world;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use serde_json::Value;

use super::packet::{Header, Packet, flag};
use super::*;
use crate::secret_stream::vectors;
use crate::udp::{Random, Transmit};
use world::*;

fn field(value: &Value, name: &str) -> u32 {
    value[name].as_u64().expect("a number") as u32
}

fn sent_first(case: &Value) -> Vec<Vec<u8>> {
    let packets = case["sent_first"].as_array().cloned().unwrap_or_default();
    packets.iter().map(|hex| vectors::unhex(hex.as_str().expect("hex"))).collect()
}

#[test]
fn packets_of_native_streams_are_read_and_written() {
    let file = vectors::read("swarm/udx-packets");
    for case in file["cases"].as_array().expect("cases") {
        let bytes = vectors::bytes(case, "bytes");
        let packet = Packet::decode(&bytes).expect("a packet");
        let fields = &case["fields"];
        let header = Header {
            flags: field(fields, "type") as u8,
            data_offset: field(fields, "data_offset") as u8,
            stream_id: field(fields, "stream_id"),
            window: field(fields, "recv_window"),
            seq: field(fields, "seq"),
            ack: field(fields, "ack"),
        };
        assert_eq!(packet.header, header, "{}", case["name"]);
        let rest = vectors::bytes(fields, "rest");
        assert_eq!(packet.payload, Some(&rest[usize::from(header.data_offset)..]));
        let mut written = vec![];
        header.encode(&mut written);
        written.extend(&rest);
        assert_eq!(written, bytes, "{}", case["name"]);
        assert_eq!(packet.sacks().count(), if header.has(flag::SACK) { rest.len() / 8 } else { 0 });
    }
}

/// Each case is played to a stream of ours, in their order: it must send what the native one sent.
#[test]
fn reactions_are_those_of_native_streams() {
    let file = vectors::read("swarm/udx-packets");
    let (mut world, mut now) = (World::new(1, Link::good()), Duration::from_secs(1));
    let mux = &mut world.hosts[0];
    let connect = |mux: &mut Mux, id, remote_id| {
        mux.open_as(id);
        mux.connect(Duration::from_secs(1), id, path(0, 1, 0, remote_id));
    };
    connect(mux, 7, 9);
    let (mut compared, mut read) = (0, Vec::<u8>::new());
    for case in file["cases"].as_array().expect("cases") {
        let name = vectors::text(case, "name");
        now += MS;
        match name {
            "data packet" => drop(mux.stream(7).expect("7").write(b"hello")),
            "message packet" => assert!(mux.stream(7).expect("7").send_message(b"unordered")),
            "end packet" => mux.stream(7).expect("7").end(),
            "destroy packet" => {
                connect(mux, 11, 12);
                mux.stream(11).expect("11").destroy();
            }
            "keep-alive heartbeat" => {
                let config = Config { keep_alive: Some(50 * MS), ..Config::default() };
                *mux = Mux::new(config, Random::new([3; 32]));
                connect(mux, 13, 14);
                now += Duration::from_secs(1);
                mux.handle_timeout(now);
            }
            _ => {}
        }
        for packet in sent_first(case) {
            assert_eq!(
                mux.handle_datagram(now, SocketId(0), address(1, SocketId(0)), &packet),
                Handled::Stream(7),
                "{name}"
            );
            let stream = mux.stream(7).expect("7");
            read.extend(std::iter::from_fn(|| stream.read(100)).flatten());
        }
        let sent: Vec<Transmit> = std::iter::from_fn(|| mux.poll_transmit(now)).collect();
        assert_eq!(sent.len(), 1, "{name}: {sent:?}");
        assert_eq!(sent[0].payload, vectors::bytes(case, "bytes"), "{name}");
        compared += 1;
        if name == "ack for the remote end" {
            let stream = mux.stream(7).expect("7");
            assert!(stream.is_closed() && stream.close_reason().is_none());
            assert_eq!(read, b"abcdefghijklmnopad");
        }
    }
    assert_eq!(compared, 15);
}

#[test]
fn a_first_flight_fits_the_smallest_mtu() {
    let mut world = World::new(1, Link::good());
    let (a, _) = world.connect(0, 1);
    world.stream(0, a).write(&[1; 3000]);
    let now = world.now;
    let sent = world.hosts[0].poll_transmit(now).expect("a batch");
    assert_eq!((sent.segment, sent.payload.len()), (Some(1172), 3000 + 3 * 20));
}

#[test]
fn bytes_arrive_as_they_were_written_over_any_link() {
    for seed in 0..6 {
        for link in
            [Link::good(), Link::bad(), Link { mtu: 1280, ..Link::bad() }, Link { bandwidth: 1e5, ..Link::good() }]
        {
            let total = if link.bandwidth < 1e6 { 200_000 } else { 1_000_000 };
            let mut world = World::new(seed, link.clone());
            let (a, b) = world.connect(0, 1);
            let mut flows = [Flow::new((0, a), (1, b), total), Flow::new((1, b), (0, a), total / 3)];
            run(&mut world, &mut flows, Duration::from_secs(120));
            world.run_for(Duration::from_secs(40));
            for (host, id) in [(0, a), (1, b)] {
                let stream = world.stream(host, id);
                assert!(stream.is_closed() && stream.close_reason().is_none(), "seed {seed}, {link:?}");
                assert!(world.events(host).contains(&StreamEvent::Closed(None)));
            }
        }
    }
}

#[test]
fn numbers_wrap() {
    let config = Config { first_seq: u32::MAX - 100, ..Config::default() };
    let mut world = World::with(4, Link::bad(), config, 2);
    let (a, b) = world.connect(0, 1);
    let mut flows = [Flow::new((0, a), (1, b), 600_000), Flow::new((1, b), (0, a), 600_000)];
    run(&mut world, &mut flows, Duration::from_secs(60));
    assert!(world.stream(0, a).numbers().1.0 > 2 << 32);
}

#[test]
fn the_mtu_is_found() {
    for (mtu, found) in [(1500, 1500), (1400, 1392), (1300, 1296), (1210, 1200)] {
        let mut world = World::new(5, Link { mtu, ..Link::good() });
        let (a, b) = world.connect(0, 1);
        run(&mut world, &mut [Flow::new((0, a), (1, b), 5_000_000)], Duration::from_secs(20));
        let stats = world.stream(0, a).stats();
        assert_eq!(stats.mtu, found, "path of {mtu}");
        assert_eq!(stats.timeouts, 0);
        assert!(world.largest <= 1472);
    }
}

/// Lost packets must not stand in the way: the link carries 20 MB a second, with a round trip of 100 ms.
#[test]
fn random_loss_costs_little() {
    let rates: Vec<f64> = [0.0, 0.01, 0.03, 0.1].map(|loss| rate(6, Link::lossy(loss), 20_000_000)).into();
    eprintln!("MB/s at 0, 1, 3 and 10 % loss: {rates:.1?}");
    // Of the second and a half that it takes at best, one is spent on finding out what the link carries.
    for (rate, least) in rates.iter().zip([10.0, 9.5, 9.0, 7.0]) {
        assert!(*rate > least, "{rates:?}");
    }
}

#[test]
fn a_short_queue_is_not_flooded() {
    let mut world = World::new(7, Link { bandwidth: 2e6, queue: 20 * MS, ..Link::good() });
    let (a, b) = world.connect(0, 1);
    let took = run(&mut world, &mut [Flow::new((0, a), (1, b), 6_000_000)], Duration::from_secs(30));
    let stats = world.stream(0, a).stats();
    assert!(took < Duration::from_millis(4500), "{took:?}");
    assert!(stats.lost * 5 < stats.packets_sent, "{stats:?}");
}

/// A stream whose reader has not read for two seconds.
fn stalled(seed: u8) -> (World, Flow, u32, u32) {
    let mut world = World::new(seed, Link { bandwidth: 100e6, ..Link::good() });
    let (a, b) = world.connect(0, 1);
    let mut flow = Flow::new((0, a), (1, b), 9_000_000);
    flow.is_read = false;
    for _ in 0..20 {
        flow.go(&mut world);
        world.run_for(100 * MS);
    }
    (world, flow, a, b)
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer() {
    let (mut world, mut flow, a, b) = stalled(8);
    let held = world.stream(1, b).readable_bytes();
    assert!((4 << 20..(4 << 20) + 3000).contains(&held), "{held}");
    assert!(flow.written < (4 << 20) + (5 << 20), "{}", flow.written);
    assert!(!world.stream(0, a).is_writable());

    // The writer asks now and then; and hears at once when there is room.
    let before = world.stream(0, a).stats().packets_sent;
    world.run_for(Duration::from_secs(10));
    let asked = world.stream(0, a).stats().packets_sent - before;
    assert!((4..=6).contains(&asked), "{asked}");
    world.events(0);
    flow.is_read = true;
    run(&mut world, &mut [flow], Duration::from_secs(3));
}

#[test]
fn a_lost_window_update_is_asked_for() {
    let (mut world, mut flow, _, b) = stalled(9);
    world.cut.insert(address(0, SocketId(0)));
    while world.stream(1, b).read(100_000).map(|bytes| flow.read += bytes.len()).is_some() {}
    world.run_for(MS);
    world.cut.clear();
    flow.is_read = true;
    run(&mut world, &mut [flow], Duration::from_secs(5));
}

#[test]
fn a_peer_that_is_gone_is_given_up() {
    let mut world = World::new(10, Link::good());
    let (a, b) = world.connect(0, 1);
    world.cut.insert(address(1, SocketId(0)));
    world.stream(0, a).write(b"is anyone there?");
    world.run_for(Duration::from_millis(12_900));
    assert!(!world.stream(0, a).is_closed());
    world.run_for(200 * MS);
    assert_eq!(world.events(0), [StreamEvent::Closed(Some(CloseReason::TimedOut))]);
    assert_eq!(world.stream(0, a).stats().timeouts, 7);
    assert!(!world.stream(1, b).is_closed());
}

#[test]
fn ends_are_told_and_acked() {
    let mut world = World::new(11, Link::good());
    let (a, b) = world.connect(0, 1);
    world.stream(0, a).write(b"all");
    world.stream(0, a).end();
    assert_eq!(world.stream(0, a).write(b"too late"), 0);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.events(1), [StreamEvent::PathConfirmed, StreamEvent::Readable, StreamEvent::RemoteEnded]);
    assert!(!world.stream(1, b).is_read_to_end());
    assert_eq!(&world.stream(1, b).read(10).expect("bytes")[..], b"all");
    assert!(world.stream(1, b).is_read_to_end() && world.stream(0, a).is_end_acked());
    assert!(!world.stream(0, a).is_closed() && !world.stream(1, b).is_closed());
    // The other direction still works.
    world.stream(1, b).write(b"answer");
    world.stream(1, b).end();
    world.run_for(Duration::from_secs(1));
    assert_eq!(
        world.events(0),
        [
            StreamEvent::PathConfirmed,
            StreamEvent::Readable,
            StreamEvent::RemoteEnded,
            StreamEvent::Writable,
            StreamEvent::Closed(None)
        ]
    );
    assert_eq!(world.events(1), [StreamEvent::Closed(None)]);
    assert_eq!(&world.stream(0, a).read(10).expect("bytes")[..], b"answer");
}

/// The ack of the last end is lost, and the stream it came from is forgotten already: the other side must not wait in vain.
#[test]
fn a_lost_last_ack_is_given_again() {
    let mut world = World::new(12, Link::good());
    let (a, b) = world.connect(0, 1);
    world.stream(0, a).end();
    world.run_for(100 * MS);
    world.stream(1, b).end();
    world.cut.insert(address(1, SocketId(0)));
    world.run_for(20 * MS);
    assert!(world.stream(0, a).is_closed() && !world.stream(1, b).is_closed());
    world.hosts[0].remove(a);
    world.cut.clear();
    world.run_for(Duration::from_secs(3));
    assert!(world.stream(1, b).is_closed());
    assert_eq!(world.stream(1, b).close_reason(), None);
    assert_eq!(world.stray, 0);
}

#[test]
fn destroying_resets_the_other_side() {
    let mut world = World::new(13, Link::good());
    let (a, b) = world.connect(0, 1);
    world.stream(0, a).write(b"some");
    world.run_for(50 * MS);
    world.stream(0, a).destroy();
    world.run_for(50 * MS);
    assert_eq!(world.events(0), [StreamEvent::PathConfirmed, StreamEvent::Closed(None)]);
    assert_eq!(world.events(1).last(), Some(&StreamEvent::Closed(Some(CloseReason::Reset))));
    assert_eq!(&world.stream(1, b).read(10).expect("what came before")[..], b"some");
    // Removing an open stream does the same.
    let (a, b) = world.connect(0, 1);
    world.hosts[0].remove(a);
    world.run_for(50 * MS);
    assert_eq!(world.stream(1, b).close_reason(), Some(CloseReason::Reset));
    assert!(world.hosts[0].stream(a).is_none());
}

#[test]
fn a_destroy_from_elsewhere_in_time_is_ignored() {
    let mut world = World::new(14, Link::good());
    let (_, b) = world.connect(0, 1);
    for seq in [u32::MAX, 1 << 31, 70_000] {
        let mut bytes = vec![];
        Header { flags: flag::DESTROY, data_offset: 0, stream_id: b, window: 0, seq, ack: 0 }.encode(&mut bytes);
        let now = world.now;
        world.hosts[1].handle_datagram(now, SocketId(0), address(0, SocketId(0)), &bytes);
        assert!(!world.stream(1, b).is_closed());
    }
}

#[test]
fn messages_go_beside_the_stream_and_are_bounded() {
    let mut world = World::new(15, Link::good());
    let (a, b) = world.connect(0, 1);
    assert!(!world.stream(0, a).send_message(&[0; 1153]) && world.stream(0, a).send_message(&[7; 1152]));
    assert!(world.stream(0, a).send_message(b""));
    while world.stream(0, a).send_message(b"more") {}
    world.run_for(50 * MS);
    assert!(world.events(1).contains(&StreamEvent::Message));
    assert_eq!(world.stream(1, b).read_message().map(|bytes| bytes.len()), Some(1152));
    assert_eq!(world.stream(1, b).read_message().map(|bytes| bytes.len()), Some(0));
    for _ in 0..100 {
        world.stream(0, a).send_message(b"more");
        world.run_for(MS);
    }
    world.run_for(50 * MS);
    let stream = world.stream(1, b);
    assert_eq!(std::iter::from_fn(|| stream.read_message()).count(), 64);
}

#[test]
fn packets_before_connecting_are_kept() {
    let mut world = World::new(16, Link::good());
    let (a, b) = (world.hosts[0].open(), world.hosts[1].open());
    let now = world.now;
    world.hosts[0].connect(now, a, path(0, 1, 0, b));
    let mut flow = Flow::new((0, a), (1, b), 9_000);
    flow.go(&mut world);
    world.run_for(100 * MS);
    assert!(world.stray > 0 && world.stream(1, b).readable_bytes() == 0);
    let now = world.now;
    world.hosts[1].connect(now, b, path(0, 0, 0, a));
    assert_eq!(world.stream(1, b).readable_bytes(), 9_000);
    let took = run(&mut world, &mut [flow], Duration::from_secs(1));
    assert!(took < 50 * MS);
}

#[test]
fn another_socket_has_to_be_let_in() {
    let mut world = World::new(17, Link::good());
    let (a, b) = world.connect(0, 1);
    world.stream(0, a).write(b"x");
    let now = world.now;
    let sent = world.hosts[0].poll_transmit(now).expect("a packet");
    let from = address(0, SocketId(0));
    assert_eq!(world.hosts[1].handle_datagram(now, SocketId(1), from, &sent.payload), Handled::Unconnected(b));
    assert_eq!(world.stream(1, b).readable_bytes(), 0);
    // Source addresses are not looked at.
    let elsewhere = SocketAddrV4::new(Ipv4Addr::new(10, 9, 9, 9), 9);
    assert_eq!(world.hosts[1].handle_datagram(now, SocketId(0), elsewhere, &sent.payload), Handled::Stream(b));
    assert_eq!(world.stream(1, b).readable_bytes(), 1);
    assert_eq!(world.hosts[1].handle_datagram(now, SocketId(0), from, b"\x03dht"), Handled::NotOurs);
}

/// Host 2 relays between 0 and 1.
fn relayed(world: &mut World) -> (u32, u32, u32, u32) {
    let (a, b) = (world.hosts[0].open(), world.hosts[1].open());
    let (ra, rb) = (world.hosts[2].open(), world.hosts[2].open());
    let now = world.now;
    world.hosts[0].connect(now, a, path(0, 2, 0, ra));
    world.hosts[1].connect(now, b, path(0, 2, 0, rb));
    world.hosts[2].connect(now, ra, path(0, 0, 0, a));
    world.hosts[2].connect(now, rb, path(0, 1, 0, b));
    world.hosts[2].relay(ra, rb);
    (a, b, ra, rb)
}

#[test]
fn a_relay_passes_packets_on() {
    let mut world = World::with(18, Link::bad(), Config::default(), 3);
    let (a, b, ra, rb) = relayed(&mut world);
    let mut flows = [Flow::new((0, a), (1, b), 500_000), Flow::new((1, b), (0, a), 500_000)];
    run(&mut world, &mut flows, Duration::from_secs(30));
    assert_eq!(world.stream(2, ra).readable_bytes() + world.stream(2, rb).readable_bytes(), 0);
    assert!(!world.stream(2, ra).is_closed());

    world.link = Link::good();
    let (a, b, ra, rb) = relayed(&mut world);
    world.stream(0, a).write(b"hello");
    world.run_for(100 * MS);
    assert_eq!(world.stream(1, b).readable_bytes(), 5);
    world.stream(0, a).destroy();
    world.run_for(100 * MS);
    assert_eq!(world.stream(1, b).close_reason(), Some(CloseReason::Reset));
    assert!(world.stream(2, ra).is_closed() && world.stream(2, rb).is_closed());
}

/// From a relay to the direct path, in the middle of transfers both ways; one side notices later, as in a hole punch.
#[test]
fn a_live_stream_moves_to_another_path() {
    for seed in 0..4 {
        let mut world = World::with(seed, Link::bad(), Config::default(), 3);
        let (a, b, ..) = relayed(&mut world);
        let mut flows = [Flow::new((0, a), (1, b), 3_000_000), Flow::new((1, b), (0, a), 3_000_000)];
        for _ in 0..300 {
            flows.iter_mut().for_each(|flow| flow.go(&mut world));
            world.run_for(MS);
        }
        world.events(0);
        assert!(flows.iter().all(|flow| flow.read > 0 && flow.read < flow.total));
        let (mtu, now) = (world.stream(0, a).stats().mtu, world.now);
        assert!(mtu > 1200);
        world.hosts[0].change_path(now, a, path(1, 1, 1, b));
        assert_eq!(world.stream(0, a).stats().mtu, 1200);
        world.run_for(30 * MS);
        let now = world.now;
        world.hosts[1].change_path(now, b, path(1, 0, 1, a));
        // The relay goes away while packets are still under way through it.
        world.run_for(5 * MS);
        world.cut.insert(address(2, SocketId(0)));
        run(&mut world, &mut flows, Duration::from_secs(30));
        assert!(world.events(0).contains(&StreamEvent::PathConfirmed));
        assert_eq!(world.stream(0, a).path(), Some(path(1, 1, 1, b)));
    }
}

#[test]
fn many_streams_share_a_mux() {
    let mut world = World::new(20, Link::bad());
    let mut flows: Vec<Flow> = (0..40)
        .map(|_| world.connect(0, 1))
        .collect::<Vec<_>>()
        .into_iter()
        .map(|(a, b)| Flow::new((0, a), (1, b), 30_000))
        .collect();
    run(&mut world, &mut flows, Duration::from_secs(30));
}

/// A stranger who knows the id sends one-byte packets with a hole between each two: memory and SACKs stay bounded, and the true sender gets through.
#[test]
fn holes_do_not_fill_the_memory() {
    let config = Config { out_of_order_max: 100_000, ..Config::default() };
    let mut receiver = receive::Receiver::new(&config);
    let first = receiver.next();
    let mut kept = 0;
    for number in (1..200_000).step_by(2) {
        let before = receiver.sacks_len();
        receiver.handle(first.plus(number), flag::DATA, b"x");
        kept += usize::from(receiver.sacks_len() > before);
        assert!(receiver.sacks_len() <= packet::SACKS_MAX);
    }
    assert_eq!(kept, packet::SACKS_MAX);
    let pairs: Vec<_> = receiver.sacks().collect();
    assert!(pairs.windows(2).all(|pair| pair[0].1 < pair[1].0), "{pairs:?}");
    for number in 0..2_000 {
        receiver.handle(first.plus(number), flag::DATA, b"y");
        while receiver.read(10).is_some() {}
    }
    assert!(receiver.next() >= first.plus(2_000));
}

#[test]
fn nonsense_acks_change_nothing() {
    let mut world = World::new(21, Link::good());
    let (a, b) = world.connect(0, 1);
    world.stream(0, a).write(&[1; 5000]);
    world.flush();
    let before = world.stream(0, a).numbers();
    let hostile =
        [(6, vec![]), (u32::MAX, vec![]), (0, vec![(0, 6)]), (0, vec![(3, 3)]), (0, vec![(4, 2), (u32::MAX, 1)])];
    for (ack, sacks) in hostile {
        let mut bytes = vec![];
        let flags = if sacks.is_empty() { 0 } else { flag::SACK };
        Header { flags, data_offset: 0, stream_id: a, window: 0, seq: 0, ack }.encode(&mut bytes);
        sacks
            .iter()
            .for_each(|(start, end): &(u32, u32)| bytes.extend([start.to_le_bytes(), end.to_le_bytes()].concat()));
        let now = world.now;
        world.hosts[0].handle_datagram(now, SocketId(0), address(1, SocketId(0)), &bytes);
        assert_eq!(world.stream(0, a).numbers(), before, "{ack} {sacks:?}");
        assert_eq!(world.stream(0, a).stats().in_flight, 5000 + 5 * 20);
    }
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.stream(1, b).readable_bytes(), 5000);
}

/// Native receivers name the fifty lowest ranges. What lies above them must not be sent again only because something sent later has arrived.
#[test]
fn a_full_sack_list_says_nothing_of_what_is_above() {
    let mut world = World::new(22, Link::good());
    let (a, b) = world.connect(0, 1);
    let mut flow = Flow::new((0, a), (1, b), 4_000_000);
    while flow.written < 3_000_000 {
        flow.go(&mut world);
        world.run_for(MS);
    }
    // From here on the other side's acks are made up.
    world.cut.insert(address(0, SocketId(0)));
    world.run_for(30 * MS);
    let (una, next, _) = world.stream(0, a).numbers();
    assert!(next.since(una) > 150, "{}", next.since(una));
    let before = world.stream(0, a).stats().lost;
    let ack = |world: &mut World, ack: u64, first_pair: u64| {
        let mut bytes = vec![];
        let ack = una.plus(ack).wire();
        Header { flags: flag::SACK, data_offset: 0, stream_id: a, window: 4 << 20, seq: 0, ack }.encode(&mut bytes);
        for pair in first_pair..first_pair + 50 {
            bytes.extend(una.plus(2 * pair + 1).wire().to_le_bytes());
            bytes.extend(una.plus(2 * pair + 2).wire().to_le_bytes());
        }
        let now = world.now;
        world.hosts[0].handle_datagram(now, SocketId(0), address(1, SocketId(0)), &bytes);
    };
    ack(&mut world, 0, 0);
    world.run_for(30 * MS);
    ack(&mut world, 2, 1);
    world.run_for(5 * MS);
    let lost = world.stream(0, a).stats().lost - before;
    assert!((45..=110).contains(&lost), "{lost} of {}", next.since(una));
    // The truth comes out, and all arrives.
    world.cut.clear();
    run(&mut world, &mut [flow], Duration::from_secs(10));
}
