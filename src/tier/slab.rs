//! Slabs: some values for each slot of a shard, in chunks that do not move.
//!
//! Growing moves nothing but the first few values: a shard of one or two keys should not cost a whole
//! chunk. A chunk is filled with blank values some slots at a time: one run through memory, while values that
//! are made key by key would each be written into a cold line, and those of a whole chunk would be cold
//! again before their keys come.
//!
//! Next: `tier/room.rs`.

use super::room::{Chunk, Room};
use crate::slots;

/// Slots of a chunk.
const CHUNK: usize = 256;
/// Slots that are filled with blank values together.
const STEP: usize = 16;
// A chunk that takes over the first few, of which there are four or four times as many, is filled up in whole steps.
const _: () = assert!(CHUNK.is_multiple_of(STEP) && (CHUNK / 4).is_multiple_of(STEP));

pub(crate) struct Slab<T> {
    /// Values of each slot.
    width: usize,
    /// The first one is shorter as long as there are fewer slots than in a chunk.
    chunks: Vec<Chunk<T>>,
}

impl<T> Slab<T> {
    pub(crate) fn new(width: usize) -> Self {
        Slab { width, chunks: Vec::new() }
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The values of a slot that there is.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> &[T] {
        if self.width == 0 {
            return &[];
        }
        let slot = slot as usize;
        &self.chunks[slot / CHUNK][slot % CHUNK * self.width..][..self.width]
    }

    /// The same, to be changed.
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut [T] {
        if self.width == 0 {
            return &mut [];
        }
        let slot = slot as usize;
        &mut self.chunks[slot / CHUNK][slot % CHUNK * self.width..][..self.width]
    }

    /// The value of a slot that there is, where each has one.
    #[inline]
    pub(crate) fn one(&self, slot: u32) -> &T {
        debug_assert_eq!(self.width, 1);
        &self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    /// The same, to be changed.
    #[inline]
    pub(crate) fn one_mut(&mut self, slot: u32) -> &mut T {
        debug_assert_eq!(self.width, 1);
        &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    /// Has the first value of a slot fetched, if it has one.
    #[inline]
    pub(crate) fn prefetch(&self, slot: u32) {
        let slot = slot as usize;
        if let Some(chunk) = self.chunks.get(slot / CHUNK) {
            chunk.get(slot % CHUNK * self.width).inspect(|value| slots::prefetch(*value));
        }
    }

    /// Makes room for more slots, `blank(i)` being the `i`th value of each of them.
    pub(crate) fn grow(&mut self, room: &Room, blank: impl Fn(usize) -> T) {
        let width = self.width;
        if width == 0 {
            return;
        }
        let mut made = 0..;
        let mut blank = || blank(made.next().unwrap_or_default() % width);
        if let Some(last) = self.chunks.last_mut()
            && last.spare() > 0
        {
            last.fill(STEP * width, blank);
            return;
        }
        let slots = self.slots();
        let few = if slots < CHUNK { (slots * 4).max(4) } else { CHUNK };
        let mut first = match self.chunks.pop_if(|_| slots < CHUNK) {
            Some(few) => Vec::from(few),
            None => Vec::new(),
        };
        let chunk = if few < CHUNK {
            first.reserve_exact(few * width - first.len());
            first.resize_with(few * width, blank);
            first.into()
        } else {
            // Whole slots, so the blank ones begin with their first value.
            let (mut first, mut chunk) = (first.into_iter(), room.chunk(CHUNK * width));
            let filled = (slots % CHUNK + STEP) * width;
            chunk.fill(filled, || first.next().unwrap_or_else(&mut blank));
            chunk
        };
        self.chunks.push(chunk);
    }

    /// What it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let spare = self.chunks.last().map_or(0, Chunk::spare);
        (self.slots() * self.width + spare) * size_of::<T>()
    }

    /// Slots there are, blank ones included; none where a slot has no values.
    pub(crate) fn slots(&self) -> usize {
        let Some(last) = self.chunks.last() else { return 0 };
        (self.chunks.len() - 1) * CHUNK + last.len() / self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_with_their_slots_while_a_slab_grows() {
        for width in [1, 3] {
            let (room, mut slab) = (Room::default(), Slab::new(width));
            for slot in 0..1_000_u32 {
                if slot as usize == slab.slots() {
                    slab.grow(&room, |i| (u32::MAX, i));
                }
                let blank: Vec<_> = (0..width).map(|i| (u32::MAX, i)).collect();
                assert_eq!(slab.get(slot), blank);
                slab.get_mut(slot).iter_mut().for_each(|value| value.0 = slot);
            }
            assert!(slab.bytes() >= 1_000 * width * size_of::<(u32, usize)>());
            for slot in 0..1_000_u32 {
                assert!(slab.get(slot).iter().enumerate().all(|(i, value)| *value == (slot, i)));
            }
        }
    }

    #[test]
    fn slots_without_values_take_nothing() {
        let mut slab = Slab::<u64>::new(0);
        slab.grow(&Room::default(), |_| 1);
        assert_eq!((slab.bytes(), slab.get(70_000).len(), slab.get_mut(3).len()), (0, 0, 0));
    }
}
