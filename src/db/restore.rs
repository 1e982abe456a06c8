//! Restoring: a backup, or an earlier state that its log still has, as a directory again.
//!
//! Up to a position or a time of recording the log is copied and cut there, in the middle of a frame if
//! need be, and the snapshot goes along if it is not of a later state. As of an event time there is no
//! such place in the log: one is written anew that has only the events up to that time, and their
//! positions are others.
//!
//! Whatever is restored records as a replica of its own from then on: the directory that the backup was
//! taken of may go on, and the same position must not name two events for others.
//!
//! Invariants
//! 1. Nothing of the backup is taken for good before its hash agrees with the backup's list.
//! 2. As long as `RESTORING` is in the directory nobody else opens it.
//! 3. The restored directory is opened, recovered and checkpointed once before `RESTORING` is taken
//!    away. A restore that dies before that is begun again; one that dies behind it is whole.
//! 4. The lock of the directory is held from before anything else is made in it until `RESTORING` is
//!    gone. So of two restores into one directory one is refused, and changes nothing.

mod anew;

use super::background::Threads;
use super::backup::{Meter, Out, hash_of};
use super::batch::Builder;
use super::open::{LOCK, LOG, RESTORING, STORE, open_locked};
use super::verify::{Finding, VerifyReport};
use super::{Db, Progress};
use crate::dictionary::Dictionary;
use crate::disk::{Access, BLOCK_BYTES, Disk, Filling, Lock, OsDisk, Sharing};
use crate::error::{Error, ErrorKind, Result};
use crate::log::frame::{FrameKind, Header};
use crate::log::frames::Frames;
use crate::log::reader::{self, Entry};
use crate::log::segment::{self, Segment};
use crate::log::stage::{self, Record, Staged};
use crate::log::writer::Writer;
use crate::log::{Home, Position};
use crate::manifest::backup::{self, BackupSet, SegmentPart, StagePart};
use crate::manifest::{self, Manifest, StoreName};
use crate::options::Options;
use crate::record::{self, Form};
use crate::time::Timestamp;
use anew::Anew;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The greatest size of a segment of a log that is written anew.
const SEGMENT_BYTES: u64 = 64 << 20;

/// How much of a backup is restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Upto {
    /// All of it.
    #[default]
    Everything,
    /// The records up to this position, and no later one.
    Position(Position),
    /// What was recorded up to this time, by the clock of the store: the log ends in front of the first
    /// batch recorded after it.
    RecordedAt(Timestamp),
    /// The events that happened up to this time, whenever they were recorded, and all definitions of
    /// views: the state as if no later event had been recorded. The log is written anew, so positions
    /// are other ones, and the directory has another identity. Events keep the names that they have
    /// for other replicas ([`Db::export`](crate::Db::export)): what is imported from one that knows
    /// more brings the later ones back.
    EventTime(Timestamp),
}

/// A directory that was restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RestoreOutcome {
    /// The last position in it.
    pub position: Position,
    /// Events recorded in it since it was made.
    pub events: u64,
    /// Views in it.
    pub views: u64,
}

