//! The log: the append-only sequence of all records, in segment files. It is the write-ahead log
//! and the event store.
//!
//! Invariants
//! 1. Every record has a position, counted from 1 without gaps over all segments; a frame holds
//!    the records of one commit group, at consecutive positions.
//! 2. A segment is written by one opening only. A new opening cuts the unsynced tail of the last
//!    one and starts another; so a defect that is not in the unsynced tail is corruption.
//! 3. A frame carries `synced`, the position known durable when it was written. A bad frame at
//!    position P is an unsynced tail only if no valid frame behind it claims `synced >= P`.
//! 4. Nothing is appended after a failed write or sync (the writer is poisoned).
//!
//! In reading order: [`frame`] (bytes), [`segment`] (a file of them), [`stage`] (single events on
//! their way into a frame), [`writer`] (append and group commit), [`frames`] (walking a segment),
//! [`reader`] (replay and recovery), [`follow`] (reading what another process writes),
//! [`survey`] and [`salvage`] (reading past damages, writing what is good of a segment anew). Which
//! segments are kept is decided with a checkpoint (`db/checkpoint.rs`).

pub(crate) mod follow;
pub(crate) mod frame;
pub(crate) mod frames;
pub(crate) mod reader;
pub(crate) mod salvage;
pub(crate) mod segment;
pub(crate) mod stage;
pub(crate) mod survey;
pub(crate) mod writer;

use crate::disk::{Disk, Filling};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a log is, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) disk: Arc<dyn Disk>,
    /// The directory of the segments.
    pub(crate) dir: PathBuf,
    /// The directory's identity, as in the manifest; every segment carries it.
    pub(crate) identity: u128,
    /// How new segments are filled.
    pub(crate) filling: Filling,
}

/// The number of a record: 1 for the first of a directory, then without gaps. 0 is "none yet".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position(pub(crate) u64);

impl Position {
    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for Position {
    fn from(number: u64) -> Self {
        Position(number)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
