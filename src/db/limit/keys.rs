//! What all limits of an engine share: the locks of keys, what is reserved, and a clock that does not go
//! back.
//!
//! Invariants
//! 1. What is reserved under a key is read and changed under the lock of that key. Who asks a single series
//!    and records in it under one hold of its shard needs no lock of a key if, under that hold, nobody has
//!    any and nothing is reserved ([`Keys::is_quiet`]): whoever takes one later reads the series later.
//! 2. The steady clock is never behind the store's, and never goes back, but for what threads that read the store's are
//!    apart ([`ROUGHLY`]). Where the store's is set back it goes on from where it was, as fast as that one does, until
//!    that one has caught up.
//! 3. While it is ahead a series is asked by one of the two: by the steady one if the first who asks
//!    finds events in it that are ahead of the store's. (Of an event between the two nobody can say
//!    whether it was recorded before the clock was set back or since, by somebody who goes by the store's.)
//!    As soon as somebody records events but through a limit, by the store's clock, all are asked by that:
//!    it counts what is ahead at once, and nothing is missed.

use crate::error::Result;
use crate::limit::Reserved;
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use crate::sync::{Mutex, MutexGuard};
use crate::time::Timestamp;
use crossbeam::utils::CachePadded;
use smallvec::SmallVec;
use std::collections::HashMap;

/// Locks of keys. Two keys may share one.
const LOCKS: usize = 256;
/// So far behind the store's clock the steady one may be, in microseconds: it is written less often.
const BEHIND: i64 = 1_000;
/// So far apart, in microseconds, may be what two threads read of a clock at the same moment.
const ROUGHLY: i64 = 10;
/// So far behind the steady clock, in microseconds, the store's was set back for certain.
const APART: i64 = 100_000;

/// A series that something is reserved of: a number of its view's name, and one of its key.
pub(super) type Subject = (u64, u64);

pub(in crate::db) struct Keys {
    places: Box<[CachePadded<Mutex<Held>>]>,
    busy: CachePadded<Busy>,
    last_id: AtomicU64,
    steady: Steady,
}

/// What all who ask have to know.
#[derive(Default)]
struct Busy {
    /// Reservations there are, and those that nobody has noticed to be over.
    held: AtomicUsize,
    /// Those who have a [`Locked`], or wait for one.
    locking: AtomicUsize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) id: u64,
    pub(super) count: u64,
    /// In microseconds since 1970, by the steady clock.
    pub(super) until: i64,
}

/// The locks of some keys.
pub(super) struct Locked<'a> {
    guards: SmallVec<[(usize, MutexGuard<'a, Held>); 2]>,
    keys: &'a Keys,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.guards.clear();
        self.keys.busy.locking.fetch_sub(1, Release);
    }
}

/// What belongs to the keys of a lock.
#[derive(Default)]
struct Held {
    /// What is reserved.
    holds: Table<Vec<Hold>>,
    /// Whether a series is asked by the steady clock (invariant 3), in the time of this number in which
    /// that is ahead.
    is_steady: Table<bool>,
    time: u64,
}

type Table<T> = HashMap<Subject, T, foldhash::fast::RandomState>;

impl Keys {
    pub(in crate::db) fn new() -> Self {
        Keys {
            places: std::iter::repeat_with(CachePadded::default).take(LOCKS).collect(),
            busy: CachePadded::default(),
            last_id: AtomicU64::new(0),
            steady: Steady::default(),
        }
    }

