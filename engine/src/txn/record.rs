//! The commit record: the last put of every transaction, and the way to any version or time.
//!
//! Inside a bee batch only the last block has a root, so a length in the middle of one is no version.
//! Every transaction therefore ends by writing one reserved key, [`KEY`], and a block is a commit's
//! end exactly when its key is that one. The value is compact-encoding, in this order:
//!
//! ```text
//! uint    format        1; another number is refused
//! uint    number        which commit of the database this is; the first is 1
//! uint    first block   where this transaction's blocks begin (the commit record is its last block)
//! int     time          microseconds since 1970-01-01 UTC, zigzag; higher than in every record before
//! uint    count         how many earlier commits follow
//!   uint  distance      count times: first block - version of that commit, nearest commit first
//! uint    rows changed  as the SQL layer counted them
//! string  user          uint length, then UTF-8; empty when not told
//! string  application
//! string  message
//! ```
//!
//! A reader ignores bytes after the last field it knows, so that fields can be added at the end.
//!
//! **Earlier commits.** Commit `n` points to `n - 1`, and to the nearest commit before it whose number
//! is a multiple of 2, of 4, of 8 and so on:
//!
//! ```text
//! number     ...  32          40      44  46 47 48
//! 47 points to    32  <-----  40  <-- 44 <-46
//! 48 points to    32  <-----  40  <-- 44 <-46 <-47
//! 45 points to    32  <-----  40  <-- 44             (45 - 1 is itself a multiple of 4)
//! ```
//!
//! From a multiple of 2^k these are the commits 1, 2, 4 .. 2^k back, so walking from the newest commit
//! to any older one takes O(log n) hops; on a sparse replica each hop fetches one block. Rounding to
//! multiples (instead of pointing exactly 2^k back from everywhere) means that a record's pointers
//! follow from the pointers of the record before it: a commit reads nothing to know them, and opening a
//! database reads one block ([`Trail`]).

use bytes::Bytes;

use crate::encoding::compact::{self, DecodeError, Decoder};
use crate::error::{Error, Result};
use crate::position::{BlockIndex, Version};

/// The reserved key that ends every transaction. It sorts after all other keys of a pgbee database.
pub const KEY: &[u8] = &[0x06];

/// The value layout this code reads and writes.
const FORMAT: u64 = 1;

/// What a commit says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRecord {
    /// The version this commit made: one more than the block the record stands in.
    pub version: Version,
    /// Which commit of its database it is, counted from 1.
    pub number: u64,
    /// The first block of its transaction. Read as a length it is the version before this one.
    pub first_block: BlockIndex,
    /// Microseconds since 1970-01-01 UTC; higher than in all earlier commits of the database.
    pub time_micros: i64,
    /// Who committed, or empty.
    pub user: String,
    /// By which program, or empty.
    pub application: String,
    /// Why, or empty.
    pub message: String,
    /// Rows changed, as the SQL layer counted them.
    pub changes: u64,
    /// Earlier commits, nearest first; the first of them is the one before. See the module's text.
    pub previous: Vec<Version>,
}

impl CommitRecord {
    /// The version this commit was made on: what the database held just before it.
    pub fn base(&self) -> Version {
        Version(self.first_block.0)
    }

    /// The bytes stored under [`KEY`].
    pub fn encode(&self) -> Bytes {
        let text = self.user.len() + self.application.len() + self.message.len();
        let mut out = Vec::with_capacity(64 + text + 5 * self.previous.len());
        compact::uint(&mut out, FORMAT);
        compact::uint(&mut out, self.number);
        compact::uint(&mut out, self.first_block.0);
        compact::int(&mut out, self.time_micros);
        compact::array(&mut out, &self.previous, |out, version| {
            assert!(
                version.0 <= self.first_block.0,
                "commit record points forward: {version} from block {}",
                self.first_block
            );
            compact::uint(out, self.first_block.0 - version.0);
        });
        compact::uint(&mut out, self.changes);
        for text in [&self.user, &self.application, &self.message] {
            compact::string(&mut out, text);
        }
        out.into()
    }

