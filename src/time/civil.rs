//! What a wall clock and a wall calendar show: a time of day, a day of the week, a date, a range of
//! dates. Which moment that is, a time zone says.
//!
//! Invariants
//! 1. The text form is what [`Display`](fmt::Display) writes and `FromStr` reads: `09:00`, `mon`,
//!    `2026-12-25`, `2026-12-24..2026-12-31`.
//! 2. A [`Date`] is of the years 1 to 9999, a [`TimeOfDay`] at most 24:00.
//!
//! Next: `schedule.rs`.

use super::grain::{days_from_civil, year_and_month};
use crate::error::{Error, Result};
use crate::event::abridged;
use std::fmt;
use std::ops::RangeInclusive;

/// A time on the clock, to the second: from 00:00 to 24:00, which is where a day ends.
///
/// ```
/// use quipu::TimeOfDay;
///
/// assert_eq!(TimeOfDay::new(9, 30, 0)?, "09:30".parse()?);
/// assert_eq!("9:30:05".parse::<TimeOfDay>()?.to_string(), "09:30:05");
/// assert_eq!("24:00".parse::<TimeOfDay>()?, TimeOfDay::END);
/// assert!("24:01".parse::<TimeOfDay>().is_err());
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeOfDay(u32);

impl TimeOfDay {
    /// 00:00, where a day begins.
    pub const START: TimeOfDay = TimeOfDay(0);
    /// 24:00, where a day ends.
    pub const END: TimeOfDay = TimeOfDay(86_400);

    /// A time of day. 24:00:00 is one, and nothing behind it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when a clock does not show it; there are no leap
    /// seconds.
    pub fn new(hour: u8, minute: u8, second: u8) -> Result<Self> {
        let time = (minute < 60 && second < 60).then(|| {
            TimeOfDay(u32::from(hour) * 3_600 + u32::from(minute) * 60 + u32::from(second))
        });
        time.filter(|time| *time <= Self::END).ok_or_else(|| {
            Error::invalid(format!(
                "{hour:02}:{minute:02}:{second:02} is no time of day; they are 00:00:00 to 23:59:59, \
                 and 24:00 where a day ends"
            ))
        })
    }

    /// Seconds since 00:00 on the clock.
    pub const fn seconds(self) -> u32 {
        self.0
    }

    /// The one so many seconds behind 00:00, or behind the 00:00 after.
    pub(super) const fn wrapped(seconds: u32) -> Self {
        TimeOfDay(if seconds > 86_400 { seconds - 86_400 } else { seconds })
    }
}

/// `09:00`, with the seconds where there are any.
impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hour, minute, second) = (self.0 / 3_600, self.0 / 60 % 60, self.0 % 60);
        write!(f, "{hour:02}:{minute:02}")?;
        if second == 0 { Ok(()) } else { write!(f, ":{second:02}") }
    }
}

/// Reads `9:30`, `09:30` and `09:30:05`.
impl std::str::FromStr for TimeOfDay {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(':');
        let hour = parts.next().and_then(|part| number(part, 1..=2));
        let minute = parts.next().and_then(|part| number(part, 2..=2));
        let second = parts.next().map_or(Some(0), |part| number(part, 2..=2));
        match (hour, minute, second, parts.next()) {
            (Some(hour), Some(minute), Some(second), None) => {
                TimeOfDay::new(hour as u8, minute as u8, second as u8)
            }
            _ => Err(Error::invalid(format!(
                "{} is no time of day; they are like 09:00, 17:30:15 or 24:00",
                abridged(text)
            ))),
        }
    }
}

impl TryFrom<&str> for TimeOfDay {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        text.parse()
    }
}

