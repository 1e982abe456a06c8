//! Answers that are known within bounds.

use serde::Serialize;

/// A number that is known within bounds: what a sketch says, and how wrong it may be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Approx {
    /// The estimate.
    pub value: f64,
    /// The number is at least this, with the confidence given.
    pub lower: f64,
    /// The number is at most this, with the confidence given.
    pub upper: f64,
    /// How often such bounds hold, between 0 and 1: 1 where they always do, as those do that follow
    /// from counting, and 0.95 where they follow from a standard error.
    pub confidence: f64,
}

impl Approx {
    /// A number that is known.
    pub(crate) fn exact(value: f64) -> Self {
        Approx { value, lower: value, upper: value, confidence: 1.0 }
    }

    /// A count that certainly lies between two. Bounds above 2^53 are rounded outwards, and 2^64 - 1, where
    /// counts stop, may be any number above it.
    pub(crate) fn counted(value: f64, lower: u64, upper: u64) -> Self {
        // `as` rounds to the nearest; an f64 of an integer below 2^64 fits in 128 bits.
        let (mut low, mut high) = (lower as f64, upper as f64);
        if low as u128 > u128::from(lower) {
            low = low.next_down();
        }
        if (high as u128) < u128::from(upper) {
            high = high.next_up();
        }
        if upper == u64::MAX {
            high = f64::INFINITY;
        }
        Approx { value, lower: low, upper: high, confidence: 1.0 }
    }

    /// An estimate with a standard error, within which 95 of a hundred are (1.96 of them either side);
    /// the number is no less than `least`.
    pub(crate) fn normal(value: f64, standard_error: f64, least: f64) -> Self {
        let half_width = 1.96 * standard_error;
        Approx {
            value,
            lower: (value - half_width).max(least),
            upper: value + half_width,
            confidence: 0.95,
        }
    }

    /// An estimate whose standard error is a part of the number itself: the numbers of which such an estimate
    /// is within 1.96 of them.
    pub(crate) fn relative(value: f64, standard_error: f64, least: f64) -> Self {
        let off = (1.96 * standard_error).min(0.99);
        Approx {
            value,
            lower: (value / (1.0 + off)).max(least),
            upper: value / (1.0 - off),
            confidence: 0.95,
        }
    }

    /// Whether the number is known exactly: its bounds are one number, and always hold.
    #[expect(clippy::float_cmp, reason = "a number that is known is both bounds")]
    pub fn is_exact(&self) -> bool {
        self.lower == self.upper && self.confidence >= 1.0
    }
}
