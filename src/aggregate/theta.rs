//! Sets that can be asked about together: a sample of the items, those with the least hashes.
//!
//! Invariants
//! 1. A state holds the `k + 1` least hashes of all items, or all, where there are no more than `k`: a
//!    function of the set and of `k`, in memory as in bytes.
//! 2. *θ* is the greatest of them, as a part of 2^64, once there are `k + 1`, and else 1. Of all items
//!    those below θ are here, the *sample*, and an item is in it with probability θ.
//! 3. A union has the lower `k` of the two. The empty state of the default `k` is neutral.
//!
//! Of several sketches the least θ counts: below it each knows all its items, so of every hash there it is
//! known which sets have it. A question that is a formula of sets (these all, and none of those) is
//! answered by the number `c` of hashes below θ for which it is true, as `c / θ`. For one set that
//! is `k / θ`, which is not biased.
//!
//! K. Beyer et al., "On synopses for distinct-value estimation under multiset operations", SIGMOD 2007
//! (bottom-k samples, their union, multiset formulas); A. Dasgupta, K. Lang, L. Rhodes and J. Thaler, "A
//! framework for estimating stream expression cardinalities", ICDT 2016 (θ as the k + 1st hash,
//! arXiv:1510.01455). *Error:* c is binomial with n and θ, so bounds are those n at which c lies 1.96
//! standard deviations off, `y / θ` with `y = c + z²q/2 ± z√(cq + z²q²/4)`, q = 1 - θ; relative standard
//! error 1 / √c, 1 / √k for a whole set (1.6 % at 4,096).
//!
//! What decided (`cargo bench --bench distinct`, sets of several): of 1 % common to two sets of a million
//! the error is 19 % here with k = 4,096 (37 KB; 22 % by the theory), and 78 % by inclusion and exclusion of two
//! `UltraLogLogs` of 16 KB, whose error is a part of the union and not of what is asked. One set alone is
//! better counted by `distinct.rs`, which takes a sixteenth of the memory for the same error.
//!
//! ```text
//! theta := k (LEB128) · count (LEB128) · [zeros (1 byte)] · gaps of 64 - zeros bits     gaps.rs
//! ```
//!
//! zeros, with which the greatest hash begins, only where count = k + 1.

use super::ordered::{FEW, Ordered, Owner, union};
use super::{Aggregate, Approx, Malformed, gaps, hash};
use crate::codec;
use crate::error::{Error, Result};
use crate::time::Timestamp;
use std::iter::Peekable;

const K_MIN: u16 = 64;
const K_MAX: u16 = 16_384;
const K_DEFAULT: u16 = Theta::K;
/// As many hashes as there are.
const HASHES: f64 = 18_446_744_073_709_551_616.0;
/// 95 of a hundred lie within so many standard deviations.
const Z: f64 = 1.96;

/// Which items were observed, for questions about several sets: "who did A and B, but not C".
///
/// Exact while no set has more than `k` items; then an answer has a relative standard error of 1 / √c,
/// c being the number of items in the sample that it counts: of `k` for a whole set, of `k / 10` for a tenth of
/// all that are asked about together. Takes 8 to 12 bytes an item up to `k` (37 KB at 4,096, the default),
/// 5 to 7 stored.
///
/// ```
/// use quipu::aggregate::Theta;
///
/// let visitors = |range: std::ops::Range<u32>| -> quipu::Result<Theta> {
///     let mut visitors = Theta::new(4_096)?;
///     range.for_each(|user| visitors.insert(&user.to_le_bytes()));
///     Ok(visitors)
/// };
/// let (a, b, c) = (visitors(0..60_000)?, visitors(30_000..90_000)?, visitors(40_000..41_000)?);
/// let both = a.intersection(&b);
/// assert!(both.lower < 30_000.0 && 30_000.0 < both.upper);
/// let both_not_c = Theta::in_all_and_none(&[&a, &b], &[&c]);
/// assert!(both_not_c.lower < 29_000.0 && 29_000.0 < both_not_c.upper);
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Theta {
    hashes: Ordered<8, Scale>,
    /// The greatest hash where there are `k + 1`; hashes from it on change nothing.
    bound: u64,
    k: u16,
}

/// Up to where hashes go: 2^64, by so many bits less, times so many eighths. As `k + 1` of them always
/// fill the table, homes must follow the bound; so that they seldom have to, in steps.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    zeros: u8,
    eighths: u8,
}

impl Scale {
    const WHOLE: Scale = Scale { zeros: 0, eighths: 8 };

    /// The least that has room for this hash.
    fn of(greatest: u64) -> Self {
        let zeros = greatest.leading_zeros() as u8;
        Scale { zeros, eighths: (greatest << zeros >> 61) as u8 + 1 }
    }
}

