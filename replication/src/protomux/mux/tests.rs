//! What JavaScript sent, sent again; the rules between two of ours under any order of events; what a hostile peer can do.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::secret_stream::vectors::{TRANSCRIPTS, bytes, read};

const PROTOCOL: &str = "hypercore/alpha";
const ALIAS: &str = "hypercore";

fn mux() -> Mux {
    Mux::new(Limits::default())
}

fn frames(mux: &mut Mux) -> Vec<Bytes> {
    std::iter::from_fn(|| mux.poll_frame()).collect()
}

fn events(mux: &mut Mux) -> Vec<Event> {
    std::iter::from_fn(|| mux.poll_event().expect("an honest peer")).collect()
}

/// Hand over all frames; what the receiver is told.
fn pass(from: &mut Mux, to: &mut Mux) -> Vec<Event> {
    for frame in frames(from) {
        to.handle_frame(frame).expect("an honest peer");
    }
    events(to)
}

fn message(channel: ChannelId, kind: u64, body: &[u8]) -> Event {
    Event::Message { channel, kind, body: Bytes::copy_from_slice(body) }
}

/// Two sides with one open channel: (mux, channel) of each.
fn opened() -> ((Mux, ChannelId), (Mux, ChannelId)) {
    let (mut a, mut b) = (mux(), mux());
    let at_a = a.open(PROTOCOL, &[ALIAS], b"core", b"a".to_vec()).expect("first");
    let at_b = b.open(PROTOCOL, &[ALIAS], b"core", b"b".to_vec()).expect("first");
    assert_eq!(pass(&mut a, &mut b), [Event::Opened { channel: at_b, handshake: Bytes::from_static(b"a") }]);
    assert_eq!(pass(&mut b, &mut a), [Event::Opened { channel: at_a, handshake: Bytes::from_static(b"b") }]);
    ((a, at_a), (b, at_b))
}

// Transcripts.

/// What a frame says, read by a second reader: whether it is a batch, and (channel, kind, body) of each message.
fn said(frame: &[u8]) -> (bool, Vec<(u64, u64, Vec<u8>)>) {
    let mut frame = Decoder::new(frame);
    let (channel, kind) = (frame.uint().expect("a channel"), frame.uint().expect("a kind"));
    if (channel, kind) != (0, 0) {
        return (false, vec![(channel, kind, frame.rest().to_vec())]);
    }
    let (mut entries, mut channel) = (Vec::new(), frame.uint().expect("a channel"));
    while !frame.is_empty() {
        let entry = frame.buffer().expect("an entry");
        if entry.is_empty() {
            channel = frame.uint().expect("a channel");
            continue;
        }
        let mut entry = Decoder::new(entry);
        let kind = entry.uint().expect("a kind");
        entries.push((channel, kind, entry.rest().to_vec()));
    }
    (true, entries)
}

