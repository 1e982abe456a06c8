//! Backups: the state of one position, in a directory of its own, while recording goes on.
//!
//! The owner takes a checkpoint and copies the snapshot before the next one (of a store that the program
//! brought along its rows, into a file of redb's); the log up to that
//! checkpoint's cut is copied while recording goes on and no segment is retired. A reader beside the
//! owner copies the snapshot that it has and the log up to its own position. Either way the backup is
//! of one position, and everything in it is durable in its source. (But for a reader beside an owner
//! whose sync has failed: only that owner, opened anew, can know and mend what the disk has.)
//!
//! Invariants
//! 1. A frame is checked when it is copied, every page of the snapshot when it was: what is damaged is
//!    not backed up, the error says where.
//! 2. What was written is synced and read back from the disk before the backup is published.
//! 3. What a backup before has is not copied again: sealed segments do not change, and others grow
//!    only. That they are the same is checked by their first and last bytes, or by their hash.
//!
//! What is in the directory: `manifest/backup.rs`. Next: `db/restore.rs`.

use super::open::LOG;
use super::{Db, Engine, Progress, ReadOnlyDb};
use crate::disk::{self, Access, BLOCK_BYTES, Disk, File, Lock, Sharing, Unread};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Position;
use crate::log::frame::{self, FrameKind};
use crate::log::frames::Frames;
use crate::log::segment::{self, Segment};
use crate::manifest;
use crate::manifest::backup::{self, BackupSet, Part, SegmentPart, StagePart};
use crate::snapshot::{self, Guest, RedbStorage, Storage as _, Store};
use crate::sync::atomic::AtomicUsize;
use crate::sync::atomic::Ordering::AcqRel;
use serde::Serialize;
use std::collections::VecDeque;
use std::io::ErrorKind::UnexpectedEof;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// How often a backup of a directory with another owner begins again behind retired segments.
const ATTEMPTS: usize = 10;

/// Segments that are opened before anything is copied: what is open can be read when its name is gone. The
/// oldest are retired first.
const OPENED_MAX: usize = 64;

/// A backup that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BackupOutcome {
    /// It holds everything recorded up to here.
    pub position: Position,
    /// Bytes of the whole backup.
    pub bytes: u64,
    /// Of those, the ones that this call has copied.
    pub copied_bytes: u64,
    /// Segments of the log in it.
    pub segments: u64,
    /// Of those, the ones that were new or had grown.
    pub segments_copied: u64,
}

/// Tells how far something has come, in bytes.
pub(super) struct Meter<'a> {
    done: u64,
    pub(super) total: u64,
    tell: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(tell: &'a mut dyn FnMut(Progress) -> ControlFlow<()>) -> Self {
        Meter { done: 0, total: 0, tell }
    }

    pub(super) fn add(&mut self, bytes: u64) -> Result<()> {
        self.done += bytes;
        // A segment may have grown since the total was counted.
        self.total = self.total.max(self.done);
        match (self.tell)(Progress { done: self.done, total: self.total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                Err(Error::new(ErrorKind::Stopped, "the progress callback said stop"))
            }
        }
    }
}

