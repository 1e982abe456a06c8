//! A shard: keys to series, dirty by generation, copied on first touch.
//!
//! Invariants
//! 1. `mark` is [`CLEAN`], [`FLUSHING`] (captured for a checkpoint that is not committed yet) or
//!    the generation of the last change. Only clean entries are evicted.
//! 2. The cut of a checkpoint raises `generation` in every shard while nobody records. An entry
//!    whose mark is neither clean, flushing nor the present generation belongs to the cut and is
//!    captured exactly once: by the first writer that touches it, or by the checkpoint's walk.
//! 3. A *partial* entry holds what happened since the row in the store was written, or since its
//!    last capture; a capture moves that out (a delta), so that nothing is counted twice. Until
//!    the checkpoint is committed the delta stays in `handed`, under the number of the cut: the whole
//!    series is row + deltas whose cut is behind the row's + entry. (Cuts are numbered by themselves
//!    and not by the log's position: a backfill changes series between two cuts at one position.)
//! 4. `everything_here`: no key of the shard has a stored row without being resident, so an absent
//!    key is a new key and nothing has to be read to know that.
//! 5. Each change of a series and each end of an entry raises the version of its slot's place (`versions.rs`),
//!    once somebody took one of the shard along. Completing an entry changes nothing that can be read, and evicting
//!    one neither; but its slot may be another key's then.
//!
//! Next: `tier/apply.rs`; where entries lie: `tier/slab.rs`.

use super::apply::Answer;
use super::room::Room;
use super::slab::Slab;
use super::{Key, PLACES, SHARDS, ShardTotals, hash_key};
use crate::aggregate::{Inputs, Measure, Sketch, StatesMut, StatesRef, Stats};
use crate::dictionary::Sym;
use crate::series::{Cell, Head, Observed, Occurrence, Series, SeriesMut, SeriesRef, Shape};
use crate::slots::{self, Slots};
use crate::sync::atomic::AtomicBool;
use crate::sync::atomic::Ordering::AcqRel;
use crate::time::{Leaf, Stopwatch, Timestamp};
use crate::versions::{Version, Versions};
use std::collections::HashMap;
use std::sync::Arc;

pub(crate) const CLEAN: u32 = 0;
pub(crate) const FLUSHING: u32 = u32::MAX;
const FIRST_GENERATION: u32 = 1;
pub(crate) const NO_SLOT: u32 = u32::MAX;

pub(crate) struct Shard {
    arity: usize,
    /// Slots by key, where keys have two parts or more, or none.
    table: Slots,
    /// Slots by sym (without the bits that chose the shard), where a key is one sym: syms are small
    /// and dense, and an array is faster than any table. [`NO_SLOT`] where there is none.
    by_sym: Vec<u32>,
    /// The keys of all slots, `arity` syms each.
    keys: Vec<Sym>,
    entries: Slab<Entry>,
    /// The states of the series, by slot.
    stats: Slab<Stats>,
    sketches: Slab<Sketch>,
    room: Arc<Room>,
    /// Slots that have been used; those behind are blank.
    used: u32,
    /// Used slots without an entry.
    free: Vec<u32>,
    generation: u32,
    /// The number of the last cut.
    cut: u64,
    /// Slots whose first change in this generation put them here.
    dirty: Vec<u32>,
    /// Slots of the cut that the checkpoint's walk has still to look at.
    cut_slots: Vec<u32>,
    /// What writers captured for the checkpoint under way.
    captured: Vec<Captured>,
    /// Deltas on their way into the store, by slot.
    handed: HashMap<u32, Vec<(u64, Arc<TakenDelta>)>, foldhash::fast::RandomState>,
    everything_here: bool,
    /// Entries there are.
    live: usize,
    partial: usize,
    /// Complete entries without a stored row.
    unstored: usize,
    /// Entries whose mark is not [`CLEAN`]: of no checkpoint that is committed.
    unsaved: usize,
    /// Rows that captures of complete entries have added to the store, or are about to.
    newly_stored: u64,
    heap_bytes: usize,
    evictions: u64,
    resizes: u64,
    resize_micros: u64,
    /// Where the eviction's sweep goes on.
    hand: u32,
    /// Invariant 5.
    watched: Option<Watched>,
}

/// The versions of a shard.
struct Watched {
    versions: Arc<Versions>,
    first: u32,
}

