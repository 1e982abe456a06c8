//! Images of compact theta sketches: whether bytes are one, and a [`Theta`] as one.
//!
//! ```text
//! image := 1 3 3 · 0 0 · flags (1) · fingerprint of the seed (2)                      nothing, or with a hash (8)
//!        | 2 3 3 · 0 0 · flags (1) · fingerprint (2) · hashes (4) · 0 (4) · hash (8)*
//!        | 3 3 3 · 0 0 · flags (1) · fingerprint (2) · hashes (4) · 0 (4) · θ (8) · hash (8)*
//!        | 1 4 3 · bits (1) · bytes (1) · flags (1) · fingerprint (2) · hashes (bytes) · gaps of so many bits
//!        | 2 4 3 · bits (1) · bytes (1) · flags (1) · fingerprint (2) · θ (8) · hashes (bytes) · gaps
//! flags := 4 empty, 8 compact, 16 in order
//! ```
//!
//! Hashes have 63 bits, and those below θ are there. Sketches are of one another's kind where the
//! fingerprints of their seeds are the same. Those made of a [`Theta`] have the upper 63 bits of its hashes, and a
//! seed of their own, so that nothing takes them for hashes that `MurmurHash3` made.

use super::{family, header, words};
use crate::aggregate::{Malformed, Theta};
use crate::codec;

/// The seed of nearly all sketches, and its fingerprint.
pub(super) const SEED: u64 = 9_001;
pub(super) const FINGERPRINT: u16 = 0x93cc;
/// That of what is made here: the name of the hash.
pub(super) const SEED_OF_OURS: u64 = u64::from_le_bytes(*b"xxh3-64\0");
pub(super) const FINGERPRINT_OF_OURS: u16 = 0x2602;
const EMPTY: u8 = 4;
const COMPACT: u8 = 8;
const IN_ORDER: u8 = 16;
const READ_ONLY: u8 = 2;
/// θ of a sketch that has all hashes.
const WHOLE: u64 = i64::MAX as u64;
/// What a sketch may take besides what its bytes do.
const SPARE_BYTES: usize = 60_000;
const NO_THETA: &str = "the bytes are no compact theta sketch of Apache DataSketches";
const UNTRUE: Malformed = Malformed("a theta sketch is not what its header says");

/// Whether the bytes are an image, all of them. Gives the fingerprint of the seed; `None` of an empty sketch,
/// which has none.
pub(super) fn check(image: &[u8]) -> Result<Option<u16>, Malformed> {
    let ([preamble, version, _, bits, bytes, flags, low, high], mut body) =
        header(image, family::THETA, NO_THETA)?;
    // The upper two bits of an uncompressed one are of no use in an image.
    let preamble = if version == 3 { preamble & 0x3f } else { preamble };
    if !matches!((version, preamble), (3, 1..=3) | (4, 1..=2)) || flags & COMPACT == 0 {
        return Err(Malformed(NO_THETA));
    }
    if flags & EMPTY != 0 {
        codec::finished(body)?;
        return Ok(None);
    }
    if version == 3 {
        check_hashes(preamble, flags, body)?;
    } else {
        let theta = if preamble == 2 { take_word(&mut body)? } else { WHOLE };
        check_gaps(theta, bits, bytes, body)?;
    }
    Ok(Some(u16::from_le_bytes([low, high])))
}

fn take_word(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    Ok(u64::from_le_bytes(codec::take_array(bytes)?))
}

fn check_hashes(preamble: u8, flags: u8, mut body: &[u8]) -> Result<(), Malformed> {
    let (mut count, mut theta) = (1, WHOLE);
    if preamble > 1 {
        count = u32::from_le_bytes(codec::take_array(&mut body)?) as usize;
        let _unused: [u8; 4] = codec::take_array(&mut body)?;
    }
    if preamble > 2 {
        theta = take_word(&mut body)?;
    }
    let hashes = words(body);
    let are_hashes = hashes.clone().all(|hash| (1..theta).contains(&hash));
    let ascend = flags & IN_ORDER == 0 || hashes.is_sorted_by(|a, b| a < b);
    let is_whole = body.len() == count.saturating_mul(8);
    if is_whole && are_hashes && ascend && theta <= WHOLE { Ok(()) } else { Err(UNTRUE) }
}

