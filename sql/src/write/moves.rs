//! Where rows went whose keys changed, for statements that saw them before.
//!
//! A row is known by its key, so an UPDATE of the key ends one entry and begins another. Who waited for the row under its old key has to go on with
//! the row under its new one, as PostgreSQL follows a row from version to version. What a key held may also be another row by then: one was deleted,
//! and one of the same key inserted. Both are remembered here, in memory, for as long as a statement runs whose snapshot is older than the change.
//!
//! ```text
//! statement enters with its snapshot's version   ----------- reads, locks, follows ----------- leaves
//! commit publishes (version, old key -> new key or none) while it still holds the rows' locks
//! ```
//!
//! Invariant: a step of version `v` is there whenever a statement is inside that entered with a version before `v`. Nobody registers when a snapshot
//! is taken; instead, who enters with a snapshot older than what was forgotten is refused and takes a newer one, which it may, having read nothing yet.
//!
//! Memory is bounded: a statement may stay for hours (a portal whose rows nobody fetches) while others move row after row. Beyond a bound all steps are let go, and who was
//! inside fails when it asks for one ([`Lost`]) instead of guessing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use pgbee_engine::Version;
use rustc_hash::FxHashMap;

/// Bytes of deleted rows that are remembered, of all transactions. Those beyond are not: see [`super::DELETED_BYTES_MAX`] for what that means.
const DELETED_BYTES_MAX: usize = 16 << 20;

/// Bytes of moved rows that are remembered, of all transactions. Beyond that statements that are older than the moves lose track.
const MOVED_BYTES_MAX: usize = 64 << 20;

/// What is asked for was let go: too much has moved since the statement began.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost;

/// A change of a row's identity: the key it had, and the one it has; none if it was deleted.
pub type Move = (Box<[u8]>, Option<Box<[u8]>>);

/// A moment among the moves: what happened after it is still to be followed. The start of a version's moves is `(version, u64::MAX)`.
pub type Moment = (u64, u64);

/// The moves of one database.
#[derive(Default)]
pub struct Moves {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Versions read by statements inside, each with how many.
    inside: BTreeMap<u64, usize>,
    steps: FxHashMap<Box<[u8]>, Vec<Step>>,
    /// The keys of all steps, oldest first, with their versions.
    order: VecDeque<(u64, Box<[u8]>)>,
    /// The newest version of which steps were forgotten.
    forgotten: u64,
    /// How many steps there were: orders those of one commit.
    turn: u64,
    /// What the steps of deleted rows take.
    deleted_bytes: usize,
    /// What those of moved rows take.
    moved_bytes: usize,
    /// Statements of an older version than this have lost track.
    void: u64,
}

/// What a step takes, about: the key it begins at is in two places.
fn step_bytes(from: &[u8], to: Option<&[u8]>) -> usize {
    2 * (from.len() + size_of::<(u64, Box<[u8]>)>()) + size_of::<Step>() + to.map_or(0, <[u8]>::len)
}

impl State {
    /// Takes note of a step's memory; false if there is no room for it.
    fn reserve(&mut self, from: &[u8], to: Option<&[u8]>) -> bool {
        let (bytes, max) = match to {
            None => (&mut self.deleted_bytes, DELETED_BYTES_MAX),
            Some(_) => (&mut self.moved_bytes, MOVED_BYTES_MAX),
        };
        let after = *bytes + step_bytes(from, to);
        if after <= max {
            *bytes = after;
        }
        after <= max
    }
    /// Lets all steps go. Whoever is inside with a version older than this one, the newest of them, has lost track.
    fn give_up(&mut self, version: u64) {
        let newest = self.order.iter().map(|(version, _)| *version).fold(version, u64::max);
        self.steps = FxHashMap::default();
        self.order = VecDeque::new();
        (self.deleted_bytes, self.moved_bytes) = (0, 0);
        (self.forgotten, self.void) = (self.forgotten.max(newest), newest);
        self.inside = self.inside.split_off(&newest);
    }
}

struct Step {
    at: Moment,
    to: Option<Box<[u8]>>,
}

/// A statement's stay: what moves after its snapshot is kept until it is dropped.
pub struct Stay {
    moves: Arc<Moves>,
    version: u64,
}

impl Moves {
    /// Begins a statement that reads this version; `None` if what moved since then may be forgotten already.
    pub fn enter(self: &Arc<Self>, version: Version) -> Option<Stay> {
        let mut state = self.state.lock();
        if state.forgotten > version.0 {
            return None;
        }
        *state.inside.entry(version.0).or_default() += 1;
        Some(Stay { moves: self.clone(), version: version.0 })
    }

    /// Tells what a commit moved, in the order it was done. To be called when the version can be read and before the rows' locks are given up.
    pub fn publish(&self, version: Version, moved: Vec<Move>) {
        if moved.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        if state.inside.first_key_value().is_none_or(|(oldest, _)| *oldest >= version.0) {
            state.forgotten = state.forgotten.max(version.0);
            return;
        }
        for (from, to) in moved {
            if !state.reserve(&from, to.as_deref()) {
                match to {
                    None => continue,
                    Some(_) => return state.give_up(version.0),
                }
            }
            state.turn += 1;
            let at = (version.0, state.turn);
            state.order.push_back((version.0, from.clone()));
            state.steps.entry(from).or_default().push(Step { at, to });
        }
    }

