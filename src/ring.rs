//! A ring: the buckets of one grain, each a count and its states, of which the newest are kept.
//!
//! Invariants
//! 1. Buckets have absolute numbers ([`TimeZone::bucket`](crate::TimeZone::bucket)); the newest seen, and nothing else, decides
//!    which are kept: exactly those with `number >= keep.oldest(newest)`. So any order of events
//!    and any merge order leaves the same buckets.
//! 2. Buckets live in blocks of [`BLOCK_BUCKETS`] neighbours, sorted by number; a block is never
//!    empty. A block is what is stored, copied and written again as one; closed ones are not
//!    touched any more.
//!
//! The rings of a series that only counts, in few buckets, are bytes in its row (`ring/packed.rs`); sums over
//! many buckets that are asked for again are in `ring/sliding.rs`.
//! Next: `series.rs`.

pub(crate) mod packed;
pub(crate) mod sliding;

use crate::aggregate::{Aggregate, Count, Inputs, Sketch, StatesMut, StatesRef, Stats};
use crate::codec::{self, Malformed};
use crate::series::Shape;
use crate::time::Keep;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use thin_vec::ThinVec;

/// Buckets in a block.
pub(crate) const BLOCK_BUCKETS: i64 = 32;

#[derive(Debug, Default)]
pub(crate) struct Ring {
    /// The greatest bucket number seen; `None` before the first event.
    newest: Option<i64>,
    blocks: Vec<Block>,
    /// Stored blocks that rotated out since the holder last asked.
    dropped: ThinVec<i64>,
    /// Bytes of blocks and cells.
    bytes: usize,
    revision: Revision,
}

/// Tells a ring from what it was and from any other one, all buckets but the newest: while it is the same,
/// they hold what they held, but for those that were rotated out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revision {
    /// Whose blocks can be compared by their number of late changes.
    ring: u64,
    /// How often a bucket was changed that was not the newest any more.
    late: u32,
}

impl Default for Revision {
    /// As no ring ever had it.
    fn default() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        Revision { ring: MADE.fetch_add(1, Ordering::Relaxed), late: 0 }
    }
}

impl Clone for Ring {
    fn clone(&self) -> Self {
        Ring {
            newest: self.newest,
            blocks: self.blocks.clone(),
            dropped: self.dropped.clone(),
            bytes: self.bytes,
            // The copy goes its own way.
            revision: Revision::default(),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// Bucket number / `BLOCK_BUCKETS`, rounded down.
    pub(crate) number: i64,
    /// The holder's mark of the last change (the tier's generation); 0 is unchanged.
    pub(crate) changed: u32,
    /// Whether the snapshot store has a row for it.
    pub(crate) stored: bool,
    /// How often a bucket of it was changed that was not the newest of the ring any more.
    late: u32,
    /// A bit for each place that has a bucket.
    places: u32,
    /// Their counts, in the order of the places.
    counts: Vec<Count>,
    /// Their states, as many for each as the shape has.
    stats: Vec<Stats>,
    sketches: ThinVec<Sketch>,
}

/// A bucket that is there, to be changed.
pub(crate) struct BucketMut<'a> {
    count: &'a mut Count,
    states: StatesMut<'a>,
    /// Of the ring: bytes of blocks and what is in them.
    bytes: &'a mut usize,
}

impl BucketMut<'_> {
    /// Folds in an event that counts for so many.
    #[inline]
    pub(crate) fn observe<'m>(self, times: u64, inputs: impl Inputs<'m>) {
        self.count.add(times);
        let grown = self.states.observe(times, inputs);
        *self.bytes = self.bytes.wrapping_add_signed(grown);
    }

    pub(crate) fn merge(self, count: Count, states: StatesRef<'_>) {
        self.count.merge(&count);
        let grown = self.states.merge(states);
        *self.bytes = self.bytes.wrapping_add_signed(grown);
    }
}

