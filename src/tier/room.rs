//! Room for entries: chunks of a fixed number of them, side by side in large pages.
//!
//! A new key costs a part of a fresh page. A page of 4 KiB takes the kernel 1 to 2 us to give, which
//! was a tenth of all the time of recording where half of the events bring a new key; in pages of 2 MiB
//! it is a sixth of that, and looking up misses the processor's table of pages less often. So chunks are
//! cut from blocks of that size, which all shards of a view share, and the system is asked for large
//! pages (it may not have any: then everything is as it would be otherwise). The first blocks are
//! smaller, and later ones a quarter of those before them together at most, for a large page is memory that
//! is taken whole: ten thousand counters need half of one.
//!
//! Invariants
//! 1. A chunk's values are initialised one after the other, and dropped with it. It does not move. (One that
//!    is to grow beyond its capacity is not cut from a block: it is a vector's.)
//! 2. A block is cut from its beginning, each part once, and given back when nobody holds a part of it.
//!
//! Next: `tier/shard.rs`.

use parking_lot::Mutex;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::{NonNull, slice_from_raw_parts_mut};
use std::sync::Arc;

/// The size of a large page, and of a block but for the first ones.
const BLOCK_BYTES: usize = 2 << 20;
const FIRST_BLOCK_BYTES: usize = 128 << 10;

/// Where the chunks of a view are cut from.
#[derive(Debug, Default)]
pub(crate) struct Room(Mutex<Option<Cut>>);

/// A block and how much of it is used.
#[derive(Debug)]
struct Cut {
    block: Arc<Block>,
    used: usize,
    /// The bytes of this block and of those before it.
    total: usize,
}

#[derive(Debug)]
struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block is memory and nothing else; its parts are handed out once each (invariant 2), and
// what lies in them belongs to the chunks.
unsafe impl Send for Block {}
// SAFETY: as above; a shared block has no operation but being dropped by its last holder.
unsafe impl Sync for Block {}

impl Block {
    /// A block of so many bytes, a power of two, aligned to as many.
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes, bytes).expect("a power of two is an alignment");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        #[cfg(all(target_os = "linux", not(miri)))]
        if bytes == BLOCK_BYTES {
            let (at, advice) = (start.as_ptr().cast(), rustix::mm::Advice::LinuxHugepage);
            // SAFETY: the range is the one that was just allocated, and the advice changes nothing that
            // could be read there. Where it is not taken pages are small.
            let _ = unsafe { rustix::mm::madvise(at, bytes, advice) };
        }
        Block { start, layout }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout; the chunks that were cut from it hold it, so none
        // is left.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Values that lie side by side and do not move.
#[derive(Debug)]
pub(crate) struct Chunk<T> {
    start: NonNull<T>,
    /// Values that there are, from the first.
    len: u32,
    capacity: u32,
    /// What it is a part of; `None`: it is an allocation of its own.
    block: Option<Arc<Block>>,
    _owned: PhantomData<T>,
}

// SAFETY: a chunk owns its values as a vector does.
unsafe impl<T: Send> Send for Chunk<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Chunk<T> {}

impl Room {
    /// A chunk without values that has room for so many, which must fit into a block.
    pub(crate) fn chunk<T>(&self, capacity: usize) -> Chunk<T> {
        let bytes = (capacity * size_of::<T>()).next_multiple_of(64);
        assert!(bytes <= BLOCK_BYTES && align_of::<T>() <= 64, "a chunk is a part of a block");
        let (block, at) = {
            let mut cut = self.0.lock();
            let cut = match &mut *cut {
                Some(cut) if cut.used + bytes <= cut.block.layout.size() => cut,
                full => {
                    let before = full.as_ref().map_or(0, |full| full.total);
                    let quarter = 1 << (before / 4).max(FIRST_BLOCK_BYTES).ilog2();
                    let size = quarter.max(bytes.next_power_of_two()).min(BLOCK_BYTES);
                    let block = Arc::new(Block::new(size));
                    full.insert(Cut { block, used: 0, total: before + size })
                }
            };
            let at = cut.used;
            cut.used += bytes;
            (cut.block.clone(), at)
        };
        // SAFETY: `at` lies inside of the block (checked above), at a multiple of 64 from its
        // beginning, which is aligned to more than that.
        let start = unsafe { block.start.add(at) }.cast::<T>();
        Chunk {
            start,
            len: 0,
            capacity: u32::try_from(capacity).expect("fewer than its bytes"),
            block: Some(block),
            _owned: PhantomData,
        }
    }
}

impl<T> From<Vec<T>> for Chunk<T> {
    fn from(values: Vec<T>) -> Self {
        let all = NonNull::from(Box::leak(values.into_boxed_slice()));
        let len = u32::try_from(all.len()).expect("a few values");
        let start = all.cast();
        Chunk { start, len, capacity: len, block: None, _owned: PhantomData }
    }
}

