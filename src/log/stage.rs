//! The stage: single events that are acknowledged and not in the log yet.
//!
//! A frame costs some hundred nanoseconds and a hundred bytes, whatever is in it. So events that come
//! one by one are gathered, and a group of them goes into the log as one frame. Until it does, they
//! lie here: a small file, mapped, in which each is a record of its own that says all there is to it.
//! What is copied there survives the death of the process. It is never synced: what must survive the
//! power is put into the log and synced there.
//!
//! ```text
//! offset size
//!  0      8   magic "QUIPUSTG"
//!  8      4   format version
//! 12      4   CRC-32 of bytes 0..12 and 16..44
//! 16     16   the directory's identity, as in MANIFEST
//! 32      8   salt, another for every opening
//! 40      4   bytes of an area
//! 44     20   zero
//! 64      -   areas: the one of events that came one after the other, then those of lanes
//! ```
//! An area has records from its beginning on, and is written by one thread at a time. A record is
//! `checksum (4) · length (2) · place (2) · behind (8) · event`, filled up with zeros to a multiple of 8. *Behind* is
//! the log's last position when the group of the event began; the place is the event's among those of its area, from
//! 1 on. The length is the event's; the checksum is the lower half of XXH3-64 of the position and the event
//! ([`record::put_event`](crate::record::put_event)), with the salt, exclusive-or length and place, as its seed.
//!
//! Invariants
//! 1. The records of a group lie in each area from the beginning on. When they are in the log those of the next
//!    group are written over them: what stands behind the last one is of no worth, and what an area has of a group
//!    that is over is in the log. A group is in the first area or in the others.
//! 2. The log comes first. Who reads the stage takes the records of the group that began at the log's last position,
//!    or, of the first area, at one before it and is not all in the log, as far as they are valid; any other record
//!    is in the log, or was lost together with what comes before it in a power cut.
//! 3. An event of the first area has the position that is its place behind the group's beginning. Those of other
//!    areas have none before they are in the log, where they come by their times, those of each area in their order
//!    ([`order_of`]). So a position is given once in an opening.
//! 4. Every opening makes a stage of its own, with a salt of its own, durable before its first record: no record of
//!    another history is taken for one of this.
//! 5. All of a header but its salt and the areas' length is known beforehand, and its checksum is of both, too: a
//!    single flipped bit in it is turned back by whoever reads it ([`Staged::flipped`]).
//!
//! Next: `db/staging.rs`.

use crate::disk::{Access, Disk, File, Filling, Map};
use crate::error::{Error, ErrorKind, Result};
use crate::record::order_of;
use crate::sync::STRIPES;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The file, in the directory itself.
pub(crate) const NAME: &str = "STAGE";
/// Under this name it is made.
pub(crate) const UNFINISHED: &str = "STAGE.new";
pub(crate) const MAGIC: [u8; 8] = *b"QUIPUSTG";
pub(crate) const FORMAT: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 64;
/// Areas: one, and one for each lane (`db/staging/lanes.rs`).
pub(crate) const AREAS: usize = 1 + STRIPES;
/// Bytes of a record before its event.
pub(crate) const RECORD_HEADER_BYTES: usize = 16;
/// No stage is longer than this.
const BYTES_MAX: u64 = 1 << 20;
const ALIGN: usize = 8;
/// Areas are apart by lines of the processor's cache.
const LINE_BYTES: u64 = 64;

/// An area of the stage of this opening, for who writes to it.
#[derive(Debug)]
pub(crate) struct Area {
    file: Arc<dyn File>,
    path: Arc<Path>,
    /// The area, where it can be had so.
    map: Option<Map>,
    salt: u64,
    /// Where it begins and ends.
    range: Range<u64>,
    /// Where the next record goes.
    at: u64,
    /// Reused for every record.
    record: Vec<u8>,
}

/// The bytes of an area of a stage of so many bytes.
pub(crate) fn area_bytes(stage_bytes: u64) -> u64 {
    (stage_bytes - HEADER_BYTES as u64) / AREAS as u64 / LINE_BYTES * LINE_BYTES
}

