//! Spans to the moment: counted by the buckets that lie in them, with bounds for those on their edges.
//!
//! Invariants
//! 1. `lower <= truth <= upper`, and the estimate is between them. Events count at the time they were
//!    recorded under, also where that was known only roughly.
//! 2. Nothing was before a series' first event and after its last one: a span is cut to what is between,
//!    and a bucket on its edge is uncertain only if the series goes on behind the edge.
//! 3. The grain is the finest whose buckets reach back to where the cut span begins; a bucket on the
//!    upper edge is counted by finer ones that reach back to its start.
//! 4. As with ranges (`query/window.rs`), the view's definition decides whether it reaches back so far
//!    from now.

use super::answer::{Estimate, SpanTotal};
use super::range::{RangeQuery, Reach, Stretch};
use super::series::SeriesQuery;
use super::window::KeptGrain;
use super::{Depth, Query};
use crate::aggregate::StatesRef;
use crate::error::{Error, ErrorKind, Result};
use crate::series::{SeriesRef, Sum};
use crate::time::{Grain, Timestamp};
use smallvec::SmallVec;
use std::ops::Range;
use std::time::Duration;

/// A span of a [series](SeriesQuery) that begins and ends at any moment:
/// [`trailing`](SeriesQuery::trailing) and [`between`](SeriesQuery::between).
///
/// Its events are counted by the finest grain whose buckets reach back to where it begins. Buckets that
/// it cuts make bounds of the number; there are none if the series begins or ends inside of the span, so
/// the upper edge of a trailing one, which is now, is exact unless events are ahead of now.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{Event, Grain, Keep, Options, TestClock, Timestamp, View};
/// use std::time::Duration;
///
/// let clock = TestClock::at(Timestamp::parse_rfc3339("2024-05-14T10:30:00Z")?);
/// let view = View::new("errors").grain(Grain::Hour, Keep::Last(72));
/// let db = Options::new().clock(clock).view(view).open(dir.path().join("app"))?;
/// for minute in 0..60 {
///     let yesterday = Timestamp::parse_rfc3339(&format!("2024-05-13T10:{minute:02}:00Z"))?;
///     db.record(&Event::new("error").at(yesterday))?;
/// }
/// db.record(&Event::new("error"))?;
///
/// // Half of the hour from ten to eleven is meant; by the hour nobody knows which events that are.
/// let day = db.query("errors")?.series(&[])?.trailing(Duration::from_hours(24)).sum()?.unwrap();
/// assert_eq!((day.lower, day.upper), (1, 61));
/// assert!((day.estimate - 31.0).abs() < 1.0);
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a span answers nothing until it is asked"]
pub struct SpanQuery {
    series: SeriesQuery,
    which: Which,
    reach: Reach,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    Trailing(Duration),
    Between { from: Timestamp, to: Timestamp },
}

/// Moments in microseconds.
type Span = Range<i64>;

