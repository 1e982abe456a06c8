//! An item in sixteen bytes: itself, if it is short, else its hash and where it lies.
//!
//! Invariants
//! 1. A short item (15 bytes at most) is its bytes, most significant first, zeros, and its length in the
//!    last byte; so short items are equal when the words are, and sort as their bytes do.
//! 2. A long one is its hash, and `place · 2^8 + 255`. At its place in the arena are its length (4
//!    bytes) and its bytes. Items leave an arena only by its being made again, so it has no gaps.
//!
//! Next: `table.rs`.

use std::cmp::Ordering;

/// The longest item that lies in the words.
pub(super) const SHORT_BYTES_MAX: usize = 15;
const LONG: u64 = 0xff;
const LENGTH_BYTES: usize = 4;
/// Digits of pi.
const MIX: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    front: u64,
    back: u64,
}

/// An item that is looked for: its words, but for the place of a long one, and its bytes.
#[derive(Clone, Copy)]
pub(super) struct Probe<'a> {
    item: Item,
    pub(super) bytes: &'a [u8],
    /// What the index goes by.
    pub(super) place: u64,
}

impl<'a> Probe<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8], hash: impl FnOnce() -> u64) -> Self {
        if bytes.len() <= SHORT_BYTES_MAX {
            let item = Item::short(bytes);
            Probe { item, bytes, place: item.place() }
        } else {
            let item = Item { front: hash(), back: LONG };
            Probe { item, bytes, place: item.front }
        }
    }

    /// Whether this is the item.
    #[inline]
    pub(super) fn is(&self, item: &Item, arena: &[u8]) -> bool {
        if self.item.is_long() {
            item.front == self.item.front && item.is_long() && item.in_arena(arena) == self.bytes
        } else {
            *item == self.item
        }
    }

    /// The item, which lies in the arena from now on if it is long.
    pub(super) fn settle(&self, arena: &mut Vec<u8>) -> Item {
        if !self.item.is_long() {
            return self.item;
        }
        let back = ((arena.len() as u64) << 8) | LONG;
        // No string of an event is longer than 32 bits can say; what else comes is cut in `Top`.
        arena.extend_from_slice(&(self.bytes.len() as u32).to_le_bytes());
        arena.extend_from_slice(self.bytes);
        Item { back, ..self.item }
    }
}

impl Item {
    #[inline]
    fn short(bytes: &[u8]) -> Self {
        let n = bytes.len();
        let (front, back) = if let (Some(first), Some(last)) =
            (bytes.first_chunk::<8>(), bytes.last_chunk::<8>())
        {
            // Of the last eight bytes the front has some already; they are shifted out.
            let back = if n == 8 { 0 } else { u64::from_be_bytes(*last) << (8 * (16 - n)) };
            (u64::from_be_bytes(*first), back)
        } else if let (Some(first), Some(last)) =
            (bytes.first_chunk::<4>(), bytes.last_chunk::<4>())
        {
            // Where the two overlap they have the same bytes.
            let last = u64::from(u32::from_be_bytes(*last)) << (8 * (8 - n));
            (u64::from(u32::from_be_bytes(*first)) << 32 | last, 0)
        } else {
            let at = |i: usize| bytes.get(i).map_or(0, |byte| u64::from(*byte) << (56 - 8 * i));
            (at(0) | at(1) | at(2), 0)
        };
        Item { front, back: back | n as u64 }
    }

    #[inline]
    pub(super) fn is_long(&self) -> bool {
        self.back & 0xff == LONG
    }

    fn in_arena<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        let rest = &arena[(self.back >> 8) as usize..];
        let (length, rest) = rest.split_first_chunk::<LENGTH_BYTES>().expect("invariant 2");
        &rest[..u32::from_le_bytes(*length) as usize]
    }

    /// A long item in another arena.
    pub(super) fn moved(&self, from: &[u8], to: &mut Vec<u8>) -> Self {
        Probe { item: *self, bytes: self.in_arena(from), place: self.front }.settle(to)
    }

    /// The bytes of the item; those of a short one are put into `short`.
    #[inline]
    pub(super) fn bytes<'a>(
        &self,
        arena: &'a [u8],
        short: &'a mut [u8; SHORT_BYTES_MAX + 1],
    ) -> &'a [u8] {
        if self.is_long() {
            return self.in_arena(arena);
        }
        short[..8].copy_from_slice(&self.front.to_be_bytes());
        short[8..].copy_from_slice(&self.back.to_be_bytes());
        &short[..usize::from(short[SHORT_BYTES_MAX])]
    }

    /// What the index goes by: the hash of a long item, and of a short one the product of its words,
    /// the upper half upon the lower one, which takes less time than to hash its bytes. It is not stored.
    #[inline]
    pub(super) fn place(&self) -> u64 {
        if self.is_long() {
            return self.front;
        }
        let product = u128::from(self.front ^ MIX[0]) * u128::from(self.back ^ MIX[1]);
        product as u64 ^ (product >> 64) as u64
    }

    /// The item as one that is looked for elsewhere.
    pub(super) fn probe<'a>(
        &self,
        arena: &'a [u8],
        short: &'a mut [u8; SHORT_BYTES_MAX + 1],
    ) -> Probe<'a> {
        let front = self.front;
        Probe::new(self.bytes(arena, short), || front)
    }

    /// The order of the items' bytes.
    #[inline]
    pub(super) fn order(&self, other: &Item, arena: &[u8]) -> Ordering {
        if self.is_long() || other.is_long() {
            self.bytes(arena, &mut [0; 16]).cmp(other.bytes(arena, &mut [0; 16]))
        } else {
            (self.front, self.back).cmp(&(other.front, other.back))
        }
    }
}

/// The bytes that an item takes in the arena.
pub(super) fn arena_bytes(bytes: &[u8]) -> usize {
    if bytes.len() <= SHORT_BYTES_MAX { 0 } else { LENGTH_BYTES + bytes.len() }
}
