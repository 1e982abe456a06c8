//! The system's allocator, which counts the bytes that are in use once it is told to.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

#[global_allocator]
static HEAP: Heap = Heap;

static COUNTED: AtomicBool = AtomicBool::new(false);
static BYTES: AtomicI64 = AtomicI64::new(0);

struct Heap;

fn note(bytes: i64) {
    if COUNTED.load(Relaxed) {
        BYTES.fetch_add(bytes, Relaxed);
    }
}

// SAFETY: the system's allocator does everything; what is noted beside it touches no memory of it.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as i64);
        // SAFETY: as this was called.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as i64);
        // SAFETY: as this was called.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        note(-(layout.size() as i64));
        // SAFETY: as this was called.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size as i64 - layout.size() as i64);
        // SAFETY: as this was called.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// Begins to count. Before, it costs others a look at a flag, the same for both contestants.
pub(crate) fn count() {
    COUNTED.store(true, Relaxed);
}

/// Bytes asked for and not given back since counting began. Only the difference of two is
/// meaningful: what was there before can be given back meanwhile.
pub(crate) fn bytes() -> i64 {
    BYTES.load(Relaxed)
}
