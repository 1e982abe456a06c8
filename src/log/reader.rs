//! Reading the log: frame by frame, for replay after a crash and for a view's backfill.
//!
//! Recovery walks the frames from the segment that was active at the last checkpoint. Where a
//! frame is not valid it asks whether anything proves that there was a durable one:
//!
//! 1. the last checkpoint's, which had synced the log, lies at or behind it, or
//! 2. a valid header behind it (at any multiple of 8 in this segment, or in a later one) claims
//!    `synced` at or behind it.
//!
//! Proof makes it corruption: an error. No proof makes it the unsynced tail: the segment is cut and
//! sealed there, and later segments, which hold unsynced frames only, are cut to nothing and sealed too.
//! Reading touches nothing; the log is brought in order when its opener has nothing more to refuse.
//!
//! Next: `db/open.rs`, which drives recovery.

use super::Home;
use super::frame::{self, Defect, Frame, FrameKind, Header};
use super::frames::{Frames, Located};
use super::segment::{self, Segment};
use crate::codec::Malformed;
use crate::dictionary::{Dictionary, Reader as DictionaryReader, Sym};
use crate::disk::{self, Access, Disk};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{self, Columns, Control};
use crate::time::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

/// What a frame brings.
pub(crate) enum Entry<'a> {
    Events(&'a mut Columns),
    Control(Control),
}

/// Turns the numbers that one segment uses into this opening's syms.
pub(crate) struct Translation {
    dictionary: Arc<Dictionary>,
    reader: DictionaryReader,
    dense: Vec<Sym>,
    sparse: HashMap<u32, Sym, foldhash::fast::RandomState>,
}

/// Numbers below this are looked up in an array; it bounds what a hostile number can allocate.
const DENSE_MAX: u32 = 1 << 22;

impl Translation {
    pub(crate) fn new(dictionary: &Arc<Dictionary>) -> Self {
        let (dictionary, reader) = (dictionary.clone(), dictionary.reader());
        Translation { dictionary, reader, dense: Vec::new(), sparse: HashMap::default() }
    }

    pub(super) fn forget(&mut self) {
        self.dense.fill(Sym::NONE);
        self.sparse.clear();
    }

    /// Takes in a frame's definitions.
    pub(super) fn take_in(&mut self, definitions: &[u8]) -> Result<(), Malformed> {
        record::each_definition(definitions, |number, text| {
            self.define(number, text);
            Ok(())
        })
    }

    fn define(&mut self, number: u32, text: &str) {
        let sym = self.dictionary.intern(&mut self.reader, text);
        if number < DENSE_MAX {
            let at = number as usize;
            if at >= self.dense.len() {
                self.dense.resize((at + 1).next_power_of_two(), Sym::NONE);
            }
            self.dense[at] = sym;
        } else {
            self.sparse.insert(number, sym);
        }
    }

    #[inline]
    fn get(&self, number: u32) -> Result<Sym, Malformed> {
        let sym = match self.dense.get(number as usize) {
            Some(sym) => *sym,
            None => self.sparse.get(&number).copied().unwrap_or(Sym::NONE),
        };
        if sym == Sym::NONE {
            return Err(Malformed("a string is used that was not defined before"));
        }
        Ok(sym)
    }
}

/// What recovery found, and what it has left to be done ([`Recovered::settle`]).
#[derive(Clone, Debug, Default)]
pub(crate) struct Recovered {
    /// The last position in the log, or the snapshot's where the log holds none.
    pub(crate) last: u64,
    pub(crate) replayed: u64,
    /// Bytes from the first to the last one that is not blank of what is to be cut as the unsynced
    /// tail.
    pub(crate) cut_bytes: u64,
    /// The greatest number of a segment that there is; the next opening starts one behind it.
    pub(crate) last_segment: u64,
    /// Positions behind the snapshot's that a repair gave up, the first ones of them.
    pub(crate) given_up: Option<(u64, u64)>,
    /// What the page cache alone may have: from this place on, in segments that end there.
    unproved: (u64, u64),
    ends: Vec<(u64, u64)>,
    tail: Option<Tail>,
}

/// Where the unsynced tail begins.
#[derive(Clone, Debug)]
struct Tail {
    segment: Segment,
    offset: u64,
    position: u64,
}

/// A way to say how far a long reading has come: records read, and records in all if known.
pub(crate) type Applied<'a> = dyn FnMut(Entry<'_>, &Header) -> Result<()> + 'a;

