//! Reading series, wherever they are: in the tier, in the store, or partly in both.
//!
//! Invariants
//! 1. Nothing is read from the store while a shard's lock is held. A row is read first; then, under
//!    the lock, it is used only if no checkpoint has become visible since (`commits`), else it is
//!    read again. `commits` is raised after a commit and before its entries are settled, so
//!    whoever sees an entry settled sees it raised.
//! 2. A scan sees every key that was recorded before it began, once, each as of some moment during
//!    the scan. Keys that come while it runs may be in it or not.
//! 3. A scan does not make cold series resident.
//! 4. A question begins by settling (`db/staging.rs`): what was acknowledged before it is in the answer.

use super::Engine;
use crate::codec::{self, Malformed};
use crate::dictionary::Sym;
use crate::error::{Error, Result};
use crate::key;
use crate::query::{AskedKey, Depth, KeyRef, Source};
use crate::series::{CellRef, Series, SeriesRef, Shape};
use crate::snapshot::{Row, Snapshot, Start, Storage as _, Table};
use crate::sync::atomic::Ordering::{Acquire, Relaxed};
use crate::tier::shard::Lookup;
use crate::tier::{Installed, Key, ViewTier, hash_key};
use crate::time::{TimeZone, Timestamp};
use crate::versions::{Version, Versions};
use crate::view::View;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Rows read from the store at once by a scan.
const PAGE: usize = 512;
/// Slots looked at by a scan under one hold of a shard's lock.
const SLOTS: u32 = 256;
/// The same where buckets are looked at, of which a series can have many.
const SLOTS_WITH_BUCKETS: u32 = 32;

/// One view of one engine, to be asked.
#[derive(Clone)]
pub(crate) struct ViewSource {
    engine: Arc<Engine>,
    tier: Arc<ViewTier>,
}

/// Reads the row of a series and its blocks. The number is that of the cut whose state it is.
pub(super) fn read_series(
    snapshot: &dyn Snapshot,
    row_key: &[u8],
    shape: &Shape,
    path: &Path,
) -> Result<Option<(Series, u64)>> {
    match snapshot.get(Table::Series, row_key)? {
        Some(value) => decode_series(snapshot, row_key, &value, shape, path).map(Some),
        None => Ok(None),
    }
}

pub(super) fn decode_series(
    snapshot: &dyn Snapshot,
    row_key: &[u8],
    value: &[u8],
    shape: &Shape,
    path: &Path,
) -> Result<(Series, u64)> {
    let (mut series, as_of) =
        decode_totals(row_key, value, shape).map_err(|e| damaged(path, row_key, e))?;
    for (grain, ring) in series.rings_mut().iter_mut().enumerate() {
        for at in 0..ring.blocks().len() {
            let key = key::bucket_row(row_key, grain as u8, ring.blocks()[at].number);
            let value = snapshot.get(Table::Buckets, &key)?;
            let value = value.ok_or(Malformed("a block of buckets is missing"));
            value
                .and_then(|value| ring.decode_block(at, codec::unseal(&key, &value)?, shape))
                .map_err(|e| damaged(path, row_key, e))?;
        }
    }
    Ok((series, as_of))
}

/// The series of a row, its rings' blocks still empty.
fn decode_totals(row_key: &[u8], value: &[u8], shape: &Shape) -> Result<(Series, u64), Malformed> {
    let mut payload = codec::unseal(row_key, value)?;
    let as_of = codec::take_u64(&mut payload)?;
    Ok((Series::decode_row(payload, shape)?, as_of))
}

/// What a stored series is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    /// Its blocks of buckets.
    pub(super) blocks: u64,
    /// What it takes on the heap, blocks included.
    pub(super) heap_bytes: u64,
}

