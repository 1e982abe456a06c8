//! Images of KLL sketches of doubles, and a [`Kll`] as one.
//!
//! ```text
//! image  := 2 1 15 1 · k (2) · 8 0                              no value
//!         | 2 2 15 flags · k (2) · 8 0 · value                  one
//!         | 5 1 15 flags · k (2) · 8 0 · n (8) · least k of what was merged (2) · levels (1) · 0
//!           · place of each level (4) · least value · greatest value · values
//! flags  := 1 empty, 2 the first level is in order, 4 a single value
//! ```
//!
//! A value of level h stands for 2^h. Places count from the room that all levels have together, which is
//! where the last one ends.

use super::{family, header, words};
use crate::aggregate::Malformed;
use crate::aggregate::kll::{COUNT_MAX, Inner, Kll};
use crate::codec;
use std::cmp::Ordering;

const EMPTY: u8 = 1;
const SINGLE: u8 = 4;
/// The least room of a level, the same in all implementations.
const WIDTH: u8 = 8;
const LEVELS_MAX: u8 = 61;
const NO_KLL: &str = "the bytes are no KLL sketch of Apache DataSketches";
const UNTRUE: Malformed = Malformed("a KLL sketch of doubles is not what its header says");

/// Reads an image, all of it.
pub(in crate::aggregate) fn read(image: &[u8]) -> Result<Inner, Malformed> {
    let ([preamble, version, _, flags, k_low, k_high, width, _], rest) =
        header(image, family::KLL, NO_KLL)?;
    let k = u16::from_le_bytes([k_low, k_high]);
    if width != WIDTH || k < u16::from(WIDTH) {
        return Err(Malformed("a KLL sketch has no k of 8 to 65,535, or another width than 8"));
    }
    match (flags & (EMPTY | SINGLE), preamble, version) {
        (EMPTY, 2, 1) if rest.is_empty() => {}
        (SINGLE, 2, 2) if rest.len() == 8 => are_finite(rest)?,
        (0, 5, 1) => check_full(k, rest)?,
        _ => return Err(UNTRUE),
    }
    Inner::deserialize(image).map_err(|_| UNTRUE)
}

/// Whether the levels are as full as the number of values says.
fn check_full(k: u16, mut rest: &[u8]) -> Result<(), Malformed> {
    let n = u64::from_le_bytes(codec::take_array(&mut rest)?);
    let least_k = u16::from_le_bytes(codec::take_array(&mut rest)?);
    let [levels, _] = codec::take_array(&mut rest)?;
    if !(2..=COUNT_MAX).contains(&n) || !(u16::from(WIDTH)..=k).contains(&least_k) {
        return Err(Malformed(
            "a KLL sketch has more than 2^60 values, or merged one of a greater k",
        ));
    }
    if !(1..=LEVELS_MAX).contains(&levels) {
        return Err(Malformed("a KLL sketch has no level, or more than 61"));
    }
    let places = codec::take(&mut rest, 4 * usize::from(levels))?.as_chunks::<4>().0;
    // Least and greatest value stand before the others.
    let retained = (rest.len() / 8).checked_sub(2).filter(|_| rest.len().is_multiple_of(8));
    let retained = u32::try_from(retained.ok_or(UNTRUE)?).map_err(|_| UNTRUE)?;
    let mut places = places.iter().map(|place| u32::from_le_bytes(*place));
    let first = places.next().ok_or(UNTRUE)?;
    let end = first.checked_add(retained).ok_or(UNTRUE)?;
    let (mut before, mut total) = (first, 0_u128);
    for (level, place) in places.chain([end]).enumerate() {
        total += u128::from(place.checked_sub(before).ok_or(UNTRUE)?) << level;
        before = place;
    }
    if total != u128::from(n) {
        return Err(UNTRUE);
    }
    are_finite(rest)?;
    // Nothing lies outside of the ends; they are values themselves where all values are there.
    let mut values = words(rest).map(f64::from_bits);
    let (least, greatest) = values.next().zip(values.next()).ok_or(UNTRUE)?;
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    let are_ends = if u64::from(retained) == n {
        [low, high].partial_cmp(&[least, greatest]) == Some(Ordering::Equal)
    } else {
        low >= least && high <= greatest
    };
    if are_ends { Ok(()) } else { Err(UNTRUE) }
}

fn are_finite(values: &[u8]) -> Result<(), Malformed> {
    if words(values).all(|word| f64::from_bits(word).is_finite()) {
        Ok(())
    } else {
        Err(Malformed("a value of a KLL sketch is no finite number"))
    }
}

impl Kll {
    /// The sketch as Apache DataSketches has it (`kll_doubles_sketch`), which any of its implementations
    /// reads and merges.
    ///
    /// ```
    /// use quipu::aggregate::Kll;
    ///
    /// let mut scores = Kll::default();
    /// (0..1_000).for_each(|n| scores.insert(f64::from(n)));
    /// assert_eq!(Kll::from_datasketches(&scores.to_datasketches())?, scores);
    /// # Ok::<(), quipu::aggregate::Malformed>(())
    /// ```
    pub fn to_datasketches(&self) -> Vec<u8> {
        self.sketch().map_or_else(Vec::new, |sketch| sketch.serialize())
    }

    /// Reads what Apache DataSketches wrote of a KLL sketch of doubles, in the compact form that all of its
    /// implementations write.
    ///
    /// # Errors
    /// [`Malformed`] for anything else: sketches of floats and of items, too.
    pub fn from_datasketches(image: &[u8]) -> Result<Self, Malformed> {
        read(image).map(Self::of_sketch)
    }
}
