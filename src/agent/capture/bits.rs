//! A set of blocks as bits in memory that is shared with the kernel and with agents before and after this one.
use crate::block::BlockRange;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words of 64 blocks, changed by atomic operations only.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a>(pub &'a [AtomicU64]);

/// The bits of `range` that fall into word `index`.
fn mask(range: BlockRange, index: u64) -> u64 {
    let from = range.first.max(index * 64) - index * 64;
    let to = range.end().min(index * 64 + 64).saturating_sub(index * 64);
    if to <= from {
        0
    } else if to - from == 64 {
        !0
    } else {
        ((1 << (to - from)) - 1) << from
    }
}

impl Bits<'_> {
    fn each(&self, range: BlockRange, mut with: impl FnMut(&AtomicU64, u64)) {
        if range.count == 0 {
            return;
        }
        let (first, last) = ((range.first / 64) as usize, ((range.end() - 1) / 64) as usize);
        for (index, word) in self.0.iter().enumerate().take(last.saturating_add(1)).skip(first) {
            with(word, mask(range, index as u64));
        }
    }

    pub fn set(&self, range: BlockRange) {
        self.each(range, |word, mask| {
            word.fetch_or(mask, Ordering::SeqCst);
        });
    }

    pub fn clear(&self, range: BlockRange) {
        self.each(range, |word, mask| {
            word.fetch_and(!mask, Ordering::SeqCst);
        });
    }

    #[cfg(test)]
    pub fn count(&self) -> u64 {
        self.0
            .iter()
            .map(|word| u64::from(word.load(Ordering::Relaxed).count_ones()))
            .sum()
    }

    /// The first run of set bits at or after block `from`, cut at `blocks_max`.
    pub fn next(&self, from: u64, blocks_max: u64) -> Option<BlockRange> {
        let mut index = usize::try_from(from / 64).ok()?;
        let mut word = self.0.get(index)?.load(Ordering::SeqCst) & !0 << (from % 64);
        while word == 0 {
            index += 1;
            word = self.0.get(index)?.load(Ordering::SeqCst);
        }
        let bit = u64::from(word.trailing_zeros());
        let first = index as u64 * 64 + bit;
        let mut count = u64::from((word >> bit).trailing_ones());
        // The run reached the end of its word: it may go on.
        while (first + count).is_multiple_of(64) && count < blocks_max {
            index += 1;
            let more = self
                .0
                .get(index)
                .map_or(0, |word| word.load(Ordering::SeqCst).trailing_ones());
            if more == 0 {
                break;
            }
            count += u64::from(more);
        }
        Some(BlockRange::new(first, count.min(blocks_max)))
    }

    /// Moves all bits into `other`. There first: an agent that dies between the two takes the bits once more,
    /// never not at all. A write that completes before its bit is wiped is on the medium when the block is read.
    pub fn move_to(&self, other: &Bits) {
        for (word, target) in self.0.iter().zip(other.0) {
            let bits = word.load(Ordering::SeqCst);
            if bits != 0 {
                target.fetch_or(bits, Ordering::SeqCst);
                word.fetch_and(!bits, Ordering::SeqCst);
            }
        }
    }

    /// Whether a bit is set outside of these ranges, which are sorted.
    pub fn any_except(&self, except: &[BlockRange]) -> bool {
        let mut from = 0;
        while let Some(range) = self.next(from, u64::MAX) {
            match outside(range, except) {
                Ok(_) => return true,
                Err(end) => from = end,
            }
        }
        false
    }
}

/// The first part of `range` that lies outside of `except` (sorted), or the block from which to look on.
pub fn outside(range: BlockRange, except: &[BlockRange]) -> Result<BlockRange, u64> {
    let next = except.partition_point(|other| other.end() <= range.first);
    match except.get(next) {
        Some(other) if other.first <= range.first => Err(other.end()),
        Some(other) if other.first < range.end() => {
            Ok(BlockRange::new(range.first, other.first - range.first))
        }
        _ => Ok(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn words(count: usize) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(0)).collect()
    }

    fn blocks(bits: &Bits, blocks_max: u64) -> BTreeSet<u64> {
        let (mut from, mut all) = (0, BTreeSet::new());
        while let Some(range) = bits.next(from, blocks_max) {
            assert!(range.count > 0 && range.count <= blocks_max && range.first >= from);
            all.extend(range.first..range.end());
            from = range.end();
        }
        all
    }

    proptest! {
        #[test]
        fn bits_are_a_set(
            operations in prop::collection::vec((any::<bool>(), 0u64..500, 0u64..200), 0..40),
            blocks_max in 1u64..100,
            except in prop::collection::btree_map(0u64..500, 1u64..50, 0..5),
        ) {
            let (mine, other) = (words(8), words(8));
            let (bits, target) = (Bits(&mine), Bits(&other));
            let mut model = BTreeSet::new();
            for (insert, first, count) in operations {
                let range = BlockRange::new(first, count);
                if insert {
                    bits.set(range);
                    model.extend(first..(first + count).min(512));
                } else {
                    bits.clear(range);
                    model.retain(|block| !(first..first + count).contains(block));
                }
            }
            prop_assert_eq!(blocks(&bits, blocks_max), model.clone());
            prop_assert_eq!(bits.count(), model.len() as u64);
            let mut end = 0;
            let mut sorted = Vec::new();
            for (first, count) in except {
                if first >= end {
                    sorted.push(BlockRange::new(first, count));
                    end = first + count;
                }
            }
            let left = model.iter().any(|&block| !sorted.iter().any(|r| r.first <= block && block < r.end()));
            prop_assert_eq!(bits.any_except(&sorted), left);
            bits.move_to(&target);
            prop_assert_eq!(blocks(&target, 7), model);
            prop_assert_eq!(bits.count(), 0);
        }
    }
}
