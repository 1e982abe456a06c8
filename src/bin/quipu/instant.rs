//! Times and durations as they stand in files and on the command line.
//!
//! 1. Nothing is guessed that could be wrong. A number is milliseconds unless `--time-unit` says
//!    otherwise; one that as milliseconds would be a strange date, and as another unit an ordinary
//!    one, is refused with a sentence that names the option.
//! 2. Decimal times are read exactly, digit by digit, never through a float; what is finer than a
//!    microsecond is cut off towards the past.

use std::time::Duration;

use clap::ValueEnum;
use quipu::{Grain, Length, TimeZone, Timestamp};

/// What a number in the time field counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unit {
    /// Seconds since 1970
    S,
    /// Milliseconds since 1970
    Ms,
    /// Microseconds since 1970
    Us,
    /// Nanoseconds since 1970
    Ns,
}

impl Unit {
    /// Ten to this power of the unit make a second.
    fn power(self) -> i32 {
        match self {
            Self::S => 0,
            Self::Ms => 3,
            Self::Us => 6,
            Self::Ns => 9,
        }
    }
}

/// How the time field is to be read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reading {
    /// The unit of numbers, where the caller named one.
    pub(crate) unit: Option<Unit>,
    /// Whether a written time without a zone is UTC; otherwise it is refused.
    pub(crate) zone: Zone,
}

/// What a written time without a zone means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Zone {
    /// Nothing: it is refused.
    #[default]
    Required,
    /// The same where no option can say it.
    Named,
    /// A time in UTC.
    Utc,
}

/// Reads a time: a number since 1970, or RFC 3339.
pub(crate) fn parse(text: &str, reading: Reading) -> Result<Timestamp, String> {
    let text = text.trim();
    match decimal(text) {
        Some(Decimal::Number { digits, exponent }) => from_number(text, digits, exponent, reading),
        Some(Decimal::OutOfRange) => Err(format!("time {text} is out of range")),
        None => from_words(text, reading.zone),
    }
}

enum Decimal {
    /// `digits * 10^exponent`
    Number {
        digits: i128,
        exponent: i32,
    },
    OutOfRange,
}

/// Takes a decimal number apart; `None` when the text is none.
fn decimal(text: &str) -> Option<Decimal> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (negative, whole) = whole.strip_prefix('-').map_or((false, whole), |rest| (true, rest));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut digits = 0_i128;
    for digit in whole.bytes().chain(fraction.bytes()) {
        if !digit.is_ascii_digit() {
            return None;
        }
        // Past this size no unit brings it back into range.
        if digits > i128::MAX / 100 {
            return Some(Decimal::OutOfRange);
        }
        digits = digits * 10 + i128::from(digit - b'0');
    }
    let exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    Some(Decimal::Number { digits: if negative { -digits } else { digits }, exponent })
}

fn from_number(
    text: &str,
    digits: i128,
    exponent: i32,
    reading: Reading,
) -> Result<Timestamp, String> {
    let out_of_range = || format!("time {text} is out of range");
    let unit = reading.unit.unwrap_or(Unit::Ms);
    let micros = scaled(digits, exponent.saturating_add(6 - unit.power()))
        .and_then(|micros| i64::try_from(micros).ok());
    if reading.unit.is_none()
        && let Some(likely) = likely_unit(digits, exponent)
    {
        let as_millis = micros
            .map(Timestamp::from_micros)
            .map_or(String::new(), |at| format!(" would be {at} in milliseconds and"));
        return Err(format!(
            "time {text}{as_millis} looks like {likely}: say --time-unit \
             (or --time-unit ms if it is right)"
        ));
    }
    micros.map(Timestamp::from_micros).ok_or_else(out_of_range)
}

/// The unit, other than milliseconds, that a bare number looks like (1).
fn likely_unit(digits: i128, exponent: i32) -> Option<&'static str> {
    // Seconds of 1973 to 5138 are milliseconds of January 1970 to March 1973, and so on.
    match scaled(digits.abs(), exponent)? {
        100_000_000..100_000_000_000 => Some("seconds (s)"),
        100_000_000_000_000..100_000_000_000_000_000 => Some("microseconds (us)"),
        100_000_000_000_000_000..100_000_000_000_000_000_000 => Some("nanoseconds (ns)"),
        _ => None,
    }
}

