//! Every string the engine has seen since it was opened, each with a small number.
//!
//! Invariants
//! 1. A [`Sym`] stands for the same string until the engine is closed; equal strings have equal
//!    syms. Syms are not stored: the log defines them anew in each segment, rows carry the text.
//! 2. A sym comes into the table after its text is set; who finds it there finds the text.
//! 3. The table only grows, by replacement. A reader with an older one can miss a string, never
//!    see a wrong one; a miss is asked again under the lock.
//!
//! Looking up takes no lock. A batch keeps a [`Reader`], and a thread those of the dictionaries that it looked
//! in last, so that the shared pointer to the table is touched only when the table has grown; a batch looks up many strings in steps
//! ([`tag`](Dictionary::tag), [`prefetch`](Reader::prefetch), [`approach`](Dictionary::approach),
//! [`intern_approached`](Dictionary::intern_approached)), because each is two cache misses away.

use crate::slots::{self, Slots};
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use crate::sync::{Mutex, OnceLock, RwLock, thread_local};
use compact_str::CompactString;
use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher as _};
use std::sync::Arc;

/// A string's number in this opening's dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub(crate) struct Sym(pub(crate) u32);

impl Sym {
    /// "No string here"; never given to one.
    pub(crate) const NONE: Sym = Sym(u32::MAX);
}

/// Chunks of one length; those that follow are twice as long, so that of many strings' places a fifth is empty
/// at most.
const ALIKE: usize = 4;
const CHUNKS: usize = 23 * ALIKE;
/// Strings in the chunks of the first length. A model (`sync.rs`) is to see chunks begun and tables
/// replaced, and the same hashes each time.
#[cfg(not(loom))]
const FIRST_CHUNKS: usize = 1 << 10;
#[cfg(loom)]
const FIRST_CHUNKS: usize = ALIKE;
#[cfg(not(loom))]
type Hasher = foldhash::quality::RandomState;
#[cfg(loom)]
type Hasher = foldhash::quality::FixedState;

pub(crate) struct Dictionary {
    /// No other of this process has it.
    id: usize,
    hasher: Hasher,
    table: RwLock<Arc<Slots>>,
    /// Counts replacements of the table.
    version: AtomicUsize,
    /// They never move ([`locate`]).
    chunks: [OnceLock<Chunk>; CHUNKS],
    /// The number of strings; held while one is added.
    len: Mutex<u32>,
    text_bytes: AtomicU64,
}

/// Apart, because recording looks at the second of every string and of some at the first.
struct Chunk {
    texts: Box<[Text]>,
    /// The segment of the log that holds a string's definition; 0 when none of now does.
    defined_in: Box<[AtomicU32]>,
}

/// Up to 24 bytes lie here, not on the heap: one cache miss less for most strings.
type Text = OnceLock<CompactString>;

/// A thread's or batch's view of the table.
pub(crate) struct Reader {
    table: Arc<Slots>,
    version: usize,
    is_near: bool,
}

/// Where a text is found, most likely ([`Dictionary::near`]).
#[derive(Clone, Copy)]
pub(crate) struct Near<'a> {
    tag: u32,
    likely: Option<(Sym, &'a Text)>,
}

/// A table of so many bytes, with its texts, stays in the cache of a processor that works with it.
const NEAR_BYTES: usize = 16 << 10;

/// Dictionaries that a thread keeps a reader of.
const READERS: usize = 4;

thread_local! {
    /// Each with the id of its dictionary, at the place that follows from it. A table that was replaced,
    /// or whose dictionary is gone, is held until another one takes its place.
    static LAST: RefCell<[Option<(usize, Reader)>; READERS]> = RefCell::default();
}

