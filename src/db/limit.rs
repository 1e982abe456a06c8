//! Limits on what is recorded: the question, and the recording that follows it, as one step.
//!
//! Invariants
//! 1. Whoever asks in order to record or to reserve holds the locks of all keys that it asks, from before
//!    the first is read until the event is in the views that are asked (`db/live.rs`), or
//!    the reservation is made. So what two threads do is what they would do one after the other. Locks are
//!    taken in their order, each once.
//! 2. Nobody waits under them until what is recorded is durable. What is read may have to be read from
//!    the store.
//! 3. Nothing is let through that would not be counted. Where the clock was set back, limits of keys that
//!    have events ahead of it go by one that was not (`db/limit/keys.rs`). What others record ahead of
//!    either counts, and where a ring has let go of what a window needs nothing is allowed until it has all
//!    of it again (`query/counted.rs`).
//!
//! Next: `limit.rs`; of policies: `db/limit/limiter.rs`.

pub(super) mod keys;
mod limiter;
mod reservation;

pub(super) use limiter::Policies;
pub use limiter::{Limiter, PolicyStatus};
pub use reservation::Reservation;

use super::{Db, Engine, Recorded};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::limit::{Asked, Denial, Judged, Plain, Question, Usage, Used, Verdict, When, Whom};
use crate::options::Durability;
use crate::policy::{Constraint, Window};
use crate::query::{AskedKey, Keyed, SeriesQuery};
use crate::tier::ViewTier;
use crate::time::{Schedule, Timestamp};
use keys::{Locked, Subject};
use limiter::{Active, BoundRule};
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// Rounds in which moments are looked for at which all constraints hold.
const ROUNDS: usize = 100;

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

/// A limit as it is asked: of a [`Limit`], or of a [`Limiter`] and an event.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    db: &'a Db,
    whose: Whose<'a>,
    policy: Option<&'a Arc<Active>>,
}

/// Whose constraints are asked.
#[derive(Clone, Copy)]
enum Whose<'a> {
    Limit(&'a [Asked]),
    /// A policy's, and the event's keys in the views that they ask, one after the other.
    Limiter(&'a [BoundRule], &'a [AskedKey]),
}

/// The constraints of a limit as they stand.
type Cases<'a> = SmallVec<[Judged<'a>; 1]>;

/// What a limit says, and by what.
enum Answer<'a> {
    /// Each constraint holds, or the only one does not.
    Plain(SmallVec<[Plain; 1]>),
    Judged(Cases<'a>),
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
        self.asked.push(Asked { constraint, whom: Whom::Caller(Arc::new(is_so)) });
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
        self.asked.push(Asked { constraint, whom: Whom::Calendar });
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
    pub(super) fn asking(&self) -> Asking<'_> {
        Asking { db: &self.db, whose: Whose::Limit(&self.asked), policy: self.policy.as_ref() }
    }
}

impl<'a> Asking<'a> {
    /// How many constraints there are.
    #[inline]
    fn len(self) -> usize {
        match self.whose {
            Whose::Limit(asked) => asked.len(),
            Whose::Limiter(rules, _) => rules.len(),
        }
    }

