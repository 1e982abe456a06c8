//! MANIFEST: what makes a directory ours, and which segments of the log were ever made.
//!
//! ```text
//! offset size
//!  0      8   magic "QUIPUDIR"
//!  8      4   format version
//! 12      4   CRC-32 of bytes 0..12 and 16..64
//! 16     16   the directory's identity, random
//! 32      8   made at, microseconds since 1970
//! 40      8   the greatest number of a segment that was ever made
//! 48      8   the store of the snapshot: zero for redb's, else a name, and zeros behind it
//! 56      8   fork, zero where there is none (invariant 4)
//! ```
//! Invariants
//! 1. It is replaced as a whole: written under another name, synced, renamed, the directory
//!    synced. So it is the old one or the new one after any crash.
//! 2. A segment is used only after the manifest names it; so a segment that is not there although
//!    the manifest names it (and the snapshot did not retire it) was lost, not never made.
//! 3. One store at a time has the snapshot. What another one has is of an earlier time, and is not
//!    looked at.
//! 4. The replica of the manifest is that of the identity, or, with a fork, XXH3-128 of identity and fork.
//!    Where it has not recorded anything yet, what is recorded next is of it: the log says so in front of
//!    that. Whoever brings the directory back to an earlier state, or gives up records, forks it before:
//!    positions may be given again then, and must not be under the same id.
//!
//! Next: `log/segment.rs`; what makes a directory a backup is in `manifest/backup.rs`.

pub(crate) mod backup;

use crate::disk::{Access, Disk};
use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const MAGIC: [u8; 8] = *b"QUIPUDIR";
pub(crate) const FORMAT: u32 = 1;
pub(crate) const BYTES: usize = 64;
pub(crate) const NAME: &str = "MANIFEST";
pub(crate) const UNFINISHED: &str = "MANIFEST.new";

#[derive(Debug)]
pub(crate) struct Manifest {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    pub(crate) identity: u128,
    pub(crate) created: Timestamp,
    state: Mutex<State>,
}

/// What changes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) segments_made: u64,
    pub(crate) store: StoreName,
    pub(crate) fork: u64,
}

/// Which store has the directory's snapshot, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreName([u8; 8]);

impl StoreName {
    /// The one that a directory has by itself.
    pub(crate) const REDB: StoreName = StoreName([0; 8]);

    /// The name of a store that a program brings along, if it can be one.
    pub(crate) fn of_guest(name: &str) -> Option<Self> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        let mut bytes = [0; 8];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        let is_name = !name.is_empty() && name.bytes().all(fits) && name != "redb";
        is_name.then_some(StoreName(bytes))
    }
}

impl std::fmt::Display for StoreName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == StoreName::REDB {
            return f.write_str("redb");
        }
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        f.write_str(&self.0[..end].escape_ascii().to_string())
    }
}