    /// Reads the value found in block `version - 1`.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when the bytes are not a commit record, or one of another format.
    pub fn decode(version: Version, value: &[u8]) -> Result<CommitRecord> {
        CommitRecord::read(version, &mut Decoder::new(value)).map_err(|what| Error::Corrupt {
            core: None,
            block: Some(BlockIndex(version.0.saturating_sub(1))),
            what: format!("commit record: {what}"),
        })
    }

    fn read(version: Version, from: &mut Decoder<'_>) -> std::result::Result<CommitRecord, DecodeError> {
        if from.uint()? != FORMAT {
            return Err(DecodeError::Unknown("format"));
        }
        let (number, first_block) = (from.uint()?, from.uint()?);
        if number == 0 || first_block >= version.0 {
            return Err(DecodeError::Unknown("number or first block"));
        }
        let time_micros = from.wide_int()?;
        let mut nearest = u64::MAX;
        let previous = from.array(|from| {
            let earlier = first_block.checked_sub(from.uint()?).filter(|version| *version < nearest);
            nearest = earlier.ok_or(DecodeError::Unknown("order of earlier commits"))?;
            Ok(Version(nearest))
        })?;
        if previous.len() != numbers_before(number).count() {
            return Err(DecodeError::Unknown("count of earlier commits"));
        }
        let changes = from.wide_uint()?;
        let mut text = || from.string().map(str::to_owned);
        Ok(CommitRecord {
            version,
            number,
            first_block: BlockIndex(first_block),
            time_micros,
            user: text()?,
            application: text()?,
            message: text()?,
            changes,
            previous,
        })
    }
}

/// The numbers commit `number` points to, nearest first: `number - 1` rounded down to multiples of
/// 1, 2, 4 and so on, each once, without 0.
pub(crate) fn numbers_before(number: u64) -> impl Iterator<Item = u64> {
    let mut next = number - 1;
    std::iter::from_fn(move || {
        let this = next;
        next &= next.wrapping_sub(1); // clears the lowest set bit: the next coarser multiple
        (this != 0).then_some(this)
    })
}

/// What the next commit record needs to know of those before it: O(log n) versions, kept up to date
/// by every commit and rebuilt from the newest record alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trail {
    /// Number of the newest commit; 0 before the first.
    pub number: u64,
    /// Its time, the next one's must be higher.
    pub time_micros: Option<i64>,
    /// (number, version) of the commits the next one points to, nearest first.
    marks: Vec<(u64, Version)>,
}

impl Trail {
    /// The trail that ends with `record`.
    pub fn after(record: &CommitRecord) -> Trail {
        let mut trail = Trail {
            number: record.number - 1,
            time_micros: None,
            marks: numbers_before(record.number).zip(record.previous.iter().copied()).collect(),
        };
        trail.push(record.version, record.time_micros);
        trail
    }

    /// Where the next commit points to.
    pub fn previous(&self) -> Vec<Version> {
        self.marks.iter().map(|&(_, version)| version).collect()
    }

    /// The time of the next commit: what the caller says, or just after the newest one when the
    /// caller's clock stands still or went back.
    pub fn next_time(&self, given_micros: i64) -> i64 {
        match self.time_micros {
            Some(newest) => given_micros.max(newest.saturating_add(1)),
            None => given_micros,
        }
    }