impl Dictionary {
    /// A dictionary with room for `expected` strings before its table first grows.
    pub(crate) fn new(expected: usize) -> Self {
        // Of the standard library, also in a model: nobody waits for it.
        static IDS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        Dictionary {
            id: IDS.fetch_add(1, Relaxed),
            hasher: Hasher::default(),
            table: RwLock::new(Arc::new(Slots::with_room(expected.max(FIRST_CHUNKS)))),
            version: AtomicUsize::new(0),
            chunks: std::array::from_fn(|_| OnceLock::new()),
            len: Mutex::new(0),
            text_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn reader(&self) -> Reader {
        let version = self.version.load(Acquire);
        Reader::of(self.table.read().clone(), version)
    }

    /// The number of `text`, given anew if it has none.
    #[inline]
    pub(crate) fn intern(&self, reader: &mut Reader, text: &str) -> Sym {
        self.intern_tagged(reader, self.tag(text), text.as_bytes())
    }

    /// The first step of looking up many strings: what the next ones need.
    #[inline]
    pub(crate) fn tag(&self, text: &str) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        // By itself: there is nothing behind it that its length would have to tell it from.
        hasher.write(text.as_bytes());
        (hasher.finish() >> 32) as u32
    }

    /// The third step: has the text found there fetched. Gives its number, [`Sym::NONE`] where there is none.
    #[inline]
    pub(crate) fn approach(&self, reader: &Reader, tag: u32) -> Sym {
        self.approach_in(&reader.table, tag).map_or(Sym::NONE, |(sym, _)| sym)
    }

    #[inline]
    fn approach_in(&self, table: &Slots, tag: u32) -> Option<(Sym, &Text)> {
        let sym = Sym(table.tagged(tag).next()?);
        let (chunk, at) = self.chunk(sym);
        let text = &chunk.texts[at];
        slots::prefetch(text);
        Some((sym, text))
    }

    /// The last step; the bytes are those of a text.
    #[inline]
    pub(crate) fn intern_approached(
        &self,
        reader: &mut Reader,
        likely: Sym,
        tag: u32,
        text: &[u8],
    ) -> Sym {
        if likely != Sym::NONE && same_text(self.text(likely).as_bytes(), text) {
            return likely;
        }
        self.intern_tagged(reader, tag, text)
    }

    /// The only step that is needed. The bytes are those of a text.
    #[inline]
    fn intern_tagged(&self, reader: &mut Reader, tag: u32, text: &[u8]) -> Sym {
        match self.find_in(&reader.table, tag, text) {
            Some(sym) => sym,
            None => self.add(reader, tag, text),
        }
    }

    /// The number of `text` if it has one.
    #[inline]
    pub(crate) fn find(&self, text: &str) -> Option<Sym> {
        let tag = self.tag(text);
        self.with_table(|table| self.find_in(table, tag, text.as_bytes()))
    }

    /// The first step of looking one up that is not needed at once: has the text fetched that it most likely is.
    #[inline]
    pub(crate) fn near(&self, text: &str) -> Near<'_> {
        let tag = self.tag(text);
        Near { tag, likely: self.with_table(|table| self.approach_in(table, tag)) }
    }

    /// The second step: the number of `text` if it has one.
    #[inline]
    pub(crate) fn find_near(&self, Near { tag, likely }: Near<'_>, text: &str) -> Option<Sym> {
        let (likely, found) = likely?;
        if found.get().is_some_and(|found| same_text(found.as_bytes(), text.as_bytes())) {
            return Some(likely);
        }
        self.with_table(|table| self.find_in(table, tag, text.as_bytes()))
    }

    /// Calls `look` with the table of now.
    #[inline]
    fn with_table<T>(&self, look: impl FnOnce(&Slots) -> T) -> T {
        LAST.with(|last| {
            let last = &mut last.borrow_mut()[self.id % READERS];
            let version = self.version.load(Acquire);
            let reader = match last {
                Some((id, reader)) if *id == self.id && reader.version == version => reader,
                _ => &mut last.insert((self.id, self.reader())).1,
            };
            look(&reader.table)
        })
    }

    #[inline]
    pub(crate) fn text(&self, sym: Sym) -> &str {
        let (chunk, at) = self.chunk(sym);
        chunk.texts[at].get().expect("invariant 2: a sym that was given out has its text")
    }