    #[inline]
    fn question(self, index: usize) -> Question<'a> {
        match self.whose {
            Whose::Limit(asked) => asked[index].question(),
            Whose::Limiter(rules, keys) => rules[index].question(&keys[index..=index]),
        }
    }

    /// What is asked, in the order of the constraints.
    #[inline]
    fn questions(self) -> impl Iterator<Item = Question<'a>> + Clone {
        (0..self.len()).map(move |index| self.question(index))
    }

    pub(super) fn check(&self, n: u64) -> Result<Verdict> {
        if n == 0 {
            return Err(Error::invalid("no event is always allowed; ask for one at least"));
        }
        if let Some(denial) = self.refused_by_caller() {
            return Ok(Verdict::Denied(denial));
        }
        let now = self.moment(&mut None)?;
        let answer = self.read(n, &mut None, now)?;
        Ok(self.lenient(self.say(&answer, 0, now)))
    }

    pub(super) fn usage(&self) -> Result<Vec<Usage>> {
        let now = self.moment(&mut None)?;
        let judged = self.judge(1, &mut None, now)?;
        let usage = |(asked, judged): (Question<'_>, &Judged<'_>)| Usage {
            constraint: asked.constraint.clone(),
            limit: asked.constraint.limit(),
            used: judged.counted_at(now.micros()),
            resets_in: since(now.micros(), judged.clears(now.micros(), 0)),
        };
        Ok(self.questions().zip(&judged).map(usage).collect())
    }

    pub(super) fn check_and_record(
        &self,
        event: &Event<'_>,
        durability: Durability,
    ) -> Result<Verdict> {
        check_of_now(event)?;
        let engine = self.db.engine();
        let cost = event.count();
        let mut locked = match self.enter(cost)? {
            Ok(locked) => Some(locked),
            Err(denial) => return Ok(Verdict::Denied(denial)),
        };
        // Under the locks: of two events of a key the later one has the later time.
        let now = self.moment(&mut locked)?;
        let answer = self.read(cost, &mut locked, now)?;
        let verdict = self.say(&answer, cost, now);
        if !verdict.is_allowed() && !self.is_shadow() {
            self.count(&verdict, &answer, cost, now);
            return Ok(verdict);
        }
        let recorded = engine.record_at(event, now, durability)?;
        self.count(&verdict, &answer, cost, now);
        drop(locked);
        engine.acknowledge(recorded.position.get(), durability)?;
        Ok(self.lenient(verdict))
    }

    /// What a policy that refuses nothing says.
    fn lenient(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Denied(_) if self.is_shadow() => {
                let is_at_most = |asked: Question<'_>| asked.constraint.is_at_most();
                let remaining = self.questions().any(is_at_most).then_some(0);
                Verdict::Allowed { remaining, resets_in: None }
            }
            verdict => verdict,
        }
    }

    pub(super) fn give_back(&self, event: &Event<'_>, most: u64) -> Result<u64> {
        check_of_now(event)?;
        if event.id.is_some() {
            return Err(Error::invalid(
                "what is given back may be recorded as several events: it has no id",
            ));
        }
        let refunds = self.questions().filter_map(|asked| asked.refunds);
        if refunds.clone().next().is_none() {
            return Err(Error::invalid(
                "nothing can be given back to this limit: none of its constraints is net of refunds",
            ));
        }
        let engine = self.db.engine();
        self.each_at_once()?;
        let mut locked = Some(self.lock());
        let now = self.moment(&mut locked)?;
        let judged = self.judge(1, &mut locked, now)?;
        let net = self.questions().zip(&judged).filter(|(asked, _)| asked.refunds.is_some());
        let mut used: SmallVec<[Used; 2]> =
            net.map(|(_, judged)| judged.used_at(now.micros())).collect();
        // As much as counts against the one that most counts against. The newest of it happened when all
        // of them say: so of no bucket of any of them more is given back than was used in it.
        let most = used.iter().map(|used| used.count).max().unwrap_or(0).min(most);
        let mut left = most;
        let mut batch = self.db.batch();
        while left > 0 {
            let at = used.iter().map(|used| used.newest().0).fold(i64::MAX, i64::min);
            let taken = used.iter().map(|used| used.newest().1).fold(left, u64::min);
            batch.push(&event.clone().at(Timestamp::from_micros(at)).times(taken))?;
            used.iter_mut().for_each(|used| used.take(taken));
            left -= taken;
        }
        if most == left {
            return Ok(0);
        }
        // Not as others record: what is given back has the times of what was used.
        let builder = batch.builder_of(engine)?;
        let outcome = engine.record_chunks(builder, Durability::Memory)?;
        drop(locked);
        engine.acknowledge(outcome.position.get(), engine.options.durability)?;
        Ok(most - left)
    }

    /// Takes the locks of the limit's keys; or says why it is denied, where that is known without.
    fn enter(&self, cost: u64) -> Result<std::result::Result<Locked<'a>, Denial>> {
        if let Some(denial) = self.refused_by_caller() {
            if let Some(policy) = &self.policy {
                policy.tallies.denied.add(1);
            }
            return Ok(Err(denial));
        }
        let limits = &self.db.engine().limits;
        let mut keys = SmallVec::<[u64; 4]>::new();
        let mut is_known = true;
        for asked in self.questions() {
            for series in [asked.series, asked.refunds] {
                let Some(series) = series else { continue };
                series.apply_at_once()?;
                for key in series.numbers() {
                    match key {
                        Some(key) => keys.push(key),
                        None => is_known = false,
                    }
                }
            }
        }
        if is_known {
            return Ok(Ok(limits.lock(keys.into_iter())));
        }
        // A key that was never seen is not made known for an event that is denied.
        let now = self.moment(&mut None)?;
        if let Verdict::Denied(denial) = self.say(&self.read(cost, &mut None, now)?, 0, now)
            && !self.is_shadow()
        {
            if let Some(policy) = &self.policy {
                policy.tallies.denied.add(1);
            }
            return Ok(Err(denial));
        }
        Ok(Ok(self.lock()))
    }

    /// The series that are asked.
    #[inline]
    fn series(&self) -> impl Iterator<Item = Keyed<'a>> {
        self.questions().flat_map(|asked| asked.series.into_iter().chain(asked.refunds))
    }

    fn each_at_once(&self) -> Result<()> {
        self.series().try_for_each(Keyed::apply_at_once)
    }

    /// Takes the locks of the limit's keys; a key that was never seen is known from now on.
    fn lock(&self) -> Locked<'a> {
        self.lock_with(SmallVec::new())
    }

    /// The same, and those of some others.
    fn lock_with(&self, others: SmallVec<[u64; 2]>) -> Locked<'a> {
        self.db.engine().limits.lock(self.series().flat_map(Keyed::number).chain(others))
    }

    fn is_shadow(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.policy.is_shadow())
    }

    /// The denial of the first constraint that the caller says does not hold.
    fn refused_by_caller(&self) -> Option<Denial> {
        let Whose::Limit(asked) = self.whose else { return None };
        let refuses = |asked: &Asked| matches!(&asked.whom, Whom::Caller(is_so) if !is_so());
        let index = asked.iter().position(refuses)?;
        Some(Denial {
            index,
            constraint: self.question(index).constraint.clone(),
            limit: 0,
            used: 0,
            retry_after: None,
            is_too_much: false,
        })
    }

    /// The moment that the limit is asked at (invariant 3).
    #[inline]
    fn moment(&self, locked: &mut Option<Locked<'_>>) -> Result<Timestamp> {
        let engine = self.db.engine();
        let now = engine.now();
        let steady = engine.limits.steady(now);
        if steady > now { self.moment_of_two(locked, now, steady) } else { Ok(now) }
    }

    #[cold]
    fn moment_of_two(
        &self,
        locked: &mut Option<Locked<'_>>,
        now: Timestamp,
        steady: Timestamp,
    ) -> Result<Timestamp> {
        let limits = &self.db.engine().limits;
        if limits.is_mixed() {
            return Ok(now);
        }
        let mut all = SmallVec::<[Subject; 4]>::new();
        let mut is_any = false;
        for series in self.questions().filter_map(|asked| asked.series).flat_map(Keyed::one_by_one)
        {
            let is_ahead = || Ok(series.last_span()?.is_some_and(|last| *last.end() > now));
            for subject in subjects(series) {
                is_any |= match locked {
                    Some(locked) => locked.is_steady(subject, is_ahead)?,
                    None => limits.lock([subject.1].into_iter()).is_steady(subject, is_ahead)?,
                };
                all.push(subject);
            }
        }
        if let Some(locked) = locked.as_mut().filter(|_| is_any) {
            all.into_iter().for_each(|subject| locked.set_steady(subject));
        }
        Ok(if is_any { steady } else { now })
    }

    /// Finds out what the constraints say, for an event of this cost.
    #[inline]
    fn read(
        &self,
        cost: u64,
        locked: &mut Option<Locked<'_>>,
        now: Timestamp,
    ) -> Result<Answer<'a>> {
        let has_held = match locked {
            Some(locked) => locked.has_held(),
            None => self.db.engine().limits.has_held(),
        };
        if !has_held {
            let mut all = SmallVec::new();
            for asked in self.questions() {
                match asked.judge_plainly(cost, now)? {
                    // Of several that do not hold, each has to be asked when the others will.
                    Some(plain) if plain.holds_from <= now.micros() || self.len() == 1 => {
                        all.push(plain);
                    }
                    _ => return self.judge(cost, locked, now).map(Answer::Judged),
                }
            }
            return Ok(Answer::Plain(all));
        }
        self.judge(cost, locked, now).map(Answer::Judged)
    }

    /// Reads what the constraints ask, for an event of this cost.
    fn judge(
        &self,
        cost: u64,
        locked: &mut Option<Locked<'_>>,
        now: Timestamp,
    ) -> Result<Cases<'a>> {
        let limits = &self.db.engine().limits;
        let mut cases = Cases::new();
        for asked in self.questions() {
            let mut reserved = SmallVec::new();
            if let Some(series) = asked.series.filter(|_| limits.has_held()) {
                let subjects = subjects(series);
                let subjects = || subjects.iter().copied();
                reserved = match locked {
                    Some(locked) => locked.reserved(subjects(), now),
                    None => limits.lock(subjects().map(|(_, key)| key)).reserved(subjects(), now),
                };
            }
            cases.push(asked.judge(cost, &reserved, now)?);
        }
        Ok(cases)
    }

    /// What the constraints say about events of which so many are about to be recorded.
    fn say(&self, answer: &Answer<'_>, recorded: u64, now: Timestamp) -> Verdict {
        let now = now.micros();
        let is_at_most = |asked: &Question<'_>| asked.constraint.is_at_most();
        let left = |asked: Question<'_>, used: u64| {
            asked.constraint.limit().saturating_sub(used.saturating_add(recorded))
        };
        let tightest = match answer {
            Answer::Plain(plain) => {
                if let [Plain { limit, used, holds_from, .. }] = *plain.as_slice()
                    && holds_from > now
                {
                    return Verdict::Denied(Denial {
                        index: 0,
                        constraint: self.question(0).constraint.clone(),
                        limit,
                        used,
                        retry_after: Some(since(now, holds_from)),
                        is_too_much: false,
                    });
                }
                let left = self.questions().zip(plain).map(|(asked, plain)| {
                    let clears = if recorded > 0 { plain.fresh_leaves } else { plain.clears };
                    (left(asked, plain.used), clears)
                });
                left.min_by_key(|(remaining, clears)| (*remaining, -*clears))
            }
            Answer::Judged(judged) => {
                if let Some(denial) = self.denial(judged, now) {
                    return Verdict::Denied(denial);
                }
                let at_most = self.questions().zip(judged).filter(|(asked, _)| is_at_most(asked));
                let left = at_most.map(|(asked, judged)| {
                    (left(asked, judged.counted_at(now)), judged.clears(now, recorded))
                });
                left.min_by_key(|(remaining, clears)| (*remaining, -*clears))
            }
        };
        Verdict::Allowed {
            remaining: tightest.map(|(remaining, _)| remaining),
            resets_in: tightest.map(|(_, clears)| since(now, clears)),
        }
    }

    /// Why it is denied now, if it is.
    fn denial(&self, judged: &[Judged<'_>], now: i64) -> Option<Denial> {
        let mut last: Option<(usize, When)> = None;
        for (index, judged) in judged.iter().enumerate() {
            let when = judged.earliest(now);
            // Of several that never will, the one that says by how much.
            let is_later = |(_, last): (usize, When)| {
                when > last || when == When::Never && self.question(index).constraint.is_at_most()
            };
            if when != When::At(now) && last.is_none_or(is_later) {
                last = Some((index, when));
            }
        }
        let (index, when) = last?;
        // Each holds from some moment on, not all of them for ever: the first at which all do.
        let (mut at, mut is_found) = (when, false);
        for _ in 0..ROUNDS {
            let When::At(moment) = at else { break };
            match judged.iter().map(|judged| judged.earliest(moment)).max() {
                Some(next) if next > at => at = next,
                _ => {
                    is_found = true;
                    break;
                }
            }
        }
        let constraint = self.question(index).constraint;
        Some(Denial {
            index,
            constraint: constraint.clone(),
            limit: constraint.limit(),
            used: judged[index].counted_at(now),
            retry_after: match at {
                When::At(at) if is_found => Some(since(now, at)),
                _ => None,
            },
            is_too_much: when == When::Never && constraint.is_at_most(),
        })
    }

    /// Counts what was decided, for the policy's statistics.
    fn count(&self, verdict: &Verdict, answer: &Answer<'_>, cost: u64, now: Timestamp) {
        let Some(active) = &self.policy else { return };
        if !verdict.is_allowed() {
            active.tallies.denied.add(1);
            return;
        }
        active.tallies.allowed.add(1);
        let used = |index: usize| match answer {
            Answer::Plain(plain) => plain[index].used,
            Answer::Judged(judged) => judged[index].counted_at(now.micros()),
        };
        let is_near = |(index, asked): (usize, Question<'_>)| {
            let limit = asked.constraint.limit();
            asked.constraint.is_at_most()
                && active.policy.is_near(used(index).saturating_add(cost), limit)
        };
        active.tallies.near.add(u64::from(self.questions().enumerate().any(is_near)));
    }
}

