//! A disk that fails when it is told to; everything else is the real one's.

use super::{Access, Disk, File, Filling, Lock, OsDisk};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// What fails at present. Clones of the disk and its files share it.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Syncs of segments of the log.
    pub(crate) log_sync: AtomicBool,
    /// Making a segment: the disk is full.
    pub(crate) prepare: AtomicBool,
    /// Writes to the snapshot store.
    pub(crate) store_write: AtomicBool,
    /// Changes of any kind, from the one of this number on; 0 for none.
    pub(crate) from_change: AtomicU64,
    /// Changes so far.
    pub(crate) changes: AtomicU64,
}

impl Faults {
    fn change(&self) -> io::Result<()> {
        let number = self.changes.fetch_add(1, SeqCst) + 1;
        let from = self.from_change.load(SeqCst);
        if from > 0 && number >= from { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    }
}

#[derive(Debug, Default)]
pub(crate) struct FaultyDisk {
    real: OsDisk,
    pub(crate) faults: Arc<Faults>,
}

#[derive(Debug)]
struct FaultyFile {
    real: Arc<dyn File>,
    faults: Arc<Faults>,
    in_log: bool,
}

fn fails(fault: &AtomicBool, kind: io::ErrorKind) -> io::Result<()> {
    if fault.load(SeqCst) { Err(kind.into()) } else { Ok(()) }
}

impl FaultyDisk {
    fn wrap(&self, path: &Path, file: io::Result<Arc<dyn File>>) -> io::Result<Arc<dyn File>> {
        let in_log = path.to_string_lossy().contains("log");
        let faults = self.faults.clone();
        Ok(Arc::new(FaultyFile { real: file?, faults, in_log }))
    }
}

impl Disk for FaultyDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.real.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.real.exists(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.faults.change()?;
        self.real.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.faults.change()?;
        self.real.sync_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.faults.change()?;
        self.wrap(path, self.real.create(path))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        self.wrap(path, self.real.open(path, access))
    }

    fn prepare(&self, path: &Path, len: u64, filling: Filling) -> io::Result<Arc<dyn File>> {
        fails(&self.faults.prepare, io::ErrorKind::StorageFull)?;
        self.wrap(path, self.real.prepare(path, len, filling))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.change()?;
        self.real.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.faults.change()?;
        self.real.remove(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        self.real.lock(path)
    }
}

impl File for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.real.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.in_log {
            fails(&self.faults.store_write, io::ErrorKind::Other)?;
        }
        self.faults.change()?;
        self.real.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.change()?;
        self.real.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        if self.in_log {
            fails(&self.faults.log_sync, io::ErrorKind::Other)?;
        }
        self.faults.change()?;
        self.real.sync()
    }
}
