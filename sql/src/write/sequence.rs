//! Sequences: values given out once, whatever rolls back or crashes.
//!
//! What is stored is a state that lies ahead of the values given out: nextval takes from memory, and every so many calls a small commit of its own
//! writes where the next ones will have come to, on disk before any of them is told. It is made in the background while half of the values are left, so
//! that nobody waits for it; more and more are covered at once while they are asked for quickly. A crash skips values, as in PostgreSQL; a
//! clean shutdown writes back what was not used.
//!
//! ```text
//! given out          covered by what is stored
//! ... 41 42 43 | 44 45 46 47 48 49 ... 74 |      half of them used: 75 to 138 are stored meanwhile
//!        state ^                   stored ^
//! ```
//!
//! With CACHE a session takes several values at once and keeps them ([`Taken`]), until the sequence is changed.
//!
//! A sequence made or restarted by a transaction that is still open lives in that transaction's writes; the session sees to it.
//!
//! What must stay true:
//!
//! * a remembered state ([`Live`]) that was forgotten gives out nothing any more and stores nothing: whoever still has it takes up the new one;
//! * who writes a state in a transaction holds the sequence's lock and has [closed](Sequences::close) it before: nothing is stored in the background
//!   then, and nobody can ask for a value, before the transaction has ended and what was remembered is forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};
use pgbee_engine::storage::Durability;
use pgbee_engine::txn::{CommitInfo, Database, Transaction};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::catalog::Sequence;
use crate::codec::keyspace;
use crate::error::{Result, SqlError, state};

/// Where a sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceState {
    /// The value given last or, if none was given yet, the one to give first.
    pub last: i64,
    /// Whether `last` was given out.
    pub called: bool,
}

impl SequenceState {
    /// A sequence never used.
    pub fn fresh(sequence: &Sequence) -> SequenceState {
        SequenceState { last: sequence.start, called: false }
    }
    /// Writes the state in a transaction that keeps everyone else from the sequence.
    pub fn put(self, oid: u32, txn: &mut Transaction) -> pgbee_engine::Result<()> {
        txn.put_guarded(keyspace::sequence(oid).to_vec(), self.bytes())
    }
    fn bytes(self) -> Vec<u8> {
        format!("{{\"last\":{},\"called\":{}}}", self.last, self.called).into_bytes()
    }
    /// Reads a stored state.
    pub fn parse(value: Option<&[u8]>, sequence: &Sequence) -> Result<SequenceState> {
        match value {
            None => Ok(SequenceState::fresh(sequence)),
            Some(bytes) => serde_json::from_slice(bytes).map_err(|e| {
                SqlError::new(
                    state::DATA_CORRUPTED,
                    format!("the state of sequence \"{}\" cannot be read: {e}", sequence.name),
                )
            }),
        }
    }
    /// The state after the next value, which is its `last`.
    pub fn next(self, s: &Sequence) -> Result<SequenceState> {
        if !self.called {
            return Ok(SequenceState { last: self.last, called: true });
        }
        let next = self.last.checked_add(s.increment).filter(|v| (s.min..=s.max).contains(v));
        let last = match next {
            Some(value) => value,
            None if s.cycle => {
                if s.increment > 0 {
                    s.min
                } else {
                    s.max
                }
            }
            None => {
                let (word, limit) = if s.increment > 0 { ("maximum", s.max) } else { ("minimum", s.min) };
                let message = format!("nextval: reached {word} value of sequence \"{}\" ({limit})", s.name);
                return Err(SqlError::new(state::SEQUENCE_GENERATOR_LIMIT_EXCEEDED, message));
            }
        };
        Ok(SequenceState { last, called: true })
    }
    /// Refuses a value for setval that the sequence cannot have.
    pub fn check_value(value: i64, s: &Sequence) -> Result<()> {
        if (s.min..=s.max).contains(&value) {
            return Ok(());
        }
        let message =
            format!("setval: value {value} is out of bounds for sequence \"{}\" ({}..{})", s.name, s.min, s.max);
        Err(SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, message))
    }
}

/// The committed sequences of a database in use.
#[derive(Default)]
pub struct Sequences {
    live: Mutex<FxHashMap<u32, Arc<Live>>>,
}

