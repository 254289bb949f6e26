//! Which blocks of a core are here: one bit a block, in pages, behind a prefix without holes.
//!
//! ```text
//! blocks   0 ............ contiguous ......................
//!          all here      | pages of 32768 bits, where any is set; bit i & 7 of byte i >> 3
//! ```
//!
//! A core that is held whole, as a writer's always is, is the prefix alone: no pages, a few bytes of
//! memory at any length. A sparse replica has pages where it holds something; they are stored under
//! their numbers and rewritten when they change.
//!
//! A clone shares its pages and copies those that one of both changes: a commit makes the bitfield that it will publish
//! while readers look at the one before.
//!
//! Invariants: the block at `contiguous` is not held; pages hold no bits below it that matter (they may
//! be set there, and are ignored); an empty page is not kept.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::position::{BlockIndex, Length};

/// Bits of a page.
pub const PAGE_BITS: u64 = 32768;
/// Bytes of a page.
pub const PAGE_BYTES: usize = PAGE_BITS as usize / 8;
const PAGE_WORDS: usize = PAGE_BITS as usize / 64;

type Page = Arc<[u64; PAGE_WORDS]>;

/// Which blocks are held.
#[derive(Clone, Debug, Default)]
pub struct Bitfield {
    contiguous: u64,
    pages: BTreeMap<u64, Page>,
    changed: BTreeSet<u64>,
}

impl Bitfield {
    /// Of a core of which every block below this length is held, and none from it on.
    pub fn full(length: Length) -> Bitfield {
        Bitfield { contiguous: length.0, ..Bitfield::default() }
    }

    /// The first block that is not held.
    pub fn contiguous(&self) -> Length {
        Length(self.contiguous)
    }

    /// Whether the block is held.
    pub fn get(&self, block: BlockIndex) -> bool {
        let BlockIndex(block) = block;
        let bit = || {
            let (page, word, bit) = place(block);
            self.pages.get(&page).is_some_and(|page| page[word] >> bit & 1 == 1)
        };
        block < self.contiguous || bit()
    }

    /// The block is held now.
    pub fn set(&mut self, block: BlockIndex) {
        if block.0 == self.contiguous {
            // The writer's case: no page is touched.
            self.contiguous += 1;
            self.absorb();
        } else if block.0 > self.contiguous {
            let (number, word, bit) = place(block.0);
            let held = &mut self.page(number)[word];
            if *held >> bit & 1 == 0 {
                *held |= 1 << bit;
                self.changed.insert(number);
            }
        }
    }

    /// No block from this length on is held.
    pub fn truncate(&mut self, length: Length) {
        self.contiguous = self.contiguous.min(length.0);
        let gone = self.pages.split_off(&length.0.div_ceil(PAGE_BITS));
        self.changed.extend(gone.into_keys());
        let number = length.0 / PAGE_BITS;
        if self.pages.contains_key(&number) {
            self.each_word(length.0..(number + 1) * PAGE_BITS, |word, mask| *word &= !mask);
        }
    }

    /// Whether any of these blocks is held.
    pub fn any(&self, blocks: Range<BlockIndex>) -> bool {
        let (start, end) = (blocks.start.0, blocks.end.0);
        if start >= end || start < self.contiguous {
            return start < end;
        }
        let mut pages = self.pages.range(start / PAGE_BITS..=(end - 1) / PAGE_BITS);
        pages.any(|(&number, page)| masks(number, start..end).any(|(word, mask)| page[word] & mask != 0))
    }

    /// All these blocks are held now.
    pub fn set_range(&mut self, blocks: Range<BlockIndex>) {
        let (start, end) = (blocks.start.0, blocks.end.0);
        if start <= self.contiguous {
            self.contiguous = self.contiguous.max(end);
            return self.absorb();
        }
        self.each_word(start..end, |word, mask| *word |= mask);
    }

    /// None of these blocks is held any longer.
    pub fn unset_range(&mut self, blocks: Range<BlockIndex>) {
        let (start, end) = (blocks.start.0, blocks.end.0);
        if start >= end {
            return;
        }
        if start < self.contiguous {
            // What the prefix held beyond the hole has to be said by pages now.
            let prefix = std::mem::replace(&mut self.contiguous, start);
            self.each_word(start..prefix, |word, mask| *word |= mask);
        }
        let last = self.pages.last_key_value().map_or(0, |(page, _)| (page + 1) * PAGE_BITS);
        self.each_word(start..end.min(last), |word, mask| *word &= !mask);
    }

    /// How many of these blocks are held.
    pub fn count(&self, blocks: Range<BlockIndex>) -> u64 {
        let (start, end) = (blocks.start.0, blocks.end.0);
        let prefix = self.contiguous.clamp(start, end.max(start)) - start;
        let mut count = prefix;
        let from = start.max(self.contiguous);
        if from < end {
            for (&number, page) in self.pages.range(from / PAGE_BITS..=(end - 1) / PAGE_BITS) {
                for (word, mask) in masks(number, from..end) {
                    count += u64::from((page[word] & mask).count_ones());
                }
            }
        }
        count
    }