/// Everything each side of every recorded session sent, as actions of ours: the same frames; and the other side is told of it all.
#[test]
fn recorded_frames_are_those_our_mux_sends_and_reads() {
    let (mut messages, mut batches, mut rejects) = (0, 0, 0);
    for name in TRANSCRIPTS.into_iter().filter(|name| *name != "transcript-empty") {
        let transcript = read(name);
        let mut sides = HashMap::from([("i", (mux(), HashMap::new())), ("r", (mux(), HashMap::new()))]);
        for plain in transcript["plain"].as_array().expect("plain") {
            let (from, to) = if plain["from"] == "i" { ("i", "r") } else { ("r", "i") };
            let frame = bytes(plain, "frame");
            if frame.is_empty() {
                continue;
            }
            let (sender, channels) = sides.get_mut(from).expect("a side");
            let (is_batch, entries) = said(&frame);
            if is_batch {
                batches += 1;
                sender.cork();
            }
            for (channel, kind, body) in &entries {
                match (*channel, Control::decode(*kind, body)) {
                    (0, Ok(Control::Open { number, protocol, id, handshake })) => {
                        let opened = sender.open(protocol, &[ALIAS], id, handshake.to_vec()).expect("unique");
                        assert!(channels.insert(number, (opened, id.to_vec())).is_none(), "{name}: its next number");
                    }
                    (0, Ok(Control::Reject { .. })) => {
                        rejects += 1;
                        sender.reject(PROTOCOL, &bytes(&transcript, "ownDiscoveryKey"));
                    }
                    (0, Ok(Control::Close { number })) => sender.close(channels[&number].0),
                    (0, other) => panic!("{name}: {other:?}"),
                    _ => sender.send(channels[channel].0, *kind, body).expect("open"),
                }
            }
            if is_batch {
                sender.uncork();
            }
            assert_eq!(frames(sender), [&frame[..]], "{name}, from {from}: {}", plain["decoded"]);

            let (receiver, _) = sides.get_mut(to).expect("a side");
            receiver.handle_frame(frame.into()).expect("an honest peer");
            let told = events(receiver);
            messages += told.iter().filter(|event| matches!(event, Event::Message { .. })).count();
            let sent = entries.iter().filter(|(channel, ..)| *channel != 0);
            let read = told.iter().filter_map(|event| match event {
                Event::Message { kind, body, .. } => Some((*kind, body.to_vec())),
                _ => None,
            });
            assert!(read.eq(sent.map(|(_, kind, body)| (*kind, body.clone()))), "{name}: {told:?}");
            assert!(frames(receiver).is_empty(), "nothing is answered unasked");
        }
        let (receiver, _) = &sides["r"];
        assert!(!receiver.is_idle(), "{name}: a channel is open to the end");
    }
    assert!(
        messages > 120 && batches > 10 && rejects == 1,
        "{messages} messages, {batches} batches, {rejects} rejects"
    );
}

// Rules.

#[test]
fn an_open_is_answered_by_open_or_reject() {
    let (mut a, mut b) = (mux(), mux());
    let at_a = a.open(PROTOCOL, &[], b"held", b"hello".to_vec()).expect("first");
    let missing = a.open(PROTOCOL, &[], b"missing", vec![]).expect("first");
    a.send(at_a, 3, b"early").expect("messages may follow at once");
    let requested = |id: &[u8]| Event::OpenRequested { protocol: PROTOCOL.into(), id: id.into() };
    assert_eq!(pass(&mut a, &mut b), [requested(b"held"), requested(b"missing")]);

    b.reject(PROTOCOL, b"missing");
    b.reject(PROTOCOL, b"missing");
    b.reject(PROTOCOL, b"never asked");
    let at_b = b.open(PROTOCOL, &[], b"held", b"hi".to_vec()).expect("first");
    let opened = Event::Opened { channel: at_b, handshake: Bytes::from_static(b"hello") };
    assert_eq!(events(&mut b), [opened, message(at_b, 3, b"early")]);
    assert_eq!(
        pass(&mut b, &mut a),
        [
            Event::Closed { channel: missing, reason: CloseReason::Rejected },
            Event::Opened { channel: at_a, handshake: Bytes::from_static(b"hi") }
        ]
    );
    assert!(a.is_open(at_a) && b.is_open(at_b) && !a.is_open(missing));
    assert_eq!(a.send(missing, 0, b""), Err(MuxError::Closed));

    b.close(at_b);
    a.send(at_a, 0, b"crosses the close").expect("open here");
    assert_eq!(pass(&mut b, &mut a), [Event::Closed { channel: at_a, reason: CloseReason::Closed }]);
    assert_eq!(pass(&mut a, &mut b), []);
    assert!(a.is_idle() && b.is_idle());
    assert_eq!((a.pairings.len(), b.pairings.len()), ((0, 0), (0, 0)));
}

