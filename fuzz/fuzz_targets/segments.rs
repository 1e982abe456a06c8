//! A log of any bytes: up to three segments and no snapshot. An input is
//! [pieces](quipu_fuzz::pieces), each a segment whose flags say what is made right in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quipu_fuzz::directory::{Trust, exercise, file, identity, template};
use quipu_fuzz::log;
use quipu_fuzz::pieces::pieces;

const HEADER: u8 = 1;
const CHECKSUMS: u8 = 2;
const POSITIONS: u8 = 4;
/// Zeros behind it, as in a segment that was in use.
const ROOM: u8 = 8;

fuzz_target!(|input: &[u8]| {
    let segments = pieces(input);
    let segments = &segments[..segments.len().min(3)];
    let mut files = template().clone();
    files.retain(|(path, _)| path.ends_with("MANIFEST") || path.ends_with("LOCK"));
    let manifest = file(&mut files, "MANIFEST");
    manifest[40..48].copy_from_slice(&(segments.len() as u64).to_le_bytes());
    let mut sum = crc32fast::Hasher::new();
    sum.update(&manifest[..12]);
    sum.update(&manifest[16..]);
    manifest[12..16].copy_from_slice(&sum.finalize().to_le_bytes());
    let mut next = 1;
    for (number, (flags, bytes)) in (1..).zip(segments) {
        let mut segment = bytes.to_vec();
        if flags & HEADER != 0 {
            segment.resize(segment.len().max(log::SEGMENT_HEADER_BYTES), 0);
            log::mend_header(&mut segment, number, identity());
        }
        if flags & POSITIONS != 0 {
            next = log::renumber(&mut segment, next);
        }
        if flags & CHECKSUMS != 0 && segment.len() >= log::SEGMENT_HEADER_BYTES {
            log::mend(&mut segment);
        }
        if flags & ROOM != 0 {
            segment.resize(segment.len() + 4_096, 0);
        }
        files.push((format!("log/{number:010}.qlog").into(), segment));
    }
    exercise(&files, Trust::Log);
});
