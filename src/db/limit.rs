//! Limits on what is recorded, as they are made: constraints on series, on the calendar, of the caller.
//!
//! Next: `db/limit/asking.rs`; of policies: `db/limit/limiter.rs`.

mod answer;
mod asking;
mod denials;
pub(super) mod keys;
mod limiter;
mod reservation;
mod short;

pub(super) use limiter::Policies;
pub use limiter::{Limiter, PolicyStatus};
pub use reservation::Reservation;

use super::{Db, Engine};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::limit::{Asked, Usage, Verdict, Whom};
use crate::options::Durability;
use crate::policy::{Constraint, Window};
use crate::query::SeriesQuery;
use crate::tier::ViewTier;
use crate::time::Schedule;
use asking::{Asking, Whose};
use limiter::Active;
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

impl Engine {
    /// See [`Source::apply_at_once`](crate::query::Source::apply_at_once).
    #[cold]
    pub(super) fn apply_at_once(&self, tier: &Arc<ViewTier>) -> Result<()> {
        let mut live = self.close_gate()?;
        tier.set_at_once();
        live.views_changed();
        Ok(())
    }
}

/// Some constraints on what may happen, made by [`Db::limit`]: how often, how long after what, only after
/// what. It can be kept, and asked again and again.
///
/// What it counts are the events of [series](SeriesQuery), however they were recorded: of a counter, of a
/// key of any view that keeps buckets. Nothing is declared beforehand: a key is there with its first event.
/// Usage is as durable as the events are; after a crash what was refused is refused still.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{Event, Grain, Keep, Options, TestClock, Timestamp, Verdict, View, Window};
/// use std::time::Duration;
///
/// let clock = TestClock::at(Timestamp::parse_rfc3339("2026-11-26T10:30:00Z")?);
/// let calls = View::new("calls")
///     .by(["key"])
///     .only_events(["call"])
///     .grain(Grain::Second, Keep::Last(61))
///     .grain(Grain::Day, Keep::Last(1));
/// let db = Options::new().clock(clock.clone()).view(calls).open(dir.path().join("api"))?;
///
/// let of_alice = db.query("calls")?.series(&["alice"])?;
/// let limit = db
///     .limit()
///     .at_most(&of_alice, 2, Window::rolling(Duration::from_mins(1)))?
///     .at_most(&of_alice, 1_000, Window::fixed(Grain::Day))?;
/// let call = Event::new("call").dim("key", "alice");
/// assert!(limit.check_and_record(&call)?.is_allowed());
/// clock.advance(Duration::from_secs(20));
/// assert!(limit.check_and_record(&call)?.is_allowed());
///
/// let denied = limit.check_and_record(&call)?;
/// let retry = denied.retry_after().unwrap();
/// assert!(retry > Duration::from_secs(40) && retry <= Duration::from_secs(41));
/// clock.advance(retry);
/// assert!(limit.check_and_record(&call)?.is_allowed());
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a limit does nothing until it is asked"]
pub struct Limit {
    db: Db,
    asked: SmallVec<[Asked; 1]>,
    policy: Option<Arc<Active>>,
}

impl Db {
    /// A limit without constraints, which allows everything: add some.
    pub fn limit(&self) -> Limit {
        Limit { db: self.clone(), asked: SmallVec::new(), policy: None }
    }
}

impl Limit {
    /// At most `n` events of a series in a window. One that stands for many
    /// ([`Event::times`]) counts for as many.
    ///
    /// # Errors
    /// `Invalid` for a limit of 0, a window of no length, or keys that are not given whole; `NotKept`
    /// where the view keeps no buckets of the window's grain, or none that reach back so far: for a rolling
    /// window one bucket more than it is long, and what buckets of the calendar differ in length (of days and
    /// hours a day and an hour where the zone changes its clocks, of months and years five days).
    pub fn at_most(self, series: impl AsRef<SeriesQuery>, n: u64, window: Window) -> Result<Self> {
        self.on(series, Constraint::at_most(n, window))
    }

