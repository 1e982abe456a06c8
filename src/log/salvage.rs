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
use super::frame::{self, FrameKind, Header};
use super::reader::{Content, Walk, seal_at};
use super::segment::{self, Segment};
use super::survey::{Beginning, PieceState, Surveyed};
use crate::disk::Access;
use crate::error::{Error, Result};
use crate::time::Timestamp;
use std::ops::Range;

/// The new segment, as it grows.
struct Draft {
    bytes: Vec<u8>,
    salt: u64,
    next_position: u64,
}

impl Draft {
    /// Appends a frame. What the header says of its payload is taken as it is.
    fn put(&mut self, header: Header, payload: &[&[u8]]) {
        let at = self.bytes.len() as u64;
        self.bytes.extend_from_slice(&header.encode(at, self.salt));
        for part in payload {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(frame::ALIGN as usize), 0);
    }

    fn put_lost(&mut self, positions: &Range<u64>, definitions: &[u8], now: Timestamp) {
        self.next_position = positions.start;
        let body = positions.end.to_le_bytes();
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&body);
        checksum.update(definitions);
        let header = Header {
            kind: FrameKind::Lost,
            payload_checksum: checksum.finalize(),
            body_bytes: frame::LOST_BODY_BYTES as u32,
            definition_bytes: definitions.len() as u32,
            ..self.empty(now)
        };
        self.put(header, &[&body, definitions]);
        self.next_position = positions.end;
    }

    /// The header of a frame without records. It claims nothing.
    fn empty(&self, now: Timestamp) -> Header {
        Header {
            kind: FrameKind::Seal,
            payload_checksum: crc32fast::hash(&[]),
            body_bytes: 0,
            definition_bytes: 0,
            records: 0,
            position: self.next_position,
            synced: 0,
            written_at: now.micros(),
        }
    }
}

/// Writes the segment anew and puts it in its place, durable when this returns. Gives the position
/// behind it.
pub(crate) fn rewrite(home: &Home, surveyed: &Surveyed, now: Timestamp) -> Result<u64> {
    let Home { disk, dir, identity, .. } = home;
    let Surveyed { number, path, .. } = surveyed;
    let fail = |e| Error::io("write a segment of the log anew", path, e);
    let salt = segment::salt_of(*identity, *number, now.micros());
    let header = segment::header(*identity, *number, salt, now.micros());
    let first = surveyed.first.unwrap_or(1);
    let mut draft = Draft { bytes: header.to_vec(), salt, next_position: first };
    let mut old = Vec::new();
    let mut old_salt = 0;
    if !matches!(surveyed.beginning, Beginning::Missing) {
        let file = disk.open(path, Access::Read).map_err(fail)?;
        let bytes = file.len().map_err(fail)?;
        let raw = Segment { number: *number, salt: 0, path: path.clone(), file, bytes };
        old = Content::sealed(&raw)?.to_vec();
        old_salt = match surveyed.beginning {
            Beginning::Damaged { salt } => salt.unwrap_or(0),
            _ => segment::RawHeader::read(&old).map_or(0, |header| header.salt()),
        };
    }
    for piece in &surveyed.pieces {
        if let PieceState::Mended { byte, bit } = piece.state {
            old[byte as usize] ^= 1 << bit;
        }
    }
    for piece in &surveyed.pieces {
        match &piece.state {
            PieceState::Damaged { positions, .. } if positions.is_empty() => {
                draft.next_position = positions.end;
            }
            PieceState::Damaged { positions, .. } => draft.put_lost(positions, &[], now),
            PieceState::Unreadable { positions, .. } => {
                let mut walk = Walk::new(&old, old_salt);
                walk.at = piece.bytes.start;
                let frame = walk.next().map_err(|_| changed(surveyed, piece.bytes.start))?;
                draft.put_lost(positions, frame.definitions, now);
            }
            PieceState::Kept | PieceState::Mended { .. } => {
                let mut walk = Walk::new(&old, old_salt);
                walk.at = piece.bytes.start;
                while walk.at < piece.bytes.end {
                    let at = walk.at;
                    let frame = walk.next().map_err(|_| changed(surveyed, at))?;
                    if frame.header.kind != FrameKind::Seal {
                        draft.put(frame.header, &[frame.body, frame.definitions]);
                    }
                    draft.next_position = frame.next_position;
                }
            }
        }
    }
    let seal = draft.empty(now);
    draft.put(seal, &[]);
    let unfinished = dir.join(format!("{number:010}.new"));
    let write = || {
        if disk.exists(&unfinished)? {
            disk.remove(&unfinished)?;
        }
        let file = disk.create(&unfinished)?;
        file.write_at(0, &draft.bytes)?;
        file.sync()?;
        disk.rename(&unfinished, path)?;
        disk.sync_dir(dir)
    };
    write().map_err(fail)?;
    Ok(draft.next_position)
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
