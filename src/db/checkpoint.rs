//! Checkpoints: what changed since the last one, into the snapshot store, while recording goes on.
//!
//! Invariants
//! 1. The cut: the gate is closed, the position noted, every shard's generation raised. That
//!    moment is what the checkpoint stores, whatever is recorded while it is written.
//! 2. The log is synced up to the cut before the store is committed: the snapshot is never ahead of
//!    the durable log.
//! 3. A checkpoint that fails keeps what it has captured (`carry`); the next one writes it, the
//!    newer row of a key winning. Until then its entries stay in memory.
//! 4. Segments are removed after a commit of this opening that says they are. What an opening finds
//!    committed may be in the page cache only, of a process that died before its sync or whose sync
//!    failed; a power cut then brings back the commit before, which needs them.

use super::catalog::{Catalog, StoredView};
use super::dedup::WindowChanges;
use super::load::{read_series, seal_series};
use super::{Engine, Live};
use crate::dictionary::Sym;
use crate::error::{Error, Result};
use crate::key;
use crate::log::reader;
use crate::log::segment::{self, Segment};
use crate::options::{Dedup, Retention};
use crate::series::Series;
use crate::snapshot::{Changes, Snapshot, Start, Storage as _, Table};
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use crate::tier::ViewTier;
use crate::tier::shard::{Capture, Captured, CapturedRows, TakenDelta, rows_of};
use crate::time::Stopwatch;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Entries captured under one hold of a shard's lock.
const STEP: usize = 64;
/// Slots that the eviction looks at under one hold.
const EVICT_STEP: usize = 256;
/// Rows of dropped views that one checkpoint deletes.
const PURGE_ROWS: usize = 20_000;

/// What one checkpoint leaves to the next. Its lock lets one run at a time.
#[derive(Default)]
pub(super) struct Checkpointer {
    /// The catalog as last committed.
    pub(super) catalog: Catalog,
    /// The number of the last cut, of a checkpoint that succeeded or not.
    sequence: u64,
    carry: Changes,
    /// Captured deltas that are not merged into `carry` yet, and the tiers they are of.
    deltas: Vec<(Arc<ViewTier>, Captured)>,
    /// Slots captured and not settled, by view and shard.
    unsettled: Vec<(Arc<ViewTier>, usize, Vec<u32>)>,
    /// Rows of ids are in the store that no rule wants any more.
    stale_ids: bool,
    /// The last one failed.
    pub(super) failed: bool,
}

/// The last checkpoint, for statistics: these do not wait for one that is being made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    pub(super) position: u64,
    pub(super) made_at: i64,
    pub(super) micros: u64,
    pub(super) series: u64,
    pub(super) failures: u64,
}

impl Checkpointer {
    pub(super) fn new(catalog: Catalog, stale_ids: bool) -> Self {
        let sequence = catalog.sequence;
        Checkpointer { catalog, sequence, stale_ids, ..Checkpointer::default() }
    }
}

impl Engine {
    pub(super) fn checkpoint(&self) -> Result<()> {
        self.checkpoint_with(&mut self.checkpointer.lock())
    }

    /// A checkpoint, by who holds the lock already.
    pub(super) fn checkpoint_with(&self, state: &mut Checkpointer) -> Result<()> {
        self.checkpoint_at(state, &mut |_| Ok(None))
    }

    /// A checkpoint of what `at_cut` leaves, which is called in the cut. A view whose id that gives is
    /// not in the catalog: its rows are counted among those that are still to be deleted.
    pub(super) fn checkpoint_at(
        &self,
        state: &mut Checkpointer,
        at_cut: &mut dyn FnMut(&mut Live) -> Result<Option<u32>>,
    ) -> Result<()> {
        let result = self.checkpoint_locked(state, at_cut);
        state.failed = result.is_err();
        if result.is_err() {
            self.figures.lock().failures += 1;
        }
        result
    }