/// Where in the log to go on, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resume {
    /// The oldest segment that was not retired; it and all behind it must be there.
    pub(crate) oldest: u64,
    /// The segment that was active at the last checkpoint, or the first.
    pub(crate) segment: u64,
    /// Everything before this offset of it was durable at the checkpoint.
    pub(crate) offset: u64,
    /// The snapshot's position; only what is behind it is applied.
    pub(crate) position: u64,
    /// The greatest segment number that the manifest names.
    pub(crate) made: u64,
}

/// Reads the log after any crash and applies everything behind the snapshot. Nothing is changed:
/// whoever finds nothing to refuse brings it in order with [`Recovered::settle`].
pub(crate) fn recover(
    home: &Home,
    resume: Resume,
    dictionary: &Arc<Dictionary>,
    apply: &mut Applied<'_>,
) -> Result<Recovered> {
    let Home { disk, dir, .. } = home;
    let last_segment = check_presence(home, resume)?;
    disk.sync_dir(dir).map_err(|e| Error::io("sync the directory of the log", dir, e))?;

    let mut proved = Proved::new(resume);
    let mut recovered = Recovered { last: resume.position, last_segment, ..Recovered::default() };
    let mut expected: Option<u64> = None;
    let mut translation = Translation::new(dictionary);
    let mut columns = Columns::default();
    for number in resume.segment..=last_segment {
        let segment = Segment::open(home, number, Access::Read)?;
        let mut frames = Frames::new(segment.clone());
        translation.forget();
        let mut sealed = false;
        let defect = loop {
            let at = frames.at();
            let frame = match frames.next()? {
                Ok(Located { frame, .. }) => frame,
                Err(defect) => break defect,
            };
            let position = frame.header.position;
            if expected.is_none() && position > resume.position + 1 {
                return Err(gap(&segment.path, at, resume.position + 1, position));
            }
            if expected.is_some_and(|expected| expected != position) {
                return Err(gap(&segment.path, at, expected.unwrap_or(0), position));
            }
            expected = Some(frame.next_position);
            proved.pass(&frame.header, (number, at + frame.header.frame_bytes()));
            sealed = frame.header.kind == FrameKind::Seal;
            let wanted = position > resume.position;
            recovered.given_up = recovered.given_up.or_else(|| frame.lost_behind(resume.position));
            read(&frame, wanted, &mut translation, &mut columns, apply)
                .map_err(|error| place(error, &segment.path, at))?;
            if wanted {
                recovered.replayed += u64::from(frame.header.records);
            }
            recovered.last = recovered.last.max(frame.next_position.saturating_sub(1));
        };
        let at = frames.at();
        recovered.ends.push((number, at));
        if let Defect::Unknown(kind) = defect {
            return Err(newer_kind(kind, &segment.path, at));
        }
        if sealed {
            continue;
        }
        // No seal: this is the end of the log, or damage (see above).
        let position = expected.unwrap_or(resume.position + 1);
        let mut claimed = resume.position;
        let used_end =
            frames.look_behind(&mut |_, header| claimed = claimed.max(header.claim()))?;
        if number == resume.segment && at < resume.offset {
            claimed = claimed.max(position);
        }
        for later in number + 1..=last_segment {
            let later = Frames::new(Segment::open(home, later, Access::Read)?);
            claimed = claimed.max(later.claims_behind()?);
        }
        if claimed >= position {
            return Err(damage(&segment.path, at, defect, (position, claimed)));
        }
        recovered.cut_bytes = used_end - at;
        recovered.unproved = proved.end;
        recovered.tail = Some(Tail { segment, offset: at, position });
        return Ok(recovered);
    }
    // Every segment is sealed. The snapshot was made of records that were durable in them.
    if let Some(next) = expected.filter(|next| *next <= resume.position) {
        return Err(short(&dir.join(segment::name(last_segment)), next - 1, resume.position));
    }
    recovered.unproved = proved.end;
    Ok(recovered)
}

impl Recovered {
    /// The segment in which the log ends and its place there; 0 in one that is not there yet.
    pub(crate) fn end(&self) -> (u64, u64) {
        let behind = (self.last_segment + 1, 0);
        self.tail.as_ref().map_or(behind, |tail| (tail.segment.number, tail.offset))
    }

    /// Brings the log in order: what was read is durable when this returns, the unsynced tail is cut,
    /// and every segment is sealed.
    pub(crate) fn settle(&self, home: &Home, now: Timestamp) -> Result<()> {
        // The seals below claim it.
        rewrite(home, self.unproved, &self.ends)?;
        let Some(Tail { segment, offset, position }) = &self.tail else { return Ok(()) };
        let (disk, synced) = (&*home.disk, position - 1);
        // Later segments first: as long as this one is not sealed, a crash in between is recovered in
        // the same way again.
        for later in (segment.number + 1..=self.last_segment).rev() {
            let later = Segment::open(home, later, Access::Read)?;
            seal_at(disk, &later, segment::HEADER_BYTES as u64, *position, synced, now)?;
        }
        seal_at(disk, segment, *offset, *position, synced, now)
    }
}