/// What some buckets are to a span.
enum Part<'a> {
    /// In it.
    Inside(u64, StatesRef<'a>),
    /// In it with about this share of their events.
    Cut(u64, StatesRef<'a>, f64),
}

/// Counts of a span, of one series after the other.
struct Counted {
    inside: Sum,
    cut: Sum,
    estimate: f64,
    /// From when on every series is known.
    known_from: i64,
}

impl SpanQuery {
    pub(super) fn new(series: SeriesQuery, which: Which) -> Self {
        SpanQuery { series, which, reach: Reach::Whole }
    }

    /// The buckets of a grain that the span touches, whole: of a trailing one those up to the present one,
    /// as of the moment of asking.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Grain, Options, TestClock, Timestamp, View};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::parse_rfc3339("2024-05-14T10:30:00Z")?);
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("error")?.record()?;
    /// let day = db.counter("error")?.trailing(Duration::from_hours(24));
    /// assert_eq!(day.by(Grain::Hour).buckets()?.unwrap().len(), 25);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn by(&self, grain: Grain) -> RangeQuery {
        let stretch = match self.which {
            Which::Between { from, to } => Stretch::Between { from, to },
            Which::Trailing(length) => Stretch::Trailing(length),
        };
        RangeQuery::new(self.series.clone(), stretch).by(grain).reaching(self.reach)
    }

    /// Asks for what is kept of the span: it begins where the view's buckets do, if they do not reach
    /// back so far, and the answer says from when it is known.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{ErrorKind, Grain, Keep, Options, TestClock, Timestamp, View};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let view = View::new("all").grain(Grain::Hour, Keep::Last(72));
    /// let db = Options::new().clock(clock).view(view).open(dir.path().join("app"))?;
    /// db.record(&quipu::Event::new("error"))?;
    /// let year = db.query("all")?.series(&[])?.trailing(Duration::from_hours(365 * 24));
    /// assert_eq!(year.sum().unwrap_err().kind(), ErrorKind::NotKept);
    /// let kept = year.kept().sum()?.unwrap();
    /// assert_eq!((kept.lower, kept.upper, kept.is_partial()), (1, 1, true));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn kept(&self) -> Self {
        SpanQuery { reach: Reach::Kept, ..self.clone() }
    }

    /// The number of events, with its bounds. `None`: no event was ever recorded under the key.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("error")?.record_ago(Duration::from_mins(10))?;
    /// let hour = db.counter("error")?.trailing(Duration::from_hours(1)).sum()?.unwrap();
    /// assert_eq!((hour.lower, hour.estimate, hour.upper), (1, 1.0, 1));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NotKept` when no grain of the view reaches back so far; `Invalid` for a span without a moment in
    /// it; as [`Query::get`].
    pub fn sum(&self) -> Result<Option<Estimate>> {
        self.current(|this| {
            let counted =
                this.count(|sum, count, _| sum.count = sum.count.saturating_add(count))?;
            Ok(counted.map(|(span, counted)| counted.estimate(&span)))
        })
    }

    /// The number of events with its bounds, and the statistics of each measure: of the events that are
    /// in the span for certain, and of all that may be.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Event, Options, TestClock, Timestamp, View};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let revenue = View::new("revenue").stats("value").counter_grains();
    /// let db = Options::new().clock(clock).view(revenue).open(dir.path().join("shop"))?;
    /// db.record(&Event::new("sale").value(2.5))?;
    /// let hour = db.query("revenue")?.series(&[])?.trailing(Duration::from_hours(1)).total()?.unwrap();
    /// assert_eq!(hour.inside[0].1.sum, 2.5);
    /// assert_eq!(hour.inside, hour.touching);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    pub fn total(&self) -> Result<Option<SpanTotal>> {
        self.current(Self::total_now)
    }

    fn total_now(&self) -> Result<Option<SpanTotal>> {
        let query = self.series.query();
        Ok(self.count(Sum::add)?.map(|(span, mut counted)| {
            let count = counted.estimate(&span);
            let answers = |sum: &Sum| {
                let states = sum.states.as_ref();
                (query.summaries(states), query.sketches(states.sketches.iter().cloned()))
            };
            let (inside, inside_sketches) = answers(&counted.inside);
            counted.cut.add(counted.inside.count, counted.inside.states.as_ref());
            let (touching, touching_sketches) = answers(&counted.cut);
            SpanTotal { count, inside, touching, inside_sketches, touching_sketches }
        }))
    }

    /// Asks this span, or the same one by the view's definition of now.
    fn current<R>(&self, ask: impl FnOnce(&Self) -> Result<R>) -> Result<R> {
        self.series.current(|series| ask(&SpanQuery { series: series.clone(), ..*self }))
    }

    /// Which moments are asked for, when it is now.
    fn moments(&self, now: Timestamp) -> Result<Range<Timestamp>> {
        match self.which {
            Which::Between { from, to } => check_order(from, to).map(|()| from..to),
            Which::Trailing(length) => trailing(length, now),
        }
    }

    fn count(&self, add: fn(&mut Sum, u64, StatesRef<'_>)) -> Result<Option<(Span, Counted)>> {
        let query = self.series.query();
        let now = self.series.now();
        let Range { start: from, end: to } = self.moments(now)?;
        let asked = from.micros()..to.micros();
        let grains = kept_grains(query);
        let mut span = asked.clone();
        if matches!(self.which, Which::Trailing(_)) {
            let reaches = |of: &KeptGrain| of.keep.oldest(of.bucket(now));
            if !grains.iter().any(|of| of.bucket(from) >= reaches(of)) {
                let earliest = grains.iter().map(|of| of.start(reaches(of)).micros()).min();
                match earliest {
                    Some(earliest) if !self.reach.is_whole() => span.start = earliest,
                    _ => return Err(too_far(query, from, self.reach)),
                }
            }
        }
        loop {
            let mut counted = Counted {
                inside: query.no_sum(),
                cut: query.no_sum(),
                estimate: 0.0,
                known_from: span.start,
            };
            let any = self.series.each(Depth::Buckets, &mut |series| {
                let reading = Reading { series, grains: &grains };
                let known_from = reading.count(span.clone(), &mut |part| match part {
                    Part::Inside(count, states) => add(&mut counted.inside, count, states),
                    Part::Cut(count, states, share) => {
                        add(&mut counted.cut, count, states);
                        counted.estimate += count as f64 * share;
                    }
                });
                counted.known_from = counted.known_from.max(known_from);
            })?;
            if !any {
                return Ok(None);
            }
            if counted.known_from <= span.start {
                return Ok(Some((asked, counted)));
            }
            if self.reach.is_whole() || counted.known_from >= span.end {
                return Err(too_far(query, from, self.reach));
            }
            // Of what is kept, the part that every key has.
            span.start = counted.known_from;
        }
    }
}

