//! The bins of a distribution whose values are too many to be kept as they are.
//!
//! Nearly every value lies between two of its sign that were seen: one comparison tells it, and its bin is there
//! then. All others go the long way round.
//!
//! Invariant: [`Half::seen`] are sizes of which each has a bin, and none is of a value above or below all that
//! were observed; it is derived from the rest.

use super::{Bin, FEW};
use crate::aggregate::Malformed;
use crate::codec;

/// Bits of the fraction that a bin's number has.
const SUB_BITS: u32 = 6;
/// Bits of a value below those of its bin.
const REST_BITS: u32 = f64::MANTISSA_DIGITS - 1 - SUB_BITS;
/// Octaves that have bins, of either sign.
pub(super) const OCTAVES: i32 = 120;
/// The greatest octave of a finite number.
const OCTAVE_MAX: u64 = 2_046;

#[derive(Clone, Debug)]
pub(super) struct Bins {
    pub(super) min: f64,
    pub(super) max: f64,
    /// The octave of the greatest value in size.
    greatest: i32,
    zeros: u64,
    /// Values that are not zero, and too small for a bin.
    tiny: u64,
    negative: Half,
    positive: Half,
}

/// Sizes by their bits, which are in the same order: so many from the first on.
#[derive(Clone, Copy, Debug)]
struct Seen {
    from: u64,
    span: u64,
}

impl Default for Seen {
    /// No size has such bits.
    fn default() -> Self {
        Seen { from: u64::MAX, span: 0 }
    }
}

impl Seen {
    #[inline]
    fn has(self, bits: u64) -> bool {
        bits.wrapping_sub(self.from) <= self.span
    }
}

/// The bins of one sign.
#[derive(Clone, Debug, Default)]
struct Half {
    seen: Seen,
    /// The number of the first bin, that of an octave's first.
    first: u32,
    /// Whole octaves; the lower 32 bits of each count.
    bins: Vec<u32>,
    /// The upper 32 bits, where they are not zero, by number.
    upper: Vec<(u32, u32)>,
}

/// The octave of a size: its exponent.
fn octave_of(size: f64) -> i32 {
    (number_of(size) >> SUB_BITS) as i32
}

/// The number of a size's bin among those of its sign.
#[inline]
fn number_of(value: f64) -> u32 {
    ((value.to_bits() << 1) >> (REST_BITS + 1)) as u32
}

/// The least size in a bin.
fn least_of(number: u32) -> f64 {
    f64::from_bits(u64::from(number) << REST_BITS)
}

/// The greatest size in a bin.
fn greatest_of(number: u32) -> f64 {
    f64::from_bits(((u64::from(number) + 1) << REST_BITS) - 1)
}

impl Half {
    #[inline]
    fn insert_seen(&mut self, size: u64, times: u64) -> bool {
        let at = ((size >> REST_BITS) as u32).wrapping_sub(self.first) as usize;
        let is_seen = self.seen.has(size) && at < self.bins.len();
        if is_seen {
            self.add_at(at, times);
        }
        is_seen
    }

    /// Notes what is to be seen, where what was observed lies between two values as far as it has this sign,
    /// which is taken away.
    fn see(&mut self, least: f64, greatest: f64) {
        // (Zero has no bin.)
        let from = least.max(least_of(self.first)).to_bits().max(1);
        let is_there = !self.bins.is_empty() && greatest > 0.0;
        let span = greatest.to_bits().checked_sub(from).filter(|_| is_there);
        self.seen = span.map_or(Seen::default(), |span| Seen { from, span });
    }

    /// The count of a bin.
    fn count(&self, at: usize) -> u64 {
        let low = u64::from(self.bins[at]);
        if self.upper.is_empty() {
            return low;
        }
        let number = self.first + at as u32;
        let upper = self.upper.binary_search_by_key(&number, |(number, _)| *number);
        low | upper.map_or(0, |at| u64::from(self.upper[at].1) << 32)
    }

    /// Counts so many more in a bin that there is.
    #[inline]
    fn add_at(&mut self, at: usize, times: u64) {
        let bin = &mut self.bins[at];
        match u32::try_from(times).ok().and_then(|times| bin.checked_add(times)) {
            Some(sum) => *bin = sum,
            None => self.add_long(at, times),
        }
    }

