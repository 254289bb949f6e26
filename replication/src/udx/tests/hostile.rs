//! What a stranger may send to a stream, made up at random.
//!
//! What must stay true: whatever comes, whenever, there is no panic, and memory and answers stay in proportion to it.

use std::time::Duration;

use proptest::prelude::*;

use super::super::packet::{Header, flag};
use super::super::*;
use super::world::{address, path};
use crate::udp::Random;

/// A packet as a stranger might make one, mostly close to what makes sense.
fn hostile_packet(id: u32) -> impl Strategy<Value = Vec<u8>> {
    let near = || prop_oneof![0u32..40, any::<u32>(), Just(u32::MAX), Just(70_000u32)];
    let shape = (
        any::<u8>(),
        prop_oneof![Just(0u8), any::<u8>()],
        near(),
        near(),
        near(),
        prop::collection::vec(near(), 0..20),
    );
    let packet = (shape, prop::collection::vec(any::<u8>(), 0..60)).prop_map(
        move |((flags, data_offset, window, seq, ack, sacks), rest)| {
            let mut bytes = vec![];
            // Few of them end it, or the rest would not be looked at.
            let flags = if window % 16 == 0 { flags } else { flags & !(flag::DESTROY | flag::END) };
            Header { flags, data_offset, stream_id: id, window, seq, ack }.encode(&mut bytes);
            sacks.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
            bytes.extend(rest);
            bytes
        },
    );
    (packet, 0usize..2000).prop_map(|(mut bytes, cut)| {
        bytes.truncate(cut.max(1));
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever comes, whenever: no panic, bounded memory, bounded answers.
    #[test]
    fn any_datagram_is_survived(first_seq in prop_oneof![Just(0u32), Just(u32::MAX - 5)], steps in prop::collection::vec((hostile_packet(7), 0u64..1500, any::<u8>()), 1..120)) {
        let mut mux = Mux::new(Config { first_seq, ..Config::default() }, Random::new([1; 32]));
        mux.open_as(7);
        let mut now = Duration::from_secs(1);
        mux.connect(now, 7, path(0, 1, 0, 9));
        let mut received = 0;
        for (datagram, wait, action) in steps {
            now += Duration::from_micros(wait * 997);
            received += datagram.len();
            mux.handle_timeout(now);
            mux.handle_datagram(now, SocketId(u32::from(action % 9 == 0)), address(1, SocketId(0)), &datagram);
            let stream = mux.stream(7).expect("7");
            match action {
                0..40 => drop(stream.write(&vec![action; usize::from(action) * 300])),
                40..60 => drop(stream.read(1000)),
                60..63 => stream.end(),
                63..70 => drop(stream.send_message(b"hm")),
                70..73 => mux.change_path(now, 7, path(u32::from(action % 2), 1, 0, 9)),
                _ => {}
            }
            let mut sent = 0;
            while mux.poll_transmit(now).is_some() {
                sent += 1;
                prop_assert!(sent < 1000);
            }
            while mux.poll_event().is_some() {}
            let stream = mux.stream(7).expect("7");
            prop_assert!(stream.readable_bytes() <= received);
            prop_assert!(stream.stats().in_flight <= stream.unacked_bytes() + 20 * 60_000);
        }
    }
}
