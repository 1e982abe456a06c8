//! Applying a batch: columns of events to series, a view at a time, a shard at a time.
//!
//! For each view the events it takes are grouped by shard before any lock is taken, neighbours of one key
//! as one; then each shard is locked once. Shards that another thread holds are left for later, so that two threads
//! with the same hot keys do not queue behind each other. Inside a shard some events go together,
//! step by step: have the places in the table fetched, then the entries found there, then look up,
//! then change. Events do not depend on each other, so the processor waits for several of their
//! cache misses at once.
//!
//! A single event goes the same steps across views. The shards' locks are held together for that, taken in the order of the views, which is
//! the same for everybody; nobody else holds more than one.

use super::shard::{NO_SLOT, Shard};
use super::{Key, ViewTier};
use crate::aggregate::{self, Input, Inputs, Item, Measure};
use crate::dictionary::{Dictionary, Sym};
use crate::error::Result;
use crate::event::Event;
use crate::record::Columns;
use crate::series::{Cell, Occurrence, SeriesRef};
use crate::sync::{Mutex, MutexGuard, lock_soon};
use crate::time::{Leaf, Timestamp};
use crate::view::{Part, Plan, Sketched};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;

/// Events whose entries are prefetched before the first of them is changed.
const BLOCK: usize = 32;
/// Views in which a single event is looked up before it is folded into the first of them.
const VIEWS: usize = 8;

/// Room for the work of one batch, kept from one to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    items: Vec<Placed>,
    grouped: Vec<Placed>,
    slots: Vec<u32>,
    /// The measures of the batch taken apart, by column.
    measures: Vec<Vec<Measure>>,
    /// The hashes of the batch's texts that sketches are of.
    hashes: Hashes,
    /// Events that were too old for a bucket of some view that answers; unordered.
    late: Vec<u32>,
    /// Where in the calendar of each view the event before was, by the place of the view.
    leaves: Vec<Leaf>,
}

/// Neighbouring events of one key, and where that goes.
#[derive(Clone, Copy, Default)]
struct Placed {
    row: u32,
    len: u16,
    shard: u16,
    hash: u64,
}

impl Placed {
    #[inline]
    fn rows(self) -> Range<usize> {
        self.row as usize..self.row as usize + usize::from(self.len)
    }
}

impl Scratch {
    /// Begins with a batch: what [`apply_all`] does by itself.
    pub(crate) fn begin(&mut self, columns: &Columns) {
        self.begin_rows(columns, 0..columns.len());
    }

    fn begin_rows(&mut self, columns: &Columns, rows: Range<usize>) {
        self.late.clear();
        self.hashes.made = 0;
        self.measures.resize_with(columns.measures.len(), Vec::new);
        for (measures, column) in self.measures.iter_mut().zip(&columns.measures) {
            measures.clear();
            measures.extend(column.values[rows.clone()].iter().map(|value| Measure::new(*value)));
        }
    }

    /// How many of the batch's events were late in some view.
    pub(crate) fn late(&mut self) -> u64 {
        self.late.sort_unstable();
        self.late.dedup();
        self.late.len() as u64
    }
}

/// Hashes of texts, by what part of the events they are of; several views may want the same.
#[derive(Default)]
struct Hashes {
    of: Vec<(Part, Vec<u64>)>,
    /// So many of these are of the present batch.
    made: usize,
}

impl Hashes {
    /// Has those that a plan's sketches need.
    fn make(&mut self, plan: &Plan, columns: &Columns, texts: &Dictionary) {
        for sketched in &plan.sketched {
            let (Sketched::Part(part) | Sketched::Weighed(part, _)) = *sketched else { continue };
            let Some(column) = column(columns, part) else { continue };
            if self.get(part).is_some() {
                continue;
            }
            if self.made == self.of.len() {
                self.of.push((part, Vec::new()));
            }
            let (of, hashes) = &mut self.of[self.made];
            self.made += 1;
            *of = part;
            hashes.clear();
            hashes.extend(column.iter().map(|sym| hash_of(*sym, texts)));
        }
    }

    fn get(&self, part: Part) -> Option<&[u64]> {
        let made = &self.of[..self.made];
        made.iter().find(|(of, _)| *of == part).map(|(_, hashes)| hashes.as_slice())
    }
}

