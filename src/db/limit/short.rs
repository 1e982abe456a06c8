//! The short way: one constraint "at most" of one key, of which the event is, where that can be asked with the
//! least to do.
//!
//! Invariants
//! 1. What is decided here is what `db/limit/asking.rs` decides. The series is asked and the event is in it under
//!    one hold of its shard, and nobody has a lock of keys then, or nothing is reserved under the lock of this
//!    one, which is held (`db/limit/keys.rs`). Where that is not certain nothing was done, and it is asked there.
//! 2. As long as a limiter denies a thread, and no lock of the key is needed, the series is asked beforehand: that
//!    takes the lock of its shard and nothing else that threads share, and what it says is remembered, so that who is
//!    denied again most often comes not even here (`db/limit/denials.rs`).
//!
//! Next: `db/limit/denials.rs`, then `db/limit/asking.rs`.

use super::answer::since;
use super::denials::Asker;
use super::limiter::Active;
use crate::db::Db;
use crate::db::staging::Decider;
use crate::error::Result;
use crate::event::Event;
use crate::limit::{Plain, Verdict};
use crate::options::Durability;
use crate::policy::Constraint;
use crate::query::{Even, Keyed};
use crate::series::SeriesRef;
use crate::tier::apply::{Answer, Decided};
use crate::tier::hash_key;
use crate::time::Timestamp;
use std::sync::Arc;

/// What is asked.
pub(super) struct Short<'a> {
    pub(super) db: &'a Db,
    pub(super) constraint: &'a Arc<Constraint>,
    pub(super) series: Keyed<'a>,
    pub(super) even: &'a Even,
    pub(super) policy: Option<&'a Arc<Active>>,
    /// Who is to remember what is denied.
    pub(super) asker: Option<Asker<'a>>,
}

/// It, as a series is asked.
struct Deciding<'a> {
    short: &'a Short<'a>,
    most: u64,
    cost: u64,
    now: Timestamp,
    /// Whether the lock of the key is held.
    is_locked: bool,
    /// What was found; nothing where nobody may be asked without a lock.
    found: Option<Plain>,
}

/// What came of deciding, for a moment.
struct Attempt {
    now: Timestamp,
    came_to: CameTo,
}

enum CameTo {
    /// The event is recorded; what was found before.
    Allowed(Plain),
    /// It is not, for this was found.
    Denied(Plain),
    /// Nothing was done: that cannot be decided here,
    Nothing,
    /// or not without a lock.
    Disturbed,
}

impl Decider for Deciding<'_> {
    #[inline]
    fn ask(&mut self, series: Option<SeriesRef<'_>>) -> Answer {
        let Short { db, constraint, even, .. } = self.short;
        if !self.is_locked && !db.engine().limits.is_quiet() {
            return Answer::No;
        }
        let Some(summed) = even.sum_of(series, self.now, self.most) else {
            return Answer::Unknown;
        };
        let plain = Plain::new(constraint.limit(), summed);
        self.found = Some(plain);
        if plain.holds_from > self.now.micros() { Answer::No } else { Answer::Yes }
    }

    #[inline]
    fn note_recorded(&mut self, lane: usize) {
        if let (Some(active), Some(plain)) = (self.short.policy, &self.found) {
            let used = plain.used.saturating_add(self.cost);
            active.tallies.allow_in(lane, active.policy.is_near(used, plain.limit));
        }
    }
}