/// Checks a series row and its blocks.
pub(super) fn check_series_row(
    snapshot: &dyn Snapshot,
    row_key: &[u8],
    value: &[u8],
    shape: &Shape,
) -> Result<Weight> {
    let (series, _) = decode_series(snapshot, row_key, value, shape, Path::new(""))?;
    Ok(Weight { blocks: blocks_in(&series), heap_bytes: series.as_ref().heap_bytes() as u64 })
}

/// Of a series row whose checksum is right, how many blocks it names; nothing else of it is read.
pub(super) fn blocks_named(row_key: &[u8], value: &[u8], shape: &Shape) -> Result<Weight> {
    let mut weight = Weight { blocks: 0, heap_bytes: 0 };
    if shape.has_rings() {
        let totals = decode_totals(row_key, value, shape);
        let (series, _) = totals.map_err(|e| damaged(Path::new(""), row_key, e))?;
        weight.blocks = blocks_in(&series);
    }
    Ok(weight)
}

fn blocks_in(series: &Series) -> u64 {
    series.rings().iter().map(|ring| ring.blocks().len() as u64).sum()
}

/// A series row without the blocks that are not there, if the rest of it is good; and whether there
/// were such.
pub(super) fn prune_series_row(
    row_key: &[u8],
    value: &[u8],
    shape: &Shape,
    has: &dyn Fn(u8, i64) -> bool,
) -> Option<(Vec<u8>, bool)> {
    let (mut series, as_of) = decode_totals(row_key, value, shape).ok()?;
    let mut pruned = false;
    for (grain, ring) in (0_u8..).zip(series.rings_mut()) {
        pruned |= ring.keep_blocks(|block| has(grain, block));
    }
    let mut row = Vec::new();
    series.as_ref().encode_row(&mut row);
    Some((seal_series(row_key, as_of, &row), pruned))
}

/// The keys of the blocks that a series row names.
pub(super) fn blocks_of(row_key: &[u8], value: &[u8], shape: &Shape) -> Vec<Vec<u8>> {
    let Ok((series, _)) = decode_totals(row_key, value, shape) else { return Vec::new() };
    let mut keys = Vec::new();
    for (grain, ring) in (0_u8..).zip(series.rings()) {
        keys.extend(ring.blocks().iter().map(|b| key::bucket_row(row_key, grain, b.number)));
    }
    keys
}

/// The value of a series row.
pub(super) fn seal_series(row_key: &[u8], as_of: u64, row: &[u8]) -> Vec<u8> {
    codec::seal(row_key, |out| {
        codec::put_u64(out, as_of);
        out.extend_from_slice(row);
    })
}

/// A page of stored series rows whose keys begin with `prefix`.
fn read_page(snapshot: &dyn Snapshot, behind: Option<&[u8]>, prefix: &[u8]) -> Result<Vec<Row>> {
    let start = behind.map_or(Start::At(prefix), Start::Behind);
    let mut rows = snapshot.range(Table::Series, start, None, PAGE)?;
    rows.truncate(rows.partition_point(|(key, _)| key.starts_with(prefix)));
    Ok(rows)
}

fn damaged(path: &Path, row_key: &[u8], malformed: Malformed) -> Error {
    let key = key::parts(row_key).unwrap_or_default();
    Error::new(
        crate::ErrorKind::Corruption,
        format!("the stored series of key {key:?} is damaged: {malformed}"),
    )
    .at(path, None)
}

impl ViewSource {
    pub(crate) fn new(engine: Arc<Engine>, tier: Arc<ViewTier>) -> Self {
        ViewSource { engine, tier }
    }

    fn shape(&self) -> &Shape {
        &self.tier.plan.shape
    }

    fn store_path(&self) -> std::path::PathBuf {
        self.engine.store_place()
    }

    fn row_key(&self, key: &[Sym]) -> Vec<u8> {
        key::series_row(self.tier.id, key.iter().map(|sym| self.engine.dictionary.text(*sym)))
    }

