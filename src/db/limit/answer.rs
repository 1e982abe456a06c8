//! What a limit says, from what its constraints have counted: whether, how much is left, and when.
//!
//! Next: `limit/asked.rs`.

use super::asking::{Asking, subjects};
use super::keys::Locked;
use crate::error::Result;
use crate::limit::{Denial, Judged, Plain, Question, Verdict, When};
use crate::time::Timestamp;
use smallvec::SmallVec;
use std::time::Duration;

/// Rounds in which moments are looked for at which all constraints hold.
const ROUNDS: usize = 100;

/// The constraints of a limit as they stand.
pub(super) type Cases<'a> = SmallVec<[Judged<'a>; 1]>;

/// What a limit says, and by what.
pub(super) enum Answer<'a> {
    /// Each constraint holds, or the only one does not.
    Plain(SmallVec<[Plain; 1]>),
    Judged(Cases<'a>),
}

impl<'a> Asking<'a> {
    /// Finds out what the constraints say, for an event of this cost.
    #[inline]
    pub(super) fn read(
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
    pub(super) fn judge(
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
    pub(super) fn say(&self, answer: &Answer<'_>, recorded: u64, now: Timestamp) -> Verdict {
        let is_at_most = |asked: &Question<'_>| asked.constraint.is_at_most();
        let left = |asked: Question<'_>, used: u64| {
            asked.constraint.limit().saturating_sub(used.saturating_add(recorded))
        };
        let tightest = match answer {
            Answer::Plain(plain) => {
                if let [plain] = plain.as_slice()
                    && plain.holds_from > now.micros()
                {
                    return Verdict::Denied(plain.denial(self.question(0).constraint, now));
                }
                let left = self.questions().zip(plain).map(|(asked, plain)| {
                    let clears = if recorded > 0 { plain.fresh_leaves } else { plain.clears };
                    (left(asked, plain.used), clears)
                });
                left.min_by_key(|(remaining, clears)| (*remaining, -*clears))
            }
            Answer::Judged(judged) => {
                let now = now.micros();
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
            resets_in: tightest.map(|(_, clears)| since(now.micros(), clears)),
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
    pub(super) fn count(&self, verdict: &Verdict, answer: &Answer<'_>, cost: u64, now: Timestamp) {
        let Some(active) = &self.policy else { return };
        if !verdict.is_allowed() {
            active.tallies.deny();
            return;
        }
        let used = |index: usize| match answer {
            Answer::Plain(plain) => plain[index].used,
            Answer::Judged(judged) => judged[index].counted_at(now.micros()),
        };
        let is_near = |(index, asked): (usize, Question<'_>)| {
            let limit = asked.constraint.limit();
            asked.constraint.is_at_most()
                && active.policy.is_near(used(index).saturating_add(cost), limit)
        };
        active.tallies.allow(self.questions().enumerate().any(is_near));
    }
}

/// How long it is until then.
pub(super) fn since(now: i64, then: i64) -> Duration {
    Duration::from_micros(then.saturating_sub(now).max(0) as u64)
}
