//! Series: the state of one key in one view, totals since ever and a ring of buckets per grain.
//!
//! Invariants
//! 1. A [`Cell`] counts events and spans their times whatever else the view keeps of them.
//! 2. A series is a merged value: `merge` of two halves of its events, in any order, gives the
//!    same bytes as recording all of them.
//!
//! Bytes of a cell: `count (LEB128) · [first (zigzag) · last - first (LEB128) · states]`, the
//! bracket only where count > 0; states in the order of the view's definition.
//! Next: `view.rs`.

use crate::aggregate::{Aggregate, Count, Kind, Malformed, Measure, State};
use crate::codec;
use crate::ring::Ring;
use crate::time::{Calendar, Leaf, Timestamp};
use smallvec::SmallVec;
use std::sync::Arc;

/// What a view's series are made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) calendar: Arc<Calendar>,
}

/// A count of events, the span of their times, and a state for each aggregate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    count: Count,
    first: Timestamp,
    last: Timestamp,
    states: SmallVec<[State; 1]>,
}

#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) total: Cell,
    /// One ring per grain of the shape; no box where there are none. Boxed, because most series
    /// have none and each byte here is paid for each key.
    #[expect(clippy::box_collection, reason = "one word in place of three where there are none")]
    rings: Option<Box<Vec<Ring>>>,
}

/// What became of an event in a series.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Observed {
    /// It was older than the buckets kept in some ring, and is in the totals only.
    pub(crate) late: bool,
    /// Memory by which the series grew on the heap, in bytes; negative when buckets rotated out.
    pub(crate) grown: isize,
}

impl Cell {
    #[inline]
    pub(crate) fn empty(shape: &Shape) -> Self {
        let mut states = SmallVec::new();
        for kind in &shape.kinds {
            states.push(kind.empty());
        }
        Cell {
            count: Count::default(),
            first: Timestamp::from_micros(i64::MAX),
            last: Timestamp::from_micros(i64::MIN),
            states,
        }
    }

    fn emptied(&self) -> Self {
        Cell {
            states: self.states.iter().map(|state| state.kind().empty()).collect(),
            ..Cell::empty(&Shape::default())
        }
    }

    /// Folds in an event; `measure(i)` is what the `i`th state observes, NaN for nothing.
    #[inline]
    pub(crate) fn observe<'m>(
        &mut self,
        time: Timestamp,
        measure: impl Fn(usize) -> &'m Measure,
    ) -> usize {
        self.count.observe((), time);
        self.first = self.first.min(time);
        self.last = self.last.max(time);
        let mut grown = 0;
        for (i, state) in self.states.iter_mut().enumerate() {
            let measure = measure(i);
            if !measure.value().is_nan() {
                grown += state.observe(measure);
            }
        }
        grown
    }

    pub(crate) fn merge(&mut self, other: &Cell) {
        self.count.merge(&other.count);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        for (state, other) in self.states.iter_mut().zip(&other.states) {
            state.merge(other);
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.count.encode(out);
        if self.count.get() > 0 {
            codec::put_i64(out, self.first.micros());
            codec::put_u64(out, self.last.micros().wrapping_sub(self.first.micros()) as u64);
            self.states.iter().for_each(|state| state.encode(out));
        }
    }

    pub(crate) fn decode(bytes: &mut &[u8], shape: &Shape) -> Result<Self, Malformed> {
        let count = Count::decode(bytes)?;
        if count.get() == 0 {
            return Ok(Cell::empty(shape));
        }
        let first = codec::take_i64(bytes)?;
        let last = first.wrapping_add(codec::take_u64(bytes)? as i64);
        if last < first {
            return Err(Malformed("a cell's last event is before its first"));
        }
        let states = shape.kinds.iter().map(|kind| kind.decode(bytes)).collect::<Result<_, _>>()?;
        Ok(Cell {
            count,
            first: Timestamp::from_micros(first),
            last: Timestamp::from_micros(last),
            states,
        })
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.get()
    }

    /// The time of the earliest event; meaningless while the count is 0.
    pub(crate) fn first(&self) -> Timestamp {
        self.first
    }

    pub(crate) fn last(&self) -> Timestamp {
        self.last
    }

    pub(crate) fn states(&self) -> &[State] {
        &self.states
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let spilled =
            if self.states.spilled() { self.states.capacity() * size_of::<State>() } else { 0 };
        spilled + self.states.iter().map(State::heap_bytes).sum::<usize>()
    }
}

impl Series {
    pub(crate) fn empty(shape: &Shape) -> Self {
        let mut series = Series::blank(shape);
        series.make_rings(shape);
        series
    }

    /// An empty series that has no rings yet.
    #[inline]
    pub(crate) fn blank(shape: &Shape) -> Self {
        Series { total: Cell::empty(shape), rings: None }
    }

    /// Makes a ring for each grain, unless they are there.
    #[inline]
    pub(crate) fn make_rings(&mut self, shape: &Shape) {
        if self.rings.is_none() && !shape.calendar.grains.is_empty() {
            self.rings = Some(Box::new(vec![Ring::default(); shape.calendar.grains.len()]));
        }
    }

