//! The calls of tiny-counter 0.1.0, answered by Quipu.
//!
//! A program that moves over changes its imports to these, and calls on. What is not the same, and why:
//!
//! 1. Recording and asking give a `Result`: writing can fail, and what cannot be answered is an error,
//!    never a `None`, which is a counter that nobody ever recorded.
//! 2. Counts have 64 bits, differences 128.
//! 3. A store is always on disk: on a directory that is given ([`EventStoreBuilder::with_storage`]), or
//!    on a temporary one, which is removed at the end.
//! 4. Days, weeks, months and years are those of UTC, or of the zone that is given
//!    ([`EventStoreBuilder::with_time_zone`]), not those of the process.
//! 5. [`EventStore::export_all`] gives the events, in a [`Bundle`], where tiny-counter gives states of
//!    counters. To import and to merge are then the same: each event counts once.
//!
//! Limits are not in it.
//!
//! Next: `adapter/query.rs`.

mod query;

pub use query::{DeltaQuery, DeltaRangeQuery, Query, RangeQuery, RatioQuery};

use chrono::{DateTime, Duration, Utc};
use quipu::{
    Bundle, Clock, Cursor, Db, ErrorKind, Event, Grain, ImportOutcome, Keep, Options, Recorded,
    Result, SystemClock, TimeZone, Timestamp, View,
};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::TempDir;

/// What is to be counted in which buckets, and where it is kept.
#[derive(Default)]
pub struct EventStoreBuilder {
    clock: Option<Arc<dyn Clock>>,
    directory: Option<PathBuf>,
    zone: Option<TimeZone>,
    grains: Vec<(Grain, Keep)>,
}

impl EventStoreBuilder {
    /// Another clock than the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// The directory, which is made if there is none.
    #[must_use]
    pub fn with_storage(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = Some(directory.as_ref().to_path_buf());
        self
    }

    /// The time zone of a directory that is new; UTC unless it is given.
    #[must_use]
    pub fn with_time_zone(mut self, zone: TimeZone) -> Self {
        self.zone = Some(zone);
        self
    }

    /// `count` seconds are kept.
    #[must_use]
    pub fn track_seconds(self, count: usize) -> Self {
        self.track(Grain::Second, count)
    }

    /// `count` minutes are kept.
    #[must_use]
    pub fn track_minutes(self, count: usize) -> Self {
        self.track(Grain::Minute, count)
    }

    /// `count` hours are kept.
    #[must_use]
    pub fn track_hours(self, count: usize) -> Self {
        self.track(Grain::Hour, count)
    }

    /// `count` days are kept.
    #[must_use]
    pub fn track_days(self, count: usize) -> Self {
        self.track(Grain::Day, count)
    }

    /// `count` ISO weeks are kept.
    #[must_use]
    pub fn track_weeks(self, count: usize) -> Self {
        self.track(Grain::Week, count)
    }

    /// `count` months are kept.
    #[must_use]
    pub fn track_months(self, count: usize) -> Self {
        self.track(Grain::Month, count)
    }

    /// `count` years are kept.
    #[must_use]
    pub fn track_years(self, count: usize) -> Self {
        self.track(Grain::Year, count)
    }

    fn track(mut self, grain: Grain, count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.grains.push((grain, Keep::Last(count)));
        self
    }

    /// The grains of [`View::rate_limit_grains`], in place of those that were named.
    #[must_use]
    pub fn for_rate_limiting(self) -> Self {
        self.preset(View::rate_limit_grains)
    }

    /// The grains of [`View::analytics_grains`], in place of those that were named.
    #[must_use]
    pub fn for_analytics(self) -> Self {
        self.preset(View::analytics_grains)
    }

    fn preset(mut self, preset: fn(View) -> View) -> Self {
        self.grains = preset(View::new(View::COUNTERS)).grains().to_vec();
        self
    }

