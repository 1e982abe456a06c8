//! Ranges of whole buckets, and what can be asked of them.
//!
//! Invariants
//! 1. An answer is of all of its range. Where the view does not have that any more it is an error, or,
//!    asked for what is [`kept`](RangeQuery::kept), of a range that begins later, which says so.
//! 2. `None` is "no event was ever recorded under this key", never "none in this range".
//!
//! Next: `query/several.rs`.

use super::across::{Across, nearest_rank};
use super::answer::{Bucket, Total};
use super::component::Component;
use super::not_kept::{pushed_out, too_far};
use super::series::SeriesQuery;
use super::span::{before, check_order, trailing};
use super::window::{KeptGrain, Window};
use super::{Depth, Query};
use crate::aggregate::StatesRef;
use crate::error::{Error, ErrorKind, Result};
use crate::series::{self, SeriesRef, Sum};
use crate::sync::{Mutex, OnceLock};
use crate::time::{Grain, Timestamp};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// A range of whole buckets of a [series](SeriesQuery).
///
/// Its present bucket is in it as it is so far. Numbers across its buckets ([`average`](Self::average),
/// [`min`](Self::min), [`percentile`](Self::percentile), ...) take those without events as 0; a day that
/// the time zone left out is no bucket.
///
/// A range that the view does not keep is refused with [`ErrorKind::NotKept`], whatever the key: asking
/// for the last 365 days of a view that keeps 56 is a mistake on the first day as well. [`kept`](Self::kept)
/// asks for what there is.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{ErrorKind, Options, TestClock, Timestamp, View};
/// use std::time::Duration;
///
/// let clock = TestClock::at(Timestamp::parse_rfc3339("2024-05-14T10:30:00Z")?);
/// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
/// let launches = db.counter("app_launch")?;
/// for days in [0, 0, 1, 1, 1, 5] {
///     launches.record_ago(Duration::from_hours(24 * days))?;
/// }
/// let week = launches.last_days(7);
/// assert_eq!(week.sum()?, Some(6));
/// assert_eq!(week.count_nonzero()?, Some(3));
/// assert_eq!(week.average_nonzero()?, Some(2.0));
/// assert_eq!((week.min()?, week.max()?), (Some(0), Some(3)));
/// assert_eq!(week.last_active()?.unwrap().start.to_string(), "2024-05-14T00:00:00.000Z");
///
/// let year = launches.last_days(365);
/// assert_eq!(year.sum().unwrap_err().kind(), ErrorKind::NotKept);
/// let kept = year.kept().total()?.unwrap();
/// assert_eq!((kept.count, kept.is_partial()), (6, true));
/// assert_eq!(kept.known_from.to_string(), "2024-03-20T00:00:00.000Z"); // 56 days
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a range answers nothing until it is asked"]
pub struct RangeQuery {
    series: SeriesQuery,
    stretch: Stretch,
    /// In buckets of this grain; `None` for the stretch's own.
    by: Option<Grain>,
    /// So many times its length before.
    earlier: u32,
    reach: Reach,
    /// The grain in which it is counted back, in its own view; it is looked up once.
    of: Option<KeptGrain>,
    /// What was merged for it, where it is asked again.
    sliding: Sliding,
}

/// What was merged for a range, if it was asked before. A copy of the range begins anew.
#[derive(Default)]
struct Sliding(OnceLock<Box<Mutex<Asked>>>);

/// Whether a range that holds sketches was asked before, and what was merged for it.
#[derive(Default)]
struct Asked {
    times: u32,
    merged: series::Sliding,
    /// Its states are so large that dozens of them are not worth being kept.
    is_too_large: bool,
}

/// The states that are merged again each time, since several dozens of them would take megabytes.
const KEPT_BYTES_MAX: usize = 20 << 10;

impl Clone for Sliding {
    fn clone(&self) -> Self {
        Sliding::default()
    }
}

impl fmt::Debug for Sliding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// From when to when.
#[derive(Clone, Debug)]
pub(super) enum Stretch {
    /// Buckets counted back from the present one.
    Back { grain: Grain, back: Range<u32> },
    /// From the first event on.
    Ever,
    /// The buckets that these moments lie in.
    Between { from: Timestamp, to: Timestamp },
    /// The buckets that the moments of exactly so long until now lie in.
    Trailing(Duration),
}

