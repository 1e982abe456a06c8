//! The file seam: every file operation of the engine goes through [`Disk`] and [`File`].
//!
//! Invariants
//! 1. `write_at` is visible to later reads of the process, and to other processes after the death
//!    of this one, when it returns; it is durable only after `sync`.
//! 2. A name made by `create` or `rename`, or taken away by `remove`, is durable only after
//!    `sync_dir` of its directory.
//! 3. `prepare` gives a file of zeros whose every block is allocated and which is durable together
//!    with its name; writing inside it needs no new space and changes no length. (File systems that
//!    copy on write, and compress zeros, promise less: there a full disk can show in a mapped write.)
//! 4. The lock of a file ([`hold`]) is for processes that share it: who reads it while another one may
//!    write. The death of a process gives it back.
//! 5. Nothing is mapped for reading: a sector that cannot be read is an error with its place
//!    ([`Unread`]), where touching a mapped one would end the process.
//!
//! The real disk makes small writes to a prepared file through a memory map: what is copied there
//! survives the process without a system call, and `fdatasync` makes it survive the power. A sync
//! write-protects every page that is mapped and dirty, one by one, with an interrupt for every
//! processor; so only a window of a segment is mapped, and writes of some pages go through the
//! system. (The stage, which is never synced while it is written, has a map for each of its areas.)
//! Where the system gives no map, positioned writes serve.
//!
//! Zeros are written where each record waits for its sync ([`Filling::Written`]): a later sync then
//! has no change of the file's layout to write (0.11 ms in place of 0.17). Where syncs are rare the
//! blocks are only reserved, which halves what goes to the disk.

#[cfg(feature = "simulation")]
pub(crate) mod simulated;

use crate::error::Error;
use parking_lot::Mutex;
use std::fmt::Debug;
use std::fs;
use std::hash::BuildHasher;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

pub(crate) trait Disk: Debug + Send + Sync {
    /// Names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Whether there is anything at `path`.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Makes one directory; that above it must be there.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// A new, empty file for reading and writing; it must not exist.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// An existing file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Takes the lock of the file. `None` when somebody holds it who does not share it. It is made if
    /// missing, but for [`Sharing::Readers`], who need not be able to write it. Who holds it alone may
    /// remove the file.
    fn lock(&self, path: &Path, sharing: Sharing) -> io::Result<Option<Lock>>;
    /// A new, empty file that has no name and vanishes with its last handle.
    fn scratch(&self) -> io::Result<Arc<dyn File>>;
    /// A number that is given once.
    fn unique(&self) -> u128;

    /// Makes a directory and those above it that are missing. All of their names are durable when
    /// this returns, also where a process that died had made them and not synced.
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut dirs: Vec<&Path> =
            dir.ancestors().filter(|path| path.file_name().is_some()).collect();
        dirs.reverse();
        for path in dirs {
            let there = self.exists(path)?;
            match if there { Ok(()) } else { self.make_dir(path) } {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
            match (self.sync_dir(parent(path)), there) {
                // Where we may not read, or where directories are not synced, it was hardly one of
                // us who made it.
                (Err(e), true) if NOT_OURS.contains(&e.kind()) => {}
                (synced, _) => synced?,
            }
        }
        Ok(())
    }

    /// A new file of `len` zeros (invariant 3).
    fn prepare(&self, path: &Path, len: u64, filling: Filling) -> io::Result<Box<dyn File>> {
        let file = self.create(path)?;
        let durable = file.fill(len, filling).and_then(|()| self.sync_dir(parent(path)));
        if let Err(e) = durable {
            // A half-made file would only hold the space that is missing.
            let _ = self.remove(path);
            return Err(e);
        }
        Ok(file)
    }
}

/// What the sync of a directory above ours may answer.
const NOT_OURS: [io::ErrorKind; 4] = [
    io::ErrorKind::PermissionDenied,
    io::ErrorKind::InvalidInput,
    io::ErrorKind::Unsupported,
    io::ErrorKind::ReadOnlyFilesystem,
];

/// The directory that holds the name `path`.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// How the zeros of a prepared file come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filling {
    /// Written: the fastest syncs later.
    Written,
    /// Reserved by the file system, written where it cannot.
    Reserved,
}

/// What an opened file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