impl Watched {
    #[inline]
    fn place(&self, slot: u32) -> u32 {
        self.first + slot % PLACES
    }

    #[inline]
    fn raise(&self, slot: u32) {
        self.versions.raise(self.place(slot));
    }
}

#[expect(clippy::struct_excessive_bools, reason = "independent facts; a byte each is paid for")]
struct Entry {
    mark: u32,
    /// Invariant 3.
    partial: bool,
    /// Whether the store has a row of it. Of a partial entry that is not known.
    stored: bool,
    /// Touched since the eviction's hand last came by.
    touched: bool,
    /// False in a free slot.
    live: bool,
    head: Head,
}

/// A series as it was at the cut.
pub(crate) struct Captured {
    pub(crate) slot: u32,
    pub(crate) key: Key,
    pub(crate) what: Capture,
}

pub(crate) enum Capture {
    /// All of it: the rows to write.
    Whole(CapturedRows),
    /// What is to be merged with the stored row, up to this cut.
    Delta { delta: Arc<TakenDelta>, cut: u64 },
}

/// What was captured of a partial entry.
pub(crate) struct TakenDelta {
    pub(crate) series: Series,
    /// The row that it makes, where there was none, is counted already. Shared by all deltas of the
    /// entry that are on their way.
    pub(crate) counted: Arc<AtomicBool>,
}

/// The rows of one series that a checkpoint writes, not sealed yet.
#[derive(Default)]
pub(crate) struct CapturedRows {
    pub(crate) series: Vec<u8>,
    /// Grain, block number, and the block's bytes; `None` deletes the row.
    pub(crate) blocks: Vec<(u8, i64, Option<Vec<u8>>)>,
}

impl CapturedRows {
    /// About so many there are in it.
    pub(crate) fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().filter_map(|(.., block)| block.as_ref());
        self.series.len() + blocks.map(Vec::len).sum::<usize>()
    }
}

/// What a shard knows of a key.
#[derive(Debug)]
pub(crate) enum Lookup<R> {
    /// It is here, whole.
    Here(R),
    /// It is here in part; its row must be read and installed first.
    Partial,
    /// It is not here; the store may have it.
    Unknown,
    /// There is no such key.
    Nowhere,
}

/// Encodes what changed of a series since it was last written, and notes it as written.
pub(crate) fn rows_of(mut series: SeriesMut<'_>) -> CapturedRows {
    let mut rows = CapturedRows::default();
    series.as_ref().encode_row(&mut rows.series);
    for (grain, ring) in series.rings_mut().iter_mut().enumerate() {
        let grain = grain as u8;
        rows.blocks.extend(ring.take_dropped().into_iter().map(|number| (grain, number, None)));
        for block in ring.blocks_mut().iter_mut().filter(|block| block.changed != CLEAN) {
            let mut bytes = Vec::new();
            block.encode_buckets(&mut bytes);
            block.changed = CLEAN;
            block.stored = true;
            rows.blocks.push((grain, block.number, Some(bytes)));
        }
    }
    rows
}

/// The part of a key's hash that the table keeps; the rest chose the shard.
#[inline]
fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The place of a sym in [`Shard::by_sym`].
#[inline]
fn sym_place(sym: Sym) -> usize {
    sym.0 as usize / SHARDS
}

impl Shard {
    /// An empty shard with room for `expected` keys; `stored` if the store may have rows of it.
    pub(crate) fn new(
        arity: usize,
        shape: &Shape,
        expected: usize,
        stored: bool,
        room: Arc<Room>,
    ) -> Self {
        Shard {
            arity,
            table: Slots::with_room(if arity == 1 { 0 } else { expected }),
            by_sym: Vec::with_capacity(if arity == 1 { expected } else { 0 }),
            keys: Vec::with_capacity(expected * arity),
            entries: Slab::new(1),
            stats: Slab::new(shape.kinds.stats),
            sketches: Slab::new(shape.kinds.sketches.len()),
            room,
            used: 0,
            free: Vec::new(),
            generation: FIRST_GENERATION,
            cut: 0,
            dirty: Vec::new(),
            cut_slots: Vec::new(),
            captured: Vec::new(),
            handed: HashMap::default(),
            everything_here: !stored,
            live: 0,
            partial: 0,
            unstored: 0,
            unsaved: 0,
            newly_stored: 0,
            heap_bytes: 0,
            evictions: 0,
            resizes: 0,
            resize_micros: 0,
            hand: 0,
            watched: None,
        }
    }

