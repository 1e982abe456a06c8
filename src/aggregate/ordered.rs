//! A set of integers in open addressing, in ascending order: what sketches of few items are made of.
//!
//! Invariants
//! 1. A key is a number of `W` bytes, not zero, that a hash has made, so keys lie evenly up to some bound.
//!    Its *home* is the cell `key · cells / bound`: homes ascend as keys do.
//! 2. A key lies in its home or behind it, no cell between the two is free, and keys ascend from cell to
//!    cell. Behind the last cell comes the first: so many cells in front as `wrapped` says hold the
//!    greatest keys, for which there was no room where they belong. A free cell is zero.
//! 3. How many cells there are follows from the number of keys, and from how many there may be.
//!
//! This is linear probing with the order of the keys kept (O. Amble and D. E. Knuth, "Ordered hash
//! tables", Computer Journal 17/2, 1974): the layout is a function of the set, whatever the order in
//! which keys came (their theorem), so equal bytes are equal sets, and going through the cells is going
//! through the keys in order, for encoding, merging and intersecting. At a load a an absent key is told
//! by `(1 + 1/(1-a)) / 2` cells, which plain linear probing needs for a present one (4.5 at 7/8), and a
//! new key moves the `1/(1-a)²/2` keys behind it (32 at 7/8, a `memmove` of 160 bytes).
//!
//! Measured (`cargo bench --bench distinct`, tokens and samples, hash included): a known key takes 10 to 17 ns,
//! as in a `HashSet`, and a new one 45 to 80 with all the growing on the way. A sorted array with binary search is faster up to a thousand keys
//! (8 and 47); but each new key moves half of the others, so that it takes 101 ns up to 4,000 of them, where this
//! takes 27.
//!
//! Where somebody has chosen keys to lie together a step is as long as there are keys, which the owner
//! limits.

use std::iter;

/// Up to so many bytes a table gets the next 32 when it is full, above it half as much more at 7/8:
/// what an allocator gives comes in steps of 16 with 8 to spare.
const FINE_BYTES_MAX: usize = 264;

/// Cells that are looked at together.
const WINDOW: usize = 4;

/// The most keys that a table may be allowed to hold.
pub(super) const KEYS_MAX: usize = u16::MAX as usize;

/// Up to so many keys are put in one by one, more in one pass through both sets: a crowd of them, one
/// beside the other, would make each of them a pass.
pub(super) const FEW: usize = 64;

/// The keys of two sets, ascending.
pub(super) fn union(
    one: impl Iterator<Item = u64> + Clone,
    other: impl Iterator<Item = u64> + Clone,
) -> impl Iterator<Item = u64> + Clone {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    iter::from_fn(move || match (one.peek().copied(), other.peek().copied()) {
        (Some(a), Some(b)) if a < b => one.next(),
        (Some(a), Some(b)) if a == b => {
            other.next();
            one.next()
        }
        (Some(_), None) => one.next(),
        _ => other.next(),
    })
}

/// What the owner of a table has to say of it, in bytes that would lie idle.
pub(super) trait Owner: Copy {
    /// The home of a key whose upper bit is the upper of `aligned` (invariant 1). By default keys
    /// go up to the greatest number that they have room for.
    #[inline]
    fn home(self, aligned: u64, slots: usize) -> usize {
        ((u128::from(aligned) * slots as u128) >> 64) as usize
    }
}

/// The set. 24 bytes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ordered<const W: usize, M> {
    /// `W` bytes a cell, little-endian, and as many behind them that eight can be read at the last.
    cells: Box<[u8]>,
    count: u16,
    wrapped: u16,
    pub(super) meta: M,
}

impl<const W: usize, M: Owner> Ordered<W, M> {
    const PAD: usize = 8 - W;
    const BITS: u32 = 8 * W as u32;
    const MASK: u64 = u64::MAX >> (64 - Self::BITS);

    pub(super) fn new(meta: M) -> Self {
        Ordered { cells: Box::default(), count: 0, wrapped: 0, meta }
    }

    /// The set of `count` keys that ascend, of at most `limit` ever. Linear.
    pub(super) fn from_ascending(
        keys: impl Iterator<Item = u64> + Clone,
        count: usize,
        limit: usize,
        meta: M,
    ) -> Self {
        let mut new = Self::with_room(count, limit, meta);
        new.fill(keys, count);
        new
    }

    /// Lays `count` keys that ascend into the cells, which are free.
    fn fill(&mut self, keys: impl Iterator<Item = u64> + Clone, count: usize) {
        self.count = count as u16;
        // Those that find no room up to the end go to the front, where nothing may lie then: as many
        // cross the end whatever lies there.
        let over = self.place(keys.clone(), 0);
        if over > 0 {
            self.cells.fill(0);
            self.wrapped = over as u16;
            self.place(keys.clone(), over);
            for (at, key) in keys.skip(count - over).enumerate() {
                self.put(at, key);
            }
        }
    }

