//! Statistics of a measure: how many, sum, least, greatest, mean, variance.
//!
//! Invariants
//! 1. Sum and sum of squares are exact (`exact.rs`): rounding happens when they are read, so no
//!    order, grouping or replay changes an answer, and the variance cancels nothing.
//! 2. Least and greatest follow `f64::total_cmp`; -0.0 counts as 0.0.
//!
//! Bytes: `measured (LEB128) · [min (8) · max (8) · sums]`, the bracket only where measured > 0.
//! Variance: population (n·Q - S²)/n², sample (n·Q - S²)/(n·(n-1)), the numerator in integers
//! (S the sum, Q the sum of squares), after West, "Updating mean and variance estimates: an
//! improved method" (CACM 22/9, 1979), which says why the textbook form fails in floating point
//! and not in exact arithmetic. Error: sum at most half an ulp; mean, variance a few ulps.

use super::exact::{Measure, Sums};
use super::{Aggregate, Malformed};
use crate::codec;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Count, sum, min, max, mean and variance of a measure, exact in any order.
///
/// 96 bytes in memory while values lie between 1e-9 and 1e23 in size or are zero; outside of that
/// it spills to some 900 bytes. An observation costs a few nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    min: f64,
    /// Between the two: side by side they would be compared at once, in four times as many instructions.
    measured: u64,
    max: f64,
    sums: Sums,
}

/// What [`Stats`] say, rounded to `f64`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The number of events that carried the measure.
    pub count_value: u64,
    /// Their sum, correctly rounded; infinite only where it exceeds the largest `f64`.
    pub sum: f64,
    /// The least value; `None` when nothing was measured.
    pub min: Option<f64>,
    /// The greatest value.
    pub max: Option<f64>,
    /// The arithmetic mean.
    pub mean: Option<f64>,
    /// The variance of the values as a whole population.
    pub var_pop: Option<f64>,
    /// The variance estimated from the values as a sample; `None` for fewer than two.
    pub var_samp: Option<f64>,
}

impl Stats {
    /// What [`observe`](Aggregate::observe) does, for a value that several states observe. Gives the
    /// bytes by which that grew on the heap.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "for each event in each view: a call costs as much")]
    pub(crate) fn observe_measure(&mut self, measure: &Measure) -> usize {
        self.note(measure.value());
        self.sums.add_measure(measure)
    }

    #[inline]
    fn note(&mut self, value: f64) {
        // Minus zero becomes zero. (Of a sum with zero the compiler would compare the value as it was, and not
        // see that what follows is an instruction each.)
        let value = if value == 0.0 { 0.0 } else { value };
        self.measured = self.measured.saturating_add(1);
        self.min = if value < self.min { value } else { self.min };
        self.max = if value > self.max { value } else { self.max };
    }

    /// The number of values observed.
    pub fn measured(&self) -> u64 {
        self.measured
    }

    /// The sum, correctly rounded.
    pub fn sum(&self) -> f64 {
        self.sums.sum()
    }

    /// The sum of the squares, correctly rounded.
    pub fn sum_of_squares(&self) -> f64 {
        self.sums.sum_of_squares()
    }

    /// The least value observed.
    pub fn min(&self) -> Option<f64> {
        (self.measured > 0).then_some(self.min)
    }

    /// The greatest value observed.
    pub fn max(&self) -> Option<f64> {
        (self.measured > 0).then_some(self.max)
    }

    /// The arithmetic mean.
    pub fn mean(&self) -> Option<f64> {
        self.sums.mean(self.measured)
    }

    /// Everything at once.
    pub fn summary(&self) -> Summary {
        Summary {
            count_value: self.measured,
            sum: self.sum(),
            min: self.min(),
            max: self.max(),
            mean: self.mean(),
            var_pop: self.sums.var_pop(self.measured),
            var_samp: self.sums.var_samp(self.measured),
        }
    }
}