    /// The syms of a key if every part of it was seen since opening; else no entry can have it.
    #[inline]
    fn syms<'p>(&self, parts: impl Iterator<Item = &'p str>) -> Option<Key> {
        parts.map(|part| self.engine.dictionary.find(part)).collect()
    }

    /// Whether the first parts of a key are these, and the last of them begins so.
    fn begins(&self, key: &[Sym], beginning: &[&str]) -> bool {
        let text = |at: usize| self.engine.dictionary.text(key[at]);
        beginning.split_last().is_none_or(|(last, whole)| {
            whole.iter().enumerate().all(|(at, part)| text(at) == *part)
                && text(whole.len()).starts_with(last)
        })
    }

    /// Reads a key, making it resident and whole if it is not.
    fn load<R>(&self, key: &[Sym], read: &mut dyn FnMut(SeriesRef<'_>) -> R) -> Result<Option<R>> {
        match self.tier.read(key, &mut *read) {
            Lookup::Here(answer) => return Ok(Some(answer)),
            Lookup::Nowhere => return Ok(None),
            Lookup::Partial | Lookup::Unknown => {}
        }
        let row_key = self.row_key(key);
        loop {
            let epoch = self.engine.commits.load(Acquire);
            let row = {
                let snapshot = self.engine.storage.snapshot()?;
                read_series(&*snapshot, &row_key, self.shape(), &self.store_path())?
            };
            let still = || self.engine.commits.load(Acquire) == epoch;
            if let Installed::Read(answer) = self.tier.install(key, row, still, &mut *read) {
                return Ok(answer);
            }
        }
    }

    /// Completes every entry that is partial.
    pub(super) fn complete_partials(&self) -> Result<()> {
        for shard in self.tier.shards() {
            let mut from = Some(0);
            while let Some(at) = from {
                let mut partials: Vec<Key> = Vec::new();
                from = shard.lock().each(at, SLOTS, |key, series| {
                    if series.is_none() {
                        partials.push(Key::from_slice(key));
                    }
                });
                for key in partials {
                    self.load(&key, &mut |_| ())?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn key_count(&self) -> Result<u64> {
        self.engine.settle();
        self.complete_partials()?;
        let totals = self.tier.totals();
        Ok(self.tier.stored_rows.load(Relaxed) + totals.newly_stored + totals.unstored)
    }

    fn is_whole(&self) -> bool {
        self.tier.shards().iter().all(|shard| shard.lock().is_whole())
    }

    /// The syms of a row's key, as [`syms`](ViewSource::syms).
    fn syms_of(&self, row_key: &[u8]) -> Result<Option<Key>> {
        let parts = key::parts(row_key).map_err(|e| damaged(&self.store_path(), row_key, e))?;
        Ok(self.syms(parts.iter().map(String::as_str)))
    }

    /// What a stored row of a scan says now with its buckets: of the entry if there is one, else of
    /// the row and its blocks in one snapshot.
    fn whole_now<R>(
        &self,
        row_key: &[u8],
        read: &mut dyn FnMut(SeriesRef<'_>) -> R,
    ) -> Result<Option<R>> {
        let syms = self.syms_of(row_key)?;
        loop {
            let epoch = self.engine.commits.load(Acquire);
            match syms.as_ref().map(|key| (key, self.tier.read(key, &mut *read))) {
                Some((_, Lookup::Here(answer))) => return Ok(Some(answer)),
                Some((key, Lookup::Partial)) => return self.load(key, read),
                Some((_, Lookup::Unknown | Lookup::Nowhere)) | None => {}
            }
            let row = {
                let snapshot = self.engine.storage.snapshot()?;
                read_series(&*snapshot, row_key, self.shape(), &self.store_path())?
            };
            // An entry that came, was written and left meanwhile has raised it.
            if self.engine.commits.load(Acquire) == epoch {
                return Ok(row.map(|(series, _)| read(series.as_ref())));
            }
        }
    }

    /// What a stored row of a scan says now: of the entry if there is one, else of the row, read
    /// again if it may be out of date.
    fn row_now<R>(
        &self,
        row: (&[u8], &[u8]),
        epoch: u64,
        read: &mut dyn FnMut(SeriesRef<'_>) -> R,
    ) -> Result<Option<R>> {
        let (row_key, value) = row;
        let path = self.store_path();
        let syms = self.syms_of(row_key)?;
        let mut seen = epoch;
        let mut fresh: Option<Option<Series>> = None;
        loop {
            match syms.as_ref().map(|key| self.tier.read(key, &mut *read)) {
                Some(Lookup::Here(answer)) => return Ok(Some(answer)),
                Some(Lookup::Partial) => {
                    return self.load(syms.as_ref().expect("an entry has syms"), read);
                }
                Some(Lookup::Unknown | Lookup::Nowhere) | None => {}
            }
            if self.engine.commits.load(Acquire) == seen {
                return match fresh {
                    Some(series) => Ok(series.as_ref().map(|series| read(series.as_ref()))),
                    None => decode_totals(row_key, value, self.shape())
                        .map(|(series, _)| Some(read(series.as_ref())))
                        .map_err(|e| damaged(&path, row_key, e)),
                };
            }
            seen = self.engine.commits.load(Acquire);
            let snapshot = self.engine.storage.snapshot()?;
            let row = snapshot.get(Table::Series, row_key)?;
            let decode = |value: Vec<u8>| decode_totals(row_key, &value, self.shape());
            let row = row.map(decode).transpose().map_err(|e| damaged(&path, row_key, e))?;
            fresh = Some(row.map(|(series, _)| series));
        }
    }
}

impl Source for ViewSource {
    fn view(&self) -> &View {
        &self.tier.view
    }

    fn zone(&self) -> TimeZone {
        self.shape().calendar.zone
    }

    fn is_converted(&self) -> bool {
        self.tier.converted().is_some()
    }

    fn has_successor(&self) -> bool {
        self.tier.has_left()
    }

    fn successor(&self) -> Result<Option<Arc<dyn Source>>> {
        if !self.tier.has_left() {
            return Ok(None);
        }
        self.engine.source(self.tier.view.name()).map(|source| Some(Arc::new(source) as _))
    }

    fn now(&self) -> Timestamp {
        self.engine.now()
    }

    fn now_roughly(&self) -> Timestamp {
        self.engine.options.clock.now_roughly().clamp(Timestamp::MIN, Timestamp::MAX)
    }

    #[inline]
    fn key(&self, parts: &[&str]) -> AskedKey {
        AskedKey::of(parts, |part| self.engine.dictionary.find(part))
    }

    fn spell(&self, key: &AskedKey) -> Vec<String> {
        let dictionary = &self.engine.dictionary;
        match key.syms(|part| dictionary.find(part)) {
            Ok(syms) => syms.iter().map(|sym| dictionary.text(*sym).into()).collect(),
            Err(parts) => parts.to_vec(),
        }
    }

    fn engine(&self) -> usize {
        Arc::as_ptr(&self.engine).addr()
    }

    #[inline]
    fn number_of(&self, key: &AskedKey) -> Option<u64> {
        let dictionary = &self.engine.dictionary;
        key.syms(|part| dictionary.find(part)).ok().map(hash_key)
    }

    #[inline]
    fn at_hand<'k>(&self, key: &'k AskedKey) -> Option<&'k [Sym]> {
        let is_ready = self.tier.is_at_once() && !self.tier.has_left();
        key.syms(|part| self.engine.dictionary.find(part)).ok().filter(|_| is_ready)
    }

    fn see_at_hand(
        &self,
        key: &AskedKey,
        read: &mut dyn FnMut(SeriesRef<'_>) -> bool,
    ) -> Result<Option<Version>> {
        self.engine.check_open()?;
        let dictionary = &self.engine.dictionary;
        match key.syms(|part| dictionary.find(part)) {
            Ok(syms) => match self.tier.read_at_version(syms, &mut *read) {
                Lookup::Here(version) => Ok(version),
                Lookup::Nowhere => Ok(None),
                Lookup::Partial | Lookup::Unknown => {
                    self.load(syms, &mut |series| _ = read(series)).map(|_| None)
                }
            },
            Err(_) => self.see(key, &mut |series| _ = read(series)).map(|_| None),
        }
    }

    fn versions(&self) -> &Arc<Versions> {
        self.tier.versions()
    }

    fn number(&self, key: &AskedKey) -> u64 {
        let dictionary = &self.engine.dictionary;
        match key.syms(|part| dictionary.find(part)) {
            Ok(syms) => hash_key(syms),
            Err(parts) => {
                let mut reader = dictionary.reader();
                let intern = |part: &String| dictionary.intern(&mut reader, part);
                hash_key(&parts.iter().map(intern).collect::<Key>())
            }
        }
    }

    fn apply_at_once(&self) -> Result<()> {
        if self.tier.is_at_once() { Ok(()) } else { self.engine.apply_at_once(&self.tier) }
    }

    fn see(&self, key: &AskedKey, read: &mut dyn FnMut(SeriesRef<'_>)) -> Result<bool> {
        self.engine.check_open()?;
        if !self.tier.is_at_once() {
            self.engine.settle();
        }
        let dictionary = &self.engine.dictionary;
        let parts = match key.syms(|part| dictionary.find(part)) {
            Ok(syms) => return Ok(self.load(syms, read)?.is_some()),
            Err(parts) => || parts.iter().map(String::as_str),
        };
        // A part that was not seen since opening: no entry can have it, a row may.
        if self.is_whole() {
            return Ok(false);
        }
        let row_key = key::series_row(self.tier.id, parts());
        let row = {
            let snapshot = self.engine.storage.snapshot()?;
            read_series(&*snapshot, &row_key, self.shape(), &self.store_path())?
        };
        if row.is_none() {
            return Ok(false);
        }
        let mut reader = dictionary.reader();
        let syms: Key = parts().map(|part| dictionary.intern(&mut reader, part)).collect();
        Ok(self.load(&syms, read)?.is_some())
    }

    fn each(
        &self,
        beginning: &[&str],
        depth: Depth,
        see: &mut dyn FnMut(KeyRef<'_>, SeriesRef<'_>),
        between: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()> {
        self.engine.check_open()?;
        self.engine.settle();
        let dictionary = &*self.engine.dictionary;
        // From here on nothing is evicted; so what is whole now stays so, and no key is met twice.
        let _scan = self.tier.scan();
        let whole = self.is_whole();
        let slots = match depth {
            Depth::Totals => SLOTS,
            Depth::Buckets => SLOTS_WITH_BUCKETS,
        };
        // Rows of keys that were seen in memory are passed over in the store.
        let mut seen: HashSet<u128> = HashSet::new();
        for shard in self.tier.shards() {
            let mut from = Some(0);
            while let Some(at) = from {
                let mut partials: Vec<Key> = Vec::new();
                from = shard.lock().each(at, slots, |key, series| {
                    if !self.begins(key, beginning) {
                        return;
                    }
                    if !whole {
                        seen.insert(xxhash_rust::xxh3::xxh3_128(&self.row_key(key)));
                    }
                    match series {
                        Some(series) => see(KeyRef::Syms(key, dictionary), series),
                        None => partials.push(Key::from_slice(key)),
                    }
                });
                for key in partials {
                    self.load(&key, &mut |series| see(KeyRef::Syms(&key, dictionary), series))?;
                }
                if between().is_break() {
                    return Ok(());
                }
            }
        }
        if whole {
            return Ok(());
        }
        let prefix = key::series_beginning(self.tier.id, beginning);
        let mut behind: Option<Vec<u8>> = None;
        loop {
            let epoch = self.engine.commits.load(Acquire);
            let page = {
                let snapshot = self.engine.storage.snapshot()?;
                read_page(&*snapshot, behind.as_deref(), &prefix)?
            };
            for (row_key, value) in &page {
                if seen.contains(&xxhash_rust::xxh3::xxh3_128(row_key)) {
                    continue;
                }
                let read = &mut |series: SeriesRef<'_>| see(KeyRef::Row(row_key), series);
                match depth {
                    Depth::Totals => self.row_now((row_key, value), epoch, read)?,
                    Depth::Buckets => self.whole_now(row_key, read)?,
                };
            }
            if between().is_break() || page.len() < PAGE {
                return Ok(());
            }
            behind = page.into_iter().last().map(|(key, _)| key);
        }
    }

    fn begin(&self, prefix: &[&str]) -> Result<Vec<Vec<u8>>> {
        self.engine.check_open()?;
        self.engine.settle();
        let prefix = key::series_row(self.tier.id, prefix.iter().copied());
        let mut keys = Vec::new();
        for shard in self.tier.shards() {
            let mut from = Some(0);
            while let Some(at) = from {
                from = shard.lock().each(at, SLOTS, |key, _| {
                    let row_key = self.row_key(key);
                    if row_key.starts_with(&prefix) {
                        keys.push(row_key);
                    }
                });
            }
        }
        // Taken from the end.
        keys.sort_unstable_by(|a, b| b.cmp(a));
        Ok(keys)
    }

    fn next_page(
        &self,
        prefix: &[&str],
        behind: Option<&[u8]>,
        resident: &mut Vec<Vec<u8>>,
        out: &mut dyn FnMut(KeyRef<'_>, CellRef<'_>),
    ) -> Result<Option<Vec<u8>>> {
        let prefix = key::series_row(self.tier.id, prefix.iter().copied());
        let epoch = self.engine.commits.load(Acquire);
        let stored = {
            let snapshot = self.engine.storage.snapshot()?;
            read_page(&*snapshot, behind, &prefix)?
        };
        let last =
            if stored.len() < PAGE { None } else { stored.last().map(|(key, _)| key.clone()) };
        let mut total = |series: SeriesRef<'_>| series.total().to_owned();
        let mut stored = stored.into_iter().peekable();
        let mut left = PAGE;
        let mut behind = None;
        while left > 0 {
            // Resident keys behind the last row of a full page wait for the next one.
            let resident_next =
                resident.last().filter(|key| last.as_ref().is_none_or(|last| *key <= last));
            let take_resident = match (resident_next, stored.peek()) {
                (None, None) => {
                    return Ok(last);
                }
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some(resident), Some((row, _))) => resident <= row,
            };
            left -= 1;
            let (row_key, total) = if take_resident {
                let row_key = resident.pop().expect("it was looked at above");
                let value = match stored.peek() {
                    Some((row, _)) if *row == row_key => stored.next().map(|(_, value)| value),
                    _ => None,
                };
                let found = if let Some(value) = value {
                    self.row_now((&row_key, &value), epoch, &mut total)?
                } else {
                    let parts = key::parts(&row_key)
                        .map_err(|e| damaged(&self.store_path(), &row_key, e))?;
                    let key = self.syms(parts.iter().map(String::as_str));
                    self.load(&key.expect("a resident key has syms"), &mut total)?
                };
                (row_key, found)
            } else {
                let (row_key, value) = stored.next().expect("it was looked at above");
                let found = self.row_now((&row_key, &value), epoch, &mut total)?;
                (row_key, found)
            };
            if let Some(total) = total {
                out(KeyRef::Row(&row_key), total.as_ref());
            }
            behind = Some(row_key);
        }
        Ok(behind)
    }

    fn key_count(&self) -> Result<u64> {
        self.engine.check_open()?;
        ViewSource::key_count(self)
    }
}