impl<T> From<Chunk<T>> for Vec<T> {
    /// # Panics
    /// Where the chunk is a part of a block.
    fn from(chunk: Chunk<T>) -> Self {
        assert!(chunk.block.is_none(), "the memory of a chunk's block is not its own");
        let chunk = ManuallyDrop::new(chunk);
        // SAFETY: as in `drop`, which is not called any more.
        unsafe { chunk.boxed() }.into_vec()
    }
}

impl<T> Chunk<T> {
    /// So many values there is still room for.
    pub(crate) fn spare(&self) -> usize {
        (self.capacity - self.len) as usize
    }

    /// Adds values.
    ///
    /// # Panics
    /// Where there is no room for so many.
    pub(crate) fn fill(&mut self, n: usize, mut make: impl FnMut() -> T) {
        assert!(n <= self.spare(), "a chunk does not grow beyond its capacity");
        for _ in 0..n {
            // SAFETY: the place lies inside of the part that was cut for this chunk alone (room's
            // invariant 2), behind its values, and is aligned like the first. It is counted once it is
            // written: should `make` panic, those before it are the chunk's.
            unsafe { self.start.add(self.len as usize).write(make()) };
            self.len += 1;
        }
        // Where the next ones go is far away as yet.
        let next = n.min(self.spare());
        // SAFETY: the places lie inside of the same part, and what is not initialised may be anything.
        let next = unsafe {
            std::slice::from_raw_parts(
                self.start.add(self.len as usize).as_ptr().cast::<std::mem::MaybeUninit<T>>(),
                next,
            )
        };
        crate::slots::prefetch(next);
    }

    /// The values of a chunk that is an allocation of its own.
    ///
    /// # Safety
    /// It is not looked at again.
    unsafe fn boxed(&self) -> Box<[T]> {
        let values = slice_from_raw_parts_mut(self.start.as_ptr(), self.len as usize);
        // SAFETY: without a block they come from a box of as many, and the caller gives them up.
        unsafe { Box::from_raw(values) }
    }
}

impl<T> Deref for Chunk<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` values were written from `start` on (invariant 1), and live as long as this.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }
}

impl<T> DerefMut for Chunk<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`; the part is this chunk's alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len as usize) }
    }
}

impl<T> Drop for Chunk<T> {
    fn drop(&mut self) {
        if self.block.is_none() {
            // SAFETY: nobody sees it any more.
            drop(unsafe { self.boxed() });
            return;
        }
        // SAFETY: the values are initialised and nobody sees them any more. Their memory goes with the
        // block, which is dropped after this.
        unsafe { slice_from_raw_parts_mut(self.start.as_ptr(), self.len as usize).drop_in_place() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    struct Counted<'a>(u64, &'a Cell<usize>);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.1.set(self.1.get() - 1);
        }
    }

    #[test]
    fn a_chunk_of_its_own_gives_back_what_is_in_it() {
        let left = Cell::new(3);
        let chunk = Chunk::from((0..3).map(|n| Counted(n, &left)).collect::<Vec<_>>());
        let values = Vec::from(chunk);
        assert_eq!((values[2].0, left.get()), (2, 3));
        let chunk = Chunk::from(values);
        assert_eq!((chunk[1].0, chunk.len()), (1, 3));
        drop(chunk);
        assert_eq!(left.get(), 0);
        assert!(Vec::<u64>::from(Chunk::from(Vec::new())).is_empty());
    }

    #[test]
    fn chunks_lie_apart_and_give_back_what_is_in_them() {
        let left = Cell::new(0_usize);
        let (rooms, len) = ([Room::default(), Room::default()], 1_000);
        // Miri runs a thousand times slower.
        let all = if cfg!(miri) { 6 } else { 300 };
        let mut chunks = Vec::new();
        for n in 0..all {
            let mut at = n as u64 * 10_000;
            let mut chunk = rooms[n as usize % 2].chunk(len);
            let mut next = || {
                at += 1;
                left.set(left.get() + 1);
                Counted(at, &left)
            };
            chunk.fill(len / 4, &mut next);
            assert_eq!(chunk.spare(), len - len / 4);
            // Every third one is dropped with some of its values only.
            if n % 3 > 0 {
                chunk.fill(len - len / 4, next);
            }
            chunks.push(chunk);
        }
        let filled = |n: i32| if n % 3 > 0 { len } else { len / 4 };
        assert_eq!(left.get(), (0..all).map(filled).sum::<usize>());
        for chunk in &mut chunks {
            chunk[7].0 += 1;
        }
        drop(rooms);
        for (n, chunk) in chunks.iter().enumerate() {
            let (base, len) = (n as u64 * 10_000, filled(n as i32));
            assert_eq!((chunk[0].0, chunk[7].0, chunk.len()), (base + 1, base + 9, len));
            assert_eq!(chunk[len - 1].0, base + len as u64);
        }
        chunks.drain(..all as usize / 2);
        assert_eq!(left.get(), (all / 2..all).map(filled).sum::<usize>());
        drop(chunks);
        assert_eq!(left.get(), 0);
    }
}
