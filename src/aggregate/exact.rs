//! Sums of `f64` and of their squares that are exact, so that neither the order of the events nor
//! the shape of the merges can be told from the result, down to the last byte.
//!
//! A double is an integer times a power of two. Adding integers loses nothing and commutes;
//! so the sum is kept as one long integer and rounded once, when somebody reads it.
//!
//! # Invariants
//!
//! 1. **One unit.** A sum counts units of 2^-1074, a sum of squares units of 2^-2148: the lowest
//!    bit that a double, or the square of one, can have. Both are two's complement in `u64` limbs,
//!    limb 0 least. `Fixed<N, FIRST>` holds limbs `FIRST .. FIRST + N` of that number; the limbs
//!    below are zero and those above repeat the sign.
//! 2. **Room.** Every number in a narrow window lies in `-2^(64N-2) .. 2^(64N-2)`, and what is
//!    added to it too. One addition therefore cannot wrap: it is done first and judged after.
//!    A result without room is still right, and moves to full width before the next addition.
//! 3. **Headroom.** At full width a sum has 2176 bits and doubles reach 2^2098 units; squares have
//!    4288 bits and reach 2^4196. More than 2^64 additions fit, which is more than a `u64` count
//!    can name. Beyond that the numbers wrap; nothing panics.
//! 4. **Value, not history.** Equality and bytes depend on the two numbers alone. Whether they
//!    are narrow or wide in memory is a matter of cost: a wide one never goes back by itself,
//!    `decode` gives a narrow one wherever the value has room in it.
//! 5. **Rounded once.** `sum`, `sum_of_squares`, `mean`, `var_pop` and `var_samp` are each the
//!    double nearest to the exact quotient, ties to even, subnormals and infinities included.
//!
//! # Formulas
//!
//! With S the sum, Q the sum of squares and n the count, on exact integers:
//!
//! ```text
//! mean = S / n      var_pop = (nQ - S²) / n²      var_samp = (nQ - S²) / (n (n - 1))
//! ```
//!
//! `nQ - S²` is famous for cancelling catastrophically in floating point; here nothing is lost
//! before it is taken. Of the dividend the top four limbs and one bit for "something below" are
//! enough: `⌊⌊a / b⌋ / c⌋ = ⌊a / bc⌋`, four limbs over two leave at least 64 bits and a
//! remainder, and a double has 53.
//!
//! # Bytes
//!
//! ```text
//! sums   := number(sum) number(squares)
//! number := header:u24le digits      header = count | offset << 12
//! digits := `count` bytes, two's complement, least first, worth 2^(8·offset) units each
//! ```
//!
//! The digits neither begin with a zero byte nor end with one that only repeats the sign; zero is
//! the header 0. So there is one spelling for every value, and `decode` refuses all others.
//! Of 15.3 and 20.34 the sum takes 11 bytes and the squares 17.
//!
//! # Source
//!
//! Radford M. Neal, "Fast exact summation using small and large superaccumulators",
//! arXiv:1505.05571. His accumulators are redundant (overlapping signed chunks, carries put off)
//! and cover the whole range; ours is plain two's complement, hence canonical at every moment, in
//! a fixed window of the range with the whole of it in reserve.
//!
//! # Cost
//!
//! 72 bytes, and nothing on the heap, as long as every double is below 2^66 and has no bit below
//! 2^-82 (any of 2^-30 and up does), the sum stays below 2^76 and that of squares below 2^154.
//! Anything else costs 808 bytes on the heap, once. An addition is one multiplication and two
//! carry chains, of two and of three limbs, that seldom go further; in either width the same.
//! Reading divides at most eight times; a variance multiplies the numbers out before.

use crate::codec::Malformed;
use std::ops::Range;

/// Bits in a limb.
const LIMB_BITS: usize = 64;
/// Bits of a double's significand, the implicit one counted.
const SIGNIFICAND_BITS: usize = f64::MANTISSA_DIGITS as usize;
/// Stored bits of a double's significand.
const FRACTION_BITS: usize = SIGNIFICAND_BITS - 1;
/// Exponent of the unit of a sum; that of squares is twice this (invariant 1).
const UNIT_EXPONENT: i32 = -1074;

const NARROW_SUM_LIMBS: usize = 3;
const NARROW_SUM_FIRST: usize = 15;
const NARROW_SQUARES_LIMBS: usize = 5;
const NARROW_SQUARES_FIRST: usize = 31;
const WIDE_SUM_LIMBS: usize = 34;
const WIDE_SQUARES_LIMBS: usize = 67;

/// Limbs that hold `nQ` and `S²` at full width: 67 + 1, and 2 × 34.
const PRODUCT_LIMBS: usize = 68;

/// Limbs that a significand, or its square, covers from the one that its lowest bit falls into.
const SUM_WORDS: usize = 2;
const SQUARES_WORDS: usize = 3;

/// Positions (powers of two, in units of a sum) at which any significand suits both narrow
/// windows. One range for both, and for any significand, so that one comparison decides; that all
/// the words must find a limb keeps the carry chains free of cases.
const NARROW_POSITIONS: Range<usize> = {
    let sum_end = (NARROW_SUM_FIRST + NARROW_SUM_LIMBS + 1 - SUM_WORDS) * LIMB_BITS;
    let squares_end =
        (NARROW_SQUARES_FIRST + NARROW_SQUARES_LIMBS + 1 - SQUARES_WORDS) * LIMB_BITS / 2;
    assert!(sum_end == squares_end, "the windows are matched, neither has a limb too many");
    NARROW_SQUARES_FIRST * LIMB_BITS / 2..sum_end
};

// Invariant 2 for addends, and the lower edge of the sum's window.
const _: () = {
    let Range { start, end } = NARROW_POSITIONS;
    let sum_bits = (NARROW_SUM_FIRST + NARROW_SUM_LIMBS) * LIMB_BITS - 2;
    let squares_bits = (NARROW_SQUARES_FIRST + NARROW_SQUARES_LIMBS) * LIMB_BITS - 2;
    assert!(start >= NARROW_SUM_FIRST * LIMB_BITS);
    assert!(end - 1 + SIGNIFICAND_BITS <= sum_bits);
    assert!(2 * (end - 1 + SIGNIFICAND_BITS) <= squares_bits);
};

/// Bits of `count` in the header of a number's bytes.
const COUNT_BITS: u32 = 12;
/// Length of that header.
const HEADER_BYTES: usize = 3;

/// Exact sum and exact sum of squares of finite doubles. Starts at zero.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums(State);

/// Where the two numbers live.
#[derive(Clone, Debug)]
enum State {
    Narrow(Narrow),
    Wide(Box<Wide>),
}

type Narrow = Pair<NARROW_SUM_LIMBS, NARROW_SUM_FIRST, NARROW_SQUARES_LIMBS, NARROW_SQUARES_FIRST>;
type Wide = Pair<WIDE_SUM_LIMBS, 0, WIDE_SQUARES_LIMBS, 0>;