    fn checkpoint_locked(
        &self,
        state: &mut Checkpointer,
        at_cut: &mut dyn FnMut(&mut Live) -> Result<Option<u32>>,
    ) -> Result<()> {
        let stopwatch = Stopwatch::start();
        // The cut waits for this sync otherwise.
        self.sync()?;
        // What an earlier checkpoint could not merge comes before anything newer of its keys.
        self.merge_deltas(state)?;
        let (mut catalog, views, left_out) = self.cut(state, at_cut)?;
        let mut series = 0;
        for tier in &views {
            for (at, shard) in tier.shards().iter().enumerate() {
                let mut slots = Vec::new();
                let mut captured = Vec::new();
                loop {
                    let more = shard.lock().walk(STEP, &mut captured);
                    for captured in captured.drain(..) {
                        slots.push(captured.slot);
                        series += 1;
                        match captured.what {
                            Capture::Whole(rows) => {
                                let key = self.row_key(tier, &captured.key);
                                put_rows(&mut state.carry, &key, rows, catalog.sequence);
                            }
                            Capture::Delta { .. } => state.deltas.push((tier.clone(), captured)),
                        }
                    }
                    if !more {
                        break;
                    }
                }
                if !slots.is_empty() {
                    state.unsettled.push((tier.clone(), at, slots));
                }
            }
        }
        self.merge_deltas(state)?;
        self.purge(&mut catalog, &mut state.carry)?;
        catalog.purge.extend(left_out);
        self.purge_ids(state)?;
        for stored in &mut catalog.views {
            if let Some(tier) = views.iter().find(|tier| tier.id == stored.id) {
                stored.rows = tier.stored_rows.load(Relaxed) + tier.totals().newly_stored;
            }
        }
        self.plan_retirement(&mut catalog)?;
        state.carry.of_mut(Table::Meta).push(catalog.row());
        sort(&mut state.carry);
        // Frames without records, too: the catalog says that they are durable.
        self.log.sync_frames()?;
        self.storage.commit(&state.carry)?;
        state.carry = Changes::default();
        // `db/load.rs`, invariant 1: after the commit, before anything is settled.
        self.commits.fetch_add(1, AcqRel);
        for (tier, shard, slots) in state.unsettled.drain(..) {
            for slots in slots.chunks(EVICT_STEP) {
                let slots = slots.iter().copied();
                let mut shard = tier.shards()[shard].lock();
                shard.settle(slots, catalog.sequence, tier.is_scanned());
            }
        }
        self.remove_retired(catalog.first_segment);
        let mut figures = self.figures.lock();
        *figures = Figures {
            position: catalog.position,
            made_at: catalog.checkpointed_at,
            micros: stopwatch.micros(),
            series,
            failures: figures.failures,
        };
        drop(figures);
        state.catalog = catalog;
        self.evict(&views);
        Ok(())
    }

    /// Closes the gate for the moment of the cut.
    fn cut(
        &self,
        state: &mut Checkpointer,
        at_cut: &mut dyn FnMut(&mut Live) -> Result<Option<u32>>,
    ) -> Result<(Catalog, Vec<Arc<ViewTier>>, Option<u32>)> {
        let mut live = self.shut();
        self.bring_in_at(&live)?;
        let left_out = at_cut(&mut live)?;
        let position = self.log.appended();
        // Not the position: a backfill changes series between two cuts at the same one.
        state.sequence += 1;
        for tier in &live.views {
            for shard in tier.shards() {
                shard.lock().cut(state.sequence);
            }
        }
        let mut dedup = Dedup::Off;
        let mut ids = WindowChanges::default();
        if let Some(window) = &self.window {
            let mut window = window.lock();
            dedup = window.rule();
            ids = window.take_changes();
        }
        self.tallies.log_bytes.set(0);
        let stored = |tier: &Arc<ViewTier>| StoredView {
            id: tier.id,
            view: tier.view.clone(),
            defined_at: tier.defined_at(),
            backfill: *tier.backfill.lock(),
            rows: 0,
            converted: tier.converted().map(<[_]>::to_vec),
        };
        let is_in = |tier: &&Arc<ViewTier>| Some(tier.id) != left_out;
        let (segment, offset) = self.log.end();
        let catalog = Catalog {
            identity: self.home.identity,
            sequence: state.sequence,
            position,
            segment,
            offset,
            first_segment: state.catalog.first_segment.max(1),
            next_view: live.next_view,
            views: live.views.iter().filter(is_in).map(stored).collect(),
            purge: live.purge.clone(),
            events: self.tallies.events.get(),
            late: self.tallies.late.get(),
            duplicates: self.tallies.duplicates.get(),
            dedup,
            checkpointed_at: self.now().micros(),
            newest: self.newest.get(),
            zone: live.zone,
            policies: live.policies.all(),
            replicas: Some(self.replicas().clone())
                .filter(|replicas| !replicas.is_plain(self.home.identity)),
        };
        let views = live.views.clone();
        drop(live);
        state.carry.of_mut(Table::Ids).extend(ids.rows());
        Ok((catalog, views, left_out))
    }

    fn row_key(&self, tier: &ViewTier, key: &[Sym]) -> Vec<u8> {
        key::series_row(tier.id, key.iter().map(|sym| self.dictionary.text(*sym)))
    }

