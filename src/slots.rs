//! A hash table of numbers: what the numbers stand for lies elsewhere, by number.
//!
//! Open addressing over words of `tag (32) | number + 1 (32)`. The tag is half of the hash of what
//! the number stands for; it chooses the place and tells almost all others apart. So growing looks
//! at nothing but the words, and a caller that knows many tags can have their places, and then what
//! the numbers found there stand for, fetched together.
//!
//! Invariants
//! 1. Numbers are inserted once. No word is empty between the place that a tag chooses and the
//!    words of that tag.
//! 2. A word is published (`Release`) after what its number stands for; who reads the word
//!    (`Acquire`) may look there. Many may read while one inserts; who removes is alone.

use crate::sync::atomic::AtomicU64;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};

pub(crate) struct Slots(Box<[AtomicU64]>);

const EMPTY: u64 = 0;

#[inline]
fn tag_of(word: u64) -> u32 {
    (word >> 32) as u32
}

#[inline]
fn number_of(word: u64) -> u32 {
    word as u32 - 1
}

/// Asks the processor to have every cache line of `value` in its cache soon. It does not wait, so
/// that several misses are under way at once. Nothing where there is no such instruction.
#[inline]
pub(crate) fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE: usize = 64;
        for offset in (0..size_of_val(value)).step_by(LINE) {
            let line = std::ptr::from_ref(value).cast::<i8>().wrapping_add(offset);
            // SAFETY: a prefetch reads nothing that could be seen and cannot fault; the address
            // lies in `value` anyway. The instruction is part of SSE, which x86_64 always has.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

impl Slots {
    /// A table with room for `expected` numbers.
    pub(crate) fn with_room(expected: usize) -> Self {
        Slots::of_len((expected * 8).div_ceil(5).next_power_of_two().max(8))
    }

    fn of_len(len: usize) -> Self {
        Slots(std::iter::repeat_with(AtomicU64::default).take(len).collect())
    }

    /// Whether `n` numbers fit without runs growing long: five eighths are used at most.
    #[inline]
    pub(crate) fn has_room_for(&self, n: usize) -> bool {
        n * 8 <= self.0.len() * 5
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }

    #[inline]
    fn place(&self, tag: u32) -> usize {
        tag as usize & (self.0.len() - 1)
    }

    #[inline]
    pub(crate) fn prefetch(&self, tag: u32) {
        prefetch(&self.0[self.place(tag)]);
    }

    /// The numbers with this tag.
    #[inline]
    pub(crate) fn tagged(&self, tag: u32) -> impl Iterator<Item = u32> {
        let mut at = self.place(tag);
        std::iter::from_fn(move || {
            loop {
                let word = self.0[at].load(Acquire);
                if word == EMPTY {
                    return None;
                }
                at = (at + 1) & (self.0.len() - 1);
                if tag_of(word) == tag {
                    return Some(number_of(word));
                }
            }
        })
    }

    /// The number with this tag for which `same` says yes.
    #[inline]
    pub(crate) fn find(&self, tag: u32, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        self.tagged(tag).find(|number| same(*number))
    }

    /// Inserts a number that is not there; there is room.
    pub(crate) fn insert(&self, tag: u32, number: u32) {
        self.put(u64::from(tag) << 32 | u64::from(number + 1));
    }

    fn put(&self, word: u64) {
        let mut at = self.place(tag_of(word));
        while self.0[at].load(Relaxed) != EMPTY {
            at = (at + 1) & (self.0.len() - 1);
        }
        self.0[at].store(word, Release);
    }

    /// A table twice as large with the same numbers.
    pub(crate) fn grown(&self) -> Self {
        let grown = Slots::of_len(self.0.len() * 2);
        for word in self.0.iter().map(|word| word.load(Relaxed)).filter(|word| *word != EMPTY) {
            grown.put(word);
        }
        grown
    }

    /// Takes a number out, and moves those behind it up that it had pushed away (Knuth, The Art of
    /// Computer Programming 3, section 6.4, algorithm R).
    pub(crate) fn remove(&mut self, tag: u32, number: u32) {
        let mask = self.0.len() - 1;
        let mut at = self.place(tag);
        loop {
            match self.0[at].load(Relaxed) {
                EMPTY => return,
                word if tag_of(word) == tag && number_of(word) == number => break,
                _ => at = (at + 1) & mask,
            }
        }
        let mut gap = at;
        loop {
            at = (at + 1) & mask;
            let word = self.0[at].load(Relaxed);
            if word == EMPTY {
                break;
            }
            let home = tag_of(word) as usize & mask;
            // It may move if its own place is not behind the gap.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.0[gap].store(word, Relaxed);
                gap = at;
            }
        }
        self.0[gap].store(EMPTY, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::btree_map::{BTreeMap, Entry};

    /// Miri runs a thousand times slower.
    const STEPS: usize = if cfg!(miri) { 30 } else { 300 };

    proptest! {
        /// Few tags, so that runs are long and wrap around.
        #[test]
        fn a_table_holds_what_a_map_does(
            steps in prop::collection::vec((any::<bool>(), 0_u32..40, 0_u32..12), 0..STEPS),
        ) {
            let mut slots = Slots::with_room(1);
            let mut model = BTreeMap::new();
            for (add, number, tag) in steps {
                let tag = tag.wrapping_mul(0x1000_0005).wrapping_sub(3);
                if !add {
                    if let Some(tag) = model.remove(&number) {
                        slots.remove(tag, number);
                    }
                } else if let Entry::Vacant(entry) = model.entry(number) {
                    entry.insert(tag);
                    if !slots.has_room_for(model.len()) {
                        slots = slots.grown();
                    }
                    slots.insert(tag, number);
                }
                for number in 0..40 {
                    let tag = model.get(&number).copied().unwrap_or(tag);
                    let found = slots.find(tag, |other| other == number);
                    prop_assert_eq!(found.is_some(), model.contains_key(&number));
                }
            }
        }
    }
}