    /// Not before there were at least `n` events of a series in a window: what must have happened first.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    /// use quipu::{Event, Grain, Options, View, Window};
    ///
    /// let db = Options::new().clock(clock).view(View::counters()).open(dir.path().join("app"))?;
    /// let launches = db.counter("app_launch")?;
    /// let ask_for_rating = db.limit().at_least(&launches, 3, Window::last(7, Grain::Day))?;
    /// assert!(!ask_for_rating.check()?.is_allowed());
    /// launches.record_count(3)?;
    /// assert!(ask_for_rating.check()?.is_allowed());
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Limit::at_most`].
    pub fn at_least(self, series: impl AsRef<SeriesQuery>, n: u64, window: Window) -> Result<Self> {
        self.on(series, Constraint::at_least(n, window))
    }

    /// Not before the last event of a series is so long ago, to the microsecond; none yet is long enough.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Event, Options, TestClock, Timestamp, View};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    /// let options = Options::new().clock(clock.clone()).view(View::counters());
    /// let db = options.open(dir.path().join("app"))?;
    /// let reset = Event::new("password_reset");
    /// let limit = db.limit().cooldown(&db.counter("password_reset")?, Duration::from_hours(1))?;
    /// assert!(limit.check_and_record(&reset)?.is_allowed());
    /// clock.advance(Duration::from_mins(50));
    /// assert_eq!(limit.check_and_record(&reset)?.retry_after(), Some(Duration::from_mins(10)));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid` for no time at all, or keys that are not given whole.
    pub fn cooldown(self, series: impl AsRef<SeriesQuery>, length: Duration) -> Result<Self> {
        self.on(series, Constraint::cooldown(length))
    }

    /// Only while the last event of a series is less than so long ago: what must have happened lately.
    ///
    /// # Errors
    /// As [`Limit::cooldown`].
    pub fn within(self, series: impl AsRef<SeriesQuery>, length: Duration) -> Result<Self> {
        self.on(series, Constraint::within(length))
    }

    /// Only while a [`Schedule`] is open. One without a time zone is in the store's.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Event, Options, TestClock, Timestamp, View};
    /// use std::time::Duration;
    ///
    /// let friday = Timestamp::parse_rfc3339("2026-11-27T19:00:00Z")?;
    /// let options = Options::new().clock(TestClock::at(friday)).view(View::counters());
    /// let db = options.time_zone("Europe/Berlin".parse()?).open(dir.path().join("app"))?;
    /// let mails = db.counter("mail")?;
    /// let limit = db
    ///     .limit()
    ///     .during("mon-fri 08:00-20:00".parse()?)?
    ///     .cooldown(&mails, Duration::from_hours(24))?;
    /// let denied = limit.check_and_record(&Event::new("mail"))?;
    /// // It is eight in the evening there: on Monday at eight again, and no mail was sent before.
    /// assert_eq!(denied.retry_after(), Some(Duration::from_hours(60)));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Closed` when the engine is closed.
    pub fn during(self, schedule: Schedule) -> Result<Self> {
        self.of_calendar(Constraint::during(schedule))
    }

    /// Only while a [`Schedule`] is closed; as [`Limit::during`].
    ///
    /// # Errors
    /// As there.
    pub fn outside_of(self, schedule: Schedule) -> Result<Self> {
        self.of_calendar(Constraint::outside_of(schedule))
    }

