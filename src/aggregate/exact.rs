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
//! 3. **Headroom.** At full width a sum has 2240 bits and doubles reach 2^2098 units; squares have
//!    4352 bits and reach 2^4196. More than 2^128 additions fit: as many events as there can be
//!    positions, each of which counts for as many as a `u64` can name.
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
//! Anything else costs 824 bytes on the heap, once. An addition is one multiplication and two
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
const WIDE_SUM_LIMBS: usize = 35;
const WIDE_SQUARES_LIMBS: usize = 68;

/// Limbs that hold `nQ` and `S²` at full width: 68 + 1, and 2 × 35.
const PRODUCT_LIMBS: usize = 70;

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
/// windows. 80 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    value: f64,
    /// Whether the value is narrow; `pair` means nothing where it is not.
    narrow: bool,
    pair: Narrow,
}

impl Measure {
    /// "Not measured": NaN, which no event can carry.
    pub(crate) const NONE: Measure = Measure { value: f64::NAN, narrow: false, pair: Pair::ZERO };

    #[inline]
    pub(crate) fn new(value: f64) -> Self {
        let term = Term::of(value);
        let fits = term.is_narrow() & !value.is_nan();
        // Where it does not, any position in the windows does: zero is zero there, too, and what is
        // made of others is not looked at.
        let position = if fits { term.position } else { NARROW_POSITIONS.start };
        let narrow = fits || value == 0.0;
        Measure { value, narrow, pair: Narrow::of(Term { position, ..term }) }
    }

    #[inline]
    pub(crate) fn value(&self) -> f64 {
        self.value
    }
}

impl Sums {
    /// Adds what [`Sums::add`] does, with the taking apart done before. Gives the bytes by which that
    /// grew on the heap.
    #[inline]
    pub(crate) fn add_measure(&mut self, measure: &Measure) -> usize {
        if let State::Narrow(pair) = &mut self.0
            && measure.narrow
            && pair.add_pair(&measure.pair)
        {
            return 0;
        }
        self.add_measure_elsewhere(measure)
    }

    /// What was added without leaving room goes to full width; what was not is added.
    #[cold]
    fn add_measure_elsewhere(&mut self, measure: &Measure) -> usize {
        let before = self.heap_bytes();
        match &self.0 {
            State::Narrow(_) if measure.narrow => {
                self.widen();
            }
            _ => self.add(measure.value),
        }
        self.heap_bytes() - before
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

impl Narrow {
    /// What [`merge`](Pair::merge) does, of a pair in the same windows: for each event in each view.
    #[inline]
    fn add_pair(&mut self, other: &Self) -> bool {
        self.sum.add_same(&other.sum);
        self.squares.add_same(&other.squares);
        self.has_room()
    }

    /// A term that lies in the windows, and its square. Without a branch: much is taken apart.
    #[inline]
    fn of(term: Term) -> Self {
        let significand = u128::from(term.significand);
        Pair {
            sum: Fixed::of::<SUM_WORDS>(significand, term.position, term.negative),
            squares: Fixed::of::<SQUARES_WORDS>(
                significand * significand,
                2 * term.position,
                false,
            ),
        }
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
    fn add_shifted<const WORDS: usize>(
        &mut self,
        magnitude: u128,
        position: usize,
        negative: bool,
    ) {
        let (words, at) = Self::placed(magnitude, position);
        // -a = !a + 1, and the 1 carries through all the zeros below `words`.
        let fill = u64::from(negative).wrapping_neg();
        let words: [u64; WORDS] = std::array::from_fn(|word| words[word] ^ fill);
        add_limbs(&mut self.0[at..], &words, fill, negative);
    }

    /// The number that adding that to zero gives.
    #[inline]
    fn of<const WORDS: usize>(magnitude: u128, position: usize, negative: bool) -> Self {
        let (words, at) = Self::placed(magnitude, position);
        debug_assert!(at + WORDS <= N, "a term lies in the window");
        // Each is chosen, not put at its place: an array that is written so would be read in other pieces at once, for
        // which a processor waits.
        let limbs: [u64; N] = std::array::from_fn(|limb| {
            let chosen = |word: usize| if limb == at + word { words[word] } else { 0 };
            (0..WORDS).fold(0, |limb, word| limb | chosen(word))
        });
        let fill = u64::from(negative).wrapping_neg();
        let mut carry = negative;
        Self(limbs.map(|limb| {
            let (sum, over) = (limb ^ fill).overflowing_add(u64::from(carry));
            carry = over;
            sum
        }))
    }

    /// The words of `magnitude · 2^position` from the limb that `position` points into, and that
    /// limb.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "takes the low and the high half")]
    fn placed(magnitude: u128, position: usize) -> ([u64; 3], usize) {
        let position = position - FIRST * LIMB_BITS;
        let shift = position % LIMB_BITS;
        let (low, high) = (magnitude as u64, (magnitude >> LIMB_BITS) as u64);
        // In two steps, as no single shift takes out all 64 bits when `shift` is 0.
        let over = |word: u64| (word >> 1) >> (LIMB_BITS - 1 - shift);
        ([low << shift, (high << shift) | over(low), over(high)], position / LIMB_BITS)
    }

    /// Adds a number whose window lies within this one.
    #[inline]
    fn merge<const M: usize, const OTHER_FIRST: usize>(&mut self, other: &Fixed<M, OTHER_FIRST>) {
        add_limbs(&mut self.0[OTHER_FIRST - FIRST..], &other.0, other.fill(), false);
    }

    /// The same of a number in the same window: a chain of additions, without a branch.
    #[inline]
    fn add_same(&mut self, other: &Self) {
        let mut carry = false;
        for limb in 0..N {
            (self.0[limb], carry) = self.0[limb].carrying_add(other.0[limb], carry);
        }
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
        // No log has that many events (invariant 3), and two such numbers might not add up.
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
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "at most 70 limbs")]
const fn bits_of(limbs: usize) -> i32 {
    (limbs * LIMB_BITS) as i32
}

/// `limbs += words + carry`, where `fill` stands above `words` for ever. What leaves `limbs` at
/// the top is dropped, and there are at least as many as `words`.
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
mod tests;
