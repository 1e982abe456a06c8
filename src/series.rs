//! Series: the state of one key in one view, totals since ever and a ring of buckets per grain.
//!
//! Invariants
//! 1. A [`Cell`] counts events and spans their times whatever else the view keeps of them.
//! 2. A series is a merged value: `merge` of two halves of its events, in any order, gives the
//!    same bytes as recording all of them.
//! 3. The rings of a shape are either all packed or none ([`Shape::is_packed`]).
//! 4. Where the time of an event is known only roughly, the first and the last time are spans: all
//!    of the first one's ends are least ends, all of the last one's greatest (interval arithmetic),
//!    so they merge as exact times do.
//!
//! 5. Where the rings were converted from those of another definition (`series/convert.rs`) it is known from
//!    which bucket of each grain on they have everything; of two parts of a series it is the later one.
//!
//! Bytes of a row: `cell · rings · [loose · [known]]`; a cell is `count (LEB128) · [first (zigzag) · last - first
//! (LEB128) · states]`, the bracket only where count > 0, states in the order of the view's definition;
//! loose, only where one of the two is more than a moment or known follows, is `the length of the first
//! time's span · that of the last one's` (LEB128), of which `first` is the begin and `last` the end; known is
//! a bucket (zigzag) for each grain.
//! Next: `series/convert.rs`, then `view.rs`.

mod cell;
pub(crate) mod convert;
mod head;

pub(crate) use cell::{Cell, CellRef};
pub(crate) use head::Head;

use crate::aggregate::{Inputs, Kinds, Malformed, States, StatesMut, StatesRef};
use crate::codec;
use crate::ring::Ring;
pub(crate) use crate::ring::packed::SumFrom;
use crate::ring::packed::{self, Packed};
pub(crate) use crate::ring::sliding::{Sliding, Sum};
use crate::time::{Calendar, Leaf, Timestamp};
use cell::Tally;
use smallvec::SmallVec;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

/// What a view's series are made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) kinds: Kinds,
    pub(crate) calendar: Arc<Calendar>,
    /// Whether the rings are bytes in the row: they only count, and keep few buckets.
    is_packed: bool,
}

impl Shape {
    pub(crate) fn new(kinds: Kinds, calendar: Arc<Calendar>) -> Self {
        let is_packed = kinds.is_empty() && packed::is_packable(&calendar.grains);
        Shape { kinds, calendar, is_packed }
    }

    pub(crate) fn has_rings(&self) -> bool {
        !self.is_packed && !self.calendar.grains.is_empty()
    }
}

/// When an event was, and for how many it counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occurrence {
    pub(crate) time: Timestamp,
    /// By how many microseconds it may have been earlier or later.
    pub(crate) half_width: u64,
    pub(crate) times: u64,
}

impl Occurrence {
    /// One event at a time that is known.
    #[cfg(test)]
    pub(crate) fn at(time: Timestamp) -> Self {
        Occurrence { time, half_width: 0, times: 1 }
    }
}

/// A series by itself.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    head: Head,
    states: States,
}

/// A series where it lies, to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeriesRef<'a> {
    pub(crate) head: &'a Head,
    pub(crate) states: StatesRef<'a>,
}

/// A series where it lies, to be changed.
#[derive(Debug)]
pub(crate) struct SeriesMut<'a> {
    pub(crate) head: &'a mut Head,
    pub(crate) states: StatesMut<'a>,
}

/// Buckets that are known from the first one on.
pub(crate) const ALWAYS: i64 = i64::MIN;

/// What became of an event in a series.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Observed {
    /// It was older than the buckets kept in some ring, and is in the totals only.
    pub(crate) late: bool,
    /// Memory by which the series grew on the heap, in bytes; negative when buckets rotated out.
    pub(crate) grown: isize,
}

impl Series {
    pub(crate) fn empty(shape: &Shape) -> Self {
        let mut head = Head::default();
        head.make_rings(shape);
        Series { head, states: shape.kinds.empty() }
    }