/// How far the log is proved to be durable, as frame after frame is passed.
struct Proved {
    /// Where the frame with the last position that is proved durable ends.
    end: (u64, u64),
    /// The greatest position that is claimed to be durable.
    claimed: u64,
    /// The last positions and the ends of the frames behind.
    behind: VecDeque<(u64, (u64, u64))>,
}

impl Proved {
    fn new(resume: Resume) -> Self {
        let offset = resume.offset.max(segment::HEADER_BYTES as u64);
        Proved { end: (resume.segment, offset), claimed: resume.position, behind: VecDeque::new() }
    }

    fn pass(&mut self, header: &Header, end: (u64, u64)) {
        self.claimed = self.claimed.max(header.claim());
        // A frame without records proves others and is proved by none.
        if header.records > 0 {
            self.behind.push_back((header.last_position(), end));
        }
        while let Some((last, end)) = self.behind.front().copied()
            && last <= self.claimed
        {
            self.end = self.end.max(end);
            self.behind.pop_front();
        }
    }
}

/// Makes durable what is read from the page cache behind a place of the log, before anything of it is
/// served: written back, then synced. A sync alone is not enough. After a kill the pages are dirty
/// and it would be; but after a sync that failed they are clean, without being on the disk, and
/// another sync does nothing and succeeds. `ends` are the segments and where their frames end.
fn rewrite(home: &Home, from: (u64, u64), ends: &[(u64, u64)]) -> Result<()> {
    for &(number, end) in ends.iter().filter(|end| **end > from) {
        let segment = Segment::open(home, number, Access::Write)?;
        let Segment { file, path, .. } = &segment;
        let fail = |e| Error::io("sync the log", path, e);
        let begin = if number == from.0 { from.1 } else { segment::HEADER_BYTES as u64 };
        disk::each_block(&**file, path, begin..end, "sync the log", &mut |at, bytes| {
            file.write_at(at, bytes).map_err(fail)
        })?;
        file.sync().map_err(fail)?;
    }
    Ok(())
}

/// Checks that no file in the log is one that has no place there.
pub(super) fn check_strays(home: &Home, resume: Resume) -> Result<()> {
    match segment::strays(home, resume.oldest, resume.made)?.first() {
        Some(stray) => Err(Error::corruption(&stray.path, 0, stray.what.clone())),
        None => Ok(()),
    }
}

/// Checks that every segment is there, changing nothing; gives the greatest number.
pub(crate) fn check_presence(home: &Home, resume: Resume) -> Result<u64> {
    check_strays(home, resume)?;
    let present = segment::numbers(&*home.disk, &home.dir)?;
    // The one that was active at the checkpoint was made if anything was in it.
    let active = resume.segment - u64::from(resume.offset == 0);
    let last = present.last().copied().unwrap_or(0).max(resume.made).max(active);
    match (resume.oldest..=last).find(|number| present.binary_search(number).is_err()) {
        Some(number) => Err(segment::missing(&home.dir.join(segment::name(number)))),
        None => Ok(last),
    }
}

/// Whether every segment is there, from the first one to that which the manifest names last, and
/// the first begins with the first position.
pub(crate) fn is_complete(home: &Home, made: u64) -> Result<bool> {
    let present = segment::numbers(&*home.disk, &home.dir)?;
    let last = present.last().copied().unwrap_or(0).max(made);
    if last == 0 || !(1..=last).all(|number| present.binary_search(&number).is_ok()) {
        return Ok(false);
    }
    let first = Segment::open(home, 1, Access::Read).and_then(|segment| first_frame(&segment));
    match first {
        Ok(header) => Ok(header.is_some_and(|header| header.position == 1)),
        Err(error) if error.kind() == ErrorKind::Corruption => Ok(false),
        Err(error) => Err(error),
    }
}

/// Cuts a segment at `offset` and seals it there: nothing more is written to it, by anybody, and
/// its end is known. Durable when this returns.
pub(crate) fn seal_at(
    disk: &dyn Disk,
    segment: &Segment,
    offset: u64,
    position: u64,
    synced: u64,
    now: Timestamp,
) -> Result<()> {
    let seal = Header::empty(FrameKind::Seal, position, synced, now.micros());
    let seal = seal.encode(offset, segment.salt);
    let write = || {
        let file = disk.open(&segment.path, Access::Write)?;
        file.set_len(offset)?;
        file.sync()?;
        file.write_at(offset, &seal)?;
        file.sync()
    };
    write().map_err(|e| Error::io("seal a segment of the log", &segment.path, e))
}