    /// Notes a commit made.
    pub fn push(&mut self, version: Version, time_micros: i64) {
        self.number += 1;
        self.time_micros = Some(time_micros);
        // The next record's marks: this commit, then those of its own marks that are coarser.
        let wanted: Vec<u64> = numbers_before(self.number + 1).collect();
        self.marks.insert(0, (self.number, version));
        self.marks.retain(|(number, _)| wanted.contains(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> CommitRecord {
        CommitRecord {
            version: Version(420),
            number: 47,
            first_block: BlockIndex(400),
            time_micros: 1_793_000_000_000_000,
            user: "ada".into(),
            application: "psql".into(),
            message: "prices of November".into(),
            changes: 300,
            previous: [400, 380, 350, 300].map(Version).to_vec(),
        }
    }

    #[test]
    fn encodes_byte_by_byte() {
        let small = CommitRecord {
            version: Version(9),
            number: 3,
            first_block: BlockIndex(6),
            time_micros: 1000,
            user: "u".into(),
            application: String::new(),
            message: "né".into(),
            changes: 2,
            previous: vec![Version(4)],
        };
        let expect = [
            1, 3, 6, 0xfd, 0xd0, 0x07, // format, number, first block, zigzag(1000) = 2000
            1, 2, // one earlier commit, 6 - 4
            2, // rows
            1, b'u', 0, 3, b'n', 0xc3, 0xa9,
        ];
        assert_eq!(small.encode().as_ref(), expect);
        assert_eq!(CommitRecord::decode(Version(9), &expect).unwrap(), small);
    }

    #[test]
    fn round_trips_and_ignores_later_fields() {
        let mut bytes = record().encode().to_vec();
        assert_eq!(CommitRecord::decode(Version(420), &bytes).unwrap(), record());
        bytes.extend_from_slice(b"a field of tomorrow");
        assert_eq!(CommitRecord::decode(Version(420), &bytes).unwrap(), record());
    }

    #[test]
    fn times_and_counts_of_any_size_come_back() {
        for (time_micros, changes) in [(i64::MAX, u64::MAX), (i64::MIN, 0)] {
            let record = CommitRecord { time_micros, changes, ..record() };
            assert_eq!(CommitRecord::decode(Version(420), &record.encode()).unwrap(), record);
        }
    }

    #[test]
    fn every_cut_is_corrupt() {
        let bytes = record().encode();
        for end in 0..bytes.len() {
            let found = CommitRecord::decode(Version(420), &bytes[..end]);
            assert!(matches!(found, Err(Error::Corrupt { .. })), "cut at {end}: {found:?}");
        }
    }

    #[test]
    fn points_to_coarser_and_coarser_numbers() {
        let before = |n| numbers_before(n).collect::<Vec<_>>();
        assert_eq!(before(1), Vec::<u64>::new());
        assert_eq!(before(2), [1]);
        assert_eq!(before(45), [44, 40, 32]);
        assert_eq!(before(47), [46, 44, 40, 32]);
        assert_eq!(before(48), [47, 46, 44, 40, 32]);
    }

    #[test]
    fn a_trail_is_the_same_kept_or_rebuilt() {
        let mut trail = Trail::default();
        for number in 1..2000u64 {
            let version = Version(number * 3);
            let previous = trail.previous();
            let want: Vec<_> = numbers_before(number).map(|n| Version(n * 3)).collect();
            assert_eq!(previous, want, "commit {number}");
            trail.push(version, number as i64);
            let record = CommitRecord {
                version,
                number,
                first_block: BlockIndex(version.0 - 2),
                time_micros: number as i64,
                previous,
                ..record()
            };
            assert_eq!(Trail::after(&record), trail, "commit {number}");
        }
    }

    #[test]
    fn time_rises_whatever_the_clock_does() {
        let mut trail = Trail::default();
        assert_eq!(trail.next_time(-5), -5);
        trail.push(Version(3), 100);
        assert_eq!(trail.next_time(100), 101);
        assert_eq!(trail.next_time(7), 101);
        assert_eq!(trail.next_time(500), 500);
    }

    proptest! {
        #[test]
        fn decoding_any_bytes_never_panics(bytes: Vec<u8>, version: u64) {
            let _ = CommitRecord::decode(Version(version), &bytes);
        }
    }
}
