//! Applying a batch: columns of events to series, a view at a time, a shard at a time.
//!
//! For each view the events it takes are grouped by shard before any lock is taken; then each
//! shard is locked once. Shards that another thread holds are left for later, so that two threads
//! with the same hot keys do not queue behind each other. Inside a shard all slots are looked up
//! first, then their entries are touched, then changed: look-ups and touches do not depend on each
//! other, so the processor waits for several of their cache misses at once.

use super::ViewTier;
use super::shard::Shard;
use crate::aggregate::Measure;
use crate::dictionary::Sym;
use crate::record::Columns;
use crate::time::Timestamp;
use crate::view::{Part, Plan};
use parking_lot::Mutex;
use smallvec::SmallVec;

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
    /// Begins with a batch.
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

impl ViewTier {
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
            slots.clear();
            slots.extend(items.iter().map(|item| {
                let key: [Sym; N] = std::array::from_fn(|i| parts[i][item.row as usize]);
                shard.slot_of(item.hash, &key, &self.plan.shape)
            }));
            shard.bring_near(slots);
            for (item, slot) in items.iter().zip(slots.iter()) {
                if bound.observe(shard, *slot, item.row as usize, &self.plan) {
                    late.push(item.row);
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