impl Ring {
    /// Bucket `number`, made when it is not there. `None` when it is older than what is kept.
    pub(crate) fn bucket_mut(
        &mut self,
        keep: Keep,
        number: i64,
        shape: &Shape,
        mark: u32,
    ) -> Option<BucketMut<'_>> {
        let newest = self.newest.map_or(number, |newest| newest.max(number));
        if number < keep.oldest(newest) {
            return None;
        }
        if self.newest != Some(newest) {
            self.newest = Some(newest);
            self.rotate(keep, mark);
        }
        let at = self.block_at(number.div_euclid(BLOCK_BUCKETS));
        let block = &mut self.blocks[at];
        block.changed = mark;
        if number < newest {
            block.late = block.late.wrapping_add(1);
            match self.revision.late.checked_add(1) {
                Some(late) => self.revision.late = late,
                None => self.revision = Revision::default(),
            }
        }
        Some(block.bucket_mut(number.rem_euclid(BLOCK_BUCKETS) as u8, shape, &mut self.bytes))
    }

    /// The snapshot store is about to have a row for each block.
    pub(crate) fn note_stored(&mut self) {
        self.blocks.iter_mut().for_each(|block| block.stored = true);
    }

    /// The place of block `number`, made when it is not there. The last block is looked at first:
    /// events come mostly in order.
    fn block_at(&mut self, number: i64) -> usize {
        match self.blocks.last() {
            Some(last) if last.number == number => return self.blocks.len() - 1,
            Some(last) if last.number > number => {}
            _ => {
                self.blocks.push(Block::new(number));
                self.bytes += size_of::<Block>();
                return self.blocks.len() - 1;
            }
        }
        self.blocks.binary_search_by_key(&number, |block| block.number).unwrap_or_else(|at| {
            self.blocks.insert(at, Block::new(number));
            self.bytes += size_of::<Block>();
            at
        })
    }

    /// Forgets what invariant 1 does not keep.
    fn rotate(&mut self, keep: Keep, mark: u32) {
        let Some(newest) = self.newest else { return };
        let oldest = keep.oldest(newest);
        if oldest == i64::MIN {
            return;
        }
        let (first, place) =
            (oldest.div_euclid(BLOCK_BUCKETS), oldest.rem_euclid(BLOCK_BUCKETS) as u8);
        let gone = self.blocks.partition_point(|block| block.number < first);
        let mut freed: usize = self.blocks[..gone].iter().map(Block::memory_bytes).sum();
        self.dropped
            .extend(self.blocks.drain(..gone).filter(|block| block.stored).map(|b| b.number));
        if let Some(block) = self.blocks.first_mut()
            && block.number == first
            && block.places.trailing_zeros() < u32::from(place)
        {
            freed += block.memory_bytes();
            block.forget_before(place);
            block.changed = mark;
            if block.places == 0 {
                let stored = block.stored;
                self.blocks.remove(0);
                self.dropped.extend(stored.then_some(first));
            } else {
                freed -= block.memory_bytes();
            }
        }
        self.bytes -= freed;
    }

    pub(crate) fn merge(&mut self, other: &Ring, keep: Keep, shape: &Shape, mark: u32) {
        let Some(newest) = self.newest.max(other.newest) else { return };
        let oldest = keep.oldest(newest);
        self.newest = Some(newest);
        self.revision = Revision::default();
        self.rotate(keep, mark);
        for theirs in &other.blocks {
            for (place, count, states) in theirs.buckets() {
                if theirs.number * BLOCK_BUCKETS + i64::from(place) >= oldest {
                    let at = self.block_at(theirs.number);
                    let block = &mut self.blocks[at];
                    block.changed = mark;
                    block.stored |= theirs.stored;
                    block.bucket_mut(place, shape, &mut self.bytes).merge(count, states);
                }
            }
        }
        // A stored block of theirs that this ring does not keep has a row to be taken away.
        for theirs in other.blocks.iter().filter(|block| block.stored) {
            if !self.blocks.iter().any(|block| block.number == theirs.number)
                && !self.dropped.contains(&theirs.number)
            {
                self.dropped.push(theirs.number);
            }
        }
        self.dropped.extend_from_slice(&other.dropped);
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Calls `see` with the counts and states of the buckets between two numbers, oldest first.
    fn buckets_in(&self, within: RangeInclusive<i64>, mut see: impl FnMut(u64, StatesRef<'_>)) {
        let first = within.start().div_euclid(BLOCK_BUCKETS);
        let begin = self.blocks.partition_point(|block| block.number < first);
        let blocks = self.blocks[begin..].iter();
        for block in blocks.take_while(|block| block.number * BLOCK_BUCKETS <= *within.end()) {
            block.buckets_in(&within).for_each(|(_, count, states)| see(count, states));
        }
    }

    pub(crate) fn blocks_mut(&mut self) -> &mut [Block] {
        &mut self.blocks
    }

    /// Forgets the blocks for which `keep` says no; whether there were any.
    pub(crate) fn keep_blocks(&mut self, keep: impl Fn(i64) -> bool) -> bool {
        self.revision = Revision::default();
        let before = self.blocks.len();
        self.blocks.retain(|block| keep(block.number));
        self.bytes = self.blocks.iter().map(Block::memory_bytes).sum();
        self.blocks.len() < before
    }

    /// The rows to delete since this was last asked.
    pub(crate) fn take_dropped(&mut self) -> ThinVec<i64> {
        std::mem::take(&mut self.dropped)
    }

    /// The buckets with events in them, newest first: their numbers, counts and states.
    pub(crate) fn buckets_back(&self) -> impl Iterator<Item = (i64, u64, StatesRef<'_>)> {
        self.blocks.iter().rev().flat_map(|block| {
            let number = move |place| block.number * BLOCK_BUCKETS + i64::from(place);
            let buckets = block.buckets().rev();
            buckets.map(move |(place, count, states)| (number(place), count.get(), states))
        })
    }

    /// The newest bucket seen.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.newest
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes
    }

    /// The ring without its blocks' contents: `newest + 1 flag · number of blocks · their numbers`.
    pub(crate) fn encode_directory(&self, out: &mut Vec<u8>) {
        let Some(newest) = self.newest else {
            out.push(0);
            return;
        };
        out.push(1);
        codec::put_i64(out, newest);
        codec::put_u64(out, self.blocks.len() as u64);
        let mut previous = 0;
        for block in &self.blocks {
            codec::put_i64(out, block.number.wrapping_sub(previous));
            previous = block.number;
        }
    }

    /// A ring whose blocks, all stored, are still to be filled by [`Ring::decode_block`].
    pub(crate) fn decode_directory(bytes: &mut &[u8]) -> Result<Ring, Malformed> {
        match codec::take_array::<1>(bytes)? {
            [0] => return Ok(Ring::default()),
            [1] => {}
            _ => return Err(Malformed("a ring begins with neither 0 nor 1")),
        }
        let newest = codec::take_i64(bytes)?;
        let n = codec::take_count(bytes, 1)?;
        let mut blocks: Vec<Block> = Vec::with_capacity(n);
        let mut previous = 0_i64;
        for _ in 0..n {
            let number = previous.wrapping_add(codec::take_i64(bytes)?);
            if blocks.last().is_some_and(|last| last.number >= number) {
                return Err(Malformed("the blocks of a ring are not in order"));
            }
            blocks.push(Block { stored: true, ..Block::new(number) });
            previous = number;
        }
        let range = i64::MIN / BLOCK_BUCKETS + 1..=newest.div_euclid(BLOCK_BUCKETS);
        if blocks.iter().any(|block| !range.contains(&block.number)) {
            return Err(Malformed("a block of a ring lies behind its newest bucket"));
        }
        let bytes = blocks.len() * size_of::<Block>();
        Ok(Ring { newest: Some(newest), blocks, bytes, ..Ring::default() })
    }

    /// Fills the `at`th block of a decoded directory.
    pub(crate) fn decode_block(
        &mut self,
        at: usize,
        bytes: &[u8],
        shape: &Shape,
    ) -> Result<(), Malformed> {
        let block = &mut self.blocks[at];
        let before = block.memory_bytes();
        block.decode_buckets(bytes, shape)?;
        self.bytes = self.bytes + block.memory_bytes() - before;
        self.revision = Revision::default();
        Ok(())
    }
}

