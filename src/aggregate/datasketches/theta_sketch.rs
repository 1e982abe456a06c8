//! A theta sketch as the other implementations of Apache DataSketches have it: of hashes that they make, or
//! of ours, never of both.
//!
//! Invariants
//! 1. `told` and `new` have hashes of one kind, that which `is_ours` says.
//! 2. What was read passed [`theta_image::check`], and has no hash twice.

use super::theta_image::{self, FINGERPRINT, FINGERPRINT_OF_OURS, SEED, SEED_OF_OURS};
use crate::aggregate::theta::sampled;
use crate::aggregate::{Approx, Malformed, Theta};
use crate::error::{Error, Result};
use ::datasketches::hash::value::{canonical_float, raw_bytes};
use ::datasketches::theta::{
    CompactThetaSketch, ThetaANotB, ThetaIntersection, ThetaSketch as Updatable,
    ThetaSketchBuilder, ThetaUnionBuilder,
};
use std::result;

const LG_K_MIN: u8 = 5;
const LG_K_MAX: u8 = 26;
const LG_K: u8 = 12;

/// A set of items as bytes of Apache DataSketches, for questions about several that may be made elsewhere.
///
/// Its hashes are `MurmurHash3`'s with the usual seed, as all implementations make them, or those of a
/// [`Theta`]; what is asked of two must be of one kind. What views keep is a [`Theta`].
///
/// ```
/// use quipu::aggregate::datasketches::ThetaSketch;
///
/// let (mut carts, mut sales) = (ThetaSketch::new(12)?, ThetaSketch::new(12)?);
/// ["ann", "bob", "eve"].map(|user| carts.insert_text(user));
/// ["bob", "joe"].map(|user| sales.insert_text(user));
/// let elsewhere = ThetaSketch::from_bytes(&sales.to_bytes()?).unwrap();
/// assert_eq!(carts.intersection(&elsewhere)?.estimate().value, 1.0);
/// assert_eq!(carts.difference(&elsewhere)?.estimate().value, 2.0);
/// carts.merge(&elsewhere)?;
/// assert_eq!(carts.estimate().value, 4.0);
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Debug)]
pub struct ThetaSketch {
    lg_k: u8,
    is_ours: bool,
    /// What was read, or came of several.
    told: Option<CompactThetaSketch>,
    /// What was observed since.
    new: Option<Box<New>>,
}

#[derive(Debug)]
enum New {
    Theirs(Updatable),
    Ours(Theta),
}

/// What the crate refuses, which has been looked at before.
fn refused(error: impl std::fmt::Display) -> Error {
    Error::invalid(format!("theta sketches: {error}"))
}

impl ThetaSketch {
    /// The seed of what [`Theta::to_datasketches`] makes, for readers elsewhere: the bytes `xxh3-64` and a zero.
    pub const SEED: u64 = SEED_OF_OURS;

    /// An empty sketch of hashes as all implementations make them, that keeps `2^lg_k` of them and some more.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) unless `lg_k` is 5 to 26.
    pub fn new(lg_k: u8) -> Result<Self> {
        if (LG_K_MIN..=LG_K_MAX).contains(&lg_k) {
            return Ok(ThetaSketch { lg_k, is_ours: false, told: None, new: None });
        }
        Err(Error::invalid(format!("an lg_k of {lg_k}: it is {LG_K_MIN} to {LG_K_MAX}")))
    }

    /// Whether its hashes are those of a [`Theta`].
    pub fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// Whether nothing was observed.
    pub fn is_empty(&self) -> bool {
        let is_new = self.new.is_some();
        !is_new && self.told.as_ref().is_none_or(CompactThetaSketch::is_empty)
    }

    fn seed(&self) -> u64 {
        if self.is_ours { SEED_OF_OURS } else { SEED }
    }

    /// Observes a text, as strings are there; an empty one is nothing there.
    pub fn insert_text(&mut self, text: &str) {
        if !text.is_empty() || self.is_ours {
            self.insert(text.as_bytes(), |sketch| sketch.update(raw_bytes::from_str(text)));
        }
    }

    /// Observes an integer, as those of any width are there.
    pub fn insert_int(&mut self, number: i64) {
        self.insert(&number.to_le_bytes(), |sketch| sketch.update(number));
    }

    /// Observes a number with a fraction, as doubles are there.
    pub fn insert_float(&mut self, number: f64) {
        // As there, zeros are one number, and those that are none another.
        let number = if number.is_nan() { f64::NAN } else { number + 0.0 };
        let is = |sketch: &mut Updatable| sketch.update(canonical_float::from_f64(number));
        self.insert(&number.to_le_bytes(), is);
    }

    fn insert(&mut self, item: &[u8], update: impl FnOnce(&mut Updatable)) {
        if self.new.is_none() {
            let new = if self.is_ours {
                Theta::new(1 << self.lg_k.clamp(6, 14)).ok().map(New::Ours)
            } else {
                ThetaSketchBuilder::default().lg_k(self.lg_k).build().ok().map(New::Theirs)
            };
            self.new = new.map(Box::new);
        }
        match self.new.as_deref_mut() {
            Some(New::Theirs(sketch)) => update(sketch),
            Some(New::Ours(sketch)) => sketch.insert(item),
            None => {}
        }
    }

