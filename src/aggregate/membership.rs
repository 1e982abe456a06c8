//! Membership: was it seen before? Exactly while there are few, then with a rate of false yeses.
//!
//! The hashes themselves are kept while they take no more room than the filter would; then the filter
//! is made of them, once, with its final size. It is the split block Bloom filter of Putze, Sanders and
//! Singler, "Cache-, hash- and space-efficient Bloom filters" (WEA 2007, section 4), in the layout and
//! with the salts that the format Parquet publishes; only the hash is ours, XXH3-64 in place of
//! XXH64, since every other sketch goes by that one.
//!
//! # Invariants
//!
//! 1. The state is a function of the set of items and of the size: hashes, in any order, while they
//!    are at most three a block, else the OR of their masks. So its bytes are the same in any order
//!    and grouping of inserts and merges.
//! 2. Of two sizes the smaller one is that of both together. The number of blocks is a power of two
//!    and a block is chosen by the upper bits of a hash, so the OR of neighbours is the filter of half
//!    the size, bit for bit; merging states of any two sizes is associative and commutative therefore.
//! 3. Nothing that was inserted is ever denied.
//!
//! # The rate of false yeses
//!
//! A block has 8 words of 32 bits; an item sets one bit in each word of one block. Where a block was
//! chosen i times a stranger to it is taken for a member with `(1 - (31/32)^i)^8`, and i is Poisson
//! with mean λ = items / blocks, so the rate is `sum of Poisson(i; λ) · (1 - (31/32)^i)^8`. The size is
//! the least power of two of blocks for which that is no more than what was asked for. What a state says
//! of itself is not that but the share of hashes that it would affirm as it is, as it is expected: the mean over its
//! blocks of the product of `bits set / 32` over their words.
//!
//! # Bytes
//!
//! ```text
//! membership := 1 + log2(blocks) (1), or 0 where no size is chosen yet and nothing follows
//!               · form (1): 0 hashes, 1 filter
//! hashes     := n (LEB128) · hash (8) × n, ascending           n <= 3 · blocks
//! filter     := block (32) × blocks                            of 8 words of 32 bits
//! ```
//!
//! # Why so
//!
//! A chain of growing filters (Almeida et al., "Scalable Bloom filters", 2007) needs no number to
//! begin with, but which filter of the chain has an item depends on when it came: no two orders would
//! give the same bytes, and a chain of n answers n times as slowly. Hashes kept until three a block make
//! it cheap to expect much: a state for a hundred million that has met ten has 128 bytes on the heap.
//! Who meets more than was expected has a rate that is higher, and says so.
//!
//! # Where else it would pay
//!
//! Measured by `cargo bench --bench heavy`, and not done:
//! - The deduplication window must not take a new id for an old one, so a filter could only stand
//!   before its map. A look-up there costs 170 to 230 ns with a million ids, new or not, and a new id is
//!   entered by the same step; a filter would add 17 ns to each that is there and 35 to each that is new, and
//!   save nothing.
//! - Segments of the log, to pass over those that do not have a key's values: in the shop's log a part
//!   of 20,000 events has 20 % of the users and 63 % of the products, and a filter of 4 KB (1 % false yeses)
//!   leads to 20.2 % and 63.0 % of the parts. That is worth it for rare values, where histories of one key
//!   are read from the log; the definitions that a segment has anyway say the same exactly in 23 KB, but
//!   lie scattered over it. Nothing reads the log so yet.
//!
//! Next: `aggregate.rs`.

use super::hash::hash;
use super::{Aggregate, Malformed};
use crate::codec;
use crate::error::{Error, Result};
use crate::time::Timestamp;

#[cfg(test)]
mod tests;

/// A set of items that answers whether one was inserted before.
///
/// Exact up to three items for 32 bytes of its greatest size; behind that an item that was never
/// inserted is affirmed with [a rate](Membership::false_positive_rate) which is at most the one asked
/// for as long as no more came than expected. An item that was inserted is always affirmed. 32 bytes
/// when empty; at most 32 bytes a block on the heap, for a rate of 1 % 10 to 21 bits for each expected
/// item.
///
/// ```
/// use quipu::aggregate::Membership;
///
/// let mut seen = Membership::new(1_000_000, 0.01)?;
/// assert!(seen.insert(b"order-1"), "it is new");
/// assert!(!seen.insert(b"order-1"));
/// assert!(seen.contains(b"order-1") && !seen.contains(b"order-2"));
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Membership {
    /// 1 + log2 of the blocks; 0: that of whichever state it is merged with, or the default.
    size: u8,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Hashes(Hashes),
    Filter(Box<[Block]>),
}

