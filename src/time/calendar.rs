//! The calendar of a view: its grains in the time zone of its store, and the leaf of it that lies open.
//!
//! Finding out in which bucket a moment is asks the zone, which costs; but events come mostly in order.
//! So whoever applies events keeps a [`Leaf`]: the bucket of each grain that the event before was in,
//! with its bounds. An event inside of them costs two comparisons, however many grains there are, and
//! in whatever zone.
//!
//! Invariants
//! 1. A leaf says of every moment in its [`span`](Leaf::span) what [`TimeZone::bucket`] says.
//! 2. A leaf knows the calendar it is of; turned to a moment of another one it begins anew.

use super::{Grain, Keep, TimeZone, Timestamp};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The grains of a view, from fine to coarse, in a time zone.
#[derive(Debug, Default)]
pub(crate) struct Calendar {
    pub(crate) zone: TimeZone,
    pub(crate) grains: Vec<(Grain, Keep)>,
}

impl Calendar {
    /// For how long behind the newest event every event falls into buckets that are kept, at least;
    /// `None`: for ever.
    pub(crate) fn reach(&self) -> Option<Duration> {
        self.grains.iter().filter_map(|(grain, keep)| keep.reach(*grain, self.zone)).min()
    }
}

/// The buckets of a calendar's grains in which one moment lies.
#[derive(Debug)]
pub(crate) struct Leaf {
    /// Held, so that no other calendar can be taken for it.
    of: Option<Arc<Calendar>>,
    /// The times that lie in the same bucket of every grain.
    span: Range<Timestamp>,
    buckets: SmallVec<[(i64, Range<Timestamp>); 6]>,
}

impl Default for Leaf {
    fn default() -> Self {
        Leaf { of: None, span: Timestamp::MAX..Timestamp::MIN, buckets: SmallVec::new() }
    }
}

impl Leaf {
    /// The leaf of one moment.
    #[cfg(test)]
    pub(crate) fn at(calendar: &Arc<Calendar>, time: Timestamp) -> Self {
        let mut leaf = Leaf::default();
        leaf.turn_to(calendar, time);
        leaf
    }

    /// Turns to the leaf of `time`.
    #[inline]
    pub(crate) fn turn_to(&mut self, calendar: &Arc<Calendar>, time: Timestamp) {
        let same = self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, calendar));
        if !same || !self.span.contains(&time) {
            self.turn(calendar, time, same);
        }
    }

    #[cold]
    fn turn(&mut self, calendar: &Arc<Calendar>, time: Timestamp, same: bool) {
        if !same {
            self.of = Some(calendar.clone());
            self.buckets.clear();
            let none = (0, Timestamp::MAX..Timestamp::MIN);
            self.buckets.resize(calendar.grains.len(), none);
        }
        self.span = Timestamp::from_micros(i64::MIN)..Timestamp::from_micros(i64::MAX);
        for ((grain, _), (number, span)) in calendar.grains.iter().zip(&mut self.buckets) {
            // A day goes on when its hour is over.
            if !span.contains(&time) {
                *number = calendar.zone.bucket(*grain, time);
                *span = calendar.zone.span(*grain, *number);
            }
            self.span.start = self.span.start.max(span.start);
            self.span.end = self.span.end.min(span.end);
        }
    }

    /// The times that lie in the same bucket of every grain.
    pub(crate) fn span(&self) -> &Range<Timestamp> {
        &self.span
    }

    /// The number of the bucket in each grain.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = i64> {
        self.buckets.iter().map(|(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every one by its name, and some that are shorter than a second or no part of one.
    fn grains() -> impl Iterator<Item = Grain> {
        let millis = |n| Grain::every(Duration::from_millis(n)).unwrap();
        [1, 100, 999].map(millis).into_iter().chain(Grain::ALL)
    }

    proptest! {
        #[test]
        fn a_leaf_says_what_the_zone_says(
            times in prop::collection::vec(
                (0_usize..6, -40_i64..40, prop_oneof![0..7_200_000_000_i64, 0..3_000_000_i64]),
                1..60,
            ),
        ) {
            let zones = ["UTC", "Europe/Paris", "Pacific/Apia"].map(|name| name.parse().unwrap());
            let grains: Vec<(Grain, Keep)> = grains().map(|grain| (grain, Keep::All)).collect();
            let calendars =
                zones.map(|zone| Arc::new(Calendar { zone, grains: grains.clone() }));
            let mut leaf = Leaf::default();
            // Around the end of 2011, when Apia left out a day.
            for (which, hours, micros) in times {
                let hour = 1_325_203_200 + hours * 3_600;
                let time = Timestamp::from_micros(hour * 1_000_000 + micros);
                let calendar = &calendars[which % 3];
                leaf.turn_to(calendar, time);
                let want = grains.iter().map(|(grain, _)| calendar.zone.bucket(*grain, time));
                prop_assert_eq!(leaf.numbers().collect::<Vec<_>>(), want.collect::<Vec<_>>());
                prop_assert!(leaf.span().contains(&time));
            }
        }
    }

    proptest! {
        #[test]
        fn what_lies_within_the_reach_is_kept(
            zone in prop::sample::select(vec![
                "UTC", "Europe/Paris", "Pacific/Apia", "America/St_Johns", "Australia/Lord_Howe",
                "Asia/Manila",
            ]),
            // With the days that Apia and Manila left out.
            begin in prop::sample::select(vec![-3_944_000_000_i64, 1_325_200_000, 1_600_000_000]),
            newest in -40_000_000_i64..40_000_000,
            behind in 0.0..=1.0_f64,
            kept in 1_u32..70,
        ) {
            let zone: TimeZone = zone.parse().unwrap();
            let newest = Timestamp::from_secs(begin + newest);
            for grain in grains() {
                let keep = Keep::Last(kept);
                let calendar = Calendar { zone, grains: vec![(grain, keep)] };
                let reach = calendar.reach().unwrap();
                let oldest = keep.oldest(zone.bucket(grain, newest));
                for within in [reach, reach.mul_f64(behind)] {
                    let bucket = zone.bucket(grain, newest.saturating_sub(within));
                    prop_assert!(bucket >= oldest, "{} {:?}", grain, within);
                }
            }
        }
    }
}
