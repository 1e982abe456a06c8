//! The states of a cell: statistics, then sketches, each in the order in which the view defines them.

use super::sketch::{Input, Sketch, SketchKind};
use super::{Aggregate, Malformed, Measure, Stats};
use smallvec::SmallVec;
use thin_vec::ThinVec;

/// What a view keeps besides the count, which every cell has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds {
    /// Of how many measures there are statistics.
    pub(crate) stats: usize,
    pub(crate) sketches: Vec<SketchKind>,
}

/// The states of a cell by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct States {
    stats: SmallVec<[Stats; 1]>,
    sketches: ThinVec<Sketch>,
}

/// The states of a cell where they lie, to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StatesRef<'a> {
    pub(crate) stats: &'a [Stats],
    pub(crate) sketches: &'a [Sketch],
}

/// The states of a cell where they lie, to be changed.
#[derive(Debug)]
pub(crate) struct StatesMut<'a> {
    pub(crate) stats: &'a mut [Stats],
    pub(crate) sketches: &'a mut [Sketch],
}

/// What the states of a cell observe of an event.
pub(crate) trait Inputs<'a>: Copy {
    /// The measure that the statistics at this place are of.
    fn measure(self, at: usize) -> &'a Measure;

    /// What the sketch at this place is of.
    fn input(self, at: usize) -> Input<'a>;
}

impl<'a, F: Fn(usize) -> &'a Measure + Copy> Inputs<'a> for F {
    #[inline]
    fn measure(self, at: usize) -> &'a Measure {
        self(at)
    }

    fn input(self, _: usize) -> Input<'a> {
        Input::Nothing
    }
}

impl Kinds {
    pub(crate) fn is_empty(&self) -> bool {
        self.stats == 0 && self.sketches.is_empty()
    }

    /// States that have observed nothing.
    #[inline]
    pub(crate) fn empty(&self) -> States {
        States {
            stats: (0..self.stats).map(|_| Stats::default()).collect(),
            sketches: self.sketches.iter().map(|kind| kind.empty()).collect(),
        }
    }

    pub(crate) fn decode(&self, bytes: &mut &[u8]) -> Result<States, Malformed> {
        let stats = (0..self.stats).map(|_| Stats::decode(bytes)).collect::<Result<_, _>>()?;
        let sketches = self.sketches.iter().map(|kind| kind.decode(bytes));
        Ok(States { stats, sketches: sketches.collect::<Result<_, _>>()? })
    }
}

impl States {
    pub(crate) fn as_ref(&self) -> StatesRef<'_> {
        StatesRef { stats: &self.stats, sketches: &self.sketches }
    }

    pub(crate) fn as_mut(&mut self) -> StatesMut<'_> {
        StatesMut { stats: &mut self.stats, sketches: &mut self.sketches }
    }

    pub(crate) fn into_parts(self) -> (SmallVec<[Stats; 1]>, ThinVec<Sketch>) {
        (self.stats, self.sketches)
    }
}

impl StatesRef<'_> {
    pub(crate) fn is_empty(self) -> bool {
        self.stats.is_empty() && self.sketches.is_empty()
    }

    pub(crate) fn to_owned(self) -> States {
        States { stats: self.stats.into(), sketches: self.sketches.into() }
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        self.stats.iter().for_each(|state| state.encode(out));
        self.sketches.iter().for_each(|state| state.encode(out));
    }

    /// Whether both can have observed the same ([`Sketch::agrees`]).
    pub(crate) fn agrees(self, other: StatesRef<'_>) -> bool {
        self.stats == other.stats
            && self.sketches.len() == other.sketches.len()
            && self.sketches.iter().zip(other.sketches).all(|(state, other)| state.agrees(other))
    }

    /// What they hold on the heap besides what lies where they are.
    pub(crate) fn heap_bytes(self) -> usize {
        let stats: usize = self.stats.iter().map(Stats::heap_bytes).sum();
        stats + self.sketches.iter().map(Sketch::heap_bytes).sum::<usize>()
    }

    /// What lies where they are, in bytes.
    pub(crate) fn flat_bytes(self) -> usize {
        size_of_val(self.stats) + size_of_val(self.sketches)
    }
}

