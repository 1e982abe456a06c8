//! Engines on a simulated disk: for tests of what power cuts and failing disks do.
//!
//! Behind the feature `simulation`. [`SimulatedDisk`] is a disk in memory that keeps what was
//! written apart from what was synced, and can lose the one and keep the other at any moment. A
//! program's own tests can open an engine on it ([`Options::open_on`]) and cut the power.
//!
//! For tests that are to be repeated operation by operation there is [`Stepped`], an engine without
//! threads whose background work is done when it is told to. With a [`TestClock`](crate::TestClock)
//! the same calls then do the same operations on the disk, in the same order.
//!
//! ```
//! use quipu::simulation::{Fault, OperationKind, SimulatedDisk, Stepped, Survival};
//! use quipu::{ErrorKind, Event, Options, TestClock, View};
//!
//! let options = Options::new().clock(TestClock::default()).view(View::new("all"));
//! let disk = SimulatedDisk::new(1);
//! let engine = Stepped::open(options.clone(), &disk, "db")?;
//! engine.db().record(&Event::new("e"))?;
//! engine.db().sync()?;
//! engine.db().record(&Event::new("e"))?;
//! // A sync that fails is final: nothing more is acknowledged.
//! disk.plan(|op| (op.kind == OperationKind::Sync).then_some(Fault::Error(std::io::ErrorKind::Other)));
//! assert!(engine.db().sync().is_err());
//! disk.heal();
//! assert_eq!(engine.db().record(&Event::new("e")).unwrap_err().kind(), ErrorKind::Poisoned);
//! // What had been synced is there after a power cut, whatever becomes of the rest.
//! let after = Stepped::open(options, &disk.power_cut(Survival::None), "db")?;
//! assert!((1..=2).contains(&after.db().query("all")?.totals()?.count));
//! # Ok::<(), quipu::Error>(())
//! ```

#[cfg(all(test, shuttle))]
mod interleavings;
#[cfg(all(test, loom))]
mod models;

pub use crate::db::background::Step;
pub use crate::disk::simulated::{
    Fault, Operation, OperationKind, Random, SimulatedDisk, Survival,
};

use crate::db::{
    self, Db, Depth, Progress, ReadOnlyDb, Repair, RepairReport, RestoreOutcome, Upto, VerifyReport,
};
use crate::error::Result;
use crate::options::Options;
use crate::time::Timestamp;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

impl Options {
    /// Opens `dir` on a simulated disk. The feature `simulation` has this.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_on(self, disk: &SimulatedDisk, dir: impl AsRef<Path>) -> Result<Db> {
        Db::open_with(Arc::new(disk.clone()), dir.as_ref(), self)
    }

    /// Opens `dir` on a simulated disk for reading only. The copy of the snapshot is a file without
    /// a name, the operations of which have the path `scratch`. The feature `simulation` has this.
    ///
    /// # Errors
    /// As [`Options::open_read_only`].
    pub fn open_read_only_on(
        self,
        disk: &SimulatedDisk,
        dir: impl AsRef<Path>,
    ) -> Result<ReadOnlyDb> {
        ReadOnlyDb::open_on(Arc::new(disk.clone()), dir.as_ref(), self)
    }

    /// The largest size of a segment, without the bounds of
    /// [`segment_bytes`](Options::segment_bytes): a script of some operations then fills several. The
    /// stage of single events has areas of one and a half kilobytes then, and some of them fill one; and what
    /// limits allow goes through lanes, as where threads meet.
    /// The feature `simulation` has this.
    pub fn tiny_segments(mut self, bytes: u64) -> Self {
        (self.segment_bytes, self.stage_bytes, self.always_lanes) = (bytes, 1 << 13, true);
        self
    }
}

/// An engine without threads: what they would do is done when it is asked for.
///
/// No record is synced by itself, whatever [`Durability::Interval`](crate::Durability::Interval) says;
/// no checkpoint is made and no segment prepared.
#[derive(Debug)]
pub struct Stepped {
    db: Db,
}

impl Stepped {
    /// Opens `dir` on a simulated disk.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(options: Options, disk: &SimulatedDisk, dir: impl AsRef<Path>) -> Result<Self> {
        let db = Db::open_stepped(Arc::new(disk.clone()), dir.as_ref(), options)?;
        Ok(Stepped { db })
    }

    /// The engine.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Does what a background thread does when its time has come, if it was asked to.
    ///
    /// # Errors
    /// What the thread would write into the log output: `Io`, `NoSpace`, `Poisoned`, `Closed`.
    pub fn run(&self, step: Step) -> Result<()> {
        self.db.engine().run(step)
    }
}

/// [`restore`](crate::restore) on a simulated disk.
///
/// # Errors
/// As there.
pub fn restore_on(
    disk: &SimulatedDisk,
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    upto: Upto,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<RestoreOutcome> {
    let disk = Arc::new(disk.clone());
    db::restore::restore_on(disk, from.as_ref(), to.as_ref(), upto, &mut progress)
}

/// [`verify`](crate::verify) on a simulated disk.
///
/// # Errors
/// As there.
pub fn verify_on(
    disk: &SimulatedDisk,
    dir: impl AsRef<Path>,
    depth: Depth,
    mut progress: impl FnMut(Progress),
) -> Result<VerifyReport> {
    let disk = Arc::new(disk.clone());
    db::verify::verify_on(disk, dir.as_ref(), &Options::new(), depth, &mut progress)
}

/// [`repair`](crate::repair) on a simulated disk, at a time that is given: the same repair then does
/// the same operations.
///
/// # Errors
/// As there.
pub fn repair_on(
    disk: &SimulatedDisk,
    dir: impl AsRef<Path>,
    mode: Repair,
    now: Timestamp,
    mut progress: impl FnMut(Progress),
) -> Result<RepairReport> {
    let disk = Arc::new(disk.clone());
    db::repair::repair_on(disk, dir.as_ref(), &Options::new(), mode, now, &mut progress)
}
