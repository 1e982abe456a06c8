//! Cases: constraints brought into one form, from which all answers follow.
//!
//! ```text
//! counted(t) = sum of the counts of all parts with  enters <= t < leaves
//! at most n:   counted(t) + cost <= n          at least n:   counted(t) >= n
//! at most n, coming back as rate in each period, where the parts that are in came at their `at`:
//!     level(t) = the greatest of 0 and, for every part, (what came with it and since) - rate * (t - at)
//!     level(t) + cost <= n, in events; all of it times the period, so that there are no fractions
//!     and no less than if it was n at the moment before which nothing is known, and no event, also of those
//!     that have left, brought it above n: it was no more than that, for none was let through above n
//! ```
//! `counted` changes only where a part enters or leaves, so the first moment at which a bound holds is
//! where one is asked from, or one of those. `level` never rises by itself.

use crate::query::Part;
use smallvec::SmallVec;

/// When a bound holds, if nothing else happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum When {
    /// From this moment on, or only at it.
    At(i64),
    /// Never, unless something happens.
    Open,
    /// Never.
    Never,
}

/// A bound on what counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    AtMost(u64),
    AtLeast(u64),
    /// At most `n` at once; `rate` come back in each `period` of so many microseconds.
    /// What was before `full_at` is not known; at `i64::MIN` nothing was.
    Level {
        n: u64,
        rate: u64,
        period: i64,
        full_at: i64,
    },
}

/// What a constraint counts, and its bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) parts: SmallVec<[Part; 2]>,
    pub(crate) sum: Sum,
    pub(crate) cost: u64,
}

impl Case {
    /// The number that counts: of a level, rounded up to whole events.
    pub(crate) fn counted(&self, at: i64) -> u64 {
        if let Sum::Level { period, .. } = self.sum {
            return u64::try_from(self.level(at).div_ceil(period as u128)).unwrap_or(u64::MAX);
        }
        let parts = self.parts.iter().filter(|part| part.enters <= at && at < part.leaves);
        parts.fold(0, |sum, part| sum.saturating_add(part.count))
    }

    /// The level at a moment, in events times the period.
    fn level(&self, at: i64) -> u128 {
        let Sum::Level { n, rate, period, full_at } = self.sum else { return 0 };
        // An event that is ahead is there all the same, and does not sink yet.
        let is_there = |part: &&Part| at < part.leaves || part.is_recorded();
        let parts = self.parts.iter().filter(is_there);
        let parts = parts.map(|part| (part.at.min(at), part.count, at < part.leaves));
        let mut parts: SmallVec<[(i64, u64, bool); 64]> = parts.collect();
        parts.sort_unstable();
        let of = |count: u64| u128::from(count) * period as u128;
        let sunk = |from: i64, to: i64| u128::from(to.abs_diff(from)) * u128::from(rate);
        let (mut level, mut before) = (0_u128, i64::MIN);
        let (mut most, mut most_before) = (of(n), full_at.min(at));
        for (came, count, is_in) in parts.into_iter().chain([(at, 0, true)]) {
            if is_in {
                level = level.saturating_sub(sunk(before, came)).saturating_add(of(count));
                before = came;
            }
            let came = came.max(most_before);
            most = most.saturating_sub(sunk(most_before, came)).saturating_add(of(count));
            (most, most_before) = (most.min(of(n)), came);
        }
        level.max(most)
    }

    fn holds(&self, at: i64) -> bool {
        match self.sum {
            Sum::Level { n, period, .. } => {
                let cost = u128::from(self.cost) * period as u128;
                self.level(at).saturating_add(cost) <= u128::from(n) * period as u128
            }
            Sum::AtMost(_) | Sum::AtLeast(_) => self.is_met(i128::from(self.counted(at))),
        }
    }

