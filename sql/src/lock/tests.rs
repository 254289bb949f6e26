//! The lock manager by itself: who waits and who goes on, in which order, what is given back when, deadlocks of every kind, and what a lock costs.
//!
//! A `World` is a manager and its account of memory; `World::session` opens sessions on it. Threads tell the manager that they wait before a test goes on, so that
//! no outcome depends on how long something takes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::shards::Shards;
use super::*;
use crate::memory::Account;

/// Long enough for a thread to run into a lock, short enough for a test.
const SETTLE: Duration = Duration::from_millis(2);

struct World {
    manager: Arc<LockManager>,
    memory: Arc<Account>,
    sessions: AtomicUsize,
}

impl World {
    fn new() -> World {
        World::of_bytes(1 << 30)
    }
    fn of_bytes(bytes: usize) -> World {
        World { manager: Arc::default(), memory: Arc::new(Account::of_instance(bytes)), sessions: AtomicUsize::new(0) }
    }
    /// A session in a transaction; pids and transactions count from 1 and 101.
    fn session(&self) -> Locks {
        let pid = self.sessions.fetch_add(1, Ordering::Relaxed) as i32 + 1;
        let locks = Locks::new(&self.manager, pid, Arc::default(), &self.memory).unwrap();
        locks.begin(100 + pid as u64);
        locks
    }
    fn sessions<const N: usize>(&self) -> [Locks; N] {
        std::array::from_fn(|_| self.session())
    }
    /// Comes back when so many wait.
    fn until_waiting(&self, count: usize) {
        let start = Instant::now();
        loop {
            let waiting: usize = self.manager.queues.lock().queues.values().map(VecDeque::len).sum();
            if waiting == count {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{waiting} wait, {count} should");
            std::thread::yield_now();
        }
    }
    /// Nothing is held and nobody waits: what must be so when all have released.
    fn assert_empty(&self) {
        assert_eq!(self.manager.shards.size().0, 0, "something is held");
        assert!(self.manager.shards.listed().is_empty());
        assert!(self.manager.queues.lock().queues.is_empty(), "somebody waits");
        assert!(self.manager.strong.iter().all(|n| n.load(Ordering::SeqCst) == 0), "a strong lock is counted");
    }
}

fn pid(locks: &Locks) -> i32 {
    locks.member.pid
}

fn owner_modes(world: &World, object: Object, locks: &Locks) -> Modes {
    let holders = world.manager.shards.holders(object);
    holders.iter().filter(|h| h.owner == locks.member.owner).fold(0, |all, h| all | h.modes)
}

fn row_object(world: &World, key: &[u8]) -> Object {
    Object::Key(world.manager.shards.key(key, false))
}

#[test]
fn every_pair_of_table_modes_conflicts_as_documented() {
    // The table of PostgreSQL's documentation, "Explicit Locking": x where row and column conflict.
    let documented = [".......x", "......xx", "....xxxx", "...xxxxx", "..xx.xxx", "..xxxxxx", ".xxxxxxx", "xxxxxxxx"];
    for (held, line) in TableMode::ALL.into_iter().zip(documented) {
        for (wanted, cell) in TableMode::ALL.into_iter().zip(line.chars()) {
            let world = World::new();
            let [one, two] = world.sessions();
            assert_eq!(one.table(7, held, Patience::Wait).unwrap(), Got::Free);
            let got = two.table(7, wanted, Patience::Skip).unwrap();
            let expected = if cell == 'x' { Got::Skipped } else { Got::Free };
            assert_eq!(got, expected, "{held:?} held, {wanted:?} wanted");
            // Another table is another lock, and one's own locks are in nobody's way.
            assert_eq!(two.table(8, wanted, Patience::Skip).unwrap(), Got::Free);
            assert_ne!(one.table(7, held, Patience::Skip).unwrap(), Got::Skipped);
            drop((one, two));
            world.assert_empty();
        }
    }
}

#[test]
fn every_pair_of_row_modes_conflicts_as_documented() {
    // "Row-Level Locks" of the documentation.
    let documented = ["...x", "..xx", ".xxx", "xxxx"];
    for (held, line) in RowMode::ALL.into_iter().zip(documented) {
        for (wanted, cell) in RowMode::ALL.into_iter().zip(line.chars()) {
            let world = World::new();
            let [one, two] = world.sessions();
            one.row(7, b"k", held, Patience::Wait).unwrap();
            let got = two.row(7, b"k", wanted, Patience::Skip).unwrap();
            assert_eq!(got, if cell == 'x' { Got::Skipped } else { Got::Free }, "{held:?} held, {wanted:?} wanted");
            // A claim is another lock of the same key, and there is one claim.
            assert_eq!(two.claim(7, b"k").unwrap(), Got::Free);
            drop((one, two));
            world.assert_empty();
        }
    }
}

#[test]
fn what_a_transaction_holds_of_a_row_grows_and_goes_back_to_a_savepoint() {
    for first in RowMode::ALL {
        for second in RowMode::ALL {
            let world = World::new();
            let [one, two] = world.sessions();
            assert_eq!(one.row(7, b"k", first, Patience::Wait).unwrap(), Got::Free);
            let mark = one.mark();
            let got = one.row(7, b"k", second, Patience::Wait).unwrap();
            assert_eq!(got, if second <= first { Got::Had } else { Got::Free });
            let strongest = first.max(second);
            let probe = |held: RowMode| {
                for wanted in RowMode::ALL {
                    let got = two.row(7, b"k", wanted, Patience::Skip).unwrap();
                    assert_eq!(got == Got::Skipped, held.conflicts(wanted), "{held:?} held, {wanted:?} wanted");
                    two.release_all();
                }
            };
            probe(strongest);
            one.release_since(mark);
            probe(first);
            one.release_all();
            drop((one, two));
            world.assert_empty();
        }
    }
}

#[test]
fn savepoints_give_back_what_was_locked_since() {
    let world = World::new();
    let [one, two] = world.sessions();
    one.table(1, TableMode::RowExclusive, Patience::Wait).unwrap();
    one.claim(1, b"before").unwrap();
    let mark = one.mark();
    one.table(1, TableMode::ShareRowExclusive, Patience::Wait).unwrap();
    one.table(2, TableMode::AccessShare, Patience::Wait).unwrap();
    one.claim(1, b"after").unwrap();
    assert_eq!(one.claim(1, b"before").unwrap(), Got::Had);
    let key = AdvisoryKey::one(5);
    assert!(one.advisory(key, true, false, true).unwrap());
    assert!(one.advisory(AdvisoryKey::one(6), true, true, true).unwrap());
    one.release_since(mark);
    assert_eq!(two.table(1, TableMode::RowExclusive, Patience::Skip).unwrap(), Got::Free);
    assert_eq!(two.table(1, TableMode::Share, Patience::Skip).unwrap(), Got::Skipped);
    assert_eq!(two.table(2, TableMode::AccessExclusive, Patience::Skip).unwrap(), Got::Free);
    assert!(two.advisory(key, true, false, false).unwrap());
    // A session's own stays.
    assert!(!two.advisory(AdvisoryKey::one(6), false, false, false).unwrap());
    two.set_timeouts(Some(SETTLE), SETTLE);
    assert_eq!(two.claim(1, b"after").unwrap(), Got::Free);
    assert_eq!(two.claim(1, b"before").unwrap_err().message(), "canceling statement due to lock timeout");
    drop((one, two));
    world.assert_empty();
}

#[test]
fn a_claim_in_vain_is_given_back_and_only_that() {
    let world = World::new();
    let [one, two] = world.sessions();
    two.set_timeouts(Some(SETTLE), SETTLE);
    one.claim(1, b"a").unwrap();
    one.row(1, b"b", RowMode::Update, Patience::Wait).unwrap();
    let mark = one.mark();
    one.claim(1, b"b").unwrap();
    assert_eq!(one.claim_with(1, b"a", Patience::Skip).unwrap(), Got::Had);
    assert_eq!(two.claim_with(1, b"b", Patience::Skip).unwrap(), Got::Skipped);
    one.release_since(mark);
    assert_eq!(two.claim(1, b"b").unwrap(), Got::Free);
    assert_eq!(two.row(1, b"b", RowMode::KeyShare, Patience::Skip).unwrap(), Got::Skipped);
    assert_eq!(two.claim(1, b"a").unwrap_err().state(), "55P03");
    drop((one, two));
    world.assert_empty();
}

#[test]
fn nowait_fails_and_names_the_table() {
    let world = World::new();
    let [one, two] = world.sessions();
    two.set_names(Box::new(|oid| (oid == 7).then(|| "t".to_owned())));
    one.row(7, b"k", RowMode::Share, Patience::Wait).unwrap();
    one.table(7, TableMode::Share, Patience::Wait).unwrap();
    let refused = two.row(7, b"k", RowMode::Update, Patience::Nowait).unwrap_err();
    assert_eq!((refused.state(), refused.message()), ("55P03", "could not obtain lock on row in relation \"t\""));
    let refused = two.table(7, TableMode::RowExclusive, Patience::Nowait).unwrap_err();
    assert_eq!((refused.state(), refused.message()), ("55P03", "could not obtain lock on relation \"t\""));
    assert_eq!(two.row(7, b"k", RowMode::Update, Patience::Skip).unwrap(), Got::Skipped);
    drop((one, two));
    world.assert_empty();
}

#[test]
fn waiters_are_served_in_the_order_they_came() {
    let world = World::new();
    let one = world.session();
    one.claim(1, b"k").unwrap();
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 0..10 {
            let (world, order) = (&world, &order);
            scope.spawn(move || {
                let locks = world.session();
                locks.set_timeouts(None, Duration::from_secs(100));
                assert_eq!(locks.claim(1, b"k").unwrap(), Got::Waited);
                order.lock().push(number);
            });
            world.until_waiting(number + 1);
        }
        one.release_all();
    });
    assert_eq!(*order.lock(), Vec::from_iter(0..10));
    drop(one);
    world.assert_empty();
}

