//! Sums over many buckets, asked again and again while time goes on.
//!
//! A range of 1,440 minutes is 1,440 merges, and a minute later nearly the same ones. Where a range is kept
//! and asked again, what was merged is kept, too, by blocks of the ring: the blocks that lie in the range
//! whole, one by one and all together; of the first one its end from each bucket on; of the last one
//! its beginning. The newest bucket is merged each time. So a question costs three merges and a copy, and a
//! bucket that goes by about three more, whatever the length of the range: the two stacks of Tangwongsan,
//! Hirzel and Schneider ("Optimal and general out-of-order sliding-window aggregation", PVLDB 12/10, 2019,
//! section 3), with blocks in place of elements, so that a late event costs one block's merges.
//!
//! Invariants
//! 1. Whether a block is as it was is told by which buckets it has and how many events they count: an
//!    event that changes a bucket raises its count, and nothing lowers one but its end.
//! 2. It is what one merge after the other gives, to the byte where states are canonical.

use super::{BLOCK_BUCKETS, Block, Ring};
use crate::aggregate::{Kinds, States, StatesRef};
use std::ops::RangeInclusive;

/// The events of some buckets, merged.
#[derive(Clone, Debug)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    pub(crate) states: States,
}

impl Sum {
    pub(crate) fn of_nothing(kinds: &Kinds) -> Self {
        Sum { count: 0, states: kinds.empty() }
    }

    pub(crate) fn add(&mut self, count: u64, states: StatesRef<'_>) {
        self.count = self.count.saturating_add(count);
        self.states.as_mut().merge(states);
    }
}

/// Merges of one range of one series.
#[derive(Debug, Default)]
pub(crate) struct Sliding {
    /// The blocks that lie in the range whole, oldest first.
    whole: Vec<Kept>,
    /// All of these together.
    middle: Option<Sum>,
    /// The first block from each of its buckets on, the longest first.
    front: Vec<Kept>,
    /// The last block up to the bucket before the last one.
    back: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    print: Print,
    sum: Sum,
}

/// What tells some buckets of a block from what they were (invariant 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Print {
    block: i64,
    places: u32,
    count: u64,
}

impl Print {
    /// Of the buckets of a block that lie between two.
    fn of(block: &Block, within: &RangeInclusive<i64>) -> Self {
        let (places, count) = block.told(within);
        Print { block: block.number, places, count }
    }

    fn is(&self, other: &Print) -> bool {
        // A count that has reached its end tells nothing any more.
        self == other && self.count != u64::MAX
    }
}

fn merged(block: &Block, within: &RangeInclusive<i64>, empty: &Sum) -> Sum {
    let mut sum = empty.clone();
    add(&mut sum, block, within);
    sum
}

fn add(sum: &mut Sum, block: &Block, within: &RangeInclusive<i64>) {
    block.each_in(within, |_, count, states| sum.add(count, states));
}

impl Sliding {
    /// What the buckets of a ring from one to another hold, where `empty` is a sum of nothing.
    pub(crate) fn sum(&mut self, ring: &Ring, window: RangeInclusive<i64>, empty: &Sum) -> Sum {
        let (from, to) = window.into_inner();
        let last = to.min(ring.newest().unwrap_or(i64::MIN));
        if from > last {
            return empty.clone();
        }
        let (first_block, last_block) =
            (from.div_euclid(BLOCK_BUCKETS), last.div_euclid(BLOCK_BUCKETS));
        let blocks = ring.blocks();
        let begin = blocks.partition_point(|block| block.number < first_block);
        let end = blocks.partition_point(|block| block.number <= last_block);
        let mut blocks = &blocks[begin..end];
        let mut ends = [None, None];
        // The block that the range ends in; it may be the one that it begins in.
        if let [rest @ .., block] = blocks
            && block.number == last_block
        {
            blocks = rest;
            let start = (last_block * BLOCK_BUCKETS).max(from);
            ends[1] = Some((block, start..=last.saturating_sub(1)));
        }
        if let [block, rest @ ..] = blocks
            && block.number == first_block
        {
            blocks = rest;
            ends[0] = Some((block, from..=i64::MAX));
        }
        let mut sum = self.middle(blocks, empty).clone();
        let [front, back] = ends;
        match front {
            Some((block, within)) => self.front(block, &within, empty, &mut sum),
            None => self.front.clear(),
        }
        match back {
            Some((block, within)) => {
                self.back(block, &within, empty, &mut sum);
                add(&mut sum, block, &(last..=last));
            }
            None => self.back = None,
        }
        sum
    }