/// The hash of a text, anything where there is none.
fn hash_of(sym: Sym, texts: &Dictionary) -> u64 {
    if sym == Sym::NONE { 0 } else { aggregate::hash(texts.text(sym).as_bytes()) }
}

/// The columns that a plan looks at, found once a batch.
struct Bound<'a> {
    columns: &'a Columns,
    conditions: SmallVec<[(&'a [Sym], &'a [Sym]); 4]>,
    measures: SmallVec<[Option<&'a [Measure]>; 2]>,
    sketched: SmallVec<[BoundSketch<'a>; 1]>,
    texts: &'a Dictionary,
}

/// The columns of what a sketch is of.
enum BoundSketch<'a> {
    Nothing,
    Measure(&'a [Measure]),
    /// Texts, their hashes, and what they weigh where that is not one each.
    Part(&'a [Sym], &'a [u64], Option<&'a [Measure]>),
}

#[inline]
fn occurrence(columns: &Columns, row: usize) -> Occurrence {
    Occurrence {
        time: Timestamp::from_micros(columns.times[row]),
        half_width: columns.extras.half_width(row),
        times: columns.extras.times(row),
    }
}

fn column(columns: &Columns, part: Part) -> Option<&[Sym]> {
    match part {
        Part::EventName => Some(&columns.names),
        Part::Dimension(name) => {
            columns.dims.iter().find(|column| column.name == name).map(|c| c.values.as_slice())
        }
    }
}

impl<'a> Bound<'a> {
    /// `None` when no event of the batch can be in the view.
    fn new(
        plan: &'a Plan,
        columns: &'a Columns,
        measures: &'a [Vec<Measure>],
        hashes: &'a Hashes,
        texts: &'a Dictionary,
    ) -> Option<Self> {
        let mut conditions = SmallVec::new();
        for (part, values) in &plan.conditions {
            conditions.push((column(columns, *part)?, values.as_slice()));
        }
        if !plan.names.is_empty() {
            conditions.push((columns.names.as_slice(), plan.names.as_slice()));
        }
        let measure = |name: &Sym| {
            let at = columns.measures.iter().position(|column| column.name == *name);
            at.map(|at| measures[at].as_slice())
        };
        let sketched = plan.sketched.iter().map(|sketched| match *sketched {
            Sketched::Measure(name) => {
                measure(&name).map_or(BoundSketch::Nothing, BoundSketch::Measure)
            }
            Sketched::Part(part) => match (column(columns, part), hashes.get(part)) {
                (Some(syms), Some(hashes)) => BoundSketch::Part(syms, hashes, None),
                _ => BoundSketch::Nothing,
            },
            Sketched::Weighed(part, by) => {
                match (column(columns, part), hashes.get(part), measure(&by)) {
                    (Some(syms), Some(hashes), by @ Some(_)) => BoundSketch::Part(syms, hashes, by),
                    _ => BoundSketch::Nothing,
                }
            }
        });
        let sketched = sketched.collect();
        let measures = plan.measures.iter().map(measure).collect();
        Some(Bound { columns, conditions, measures, sketched, texts })
    }

    #[inline]
    fn time(&self, row: usize) -> Timestamp {
        Timestamp::from_micros(self.columns.times[row])
    }

    /// The measure that each event of the batch brings to a view which keeps the statistics of one and
    /// nothing else, where each event counts for one at a time that is known.
    fn only_measure(&self, plan: &Plan) -> Option<&'a [Measure]> {
        let is_plain = plan.shape.kinds.sketches.is_empty() && self.columns.extras.is_plain();
        match *self.measures.as_slice() {
            [Some(measures)] if is_plain => Some(measures),
            _ => None,
        }
    }

    /// The times of some events, and what they bring of a measure.
    #[inline]
    fn plain<'m>(
        &self,
        measures: &'m [Measure],
        rows: Range<usize>,
    ) -> impl Iterator<Item = (Timestamp, &'m Measure)> {
        let times = self.columns.times[rows.clone()].iter();
        times.map(|time| Timestamp::from_micros(*time)).zip(&measures[rows])
    }

    /// What the states of the view observe of an event.
    #[inline]
    fn inputs(&self, row: usize) -> BoundRow<'_, 'a> {
        BoundRow { bound: self, row }
    }

    /// Folds events into series without rings.
    #[inline]
    fn observe(
        &self,
        shard: &mut Shard,
        slots: &[u32],
        items: &[Placed],
        plan: &Plan,
        leaf: &Leaf,
    ) {
        for (slot, item) in slots.iter().zip(items) {
            for row in item.rows() {
                let event = occurrence(self.columns, row);
                shard.observe(*slot, &plan.shape, leaf, event, self.inputs(row));
            }
        }
    }

    /// Folds events into series without rings that keep the statistics of [one measure](Bound::only_measure). Apart from
    /// who calls it, for it is the same for keys of any number of parts.
    #[inline(never)]
    fn observe_plain(
        &self,
        shard: &mut Shard,
        slots: &[u32],
        items: &[Placed],
        plan: &Plan,
        leaf: &Leaf,
        measures: &[Measure],
    ) {
        for (slot, item) in slots.iter().zip(items) {
            shard.observe_plain(*slot, &plan.shape, leaf, self.plain(measures, item.rows()));
        }
    }

    /// Folds events into series that have rings. Those that follow each other in the same series and
    /// the same buckets are folded into a cell of their own first, which is then merged into the
    /// totals and the buckets: each event is observed once, not once for each of them. (One whose time
    /// is known roughly is no moment between a first and a last one, and goes by itself.)
    fn observe_runs(
        &self,
        shard: &mut Shard,
        slots: &[u32],
        items: &[Placed],
        plan: &Plan,
        leaf: &mut Leaf,
        late: &mut Vec<u32>,
    ) {
        let (shape, measures) = (&plan.shape, self.only_measure(plan));
        // A sketch observes faster than it merges.
        let by_itself = !shape.kinds.sketches.is_empty();
        let extras = &self.columns.extras;
        // The item that is next, and how many of its events were folded.
        let (mut at, mut folded) = (0, 0);
        let rest = |at: usize, folded: usize| {
            let Range { start, end } = items[at].rows();
            start + folded..end
        };
        while at < items.len() {
            let (begin, slot, first) = ((at, folded), slots[at], rest(at, folded).start);
            leaf.turn_to(&shape.calendar, self.time(first));
            if by_itself || extras.half_width(first) > 0 {
                let event = occurrence(self.columns, first);
                let is_late = shard.observe(slot, shape, leaf, event, self.inputs(first));
                late.extend(is_late.then_some(first as u32));
                (at, folded) =
                    if first + 1 == items[at].rows().end { (at + 1, 0) } else { (at, folded + 1) };
                continue;
            }
            let span = leaf.span();
            let is_more =
                |row: usize| span.contains(&self.time(row)) && extras.half_width(row) == 0;
            let (mut run, mut count) = (Cell::empty(shape), 0);
            while at < items.len() && slots[at] == slot {
                let Range { start, end } = rest(at, folded);
                // The first of all in any case.
                let mut rows = start + usize::from(count == 0)..end;
                let upto = rows.find(|row| !is_more(*row)).unwrap_or(end);
                if let Some(measures) = measures {
                    run.observe_plain(self.plain(measures, start..upto));
                } else {
                    let event = |row: usize| (self.time(row), extras.times(row), self.inputs(row));
                    run.observe_each((start..upto).map(event));
                }
                count += upto - start;
                if upto < end {
                    folded += upto - start;
                    break;
                }
                (at, folded) = (at + 1, 0);
            }
            if shard.merge(slot, shape, leaf, &run) {
                let rows =
                    items[begin.0..items.len().min(at + 1)].iter().flat_map(|item| item.rows());
                late.extend(rows.skip(begin.1).take(count).map(|row| row as u32));
            }
        }
    }
}

