//! How many different items: exact while they are few, then `UltraLogLog`.
//!
//! Invariants
//! 1. A state is a function of the set of the items' tokens (`distinct/token.rs`: 40 bits of a hash) and of the
//!    precision, in memory as in bytes: whatever the order, the grouping, the copies.
//! 2. Up to [`tokens_max`] tokens it holds the tokens in order (`ordered.rs`), above it registers
//!    (`distinct/registers.rs`) and nothing else. As tokens say what their hashes say to registers, these are
//!    those of the items, at this and any lower precision.
//! 3. A union has the lower precision of the two. The empty state of the default precision is
//!    neutral: it stands for "none chosen".
//!
//! The number of tokens is the answer up to there; that it is wrong, by one, because two items have one
//! token, has a probability of less than 1e-4 up to 14,829 items (derived in `distinct/token.rs`), and
//! above it the upper bound says so. Precisions up to 12 have 1,024 tokens all the same, so that every
//! one is exact to a thousand.
//!
//! ```text
//! distinct  := head tokens | head registers
//! head      := precision (1 byte), and 128 with registers
//! tokens    := count (LEB128) · gaps of 40 bits      gaps.rs
//! registers := 2^precision bytes
//! ```
//!
//! Sources: O. Ertl, "`UltraLogLog`", PVLDB 17/7, 2024 (arXiv:2308.16862) for registers and estimate; O. Ertl,
//! "`ExaLogLog`", EDBT 2025 (arXiv:2402.13726), "sparse mode", for tokens. What decided: of 25 implementations in
//! one run no other had so small an error a byte at 3 ns an item; `HyperLogLog` needs 28 % more for the same
//! error, those with fewer bytes 12 ns, and the states of those that are updated as they are estimated
//! (martingale, HIP) depend on the order. Figures of this one: [the guide](crate::guide::sketches).
//! Next: `aggregate/theta.rs`, which is for questions about several sets.

#[cfg(feature = "datasketches")]
mod hll;
mod registers;
#[cfg(test)]
mod tests;
mod token;

use super::ordered::{FEW, Ordered, Owner, union};
use super::{Aggregate, Approx, Malformed, gaps, hash};
use crate::codec;
use crate::error::{Error, Result};
use crate::time::Timestamp;
use std::num::NonZeroU8;

const PRECISION_MIN: u8 = 4;
const PRECISION_MAX: u8 = 18;
/// 4 KiB of registers, 1.2 % of standard error.
const PRECISION_DEFAULT: u8 = Distinct::PRECISION;
/// So many are exact at every precision.
const TOKENS_MIN: usize = 1_024;
/// The registers that take the memory of one token, tables being 7/8 full at most.
const REGISTERS_OF_A_TOKEN: usize = 6;
/// Up to so many tokens the probability that two items have one is below 1e-4.
const SURE_MAX: usize = 14_829;
/// In the head: registers follow.
const REGISTERS: u8 = 1 << 7;
/// As many hashes as there are.
const HASHES: f64 = 18_446_744_073_709_551_616.0;

/// The most tokens that a state of this precision holds.
fn tokens_max(precision: u8) -> usize {
    ((1 << precision) / REGISTERS_OF_A_TOKEN).max(TOKENS_MIN)
}

/// How many different items were observed, exactly up to 1,024 and within bounds above.
///
/// A state is exact while it holds few items: up to 1,024, or a sixth of 2^precision where that is more
/// (2,730 at 14). Then it takes 2^precision bytes for good, and its estimate has a relative standard error of
/// 0.761 / √2^precision: 1.2 % at the default, 12; 0.6 % at 14. An empty one takes 24 bytes, one with ten
/// items 104, one with fifty 296. An item is known by 40 bits of its hash; that a thousand items are not
/// counted as so many has a probability of 5e-7.
///
/// Merging gives the union, at the lower of the two precisions, and the same bytes as if one state had
/// observed everything. Bounds are for items that nobody chose by their hashes, which have no secret.
///
/// ```
/// use quipu::aggregate::{Aggregate, Distinct};
///
/// let mut monday = Distinct::new(14)?;
/// let mut tuesday = Distinct::new(14)?;
/// for user in ["ann", "bob", "ann"] {
///     monday.insert(user.as_bytes());
/// }
/// (0..100_000_u32).for_each(|user| tuesday.insert(&user.to_le_bytes()));
/// assert!(monday.estimate().is_exact() && monday.estimate().value == 2.0);
///
/// let mut both = monday.clone();
/// both.merge(&tuesday);
/// let users = both.estimate();
/// assert!(users.lower < 100_002.0 && 100_002.0 < users.upper);
/// assert!(users.upper / users.lower < 1.025);
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Distinct {
    form: Form,
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    /// The owner's word in them is the precision.
    Tokens(Ordered<5, NonZeroU8>),
    Registers(Box<[u8]>),
}

