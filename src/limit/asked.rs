//! What is asked: a constraint of a series, of the calendar, or of the caller; and what it says now.

use super::case::{Case, Sum, When};
use super::verdict::Denial;
use crate::error::{Error, Result};
use crate::policy::{Bound, Constraint, Kind, Window};
use crate::query::{Around, Back, Even, Keyed, Part, Query, SeriesQuery, Summed};
use crate::time::{Schedule, Timestamp};
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How far back a constraint looks.
pub(crate) fn back(constraint: &Constraint) -> Option<Back> {
    match constraint.bound {
        Bound::AtMost(n, window) => Some(back_in(window, n, false)),
        Bound::AtLeast(n, window) => Some(back_in(window, n, true)),
        _ => None,
    }
}

/// How the series are added up of which a constraint allows at most so many, by the definition that their
/// view has; `None` where that is not to be known beforehand, or not enough.
pub(crate) fn evenly(constraint: &Constraint, query: &Query) -> Option<Even> {
    let is_window = matches!(constraint.bound, Bound::AtMost(_, window) if window.is_window());
    let back = back(constraint).filter(|_| is_window)?;
    Even::new(query.view(), query.time_zone(), back)
}

/// What is counted in a window of `n`, and by when it leaves: only what certainly lies in it, or all that
/// may.
fn back_in(window: Window, n: u64, is_certain: bool) -> Back {
    match window.0 {
        Kind::Rolling(length) => Back::Rolling { micros: micros_of(length), is_certain },
        Kind::Last(n, grain) => Back::Buckets { n, grain, is_certain },
        Kind::Gcra(rate, period) => {
            // As long as it takes until all of it has come back.
            let whole = u128::from(n) * micros_of(period) as u128;
            let micros = whole.div_ceil(u128::from(rate)).min(Window::LENGTH_MAX.as_micros());
            Back::Level { micros: (micros as i64).max(1) }
        }
    }
}

/// At most `n` in a window.
fn at_most_in(window: Window, n: u64) -> Sum {
    match window.0 {
        Kind::Gcra(rate, period) => {
            Sum::Level { n, rate, period: micros_of(period), full_at: i64::MIN }
        }
        Kind::Rolling(_) | Kind::Last(..) => Sum::AtMost(n),
    }
}

fn micros_of(length: Duration) -> i64 {
    i64::try_from(length.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX)
}

/// A constraint and whom it asks.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) constraint: Arc<Constraint>,
    pub(crate) whom: Whom,
    /// See [`evenly`].
    pub(crate) even: Option<Even>,
}

/// Whom a constraint asks.
#[derive(Clone)]
pub(crate) enum Whom {
    Series {
        series: SeriesQuery,
        /// What was given back: it does not count.
        refunds: Option<Box<SeriesQuery>>,
    },
    Calendar,
    Caller(Arc<dyn Fn() -> bool + Send + Sync>),
}

/// A constraint as it is asked.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) constraint: &'a Arc<Constraint>,
    /// The series that are asked.
    pub(crate) series: Option<Keyed<'a>>,
    /// Those of what was given back, where that is told.
    pub(crate) refunds: Option<Keyed<'a>>,
    /// See [`evenly`].
    pub(crate) even: Option<&'a Even>,
}

/// What a constraint's series are asked for, and what they say, at some moment.
pub(crate) enum Judged<'a> {
    Counted {
        case: Case,
        around: Around,
    },
    /// Open, or closed.
    Scheduled(&'a Schedule, bool),
    /// It holds, or waiting does not help.
    Said(bool),
}

/// What was recorded and counts against a constraint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used {
    /// How much it is.
    pub(crate) count: u64,
    /// By the latest moment at which it can have happened.
    newest_last: SmallVec<[(i64, u64); 2]>,
    /// What is not among it happened at that moment at the latest.
    others: i64,
}

