//! Numbers and names as a person reads them: thousands separated, few digits, nothing that a
//! terminal would obey.
//!
//! 1. These texts are for tables and reports only; JSON and CSV carry every digit.
//! 2. A number that is not zero never reads as zero: where the digits of its column do not reach
//!    it, it is written with an exponent.
//! 3. Control characters of a key are shown, never sent.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use quipu::Length;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Beyond this a number is written with an exponent.
const PLAIN_MAX: f64 = 1e15;

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(n: u64) -> String {
    group(&n.to_string())
}

/// `1 segment`, `1,234 segments`.
pub(crate) fn counted(n: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// Puts a comma between the thousands of the digits before the point.
fn group(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    let (whole, fraction) = digits.find('.').map_or((digits, ""), |at| digits.split_at(at));
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    text.push_str(sign);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text.push_str(fraction);
    text
}

/// How many decimals the numbers of a column should have: as many as they need, while the
/// largest shows six significant digits, at least two where any are needed.
pub(crate) fn decimals(column: impl Iterator<Item = f64>) -> usize {
    let (mut needed, mut largest) = (0, 0.0_f64);
    for x in column.filter(|x| x.is_finite() && x.abs() < PLAIN_MAX) {
        largest = largest.max(x.abs());
        if needed < 6 {
            needed = needed.max(decimals_of(x));
        }
    }
    let whole = if largest < 1.0 { 0 } else { largest.log10() as usize + 1 };
    needed.min(6_usize.saturating_sub(whole).max(2))
}

/// The decimals of the shortest text of `x` to twelve digits, at most six. Beyond twelve stands
/// what binary fractions leave: 5288.63 that was summed may be 5288.630000000009.
fn decimals_of(x: f64) -> usize {
    let twelve = format!("{x:.11e}").parse::<f64>().unwrap_or(x);
    let text = format!("{twelve}");
    text.find('.').map_or(0, |at| (text.len() - at - 1).min(6))
}

/// `x` with so many decimals, thousands separated.
pub(crate) fn fixed(x: f64, decimals: usize) -> String {
    if !x.is_finite() {
        return x.to_string();
    }
    let vanishes = x != 0.0 && x.abs() < 0.5 * 10_f64.powi(-(decimals as i32));
    if vanishes || x.abs() >= PLAIN_MAX {
        return format!("{x:.3e}");
    }
    let text = format!("{x:.decimals$}");
    if x == 0.0 { group(text.trim_start_matches('-')) } else { group(&text) }
}

/// A number alone, where no column decides its digits.
pub(crate) fn alone(x: f64) -> String {
    fixed(x, decimals(std::iter::once(x)))
}

/// Bytes in the unit that keeps the number small: `117.7 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let (mut size, mut unit) = (n as f64 / 1024.0, 0);
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// A length of time in the unit that keeps the number small: `12.3 ms`.
pub(crate) fn micros(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} µs"),
        1_000..1_000_000 => format!("{:.1} ms", n as f64 / 1e3),
        1_000_000..120_000_000 => format!("{:.2} s", n as f64 / 1e6),
        120_000_000..7_200_000_000 => format!("{:.1} min", n as f64 / 60e6),
        _ => format!("{:.1} h", n as f64 / 3600e6),
    }
}

/// A length for people: whole seconds, or milliseconds below one; never less
/// than it is.
pub(crate) fn length(length: Duration) -> String {
    let unit: u128 = if length < Duration::from_secs(1) { 1_000_000 } else { 1_000_000_000 };
    let units = length.as_nanos().div_ceil(unit);
    let seconds = u64::try_from(units * unit / 1_000_000_000).unwrap_or(u64::MAX);
    Length::from(Duration::new(seconds, (units * unit % 1_000_000_000) as u32)).to_string()
}

/// An instant as tables show it: `2010-12-01 08:26:00` of `2010-12-01T08:26:00.000Z`.
pub(crate) fn instant(rfc3339: &str) -> String {
    let text = rfc3339.strip_suffix('Z').unwrap_or(rfc3339);
    text.strip_suffix(".000").unwrap_or(text).replacen('T', " ", 1)
}

