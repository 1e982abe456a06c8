//! Frames: the unit that is written, checked and lost as a whole.
//!
//! ```text
//! offset size
//!  0      4   magic "QFR1"
//!  4      4   header checksum: CRC-32 of the segment's salt and bytes 8..56
//!  8      4   payload checksum: CRC-32 of body and definitions
//! 12      4   body length
//! 16      4   definitions length
//! 20      4   number of records (0 for a witness or seal)
//! 24      8   position of the first record (of the next one, where there is none)
//! 32      8   synced: all positions up to this one were durable when the frame was written
//! 40      8   time of writing, microseconds since 1970
//! 48      4   the frame's own offset in the segment / 8
//! 52      4   kind: 1 events, 2 control, 3 witness, 4 seal, 5 lost, 6 events with extras
//! 56      -   body, definitions, zeros up to a multiple of 8
//! ```
//! Invariants
//! 1. A frame is valid when magic, both checksums, its own offset and the lengths agree. The salt
//!    and the offset make a frame of another segment, or a stale one, invalid.
//! 2. A header that is valid alone proves its claims (`synced`), whatever became of its payload.
//! 3. Kinds with the high bit set may be skipped by a reader that does not know them.
//! 4. A lost frame stands for positions that a repair gave up: from its own up to, and without, the
//!    one in its body (8 bytes). It may carry definitions that what follows needs.
//!
//! Next: `segment.rs`.

use crate::codec;
use crate::record::Form;

/// The length of a lost frame's body.
pub(crate) const LOST_BODY_BYTES: usize = 8;
pub(crate) const MAGIC: [u8; 4] = *b"QFR1";
pub(crate) const HEADER_BYTES: usize = 56;
pub(crate) const ALIGN: u64 = 8;
/// No frame is longer than this, header included.
pub(crate) const FRAME_BYTES_MAX: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Events(Form),
    Control,
    /// Says what is synced, when nothing else is to be said.
    Witness,
    /// The segment's last frame: nothing more is written to it, by anybody.
    Seal,
    /// Positions that a repair gave up (invariant 4).
    Lost,
    /// Written by a later version, which said that it may be skipped.
    Skippable(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: FrameKind,
    pub(crate) payload_checksum: u32,
    pub(crate) body_bytes: u32,
    pub(crate) definition_bytes: u32,
    pub(crate) records: u32,
    pub(crate) position: u64,
    pub(crate) synced: u64,
    pub(crate) written_at: i64,
}

/// Why bytes are not a valid frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// Zeros: nothing was written here.
    Blank,
    /// The header does not agree with itself.
    Header,
    /// The header is valid, the payload is not what it says.
    Payload(Header),
    /// The header is valid, its kind is not one that this version may skip.
    Unknown(u32),
}

impl FrameKind {
    fn code(self) -> u32 {
        match self {
            FrameKind::Events(Form::Plain) => 1,
            FrameKind::Control => 2,
            FrameKind::Witness => 3,
            FrameKind::Seal => 4,
            FrameKind::Lost => 5,
            FrameKind::Events(Form::Extended) => 6,
            FrameKind::Skippable(code) => code,
        }
    }

    fn of(code: u32) -> Option<Self> {
        match code {
            1 => Some(FrameKind::Events(Form::Plain)),
            2 => Some(FrameKind::Control),
            3 => Some(FrameKind::Witness),
            4 => Some(FrameKind::Seal),
            5 => Some(FrameKind::Lost),
            6 => Some(FrameKind::Events(Form::Extended)),
            code if code >> 31 == 1 => Some(FrameKind::Skippable(code)),
            _ => None,
        }
    }
}

impl Header {
    /// That of a frame without records, body and definitions.
    pub(crate) fn empty(kind: FrameKind, position: u64, synced: u64, written_at: i64) -> Self {
        Header {
            kind,
            payload_checksum: crc32fast::hash(&[]),
            body_bytes: 0,
            definition_bytes: 0,
            records: 0,
            position,
            synced,
            written_at,
        }
    }

    /// The frame's length, padding included.
    pub(crate) fn frame_bytes(&self) -> u64 {
        (HEADER_BYTES as u64 + u64::from(self.body_bytes) + u64::from(self.definition_bytes))
            .next_multiple_of(ALIGN)
    }

    /// The last position in the frame; one below `position` where it has no records.
    pub(crate) fn last_position(&self) -> u64 {
        self.position.saturating_add(u64::from(self.records)).saturating_sub(1)
    }

    /// Up to which position all was synced when it was written: by what it says, but nothing that is behind
    /// it. (Only a forged one says more.)
    pub(crate) fn claim(&self) -> u64 {
        self.synced.min(self.last_position())
    }

