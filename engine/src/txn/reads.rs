//! What a transaction has read, remembered so that its commit can ask whether it is still so.
//!
//! Who wants SERIALIZABLE reads through a [`ReadView`](super::ReadView) that records: each key looked up, found or
//! not, and each range as far as it was read. A scan that stopped early relied on nothing behind the last key it
//! was given; one that came to its end relied on there being no more.
//!
//! ```text
//! range asked    [c ................................ p)
//! entries           d    f    g    k    n
//! read              d    f    g                          a LIMIT was reached
//! relied on      [c ......... g]                         a new h is no conflict, a new e is
//! ```
//!
//! What must stay true:
//!
//! * everything read and not written by the transaction itself is covered, also what was not there;
//! * memory is bounded by [`Relied::BYTES_MAX`], whatever is read: then neighbours become one range that covers
//!   them, which can only find more conflicts;
//! * what was found unchanged up to a version need not be compared with older ones again.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::mem;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::bee::{Direction, KeyRange};
use crate::position::Version;

/// So many neighbouring keys become one range when they take too much memory.
const KEYS_A_RANGE: usize = 64;
/// What a key or range costs beside its bytes, about.
const OVERHEAD_BYTES: usize = 96;
/// So many ranges, those added last, are looked at when one is added: it may be known, or continue one.
const RANGES_COMPARED: usize = 8;

/// What a transaction has read, shared by it, its views, and their scans. Cheap to clone: all clones are one.
#[derive(Clone, Default)]
pub struct Reads {
    relied: Arc<Mutex<Relied>>,
}

impl Reads {
    /// Nothing read yet.
    pub fn new() -> Reads {
        Reads::default()
    }

    /// A key was looked up at a version.
    pub fn key(&self, key: Bytes, seen: Version) {
        self.relied.lock().key(key, seen);
    }

    /// A range was read at a version, to its end.
    pub fn range(&self, range: KeyRange, seen: Version) {
        self.relied.lock().range(range, seen);
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.relied.lock().is_empty()
    }

    /// Whether both are clones of one.
    pub(crate) fn is_same(&self, other: &Reads) -> bool {
        Arc::ptr_eq(&self.relied, &other.relied)
    }

    /// How many keys and ranges are remembered; a scan is about one.
    pub fn len(&self) -> usize {
        self.relied.lock().len()
    }

    /// Works with what is remembered.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Relied) -> R) -> R {
        f(&mut self.relied.lock())
    }
}

/// How far a scan has read, told to [`Reads`] as it goes on: a cursor may be open when its transaction commits.
pub(crate) struct Recorder {
    reads: Reads,
    seen: Version,
    direction: Direction,
    /// What is not read yet; `None` once all is.
    left: Option<KeyRange>,
}

impl Recorder {
    pub fn new(reads: Reads, range: KeyRange, direction: Direction, seen: Version) -> Recorder {
        Recorder { reads, seen, direction, left: Some(range) }
    }

    /// Everything up to this key was read.
    pub fn reached(&mut self, key: &Bytes) {
        let Some(left) = &mut self.left else { return };
        let read = match self.direction {
            Direction::Forward => {
                let start = mem::replace(&mut left.start, Bound::Excluded(key.clone()));
                KeyRange { start, end: Bound::Included(key.clone()) }
            }
            Direction::Backward => {
                let end = mem::replace(&mut left.end, Bound::Excluded(key.clone()));
                KeyRange { start: Bound::Included(key.clone()), end }
            }
        };
        self.reads.range(read, self.seen);
    }

    /// There is nothing more in the range.
    pub fn ended(&mut self) {
        if let Some(left) = self.left.take() {
            self.reads.range(left, self.seen);
        }
    }
}

/// What a transaction relied on without writing it.
#[derive(Default)]
pub(crate) struct Relied {
    /// With the oldest version each was seen at.
    keys: BTreeMap<Bytes, Version>,
    ranges: Vec<(KeyRange, Version)>,
    bytes: usize,
}

impl Relied {
    /// Memory it takes at most, about.
    pub const BYTES_MAX: usize = 8 << 20;

