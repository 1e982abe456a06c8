//! Limits on what is recorded: the question, and the recording that follows it, as one step.
//!
//! Invariants
//! 1. Whoever asks in order to record holds the locks of all keys that it asks, from before the first
//!    is read until the event is in the views that are asked ([`Live::at_once`]). So what two threads
//!    do is what they would do one after the other. Locks are taken in their order, each once.
//! 2. Nobody waits under them until what is recorded is durable. What is read may have to be read from
//!    the store.
//! 3. Nothing is let through that would not be counted. Where the clock was set back, or others recorded
//!    events ahead of it, what is ahead counts, and where a ring has let go of what a window needs nothing
//!    is allowed until it has all of it again (`query/counted.rs`).
//!
//! Next: `limit.rs`.

use super::{Db, Engine, Recorded};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::limit::{Bound, Constraint, Denial, Judged, Usage, Verdict, When, Window};
use crate::options::Durability;
use crate::query::SeriesQuery;
use crate::sync::{Mutex, MutexGuard};
use crate::tier::ViewTier;
use crate::time::{Schedule, Timestamp};
use crossbeam::utils::CachePadded;
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Locks of keys. Two keys may share one.
const LOCKS: usize = 256;
/// Rounds in which moments are looked for at which all constraints hold.
const ROUNDS: usize = 100;

/// What limits share: locks of keys (invariant 1).
pub(super) struct KeyLocks(Box<[CachePadded<Mutex<()>>]>);

impl KeyLocks {
    pub(super) fn new() -> Self {
        KeyLocks(std::iter::repeat_with(CachePadded::default).take(LOCKS).collect())
    }

    /// The locks of these keys (invariant 1).
    fn lock(&self, keys: impl Iterator<Item = u64>) -> SmallVec<[MutexGuard<'_, ()>; 4]> {
        let mut places: SmallVec<[usize; 4]> = keys.map(|key| key as usize % LOCKS).collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().map(|place| self.0[place].lock()).collect()
    }
}

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
    constraints: SmallVec<[Constraint; 1]>,
}

impl Db {
    /// A limit without constraints, which allows everything: add some.
    pub fn limit(&self) -> Limit {
        Limit { db: self.clone(), constraints: SmallVec::new() }
    }
}