impl Db {
    /// Takes a backup into the directory `to`, which is made, or empty, or holds an earlier backup of
    /// this one. Recording goes on; the backup is the state of one moment at its beginning. Only what
    /// an earlier backup in `to` does not have is copied: the snapshot, and new and grown segments of
    /// the log. Segments that were retired here are removed there. [`restore`](crate::restore) makes a
    /// directory of it again.
    ///
    /// Everything copied is read back and compared; what the earlier backup has already is not read
    /// again, [`verify`](crate::verify()) does that. Until the end the earlier backup stays what it
    /// was, also if the process dies. No checkpoint is made while the snapshot is copied, and no
    /// segment is retired before the end.
    ///
    /// `progress` is called in bytes, copied and read back; `Break` stops. It must not wait.
    ///
    /// # Errors
    /// `Invalid` when `to` holds other files, or a backup of another directory; `Locked` when another
    /// backup into it is under way; `Corruption` of the log, or of what was read back; `Stopped`;
    /// those of [`Db::checkpoint`].
    pub fn backup(
        &self,
        to: impl AsRef<Path>,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<BackupOutcome> {
        let engine = self.engine();
        engine.check_open()?;
        let mut copying = Copying::begin(engine, to.as_ref(), &mut progress)?;
        let mut state = engine.checkpointer.lock();
        engine.checkpoint_with(&mut state)?;
        let _no_retirement = NoRetirement::begin(&engine.backups);
        let catalog = &state.catalog;
        let first = catalog.first_segment.max(1);
        let (position, end) = (catalog.position, (catalog.segment, catalog.offset));
        copying.count(first, end)?;
        copying.snapshot(position)?;
        drop(state);
        copying.segments(first, end)?;
        copying.finish(position)
    }
}

impl ReadOnlyDb {
    /// Takes a backup of what is shown, as [`Db::backup`] does, while another process owns the
    /// directory. What its owner retires meanwhile can still be copied, for the first 64 segments are
    /// opened before anything else is done; where one was gone by then, the state is the one of a later
    /// position.
    ///
    /// # Errors
    /// As [`Db::backup`] and [`ReadOnlyDb::refresh`].
    pub fn backup(
        &self,
        to: impl AsRef<Path>,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<BackupOutcome> {
        let mut following = self.following();
        for _ in 1..ATTEMPTS {
            let taken = following.back_up(&self.engine(), to.as_ref(), &mut progress);
            match taken {
                Err(error) if error.kind() == ErrorKind::MissingSegment => {
                    tracing::info!(%error, "retired before it was copied; the backup begins again");
                    self.begin_anew(&mut following)?;
                }
                taken => return taken,
            }
        }
        following.back_up(&self.engine(), to.as_ref(), &mut progress)
    }
}

impl super::read_only::Following {
    fn back_up(
        &self,
        engine: &Engine,
        to: &Path,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<BackupOutcome> {
        let (first, end) = (self.catalog.first_segment.max(1), self.end());
        // Before the target is looked at, which takes syncs.
        let open = |(number, _)| Segment::open(&engine.home, number, Access::Read);
        let opened = Copying::numbers(first, end).take(OPENED_MAX).map(open);
        let opened = opened.collect::<Result<VecDeque<Segment>>>()?;
        let mut copying = Copying { opened, ..Copying::begin(engine, to, progress)? };
        copying.count(first, end)?;
        copying.snapshot(self.catalog.position)?;
        copying.segments(first, end)?;
        copying.stage(self.stage_behind_the_log())?;
        copying.finish(self.last_position())
    }
}

/// Keeps the checkpoints of an engine from retiring segments.
pub(super) struct NoRetirement<'a>(&'a AtomicUsize);

impl<'a> NoRetirement<'a> {
    pub(super) fn begin(backups: &'a AtomicUsize) -> Self {
        backups.fetch_add(1, AcqRel);
        NoRetirement(backups)
    }
}

impl Drop for NoRetirement<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, AcqRel);
    }
}

/// A backup under way.
struct Copying<'a> {
    engine: &'a Engine,
    to: &'a Path,
    /// The backup that is there.
    before: Option<BackupSet>,
    set: BackupSet,
    meter: Meter<'a>,
    copied_bytes: u64,
    segments_copied: u64,
    /// The first of the segments that are to be copied, where they may be retired meanwhile.
    opened: VecDeque<Segment>,
    _lock: Lock,
}

