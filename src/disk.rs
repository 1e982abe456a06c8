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
//!
//! The real disk makes small writes to a prepared file through a memory map: what is copied there
//! survives the process without a system call, and `fdatasync` makes it survive the power. A sync
//! write-protects every page that is mapped and dirty, one by one, with an interrupt for every
//! processor; so only a window of the file is mapped, and writes of some pages go through the
//! system. Where the system gives no map, positioned writes serve.
//!
//! Zeros are written where each record waits for its sync ([`Filling::Written`]): a later sync then
//! has no change of the file's layout to write (0.11 ms in place of 0.17). Where syncs are rare the
//! blocks are only reserved, which halves what goes to the disk.

#[cfg(test)]
pub(crate) mod faulty;

use parking_lot::Mutex;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) trait Disk: Debug + Send + Sync {
    /// Names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Whether there is anything at `path`.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Makes a directory and those above it that are missing.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// A new, empty file for reading and writing; it must not exist.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// An existing file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;
    /// A new file of `len` zeros (invariant 3).
    fn prepare(&self, path: &Path, len: u64, filling: Filling) -> io::Result<Arc<dyn File>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Takes the exclusive lock of the file, made if missing. `None` when somebody holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;
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
    /// Fills `out`; an end of the file before that is `UnexpectedEof`.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&self) -> io::Result<()>;
    /// The content for reading, if it can be had without a copy. The file must not be made shorter
    /// while this is held.
    fn map(&self) -> Option<memmap2::Mmap> {
        None
    }
}

/// Held for the life of an opening; dropping it gives the lock back.
pub(crate) struct Lock {
    _held: Box<dyn Send + Sync>,
}

impl Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lock")
    }
}

/// The operating system's files.
#[derive(Debug, Default)]
pub(crate) struct OsDisk;

/// Longer writes go through the system.
const MAPPED_BYTES_MAX: usize = 4_096;
/// How much of a prepared file is mapped at a time.
const WINDOW_BYTES: u64 = 128 << 10;

#[derive(Debug)]
struct OsFile {
    file: fs::File,
    /// Of a prepared file, which is not made shorter while it is written.
    window: Option<Mutex<Window>>,
}

/// The part of a file that is mapped: from `start`, which is a multiple of the window's size.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    map: Option<memmap2::MmapRaw>,
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

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut missing: Vec<PathBuf> = Vec::new();
        let mut at = Some(dir);
        while let Some(path) = at.filter(|path| !path.as_os_str().is_empty()) {
            if fs::exists(path)? {
                break;
            }
            missing.push(path.to_owned());
            at = path.parent();
        }
        for path in missing.iter().rev() {
            match fs::create_dir(path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
            if let Some(parent) = path.parent() {
                self.sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
            }
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(OsFile { file, window: None }))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let write = access == Access::Write;
        let file = fs::OpenOptions::new().read(true).write(write).open(path)?;
        Ok(Arc::new(OsFile { file, window: None }))
    }

    fn prepare(&self, path: &Path, len: u64, filling: Filling) -> io::Result<Arc<dyn File>> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let reserve = || {
            let flags = rustix::fs::FallocateFlags::empty();
            let reserve = || rustix::fs::fallocate(&file, flags, 0, len);
            rustix::io::retry_on_intr(reserve).map_err(io::Error::from)
        };
        let write = || -> io::Result<()> {
            let mut at = 0;
            while at < len {
                let n = (len - at).min(ZEROS.len() as u64);
                file.write_all_at(&ZEROS[..n as usize], at)?;
                at += n;
            }
            Ok(())
        };
        let fill = || {
            match filling {
                Filling::Written => write()?,
                Filling::Reserved => match reserve() {
                    Err(e) if e.kind() == io::ErrorKind::Unsupported => write()?,
                    reserved => reserved?,
                },
            }
            file.sync_all()?;
            self.sync_dir(path.parent().unwrap_or(Path::new(".")))
        };
        if let Err(e) = fill() {
            // A half-made file would only hold the space that is missing.
            let _ = fs::remove_file(path);
            return Err(e);
        }
        Ok(Arc::new(OsFile { file, window: Some(Mutex::default()) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let options =
            fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _held: Box::new(OsLock(file)) })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }
}

/// Gives the lock back by name: a child process that was forked meanwhile has the file open, too,
/// until it is another program, and would keep the lock.
struct OsLock(fs::File);

impl Drop for OsLock {
    fn drop(&mut self) {
        // Closing the file does it, too, where nobody else has it.
        let _ = self.0.unlock();
    }
}

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(window) = self.window.as_ref().filter(|_| bytes.len() < MAPPED_BYTES_MAX) else {
            return self.file.write_all_at(bytes, offset);
        };
        let mut window = window.lock();
        let start = offset / WINDOW_BYTES * WINDOW_BYTES;
        if window.map.is_none() || window.start != start {
            // Unmapped first: the pages then cost a later sync nothing.
            window.map = None;
            let len = self.file.metadata()?.len().saturating_sub(start).min(WINDOW_BYTES);
            let mut options = memmap2::MmapOptions::new();
            window.map = options.offset(start).len(len as usize).map_raw(&self.file).ok();
            window.start = start;
        }
        let at = (offset - start) as usize;
        let inside = |map: &&memmap2::MmapRaw| at + bytes.len() <= map.len();
        let Some(map) = window.map.as_ref().filter(inside) else {
            // There is no map, or the end of this one lies inside of what is written.
            return self.file.write_all_at(bytes, offset);
        };
        // SAFETY: the range lies inside the mapping (checked above). The file is the engine's own,
        // under its lock, and is not made shorter while it is written. No reference into the
        // mapping exists anywhere, reads go through `read_at`, and the window's lock keeps other
        // writes away.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), map.as_mut_ptr().add(at), bytes.len());
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        assert!(self.window.is_none(), "a prepared file keeps its length");
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn map(&self) -> Option<memmap2::Mmap> {
        // SAFETY: the file is the engine's own, under its lock or sealed; the engine never makes a
        // sealed segment shorter while it reads it (caller's contract above).
        unsafe { memmap2::Mmap::map(&self.file) }.ok()
    }
}
