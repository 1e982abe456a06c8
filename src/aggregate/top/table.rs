//! The entries of a [`Top`](super::Top) that has any, and an index to find them by.
//!
//! Invariants
//! 1. No two entries have the same item. `floor < upper` and `slack <= floor`.
//! 2. The index is empty, or its length is a power of two and each entry has one word in it, `tag (15) ·
//!    number + 1 (17)`, with no empty word between the place that its hash chooses and its own.
//! 3. How much is allocated for entries is a function of their number as long as none was dropped, so
//!    that a state takes the same memory whichever way it came about.
//!
//! An item costs 32 bytes and 4 for each of one and a half to three words of the index; the index is
//! looked through in a cache that has no room for the entries. The places in it follow from the items alone:
//! who chooses items on purpose can have them lie one behind the other, and look-ups cost as many steps.

use super::item::{Item, Probe, SHORT_BYTES_MAX, arena_bytes};
use std::cmp::Ordering;
use thin_vec::ThinVec;

#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) item: Item,
    /// The count is at most this.
    pub(super) upper: u64,
    /// And at least so much less.
    pub(super) slack: u64,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) total: u64,
    /// What an item that has no entry may have counted at most.
    pub(super) floor: u64,
    pub(super) entries: ThinVec<Entry>,
    pub(super) arena: Vec<u8>,
    index: Box<[u32]>,
}

/// Where there are no more, entries are looked at one by one.
const UNINDEXED_MAX: usize = 9;
const NUMBER_BITS: u32 = 18;
const EMPTY: u32 = 0;
/// What a `ThinVec` has before its elements.
const THIN_HEADER_BYTES: usize = 16;

#[inline]
fn tag(place: u64) -> u32 {
    (place >> (32 + NUMBER_BITS)) as u32
}

/// The room that so many entries have: 2, 5, 9, 15, 24 and on by half.
fn room_for(entries: usize) -> usize {
    let mut room = 0;
    while room < entries {
        room += room / 2 + 2;
    }
    room
}

impl Clone for Table {
    /// With the same room (invariant 3).
    fn clone(&self) -> Self {
        let mut entries = ThinVec::with_capacity(self.entries.capacity());
        entries.extend_from_slice(&self.entries);
        let mut arena = Vec::with_capacity(self.arena.capacity());
        arena.extend_from_slice(&self.arena);
        Table { entries, arena, index: self.index.clone(), ..*self }
    }
}

impl Entry {
    fn raise(&mut self, upper: u64, slack: u64) {
        self.upper = self.upper.saturating_add(upper);
        self.slack = self.slack.saturating_add(slack);
    }
}

impl Table {
    /// A table with room for what is to come into it: no more than that, or as if it had grown.
    pub(super) fn with_room(entries: usize, arena: usize, exact: bool) -> Self {
        let room = if exact { |n| n } else { room_for };
        let mut table = Table { arena: Vec::with_capacity(room(arena)), ..Table::default() };
        table.entries.reserve_exact(room(entries));
        table.reindex();
        table
    }

    #[inline]
    pub(super) fn find(&self, probe: &Probe<'_>) -> Option<usize> {
        let is = |entry: &Entry| probe.is(&entry.item, &self.arena);
        if self.index.is_empty() {
            return self.entries.iter().position(is);
        }
        let mask = self.index.len() - 1;
        let mut place = probe.place as usize & mask;
        loop {
            let word = self.index[place & mask];
            if word == EMPTY {
                return None;
            }
            let number = (word & ((1 << NUMBER_BITS) - 1)) as usize - 1;
            if word >> NUMBER_BITS == tag(probe.place) && is(&self.entries[number]) {
                return Some(number);
            }
            place += 1;
        }
    }

