//! Runs of blocks instead of single ones, where a reader moves along the log.
//!
//! A tree that was loaded in key order has its leaves, and the keys they name, in consecutive blocks; so
//! has a history. A [`Readahead`] belongs to one reader. It notices two or three such movements at a time
//! (leaves, keys) and doubles what it asks for as long as they go on.
//!
//! ```text
//! asked      7   8    9          11              15
//! read      [7] [8] [9 10] [11 12 13 14] [15 16 17 18 19 20 21 22]
//! ```

use bytes::Bytes;

use super::BlockSource;
use crate::{BlockIndex, Error, Result};

/// How many blocks one read asks for at most.
const BLOCKS_MAX: usize = 128;
/// A movement with larger blocks asks for fewer.
const BYTES_MAX: usize = 1 << 20;
/// Jumps within a movement that still count as going on.
const GAP_MAX: u64 = 16;
const MOVEMENTS: usize = 3;

/// The blocks a reader is likely to need next.
#[derive(Debug, Default)]
pub(crate) struct Readahead {
    /// Blocks beyond are not asked for ahead of need: the reader's version, `u64::MAX` for none.
    limit: u64,
    sequential: bool,
    /// The last block read alone: nodes and their own keys often share one.
    last: Option<(u64, Bytes)>,
    movements: Vec<Movement>,
    clock: u32,
}

#[derive(Debug)]
struct Movement {
    first: u64,
    blocks: Vec<Bytes>,
    /// How many to ask for when this movement goes on.
    grow: usize,
    used: u32,
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
    pub(crate) fn block(&mut self, source: &dyn BlockSource, at: u64, run: i64) -> Result<Bytes> {
        if let Some((last, bytes)) = &self.last
            && *last == at
        {
            return Ok(bytes.clone());
        }
        self.clock = self.clock.wrapping_add(1);
        for movement in &mut self.movements {
            if let Some(bytes) = at.checked_sub(movement.first).and_then(|i| movement.blocks.get(i as usize)) {
                movement.used = self.clock;
                return Ok(bytes.clone());
            }
        }
        if !self.sequential {
            return self.single(source, at);
        }
        self.ahead(source, at, run)
    }

    fn single(&mut self, source: &dyn BlockSource, at: u64) -> Result<Bytes> {
        let bytes = source.block(BlockIndex(at))?;
        self.last = Some((at, bytes.clone()));
        Ok(bytes)
    }

    /// Reads `at` with its neighbours, as many as the movement it belongs to has earned.
    fn ahead(&mut self, source: &dyn BlockSource, at: u64, run: i64) -> Result<Bytes> {
        let goes_up = |m: &Movement| {
            let end = m.first + m.blocks.len() as u64;
            (end..end + GAP_MAX).contains(&at)
        };
        let goes_down = |m: &Movement| (m.first.saturating_sub(GAP_MAX)..m.first).contains(&at);
        let slot = self.movements.iter().position(|m| goes_up(m) || goes_down(m));
        let down = match slot.map(|slot| goes_down(&self.movements[slot])) {
            Some(down) if run.abs() <= 1 => down,
            _ => run < 0,
        };
        let known = run.unsigned_abs() as usize;
        let count = match slot {
            Some(slot) => known.max(self.movements[slot].grow),
            None => known.max(1),
        };
        let count = count.min(BLOCKS_MAX) as u64;
        let (first, count) = if down {
            let first = (at + 1).saturating_sub(count);
            (first, at + 1 - first)
        } else {
            (at, count.min(self.limit.saturating_sub(at)).max(1))
        };
        let blocks = if count == 1 {
            vec![source.block(BlockIndex(at))?]
        } else {
            match source.blocks(BlockIndex(first), count as usize) {
                Ok(blocks) => blocks,
                // A neighbour may be missing: nobody asked for it.
                Err(Error::MissingBlock(_)) => Vec::new(),
                Err(error) => return Err(error),
            }
        };
        let Some(bytes) = blocks.get((at - first) as usize).cloned() else {
            if let Some(slot) = slot {
                self.movements[slot].grow = 1;
            }
            return self.single(source, at);
        };
        let size: usize = blocks.iter().map(Bytes::len).sum();
        let affordable = BYTES_MAX / (size / blocks.len()).max(1);
        let movement = Movement { first, grow: (2 * blocks.len()).min(affordable).max(1), blocks, used: self.clock };
        match slot.or_else(|| self.oldest()) {
            Some(slot) => self.movements[slot] = movement,
            None => self.movements.push(movement),
        }
        Ok(bytes)
    }

    fn oldest(&self) -> Option<usize> {
        if self.movements.len() < MOVEMENTS {
            return None;
        }
        let age = |m: &Movement| self.clock.wrapping_sub(m.used);
        (0..self.movements.len()).max_by_key(|&i| age(&self.movements[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Counting {
        blocks: Vec<Option<Bytes>>,
        reads: AtomicUsize,
    }

    impl Counting {
        fn new(count: u64) -> Counting {
            Counting {
                blocks: (0..count).map(|i| Some(Bytes::copy_from_slice(&i.to_be_bytes()))).collect(),
                reads: AtomicUsize::new(0),
            }
        }
    }

    impl BlockSource for Counting {
        fn block(&self, index: BlockIndex) -> Result<Bytes> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            match self.blocks.get(index.0 as usize) {
                Some(Some(block)) => Ok(block.clone()),
                Some(None) => Err(Error::MissingBlock(index)),
                None => Err(Error::Invalid("no such block".into())),
            }
        }

        fn blocks(&self, first: BlockIndex, count: usize) -> Result<Vec<Bytes>> {
            self.reads.fetch_add(1, Ordering::Relaxed);
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
