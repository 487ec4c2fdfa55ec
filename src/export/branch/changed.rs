//! Which blocks of a branch were written since somebody last asked. In memory: after a restart whoever asks looks at
//! everything that the branch holds.
use crate::block::{BlockRange, ExtentSet};
use std::sync::atomic::{AtomicU64, Ordering};

/// One bit per block: 32 MiB per TiB, as at the source.
pub struct Changed(Vec<AtomicU64>);

impl Changed {
    pub fn new(blocks: u64) -> Self {
        Self((0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Blocks `first..end`; past the end of the disk nothing is noted.
    pub fn note(&self, first: u64, end: u64) {
        let mut at = first;
        while at < end {
            let Some(word) = self.0.get((at / 64) as usize) else {
                return;
            };
            let to = end.min((at / 64 + 1) * 64);
            let mask = (u64::MAX >> (64 - (to - at))) << (at % 64);
            // Most writes go where one was noted already.
            if word.load(Ordering::Relaxed) & mask != mask {
                word.fetch_or(mask, Ordering::Release);
            }
            at = to;
        }
    }

    pub fn take(&self) -> ExtentSet {
        let mut taken = ExtentSet::new();
        for (index, word) in self.0.iter().enumerate() {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::Acquire);
            let mut at = index as u64 * 64;
            while bits != 0 {
                let clear = bits.trailing_zeros();
                at += u64::from(clear);
                bits >>= clear;
                let set = bits.trailing_ones();
                taken.insert(BlockRange::new(at, u64::from(set)));
                at += u64::from(set);
                bits = bits.checked_shr(set).unwrap_or(0);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_taken_once() {
        let changed = Changed::new(200);
        for (first, end) in [(0, 1), (63, 65), (64, 128), (190, 200), (199, 300)] {
            changed.note(first, end);
        }
        let taken: Vec<_> = changed
            .take()
            .iter()
            .map(|range| (range.first, range.end()))
            .collect();
        // The last word has room for more than the disk.
        assert_eq!(taken, [(0, 1), (63, 128), (190, 256)]);
        assert!(changed.take().is_empty());
        changed.note(5, 5);
        assert!(changed.take().is_empty());
    }
}