    /// A series of the same shape that has observed nothing.
    pub(crate) fn emptied(&self) -> Self {
        let rings = self.rings.as_ref().map(|rings| Box::new(vec![Ring::default(); rings.len()]));
        Series { total: self.total.emptied(), rings }
    }

    pub(crate) fn rings(&self) -> &[Ring] {
        self.rings.as_deref().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn rings_mut(&mut self) -> &mut [Ring] {
        self.rings.as_deref_mut().map_or(&mut [], Vec::as_mut_slice)
    }

    /// Folds in an event, the leaf being turned to its time where there are rings; `mark` is left on
    /// every block that changes.
    #[inline]
    pub(crate) fn observe<'m>(
        &mut self,
        shape: &Shape,
        leaf: &Leaf,
        time: Timestamp,
        measure: impl Fn(usize) -> &'m Measure + Copy,
        mark: u32,
    ) -> Observed {
        let grown = self.total.observe(time, measure);
        let mut observed = Observed { late: false, grown: grown as isize };
        if let Some(rings) = &mut self.rings {
            let grains = shape.calendar.grains.iter().zip(leaf.numbers());
            for (ring, ((_, keep), number)) in rings.iter_mut().zip(grains) {
                let before = ring.heap_bytes();
                match ring.bucket_mut(*keep, number, shape, mark) {
                    Some(cell) => {
                        let grown = cell.observe(time, measure);
                        ring.grew(grown);
                    }
                    None => observed.late = true,
                }
                observed.grown += ring.heap_bytes() as isize - before as isize;
            }
        }
        observed
    }

    /// Folds in the cell of some events that all lie in the buckets of this leaf: what
    /// [`observe`](Series::observe) of each would do.
    pub(crate) fn merge_run(
        &mut self,
        run: &Cell,
        shape: &Shape,
        leaf: &Leaf,
        mark: u32,
    ) -> Observed {
        let before = self.heap_bytes() as isize;
        self.total.merge(run);
        let mut late = false;
        let grains = shape.calendar.grains.iter().zip(leaf.numbers());
        for (ring, ((_, keep), number)) in self.rings_mut().iter_mut().zip(grains) {
            match ring.bucket_mut(*keep, number, shape, mark) {
                Some(cell) => {
                    let before = cell.heap_bytes();
                    cell.merge(run);
                    let grown = cell.heap_bytes() - before;
                    ring.grew(grown);
                }
                None => late = true,
            }
        }
        Observed { late, grown: self.heap_bytes() as isize - before }
    }

    pub(crate) fn merge(&mut self, other: &Series, shape: &Shape, mark: u32) {
        self.total.merge(&other.total);
        let grains = &shape.calendar.grains;
        for ((ring, other), (_, keep)) in self.rings_mut().iter_mut().zip(other.rings()).zip(grains)
        {
            ring.merge(other, *keep, shape, mark);
        }
    }

    /// The buckets of the `at`th grain that hold events, oldest first: their numbers, how many events
    /// each counts, and its states.
    pub(crate) fn buckets(&self, at: usize) -> impl Iterator<Item = (i64, u64, &[State])> {
        let ring = self.rings().get(at).into_iter();
        ring.flat_map(Ring::buckets).map(|(number, cell)| (number, cell.count(), cell.states()))
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let rings = self.rings().iter().map(|ring| size_of::<Ring>() + ring.heap_bytes());
        self.total.heap_bytes() + rings.sum::<usize>()
    }

    /// The row of the series itself: its totals and the directory of each ring.
    pub(crate) fn encode_row(&self, out: &mut Vec<u8>) {
        self.total.encode(out);
        self.rings().iter().for_each(|ring| ring.encode_directory(out));
    }

    /// Reads [`encode_row`](Series::encode_row)'s bytes; the rings' blocks are still empty.
    pub(crate) fn decode_row(mut bytes: &[u8], shape: &Shape) -> Result<Self, Malformed> {
        let total = Cell::decode(&mut bytes, shape)?;
        let mut rings = Vec::with_capacity(shape.calendar.grains.len());
        for _ in &shape.calendar.grains {
            rings.push(Ring::decode_directory(&mut bytes)?);
        }
        codec::finished(bytes)?;
        let rings = (!rings.is_empty()).then(|| Box::new(rings));
        Ok(Series { total, rings })
    }