/// What to do where a range begins before what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It is refused.
    Whole,
    /// It is refused: two ranges are compared, and a part of one is nothing to compare with.
    Compared,
    /// It begins where that does.
    Kept,
    /// The same, and it begins no further back than with this bucket.
    KeptFrom(i64),
}

impl Reach {
    /// Whether an answer must be of all that was asked for.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Reach::Whole | Reach::Compared)
    }

    /// What to do about a range of buckets that is refused.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Reach::Whole => "Ask for a shorter range or a coarser grain, or for what is kept",
            Reach::Compared => {
                "A trend is of a whole range and of as many buckets before it: ask for that of a shorter \
                 range or of a coarser grain"
            }
            Reach::Kept | Reach::KeptFrom(_) => {
                "So nothing is kept of the range: ask for one that ends later, or for a coarser grain"
            }
        }
    }
}

impl RangeQuery {
    pub(super) fn new(series: SeriesQuery, stretch: Stretch) -> Self {
        let of = match &stretch {
            Stretch::Back { grain, .. } => KeptGrain::of(series.query(), *grain).ok(),
            _ => None,
        };
        RangeQuery {
            series,
            stretch,
            by: None,
            earlier: 0,
            reach: Reach::Whole,
            of,
            sliding: Sliding::default(),
        }
    }

    pub(super) fn reaching(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self.sliding = Sliding::default();
        self
    }