    /// The first moment from `from` on at which it holds.
    pub(crate) fn earliest(&self, from: i64) -> When {
        if self.holds(from) {
            return When::At(from);
        }
        let at_most = match self.sum {
            Sum::AtMost(n) | Sum::Level { n, .. } if self.cost > n => return When::Never,
            Sum::Level { .. } => return When::At(self.sunk(from, |at| self.holds(at))),
            Sum::AtMost(_) => true,
            Sum::AtLeast(_) => false,
        };
        if let Some(at) = self.newest_first(from).filter(|_| at_most) {
            return When::At(at);
        }
        let mut changes: SmallVec<[(i64, i128); 16]> = SmallVec::new();
        let mut sum = 0_i128;
        for part in &self.parts {
            let count = i128::from(part.count);
            if part.leaves <= from || part.leaves <= part.enters {
                continue;
            }
            if part.enters <= from {
                sum += count;
            } else {
                changes.push((part.enters, count));
            }
            changes.push((part.leaves, -count));
        }
        changes.sort_unstable();
        let mut changes = changes.into_iter().peekable();
        while let Some((at, change)) = changes.next() {
            sum += change;
            if changes.peek().is_none_or(|(next, _)| *next > at) && self.is_met(sum) {
                return When::At(at);
            }
        }
        When::Open
    }

    fn is_met(&self, sum: i128) -> bool {
        match self.sum {
            Sum::AtMost(n) | Sum::Level { n, .. } => sum + i128::from(self.cost) <= i128::from(n),
            Sum::AtLeast(n) => sum >= i128::from(n),
        }
    }

    /// When a level has sunk far enough: it only sinks, so by halving.
    fn sunk(&self, from: i64, is_enough: impl Fn(i64) -> bool) -> i64 {
        if is_enough(from) {
            return from;
        }
        // Then all parts have left, and an empty level has room for what the limit has room for.
        let (mut above, mut below) = (from, self.last_leaves(from));
        while above.saturating_add(1) < below {
            let between = above + ((i128::from(below) - i128::from(above)) / 2) as i64;
            if is_enough(between) {
                below = between;
            } else {
                above = between;
            }
        }
        below
    }

    /// When there is room where all parts are in and the newest is the first, as they are read: the
    /// oldest of those that fill the limit has to leave.
    fn newest_first(&self, from: i64) -> Option<i64> {
        let is_in = self.parts.iter().all(|part| part.enters <= from);
        if !is_in || !self.parts.is_sorted_by(|newer, older| newer.leaves >= older.leaves) {
            return None;
        }
        let mut sum = 0;
        let mut counting = self.parts.iter().take_while(|part| part.leaves > from);
        counting.find_map(|part| {
            sum += i128::from(part.count);
            (!self.is_met(sum)).then_some(part.leaves)
        })
    }

    /// The first moment from `from` on at which nothing of it counts any more.
    pub(crate) fn clears(&self, from: i64) -> i64 {
        match self.sum {
            Sum::Level { .. } => self.sunk(from, |at| self.level(at) == 0),
            Sum::AtMost(_) | Sum::AtLeast(_) => self.last_leaves(from),
        }
    }