/// A table of hashes: a hash lies at the place that its upper bits choose, or behind it.
#[derive(Clone, Debug, Default)]
struct Hashes {
    /// 0 where there is none.
    slots: Box<[u64]>,
    len: u32,
    /// The hash 0 is one of them.
    zero: bool,
}

type Block = [u32; 8];

/// The salts of the words, as Parquet's specification has them.
const SALTS: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];
/// Shifts by numbers that differ are slower than looking them up, where there are no vectors of them.
const BITS: [u32; 32] = {
    let mut bits = [0; 32];
    let mut i = 0;
    while i < 32 {
        bits[i] = 1 << i;
        i += 1;
    }
    bits
};
const HASHES_PER_BLOCK: usize = 3;
const SLOTS_PER_BLOCK: usize = 4;
const SLOTS_MIN: usize = 4;
/// Up to so many hashes the table is that which they would have grown.
const GROWN_MAX: usize = 8_192;
/// A gigabyte.
const SIZE_MAX: u8 = 26;
const BLOCK_BYTES: usize = size_of::<Block>();

fn blocks(size: u8) -> usize {
    1 << (size.max(1) - 1)
}

#[inline]
fn mask(hash: u64) -> Block {
    SALTS.map(|salt| BITS[((hash as u32).wrapping_mul(salt) >> 27) as usize])
}

/// The place among so many that the upper bits of a hash choose.
#[inline]
fn place(hash: u64, of: usize) -> usize {
    (((hash >> 32) * of as u64) >> 32) as usize
}

/// The expected rate of false yeses with so many items a block.
fn expected_rate(load: f64) -> f64 {
    // Every bit is set by then, to within 10^-13.
    if load > 1_000.0 {
        return 1.0;
    }
    // Beyond 20 standard deviations there is nothing.
    let last = (load + 20.0 * load.sqrt() + 40.0) as u32;
    let mut log_poisson = -load;
    let mut rate = 0.0;
    for i in 1..=last {
        log_poisson += (load / f64::from(i)).ln();
        rate += log_poisson.exp() * (1.0 - (31.0_f64 / 32.0).powi(i as i32)).powi(8);
    }
    rate.min(1.0)
}

impl Membership {
    /// The number of items that is expected where none is given.
    pub const EXPECTED: u64 = 1_000_000;
    /// The rate of false yeses where none is given.
    pub const RATE: f64 = 0.01;

    /// An empty set that answers with at most this rate of false yeses as long as no more than so many
    /// items come.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) where nothing is expected, the rate is not between 0 and
    /// 1, or a gigabyte would not do.
    ///
    /// ```
    /// use quipu::aggregate::Membership;
    ///
    /// assert!(Membership::new(1_000, 0.001).is_ok());
    /// assert!(Membership::new(1_000, 1.0).is_err());
    /// ```
    pub fn new(expected: u64, rate: f64) -> Result<Self> {
        if expected == 0 || !(rate > 0.0 && rate < 1.0) {
            return Err(Error::invalid(format!(
                "a set of {expected} items with a rate of {rate}; it is one item at least, and a \
                 rate between 0 and 1"
            )));
        }
        let fits = |size: &u8| expected_rate(expected as f64 / blocks(*size) as f64) <= rate;
        let size = (1..=SIZE_MAX).find(fits).ok_or_else(|| {
            Error::invalid(format!(
                "a set of {expected} items with a rate of {rate} takes more than a gigabyte"
            ))
        })?;
        Ok(Membership { size, content: Content::default() })
    }

    /// An empty set of a size that another has.
    pub(crate) fn of_size(size: u8) -> Self {
        Membership { size, content: Content::default() }
    }