impl Distinct {
    /// The precision where none is chosen.
    pub const PRECISION: u8 = 12;

    /// An empty state, whose registers will take 2^precision bytes. One of the default precision takes the
    /// precision of whatever it is merged with as long as it is empty.
    ///
    /// # Errors
    /// `InvalidArgument` unless the precision is 4 to 18.
    ///
    /// ```
    /// use quipu::aggregate::Distinct;
    ///
    /// assert_eq!(Distinct::new(14)?.precision(), 14);
    /// assert!(Distinct::new(19).is_err());
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn new(precision: u8) -> Result<Self> {
        if !(PRECISION_MIN..=PRECISION_MAX).contains(&precision) {
            return Err(Error::invalid(format!(
                "a precision of {precision}: it is {PRECISION_MIN} to {PRECISION_MAX}"
            )));
        }
        Ok(Self::of_precision(precision))
    }

    /// The same for a precision that was checked.
    pub(crate) fn of_precision(precision: u8) -> Self {
        Distinct { form: Form::Tokens(Ordered::new(word(precision))) }
    }

    /// Registers are 2^precision.
    pub fn precision(&self) -> u8 {
        match &self.form {
            Form::Tokens(tokens) => tokens.meta.get(),
            Form::Registers(registers) => registers.len().trailing_zeros() as u8,
        }
    }

    /// Whether nothing was observed.
    pub fn is_empty(&self) -> bool {
        matches!(&self.form, Form::Tokens(tokens) if tokens.len() == 0)
    }

    /// Observes an item, which is its bytes.
    #[inline]
    pub fn insert(&mut self, item: &[u8]) {
        self.insert_hash(hash::hash(item));
    }

    /// Observes the item of a hash.
    #[inline]
    pub(crate) fn insert_hash(&mut self, hash: u64) {
        match &mut self.form {
            Form::Registers(registers) => registers::update(registers, hash),
            Form::Tokens(_) => self.insert_token(token::of(hash)),
        }
    }

    fn insert_token(&mut self, token: u64) {
        let Form::Tokens(tokens) = &mut self.form else {
            return self.insert_hash(token::hash(token));
        };
        let limit = tokens_max(tokens.meta.get());
        if tokens.len() < limit {
            tokens.insert(token, limit);
        } else if !tokens.contains(token) {
            let mut registers = registers_of(tokens.iter(), tokens.meta.get());
            registers::update(&mut registers, token::hash(token));
            self.form = Form::Registers(registers);
        }
    }

    /// The same items at a precision that is not higher.
    fn reduce(&mut self, precision: u8) {
        if self.precision() <= precision {
            return;
        }
        self.form = match &self.form {
            Form::Registers(registers) => {
                Form::Registers(registers::reduced(registers, precision.into()))
            }
            Form::Tokens(tokens) => {
                let (count, limit) = (tokens.len(), tokens_max(precision));
                if count > limit {
                    Form::Registers(registers_of(tokens.iter(), precision))
                } else {
                    let meta = word(precision);
                    Form::Tokens(Ordered::from_ascending(tokens.iter(), count, limit, meta))
                }
            }
        };
    }

    fn merge_tokens(&mut self, other: &Ordered<5, NonZeroU8>) {
        match &mut self.form {
            Form::Registers(registers) => fold(registers, other.iter()),
            Form::Tokens(own) if other.len() > FEW => {
                let limit = tokens_max(own.meta.get());
                let both = union(own.iter(), other.iter());
                let count = both.clone().take(limit + 1).count();
                self.form = if count > limit {
                    Form::Registers(registers_of(both, own.meta.get()))
                } else {
                    Form::Tokens(Ordered::from_ascending(both, count, limit, own.meta))
                };
            }
            Form::Tokens(_) => other.iter().for_each(|token| self.insert_token(token)),
        }
    }

