//! Runs of blocks instead of single ones, where a reader moves along the log.
//!
//! A tree that was loaded in key order has its leaves, and the keys they name, in consecutive blocks; so
//! has a history. A [`Readahead`] belongs to one reader. It follows two or three such movements at a time,
//! each with a window of blocks that slides along the log, and doubles what it asks for as long as a
//! movement goes on.
//!
//! ```text
//! asked      7   8    9          11              15
//! read      [7] [8] [9 10] [11 12 13 14] [15 16 17 18 19 20 21 22]
//!
//! a leaf names keys a few blocks before it, and inner nodes lie a few blocks ahead: one window holds all
//!            [ ..  k k k k   leaf k k k k   leaf  ...  inner node    ]
//! ```
//!
//! A window has no holes: what lies between its end and the block asked for is read with it, for it is
//! asked for soon. So no block is read twice while the reader moves on.

use std::collections::VecDeque;

use bytes::Bytes;

use super::BlockSource;
use crate::{BlockIndex, Error, Result};

/// How many blocks one read asks for ahead of need at most.
const BLOCKS_MAX: usize = 128;
/// A movement with larger blocks asks for fewer.
const BYTES_MAX: usize = 1 << 20;
/// What a window holds at most, behind and ahead of the block asked for last.
const WINDOW_BLOCKS_MAX: usize = 3 * BLOCKS_MAX;
const WINDOW_BYTES_MAX: usize = 2 * BYTES_MAX;
/// Jumps beyond a window that still count as going on. Half of what it asks for counts, too.
const GAP_MAX: usize = 16;
const MOVEMENTS: usize = 3;

/// The blocks a reader is likely to need next.
#[derive(Debug, Default)]
pub(crate) struct Readahead {
    /// Blocks beyond are not asked for ahead of need: the reader's version, `u64::MAX` for none.
    limit: u64,
    sequential: bool,
    /// Of a reader that jumps about the last block: nodes and their own keys often share one.
    last: Option<(u64, Bytes)>,
    movements: Vec<Movement>,
    clock: u32,
}

/// A window of consecutive blocks.
#[derive(Debug)]
struct Movement {
    first: u64,
    blocks: VecDeque<Bytes>,
    bytes: usize,
    /// How many to ask for when this movement goes on.
    grow: usize,
    used: u32,
}

impl Movement {
    fn new(first: u64, blocks: Vec<Bytes>, used: u32) -> Movement {
        let bytes = blocks.iter().map(Bytes::len).sum();
        let mut movement = Movement { first, blocks: blocks.into(), bytes, grow: 1, used };
        movement.earn(movement.blocks.len());
        movement
    }

    fn end(&self) -> u64 {
        self.first + self.blocks.len() as u64
    }

    #[inline]
    fn get(&self, at: u64) -> Option<&Bytes> {
        self.blocks.get(at.checked_sub(self.first)? as usize)
    }

    /// Whether a block outside of the window is near enough to belong to the movement.
    fn is_near(&self, at: u64) -> bool {
        let gap = GAP_MAX.max(self.grow / 2) as u64;
        (self.first.saturating_sub(gap)..self.end() + gap).contains(&at)
    }

    /// So many blocks were read: next time it may be twice as many, if their size allows.
    fn earn(&mut self, read: usize) {
        let affordable = BYTES_MAX / (self.bytes / self.blocks.len().max(1)).max(1);
        self.grow = (2 * read.max(self.grow)).min(affordable).clamp(1, BLOCKS_MAX);
    }

    /// Puts blocks behind the last one, and lets go of the first ones, if need be, but of none from `at` on.
    fn append(&mut self, blocks: Vec<Bytes>, at: u64) {
        self.bytes += blocks.iter().map(Bytes::len).sum::<usize>();
        self.blocks.extend(blocks);
        while self.is_full() && self.first < at {
            self.bytes -= self.blocks.pop_front().map_or(0, |block| block.len());
            self.first += 1;
        }
    }

    /// Puts blocks before the first one, and lets go of the last ones, if need be, but of none down to `at`.
    fn prepend(&mut self, blocks: Vec<Bytes>, at: u64) {
        self.bytes += blocks.iter().map(Bytes::len).sum::<usize>();
        self.first -= blocks.len() as u64;
        blocks.into_iter().rev().for_each(|block| self.blocks.push_front(block));
        while self.is_full() && self.end() > at + 1 {
            self.bytes -= self.blocks.pop_back().map_or(0, |block| block.len());
        }
    }

    fn is_full(&self) -> bool {
        self.blocks.len() > WINDOW_BLOCKS_MAX || self.bytes > WINDOW_BYTES_MAX
    }
}

impl Readahead {
    /// For a reader that jumps about: remembers one block.
    pub(crate) fn none() -> Readahead {
        Readahead::default()
    }