    pub(crate) fn encode(&self, offset: u64, salt: u64) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&self.payload_checksum.to_le_bytes());
        out[12..16].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[16..20].copy_from_slice(&self.definition_bytes.to_le_bytes());
        out[20..24].copy_from_slice(&self.records.to_le_bytes());
        out[24..32].copy_from_slice(&self.position.to_le_bytes());
        out[32..40].copy_from_slice(&self.synced.to_le_bytes());
        out[40..48].copy_from_slice(&self.written_at.to_le_bytes());
        out[48..52].copy_from_slice(&((offset / ALIGN) as u32).to_le_bytes());
        out[52..56].copy_from_slice(&self.kind.code().to_le_bytes());
        let sum = header_checksum(&out, salt);
        out[4..8].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads the header at `offset` of a segment; `bytes` begin there.
    pub(crate) fn decode(bytes: &[u8], offset: u64, salt: u64) -> Result<Self, Defect> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(if bytes.iter().all(|b| *b == 0) { Defect::Blank } else { Defect::Header });
        };
        if header.iter().all(|b| *b == 0) {
            return Err(Defect::Blank);
        }
        let mut rest = &header[8..];
        let mut next = || {
            let word = codec::take_array(&mut rest).expect("the header has room for every field");
            u32::from_le_bytes(word)
        };
        let payload_checksum = next();
        let (body_bytes, definition_bytes, records) = (next(), next(), next());
        let wide = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let position = wide(next(), next());
        let synced = wide(next(), next());
        let written_at = wide(next(), next()) as i64;
        let (place, code) = (next(), next());
        if header[0..4] != MAGIC
            || header[4..8] != header_checksum(header, salt).to_le_bytes()
            || u64::from(place) * ALIGN != offset
        {
            return Err(Defect::Header);
        }
        let kind = FrameKind::of(code).ok_or(Defect::Unknown(code))?;
        let header = Header {
            kind,
            payload_checksum,
            body_bytes,
            definition_bytes,
            records,
            position,
            synced,
            written_at,
        };
        if header.frame_bytes() > FRAME_BYTES_MAX {
            return Err(Defect::Header);
        }
        Ok(header)
    }
}

fn header_checksum(header: &[u8; HEADER_BYTES], salt: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&header[8..]);
    hasher.finalize()
}

/// The bit that is flipped in a payload, if it is exactly one: byte and bit.
///
/// CRC-32 is linear: what a flipped bit changes in the checksum depends on its distance from the end
/// alone. That of the last bit is the polynomial; that of each bit before it is one step further.
pub(crate) fn flipped_bit(payload: &[u8], header: &Header) -> Option<(usize, u8)> {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let wanted = crc32fast::hash(payload) ^ header.payload_checksum;
    let mut change = POLYNOMIAL;
    for byte in (0..payload.len()).rev() {
        for bit in (0..8).rev() {
            if change == wanted {
                return Some((byte, bit));
            }
            change = (change >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(change & 1));
        }
    }
    None
}

/// A valid frame: its header, body and definitions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) header: Header,
    pub(crate) body: &'a [u8],
    pub(crate) definitions: &'a [u8],
    /// The position behind those of the frame.
    pub(crate) next_position: u64,
}

impl<'a> Frame<'a> {
    /// The positions that a lost frame stands for, if some of them are behind `position`.
    pub(crate) fn lost_behind(&self, position: u64) -> Option<(u64, u64)> {
        let lost = (self.header.position, self.next_position - 1);
        let is_lost = self.header.kind == FrameKind::Lost && lost.1 >= lost.0;
        Some(lost).filter(|_| is_lost && lost.1 > position)
    }

    /// Reads the frame at `offset`; `bytes` begin there and reach to the segment's end.
    pub(crate) fn decode(bytes: &'a [u8], offset: u64, salt: u64) -> Result<Self, Defect> {
        Frame::of(Header::decode(bytes, offset, salt)?, bytes)
    }

    /// The frame of this header, with which `bytes` begin.
    pub(crate) fn of(header: Header, bytes: &'a [u8]) -> Result<Self, Defect> {
        let body_end = HEADER_BYTES + header.body_bytes as usize;
        let end = body_end + header.definition_bytes as usize;
        let (Some(payload), Some(padding)) =
            (bytes.get(HEADER_BYTES..end), bytes.get(end..header.frame_bytes() as usize))
        else {
            return Err(Defect::Payload(header));
        };
        if crc32fast::hash(payload) != header.payload_checksum || padding.iter().any(|b| *b != 0) {
            return Err(Defect::Payload(header));
        }
        let body = &bytes[HEADER_BYTES..body_end];
        let next_position = if header.kind == FrameKind::Lost {
            let next = body.first_chunk().map(|next| u64::from_le_bytes(*next));
            next.filter(|next| *next >= header.position && body.len() == LOST_BODY_BYTES)
                .ok_or(Defect::Payload(header))?
        } else {
            header.position.saturating_add(u64::from(header.records))
        };
        Ok(Frame { header, body, definitions: &bytes[body_end..end], next_position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_flipped_bit_is_found_again(
            mut payload in prop::collection::vec(any::<u8>(), 1..3_000),
            bit: prop::sample::Index,
        ) {
            let header = Header {
                kind: FrameKind::Events(Form::Plain),
                payload_checksum: crc32fast::hash(&payload),
                body_bytes: payload.len() as u32,
                definition_bytes: 0,
                records: 1,
                position: 1,
                synced: 0,
                written_at: 0,
            };
            prop_assert_eq!(flipped_bit(&payload, &header), None);
            let bit = bit.index(payload.len() * 8);
            payload[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(flipped_bit(&payload, &header), Some((bit / 8, (bit % 8) as u8)));
        }
    }
}
