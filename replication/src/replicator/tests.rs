//! A replicator and peers that behave badly: each a few lines that say what it answers.
//!
//! ```text
//! Replicator under test  --messages-->  a peer's script (honest, or not)  --messages-->  Replicator under test
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pgbee_engine::corestore::{Options, Store};
use pgbee_engine::hypercore::Core;
use pgbee_engine::hypercore::extensions::ExtensionHandler;
use pgbee_engine::hypercore::proof::{BlockRequest, Proof, Request, UpgradeRequest};
use pgbee_engine::hypercore::wants::Waited;
use pgbee_engine::storage::memory::Memory;
use pgbee_engine::storage::{Backend, Durability};
use pgbee_engine::{BlockIndex, Error, Fork, Length};

use super::*;
use crate::protocol::messages::{Data, Reason, Requested, SEGMENT_BLOCKS, Span};

const ONE: PeerId = PeerId(1);
const TWO: PeerId = PeerId(2);

fn store(key: u8) -> Arc<Store> {
    Store::open(Arc::new(Memory::new()), Options { primary_key: Some([key; 32]) }).unwrap()
}

fn blocks(story: &str, count: u64) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(format!("{story} {n}"))).collect()
}

/// A writer's core; writers with one key and different stories have signed two histories.
fn writer(key: u8, story: &str, count: u64) -> Arc<Core> {
    let core = store(key).get_by_name("log").unwrap();
    core.append(&blocks(story, count), Durability::Sync).unwrap();
    core
}

/// A replica of it that holds nothing, and what downloads it.
fn reader(of: &Core) -> Replicator {
    Replicator::new(store(99).get_by_key(of.key()).unwrap(), true)
}

/// A peer's script: what it answers to a message.
type Script<'a> = Box<dyn FnMut(&Message) -> Vec<Message> + 'a>;

/// A peer that says what a real one would, made from a real one.
fn honest(core: &Arc<Core>) -> Script<'static> {
    let mut replicator = Replicator::new(core.clone(), false);
    replicator.peer_opened(ONE);
    Box::new(move |message| {
        replicator.handle_message(ONE, message.clone(), Now::ZERO);
        while replicator.work(Now::ZERO) {}
        std::iter::from_fn(|| replicator.poll_output())
            .filter_map(|output| match output {
                Output::Send(_, message) => Some(message),
                _ => None,
            })
            .collect()
    })
}

/// One that changes what an honest one would say.
fn twisted<'a>(core: &Arc<Core>, mut twist: impl FnMut(Message) -> Option<Message> + 'a) -> Script<'a> {
    let mut script = honest(core);
    Box::new(move |message| script(message).into_iter().filter_map(&mut twist).collect())
}

/// A replicator under test with the peers around it.
struct Play<'a> {
    replicator: Replicator,
    peers: Vec<(PeerId, Script<'a>)>,
    now: Now,
    ended: Vec<(PeerId, Option<Fault>)>,
    sent: Vec<(PeerId, Message)>,
}

impl<'a> Play<'a> {
    fn new(replicator: Replicator) -> Play<'a> {
        Play { replicator, peers: Vec::new(), now: Now::ZERO, ended: Vec::new(), sent: Vec::new() }
    }

    fn enter(mut self, id: PeerId, script: Script<'a>) -> Play<'a> {
        self.peers.push((id, script));
        self.replicator.peer_opened(id);
        self
    }

    /// Until nobody says anything any more. A hundred thousand messages are too many.
    fn run(&mut self) -> &mut Play<'a> {
        let mut queue: VecDeque<(PeerId, Message)> = VecDeque::new();
        for _ in 0..100_000 {
            let wants = self.replicator.core().wants().take();
            self.replicator.handle_wants(wants);
            self.replicator.handle_core_changed();
            let more = self.replicator.work(self.now);
            while let Some(output) = self.replicator.poll_output() {
                match output {
                    Output::Send(id, message) => {
                        self.sent.push((id, message.clone()));
                        let script = self.peers.iter_mut().find(|(peer, _)| *peer == id);
                        let answers = script.map(|(_, script)| script(&message)).unwrap_or_default();
                        queue.extend(answers.into_iter().map(|answer| (id, answer)));
                    }
                    Output::Close(id) => self.end(id, None),
                    Output::Destroy(id, fault) => self.end(id, Some(fault)),
                }
            }
            match queue.pop_front() {
                Some((id, message)) => {
                    // As it travels: encoded, and read again.
                    let body = Bytes::from(message.encode());
                    let message = Message::decode(message.kind(), &body).unwrap().unwrap();
                    self.replicator.handle_message(id, message, self.now);
                }
                None if !more => return self,
                None => {}
            }
        }
        panic!("it goes on for ever");
    }

    fn end(&mut self, id: PeerId, fault: Option<Fault>) {
        self.peers.retain(|(peer, _)| *peer != id);
        self.ended.push((id, fault));
    }

    /// Time passes, in steps that its timeouts ask for.
    fn wait(&mut self, time: Duration) -> &mut Play<'a> {
        let end = self.now + time;
        self.run();
        while let Some(due) = self.replicator.poll_timeout()
            && due <= end
        {
            self.now = due.max(self.now + Duration::from_millis(1));
            self.run();
        }
        self.now = end;
        self.run()
    }

    fn core(&self) -> Arc<Core> {
        self.replicator.core().clone()
    }

    fn count(&self, is: impl Fn(&Message) -> bool) -> usize {
        self.sent.iter().filter(|(_, message)| is(message)).count()
    }
}

