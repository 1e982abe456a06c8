//! Aggregates: states that fold measures and merge with each other, to the byte.
//!
//! Invariants (each has a property test)
//! 1. `merge` is associative and commutative, and the default state is its identity.
//! 2. The encoding is a function of what was observed, not of the order or the grouping in which
//!    it was observed and merged: bytes(replayed) = bytes(direct) = bytes(merged anyhow). (Exceptions
//!    say so: `Top` beyond its capacity, `Kll` beyond its k.)
//! 3. `decode` accepts exactly what `encode` gives, and no bytes make it panic.
//!
//! Everything the engine keeps is such a state: a key's totals, a bucket, a row of the snapshot.
//! Next: `aggregate/states.rs`, then `series.rs`.

mod approx;
mod count;
mod count_min;
#[cfg(feature = "datasketches")]
pub mod datasketches;
mod distinct;
mod exact;
mod gaps;
mod hash;
#[cfg(feature = "datasketches")]
mod kll;
mod membership;
mod ordered;
mod quantiles;
mod sketch;
mod states;
mod stats;
mod theta;
mod top;

pub use approx::Approx;
pub use count::Count;
pub use count_min::CountMin;
pub use distinct::Distinct;
pub(crate) use exact::Measure;
pub(crate) use hash::hash;
#[cfg(feature = "datasketches")]
pub use kll::Kll;
pub use membership::Membership;
pub use quantiles::{Bin, Quantiles};
pub use sketch::Sketches;
pub(crate) use sketch::{Input, Item, Sketch, SketchKind};
pub(crate) use states::{Inputs, Kinds, States, StatesMut, StatesRef};
pub use stats::{Stats, Summary};
pub use theta::Theta;
pub use top::{Above, Heavy, Top};

pub use crate::codec::Malformed;
use crate::time::Timestamp;

/// A state that measures are folded into: a commutative monoid with a stable encoding.
///
/// ```
/// use quipu::{Timestamp, aggregate::{Aggregate, Stats}};
///
/// let now = Timestamp::from_secs(0);
/// let (mut left, mut right) = (Stats::default(), Stats::default());
/// left.observe(1.0, now);
/// right.observe(0.1, now);
/// let mut merged = right.clone();
/// merged.merge(&left);
/// left.observe(0.1, now);
/// assert_eq!(merged, left);
/// ```
pub trait Aggregate: Clone + Default + PartialEq + Send + Sync {
    /// What one observation brings.
    type Input<'a>: Copy;

    /// Folds one observation in.
    fn observe(&mut self, input: Self::Input<'_>, time: Timestamp);

    /// Folds in everything that `other` has observed.
    fn merge(&mut self, other: &Self);

    /// Appends the state's bytes (invariant 2).
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads a state from the front of `bytes`, which then begin behind it.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes are not what [`encode`](Aggregate::encode) gives.
    fn decode(bytes: &mut &[u8]) -> Result<Self, Malformed>;

    /// Memory held outside of the value itself, in bytes.
    fn heap_bytes(&self) -> usize {
        0
    }
}