impl Used {
    /// How many of the newest that are left happened at the same moment at the latest, and that moment.
    pub(crate) fn newest(&self) -> (i64, u64) {
        self.newest_last.last().copied().unwrap_or((self.others, u64::MAX))
    }

    /// Takes so many of those.
    pub(crate) fn take(&mut self, count: u64) {
        if let Some((_, left)) = self.newest_last.last_mut() {
            *left -= count;
            if *left == 0 {
                self.newest_last.pop();
            }
        }
    }
}

/// A constraint "at most" of which nothing is reserved or given back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain {
    pub(crate) limit: u64,
    /// The number that counts.
    pub(crate) used: u64,
    /// The first moment at which it holds.
    pub(crate) holds_from: i64,
    /// When nothing of what counts does any more, and when nothing of that and of what happens now.
    pub(crate) clears: i64,
    pub(crate) fresh_leaves: i64,
}

impl Plain {
    /// At most so many, where these count, by how many more would be too many.
    #[inline]
    pub(crate) fn new(limit: u64, summed: Summed) -> Self {
        let Summed { sum, clears, fits, fresh_leaves, .. } = summed;
        let fresh_leaves = fresh_leaves.max(clears);
        Plain { limit, used: sum, holds_from: fits, clears, fresh_leaves }
    }

    /// Where it is the only constraint of a limit, and does not hold yet.
    #[inline]
    pub(crate) fn denial(&self, constraint: &Arc<Constraint>, now: Timestamp) -> Denial {
        let wait = self.holds_from.saturating_sub(now.micros()).max(0);
        Denial {
            index: 0,
            constraint: constraint.clone(),
            limit: self.limit,
            used: self.used,
            retry_after: Some(Duration::from_micros(wait as u64)),
            is_too_much: false,
        }
    }
}

/// Something that is reserved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserved {
    pub(crate) count: u64,
    /// The first moment at which it is not any more.
    pub(crate) until: i64,
}

impl Asked {
    /// A constraint that can be asked of these series.
    ///
    /// # Errors
    /// `Invalid` for series that mean nothing; `NotKept` where the view's buckets do not reach back.
    pub(crate) fn of_series(
        constraint: Constraint,
        series: SeriesQuery,
        refunds: Option<SeriesQuery>,
        now: Timestamp,
    ) -> Result<Self> {
        constraint.check()?;
        if constraint.is_of_calendar() || constraint.is_said() {
            return Err(Error::invalid(format!(
                "{:?} is asked of no series",
                constraint.to_string()
            )));
        }
        let refunds = refunds.map(Box::new);
        for series in refunds.as_deref().into_iter().chain([&series]) {
            if series.keyed().is_none() {
                return Err(Error::invalid(
                    "a limit is of keys that are given whole, not of all that begin alike: what happens \
                     under another key could not be held back",
                ));
            }
            if series.is_of_a_moment() {
                return Err(Error::invalid(
                    "a limit is of now: give it the series itself, not one that is asked as of a moment",
                ));
            }
        }
        if let Some(back) = back(&constraint) {
            series.query().check_back(back, now)?;
        }
        if let Some(refunds) = &refunds {
            Asked::check_refunds(&constraint, series.query(), refunds.query())?;
        }
        let even = evenly(&constraint, series.query());
        let whom = Whom::Series { series, refunds };
        Ok(Asked { constraint: Arc::new(constraint), whom, even })
    }

    /// Checks that what is given back can be told by the view `refunds`, where `view` has what is used.
    ///
    /// # Errors
    /// `Invalid`.
    pub(crate) fn check_refunds(
        constraint: &Constraint,
        query: &Query,
        refunds: &Query,
    ) -> Result<()> {
        let (view, refunds) = (query.view(), refunds.view());
        if !constraint.takes_back() {
            return Err(Error::invalid(format!(
                "{:?} is not about how much may happen: nothing is given back to it",
                constraint.to_string()
            )));
        }
        if refunds.grains() != view.grains() {
            return Err(Error::invalid(format!(
                "the view {:?} of what is given back keeps other buckets than the view {:?} of what was \
                 used: {} and {}",
                refunds.name(),
                view.name(),
                refunds.kept(),
                view.kept()
            )));
        }
        Ok(())
    }

