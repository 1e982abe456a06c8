//! Cells: how many events, when the first and the last of them were, and a state for each aggregate.
//!
//! Next: `series.rs`.

use super::Shape;
use crate::aggregate::{Aggregate, Count, Inputs, Kinds, Malformed, Measure, States, StatesRef};
use crate::codec;
use crate::time::Timestamp;

/// How many events there were, and between when and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tally {
    pub(super) count: Count,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

impl Default for Tally {
    /// Of no events.
    #[inline]
    fn default() -> Self {
        Tally {
            count: Count::default(),
            first: Timestamp::from_micros(i64::MAX),
            last: Timestamp::from_micros(i64::MIN),
        }
    }
}

impl Tally {
    #[inline]
    pub(super) fn observe(&mut self, time: Timestamp, times: u64) {
        self.count.add(times);
        self.first = self.first.min(time);
        self.last = self.last.max(time);
    }

    pub(super) fn merge(&mut self, other: &Tally) {
        self.count.merge(&other.count);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// A tally and the states beside it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(super) tally: Tally,
    pub(super) states: States,
}

/// The totals of a series where they lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CellRef<'a> {
    pub(super) tally: &'a Tally,
    pub(super) states: StatesRef<'a>,
}

impl Cell {
    #[inline]
    pub(crate) fn empty(shape: &Shape) -> Self {
        Cell::of_kinds(&shape.kinds)
    }

    #[inline]
    pub(crate) fn of_kinds(kinds: &Kinds) -> Self {
        Cell { tally: Tally::default(), states: kinds.empty() }
    }

    pub(crate) fn as_ref(&self) -> CellRef<'_> {
        CellRef { tally: &self.tally, states: self.states.as_ref() }
    }

    /// Folds in events whose times are known: when each was, for how many it counts, what the states
    /// observe of it.
    #[inline]
    pub(crate) fn observe_each<'m, I: Inputs<'m>>(
        &mut self,
        events: impl Iterator<Item = (Timestamp, u64, I)>,
    ) {
        let mut tally = self.tally;
        self.states.as_mut().observe_each(events.map(|(time, times, inputs)| {
            tally.observe(time, times);
            (times, inputs)
        }));
        self.tally = tally;
    }

    /// The same of events that count for one each, where the states are the statistics of one measure.
    #[inline]
    pub(crate) fn observe_plain<'m>(
        &mut self,
        events: impl Iterator<Item = (Timestamp, &'m Measure)>,
    ) {
        let mut tally = self.tally;
        let states = self.states.as_mut();
        for (time, measure) in events {
            tally.observe(time, 1);
            if !measure.value().is_nan() {
                states.stats[0].observe_measure(measure);
            }
        }
        self.tally = tally;
    }

    pub(crate) fn merge(&mut self, other: CellRef<'_>) {
        self.tally.merge(other.tally);
        self.states.as_mut().merge(other.states);
    }

    pub(super) fn decode(bytes: &mut &[u8], shape: &Shape) -> Result<Self, Malformed> {
        let count = Count::decode(bytes)?;
        if count.get() == 0 {
            return Ok(Cell::empty(shape));
        }
        let first = codec::take_i64(bytes)?;
        let last = first.wrapping_add(codec::take_u64(bytes)? as i64);
        if last < first {
            return Err(Malformed("a cell's last event is before its first"));
        }
        let (first, last) = (Timestamp::from_micros(first), Timestamp::from_micros(last));
        let states = shape.kinds.decode(bytes)?;
        Ok(Cell { tally: Tally { count, first, last }, states })
    }
}

impl<'a> CellRef<'a> {
    pub(crate) fn count(self) -> u64 {
        self.tally.count.get()
    }

    /// The time of the earliest event, or the earliest it can have been; meaningless while the count
    /// is 0.
    pub(crate) fn first(self) -> Timestamp {
        self.tally.first
    }

    /// The time of the latest event, or the latest it can have been.
    pub(crate) fn last(self) -> Timestamp {
        self.tally.last
    }

    pub(crate) fn states(self) -> StatesRef<'a> {
        self.states
    }

    pub(crate) fn to_owned(self) -> Cell {
        Cell { tally: *self.tally, states: self.states.to_owned() }
    }

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        let Tally { count, first, last } = self.tally;
        count.encode(out);
        if count.get() > 0 {
            codec::put_i64(out, first.micros());
            codec::put_u64(out, last.micros().wrapping_sub(first.micros()) as u64);
            self.states.encode(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn plain_events_are_observed_as_any_are(
            events in prop::collection::vec((-90_i64..90, prop::option::of(-9.0..9.0_f64)), 0..30),
        ) {
            let kinds = Kinds { stats: 1, sketches: Vec::new() };
            let (mut plain, mut each) = (Cell::of_kinds(&kinds), Cell::of_kinds(&kinds));
            let measured = |(second, value): &(i64, Option<f64>)| {
                (Timestamp::from_secs(*second), value.map_or(Measure::NONE, Measure::new))
            };
            let events: Vec<_> = events.iter().map(measured).collect();
            plain.observe_plain(events.iter().map(|(time, measure)| (*time, measure)));
            each.observe_each(events.iter().map(|(time, measure)| (*time, 1, move |_: usize| measure)));
            prop_assert_eq!(plain, each);
        }
    }
}
