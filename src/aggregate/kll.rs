//! Quantiles by rank: where in the order of all values one lies, to within a part of their number,
//! however values are distributed.
//!
//! The sketch is Karnin, Lang and Liberty, "Optimal quantile approximation in streams" (FOCS 2016), as the
//! crate `datasketches` has it. Values are kept in levels, those of level h for 2^h each; a level that
//! is full is put in order, and of every two neighbours one, which of them being drawn by lot, goes up.
//! A rank is off by 2.296 / k^0.9723 of all values at most with a probability of 99 % (a figure that the
//! project measured for the greatest error over all ranks): 1.33 % for k = 200, 0.09 % for 3,200.
//!
//! Invariants
//! 1. Up to `k` values there is one level, and every answer is exact. The number of values, the least and the
//!    greatest are exact always.
//! 2. *The bytes depend on the order, the grouping and the lots.* A state that is built again from the same
//!    events has others. So states are compared by what must hold of both ([`Kll::agrees`]), and
//!    nothing is said of laws to the byte.
//! 3. A state holds at most 2^60 values, which keeps the levels below the 61 that there can be; what
//!    would be more is left out.
//!
//! Where k is enough and what did decide: [`quantiles`](super::quantiles) answer within 0.78 % of the *value*
//! at 2 ns and merge to the byte; so they are what to take for latencies, sizes and money. This is for values
//! whose size says nothing (scores, temperatures, coordinates about zero, heavy tails over hundreds of orders)
//! and for bytes that other systems merge. REQ of the same crate answers better at one end, and takes nine
//! times the memory and 31 us a question.
//!
//! ```text
//! kll := k (LEB128, 0: none chosen yet, and nothing behind it)
//!        · length (LEB128, 0: no values) · an image of Apache DataSketches      datasketches/kll.rs
//! ```

use super::datasketches::kll_image;
use super::quantiles::{check_share, nearest_rank, spans};
use super::{Aggregate, Approx, Malformed};
use crate::codec;
use crate::error::{Error, Result};
use crate::time::Timestamp;
use ::datasketches::common::SearchCriteria::Inclusive;
use ::datasketches::kll::{KllFloat, KllSketch, SortedView};
use serde::ser::{Serialize, SerializeStruct, Serializer};

/// A sketch of numbers that are none that is not one.
pub(super) type Inner = KllSketch<KllFloat<f64>>;

const K_MIN: u16 = 8;
/// The most values that a state holds.
pub(super) const COUNT_MAX: u64 = 1 << 60;
/// How often the error of the crate's figures is not exceeded.
const CONFIDENCE: f64 = 0.99;
/// Up to so many equal values are inserted one by one.
const SINGLY_MAX: u64 = 64;
/// Two states of the same values differ by no more of these than the sum of their errors. The error is some
/// 2.6 standard deviations, so this is ten of the difference's.
const AGREES_WITHIN: f64 = 3.0;

/// The distribution of a measure by ranks: which value has the middle, and what share lies below another,
/// within bounds that hold for any distribution with a confidence of 99 %.
///
/// Exact up to `k` values. Number, least and greatest value are exact always. Takes 16 bytes empty, and with the
/// default `k`, 200, 12 KB at most, of which 5 are stored. A value takes 60 ns, 10 while they are few.
///
/// Unlike other aggregates its bytes depend on how it came about (lots are drawn): two states of the same
/// values, or the same events replayed, say the same within their bounds, no more.
/// [`Quantiles`](super::Quantiles) have bytes that do not, and bounds that hold always; prefer those where an
/// error in proportion to the value is right.
///
/// ```
/// use quipu::aggregate::Kll;
///
/// let mut scores = Kll::new(200)?;
/// (0..100_000).for_each(|n| scores.insert(f64::from(n) - 50_000.0));
/// let median = scores.median().unwrap();
/// assert!(median.lower <= -1.0 && -1.0 <= median.upper, "with a confidence of 99 %");
/// assert_eq!((scores.count(), scores.min(), scores.max()), (100_000, Some(-50_000.0), Some(49_999.0)));
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kll {
    /// 0: that of whichever state it is merged with, or the default with the first value.
    k: u16,
    sketch: Option<Box<Inner>>,
}