    /// Locks these keys, in their order, each lock once.
    pub(super) fn lock(&self, keys: impl Iterator<Item = u64>) -> Locked<'_> {
        let mut places: SmallVec<[usize; 4]> = SmallVec::new();
        for key in keys {
            places.push(key as usize % LOCKS);
        }
        if places.len() > 1 {
            places.sort_unstable();
            places.dedup();
        }
        // Before anything is read for which they are taken (invariant 1).
        self.busy.locking.fetch_add(1, AcqRel);
        let mut locked = Locked { guards: SmallVec::new(), keys: self };
        for place in places {
            locked.guards.push((place, self.places[place].lock()));
        }
        locked
    }

    /// Locks this key alone. `None`: something is reserved under the lock.
    pub(super) fn lock_unreserved(&self, key: u64) -> Option<impl Sized> {
        let held = self.places[key as usize % LOCKS].lock();
        held.holds.is_empty().then_some(held)
    }

    /// Whether nobody has [locks of keys](Keys::lock), or waits for some, and nothing is reserved.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.busy.locking.load(Acquire) == 0 && !self.has_held()
    }

    /// Whether anything is reserved at all.
    #[inline]
    pub(super) fn has_held(&self) -> bool {
        self.busy.held.load(Acquire) > 0
    }

    pub(super) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Relaxed)
    }

    /// What the steady clock says, when a limit goes by this moment of either.
    pub(super) fn steady_at(&self, now: Timestamp) -> i64 {
        let is_ahead = self.steady.is_ahead.load(Acquire);
        if is_ahead { self.steady.at.load(Acquire) as i64 } else { now.micros() }
    }

    /// Whether somebody else recorded events by the store's clock since that is behind: these would be
    /// missed by the steady one.
    pub(super) fn is_mixed(&self) -> bool {
        self.steady.is_mixed.load(Acquire)
    }

    /// Notes that somebody records an event, when the store's clock says this (invariant 3).
    #[inline]
    pub(in crate::db) fn note_recording(&self, now: Timestamp) {
        if now.micros().saturating_add(APART) < self.steady.at.load(Acquire) as i64 {
            self.steady.is_mixed.store(true, Release);
        }
    }

    /// The steady clock, when the store's says this.
    #[inline]
    pub(super) fn steady(&self, now: Timestamp) -> Timestamp {
        self.steady.follow(now)
    }
}

impl Locked<'_> {
    fn of(&mut self, subject: Subject) -> Option<&mut Held> {
        let place = subject.1 as usize % LOCKS;
        let guard = self.guards.iter_mut().find(|(locked, _)| *locked == place);
        guard.map(|(_, held)| &mut **held)
    }

    /// What is reserved under these keys, each reservation once.
    pub(super) fn reserved(
        &mut self,
        subjects: impl Iterator<Item = Subject>,
        now: Timestamp,
    ) -> SmallVec<[Reserved; 2]> {
        let steady = self.keys.steady_at(now);
        let mut found: SmallVec<[Hold; 2]> = SmallVec::new();
        for subject in subjects {
            self.release(subject, |hold| hold.until <= steady);
            if let Some(holds) = self.of(subject).and_then(|held| held.holds.get(&subject)) {
                found.extend(holds.iter().copied());
            }
        }
        found.sort_unstable_by_key(|hold| hold.id);
        found.dedup_by_key(|hold| hold.id);
        let reserved = found.iter().map(|hold| Reserved {
            count: hold.count,
            until: now.micros().saturating_add(hold.until - steady),
        });
        reserved.collect()
    }

    /// Whether a series is asked by the steady clock, while that is ahead (invariant 3); `find_out` is
    /// asked by the first.
    pub(super) fn is_steady(
        &mut self,
        subject: Subject,
        find_out: impl FnOnce() -> Result<bool>,
    ) -> Result<bool> {
        let time = self.keys.steady.times.load(Acquire);
        let Some(held) = self.of(subject) else { return find_out() };
        if held.time != time {
            held.time = time;
            held.is_steady = Table::default();
        }
        if let Some(is_steady) = held.is_steady.get(&subject) {
            return Ok(*is_steady);
        }
        let is_steady = find_out()?;
        held.is_steady.insert(subject, is_steady);
        Ok(is_steady)
    }

    /// From now on a series is asked by the steady clock, for what is recorded to it has its times.
    pub(super) fn set_steady(&mut self, subject: Subject) {
        if let Some(held) = self.of(subject) {
            held.is_steady.insert(subject, true);
        }
    }

    /// Whether anything is reserved under these locks.
    #[inline]
    pub(super) fn has_held(&self) -> bool {
        self.guards.iter().any(|(_, held)| !held.holds.is_empty())
    }

    pub(super) fn hold(&mut self, subject: Subject, hold: Hold, now: Timestamp) {
        // What is over and nobody asked for since goes, too.
        let steady = self.keys.steady_at(now);
        let others = self.of(subject).map(|held| held.holds.keys().copied().collect::<Vec<_>>());
        for other in others.unwrap_or_default() {
            self.release(other, |hold| hold.until <= steady);
        }
        if let Some(held) = self.of(subject) {
            held.holds.entry(subject).or_default().push(hold);
            self.keys.busy.held.fetch_add(1, Release);
        }
    }

    pub(super) fn has(&mut self, subject: Subject, id: u64) -> bool {
        let holds = self.of(subject).and_then(|held| held.holds.get(&subject));
        holds.is_some_and(|holds| holds.iter().any(|hold| hold.id == id))
    }

    /// Changes how long a reservation lasts.
    pub(super) fn renew(&mut self, subject: Subject, id: u64, until: i64) {
        let holds = self.of(subject).and_then(|held| held.holds.get_mut(&subject));
        for hold in holds.into_iter().flatten().filter(|hold| hold.id == id) {
            hold.until = until;
        }
    }

    /// Ends the reservations of a series of which `is_over` says so.
    pub(super) fn release(&mut self, subject: Subject, is_over: impl Fn(&Hold) -> bool) {
        let Some(held) = self.of(subject) else { return };
        let Some(holds) = held.holds.get_mut(&subject) else { return };
        let before = holds.len();
        holds.retain(|hold| !is_over(hold));
        let released = before - holds.len();
        if holds.is_empty() {
            held.holds.remove(&subject);
        }
        self.keys.busy.held.fetch_sub(released, Release);
    }
}