impl<'a> Copying<'a> {
    /// Looks at the target before anything is done.
    fn begin(
        engine: &'a Engine,
        to: &'a Path,
        progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self> {
        let (disk, manifest) = (&engine.disk, engine.log.manifest());
        let fail = |e| Error::io("look at the directory of the backup", to, e);
        let names =
            if disk.exists(to).map_err(fail)? { disk.list(to).map_err(fail)? } else { Vec::new() };
        let before = Self::earlier(engine, to)?;
        // One that was begun has its unfinished list.
        let is_begun = before.is_some() || names.iter().any(|name| name == backup::UNFINISHED);
        if !is_begun && !names.is_empty() {
            let other = names.iter().find(|name| *name == manifest::NAME).unwrap_or(&names[0]);
            let message = format!(
                "the directory holds {other:?} and no backup of this one; use another, or an empty \
                 one"
            );
            return Err(Error::invalid(message).at(to, None));
        }
        disk.create_dir(to).map_err(fail)?;
        let begin = || {
            if !is_begun {
                disk.create(&to.join(backup::UNFINISHED))?.sync()?;
            }
            // Before anything else is made: also where one that was killed has left the name.
            disk.sync_dir(to)
        };
        begin().map_err(|e| Error::io("begin a backup", to, e))?;
        let lock = disk.lock(&to.join(super::open::LOCK), Sharing::Nobody);
        let lock = lock.map_err(|e| Error::io("lock the directory of the backup", to, e))?;
        let lock = lock.ok_or_else(|| {
            let message = "another backup into this directory is under way; wait for it";
            Error::new(ErrorKind::Locked, message).at(to, None)
        })?;
        // Another one may have been completed before the lock was ours.
        let before = Self::earlier(engine, to)?;
        disk.create_dir(&to.join(LOG)).map_err(fail)?;
        disk.sync_dir(to).map_err(fail)?;
        let set = BackupSet {
            identity: manifest.identity,
            created: manifest.created.micros(),
            number: before.as_ref().map_or(0, |set| set.number) + 1,
            taken_at: engine.now().micros(),
            position: 0,
            snapshot_position: 0,
            snapshot: None,
            segments: Vec::new(),
            stage: None,
        };
        let meter = Meter::new(progress);
        let (copied_bytes, segments_copied) = (0, 0);
        Ok(Copying {
            engine,
            to,
            before,
            set,
            meter,
            copied_bytes,
            segments_copied,
            opened: VecDeque::new(),
            _lock: lock,
        })
    }

    /// The backup that is there, which is one of this directory.
    fn earlier(engine: &Engine, to: &Path) -> Result<Option<BackupSet>> {
        let before = BackupSet::open(&engine.disk, to)?;
        let identity = engine.log.manifest().identity;
        if before.as_ref().is_some_and(|set| set.identity != identity) {
            let message = "there is a backup of another directory here; use another place";
            return Err(Error::invalid(message).at(to, None));
        }
        Ok(before)
    }

    /// The segments to copy, and where each ends if it is not the seal that says so.
    fn numbers(first: u64, end: (u64, u64)) -> impl Iterator<Item = (u64, Option<u64>)> {
        let upto = move |number| (number == end.0).then_some(end.1);
        (first..=end.0).map(move |number| (number, upto(number))).filter(|(_, at)| *at != Some(0))
    }

    /// Counts what is to be copied and read back.
    fn count(&mut self, first: u64, end: (u64, u64)) -> Result<()> {
        let mut bytes = 0;
        let fail = |e| Error::io("look at the snapshot", &self.engine.dir, e);
        if let Some(file) = self.engine.storage.file() {
            bytes += file.len().map_err(fail)?;
        }
        for (number, at) in Self::numbers(first, end) {
            if !self.known(number).is_some_and(|known| known.is_sealed) {
                let opened = self.opened.iter().find(|segment| segment.number == number);
                let segment_bytes = match opened {
                    Some(segment) => segment.bytes,
                    None => Segment::open(&self.engine.home, number, Access::Read)?.bytes,
                };
                bytes += at.unwrap_or(segment_bytes);
            }
        }
        self.meter.total = 2 * bytes;
        Ok(())
    }

    fn known(&self, number: u64) -> Option<SegmentPart> {
        let segments = &self.before.as_ref()?.segments;
        segments.iter().find(|known| known.number == number).copied()
    }

    /// Copies the snapshot, which does not change meanwhile.
    fn snapshot(&mut self, position: u64) -> Result<()> {
        if let Store::Guest(guest) = &self.engine.storage {
            self.set.snapshot = Some(self.rows(guest)?);
            self.set.snapshot_position = position;
            return Ok(());
        }
        let Some(source) = self.engine.storage.file() else { return Ok(()) };
        let from = self.engine.store_place();
        let fail = |e| Error::io("copy the snapshot", &from, e);
        let mut out = self.create(&self.set.snapshot_name())?;
        let len = source.len().map_err(fail)?;
        out.copy(&*source, &from, len, &mut self.meter)?;
        let path = out.path.clone();
        self.set.snapshot = Some(self.settle(out)?);
        // Invariant 1: it is to replace the one of the backup before, which may be whole.
        if let Err(error) = RedbStorage::check(&self.engine.disk, &path) {
            let what = error.message();
            let message =
                format!("{what}; it is not backed up, an earlier backup stays what it was");
            return Err(Error::new(error.kind(), message).at(&from, None));
        }
        self.set.snapshot_position = position;
        Ok(())
    }

    /// Writes the rows of a store that the program brought along into a file of redb's, which whoever
    /// restores it can read.
    fn rows(&mut self, guest: &Guest) -> Result<Part> {
        let (disk, path) = (&self.engine.disk, self.to.join(self.set.snapshot_name()));
        let fail = |e| Error::io("write the copy", &path, e);
        if disk.exists(&path).map_err(fail)? {
            disk.remove(&path).map_err(fail)?;
        }
        let copy = RedbStorage::anew(disk, &path)?;
        let copied = snapshot::copy(&*guest.snapshot()?, &copy);
        copied.map_err(|error| match error.path() {
            None => error.at(&self.engine.dir, None),
            Some(_) => error,
        })?;
        copy.close()?;
        let file = disk.open(&path, Access::Read).map_err(fail)?;
        // Invariant 2: as the disk has it, every page is checked.
        file.forget_cached();
        RedbStorage::check(disk, &path)?;
        let bytes = file.len().map_err(fail)?;
        self.copied_bytes += bytes;
        let hash = hash_of(&*file, &path, bytes, &mut self.meter)?;
        Ok(Part { bytes, hash })
    }

    fn segments(&mut self, first: u64, end: (u64, u64)) -> Result<()> {
        for (number, at) in Self::numbers(first, end) {
            let segment = match self.opened.pop_front() {
                Some(segment) => segment,
                None => Segment::open(&self.engine.home, number, Access::Read)?,
            };
            // Where another process owns it the tail may not be durable; what is in a backup must not
            // be lost where it came from.
            segment.file.sync().map_err(|e| Error::io("sync the log", &segment.path, e))?;
            let part = match self.known(number) {
                Some(known) if known.is_sealed => {
                    self.check_same(&segment, known)?;
                    known
                }
                known => self.segment(segment, known, at)?,
            };
            self.set.segments.push(part);
        }
        Ok(())
    }

    /// Copies a segment, or what it has grown since.
    fn segment(
        &mut self,
        segment: Segment,
        known: Option<SegmentPart>,
        end: Option<u64>,
    ) -> Result<SegmentPart> {
        let (number, from) = (segment.number, segment.path.clone());
        let name = format!("{LOG}/{}", segment::name(number));
        let mut out = match known {
            None => self.create(&name)?,
            Some(known) => {
                let path = self.to.join(&name);
                let file = self.engine.disk.open(&path, Access::Write);
                let file = file.map_err(|e| Error::io("go on with a backup", &path, e))?;
                Out { file, path, at: 0, known: Some(known.part), hasher: Xxh3::new() }
            }
        };
        let mut block = segment.header()?.to_vec();
        let mut frames = Frames::up_to(segment, end.unwrap_or(u64::MAX));
        let mut is_sealed = false;
        loop {
            let ended = is_sealed || end.is_some_and(|end| frames.at() >= end);
            // What is known ends between two frames.
            let known_ends = known.is_some_and(|known| known.part.bytes == frames.at());
            if block.len() >= BLOCK_BYTES || ended || known_ends {
                out.put(&block).map_err(|error| self.told_apart(error))?;
                self.meter.add(block.len() as u64)?;
                block.clear();
            }
            if ended {
                break;
            }
            let at = frames.at();
            let Ok(located) = frames.next()? else {
                let message = "the log is damaged here, and is not backed up as it is; an earlier \
                               backup stays what it was";
                return Err(Error::corruption(&from, at, message));
            };
            is_sealed = located.frame.header.kind == FrameKind::Seal;
            block.extend_from_slice(located.raw);
        }
        match known {
            Some(known) if known.part.bytes > out.at => return Err(self.diverged()),
            Some(known) if known.part.bytes == out.at => return Ok(known),
            _ => {}
        }
        self.segments_copied += 1;
        Ok(SegmentPart { number, part: self.settle(out)?, is_sealed })
    }

    /// Writes down the stage of an owner that did not bring it into the log, if there is anything in it.
    fn stage(&mut self, bytes: &[u8]) -> Result<()> {
        if !bytes.is_empty() {
            let mut out = self.create(&self.set.stage_name())?;
            out.put(bytes)?;
            let (part, log_position) = (self.settle(out)?, self.engine.log.appended());
            self.set.stage = Some(StagePart { part, log_position });
        }
        Ok(())
    }

    /// A sealed segment is the one that is known if it begins and ends in the same way: header and
    /// seal have checksums over salt, times and positions.
    fn check_same(&self, segment: &Segment, known: SegmentPart) -> Result<()> {
        let path = self.to.join(LOG).join(segment::name(segment.number));
        let copy = self.engine.disk.open(&path, Access::Read);
        let copy = copy.map_err(|e| Error::io("read the backup", &path, e))?;
        let mut here = [0; segment::HEADER_BYTES];
        let mut there = [0; segment::HEADER_BYTES];
        let last = known.part.bytes.saturating_sub(frame::HEADER_BYTES as u64);
        for (at, bytes) in [(0, segment::HEADER_BYTES), (last, frame::HEADER_BYTES)] {
            disk::read(&*copy, at, &mut there[..bytes])
                .map_err(|unread| unread.told("read the backup", &path))?;
            match disk::read(&*segment.file, at, &mut here[..bytes]) {
                // It is shorter than what is known of it.
                Err(Unread { error, .. }) if error.kind() == UnexpectedEof => {
                    return Err(self.diverged());
                }
                read => {
                    read.map_err(|unread| unread.told("read a segment of the log", &segment.path))?;
                }
            }
            if here != there {
                return Err(self.diverged());
            }
        }
        Ok(())
    }

    /// A file of the target, begun anew.
    fn create(&self, name: &str) -> Result<Out> {
        let path = self.to.join(name);
        Out::create(&self.engine.disk, path)
    }

    /// Syncs a copy and reads it back (invariant 2).
    fn settle(&mut self, out: Out) -> Result<Part> {
        let known = out.known.map_or(0, |part| part.bytes);
        self.copied_bytes += out.at - known;
        out.settle(&mut self.meter)
    }

    /// Publishes the backup and removes what is no longer in it.
    fn finish(mut self, position: u64) -> Result<BackupOutcome> {
        if self.before.as_ref().is_some_and(|before| before.position > position) {
            return Err(self.diverged());
        }
        self.set.position = position;
        let disk = &*self.engine.disk;
        let fail = |e| Error::io("complete the backup", self.to, e);
        disk.sync_dir(&self.to.join(LOG)).map_err(fail)?;
        disk.sync_dir(self.to).map_err(fail)?;
        self.set.publish(disk, self.to)?;
        let segments: Vec<String> =
            self.set.segments.iter().map(|part| segment::name(part.number)).collect();
        for name in disk.list(&self.to.join(LOG)).map_err(fail)? {
            if !segments.contains(&name) {
                disk.remove(&self.to.join(LOG).join(name)).map_err(fail)?;
            }
        }
        let named = [self.set.snapshot_name(), self.set.stage_name()];
        for name in disk.list(self.to).map_err(fail)? {
            let is_ours = name.starts_with("state-") || name.starts_with("stage-");
            if is_ours && !named.contains(&name) {
                disk.remove(&self.to.join(name)).map_err(fail)?;
            }
        }
        Ok(BackupOutcome {
            position: Position(position),
            bytes: self.set.bytes(),
            copied_bytes: self.copied_bytes,
            segments: self.set.segments.len() as u64,
            segments_copied: self.segments_copied,
        })
    }

    /// A copy that is not the beginning of its source any more is of another history.
    fn told_apart(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Invalid { self.diverged() } else { error }
    }

    fn diverged(&self) -> Error {
        let message = "the backup here has records that the directory has not, or has otherwise: it \
                       was restored to an earlier state since, or repaired; use another place for \
                       this backup";
        Error::invalid(message).at(self.to, None)
    }
}

/// A copy that is being written.
pub(super) struct Out {
    file: Arc<dyn File>,
    pub(super) path: std::path::PathBuf,
    /// So much is in it.
    pub(super) at: u64,
    /// What was there before; it is compared and not written.
    known: Option<Part>,
    hasher: Xxh3,
}

impl Out {
    /// A new file in place of one that may be there.
    pub(super) fn create(disk: &Arc<dyn Disk>, path: std::path::PathBuf) -> Result<Self> {
        let create = || {
            if disk.exists(&path)? {
                disk.remove(&path)?;
            }
            disk.create(&path)
        };
        let file = create().map_err(|e| Error::io("make a file of the copy", &path, e))?;
        Ok(Out { file: file.into(), path, at: 0, known: None, hasher: Xxh3::new() })
    }

