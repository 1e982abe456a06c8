//! Grains: the units that time is cut into, their names, and how many buckets of one are kept.
//!
//! Bucket numbers are absolute (`time/zone.rs` computes them): second, minute, hour, day and ISO week
//! (Monday first; week 0 holds 1970-01-01) count from 1970, a month is year * 12 + month0, a year is
//! the year. 30-day months, 365-day years and durations are uniform and count from
//! 1970-01-01T00:00:00Z in every time zone.
//! Months and years follow the proleptic Gregorian calendar by Howard Hinnant's day algorithms
//! ("chrono-Compatible Low-Level Date Algorithms", `civil_from_days`, `days_from_civil`).
//!
//! Invariants
//! 1. The text form is what [`Display`](fmt::Display) writes and `FromStr` reads: one for each grain.
//! 2. The order of grains is that of their lengths, and never changes between two grains: a view
//!    stores its rings in it.
//! 3. A [`Period`] has 1 to [`Period::MILLIS_MAX`] milliseconds, however it was made.

use super::{TimeZone, Timestamp};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

/// A unit of time that a view keeps buckets of.
///
/// Days, weeks, months and years are those of the calendar in the [time zone](TimeZone) of the store;
/// the others are spans of a fixed length.
///
/// ```
/// use quipu::{Grain, Timestamp};
/// use std::time::Duration;
///
/// let moment = Timestamp::parse_rfc3339("2010-12-01T08:26:00Z").unwrap();
/// let hour = Grain::Hour.bucket(moment);
/// assert_eq!(Grain::Hour.start(hour).to_string(), "2010-12-01T08:00:00.000Z");
/// assert_eq!(Grain::Month.start(Grain::Month.bucket(moment)).to_string(), "2010-12-01T00:00:00.000Z");
///
/// // By their names, or by their length.
/// assert_eq!("week".parse::<Grain>()?, Grain::Week);
/// assert_eq!("6h".parse::<Grain>()?, Grain::every(Duration::from_hours(6))?);
/// assert_eq!(Grain::every(Duration::from_secs(90))?.to_string(), "90s");
/// assert_eq!("100ms".parse::<Grain>()?, Grain::every(Duration::from_millis(100))?);
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
#[non_exhaustive]
pub enum Grain {
    /// Minutes.
    Minute,
    /// Hours, begun with the time zone's clock: half past where that is half an hour off.
    Hour,
    /// Days, from midnight to midnight: 23 or 25 hours long where the clock is put forward or back.
    Day,
    /// ISO weeks, from Monday to Sunday.
    Week,
    /// Calendar months.
    Month,
    /// Calendar years.
    Year,
    /// Seconds.
    Second,
    /// Months of 30 days of 24 hours, counted from 1970.
    Month30,
    /// Years of 365 days of 24 hours, counted from 1970.
    Year365,
    /// Spans of a length of one's own, counted from 1970: see [`Grain::every`].
    Every(Period),
}

/// The length of the buckets of [`Grain::Every`]: 1 millisecond to 366 days, in whole milliseconds.
///
/// ```
/// use quipu::Period;
/// use std::time::Duration;
///
/// assert_eq!(Period::new(Duration::from_mins(15))?.to_string(), "15m");
/// assert_eq!(Period::new(Duration::from_millis(1_500))?.to_string(), "1500ms");
/// assert!(Period::new(Duration::from_micros(1_500)).is_err());
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(NonZeroU64);

impl Period {
    /// The longest one, in milliseconds: 366 days.
    pub const MILLIS_MAX: u64 = 366 * 24 * 60 * 60 * 1_000;

    /// A period of this length.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when it is no number of whole milliseconds from
    /// 1 millisecond to 366 days.
    pub fn new(length: Duration) -> Result<Self> {
        let whole = length.subsec_nanos().is_multiple_of(1_000_000);
        let millis = u64::try_from(length.as_millis()).ok().filter(|_| whole);
        millis.and_then(Period::of).ok_or_else(|| {
            Error::invalid(format!(
                "buckets of {length:?} cannot be kept; a length is whole milliseconds, from 1ms to \
                 366d"
            ))
        })
    }

    fn of(millis: u64) -> Option<Self> {
        NonZeroU64::new(millis).filter(|n| n.get() <= Self::MILLIS_MAX).map(Period)
    }

    /// Its length.
    pub const fn length(self) -> Duration {
        Duration::from_millis(self.0.get())
    }

    /// Its length in microseconds; what fits is invariant 3's.
    const fn micros(self) -> i64 {
        self.0.get() as i64 * MILLISECOND
    }
}

