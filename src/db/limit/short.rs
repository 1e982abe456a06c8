//! The short way: one constraint "at most" of one key, of which the event is, where that can be asked with the
//! least to do.
//!
//! Invariants
//! 1. What is decided here is what `db/limit/asking.rs` decides. The series is asked and the event is in it under
//!    one hold of its shard, and nobody has a lock of keys then, or nothing is reserved under the lock of this
//!    one, which is held (`db/limit/keys.rs`). Where that is not certain nothing was done, and it is asked there.
//! 2. Who is denied again by the same thread most often comes not even here (`db/limit/denials.rs`).
//!
//! Next: `db/limit/denials.rs`, then `db/limit/asking.rs`.

use super::answer::since;
use super::denials::Asker;
use super::limiter::Active;
use crate::db::Db;
use crate::db::staging::Question;
use crate::error::Result;
use crate::event::Event;
use crate::limit::{Plain, Verdict};
use crate::options::Durability;
use crate::policy::Constraint;
use crate::query::{Even, Keyed, Standing};
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
    /// What was found, and until when it is so; nothing where nobody may be asked without a lock.
    found: Option<(Plain, i64)>,
}

impl Question for Deciding<'_> {
    #[inline]
    fn ask(&mut self, series: Option<SeriesRef<'_>>) -> Answer {
        let Short { db, constraint, even, .. } = self.short;
        if !self.is_locked && !db.engine().limits.is_quiet() {
            return Answer::No;
        }
        let Some((summed, until)) = even.sum_of(series, self.now, self.most) else {
            return Answer::Unknown;
        };
        let plain = Plain::new(constraint.limit(), summed);
        self.found = Some((plain, until));
        if plain.holds_from > self.now.micros() { Answer::No } else { Answer::Yes }
    }

    #[inline]
    fn note_recorded(&mut self) {
        if let (Some(active), Some((plain, _))) = (self.short.policy, &self.found) {
            let used = plain.used.saturating_add(self.cost);
            active.tallies.allow_gathered(active.policy.is_near(used, plain.limit));
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
        let mut locked = None;
        loop {
            if locked.is_none() && !limits.is_quiet() {
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
            let is_locked = locked.is_some();
            let mut deciding = Deciding { short: self, most, cost, now, is_locked, found: None };
            let decided =
                engine.stage_if(event, (now, durability), versions, key, &mut deciding)?;
            let (plain, until) = match (&decided, deciding.found) {
                (Decided::Unknown, _) => {
                    drop(locked);
                    return otherwise();
                }
                // Somebody has locks of keys, or something is reserved.
                (_, None) => continue,
                (_, Some(found)) => found,
            };
            drop(locked);
            if let Decided::Refused(version) = decided {
                if self.policy.is_some_and(|active| active.policy.is_shadow()) {
                    return otherwise();
                }
                return Ok(self.deny(
                    &plain,
                    cost,
                    now,
                    version.map(|v| Standing { until, version: v }),
                ));
            }
            let used = plain.used.saturating_add(cost);
            return Ok(Verdict::Allowed {
                remaining: Some(limit.saturating_sub(used)),
                resets_in: Some(since(now.micros(), plain.fresh_leaves)),
            });
        }
    }

    #[inline(never)]
    fn deny(
        &self,
        plain: &Plain,
        cost: u64,
        now: Timestamp,
        standing: Option<Standing>,
    ) -> Verdict {
        if let Some(active) = self.policy {
            active.tallies.deny();
        }
        if let (Some(asker), Some(standing)) = (self.asker, standing) {
            asker.remember(plain, cost, now, standing);
        }
        Verdict::Denied(plain.denial(self.constraint, now))
    }
}