    pub fn key(&mut self, key: Bytes, seen: Version) {
        let bytes = key.len() + OVERHEAD_BYTES;
        let before = self.keys.len();
        // Not always the first: some reads are of a newer version than the transaction's own.
        self.keys.entry(key).and_modify(|known| *known = seen.min(*known)).or_insert(seen);
        if self.keys.len() > before {
            self.bytes += bytes;
            self.shrink();
        }
    }

    pub fn range(&mut self, range: KeyRange, seen: Version) {
        if range.is_empty() {
            return;
        }
        for (known, known_seen) in self.ranges.iter_mut().rev().take(RANGES_COMPARED) {
            if *known == range {
                *known_seen = seen.min(*known_seen);
                return;
            }
            let before = bound_bytes(known);
            if join(known, &range) {
                self.bytes = self.bytes + bound_bytes(known) - before;
                *known_seen = seen.min(*known_seen);
                return;
            }
        }
        self.bytes += bound_bytes(&range) + OVERHEAD_BYTES;
        self.ranges.push((range, seen));
        self.shrink();
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty()
    }

    /// How many keys and ranges are remembered.
    pub fn len(&self) -> usize {
        self.keys.len() + self.ranges.len()
    }

    pub fn keys(&self) -> impl Iterator<Item = (&Bytes, Version)> {
        self.keys.iter().map(|(key, seen)| (key, *seen))
    }

    pub fn ranges(&self) -> impl Iterator<Item = (&KeyRange, Version)> {
        self.ranges.iter().map(|(range, seen)| (range, *seen))
    }

    /// The oldest version anything was seen at.
    pub fn oldest(&self) -> Option<Version> {
        self.keys.values().copied().chain(self.ranges.iter().map(|(_, seen)| *seen)).min()
    }

    /// What is covered, to ask of many keys.
    pub fn covered(&self) -> Covered<'_> {
        let mut ranges: Vec<KeyRange> = self.ranges.iter().map(|(range, _)| range.clone()).collect();
        ranges.sort_by(|a, b| compare_starts(&a.start, &b.start));
        ranges.dedup_by(|next, last| {
            let is_one = begins_inside(&next.start, &last.end);
            if is_one && ends_last(&next.end, &last.end) {
                last.end = next.end.clone();
            }
            is_one
        });
        Covered { keys: &self.keys, ranges }
    }

    /// Everything was found to be at this version as it was seen: only what comes after it matters from now on.
    pub fn unchanged_until(&mut self, version: Version) {
        let later = |seen: &mut Version| *seen = version.max(*seen);
        self.keys.values_mut().for_each(later);
        self.ranges.iter_mut().for_each(|(_, seen)| later(seen));
    }

    /// Makes it smaller if it has become too large.
    fn shrink(&mut self) {
        if self.bytes <= Relied::BYTES_MAX {
            return;
        }
        let keys: Vec<(Bytes, Version)> = mem::take(&mut self.keys).into_iter().collect();
        for neighbours in keys.chunks(KEYS_A_RANGE) {
            let [(first, _), .., (last, _)] = neighbours else {
                self.ranges.extend(neighbours.iter().map(|(key, seen)| (KeyRange::point(key), *seen)));
                continue;
            };
            let oldest = neighbours.iter().map(|(_, seen)| *seen).min().unwrap_or_default();
            let range = KeyRange { start: Bound::Included(first.clone()), end: Bound::Included(last.clone()) };
            self.ranges.push((range, oldest));
        }
        self.count();
        if self.bytes <= Relied::BYTES_MAX / 2 {
            return;
        }
        self.ranges.sort_by(|(a, _), (b, _)| compare_starts(&a.start, &b.start));
        while self.bytes > Relied::BYTES_MAX / 2 && self.ranges.len() > 1 {
            let pairs = self.ranges.chunks(2).map(|pair| match pair {
                [(a, a_seen), (b, b_seen)] => (cover(a, b), *a_seen.min(b_seen)),
                rest => rest[0].clone(),
            });
            self.ranges = pairs.collect();
            self.count();
        }
    }

    fn count(&mut self) {
        let ranges = self.ranges.iter().map(|(range, _)| bound_bytes(range) + OVERHEAD_BYTES).sum::<usize>();
        self.bytes = ranges + self.keys.keys().map(|key| key.len() + OVERHEAD_BYTES).sum::<usize>();
    }
}

