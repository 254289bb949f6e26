//! Both sides of every recorded session, byte for byte; what a hostile peer can do to a stream; how fast one is.

use std::time::Instant;

use proptest::prelude::*;
use serde_json::Value;

use super::vectors::{TRANSCRIPTS, bytes, read, text, unhex};
use super::*;

/// Both sides of a transcript, with the seeds and headers it was recorded with.
fn sides(transcript: &Value) -> (SecretStream, SecretStream) {
    let side = |role: Role, name: &str, at: usize| {
        let identity = Identity::from_seed(bytes(transcript, name).try_into().expect("32 bytes"));
        let mut random = bytes(&transcript["ephemerals"][at], "seed");
        random.extend(bytes(&transcript["streamHeaders"][at], "header"));
        SecretStream::new(role, &identity, Randomness::new(random.try_into().expect("56 bytes")))
    };
    (side(Role::Initiator, "initiatorStaticSeed", 0), side(Role::Responder, "responderStaticSeed", 1))
}

/// Two sides that have shaken hands.
fn open() -> (SecretStream, SecretStream) {
    let side = |role, byte| SecretStream::new(role, &Identity::from_seed([byte; 32]), Randomness::new([byte + 10; 56]));
    let (mut initiator, mut responder) = (side(Role::Initiator, 1), side(Role::Responder, 2));
    for _ in 0..3 {
        responder.handle_bytes(&initiator.take_output(usize::MAX)).expect("an honest initiator");
        initiator.handle_bytes(&responder.take_output(usize::MAX)).expect("an honest responder");
    }
    assert!(initiator.is_open() && responder.is_open());
    assert_eq!(initiator.remote_public_key(), Some(Identity::from_seed([2; 32]).public_key()));
    assert_eq!(responder.remote_public_key(), Some(Identity::from_seed([1; 32]).public_key()));
    assert_eq!(initiator.handshake_hash(), responder.handshake_hash());
    (initiator, responder)
}

fn raw(transcript: &Value, side: &str) -> Vec<u8> {
    let all = transcript["raw"].as_array().expect("raw");
    all.iter().filter(|r| r[0] == side).flat_map(|r| unhex(r[1].as_str().expect("hex"))).collect()
}

fn plain(transcript: &Value, side: &str) -> Vec<Vec<u8>> {
    let all = transcript["plain"].as_array().expect("plain");
    all.iter().filter(|p| p["from"] == side).map(|p| bytes(p, "frame")).collect()
}

/// Everything each side sent, sent again by ours: the same bytes, and the other side reads the same frames, whatever the size of the pieces.
#[test]
fn whole_sessions_are_those_of_javascript() {
    for (name, piece) in TRANSCRIPTS.into_iter().flat_map(|name| [1, 7, 100_000].map(|piece| (name, piece))) {
        let transcript = read(name);
        let (mut initiator, mut responder) = sides(&transcript);
        let (mut initiators, mut responders) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            exchange(&mut initiator, &mut responder, &mut initiators, piece);
            exchange(&mut responder, &mut initiator, &mut responders, piece);
        }
        assert_eq!(initiator.handshake_hash().expect("open").to_vec(), bytes(&transcript, "handshakeHash"));
        for side in ["i", "r"] {
            let (from, to, sent) = match side {
                "i" => (&mut initiator, &mut responder, &mut initiators),
                _ => (&mut responder, &mut initiator, &mut responders),
            };
            let frames = plain(&transcript, side);
            for frame in &frames {
                from.send(frame).expect("open");
            }
            exchange(from, to, sent, piece);
            assert_eq!(*sent, raw(&transcript, side), "{name}, sent by {side}");
            let told: Vec<_> = frames.into_iter().filter(|frame| !frame.is_empty()).collect();
            let read: Vec<_> = std::iter::from_fn(|| to.poll_message()).map(|m| m.to_vec()).collect();
            assert_eq!(read, told, "{name}, read from {side}");
        }
        assert_eq!(initiator.remote_public_key().expect("open"), Identity::from_seed([0xb1; 32]).public_key());
        assert_eq!(text(&transcript, "responderStaticSeed"), "b1".repeat(32));
    }
}

fn exchange(from: &mut SecretStream, to: &mut SecretStream, sent: &mut Vec<u8>, piece: usize) {
    while !from.output().is_empty() {
        let bytes = from.take_output(piece);
        sent.extend_from_slice(&bytes);
        to.handle_bytes(&bytes).expect("an honest peer");
    }
}

