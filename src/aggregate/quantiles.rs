//! Quantiles: how values are distributed, to within 0.78 % of the value.
//!
//! The first 128 different values are kept as they are. Beyond, they are counted in bins that come
//! straight from the bits of the `f64`: sign, exponent and the first six bits of the fraction, so an
//! octave (a power of two) has 64 bins of equal width, and no logarithm is taken. That is the
//! histogram of Tene (`HdrHistogram`, 2012) for floating point; Masson, Rim and Lee ("`DDSketch`: a fast
//! and fully-mergeable quantile sketch with relative-error guarantees", PVLDB 12/12, 2019, section 2)
//! show of such bins that they answer within a relative error in any merge tree.
//!
//! Measured beside bins by logarithm, which answer alike: 2.0 against 9 nanoseconds a value.
//!
//! Invariants
//! 1. The state is a function of the values as a multiset. Whether there are bins depends only on how
//!    many different values there are, the range of the bins only on the greatest one in size.
//! 2. A value is in the bin that its bits name, or among the tiny ones: those of 120 octaves or
//!    more below that of the greatest in size. So no values make a state greater than 64 KiB, or 188 KiB
//!    where some bin counts more than 2^32.
//! 3. Counts stop at 2^64 - 1.
//!
//! Error: a bin from l to u answers for its values with 2lu / (l + u), which is off by at most
//! (u - l) / (u + l) of the value: 1/129 where l is a power of two, less elsewhere. Rank is exact: it is
//! the value of that rank that is known within its bin. What is tiny is known to be so, not more; of
//! subnormal values the bins are as wide as those of the least normal ones.
//!
//! Bytes: `n (1) · (value (8) · times (LEB128))*` for n <= 128 different values, least first; `255 · greatest
//! octave (LEB128) · tiny (LEB128) · min (8) · max (8) · bins (LEB128) · first number (zigzag) · count (LEB128)
//! · (number less the one before · count (LEB128))*` for bins. The number of a positive value's bin is one
//! more than the upper 17 bits of the value behind its sign, that of a negative one's as much below
//! zero, and 0 is that of zeros.

mod bins;

use super::{Aggregate, Approx, Malformed};
use crate::codec;
use crate::error::{Error, Result};
use crate::time::Timestamp;
use bins::{Bins, take_value};
use serde::ser::{Serialize, SerializeStruct, Serializer};
use thin_vec::ThinVec;

/// Different values that are kept as they are.
const FEW: usize = 128;

/// The distribution of a measure: quantiles, ranks, histograms.
///
/// Exact while there are at most 128 different values; beyond, each answer is within 0.78 % of the
/// value, and says within which bounds it is, which always hold. Values of 36 and more orders of
/// magnitude below the greatest one (in size) count as about zero, and subnormal ones are known to within
/// 2^-1028 only: of both the bounds say so.
///
/// Sixteen bytes and, on the heap, 16 to 32 for each different value while there are few; then 256 for each octave
/// (power of two) between the least and the greatest value of a sign. Latencies between 1 ms and 1 s
/// take 2.5 KiB; nothing takes more than 64, or 188 where some bin counts more than 2^32. A value costs some nanoseconds. Merging any number of them in
/// any order leaves the same bytes.
///
/// ```
/// use quipu::aggregate::Quantiles;
///
/// let mut latencies = Quantiles::default();
/// for millis in 1..=1_000 {
///     latencies.insert(f64::from(millis));
/// }
/// let p99 = latencies.quantile(0.99)?.unwrap();
/// assert!(p99.lower <= 990.0 && 990.0 <= p99.upper);
/// assert!((p99.value - 990.0).abs() <= 0.0078 * 990.0);
/// assert_eq!(latencies.max(), Some(1_000.0));
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Quantiles(Repr);

#[derive(Clone, Debug)]
enum Repr {
    /// Different values and how often each was observed, least first.
    Few(ThinVec<(f64, u64)>),
    Many(Box<Bins>),
}

/// A bin that has values: those `v` with `lower <= v <= upper`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// The least value that it has, or could have.
    pub lower: f64,
    /// The greatest value that it has, or could have.
    pub upper: f64,
    /// How many values it has.
    pub count: u64,
}

impl Default for Repr {
    fn default() -> Self {
        Repr::Few(ThinVec::new())
    }
}

/// What is said of a bin's values: the one that is off by no more, as a share, from any of them.
#[expect(clippy::float_cmp, reason = "a bin of one value has it as both ends")]
fn middle(Bin { lower, upper, .. }: Bin) -> f64 {
    let of_sizes = |least: f64, greatest: f64| least / (0.5 + 0.5 * (least / greatest));
    if lower == upper {
        lower
    } else if lower > 0.0 {
        of_sizes(lower, upper)
    } else if upper < 0.0 {
        -of_sizes(-upper, -lower)
    } else {
        0.0
    }
}

