//! Time zones: the rules of an IANA zone, and the bucket that a moment is in under them.
//!
//! Invariants, for every grain and zone
//! 1. The number of a moment's bucket never decreases as time goes on, so each bucket is one span, and
//!    every moment is in exactly one: `start(n) <= t < start(n + 1)` for `n = bucket(t)`.
//! 2. `start(n)` is the first moment whose bucket is `n` or a later one. A day that a zone skipped
//!    (Apia has no 2011-12-30) is a number whose span is empty.
//! 3. A number depends on moment, grain and zone only, never on what time it is now.
//! 4. A minute lies in one hour, an hour in one day, a day in one week, one month and one year.
//!
//! A day is the date on the zone's clocks. Where these are put back over midnight a date comes twice;
//! the day then begins for good when its date is reached the last time:
//! ```text
//! day(t) = least (t' + offset(t')) / 24 h over all t' >= t
//! ```
//! Minutes and hours are spans of absolute time. They begin with the zone's clock: their number is
//! `(t + offset mod 1 h) / 1 h`, which is the UTC hour in zones of whole hours. Where a zone changes by
//! less, or a day begins inside of an hour, one hour is longer or shorter than the others: the number
//! is again the least one from `t` on, held inside of the day (invariant 4).
//!
//! Offsets come from chrono-tz. Its lookup is asked once for each day of [`SCANNED_DAYS`] when a zone is
//! first used; from then on a table of the zone's changes answers. Behind the last change the zone stays
//! as it was.

use super::grain::{DAY, HOUR, MINUTE, SECOND, WEEK_SHIFT_DAYS, days_from_civil, year_and_month};
use super::{Grain, Timestamp};
use crate::error::{Error, Result};
use chrono::{DateTime, Offset, TimeZone as _};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

/// The days looked at, counted from 1970: from 1800 to 2199. No zone has rules before or behind.
const SCANNED_DAYS: Range<i64> = -62_091..84_006;

/// How far from a change of offset a bucket of at most a day can be touched by it: clocks were put
/// back by up to a day, and days are up to two days long.
const REACH: i64 = 3 * DAY;

/// A time zone of the IANA database, by its name: that of a store decides where its days, weeks,
/// months and years begin.
///
/// The rules are those of the database that this software was built with.
///
/// ```
/// use quipu::{Grain, TimeZone, Timestamp};
///
/// let paris: TimeZone = "Europe/Paris".parse()?;
/// let moment = Timestamp::parse_rfc3339("2024-03-31T12:00:00Z")?;
/// let day = paris.span(Grain::Day, paris.bucket(Grain::Day, moment));
/// assert_eq!(day.start.to_string(), "2024-03-30T23:00:00.000Z");
/// assert_eq!(day.end.to_string(), "2024-03-31T22:00:00.000Z"); // 23 hours
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct TimeZone {
    zone: chrono_tz::Tz,
    rules: &'static Rules,
}

/// When the offset from UTC changes: from `at` on it is `offset`, both in microseconds. The first
/// change is at the beginning of time.
#[derive(Clone, Copy, Debug)]
struct Change {
    at: i64,
    offset: i64,
}

/// The changes of a zone, by time.
#[derive(Debug)]
struct Rules {
    changes: &'static [Change],
    /// For each stretch from the first of [`STRETCHES`] on the change that rules when it begins: from
    /// there it is a step or two to any moment in it.
    index: Vec<u16>,
}

static UTC: Rules = Rules { changes: &[Change { at: i64::MIN, offset: 0 }], index: Vec::new() };

/// A stretch is 2^44 microseconds, 203 days: hardly a zone changes more than twice in it.
const STRETCH_BITS: u32 = 44;
/// Those that the scanned days are in.
const STRETCHES: Range<i64> =
    (SCANNED_DAYS.start * DAY) >> STRETCH_BITS..(SCANNED_DAYS.end * DAY) >> STRETCH_BITS;

impl TimeZone {
    /// UTC, the default.
    pub const UTC: TimeZone = TimeZone { zone: chrono_tz::Tz::UTC, rules: &UTC };

