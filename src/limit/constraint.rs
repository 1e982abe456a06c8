//! Constraints: what a limit asks, of which series.

use super::case::{Case, Part, Sum, When};
use super::window::{Kind, Window};
use crate::error::{Error, Result};
use crate::query::{Around, Back, SeriesQuery};
use crate::time::{Schedule, Timestamp};
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;
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
    /// Only while it is open.
    During(Arc<Schedule>),
    /// Only while it is closed.
    OutsideOf(Arc<Schedule>),
}

/// A question to a series, or to the calendar alone.
#[derive(Clone)]
pub(crate) struct Constraint {
    bound: Bound,
    series: Option<SeriesQuery>,
}

/// A constraint at some moment.
pub(crate) enum Judged<'a> {
    Counted {
        case: Case,
        around: Around,
    },
    /// Open, or closed.
    Scheduled(&'a Schedule, bool),
}

impl Constraint {
    /// A constraint that can be asked.
    ///
    /// # Errors
    /// `Invalid` for a bound that means nothing; `NotKept` where the view's buckets do not reach back.
    pub(crate) fn counted(bound: Bound, series: SeriesQuery, now: Timestamp) -> Result<Self> {
        if !series.is_of_keys() {
            return Err(Error::invalid(
                "a limit is of keys that are given whole, not of all that begin alike: what happens under \
                 another key could not be held back",
            ));
        }
        if series.is_of_a_moment() {
            return Err(Error::invalid(
                "a limit is of now: give it the series itself, not one that is asked as of a moment",
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
            Bound::During(_) | Bound::OutsideOf(_) => {}
        }
        if let Bound::AtMost(_, window) | Bound::AtLeast(_, window) = &bound {
            series.check_back(window.back(false), now)?;
        }
        Ok(Constraint { bound, series: Some(series) })
    }

    /// A constraint that is asked of the calendar.
    pub(crate) fn scheduled(bound: Bound) -> Self {
        Constraint { bound, series: None }
    }

    /// The series that is asked.
    pub(crate) fn series(&self) -> Option<&SeriesQuery> {
        self.series.as_ref()
    }

    /// Reads the series.
    pub(crate) fn judge(&self, cost: u64, now: Timestamp) -> Result<Judged<'_>> {
        let (window, sum) = match &self.bound {
            Bound::AtMost(n, window) => (window, Sum::AtMost(*n)),
            Bound::AtLeast(n, window) => (window, Sum::AtLeast(*n)),
            Bound::Cooldown(length) => return self.judge_last(*length, Sum::AtMost(0)),
            Bound::Within(length) => return self.judge_last(*length, Sum::AtLeast(1)),
            Bound::During(schedule) => return Ok(Judged::Scheduled(schedule, true)),
            Bound::OutsideOf(schedule) => return Ok(Judged::Scheduled(schedule, false)),
        };
        let back = window.back(matches!(sum, Sum::AtLeast(_)));
        let mut parts = SmallVec::new();
        let mut around = NOTHING;
        if let Some(series) = &self.series {
            around = series.counted_back(back, now, &mut |span, count| {
                parts.push(Part { enters: span.start, leaves: span.end, count });
            })?;
        }
        Ok(Judged::Counted { case: Case { parts, sum, cost }, around })
    }

    /// By the last event alone, whose time is exact.
    fn judge_last(&self, length: Duration, sum: Sum) -> Result<Judged<'_>> {
        let last = self.series.as_ref().map(SeriesQuery::last_span).transpose()?.flatten();
        let length = micros_of(length);
        let part = last.map(|last| {
            // Where it is known roughly, the end of it that is the stricter one. One that is ahead of now
            // counts at once: it may have hidden an earlier one.
            let last = if sum == Sum::AtMost(0) { last.end() } else { last.start() };
            Part { enters: i64::MIN, leaves: last.micros().saturating_add(length), count: 1 }
        });
        let case = Case { parts: part.into_iter().collect(), sum, cost: 0 };
        Ok(Judged::Counted { case, around: NOTHING })
    }

    /// The number that it allows or wants.
    pub(crate) fn limit(&self) -> u64 {
        match self.bound {
            Bound::AtMost(n, _) | Bound::AtLeast(n, _) => n,
            _ => 0,
        }
    }

    pub(crate) fn is_at_most(&self) -> bool {
        matches!(self.bound, Bound::AtMost(..))
    }
}

impl Judged<'_> {
    /// When it holds next, from `from` on.
    pub(crate) fn earliest(&self, from: i64) -> When {
        let next = match self {
            Judged::Counted { case, around } => {
                let is_at_most = matches!(case.sum, Sum::AtMost(_));
                let from = if is_at_most { from.max(around.whole_from) } else { from };
                return case.earliest(from);
            }
            Judged::Scheduled(schedule, true) => schedule.opens(Timestamp::from_micros(from)),
            Judged::Scheduled(schedule, false) => schedule.closes(Timestamp::from_micros(from)),
        };
        next.map_or(When::Never, |next| When::At(next.micros()))
    }

    pub(crate) fn counted_at(&self, at: i64) -> u64 {
        match self {
            Judged::Counted { case, .. } => case.counted(at),
            Judged::Scheduled(..) => 0,
        }
    }

    /// When nothing of it counts any more: of what counts already, and of what happens now.
    pub(crate) fn clears(&self, from: i64, with_now: bool) -> i64 {
        match self {
            Judged::Counted { case, around } => {
                let fresh = if with_now { around.fresh_leaves } else { from };
                case.clears(from).max(fresh)
            }
            Judged::Scheduled(..) => from,
        }
    }
}

impl Window {
    /// How it is counted: only what certainly lies in it, or all that may.
    fn back(self, is_certain: bool) -> Back {
        match self.0 {
            Kind::Rolling(length) => Back::Rolling { micros: micros_of(length), is_certain },
            Kind::Last(n, grain) => Back::Buckets { n, grain, is_certain },
        }
    }
}

/// Of a constraint that counts no buckets.
const NOTHING: Around = Around { fresh_leaves: i64::MIN, whole_from: i64::MIN };

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
            Bound::During(schedule) => write!(f, "only {schedule}")?,
            Bound::OutsideOf(schedule) => write!(f, "not {schedule}")?,
        }
        self.series.as_ref().map_or(Ok(()), |series| write!(f, " of {}", series.words()))
    }
}
