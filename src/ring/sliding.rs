//! Sums over many buckets, asked again and again while time goes on.
//!
//! A range of 1,440 minutes is 1,440 merges, and a minute later nearly the same ones. Where a range is kept
//! and asked again, what was merged is kept, too, by blocks of the ring: the blocks that lie in the range
//! whole; the end of the first one from each of its buckets on; all that is behind it; and all but the newest
//! bucket. So a question costs one merge and two copies, and a bucket that goes by some more, whatever the length
//! of the range: the two stacks of Tangwongsan, Hirzel and Schneider ("Optimal and general out-of-order
//! sliding-window aggregation", PVLDB 12/10, 2019, section 3), with blocks in place of elements: what the range
//! loses goes bucket by bucket until the block is gone, and a late event costs its block's merges, and one for each
//! of the others if that one lies in the range whole.
//!
//! Invariants
//! 1. What is kept is of buckets that were not the newest any more when they were merged; the ring counts what
//!    changes such ones ([`Revision`], and [`Block::late`] of each block).
//! 2. It is what one merge after the other gives, to the byte where states are canonical.

use super::{BLOCK_BUCKETS, Block, Revision, Ring};
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

    fn add_sum(&mut self, other: &Sum) {
        self.add(other.count, other.states.as_ref());
    }
}

/// Merges of one range of one series.
#[derive(Debug, Default)]
pub(crate) struct Sliding {
    /// The ring that they are of, as it was.
    revision: Revision,
    /// The blocks that lie in the range whole, oldest first.
    whole: Vec<Whole>,
    /// All of these together.
    middle: Option<Sum>,
    /// The first block from each of its buckets on.
    front: Option<Front>,
    /// All behind it but the last bucket.
    tail: Option<Tail>,
    /// All but the last bucket.
    rest: Option<Rest>,
}

/// A block as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    number: i64,
    late: u32,
}

#[derive(Debug)]
struct Whole {
    block: Told,
    sum: Sum,
}

#[derive(Debug)]
struct Front {
    block: Told,
    /// From which bucket on there are all ends of it.
    from: i64,
    /// Where each begins, the last one first.
    ends: Vec<(i64, Sum)>,
}

#[derive(Debug)]
struct Tail {
    span: RangeInclusive<i64>,
    sum: Sum,
}

/// All buckets but the last one, and that one with them as it was last.
#[derive(Debug)]
struct Rest {
    span: RangeInclusive<i64>,
    sum: Sum,
    /// How many events the last bucket had, and all of them together.
    all: Option<(u64, Sum)>,
}

impl Block {
    fn told(&self) -> Told {
        Told { number: self.number, late: self.late }
    }
}

const ALL: RangeInclusive<i64> = i64::MIN..=i64::MAX;

/// The blocks that a range lies in, but the one that it ends in.
struct Parts<'a> {
    /// The one that it begins in.
    front: Option<&'a Block>,
    whole: &'a [Block],
}

impl<'a> Parts<'a> {
    fn of(ring: &'a Ring, span: &RangeInclusive<i64>) -> Self {
        let [first, last] =
            [span.start(), span.end()].map(|number| number.div_euclid(BLOCK_BUCKETS));
        let blocks = ring.blocks();
        let begin = blocks.partition_point(|block| block.number < first);
        let end = blocks.partition_point(|block| block.number < last);
        let mut parts = Parts { front: None, whole: &blocks[begin..end] };
        if let [block, rest @ ..] = parts.whole
            && block.number == first
        {
            (parts.front, parts.whole) = (Some(block), rest);
        }
        parts
    }
}

impl Sliding {
    /// What the buckets of a ring hold from one, which is kept, to another; `empty` is a sum of nothing.
    pub(crate) fn sum(&mut self, ring: &Ring, window: RangeInclusive<i64>, empty: &Sum) -> Sum {
        let (from, to) = window.into_inner();
        let last = to.min(ring.newest().unwrap_or(i64::MIN));
        if from > last {
            return empty.clone();
        }
        if self.revision != ring.revision {
            if self.revision.ring != ring.revision.ring {
                *self = Sliding::default();
            }
            (self.tail, self.rest) = (None, None);
            self.revision = ring.revision;
        }
        let span = from..=last;
        let blocks = ring.blocks();
        let block = blocks.partition_point(|block| block.number < last.div_euclid(BLOCK_BUCKETS));
        let newest = blocks.get(block).and_then(|block| block.buckets_in(&(last..=last)).next());
        if self.rest.as_ref().is_none_or(|rest| rest.span != span) {
            let sum = self.all_but_last(ring, &span, empty);
            self.rest = Some(Rest { span, sum, all: None });
        }
        // (It is there: it was made if it was not.)
        let Some(rest) = &mut self.rest else { return empty.clone() };
        let Some((_, count, states)) = newest else { return rest.sum.clone() };
        match &rest.all {
            // A bucket's count tells it from what it was, unless it has reached its end.
            Some((before, all)) if *before == count && count != u64::MAX => all.clone(),
            _ => {
                let mut all = rest.sum.clone();
                all.add(count, states);
                rest.all = Some((count, all.clone()));
                all
            }
        }
    }