impl Default for State {
    fn default() -> Self {
        Self::Narrow(Pair::ZERO)
    }
}

/// A finite double taken apart for adding it to many sums: what it and its square are in the narrow
/// windows. 72 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    value: f64,
    /// Zero where the value is not narrow; no square but that of zero is.
    pair: Narrow,
}

impl Measure {
    /// "Not measured": NaN, which no event can carry.
    pub(crate) const NONE: Measure = Measure { value: f64::NAN, pair: Pair::ZERO };

    #[inline]
    pub(crate) fn new(value: f64) -> Self {
        let mut pair = Pair::ZERO;
        let term = Term::of(value);
        if term.is_narrow() && !value.is_nan() {
            pair.add(term);
        }
        Measure { value, pair }
    }

    #[inline]
    pub(crate) fn value(&self) -> f64 {
        self.value
    }
}

impl Sums {
    /// Adds what [`Sums::add`] does, with the taking apart done before.
    #[inline]
    pub(crate) fn add_measure(&mut self, measure: &Measure) {
        if let State::Narrow(pair) = &mut self.0
            && (measure.pair.squares.0 != [0; NARROW_SQUARES_LIMBS] || measure.value == 0.0)
        {
            if !pair.merge(&measure.pair) {
                self.widen();
            }
        } else {
            self.add(measure.value);
        }
    }

    /// Memory held outside of the value itself, in bytes.
    #[inline]
    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.0 {
            State::Narrow(_) => 0,
            State::Wide(_) => size_of::<Wide>(),
        }
    }

    /// Adds `x` to the sum and its square to the sum of squares. Minus zero is zero.
    ///
    /// `x` must be finite, which the caller has checked: an infinity or a NaN would be taken for
    /// the number that its bits would be if the exponents went on.
    #[inline]
    pub(crate) fn add(&mut self, x: f64) {
        debug_assert!(x.is_finite(), "sums are of finite numbers");
        let term = Term::of(x);
        if let State::Narrow(pair) = &mut self.0
            && term.is_narrow()
        {
            if !pair.add(term) {
                self.widen();
            }
        } else if term.significand != 0 {
            self.add_elsewhere(term);
        }
    }

    /// The additions that do not go to a narrow window as they stand.
    #[inline(never)]
    fn add_elsewhere(&mut self, term: Term) {
        match &mut self.0 {
            State::Wide(pair) => {
                // Invariant 3: there is room.
                pair.add(term);
            }
            State::Narrow(pair) => {
                let raised = term.raised();
                if !raised.is_narrow() {
                    self.widen().add(term);
                } else if !pair.add(raised) {
                    self.widen();
                }
            }
        }
    }

    /// Adds all that went into `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (State::Narrow(mine), State::Narrow(theirs)) => {
                if !mine.merge(theirs) {
                    self.widen();
                }
            }
            (State::Wide(mine), State::Narrow(theirs)) => {
                mine.merge(theirs);
            }
            (_, State::Wide(theirs)) => {
                self.widen().merge(theirs);
            }
        }
    }

    /// The sum, rounded to the nearest double, ties to even; infinite if beyond the doubles.
    pub(crate) fn sum(&self) -> f64 {
        match &self.0 {
            State::Narrow(pair) => pair.sum.over(1),
            State::Wide(pair) => pair.sum.over(1),
        }
    }

    /// The sum of the squares, rounded likewise.
    pub(crate) fn sum_of_squares(&self) -> f64 {
        match &self.0 {
            State::Narrow(pair) => pair.squares_nearest(),
            State::Wide(pair) => pair.squares_nearest(),
        }
    }

    /// The mean of `n` additions, rounded likewise; `None` of none. Finite even where the sum
    /// itself is beyond the doubles.
    pub(crate) fn mean(&self, n: u64) -> Option<f64> {
        (n > 0).then(|| match &self.0 {
            State::Narrow(pair) => pair.sum.over(n),
            State::Wide(pair) => pair.sum.over(n),
        })
    }

    /// The variance of `n` additions as a whole population (over n), rounded likewise; `None` of
    /// none. Never negative.
    pub(crate) fn var_pop(&self, n: u64) -> Option<f64> {
        (n > 0).then(|| self.variance(n, n))
    }

    /// The variance of the population from which `n` additions are a sample (over n - 1),
    /// rounded likewise; `None` of fewer than two. Never negative.
    pub(crate) fn var_samp(&self, n: u64) -> Option<f64> {
        (n > 1).then(|| self.variance(n, n - 1))
    }

    /// `(nQ - S²) / (n · freedom)`; both divisors at least 1.
    fn variance(&self, n: u64, freedom: u64) -> f64 {
        match &self.0 {
            State::Narrow(pair) => pair.variance(n, freedom),
            State::Wide(pair) => pair.variance(n, freedom),
        }
    }

    /// Appends the bytes described at the top of the file: a function of the value alone.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match &self.0 {
            State::Narrow(pair) => pair.encode(out),
            State::Wide(pair) => pair.encode(out),
        }
    }

    /// Takes one encoded value off the front of `bytes`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if `encode` could not have written what is there; `bytes` is then as before.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let mut rest = *bytes;
        let wide = Wide { sum: Fixed::decode(&mut rest)?, squares: Fixed::decode(&mut rest)? };
        if wide.squares.is_negative() {
            return Err(Malformed("a sum of squares is not negative"));
        }
        if wide.squares == Fixed::ZERO && wide.sum != Fixed::ZERO {
            return Err(Malformed("squares that sum to zero leave nothing but zeros to sum"));
        }
        *bytes = rest;
        Ok(Self(match wide.resized() {
            Some(narrow) => State::Narrow(narrow),
            None => State::Wide(Box::new(wide)),
        }))
    }

    /// Moves to full width, if not there yet.
    #[cold]
    fn widen(&mut self) -> &mut Wide {
        if let State::Narrow(pair) = &self.0 {
            self.0 = State::Wide(Box::new(pair.at_full_width()));
        }
        match &mut self.0 {
            State::Wide(pair) => pair,
            State::Narrow(_) => unreachable!("the line above has widened it"),
        }
    }
}

impl PartialEq for Sums {
    /// By value (invariant 4).
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (State::Narrow(a), State::Narrow(b)) => a == b,
            (State::Wide(a), State::Wide(b)) => a == b,
            (State::Narrow(narrow), State::Wide(wide))
            | (State::Wide(wide), State::Narrow(narrow)) => narrow.at_full_width() == **wide,
        }
    }
}

impl Eq for Sums {}

/// A finite double taken apart: `± significand · 2^position` units of a sum.
#[derive(Clone, Copy)]
struct Term {
    significand: u64,
    position: usize,
    negative: bool,
}

