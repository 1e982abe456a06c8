//! MANIFEST: what makes a directory ours, and which segments of the log were ever made.
//!
//! ```text
//! offset size
//!  0      8   magic "QUIPUDIR"
//!  8      4   format version
//! 12      4   CRC-32 of bytes 0..12 and 16..56
//! 16     16   the directory's identity, random
//! 32      8   made at, microseconds since 1970
//! 40      8   the greatest number of a segment that was ever made
//! 48      8   zero
//! ```
//! Invariants
//! 1. It is replaced as a whole: written under another name, synced, renamed, the directory
//!    synced. So it is the old one or the new one after any crash.
//! 2. A segment is used only after the manifest names it; so a segment that is not there although
//!    the manifest names it (and the snapshot did not retire it) was lost, not never made.
//!
//! Next: `log/segment.rs`.

use crate::disk::{Access, Disk};
use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const MAGIC: [u8; 8] = *b"QUIPUDIR";
pub(crate) const FORMAT: u32 = 1;
pub(crate) const BYTES: usize = 56;
pub(crate) const NAME: &str = "MANIFEST";
pub(crate) const UNFINISHED: &str = "MANIFEST.new";

#[derive(Debug)]
pub(crate) struct Manifest {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    pub(crate) identity: u128,
    pub(crate) created: Timestamp,
    segments_made: Mutex<u64>,
}

impl Manifest {
    /// Writes the first manifest of a directory, durable when this returns.
    pub(crate) fn create(disk: Arc<dyn Disk>, dir: &Path, now: Timestamp) -> Result<Self> {
        // The time, should the system's own randomness repeat itself.
        let identity = disk.unique() ^ u128::from(now.micros() as u64);
        let dir = dir.to_owned();
        let manifest = Manifest { disk, dir, identity, created: now, segments_made: Mutex::new(0) };
        manifest.write(0)?;
        Ok(manifest)
    }

    /// Reads and checks the manifest. `None` when there is none.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(NAME);
        let file = match disk.open(&path, Access::Read) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|e| Error::io("open the manifest", &path, e))?,
        };
        let len = file.len().map_err(|e| Error::io("read the manifest", &path, e))?;
        let mut bytes = [0; BYTES];
        let present = (len as usize).min(BYTES);
        file.read_at(0, &mut bytes[..present])
            .map_err(|e| Error::io("read the manifest", &path, e))?;
        if present < 8 || bytes[..8] != MAGIC {
            return Err(Error::new(
                ErrorKind::NotQuipu,
                "this file is not a manifest of Quipu's, so the directory is not taken for ours; \
                 nothing was changed",
            )
            .at(&path, None));
        }
        let word = |at: usize| {
            let bytes = bytes[at..at + 8].try_into();
            u64::from_le_bytes(bytes.expect("eight bytes were asked for"))
        };
        // A later format may be longer; of this length the checksum tells damage from a format.
        let whole = len >= BYTES as u64 && bytes[12..16] == checksum(&bytes).to_le_bytes();
        let format = word(8) as u32;
        if format > FORMAT && (whole || len > BYTES as u64) {
            return Err(Error::new(
                ErrorKind::NewerFormat,
                format!(
                    "the directory has format {format}; this software knows formats up to \
                     {FORMAT}; use a newer one"
                ),
            )
            .at(&path, None));
        }
        if !whole || len != BYTES as u64 {
            return Err(Error::corruption(&path, 0, "the manifest is damaged"));
        }
        Ok(Some(Manifest {
            disk,
            dir: dir.to_owned(),
            identity: u128::from(word(16)) | u128::from(word(24)) << 64,
            created: Timestamp::from_micros(word(32) as i64),
            segments_made: Mutex::new(word(40)),
        }))
    }

    pub(crate) fn segments_made(&self) -> u64 {
        *self.segments_made.lock()
    }

    /// Notes that segment `number` exists, durable when this returns.
    pub(crate) fn note_segment(&self, number: u64) -> Result<()> {
        let mut made = self.segments_made.lock();
        if number > *made {
            self.write(number)?;
            *made = number;
        }
        Ok(())
    }

    fn write(&self, segments_made: u64) -> Result<()> {
        let mut bytes = [0; BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.identity.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.created.micros().to_le_bytes());
        bytes[40..48].copy_from_slice(&segments_made.to_le_bytes());
        let sum = checksum(&bytes);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        let (path, unfinished) = (self.dir.join(NAME), self.dir.join(UNFINISHED));
        let write = || {
            if self.disk.exists(&unfinished)? {
                self.disk.remove(&unfinished)?;
            }
            let file = self.disk.create(&unfinished)?;
            file.write_at(0, &bytes)?;
            file.sync()?;
            self.disk.rename(&unfinished, &path)?;
            self.disk.sync_dir(&self.dir)
        };
        write().map_err(|e| Error::io("write the manifest", &path, e))
    }
}

fn checksum(bytes: &[u8; BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    hasher.finalize()
}
