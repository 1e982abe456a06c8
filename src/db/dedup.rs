//! The deduplication window: which ids were seen lately.
//!
//! Invariants
//! 1. An id enters in the order of its event's position, under the lock that is held from looking
//!    it up to the append; so two threads with the same id record it once.
//! 2. The window is part of the checkpoint: `Ids` holds those up to its position, replay adds the
//!    rest (`record.rs` has the rows).
//!
//! Ids are compared by XXH3-128: two different ids fall together with a chance of 2^-128 a pair.

use crate::codec::Malformed;
use crate::options::Dedup;
use crate::record::{Blobs, Seen};
use crate::snapshot::Change;
use crate::time::Timestamp;
use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};

/// In place of a position: sifted and not placed yet. No record has it.
const SIFTED: u64 = 0;

#[derive(Debug)]
pub(super) struct Window {
    rule: Dedup,
    /// The newest position of each id in the window. One that is only sifted has none yet.
    newest: HashMap<u128, u64, foldhash::fast::RandomState>,
    order: VecDeque<Seen>,
    /// Entries at the back of `order` that no checkpoint has written.
    unwritten: usize,
    /// Positions of written entries that have left the window since the last checkpoint.
    expired: Vec<u64>,
    /// Whether the stored entries are here. They are read when the first id is asked about.
    pub(super) loaded: bool,
}

impl Window {
    pub(super) fn new(rule: Dedup, loaded: bool) -> Self {
        Window {
            rule,
            newest: HashMap::default(),
            order: VecDeque::new(),
            unwritten: 0,
            expired: Vec::new(),
            loaded,
        }
    }

    pub(super) fn rule(&self) -> Dedup {
        self.rule
    }

    /// Goes on with another rule.
    pub(super) fn set_rule(&mut self, rule: Dedup) {
        self.rule = rule;
    }

    /// Says of each event whether it is new, and takes in the ids of those that are; they must be
    /// [placed](Window::place) or [given back](Window::give_back) before the lock is left.
    pub(super) fn sift(&mut self, n: usize, ids: &Blobs, now: Timestamp, keep: &mut Vec<bool>) {
        self.expire(now.micros());
        keep.clear();
        keep.extend((0..n).map(|row| {
            ids.get(row).is_none_or(|id| match self.newest.entry(hash(id)) {
                Entry::Occupied(_) => false,
                Entry::Vacant(free) => {
                    free.insert(SIFTED);
                    true
                }
            })
        }));
    }

    /// The sifted events, or those of a replayed frame, have the positions from `first` on.
    pub(super) fn place(&mut self, n: usize, ids: &Blobs, first: u64, written_at: i64) {
        for row in 0..n {
            if let Some(id) = ids.get(row) {
                let (position, hash) = (first + row as u64, hash(id));
                self.newest.insert(hash, position);
                self.order.push_back(Seen { position, written_at, hash });
                self.unwritten += 1;
            }
        }
        self.expire(written_at);
    }

    /// The sifted events were not appended after all.
    pub(super) fn give_back(&mut self, n: usize, ids: &Blobs) {
        for hash in (0..n).filter_map(|row| ids.get(row)).map(hash) {
            if self.newest.get(&hash) == Some(&SIFTED) {
                self.newest.remove(&hash);
            }
        }
    }

    /// Takes in an entry that an earlier checkpoint has written; oldest first, before all others.
    pub(super) fn restore(&mut self, rows: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Malformed> {
        // Everything is read before anything is changed. What a checkpoint has written since the
        // opening is here already.
        let here = self.order.front().map_or(u64::MAX, |seen| seen.position);
        let mut older = VecDeque::with_capacity(rows.len() + self.order.len());
        for (key, value) in rows {
            older.push_back(Seen::from_row(key, value)?);
        }
        older.retain(|seen| seen.position < here);
        for seen in &older {
            let newest = self.newest.entry(seen.hash).or_insert(seen.position);
            *newest = (*newest).max(seen.position);
        }
        older.append(&mut self.order);
        self.order = older;
        self.loaded = true;
        let now = self.order.back().map_or(i64::MIN, |seen| seen.written_at);
        self.expire(now);
        Ok(())
    }

    /// Forgets what lies outside of the window at `now`, a recorded time or the present.
    fn expire(&mut self, now: i64) {
        match self.rule {
            Dedup::Off => {}
            Dedup::Last(most) => {
                while self.order.len() as u64 > most {
                    self.forget_oldest();
                }
            }
            Dedup::For(age) => {
                let oldest = Timestamp::from_micros(now).saturating_sub(age).micros();
                while self.order.front().is_some_and(|seen| seen.written_at < oldest) {
                    self.forget_oldest();
                }
            }
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(seen) = self.order.pop_front() {
            if self.newest.get(&seen.hash) == Some(&seen.position) {
                self.newest.remove(&seen.hash);
            }
            if self.order.len() < self.unwritten {
                self.unwritten = self.order.len();
            } else {
                self.expired.push(seen.position);
            }
        }
    }

    /// What the checkpoint is to write; taken for written from now on. Cheap: it is called while
    /// nobody records.
    pub(super) fn take_changes(&mut self) -> WindowChanges {
        let written = self.order.len() - self.unwritten;
        self.unwritten = 0;
        WindowChanges {
            expired: std::mem::take(&mut self.expired),
            entered: self.order.range(written..).copied().collect(),
        }
    }
}

/// What changed in the window since the last checkpoint.
#[derive(Debug, Default)]
pub(super) struct WindowChanges {
    expired: Vec<u64>,
    entered: Vec<Seen>,
}

impl WindowChanges {
    pub(super) fn rows(self) -> impl Iterator<Item = Change> {
        let expired = self.expired.into_iter().map(|position| (Seen::row_key(position), None));
        let entered = self.entered.into_iter().map(|seen| {
            let (key, value) = seen.row();
            (key, Some(value))
        });
        expired.chain(entered)
    }
}

fn hash(id: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(id)
}