    /// Opens the store; without grains it has those of [`View::counters`]. A directory that has other
    /// grains gets these, which are filled from its log.
    ///
    /// # Errors
    /// Those of [`Options::open`] and [`Db::redefine`]: a grain that is named twice, and one of no
    /// buckets, are `Invalid`.
    pub fn build(self) -> Result<EventStore> {
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let named = View::new(View::COUNTERS).by(["event"]);
        let view = if self.grains.is_empty() {
            View::counters()
        } else {
            self.grains.into_iter().fold(named, |view, (grain, keep)| view.grain(grain, keep))
        };
        // An event ahead of the clock is refused, as tiny-counter does.
        let ahead = std::time::Duration::ZERO;
        let mut options = Options::new().clock(clock.clone()).future_skew(ahead);
        if let Some(zone) = self.zone {
            options = options.time_zone(zone);
        }
        let temporary = if self.directory.is_none() {
            Some(tempfile::tempdir().map_err(|error| {
                let message = "there is no room for a temporary directory";
                quipu::Error::of_storage(ErrorKind::Io, message).because(error)
            })?)
        } else {
            None
        };
        let dir = temporary.as_ref().map(|dir| dir.path().join("counters"));
        let db = options.open(self.directory.or(dir).unwrap_or_default())?;
        match db.define(view.clone()) {
            // The directory has other grains: what they hold is read from the log.
            Err(error) if error.kind() == ErrorKind::ViewConflict => {
                db.redefine(view, |_| ControlFlow::Continue(()))?;
            }
            defined => drop(defined?),
        }
        let exported = Mutex::new(Cursor::beginning());
        Ok(EventStore { db, clock, exported, _temporary: temporary })
    }
}

/// Counters of events by their names.
///
/// ```
/// use quipu_peers::adapter::EventStore;
///
/// let store = EventStore::new()?;
/// store.record("app_launch")?;
/// assert_eq!(store.query("app_launch").last_days(7).sum()?, Some(1));
/// # Ok::<(), quipu::Error>(())
/// ```
pub struct EventStore {
    db: Db,
    clock: Arc<dyn Clock>,
    /// What was exported up to here is not dirty to `export_dirty`.
    exported: Mutex<Cursor>,
    /// Declared behind the engine that works in it.
    _temporary: Option<TempDir>,
}

impl EventStore {
    /// A store with the grains of [`View::counters`] in a temporary directory.
    ///
    /// # Errors
    /// Those of [`EventStoreBuilder::build`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Says what is to be counted, and where.
    #[must_use]
    pub fn builder() -> EventStoreBuilder {
        EventStoreBuilder::default()
    }

