//! What the engine knows of itself, in one struct.

use super::{Db, Engine};
use crate::log::{Position, segment};
use crate::tier::ShardTotals;
use crate::time::Timestamp;
use serde::Serialize;
use std::sync::Arc;

/// Statistics of the engine itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Statistics {
    /// Events recorded since the directory was made.
    pub events: u64,
    /// The last position.
    pub position: Position,
    /// The last position that survives a power cut for certain.
    pub durable_position: Position,
    /// The last checkpoint; `None` before the first.
    pub last_checkpoint: Option<LastCheckpoint>,
    /// Checkpoints of this opening that failed.
    pub checkpoint_failures: u64,
    /// Work in the background of this opening that failed, its checkpoints included.
    pub background_failures: u64,
    /// The last of it. It stays when the same work succeeds later; whether it is over, its time and the
    /// last checkpoint's say, and [`Db::is_dirty`].
    pub background_error: Option<BackgroundError>,
    /// Views.
    pub views: u64,
    /// Segments of the log, the one prepared for the future included.
    pub segments: u64,
    /// Bytes of all segments.
    pub log_bytes: u64,
    /// Bytes of log since the last checkpoint.
    pub log_bytes_since_checkpoint: u64,
    /// The store of the snapshot: `redb`, or the name of the program's own
    /// ([`Options::storage`](crate::Options::storage)).
    pub storage: String,
    /// Bytes of redb's file; 0 where the snapshot is in another store.
    pub snapshot_bytes: u64,
    /// Series in memory.
    pub series_resident: u64,
    /// Of those, the ones that hold only what came since opening, their rows not being read yet.
    pub series_partial: u64,
    /// Of those, the ones with a change that no checkpoint has brought into the snapshot.
    pub series_dirty: u64,
    /// Estimated memory of the series in memory and their tables, in bytes.
    pub memory_bytes: u64,
    /// The budget for it ([`Options::memory_budget`](crate::Options::memory_budget)).
    pub memory_budget_bytes: u64,
    /// Estimated memory of the dictionary of strings seen since opening, in bytes.
    pub dictionary_bytes: u64,
    /// Strings in it.
    pub dictionary_strings: u64,
    /// Series evicted since opening.
    pub evictions: u64,
    /// Records replayed from the log when the directory was opened.
    pub replayed: u64,
    /// Snapshots that were found damaged when the directory was opened: 1 where it was put aside
    /// and everything in it came from the log.
    pub snapshots_rebuilt: u64,
    /// Recorded events that were older than the buckets kept by some view, as far as that was known of
    /// series that were not in memory ([`Recorded::late`](crate::Recorded::late)): of such there may have
    /// been more.
    pub late: u64,
    /// Events refused since opening.
    pub refused: u64,
    /// Events passed over as duplicates; since the last snapshot that was lost, which the log does
    /// not know.
    pub duplicates: u64,
    /// Times a table of series grew since opening.
    pub resizes: u64,
    /// Time spent on that, in microseconds.
    pub resize_micros: u64,
}

/// Work in the background that failed. It is tried again by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BackgroundError {
    /// What it was, `checkpoint` for example.
    pub work: &'static str,
    /// The error, as people read it.
    pub error: String,
    /// When it was, by the store's clock.
    pub time: Timestamp,
}

/// A checkpoint that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LastCheckpoint {
    /// Everything up to here is in it.
    pub position: Position,
    /// When it was made.
    pub time: Timestamp,
    /// How long it took, in microseconds; 0 for one of an earlier opening.
    pub duration_micros: u64,
    /// Series written; 0 for one of an earlier opening.
    pub series: u64,
}

impl Db {
    /// Whether there is anything that the snapshot store does not have: a record or a definition since
    /// the last checkpoint that succeeded. What is dirty is in memory and in the log; a crash costs its
    /// replay and nothing else. Takes each shard's lock for a moment, at the most.
    pub fn is_dirty(&self) -> bool {
        let engine = self.engine();
        engine.last_position() > engine.figures.lock().position || self.dirty_series() > 0
    }

    /// The series with a change that the snapshot store does not have: those of a checkpoint that
    /// failed, or that is being written, included. Takes each shard's lock for a moment.
    pub fn dirty_series(&self) -> u64 {
        let engine = self.engine();
        engine.settle();
        let views = engine.gate.enter().views.clone();
        views.iter().map(|tier| tier.totals().dirty).sum()
    }
}

pub(super) fn collect(engine: &Arc<Engine>) -> Statistics {
    engine.settle();
    let live = engine.gate.enter();
    let (views, answering) = (live.views.clone(), live.answering().count());
    drop(live);
    let mut totals = ShardTotals::default();
    for tier in &views {
        totals.add(&tier.totals());
    }
    let figures = *engine.figures.lock();
    let last_checkpoint = (figures.made_at != 0).then(|| LastCheckpoint {
        position: Position(figures.position),
        time: Timestamp::from_micros(figures.made_at),
        duration_micros: figures.micros,
        series: figures.series,
    });
    let checkpoint_failures = figures.failures;
    let background_error = engine.background_error.lock().clone();
    let log_dir = &engine.home.dir;
    let numbers = segment::numbers(&*engine.disk, log_dir).unwrap_or_default();
    let bytes_of = |path: &std::path::Path| {
        let file = engine.disk.open(path, crate::disk::Access::Read);
        file.and_then(|file| file.len()).unwrap_or(0)
    };
    let log_bytes = numbers.iter().map(|n| bytes_of(&log_dir.join(segment::name(*n)))).sum();
    let tallies = &engine.tallies;
    Statistics {
        events: engine.events(),
        position: Position(engine.last_position()),
        durable_position: Position(engine.log.durable()),
        last_checkpoint,
        checkpoint_failures,
        background_failures: engine.tallies.background_failures.get(),
        background_error,
        views: answering as u64,
        segments: numbers.len() as u64,
        log_bytes,
        log_bytes_since_checkpoint: tallies.log_bytes.get(),
        storage: engine.log.manifest().store().to_string(),
        snapshot_bytes: bytes_of(&engine.dir.join(super::open::STORE)),
        series_resident: totals.resident,
        series_partial: totals.partial,
        series_dirty: totals.dirty,
        memory_bytes: totals.memory_bytes,
        memory_budget_bytes: engine.options.memory_budget as u64,
        dictionary_bytes: engine.dictionary.memory_bytes() as u64,
        dictionary_strings: engine.dictionary.len() as u64,
        evictions: totals.evictions,
        replayed: tallies.replayed.get(),
        snapshots_rebuilt: tallies.rebuilt.get(),
        late: tallies.late.get(),
        refused: tallies.refused.get(),
        duplicates: tallies.duplicates.get(),
        resizes: totals.resizes,
        resize_micros: totals.resize_micros,
    }
}
