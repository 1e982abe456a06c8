//! Aggregates: states that fold measures and merge with each other, to the byte.
//!
//! Invariants (each has a property test)
//! 1. `merge` is associative and commutative, and the default state is its identity.
//! 2. The encoding is a function of what was observed, not of the order or the grouping in which
//!    it was observed and merged: bytes(replayed) = bytes(direct) = bytes(merged anyhow).
//! 3. `decode` accepts exactly what `encode` gives, and no bytes make it panic.
//!
//! Everything the engine keeps is such a state: a key's totals, a bucket, a row of the snapshot.
//! Next: `aggregate/stats.rs`, then `series.rs`.

mod approx;
mod count;
mod distinct;
mod exact;
mod gaps;
mod hash;
mod ordered;
mod stats;
mod theta;

pub use approx::Approx;
pub use count::Count;
pub use distinct::Distinct;
pub(crate) use exact::Measure;
pub use stats::{Stats, Summary};
pub use theta::Theta;

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

/// What a view keeps besides the count, which every cell has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Stats,
}

/// One aggregate's state in a cell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    Stats(Stats),
}

impl Kind {
    #[inline]
    pub(crate) fn empty(self) -> State {
        match self {
            Kind::Stats => State::Stats(Stats::default()),
        }
    }

    pub(crate) fn decode(self, bytes: &mut &[u8]) -> Result<State, Malformed> {
        match self {
            Kind::Stats => Stats::decode(bytes).map(State::Stats),
        }
    }
}

/// Folds an event that counts for so many into the states of a cell, of which the `i`th observes
/// `measure(i)`, NaN for nothing; gives the bytes by which they grew on the heap.
#[inline]
pub(crate) fn observe<'m>(
    states: &mut [State],
    times: u64,
    measure: impl Fn(usize) -> &'m Measure,
) -> usize {
    let mut grown = 0;
    for (i, state) in states.iter_mut().enumerate() {
        let measure = measure(i);
        if !measure.value().is_nan() {
            grown += if times == 1 {
                state.observe(measure)
            } else {
                state.observe_times(measure, times)
            };
        }
    }
    grown
}

/// Merges the states of one cell into those of another.
pub(crate) fn merge(states: &mut [State], other: &[State]) {
    states.iter_mut().zip(other).for_each(|(state, other)| state.merge(other));
}

impl State {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            State::Stats(_) => Kind::Stats,
        }
    }

    /// Folds a measure in; gives the bytes by which the state grew on the heap.
    #[inline]
    pub(crate) fn observe(&mut self, measure: &Measure) -> usize {
        match self {
            State::Stats(stats) => stats.observe_measure(measure),
        }
    }

    /// What so many observations of a measure would leave, in as many steps as `times` has bits: a
    /// state that has observed it 2^n times, merged with itself, has 2^(n + 1) times.
    #[cold]
    fn observe_times(&mut self, measure: &Measure, times: u64) -> usize {
        let before = self.heap_bytes();
        let mut power = self.kind().empty();
        power.observe(measure);
        for bit in 0..u64::BITS - times.leading_zeros() {
            if times >> bit & 1 == 1 {
                self.merge(&power);
            }
            let half = power.clone();
            power.merge(&half);
        }
        self.heap_bytes() - before
    }

    pub(crate) fn merge(&mut self, other: &State) {
        match (self, other) {
            (State::Stats(stats), State::Stats(other)) => stats.merge(other),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            State::Stats(stats) => stats.encode(out),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            State::Stats(stats) => stats.heap_bytes(),
        }
    }
}
