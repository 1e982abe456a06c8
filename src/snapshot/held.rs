//! redb's file: through the seam, held back in memory until it is released.
//!
//! Invariants
//! 1. Up to the release nothing is written to the file. What was held back is written in its order and
//!    synced; behind a doubtful header that first.
//! 2. Who works with it holds its state, also while it finds out whether it still may: an instance of redb
//!    of which an operation failed does nothing to the file any more, and the next one is opened behind that.
//!
//! Next: `snapshot/redb.rs`.

use super::sums::Sums;
use crate::disk::{self, Disk, File, Hold, Sharing};
use crate::error::{Error, ErrorKind, Result};
use parking_lot::RwLock;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

/// redb's header is in the first ones: a page.
const HEADER_BYTES: usize = 4_096;

/// A file whose changes are held back in memory until they are released.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    /// There will be commits; else it is only looked at.
    is_written: bool,
    pub(super) state: RwLock<HeldState>,
    /// What the file's blocks were.
    pub(super) sums: Arc<Sums>,
    /// redb panicked. Its own locks may be poisoned, and dropping it would panic while it unwinds.
    pub(super) panicked: AtomicBool,
}

#[derive(Debug)]
pub(super) enum HeldState {
    Back {
        /// What is there already; nothing where the store is made anew.
        file: Option<Arc<dyn File>>,
        len: u64,
        /// In the order in which they came.
        writes: Vec<(u64, Vec<u8>)>,
        /// The header that the file shows may not be on the disk: it is the first that is written.
        doubtful: bool,
    },
    Released(Arc<dyn File>),
}

