//! Windows: what "in the last minute" means to a constraint.

use crate::error::{Error, Result};
use crate::time::Grain;
use std::fmt;
use std::time::Duration;

/// The stretch of time that a constraint counts in. Which kind it is is said by name, for the kinds differ
/// in what they let through: of "10 a minute", a [`fixed`](Window::fixed) minute admits 20 within two
/// seconds, at the turn of two minutes; a [`rolling`](Window::rolling) one never more than 10 in any 60 s.
///
/// ```
/// use quipu::{Grain, Window};
/// use std::time::Duration;
///
/// assert_eq!(Window::rolling(Duration::from_mins(1)).to_string(), "in any 60s");
/// assert_eq!(Window::fixed(Grain::Day).to_string(), "per day");
/// assert_eq!(Window::last(7, Grain::Day).to_string(), "in a day and the 6 before it");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(pub(super) Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rolling(Duration),
    Last(u32, Grain),
}

impl Window {
    /// Any stretch of this length, ending now: never more than the limit in *any* window so long.
    ///
    /// It is counted in buckets of the finest grain that the view keeps for long enough, and a bucket that
    /// the window's edge cuts counts whole. So it errs on the strict side: with buckets of length `r`, a
    /// window of length `w` admits at least `w / (w + r)` of the limit in the long run (98 % of it with
    /// seconds in a minute). Keep a finer grain for more.
    pub const fn rolling(length: Duration) -> Self {
        Window(Kind::Rolling(length))
    }

    /// The present bucket of a grain: the hour, the calendar day in the time zone of the store. The count
    /// begins anew with each one.
    pub const fn fixed(grain: Grain) -> Self {
        Window::last(1, grain)
    }

    /// The present bucket of a grain and those before it, `n` in all.
    pub const fn last(n: u32, grain: Grain) -> Self {
        Window(Kind::Last(n, grain))
    }

    /// Checks that it holds any time.
    pub(super) fn check(self) -> Result<()> {
        match self.0 {
            Kind::Rolling(length) if length < Duration::from_micros(1) => Err(Error::invalid(
                "a rolling window of no length holds nothing; it is 1us at least",
            )),
            Kind::Rolling(length) if length > LENGTH_MAX => Err(Error::invalid(format!(
                "a rolling window of {length:?} is longer than the time that is counted; it is \
                 {} years at most",
                LENGTH_MAX.as_secs() / YEAR_SECONDS
            ))),
            Kind::Last(n, grain) if n > BUCKETS_MAX => Err(Error::invalid(format!(
                "a window of {} is longer than what is counted; it is {BUCKETS_MAX} buckets at most",
                grain.counted(&n.to_string(), false)
            ))),
            Kind::Last(0, grain) => Err(Error::invalid(format!(
                "a window of {} holds nothing; it is one at least",
                grain.counted("0", true)
            ))),
            Kind::Rolling(_) | Kind::Last(..) => Ok(()),
        }
    }
}

/// As many as a view keeps.
const BUCKETS_MAX: u32 = 100_000;
const YEAR_SECONDS: u64 = 31_557_600;
pub(super) const LENGTH_MAX: Duration = Duration::from_secs(1_000 * YEAR_SECONDS);

/// As it stands behind "at most 10".
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Rolling(length) => write!(f, "in any {length:?}"),
            Kind::Last(1, grain) => write!(f, "per {grain}"),
            Kind::Last(n, grain) => {
                write!(f, "in a {grain} and the {} before it", n.saturating_sub(1))
            }
        }
    }
}
