//! Any bytes as a bundle, as JSON, or as a file of tiny-counter's: an error, or events that are imported
//! once, and that another directory that is told of them answers alike.
//!
//! The first byte of an input says what the rest is, and whether its length and checksum are made right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quipu::{Bundle, Cursor, Db, Grain, ImportOptions, Keep, Row, TimeZone, TinyCounter, View};
use quipu_fuzz::directory::{options, scratch};
use std::path::Path;

const HEADER_BYTES: usize = 16;

/// The payload as a bundle.
fn sealed(payload: &[u8]) -> Vec<u8> {
    let mut sum = crc32fast::Hasher::new();
    sum.update(b"bundle");
    sum.update(&[1]);
    sum.update(payload);
    let length = (payload.len() as u64 + 5).to_le_bytes();
    [b"QUIPUBDL", &length[..], &[1], &sum.finalize().to_le_bytes(), payload].concat()
}

fn read(input: &[u8]) -> Option<Bundle> {
    let (what, rest) = input.split_first()?;
    match what % 4 {
        0 => Bundle::from_bytes(&sealed(rest)).ok(),
        1 => {
            let mut input = rest;
            let first = Bundle::read_from(&mut input).ok()??;
            let length = rest.len() - input.len();
            assert!(length > HEADER_BYTES && first.to_bytes() == rest[..length]);
            Some(first)
        }
        2 => serde_json::from_slice(rest).ok(),
        _ => {
            let counter = TinyCounter::from_bincode(rest).ok()?;
            let zone = ["UTC", "America/St_Johns", "Pacific/Apia"][usize::from(what / 4) % 3];
            let zone: TimeZone = zone.parse().expect("a zone");
            Bundle::of_tiny_counters([("event", counter)], zone).ok()
        }
    }
}

fn open(path: &Path) -> Db {
    let db = options().open(path).expect("opens");
    db.define(View::new("all").stats("value").grain(Grain::Day, Keep::All)).expect("defines");
    db.define(View::new("by_user").by(["user"]).grain(Grain::Hour, Keep::Last(9)))
        .expect("defines");
    db
}

fn rows(db: &Db) -> Vec<Vec<Row>> {
    let rows = |view| db.query(view).expect("is defined").rows().expect("reads");
    let all = ["all", "by_user"].map(|view| rows(view).map(|row| row.expect("reads")).collect());
    all.into()
}

fuzz_target!(|input: &[u8]| {
    let Some(bundle) = read(input) else { return };
    let again = Bundle::from_bytes(&bundle.to_bytes()).expect("own bytes");
    let text = serde_json::to_string(&bundle).expect("is plain");
    let told: Bundle = serde_json::from_str(&text).expect("own text");
    assert_eq!(serde_json::to_string(&told).expect("is plain"), text);
    let home = scratch();
    let (one, other) = (open(&home.path().join("one")), open(&home.path().join("other")));
    let allowed = ImportOptions::new().allow_ahead();
    let imported =
        one.import_with(&bundle, &allowed).expect("nothing here is of this replica").imported;
    assert_eq!(one.statistics().events, imported);
    for bundle in [&bundle, &again, &told] {
        assert_eq!(one.import_with(bundle, &allowed).expect("is here").imported, 0);
    }
    other.import_with(&told, &allowed).expect("imports");
    assert_eq!(rows(&one), rows(&other));
    let passed_on = one.export(&Cursor::beginning()).expect("exports");
    assert_eq!(other.import_with(&passed_on, &allowed).expect("is here").imported, 0);
    one.close().expect("closes");
    drop(one);
    assert_eq!(rows(&open(&home.path().join("one"))), rows(&other));
});