#[test]
fn aliases_are_one_protocol() {
    let (mut a, mut b) = (mux(), mux());
    // The remote knows only the old name.
    a.open(ALIAS, &[], b"core", vec![]).expect("first");
    assert_eq!(pass(&mut a, &mut b), [Event::OpenRequested { protocol: ALIAS.into(), id: b"core".into() }]);
    let at_b = b.open(PROTOCOL, &[ALIAS], b"core", vec![]).expect("first");
    assert_eq!(events(&mut b), [Event::Opened { channel: at_b, handshake: Bytes::new() }]);
    assert_eq!(b.open(ALIAS, &[], b"core", vec![]), Err(MuxError::AlreadyOpen));
    b.close(at_b);
    assert_eq!(b.pairings.len(), (0, 0));
    // Ours waits under both names.
    let (mut a, mut b) = (mux(), mux());
    let at_b = b.open(PROTOCOL, &[ALIAS], b"core", vec![]).expect("first");
    a.open(ALIAS, &[], b"core", vec![]).expect("first");
    assert_eq!(pass(&mut a, &mut b), [Event::Opened { channel: at_b, handshake: Bytes::new() }]);
}

#[test]
fn one_channel_of_a_key_unless_another_is_wanted() {
    let ((mut a, _), (mut b, at_b)) = opened();
    assert_eq!(a.open(PROTOCOL, &[], b"core", vec![]), Err(MuxError::AlreadyOpen));
    assert!(a.open(PROTOCOL, &[], b"other", vec![]).is_ok());
    let second = a.open_another(PROTOCOL, &[], b"core", vec![7]).expect("asked for");
    assert_eq!(pass(&mut a, &mut b).len(), 2);
    let second_b = b.open_another(PROTOCOL, &[], b"core", vec![8]).expect("asked for");
    assert_eq!(events(&mut b), [Event::Opened { channel: second_b, handshake: Bytes::from_static(&[7]) }]);
    assert_eq!(pass(&mut b, &mut a), [Event::Opened { channel: second, handshake: Bytes::from_static(&[8]) }]);
    b.send(at_b, 0, b"first").expect("open");
    b.send(second_b, 0, b"second").expect("open");
    assert!(matches!(&pass(&mut b, &mut a)[1], Event::Message { channel, .. } if *channel == second));
}

#[test]
fn freed_numbers_are_used_again_the_last_first() {
    let (mut a, mut b) = (mux(), mux());
    let channels: Vec<ChannelId> = (0..4u8).map(|n| a.open("p", &[], &[n], vec![]).expect("first")).collect();
    pass(&mut a, &mut b);
    for n in 0..4u8 {
        b.open("p", &[], &[n], vec![]).expect("first");
    }
    pass(&mut b, &mut a);
    for n in [1, 3, 0] {
        a.close(channels[n]);
    }
    assert_eq!(pass(&mut a, &mut b).len(), 6 + 1, "four opened, three of them closed");
    let again: Vec<_> = (10..14u8).map(|n| a.open("p", &[], &[n], vec![]).expect("first").place).collect();
    assert_eq!(again, [0, 3, 1, 4]);
    a.send(channels[1], 0, b"").expect_err("an old id says nothing of the new channel");
    pass(&mut a, &mut b);
}

/// A channel closed before the remote answered keeps its number until it does.
#[test]
fn a_close_before_the_answer() {
    // The answer is an open that crossed the close.
    let (mut a, mut b) = (mux(), mux());
    let at_a = a.open("p", &[], b"", vec![]).expect("first");
    let at_b = b.open("p", &[], b"", vec![]).expect("first");
    a.close(at_a);
    a.close(at_a);
    assert!(!a.is_idle());
    assert_eq!(
        pass(&mut a, &mut b),
        [
            Event::Opened { channel: at_b, handshake: Bytes::new() },
            Event::Closed { channel: at_b, reason: CloseReason::Closed }
        ]
    );
    assert_eq!(pass(&mut b, &mut a), []);
    assert!(a.is_idle() && b.is_idle());
    assert_eq!(
        frames(&mut a),
        [&b"\0\x03\x01"[..]],
        "a peer that ignored the close while it thought would hold a channel that is none"
    );

    // The answer is a reject; and what we then open is a new channel.
    let (mut a, mut b) = (mux(), mux());
    let first = a.open("p", &[], b"", vec![]).expect("first");
    a.send(first, 0, &[0; 40_000]).expect("open");
    a.close(first);
    let second = a.open("p", &[], b"", vec![2]).expect("the first is closed");
    assert_ne!(first.place, second.place);
    let requested = Event::OpenRequested { protocol: "p".into(), id: vec![] };
    // The large message makes the stream wait for an answer to the first.
    assert_eq!(pass(&mut a, &mut b), std::slice::from_ref(&requested));
    assert!(b.is_congested());
    b.reject("p", b"");
    assert_eq!(events(&mut b), [requested]);
    let at_b = b.open("p", &[], b"", vec![3]).expect("first");
    assert_eq!(events(&mut b), [Event::Opened { channel: at_b, handshake: Bytes::from_static(&[2]) }]);
    assert_eq!(pass(&mut b, &mut a), [Event::Opened { channel: second, handshake: Bytes::from_static(&[3]) }]);
}

