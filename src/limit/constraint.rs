//! Constraints: what a limit asks of a series, or of the calendar, or of the caller.

use super::case::{Case, Sum, When};
use super::window::{Window, micros_of};
use crate::error::{Error, Result};
use crate::event::{Limits, abridged};
use crate::query::{Around, Back, Part, SeriesQuery, Summed};
use crate::time::{Schedule, TimeZone, Timestamp};
use crate::view::View;
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A question that has to be answered with yes for something to happen: of a series
/// ([`Limit::on`](crate::Limit::on)), of a view, whatever the key ([`Policy::on`](crate::Policy::on)), or of
/// the calendar. It can have a name, by which answers, statistics and HTTP headers call it.
///
/// ```
/// use quipu::{Constraint, Window};
/// use std::time::Duration;
///
/// let burst = Constraint::at_most(100, Window::rolling(Duration::from_mins(1))).named("burst");
/// assert_eq!(burst.to_string(), "at most 100 in any 60s");
/// assert_eq!(burst.name(), Some("burst"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
pub struct Constraint {
    name: Option<String>,
    pub(super) bound: Bound,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
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
    /// Only while the caller says so; the words are for who is denied.
    Said(String),
}

impl Constraint {
    fn new(bound: Bound) -> Self {
        Constraint { name: None, bound }
    }

    /// Only while the caller says so.
    pub(crate) fn said(words: String) -> Self {
        Constraint::new(Bound::Said(words))
    }

    /// Whether it can be kept.
    pub(crate) fn is_said(&self) -> bool {
        matches!(self.bound, Bound::Said(_))
    }

    /// At most `n` events in a window. One that stands for many ([`Event::times`](crate::Event::times))
    /// counts for as many.
    pub fn at_most(n: u64, window: Window) -> Self {
        Constraint::new(Bound::AtMost(n, window))
    }

    /// Not before there were at least `n` events in a window: what must have happened first.
    pub fn at_least(n: u64, window: Window) -> Self {
        Constraint::new(Bound::AtLeast(n, window))
    }

    /// Not before the last event is so long ago, to the microsecond; none yet is long enough.
    pub fn cooldown(length: Duration) -> Self {
        Constraint::new(Bound::Cooldown(length))
    }

    /// Only while the last event is less than so long ago: what must have happened lately.
    pub fn within(length: Duration) -> Self {
        Constraint::new(Bound::Within(length))
    }

    /// Only while a schedule is open.
    pub fn during(schedule: Schedule) -> Self {
        Constraint::new(Bound::During(Arc::new(schedule)))
    }

    /// Only while a schedule is closed.
    pub fn outside_of(schedule: Schedule) -> Self {
        Constraint::new(Bound::OutsideOf(Arc::new(schedule)))
    }

    /// Gives it a name, of 1 to 255 bytes.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Its name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The number that it allows or wants; 0 where it is about a time.
    pub fn limit(&self) -> u64 {
        match self.bound {
            Bound::AtMost(n, _) | Bound::AtLeast(n, _) => n,
            _ => 0,
        }
    }

    /// The window that it counts in, where it does.
    pub fn window(&self) -> Option<Window> {
        match self.bound {
            Bound::AtMost(_, window) | Bound::AtLeast(_, window) => Some(window),
            _ => None,
        }
    }

    /// Whether it bounds how much may happen, and so has something left or not.
    pub fn is_at_most(&self) -> bool {
        matches!(self.bound, Bound::AtMost(..))
    }

    /// Whether it is of the calendar, and no series is asked.
    pub(crate) fn is_of_calendar(&self) -> bool {
        matches!(self.bound, Bound::During(_) | Bound::OutsideOf(_))
    }

    /// Whether what is reserved counts against it.
    pub(crate) fn counts_reserved(&self) -> bool {
        matches!(self.bound, Bound::AtMost(..) | Bound::Cooldown(_))
    }

    /// Whether what was given back does not count against it.
    pub(crate) fn takes_back(&self) -> bool {
        self.counts_reserved()
    }

    /// The same, its schedule in this zone where it has none of its own.
    pub(crate) fn in_zone(mut self, zone: TimeZone) -> Self {
        if let Bound::During(schedule) | Bound::OutsideOf(schedule) = &mut self.bound {
            *schedule = Arc::new(Schedule::clone(schedule).or_in_zone(zone));
        }
        self
    }

    /// Checks that it means something, by itself.
    ///
    /// # Errors
    /// `Invalid`.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(name) = &self.name
            && (name.is_empty() || name.len() > Limits::NAME_BYTES)
        {
            return Err(Error::invalid(format!(
                "a constraint's name has 1 to {} bytes, {} has {}",
                Limits::NAME_BYTES,
                abridged(name),
                name.len()
            )));
        }
        match &self.bound {
            Bound::AtMost(0, _) => {
                Err(Error::invalid("at most 0 never allows anything; a limit is 1 at least"))
            }
            Bound::AtLeast(0, _) => {
                Err(Error::invalid("at least 0 always holds; it is 1 at least"))
            }
            Bound::AtLeast(_, window) if !window.is_window() => Err(Error::invalid(
                "at least so many is of a window; what comes back at a rate has none",
            )),
            Bound::AtMost(_, window) | Bound::AtLeast(_, window) => window.check(),
            Bound::Cooldown(length) | Bound::Within(length) => {
                // The same bounds as a window's.
                Window::rolling(*length).check()
            }
            Bound::During(_) | Bound::OutsideOf(_) | Bound::Said(_) => Ok(()),
        }
    }

    /// How far back it looks.
    pub(crate) fn back(&self) -> Option<Back> {
        match self.bound {
            Bound::AtMost(n, window) => Some(window.back(n, false)),
            Bound::AtLeast(n, window) => Some(window.back(n, true)),
            _ => None,
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bound {
            Bound::AtMost(n, window) => write!(f, "at most {n} {window}"),
            Bound::AtLeast(n, window) => write!(f, "at least {n} {window}"),
            Bound::Cooldown(length) => write!(f, "none for {length:?}"),
            Bound::Within(length) => write!(f, "one in the last {length:?}"),
            Bound::During(schedule) => write!(f, "only {schedule}"),
            Bound::OutsideOf(schedule) => write!(f, "not {schedule}"),
            Bound::Said(words) => write!(f, "{words}"),
        }
    }
}