fn want_all(core: &Arc<Core>) -> pgbee_engine::hypercore::wants::Want {
    core.wants().want_range(BlockIndex(0)..BlockIndex(u64::MAX))
}

fn is_whole(core: &Core, length: u64) -> bool {
    core.len() == Length(length) && core.contiguous_len() == Length(length)
}

#[test]
fn the_first_messages_are_those_of_javascript() {
    // transcript-live: the reader says sync, asks for the head with the manifest, and acknowledges it.
    let core = writer(1, "a", 12);
    let mut play = Play::new(reader(&core)).enter(ONE, honest(&core));
    play.run();
    let hex = |message: &Message| message.encode().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let said: Vec<(u64, String)> = play.sent.iter().map(|(_, message)| (message.kind(), hex(message))).collect();
    assert_eq!(said[0], (0, "07000000".to_string()));
    assert_eq!(said[1], (1, "180100000c".to_string()));
    assert_eq!(said.last(), Some(&(0, "0e000c0c".to_string())));
    assert_eq!(said.len(), 3);

    // And the writer, whose first sync is answered with one that is shorter.
    let mut serving = Replicator::new(core, true);
    serving.peer_opened(ONE);
    let sync = Message::decode(0, &Bytes::from_static(&[7, 0, 0, 0])).unwrap().unwrap();
    serving.handle_message(ONE, sync, Now::ZERO);
    let said: Vec<String> = std::iter::from_fn(|| serving.poll_output())
        .map(|output| match output {
            Output::Send(_, message) => hex(&message),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(said, ["0f000c00", "00000c", "0f000c00"]);
}

#[test]
fn a_wanted_block_is_asked_for_as_javascript_does() {
    let core = writer(1, "a", 12);
    let mut play = Play::new(reader(&core)).enter(ONE, honest(&core));
    play.run();
    let before = play.sent.len();
    let claim = play.core().wants().want(&[BlockIndex(3), BlockIndex(11)], &Arc::default());
    play.run();
    let requests: Vec<Vec<u8>> = play.sent[before..]
        .iter()
        .filter(|(_, message)| message.kind() == 1)
        .map(|(_, message)| message.encode())
        .collect();
    // transcript-live: 21 01 00 03 03 01 and 21 01 00 0b 02 01; here the second is sent while the first is open.
    assert_eq!(requests, [vec![0x21, 1, 0, 3, 3, 1], vec![0x21, 2, 0, 11, 2, 1]]);
    drop(claim);
}

#[test]
fn a_peer_that_lies_about_its_length_is_left_alone_while_others_serve() {
    let core = writer(1, "a", 50);
    let liar = twisted(&core, |message| match message {
        Message::Sync(sync) => Some(Message::Sync(Sync { length: Length(1 << 40), ..sync })),
        Message::Range { .. } => Some(Message::Range { drop: false, start: BlockIndex(0), length: 1 << 40 }),
        other => Some(other),
    });
    let mut play = Play::new(reader(&core)).enter(ONE, liar).enter(TWO, honest(&core));
    let _all = want_all(&play.core());
    play.wait(Duration::from_secs(30));
    assert!(is_whole(&play.core(), 50), "{}", play.replicator.describe());
    let asked =
        play.count(|message| matches!(message, Message::Request(requested) if requested.request.upgrade.is_some()));
    assert!((2..20).contains(&asked), "it is asked ever more rarely: {asked}");
    assert_eq!(play.replicator.remote_length(), Length(1 << 40), "a claim is a claim");
}

/// A peer that says it is longer than anyone, and answers what upgrades ask for with something else.
fn evading<'a>(core: &'a Arc<Core>, evade: impl Fn(&mut Proof) + 'a) -> Script<'a> {
    let mut script = twisted(core, |message| match message {
        Message::Sync(sync) => Some(Message::Sync(Sync { length: Length(1 << 40), ..sync })),
        other => Some(other),
    });
    Box::new(move |message| match message {
        Message::Request(Requested { id, request: Request { upgrade: Some(upgrade), .. }, .. }) => {
            let upgrade = Some(UpgradeRequest { length: core.len().0 - upgrade.start.0, ..*upgrade });
            let mut proof = core.prove(&Request { upgrade, ..Request::default() }).unwrap();
            evade(&mut proof);
            vec![Message::Data(Data { request: *id, proof })]
        }
        other => script(other),
    })
}

#[test]
fn a_peer_that_answers_an_upgrade_with_something_else_does_not_keep_others_from_being_asked() {
    let core = writer(1, "a", 20);
    let manifest = core.manifest();
    let only_manifest = |proof: &mut Proof| {
        *proof = Proof { fork: proof.fork, manifest: manifest.clone(), ..Proof::default() };
    };
    let mut play = Play::new(reader(&core)).enter(ONE, evading(&core, only_manifest)).enter(TWO, honest(&core));
    let _all = want_all(&play.core());
    play.wait(Duration::from_secs(10));
    assert!(is_whole(&play.core(), 20), "{}", play.replicator.describe());

    // Who knows 20 blocks already is sent the way from another length.
    let copy = play.core();
    core.append(&blocks("more", 20), Durability::Sync).unwrap();
    let of_another_length = |proof: &mut Proof| {
        if let Some(upgrade) = &mut proof.upgrade {
            upgrade.start = Length(5);
        }
    };
    let play = Play::new(Replicator::new(copy, true));
    let mut play = play.enter(ONE, evading(&core, of_another_length)).enter(TWO, honest(&core));
    play.wait(Duration::from_secs(10));
    assert!(is_whole(&play.core(), 40), "{}", play.replicator.describe());
}

#[test]
fn a_proof_that_leads_nowhere_is_not_asked_for_again_and_again() {
    let core = writer(1, "a", 64);
    let mut play = Play::new(reader(&core)).enter(TWO, honest(&core));
    let all = want_all(&play.core());
    play.run();
    drop(all);
    // Once nodes were forgotten, a proof that ends too early may be nobody's fault.
    let copy = play.core();
    copy.clear(BlockIndex(16)..BlockIndex(32)).unwrap();
    let curt = twisted(&core, |message| match message {
        Message::Data(mut data) => {
            data.proof.block.iter_mut().for_each(|block| block.nodes.clear());
            Some(Message::Data(data))
        }
        other => Some(other),
    });
    let mut play = Play::new(Replicator::new(copy, true)).enter(ONE, curt).enter(TWO, honest(&core));
    let claim = play.core().wants().want(&[BlockIndex(20)], &Arc::default());
    play.wait(Duration::from_secs(5));
    assert!(play.core().has(BlockIndex(20)), "{}", play.replicator.describe());
    drop(claim);
}

#[test]
fn an_upgrade_is_asked_of_who_has_given_one_before_who_claims_more() {
    let core = writer(1, "a", 20);
    let mut play = Play::new(reader(&core)).enter(TWO, honest(&core));
    play.run();
    play.peers.clear();
    play.replicator.peer_opened(ONE);
    let sync = |length| {
        let sync = Sync { length: Length(length), remote_length: Length(20), ..Sync::default() };
        Message::Sync(Sync { can_upgrade: true, uploading: true, downloading: true, ..sync })
    };
    play.replicator.handle_message(ONE, sync(1 << 40), play.now);
    play.replicator.handle_message(TWO, sync(21), play.now);
    play.sent.clear();
    play.run();
    let asked = |(id, message): &(PeerId, Message)| match message {
        Message::Request(requested) if requested.request.upgrade.is_some() => Some(*id),
        _ => None,
    };
    assert_eq!(play.sent.iter().filter_map(asked).collect::<Vec<_>>(), [TWO]);
}

#[test]
fn a_fork_is_followed_to_its_end_whatever_others_claim() {
    let core = writer(1, "a", 20);
    let mut play = Play::new(reader(&core)).enter(TWO, honest(&core));
    play.run();
    play.peers.clear();
    play.replicator.peer_opened(ONE);
    let sync = |fork| {
        Message::Sync(Sync {
            fork: Fork(fork),
            length: Length(9),
            uploading: true,
            downloading: true,
            ..Sync::default()
        })
    };
    play.replicator.handle_message(TWO, sync(1), play.now);
    play.run();
    play.sent.clear();
    play.replicator.handle_message(ONE, sync(1 << 40), play.now);
    play.run();
    assert_eq!(play.count(|message| matches!(message, Message::Cancel { .. } | Message::Request(_))), 0);
    // But not for ever, if nothing comes of it.
    play.wait(Duration::from_secs(3));
    let asked = |(id, message): &(PeerId, Message)| *id == ONE && matches!(message, Message::Request(_));
    assert!(play.sent.iter().any(asked), "{:?}", play.sent);
}

#[test]
fn what_is_refused_of_a_history_that_its_peer_has_left_is_not_held_against_it() {
    let core = writer(1, "a", 100);
    let busy = twisted(&core, |message| match message {
        Message::Data(data) if data.proof.block.is_some() => None,
        other => Some(other),
    });
    let mut play = Play::new(reader(&core)).enter(ONE, busy);
    let _all = want_all(&play.core());
    play.run();
    let open = play.replicator.peers[&ONE].questions.ids();
    assert!(open.len() > NO_DATA_MAX as usize);
    let sync = Sync { fork: Fork(1), length: Length(90), uploading: true, downloading: true, ..Sync::default() };
    play.replicator.handle_message(ONE, Message::Sync(sync), play.now);
    for request in open {
        let refusal = Message::NoData { request, reason: Reason::NotAvailable };
        play.replicator.handle_message(ONE, refusal, play.now);
    }
    let peer = &play.replicator.peers[&ONE];
    assert!(peer.paused_until.is_none() && peer.has.has_all(BlockIndex(0), 90), "{}", play.replicator.describe());
}

#[test]
fn blocks_are_asked_of_who_answers_before_who_is_silent() {
    let core = writer(1, "a", 300);
    let silent = twisted(&core, |message| match message {
        Message::Data(data) if data.proof.block.is_some() => None,
        other => Some(other),
    });
    let mut play = Play::new(reader(&core)).enter(ONE, silent).enter(TWO, honest(&core));
    play.run();
    // The honest one is far away.
    let far = play.replicator.peers.get_mut(&TWO).unwrap();
    (0..50).for_each(|_| far.pace.answered(Duration::from_millis(200)));
    let mut late = 0;
    for block in 0..40 {
        let claim = play.core().wants().want(&[BlockIndex(7 * block)], &Arc::default());
        play.run();
        if !play.core().has(BlockIndex(7 * block)) {
            late += 1;
            play.wait(Duration::from_secs(2));
        }
        assert!(play.core().has(BlockIndex(7 * block)), "{}", play.replicator.describe());
        let far = play.replicator.peers.get_mut(&TWO).unwrap();
        (0..50).for_each(|_| far.pace.answered(Duration::from_millis(200)));
        drop(claim);
    }
    assert!((1..8).contains(&late), "{late} of 40 blocks came late");
}

#[test]
fn silence_about_the_windows_of_a_range_ends_by_itself() {
    let core = writer(1, "a", 50);
    let sparse = twisted(&core, |message| match message {
        Message::Range { .. } | Message::Bitfield { .. } => None,
        other => Some(other),
    });
    let mut play = Play::new(reader(&core)).enter(ONE, sparse);
    let _all = want_all(&play.core());
    play.run();
    assert_eq!(play.count(|message| matches!(message, Message::Want(_))), 1);
    assert!(play.replicator.poll_timeout().is_some_and(|due| due <= peer::WINDOW_ANSWER));
    play.wait(Duration::from_secs(3));
    assert_eq!(play.replicator.poll_timeout(), None, "nor does it ask for ever");
}

#[test]
fn a_peer_that_withholds_blocks_is_overtaken() {
    let core = writer(1, "a", 300);
    let withholding = twisted(&core, |message| match message {
        Message::Data(data) if data.proof.block.is_some() => None,
        other => Some(other),
    });
    let mut play = Play::new(reader(&core)).enter(ONE, withholding).enter(TWO, honest(&core));
    let _all = want_all(&play.core());
    play.wait(Duration::from_secs(60));
    assert!(is_whole(&play.core(), 300), "{}", play.replicator.describe());
    assert!(play.ended.is_empty(), "to be slow is no fault");
    assert!(
        play.count(|message| matches!(message, Message::Cancel { .. })) > 0,
        "what the other one gave is not waited for"
    );
}

#[test]
fn a_peer_that_says_it_has_what_it_has_not_is_not_asked_again_and_again() {
    let core = writer(1, "a", 100);
    let boasting = twisted(&core, |message| match message {
        Message::Data(data) if data.proof.block.is_some() => {
            Some(Message::NoData { request: data.request, reason: Reason::NotAvailable })
        }
        other => Some(other),
    });
    let mut play = Play::new(reader(&core)).enter(ONE, boasting);
    let claim = play.core().wants().want(&[BlockIndex(7)], &Arc::default());
    play.wait(Duration::from_secs(20));
    assert_eq!(
        play.count(|message| matches!(message, Message::Request(requested) if requested.request.block.is_some())),
        1
    );
    assert_eq!(play.core().wants().wait(BlockIndex(7), Duration::ZERO), Waited::NotYet { peers: 1, holders: Some(0) });
    drop(claim);
    let _all = want_all(&play.core());
    play.wait(Duration::from_secs(5));
    let asked =
        play.count(|message| matches!(message, Message::Request(requested) if requested.request.block.is_some()));
    assert!(asked <= 100, "each once at most: {asked}");
}

#[test]
fn blocks_of_another_core_cost_the_peer_its_connection_and_us_nothing() {
    let (core, other) = (writer(1, "a", 20), writer(2, "b", 20));
    let swapping = twisted(&core, move |message| match message {
        Message::Data(mut data) => {
            if let (Some(block), Ok(stolen)) = (&mut data.proof.block, other.get(BlockIndex(0))) {
                block.value = stolen;
            }
            Some(Message::Data(data))
        }
        other => Some(other),
    });
    let mut play = Play::new(reader(&core)).enter(ONE, swapping);
    let _all = want_all(&play.core());
    play.wait(Duration::from_secs(10));
    assert!(matches!(play.ended[..], [(ONE, Some(Fault::Unverified(_)))]), "{:?}", play.ended);
    assert_eq!((play.core().len(), play.core().held_blocks(), play.core().is_frozen()), (Length(20), 0, false));
    assert!(play.replicator.verification_failures() > 0);
    let mut play = Play { peers: Vec::new(), ..play }.enter(TWO, honest(&core));
    play.run();
    assert!(is_whole(&play.core(), 20), "the next peer is not blamed");
}

#[test]
fn every_changed_byte_of_a_proof_is_refused() {
    let core = writer(1, "a", 9);
    for byte in 0..200 {
        let mangling = twisted(&core, |message| match message {
            Message::Data(data) => {
                let mut body = Message::Data(data).encode();
                if let Some(changed) = body.get_mut(3 + byte) {
                    *changed ^= 0x55;
                }
                Message::decode(3, &Bytes::from(body)).ok().flatten()
            }
            other => Some(other),
        });
        let mut play = Play::new(reader(&core)).enter(ONE, mangling);
        let _all = want_all(&play.core());
        play.wait(Duration::from_secs(10));
        let replica = play.core();
        for block in (0..9).map(BlockIndex).filter(|block| replica.has(*block)) {
            assert_eq!(replica.get(block).unwrap(), core.get(block).unwrap(), "byte {byte}");
        }
        // Not the signature: its last two bytes say nothing, as in JavaScript.
        assert!(replica.is_empty() || replica.head().root_hash == core.head().root_hash, "byte {byte}");
        assert!(!replica.is_frozen(), "byte {byte}");
    }
}

#[test]
fn a_flood_of_requests_ends_the_connection() {
    let core = writer(1, "a", 10);
    let mut replicator = Replicator::new(core, false);
    replicator.peer_opened(ONE);
    let request = Request { block: Some(BlockRequest { index: BlockIndex(3), nodes: 0 }), ..Request::default() };
    for id in 1..=upload::REQUESTS_MAX as u64 + 1 {
        replicator.handle_message(
            ONE,
            Message::Request(Requested { id, fork: Fork(0), priority: 0, request: request.clone() }),
            Now::ZERO,
        );
    }
    let outputs: Vec<Output> = std::iter::from_fn(|| replicator.poll_output()).collect();
    assert_eq!(outputs.last(), Some(&Output::Destroy(ONE, Fault::TooManyRequests)));
    assert!(replicator.is_idle());
}

#[test]
fn a_peer_that_does_not_read_is_not_answered_and_others_are() {
    let core = writer(1, "a", 100);
    let mut replicator = Replicator::new(core, false);
    let request = |id| {
        let block = Some(BlockRequest { index: BlockIndex(id % 100), nodes: 0 });
        Message::Request(Requested { id, fork: Fork(0), priority: 0, request: Request { block, ..Request::default() } })
    };
    for peer in [ONE, TWO] {
        replicator.peer_opened(peer);
        (1..100).for_each(|id| replicator.handle_message(peer, request(id), Now::ZERO));
    }
    replicator.set_congested(ONE, true);
    while replicator.work(Now::ZERO) {}
    let mut answered = [0, 0];
    while let Some(output) = replicator.poll_output() {
        if let Output::Send(peer, Message::Data(_)) = output {
            answered[usize::from(peer == TWO)] += 1;
        }
    }
    assert_eq!(answered, [0, 99]);
    replicator.set_congested(ONE, false);
    assert!(replicator.has_work());
    while replicator.work(Now::ZERO) {}
    assert_eq!(std::iter::from_fn(|| replicator.poll_output()).count(), 99);
}

#[test]
fn impossible_requests_are_refused_later_and_later() {
    let core = writer(1, "a", 10);
    let mut replicator = Replicator::new(core, false);
    replicator.peer_opened(ONE);
    let mut now = Now::ZERO;
    let upgrade = Some(UpgradeRequest { start: Length(3), length: 1 << 40 });
    let mut refused = 0;
    for id in 1..=64 {
        let request = Request { upgrade, ..Request::default() };
        replicator.handle_message(ONE, Message::Request(Requested { id, fork: Fork(0), priority: 0, request }), now);
        replicator.work(now);
        if let Some(due) = replicator.poll_timeout() {
            assert!(due >= now + Duration::from_millis(200));
            now = due;
            replicator.work(now);
        }
        while let Some(output) = replicator.poll_output() {
            match output {
                Output::Send(_, Message::NoData { reason: Reason::InvalidRequest, .. }) => refused += 1,
                Output::Destroy(_, fault) => assert_eq!((id, fault), (64, Fault::InvalidRequests)),
                _ => {}
            }
        }
    }
    assert_eq!((refused, replicator.is_idle()), (63, true));
}

#[test]
fn two_histories_of_one_writer_freeze_the_core_and_everyone_hears_of_it() {
    let (core, other) = (writer(1, "a", 20), writer(1, "b", 30));
    assert_eq!(core.key(), other.key());
    let witness = std::cell::RefCell::new(Vec::new());
    let mut script = honest(&core);
    let watching: Script<'_> = Box::new(|message| {
        witness.borrow_mut().push(message.clone());
        script(message)
    });
    let mut play = Play::new(reader(&core)).enter(ONE, watching);
    let _all = want_all(&play.core());
    play.run();
    assert!(is_whole(&play.core(), 20));
    let mut play = play.enter(TWO, honest(&other));
    play.wait(Duration::from_secs(10));
    let replica = play.core();
    let conflict = replica.conflict().expect("it is frozen");
    assert_eq!((conflict.fork, replica.is_frozen()), (Fork(0), true));
    assert_eq!(replica.len(), Length(20), "what was held stays readable");
    assert!(replica.get(BlockIndex(19)).is_ok());
    assert_eq!(play.ended.len(), 2, "{:?}", play.ended);
    let evidence =
        |message: &Message| matches!(message, Message::Data(Data { request: 0, proof }) if proof.upgrade.is_some());
    assert!(witness.borrow().iter().any(evidence), "the other peer was shown our history");
    // Whoever comes now is turned away.
    play.replicator.peer_opened(PeerId(9));
    assert_eq!(play.replicator.poll_output(), Some(Output::Close(PeerId(9))));
}