    /// For a reader that may move along the log, up to block `limit`.
    pub(crate) fn up_to(limit: u64) -> Readahead {
        Readahead { limit, sequential: true, ..Readahead::default() }
    }

    /// One block. `run` says what the reader knows to need after it: so many blocks in all, going up when
    /// positive, down when negative; 1 when it knows nothing.
    pub(crate) fn block(&mut self, source: &dyn BlockSource, at: u64, run: i64) -> Result<&Bytes> {
        if !self.sequential {
            let known = self.last.take().filter(|(last, _)| *last == at);
            let (_, bytes) = match known {
                Some(known) => self.last.insert(known),
                None => self.last.insert((at, source.block(BlockIndex(at))?)),
            };
            return Ok(bytes);
        }
        self.clock = self.clock.wrapping_add(1);
        let slot = match self.movements.iter().position(|movement| movement.get(at).is_some()) {
            Some(slot) => slot,
            None => self.read_on(source, at, run)?,
        };
        let movement = &mut self.movements[slot];
        movement.used = self.clock;
        Ok(movement.get(at).expect("a window keeps the block asked for"))
    }

    /// Reads a block with its neighbours, as many as it has earned. Returns the movement that has it now.
    #[cold]
    fn read_on(&mut self, source: &dyn BlockSource, at: u64, run: i64) -> Result<usize> {
        // Where windows are near each other, the one that moved farthest goes on.
        let near = (0..self.movements.len()).filter(|&slot| self.movements[slot].is_near(at));
        match near.max_by_key(|&slot| self.movements[slot].grow) {
            Some(slot) => self.go_on(source, slot, at, run),
            None => self.begin(source, at, run),
        }
    }

    /// A movement begins with what is known to be needed.
    fn begin(&mut self, source: &dyn BlockSource, at: u64, run: i64) -> Result<usize> {
        let count = run.unsigned_abs().clamp(1, BLOCKS_MAX as u64);
        let (first, end) = if run < 0 { ((at + 1).saturating_sub(count), at + 1) } else { (at, self.cut(at, count)) };
        let blocks = read(source, first, end)?;
        let slot = self.oldest();
        self.start(source, slot, first, blocks, at)
    }

    /// Reads on from a window to a block near it, and beyond as far as the movement has earned.
    fn go_on(&mut self, source: &dyn BlockSource, slot: usize, at: u64, run: i64) -> Result<usize> {
        let Movement { first, grow, .. } = self.movements[slot];
        let end = self.movements[slot].end();
        let is_up = at >= end;
        let known = run.unsigned_abs().clamp(1, BLOCKS_MAX as u64);
        // Who is known to turn back to the window needs nothing beyond.
        let beyond = if known == 1 || is_up == (run > 0) { known.max(grow as u64) } else { 1 };
        let (from, to) = match is_up {
            true => (end, self.cut(at, beyond)),
            false => ((at + 1).saturating_sub(beyond), first),
        };
        let blocks = read(source, from, to)?;
        let count = blocks.len();
        // A neighbour may be missing, nobody asked for it, or blocks may be too large for one read.
        let is_whole = if is_up { from + count as u64 > at } else { count as u64 == to - from };
        if !is_whole {
            return self.start(source, slot, from, blocks, at);
        }
        let movement = &mut self.movements[slot];
        match is_up {
            true => movement.append(blocks, at),
            false => movement.prepend(blocks, at),
        }
        movement.earn(count);
        Ok(slot)
    }

    /// Begins a movement with some blocks, or, if they do not reach so far, with the block asked for.
    fn start(
        &mut self,
        source: &dyn BlockSource,
        slot: usize,
        first: u64,
        blocks: Vec<Bytes>,
        at: u64,
    ) -> Result<usize> {
        let (first, blocks) = match at.checked_sub(first).is_some_and(|i| i < blocks.len() as u64) {
            true => (first, blocks),
            false => (at, vec![source.block(BlockIndex(at))?]),
        };
        let movement = Movement::new(first, blocks, self.clock);
        match self.movements.get_mut(slot) {
            Some(known) => *known = movement,
            None => self.movements.push(movement),
        }
        Ok(slot)
    }

    /// The end of so many blocks from `at` on, cut to what may be asked for; `at` itself always may.
    fn cut(&self, at: u64, count: u64) -> u64 {
        (at + count).min(self.limit).max(at + 1)
    }

    /// The slot for a new movement.
    fn oldest(&self) -> usize {
        let age = |slot: &usize| self.clock.wrapping_sub(self.movements[*slot].used);
        match self.movements.len() {
            MOVEMENTS => (0..MOVEMENTS).max_by_key(age).unwrap_or(0),
            free => free,
        }
    }
}

