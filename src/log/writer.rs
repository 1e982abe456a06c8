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
//!    running out of space shows there, with nothing written and nothing poisoned. The first one of
//!    an opening is made by its first append, so an opening that only asks leaves nothing behind.
//! 6. A sym is marked as defined in an epoch when the frame with its definition is put there, under
//!    the lock, and not before. An epoch is a stretch of a segment, of at most [`EPOCH_BYTES`] and a
//!    frame; each defines again what it uses. So what a frame defines is lost, with it, to the rest of
//!    its epoch at the most.
//! 7. In front of the first records of an opening comes the record that it was given for that
//!    ([`Writer::preface`]), if any: an opening that only asks leaves no record, and no record is of the
//!    replica before.
//! 8. Locks are taken in the order active, spare. Who makes a segment holds `spare` until nobody
//!    else can want to make one of the same number.
//!
//! Next: `reader.rs`; what is recorded goes on to `tier.rs`.

use super::Home;
use super::frame::{self, FrameKind, Header};
use super::segment::{self, Segment};
use crate::dictionary::{Dictionary, Sym};
use crate::disk::Access;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Manifest;
use crate::record::{self, Columns, Form};
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use crate::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use crate::time::Timestamp;
use std::sync::Arc;

/// The first segment's size where the options do not ask for less. Each next one holds a quarter of
/// what was written since opening, but not less than this, up to the options' size: so a small log
/// needs few segments, each of which costs several syncs, and a large one has few, too.
const FIRST_SEGMENT_BYTES: u64 = 4 << 20;
/// Where there is no space for that.
const SMALL_SEGMENT_BYTES: u64 = 256 << 10;

/// How much of a segment relies on the same definitions.
pub(crate) const EPOCH_BYTES: u64 = 4 << 20;

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
    /// The number of the epoch, from 1 with the first segment of this opening; raised under the lock.
    epoch: AtomicU32,
    poison: OnceLock<Error>,
    /// The position of the preface, when it is in the log.
    prefaced: OnceLock<u64>,
}

struct Active {
    /// The segment that is written; none before the first append of an opening.
    segment: Option<Segment>,
    /// The number of that segment, or of the last one that is there.
    number: u64,
    /// Where the next frame goes.
    at: u64,
    /// Where the epoch began.
    epoch_at: u64,
    next_position: u64,
    /// Bytes of the segments that were left since opening.
    left_bytes: u64,
    /// The greatest `synced` that a frame claims.
    witnessed: u64,
    /// Segments left behind, with frames that are not synced yet, and where those end.
    unsynced: Vec<(Segment, u64)>,
    closed: bool,
    /// Invariant 7.
    preface: Option<Vec<u8>>,
}

impl Active {
    /// The size of the next segment, before its bounds.
    fn next_bytes(&self) -> u64 {
        ((self.left_bytes + self.at) / 4).next_multiple_of(4_096)
    }

    /// Whether there is room for a frame, and for the seal behind it.
    fn has_room(&self, frame_bytes: u64) -> bool {
        let end = self.at + frame_bytes + frame::HEADER_BYTES as u64;
        self.segment.as_ref().is_some_and(|segment| end <= segment.bytes)
    }
}

#[derive(Default)]
struct Commit {
    leading: bool,
}

/// A frame's worth of events, encoded before any lock is taken.
#[derive(Default)]
pub(crate) struct Draft {
    /// Room for the header, then the body; definitions are appended under the lock.
    frame: Vec<u8>,
    form: Form,
    body_bytes: usize,
    body_checksum: crc32fast::Hasher,
    /// The epoch against which `undefined` was made.
    epoch: u32,
    /// Syms that the epoch may not define yet; all others used are defined there for sure.
    undefined: Vec<Sym>,
    written_at: i64,
}

impl Draft {
    /// Encodes events. Most of the work of recording a batch's log is done here, in parallel.
    pub(crate) fn events(&mut self, columns: &Columns, writer: &Writer, now: Timestamp) {
        self.frame.clear();
        self.frame.resize(frame::HEADER_BYTES, 0);
        self.written_at = now.micros();
        self.form = columns.form();
        columns.encode(self.written_at, &mut self.frame);
        self.body_bytes = self.frame.len() - frame::HEADER_BYTES;
        self.body_checksum = crc32fast::Hasher::new();
        self.body_checksum.update(&self.frame[frame::HEADER_BYTES..]);
        self.look_for_undefined(columns, writer);
    }

