//! Lengths of time as text: what people write on a command line, and what they are shown.
//!
//! Invariant: what is displayed is read as the same length, to the nanosecond; each length displays in
//! one way.
//!
//! Next: `time/schedule.rs`.

use crate::error::{Error, Result};
use crate::event::abridged;
use std::fmt;
use std::time::Duration;

/// A length of time, to be written and read: `90s` is read, `1m30s` is what it displays as.
///
/// It is whole numbers with units behind them, greatest unit first: `w` (7 days), `d` (24 hours), `h`, `m`
/// or `min`, `s`, `ms`, `us`, `ns`. Seconds may have a fraction: `1.5s`. Displayed are days and what is
/// below; less than a second is one number, in the greatest unit that measures it: `250ms`, `1500us`.
///
/// ```
/// use quipu::Length;
/// use std::time::Duration;
///
/// let length: Length = "1h30m".parse()?;
/// assert_eq!(Duration::from(length), Duration::from_mins(90));
/// assert_eq!("90m".parse::<Length>()?, length);
/// assert_eq!(Length::from(Duration::from_millis(90_250)).to_string(), "1m30.25s");
/// assert!("90".parse::<Length>().is_err());
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Length(Duration);

impl From<Duration> for Length {
    fn from(length: Duration) -> Self {
        Length(length)
    }
}

impl From<Length> for Duration {
    fn from(length: Length) -> Self {
        length.0
    }
}

const SECOND: u128 = 1_000_000_000;

/// The units, greatest first, and their lengths in nanoseconds.
const UNITS: [(&str, u128); 10] = [
    ("w", 7 * 86_400 * SECOND),
    ("d", 86_400 * SECOND),
    ("h", 3_600 * SECOND),
    ("m", 60 * SECOND),
    ("min", 60 * SECOND),
    ("s", SECOND),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
];

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        if seconds == 0 {
            return match nanos {
                0 => f.write_str("0s"),
                _ if nanos.is_multiple_of(1_000_000) => write!(f, "{}ms", nanos / 1_000_000),
                _ if nanos.is_multiple_of(1_000) => write!(f, "{}us", nanos / 1_000),
                _ => write!(f, "{nanos}ns"),
            };
        }
        for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
            if seconds >= length {
                write!(f, "{}{unit}", seconds / length)?;
                seconds %= length;
            }
        }
        match nanos {
            0 if seconds == 0 => Ok(()),
            0 => write!(f, "{seconds}s"),
            _ => write!(f, "{seconds}.{}s", format!("{nanos:09}").trim_end_matches('0')),
        }
    }
}

/// Reads the form described at [`Length`].
impl std::str::FromStr for Length {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        read(text).map(Length).map_err(|what| {
            Error::invalid(format!(
                "{} is no length of time: {what}; write one like 90s, 15m, 1h30m, 7d or 250ms",
                abridged(text)
            ))
        })
    }
}

fn read(text: &str) -> std::result::Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("it is empty".to_owned());
    }
    let (mut nanos, mut below) = (0_u128, u128::MAX);
    while !rest.is_empty() {
        let (number, behind) = taken(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, behind) = taken(behind.trim_start(), char::is_alphabetic);
        if number.is_empty() {
            return Err(format!("no number stands before {}", abridged(rest)));
        }
        if unit.is_empty() {
            return Err(format!("no unit stands behind {}", abridged(number)));
        }
        let Some((_, length)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("{} is no unit (w, d, h, m, s, ms, us, ns)", abridged(unit)));
        };
        if *length >= below {
            return Err(format!("{unit} stands behind a unit that is not greater"));
        }
        below = *length;
        let part = match number.split_once('.') {
            None => number.parse::<u64>().ok().map(|number| u128::from(number) * length),
            Some((whole, part)) if *length == SECOND => fraction(whole, part),
            Some(_) => return Err(format!("only seconds have a fraction, not {number}{unit}")),
        };
        nanos = part.and_then(|part| nanos.checked_add(part)).ok_or_else(|| too_long(number))?;
        rest = behind.trim_start();
    }
    let seconds = u64::try_from(nanos / SECOND).map_err(|_| too_long(text))?;
    Ok(Duration::new(seconds, (nanos % SECOND) as u32))
}

fn too_long(number: &str) -> String {
    format!("{} is no number that fits", abridged(number))
}

/// Seconds with a fraction of one to nine digits.
fn fraction(whole: &str, part: &str) -> Option<u128> {
    let digits = (1..=9).contains(&part.len());
    let nanos: u128 = digits.then(|| format!("{part:0<9}"))?.parse().ok()?;
    Some(u128::from(whole.parse::<u64>().ok()?) * SECOND + nanos)
}

/// What a text begins with, and the rest of it.
fn taken(text: &str, is_of: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !is_of(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_display_in_one_way() {
        for (millis, text) in [
            (0, "0s"),
            (250, "250ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (60_000, "1m"),
            (90_000, "1m30s"),
            (3_600_000, "1h"),
            (3_601_000, "1h1s"),
            (86_400_000, "1d"),
            (30 * 86_400_000 + 7_200_000, "30d2h"),
        ] {
            assert_eq!(Length(Duration::from_millis(millis)).to_string(), text);
        }
        assert_eq!(Length(Duration::from_micros(1_500)).to_string(), "1500us");
        assert_eq!(Length(Duration::from_nanos(7)).to_string(), "7ns");
    }

    #[test]
    fn other_ways_to_write_them_are_read() {
        for (text, shown) in [
            ("60s", "1m"),
            ("15min", "15m"),
            ("2w", "14d"),
            (" 1 h 30 m ", "1h30m"),
            ("1s500ms", "1.5s"),
            ("0.25s", "250ms"),
            ("3µs", "3us"),
        ] {
            assert_eq!(text.parse::<Length>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_length_is_told_why() {
        for (text, why) in [
            ("", "empty"),
            ("90", "no unit stands behind \"90\""),
            ("h", "no number"),
            ("-1s", "no number"),
            ("1.5h", "only seconds"),
            ("1.s", "fits"),
            ("1..5s", "fits"),
            (".5s", "fits"),
            ("1.0123456789s", "fits"),
            ("5 days", "\"days\" is no unit"),
            ("1m1h", "h stands behind"),
            ("1s1s", "s stands behind"),
            ("99999999999999999999s", "fits"),
            ("18446744073709551615w", "fits"),
        ] {
            let error = text.parse::<Length>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("1h30m"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_is_read(seconds: u64, nanos in 0_u32..1_000_000_000, shift in 0_u32..64) {
            let length = Length(Duration::new(seconds >> shift, nanos));
            prop_assert_eq!(length.to_string().parse::<Length>().unwrap(), length);
            let whole = Length(Duration::from_secs(seconds >> shift));
            prop_assert_eq!(whole.to_string().parse::<Length>().unwrap(), whole);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,12}|[0-9.wdhminsu ]{0,16}") {
            let _ = text.parse::<Length>();
        }
    }
}