#[test]
fn who_shares_a_row_passes_those_who_want_it_alone_but_a_table_is_queued_for() {
    let world = World::new();
    let [one, two, three] = world.sessions();
    one.row(7, b"k", RowMode::Share, Patience::Wait).unwrap();
    one.table(7, TableMode::AccessShare, Patience::Wait).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| two.row(7, b"k", RowMode::Update, Patience::Wait).unwrap());
        world.until_waiting(1);
        assert_eq!(three.row(7, b"k", RowMode::Share, Patience::Nowait).unwrap(), Got::Free);
        assert_eq!(three.row(7, b"k", RowMode::NoKeyUpdate, Patience::Skip).unwrap(), Got::Skipped);
        one.row(7, b"k", RowMode::KeyShare, Patience::Nowait).unwrap();
        one.release_since(Mark { keys: 0, ..one.mark() });
        world.until_waiting(1);
        three.release_all();
        assert_eq!(waiter.join().unwrap(), Got::Waited);
        let waiter = scope.spawn(|| two.table(7, TableMode::AccessExclusive, Patience::Wait).unwrap());
        world.until_waiting(1);
        assert_eq!(three.table(7, TableMode::AccessShare, Patience::Skip).unwrap(), Got::Skipped);
        // Who holds what the waiter waits for goes before it.
        assert_eq!(one.table(7, TableMode::RowExclusive, Patience::Wait).unwrap(), Got::Free);
        one.release_all();
        assert_eq!(waiter.join().unwrap(), Got::Waited);
    });
    drop((one, two, three));
    world.assert_empty();
}

#[test]
fn what_does_not_conflict_is_granted_together() {
    let world = World::new();
    let one = world.session();
    one.row(1, b"k", RowMode::Update, Patience::Wait).unwrap();
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (world, inside) = (&world, &inside);
            scope.spawn(move || {
                let locks = world.session();
                locks.row(1, b"k", RowMode::Share, Patience::Wait).unwrap();
                inside.fetch_add(1, Ordering::SeqCst);
                while inside.load(Ordering::SeqCst) < 3 {
                    std::thread::yield_now();
                }
            });
            world.until_waiting(number + 1);
        }
        one.release_all();
    });
    drop(one);
    world.assert_empty();
}

/// Runs the last step of each session at once, each in its thread; the errors by session. Locks of who fails are released, as its transaction is over.
fn deadlock(
    world: &World,
    steps: Vec<(Locks, Box<dyn Fn(&Locks) -> Result<Got> + Send + Sync>)>,
) -> Vec<Option<SqlError>> {
    let many = steps.len();
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = steps
            .into_iter()
            .enumerate()
            .map(|(at, (locks, step))| {
                let thread = scope.spawn(move || {
                    let result = step(&locks);
                    locks.release_all();
                    result.err()
                });
                if at + 1 < many {
                    world.until_waiting(at + 1);
                }
                thread
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>()
    });
    world.assert_empty();
    results
}

