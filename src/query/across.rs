//! Numbers across buckets: one for each bucket of a range, and how they are distributed.

use crate::aggregate::{Aggregate, Stats};
use crate::error::{Error, Result};
use crate::time::Timestamp;
use serde::Serialize;
use std::cmp::Ordering;

/// A number of each bucket of a range ([`RangeQuery::across`](crate::RangeQuery::across)).
///
/// A bucket without events has a count and a sum of 0, and no mean, least or greatest value: such buckets
/// are left out where the numbers are those.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{Component, Options, TestClock, Timestamp, View};
/// use std::time::Duration;
///
/// let clock = TestClock::at(Timestamp::parse_rfc3339("2024-05-14T10:30:00Z")?);
/// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
/// for hours in [1, 1, 1, 3] {
///     db.counter("error")?.record_ago(Duration::from_hours(hours))?;
/// }
/// let hours = db.counter("error")?.last_hours(4).across(Component::Count)?.unwrap();
/// assert_eq!(hours.values(), [1.0, 0.0, 3.0, 0.0]);
/// assert_eq!(hours.average(), Some(1.0));
/// assert_eq!(hours.percentile(50.0)?, Some(0.0));
/// assert_eq!(hours.std_dev(), Some(1.5_f64.sqrt()));
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Across {
    values: Vec<f64>,
    #[serde(skip)]
    stats: Stats,
}

impl Across {
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Self {
        // A sum beyond what an `f64` holds counts as the largest.
        let values: Vec<f64> = values.map(|value| value.clamp(f64::MIN, f64::MAX)).collect();
        let mut stats = Stats::default();
        for value in &values {
            stats.observe(*value, Timestamp::default());
        }
        Across { values, stats }
    }

    /// The numbers, oldest bucket first.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Their mean, computed exactly and rounded once.
    pub fn average(&self) -> Option<f64> {
        self.stats.mean()
    }

    /// The mean of those that are not 0; `None` where all are.
    pub fn average_nonzero(&self) -> Option<f64> {
        let mut active = Stats::default();
        for value in self.values.iter().filter(|value| **value != 0.0) {
            active.observe(*value, Timestamp::default());
        }
        active.mean()
    }

    /// How many are not 0.
    pub fn count_nonzero(&self) -> u64 {
        self.values.iter().filter(|value| **value != 0.0).count() as u64
    }

    /// The least of them.
    pub fn min(&self) -> Option<f64> {
        self.stats.min()
    }

    /// The greatest of them.
    pub fn max(&self) -> Option<f64> {
        self.stats.max()
    }

    /// The one that `percent` of them do not exceed, by nearest rank: of n in order, the
    /// ⌈percent / 100 · n⌉th, and the first for 0.
    ///
    /// # Errors
    /// `Invalid` for a percentage that is not from 0 to 100.
    pub fn percentile(&self, percent: f64) -> Result<Option<f64>> {
        nearest_rank(self.values.clone(), percent, f64::total_cmp)
    }

    /// Their standard deviation, as of a whole population (divided by n).
    pub fn std_dev(&self) -> Option<f64> {
        self.stats.summary().var_pop.map(f64::sqrt)
    }
}

/// The percentile of some values by nearest rank.
pub(super) fn nearest_rank<T>(
    mut values: Vec<T>,
    percent: f64,
    order: fn(&T, &T) -> Ordering,
) -> Result<Option<T>> {
    if !(0.0..=100.0).contains(&percent) {
        return Err(Error::invalid(format!("{percent} is no percentage: those are 0 to 100")));
    }
    if values.is_empty() {
        return Ok(None);
    }
    let n = values.len();
    let rank = ((percent * n as f64 / 100.0).ceil() as usize).clamp(1, n);
    values.select_nth_unstable_by(rank - 1, order);
    Ok(Some(values.swap_remove(rank - 1)))
}
