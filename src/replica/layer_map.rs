//! Which record of a layer answers for a block: newest wins.
use super::layer::IndexEntry;
use crate::block::BlockRange;
use std::collections::BTreeMap;

/// A run of blocks that one record answers for. `raw_block`: where its bytes begin in the decompressed frame,
/// in blocks; None for zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub end: u64,
    pub record: u64,
    pub raw_block: Option<u64>,
}

#[derive(Default)]
pub(super) struct LayerMap {
    /// first block -> segment; disjoint
    segments: BTreeMap<u64, Segment>,
}

impl LayerMap {
    /// Covers what was there before.
    pub(super) fn insert(&mut self, entry: &IndexEntry) {
        let mut raw_block = 0;
        for extent in &entry.extents {
            let range = extent.range();
            self.cut(range);
            let segment = Segment {
                end: range.end(),
                record: entry.offset,
                raw_block: (!extent.zero).then_some(raw_block),
            };
            self.segments.insert(range.first, segment);
            raw_block += if extent.zero { 0 } else { range.count };
        }
    }

    /// Removes `range` from the segments that overlap it.
    fn cut(&mut self, range: BlockRange) {
        let from = self
            .segments
            .range(..range.first)
            .next_back()
            .map_or(range.first, |(&first, _)| first);
        let overlapping: Vec<(u64, Segment)> = self
            .segments
            .range(from..range.end())
            .filter(|(_, segment)| segment.end > range.first)
            .map(|(&first, &segment)| (first, segment))
            .collect();
        for (first, segment) in overlapping {
            self.segments.remove(&first);
            if first < range.first {
                self.segments.insert(
                    first,
                    Segment {
                        end: range.first,
                        ..segment
                    },
                );
            }
            if segment.end > range.end() {
                let raw_block = segment.raw_block.map(|raw| raw + (range.end() - first));
                self.segments
                    .insert(range.end(), Segment { raw_block, ..segment });
            }
        }
    }

    /// Calls `visit` for consecutive parts of `range`, in order: with the segment, shifted to the part, or with
    /// None where this layer holds nothing.
    pub(super) fn walk(&self, range: BlockRange, mut visit: impl FnMut(BlockRange, Option<Segment>)) {
        let mut at = range.first;
        let from = self
            .segments
            .range(..=at)
            .next_back()
            .map_or(at, |(&first, _)| first);
        for (&first, &segment) in self.segments.range(from..range.end()) {
            if segment.end <= at {
                continue;
            }
            if first > at {
                visit(BlockRange::new(at, first - at), None);
                at = first;
            }
            let end = segment.end.min(range.end());
            let raw_block = segment.raw_block.map(|raw| raw + (at - first));
            visit(
                BlockRange::new(at, end - at),
                Some(Segment { raw_block, ..segment }),
            );
            at = end;
        }
        if at < range.end() {
            visit(BlockRange::new(at, range.end() - at), None);
        }
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = BlockRange> + '_ {
        self.segments
            .iter()
            .map(|(&first, segment)| BlockRange::new(first, segment.end - first))
    }
}
