//! Writing a damaged segment anew, with what is good in it: the log's part of a repair.
//!
//! Invariants
//! 1. Frames are taken over as they are, payload and checksum of it; their headers are made anew,
//!    because place and salt are others. Positions that are lost are said by a lost frame, so that
//!    the chain of positions has no gap and none is given twice.
//! 2. The new file is whole and synced under another name before it takes the segment's: a crash
//!    leaves the damaged segment or the new one. The caller has copied the damaged one before.
//! 3. A segment that was written anew ends with a seal.

use super::Home;
use super::frame::{self, Frame, FrameKind, Header};
use super::frames::{Frames, Located};
use super::reader::seal_at;
use super::segment::{self, Segment};
use super::survey::{Beginning, Piece, PieceState, Surveyed};
use crate::disk::{Access, BLOCK_BYTES, File};
use crate::error::{Error, Result};
use crate::time::Timestamp;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The new segment, as it grows.
struct Draft {
    file: Arc<dyn File>,
    /// So much of it is in the file, and the rest is here.
    written: u64,
    block: Vec<u8>,
    salt: u64,
    next_position: u64,
    now: Timestamp,
}

impl Draft {
    /// Appends a frame. What the header says of its payload is taken as it is.
    fn put(&mut self, header: Header, payload: &[&[u8]]) -> io::Result<()> {
        let at = self.written + self.block.len() as u64;
        self.block.extend_from_slice(&header.encode(at, self.salt));
        for part in payload {
            self.block.extend_from_slice(part);
        }
        // Blocks that were written have left a multiple of it behind.
        self.block.resize(self.block.len().next_multiple_of(frame::ALIGN as usize), 0);
        if self.block.len() < BLOCK_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(self.written, &self.block)?;
        self.written += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }

    /// Takes over a frame of the old segment.
    fn take(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        // The new one has its own, behind everything.
        if frame.header.kind != FrameKind::Seal {
            self.put(frame.header, &[frame.body, frame.definitions])?;
        }
        self.next_position = frame.next_position;
        Ok(())
    }

    fn put_lost(&mut self, positions: &Range<u64>, definitions: &[u8]) -> io::Result<()> {
        self.next_position = positions.start;
        let body = positions.end.to_le_bytes();
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&body);
        checksum.update(definitions);
        let header = Header {
            payload_checksum: checksum.finalize(),
            body_bytes: frame::LOST_BODY_BYTES as u32,
            definition_bytes: definitions.len() as u32,
            ..self.empty(FrameKind::Lost)
        };
        self.put(header, &[&body, definitions])?;
        self.next_position = positions.end;
        Ok(())
    }

    /// The header of a frame without records. It claims nothing.
    fn empty(&self, kind: FrameKind) -> Header {
        Header::empty(kind, self.next_position, 0, self.now.micros())
    }
}

/// Writes the segment anew and puts it in its place, durable when this returns. Gives the position
/// behind it.
pub(crate) fn rewrite(home: &Home, surveyed: &Surveyed, now: Timestamp) -> Result<u64> {
    let Home { disk, dir, identity, .. } = home;
    let Surveyed { number, path, .. } = surveyed;
    let fail = |e| Error::io("write a segment of the log anew", path, e);
    let unfinished = dir.join(format!("{number:010}.new"));
    let create = || {
        if disk.exists(&unfinished)? {
            disk.remove(&unfinished)?;
        }
        disk.create(&unfinished)
    };
    let salt = segment::salt_of(*identity, *number, now.micros());
    let header = segment::header(*identity, *number, salt, now.micros());
    // Without a frame of its own it goes on where the log ends.
    let end = surveyed.tail.as_ref().map_or(1, |_| surveyed.tail_position);
    let next_position = surveyed.first.unwrap_or(end);
    let (file, block) = (create().map_err(fail)?, header.to_vec());
    let mut draft = Draft { file: file.into(), written: 0, block, salt, next_position, now };
    let mut old = old_frames(home, surveyed)?;
    for Piece { bytes, state } in &surveyed.pieces {
        if let PieceState::Damaged { positions, definitions, .. } = state {
            if positions.is_empty() {
                draft.next_position = positions.end;
                continue;
            }
            let definitions = match &mut old {
                Some(old) if !definitions.is_empty() => {
                    old.go_to(definitions.start);
                    old.peek((definitions.end - definitions.start) as usize)?
                }
                _ => &[],
            };
            draft.put_lost(positions, definitions).map_err(fail)?;
            continue;
        }
        let old = old.as_mut().ok_or_else(|| changed(surveyed, bytes.start))?;
        old.go_to(bytes.start);
        if let PieceState::Mended { byte, bit } = state {
            let salt = old.segment.salt;
            let mut mended = old.peek((bytes.end - bytes.start) as usize)?.to_vec();
            if let Some(byte) = mended.get_mut((byte - bytes.start) as usize) {
                *byte ^= 1 << bit;
            }
            let frame = Frame::decode(&mended, bytes.start, salt);
            draft.take(&frame.map_err(|_| changed(surveyed, bytes.start))?).map_err(fail)?;
            continue;
        }
        while old.at() < bytes.end {
            let at = old.at();
            let Ok(Located { frame, .. }) = old.next()? else { return Err(changed(surveyed, at)) };
            if let PieceState::Unreadable { positions, .. } = state {
                draft.put_lost(positions, frame.definitions).map_err(fail)?;
            } else {
                draft.take(&frame).map_err(fail)?;
            }
        }
    }
    let seal = draft.empty(FrameKind::Seal);
    let finish = |draft: &mut Draft| {
        draft.put(seal, &[])?;
        draft.flush()?;
        draft.file.sync()?;
        disk.rename(&unfinished, path)?;
        disk.sync_dir(dir)
    };
    finish(&mut draft).map_err(fail)?;
    Ok(draft.next_position)
}

/// The frames of the damaged segment; none where it is missing, or nothing says how to read it.
fn old_frames(home: &Home, surveyed: &Surveyed) -> Result<Option<Frames>> {
    let number = surveyed.number;
    match surveyed.beginning {
        Beginning::Intact => Segment::open(home, number, Access::Read).map(Frames::new).map(Some),
        Beginning::Damaged { salt: Some(salt) } => {
            let segment = Segment::unchecked(home, number, Access::Read)?;
            Ok(Some(Frames::new(Segment { salt, ..segment })))
        }
        Beginning::Damaged { salt: None } | Beginning::Missing | Beginning::Foreign { .. } => {
            Ok(None)
        }
    }
}

/// Cuts the unsynced tail off that segments behind a damaged one hold: what recovery does, where the
/// tail begins in a segment that is written anew.
pub(crate) fn cut_tail(home: &Home, number: u64, position: u64, now: Timestamp) -> Result<()> {
    let segment = Segment::open(home, number, Access::Read)?;
    seal_at(&*home.disk, &segment, segment::HEADER_BYTES as u64, position, position - 1, now)
}

fn changed(surveyed: &Surveyed, at: u64) -> Error {
    Error::corruption(&surveyed.path, at, "the segment changed while it was repaired")
}