/// An event of a batch, to the states of a view.
#[derive(Clone, Copy)]
struct BoundRow<'b, 'a> {
    bound: &'b Bound<'a>,
    row: usize,
}

impl<'a> Inputs<'a> for BoundRow<'_, 'a> {
    #[inline]
    fn measure(self, at: usize) -> &'a Measure {
        self.bound.measures[at].map_or(&Measure::NONE, |values| &values[self.row])
    }

    #[inline]
    fn input(self, at: usize) -> Input<'a> {
        match self.bound.sketched[at] {
            BoundSketch::Nothing => Input::Nothing,
            BoundSketch::Measure(values) => value(&values[self.row]),
            BoundSketch::Part(syms, hashes, by) => {
                let weight = by.map_or(1, |by| weight(&by[self.row]));
                item(syms[self.row], hashes[self.row], weight, self.bound.texts)
            }
        }
    }
}

/// An event by itself, to the states of a view.
#[derive(Clone, Copy)]
struct SingleRow<'a> {
    view: &'a ViewTier,
    columns: &'a Columns,
    row: usize,
    /// Of this event, by column.
    measures: &'a [Vec<Measure>],
    /// Of the texts that its sketches observe, by sketch.
    hashes: &'a [u64],
}

impl ViewTier {
    /// The hashes of the texts of an event that the sketches observe, by sketch.
    #[inline]
    fn hashes_of(&self, columns: &Columns, row: usize) -> SmallVec<[u64; 4]> {
        let hash = |sketched: &Sketched| match *sketched {
            Sketched::Measure(_) => 0,
            Sketched::Part(part) | Sketched::Weighed(part, _) => {
                let sym = column(columns, part).map_or(Sym::NONE, |column| column[row]);
                hash_of(sym, &self.dictionary)
            }
        };
        if self.plan.sketched.is_empty() {
            return SmallVec::new();
        }
        self.plan.sketched.iter().map(hash).collect()
    }
}