/// The remote closes what we have not answered: rejected at once, and an open of ours that comes later is a new one.
#[test]
fn an_open_closed_while_we_think() {
    let (mut a, mut b) = (mux(), mux());
    let at_a = a.open("p", &[], b"", vec![]).expect("first");
    a.send(at_a, 0, b"lost").expect("open");
    a.close(at_a);
    assert_eq!(pass(&mut a, &mut b), [Event::OpenRequested { protocol: "p".into(), id: vec![] }]);
    let at_b = b.open("p", &[], b"", vec![]).expect("first");
    assert_eq!(events(&mut b), []);
    assert_eq!(pass(&mut b, &mut a), [Event::OpenRequested { protocol: "p".into(), id: vec![] }]);
    a.reject("p", b"");
    assert_eq!(pass(&mut a, &mut b), [Event::Closed { channel: at_b, reason: CloseReason::Rejected }]);
    assert!(a.is_idle() && b.is_idle());
}

#[test]
fn corks_nest_and_a_single_message_is_a_batch_too() {
    let ((mut a, at_a), _) = opened();
    a.cork();
    a.uncork();
    assert!(frames(&mut a).is_empty(), "nothing was sent");
    a.cork();
    a.send(at_a, 0, b"one").expect("open");
    a.uncork();
    assert_eq!(frames(&mut a), [&b"\0\0\x01\x04\0one"[..]]);
    a.cork();
    a.send(at_a, 0, b"one").expect("open");
    a.cork();
    let other = a.open("p", &[], b"", vec![]).expect("first");
    a.send(at_a, 1, b"").expect("open");
    a.uncork();
    assert!(frames(&mut a).is_empty());
    assert!(a.pending_bytes() > 0);
    a.close(other);
    a.uncork();
    assert_eq!(frames(&mut a), [&b"\0\0\x01\x04\0one\0\0\x05\x01\x02\x01p\0\0\x01\x01\x01\0\0\x02\x03\x02"[..]]);
    assert_eq!(a.pending_bytes(), 0);
}

#[test]
fn answers_to_a_batch_are_a_batch() {
    let ((mut a, at_a), (mut b, at_b)) = opened();
    for count in 1..4 {
        a.cork();
        (0..count).for_each(|n| a.send(at_a, n, b"?").expect("open"));
        a.uncork();
        frames(&mut a).into_iter().for_each(|frame| b.handle_frame(frame).expect("an honest peer"));
        while let Some(event) = b.poll_event().expect("an honest peer") {
            let Event::Message { kind, .. } = event else { panic!("{event:?}") };
            b.send(at_b, kind, b"!").expect("open");
        }
        let answers = frames(&mut b);
        assert_eq!(answers.len(), 1);
        let (is_batch, entries) = said(&answers[0]);
        assert_eq!((is_batch, entries.len()), (count > 1, count as usize));
    }
}