    /// How many different items there were: exactly, while there are few.
    ///
    /// Linear in 2^precision when they are many: 10 microseconds at 14.
    pub fn estimate(&self) -> Approx {
        match &self.form {
            Form::Tokens(tokens) => {
                let number = tokens.len() as f64;
                if tokens.len() <= SURE_MAX {
                    return Approx::exact(number);
                }
                // Two pairs of items with one token each have a probability of 4e-7 at the most.
                Approx { upper: number + 1.0, confidence: 0.999_999, ..Approx::exact(number) }
            }
            Form::Registers(registers) => {
                let least = (tokens_max(self.precision()) + 1) as f64;
                let number = registers::estimate(registers).clamp(least, HASHES);
                Approx::relative(number, self.standard_error(), least)
            }
        }
    }

    /// The relative standard error of [`estimate`](Self::estimate) once it is not exact any more.
    pub fn standard_error(&self) -> f64 {
        registers::standard_error(self.precision())
    }

    fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        union.merge(other);
        union
    }

    /// The number of items, and the square of its standard error.
    fn number(&self) -> (f64, f64) {
        let value = self.estimate().value;
        let exact = matches!(self.form, Form::Tokens(_));
        (value, if exact { 0.0 } else { (value * self.standard_error()).powi(2) })
    }

    /// How many items both have observed.
    ///
    /// Exact while both are. Else what both have is told from the sizes of the two and of their union
    /// (inclusion and exclusion), with an error that is a part of the *union*: of little use where
    /// few are common to many. [`Theta`](super::Theta) is made for that.
    ///
    /// ```
    /// use quipu::aggregate::Distinct;
    ///
    /// let (mut carts, mut sales) = (Distinct::default(), Distinct::default());
    /// (0..60_u32).for_each(|user| carts.insert(&user.to_le_bytes()));
    /// (50..90_u32).for_each(|user| sales.insert(&user.to_le_bytes()));
    /// assert_eq!(carts.intersection(&sales).value, 10.0);
    /// assert_eq!(carts.difference(&sales).value, 50.0);
    /// assert_eq!(carts.jaccard(&sales).value, 10.0 / 90.0);
    /// ```
    pub fn intersection(&self, other: &Self) -> Approx {
        self.common(other, &self.union(other))
    }

    fn common(&self, other: &Self, union: &Self) -> Approx {
        if let (Form::Tokens(one), Form::Tokens(two)) = (&self.form, &other.form) {
            let common = one.iter().filter(|token| two.contains(*token)).count();
            return of_tokens(common, one.len().max(two.len()));
        }
        // What registers were told before leaves them as they are.
        let most_of = |a: &Self, b: &Self| a.maybe_in(b).unwrap_or(a.estimate().upper);
        let most = most_of(self, other).min(most_of(other, self));
        let ((one, error_one), (two, error_two)) = (self.number(), other.number());
        let (all, error_all) = union.number();
        bounded(one + two - all, error_one + error_two + error_all, 0.0, most)
    }

    /// How many of a few items others, that are many, may have been; more cannot have.
    fn maybe_in(&self, other: &Self) -> Option<f64> {
        match (&self.form, &other.form) {
            (Form::Tokens(few), Form::Registers(many)) => {
                let may = few.iter().filter(|token| registers::has(many, token::hash(*token)));
                Some(may.count() as f64)
            }
            _ => None,
        }
    }

    /// How many items this one has observed and the other has not. What is said of
    /// [`intersection`](Self::intersection) holds here.
    pub fn difference(&self, other: &Self) -> Approx {
        if let (Form::Tokens(one), Form::Tokens(two)) = (&self.form, &other.form) {
            let own = one.iter().filter(|token| !two.contains(*token)).count();
            return of_tokens(own, one.len().max(two.len()));
        }
        let ((all, error_all), (two, error_two)) = (self.union(other).number(), other.number());
        let own = self.estimate();
        let least = self.maybe_in(other).map_or(0.0, |may| own.value - may);
        bounded(all - two, error_all + error_two, least, own.upper)
    }

    /// What part of all items of both is common to both, from 0 to 1; 0 where there is none.
    pub fn jaccard(&self, other: &Self) -> Approx {
        let union = self.union(other);
        let common = self.common(other, &union);
        if let (Form::Tokens(one), Form::Tokens(two)) = (&self.form, &other.form) {
            let of = |common: f64| {
                let all = (one.len() + two.len()) as f64 - common;
                (common / all.max(1.0)).min(1.0)
            };
            return Approx {
                value: of(common.value),
                lower: of(common.lower),
                upper: of(common.upper),
                confidence: common.confidence,
            };
        }
        let all = union.estimate();
        Approx {
            value: (common.value / all.value).min(1.0),
            lower: (common.lower / all.upper).min(1.0),
            upper: (common.upper / all.lower).min(1.0),
            confidence: 0.95,
        }
    }

    /// Whether it is the empty state of the default precision (invariant 3).
    fn is_neutral(&self) -> bool {
        self.is_empty() && self.precision() == PRECISION_DEFAULT
    }
}