#[test]
fn nothing_is_sent_before_there_is_a_key() {
    let identity = Identity::from_seed([1; 32]);
    let mut stream = SecretStream::new(Role::Responder, &identity, Randomness::new([2; 56]));
    assert_eq!(stream.send(b"secret"), Err(StreamError::NotOpen));
    assert_eq!(stream.keep_alive(), Err(StreamError::NotOpen));
    assert!(stream.output().is_empty());
    let (mut initiator, _) = open();
    assert_eq!(
        initiator.send(&vec![0; MESSAGE_BYTES_MAX + 1]),
        Err(StreamError::MessageTooLarge(MESSAGE_BYTES_MAX + 1))
    );
    assert!(initiator.output().is_empty());
}

#[test]
fn the_largest_message_passes_and_a_smaller_bound_holds() {
    let (mut initiator, mut responder) = open();
    let message = vec![5; MESSAGE_BYTES_MAX];
    initiator.send(&message).expect("it fits");
    responder.handle_bytes(&initiator.take_output(usize::MAX)).expect("an honest peer");
    assert_eq!(responder.poll_message().expect("a message"), message);

    responder.set_message_bytes_max(100);
    initiator.send(&[1; 100]).expect("open");
    responder.handle_bytes(&initiator.take_output(usize::MAX)).expect("within the bound");
    initiator.send(&[1; 101]).expect("open");
    let refused = Err(StreamError::FrameTooLarge { len: 118, max: 117 });
    assert_eq!(responder.handle_bytes(&initiator.take_output(3)), refused);
    assert_eq!(responder.poll_message().expect("what came before"), vec![1; 100]);
    assert_eq!(responder.handle_bytes(&initiator.take_output(usize::MAX)), refused, "failed for good");
    assert_eq!(responder.poll_message(), None);
}

#[test]
fn a_stranger_reserves_nothing_and_says_little_before_it_is_known() {
    let mut responder = SecretStream::new(Role::Responder, &Identity::from_seed([1; 32]), Randomness::new([2; 56]));
    assert_eq!(
        responder.handle_bytes(&[0xff; 3]),
        Err(StreamError::FrameTooLarge { len: PAYLOAD_BYTES_MAX, max: HANDSHAKE_BYTES_MAX })
    );

    let (_, mut responder) = open();
    responder.handle_bytes(&[0xff, 0xff, 0xff, 1]).expect("a large frame may come");
    assert!(responder.frames.capacity() < 4096, "{}", responder.frames.capacity());
}

/// As JavaScript: a payload in a handshake message is read and ignored.
#[test]
fn payloads_of_handshakes_are_ignored() {
    let identity = Identity::from_seed([1; 32]);
    let mut responder = SecretStream::new(Role::Responder, &identity, Randomness::new([2; 56]));
    let mut handshake = Handshake::new(Pattern::Xx, Role::Initiator, &identity, [3; 32], &[], None).expect("XX");
    let mut output = BytesMut::new();
    put_frame(&mut output, &handshake.send(b"hello").expect("its turn"));
    responder.handle_bytes(&output).expect("a payload is no error");
    handshake.receive(&responder.take_output(usize::MAX)[3..]).expect("an answer");
    output.clear();
    put_frame(&mut output, &handshake.send(b"again").expect("its turn"));
    responder.handle_bytes(&output).expect("a payload is no error");
    assert!(responder.is_open());
}

#[test]
fn a_header_of_another_stream_is_refused() {
    let (initiator, responder) = open();
    drop(responder);
    let hash = *initiator.handshake_hash().expect("open");
    let session = |send: u8, receive: u8| Session {
        send_key: [send; 32],
        receive_key: [receive; 32],
        hash,
        remote_public_key: [0; 32],
    };
    let mut stream = SecretStream::established(Role::Initiator, &session(1, 2), [7; 24]);
    let mut peer = SecretStream::established(Role::Responder, &session(2, 1), [8; 24]);
    let (ours, theirs) = (stream.take_output(usize::MAX), peer.take_output(usize::MAX));
    assert_eq!(
        SecretStream::established(Role::Initiator, &session(1, 2), [7; 24]).handle_bytes(&ours),
        Err(StreamError::Header),
        "our own"
    );
    for (at, len) in [(3, 59), (34, 59), (0, 58)] {
        let mut changed = theirs.to_vec();
        if at > 0 {
            changed[at] ^= 1;
        } else {
            changed[0] -= 1;
        }
        let mut stream = SecretStream::established(Role::Initiator, &session(1, 2), [7; 24]);
        assert_eq!(stream.handle_bytes(&changed[..len]), Err(StreamError::Header));
    }
    let mut longer = theirs.to_vec();
    longer[0] += 1;
    let mut other = SecretStream::established(Role::Initiator, &session(1, 2), [7; 24]);
    assert_eq!(other.handle_bytes(&longer), Err(StreamError::FrameTooLarge { len: 57, max: 56 }));

    stream.handle_bytes(&theirs).expect("the peer's");
    peer.handle_bytes(&ours).expect("ours");
    peer.send(b"over a handshake made elsewhere").expect("open");
    stream.handle_bytes(&peer.take_output(usize::MAX)).expect("the peer's");
    assert_eq!(stream.poll_message().expect("a message"), &b"over a handshake made elsewhere"[..]);
}

