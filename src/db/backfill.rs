//! Backfill: folding the records from before a view's definition into it, from the log.
//!
//! Invariants
//! 1. A view counts live what comes behind its definition and by backfill what came up to it: every
//!    record once. Merging is commutative, so the two may go on at the same time.
//! 2. Each step is applied, and noted in the view, inside the gate; so a checkpoint's cut has the
//!    steps and the note of the same moment, and a backfill that died goes on where the last
//!    checkpoint saw it.
//! 3. That it is complete is a record of the log, like that it was asked for: a snapshot that is
//!    lost comes back from the log with the same views, filled or not.

use super::Engine;
use super::catalog::StoredView;
use crate::dictionary::Dictionary;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Home;
use crate::log::reader::{self, Entry};
use crate::log::segment::{self, Segment};
use crate::record::Control;
use crate::tier::apply::Scratch;
use crate::tier::{Backfill, ViewTier};
use serde::Serialize;
use std::ops::ControlFlow;
use std::sync::Arc;

/// How far something long has come: in records or in bytes, as the call says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// So much is done.
    pub done: u64,
    /// So much there is in all.
    pub total: u64,
}

/// How a call ended, with the number of events it has read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended {
    Complete(u64),
    /// Its caller stopped it.
    Stopped(u64),
    /// The view was dropped meanwhile.
    Left(u64),
}

impl ViewTier {
    /// How far its backfill is; `None` when none is under way.
    pub(super) fn progress(&self) -> Option<Progress> {
        let done = self.backfill.lock().under_way()?;
        Some(Progress { done, total: self.defined_at() })
    }
}

impl Ended {
    pub(super) fn read(self) -> u64 {
        match self {
            Ended::Complete(read) | Ended::Stopped(read) | Ended::Left(read) => read,
        }
    }
}

pub(super) fn run(
    engine: &Arc<Engine>,
    tier: &Arc<ViewTier>,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Ended> {
    let Some(_only_one) = tier.backfilling.try_lock() else {
        return Err(Error::new(
            ErrorKind::Backfilling,
            format!("another call is filling the view {:?} already", tier.view.name()),
        ));
    };
    let Some((done, first_segment)) = begin(engine, tier)? else {
        return make_complete(engine, tier).map(|()| Ended::Complete(0));
    };
    let total = tier.defined_at();
    let mut scratch = Scratch::default();
    let mut read = 0;
    let mut ended = None;
    let mut fold = |entry: Entry<'_>, header: &crate::log::frame::Header| {
        let gate = engine.enter()?;
        if tier.has_left() {
            ended = Some(Ended::Left(read));
            return Err(Error::new(ErrorKind::Stopped, "the view was dropped"));
        }
        if let Entry::Events(columns) = entry {
            scratch.begin(columns);
            tier.apply(columns, 0, &mut scratch);
            read += columns.len() as u64;
        }
        let done = header.last_position();
        tier.filled_to(done);
        drop(gate);
        if progress(Progress { done, total }).is_break() {
            ended = Some(Ended::Stopped(read));
            return Err(Error::new(ErrorKind::Stopped, "stopped by its caller"));
        }
        Ok(())
    };
    let end = engine.log.end();
    let replayed = reader::replay_range(
        &engine.home,
        (done + 1, total),
        first_segment,
        end,
        &engine.dictionary,
        &mut fold,
    );
    if let Some(ended) = ended {
        return Ok(ended);
    }
    replayed?;
    // With the gate closed: the record and the note belong to the same moment.
    let mut live = engine.close_gate()?;
    if tier.has_left() {
        return Ok(Ended::Left(read));
    }
    if tier.is_succeeding() {
        engine.append_control(&Control::SuccessorDone { id: tier.id })?;
        tier.filled();
        // First: whoever finds that the other one has left looks for this one.
        engine.by_name.insert(tier.view.name().into(), tier.clone());
        live.succeed(tier);
    } else {
        engine.append_control(&Control::BackfillDone { id: tier.id })?;
        tier.filled();
    }
    drop(live);
    make_complete(engine, tier)?;
    Ok(Ended::Complete(read))
}

/// Checkpoints a complete backfill, if no checkpoint has: without one an opening would read again all
/// that is in.
pub(super) fn make_complete(engine: &Engine, tier: &ViewTier) -> Result<()> {
    let backfill = *tier.backfill.lock();
    let complete = |stored: &StoredView| stored.id == tier.id && stored.backfill == backfill;
    let committed = engine.checkpointer.lock().catalog.views.iter().any(complete);
    if committed { Ok(()) } else { engine.checkpoint() }
}

/// Folds in what a replay owes: the rest of a backfill of which the log says that it was complete,
/// and the snapshot does not have it. The log was read from its `oldest` segment to its `end`. Where
/// this fails it can be called again, and goes on.
pub(super) fn settle(
    home: &Home,
    tier: &ViewTier,
    oldest: u64,
    end: (u64, u64),
    dictionary: &Arc<Dictionary>,
) -> Result<()> {
    let Some(done) = tier.backfill.lock().under_way() else { return Ok(()) };
    let mut scratch = Scratch::default();
    let mut fold = |entry: Entry<'_>, header: &crate::log::frame::Header| {
        if let Entry::Events(columns) = entry {
            scratch.begin(columns);
            tier.apply(columns, 0, &mut scratch);
        }
        tier.filled_to(header.last_position());
        Ok(())
    };
    let range = (done + 1, tier.defined_at());
    let first = still_there(home, oldest, range.0)?;
    reader::replay_range(home, range, first, end, dictionary, &mut fold)?;
    tier.filled();
    Ok(())
}

