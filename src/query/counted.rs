//! What counts in a window that ends now, bucket by bucket: what limits are decided by.
//!
//! Invariants
//! 1. Buckets are handed on newest first, with the moments between which each of them counts: as time
//!    goes on a bucket enters the window and leaves it, and is counted at most once.
//! 2. Where events ahead of now have pushed out buckets that the window needs, or a conversion has only
//!    guessed at them, all that are left count at once, as if it was then: time stands still for the key,
//!    and nothing is forgotten.

use super::Depth;
use super::series::SeriesQuery;
use super::window::KeptGrain;
use crate::error::{Error, ErrorKind, Result};
use crate::series::SeriesRef;
use crate::time::{Grain, Timestamp};
use std::ops::{ControlFlow, Range, RangeInclusive};

/// How far back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Back {
    /// Exactly so long, in buckets of the finest grain that reaches back so far; those that are cut count
    /// whole, or, where it is to be certain, not at all.
    Rolling { micros: i64, is_certain: bool },
    /// So many buckets of a grain, the present one being the last.
    Buckets { n: u32, grain: Grain },
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
                let mut behind = number.saturating_add(i64::from(n));
                // Days that a zone left out are not counted back over.
                while of.back(behind, n - 1) <= number && of.start(behind) < Timestamp::MAX {
                    behind += 1;
                }
                of.start(behind).micros()
            }
        }
    }
}

fn moment(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

impl SeriesQuery {
    /// Hands on what counts now and what will (invariant 1), and gives the moment at which what
    /// happens now would leave. Of several keys each is handed on by itself.
    ///
    /// # Errors
    /// `NotKept` where the view keeps no buckets for so long.
    pub(crate) fn counted_back(
        &self,
        back: Back,
        now: Timestamp,
        see: &mut dyn FnMut(Range<i64>, u64),
    ) -> Result<i64> {
        self.current(|this| this.counted_back_now(back, now.micros(), see))
    }

    /// Checks that the view keeps buckets for so long, whatever its series hold.
    pub(crate) fn check_back(&self, back: Back, now: Timestamp) -> Result<()> {
        able(self, back, now.micros()).next().map(|_| ()).ok_or_else(|| too_far(self, back))
    }

    fn counted_back_now(
        &self,
        back: Back,
        now: i64,
        see: &mut dyn FnMut(Range<i64>, u64),
    ) -> Result<i64> {
        let able = able(self, back, now);
        let finest = able.clone().next().ok_or_else(|| too_far(self, back))?;
        self.each(Depth::Buckets, &mut |series: SeriesRef<'_>| {
            let has = |of: &KeptGrain| {
                let (newest, first) = (series.newest(of.at), back.first(of, now));
                newest.is_none_or(|newest| of.keep.oldest(newest) <= first)
                    && series.known(of.at) <= first
            };
            let found = able.clone().find(has);
            let (of, is_pushed) = (&found.unwrap_or(finest), found.is_none());
            let first = if is_pushed { i64::MIN } else { back.first(of, now) };
            series.each_back(of.at, |number, count, _| {
                if number < first {
                    return ControlFlow::Break(());
                }
                let enters = if is_pushed { i64::MIN } else { of.start(number).micros() };
                see(enters..back.leaves(of, number), count);
                ControlFlow::Continue(())
            });
        })?;
        Ok(back.leaves(&finest, finest.bucket(moment(now))))
    }

    /// Between when and when the last event was.
    pub(crate) fn last_span(&self) -> Result<Option<RangeInclusive<Timestamp>>> {
        Ok(self.life()?.map(|life| life.last))
    }
}

/// The grains whose buckets reach back so far, finest first.
fn able(
    series: &SeriesQuery,
    back: Back,
    now: i64,
) -> impl Iterator<Item = KeptGrain> + Clone + '_ {
    // Whatever the moment of the present bucket: as at its begin.
    let reaches = move |of: &KeptGrain| {
        let present = of.bucket(moment(now));
        of.keep.oldest(present) <= back.first(of, of.start(present).micros())
    };
    let fits = move |of: &KeptGrain| match back {
        Back::Rolling { .. } => true,
        Back::Buckets { grain, .. } => of.grain.canonical() == grain.canonical(),
    };
    let query = series.query();
    let grains = (0..query.view().grains().len()).map(|at| KeptGrain::at(query, at));
    grains.filter(fits).filter(reaches)
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
        Back::Buckets { n, grain } => format!("are {}", grain.counted(&n.to_string(), n == 1)),
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