/// Digits only, so many of them.
fn number(text: &str, digits: RangeInclusive<usize>) -> Option<u32> {
    let plain = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// A day of the week; the week begins on Monday.
///
/// ```
/// use quipu::{Date, Weekday};
///
/// assert_eq!(Date::new(2026, 12, 25)?.weekday(), Weekday::Friday);
/// assert_eq!("Friday".parse::<Weekday>()?.to_string(), "fri");
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weekday {
    /// Monday.
    Monday,
    /// Tuesday.
    Tuesday,
    /// Wednesday.
    Wednesday,
    /// Thursday.
    Thursday,
    /// Friday.
    Friday,
    /// Saturday.
    Saturday,
    /// Sunday.
    Sunday,
}

impl Weekday {
    /// From Monday to Sunday.
    pub const ALL: [Weekday; 7] = [
        Weekday::Monday,
        Weekday::Tuesday,
        Weekday::Wednesday,
        Weekday::Thursday,
        Weekday::Friday,
        Weekday::Saturday,
        Weekday::Sunday,
    ];

    fn name(self) -> &'static str {
        match self {
            Weekday::Monday => "monday",
            Weekday::Tuesday => "tuesday",
            Weekday::Wednesday => "wednesday",
            Weekday::Thursday => "thursday",
            Weekday::Friday => "friday",
            Weekday::Saturday => "saturday",
            Weekday::Sunday => "sunday",
        }
    }
}

/// `mon`.
impl fmt::Display for Weekday {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name()[..3])
    }
}

/// Reads `mon` and `monday`, in capitals or not.
impl std::str::FromStr for Weekday {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is = |name: &str| name.eq_ignore_ascii_case(text);
        let mut all = Self::ALL.into_iter();
        all.find(|day| is(day.name()) || is(&day.name()[..3])).ok_or_else(|| {
            Error::invalid(format!(
                "{} is no day of the week; they are mon, tue, wed, thu, fri, sat and sun",
                abridged(text)
            ))
        })
    }
}

/// A date of the Gregorian calendar, of the years 1 to 9999.
///
/// ```
/// use quipu::Date;
///
/// let date: Date = "2026-12-25".parse()?;
/// assert_eq!(date, Date::new(2026, 12, 25)?);
/// assert!("2026-02-29".parse::<Date>().is_err());
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(i32);

impl Date {
    /// 0001-01-01.
    pub const MIN: Date = Date(-719_162);
    /// 9999-12-31.
    pub const MAX: Date = Date(2_932_896);

    /// A date; months and days count from 1.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when the calendar has no such date.
    pub fn new(year: u16, month: u8, day: u8) -> Result<Self> {
        let (year, month0) = (i64::from(year), i64::from(month) - 1);
        let is_month = (1..=9_999).contains(&year) && (0..12).contains(&month0);
        let begin = if is_month { days_from_civil(year, month0) } else { 0 };
        let next = if month0 == 11 { (year + 1, 0) } else { (year, month0 + 1) };
        let days = if is_month { days_from_civil(next.0, next.1) - begin } else { 0 };
        if (1..=days).contains(&i64::from(day)) {
            return Ok(Date((begin + i64::from(day) - 1) as i32));
        }
        let right = if is_month {
            format!("that month has {days} days")
        } else {
            "dates are 0001-01-01 to 9999-12-31".to_owned()
        };
        Err(Error::invalid(format!("{year:04}-{month:02}-{day:02} is no date; {right}")))
    }

    /// The day of the week that it is.
    pub fn weekday(self) -> Weekday {
        Weekday::ALL[weekday0(self.number())]
    }

    /// Days since 1970-01-01, as [`Grain::Day`](super::Grain::Day) numbers them.
    pub(super) fn number(self) -> i64 {
        i64::from(self.0)
    }

    pub(super) fn is_before(self, later: Date) -> bool {
        self.0 + 1 == later.0
    }
}

/// The place in the week, Monday being 0, of a day since 1970.
pub(super) fn weekday0(day: i64) -> usize {
    (day + super::grain::WEEK_SHIFT_DAYS).rem_euclid(7) as usize
}