impl Term {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "an exponent has 11 bits")]
    fn of(x: f64) -> Self {
        let bits = x.to_bits();
        let exponent = (bits >> FRACTION_BITS) & 0x7ff;
        // Subnormals share the scale of exponent 1 but have no implicit bit.
        let implicit = u64::from(exponent != 0);
        Self {
            significand: (bits & ((1 << FRACTION_BITS) - 1)) | (implicit << FRACTION_BITS),
            position: (exponent - implicit) as usize,
            negative: x.is_sign_negative(),
        }
    }

    /// Whether it can be added in the narrow windows.
    #[inline]
    fn is_narrow(self) -> bool {
        NARROW_POSITIONS.contains(&self.position)
    }

    /// The same value at a position where it might be narrow, so far as the zeros at the end of
    /// the significand, which is not zero itself, allow.
    fn raised(self) -> Self {
        let zeros = self.significand.trailing_zeros() as usize;
        let rise = zeros.min(NARROW_POSITIONS.start.saturating_sub(self.position));
        Self { significand: self.significand >> rise, position: self.position + rise, ..self }
    }
}

/// Sum and sum of squares, each in a window of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair<const S: usize, const S_FIRST: usize, const Q: usize, const Q_FIRST: usize> {
    sum: Fixed<S, S_FIRST>,
    squares: Fixed<Q, Q_FIRST>,
}

impl<const S: usize, const S_FIRST: usize, const Q: usize, const Q_FIRST: usize>
    Pair<S, S_FIRST, Q, Q_FIRST>
{
    const ZERO: Self = Self { sum: Fixed::ZERO, squares: Fixed::ZERO };

    /// Adds a term that lies in the windows; says whether both numbers have room left.
    #[inline]
    fn add(&mut self, term: Term) -> bool {
        let significand = u128::from(term.significand);
        self.sum.add_shifted::<SUM_WORDS>(significand, term.position, term.negative);
        // At most 106 bits: the square is exact.
        self.squares.add_shifted::<SQUARES_WORDS>(
            significand * significand,
            2 * term.position,
            false,
        );
        self.has_room()
    }

    /// Adds a pair whose windows lie within these; says whether both numbers have room left.
    #[inline]
    fn merge<const S2: usize, const S2_FIRST: usize, const Q2: usize, const Q2_FIRST: usize>(
        &mut self,
        other: &Pair<S2, S2_FIRST, Q2, Q2_FIRST>,
    ) -> bool {
        self.sum.merge(&other.sum);
        self.squares.merge(&other.squares);
        self.has_room()
    }

    #[inline]
    fn has_room(&self) -> bool {
        self.sum.has_room() & self.squares.has_room()
    }

    fn at_full_width(&self) -> Wide {
        let mut wide = Wide::ZERO;
        wide.merge(self);
        wide
    }

    /// The same values in other windows, if they have room there.
    fn resized<const S2: usize, const S2_FIRST: usize, const Q2: usize, const Q2_FIRST: usize>(
        &self,
    ) -> Option<Pair<S2, S2_FIRST, Q2, Q2_FIRST>> {
        Some(Pair { sum: self.sum.resized()?, squares: self.squares.resized()? })
    }

    fn squares_nearest(&self) -> f64 {
        nearest(&self.squares.0, 2 * UNIT_EXPONENT + bits_of(Q_FIRST), [1, 1])
    }

    /// `(nQ - S²) / (n · freedom)`, rounded once.
    fn variance(&self, n: u64, freedom: u64) -> f64 {
        // Both products count the unit of squares, so they are aligned limb by limb; `base` is
        // the first limb in which either has anything.
        let base = Q_FIRST.min(2 * S_FIRST);
        let mut scaled = [0; PRODUCT_LIMBS];
        add_product(&mut scaled[Q_FIRST - base..], &self.squares.0, n);
        let (sum, _) = self.sum.magnitude();
        let mut square = [0; PRODUCT_LIMBS];
        for (limb, &factor) in sum.iter().enumerate().filter(|&(_, &factor)| factor != 0) {
            add_product(&mut square[2 * S_FIRST - base + limb..], &sum, factor);
        }
        let mut borrow = false;
        for (limb, &less) in scaled.iter_mut().zip(&square) {
            (*limb, borrow) = limb.borrowing_sub(less, borrow);
        }
        // nQ ≥ S² whenever Q has n terms (Cauchy and Schwarz). A borrow tells that the count is
        // not the one that belongs to these sums; a variance is not negative even then.
        if borrow {
            return 0.0;
        }
        nearest(&scaled, 2 * UNIT_EXPONENT + bits_of(base), [n, freedom])
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.sum.encode(out);
        self.squares.encode(out);
    }
}

/// Limbs `FIRST .. FIRST + N` of a two's complement number (invariant 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fixed<const N: usize, const FIRST: usize>([u64; N]);

impl<const N: usize, const FIRST: usize> Fixed<N, FIRST> {
    const ZERO: Self = Self([0; N]);

    /// Adds `± magnitude · 2^position` units, which lie in the window within `WORDS` limbs (three
    /// at most) from the one that `position` points into.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "takes the low and the high half")]
    fn add_shifted<const WORDS: usize>(
        &mut self,
        magnitude: u128,
        position: usize,
        negative: bool,
    ) {
        let position = position - FIRST * LIMB_BITS;
        let shift = position % LIMB_BITS;
        let (low, high) = (magnitude as u64, (magnitude >> LIMB_BITS) as u64);
        // In two steps, as no single shift takes out all 64 bits when `shift` is 0.
        let over = |word: u64| (word >> 1) >> (LIMB_BITS - 1 - shift);
        let words = [low << shift, (high << shift) | over(low), over(high)];
        // -a = !a + 1, and the 1 carries through all the zeros below `words`.
        let fill = u64::from(negative).wrapping_neg();
        let words: [u64; WORDS] = std::array::from_fn(|word| words[word] ^ fill);
        add_limbs(&mut self.0[position / LIMB_BITS..], &words, fill, negative);
    }

    /// Adds a number whose window lies within this one.
    #[inline]
    fn merge<const M: usize, const OTHER_FIRST: usize>(&mut self, other: &Fixed<M, OTHER_FIRST>) {
        add_limbs(&mut self.0[OTHER_FIRST - FIRST..], &other.0, other.fill(), false);
    }

    #[inline]
    fn is_negative(&self) -> bool {
        self.0[N - 1] >> (LIMB_BITS - 1) != 0
    }

    /// The limb that repeats the sign.
    #[inline]
    fn fill(&self) -> u64 {
        u64::from(self.is_negative()).wrapping_neg()
    }

    /// Invariant 2: the top two bits agree.
    #[inline]
    fn has_room(&self) -> bool {
        let top = self.0[N - 1];
        (top ^ (top << 1)) >> (LIMB_BITS - 1) == 0
    }

    /// Limb `index` of the whole number (invariant 1).
    fn limb(&self, index: usize) -> u64 {
        index.checked_sub(FIRST).map_or(0, |own| self.0.get(own).copied().unwrap_or(self.fill()))
    }