#[test]
fn evidence_that_proves_nothing_ends_the_connection_in_the_end() {
    let core = writer(1, "a", 20);
    let mut play = Play::new(reader(&core)).enter(ONE, honest(&core));
    play.run();
    let proof = core
        .prove(&Request { upgrade: Some(UpgradeRequest { start: Length(0), length: 20 }), ..Request::default() })
        .unwrap();
    for _ in 0..5 {
        play.replicator.handle_message(ONE, Message::Data(Data { request: 0, proof: proof.clone() }), play.now);
        play.run();
    }
    assert_eq!(play.ended, [(ONE, Some(Fault::UnfoundedConflicts))]);
    assert!(!play.core().is_frozen());
}

#[test]
fn answers_nobody_asked_for_change_nothing() {
    let core = writer(1, "a", 20);
    let mut play = Play::new(reader(&core)).enter(ONE, honest(&core));
    play.run();
    let before = play.core().held_blocks();
    let request = Request { block: Some(BlockRequest { index: BlockIndex(5), nodes: 4 }), ..Request::default() };
    let proof = core.prove(&request).unwrap();
    for request in [1, 7, 1 << 40] {
        play.replicator.handle_message(ONE, Message::Data(Data { request, proof: proof.clone() }), play.now);
        play.replicator.handle_message(ONE, Message::NoData { request, reason: Reason::NotAvailable }, play.now);
        play.replicator.handle_message(ONE, Message::Cancel { request }, play.now);
    }
    play.replicator.handle_message(ONE, Message::Data(Data { request: 0, proof: Proof::default() }), play.now);
    play.run();
    assert_eq!((play.core().held_blocks(), play.ended.len()), (before, 0));
}

