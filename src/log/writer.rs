//! The log's one writer: appending frames, group commit, going on to the next segment.
//!
//! Invariants
//! 1. Positions are given and frames are copied under one lock, so frames lie in the order of
//!    their positions and every frame before a complete one is complete.
//! 2. `durable` moves only after a sync of every segment that holds positions up to it.
//! 3. One thread syncs at a time (the leader); the others wait for its result and lead the next
//!    one if that did not cover them. A guard gives the lead back on every way out.
//! 4. A failed write or sync is remembered for ever; no later append or wait succeeds.
//! 5. A segment is entered only when a whole one is ready (made, synced, named in the manifest);
//!    running out of space shows there, with nothing written and nothing poisoned.
//!
//! Next: `reader.rs`; what is recorded goes on to `tier.rs`.

use super::Home;
use super::frame::{self, FrameKind, Header};
use super::segment::{self, Segment};
use crate::dictionary::{Dictionary, Sym};
use crate::disk::Access;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::record::{self, Columns};
use crate::time::Timestamp;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

/// The first segment's size where the options do not ask for less. Each next one holds a quarter of
/// what was written since opening, but not less than this, up to the options' size: filling
/// segments with zeros in advance then costs a small log little, and a large one has few segments.
const FIRST_SEGMENT_BYTES: u64 = 1 << 20;

pub(crate) struct Writer {
    home: Home,
    manifest: Arc<Manifest>,
    dictionary: Arc<Dictionary>,
    segment_bytes_max: u64,
    active: Mutex<Active>,
    /// A segment ready to be entered.
    spare: Mutex<Option<Segment>>,
    spare_ready: AtomicBool,
    commit: Mutex<Commit>,
    committed: Condvar,
    appended: AtomicU64,
    durable: AtomicU64,
    /// The number of the active segment, for looks without the lock.
    segment_number: AtomicU64,
    poison: OnceLock<Error>,
}

struct Active {
    segment: Segment,
    /// Where the next frame goes.
    at: u64,
    next_position: u64,
    /// Bytes of the segments that were left since opening.
    left_bytes: u64,
    /// The greatest `synced` that a frame claims.
    witnessed: u64,
    /// Segments left behind, with frames that are not synced yet, and where those end.
    unsynced: Vec<(Segment, u64)>,
    /// Room for a frame's header and definitions while they are put together.
    scratch: Vec<u8>,
    closed: bool,
}

impl Active {
    /// The size of the next segment, before its bounds.
    fn next_bytes(&self) -> u64 {
        ((self.left_bytes + self.at) / 4).next_multiple_of(4_096)
    }

    /// Whether there is room for a frame, and for the seal behind it.
    fn has_room(&self, frame_bytes: u64) -> bool {
        self.at + frame_bytes + frame::HEADER_BYTES as u64 <= self.segment.bytes
    }
}

#[derive(Default)]
struct Commit {
    leading: bool,
}

/// A frame's worth of events, encoded before any lock is taken.
#[derive(Default)]
pub(crate) struct Draft {
    body: Vec<u8>,
    body_checksum: crc32fast::Hasher,
    /// The segment against which `undefined` was made.
    segment: u64,
    /// Syms that the segment may not define yet; all others used are defined there for sure.
    undefined: Vec<Sym>,
    written_at: i64,
}

impl Draft {
    /// Encodes events. Most of the work of recording a batch's log is done here, in parallel.
    pub(crate) fn events(&mut self, columns: &Columns, writer: &Writer, now: Timestamp) {
        self.body.clear();
        self.written_at = now.micros();
        columns.encode(self.written_at, &mut self.body);
        self.body_checksum = crc32fast::Hasher::new();
        self.body_checksum.update(&self.body);
        self.look_for_undefined(columns, writer);
    }

    fn look_for_undefined(&mut self, columns: &Columns, writer: &Writer) {
        self.undefined.clear();
        self.segment = writer.segment_number.load(Acquire);
        let (dictionary, segment) = (&*writer.dictionary, self.segment as u32);
        columns.each_sym(|sym| {
            if sym != Sym::NONE && dictionary.defined_in(sym) != segment {
                self.undefined.push(sym);
            }
        });
    }
}