impl Area {
    /// Makes the stage of an opening, of so many bytes, durable when this returns. What an earlier opening left is in the
    /// log by now, and gone then.
    pub(crate) fn create_all(
        disk: &dyn Disk,
        dir: &Path,
        identity: u128,
        bytes: u64,
    ) -> Result<[Area; AREAS]> {
        let (path, unfinished) = (dir.join(NAME), dir.join(UNFINISHED));
        let (salt, area_bytes) = (disk.unique() as u64, area_bytes(bytes));
        let make = || -> io::Result<Arc<dyn File>> {
            if disk.exists(&unfinished)? {
                disk.remove(&unfinished)?;
            }
            let file = disk.prepare(&unfinished, bytes, Filling::Reserved)?;
            file.write_at(0, &header(identity, salt, area_bytes as u32))?;
            file.sync()?;
            disk.rename(&unfinished, &path)?;
            disk.sync_dir(dir)?;
            Ok(file.into())
        };
        let file = make().map_err(|e| Error::io("make the stage of the log", &path, e))?;
        let path = Arc::<Path>::from(path);
        Ok(std::array::from_fn(|area| {
            let at = HEADER_BYTES as u64 + area as u64 * area_bytes;
            let (file, path, range) = (file.clone(), path.clone(), at..at + area_bytes);
            let map = file.map(range.clone());
            Area { file, path, map, salt, range, at, record: Vec::new() }
        }))
    }

    /// Whether the record of an event of at most so many bytes fits behind those that are there.
    #[inline]
    pub(crate) fn has_room(&self, event_bytes: u64) -> bool {
        self.at + record_bytes(event_bytes as usize) as u64 <= self.range.end
    }

    /// Begins the record of an event at a place among those of its group in the area, where that began behind a position;
    /// `write` appends the event's bytes, which are fewer than 2^16.
    #[inline]
    pub(crate) fn draft(&mut self, behind: u64, place: u16, write: impl FnOnce(&mut Vec<u8>)) {
        self.record.clear();
        self.record.extend_from_slice(&[0; 8]);
        self.record.extend_from_slice(&behind.to_le_bytes());
        write(&mut self.record);
        let event_bytes = (self.record.len() - RECORD_HEADER_BYTES) as u16;
        let length_and_place = u32::from(event_bytes) | u32::from(place) << 16;
        self.record[4..8].copy_from_slice(&length_and_place.to_le_bytes());
        let checksum = checksum(self.salt, length_and_place, &self.record[8..]);
        self.record[0..4].copy_from_slice(&checksum.to_le_bytes());
        let len = self.record.len().next_multiple_of(ALIGN);
        self.record.extend_from_slice(&[0; ALIGN]);
        self.record.truncate(len);
    }

    /// Writes the drafted record, which there is room for. On an error it is not there, or not acknowledged.
    #[inline]
    pub(crate) fn put(&mut self) -> Result<()> {
        let at = (self.at - self.range.start) as usize;
        if !self.map.as_mut().is_some_and(|map| map.write(at, &self.record)) {
            let written = self.file.write_at(self.at, &self.record);
            written.map_err(|e| Error::io("write to the stage of the log", &self.path, e))?;
        }
        self.at += self.record.len() as u64;
        Ok(())
    }

    /// All records are in the log.
    pub(crate) fn clear(&mut self) {
        self.at = self.range.start;
    }
}

/// What the record of an event of so many bytes takes.
#[inline]
pub(crate) fn record_bytes(event_bytes: usize) -> usize {
    RECORD_HEADER_BYTES + event_bytes.next_multiple_of(ALIGN)
}

/// Turns back the flipped bit of the header, durable when this returns.
pub(crate) fn mend(disk: &dyn Disk, dir: &Path, flipped: &Flipped) -> Result<()> {
    put(disk, dir, 0, &flipped.header)
}

/// Takes away the record at an offset and what is behind it in its area, durable when this returns.
pub(crate) fn cut(disk: &dyn Disk, dir: &Path, offset: u64) -> Result<()> {
    put(disk, dir, offset, &[0; RECORD_HEADER_BYTES])
}