/// `2026-12-25`.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month0) = year_and_month(self.number());
        let day = self.number() - days_from_civil(year, month0) + 1;
        write!(f, "{year:04}-{:02}-{day:02}", month0 + 1)
    }
}

/// Reads `2026-12-25`.
impl std::str::FromStr for Date {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split('-');
        let year = parts.next().and_then(|part| number(part, 4..=4));
        let month = parts.next().and_then(|part| number(part, 2..=2));
        let day = parts.next().and_then(|part| number(part, 2..=2));
        match (year, month, day, parts.next()) {
            (Some(year), Some(month), Some(day), None) => {
                Date::new(year as u16, month as u8, day as u8)
            }
            _ => Err(Error::invalid(format!(
                "{} is no date; they are like 2026-12-25",
                abridged(text)
            ))),
        }
    }
}

/// A date, or dates that follow each other, the first and the last included.
///
/// ```
/// use quipu::{Date, Dates};
///
/// let (eve, last) = (Date::new(2026, 12, 24)?, Date::new(2026, 12, 31)?);
/// assert_eq!(Dates::from(eve..=last), "2026-12-24..2026-12-31".parse()?);
/// assert_eq!(Dates::from(eve).to_string(), "2026-12-24");
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dates {
    pub(super) first: Date,
    pub(super) last: Date,
}

impl From<Date> for Dates {
    fn from(date: Date) -> Self {
        Dates { first: date, last: date }
    }
}

impl From<RangeInclusive<Date>> for Dates {
    fn from(dates: RangeInclusive<Date>) -> Self {
        Dates { first: *dates.start(), last: *dates.end() }
    }
}

/// `2026-12-25`, `2026-12-24..2026-12-31`.
impl fmt::Display for Dates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        if self.first == self.last { Ok(()) } else { write!(f, "..{}", self.last) }
    }
}

/// Reads a date, or two with `..` between them.
impl std::str::FromStr for Dates {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((first, last)) = text.split_once("..") else {
            return text.parse::<Date>().map(Dates::from);
        };
        Ok(Dates { first: first.parse()?, last: last.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{Datelike, NaiveDate};

    #[test]
    fn dates_agree_with_chrono() {
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        for year in [1_u16, 4, 100, 400, 1899, 1900, 1970, 2000, 2026, 2100, 9998, 9999] {
            for (month, day) in (0..=14).flat_map(|month| (0..=33).map(move |day| (month, day))) {
                let other =
                    NaiveDate::from_ymd_opt(i32::from(year), u32::from(month), u32::from(day));
                let date = Date::new(year, month, day);
                assert_eq!(date.is_ok(), other.is_some(), "{year} {month} {day}");
                let (Ok(date), Some(other)) = (date, other) else { continue };
                assert_eq!(date.number(), other.signed_duration_since(epoch).num_days());
                assert_eq!(date.to_string(), other.to_string());
                assert_eq!(date.to_string().parse::<Date>().unwrap(), date);
                let weekday = other.weekday().num_days_from_monday();
                assert_eq!(date.weekday(), Weekday::ALL[weekday as usize]);
            }
        }
        assert_eq!(Date::new(1, 1, 1).unwrap(), Date::MIN);
        assert_eq!(Date::new(9_999, 12, 31).unwrap(), Date::MAX);
        assert!(Date::new(0, 1, 1).is_err() && Date::new(10_000, 1, 1).is_err());
    }

    #[test]
    fn times_of_day_are_read_as_they_are_written() {
        for seconds in 0..=86_400 {
            let time = TimeOfDay(seconds);
            assert_eq!(time.to_string().parse::<TimeOfDay>().unwrap(), time);
        }
        let refused = [
            "", ":", "9", "9:0", "09:60", "24:00:01", "25:00", "009:00", "+9:00", "9:00:",
            "9:00:0:0",
        ];
        for text in refused {
            assert!(text.parse::<TimeOfDay>().is_err(), "{text}");
        }
    }
}
