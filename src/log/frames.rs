//! Walking the frames of one segment. Everybody who reads the log reads it through this: recovery,
//! backfill, verify, repair, backup, restore, and who reads beside the owner.
//!
//! Invariants
//! 1. It reads with positioned reads, through a window of bounded size (a frame may make it larger).
//!    Nothing is mapped: a sector that cannot be read is an error with path and offset, and a file may
//!    be cut while it is read.
//! 2. A defect leaves the place where it is. [`Frames::go_to`] forgets what was read; bytes that were
//!    no valid frame are read again.
//! 3. What lies behind the end that was given is neither looked at nor read.
//!
//! Next: `reader.rs`.

use super::frame::{self, Defect, Frame, Header};
use super::segment::{self, Segment};
use crate::disk::{self, Unread};
use crate::error::Result;
use std::io::ErrorKind::UnexpectedEof;

/// Bytes read at a time, at first and when there is much to read.
const WINDOW_BYTES_MIN: usize = 64 << 10;
const WINDOW_BYTES_MAX: usize = 1 << 20;

/// The frames of one segment, read through a window of its bytes.
pub(crate) struct Frames {
    pub(crate) segment: Segment,
    /// The bytes from `start` on.
    window: Vec<u8>,
    start: u64,
    /// Where the next frame begins.
    at: u64,
    /// What lies behind this is not looked at.
    end: u64,
    window_bytes: usize,
}

/// A valid frame and its bytes.
pub(crate) struct Located<'a> {
    pub(crate) frame: Frame<'a>,
    pub(crate) raw: &'a [u8],
}

impl Frames {
    /// The frames of `segment`, up to its end.
    pub(crate) fn new(segment: Segment) -> Self {
        Frames::up_to(segment, u64::MAX)
    }

    /// The frames of `segment` that lie in front of `end`.
    pub(crate) fn up_to(segment: Segment, end: u64) -> Self {
        let at = segment::HEADER_BYTES as u64;
        let window_bytes = WINDOW_BYTES_MIN;
        Frames { segment, window: Vec::new(), start: at, at, end, window_bytes }
    }

    /// Where the next frame begins.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The next frame. A defect leaves the place as it is.
    pub(crate) fn next(&mut self) -> Result<Result<Located<'_>, Defect>> {
        let (at, salt) = (self.at, self.segment.salt);
        self.fill(frame::HEADER_BYTES)?;
        let header = match Header::decode(self.ahead(), at, salt) {
            Ok(header) => header,
            Err(defect) => return Ok(Err(defect)),
        };
        self.fill(header.frame_bytes() as usize)?;
        let next_position = match Frame::of(header, self.ahead()) {
            Ok(frame) => frame.next_position,
            Err(defect) => return Ok(Err(defect)),
        };
        self.at += header.frame_bytes();
        let raw = &self.window[(at - self.start) as usize..(self.at - self.start) as usize];
        let body_end = frame::HEADER_BYTES + header.body_bytes as usize;
        let (body, rest) = (&raw[frame::HEADER_BYTES..body_end], &raw[body_end..]);
        let definitions = &rest[..header.definition_bytes as usize];
        Ok(Ok(Located { frame: Frame { header, body, definitions, next_position }, raw }))
    }

    /// Goes to another place, where what there is is read anew.
    pub(crate) fn go_to(&mut self, at: u64) {
        self.at = at;
        self.window.clear();
        self.window_bytes = WINDOW_BYTES_MIN;
    }

    /// The `wanted` bytes at the present place, or as many as there are.
    pub(crate) fn peek(&mut self, wanted: usize) -> Result<&[u8]> {
        self.fill(wanted)?;
        let ahead = self.ahead();
        Ok(&ahead[..wanted.min(ahead.len())])
    }

    /// Whether what was read from the present place on is blank.
    pub(crate) fn is_blank_ahead(&self) -> bool {
        used(self.ahead()) == 0
    }

    /// What the window has from the present place on.
    fn ahead(&self) -> &[u8] {
        self.window.get((self.at - self.start) as usize..).unwrap_or_default()
    }

    /// Brings `wanted` bytes into the window, or as many as there are.
    fn fill(&mut self, wanted: usize) -> Result<()> {
        if self.ahead().len() >= wanted {
            return Ok(());
        }
        if !self.window.is_empty() {
            self.window_bytes = (self.window_bytes * 2).min(WINDOW_BYTES_MAX);
        }
        self.start = self.at;
        let Segment { file, path, .. } = &self.segment;
        let fail = |unread: Unread| unread.told("read a segment of the log", path);
        let length = || file.len().map_err(|error| fail(Unread { at: self.at, error }));
        let mut there = length()?;
        loop {
            let ahead = there.min(self.end).saturating_sub(self.at);
            let bytes = ahead.min(self.window_bytes.max(wanted) as u64);
            self.window.resize(bytes as usize, 0);
            match disk::read(&**file, self.at, &mut self.window) {
                Ok(()) => return Ok(()),
                Err(unread) => {
                    // What is in the window is not what is in the file.
                    self.window.clear();
                    let before = std::mem::replace(&mut there, length()?);
                    // It may have been cut in between.
                    if unread.error.kind() != UnexpectedEof || there >= before {
                        return Err(fail(unread));
                    }
                }
            }
        }
    }

    /// Tells `see` every valid header at or behind the present place, whatever became of its payload,
    /// and its place. Gives where the last byte that is not blank ends; the present place, where there
    /// is none.
    pub(crate) fn look_behind(&self, see: &mut dyn FnMut(u64, &Header)) -> Result<u64> {
        let salt = self.segment.salt;
        let mut used_end = self.at;
        let mut frames = Frames::up_to(self.segment.clone(), self.end);
        frames.at = self.at;
        loop {
            // A header may reach over the end of a window: what is left of one is read again.
            frames.window.clear();
            frames.fill(WINDOW_BYTES_MAX)?;
            let bytes = frames.ahead();
            let used = used(bytes);
            if used > 0 {
                used_end = frames.at + used as u64;
            }
            let last = used.min(bytes.len().saturating_sub(frame::HEADER_BYTES - 1));
            for place in (0..last).step_by(frame::ALIGN as usize) {
                if bytes[place..].starts_with(&frame::MAGIC) {
                    let offset = frames.at + place as u64;
                    if let Ok(header) = Header::decode(&bytes[place..], offset, salt) {
                        see(offset, &header);
                    }
                }
            }
            if bytes.len() < WINDOW_BYTES_MAX {
                return Ok(used_end);
            }
            let step = bytes.len() - frame::HEADER_BYTES + 1;
            frames.at += (step as u64).next_multiple_of(frame::ALIGN);
        }
    }

    /// The greatest `synced` that any valid header at or behind the present place claims.
    pub(crate) fn claims_behind(&self) -> Result<u64> {
        let mut greatest = 0;
        self.look_behind(&mut |_, header| greatest = greatest.max(header.claim()))?;
        Ok(greatest)
    }
}

/// Where the last byte that is not blank ends.
fn used(bytes: &[u8]) -> usize {
    // Long stretches are blank; the bytes of a part are looked at together.
    const PART_BYTES: usize = 1_024;
    for (part, bytes) in bytes.chunks(PART_BYTES).enumerate().rev() {
        if bytes.iter().fold(0, |all, byte| all | byte) != 0 {
            let last = bytes.iter().rposition(|byte| *byte != 0);
            return part * PART_BYTES + last.map_or(0, |last| last + 1);
        }
    }
    0
}
