//! A set of blocks as bits in memory that is shared with the kernel and with agents before and after this one.
use crate::block::BlockRange;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words of 64 blocks, changed by atomic operations only. `summary` has a bit for each word that may hold bits: a
/// disk of many terabytes is not looked through for a few blocks.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    pub words: &'a [AtomicU64],
    pub summary: &'a [AtomicU64],
}

/// Words of a summary of so many words.
pub(super) fn summary_words(words: usize) -> usize {
    words.div_ceil(64)
}

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

impl<'a> Bits<'a> {
    fn each(&self, range: BlockRange, mut with: impl FnMut(usize, &AtomicU64, u64)) {
        if range.count == 0 {
            return;
        }
        let (first, last) = ((range.first / 64) as usize, ((range.end() - 1) / 64) as usize);
        for (index, word) in self
            .words
            .iter()
            .enumerate()
            .take(last.saturating_add(1))
            .skip(first)
        {
            with(index, word, mask(range, index as u64));
        }
    }

    fn sum(&self, index: usize) {
        if let Some(word) = self.summary.get(index / 64) {
            word.fetch_or(1 << (index % 64), Ordering::SeqCst);
        }
    }

    pub fn set(&self, range: BlockRange) {
        self.each(range, |index, word, mask| {
            word.fetch_or(mask, Ordering::SeqCst);
            self.sum(index);
        });
    }

    /// Only for bits that nobody sets at the same time.
    pub fn clear(&self, range: BlockRange) {
        self.each(range, |index, word, mask| {
            let before = word.fetch_and(!mask, Ordering::SeqCst);
            if before & !mask == 0
                && let Some(word) = self.summary.get(index / 64)
            {
                word.fetch_and(!(1 << (index % 64)), Ordering::SeqCst);
            }
        });
    }

    /// Makes the summary say at least what is true: after an agent that may have died while it took bits.
    pub fn sum_up(&self) {
        for (index, word) in self.words.iter().enumerate() {
            if word.load(Ordering::SeqCst) != 0 {
                self.sum(index);
            }
        }
    }

    /// The first word at or after this one that holds bits.
    fn next_word(&self, from: usize) -> Option<(usize, u64)> {
        let mut sums = self.summary.get(from / 64)?.load(Ordering::SeqCst) & !0 << (from % 64);
        let mut at = from / 64;
        loop {
            while sums != 0 {
                let index = at * 64 + sums.trailing_zeros() as usize;
                let word = self.words.get(index)?.load(Ordering::SeqCst);
                if word != 0 {
                    return Some((index, word));
                }
                sums &= sums - 1;
            }
            at += 1;
            sums = self.summary.get(at)?.load(Ordering::SeqCst);
        }
    }

    /// Words that hold bits, and their index.
    pub fn each_word(self) -> impl Iterator<Item = (usize, u64)> + 'a {
        let mut from = 0;
        std::iter::from_fn(move || {
            let found = self.next_word(from)?;
            from = found.0 + 1;
            Some(found)
        })
    }

    /// The first run of set bits at or after block `from`, cut at `blocks_max`.
    pub fn next(&self, from: u64, blocks_max: u64) -> Option<BlockRange> {
        let start = usize::try_from(from / 64).ok()?;
        let first_word = self.words.get(start)?.load(Ordering::SeqCst) & !0 << (from % 64);
        let (mut index, word) = if first_word == 0 {
            self.next_word(start + 1)?
        } else {
            (start, first_word)
        };
        let bit = u64::from(word.trailing_zeros());
        let first = index as u64 * 64 + bit;
        let mut count = u64::from((word >> bit).trailing_ones());
        // The run reached the end of its word: it may go on.
        while (first + count).is_multiple_of(64) && count < blocks_max {
            index += 1;
            let more = self
                .words
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
    /// The summary is cleared before the words are looked at: who sets a bit later sets it again.
    pub fn move_to(&self, other: &Bits) {
        for (at, sums) in self.summary.iter().enumerate() {
            if sums.load(Ordering::SeqCst) == 0 {
                continue;
            }
            let mut sums = sums.swap(0, Ordering::SeqCst);
            while sums != 0 {
                let index = at * 64 + sums.trailing_zeros() as usize;
                sums &= sums - 1;
                let (Some(word), Some(target)) = (self.words.get(index), other.words.get(index)) else {
                    continue;
                };
                let bits = word.load(Ordering::SeqCst);
                if bits != 0 {
                    target.fetch_or(bits, Ordering::SeqCst);
                    other.sum(index);
                    word.fetch_and(!bits, Ordering::SeqCst);
                }
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
            let (mine, other, sums, other_sums) = (words(8), words(8), words(1), words(1));
            let bits = Bits { words: &mine, summary: &sums };
            let target = Bits { words: &other, summary: &other_sums };
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
            let ones = |bits: &Bits| bits.each_word().map(|(_, word)| word.count_ones() as usize).sum::<usize>();
            prop_assert_eq!(ones(&bits), model.len());
            sums[0].store(0, Ordering::SeqCst);
            bits.sum_up();
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
            prop_assert_eq!(ones(&bits), 0);
            prop_assert!(mine.iter().all(|word| word.load(Ordering::SeqCst) == 0));
        }
    }
}