/// A number as the crate takes it, of which zero has one form; `None` for what is not finite.
fn float(value: f64) -> Option<KllFloat<f64>> {
    let value = value.is_finite().then_some(value + 0.0)?;
    KllFloat::<f64>::new(value).ok()
}

impl Kll {
    /// The k where none is chosen.
    pub const K: u16 = 200;

    /// A state without values that is exact for `k` of them.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a `k` of less than 8.
    ///
    /// ```
    /// use quipu::aggregate::Kll;
    ///
    /// assert!(Kll::new(3_200)?.rank_error() == 0.0, "nothing is exact");
    /// assert!(Kll::new(7).is_err());
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn new(k: u16) -> Result<Self> {
        if k < K_MIN {
            return Err(Error::invalid(format!("a k of {k}: it is {K_MIN} to {}", u16::MAX)));
        }
        Ok(Self::of_k(k))
    }

    /// The same for a k that was checked.
    pub(crate) fn of_k(k: u16) -> Self {
        Kll { k, sketch: None }
    }

    /// The state of a sketch, which may be empty.
    pub(super) fn of_sketch(sketch: Inner) -> Self {
        Kll {
            k: sketch.k(),
            sketch: Some(sketch).filter(|sketch| !sketch.is_empty()).map(Box::new),
        }
    }

    /// The sketch, made if there is none yet; `None` only where there is no such k.
    pub(super) fn sketch(&self) -> Option<Inner> {
        match &self.sketch {
            Some(sketch) => Some((**sketch).clone()),
            None => Inner::new(self.k()).ok(),
        }
    }

    /// The number of values up to which everything is exact.
    pub fn k(&self) -> u16 {
        if self.k == 0 { Self::K } else { self.k }
    }

    /// Observes a finite number; another is passed over. Amortised O(log k).
    ///
    /// ```
    /// use quipu::aggregate::Kll;
    ///
    /// let mut scores = Kll::default();
    /// [7.0, f64::NAN, f64::INFINITY].map(|score| scores.insert(score));
    /// assert_eq!(scores.count(), 1);
    /// ```
    #[inline]
    pub fn insert(&mut self, value: f64) {
        self.insert_times(value, 1);
    }

    /// The same for so many equal ones.
    pub(crate) fn insert_times(&mut self, value: f64, times: u64) {
        let Some(value) = float(value) else { return };
        let times = times.min(COUNT_MAX - self.count());
        if times > SINGLY_MAX {
            self.insert_many(value, times);
            return;
        }
        if times == 0 {
            return;
        }
        self.k = self.k();
        if self.sketch.is_none() {
            self.sketch = self.sketch().map(Box::new);
        }
        if let Some(sketch) = &mut self.sketch {
            (0..times).for_each(|_| sketch.update(value));
        }
    }

    /// In as many steps as `times` has bits: 2^n values merged with themselves are 2^(n + 1).
    #[cold]
    fn insert_many(&mut self, value: KllFloat<f64>, times: u64) {
        let mut power = Self::of_k(self.k());
        power.insert(*value);
        let bits = u64::BITS - times.leading_zeros();
        for bit in 0..bits {
            if times >> bit & 1 == 1 {
                self.merge(&power);
            }
            if bit + 1 < bits {
                let half = power.clone();
                power.merge(&half);
            }
        }
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.sketch.as_ref().map_or(0, |sketch| sketch.n())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sketch.is_none()
    }

    /// The least value.
    pub fn min(&self) -> Option<f64> {
        self.sketch.as_ref()?.min_item().map(|value| **value)
    }