/// Makes a directory of a backup that [`Db::backup`](crate::Db::backup) took: `to` does not exist yet or is empty.
///
/// Everything is compared with the hashes of the backup, written, synced, and opened once. An earlier
/// state ([`Upto`]) is had from the log: from its beginning, or on top of the backup's snapshot if that
/// is not of a later state. A view is filled from the log if it was at that position; one that was
/// being filled is [gone on with](crate::Db::backfill) by who wants it.
///
/// `progress` is called in bytes, copied and read back; `Break` stops.
///
/// ```
/// # let root = tempfile::tempdir().unwrap();
/// # let (dir, backup, again) =
/// #     (root.path().join("shop"), root.path().join("backup"), root.path().join("again"));
/// use quipu::{Db, Event, Upto, View};
/// use std::ops::ControlFlow;
///
/// let db = Db::open(&dir)?;
/// db.define(View::new("all").stats("value"))?;
/// let first = db.record(&Event::new("sale").value(1.0))?.position;
/// db.record(&Event::new("sale").value(2.0))?;
/// db.backup(&backup, |_| ControlFlow::Continue(()))?;
///
/// let restored = quipu::restore(&backup, &again, Upto::Position(first), |_| ControlFlow::Continue(()))?;
/// assert_eq!(restored.position, first);
/// assert_eq!(Db::open(&again)?.query("all")?.totals()?.summary().unwrap().sum, 1.0);
/// # Ok::<(), quipu::Error>(())
/// ```
///
/// # Errors
/// `NotFound`, `NotQuipu` where `from` is no backup; `Corruption` where it is damaged, with file and
/// offset; `Locked` when another restore into `to` is under way; `Invalid` when `to` is not empty, or the
/// position is behind the backup's; `LogRetired` when
/// the log in the backup does not reach back far enough, or a repair had given up a part of it that is
/// needed; `Stopped`, `Io`, `NoSpace`. What was begun in `to` is not opened by anybody, and may be
/// restored into again.
pub fn restore(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    upto: Upto,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<RestoreOutcome> {
    restore_on(Arc::new(OsDisk), from.as_ref(), to.as_ref(), upto, &mut progress)
}

pub(crate) fn restore_on(
    disk: Arc<dyn Disk>,
    from: &Path,
    to: &Path,
    upto: Upto,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<RestoreOutcome> {
    let set = open_backup(&disk, from)?;
    if let Upto::Position(position) = upto {
        check_position(&set, from, position)?;
    }
    if matches!(upto, Upto::EventTime(_)) && !reaches_back(&set) {
        return Err(too_late(&disk, &set, from));
    }
    let lock = claim(&disk, to)?;
    let mut restoring =
        Restoring { disk: disk.clone(), set, from, to, meter: Meter::new(progress) };
    restoring.meter.total = 2 * restoring.set.bytes();
    let position = match upto {
        Upto::EventTime(time) => restoring.write_anew(time)?,
        Upto::Everything => restoring.copy(&|_, positions| positions)?,
        Upto::Position(position) => {
            let before = |first: u64| (position.get() + 1).saturating_sub(first);
            restoring.copy(&|header, positions| before(header.position).min(positions))?
        }
        Upto::RecordedAt(time) => restoring.copy(&|header, positions| {
            if header.written_at <= time.micros() { positions } else { 0 }
        })?,
    };
    let outcome = prove(disk, to, lock.clone(), position)?;
    restoring.complete()?;
    drop(lock);
    Ok(outcome)
}

fn open_backup(disk: &Arc<dyn Disk>, from: &Path) -> Result<BackupSet> {
    if let Some(set) = BackupSet::open(disk, from)? {
        return Ok(set);
    }
    let is_there = |name: &Path| disk.exists(name).unwrap_or(false);
    let (kind, message) = if !is_there(from) {
        (ErrorKind::NotFound, "there is no such backup")
    } else if is_there(&from.join(manifest::NAME)) {
        (ErrorKind::NotQuipu, "this is a data directory and no backup; take a backup of it first")
    } else {
        (ErrorKind::NotQuipu, "this is no backup: it has no list of one")
    };
    Err(Error::new(kind, message).at(from, None))
}

/// Compares a backup with its list, as a restore does; `None` where there is none in `dir`.
pub(super) fn verify_backup(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<VerifyReport>> {
    let fail = |e| Error::io("look at the backup", dir, e);
    let is_there = |name: &str| disk.exists(&dir.join(name)).map_err(fail);
    if !is_there(backup::NAME)? || is_there(manifest::NAME)? {
        return Ok(None);
    }
    // Whoever takes a backup has made it, and removes what the new list does not name.
    let _lock = if is_there(LOCK)? {
        Some(super::open::lock(&**disk, dir, Sharing::Readers)?)
    } else {
        None
    };
    let mut report = VerifyReport::new();
    let set = match BackupSet::open(disk, dir) {
        Ok(Some(set)) => set,
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::Corruption => {
            report.findings.push(Finding::of(&error, &dir.join(backup::NAME)));
            return Ok(Some(report));
        }
        Err(error) => return Err(error),
    };
    let mut tell = |told| {
        progress(told);
        ControlFlow::Continue(())
    };
    let mut meter = Meter::new(&mut tell);
    meter.total = set.bytes();
    let name = |part: &SegmentPart| Path::new(LOG).join(segment::name(part.number));
    let log = set.segments.iter().map(|part| (name(part), part.part));
    let store = set.snapshot.map(|part| (PathBuf::from(set.snapshot_name()), part));
    let staged = set.stage.map(|stage| (PathBuf::from(set.stage_name()), stage.part));
    for (name, part) in log.chain(store).chain(staged) {
        let path = dir.join(name);
        let is_same = match disk.open(&path, Access::Read) {
            Ok(file) => {
                hash_of(&*file, &path, part.bytes, &mut meter).map(|hash| hash == part.hash)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(missing(&path)),
            Err(e) => Err(Error::io("read the backup", &path, e)),
        };
        match is_same {
            Ok(true) => {}
            Ok(false) => report.findings.push(Finding::of(&damaged(&path, 0), &path)),
            Err(error) if error.kind() == ErrorKind::Corruption => {
                report.findings.push(Finding::of(&error, &path));
            }
            Err(error) => return Err(error),
        }
        report.bytes += part.bytes;
    }
    report.segments = set.segments.len() as u64;
    report.first_position = first_position(disk, &set, dir).map(Position);
    report.last_position = Position(set.position);
    report.snapshot_position = set.snapshot.map(|_| Position(set.snapshot_position));
    Ok(Some(report))
}

/// The position with which the log in the backup begins, if it can be read.
fn first_position(disk: &Arc<dyn Disk>, set: &BackupSet, from: &Path) -> Option<u64> {
    set.segments.iter().find_map(|part| {
        let home = home_of(disk, set.identity, from);
        let segment = Segment::open(&home, part.number, Access::Read).ok()?;
        Some(reader::first_frame(&segment).ok().flatten()?.position)
    })
}

/// Whether the log in the backup begins with the first record.
fn reaches_back(set: &BackupSet) -> bool {
    set.segments.first().map_or(set.position == 0, |segment| segment.number == 1)
}

fn check_position(set: &BackupSet, from: &Path, position: Position) -> Result<()> {
    if position.get() > set.position {
        let message = format!("the backup ends at position {}", set.position);
        return Err(Error::invalid(message).at(from, None));
    }
    Ok(())
}

fn too_late(disk: &Arc<dyn Disk>, set: &BackupSet, from: &Path) -> Error {
    let first = first_position(disk, set, from);
    let message = format!(
        "the log in the backup begins at position {}, because earlier segments were retired; on its \
         snapshot, states from position {} to {} can be restored",
        first.unwrap_or(set.position),
        set.snapshot_position,
        set.position
    );
    Error::new(ErrorKind::LogRetired, message).at(from, None)
}

fn home_of(disk: &Arc<dyn Disk>, identity: u128, dir: &Path) -> Home {
    Home { disk: disk.clone(), dir: dir.join(LOG), identity, filling: Filling::Reserved }
}

/// Takes the target: not there, empty, or left by a restore that was interrupted. It is locked until
/// the restore has ended (invariant 4).
fn claim(disk: &Arc<dyn Disk>, to: &Path) -> Result<Lock> {
    let fail = |e| Error::io("make the directory to restore into", to, e);
    look(disk, to)?;
    disk.create_dir(to).map_err(fail)?;
    let lock = disk.lock(&to.join(LOCK), Sharing::Nobody).map_err(fail)?;
    let lock = lock.ok_or_else(|| {
        let message =
            "another restore into this directory is under way, or it is open; wait for it";
        Error::new(ErrorKind::Locked, message).at(to, None)
    })?;
    // Another one may have been completed before the lock was ours.
    if !look(disk, to)? {
        disk.create(&to.join(RESTORING)).and_then(|file| file.sync()).map_err(fail)?;
        disk.sync_dir(to).map_err(fail)?;
    }
    // Of a name that an earlier attempt left, every file is made anew; the others would be too many.
    for name in [manifest::NAME, manifest::UNFINISHED, STORE, stage::NAME] {
        if disk.exists(&to.join(name)).map_err(fail)? {
            disk.remove(&to.join(name)).map_err(fail)?;
        }
    }
    let log = to.join(LOG);
    disk.create_dir(&log).map_err(fail)?;
    for name in disk.list(&log).map_err(fail)? {
        disk.remove(&log.join(name)).map_err(fail)?;
    }
    disk.sync_dir(&log).map_err(fail)?;
    disk.sync_dir(to).map_err(fail)?;
    Ok(lock)
}

/// Whether a restore was begun in the target; an error where there is anything else in it.
fn look(disk: &Arc<dyn Disk>, to: &Path) -> Result<bool> {
    let fail = |e| Error::io("look at the directory to restore into", to, e);
    let names =
        if disk.exists(to).map_err(fail)? { disk.list(to).map_err(fail)? } else { Vec::new() };
    if names.iter().any(|name| name == RESTORING) {
        return Ok(true);
    }
    match names.iter().find(|name| *name != LOCK) {
        None => Ok(false),
        Some(other) => {
            let message =
                format!("the directory holds {other:?}; restore into an empty or a new one");
            Err(Error::invalid(message).at(to, None))
        }
    }
}

/// Opens what was restored (invariant 3).
fn prove(disk: Arc<dyn Disk>, to: &Path, lock: Lock, position: u64) -> Result<RestoreOutcome> {
    let engine = open_locked(disk, to, Options::new().must_exist(), lock)?;
    let db = Db::start(Arc::new(engine), Threads::none())?;
    if db.position().get() != position {
        let message = format!(
            "the restored log ends at position {} and should at {position}; the backup is not whole",
            db.position()
        );
        return Err(Error::corruption(&to.join(LOG), 0, message));
    }
    let views = db.views()?;
    let outcome = RestoreOutcome {
        position: Position(position),
        events: db.statistics().events,
        views: views.len() as u64,
    };
    db.close()?;
    Ok(outcome)
}

/// A restore under way.
struct Restoring<'a> {
    disk: Arc<dyn Disk>,
    set: BackupSet,
    from: &'a Path,
    to: &'a Path,
    meter: Meter<'a>,
}

impl Restoring<'_> {
    /// Copies log and snapshot. `keep` says how many positions of a frame are wanted; the log ends in
    /// front of the first that is not. Gives the last position.
    fn copy(&mut self, keep: &Keep<'_>) -> Result<u64> {
        let home = home_of(&self.disk, self.set.identity, self.from);
        let mut end =
            LogEnd { position: 0, is_cut: false, hole: None, written_at: self.set.taken_at };
        let mut last = 0;
        for part in self.set.segments.clone() {
            self.copy_segment(&home, part, keep, &mut end)?;
            last = part.number;
            if end.is_cut {
                break;
            }
        }
        if !end.is_cut {
            self.copy_stage(keep, &mut end)?;
        }
        let fits = self.set.snapshot.is_some() && self.set.snapshot_position <= end.position;
        if fits {
            self.copy_snapshot()?;
        } else if !reaches_back(&self.set) {
            return Err(too_late(&self.disk, &self.set, self.from));
        } else if let Some(hole) = end.hole {
            return Err(self.given_up(hole));
        }
        let created = Timestamp::from_micros(self.set.created);
        Manifest::restore(self.disk.clone(), self.to, self.set.identity, created, last)?;
        Ok(end.position)
    }

    /// The stage of the backup, checked.
    fn staged(&mut self) -> Result<Staged> {
        let Some(StagePart { part, .. }) = self.set.stage else {
            return Ok(Staged::default());
        };
        let path = self.from.join(self.set.stage_name());
        let file = match self.disk.open(&path, Access::Read) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(missing(&path)),
            opened => opened.map_err(|e| Error::io("read the backup", &path, e))?,
        };
        if hash_of(&*file, &path, part.bytes, &mut self.meter)? != part.hash {
            return Err(damaged(&path, 0));
        }
        let mut bytes = vec![0; part.bytes as usize];
        file.read_at(0, &mut bytes).map_err(|e| Error::io("read the backup", &path, e))?;
        Staged::of(bytes, self.set.identity).ok_or_else(|| damaged(&path, 0))
    }

    /// Copies what is wanted of the stage; the opening that follows brings it into the log.
    fn copy_stage(&mut self, keep: &Keep<'_>, end: &mut LogEnd) -> Result<()> {
        let staged = self.staged()?;
        let header = |position| Header {
            kind: FrameKind::Events(Form::Plain),
            payload_checksum: 0,
            body_bytes: 0,
            definition_bytes: 0,
            records: 1,
            position,
            synced: 0,
            written_at: self.set.taken_at,
        };
        let is_wanted = |record: &Record<'_>| keep(&header(record.position), 1) > 0;
        let mut wanted = staged.behind(end.position);
        wanted.truncate(wanted.iter().take_while(|record| is_wanted(record)).count());
        if let Some(last) = wanted.last() {
            let mut out = Out::create(&self.disk, self.to.join(stage::NAME))?;
            out.put(&staged.image(&wanted))?;
            out.settle(&mut self.meter)?;
            end.position = last.position;
        }
        Ok(())
    }

    fn copy_segment(
        &mut self,
        home: &Home,
        part: SegmentPart,
        keep: &Keep<'_>,
        end: &mut LogEnd,
    ) -> Result<()> {
        let source = Segment::open(home, part.number, Access::Read)?;
        let (from, salt) = (source.path.clone(), source.salt);
        // Invariant 1. What lies behind a cut is checked, too.
        if hash_of(&*source.file, &from, part.part.bytes, &mut self.meter)? != part.part.hash {
            return Err(damaged(&from, 0));
        }
        let mut out = Out::create(&self.disk, self.to.join(LOG).join(segment::name(part.number)))?;
        let mut block = source.header()?.to_vec();
        let mut frames = Frames::up_to(source, part.part.bytes);
        let mut is_sealed = false;
        while frames.at() < part.part.bytes && !end.is_cut {
            let at = frames.at();
            let Ok(located) = frames.next()? else {
                return Err(damaged(&from, at));
            };
            let frame = located.frame;
            let positions = frame.next_position - frame.header.position;
            let mut wanted = keep(&frame.header, positions);
            end.is_cut = wanted < positions;
            if !end.is_cut {
                block.extend_from_slice(located.raw);
                is_sealed = frame.header.kind == FrameKind::Seal;
            } else if !matches!(frame.header.kind, FrameKind::Events(_) | FrameKind::Lost) {
                wanted = 0;
            } else if wanted > 0 {
                let first = reader::first_positions(&frame, wanted, at, salt);
                block.extend_from_slice(&first.map_err(|_| damaged(&from, at))?);
            }
            if wanted > 0 {
                end.hole = end.hole.or(frame.lost_behind(0));
            }
            if !end.is_cut || wanted > 0 {
                let next = frame.header.position.saturating_add(wanted);
                end.position = end.position.max(next.saturating_sub(1));
                end.written_at = frame.header.written_at;
            }
            if block.len() >= BLOCK_BYTES {
                out.put(&block)?;
                block.clear();
            }
        }
        out.put(&block)?;
        let (path, cut) = (out.path.clone(), out.at);
        out.settle(&mut self.meter)?;
        if !is_sealed {
            let file = self.disk.open(&path, Access::Read);
            let file = file.map_err(|e| Error::io("seal a restored segment", &path, e))?;
            let segment = Segment { number: part.number, salt, path, file, bytes: cut };
            let (next, at) = (end.position + 1, Timestamp::from_micros(end.written_at));
            reader::seal_at(&*self.disk, &segment, cut, next, end.position, at)?;
        }
        Ok(())
    }

    fn copy_snapshot(&mut self) -> Result<()> {
        let Some(part) = self.set.snapshot else { return Ok(()) };
        let from = self.from.join(self.set.snapshot_name());
        let fail = |e| Error::io("read the snapshot of the backup", &from, e);
        let source = match self.disk.open(&from, Access::Read) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(missing(&from)),
            opened => opened.map_err(fail)?,
        };
        if source.len().map_err(fail)? != part.bytes {
            return Err(damaged(&from, 0));
        }
        let mut out = Out::create(&self.disk, self.to.join(STORE))?;
        out.copy(&*source, &from, part.bytes, &mut self.meter)?;
        if out.settle(&mut self.meter)?.hash != part.hash {
            return Err(damaged(&from, 0));
        }
        Ok(())
    }

    /// Writes a log of the events up to `time`, and of all control records; gives its last position.
    fn write_anew(&mut self, time: Timestamp) -> Result<u64> {
        let home = home_of(&self.disk, self.set.identity, self.from);
        for part in self.set.segments.clone() {
            let segment = Segment::open(&home, part.number, Access::Read)?;
            let bytes = part.part.bytes;
            if hash_of(&*segment.file, &segment.path, bytes, &mut self.meter)? != part.part.hash {
                return Err(damaged(&segment.path, 0));
            }
        }
        let made_at = Timestamp::from_micros(self.set.taken_at);
        let manifest =
            Arc::new(Manifest::create(self.disk.clone(), self.to, StoreName::REDB, made_at)?);
        let (id, to) = (manifest.identity, home_of(&self.disk, manifest.identity, self.to));
        let dictionary = Arc::new(Dictionary::new(0));
        let writer = Writer::start(to, manifest, dictionary.clone(), SEGMENT_BYTES, 0, 1);
        let mut anew = Anew::new(writer, id, self.set.identity, time);
        let meter = &mut self.meter;
        let (mut due, mut hole) = (1, None);
        let mut apply = |entry: Entry<'_>, header: &Header| {
            if header.position > due && hole.is_none() {
                hole = Some((due, header.position - 1));
            }
            due = header.last_position() + 1;
            let written_at = Timestamp::from_micros(header.written_at);
            match entry {
                Entry::Control(control) => anew.control(&control, written_at)?,
                Entry::Events(columns) => anew.events(columns, header.position, written_at)?,
            }
            meter.add(header.frame_bytes())
        };
        if let Some(last) = self.set.segments.last() {
            let end = (last.number, last.part.bytes);
            let log_ends = self.set.stage.map_or(self.set.position, |stage| stage.log_position);
            let range = (1, log_ends);
            reader::replay_range(&home, range, 1, end, &dictionary, &mut apply)?;
        }
        let mut builder = Builder::new(&dictionary);
        let staged = self.staged()?;
        let mut first = due;
        for Record { position, event, .. } in staged.behind(due - 1) {
            let event = record::take_event(event);
            let event = event.map_err(|_| damaged(&self.from.join(self.set.stage_name()), 0))?;
            builder.add(&dictionary, &event);
            due = position + 1;
        }
        for columns in builder.chunks(&dictionary).iter_mut().filter(|c| !c.is_empty()) {
            let events = columns.len() as u64;
            anew.events(columns, first, made_at)?;
            first += events;
        }
        if due <= self.set.position {
            hole = hole.or(Some((due, self.set.position)));
        }
        if let Some(hole) = hole {
            return Err(self.given_up(hole));
        }
        let position = anew.writer.appended();
        anew.writer.close(made_at)?;
        Ok(position)
    }

    /// The log alone is not all there was.
    fn given_up(&self, (from, to): (u64, u64)) -> Error {
        let message = format!(
            "a repair gave up the positions from {from} to {to}, so the log does not say what was in \
             the views behind them; states before position {from} can be restored, and on the \
             backup's snapshot those from position {} to {}",
            self.set.snapshot_position, self.set.position
        );
        Error::new(ErrorKind::LogRetired, message).at(self.from, None)
    }

    /// Everything is there: from here on it can be opened.
    fn complete(&self) -> Result<()> {
        let fail = |e| Error::io("complete the restored directory", self.to, e);
        self.disk.sync_dir(&self.to.join(LOG)).map_err(fail)?;
        self.disk.sync_dir(self.to).map_err(fail)?;
        self.disk.remove(&self.to.join(RESTORING)).map_err(fail)?;
        self.disk.sync_dir(self.to).map_err(fail)
    }
}

/// How many of a frame's positions are wanted, of so many.
type Keep<'a> = dyn Fn(&Header, u64) -> u64 + 'a;

/// Where the restored log ends.
struct LogEnd {
    position: u64,
    /// It ends before the backup's does.
    is_cut: bool,
    /// Positions in it that a repair had given up, the first ones of them.
    hole: Option<(u64, u64)>,
    written_at: i64,
}

fn missing(path: &Path) -> Error {
    Error::new(ErrorKind::Corruption, "this file of the backup is missing").at(path, None)
}

fn damaged(path: &Path, offset: u64) -> Error {
    Error::corruption(
        path,
        offset,
        "the backup is damaged here: this is not what was backed up; nothing of it is used",
    )
}
