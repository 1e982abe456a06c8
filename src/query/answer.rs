//! Answers: rows, buckets, ranges, and the components by which rows are ranked.

use super::Query;
use crate::aggregate::{Sketches, Stats, Summary};
use crate::error::{Error, Result};
use crate::series::{CellRef, Sum};
use crate::time::Timestamp;
use serde::Serialize;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// One key of a view, and what the view knows of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The key's parts, in the order of the view's key.
    pub key: Vec<String>,
    /// The number of events.
    pub count: u64,
    /// The time of the earliest event; [`Timestamp::MAX`] in an answer that counts none.
    pub first_seen: Timestamp,
    /// The time of the latest event; [`Timestamp::MIN`] in an answer that counts none.
    pub last_seen: Timestamp,
    /// Statistics by measure; the query's measure first.
    pub stats: Vec<(String, Summary)>,
    /// Distinct counts, heavy hitters, quantiles and other sketches, where the view keeps such.
    #[serde(skip_serializing_if = "Sketches::is_empty")]
    pub sketches: Sketches,
}

impl Row {
    /// The statistics of the query's measure, by default the view's first.
    pub fn summary(&self) -> Option<&Summary> {
        self.stats.first().map(|(_, summary)| summary)
    }

    /// The statistics of a measure.
    pub fn stats(&self, measure: &str) -> Option<&Summary> {
        self.stats.iter().find(|(name, _)| name == measure).map(|(_, summary)| summary)
    }
}

/// A bucket of a key: the events with `start <= time < end`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bucket {
    /// The bucket's first moment.
    pub start: Timestamp,
    /// The first moment behind it.
    pub end: Timestamp,
    /// The number of events.
    pub count: u64,
    /// Statistics by measure; the query's measure first.
    pub stats: Vec<(String, Summary)>,
    /// Distinct counts, heavy hitters, quantiles and other sketches, where the view keeps such.
    #[serde(skip_serializing_if = "Sketches::is_empty")]
    pub sketches: Sketches,
}

impl Bucket {
    /// The statistics of the query's measure, by default the view's first.
    pub fn summary(&self) -> Option<&Summary> {
        self.stats.first().map(|(_, summary)| summary)
    }
}

/// What a range of a series amounts to: the events with `start <= time < end`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Total {
    /// The first moment of the range that was asked for.
    pub start: Timestamp,
    /// The first moment behind it: that of its last bucket, which can still be to come.
    pub end: Timestamp,
    /// From when on it is known. Later than the start only in an answer of what is
    /// [kept](crate::RangeQuery::kept); events before it are not in the numbers.
    pub known_from: Timestamp,
    /// The number of events.
    pub count: u64,
    /// Statistics by measure; the query's measure first.
    pub stats: Vec<(String, Summary)>,
    /// Distinct counts, heavy hitters, quantiles and other sketches, where the view keeps such.
    #[serde(skip_serializing_if = "Sketches::is_empty")]
    pub sketches: Sketches,
}

impl Total {
    pub(super) fn new(
        query: &Query,
        span: Range<Timestamp>,
        known_from: Timestamp,
        sum: Sum,
    ) -> Self {
        let stats = query.summaries(sum.states.as_ref());
        let sketches = query.sketches(sum.states.into_parts().1);
        Total { start: span.start, end: span.end, known_from, count: sum.count, stats, sketches }
    }

    /// Whether the view no longer has the beginning of the range.
    pub fn is_partial(&self) -> bool {
        self.known_from > self.start
    }

    /// The statistics of the query's measure, by default the view's first.
    pub fn summary(&self) -> Option<&Summary> {
        self.stats.first().map(|(_, summary)| summary)
    }
}

/// How many events lie between two moments, as exactly as buckets tell: those with `start <= time < end`.
///
/// A bucket that lies in the span as a whole counts for certain. Where the span begins or ends inside of
/// a bucket, that one's events are between none and all in it; they are taken to be spread evenly over
/// the part of the bucket in which the series had events.
///
/// The bounds are of when events were recorded to have happened. One whose time is known only roughly
/// ([`Event::at_about`](crate::Event::at_about)) counts at the middle of when it may have been, as one whose time
/// is known does: of nine o'clock, give or take three hours, it is not in the hour before half past ten, and
/// the number for that can be [`exact`](Self::exact).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The first moment of the span that was asked for.
    pub start: Timestamp,
    /// The first moment behind it.
    pub end: Timestamp,
    /// From when on it is known. Later than the start only in an answer of what is
    /// [kept](crate::SpanQuery::kept).
    pub known_from: Timestamp,
    /// There are at least so many.
    pub lower: u64,
    /// There are at most so many.
    pub upper: u64,
    /// The estimate, between the two.
    pub estimate: f64,
}