    /// The greatest value.
    pub fn max(&self) -> Option<f64> {
        self.sketch.as_ref()?.max_item().map(|value| **value)
    }

    /// Whether all values are kept, so that every answer is exact.
    pub fn is_exact(&self) -> bool {
        self.sketch.as_ref().is_none_or(|sketch| !sketch.is_estimation_mode())
    }

    /// By what part of all values a rank may be off, with a confidence of 99 %; 0 while everything is exact.
    pub fn rank_error(&self) -> f64 {
        self.estimating().map_or(0.0, Inner::normalized_rank_error)
    }

    /// The sketch, if its answers are no longer exact.
    fn estimating(&self) -> Option<&Inner> {
        self.sketch.as_deref().filter(|sketch| sketch.is_estimation_mode())
    }

    fn confidence(&self) -> f64 {
        if self.is_exact() { 1.0 } else { CONFIDENCE }
    }

    /// The value that a share of the values do not exceed, by nearest rank: of n in order, the
    /// ⌈share · n⌉th, and the first for 0. `None` of nothing.
    ///
    /// ```
    /// use quipu::aggregate::Kll;
    ///
    /// let mut grades = Kll::default();
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
        Ok(self.quantiles(&[share])?.into_iter().next())
    }

    /// The same of several shares, for which the values are put in order once; none of nothing.
    ///
    /// # Errors
    /// `Invalid` for a share that is not from 0 to 1.
    pub fn quantiles(&self, shares: &[f64]) -> Result<Vec<Approx>> {
        shares.iter().try_for_each(|share| check_share(*share))?;
        let Some(sketch) = &self.sketch else { return Ok(Vec::new()) };
        let view = sketch.sorted_view();
        Ok(shares.iter().filter_map(|share| self.quantile_of(&view, *share)).collect())
    }

    /// The value in the middle: the [quantile](Self::quantile) of one half.
    pub fn median(&self) -> Option<Approx> {
        self.quantile_of(&self.sketch.as_ref()?.sorted_view(), 0.5)
    }

    fn quantile_of(&self, view: &SortedView<KllFloat<f64>>, share: f64) -> Option<Approx> {
        let count = self.count();
        let rank = nearest_rank(share * count as f64, count);
        // A value that lies before so many has a rank below it in the sketch as well, but for the error.
        let off = self.rank_error() * count as f64;
        let at = |rank: f64| self.value_at(view, rank);
        if rank == 1 || rank == count {
            return at(rank as f64).map(Approx::exact);
        }
        Some(Approx {
            value: at(rank as f64)?,
            lower: at(rank as f64 - off)?,
            upper: at(rank as f64 + off)?,
            confidence: self.confidence(),
        })
    }

    /// The value at a place, of which the first is 1; below it and above all it is the least and the greatest.
    fn value_at(&self, view: &SortedView<KllFloat<f64>>, rank: f64) -> Option<f64> {
        let count = self.count() as f64;
        if rank <= 1.0 {
            return self.min();
        }
        if rank >= count {
            return self.max();
        }
        // Half a place less, so that a quotient that is a little more does not come to the next.
        let share = (rank.ceil() - 0.5) / count;
        view.quantile(share, Inclusive).ok().flatten().map(|value| *value)
    }

    /// How many values are not greater than this one.
    ///
    /// ```
    /// use quipu::aggregate::Kll;
    ///
    /// let mut grades = Kll::default();
    /// [2.0, 1.0, 3.0, 3.0].map(|grade| grades.insert(grade));
    /// assert_eq!(grades.count_up_to(2.5).value, 2.0);
    /// ```
    pub fn count_up_to(&self, value: f64) -> Approx {
        self.count_between(f64::NEG_INFINITY, value)
    }

    /// The share of the values that are not greater than this one, its normalized rank: the cumulative
    /// distribution. `None` of nothing.
    ///
    /// ```
    /// use quipu::aggregate::Kll;
    ///
    /// let mut grades = Kll::default();
    /// [2.0, 1.0, 3.0, 3.0].map(|grade| grades.insert(grade));
    /// assert_eq!(grades.share_up_to(2.5).unwrap().value, 0.5);
    /// ```
    pub fn share_up_to(&self, value: f64) -> Option<Approx> {
        let count = self.count();
        let Approx { value, lower, upper, confidence } = self.count_up_to(value);
        let of = |number: f64| number / count as f64;
        let share = Approx { value: of(value), lower: of(lower), upper: of(upper), confidence };
        (count > 0).then_some(share)
    }

    /// How many values lie in each of the spans between some edges: up to the first edge, above it up to
    /// the second, and so on, and above the last.
    ///
    /// ```
    /// use quipu::aggregate::Kll;
    ///
    /// let mut scores = Kll::default();
    /// [3.0, 10.0, 11.0, 500.0].map(|score| scores.insert(score));
    /// let counts: Vec<f64> = scores.histogram(&[10.0, 100.0])?.iter().map(|n| n.value).collect();
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
        let count = self.count() as f64;
        let (Some(sketch), Some(min), Some(max)) = (&self.sketch, self.min(), self.max()) else {
            return Approx::exact(0.0);
        };
        let (has_least, has_greatest) = (above < min, up_to >= max);
        let is_some = above < max && up_to >= min;
        if !is_some || has_least && has_greatest {
            return Approx::exact(if is_some { count } else { 0.0 });
        }
        let up_to = if has_greatest { count } else { count * rank(sketch, up_to) };
        let value = up_to - if has_least { 0.0 } else { count * rank(sketch, above) };
        if self.is_exact() {
            return Approx::exact(value.round());
        }
        let error = if has_least || has_greatest {
            sketch.normalized_rank_error()
        } else {
            sketch.normalized_pmf_error()
        };
        // An end that is known to lie on one side is one value at least.
        let least = if has_least || has_greatest { 1.0 } else { 0.0 };
        let most = count - f64::from(u8::from(!has_least)) - f64::from(u8::from(!has_greatest));
        let [value, lower, upper] = [value, value - error * count, value + error * count]
            .map(|number| number.clamp(least, most.max(least)));
        Approx { value, lower, upper, confidence: CONFIDENCE }
    }

    /// Whether both can have observed the same values: they have the same number, least and greatest of
    /// them, and no rank differs by more than what chance does not make of the same values.
    pub(crate) fn agrees(&self, other: &Kll) -> bool {
        let ends = |state: &Kll| (state.k(), state.count(), state.min(), state.max());
        // A state that is full may have left out anything.
        if self.count().max(other.count()) > COUNT_MAX / 2 {
            return self.k() == other.k();
        }
        if ends(self) != ends(other) || self.is_exact() != other.is_exact() {
            return false;
        }
        let (Some(a), Some(b)) = (&self.sketch, &other.sketch) else { return true };
        let within = AGREES_WITHIN * (self.rank_error() + other.rank_error());
        let steps = if self.is_exact() { self.count() } else { 128 };
        [a, b].into_iter().all(|state| {
            let view = state.sorted_view();
            (0..steps).all(|step| {
                let share = (step as f64 + 0.5) / steps as f64;
                let value = view.quantile(share, Inclusive).ok().flatten();
                value.is_some_and(|value| (rank(a, *value) - rank(b, *value)).abs() <= within)
            })
        })
    }
}

