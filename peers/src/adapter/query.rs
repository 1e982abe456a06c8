//! Questions in tiny-counter's words. Nothing is looked up before the last word of a question.
//!
//! Next: `src/query/range.rs` of Quipu, which answers.

use chrono::Duration;
use quipu::{Clock, Db, Grain, Keep, Result, SeriesQuery, View};
use std::ops::Range;
use std::sync::Arc;

/// One counter, or several taken together.
#[derive(Clone)]
#[must_use = "a question answers nothing until it is asked"]
pub struct Query {
    db: Db,
    clock: Arc<dyn Clock>,
    names: Vec<String>,
}

/// `last_seconds` to `last_years` of a type that has `last`.
macro_rules! last_units {
    ($answer:ty) => {
        last_units! { $answer;
            last_seconds, Second, "seconds";
            last_minutes, Minute, "minutes";
            last_hours, Hour, "hours";
            last_days, Day, "days";
            last_weeks, Week, "ISO weeks";
            last_months, Month, "months";
            last_years, Year, "years";
        }
    };
    ($answer:ty; $($name:ident, $grain:ident, $words:literal;)*) => {$(
        #[doc = concat!("The last `n` ", $words, ", the present one included.")]
        #[allow(clippy::missing_errors_doc, reason = "some give a question, some an answer")]
        pub fn $name(self, n: usize) -> $answer {
            self.last(n, Grain::$grain)
        }
    )*};
}

fn bounded(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A duration as chrono has it; the longest that it has for one that is longer.
fn chrono_of(duration: std::time::Duration) -> Duration {
    Duration::from_std(duration).unwrap_or(Duration::MAX)
}

impl Query {
    pub(super) fn new<'a>(
        db: &Db,
        clock: &Arc<dyn Clock>,
        names: impl Iterator<Item = &'a str>,
    ) -> Self {
        Query { db: db.clone(), clock: clock.clone(), names: names.map(str::to_owned).collect() }
    }

    last_units!(RangeQuery);

    fn last(self, n: usize, grain: Grain) -> RangeQuery {
        self.range(grain, 0..bounded(n))
    }

    fn range(self, grain: Grain, back: Range<u32>) -> RangeQuery {
        RangeQuery { of: self, stretch: Stretch::Back(grain, back) }
    }

    /// All that ever was.
    pub fn ever(self) -> RangeQuery {
        RangeQuery { of: self, stretch: Stretch::Ever }
    }

    /// Days counted back from the present one, which is 0.
    pub fn days(self, range: Range<usize>) -> RangeQuery {
        self.range(Grain::Day, bounded(range.start)..bounded(range.end))
    }

    /// The days from so many back on, as far as they are kept.
    pub fn days_from(self, offset: usize) -> RangeQuery {
        RangeQuery { of: self, stretch: Stretch::From(Grain::Day, bounded(offset)) }
    }

    /// How long ago the last event was.
    ///
    /// # Errors
    /// Those of [`SeriesQuery::last_seen`].
    pub fn last_seen(self) -> Result<Option<Duration>> {
        Ok(self.series()?.last_seen()?.map(|seen| chrono_of(seen.age)))
    }

    /// How long ago the first event was.
    ///
    /// # Errors
    /// Those of [`SeriesQuery::first_seen`].
    pub fn first_seen(self) -> Result<Option<Duration>> {
        Ok(self.series()?.first_seen()?.map(|seen| chrono_of(seen.age)))
    }

    /// How long before the present bucket the oldest one begins that is kept and has an event.
    ///
    /// # Errors
    /// `NotKept` when there are no such buckets.
    pub fn first_seen_in(self, grain: Grain) -> Result<Option<Duration>> {
        let (zone, now) = (self.db.time_zone(), self.clock.now());
        let range = RangeQuery { of: self, stretch: Stretch::From(grain, 0) };
        let present = zone.start(grain, zone.bucket(grain, now));
        let before =
            |start: quipu::Timestamp| Duration::microseconds(present.micros() - start.micros());
        Ok(range.ask()?.first_active()?.map(|bucket| before(bucket.start)))
    }

    fn series(&self) -> Result<SeriesQuery> {
        let keys = self.names.iter().map(|name| [name.as_str()]);
        self.db.query(View::COUNTERS)?.series_of(keys)
    }

    /// How many buckets of a grain are kept; of one that is not, none are.
    fn kept(&self, grain: Grain) -> Result<u32> {
        let query = self.db.query(View::COUNTERS)?;
        let keep = query.view().grains().iter().find(|(kept, _)| *kept == grain);
        Ok(match keep {
            Some((_, Keep::Last(n))) => *n,
            Some((_, Keep::All)) => u32::MAX,
            None => 0,
        })
    }
}

#[derive(Clone)]
enum Stretch {
    Ever,
    Back(Grain, Range<u32>),
    /// From so many back on, as far as is kept.
    From(Grain, u32),
}

/// A range of buckets.
#[derive(Clone)]
#[must_use = "a question answers nothing until it is asked"]
pub struct RangeQuery {
    of: Query,
    stretch: Stretch,
}

impl RangeQuery {
    /// `n` buckets, from the most recent of the range on.
    pub fn take(mut self, n: usize) -> Self {
        let (grain, start) = match self.stretch {
            Stretch::Ever => return self,
            Stretch::Back(grain, back) => (grain, back.start),
            Stretch::From(grain, start) => (grain, start),
        };
        self.stretch = Stretch::Back(grain, start..start.saturating_add(bounded(n)));
        self
    }

    /// How many events there were.
    ///
    /// # Errors
    /// Those of [`quipu::RangeQuery::sum`].
    pub fn sum(self) -> Result<Option<u64>> {
        self.ask()?.sum()
    }