    /// All of it in one.
    fn compact(&self) -> Result<CompactThetaSketch> {
        let new = match self.new.as_deref() {
            Some(New::Theirs(sketch)) => Some(sketch.compact(true)),
            Some(New::Ours(theta)) => Some(read_ours(theta)?),
            None => None,
        };
        match (&self.told, new) {
            (Some(told), None) => Ok(told.clone()),
            (None, Some(new)) => Ok(new),
            (told, new) => self.union([told.as_ref(), new.as_ref()].into_iter().flatten()),
        }
    }

    fn union<'a>(
        &self,
        sketches: impl Iterator<Item = &'a CompactThetaSketch>,
    ) -> Result<CompactThetaSketch> {
        let union = ThetaUnionBuilder::default().lg_k(self.lg_k).seed(self.seed()).build();
        let mut union = union.map_err(refused)?;
        for sketch in sketches {
            union.update(sketch).map_err(refused)?;
        }
        Ok(union.to_sketch(true))
    }

    /// The two in one each, if they are of one kind; nothing is of any.
    fn both(&self, other: &Self) -> Result<[Self; 2]> {
        let is_ours = if self.is_empty() { other.is_ours } else { self.is_ours };
        if !other.is_empty() && is_ours != other.is_ours {
            return Err(Error::invalid(
                "one theta sketch has hashes of ours (XXH3), the other one those of Apache DataSketches \
                 (MurmurHash3); the same item is another one there",
            ));
        }
        let lg_k = self.lg_k.max(other.lg_k);
        let of = |told| ThetaSketch { lg_k, is_ours, told: Some(told), new: None };
        Ok([of(self.compact()?), of(other.compact()?)])
    }

    fn with(&self, told: CompactThetaSketch) -> Self {
        ThetaSketch { told: Some(told), new: None, ..*self }
    }

    /// Folds in what another one has observed.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) where one has hashes of ours and the other has not; it stays as it
    /// is.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let both = self.both(other)?;
        let told = both[0].union(both.iter().filter_map(|sketch| sketch.told.as_ref()))?;
        *self = both[0].with(told);
        Ok(())
    }

    /// What both have observed.
    ///
    /// # Errors
    /// Those of [`merge`](Self::merge).
    pub fn intersection(&self, other: &Self) -> Result<Self> {
        let both = self.both(other)?;
        let mut common = ThetaIntersection::with_seed(both[0].seed()).map_err(refused)?;
        for sketch in both.iter().filter_map(|sketch| sketch.told.as_ref()) {
            common.update(sketch).map_err(refused)?;
        }
        let common = common.to_sketch(true).ok_or_else(|| Error::invalid("there are no sets"))?;
        Ok(both[0].with(common))
    }

    /// What this one has observed and the other one has not.
    ///
    /// # Errors
    /// Those of [`merge`](Self::merge).
    pub fn difference(&self, other: &Self) -> Result<Self> {
        let [one, two] = self.both(other)?;
        let but = ThetaANotB::with_seed(one.seed()).map_err(refused)?;
        let (a, b) = (one.compact()?, two.compact()?);
        Ok(one.with(but.compute(&a, &b, true).map_err(refused)?))
    }

    /// How many different items there were: exactly, while all hashes are there. Bounds are those of
    /// [`Theta::estimate`].
    pub fn estimate(&self) -> Approx {
        let Ok(sketch) = self.compact() else { return Approx::exact(0.0) };
        let part = if sketch.is_estimation_mode() { sketch.theta() } else { 1.0 };
        sampled(sketch.num_retained() as f64, part)
    }

    /// The sketch as bytes that any of the implementations reads; of hashes of ours, given the
    /// [seed](Self::SEED).
    ///
    /// # Errors
    /// None for what was made by the calls here.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.compact()?.serialize())
    }

    /// Reads a compact sketch, compressed or not, with hashes of the usual seed or of ours.
    ///
    /// # Errors
    /// [`Malformed`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> result::Result<Self, Malformed> {
        let is_ours = match theta_image::check(bytes)? {
            None | Some(FINGERPRINT) => false,
            Some(FINGERPRINT_OF_OURS) => true,
            Some(_) => {
                return Err(Malformed("the hashes of a theta sketch are of an unknown seed"));
            }
        };
        let seed = if is_ours { SEED_OF_OURS } else { SEED };
        let told = CompactThetaSketch::deserialize_with_seed(bytes, seed);
        let told = told.map_err(|_| Malformed("the gaps of a theta sketch go beyond its end"))?;
        let count = told.num_retained();
        if !theta_image::is_sample(told.iter().map(|entry| entry.hash()), count) {
            return Err(Malformed("a theta sketch has a hash twice"));
        }
        let lg_k = (count.next_power_of_two().ilog2() as u8).clamp(LG_K, LG_K_MAX);
        Ok(ThetaSketch { lg_k, is_ours, told: Some(told), new: None })
    }
}

fn read_ours(theta: &Theta) -> Result<CompactThetaSketch> {
    CompactThetaSketch::deserialize_with_seed(&theta.to_datasketches(), SEED_OF_OURS)
        .map_err(refused)
}

impl TryFrom<&Theta> for ThetaSketch {
    type Error = Error;

    /// The same set, which can be merged with others of ours that come as bytes. It does not fail.
    fn try_from(theta: &Theta) -> Result<Self> {
        let lg_k = (theta.k().next_power_of_two().ilog2() as u8).clamp(LG_K_MIN, LG_K_MAX);
        let told = Some(read_ours(theta)?);
        Ok(ThetaSketch { lg_k, is_ours: true, told, new: None })
    }
}