/// The frame that should hold the first of these positions, which had been synced, is not there.
pub(super) fn damage(path: &Path, offset: u64, defect: Defect, synced: (u64, u64)) -> Error {
    let (from, to) = synced;
    let what = match defect {
        Defect::Blank => "blank",
        Defect::Header => "not valid",
        Defect::Payload(_) => "not what its checksum says",
        Defect::Unknown(_) => "unknown",
    };
    let message = format!(
        "the log is damaged here: positions from {from} to at least {to} had been synced, and the \
         frame at this place is {what}; nothing was changed"
    );
    Error::corruption(path, offset, message)
}

pub(super) fn newer_kind(kind: u32, path: &Path, offset: u64) -> Error {
    let message = format!("a record of kind {kind} was written by newer software; use that");
    Error::new(ErrorKind::NewerFormat, message).at(path, Some(offset))
}

pub(super) fn gap(path: &Path, offset: u64, expected: u64, found: u64) -> Error {
    Error::corruption(
        path,
        offset,
        format!("position {expected} should be here, and {found} is: records are missing between"),
    )
}

fn short(path: &Path, last: u64, stored: u64) -> Error {
    let message = format!(
        "the log ends with position {last}, and the snapshot was made of it up to {stored}: this is an \
         older copy of the log, or of its end; put the right one back"
    );
    Error::new(ErrorKind::Corruption, message).at(path, None)
}

pub(super) fn place(error: ReadError, path: &Path, offset: u64) -> Error {
    match error {
        ReadError::Malformed(malformed) => Error::corruption(
            path,
            offset,
            format!("the frame is intact and its content is not: {malformed}"),
        ),
        ReadError::Failed(error) if error.path().is_none() => error.at(path, Some(offset)),
        ReadError::Failed(error) => error,
    }
}

pub(super) enum ReadError {
    Malformed(Malformed),
    Failed(Error),
}

impl From<Malformed> for ReadError {
    fn from(malformed: Malformed) -> Self {
        ReadError::Malformed(malformed)
    }
}

/// Takes in a frame's definitions and, if `wanted`, hands its records to `apply`.
pub(super) fn read(
    frame: &Frame<'_>,
    wanted: bool,
    translation: &mut Translation,
    columns: &mut Columns,
    apply: &mut Applied<'_>,
) -> Result<(), ReadError> {
    translation.take_in(frame.definitions)?;
    let records = frame.header.records;
    match frame.header.kind {
        FrameKind::Control if records != 1 => {
            return Err(Malformed("a control record is counted as another number").into());
        }
        FrameKind::Witness | FrameKind::Seal if records != 0 => {
            return Err(Malformed("it counts records and has none").into());
        }
        _ if !wanted => return Ok(()),
        _ => {}
    }
    match frame.header.kind {
        FrameKind::Events(form) => {
            let records = frame.header.records as usize;
            let translate = |number| translation.get(number);
            columns.decode(form, records, frame.header.written_at, frame.body, &translate)?;
            apply(Entry::Events(columns), &frame.header).map_err(ReadError::Failed)
        }
        FrameKind::Control => {
            let control = crate::codec::decode(frame.body)?;
            apply(Entry::Control(control), &frame.header).map_err(ReadError::Failed)
        }
        FrameKind::Witness | FrameKind::Seal | FrameKind::Lost | FrameKind::Skippable(_) => Ok(()),
    }
}

/// The bytes of a frame with the first `keep` positions of another one, of events or lost, for the
/// place where that is.
pub(crate) fn first_positions(
    frame: &Frame<'_>,
    keep: u64,
    at: u64,
    salt: u64,
) -> Result<Vec<u8>, Malformed> {
    let Header { records, written_at, .. } = frame.header;
    let mut bytes = vec![0; frame::HEADER_BYTES];
    let mut kind = frame.header.kind;
    let records = if let FrameKind::Events(form) = kind {
        let mut columns = Columns::default();
        // Numbers stay what they are in this segment.
        let translate = |number| Ok(Sym(number));
        columns.decode(form, records as usize, written_at, frame.body, &translate)?;
        let kept: Vec<bool> = (0..u64::from(records)).map(|row| row < keep).collect();
        columns.retain(&kept);
        columns.encode(written_at, &mut bytes);
        kind = FrameKind::Events(columns.form());
        columns.len() as u32
    } else {
        bytes.extend_from_slice(&(frame.header.position + keep).to_le_bytes());
        records
    };
    let body_bytes = (bytes.len() - frame::HEADER_BYTES) as u32;
    bytes.extend_from_slice(frame.definitions);
    let payload_checksum = crc32fast::hash(&bytes[frame::HEADER_BYTES..]);
    let header = Header { kind, payload_checksum, body_bytes, records, ..frame.header };
    bytes.resize(header.frame_bytes() as usize, 0);
    bytes[..frame::HEADER_BYTES].copy_from_slice(&header.encode(at, salt));
    Ok(bytes)
}

