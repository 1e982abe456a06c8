//! A stage of any bytes behind a log that is whole: what opening takes from it is in the log and in
//! every view, once. An input is [pieces](quipu_fuzz::pieces), each an event's bytes whose flags say
//! what is made right in its record.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quipu_fuzz::directory::{Trust, exercise, identity, lay, options, scratch, template};
use quipu_fuzz::pieces::pieces;
use quipu_fuzz::stage::checksum;
use std::sync::OnceLock;

const CHECKSUM: u8 = 1;
/// The next place of a group behind the log's end, not one that the flags choose.
const PLACE: u8 = 2;
/// A length that says less than there is.
const SHORT: u8 = 4;

const AREAS: usize = 5;
const AREA_BYTES: usize = 1 << 12;
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

fuzz_target!(|input: &[u8]| {
    let mut stage = vec![0; HEADER_BYTES];
    stage[..8].copy_from_slice(b"QUIPUSTG");
    stage[8] = 1;
    stage[16..32].copy_from_slice(&identity());
    stage[32..40].copy_from_slice(&SALT.to_le_bytes());
    stage[40..44].copy_from_slice(&(AREA_BYTES as u32).to_le_bytes());
    let sum = crc32fast::hash(&[&stage[..12], &stage[16..44]].concat());
    stage[12..16].copy_from_slice(&sum.to_le_bytes());
    let mut areas = [const { Vec::new() }; AREAS];
    let mut places = [0_u16; AREAS];
    for (flags, event) in pieces(input) {
        let chosen = usize::from(flags >> 4);
        let (area, length) = (chosen % AREAS, event.len().min(usize::from(u16::MAX)) as u16);
        let length = length - u16::from(flags & SHORT != 0 && length > 0);
        let (behind, place) = if flags & PLACE == 0 {
            ((log_ends() + chosen as u64).saturating_sub(3), places[area] + (chosen % 3) as u16)
        } else {
            (log_ends(), places[area] + 1)
        };
        let head = [length.to_le_bytes(), place.to_le_bytes()].concat();
        let mut record = [&[7; 4], &head[..], &behind.to_le_bytes(), event].concat();
        if flags & CHECKSUM != 0 {
            let sum = checksum(SALT.to_le_bytes(), &record[..16 + usize::from(length)]);
            record[..4].copy_from_slice(&sum);
        }
        let bytes = &mut areas[area];
        bytes.extend_from_slice(&record);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        places[area] = place;
    }
    for mut area in areas {
        area.resize(AREA_BYTES, 0);
        stage.extend_from_slice(&area);
    }
    let mut files = template().clone();
    files.push(("STAGE".into(), stage));
    exercise(&files, Trust::Log);
});