#[test]
fn idle_peers_part_and_meet_again_when_one_has_something_to_do() {
    let core = writer(1, "a", 20);
    let mut serving = Replicator::new(core.clone(), false);
    serving.peer_opened(ONE);
    let idle = Sync { length: Length(20), uploading: true, ..Sync::default() };
    serving.handle_message(ONE, Message::Sync(Sync { downloading: true, ..idle }), Now::ZERO);
    assert!(!serving.is_idle());
    serving.handle_message(ONE, Message::Sync(idle), Now::ZERO);
    let closed = std::iter::from_fn(|| serving.poll_output()).last();
    assert_eq!(closed, Some(Output::Close(ONE)));

    let mut reading = reader(&core);
    reading.peer_opened(ONE);
    reading.handle_message(ONE, Message::Sync(idle), Now::ZERO);
    assert!(reading.peer_closed(ONE), "it had nothing to do, but we have");
    reading.set_downloading(false);
    reading.peer_opened(TWO);
    assert!(!reading.peer_closed(TWO));
}

#[test]
fn a_want_is_answered_with_what_is_here_and_then_with_what_comes() {
    let core = writer(1, "a", 3000);
    let mut play = Play::new(reader(&core)).enter(ONE, honest(&core));
    let some = play.core().wants().want_range(BlockIndex(64)..BlockIndex(70));
    play.run();
    drop(some);
    // Someone who has the same head asks us what we have.
    play.replicator.peer_opened(TWO);
    let sync = Sync {
        length: Length(3000),
        remote_length: Length(3000),
        uploading: true,
        downloading: true,
        ..Sync::default()
    };
    play.replicator.handle_message(TWO, Message::Sync(sync), play.now);
    play.replicator.handle_message(
        TWO,
        Message::Want(Span { start: BlockIndex(0), length: SEGMENT_BLOCKS, any: false }),
        play.now,
    );
    play.sent.clear();
    play.run();
    let told = |play: &Play<'_>| {
        play.sent
            .iter()
            .filter(|(id, message)| *id == TWO && matches!(message.kind(), 7 | 8))
            .map(|(_, message)| message.clone())
            .collect::<Vec<_>>()
    };
    let said = told(&play);
    let [Message::Bitfield { start: BlockIndex(0), words }] = &said[..] else { panic!("{said:?}") };
    assert_eq!((words.len(), words[2], words.iter().map(|word| word.count_ones()).sum::<u32>()), (94, 0b11_1111, 6));
    play.sent.clear();
    let claim = play.core().wants().want(&[BlockIndex(1000), BlockIndex(1001), BlockIndex(5)], &Arc::default());
    play.run();
    let mut said = told(&play);
    said.sort_by_key(|message| format!("{message:?}"));
    let blocks: u64 = said
        .iter()
        .map(|message| if let Message::Range { drop: false, length, .. } = message { *length } else { 0 })
        .sum();
    assert_eq!(blocks, 3, "{said:?}");
    drop(claim);
    // It no longer wants to know, and these are not among the last blocks.
    play.replicator.handle_message(
        TWO,
        Message::Unwant(Span { start: BlockIndex(0), length: SEGMENT_BLOCKS, any: false }),
        play.now,
    );
    play.sent.clear();
    let claim = play.core().wants().want(&[BlockIndex(2000), BlockIndex(2999)], &Arc::default());
    play.run();
    assert_eq!(told(&play), [Message::Range { drop: false, start: BlockIndex(2999), length: 1 }]);
    drop(claim);
}

