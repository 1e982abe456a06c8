//! Windows: what "in the last minute" means to a constraint.

use crate::error::{Error, Result};
use crate::time::Grain;
use std::time::Duration;

/// The stretch of time that a constraint counts in. Which kind it is is said by name, for the kinds differ
/// in what they let through: of "10 a minute", a [`fixed`](Window::fixed) minute admits 20 within two
/// seconds, at the turn of two minutes; a [`rolling`](Window::rolling) one never more than 10 in any 60 s.
///
/// ```
/// use quipu::{Grain, Window};
/// use std::time::Duration;
///
/// assert_eq!("in any 60s".parse::<Window>()?, Window::rolling(Duration::from_mins(1)));
/// assert_eq!(Window::fixed(Grain::Day).to_string(), "per day");
/// assert_eq!(Window::last(7, Grain::Day).to_string(), "in the last 7 days");
/// assert_eq!("at once, then 10 in each 1s".parse::<Window>()?, Window::gcra(10, Duration::from_secs(1)));
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
pub struct Window(pub(crate) Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
pub(crate) enum Kind {
    Rolling(Duration),
    Last(u32, Grain),
    /// So many come back in so long.
    Gcra(u64, Duration),
}

impl Window {
    /// Any stretch of this length, ending now: never more than the limit in *any* window so long.
    ///
    /// It is counted in buckets of the finest grain that the view keeps for long enough, and a bucket that
    /// the window's edge cuts counts whole. So it errs on the strict side: with buckets of length `r`, a
    /// window of length `w` admits at least `w / (w + r)` of the limit in the long run (98 % of it with
    /// seconds in a minute, 91 % with tenths of a second in a second). Keep a finer grain for more:
    ///
    /// ```
    /// use quipu::{Event, Grain, Keep, Options, View, Window};
    /// use std::time::Duration;
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("app");
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// // Ten a second, in any second: a second's hundredths, and the one that its edge cuts.
    /// let grain = Grain::every(Duration::from_millis(10))?;
    /// let calls = View::new("calls").by(["key"]).grain(grain, Keep::Last(101));
    /// let db = Options::new().clock(clock).view(calls).open(dir)?;
    /// let alice = db.query("calls")?.series(&["alice"])?;
    /// let limit = db.limit().at_most(&alice, 10, Window::rolling(Duration::from_secs(1)))?;
    /// let call = Event::new("call").dim("key", "alice");
    /// assert!(limit.check_and_record(&call.clone().times(10))?.is_allowed());
    /// assert_eq!(limit.check_and_record(&call)?.retry_after(), Some(Duration::from_secs(1)));
    /// # Ok::<(), quipu::Error>(())
    /// ```
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

    /// No window with an edge, but a level that sinks: as many as the limit at once (the burst), and then
    /// as they come back, `n` in each `period`, evenly. It is the generic cell rate algorithm (GCRA, ITU-T
    /// I.371, annex A), known as leaky bucket, too: in any stretch of length `w` it lets through at most the
    /// burst and `n * w / period`.
    ///
    /// The level is computed from the buckets that the view keeps, so no state is kept beside them: the
    /// same counts serve any rate, and changing it keeps what was used. Events of a bucket are taken as late
    /// as they can have been, which is exact for the last event, and on the strict side for the others by
    /// at most the length of a bucket: keep a grain that is short beside `period / n`.
    ///
    /// The view has to keep the time in which a whole burst comes back, and four times that is looked at
    /// where it is kept. What was before is taken as the most that it can have been, so that who goes on at
    /// the very rate does not get the burst again; with all four times kept it makes no difference to who
    /// used up to three quarters of the rate. (Of more than that was let through by other limits,
    /// what is older than a whole burst is forgotten.)
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Event, Grain, Keep, Options, TestClock, Timestamp, View, Window};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let view = View::new("calls").grain(Grain::Second, Keep::Last(16));
    /// let db = Options::new().clock(clock.clone()).view(view).open(dir.path().join("api"))?;
    /// // Five at once, then one every three seconds.
    /// let smooth = Window::gcra(20, Duration::from_mins(1));
    /// let limit = db.limit().at_most(db.query("calls")?.series(&[])?, 5, smooth)?;
    /// let call = Event::new("call");
    /// for _ in 0..5 {
    ///     assert!(limit.check_and_record(&call)?.is_allowed());
    /// }
    /// assert_eq!(limit.check_and_record(&call)?.retry_after(), Some(Duration::from_secs(3)));
    /// clock.advance(Duration::from_secs(3));
    /// assert!(limit.check_and_record(&call)?.is_allowed());
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub const fn gcra(n: u64, period: Duration) -> Self {
        Window(Kind::Gcra(n, period))
    }

    /// How long it is at most: of months and years as long as they can be, of days and hours as long as they
    /// are without a change of the clock. Of [`gcra`](Window::gcra) its period.
    ///
    /// ```
    /// use quipu::{Grain, Window};
    /// use std::time::Duration;
    ///
    /// assert_eq!(Window::fixed(Grain::Day).length(), Duration::from_hours(24));
    /// assert_eq!(Window::last(2, Grain::Month).length(), Duration::from_hours(2 * 31 * 24));
    /// ```
    pub fn length(self) -> Duration {
        let days = |n: u64| Duration::from_hours(24 * n);
        match self.0 {
            Kind::Rolling(length) | Kind::Gcra(_, length) => length,
            Kind::Last(n, grain) => {
                n * match grain {
                    Grain::Second => Duration::from_secs(1),
                    Grain::Minute => Duration::from_mins(1),
                    Grain::Hour => Duration::from_hours(1),
                    Grain::Day => days(1),
                    Grain::Week => days(7),
                    Grain::Month => days(31),
                    Grain::Year => days(366),
                    Grain::Month30 => days(30),
                    Grain::Year365 => days(365),
                    Grain::Every(period) => period.length(),
                }
            }
        }
    }

    /// Checks that it holds any time.
    pub(super) fn check(self) -> Result<()> {
        match self.0 {
            Kind::Rolling(length) if length < Duration::from_micros(1) => Err(Error::invalid(
                "a rolling window of no length holds nothing; it is 1us at least",
            )),
            Kind::Rolling(length) if length > Window::LENGTH_MAX => Err(Error::invalid(format!(
                "a rolling window of {length:?} is longer than the time that is counted; it is \
                 {} years at most",
                Window::LENGTH_MAX.as_secs() / YEAR_SECONDS
            ))),
            Kind::Last(n, grain) if n > BUCKETS_MAX => Err(Error::invalid(format!(
                "a window of {} is longer than what is counted; it is {BUCKETS_MAX} buckets at most",
                grain.counted(&n.to_string(), false)
            ))),
            Kind::Last(0, grain) => Err(Error::invalid(format!(
                "a window of {} holds nothing; it is one at least",
                grain.counted("0", true)
            ))),
            Kind::Gcra(0, _) => {
                Err(Error::invalid("a rate of 0 lets nothing come back; it is 1 at least"))
            }
            Kind::Gcra(_, period)
                if period < Duration::from_micros(1) || period > Window::LENGTH_MAX =>
            {
                Err(Error::invalid(format!(
                    "the period of a rate is 1us to {} years, not {period:?}",
                    Window::LENGTH_MAX.as_secs() / YEAR_SECONDS
                )))
            }
            Kind::Rolling(_) | Kind::Last(..) | Kind::Gcra(..) => Ok(()),
        }
    }
}

impl Window {
    /// The longest window, and the longest time that is asked about.
    pub(crate) const LENGTH_MAX: Duration = Duration::from_secs(1_000 * YEAR_SECONDS);

    /// Whether it has an edge.
    pub(crate) fn is_window(self) -> bool {
        !matches!(self.0, Kind::Gcra(..))
    }
}

/// As many as a view keeps.
const BUCKETS_MAX: u32 = 100_000;
const YEAR_SECONDS: u64 = 31_557_600;
