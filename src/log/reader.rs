//! Reading the log: frame by frame, for replay after a crash and for a view's backfill.
//!
//! Recovery walks the frames from the segment that was active at the last checkpoint. Where a
//! frame is not valid it asks whether anything proves that there was a durable one:
//!
//! 1. the last checkpoint's, which had synced the log, lies at or behind it, or
//! 2. a valid header behind it (at any multiple of 8 in this segment, or in a later one) claims
//!    `synced` at or behind it.
//!
//! Proof makes it corruption: an error, and nothing is touched. No proof makes it the unsynced
//! tail: the segment is cut and sealed there, and later segments, which hold unsynced frames only,
//! are cut to nothing and sealed too.
//!
//! Next: `db/open.rs`, which drives recovery.

use super::Home;
use super::frame::{self, Defect, Frame, FrameKind, Header};
use super::segment::{self, Segment};
use crate::codec::Malformed;
use crate::dictionary::{Dictionary, Reader as DictionaryReader, Sym};
use crate::disk::{Access, Disk};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{self, Columns, Control};
use crate::time::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

/// What a frame brings.
pub(crate) enum Entry<'a> {
    Events(&'a mut Columns),
    Control(Control),
}

/// The content of a segment, mapped or read.
pub(crate) enum Content {
    Map(memmap2::Mmap),
    Bytes(Vec<u8>),
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Content::Map(map) => map,
            Content::Bytes(bytes) => bytes,
        }
    }
}

impl Content {
    pub(crate) fn sealed(segment: &Segment) -> Result<Self> {
        match segment.file.map() {
            Some(map) if map.len() as u64 == segment.bytes => Ok(Content::Map(map)),
            _ => Content::read(segment, segment.bytes),
        }
    }

    /// The first `bytes` of a segment that is still written behind them.
    pub(crate) fn read(segment: &Segment, bytes: u64) -> Result<Self> {
        let mut content = vec![0; bytes as usize];
        segment
            .file
            .read_at(0, &mut content)
            .map_err(|e| Error::io("read a segment of the log", &segment.path, e))?;
        Ok(Content::Bytes(content))
    }
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

/// Walks the frames of one segment.
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    salt: u64,
    pub(super) at: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8], salt: u64) -> Self {
        Walk { bytes, salt, at: segment::HEADER_BYTES as u64 }
    }

    /// The next frame; behind it lies `self.at`. A defect leaves `self.at` where it is.
    pub(super) fn next(&mut self) -> Result<Frame<'a>, Defect> {
        let rest = self.bytes.get(self.at as usize..).unwrap_or_default();
        let frame = Frame::decode(rest, self.at, self.salt)?;
        self.at += frame.header.frame_bytes();
        Ok(frame)
    }

    /// Every valid header at or behind `self.at`, whatever became of its payload, and its place.
    pub(super) fn headers_behind(&self) -> impl Iterator<Item = (u64, Header)> {
        headers(self.bytes.get(self.at as usize..).unwrap_or_default(), self.at, self.salt)
    }

    /// The greatest `synced` that any of them claims.
    pub(super) fn claims_behind(&self) -> u64 {
        let rest = self.bytes.get(self.at as usize..).unwrap_or_default();
        greatest_claim(rest, self.at, self.salt)
    }
}

/// How much of the log is written back at a time.
const REWRITE_BYTES: u64 = 1 << 20;

/// Every valid header in `bytes`, which begin at `offset` of a segment, and its place.
fn headers(bytes: &[u8], offset: u64, salt: u64) -> impl Iterator<Item = (u64, Header)> {
    let last = bytes.len().saturating_sub(frame::HEADER_BYTES - 1);
    (0..last).step_by(frame::ALIGN as usize).filter_map(move |at| {
        if bytes[at..at + 4] != frame::MAGIC {
            return None;
        }
        let place = offset + at as u64;
        Header::decode(&bytes[at..], place, salt).ok().map(|header| (place, header))
    })
}

/// The greatest `synced` that any of those headers claims.
pub(super) fn greatest_claim(bytes: &[u8], offset: u64, salt: u64) -> u64 {
    headers(bytes, offset, salt).map(|(_, header)| header.synced).max().unwrap_or(0)
}