/// Invariant 2.
struct Steady {
    /// In microseconds since 1970, all bits; at most [`BEHIND`] behind while it is not ahead.
    at: AtomicU64,
    is_ahead: AtomicBool,
    /// How often it was ahead.
    times: AtomicU64,
    /// Events were recorded by the store's clock since that is behind.
    is_mixed: AtomicBool,
    /// What the store's clock said last, while this one is ahead.
    store: Mutex<i64>,
}

impl Default for Steady {
    fn default() -> Self {
        Steady {
            at: AtomicU64::new(i64::MIN as u64),
            is_ahead: AtomicBool::new(false),
            times: AtomicU64::new(0),
            is_mixed: AtomicBool::new(false),
            store: Mutex::default(),
        }
    }
}

impl Steady {
    #[inline]
    fn follow(&self, now: Timestamp) -> Timestamp {
        let at = self.at.load(Acquire) as i64;
        let ahead = now.micros().saturating_sub(at);
        if ahead < -ROUGHLY || self.is_ahead.load(Acquire) {
            return self.go_on(now);
        }
        if ahead >= BEHIND {
            self.at.store(now.micros() as u64, Release);
        }
        now
    }

    #[cold]
    fn go_on(&self, now: Timestamp) -> Timestamp {
        let mut store = self.store.lock();
        let (now, at) = (now.micros(), self.at.load(Acquire) as i64);
        if now >= at.saturating_sub(ROUGHLY) {
            self.at.store(at.max(now) as u64, Release);
            self.is_ahead.store(false, Release);
            self.is_mixed.store(false, Release);
            return Timestamp::from_micros(now);
        }
        let was_ahead = self.is_ahead.swap(true, Release);
        let passed = if was_ahead { now.saturating_sub(*store) } else { 0 };
        self.times.fetch_add(u64::from(!was_ahead), Release);
        *store = now;
        let at = at.saturating_add(passed.max(0)).min(Timestamp::MAX.micros());
        self.at.store(at as u64, Release);
        Timestamp::from_micros(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_is_not_followed_back() {
        let steady = Steady::default();
        let follow = |seconds| steady.follow(Timestamp::from_secs(seconds)).micros() / 1_000_000;
        assert_eq!(follow(10_000), 10_000);
        // Three hours back, for a while, and forth.
        assert_eq!(follow(10), 10_000);
        assert_eq!(follow(15), 10_005);
        assert_eq!(follow(12), 10_005, "back once more");
        assert_eq!(follow(20), 10_013);
        assert_eq!(follow(10_014), 10_014);
        assert_eq!(follow(10_020), 10_020);
        // Another thread, which is a little behind, and one that is too far.
        let roughly = Timestamp::from_micros(10_020_000_000 - ROUGHLY);
        assert_eq!(steady.follow(roughly), roughly);
        let further = Timestamp::from_micros(10_020_000_000 - ROUGHLY - 1);
        assert_eq!(steady.follow(further), Timestamp::from_secs(10_020));
        // None of several threads has to be the first one that it catches up for.
        assert_eq!(follow(10), 10_020);
        assert_eq!(steady.follow(roughly), roughly);
        assert!(!steady.is_ahead.load(Acquire));
        // Before 1970.
        let steady = Steady::default();
        let before = Timestamp::from_secs(-5);
        assert_eq!(steady.follow(before), before);
    }
}