/// `digits * 10^power`, rounded down; `None` past the range.
fn scaled(digits: i128, power: i32) -> Option<i128> {
    let factor = 10_i128.checked_pow(power.unsigned_abs());
    match (power >= 0, factor) {
        (true, Some(factor)) => digits.checked_mul(factor),
        (true, None) => (digits == 0).then_some(0),
        (false, Some(factor)) => Some(digits.div_euclid(factor)),
        (false, None) => Some(if digits < 0 { -1 } else { 0 }),
    }
}

fn from_words(text: &str, zone: Zone) -> Result<Timestamp, String> {
    if let Ok(at) = Timestamp::parse_rfc3339(text) {
        return Ok(at);
    }
    let completed = in_utc(text);
    match (Timestamp::parse_rfc3339(&completed), zone) {
        (Ok(at), Zone::Utc) => Ok(at),
        (Ok(_), Zone::Named) => {
            Err(format!("time {text:?} names no time zone: write it like {completed}"))
        }
        (Ok(_), Zone::Required) => Err(format!(
            "time {text:?} names no time zone: write it like {completed}, or say --assume-utc"
        )),
        (Err(_), _) => {
            Err(format!("time {text:?} is neither a number nor RFC 3339 (2010-12-01T08:26:00Z)"))
        }
    }
}

/// `2010-12-01`, `2010-12-01 08:26` and `2010-12-01 08:26:00` with what they lack.
fn in_utc(text: &str) -> String {
    let time = if text.contains(':') { "" } else { "T00:00" };
    let seconds = if text.matches(':').count() == 2 { "" } else { ":00" };
    format!("{}{time}{seconds}Z", text.replacen(' ', "T", 1))
}

/// Reads a time of the command line: RFC 3339, or a date and time in UTC.
pub(crate) fn argument(text: &str) -> Result<Timestamp, String> {
    let at = from_words(text.trim(), Zone::Utc);
    at.map_err(|_| format!("{text:?} is no time; write it like 2010-12-01T08:26:00Z"))
}

/// A moment on the command line that is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    At(Timestamp),
    /// The beginning of a day, which is one so many days after 1970-01-01, where the clocks are.
    Day(i64),
}

impl Moment {
    /// Reads RFC 3339, a date, or milliseconds since 1970. A time of the day names its zone.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let is_date = text.len() == 10 && !text.contains(':') && decimal(text).is_none();
        match Timestamp::parse_rfc3339(&in_utc(text)) {
            Ok(midnight) if is_date => Ok(Self::Day(midnight.millis().div_euclid(86_400_000))),
            _ => parse(text, Reading { zone: Zone::Named, ..Reading::default() }).map(Self::At),
        }
    }

    pub(crate) fn in_zone(self, zone: TimeZone) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Day(day) => zone.start(Grain::Day, day),
        }
    }
}

