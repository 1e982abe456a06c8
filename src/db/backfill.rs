//! Backfill: folding the records from before a view's definition into it, from the log.
//!
//! Invariants
//! 1. A view counts live what comes behind its definition and by backfill what came up to it: every
//!    record once. Merging is commutative, so the two may go on at the same time.
//! 2. Each step is applied, and noted in the view, inside the gate; so a checkpoint's cut has the
//!    steps and the note of the same moment, and a backfill that died goes on where the last
//!    checkpoint saw it.

use super::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::log::reader::{self, Entry};
use crate::log::segment::{self, Segment};
use crate::tier::apply::Scratch;
use crate::tier::{Backfill, ViewTier};
use serde::Serialize;
use std::ops::ControlFlow;
use std::sync::Arc;

/// How far something long has come, in records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Records done.
    pub done: u64,
    /// Records in all.
    pub total: u64,
}

pub(super) fn run(
    engine: &Arc<Engine>,
    tier: &ViewTier,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<u64> {
    let total = tier.defined_at;
    let done = {
        let _gate = engine.enter()?;
        let mut state = tier.backfill.lock();
        match *state {
            Backfill::Complete => return Ok(0),
            Backfill::Unfinished { done } => done,
            Backfill::NotAsked => {
                check_reaches_back(engine, 1)?;
                *state = Backfill::Unfinished { done: 0 };
                0
            }
        }
    };
    let first_segment = check_reaches_back(engine, done + 1)?;
    let mut scratch = Scratch::default();
    let mut read = 0;
    let mut stopped = false;
    let mut fold = |entry: Entry<'_>, header: &crate::log::frame::Header| {
        let gate = engine.enter()?;
        if let Entry::Events(columns) = entry {
            scratch.begin(columns);
            tier.apply(columns, &mut scratch);
            read += columns.len() as u64;
        }
        let done = header.last_position();
        *tier.backfill.lock() = Backfill::Unfinished { done };
        drop(gate);
        if progress(Progress { done, total }).is_break() {
            stopped = true;
            return Err(Error::new(ErrorKind::Backfilling, "stopped by its caller"));
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
    if stopped {
        return Ok(read);
    }
    replayed?;
    let gate = engine.enter()?;
    *tier.backfill.lock() = Backfill::Complete;
    drop(gate);
    // The end of a backfill is not a record of the log: without a checkpoint a crash would bring
    // it back unfinished.
    engine.checkpoint()?;
    Ok(read)
}

/// The first segment there is, if the log holds `position`.
fn check_reaches_back(engine: &Engine, position: u64) -> Result<u64> {
    let dir = &engine.home.dir;
    let numbers = segment::numbers(&*engine.disk, dir)?;
    let first = numbers.first().copied().ok_or_else(|| segment::missing(dir))?;
    let segment = Segment::open(&engine.home, first, crate::disk::Access::Read)?;
    let begins = reader::first_frame(&segment)?.map_or(1, |header| header.position);
    if begins > position {
        return Err(Error::new(
            ErrorKind::LogRetired,
            format!(
                "the log begins at position {begins}; the records from {position} on, which this \
                 backfill needs, were retired by the retention policy"
            ),
        )
        .at(dir, None));
    }
    Ok(first)
}
