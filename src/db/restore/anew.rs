//! A log that is written anew, with the events up to a time: those of the old one, under the names that
//! they have.
//!
//! In the new log they are at other positions, of a directory with another identity. So each frame says
//! whose events they are, and where they were. What the old directory had recorded itself, the new one has
//! under an earlier name: the log says so in front of the first of these (`record.rs`).

use crate::codec;
use crate::error::Result;
use crate::log::writer::{Draft, Writer};
use crate::record::{Columns, Control, Origin};
use crate::time::Timestamp;

pub(super) struct Anew {
    pub(super) writer: Writer,
    draft: Draft,
    /// The new directory.
    identity: u128,
    /// What the old one was at the place that is read, and has been before.
    replica: u128,
    was: Vec<u128>,
    /// Those of them that the new log knows.
    named: Vec<u128>,
    time: Timestamp,
}

impl Anew {
    /// Of the events up to `time` of the directory `old`.
    pub(super) fn new(writer: Writer, identity: u128, old: u128, time: Timestamp) -> Self {
        let (draft, was, named) = (Draft::default(), vec![old], Vec::new());
        Anew { writer, draft, identity, replica: old, was, named, time }
    }

    pub(super) fn control(&mut self, control: &Control, written_at: Timestamp) -> Result<()> {
        if let Control::Replica { id, before } = control {
            self.replica = *id;
            self.was.extend([*id, *before]);
            return Ok(());
        }
        self.append(control, written_at)
    }

    fn append(&mut self, control: &Control, written_at: Timestamp) -> Result<()> {
        self.writer.append_control(&codec::encode(control), written_at).map(|_| ())
    }

    /// The events of a frame that was at `position`.
    pub(super) fn events(
        &mut self,
        columns: &mut Columns,
        position: u64,
        written_at: Timestamp,
    ) -> Result<()> {
        let own = Origin { replica: self.replica, first: position, empty: 0 };
        let before = columns.extras.origin.get_or_insert(own).replica;
        let kept: Vec<bool> = columns.times.iter().map(|at| *at <= self.time.micros()).collect();
        if kept.contains(&true) && self.was.contains(&before) && !self.named.contains(&before) {
            self.append(&Control::Replica { id: self.identity, before }, written_at)?;
            self.named.push(before);
        }
        columns.each_run(&kept, |columns| {
            self.draft.events(columns, &self.writer, written_at);
            self.writer.append_events(&mut self.draft, columns).map(|_| ())
        })
    }
}