fn put(disk: &dyn Disk, dir: &Path, offset: u64, bytes: &[u8]) -> Result<()> {
    let path = dir.join(NAME);
    let write = || -> io::Result<()> {
        let file = disk.open(&path, Access::Write)?;
        file.write_at(offset, bytes)?;
        file.sync()
    };
    write().map_err(|e| Error::io("mend the stage of the log", &path, e))
}

/// Takes the stage away, whose records are durable in the log.
pub(crate) fn remove(disk: &dyn Disk, dir: &Path) -> Result<()> {
    for path in [dir.join(NAME), dir.join(UNFINISHED)] {
        let removed = match disk.exists(&path) {
            Ok(true) => disk.remove(&path),
            looked => looked.map(|_| ()),
        };
        removed.map_err(|e| Error::io("remove the stage of the log", &path, e))?;
    }
    Ok(())
}

/// The records of a stage that its opening did not bring into the log.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    bytes: Vec<u8>,
    salt: u64,
    flipped: Option<Flipped>,
}

/// A staged event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    area: usize,
    /// Where it begins in the file.
    pub(crate) offset: usize,
    /// Behind which position its group began.
    behind: u64,
    /// The event's; of one in a lane's area as it comes from [`Staged::behind`].
    pub(crate) position: u64,
    pub(crate) event: &'a [u8],
}

impl Record<'_> {
    /// The event's time, with which its bytes begin; of what is no event the last there is.
    fn time(&self) -> i64 {
        self.event.first_chunk().map_or(i64::MAX, |time| i64::from_le_bytes(*time))
    }

    /// Where the next one of its area begins.
    fn end(&self) -> usize {
        self.offset + record_bytes(self.event.len())
    }
}

/// The bit that was turned back (invariant 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flipped {
    pub(crate) byte: u64,
    pub(crate) bit: u8,
    /// As it was before.
    pub(crate) header: [u8; HEADER_BYTES],
}