    /// All bytes of the series, blocks included: what two series must have equal to be equal.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_row(&mut out);
        for block in self.rings().iter().flat_map(Ring::blocks) {
            block.encode_cells(&mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Grain, Keep};
    use proptest::prelude::*;

    fn calendar(grains: &[(Grain, Keep)]) -> Arc<Calendar> {
        let zone = "America/St_Johns".parse().unwrap();
        Arc::new(Calendar { zone, grains: grains.to_vec() })
    }

    fn shape(keep: Keep) -> Shape {
        let calendar = calendar(&[(Grain::Hour, keep), (Grain::Day, keep)]);
        Shape { kinds: vec![Kind::Stats; 2], calendar }
    }

    fn fold(shape: &Shape, events: &[(i64, f64)]) -> Series {
        let mut series = Series::empty(shape);
        for (hours, value) in events {
            let time = Timestamp::from_secs(hours * 3_600);
            let measure = Measure::new(*value);
            series.observe(shape, &Leaf::at(&shape.calendar, time), time, |_| &measure, 1);
        }
        series
    }

    proptest! {
        #[test]
        fn events_in_any_order_and_grouping_leave_the_same_bytes(
            mut events in prop::collection::vec((-2_000_i64..2_000, -9.0..9.0_f64), 0..80),
            cut: prop::sample::Index,
            keep in prop_oneof![Just(Keep::All), (1_u32..300).prop_map(Keep::Last)],
        ) {
            let shape = shape(keep);
            let direct = fold(&shape, &events).bytes();
            let cut = cut.index(events.len() + 1);
            let (mut a, b) = (fold(&shape, &events[..cut]), fold(&shape, &events[cut..]));
            let mut reverse = b.clone();
            reverse.merge(&a, &shape, 1);
            a.merge(&b, &shape, 1);
            prop_assert_eq!(&a.bytes(), &direct);
            prop_assert_eq!(a.heap_bytes(), fold(&shape, &events).heap_bytes());
            prop_assert_eq!(&reverse.bytes(), &direct);
            events.reverse();
            prop_assert_eq!(&fold(&shape, &events).bytes(), &direct);
            let mut empty = Series::empty(&shape);
            empty.merge(&a, &shape, 1);
            prop_assert_eq!(&empty.bytes(), &direct);
        }

        #[test]
        fn a_run_leaves_what_its_events_would(
            before in prop::collection::vec((-2_000_i64..2_000, -9.0..9.0_f64), 0..40),
            hour in -2_000_i64..2_000,
            run in prop::collection::vec((0_i64..3_600, -9.0..9.0_f64), 1..20),
            keep in prop_oneof![Just(Keep::All), (1_u32..300).prop_map(Keep::Last)],
        ) {
            let shape = shape(keep);
            let (mut each, mut together) = (fold(&shape, &before), fold(&shape, &before));
            let mut cell = Cell::empty(&shape);
            let mut late = false;
            // An hour of St. John's begins at half past one of UTC's.
            let at = |second: &i64| Timestamp::from_secs(hour * 3_600 + 1_800 + second);
            let leaf = Leaf::at(&shape.calendar, at(&0));
            for (second, value) in &run {
                let time = at(second);
                let measure = Measure::new(*value);
                late = each.observe(&shape, &leaf, time, |_| &measure, 1).late;
                cell.observe(time, |_| &measure);
            }
            prop_assert_eq!(together.merge_run(&cell, &shape, &leaf, 1).late, late);
            prop_assert_eq!(together.bytes(), each.bytes());
            prop_assert_eq!(together.heap_bytes(), each.heap_bytes());
        }

        #[test]
        fn rows_come_back(events in prop::collection::vec((-2_000_i64..2_000, -9.0..9.0_f64), 0..80)) {
            let shape = shape(Keep::Last(100));
            let series = fold(&shape, &events);
            let mut row = Vec::new();
            series.encode_row(&mut row);
            let mut back = Series::decode_row(&row, &shape).expect("own bytes");
            for (ring, original) in back.rings_mut().iter_mut().zip(series.rings()) {
                for (at, original) in original.blocks().iter().enumerate() {
                    let mut cells = Vec::new();
                    original.encode_cells(&mut cells);
                    ring.decode_block(at, &cells, &shape).expect("own bytes");
                }
            }
            prop_assert_eq!(back.bytes(), series.bytes());
            prop_assert_eq!(back.heap_bytes(), series.heap_bytes());
        }

        #[test]
        fn hostile_rows_are_refused_without_a_panic(bytes: Vec<u8>) {
            let shape = shape(Keep::Last(100));
            if let Ok(mut series) = Series::decode_row(&bytes, &shape) {
                for ring in series.rings_mut() {
                    for at in 0..ring.blocks().len() {
                        let _ = ring.decode_block(at, &bytes, &shape);
                    }
                }
            }
        }
    }

    #[test]
    fn a_rotated_bucket_is_in_the_totals_only() {
        let shape = Shape { kinds: vec![], calendar: calendar(&[(Grain::Hour, Keep::Last(2))]) };
        let mut series = Series::empty(&shape);
        for hours in [490_010, 490_011, 490_012, 490_010] {
            let time = Timestamp::from_secs(hours * 3_600);
            let leaf = Leaf::at(&shape.calendar, time);
            let observed = series.observe(&shape, &leaf, time, |_| &Measure::NONE, 1);
            assert_eq!(observed.late, series.total.count() == 4);
        }
        let buckets: Vec<_> = series.rings()[0].buckets().map(|(n, c)| (n, c.count())).collect();
        assert_eq!(buckets, [(490_011, 1), (490_012, 1)]);
        assert_eq!(series.total.count(), 4);
    }
}