#[test]
fn extensions_are_carried_and_names_sent_once() {
    struct Echo;
    impl ExtensionHandler for Echo {
        fn handle(&self, payload: &[u8]) -> Vec<Bytes> {
            vec![Bytes::copy_from_slice(payload), Bytes::from_static(b"!")]
        }
    }
    let core = writer(1, "a", 5);
    core.extensions().register("echo", Arc::new(Echo));
    let mut serving = Replicator::new(core, false);
    serving.peer_opened(ONE);
    while serving.poll_output().is_some() {}
    let extension = |name: &str, payload: &'static [u8]| Message::Extension {
        name: name.to_string(),
        payload: Bytes::from_static(payload),
    };
    serving.handle_message(ONE, extension("echo", &[2, b'h', b'i']), Now::ZERO);
    serving.handle_message(ONE, extension("", &[1, b'x']), Now::ZERO);
    serving.handle_message(ONE, extension("other", &[1, b'x']), Now::ZERO);
    serving.handle_message(ONE, extension("", &[1, b'x']), Now::ZERO);
    serving.handle_message(ONE, extension("echo", &[200, b'x']), Now::ZERO);
    while serving.work(Now::ZERO) {}
    let said: Vec<Output> = std::iter::from_fn(|| serving.poll_output()).collect();
    let expected = [("echo", &[2u8, b'h', b'i'][..]), ("", &[1, b'!']), ("", &[1, b'x']), ("", &[1, b'!'])];
    let expected: Vec<Output> = expected
        .iter()
        .map(|(name, payload)| {
            Output::Send(ONE, Message::Extension { name: name.to_string(), payload: Bytes::copy_from_slice(payload) })
        })
        .collect();
    assert_eq!(said, expected);
    serving.core().extensions().broadcast("echo", Bytes::from_static(b"all"));
    serving.handle_wants(Change::default());
    assert_eq!(serving.poll_output(), Some(Output::Send(ONE, extension("", &[3, b'a', b'l', b'l']))));
}

