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
//! Transactions on their way to the log are not in the tree that is compared with: the
//! keys they write are kept in a set a group ([`Group`]), and any key in it has changed for whoever comes later.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::chunk::as_slice;
use super::reads::Reads;
use super::transaction::Transaction;
use crate::bee::{Bee, KeyRange, Snapshot};
use crate::error::{Error, Result};
use crate::position::Version;

/// The base of a write that is not checked, because a lock keeps every other writer away until the commit:
/// as if it had seen everything. Where one key has several bases the oldest counts, so a write without a lock is checked whatever
/// was written under one.
pub(crate) const GUARDED: Version = Version(u64::MAX);

/// The keys written by the transactions of a commit group that are not in the tree yet.
pub(crate) type Group = BTreeSet<Bytes>;

/// The groups that are not in the tree yet: the one being written, and the one that is open.
pub(crate) struct OnTheirWay<'a> {
    pub groups: [&'a Group; 2],
}

impl OnTheirWay<'_> {
    fn is_empty(&self) -> bool {
        self.groups.iter().all(|group| group.is_empty())
    }

    fn contains(&self, key: &Bytes) -> bool {
        self.groups.iter().any(|group| group.contains(key))
    }

    fn has_any(&self, range: &KeyRange) -> bool {
        let bounds = (as_slice(&range.start), as_slice(&range.end));
        self.groups.iter().any(|group| !group.is_empty() && group.range::<[u8], _>(bounds).next().is_some())
    }
}

/// Beyond so many keys and ranges read, the changes since are looked for among them instead of each of them being looked up.
const LOOKED_UP: usize = 32;

/// Whether a transaction may commit on `head` and the group's transactions before it.
///
/// # Errors
///
/// [`Error::Conflict`] if something written, or depended on by name, has changed; [`Error::ReadConflict`] if something
/// that a recording transaction has read has; on a failed read that failure, and then nothing is known.
pub(crate) fn check(txn: &Transaction, bee: &Bee, head: &Snapshot, group: &OnTheirWay<'_>) -> Result<()> {
    let is_current = |seen: &Version| *seen >= head.version() && group.is_empty();
    let oldest_base = txn.writes().oldest_base();
    if oldest_base.is_some_and(|base| base != GUARDED && !is_current(&base)) {
        let mut past = Past { bee, head, last: None };
        let mut writes = txn.writes().scan(&KeyRange::all())?;
        while let Some((key, write)) = writes.next()? {
            check_key(&key, write.base, &mut past, group)?;
        }
    }
    let Some(reads) = txn.reads() else { return Ok(()) };
    match check_reads(reads, bee, head, group) {
        Err(Error::Conflict { base }) if txn.is_recording() => Err(Error::ReadConflict { base }),
        checked => checked,
    }
}

/// Whether everything read is at `head`, with the group's writes over it, as it was seen. What was found unchanged at
/// `head` is compared with nothing older the next time.
///
/// # Errors
///
/// [`Error::Conflict`] if not; else as [`check`].
pub(crate) fn check_reads(reads: &Reads, bee: &Bee, head: &Snapshot, group: &OnTheirWay<'_>) -> Result<()> {
    reads.with(|relied| {
        let Some(oldest) = relied.oldest() else { return Ok(()) };
        if let Some((_, base)) = relied.ranges().find(|(range, _)| group.has_any(range)) {
            return Err(Error::Conflict { base });
        }
        if let Some((_, base)) = relied.keys().find(|(key, _)| group.contains(key)) {
            return Err(Error::Conflict { base });
        }
        if oldest >= head.version() {
            return Ok(());
        }
        if relied.len() > LOOKED_UP {
            let covered = relied.covered();
            let mut changes = head.diff(&bee.at(oldest), KeyRange::all());
            while let Some(change) = changes.next()? {
                let entry = change.left.as_ref().or(change.right.as_ref());
                // What was seen at a newer version than the oldest was found unchanged up to it.
                if entry.is_some_and(|entry| covered.contains(&entry.key)) {
                    return Err(Error::Conflict { base: oldest });
                }
            }
        } else {
            let mut past = Past { bee, head, last: None };
            let none = Group::new();
            let none = OnTheirWay { groups: [&none, &none] };
            for (key, seen) in relied.keys() {
                check_key(key, seen, &mut past, &none)?;
            }
            for (range, seen) in relied.ranges() {
                if seen < head.version() && head.diff(past.at(seen), range.clone()).next()?.is_some() {
                    return Err(Error::Conflict { base: seen });
                }
            }
        }
        relied.unchanged_until(head.version());
        Ok(())
    })
}

fn check_key(key: &Bytes, base: Version, past: &mut Past<'_>, group: &OnTheirWay<'_>) -> Result<()> {
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