    /// The same value in another window, if it has room there.
    fn resized<const M: usize, const OTHER_FIRST: usize>(&self) -> Option<Fixed<M, OTHER_FIRST>> {
        let other =
            Fixed::<M, OTHER_FIRST>(std::array::from_fn(|limb| self.limb(OTHER_FIRST + limb)));
        // The limbs that `other` lacks must be those that it implies.
        let same = (FIRST..FIRST + N).all(|limb| self.limb(limb) == other.limb(limb));
        (same && other.has_room()).then_some(other)
    }

    /// The absolute value, and whether it was negative.
    fn magnitude(&self) -> ([u64; N], bool) {
        let fill = self.fill();
        let mut carry = self.is_negative();
        let limbs = self.0.map(|limb| {
            let (limb, over) = (limb ^ fill).overflowing_add(u64::from(carry));
            carry = over;
            limb
        });
        (limbs, self.is_negative())
    }

    /// As a sum divided by `n`, rounded once.
    fn over(&self, n: u64) -> f64 {
        let (limbs, negative) = self.magnitude();
        let size = nearest(&limbs, UNIT_EXPONENT + bits_of(FIRST), [n, 1]);
        if negative { -size } else { size }
    }

    /// The bytes of the window that are neither zeros at the bottom nor copies of the sign at
    /// the top; empty for zero.
    fn digits(&self) -> Range<usize> {
        let Some(first) = self.0.iter().position(|&limb| limb != 0) else {
            return 0..0;
        };
        let start = first * LIMB_BITS + self.0[first].trailing_zeros() as usize;
        let fill = self.fill();
        let last = self.0.iter().rposition(|&limb| limb != fill);
        let end = last.map_or(0, |last| {
            (last + 1) * LIMB_BITS - (self.0[last] ^ fill).leading_zeros() as usize
        });
        // One more bit, for the sign.
        start / 8..(end + 1).div_ceil(8)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let digits = self.digits();
        let offset = if digits.is_empty() { 0 } else { 8 * FIRST + digits.start };
        let header = digits.len() | offset << COUNT_BITS;
        out.extend_from_slice(&header.to_le_bytes()[..HEADER_BYTES]);
        out.extend(digits.map(|byte| self.0[byte / 8].to_le_bytes()[byte % 8]));
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let (&[low, middle, high], rest) =
            bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Malformed("no room for a header"))?;
        let header = u32::from_le_bytes([low, middle, high, 0]) as usize;
        let (count, offset) = (header & ((1 << COUNT_BITS) - 1), header >> COUNT_BITS);
        let (digits, rest) =
            rest.split_at_checked(count).ok_or(Malformed("fewer digits than the header says"))?;
        let fill = match *digits {
            [] if offset != 0 => return Err(Malformed("zero has no offset")),
            [0, ..] => return Err(Malformed("digits begin with a zero")),
            [.., next, last] if last == sign_of(next) => {
                return Err(Malformed("digits end with a copy of the sign"));
            }
            [.., last] => sign_of(last),
            [] => 0,
        };
        // Zero is a number of no digits at the bottom of any window.
        let start = if count == 0 { Some(0) } else { offset.checked_sub(8 * FIRST) };
        let Some(start) = start.filter(|start| start + count <= 8 * N) else {
            return Err(Malformed("digits outside the range of doubles"));
        };
        let mut number = Self::ZERO;
        let above = if fill == 0 { 0 } else { 8 * N - start - count };
        let digits = digits.iter().copied().chain(std::iter::repeat_n(fill, above));
        for (byte, digit) in (start..).zip(digits) {
            number.0[byte / 8] |= u64::from(digit) << (byte % 8 * 8);
        }
        // 2^64 doubles do not get there (invariant 3), and two such numbers might not add up.
        if !number.has_room() {
            return Err(Malformed("more than a count of doubles can sum to"));
        }
        *bytes = rest;
        Ok(number)
    }
}

/// The byte that repeats the sign of `byte`.
fn sign_of(byte: u8) -> u8 {
    if byte >> 7 == 0 { 0 } else { 0xff }
}

/// Bits in so many limbs, as an exponent.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "at most 68 limbs")]
const fn bits_of(limbs: usize) -> i32 {
    (limbs * LIMB_BITS) as i32
}

/// `limbs += words + carry`, where `fill` stands above `words` for ever. What leaves `limbs` at
/// the top is dropped, and there are at least as many as `words`. Every sum of two's complement
/// numbers in this file is made here.
#[inline]
fn add_limbs<const WORDS: usize>(
    limbs: &mut [u64],
    words: &[u64; WORDS],
    fill: u64,
    mut carry: bool,
) {
    let (low, high) = limbs.split_at_mut(WORDS);
    for (limb, &word) in low.iter_mut().zip(words) {
        (*limb, carry) = limb.carrying_add(word, carry);
    }
    for limb in high {
        // 0 + 0 and -1 + 1 change nothing here or above.
        if fill.wrapping_add(u64::from(carry)) == 0 {
            return;
        }
        (*limb, carry) = limb.carrying_add(fill, carry);
    }
}

/// `to += number · factor`, which must not go beyond `to`.
fn add_product(to: &mut [u64], number: &[u64], factor: u64) {
    let mut carry = 0;
    let mut to = to.iter_mut();
    for (&limb, to) in number.iter().zip(&mut to) {
        (*to, carry) = limb.carrying_mul_add(factor, *to, carry);
    }
    for to in to {
        if carry == 0 {
            break;
        }
        let (sum, over) = to.overflowing_add(carry);
        (*to, carry) = (sum, u64::from(over));
    }
}

/// The double nearest to `limbs · 2^exponent / (divisors[0] · divisors[1])`, ties to even
/// (invariant 5). The divisors are not zero.
#[expect(clippy::cast_possible_truncation, reason = "a remainder is less than its divisor")]
fn nearest(limbs: &[u64], exponent: i32, divisors: [u64; 2]) -> f64 {
    const HEAD: usize = 4;
    let Some(top) = limbs.iter().rposition(|&limb| limb != 0) else {
        return 0.0;
    };
    let (tail, upper) = limbs[..=top].split_at((top + 1).saturating_sub(HEAD));
    let mut head = [0; HEAD];
    head[HEAD - upper.len()..].copy_from_slice(upper);
    let exponent = exponent + bits_of(top + 1) - bits_of(HEAD);
    let mut inexact = tail.iter().any(|&limb| limb != 0);
    for divisor in divisors.into_iter().filter(|&divisor| divisor > 1) {
        let mut remainder = 0;
        for limb in head.iter_mut().rev() {
            let dividend = u128::from(remainder) << LIMB_BITS | u128::from(*limb);
            *limb = (dividend / u128::from(divisor)) as u64;
            remainder = (dividend % u128::from(divisor)) as u64;
        }
        inexact |= remainder != 0;
    }
    let top = head
        .iter()
        .rposition(|&limb| limb != 0)
        .expect("invariant 5: at least 2^192 over less than 2^128 is above 2^64");
    let shift = head[top].leading_zeros();
    let leading = (u128::from(head[top]) << LIMB_BITS | u128::from(head[top - 1])) << shift;
    inexact |= leading as u64 != 0 || head[..top - 1].iter().any(|&limb| limb != 0);
    let leading = (leading >> LIMB_BITS) as u64;
    compose(leading, exponent + bits_of(top) - shift.cast_signed(), inexact)
}