    /// No zone left out a day before this one.
    pub(crate) const FIRST_GAP_DAY: i64 = SCANNED_DAYS.start;

    /// The zone's name: `Europe/Paris`.
    pub fn name(self) -> &'static str {
        self.zone.name()
    }

    /// The version of the IANA database whose rules this software has, like `2025b`.
    pub fn database_version() -> &'static str {
        chrono_tz::IANA_TZDB_VERSION
    }

    /// The number of the bucket that holds `moment`. It is absolute: the number of the local date's
    /// day, week, month or year, or of the span since 1970.
    #[inline]
    pub fn bucket(self, grain: Grain, moment: Timestamp) -> i64 {
        self.rules.bucket(grain, moment.micros())
    }

    /// How long each bucket of a grain is, in microseconds, where the `n`th one begins `n` times as long after
    /// 1970, whatever the time; `None`: that depends.
    pub(crate) fn even(self, grain: Grain) -> Option<i64> {
        grain.uniform().or(match grain {
            Grain::Minute if self == TimeZone::UTC => Some(MINUTE),
            Grain::Hour if self == TimeZone::UTC => Some(HOUR),
            Grain::Day if self == TimeZone::UTC => Some(DAY),
            _ => None,
        })
    }

    /// The first moment of bucket number `bucket`; saturates outside the years that a [`Timestamp`]
    /// holds.
    pub fn start(self, grain: Grain, bucket: i64) -> Timestamp {
        Timestamp::from_micros(self.rules.start(grain, bucket))
    }

    /// All moments of bucket number `bucket`; none for a day that the zone skipped.
    pub fn span(self, grain: Grain, bucket: i64) -> Range<Timestamp> {
        self.start(grain, bucket)..self.start(grain, bucket.saturating_add(1))
    }

    /// The first moment, in microseconds, at which the zone's clocks show `wall` or later: where that is
    /// left out, the one at which they are put forward. A wall time is microseconds as if it were UTC.
    pub(super) fn reaches(self, wall: i64) -> i64 {
        self.rules.reaches(wall)
    }

    /// The first moment, in microseconds, from which on the zone's clocks never show less than `wall`:
    /// where that comes twice, the second time.
    pub(super) fn passes(self, wall: i64) -> i64 {
        self.rules.passes(wall)
    }

    /// How far the zone's clocks are ahead of UTC at `moment`, in seconds; negative to the west.
    pub fn offset_seconds(self, moment: Timestamp) -> i32 {
        (self.rules.changes[self.rules.at(moment.micros())].offset / SECOND) as i32
    }
}

impl Default for TimeZone {
    fn default() -> Self {
        TimeZone::UTC
    }
}

impl PartialEq for TimeZone {
    fn eq(&self, other: &Self) -> bool {
        self.zone == other.zone
    }
}

impl Eq for TimeZone {}

impl std::hash::Hash for TimeZone {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.zone.hash(state);
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for TimeZone {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        static TABLES: LazyLock<Box<[OnceLock<Rules>]>> =
            LazyLock::new(|| chrono_tz::TZ_VARIANTS.iter().map(|_| OnceLock::new()).collect());
        let Ok(zone) = text.parse::<chrono_tz::Tz>() else {
            let mut all = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
            let like = all.find(|name| name.eq_ignore_ascii_case(text));
            let hint = like.map_or_else(
                || "names are like Europe/Paris or America/New_York".to_owned(),
                |name| format!("there is {name}"),
            );
            let text = crate::event::abridged(text);
            return Err(Error::invalid(format!(
                "{text} is not a time zone of the IANA database {}; {hint}",
                TimeZone::database_version()
            )));
        };
        let table = chrono_tz::TZ_VARIANTS.iter().position(|other| *other == zone);
        let table = table.expect("a zone is one of all zones");
        Ok(TimeZone { zone, rules: TABLES[table].get_or_init(|| Rules::of(zone)) })
    }
}