/// A text without anything that a terminal obeys (3).
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_command) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_command(c) {
            // Writing to a String cannot fail.
            let _ = write!(shown, "{}", c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// The parts of a key in a sentence; one that is empty is seen to be there.
pub(crate) fn key<T: AsRef<str>>(parts: &[T]) -> String {
    let shown = |part: &T| match part.as_ref() {
        "" => "\"\"".to_owned(),
        part => visible(part).into_owned(),
    };
    parts.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// Control characters, and those that turn the direction of what follows.
fn is_command(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// How many columns of a terminal a text takes.
pub(crate) fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// A text at most `width_max` columns wide, an ellipsis at its end where something is missing.
pub(crate) fn shortened(text: &str, width_max: usize) -> Cow<'_, str> {
    if width(text) <= width_max {
        return Cow::Borrowed(text);
    }
    let mut taken = 0;
    let fits = |c: &char| {
        taken += c.width().unwrap_or(0);
        taken < width_max
    };
    let mut short: String = text.chars().take_while(fits).collect();
    short.push('…');
    Cow::Owned(short)
}

/// A text with spaces behind it up to `width_min` columns.
pub(crate) fn padded(text: &str, width_min: usize) -> String {
    let gap = width_min.saturating_sub(width(text));
    format!("{text}{:gap$}", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated_and_signs_kept() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!([0, 1, 1_234].map(|n| counted(n, "row")), ["0 rows", "1 row", "1,234 rows"]);
        assert_eq!(fixed(-428_515.73, 2), "-428,515.73");
        assert_eq!(fixed(-0.0, 0), "0");
        assert_eq!(fixed(-100.0, 0), "-100");
    }

    #[test]
    fn a_column_has_the_decimals_it_needs_and_no_more() {
        let of = |column: &[f64]| decimals(column.iter().copied());
        assert_eq!(of(&[1.0, 20_000.0]), 0);
        assert_eq!(of(&[15.3, 20.34, 22.0]), 2);
        assert_eq!(of(&[4_826_466.491, -428_515.73]), 2);
        assert_eq!(of(&[0.081_964_735_516_4]), 6);
        assert_eq!(of(&[33.028]), 3);
        assert_eq!(of(&[5_288.630_000_000_009, 0.1 + 0.2]), 2);
        assert_eq!(of(&[1.0 / 3.0, 15.0]), 4);
        assert_eq!(of(&[f64::NAN, f64::INFINITY, 1e300]), 0);
        assert_eq!(of(&[]), 0);
    }

    #[test]
    fn what_is_not_zero_never_reads_as_zero() {
        assert_eq!(fixed(0.001, 2), "1.000e-3");
        assert_eq!(fixed(0.006, 2), "0.01");
        assert_eq!(fixed(1e300, 2), "1.000e300");
        assert_eq!(alone(0.0), "0");
        assert_eq!(alone(1_234.5), "1,234.5");
    }

    #[test]
    fn sizes_and_times_choose_their_unit() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(123_456_789), "117.7 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(micros(900), "900 µs");
        assert_eq!(micros(12_345), "12.3 ms");
        assert_eq!(micros(61_000_000), "61.00 s");
        assert_eq!(length(Duration::from_micros(39_000_001)), "40s");
        assert_eq!(length(Duration::from_secs(90_061)), "1d1h1m1s");
        assert_eq!(length(Duration::from_micros(1)), "1ms");
        assert_eq!(length(Duration::MAX), Length::from(Duration::from_secs(u64::MAX)).to_string());
        assert_eq!(length(Duration::ZERO), "0s");
        assert_eq!(instant("2010-12-01T08:26:00.000Z"), "2010-12-01 08:26:00");
        assert_eq!(instant("2010-12-01T08:26:00.250Z"), "2010-12-01 08:26:00.250");
    }

    #[test]
    fn a_key_cannot_command_the_terminal() {
        assert_eq!(visible("plain ünïcode"), "plain ünïcode");
        assert_eq!(visible("\u{1b}[2J"), "\\u{1b}[2J");
        assert_eq!(visible("a\nb"), "a\\nb");
        assert_eq!(key(&["a\nb", "", "c"]), "a\\nb, \"\", c");
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("abcd", 4), "abcd");
        assert_eq!(shortened("日本語", 6), "日本語");
        assert_eq!(shortened("日本語", 5), "日本…");
        assert_eq!(shortened("日本語", 4), "日…");
        assert_eq!(padded("日", 4), "日  ");
    }
}
