//! Applying a batch: columns of events to series, a view at a time, a shard at a time.
//!
//! For each view the events it takes are grouped by shard before any lock is taken; then each
//! shard is locked once. Shards that another thread holds are left for later, so that two threads
//! with the same hot keys do not queue behind each other. Inside a shard the slots of some events are
//! looked up first and their entries prefetched, then changed: look-ups do not depend on each other,
//! so the processor waits for several of their cache misses at once.
//!
//! A single event goes the same way across views: found and prefetched in each, then changed in
//! each. The shards' locks are held together for that, taken in the order of the views, which is
//! the same for everybody; nobody else holds more than one.

use super::ViewTier;
use super::shard::Shard;
use crate::aggregate::Measure;
use crate::dictionary::Sym;
use crate::record::Columns;
use crate::time::Timestamp;
use crate::view::{Part, Plan};
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use std::sync::Arc;

/// Events whose entries are prefetched before the first of them is changed.
const BLOCK: usize = 32;
/// Views in which a single event is looked up before it is folded into the first of them.
const VIEWS: usize = 8;

/// Room for the work of one batch, kept from one to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    items: Vec<Item>,
    grouped: Vec<Item>,
    slots: Vec<u32>,
    /// The measures of the batch taken apart, by column.
    measures: Vec<Vec<Measure>>,
    /// Events that were too old for a bucket of some view; each once, unordered.
    late: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Item {
    row: u32,
    shard: u32,
    hash: u64,
}

impl Scratch {
    /// Begins with a batch: what [`apply_all`] does by itself.
    pub(crate) fn begin(&mut self, columns: &Columns) {
        self.late.clear();
        self.measures.resize_with(columns.measures.len(), Vec::new);
        for (measures, column) in self.measures.iter_mut().zip(&columns.measures) {
            measures.clear();
            measures.extend(column.values.iter().map(|value| Measure::new(*value)));
        }
    }

    /// How many of the batch's events were late in some view.
    pub(crate) fn late(&mut self) -> u64 {
        self.late.sort_unstable();
        self.late.dedup();
        self.late.len() as u64
    }
}

/// The columns that a plan looks at, found once a batch.
struct Bound<'a> {
    columns: &'a Columns,
    conditions: SmallVec<[(&'a [Sym], &'a [Sym]); 4]>,
    measures: SmallVec<[Option<&'a [Measure]>; 2]>,
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
    fn new(plan: &'a Plan, columns: &'a Columns, measures: &'a [Vec<Measure>]) -> Option<Self> {
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
        let measures = plan.measures.iter().map(measure).collect();
        Some(Bound { columns, conditions, measures })
    }

    #[inline]
    fn takes(&self, row: usize) -> bool {
        self.conditions.iter().all(|(column, values)| values.contains(&column[row]))
    }

    #[inline]
    fn observe(&self, shard: &mut Shard, slot: u32, row: usize, plan: &Plan) -> bool {
        let time = Timestamp::from_micros(self.columns.times[row]);
        let measure = |i: usize| self.measures[i].map_or(&Measure::NONE, |values| &values[row]);
        shard.observe(slot, &plan.shape, time, measure)
    }
}