    pub(crate) fn as_ref(&self) -> SeriesRef<'_> {
        SeriesRef { head: &self.head, states: self.states.as_ref() }
    }

    pub(crate) fn as_mut(&mut self) -> SeriesMut<'_> {
        SeriesMut { head: &mut self.head, states: self.states.as_mut() }
    }

    /// The rings of a shape that is not packed.
    pub(crate) fn rings(&self) -> &[Ring] {
        self.head.rings()
    }

    pub(crate) fn rings_mut(&mut self) -> &mut [Ring] {
        self.head.rings_mut()
    }

    /// Reads [`encode_row`](SeriesRef::encode_row)'s bytes; the rings' blocks are still empty.
    pub(crate) fn decode_row(mut bytes: &[u8], shape: &Shape) -> Result<Self, Malformed> {
        let bytes = &mut bytes;
        let Cell { tally, states } = Cell::decode(bytes, shape)?;
        let mut head = Head { tally, ..Head::default() };
        let grains = &shape.calendar.grains;
        if shape.is_packed && tally.count.get() > 0 {
            head.packed = Packed::decode(bytes, grains)?;
        } else if shape.has_rings() {
            let rings = grains.iter().map(|_| Ring::decode_directory(bytes));
            head.more().rings = rings.collect::<Result<_, _>>()?;
        }
        if !bytes.is_empty() {
            let Tally { count, first, last } = tally;
            let (first_len, last_len) = (codec::take_u64(bytes)?, codec::take_u64(bytes)?);
            let len = last.micros().abs_diff(first.micros());
            let is_loose = first_len.max(last_len) > 0;
            if count.get() == 0 || first_len.max(last_len) > len || !is_loose && bytes.is_empty() {
                return Err(Malformed("the first or the last time is no part of the time between"));
            }
            head.set_inner_ends(
                Timestamp::from_micros(first.micros() + first_len as i64),
                Timestamp::from_micros(last.micros() - last_len as i64),
            );
            if !bytes.is_empty() {
                let known = grains.iter().map(|_| codec::take_i64(bytes));
                head.set_known(known.collect::<Result<_, _>>()?);
                if grains.iter().enumerate().all(|(at, _)| head.known(at) == ALWAYS) {
                    return Err(Malformed("it is said that everything is known"));
                }
            }
        }
        codec::finished(bytes)?;
        Ok(Series { head, states })
    }

    /// Whether its row can say of the same events what another's does ([`StatesRef::agrees`]).
    pub(crate) fn agrees(mut self, other: SeriesRef<'_>) -> bool {
        if !self.states.as_ref().agrees(other.states) {
            return false;
        }
        self.states = other.states.to_owned();
        let row = |series: SeriesRef<'_>| {
            let mut row = Vec::new();
            series.encode_row(&mut row);
            row
        };
        row(self.as_ref()) == row(other)
    }

    /// All bytes of the series, blocks included: what two series must have equal to be equal.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.as_ref().encode_row(&mut out);
        for block in self.rings().iter().flat_map(Ring::blocks) {
            block.encode_buckets(&mut out);
        }
        out
    }
}