pub(crate) trait File: Debug + Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// Reads some bytes, 0 at the end of the file. It may read less than there is, and be
    /// `Interrupted`.
    fn read_some(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;
    /// Writes some of the bytes, as `read_some` reads them.
    fn write_some(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;
    /// A range of a prepared file in memory, where writing takes the least: for who is the only one that writes
    /// there. `None`: he has to do it [otherwise](File::write_at).
    fn map(&self, _range: Range<u64>) -> Option<Map> {
        None
    }
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes an empty file one of `len` zeros with every block allocated, all of it durable.
    fn fill(&self, len: u64, filling: Filling) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&self) -> io::Result<()>;

    /// Fills `out`; an end of the file before that is `UnexpectedEof`.
    fn read_at(&self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            match self.read_some(offset, out) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    out = &mut out[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes all the bytes. On an error some of them may be written.
    #[inline]
    fn write_at(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_some(offset, bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    bytes = &bytes[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Waits for the lock of the file and takes it; [`hold`] gives it back, too. Files that no other
    /// process can reach need none.
    fn lock(&self, _sharing: Sharing) -> io::Result<()> {
        Ok(())
    }
    fn unlock(&self) {}
    /// Gives up the system's copy of what is synced, so that reading it again asks the disk.
    fn forget_cached(&self) {}
}

/// Why a part of a file could not be read, and from which byte on.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) at: u64,
    pub(crate) error: io::Error,
}

impl Unread {
    /// The error for whoever was `doing` something with the file at `path`.
    pub(crate) fn told(self, doing: &str, path: &Path) -> Error {
        Error::io(doing, path, self.error).at(path, Some(self.at))
    }
}

/// How exactly the place of a failed read is looked for: what systems read at once.
const PAGE_BYTES: u64 = 4_096;

/// Fills `out` with what lies at `offset` and behind. Of a read that fails the first page that cannot
/// be read is looked for.
pub(crate) fn read(file: &dyn File, offset: u64, out: &mut [u8]) -> Result<(), Unread> {
    let mut done = 0;
    while done < out.len() {
        let at = offset + done as u64;
        match file.read_some(at, &mut out[done..]) {
            Ok(0) => return Err(Unread { at, error: io::ErrorKind::UnexpectedEof.into() }),
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let mut rest = &mut out[done..];
                let mut page = at;
                while !rest.is_empty() {
                    let n = (PAGE_BYTES - page % PAGE_BYTES).min(rest.len() as u64);
                    let (part, behind) = rest.split_at_mut(n as usize);
                    if let Err(error) = file.read_at(page, part) {
                        return Err(Unread { at: page, error });
                    }
                    rest = behind;
                    page += n;
                }
                // It failed all the same, and who knows what it will do next.
                return Err(Unread { at, error });
            }
        }
    }
    Ok(())
}

/// Bytes read at once where a file is read from one end to the other.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;

/// Is given the place of a block, and its bytes.
type SeeBlock<'a> = dyn FnMut(u64, &[u8]) -> Result<(), Error> + 'a;

/// Hands these bytes of the file at `path` to `see`, block by block, with the place of each.
pub(crate) fn each_block(
    file: &dyn File,
    path: &Path,
    bytes: Range<u64>,
    doing: &str,
    see: &mut SeeBlock<'_>,
) -> Result<(), Error> {
    let Range { start: mut at, end } = bytes;
    let mut block = vec![0; end.saturating_sub(at).min(BLOCK_BYTES as u64) as usize];
    while at < end {
        let part = &mut block[..(end - at).min(BLOCK_BYTES as u64) as usize];
        read(file, at, part).map_err(|unread| unread.told(doing, path))?;
        see(at, part)?;
        at += part.len() as u64;
    }
    Ok(())
}

/// With whom the lock of a file is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// With others who read.
    Readers,
    Nobody,
}

/// The lock of a file, held until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold(Arc<dyn File>);

/// Waits for the lock of `file` and holds it.
pub(crate) fn hold(file: &Arc<dyn File>, sharing: Sharing) -> io::Result<Hold> {
    file.lock(sharing)?;
    Ok(Hold(file.clone()))
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.unlock();
    }
}

/// Held for the life of an opening; dropping it and its clones gives the lock back.
#[derive(Clone)]
pub(crate) struct Lock {
    _held: Arc<dyn Send + Sync>,
}

impl Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lock")
    }
}

