//! Another definition where the log no longer reaches back: the buckets that are kept are converted.
//!
//! ```text
//! cut at P ── checkpoint, rows of the old view at P ── rows of the new one, in parts ── catalog with it
//!   └ the new one counts live, beside the rows              (from here on it is there) ┘
//! ```
//! Invariants
//! 1. The rows are made from those of the cut: whoever converts holds the lock of the checkpointer from
//!    before the cut until the last of them is committed, so nobody writes rows of a later one.
//! 2. Until the catalog has the new view its rows are of one to be deleted. So a crash, and whatever
//!    else keeps this from its end, leaves the old definition, and nothing to be undone.
//! 3. From then on it is a successor like any other that has everything: the record that gives it the
//!    name is still missing, and `redefine` writes that (`db/backfill.rs`).
//! 4. Memory does not depend on the number of series: [`COMMIT_BYTES`], and what one series takes.
//!
//! Rejected: one commit for all of it, for a store gets the changes of a commit as a whole.

use super::catalog::StoredView;
use super::checkpoint::{Checkpointer, put_rows, sort};
use super::load::decode_series;
use super::{Engine, Live, Progress};
use crate::error::{Error, ErrorKind, Result};
use crate::key;
use crate::record::Control;
use crate::series::ALWAYS;
use crate::series::convert::convert;
use crate::snapshot::{Changes, Start, Storage as _, Table};
use crate::sync::atomic::Ordering::{AcqRel, Relaxed};
use crate::tier::ViewTier;
use crate::tier::shard::rows_of;
use crate::view::View;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Rows of one commit, about so many bytes.
const COMMIT_BYTES: usize = 4 << 20;
/// Rows read at once.
const PAGE: usize = 256;

/// Makes the successor of view `old` with what that one keeps; `None`: another call was faster. The log
/// is `retired`, which says from where on.
pub(super) fn run(
    engine: &Arc<Engine>,
    state: &mut Checkpointer,
    (old, view): (u32, &View),
    retired: &Error,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<Arc<ViewTier>>> {
    let found = |live: &Live| live.named(view.name()).filter(|tier| tier.id == old).cloned();
    let Some(old) = found(&*engine.enter()?) else { return Ok(None) };
    check(engine, &old, view, retired)?;
    let mut begun = None;
    let cut = engine.checkpoint_at(state, &mut |live| {
        engine.check_open()?;
        // Nobody can have asked for its backfill meanwhile: that takes the checkpointer's lock.
        if found(live).is_none() {
            return Ok(None);
        }
        let tier = begin(engine, live, &old, view)?;
        begun = Some(tier.clone());
        Ok(Some(tier.id))
    });
    let Some(tier) = begun else { return cut.map(|()| None) };
    let converted = cut.and_then(|()| fill(engine, state, &old, &tier, progress));
    if converted.is_err() {
        // The gate of an engine that is closed closes all the same.
        engine.shut().remove(|other| other.id == tier.id);
    }
    converted.map(|()| Some(tier))
}

/// Whether what `old` keeps can be converted.
fn check(engine: &Engine, old: &ViewTier, view: &View, retired: &Error) -> Result<()> {
    if let Some(other) = old.view.differs_besides_grains(view) {
        return Err(Error::new(
            retired.kind(),
            format!(
                "{}; without them the grains of a view can be changed, and nothing else, but this \
                 definition has {other}\n  stored: {}\n  asked:  {view}",
                retired.message(),
                old.view
            ),
        )
        .at(&engine.home.dir, None));
    }
    if let Some(Progress { done, total }) = old.progress() {
        return Err(Error::new(
            ErrorKind::Backfilling,
            format!(
                "the log no longer reaches back to where the view {:?} begins, so its buckets are to be \
                 converted, and they are not complete: {done} of {total} records are in; backfill it to \
                 the end, and redefine it then",
                view.name()
            ),
        ));
    }
    Ok(())
}

/// With the gate closed: the successor begins to count.
fn begin(engine: &Engine, live: &mut Live, old: &ViewTier, view: &View) -> Result<Arc<ViewTier>> {
    if let Some(other) = live.successor(view.name()).map(|successor| successor.id) {
        engine.append_control(&Control::ViewDropped { id: other })?;
        live.drop_view(other);
    }
    let id = live.next_view;
    let control = Control::SuccessorConverted { id, view: view.clone() };
    let position = engine.append_control(&control)?;
    let room = (&engine.dictionary, engine.options.expected_keys);
    // Its keys are about to have rows, so none of them is new.
    Ok(live.define_successor((id, view.clone()), position, old.since(), 1, room))
}

/// Writes the successor's rows, and with the last of them the catalog that has it.
fn fill(
    engine: &Engine,
    state: &mut Checkpointer,
    old: &ViewTier,
    tier: &ViewTier,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<()> {
    let path = engine.store_place();
    let (from, to) = (&old.plan.shape, &tier.plan.shape);
    let sequence = state.catalog.sequence;
    let of_old = state.catalog.views.iter().find(|stored| stored.id == old.id);
    let (mut rows, total) = (0, of_old.map_or(0, |stored| stored.rows));
    let mut known = vec![ALWAYS; tier.view.grains().len()];
    let (first, end) = (key::view_prefix(old.id), key::behind_view(old.id));
    let mut changes = Changes::default();
    let mut bytes = 0;
    let mut behind: Option<Vec<u8>> = None;
    loop {
        if tier.has_left() {
            return Err(super::redefine::given_up(tier.view.name()));
        }
        if progress(Progress { done: rows, total }).is_break() {
            return Err(Error::new(
                ErrorKind::Stopped,
                format!(
                    "stopped by its caller; the view {:?} has its old definition",
                    tier.view.name()
                ),
            ));
        }
        let snapshot = engine.storage.snapshot()?;
        let start = behind.as_deref().map_or(Start::At(&first), Start::Behind);
        let page = snapshot.range(Table::Series, start, end.as_deref(), PAGE)?;
        for (row_key, value) in &page {
            let (series, _) = decode_series(&*snapshot, row_key, value, from, &path)?;
            let mut series = convert(series.as_ref(), from, to);
            for (at, known) in known.iter_mut().enumerate() {
                *known = series.as_ref().known(at).max(*known);
            }
            let captured = rows_of(series.as_mut());
            bytes += captured.bytes() + row_key.len() * (1 + captured.blocks.len());
            put_rows(&mut changes, &key::in_view(tier.id, row_key), captured, sequence);
            rows += 1;
            if bytes > COMMIT_BYTES {
                sort(&mut changes);
                engine.storage.commit(&std::mem::take(&mut changes))?;
                bytes = 0;
            }
        }
        let is_last = page.len() < PAGE;
        behind = page.into_iter().last().map(|(key, _)| key);
        if is_last {
            break;
        }
    }
    let mut catalog = state.catalog.clone();
    let defined_at = tier.defined_at();
    let backfill = tier.backfill.lock().moved_to(defined_at);
    catalog.purge.retain(|id| *id != tier.id);
    catalog.views.push(StoredView {
        id: tier.id,
        view: tier.view.clone(),
        defined_at,
        backfill,
        rows,
        converted: Some(known.clone()),
    });
    changes.of_mut(Table::Meta).push(catalog.row());
    sort(&mut changes);
    engine.storage.commit(&changes)?;
    // `db/load.rs`, invariant 1.
    engine.commits.fetch_add(1, AcqRel);
    state.catalog = catalog;
    tier.stored_rows.store(rows, Relaxed);
    tier.note_converted(&known);
    tier.filled_to(defined_at);
    Ok(())
}
