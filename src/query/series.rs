//! A series to be asked about time: one key's, or that of several keys taken together.
//!
//! Invariants
//! 1. A selection is a set of keys: a key is in it once. Its answers are those of one series that
//!    had all of its keys' events.
//! 2. "Now" is looked up once for each answer.
//!
//! Next: `query/range.rs` (whole buckets), `query/span.rs` (to the moment).

use super::answer::Seen;
use super::range::{RangeQuery, Stretch};
use super::span::{SpanQuery, Which};
use super::window::KeptGrain;
use super::{AskedKey, Depth, KeyRef, Keyed, Query};
use crate::error::Result;
use crate::series::SeriesRef;
use crate::time::{Grain, TimeZone, Timestamp};
use crate::versions::Versions;
use crate::view::View;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::{ControlFlow, Range, RangeInclusive};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

/// How old a rough moment is at most. A clock's tick is 10 ms.
const ROUGHLY: Duration = Duration::from_millis(20);

/// One key's series in a view, or that of several keys taken together, to be asked about ranges of time.
///
/// It reads nothing before it is asked, can be kept, and asked again and again; each answer is of the
/// moment of asking, by the clock of the store ([`Options::clock`](crate::Options::clock)) and the
/// definition that the view has then, and `None` where no event was ever recorded under any of its keys.
/// Where the view was given another key since, or a counter's takes only some events by now, an answer is
/// refused with [`ErrorKind::ViewConflict`](crate::ErrorKind::ViewConflict). There are two readings of "the
/// last 24 hours":
///
/// * **bucketed** ([`last_hours(24)`](SeriesQuery::last_hours)): the present hour so far and the 23 before
///   it. Exact, and what is drawn as 24 bars; it reaches 23 to 24 hours back.
/// * **trailing** ([`trailing(24 h)`](SeriesQuery::trailing)): exactly 24 hours, ending now. It is as exact
///   as the buckets that reach back so far, and says how exact.
///
/// A range ends with the bucket that it is now; what is recorded under a time that is still to come
/// ([`Options::future_skew`](crate::Options::future_skew)) counts in it if that bucket holds it, and else
/// when its time has come.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{Options, TestClock, Timestamp, View};
/// use std::time::Duration;
///
/// let clock = TestClock::at(Timestamp::parse_rfc3339("2024-05-14T10:30:00Z")?);
/// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
/// let launches = db.counter("app_launch")?;
/// for hours in [0, 1, 30] {
///     launches.record_ago(Duration::from_hours(hours))?;
/// }
/// assert_eq!(launches.last_hours(24).sum()?, Some(2));
/// assert_eq!(launches.last_days(7).count_nonzero()?, Some(2)); // on two of the last seven days
/// assert_eq!(launches.yesterday().sum()?, Some(1));
/// assert_eq!(launches.last_seen()?.unwrap().age, Duration::ZERO);
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a selection answers nothing until it is asked"]
pub struct SeriesQuery {
    query: Query,
    keys: Keys,
    /// Asked as of this moment, not of the clock's.
    at: Option<Timestamp>,
}

#[derive(Clone)]
enum Keys {
    One(AskedKey),
    These(Arc<[AskedKey]>),
    /// All of them whose first parts are these, the last of which is only a beginning.
    Beginning(Arc<[String]>),
}

impl Query {
    /// One key's series, to be asked about ranges of time. Nothing is read yet: the selection can be
    /// kept, and asked again and again.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Event, Options, View};
    ///
    /// let db = Options::new().clock(clock).open(dir.path().join("shop"))?;
    /// db.define(View::new("by_user").by(["user"]).counter_grains())?;
    /// db.record(&Event::new("visit").dim("user", "alice"))?;
    ///
    /// let alice = db.query("by_user")?.series(&["alice"])?;
    /// assert_eq!(alice.last_days(7).sum()?, Some(1));
    /// assert_eq!(db.query("by_user")?.series(&["bob"])?.last_days(7).sum()?, None);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid` when the key has another number of parts than the view's.
    #[inline]
    pub fn series(&self, key: &[&str]) -> Result<SeriesQuery> {
        let query = self.current()?.into_owned();
        query.check_key(key.len())?;
        let key = query.source.key(key);
        Ok(SeriesQuery::new(query, Keys::One(key)))
    }