    /// What next became of the row that had this key at a moment: when, and the key it got then, if any. `None`: it is where it was.
    ///
    /// # Errors
    /// [`Lost`]: that is not known any more.
    pub fn follow(&self, key: &[u8], after: Moment) -> Result<Option<(Moment, Option<Vec<u8>>)>, Lost> {
        let state = self.state.lock();
        if after.0 < state.void {
            return Err(Lost);
        }
        let step = state.steps.get(key).and_then(|steps| steps.iter().find(|step| step.at > after));
        Ok(step.map(|step| (step.at, step.to.as_deref().map(<[u8]>::to_vec))))
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut state = self.moves.state.lock();
        let state = &mut *state;
        if let Some(count) = state.inside.get_mut(&self.version) {
            *count -= 1;
            if *count == 0 {
                state.inside.remove(&self.version);
            }
        }
        let oldest = state.inside.first_key_value().map_or(u64::MAX, |(version, _)| *version);
        while state.order.front().is_some_and(|(version, _)| *version <= oldest)
            && let Some((version, key)) = state.order.pop_front()
        {
            state.forgotten = state.forgotten.max(version);
            if let Some(steps) = state.steps.get_mut(&key) {
                for step in steps.extract_if(.., |step| step.at.0 <= oldest) {
                    let bytes = if step.to.is_none() { &mut state.deleted_bytes } else { &mut state.moved_bytes };
                    *bytes -= step_bytes(&key, step.to.as_deref());
                }
                if steps.is_empty() {
                    state.steps.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }
    fn moved(from: &str, to: &str) -> Move {
        (key(from), Some(key(to)))
    }

    #[test]
    fn a_row_is_followed_through_commits_and_within_one() {
        let moves = Arc::new(Moves::default());
        let stay = moves.enter(Version(10)).unwrap();
        moves.publish(Version(12), vec![moved("a", "tmp"), moved("b", "a"), moved("tmp", "b")]);
        moves.publish(Version(14), vec![moved("b", "c"), (key("a"), None)]);
        let mut at = (10, u64::MAX);
        let mut path = vec![];
        let mut now = b"a".to_vec();
        while let Some((moment, Some(to))) = moves.follow(&now, at).unwrap() {
            path.push(String::from_utf8(to.clone()).unwrap());
            (at, now) = (moment, to);
        }
        assert_eq!(path, ["tmp", "b", "c"]);
        // Who saw the row that was b before the swap finds it deleted.
        let (at, to) = moves.follow(b"b", (10, u64::MAX)).unwrap().unwrap();
        assert_eq!(to.as_deref(), Some(b"a".as_slice()));
        assert_eq!(moves.follow(b"a", at).unwrap().unwrap().1, None);
        // Who read version 12 sees only what came later.
        assert_eq!(moves.follow(b"b", (12, u64::MAX)).unwrap().unwrap().1.as_deref(), Some(b"c".as_slice()));
        drop(stay);
        assert!(moves.follow(b"a", (10, u64::MAX)).unwrap().is_none());
    }

    #[test]
    fn deleted_rows_are_remembered_in_bounded_memory() {
        let moves = Arc::new(Moves::default());
        let stay = moves.enter(Version(1)).unwrap();
        let name = |i: usize| -> Box<[u8]> { format!("{i:01000}").as_bytes().into() };
        for i in 0..20_000 {
            moves.publish(Version(2), vec![(name(i), None)]);
        }
        moves.publish(Version(3), vec![moved("a", "b")]);
        let bytes = moves.state.lock().deleted_bytes;
        assert!((DELETED_BYTES_MAX / 2..=DELETED_BYTES_MAX).contains(&bytes));
        assert!(
            moves.follow(&name(0), (1, u64::MAX)).unwrap().is_some()
                && moves.follow(&name(19_999), (1, u64::MAX)).unwrap().is_none()
        );
        assert!(moves.follow(b"a", (1, u64::MAX)).unwrap().is_some(), "where rows went is not forgotten");
        drop(stay);
        assert_eq!(moves.state.lock().deleted_bytes, 0);
        assert!(moves.state.lock().steps.is_empty());
    }

    #[test]
    fn nothing_is_kept_for_nobody_and_who_comes_late_is_refused() {
        let moves = Arc::new(Moves::default());
        moves.publish(Version(5), vec![moved("a", "b")]);
        assert!(moves.state.lock().steps.is_empty());
        assert!(moves.enter(Version(4)).is_none());
        let stay = moves.enter(Version(5)).unwrap();
        let other = moves.enter(Version(6)).unwrap();
        moves.publish(Version(6), vec![moved("b", "c")]);
        assert!(moves.follow(b"b", (5, u64::MAX)).unwrap().is_some());
        drop(stay);
        assert!(moves.state.lock().order.is_empty() && moves.state.lock().steps.is_empty());
        drop(other);
        assert!(moves.enter(Version(5)).is_none() && moves.enter(Version(6)).is_some());
    }

    #[test]
    fn who_stays_while_too_much_moves_loses_track_and_nobody_else() {
        let moves = Arc::new(Moves::default());
        let (old, new) = (moves.enter(Version(1)).unwrap(), moves.enter(Version(9)).unwrap());
        let name = |i: usize| -> Box<[u8]> { format!("{i:010000}").as_bytes().into() };
        for i in 0..3_000 {
            moves.publish(Version(2), vec![(name(i), Some(name(i + 1)))]);
            assert!(moves.state.lock().moved_bytes <= MOVED_BYTES_MAX);
        }
        assert_eq!(moves.follow(&name(0), (1, u64::MAX)), Err(Lost));
        assert_eq!(moves.follow(b"elsewhere", (1, u64::MAX)), Err(Lost), "it may have moved, too");
        moves.publish(Version(10), vec![moved("a", "b")]);
        assert!(moves.follow(b"a", (9, u64::MAX)).unwrap().is_some());
        assert!(moves.enter(Version(1)).is_none(), "who comes now takes a newer snapshot");
        drop(old);
        assert!(moves.follow(b"a", (9, u64::MAX)).unwrap().is_some());
        drop(new);
        assert_eq!(moves.state.lock().moved_bytes, 0);
    }
}