/// Sealed frames: changed, lost, repeated, swapped, cut short, or sent back to their sender.
#[test]
fn frames_in_any_other_order_are_refused() {
    let (mut initiator, _) = open();
    for n in 0..3u8 {
        initiator.send(&[n; 10]).expect("open");
    }
    let sent = initiator.take_output(usize::MAX);
    let frames: Vec<&[u8]> = sent.chunks(30).collect();
    for order in [&[0, 2][..], &[0, 0], &[1], &[2, 1, 0]] {
        let (mut initiator, mut responder) = open();
        let stream: Vec<u8> = order.iter().flat_map(|&n| frames[n]).copied().collect();
        assert_eq!(responder.handle_bytes(&stream), Err(StreamError::Forged), "{order:?}");
        assert_eq!(initiator.handle_bytes(&stream), Err(StreamError::Forged), "reflected {order:?}");
    }
    for len in 0..17 {
        let (_, mut responder) = open();
        let mut short = vec![len as u8, 0, 0];
        short.resize(3 + len, 0);
        assert_eq!(responder.handle_bytes(&short), Err(StreamError::Forged), "{len} bytes hold no MAC");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A recorded session with one byte changed: never a panic, never a message that was not sent.
    #[test]
    fn changed_sessions_are_refused(at in any::<prop::sample::Index>(), flip in 1..=255u8, which in 0..TRANSCRIPTS.len(), initiators: bool) {
        let transcript = read(TRANSCRIPTS[which]);
        let (mut initiator, mut responder) = sides(&transcript);
        let (victim, from) = if initiators { (&mut initiator, "r") } else { (&mut responder, "i") };
        let mut stream = raw(&transcript, from);
        let at = at.index(stream.len());
        stream[at] ^= flip;
        let result = victim.handle_bytes(&stream);
        let honest: Vec<_> = plain(&transcript, from).into_iter().filter(|frame| !frame.is_empty()).collect();
        let told: Vec<_> = std::iter::from_fn(|| victim.poll_message()).map(|m| m.to_vec()).collect();
        prop_assert!(honest.starts_with(&told));
        // A changed length may ask for more bytes than ever come.
        prop_assert!(result.is_err() || victim.frames.waiting() > 0 || !victim.is_open());
    }

    #[test]
    fn random_bytes_do_not_panic_an_open_stream(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..8)) {
        let (mut initiator, _) = open();
        for piece in &pieces {
            let _ = initiator.handle_bytes(piece);
        }
        prop_assert_eq!(initiator.poll_message(), None);
    }
}

/// What does a frame cost? `cargo test --release -p pgbee-replication -- --ignored --nocapture frames_a_second`
#[test]
#[ignore = "a measurement"]
fn frames_a_second() {
    for (size, count) in [(300, 400_000), (65_536, 4000)] {
        let (mut initiator, mut responder) = open();
        let message = vec![3u8; size];
        // As a driver would: writes of at most 64 KiB, or one frame.
        let per_write = (65_536 / size).max(1);
        let (mut sealing, mut opening) = (0.0, 0.0);
        for _ in 0..count / per_write {
            let begun = Instant::now();
            for _ in 0..per_write {
                initiator.send(&message).expect("open");
            }
            let written = initiator.take_output(usize::MAX);
            sealing += begun.elapsed().as_secs_f64();
            let begun = Instant::now();
            for piece in written.chunks(65_536) {
                responder.handle_bytes(piece).expect("an honest peer");
            }
            while let Some(read) = responder.poll_message() {
                assert_eq!(read.len(), size);
            }
            opening += begun.elapsed().as_secs_f64();
        }
        let frames = (count / per_write * per_write) as f64;
        let megabytes = frames * size as f64 / 1e6;
        println!(
            "{size} bytes: sealed {:.0} frames/s, {:.0} MB/s; opened {:.0} frames/s, {:.0} MB/s",
            frames / sealing,
            megabytes / sealing,
            frames / opening,
            megabytes / opening,
        );
    }
}