    /// How it is asked.
    #[inline]
    pub(crate) fn question(&self) -> Question<'_> {
        let (constraint, even) = (&self.constraint, self.even.as_ref());
        match &self.whom {
            Whom::Series { series, refunds } => Question {
                constraint,
                series: series.keyed(),
                refunds: refunds.as_ref().and_then(|refunds| refunds.keyed()),
                even,
            },
            Whom::Calendar | Whom::Caller(_) => {
                Question { constraint, series: None, refunds: None, even }
            }
        }
    }
}

impl<'a> Question<'a> {
    /// Whether it holds for an event of this cost, found out in less time than [`judge`](Question::judge)
    /// takes. `None`: it has to be judged.
    #[inline]
    pub(crate) fn judge_plainly(self, cost: u64, now: Timestamp) -> Result<Option<Plain>> {
        let (Bound::AtMost(n, window), Some(series), None) =
            (&self.constraint.bound, self.series, self.refunds)
        else {
            return Ok(None);
        };
        let Some(most) = n.checked_sub(cost) else { return Ok(None) };
        if !window.is_window() || !series.is_of_one() {
            return Ok(None);
        }
        if let Some(even) = self.even.filter(|_| series.at_hand().is_some())
            && let Some(summed) = series.sum_evenly(even, now, most)?
        {
            return Ok(Some(Plain::new(*n, summed)));
        }
        let summed = series.sum_back(back_in(*window, *n, false), now, most)?;
        let is_whole = |summed: &Summed| summed.whole_from <= now.micros();
        Ok(summed.filter(is_whole).map(|summed| Plain::new(*n, summed)))
    }

    /// Reads the series.
    pub(crate) fn judge(
        self,
        cost: u64,
        reserved: &[Reserved],
        now: Timestamp,
    ) -> Result<Judged<'a>> {
        let held = reserved.iter().map(|reserved| Part {
            enters: i64::MIN,
            leaves: reserved.until,
            at: i64::MAX,
            bucket: Part::NO_BUCKET,
            count: reserved.count,
        });
        let (n, window, mut sum) = match &self.constraint.bound {
            Bound::AtMost(n, window) => (*n, window, at_most_in(*window, *n)),
            Bound::AtLeast(n, window) => (*n, window, Sum::AtLeast(*n)),
            Bound::Cooldown(length) => {
                let mut judged = self.judge_last(*length, Sum::AtMost(0))?;
                if let Judged::Counted { case, .. } = &mut judged {
                    case.parts.extend(held);
                }
                return Ok(judged);
            }
            Bound::Within(length) => return self.judge_last(*length, Sum::AtLeast(1)),
            Bound::During(schedule) => return Ok(Judged::Scheduled(schedule, true)),
            Bound::OutsideOf(schedule) => return Ok(Judged::Scheduled(schedule, false)),
            // Who asks has asked the caller before.
            Bound::Said(_) => return Ok(Judged::Said(true)),
        };
        let back = back_in(*window, n, sum == Sum::AtLeast(n));
        let mut parts = SmallVec::new();
        let mut around = Around::NOTHING;
        if let Some(series) = self.series {
            around = series.counted_back(back, now, &mut |part| parts.push(part))?;
            if let Some(refunds) = self.refunds {
                refunds.counted_back(back, now, &mut |part| give_back(&mut parts, part))?;
            }
        }
        if let Sum::Level { full_at, .. } = &mut sum {
            *full_at = around.unknown_before;
        }
        if self.constraint.counts_against() {
            parts.extend(held);
        }
        Ok(Judged::Counted { case: Case { parts, sum, cost }, around })
    }

    /// By the last event alone, whose time is exact.
    fn judge_last(self, length: Duration, sum: Sum) -> Result<Judged<'a>> {
        let last = self.series.map(Keyed::last_span).transpose()?.flatten();
        let length = micros_of(length);
        let part = last.map(|last| {
            // Where it is known roughly, the end of it that is the stricter one. Under "at most" one that is
            // ahead of now counts at once: it may have hidden an earlier one. Else it has yet to happen.
            let is_strict = sum == Sum::AtMost(0);
            let at = if is_strict { last.end() } else { last.start() }.micros();
            let enters = if is_strict { i64::MIN } else { last.end().micros() };
            let leaves = at.saturating_add(length);
            Part { enters, leaves, at, bucket: Part::NO_BUCKET, count: 1 }
        });
        let case = Case { parts: part.into_iter().collect(), sum, cost: 0 };
        Ok(Judged::Counted { case, around: Around::NOTHING })
    }
}