impl Owner for Scale {
    #[inline]
    fn home(self, aligned: u64, slots: usize) -> usize {
        let slots = match self.eighths {
            5 => slots * 8 / 5,
            6 => slots * 8 / 6,
            7 => slots * 8 / 7,
            _ => slots,
        };
        ((u128::from(aligned << self.zeros) * slots as u128) >> 64) as usize
    }
}

impl Theta {
    /// The size of the sample where none is chosen.
    pub const K: u16 = 4_096;

    /// An empty state that holds the `k` least hashes, and one more. One of the default size takes the size
    /// of whatever it is merged with as long as it is empty.
    ///
    /// # Errors
    /// `InvalidArgument` unless `k` is 64 to 16,384.
    pub fn new(k: u16) -> Result<Self> {
        if !(K_MIN..=K_MAX).contains(&k) {
            return Err(Error::invalid(format!("a sample of {k}: it is {K_MIN} to {K_MAX}")));
        }
        Ok(Self::of_k(k))
    }

    /// The same for a size that was checked.
    pub(crate) fn of_k(k: u16) -> Self {
        Theta { hashes: Ordered::new(Scale::WHOLE), bound: u64::MAX, k }
    }

    /// The state of hashes that ascend, of which it takes as many as it may have.
    fn of_hashes(k: u16, hashes: impl Iterator<Item = u64> + Clone) -> Self {
        let hashes = hashes.take(limit(k));
        let (count, greatest) = (hashes.clone().count(), hashes.clone().last());
        let full = greatest.filter(|_| count == limit(k));
        let scale = full.map_or(Scale::WHOLE, Scale::of);
        let hashes = Ordered::from_ascending(hashes, count, limit(k), scale);
        Theta { hashes, bound: full.unwrap_or(u64::MAX), k }
    }

    /// The size of the sample.
    pub fn k(&self) -> u16 {
        self.k
    }

    /// Whether nothing was observed.
    pub fn is_empty(&self) -> bool {
        self.hashes.len() == 0
    }

    /// Observes an item, which is its bytes.
    #[inline]
    pub fn insert(&mut self, item: &[u8]) {
        self.insert_hash(hash::hash(item));
    }

    /// Observes the item of a hash.
    #[inline]
    pub(crate) fn insert_hash(&mut self, hash: u64) {
        // Zero is a free cell, and nothing lies at or above the greatest bound.
        let hash = hash.clamp(1, u64::MAX - 1);
        if hash < self.bound {
            self.insert_below(hash);
        }
    }

    #[inline(never)]
    fn insert_below(&mut self, hash: u64) {
        let limit = limit(self.k);
        if self.hashes.len() < limit {
            if self.hashes.insert(hash, limit) && self.hashes.len() == limit {
                self.lower(|hashes, bound| hashes.greatest().unwrap_or(bound));
            }
        } else if !self.hashes.contains(hash) {
            self.lower(|hashes, bound| hashes.replace_greatest(bound, hash));
        }
    }

    /// Sets the bound, and the scale with it.
    fn lower(&mut self, change: impl FnOnce(&mut Ordered<8, Scale>, u64) -> u64) {
        self.bound = change(&mut self.hashes, self.bound);
        if Scale::of(self.bound) != self.hashes.meta {
            *self = Self::of_hashes(self.k, self.hashes.iter());
        }
    }

    /// How many different items there were: exactly, while there are no more than `k`.
    pub fn estimate(&self) -> Approx {
        Self::in_all_and_none(&[self], &[])
    }

    /// How many items both have observed.
    pub fn intersection(&self, other: &Self) -> Approx {
        Self::in_all_and_none(&[self, other], &[])
    }

    /// How many items this one has observed and the other has not.
    pub fn difference(&self, other: &Self) -> Approx {
        Self::in_all_and_none(&[self], &[other])
    }

    /// How many items all of the first have observed, and none of the second; none, where there are no
    /// first. Linear in `k` for each.
    pub fn in_all_and_none(all: &[&Self], none: &[&Self]) -> Approx {
        let bound = all.iter().chain(none).map(|set| set.bound).min().unwrap_or(u64::MAX);
        let Some((first, others)) = all.split_first() else { return Approx::exact(0.0) };
        // All ascend: one pass through each.
        let [mut others, mut none] = [others, none]
            .map(|sets| sets.iter().map(|set| set.below(bound).peekable()).collect::<Vec<_>>());
        let number = first.below(bound).filter(|hash| {
            others.iter_mut().all(|set| is_next(set, *hash))
                && !none.iter_mut().any(|set| is_next(set, *hash))
        });
        sampled(number.count() as f64, part(bound))
    }