    /// Takes in an item that has no entry; makes room for so many entries at most. Gives the bytes by
    /// which that grew on the heap.
    #[inline]
    pub(super) fn push(&mut self, probe: &Probe<'_>, upper: u64, slack: u64, most: usize) -> usize {
        let arena = self.arena.len() + arena_bytes(probe.bytes);
        let full = self.entries.len() == self.entries.capacity();
        let grown =
            if full || arena > self.arena.capacity() { self.make_room(arena, most) } else { 0 };
        let item = probe.settle(&mut self.arena);
        self.put(probe.place, self.entries.len());
        self.entries.push(Entry { item, upper, slack });
        grown
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self, arena: usize, most: usize) -> usize {
        let (before, number) = (self.heap_bytes(), self.entries.len());
        if number == self.entries.capacity() {
            self.entries.reserve_exact(room_for(number + 1).min(most) - number);
            self.reindex();
        }
        if arena > self.arena.capacity() {
            self.arena.reserve_exact(room_for(arena) - self.arena.len());
        }
        self.heap_bytes() - before
    }

    #[inline]
    fn put(&mut self, chosen: u64, number: usize) {
        if self.index.is_empty() {
            return;
        }
        let mask = self.index.len() - 1;
        let mut place = chosen as usize & mask;
        while self.index[place] != EMPTY {
            place = (place + 1) & mask;
        }
        self.index[place] = tag(chosen) << NUMBER_BITS | (number as u32 + 1);
    }

    /// Makes the index again, for as many entries as there is room for.
    pub(super) fn reindex(&mut self) {
        let room = self.entries.capacity();
        let words = match room {
            0..=UNINDEXED_MAX => 0,
            _ => (room + room / 2).next_power_of_two(),
        };
        if self.index.len() == words {
            self.index.fill(EMPTY);
        } else {
            self.index = vec![EMPTY; words].into();
        }
        for number in 0..self.entries.len() {
            self.put(self.entries[number].item.place(), number);
        }
    }

    /// Gives back room for more entries than so many.
    pub(super) fn give_back(&mut self, room: usize) {
        if self.entries.capacity() > room {
            self.entries.shrink_to_fit();
            self.entries.reserve_exact(room - self.entries.len());
            self.reindex();
        }
    }

    /// Raises the floor until `keep` entries are left at most; with as many or fewer it does nothing.
    pub(super) fn purge(&mut self, keep: usize) {
        let drop = self.entries.len().saturating_sub(keep);
        if drop == 0 {
            return;
        }
        let mut uppers: Vec<u64> = self.entries.iter().map(|entry| entry.upper).collect();
        let (_, floor, _) = uppers.select_nth_unstable(drop - 1);
        self.floor = *floor;
        self.drop_sunken();
    }

    /// Drops the entries that do not reach over the floor.
    fn drop_sunken(&mut self) {
        let floor = self.floor;
        self.entries.retain(|entry| entry.upper > floor);
        if !self.arena.is_empty() {
            let room = Vec::with_capacity(self.arena.capacity());
            let old = std::mem::replace(&mut self.arena, room);
            for entry in self.entries.iter_mut().filter(|entry| entry.item.is_long()) {
                entry.item = entry.item.moved(&old, &mut self.arena);
            }
        }
        self.reindex();
    }

    /// Folds in what another table has, without regard to the room there is.
    pub(super) fn merge(&mut self, other: &Table) {
        let (here, floor) = (self.entries.len(), self.floor);
        let mut in_both = vec![false; here];
        for entry in &other.entries {
            let mut short = [0; SHORT_BYTES_MAX + 1];
            let probe = entry.item.probe(&other.arena, &mut short);
            if let Some(at) = self.find(&probe) {
                self.entries[at].raise(entry.upper, entry.slack);
                in_both[at] = true;
            } else {
                let mut entry = *entry;
                entry.raise(floor, floor);
                self.push(&probe, entry.upper, entry.slack, usize::MAX);
            }
        }
        for (entry, _) in self.entries.iter_mut().zip(in_both).filter(|(_, in_both)| !in_both) {
            entry.raise(other.floor, other.floor);
        }
        self.total = self.total.saturating_add(other.total);
        self.floor = floor.saturating_add(other.floor);
        // Only where counts have stopped at their greatest.
        if self.floor == u64::MAX {
            self.drop_sunken();
        }
    }

    /// The order of two entries' items.
    pub(super) fn order(&self, a: &Entry, b: &Entry) -> Ordering {
        a.item.order(&b.item, &self.arena)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let entries = match self.entries.capacity() {
            0 => 0,
            room => THIN_HEADER_BYTES + room * size_of::<Entry>(),
        };
        entries + self.arena.capacity() + size_of_val(&*self.index)
    }
}
