//! The tier: the series in memory, by view and shard. What queries read and recording changes.
//!
//! Invariants
//! 1. `tier/apply.rs` is the only way in which events change series, live or replayed.
//! 2. No lock of this module is held while anything is read from disk, and none leaves it. Under that of a shard
//!    an event may be recorded that its series was asked about (`tier/apply.rs`, `Recorder`): that writes to the
//!    stage, and takes no lock but the dictionary's.
//! 3. The tier knows series and views, not files: what is to be stored is *captured* as bytes and
//!    handed out, what was stored is *installed* from a series somebody else has read.
//!
//! Life of a series here, by its mark and flags:
//! ```text
//! absent ── recorded, no stored row ─────────────► complete, dirty
//!        ── recorded, a row may be stored ───────► partial, dirty   (holds what came since)
//!        ── asked for, row read ─────────────────► complete, clean
//! dirty  ── captured for the checkpoint ─────────► flushing ── committed ─► clean ── evicted ─► absent
//! partial ─ asked for, row read ─────────────────► complete (same mark)
//! ```
//! Next: `tier/shard.rs`, then `snapshot.rs`.

pub(crate) mod apply;
pub(crate) mod room;
pub(crate) mod shard;
mod slab;

use crate::dictionary::{Dictionary, Sym};
use crate::series::{Series, SeriesRef};
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use crate::sync::{Mutex, OnceLock};
use crate::time::{TimeZone, Timestamp};
use crate::versions::{Version, Versions};
use crate::view::{Plan, View};
use crossbeam::utils::CachePadded;
use room::Room;
use shard::{Lookup, Shard};
use smallvec::SmallVec;
use std::sync::Arc;

/// Shards of a view that has a key; one without has a single series and a single shard.
pub(crate) const SHARDS: usize = 16;

/// Places of a shard that have versions; its slots have them in turn.
const PLACES: u32 = if cfg!(any(loom, shuttle)) { 2 } else { 256 };

pub(crate) type Key = SmallVec<[Sym; 4]>;

/// One view in memory.
pub(crate) struct ViewTier {
    pub(crate) id: u32,
    pub(crate) view: View,
    pub(crate) plan: Plan,
    defined_at: AtomicU64,
    pub(crate) backfill: Mutex<Backfill>,
    /// From which bucket of each grain on all series know theirs, where they were converted from those of
    /// another definition (`series/convert.rs`).
    converted: OnceLock<Box<[i64]>>,
    /// Of its series, by slot; over when it is no view of the engine any more: dropped, or another one
    /// has taken its place.
    versions: Arc<Versions>,
    /// Single events are applied to it when they come.
    at_once: AtomicBool,
    /// Held by the call that does the backfill.
    pub(crate) backfilling: Mutex<()>,
    /// Scans under way; nothing leaves the tier meanwhile.
    scans: AtomicUsize,
    /// Rows in the store at opening, and those that deltas have added since.
    pub(crate) stored_rows: AtomicU64,
    /// What the texts of keys and items are.
    dictionary: Arc<Dictionary>,
    shards: Box<[CachePadded<Mutex<Shard>>]>,
}

/// Where a view stands with the records from before its definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) enum Backfill {
    /// Nobody asked for one: the view counts from its definition on.
    NotAsked,
    /// Positions up to `done` of those up to `defined_at` are in.
    Unfinished {
        done: u64,
    },
    Complete,
    /// It is to take the place of the view that has its name, which holds the records behind `since`:
    /// of those up to `defined_at`, the ones up to `done` are in here, too.
    Succeeding {
        since: u64,
        done: u64,
    },
}

impl Backfill {
    /// The last position of those that are in, while a backfill is under way.
    pub(crate) fn under_way(self) -> Option<u64> {
        match self {
            Backfill::Unfinished { done } | Backfill::Succeeding { done, .. } => Some(done),
            Backfill::NotAsked | Backfill::Complete => None,
        }
    }

    pub(crate) fn is_succeeding(self) -> bool {
        matches!(self, Backfill::Succeeding { .. })
    }

    /// So much more is in.
    pub(crate) fn moved_to(self, done: u64) -> Self {
        match self {
            Backfill::Succeeding { since, .. } => Backfill::Succeeding { since, done },
            _ => Backfill::Unfinished { done },
        }
    }
}

