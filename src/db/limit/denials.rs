//! What was denied lately, by thread: who asks again for what cannot have changed is not asked for again.
//!
//! A thread remembers the answers "denied" of the short way (`db/limit/short.rs`): of which limiter, of which
//! key, and by which version of its series (`versions.rs`). A client that is over its limit and tries on is
//! so answered from two cache lines of this thread's own, without the key's number, its series, or a lock.
//!
//! Invariants
//! 1. An answer is given again only by the limiter that gave it, for the same text and the same cost, while
//!    the version of the series is current, from the moment at which it was given until the first at which
//!    it could be another one though nothing happens (`query/even.rs`). So it is what the short way would
//!    answer now: limit and usage are the same, and what has to be waited for is the same moment.
//! 2. It is as of the moment at which the version was found current. What else the short way asks before it
//!    reads the series is asked before that; the clock, behind it. Nothing is reserved, the engine is open.
//! 3. What is remembered is bounded, and holds on to nothing that could be closed or dropped: a limiter is
//!    a number that none before it had.
//! 4. Nobody else's code runs while the table is borrowed.
//!
//! Where the table is full the hand goes round (Corbató's clock, as `tier/shard.rs`): what was asked for again
//! since it last came by stays, and then the new one is not remembered, so that a thread that denies ever
//! other keys does not write a cold line for each.
//!
//! Next: `db/limit/short.rs`.

use crate::limit::Plain;
use crate::query::Standing;
use crate::slots::Slots;
use crate::sync::atomic::AtomicBool;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::{STRIPES, stripe, thread_local};
use crate::time::Timestamp;
use crate::versions::{Version, Versions};
use crossbeam::utils::CachePadded;
use foldhash::fast::RandomState;
use std::cell::RefCell;
use std::hash::BuildHasher as _;
use std::mem;
use std::sync::atomic::AtomicU64;

/// A thread remembers so many at most.
const ENTRIES_MAX: usize = 1 << 14;
/// Longer keys are not remembered.
const TEXT_BYTES_MAX: usize = 62;

/// The guide says what is taken for each (`guide/performance.md`).
const _: () = assert!(size_of::<Entry>() == 128, "two lines");

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
}

/// What a limiter has denied, in whichever threads.
pub(super) struct Denials {
    /// Invariant 3.
    owner: u64,
    /// Something was remembered of it: who never denies does not look.
    is_any: AtomicBool,
    /// Whether the last answer was a denial, by stripe: then the next one may be, and it is asked first.
    lately: [CachePadded<AtomicBool>; STRIPES],
}

/// Who asks, and for which key.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) denials: &'a Denials,
    pub(super) text: &'a str,
}

/// An answer "denied", and when it is the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denied {
    version: Version,
    /// In microseconds since 1970: the moment it was given at, and the first at which it is not the answer.
    from: i64,
    until: i64,
    /// The first moment at which it may happen.
    holds_from: i64,
    used: u64,
    cost: u64,
}

#[derive(Default)]
struct Table {
    /// Its tags are of owners and texts; the numbers are places of entries.
    slots: Option<Slots>,
    entries: Vec<Entry>,
    hand: usize,
    hasher: RandomState,
}

/// Two lines of the cache, which the processor fetches together.
#[repr(align(128))]
struct Entry {
    owner: u64,
    denied: Denied,
    /// Asked for again since the hand last came by.
    is_recent: bool,
    len: u8,
    text: [u8; TEXT_BYTES_MAX],
}

impl Denials {
    pub(super) fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Denials {
            owner: LAST.fetch_add(1, Relaxed),
            is_any: AtomicBool::new(false),
            lately: std::array::from_fn(|_| CachePadded::default()),
        }
    }

    /// Whether the last answer that this thread, or one that shares its stripe, got was a denial.
    #[inline]
    pub(super) fn has_denied(&self) -> bool {
        self.lately[stripe()].load(Relaxed)
    }

    /// Notes what the answer was.
    #[inline]
    pub(super) fn note(&self, is_denied: bool) {
        let lately = &self.lately[stripe()];
        if lately.load(Relaxed) != is_denied {
            lately.store(is_denied, Relaxed);
        }
    }
}