impl SeriesMut<'_> {
    pub(crate) fn as_ref(&self) -> SeriesRef<'_> {
        SeriesRef { head: self.head, states: self.states.as_ref() }
    }

    pub(crate) fn rings_mut(&mut self) -> &mut [Ring] {
        self.head.rings_mut()
    }

    /// Takes it out and leaves one of the same shape that has observed nothing.
    pub(crate) fn take(self) -> Series {
        let empty = self.head.emptied();
        let head = std::mem::replace(self.head, empty);
        Series { head, states: self.states.take() }
    }

    /// Puts one of the same shape in its place.
    pub(crate) fn put(self, series: Series) {
        *self.head = series.head;
        self.states.put(series.states);
    }

    /// Folds in an event, the leaf being turned to its time where there are grains; `mark` is left on
    /// every block that changes.
    #[inline]
    pub(crate) fn observe<'m>(
        self,
        shape: &Shape,
        leaf: &Leaf,
        event: Occurrence,
        inputs: impl Inputs<'m>,
        mark: u32,
    ) -> Observed {
        if event.half_width > 0 || self.head.more.is_some() {
            // Put together here, so that it need not be in memory where this is not called.
            let StatesMut { stats, sketches } = self.states;
            let series = SeriesMut { head: self.head, states: StatesMut { stats, sketches } };
            return series.observe_more(shape, leaf, event, inputs, mark);
        }
        let grown = self.states.observe(event.times, inputs);
        let mut observed = self.head.count_in(shape, leaf, event.time, event.times);
        observed.grown += grown;
        observed
    }

    #[inline(never)]
    fn observe_more<'m>(
        self,
        shape: &Shape,
        leaf: &Leaf,
        event: Occurrence,
        inputs: impl Inputs<'m>,
        mark: u32,
    ) -> Observed {
        let head = self.head;
        let before = head.heap_bytes();
        let (first_end, last_start) = head.inner_ends();
        let half_width = event.half_width as i64;
        let by = |micros: i64| {
            let moment = event.time.micros().saturating_add(micros);
            Timestamp::from_micros(moment).clamp(Timestamp::MIN, Timestamp::MAX)
        };
        let (start, end) = (by(-half_width), by(half_width));
        head.tally.observe(event.time, event.times);
        let grown = self.states.observe(event.times, inputs);
        head.tally.first = head.tally.first.min(start);
        head.tally.last = head.tally.last.max(end);
        head.set_inner_ends(first_end.min(end), last_start.max(start));
        let mut observed = Observed { late: false, grown };
        if shape.is_packed {
            let added = head.packed.add(&shape.calendar.grains, leaf.numbers(), event.times);
            observed.late = added.late;
        }
        let grains = shape.calendar.grains.iter().zip(leaf.numbers());
        for (ring, ((_, keep), number)) in head.rings_mut().iter_mut().zip(grains) {
            match ring.bucket_mut(*keep, number, shape, mark) {
                Some(bucket) => bucket.observe(event.times, inputs),
                None => observed.late = true,
            }
        }
        observed.grown += head.heap_bytes() as isize - before as isize;
        observed
    }

    /// Folds in the cell of some events that all lie in the buckets of this leaf: what
    /// [`observe`](Series::observe) of each would do.
    pub(crate) fn merge_run(self, run: &Cell, shape: &Shape, leaf: &Leaf, mark: u32) -> Observed {
        let head = self.head;
        let before = head.heap_bytes() as isize;
        let (first_end, last_start) = head.inner_ends();
        head.tally.merge(&run.tally);
        let grown = self.states.merge(run.states.as_ref());
        head.set_inner_ends(first_end.min(run.tally.first), last_start.max(run.tally.last));
        let (mut late, times) = (false, run.tally.count);
        if shape.is_packed {
            late = head.packed.add(&shape.calendar.grains, leaf.numbers(), times.get()).late;
        }
        let grains = shape.calendar.grains.iter().zip(leaf.numbers());
        for (ring, ((_, keep), number)) in head.rings_mut().iter_mut().zip(grains) {
            match ring.bucket_mut(*keep, number, shape, mark) {
                Some(bucket) => bucket.merge(times, run.states.as_ref()),
                None => late = true,
            }
        }
        Observed { late, grown: grown + head.heap_bytes() as isize - before }
    }

    pub(crate) fn merge(self, other: SeriesRef<'_>, shape: &Shape, mark: u32) {
        let (head, other_head) = (self.head, other.head);
        let (mine, theirs) = (head.inner_ends(), other_head.inner_ends());
        head.tally.merge(&other_head.tally);
        self.states.merge(other.states);
        head.set_inner_ends(mine.0.min(theirs.0), mine.1.max(theirs.1));
        if let Some(more) = other_head.more.as_ref().filter(|more| !more.known.is_empty()) {
            let known = more.known.iter().enumerate();
            head.set_known(known.map(|(at, known)| head.known(at).max(*known)).collect());
        }
        let grains = &shape.calendar.grains;
        if shape.is_packed {
            head.packed.merge(&other_head.packed, grains);
        }
        let rings = head.rings_mut().iter_mut().zip(other_head.rings());
        for ((ring, other), (_, keep)) in rings.zip(grains) {
            ring.merge(other, *keep, shape, mark);
        }
    }
}

