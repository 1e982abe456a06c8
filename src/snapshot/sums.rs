//! What the blocks of a file were when they were last read or written, by their checksums.
//!
//! redb compares pages with their checksums when it is told to check all, and never when it reads one. A
//! disk, a cable or a memory that gives a block otherwise than before would make it look in the wrong
//! place, or write to one that is in use. So each block is held against what it was.
//!
//! Invariants
//! 1. A block has a sum from the first time on that it was read or written as a whole; from a write that
//!    failed on, or covers it in part, it has none until it is read.
//! 2. A sum is *proved* if the block was written, or was read by a check of the whole file. One that was only
//!    read may have been read wrongly the first time: what differs from it is told, and it is forgotten.
//! 3. Who writes has the file for itself: no block is read while it changes.
//!
//! Cost: 8 bytes and, each time it is read or written, some 0.2 us for each 4 KiB.

use crate::disk::File;
use parking_lot::RwLock;
use std::io;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes that have a sum together: those of redb's smallest page.
const BLOCK: u64 = 4_096;

/// A sum is known: above the bits of the checksum.
const KNOWN: u64 = 1 << 32;
/// Invariant 2.
const PROVED: u64 = 1 << 33;

#[derive(Debug, Default)]
pub(super) struct Sums(RwLock<Vec<AtomicU64>>);

/// The blocks that lie in some bytes whole.
fn whole(offset: u64, len: usize) -> Range<u64> {
    let first = offset.div_ceil(BLOCK);
    first..((offset + len as u64) / BLOCK).max(first)
}

impl Sums {
    /// Reads so many bytes of the file, which are what they were.
    ///
    /// # Errors
    /// `InvalidData` where they are not; those of reading.
    pub(super) fn read(&self, file: &dyn File, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset + out.len() as u64;
        if offset.is_multiple_of(BLOCK) && end.is_multiple_of(BLOCK) {
            file.read_at(offset, out)?;
            return self.compare(offset, out);
        }
        let blocks = offset / BLOCK * BLOCK..end.next_multiple_of(BLOCK).min(file.len()?);
        if end > blocks.end {
            return file.read_at(offset, out);
        }
        let mut around = vec![0; (blocks.end - blocks.start) as usize];
        file.read_at(blocks.start, &mut around)?;
        self.compare(blocks.start, &around)?;
        let from = (offset - blocks.start) as usize;
        out.copy_from_slice(&around[from..from + out.len()]);
        Ok(())
    }