#[test]
fn a_failing_store_costs_no_peer_anything() {
    use pgbee_engine::storage::faulty::{Fault as StoreFault, Faulty, Plan};
    let core = writer(1, "a", 40);
    let faulty = Arc::new(Faulty::new(Arc::new(Memory::new()), Plan::none()));
    let backend: Arc<dyn Backend> = faulty.clone();
    let store = Store::open(backend, Options::default()).unwrap();
    let copy = store.get_by_key(core.key()).unwrap();
    let _all = want_all(&copy);
    faulty.set_plan(Plan::at(faulty.writes() + 2, StoreFault::FailBefore));
    let mut play = Play::new(Replicator::new(copy, true)).enter(ONE, honest(&core));
    play.run();
    assert!(!is_whole(&play.core(), 40), "a write failed");
    assert!(play.core().wants().failures().1.is_some(), "who waits for blocks hears of it");
    play.wait(Duration::from_secs(5));
    assert!(is_whole(&play.core(), 40) && play.ended.is_empty(), "{}", play.replicator.describe());
    assert_eq!(play.replicator.verification_failures(), 0);
}

#[test]
fn a_cleared_block_is_not_given() {
    let own = writer(1, "a", 40);
    let mut play = Play::new(reader(&own)).enter(ONE, honest(&own));
    let all = want_all(&play.core());
    play.run();
    let core = play.core();
    assert!(is_whole(&core, 40));
    drop(all);
    core.clear(BlockIndex(5)..BlockIndex(9)).unwrap();
    let mut play = Play::new(reader(&core)).enter(ONE, honest(&core));
    let _all = want_all(&play.core());
    play.wait(Duration::from_secs(5));
    assert_eq!(play.core().held_blocks(), 36, "{}", play.replicator.describe());
    assert!(matches!(play.core().get(BlockIndex(5)), Err(Error::MissingBlock(_))));
    assert!(play.ended.is_empty());
}

