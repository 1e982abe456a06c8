//! The short way: one constraint "at most" of one key, where it can be asked with the least to do.
//!
//! Invariants
//! 1. What is decided here is what `db/limit/asking.rs` decides, and what is recorded is under the same lock.
//!    Where that is not certain beforehand, nothing was done, and it is asked there.
//! 2. While nothing is reserved, who is denied writes nothing that all threads share but the lock of the
//!    shard that is read, and a version of its that nobody took along since it was raised.
//!
//! Next: `db/limit/denials.rs`, then `db/limit/asking.rs`.

use super::answer::since;
use super::denials::Asker;
use super::limiter::Active;
use crate::db::Db;
use crate::error::Result;
use crate::event::Event;
use crate::limit::{Plain, Verdict};
use crate::options::Durability;
use crate::policy::Constraint;
use crate::query::{Even, Keyed};
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

impl Short<'_> {
    /// Records an event that was checked, and says no time, if it may happen now. `None`: nothing was done.
    #[inline]
    pub(super) fn decide(
        self,
        event: &Event<'_>,
        durability: Durability,
    ) -> Result<Option<Verdict>> {
        let Short { db, constraint, series, even, policy, asker } = self;
        let (limit, cost) = (constraint.limit(), event.count());
        let (Some(most), Some(key)) = (limit.checked_sub(cost), series.at_hand()) else {
            return Ok(None);
        };
        let engine = db.engine();
        let limits = &engine.limits;
        let times = limits.times(key);
        let mut locked = None;
        if limits.has_held() {
            let Some(guard) = limits.lock_unreserved(key) else { return Ok(None) };
            locked = Some(guard);
        }
        let (now, plain) = loop {
            let now = engine.now();
            if limits.steady(now) > now {
                return Ok(None);
            }
            let summed = match asker {
                Some(_) => series.sum_at_version(even, now, most)?,
                None => series.sum_evenly(even, now, most)?.map(|summed| (summed, None)),
            };
            let Some((summed, standing)) = summed else { return Ok(None) };
            let plain = Plain::new(limit, summed);
            if plain.holds_from > now.micros() {
                drop(locked);
                if let Some(active) = policy {
                    if active.policy.is_shadow() {
                        return Ok(None);
                    }
                    active.tallies.deny();
                }
                if let (Some(asker), Some(standing)) = (asker, standing) {
                    asker.remember(&plain, cost, now, standing);
                }
                return Ok(Some(Verdict::Denied(plain.denial(constraint, now))));
            }
            if locked.is_some() {
                break (now, plain);
            }
            let Some(guard) = limits.lock_unreserved(key) else { return Ok(None) };
            let is_alone = guard.times() == times;
            locked = Some(guard);
            if is_alone {
                break (now, plain);
            }
        };
        let recorded = engine.record_at(event, now, now, durability, series.sym())?;
        drop(locked);
        let used = plain.used.saturating_add(cost);
        if let Some(active) = policy {
            active.tallies.allow(active.policy.is_near(used, limit));
        }
        engine.acknowledge(recorded.position.get(), durability)?;
        Ok(Some(Verdict::Allowed {
            remaining: Some(limit.saturating_sub(used)),
            resets_in: Some(since(now.micros(), plain.fresh_leaves)),
        }))
    }
}