/// Values in a row that were taken from a sequence and are not used yet: those of CACHE.
#[derive(Clone, Debug)]
pub struct Taken {
    sequence: Arc<Sequence>,
    state: SequenceState,
    left: u32,
    from: Arc<Live>,
}

impl Taken {
    /// The next value, if one is left and the sequence was not changed since.
    pub fn take(&mut self) -> Option<i64> {
        if self.left == 0 || self.from.is_void() {
            return None;
        }
        self.state = self.state.next(&self.sequence).ok()?;
        self.left -= 1;
        Some(self.state.last)
    }
}

/// A sequence in use.
#[derive(Debug, Default)]
struct Live {
    numbers: Mutex<Numbers>,
    /// What is stored was changed.
    stored: Condvar,
    /// The sequence was changed since: this is not where it stands. Set while `numbers` is locked, and never taken back.
    void: AtomicBool,
}

#[derive(Debug, Default)]
struct Numbers {
    /// Where it stands; None before it was read.
    state: Option<SequenceState>,
    /// What is stored: a state ahead of `state`.
    stored: Option<SequenceState>,
    /// How many values are covered by what is stored.
    left: u32,
    /// How many to cover next time: more and more while they are asked for quickly.
    amount: u32,
    reserved_at: i64,
    /// Someone is storing a state, without holding the lock.
    is_storing: bool,
}

/// More values that are covered.
struct Covered {
    /// Where the sequence stood before them.
    from: SequenceState,
    /// What is stored now.
    ahead: SequenceState,
    count: u32,
}

impl Sequences {
    const AMOUNT_MIN: u32 = 32;
    const AMOUNT_MAX: u32 = 8192;
    const QUICK_MICROS: i64 = 1_000_000;
    const ATTEMPTS: usize = 20;

    fn live(&self, oid: u32) -> Arc<Live> {
        self.live.lock().entry(oid).or_default().clone()
    }