    /// Merges what was captured of partial series with their stored rows, into `carry`, which is
    /// sorted afterwards.
    fn merge_deltas(&self, state: &mut Checkpointer) -> Result<()> {
        sort(&mut state.carry);
        if state.deltas.is_empty() {
            return Ok(());
        }
        let snapshot = self.storage.snapshot()?;
        let snapshot = Carried { carry: &state.carry, below: &*snapshot };
        let path = self.store_place();
        // After a failure a key may have several deltas, of several cuts. A row's cut is what tells a
        // reader which of them it contains: the newest.
        let mut by_key: BTreeMap<(u32, &[Sym]), Delta<'_>> = BTreeMap::new();
        for (tier, captured) in &state.deltas {
            let Capture::Delta { delta: part, cut } = &captured.what else { continue };
            let delta = by_key.entry((tier.id, captured.key.as_slice()));
            let delta = delta.or_insert_with(|| Delta { tier, cut: 0, parts: Vec::new() });
            delta.cut = delta.cut.max(*cut);
            delta.parts.push(part);
        }
        let mut merged = Changes::default();
        let mut new_rows: Vec<(&ViewTier, &TakenDelta)> = Vec::new();
        for ((_, key), delta) in by_key {
            let (key, shape) = (self.row_key(delta.tier, key), &delta.tier.plan.shape);
            let row = read_series(&snapshot, &key, shape, &path)?;
            // Who made the entry whole meanwhile has counted the row.
            if let (None, Some(part)) = (&row, delta.parts.first()) {
                new_rows.push((delta.tier, part));
            }
            let mut series = row.map_or_else(|| Series::empty(shape), |(series, _)| series);
            for part in delta.parts {
                // Any mark but clean: the blocks it changes are to be written.
                series.as_mut().merge(part.series.as_ref(), shape, 1);
            }
            put_rows(&mut merged, &key, rows_of(series.as_mut()), delta.cut);
        }
        for (tier, part) in new_rows {
            let counted = part.counted.swap(true, AcqRel);
            tier.stored_rows.fetch_add(u64::from(!counted), Relaxed);
        }
        for (table, changes) in state.carry.0.iter_mut().zip(merged.0) {
            table.extend(changes);
        }
        state.deltas.clear();
        sort(&mut state.carry);
        Ok(())
    }

    /// Deletes the rows of ids that an earlier rule left; those of the present one stay.
    fn purge_ids(&self, state: &mut Checkpointer) -> Result<()> {
        if !state.stale_ids {
            return Ok(());
        }
        let snapshot = self.storage.snapshot()?;
        let rows = snapshot.range(Table::Ids, Start::At(&[]), None, usize::MAX)?;
        let entered = std::mem::take(state.carry.of_mut(Table::Ids));
        let ids = state.carry.of_mut(Table::Ids);
        ids.extend(rows.into_iter().map(|(key, _)| (key, None)));
        // Of two changes of one key the later one stays.
        ids.extend(entered);
        state.stale_ids = false;
        Ok(())
    }

    /// Deletes rows of dropped views, some at a time. A view that somebody is still reading stays.
    fn purge(&self, catalog: &mut Catalog, carry: &mut Changes) -> Result<()> {
        let mut live = self.shut();
        live.leaving.retain(|(_, tier)| tier.strong_count() > 0);
        let is_asked = |view: &&u32| live.leaving.iter().any(|(id, _)| id == *view);
        let Some(view) = catalog.purge.iter().find(|view| !is_asked(view)).copied() else {
            return Ok(());
        };
        drop(live);
        let snapshot = self.storage.snapshot()?;
        let (from, to) = (key::view_prefix(view), key::behind_view(view));
        let mut room = PURGE_ROWS;
        for table in [Table::Series, Table::Buckets] {
            // What a failed checkpoint left of it is not to come back.
            carry.of_mut(table).retain(|(key, _)| !key.starts_with(&from));
            let rows = snapshot.range(table, Start::At(&from), to.as_deref(), room)?;
            room -= rows.len();
            carry.of_mut(table).extend(rows.into_iter().map(|(key, _)| (key, None)));
        }
        if room > 0 {
            catalog.purge.retain(|id| *id != view);
            let mut live = self.shut();
            live.purge.retain(|id| *id != view);
        }
        Ok(())
    }