/// All keys and ranges that were read: a key is found in it by two searches, however many there are.
pub(crate) struct Covered<'a> {
    keys: &'a BTreeMap<Bytes, Version>,
    /// Apart from each other, in order.
    ranges: Vec<KeyRange>,
}

impl Covered<'_> {
    /// Whether it has a key.
    pub fn contains(&self, key: &[u8]) -> bool {
        let begun = self.ranges.partition_point(|range| match &range.start {
            Bound::Included(start) => &start[..] <= key,
            Bound::Excluded(start) => &start[..] < key,
            Bound::Unbounded => true,
        });
        self.keys.contains_key(key) || begun > 0 && self.ranges[begun - 1].contains(key)
    }
}

/// Whether there is nothing between the end of a range and the start of one behind it.
fn begins_inside(start: &Bound<Bytes>, end: &Bound<Bytes>) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Excluded(start), Bound::Excluded(end)) => start < end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => start <= end,
    }
}

/// Makes the first range both, if the second begins where it ends or ends where it begins.
fn join(known: &mut KeyRange, range: &KeyRange) -> bool {
    let meet = |end: &Bound<Bytes>, start: &Bound<Bytes>| match (end, start) {
        (Bound::Included(a), Bound::Excluded(b)) | (Bound::Excluded(a), Bound::Included(b)) => a == b,
        _ => false,
    };
    if meet(&known.end, &range.start) {
        known.end = range.end.clone();
    } else if meet(&range.end, &known.start) {
        known.start = range.start.clone();
    } else {
        return false;
    }
    true
}

/// The range from where the first of two begins to where the last ends.
fn cover(a: &KeyRange, b: &KeyRange) -> KeyRange {
    let start = if compare_starts(&a.start, &b.start).is_le() { &a.start } else { &b.start };
    let end = if ends_last(&a.end, &b.end) { &a.end } else { &b.end };
    KeyRange { start: start.clone(), end: end.clone() }
}

fn bound_bytes(range: &KeyRange) -> usize {
    let bytes = |bound: &Bound<Bytes>| match bound {
        Bound::Included(key) | Bound::Excluded(key) => key.len(),
        Bound::Unbounded => 0,
    };
    bytes(&range.start) + bytes(&range.end)
}

fn compare_starts(a: &Bound<Bytes>, b: &Bound<Bytes>) -> Ordering {
    // Of two that begin at one key, the one with the key in it begins first.
    let place = |bound: &Bound<Bytes>| match bound {
        Bound::Unbounded => None,
        Bound::Included(key) => Some((key.clone(), false)),
        Bound::Excluded(key) => Some((key.clone(), true)),
    };
    place(a).cmp(&place(b))
}

