//! Segments of the log with right checksums and any content, by `guide/format.md`.

use std::ops::Range;

/// The header of a segment.
pub const SEGMENT_HEADER_BYTES: usize = 64;
/// The header of a frame.
pub const FRAME_HEADER_BYTES: usize = 56;
const MAGIC: &[u8] = b"QFR1";

/// The kinds of frames, by their codes.
pub mod kind {
    pub const EVENTS: u32 = 1;
    pub const CONTROL: u32 = 2;
    pub const WITNESS: u32 = 3;
    pub const SEAL: u32 = 4;
    pub const EXTENDED: u32 = 6;
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn wide(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// A frame as it is to be written.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    pub kind: u32,
    pub records: u32,
    pub position: u64,
    pub synced: u64,
    pub written_at: i64,
    pub body: Vec<u8>,
    pub definitions: Vec<u8>,
}

impl Frame {
    /// The frame at the beginning of `bytes`, which were written by the engine.
    pub fn read(bytes: &[u8]) -> Self {
        let body_end = FRAME_HEADER_BYTES + word(bytes, 12) as usize;
        let end = body_end + word(bytes, 16) as usize;
        Frame {
            kind: word(bytes, 52),
            records: word(bytes, 20),
            position: wide(bytes, 24),
            synced: wide(bytes, 32),
            written_at: wide(bytes, 40) as i64,
            body: bytes[FRAME_HEADER_BYTES..body_end].to_vec(),
            definitions: bytes[body_end..end].to_vec(),
        }
    }

    /// Its bytes; the checksums and its own place are still to be [mended](mend).
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        bytes[0..4].copy_from_slice(MAGIC);
        bytes[12..16].copy_from_slice(&(self.body.len() as u32).to_le_bytes());
        bytes[16..20].copy_from_slice(&(self.definitions.len() as u32).to_le_bytes());
        bytes[20..24].copy_from_slice(&self.records.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.position.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.synced.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.written_at.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.kind.to_le_bytes());
        bytes.extend_from_slice(&self.body);
        bytes.extend_from_slice(&self.definitions);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }
}

/// The frames of a segment by their magic and lengths, up to the first place that has none or one
/// that is longer than the segment.
pub fn frames(segment: &[u8]) -> Vec<Range<usize>> {
    let mut frames = Vec::new();
    let mut at = SEGMENT_HEADER_BYTES;
    while let Some(rest) = segment.get(at..)
        && rest.len() >= FRAME_HEADER_BYTES
        && rest.starts_with(MAGIC)
    {
        let payload = u64::from(word(rest, 12)) + u64::from(word(rest, 16));
        let bytes = (FRAME_HEADER_BYTES as u64 + payload).next_multiple_of(8);
        if bytes > rest.len() as u64 {
            break;
        }
        frames.push(at..at + bytes as usize);
        at += bytes as usize;
    }
    frames
}

/// The position behind the last frame; 1 without one.
pub fn next_position(segment: &[u8]) -> u64 {
    let last = frames(segment).pop().map(|frame| &segment[frame]);
    last.map_or(1, |frame| wide(frame, 24).wrapping_add(u64::from(word(frame, 20))))
}

/// Makes the segment's header right.
pub fn mend_header(segment: &mut [u8], number: u64, identity: [u8; 16]) {
    let header = &mut segment[..SEGMENT_HEADER_BYTES];
    header[0..8].copy_from_slice(b"QUIPULOG");
    header[8..12].copy_from_slice(&1_u32.to_le_bytes());
    header[16..24].copy_from_slice(&number.to_le_bytes());
    header[32..48].copy_from_slice(&identity);
    let mut sum = crc32fast::Hasher::new();
    sum.update(&header[..12]);
    sum.update(&header[16..]);
    header[12..16].copy_from_slice(&sum.finalize().to_le_bytes());
}

/// Makes place, padding and checksums of every frame right.
pub fn mend(segment: &mut [u8]) {
    let salt = wide(segment, 24);
    for range in frames(segment) {
        let place = ((range.start / 8) as u32).to_le_bytes();
        let frame = &mut segment[range];
        let end = FRAME_HEADER_BYTES + (word(frame, 12) + word(frame, 16)) as usize;
        frame[end..].fill(0);
        frame[48..52].copy_from_slice(&place);
        let sum = crc32fast::hash(&frame[FRAME_HEADER_BYTES..end]);
        frame[8..12].copy_from_slice(&sum.to_le_bytes());
        let mut sum = crc32fast::Hasher::new();
        sum.update(&salt.to_le_bytes());
        sum.update(&frame[8..FRAME_HEADER_BYTES]);
        frame[4..8].copy_from_slice(&sum.finalize().to_le_bytes());
    }
}

/// Makes the positions of the frames go on from `next` without a gap; gives the next one.
pub fn renumber(segment: &mut [u8], mut next: u64) -> u64 {
    for frame in frames(segment) {
        let frame = &mut segment[frame];
        frame[24..32].copy_from_slice(&next.to_le_bytes());
        next = next.wrapping_add(u64::from(word(frame, 20)));
    }
    next
}