/// Where a frame went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    /// The position of its first record.
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) frame_bytes: u64,
    /// More than half of the segment is used and no next one is ready: [`Writer::make_spare`] is
    /// due.
    pub(crate) wants_spare: bool,
}

impl Writer {
    /// A writer that starts segment `number` with position `next_position`; everything before is
    /// durable.
    pub(crate) fn start(
        home: Home,
        manifest: Arc<Manifest>,
        dictionary: Arc<Dictionary>,
        segment_bytes_max: u64,
        number: u64,
        next_position: u64,
        now: Timestamp,
    ) -> Result<Self> {
        let bytes = segment_bytes_max.min(FIRST_SEGMENT_BYTES);
        let segment = Segment::create(&home, number, bytes, now)?;
        manifest.note_segment(number)?;
        let writer = Writer {
            home,
            manifest,
            dictionary,
            segment_bytes_max,
            segment_number: AtomicU64::new(number),
            active: Mutex::new(Active {
                segment,
                at: segment::HEADER_BYTES as u64,
                next_position,
                left_bytes: 0,
                witnessed: 0,
                unsynced: Vec::new(),
                scratch: Vec::new(),
                closed: false,
            }),
            spare: Mutex::new(None),
            spare_ready: AtomicBool::new(false),
            commit: Mutex::new(Commit::default()),
            committed: Condvar::new(),
            appended: AtomicU64::new(next_position - 1),
            durable: AtomicU64::new(next_position - 1),
            poison: OnceLock::new(),
        };
        // The positions before are witnessed at once, so that damage to what an earlier opening
        // left is not taken for its unsynced tail.
        writer.witness(now)?;
        writer.sync_frames()?;
        Ok(writer)
    }

    /// Appends drafted events.
    pub(crate) fn append_events(&self, draft: &mut Draft, columns: &Columns) -> Result<Appended> {
        let mut active = self.active()?;
        loop {
            if active.segment.number != draft.segment {
                draft.look_for_undefined(columns, self);
            }
            let mut scratch = std::mem::take(&mut active.scratch);
            scratch.clear();
            scratch.resize(frame::HEADER_BYTES, 0);
            let segment = active.segment.number as u32;
            for &sym in &draft.undefined {
                if self.dictionary.defined_in(sym) != segment {
                    record::put_definition(&mut scratch, sym, &self.dictionary);
                    self.dictionary.define_in(sym, segment);
                }
            }
            let definitions = scratch.len() - frame::HEADER_BYTES;
            let mut checksum = draft.body_checksum.clone();
            checksum.update(&scratch[frame::HEADER_BYTES..]);
            let header = Header {
                kind: FrameKind::Events,
                payload_checksum: checksum.finalize(),
                body_bytes: draft.body.len() as u32,
                definition_bytes: definitions as u32,
                records: columns.len() as u32,
                position: active.next_position,
                synced: self.durable.load(Acquire),
                written_at: draft.written_at,
            };
            if !active.has_room(header.frame_bytes()) {
                // The definitions were marked for the segment that is left now; the next round
                // makes them anew for the one that is entered.
                scratch.clear();
                active.scratch = scratch;
                let now = Timestamp::from_micros(draft.written_at);
                if let Err(e) = self.rotate(&mut active, header.frame_bytes(), now) {
                    draft.undefined.iter().for_each(|sym| self.dictionary.define_in(*sym, 0));
                    return Err(e);
                }
                continue;
            }
            let appended = self.put(&mut active, &header, &draft.body, &mut scratch);
            active.scratch = scratch;
            return appended;
        }
    }

    /// Appends a control record.
    pub(crate) fn append_control(&self, body: &[u8], now: Timestamp) -> Result<Appended> {
        let mut active = self.active()?;
        self.append_plain(&mut active, FrameKind::Control, body, 1, now)
    }

    /// Appends an empty frame that says what is synced, unless the last frame says so already.
    pub(crate) fn witness(&self, now: Timestamp) -> Result<bool> {
        let mut active = self.active()?;
        let durable = self.durable.load(Acquire);
        if active.witnessed >= durable && durable > 0 {
            return Ok(false);
        }
        self.append_plain(&mut active, FrameKind::Witness, &[], 0, now)?;
        Ok(true)
    }