    /// The blocks that lie in the range whole.
    fn middle(&mut self, blocks: &[Block], empty: &Sum) -> &Sum {
        let all = i64::MIN..=i64::MAX;
        let is_same = self.whole.len() == blocks.len()
            && self
                .whole
                .iter()
                .zip(blocks)
                .all(|(kept, block)| kept.print.is(&Print::of(block, &all)));
        if !is_same {
            self.middle = None;
            let mut before = std::mem::take(&mut self.whole).into_iter().peekable();
            for block in blocks {
                while before.next_if(|kept| kept.print.block < block.number).is_some() {}
                let print = Print::of(block, &all);
                let kept = before.next_if(|kept| kept.print.is(&print));
                let kept = kept.unwrap_or_else(|| Kept { print, sum: merged(block, &all, empty) });
                self.whole.push(kept);
            }
        }
        self.middle.get_or_insert_with(|| {
            let mut sum = empty.clone();
            self.whole.iter().for_each(|kept| sum.add(kept.sum.count, kept.sum.states.as_ref()));
            sum
        })
    }

    /// Adds the end of a block from a bucket on.
    fn front(&mut self, block: &Block, within: &RangeInclusive<i64>, empty: &Sum, sum: &mut Sum) {
        let print = Print::of(block, within);
        let kept = |front: &[Kept]| front.iter().position(|kept| kept.print.is(&print));
        let at = kept(&self.front).or_else(|| {
            // From the last bucket back.
            self.front.clear();
            let mut sum = empty.clone();
            let mut numbers = Vec::new();
            block.each_in(within, |number, _, _| numbers.push(number));
            for number in numbers.into_iter().rev() {
                add(&mut sum, block, &(number..=number));
                let print = Print::of(block, &(number..=i64::MAX));
                self.front.push(Kept { print, sum: sum.clone() });
            }
            self.front.reverse();
            kept(&self.front)
        });
        match at {
            Some(at) => {
                // What is longer has gone by.
                self.front.drain(..at);
                let kept = &self.front[0].sum;
                sum.add(kept.count, kept.states.as_ref());
            }
            None => add(sum, block, within),
        }
    }

    /// Adds the beginning of a block up to a bucket.
    fn back(&mut self, block: &Block, within: &RangeInclusive<i64>, empty: &Sum, sum: &mut Sum) {
        let print = Print::of(block, within);
        if !self.back.as_ref().is_some_and(|kept| kept.print.is(&print)) {
            // A bucket or some more than there were, or something else.
            let known = 64
                - u64::from(self.back.as_ref().map_or(0, |kept| kept.print.places)).leading_zeros();
            let up_to = block.number * BLOCK_BUCKETS + i64::from(known) - 1;
            let before = Print::of(block, &(*within.start()..=up_to));
            // (A clock can have been set back: then it ends before what is kept does.)
            let goes_on = known > 0 && up_to <= *within.end();
            let kept = self.back.take().filter(|kept| goes_on && kept.print.is(&before));
            let mut kept = match kept {
                Some(mut kept) => {
                    add(&mut kept.sum, block, &(up_to + 1..=*within.end()));
                    kept
                }
                None => Kept { print, sum: merged(block, within, empty) },
            };
            kept.print = print;
            self.back = Some(kept);
        }
        if let Some(kept) = &self.back {
            sum.add(kept.sum.count, kept.sum.states.as_ref());
        }
    }
}
