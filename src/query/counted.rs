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

use super::window::KeptGrain;
use super::{AskedKey, Query};
use crate::dictionary::Sym;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::series::SeriesRef;
use crate::time::{Grain, Keep, Length, TimeZone, Timestamp};
use crate::versions::{Version, Versions};
use crate::view::View;
use smallvec::SmallVec;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

/// How far back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Back {
    /// Exactly so long, in buckets of the finest grain that reaches back so far; those that are cut count
    /// whole, or, where it is to be certain, not at all.
    Rolling { micros: i64, is_certain: bool },
    /// The same of what may be in it, and [`LEVEL_BACK`] times as far where so many buckets are kept: what a
    /// level was before that matters only to those who were busy all the while.
    Level { micros: i64 },
    /// So many buckets of a grain, the present one being the last.
    Buckets { n: u32, grain: Grain, is_certain: bool },
}

impl Back {
    /// The first bucket of `of` that has to do with what counts at `now`.
    pub(super) fn first(self, of: &KeptGrain, now: i64) -> i64 {
        match self {
            Back::Rolling { micros, .. } | Back::Level { micros } => {
                of.bucket(moment(now.saturating_sub(micros - 1)))
            }
            Back::Buckets { n, .. } => of.back(of.bucket(moment(now)), u64::from(n - 1)),
        }
    }

    /// The first bucket of a series that is looked at, where it is kept.
    #[inline]
    fn farthest(self, of: &KeptGrain, series: SeriesRef<'_>, now: i64) -> i64 {
        match self {
            Back::Rolling { .. } | Back::Buckets { .. } => self.first(of, now),
            // From the last event, so that a level that was known does not come to be unknown by itself.
            Back::Level { micros } => {
                let last = series.last_span().end().micros().min(now);
                of.bucket(moment(last.saturating_sub(micros.saturating_mul(LEVEL_BACK))))
            }
        }
    }

    /// The first moment of what is looked at, of a series.
    fn begin(self, of: &KeptGrain, series: SeriesRef<'_>, now: i64) -> i64 {
        let oldest = series.newest(of.at).map_or(i64::MIN, |newest| of.keep.oldest(newest));
        of.start(self.farthest(of, series, now).max(oldest)).micros()
    }

    /// The first moment at which a bucket does not count any more.
    fn leaves(self, of: &KeptGrain, number: i64) -> i64 {
        let end = || of.start(number.saturating_add(1)).micros();
        match self {
            Back::Rolling { micros, is_certain: false } | Back::Level { micros } => {
                (end() - 1).saturating_add(micros)
            }
            Back::Rolling { micros, is_certain: true } => {
                of.start(number).micros().saturating_add(micros)
            }
            Back::Buckets { n, .. } => {
                let behind = number.saturating_add(i64::from(n));
                // Days that a zone left out are not counted back over; it left out one at a time.
                let is_behind = |behind: &i64| of.back(*behind, u64::from(n - 1)) > number;
                let behind = (behind..behind.saturating_add(3)).find(is_behind).unwrap_or(behind);
                of.start(behind).micros()
            }
        }
    }

    /// A bucket of a series.
    fn part(self, of: &KeptGrain, known: i64, last: i64, number: i64, count: u64) -> Part {
        let known = number.max(known);
        // The newest bucket's events were not behind the last one of all.
        let at = (of.start(number.saturating_add(1)).micros() - 1).min(last);
        let (enters, leaves) = match self {
            Back::Rolling { is_certain: true, .. } | Back::Buckets { is_certain: true, .. } => {
                (of.start(number).micros(), self.leaves(of, number))
            }
            Back::Rolling { micros, .. } | Back::Level { micros } if known == number => {
                (i64::MIN, at.saturating_add(micros))
            }
            _ => (i64::MIN, self.leaves(of, known)),
        };
        Part { enters, leaves, at, bucket: (of.at, number), count }
    }

