//! Folding the log again, beside the snapshot, to compare the two to the byte.
//!
//! The views of a snapshot hold, of each record, what the catalog says of its position: everything
//! up to the snapshot's position that came behind the view's definition, and what its backfill had
//! read. Folding just that through the same `apply` must give the same rows: merging is associative
//! and commutative to the byte, so it does not matter in which order and parts it happened.
//!
//! Memory: the series of the views that are folded and their buckets, all at once, as if they were
//! resident, and the dictionary. What that will be the stored series say. Views are taken in groups of
//! at most [`GROUP_BYTES`], a larger view alone; each group reads the log once.

use super::catalog::StoredView;
use super::verify::{Finding, Meaning};
use crate::codec;
use crate::dictionary::Dictionary;
use crate::error::Result;
use crate::key;
use crate::log::reader::Entry;
use crate::series::{Series, SeriesRef, Shape};
use crate::snapshot::{Snapshot, Start, Table};
use crate::tier::apply::{Scratch, apply_all};
use crate::tier::{Backfill, Key, ViewTier};
use crate::time::TimeZone;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Expected memory of the views that are folded together.
pub(super) const GROUP_BYTES: u64 = 1 << 30;
/// What a series takes in memory beside the heap, its key and its place in the tables included.
/// A shard has room for up to four times the series in it.
const SERIES_BYTES: u64 = 224;
/// The same of each measure's statistics.
const STATE_BYTES: u64 = 352;
/// The same of each sketch, besides what it has on the heap.
const SKETCH_BYTES: u64 = 120;
/// Differences of one view that are listed one by one.
const LISTED_MAX: u64 = 100;
/// Rows looked at in one go.
const STEP: usize = 256;

/// The positions whose records a view holds in a snapshot of position `as_of`.
pub(super) fn holds(view: &StoredView, as_of: u64) -> [Range<u64>; 2] {
    let live = view.defined_at + 1..as_of + 1;
    match view.backfill {
        Backfill::NotAsked => [live, 0..0],
        Backfill::Unfinished { done } => [live, 1..done.min(view.defined_at) + 1],
        Backfill::Complete => [1..as_of + 1, 0..0],
        Backfill::Succeeding { since, done } => [live, since + 1..done.min(view.defined_at) + 1],
    }
}

/// Some views, being folded.
pub(super) struct Refold {
    views: Vec<(StoredView, Arc<ViewTier>)>,
    as_of: u64,
    /// Those that hold the records up to `until`, which is not one of them.
    holding: Vec<Arc<ViewTier>>,
    until: u64,
    scratch: Scratch,
    dictionary: Arc<Dictionary>,
}

/// What the series of a view will take, of which the stored ones need so much on the heap.
pub(super) fn expected_bytes(view: &StoredView, heap_bytes: u64) -> u64 {
    let sketches = view.view.kinds().sketches.len() as u64 * SKETCH_BYTES;
    let states = view.view.measures().len() as u64 * STATE_BYTES + sketches;
    view.rows.saturating_mul(SERIES_BYTES + states).saturating_add(heap_bytes)
}

/// Puts views together that are folded in one pass; `heap_bytes` says what the stored series of a view
/// need on the heap.
pub(super) fn groups(
    views: Vec<StoredView>,
    heap_bytes: &dyn Fn(u32) -> u64,
    group_bytes: u64,
) -> Vec<Vec<StoredView>> {
    let mut groups: Vec<Vec<StoredView>> = Vec::new();
    let mut left = 0;
    for view in views {
        let bytes = expected_bytes(&view, heap_bytes(view.id));
        if bytes > left || groups.is_empty() {
            groups.push(Vec::new());
            left = group_bytes;
        }
        left = left.saturating_sub(bytes);
        if let Some(group) = groups.last_mut() {
            group.push(view);
        }
    }
    groups
}

impl Refold {
    pub(super) fn new(
        views: &[StoredView],
        zone: TimeZone,
        as_of: u64,
        dictionary: &Arc<Dictionary>,
    ) -> Self {
        let tier = |stored: &StoredView| {
            let (view, at) = (stored.view.clone(), stored.defined_at);
            // Nothing is stored as far as this tier knows: it holds every series whole.
            let tier = ViewTier::new(stored.id, view, zone, at, stored.backfill, dictionary, 0, 0);
            (stored.clone(), Arc::new(tier))
        };
        Refold {
            views: views.iter().map(tier).collect(),
            as_of,
            holding: Vec::new(),
            until: 0,
            scratch: Scratch::default(),
            dictionary: dictionary.clone(),
        }
    }

