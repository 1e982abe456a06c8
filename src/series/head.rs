//! The head of a series: all of it but its states, which lie elsewhere.

use super::cell::Tally;
use super::{ALWAYS, Observed, Occurrence, SeriesMut, Shape};
use crate::aggregate::{Measure, StatesMut, Stats};
use crate::ring::Ring;
use crate::ring::packed::Packed;
use crate::time::{Leaf, Timestamp};
use std::slice;

/// A series but for its states, which lie elsewhere: most views keep none, and then no entry of theirs
/// should have room for any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(super) tally: Tally,
    /// The rings of a shape that is packed.
    pub(super) packed: Packed,
    /// What only some series have, behind one word: each byte here is paid for each key.
    pub(super) more: Option<Box<More>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct More {
    /// One ring per grain of a shape that is not packed.
    pub(super) rings: Vec<Ring>,
    pub(super) loose: Option<Loose>,
    /// From which bucket of each grain on its buckets are known; nothing: from the first one on.
    pub(super) known: Box<[i64]>,
}

/// The inner ends of the first and the last time, where they are spans: the totals have the outer ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Loose {
    pub(super) first_end: Timestamp,
    pub(super) last_start: Timestamp,
}

impl Head {
    /// Folds in events that count for one each at a time that is known, where the series is the statistics of
    /// one measure and nothing else: what [`SeriesMut::observe`] does, with less to find out.
    #[inline]
    pub(crate) fn observe_plain<'m>(
        &mut self,
        stats: &mut Stats,
        shape: &Shape,
        leaf: &Leaf,
        events: impl Iterator<Item = (Timestamp, &'m Measure)>,
        mark: u32,
    ) -> Observed {
        let mut observed = Observed::default();
        if self.more.is_some() {
            for (time, measure) in events {
                let states = StatesMut { stats: slice::from_mut(stats), sketches: &mut [] };
                let series = SeriesMut { head: self, states };
                let event = Occurrence { time, half_width: 0, times: 1 };
                let inputs = |_: usize| measure;
                observed.grown += series.observe_more(shape, leaf, event, inputs, mark).grown;
            }
            return observed;
        }
        let mut tally = self.tally;
        for (time, measure) in events {
            tally.observe(time, 1);
            if !measure.value().is_nan() {
                observed.grown += stats.observe_measure(measure) as isize;
            }
        }
        self.tally = tally;
        observed
    }

    /// Folds in an event where the series only counts; what [`SeriesMut::observe`] does, with less to find out.
    #[inline]
    pub(crate) fn observe_bare(
        &mut self,
        shape: &Shape,
        leaf: &Leaf,
        (time, times): (Timestamp, u64),
        mark: u32,
    ) -> Observed {
        if self.more.is_some() {
            let event = Occurrence { time, half_width: 0, times };
            let states = StatesMut { stats: &mut [], sketches: &mut [] };
            let series = SeriesMut { head: self, states };
            return series.observe_more(shape, leaf, event, |_: usize| &Measure::NONE, mark);
        }
        self.count_in(shape, leaf, time, times)
    }

    /// Counts an event at a time that is known, in the totals and in packed rings.
    #[inline]
    pub(super) fn count_in(
        &mut self,
        shape: &Shape,
        leaf: &Leaf,
        time: Timestamp,
        times: u64,
    ) -> Observed {
        self.tally.observe(time, times);
        let mut observed = Observed::default();
        if shape.is_packed {
            let added = self.packed.add(&shape.calendar.grains, leaf.numbers(), times);
            (observed.late, observed.grown) = (added.late, added.grown);
        }
        observed
    }

    /// Makes a ring for each grain, unless they are there.
    #[inline]
    pub(crate) fn make_rings(&mut self, shape: &Shape) {
        if shape.has_rings() && self.rings().is_empty() {
            self.more().rings = vec![Ring::default(); shape.calendar.grains.len()];
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.tally.count.get()
    }

    pub(super) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// A head of the same shape that has observed nothing.
    pub(super) fn emptied(&self) -> Self {
        let rings = vec![Ring::default(); self.rings().len()];
        let more = (!rings.is_empty()).then(|| Box::new(More { rings, ..More::default() }));
        Head { more, ..Head::default() }
    }

    pub(super) fn rings(&self) -> &[Ring] {
        self.more.as_ref().map_or(&[], |more| &more.rings)
    }

    pub(super) fn rings_mut(&mut self) -> &mut [Ring] {
        self.more.as_mut().map_or(&mut [], |more| &mut more.rings)
    }

    /// The latest that the first event can have been, and the earliest the last one.
    pub(super) fn inner_ends(&self) -> (Timestamp, Timestamp) {
        match self.more.as_ref().and_then(|more| more.loose) {
            Some(loose) => (loose.first_end, loose.last_start),
            None => (self.tally.first, self.tally.last),
        }
    }

    pub(super) fn set_inner_ends(&mut self, first_end: Timestamp, last_start: Timestamp) {
        if (first_end, last_start) != (self.tally.first, self.tally.last) {
            self.more().loose = Some(Loose { first_end, last_start });
        } else if let Some(more) = &mut self.more {
            more.loose = None;
            if more.rings.is_empty() && more.known.is_empty() {
                self.more = None;
            }
        }
    }

    /// Notes from which bucket of each grain on its buckets are known.
    pub(super) fn set_known(&mut self, known: Box<[i64]>) {
        if known.iter().any(|known| *known != ALWAYS) {
            self.more().known = known;
        }
    }

    #[inline]
    pub(super) fn known(&self, at: usize) -> i64 {
        let known = self.more.as_ref().and_then(|more| more.known.get(at));
        known.copied().unwrap_or(ALWAYS)
    }

    /// What it holds elsewhere on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        let rings = self.rings().iter().map(|ring| size_of::<Ring>() + ring.heap_bytes());
        let more =
            self.more.as_ref().map_or(0, |more| size_of::<More>() + size_of_val(&*more.known));
        self.packed.heap_bytes() + more + rings.sum::<usize>()
    }
}