    /// 1 + log2 of its blocks, 0 where no size is chosen yet.
    pub(crate) fn size(&self) -> u8 {
        self.size
    }

    /// Inserts an item. `true` if it surely was not there; `false` if it was, or is taken for one that
    /// was. O(1).
    ///
    /// ```
    /// # let mut seen = quipu::aggregate::Membership::default();
    /// assert!(seen.insert(b"a"));
    /// assert!(!seen.insert(b"a"));
    /// ```
    #[inline]
    pub fn insert(&mut self, item: &[u8]) -> bool {
        self.insert_hashed(hash(item))
    }

    /// The same for an item whose [hash](super::hash) is known.
    #[inline]
    pub(crate) fn insert_hashed(&mut self, hash: u64) -> bool {
        match &mut self.content {
            Content::Filter(filter) => set(filter, hash),
            Content::Hashes(_) => self.insert_exact(hash),
        }
    }

    fn insert_exact(&mut self, hash: u64) -> bool {
        if self.size == 0 {
            self.size = Self::new(Self::EXPECTED, Self::RATE).map_or(SIZE_MAX, |new| new.size);
        }
        let blocks = blocks(self.size);
        let Content::Hashes(hashes) = &mut self.content else { return false };
        if !hashes.insert(hash, SLOTS_PER_BLOCK * blocks) {
            return false;
        }
        if hashes.len() > HASHES_PER_BLOCK * blocks {
            self.condense();
        }
        true
    }

    /// Makes the filter of the hashes.
    fn condense(&mut self) {
        if let Content::Hashes(hashes) = &self.content {
            let mut filter = vec![Block::default(); blocks(self.size)].into_boxed_slice();
            hashes.iter().for_each(|hash| {
                set(&mut filter, hash);
            });
            self.content = Content::Filter(filter);
        }
    }

    /// Whether an item was inserted: never denied of one that was, and affirmed of one that was not with
    /// [that rate](Membership::false_positive_rate). O(1).
    ///
    /// ```
    /// # let mut seen = quipu::aggregate::Membership::default();
    /// seen.insert(b"a");
    /// assert!(seen.contains(b"a") && !seen.contains(b"b"));
    /// ```
    #[inline]
    pub fn contains(&self, item: &[u8]) -> bool {
        self.contains_hashed(hash(item))
    }

    /// The same for an item whose [hash](super::hash) is known.
    #[inline]
    pub(crate) fn contains_hashed(&self, hash: u64) -> bool {
        match &self.content {
            Content::Hashes(hashes) => hashes.contains(hash),
            Content::Filter(filter) => covers(&filter[place(hash, filter.len())], &mask(hash)),
        }
    }

    /// How often an item that was not inserted is taken for one that was, as things are: a number
    /// between 0 and 1. O(size).
    ///
    /// ```
    /// use quipu::aggregate::Membership;
    ///
    /// let mut seen = Membership::new(1_000, 0.01)?;
    /// (0..1_000_u32).for_each(|i| {
    ///     seen.insert(&i.to_le_bytes());
    /// });
    /// assert!(seen.false_positive_rate() < 0.01);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn false_positive_rate(&self) -> f64 {
        match &self.content {
            Content::Hashes(hashes) => hashes.len() as f64 / 2_f64.powi(64),
            Content::Filter(filter) => {
                let share = |word: &u32| f64::from(word.count_ones()) / 32.0;
                let of = |block: &Block| block.iter().map(share).product::<f64>();
                filter.iter().map(of).sum::<f64>() / filter.len() as f64
            }
        }
    }

    /// The number of different items, as long as answers are exact but for hashes that are equal.
    pub fn exact_len(&self) -> Option<u64> {
        match &self.content {
            Content::Hashes(hashes) => Some(hashes.len() as u64),
            Content::Filter(_) => None,
        }
    }

    /// Brings the state to a smaller size, as if it had been of that size always.
    fn shrink_to(&mut self, size: u8) {
        let apart = blocks(self.size) / blocks(size);
        self.size = size;
        match &mut self.content {
            Content::Hashes(hashes) if hashes.len() > HASHES_PER_BLOCK * blocks(size) => {
                self.condense();
            }
            Content::Filter(filter) if apart > 1 => {
                let folded = filter.chunks(apart).map(|group| {
                    group.iter().fold(Block::default(), |mut all, block| {
                        or(&mut all, block);
                        all
                    })
                });
                *filter = folded.collect();
            }
            Content::Hashes(_) | Content::Filter(_) => {}
        }
    }
}