/// Folds in the measure of an event that counts for so many, if it has it; gives the bytes by which that grew
/// on the heap.
#[inline]
fn observe_measure(stats: &mut Stats, measure: &Measure, times: u64) -> usize {
    if measure.value().is_nan() {
        0
    } else if times == 1 {
        stats.observe_measure(measure)
    } else {
        observe_times(stats, measure, times)
    }
}

impl StatesMut<'_> {
    /// Folds in events: for how many each counts, and what is observed of it.
    #[inline]
    pub(crate) fn observe_each<'m, I: Inputs<'m>>(self, events: impl Iterator<Item = (u64, I)>) {
        if let ([stats], []) = (&mut *self.stats, &*self.sketches) {
            for (times, inputs) in events {
                observe_measure(stats, inputs.measure(0), times);
            }
            return;
        }
        for (times, inputs) in events {
            StatesMut { stats: &mut *self.stats, sketches: &mut *self.sketches }
                .observe(times, inputs);
        }
    }

    pub(crate) fn as_ref(&self) -> StatesRef<'_> {
        StatesRef { stats: self.stats, sketches: self.sketches }
    }

    /// Folds in an event that counts for so many; gives the bytes by which the states grew on the heap.
    #[inline]
    pub(crate) fn observe<'m>(self, times: u64, inputs: impl Inputs<'m>) -> isize {
        let mut grown = 0;
        for (at, state) in self.stats.iter_mut().enumerate() {
            grown += observe_measure(state, inputs.measure(at), times);
        }
        let grown = grown as isize;
        if self.sketches.is_empty() {
            grown
        } else {
            grown + observe_in(self.sketches, times, inputs)
        }
    }

    /// Folds in what others have observed; gives the bytes by which the states grew on the heap.
    pub(crate) fn merge(self, other: StatesRef<'_>) -> isize {
        let before = self.as_ref().heap_bytes() as isize;
        self.stats.iter_mut().zip(other.stats).for_each(|(state, other)| state.merge(other));
        self.sketches.iter_mut().zip(other.sketches).for_each(|(state, other)| state.merge(other));
        self.as_ref().heap_bytes() as isize - before
    }

    /// Takes them out and leaves such as have observed nothing.
    pub(crate) fn take(self) -> States {
        let empty = |state: &mut Sketch| {
            let empty = state.emptied();
            std::mem::replace(state, empty)
        };
        States {
            stats: self.stats.iter_mut().map(std::mem::take).collect(),
            sketches: self.sketches.iter_mut().map(empty).collect(),
        }
    }

    /// Puts others of the same kinds in their place.
    pub(crate) fn put(self, states: States) {
        self.stats.iter_mut().zip(states.stats).for_each(|(state, put)| *state = put);
        self.sketches.iter_mut().zip(states.sketches).for_each(|(state, put)| *state = put);
    }
}

/// Folds an event into sketches; apart, so that there is less to do where there are none.
#[inline(never)]
fn observe_in<'m>(sketches: &mut [Sketch], times: u64, inputs: impl Inputs<'m>) -> isize {
    let mut grown = 0;
    for (at, state) in sketches.iter_mut().enumerate() {
        let before = state.heap_bytes() as isize;
        state.observe(inputs.input(at), times);
        grown += state.heap_bytes() as isize - before;
    }
    grown
}

/// What so many observations of a measure would leave, in as many steps as `times` has bits: a state
/// that has observed it 2^n times, merged with itself, has 2^(n + 1) times.
#[cold]
fn observe_times(state: &mut Stats, measure: &Measure, times: u64) -> usize {
    let before = state.heap_bytes();
    let mut power = Stats::default();
    power.observe_measure(measure);
    for bit in 0..u64::BITS - times.leading_zeros() {
        if times >> bit & 1 == 1 {
            state.merge(&power);
        }
        let half = power.clone();
        power.merge(&half);
    }
    state.heap_bytes() - before
}
