//! Time: the moment type, the clock that gives it, the grains that cut it into buckets, the zones whose
//! calendars they follow, and the schedules that say when something is open.
//!
//! Invariants
//! 1. Nothing outside this module asks the operating system for the time (`clippy.toml` bans it).
//! 2. A bucket is numbered by its place on the time line in its grain, never by its distance from
//!    "now": the same instant is in the same bucket whenever it is asked.
//!
//! Next: `event.rs`.

mod calendar;
mod civil;
mod clock;
mod grain;
mod length;
mod schedule;
#[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
mod ticks;
mod zone;

pub(crate) use calendar::{Calendar, Leaf};
pub use civil::{Date, Dates, TimeOfDay, Weekday};
pub(crate) use clock::Stopwatch;
pub use clock::{Clock, SystemClock, TestClock};
pub use grain::{Grain, Keep, Period};
pub use length::Length;
pub use schedule::{Hours, Schedule};
pub use zone::TimeZone;

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A moment: microseconds since 1970-01-01T00:00:00 UTC, leap seconds not counted.
///
/// Moments from the year 1 to the year 9999 are accepted as event times
/// ([`Timestamp::MIN`] to [`Timestamp::MAX`]). It displays and serializes as RFC 3339 in UTC;
/// milliseconds always, microseconds where there are any.
///
/// ```
/// use quipu::Timestamp;
///
/// let moment = Timestamp::from_millis(1_291_191_960_000);
/// assert_eq!(moment.to_string(), "2010-12-01T08:26:00.000Z");
/// assert_eq!(Timestamp::parse_rfc3339("2010-12-01T09:26:00+01:00").unwrap(), moment);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest accepted moment, 0001-01-01T00:00:00Z.
    pub const MIN: Timestamp = Timestamp(-62_135_596_800_000_000);
    /// The latest accepted moment, 9999-12-31T23:59:59.999999Z.
    pub const MAX: Timestamp = Timestamp(253_402_300_799_999_999);

    /// From microseconds since 1970.
    pub const fn from_micros(micros: i64) -> Self {
        Timestamp(micros)
    }

    /// From milliseconds since 1970; saturates at the ends of `i64`.
    pub const fn from_millis(millis: i64) -> Self {
        Timestamp(millis.saturating_mul(1_000))
    }

    /// From seconds since 1970; saturates at the ends of `i64`.
    pub const fn from_secs(secs: i64) -> Self {
        Timestamp(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since 1970.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since 1970, rounded down.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// This moment and `duration` later; saturates.
    #[inline]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Timestamp(self.0.saturating_add(micros_of(duration)))
    }

    /// This moment and `duration` earlier; saturates.
    #[inline]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Timestamp(self.0.saturating_sub(micros_of(duration)))
    }

    /// Reads an RFC 3339 date and time with any offset.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with the text and the form expected.
    pub fn parse_rfc3339(text: &str) -> Result<Self> {
        chrono::DateTime::parse_from_rfc3339(text)
            .map(|moment| Timestamp(moment.timestamp_micros()))
            .map_err(|e| {
                Error::invalid(format!(
                    "{text:?} is not an RFC 3339 time like 2010-12-01T08:26:00Z ({e})"
                ))
            })
    }
}

/// A duration in microseconds, as far as these can be counted.
#[inline]
fn micros_of(duration: Duration) -> i64 {
    const MICROS: u64 = 1_000_000;
    let micros = duration.as_secs().saturating_mul(MICROS);
    let micros = micros.saturating_add(u64::from(duration.subsec_micros()));
    i64::try_from(micros).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match chrono::DateTime::from_timestamp_micros(self.0) {
            Some(moment) if self.0.rem_euclid(1_000) == 0 => {
                write!(f, "{}", moment.format("%Y-%m-%dT%H:%M:%S%.3fZ"))
            }
            Some(moment) => write!(f, "{}", moment.format("%Y-%m-%dT%H:%M:%S%.6fZ")),
            None => write!(f, "{} microseconds since 1970", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse_rfc3339(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn moments_are_added_up_as_far_as_they_can_be_counted(
            micros: i64,
            secs in prop_oneof![any::<u64>(), 9_223_372_036_850_u64..9_223_372_036_859, 0_u64..99],
            nanos in 0_u32..1_000_000_000,
        ) {
            let duration = Duration::new(secs, nanos);
            let by = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
            let moment = Timestamp::from_micros(micros);
            prop_assert_eq!(moment.saturating_add(duration).micros(), micros.saturating_add(by));
            prop_assert_eq!(moment.saturating_sub(duration).micros(), micros.saturating_sub(by));
        }
    }
}