impl Quantiles {
    /// Observes a value; one that is no finite number is passed over.
    pub fn insert(&mut self, value: f64) {
        self.insert_times(value, 1);
    }

    /// Observes a value so many times.
    #[inline]
    pub fn insert_times(&mut self, value: f64, times: u64) {
        if times > 0
            && let Repr::Many(bins) = &mut self.0
            && bins.insert_seen(value, times)
        {
            return;
        }
        self.insert_new(value, times);
    }

    #[inline(never)]
    fn insert_new(&mut self, value: f64, times: u64) {
        if !value.is_finite() || times == 0 {
            return;
        }
        // Minus zero becomes zero.
        let value = value + 0.0;
        let few = match &mut self.0 {
            Repr::Few(few) => few,
            Repr::Many(bins) => return bins.insert(value, times),
        };
        match few.binary_search_by(|(other, _)| other.total_cmp(&value)) {
            Ok(at) => few[at].1 = few[at].1.saturating_add(times),
            Err(at) if few.len() < FEW => few.insert(at, (value, times)),
            Err(_) => {
                let mut bins = Bins::of(few);
                bins.insert(value, times);
                self.0 = Repr::Many(Box::new(bins));
            }
        }
    }

    /// How many values were observed, up to 2^64 - 1.
    pub fn count(&self) -> u64 {
        match &self.0 {
            Repr::Few(few) => few.iter().fold(0, |sum, (_, times)| sum.saturating_add(*times)),
            Repr::Many(bins) => bins.total(),
        }
    }

    /// The least value.
    pub fn min(&self) -> Option<f64> {
        match &self.0 {
            Repr::Few(few) => few.first().map(|(value, _)| *value),
            Repr::Many(bins) => Some(bins.min),
        }
    }

    /// The greatest value.
    pub fn max(&self) -> Option<f64> {
        match &self.0 {
            Repr::Few(few) => few.last().map(|(value, _)| *value),
            Repr::Many(bins) => Some(bins.max),
        }
    }

    /// Whether each value is kept as it is, so that all answers are exact.
    pub fn is_exact(&self) -> bool {
        matches!(self.0, Repr::Few(_))
    }

    /// The bins that have values, least first: a histogram as fine as there is one. A value that is kept
    /// as it is has a bin to itself.
    pub fn bins(&self) -> Vec<Bin> {
        match &self.0 {
            Repr::Few(few) => {
                let bin = |(value, count): &(f64, u64)| Bin {
                    lower: *value,
                    upper: *value,
                    count: *count,
                };
                few.iter().map(bin).collect()
            }
            Repr::Many(bins) => bins.bins().collect(),
        }
    }