fn ends_last(a: &Bound<Bytes>, b: &Bound<Bytes>) -> bool {
    match (a, b) {
        (Bound::Unbounded, _) => true,
        (_, Bound::Unbounded) => false,
        (Bound::Included(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
        (Bound::Excluded(a), Bound::Included(b)) => a > b,
        (Bound::Excluded(a), Bound::Excluded(b)) => a >= b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn an_empty_or_known_range_costs_nothing() {
        let mut relied = Relied::default();
        let range = |start, end| KeyRange { start: Bound::Included(start), end: Bound::Excluded(end) };
        relied.range(range(bytes("b"), bytes("a")), Version(2));
        relied.range(range(bytes("a"), bytes("a")), Version(2));
        assert!(relied.is_empty());
        relied.range(range(bytes("a"), bytes("b")), Version(2));
        relied.range(range(bytes("a"), bytes("b")), Version(4));
        assert_eq!(relied.ranges, [(range(bytes("a"), bytes("b")), Version(2))]);
    }

    /// What was looked at in the newest version first and then in the transaction's own is relied on since the latter.
    #[test]
    fn the_oldest_version_that_was_seen_counts() {
        let mut relied = Relied::default();
        let range = KeyRange::half_open("a", "b");
        for seen in [Version(9), Version(3), Version(7)] {
            relied.key(bytes("k"), seen);
            relied.range(range.clone(), seen);
        }
        assert_eq!(relied.keys().collect::<Vec<_>>(), [(&bytes("k"), Version(3))]);
        assert_eq!(relied.ranges, [(range, Version(3))]);
    }

    #[test]
    fn a_scan_is_one_range_as_far_as_it_came() {
        for direction in [Direction::Forward, Direction::Backward] {
            let reads = Reads::new();
            let mut recorder = Recorder::new(reads.clone(), KeyRange::half_open("c", "p"), direction, Version(3));
            assert!(reads.is_empty(), "nothing was read yet");
            let mut found = ["d", "f", "g"];
            if direction == Direction::Backward {
                found.reverse();
            }
            found.into_iter().for_each(|key| recorder.reached(&bytes(key)));
            let covered = |key: &str| reads.with(|relied| relied.covered().contains(key.as_bytes()));
            assert_eq!(reads.with(|relied| relied.len()), 1);
            let (inside, outside) = match direction {
                Direction::Forward => (["c", "e", "g"], ["b", "h", "o"]),
                Direction::Backward => (["d", "e", "o"], ["c", "p", "b"]),
            };
            assert!(inside.into_iter().all(covered) && !outside.into_iter().any(covered), "{direction:?}");
            recorder.ended();
            recorder.ended();
            assert_eq!(reads.with(|relied| relied.ranges.clone()), [(KeyRange::half_open("c", "p"), Version(3))]);
        }
    }

    #[test]
    fn what_is_relied_on_is_bounded_and_still_covered() {
        let mut relied = Relied::default();
        let key = |i: u32| Bytes::from([&i.to_be_bytes()[..], &[7; 200]].concat());
        let count = 200_000;
        for i in 0..count {
            relied.key(key(i * 2), Version(9 + u64::from(i)));
            if i % 3 == 0 {
                let start = Bound::Included(key(i * 2 + 1_000_000));
                relied.range(KeyRange { start, end: Bound::Excluded(key(i * 2 + 1_000_001)) }, Version(8));
            }
            assert!(relied.bytes <= Relied::BYTES_MAX);
        }
        for i in 0..count {
            assert!(relied.keys.contains_key(&key(i * 2)) || relied.ranges.len() > 10);
        }
        let covered = relied.covered();
        assert!((0..count).step_by(997).all(|i| covered.contains(&key(i * 2))));
        assert!((0..count).step_by(3 * 331).all(|i| covered.contains(&key(i * 2 + 1_000_000))));
        assert_eq!(relied.oldest(), Some(Version(8)));
        relied.unchanged_until(Version(100));
        assert_eq!(relied.oldest(), Some(Version(100)));
    }

    fn bound() -> impl Strategy<Value = Bound<Bytes>> {
        let key = prop::collection::vec(0..3u8, 0..3).prop_map(Bytes::from);
        prop_oneof![
            4 => key.clone().prop_map(Bound::Included),
            4 => key.prop_map(Bound::Excluded),
            1 => Just(Bound::Unbounded),
        ]
    }

    proptest! {
        /// However ranges are joined and merged, what one covers is covered.
        #[test]
        fn joined_ranges_cover_both(a in (bound(), bound()), b in (bound(), bound()), key in prop::collection::vec(0..3u8, 0..4)) {
            let range = |(start, end): (Bound<Bytes>, Bound<Bytes>)| KeyRange { start, end };
            let (a, b) = (range(a), range(b));
            prop_assume!(!a.is_empty() && !b.is_empty());
            let either = a.contains(&key) || b.contains(&key);
            prop_assert!(!either || cover(&a, &b).contains(&key));
            let mut joined = a.clone();
            if join(&mut joined, &b) {
                prop_assert_eq!(joined.contains(&key), either);
            }
        }

        /// What is asked of in one search has exactly what its ranges have.
        #[test]
        fn covered_is_what_any_range_has(ranges in prop::collection::vec((bound(), bound()), 0..6), key in prop::collection::vec(0..3u8, 0..4)) {
            let ranges: Vec<KeyRange> = ranges.into_iter().map(|(start, end)| KeyRange { start, end }).filter(|r| !r.is_empty()).collect();
            let relied = Relied { ranges: ranges.iter().map(|r| (r.clone(), Version(1))).collect(), ..Relied::default() };
            let covered = relied.covered();
            prop_assert_eq!(covered.contains(&key), ranges.iter().any(|r| r.contains(&key)));
        }
    }
}