/// Takes what was given back off what was used in the same bucket.
fn give_back(used: &mut SmallVec<[Part; 2]>, refund: Part) {
    let mut left = refund.count;
    // A bucket of several keys is handed on once for each, and the newest one of a key leaves earlier.
    let same = |part: &&mut Part| part.bucket == refund.bucket;
    for part in used.iter_mut().filter(same) {
        let taken = left.min(part.count);
        part.count -= taken;
        left -= taken;
    }
}

impl Judged<'_> {
    /// When it holds next, from `from` on.
    pub(crate) fn earliest(&self, from: i64) -> When {
        let next = match self {
            Judged::Counted { case, around } => {
                let is_at_most = !matches!(case.sum, Sum::AtLeast(_));
                let from = if is_at_most { from.max(around.whole_from) } else { from };
                return case.earliest(from);
            }
            Judged::Said(true) => return When::At(from),
            Judged::Said(false) => return When::Open,
            Judged::Scheduled(schedule, true) => schedule.opens(Timestamp::from_micros(from)),
            Judged::Scheduled(schedule, false) => schedule.closes(Timestamp::from_micros(from)),
        };
        next.map_or(When::Never, |next| When::At(next.micros()))
    }

    pub(crate) fn counted_at(&self, at: i64) -> u64 {
        match self {
            Judged::Counted { case, .. } => case.counted(at),
            Judged::Scheduled(..) | Judged::Said(_) => 0,
        }
    }

    /// What was recorded and counts.
    pub(crate) fn used_at(&self, at: i64) -> Used {
        let Judged::Counted { case, around } = self else { return Used::default() };
        let recorded = Case {
            parts: case.parts.iter().copied().filter(Part::is_recorded).collect(),
            sum: case.sum,
            cost: 0,
        };
        let parts = recorded.parts.iter().filter(|part| part.leaves > at && part.count > 0);
        let mut newest_last: SmallVec<[(i64, u64); 2]> =
            parts.map(|part| (part.at, part.count)).collect();
        newest_last.sort_unstable();
        let there = newest_last.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        Used {
            count: recorded.counted(at).min(there),
            newest_last,
            others: around.begins.saturating_sub(1),
        }
    }

    /// When nothing of it counts any more: of what counts already, and of so many that happen now.
    pub(crate) fn clears(&self, from: i64, recorded: u64) -> i64 {
        match self {
            Judged::Counted { case, around } if recorded > 0 => {
                let (leaves, at, bucket) = (around.fresh_leaves, from, Part::NO_BUCKET);
                let fresh = Part { enters: i64::MIN, leaves, at, bucket, count: recorded };
                let mut case = case.clone();
                case.parts.push(fresh);
                case.clears(from)
            }
            Judged::Counted { case, .. } => case.clears(from),
            Judged::Scheduled(..) | Judged::Said(_) => from,
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.constraint)?;
        match &self.whom {
            Whom::Series { series, .. } => write!(f, " of {}", series.words()),
            Whom::Calendar | Whom::Caller(_) => Ok(()),
        }
    }
}
