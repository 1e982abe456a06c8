//! Answers: rows, buckets and ranges.
//!
//! Next: `query/component.rs`, of the numbers by which rows are ranked.

use super::Query;
use crate::aggregate::{Sketches, Summary};
use crate::series::Sum;
use crate::time::Timestamp;
use serde::Serialize;
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