/// That only the last failed, as those before it look for circles later than the test lasts.
fn assert_last_is_victim(results: &[Option<SqlError>], detail: &str) {
    let (last, others) = results.split_last().unwrap();
    assert!(others.iter().all(Option::is_none), "{others:?}");
    let error = last.as_ref().unwrap();
    assert_eq!((error.state(), error.message()), ("40P01", "deadlock detected"));
    assert_eq!(error.0.detail.as_deref(), Some(detail));
    assert_eq!(error.0.hint.as_deref(), Some("See server log for query details."));
}

/// Sessions of which only the last looks for circles.
fn patient<const N: usize>(world: &World) -> [Locks; N] {
    let sessions = world.sessions::<N>();
    for locks in &sessions[..N - 1] {
        locks.set_timeouts(None, Duration::from_secs(100));
    }
    sessions
}

#[test]
fn circles_of_two_and_three_have_one_victim_and_are_told_in_full() {
    let world = World::new();
    let [one, two] = patient(&world);
    one.row(7, b"a", RowMode::Update, Patience::Wait).unwrap();
    two.row(7, b"b", RowMode::Update, Patience::Wait).unwrap();
    let results = deadlock(
        &world,
        vec![
            (one, Box::new(|l| l.row(7, b"b", RowMode::Update, Patience::Wait))),
            (two, Box::new(|l| l.row(7, b"a", RowMode::NoKeyUpdate, Patience::Wait))),
        ],
    );
    assert_last_is_victim(
        &results,
        "Process 2 waits for ShareLock on transaction 101; blocked by process 1.\n\
         Process 1 waits for ShareLock on transaction 102; blocked by process 2.",
    );
    // Across kinds: a unique key, a table, an advisory key.
    let world = World::new();
    let [one, two, three] = patient(&world);
    one.claim(7, b"a").unwrap();
    two.table(20, TableMode::RowExclusive, Patience::Wait).unwrap();
    three.advisory(AdvisoryKey::two(1, -1), true, false, true).unwrap();
    let results = deadlock(
        &world,
        vec![
            (one, Box::new(|l| l.table(20, TableMode::AccessExclusive, Patience::Wait))),
            (two, Box::new(|l| l.advisory(AdvisoryKey::two(1, -1), false, true, true).map(|_| Got::Waited))),
            (three, Box::new(|l| l.claim(7, b"a"))),
        ],
    );
    assert_last_is_victim(
        &results,
        "Process 3 waits for ShareLock on transaction 101; blocked by process 1.\n\
         Process 1 waits for AccessExclusiveLock on relation 20 of database 5; blocked by process 2.\n\
         Process 2 waits for ShareLock on advisory lock [5,1,4294967295,2]; blocked by process 3.",
    );
}

#[test]
fn who_share_and_both_want_more_wait_for_each_other() {
    let world = World::new();
    let [one, two] = patient(&world);
    for locks in [&one, &two] {
        locks.row(7, b"a", RowMode::Share, Patience::Wait).unwrap();
    }
    let upgrade = |l: &Locks| l.row(7, b"a", RowMode::Update, Patience::Wait);
    let results = deadlock(&world, vec![(one, Box::new(upgrade)), (two, Box::new(upgrade))]);
    assert_eq!(results[1].as_ref().unwrap().state(), "40P01");
    assert!(results[0].is_none());
    // Of a table it is seen at once, without looking for circles.
    let world = World::new();
    let [one, two] = world.sessions();
    for locks in [&one, &two] {
        locks.set_timeouts(None, Duration::from_secs(100));
        locks.table(7, TableMode::AccessShare, Patience::Wait).unwrap();
    }
    let upgrade = |l: &Locks| l.table(7, TableMode::AccessExclusive, Patience::Wait);
    let results = deadlock(&world, vec![(one, Box::new(upgrade)), (two, Box::new(upgrade))]);
    assert_last_is_victim(
        &results,
        "Process 2 waits for AccessExclusiveLock on relation 7 of database 5; blocked by process 1.\n\
         Process 1 waits for AccessExclusiveLock on relation 7 of database 5; blocked by process 2.",
    );
}

#[test]
fn a_circle_of_several_who_share() {
    // Both others share what the third wants; one of them waits for the third.
    let world = World::new();
    let [one, two, three] = patient(&world);
    one.row(7, b"a", RowMode::KeyShare, Patience::Wait).unwrap();
    two.row(7, b"a", RowMode::Share, Patience::Wait).unwrap();
    three.row(7, b"b", RowMode::Update, Patience::Wait).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| two.row(7, b"b", RowMode::KeyShare, Patience::Wait));
        world.until_waiting(1);
        let error = three.row(7, b"a", RowMode::Update, Patience::Wait).unwrap_err();
        assert_eq!(error.state(), "40P01");
        // Nothing but what was waited for is gone.
        assert_eq!(one.row(7, b"b", RowMode::KeyShare, Patience::Skip).unwrap(), Got::Skipped);
        three.release_all();
        assert_eq!(waiter.join().unwrap().unwrap(), Got::Waited);
    });
}

#[test]
fn a_circle_with_a_soft_edge_is_undone_by_another_order() {
    // PostgreSQL's deadlock-soft: one and two hold, two others queue for all of it, then one and two want what the other holds, in a mode they could
    // have but for the queue.
    let world = World::new();
    let [one, two, all_a, all_b] = world.sessions();
    let look = Duration::from_millis(5);
    for locks in [&one, &two, &all_a, &all_b] {
        locks.set_timeouts(None, Duration::from_secs(100));
    }
    two.set_timeouts(None, look);
    one.table(1, TableMode::AccessShare, Patience::Wait).unwrap();
    two.table(2, TableMode::AccessShare, Patience::Wait).unwrap();
    let (all_a, all_b) = (&all_a, &all_b);
    std::thread::scope(|scope| {
        let all = |locks: &Locks, table| {
            let got = locks.table(table, TableMode::AccessExclusive, Patience::Wait);
            locks.release_all();
            got
        };
        let a = scope.spawn(move || all(all_a, 1));
        world.until_waiting(1);
        let b = scope.spawn(move || all(all_b, 2));
        world.until_waiting(2);
        let first = scope.spawn(|| {
            let got = one.table(2, TableMode::AccessShare, Patience::Wait);
            one.release_all();
            got
        });
        world.until_waiting(3);
        let got = two.table(1, TableMode::AccessShare, Patience::Wait);
        two.release_all();
        assert_eq!((got.unwrap(), first.join().unwrap().unwrap()), (Got::Waited, Got::Waited));
        for waiter in [a, b] {
            assert_eq!(waiter.join().unwrap().unwrap(), Got::Waited);
        }
    });
    world.assert_empty();
}