impl Block {
    fn new(number: i64) -> Self {
        Block {
            number,
            changed: 0,
            stored: false,
            late: 0,
            places: 0,
            counts: Vec::new(),
            stats: Vec::new(),
            sketches: ThinVec::new(),
        }
    }

    /// How many buckets lie before `place`.
    #[inline]
    fn rank(&self, place: u8) -> usize {
        (self.places & ((1_u32 << place) - 1)).count_ones() as usize
    }

    /// The bucket at `place`, made when it is not there; `bytes` grows by what it takes.
    #[inline]
    fn bucket_mut<'a>(
        &'a mut self,
        place: u8,
        shape: &Shape,
        bytes: &'a mut usize,
    ) -> BucketMut<'a> {
        let at = self.rank(place);
        let (stats, sketches) = (shape.kinds.stats, shape.kinds.sketches.len());
        if self.places >> place & 1 == 0 {
            self.places |= 1 << place;
            self.counts.insert(at, Count::default());
            self.stats.splice(at * stats..at * stats, (0..stats).map(|_| Stats::default()));
            let empty = shape.kinds.sketches.iter().map(|kind| {
                let empty = kind.empty();
                *bytes += empty.heap_bytes();
                empty
            });
            self.sketches.splice(at * sketches..at * sketches, empty);
            *bytes += size_of::<Count>() + stats * size_of::<Stats>();
            *bytes += sketches * size_of::<Sketch>();
        }
        let states = StatesMut {
            stats: &mut self.stats[at * stats..][..stats],
            sketches: &mut self.sketches[at * sketches..][..sketches],
        };
        BucketMut { count: &mut self.counts[at], states, bytes }
    }

    /// Places, counts and states, in the order of the places.
    fn buckets(&self) -> impl DoubleEndedIterator<Item = (u8, Count, StatesRef<'_>)> {
        self.buckets_at(self.places)
    }

    /// The same of some places, which are bits.
    fn buckets_at(
        &self,
        places: u32,
    ) -> impl DoubleEndedIterator<Item = (u8, Count, StatesRef<'_>)> {
        let all = places.trailing_zeros() as u8..(u32::BITS - places.leading_zeros()) as u8;
        all.filter(move |place| places >> place & 1 == 1).map(|place| {
            let at = self.rank(place);
            (place, self.counts[at], self.states(at))
        })
    }

    /// The states of the `at`th bucket that there is.
    fn states(&self, at: usize) -> StatesRef<'_> {
        let [stats, sketches] = self.widths();
        StatesRef {
            stats: &self.stats[at * stats..][..stats],
            sketches: &self.sketches[at * sketches..][..sketches],
        }
    }

    /// Statistics and sketches of each bucket.
    fn widths(&self) -> [usize; 2] {
        [self.stats.len(), self.sketches.len()].map(|len| len / self.counts.len().max(1))
    }

    /// The places between two buckets' numbers, as bits.
    fn places_in(&self, within: &RangeInclusive<i64>) -> u32 {
        let first = self.number * BLOCK_BUCKETS;
        let [start, end] =
            [within.start(), within.end()].map(|number| number.saturating_sub(first));
        if end < 0 || start >= BLOCK_BUCKETS {
            return 0;
        }
        let (low, high) = (start.max(0), end.min(BLOCK_BUCKETS - 1));
        self.places & (u32::MAX << low) & (u32::MAX >> (BLOCK_BUCKETS - 1 - high))
    }

    /// The buckets between two numbers, oldest first: their numbers, counts and states.
    fn buckets_in(
        &self,
        within: &RangeInclusive<i64>,
    ) -> impl DoubleEndedIterator<Item = (i64, u64, StatesRef<'_>)> {
        let first = self.number * BLOCK_BUCKETS;
        let buckets = self.buckets_at(self.places_in(within));
        buckets.map(move |(place, count, states)| (first + i64::from(place), count.get(), states))
    }

    fn forget_before(&mut self, place: u8) {
        let (gone, [stats, sketches]) = (self.rank(place), self.widths());
        self.counts.drain(..gone);
        self.stats.drain(..gone * stats);
        self.sketches.drain(..gone * sketches);
        self.places &= !((1_u32 << place) - 1);
    }

    fn memory_bytes(&self) -> usize {
        let states = StatesRef { stats: &self.stats, sketches: &self.sketches };
        let counts = self.counts.len() * size_of::<Count>();
        size_of::<Block>() + counts + states.flat_bytes() + states.heap_bytes()
    }

    /// `number of buckets · (place · count · states)*`
    pub(crate) fn encode_buckets(&self, out: &mut Vec<u8>) {
        codec::put_u64(out, self.counts.len() as u64);
        for (place, count, states) in self.buckets() {
            out.push(place);
            count.encode(out);
            states.encode(out);
        }
    }

    /// Whether the bytes are those of a block that can say the same ([`StatesRef::agrees`]).
    pub(crate) fn agrees(&self, bytes: &[u8], shape: &Shape) -> bool {
        let mut other = Block::new(self.number);
        other.decode_buckets(bytes, shape).is_ok()
            && (self.places, &self.counts) == (other.places, &other.counts)
            && self.buckets().zip(other.buckets()).all(|((.., a), (.., b))| a.agrees(b))
    }

    /// Reads [`encode_buckets`](Block::encode_buckets)'s bytes; on an error it stays as it is.
    fn decode_buckets(&mut self, mut bytes: &[u8], shape: &Shape) -> Result<(), Malformed> {
        let n = codec::take_count(&mut bytes, 1)?;
        if n == 0 || n > BLOCK_BUCKETS as usize {
            return Err(Malformed("a block holds 1 to 32 buckets"));
        }
        let mut places = 0_u32;
        let mut counts = Vec::with_capacity(n);
        let mut stats = Vec::with_capacity(n * shape.kinds.stats);
        let mut sketches = ThinVec::with_capacity(n * shape.kinds.sketches.len());
        for _ in 0..n {
            let [place] = codec::take_array::<1>(&mut bytes)?;
            if i64::from(place) >= BLOCK_BUCKETS || places >> place != 0 {
                return Err(Malformed("the buckets of a block are not in order"));
            }
            places |= 1 << place;
            let count = Count::decode(&mut bytes)?;
            if count.get() == 0 {
                return Err(Malformed("a bucket counts nothing"));
            }
            counts.push(count);
            let (more_stats, more_sketches) = shape.kinds.decode(&mut bytes)?.into_parts();
            stats.extend(more_stats);
            sketches.extend(more_sketches);
        }
        codec::finished(bytes)?;
        (self.places, self.counts) = (places, counts);
        (self.stats, self.sketches) = (stats, sketches);
        Ok(())
    }
}