    fn last_leaves(&self, from: i64) -> i64 {
        let from = match self.sum {
            Sum::Level { n, rate, period, full_at } if full_at > i64::MIN => {
                let whole = (u128::from(n) * period as u128).div_ceil(u128::from(rate));
                from.max(full_at.saturating_add(i64::try_from(whole).unwrap_or(i64::MAX)))
            }
            _ => from,
        };
        self.parts.iter().map(|part| part.leaves).fold(from, i64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cases() -> impl Strategy<Value = Case> {
        let part = (0_i64..60, 0_i64..30, 0_i64..9, 1_u64..5);
        let part = part.prop_map(|(enters, length, later, count)| Part {
            enters,
            leaves: enters + length,
            at: enters + later,
            bucket: (0, 0),
            count,
        });
        let sum = (0..4, 0_u64..9, 1_u64..5, 1_i64..20, -20_i64..60);
        let sum = sum.prop_map(|(kind, n, rate, period, full_at)| match kind {
            0 => Sum::AtMost(n),
            1 => Sum::AtLeast(n),
            2 => Sum::Level { n, rate, period, full_at: i64::MIN },
            _ => Sum::Level { n, rate, period, full_at },
        });
        let cases = (prop::collection::vec(part, 0..12), sum, 0_u64..6);
        cases.prop_map(|(parts, sum, cost)| {
            let mut parts: SmallVec<[Part; 2]> = parts.into();
            if let Sum::Level { n, rate, period, .. } = sum {
                // None leaves before a whole burst has sunk, as where they are read.
                let whole = (n * period as u64).div_ceil(rate) as i64;
                parts
                    .iter_mut()
                    .for_each(|part| part.leaves += part.at - part.enters + whole.max(1));
            }
            Case { parts, sum, cost }
        })
    }

    /// The level where it was full at a moment and no event brought it above, moment by moment.
    fn most(case: &Case, at: i64) -> i64 {
        let Sum::Level { n, rate, period, full_at } = case.sum else { return 0 };
        // Before all parts it has sunk.
        let (first, full) = (full_at.max(-300).min(at), n as i64 * period);
        let mut most = full;
        for moment in first..=at {
            let comes = |part: &&Part| part.at.min(at).max(first) == moment;
            let count: u64 = case.parts.iter().filter(comes).map(|part| part.count).sum();
            let sinks = if moment > first { rate as i64 } else { 0 };
            most = ((most - sinks).max(0) + count as i64 * period).min(full);
        }
        most
    }

    /// By the definition.
    fn holds(case: &Case, at: i64) -> bool {
        let mut sum = 0;
        for part in &case.parts {
            if (part.enters..part.leaves).contains(&at) {
                sum += part.count;
            }
        }
        match case.sum {
            Sum::AtMost(n) => sum + case.cost <= n,
            Sum::AtLeast(n) => sum >= n,
            Sum::Level { n, rate, period, .. } => {
                let there = case.parts.iter().filter(|part| at < part.leaves);
                let came = |part: &Part| part.at.min(at);
                let since = |first: &Part| -> i64 {
                    let since = there.clone().filter(|part| came(part) >= came(first));
                    let count: u64 = since.map(|part| part.count).sum();
                    count as i64 * period - rate as i64 * (at - came(first))
                };
                let level = there.clone().map(since).max().unwrap_or(0).max(0);
                level.max(most(case, at)) + case.cost as i64 * period <= n as i64 * period
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn the_earliest_moment_is_the_first_of_all_at_which_it_holds(case in cases(), from in 0_i64..99) {
            // By trying every moment; nothing changes behind the last one.
            let first = (from..400).find(|at| holds(&case, *at));
            match case.earliest(from) {
                When::At(at) => prop_assert_eq!(Some(at), first),
                When::Open | When::Never => prop_assert_eq!(None, first),
            }
            let is_at_most = matches!(case.sum, Sum::AtMost(n) | Sum::Level { n, .. } if case.cost > n);
            prop_assert_eq!(case.earliest(from) == When::Never, is_at_most);
            prop_assert_eq!(case.counted(case.clears(from)), 0);
        }
    }

    #[test]
    fn sums_that_do_not_fit_do_not_wrap() {
        let part = |count| Part { enters: 0, leaves: 9, at: 0, bucket: (0, 0), count };
        let parts: SmallVec<_> = [part(u64::MAX), part(2)].into_iter().collect();
        let case = Case { parts, sum: Sum::AtMost(u64::MAX), cost: u64::MAX };
        assert_eq!((case.counted(3), case.earliest(3)), (u64::MAX, When::At(9)));
        let full_at = i64::MIN;
        let sum = Sum::Level { n: u64::MAX, rate: u64::MAX, period: i64::MAX, full_at };
        let case = Case { sum, ..case };
        assert_eq!((case.counted(0), case.earliest(3)), (u64::MAX, When::At(9)));
        let whole =
            Part { enters: i64::MIN, leaves: i64::MAX, at: i64::MAX, bucket: (0, 0), count: 1 };
        let case = Case {
            parts: [whole].into_iter().collect(),
            cost: 1,
            sum: Sum::Level { n: 1, rate: 1, period: 1, full_at },
        };
        assert_eq!(case.earliest(i64::MIN), When::At(i64::MAX));
    }
}