    /// The segment whose definitions include `sym`, 0 for none.
    #[inline]
    pub(crate) fn defined_in(&self, sym: Sym) -> u32 {
        let (chunk, at) = self.chunk(sym);
        chunk.defined_in[at].load(Relaxed)
    }

    /// Notes that segment `segment` defines `sym`; the log's writer calls it under its lock.
    pub(crate) fn define_in(&self, sym: Sym, epoch: u32) {
        let (chunk, at) = self.chunk(sym);
        chunk.defined_in[at].store(epoch, Relaxed);
    }

    pub(crate) fn len(&self) -> usize {
        *self.len.lock() as usize
    }

    /// An estimate of the memory held, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let chunks = self.chunks.iter().filter_map(OnceLock::get).map(|chunk| chunk.texts.len());
        chunks.sum::<usize>() * (size_of::<Text>() + size_of::<AtomicU32>())
            + self.table.read().bytes()
            + self.text_bytes.load(Relaxed) as usize
    }

    /// The chunk of a string and its place in it.
    #[inline]
    fn chunk(&self, sym: Sym) -> (&Chunk, usize) {
        let (chunk, at) = locate(sym);
        (self.chunks[chunk].get().expect("invariant 2: the chunk of a given sym is there"), at)
    }

    #[inline]
    fn find_in(&self, table: &Slots, tag: u32, text: &[u8]) -> Option<Sym> {
        table.tagged(tag).map(Sym).find(|sym| same_text(self.text(*sym).as_bytes(), text))
    }

    #[cold]
    fn add(&self, reader: &mut Reader, tag: u32, text: &[u8]) -> Sym {
        let mut len = self.len.lock();
        if reader.version != self.version.load(Acquire) {
            *reader = self.reader();
        }
        if let Some(sym) = self.find_in(&reader.table, tag, text) {
            return sym;
        }
        assert!(*len < u32::MAX - 1, "a dictionary numbers at most 2^32 - 2 strings");
        let sym = Sym(*len);
        let (chunk, at) = locate(sym);
        let chunk = self.chunks[chunk].get_or_init(|| Chunk::of_len(len_of(chunk)));
        let text = std::str::from_utf8(text).expect("the bytes of a text, as the caller says");
        let text = CompactString::new(text);
        if text.is_heap_allocated() {
            // A heap block has its own header and is rounded up to 16 bytes.
            let bytes = (text.capacity() as u64 + 8).next_multiple_of(16);
            self.text_bytes.fetch_add(bytes, Relaxed);
        }
        chunk.texts[at].set(text).expect("the lock is held and this number is new");
        *len += 1;
        if !reader.table.has_room_for(*len as usize) {
            let grown = Arc::new(reader.table.grown());
            *self.table.write() = grown.clone();
            self.version.fetch_add(1, Release);
            *reader = Reader::of(grown, self.version.load(Acquire));
        }
        reader.table.insert(tag, sym.0);
        sym
    }
}

impl Reader {
    fn of(table: Arc<Slots>, version: usize) -> Self {
        Reader { is_near: table.bytes() <= NEAR_BYTES, table, version }
    }

    /// Whether a look-up costs less than what spares it cache misses.
    #[inline]
    pub(crate) fn is_near(&self) -> bool {
        self.is_near
    }

    #[cfg(test)]
    pub(crate) fn far(self) -> Self {
        Reader { is_near: false, ..self }
    }

    /// The second step: has the string's place in the table fetched.
    #[inline]
    pub(crate) fn prefetch(&self, tag: u32) {
        self.table.prefetch(tag);
    }
}

impl Chunk {
    fn of_len(len: usize) -> Self {
        Chunk {
            texts: std::iter::repeat_with(Text::default).take(len).collect(),
            defined_in: std::iter::repeat_with(AtomicU32::default).take(len).collect(),
        }
    }
}