    fn with_room(count: usize, limit: usize, meta: M) -> Self {
        let slots = Self::slots_for(count, limit);
        let bytes = if slots == 0 { 0 } else { slots * W + Self::PAD };
        Ordered { cells: vec![0; bytes].into_boxed_slice(), ..Self::new(meta) }
    }

    /// Lays keys that ascend into free cells from `next` on; gives the number for which there was no
    /// room.
    #[inline]
    fn place(&mut self, keys: impl Iterator<Item = u64>, mut next: usize) -> usize {
        let slots = self.slots();
        let mut over = 0;
        keys.for_each(|key| {
            let at = self.home(key).max(next);
            if at < slots {
                self.put(at, key);
                next = at + 1;
            } else {
                over += 1;
            }
        });
        over
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.count)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.cells.len()
    }

    pub(super) fn contains(&self, key: u64) -> bool {
        self.find(key).1
    }

    /// Puts a key in, where there are fewer than `limit`; whether it is new.
    #[inline]
    pub(super) fn insert(&mut self, key: u64, limit: usize) -> bool {
        let (at, found) = self.find(key);
        if !found {
            self.insert_new(key, at, limit);
        }
        !found
    }

    /// Puts a new key in that is less than the greatest, and takes that out, which is given; gives the
    /// one that is now the greatest. In tables that are never full.
    pub(super) fn replace_greatest(&mut self, greatest: u64, key: u64) -> u64 {
        let (slots, limit) = (self.slots(), self.len());
        let (at, found) = self.find(greatest);
        debug_assert!(found && key < greatest, "the greatest is known");
        debug_assert!(limit < slots, "a cell is free");
        if at < slots {
            // What comes behind it is greater.
            self.put(at, 0);
        } else {
            // Keys behind the wrapped ones, if they have given way to it, go back.
            self.wrapped -= 1;
            let gave_way = |at: &usize| self.get(*at) != 0 && self.home(self.get(*at)) < *at;
            let from = usize::from(self.wrapped);
            let end = (from + 1..slots).find(|at| !gave_way(at)).unwrap_or(slots);
            self.cells.copy_within((from + 1) * W..end * W, from * W);
            self.put(end - 1, 0);
        }
        self.count -= 1;
        let new = self.insert(key, limit);
        debug_assert!(new, "the key is new");
        self.greatest_before(at.min(slots - 1))
    }

    /// The greatest key.
    pub(super) fn greatest(&self) -> Option<u64> {
        let last = self.slots().checked_sub(1)?;
        (self.count > 0).then(|| self.greatest_before(last))
    }

    /// The greatest key, where no cell behind this one has one that is not wrapped.
    fn greatest_before(&self, at: usize) -> u64 {
        match usize::from(self.wrapped).checked_sub(1) {
            Some(last) => self.get(last),
            None => (0..=at).rev().map(|at| self.get(at)).find(|key| *key != 0).unwrap_or(0),
        }
    }

    /// The keys, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> + Clone + '_ {
        let wrapped = usize::from(self.wrapped);
        let behind = (wrapped..self.slots()).map(|at| self.get(at)).filter(|key| *key != 0);
        behind.chain((0..wrapped).map(|at| self.get(at)))
    }

    #[inline]
    fn slots(&self) -> usize {
        self.cells.len() / W
    }

    #[inline]
    fn home(&self, key: u64) -> usize {
        self.meta.home(key << (64 - Self::BITS), self.slots())
    }

    #[inline]
    fn get(&self, at: usize) -> u64 {
        let cell = self.cells[at * W..].first_chunk::<8>().expect("the padding");
        u64::from_le_bytes(*cell) & Self::MASK
    }

    #[inline]
    fn put(&mut self, at: usize, key: u64) {
        self.cells[at * W..][..W].copy_from_slice(&key.to_le_bytes()[..W]);
    }

    /// Where a key is, or has to be, which is cell `slots` of the front's; and whether it is there.
    #[inline]
    fn find(&self, key: u64) -> (usize, bool) {
        let (slots, wrapped) = (self.slots(), usize::from(self.wrapped));
        let mut at = self.home(key).max(wrapped);
        // Behind a free cell, which is zero, all keys are greater: so those that are less are as many as
        // the cells to go, and are counted without a branch that nobody can foretell.
        while let Some(cells) = self.cells.get(at * W..(at + WINDOW) * W + Self::PAD) {
            let less = |i: usize| {
                let cell = cells[i * W..].first_chunk::<8>().expect("the padding");
                usize::from((u64::from_le_bytes(*cell) & Self::MASK).wrapping_sub(1) < key - 1)
            };
            let steps: usize = (0..WINDOW).map(less).sum();
            at += steps;
            if steps < WINDOW {
                return (at, self.get(at) == key);
            }
        }
        while at < slots {
            let there = self.get(at);
            if there.wrapping_sub(1) >= key - 1 {
                return (at, there == key);
            }
            at += 1;
        }
        let in_front = (0..wrapped).find(|at| self.get(*at) >= key).unwrap_or(wrapped);
        (slots + in_front, in_front < wrapped && self.get(in_front) == key)
    }

    #[inline(never)]
    fn insert_new(&mut self, key: u64, at: usize, limit: usize) {
        let slots = self.slots();
        let count = self.len() + 1;
        debug_assert!(count <= limit && limit <= KEYS_MAX, "the owner's limit");
        if count > Self::room(slots) {
            let mut larger = Self::with_room(count, limit, self.meta);
            larger.fill(self.iter(), self.len());
            *self = larger;
            let (at, _) = self.find(key);
            self.insert_new(key, at, limit);
            return;
        }
        self.count += 1;
        if let Some(in_front) = at.checked_sub(slots) {
            self.shift(in_front, key);
            self.wrapped += 1;
        } else if let Some(last) = self.shift(at, key) {
            self.shift(0, last);
            self.wrapped += 1;
        }
    }

    /// Moves what lies from a cell on up to the next free one by a cell, and puts a key there; gives
    /// the key that was moved out of the last cell.
    fn shift(&mut self, at: usize, key: u64) -> Option<u64> {
        let slots = self.slots();
        let free = (at..slots).find(|at| self.get(*at) == 0);
        let end = free.unwrap_or(slots - 1);
        let out = free.is_none().then(|| self.get(end));
        self.cells.copy_within(at * W..end * W, (at + 1) * W);
        self.put(at, key);
        out
    }

    /// How many keys so many cells hold.
    fn room(slots: usize) -> usize {
        if slots * W + Self::PAD <= FINE_BYTES_MAX { slots } else { slots * 7 / 8 }
    }

    /// How many cells so many keys have (invariant 3).
    fn slots_for(count: usize, limit: usize) -> usize {
        if count == 0 {
            return 0;
        }
        let mut bytes = 24;
        loop {
            let slots = (bytes - Self::PAD) / W;
            if Self::room(slots) >= count {
                return slots.min((limit * 8).div_ceil(7));
            }
            let more = match bytes {
                ..40 => 16,
                40..FINE_BYTES_MAX => 32,
                _ => bytes / 2,
            };
            bytes = (bytes + more + 7) / 16 * 16 + 8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Nobody;
    impl Owner for Nobody {}
    type Set = Ordered<5, Nobody>;

    const TOP: u64 = (1 << 40) - 1;

    fn inserted(keys: &[u64], limit: usize) -> Set {
        let mut set = Set::new(Nobody);
        for key in keys {
            let known = set.contains(*key);
            assert_eq!(set.insert(*key, limit), !known);
        }
        set
    }

    /// Keys that lie evenly, and crowds of them: at both ends, where they go around, and between.
    fn keys() -> impl Strategy<Value = Vec<u64>> {
        let key = prop_oneof![
            4 => 1..=TOP,
            2 => 1..40_u64,
            2 => TOP - 40..=TOP,
            1 => 1 << 39..(1_u64 << 39) + 40,
        ];
        prop::collection::vec(key, 0..250)
    }

    proptest! {
        #[test]
        fn the_layout_is_a_function_of_the_set(keys in keys(), limit in 250_usize..2_000) {
            let model: BTreeSet<u64> = keys.iter().copied().collect();
            let set = inserted(&keys, limit);
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert_eq!(set.len(), model.len());
            let ascending = Set::from_ascending(model.iter().copied(), model.len(), limit, Nobody);
            prop_assert_eq!(&ascending, &set);
            for key in model.iter().flat_map(|key| [key - 1, *key, key + 1]) {
                let key = key.clamp(1, TOP);
                prop_assert_eq!(set.contains(key), model.contains(&key));
            }
            prop_assert!(set.heap_bytes() <= 68 || set.heap_bytes() <= 9 * model.len() + 3);
        }

        /// As a sample does it that may hold so many: from then on the greatest goes for each that
        /// comes.
        #[test]
        fn the_greatest_gives_way_and_leaves_no_trace(keys in keys(), least in 53_usize..120) {
            let mut set = Set::new(Nobody);
            let mut model = BTreeSet::new();
            for key in keys {
                if model.len() < least {
                    set.insert(key, least);
                    model.insert(key);
                } else if let Some(greatest) = set.greatest().filter(|greatest| key < *greatest)
                    && model.insert(key)
                {
                    model.remove(&greatest);
                    let now = set.replace_greatest(greatest, key);
                    prop_assert_eq!(Some(&now), model.last());
                }
                prop_assert_eq!(set.greatest(), model.last().copied());
            }
            let same = Set::from_ascending(model.iter().copied(), model.len(), least, Nobody);
            prop_assert_eq!(set, same);
        }
    }
}