#[test]
fn a_batch_is_sent_when_it_has_reached_its_size() {
    let ((mut a, at_a), (mut b, _)) = opened();
    a.cork();
    for _ in 0..10 {
        a.send(at_a, 0, &vec![1; 1 << 20]).expect("open");
    }
    // It would outgrow the frames of the stream.
    a.send(at_a, 0, &vec![2; 15 << 20]).expect("open");
    a.uncork();
    let sent = frames(&mut a);
    let sizes: Vec<usize> = sent.iter().map(|frame| said(frame).1.len()).collect();
    assert_eq!(sizes, [8, 2, 1]);
    assert!(sent.iter().all(|frame| frame.len() <= MESSAGE_BYTES_MAX));
    for frame in sent {
        b.handle_frame(frame).expect("an honest peer");
    }
    assert_eq!(events(&mut b).len(), 11);
    assert_eq!(a.send(at_a, 0, &vec![0; MESSAGE_BYTES_MAX]), Err(MuxError::Limit("a message")));
}

#[test]
fn messages_for_unanswered_opens_stop_the_stream() {
    let (mut a, mut b) = (mux(), mux());
    let channel = a.open("p", &[], b"", vec![]).expect("first");
    let requested = Event::OpenRequested { protocol: "p".into(), id: vec![] };
    // 512 bytes of cost each: 64 fit.
    for _ in 0..100 {
        a.send(channel, 0, b"").expect("open");
    }
    assert_eq!(pass(&mut a, &mut b), [requested]);
    assert!(b.is_congested());
    assert_eq!(b.buffered, 65 * 512);
    let at_b = b.open("p", &[], b"", vec![]).expect("first");
    assert!(!b.is_congested());
    let told = events(&mut b);
    assert_eq!(told.len(), 101);
    assert_eq!(told[100], message(at_b, 0, b""));
    assert_eq!((b.buffered, b.pending_opens), (0, 0));
}