    /// The ids of the views.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.views.iter().map(|(view, _)| view.id)
    }

    /// What the folded series take.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> u64 {
        self.views.iter().map(|(_, tier)| tier.totals().live_bytes).sum()
    }

    /// Takes in what a frame of the log holds.
    pub(super) fn apply(&mut self, entry: &Entry<'_>, position: u64) {
        let Entry::Events(columns) = entry else { return };
        if position >= self.until {
            let ranges = || self.views.iter().flat_map(|(view, _)| holds(view, self.as_of));
            // Definitions, ends of backfills and checkpoints come between two frames.
            let edges = ranges().flat_map(|range| [range.start, range.end]);
            self.until = edges.filter(|edge| *edge > position).min().unwrap_or(u64::MAX);
            let held = |(view, _): &&(StoredView, Arc<ViewTier>)| {
                holds(view, self.as_of).iter().any(|range| range.contains(&position))
            };
            self.holding = self.views.iter().filter(held).map(|(_, tier)| tier.clone()).collect();
        }
        if !self.holding.is_empty() {
            apply_all(&self.holding, columns, &mut self.scratch);
        }
    }

    /// Compares what was folded of view `id` with the snapshot. Rows that are damaged in themselves
    /// are known already; `stored` is the number of the others.
    pub(super) fn compare(
        &self,
        id: u32,
        snapshot: &dyn Snapshot,
        stored: u64,
        path: &Path,
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        let Some((view, tier)) = self.views.iter().find(|(view, _)| view.id == id) else {
            return Ok(());
        };
        let name = view.view.name();
        let (mut met, mut differences) = (0, 0_u64);
        let mut differ = |key: &[u8], what: &str| {
            differences += 1;
            if differences <= LISTED_MAX {
                let parts = key::parts(key).unwrap_or_default();
                let what = format!("the series of key {parts:?} in view {name:?} {what}");
                findings.push(Finding::new(path, Meaning::Corruption, what));
            }
        };
        for shard in tier.shards() {
            let mut from = Some(0);
            while let Some(at) = from {
                let mut page: Vec<(Key, Series)> = Vec::new();
                from = shard.lock().each(at, STEP as u32, |key, series| {
                    page.extend(series.map(|series| (Key::from_slice(key), series.to_owned())));
                });
                for (key, series) in &page {
                    let texts = key.iter().map(|sym| self.dictionary.text(*sym));
                    let row_key = key::series_row(id, texts);
                    let shape = &tier.plan.shape;
                    match compare_series(snapshot, &row_key, series.as_ref(), shape)? {
                        Comparison::Equal => met += 1,
                        Comparison::Damaged => {}
                        Comparison::Missing => differ(&row_key, "is in the log and not stored"),
                        Comparison::Different(what) => {
                            met += 1;
                            differ(&row_key, what);
                        }
                    }
                }
            }
        }
        if met < stored {
            self.strangers(tier, snapshot, &mut differ)?;
        }
        if differences > LISTED_MAX {
            let more = differences - LISTED_MAX;
            let what = format!("{more} more series of view {name:?} differ from the log");
            findings.push(Finding::new(path, Meaning::Corruption, what));
        }
        Ok(())
    }

    /// Stored series that the log knows nothing of.
    fn strangers(
        &self,
        tier: &ViewTier,
        snapshot: &dyn Snapshot,
        differ: &mut dyn FnMut(&[u8], &str),
    ) -> Result<()> {
        let prefix = key::view_prefix(tier.id);
        let mut behind: Option<Vec<u8>> = None;
        loop {
            let start = behind.as_deref().map_or(Start::At(&prefix), Start::Behind);
            let end = key::behind_view(tier.id);
            let page = snapshot.range(Table::Series, start, end.as_deref(), STEP)?;
            for (row_key, value) in &page {
                let Ok(parts) = key::parts(row_key) else { continue };
                let find = |part: &String| self.dictionary.find(part);
                let key: Option<Key> = parts.iter().map(find).collect();
                let known = key.is_some_and(|key| {
                    key.len() == tier.plan.key.len()
                        && matches!(tier.read(&key, |_| ()), crate::tier::shard::Lookup::Here(()))
                });
                if !known && codec::unseal(row_key, value).is_ok() {
                    differ(row_key, "is stored and not in the log");
                }
            }
            if page.len() < STEP {
                return Ok(());
            }
            behind = page.into_iter().last().map(|(key, _)| key);
        }
    }
}

enum Comparison {
    Equal,
    Missing,
    /// A row of it is not what its checksum says; that is known already.
    Damaged,
    Different(&'static str),
}

fn compare_series(
    snapshot: &dyn Snapshot,
    row_key: &[u8],
    series: SeriesRef<'_>,
    shape: &Shape,
) -> Result<Comparison> {
    let Some(value) = snapshot.get(Table::Series, row_key)? else {
        return Ok(Comparison::Missing);
    };
    let Ok(mut payload) = codec::unseal(row_key, &value) else { return Ok(Comparison::Damaged) };
    if codec::take_u64(&mut payload).is_err() {
        return Ok(Comparison::Damaged);
    }
    let mut folded = Vec::new();
    series.encode_row(&mut folded);
    // Where the bytes of a state depend on the order in which events came, they need not be the same.
    if payload != folded {
        let stored = Series::decode_row(payload, shape);
        if !stored.is_ok_and(|stored| stored.agrees(series)) {
            return Ok(Comparison::Different("is not what the log gives"));
        }
    }
    for (ring, grain) in series.rings().iter().zip(0_u8..) {
        for block in ring.blocks() {
            let bucket_key = key::bucket_row(row_key, grain, block.number);
            let Some(value) = snapshot.get(Table::Buckets, &bucket_key)? else {
                return Ok(Comparison::Different("lacks a block of buckets"));
            };
            let Ok(payload) = codec::unseal(&bucket_key, &value) else {
                return Ok(Comparison::Damaged);
            };
            folded.clear();
            block.encode_buckets(&mut folded);
            if payload != folded && !block.agrees(payload, shape) {
                return Ok(Comparison::Different("has buckets that are not what the log gives"));
            }
        }
    }
    Ok(Comparison::Equal)
}