    /// The first block from here on that is not held. There always is one.
    pub fn first_unset(&self, from: BlockIndex) -> BlockIndex {
        let mut at = from.0.max(self.contiguous);
        loop {
            let (number, word, bit) = place(at);
            let Some(page) = self.pages.get(&number) else {
                return BlockIndex(at);
            };
            let holes = !page[word] >> bit << bit;
            if holes != 0 {
                return BlockIndex(at - bit + u64::from(holes.trailing_zeros()));
            }
            at = at - bit + 64;
        }
    }

    /// The first block from here on that is held.
    pub fn first_set(&self, from: BlockIndex) -> Option<BlockIndex> {
        if from.0 < self.contiguous {
            return Some(from);
        }
        for (&number, page) in self.pages.range(from.0 / PAGE_BITS..) {
            for (word, mask) in masks(number, from.0..u64::MAX) {
                let held = page[word] & mask;
                if held != 0 {
                    let bit = u64::from(held.trailing_zeros());
                    return Some(BlockIndex(number * PAGE_BITS + word as u64 * 64 + bit));
                }
            }
        }
        None
    }

    /// What is held from `start` on, 32 blocks a word, the first in the lowest bit. `start` is rounded down to a multiple of 32.
    pub fn words(&self, start: BlockIndex, words: usize) -> Vec<u32> {
        let first = start.0 / 32;
        (first..first.saturating_add(words as u64)).map(|word| self.word(word)).collect()
    }

    fn word(&self, number: u64) -> u32 {
        let Some(at) = number.checked_mul(32) else { return 0 };
        let (page, word, bit) = place(at);
        let stored = self.pages.get(&page).map_or(0, |page| (page[word] >> bit) as u32);
        match self.contiguous.saturating_sub(at) {
            prefix @ 0..32 => stored | ((1u32 << prefix) - 1),
            _ => u32::MAX,
        }
    }

    /// The last block before this one that is held.
    pub fn last_set(&self, before: BlockIndex) -> Option<BlockIndex> {
        if before.0 > self.contiguous {
            for (&number, page) in self.pages.range(..=(before.0 - 1) / PAGE_BITS).rev() {
                let words: Vec<_> = masks(number, self.contiguous..before.0).collect();
                for (word, mask) in words.into_iter().rev() {
                    let held = page[word] & mask;
                    if held != 0 {
                        let bit = 63 - u64::from(held.leading_zeros());
                        return Some(BlockIndex(number * PAGE_BITS + word as u64 * 64 + bit));
                    }
                }
            }
        }
        before.0.min(self.contiguous).checked_sub(1).map(BlockIndex)
    }

    /// The numbers of pages that changed since this was last asked. A page that is no longer there has to
    /// be removed from the store.
    pub fn take_changed(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.changed)
    }

    /// A page's bytes, as they are stored and sent, if it has any bit set.
    pub fn page_bytes(&self, number: u64) -> Option<Vec<u8>> {
        Some(self.pages.get(&number)?.iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    /// Take in a stored page. `false` if it has another size.
    pub fn load_page(&mut self, number: u64, bytes: &[u8]) -> bool {
        if bytes.len() != PAGE_BYTES {
            return false;
        }
        let (words, _) = bytes.as_chunks::<8>();
        let page = self.page(number);
        for (word, bytes) in page.iter_mut().zip(words) {
            *word = u64::from_le_bytes(*bytes);
        }
        self.absorb();
        true
    }

    fn page(&mut self, number: u64) -> &mut [u64; PAGE_WORDS] {
        Arc::make_mut(self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE_WORDS])))
    }

    /// Change the words that these blocks lie in, and forget pages without a bit.
    fn each_word(&mut self, blocks: Range<u64>, change: impl Fn(&mut u64, u64)) {
        if blocks.is_empty() {
            return;
        }
        for number in blocks.start / PAGE_BITS..=(blocks.end - 1) / PAGE_BITS {
            let page = self.page(number);
            for (word, mask) in masks(number, blocks.clone()) {
                change(&mut page[word], mask);
            }
            if page.iter().all(|&word| word == 0) {
                self.pages.remove(&number);
            }
            self.changed.insert(number);
        }
    }

    /// Let the prefix grow over what pages hold behind it, and forget pages it has passed.
    fn absorb(&mut self) {
        self.contiguous = self.first_unset(BlockIndex(self.contiguous)).0;
        while let Some((&number, _)) = self.pages.first_key_value()
            && (number + 1) * PAGE_BITS <= self.contiguous
        {
            self.pages.remove(&number);
            self.changed.insert(number);
        }
    }
}