/// Reads a duration of the command line: `500ms`, `90s`, `1h30m`, `50d`, `2w`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let length = text.parse::<Length>().map_err(|error| error.to_string())?;
    // A hundred thousand years: past every clock there is.
    let fits = |length: &Duration| length.as_secs() <= 3_155_760_000_000;
    let length = Some(Duration::from(length)).filter(fits);
    length.ok_or_else(|| format!("{text:?} is not a duration that fits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_begins_where_the_clocks_are() {
        let in_zone = |text, zone: TimeZone| {
            Moment::parse(text).map(|moment| moment.in_zone(zone).to_string())
        };
        let paris: TimeZone = "Europe/Paris".parse().unwrap();
        let of = |text: &str| Ok(text.to_owned());
        assert_eq!(in_zone("2011-05-01", TimeZone::UTC), of("2011-05-01T00:00:00.000Z"));
        assert_eq!(in_zone(" 2011-05-01 ", paris), of("2011-04-30T22:00:00.000Z"));
        assert_eq!(in_zone("1969-12-31", paris), of("1969-12-30T23:00:00.000Z"));
        assert_eq!(in_zone("2011-05-01T00:00:00Z", paris), of("2011-05-01T00:00:00.000Z"));
        assert_eq!(in_zone("1304208000000", paris), of("2011-05-01T00:00:00.000Z"));
        assert!(Moment::parse("2011-05-01 10:00").unwrap_err().contains("names no time zone"));
        for wrong in ["", "2011-13-01", "2011-02-29", "yesterday", "2011-5-1", "1304208000"] {
            assert!(Moment::parse(wrong).is_err(), "{wrong}");
        }
    }

    fn read(text: &str, unit: Option<Unit>) -> Result<i64, String> {
        parse(text, Reading { unit, zone: Zone::Required }).map(Timestamp::micros)
    }

    #[test]
    fn numbers_are_milliseconds_unless_said_otherwise() {
        assert_eq!(read("1431857103000", None), Ok(1_431_857_103_000_000));
        assert_eq!(read(" 1431857103000.25 ", None), Ok(1_431_857_103_000_250));
        assert_eq!(read("1.431857103e12", None), Ok(1_431_857_103_000_000));
        assert_eq!(read("0", None), Ok(0));
        assert_eq!(read("1000", None), Ok(1_000_000));
        assert_eq!(read("1431857103", Some(Unit::S)), Ok(1_431_857_103_000_000));
        assert_eq!(read("1431857103.123456789", Some(Unit::S)), Ok(1_431_857_103_123_456));
        assert_eq!(read("-1.5", Some(Unit::S)), Ok(-1_500_000));
        assert_eq!(read("1431857103000001", Some(Unit::Us)), Ok(1_431_857_103_000_001));
        assert_eq!(read("1431857103000001999", Some(Unit::Ns)), Ok(1_431_857_103_000_001));
        assert_eq!(read("-1", Some(Unit::Ns)), Ok(-1));
    }

    #[test]
    fn a_number_that_looks_like_another_unit_is_refused_and_the_option_named() {
        let seconds = read("1431857103", None).unwrap_err();
        assert!(seconds.contains("seconds (s)") && seconds.contains("1970-01-17"), "{seconds}");
        assert!(read("1431857103000000", None).unwrap_err().contains("microseconds (us)"));
        assert!(read("1431857103000000000", None).unwrap_err().contains("nanoseconds (ns)"));
        assert_eq!(read("1431857103", Some(Unit::Ms)), Ok(1_431_857_103_000));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for text in ["1e30", "-1e30", "1e2147483647", &"9".repeat(60)] {
            assert!(read(text, Some(Unit::S)).is_err(), "{text}");
        }
        assert_eq!(read("1e-2147483647", Some(Unit::S)), Ok(0));
        assert_eq!(read("0e300", Some(Unit::S)), Ok(0));
    }

    #[test]
    fn written_times_need_a_zone() {
        let at = Ok(1_291_191_960_000_000);
        assert_eq!(read("2010-12-01T08:26:00Z", None), at);
        assert_eq!(read("2010-12-01T09:26:00+01:00", None), at);
        let error = read("2010-12-01 08:26:00", None).unwrap_err();
        assert!(error.contains("--assume-utc"), "{error}");
        for text in ["2010-12-01 08:26:00", "2010-12-01T08:26", "2010-12-01T08:26:00.000"] {
            let utc = Reading { unit: None, zone: Zone::Utc };
            assert_eq!(parse(text, utc).map(Timestamp::micros), at, "{text}");
        }
        for text in ["", "yesterday", "12/1/2010 8:26", ".", "-", "1_000", "2010-13-01"] {
            assert!(read(text, None).unwrap_err().contains("RFC 3339"), "{text}");
        }
    }

    #[test]
    fn a_time_of_the_command_line_is_written_out() {
        let at = Ok(1_291_191_960_000_000);
        for text in ["2010-12-01T08:26:00Z", "2010-12-01T09:26:00+01:00", "2010-12-01 08:26"] {
            assert_eq!(argument(text).map(Timestamp::micros), at, "{text}");
        }
        for text in ["1291191960000", "", "noon"] {
            assert!(argument(text).unwrap_err().contains("2010-12-01T08:26:00Z"), "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("50d"), Ok(Duration::from_hours(50 * 24)));
        assert_eq!(duration("36 h"), Ok(Duration::from_hours(36)));
        for text in ["", "5", "d", "-1d", "99999999999999999w", "1.5h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
