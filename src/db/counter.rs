//! Counters: a series of the view of that name, asked and recorded to by one name.

use super::{Db, ReadOnlyDb, Recorded};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::query::{Query, SeriesQuery};
use crate::time::Timestamp;
use crate::view::View;
use std::ops::Deref;
use std::time::Duration;

/// A counter: the events of one name. It is asked as the [series](SeriesQuery) that it is.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{Options, View};
///
/// let db = Options::new().view(View::counters()).open(dir.path().join("app"))?;
/// let launches = db.counter("app_launch")?;
/// launches.record()?;
/// assert_eq!(launches.last_days(7).sum()?, Some(1));
/// assert!(launches.last_seen()?.is_some());
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Counter {
    db: Db,
    name: Box<str>,
    series: SeriesQuery,
}

impl Counter {
    /// The name of its events.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Records one event now.
    ///
    /// # Errors
    /// As [`Db::record`].
    pub fn record(&self) -> Result<Recorded> {
        self.db.record(&Event::new(&self.name))
    }

    /// Records one event that happened at `time`. It counts in the buckets that `time` lies in, whenever
    /// it is now.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let at = |text| Timestamp::parse_rfc3339(text);
    /// let clock = TestClock::at(at("2024-05-14T10:30:00Z")?);
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// let launches = db.counter("app_launch")?;
    /// launches.record_at(at("2024-05-14T08:45:00Z")?)?;
    /// let hour = launches.last_hours(24).last_active()?.unwrap();
    /// assert_eq!(hour.start, at("2024-05-14T08:00:00Z")?);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::record`]: one too far in the future is refused.
    pub fn record_at(&self, time: Timestamp) -> Result<Recorded> {
        self.record_count_at(1, time)
    }

    /// Records one event that happened so long ago, by the clock of the store.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// let saves = db.counter("save")?;
    /// saves.record_ago(Duration::from_secs(30))?;
    /// assert_eq!(saves.last_seen()?.unwrap().age, Duration::from_secs(30));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::record`].
    pub fn record_ago(&self, ago: Duration) -> Result<Recorded> {
        self.record_count_ago(1, ago)
    }

    /// Records `n` events now, at once: one record of the log, however many they are.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// let calls = db.counter("api_call")?;
    /// calls.record_count(5)?;
    /// calls.record_count_ago(4_294_967_295, Duration::from_mins(90))?;
    /// assert_eq!(calls.this(quipu::Grain::Hour).sum()?, Some(5));
    /// assert_eq!(calls.last_hours(24).sum()?, Some(4_294_967_300));
    /// assert!(calls.record_count(0).is_err());
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::record`]; `Invalid` for none.
    pub fn record_count(&self, n: u64) -> Result<Recorded> {
        self.db.record(&Event::new(&self.name).times(n))
    }

    /// Records `n` events that happened at `time`: [`Counter::record_count`], [`Counter::record_at`].
    ///
    /// # Errors
    /// As these.
    pub fn record_count_at(&self, n: u64, time: Timestamp) -> Result<Recorded> {
        self.db.record(&Event::new(&self.name).times(n).at(time))
    }

    /// Records `n` events that happened so long ago: [`Counter::record_count`],
    /// [`Counter::record_ago`].
    ///
    /// # Errors
    /// As these.
    pub fn record_count_ago(&self, n: u64, ago: Duration) -> Result<Recorded> {
        self.record_count_at(n, self.db.engine().now().saturating_sub(ago))
    }
}

/// What is asked of it.
impl Deref for Counter {
    type Target = SeriesQuery;

    fn deref(&self) -> &SeriesQuery {
        &self.series
    }
}

impl AsRef<SeriesQuery> for Counter {
    fn as_ref(&self) -> &SeriesQuery {
        self
    }
}

impl Db {
    /// The counter of the events of one name, in the view [`View::counters`], which must be defined. A
    /// name that no event had yet is a counter, too.
    ///
    /// # Errors
    /// `UnknownView` when there is no such view; `ViewConflict` when the view of that name does not
    /// count every event by its name; `Backfilling` while its backfill is not complete.
    pub fn counter(&self, name: &str) -> Result<Counter> {
        let series = series_of(self.query(View::COUNTERS), name)?;
        Ok(Counter { db: self.clone(), name: name.into(), series })
    }
}

impl ReadOnlyDb {
    /// The series of the counter of this name: [`Db::counter`], to be asked only.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, ReadOnlyDb, View};
    ///
    /// let db = Options::new().view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record()?;
    /// let reader = ReadOnlyDb::open(db.directory())?;
    /// assert_eq!(reader.counter("app_launch")?.ever().sum()?, Some(1));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::counter`].
    pub fn counter(&self, name: &str) -> Result<SeriesQuery> {
        series_of(self.query(View::COUNTERS), name)
    }
}

fn series_of(query: Result<Query>, name: &str) -> Result<SeriesQuery> {
    let query = query.map_err(|error| match error.kind() {
        ErrorKind::UnknownView => Error::new(
            ErrorKind::UnknownView,
            "counters are kept in the view \"counters\", which is not defined: define \
             View::counters()",
        ),
        _ => error,
    })?;
    let view = query.view();
    if !view.counts_events() {
        return Err(view.conflict(&View::counters()));
    }
    query.series(&[name])
}
