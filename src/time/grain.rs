//! Grains: the units that time is cut into, and the number of each bucket.
//!
//! Bucket numbers count from 1970 in the grain's own unit: minute, hour, day, ISO week (Monday
//! first; week 0 holds 1970-01-01), month (year * 12 + month0), year. All in UTC.
//! Months and years follow the proleptic Gregorian calendar by Howard Hinnant's day algorithms
//! ("chrono-Compatible Low-Level Date Algorithms", `civil_from_days`, `days_from_civil`).

use super::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A unit of time that a view keeps buckets of, in UTC.
///
/// ```
/// use quipu::{Grain, Timestamp};
///
/// let moment = Timestamp::parse_rfc3339("2010-12-01T08:26:00Z").unwrap();
/// let hour = Grain::Hour.bucket(moment);
/// assert_eq!(Grain::Hour.start(hour).to_string(), "2010-12-01T08:00:00.000Z");
/// assert_eq!(Grain::Month.start(Grain::Month.bucket(moment)).to_string(), "2010-12-01T00:00:00.000Z");
/// ```
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    bincode::Encode,
    bincode::Decode,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Grain {
    /// Minutes.
    Minute,
    /// Hours.
    Hour,
    /// Days, from midnight to midnight UTC.
    Day,
    /// ISO weeks, from Monday to Sunday.
    Week,
    /// Calendar months.
    Month,
    /// Calendar years.
    Year,
}

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

    /// The oldest bucket number kept when `newest` is the newest there is.
    pub(crate) fn oldest(self, newest: i64) -> i64 {
        match self {
            Keep::All => i64::MIN,
            Keep::Last(n) => newest.saturating_sub(i64::from(n) - 1),
        }
    }
}

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// 1970-01-01 was a Thursday: weeks begin three days before it.
const WEEK_SHIFT: i64 = 3 * DAY;

impl Grain {
    /// Every grain, finest first.
    pub const ALL: [Grain; 6] =
        [Grain::Minute, Grain::Hour, Grain::Day, Grain::Week, Grain::Month, Grain::Year];

    /// The number of the bucket that holds `moment`. Constant time.
    #[inline]
    pub fn bucket(self, moment: Timestamp) -> i64 {
        let micros = moment.micros();
        match self {
            Grain::Minute => micros.div_euclid(MINUTE),
            Grain::Hour => micros.div_euclid(HOUR),
            Grain::Day => micros.div_euclid(DAY),
            Grain::Week => micros.saturating_add(WEEK_SHIFT).div_euclid(7 * DAY),
            Grain::Month => {
                let (year, month) = year_and_month(micros.div_euclid(DAY));
                year * 12 + month
            }
            Grain::Year => year_and_month(micros.div_euclid(DAY)).0,
        }
    }

    /// The first moment of bucket number `bucket`. Constant time; saturates outside the years
    /// that a [`Timestamp`] holds.
    pub fn start(self, bucket: i64) -> Timestamp {
        let micros = match self {
            Grain::Minute => bucket.saturating_mul(MINUTE),
            Grain::Hour => bucket.saturating_mul(HOUR),
            Grain::Day => bucket.saturating_mul(DAY),
            Grain::Week => bucket.saturating_mul(7 * DAY).saturating_sub(WEEK_SHIFT),
            Grain::Month => {
                days_from_civil(bucket.div_euclid(12), bucket.rem_euclid(12)).saturating_mul(DAY)
            }
            Grain::Year => days_from_civil(bucket, 0).saturating_mul(DAY),
        };
        Timestamp::from_micros(micros)
    }

    /// The grain's name in lower case: `minute`, `hour`, `day`, `week`, `month`, `year`.
    pub fn name(self) -> &'static str {
        match self {
            Grain::Minute => "minute",
            Grain::Hour => "hour",
            Grain::Day => "day",
            Grain::Week => "week",
            Grain::Month => "month",
            Grain::Year => "year",
        }
    }
}

impl fmt::Display for Grain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Grain {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<Self> {
        Grain::ALL.into_iter().find(|grain| grain.name() == text).ok_or_else(|| {
            crate::Error::invalid(format!(
                "{text:?} is not a grain; grains are minute, hour, day, week, month, year"
            ))
        })
    }
}

/// Year and zero-based month of a day counted from 1970-01-01.
fn year_and_month(day: i64) -> (i64, i64) {
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
fn days_from_civil(year: i64, month: i64) -> i64 {
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
    use chrono::{Datelike, TimeZone};

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
            for grain in Grain::ALL {
                let bucket = grain.bucket(moment);
                assert!(grain.start(bucket) <= moment && moment < grain.start(bucket + 1));
            }
        }
    }

    #[test]
    fn no_moment_panics() {
        for micros in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX] {
            for grain in Grain::ALL {
                let bucket = grain.bucket(Timestamp::from_micros(micros));
                let _ = grain.start(bucket);
                let _ = grain.start(micros);
            }
        }
    }
}