    /// How many there were in a bucket on average.
    ///
    /// # Errors
    /// Those of [`quipu::RangeQuery::average`].
    pub fn average(self) -> Result<Option<f64>> {
        self.ask()?.average()
    }

    /// How many there were on average in a bucket that has any.
    ///
    /// # Errors
    /// Those of [`quipu::RangeQuery::average_nonzero`].
    pub fn average_nonzero(self) -> Result<Option<f64>> {
        self.ask()?.average_nonzero()
    }

    /// How many buckets have any.
    ///
    /// # Errors
    /// Those of [`quipu::RangeQuery::count_nonzero`].
    pub fn count_nonzero(self) -> Result<Option<usize>> {
        let count = self.ask()?.count_nonzero()?;
        Ok(count.map(|count| usize::try_from(count).unwrap_or(usize::MAX)))
    }

    /// How many buckets back from the present one the last one is that has any.
    ///
    /// # Errors
    /// Those of [`quipu::RangeQuery::last_active`].
    pub fn last_seen(self) -> Result<Option<usize>> {
        self.back(quipu::RangeQuery::last_active)
    }

    /// How many buckets back from the present one the first one is that has any.
    ///
    /// # Errors
    /// Those of [`quipu::RangeQuery::first_active`].
    pub fn first_seen(self) -> Result<Option<usize>> {
        self.back(quipu::RangeQuery::first_active)
    }

    /// The counts of all buckets of the range, the most recent first; none of a counter that nobody
    /// ever recorded.
    ///
    /// # Errors
    /// Those of [`quipu::RangeQuery::buckets`].
    pub fn into_buckets(self) -> Result<Vec<u64>> {
        let buckets = self.ask()?.buckets()?.unwrap_or_default();
        Ok(buckets.iter().rev().map(|bucket| bucket.count).collect())
    }

    fn ask(&self) -> Result<quipu::RangeQuery> {
        let series = self.of.series()?;
        Ok(match &self.stretch {
            Stretch::Ever => series.ever(),
            Stretch::Back(grain, back) => series.range(*grain, back.clone()),
            Stretch::From(grain, start) => series.range(*grain, *start..self.of.kept(*grain)?),
        })
    }

    fn back(
        &self,
        active: impl Fn(&quipu::RangeQuery) -> Result<Option<quipu::Bucket>>,
    ) -> Result<Option<usize>> {
        let (zone, now) = (self.of.db.time_zone(), self.of.clock.now());
        let grain = match self.stretch {
            Stretch::Back(grain, _) | Stretch::From(grain, _) => grain,
            Stretch::Ever => {
                let query = self.of.db.query(View::COUNTERS)?;
                query.view().grains().last().map_or(Grain::Year, |(grain, _)| *grain)
            }
        };
        let number = |moment| zone.bucket(grain, moment);
        let found = active(&self.ask()?)?;
        let back = found.map(|bucket| number(now).abs_diff(number(bucket.start)));
        Ok(back.map(|back| usize::try_from(back).unwrap_or(usize::MAX)))
    }
}

/// One counter as a multiple of another. `None` where the second has nothing, and where one of the two
/// was never heard of.
#[derive(Clone)]
#[must_use = "a question answers nothing until it is asked"]
pub struct RatioQuery {
    numerator: Query,
    denominator: Query,
}

impl RatioQuery {
    pub(super) fn new(numerator: Query, denominator: Query) -> Self {
        RatioQuery { numerator, denominator }
    }

    last_units!(Result<Option<f64>>);

    fn last(self, n: usize, grain: Grain) -> Result<Option<f64>> {
        self.over(|query| query.last(n, grain))
    }

    /// Of all that ever was.
    ///
    /// # Errors
    /// Those of [`quipu::RangeQuery::ratio`].
    pub fn ever(self) -> Result<Option<f64>> {
        self.over(Query::ever)
    }

    fn over(self, range: impl FnOnce(Query) -> RangeQuery) -> Result<Option<f64>> {
        let denominator = self.denominator.series()?;
        range(self.numerator).ask()?.ratio(denominator)
    }
}

/// One counter less another.
#[derive(Clone)]
#[must_use = "a question answers nothing until it is asked"]
pub struct DeltaQuery {
    positive: Query,
    negative: Query,
}

impl DeltaQuery {
    pub(super) fn new(positive: Query, negative: Query) -> Self {
        DeltaQuery { positive, negative }
    }

    last_units!(DeltaRangeQuery);

    fn last(self, n: usize, grain: Grain) -> DeltaRangeQuery {
        DeltaRangeQuery { positive: self.positive.last(n, grain), negative: self.negative, n }
    }

    /// Of all that ever was.
    pub fn ever(self) -> DeltaRangeQuery {
        DeltaRangeQuery { positive: self.positive.ever(), negative: self.negative, n: 1 }
    }
}

/// A difference over a range. One that was never heard of counts as 0.
#[derive(Clone)]
#[must_use = "a question answers nothing until it is asked"]
pub struct DeltaRangeQuery {
    positive: RangeQuery,
    negative: Query,
    n: usize,
}

impl DeltaRangeQuery {
    /// The difference.
    ///
    /// # Errors
    /// Those of [`quipu::RangeQuery::minus`].
    pub fn sum(self) -> Result<i128> {
        let negative = self.negative.series()?;
        Ok(self.positive.ask()?.minus(negative)?.unwrap_or(0))
    }

    /// The difference in a bucket on average; of ever, all of it.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    #[allow(clippy::cast_precision_loss, reason = "an average is rounded")]
    pub fn average(self) -> Result<f64> {
        let n = self.n as f64;
        Ok(self.sum()? as f64 / n)
    }
}
