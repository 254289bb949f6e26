//! Sequences: values given out once, whatever rolls back or crashes.
//!
//! What is stored is a state that lies ahead of the values given out: nextval takes from memory, and every so many calls a small commit of its own
//! writes where the next ones will have come to. That commit need not be on disk at once: the log keeps the order of commits, so a later
//! commit that uses a value is durable only together with it. A crash skips values, as in PostgreSQL; a clean shutdown writes back what
//! was not used.
//!
//! A sequence made or restarted by a transaction that is still open lives in that transaction's writes; the session sees to it.

use std::sync::Arc;

use parking_lot::Mutex;
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
    /// Writes the state.
    pub fn put(self, oid: u32, txn: &mut Transaction) -> pgbee_engine::Result<()> {
        let json = format!("{{\"last\":{},\"called\":{}}}", self.last, self.called);
        txn.put(keyspace::sequence(oid).to_vec(), json.into_bytes())
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
    live: Mutex<FxHashMap<u32, Arc<Mutex<Live>>>>,
}

/// A sequence in use.
#[derive(Default)]
struct Live {
    /// Where it stands; None before it was read.
    state: Option<SequenceState>,
    /// What is stored: a state ahead of `state`.
    stored: Option<SequenceState>,
    /// How many values are covered by what is stored.
    left: u32,
    /// How many to cover next time: more and more while they are asked for quickly.
    amount: u32,
    reserved_at: i64,
}

impl Sequences {
    const AMOUNT_MIN: u32 = 32;
    const AMOUNT_MAX: u32 = 8192;
    const QUICK_MICROS: i64 = 1_000_000;
    const ATTEMPTS: usize = 20;

    fn live(&self, oid: u32) -> Arc<Mutex<Live>> {
        self.live.lock().entry(oid).or_default().clone()
    }

    /// nextval.
    pub fn next(&self, sequence: &Sequence, database: &Database, now_micros: i64) -> Result<i64> {
        let live = self.live(sequence.oid);
        let mut live = live.lock();
        if live.left == 0 {
            live.reserve(sequence, database, now_micros)?;
        }
        let state = live.state.unwrap_or(SequenceState::fresh(sequence)).next(sequence)?;
        live.state = Some(state);
        live.left -= 1;
        Ok(state.last)
    }

    /// setval: at once and for good, whatever becomes of the transaction around it.
    pub fn set(&self, sequence: &Sequence, to: SequenceState, database: &Database, now_micros: i64) -> Result<()> {
        let live = self.live(sequence.oid);
        let mut live = live.lock();
        write(sequence.oid, database, now_micros, |_| Ok(to))?;
        *live = Live { state: Some(to), stored: Some(to), ..Live::default() };
        Ok(())
    }

    /// Forgets a sequence whose definition or stored state a transaction changed.
    pub fn forget(&self, oid: u32) {
        self.live.lock().remove(&oid);
    }

    /// Where a sequence stands, for those who look at it without using it.
    pub fn current(&self, sequence: &Sequence, database: &Database) -> Result<SequenceState> {
        let live = self.live(sequence.oid);
        let live = live.lock();
        match live.state {
            Some(state) => Ok(state),
            None => {
                SequenceState::parse(database.snapshot().get(&keyspace::sequence(sequence.oid))?.as_deref(), sequence)
            }
        }
    }

    /// Where a sequence stands, for a transaction that will write it: others' next value takes a commit, which conflicts with that transaction's.
    pub fn close(&self, sequence: &Sequence, database: &Database) -> Result<SequenceState> {
        let state = self.current(sequence, database)?;
        self.live(sequence.oid).lock().left = 0;
        Ok(state)
    }

    /// Writes back what was reserved and not used: before a clean end.
    pub fn flush(&self, database: &Database, now_micros: i64) -> Result<()> {
        let all: Vec<(u32, Arc<Mutex<Live>>)> = self.live.lock().drain().collect();
        for (oid, live) in all {
            let live = live.lock();
            if let (Some(state), Some(stored)) = (live.state, live.stored)
                && state != stored
            {
                write(oid, database, now_micros, |found| {
                    Ok(if found == Some(stored) { state } else { found.unwrap_or(state) })
                })?;
            }
        }
        Ok(())
    }
}

impl Live {
    /// Stores a state some values ahead.
    fn reserve(&mut self, sequence: &Sequence, database: &Database, now_micros: i64) -> Result<()> {
        let quick = self.reserved_at != 0 && now_micros - self.reserved_at < Sequences::QUICK_MICROS;
        self.amount = if quick { (self.amount * 2).min(Sequences::AMOUNT_MAX) } else { Sequences::AMOUNT_MIN };
        self.reserved_at = now_micros;
        let (amount, known, stored) = (self.amount, self.state, self.stored);
        let (mut from, mut left) = (None, 0);
        let ahead = write(sequence.oid, database, now_micros, |found| {
            // What someone else stored meanwhile (RESTART) counts for more than what is remembered.
            let start = match found {
                Some(found) if stored == Some(found) => known.unwrap_or(found),
                Some(found) => found,
                None => SequenceState::fresh(sequence),
            };
            let mut ahead = start.next(sequence)?;
            (from, left) = (Some(start), 1);
            while left < amount {
                let Ok(next) = ahead.next(sequence) else { break };
                ahead = next;
                left += 1;
            }
            Ok(ahead)
        })?;
        (self.state, self.stored, self.left) = (from, Some(ahead), left);
        Ok(())
    }
}

/// Stores what `f` makes of the stored state, in a commit of its own.
fn write(
    oid: u32,
    database: &Database,
    now_micros: i64,
    mut f: impl FnMut(Option<SequenceState>) -> Result<SequenceState>,
) -> Result<SequenceState> {
    let key = keyspace::sequence(oid);
    for attempt in 1.. {
        let mut txn = database.begin();
        let found = txn.get(&key)?.map(|b| serde_json::from_slice(&b)).transpose();
        let found = found.map_err(|e| {
            SqlError::new(state::DATA_CORRUPTED, format!("the state of sequence {oid} cannot be read: {e}"))
        })?;
        let to = f(found)?;
        to.put(oid, &mut txn)?;
        // Durable before a value is told: after a power cut none may come again.
        match database.commit(txn, CommitInfo { durability: Durability::Sync, ..CommitInfo::at(now_micros) }) {
            Ok(_) => return Ok(to),
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