/// As many of these blocks as can be had at once, none if the first is missing.
fn read(source: &dyn BlockSource, first: u64, end: u64) -> Result<Vec<Bytes>> {
    let read = match end - first {
        1 => source.block(BlockIndex(first)).map(|block| vec![block]),
        count => source.blocks(BlockIndex(first), count as usize),
    };
    match read {
        Err(Error::MissingBlock(_)) => Ok(Vec::new()),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Counting {
        blocks: Vec<Option<Bytes>>,
        reads: AtomicUsize,
        blocks_read: AtomicUsize,
    }

    impl Counting {
        fn new(count: u64) -> Counting {
            Counting {
                blocks: (0..count).map(|i| Some(Bytes::copy_from_slice(&i.to_be_bytes()))).collect(),
                reads: AtomicUsize::new(0),
                blocks_read: AtomicUsize::new(0),
            }
        }
    }

    impl BlockSource for Counting {
        fn block(&self, index: BlockIndex) -> Result<Bytes> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.blocks_read.fetch_add(1, Ordering::Relaxed);
            match self.blocks.get(index.0 as usize) {
                Some(Some(block)) => Ok(block.clone()),
                Some(None) => Err(Error::MissingBlock(index)),
                None => Err(Error::Invalid("no such block".into())),
            }
        }

        fn blocks(&self, first: BlockIndex, count: usize) -> Result<Vec<Bytes>> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.blocks_read.fetch_add(count, Ordering::Relaxed);
            assert!(first.0 as usize + count <= self.blocks.len(), "beyond the limit");
            let range = &self.blocks[first.0 as usize..][..count];
            match &range[0] {
                None => Err(Error::MissingBlock(first)),
                Some(_) => Ok(range.iter().map_while(Option::clone).collect()),
            }
        }
    }

    fn check(source: &Counting, readahead: &mut Readahead, at: u64) {
        let bytes = readahead.block(source, at, 1).unwrap();
        assert_eq!(&bytes[..], &at.to_be_bytes());
    }

    #[test]
    fn movements_up_and_down_take_few_reads() {
        let source = Counting::new(1000);
        let mut readahead = Readahead::up_to(1000);
        for at in 1..1000 {
            check(&source, &mut readahead, at);
        }
        assert!(source.reads.load(Ordering::Relaxed) < 20);
        let mut readahead = Readahead::up_to(1000);
        for at in (1..1000).rev() {
            check(&source, &mut readahead, at);
        }
        assert!(source.reads.load(Ordering::Relaxed) < 40);
    }

    #[test]
    fn two_movements_are_followed_at_a_time() {
        let source = Counting::new(10_000);
        let mut readahead = Readahead::up_to(10_000);
        for i in 1..1000 {
            check(&source, &mut readahead, i * 5);
            check(&source, &mut readahead, i * 5 + 4000);
        }
        let reads = source.reads.load(Ordering::Relaxed);
        assert!(reads < 120, "{reads}");
    }

    /// As a tree loaded in order is read: leaves, the keys a little before them, inner nodes far ahead.
    #[test]
    fn what_moves_together_is_read_once() {
        let source = Counting::new(20_000);
        let mut readahead = Readahead::up_to(20_000);
        for leaf in (5..19_000u64).step_by(5) {
            if leaf % 25 == 0 {
                check(&source, &mut readahead, leaf + 45);
            }
            if leaf % 125 == 0 {
                check(&source, &mut readahead, leaf + 300);
            }
            check(&source, &mut readahead, leaf + 8);
            for key in leaf..leaf + 4 {
                let bytes = readahead.block(&source, key, 4).unwrap();
                assert_eq!(&bytes[..], &key.to_be_bytes());
            }
        }
        let (reads, blocks) = (source.reads.load(Ordering::Relaxed), source.blocks_read.load(Ordering::Relaxed));
        assert!(reads < 500 && blocks < 22_000, "{blocks} blocks in {reads} reads");
    }

    #[test]
    fn jumps_read_one_block_each() {
        let source = Counting::new(10_000);
        let mut readahead = Readahead::up_to(10_000);
        for i in 0..100 {
            check(&source, &mut readahead, i * 7919 % 10_000);
        }
        assert_eq!(source.reads.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn a_missing_neighbour_is_no_error() {
        let mut source = Counting::new(100);
        source.blocks[50] = None;
        let mut readahead = Readahead::up_to(100);
        for at in (1..100).filter(|&at| at != 50) {
            check(&source, &mut readahead, at);
        }
        for at in (1..100).rev().filter(|&at| at != 50) {
            check(&source, &mut readahead, at);
        }
        let missing = readahead.block(&source, 50, 1);
        assert_eq!(missing, Err(Error::MissingBlock(BlockIndex(50))));
    }
}