    /// The value that a share of the values do not exceed, by nearest rank: of n in order, the
    /// ⌈share · n⌉th, and the first for 0. `None` of nothing. [`percentile`](Self::percentile) has the same
    /// from 0 to 100.
    ///
    /// ```
    /// use quipu::aggregate::Quantiles;
    ///
    /// let mut grades = Quantiles::default();
    /// [2.0, 1.0, 3.0, 3.0].map(|grade| grades.insert(grade));
    /// assert_eq!(grades.quantile(0.5)?.unwrap().value, 2.0);
    /// assert_eq!(grades.quantile(0.75)?.unwrap().value, 3.0);
    /// assert!(grades.quantile(75.0).is_err());
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid` for a share that is not from 0 to 1.
    pub fn quantile(&self, share: f64) -> Result<Option<Approx>> {
        check_share(share)?;
        Ok(self.quantile_of(share))
    }

    /// The same as [`quantile`](Self::quantile) of a percentage, from 0 to 100, as it is usually said: of 99.9
    /// it is the 999th of a thousand values.
    ///
    /// ```
    /// use quipu::aggregate::Quantiles;
    ///
    /// let mut latencies = Quantiles::default();
    /// (1..=100).for_each(|millis| latencies.insert(f64::from(millis)));
    /// assert_eq!(latencies.percentile(55.0)?.unwrap().value, 55.0);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid` for a percentage that is not from 0 to 100.
    pub fn percentile(&self, percent: f64) -> Result<Option<Approx>> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(Error::invalid(format!("{percent} is no percentage: those are 0 to 100")));
        }
        Ok(self.ranked(percent * self.count() as f64 / 100.0))
    }

    fn quantile_of(&self, share: f64) -> Option<Approx> {
        self.ranked(share * self.count() as f64)
    }

    fn ranked(&self, rank: f64) -> Option<Approx> {
        self.value_at(nearest_rank(rank, self.count()) - 1)
    }

    /// The value in the middle: the [quantile](Self::quantile) of one half.
    pub fn median(&self) -> Option<Approx> {
        self.quantile_of(0.5)
    }

    /// The value of a rank, which is how many there are before it in order. `None` where there are not so
    /// many.
    ///
    /// ```
    /// use quipu::aggregate::Quantiles;
    ///
    /// let mut grades = Quantiles::default();
    /// [2.0, 1.0, 3.0].map(|grade| grades.insert(grade));
    /// assert_eq!(grades.value_at(0).unwrap().value, 1.0);
    /// assert_eq!(grades.value_at(3), None);
    /// ```
    pub fn value_at(&self, rank: u64) -> Option<Approx> {
        let mut before = 0_u64;
        let count = self.count();
        if rank >= count {
            return None;
        }
        // These two are known.
        let end = if rank == 0 { self.min() } else { self.max().filter(|_| rank == count - 1) };
        if let Some(end) = end {
            return Some(Approx::exact(end));
        }
        let bin = self.bins().into_iter().find(|bin| {
            before = before.saturating_add(bin.count);
            rank < before
        })?;
        Some(Approx { value: middle(bin), lower: bin.lower, upper: bin.upper, confidence: 1.0 })
    }

    /// How many values are not greater than this one.
    ///
    /// ```
    /// use quipu::aggregate::Quantiles;
    ///
    /// let mut grades = Quantiles::default();
    /// [2.0, 1.0, 3.0, 3.0].map(|grade| grades.insert(grade));
    /// assert_eq!(grades.count_up_to(2.5).value, 2.0);
    /// ```
    pub fn count_up_to(&self, value: f64) -> Approx {
        self.count_between(f64::NEG_INFINITY, value)
    }

    /// The share of the values that are not greater than this one: the cumulative distribution. `None` of
    /// nothing.
    ///
    /// ```
    /// use quipu::aggregate::Quantiles;
    ///
    /// let mut grades = Quantiles::default();
    /// [2.0, 1.0, 3.0, 3.0].map(|grade| grades.insert(grade));
    /// assert_eq!(grades.share_up_to(2.5).unwrap().value, 0.5);
    /// ```
    pub fn share_up_to(&self, value: f64) -> Option<Approx> {
        let count = self.count();
        let Approx { value, lower, upper, confidence } = self.count_up_to(value);
        let of = |number: f64| number / count as f64;
        (count > 0).then(|| Approx {
            value: of(value),
            lower: of(lower),
            upper: of(upper).min(1.0),
            confidence,
        })
    }

    /// How many values lie in each of the spans between some edges: up to the first edge, above it up to
    /// the second, and so on, and above the last.
    ///
    /// ```
    /// use quipu::aggregate::Quantiles;
    ///
    /// let mut latencies = Quantiles::default();
    /// [3.0, 10.0, 11.0, 500.0].map(|millis| latencies.insert(millis));
    /// let counts: Vec<f64> = latencies.histogram(&[10.0, 100.0])?.iter().map(|n| n.value).collect();
    /// assert_eq!(counts, [2.0, 1.0, 1.0]);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid` for edges that do not rise.
    pub fn histogram(&self, edges: &[f64]) -> Result<Vec<Approx>> {
        Ok(spans(edges)?.map(|(above, up_to)| self.count_between(above, up_to)).collect())
    }

    /// How many values are greater than one and not than another.
    fn count_between(&self, above: f64, up_to: f64) -> Approx {
        if above.is_nan() || up_to.is_nan() {
            return Approx::exact(0.0);
        }
        let (mut lower, mut upper, mut value) = (0_u64, 0_u64, 0.0);
        for bin in self.bins() {
            if bin.upper <= above || bin.lower > up_to {
                continue;
            }
            upper = upper.saturating_add(bin.count);
            if bin.lower > above && bin.upper <= up_to {
                lower = lower.saturating_add(bin.count);
                value += bin.count as f64;
            } else {
                let (from, to) = (bin.lower.max(above), bin.upper.min(up_to));
                // Halves, for the difference of two finite numbers can be none.
                let share = (to / 2.0 - from / 2.0) / (bin.upper / 2.0 - bin.lower / 2.0);
                value += bin.count as f64 * share.clamp(0.0, 1.0);
            }
        }
        Approx::counted(value.clamp(lower as f64, upper as f64), lower, upper)
    }
}