    /// The engine below.
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// What the clock shows.
    #[must_use]
    pub fn clock_now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.clock.now().micros()).unwrap_or_default()
    }

    /// Records one event now.
    ///
    /// # Errors
    /// Those of [`Db::record`].
    pub fn record(&self, event_id: impl AsRef<str>) -> Result<Recorded> {
        self.db.record(&Event::new(event_id.as_ref()))
    }

    /// Records `count` events now.
    ///
    /// # Errors
    /// Those of [`Db::record`]; `Invalid` for none.
    pub fn record_count(&self, event_id: impl AsRef<str>, count: u64) -> Result<Recorded> {
        self.db.record(&Event::new(event_id.as_ref()).times(count))
    }

    /// Records one event that happened at `time`.
    ///
    /// # Errors
    /// Those of [`Db::record`]; `Invalid`, with nothing recorded, for one that is still to come.
    pub fn record_at(&self, event_id: impl AsRef<str>, time: DateTime<Utc>) -> Result<Recorded> {
        self.record_count_at(event_id, 1, time)
    }

    /// Records `count` events that happened at `time`.
    ///
    /// # Errors
    /// As [`record_at`](Self::record_at) and [`record_count`](Self::record_count).
    pub fn record_count_at(
        &self,
        event_id: impl AsRef<str>,
        count: u64,
        time: DateTime<Utc>,
    ) -> Result<Recorded> {
        let time = Timestamp::from_micros(time.timestamp_micros());
        self.db.record(&Event::new(event_id.as_ref()).times(count).at(time))
    }

    /// Records one event that happened so long ago.
    ///
    /// # Errors
    /// As [`record_at`](Self::record_at).
    pub fn record_ago(&self, event_id: impl AsRef<str>, duration: Duration) -> Result<Recorded> {
        self.record_count_ago(event_id, 1, duration)
    }

    /// Records `count` events that happened so long ago.
    ///
    /// # Errors
    /// As [`record_at`](Self::record_at) and [`record_count`](Self::record_count).
    pub fn record_count_ago(
        &self,
        event_id: impl AsRef<str>,
        count: u64,
        duration: Duration,
    ) -> Result<Recorded> {
        self.record_count_at(event_id, count, self.clock_now() - duration)
    }

    /// Asks about one counter.
    pub fn query(&self, event_id: impl AsRef<str>) -> Query {
        self.query_many(&[event_id])
    }

    /// Asks about several counters taken together.
    pub fn query_many(&self, event_ids: &[impl AsRef<str>]) -> Query {
        Query::new(&self.db, &self.clock, event_ids.iter().map(AsRef::as_ref))
    }

    /// One counter as a multiple of another.
    pub fn query_ratio(
        &self,
        numerator: impl AsRef<str>,
        denominator: impl AsRef<str>,
    ) -> RatioQuery {
        RatioQuery::new(self.query(numerator), self.query(denominator))
    }

    /// One counter less another.
    pub fn query_delta(&self, positive: impl AsRef<str>, negative: impl AsRef<str>) -> DeltaQuery {
        DeltaQuery::new(self.query(positive), self.query(negative))
    }

    /// Records as many of the lesser counter as make the two equal.
    ///
    /// # Errors
    /// Those of asking and of recording.
    pub fn balance_delta(
        &self,
        positive: impl AsRef<str>,
        negative: impl AsRef<str>,
    ) -> Result<()> {
        let (positive, negative) = (positive.as_ref(), negative.as_ref());
        let delta = self.query_delta(positive, negative).ever().sum()?;
        let missing = u64::try_from(delta.unsigned_abs()).unwrap_or(u64::MAX);
        if delta != 0 {
            self.record_count(if delta > 0 { negative } else { positive }, missing)?;
        }
        Ok(())
    }

    /// Whether there is anything that is in the log and not in the snapshot yet.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.db.is_dirty()
    }

    /// Writes the snapshot now.
    ///
    /// # Errors
    /// Those of [`Db::checkpoint`].
    pub fn persist(&self) -> Result<()> {
        self.db.checkpoint()
    }

    /// As [`persist`](Self::persist).
    ///
    /// # Errors
    /// As that.
    pub fn persist_all(&self) -> Result<()> {
        self.persist()
    }

    /// As [`persist`](Self::persist): there is nothing else to be done.
    ///
    /// # Errors
    /// As that.
    pub fn compact(&mut self) -> Result<()> {
        self.persist()
    }

    /// Closes the engine, and says what went wrong while it did.
    ///
    /// # Errors
    /// Those of [`Db::close`].
    pub fn close(self) -> Result<()> {
        self.db.close()
    }

    /// The grains and how many of each are kept.
    ///
    /// # Errors
    /// Those of [`Db::views`].
    pub fn tracked_intervals(&self) -> Result<Vec<(Grain, Keep)>> {
        Ok(self.db.query(View::COUNTERS)?.view().grains().to_vec())
    }

    /// All that is known here, as a bundle for others.
    ///
    /// # Errors
    /// Those of [`Db::export`].
    pub fn export_all(&self) -> Result<Bundle> {
        self.db.export(&Cursor::beginning())
    }

    /// What came since [`reset_dirty`](Self::reset_dirty).
    ///
    /// # Errors
    /// Those of [`Db::export`].
    pub fn export_dirty(&self) -> Result<Bundle> {
        let exported = *self.exported.lock().unwrap_or_else(PoisonError::into_inner);
        self.db.export(&exported)
    }

    /// What came up to now is not in the next [`export_dirty`](Self::export_dirty). It stays dirty until
    /// it is persisted.
    pub fn reset_dirty(&self) {
        let mut exported = self.exported.lock().unwrap_or_else(PoisonError::into_inner);
        *exported = self.db.cursor();
    }

    /// Takes in what others know and this one does not.
    ///
    /// # Errors
    /// Those of [`Db::import`].
    pub fn import_all(&self, bundle: &Bundle) -> Result<ImportOutcome> {
        self.db.import(bundle)
    }

    /// As [`import_all`](Self::import_all).
    ///
    /// # Errors
    /// As that.
    pub fn merge_all(&self, bundle: &Bundle) -> Result<ImportOutcome> {
        self.import_all(bundle)
    }

    /// Takes in what another store knows.
    ///
    /// # Errors
    /// Those of [`Db::export`] and [`Db::import`].
    pub fn merge(&self, other: &Self) -> Result<ImportOutcome> {
        self.import_all(&other.export_all()?)
    }
}