    /// The series of several keys taken together: answers are of their sum. A key that is given twice
    /// counts once.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Event, Options, View};
    ///
    /// let db = Options::new().clock(clock).open(dir.path().join("shop"))?;
    /// db.define(View::new("by_user").by(["user"]).counter_grains())?;
    /// for user in ["alice", "bob", "bob", "cem"] {
    ///     db.record(&Event::new("visit").dim("user", user))?;
    /// }
    /// let both = db.query("by_user")?.series_of([["alice"], ["bob"]])?;
    /// assert_eq!(both.today().sum()?, Some(3));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid` when a key has another number of parts than the view's.
    pub fn series_of<'k, K: AsRef<[&'k str]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<SeriesQuery> {
        let query = self.current()?.into_owned();
        let mut seen = BTreeSet::new();
        let mut asked = Vec::new();
        for key in keys {
            let key = key.as_ref();
            query.check_key(key.len())?;
            if seen.insert(key.to_vec()) {
                asked.push(query.source.key(key));
            }
        }
        Ok(SeriesQuery::new(query, Keys::These(asked.into())))
    }

    /// The series of all keys that begin so, taken together: their first parts are these, of the last
    /// of which only the beginning is given. Each answer visits all of the view's keys in memory, and
    /// of those in the store the ones that begin so.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Event, Options, View};
    ///
    /// let db = Options::new().clock(clock).open(dir.path().join("app"))?;
    /// db.define(View::counters())?;
    /// for event in ["api:get", "api:put", "api:put", "app_launch"] {
    ///     db.record(&Event::new(event))?;
    /// }
    /// let api = db.query("counters")?.series_starting_with(&["api:"])?;
    /// assert_eq!(api.last_minutes(60).sum()?, Some(3));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// Of keys of two parts, `&["FR", "api:"]` are those of exactly `FR`, and `&["FR", ""]` are all of
    /// `FR`.
    ///
    /// # Errors
    /// `Invalid` when there are more parts than the view's key has.
    pub fn series_starting_with(&self, beginning: &[&str]) -> Result<SeriesQuery> {
        let query = self.current()?.into_owned();
        query.check_prefix(beginning.len())?;
        Ok(SeriesQuery::beginning(query, beginning))
    }

    /// The series of all keys taken together. Each answer visits every key.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Event, Options, View};
    ///
    /// let db = Options::new().clock(clock).open(dir.path().join("app"))?;
    /// db.define(View::counters())?;
    /// db.record(&Event::new("app_launch"))?;
    /// db.record(&Event::new("settings_visit"))?;
    /// assert_eq!(db.query("counters")?.all_series().today().sum()?, Some(2));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn all_series(&self) -> SeriesQuery {
        SeriesQuery::beginning(self.clone(), &[])
    }
}

/// The last so many buckets of one unit.
macro_rules! last_units {
    ($($name:ident, $grain:ident, $words:literal;)*) => {$(
        #[doc = concat!("The present ", $words, " so far and the ones before it, `n` in all.")]
        ///
        /// ```
        /// # let dir = tempfile::tempdir().unwrap();
        /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
        /// use quipu::{Event, Grain, Keep, Options, View};
        ///
        /// let db = Options::new().clock(clock).open(dir.path().join("app"))?;
        #[doc = concat!("let view = View::new(\"v\").grain(Grain::", stringify!($grain), ", Keep::Last(10));")]
        /// db.define(view)?;
        /// db.record(&Event::new("visit"))?;
        /// let visits = db.query("v")?.series(&[])?;
        #[doc = concat!("assert_eq!(visits.", stringify!($name), "(10).sum()?, Some(1));")]
        /// # Ok::<(), quipu::Error>(())
        /// ```
        pub fn $name(&self, n: u32) -> RangeQuery {
            self.last(n, Grain::$grain)
        }
    )*};
}

/// One bucket of one unit.
macro_rules! one_unit {
    ($($name:ident, $grain:ident, $back:literal, $sum:literal, $words:literal;)*) => {$(
        #[doc = concat!($words, ", in the time zone of the store.")]
        ///
        /// ```
        /// # let dir = tempfile::tempdir().unwrap();
        /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
        /// use quipu::{Options, View};
        ///
        /// let db = Options::new().clock(clock).open(dir.path().join("app"))?;
        /// db.define(View::counters())?;
        /// let launches = db.counter("app_launch")?;
        /// launches.record()?;
        #[doc = concat!("assert_eq!(launches.", stringify!($name), "().sum()?, Some(", $sum, "));")]
        /// # Ok::<(), quipu::Error>(())
        /// ```
        pub fn $name(&self) -> RangeQuery {
            self.range(Grain::$grain, $back..$back + 1)
        }
    )*};
}