/// The double nearest to `leading · 2^exponent`, or to a little more if `inexact`. The top bit
/// of `leading` is set.
#[expect(clippy::cast_possible_truncation, reason = "a significand has 53 bits")]
#[expect(clippy::cast_sign_loss, reason = "`max` keeps it at or above zero")]
fn compose(leading: u64, exponent: i32, inexact: bool) -> f64 {
    // 64 bits down to 53, or to fewer where the result is subnormal.
    let drop = (u64::BITS - f64::MANTISSA_DIGITS).cast_signed().max(UNIT_EXPONENT - exponent);
    let above_unit = exponent + drop - UNIT_EXPONENT;
    // With the implicit bit that would be the exponent of infinity, or more.
    if above_unit >= 0x7fe {
        return f64::INFINITY;
    }
    if drop > u64::BITS.cast_signed() {
        return 0.0;
    }
    let mut kept = (u128::from(leading) >> drop) as u64;
    let rest = u128::from(leading) - (u128::from(kept) << drop);
    let half = 1 << (drop - 1);
    if rest > half || (rest == half && (inexact || kept & 1 == 1)) {
        kept += 1;
    }
    // The implicit bit, and what rounding carries, count up the exponent by themselves, to
    // infinity if need be.
    f64::from_bits(((above_unit as u64) << FRACTION_BITS) + kept)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "exactness is what is tested")]
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "small numbers")]
#[expect(clippy::cast_possible_wrap, reason = "small numbers")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same numbers kept in another way: digits of 32 bits with carries put off, read bit by
    /// bit with long division. Slow, and shares no code with what it judges.
    struct Reference {
        sum: Vec<i128>,
        squares: Vec<i128>,
    }

    impl Reference {
        fn of(values: &[f64]) -> Self {
            let mut new = Self { sum: vec![0; 70], squares: vec![0; 140] };
            for &x in values {
                let exponent = (x.to_bits() >> 52 & 0x7ff) as usize;
                let fraction = u128::from(x.to_bits() & ((1 << 52) - 1));
                let (digits, at) = if exponent == 0 {
                    (fraction, 0)
                } else {
                    (fraction + (1 << 52), exponent - 1)
                };
                let sign = if x < 0.0 { -1 } else { 1 };
                for bit in (0..53).filter(|bit| digits >> bit & 1 == 1) {
                    new.sum[(at + bit) / 32] += sign << ((at + bit) % 32);
                }
                for bit in (0..106).filter(|bit| (digits * digits) >> bit & 1 == 1) {
                    new.squares[(2 * at + bit) / 32] += 1 << ((2 * at + bit) % 32);
                }
            }
            new
        }

        /// Carries done; digits of the absolute value, and whether it was negative.
        fn settled(digits: &[i128]) -> (Vec<i128>, bool) {
            let carried = |sign: i128| {
                let mut carry = 0;
                let mut out: Vec<i128> = Vec::new();
                for digit in digits.iter().map(|digit| sign * digit).chain([0; 4]) {
                    out.push((digit + carry).rem_euclid(1 << 32));
                    carry = (digit + carry).div_euclid(1 << 32);
                }
                (out, carry)
            };
            match carried(1) {
                (out, 0) => (out, false),
                _ => (carried(-1).0, true),
            }
        }

        fn round(digits: &[i128], unit: i32, divisor: u128) -> f64 {
            let (digits, negative) = Self::settled(digits);
            let mut remainder = 0;
            let mut bits = Vec::new();
            // 200 zeros below, so that the quotient has bits enough.
            for place in (0..digits.len() * 32 + 200).rev() {
                let bit = place.checked_sub(200).map_or(0, |at| digits[at / 32] >> (at % 32) & 1);
                remainder = remainder * 2 + bit.cast_unsigned();
                bits.push(u64::from(remainder >= divisor));
                remainder %= divisor;
            }
            bits.reverse();
            let unit = unit - 200;
            let Some(top) = bits.iter().rposition(|&bit| bit == 1) else {
                return 0.0;
            };
            let last = (top as i32 - 52).max(UNIT_EXPONENT - unit);
            let bit =
                |at: i32| usize::try_from(at).ok().and_then(|at| bits.get(at)).map_or(0, |b| *b);
            let mut kept = (last..last + 53).rev().fold(0, |kept, at| kept * 2 + bit(at));
            let below = remainder != 0 || (0..last - 1).any(|at| bit(at) == 1);
            if bit(last - 1) == 1 && (below || kept % 2 == 1) {
                kept += 1;
            }
            let exponent = unit + last;
            let size = if exponent > 971 {
                f64::INFINITY
            } else {
                let half = exponent / 2;
                kept as f64 * 2f64.powi(half) * 2f64.powi(exponent - half)
            };
            if negative { -size } else { size }
        }

        fn sum(&self) -> f64 {
            Self::round(&self.sum, -1074, 1)
        }

        fn sum_of_squares(&self) -> f64 {
            Self::round(&self.squares, -2148, 1)
        }

        fn mean(&self, n: u64) -> f64 {
            Self::round(&self.sum, -1074, n.into())
        }

        fn variance(&self, n: u64, freedom: u64) -> f64 {
            let (sum, _) = Self::settled(&self.sum);
            let (squares, _) = Self::settled(&self.squares);
            let mut spread = vec![0; 150];
            for (at, digit) in squares.iter().enumerate() {
                spread[at] += digit * i128::from(n);
            }
            for (i, a) in sum.iter().enumerate() {
                for (j, b) in sum.iter().enumerate().filter(|(_, b)| a * *b != 0) {
                    spread[i + j] -= a * b;
                }
            }
            Self::round(&spread, -2148, u128::from(n) * u128::from(freedom))
        }
    }

    fn sums(values: &[f64]) -> Sums {
        let mut sums = Sums::default();
        for &x in values {
            sums.add(x);
        }
        sums
    }

    fn bytes(sums: &Sums) -> Vec<u8> {
        let mut out = Vec::new();
        sums.encode(&mut out);
        out
    }

    fn is_narrow(sums: &Sums) -> bool {
        matches!(sums.0, State::Narrow(_))
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    #[track_caller]
    fn check_against_reference(values: &[f64]) {
        let (ours, reference) = (sums(values), Reference::of(values));
        let n = values.len() as u64;
        assert_eq!(ours.sum().to_bits(), reference.sum().to_bits(), "sum");
        assert_eq!(ours.sum_of_squares(), reference.sum_of_squares(), "sum of squares");
        if n > 0 {
            assert_eq!(ours.mean(n), Some(reference.mean(n)), "mean");
            assert_eq!(ours.var_pop(n), Some(reference.variance(n, n)), "var_pop");
        }
        if n > 1 {
            assert_eq!(ours.var_samp(n), Some(reference.variance(n, n - 1)), "var_samp");
        }
    }

    #[test]
    fn narrow_sums_take_72_bytes() {
        assert_eq!(size_of::<Sums>(), 72);
        assert_eq!(size_of::<Wide>(), 808);
    }

    #[test]
    fn nothing_added_is_zero() {
        let none = Sums::default();
        assert_eq!((none.sum().to_bits(), none.sum_of_squares().to_bits()), (0, 0));
        assert_eq!((none.mean(0), none.var_pop(0), none.var_samp(0)), (None, None, None));
        assert_eq!((none.var_pop(1), none.var_samp(1)), (Some(0.0), None));
        assert_eq!(sums(&[0.0, -0.0]), none);
        assert!(is_narrow(&sums(&[0.0, -0.0])));
        assert_eq!(bytes(&none), [0; 6]);
    }

    #[test]
    fn a_million_tenths_are_summed_before_they_are_rounded() {
        let mut tenths = Sums::default();
        for _ in 0..1_000_000 {
            tenths.add(0.1);
        }
        // Exactly 100000.00000000000555…, less than half a step (7.3e-12) above 100000. Adding
        // the doubles one by one gives 100000.00000133288.
        assert_eq!(tenths.sum(), 100_000.0);
        assert_eq!(tenths.sum_of_squares(), 10_000.000_000_000_002);
        assert_eq!(tenths.mean(1_000_000), Some(0.1));
        assert_eq!(tenths.var_pop(1_000_000), Some(0.0));
        assert_eq!(tenths.var_samp(1_000_000), Some(0.0));
        assert!(is_narrow(&tenths));
    }

    #[test]
    fn variance_survives_a_large_mean() {
        let near = sums(&[1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0]);
        assert_eq!(near.var_samp(3), Some(1.0));
        assert_eq!(near.var_pop(3), Some(2.0 / 3.0));
        // NIST NumAcc3 and NumAcc4. The certified variance of both is 0.01 in decimals; the
        // doubles nearest to the data have these, by rational arithmetic.
        let data = |first, odd, even| -> Vec<f64> {
            std::iter::once(first).chain([odd, even].into_iter().cycle().take(1000)).collect()
        };
        let three = sums(&data(1_000_000.2, 1_000_000.1, 1_000_000.3));
        assert_eq!(three.var_samp(1001), Some(0.010_000_000_006_984_92));
        assert_eq!(three.var_pop(1001), Some(0.009_990_009_996_987_93));
        assert_eq!(three.mean(1001), Some(1_000_000.2));
        let four = sums(&data(10_000_000.2, 10_000_000.1, 10_000_000.3));
        assert_eq!(four.var_samp(1001), Some(0.010_000_000_111_758_71));
        assert_eq!(four.mean(1001), Some(10_000_000.2));
    }

    #[test]
    fn a_sum_rounds_ties_to_even() {
        let big = 2f64.powi(53);
        assert_eq!(sums(&[big, 1.0]).sum(), big);
        assert_eq!(sums(&[big, 2.0, 1.0]).sum(), big + 4.0);
        assert_eq!(sums(&[big, 1.0, f64::from_bits(1)]).sum(), big + 2.0);
        assert_eq!(sums(&[big, 1.0, -f64::from_bits(1)]).sum(), big);
        assert_eq!(sums(&[-big, -1.0]).sum(), -big);
        assert_eq!(sums(&[-big, -2.0, -1.0]).sum(), -big - 4.0);
    }

    #[test]
    fn the_ends_of_the_range_round_right() {
        let (max, tiny) = (f64::MAX, f64::from_bits(1));
        let half_step = 2f64.powi(970);
        assert_eq!(sums(&[max, max]).sum(), f64::INFINITY);
        assert_eq!(sums(&[-max, -max]).sum(), f64::NEG_INFINITY);
        assert_eq!(sums(&[max, max]).mean(2), Some(max));
        assert_eq!(sums(&[max, half_step]).sum(), f64::INFINITY);
        assert_eq!(sums(&[max, half_step, -tiny]).sum(), max);
        assert_eq!(sums(&[max, tiny, -max]).sum(), tiny);
        assert_eq!(sums(&[max, -max]).var_pop(2), Some(f64::INFINITY));
        assert_eq!(sums(&[max, max]).var_pop(2), Some(0.0));
        assert_eq!(sums(&[tiny, tiny]).mean(2), Some(tiny));
        assert_eq!(sums(&[tiny, 0.0]).mean(2), Some(0.0));
        assert_eq!(sums(&[tiny, tiny, tiny]).mean(2), Some(2.0 * tiny));
        assert_eq!(sums(&[tiny]).sum_of_squares(), 0.0);
        // 1.5 · 2^-1074 as squares: a tie that goes up to 2.
        let root = 2f64.powi(-537);
        assert_eq!(sums(&[root]).sum_of_squares(), tiny);
        let half = 0.5 * root;
        assert_eq!(sums(&[root, half, half]).sum_of_squares(), 2.0 * tiny);
        assert_eq!(sums(&[half, half]).sum_of_squares(), 0.0);
        assert_eq!(sums(&[half, half, tiny]).sum_of_squares(), tiny);
        check_against_reference(&[f64::MIN_POSITIVE, -f64::MIN_POSITIVE / 2.0, tiny, 1e-162]);
    }

    #[test]
    fn a_count_that_is_not_theirs_gives_no_negative_variance() {
        assert_eq!(sums(&[5.0; 10]).var_pop(3), Some(0.0));
        assert_eq!(sums(&[1e300; 10]).var_samp(3), Some(0.0));
        assert!(sums(&[5.0; 10]).var_samp(u64::MAX).is_some_and(|var| var > 0.0));
    }

    #[test]
    fn the_window_is_as_wide_as_promised_and_no_wider() {
        let (low, high) = (2f64.powi(-30), 2f64.powi(66));
        for x in [low.next_up(), low, 2f64.powi(-82), 3.0 * 2f64.powi(-82), high.next_down()] {
            assert!(is_narrow(&sums(&[x])) && is_narrow(&sums(&[-x])), "{x:e}");
            check_against_reference(&[x, -x, x]);
        }
        for x in [low.next_down(), 2f64.powi(-83), 1.5 * 2f64.powi(-82), high, 1e300] {
            assert!(!is_narrow(&sums(&[x])) && !is_narrow(&sums(&[-x])), "{x:e}");
            check_against_reference(&[x, -x, x]);
        }
    }

    /// As many of `x` as 2 to the power of `times`.
    fn doubled(x: f64, times: u32) -> Sums {
        (0..times).fold(sums(&[x]), |mut sums, _| {
            sums.merge(&sums.clone());
            sums
        })
    }

    #[test]
    fn a_carry_out_of_the_window_moves_to_full_width() {
        for x in [2f64.powi(65), -2f64.powi(65), 0.75] {
            for times in 0..160 {
                let sums = doubled(x, times);
                let (sum, squares) = (sums.sum(), sums.sum_of_squares());
                assert_eq!(sum, x * 2f64.powi(times.cast_signed()), "{times}");
                assert_eq!(squares, x * x * 2f64.powi(times.cast_signed()), "{times}");
                let room = (-2f64.powi(76)..2f64.powi(76)).contains(&sum);
                assert_eq!(is_narrow(&sums), room && squares < 2f64.powi(154), "{times}");
                let mut more = sums.clone();
                more.add(x);
                more.add(-x);
                let back = Sums::decode(&mut bytes(&more).as_slice()).expect("own bytes");
                assert_eq!(back, more);
                assert_eq!(back.sum(), sum);
                assert_eq!(is_narrow(&back), room && back.sum_of_squares() < 2f64.powi(154));
            }
        }
        // 2^76, the first sum without room, by additions alone.
        let mut sums = Sums::default();
        for count in 1..=1 << 11 {
            sums.add(2f64.powi(65));
            assert_eq!(is_narrow(&sums), count < 1 << 11, "{count}");
        }
        assert_eq!(sums.sum(), 2f64.powi(76));
        let mut below = Sums::default();
        for count in 1..=(1 << 11) + 1 {
            below.add(-2f64.powi(65));
            assert_eq!(is_narrow(&below), count <= 1 << 11, "{count}");
        }
    }

    #[test]
    fn a_tiny_double_can_be_the_one_too_many() {
        let two = |exponent| 2f64.powi(exponent);
        let mut sums = sums(&[two(65); (1 << 11) - 1]);
        for (high, low) in [(65, 12), (12, -41), (-41, -82)] {
            sums.add(two(high) - two(low));
        }
        assert!(is_narrow(&sums));
        sums.add(two(-82));
        assert!(!is_narrow(&sums));
        sums.add(-two(-82));
        sums.add(two(65));
        assert_eq!(sums.sum(), two(76) + two(65));
    }

    #[test]
    fn the_remainder_of_a_division_breaks_a_tie() {
        let unit = 2f64.powi(-894);
        let (even, odd) = (2f64.powi(53) * unit, unit);
        let mut tie = sums(&[even, even, even, odd, odd, odd]);
        assert_eq!(tie.mean(3), Some(even));
        // The sum has four limbs, of which the lowest is 1: all of it is remainder.
        tie.add(f64::from_bits(1));
        assert_eq!(tie.mean(3), Some(even.next_up()));
    }

    #[test]
    fn full_width_holds_more_doubles_than_can_be_counted() {
        for x in [f64::MAX, -f64::MAX] {
            let all = doubled(x, 64);
            let back = Sums::decode(&mut bytes(&all).as_slice()).expect("own bytes");
            assert_eq!(back, all);
            assert_eq!(all.sum(), x * 2.0, "infinite");
            assert_eq!(all.sum_of_squares(), f64::INFINITY);
            assert_eq!(all.mean(u64::MAX), Some(x));
            assert_eq!(all.mean(1 << 63).map(f64::is_infinite), Some(true));
        }
    }

    #[test]
    fn bytes_are_as_documented() {
        assert_eq!(
            hex(&bytes(&sums(&[15.3, 20.34]))),
            "08000890c2f5285c8f8e000e0010a0abadd85f76cf855ad3bce37c28"
        );
        assert_eq!(hex(&bytes(&sums(&[-4.5]))), "016008ee02c0104401");
        let widest = bytes(&sums(&[f64::MAX, f64::from_bits(1), -1.0]));
        assert_eq!(hex(&widest[..3]), "070100");
    }

    #[test]
    fn no_second_spelling_is_decoded() {
        let refused = |sum: &[u8], squares: &[u8]| {
            let all = [sum, squares].concat();
            let mut rest = all.as_slice();
            let error = Sums::decode(&mut rest).expect_err("should be refused");
            assert_eq!(rest, all, "the slice stays");
            error.0
        };
        let header = |count: u32, offset: u32| (count | offset << 12).to_le_bytes()[..3].to_vec();
        let number =
            |digits: &[u8], offset: u32| [&header(digits.len() as u32, offset), digits].concat();
        let one = number(&[1], 200);
        let zero = number(&[], 0);
        assert_eq!(refused(&[], &[]), "no room for a header");
        assert_eq!(refused(&one, &[0, 0]), "no room for a header");
        assert_eq!(refused(&header(2, 0), &[1]), "fewer digits than the header says");
        assert_eq!(refused(&header(4095, 0), &[1; 4000]), "fewer digits than the header says");
        assert_eq!(refused(&header(0, 1), &one), "zero has no offset");
        assert_eq!(refused(&number(&[0, 1], 9), &one), "digits begin with a zero");
        assert_eq!(refused(&number(&[0], 9), &one), "digits begin with a zero");
        let copy = "digits end with a copy of the sign";
        assert_eq!(refused(&number(&[1, 0], 9), &one), copy);
        assert_eq!(refused(&number(&[0x81, 0xff], 9), &one), copy);
        let range = "digits outside the range of doubles";
        assert_eq!(refused(&number(&[1], 272), &one), range);
        assert_eq!(refused(&number(&[1; 300], 0), &one), range);
        assert_eq!(refused(&one, &number(&[1], 536)), range);
        let count = "more than a count of doubles can sum to";
        assert_eq!(refused(&number(&[0x7f], 271), &one), count);
        assert_eq!(refused(&number(&[0x80], 271), &one), count);
        assert_eq!(refused(&zero, &number(&[0xff], 300)), "a sum of squares is not negative");
        assert_eq!(
            refused(&number(&[1], 140), &zero),
            "squares that sum to zero leave nothing but zeros to sum"
        );
        assert!(Sums::decode(&mut [number(&[0x3f], 271), one].concat().as_slice()).is_ok());
    }

    #[test]
    fn decoding_takes_one_value_and_leaves_the_rest() {
        let mut all = bytes(&sums(&[1.5]));
        all.extend(bytes(&sums(&[1e300, 2.0])));
        all.push(7);
        let mut rest = all.as_slice();
        assert_eq!(Sums::decode(&mut rest), Ok(sums(&[1.5])));
        assert_eq!(Sums::decode(&mut rest), Ok(sums(&[2.0, 1e300])));
        assert_eq!(rest, [7]);
    }

    #[test]
    fn what_was_wide_and_fits_again_decodes_narrow() {
        let mut sums = sums(&[2.5, -1e-20]);
        assert!(!is_narrow(&sums));
        // The squares of small terms stay; only a merge could take them out. So build the value.
        let State::Wide(pair) = &mut sums.0 else { panic!("wide") };
        pair.sum = Fixed::ZERO;
        pair.squares = Fixed::ZERO;
        assert_eq!(sums, Sums::default());
        sums.add(-2.5);
        assert!(!is_narrow(&sums));
        let mut narrow = Sums::default();
        narrow.add(-2.5);
        assert_eq!(sums, narrow);
        assert_eq!(narrow, sums);
        assert_eq!(bytes(&sums), bytes(&narrow));
        let back = Sums::decode(&mut bytes(&sums).as_slice()).expect("own bytes");
        assert!(is_narrow(&back));
        assert_ne!(sums, Sums::default());
    }

    /// Prices, whole numbers, ends of the range, powers of two, and any finite bits.
    fn double() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (-10_000_000i32..10_000_000).prop_map(|cents| f64::from(cents) / 100.0),
            1 => any::<i32>().prop_map(f64::from),
            2 => prop::sample::select(vec![
                0.0, -0.0, f64::MAX, -f64::MAX, f64::MIN_POSITIVE, -f64::MIN_POSITIVE,
                f64::from_bits(1), -f64::from_bits(1), 1e300, -1e300, 1e16, 1.0, -1e16, 0.1,
            ]),
            2 => (-1074..1024i32, any::<bool>()).prop_map(|(exponent, minus)| {
                let size = 2f64.powi(exponent / 2) * 2f64.powi(exponent - exponent / 2);
                if minus { -size } else { size }
            }),
            2 => any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |x| x.is_finite()),
        ]
    }

    /// Doubles that fit the narrow windows.
    fn moderate() -> impl Strategy<Value = f64> {
        (-1i64 << 53..1 << 53, -82..13i32).prop_map(|(m, e)| m as f64 * 2f64.powi(e))
    }

    fn doubles() -> impl Strategy<Value = Vec<f64>> {
        prop_oneof![
            prop::collection::vec(double(), 0..24),
            prop::collection::vec(moderate(), 0..24),
            prop::collection::vec(
                (-1_000_000i32..1_000_000).prop_map(|c| f64::from(c) / 100.0),
                0..24
            ),
        ]
    }

    /// Merges neighbours picked by `picks` until one is left.
    fn merged(mut parts: Vec<Sums>, picks: &[prop::sample::Index]) -> Sums {
        for pick in picks.iter().cycle() {
            if parts.len() < 2 {
                break;
            }
            let from = parts.swap_remove(pick.index(parts.len()));
            let into = pick.index(parts.len());
            parts[into].merge(&from);
        }
        parts.pop().unwrap_or_default()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn reads_agree_with_the_reference(values in doubles()) {
            check_against_reference(&values);
        }

        #[test]
        fn neither_order_nor_merges_leave_a_trace(
            (values, shuffled) in doubles()
                .prop_flat_map(|values| (Just(values.clone()), Just(values).prop_shuffle())),
            cuts in prop::collection::vec(1usize..5, 1..8),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 1..30),
        ) {
            let whole = sums(&values);
            let mut parts = Vec::new();
            let mut left = shuffled.as_slice();
            for cut in cuts.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (part, rest) = left.split_at((*cut).min(left.len()));
                parts.push(sums(part));
                left = rest;
            }
            let other = merged(parts, &picks);
            prop_assert_eq!(&whole, &other);
            prop_assert_eq!(bytes(&whole), bytes(&other));
            prop_assert_eq!(whole.var_pop(7), other.var_pop(7));
        }

        #[test]
        fn wide_and_narrow_are_the_same(values in doubles()) {
            let narrow = sums(&values);
            let mut wide = Sums::default();
            wide.widen();
            for &x in &values {
                wide.add(x);
            }
            let n = values.len() as u64;
            prop_assert_eq!(&wide, &narrow);
            prop_assert_eq!(&narrow, &wide);
            prop_assert_eq!(bytes(&wide), bytes(&narrow));
            prop_assert_eq!(wide.sum(), narrow.sum());
            prop_assert_eq!(wide.sum_of_squares(), narrow.sum_of_squares());
            prop_assert_eq!(wide.mean(n), narrow.mean(n));
            prop_assert_eq!(wide.var_samp(n), narrow.var_samp(n));
        }

        #[test]
        fn moderate_doubles_stay_narrow(values in prop::collection::vec(moderate(), 0..24)) {
            prop_assert!(is_narrow(&sums(&values)));
        }

        #[test]
        fn bytes_come_back_as_the_value(values in doubles()) {
            let before = sums(&values);
            let all = bytes(&before);
            let mut rest = all.as_slice();
            let after = Sums::decode(&mut rest).expect("own bytes");
            prop_assert!(rest.is_empty());
            prop_assert_eq!(&after, &before);
            prop_assert_eq!(bytes(&after), all);
            prop_assert!(is_narrow(&after) || !is_narrow(&before));
        }

        #[test]
        fn different_sums_are_unequal(values in doubles(), x in double()) {
            let x = if x == 0.0 { 1.0 } else { x };
            let before = sums(&values);
            let mut after = before.clone();
            after.add(x);
            prop_assert_ne!(&after, &before);
            prop_assert_ne!(bytes(&after), bytes(&before));
        }

        #[test]
        fn strange_bytes_are_refused_or_canonical(
            bytes_in in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                // Headers that lead somewhere.
                (0u32..20, 0u32..280, 0u32..40, 0u32..560, prop::collection::vec(any::<u8>(), 70))
                    .prop_map(|(count, offset, count2, offset2, digits)| {
                        let mut all = (count | offset << 12).to_le_bytes()[..3].to_vec();
                        all.extend(&digits[..count as usize]);
                        all.extend(&(count2 | offset2 << 12).to_le_bytes()[..3]);
                        all.extend(&digits[30..30 + count2 as usize]);
                        all
                    }),
            ],
            n in any::<u64>(),
        ) {
            let mut rest = bytes_in.as_slice();
            match Sums::decode(&mut rest) {
                Err(_) => prop_assert_eq!(rest, bytes_in.as_slice()),
                Ok(mut sums) => {
                    let used = bytes_in.len() - rest.len();
                    prop_assert_eq!(bytes(&sums), &bytes_in[..used]);
                    prop_assert!(sums.var_pop(n).is_none_or(|var| var >= 0.0));
                    prop_assert!(sums.var_samp(n).is_none_or(|var| var >= 0.0));
                    prop_assert!(!sums.sum().is_nan());
                    prop_assert!(sums.mean(n).is_none_or(|mean| !mean.is_nan()));
                    sums.add(-f64::MAX);
                    sums.merge(&sums.clone());
                }
            }
        }
    }
}