impl Staged {
    /// Reads the stage of `dir`; one that is not there has no records.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path, identity: u128) -> Result<Self> {
        let path = dir.join(NAME);
        let read = || -> io::Result<Option<Vec<u8>>> {
            let file = match disk.open(&path, Access::Read) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file?,
            };
            let mut bytes = vec![0; file.len()?.min(BYTES_MAX) as usize];
            file.read_at(0, &mut bytes)?;
            Ok(Some(bytes))
        };
        let bytes = read().map_err(|e| Error::io("read the stage of the log", &path, e))?;
        let Some(bytes) = bytes else { return Ok(Staged::default()) };
        if is_newer(&bytes) {
            let message = "the stage of the log was written by newer software; use that";
            return Err(Error::new(ErrorKind::NewerFormat, message).at(&path, None));
        }
        // It is made under another name and durable when it gets this one: this is no torn tail.
        let other = format_of(&bytes).is_some() && bytes[16..32] != identity.to_le_bytes();
        Staged::of(bytes, identity).ok_or_else(|| {
            let what = if other {
                "this stage is another directory's"
            } else {
                "the header of the stage is damaged"
            };
            let message = format!(
                "{what}; events that were acknowledged, and not synced yet, may have been in the one that \
                 belongs here: put that back, or have `quipu repair` put this aside, which is all there is \
                 to do if there were none"
            );
            Error::corruption(&path, 0, message)
        })
    }

    /// What the bytes of a stage of this directory say.
    pub(crate) fn of(mut bytes: Vec<u8>, identity: u128) -> Option<Self> {
        let found: [u8; HEADER_BYTES] = *bytes.first_chunk()?;
        let salt = u64::from_le_bytes(*found[32..].first_chunk()?);
        let area = u32::from_le_bytes(*found[40..].first_chunk()?);
        let salts = (0..64).map(|bit| (salt ^ 1 << bit, area));
        let areas = (0..32).map(|bit| (salt, area ^ 1 << bit));
        let all = std::iter::once((salt, area)).chain(salts).chain(areas);
        let (header, salt, wrong) = all.into_iter().find_map(|(salt, area)| {
            let right = header(identity, salt, area);
            let wrong = std::array::from_fn::<u8, HEADER_BYTES, _>(|at| found[at] ^ right[at]);
            let is_one_wrong = wrong.iter().map(|byte| byte.count_ones()).sum::<u32>() <= 1;
            is_one_wrong.then_some((right, salt, wrong))
        })?;
        let flipped = wrong.iter().position(|byte| *byte != 0).map(|at| Flipped {
            byte: at as u64,
            bit: wrong[at].trailing_zeros() as u8,
            header,
        });
        bytes[..HEADER_BYTES].copy_from_slice(&header);
        Some(Staged { bytes, salt, flipped })
    }

    /// The bit of the header that is another in the file.
    pub(crate) fn flipped(&self) -> Option<&Flipped> {
        self.flipped.as_ref()
    }

    /// The bytes of the stage with these of its records, which are the first ones of their areas, and those before them.
    pub(crate) fn image<'r>(&self, records: impl IntoIterator<Item = &'r Record<'r>>) -> Vec<u8> {
        let mut ends = [0; AREAS];
        for record in records {
            ends[record.area] = ends[record.area].max(record.end());
        }
        let mut image = self.bytes.get(..HEADER_BYTES).unwrap_or_default().to_vec();
        for (area, end) in ends.into_iter().enumerate() {
            let Range { start, .. } = self.range(area);
            if end > start {
                image.resize(start, 0);
                image.extend_from_slice(&self.bytes[start..end.min(self.bytes.len())]);
            }
        }
        image
    }

    /// Behind which positions the groups began that have records.
    pub(crate) fn groups(&self) -> BTreeSet<u64> {
        (0..AREAS).filter_map(|area| self.area(area).next()).map(|first| first.behind).collect()
    }

    /// What each area has behind `position` (invariant 2).
    pub(crate) fn areas_behind(&self, position: u64) -> [Vec<Record<'_>>; AREAS] {
        std::array::from_fn(|area| {
            let is_behind = |record: &Record<'_>| match area {
                0 => record.behind <= position && record.position > position,
                _ => record.behind == position,
            };
            self.area(area).filter(is_behind).collect()
        })
    }

    /// The records behind `position`, in the order in which they come into the log, with the positions that they have
    /// there (invariant 3).
    pub(crate) fn behind(&self, position: u64) -> Vec<Record<'_>> {
        let [mut all, lanes @ ..] = self.areas_behind(position);
        let times = lanes.each_ref().map(|lane| lane.iter().map(Record::time).collect::<Vec<_>>());
        let order = order_of(&times.each_ref().map(Vec::as_slice));
        let last = all.last().map_or(position, |last| last.position);
        for ((lane, row), position) in order.into_iter().zip(last.saturating_add(1)..) {
            all.push(Record { position, ..lanes[lane][row] });
        }
        all
    }

    /// The records that are lost when the one at an offset is [cut](cut) away, of a group that began behind a position.
    pub(crate) fn cut_off(&self, behind: u64, offset: usize) -> Vec<Record<'_>> {
        let mut all = self.behind(behind);
        let area = all.iter().find(|record| record.offset == offset).map(|record| record.area);
        all.retain(|record| Some(record.area) == area && record.offset >= offset);
        all
    }

    /// Where an area lies; that may be behind the end of the file.
    fn range(&self, area: usize) -> Range<usize> {
        let word = self.bytes.get(40..).and_then(|rest| rest.first_chunk());
        let bytes = u32::from_le_bytes(word.copied().unwrap_or_default()) as usize;
        let at = |areas: usize| bytes.saturating_mul(areas).saturating_add(HEADER_BYTES);
        at(area).min(self.bytes.len())..at(area + 1).min(self.bytes.len())
    }

    /// The records of an area, from its beginning on (invariant 1).
    fn area(&self, area: usize) -> impl Iterator<Item = Record<'_>> {
        let Range { start, end } = self.range(area);
        let mut rest = &self.bytes[start..end];
        let mut before: Option<Record<'_>> = None;
        let next = move || {
            let (header, events) = rest.split_first_chunk::<RECORD_HEADER_BYTES>()?;
            let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
            let (sum, behind) = (header.first_chunk()?, header[8..].first_chunk()?);
            let behind = u64::from_le_bytes(*behind);
            let event = events.get(..usize::from(half(4)))?;
            let whole = &rest[8..RECORD_HEADER_BYTES + event.len()];
            let length_and_place = u32::from_le_bytes(*header[4..].first_chunk()?);
            let is_valid = u32::from_le_bytes(*sum) == checksum(self.salt, length_and_place, whole);
            // (There is no position 0, and nothing follows the last one. What a stage may hold has room behind any
            // position of lanes.)
            let position = behind.checked_add(u64::from(half(6))).filter(|at| *at < u64::MAX)?;
            if area > 0 && behind > u64::MAX - BYTES_MAX {
                return None;
            }
            let record = Record { area, offset: end - rest.len(), behind, position, event };
            let follows = match before {
                None => area == 0 || position - behind == 1,
                Some(before) => before.behind == behind && before.position + 1 == position,
            };
            if !is_valid || position == behind || !follows {
                return None;
            }
            before = Some(record);
            rest = events.get(event.len().next_multiple_of(ALIGN)..).unwrap_or_default();
            Some(record)
        };
        std::iter::from_fn(next).fuse()
    }
}