    /// Calls `see` with the buckets of a series that count, newest first.
    #[inline]
    fn walk(self, of: &KeptGrain, series: SeriesRef<'_>, now: i64, mut see: impl FnMut(i64, u64)) {
        let (first, known) = (self.farthest(of, series, now), series.known(of.at));
        let is_certain = self.is_certain();
        series.each_back(of.at, |number, count, _| {
            let behind = if is_certain { number < known } else { false };
            let counted = if is_certain { number } else { number.max(known) };
            if behind || counted < first {
                return ControlFlow::Break(());
            }
            see(number, count);
            ControlFlow::Continue(())
        });
    }

    /// What counts of a series in its buckets of `of`, added up. `None`: they do not leave in their order.
    #[inline]
    pub(super) fn sum(
        self,
        of: &KeptGrain,
        series: SeriesRef<'_>,
        now: i64,
        most: u64,
    ) -> Option<Summed> {
        let (known, last) = (series.known(of.at), series.last_span().end().micros());
        let leaves = |number| self.part(of, known, last, number, 0).leaves;
        let (mut sum, mut newest, mut full) = (0_u64, None, None);
        self.walk(of, series, now, |number, count| {
            newest = newest.or(Some(number));
            sum = sum.saturating_add(count);
            if sum > most && full.is_none() {
                full = Some(number);
            }
        });
        let nothing = Summed::nothing(now, i64::MIN, i64::MIN);
        let Some(newest) = newest else { return Some(nothing) };
        if newest < known {
            return None;
        }
        let clears = leaves(newest);
        // The newest bucket is the last to leave.
        if clears <= now {
            return Some(nothing);
        }
        Some(Summed { sum, clears, fits: full.map_or(now, leaves).max(now), ..nothing })
    }

    /// When what happens now leaves, if it is the last to happen.
    pub(super) fn fresh_leaves(self, of: &KeptGrain, now: i64) -> i64 {
        match self {
            Back::Rolling { micros, .. } | Back::Level { micros } => now.saturating_add(micros),
            Back::Buckets { .. } => self.leaves(of, of.bucket(moment(now))),
        }
    }

    /// From when on a ring whose oldest bucket is this one has all of the window.
    fn whole_from(self, of: &KeptGrain, oldest: i64) -> i64 {
        match self {
            Back::Rolling { micros, .. } | Back::Level { micros } => {
                of.start(oldest).micros().saturating_add(micros)
            }
            Back::Buckets { n, .. } => of.start(oldest.saturating_add(i64::from(n) - 1)).micros(),
        }
    }

    /// Whether so many buckets as are kept reach back so far, whatever the moment of the present one: as at
    /// its begin. With so much to spare.
    fn is_reached(self, of: &KeptGrain, now: i64, slack: i64) -> bool {
        let present = of.bucket(moment(now));
        let begin = of.start(present).micros();
        let first = match self {
            Back::Rolling { .. } | Back::Level { .. } => {
                self.first(of, begin.saturating_sub(slack))
            }
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

/// Events that count from a moment until another, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) enters: i64,
    pub(crate) leaves: i64,
    /// When the last of them can have been.
    pub(crate) at: i64,
    /// The bucket that they are in: the place of its grain in the view, and its number.
    pub(crate) bucket: (usize, i64),
    pub(crate) count: u64,
}

impl Part {
    /// Of what is in none.
    pub(crate) const NO_BUCKET: (usize, i64) = (usize::MAX, 0);

    /// Whether it is in a bucket, or what a series says of its last event.
    pub(crate) fn is_recorded(&self) -> bool {
        self.at < i64::MAX
    }
}

/// What counts of the series of one key, added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summed {
    pub(crate) sum: u64,
    /// The first moment, from now on, at which nothing of it counts any more.
    pub(crate) clears: i64,
    /// The first moment at which no more of it counts than was asked about.
    pub(crate) fits: i64,
    /// As of [`Around`].
    pub(crate) fresh_leaves: i64,
    pub(crate) whole_from: i64,
}

impl Summed {
    /// Where nothing counts.
    #[inline]
    pub(super) fn nothing(now: i64, fresh_leaves: i64, whole_from: i64) -> Self {
        Summed { sum: 0, clears: now, fits: now, fresh_leaves, whole_from }
    }
}

/// What is to be known beside the buckets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around {
    /// When what happens now would leave.
    pub(crate) fresh_leaves: i64,
    /// From when on everything in the window is known (invariant 2).
    pub(crate) whole_from: i64,
    /// Of a level: the moment before which there were events that were not looked at.
    pub(crate) unknown_before: i64,
    /// All that was handed on happened since then, and all that happened since then was handed on.
    pub(crate) begins: i64,
}