impl Serialize for TimeZone {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for TimeZone {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Rules {
    /// Asks chrono-tz.
    fn of(zone: chrono_tz::Tz) -> Self {
        let offset = |seconds: i64| {
            let moment = DateTime::from_timestamp(seconds, 0).unwrap_or_default().naive_utc();
            i64::from(zone.offset_from_utc_datetime(&moment).fix().local_minus_utc())
        };
        let seconds = |day: i64| day * (DAY / SECOND);
        let mut before = offset(seconds(SCANNED_DAYS.start));
        let mut changes = vec![Change { at: i64::MIN, offset: before * SECOND }];
        let mut from = seconds(SCANNED_DAYS.start);
        for to in SCANNED_DAYS.map(|day| seconds(day + 1)) {
            let last = offset(to);
            while before != last {
                // The first second that differs lies in (low, high].
                let (mut low, mut high) = (from, to);
                while high - low > 1 {
                    let middle = i64::midpoint(low, high);
                    if offset(middle) == before { low = middle } else { high = middle }
                }
                (before, from) = (offset(high), high);
                changes.push(Change { at: high * SECOND, offset: before * SECOND });
            }
            from = to;
        }
        let ruling = |stretch: i64| {
            let begin = stretch << STRETCH_BITS;
            changes.partition_point(|change| change.at <= begin).saturating_sub(1) as u16
        };
        let index = STRETCHES.map(ruling).collect();
        // Once for each zone in the life of a process.
        Rules { changes: changes.leak(), index }
    }

    /// The place of the change that rules at `t`.
    #[inline]
    fn at(&self, t: i64) -> usize {
        let stretch = (t >> STRETCH_BITS).clamp(STRETCHES.start, STRETCHES.end - 1);
        let begin = self.index.get((stretch - STRETCHES.start) as usize).copied();
        let mut at = usize::from(begin.unwrap_or(0));
        while self.changes.get(at + 1).is_some_and(|next| next.at <= t) {
            at += 1;
        }
        at
    }

    /// The stretches between changes in which the clocks can show `wall`, and the one before: no offset
    /// is as long as a day. Each with its end and the moment at which it shows `wall`, or would.
    fn about(&self, wall: i64) -> impl Iterator<Item = (Range<i64>, i64)> {
        let near = &self.changes[self.at(wall.saturating_sub(DAY))..];
        let ends = near.iter().skip(1).map(|next| next.at).chain([i64::MAX]);
        let near = near.iter().zip(ends);
        near.take_while(move |(change, _)| change.at <= wall.saturating_add(DAY))
            .map(move |(change, end)| (change.at..end, wall.saturating_sub(change.offset)))
    }

    fn reaches(&self, wall: i64) -> i64 {
        let mut shown = self.about(wall).map(|(span, t)| (t.max(span.start), span.end));
        shown.find(|(t, end)| t < end).map_or(wall, |(t, _)| t)
    }

    fn passes(&self, wall: i64) -> i64 {
        let less = self.about(wall).filter(|(span, t)| span.start < *t);
        less.last().map_or(wall, |(span, t)| t.min(span.end))
    }

    /// Whether no change is near enough to matter to a bucket of at most a day at `t`, which the
    /// `at`th one rules.
    #[inline]
    fn is_quiet(&self, at: usize, t: i64) -> bool {
        // Before the first one there is no time.
        (at == 0 || t.saturating_sub(self.changes[at].at) > REACH)
            && self.changes.get(at + 1).is_none_or(|next| next.at.saturating_sub(t) > REACH)
    }

    #[inline]
    fn bucket(&self, grain: Grain, t: i64) -> i64 {
        if let Some(unit) = grain.uniform() {
            return t.div_euclid(unit);
        }
        match grain {
            Grain::Minute => self.minute(t),
            Grain::Hour => self.hour(t),
            Grain::Day => self.day(t),
            Grain::Week => (self.day(t) + WEEK_SHIFT_DAYS).div_euclid(7),
            Grain::Month => {
                let (year, month) = year_and_month(self.day(t));
                year * 12 + month
            }
            _ => year_and_month(self.day(t)).0,
        }
    }