impl<'a> SingleRow<'a> {
    fn find(self, name: Sym) -> &'a Measure {
        let at = self.columns.measures.iter().position(|column| column.name == name);
        at.map_or(&Measure::NONE, |at| &self.measures[at][0])
    }

    fn item(self, at: usize, part: Part, weight: u64) -> Input<'a> {
        let sym = column(self.columns, part).map_or(Sym::NONE, |column| column[self.row]);
        item(sym, self.hashes[at], weight, &self.view.dictionary)
    }
}

impl<'a> Inputs<'a> for SingleRow<'a> {
    #[inline]
    fn measure(self, at: usize) -> &'a Measure {
        self.find(self.view.plan.measures[at])
    }

    #[inline]
    fn input(self, at: usize) -> Input<'a> {
        match self.view.plan.sketched[at] {
            Sketched::Measure(name) => value(self.find(name)),
            Sketched::Part(part) => self.item(at, part, 1),
            Sketched::Weighed(part, by) => self.item(at, part, weight(self.find(by))),
        }
    }
}

fn value(measure: &Measure) -> Input<'static> {
    let value = measure.value();
    if value.is_nan() { Input::Nothing } else { Input::Value(value) }
}

/// What an event weighs by a measure: that, rounded; nothing where it is negative or missing.
fn weight(measure: &Measure) -> u64 {
    // What is no number becomes 0, what is beyond either end that end.
    measure.value().round() as u64
}

#[inline]
fn item(sym: Sym, hash: u64, weight: u64, texts: &Dictionary) -> Input<'_> {
    if sym == Sym::NONE {
        return Input::Nothing;
    }
    Input::Item(Item { hash, sym, texts }, weight)
}

/// Folds the events into the series of every view that takes them.
pub(crate) fn apply_all(views: &[Arc<ViewTier>], columns: &Columns, scratch: &mut Scratch) {
    if columns.len() == 1 {
        let late = apply_row(views, columns, 0, scratch);
        scratch.late.extend(late.then_some(0));
        return;
    }
    scratch.begin(columns);
    for (place, view) in views.iter().enumerate() {
        let late = scratch.late.len();
        view.apply(columns, place, scratch);
        if scratch.late.len() > late && view.is_succeeding() {
            scratch.late.truncate(late);
        }
    }
}