impl Default for Stats {
    #[inline]
    fn default() -> Self {
        Stats { measured: 0, min: f64::INFINITY, max: f64::NEG_INFINITY, sums: Sums::default() }
    }
}

impl Aggregate for Stats {
    /// A finite number; the event that carries another is refused before it comes here.
    type Input<'a> = f64;

    #[inline]
    fn observe(&mut self, value: f64, _time: Timestamp) {
        self.note(value);
        self.sums.add(value);
    }

    fn merge(&mut self, other: &Self) {
        self.measured = self.measured.saturating_add(other.measured);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sums.merge(&other.sums);
    }

    fn encode(&self, out: &mut Vec<u8>) {
        codec::put_u64(out, self.measured);
        if self.measured > 0 {
            out.extend_from_slice(&self.min.to_le_bytes());
            out.extend_from_slice(&self.max.to_le_bytes());
            self.sums.encode(out);
        }
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let measured = codec::take_u64(bytes)?;
        if measured == 0 {
            return Ok(Stats::default());
        }
        let min = f64::from_le_bytes(codec::take_array(bytes)?);
        let max = f64::from_le_bytes(codec::take_array(bytes)?);
        let canonical = |x: f64| x.is_finite() && !(x == 0.0 && x.is_sign_negative());
        if !(canonical(min) && canonical(max) && min <= max) {
            return Err(Malformed("least and greatest value are not in order"));
        }
        Ok(Stats { measured, min, max, sums: Sums::decode(bytes)? })
    }

    fn heap_bytes(&self) -> usize {
        self.sums.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stats(values: &[f64]) -> Stats {
        let mut stats = Stats::default();
        for value in values {
            stats.observe(*value, Timestamp::default());
        }
        stats
    }

    fn bytes(stats: &Stats) -> Vec<u8> {
        let mut out = Vec::new();
        stats.encode(&mut out);
        out
    }

    fn finite() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => (-1_000_000_i64..1_000_000).prop_map(|cents| cents as f64 / 100.0),
            1 => any::<f64>().prop_filter("finite", |x| x.is_finite()),
            1 => Just(-0.0),
        ]
    }

    #[test]
    fn a_state_is_small() {
        assert!(size_of::<Stats>() <= 96, "{}", size_of::<Stats>());
    }

    proptest! {
        #[test]
        fn any_order_and_grouping_gives_the_same_bytes(
            values in prop::collection::vec(finite(), 0..60),
            cuts in prop::collection::vec(0_usize..4, 60),
            seed: u64,
        ) {
            let direct = bytes(&stats(&values));
            let mut parts = vec![Stats::default(); 4];
            for (i, value) in values.iter().enumerate().rev() {
                parts[cuts[i]].observe(*value, Timestamp::default());
            }
            parts.sort_by_key(|part| part.measured ^ seed);
            let merged = parts.iter().fold(Stats::default(), |mut all, part| { all.merge(part); all });
            prop_assert_eq!(&bytes(&merged), &direct);
            let mut rest = direct.as_slice();
            let decoded = Stats::decode(&mut rest).expect("own bytes");
            prop_assert!(rest.is_empty());
            prop_assert_eq!(&decoded, &merged);
            prop_assert_eq!(bytes(&decoded), direct);
        }

        #[test]
        fn a_value_taken_apart_beforehand_is_observed_alike(values in prop::collection::vec(finite(), 0..40)) {
            let mut apart = Stats::default();
            for value in &values {
                apart.observe_measure(&Measure::new(*value));
            }
            prop_assert_eq!(bytes(&apart), bytes(&stats(&values)));
        }

        #[test]
        fn hostile_bytes_decode_to_an_error_or_to_themselves(input: Vec<u8>) {
            let mut rest = input.as_slice();
            if let Ok(decoded) = Stats::decode(&mut rest) {
                prop_assert_eq!(bytes(&decoded), &input[..input.len() - rest.len()]);
            }
        }
    }
}
