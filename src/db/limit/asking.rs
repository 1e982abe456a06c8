//! Limits as they are asked: the question, and the recording that follows it, as one step.
//!
//! Invariants
//! 1. Whoever asks in order to record or to reserve, and does not go the short way, holds the locks of all keys that it asks, from before
//!    the first is read, or as if from then on (`db/limit/keys.rs`), until the event is in the views that are
//!    asked (`db/live.rs`), or the reservation is made. So what two threads do is what they would do one
//!    after the other. Locks are taken in their order, each once.
//! 2. Nobody waits under them until what is recorded is durable. What is read may have to be read from
//!    the store.
//! 3. Nothing is let through that would not be counted. Where the clock was set back, limits of keys that
//!    have events ahead of it go by one that was not (`db/limit/keys.rs`). What others record ahead of
//!    either counts, and where a ring has let go of what a window needs nothing is allowed until it has all
//!    of it again (`query/counted.rs`).
//!
//! Next: `db/limit/answer.rs`, then `limit.rs`.

use super::answer::since;
use super::keys::{Locked, Subject};
use super::limiter::{Active, BoundRule};
use super::short::Short;
use crate::db::{Builder, Db, Engine, Recorded};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::limit::{Asked, Denial, Judged, Question, Usage, Used, Verdict, Whom};
use crate::options::Durability;
use crate::query::{AskedKey, Keyed};
use crate::time::Timestamp;
use smallvec::SmallVec;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// A limit as it is asked: of a [`Limit`], or of a [`Limiter`] and an event.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) db: &'a Db,
    pub(super) whose: Whose<'a>,
    pub(super) policy: Option<&'a Arc<Active>>,
}

/// Whose constraints are asked.
#[derive(Clone, Copy)]
pub(super) enum Whose<'a> {
    Limit(&'a [Asked]),
    /// A policy's, and the event's keys in the views that they ask, one after the other.
    Limiter(&'a [BoundRule], &'a [AskedKey]),
}

impl<'a> Asking<'a> {
    /// How many constraints there are.
    #[inline]
    pub(super) fn len(self) -> usize {
        match self.whose {
            Whose::Limit(asked) => asked.len(),
            Whose::Limiter(rules, _) => rules.len(),
        }
    }

    #[inline]
    pub(super) fn question(self, index: usize) -> Question<'a> {
        match self.whose {
            Whose::Limit(asked) => asked[index].question(),
            Whose::Limiter(rules, keys) => rules[index].question(&keys[index..=index]),
        }
    }

    /// What is asked, in the order of the constraints.
    #[inline]
    pub(super) fn questions(self) -> impl Iterator<Item = Question<'a>> + Clone {
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
        let long = || self.decide(event, durability);
        match self.short(event) {
            Some(short) => short.decide(event, (self.db.engine().now(), durability), &long),
            None => long(),
        }
    }

    /// The long way.
    fn decide(&self, event: &Event<'_>, durability: Durability) -> Result<Verdict> {
        let engine = self.db.engine();
        let cost = event.count();
        let mut locked = match self.enter(cost)? {
            Ok(locked) => Some(locked),
            Err(denial) => return Ok(Verdict::Denied(denial)),
        };
        // Under the locks: of two events of a key that are recorded so the later one has the later time, to some
        // microseconds.
        let now = self.moment(&mut locked)?;
        let answer = self.read(cost, &mut locked, now)?;
        let verdict = self.say(&answer, cost, now);
        if !verdict.is_allowed() && !self.is_shadow() {
            self.count(&verdict, &answer, cost, now);
            return Ok(verdict);
        }
        let present = engine.options.clock.now_roughly();
        let position = engine.record_untold(event, now, present, durability)?;
        self.count(&verdict, &answer, cost, now);
        drop(locked);
        if let Some(position) = position {
            engine.acknowledge(position, durability)?;
        }
        Ok(self.lenient(verdict))
    }

    /// The short way, where there is one; a limiter has tried that of a key of one part.
    fn short(&self, event: &Event<'_>) -> Option<Short<'a>> {
        if self.len() != 1 || matches!(self.whose, Whose::Limiter(_, [AskedKey::One(_)])) {
            return None;
        }
        let Question { constraint, series, refunds: None, even } = self.question(0) else {
            return None;
        };
        let (db, policy) = (self.db, self.policy);
        let (series, even) = (series?, even?);
        let is_of = matches!(self.whose, Whose::Limiter(..)) || series.is_of(event);
        is_of.then_some(Short { db, constraint, series, even, policy, asker: None })
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
    pub(super) fn enter(&self, cost: u64) -> Result<std::result::Result<Locked<'a>, Denial>> {
        if let Some(denial) = self.refused_by_caller() {
            if let Some(policy) = &self.policy {
                policy.tallies.deny();
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
                policy.tallies.deny();
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
    pub(super) fn lock_with(&self, others: SmallVec<[u64; 2]>) -> Locked<'a> {
        self.db.engine().limits.lock(self.series().flat_map(Keyed::number).chain(others))
    }

    pub(super) fn is_shadow(&self) -> bool {
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
    pub(super) fn moment(&self, locked: &mut Option<Locked<'_>>) -> Result<Timestamp> {
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
}

/// The series that something is reserved of: where a key has no number nothing is.
pub(super) fn subjects(series: Keyed<'_>) -> SmallVec<[Subject; 2]> {
    let view = xxh3_64(series.query().view().name().as_bytes());
    series.numbers().flatten().map(|key| (view, key)).collect()
}

pub(super) fn check_of_now(event: &Event<'_>) -> Result<()> {
    if event.time.is_some() {
        return Err(Error::invalid(
            "an event that is limited happens now: it says no time of its own",
        ));
    }
    event.check()
}

impl Engine {
    /// Records an event as [`record_at`](Engine::record_at), of which nobody is told the position; gives that if it is to
    /// be waited for.
    fn record_untold(
        &self,
        event: &Event<'_>,
        time: Timestamp,
        now: Timestamp,
        durability: Durability,
    ) -> Result<Option<u64>> {
        if let Some(bytes) = self.is_staged(event, durability) {
            return self.stage_untold(event, time, bytes, now, durability).map(|()| None);
        }
        let recorded = self.record_at(event, time, now, durability)?;
        Ok(Some(recorded.position.get()))
    }

    /// Records an event that was checked and happens at `time`, without waiting for the disk; the store's
    /// clock says `now`, or roughly that.
    pub(super) fn record_at(
        &self,
        event: &Event<'_>,
        time: Timestamp,
        now: Timestamp,
        durability: Durability,
    ) -> Result<Recorded> {
        if let Some(bytes) = self.is_staged(event, durability) {
            return self.stage_at(event, time, bytes, now, durability);
        }
        let mut builder = Builder::new(&self.dictionary);
        builder.add_at(&self.dictionary, event, time);
        self.record_single(&mut builder, Durability::Memory)
    }
}