    /// What is remembered of a sequence, locked; `settled`: while nobody is storing anything.
    fn with_live<R>(
        &self,
        oid: u32,
        settled: bool,
        f: impl FnOnce(&Arc<Live>, &mut MutexGuard<'_, Numbers>) -> R,
    ) -> R {
        loop {
            let live = self.live(oid);
            let mut numbers = if settled { live.settled() } else { live.numbers.lock() };
            // Forgotten between the two: there is another by now.
            if !live.is_void() {
                return f(&live, &mut numbers);
            }
        }
    }

    /// nextval: the next value, and with CACHE those after it, which are the session's to keep. Waits for the disk only when no value is covered by
    /// what is stored; before it comes to that, more are covered behind the caller's back.
    ///
    /// # Errors
    /// 2200H at the end of the sequence; those of a commit.
    pub fn next(&self, sequence: &Arc<Sequence>, database: &Arc<Database>, now_micros: i64) -> Result<(i64, Taken)> {
        loop {
            let taken = self.with_live(sequence.oid, false, |live, numbers| {
                if !live.cover_some(numbers, sequence, database, now_micros)? {
                    return Ok(None);
                }
                live.give(numbers, sequence, database, now_micros).map(Some)
            })?;
            if let Some(taken) = taken {
                return Ok(taken);
            }
        }
    }

    /// setval: at once and for good, whatever becomes of the transaction around it.
    ///
    /// # Errors
    /// Those of a commit.
    pub fn set(&self, sequence: &Sequence, to: SequenceState, database: &Database, now_micros: i64) -> Result<()> {
        self.with_live(sequence.oid, true, |live, numbers| {
            numbers.is_storing = true;
            let written = MutexGuard::unlocked(numbers, || write(sequence.oid, database, now_micros, |_| Ok(to)));
            // When it failed nobody knows what is stored: it will be read.
            let known = written.is_ok().then_some(to);
            **numbers = Numbers { state: known, stored: known, ..Numbers::default() };
            live.stored.notify_all();
            written.map(|_| ())
        })
    }

    /// Forgets a sequence whose definition or stored state a transaction changed, or that is gone: once it is committed, and before its lock is given up.
    pub fn forget(&self, oid: u32) {
        let Some(live) = self.live.lock().remove(&oid) else { return };
        // What is being stored is stored first, so that nothing comes after this.
        live.settled().end(&live);
    }

    /// Where a sequence stands, for those who look at it without using it.
    ///
    /// # Errors
    /// Those of reading.
    pub fn current(&self, sequence: &Sequence, database: &Database) -> Result<SequenceState> {
        let known = self.with_live(sequence.oid, false, |_, numbers| numbers.state);
        match known {
            Some(state) => Ok(state),
            None => {
                SequenceState::parse(database.snapshot().get(&keyspace::sequence(sequence.oid))?.as_deref(), sequence)
            }
        }
    }

    /// Nothing more is stored until a value is asked for, which nobody does while the caller's transaction has the sequence locked: it will write the
    /// state itself. If it is rolled back, what is remembered here goes on.
    pub fn close(&self, oid: u32) {
        let live = self.live.lock().get(&oid).cloned();
        if let Some(live) = live {
            live.settled().left = 0;
        }
    }

    /// Writes back what was reserved and not used: before a clean end.
    ///
    /// # Errors
    /// Those of a commit.
    pub fn flush(&self, database: &Database, now_micros: i64) -> Result<()> {
        let all: Vec<(u32, Arc<Live>)> = self.live.lock().drain().collect();
        for (oid, live) in all {
            let mut numbers = live.settled();
            let (state, stored) = (numbers.state, numbers.stored);
            // Whoever asks now reads what is written back here.
            numbers.end(&live);
            if state != stored
                && let Some(state) = state
            {
                // Where something else is stored, or nothing any more, there is nothing to be given back.
                write_if(oid, database, now_micros, |found| Ok((found == stored).then_some(state)))?;
            }
        }
        Ok(())
    }
}

impl Live {
    /// Whether it was forgotten.
    fn is_void(&self) -> bool {
        self.void.load(Ordering::Acquire)
    }
    /// Sees to it that a value is covered by what is stored; false if the sequence was forgotten meanwhile.
    fn cover_some(
        &self,
        numbers: &mut MutexGuard<'_, Numbers>,
        sequence: &Sequence,
        database: &Database,
        now_micros: i64,
    ) -> Result<bool> {
        while numbers.left == 0 {
            if self.is_void() {
                return Ok(false);
            }
            if numbers.is_storing {
                self.stored.wait(numbers);
                continue;
            }
            let (known, stored, amount) = numbers.begin_cover(now_micros);
            let covered = MutexGuard::unlocked(numbers, || {
                let mut made = None;
                write(sequence.oid, database, now_micros, |found| {
                    let covered = cover(found, known, stored, amount, sequence)?;
                    let ahead = covered.ahead;
                    made = Some(covered);
                    Ok(ahead)
                })?;
                made.ok_or_else(|| SqlError::internal("a sequence was stored without a state"))
            });
            numbers.is_storing = false;
            self.stored.notify_all();
            let Covered { from, ahead, count } = covered?;
            (numbers.state, numbers.stored, numbers.left) = (Some(from), Some(ahead), count);
        }
        Ok(true)
    }
    /// Gives out a value that is covered, and those after it that CACHE wants.
    fn give(
        self: &Arc<Self>,
        numbers: &mut Numbers,
        sequence: &Arc<Sequence>,
        database: &Arc<Database>,
        now_micros: i64,
    ) -> Result<(i64, Taken)> {
        let before = numbers.state.unwrap_or(SequenceState::fresh(sequence));
        let first = before.next(sequence)?;
        let most = u32::try_from(sequence.cache.max(1)).unwrap_or(u32::MAX).min(numbers.left);
        let (mut last, mut count) = (first, 1);
        while count < most
            && let Ok(next) = last.next(sequence)
        {
            (last, count) = (next, count + 1);
        }
        numbers.state = Some(last);
        numbers.left -= count;
        if numbers.left <= numbers.amount / 2 && numbers.left > 0 && !numbers.is_storing {
            numbers.cover_more(self, sequence, database, now_micros);
        }
        Ok((first.last, Taken { sequence: sequence.clone(), state: first, left: count - 1, from: self.clone() }))
    }
    /// Locked while nobody is storing anything.
    fn settled(&self) -> MutexGuard<'_, Numbers> {
        let mut numbers = self.numbers.lock();
        self.stored.wait_while(&mut numbers, |numbers| numbers.is_storing);
        numbers
    }
}