    #[cold]
    fn add_long(&mut self, at: usize, times: u64) {
        let count = self.count(at).saturating_add(times);
        self.bins[at] = count as u32;
        let (number, upper) = (self.first + at as u32, (count >> 32) as u32);
        match self.upper.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(at) => self.upper[at].1 = upper,
            Err(_) if upper == 0 => {}
            Err(at) => {
                // By quarters: of bytes that nobody should trust each has such a count.
                if self.upper.len() == self.upper.capacity() {
                    self.upper.reserve_exact(self.upper.len() / 4 + 4);
                }
                self.upper.insert(at, (number, upper));
            }
        }
    }

    /// Counts in the bin of a number, made when it is not there.
    fn add(&mut self, number: u32, times: u64) {
        let octave = number >> SUB_BITS << SUB_BITS;
        if self.bins.is_empty() {
            self.first = octave;
        }
        if octave < self.first {
            let more = (self.first - octave) as usize;
            self.bins.reserve_exact(more);
            self.bins.splice(0..0, std::iter::repeat_n(0, more));
            self.first = octave;
        }
        let at = (number - self.first) as usize;
        if at >= self.bins.len() {
            let len = (at + 1).next_multiple_of(1 << SUB_BITS);
            self.bins.reserve_exact(len - self.bins.len());
            self.bins.resize(len, 0);
        }
        self.add_at(at, times);
    }

    /// Takes out the bins before an octave; how many values they had.
    fn forget_before(&mut self, octave: i32) -> u64 {
        let first = (octave.max(0) as u32) << SUB_BITS;
        let gone = first.saturating_sub(self.first).min(self.bins.len() as u32) as usize;
        if gone == 0 {
            return 0;
        }
        let count = (0..gone).map(|at| self.count(at)).fold(0, u64::saturating_add);
        self.bins.drain(..gone);
        self.bins.shrink_to_fit();
        self.upper.retain(|(number, _)| *number >= first);
        self.first += gone as u32;
        // The first bin of all that is left has values.
        let blank = self.bins.iter().take_while(|count| **count == 0).count();
        let blank =
            (0..blank).take_while(|at| self.count(*at) == 0).count() >> SUB_BITS << SUB_BITS;
        self.bins.drain(..blank);
        self.first += blank as u32;
        count
    }

    /// Numbers and counts of the bins with values, least size first.
    fn counts(&self) -> impl DoubleEndedIterator<Item = (u32, u64)> {
        let counts = (0..self.bins.len()).map(|at| (self.first + at as u32, self.count(at)));
        counts.filter(|(_, count)| *count > 0)
    }

    fn heap_bytes(&self) -> usize {
        self.bins.capacity() * size_of::<u32>() + self.upper.capacity() * size_of::<(u32, u32)>()
    }
}

impl Bins {
    /// The bins of some different values, least first.
    pub(super) fn of(few: &[(f64, u64)]) -> Self {
        let mut bins = Bins {
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            greatest: few.iter().map(|(value, _)| octave_of(*value)).max().unwrap_or(0),
            zeros: 0,
            tiny: 0,
            negative: Half::default(),
            positive: Half::default(),
        };
        for (value, times) in few {
            bins.insert(*value, *times);
        }
        bins
    }

    /// Counts a value of which [`Half::seen`] tells that its bin is there; whether it is.
    #[inline]
    pub(super) fn insert_seen(&mut self, value: f64, times: u64) -> bool {
        let half = if value.is_sign_negative() { &mut self.negative } else { &mut self.positive };
        half.insert_seen(value.abs().to_bits(), times)
    }

    /// Notes what is to be seen.
    fn see(&mut self) {
        self.positive.see(self.min, self.max);
        self.negative.see(-self.max, -self.min);
    }

    /// Counts a value whose bin is there; whether it is.
    fn insert_there(&mut self, value: f64, times: u64) -> bool {
        let number = number_of(value);
        let half = if value < 0.0 { &mut self.negative } else { &mut self.positive };
        let at = number.wrapping_sub(half.first) as usize;
        if at >= half.bins.len() || value == 0.0 {
            return false;
        }
        half.add_at(at, times);
        self.widen(value);
        true
    }