impl Query {
    /// What answers now, to who has a selection of its keys. Those are of the same engine, and have the same
    /// syms.
    #[cold]
    pub(super) fn renewed_for(&self, has_key: bool) -> Result<Self> {
        let query = self.current()?.into_owned();
        let (before, now) = (self.view(), query.view());
        if has_key && before.key() != now.key() || before.counts_events() && !now.takes_all() {
            return Err(now.redefined(before));
        }
        Ok(query)
    }

    /// The key of these parts, of which there are as many as the view's key has.
    ///
    /// # Errors
    /// `Invalid` when there are not.
    #[inline]
    pub(crate) fn key(&self, parts: &[&str]) -> Result<AskedKey> {
        self.check_key(parts.len())?;
        Ok(self.source.key(parts))
    }

    /// Of its series.
    pub(crate) fn versions(&self) -> &Arc<Versions> {
        self.source.versions()
    }

    /// The series of a key of it.
    pub(crate) fn series_of_key(&self, key: AskedKey) -> SeriesQuery {
        SeriesQuery::new(self.clone(), Keys::One(key))
    }
}

impl SeriesQuery {
    fn beginning(query: Query, beginning: &[&str]) -> Self {
        let beginning = beginning.iter().map(ToString::to_string).collect();
        SeriesQuery::new(query, Keys::Beginning(beginning))
    }

    fn new(query: Query, keys: Keys) -> Self {
        SeriesQuery { query, keys, at: None }
    }

    pub(crate) fn query(&self) -> &Query {
        &self.query
    }

    /// The view's definition, as it was when this was made.
    pub fn view(&self) -> &View {
        self.query().view()
    }

    /// The time zone of the store, whose calendar the buckets follow.
    pub fn time_zone(&self) -> TimeZone {
        self.query().time_zone()
    }

