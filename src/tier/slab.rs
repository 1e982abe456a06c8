//! Slabs: some values for each slot of a shard, in chunks that do not move.
//!
//! Growing copies nothing but the first few values, which are in a vector that grows: a shard of one or
//! two keys should not cost a whole chunk. A chunk is filled with blank values when it is made: one run
//! through memory, while values that are made key by key would each be written into a cold line.
//!
//! Next: `tier/room.rs`.

use super::room::{Chunk, Room};

/// Slots of a chunk.
const CHUNK: usize = 256;

pub(crate) struct Slab<T> {
    /// Values of each slot.
    width: usize,
    /// The first slots, as long as there are fewer than a chunk's.
    few: Vec<T>,
    chunks: Vec<Chunk<T>>,
}

impl<T> Slab<T> {
    pub(crate) fn new(width: usize) -> Self {
        Slab { width, few: Vec::new(), chunks: Vec::new() }
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The values of a slot that there is.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> &[T] {
        let slot = slot as usize;
        match self.chunks.get(slot / CHUNK) {
            Some(chunk) => &chunk[slot % CHUNK * self.width..][..self.width],
            None => &self.few[slot * self.width..][..self.width],
        }
    }

    /// The same, to be changed.
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut [T] {
        let slot = slot as usize;
        match self.chunks.get_mut(slot / CHUNK) {
            Some(chunk) => &mut chunk[slot % CHUNK * self.width..][..self.width],
            None => &mut self.few[slot * self.width..][..self.width],
        }
    }

    /// Makes room for more slots, `blank(i)` being the `i`th value of each of them.
    pub(crate) fn grow(&mut self, room: &Room, blank: impl Fn(usize) -> T) {
        let width = self.width;
        if width == 0 {
            return;
        }
        let few = (self.few.len() / width * 4).max(4);
        let mut made = 0..;
        let mut blank = || blank(made.next().unwrap_or_default() % width);
        if self.chunks.is_empty() && few < CHUNK {
            self.few.reserve_exact(few * width - self.few.len());
            self.few.resize_with(few * width, blank);
        } else {
            // Whole slots, so the blank ones begin with their first value.
            let mut first = std::mem::take(&mut self.few).into_iter();
            let chunk = room.chunk(CHUNK * width, || first.next().unwrap_or_else(&mut blank));
            self.chunks.push(chunk);
        }
    }

    /// What it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        (self.chunks.len() * CHUNK * self.width + self.few.capacity()) * size_of::<T>()
    }

    /// Slots there are, blank ones included; none where a slot has no values.
    pub(crate) fn slots(&self) -> usize {
        self.chunks.len() * CHUNK + self.few.len().checked_div(self.width).unwrap_or(0)
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