#[test]
fn broken_rules_are_errors() {
    let fails = |frames: &[&[u8]], error: MuxError| {
        let ((_, _), (mut b, _)) = opened();
        let mut result = Ok(None);
        for frame in frames {
            b.handle_frame(Bytes::copy_from_slice(frame)).expect("not failed yet");
            while let Ok(Some(_)) = result {
                result = b.poll_event();
            }
            result = b.poll_event();
        }
        assert_eq!(result, Err(error), "{frames:x?}");
        assert_eq!(b.poll_event(), Err(error));
        assert_eq!(b.handle_frame(Bytes::from_static(b"\x01\0")), Err(error));
    };
    let decode = |error| MuxError::Decode(error);
    fails(&[b"\x01"], decode(DecodeError::OutOfBounds));
    fails(&[b"\0"], decode(DecodeError::OutOfBounds));
    fails(&[b"\0\0"], decode(DecodeError::OutOfBounds));
    fails(&[b"\0\0\x01\x05\0"], decode(DecodeError::OutOfBounds));
    fails(&[b"\0\0\x01\0"], decode(DecodeError::OutOfBounds));
    fails(&[b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\0"], decode(DecodeError::TooLarge));
    fails(&[b"\0\x01\x02\x02\xff\xff\0"], decode(DecodeError::NotUtf8));
    fails(&[b"\0\x01\0\x01p\0"], MuxError::InvalidOpen);
    fails(&[b"\0\x01\x01\x01p\0"], MuxError::InvalidOpen);
    fails(&[b"\0\x01\x03\x01p\0"], MuxError::InvalidOpen);
    fails(&[b"\0\x02\0"], MuxError::InvalidReject);
    fails(&[b"\0\x02\x01"], MuxError::InvalidReject);
    fails(&[b"\0\x02\x09"], MuxError::InvalidReject);
    fails(&[b"\0\0\0\x03\0\x01\0"], MuxError::NestedBatch);
    let mut long = b"\0\x01\x02\x01p\0".to_vec();
    long.resize(2000, 0);
    fails(&[&long], MuxError::Limit("an open"));
}

#[test]
fn what_means_nothing_is_ignored() {
    let ((_, _), (mut b, at_b)) = opened();
    for frame in [
        &b""[..],
        b"\0\x09what",
        b"\0\x03\0",
        b"\0\x03\x07",
        b"\x07\0",
        b"\xfe\0\0\0\x01\0",
        b"\0\0\x01",
        b"\0\0\x01\0\x02",
    ] {
        b.handle_frame(Bytes::copy_from_slice(frame)).expect("no error");
        assert_eq!(events(&mut b), [], "{frame:x?}");
    }
    assert!(b.is_open(at_b) && frames(&mut b).is_empty());
}

#[test]
fn limits_hold() {
    let limits = Limits { channels_max: 3, pending_opens_max: 2, open_bytes_max: 20, message_bytes_max: 10 };
    let open = |number: u8, id: u8| Bytes::copy_from_slice(&[0, 1, number, 1, b'p', 1, id]);
    let mut mux = Mux::new(limits);
    for number in 1..=3 {
        mux.handle_frame(open(number, number)).expect("not failed");
    }
    assert!(matches!(mux.poll_event(), Ok(Some(_))) && matches!(mux.poll_event(), Ok(Some(_))));
    assert_eq!(mux.poll_event(), Err(MuxError::Limit("opens that wait")));

    let mut mux = Mux::new(limits);
    for number in 1..=3 {
        mux.handle_frame(open(number, number)).expect("not failed");
        assert_eq!(events(&mut mux).len(), 1);
        mux.open("p", &[], &[number], vec![]).expect("within the limit");
        assert_eq!(events(&mut mux).len(), 1);
    }
    assert_eq!(mux.open("p", &[], &[4], vec![]), Err(MuxError::Limit("channels")));
    mux.handle_frame(Bytes::from_static(b"\x01\x000123456789")).expect("not failed");
    assert_eq!(events(&mut mux).len(), 1);
    mux.handle_frame(Bytes::from_static(b"\x01\x000123456789a")).expect("not failed");
    assert_eq!(mux.poll_event(), Err(MuxError::Limit("a message")));

    let mut mux = Mux::new(Limits { pending_opens_max: 10, ..limits });
    (1..=4).for_each(|number| mux.handle_frame(open(number, number)).expect("not failed"));
    (1..=3).for_each(|_| assert!(matches!(mux.poll_event(), Ok(Some(_)))));
    assert_eq!(mux.poll_event(), Err(MuxError::Limit("channels")));
}

// Any order of events.

#[derive(Clone, Debug)]
enum Action {
    Open(u8),
    OpenAnother(u8),
    Reject(u8),
    Close(prop::sample::Index),
    Send(prop::sample::Index, u8),
    Cork,
    Uncork,
    /// Read so many frames of the other side.
    Read(u8),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0..3u8).prop_map(Action::Open),
        1 => (0..3u8).prop_map(Action::OpenAnother),
        1 => (0..3u8).prop_map(Action::Reject),
        2 => any::<prop::sample::Index>().prop_map(Action::Close),
        4 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Action::Send(at, byte)),
        1 => Just(Action::Cork),
        1 => Just(Action::Uncork),
        4 => (1..5u8).prop_map(Action::Read),
    ]
}

/// One of two honest sides, with a user who checks what it is told.
struct Side {
    mux: Mux,
    corks: usize,
    alive: Vec<ChannelId>,
    opened: BTreeSet<ChannelId>,
    wire: VecDeque<Bytes>,
    /// The number that the next message of a channel carries, and what was read last.
    read: HashMap<ChannelId, u8>,
}

impl Side {
    fn new() -> Side {
        Side {
            mux: mux(),
            corks: 0,
            alive: vec![],
            opened: BTreeSet::new(),
            wire: VecDeque::new(),
            read: HashMap::new(),
        }
    }