    fn look_for_undefined(&mut self, columns: &Columns, writer: &Writer) {
        self.undefined.clear();
        self.epoch = writer.epoch.load(Acquire);
        let (dictionary, epoch) = (&*writer.dictionary, self.epoch);
        columns.each_sym(|sym| {
            if dictionary.defined_in(sym) != epoch {
                self.undefined.push(sym);
            }
        });
        self.undefined.sort_unstable();
        self.undefined.dedup();
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
    /// A writer that goes on with position `next_position`, in a new segment behind `last_segment`;
    /// everything before is durable.
    pub(crate) fn start(
        home: Home,
        manifest: Arc<Manifest>,
        dictionary: Arc<Dictionary>,
        segment_bytes_max: u64,
        last_segment: u64,
        next_position: u64,
    ) -> Self {
        Writer {
            home,
            manifest,
            dictionary,
            segment_bytes_max,
            segment_number: AtomicU64::new(last_segment),
            epoch: AtomicU32::new(0),
            active: Mutex::new(Active {
                segment: None,
                number: last_segment,
                at: 0,
                epoch_at: 0,
                next_position,
                left_bytes: 0,
                witnessed: 0,
                unsynced: Vec::new(),
                closed: false,
                preface: None,
            }),
            spare: Mutex::new(None),
            spare_ready: AtomicBool::new(false),
            commit: Mutex::new(Commit::default()),
            committed: Condvar::default(),
            appended: AtomicU64::new(next_position - 1),
            durable: AtomicU64::new(next_position - 1),
            poison: OnceLock::new(),
            prefaced: OnceLock::new(),
        }
    }

    /// The control record that is to come in front of the next record.
    pub(crate) fn preface(&self, body: Vec<u8>) {
        self.active.lock().preface = Some(body);
    }

    /// The position of the record that was given in advance, if it is in the log.
    pub(crate) fn prefaced(&self) -> Option<u64> {
        self.prefaced.get().copied()
    }

    /// Appends drafted events.
    pub(crate) fn append_events(&self, draft: &mut Draft, columns: &Columns) -> Result<Appended> {
        let mut active = self.active_for_records(Timestamp::from_micros(draft.written_at))?;
        loop {
            if active.at - active.epoch_at >= EPOCH_BYTES {
                self.begin_epoch(&mut active);
            }
            let epoch = self.epoch.load(Acquire);
            if epoch != draft.epoch {
                draft.look_for_undefined(columns, self);
            }
            // Another thread may have defined some since the draft was made.
            draft.undefined.retain(|sym| self.dictionary.defined_in(*sym) != epoch);
            let definitions_at = frame::HEADER_BYTES + draft.body_bytes;
            draft.frame.truncate(definitions_at);
            for &sym in &draft.undefined {
                record::put_definition(&mut draft.frame, sym, &self.dictionary);
            }
            if draft.body_bytes >= record::SEALED_BODY_BYTES && !draft.undefined.is_empty() {
                record::seal_definitions(&mut draft.frame, definitions_at);
            }
            let mut checksum = draft.body_checksum.clone();
            checksum.update(&draft.frame[definitions_at..]);
            let header = Header {
                kind: FrameKind::Events(draft.form),
                payload_checksum: checksum.finalize(),
                body_bytes: draft.body_bytes as u32,
                definition_bytes: (draft.frame.len() - definitions_at) as u32,
                records: columns.len() as u32,
                position: active.next_position,
                synced: self.durable.load(Acquire),
                written_at: draft.written_at,
            };
            if header.frame_bytes() > frame::FRAME_BYTES_MAX {
                return Err(Error::invalid(format!(
                    "a batch of {} bytes does not fit into one frame of {}; record fewer events at \
                     a time",
                    header.frame_bytes(),
                    frame::FRAME_BYTES_MAX
                )));
            }
            if !active.has_room(header.frame_bytes()) {
                let now = Timestamp::from_micros(draft.written_at);
                self.rotate(&mut active, header.frame_bytes(), now)?;
                continue;
            }
            for &sym in &draft.undefined {
                self.dictionary.define_in(sym, epoch);
            }
            return self.put(&mut active, &header, &mut draft.frame);
        }
    }

    /// From the next frame on nothing is defined.
    fn begin_epoch(&self, active: &mut Active) {
        active.epoch_at = active.at;
        self.epoch.fetch_add(1, AcqRel);
    }

    /// Makes room for a frame of so many bytes, so that appending one does not need another segment.
    /// Gives the bytes that there is room for: what other callers append comes off that, but witnesses
    /// do not.
    pub(crate) fn make_room(&self, frame_bytes: u64, now: Timestamp) -> Result<u64> {
        // For frames of other kinds, and the seal, that come in between.
        const KEPT_BYTES: u64 = 8 * frame::HEADER_BYTES as u64;
        let mut active = self.active_for_records(now)?;
        if !active.has_room(frame_bytes + KEPT_BYTES) {
            self.rotate(&mut active, frame_bytes + KEPT_BYTES, now)?;
        }
        let bytes = active.segment.as_ref().map_or(0, |segment| segment.bytes - active.at);
        Ok(bytes.saturating_sub(KEPT_BYTES))
    }

    /// Appends a control record.
    pub(crate) fn append_control(&self, body: &[u8], now: Timestamp) -> Result<Appended> {
        let mut active = self.active_for_records(now)?;
        self.append_plain(&mut active, FrameKind::Control, body, 1, now)
    }

    /// Appends an empty frame that says what is synced, unless the last frame says so already.
    pub(crate) fn witness(&self, now: Timestamp) -> Result<bool> {
        let mut active = self.active()?;
        if active.segment.is_none() || active.witnessed >= self.durable() {
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
            payload_checksum: crc32fast::hash(body),
            body_bytes: body.len() as u32,
            records,
            ..Header::empty(kind, active.next_position, 0, now.micros())
        };
        if !active.has_room(header.frame_bytes()) {
            self.rotate(active, header.frame_bytes(), now)?;
        }
        header.synced = self.durable.load(Acquire);
        let mut frame = vec![0; frame::HEADER_BYTES];
        frame.extend_from_slice(body);
        self.put(active, &header, &mut frame)
    }

    /// Puts a frame to its place; `frame` begins with room for the header. Where the process dies
    /// in between, the checksums tell.
    fn put(&self, active: &mut Active, header: &Header, frame: &mut [u8]) -> Result<Appended> {
        let at = active.at;
        let segment = active.segment.as_ref().expect("room was made, so there is a segment");
        frame[..frame::HEADER_BYTES].copy_from_slice(&header.encode(at, segment.salt));
        segment
            .file
            .write_at(at, frame)
            .map_err(|e| self.poisoned_by(Error::io("append to the log", &segment.path, e)))?;
        let half_used = (at + header.frame_bytes()) * 2 > segment.bytes;
        active.at += header.frame_bytes();
        active.witnessed = active.witnessed.max(header.synced);
        let first = active.next_position;
        active.next_position += u64::from(header.records);
        let last = active.next_position - 1;
        self.appended.store(last, Release);
        let wants_spare = half_used && !self.spare_ready.load(Acquire);
        Ok(Appended { first, last, frame_bytes: header.frame_bytes(), wants_spare })
    }

    /// Seals the active segment; every other frame has left room for this one.
    fn put_seal(&self, active: &mut Active, now: Timestamp) -> Result<()> {
        let (position, synced) = (active.next_position, self.durable.load(Acquire));
        let seal = Header::empty(FrameKind::Seal, position, synced, now.micros());
        self.put(active, &seal, &mut [0; frame::HEADER_BYTES]).map(|_| ())
    }

    /// Seals the active segment and enters the next (invariant 5).
    fn rotate(&self, active: &mut Active, frame_bytes: u64, now: Timestamp) -> Result<()> {
        let overhead = (segment::HEADER_BYTES + 2 * frame::HEADER_BYTES) as u64;
        let needed = (frame_bytes + overhead).next_multiple_of(4_096);
        // Held until the number is raised (invariant 8).
        let mut spare = self.spare.lock();
        let number = active.number + 1;
        let next = match spare.as_ref() {
            Some(ready) if ready.bytes >= needed => ready.clone(),
            // On failure the one that is too small for this frame stays for others.
            _ => self.make_segment(number, active.next_bytes(), needed, now)?,
        };
        *spare = None;
        assert_eq!(next.number, number, "segments are entered in the order of their numbers");
        self.spare_ready.store(false, Release);
        if active.segment.is_some() {
            self.put_seal(active, now)?;
        }
        self.segment_number.store(number, Release);
        active.number = number;
        active.left_bytes += active.at;
        if let Some(left) = active.segment.replace(next) {
            active.unsynced.push((left, active.at));
        }
        active.at = segment::HEADER_BYTES as u64;
        self.begin_epoch(active);
        drop(spare);
        Ok(())
    }

    fn make_segment(
        &self,
        number: u64,
        bytes: u64,
        needed: u64,
        now: Timestamp,
    ) -> Result<Segment> {
        let within = |bytes: u64| bytes.min(self.segment_bytes_max).max(needed);
        let (bytes, small) = (within(bytes.max(FIRST_SEGMENT_BYTES)), within(SMALL_SEGMENT_BYTES));
        // One of this number that turned out too small is replaced by a rename; it was never entered,
        // and should this fail it is still there.
        let segment = match Segment::create(&self.home, number, bytes, now) {
            Err(error) if error.kind() == ErrorKind::NoSpace && small < bytes => {
                Segment::create(&self.home, number, small, now)?
            }
            created => created?,
        };
        self.manifest.note_segment(number)?;
        Ok(segment)
    }

    /// Makes the segment that will be entered next, if it is not there. For the background.
    pub(crate) fn make_spare(&self, now: Timestamp) -> Result<()> {
        let (number, bytes) = {
            let active = self.active()?;
            (active.number + 1, active.next_bytes())
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
            let mut commit = self.commit.lock();
            if commit.leading {
                self.committed.wait(&mut commit);
                continue;
            }
            // Under the lock: a leader that fails poisons before it gives the lead back, and a second
            // sync would succeed although the first has lost what it was to carry.
            self.check_poison()?;
            if self.durable() < target {
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
        // Under the lock: whoever appended before this call is counted for certain.
        let target = self.active.lock().next_position - 1;
        self.sync_to(target)?;
        Ok(target)
    }

    fn sync_appended(&self) -> Result<()> {
        let (left, segment, upto) = {
            let mut active = self.active.lock();
            let left = std::mem::take(&mut active.unsynced);
            (left, active.segment.clone(), active.next_position - 1)
        };
        for segment in left.iter().map(|(segment, _)| segment).chain(&segment) {
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
            if active.segment.is_some() {
                self.put_seal(&mut active, now)?;
            }
            active.closed = true;
            (active.segment.clone(), active.at)
        };
        let Some(segment) = segment else { return Ok(()) };
        self.sync_frames()?;
        self.trim(&segment, end);
        if let Some(spare) = self.spare.lock().take() {
            let next = self.appended() + 1;
            let blank = segment::HEADER_BYTES as u64;
            super::reader::seal_at(&*self.home.disk, &spare, blank, next, next - 1, now)?;
        }
        Ok(())
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(crate) fn appended(&self) -> u64 {
        self.appended.load(Acquire)
    }

    /// Notes how far the log has come of which somebody else is the writer; nothing is appended here.
    pub(crate) fn follow(&self, appended: u64, durable: u64) {
        self.appended.store(appended, Release);
        self.durable.store(durable.min(appended), Release);
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Acquire)
    }

    /// The segment in which the next frame goes and its place there; 0 in one that is not made yet.
    pub(crate) fn end(&self) -> (u64, u64) {
        let active = self.active.lock();
        match &active.segment {
            Some(segment) => (segment.number, active.at),
            None => (active.number + 1, 0),
        }
    }

    pub(crate) fn check_poison(&self) -> Result<()> {
        self.poison.get().map_or(Ok(()), |first| Err(Error::poisoned(first)))
    }

    #[inline]
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poison.get().is_some()
    }

    fn poisoned_by(&self, error: Error) -> Error {
        let _ = self.poison.set(error.clone());
        error
    }

    /// To append records: the one that comes in front of all is there (invariant 7).
    fn active_for_records(&self, now: Timestamp) -> Result<MutexGuard<'_, Active>> {
        let mut active = self.active()?;
        if let Some(body) = active.preface.take() {
            match self.append_plain(&mut active, FrameKind::Control, &body, 1, now) {
                Ok(appended) => {
                    let _ = self.prefaced.set(appended.first);
                }
                Err(error) => {
                    active.preface = Some(body);
                    return Err(error);
                }
            }
        }
        Ok(active)
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