impl Asker<'_> {
    /// What this thread remembers of this question, if the series is what it was.
    #[inline]
    pub(super) fn recall(self, cost: u64, versions: &Versions) -> Option<Denied> {
        if !self.denials.is_any.load(Relaxed) || self.text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let is_still = |denied: &Denied| denied.cost == cost && versions.is_current(denied.version);
        let recall =
            |table: &RefCell<Table>| table.borrow_mut().find(self).copied().filter(is_still);
        // A thread that ends remembers nothing.
        TABLE.try_with(recall).ok().flatten()
    }

    /// Has this thread remember what was denied now.
    pub(super) fn remember(self, plain: &Plain, cost: u64, now: Timestamp, standing: Standing) {
        if self.text.len() > TEXT_BYTES_MAX {
            return;
        }
        let denied = Denied {
            version: standing.version,
            from: now.micros(),
            until: standing.until.min(plain.holds_from),
            holds_from: plain.holds_from,
            used: plain.used,
            cost,
        };
        let is_remembered = TABLE.try_with(|table| table.borrow_mut().put(self, denied)).is_ok();
        if is_remembered && !self.denials.is_any.load(Relaxed) {
            self.denials.is_any.store(true, Relaxed);
        }
    }
}

impl Denied {
    /// What it is at a moment, if it is still the answer then.
    #[inline]
    pub(super) fn at(&self, now: Timestamp, limit: u64) -> Option<Plain> {
        let holds_from = self.holds_from;
        let plain = Plain {
            limit,
            used: self.used,
            holds_from,
            clears: holds_from,
            fresh_leaves: holds_from,
        };
        (self.from..self.until).contains(&now.micros()).then_some(plain)
    }
}

impl Entry {
    fn new(asker: Asker<'_>, denied: Denied) -> Self {
        let mut text = [0; TEXT_BYTES_MAX];
        text[..asker.text.len()].copy_from_slice(asker.text.as_bytes());
        let (owner, len) = (asker.denials.owner, asker.text.len() as u8);
        Entry { owner, denied, is_recent: false, len, text }
    }

    #[inline]
    fn text(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    #[inline]
    fn is_of(&self, asker: Asker<'_>) -> bool {
        self.owner == asker.denials.owner && self.text() == asker.text.as_bytes()
    }
}

impl Table {
    #[inline]
    fn tag(&self, owner: u64, text: &[u8]) -> u32 {
        self.hasher.hash_one((owner, text)) as u32
    }

    #[inline]
    fn place(&self, tag: u32, asker: Asker<'_>) -> Option<usize> {
        let is_of = |place: u32| self.entries[place as usize].is_of(asker);
        self.slots.as_ref()?.find(tag, is_of).map(|place| place as usize)
    }

    #[inline]
    fn find(&mut self, asker: Asker<'_>) -> Option<&Denied> {
        let tag = self.tag(asker.denials.owner, asker.text.as_bytes());
        let place = self.place(tag, asker)?;
        let entry = &mut self.entries[place];
        entry.is_recent = true;
        Some(&entry.denied)
    }

    fn put(&mut self, asker: Asker<'_>, denied: Denied) {
        let tag = self.tag(asker.denials.owner, asker.text.as_bytes());
        if let Some(place) = self.place(tag, asker) {
            self.entries[place].denied = denied;
            return;
        }
        let count = self.entries.len();
        if count < ENTRIES_MAX {
            let slots = self.slots.get_or_insert_with(|| Slots::with_room(1));
            if !slots.has_room_for(count + 1) {
                *slots = slots.grown();
            }
            slots.insert(tag, count as u32);
            self.entries.push(Entry::new(asker, denied));
            return;
        }
        let at = self.hand;
        self.hand = (at + 1) % count;
        if mem::take(&mut self.entries[at].is_recent) {
            return;
        }
        let left = mem::replace(&mut self.entries[at], Entry::new(asker, denied));
        let left = self.tag(left.owner, left.text());
        if let Some(slots) = &mut self.slots {
            slots.remove(left, at as u32);
            slots.insert(tag, at as u32);
        }
    }
}