impl ViewTier {
    /// A view without series here, in the store's time zone; the snapshot holds `stored_rows` of it.
    #[expect(clippy::too_many_arguments, reason = "each is a fact of its own, said in two places")]
    pub(crate) fn new(
        id: u32,
        view: View,
        zone: TimeZone,
        defined_at: u64,
        backfill: Backfill,
        dictionary: &Arc<Dictionary>,
        stored_rows: u64,
        expected_keys: usize,
    ) -> Self {
        let plan = Plan::new(&view, zone, dictionary);
        let shards = if plan.key.is_empty() { 1 } else { SHARDS };
        let expected = if plan.key.is_empty() { 1 } else { expected_keys.div_ceil(shards) };
        let room = Arc::new(Room::default());
        let shard = || {
            let (arity, shape) = (plan.key.len(), &plan.shape);
            let shard = Shard::new(arity, shape, expected, stored_rows > 0, room.clone());
            CachePadded::new(Mutex::new(shard))
        };
        let shards: Box<[_]> = std::iter::repeat_with(shard).take(shards).collect();
        ViewTier {
            id,
            view,
            plan,
            dictionary: dictionary.clone(),
            defined_at: AtomicU64::new(defined_at),
            backfill: Mutex::new(backfill),
            converted: OnceLock::new(),
            versions: Arc::new(Versions::new(shards.len() * PLACES as usize)),
            at_once: AtomicBool::new(false),
            backfilling: Mutex::new(()),
            scans: AtomicUsize::new(0),
            stored_rows: AtomicU64::new(stored_rows),
            shards,
        }
    }

    /// Notes that its buckets were converted, and from which on they are known; to be said once.
    pub(crate) fn note_converted(&self, known: &[i64]) {
        let _ = self.converted.set(known.into());
    }

    /// From which bucket of each grain on they are known; `None`: they were not converted.
    pub(crate) fn converted(&self) -> Option<&[i64]> {
        self.converted.get().map(|known| &**known)
    }

    /// The view counts events behind this position of its own; those up to it are the backfill's.
    pub(crate) fn defined_at(&self) -> u64 {
        self.defined_at.load(Acquire)
    }

    /// Behind which position the records are that it holds, or will when its backfill is complete.
    pub(crate) fn since(&self) -> u64 {
        match *self.backfill.lock() {
            Backfill::NotAsked => self.defined_at(),
            Backfill::Unfinished { .. } | Backfill::Complete => 0,
            Backfill::Succeeding { since, .. } => since,
        }
    }

    pub(crate) fn is_succeeding(&self) -> bool {
        self.backfill.lock().is_succeeding()
    }

    /// Notes that the records up to `done` are in.
    pub(crate) fn filled_to(&self, done: u64) {
        let mut backfill = self.backfill.lock();
        *backfill = backfill.moved_to(done);
    }

    /// Notes that everything is in. A successor now holds what the view before it held; where nobody
    /// had asked for that one's backfill, nobody has for this one's, and it can still be done.
    pub(crate) fn filled(&self) {
        let mut backfill = self.backfill.lock();
        *backfill = match *backfill {
            Backfill::Succeeding { since, .. } if since > 0 => {
                self.defined_at.store(since, Release);
                Backfill::NotAsked
            }
            _ => Backfill::Complete,
        };
    }

    pub(crate) fn leave(&self) {
        self.versions.end();
    }

    pub(crate) fn is_at_once(&self) -> bool {
        self.at_once.load(Acquire)
    }

    /// To be called while nobody records.
    pub(crate) fn set_at_once(&self) {
        self.at_once.store(true, Release);
    }

    pub(crate) fn has_left(&self) -> bool {
        self.versions.is_over()
    }

    pub(crate) fn versions(&self) -> &Arc<Versions> {
        &self.versions
    }

    pub(crate) fn shards(&self) -> &[CachePadded<Mutex<Shard>>] {
        &self.shards
    }

    /// The shard of a key, and its hash: of one part, its sym.
    #[inline]
    pub(crate) fn place(&self, key: &[Sym]) -> (usize, u64) {
        if let [sym] = key {
            return (sym.0 as usize % SHARDS, u64::from(sym.0));
        }
        let hash = hash_key(key);
        // The upper half is the shard's.
        (hash as usize & (self.shards.len() - 1), hash)
    }

