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
