//! Another definition for a view that lives.
//!
//! The new definition begins beside the old one, under the same name, as its *successor*: it counts
//! live from there on, and is filled from the log with what the old one holds from before
//! (`db/backfill.rs`). Where the log no longer reaches back so far the buckets that the old one keeps are
//! converted (`db/convert.rs`). Meanwhile the old one answers. When the successor has all of it, one control
//! record makes it the view of that name and drops the other.
//!
//! Invariants
//! 1. Of the views of one name the first answers, and there is at most one more: its successor.
//! 2. A name has one answer at any moment: the successor takes it at a cut of the gate, at which both
//!    hold the same events. Rows of the old one are deleted when nobody reads them any more.
//! 3. What a successor is to hold is settled by the log, at its definition: from its beginning on where
//!    somebody had asked for the backfill of the old one, else from that one's definition on. So a view
//!    that holds no more than came behind its definition holds no more afterwards.
//! 4. As with any backfill, the segments that are still to be read are not retired, and a successor
//!    that died goes on where the last checkpoint saw it. A conversion that died begins anew.

use super::Engine;
use super::backfill::{self, Ended, Progress};
use super::convert;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Control;
use crate::tier::ViewTier;
use crate::view::View;
use std::ops::ControlFlow;
use std::sync::Arc;

pub(super) fn run(
    engine: &Arc<Engine>,
    view: &View,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<bool> {
    let Some(successor) = begin(engine, view, &mut progress)? else { return Ok(false) };
    let name = view.name();
    match backfill::run(engine, &successor, progress)? {
        Ended::Complete(_) => Ok(true),
        Ended::Stopped(_) => Err(Error::new(
            ErrorKind::Stopped,
            format!(
                "stopped by its caller; the view {name:?} has its old definition until it is \
                 redefined in the same way once more, which goes on from here"
            ),
        )),
        Ended::Left(_) => Err(given_up(name)),
    }
}

/// Another call was faster.
pub(super) fn given_up(name: &str) -> Error {
    Error::new(
        ErrorKind::ViewConflict,
        format!("the view {name:?} was dropped or redefined otherwise by another call meanwhile"),
    )
}

/// The successor that is to be filled; `None` where the view has the definition already.
fn begin(
    engine: &Arc<Engine>,
    view: &View,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<Arc<ViewTier>>> {
    let name = view.name();
    // No checkpoint until the successor is there: its retention would not know what is needed.
    let mut checkpointer = engine.checkpointer.lock();
    loop {
        let looked = {
            let live = engine.enter()?;
            let old = live.named(name).ok_or_else(|| engine.unknown_view(name))?;
            let now = engine.options.clock.now_roughly();
            live.policies.check_redefined(&old.view, view, live.zone.unwrap_or_default(), now)?;
            let is_there = live.of_name(name).any(|tier| tier.view == *view);
            (!is_there).then(|| (old.id, old.since()))
        };
        if let Some((id, since)) = looked {
            // Read from the disk, so not inside the gate.
            let oldest = checkpointer.catalog.first_segment;
            // To the end that the log has now: the definition comes behind it.
            let wanted = (since + 1, engine.log.appended());
            match backfill::having_all(engine, oldest, wanted, "another definition") {
                Err(error) if error.kind() == ErrorKind::LogRetired => {
                    let converted =
                        convert::run(engine, &mut checkpointer, (id, view), &error, progress)?;
                    match converted {
                        Some(successor) => return Ok(Some(successor)),
                        None => continue,
                    }
                }
                reached => _ = reached?,
            }
        }
        let mut live = engine.close_gate()?;
        let old = live.named(name).ok_or_else(|| engine.unknown_view(name))?.clone();
        let successor = live.successor(name).cloned();
        if old.view == *view {
            let mut position = None;
            if let Some(successor) = successor {
                position = Some(engine.append_control(&Control::ViewDropped { id: successor.id })?);
                live.drop_view(successor.id);
            }
            drop(live);
            drop(checkpointer);
            if let Some(position) = position {
                engine.acknowledge(position, engine.options.durability)?;
            }
            // Of a repaired log; nobody answers under the name before.
            if old.is_succeeding() {
                return Ok(Some(old));
            }
            if old.progress().is_none() {
                backfill::make_complete(engine, &old)?;
            }
            return Ok(None);
        }
        if let Some(successor) = successor.filter(|successor| successor.view == *view) {
            return Ok(Some(successor));
        }
        let since = old.since();
        if looked != Some((old.id, since)) {
            // Another call was faster.
            continue;
        }
        let id = live.next_view;
        let control = Control::SuccessorDefined { id, view: view.clone() };
        let position = engine.append_control(&control)?;
        let room = (&engine.dictionary, engine.options.expected_keys);
        return Ok(Some(live.define_successor((id, view.clone()), position, since, 0, room)));
    }
}