impl Estimate {
    /// The number of events, where it is known exactly, by the times that they were recorded under.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, TestClock, Timestamp, View};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("error")?.record()?;
    /// let hour = db.counter("error")?.trailing(Duration::from_hours(1)).sum()?.unwrap();
    /// assert_eq!(hour.exact(), Some(1));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn exact(&self) -> Option<u64> {
        (self.lower == self.upper && !self.is_partial()).then_some(self.lower)
    }

    /// Whether the view no longer has the beginning of the span.
    pub fn is_partial(&self) -> bool {
        self.known_from > self.start
    }
}

/// What a span of a series amounts to, as exactly as buckets tell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpanTotal {
    /// How many events there are.
    pub count: Estimate,
    /// Statistics by measure of the events that are in the span for certain; the query's measure first.
    pub inside: Vec<(String, Summary)>,
    /// Of these and of those that may be in it.
    pub touching: Vec<(String, Summary)>,
    /// Sketches of the events that are in the span for certain.
    #[serde(skip_serializing_if = "Sketches::is_empty")]
    pub inside_sketches: Sketches,
    /// Of these and of those that may be in it.
    #[serde(skip_serializing_if = "Sketches::is_empty")]
    pub touching_sketches: Sketches,
}

/// When an event was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The time; of an event whose time is known only roughly, the middle of when it may have been.
    pub time: Timestamp,
    /// By how much it may have been earlier or later: zero where the time is known.
    pub half_width: Duration,
    /// How long ago that was; zero for a time that is still to come, as after the clock was put back.
    pub age: Duration,
}

/// A number of a row by which rows can be ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// The number of events.
    Count,
    /// The number of events that carried the measure.
    CountValue,
    /// The sum of the measure.
    Sum,
    /// Its mean.
    Mean,
    /// Its least value.
    Min,
    /// Its greatest value.
    Max,
    /// The time of the earliest event.
    FirstSeen,
    /// The time of the latest event.
    LastSeen,
}

/// A component's value, in its own type: a count is never made a float to be compared.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Count(u64),
    Number(f64),
    Time(Timestamp),
}

impl Value {
    pub(super) fn total_cmp(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Count(a), Value::Count(b)) => a.cmp(b),
            (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
            (Value::Time(a), Value::Time(b)) => a.cmp(b),
            // One query compares one component, which has one type.
            _ => Ordering::Equal,
        }
    }
}

impl Component {
    /// Every component.
    pub const ALL: [Component; 8] = [
        Component::Count,
        Component::CountValue,
        Component::Sum,
        Component::Mean,
        Component::Min,
        Component::Max,
        Component::FirstSeen,
        Component::LastSeen,
    ];

    /// Its name: `count`, `count_value`, `sum`, `mean`, `min`, `max`, `first_seen`, `last_seen`.
    pub fn name(self) -> &'static str {
        match self {
            Component::Count => "count",
            Component::CountValue => "count_value",
            Component::Sum => "sum",
            Component::Mean => "mean",
            Component::Min => "min",
            Component::Max => "max",
            Component::FirstSeen => "first_seen",
            Component::LastSeen => "last_seen",
        }
    }

    pub(super) fn needs_stats(self) -> bool {
        self != Component::Count && !self.is_time()
    }

    pub(super) fn is_time(self) -> bool {
        matches!(self, Component::FirstSeen | Component::LastSeen)
    }

    /// Its number in a bucket: 0 for the count and the sum of nothing, none for what nothing has not.
    pub(super) fn number(self, count: u64, stats: Option<&Stats>) -> Option<f64> {
        match self {
            Component::Count => Some(count as f64),
            Component::CountValue => stats.map(|stats| stats.measured() as f64),
            Component::Sum => stats.map(Stats::sum),
            Component::Mean => stats.and_then(Stats::mean),
            Component::Min => stats.and_then(Stats::min),
            Component::Max => stats.and_then(Stats::max),
            Component::FirstSeen | Component::LastSeen => None,
        }
    }

    pub(super) fn of(self, cell: CellRef<'_>, stats: Option<&Stats>) -> Option<Value> {
        match self {
            Component::Count => Some(Value::Count(cell.count())),
            Component::FirstSeen => Some(Value::Time(cell.first())),
            Component::LastSeen => Some(Value::Time(cell.last())),
            Component::CountValue => stats.map(|stats| Value::Count(stats.measured())),
            Component::Sum => {
                stats.filter(|s| s.measured() > 0).map(|stats| Value::Number(stats.sum()))
            }
            Component::Mean => stats.and_then(Stats::mean).map(Value::Number),
            Component::Min => stats.and_then(Stats::min).map(Value::Number),
            Component::Max => stats.and_then(Stats::max).map(Value::Number),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Component {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Component::ALL.into_iter().find(|component| component.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Component::ALL.iter().map(|c| c.name()).collect();
            Error::invalid(format!("{text:?} is not a component; there are {}", names.join(", ")))
        })
    }
}
