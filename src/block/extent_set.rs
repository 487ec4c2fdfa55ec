//! A set of blocks as sorted, disjoint, never touching ranges.
use std::collections::BTreeMap;

/// `count` blocks from block `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRange {
    pub first: u64,
    pub count: u64,
}

impl BlockRange {
    pub fn new(first: u64, count: u64) -> Self {
        Self { first, count }
    }

    /// The first block after the range.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

/// Sorted ranges, kept merged: the number of ranges is the smallest that describes the blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtentSet {
    /// first block -> block after the last
    ranges: BTreeMap<u64, u64>,
}

impl ExtentSet {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn insert(&mut self, range: BlockRange) {
        if range.count == 0 {
            return;
        }
        let (mut first, mut end) = (range.first, range.end());
        // Only the range that begins at or before `first` can reach in from the left.
        if let Some((&left, &left_end)) = self.ranges.range(..=first).next_back()
            && left_end >= first
        {
            if left_end >= end {
                return;
            }
            first = left;
        }
        while let Some((&next, &next_end)) = self.ranges.range(first..=end).next() {
            end = end.max(next_end);
            self.ranges.remove(&next);
        }
        self.ranges.insert(first, end);
    }

    pub fn remove(&mut self, range: BlockRange) {
        if range.count == 0 {
            return;
        }
        let (first, end) = (range.first, range.end());
        if let Some((&left, &left_end)) = self.ranges.range(..first).next_back()
            && left_end > first
        {
            self.ranges.insert(left, first);
            if left_end > end {
                self.ranges.insert(end, left_end);
                return;
            }
        }
        while let Some((&next, &next_end)) = self.ranges.range(first..end).next() {
            self.ranges.remove(&next);
            if next_end > end {
                self.ranges.insert(end, next_end);
            }
        }
    }

    pub fn contains(&self, block: u64) -> bool {
        self.ranges
            .range(..=block)
            .next_back()
            .is_some_and(|(_, &end)| end > block)
    }

    pub fn intersects(&self, range: BlockRange) -> bool {
        self.ranges
            .range(..range.end())
            .next_back()
            .is_some_and(|(_, &end)| end > range.first)
            && range.count > 0
    }

    pub fn iter(&self) -> impl Iterator<Item = BlockRange> + '_ {
        self.ranges.iter().map(|(&first, &end)| BlockRange {
            first,
            count: end - first,
        })
    }

    /// How many blocks the set holds.
    pub fn blocks(&self) -> u64 {
        self.iter().map(|range| range.count).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub fn clear(&mut self) {
        self.ranges.clear();
    }

    pub fn union_with(&mut self, other: &ExtentSet) {
        for range in other.iter() {
            self.insert(range);
        }
    }

    pub fn remove_all(&mut self, other: &ExtentSet) {
        for range in other.iter() {
            self.remove(range);
        }
    }

    /// Takes a range of at most `blocks_max` blocks out of the set, the lowest first.
    pub fn take_first(&mut self, blocks_max: u64) -> Option<BlockRange> {
        let (&first, &end) = self.ranges.iter().next()?;
        let range = BlockRange {
            first,
            count: (end - first).min(blocks_max),
        };
        self.remove(range);
        (range.count > 0).then_some(range)
    }
}

impl FromIterator<BlockRange> for ExtentSet {
    fn from_iter<I: IntoIterator<Item = BlockRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_shape(set: &ExtentSet) {
        let mut last_end = None;
        for range in set.iter() {
            assert!(range.count > 0);
            assert!(
                last_end.is_none_or(|end| range.first > end),
                "ranges touch: {set:?}"
            );
            last_end = Some(range.end());
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_vector_of_bits(steps in prop::collection::vec((any::<bool>(), 0u64..200, 0u64..60), 1..80)) {
            let mut set = ExtentSet::new();
            let mut bits = [false; 300];
            for (insert, first, count) in steps {
                let range = BlockRange::new(first, count);
                if insert { set.insert(range) } else { set.remove(range) }
                for block in range.first..range.end() {
                    bits[block as usize] = insert;
                }
                check_shape(&set);
                for (block, &bit) in bits.iter().enumerate() {
                    prop_assert_eq!(set.contains(block as u64), bit);
                }
                let probe = BlockRange::new(first / 2, count / 2);
                prop_assert_eq!(set.intersects(probe), (probe.first..probe.end()).any(|block| bits[block as usize]));
                prop_assert_eq!(set.blocks(), bits.iter().filter(|&&bit| bit).count() as u64);
            }
            let whole = set.blocks();
            let mut taken = 0;
            while let Some(range) = set.take_first(7) {
                prop_assert!(range.count <= 7);
                taken += range.count;
            }
            prop_assert_eq!(taken, whole);
        }
    }
}