/// In the greatest unit that measures it: `250ms`, `90s`, `15m`, `6h`, `2d`.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.get();
        let measures = |(_, unit): &&(&str, u64)| millis.is_multiple_of(*unit);
        let (letters, unit) = UNITS.iter().find(measures).unwrap_or(&("ms", 1));
        write!(f, "{}{letters}", millis / unit)
    }
}

impl bincode::Encode for Period {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        encoder: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        self.0.get().encode(encoder)
    }
}

impl<C> bincode::Decode<C> for Period {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        let outside = bincode::error::DecodeError::Other("a period of 1 ms to 366 days");
        Period::of(u64::decode(decoder)?).ok_or(outside)
    }
}

bincode::impl_borrow_decode!(Period);

/// How many buckets of a grain are kept.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    bincode::Encode,
    bincode::Decode,
)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The newest so many buckets, counted back from the newest that the key has. At least 1, at
    /// most [`Keep::MAX`].
    Last(u32),
    /// All buckets, for ever.
    All,
}

impl Keep {
    /// The largest number that [`Keep::Last`] takes.
    pub const MAX: u32 = 100_000;

    /// For how long behind the newest event every event falls into a bucket of `grain` that is kept, at
    /// least, whatever the zone; `None`: for ever.
    pub(crate) fn reach(self, grain: Grain, zone: TimeZone) -> Option<Duration> {
        let Keep::Last(n) = self else { return None };
        // Of the calendar's, the shortest.
        let (len, even) = match grain {
            Grain::Minute => (MINUTE, true),
            Grain::Hour => (HOUR, false),
            Grain::Day => (DAY, false),
            Grain::Week => (7 * DAY, false),
            Grain::Month => (28 * DAY, false),
            Grain::Year => (365 * DAY, false),
            _ => (grain.uniform().unwrap_or(0), true),
        };
        // Two moments that a zone's clock says to be so far apart are apart by less where it was put
        // forward in between, and where a day was left out: by a day or so.
        let slack = if even || zone == TimeZone::UTC { 0 } else { 2 * len.min(DAY) };
        let micros = (len * (i64::from(n) - 1) - slack).max(0);
        Some(Duration::from_micros(micros as u64))
    }

    /// The oldest bucket number kept when `newest` is the newest there is.
    pub(crate) fn oldest(self, newest: i64) -> i64 {
        match self {
            Keep::All => i64::MIN,
            Keep::Last(n) => newest.saturating_sub(i64::from(n) - 1),
        }
    }
}

const MILLISECOND: i64 = 1_000;
pub(super) const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60_000_000;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;
/// 1970-01-01 was a Thursday: weeks begin three days before it.
pub(super) const WEEK_SHIFT_DAYS: i64 = 3;