impl<'a> SeriesRef<'a> {
    pub(crate) fn total(self) -> CellRef<'a> {
        CellRef { tally: &self.head.tally, states: self.states }
    }

    /// The rings of a shape that is not packed.
    pub(crate) fn rings(self) -> &'a [Ring] {
        self.head.rings()
    }

    pub(crate) fn to_owned(self) -> Series {
        Series { head: self.head.clone(), states: self.states.to_owned() }
    }

    /// Between when and when the first event was; meaningless while nothing is counted.
    pub(crate) fn first_span(self) -> RangeInclusive<Timestamp> {
        self.head.tally.first..=self.head.inner_ends().0
    }

    /// Between when and when the last event was.
    pub(crate) fn last_span(self) -> RangeInclusive<Timestamp> {
        self.head.inner_ends().1..=self.head.tally.last
    }

    /// Whether the buckets of the `at`th grain hold every event of the series.
    pub(crate) fn has_all(self, at: usize) -> bool {
        let counts = self.buckets_back(at).map(|(_, count, _)| count);
        counts.fold(0, u64::saturating_add) == self.total().count()
    }

    /// The buckets of the `at`th grain that hold events, newest first: their numbers, how many events
    /// each counts, and its states.
    #[inline]
    pub(crate) fn buckets_back(self, at: usize) -> impl Iterator<Item = (i64, u64, StatesRef<'a>)> {
        let packed =
            self.head.packed.buckets_back(at).map(|(n, count)| (n, count, StatesRef::default()));
        let ring = self.rings().get(at).into_iter();
        packed.chain(ring.flat_map(Ring::buckets_back))
    }

    /// What the buckets of the `at`th grain sum to from `first` on, where its ring is packed and has one.
    #[inline]
    pub(crate) fn sum_packed(self, at: usize, first: i64, most: u64) -> Option<SumFrom> {
        self.head.packed.sum_from(at, first, most)
    }

    /// Calls `see` with them until it breaks: the same in less time than one by one.
    #[inline]
    pub(crate) fn each_back(
        self,
        at: usize,
        mut see: impl FnMut(i64, u64, StatesRef<'_>) -> ControlFlow<()>,
    ) {
        match self.rings().get(at) {
            Some(ring) => {
                let mut back = ring.buckets_back();
                let _ = back.try_for_each(|(number, count, states)| see(number, count, states));
            }
            None => self
                .head
                .packed
                .each_back(at, |number, count| see(number, count, StatesRef::default())),
        }
    }

    /// The same, oldest first.
    pub(crate) fn buckets(self, at: usize) -> impl Iterator<Item = (i64, u64, StatesRef<'a>)> {
        let buckets: SmallVec<[_; 64]> = self.buckets_back(at).collect();
        buckets.into_iter().rev()
    }

    /// What the buckets of the `at`th grain from one to another hold, by what was merged for that before;
    /// and the newest bucket. `None` where it has no ring with blocks.
    pub(crate) fn sum_again(
        self,
        at: usize,
        merged: &mut Sliding,
        buckets: RangeInclusive<i64>,
        empty: &Sum,
    ) -> Option<(Sum, i64)> {
        let ring = self.rings().get(at)?;
        Some((merged.sum(ring, buckets, empty), ring.newest()?))
    }

    /// The newest bucket of the `at`th grain that an event was seen in.
    pub(crate) fn newest(self, at: usize) -> Option<i64> {
        self.head.packed.newest(at).or_else(|| self.rings().get(at).and_then(Ring::newest))
    }

    /// The bucket of the `at`th grain from which on every event is in its bucket, as far as the ring
    /// reaches; [`ALWAYS`] where nothing was converted.
    #[inline]
    pub(crate) fn known(self, at: usize) -> i64 {
        self.head.known(at)
    }

    /// What it holds on the heap besides its head and its states themselves.
    pub(crate) fn heap_bytes(self) -> usize {
        self.head.heap_bytes() + self.states.heap_bytes()
    }

    /// The row of the series itself: its totals, and packed rings or the directory of each ring.
    pub(crate) fn encode_row(self, out: &mut Vec<u8>) {
        self.total().encode(out);
        self.head.packed.encode(out);
        self.rings().iter().for_each(|ring| ring.encode_directory(out));
        let Tally { first, last, .. } = self.head.tally;
        let more = self.head.more.as_ref();
        if let Some(more) = more.filter(|more| more.loose.is_some() || !more.known.is_empty()) {
            let micros = |from: Timestamp, to: Timestamp| to.micros().abs_diff(from.micros());
            let (first_end, last_start) = self.head.inner_ends();
            codec::put_u64(out, micros(first, first_end));
            codec::put_u64(out, micros(last_start, last));
            more.known.iter().for_each(|known| codec::put_i64(out, *known));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{self, Input, Item, Measure, SketchKind};
    use crate::dictionary::Dictionary;
    use crate::time::{Grain, Keep};
    use proptest::prelude::*;

    fn calendar(grains: &[(Grain, Keep)]) -> Arc<Calendar> {
        let zone = "America/St_Johns".parse().unwrap();
        Arc::new(Calendar { zone, grains: grains.to_vec() })
    }

    fn shape(stats: usize, sketches: &[SketchKind], keep: Keep) -> Shape {
        let calendar = calendar(&[(Grain::Hour, keep), (Grain::Day, keep)]);
        Shape::new(Kinds { stats, sketches: sketches.to_vec() }, calendar)
    }

    /// Packed or in blocks; with and without states.
    fn shapes() -> impl Strategy<Value = Shape> {
        let keep = prop_oneof![Just(Keep::All), (1_u32..300).prop_map(Keep::Last)];
        let sketches = vec![
            SketchKind::Quantiles,
            SketchKind::Distinct { precision: 6 },
            SketchKind::Theta { k: 64 },
            SketchKind::Top { capacity: 200 },
            SketchKind::CountMin { width: 8, depth: 2 },
            SketchKind::Membership { size: 1 },
        ];
        let sketches = prop::sample::subsequence(sketches, 0..=6);
        (0_usize..3, sketches, keep)
            .prop_map(|(stats, sketches, keep)| shape(stats, &sketches, keep))
    }

    /// The value of an event, to states of any kind.
    #[derive(Clone, Copy)]
    struct Value<'a>(&'a Measure, &'a Shape);

    thread_local! {
        static TEXTS: &'static Dictionary = Box::leak(Box::new(Dictionary::new(0)));
    }

    impl<'a> Inputs<'a> for Value<'a> {
        fn measure(self, _: usize) -> &'a Measure {
            self.0
        }

        fn input(self, at: usize) -> Input<'a> {
            let value = self.0.value();
            if self.1.kinds.sketches[at] == SketchKind::Quantiles {
                return Input::Value(value);
            }
            let texts = TEXTS.with(|texts| *texts);
            let text = format!("{:.0}", value * 9.0);
            let sym = texts.intern(&mut texts.reader(), &text);
            Input::Item(Item { hash: aggregate::hash(text.as_bytes()), sym, texts }, 3)
        }
    }

    /// Hours, by how many they may be wrong, how many events, and a value.
    type Told = (i64, u64, u64, f64);

    fn told() -> impl Strategy<Value = Told> {
        let half_width = prop_oneof![3 => Just(0_u64), 1 => 1_u64..30];
        let times = prop_oneof![3 => Just(1_u64), 1 => 1_u64..400, 1 => Just(u64::MAX / 2), 1 => Just(u64::MAX)];
        (-2_000_i64..2_000, half_width, times, -9.0..9.0_f64)
    }

    fn put(series: &mut Series, shape: &Shape, (hours, half_width, times, value): Told) {
        let time = Timestamp::from_secs(hours * 3_600);
        let event = Occurrence { time, half_width: half_width * 3_600_000_000, times };
        let (measure, leaf) = (Measure::new(value), Leaf::at(&shape.calendar, time));
        let before = series.as_ref().heap_bytes() as isize;
        let observed = series.as_mut().observe(shape, &leaf, event, Value(&measure, shape), 1);
        assert_eq!(series.as_ref().heap_bytes() as isize - before, observed.grown);
    }

    /// Whether both take as much; sketches have room to grow, which depends on how they came about.
    fn heap_is_alike(a: &Series, b: &Series) -> bool {
        let has_sketches = !a.as_ref().states.sketches.is_empty();
        has_sketches || a.as_ref().heap_bytes() == b.as_ref().heap_bytes()
    }

    fn fold(shape: &Shape, events: &[Told]) -> Series {
        let mut series = Series::empty(shape);
        for event in events {
            put(&mut series, shape, *event);
        }
        series
    }

    proptest! {
        #[test]
        fn events_in_any_order_and_grouping_leave_the_same_bytes(
            mut events in prop::collection::vec(told(), 0..80),
            cut: prop::sample::Index,
            shape in shapes(),
        ) {
            let direct = fold(&shape, &events).bytes();
            let cut = cut.index(events.len() + 1);
            let (mut a, b) = (fold(&shape, &events[..cut]), fold(&shape, &events[cut..]));
            let mut reverse = b.clone();
            reverse.as_mut().merge(a.as_ref(), &shape, 1);
            a.as_mut().merge(b.as_ref(), &shape, 1);
            prop_assert_eq!(&a.bytes(), &direct);
            prop_assert!(heap_is_alike(&a, &fold(&shape, &events)));
            prop_assert_eq!(&reverse.bytes(), &direct);
            events.reverse();
            prop_assert_eq!(&fold(&shape, &events).bytes(), &direct);
            let mut empty = Series::empty(&shape);
            empty.as_mut().merge(a.as_ref(), &shape, 1);
            prop_assert_eq!(&empty.bytes(), &direct);
        }

        #[test]
        fn packed_or_in_blocks_the_buckets_are_those_of_a_map(
            events in prop::collection::vec(told(), 0..80),
            n in 1_u32..300,
        ) {
            let packed = shape(0, &[], Keep::Last(n));
            let blocks = Shape { is_packed: false, ..packed.clone() };
            prop_assert!(packed.is_packed);
            let (packed, blocks) = (fold(&packed, &events), fold(&blocks, &events));
            let leaf = |hours: i64| {
                Leaf::at(&calendar(&[(Grain::Hour, Keep::All), (Grain::Day, Keep::All)]),
                    Timestamp::from_secs(hours * 3_600)).numbers().collect::<Vec<_>>()
            };
            for at in 0..2 {
                let mut map = std::collections::BTreeMap::<i64, u64>::new();
                for (hours, _, times, _) in &events {
                    let count = map.entry(leaf(*hours)[at]).or_default();
                    *count = count.saturating_add(*times);
                }
                let newest = map.keys().next_back().copied();
                if let Some(newest) = newest {
                    map.retain(|number, _| *number >= Keep::Last(n).oldest(newest));
                }
                for series in [&packed, &blocks] {
                    prop_assert_eq!(series.as_ref().newest(at), newest);
                    let buckets: Vec<_> = series.as_ref().buckets(at).map(|(n, c, _)| (n, c)).collect();
                    prop_assert_eq!(buckets, map.clone().into_iter().collect::<Vec<_>>());
                }
            }
        }

        #[test]
        fn an_event_that_counts_for_many_leaves_what_as_many_would(
            before in prop::collection::vec(told(), 0..10),
            (hours, half_width, _, value) in told(),
            times in 1_u64..70,
            shape in shapes(),
        ) {
            let (mut one, mut many) = (fold(&shape, &before), fold(&shape, &before));
            put(&mut one, &shape, (hours, half_width, times, value));
            (0..times).for_each(|_| put(&mut many, &shape, (hours, half_width, 1, value)));
            prop_assert_eq!(one.bytes(), many.bytes());
        }

        #[test]
        fn first_and_last_time_lie_in_their_spans(
            events in prop::collection::vec(told(), 1..20),
            offs in prop::collection::vec(-1.0..=1.0_f64, 20),
        ) {
            let series = fold(&shape(0, &[], Keep::Last(9)), &events);
            let truths: Vec<i64> = events.iter().zip(offs).map(|((hours, half, _, _), off)| {
                hours * 3_600_000_000 + (*half as f64 * 3.6e9 * off) as i64
            }).collect();
            let truth = |micros: Option<&i64>| Timestamp::from_micros(*micros.unwrap());
            let (first, last) = (series.as_ref().first_span(), series.as_ref().last_span());
            prop_assert!(first.contains(&truth(truths.iter().min())));
            prop_assert!(last.contains(&truth(truths.iter().max())));
            prop_assert!(first.start() <= last.start() && first.end() <= last.end());
        }

        #[test]
        fn a_run_leaves_what_its_events_would(
            before in prop::collection::vec(told(), 0..40),
            hour in -2_000_i64..2_000,
            run in prop::collection::vec((0_i64..3_600, 1_u64..300, -9.0..9.0_f64), 1..20),
            shape in shapes(),
        ) {
            let (mut each, mut together) = (fold(&shape, &before), fold(&shape, &before));
            let mut cell = Cell::empty(&shape);
            let mut late = false;
            // An hour of St. John's begins at half past one of UTC's.
            let at = |second: &i64| Timestamp::from_secs(hour * 3_600 + 1_800 + second);
            let leaf = Leaf::at(&shape.calendar, at(&0));
            for (second, times, value) in &run {
                let time = at(second);
                let measure = Measure::new(*value);
                let event = Occurrence { times: *times, ..Occurrence::at(time) };
                late = each.as_mut().observe(&shape, &leaf, event, Value(&measure, &shape), 1).late;
                cell.observe_each(std::iter::once((time, *times, Value(&measure, &shape))));
            }
            prop_assert_eq!(together.as_mut().merge_run(&cell, &shape, &leaf, 1).late, late);
            prop_assert_eq!(together.bytes(), each.bytes());
            prop_assert!(heap_is_alike(&together, &each));
        }

        #[test]
        fn rows_come_back(
            events in prop::collection::vec(told(), 1..80),
            known in prop::option::of(any::<i64>()),
            shape in shapes(),
        ) {
            let mut series = fold(&shape, &events[1..]);
            series.head.set_known(Box::new([ALWAYS, known.unwrap_or(ALWAYS)]));
            put(&mut series, &shape, events[0]);
            let mut row = Vec::new();
            series.as_ref().encode_row(&mut row);
            let mut back = Series::decode_row(&row, &shape).expect("own bytes");
            for (ring, original) in back.rings_mut().iter_mut().zip(series.rings()) {
                for (at, original) in original.blocks().iter().enumerate() {
                    let mut buckets = Vec::new();
                    original.encode_buckets(&mut buckets);
                    ring.decode_block(at, &buckets, &shape).expect("own bytes");
                }
            }
            prop_assert_eq!(back.bytes(), series.bytes());
            prop_assert!(heap_is_alike(&back, &series));
            prop_assert_eq!(back.as_ref().known(1), known.unwrap_or(ALWAYS));
        }

        #[test]
        fn of_two_parts_the_later_bucket_is_known(
            events in prop::collection::vec(told(), 1..20),
            known in prop::array::uniform4(-9..9_i64),
            shape in shapes(),
        ) {
            let of = |known: &[i64]| {
                let mut series = fold(&shape, &events);
                series.head.set_known(known.into());
                series
            };
            let (mut a, mut b) = (of(&known[..2]), of(&known[2..]));
            let (first, plain) = (a.clone(), fold(&shape, &events));
            a.as_mut().merge(b.as_ref(), &shape, 1);
            b.as_mut().merge(first.as_ref(), &shape, 1);
            prop_assert_eq!(a.bytes(), b.bytes());
            prop_assert_eq!(a.as_ref().known(0), known[0].max(known[2]));
            let (mut more, mut less) = (first.clone(), plain.clone());
            more.as_mut().merge(plain.as_ref(), &shape, 1);
            less.as_mut().merge(first.as_ref(), &shape, 1);
            prop_assert_eq!(more.as_ref().known(1), known[1]);
            prop_assert_eq!(more.bytes(), less.bytes());
        }

        #[test]
        fn hostile_rows_are_refused_without_a_panic(
            bytes: Vec<u8>,
            events in prop::collection::vec(told(), 0..9),
            known in prop::option::of(-99..99_i64),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            shape in shapes(),
        ) {
            let mut row = Vec::new();
            let mut series = fold(&shape, &events);
            if series.head.count() > 0 {
                series.head.set_known(Box::new([known.unwrap_or(ALWAYS), ALWAYS]));
            }
            series.as_ref().encode_row(&mut row);
            for (at, byte) in flips {
                let at = at.index(row.len());
                row[at] ^= byte;
            }
            for row in [&bytes, &row] {
                let Ok(mut series) = Series::decode_row(row, &shape) else { continue };
                // What is taken is what would have been written, and can be gone on with.
                let mut again = Vec::new();
                series.as_ref().encode_row(&mut again);
                prop_assert_eq!(&again, row);
                for ring in series.rings_mut() {
                    for at in 0..ring.blocks().len() {
                        let _ = ring.decode_block(at, &bytes, &shape);
                    }
                }
                put(&mut series, &shape, (3, 0, 2, 1.0));
                series.as_ref().buckets(1).for_each(|_| {});
            }
        }
    }

    #[test]
    fn a_rotated_bucket_is_in_the_totals_only() {
        let shape = Shape::new(Kinds::default(), calendar(&[(Grain::Hour, Keep::Last(2))]));
        let mut series = Series::empty(&shape);
        for hours in [490_010, 490_011, 490_012, 490_010] {
            let time = Timestamp::from_secs(hours * 3_600);
            let leaf = Leaf::at(&shape.calendar, time);
            let observed =
                series.as_mut().observe(&shape, &leaf, Occurrence::at(time), |_| &Measure::NONE, 1);
            assert_eq!(observed.late, series.head.count() == 4);
        }
        let buckets: Vec<_> = series.as_ref().buckets(0).map(|(n, count, _)| (n, count)).collect();
        assert_eq!(buckets, [(490_011, 1), (490_012, 1)]);
        assert_eq!(series.head.count(), 4);
    }
}