impl Manifest {
    /// Writes the first manifest of a directory, durable when this returns.
    pub(crate) fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        store: StoreName,
        now: Timestamp,
    ) -> Result<Self> {
        // The time, should the system's own randomness repeat itself.
        let identity = disk.unique() ^ u128::from(now.micros() as u64);
        let manifest =
            Manifest::rebuilt(disk, dir, identity, now, State { segments_made: 0, store, fork: 0 });
        manifest.write()?;
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
        // A later format may be longer; of this length the checksum tells damage from a format.
        let whole = len >= BYTES as u64 && is_whole(&bytes);
        let format = word(&bytes, 8) as u32;
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
        Ok(Some(Manifest::decode(disk, dir, &bytes)))
    }

    fn decode(disk: Arc<dyn Disk>, dir: &Path, bytes: &[u8; BYTES]) -> Self {
        Manifest {
            disk,
            dir: dir.to_owned(),
            identity: u128::from(word(bytes, 16)) | u128::from(word(bytes, 24)) << 64,
            created: Timestamp::from_micros(word(bytes, 32) as i64),
            state: Mutex::new(State {
                segments_made: word(bytes, 40),
                store: StoreName(word(bytes, 48).to_le_bytes()),
                fork: word(bytes, 56),
            }),
        }
    }

    /// The manifest as it was before exactly one bit of it flipped, if that is its damage.
    pub(crate) fn mended(disk: Arc<dyn Disk>, dir: &Path) -> Option<Self> {
        let file = disk.open(&dir.join(NAME), Access::Read).ok()?;
        let mut bytes = [0; BYTES];
        file.len().ok().filter(|len| *len == BYTES as u64)?;
        file.read_at(0, &mut bytes).ok()?;
        for bit in 0..BYTES * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            if bytes[..8] == MAGIC && word(&bytes, 8) as u32 <= FORMAT && is_whole(&bytes) {
                return Some(Manifest::decode(disk, dir, &bytes));
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        None
    }

    /// A manifest of what the rest of the directory says. It is not written.
    pub(crate) fn rebuilt(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: u128,
        created: Timestamp,
        state: State,
    ) -> Self {
        Manifest { disk, dir: dir.to_owned(), identity, created, state: Mutex::new(state) }
    }

    /// Writes it as it is, durable when this returns.
    pub(crate) fn write(&self) -> Result<()> {
        self.put(*self.state.lock())
    }

    /// The replica that records next, if it has not recorded yet (invariant 3).
    pub(crate) fn replica(&self) -> u128 {
        match self.state.lock().fork {
            0 => self.identity,
            fork => {
                let seed = [&self.identity.to_le_bytes()[..], &fork.to_le_bytes()].concat();
                xxhash_rust::xxh3::xxh3_128(&seed)
            }
        }
    }

    /// Lets the directory go on as another replica, durable when this returns.
    pub(crate) fn fork(&self) -> Result<()> {
        self.change(|state| state.fork = fork_of(&*self.disk, state.fork))
    }

    /// Writes the manifest that this directory had, and has again now that it is restored, as another
    /// replica.
    pub(crate) fn restore(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: u128,
        created: Timestamp,
        segments_made: u64,
    ) -> Result<()> {
        let fork = fork_of(&*disk, 0);
        let state = State { segments_made, store: StoreName::REDB, fork };
        Manifest::rebuilt(disk, dir, identity, created, state).write()
    }

    pub(crate) fn segments_made(&self) -> u64 {
        self.state.lock().segments_made
    }

    /// The store that has the directory's snapshot.
    pub(crate) fn store(&self) -> StoreName {
        self.state.lock().store
    }

    /// Notes that segment `number` exists, durable when this returns.
    pub(crate) fn note_segment(&self, number: u64) -> Result<()> {
        self.change(|state| state.segments_made = state.segments_made.max(number))
    }

    /// Notes that the snapshot is in this store from now on, durable when this returns.
    pub(crate) fn note_store(&self, store: StoreName) -> Result<()> {
        self.change(|state| state.store = store)
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = self.state.lock();
        let mut changed = *state;
        change(&mut changed);
        if changed != *state {
            self.put(changed)?;
            *state = changed;
        }
        Ok(())
    }

    fn put(&self, state: State) -> Result<()> {
        let mut bytes = [0; BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.identity.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.created.micros().to_le_bytes());
        bytes[40..48].copy_from_slice(&state.segments_made.to_le_bytes());
        bytes[48..56].copy_from_slice(&state.store.0);
        bytes[56..64].copy_from_slice(&state.fork.to_le_bytes());
        let sum = checksum(&bytes);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        replace(&*self.disk, &self.dir, (NAME, UNFINISHED), &bytes)
            .map_err(|e| Error::io("write the manifest", &self.dir.join(NAME), e))
    }
}

/// A fork that no other directory of the same identity has; another one than before in any case.
fn fork_of(disk: &dyn Disk, before: u64) -> u64 {
    let unique = disk.unique();
    ((unique ^ unique >> 64) as u64 ^ before.rotate_left(1)).max(1)
}

/// Replaces a file as a whole (invariant 1); it is made under the second name.
fn replace(disk: &dyn Disk, dir: &Path, names: (&str, &str), bytes: &[u8]) -> io::Result<()> {
    let (path, unfinished) = (dir.join(names.0), dir.join(names.1));
    let file = if disk.exists(&unfinished)? {
        let file = disk.open(&unfinished, Access::Write)?;
        file.set_len(0)?;
        file
    } else {
        disk.create(&unfinished)?.into()
    };
    file.write_at(0, bytes)?;
    file.sync()?;
    disk.rename(&unfinished, &path)?;
    disk.sync_dir(dir)
}

fn word(bytes: &[u8; BYTES], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were asked for"))
}

fn is_whole(bytes: &[u8; BYTES]) -> bool {
    bytes[12..16] == checksum(bytes).to_le_bytes()
}

fn checksum(bytes: &[u8; BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    hasher.finalize()
}
