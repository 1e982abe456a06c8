//! Quipu is an embedded, durable, real-time analytics engine: the SQLite of running aggregates.
//!
//! A program opens a directory, says what it wants to know ([`View`]), records what happens
//! ([`Event`]) and asks at any moment ([`Query`]). Answers come from aggregates that every event
//! keeps up to date, so they cost microseconds whatever the number of events, and they survive a
//! crash: by default a record survives the death of the process as soon as the call returns, and a
//! power cut at most 100 ms later ([`Durability`]).
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! use quipu::{Component, Db, Event, Grain, Keep, View};
//!
//! let db = Db::open(dir.path().join("shop"))?;
//! db.define(View::new("by_product").by(["product"]).stats("value").grain(Grain::Day, Keep::Last(90)))?;
//!
//! db.record(&Event::new("sale").dim("product", "teapot").value(24.0))?;
//! let mut batch = db.batch(); // the fast path
//! for price in [3.5, 4.0, 3.5] {
//!     batch.push(&Event::new("sale").dim("product", "cup").value(price))?;
//! }
//! db.record_batch(&mut batch)?;
//!
//! let by_product = db.query("by_product")?;
//! let best = &by_product.top(1, Component::Sum)?[0];
//! assert_eq!((best.key[0].as_str(), best.count), ("teapot", 1));
//! let cup = by_product.get(&["cup"])?.expect("cups were sold");
//! assert_eq!(cup.summary().expect("the view keeps statistics").sum, 11.0);
//! assert_eq!(by_product.buckets(&["cup"], Grain::Day)?.len(), 1);
//!
//! drop(db); // the last handle closes the engine; after a crash the same answers come back
//! let db = Db::open(dir.path().join("shop"))?;
//! assert_eq!(db.query("by_product")?.totals()?.count, 4);
//! # Ok::<(), quipu::Error>(())
//! ```
//!
//! Where to go on: [`Db`] and [`Options`] are the way in; the [cookbook](guide::cookbook) has recipes, those
//! for [counting over time](guide::counters) by themselves;
//! the [design](guide::design) says how it holds together, the [format](guide::format) what is on
//! disk, [durability](guide::durability) what was done to it, and [performance](guide::performance)
//! what was measured.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | what it adds |
//! |---|---|
//! | `cli` | the command line `quipu` |
//! | `simulation` | the module `quipu::simulation`: a disk in memory that loses power, for tests |
//! | `tower` | the module `quipu::tower`: limits as a layer before a service of tower, axum or tonic |

// The life of an event, in this order; backwards it is recovery.
mod db;

mod record;

mod log;

mod tier;

mod snapshot;

// Asking, and telling others.
mod limit;
mod query;

mod exchange;

// What is kept: values that can be merged, and the definitions of what to keep.
pub mod aggregate;
mod policy;
mod ring;
mod series;
mod view;

// The words that everybody uses.
mod codec;
mod dictionary;
mod error;
mod event;
mod key;
mod options;
mod slots;
mod sync;
mod time;
mod versions;

// Files.
mod disk;
mod manifest;

#[cfg(feature = "simulation")]
pub mod simulation;

// An edge: it uses the public interface only.
#[cfg(feature = "tower")]
pub mod tower;

pub use aggregate::Summary;
pub use db::{Action, Repair, RepairReport, RepairStep, repair};
pub use db::{
    BackgroundError, Batch, BatchOutcome, Counter, Db, LastCheckpoint, Limit, Limiter,
    PolicyStatus, Progress, ReadOnlyDb, Recorded, Reservation, Statistics, Successor, ViewStatus,
};
pub use db::{BackupOutcome, RestoreOutcome, Upto, restore};
pub use db::{Depth, Finding, Meaning, Positions, VerifiedView, VerifyReport, verify};
pub use db::{ImportOptions, ImportOutcome};
pub use error::{Error, ErrorKind, Result};
pub use event::{DEFAULT_MEASURE, EVENT_DIMENSION, Event, Limits};
pub use exchange::{Bundle, Cursor, ReplicaId, TinyCounter};
pub use limit::{Denial, HttpVerdict, Usage, Verdict};
pub use log::Position;
pub use options::{Dedup, Durability, OnInvalid, Options, Retention};
pub use policy::{Constraint, Policy, Rule, Window};
pub use query::{
    Across, Balance, Bucket, Component, Estimate, Percent, Query, RangeQuery, Row, Rows,
};
pub use query::{Seen, SeriesQuery, SpanQuery, SpanTotal, Total, Trend};
pub use time::{Clock, Grain, Keep, Length, Period, SystemClock, TestClock, TimeZone, Timestamp};
pub use time::{Date, Dates, Hours, Schedule, TimeOfDay, Weekday};
pub use view::View;

/// The store of the snapshot, and how to bring one of your own along
/// ([`Options::storage`]).
///
/// A directory is a log, which is always files of its own, and a snapshot: what all views say as of
/// some position, as rows in a store. The store is the part that can be replaced. The contract is that
/// of [`Storage`](storage::Storage); [`check`](storage::check()) tries it, `examples/sqlite` is one
/// that keeps the rows in SQLite, and the [design](guide::design) says what is where.
pub mod storage {
    pub use crate::snapshot::{
        Change, Changes, KEY_BYTES_MAX, MemoryStorage, Snapshot, Start, Storage, Table, check,
    };
}

/// The guides: how it holds together, what is on disk, what it withstands, recipes, figures, what is
/// fuzzed.
pub mod guide {
    #[doc = include_str!("guide/design.md")]
    pub mod design {}

    #[doc = include_str!("guide/format.md")]
    pub mod format {}

    #[doc = include_str!("guide/durability.md")]
    pub mod durability {}

    #[doc = include_str!("guide/cookbook.md")]
    pub mod cookbook {}

    #[doc = include_str!("guide/counters.md")]
    pub mod counters {}

    #[doc = include_str!("guide/sketches.md")]
    pub mod sketches {}

    #[doc = include_str!("guide/performance.md")]
    pub mod performance {}

    #[doc = include_str!("guide/fuzzing.md")]
    pub mod fuzzing {}
}
