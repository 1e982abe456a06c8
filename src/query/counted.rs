//! What counts in a window that ends now, bucket by bucket: what limits are decided by.
//!
//! Invariants
//! 1. Buckets are handed on newest first, with the moments between which each of them counts: as time
//!    goes on a bucket enters the window and leaves it, and is counted at most once.
//! 2. Where nothing may be missed, what is ahead of now counts at once, and so does what a conversion only
//!    guessed at, as if it had been as late as it can have been. Where the ring has let go of a part of
//!    the window, because events ahead of now pushed it out, nobody knows what was in it: the moment is
//!    given from which on the ring has all of the window again.
//! 3. Where only what is certain counts, none of these do.

use super::Depth;
use super::series::SeriesQuery;
use super::window::KeptGrain;
use crate::error::{Error, ErrorKind, Result};
use crate::series::SeriesRef;
use crate::time::{Grain, TimeZone, Timestamp};
use std::ops::{ControlFlow, Range, RangeInclusive};

/// How far back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Back {
    /// Exactly so long, in buckets of the finest grain that reaches back so far; those that are cut count
    /// whole, or, where it is to be certain, not at all.
    Rolling { micros: i64, is_certain: bool },
    /// So many buckets of a grain, the present one being the last.
    Buckets { n: u32, grain: Grain, is_certain: bool },
}

impl Back {
    /// The first bucket of `of` that has to do with what counts at `now`.
    fn first(self, of: &KeptGrain, now: i64) -> i64 {
        match self {
            Back::Rolling { micros, .. } => of.bucket(moment(now.saturating_sub(micros - 1))),
            Back::Buckets { n, .. } => of.back(of.bucket(moment(now)), n - 1),
        }
    }

    /// The first moment at which a bucket does not count any more.
    fn leaves(self, of: &KeptGrain, number: i64) -> i64 {
        let end = || of.start(number.saturating_add(1)).micros();
        match self {
            Back::Rolling { micros, is_certain: false } => (end() - 1).saturating_add(micros),
            Back::Rolling { micros, is_certain: true } => {
                of.start(number).micros().saturating_add(micros)
            }
            Back::Buckets { n, .. } => {
                let behind = number.saturating_add(i64::from(n));
                // Days that a zone left out are not counted back over; it left out one at a time.
                let is_behind = |behind: &i64| of.back(*behind, n - 1) > number;
                let behind = (behind..behind.saturating_add(3)).find(is_behind).unwrap_or(behind);
                of.start(behind).micros()
            }
        }
    }

    /// From when on a ring whose oldest bucket is this one has all of the window.
    fn whole_from(self, of: &KeptGrain, oldest: i64) -> i64 {
        match self {
            Back::Rolling { micros, .. } => of.start(oldest).micros().saturating_add(micros),
            Back::Buckets { n, .. } => of.start(oldest.saturating_add(i64::from(n) - 1)).micros(),
        }
    }

    /// Whether so many buckets as are kept reach back so far, whatever the moment of the present one: as at
    /// its begin. With so much to spare.
    fn is_reached(self, of: &KeptGrain, now: i64, slack: i64) -> bool {
        let present = of.bucket(moment(now));
        let begin = of.start(present).micros();
        let first = match self {
            Back::Rolling { .. } => self.first(of, begin.saturating_sub(slack)),
            Back::Buckets { .. } => self.first(of, begin),
        };
        of.keep.oldest(present) <= first
    }

    fn is_certain(self) -> bool {
        matches!(
            self,
            Back::Rolling { is_certain: true, .. } | Back::Buckets { is_certain: true, .. }
        )
    }
}

/// What is to be known beside the buckets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around {
    /// When what happens now would leave.
    pub(crate) fresh_leaves: i64,
    /// From when on everything in the window is known (invariant 2).
    pub(crate) whole_from: i64,
}

const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

