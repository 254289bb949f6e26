//! "Changed since I looked": the first to commit wins, and what that means key by key.
//!
//! An entry of a bee names the block that wrote it. A transaction that saw version `base` saw the blocks
//! `0..base`, so a key changed since exactly when its newest entry stands in block `base` or later, or
//! when it is gone now and was there then. That is one lookup a key, and none at all when nothing was
//! committed in between.
//!
//! ```text
//! base = 7:  blocks 0 1 2 3 4 5 6 | 7 8 9      newest entry in 0..7: unchanged, in 7..: a conflict
//! ```
//!
//! A range changed when the trees of both versions differ in it; the comparison skips what they share.
//!
//! Transactions committed as one group are not in the tree yet when the next of the group is checked: the
//! keys they write are kept in a set ([`Group`]), and any key in it has changed for whoever comes later.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use super::chunk::as_slice;
use super::transaction::Transaction;
use crate::bee::{Bee, KeyRange, Snapshot};
use crate::error::{Error, Result};
use crate::position::Version;

/// The base of a write that is not checked, because a lock keeps every other writer away until the commit:
/// as if it had seen everything. Where one key has several bases the oldest counts, so a write without a lock is checked whatever
/// was written under one.
pub(crate) const GUARDED: Version = Version(u64::MAX);

/// What a transaction relied on without writing it. Bounded: beyond [`Relied::MOST`] keys or ranges it
/// remembers the one range that covers them all, which can only find more conflicts.
#[derive(Default)]
pub(crate) struct Relied {
    /// With the oldest version each was seen at.
    keys: BTreeMap<Bytes, Version>,
    ranges: Vec<(KeyRange, Version)>,
}

impl Relied {
    const MOST: usize = 1 << 16;

    pub fn key(&mut self, key: Bytes, seen: Version) {
        self.keys.entry(key).or_insert(seen); // versions only rise: the first is the oldest
        if self.keys.len() > Relied::MOST {
            let oldest = self.keys.values().min().copied();
            let (first, last) = (self.keys.first_key_value(), self.keys.last_key_value());
            if let (Some(oldest), Some((first, _)), Some((last, _))) = (oldest, first, last) {
                let all = KeyRange { start: Bound::Included(first.clone()), end: Bound::Included(last.clone()) };
                self.keys.clear();
                self.range(all, oldest);
            }
        }
    }

    pub fn range(&mut self, range: KeyRange, seen: Version) {
        if range.is_empty() || self.ranges.iter().rev().take(8).any(|(known, _)| *known == range) {
            return;
        }
        self.ranges.push((range, seen));
        if self.ranges.len() > Relied::MOST {
            let covering = self.ranges.drain(..).reduce(|(a, a_seen), (b, b_seen)| {
                let start = if starts_first(&a.start, &b.start) { a.start } else { b.start };
                let end = if ends_last(&a.end, &b.end) { a.end } else { b.end };
                (KeyRange { start, end }, a_seen.min(b_seen))
            });
            self.ranges.extend(covering);
        }
    }
}