/// Folds one event of the columns into the series of every view that takes it; says whether it was
/// late in one of them that answers.
pub(crate) fn apply_row(
    views: &[Arc<ViewTier>],
    columns: &Columns,
    row: usize,
    scratch: &mut Scratch,
) -> bool {
    scratch.begin_rows(columns, row..row + 1);
    let event = occurrence(columns, row);
    let Scratch { measures, leaves, .. } = scratch;
    leaves.resize_with(leaves.len().max(views.len()), Leaf::default);
    let measures = measures.as_slice();
    if let ([view], [leaf, ..]) = (views, leaves.as_mut_slice()) {
        // Nothing is looked up together.
        let found = view.find_row(columns, row, leaf);
        let is_late = found.is_some_and(|found| found.observe(event, columns, row, measures));
        return is_late && !view.is_succeeding();
    }
    let mut late = SmallVec::<[&ViewTier; 4]>::new();
    for (views, leaves) in views.chunks(VIEWS).zip(leaves.chunks_mut(VIEWS)) {
        let mut found = SmallVec::<[Found<'_>; VIEWS]>::new();
        for (view, leaf) in views.iter().zip(leaves) {
            found.extend(view.find_row(columns, row, leaf));
        }
        for Found { shard, hash, key, likely, .. } in &mut found {
            *likely = shard.approach(*hash, key);
        }
        for found in found {
            let view = found.view;
            if found.observe(event, columns, row, measures) {
                late.push(view);
            }
        }
    }
    // With no shard locked any more.
    late.iter().any(|view| !view.is_succeeding())
}

impl<'a> Found<'a> {
    /// Folds the event in, and lets go of the shard; says whether it was late.
    #[inline]
    fn observe(
        mut self,
        event: Occurrence,
        columns: &'a Columns,
        row: usize,
        measures: &'a [Vec<Measure>],
    ) -> bool {
        let (view, shape) = (self.view, &self.view.plan.shape);
        let slot = self.shard.slot_at(self.likely, self.hash, &self.key, shape);
        // Once, for the totals and all buckets.
        let hashes: SmallVec<[u64; 4]> = view.hashes_of(columns, row);
        let inputs = SingleRow { view, columns, row, measures, hashes: &hashes };
        self.shard.observe(slot, shape, self.leaf, event, inputs)
    }
}

/// Whether an event may be folded into a series.
pub(crate) enum Answer {
    Yes,
    No,
    /// That cannot be said by the series as it is here.
    Unknown,
}

/// What became of an event that a series was asked about.
pub(crate) enum Decided {
    /// It is recorded, and in the series; whether some bucket that it belongs to is not kept any more.
    Recorded { is_late: bool },
    /// It is not: the answer was no.
    Refused,
    /// Nothing was done.
    Unknown,
}

/// Who records an event that a series is asked about.
pub(crate) trait Recorder {
    /// Whether other threads do the same at this time, most likely.
    fn is_among_others(&self) -> bool;
    /// Asks the series, if there is one.
    fn ask(&mut self, series: Option<SeriesRef<'_>>) -> Answer;
    /// Does what can be done beforehand, while the series comes into the processor's cache.
    fn prepare(&mut self);
    /// Records it.
    fn record(&mut self) -> Result<()>;
    /// The columns of what was recorded, of which the event is the last.
    fn columns(&mut self) -> &Columns;
}

/// Where a single event goes in one view.
struct Found<'a> {
    view: &'a ViewTier,
    /// Turned to the event's time, if the view has grains.
    leaf: &'a Leaf,
    shard: MutexGuard<'a, Shard>,
    hash: u64,
    key: Key,
    /// What [`Shard::approach`] gives.
    likely: u32,
}

impl ViewTier {
    /// Locks the shard of an event, if the view takes it, and asks for the key's place there.
    fn find_row<'a>(
        &'a self,
        columns: &Columns,
        row: usize,
        leaf: &'a mut Leaf,
    ) -> Option<Found<'a>> {
        let takes = |part: Part, values: &[Sym]| {
            column(columns, part).is_some_and(|column| values.contains(&column[row]))
        };
        let Plan { names, conditions, key: parts, .. } = &self.plan;
        if !(names.is_empty() || takes(Part::EventName, names))
            || !conditions.iter().all(|(part, values)| takes(*part, values))
        {
            return None;
        }
        let mut key = Key::new();
        for part in parts {
            key.push(column(columns, *part).map(|column| column[row]).filter(|s| *s != Sym::NONE)?);
        }
        let calendar = &self.plan.shape.calendar;
        if !calendar.grains.is_empty() {
            leaf.turn_to(calendar, Timestamp::from_micros(columns.times[row]));
        }
        let (shard, hash) = self.place(&key);
        let shard = self.shards[shard].lock();
        shard.prefetch(hash, &key);
        Some(Found { view: self, leaf, shard, hash, key, likely: NO_SLOT })
    }

    /// Whether an event is of those that the view is of, whatever its key.
    pub(crate) fn takes(&self, event: &Event<'_>) -> bool {
        let Plan { names, conditions, .. } = &self.plan;
        let is_any = |text: Option<&str>, syms: &[Sym]| {
            text.is_some_and(|text| syms.iter().any(|sym| self.dictionary.text(*sym) == text))
        };
        (names.is_empty() || is_any(Some(event.name), names))
            && conditions.iter().all(|(part, values)| match part {
                Part::EventName => is_any(Some(event.name), values),
                Part::Dimension(name) => is_any(event.part(self.dictionary.text(*name)), values),
            })
    }

    /// Asks the series of a key about an event that happens at `time` and counts for `times`; the view
    /// [takes](ViewTier::takes) it, and it has that key. If it may happen has it recorded and folds it in, all
    /// under one hold of the shard. The view is the first that this scratch is of.
    #[inline]
    pub(crate) fn observe_if(
        &self,
        key: &[Sym],
        (time, times): (Timestamp, u64),
        scratch: &mut Scratch,
        recorder: &mut impl Recorder,
    ) -> Result<Decided> {
        let shape = &self.plan.shape;
        if scratch.leaves.is_empty() {
            scratch.leaves.push(Leaf::default());
        }
        if !shape.calendar.grains.is_empty() {
            scratch.leaves[0].turn_to(&shape.calendar, time);
        }
        let (at, hash) = self.place(key);
        let shard = &self.shards[at];
        let mut shard = if recorder.is_among_others() { lock_soon(shard) } else { shard.lock() };
        let likely = shard.approach(hash, key);
        recorder.prepare();
        let (slot, answer) = shard.ask(likely, hash, key, |series| recorder.ask(series));
        match answer {
            Answer::Yes => {}
            Answer::No => return Ok(Decided::Refused),
            Answer::Unknown => return Ok(Decided::Unknown),
        }
        recorder.record()?;
        let slot = slot.unwrap_or_else(|| shard.slot_of(hash, key, shape));
        let is_late = if shape.kinds.is_empty() {
            shard.observe_bare(slot, shape, &scratch.leaves[0], (time, times))
        } else {
            let event = Occurrence { time, half_width: 0, times };
            let columns = recorder.columns();
            let row = columns.len() - 1;
            scratch.begin_rows(columns, row..row + 1);
            let hashes = self.hashes_of(columns, row);
            let (measures, hashes) = (scratch.measures.as_slice(), hashes.as_slice());
            let inputs = SingleRow { view: self, columns, row, measures, hashes };
            shard.observe(slot, shape, &scratch.leaves[0], event, inputs)
        };
        Ok(Decided::Recorded { is_late })
    }

    /// Folds the events into the series of the view, which is at this place among those applied to.
    pub(crate) fn apply(&self, columns: &Columns, place: usize, scratch: &mut Scratch) {
        match self.plan.key.len() {
            0 => self.apply_keyed::<0>(columns, place, scratch),
            1 => self.apply_keyed::<1>(columns, place, scratch),
            2 => self.apply_keyed::<2>(columns, place, scratch),
            3 => self.apply_keyed::<3>(columns, place, scratch),
            4 => self.apply_keyed::<4>(columns, place, scratch),
            5 => self.apply_keyed::<5>(columns, place, scratch),
            6 => self.apply_keyed::<6>(columns, place, scratch),
            7 => self.apply_keyed::<7>(columns, place, scratch),
            _ => self.apply_keyed::<8>(columns, place, scratch),
        }
    }

    fn apply_keyed<const N: usize>(&self, columns: &Columns, place: usize, scratch: &mut Scratch) {
        let Scratch { items, grouped, slots, measures, hashes, late, leaves } = scratch;
        leaves.resize_with(leaves.len().max(place + 1), Leaf::default);
        let leaf = &mut leaves[place];
        let texts = &*self.dictionary;
        hashes.make(&self.plan, columns, texts);
        let bound = Bound::new(&self.plan, columns, measures, hashes, texts);
        let Some(bound) = bound else { return };
        let mut parts: [&[Sym]; N] = [&[]; N];
        for (part, slot) in self.plan.key.iter().zip(&mut parts) {
            match column(columns, *part) {
                Some(values) => *slot = &values[..columns.len()],
                None => return,
            }
        }
        let plain = bound.only_measure(&self.plan);
        let conditions = bound.conditions.as_slice();
        let takes =
            |row: usize| conditions.iter().all(|(column, values)| values.contains(&column[row]));
        // What is in there of earlier batches is not looked at.
        items.resize(columns.len().max(items.len()), Placed::default());
        let mut counts = [0_u32; super::SHARDS + 1];
        let (mut taken, mut last, mut behind_last) = (0, [Sym::NONE; N], usize::MAX);
        let mut rows = 0..columns.len();
        if N == 0
            && conditions.is_empty()
            && let Ok(len) = u16::try_from(rows.end)
        {
            // All of them, and there are some, are of the one key.
            let (shard, hash) = self.place(&[]);
            items[0] = Placed { row: 0, len, shard: shard as u16, hash };
            (taken, rows) = (1, 0..0);
        }
        for row in rows {
            let key: [Sym; N] = std::array::from_fn(|i| parts[i][row]);
            if key.contains(&Sym::NONE) || !takes(row) {
                continue;
            }
            if row == behind_last && key == last && items[taken - 1].len < u16::MAX {
                items[taken - 1].len += 1;
            } else {
                let (shard, hash) = self.place(&key);
                counts[shard + 1] += 1;
                items[taken] = Placed { row: row as u32, len: 1, shard: shard as u16, hash };
                taken += 1;
                last = key;
            }
            behind_last = row + 1;
        }
        let items = &items[..taken];
        let mut each = |shard: &mut Shard, items: &[Placed]| {
            let key = |item: &Placed| -> [Sym; N] {
                let part = |i: usize| parts[i][item.row as usize];
                std::array::from_fn(|i| if N == 1 { Sym(item.hash as u32) } else { part(i) })
            };
            for items in items.chunks(BLOCK) {
                if N > 0 {
                    for item in items {
                        shard.prefetch(item.hash, &key(item));
                    }
                }
                slots.clear();
                slots.extend(items.iter().map(|item| shard.approach(item.hash, &key(item))));
                for (item, slot) in items.iter().zip(slots.iter_mut()) {
                    *slot = shard.slot_at(*slot, item.hash, &key(item), &self.plan.shape);
                }
                if !self.plan.shape.calendar.grains.is_empty() {
                    bound.observe_runs(shard, slots, items, &self.plan, leaf, late);
                } else if let Some(measures) = plain {
                    bound.observe_plain(shard, slots, items, &self.plan, leaf, measures);
                } else {
                    bound.observe(shard, slots, items, &self.plan, leaf);
                }
            }
        };
        if let [first, rest @ ..] = items
            && rest.iter().all(|item| item.shard == first.shard)
        {
            each(&mut self.shards[usize::from(first.shard)].lock(), items);
            return;
        }
        // Counting sort: afterwards `counts[s]` is where shard `s` ends, and `s + 1` begins.
        for shard in 0..super::SHARDS {
            counts[shard + 1] += counts[shard];
        }
        let starts = counts;
        grouped.resize(items.len().max(grouped.len()), Placed::default());
        for item in items {
            let at = &mut counts[usize::from(item.shard)];
            grouped[*at as usize] = *item;
            *at += 1;
        }
        let group = |shard: usize| &grouped[starts[shard] as usize..starts[shard + 1] as usize];
        let mut left = SmallVec::<[usize; super::SHARDS]>::new();
        for shard in (0..self.shards.len()).filter(|shard| !group(*shard).is_empty()) {
            match self.shards[shard].try_lock() {
                Some(mut guard) => each(&mut guard, group(shard)),
                None => left.push(shard),
            }
        }
        for shard in left {
            each(&mut Mutex::lock(&self.shards[shard]), group(shard));
        }
    }
}