fn moment(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

impl SeriesQuery {
    /// Hands on what counts now and what will (invariant 1). Of several keys each is handed on by itself.
    ///
    /// # Errors
    /// `NotKept` where the view does not keep buckets for so long any more.
    pub(crate) fn counted_back(
        &self,
        back: Back,
        now: Timestamp,
        see: &mut dyn FnMut(Range<i64>, u64),
    ) -> Result<Around> {
        self.current(|this| this.counted_back_now(back, now.micros(), see))
    }

    /// Checks that the view keeps buckets for so long, whatever its series hold, and at any time of the
    /// year.
    pub(crate) fn check_back(&self, back: Back, now: Timestamp) -> Result<()> {
        // By how much as many buckets differ in length: months and years by themselves, others where the
        // zone changes its clocks.
        let slack = |of: &KeptGrain| match of.grain.canonical() {
            Grain::Month | Grain::Year => 5 * DAY_MICROS,
            _ if of.zone == TimeZone::UTC => 0,
            Grain::Day | Grain::Week => DAY_MICROS,
            Grain::Minute | Grain::Hour => DAY_MICROS / 24,
            _ => 0,
        };
        let reaches = |of: &KeptGrain| back.is_reached(of, now.micros(), slack(of));
        if fitting(self, back).any(|of| reaches(&of)) { Ok(()) } else { Err(too_far(self, back)) }
    }

    fn counted_back_now(
        &self,
        back: Back,
        now: i64,
        see: &mut dyn FnMut(Range<i64>, u64),
    ) -> Result<Around> {
        let reaching = fitting(self, back).filter(|of| back.is_reached(of, now, 0));
        let finest = reaching.clone().next().ok_or_else(|| too_far(self, back))?;
        let mut whole_from = i64::MIN;
        self.each(Depth::Buckets, &mut |series: SeriesRef<'_>| {
            let first = |of: &KeptGrain| back.first(of, now);
            let oldest = |of: &KeptGrain| {
                series.newest(of.at).map_or(i64::MIN, |newest| of.keep.oldest(newest))
            };
            let has = |of: &KeptGrain| oldest(of) <= first(of);
            let is_known = |of: &KeptGrain| has(of) && series.known(of.at) <= first(of);
            let found = reaching.clone().find(is_known).or_else(|| reaching.clone().find(has));
            let of = found.unwrap_or_else(|| {
                let from = |of: &KeptGrain| back.whole_from(of, oldest(of));
                let of = reaching.clone().min_by_key(from).unwrap_or(finest);
                whole_from = whole_from.max(from(&of));
                of
            });
            let (first, known) = (first(&of), series.known(of.at));
            series.each_back(of.at, |number, count, _| {
                if back.is_certain() {
                    if number < first.max(known) {
                        return ControlFlow::Break(());
                    }
                    see(of.start(number).micros()..back.leaves(&of, number), count);
                } else {
                    if number.max(known) < first {
                        return ControlFlow::Break(());
                    }
                    see(i64::MIN..back.leaves(&of, number.max(known)), count);
                }
                ControlFlow::Continue(())
            });
        })?;
        Ok(Around { fresh_leaves: back.leaves(&finest, finest.bucket(moment(now))), whole_from })
    }

    /// Between when and when the last event was.
    pub(crate) fn last_span(&self) -> Result<Option<RangeInclusive<Timestamp>>> {
        Ok(self.life()?.map(|life| life.last))
    }
}

/// The grains that it can be counted in, finest first.
fn fitting(series: &SeriesQuery, back: Back) -> impl Iterator<Item = KeptGrain> + Clone + '_ {
    let fits = move |of: &KeptGrain| match back {
        Back::Rolling { .. } => true,
        Back::Buckets { grain, .. } => of.grain.canonical() == grain.canonical(),
    };
    let query = series.query();
    (0..query.view().grains().len()).map(|at| KeptGrain::at(query, at)).filter(fits)
}

#[cold]
fn too_far(series: &SeriesQuery, back: Back) -> Error {
    let view = series.view();
    let wanted = match back {
        Back::Rolling { micros, .. } => {
            format!(
                "reach back {:?} and a bucket more",
                std::time::Duration::from_micros(micros as u64)
            )
        }
        Back::Buckets { n, grain, .. } => format!("are {}", grain.counted(&n.to_string(), n == 1)),
    };
    Error::new(
        ErrorKind::NotKept,
        format!(
            "the view {:?} keeps no buckets that {wanted}; it keeps: {}",
            view.name(),
            view.kept()
        ),
    )
}