/// The constraints of a limit as they stand.
type Cases<'a> = SmallVec<[Judged<'a>; 1]>;

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
        self.with(Bound::AtMost(n, window), series.as_ref())
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
        self.with(Bound::AtLeast(n, window), series.as_ref())
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
        self.with(Bound::Cooldown(length), series.as_ref())
    }

    /// Only while the last event of a series is less than so long ago: what must have happened lately.
    ///
    /// # Errors
    /// As [`Limit::cooldown`].
    pub fn within(self, series: impl AsRef<SeriesQuery>, length: Duration) -> Result<Self> {
        self.with(Bound::Within(length), series.as_ref())
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
        self.with_schedule(Bound::During, schedule)
    }

    /// Only while a [`Schedule`] is closed; as [`Limit::during`].
    ///
    /// # Errors
    /// As there.
    pub fn outside_of(self, schedule: Schedule) -> Result<Self> {
        self.with_schedule(Bound::OutsideOf, schedule)
    }

    fn with_schedule(
        mut self,
        bound: fn(Arc<Schedule>) -> Bound,
        schedule: Schedule,
    ) -> Result<Self> {
        let engine = self.db.engine();
        engine.check_open()?;
        let schedule = schedule.or_in_zone(engine.zone());
        self.constraints.push(Constraint::scheduled(bound(Arc::new(schedule))));
        Ok(self)
    }

    fn with(mut self, bound: Bound, series: &SeriesQuery) -> Result<Self> {
        let engine = self.db.engine();
        if !series.is_of(Arc::as_ptr(engine).addr()) {
            return Err(Error::invalid("a limit asks series of the store that it records to"));
        }
        // Any moment will do: whether the view's buckets reach back depends on the calendar only.
        let now = engine.options.clock.now_roughly();
        let constraint = Constraint::counted(bound, series.clone(), now)?;
        self.constraints.push(constraint);
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
        if n == 0 {
            return Err(Error::invalid("no event is always allowed; ask for one at least"));
        }
        let now = self.now();
        Ok(self.judge(&self.read(n, now)?, 0, now))
    }

    /// How much of each constraint is used now, in the order in which they were added.
    ///
    /// # Errors
    /// As [`Limit::check`].
    pub fn usage(&self) -> Result<Vec<Usage>> {
        let now = self.now();
        let judged = self.read(1, now)?;
        let usage = |(constraint, judged): (&Constraint, &Judged<'_>)| Usage {
            constraint: constraint.to_string(),
            limit: constraint.limit(),
            used: judged.counted_at(now.micros()),
            resets_in: since(now.micros(), judged.clears(now.micros(), false)),
        };
        Ok(self.constraints.iter().zip(&judged).map(usage).collect())
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
        if event.time.is_some() {
            return Err(Error::invalid(
                "an event that is limited happens now: it says no time of its own",
            ));
        }
        event.check()?;
        let engine = self.db.engine();
        let series = || self.constraints.iter().filter_map(Constraint::series);
        series().try_for_each(SeriesQuery::apply_at_once)?;
        let locked = engine.limits.lock(series().flat_map(SeriesQuery::key_numbers));
        // Under the locks: of two events of a key the later one has the later time.
        let now = self.now();
        let verdict = self.judge(&self.read(event.count(), now)?, event.count(), now);
        if !verdict.is_allowed() {
            return Ok(verdict);
        }
        let recorded = engine.record_at(event, now, durability)?;
        drop(locked);
        engine.acknowledge(recorded.position.get(), durability)?;
        Ok(verdict)
    }

    fn now(&self) -> Timestamp {
        self.db.engine().now()
    }

    /// Reads what the constraints ask, for an event of this cost.
    fn read(&self, cost: u64, now: Timestamp) -> Result<Cases<'_>> {
        self.constraints.iter().map(|constraint| constraint.judge(cost, now)).collect()
    }

    /// What the constraints say about events of which so many are about to be recorded.
    fn judge(&self, judged: &[Judged<'_>], recorded: u64, now: Timestamp) -> Verdict {
        let now = now.micros();
        let mut last: Option<(usize, When)> = None;
        for (index, judged) in judged.iter().enumerate() {
            let when = judged.earliest(now);
            if when != When::At(now) && last.is_none_or(|(_, last)| when > last) {
                last = Some((index, when));
            }
        }
        if let Some((index, when)) = last {
            return Verdict::Denied(self.denial(judged, index, when, now));
        }
        let at_most = self.constraints.iter().zip(judged).filter(|(asked, _)| asked.is_at_most());
        let left = at_most.map(|(asked, judged)| {
            let used = judged.counted_at(now).saturating_add(recorded);
            (asked.limit().saturating_sub(used), judged.clears(now, recorded > 0))
        });
        let tightest = left.min_by_key(|(remaining, clears)| (*remaining, -*clears));
        Verdict::Allowed {
            remaining: tightest.map(|(remaining, _)| remaining),
            resets_in: tightest.map(|(_, clears)| since(now, clears)),
        }
    }

    #[cold]
    fn denial(&self, judged: &[Judged<'_>], index: usize, when: When, now: i64) -> Denial {
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
        let constraint = &self.constraints[index];
        Denial {
            index,
            constraint: constraint.to_string(),
            limit: constraint.limit(),
            used: judged[index].counted_at(now),
            retry_after: match at {
                When::At(at) if is_found => Some(since(now, at)),
                _ => None,
            },
            is_too_much: when == When::Never && constraint.is_at_most(),
        }
    }
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
            return self.stage_at(event, time, bytes, self.now(), durability);
        }
        let mut builder = super::Builder::new(&self.dictionary);
        builder.add_at(&self.dictionary, event, time);
        self.record_single(&mut builder, Durability::Memory)
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.constraints.iter().map(ToString::to_string);
        f.debug_list().entries(words).finish()
    }
}
