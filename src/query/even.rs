//! Sums over windows in buckets that are all equally long: what most limits ask for.
//!
//! Of such buckets it does not depend on the moment which grain has them and by when they leave, so that is
//! found out once, and a sum is one walk back over a ring.
//!
//! Invariants
//! 1. A sum is what [`Keyed::sum_back`] finds, or there is none.
//! 2. As long as the series is not changed, nothing of a sum changes before the oldest bucket that counts
//!    leaves, but for what depends on the present by itself: nothing else leaves before, nothing enters.
//!
//! Next: `query/counted.rs`.

use super::counted::{Back, Keyed, Summed, fitting};
use crate::error::Result;
use crate::series::{ALWAYS, SeriesRef, SumFrom};
use crate::time::{Keep, TimeZone, Timestamp};
use crate::versions::Version;
use crate::view::View;
use std::ops::ControlFlow;

/// How far back something is counted in which buckets, where these are all equally long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Even {
    /// The place of the grain in the view.
    at: usize,
    keep: Keep,
    /// The length of a bucket, in microseconds.
    unit: i64,
    span: Span,
}

/// For how long a sum stands (invariant 2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// The first moment at which it does not any more.
    pub(crate) until: i64,
    /// As long as this one is current.
    pub(crate) version: Version,
}

#[derive(Clone, Copy, Debug)]
enum Span {
    /// As of [`Back::Rolling`].
    Micros(i64),
    /// As of [`Back::Buckets`].
    Buckets(i64),
}

impl Even {
    /// How the series of a view are asked, where everything counts that may be in the window. `None`: that
    /// is for [`Keyed::sum_back`] to find out each time.
    pub(crate) fn new(view: &View, zone: TimeZone, back: Back) -> Option<Self> {
        let span = match back {
            Back::Rolling { micros, is_certain: false } => Span::Micros(micros),
            Back::Buckets { n, is_certain: false, .. } => Span::Buckets(i64::from(n)),
            _ => return None,
        };
        for of in fitting(view, zone, back) {
            let even = Even { at: of.at, keep: of.keep, unit: zone.even(of.grain)?, span };
            // Of such buckets it is always as many, whichever is the present one.
            let present = 0;
            if even.keep.oldest(present) <= even.first(present) {
                return Some(even);
            }
        }
        None
    }

    /// The first bucket that has to do with what counts at `now`.
    #[inline]
    fn first(&self, now: i64) -> i64 {
        match self.span {
            Span::Micros(micros) => now.saturating_sub(micros - 1).div_euclid(self.unit),
            Span::Buckets(n) => now.div_euclid(self.unit).saturating_sub(n - 1),
        }
    }

    /// The first moment at which a bucket does not count any more, of a series whose last event was then.
    #[inline]
    fn leaves(&self, number: i64, last: i64) -> i64 {
        match self.span {
            Span::Micros(micros) => {
                let end = number.saturating_add(1).saturating_mul(self.unit);
                (end - 1).min(last).saturating_add(micros)
            }
            Span::Buckets(n) => number.saturating_add(n).saturating_mul(self.unit),
        }
    }

    /// What counts of a series now, and, where that is more than `most`, until when (invariant 2). `None`: its ring
    /// does not say all.
    #[inline]
    fn sum(&self, series: SeriesRef<'_>, now: i64, most: u64) -> Option<(Summed, i64)> {
        let first = self.first(now);
        if series.known(self.at) != ALWAYS {
            return None;
        }
        let mut summed = self.nothing(now);
        let found = series.sum_packed(self.at, first, most);
        let Some(found) = found.or_else(|| sum_of_blocks(self.at, series, first, most)) else {
            return Some((summed, now));
        };
        if self.keep.oldest(found.newest) > first {
            return None;
        }
        let last = series.last_span().end().micros();
        // The newest bucket is the last to leave.
        let clears = self.leaves(found.newest, last);
        let mut until = now;
        if found.newest >= first && clears > now {
            summed.sum = found.sum;
            summed.clears = clears;
            summed.fits = found.full.map_or(now, |full| self.leaves(full, last).max(now));
            if found.full.is_some() {
                until = self.leaves(found.oldest, last);
            }
        }
        Some((summed, until))
    }

    /// What counts now of a series, if there is one. `None`: that is for [`Keyed::sum_back`] to find out.
    #[inline]
    pub(crate) fn sum_of(
        &self,
        series: Option<SeriesRef<'_>>,
        now: Timestamp,
        most: u64,
    ) -> Option<Summed> {
        match series {
            Some(series) => self.sum(series, now.micros(), most).map(|(summed, _)| summed),
            None => Some(self.nothing(now.micros())),
        }
    }

    /// Where nothing counts.
    #[inline]
    fn nothing(&self, now: i64) -> Summed {
        let fresh_leaves = match self.span {
            Span::Micros(micros) => now.saturating_add(micros),
            Span::Buckets(_) => self.leaves(now.div_euclid(self.unit), now),
        };
        Summed::nothing(now, fresh_leaves, i64::MIN)
    }
}

/// [`SeriesRef::sum_packed`] of a ring that is not packed.
#[inline(never)]
fn sum_of_blocks(at: usize, series: SeriesRef<'_>, first: i64, most: u64) -> Option<SumFrom> {
    let newest = series.newest(at)?;
    let mut found = SumFrom { newest, sum: 0, full: None, oldest: newest };
    series.each_back(at, |number, count, _| {
        if number < first {
            return ControlFlow::Break(());
        }
        found.sum = found.sum.saturating_add(count);
        if found.sum > most && found.full.is_none() {
            found.full = Some(number);
        }
        found.oldest = number;
        ControlFlow::Continue(())
    });
    Some(found)
}