/// The gaps themselves are looked at when they are hashes ([`is_sample`]).
fn check_gaps(theta: u64, bits: u8, bytes: u8, mut body: &[u8]) -> Result<(), Malformed> {
    if bytes > 4 || !(1..=WHOLE).contains(&theta) {
        return Err(UNTRUE);
    }
    let mut count = [0; 4];
    count[..usize::from(bytes)].copy_from_slice(codec::take(&mut body, bytes.into())?);
    let count = u32::from_le_bytes(count) as usize;
    let are_bits = count == 0 || (1..=63).contains(&bits);
    if !are_bits || body.len() != count.saturating_mul(bits.into()).div_ceil(8) {
        return Err(UNTRUE);
    }
    // Gaps of few bits would be of more items than anything has.
    if count.saturating_mul(8) > 2 * body.len() + SPARE_BYTES {
        return Err(Malformed("a theta sketch has more hashes than its bytes are for"));
    }
    Ok(())
}

/// Whether hashes that were read are each there once.
pub(super) fn is_sample(hashes: impl Iterator<Item = u64>, count: usize) -> bool {
    let mut sorted = Vec::with_capacity(count);
    sorted.extend(hashes);
    sorted.sort_unstable();
    sorted.is_sorted_by(|a, b| a < b)
}

impl Theta {
    /// The state as a compact theta sketch of Apache DataSketches, whose hashes are ours: under the seed
    /// [`SEED`](crate::aggregate::datasketches::ThetaSketch::SEED), so that it is read and merged with others of
    /// ours by any implementation that is given this seed, and refused beside those of another.
    ///
    /// [`ThetaSketch`](crate::aggregate::datasketches::ThetaSketch) reads it. It is no longer a state: hashes have
    /// 63 bits there.
    ///
    /// ```
    /// use quipu::aggregate::{Theta, datasketches::ThetaSketch};
    ///
    /// let mut users = Theta::new(4_096)?;
    /// (0..100_000_u32).for_each(|user| users.insert(&user.to_le_bytes()));
    /// let there = ThetaSketch::from_bytes(&users.to_datasketches()).unwrap();
    /// assert!((there.estimate().value / users.estimate().value - 1.0).abs() < 1e-9);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn to_datasketches(&self) -> Vec<u8> {
        let (bound, hashes) = self.sample();
        let theta = if bound == u64::MAX { WHOLE } else { bound >> 1 };
        let mut hashes: Vec<u64> = hashes.map(|hash| (hash >> 1).max(1)).collect();
        hashes.retain(|hash| *hash < theta);
        hashes.dedup();
        let mut image = vec![3, 3, family::THETA, 0, 0, READ_ONLY | COMPACT | IN_ORDER];
        if self.is_empty() {
            image[0] = 1;
            image[5] |= EMPTY;
        }
        if self.is_empty() {
            image.extend_from_slice(&[0; 2]);
            return image;
        }
        image.extend_from_slice(&FINGERPRINT_OF_OURS.to_le_bytes());
        // One hash of a whole sketch has the shortest form, several the next.
        image[0] = if theta < WHOLE { 3 } else { 1 + u8::from(hashes.len() > 1) };
        if image[0] > 1 {
            image.extend_from_slice(&(hashes.len() as u64).to_le_bytes());
        }
        if image[0] > 2 {
            image.extend_from_slice(&theta.to_le_bytes());
        }
        for hash in &hashes {
            image.extend_from_slice(&hash.to_le_bytes());
        }
        image
    }
}
