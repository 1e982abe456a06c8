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
//! 12      4   CRC-32 of bytes 0..12 and 16..40
//! 16     16   the directory's identity, as in MANIFEST
//! 32      8   salt, another for every opening
//! 40     24   zero
//! 64      -   records
//! ```
//! A record is `checksum (4) · length (4) · position (8) · event`, filled up with zeros to a multiple
//! of 8. The length is the event's; the checksum is CRC-32 of the salt, the length, the position and
//! the event ([`record::put_event`](crate::record::put_event)).
//!
//! Invariants
//! 1. Records lie from the beginning on, at consecutive positions. When they are in the log the next
//!    one is written over the first: what stands behind the last one is of no worth.
//! 2. The log comes first. Who reads the stage takes the records behind the log's last position, if the
//!    first of them is the next one, as far as they are valid and follow each other; any other record
//!    is in the log, or was lost together with what comes before it in a power cut.
//! 3. A position is given once in an opening, and every opening makes a stage of its own, with a salt
//!    of its own, durable before its first record: no record of another history is taken for one
//!    of this.
//! 4. All of a header but its salt is known beforehand, and its checksum is of the salt, too: a single
//!    flipped bit in it is turned back by whoever reads it ([`Staged::flipped`]).
//!
//! Next: `db/staging.rs`.

use crate::disk::{Access, Disk, File, Filling};
use crate::error::{Error, ErrorKind, Result};
use std::io;
use std::path::{Path, PathBuf};

/// The file, in the directory itself.
pub(crate) const NAME: &str = "STAGE";
/// Under this name it is made.
pub(crate) const UNFINISHED: &str = "STAGE.new";
pub(crate) const MAGIC: [u8; 8] = *b"QUIPUSTG";
pub(crate) const FORMAT: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 64;
/// Bytes of a record before its event.
pub(crate) const RECORD_HEADER_BYTES: usize = 16;
/// No stage is longer than this.
const BYTES_MAX: u64 = 1 << 20;
const ALIGN: usize = 8;

/// The stage of this opening.
#[derive(Debug)]
pub(crate) struct Stage {
    file: Box<dyn File>,
    path: PathBuf,
    /// Of the salt: with it the checksum of every record begins.
    salted: crc32fast::Hasher,
    bytes: u64,
    /// Where the next record goes.
    at: u64,
    /// Reused for every record.
    record: Vec<u8>,
}

impl Stage {
    /// Makes the stage of an opening, of so many bytes, durable when this returns. What an earlier opening left is in the
    /// log by now, and gone then.
    pub(crate) fn create(disk: &dyn Disk, dir: &Path, identity: u128, bytes: u64) -> Result<Self> {
        let (path, unfinished) = (dir.join(NAME), dir.join(UNFINISHED));
        let salt = disk.unique() as u64;
        let make = || -> io::Result<Box<dyn File>> {
            if disk.exists(&unfinished)? {
                disk.remove(&unfinished)?;
            }
            let file = disk.prepare(&unfinished, bytes, Filling::Reserved)?;
            file.write_at(0, &header(identity, salt))?;
            file.sync()?;
            disk.rename(&unfinished, &path)?;
            disk.sync_dir(dir)?;
            Ok(file)
        };
        let file = make().map_err(|e| Error::io("make the stage of the log", &path, e))?;
        let (salted, at) = (salted(checksum_of_salt(salt)), HEADER_BYTES as u64);
        Ok(Stage { file, path, salted, bytes, at, record: Vec::new() })
    }

    /// Whether the record of an event of at most so many bytes fits behind those that are there.
    #[inline]
    pub(crate) fn has_room(&self, event_bytes: u64) -> bool {
        self.at + record_bytes(event_bytes as usize) as u64 <= self.bytes
    }

    /// Begins the record of the event at a position; `write` appends the event's bytes. [`put`](Stage::put) is best
    /// called some moments later: until then it would wait for bytes that were written one by one.
    #[inline]
    pub(crate) fn draft(&mut self, position: u64, write: impl FnOnce(&mut Vec<u8>)) {
        self.record.clear();
        self.record.extend_from_slice(&[0; 8]);
        self.record.extend_from_slice(&position.to_le_bytes());
        write(&mut self.record);
        let event_bytes = (self.record.len() - RECORD_HEADER_BYTES) as u32;
        self.record[4..8].copy_from_slice(&event_bytes.to_le_bytes());
    }

