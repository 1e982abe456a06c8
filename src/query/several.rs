//! Several series over one range, and one series over two: ratio, difference, balance, trend.
//!
//! Invariants
//! 1. Both are asked as of one moment, one after the other: no two locks are held at once.
//! 2. What is compared is of the same buckets. Where only a part is kept, and asked for, two keys are compared
//!    over the part that both have, and a range is not compared with a part of the one before it.

use super::range::{Now, RangeQuery, Reach, Read};
use super::series::SeriesQuery;
use super::window::Window;
use crate::error::{Error, Result};
use crate::time::Timestamp;
use serde::Serialize;
use std::ops::Range;

/// A bucket of a running balance ([`RangeQuery::balance`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// The bucket's first moment.
    pub start: Timestamp,
    /// The first moment behind it.
    pub end: Timestamp,
    /// The difference in this bucket.
    pub change: i128,
    /// The difference since ever, up to its end.
    pub balance: i128,
}

/// A range against the one before it ([`RangeQuery::trend`]).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trend {
    /// The number of events in the range.
    pub now: u64,
    /// The number of events in as many buckets before it.
    pub before: u64,
    /// `now - before`.
    pub difference: i128,
    /// The difference as a part of what was before: 0.5 for half as many again. `None` where that is 0.
    pub relative: Option<f64>,
}

impl RangeQuery {
    /// The numbers of events of this range and of `other` in it, as of one moment; `None` for one that was
    /// never heard of. Of what is [`kept`](Self::kept) they are of the part that both have.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// for name in ["request", "request", "error"] {
    ///     db.counter(name)?.record()?;
    /// }
    /// let (errors, requests) = (db.counter("error")?, db.counter("request")?);
    /// assert_eq!(errors.last_hours(24).both(requests)?, (Some(1), Some(2)));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sum`](Self::sum), of either.
    pub fn both(&self, other: impl AsRef<SeriesQuery>) -> Result<(Option<u64>, Option<u64>)> {
        let other = other.as_ref();
        self.current(|this| other.current(|other| this.both_now(other)))
    }

    fn both_now(&self, other: &SeriesQuery) -> Result<(Option<u64>, Option<u64>)> {
        let now = self.now();
        if self.is_ever() || self.reach().is_whole() {
            let own = self.sum_as(self.series(), now)?;
            return Ok((own, self.sum_as(other, now)?));
        }
        let Some(mut range) = self.of_both(other, now)? else { return Ok((None, None)) };
        loop {
            let own = range.read_sum(self.series(), now)?;
            let theirs = range.read_sum(other, now)?;
            let begin = |read: &Option<Read<u64>>| read.as_ref().map(|read| read.window.from);
            match begin(&own).zip(begin(&theirs)) {
                // Invariant 2: both again, from where both are known.
                Some((a, b)) if a != b => range = range.reaching(Reach::KeptFrom(a.max(b))),
                _ => return Ok((own.map(|read| read.value), theirs.map(|read| read.value))),
            }
        }
    }

    /// The events of this range as a multiple of `other`'s in it. `None` where `other` has none, and
    /// where one of the two was never heard of.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// for name in ["request", "request", "request", "request", "error"] {
    ///     db.counter(name)?.record()?;
    /// }
    /// let (errors, requests) = (db.counter("error")?, db.counter("request")?);
    /// assert_eq!(errors.last_hours(24).ratio(requests)?, Some(0.25));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sum`](Self::sum), of either.
    pub fn ratio(&self, other: impl AsRef<SeriesQuery>) -> Result<Option<f64>> {
        let (own, other) = self.both(other)?;
        Ok(divided(own, other))
    }

    /// The share of this range's events that led to one of `to`: `to`'s events as a multiple of these.
    /// Events are counted, not those who did them.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// for name in ["visit", "visit", "visit", "visit", "purchase"] {
    ///     db.counter(name)?.record()?;
    /// }
    /// let purchases = db.counter("purchase")?;
    /// assert_eq!(db.counter("visit")?.last_days(7).conversion(purchases)?, Some(0.25));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sum`](Self::sum), of either.
    pub fn conversion(&self, to: impl AsRef<SeriesQuery>) -> Result<Option<f64>> {
        let (own, to) = self.both(to)?;
        Ok(divided(to, own))
    }

    /// The events of this range less those of `other` in it. One that was never heard of counts as 0
    /// beside one that was; `None` where neither was.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// for name in ["open", "open", "close"] {
    ///     db.counter(name)?.record()?;
    /// }
    /// let closed = db.counter("close")?;
    /// assert_eq!(db.counter("open")?.ever().minus(closed)?, Some(1));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sum`](Self::sum), of either.
    pub fn minus(&self, other: impl AsRef<SeriesQuery>) -> Result<Option<i128>> {
        Ok(match self.both(other)? {
            (None, None) => None,
            (own, other) => Some(difference(own.unwrap_or(0), other.unwrap_or(0))),
        })
    }