/// The segment to begin with for what is behind `position`. Where a commit failed and had happened all the
/// same, its catalog has segments retired that are there, and that were read after it.
fn still_there(home: &Home, oldest: u64, position: u64) -> Result<u64> {
    let numbers = segment::numbers(&*home.disk, &home.dir)?;
    let mut first = oldest;
    while numbers.contains(&first) {
        let segment = Segment::open(home, first, crate::disk::Access::Read)?;
        let header = reader::first_frame(&segment)?;
        if header.is_some_and(|header| header.position <= position)
            || !numbers.contains(&first.saturating_sub(1))
        {
            break;
        }
        first -= 1;
    }
    Ok(first)
}

/// Where to begin: the records done already and the segment that holds the next; `None` when there
/// is nothing to do.
fn begin(engine: &Engine, tier: &ViewTier) -> Result<Option<(u64, u64)>> {
    // No checkpoint until the wish is noted: its retention would not know what is needed.
    let checkpointer = engine.checkpointer.lock();
    let state = *tier.backfill.lock();
    let done = match state {
        Backfill::Complete => return Ok(None),
        Backfill::Unfinished { done } | Backfill::Succeeding { done, .. } => done,
        Backfill::NotAsked => 0,
    };
    let oldest = checkpointer.catalog.first_segment;
    let first_segment = if state.is_succeeding() {
        // It is to hold what the one holds whose place it takes.
        having_all(engine, oldest, (done + 1, tier.defined_at()), "another definition")?
    } else {
        reaching_back(engine, oldest, done + 1, "this backfill")?
    };
    if state == Backfill::NotAsked {
        // With the gate closed: the record and the note belong to the same moment.
        let live = engine.close_gate()?;
        if let Some(successor) = live.successor(tier.view.name()) {
            // What that one takes in was settled when it was begun with.
            return Err(Error::new(
                ErrorKind::Backfilling,
                format!(
                    "the view {:?} is getting another definition; redefine it to the end, or to what \
                     it is to give that up, and fill it then\n  stored: {}\n  asked:  {}",
                    tier.view.name(),
                    tier.view,
                    successor.view
                ),
            ));
        }
        engine.append_control(&Control::BackfillAsked { id: tier.id })?;
        *tier.backfill.lock() = Backfill::Unfinished { done: 0 };
        drop(live);
    }
    drop(checkpointer);
    Ok(Some((done, first_segment)))
}

/// The segment that holds the first of these positions, if the log has all of them, as `who` needs them: it
/// reaches back to the first, and a repair gave none of them up.
pub(super) fn having_all(
    engine: &Engine,
    oldest: u64,
    (from, to): (u64, u64),
    who: &str,
) -> Result<u64> {
    let first = reaching_back(engine, oldest, from, who)?;
    let lost = reader::first_lost(&engine.home, (from, to), first, engine.log.end())?;
    let Some((from, to)) = lost else { return Ok(first) };
    Err(Error::new(
        ErrorKind::LogRetired,
        format!(
            "the records at positions {from} to {to}, which {who} needs, are not in the log any more: a \
             repair gave them up. Views that held them before hold them still"
        ),
    )
    .at(&engine.home.dir, None))
}

/// The segment that holds `position`, if the log reaches back to it, as `who` needs it. Segments before the
/// `oldest` that are still there were retired.
pub(super) fn reaching_back(engine: &Engine, oldest: u64, position: u64, who: &str) -> Result<u64> {
    // What a failed write left in the last segment is no damage, and no record.
    engine.log.check_poison()?;
    let dir = &engine.home.dir;
    let mut numbers = segment::numbers(&*engine.disk, dir)?;
    numbers.retain(|number| *number >= oldest);
    let mut found = None;
    let mut begins = None;
    for number in numbers {
        let segment = Segment::open(&engine.home, number, crate::disk::Access::Read)?;
        // One that was made and not written to yet holds nothing.
        let header = match reader::first_frame(&segment) {
            Ok(Some(header)) => header,
            Ok(None) => continue,
            // Its first frame may be on its way just now, and is not wanted then. Who reads up to what is
            // wanted finds out.
            Err(error) if error.kind() == ErrorKind::Corruption && found.is_some() => break,
            Err(error) => return Err(error),
        };
        begins = begins.or(Some(header.position));
        if header.position > position {
            break;
        }
        found = Some(number);
    }
    found.ok_or_else(|| {
        let begins = begins.unwrap_or(position);
        Error::new(
            ErrorKind::LogRetired,
            format!(
                "the log begins at position {begins}; the records from {position} on, which {who} \
                 needs, were retired by the retention policy"
            ),
        )
        .at(dir, None)
    })
}