impl Counted {
    fn estimate(&self, asked: &Span) -> Estimate {
        let [start, end, known_from] =
            [asked.start, asked.end, self.known_from].map(Timestamp::from_micros);
        let (lower, upper) = (self.inside.count, self.inside.count.saturating_add(self.cut.count));
        Estimate { start, end, known_from, lower, upper, estimate: lower as f64 + self.estimate }
    }
}

/// One series with its grains, finest first.
struct Reading<'a> {
    series: SeriesRef<'a>,
    grains: &'a [KeptGrain],
}

impl Reading<'_> {
    /// Hands on what lies in the span, and gives the moment from which on that is known. Where it is not
    /// known from the begin, what was handed on does not count.
    fn count(&self, span: Span, see: &mut dyn FnMut(Part<'_>)) -> i64 {
        let total = self.series.total();
        let Some(cut) = self.cut(&span) else { return span.start };
        if cut == (total.first().micros()..behind(total.last())) {
            see(Part::Inside(total.count(), total.states()));
            return span.start;
        }
        if self.by_grains(&cut, self.grains, see) {
            return span.start;
        }
        let starts = self.grains.iter().map(|of| match self.series.newest(of.at) {
            Some(newest) => of.start(of.oldest(self.series, newest)).micros(),
            None => i64::MAX,
        });
        starts.min().unwrap_or(i64::MAX)
    }

    /// The part of a span in which the series had events; `None` where there is none.
    fn cut(&self, span: &Span) -> Option<Span> {
        let total = self.series.total();
        let cut = span.start.max(total.first().micros())..span.end.min(behind(total.last()));
        (!cut.is_empty()).then_some(cut)
    }

    /// Counts a span that is cut already by the finest grain that reaches back to its begin; false if
    /// none does, nothing being handed on.
    fn by_grains(&self, span: &Span, grains: &[KeptGrain], see: &mut dyn FnMut(Part<'_>)) -> bool {
        let moment = Timestamp::from_micros;
        let last = moment(span.end - 1);
        let reaches = |of: &KeptGrain| {
            let newest = self.series.newest(of.at);
            newest.is_some_and(|newest| {
                of.bucket(moment(span.start)) >= of.oldest(self.series, newest)
            })
        };
        let Some(at) = grains.iter().position(reaches) else { return false };
        let of = grains[at];
        let (from, to) = (of.bucket(moment(span.start)), of.bucket(last));
        let lower_edge = of.start(from).micros();
        let upper = of.start(to).micros()..of.start(to.saturating_add(1)).micros();
        // Invariant 2: the span ends at an event's moment where the series does.
        let is_cut_below =
            lower_edge < span.start && self.series.total().first() < moment(span.start);
        let is_cut_above = upper.end > span.end && self.series.total().last() > last;
        let by_finer = |finer: &[KeptGrain], see: &mut dyn FnMut(Part<'_>)| {
            let cut = self.cut(&(upper.start..span.end));
            cut.is_some_and(|cut| self.by_grains(&cut, finer, see))
        };
        for (number, count, states) in self.series.buckets_back(of.at) {
            if number < from {
                break;
            }
            let (below, above) = (is_cut_below && number == from, is_cut_above && number == to);
            match (below, above) {
                _ if number > to => {}
                (false, false) => see(Part::Inside(count, states)),
                (false, true) if by_finer(&grains[..at], see) => {}
                _ => {
                    let bucket = of.start(number).micros()..of.start(number + 1).micros();
                    see(Part::Cut(count, states, self.share(&bucket, span)));
                }
            }
        }
        true
    }

    /// The part of a bucket's possible moments that lies in the span.
    fn share(&self, bucket: &Span, span: &Span) -> f64 {
        let Some(possible) = self.cut(bucket) else { return 0.0 };
        let inside = possible.start.max(span.start)..possible.end.min(span.end);
        let micros = |span: &Span| span.end.saturating_sub(span.start).max(0) as f64;
        micros(&inside) / micros(&possible)
    }
}

/// The grains that a view keeps, finest first.
fn kept_grains(query: &Query) -> SmallVec<[KeptGrain; 6]> {
    (0..query.view().grains().len()).map(|at| KeptGrain::at(query, at)).collect()
}

fn behind(moment: Timestamp) -> i64 {
    moment.micros().saturating_add(1)
}

/// No grain reaches back so far.
#[cold]
fn too_far(query: &Query, from: Timestamp, reach: Reach) -> Error {
    let advice = if reach.is_whole() {
        "Ask for a shorter span, or for what is kept"
    } else {
        "So nothing is kept of the span: ask for one that ends later"
    };
    Error::new(
        ErrorKind::NotKept,
        format!(
            "the view {:?} keeps {}; none of that reaches back to {from}{}. {advice}",
            query.view().name(),
            query.view().kept(),
            query.and_converted(),
        ),
    )
}

/// The last moment before another.
pub(super) fn before(moment: Timestamp) -> Timestamp {
    Timestamp::from_micros(moment.micros().saturating_sub(1))
}

/// Exactly so long, ending now.
pub(super) fn trailing(length: Duration, now: Timestamp) -> Result<Range<Timestamp>> {
    if length.is_zero() {
        return Err(Error::invalid("a trailing span of no length holds nothing"));
    }
    // Never a shorter one than was said.
    let micros = i64::try_from(length.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX);
    let end = now.micros().saturating_add(1);
    Ok(Timestamp::from_micros(end.saturating_sub(micros))..Timestamp::from_micros(end))
}

pub(super) fn check_order(from: Timestamp, to: Timestamp) -> Result<()> {
    if from < to {
        return Ok(());
    }
    Err(Error::invalid(format!("from {from} to {to} is no range: its end is not behind its begin")))
}