/// The operating system's files.
#[derive(Debug, Default)]
pub(crate) struct OsDisk;

/// A file that is locked. Closing it would not be enough to give the lock back: a child of the
/// process that has not come to its `exec` yet has the file open, too.
struct OsLock(fs::File);

impl Drop for OsLock {
    fn drop(&mut self) {
        // Should it fail, closing the file does the same, a moment later.
        let _ = self.0.unlock();
    }
}

/// Whether `path` is the name of this file.
fn is_named(file: &fs::File, path: &Path) -> io::Result<bool> {
    let is_same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    match fs::metadata(path) {
        Ok(named) => Ok(is_same(named, file.metadata()?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Longer writes go through the system.
const MAPPED_BYTES_MAX: usize = 4_096;
/// How much of a prepared file is mapped at a time.
const WINDOW_BYTES: u64 = 128 << 10;

#[derive(Debug)]
struct OsFile {
    file: fs::File,
    /// Of a prepared file, which is not made shorter while it is written.
    window: OnceLock<Mutex<Window>>,
}

impl OsFile {
    fn new(file: fs::File) -> Self {
        OsFile { file, window: OnceLock::new() }
    }
}

/// A range of a prepared file in memory.
#[derive(Debug)]
pub(crate) struct Map(memmap2::MmapRaw);

impl Map {
    fn of(file: &fs::File, Range { start, end }: Range<u64>) -> Option<Self> {
        let end = end.min(file.metadata().ok()?.len());
        let len = end.checked_sub(start)? as usize;
        let map = memmap2::MmapOptions::new().offset(start).len(len).map_raw(file).ok()?;
        // It is only written to: what the system reads ahead for a first touch, megabytes of zeros
        // maybe, nobody wants. Advice: where it is not taken, that touch is slower.
        #[cfg(unix)]
        let _ = map.advise(memmap2::Advice::Random);
        Some(Map(map))
    }

    /// Writes some bytes at a place in the range; false, and nothing, where they reach beyond its end.
    #[inline]
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) -> bool {
        let is_inside = at.checked_add(bytes.len()).is_some_and(|end| end <= self.0.len());
        if is_inside {
            // SAFETY: the range lies inside the mapping (checked above). The file is the engine's own and is not made
            // shorter while it is written. No reference into the mapping exists anywhere, reads go through
            // `read_at`, and who has the map is the only one who writes through it.
            unsafe {
                let place = self.0.as_mut_ptr().add(at);
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
            }
        }
        is_inside
    }
}

/// The part of a file that is mapped: from `start`, which is a multiple of the window's size.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    map: Option<Map>,
}

impl Window {
    /// Writes some bytes of the file, which are few; who holds the window is the only one who writes through it.
    #[inline]
    fn write(&mut self, file: &fs::File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let start = offset / WINDOW_BYTES * WINDOW_BYTES;
        if self.map.is_none() || self.start != start {
            // Unmapped first: the pages then cost a later sync nothing.
            self.map = None;
            self.map = Map::of(file, start..start + WINDOW_BYTES);
            self.start = start;
        }
        let at = (offset - start) as usize;
        if self.map.as_mut().is_some_and(|map| map.write(at, bytes)) {
            return Ok(bytes.len());
        }
        // There is no map, or the end of this one lies inside of what is written.
        file.write_at(bytes, offset)
    }
}

impl Disk for OsDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Box::new(OsFile::new(file)))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let write = access == Access::Write;
        let file = fs::OpenOptions::new().read(true).write(write).open(path)?;
        Ok(Arc::new(OsFile::new(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn lock(&self, path: &Path, sharing: Sharing) -> io::Result<Option<Lock>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        if sharing == Sharing::Nobody {
            options.write(true).create(true).truncate(false);
        }
        loop {
            let file = options.open(path)?;
            let locked = match sharing {
                Sharing::Readers => file.try_lock_shared(),
                Sharing::Nobody => file.try_lock(),
            };
            match locked {
                Ok(()) => {
                    let held = OsLock(file);
                    // Who had it may have taken the name away; it would be the lock of nothing.
                    if is_named(&held.0, path)? {
                        return Ok(Some(Lock { _held: Arc::new(held) }));
                    }
                }
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(e)) => return Err(e),
            }
        }
    }

    fn unique(&self) -> u128 {
        // Uniqueness, not secrecy: the random state of a process's hashers, its number and an
        // address of this moment are enough, and each call draws a state of its own.
        let half = |n: u64| {
            let state = foldhash::quality::RandomState::default();
            u128::from(state.hash_one((n, std::process::id(), std::ptr::from_ref(&state) as usize)))
        };
        half(0) << 64 | half(1)
    }

    fn scratch(&self) -> io::Result<Arc<dyn File>> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        loop {
            let made = MADE.fetch_add(1, Relaxed);
            let name = format!("quipu-{}-{made}.scratch", std::process::id());
            let path = std::env::temp_dir().join(name);
            match self.create(&path) {
                // Left by a process of the same number that died in the next line.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                created => {
                    let file = created.map_err(|e| {
                        io::Error::new(e.kind(), format!("{e} (a file at {})", path.display()))
                    })?;
                    fs::remove_file(&path)?;
                    return Ok(file.into());
                }
            }
        }
    }
}

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_some(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(out, offset)
    }

    fn write_some(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let Some(window) = self.window.get().filter(|_| bytes.len() < MAPPED_BYTES_MAX) else {
            return self.file.write_at(bytes, offset);
        };
        window.lock().write(&self.file, offset, bytes)
    }

    fn map(&self, range: Range<u64>) -> Option<Map> {
        self.window.get()?;
        Map::of(&self.file, range)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        assert!(self.window.get().is_none(), "a prepared file keeps its length");
        self.file.set_len(len)
    }

    fn fill(&self, len: u64, filling: Filling) -> io::Result<()> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        let reserve = || {
            let flags = rustix::fs::FallocateFlags::empty();
            let reserve = || rustix::fs::fallocate(&self.file, flags, 0, len);
            rustix::io::retry_on_intr(reserve).map_err(io::Error::from)
        };
        let write = || -> io::Result<()> {
            let mut at = 0;
            while at < len {
                let n = (len - at).min(ZEROS.len() as u64);
                self.write_at(at, &ZEROS[..n as usize])?;
                at += n;
            }
            Ok(())
        };
        match filling {
            Filling::Written => write()?,
            Filling::Reserved => match reserve() {
                Err(e) if e.kind() == io::ErrorKind::Unsupported => write()?,
                reserved => reserved?,
            },
        }
        self.file.sync_all()?;
        self.window.get_or_init(Mutex::default);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn lock(&self, sharing: Sharing) -> io::Result<()> {
        loop {
            let locked = match sharing {
                Sharing::Readers => self.file.lock_shared(),
                Sharing::Nobody => self.file.lock(),
            };
            match locked {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                locked => return locked,
            }
        }
    }

    fn unlock(&self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "a file stays locked until it is closed");
        }
    }

    fn forget_cached(&self) {
        // Advice: where it is not taken, the next reading is only faster.
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Disk, OsDisk, OsLock, Sharing};
    use std::fs;

    #[test]
    fn a_lock_is_given_back_although_a_child_has_the_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let file = fs::File::create(&path).unwrap();
        file.try_lock().unwrap();
        let in_child = file.try_clone().unwrap();
        let lock = OsLock(file);
        assert!(OsDisk.lock(&path, Sharing::Nobody).unwrap().is_none());
        drop(lock);
        assert!(OsDisk.lock(&path, Sharing::Nobody).unwrap().is_some());
        drop(in_child);
    }

    #[test]
    fn a_file_that_has_lost_its_name_is_not_the_one_that_is_locked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let held = OsDisk.lock(&path, Sharing::Nobody).unwrap().unwrap();
        let other = held.clone();
        let opened = fs::File::open(&path).unwrap();
        assert!(super::is_named(&opened, &path).unwrap());
        OsDisk.remove(&path).unwrap();
        assert!(!super::is_named(&opened, &path).unwrap());
        let again = OsDisk.lock(&path, Sharing::Nobody).unwrap().unwrap();
        assert!(!super::is_named(&opened, &path).unwrap());
        assert!(OsDisk.lock(&path, Sharing::Nobody).unwrap().is_none());
        drop((held, other, again));
        assert!(OsDisk.lock(&path, Sharing::Nobody).unwrap().is_some());
    }
}
