//! What reading hostile bytes of sketches allocates: no more than is said, whatever they claim.
//!
//! A test of its own, for it counts what a thread allocates.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends there")]

use quipu::aggregate::datasketches::{Hll, ThetaSketch};
use quipu::aggregate::{Aggregate, Kll, Top};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::Path;

/// Counts what each thread has, and the most that it had.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends has no counters any more.
    let _gone = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _gone = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: all is done by the system's allocator, and counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: what the caller promises is what is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most that was allocated at once meanwhile.
fn allocated<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    MOST.set(before);
    let out = run();
    (out, (MOST.get() - before) as usize)
}

/// Reads it as each kind; whether it was one.
fn read(image: &[u8], what: &str) -> bool {
    let hll = allocated(|| Hll::from_bytes(image).is_ok());
    let theta = allocated(|| ThetaSketch::from_bytes(image).is_ok());
    let top = allocated(|| Top::from_datasketches(image).is_ok());
    let kll = allocated(|| Kll::from_datasketches(image).is_ok());
    let state = allocated(|| Kll::decode(&mut &*image).is_ok());
    // The exceptions are in the head comment of the module.
    let kinds = [(hll, 3), (theta, 2), (top, 4), (kll, 2), (state, 2)];
    for (at, ((_, bytes), times)) in kinds.into_iter().enumerate() {
        let most = times * image.len() + (64 << 10);
        assert!(bytes <= most, "{what}, kind {at}: {bytes} bytes of {}", image.len());
    }
    kinds.iter().any(|((is, _), _)| *is)
}

#[test]
fn claims_are_not_believed() {
    let max = [0xff; 8];
    let mut images: Vec<(&str, Vec<u8>)> = vec![("nothing", vec![])];
    for lg in [5, 17, 18, 21, 26, 31, 63, 255] {
        let hll = |preamble, lg_table, mode| vec![preamble, 1, 7, 21, lg_table, 8, 0, mode];
        images.push(("a set", [hll(3, lg, 9), vec![0; 40]].concat()));
        images.push(("a set that is full", [hll(3, lg, 9), vec![0xff; 4]].concat()));
        for mode in [2, 6, 10] {
            images.push(("registers", [hll(10, lg, mode), vec![0; 64]].concat()));
        }
        images.push(("a map", vec![1, 1, 10, lg, lg, 5, 0, 0]));
        let items = [&[4, 1, 10, lg, lg, 0, 0, 0], &max[..4], &[0; 4], &max[1..], &[0; 9]].concat();
        images.push(("items", items));
        let gaps =
            [&[2, 4, 3, lg.min(63), 4, 26, 0xcc, 0x93], &[0xff; 7][..], &[0x7f], &max].concat();
        images.push(("gaps", gaps));
        images.push((
            "a level",
            [&[5, 1, 15, 0, 0xff, 0xff, 8, 0], &max[..], &[8, 0, lg, 0]].concat(),
        ));
    }
    images.push(("hashes", [&[3, 3, 3, 0, 0, 26, 0xcc, 0x93], &max[..]].concat()));
    // Gaps of one bit: sixty-four bytes for one.
    let gaps = [&[1, 4, 3, 1, 3, 26, 0xcc, 0x93, 0, 0, 8][..], &vec![0xff; 1 << 16]].concat();
    images.push(("gaps of a bit", gaps));
    for (what, image) in images {
        assert!(!read(&image, what) || image.len() == 8, "{what}");
        // As a state.
        let state = [&[200, 1, image.len() as u8][..], &image].concat();
        read(&state, what);
    }
}

#[test]
fn what_is_read_takes_no_more_than_is_said() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/datasketches");
    let mut readable = 0;
    for file in ["theirs", "ours"].iter().flat_map(|of| fs::read_dir(folder.join(of)).unwrap()) {
        let path = file.unwrap().path();
        let image = fs::read(&path).unwrap();
        readable += usize::from(read(&image, &path.display().to_string()));
        for at in 0..image.len().min(60) {
            for byte in [0x00, 0x01, 0x10, 0x80, 0xff, image[at].wrapping_add(1)] {
                let mut other = image.clone();
                other[at] = byte;
                read(&other, &path.display().to_string());
            }
        }
    }
    assert!(readable > 60, "{readable}");
}

/// The sketches that are largest beside their bytes.
#[test]
fn large_ones_are_as_large_as_is_said() {
    // A set that has just grown.
    let mut sketch = Hll::new(21).unwrap();
    (0..100_000).for_each(|n| sketch.insert_int(n));
    assert!(read(&sketch.to_bytes(), "coupons"));
    // Short names.
    let mut top = Top::new(Top::CAPACITY_MAX).unwrap();
    (0..98_000_u32).for_each(|n| top.insert(format!("{n:x}").as_bytes(), 1));
    assert!(read(&top.to_datasketches().unwrap(), "names"));
    let mut theta = ThetaSketch::new(14).unwrap();
    (0..200_000).for_each(|n| theta.insert_int(n));
    assert!(read(&theta.to_bytes().unwrap(), "hashes"));
    let mut kll = Kll::new(u16::MAX).unwrap();
    (0..300_000).for_each(|n| kll.insert(f64::from(n)));
    assert!(read(&kll.to_datasketches(), "values"));
    let mut hll = Hll::new(18).unwrap();
    (0..400_000).for_each(|n| hll.insert_int(n));
    assert!(read(&hll.to_bytes(), "registers"));
}

/// What a state says of its memory is what it takes, or more.
#[test]
fn memory_that_is_counted_is_what_is_held() {
    for k in [8, 64, 200, 4_000] {
        let mut state = Kll::new(k).unwrap();
        let before = HELD.get();
        let mut greatest = 0.0_f64;
        for n in 0..60_000_u32 {
            state.insert(f64::from(n.wrapping_mul(2_654_435_761)));
            let (held, told) = ((HELD.get() - before) as usize, state.heap_bytes());
            assert!(held <= told, "k {k}, {n} values: {held} bytes, {told} told");
            greatest = if n > 2 * u32::from(k) {
                greatest.max(told as f64 / held as f64)
            } else {
                greatest
            };
        }
        // It is not known which levels have room to spare; no more than that is told besides.
        assert!(greatest < 3.0, "k {k}: {greatest} times what is held");
        let other = state.clone();
        for _ in 0..20 {
            state.merge(&other);
            assert!((HELD.get() - before) as usize <= state.heap_bytes() + other.heap_bytes());
        }
    }
}
