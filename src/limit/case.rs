//! Cases: constraints brought into one form, from which all answers follow.
//!
//! ```text
//! counted(t) = sum of the counts of all parts with  enters <= t < leaves
//! at most n:   counted(t) + cost <= n          at least n:   counted(t) >= n
//! ```
//! `counted` changes only where a part enters or leaves, so the first moment at which a bound holds is
//! where one is asked from, or one of those.

use smallvec::SmallVec;

/// Events that count from a moment until another, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) enters: i64,
    pub(crate) leaves: i64,
    pub(crate) count: u64,
}

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
}

/// What a constraint counts, and its bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) parts: SmallVec<[Part; 2]>,
    pub(crate) sum: Sum,
    pub(crate) cost: u64,
}

impl Case {
    pub(crate) fn counted(&self, at: i64) -> u64 {
        let parts = self.parts.iter().filter(|part| part.enters <= at && at < part.leaves);
        parts.fold(0, |sum, part| sum.saturating_add(part.count))
    }

    fn holds(&self, at: i64) -> bool {
        self.is_met(i128::from(self.counted(at)))
    }

    /// The first moment from `from` on at which it holds.
    pub(crate) fn earliest(&self, from: i64) -> When {
        if self.holds(from) {
            return When::At(from);
        }
        let at_most = match self.sum {
            Sum::AtMost(n) if self.cost > n => return When::Never,
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
            Sum::AtMost(n) => sum + i128::from(self.cost) <= i128::from(n),
            Sum::AtLeast(n) => sum >= i128::from(n),
        }
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
        self.parts.iter().map(|part| part.leaves).fold(from, i64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cases() -> impl Strategy<Value = Case> {
        let part = (0_i64..60, 0_i64..30, 1_u64..5).prop_map(|(enters, length, count)| Part {
            enters,
            leaves: enters + length,
            count,
        });
        let sum = (any::<bool>(), 0_u64..9)
            .prop_map(|(most, n)| if most { Sum::AtMost(n) } else { Sum::AtLeast(n) });
        (prop::collection::vec(part, 0..12), sum, 0_u64..6).prop_map(|(parts, sum, cost)| Case {
            parts: parts.into(),
            sum,
            cost,
        })
    }

    proptest! {
        #[test]
        fn the_earliest_moment_is_the_first_of_all_at_which_it_holds(case in cases(), from in 0_i64..99) {
            // By trying every moment; nothing changes behind the last one.
            let first = (from..200).find(|at| {
                let mut sum = 0;
                for part in &case.parts {
                    if (part.enters..part.leaves).contains(at) {
                        sum += part.count;
                    }
                }
                match case.sum {
                    Sum::AtMost(n) => sum + case.cost <= n,
                    Sum::AtLeast(n) => sum >= n,
                }
            });
            match case.earliest(from) {
                When::At(at) => prop_assert_eq!(Some(at), first),
                When::Open | When::Never => prop_assert_eq!(None, first),
            }
            let too_much = matches!(case.sum, Sum::AtMost(n) if case.cost > n);
            prop_assert_eq!(case.earliest(from) == When::Never, too_much);
            prop_assert_eq!(case.counted(case.clears(from)), 0);
        }
    }

    #[test]
    fn sums_that_do_not_fit_do_not_wrap() {
        let part = |count| Part { enters: 0, leaves: 9, count };
        let parts = [part(u64::MAX), part(2)].into_iter().collect();
        let case = Case { parts, sum: Sum::AtMost(u64::MAX), cost: u64::MAX };
        assert_eq!((case.counted(3), case.earliest(3)), (u64::MAX, When::At(9)));
    }
}