    /// Keeps every entry where it is until the scan is dropped. Who takes entries away asks
    /// [`is_scanned`](ViewTier::is_scanned) under the shard's lock; whoever locks a shard after this
    /// call sees no entry leave it any more.
    pub(crate) fn scan(&self) -> Scan<'_> {
        self.scans.fetch_add(1, SeqCst);
        Scan(self)
    }

    pub(crate) fn is_scanned(&self) -> bool {
        self.scans.load(SeqCst) > 0
    }

    /// Reads the series of `key` where it is.
    #[inline]
    pub(crate) fn read<R>(&self, key: &[Sym], read: impl FnOnce(SeriesRef<'_>) -> R) -> Lookup<R> {
        let (shard, hash) = self.place(key);
        self.shards[shard].lock().read(hash, key, read)
    }

    /// The same; where `read` says so gives the version that it was read at.
    #[inline]
    pub(crate) fn read_at_version(
        &self,
        key: &[Sym],
        read: impl FnOnce(SeriesRef<'_>) -> bool,
    ) -> Lookup<Option<Version>> {
        let (at, hash) = self.place(key);
        let mut shard = self.shards[at].lock();
        match shard.read(hash, key, read) {
            Lookup::Here(true) => {
                Lookup::Here(shard.version(hash, key, &self.versions, at as u32 * PLACES))
            }
            Lookup::Here(false) => Lookup::Here(None),
            Lookup::Partial => Lookup::Partial,
            Lookup::Unknown => Lookup::Unknown,
            Lookup::Nowhere => Lookup::Nowhere,
        }
    }

    /// Brings in the row of `key` with the number of its cut (`None`: there is no row), unless the
    /// state of the store has changed since it was read (`still` says no). Then reads the series.
    pub(crate) fn install<R>(
        &self,
        key: &[Sym],
        row: Option<(Series, u64)>,
        still: impl FnOnce() -> bool,
        read: impl FnOnce(SeriesRef<'_>) -> R,
    ) -> Installed<R> {
        let (shard, hash) = self.place(key);
        let mut shard = self.shards[shard].lock();
        if !still() {
            return Installed::OutOfDate;
        }
        Installed::Read(shard.install(hash, key, row, &self.plan.shape, read))
    }

    pub(crate) fn totals(&self) -> ShardTotals {
        let mut totals = ShardTotals::default();
        for shard in &self.shards {
            totals.add(&shard.lock().totals());
        }
        totals
    }
}

/// A scan under way.
pub(crate) struct Scan<'a>(&'a ViewTier);

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        self.0.scans.fetch_sub(1, SeqCst);
    }
}

/// What became of a row that was read from the store.
pub(crate) enum Installed<R> {
    /// It is in; the series, if there is one, says this.
    Read(Option<R>),
    /// The store has changed since; it must be read again.
    OutOfDate,
}

/// Sums over shards, for statistics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShardTotals {
    pub(crate) resident: u64,
    pub(crate) partial: u64,
    pub(crate) dirty: u64,
    pub(crate) memory_bytes: u64,
    /// The part of it that live series take; what eviction gives back to others.
    pub(crate) live_bytes: u64,
    pub(crate) evictions: u64,
    pub(crate) resizes: u64,
    pub(crate) resize_micros: u64,
    /// Resident series that have no row in the snapshot store.
    pub(crate) unstored: u64,
    /// Rows added to the store since it was opened, by captures of complete series.
    pub(crate) newly_stored: u64,
}

impl ShardTotals {
    pub(crate) fn add(&mut self, other: &ShardTotals) {
        self.resident += other.resident;
        self.partial += other.partial;
        self.dirty += other.dirty;
        self.memory_bytes += other.memory_bytes;
        self.live_bytes += other.live_bytes;
        self.evictions += other.evictions;
        self.resizes += other.resizes;
        self.resize_micros += other.resize_micros;
        self.unstored += other.unstored;
        self.newly_stored += other.newly_stored;
    }
}