/// Whether two texts are equal. Most are short, and then a call costs more than the comparison.
#[inline]
pub(crate) fn same_text(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && match a.len() {
            4..=8 => same_ends::<4>(a, b),
            9..=16 => same_ends::<8>(a, b),
            17..=32 => same_ends::<16>(a, b),
            0..4 => a.iter().eq(b),
            _ => a == b,
        }
}

/// Whether two texts of one length, from `N` bytes to twice that, are equal.
#[inline]
pub(crate) fn same_ends<const N: usize>(a: &[u8], b: &[u8]) -> bool {
    a.first_chunk::<N>() == b.first_chunk() && a.last_chunk::<N>() == b.last_chunk()
}

/// The chunk of a string and its place in it.
#[inline]
fn locate(sym: Sym) -> (usize, usize) {
    let n = sym.0 as usize + FIRST_CHUNKS;
    let len_bits = n.ilog2() - ALIKE.ilog2();
    let doublings = (n.ilog2() - FIRST_CHUNKS.ilog2()) as usize;
    // Behind its highest bit: which of those that are alike, and the place.
    let chunk = doublings * ALIKE + ((n >> len_bits) & (ALIKE - 1));
    (chunk, n & ((1 << len_bits) - 1))
}

/// How many strings a chunk holds.
fn len_of(chunk: usize) -> usize {
    (FIRST_CHUNKS / ALIKE) << (chunk / ALIKE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_lie_one_behind_the_other() {
        let mut expected = (0, 0);
        for sym in 0..100_000 {
            assert_eq!(locate(Sym(sym)), expected, "of {sym}");
            expected.1 += 1;
            if expected.1 == len_of(expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
        let (last, at) = locate(Sym(u32::MAX - 1));
        assert!(last < CHUNKS && at < len_of(last));
    }

    #[test]
    fn a_text_is_not_taken_for_another_of_its_tag() {
        let dictionary = Dictionary::new(0);
        let mut reader = dictionary.reader();
        let (tag, [a, b]) = (7, [b"aa", b"ab"]);
        let nothing = dictionary.approach(&reader, tag);
        assert_eq!(nothing, Sym::NONE);
        let of_a = dictionary.intern_approached(&mut reader, nothing, tag, a);
        let likely = dictionary.approach(&reader, tag);
        assert_eq!(likely, of_a);
        let of_b = dictionary.intern_approached(&mut reader, likely, tag, b);
        assert_ne!(of_b, of_a);
        for (text, sym) in [(a, of_a), (b, of_b)] {
            let likely = dictionary.approach(&reader, tag);
            assert_eq!(dictionary.intern_approached(&mut reader, likely, tag, text), sym);
            let text = std::str::from_utf8(text).unwrap();
            // Whichever of the two lies first in the table.
            for found in [of_a, of_b] {
                let (chunk, at) = dictionary.chunk(found);
                let near = Near { tag, likely: Some((found, &chunk.texts[at])) };
                assert_eq!(dictionary.find_near(near, text), Some(sym));
                assert_eq!(dictionary.find_near(near, "never seen"), None);
            }
        }
    }

    #[test]
    fn threads_that_intern_the_same_strings_agree() {
        // Miri runs a thousand times slower.
        let strings = if cfg!(miri) { 300 } else { 20_000 };
        let dictionary = Dictionary::new(0);
        let syms: Vec<Vec<Sym>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut reader = dictionary.reader();
                        (0..strings)
                            .map(|i| dictionary.intern(&mut reader, &format!("s{i}")))
                            .collect()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(dictionary.len(), strings);
        for (i, sym) in syms[0].iter().enumerate() {
            assert!(syms.iter().all(|other| other[i] == *sym));
            assert_eq!(dictionary.text(*sym), format!("s{i}"));
            assert_eq!(dictionary.find(&format!("s{i}")), Some(*sym));
            let text = format!("s{i}");
            assert_eq!(dictionary.find_near(dictionary.near(&text), &text), Some(*sym));
        }
        assert_eq!(dictionary.find_near(dictionary.near("never seen"), "never seen"), None);
        assert_eq!(dictionary.find("never seen"), None);
    }
}