/// Folds the events into the series of every view that takes them.
pub(crate) fn apply_all(views: &[Arc<ViewTier>], columns: &Columns, scratch: &mut Scratch) {
    scratch.begin(columns);
    if columns.len() > 1 {
        for view in views {
            view.apply(columns, scratch);
        }
        return;
    }
    let time = Timestamp::from_micros(columns.times[0]);
    let measures = &scratch.measures;
    let mut late = false;
    for views in views.chunks(VIEWS) {
        let mut found = SmallVec::<[(&ViewTier, MutexGuard<'_, Shard>, u32); VIEWS]>::new();
        for view in views {
            if let Some((shard, slot)) = view.find_single(columns) {
                found.push((view, shard, slot));
            }
        }
        for (view, mut shard, slot) in found {
            let measure = |i: usize| {
                let name = view.plan.measures[i];
                let at = columns.measures.iter().position(|column| column.name == name);
                at.map_or(&Measure::NONE, |at| &measures[at][0])
            };
            late |= shard.observe(slot, &view.plan.shape, time, measure);
        }
    }
    scratch.late.extend(late.then_some(0));
}

impl ViewTier {
    /// The shard and slot of the only event, if the view takes it.
    fn find_single(&self, columns: &Columns) -> Option<(MutexGuard<'_, Shard>, u32)> {
        let takes = |part: Part, values: &[Sym]| {
            column(columns, part).is_some_and(|column| values.contains(&column[0]))
        };
        let Plan { names, conditions, key, .. } = &self.plan;
        if !(names.is_empty() || takes(Part::EventName, names))
            || !conditions.iter().all(|(part, values)| takes(*part, values))
        {
            return None;
        }
        match key.len() {
            0 => self.find_keyed::<0>(columns),
            1 => self.find_keyed::<1>(columns),
            2 => self.find_keyed::<2>(columns),
            3 => self.find_keyed::<3>(columns),
            4 => self.find_keyed::<4>(columns),
            5 => self.find_keyed::<5>(columns),
            6 => self.find_keyed::<6>(columns),
            7 => self.find_keyed::<7>(columns),
            _ => self.find_keyed::<8>(columns),
        }
    }

    fn find_keyed<const N: usize>(
        &self,
        columns: &Columns,
    ) -> Option<(MutexGuard<'_, Shard>, u32)> {
        let mut key = [Sym::NONE; N];
        for (sym, part) in key.iter_mut().zip(&self.plan.key) {
            *sym = column(columns, *part).map(|column| column[0]).filter(|s| *s != Sym::NONE)?;
        }
        let (shard, hash) = self.place(&key);
        let mut shard = self.shards[shard].lock();
        let slot = shard.slot_of(hash, &key, &self.plan.shape);
        shard.prefetch(slot);
        Some((shard, slot))
    }

    /// Folds the events into the view's series.
    pub(crate) fn apply(&self, columns: &Columns, scratch: &mut Scratch) {
        match self.plan.key.len() {
            0 => self.apply_keyed::<0>(columns, scratch),
            1 => self.apply_keyed::<1>(columns, scratch),
            2 => self.apply_keyed::<2>(columns, scratch),
            3 => self.apply_keyed::<3>(columns, scratch),
            4 => self.apply_keyed::<4>(columns, scratch),
            5 => self.apply_keyed::<5>(columns, scratch),
            6 => self.apply_keyed::<6>(columns, scratch),
            7 => self.apply_keyed::<7>(columns, scratch),
            _ => self.apply_keyed::<8>(columns, scratch),
        }
    }

    fn apply_keyed<const N: usize>(&self, columns: &Columns, scratch: &mut Scratch) {
        let Scratch { items, grouped, slots, measures, late } = scratch;
        let Some(bound) = Bound::new(&self.plan, columns, measures) else { return };
        let mut parts: [&[Sym]; N] = [&[]; N];
        for (part, slot) in self.plan.key.iter().zip(&mut parts) {
            match column(columns, *part) {
                Some(values) => *slot = values,
                None => return,
            }
        }
        items.clear();
        let mut counts = [0_u32; super::SHARDS + 1];
        for (row, _) in columns.names.iter().enumerate() {
            let key: [Sym; N] = std::array::from_fn(|i| parts[i][row]);
            if key.contains(&Sym::NONE) || !bound.takes(row) {
                continue;
            }
            let (shard, hash) = self.place(&key);
            counts[shard + 1] += 1;
            items.push(Item { row: row as u32, shard: shard as u32, hash });
        }
        let mut each = |shard: &mut Shard, items: &[Item]| {
            for items in items.chunks(BLOCK) {
                slots.clear();
                slots.extend(items.iter().map(|item| {
                    let key: [Sym; N] = std::array::from_fn(|i| parts[i][item.row as usize]);
                    let slot = shard.slot_of(item.hash, &key, &self.plan.shape);
                    shard.prefetch(slot);
                    slot
                }));
                for (item, slot) in items.iter().zip(slots.iter()) {
                    if bound.observe(shard, *slot, item.row as usize, &self.plan) {
                        late.push(item.row);
                    }
                }
            }
        };
        if let [first, rest @ ..] = items.as_slice()
            && rest.iter().all(|item| item.shard == first.shard)
        {
            each(&mut self.shards[first.shard as usize].lock(), items);
            return;
        }
        // Counting sort: afterwards `counts[s]` is where shard `s` ends, and `s + 1` begins.
        for shard in 0..super::SHARDS {
            counts[shard + 1] += counts[shard];
        }
        let starts = counts;
        grouped.clear();
        grouped.resize(items.len(), Item { row: 0, shard: 0, hash: 0 });
        for item in items.iter() {
            let at = &mut counts[item.shard as usize];
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