    fn act(&mut self, action: &Action, other: &mut Side) {
        match action {
            Action::Open(key) => self.alive.extend(self.mux.open("p", &["alias"], &[*key], vec![*key])),
            Action::OpenAnother(key) => self.alive.extend(self.mux.open_another("p", &[], &[*key], vec![*key])),
            Action::Reject(key) => self.mux.reject("p", &[*key]),
            Action::Close(at) if !self.alive.is_empty() => {
                let channel = self.alive.swap_remove(at.index(self.alive.len()));
                self.mux.close(channel);
            }
            Action::Send(at, byte) if !self.alive.is_empty() => {
                self.mux.send(*at.get(&self.alive), 5, &[*byte]).expect("alive");
            }
            Action::Cork => {
                self.mux.cork();
                self.corks += 1;
            }
            Action::Uncork if self.corks > 0 => {
                self.mux.uncork();
                self.corks -= 1;
            }
            Action::Read(count) => self.read_from(other, (*count).into()),
            _ => {}
        }
        self.listen();
    }

    fn read_from(&mut self, other: &mut Side, count: usize) {
        other.wire.extend(frames(&mut other.mux));
        for frame in other.wire.drain(..count.min(other.wire.len())) {
            self.mux.handle_frame(frame).expect("an honest peer");
        }
        self.listen();
    }

    fn listen(&mut self) {
        while let Some(event) = self.mux.poll_event().expect("an honest peer") {
            match event {
                Event::OpenRequested { protocol, id } => assert!(protocol == "p" && id.len() == 1),
                Event::Opened { channel, handshake } => {
                    assert!(self.alive.contains(&channel) && handshake.len() == 1);
                    assert!(self.opened.insert(channel), "opened once");
                }
                Event::Message { channel, kind, body } => {
                    assert!(self.alive.contains(&channel) && self.opened.contains(&channel));
                    assert!(kind == 5 && body.len() == 1);
                    self.read.insert(channel, body[0]);
                }
                Event::Closed { channel, .. } => self.alive.retain(|alive| *alive != channel),
            }
        }
    }
}

proptest! {
    /// Two honest sides under any order of actions and deliveries: no error, events only for channels that live, and once both are done nothing is left.
    #[test]
    fn honest_sides_never_break_rules(actions in proptest::collection::vec((any::<bool>(), action()), 0..200)) {
        let (mut a, mut b) = (Side::new(), Side::new());
        for (first, action) in &actions {
            let (actor, other) = if *first { (&mut a, &mut b) } else { (&mut b, &mut a) };
            actor.act(action, other);
        }
        for side in [&mut a, &mut b] {
            (0..side.corks).for_each(|_| side.mux.uncork());
        }
        for round in 0..4 {
            a.read_from(&mut b, usize::MAX);
            b.read_from(&mut a, usize::MAX);
            for side in [&mut a, &mut b] {
                (0..3u8).for_each(|key| while side.mux.pairings.oldest_incoming("p", &[key]).is_some() { side.mux.reject("p", &[key]) });
                if round == 1 {
                    side.alive.drain(..).for_each(|channel| side.mux.close(channel));
                }
            }
        }
        for side in [&a, &b] {
            prop_assert!(side.mux.is_idle());
            prop_assert_eq!(side.mux.pairings.len(), (0, 0));
            prop_assert_eq!((side.mux.buffered, side.mux.pending_opens, side.mux.pending_bytes()), (0, 0, 0));
            prop_assert!(side.mux.remotes.iter().all(|remote| matches!(remote, Remote::Free)));
        }
    }

    /// Random frames that look a little like real ones, to a user who answers at random: no panic, and what is held stays small.
    #[test]
    fn strange_frames_do_not_panic(frames in proptest::collection::vec(strange_frame(), 0..60), answers in proptest::collection::vec(0..4u8, 60)) {
        let ((_, _), (mut b, at_b)) = opened();
        for (frame, answer) in frames.iter().zip(answers) {
            let _ = b.handle_frame(Bytes::copy_from_slice(frame));
            while let Ok(Some(event)) = b.poll_event() {
                if let Event::OpenRequested { protocol, id } = event {
                    match answer {
                        0 => b.reject(&protocol, &id),
                        1 => match b.open(&protocol, &[], &id, vec![]) {
                            Ok(channel) => b.close(channel),
                            Err(_) => b.reject(&protocol, &id),
                        },
                        2 => drop(b.open(&protocol, &["p"], &id, vec![])),
                        _ => {}
                    }
                }
            }
            if answer == 3 {
                b.close(at_b);
            }
        }
        let received: usize = frames.iter().map(Vec::len).sum();
        prop_assert!(b.buffered <= BUFFERED_BYTES_MAX + BUFFERED_MESSAGE_COST + received);
        prop_assert!(b.remotes.len() <= 1 + received && b.pending_opens <= received);
    }

    /// A frame of a recorded session changed, cut or repeated.
    #[test]
    fn changed_transcripts_do_not_panic(
        which in 1..TRANSCRIPTS.len(),
        at in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(),
        flip: u8,
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let transcript = read(TRANSCRIPTS[which]);
        let plain: Vec<&Value> = transcript["plain"].as_array().expect("plain").iter().filter(|p| p["from"] == "i").collect();
        let mut mux = mux();
        let broken = at.index(plain.len());
        for (n, plain) in plain.iter().enumerate() {
            let mut frame = bytes(plain, "frame");
            if n == broken && !frame.is_empty() {
                let place = byte.index(frame.len());
                frame[place] ^= flip;
                frame.truncate(cut.map_or(frame.len(), |cut| cut.index(frame.len())));
            }
            let _ = mux.handle_frame(frame.into());
            while let Ok(Some(event)) = mux.poll_event() {
                if let Event::OpenRequested { protocol, id } = event {
                    let _ = mux.open(&protocol, &[ALIAS], &id, vec![0; 33]);
                }
            }
        }
    }
}