    /// Notes in the catalog which segments the retention policy lets go.
    fn plan_retirement(&self, catalog: &mut Catalog) -> Result<()> {
        let backups = self.backups.load(Acquire);
        if self.options.retention == Retention::KeepAll || backups > 0 {
            return Ok(());
        }
        let dir = &self.home.dir;
        let open = |number| Segment::open(&self.home, number, crate::disk::Access::Read);
        // What an unfinished backfill has still to read stays.
        let unfinished = catalog.views.iter().filter_map(|stored| stored.backfill.under_way());
        let needed_from = unfinished.min().map_or(u64::MAX, |done| done + 1);
        let numbers: Vec<u64> = segment::numbers(&*self.disk, dir)?
            .into_iter()
            .filter(|number| (catalog.first_segment..=catalog.segment).contains(number))
            .collect();
        let mut bytes_behind = 0;
        let mut keep_from = numbers.len().saturating_sub(1);
        let now = self.now();
        while keep_from > 0 {
            let (candidate, next) = (open(numbers[keep_from - 1])?, open(numbers[keep_from])?);
            bytes_behind += next.bytes;
            let next_header = match reader::first_frame(&next) {
                Ok(Some(header)) => header,
                // Made and not written to yet.
                Ok(None) => {
                    keep_from -= 1;
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "nothing is retired from a damaged log");
                    return Ok(());
                }
            };
            let keep = match self.options.retention {
                Retention::KeepAll => true,
                Retention::Recovery => false,
                Retention::Bytes(most) => bytes_behind + candidate.bytes <= most,
                Retention::Age(age) => next_header.written_at >= now.saturating_sub(age).micros(),
            };
            if !keep && next_header.position <= needed_from {
                break;
            }
            keep_from -= 1;
        }
        catalog.first_segment = numbers.get(keep_from).copied().unwrap_or(catalog.first_segment);
        Ok(())
    }

    /// Removes the segments before `first`, also those that a crash left. One that stays is removed
    /// by the next checkpoint.
    fn remove_retired(&self, first: u64) {
        let retired = segment::numbers(&*self.disk, &self.home.dir).and_then(|mut numbers| {
            // What somebody has put there meanwhile is not ours to remove.
            let strays = segment::strays(&self.home, first, u64::MAX)?;
            let is_stray = |number: u64| strays.iter().any(|stray| stray.number == number);
            numbers.retain(|number| *number < first && !is_stray(*number));
            for number in numbers {
                let path = self.home.dir.join(segment::name(number));
                let fail = |e| Error::io("remove a retired segment", &path, e);
                self.disk.remove(&path).map_err(fail)?;
            }
            Ok(())
        });
        if let Err(error) = retired {
            tracing::warn!(%error, "a retired segment stays until the next checkpoint");
        }
    }

    /// Whether the resident series need more memory than the budget.
    pub(super) fn over_budget(&self, views: &[Arc<ViewTier>]) -> bool {
        let live = views.iter().map(|tier| tier.totals().live_bytes).sum::<u64>();
        live > self.options.memory_budget as u64
    }

    /// Evicts, with a checkpoint before if there is not enough to evict without.
    pub(super) fn keep_budget(&self) -> Result<()> {
        let views = self.enter()?.views.clone();
        if self.over_budget(&views) {
            self.evict(&views);
            if self.over_budget(&views) {
                self.checkpoint()?;
            }
        }
        Ok(())
    }

    /// Evicts what was not touched lately while the tier is over its budget.
    pub(super) fn evict(&self, views: &[Arc<ViewTier>]) {
        // Two sweeps: the first takes the marks of touch away, the second evicts.
        for _ in 0..2 {
            for tier in views {
                for shard in tier.shards() {
                    if !self.over_budget(views) {
                        return;
                    }
                    let slots = shard.lock().slots() as usize;
                    for _ in 0..slots.div_ceil(EVICT_STEP) {
                        let mut shard = shard.lock();
                        // Looked at under the lock: see `ViewTier::scan`.
                        if tier.is_scanned() {
                            break;
                        }
                        shard.evict(EVICT_STEP);
                    }
                }
            }
        }
    }
}

/// What was captured of one partial series.
struct Delta<'a> {
    tier: &'a ViewTier,
    cut: u64,
    parts: Vec<&'a TakenDelta>,
}

/// The store as it will be when `carry`, which is sorted, is written.
struct Carried<'a> {
    carry: &'a Changes,
    below: &'a dyn Snapshot,
}

impl Snapshot for Carried<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let changes = &self.carry.0[table as usize];
        match changes.binary_search_by(|(other, _)| other.as_slice().cmp(key)) {
            Ok(at) => Ok(changes[at].1.clone()),
            Err(_) => self.below.get(table, key),
        }
    }

    fn range(
        &self,
        table: Table,
        from: Start<'_>,
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<crate::snapshot::Row>> {
        self.below.range(table, from, to, limit)
    }
}

pub(super) fn put_rows(changes: &mut Changes, key: &[u8], rows: CapturedRows, sequence: u64) {
    let value = seal_series(key, sequence, &rows.series);
    for (grain, block, bytes) in rows.blocks {
        let key = key::bucket_row(key, grain, block);
        let value =
            bytes.map(|bytes| crate::codec::seal(&key, |out| out.extend_from_slice(&bytes)));
        changes.of_mut(Table::Buckets).push((key, value));
    }
    changes.of_mut(Table::Series).push((key.to_vec(), Some(value)));
}

/// Puts changes in the order of their keys; of several of one key the last stays.
pub(super) fn sort(changes: &mut Changes) {
    for changes in &mut changes.0 {
        changes.sort_by(|(a, _), (b, _)| a.cmp(b));
        changes.reverse();
        changes.dedup_by(|(a, _), (b, _)| a == b);
        changes.reverse();
    }
}
