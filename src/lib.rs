//! Quipu is an embedded, durable, real-time analytics engine: the SQLite of running aggregates.

pub mod aggregate;
mod codec;
mod db;
mod dictionary;
mod disk;
mod error;
mod event;
mod key;
mod log;
mod manifest;
mod options;
mod query;
mod record;
mod ring;
mod series;
mod snapshot;
mod tier;
mod time;
mod view;

pub use aggregate::Summary;
pub use db::{Batch, BatchOutcome, Db, LastCheckpoint, Progress, Recorded, Statistics, ViewStatus};
pub use error::{Error, ErrorKind, Result};
pub use event::{DEFAULT_MEASURE, EVENT_DIMENSION, Event, Limits};
pub use log::Position;
pub use options::{Dedup, Durability, OnInvalid, Options, Retention};
pub use query::{Bucket, Component, Query, Row, Rows};
pub use time::{Clock, Grain, Keep, SystemClock, TestClock, Timestamp};
pub use view::View;