impl Around {
    /// Of what counts no buckets.
    pub(crate) const NOTHING: Around = Around {
        fresh_leaves: i64::MIN,
        whole_from: i64::MIN,
        unknown_before: i64::MIN,
        begins: i64::MAX,
    };
}

/// As often as the time in which a whole burst comes back a level is looked back at.
const LEVEL_BACK: i64 = 4;
const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

fn moment(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

impl Query {
    /// Checks that the view keeps buckets for so long, whatever its series hold, and at any time of the
    /// year.
    pub(crate) fn check_back(&self, back: Back, now: Timestamp) -> Result<()> {
        check_kept(self.view(), self.time_zone(), back, now)
    }
}

/// Checks that a view would keep buckets for so long, whatever its series hold, and at any time of the year.
///
/// # Errors
/// `NotKept`.
pub(crate) fn check_kept(view: &View, zone: TimeZone, back: Back, now: Timestamp) -> Result<()> {
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
    if fitting(view, zone, back).any(|of| reaches(&of)) {
        Ok(())
    } else {
        Err(too_far(view, zone, back))
    }
}

/// The series of keys that are given whole, taken together: what limits ask.
#[derive(Clone, Copy)]
pub(crate) struct Keyed<'q> {
    query: &'q Query,
    keys: &'q [AskedKey],
}

impl<'q> Keyed<'q> {
    #[inline]
    pub(crate) fn new(query: &'q Query, keys: &'q [AskedKey]) -> Self {
        Keyed { query, keys }
    }

