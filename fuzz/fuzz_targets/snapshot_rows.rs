//! Rows of the snapshot with right checksums and any content, in the store of a crashed directory.
//! An input is [pieces](quipu_fuzz::pieces), each a row: its flags are the table and what is done,
//! its bytes the key's length or the row's number, the key, the payload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quipu_fuzz::directory::{Trust, exercise, file, template};
use quipu_fuzz::pieces::pieces;
use quipu_fuzz::store::{self, META, Row};
use std::sync::OnceLock;

const TABLE: u8 = 3;
/// The first byte is the number of a row that is there, in place of a key.
const NUMBERED: u8 = 4;
const REMOVED: u8 = 8;
/// The payload is the whole value.
const UNSEALED: u8 = 16;

fuzz_target!(|input: &[u8]| {
    static ROWS: OnceLock<[Vec<Row>; 4]> = OnceLock::new();
    let mut files = template().clone();
    let state = file(&mut files, "state.redb");
    let rows = ROWS.get_or_init(|| store::rows(state));
    let mut changes = Vec::new();
    for (flags, bytes) in pieces(input).into_iter().take(8) {
        let Some((first, rest)) = bytes.split_first() else { continue };
        let (table, first) = (usize::from(flags & TABLE), usize::from(*first));
        let (key, payload) = if flags & NUMBERED == 0 {
            let (key, payload) = rest.split_at(first.min(rest.len()));
            (key.to_vec(), payload)
        } else {
            let Some(nth) = first.checked_rem(rows[table].len()) else { continue };
            (rows[table][nth].0.clone(), rest)
        };
        // The catalog has a target of its own.
        if table == META && key == store::CATALOG {
            continue;
        }
        let value = match flags & (REMOVED | UNSEALED) {
            0 => Some(store::seal(&key, payload)),
            UNSEALED => Some(payload.to_vec()),
            _ => None,
        };
        changes.push((table, key, value));
    }
    *state = store::changed(state, &changes);
    exercise(&files, Trust::Nothing);
});