    fn all_but_last(&mut self, ring: &Ring, span: &RangeInclusive<i64>, empty: &Sum) -> Sum {
        let parts = Parts::of(ring, span);
        let mut sum = self.tail(ring, &parts, span, empty).clone();
        match parts.front {
            Some(block) => self.front(block, *span.start(), empty, &mut sum),
            None => self.front = None,
        }
        sum
    }

    /// All but the last bucket, and but those of the first block.
    fn tail(
        &mut self,
        ring: &Ring,
        parts: &Parts<'_>,
        span: &RangeInclusive<i64>,
        empty: &Sum,
    ) -> &Sum {
        let [first, last] =
            [span.start(), span.end()].map(|number| number.div_euclid(BLOCK_BUCKETS));
        // (Whether there is a first block or not: it would come late.)
        let begin = if first < last { (first + 1) * BLOCK_BUCKETS } else { *span.start() };
        let end = *span.end() - 1;
        // (A clock can have been set back: then it ends before what is kept does.)
        let goes_on = |tail: &Tail| *tail.span.start() == begin && *tail.span.end() <= end;
        let mut tail = self.tail.take().filter(goes_on).unwrap_or_else(|| {
            let sum = self.whole_blocks(parts.whole, empty).clone();
            Tail { span: begin..=(last * BLOCK_BUCKETS).max(begin) - 1, sum }
        });
        ring.buckets_in(tail.span.end() + 1..=end, |count, states| tail.sum.add(count, states));
        tail.span = begin..=end;
        &self.tail.insert(tail).sum
    }

    /// The blocks that lie in the range whole, together.
    fn whole_blocks(&mut self, blocks: &[Block], empty: &Sum) -> &Sum {
        if !self.whole.iter().map(|whole| whole.block).eq(blocks.iter().map(Block::told)) {
            self.middle = None;
            let mut before = std::mem::take(&mut self.whole).into_iter().peekable();
            for block in blocks {
                while before.next_if(|whole| whole.block.number < block.number).is_some() {}
                let told = block.told();
                let kept = before.next_if(|whole| whole.block == told);
                self.whole.push(kept.unwrap_or_else(|| {
                    let mut sum = empty.clone();
                    block.buckets_in(&ALL).for_each(|(_, count, states)| sum.add(count, states));
                    Whole { block: told, sum }
                }));
            }
        }
        self.middle.get_or_insert_with(|| {
            let mut sum = empty.clone();
            self.whole.iter().for_each(|whole| sum.add_sum(&whole.sum));
            sum
        })
    }

    /// Adds the end of a block from a bucket on.
    fn front(&mut self, block: &Block, from: i64, empty: &Sum, sum: &mut Sum) {
        let told = block.told();
        let is_kept = |front: &Front| front.block == told && front.from <= from;
        let front = self.front.take().filter(is_kept).unwrap_or_else(|| {
            let (within, mut sum) = (from..=i64::MAX, empty.clone());
            let ends = block.buckets_in(&within).rev().map(|(number, count, states)| {
                sum.add(count, states);
                (number, sum.clone())
            });
            Front { block: told, from, ends: ends.collect() }
        });
        let front = self.front.insert(front);
        // What is longer has gone by.
        while front.ends.pop_if(|(number, _)| *number < from).is_some() {}
        front.from = from;
        if let Some((_, end)) = front.ends.last() {
            sum.add_sum(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{Input, Inputs, Measure, SketchKind};
    use crate::series::Shape;
    use crate::time::{Calendar, Grain, Keep, TimeZone};
    use std::sync::Arc;

    #[derive(Clone, Copy)]
    struct Value(f64);

    impl<'a> Inputs<'a> for Value {
        fn measure(self, _: usize) -> &'a Measure {
            unreachable!("no statistics are kept")
        }

        fn input(self, _: usize) -> Input<'a> {
            Input::Value(self.0)
        }
    }

    #[test]
    fn buckets_that_are_merged_in_are_seen() {
        let kinds = Kinds { stats: 0, sketches: vec![SketchKind::Quantiles] };
        let grains = vec![(Grain::Minute, Keep::All)];
        let shape = Shape::new(kinds, Arc::new(Calendar { zone: TimeZone::UTC, grains }));
        let insert = |ring: &mut Ring, number: i64, value: f64| {
            let bucket = ring.bucket_mut(Keep::All, number, &shape, 1).expect("all are kept");
            bucket.observe(1, Value(value));
        };
        let (mut ring, mut other) = (Ring::default(), Ring::default());
        (0..100).for_each(|number| insert(&mut ring, number, number as f64));
        for number in [3, 40, 97, 99] {
            insert(&mut other, number, -1.0);
        }
        let empty = Sum::of_nothing(&shape.kinds);
        let told = |kept: &mut Sliding, ring: &Ring| {
            let sum = kept.sum(ring, 2..=99, &empty);
            let mut bytes = Vec::new();
            sum.states.as_ref().encode(&mut bytes);
            (sum.count, bytes)
        };
        let mut kept = Sliding::default();
        assert_eq!(told(&mut kept, &ring).0, 98);
        ring.merge(&other, Keep::All, &shape, 2);
        assert_eq!(told(&mut kept, &ring).0, 102);
        assert_eq!(told(&mut kept, &ring), told(&mut Sliding::default(), &ring));
    }
}