    /// Writes the drafted record, which there is room for. On an error it is not there, or not acknowledged.
    #[inline]
    pub(crate) fn put(&mut self) -> Result<()> {
        let checksum = checksum(self.salted.clone(), &self.record[4..]);
        self.record[0..4].copy_from_slice(&checksum.to_le_bytes());
        self.record.resize(self.record.len().next_multiple_of(ALIGN), 0);
        self.file
            .write_alone(self.at, &self.record)
            .map_err(|e| Error::io("write to the stage of the log", &self.path, e))?;
        self.at += self.record.len() as u64;
        Ok(())
    }

    /// All records are in the log.
    pub(crate) fn clear(&mut self) {
        self.at = HEADER_BYTES as u64;
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

/// Takes away the record at an offset and what is behind it, durable when this returns.
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
    salt_checksum: u32,
    flipped: Option<Flipped>,
}

/// The bit that was turned back (invariant 4).
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
        let salts = (0..64).map(|bit| salt ^ 1 << bit);
        let (salt, wrong) = std::iter::once(salt).chain(salts).find_map(|salt| {
            let right = header(identity, salt);
            let wrong = std::array::from_fn::<u8, HEADER_BYTES, _>(|at| found[at] ^ right[at]);
            (wrong.iter().map(|byte| byte.count_ones()).sum::<u32>() <= 1).then_some((salt, wrong))
        })?;
        let header = header(identity, salt);
        let flipped = wrong.iter().position(|byte| *byte != 0).map(|at| Flipped {
            byte: at as u64,
            bit: wrong[at].trailing_zeros() as u8,
            header,
        });
        bytes[..HEADER_BYTES].copy_from_slice(&header);
        Some(Staged { bytes, salt_checksum: checksum_of_salt(salt), flipped })
    }

    /// The bit of the header that is another in the file.
    pub(crate) fn flipped(&self) -> Option<&Flipped> {
        self.flipped.as_ref()
    }

    /// The bytes of the stage up to the record of this position.
    pub(crate) fn upto(&self, position: u64) -> &[u8] {
        let records = self.records().take_while(|(at, _)| *at <= position);
        let bytes = |(_, event): (u64, &[u8])| record_bytes(event.len());
        let end = HEADER_BYTES + records.map(bytes).sum::<usize>();
        &self.bytes[..end.min(self.bytes.len())]
    }

    /// The position of the first record.
    pub(crate) fn begins(&self) -> Option<u64> {
        self.records().next().map(|(at, _)| at)
    }

    /// The events behind `position` (invariant 2), with their positions.
    pub(crate) fn behind(&self, position: u64) -> impl Iterator<Item = (u64, &[u8])> {
        let begins = self.begins().is_some_and(|first| first <= position + 1);
        let behind = move |(at, _): &(u64, &[u8])| begins && *at > position;
        self.records().filter(behind)
    }

    /// The records from the beginning on (invariant 1).
    fn records(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut rest = self.bytes.get(HEADER_BYTES..).unwrap_or_default();
        let mut before = None;
        let next = move || {
            let (header, behind) = rest.split_first_chunk::<RECORD_HEADER_BYTES>()?;
            let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| header[at + i]));
            let at = u64::from(word(8)) | u64::from(word(12)) << 32;
            let event = behind.get(..word(4) as usize)?;
            let whole = &rest[4..RECORD_HEADER_BYTES + event.len()];
            let is_valid = word(0) == checksum(salted(self.salt_checksum), whole);
            // (There is no position 0, and nothing follows the last one.)
            if !is_valid
                || matches!(at, 0 | u64::MAX)
                || before.is_some_and(|before: u64| before.checked_add(1) != Some(at))
            {
                return None;
            }
            before = Some(at);
            rest = behind.get(event.len().next_multiple_of(ALIGN)..).unwrap_or_default();
            Some((at, event))
        };
        std::iter::from_fn(next).fuse()
    }
}

