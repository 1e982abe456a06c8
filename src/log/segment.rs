//! Segments: the files of the log, named by number, each readable alone.
//!
//! ```text
//! offset size
//!  0      8   magic "QUIPULOG"
//!  8      4   format version
//! 12      4   CRC-32 of bytes 0..12 and 16..64
//! 16      8   the segment's number, from 1; also its name: log/0000000001.qlog
//! 24      8   salt, another in every segment
//! 32     16   the directory's identity, as in MANIFEST
//! 48      8   made at, microseconds since 1970
//! 56      8   zero
//! 64      -   frames, then zeros
//! ```
//! Named by number and not by first position: the next segment is made, filled with zeros and
//! synced with its directory in the background, before anybody can know where it will begin; going
//! on to it then costs the recording caller no file operation at all.
//!
//! Next: `writer.rs`.

use super::Home;
use crate::disk::{self, Access, Disk, File};
use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const MAGIC: [u8; 8] = *b"QUIPULOG";
pub(crate) const FORMAT: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 64;
const EXTENSION: &str = ".qlog";

#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    /// The file's length when it was made or opened.
    pub(crate) bytes: u64,
}

/// The file name of a segment.
pub(crate) fn name(number: u64) -> String {
    format!("{number:010}{EXTENSION}")
}