    /// Adds bytes; they do not reach over the end of what was there before.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        let start = self.at;
        self.at += bytes.len() as u64;
        if let Some(known) = self.known.filter(|known| start < known.bytes) {
            let is_same = self.at < known.bytes
                || (self.at == known.bytes && self.hasher.digest128() == known.hash);
            let other = "the copy is not the beginning of what is copied";
            return if is_same { Ok(()) } else { Err(Error::invalid(other)) };
        }
        let write = self.file.write_at(start, bytes);
        write.map_err(|e| Error::io("write the copy", &self.path, e))
    }

    /// Adds the first `bytes` of the file at `from`.
    pub(super) fn copy(
        &mut self,
        source: &dyn File,
        from: &Path,
        bytes: u64,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        disk::each_block(source, from, 0..bytes, "read what is copied", &mut |_, block| {
            self.put(block)?;
            meter.add(block.len() as u64)
        })
    }

    /// Makes the copy durable and compares what the disk says with what was written.
    pub(super) fn settle(self, meter: &mut Meter<'_>) -> Result<Part> {
        self.file.sync().map_err(|e| Error::io("sync the copy", &self.path, e))?;
        self.file.forget_cached();
        let part = Part { bytes: self.at, hash: self.hasher.digest128() };
        if hash_of(&*self.file, &self.path, part.bytes, meter)? != part.hash {
            let message = "what was written here reads back otherwise: the disk or its connection \
                           is faulty";
            return Err(Error::corruption(&self.path, 0, message));
        }
        Ok(part)
    }
}

/// The XXH3-128 of the first `bytes` of a file.
pub(super) fn hash_of(
    file: &dyn File,
    path: &Path,
    bytes: u64,
    meter: &mut Meter<'_>,
) -> Result<u128> {
    let there = file.len().map_err(|e| Error::io("read", path, e))?;
    if there < bytes {
        let message = format!("the file ends here; it should have {bytes} bytes");
        return Err(Error::corruption(path, there, message));
    }
    let mut hasher = Xxh3::new();
    disk::each_block(file, path, 0..bytes, "read", &mut |_, block| {
        hasher.update(block);
        meter.add(block.len() as u64)
    })?;
    Ok(hasher.digest128())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::atomic::Ordering::Acquire;

    #[test]
    fn retirement_is_held_back_as_long_as_any_backup_is_under_way() {
        let backups = AtomicUsize::new(0);
        let first = NoRetirement::begin(&backups);
        let second = NoRetirement::begin(&backups);
        drop(first);
        assert_eq!(backups.load(Acquire), 1);
        drop(second);
        assert_eq!(backups.load(Acquire), 0);
    }
}