impl Numbers {
    /// Nothing more comes of it.
    fn end(&mut self, live: &Live) {
        *self = Numbers::default();
        live.void.store(true, Ordering::Release);
    }
    /// Begins to store a state further ahead: where the sequence stands, what is stored, and how many values to cover.
    fn begin_cover(&mut self, now_micros: i64) -> (Option<SequenceState>, Option<SequenceState>, u32) {
        let quick = self.reserved_at != 0 && now_micros - self.reserved_at < Sequences::QUICK_MICROS;
        self.amount = if quick { (self.amount * 2).min(Sequences::AMOUNT_MAX) } else { Sequences::AMOUNT_MIN };
        self.reserved_at = now_micros;
        self.is_storing = true;
        (self.state, self.stored, self.amount)
    }

    /// Has more values covered by a thread of its own, while those that are left are given out. Threads are as many as sequences at most.
    fn cover_more(&mut self, live: &Arc<Live>, sequence: &Arc<Sequence>, database: &Arc<Database>, now_micros: i64) {
        let (_, stored, amount) = self.begin_cover(now_micros);
        let (live, sequence, database) = (live.clone(), sequence.clone(), database.clone());
        let work = move || {
            let mut count = 0;
            let written = write(sequence.oid, &database, now_micros, |found| {
                if found != stored || found.is_none() {
                    // Someone else stored a state (RESTART): what is left here is void.
                    return Err(SqlError::internal("a sequence was changed meanwhile"));
                }
                let covered = cover(found, stored, stored, amount, &sequence)?;
                count = covered.count;
                Ok(covered.ahead)
            });
            let mut numbers = live.numbers.lock();
            match written {
                Ok(ahead) => {
                    numbers.stored = Some(ahead);
                    numbers.left += count;
                }
                // At the end of the sequence, what is left is left.
                Err(error) if error.state() == state::SEQUENCE_GENERATOR_LIMIT_EXCEEDED => numbers.amount = 0,
                // Whoever asks next reads what is stored, waits for the disk, and is told what is wrong with it.
                Err(_) => (numbers.left, numbers.state, numbers.stored) = (0, None, None),
            }
            numbers.is_storing = false;
            live.stored.notify_all();
        };
        if let Err(error) = std::thread::Builder::new().name("sequence".into()).spawn(work) {
            tracing::warn!(%error, "a sequence is not filled ahead");
            self.is_storing = false;
        }
    }
}

/// A state some values ahead of what was found stored.
fn cover(
    found: Option<SequenceState>,
    known: Option<SequenceState>,
    stored: Option<SequenceState>,
    amount: u32,
    sequence: &Sequence,
) -> Result<Covered> {
    // What someone else stored meanwhile (RESTART) counts for more than what is remembered.
    let from = match found {
        Some(found) if stored == Some(found) => known.unwrap_or(found),
        Some(found) => found,
        None => SequenceState::fresh(sequence),
    };
    let (mut ahead, mut count) = (from.next(sequence)?, 1);
    while count < amount
        && let Ok(next) = ahead.next(sequence)
    {
        (ahead, count) = (next, count + 1);
    }
    Ok(Covered { from, ahead, count })
}

/// Stores what `f` makes of the stored state, in a commit of its own.
fn write(
    oid: u32,
    database: &Database,
    now_micros: i64,
    mut f: impl FnMut(Option<SequenceState>) -> Result<SequenceState>,
) -> Result<SequenceState> {
    let written = write_if(oid, database, now_micros, |found| f(found).map(Some))?;
    written.ok_or_else(|| SqlError::internal("a sequence was not written"))
}