#[test]
fn cancels_and_timeouts_end_a_wait_and_leave_nothing() {
    let world = World::new();
    let [one, two, three] = world.sessions();
    one.row(7, b"k", RowMode::Update, Patience::Wait).unwrap();
    three.row(7, b"other", RowMode::Share, Patience::Wait).unwrap();
    let start = Instant::now();
    two.set_timeouts(Some(Duration::from_millis(20)), Duration::from_secs(1));
    let error = two.row(7, b"k", RowMode::Share, Patience::Wait).unwrap_err();
    assert_eq!((error.state(), error.message()), ("55P03", "canceling statement due to lock timeout"));
    assert!(start.elapsed() >= Duration::from_millis(20));
    two.set_timeouts(None, Duration::from_secs(1));
    two.member.cancel.set_timeout(Some(Duration::from_millis(5)));
    let error = two.row(7, b"k", RowMode::Share, Patience::Wait).unwrap_err();
    assert_eq!((error.state(), error.message()), ("57014", "canceling statement due to statement timeout"));
    two.member.cancel.reset();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| two.row(7, b"k", RowMode::Share, Patience::Wait));
        world.until_waiting(1);
        let start = Instant::now();
        two.member.cancel.raise(SqlError::new("57P01", "terminating connection due to administrator command"));
        assert_eq!(waiter.join().unwrap().unwrap_err().state(), "57P01");
        assert!(start.elapsed() < Duration::from_secs(10));
    });
    // Those behind who has given up are served.
    two.member.cancel.reset();
    three.set_timeouts(None, Duration::from_secs(100));
    let key = AdvisoryKey::one(1);
    assert!(one.advisory(key, false, true, true).unwrap());
    std::thread::scope(|scope| {
        let exclusive = scope.spawn(|| two.advisory(key, true, true, true));
        world.until_waiting(1);
        let shared = scope.spawn(|| three.advisory(key, false, true, true));
        world.until_waiting(2);
        two.member.cancel.raise(SqlError::new("57014", "canceling statement due to user request"));
        assert!(exclusive.join().unwrap().is_err());
        assert!(shared.join().unwrap().unwrap());
    });
    drop((one, two, three));
    world.assert_empty();
}

#[test]
fn advisory_locks_count_and_live_as_long_as_they_should() {
    let world = World::new();
    let [one, two] = world.sessions();
    let (a, b) = (AdvisoryKey::one(0x1_0000_0002), AdvisoryKey::two(1, 2));
    let is_free = |key, exclusive| {
        let got = two.advisory(key, exclusive, true, false).unwrap();
        if got {
            assert!(two.advisory_unlock(key, exclusive));
        }
        got
    };
    assert!(!one.advisory_unlock(a, true), "never locked");
    for _ in 0..2 {
        assert!(one.advisory(a, true, true, true).unwrap());
    }
    // The same bits as two integers are another key.
    assert!(is_free(b, true));
    assert!(!is_free(a, false));
    assert!(!one.advisory_unlock(a, false), "held in the other mode");
    one.release_all();
    assert!(one.advisory_unlock(a, true));
    assert!(!is_free(a, true), "locked twice, unlocked once");
    assert!(one.advisory_unlock(a, true));
    assert!(is_free(a, true));
    assert!(!one.advisory_unlock(a, true));
    // By the transaction: not to be unlocked, gone with it; beside one of the session it ends before it.
    assert!(one.advisory(a, true, false, true).unwrap());
    assert!(!one.advisory_unlock(a, true));
    assert!(one.advisory(a, true, true, true).unwrap());
    one.release_all();
    assert!(!is_free(a, false));
    assert!(one.advisory(a, false, false, true).unwrap());
    assert!(one.advisory_unlock(a, true));
    assert!(!is_free(a, true) && is_free(a, false));
    assert!(one.advisory(b, true, true, true).unwrap());
    one.advisory_unlock_all();
    assert!(is_free(b, true) && !is_free(a, true));
    assert!(one.advisory(b, true, true, true).unwrap());
    drop(one);
    assert!(is_free(a, true) && is_free(b, true));
    drop(two);
    world.assert_empty();
}

#[test]
fn status_tells_who_holds_and_who_waits_for_whom() {
    let world = World::new();
    let [one, two, three] = world.sessions();
    for locks in [&one, &two, &three] {
        locks.set_timeouts(None, Duration::from_secs(100));
    }
    one.table(9, TableMode::RowExclusive, Patience::Wait).unwrap();
    one.row(9, b"k", RowMode::Update, Patience::Wait).unwrap();
    let shows = |target: &LockTarget, of: &Locks, granted: bool| {
        let all = world.manager.status();
        let found = all.into_iter().find(|l| l.target == *target && l.pid == pid(of) && l.granted == granted);
        found.map(|l| (l.mode, l.fast_path, l.wait_start.is_some()))
    };
    assert_eq!(shows(&LockTarget::Relation(9), &one, true), Some((TableMode::RowExclusive, true, false)));
    assert_eq!(shows(&LockTarget::Transaction(101), &one, true), Some((TableMode::Exclusive, false, false)));
    assert_eq!(shows(&LockTarget::Transaction(102), &two, true), None, "it has written nothing");
    std::thread::scope(|scope| {
        let second = scope.spawn(|| two.row(9, b"k", RowMode::NoKeyUpdate, Patience::Wait));
        world.until_waiting(1);
        let third = scope.spawn(|| three.row(9, b"k", RowMode::Update, Patience::Wait));
        world.until_waiting(2);
        assert_eq!(shows(&LockTarget::Transaction(101), &two, false), Some((TableMode::Share, false, true)));
        assert_eq!(shows(&LockTarget::Tuple(9), &two, true), Some((TableMode::Exclusive, false, false)));
        assert_eq!(shows(&LockTarget::Tuple(9), &three, false), Some((TableMode::AccessExclusive, false, true)));
        assert_eq!(world.manager.blocking_pids(2), [1]);
        assert_eq!(world.manager.blocking_pids(3), [1, 2]);
        assert_eq!(world.manager.blocking_pids(1), [0; 0]);
        let events = [&one, &two, &three].map(Locks::wait_event);
        assert_eq!(events, [None, Some("transactionid"), Some("tuple")]);
        one.release_all();
        second.join().unwrap().unwrap();
        two.release_all();
        third.join().unwrap().unwrap();
    });
    // Off the fast path once somebody wants it strongly.
    one.table(9, TableMode::AccessShare, Patience::Wait).unwrap();
    assert_eq!(shows(&LockTarget::Relation(9), &one, true), Some((TableMode::AccessShare, true, false)));
    assert_eq!(two.table(9, TableMode::AccessExclusive, Patience::Skip).unwrap(), Got::Skipped);
    assert_eq!(shows(&LockTarget::Relation(9), &one, true), Some((TableMode::AccessShare, false, false)));
}