    /// The running difference by bucket, oldest first: what it changed by, and what it came to, the
    /// events before the range included.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::parse_rfc3339("2024-05-14T10:30:00Z")?);
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// for (name, days) in [("in", 9), ("in", 9), ("in", 2), ("out", 1), ("out", 0)] {
    ///     db.counter(name)?.record_ago(Duration::from_hours(24 * days))?;
    /// }
    /// let stock = db.counter("in")?.last_days(3).balance(db.counter("out")?)?.unwrap();
    /// let balances: Vec<i128> = stock.iter().map(|day| day.balance).collect();
    /// assert_eq!(balances, [3, 2, 1]);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`buckets`](Self::buckets), of either.
    pub fn balance(&self, other: impl AsRef<SeriesQuery>) -> Result<Option<Vec<Balance>>> {
        let other = other.as_ref();
        self.current(|this| other.current(|other| this.balance_now(other)))
    }

    fn balance_now(&self, other: &SeriesQuery) -> Result<Option<Vec<Balance>>> {
        let now = self.now();
        let Some(range) = self.of_both(other, now)? else { return Ok(None) };
        let own = range.course(self.series(), now)?;
        let other = range.course(other, now)?;
        let courses = || own.iter().chain(&other);
        // Of what is kept, the part that both have.
        let Some(window) = courses().map(|course| &course.window).max_by_key(|w| w.from) else {
            return Ok(None);
        };
        if courses().any(|course| course.window.of.zone != window.of.zone) {
            return Err(Error::invalid("a balance is of buckets of one time zone"));
        }
        let at = |course: &Option<Course>, at| course.as_ref().map_or(0, |c| c.count(window, at));
        let before = |course: &Option<Course>| course.as_ref().map_or(0, |c| c.before(window));
        let mut balance = difference(before(&own), before(&other));
        let bucket = |(place, span): (usize, Range<Timestamp>)| {
            let change = difference(at(&own, place), at(&other, place));
            balance += change;
            Balance { start: span.start, end: span.end, change, balance }
        };
        Ok(Some(window.buckets()?.map(bucket).collect()))
    }

    /// This range against as many buckets before it.
    ///
    /// The present bucket is in the range as it is so far, and whole ones are in the range before: to
    /// compare full ones leave it out, as in `days(1..8)`.
    ///
    /// Both are whole: where the one before is not kept there is nothing to compare with, also if what is
    /// [`kept`](Self::kept) was asked for.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::parse_rfc3339("2024-05-14T10:30:00Z")?);
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// for days in [1, 2, 3, 8, 9] {
    ///     db.counter("app_launch")?.record_ago(Duration::from_hours(24 * days))?;
    /// }
    /// let week = db.counter("app_launch")?.days(1..8).trend()?.unwrap();
    /// assert_eq!((week.now, week.before, week.difference), (3, 2, 1));
    /// assert_eq!(week.relative, Some(0.5));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sum`](Self::sum), of either range; `NotKept` also of a range that is asked for as far as it is
    /// kept, where that or the one before it is not kept whole.
    pub fn trend(&self) -> Result<Option<Trend>> {
        self.current(Self::trend_now)
    }

    fn trend_now(&self) -> Result<Option<Trend>> {
        let moment = self.now();
        let whole = self.clone().reaching(Reach::Compared);
        let now = whole.sum_as(self.series(), moment)?;
        let before = whole.previous().sum_as(self.series(), moment)?;
        Ok(now.zip(before).map(|(now, before)| {
            let difference = difference(now, before);
            let relative = (before > 0).then(|| difference as f64 / before as f64);
            Trend { now, before, difference, relative }
        }))
    }

    /// What a series counted before this range and in each bucket of it.
    fn course(&self, series: &SeriesQuery, now: Now) -> Result<Option<Course>> {
        let start = || (0_u64, Vec::<u64>::new());
        let read = self.read_series(series, now, start, |(before, counts), window, series| {
            *before = before.saturating_add(window.before(series));
            window.read(series, |number, count, _| {
                window.put(counts, number, &0, |n| *n = n.saturating_add(count));
            })
        })?;
        let course = |Read { window, value: (before, counts) }| Course { window, before, counts };
        Ok(read.map(course))
    }
}

/// What a series counted before a window and in each of its buckets.
struct Course {
    window: Window,
    before: u64,
    counts: Vec<u64>,
}

impl Course {
    /// How far another window begins behind this one's begin.
    fn skipped(&self, window: &Window) -> usize {
        window.from.saturating_sub(self.window.from).max(0) as usize
    }

    fn count(&self, window: &Window, at: usize) -> u64 {
        self.counts.get(self.skipped(window).saturating_add(at)).copied().unwrap_or(0)
    }

    fn before(&self, window: &Window) -> u64 {
        let between = self.counts.iter().take(self.skipped(window));
        between.fold(self.before, |sum, count| sum.saturating_add(*count))
    }
}

fn difference(a: u64, b: u64) -> i128 {
    i128::from(a) - i128::from(b)
}

fn divided(a: Option<u64>, b: Option<u64>) -> Option<f64> {
    let (a, b) = (a?, b.filter(|b| *b > 0)?);
    Some(a as f64 / b as f64)
}