/// The series that something is reserved of: where a key has no number nothing is.
fn subjects(series: Keyed<'_>) -> SmallVec<[Subject; 2]> {
    let view = xxh3_64(series.query().view().name().as_bytes());
    series.numbers().flatten().map(|key| (view, key)).collect()
}

fn check_of_now(event: &Event<'_>) -> Result<()> {
    if event.time.is_some() {
        return Err(Error::invalid(
            "an event that is limited happens now: it says no time of its own",
        ));
    }
    event.check()
}

/// How long it is until then.
fn since(now: i64, then: i64) -> Duration {
    Duration::from_micros(then.saturating_sub(now).max(0) as u64)
}

impl Engine {
    /// Records an event that was checked, at this moment, without waiting for the disk.
    fn record_at(
        &self,
        event: &Event<'_>,
        time: Timestamp,
        durability: Durability,
    ) -> Result<Recorded> {
        if let Some(bytes) = self.is_staged(event, durability) {
            let now = self.options.clock.now_roughly();
            return self.stage_at(event, time, bytes, now, durability);
        }
        let mut builder = super::Builder::new(&self.dictionary);
        builder.add_at(&self.dictionary, event, time);
        self.record_single(&mut builder, Durability::Memory)
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.asked.iter().map(ToString::to_string);
        f.debug_list().entries(words).finish()
    }
}