    fn widen(&mut self, value: f64) {
        if value < self.min || value > self.max {
            self.min = self.min.min(value);
            self.max = self.max.max(value);
            self.see();
        }
    }

    /// Counts a finite value that is not minus zero.
    pub(super) fn insert(&mut self, value: f64, times: u64) {
        if self.insert_there(value, times) {
            return;
        }
        self.widen(value);
        if value == 0.0 {
            self.zeros = self.zeros.saturating_add(times);
            return;
        }
        let octave = octave_of(value);
        self.raise(octave);
        if octave <= self.greatest - OCTAVES {
            self.tiny = self.tiny.saturating_add(times);
        } else {
            let half = if value < 0.0 { &mut self.negative } else { &mut self.positive };
            half.add(number_of(value), times);
        }
        self.see();
    }

    /// Notes that there is a value of this octave (invariant 2).
    fn raise(&mut self, octave: i32) {
        if octave > self.greatest {
            self.greatest = octave;
            let first = octave - OCTAVES + 1;
            for half in [&mut self.negative, &mut self.positive] {
                self.tiny = self.tiny.saturating_add(half.forget_before(first));
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Bins) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.zeros = self.zeros.saturating_add(other.zeros);
        self.tiny = self.tiny.saturating_add(other.tiny);
        self.raise(other.greatest);
        let first = self.greatest - OCTAVES + 1;
        for (half, other) in
            [(&mut self.negative, &other.negative), (&mut self.positive, &other.positive)]
        {
            half.merge(other, first, &mut self.tiny);
        }
        self.see();
    }

    /// How many values there are.
    pub(super) fn total(&self) -> u64 {
        let counts = [&self.negative, &self.positive].into_iter().flat_map(Half::counts);
        let counts = counts.map(|(_, count)| count).chain([self.zeros, self.tiny]);
        counts.fold(0, u64::saturating_add)
    }

    /// What is counted about zero: those that are, and those too small for a bin.
    fn about_zero(&self) -> Bin {
        let edge = if self.tiny == 0 {
            0.0
        } else {
            greatest_of((((self.greatest - OCTAVES + 1) as u32) << SUB_BITS) - 1)
        };
        Bin { lower: -edge, upper: edge, count: self.zeros.saturating_add(self.tiny) }
    }

    /// The bins with values, least first.
    pub(super) fn bins(&self) -> impl Iterator<Item = Bin> {
        let negative = self.negative.counts().rev().map(|(number, count)| Bin {
            lower: -greatest_of(number),
            upper: -least_of(number),
            count,
        });
        let positive = self.positive.counts().map(|(number, count)| Bin {
            lower: least_of(number),
            upper: greatest_of(number),
            count,
        });
        let zero = Some(self.about_zero()).filter(|zero| zero.count > 0);
        negative.chain(zero).chain(positive).map(|bin| Bin {
            lower: bin.lower.max(self.min),
            upper: bin.upper.min(self.max),
            ..bin
        })
    }

    /// What it takes on the heap, itself included.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Bins>() + self.negative.heap_bytes() + self.positive.heap_bytes()
    }

