//! Every string the engine has seen since it was opened, each with a small number.
//!
//! Invariants
//! 1. A [`Sym`] stands for the same string until the engine is closed; equal strings have equal
//!    syms. Syms are not stored: the log defines them anew in each segment, rows carry the text.
//! 2. A slot of the table is published (`Release`) after its entry's text is set; a reader that
//!    sees the slot (`Acquire`) sees the text.
//! 3. The table only grows, by replacement. A reader with an older one can miss a string, never
//!    see a wrong one; a miss is asked again under the lock.
//!
//! Looking up takes no lock: open addressing over atomic words, `tag (32) | sym + 1 (32)`, the tag
//! being the upper half of the hash and the place its lower bits. A batch keeps a [`Reader`], so
//! that the shared pointer to the table is touched only when the table has grown.

use compact_str::CompactString;
use parking_lot::{Mutex, RwLock};
use std::hash::BuildHasher;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};

/// A string's number in this opening's dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub(crate) struct Sym(pub(crate) u32);

impl Sym {
    /// "No string here"; never given to one.
    pub(crate) const NONE: Sym = Sym(u32::MAX);
}

const CHUNKS: usize = 23;
const FIRST_CHUNK: usize = 1 << 10;

pub(crate) struct Dictionary {
    hasher: foldhash::quality::RandomState,
    table: RwLock<Arc<Table>>,
    /// Counts replacements of the table.
    version: AtomicUsize,
    /// Chunk `c` holds `FIRST_CHUNK << c` entries; entries never move.
    entries: [OnceLock<Box<[Entry]>>; CHUNKS],
    /// The number of strings; held while one is added.
    len: Mutex<u32>,
    text_bytes: AtomicU64,
}

#[derive(Default)]
struct Entry {
    /// Up to 24 bytes lie here, not on the heap: one cache miss less for most strings.
    text: OnceLock<CompactString>,
    /// The segment of the log that holds this string's definition; 0 when none of now does.
    defined_in: AtomicU32,
}

struct Table {
    slots: Box<[AtomicU64]>,
}

/// A thread's or batch's view of the table.
pub(crate) struct Reader {
    table: Arc<Table>,
    version: usize,
}