/// Stores what `f` makes of the stored state, if it makes something of it, in a commit of its own.
fn write_if(
    oid: u32,
    database: &Database,
    now_micros: i64,
    mut f: impl FnMut(Option<SequenceState>) -> Result<Option<SequenceState>>,
) -> Result<Option<SequenceState>> {
    let key = keyspace::sequence(oid);
    for attempt in 1.. {
        let mut txn = database.begin();
        let found = txn.get(&key)?.map(|b| serde_json::from_slice(&b)).transpose();
        let found = found.map_err(|e| {
            SqlError::new(state::DATA_CORRUPTED, format!("the state of sequence {oid} cannot be read: {e}"))
        })?;
        let Some(to) = f(found)? else { return Ok(None) };
        // Not guarded by a lock: what someone else stores meanwhile is found again, and looked at.
        txn.put(key.to_vec(), to.bytes())?;
        // Durable before a value is told: after a power cut none may come again.
        match database.commit(txn, CommitInfo { durability: Durability::Sync, ..CommitInfo::at(now_micros) }) {
            Ok(_) => return Ok(Some(to)),
            Err(pgbee_engine::Error::Conflict { .. }) if attempt < Sequences::ATTEMPTS => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(SqlError::internal("a sequence could not be written"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(increment: i64, min: i64, max: i64, cycle: bool) -> Sequence {
        let start = if increment > 0 { min } else { max };
        Sequence {
            oid: 1,
            schema: 2200,
            name: "s".into(),
            ty: 20,
            start,
            increment,
            min,
            max,
            cycle,
            cache: 1,
            owner: None,
            comment: None,
        }
    }

    fn values(s: &Sequence, count: usize) -> Vec<Result<i64>> {
        let mut state = SequenceState::fresh(s);
        let step = |_| {
            state = state.next(s)?;
            Ok(state.last)
        };
        (0..count).map(step).collect()
    }

    fn database() -> Arc<Database> {
        use pgbee_engine::{bee::Cache, corestore, storage::memory::Memory, txn::Options};
        let store = corestore::Store::open(Arc::new(Memory::new()), corestore::Options::default()).unwrap();
        Database::open(store.get_by_name("db").unwrap(), Cache::new(1 << 20), Options::default()).unwrap()
    }

    /// Values of sixteen threads while others crash, look and set: each once, and after a crash none that was told before.
    #[test]
    fn no_value_comes_twice_whoever_asks() {
        let database = database();
        let (sequence, mut told) = (Arc::new(sequence(1, 1, i64::MAX, false)), std::collections::HashSet::new());
        for _ in 0..3 {
            // What was in memory only is gone, as after a crash.
            let sequences = Sequences::default();
            let values: Vec<i64> = std::thread::scope(|scope| {
                let take = || (0..500).map(|_| sequences.next(&sequence, &database, 7).unwrap().0).collect::<Vec<_>>();
                let threads: Vec<_> = (0..16).map(|_| scope.spawn(take)).collect();
                threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
            });
            assert_eq!(values.len(), 8000);
            for value in values {
                assert!(told.insert(value), "{value} came twice");
            }
            // Nobody may be storing when the next ones begin: a crash would have stopped them.
            drop(sequences.live(1).settled());
        }
        let last = *told.iter().max().unwrap();
        assert!(last < 24_000 + 3 * 2 * i64::from(Sequences::AMOUNT_MAX), "{last}: too many are skipped");
        let sequences = Sequences::default();
        sequences.set(&sequence, SequenceState { last: 5, called: true }, &database, 7).unwrap();
        assert_eq!(sequences.next(&sequence, &database, 7).unwrap().0, 6);
        sequences.flush(&database, 8).unwrap();
        assert_eq!(Sequences::default().next(&sequence, &database, 9).unwrap().0, 7, "a clean end skips nothing");
    }

    #[test]
    fn a_session_keeps_what_it_took_until_the_sequence_is_changed() {
        let (database, sequences) = (database(), Sequences::default());
        let cached = Arc::new(Sequence { cache: 10, ..sequence(1, 1, 25, false) });
        let (first, mut a) = sequences.next(&cached, &database, 7).unwrap();
        let (second, mut b) = sequences.next(&cached, &database, 7).unwrap();
        assert_eq!((first, second), (1, 11));
        assert_eq!((a.take(), b.take(), a.take()), (Some(2), Some(12), Some(3)));
        let (third, mut c) = sequences.next(&cached, &database, 7).unwrap();
        assert_eq!((third, c.left), (21, 4), "up to the end");
        assert_eq!(sequences.next(&cached, &database, 7).err().map(|e| e.state()), Some("2200H"));
        assert_eq!(c.take(), Some(22));
        sequences.forget(1);
        assert_eq!((a.take(), c.take()), (None, None));
    }

    #[test]
    fn a_state_stored_by_another_counts_for_more_than_what_is_left() {
        let (database, sequences, sequence) = (database(), Sequences::default(), Arc::new(sequence(1, 1, 1000, false)));
        for expected in 1..=10 {
            assert_eq!(sequences.next(&sequence, &database, 7).unwrap().0, expected);
        }
        drop(sequences.live(1).settled());
        write(1, &database, 7, |_| Ok(SequenceState { last: 500, called: false })).unwrap();
        sequences.forget(1);
        assert_eq!(sequences.next(&sequence, &database, 7).unwrap().0, 500);
    }

    /// Restarted again and again, half of the times in vain, among those who ask: after each restart come its values from the first on, each once.
    #[test]
    fn a_restart_among_those_who_ask_brings_no_old_value_and_skips_none() {
        use std::sync::atomic::AtomicI64;
        const ROOM: i64 = 1_000_000_000;
        let (database, sequences, sequence) =
            (database(), Sequences::default(), Arc::new(sequence(1, 1, i64::MAX, false)));
        // The sequence's lock: shared by those who ask, held alone by who restarts.
        let lock = parking_lot::RwLock::new(());
        let (base, over) = (AtomicI64::new(1), AtomicBool::new(false));
        let mut given: Vec<(i64, i64)> = std::thread::scope(|scope| {
            let ask = || {
                let mut given = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let _shared = lock.read();
                    let value = sequences.next(&sequence, &database, 7).unwrap().0;
                    given.push((base.load(Ordering::Relaxed), value));
                }
                given
            };
            let asking: Vec<_> = (0..3).map(|_| scope.spawn(ask)).collect();
            for round in 1..60 {
                std::thread::sleep(std::time::Duration::from_millis(round as u64 % 4));
                let _alone = lock.write();
                sequences.close(1);
                let mut txn = database.begin();
                SequenceState { last: round * ROOM, called: false }.put(1, &mut txn).unwrap();
                if round % 2 == 0 {
                    database.commit(txn, CommitInfo::at(7)).unwrap();
                    sequences.forget(1);
                    base.store(round * ROOM, Ordering::Relaxed);
                }
            }
            over.store(true, Ordering::Relaxed);
            asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        given.sort_unstable();
        for run in given.chunk_by(|a, b| a.0 == b.0) {
            let expected: Vec<(i64, i64)> = (0..run.len() as i64).map(|n| (run[0].0, run[0].0 + n)).collect();
            assert_eq!(run, expected);
        }
        // What is written back at a clean end is where it stands, whoever still has what was remembered.
        let (last, live) = (given.last().unwrap().1, sequences.live(1));
        sequences.flush(&database, 7).unwrap();
        assert!(live.is_void());
        assert_eq!(sequences.next(&sequence, &database, 7).unwrap().0, last + 1);
        sequences.forget(1);
        let mut txn = database.begin();
        txn.delete_guarded(keyspace::sequence(1).to_vec()).unwrap();
        database.commit(txn, CommitInfo::at(7)).unwrap();
        sequences.flush(&database, 7).unwrap();
        assert_eq!(database.snapshot().get(&keyspace::sequence(1)).unwrap(), None, "what is gone stays gone");
    }

    #[test]
    fn values_run_to_the_limit_or_around() {
        let up: Vec<_> = values(&sequence(2, 1, 5, true), 5).into_iter().map(|v| v.unwrap()).collect();
        assert_eq!(up, [1, 3, 5, 1, 3]);
        let down: Vec<_> = values(&sequence(-1, -2, -1, true), 3).into_iter().map(|v| v.unwrap()).collect();
        assert_eq!(down, [-1, -2, -1]);
        let end = values(&sequence(1, 1, 2, false), 3).pop().unwrap().unwrap_err();
        assert_eq!((end.state(), end.message()), ("2200H", "nextval: reached maximum value of sequence \"s\" (2)"));
        assert!(values(&sequence(1, i64::MAX - 1, i64::MAX, false), 3)[2].is_err());
    }
}