fn header(identity: u128, salt: u64, area_bytes: u32) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[0..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    out[16..32].copy_from_slice(&identity.to_le_bytes());
    out[32..40].copy_from_slice(&salt.to_le_bytes());
    out[40..44].copy_from_slice(&area_bytes.to_le_bytes());
    let sum = checksum_of_header(&out);
    out[12..16].copy_from_slice(&sum);
    out
}

fn checksum_of_header(header: &[u8; HEADER_BYTES]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[0..12]);
    hasher.update(&header[16..44]);
    hasher.finalize().to_le_bytes()
}

/// Whether these are the bytes of a stage in a later format, which may hold what only a later version
/// can read. A damaged header says nothing.
fn is_newer(bytes: &[u8]) -> bool {
    format_of(bytes).is_some_and(|format| format > FORMAT)
}

/// The format that a whole header says, whosoever it is.
fn format_of(bytes: &[u8]) -> Option<u32> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
    let is_whole = header.starts_with(&MAGIC) && header[12..16] == checksum_of_header(header);
    is_whole.then(|| u32::from_le_bytes([8, 9, 10, 11].map(|at| header[at])))
}

/// The checksum of a record: of its length and place, and of what is behind these. Of so few bytes this one is had in a
/// third of the time that a CRC takes; and a number that is in the seed is not read again as part of a longer word
/// than it was written as, for which a processor would wait.
#[inline]
fn checksum(salt: u64, length_and_place: u32, rest: &[u8]) -> u32 {
    xxhash_rust::xxh3::xxh3_64_with_seed(rest, salt ^ u64::from(length_and_place)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;
    use crate::error::ErrorKind;

    fn stage(dir: &Path) -> [Area; AREAS] {
        Area::create_all(&OsDisk, dir, 7, 8_192).expect("made")
    }

    /// Puts an event at a position of the group that began behind another one.
    fn put(area: &mut Area, behind: u64, position: u64, event: &str) {
        assert!(area.has_room(event.len() as u64));
        let place = position.wrapping_sub(behind) as u16;
        area.draft(behind, place, |out| out.extend_from_slice(event.as_bytes()));
        area.put().expect("written");
    }

    fn read(dir: &Path, identity: u128, behind: u64) -> Vec<(u64, String)> {
        let staged = Staged::read(&OsDisk, dir, identity).expect("read");
        let text = |event: &[u8]| String::from_utf8(event.to_vec()).expect("a text");
        let records = staged.behind(behind).into_iter();
        records.map(|record| (record.position, text(record.event))).collect()
    }

    fn positions(dir: &Path, behind: u64) -> Vec<u64> {
        read(dir, 7, behind).into_iter().map(|(position, _)| position).collect()
    }

    #[test]
    fn records_behind_the_log_come_back() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(read(dir.path(), 7, 4).is_empty());
        let [area, ..] = &mut stage(dir.path());
        for (position, event) in [(5, "five"), (6, ""), (7, "seven, eight bytes and more")] {
            put(area, 4, position, event);
        }
        let all = read(dir.path(), 7, 4);
        assert_eq!(all[0], (5, "five".to_owned()));
        assert_eq!(positions(dir.path(), 4), [5, 6, 7]);
        assert_eq!(read(dir.path(), 7, 6), all[2..], "five and six are in the log");
        assert!(read(dir.path(), 7, 7).is_empty());
        assert!(read(dir.path(), 7, 3).is_empty(), "four was lost, and what follows it with it");
        let error = Staged::read(&OsDisk, dir.path(), 8).expect_err("another directory's");
        assert_eq!(error.kind(), ErrorKind::Corruption);
    }

    /// Puts an event of a time into a lane's area.
    fn put_timed(area: &mut Area, behind: u64, place: u16, time: i64) {
        area.draft(behind, place, |out| out.extend_from_slice(&time.to_le_bytes()));
        area.put().expect("written");
    }

    #[test]
    fn records_of_lanes_come_back_by_their_times_and_each_in_its_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut areas = stage(dir.path());
        // What another group has left in the areas is in the log.
        for area in &mut areas {
            (1..=8).for_each(|place| put_timed(area, 1, place, 5));
            area.clear();
        }
        // The time of the second one was set back.
        for (n, place, time) in [(1, 1, 30), (3, 1, 20), (1, 2, 10), (4, 1, 30), (3, 2, 40)] {
            put_timed(&mut areas[n], 10, place, time);
        }
        let staged = Staged::read(&OsDisk, dir.path(), 7).expect("read");
        let told = |staged: &Staged, behind| -> Vec<_> {
            let records = staged.behind(behind).into_iter();
            records.map(|record| (record.position, record.area, record.time())).collect()
        };
        let all = [(11, 3, 20), (12, 1, 30), (13, 1, 10), (14, 4, 30), (15, 3, 40)];
        assert_eq!(told(&staged, 10), all);
        for behind in [0, 9, 11, 15, 16] {
            assert!(told(&staged, behind).is_empty(), "behind {behind}");
        }
        assert!(staged.groups().into_iter().eq([1, 10]));
        for n in 0..=5 {
            let image = Staged::of(staged.image(&staged.behind(10)[..n]), 7).expect("a stage");
            assert_eq!(told(&image, 10), all[..n]);
        }
        let second = staged.behind(10)[1].offset;
        let lost: Vec<_> =
            staged.cut_off(10, second).iter().map(|record| record.position).collect();
        assert_eq!(lost, [12, 13]);
        cut(&OsDisk, dir.path(), second as u64).expect("cut");
        let staged = Staged::read(&OsDisk, dir.path(), 7).expect("read");
        assert_eq!(told(&staged, 10), [(11, 3, 20), (12, 4, 30), (13, 3, 40)]);
        // A group that is over says nothing.
        areas[0].clear();
        for (place, event) in [(1, "the next"), (2, "group")] {
            put(&mut areas[0], 15, 15 + place, event);
        }
        assert_eq!(positions(dir.path(), 15), [16, 17]);
    }

    #[test]
    fn a_record_of_a_position_that_there_is_not_is_none() {
        for (behind, positions, there) in [
            (0, [0, 1], 0),
            (u64::MAX - 1, [u64::MAX, 0], 0),
            (u64::MAX - 2, [u64::MAX - 1, u64::MAX], 1),
            (3, [5, 5], 1),
            (3, [5, 4], 1),
            (3, [5, 7], 1),
        ] {
            let dir = tempfile::tempdir().expect("a directory");
            let [area, ..] = &mut stage(dir.path());
            for position in positions {
                put(area, behind, position, "forged");
            }
            let staged = Staged::read(&OsDisk, dir.path(), 7).expect("read");
            assert_eq!(staged.area(0).count(), there, "{positions:?}");
        }
    }

    #[test]
    fn what_was_written_over_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let [area, ..] = &mut stage(dir.path());
        for position in 1..=9 {
            put(area, 0, position, "same length");
        }
        area.clear();
        put(area, 9, 10, "same length");
        assert_eq!(read(dir.path(), 7, 9).len(), 1);
        assert!(read(dir.path(), 7, 1).is_empty(), "two to nine are in the log, or lost");
        let again = super::tests::stage(dir.path());
        assert!(read(dir.path(), 7, 9).is_empty(), "another opening's: {again:?}");
    }

    #[test]
    fn an_area_has_no_room_for_more_than_is_its_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut areas = stage(dir.path());
        let event = "e".repeat(100);
        let mut each = Vec::new();
        for area in &mut areas {
            let mut place = 0;
            while area.has_room(100) {
                place += 1;
                put(area, 0, place, &event);
            }
            assert!(!area.has_room(96) && area.has_room(0));
            each.push(place as usize);
        }
        assert!(each.iter().all(|n| *n == (area_bytes(8_192) as usize) / record_bytes(100)));
        assert_eq!(read(dir.path(), 7, 0).len(), each.iter().sum::<usize>());
    }

    #[test]
    fn a_flipped_bit_ends_the_records() {
        let dir = tempfile::tempdir().expect("a directory");
        let [area, ..] = &mut stage(dir.path());
        for position in 1..=3 {
            put(area, 0, position, "twelve bytes");
        }
        let path = dir.path().join(NAME);
        let whole = std::fs::read(&path).expect("read");
        let record_bytes = RECORD_HEADER_BYTES + 16;
        for at in 0..HEADER_BYTES + 3 * record_bytes {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).expect("written");
            let kept = read(dir.path(), 7, 0).len();
            if at < HEADER_BYTES {
                assert_eq!(kept, 3, "{at}");
                continue;
            }
            let (record, place) =
                ((at - HEADER_BYTES) / record_bytes, (at - HEADER_BYTES) % record_bytes);
            // Behind the event there is padding only.
            assert_eq!(kept, if place >= 28 { 3 } else { record }, "{at}");
        }
    }

    #[test]
    fn each_bit_of_a_header_is_turned_back_and_two_are_not() {
        let dir = tempfile::tempdir().expect("a directory");
        put(&mut stage(dir.path())[0], 0, 1, "event");
        let path = dir.path().join(NAME);
        let whole = std::fs::read(&path).expect("read");
        for at in 0..HEADER_BYTES * 8 {
            let mut bytes = whole.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).expect("written");
            let staged = Staged::read(&OsDisk, dir.path(), 7).expect("mended");
            let flipped = *staged.flipped().expect("a flipped bit");
            assert_eq!((flipped.byte, flipped.bit), (at as u64 / 8, (at % 8) as u8));
            mend(&OsDisk, dir.path(), &flipped).expect("mended");
            assert!(std::fs::read(&path).expect("read") == whole);
            for other in (0..HEADER_BYTES * 8).step_by(5).filter(|other| *other != at) {
                let mut bytes = bytes.clone();
                bytes[other / 8] ^= 1 << (other % 8);
                assert!(Staged::of(bytes, 7).is_none(), "{at} and {other}");
            }
        }
        let staged = Staged::read(&OsDisk, dir.path(), 7).expect("read");
        assert_eq!(staged.flipped(), None);
        let error = Staged::read(&OsDisk, dir.path(), 6).expect_err("another directory's");
        assert!(error.to_string().contains("another directory's"), "by two bits: {error}");
    }

    #[test]
    fn a_stage_of_a_later_format_is_refused_and_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().expect("a directory");
        put(&mut stage(dir.path())[0], 0, 1, "event");
        let path = dir.path().join(NAME);
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[8] += 1;
        std::fs::write(&path, &bytes).expect("written");
        bytes[20] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        let error = Staged::read(&OsDisk, dir.path(), 7).expect_err("two flipped bits");
        assert_eq!(error.kind(), ErrorKind::Corruption, "no later format");
        bytes[20] ^= 1;
        let sum = checksum_of_header(bytes.first_chunk().expect("a header"));
        bytes[12..16].copy_from_slice(&sum);
        std::fs::write(&path, &bytes).expect("written");
        let error = Staged::read(&OsDisk, dir.path(), 7).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::NewerFormat, "{error}");
    }
}
