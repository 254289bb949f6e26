//! What a peer says it has: [`RemoteBitfield`], bounded whatever it says.
//!
//! ```text
//! blocks   0 ......... contiguous ..................................
//!          has all      | pages of 32768 bits: full, or 4 KiB of bits
//! ```
//!
//! A peer that holds everything, as most do, is one number here.
//!
//! What must stay true: no message makes this allocate more than [`PAGES_MAX`] pages; what does not fit is forgotten, which costs requests that could have
//! been made and nothing else; nothing here is trusted, for a peer that lies is found out when it does not deliver.

use std::collections::BTreeMap;

use pgbee_engine::BlockIndex;

/// Bits of a page.
const PAGE_BITS: u64 = 32768;
const PAGE_WORDS: usize = PAGE_BITS as usize / 64;
/// How many pages one peer of one core may fill: 128 million blocks where it has some and lacks others, in 16 MiB.
pub const PAGES_MAX: usize = 4096;
/// How many blocks of one range behind the prefix are taken note of.
const RANGE_BLOCKS_MAX: u64 = 1 << 21;

enum Page {
    Full,
    Bits(Box<[u64; PAGE_WORDS]>),
}

/// Which blocks a peer says it has.
#[derive(Default)]
pub struct RemoteBitfield {
    contiguous: u64,
    pages: BTreeMap<u64, Page>,
}

impl RemoteBitfield {
    /// It has the blocks before this one, as it said itself.
    pub fn contiguous(&self) -> u64 {
        self.contiguous
    }

    /// Whether it has a block.
    pub fn get(&self, block: BlockIndex) -> bool {
        let BlockIndex(block) = block;
        block < self.contiguous
            || match self.pages.get(&(block / PAGE_BITS)) {
                None => false,
                Some(Page::Full) => true,
                Some(Page::Bits(words)) => words[(block % PAGE_BITS / 64) as usize] >> (block % 64) & 1 == 1,
            }
    }

    /// Whether it has all of these.
    pub fn has_all(&self, start: BlockIndex, length: u64) -> bool {
        let end = start.0.saturating_add(length);
        self.missing_before(start.0, end) >= end
    }

    /// The first block from here on that it has.
    pub fn first_set(&self, from: BlockIndex) -> Option<BlockIndex> {
        let BlockIndex(from) = from;
        if from < self.contiguous {
            return Some(BlockIndex(from));
        }
        for (&number, page) in self.pages.range(from / PAGE_BITS..) {
            let base = number * PAGE_BITS;
            let start = from.max(base);
            match page {
                Page::Full => return Some(BlockIndex(start)),
                Page::Bits(words) => {
                    let first = ((start - base) / 64) as usize;
                    let mut mask = u64::MAX << (start % 64);
                    for (at, &word) in words.iter().enumerate().skip(first) {
                        let set = word & mask;
                        if set != 0 {
                            return Some(BlockIndex(base + at as u64 * 64 + u64::from(set.trailing_zeros())));
                        }
                        mask = u64::MAX;
                    }
                }
            }
        }
        None
    }

    /// The first block from here on that it is not known to have.
    pub fn first_missing(&self, from: BlockIndex) -> BlockIndex {
        BlockIndex(self.missing_before(from.0, u64::MAX))
    }

    /// The same, looked for no further than up to a block: whoever claims much shall not make us look at all of it.
    fn missing_before(&self, from: u64, end: u64) -> u64 {
        let mut at = from.max(self.contiguous);
        while at < end {
            match self.pages.get(&(at / PAGE_BITS)) {
                None => return at,
                Some(Page::Full) => at = (at / PAGE_BITS + 1) * PAGE_BITS,
                Some(Page::Bits(words)) => {
                    let bit = at % 64;
                    let missing = !words[(at % PAGE_BITS / 64) as usize] >> bit << bit;
                    if missing != 0 {
                        return at - bit + u64::from(missing.trailing_zeros());
                    }
                    at = at - bit + 64;
                }
            }
        }
        at
    }