/// Refuses what is no share of the values.
pub(super) fn check_share(share: f64) -> Result<()> {
    if (0.0..=1.0).contains(&share) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{share} is no share of the values: those are from 0 to 1, and 0.99 for the 99th percentile"
    )))
}

/// A place among so many values in order, from 1: rounded up; a product that is a whole number but for its
/// last bits is that number.
pub(super) fn nearest_rank(rank: f64, count: u64) -> u64 {
    let whole = rank.round();
    let is_whole = (rank - whole).abs() <= 4.0 * f64::EPSILON * rank;
    let rank = if is_whole { whole } else { rank.ceil() };
    (rank as u64).clamp(1, count.max(1))
}

/// The spans between the edges of a histogram, each above its first and up to its second number.
pub(super) fn spans(edges: &[f64]) -> Result<impl Iterator<Item = (f64, f64)>> {
    if edges.iter().any(|edge| edge.is_nan()) {
        return Err(Error::invalid("an edge of a histogram is a number, this one is not"));
    }
    let pairs = edges.iter().zip(edges.iter().skip(1));
    if let Some((before, edge)) = pairs.into_iter().find(|(before, edge)| edge <= before) {
        return Err(Error::invalid(format!(
            "the edges of a histogram rise; {edge} stands behind {before}"
        )));
    }
    let ends = || edges.iter().copied();
    let begins = std::iter::once(f64::NEG_INFINITY).chain(ends());
    Ok(begins.zip(ends().chain([f64::INFINITY])))
}

impl PartialEq for Quantiles {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |state: &Self| {
            let mut out = Vec::new();
            state.encode(&mut out);
            out
        };
        match (&self.0, &other.0) {
            (Repr::Few(a), Repr::Few(b)) => a == b,
            (Repr::Many(_), Repr::Many(_)) => bytes(self) == bytes(other),
            _ => false,
        }
    }
}

/// As count, least and greatest value, and the quantiles that are asked for most.
impl Serialize for Quantiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Quantiles", 7)?;
        fields.serialize_field("count", &self.count())?;
        fields.serialize_field("min", &self.min())?;
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)] {
            fields.serialize_field(name, &self.quantile_of(share))?;
        }
        fields.serialize_field("max", &self.max())?;
        fields.end()
    }
}

/// In place of a number of different values, where there are bins.
const MANY: u8 = 255;

impl Aggregate for Quantiles {
    /// A finite number; another is passed over.
    type Input<'a> = f64;

    #[inline]
    fn observe(&mut self, value: f64, _time: Timestamp) {
        self.insert(value);
    }

    fn merge(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (Repr::Many(mine), Repr::Many(theirs)) => mine.merge(theirs),
            (Repr::Few(few), Repr::Many(theirs)) => {
                let mut bins = theirs.clone();
                few.iter().for_each(|(value, times)| bins.insert(*value, *times));
                self.0 = Repr::Many(bins);
            }
            (_, Repr::Few(theirs)) => {
                theirs.iter().for_each(|(value, times)| self.insert_times(*value, *times));
            }
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let bins = match &self.0 {
            Repr::Few(few) => {
                out.push(few.len() as u8);
                for (value, times) in few {
                    out.extend_from_slice(&value.to_le_bytes());
                    codec::put_u64(out, *times);
                }
                return;
            }
            Repr::Many(bins) => bins,
        };
        out.push(MANY);
        bins.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let [n] = codec::take_array::<1>(bytes)?;
        match n {
            MANY => Bins::decode(bytes).map(|bins| Quantiles(Repr::Many(Box::new(bins)))),
            n if usize::from(n) <= FEW => {
                if usize::from(n) * 9 > bytes.len() {
                    return Err(Malformed("there are fewer values than said"));
                }
                let mut few: ThinVec<(f64, u64)> = ThinVec::with_capacity(usize::from(n));
                for _ in 0..n {
                    let (value, times) = (take_value(bytes)?, codec::take_u64(bytes)?);
                    if few.last().is_some_and(|(last, _)| value <= *last) || times == 0 {
                        return Err(Malformed("the values of a distribution are not in order"));
                    }
                    few.push((value, times));
                }
                Ok(Quantiles(Repr::Few(few)))
            }
            _ => Err(Malformed("a distribution begins with neither 0 to 128 nor 255")),
        }
    }

    fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Few(few) if few.capacity() == 0 => 0,
            // A header of two words.
            Repr::Few(few) => 16 + few.capacity() * size_of::<(f64, u64)>(),
            Repr::Many(bins) => bins.heap_bytes(),
        }
    }
}

#[cfg(test)]
mod tests;