#[test]
fn memory_of_locks_is_small_and_reserved() {
    for locked in [100_000, 150_000, 230_000, 500_000] {
        let world = World::new();
        let locks = world.session();
        for n in 0..locked {
            locks.claim(1, &(n as u64).to_be_bytes()).unwrap();
        }
        let (held, in_shards) = world.manager.shards.size();
        assert_eq!(held, locked);
        let bytes = in_shards + locks.member.held.lock().keys.len() * size_of::<u64>();
        let each = bytes as f64 / locked as f64;
        assert!(each <= 40.0, "{each} bytes a lock of {locked}");
        assert!(world.memory.used() >= locked * 40 - (64 << 10), "reserved: {}", world.memory.used());
        locks.release_all();
        assert_eq!(world.memory.used(), 0);
        let (_, left) = world.manager.shards.size();
        assert!(left <= in_shards / 8, "{left} bytes kept of {in_shards}");
        world.assert_empty();
    }
    let world = World::of_bytes(1 << 20);
    let locks = world.session();
    let mut got = 0_u64;
    let error = loop {
        match locks.row(1, &got.to_be_bytes(), RowMode::Update, Patience::Wait) {
            Ok(_) => got += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(error.state(), "53200");
    assert!((20_000..30_000).contains(&got), "{got}");
    // What failed is not held.
    assert_eq!(world.session().row(1, &got.to_be_bytes(), RowMode::Update, Patience::Skip).unwrap(), Got::Free);
    let error = locks.table(1, TableMode::AccessExclusive, Patience::Wait).unwrap_err();
    assert_eq!(error.state(), "53200");
    let error = locks.advisory(AdvisoryKey::one(1), true, true, true).unwrap_err();
    assert_eq!(error.state(), "53200");
    locks.release_all();
    world.assert_empty();
    assert_eq!(locks.table(1, TableMode::AccessExclusive, Patience::Wait).unwrap(), Got::Free);
}

#[test]
fn keys_that_look_alike_are_different_locks() {
    let shards = Shards::default();
    let ids: std::collections::HashSet<_> =
        (0..100_000_u32).flat_map(|n| [false, true].map(|claim| shards.key(&n.to_be_bytes(), claim))).collect();
    assert_eq!(ids.len(), 200_000);
}

/// Random numbers, the same for a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// What is locked, as far as those who lock know: written after a lock is got and before it is released, so that what is in it is held.
#[derive(Default)]
struct Model {
    rows: Mutex<HashMap<usize, Vec<(i32, RowMode)>>>,
    tables: Mutex<HashMap<u32, Vec<(i32, TableMode)>>>,
    claims: Mutex<HashMap<usize, i32>>,
}

impl Model {
    fn row(&self, key: usize, pid: i32, mode: RowMode) {
        let mut rows = self.rows.lock();
        let held = rows.entry(key).or_default();
        for (other, theirs) in held.iter().filter(|(other, _)| *other != pid) {
            assert!(!mode.conflicts(*theirs), "{pid} has row {key} in {mode:?}, {other} in {theirs:?}");
        }
        held.push((pid, mode));
    }
    fn table(&self, table: u32, pid: i32, mode: TableMode) {
        let mut tables = self.tables.lock();
        let held = tables.entry(table).or_default();
        for (other, theirs) in held.iter().filter(|(other, _)| *other != pid) {
            assert!(!mode.conflicts(*theirs), "{pid} has table {table} in {mode:?}, {other} in {theirs:?}");
        }
        held.push((pid, mode));
    }
    fn claim(&self, key: usize, pid: i32) {
        let before = self.claims.lock().insert(key, pid);
        assert!(before.is_none_or(|other| other == pid), "{pid} and {before:?} have claimed {key}");
    }
    fn forget(&self, pid: i32) {
        self.rows.lock().values_mut().for_each(|held| held.retain(|(other, _)| *other != pid));
        self.tables.lock().values_mut().for_each(|held| held.retain(|(other, _)| *other != pid));
        self.claims.lock().retain(|_, other| *other != pid);
    }
}

#[test]
fn random_transactions_of_many_threads_keep_to_the_conflict_tables() {
    const THREADS: u64 = 8;
    const TRANSACTIONS: usize = 400;
    let (world, model) = (World::new(), Model::default());
    let (deadlocks, timeouts, cancels, commits) = <[AtomicUsize; 4]>::default().into();
    let over = AtomicBool::new(false);
    let flags: Mutex<Vec<Arc<CancelFlag>>> = Mutex::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|seed| {
                let (world, model, flags) = (&world, &model, &flags);
                let (deadlocks, timeouts, cancels, commits) = (&deadlocks, &timeouts, &cancels, &commits);
                scope.spawn(move || {
                    let mut dice = Dice(seed * 7919 + 1);
                    let locks = world.session();
                    flags.lock().push(locks.member.cancel.clone());
                    for number in 0..TRANSACTIONS {
                        locks.member.cancel.reset();
                        locks.begin(number as u64);
                        let timeout = (dice.roll(4) == 0).then_some(Duration::from_millis(3));
                        locks.set_timeouts(timeout, Duration::from_millis(1));
                        match transaction(&locks, model, &mut dice) {
                            Ok(()) => commits.fetch_add(1, Ordering::Relaxed),
                            Err(e) => match e.state() {
                                "40P01" => deadlocks.fetch_add(1, Ordering::Relaxed),
                                "55P03" => timeouts.fetch_add(1, Ordering::Relaxed),
                                "57014" => cancels.fetch_add(1, Ordering::Relaxed),
                                other => panic!("{other}: {e}"),
                            },
                        };
                        model.forget(pid(&locks));
                        locks.release_all();
                    }
                })
            })
            .collect();
        // Somebody cancels at random: races of cancels with grants.
        scope.spawn(|| {
            let mut dice = Dice(42);
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_micros(300));
                let flag = { flags.lock().get(dice.roll(THREADS as usize)).cloned() };
                if let Some(flag) = flag {
                    flag.raise(SqlError::new("57014", "canceling statement due to user request"));
                }
            }
        });
        let failed = workers.into_iter().map(|w| w.join().is_err()).filter(|f| *f).count();
        over.store(true, Ordering::Relaxed);
        assert_eq!(failed, 0);
    });
    world.assert_empty();
    let [deadlocks, timeouts, cancels, commits] =
        [deadlocks, timeouts, cancels, commits].map(|n| n.load(Ordering::Relaxed));
    assert_eq!(deadlocks + timeouts + cancels + commits, THREADS as usize * TRANSACTIONS);
    // How often each happens is up to the machine.
    assert!(commits > 0 && deadlocks + timeouts > 0 && cancels > 0, "{commits} {deadlocks} {timeouts} {cancels}");
}