/// The hash of a key, for tables in memory only. Syms are small and dense, so one folded
/// multiplication a part spreads them over all bits.
#[inline]
pub(crate) fn hash_key(key: &[Sym]) -> u64 {
    let mut hash = 0x243f_6a88_85a3_08d3_u64;
    for sym in key {
        let wide = u128::from(hash ^ u64::from(sym.0)) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        hash = (wide as u64) ^ (wide >> 64) as u64;
    }
    // An odd multiple of a well-mixed word: the last round's weak low bits reach the top.
    hash.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// The time of the newest event there was.
#[derive(Debug)]
pub(crate) struct Newest(CachePadded<AtomicU64>);

impl Newest {
    /// Makes numbers of which an earlier moment has the lesser one.
    const SIGN: u64 = 1 << 63;

    pub(crate) fn new(time: Timestamp) -> Self {
        Newest(CachePadded::new(AtomicU64::new(time.micros() as u64 ^ Self::SIGN)))
    }

    #[inline]
    pub(crate) fn get(&self) -> Timestamp {
        Timestamp::from_micros((self.0.load(Relaxed) ^ Self::SIGN) as i64)
    }

    #[inline]
    pub(crate) fn raise(&self, time: Timestamp) {
        if time > self.get() {
            self.0.fetch_max(time.micros() as u64 ^ Self::SIGN, Relaxed);
        }
    }
}

impl Default for Newest {
    fn default() -> Self {
        Newest::new(Timestamp::MIN)
    }
}

/// A counter that is only read for statistics.
#[derive(Debug, Default)]
pub(crate) struct Tally(CachePadded<AtomicU64>);

impl Tally {
    pub(crate) fn add(&self, n: u64) {
        if n > 0 {
            self.0.fetch_add(n, Relaxed);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Column, Columns};
    use apply::{Scratch, apply_all};

    /// Records an event of a user.
    fn record(tier: &Arc<ViewTier>, user: &str) -> Sym {
        let (texts, name) = (&tier.dictionary, tier.view.key()[0].as_str());
        let mut reader = texts.reader();
        let [event, name, user] = ["event", name, user].map(|text| texts.intern(&mut reader, text));
        let columns = Columns {
            names: vec![event],
            times: vec![1],
            dims: vec![Column { name, values: vec![user] }],
            ..Columns::default()
        };
        apply_all(std::slice::from_ref(tier), &columns, &mut Scratch::default());
        user
    }

    fn by_user() -> Arc<ViewTier> {
        let (texts, view) = (Arc::new(Dictionary::new(0)), View::new("by_user").by(["user"]));
        let (zone, asked) = (TimeZone::UTC, Backfill::NotAsked);
        Arc::new(ViewTier::new(1, view, zone, 0, asked, &texts, 0, 0))
    }

    fn version(tier: &ViewTier, user: Sym) -> Version {
        match tier.read_at_version(&[user], |_| true) {
            Lookup::Here(Some(version)) => version,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_series_that_is_recorded_or_evicted_has_another_version_and_one_that_is_stored_has_not() {
        let tier = by_user();
        let (ann, bob) = (record(&tier, "ann"), record(&tier, "bob"));
        let seen = [ann, bob].map(|user| version(&tier, user));
        let is_current = || seen.map(|version| tier.versions().is_current(version));
        assert_eq!(is_current(), [true, true]);
        record(&tier, "ann");
        assert_eq!(is_current(), [false, true]);
        let seen = [ann, bob].map(|user| version(&tier, user));
        let is_current = || seen.map(|version| tier.versions().is_current(version));
        for shard in tier.shards() {
            let (mut shard, mut captured) = (shard.lock(), Vec::new());
            shard.cut(1);
            while shard.walk(9, &mut captured) {}
            shard.settle(captured.iter().map(|captured| captured.slot), 1, false);
        }
        assert_eq!(is_current(), [true, true]);
        // The first round of the hand finds them touched.
        for evicted in [0, 2] {
            let all = tier.shards().iter().map(|shard| shard.lock().evict(9)).sum::<usize>();
            assert_eq!(all, evicted);
            assert_eq!(is_current(), [evicted == 0; 2]);
        }
        // In a slot that was another's.
        record(&tier, "bob");
        assert_eq!(is_current(), [false, false]);
    }

    #[test]
    fn nothing_of_a_view_that_has_left_is_current() {
        let tier = by_user();
        let ann = record(&tier, "ann");
        let before = version(&tier, ann);
        assert!(tier.versions().is_current(before) && !tier.has_left());
        tier.leave();
        assert!(tier.has_left());
        let behind = version(&tier, ann);
        assert!([before, behind].iter().all(|seen| !tier.versions().is_current(*seen)));
    }
}