/// The share of the values that are not greater.
fn rank(sketch: &Inner, value: f64) -> f64 {
    let value = KllFloat::<f64>::new(value).ok();
    value.and_then(|value| sketch.rank(&value, Inclusive)).unwrap_or(0.0)
}

/// As count, least and greatest value, and the quantiles that are asked for most.
impl Serialize for Kll {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Kll", 7)?;
        let quantiles = self.quantiles(&[0.5, 0.9, 0.95, 0.99]).unwrap_or_default();
        fields.serialize_field("count", &self.count())?;
        fields.serialize_field("min", &self.min())?;
        for (at, name) in ["p50", "p90", "p95", "p99"].into_iter().enumerate() {
            fields.serialize_field(name, &quantiles.get(at))?;
        }
        fields.serialize_field("max", &self.max())?;
        fields.end()
    }
}

impl Aggregate for Kll {
    /// A finite number; another is passed over.
    type Input<'a> = f64;

    #[inline]
    fn observe(&mut self, value: f64, _time: Timestamp) {
        self.insert(value);
    }

    /// The own `k` stays, the error is that of the lesser one. What would make more than 2^60 values
    /// together is left out.
    fn merge(&mut self, other: &Self) {
        if self.k == 0 {
            self.k = other.k;
        }
        let Some(theirs) = &other.sketch else { return };
        if self.sketch.is_none() {
            if self.k == other.k {
                self.sketch.clone_from(&other.sketch);
                return;
            }
            self.sketch = self.sketch().map(Box::new);
        }
        if let Some(sketch) = &mut self.sketch
            && sketch.n().saturating_add(theirs.n()) <= COUNT_MAX
        {
            // It fails for more values than there can be, and for a width that there is one of.
            let _merged = sketch.merge(theirs);
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        codec::put_u64(out, u64::from(self.k));
        if self.k > 0 {
            let image = self.sketch.as_ref().map(|sketch| sketch.serialize());
            codec::put_bytes(out, &image.unwrap_or_default());
        }
    }

    fn decode(bytes: &mut &[u8]) -> std::result::Result<Self, Malformed> {
        let k = u16::try_from(codec::take_u64(bytes)?).ok().filter(|k| *k == 0 || *k >= K_MIN);
        let k = k.ok_or(Malformed("a KLL sketch has no k of 8 to 65,535"))?;
        let image = if k == 0 { &[] } else { codec::take_bytes(bytes)? };
        if image.is_empty() {
            return Ok(Self::of_k(k));
        }
        let sketch = kll_image::read(image)?;
        if sketch.k() != k || sketch.is_empty() || sketch.serialize() != image {
            return Err(Malformed("the image of a KLL sketch is not as it is written"));
        }
        Ok(Self::of_sketch(sketch))
    }

    /// At most: of the crate's sketch it is not known which of its levels have room to spare.
    fn heap_bytes(&self) -> usize {
        let Some(sketch) = &self.sketch else { return 0 };
        // The last level was made of half of the one before when that had `k`.
        let half = u64::from(sketch.min_k() / 2);
        let levels = 1 + (sketch.n() / half).checked_ilog2().unwrap_or(0) as usize;
        let headers = levels.next_power_of_two().max(4) * size_of::<Vec<f64>>();
        // A level that grows has room for as much again, and for four at least; one that another was made
        // into keeps the room of that one.
        let retained = sketch.num_retained();
        let room = 2 * retained + (2 * retained).min(usize::from(sketch.k())) + 4 * levels;
        size_of::<Inner>() + headers + room * size_of::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl Iterator<Item = u32>) -> Kll {
        let mut state = Kll::default();
        values.for_each(|value| state.insert(f64::from(value)));
        state
    }

    /// Order and grouping change the bytes; other values between the same ends are another distribution.
    #[test]
    fn states_of_the_same_values_agree_and_others_do_not() {
        for n in [150, 50_000] {
            let up = of(0..n);
            let mut halves = of(n / 2..n);
            halves.merge(&of(0..n / 2));
            for same in [of((0..n).rev()), halves] {
                assert!(up.agrees(&same) && same.agrees(&up), "{n}");
            }
            let squeezed = of((0..n).map(|value| if value == n - 1 { value } else { value / 2 }));
            assert!(!up.agrees(&squeezed) && !squeezed.agrees(&up), "{n}");
            assert!(!up.agrees(&of(0..n - 1)) && !up.agrees(&Kll::of_k(100)), "{n}");
        }
    }
}