fn strange_frame() -> impl Strategy<Value = Vec<u8>> {
    let small = 0..5u8;
    let open = (small.clone(), small.clone(), proptest::collection::vec(any::<u8>(), 0..8))
        .prop_map(|(number, id, handshake)| [&[0, 1, number, 1, b'p', 1, id][..], &handshake].concat());
    let control = (2..5u8, small.clone()).prop_map(|(kind, number)| vec![0, kind, number]);
    let message = (small.clone(), small.clone(), proptest::collection::vec(any::<u8>(), 0..600))
        .prop_map(|(channel, kind, body)| [&[channel, kind][..], &body].concat());
    let batch = proptest::collection::vec(small, 0..40).prop_map(|bytes| [&[0, 0][..], &bytes].concat());
    let random = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![4 => open, 4 => control, 3 => message, 3 => batch, 1 => random]
}

/// What memory a batch of tiny entries takes while it is read: none beside the frame.
#[test]
fn a_batch_of_tiny_entries_does_not_multiply() {
    let ((mut a, at_a), (mut b, _)) = opened();
    a.cork();
    (0..1_000_000).for_each(|_| a.send(at_a, 0, b"").expect("open"));
    a.uncork();
    for frame in frames(&mut a) {
        b.handle_frame(frame).expect("an honest peer");
    }
    let mut count = 0;
    while b.poll_event().expect("an honest peer").is_some() {
        assert!(b.events.is_empty());
        count += 1;
    }
    assert_eq!(count, 1_000_000);
}

/// What does a message cost? `cargo test --release -p pgbee-replication -- --ignored --nocapture messages_a_second`
#[test]
#[ignore = "a measurement"]
fn messages_a_second() {
    for batch in [1, 100] {
        let ((mut a, at_a), (mut b, _)) = opened();
        let (count, body) = (1_000_000, [7; 300]);
        let begun = std::time::Instant::now();
        for _ in 0..count / batch {
            a.cork();
            (0..batch).for_each(|_| a.send(at_a, 3, &body).expect("open"));
            a.uncork();
            assert_eq!(pass(&mut a, &mut b).len(), batch);
        }
        println!(
            "batches of {batch}, 300 bytes: {:.0} messages/s written and read",
            count as f64 / begun.elapsed().as_secs_f64()
        );
    }
}