    /// Asks as if it was `moment` now: ranges are counted back from there, and ages are of then. What
    /// was recorded since is not taken away, and what a view has let go since is not brought back: an
    /// answer that needs it is refused.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Event, Grain, Keep, Options, Timestamp, View};
    ///
    /// let db = Options::new().clock(clock).open(dir.path().join("shop"))?;
    /// db.define(View::new("sales").grain(Grain::Day, Keep::All))?;
    /// let noon = Timestamp::parse_rfc3339("2010-12-24T12:00:00Z")?;
    /// db.record(&Event::new("sale").at(noon))?;
    ///
    /// let sales = db.query("sales")?.series(&[])?;
    /// assert_eq!(sales.today().sum()?, Some(0));
    /// assert_eq!(sales.at(noon).today().sum()?, Some(1));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn at(&self, moment: Timestamp) -> Self {
        SeriesQuery { at: Some(moment), ..self.clone() }
    }

    /// The last `n` buckets of a grain: the present one so far and the `n - 1` before it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Event, Grain, Keep, Options, View};
    /// use std::time::Duration;
    ///
    /// let db = Options::new().clock(clock).open(dir.path().join("app"))?;
    /// let quarters = Grain::every(Duration::from_mins(15))?;
    /// db.define(View::new("visits").grain(quarters, Keep::Last(96)))?;
    /// db.record(&Event::new("visit"))?;
    /// assert_eq!(db.query("visits")?.series(&[])?.last(96, quarters).sum()?, Some(1));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn last(&self, n: u32, grain: Grain) -> RangeQuery {
        self.range(grain, 0..n)
    }

    last_units! {
        last_seconds, Second, "second";
        last_minutes, Minute, "minute";
        last_hours, Hour, "hour";
        last_days, Day, "day";
        last_weeks, Week, "ISO week";
        last_months, Month, "calendar month";
        last_years, Year, "calendar year";
    }

    one_unit! {
        today, Day, 0, 1, "The present day so far";
        yesterday, Day, 1, 0, "The day before this one";
        this_week, Week, 0, 1, "The present ISO week so far, from Monday";
        previous_week, Week, 1, 0, "The ISO week before this one";
        this_month, Month, 0, 1, "The present month so far";
        previous_month, Month, 1, 0, "The month before this one";
        this_year, Year, 0, 1, "The present year so far";
        previous_year, Year, 1, 0, "The year before this one";
    }

    /// The present bucket of a grain so far: `this(Grain::Hour)`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Grain, Options, View};
    ///
    /// let db = Options::new().clock(clock).open(dir.path().join("app"))?;
    /// db.define(View::counters())?;
    /// db.counter("app_launch")?.record()?;
    /// assert_eq!(db.counter("app_launch")?.this(Grain::Week).sum()?, Some(1));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn this(&self, grain: Grain) -> RangeQuery {
        self.range(grain, 0..1)
    }

    /// The bucket of a grain before the present one: `previous(Grain::Hour)`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Grain, Options, View};
    ///
    /// let db = Options::new().clock(clock).open(dir.path().join("app"))?;
    /// db.define(View::counters())?;
    /// db.counter("app_launch")?.record()?;
    /// assert_eq!(db.counter("app_launch")?.previous(Grain::Week).sum()?, Some(0));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn previous(&self, grain: Grain) -> RangeQuery {
        self.range(grain, 1..2)
    }

    /// Days counted back from the present one, which is 0: `days(1..8)` are the seven full days before
    /// it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Options, View};
    ///
    /// let db = Options::new().clock(clock).open(dir.path().join("app"))?;
    /// db.define(View::counters())?;
    /// db.counter("app_launch")?.record()?;
    /// assert_eq!(db.counter("app_launch")?.days(0..1).sum()?, Some(1));
    /// assert_eq!(db.counter("app_launch")?.days(1..8).sum()?, Some(0));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn days(&self, back: Range<u32>) -> RangeQuery {
        self.range(Grain::Day, back)
    }

    /// Buckets of a grain counted back from the present one, which is 0. A day that the time zone left
    /// out is no bucket and is not counted.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Grain, Options, View};
    ///
    /// let db = Options::new().clock(clock).open(dir.path().join("app"))?;
    /// db.define(View::counters())?;
    /// db.counter("app_launch")?.record()?;
    /// let earlier_hours = db.counter("app_launch")?.range(Grain::Hour, 1..24);
    /// assert_eq!(earlier_hours.count_nonzero()?, Some(0));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    #[inline]
    pub fn range(&self, grain: Grain, back: Range<u32>) -> RangeQuery {
        RangeQuery::new(self.clone(), Stretch::Back { grain, back })
    }

    /// Everything since the first event. Its [`sum`](RangeQuery::sum) and [`total`](RangeQuery::total)
    /// are the series' totals, whatever buckets are kept.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Options, View};
    ///
    /// let db = Options::new().clock(clock).open(dir.path().join("app"))?;
    /// db.define(View::counters())?;
    /// db.counter("app_launch")?.record()?;
    /// assert_eq!(db.counter("app_launch")?.ever().sum()?, Some(1));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn ever(&self) -> RangeQuery {
        RangeQuery::new(self.clone(), Stretch::Ever)
    }

    /// The events with `from <= time < to`. One whose time is known only roughly
    /// ([`Event::at_about`](crate::Event::at_about)) counts at the time that it was recorded under, for
    /// certain: bounds are of buckets that are cut, not of such times.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Event, Grain, Keep, Options, Timestamp, View};
    ///
    /// let db = Options::new().clock(clock).open(dir.path().join("shop"))?;
    /// db.define(View::new("sales").grain(Grain::Hour, Keep::All))?;
    /// let at = |text| Timestamp::parse_rfc3339(text);
    /// db.record(&Event::new("sale").at(at("2010-12-01T08:26:00Z")?))?;
    ///
    /// let sales = db.query("sales")?.series(&[])?;
    /// let morning = sales.between(at("2010-12-01T06:00:00Z")?, at("2010-12-01T12:00:00Z")?);
    /// assert_eq!(morning.sum()?.unwrap().exact(), Some(1));
    /// assert_eq!(morning.by(Grain::Hour).buckets()?.unwrap().len(), 6);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn between(&self, from: Timestamp, to: Timestamp) -> SpanQuery {
        SpanQuery::new(self.clone(), Which::Between { from, to })
    }

    /// The events of exactly so long, ending now: those with `now - length < time <= now`. One whose time is
    /// known only roughly counts at the time that it was recorded under, as with
    /// [`between`](Self::between).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::parse_rfc3339("2024-05-14T10:30:00Z")?);
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// let errors = db.counter("error")?;
    /// for minutes in [100, 1_420, 1_460] {
    ///     errors.record_ago(Duration::from_mins(minutes))?;
    /// }
    /// // 24 hours back are kept by the hour: of the one from ten to eleven, half is meant.
    /// let day = errors.trailing(Duration::from_hours(24)).sum()?.unwrap();
    /// assert_eq!((day.lower, day.upper), (1, 3));
    /// // Of the last hour there are the minutes.
    /// assert_eq!(errors.trailing(Duration::from_hours(1)).sum()?.unwrap().exact(), Some(0));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn trailing(&self, length: Duration) -> SpanQuery {
        SpanQuery::new(self.clone(), Which::Trailing(length))
    }

    /// When the first event was; exact but for events whose time was known only roughly. `None`: there
    /// was none.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Event, Options, View};
    ///
    /// let db = Options::new().clock(clock).open(dir.path().join("app"))?;
    /// db.define(View::counters())?;
    /// assert_eq!(db.counter("app_launch")?.first_seen()?, None);
    /// db.counter("app_launch")?.record()?;
    /// assert!(db.counter("app_launch")?.first_seen()?.is_some());
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Query::get`].
    pub fn first_seen(&self) -> Result<Option<Seen>> {
        Ok(self.life()?.map(|life| self.seen(&life.first)))
    }

    /// When the last event was; as [`SeriesQuery::first_seen`]. Its age is never above that of the
    /// first one.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let options = Options::new().clock(clock.clone()).view(View::counters());
    /// let db = options.open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record()?;
    /// clock.advance(Duration::from_secs(90));
    /// assert_eq!(db.counter("app_launch")?.last_seen()?.unwrap().age, Duration::from_secs(90));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Query::get`].
    pub fn last_seen(&self) -> Result<Option<Seen>> {
        Ok(self.life()?.map(|life| self.seen(&life.last)))
    }

    /// Whether there was an event less than so long ago; also one with a time that is still to come.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Options, View};
    /// use std::time::Duration;
    ///
    /// let db = Options::new().clock(clock).open(dir.path().join("app"))?;
    /// db.define(View::counters())?;
    /// let saves = db.counter("save")?;
    /// saves.record_ago(Duration::from_secs(4))?;
    /// assert!(saves.seen_within(Duration::from_secs(60))?);
    /// assert!(!saves.seen_within(Duration::from_secs(4))?);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Query::get`].
    pub fn seen_within(&self, length: Duration) -> Result<bool> {
        Ok(self.last_seen()?.is_some_and(|seen| seen.age < length))
    }

    fn seen(&self, span: &RangeInclusive<Timestamp>) -> Seen {
        let (start, end) = (span.start().micros(), span.end().micros());
        let width = end.abs_diff(start);
        let time = Timestamp::from_micros(start.saturating_add_unsigned(width / 2));
        let age = self.now().micros().saturating_sub(time.micros()).max(0);
        Seen {
            time,
            half_width: Duration::from_micros(width.div_ceil(2)),
            age: Duration::from_micros(age as u64),
        }
    }

    /// Asks this selection, or the same one of the view's definition of now.
    #[inline]
    pub(super) fn current<R>(&self, ask: impl FnOnce(&Self) -> Result<R>) -> Result<R> {
        if self.query().source.has_successor() { ask(&self.renewed()?) } else { ask(self) }
    }

    #[cold]
    fn renewed(&self) -> Result<Self> {
        // All keys are all whatever they are of.
        let has_key = !matches!(&self.keys, Keys::Beginning(beginning) if beginning.is_empty());
        Ok(SeriesQuery { query: self.query.renewed_for(has_key)?, ..self.clone() })
    }

    /// Whether it is asked as of a moment that was given.
    pub(crate) fn is_of_a_moment(&self) -> bool {
        self.at.is_some()
    }

    /// Whether it is of the engine of another series' view.
    pub(crate) fn is_of(&self, engine: usize) -> bool {
        self.query.source.engine() == engine
    }

    /// Its series, if its keys are given whole.
    pub(crate) fn keyed(&self) -> Option<Keyed<'_>> {
        let keys = match &self.keys {
            Keys::One(key) => slice::from_ref(key),
            Keys::These(keys) => keys,
            Keys::Beginning(_) => return None,
        };
        Some(Keyed::new(&self.query, keys))
    }

    /// Its keys and its view, for a sentence.
    pub(crate) fn words(&self) -> String {
        let spell = |key: &AskedKey| self.query.source.spell(key).join(", ");
        let view = self.view().name();
        match &self.keys {
            Keys::One(_) if self.view().key().is_empty() => format!("the view {view:?}"),
            Keys::One(key) => format!("{} ({view})", spell(key)),
            Keys::These(keys) => format!("{} keys ({view})", keys.len()),
            Keys::Beginning(parts) => format!("{}* ({view})", parts.join(", ")),
        }
    }

    /// Between when and when the first and the last event were.
    pub(super) fn life(&self) -> Result<Option<Life>> {
        self.current(Self::life_now)
    }

    fn life_now(&self) -> Result<Option<Life>> {
        let mut life: Option<Life> = None;
        self.each(Depth::Totals, &mut |series| {
            let (first, last) = (series.first_span(), series.last_span());
            life = Some(match life.take() {
                None => Life { first, last },
                Some(life) => Life {
                    first: *life.first.start().min(first.start())
                        ..=*life.first.end().min(first.end()),
                    last: *life.last.start().max(last.start())..=*life.last.end().max(last.end()),
                },
            });
        })?;
        Ok(life)
    }

    /// Calls `see` with the series of every key that there is; says whether there is any.
    #[inline]
    pub(super) fn each(&self, depth: Depth, see: &mut dyn FnMut(SeriesRef<'_>)) -> Result<bool> {
        let source = &*self.query().source;
        match &self.keys {
            Keys::One(key) => source.see(key, see),
            Keys::These(keys) => {
                let mut any = false;
                for key in &**keys {
                    any |= source.see(key, see)?;
                }
                Ok(any)
            }
            Keys::Beginning(beginning) => self.each_beginning(beginning, depth, see),
        }
    }

    #[inline(never)]
    fn each_beginning(
        &self,
        beginning: &[String],
        depth: Depth,
        see: &mut dyn FnMut(SeriesRef<'_>),
    ) -> Result<bool> {
        let beginning: Vec<&str> = beginning.iter().map(String::as_str).collect();
        let mut any = false;
        let mut see = |_: KeyRef<'_>, series: SeriesRef<'_>| {
            any = true;
            see(series);
        };
        let on = &mut || ControlFlow::Continue(());
        self.query().source.each(&beginning, depth, &mut see, on)?;
        Ok(any)
    }

    /// Whether it is of one key.
    pub(super) fn is_one(&self) -> bool {
        matches!(self.keys, Keys::One(_))
    }

    /// The present moment.
    pub(super) fn now(&self) -> Timestamp {
        self.at.unwrap_or_else(|| self.query().source.now())
    }

    /// A moment of the same bucket as the present one, and that bucket.
    #[inline]
    pub(super) fn now_in(&self, of: &KeptGrain) -> (Timestamp, i64) {
        if self.at.is_none() {
            let roughly = self.query().source.now_roughly();
            let bucket = of.bucket(roughly);
            if of.bucket(roughly.saturating_add(ROUGHLY)) == bucket {
                return (roughly, bucket);
            }
        }
        let now = self.now();
        (now, of.bucket(now))
    }
}

impl fmt::Debug for SeriesQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spell = |key: &AskedKey| self.query.source.spell(key);
        let (keys, is_whole): (Vec<_>, _) = match &self.keys {
            Keys::One(key) => (vec![spell(key)], true),
            Keys::These(keys) => (keys.iter().map(spell).collect(), true),
            Keys::Beginning(beginning) => (vec![beginning.to_vec()], false),
        };
        let name = if is_whole { "keys" } else { "beginning" };
        let mut debug = f.debug_struct("SeriesQuery");
        debug.field("query", &self.query).field(name, &keys).field("at", &self.at).finish()
    }
}

impl AsRef<SeriesQuery> for SeriesQuery {
    fn as_ref(&self) -> &SeriesQuery {
        self
    }
}

/// Between when and when the first and the last event of a series were.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) first: RangeInclusive<Timestamp>,
    pub(super) last: RangeInclusive<Timestamp>,
}