    pub(crate) fn query(self) -> &'q Query {
        self.query
    }

    /// Whether it is of one key.
    #[inline]
    pub(crate) fn is_of_one(self) -> bool {
        self.keys.len() == 1
    }

    /// These series, key by key.
    pub(crate) fn one_by_one(self) -> impl Iterator<Item = Keyed<'q>> {
        self.keys.iter().map(move |key| Keyed::new(self.query, std::slice::from_ref(key)))
    }

    /// Numbers of its keys ([`Source::number_of`](super::Source::number_of)).
    #[inline]
    pub(crate) fn numbers(self) -> impl Iterator<Item = Option<u64>> + 'q {
        self.keys.iter().map(move |key| self.query.source.number_of(key))
    }

    /// The same; a key that has none is given one.
    pub(crate) fn number(self) -> impl Iterator<Item = u64> + 'q {
        self.keys.iter().map(move |key| self.query.source.number(key))
    }

    /// [`Source::apply_at_once`](super::Source::apply_at_once), of what answers now.
    #[inline]
    pub(crate) fn apply_at_once(self) -> Result<()> {
        self.current(|this| this.query.source.apply_at_once())
    }

    /// Asks these series, or those of the view's definition of now.
    #[inline]
    fn current<R>(self, ask: impl FnOnce(Keyed<'_>) -> Result<R>) -> Result<R> {
        if self.query.source.has_successor() {
            ask(Keyed::new(&self.query.renewed_for(true)?, self.keys))
        } else {
            ask(self)
        }
    }

    /// The versions of its view, and its key, where it is of one, and nothing has to be done before that is asked
    /// by limits.
    #[inline]
    pub(crate) fn at_hand(self) -> Option<(&'q Arc<Versions>, &'q [Sym])> {
        let [key] = self.keys else { return None };
        self.query.source.at_hand(key).map(|key| (self.query.versions(), key))
    }

    /// Whether it is of one key, which an event has.
    pub(crate) fn is_of(self, event: &Event<'_>) -> bool {
        let query = self.query;
        let parts = query.view().key().iter().map(|part| event.part(part));
        let key = parts.collect::<Option<SmallVec<[_; 4]>>>().map(|parts| query.source.key(&parts));
        let ([ours], Some(theirs)) = (self.keys, key) else { return false };
        let ours = query.source.at_hand(ours);
        ours.is_some() && ours == query.source.at_hand(&theirs)
    }

    /// Calls `see` with the series of its key, if there is one, where that is [at hand](Keyed::at_hand); see
    /// [`Source::see_at_hand`](super::Source::see_at_hand).
    #[inline]
    pub(super) fn see_at_hand(
        self,
        see: &mut dyn FnMut(SeriesRef<'_>) -> bool,
    ) -> Result<Option<Version>> {
        match self.keys {
            [key] => self.query.source.see_at_hand(key, see),
            _ => self.each(&mut |series| _ = see(series)).map(|()| None),
        }
    }

    /// Calls `see` with the series of every key that there is.
    #[inline]
    fn each(self, see: &mut dyn FnMut(SeriesRef<'_>)) -> Result<()> {
        self.keys.iter().try_for_each(|key| self.query.source.see(key, see).map(drop))
    }

    /// Hands on what counts now and what will (invariant 1). Of several keys each is handed on by itself.
    ///
    /// # Errors
    /// `NotKept` where the view does not keep buckets for so long any more.
    pub(crate) fn counted_back(
        self,
        back: Back,
        now: Timestamp,
        see: &mut dyn FnMut(Part),
    ) -> Result<Around> {
        let now = now.micros();
        let (mut unknown_before, mut begins) = (i64::MIN, i64::MAX);
        let around = self.current(|this| {
            this.walk_back(back, now, |of, series| {
                let (known, last) = (series.known(of.at), series.last_span().end().micros());
                back.walk(of, series, now, |number, count| {
                    see(back.part(of, known, last, number, count));
                });
                let begin = back.begin(of, series, now);
                begins = begins.min(begin);
                if matches!(back, Back::Level { .. })
                    && series.first_span().start().micros() < begin
                {
                    unknown_before = unknown_before.max(begin);
                }
            })
        })?;
        Ok(Around { unknown_before, begins, ..around })
    }

    /// The sum of what counts now, or may, and when no more than `most` of it will: of the series of one
    /// key, and where what is uncertain counts, too. `None`: its buckets do not leave in their order.
    ///
    /// # Errors
    /// As [`counted_back`](Self::counted_back).
    #[inline]
    pub(crate) fn sum_back(self, back: Back, now: Timestamp, most: u64) -> Result<Option<Summed>> {
        let now = now.micros();
        let nothing = Summed::nothing(now, i64::MIN, i64::MIN);
        self.current(|this| {
            let mut summed = Some(nothing);
            let around = this.walk_back(back, now, |of, series| {
                summed = back.sum(of, series, now, most);
            })?;
            let Around { fresh_leaves, whole_from, .. } = around;
            Ok(summed.map(|summed| Summed { fresh_leaves, whole_from, ..summed }))
        })
    }

    /// Calls `see` with each series and the grain that it is to be counted in.
    #[inline]
    fn walk_back(
        self,
        back: Back,
        now: i64,
        mut see: impl FnMut(&KeptGrain, SeriesRef<'_>),
    ) -> Result<Around> {
        let (view, zone) = (self.query.view(), self.query.time_zone());
        let reaching = || fitting(view, zone, back).filter(|of| back.is_reached(of, now, 0));
        let finest = reaching().next().ok_or_else(|| too_far(view, zone, back))?;
        let first_of_finest = back.first(&finest, now);
        let mut whole_from = i64::MIN;
        self.each(&mut |series: SeriesRef<'_>| {
            let oldest = |of: &KeptGrain| {
                series.newest(of.at).map_or(i64::MIN, |newest| of.keep.oldest(newest))
            };
            if oldest(&finest).max(series.known(finest.at)) <= first_of_finest {
                see(&finest, series);
                return;
            }
            let first = |of: &KeptGrain| back.first(of, now);
            let has = |of: &KeptGrain| oldest(of) <= first(of);
            let is_known = |of: &KeptGrain| has(of) && series.known(of.at) <= first(of);
            let found = reaching().find(is_known).or_else(|| reaching().find(has));
            let of = found.unwrap_or_else(|| {
                let from = |of: &KeptGrain| back.whole_from(of, oldest(of));
                let of = reaching().min_by_key(from).unwrap_or(finest);
                whole_from = whole_from.max(from(&of));
                of
            });
            see(&of, series);
        })?;
        let fresh_leaves = back.fresh_leaves(&finest, now);
        Ok(Around { fresh_leaves, whole_from, ..Around::NOTHING })
    }

    /// Between when and when the last event was.
    pub(crate) fn last_span(self) -> Result<Option<RangeInclusive<Timestamp>>> {
        let mut last: Option<RangeInclusive<Timestamp>> = None;
        self.current(|this| {
            this.each(&mut |series| {
                let span = series.last_span();
                last = Some(match last.take() {
                    None => span,
                    Some(last) => *last.start().max(span.start())..=*last.end().max(span.end()),
                });
            })
        })?;
        Ok(last)
    }
}

/// The grains that it can be counted in, finest first.
pub(super) fn fitting(
    view: &View,
    zone: TimeZone,
    back: Back,
) -> impl Iterator<Item = KeptGrain> + Clone + '_ {
    let fits = move |of: &KeptGrain| match back {
        Back::Rolling { .. } | Back::Level { .. } => true,
        Back::Buckets { grain, .. } => of.grain.canonical() == grain.canonical(),
    };
    (0..view.grains().len()).map(move |at| KeptGrain::in_view(view, zone, at)).filter(fits)
}

#[cold]
fn too_far(view: &View, zone: TimeZone, back: Back) -> Error {
    let wanted = match back {
        Back::Rolling { micros, .. } | Back::Level { micros } => {
            let length = Length::from(std::time::Duration::from_micros(micros as u64));
            format!("reach back {length} and a bucket more")
        }
        Back::Buckets { n, grain, .. } => format!("are {}", grain.counted(&n.to_string(), n == 1)),
    };
    Error::new(
        ErrorKind::NotKept,
        format!(
            "the view {:?} keeps no buckets that {wanted}; it keeps: {}{}",
            view.name(),
            view.kept(),
            enough(back, zone)
        ),
    )
}

/// Buckets that would do, in words: for a window without a grain of its own some that are short beside it.
fn enough(back: Back, zone: TimeZone) -> String {
    let (Back::Rolling { micros, .. } | Back::Level { micros }) = back else {
        return String::new();
    };
    let grains = [
        (Grain::Day, DAY_MICROS, DAY_MICROS),
        (Grain::Hour, DAY_MICROS / 24, DAY_MICROS / 24),
        (Grain::Minute, 60_000_000, DAY_MICROS / 24),
        (Grain::Second, 1_000_000, 0),
    ];
    let is_short = |(_, length, _): &&(Grain, i64, i64)| micros / length >= 24;
    let (grain, length, slack) = grains.iter().find(is_short).unwrap_or(&grains[3]);
    let slack = if zone == TimeZone::UTC { 0 } else { *slack };
    let n = (micros.saturating_add(slack) as u64).div_ceil(*length as u64) + 1;
    if n > u64::from(Keep::MAX) {
        return String::new();
    }
    format!("; {} would do", grain.counted(&n.to_string(), false))
}