/// Page, word in it and bit in that of a block.
fn place(block: u64) -> (u64, usize, u64) {
    (block / PAGE_BITS, (block % PAGE_BITS / 64) as usize, block % 64)
}

/// The words of a page that these blocks touch, with the bits they touch there.
fn masks(page: u64, blocks: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let base = page * PAGE_BITS;
    let start = blocks.start.max(base) - base;
    let end = (blocks.end - base).min(PAGE_BITS);
    let words = if start < end { start / 64..(end - 1) / 64 + 1 } else { 0..0 };
    words.map(move |word| {
        let low = start.saturating_sub(word * 64);
        let high = (end - word * 64).min(64);
        (word as usize, (!0 >> (64 - (high - low))) << low)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Set(u64),
        SetRange(u64, u64),
        UnsetRange(u64, u64),
        Truncate(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let block = || prop_oneof![0..200u64, PAGE_BITS - 70..PAGE_BITS + 70, 0..3 * PAGE_BITS];
        prop_oneof![
            block().prop_map(Step::Set),
            (block(), 0..200u64).prop_map(|(at, len)| Step::SetRange(at, len)),
            (block(), 0..2 * PAGE_BITS).prop_map(|(at, len)| Step::SetRange(at, len)),
            (block(), 0..2 * PAGE_BITS).prop_map(|(at, len)| Step::UnsetRange(at, len)),
            block().prop_map(Step::Truncate),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_bitfield_is_a_set(prefix in 0..300u64, steps in proptest::collection::vec(step(), 0..12)) {
            let mut field = Bitfield::full(Length(prefix));
            let mut model: BTreeSet<u64> = (0..prefix).collect();
            for step in steps {
                let range = |at, len| BlockIndex(at)..BlockIndex(at + len);
                let before = field.clone();
                let had: Vec<bool> = (0..200).map(|block| before.get(BlockIndex(block))).collect();
                match step {
                    Step::Truncate(at) => {
                        field.truncate(Length(at));
                        model.retain(|block| *block < at);
                    }
                    Step::Set(at) => { field.set(BlockIndex(at)); model.insert(at); }
                    Step::SetRange(at, len) => { field.set_range(range(at, len)); model.extend(at..at + len); }
                    Step::UnsetRange(at, len) => {
                        field.unset_range(range(at, len));
                        model.retain(|block| !(at..at + len).contains(block));
                    }
                }
                prop_assert!(had.iter().zip(0..).all(|(had, block)| before.get(BlockIndex(block)) == *had));
                let hole = (0..).find(|block| !model.contains(block)).unwrap();
                prop_assert_eq!(field.contiguous().0, hole);
                for from in [0, 1, 63, 64, 150, PAGE_BITS - 1, PAGE_BITS, 2 * PAGE_BITS + 5, 9 * PAGE_BITS] {
                    let unset = (from..).find(|block| !model.contains(block)).unwrap();
                    prop_assert_eq!(field.first_unset(BlockIndex(from)).0, unset);
                    let set = model.range(from..).next().copied();
                    prop_assert_eq!(field.first_set(BlockIndex(from)).map(|block| block.0), set);
                    let last = model.range(..from).next_back().copied();
                    prop_assert_eq!(field.last_set(BlockIndex(from)).map(|block| block.0), last);
                    let to = from + 40_000;
                    let count = model.range(from..to).count() as u64;
                    prop_assert_eq!(field.count(BlockIndex(from)..BlockIndex(to)), count);
                    prop_assert_eq!(field.any(BlockIndex(from)..BlockIndex(to)), count > 0);
                    let start = from / 32 * 32;
                    for (word, at) in field.words(BlockIndex(from), 3).into_iter().zip((start..).step_by(32)) {
                        let expected = (0..32).fold(0, |word, bit| word | u32::from(model.contains(&(at + bit))) << bit);
                        prop_assert_eq!(word, expected);
                    }
                }
            }
            // What is stored brings it back.
            let mut again = Bitfield::full(field.contiguous());
            for page in 0..6 {
                if let Some(bytes) = field.page_bytes(page) {
                    prop_assert!(again.load_page(page, &bytes));
                }
            }
            for block in 0..6 * PAGE_BITS {
                prop_assert_eq!(again.get(BlockIndex(block)), model.contains(&block));
            }
        }
    }

    #[test]
    fn a_writer_needs_no_pages() {
        let mut field = Bitfield::full(Length(0));
        for block in 0..100_000 {
            field.set(BlockIndex(block));
        }
        assert_eq!(field.contiguous(), Length(100_000));
        assert!(field.pages.is_empty() && field.take_changed().is_empty());
        field.set(BlockIndex(100_002));
        assert_eq!(field.take_changed().into_iter().collect::<Vec<_>>(), [3]);
        assert_eq!(field.page_bytes(3).unwrap()[(100_002 % PAGE_BITS / 8) as usize], 1 << (100_002 % 8));
        assert!(!field.load_page(3, &[0; 7]));
    }
}