    /// Only if the caller says so, whose words are for who is denied. It is asked each time, before
    /// anything else is, while nothing is locked; waiting does not help.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, View};
    ///
    /// let db = Options::new().view(View::counters()).open(dir.path().join("app"))?;
    /// let is_member = false;
    /// let limit = db.limit().only_if("only for members", move || is_member)?;
    /// let denied = limit.check()?;
    /// assert_eq!(denied.denial().unwrap().constraint.to_string(), "only for members");
    /// assert_eq!(denied.retry_after(), None);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Closed` when the engine is closed.
    pub fn only_if(
        mut self,
        words: impl Into<String>,
        is_so: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self> {
        self.db.engine().check_open()?;
        let constraint = Arc::new(Constraint::said(words.into()));
        self.asked.push(Asked { constraint, whom: Whom::Caller(Arc::new(is_so)), even: None });
        Ok(self)
    }

    /// Adds a constraint on a series: one with a name, say.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Constraint, Grain, Options, View, Window};
    ///
    /// let db = Options::new().view(View::counters()).open(dir.path().join("app"))?;
    /// let exports = db.counter("export")?;
    /// let daily = Constraint::at_most(10, Window::fixed(Grain::Day)).named("daily");
    /// let limit = db.limit().on(&exports, daily)?;
    /// assert_eq!(limit.usage()?[0].constraint.name(), Some("daily"));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Limit::at_most`]; `Invalid` for one that is of the calendar.
    pub fn on(self, series: impl AsRef<SeriesQuery>, constraint: Constraint) -> Result<Self> {
        self.with(constraint, series.as_ref(), None)
    }

    /// Adds a constraint on a series, net of what was given back: what the events of another series, whose
    /// view keeps the same buckets, took back does not count. See [`Limit::refund`].
    ///
    /// # Errors
    /// As [`Limit::on`]; `Invalid` where the view of what is given back keeps other buckets.
    pub fn on_net(
        self,
        series: impl AsRef<SeriesQuery>,
        refunds: impl AsRef<SeriesQuery>,
        constraint: Constraint,
    ) -> Result<Self> {
        self.with(constraint, series.as_ref(), Some(refunds.as_ref()))
    }

    fn of_calendar(mut self, constraint: Constraint) -> Result<Self> {
        let engine = self.db.engine();
        engine.check_open()?;
        let constraint = Arc::new(constraint.in_zone(engine.zone()));
        self.asked.push(Asked { constraint, whom: Whom::Calendar, even: None });
        Ok(self)
    }

    fn with(
        mut self,
        constraint: Constraint,
        series: &SeriesQuery,
        refunds: Option<&SeriesQuery>,
    ) -> Result<Self> {
        let engine = self.db.engine();
        let is_ours = |series: &SeriesQuery| series.is_of(Arc::as_ptr(engine).addr());
        if !is_ours(series) || !refunds.is_none_or(is_ours) {
            return Err(Error::invalid("a limit asks series of the store that it records to"));
        }
        // Any moment will do: whether the view's buckets reach back depends on the calendar only.
        let now = engine.options.clock.now_roughly();
        self.asked.push(Asked::of_series(constraint, series.clone(), refunds.cloned(), now)?);
        Ok(self)
    }

    /// Whether one event may happen now. It records nothing and creates nothing.
    ///
    /// # Errors
    /// As [`Query::get`](crate::Query::get). That something is denied is no error.
    pub fn check(&self) -> Result<Verdict> {
        self.check_count(1)
    }

    /// Whether `n` events may happen now, all or none.
    ///
    /// # Errors
    /// As [`Limit::check`]; `Invalid` for none.
    pub fn check_count(&self, n: u64) -> Result<Verdict> {
        self.asking().check(n)
    }

    /// How much of each constraint is used now, in the order in which they were added.
    ///
    /// # Errors
    /// As [`Limit::check`].
    pub fn usage(&self) -> Result<Vec<Usage>> {
        self.asking().usage()
    }

    /// Records an event if it may happen now: the question and the recording are one step, however many
    /// threads ask. Where it is denied nothing is recorded.
    ///
    /// The event happens now; one that says when it happened is refused. It should be one that the limit's
    /// series count: that is not looked at. One whose [id](Event::id) was recorded already is judged as any
    /// other, and where it is allowed not recorded again.
    ///
    /// # Errors
    /// `Invalid` for an event with a time of its own; as [`Db::record`] and [`Limit::check`].
    pub fn check_and_record(&self, event: &Event<'_>) -> Result<Verdict> {
        self.check_and_record_with(event, self.db.engine().options.durability)
    }

    /// The same at a durability of its own. Who asks for [`Durability::Sync`] waits together with others
    /// for the disk, and holds nobody else up meanwhile.
    ///
    /// # Errors
    /// As [`Limit::check_and_record`].
    pub fn check_and_record_with(
        &self,
        event: &Event<'_>,
        durability: Durability,
    ) -> Result<Verdict> {
        self.asking().check_and_record(event, durability)
    }

    /// Gives back what was used, the newest first, as much as the event counts for ([`Event::times`]) and
    /// no more than is used; gives how much that was. The event is what is recorded: one that the series of
    /// what is given back count ([`Limit::on_net`]). It is recorded under the times of what it gives back, so
    /// that it leaves every window together with that. A cooldown is none of it: it goes on.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Constraint, Event, Grain, Options, View, Window};
    ///
    /// let db = Options::new().view(View::counters()).open(dir.path().join("app"))?;
    /// let (jobs, refunds) = (db.counter("job")?, db.counter("job_refund")?);
    /// let daily = Constraint::at_most(10, Window::fixed(Grain::Day));
    /// let limit = db.limit().on_net(&jobs, &refunds, daily)?;
    /// limit.check_and_record(&Event::new("job").times(3))?;
    /// assert_eq!(limit.refund(&Event::new("job_refund").times(2))?, 2);
    /// assert_eq!(limit.usage()?[0].used, 1);
    /// // No more is given back than was used.
    /// assert_eq!(limit.refund(&Event::new("job_refund").times(5))?, 1);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid` where no constraint is net of anything, or for an event with a time of its own; as
    /// [`Db::record`] and [`Limit::check`].
    pub fn refund(&self, event: &Event<'_>) -> Result<u64> {
        self.asking().give_back(event, event.count())
    }

    /// Gives back all that is used, as [`Limit::refund`] does; gives how much that was.
    ///
    /// # Errors
    /// As there.
    pub fn reset(&self, event: &Event<'_>) -> Result<u64> {
        self.asking().give_back(event, u64::MAX)
    }

    /// How it is asked.
    #[inline]
    fn asking(&self) -> Asking<'_> {
        Asking { db: &self.db, whose: Whose::Limit(&self.asked), policy: self.policy.as_ref() }
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.asked.iter().map(ToString::to_string);
        f.debug_list().entries(words).finish()
    }
}