    /// It says it has, or has lost, these blocks. `limit` is how long the core is at most: what lies behind it is not looked at.
    pub fn range(&mut self, drop: bool, start: BlockIndex, length: u64, limit: u64) {
        let (start, end) = (start.0, start.0.saturating_add(length).min(limit));
        if start >= end {
            return;
        }
        if drop {
            return self.remove(start, end);
        }
        if start <= self.contiguous {
            self.contiguous = self.contiguous.max(end);
            self.absorb();
            return;
        }
        // A few bytes must not cost more than what they could honestly say.
        let end = end.min(start.saturating_add(RANGE_BLOCKS_MAX));
        for number in start / PAGE_BITS..=(end - 1) / PAGE_BITS {
            let base = number * PAGE_BITS;
            if start <= base && end >= base + PAGE_BITS {
                if self.has_room(number) {
                    self.pages.insert(number, Page::Full);
                }
            } else if let Some(words) = self.bits(number) {
                each_word(start.max(base) - base, end.min(base + PAGE_BITS) - base, |at, mask| words[at] |= mask);
            }
            if self.pages.len() >= PAGES_MAX {
                break;
            }
        }
    }

    /// What it says of these blocks overrides what it said of them before. `start` has to be a multiple of 32.
    pub fn bitfield(&mut self, start: BlockIndex, words: &[u32], limit: u64) {
        let BlockIndex(start) = start;
        let end = start.saturating_add(words.len() as u64 * 32).min(limit);
        if start % 32 != 0 || start >= end {
            return;
        }
        self.remove(start, end);
        for (at, &word) in words.iter().enumerate() {
            let first = start + at as u64 * 32;
            if first >= end {
                break;
            }
            if word != 0
                && let Some(page) = self.bits(first / PAGE_BITS)
            {
                page[(first % PAGE_BITS / 64) as usize] |= u64::from(word) << (first % 64);
            }
        }
        self.absorb();
    }

    /// It has nothing from here on: its core is no longer.
    pub fn truncate(&mut self, length: u64) {
        let last = self.pages.last_key_value().map_or(0, |(&last, _)| (last + 1) * PAGE_BITS);
        self.remove(length, last.max(self.contiguous));
    }

    fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        if start < self.contiguous {
            // What the prefix held behind the hole is forgotten, but for the pages it reaches into: it will be said again if it is asked for.
            let prefix = std::mem::replace(&mut self.contiguous, start);
            if end < prefix {
                self.range(false, BlockIndex(end), prefix - end, u64::MAX);
            }
        }
        let touched: Vec<u64> =
            self.pages.range(start / PAGE_BITS..=(end - 1) / PAGE_BITS).map(|(&number, _)| number).collect();
        for number in touched {
            let base = number * PAGE_BITS;
            if start <= base && end >= base + PAGE_BITS {
                self.pages.remove(&number);
            } else if let Some(words) = self.bits(number) {
                each_word(start.max(base) - base, end.min(base + PAGE_BITS) - base, |at, mask| words[at] &= !mask);
                if words.iter().all(|&word| word == 0) {
                    self.pages.remove(&number);
                }
            }
        }
    }

    fn has_room(&self, number: u64) -> bool {
        self.pages.len() < PAGES_MAX || self.pages.contains_key(&number)
    }

    /// A page's bits, made if there is room for them.
    fn bits(&mut self, number: u64) -> Option<&mut [u64; PAGE_WORDS]> {
        if !self.has_room(number) {
            return None;
        }
        let page = self.pages.entry(number).or_insert_with(|| Page::Bits(Box::new([0; PAGE_WORDS])));
        if matches!(page, Page::Full) {
            *page = Page::Bits(Box::new([u64::MAX; PAGE_WORDS]));
        }
        match page {
            Page::Bits(words) => Some(words),
            Page::Full => None,
        }
    }

    /// Forget the pages that the prefix has passed.
    fn absorb(&mut self) {
        self.contiguous = self.first_missing(BlockIndex(self.contiguous)).0;
        while let Some((&number, _)) = self.pages.first_key_value()
            && (number + 1) * PAGE_BITS <= self.contiguous
        {
            self.pages.remove(&number);
        }
    }
}