/// A few locks of a few things, in any order, with a savepoint in between.
fn transaction(locks: &Locks, model: &Model, dice: &mut Dice) -> Result<()> {
    let me = pid(locks);
    for _ in 0..1 + dice.roll(6) {
        let patience = [Patience::Wait, Patience::Wait, Patience::Skip][dice.roll(3)];
        match dice.roll(6) {
            0 | 1 => {
                let (key, mode) = (dice.roll(6), RowMode::ALL[dice.roll(4)]);
                if locks.row(1, &[key as u8], mode, patience)? != Got::Skipped {
                    model.row(key, me, mode);
                }
            }
            2 => {
                let key = dice.roll(6);
                locks.claim(1, &[key as u8])?;
                model.claim(key, me);
            }
            3 => {
                // Taken and given back at once: nobody may come to harm.
                let mark = locks.mark();
                locks.row(1, &[dice.roll(6) as u8], RowMode::ALL[dice.roll(4)], patience)?;
                locks.table(dice.roll(3) as u32, TableMode::ALL[dice.roll(8)], patience)?;
                locks.release_since(mark);
            }
            _ => {
                // Weak modes mostly, as in life.
                let mode = TableMode::ALL[if dice.roll(4) == 0 { dice.roll(8) } else { dice.roll(3) }];
                let table = dice.roll(3) as u32;
                if locks.table(table, mode, patience)? != Got::Skipped {
                    model.table(table, me, mode);
                }
            }
        }
        if dice.roll(3) == 0 {
            std::thread::yield_now();
        }
    }
    Ok(())
}

#[test]
fn no_wakeup_is_lost() {
    // Two hand a lock to and fro; a lost wakeup would leave both asleep for ever.
    let world = World::new();
    let rounds = 5_000;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let world = &world;
            scope.spawn(move || {
                let locks = world.session();
                locks.set_timeouts(Some(Duration::from_secs(20)), Duration::from_secs(100));
                for round in 0..rounds {
                    if round % 2 == 0 {
                        locks.claim(1, b"k").unwrap();
                    } else {
                        locks.table(1, TableMode::AccessExclusive, Patience::Wait).unwrap();
                    }
                    locks.release_all();
                }
            });
        }
    });
    world.assert_empty();
}

#[test]
fn the_fast_path_and_strong_locks_see_each_other() {
    let world = World::new();
    let (weak, strong, seen) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let locks = world.session();
            locks.set_timeouts(None, Duration::from_secs(100));
            for _ in 0..50 {
                locks.table(1, TableMode::ShareRowExclusive, Patience::Wait).unwrap();
                strong.store(1, Ordering::SeqCst);
                assert_eq!(weak.load(Ordering::SeqCst), 0);
                std::thread::yield_now();
                assert_eq!(weak.load(Ordering::SeqCst), 0);
                strong.store(0, Ordering::SeqCst);
                locks.release_all();
                seen.fetch_add(1, Ordering::SeqCst);
                std::thread::yield_now();
            }
        });
        for _ in 0..3 {
            scope.spawn(|| {
                let locks = world.session();
                locks.set_timeouts(None, Duration::from_secs(100));
                while seen.load(Ordering::SeqCst) < 50 {
                    locks.table(1, TableMode::RowExclusive, Patience::Wait).unwrap();
                    weak.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(strong.load(Ordering::SeqCst), 0);
                    weak.fetch_sub(1, Ordering::SeqCst);
                    locks.release_all();
                    std::thread::yield_now();
                }
            });
        }
    });
    world.assert_empty();
}

#[test]
fn more_tables_than_the_fast_path_has_places() {
    let world = World::new();
    let [one, two] = world.sessions();
    for table in 0..100 {
        assert_eq!(one.table(table, TableMode::AccessShare, Patience::Wait).unwrap(), Got::Free);
        assert_eq!(one.table(table, TableMode::AccessShare, Patience::Wait).unwrap(), Got::Had);
    }
    for table in 0..100 {
        assert_eq!(two.table(table, TableMode::AccessExclusive, Patience::Skip).unwrap(), Got::Skipped);
        assert_eq!(two.table(table, TableMode::Exclusive, Patience::Skip).unwrap(), Got::Free);
    }
    one.release_all();
    assert_eq!(two.table(99, TableMode::AccessExclusive, Patience::Skip).unwrap(), Got::Free);
    drop((one, two));
    world.assert_empty();
}