    #[inline]
    fn entry(&mut self, slot: u32) -> &mut Entry {
        self.entries.one_mut(slot)
    }

    #[inline]
    fn entry_of(&self, slot: u32) -> &Entry {
        self.entries.one(slot)
    }

    #[inline]
    fn series(&mut self, slot: u32) -> SeriesMut<'_> {
        let head = &mut self.entries.one_mut(slot).head;
        let stats = self.stats.get_mut(slot);
        SeriesMut { head, states: StatesMut { stats, sketches: self.sketches.get_mut(slot) } }
    }

    #[inline]
    fn series_of(&self, slot: u32) -> SeriesRef<'_> {
        let (stats, sketches) = (self.stats.get(slot), self.sketches.get(slot));
        SeriesRef { head: &self.entry_of(slot).head, states: StatesRef { stats, sketches } }
    }

    #[inline]
    pub(crate) fn key(&self, slot: u32) -> &[Sym] {
        &self.keys[slot as usize * self.arity..][..self.arity]
    }

    #[inline]
    fn find(&self, hash: u64, key: &[Sym]) -> Option<u32> {
        if let [sym] = key {
            return self.by_sym.get(sym_place(*sym)).copied().filter(|slot| *slot != NO_SLOT);
        }
        // Sym by sym, for a comparison of the slices would be a call.
        let same =
            |slot: u32| self.keys[slot as usize * key.len()..].iter().zip(key).all(|(a, b)| a == b);
        self.table.find(tag_of(hash), same)
    }

    /// Has the place of a key in the table fetched: the first step of looking up many.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64, key: &[Sym]) {
        if let [sym] = key {
            if let Some(slot) = self.by_sym.get(sym_place(*sym)) {
                slots::prefetch(slot);
            }
        } else {
            self.table.prefetch(tag_of(hash));
        }
    }

    /// Has the entry found there fetched: the second step. Gives its slot, which is most likely that of
    /// the key, and only likely: [`Shard::slot_at`], the last step, makes sure.
    #[inline]
    pub(crate) fn approach(&self, hash: u64, key: &[Sym]) -> u32 {
        let found = match key {
            [sym] => self.by_sym.get(sym_place(*sym)).copied(),
            [] => None,
            _ => self.table.find(tag_of(hash), |slot| {
                slots::prefetch(&self.keys[slot as usize * key.len()]);
                true
            }),
        };
        let slot = found.unwrap_or(NO_SLOT);
        if slot != NO_SLOT {
            self.prefetch_entry(slot);
        }
        slot
    }

    /// The slot of `key`, made if it is new, of which [`approach`](Shard::approach) gave `likely` under
    /// this hold of the lock. Its entry is to be [touched](Shard::observe).
    #[inline]
    pub(crate) fn slot_at(&mut self, likely: u32, hash: u64, key: &[Sym], shape: &Shape) -> u32 {
        if likely != NO_SLOT && self.is_of(likely, key) {
            return likely;
        }
        self.slot_of(hash, key, shape)
    }

    /// Whether the slot that was [approached](Shard::approach) is the key's.
    #[inline]
    fn is_of(&self, slot: u32, key: &[Sym]) -> bool {
        let stored = &self.keys[slot as usize * key.len()..];
        // One sym was found by itself.
        key.len() == 1 || stored.iter().zip(key).all(|(a, b)| a == b)
    }

    #[inline]
    fn prefetch_entry(&self, slot: u32) {
        self.entries.prefetch(slot);
        self.stats.prefetch(slot);
        self.sketches.prefetch(slot);
    }

    /// The slot of `key`, made if it is new, which is its first touch.
    pub(super) fn slot_of(&mut self, hash: u64, key: &[Sym], shape: &Shape) -> u32 {
        if let Some(slot) = self.find(hash, key) {
            return slot;
        }
        let slot = self.insert(hash, key, !self.everything_here, false, shape);
        self.first_touch(slot);
        slot
    }

    #[cold]
    fn insert(
        &mut self,
        hash: u64,
        key: &[Sym],
        partial: bool,
        stored: bool,
        shape: &Shape,
    ) -> u32 {
        self.make_room(key);
        self.partial += usize::from(partial);
        self.unstored += usize::from(!partial && !stored);
        let slot = if let Some(slot) = self.free.pop() {
            let at = slot as usize * self.arity;
            self.keys[at..at + self.arity].copy_from_slice(key);
            slot
        } else {
            if self.used as usize == self.entries.slots() {
                self.add_blanks(shape);
            }
            // Sym by sym, for a copy of the slice would be a call.
            for sym in key {
                self.keys.push(*sym);
            }
            self.used += 1;
            self.used - 1
        };
        let has_sketches = self.sketches.width() > 0;
        let entry = self.entry(slot);
        // Blank, or empty since the key before it was removed.
        debug_assert_eq!(entry.head.count(), 0);
        (entry.partial, entry.stored) = (partial, stored);
        (entry.touched, entry.live, entry.mark) = (true, true, CLEAN);
        if shape.has_rings() || has_sketches {
            entry.head.make_rings(shape);
            let heap = self.series_of(slot).heap_bytes();
            self.account(heap as isize);
        }
        self.live += 1;
        if let [sym] = key {
            self.by_sym[sym_place(*sym)] = slot;
        } else {
            self.table.insert(tag_of(hash), slot);
        }
        slot
    }

    fn add_blanks(&mut self, shape: &Shape) {
        self.entries.grow(&self.room, |_| Entry {
            mark: CLEAN,
            partial: false,
            stored: false,
            touched: false,
            live: false,
            head: Head::default(),
        });
        self.stats.grow(&self.room, |_| Stats::default());
        self.sketches.grow(&self.room, |at| shape.kinds.sketches[at].empty());
    }

    /// Makes room for one more key.
    fn make_room(&mut self, key: &[Sym]) {
        let by_sym = if let [sym] = key { sym_place(*sym) + 1 } else { 0 };
        if by_sym <= self.by_sym.capacity()
            && (by_sym > 0 || self.table.has_room_for(self.live + 1))
        {
            self.by_sym.resize(self.by_sym.len().max(by_sym), NO_SLOT);
            return;
        }
        let stopwatch = Stopwatch::start();
        if by_sym > 0 {
            self.by_sym.resize(by_sym.next_power_of_two(), NO_SLOT);
        } else {
            self.table = self.table.grown();
        }
        self.resizes += 1;
        self.resize_micros += stopwatch.micros();
    }

    /// Folds an event into the series in `slot`; says whether it was late.
    #[inline]
    pub(crate) fn observe<'m>(
        &mut self,
        slot: u32,
        shape: &Shape,
        leaf: &Leaf,
        event: Occurrence,
        inputs: impl Inputs<'m>,
    ) -> bool {
        self.change_series(slot, |series, mark| series.observe(shape, leaf, event, inputs, mark))
    }

    /// Folds in the cell of some events that lie in the leaf's buckets; says whether they were late.
    pub(crate) fn merge(&mut self, slot: u32, shape: &Shape, leaf: &Leaf, run: &Cell) -> bool {
        self.change_series(slot, |series, mark| series.merge_run(run, shape, leaf, mark))
    }

    /// Folds events that count for one each into the series in `slot`, where series are the statistics of one
    /// measure and nothing else: what [`observe`](Shard::observe) does, with less to find out.
    #[inline]
    pub(crate) fn observe_plain<'m>(
        &mut self,
        slot: u32,
        shape: &Shape,
        leaf: &Leaf,
        events: impl Iterator<Item = (Timestamp, &'m Measure)>,
    ) {
        self.change(slot, |head, stats, _, mark| {
            head.observe_plain(stats.one_mut(slot), shape, leaf, events, mark)
        });
    }

    /// Folds an event into the series in `slot`, where series only count: what [`observe`](Shard::observe) does,
    /// with less to find out. The event is its time, which is known, and for how many it counts.
    #[inline]
    pub(crate) fn observe_bare(
        &mut self,
        slot: u32,
        shape: &Shape,
        leaf: &Leaf,
        event: (Timestamp, u64),
    ) -> bool {
        self.change(slot, |head, _, _, mark| head.observe_bare(shape, leaf, event, mark))
    }

    /// [`change`](Shard::change), of a series.
    #[inline]
    fn change_series(
        &mut self,
        slot: u32,
        change: impl FnOnce(SeriesMut<'_>, u32) -> Observed,
    ) -> bool {
        self.change(slot, |head, stats, sketches, mark| {
            let states = StatesMut { stats: stats.get_mut(slot), sketches: sketches.get_mut(slot) };
            change(SeriesMut { head, states }, mark)
        })
    }

    /// The only change that recording makes.
    #[inline]
    fn change(
        &mut self,
        slot: u32,
        change: impl FnOnce(&mut Head, &mut Slab<Stats>, &mut Slab<Sketch>, u32) -> Observed,
    ) -> bool {
        let mark = self.generation;
        let mut entry = self.entries.one_mut(slot);
        if entry.mark != mark {
            self.first_touch(slot);
            entry = self.entries.one_mut(slot);
        }
        entry.touched = true;
        if let Some(watched) = &self.watched {
            watched.raise(slot);
        }
        let Observed { late, grown } =
            change(&mut entry.head, &mut self.stats, &mut self.sketches, mark);
        if grown != 0 {
            self.account(grown);
        }
        late
    }

    /// The first change of an entry in this generation: what it was at the cut is captured, if the
    /// cut still wants it (invariant 2).
    #[cold]
    fn first_touch(&mut self, slot: u32) {
        self.unsaved += usize::from(self.entry(slot).mark == CLEAN);
        if !matches!(self.entry(slot).mark, CLEAN | FLUSHING) {
            let captured = self.capture(slot);
            self.captured.push(captured);
        }
        self.entry(slot).mark = self.generation;
        self.dirty.push(slot);
    }

    /// Notes that so many bytes came to the heap, or went.
    #[inline]
    fn account(&mut self, bytes: isize) {
        self.heap_bytes = self.heap_bytes.saturating_add_signed(bytes);
    }

    fn capture(&mut self, slot: u32) -> Captured {
        let key = Key::from_slice(self.key(slot));
        let cut = self.cut;
        let entry = self.entry(slot);
        entry.mark = FLUSHING;
        let what = if entry.partial {
            let mut series = self.series(slot).take();
            let left = self.series_of(slot).heap_bytes();
            let freed = series.as_ref().heap_bytes() as isize - left as isize;
            for ring in series.rings_mut() {
                ring.note_stored();
            }
            let handed = self.handed.entry(slot).or_default();
            let counted = handed.first().map(|(_, first)| first.counted.clone());
            let delta = Arc::new(TakenDelta { series, counted: counted.unwrap_or_default() });
            handed.push((cut, delta.clone()));
            self.account(-freed);
            Capture::Delta { delta, cut }
        } else {
            let newly_stored = !entry.stored;
            entry.stored = true;
            let rows = rows_of(self.series(slot));
            self.unstored -= usize::from(newly_stored);
            self.newly_stored += u64::from(newly_stored);
            Capture::Whole(rows)
        };
        Captured { slot, key, what }
    }

    /// The cut of the checkpoint `number` (invariant 2). Nobody records meanwhile.
    pub(crate) fn cut(&mut self, number: u64) {
        assert!(self.generation < FLUSHING - 1, "2^32 checkpoints in one opening");
        self.generation += 1;
        self.cut = number;
        self.cut_slots.append(&mut self.dirty);
    }

    /// Captures up to `n` more entries of the cut into `out`; false when none are left. What
    /// writers have captured comes along.
    pub(crate) fn walk(&mut self, n: usize, out: &mut Vec<Captured>) -> bool {
        out.append(&mut self.captured);
        for _ in 0..n {
            let Some(slot) = self.cut_slots.pop() else { return false };
            if !matches!(self.entry(slot).mark, CLEAN | FLUSHING)
                && self.entry(slot).mark != self.generation
            {
                let captured = self.capture(slot);
                out.push(captured);
            }
        }
        !self.cut_slots.is_empty()
    }

    /// The checkpoint `number` is committed: what it captured from `slots` is clean, unless
    /// it has changed since, and its deltas are in the rows.
    pub(crate) fn settle(&mut self, slots: impl Iterator<Item = u32>, number: u64, scanned: bool) {
        if !self.handed.is_empty() {
            self.handed.retain(|_, deltas| {
                deltas.retain(|(cut, _)| *cut > number);
                !deltas.is_empty()
            });
        }
        for slot in slots {
            let entry = self.entry(slot);
            if entry.mark == FLUSHING {
                entry.mark = CLEAN;
                let is_empty = entry.partial;
                self.unsaved = self.unsaved.saturating_sub(1);
                if is_empty && !scanned {
                    // Empty since its capture: the row says all.
                    self.remove(slot);
                }
            }
        }
    }

    #[inline]
    pub(crate) fn read<R>(
        &mut self,
        hash: u64,
        key: &[Sym],
        read: impl FnOnce(SeriesRef<'_>) -> R,
    ) -> Lookup<R> {
        match self.find(hash, key) {
            Some(slot) => {
                let entry = self.entries.one_mut(slot);
                // Most often it is already, and what is not written stays in other processors' caches.
                if !entry.touched {
                    entry.touched = true;
                }
                if entry.partial {
                    return Lookup::Partial;
                }
                let (stats, sketches) = (self.stats.get(slot), self.sketches.get(slot));
                let states = StatesRef { stats, sketches };
                Lookup::Here(read(SeriesRef { head: &entry.head, states }))
            }
            None if self.everything_here => Lookup::Nowhere,
            None => Lookup::Unknown,
        }
    }

    /// Asks the series of a key, if there is one, and gives its slot and the answer; [`approach`](Shard::approach)
    /// gave `likely` under this hold of the lock.
    #[inline]
    pub(super) fn ask(
        &mut self,
        likely: u32,
        hash: u64,
        key: &[Sym],
        ask: impl FnOnce(Option<SeriesRef<'_>>) -> Answer,
    ) -> (Option<u32>, Answer) {
        let slot = if likely != NO_SLOT && self.is_of(likely, key) {
            Some(likely)
        } else {
            self.find(hash, key)
        };
        let answer = match slot {
            Some(slot) => {
                let entry = self.entry(slot);
                // As of `read`.
                if !entry.touched {
                    entry.touched = true;
                }
                if entry.partial { Answer::Unknown } else { ask(Some(self.series_of(slot))) }
            }
            None if self.everything_here => ask(None),
            None => Answer::Unknown,
        };
        (slot, answer)
    }

    /// The version of a key's slot; from now on changes of the shard raise them. The places of its slots begin
    /// with `first`. `None`: the key is not here.
    pub(crate) fn version(
        &mut self,
        hash: u64,
        key: &[Sym],
        versions: &Arc<Versions>,
        first: u32,
    ) -> Option<Version> {
        let slot = self.find(hash, key)?;
        let watch = || Watched { versions: versions.clone(), first };
        let watched = self.watched.get_or_insert_with(watch);
        Some(watched.versions.take(watched.place(slot)))
    }

    /// Completes `key` with its stored row of cut `as_of`, and reads it; `None` if there is
    /// neither row nor entry.
    pub(crate) fn install<R>(
        &mut self,
        hash: u64,
        key: &[Sym],
        row: Option<(Series, u64)>,
        shape: &Shape,
        read: impl FnOnce(SeriesRef<'_>) -> R,
    ) -> Option<R> {
        let stored = row.is_some();
        let slot = match (self.find(hash, key), row) {
            (Some(slot), row) => {
                if self.entry(slot).partial {
                    let deltas = self.handed.get(&slot).cloned().unwrap_or_default();
                    let mark = self.entry(slot).mark;
                    let before = self.series_of(slot).heap_bytes();
                    let (mut whole, as_of) = row.unwrap_or_else(|| (Series::empty(shape), 0));
                    // A captured delta that the row lacks is in the rows that are on their way;
                    // what it changed is clean once they are there.
                    for (_, delta) in deltas.iter().filter(|(cut, _)| *cut > as_of) {
                        whole.as_mut().merge(delta.series.as_ref(), shape, FLUSHING);
                    }
                    let has_deltas = !deltas.is_empty();
                    // A row that deltas make is counted once, by whoever comes first.
                    let counted = deltas.first().map(|(_, delta)| &delta.counted);
                    if !stored && counted.is_some_and(|counted| !counted.swap(true, AcqRel)) {
                        self.newly_stored += 1;
                    }
                    whole.as_mut().merge(self.series_of(slot), shape, mark);
                    self.series(slot).put(whole);
                    let entry = self.entry(slot);
                    entry.partial = false;
                    entry.stored = stored || has_deltas;
                    let unstored = !entry.stored;
                    let after = self.series_of(slot).heap_bytes();
                    self.account(after as isize - before as isize);
                    self.partial -= 1;
                    self.unstored += usize::from(unstored);
                }
                slot
            }
            (None, Some((series, _))) => {
                let slot = self.insert(hash, key, false, true, shape);
                let blank = self.series_of(slot).heap_bytes();
                self.account(series.as_ref().heap_bytes() as isize - blank as isize);
                self.series(slot).put(series);
                slot
            }
            (None, None) => return None,
        };
        Some(read(self.series_of(slot)))
    }

    fn remove(&mut self, slot: u32) {
        if let Some(watched) = &self.watched {
            watched.raise(slot);
        }
        self.live -= 1;
        if let [sym] = *self.key(slot) {
            self.by_sym[sym_place(sym)] = NO_SLOT;
        } else {
            let tag = tag_of(hash_key(self.key(slot)));
            self.table.remove(tag, slot);
        }
        let series = self.series(slot).take();
        let entry = self.entry(slot);
        let was_partial = entry.partial;
        entry.live = false;
        entry.partial = false;
        self.account(-(series.as_ref().heap_bytes() as isize));
        self.partial -= usize::from(was_partial);
        self.everything_here = false;
        self.free.push(slot);
    }

    /// Sweeps up to `n` slots and evicts clean entries that nobody touched since the last sweep
    /// (Corbató's clock). Gives how many went.
    pub(crate) fn evict(&mut self, n: usize) -> usize {
        let used = self.used;
        let mut evicted = 0;
        for _ in 0..n.min(used as usize) {
            self.hand = if self.hand + 1 >= used { 0 } else { self.hand + 1 };
            let slot = self.hand;
            let entry = self.entry(slot);
            // A clean partial entry is empty, its row says all; a clean whole one has a row.
            if !entry.live || entry.mark != CLEAN || !(entry.partial || entry.stored) {
                continue;
            }
            if std::mem::take(&mut entry.touched) {
                continue;
            }
            self.remove(slot);
            self.evictions += 1;
            evicted += 1;
        }
        evicted
    }

    /// Slots that have been used.
    pub(crate) fn slots(&self) -> u32 {
        self.used
    }

    /// Calls `see` with each live entry's key and series, complete or not, of the slots from
    /// `from`, at most `n` of them; gives the slot to go on from, `None` at the end.
    pub(crate) fn each(
        &mut self,
        from: u32,
        n: u32,
        mut see: impl FnMut(&[Sym], Option<SeriesRef<'_>>),
    ) -> Option<u32> {
        let end = self.used.min(from.saturating_add(n));
        for slot in from..end {
            let entry = self.entry_of(slot);
            if entry.live {
                see(self.key(slot), (!entry.partial).then_some(self.series_of(slot)));
            }
        }
        (end < self.used).then_some(end)
    }

    /// Whether every key of the shard is here and whole.
    pub(crate) fn is_whole(&self) -> bool {
        self.everything_here && self.partial == 0
    }

    /// What a key takes besides what it holds on the heap, in bytes.
    fn bytes_each(&self) -> usize {
        let states =
            self.stats.width() * size_of::<Stats>() + self.sketches.width() * size_of::<Sketch>();
        size_of::<Entry>() + states + self.arity * size_of::<Sym>() + 8
    }

    pub(crate) fn totals(&self) -> ShardTotals {
        let resident = self.live as u64;
        let entries = self.entries.bytes() + self.stats.bytes() + self.sketches.bytes();
        let table = self.table.bytes() + self.by_sym.capacity() * 4;
        let memory = entries
            + self.keys.capacity() * size_of::<Sym>()
            + table
            + (self.dirty.capacity() + self.cut_slots.capacity() + self.free.capacity()) * 4
            + self.heap_bytes
            + size_of::<Shard>();
        ShardTotals {
            resident,
            partial: self.partial as u64,
            dirty: self.unsaved as u64,
            memory_bytes: memory as u64,
            live_bytes: resident * self.bytes_each() as u64 + self.heap_bytes as u64,
            evictions: self.evictions,
            resizes: self.resizes,
            resize_micros: self.resize_micros,
            unstored: self.unstored as u64,
            newly_stored: self.newly_stored,
        }
    }
}