/// The letters of lengths, greatest first, in milliseconds.
const UNITS: [(&str, u64); 6] = [
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Grain {
    /// Every grain that has a name, finest first.
    pub const ALL: [Grain; 9] = [
        Grain::Second,
        Grain::Minute,
        Grain::Hour,
        Grain::Day,
        Grain::Week,
        Grain::Month30,
        Grain::Month,
        Grain::Year365,
        Grain::Year,
    ];

    /// Buckets of this length, counted from 1970-01-01T00:00:00Z in every time zone. Where a grain that has a
    /// name has the same buckets in every zone it is that one: [`Second`](Grain::Second),
    /// [`Month30`](Grain::Month30), [`Year365`](Grain::Year365). Minutes and hours begin with the zone's
    /// clock, days and weeks with its calendar; a length is none of them.
    ///
    /// ```
    /// use quipu::Grain;
    /// use std::time::Duration;
    ///
    /// assert_eq!(Grain::every(Duration::from_secs(1))?, Grain::Second);
    /// assert_ne!(Grain::every(Duration::from_hours(1))?, Grain::Hour);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Period::new`].
    pub fn every(length: Duration) -> Result<Self> {
        Period::new(length).map(|period| Grain::Every(period).canonical())
    }

    /// The one of those that have the same buckets in every zone.
    pub(crate) fn canonical(self) -> Self {
        let Grain::Every(period) = self else { return self };
        let named = [Grain::Second, Grain::Month30, Grain::Year365];
        let length = Some(period.micros());
        named.into_iter().find(|grain| grain.uniform() == length).unwrap_or(self)
    }

    /// Whether its buckets usually have the length of the other's.
    pub(crate) fn is_as_long_as(self, other: Grain) -> bool {
        self.rank().0 == other.rank().0
    }

    /// The number of the bucket that holds `moment`, in UTC; [`TimeZone::bucket`] is for the others.
    #[inline]
    pub fn bucket(self, moment: Timestamp) -> i64 {
        TimeZone::UTC.bucket(self, moment)
    }

    /// The first moment of bucket number `bucket`, in UTC; saturates outside the years that a
    /// [`Timestamp`] holds. [`TimeZone::start`] is for other zones.
    pub fn start(self, bucket: i64) -> Timestamp {
        TimeZone::UTC.start(self, bucket)
    }

    /// Whether its buckets follow the calendar of the store's time zone.
    pub const fn is_calendar(self) -> bool {
        matches!(self, Grain::Day | Grain::Week | Grain::Month | Grain::Year)
    }

    /// The length of the buckets in microseconds, where all have the same.
    pub(super) fn uniform(self) -> Option<i64> {
        match self {
            Grain::Second => Some(SECOND),
            Grain::Month30 => Some(30 * DAY),
            Grain::Year365 => Some(365 * DAY),
            Grain::Every(period) => Some(period.micros()),
            _ => None,
        }
    }

    /// The name in lower case; none of a length of one's own.
    fn name(self) -> Option<&'static str> {
        Some(match self {
            Grain::Second => "second",
            Grain::Minute => "minute",
            Grain::Hour => "hour",
            Grain::Day => "day",
            Grain::Week => "week",
            Grain::Month => "month",
            Grain::Year => "year",
            Grain::Month30 => "month30",
            Grain::Year365 => "year365",
            Grain::Every(_) => return None,
        })
    }

    /// So many buckets of it, in words: `72 hours`, `20 buckets of 6h`.
    pub(crate) fn counted(self, many: &str, is_one: bool) -> String {
        let s = if is_one { "" } else { "s" };
        match self.canonical() {
            Grain::Month30 => format!("{many} month{s} of 30 days"),
            Grain::Year365 => format!("{many} year{s} of 365 days"),
            Grain::Every(period) => {
                format!("{many} bucket{s} of {period}")
            }
            _ => format!("{many} {self}{s}"),
        }
    }

    /// Where it stands among the others (invariant 2): by its usual length in milliseconds, then by kind.
    fn rank(self) -> (u64, u8) {
        const DAY: u64 = 86_400_000;
        match self {
            Grain::Second => (1_000, 0),
            Grain::Minute => (60_000, 0),
            Grain::Hour => (3_600_000, 0),
            Grain::Day => (DAY, 0),
            Grain::Week => (7 * DAY, 0),
            Grain::Month30 => (30 * DAY, 0),
            // A mean one has 30.44 days.
            Grain::Month => (30 * DAY, 1),
            Grain::Year365 => (365 * DAY, 0),
            Grain::Year => (365 * DAY, 1),
            Grain::Every(period) => (period.0.get(), 2),
        }
    }
}

/// From fine to coarse.
impl Ord for Grain {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Grain {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Grain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.canonical().name(), self) {
            (Some(name), _) => f.write_str(name),
            (None, Grain::Every(period)) => period.fmt(f),
            (None, _) => f.write_str("a grain"),
        }
    }
}

/// Reads `second`, `minute`, `hour`, `day`, `week`, `month`, `year`, `month30`, `year365`, or a length:
/// a whole number and `ms`, `s`, `m` (minutes), `h`, `d` or `w`.
impl std::str::FromStr for Grain {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(grain) = Grain::ALL.into_iter().find(|grain| grain.name() == Some(text)) {
            return Ok(grain);
        }
        if text == "ever" {
            let message = "`ever` is no grain: every series keeps its totals since ever, whatever \
                           its grains";
            return Err(Error::invalid(message));
        }
        let length = UNITS.iter().find_map(|(letters, unit)| {
            let number = text.strip_suffix(*letters)?;
            let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| number.parse::<u64>().ok()).flatten()?;
            number.checked_mul(*unit).map(Duration::from_millis)
        });
        let length = length.ok_or_else(|| {
            let names: Vec<&str> = Grain::ALL.into_iter().filter_map(Grain::name).collect();
            Error::invalid(format!(
                "{text:?} is not a grain; grains are {}, or a length like 100ms, 15m, 6h, 10d",
                names.join(", ")
            ))
        })?;
        Grain::every(length)
    }
}