fn header(identity: u128, salt: u64) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[0..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    out[16..32].copy_from_slice(&identity.to_le_bytes());
    out[32..40].copy_from_slice(&salt.to_le_bytes());
    let sum = checksum_of_header(&out);
    out[12..16].copy_from_slice(&sum);
    out
}

fn checksum_of_header(header: &[u8; HEADER_BYTES]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[0..12]);
    hasher.update(&header[16..40]);
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

fn checksum_of_salt(salt: u64) -> u32 {
    crc32fast::hash(&salt.to_le_bytes())
}

fn salted(of_salt: u32) -> crc32fast::Hasher {
    crc32fast::Hasher::new_with_initial(of_salt)
}

/// The checksum of a record, which is given without it.
#[inline]
fn checksum(mut salted: crc32fast::Hasher, record: &[u8]) -> u32 {
    salted.update(record);
    salted.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;
    use crate::error::ErrorKind;

    fn stage(dir: &Path) -> Stage {
        Stage::create(&OsDisk, dir, 7, 4_096).expect("made")
    }

    fn put(stage: &mut Stage, position: u64, event: &str) {
        assert!(stage.has_room(event.len() as u64));
        stage.draft(position, |out| out.extend_from_slice(event.as_bytes()));
        stage.put().expect("written");
    }

    fn read(dir: &Path, identity: u128, behind: u64) -> Vec<(u64, String)> {
        let staged = Staged::read(&OsDisk, dir, identity).expect("read");
        let text = |event: &[u8]| String::from_utf8(event.to_vec()).expect("a text");
        staged.behind(behind).map(|(at, event)| (at, text(event))).collect()
    }

    #[test]
    fn records_behind_the_log_come_back() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(read(dir.path(), 7, 4).is_empty());
        let mut stage = stage(dir.path());
        for (position, event) in [(5, "five"), (6, ""), (7, "seven, eight bytes and more")] {
            put(&mut stage, position, event);
        }
        let all = read(dir.path(), 7, 4);
        assert_eq!(all[0], (5, "five".to_owned()));
        assert_eq!(all.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [5, 6, 7]);
        assert_eq!(read(dir.path(), 7, 6), all[2..], "five and six are in the log");
        assert!(read(dir.path(), 7, 7).is_empty());
        assert!(read(dir.path(), 7, 3).is_empty(), "four was lost, and what follows it with it");
        let error = Staged::read(&OsDisk, dir.path(), 8).expect_err("another directory's");
        assert_eq!(error.kind(), ErrorKind::Corruption);
    }

    #[test]
    fn a_record_of_a_position_that_there_is_not_is_none() {
        for (positions, there) in [([0, 1], 0), ([u64::MAX, 0], 0), ([u64::MAX - 1, u64::MAX], 1)] {
            let dir = tempfile::tempdir().expect("a directory");
            let mut stage = stage(dir.path());
            for position in positions {
                put(&mut stage, position, "forged");
            }
            let staged = Staged::read(&OsDisk, dir.path(), 7).expect("read");
            assert_eq!(staged.records().count(), there, "{positions:?}");
        }
    }

    #[test]
    fn what_was_written_over_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut stage = stage(dir.path());
        for position in 1..=9 {
            put(&mut stage, position, "same length");
        }
        stage.clear();
        put(&mut stage, 10, "same length");
        assert_eq!(read(dir.path(), 7, 9).len(), 1);
        assert!(read(dir.path(), 7, 1).is_empty(), "two to nine are in the log, or lost");
        let again = super::tests::stage(dir.path());
        assert!(read(dir.path(), 7, 9).is_empty(), "another opening's: {again:?}");
    }

    #[test]
    fn a_flipped_bit_ends_the_records() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut stage = stage(dir.path());
        for position in 1..=3 {
            put(&mut stage, position, "twelve bytes");
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
        put(&mut stage(dir.path()), 1, "event");
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
        put(&mut stage(dir.path()), 1, "event");
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
