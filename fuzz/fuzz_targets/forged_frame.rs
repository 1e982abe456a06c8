//! A frame with right checksums and any content, behind the valid ones of a crashed directory: it
//! is what the checksums do not keep from the decoders. The layout is that of `guide/format.md`.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use quipu_fuzz::{EVENTS, exercise, lay, scratch, template};

const SEGMENT_HEADER_BYTES: usize = 64;
const FRAME_HEADER_BYTES: usize = 56;

#[derive(Arbitrary, Debug)]
struct Forged {
    kind: Kind,
    records: u8,
    /// How far its first position is off the right one.
    position_error: i8,
    synced: u8,
    written_at: i64,
    body: Body,
    definitions: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
enum Kind {
    Events,
    Control,
    Witness,
    Seal,
    Other(u32),
}

#[derive(Arbitrary, Debug)]
enum Body {
    Raw(Vec<u8>),
    /// The last events frame's body with some bytes changed: the decoder gets further.
    Changed(Vec<(u8, u8)>),
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

fn wide(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fuzz_target!(|forged: Forged| {
    let mut files = template().clone();
    let is_log = |(path, _): &&mut (std::path::PathBuf, Vec<u8>)| {
        path.extension().is_some_and(|e| e == "qlog")
    };
    // The last segment with a frame in it; a prepared next one has none.
    let segment = files
        .iter_mut()
        .filter(is_log)
        .rfind(|(_, bytes)| bytes[SEGMENT_HEADER_BYTES..].starts_with(b"QFR1"))
        .map(|(_, bytes)| bytes)
        .expect("the template has a log");
    let (mut at, mut last, mut next_position) = (SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES, 1);
    while segment[at..].starts_with(b"QFR1") {
        next_position = wide(segment, at + 24) + word(segment, at + 20) as u64;
        if word(segment, at + 52) == 1 {
            last = at;
        }
        let bytes = FRAME_HEADER_BYTES + word(segment, at + 12) + word(segment, at + 16);
        at += bytes.next_multiple_of(8);
    }
    assert!(next_position > EVENTS, "the frames were walked over");
    let body = match forged.body {
        Body::Raw(bytes) => bytes,
        Body::Changed(changes) => {
            let start = last + FRAME_HEADER_BYTES;
            let mut body = segment[start..start + word(segment, last + 12)].to_vec();
            for (place, value) in changes {
                let place = usize::from(place) % body.len();
                body[place] = value;
            }
            body
        }
    };
    let salt = wide(segment, 16 + 8);
    let kind = match forged.kind {
        Kind::Events => 1,
        Kind::Control => 2,
        Kind::Witness => 3,
        Kind::Seal => 4,
        Kind::Other(code) => code,
    };
    let payload = [body.as_slice(), &forged.definitions].concat();
    let position = next_position.saturating_add_signed(forged.position_error.into());
    let mut header = [0; FRAME_HEADER_BYTES];
    header[0..4].copy_from_slice(b"QFR1");
    header[8..12].copy_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    header[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
    header[16..20].copy_from_slice(&(forged.definitions.len() as u32).to_le_bytes());
    header[20..24].copy_from_slice(&u32::from(forged.records).to_le_bytes());
    header[24..32].copy_from_slice(&position.to_le_bytes());
    header[32..40].copy_from_slice(&u64::from(forged.synced).to_le_bytes());
    header[40..48].copy_from_slice(&forged.written_at.to_le_bytes());
    header[48..52].copy_from_slice(&((at / 8) as u32).to_le_bytes());
    header[52..56].copy_from_slice(&u32::to_le_bytes(kind));
    let mut sum = crc32fast::Hasher::new();
    sum.update(&salt.to_le_bytes());
    sum.update(&header[8..]);
    header[4..8].copy_from_slice(&sum.finalize().to_le_bytes());
    let frame = [header.as_slice(), &payload].concat();
    if at + frame.len() + 8 > segment.len() {
        return;
    }
    segment[at..at + frame.len()].copy_from_slice(&frame);

    let home = scratch();
    let root = home.path().join("db");
    lay(&root, &files);
    let _ = exercise(&root);
});