    /// Appends what is behind the mark of bins.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        codec::put_u64(out, self.greatest as u64);
        codec::put_u64(out, self.tiny);
        out.extend_from_slice(&self.min.to_le_bytes());
        out.extend_from_slice(&self.max.to_le_bytes());
        let negative = self.negative.counts().rev().map(|(number, n)| (-1 - i64::from(number), n));
        let zero = Some((0, self.zeros)).filter(|(_, count)| *count > 0);
        let positive = self.positive.counts().map(|(number, n)| (1 + i64::from(number), n));
        let counts: Vec<(i64, u64)> = negative.chain(zero).chain(positive).collect();
        codec::put_u64(out, counts.len() as u64);
        let mut before = None;
        for (number, count) in counts {
            match before {
                None => codec::put_i64(out, number),
                Some(before) => codec::put_u64(out, number.abs_diff(before)),
            }
            before = Some(number);
            codec::put_u64(out, count);
        }
    }

    pub(super) fn decode(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let octave = codec::take_u64(bytes)?;
        if octave > OCTAVE_MAX {
            return Err(Malformed("there is no such octave"));
        }
        let (tiny, min, max) = (codec::take_u64(bytes)?, take_value(bytes)?, take_value(bytes)?);
        let greatest = octave as i32;
        // Without their ends, which are to be checked, bins are what their numbers say.
        let (least, most) = (f64::NEG_INFINITY, f64::INFINITY);
        let mut bins = Bins { tiny, min: least, max: most, greatest, ..Bins::of(&[]) };
        // Different values there can be.
        let mut different = tiny;
        let mut is_greatest_there = false;
        let mut before = None;
        for _ in 0..codec::take_count(bytes, 2)? {
            let number = match before {
                None => codec::take_i64(bytes)?,
                Some(before) => {
                    let more = codec::take_u64(bytes)?;
                    let more = i64::try_from(more).ok().filter(|more| *more > 0);
                    let number = more.and_then(|more| i64::checked_add(before, more));
                    number.ok_or(Malformed("the bins of a distribution are not in order"))?
                }
            };
            before = Some(number);
            let count = codec::take_u64(bytes)?;
            if count == 0 {
                return Err(Malformed("a bin of a distribution has no values"));
            }
            if number == 0 {
                bins.zeros = count;
                different = different.saturating_add(1);
                continue;
            }
            let size = number.unsigned_abs() - 1;
            let octave = size >> SUB_BITS;
            if octave > greatest as u64 || octave as i64 <= i64::from(greatest - OCTAVES) {
                return Err(Malformed("a bin lies outside of the octaves of its distribution"));
            }
            is_greatest_there |= octave == greatest as u64;
            different = different.saturating_add(count);
            let half = if number < 0 { &mut bins.negative } else { &mut bins.positive };
            half.add(size as u32, count);
        }
        if !is_greatest_there || different <= FEW as u64 {
            return Err(Malformed("a distribution has bins where it has few values"));
        }
        if tiny > 0 && greatest < OCTAVES {
            return Err(Malformed("no value is too small for these bins"));
        }
        let holds = |bin: Option<Bin>, end: f64| {
            bin.is_some_and(|bin| (bin.lower..=bin.upper).contains(&end))
        };
        let is_zero_told = |end: f64| end != 0.0 || bins.zeros > 0;
        let are_ends = min < max
            && holds(bins.bins().next(), min)
            && holds(bins.bins().last(), max)
            && is_zero_told(min)
            && is_zero_told(max);
        if !are_ends {
            return Err(Malformed("least and greatest value are not in their bins"));
        }
        (bins.min, bins.max) = (min, max);
        bins.see();
        Ok(bins)
    }
}

impl Half {
    /// Folds in the bins of another from an octave on; the values before it go to `tiny`.
    fn merge(&mut self, other: &Half, octave: i32, tiny: &mut u64) {
        let first = (octave.max(0) as u32) << SUB_BITS;
        let is_simple = self.first <= other.first
            && other.first >= first
            && self.bins.len() as u32 >= (other.first - self.first) + other.bins.len() as u32
            && self.upper.is_empty()
            && other.upper.is_empty();
        if is_simple && !other.bins.is_empty() {
            let from = (other.first - self.first) as usize;
            let mine = &mut self.bins[from..from + other.bins.len()];
            let overflows = |(mine, theirs): (&u32, &u32)| mine.checked_add(*theirs).is_none();
            if !mine.iter().zip(&other.bins).any(overflows) {
                mine.iter_mut().zip(&other.bins).for_each(|(mine, theirs)| *mine += theirs);
                return;
            }
        }
        for (number, count) in other.counts() {
            if number < first {
                *tiny = tiny.saturating_add(count);
            } else {
                self.add(number, count);
            }
        }
    }
}

pub(super) fn take_value(bytes: &mut &[u8]) -> Result<f64, Malformed> {
    let value = f64::from_le_bytes(codec::take_array(bytes)?);
    if value.is_finite() && !(value == 0.0 && value.is_sign_negative()) {
        Ok(value)
    } else {
        Err(Malformed("a value is no finite number, or minus zero"))
    }
}