    fn start(&self, grain: Grain, bucket: i64) -> i64 {
        if let Some(unit) = grain.uniform() {
            return bucket.saturating_mul(unit);
        }
        match grain {
            Grain::Minute => self.first(MINUTE, bucket, |t| self.minute(t)),
            Grain::Hour => self.first(HOUR, bucket, |t| self.hour(t)),
            Grain::Day => self.day_start(bucket),
            Grain::Week => self.day_start(bucket.saturating_mul(7).saturating_sub(WEEK_SHIFT_DAYS)),
            Grain::Month => {
                self.day_start(days_from_civil(bucket.div_euclid(12), bucket.rem_euclid(12)))
            }
            _ => self.day_start(days_from_civil(bucket, 0)),
        }
    }

    fn day(&self, t: i64) -> i64 {
        self.least(DAY, t)
    }

    fn day_start(&self, day: i64) -> i64 {
        self.first(DAY, day, |t| self.day(t))
    }

    fn hour(&self, t: i64) -> i64 {
        if self.is_aligned(HOUR, t) {
            return self.least(HOUR, t);
        }
        let day = self.day(t);
        self.within(HOUR, t, self.day_start(day)..self.day_start(day + 1))
    }

    fn minute(&self, t: i64) -> i64 {
        if self.is_aligned(MINUTE, t) {
            return self.least(MINUTE, t);
        }
        let hour = self.hour(t);
        let start = |hour| self.first(HOUR, hour, |t| self.hour(t));
        self.within(MINUTE, t, start(hour)..start(hour + 1))
    }

    /// The number at `t` where nothing but the change that rules there counts.
    #[inline]
    fn plain(unit: i64, t: i64, change: Change) -> i64 {
        t.saturating_add(Self::shift(unit, change)).div_euclid(unit)
    }

    /// What is added to a moment: the whole offset for days, else what of it is no multiple.
    #[inline]
    fn shift(unit: i64, change: Change) -> i64 {
        if unit == DAY { change.offset } else { change.offset.rem_euclid(unit) }
    }

    /// The least plain number from `t` on.
    #[inline]
    fn least(&self, unit: i64, t: i64) -> i64 {
        let at = self.at(t);
        let mut least = Self::plain(unit, t, self.changes[at]);
        for change in &self.changes[at + 1..] {
            if change.at.saturating_sub(t) > REACH {
                break;
            }
            least = least.min(Self::plain(unit, change.at, *change));
        }
        least
    }

    /// The number at `t` in a longer bucket `outer`, at whose start a new one begins.
    fn within(&self, unit: i64, t: i64, outer: Range<i64>) -> i64 {
        let first = |start: i64| Self::plain(unit, start, self.changes[self.at(start)]);
        self.least(unit, t).min(first(outer.end) - 1).max(first(outer.start))
    }

    /// Whether the changes near `t` all leave the edges of this unit where they were, and come at
    /// one.
    fn is_aligned(&self, unit: i64, t: i64) -> bool {
        let at = self.at(t);
        if self.is_quiet(at, t) {
            return true;
        }
        let shift = Self::shift(unit, self.changes[at]);
        let begin = self.changes[..=at].iter().rposition(|c| c.at < t.saturating_sub(REACH));
        let begin = begin.unwrap_or(0);
        let near = self.changes[begin + 1..].iter();
        let mut near = near.take_while(|change| change.at.saturating_sub(t) <= REACH);
        Self::shift(unit, self.changes[begin]) == shift
            && near.all(|change| {
                let edge = change.at.saturating_add(shift).rem_euclid(unit) == 0;
                Self::shift(unit, *change) == shift && edge
            })
    }

    /// The first moment of which `number` is at least `bucket`, that never decreasing.
    fn first(&self, unit: i64, bucket: i64, number: impl Fn(i64) -> i64) -> i64 {
        let edge = bucket.saturating_mul(unit);
        let at = self.at(edge);
        if self.is_quiet(at, edge) {
            return edge.saturating_sub(Self::shift(unit, self.changes[at]));
        }
        // Edges and changes are at whole seconds; the answer lies in (low, high].
        let seconds = edge.div_euclid(SECOND);
        let (mut low, mut high) = (seconds - REACH / SECOND, seconds + REACH / SECOND);
        while high - low > 1 {
            let middle = i64::midpoint(low, high);
            if number(middle * SECOND) >= bucket { high = middle } else { low = middle }
        }
        high * SECOND
    }
}