#[test]
fn a_look_at_a_long_queue_takes_steps_in_its_proportion() {
    // All want what one holds, every fifth to share it; the modes and the order do not make it a search of everyone for everyone.
    let waiting = 1000;
    let world = World::new();
    let holder = world.session();
    holder.row(7, b"k", RowMode::Update, Patience::Wait).unwrap();
    let object = row_object(&world, b"k");
    let waiters: Vec<Locks> = (0..waiting).map(|_| world.session()).collect();
    let mut queues = world.manager.queues.lock();
    for (at, locks) in waiters.iter().enumerate() {
        let mode = if at % 5 == 0 { RowMode::Share as u8 } else { RowMode::Update as u8 };
        let owner = locks.member.owner;
        let waiter = Waiter { owner, mode, table: 7, since: 0 };
        let asked = queues.ask(&world.manager.shards, &Request { object, owner, mode }, waiter, true).unwrap();
        assert!(matches!(asked, Asked::Queued(0)));
    }
    let last = waiters[waiting - 1].member.owner;
    let (found, steps) = deadlock::look_counted(&queues, &world.manager.shards, last);
    assert!(matches!(found, Found::Nothing), "{found:?}");
    assert!(steps >= waiting && steps <= 10 * waiting, "{steps} steps for {waiting} waiters");
    // The holder wants what the last has: now it is a circle, through all of the queue in the worst case.
    let (hers, owner, mode) = (Object::Table(9), holder.member.owner, TableMode::AccessExclusive as u8);
    world.manager.shards.part(hers).widen(hers).grant(&Request { object: hers, owner: last, mode });
    let waiter = Waiter { owner, mode, table: 0, since: 0 };
    let asked = queues.ask(&world.manager.shards, &Request { object: hers, owner, mode }, waiter, true).unwrap();
    assert!(matches!(asked, Asked::Queued(0)));
    for looks in [last, owner] {
        let (found, steps) = deadlock::look_counted(&queues, &world.manager.shards, looks);
        let Found::Deadlock(circle) = found else { panic!("{found:?}") };
        assert!(circle.len() == 2 && circle.iter().all(|e| e.is_hard) && circle[0].waiter == looks, "{circle:?}");
        assert!(steps <= 10 * waiting, "{steps} steps for {waiting} waiters");
    }
    // Everyone gives up; what others are blocked by is told each once.
    let blockers = deadlock::blockers(&queues, &world.manager.shards, last);
    assert_eq!(blockers.iter().map(|e| e.blocker).collect::<std::collections::HashSet<_>>().len(), waiting);
    assert_eq!((blockers.len(), blockers.iter().filter(|e| e.is_hard).count()), (waiting, 1));
    let mut woken = Woken::default();
    for owner in waiters.iter().map(|w| w.member.owner).chain([owner]) {
        queues.leave_queue(&world.manager.shards, owner, &mut woken);
    }
    queues.lower(&world.manager.shards, hers, last, Lower::To(0), &mut woken);
    drop(queues);
    drop((holder, waiters));
    world.assert_empty();
}

#[test]
fn orders_of_a_long_queue_are_found_in_few_steps() {
    // Two tables, one reader each; a long queue that wants all of either, then each reader wants the other table: soft edges, to be undone.
    let waiting = 300;
    let world = World::new();
    let readers = world.sessions::<2>();
    let waiters: Vec<Locks> = (0..2 * waiting).map(|_| world.session()).collect();
    let ask = |queues: &mut Queues, locks: &Locks, table: u32, mode: TableMode| {
        let (object, owner, mode) = (Object::Table(table), locks.member.owner, mode as u8);
        let waiter = Waiter { owner, mode, table: 0, since: 0 };
        queues.ask(&world.manager.shards, &Request { object, owner, mode }, waiter, true).unwrap()
    };
    let mut queues = world.manager.queues.lock();
    for (at, reader) in readers.iter().enumerate() {
        let asked = ask(&mut queues, reader, at as u32, TableMode::AccessShare);
        assert!(matches!(asked, Asked::Granted(0)));
    }
    for (at, locks) in waiters.iter().enumerate() {
        ask(&mut queues, locks, at as u32 % 2, TableMode::AccessExclusive);
    }
    for (at, reader) in readers.iter().enumerate() {
        let asked = ask(&mut queues, reader, 1 - at as u32, TableMode::AccessShare);
        assert!(matches!(asked, Asked::Queued(0)));
    }
    let start = readers[0].member.owner;
    let (found, steps) = deadlock::look_counted(&queues, &world.manager.shards, start);
    let Found::Orders(orders) = found else { panic!("{found:?}") };
    assert!(steps < 100 * waiting, "{steps} steps");
    let mut woken = Woken::default();
    for (object, order) in orders {
        assert_eq!(order.len(), waiting + 1);
        queues.reorder(object, &order);
        assert!(queues.queues[&object].iter().map(|w| w.owner).eq(order));
        queues.serve(&world.manager.shards, object, &mut woken);
    }
    assert!(readers.iter().any(|r| queues.waits(r.member.owner).is_none()), "one reader goes on");
    for owner in waiters.iter().chain(&readers).map(|w| w.member.owner) {
        queues.leave_queue(&world.manager.shards, owner, &mut woken);
    }
    for (at, reader) in readers.iter().enumerate() {
        for table in [at as u32, 1 - at as u32] {
            queues.lower(&world.manager.shards, Object::Table(table), reader.member.owner, Lower::To(0), &mut woken);
        }
    }
    drop(queues);
    drop((readers, waiters));
    world.assert_empty();
}

