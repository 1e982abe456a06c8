//! Constraints: what a limit asks, of which series.

use super::case::{Case, Part, Sum};
use super::window::{Kind, Window};
use crate::error::{Error, Result};
use crate::query::{Back, SeriesQuery};
use crate::time::Timestamp;
use smallvec::SmallVec;
use std::fmt;
use std::time::Duration;

/// What is asked.
#[derive(Clone)]
pub(crate) enum Bound {
    AtMost(u64, Window),
    AtLeast(u64, Window),
    /// So long ago, or never.
    Cooldown(Duration),
    /// Less than so long ago.
    Within(Duration),
}

/// A question to a series.
#[derive(Clone)]
pub(crate) struct Constraint {
    pub(crate) bound: Bound,
    pub(crate) series: SeriesQuery,
}

/// A constraint at some moment.
pub(crate) struct Judged {
    pub(crate) case: Case,
    /// When what happens now would no longer count.
    pub(crate) fresh_leaves: i64,
}

impl Constraint {
    /// A constraint that can be asked.
    ///
    /// # Errors
    /// `Invalid` for a bound that means nothing; `NotKept` where the view's buckets do not reach back.
    pub(crate) fn new(bound: Bound, series: SeriesQuery, now: Timestamp) -> Result<Self> {
        if !series.is_of_keys() {
            return Err(Error::invalid(
                "a limit is of keys that are given whole, not of all that begin alike: what happens under \
                 another key could not be held back",
            ));
        }
        match &bound {
            Bound::AtMost(0, _) => {
                return Err(Error::invalid(
                    "at most 0 never allows anything; a limit is 1 at least",
                ));
            }
            Bound::AtLeast(0, _) => {
                return Err(Error::invalid("at least 0 always holds; it is 1 at least"));
            }
            Bound::AtMost(_, window) | Bound::AtLeast(_, window) => window.check()?,
            Bound::Cooldown(length) | Bound::Within(length) => {
                // The same bounds as a window's.
                Window::rolling(*length).check()?;
            }
        }
        if let Bound::AtMost(_, window) | Bound::AtLeast(_, window) = &bound {
            series.check_back(window.back(false), now)?;
        }
        Ok(Constraint { bound, series })
    }

    /// Reads the series.
    pub(crate) fn judge(&self, cost: u64, now: Timestamp) -> Result<Judged> {
        let (window, sum) = match &self.bound {
            Bound::AtMost(n, window) => (window, Sum::AtMost(*n)),
            Bound::AtLeast(n, window) => (window, Sum::AtLeast(*n)),
            Bound::Cooldown(length) => return self.judge_last(*length, Sum::AtMost(0)),
            Bound::Within(length) => return self.judge_last(*length, Sum::AtLeast(1)),
        };
        let back = window.back(matches!(sum, Sum::AtLeast(_)));
        let mut parts = SmallVec::new();
        let fresh_leaves = self.series.counted_back(back, now, &mut |span, count| {
            parts.push(Part { enters: span.start, leaves: span.end, count });
        })?;
        Ok(Judged { case: Case { parts, sum, cost }, fresh_leaves })
    }

    /// By the last event alone, whose time is exact.
    fn judge_last(&self, length: Duration, sum: Sum) -> Result<Judged> {
        let last = self.series.last_span()?;
        let length = micros_of(length);
        let part = last.map(|last| {
            // Where it is known roughly, the end of it that is the stricter one.
            let last = if sum == Sum::AtMost(0) { last.end() } else { last.start() };
            let enters = last.micros();
            Part { enters, leaves: enters.saturating_add(length), count: 1 }
        });
        let case = Case { parts: part.into_iter().collect(), sum, cost: 0 };
        Ok(Judged { case, fresh_leaves: i64::MIN })
    }

    /// The number that it allows or wants.
    pub(crate) fn limit(&self) -> u64 {
        match self.bound {
            Bound::AtMost(n, _) | Bound::AtLeast(n, _) => n,
            Bound::Cooldown(_) | Bound::Within(_) => 0,
        }
    }

    pub(crate) fn is_at_most(&self) -> bool {
        matches!(self.bound, Bound::AtMost(..))
    }
}

impl Window {
    /// How it is counted: only what certainly lies in it, or all that may.
    fn back(self, is_certain: bool) -> Back {
        match self.0 {
            Kind::Rolling(length) => Back::Rolling { micros: micros_of(length), is_certain },
            Kind::Last(n, grain) => Back::Buckets { n, grain },
        }
    }
}

fn micros_of(length: Duration) -> i64 {
    i64::try_from(length.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX)
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bound {
            Bound::AtMost(n, window) => write!(f, "at most {n} {window}")?,
            Bound::AtLeast(n, window) => write!(f, "at least {n} {window}")?,
            Bound::Cooldown(length) => write!(f, "none for {length:?}")?,
            Bound::Within(length) => write!(f, "one in the last {length:?}")?,
        }
        write!(f, " of {}", self.series.words())
    }
}