    /// What part of all items of both is common to both, from 0 to 1; 0 where there is none.
    pub fn jaccard(&self, other: &Self) -> Approx {
        let bound = self.bound.min(other.bound);
        let mut others = other.below(bound).peekable();
        let common = self.below(bound).filter(|hash| is_next(&mut others, *hash)).count();
        let all = (self.below(bound).count() + other.below(bound).count() - common) as f64;
        let value = common as f64 / all.max(1.0);
        if part(bound) >= 1.0 {
            return Approx::exact(value);
        }
        // The part of a sample, with bounds as above (E. B. Wilson, JASA 22, 1927).
        let spread = Z * Z / all;
        let center = value + spread / 2.0;
        let half_width = (spread * (value * (1.0 - value) + spread / 4.0)).sqrt();
        Approx {
            value,
            lower: ((center - half_width) / (1.0 + spread)).max(0.0),
            upper: ((center + half_width) / (1.0 + spread)).min(1.0),
            confidence: 0.95,
        }
    }

    /// Up to where the sample goes, and the hashes in it.
    #[cfg(feature = "datasketches")]
    pub(super) fn sample(&self) -> (u64, impl Iterator<Item = u64> + '_) {
        (self.bound, self.below(self.bound))
    }

    /// The hashes below a bound that is not above the own.
    fn below(&self, bound: u64) -> impl Iterator<Item = u64> + Clone + '_ {
        self.hashes.iter().take_while(move |hash| *hash < bound)
    }

    /// Whether it is the empty state of the default `k` (invariant 3).
    fn is_neutral(&self) -> bool {
        self.is_empty() && self.k == K_DEFAULT
    }
}

/// The most hashes that a state holds.
fn limit(k: u16) -> usize {
    usize::from(k) + 1
}

/// Whether a hash is among those that ascend, which are then behind it or at it.
fn is_next(hashes: &mut Peekable<impl Iterator<Item = u64>>, hash: u64) -> bool {
    while hashes.next_if(|next| *next < hash).is_some() {}
    hashes.peek() == Some(&hash)
}

/// The part of all hashes that lies below a bound.
fn part(bound: u64) -> f64 {
    if bound == u64::MAX { 1.0 } else { bound as f64 / HASHES }
}

/// What so many items in a sample of such a part say of the whole.
pub(super) fn sampled(number: f64, part: f64) -> Approx {
    if part >= 1.0 {
        return Approx::exact(number);
    }
    let variance = Z * Z * (1.0 - part);
    let center = number + variance / 2.0;
    let half_width = (variance * (number + variance / 4.0)).sqrt();
    Approx {
        value: number / part,
        lower: ((center - half_width) / part).max(number),
        upper: (center + half_width) / part,
        confidence: 0.95,
    }
}

impl Default for Theta {
    /// Empty, with a sample of 4,096. Merged with any state it is that state, whatever its `k`.
    fn default() -> Self {
        Self::of_k(K_DEFAULT)
    }
}

impl Aggregate for Theta {
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
        if other.k < self.k || other.hashes.len() > FEW {
            let both = union(self.hashes.iter(), other.hashes.iter());
            *self = Self::of_hashes(self.k.min(other.k), both);
        } else {
            other.hashes.iter().for_each(|hash| self.insert_hash(hash));
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let count = self.hashes.len();
        codec::put_u64(out, self.k.into());
        codec::put_u64(out, count as u64);
        let zeros = if count == limit(self.k) { self.hashes.meta.zeros } else { 0 };
        if count == limit(self.k) {
            out.push(zeros);
        }
        gaps::put(out, self.hashes.iter(), count, 64 - u32::from(zeros));
    }

    fn decode(bytes: &mut &[u8]) -> std::result::Result<Self, Malformed> {
        let k = u16::try_from(codec::take_u64(bytes)?).ok();
        let k = k.filter(|k| (K_MIN..=K_MAX).contains(k));
        let k = k.ok_or(Malformed("a sample is not of 64 to 16,384"))?;
        let count = usize::try_from(codec::take_u64(bytes)?).unwrap_or(usize::MAX);
        let zeros = if count == limit(k) { codec::take_array::<1>(bytes)?[0] } else { 0 };
        if count > limit(k) || zeros > 63 {
            return Err(Malformed("a sample has more hashes than it may"));
        }
        let hashes = gaps::take(bytes, count, 64 - u32::from(zeros), |hash| hash < u64::MAX)?;
        let theta = Self::of_hashes(k, hashes);
        if count == limit(k) && theta.hashes.meta.zeros != zeros {
            return Err(Malformed("the greatest hash of a sample does not begin as it says"));
        }
        Ok(theta)
    }

    fn heap_bytes(&self) -> usize {
        self.hashes.heap_bytes()
    }
}