/// A constraint and whom it asks.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) constraint: Arc<Constraint>,
    pub(crate) whom: Whom,
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
            if !series.is_of_keys() {
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
        if let Some(back) = constraint.back() {
            series.query().check_back(back, now)?;
        }
        if let Some(refunds) = &refunds {
            Asked::check_refunds(&constraint, series.view(), refunds.view())?;
        }
        Ok(Asked { constraint: Arc::new(constraint), whom: Whom::Series { series, refunds } })
    }

    /// Checks that what is given back can be told by the view `refunds`, where `view` has what is used.
    ///
    /// # Errors
    /// `Invalid`.
    pub(crate) fn check_refunds(
        constraint: &Constraint,
        view: &View,
        refunds: &View,
    ) -> Result<()> {
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

    /// The series that is asked.
    pub(crate) fn series(&self) -> Option<&SeriesQuery> {
        match &self.whom {
            Whom::Series { series, .. } => Some(series),
            Whom::Calendar | Whom::Caller(_) => None,
        }
    }

    /// What was given back, where that is told.
    pub(crate) fn refunds(&self) -> Option<&SeriesQuery> {
        match &self.whom {
            Whom::Series { refunds, .. } => refunds.as_deref(),
            Whom::Calendar | Whom::Caller(_) => None,
        }
    }

    /// Whether it holds for an event of this cost, found out in less time than [`judge`](Asked::judge)
    /// takes. `None`: it has to be judged.
    #[inline]
    pub(crate) fn judge_plainly(&self, cost: u64, now: Timestamp) -> Result<Option<Plain>> {
        let (Bound::AtMost(n, window), Whom::Series { series, refunds: None }) =
            (&self.constraint.bound, &self.whom)
        else {
            return Ok(None);
        };
        let Some(most) = n.checked_sub(cost) else { return Ok(None) };
        if !window.is_window() || !series.is_of_one_key() {
            return Ok(None);
        }
        let summed = series.sum_back(window.back(*n, false), now, most)?;
        let is_whole = |summed: &Summed| summed.around.whole_from <= now.micros();
        Ok(summed.filter(is_whole).map(|Summed { sum, clears, fits, around }| Plain {
            limit: *n,
            used: sum,
            holds_from: fits,
            clears,
            fresh_leaves: around.fresh_leaves.max(clears),
        }))
    }

    /// Reads the series.
    pub(crate) fn judge(
        &self,
        cost: u64,
        reserved: &[Reserved],
        now: Timestamp,
    ) -> Result<Judged<'_>> {
        let held = reserved.iter().map(|reserved| Part {
            enters: i64::MIN,
            leaves: reserved.until,
            at: i64::MAX,
            bucket: Part::NO_BUCKET,
            count: reserved.count,
        });
        let (n, window, sum) = match &self.constraint.bound {
            Bound::AtMost(n, window) => (*n, window, window.at_most(*n)),
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
        let back = window.back(n, sum == Sum::AtLeast(n));
        let mut parts = SmallVec::new();
        let mut around = Around::NOTHING;
        if let Whom::Series { series, refunds } = &self.whom {
            around = series.counted_back(back, now, &mut |part| parts.push(part))?;
            if let Some(refunds) = refunds {
                refunds.counted_back(back, now, &mut |part| give_back(&mut parts, part))?;
            }
        }
        if self.constraint.counts_reserved() {
            parts.extend(held);
        }
        Ok(Judged::Counted { case: Case { parts, sum, cost }, around })
    }

    /// By the last event alone, whose time is exact.
    fn judge_last(&self, length: Duration, sum: Sum) -> Result<Judged<'_>> {
        let last = self.series().map(SeriesQuery::last_span).transpose()?.flatten();
        let length = micros_of(length);
        let mut part = last.map(|last| {
            // Where it is known roughly, the end of it that is the stricter one. One that is ahead of now
            // counts at once: it may have hidden an earlier one.
            let last = if sum == Sum::AtMost(0) { last.end() } else { last.start() };
            let (at, bucket) = (last.micros(), Part::NO_BUCKET);
            Part { enters: i64::MIN, leaves: at.saturating_add(length), at, bucket, count: 1 }
        });
        if let (Some(last), Some(refunds)) = (part, self.refunds())
            && refunds.last_span()?.is_some_and(|given_back| given_back.end().micros() >= last.at)
        {
            part = None;
        }
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

    /// What is counted, part by part.
    pub(crate) fn parts(&self) -> &[Part] {
        match self {
            Judged::Counted { case, .. } => &case.parts,
            Judged::Scheduled(..) | Judged::Said(_) => &[],
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
        self.series().map_or(Ok(()), |series| write!(f, " of {}", series.words()))
    }
}