/// Reads the frames that have records at positions `from..=to` of a living log, whose active segment has
/// frames up to `end`.
pub(crate) fn replay_range(
    home: &Home,
    (from, to): (u64, u64),
    first_segment: u64,
    end: (u64, u64),
    dictionary: &Arc<Dictionary>,
    apply: &mut Applied<'_>,
) -> Result<()> {
    let mut translation = Translation::new(dictionary);
    let mut columns = Columns::default();
    walk(home, to, first_segment, end, &mut |met| {
        match met {
            Met::Segment => translation.forget(),
            Met::Frame(frame, segment, at) => {
                let wanted = frame.next_position > from;
                read(frame, wanted, &mut translation, &mut columns, apply)
                    .map_err(|error| place(error, segment, at))?;
            }
        }
        Ok(())
    })
}

/// The first positions of `from..=to` that a repair gave up, in a log as [`replay_range`] reads it.
pub(crate) fn first_lost(
    home: &Home,
    (from, to): (u64, u64),
    first_segment: u64,
    end: (u64, u64),
) -> Result<Option<(u64, u64)>> {
    let mut lost = None;
    walk(home, to, first_segment, end, &mut |met| {
        if let Met::Frame(frame, ..) = met {
            lost = lost.or_else(|| frame.lost_behind(from.saturating_sub(1)));
        }
        Ok(())
    })?;
    Ok(lost)
}

/// What a walk over the log comes by: a segment begins, or a frame in the segment of this path, at this
/// offset.
enum Met<'a> {
    Segment,
    Frame(&'a Frame<'a>, &'a Path, u64),
}

/// Walks the frames of a living log up to the one that holds position `to`.
fn walk(
    home: &Home,
    to: u64,
    first_segment: u64,
    end: (u64, u64),
    see: &mut dyn FnMut(Met<'_>) -> Result<()>,
) -> Result<()> {
    let mut expected: Option<u64> = None;
    for number in first_segment..=end.0 {
        let length = if number == end.0 { Some(end.1) } else { None };
        if length == Some(0) {
            break;
        }
        let segment = Segment::open(home, number, Access::Read)?;
        // A segment that was left may be cut behind its seal while it is read.
        let mut frames = Frames::up_to(segment.clone(), length.unwrap_or(u64::MAX));
        see(Met::Segment)?;
        let mut sealed = false;
        while length.map_or(!sealed, |length| frames.at() < length) {
            let at = frames.at();
            let Ok(Located { frame, .. }) = frames.next()? else {
                let message = "the log is damaged here; nothing was changed";
                return Err(Error::corruption(&segment.path, at, message));
            };
            let position = frame.header.position;
            if let Some(expected) = expected.filter(|expected| *expected != position) {
                return Err(gap(&segment.path, at, expected, position));
            }
            expected = Some(frame.next_position);
            if position > to {
                return Ok(());
            }
            sealed = frame.header.kind == FrameKind::Seal;
            see(Met::Frame(&frame, &segment.path, at))?;
        }
    }
    match expected {
        Some(next) if next <= to => Err(gap(&home.dir, 0, next, to + 1)),
        _ => Ok(()),
    }
}

/// The position at which a segment begins and the time of its first frame; `None` while it is
/// blank.
pub(crate) fn first_frame(segment: &Segment) -> Result<Option<Header>> {
    let mut bytes = [0; frame::HEADER_BYTES];
    let at = segment::HEADER_BYTES as u64;
    if segment.bytes < at + bytes.len() as u64 {
        return Ok(None);
    }
    disk::read(&*segment.file, at, &mut bytes)
        .map_err(|unread| unread.told("read a segment of the log", &segment.path))?;
    match Header::decode(&bytes, at, segment.salt) {
        Ok(header) => Ok(Some(header)),
        Err(Defect::Blank) => Ok(None),
        Err(_) => Err(Error::corruption(
            &segment.path,
            at,
            "the segment's first frame is damaged; nothing was changed",
        )),
    }
}