/// Handshakes as the swarm's vectors have them, with payloads, as the DHT sends them: every message, the hash, both keys and what streams are told apart by.
#[test]
fn the_handshakes_of_a_swarm_are_those_of_javascript() {
    let vectors = read("swarm/noise");
    let cases = vectors["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 2);
    for case in cases {
        let seed = |name: &str| -> [u8; 32] { bytes(case, name).try_into().expect("32 bytes") };
        let pattern = if text(case, "pattern") == "IK" { Pattern::Ik } else { Pattern::Xx };
        let prologue = bytes(case, "prologue");
        let side = |role: Role, name: &str| {
            let identity = Identity::from_seed(seed(&format!("{name}_seed")));
            assert_eq!(identity.public_key(), seed(&format!("{name}_public_key")));
            let ephemeral = seed(&format!("{name}_ephemeral_seed"));
            let remote = (role == Role::Initiator && pattern == Pattern::Ik).then(|| seed("responder_public_key"));
            Handshake::new(pattern, role, &identity, ephemeral, &prologue, remote).expect("the key is known")
        };
        let (mut initiator, mut responder) = (side(Role::Initiator, "initiator"), side(Role::Responder, "responder"));
        for message in case["messages"].as_array().expect("messages") {
            let (payload, wire) = (bytes(message, "payload"), bytes(message, "bytes"));
            let (from, to) = match text(message, "from") {
                "initiator" => (&mut initiator, &mut responder),
                _ => (&mut responder, &mut initiator),
            };
            assert_eq!(from.send(&payload).expect("its turn"), wire);
            assert_eq!(to.receive(&wire).expect("sound"), payload);
        }
        let (initiators, responders) = (initiator.finish().expect("over"), responder.finish().expect("over"));
        assert_eq!(initiators.send_key, seed("initiator_tx"));
        assert_eq!(initiators.receive_key, seed("initiator_rx"));
        assert_eq!((responders.send_key, responders.receive_key), (initiators.receive_key, initiators.send_key));
        assert_eq!(initiators.hash.to_vec(), bytes(case, "handshake_hash"));
        assert_eq!(stream_id(&initiators.hash, Role::Initiator).to_vec(), bytes(case, "stream_id_initiator"));
        assert_eq!(stream_id(&responders.hash, Role::Responder).to_vec(), bytes(case, "stream_id_responder"));
    }
}

/// Streams whose handshake was made elsewhere: only headers are exchanged, then frames, byte for byte, whatever the size of the pieces.
#[test]
fn streams_over_a_finished_handshake_are_those_of_javascript() {
    let vectors = read("swarm/secret-stream");
    let noise = read("swarm/noise");
    for (case, piece) in vectors["cases"].as_array().expect("cases").iter().flat_map(|case| [(case, 1), (case, 4096)]) {
        let handshakes = noise["cases"].as_array().expect("cases");
        let handshake = handshakes.iter().find(|noise| noise["pattern"] == case["handshake"]).expect("its handshake");
        let array = |value: &Value, name: &str| -> [u8; 32] { bytes(value, name).try_into().expect("32 bytes") };
        let sides = ["initiator", "responder"].map(|name| {
            let other = if name == "initiator" { "responder" } else { "initiator" };
            let session = Session {
                send_key: array(&case[name], "key"),
                receive_key: array(&case[other], "key"),
                hash: bytes(handshake, "handshake_hash").try_into().expect("64 bytes"),
                remote_public_key: array(handshake, &format!("{other}_public_key")),
            };
            let role = if name == "initiator" { Role::Initiator } else { Role::Responder };
            let header = bytes(&case[name], "header").try_into().expect("24 bytes");
            SecretStream::established(role, &session, header)
        });
        let [mut initiator, mut responder] = sides;
        for name in ["initiator", "responder"] {
            let (from, to) = match name {
                "initiator" => (&mut initiator, &mut responder),
                _ => (&mut responder, &mut initiator),
            };
            assert!(from.is_open(), "messages can be sent at once");
            let (mut wire, mut said) = (bytes(&case[name], "head_frame"), Vec::new());
            for frame in case[name]["frames"].as_array().expect("frames") {
                let plain = bytes(frame, "plain");
                from.send(&plain).expect("open");
                wire.extend(bytes(frame, "frame"));
                said.extend((!plain.is_empty()).then_some(plain));
            }
            let mut sent = Vec::new();
            exchange(from, to, &mut sent, piece);
            assert_eq!(sent, wire, "what the {name} sends");
            let heard: Vec<_> = std::iter::from_fn(|| to.poll_message()).map(|m| m.to_vec()).collect();
            assert_eq!(heard, said, "what is read of the {name}");
        }
    }
}
