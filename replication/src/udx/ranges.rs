//! Sets of packet numbers as sorted, disjoint ranges: what came out of order here, and what the other side says did there.
//!
//! What must stay true: ranges are not empty, do not overlap and do not touch, and each starts after the one before it.

use super::packet::Seq;

/// A range of packets, end exclusive.
pub type Range = (Seq, Seq);

/// Packets by number.
#[derive(Debug, Default)]
pub struct RangeSet(Vec<Range>);

impl RangeSet {
    /// Adds a range, and appends to `fresh` what of it was not in the set.
    pub fn insert(&mut self, (start, end): Range, fresh: &mut Vec<Range>) {
        if start >= end {
            return;
        }
        let from = self.0.partition_point(|range| range.1 < start);
        let (mut to, mut at) = (from, start);
        while let Some(range) = self.0.get(to).filter(|range| range.0 <= end) {
            if range.0 > at {
                fresh.push((at, range.0));
            }
            at = at.max(range.1);
            to += 1;
        }
        if at < end {
            fresh.push((at, end));
        }
        if from == to {
            self.0.insert(from, (start, end));
        } else {
            self.0[from] = (start.min(self.0[from].0), end.max(self.0[to - 1].1));
            self.0.drain(from + 1..to);
        }
    }
    /// Forgets all before a number.
    pub fn remove_before(&mut self, seq: Seq) {
        let gone = self.0.partition_point(|range| range.1 <= seq);
        self.0.drain(..gone);
        if let Some(first) = self.0.first_mut() {
            first.0 = first.0.max(seq);
        }
    }
    /// Whether adding this one number would make one range more.
    pub fn would_grow(&self, seq: Seq) -> bool {
        let at = self.0.partition_point(|range| range.1 < seq);
        self.0.get(at).is_none_or(|range| range.0 > seq.plus(1))
    }
    /// Where the range is that holds a number, or would be the next one.
    pub fn position(&self, seq: Seq) -> usize {
        self.0.partition_point(|range| range.1 <= seq)
    }
    /// The ranges in order.
    pub fn as_slice(&self) -> &[Range] {
        &self.0
    }
    /// How many ranges.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// The highest number in it.
    pub fn last(&self) -> Option<Seq> {
        self.0.last().map(|range| Seq(range.1.0 - 1))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It is a set of numbers, kept as few ranges, and says what was new.
        #[test]
        fn a_set_of_numbers(steps in proptest::collection::vec((0u64..200, 0u64..20, 0u8..8), 1..100)) {
            let (mut ranges, mut model, mut fresh) = (RangeSet::default(), BTreeSet::new(), vec![]);
            for (start, len, kind) in steps {
                if kind == 0 {
                    ranges.remove_before(Seq(start / 2));
                    model.retain(|number| *number >= start / 2);
                } else {
                    let grows = ranges.would_grow(Seq(start));
                    let before = ranges.len();
                    fresh.clear();
                    ranges.insert((Seq(start), Seq(start + len)), &mut fresh);
                    let new: Vec<u64> = (start..start + len).filter(|number| model.insert(*number)).collect();
                    let told: Vec<u64> = fresh.iter().flat_map(|range| range.0.0..range.1.0).collect();
                    prop_assert_eq!(new, told);
                    prop_assert!(len != 1 || grows == (ranges.len() > before));
                }
                let numbers: Vec<u64> = ranges.as_slice().iter().flat_map(|range| range.0.0..range.1.0).collect();
                prop_assert!(numbers.iter().eq(&model));
                prop_assert!(ranges.as_slice().windows(2).all(|pair| pair[0].1 < pair[1].0));
            }
        }
    }
}
