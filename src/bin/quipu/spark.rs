//! Numbers as block characters: a line of small columns, and a horizontal bar.
//!
//! 1. Only U+2581 to U+258F are used, which every terminal font has.
//! 2. What is above zero shows; what is zero or below does not.

/// The eighths of a column, lowest first.
const COLUMNS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The eighths of a bar's last place, shortest first.
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// One character a number, the largest the full height.
pub(crate) fn line(numbers: &[u64]) -> String {
    let largest = numbers.iter().copied().max().unwrap_or(0);
    let column = |n: u64| match n {
        0 => ' ',
        // The largest number is at least this one, which is above zero.
        n => COLUMNS[((n as f64 / largest as f64 * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    numbers.iter().map(|n| column(*n)).collect()
}

/// A bar of `width` characters for a `share` of 1, in eighths.
pub(crate) fn bar(share: f64, width: usize) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let eighths = (share * width as f64 * 8.0).round() as usize;
    let eighths = if share > 0.0 { eighths.max(1) } else { eighths };
    let mut text = "█".repeat(eighths / 8);
    if eighths % 8 > 0 {
        text.push(EIGHTHS[eighths % 8 - 1]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_is_full_and_zero_is_empty() {
        assert_eq!(line(&[0, 1, 50, 100]), " ▁▄█");
        assert_eq!(line(&[5]), "█");
        assert_eq!(line(&[0, 0]), "  ");
        assert_eq!(line(&[]), "");
        assert_eq!(line(&[1, u64::MAX]), "▁█");
    }

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        assert_eq!(bar(1.0, 4), "████");
        assert_eq!(bar(0.5, 3), "█▌");
        assert_eq!(bar(1e-9, 4), "▏");
        for nothing in [0.0, -1.0, f64::NAN] {
            assert_eq!(bar(nothing, 4), "");
        }
        assert_eq!(bar(7.0, 2), "██");
    }
}