/// What a recorded reader was given makes a replica; asked the same, it answers with the same bytes as JavaScript did.
#[test]
fn recorded_requests_are_answered_byte_for_byte() {
    for (name, key, served) in
        [("transcript-live", "coreKey", 14), ("transcript-store", "beeKey", 17), ("transcript-sparse", "coreKey", 4)]
    {
        let transcript = crate::secret_stream::vectors::read(name);
        let key = pgbee_engine::CoreKey(crate::secret_stream::vectors::bytes(&transcript, key).try_into().unwrap());
        let core = store(99).get_by_key(key).unwrap();
        let mut open = std::collections::BTreeMap::new();
        let mut answered: Vec<(Requested, Data)> = Vec::new();
        let mut count = 0;
        for (_, message) in crate::protocol::tests::session(name) {
            match message {
                Message::Request(requested) => drop(open.insert(requested.id, requested)),
                Message::Data(data) => {
                    let requested: Requested = open.remove(&data.request).unwrap();
                    if data.proof.upgrade.is_some() {
                        // From here on the core is longer, and would prove earlier requests otherwise.
                        count += compare(&core, &std::mem::take(&mut answered));
                    }
                    let mut intake = core.intake();
                    let verified = intake.verify(data.proof.clone()).unwrap();
                    intake.add(verified);
                    intake.commit(Durability::NoSync).unwrap();
                    answered.push((requested, data));
                }
                _ => {}
            }
        }
        count += compare(&core, &answered);
        assert!(count >= served, "{name}: {count}");
    }
}

/// Whether a core answers requests as recorded. How many there are.
fn compare(core: &Arc<Core>, recorded: &[(Requested, Data)]) -> usize {
    let mut serving = Replicator::new(core.clone(), false);
    serving.peer_opened(ONE);
    while serving.poll_output().is_some() {}
    for (requested, data) in recorded {
        serving.handle_message(ONE, Message::Request(requested.clone()), Now::ZERO);
        while serving.work(Now::ZERO) {}
        let answer = serving.poll_output();
        let Some(Output::Send(ONE, answer)) = answer else { panic!("{answer:?} to {requested:?}") };
        assert_eq!(answer.encode(), Message::Data(data.clone()).encode(), "to {requested:?}");
    }
    recorded.len()
}