#[test]
fn a_hundred_deadlocks_each_end_at_once() {
    for _ in 0..100 {
        let world = World::new();
        let start = Instant::now();
        let victims = AtomicUsize::new(0);
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for me in 0..4_u8 {
                let (world, victims, barrier) = (&world, &victims, &barrier);
                scope.spawn(move || {
                    let locks = world.session();
                    locks.set_timeouts(None, Duration::from_millis(2));
                    locks.claim(1, &[me]).unwrap();
                    barrier.wait();
                    if let Err(e) = locks.claim(1, &[(me + 1) % 4]) {
                        assert_eq!(e.state(), "40P01");
                        victims.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(victims.load(Ordering::SeqCst), 1);
        assert!(start.elapsed() < Duration::from_secs(10));
        world.assert_empty();
    }
}

#[test]
fn owner_modes_are_what_was_asked_for() {
    let world = World::new();
    let [one, two] = world.sessions();
    one.row(1, b"k", RowMode::KeyShare, Patience::Wait).unwrap();
    two.row(1, b"k", RowMode::NoKeyUpdate, Patience::Wait).unwrap();
    let object = row_object(&world, b"k");
    assert_eq!(owner_modes(&world, object, &one), bit(RowMode::KeyShare as u8));
    assert_eq!(owner_modes(&world, object, &two), bit(RowMode::NoKeyUpdate as u8));
    two.release_all();
    assert_eq!(owner_modes(&world, object, &two), 0);
    assert_eq!(two.row(1, b"k", RowMode::Share, Patience::Skip).unwrap(), Got::Free);
}

/// What this thread has run for, in nanoseconds, whatever else the machine does; 0 where the system does not tell.
fn thread_nanos() -> u64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    told.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn each(what: &str, count: usize, start: (Instant, u64)) {
    let (wall, cpu) = (start.0.elapsed().as_nanos() as u64, thread_nanos() - start.1);
    println!("{what}: {} ns, {} ns of this thread", wall / count as u64, cpu / count as u64);
}

fn now() -> (Instant, u64) {
    (Instant::now(), thread_nanos())
}

/// What do locks cost that nobody waits for? Run with optimisation: `cargo test --release -p pgbee-sql --lib lock -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    const ROUNDS: usize = 1_000_000;
    let world = World::new();
    let locks = world.session();
    let start = now();
    for _ in 0..ROUNDS {
        locks.table(20_000, TableMode::AccessShare, Patience::Wait).unwrap();
        locks.release_all();
    }
    each("a table in a weak mode and its release", ROUNDS, start);
    let start = now();
    for _ in 0..ROUNDS {
        for table in 0..4 {
            locks.table(20_000 + table, TableMode::RowExclusive, Patience::Wait).unwrap();
        }
        locks.release_all();
    }
    each("each of four tables", ROUNDS * 4, start);
    locks.table(20_000, TableMode::AccessShare, Patience::Wait).unwrap();
    let start = now();
    for _ in 0..ROUNDS {
        locks.table(20_000, TableMode::AccessShare, Patience::Wait).unwrap();
    }
    each("a table held already", ROUNDS, start);
    let start = now();
    for n in 0..ROUNDS as u64 {
        locks.claim(20_000, &n.to_be_bytes()).unwrap();
        locks.release_all();
    }
    each("a claim and its release", ROUNDS, start);
    let start = now();
    for n in 0..ROUNDS as u64 {
        locks.claim(20_000, &n.to_be_bytes()).unwrap();
    }
    each("each of a million claims", ROUNDS, start);
    let start = now();
    locks.release_all();
    each("its release", ROUNDS, start);
    let start = now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let locks = world.session();
                for _ in 0..ROUNDS / 4 {
                    locks.table(20_000, TableMode::RowExclusive, Patience::Wait).unwrap();
                    locks.release_all();
                }
            });
        }
    });
    each("a table in a weak mode and its release, four threads at one table", ROUNDS, start);
    const CONTENDED: usize = 100_000;
    let start = now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let locks = world.session();
                for _ in 0..CONTENDED / 4 {
                    locks.claim(20_000, b"hot").unwrap();
                    locks.release_all();
                }
            });
        }
    });
    each("one key that four threads want all the time", CONTENDED, start);
}

#[test]
fn the_end_of_transactions_that_hold_a_table_is_waited_for() {
    let world = World::new();
    let [reader, writer, later, builder] = world.sessions();
    reader.table(7, TableMode::AccessShare, Patience::Wait).unwrap();
    writer.table(7, TableMode::RowExclusive, Patience::Wait).unwrap();
    let number = writer.member.virtual_transaction();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| builder.wait_for_holders(7, TableMode::Share));
        world.until_waiting(1);
        // Others see it, and nobody is behind it.
        assert_eq!(world.manager.blocking_pids(pid(&builder)), [pid(&writer)]);
        assert_eq!(builder.wait_event(), Some("virtualxid"));
        let status = world.manager.status();
        let of = |locks: &Locks, granted| {
            let mut lines = status.iter().filter(|s| s.pid == pid(locks) && s.granted == granted);
            let line = lines.find(|s| s.target == LockTarget::Virtual(number.clone())).unwrap();
            (line.mode, line.fast_path, line.wait_start.is_some())
        };
        assert_eq!(of(&builder, false), (TableMode::Share, false, true));
        assert_eq!(of(&writer, true), (TableMode::Exclusive, false, false));
        assert_eq!(later.table(7, TableMode::RowExclusive, Patience::Nowait).unwrap(), Got::Free);
        // A lock given back to a savepoint is not the end.
        writer.release_since(Mark::default());
        std::thread::sleep(SETTLE);
        assert!(!waiting.is_finished());
        writer.release_all();
        waiting.join().unwrap().unwrap();
    });
    // Its next transaction is another one; the one that came meanwhile still is there.
    writer.begin(201);
    writer.table(7, TableMode::RowExclusive, Patience::Wait).unwrap();
    later.release_all();
    writer.release_all();
    builder.wait_for_holders(7, TableMode::Share).unwrap();
    drop((reader, writer, later, builder));
    world.assert_empty();
}

#[test]
fn who_waits_for_a_transactions_end_is_part_of_circles_and_gives_up_in_time() {
    let world = World::new();
    let [builder, writer] = world.sessions();
    builder.table(8, TableMode::ShareUpdateExclusive, Patience::Wait).unwrap();
    writer.table(7, TableMode::RowExclusive, Patience::Wait).unwrap();
    let number = writer.member.virtual_transaction();
    builder.set_timeouts(Some(Duration::from_millis(5)), Duration::from_secs(10));
    let error = builder.wait_for_holders(7, TableMode::Share).unwrap_err();
    assert_eq!((error.state(), error.message()), (state::LOCK_NOT_AVAILABLE, LOCK_TIMEOUT));
    builder.set_timeouts(None, Duration::from_secs(10));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| builder.wait_for_holders(7, TableMode::Share));
        world.until_waiting(1);
        // Who closes the circle finds it.
        let error = writer.table(8, TableMode::Exclusive, Patience::Wait).unwrap_err();
        assert_eq!(error.state(), state::DEADLOCK_DETECTED);
        let expected = format!(
            "Process 2 waits for ExclusiveLock on relation 8 of database {}; blocked by process 1.\n\
             Process 1 waits for ShareLock on virtual transaction {number}; blocked by process 2.",
            crate::catalog::DATABASE_OID
        );
        assert_eq!(error.0.detail.as_deref(), Some(expected.as_str()));
        assert!(!waiting.is_finished());
        writer.release_all();
        waiting.join().unwrap().unwrap();
    });
    drop((builder, writer));
    world.assert_empty();
}