impl Dictionary {
    /// A dictionary with room for `expected` strings before its table first grows.
    pub(crate) fn new(expected: usize) -> Self {
        Dictionary {
            hasher: foldhash::quality::RandomState::default(),
            table: RwLock::new(Arc::new(Table::new((expected * 2).max(2_048).next_power_of_two()))),
            version: AtomicUsize::new(0),
            entries: [const { OnceLock::new() }; CHUNKS],
            len: Mutex::new(0),
            text_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn reader(&self) -> Reader {
        let version = self.version.load(Acquire);
        Reader { table: self.table.read().clone(), version }
    }

    /// The number of `text`, given anew if it has none.
    #[inline]
    pub(crate) fn intern(&self, reader: &mut Reader, text: &str) -> Sym {
        let tag = self.tag(text);
        if let Some(sym) = self.probe(&reader.table, tag, text) {
            return sym;
        }
        self.add(reader, tag, text)
    }

    /// The number of `text` if it has one.
    pub(crate) fn find(&self, text: &str) -> Option<Sym> {
        let table = self.table.read().clone();
        self.probe(&table, self.tag(text), text)
    }

    pub(crate) fn text(&self, sym: Sym) -> &str {
        self.entry(sym).text.get().expect("invariant 2: a sym that was given out has its text")
    }

    /// The segment whose definitions include `sym`, 0 for none.
    #[inline]
    pub(crate) fn defined_in(&self, sym: Sym) -> u32 {
        self.entry(sym).defined_in.load(Relaxed)
    }

    /// Notes that segment `segment` defines `sym`; the log's writer calls it under its lock.
    pub(crate) fn define_in(&self, sym: Sym, segment: u32) {
        self.entry(sym).defined_in.store(segment, Relaxed);
    }

    pub(crate) fn len(&self) -> usize {
        *self.len.lock() as usize
    }

    /// An estimate of the memory held, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let chunks = self.entries.iter().filter_map(OnceLock::get).map(|chunk| chunk.len());
        chunks.sum::<usize>() * size_of::<Entry>()
            + self.table.read().slots.len() * size_of::<AtomicU64>()
            + self.text_bytes.load(Relaxed) as usize
    }

    #[inline]
    fn tag(&self, text: &str) -> u32 {
        (self.hasher.hash_one(text.as_bytes()) >> 32) as u32
    }

    #[inline]
    fn entry(&self, sym: Sym) -> &Entry {
        let (chunk, at) = locate(sym);
        &self.entries[chunk].get().expect("invariant 2: the chunk of a given sym is there")[at]
    }

    #[inline]
    fn probe(&self, table: &Table, tag: u32, text: &str) -> Option<Sym> {
        let mask = table.slots.len() - 1;
        let mut at = tag as usize & mask;
        loop {
            let slot = table.slots[at].load(Acquire);
            if slot == 0 {
                return None;
            }
            if (slot >> 32) as u32 == tag {
                let sym = Sym(slot as u32 - 1);
                if self.text(sym) == text {
                    return Some(sym);
                }
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn add(&self, reader: &mut Reader, tag: u32, text: &str) -> Sym {
        let mut len = self.len.lock();
        if reader.version != self.version.load(Acquire) {
            *reader = self.reader();
        }
        if let Some(sym) = self.probe(&reader.table, tag, text) {
            return sym;
        }
        assert!(*len < u32::MAX - 1, "a dictionary numbers at most 2^32 - 2 strings");
        let sym = Sym(*len);
        let (chunk, at) = locate(sym);
        let entries = self.entries[chunk].get_or_init(|| {
            std::iter::repeat_with(Entry::default).take(FIRST_CHUNK << chunk).collect()
        });
        let text = CompactString::new(text);
        if text.is_heap_allocated() {
            // A heap block has its own header and is rounded up to 16 bytes.
            let bytes = (text.capacity() as u64 + 8).next_multiple_of(16);
            self.text_bytes.fetch_add(bytes, Relaxed);
        }
        entries[at].text.set(text).expect("the lock is held and this number is new");
        *len += 1;
        if (*len as usize) * 2 > reader.table.slots.len() {
            let grown = Arc::new(reader.table.grown());
            *self.table.write() = grown.clone();
            self.version.fetch_add(1, Release);
            *reader = Reader { table: grown, version: self.version.load(Acquire) };
        }
        reader.table.insert(u64::from(tag) << 32 | u64::from(sym.0 + 1));
        sym
    }
}

/// The chunk of an entry and its place in it.
#[inline]
fn locate(sym: Sym) -> (usize, usize) {
    let n = sym.0 as usize + FIRST_CHUNK;
    let chunk = (n.ilog2() - FIRST_CHUNK.ilog2()) as usize;
    (chunk, n - (FIRST_CHUNK << chunk))
}

impl Table {
    fn new(slots: usize) -> Self {
        Table { slots: std::iter::repeat_with(AtomicU64::default).take(slots).collect() }
    }

    /// Called under the dictionary's lock only.
    fn insert(&self, slot: u64) {
        let mask = self.slots.len() - 1;
        let mut at = (slot >> 32) as usize & mask;
        while self.slots[at].load(Relaxed) != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at].store(slot, Release);
    }

    fn grown(&self) -> Table {
        let grown = Table::new(self.slots.len() * 2);
        for slot in self.slots.iter().map(|slot| slot.load(Relaxed)).filter(|slot| *slot != 0) {
            grown.insert(slot);
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_intern_the_same_strings_agree() {
        let dictionary = Dictionary::new(0);
        let syms: Vec<Vec<Sym>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut reader = dictionary.reader();
                        (0..20_000)
                            .map(|i| dictionary.intern(&mut reader, &format!("s{i}")))
                            .collect()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(dictionary.len(), 20_000);
        for (i, sym) in syms[0].iter().enumerate() {
            assert!(syms.iter().all(|other| other[i] == *sym));
            assert_eq!(dictionary.text(*sym), format!("s{i}"));
            assert_eq!(dictionary.find(&format!("s{i}")), Some(*sym));
        }
        assert_eq!(dictionary.find("never seen"), None);
    }
}