impl Short<'_> {
    /// Records an event that was checked, says no time, and is of the key, if it may happen now. (The clock was asked
    /// for that a moment ago.) Where it cannot be decided here nothing was done, and `otherwise` does it.
    #[inline]
    pub(super) fn decide(
        &self,
        event: &Event<'_>,
        (now, durability): (Timestamp, Durability),
        otherwise: &impl Fn() -> Result<Verdict>,
    ) -> Result<Verdict> {
        let limits = &self.db.engine().limits;
        let mut attempt = Attempt { now, came_to: CameTo::Disturbed };
        if limits.is_quiet() {
            // (What is not at hand may be a view that another one has taken the place of.)
            if let Some(asker) = &self.asker
                && asker.denials.has_denied()
                && self.series.at_hand().is_some()
                && let Some(verdict) = self.deny(*asker, event, now)?
            {
                return Ok(verdict);
            }
            attempt = self.attempt(event, (now, durability), false)?;
        }
        if let CameTo::Disturbed = attempt.came_to {
            attempt = self.attempt_locked(event, durability)?;
        }
        let Attempt { now, came_to } = attempt;
        let plain = match came_to {
            CameTo::Allowed(plain) => plain,
            other => return self.not_allowed(event, (now, other), otherwise),
        };
        if let Some(asker) = &self.asker {
            asker.denials.note(false);
        }
        let used = plain.used.saturating_add(event.count());
        Ok(Verdict::Allowed {
            remaining: Some(plain.limit.saturating_sub(used)),
            resets_in: Some(since(now.micros(), plain.fresh_leaves)),
        })
    }

    /// Decides about an event, and records it if it may happen.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call for each event, from two places")]
    fn attempt(
        &self,
        event: &Event<'_>,
        (now, durability): (Timestamp, Durability),
        is_locked: bool,
    ) -> Result<Attempt> {
        let came_to = |came_to| Ok(Attempt { now, came_to });
        let engine = self.db.engine();
        let cost = event.count();
        let Some(most) = self.constraint.limit().checked_sub(cost) else {
            return came_to(CameTo::Nothing);
        };
        let Some((versions, key)) = self.series.at_hand() else {
            return came_to(CameTo::Nothing);
        };
        if engine.limits.steady(now) > now {
            return came_to(CameTo::Nothing);
        }
        let mut deciding = Deciding { short: self, most, cost, now, is_locked, found: None };
        let key = (key, self.asker.as_ref().map(|asker| asker.text));
        let decided = engine.stage_if(event, (now, durability), versions, key, &mut deciding)?;
        came_to(match (decided, deciding.found) {
            (Decided::Unknown, _) => CameTo::Nothing,
            (_, None) => CameTo::Disturbed,
            (Decided::Refused, Some(plain)) => CameTo::Denied(plain),
            (Decided::Recorded { .. }, Some(plain)) => CameTo::Allowed(plain),
        })
    }

    /// The same with the lock of the key.
    #[cold]
    fn attempt_locked(&self, event: &Event<'_>, durability: Durability) -> Result<Attempt> {
        let engine = self.db.engine();
        let key = self.series.at_hand();
        let locked = key.and_then(|(_, key)| engine.limits.lock_unreserved(hash_key(key)));
        // Under the lock: of two events of a key that are recorded so the later one has the later time, to some
        // microseconds.
        let now = engine.now();
        match locked {
            Some(_locked) => self.attempt(event, (now, durability), true),
            None => Ok(Attempt { now, came_to: CameTo::Nothing }),
        }
    }

    /// What is said where an attempt did not allow it.
    #[inline(never)]
    fn not_allowed(
        &self,
        event: &Event<'_>,
        (now, came_to): (Timestamp, CameTo),
        otherwise: &impl Fn() -> Result<Verdict>,
    ) -> Result<Verdict> {
        if let CameTo::Denied(plain) = came_to {
            if let Some(asker) = self.asker {
                asker.denials.note(true);
                // (Where something may be reserved by now it is not asked again, but as it was found.)
                if self.db.engine().limits.is_quiet()
                    && let Some(verdict) = self.deny(asker, event, now)?
                {
                    return Ok(verdict);
                }
            }
            if let Some(verdict) = self.denied(&plain, now) {
                return Ok(verdict);
            }
        }
        let verdict = otherwise()?;
        // What is found out elsewhere is noted all the same, so that the next one who is denied is remembered.
        if let Some(asker) = self.asker {
            asker.denials.note(!verdict.is_allowed());
        }
        Ok(verdict)
    }

    /// Looks whether it is denied, as the answer before was, with a lock of the shard alone, and remembers it; `None`: it
    /// is not, or that has to be found out otherwise.
    #[inline(never)]
    fn deny(&self, asker: Asker<'_>, event: &Event<'_>, now: Timestamp) -> Result<Option<Verdict>> {
        let cost = event.count();
        let Some(most) = self.constraint.limit().checked_sub(cost) else { return Ok(None) };
        if self.db.engine().limits.steady(now) > now {
            return Ok(None);
        }
        let found = self.series.sum_at_version(self.even, now, most)?;
        let Some((summed, standing)) = found else { return Ok(None) };
        let plain = Plain::new(self.constraint.limit(), summed);
        if plain.holds_from <= now.micros() {
            return Ok(None);
        }
        let verdict = self.denied(&plain, now);
        if let (Some(_), Some(standing)) = (&verdict, standing) {
            asker.remember(&plain, cost, now, standing);
        }
        Ok(verdict)
    }

    /// What is said where it is denied, and counts it; `None` of a policy that refuses nothing.
    #[inline(never)]
    fn denied(&self, plain: &Plain, now: Timestamp) -> Option<Verdict> {
        if let Some(active) = self.policy {
            if active.policy.is_shadow() {
                return None;
            }
            active.tallies.deny();
        }
        Some(Verdict::Denied(plain.denial(self.constraint, now)))
    }
}