impl Keyed<'_> {
    /// What [`sum_back`](Keyed::sum_back) finds, of a series that is [at hand](Keyed::at_hand). `None`: that
    /// has to find it.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub(crate) fn sum_evenly(
        self,
        even: &Even,
        now: Timestamp,
        most: u64,
    ) -> Result<Option<Summed>> {
        let mut summed = even.sum_of(None, now, most);
        self.see_at_hand(&mut |series| {
            summed = even.sum_of(Some(series), now, most);
            false
        })?;
        Ok(summed)
    }

    /// The same; and where more counts than `most`, for how long that stands, if that can be told.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn sum_at_version(
        self,
        even: &Even,
        now: Timestamp,
        most: u64,
    ) -> Result<Option<(Summed, Option<Standing>)>> {
        let mut found = Some((even.nothing(now.micros()), now.micros()));
        let version = self.see_at_hand(&mut |series| {
            found = even.sum(series, now.micros(), most);
            found.is_some_and(|(summed, _)| summed.fits > now.micros())
        })?;
        let standing = |until: i64| version.map(|version| Standing { until, version });
        Ok(found.map(|(summed, until)| (summed, standing(until))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check_kept;
    use super::super::window::KeptGrain;
    use super::*;
    use crate::aggregate::Measure;
    use crate::dictionary::Dictionary;
    use crate::series::{Occurrence, Series};
    use crate::time::{Grain, Leaf};
    use crate::view::Plan;
    use proptest::prelude::*;
    use std::time::Duration;

    const NOW: i64 = 1_700_000_000;

    /// How much is kept, what is asked, and events: seconds before now, and how many.
    fn cases() -> impl Strategy<Value = (View, Back, Vec<(i64, u64)>, u64)> {
        let tens = Grain::every(Duration::from_secs(10)).unwrap();
        let grain = prop::sample::select(vec![Grain::Second, tens, Grain::Minute, Grain::Hour]);
        let rolling =
            (1_i64..200_000_000).prop_map(|micros| Back::Rolling { micros, is_certain: false });
        // With a second grain, so that the first one does not always do; packed or not.
        let view = (grain, 1_u32..80, prop::bool::ANY).prop_map(|(grain, n, is_long)| {
            let keep = Keep::Last(if is_long { 2_000 } else { 40 });
            View::new("v").grain(grain, Keep::Last(n)).grain(Grain::Day, keep)
        });
        let buckets = (view.clone(), 1_u32..80, prop::bool::ANY).prop_map(|(view, n, is_fine)| {
            let grain = view.grains()[usize::from(!is_fine)].0;
            (view, Back::Buckets { n, grain, is_certain: false })
        });
        let asked = prop_oneof![(view, rolling), buckets];
        let events = prop::collection::vec(
            (prop_oneof![0_i64..3, -30_i64..300], prop_oneof![1_u64..3, 1_u64..200]),
            0..60,
        );
        (asked, events, prop_oneof![0_u64..20, 0_u64..9_000])
            .prop_map(|((view, back), events, most)| (view, back, events, most))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn what_is_added_up_evenly_is_what_is_added_up(
            (view, back, events, most) in cases(),
            micros in prop_oneof![(-9_i64..9).prop_map(|s| s * 1_000_000), -20_000_000_i64..400_000_000],
        ) {
            let zone = TimeZone::UTC;
            let now = NOW * 1_000_000 + micros;
            let plan = Plan::new(&view, zone, &Dictionary::new(0));
            let mut series = Series::empty(&plan.shape);
            for (ago, times) in events {
                let time = Timestamp::from_micros(NOW * 1_000_000 - ago * 999_999);
                let event = Occurrence { time, half_width: 0, times };
                let leaf = Leaf::at(&plan.shape.calendar, time);
                series.as_mut().observe(&plan.shape, &leaf, event, |_: usize| &Measure::NONE, 1);
            }
            let Some(even) = Even::new(&view, zone, back) else {
                prop_assert!(check_kept(&view, zone, back, Timestamp::from_micros(now)).is_err());
                return Ok(());
            };
            let of = KeptGrain::in_view(&view, zone, even.at);
            let first = back.first(&of, now);
            let newest = series.as_ref().newest(of.at);
            let is_whole = newest.is_none_or(|newest| of.keep.oldest(newest) <= first);
            let want = is_whole.then(|| {
                let sum = back.sum(&of, series.as_ref(), now, most).expect("nothing was converted");
                Summed { fresh_leaves: back.fresh_leaves(&of, now), ..sum }
            });
            let sum = |now: i64| even.sum(series.as_ref(), now, most);
            prop_assert_eq!(sum(now).map(|(summed, _)| summed), want);
            // What does not fit stands until then.
            let Some((summed, until)) = sum(now).filter(|(summed, _)| summed.fits > now) else {
                return Ok(());
            };
            prop_assert!(now < until && until <= summed.fits);
            for later in [now + 1, now + (until - now) / 2, until - 1] {
                let later = sum(later.clamp(now, until - 1)).map(|(later, until)| {
                    (Summed { fresh_leaves: summed.fresh_leaves, ..later }, until)
                });
                prop_assert_eq!(later, Some((summed, until)));
            }
        }
    }
}