/// The numbers of the segments in `dir`, ascending. Other files are not ours to judge.
pub(crate) fn numbers(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>> {
    let names = match disk.list(dir) {
        // Then no segment is there; whoever needs one says which.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(|e| Error::io("list the log", dir, e))?,
    };
    let number = |text: &String| {
        let number = text.strip_suffix(EXTENSION)?.parse().ok()?;
        // Each number has one name.
        (name(number) == *text).then_some(number)
    };
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A file with the name of a segment that there is no such segment of.
#[derive(Clone, Debug)]
pub(crate) struct Stray {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    /// The segment of this directory that it is.
    pub(crate) ours: Option<u64>,
    pub(crate) what: String,
}

/// The files that have no place in the log: before its oldest segment, or behind the last one that
/// was `made`, and not what their names say. One that lies between has taken the place of a segment;
/// whoever opens that finds it.
pub(crate) fn strays(home: &Home, oldest: u64, made: u64) -> Result<Vec<Stray>> {
    let mut strays = Vec::new();
    for number in numbers(&*home.disk, &home.dir)? {
        if (oldest..=made).contains(&number) {
            continue;
        }
        let path = home.dir.join(name(number));
        let header = RawHeader::of(&*home.disk, &path)?.filter(RawHeader::is_whole);
        let away = "it has no place here: move it away, or let `quipu repair` put it aside";
        let (ours, what) = match header {
            Some(header) if header.identity() != home.identity => {
                let number = header.number();
                (None, format!("this file is segment {number} of another directory; {away}"))
            }
            Some(header) if header.number() != number => {
                let number = header.number();
                let what = format!(
                    "this file is segment {number} of this directory; {away}, or, if that is \
                     missing, rename it to {}",
                    name(number)
                );
                (Some(number), what)
            }
            // The last one may have been made and not been named in the manifest.
            None if number > made.saturating_add(1) => {
                let what = format!("{made} is the last segment that was made; {away}");
                (None, what)
            }
            _ => continue,
        };
        strays.push(Stray { number, path, ours, what });
    }
    Ok(strays)
}

impl Segment {
    /// Makes segment `number` with room for `bytes`, durable when this returns.
    pub(crate) fn create(home: &Home, number: u64, bytes: u64, now: Timestamp) -> Result<Self> {
        let Home { disk, dir, identity, .. } = home;
        let path = dir.join(name(number));
        let fail = |e| Error::io("make a segment of the log", &path, e);
        // Prepared under another name: a file of this one is whole, whenever the power fails.
        let unfinished = dir.join(format!("{number:010}.new"));
        if disk.exists(&unfinished).map_err(fail)? {
            disk.remove(&unfinished).map_err(fail)?;
        }
        let file = disk.prepare(&unfinished, bytes, home.filling).map_err(fail)?;
        let salt = salt_of(*identity, number, now.micros());
        file.write_at(0, &header(*identity, number, salt, now.micros())).map_err(fail)?;
        file.sync().map_err(fail)?;
        disk.rename(&unfinished, &path).map_err(fail)?;
        disk.sync_dir(dir).map_err(fail)?;
        Ok(Segment { number, salt, path, file: file.into(), bytes })
    }

    /// Opens segment `number` and checks its header.
    pub(crate) fn open(home: &Home, number: u64, access: Access) -> Result<Self> {
        let identity = home.identity;
        let segment = Segment::unchecked(home, number, access)?;
        let Segment { path, bytes, .. } = &segment;
        if *bytes < HEADER_BYTES as u64 {
            return Err(Error::corruption(path, *bytes, "the segment ends inside its header"));
        }
        let header = segment.header()?;
        let word = |at: usize| {
            let bytes = header[at..at + 8].try_into();
            u64::from_le_bytes(bytes.expect("eight bytes were asked for"))
        };
        if header[0..8] != MAGIC || header[12..16] != checksum(&header).to_le_bytes() {
            return Err(Error::corruption(path, 0, "the segment's header is damaged"));
        }
        let format = word(8) as u32;
        if format > FORMAT {
            let message = format!(
                "the segment has format {format}; this software knows formats up to {FORMAT}; \
                 use a newer one"
            );
            return Err(Error::new(ErrorKind::NewerFormat, message).at(path, None));
        }
        if word(16) != number || header[32..48] != identity.to_le_bytes() {
            return Err(Error::corruption(
                path,
                16,
                format!(
                    "this file is segment {} of {}; segment {number} of this directory belongs \
                     here",
                    word(16),
                    if header[32..48] == identity.to_le_bytes() {
                        "this directory"
                    } else {
                        "another directory"
                    }
                ),
            ));
        }
        Ok(Segment { salt: word(24), ..segment })
    }

    /// Opens segment `number`, whatever its header says; its salt is left to the caller.
    pub(crate) fn unchecked(home: &Home, number: u64, access: Access) -> Result<Self> {
        let path = home.dir.join(name(number));
        let fail = |e| Error::io("open a segment of the log", &path, e);
        let file = match home.disk.open(&path, access) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(missing(&path)),
            opened => opened.map_err(fail)?,
        };
        let bytes = file.len().map_err(fail)?;
        Ok(Segment { number, salt: 0, path, file, bytes })
    }

    /// The bytes of its header.
    pub(crate) fn header(&self) -> Result<[u8; HEADER_BYTES]> {
        read_header(&*self.file, &self.path)
    }
}

fn read_header(file: &dyn File, path: &Path) -> Result<[u8; HEADER_BYTES]> {
    let mut header = [0; HEADER_BYTES];
    disk::read(file, 0, &mut header)
        .map_err(|unread| unread.told("read a segment's header", path))?;
    Ok(header)
}

/// The header of a segment as it stands, whether it can be opened or not.
pub(crate) struct RawHeader([u8; HEADER_BYTES]);

impl RawHeader {
    /// That of the file at `path`; `None` where it is shorter than that, or has been retired.
    pub(crate) fn of(disk: &dyn Disk, path: &Path) -> Result<Option<Self>> {
        let fail = |e| Error::io("read a segment's header", path, e);
        let file = match disk.open(path, Access::Read) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(fail)?,
        };
        if file.len().map_err(fail)? < HEADER_BYTES as u64 {
            return Ok(None);
        }
        Ok(Some(RawHeader(read_header(&*file, path)?)))
    }

    /// Whether the header is intact after all: that of a segment which does not belong here.
    pub(crate) fn is_whole(&self) -> bool {
        self.0[0..8] == MAGIC && self.0[12..16] == checksum(&self.0).to_le_bytes()
    }

    fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight bytes were asked for"))
    }

    /// The number of the segment.
    pub(crate) fn number(&self) -> u64 {
        self.word(16)
    }

    pub(super) fn salt(&self) -> u64 {
        self.word(24)
    }

    /// The time of making, in microseconds.
    pub(crate) fn made_at(&self) -> i64 {
        self.word(48) as i64
    }

    /// The identity of the directory that the segment belongs to.
    pub(crate) fn identity(&self) -> u128 {
        u128::from(self.word(32)) | u128::from(self.word(40)) << 64
    }

    /// The salts that the segment `number` of this directory may have had, to be proved by a frame:
    /// the one that follows from the time of making, and the one that stands there, if the rest of
    /// the header is that of this segment.
    pub(super) fn salts(&self, identity: u128, number: u64) -> [Option<u64>; 2] {
        let ours = self.number() == number && self.identity() == identity;
        [Some(salt_of(identity, number, self.made_at())), ours.then(|| self.salt())]
    }
}

pub(crate) fn missing(path: &Path) -> Error {
    Error::new(
        ErrorKind::MissingSegment,
        "this segment of the log is missing; put it back from a backup, for without it records \
         would be lost silently",
    )
    .at(path, None)
}

/// The salt of a segment that is made.
pub(super) fn salt_of(identity: u128, number: u64, made_at: i64) -> u64 {
    let seed = [&identity.to_le_bytes()[..], &number.to_le_bytes(), &made_at.to_le_bytes()];
    xxhash_rust::xxh3::xxh3_64(&seed.concat())
}

/// The bytes of a segment's header.
pub(super) fn header(identity: u128, number: u64, salt: u64, made_at: i64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[16..24].copy_from_slice(&number.to_le_bytes());
    header[24..32].copy_from_slice(&salt.to_le_bytes());
    header[32..48].copy_from_slice(&identity.to_le_bytes());
    header[48..56].copy_from_slice(&made_at.to_le_bytes());
    let sum = checksum(&header);
    header[12..16].copy_from_slice(&sum.to_le_bytes());
    header
}

fn checksum(header: &[u8; HEADER_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..12]);
    hasher.update(&header[16..]);
    hasher.finalize()
}
