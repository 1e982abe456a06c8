//! Windows: the buckets that a question is about, by their numbers in one grain, and what a series has
//! of them.
//!
//! Invariants
//! 1. A bucket without a moment in it (a day that a zone left out) is none: it is not counted back over,
//!    and not in a list. Only days can be such, and none in UTC.
//! 2. What a view keeps decides, not what a key happens to have: a window counted back from now is
//!    refused where the view's definition does not reach so far. A window of given times, and one whose
//!    ring has gone ahead of now, is refused only where the series may have had events in it that
//!    its buckets have not any more.
//! 3. Where the buckets of a series were converted it says from which on they are known; what is in one
//!    before is not looked at.

use super::Query;
use crate::aggregate::StatesRef;
use crate::error::{Error, ErrorKind, Result};
use crate::series::SeriesRef;
use crate::time::{Grain, Keep, TimeZone, Timestamp};
use crate::view::View;
use std::ops::{ControlFlow, Range};

/// Buckets of a range that are listed, at most.
const BUCKETS_MAX: u64 = 1_000_000;

const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;
/// No zone both left out a day and had one twice within so many days.
const QUIET_DAYS: u64 = 366;

/// A grain that a view keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeptGrain {
    /// Its place among the view's grains.
    pub(super) at: usize,
    pub(super) grain: Grain,
    pub(super) keep: Keep,
    pub(super) zone: TimeZone,
}

/// Buckets of a grain, from one number up to another, both included; none where they cross.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) of: KeptGrain,
    pub(super) from: i64,
    pub(super) to: i64,
    /// Where what was asked for begins: before `from`, where that is not kept.
    pub(super) asked: i64,
}

impl KeptGrain {
    /// The view's buckets of this grain.
    #[inline]
    pub(super) fn of(query: &Query, grain: Grain) -> Result<Self> {
        let (grains, grain) = (query.view().grains(), grain.canonical());
        match grains.iter().position(|(kept, _)| kept.canonical() == grain) {
            Some(at) => Ok(KeptGrain::at(query, at)),
            None => Err(no_such_grain(query.view(), grain)),
        }
    }

    /// Those of the view's `at`th grain.
    #[inline]
    pub(super) fn at(query: &Query, at: usize) -> Self {
        KeptGrain::in_view(query.view(), query.time_zone(), at)
    }

    /// Those of a definition's `at`th grain.
    #[inline]
    pub(super) fn in_view(view: &View, zone: TimeZone, at: usize) -> Self {
        let (grain, keep) = view.grains()[at];
        KeptGrain { at, grain, keep, zone }
    }

    /// The oldest bucket of a series that is kept and known, of which `newest` is the newest one.
    #[inline]
    pub(super) fn oldest(&self, series: SeriesRef<'_>, newest: i64) -> i64 {
        self.keep.oldest(newest).max(series.known(self.at))
    }

    #[inline]
    pub(super) fn bucket(&self, moment: Timestamp) -> i64 {
        self.zone.bucket(self.grain, moment)
    }

    pub(super) fn start(&self, number: i64) -> Timestamp {
        self.zone.start(self.grain, number)
    }

    /// Whether some of its buckets have no moment in them.
    #[inline]
    fn has_gaps(&self) -> bool {
        self.grain == Grain::Day && self.zone != TimeZone::UTC
    }

    /// The bucket so many before `number` (invariant 1).
    #[inline]
    pub(super) fn back(&self, number: i64, back: u64) -> i64 {
        let plain = number.saturating_sub_unsigned(back);
        if self.has_gaps() { self.back_over_gaps(number, plain, back) } else { plain }
    }

    fn back_over_gaps(&self, number: i64, plain: i64, back: u64) -> i64 {
        let days = self.start(number).micros().saturating_sub(self.start(plain).micros());
        // Clocks are changed by some hours; a day that was left out is missing whole.
        if back <= QUIET_DAYS && days > back as i64 * DAY_MICROS - DAY_MICROS / 2 {
            return plain;
        }
        let (mut number, mut left, mut end) = (number, back, self.start(number));
        while left > 0 && number > TimeZone::FIRST_GAP_DAY {
            number -= 1;
            let start = self.start(number);
            left -= u64::from(start < end);
            end = start;
        }
        number.saturating_sub_unsigned(left)
    }
}

impl Window {
    #[inline]
    pub(super) fn new(of: KeptGrain, from: i64, to: i64) -> Self {
        Window { of, from, to, asked: from }
    }

    /// How many numbers it has.
    pub(super) fn len(&self) -> u64 {
        if self.from > self.to { 0 } else { self.to.abs_diff(self.from).saturating_add(1) }
    }

    /// The first moment of what was asked for, and the first one behind it.
    pub(super) fn span(&self) -> Range<Timestamp> {
        self.of.start(self.asked)..self.of.start(self.to.saturating_add(1))
    }

    /// The place of each of its buckets among its numbers and its moments, oldest first.
    ///
    /// # Errors
    /// `Invalid` when there are more than are listed.
    pub(super) fn buckets(&self) -> Result<impl Iterator<Item = (usize, Range<Timestamp>)>> {
        let len = self.len();
        if len > BUCKETS_MAX {
            return Err(Error::invalid(format!(
                "the range has {len} buckets of {}; at most {BUCKETS_MAX} are listed: take a coarser \
                 grain or a shorter range",
                self.of.grain
            )));
        }
        let (of, from) = (self.of, self.from);
        let mut start = of.start(from);
        Ok((0..len as usize).filter_map(move |at| {
            let end = of.start(from + at as i64 + 1);
            let span = start..end;
            start = end;
            (span.start < span.end).then_some((at, span))
        }))
    }

