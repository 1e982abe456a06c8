//! The short way: one constraint "at most" of one key, of which the event is, where that can be asked with the
//! least to do.
//!
//! Invariants
//! 1. What is decided here is what `db/limit/asking.rs` decides. The series is asked and the event is in it under
//!    one hold of its shard, and nobody has a lock of keys then, or nothing is reserved under the lock of this
//!    one, which is held (`db/limit/keys.rs`). Where that is not certain nothing was done, and it is asked there.
//! 2. As long as a limiter denies a thread, the series is asked beforehand: that takes the lock of its shard and
//!    nothing else that threads share, and what it says is remembered, so that who is denied again most often comes
//!    not even here (`db/limit/denials.rs`).
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
    /// Records an event that was checked, says no time, and is of the key, if it may happen now. Where that cannot be
    /// decided here nothing was done, and `otherwise` does it.
    #[inline]
    pub(super) fn decide(
        &self,
        event: &Event<'_>,
        durability: Durability,
        otherwise: impl FnOnce() -> Result<Verdict>,
    ) -> Result<Verdict> {
        let (limit, cost) = (self.constraint.limit(), event.count());
        let Some(most) = limit.checked_sub(cost) else { return otherwise() };
        let Some((versions, key)) = self.series.at_hand() else { return otherwise() };
        let engine = self.db.engine();
        let limits = &engine.limits;
        // What is found out elsewhere is noted all the same, so that the next one who is denied is remembered.
        let otherwise = || {
            let verdict = otherwise()?;
            if let Some(asker) = self.asker {
                asker.denials.note(!verdict.is_allowed());
            }
            Ok(verdict)
        };
        let (mut locked, mut is_quiet) = (None, true);
        loop {
            if locked.is_none() && !(is_quiet && limits.is_quiet()) {
                locked = limits.lock_unreserved(hash_key(key));
                if locked.is_none() {
                    return otherwise();
                }
            }
            let now = engine.now();
            if limits.steady(now) > now {
                drop(locked);
                return otherwise();
            }
            if let Some(asker) = self.asker.filter(|asker| asker.denials.has_denied())
                && let Some(verdict) = self.deny(asker, (now, cost, most))?
            {
                return Ok(verdict);
            }
            let is_locked = locked.is_some();
            let mut deciding = Deciding { short: self, most, cost, now, is_locked, found: None };
            let decided =
                engine.stage_if(event, (now, durability), versions, key, &mut deciding)?;
            let plain = match (&decided, deciding.found) {
                (Decided::Unknown, _) => {
                    drop(locked);
                    return otherwise();
                }
                (_, None) => {
                    is_quiet = false;
                    continue;
                }
                (_, Some(found)) => found,
            };
            let is_denied = matches!(decided, Decided::Refused);
            if let Some(asker) = self.asker {
                asker.denials.note(is_denied);
                if is_denied && let Some(verdict) = self.deny(asker, (now, cost, most))? {
                    return Ok(verdict);
                }
            }
            drop(locked);
            if is_denied {
                return self.denied(&plain, now).map_or_else(otherwise, Ok);
            }
            return Ok(Verdict::Allowed {
                remaining: Some(limit.saturating_sub(plain.used.saturating_add(cost))),
                resets_in: Some(since(now.micros(), plain.fresh_leaves)),
            });
        }
    }

    /// Looks whether it is denied, as the answer before was, with a lock of the shard alone, and remembers it; `None`: it
    /// is not, or that has to be found out otherwise.
    #[inline(never)]
    fn deny(
        &self,
        asker: Asker<'_>,
        (now, cost, most): (Timestamp, u64, u64),
    ) -> Result<Option<Verdict>> {
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