/// A precision as tables of tokens carry it.
fn word(precision: u8) -> NonZeroU8 {
    NonZeroU8::new(precision).expect("precisions are 4 to 18")
}

impl Owner for NonZeroU8 {}

/// What tokens leave as registers.
fn registers_of(tokens: impl Iterator<Item = u64>, precision: u8) -> Box<[u8]> {
    let mut registers = vec![0; 1 << precision].into_boxed_slice();
    fold(&mut registers, tokens);
    registers
}

fn fold(registers: &mut [u8], tokens: impl Iterator<Item = u64>) {
    tokens.for_each(|token| registers::update(registers, token::hash(token)));
}

/// An estimate that lies between two numbers, with the square of its standard error.
fn bounded(value: f64, error: f64, least: f64, most: f64) -> Approx {
    let value = value.clamp(least, most.max(least));
    let bounds = Approx::normal(value, error.sqrt(), least);
    Approx { upper: bounds.upper.min(most.max(least)), ..bounds }
}

impl Default for Distinct {
    /// Empty, of precision 12. Merged with any state it is that state, whatever its precision.
    fn default() -> Self {
        Self::of_precision(PRECISION_DEFAULT)
    }
}

/// A number of tokens out of so many, which is that of their items where these are few enough to be told
/// apart for certain.
fn of_tokens(number: usize, of: usize) -> Approx {
    let number = number as f64;
    if of <= SURE_MAX {
        return Approx::exact(number);
    }
    let (lower, upper) = ((number - 1.0).max(0.0), number + 1.0);
    Approx { value: number, lower, upper, confidence: 0.999_999 }
}

impl Aggregate for Distinct {
    /// An item's bytes: of a text its UTF-8.
    type Input<'a> = &'a [u8];

    #[inline]
    fn observe(&mut self, item: &[u8], _time: Timestamp) {
        self.insert(item);
    }

    fn merge(&mut self, other: &Self) {
        if other.is_neutral() {
            return;
        }
        if self.is_neutral() {
            self.clone_from(other);
            return;
        }
        self.reduce(other.precision());
        match &other.form {
            Form::Tokens(tokens) => self.merge_tokens(tokens),
            Form::Registers(registers) => {
                let precision = self.precision();
                let same = other.precision() == precision;
                let reduced = (!same).then(|| registers::reduced(registers, precision.into()));
                let registers = reduced.as_ref().unwrap_or(registers);
                if let Form::Tokens(tokens) = &self.form {
                    self.form = Form::Registers(registers_of(tokens.iter(), precision));
                }
                if let Form::Registers(own) = &mut self.form {
                    registers::merge(own, registers);
                }
            }
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match &self.form {
            Form::Tokens(tokens) => {
                out.push(tokens.meta.get());
                codec::put_u64(out, tokens.len() as u64);
                gaps::put(out, tokens.iter(), tokens.len(), token::TOKEN_BITS);
            }
            Form::Registers(registers) => {
                out.push(self.precision() | REGISTERS);
                out.extend_from_slice(registers);
            }
        }
    }

    fn decode(bytes: &mut &[u8]) -> std::result::Result<Self, Malformed> {
        let [head] = codec::take_array(bytes)?;
        let precision = head & !REGISTERS;
        if !(PRECISION_MIN..=PRECISION_MAX).contains(&precision) {
            return Err(Malformed("a count of different items has no precision of 4 to 18"));
        }
        if head & REGISTERS != 0 {
            let registers = codec::take(bytes, 1 << precision)?;
            if !registers::are_registers(registers) {
                return Err(Malformed("registers are none that items leave"));
            }
            return Ok(Distinct { form: Form::Registers(registers.into()) });
        }
        let (count, limit) = (codec::take_u64(bytes)? as usize, tokens_max(precision));
        if count > limit {
            return Err(Malformed("more tokens than the precision has"));
        }
        let tokens = gaps::take(bytes, count, token::TOKEN_BITS, token::is_token)?;
        let tokens = Ordered::from_ascending(tokens, count, limit, word(precision));
        Ok(Distinct { form: Form::Tokens(tokens) })
    }

    fn heap_bytes(&self) -> usize {
        match &self.form {
            Form::Tokens(tokens) => tokens.heap_bytes(),
            Form::Registers(registers) => registers.len(),
        }
    }
}
