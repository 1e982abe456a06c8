//! A stage of any bytes behind a log that is whole: what opening takes from it is in the log and in
//! every view, once. An input is [pieces](quipu_fuzz::pieces), each an event's bytes whose flags say
//! what is made right in its record.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quipu_fuzz::directory::{Trust, exercise, identity, lay, options, scratch, template};
use quipu_fuzz::pieces::pieces;
use std::sync::OnceLock;

const CHECKSUM: u8 = 1;
/// The next position, not one that the flags choose.
const POSITION: u8 = 2;
/// A length that says less than there is.
const SHORT: u8 = 4;

const HEADER_BYTES: usize = 64;
const SALT: u64 = 0x5a17;

/// The last position of the template's log.
fn log_ends() -> u64 {
    static ENDS: OnceLock<u64> = OnceLock::new();
    *ENDS.get_or_init(|| {
        let home = scratch();
        lay(&home.path().join("db"), template());
        let db = options().must_exist().open(home.path().join("db")).expect("the template opens");
        db.position().get()
    })
}

fn crc(parts: &[&[u8]]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().to_le_bytes()
}

fuzz_target!(|input: &[u8]| {
    let mut stage = vec![0; HEADER_BYTES];
    stage[..8].copy_from_slice(b"QUIPUSTG");
    stage[8] = 1;
    stage[16..32].copy_from_slice(&identity());
    stage[32..40].copy_from_slice(&SALT.to_le_bytes());
    let sum = crc(&[&stage[..12], &stage[16..40]]);
    stage[12..16].copy_from_slice(&sum);
    let mut next = log_ends() + 1;
    for (flags, event) in pieces(input) {
        let length = event.len() as u32 - u32::from(flags & SHORT != 0 && !event.is_empty());
        let chosen = (next + u64::from(flags >> 4)).saturating_sub(3);
        let position = if flags & POSITION == 0 { chosen } else { next };
        let rest = [&length.to_le_bytes()[..], &position.to_le_bytes(), event].concat();
        let covered = &rest[..12 + length as usize];
        let sum = if flags & CHECKSUM == 0 { [7; 4] } else { crc(&[&SALT.to_le_bytes(), covered]) };
        stage.extend_from_slice(&sum);
        stage.extend_from_slice(&rest);
        stage.resize(stage.len().next_multiple_of(8), 0);
        next = position + 1;
    }
    let mut files = template().clone();
    files.push(("STAGE".into(), stage));
    exercise(&files, Trust::Log);
});
