//! The bytes of Apache DataSketches: sketches that Druid, Spark, BigQuery, Postgres and programs in Java, C++
//! and Python make, read and merge.
//!
//! | here | there | what the bytes can be merged with |
//! |---|---|---|
//! | [`Top`](super::Top) | frequent items (strings) | any |
//! | [`Kll`](super::Kll) | KLL (doubles) | any |
//! | [`Theta`](super::Theta), as bytes | theta, compact | [`ThetaSketch`]es of ours: others refuse them by their seed |
//! | [`Distinct`](super::Distinct), as bytes | HLL | those of ours of the same `lg_k` |
//! | [`Hll`], [`ThetaSketch`] | HLL, theta | any |
//!
//! The first four are states that views keep. What items are called there is the same everywhere, and so
//! `Top` and `Kll` go both ways. Hashes are not the same: ours are XXH3, theirs `MurmurHash3`, so a set counted by
//! both would count twice. [`Hll`] and [`ThetaSketch`] hash as the others do, for programs that make
//! sketches which are to be merged elsewhere, or merge those that come from there. They are no
//! [`Aggregate`](super::Aggregate)s: their bytes depend on how they were built.
//!
//! Invariants
//! 1. What is read is checked here before the crate `datasketches` sees it: kind and version, that there are as
//!    many bytes as the header says, no more and no fewer, that counts, bounds and sums agree with what is
//!    there, and that no value is out of range. So no bytes make it panic, and none but those of a whole
//!    sketch are taken.
//! 2. Reading never allocates more than twice the bytes and 64 KB, but for two cases whose sketches are so
//!    much larger than their bytes: an `Hll` of 49,153 and more coupons (2⅔ times; `lg_k` of 20 and 21) and a `Top`
//!    of thousands of names shorter than 10 bytes (4 times).
//! 3. What is written is what the Python package reads, and what it writes is read; `tests/it/interchange.rs`.
//!
//! Next: `frequent.rs`, `hll_image.rs`.

mod frequent;
mod hll;
pub(super) mod hll_image;
pub(super) mod kll_image;
mod theta_image;
mod theta_sketch;

pub use hll::Hll;
pub use theta_sketch::ThetaSketch;

use super::Malformed;

/// The ids by which images say of which kind they are.
mod family {
    pub(super) const THETA: u8 = 3;
    pub(super) const HLL: u8 = 7;
    pub(super) const FREQUENCY: u8 = 10;
    pub(super) const KLL: u8 = 15;
}

/// The first eight bytes of an image of this kind, and what is behind them.
fn header<'a>(
    image: &'a [u8],
    id: u8,
    other: &'static str,
) -> Result<([u8; 8], &'a [u8]), Malformed> {
    match image.split_first_chunk::<8>() {
        Some((header, rest)) if header[2] == id => Ok((*header, rest)),
        _ => Err(Malformed(other)),
    }
}

/// The numbers of eight bytes that some bytes are.
fn words(bytes: &[u8]) -> impl ExactSizeIterator<Item = u64> + Clone + '_ {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
}