impl Serialize for Grain {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Grain {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Year and zero-based month of a day counted from 1970-01-01.
pub(super) fn year_and_month(day: i64) -> (i64, i64) {
    let shifted = day.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 2 } else { from_march - 10 };
    (year_of_era + era * 400 + i64::from(month < 2), month)
}

/// The day, counted from 1970-01-01, on which a zero-based month begins.
pub(super) fn days_from_civil(year: i64, month: i64) -> i64 {
    let year = if month < 2 { year.saturating_sub(1) } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let from_march = if month < 2 { month + 10 } else { month - 2 };
    let day_of_year = (153 * from_march + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era.saturating_mul(146_097).saturating_add(day_of_era).saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use chrono::{Datelike, TimeZone};

    fn custom(seconds: u64) -> Grain {
        millis(seconds * 1_000)
    }

    fn millis(millis: u64) -> Grain {
        Grain::every(Duration::from_millis(millis)).unwrap()
    }

    #[test]
    fn calendar_buckets_agree_with_chrono_on_every_day_of_1200_years() {
        for day in -292_000..292_000_i64 {
            let micros = day * DAY + 123;
            let date = chrono::Utc.timestamp_micros(micros).unwrap();
            let moment = Timestamp::from_micros(micros);
            let month = i64::from(date.year()) * 12 + i64::from(date.month0());
            assert_eq!(Grain::Month.bucket(moment), month);
            assert_eq!(Grain::Year.bucket(moment), i64::from(date.year()));
            let week = chrono::Utc
                .timestamp_micros(Grain::Week.start(Grain::Week.bucket(moment)).micros());
            assert_eq!(week.unwrap().weekday(), chrono::Weekday::Mon);
            for grain in Grain::ALL.into_iter().chain([custom(7), custom(21_600)]) {
                let bucket = grain.bucket(moment);
                assert!(grain.start(bucket) <= moment && moment < grain.start(bucket + 1));
            }
        }
    }

    #[test]
    fn no_moment_panics() {
        for micros in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX] {
            for grain in Grain::ALL.into_iter().chain([millis(1), millis(70), custom(366 * 86_400)])
            {
                let bucket = grain.bucket(Timestamp::from_micros(micros));
                let _ = grain.start(bucket);
                let _ = grain.start(micros);
            }
        }
    }

    /// What earlier directories hold.
    #[test]
    fn the_codes_of_grains_are_what_they_were() {
        let old = [Grain::Minute, Grain::Hour, Grain::Day, Grain::Week, Grain::Month, Grain::Year];
        let new = [Grain::Second, Grain::Month30, Grain::Year365];
        for (code, grain) in (0_u8..).zip(old.into_iter().chain(new)) {
            assert_eq!(codec::encode(&grain), [code]);
            assert_eq!(codec::decode::<Grain>(&[code]), Ok(grain));
        }
        assert_eq!(codec::encode(&millis(90)), [9, 90]);
        assert_eq!(codec::decode::<Grain>(&[9, 90]), Ok(millis(90)));
        assert!(codec::decode::<Grain>(&[9, 0]).is_err());
        let longest = 366 * 86_400_000_u64;
        assert_eq!(codec::decode(&codec::encode(&(9_u32, longest))), Ok(custom(366 * 86_400)));
        assert!(codec::decode::<Grain>(&codec::encode(&(9_u32, longest + 1))).is_err());
        assert!(old.is_sorted() && Grain::ALL.is_sorted());
    }

    #[test]
    fn a_grain_is_read_as_it_is_written() {
        let lengths = [1, 59, 60, 90, 3_600, 5_400, 21_600, 86_400, 604_800, 366 * 86_400];
        let short = [1, 10, 999, 1_001, 1_500, 60_001, 366 * 86_400_000 - 1].map(millis);
        for grain in Grain::ALL.into_iter().chain(lengths.map(custom)).chain(short) {
            assert_eq!(grain.to_string().parse::<Grain>().unwrap(), grain);
            let json = serde_json::to_string(&grain).unwrap();
            assert_eq!(json, format!("\"{grain}\""));
            assert_eq!(serde_json::from_str::<Grain>(&json).unwrap(), grain);
        }
        assert_eq!("360m".parse::<Grain>().unwrap().to_string(), "6h");
        assert_eq!("2w".parse::<Grain>().unwrap().to_string(), "2w");
        assert_eq!("1000ms".parse::<Grain>().unwrap(), Grain::Second);
        assert_eq!("60000ms".parse::<Grain>().unwrap().to_string(), "1m");
        let refused =
            ["", "s", "ms", "0s", "0ms", "-1s", "+1s", "1.5h", "1m5ms", "5 ms", "5us", "hours"];
        let too_long = ["367d", "31622400001ms", "9999999999999999999d", "99999999999999999999ms"];
        for text in refused.into_iter().chain(too_long) {
            let error = text.parse::<Grain>().unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{text}");
        }
        assert!("ever".parse::<Grain>().unwrap_err().to_string().contains("totals"));
    }
}