    /// The same range in buckets of another grain: those that it touches, up to the present one where
    /// it is counted back from now.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Grain, Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::parse_rfc3339("2024-05-14T10:30:00Z")?);
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record()?;
    /// let days = db.counter("app_launch")?.this_month().by(Grain::Day).buckets()?.unwrap();
    /// assert_eq!(days.len(), 14);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn by(&self, grain: Grain) -> Self {
        RangeQuery { by: Some(grain), of: None, ..self.clone() }
    }

    /// The range of as many buckets before this one: of the last seven days, the seven before them.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::parse_rfc3339("2024-05-14T10:30:00Z")?);
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record_ago(Duration::from_hours(8 * 24))?;
    /// let week = db.counter("app_launch")?.last_days(7);
    /// assert_eq!((week.sum()?, week.previous().sum()?), (Some(0), Some(1)));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn previous(&self) -> Self {
        let earlier = self.earlier.saturating_add(1);
        RangeQuery { earlier, of: None, ..self.clone() }
    }

    /// Asks for what is kept of the range: it begins where the view's buckets do, if they do not reach
    /// back so far. [`total`](Self::total) says from when it is known; every other answer is of that
    /// part.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record()?;
    /// let year = db.counter("app_launch")?.last_days(365).kept();
    /// assert_eq!(year.buckets()?.unwrap().len(), 56);
    /// assert!(year.total()?.unwrap().is_partial());
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn kept(&self) -> Self {
        self.clone().reaching(Reach::Kept)
    }

    /// The number of events. `None`: no event was ever recorded under the key. One whose time is known only
    /// roughly ([`Event::at_about`](crate::Event::at_about)) counts in the bucket of the time that it was
    /// recorded under.
    ///
    /// One resident key, seven days: 67 to 96 ns where the range is kept (`cargo bench --bench series`), 130 ns
    /// where it is made for the question.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record()?;
    /// assert_eq!(db.counter("app_launch")?.yesterday().sum()?, Some(0));
    /// assert_eq!(db.counter("app_lunch")?.yesterday().sum()?, None);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NotKept` when the view keeps no buckets of the grain or none that reach back so far, and when
    /// events of this key ahead of now have pushed out buckets of the range; `Invalid` for a range
    /// without buckets; as [`Query::get`].
    pub fn sum(&self) -> Result<Option<u64>> {
        self.current(|this| this.sum_as(&this.series, this.now()))
    }

    /// The number of events and the statistics of each measure, merged exactly, with the moments between
    /// which they are.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Event, Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let revenue = View::new("revenue").stats("value").counter_grains();
    /// let db = Options::new().clock(clock).view(revenue).open(dir.path().join("shop"))?;
    /// for value in [0.1, 0.2, 0.3] {
    ///     db.record(&Event::new("sale").value(value))?;
    /// }
    /// let week = db.query("revenue")?.series(&[])?.last_days(7).total()?.unwrap();
    /// let summary = week.summary().unwrap();
    /// assert_eq!((week.count, summary.sum, summary.max), (3, 0.6, Some(0.3)));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    pub fn total(&self) -> Result<Option<Total>> {
        self.current(Self::total_now)
    }

    fn total_now(&self) -> Result<Option<Total>> {
        let query = self.series.query();
        if self.is_ever() {
            let (mut sum, mut life) = (query.no_sum(), None);
            self.series.each(Depth::Totals, &mut |series| {
                let total = series.total();
                sum.add(total.count(), total.states());
                let (first, last) = life.unwrap_or((total.first(), total.last()));
                life = Some((total.first().min(first), total.last().max(last)));
            })?;
            return Ok(life.map(|(first, last)| {
                let end = last.saturating_add(Duration::from_micros(1));
                Total::new(query, first..end, first, sum)
            }));
        }
        let now = self.now();
        let sum = || query.no_sum();
        let read = match self.asked_again() {
            Some(asked) => self.read_series(&self.series, now, sum, |sum, window, series| {
                let (mut asked, span) = (asked.lock(), window.from..=window.to);
                let empty = query.no_sum();
                let again = series.sum_again(window.of.at, &mut asked.merged, span, &empty);
                let bytes = again.as_ref().map_or(0, |(sum, _)| sum.states.as_ref().heap_bytes());
                if bytes > KEPT_BYTES_MAX {
                    *asked = Asked { is_too_large: true, ..Asked::default() };
                }
                again.map(|(again, newest)| {
                    *sum = again;
                    newest
                })
            })?,
            None => self.read(&self.series, now, sum, |sum, _, _, count, states| {
                sum.add(count, states);
            })?,
        };
        Ok(read.map(|Read { window, value }| {
            let known_from = window.of.start(window.from);
            Total::new(query, window.span(), known_from, value)
        }))
    }

    /// What was merged for the range before, where that is worth being kept: of sketches, when it is asked
    /// for the second time, of one key.
    fn asked_again(&self) -> Option<&Mutex<Asked>> {
        if self.series.view().sketched().next().is_none() || !self.series.is_one() {
            return None;
        }
        let asked = self.sliding.0.get_or_init(Box::default);
        let mut times = asked.lock();
        times.times = times.times.saturating_add(1);
        (times.times > 1 && !times.is_too_large).then_some(&**asked)
    }

    /// The buckets, oldest first, those without events included.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record()?;
    /// let hours = db.counter("app_launch")?.last_hours(3).buckets()?.unwrap();
    /// let counts: Vec<u64> = hours.iter().map(|bucket| bucket.count).collect();
    /// assert_eq!(counts, [0, 0, 1]);
    /// assert_eq!(hours[0].end, hours[1].start);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sum`](Self::sum); `Invalid` for more than a million buckets.
    pub fn buckets(&self) -> Result<Option<Vec<Bucket>>> {
        self.current(Self::buckets_now)
    }

    fn buckets_now(&self) -> Result<Option<Vec<Bucket>>> {
        let query = self.series.query();
        let sums = self.by_bucket(&self.series, self.now(), &query.no_sum(), Sum::add)?;
        let bucket = |(span, sum): (Range<Timestamp>, Sum)| {
            query.bucket(span, sum.count, sum.states.as_ref())
        };
        Ok(sums.map(|sums| sums.into_iter().map(bucket).collect()))
    }

    /// The mean number of events in a bucket.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record()?;
    /// assert_eq!(db.counter("app_launch")?.last_hours(4).average()?, Some(0.25));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`buckets`](Self::buckets).
    pub fn average(&self) -> Result<Option<f64>> {
        Ok(self.across(Component::Count)?.and_then(|across| across.average()))
    }

    /// The mean number of events in a bucket that has any; `None` also where none has.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record()?;
    /// assert_eq!(db.counter("app_launch")?.last_hours(4).average_nonzero()?, Some(1.0));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`buckets`](Self::buckets).
    pub fn average_nonzero(&self) -> Result<Option<f64>> {
        Ok(self.across(Component::Count)?.and_then(|across| across.average_nonzero()))
    }

    /// The number of active buckets: those with events in them.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// for day in 0..20 {
    ///     db.counter("app_launch")?.record_ago(Duration::from_hours(24 * day))?;
    /// }
    /// // Has the user launched the app on 15 of the last 28 days?
    /// assert!(db.counter("app_launch")?.last_days(28).count_nonzero()? >= Some(15));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`buckets`](Self::buckets).
    pub fn count_nonzero(&self) -> Result<Option<u64>> {
        let counts = self.counts()?;
        Ok(counts.map(|counts| counts.iter().filter(|count| **count > 0).count() as u64))
    }

    /// The number of events in the bucket that has the fewest; 0 if one has none.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record()?;
    /// assert_eq!(db.counter("app_launch")?.last_hours(4).min()?, Some(0));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`buckets`](Self::buckets).
    pub fn min(&self) -> Result<Option<u64>> {
        Ok(self.counts()?.and_then(|counts| counts.into_iter().min()))
    }

    /// The number of events in the bucket that has the most.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record()?;
    /// assert_eq!(db.counter("app_launch")?.last_hours(4).max()?, Some(1));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`buckets`](Self::buckets).
    pub fn max(&self) -> Result<Option<u64>> {
        Ok(self.counts()?.and_then(|counts| counts.into_iter().max()))
    }

    /// The number of events that `percent` of the buckets do not exceed, by nearest rank: of n buckets in
    /// order of their counts, the ⌈percent / 100 · n⌉th, and the first for 0. It is the count of some
    /// bucket, nothing in between.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record()?;
    /// let hours = db.counter("app_launch")?.last_hours(4);
    /// assert_eq!((hours.percentile(75.0)?, hours.percentile(75.1)?), (Some(0), Some(1)));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid` for a percentage that is not from 0 to 100; as [`buckets`](Self::buckets).
    pub fn percentile(&self, percent: f64) -> Result<Option<u64>> {
        let counts = self.counts()?.unwrap_or_default();
        nearest_rank(counts, percent, u64::cmp)
    }

    /// The standard deviation of the buckets' numbers of events, the buckets being the whole population
    /// (divided by n).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record()?;
    /// assert_eq!(db.counter("app_launch")?.last_hours(2).std_dev()?, Some(0.5));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`buckets`](Self::buckets).
    pub fn std_dev(&self) -> Result<Option<f64>> {
        Ok(self.across(Component::Count)?.and_then(|across| across.std_dev()))
    }

    /// A component of each bucket: how the numbers are distributed.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Component, Event, Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::parse_rfc3339("2024-05-14T10:30:00Z")?);
    /// let revenue = View::new("revenue").stats("value").counter_grains();
    /// let db = Options::new().clock(clock).view(revenue).open(dir.path().join("shop"))?;
    /// for (day, value) in [("13", 2.0), ("14", 5.0), ("14", 5.0)] {
    ///     let time = Timestamp::parse_rfc3339(&format!("2024-05-{day}T08:00:00Z"))?;
    ///     db.record(&Event::new("sale").at(time).value(value))?;
    /// }
    /// let three_days = db.query("revenue")?.series(&[])?.last_days(3);
    /// let by_day = three_days.across(Component::Sum)?.unwrap();
    /// assert_eq!(by_day.values(), [0.0, 2.0, 10.0]);
    /// assert_eq!((by_day.average(), by_day.average_nonzero()), (Some(4.0), Some(6.0)));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid` when the view does not keep what the component is of, and for the times,
    /// which are of whole series; as [`buckets`](Self::buckets).
    pub fn across(&self, component: Component) -> Result<Option<Across>> {
        self.current(|this| this.across_now(component))
    }

    fn across_now(&self, component: Component) -> Result<Option<Across>> {
        let query = self.series.query();
        query.check_component(component)?;
        if component.is_time() {
            return Err(Error::invalid(format!("a bucket has no {component}; a series has")));
        }
        let now = self.now();
        if component == Component::Count {
            let counts = self.by_bucket(&self.series, now, &0, add_count)?;
            return Ok(counts.map(|counts| Across::of(counts.iter().map(|(_, n)| *n as f64))));
        }
        let mut kinds = query.view().kinds();
        if !component.is_of_sketch() {
            kinds.sketches.clear();
        }
        let nothing = Sum::of_nothing(&kinds);
        let sums = self.by_bucket(&self.series, now, &nothing, Sum::add)?;
        let number = |(_, sum): &(_, Sum)| {
            component.number(sum.count, &query.chosen.figures(sum.states.as_ref()))
        };
        Ok(sums.map(|sums| Across::of(sums.iter().filter_map(number))))
    }

    /// The first bucket that has events.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::parse_rfc3339("2024-05-14T10:30:00Z")?);
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record()?;
    /// let hour = db.counter("app_launch")?.last_hours(24).first_active()?.unwrap();
    /// assert_eq!(hour.start.to_string(), "2024-05-14T10:00:00.000Z");
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    pub fn first_active(&self) -> Result<Option<Bucket>> {
        self.current(|this| this.active(|number, found| number < found))
    }

    /// The last bucket that has events.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record()?;
    /// assert_eq!(db.counter("app_launch")?.last_hours(24).last_active()?.unwrap().count, 1);
    /// assert_eq!(db.counter("app_launch")?.yesterday().last_active()?, None);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    pub fn last_active(&self) -> Result<Option<Bucket>> {
        self.current(|this| this.active(|number, found| number > found))
    }

    fn active(&self, is_better: fn(i64, i64) -> bool) -> Result<Option<Bucket>> {
        let query = self.series.query();
        let none = || None::<(i64, Sum)>;
        let read =
            self.read(&self.series, self.now(), none, |found, _, number, count, states| {
                if found.as_ref().is_none_or(|(best, _)| is_better(number, *best)) {
                    *found = Some((number, query.no_sum()));
                }
                if let Some((best, sum)) = found
                    && *best == number
                {
                    sum.add(count, states);
                }
            })?;
        Ok(read.and_then(|Read { window, value }| {
            let (number, sum) = value?;
            let span = window.of.zone.span(window.of.grain, number);
            Some(query.bucket(span, sum.count, sum.states.as_ref()))
        }))
    }

    /// Asks this range, or the same one by the view's definition of now.
    #[inline]
    pub(super) fn current<R>(&self, ask: impl FnOnce(&Self) -> Result<R>) -> Result<R> {
        self.series.current(|series| {
            if std::ptr::eq(series, &raw const self.series) {
                ask(self)
            } else {
                ask(&self.of(series))
            }
        })
    }

    /// This range of another selection.
    fn of(&self, series: &SeriesQuery) -> Self {
        let RangeQuery { stretch, by, earlier, reach, .. } = self.clone();
        let anew = RangeQuery::new(series.clone(), stretch);
        let of = anew.of.filter(|_| by.is_none() && earlier == 0);
        RangeQuery { by, earlier, reach, of, ..anew }
    }

    pub(super) fn series(&self) -> &SeriesQuery {
        &self.series
    }

    pub(super) fn reach(&self) -> Reach {
        self.reach
    }

    fn counts(&self) -> Result<Option<Vec<u64>>> {
        let ask = |this: &Self| this.by_bucket(&this.series, this.now(), &0, add_count);
        Ok(self.current(ask)?.map(|counts| counts.into_iter().map(|(_, count)| count).collect()))
    }

    pub(super) fn is_ever(&self) -> bool {
        matches!(self.stretch, Stretch::Ever) && self.by.is_none() && self.earlier == 0
    }

    /// "Now" for one answer.
    #[inline]
    pub(super) fn now(&self) -> Now {
        let Some(of) = &self.of else { return Now { moment: self.series.now(), bucket: None } };
        let (moment, bucket) = self.series.now_in(of);
        Now { moment, bucket: Some(bucket) }
    }

    /// The number of events of a series in this range.
    #[inline]
    pub(super) fn sum_as(&self, series: &SeriesQuery, now: Now) -> Result<Option<u64>> {
        if self.is_ever() {
            let mut sum = 0;
            let any = series.each(Depth::Totals, &mut |series| {
                sum = add_count_to(sum, series.total().count());
            })?;
            return Ok(any.then_some(sum));
        }
        Ok(self.read_sum(series, now)?.map(|read| read.value))
    }

    /// The same of a range in buckets, with which ones these are.
    #[inline]
    pub(super) fn read_sum(&self, series: &SeriesQuery, now: Now) -> Result<Option<Read<u64>>> {
        self.read(
            series,
            now,
            || 0,
            |sum, _, _, count, _| add_count(sum, count, StatesRef::default()),
        )
    }

    /// What `add` makes of the events of each bucket of a series in this range, oldest first.
    pub(super) fn by_bucket<T: Clone>(
        &self,
        series: &SeriesQuery,
        now: Now,
        empty: &T,
        add: impl Fn(&mut T, u64, StatesRef<'_>),
    ) -> Result<Option<ByBucket<T>>> {
        let read = self.read(series, now, Vec::new, |values, window, number, count, states| {
            window.put(values, number, empty, |value| add(value, count, states));
        })?;
        let Some(Read { window, mut value }) = read else { return Ok(None) };
        let mut take = |at: usize| match value.get_mut(at) {
            Some(value) => std::mem::replace(value, empty.clone()),
            None => empty.clone(),
        };
        Ok(Some(window.buckets()?.map(|(at, span)| (span, take(at))).collect()))
    }

    /// Reads the range's buckets of a series into a value that begins as `start` says. `None`: the
    /// series is not there.
    #[inline]
    fn read<T>(
        &self,
        series: &SeriesQuery,
        now: Now,
        start: impl Fn() -> T,
        see: impl Fn(&mut T, &Window, i64, u64, StatesRef<'_>),
    ) -> Result<Option<Read<T>>> {
        self.read_series(series, now, start, |value, window, series| {
            window.read(series, |number, count, states| see(value, window, number, count, states))
        })
    }

    /// The same, key by key; `see` gives the newest bucket that a series has.
    #[inline]
    pub(super) fn read_series<T>(
        &self,
        series: &SeriesQuery,
        now: Now,
        start: impl Fn() -> T,
        see: impl Fn(&mut T, &Window, SeriesRef<'_>) -> Option<i64>,
    ) -> Result<Option<Read<T>>> {
        let mut window = match self.counted_back(series, now) {
            Some((of, from, to)) => Window::new(*of, from, to),
            None => match self.window(series, now.moment)? {
                Some(window) => window,
                None => return Ok(None),
            },
        };
        if let Reach::KeptFrom(from) = self.reach {
            window.from = window.from.max(from);
        }
        loop {
            let (mut value, mut known_from) = (start(), i64::MIN);
            let any = series.each(Depth::Buckets, &mut |series| {
                let newest = see(&mut value, &window, series);
                known_from = known_from.max(window.known_from(series, newest));
            })?;
            if !any {
                return Ok(None);
            }
            if known_from <= window.from {
                return Ok(Some(Read { window, value }));
            }
            if self.reach.is_whole() || known_from > window.to {
                return Err(pushed_out(series, &window, known_from, self.reach));
            }
            // Of what is kept, the part that every key has.
            window.from = known_from;
        }
    }

    /// The range's first and last bucket where it is counted back in a grain of its own view, and all
    /// kept.
    #[inline]
    fn counted_back(&self, series: &SeriesQuery, now: Now) -> Option<(&KeptGrain, i64, i64)> {
        let Stretch::Back { back, .. } = &self.stretch else { return None };
        let (of, present) = (self.of.as_ref()?, now.bucket?);
        if back.is_empty() || !std::ptr::eq(series, &raw const self.series) {
            return None;
        }
        let (from, to) =
            (of.back(present, u64::from(back.end - 1)), of.back(present, u64::from(back.start)));
        (from >= of.keep.oldest(present)).then_some((of, from, to))
    }

    /// The buckets that are asked for, of which the view keeps those from `from` on. `None`: the series
    /// is not there.
    #[inline(never)]
    fn window(&self, series: &SeriesQuery, now: Timestamp) -> Result<Option<Window>> {
        let query = series.query();
        let of = KeptGrain::of(query, self.grain(query)?)?;
        let present = of.bucket(now);
        let (from, to) = match &self.stretch {
            Stretch::Back { grain, back } => {
                if back.is_empty() {
                    return Err(Error::invalid(format!(
                        "a range of buckets {}..{} back has none",
                        back.start, back.end
                    )));
                }
                // In the grain that is counted back in.
                let outer = KeptGrain { grain: *grain, ..of };
                let outer_present = outer.bucket(now);
                let first = outer.start(outer.back(outer_present, u64::from(back.end - 1)));
                let behind = outer.start(outer.back(outer_present, u64::from(back.start)) + 1);
                (of.bucket(first), of.bucket(before(behind)).min(present))
            }
            Stretch::Ever => {
                if self.earlier > 0 {
                    return Err(Error::invalid("before ever is no time"));
                }
                let Some(life) = series.life()? else { return Ok(None) };
                (of.bucket(*life.first.start()), of.bucket(now.max(*life.last.end())))
            }
            Stretch::Between { from, to } => {
                check_order(*from, *to)?;
                (of.bucket(*from), of.bucket(before(*to)))
            }
            Stretch::Trailing(length) => (of.bucket(trailing(*length, now)?.start), present),
        };
        let mut window = Window::new(of, from, to).earlier(self.earlier)?;
        let oldest = of.keep.oldest(present);
        let from_now = matches!(self.stretch, Stretch::Back { .. } | Stretch::Trailing(_));
        if from_now && window.from < oldest {
            if self.reach.is_whole() || window.to < oldest {
                return Err(too_far(query, &window, present, self.reach));
            }
            window.from = oldest;
        }
        Ok(Some(window))
    }

    /// This range for two series: since ever is since the first event of either.
    pub(super) fn of_both(&self, other: &SeriesQuery, now: Now) -> Result<Option<Self>> {
        if !matches!(self.stretch, Stretch::Ever) {
            return Ok(Some(self.clone()));
        }
        let (own, other) = (self.series.life()?, other.life()?);
        let lives = || own.iter().chain(&other);
        let Some(from) = lives().map(|life| *life.first.start()).min() else { return Ok(None) };
        let last = lives().map(|life| *life.last.end()).fold(now.moment, Timestamp::max);
        let to = last.saturating_add(Duration::from_micros(1));
        let stretch = Stretch::Between { from, to };
        let by = Some(self.grain(self.series.query())?);
        Ok(Some(RangeQuery { stretch, by, ..self.clone() }))
    }

    /// In buckets of which grain.
    fn grain(&self, query: &Query) -> Result<Grain> {
        if let Some(by) = self.by {
            return Ok(by);
        }
        if let Stretch::Back { grain, .. } = self.stretch {
            return Ok(grain);
        }
        let coarsest = query.view().grains().last().map(|(grain, _)| *grain);
        coarsest.ok_or_else(|| {
            let message = format!("the view {:?} keeps no buckets", query.view().name());
            Error::new(ErrorKind::NotKept, message)
        })
    }
}

/// Something of each bucket of a range.
pub(super) type ByBucket<T> = Vec<(Range<Timestamp>, T)>;

/// "Now" for one answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) moment: Timestamp,
    /// The bucket that it is in, where the range is counted back in buckets of its own view.
    bucket: Option<i64>,
}

/// What was read of a range.
pub(super) struct Read<T> {
    /// The buckets that were read.
    pub(super) window: Window,
    pub(super) value: T,
}

fn add_count(sum: &mut u64, count: u64, _: StatesRef<'_>) {
    *sum = add_count_to(*sum, count);
}

fn add_count_to(sum: u64, count: u64) -> u64 {
    sum.saturating_add(count)
}