    fn append_plain(
        &self,
        active: &mut Active,
        kind: FrameKind,
        body: &[u8],
        records: u32,
        now: Timestamp,
    ) -> Result<Appended> {
        let mut header = Header {
            kind,
            payload_checksum: crc32fast::hash(body),
            body_bytes: body.len() as u32,
            definition_bytes: 0,
            records,
            position: active.next_position,
            synced: 0,
            written_at: now.micros(),
        };
        if !active.has_room(header.frame_bytes()) {
            self.rotate(active, header.frame_bytes(), now)?;
        }
        header.synced = self.durable.load(Acquire);
        let mut scratch = vec![0; frame::HEADER_BYTES];
        self.put(active, &header, body, &mut scratch)
    }

    /// Copies a frame to its place: `around` holds room for the header, then the definitions.
    fn put(
        &self,
        active: &mut Active,
        header: &Header,
        body: &[u8],
        around: &mut [u8],
    ) -> Result<Appended> {
        let (at, segment) = (active.at, &active.segment);
        around[..frame::HEADER_BYTES].copy_from_slice(&header.encode(at, segment.salt));
        let (head, definitions) = around.split_at(frame::HEADER_BYTES);
        // Payload first, header last: where the process dies between two copies, the header is
        // still blank.
        let body_at = at + frame::HEADER_BYTES as u64;
        let write = || {
            segment.file.write_at(body_at, body)?;
            segment.file.write_at(body_at + body.len() as u64, definitions)?;
            segment.file.write_at(at, head)
        };
        write().map_err(|e| self.poisoned_by(Error::io("append to the log", &segment.path, e)))?;
        active.at += header.frame_bytes();
        active.witnessed = active.witnessed.max(header.synced);
        let first = active.next_position;
        active.next_position += u64::from(header.records);
        let last = active.next_position - 1;
        self.appended.store(last, Release);
        let wants_spare = active.at * 2 > active.segment.bytes && !self.spare_ready.load(Acquire);
        Ok(Appended { first, last, frame_bytes: header.frame_bytes(), wants_spare })
    }

    /// Seals the active segment and enters the next (invariant 5).
    fn rotate(&self, active: &mut Active, frame_bytes: u64, now: Timestamp) -> Result<()> {
        let overhead = (segment::HEADER_BYTES + 2 * frame::HEADER_BYTES) as u64;
        let needed = (frame_bytes + overhead).next_multiple_of(4_096);
        let ready = self.spare.lock().take().filter(|spare| spare.bytes >= needed);
        self.spare_ready.store(false, Release);
        let number = active.segment.number + 1;
        let next = match ready {
            Some(spare) => spare,
            None => self.make_segment(number, active.next_bytes(), needed, now)?,
        };
        let seal = Header {
            kind: FrameKind::Seal,
            payload_checksum: crc32fast::hash(&[]),
            body_bytes: 0,
            definition_bytes: 0,
            records: 0,
            position: active.next_position,
            synced: self.durable.load(Acquire),
            written_at: now.micros(),
        };
        self.put(active, &seal, &[], &mut [0; frame::HEADER_BYTES])?;
        self.segment_number.store(next.number, Release);
        let left = std::mem::replace(&mut active.segment, next);
        active.left_bytes += active.at;
        active.unsynced.push((left, active.at));
        active.at = segment::HEADER_BYTES as u64;
        Ok(())
    }

    fn make_segment(
        &self,
        number: u64,
        bytes: u64,
        needed: u64,
        now: Timestamp,
    ) -> Result<Segment> {
        let bytes = bytes.max(FIRST_SEGMENT_BYTES).min(self.segment_bytes_max).max(needed);
        let path = self.home.dir.join(segment::name(number));
        if self.home.disk.exists(&path).map_err(|e| Error::io("make a segment", &path, e))? {
            // A spare of this number that turned out too small; it was never entered.
            self.home.disk.remove(&path).map_err(|e| Error::io("replace a segment", &path, e))?;
        }
        let segment = Segment::create(&self.home, number, bytes, now)?;
        self.manifest.note_segment(number)?;
        Ok(segment)
    }