fn starts_first(a: &Bound<Bytes>, b: &Bound<Bytes>) -> bool {
    match (a, b) {
        (Bound::Unbounded, _) => true,
        (_, Bound::Unbounded) => false,
        (Bound::Included(a), Bound::Included(b) | Bound::Excluded(b)) => a <= b,
        (Bound::Excluded(a), Bound::Included(b)) => a < b,
        (Bound::Excluded(a), Bound::Excluded(b)) => a <= b,
    }
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

/// The keys written by the transactions of a commit group that are not in the tree yet.
pub(crate) type Group = BTreeSet<Bytes>;

/// Whether a transaction may commit on `head` and the group's transactions before it.
///
/// # Errors
///
/// [`Error::Conflict`] if not; on a failed read that failure, and then nothing is known.
pub(crate) fn check(txn: &Transaction, bee: &Bee, head: &Snapshot, group: &Group) -> Result<()> {
    let relied = txn.relied();
    let is_current = |seen: &Version| *seen >= head.version();
    let all_current = txn.writes().oldest_base().is_none_or(|base| is_current(&base))
        && relied.keys.values().all(is_current)
        && relied.ranges.iter().all(|(_, seen)| is_current(seen));
    if all_current && group.is_empty() {
        return Ok(());
    }
    let mut past = Past { bee, head, last: None };
    let mut writes = txn.writes().scan(&KeyRange::all())?;
    while let Some((key, write)) = writes.next()? {
        check_key(&key, write.base, &mut past, group)?;
    }
    for (key, seen) in &relied.keys {
        check_key(key, *seen, &mut past, group)?;
    }
    for (range, seen) in &relied.ranges {
        let bounds = (as_slice(&range.start), as_slice(&range.end));
        let mut differs = group.range::<[u8], _>(bounds).next().is_some();
        if !differs && *seen < head.version() {
            differs = head.diff(past.at(*seen), range.clone()).next()?.is_some();
        }
        if differs {
            return Err(Error::Conflict { base: *seen });
        }
    }
    Ok(())
}

fn check_key(key: &Bytes, base: Version, past: &mut Past<'_>, group: &Group) -> Result<()> {
    if base == GUARDED {
        return Ok(());
    }
    let changed = group.contains(key)
        || base < past.head.version()
            && match past.head.get(key)? {
                Some(entry) => entry.seq.0 >= base.0,
                None => past.at(base).get(key)?.is_some(),
            };
    if changed { Err(Error::Conflict { base }) } else { Ok(()) }
}

/// The tree at the versions a transaction saw; nearly always one.
struct Past<'a> {
    bee: &'a Bee,
    head: &'a Snapshot,
    last: Option<Snapshot>,
}

impl Past<'_> {
    fn at(&mut self, version: Version) -> &Snapshot {
        let known = self.last.take().filter(|snapshot| snapshot.version() == version);
        self.last.insert(known.unwrap_or_else(|| self.bee.at(version)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn what_is_relied_on_is_bounded_and_still_covered() {
        let mut relied = Relied::default();
        for i in 0..=Relied::MOST as u32 {
            relied.key(Bytes::copy_from_slice(&i.to_be_bytes()), Version(9 + u64::from(i)));
        }
        assert!(relied.keys.is_empty());
        let [(all, seen)] = relied.ranges.as_slice() else { panic!("{} ranges", relied.ranges.len()) };
        assert_eq!(*seen, Version(9));
        assert_eq!(all.start, Bound::Included(Bytes::from_static(&[0; 4])));
        assert_eq!(all.end, Bound::Included(Bytes::from_static(&[0, 1, 0, 0])));
    }

    #[test]
    fn many_ranges_become_one_that_covers_them() {
        let mut relied = Relied::default();
        for i in 0..=Relied::MOST as u32 {
            let start = Bound::Excluded(Bytes::copy_from_slice(&i.to_be_bytes()));
            let end = Bound::Included(Bytes::copy_from_slice(&(i + 10).to_be_bytes()));
            relied.range(KeyRange { start, end }, Version(5));
        }
        let [(all, _)] = relied.ranges.as_slice() else { panic!("{} ranges", relied.ranges.len()) };
        assert_eq!(all.start, Bound::Excluded(Bytes::from_static(&[0; 4])));
        assert_eq!(all.end, Bound::Included(Bytes::from_static(&[0, 1, 0, 10])));
    }

    #[test]
    fn an_empty_or_known_range_costs_nothing() {
        let mut relied = Relied::default();
        let range = |start, end| KeyRange { start: Bound::Included(start), end: Bound::Excluded(end) };
        relied.range(range(bytes("b"), bytes("a")), Version(2));
        relied.range(range(bytes("a"), bytes("a")), Version(2));
        assert!(relied.ranges.is_empty());
        relied.range(range(bytes("a"), bytes("b")), Version(2));
        relied.range(range(bytes("a"), bytes("b")), Version(4));
        assert_eq!(relied.ranges, [(range(bytes("a"), bytes("b")), Version(2))]);
    }
}