impl HeldState {
    pub(super) fn read(&self, sums: &Sums, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (file, len, writes) = match self {
            HeldState::Released(file) => return sums.read(&**file, offset, out),
            HeldState::Back { file, len, writes, .. } => (file, *len, writes),
        };
        let end = offset + out.len() as u64;
        if end > len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let covers = |(at, bytes): &(u64, Vec<u8>)| *at <= offset && end <= at + bytes.len() as u64;
        let writes = if let Some(last) = writes.iter().rposition(covers) {
            &writes[last..]
        } else {
            // What lies behind the file's own end is zero until it is written.
            out.fill(0);
            if let Some(file) = file {
                let in_file = file.len()?.clamp(offset, end) - offset;
                sums.read(&**file, offset, &mut out[..in_file as usize])?;
            }
            writes
        };
        for (at, bytes) in writes {
            let (from, to) = ((*at).max(offset), (at + bytes.len() as u64).min(end));
            if from < to {
                out[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        match self {
            HeldState::Back { len, .. } => Ok(*len),
            HeldState::Released(file) => file.len(),
        }
    }

    pub(super) fn set_len(&mut self, sums: &Sums, new: u64) -> io::Result<()> {
        match self {
            HeldState::Back { len, writes, .. } => {
                if new < *len {
                    // What is cut off must read as zero should the file grow again.
                    writes.push((new, vec![0; (*len - new) as usize]));
                }
                *len = new;
                Ok(())
            }
            HeldState::Released(file) => sums.set_len(&**file, new),
        }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            HeldState::Back { .. } => Ok(()),
            HeldState::Released(file) => file.sync(),
        }
    }

    pub(super) fn write(&mut self, sums: &Sums, offset: u64, data: &[u8]) -> io::Result<()> {
        let (len, writes) = match self {
            HeldState::Back { len, writes, .. } => (len, writes),
            HeldState::Released(file) => return sums.write(&**file, offset, data),
        };
        *len = (*len).max(offset + data.len() as u64);
        // An opening writes the header several times, and there may be many of them. The first write
        // stays: it may be the doubtful header.
        let last = writes.iter_mut().skip(1).last();
        match last.filter(|(at, bytes)| (*at, bytes.len()) == (offset, data.len())) {
            Some((_, bytes)) => bytes.copy_from_slice(data),
            None => writes.push((offset, data.to_vec())),
        }
        Ok(())
    }
}

impl Held {
    /// A file that is there, or one that will be made when it is released.
    pub(super) fn new(
        disk: &Arc<dyn Disk>,
        path: &Path,
        file: Option<Arc<dyn File>>,
        sums: Arc<Sums>,
        is_written: bool,
    ) -> io::Result<Self> {
        let len = file.as_ref().map_or(Ok(0), |file| file.len())?;
        let state = HeldState::Back { file, len, writes: Vec::new(), doubtful: false };
        let (disk, path, state) = (disk.clone(), path.to_owned(), RwLock::new(state));
        let panicked = AtomicBool::new(false);
        Ok(Held { disk, path, is_written, state, sums, panicked })
    }

    /// The file, if nothing is held back.
    pub(super) fn released(&self) -> Option<Arc<dyn File>> {
        match &*self.state.read() {
            HeldState::Back { .. } => None,
            HeldState::Released(file) => Some(file.clone()),
        }
    }

    /// Ends the holding back. The file is locked until what this gives is dropped.
    pub(super) fn release(&self) -> io::Result<Option<Hold>> {
        // Before the state is locked: who reads here does not wait for those who copy the file.
        let mut hold = self.file().map(|file| disk::hold(&file, Sharing::Nobody)).transpose()?;
        let mut state = self.state.write();
        let HeldState::Back { file, len, writes, doubtful } = &*state else { return Ok(hold) };
        let target = if let Some(file) = file {
            if let (true, Some((at, header))) = (*doubtful, writes.first()) {
                self.sums.write(&**file, *at, header)?;
                file.sync()?;
            }
            write_out(file, &self.sums, *len, writes)?;
            file.clone()
        } else {
            let unfinished = self.path.with_extension("redb.new");
            if self.disk.exists(&unfinished)? {
                self.disk.remove(&unfinished)?;
            }
            let target: Arc<dyn File> = self.disk.create(&unfinished)?.into();
            hold = Some(disk::hold(&target, Sharing::Nobody)?);
            let written = write_out(&target, &self.sums, *len, writes).and_then(|()| {
                self.disk.rename(&unfinished, &self.path)?;
                self.disk.sync_dir(self.path.parent().unwrap_or(Path::new(".")))
            });
            if written.is_err() {
                // A half-made file would only hold the space that is missing.
                let _ = self.disk.remove(&unfinished);
            }
            written?;
            target
        };
        *state = HeldState::Released(target);
        Ok(hold)
    }

    /// Holds back again what is written from now on, after something failed.
    pub(super) fn hold_back(&self) -> Result<()> {
        let fail = |e| Error::io("open the snapshot", &self.path, e);
        let mut state = self.state.write();
        self.sums.doubt();
        let HeldState::Released(file) = &*state else { return Ok(()) };
        let len = file.len().map_err(fail)?;
        if len < HEADER_BYTES as u64 {
            return Err(Error::corruption(&self.path, len, "the snapshot ends in its header"));
        }
        // Whatever is read later, this is what the next instance sees, and what is written. So it is read
        // twice, for a bit may be read wrongly once.
        let (mut header, mut again) = (vec![0; HEADER_BYTES], [0; HEADER_BYTES]);
        file.read_at(0, &mut header).map_err(fail)?;
        file.read_at(0, &mut again).map_err(fail)?;
        if header != again {
            let message = "the header of the snapshot is read in two ways";
            return Err(Error::corruption(&self.path, 0, message));
        }
        let writes = vec![(0, header)];
        *state = HeldState::Back { file: Some(file.clone()), len, writes, doubtful: true };
        Ok(())
    }

    /// Takes back that something is held back, none of which came from a commit.
    pub(super) fn let_go(&self) {
        let mut state = self.state.write();
        if let HeldState::Back { file: Some(file), doubtful: true, .. } = &*state {
            *state = HeldState::Released(file.clone());
        }
    }

    /// Notes whether an instance, of a file that was checked or not, is of no use after this error: what it
    /// has in its memory may have been read wrongly. Where nothing is ever written, that harms nobody, and
    /// who looks for damage goes on.
    pub(super) fn doubt(&self, failed: &AtomicBool, is_checked: bool, error: &Error) {
        let is_doubtful = error.kind() == ErrorKind::Corruption && !is_checked;
        if self.is_written && (is_doubtful || self.panicked.load(SeqCst)) {
            failed.store(true, SeqCst);
        }
    }

    /// The file as the last commit left it; none where there was no commit yet.
    pub(super) fn file(&self) -> Option<Arc<dyn File>> {
        match &*self.state.read() {
            HeldState::Back { file, .. } => file.clone(),
            HeldState::Released(file) => Some(file.clone()),
        }
    }
}

/// Writes what was held back, in its order, and makes it durable.
fn write_out(
    target: &Arc<dyn File>,
    sums: &Sums,
    len: u64,
    writes: &[(u64, Vec<u8>)],
) -> io::Result<()> {
    if target.len()? != len {
        sums.set_len(&**target, len)?;
    }
    for (offset, bytes) in writes {
        sums.write(&**target, *offset, bytes)?;
    }
    // A write that came before the file was made shorter may have made it longer again.
    if target.len()? != len {
        sums.set_len(&**target, len)?;
    }
    target.sync()
}