    fn compare(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let blocks = whole(offset, bytes.len());
        self.reach(blocks.end);
        let sums = self.0.read();
        for block in blocks {
            let from = (block * BLOCK - offset) as usize;
            let sum = KNOWN | u64::from(crc32fast::hash(&bytes[from..from + BLOCK as usize]));
            let known = &sums[block as usize];
            // Of two who read it first both have read the same, or the second is told.
            if let Err(before) = known.compare_exchange(0, sum, Relaxed, Relaxed)
                && before | PROVED != sum | PROVED
            {
                if before & PROVED == 0 {
                    // Of the two the one before may be the wrong one.
                    let _ = known.compare_exchange(before, 0, Relaxed, Relaxed);
                }
                let (from, to) = (block * BLOCK, (block + 1) * BLOCK);
                let what = format!("bytes {from} to {to} are read otherwise than they were before");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
        Ok(())
    }

    /// Writes to the file, and takes what is written for what it is from now on.
    pub(super) fn write(&self, file: &dyn File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        self.reach(end.div_ceil(BLOCK));
        let sums = self.0.read();
        for block in offset / BLOCK..end.div_ceil(BLOCK) {
            sums[block as usize].store(0, Relaxed);
        }
        file.write_at(offset, bytes)?;
        for block in whole(offset, bytes.len()) {
            let from = (block * BLOCK - offset) as usize;
            let sum = crc32fast::hash(&bytes[from..from + BLOCK as usize]);
            sums[block as usize].store(KNOWN | PROVED | u64::from(sum), Relaxed);
        }
        Ok(())
    }

    /// Forgets what is not proved.
    pub(super) fn doubt(&self) {
        let sums = self.0.read();
        for sum in sums.iter().filter(|sum| sum.load(Relaxed) & PROVED == 0) {
            sum.store(0, Relaxed);
        }
    }

    /// Notes that what was read up to now is right.
    pub(super) fn prove(&self) {
        let sums = self.0.read();
        for sum in &*sums {
            // One that is forgotten meanwhile stays so.
            let proved = |sum| (sum & KNOWN != 0).then_some(sum | PROVED);
            let _ = sum.fetch_update(Relaxed, Relaxed, proved);
        }
    }

    /// Makes the file longer or shorter.
    pub(super) fn set_len(&self, file: &dyn File, len: u64) -> io::Result<()> {
        // Nothing is known of what comes back behind the end as zeros.
        self.0.write().truncate((len / BLOCK) as usize);
        file.set_len(len)
    }

    /// Has places for so many blocks.
    fn reach(&self, blocks: u64) {
        if self.0.read().len() < blocks as usize {
            let mut sums = self.0.write();
            let len = sums.len().max(blocks as usize);
            sums.resize_with(len, AtomicU64::default);
        }
    }
}

#[cfg(test)]
#[cfg(feature = "simulation")]
mod tests {
    use super::*;
    use crate::disk::{Access, Disk};
    use crate::simulation::{Fault, Operation, OperationKind, SimulatedDisk};
    use std::path::Path;
    use std::sync::Arc;

    fn kept() -> (SimulatedDisk, Arc<dyn File>, Sums) {
        let disk = SimulatedDisk::new(7);
        let file = disk.create(Path::new("file")).unwrap();
        (disk, file.into(), Sums::default())
    }

    #[test]
    fn what_is_read_otherwise_than_before_is_told_and_where() {
        let (disk, file, sums) = kept();
        let bytes: Vec<u8> = (0..5 * BLOCK).map(|n| (n % 251) as u8).collect();
        sums.write(&*file, 0, &bytes[..9_000]).unwrap();
        sums.write(&*file, 9_000, &bytes[9_000..]).unwrap();
        let read = |from: usize, len: usize| {
            let mut out = vec![0; len];
            sums.read(&*file, from as u64, &mut out)
                .map(|()| assert_eq!(out, bytes[from..from + len]))
        };
        // The third block was written in two parts, so it is known once it is read.
        for (from, len) in [(0, 1), (4_000, 200), (8_192, 4_096), (100, 20_000), (20_000, 480)] {
            read(from, len).unwrap();
        }
        for (from, len) in [(0, 20_480), (4_096, 4_096), (4_000, 200), (8_500, 1)] {
            disk.plan(|op| (op.kind == OperationKind::Read).then_some(Fault::FlippedBit));
            let error = read(from, len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains("are read otherwise"), "{error}");
            disk.plan(|_| None);
            read(from, len).unwrap();
        }
    }

    #[test]
    fn a_first_read_that_was_wrong_is_not_believed_for_ever() {
        let (disk, file, _) = kept();
        file.write_at(0, &[7; BLOCK as usize]).unwrap();
        let flip = |op: &Operation| (op.kind == OperationKind::Read).then_some(Fault::FlippedBit);
        let read = |sums: &Sums| {
            let mut out = vec![0; BLOCK as usize];
            sums.read(&*file, 0, &mut out).map(|()| out == [7; BLOCK as usize])
        };
        for is_doubted in [false, true] {
            let sums = Sums::default();
            disk.plan(flip);
            assert!(!read(&sums).unwrap(), "nothing is known to tell it by");
            disk.heal();
            if is_doubted {
                sums.doubt();
            } else {
                read(&sums).unwrap_err();
            }
            assert!(read(&sums).unwrap());
            sums.prove();
            sums.doubt();
            disk.plan(flip);
            for _ in 0..2 {
                read(&sums).unwrap_err();
            }
            disk.heal();
            assert!(read(&sums).unwrap(), "what is proved stays known");
        }
    }

    #[test]
    fn what_was_written_is_known_and_what_failed_is_not() {
        let (disk, file, sums) = kept();
        let [ones, twos] = [1, 2].map(|byte| vec![byte; BLOCK as usize]);
        sums.write(&*file, 0, &ones).unwrap();
        sums.write(&*file, 0, &twos).unwrap();
        let read = || {
            let mut out = vec![0; BLOCK as usize];
            sums.read(&*file, 0, &mut out).map(|()| out)
        };
        assert_eq!(read().unwrap(), twos);
        disk.plan(|op| {
            (op.kind == OperationKind::Write).then_some(Fault::Error(io::ErrorKind::Other))
        });
        sums.write(&*file, 0, &ones).unwrap_err();
        disk.plan(|_| None);
        let left = read().unwrap();
        assert_eq!(read().unwrap(), left, "whatever a failed write left is what is known");

        sums.set_len(&*file, 0).unwrap();
        sums.set_len(&*file, BLOCK).unwrap();
        assert_eq!(read().unwrap(), vec![0; BLOCK as usize], "what was cut off is forgotten");
        // Another hand than this one.
        disk.open(Path::new("file"), Access::Write).unwrap().write_at(9, &[1]).unwrap();
        assert_eq!(read().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn blocks_are_those_that_lie_in_it_whole() {
        assert_eq!(whole(0, 4_096), 0..1);
        assert_eq!(whole(1, 4_096), 1..1);
        assert_eq!(whole(1, 8_191), 1..2);
        assert_eq!(whole(4_096, 0), 1..1);
    }
}