/// What recovery found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recovered {
    /// The last position in the log, or the snapshot's where the log holds none.
    pub(crate) last: u64,
    pub(crate) replayed: u64,
    /// Bytes that are not blank and were cut as the unsynced tail.
    pub(crate) cut_bytes: u64,
    /// The greatest number of a segment that there is; the next opening starts one behind it.
    pub(crate) last_segment: u64,
    /// Positions behind the snapshot's that a repair gave up, the first ones of them.
    pub(crate) given_up: Option<(u64, u64)>,
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

/// Brings the log in order after any crash and applies everything behind the snapshot.
pub(crate) fn recover(
    home: &Home,
    resume: Resume,
    dictionary: &Arc<Dictionary>,
    now: Timestamp,
    apply: &mut Applied<'_>,
) -> Result<Recovered> {
    let Home { disk, dir, .. } = home;
    let last_segment = check_presence(home, resume)?;
    disk.sync_dir(dir).map_err(|e| Error::io("sync the directory of the log", dir, e))?;

    let mut proved = Proved::new(resume);
    let mut ends = Vec::new();
    let mut recovered = Recovered { last: resume.position, ..Recovered::default() };
    let mut expected: Option<u64> = None;
    let mut translation = Translation::new(dictionary);
    let mut columns = Columns::default();
    let mut number = resume.segment;
    while number <= last_segment {
        let segment = Segment::open(home, number, Access::Read)?;
        let content = Content::sealed(&segment)?;
        let mut walk = Walk::new(&content, segment.salt);
        translation.forget();
        let mut sealed = false;
        let defect = loop {
            let at = walk.at;
            match walk.next() {
                Ok(frame) => {
                    let position = frame.header.position;
                    if expected.is_none() && position > resume.position + 1 {
                        return Err(gap(&segment.path, at, resume.position + 1, position));
                    }
                    if expected.is_some_and(|expected| expected != position) {
                        return Err(gap(&segment.path, at, expected.unwrap_or(0), position));
                    }
                    expected = Some(frame.next_position);
                    proved.pass(&frame.header, (number, walk.at));
                    sealed = frame.header.kind == FrameKind::Seal;
                    let wanted = position > resume.position;
                    recovered.given_up =
                        recovered.given_up.or_else(|| frame.lost_behind(resume.position));
                    read(&frame, wanted, &mut translation, &mut columns, apply)
                        .map_err(|error| place(error, &segment.path, at))?;
                    if wanted {
                        recovered.replayed += u64::from(frame.header.records);
                    }
                    recovered.last = recovered.last.max(frame.next_position.saturating_sub(1));
                }
                Err(defect) => break defect,
            }
        };
        ends.push((number, walk.at));
        if let Defect::Unknown(kind) = defect {
            return Err(newer_kind(kind, &segment.path, walk.at));
        }
        if sealed {
            number += 1;
            continue;
        }
        // No seal: this is the end of the log, or damage (see above).
        let position = expected.unwrap_or(resume.position + 1);
        let mut claimed = resume.position.max(walk.claims_behind());
        if number == resume.segment && walk.at < resume.offset {
            claimed = claimed.max(position);
        }
        for later in number + 1..=last_segment {
            let segment = Segment::open(home, later, Access::Read)?;
            let content = Content::sealed(&segment)?;
            claimed = claimed.max(Walk::new(&content, segment.salt).claims_behind());
        }
        if claimed >= position {
            return Err(damage(&segment.path, walk.at, defect, (position, claimed)));
        }
        let tail = &content[walk.at.min(content.len() as u64) as usize..];
        recovered.cut_bytes +=
            tail.len() as u64 - tail.iter().rev().take_while(|byte| **byte == 0).count() as u64;
        let cut = walk.at;
        drop(content);
        // The seals below claim it.
        rewrite(home, proved.end, &ends)?;
        // Later segments first: as long as this one is not sealed, a crash in between is recovered
        // in the same way again.
        for later in (number + 1..=last_segment).rev() {
            let later = Segment::open(home, later, Access::Read)?;
            seal_at(&**disk, &later, segment::HEADER_BYTES as u64, position, position - 1, now)?;
        }
        seal_at(&**disk, &segment, cut, position, position - 1, now)?;
        recovered.last_segment = last_segment;
        return Ok(recovered);
    }
    // Every segment is sealed. The snapshot was made of records that were durable in them.
    if let Some(next) = expected.filter(|next| *next <= resume.position) {
        return Err(short(&dir.join(segment::name(last_segment)), next - 1, resume.position));
    }
    rewrite(home, proved.end, &ends)?;
    recovered.last_segment = last_segment;
    Ok(recovered)
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
        self.claimed = self.claimed.max(header.synced);
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
        let mut at = if number == from.0 { from.1 } else { segment::HEADER_BYTES as u64 };
        let mut write_back = || {
            let mut bytes = vec![0; (end - at).min(REWRITE_BYTES) as usize];
            while at < end {
                let n = (end - at).min(REWRITE_BYTES);
                let bytes = &mut bytes[..n as usize];
                segment.file.read_at(at, bytes)?;
                segment.file.write_at(at, bytes)?;
                at += n;
            }
            segment.file.sync()
        };
        write_back().map_err(|e| Error::io("sync the log", &segment.path, e))?;
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
    let seal = Header {
        kind: FrameKind::Seal,
        payload_checksum: crc32fast::hash(&[]),
        body_bytes: 0,
        definition_bytes: 0,
        records: 0,
        position,
        synced,
        written_at: now.micros(),
    };
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
    record::each_definition(frame.definitions, |number, text| {
        translation.define(number, text);
        Ok(())
    })?;
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
        FrameKind::Events => {
            let records = frame.header.records as usize;
            let translate = |number| translation.get(number);
            columns.decode(records, frame.header.written_at, frame.body, &translate)?;
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
    let records = if frame.header.kind == FrameKind::Lost {
        bytes.extend_from_slice(&(frame.header.position + keep).to_le_bytes());
        records
    } else {
        let mut columns = Columns::default();
        // Numbers stay what they are in this segment.
        columns.decode(records as usize, written_at, frame.body, &|number| Ok(Sym(number)))?;
        let kept: Vec<bool> = (0..u64::from(records)).map(|row| row < keep).collect();
        columns.retain(&kept);
        columns.encode(written_at, &mut bytes);
        columns.len() as u32
    };
    let body_bytes = (bytes.len() - frame::HEADER_BYTES) as u32;
    bytes.extend_from_slice(frame.definitions);
    let payload_checksum = crc32fast::hash(&bytes[frame::HEADER_BYTES..]);
    let header = Header { payload_checksum, body_bytes, records, ..frame.header };
    bytes.resize(header.frame_bytes() as usize, 0);
    bytes[..frame::HEADER_BYTES].copy_from_slice(&header.encode(at, salt));
    Ok(bytes)
}

/// Reads the records at positions `from..=to` of a living log, whose active segment has frames up
/// to `end`.
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
    let mut expected: Option<u64> = None;
    for number in first_segment..=end.0 {
        let length = if number == end.0 { Some(end.1) } else { None };
        if length == Some(0) {
            break;
        }
        let segment = Segment::open(home, number, Access::Read)?;
        let content = match Content::read(&segment, length.unwrap_or(segment.bytes)) {
            // A segment that was left may be cut behind its seal between opening and reading it.
            Err(_) if length.is_none() => {
                let segment = Segment::open(home, number, Access::Read)?;
                Content::read(&segment, segment.bytes)?
            }
            content => content?,
        };
        let mut walk = Walk::new(&content, segment.salt);
        translation.forget();
        let mut sealed = false;
        while length.map_or(!sealed, |length| walk.at < length) {
            let at = walk.at;
            let frame = walk.next().map_err(|_| {
                Error::corruption(&segment.path, at, "the log is damaged here; nothing was changed")
            })?;
            let position = frame.header.position;
            if let Some(expected) = expected.filter(|expected| *expected != position) {
                return Err(gap(&segment.path, at, expected, position));
            }
            expected = Some(frame.next_position);
            if position > to {
                return Ok(());
            }
            sealed = frame.header.kind == FrameKind::Seal;
            read(&frame, position >= from, &mut translation, &mut columns, apply)
                .map_err(|error| place(error, &segment.path, at))?;
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
    segment
        .file
        .read_at(at, &mut bytes)
        .map_err(|e| Error::io("read a segment of the log", &segment.path, e))?;
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
