//! The table that a bench prints: what was measured, and the target beside it.

use std::fmt::Display;
use std::time::Duration;

/// What a figure should be.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing was promised; the figure is for reading.
    None,
}

pub(crate) fn heading(title: impl Display) {
    println!("\n{title}");
    println!("  {:<58} {:>12} {:<9} target", "", "measured", "");
}

impl Target {
    /// The bound, and whether `value` keeps it.
    pub(crate) fn verdict(self, value: f64) -> String {
        let (bound, met) = match self {
            Target::AtMost(most) => (format!("<= {}", short(most)), value <= most),
            Target::AtLeast(least) => (format!(">= {}", short(least)), value >= least),
            Target::None => return String::new(),
        };
        format!("{bound:<11} {}", if met { "met" } else { "MISSED" })
    }
}

/// One line: `what`, `value` in `unit`, and whether it meets its target.
pub(crate) fn line(what: impl Display, value: f64, unit: &str, target: Target) {
    let verdict = target.verdict(value);
    let text = format!("  {:<58} {:>12} {unit:<9} {verdict}", what, short(value));
    println!("{}", text.trim_end());
}

/// Three or more significant digits, thousands apart.
pub(crate) fn short(value: f64) -> String {
    let decimals = match value.abs() {
        x if x >= 100.0 || x == 0.0 => 0,
        x if x >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut spaced = String::new();
    for (i, digit) in whole.chars().enumerate() {
        let left = whole.len() - i;
        if i > 0 && left % 3 == 0 && digit.is_ascii_digit() && !spaced.ends_with('-') {
            spaced.push(',');
        }
        spaced.push(digit);
    }
    if fraction.is_empty() { spaced } else { format!("{spaced}.{fraction}") }
}

pub(crate) fn ns_each(time: Duration, n: usize) -> f64 {
    time.as_nanos() as f64 / n as f64
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