/// The words of a page that these bits of it touch, and the bits they touch there.
fn each_word(start: u64, end: u64, mut change: impl FnMut(usize, u64)) {
    let mut at = start;
    while at < end {
        let bit = at % 64;
        let count = (64 - bit).min(end - at);
        change((at / 64) as usize, (u64::MAX >> (64 - count)) << bit);
        at += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Clone, Debug)]
    enum Said {
        Range(bool, u64, u64),
        Bitfield(u64, Vec<u32>),
    }

    fn said() -> impl Strategy<Value = Said> {
        let block = || prop_oneof![0..200u64, PAGE_BITS - 70..PAGE_BITS + 70, 0..3 * PAGE_BITS];
        prop_oneof![
            (any::<bool>(), block(), 0..300u64).prop_map(|(drop, at, len)| Said::Range(drop, at, len)),
            (any::<bool>(), block(), 0..2 * PAGE_BITS).prop_map(|(drop, at, len)| Said::Range(drop, at, len)),
            (block(), proptest::collection::vec(any::<u32>(), 0..20))
                .prop_map(|(at, words)| Said::Bitfield(at & !31, words)),
        ]
    }

    const LIMIT: u64 = 3 * PAGE_BITS + 17;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_remote_bitfield_is_a_set(all in proptest::collection::vec(said(), 0..12)) {
            let (mut field, mut model) = (RemoteBitfield::default(), BTreeSet::new());
            for said in all {
                match said {
                    Said::Range(drop, at, len) => {
                        field.range(drop, BlockIndex(at), len, LIMIT);
                        let end = (at + len).min(LIMIT);
                        if drop { model.retain(|block| !(at..end).contains(block)) } else { model.extend(at..end) }
                    }
                    Said::Bitfield(at, words) => {
                        field.bitfield(BlockIndex(at), &words, LIMIT);
                        let end = (at + 32 * words.len() as u64).min(LIMIT);
                        model.retain(|block| !(at..end).contains(block));
                        for bit in at..end.max(at) {
                            // A word that reaches behind the limit is taken as it is.
                            let offset = bit - at;
                            if words[(offset / 32) as usize] >> (offset % 32) & 1 == 1 { model.insert(bit); }
                        }
                    }
                }
            }
            for block in (0..LIMIT - 32).step_by(7).chain(0..100).chain(PAGE_BITS - 40..PAGE_BITS + 40) {
                prop_assert_eq!(field.get(BlockIndex(block)), model.contains(&block), "{}", block);
            }
            for from in [0, 1, 63, 64, PAGE_BITS - 1, PAGE_BITS, 2 * PAGE_BITS + 5] {
                let set = model.range(from..).next().copied();
                prop_assert_eq!(field.first_set(BlockIndex(from)).map(|block| block.0), set);
                let missing = (from..).find(|block| !model.contains(block)).unwrap();
                prop_assert!(field.has_all(BlockIndex(from), missing - from));
                prop_assert!(!field.has_all(BlockIndex(from), missing - from + 1) || missing >= LIMIT - 32);
            }
        }
    }

    #[test]
    fn what_a_peer_claims_does_not_fill_memory() {
        let mut field = RemoteBitfield::default();
        field.range(false, BlockIndex(5), u64::MAX, u64::MAX >> 11);
        assert!(field.pages.len() <= PAGES_MAX);
        for page in 0..3 * PAGES_MAX as u64 {
            field.range(false, BlockIndex(page * 7 * PAGE_BITS + 3), 1, u64::MAX >> 11);
            field.bitfield(BlockIndex(page * 5 * PAGE_BITS), &[1], u64::MAX >> 11);
        }
        assert!(field.pages.len() <= PAGES_MAX);
        field.range(false, BlockIndex(0), u64::MAX, u64::MAX >> 11);
        assert_eq!(field.contiguous(), u64::MAX >> 11);
        field.range(true, BlockIndex(10), u64::MAX, u64::MAX >> 11);
        assert_eq!(field.first_missing(BlockIndex(0)), BlockIndex(10));
    }
}