    /// Makes the segment that will be entered next, if it is not there. For the background.
    pub(crate) fn make_spare(&self, now: Timestamp) -> Result<()> {
        let (number, bytes) = {
            let active = self.active()?;
            (active.segment.number + 1, active.next_bytes())
        };
        let mut spare = self.spare.lock();
        if spare.is_some() || self.segment_number.load(Acquire) + 1 != number {
            return Ok(());
        }
        *spare = Some(self.make_segment(number, bytes, 0, now)?);
        self.spare_ready.store(true, Release);
        Ok(())
    }

    /// Waits until every position up to `target` is durable, syncing if nobody else does.
    pub(crate) fn sync_to(&self, target: u64) -> Result<()> {
        while self.durable() < target {
            self.check_poison()?;
            let mut commit = self.commit.lock();
            if commit.leading {
                self.committed.wait(&mut commit);
            } else if self.durable() < target {
                self.lead(commit)?;
            }
        }
        Ok(())
    }

    /// Syncs all that was appended, records or not.
    pub(crate) fn sync_frames(&self) -> Result<()> {
        let mut commit = self.commit.lock();
        while commit.leading {
            self.committed.wait(&mut commit);
        }
        self.check_poison()?;
        self.lead(commit)
    }

    fn lead(&self, mut commit: MutexGuard<'_, Commit>) -> Result<()> {
        commit.leading = true;
        drop(commit);
        let _lead = Lead(self);
        self.sync_appended()
    }

    /// Makes everything appended so far durable; gives the position.
    pub(crate) fn sync(&self) -> Result<u64> {
        let target = self.appended.load(Acquire);
        self.sync_to(target)?;
        Ok(target)
    }

    fn sync_appended(&self) -> Result<()> {
        let (left, segment, upto) = {
            let mut active = self.active.lock();
            let left = std::mem::take(&mut active.unsynced);
            (left, active.segment.clone(), active.next_position - 1)
        };
        for segment in left.iter().map(|(segment, _)| segment).chain([&segment]) {
            segment
                .file
                .sync()
                .map_err(|e| self.poisoned_by(Error::io("sync the log", &segment.path, e)))?;
        }
        self.durable.fetch_max(upto, Release);
        for (segment, end) in left {
            self.trim(&segment, end);
        }
        Ok(())
    }

    /// Gives back the zeros behind the seal of a segment that was left. Not needed for anything
    /// but space, so a failure is only told.
    fn trim(&self, segment: &Segment, end: u64) {
        let trimmed = self.home.disk.open(&segment.path, Access::Write).and_then(|file| {
            file.set_len(end)?;
            file.sync()
        });
        if let Err(e) = trimmed {
            tracing::warn!(path = %segment.path.display(), error = %e, "segment not trimmed");
        }
    }

    /// Seals the log: no append succeeds after this. Everything is durable when it returns.
    pub(crate) fn close(&self, now: Timestamp) -> Result<()> {
        self.sync()?;
        let (segment, end) = {
            let mut active = self.active()?;
            self.append_plain(&mut active, FrameKind::Seal, &[], 0, now)?;
            active.closed = true;
            (active.segment.clone(), active.at)
        };
        self.sync_frames()?;
        self.trim(&segment, end);
        if let Some(spare) = self.spare.lock().take() {
            let next = self.appended() + 1;
            let blank = segment::HEADER_BYTES as u64;
            super::reader::seal_at(&*self.home.disk, &spare, blank, next, next - 1, now)?;
        }
        Ok(())
    }

    pub(crate) fn appended(&self) -> u64 {
        self.appended.load(Acquire)
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Acquire)
    }

    /// The active segment's number and the end of its frames.
    pub(crate) fn end(&self) -> (u64, u64) {
        let active = self.active.lock();
        (active.segment.number, active.at)
    }

    pub(crate) fn check_poison(&self) -> Result<()> {
        self.poison.get().map_or(Ok(()), |first| Err(Error::poisoned(first)))
    }

    fn poisoned_by(&self, error: Error) -> Error {
        let _ = self.poison.set(error.clone());
        error
    }

    fn active(&self) -> Result<MutexGuard<'_, Active>> {
        let active = self.active.lock();
        self.check_poison()?;
        if active.closed { Err(Error::closed()) } else { Ok(active) }
    }
}

/// Leads the group commit; gives the lead back when dropped (invariant 3).
struct Lead<'a>(&'a Writer);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.0.commit.lock().leading = false;
        self.0.committed.notify_all();
    }
}
