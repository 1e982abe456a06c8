//! What the benches share: events, views, clocks, and the table they print.

#![allow(dead_code, reason = "each bench uses a part of it")]

pub(crate) mod events;
pub(crate) mod measure;
pub(crate) mod report;

use quipu::{Db, Grain, Keep, Options, View};
use tempfile::TempDir;

/// Events in one batch.
pub(crate) const BATCH: usize = 1_000;

/// What the plain loop of `record.rs` keeps in five maps, as views.
pub(crate) fn five_views() -> [View; 5] {
    [
        View::new("by_user").by(["user"]).stats("value"),
        View::new("by_product").by(["product"]).stats("value"),
        View::new("by_category").by(["category"]).stats("value"),
        View::new("by_user_product").by(["user", "product"]).stats("value"),
        View::new("by_hour").stats("value").grain(Grain::Hour, Keep::All),
    ]
}

/// A directory that goes when it is dropped, and an engine in it.
pub(crate) struct Store {
    pub(crate) db: Db,
    pub(crate) dir: TempDir,
}

impl Store {
    pub(crate) fn new(options: Options, views: impl IntoIterator<Item = View>) -> Self {
        let dir = tempfile::Builder::new().prefix("quipu-bench-").tempdir().expect("a temp dir");
        let db = options.open(dir.path().join("db")).expect("a new store");
        for view in views {
            db.define(view).expect("a valid view");
        }
        Store { db, dir }
    }
}

/// Options under which no checkpoint is made unless it is asked for.
pub(crate) fn without_checkpoints() -> Options {
    Options::new()
        .checkpoint_every(std::time::Duration::from_secs(1_000_000))
        .checkpoint_log_bytes(u64::MAX)
}

/// Records through one reused batch.
pub(crate) fn record_in_batches<'a>(db: &Db, events: impl Iterator<Item = quipu::Event<'a>>) {
    record_each_in_batches(db, events, |event| event);
}

/// Records what `event` makes of each through one reused batch, as most do: an event goes into the batch where
/// it is made, and is not moved on its way there.
pub(crate) fn record_each_in_batches<'a, T>(
    db: &Db,
    all: impl IntoIterator<Item = T>,
    event: impl Fn(T) -> quipu::Event<'a>,
) {
    let mut batch = db.batch();
    for one in all {
        batch.push(&event(one)).expect("a valid event");
        if batch.len() == BATCH {
            db.record_batch(&mut batch).expect("recorded");
        }
    }
    db.record_batch(&mut batch).expect("recorded");
}