    /// The window of as many buckets that ends so many times its length before it ends.
    pub(super) fn earlier(self, times: u32) -> Result<Self> {
        if times == 0 || self.len() == 0 {
            return Ok(self);
        }
        let buckets = if self.of.has_gaps() { self.buckets()?.count() as u64 } else { self.len() };
        let buckets = buckets.saturating_mul(u64::from(times));
        let (from, to) = (self.of.back(self.from, buckets), self.of.back(self.to, buckets));
        Ok(Window::new(self.of, from, to))
    }

    /// Calls `see` with the buckets of a series that lie in it and hold events: number, count, states.
    /// Gives the newest bucket there is, whether it lies in the window or not.
    #[inline]
    pub(super) fn read(
        &self,
        series: SeriesRef<'_>,
        mut see: impl FnMut(i64, u64, StatesRef<'_>),
    ) -> Option<i64> {
        let mut newest = None;
        series.each_back(self.of.at, |number, count, states| {
            newest = newest.or(Some(number));
            if number < self.from {
                return ControlFlow::Break(());
            }
            if number <= self.to {
                see(number, count, states);
            }
            ControlFlow::Continue(())
        });
        newest
    }

    /// Puts something into the place of a bucket among the window's, which all begin with `empty`. More
    /// than are listed are let be: [`buckets`](Window::buckets) refuses them.
    pub(super) fn put<T: Clone>(
        &self,
        values: &mut Vec<T>,
        number: i64,
        empty: &T,
        put: impl FnOnce(&mut T),
    ) {
        if values.is_empty() {
            values.resize(self.len().min(BUCKETS_MAX) as usize, empty.clone());
        }
        if let Some(value) = values.get_mut(number.abs_diff(self.from) as usize) {
            put(value);
        }
    }

    /// The bucket from which on the series, of which `newest` is the newest one, still has everything
    /// that it counted up to the window's end: at or before its begin if that is all of the window.
    #[inline]
    pub(super) fn known_from(&self, series: SeriesRef<'_>, newest: Option<i64>) -> i64 {
        // Nothing was observed in the ring: nothing is known by it.
        let oldest = newest.map_or(i64::MAX, |newest| self.of.oldest(series, newest));
        if oldest <= self.from { i64::MIN } else { self.known_behind(series, newest) }
    }

    #[cold]
    fn known_behind(&self, series: SeriesRef<'_>, newest: Option<i64>) -> i64 {
        let first = self.of.bucket(series.total().first());
        if first > self.to {
            return i64::MIN;
        }
        let kept = match newest {
            _ if series.has_all(self.of.at) => i64::MIN,
            None => i64::MAX,
            Some(newest) => self.of.keep.oldest(newest),
        };
        let known = series.known(self.of.at);
        let known = if first >= known { i64::MIN } else { known };
        let oldest = kept.max(known);
        if oldest <= self.from { i64::MIN } else { oldest }
    }

    /// Events of the series before it.
    pub(super) fn before(&self, series: SeriesRef<'_>) -> u64 {
        if self.of.bucket(series.total().first()) >= self.from {
            return 0;
        }
        let since = series.buckets_back(self.of.at).take_while(|(number, ..)| *number >= self.from);
        let since = since.fold(0, |sum: u64, (_, count, _)| sum.saturating_add(count));
        series.total().count().saturating_sub(since)
    }
}

#[cold]
fn no_such_grain(view: &View, grain: Grain) -> Error {
    let alike = view.grains().iter().find(|(kept, _)| kept.is_as_long_as(grain));
    let alike = alike.map_or(String::new(), |(kept, _)| {
        format!("; ask by {kept}, which is as long and begins elsewhere in some time zones")
    });
    Error::new(
        ErrorKind::NotKept,
        format!(
            "the view {:?} keeps no buckets by {grain}; it keeps: {}{alike}",
            view.name(),
            view.kept()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The day so many back as the days themselves say.
    fn walked(of: &KeptGrain, number: i64, back: u32) -> i64 {
        let has_moment = |number: &i64| of.start(*number) < of.start(number + 1);
        (i64::MIN..number).rev().filter(has_moment).nth(back as usize - 1).unwrap_or(i64::MIN)
    }

    #[test]
    fn days_that_a_zone_left_out_are_not_counted_back_over() {
        let zones = ["UTC", "Europe/Paris", "Pacific/Apia", "Pacific/Kwajalein", "Asia/Manila"];
        for zone in zones.map(|name| name.parse::<TimeZone>().unwrap()) {
            let of = KeptGrain { at: 0, grain: Grain::Day, keep: Keep::All, zone };
            for around in ["1845-01-05", "1969-10-05", "1993-08-25", "2012-01-02", "2024-04-02"] {
                let now = Timestamp::parse_rfc3339(&format!("{around}T12:00:00Z")).unwrap();
                let number = of.bucket(now);
                for back in [1, 2, 3, 4, 5, 6, 9, 30, 366, 367, 700, 9_000, 90_000] {
                    let back_to = of.back(number, u64::from(back));
                    assert_eq!(
                        back_to,
                        walked(&of, number, back),
                        "{} {around} {back}",
                        zone.name()
                    );
                }
                assert_eq!(of.back(number, 0), number);
                // As many as a number holds are not walked one by one.
                let gaps = of.back(number, 90_000) - (number - 90_000);
                assert_eq!(of.back(number, 1 << 40), number - (1 << 40) + gaps);
                assert_eq!(of.back(number, u64::MAX), i64::MIN);
            }
        }
    }
}