/// Whether a bit was missing.
#[inline]
fn set(filter: &mut [Block], hash: u64) -> bool {
    let (block, mask) = (&mut filter[place(hash, filter.len())], mask(hash));
    if covers(block, &mask) {
        return false;
    }
    or(block, &mask);
    true
}

/// Whether a block has all bits of a mask.
#[inline]
fn covers(block: &Block, mask: &Block) -> bool {
    block.iter().zip(mask).fold(0, |missing, (word, bit)| missing | (bit & !word)) == 0
}

fn or(block: &mut Block, other: &Block) {
    block.iter_mut().zip(other).for_each(|(word, other)| *word |= other);
}

impl Default for Content {
    fn default() -> Self {
        Content::Hashes(Hashes::default())
    }
}

impl Hashes {
    fn len(&self) -> usize {
        self.len as usize + usize::from(self.zero)
    }

    fn iter(&self) -> impl Iterator<Item = u64> {
        let zero = self.zero.then_some(0);
        zero.into_iter().chain(self.slots.iter().copied().filter(|hash| *hash != 0))
    }

    #[inline]
    fn contains(&self, hash: u64) -> bool {
        if hash == 0 || self.slots.is_empty() {
            return hash == 0 && self.zero;
        }
        let mut at = place(hash, self.slots.len());
        while self.slots[at] != 0 {
            if self.slots[at] == hash {
                return true;
            }
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        false
    }

    /// Whether it is new. A table of `most` slots is large enough for all that come.
    fn insert(&mut self, hash: u64, most: usize) -> bool {
        if hash == 0 {
            return !std::mem::replace(&mut self.zero, true);
        }
        if self.contains(hash) {
            return false;
        }
        if (self.len as usize + 1) * SLOTS_PER_BLOCK > self.slots.len() * HASHES_PER_BLOCK {
            let room = (self.slots.len() * 2).clamp(SLOTS_MIN, most.max(SLOTS_MIN));
            // One more than three a block can come, into a table that is full then and has a place yet.
            let room = room.max(self.len as usize + 2);
            let old = std::mem::replace(&mut self.slots, vec![0; room].into());
            old.iter().filter(|hash| **hash != 0).for_each(|hash| self.put(*hash));
        }
        self.put(hash);
        self.len += 1;
        true
    }

    fn put(&mut self, hash: u64) {
        let mut at = place(hash, self.slots.len());
        while self.slots[at] != 0 {
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        self.slots[at] = hash;
    }

    fn sorted(&self) -> Vec<u64> {
        let mut sorted: Vec<u64> = self.iter().collect();
        sorted.sort_unstable();
        sorted
    }
}

impl PartialEq for Membership {
    fn eq(&self, other: &Self) -> bool {
        self.size == other.size
            && match (&self.content, &other.content) {
                (Content::Hashes(a), Content::Hashes(b)) => {
                    a.len() == b.len() && a.iter().all(|hash| b.contains(hash))
                }
                (Content::Filter(a), Content::Filter(b)) => a == b,
                _ => false,
            }
    }
}

impl Aggregate for Membership {
    type Input<'a> = &'a [u8];

    #[inline]
    fn observe(&mut self, item: Self::Input<'_>, _time: Timestamp) {
        self.insert(item);
    }

    fn merge(&mut self, other: &Self) {
        if other.size == 0 {
            return;
        }
        if self.size == 0 {
            self.clone_from(other);
            return;
        }
        if other.size < self.size {
            self.shrink_to(other.size);
        }
        match (&mut self.content, &other.content) {
            (_, Content::Hashes(hashes)) => hashes.iter().for_each(|hash| {
                self.insert_hashed(hash);
            }),
            (Content::Hashes(_), Content::Filter(_)) => {
                self.condense();
                self.merge(other);
            }
            (Content::Filter(filter), Content::Filter(other)) => {
                let apart = other.len() / filter.len();
                for (block, group) in filter.iter_mut().zip(other.chunks(apart)) {
                    for other in group {
                        or(block, other);
                    }
                }
            }
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.size);
        match &self.content {
            _ if self.size == 0 => {}
            Content::Hashes(hashes) => {
                out.push(0);
                codec::put_u64(out, hashes.len() as u64);
                for hash in hashes.sorted() {
                    out.extend_from_slice(&hash.to_le_bytes());
                }
            }
            Content::Filter(filter) => {
                out.push(1);
                let words = filter.iter().flatten();
                out.reserve(filter.len() * BLOCK_BYTES);
                words.for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
            }
        }
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let [size] = codec::take_array(bytes)?;
        if size == 0 {
            return Ok(Membership::default());
        }
        if size > SIZE_MAX {
            return Err(Malformed("a filter is greater than there are"));
        }
        let content = match codec::take_array(bytes)? {
            [0] => Content::Hashes(decode_hashes(bytes, blocks(size))?),
            [1] => Content::Filter(decode_filter(bytes, blocks(size))?),
            _ => return Err(Malformed("a set is of hashes or a filter")),
        };
        Ok(Membership { size, content })
    }

    fn heap_bytes(&self) -> usize {
        match &self.content {
            Content::Hashes(hashes) => size_of_val(&*hashes.slots),
            Content::Filter(filter) => size_of_val(&**filter),
        }
    }
}

fn decode_hashes(bytes: &mut &[u8], blocks: usize) -> Result<Hashes, Malformed> {
    let n = codec::take_count(bytes, size_of::<u64>())?;
    if n > HASHES_PER_BLOCK * blocks {
        return Err(Malformed("more hashes than a filter of their size would have"));
    }
    let listed = codec::take(bytes, n * size_of::<u64>())?;
    let listed = listed.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
    if !listed.clone().is_sorted_by(|a, b| a < b) {
        return Err(Malformed("hashes are not in order"));
    }
    let zero = listed.clone().next() == Some(0);
    let len = n - usize::from(zero);
    // A large table would otherwise take more than twice the bytes.
    let room = if n > GROWN_MAX { n + n / 3 + 1 } else { grown(len, SLOTS_PER_BLOCK * blocks) };
    Ok(Hashes { slots: laid_out(listed.filter(|hash| *hash != 0), room), len: len as u32, zero })
}

/// The slots that a table has when so many were inserted, one by one.
fn grown(len: usize, most: usize) -> usize {
    let mut room = 0;
    while len * SLOTS_PER_BLOCK > room * HASHES_PER_BLOCK {
        let held = room * HASHES_PER_BLOCK / SLOTS_PER_BLOCK;
        room = (room * 2).clamp(SLOTS_MIN, most.max(SLOTS_MIN)).max(held + 2);
    }
    room
}

/// A table of hashes that are in order, in one pass, however many have the same place: their places are in
/// order, too, so each lies at its own or behind the one before; those for whom the end is too near lie in
/// the first slots that are free.
fn laid_out(hashes: impl Iterator<Item = u64>, room: usize) -> Box<[u64]> {
    let mut slots = vec![0; room].into_boxed_slice();
    let (mut next, mut front) = (0, 0);
    for hash in hashes {
        let at = place(hash, room).max(next);
        if at < room {
            slots[at] = hash;
            next = at + 1;
        } else {
            while slots[front] != 0 {
                front += 1;
            }
            slots[front] = hash;
        }
    }
    slots
}

fn decode_filter(bytes: &mut &[u8], blocks: usize) -> Result<Box<[Block]>, Malformed> {
    let words = codec::take(bytes, blocks * BLOCK_BYTES)?.as_chunks::<4>().0;
    let filter: Box<[Block]> =
        words.as_chunks::<8>().0.iter().map(|block| block.map(u32::from_le_bytes)).collect();
    let whole =
        |block: &Block| block.iter().all(|word| *word == 0) || block.iter().all(|word| *word != 0);
    if !filter.iter().all(whole) {
        return Err(Malformed("a block has bits in some words and none in others"));
    }
    if filter.iter().all(|block| block[0] == 0) {
        return Err(Malformed("a filter is empty"));
    }
    Ok(filter)
}
