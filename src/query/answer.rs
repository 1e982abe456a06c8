//! Answers: rows, buckets, and the components by which rows are ranked.

use crate::aggregate::{Stats, Summary};
use crate::error::{Error, Result};
use crate::series::Cell;
use crate::time::Timestamp;
use serde::Serialize;
use std::cmp::Ordering;
use std::fmt;

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
}

impl Bucket {
    /// The statistics of the query's measure, by default the view's first.
    pub fn summary(&self) -> Option<&Summary> {
        self.stats.first().map(|(_, summary)| summary)
    }
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
        !matches!(self, Component::Count | Component::FirstSeen | Component::LastSeen)
    }

    pub(super) fn of(self, cell: &Cell, stats: Option<&Stats>) -> Option<Value> {
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
