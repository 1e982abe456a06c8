//! The stage damaged: events that came one by one, are acknowledged, and are not in the log yet.

use super::{
    Files, Loss, Matrix, NOW, Template, USERS, answers_of, bits_of, flipped, full, options, read,
    record, views, with_matrix_of, write,
};
use quipu::{Db, Depth, ErrorKind, Event, ReadOnlyDb, Repair, Timestamp};
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

const STAGE: &str = "STAGE";
const HEADER: usize = 64;
/// Events with an id, each a frame of its own, so many of them before the checkpoint.
const FRAMES: u64 = 20;
const CHECKPOINTED: u64 = 14;
/// Single events that were staged and are in the log since, synced.
const BROUGHT_IN: u64 = 9;
/// Single events that are staged and nowhere else. Records of those before lie behind theirs.
const STAGED: u64 = 5;
const SYNCED: u64 = FRAMES + BROUGHT_IN;
const ALL: u64 = SYNCED + STAGED;

/// Events without an id, which wait for each other.
fn stage(db: &Db, numbers: Range<u64>) {
    for n in numbers {
        let (user, product) = (format!("user {}", n % USERS), format!("product {}", n % 3));
        let at = Timestamp::from_secs(NOW - 300_000 + n as i64 * 500);
        let event = Event::new("sale").at(at).dim("user", &user).dim("product", &product);
        db.record(&event.value(n as f64 / 4.0)).unwrap();
    }
}

/// The length of the event of the record at an offset.
fn length(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes(bytes[at + 4..at + 6].try_into().unwrap()))
}

/// The position of the first record of a stage, and how many follow each other from there.
fn records(bytes: &[u8]) -> (u64, u64) {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let place = |at: usize| u64::from(word(at + 4) >> 16);
    let behind = |at: usize| u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap());
    let position = |at: usize| behind(at) + place(at);
    let (first, mut at, mut count) = (position(HEADER), HEADER, 0);
    while bytes.len() >= at + 16 && position(at) == first + count && word(at) != 0 {
        (at, count) = (at + (16 + length(bytes, at)).next_multiple_of(8), count + 1);
    }
    (first, count)
}

/// Where the records from the beginning on end: those that are staged, and all that ever were.
fn ends(bytes: &[u8]) -> (usize, usize) {
    let staged = (0..records(bytes).1)
        .fold(HEADER, |at, _| at + (16 + length(bytes, at)).next_multiple_of(8));
    (staged, bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1)
}

struct Stages {
    /// Of the opening before.
    former: Vec<u8>,
    /// Of this one, with what is in the log by now.
    brought_in: Vec<u8>,
    /// With two of the last ones.
    two: Vec<u8>,
}

/// A directory whose process was killed with so many events staged.
fn build(root: &Path, staged: u64) -> (Files, Stages) {
    loop {
        let dir = root.join("build");
        let _ = std::fs::remove_dir_all(&dir);
        let db = options().open(&dir).unwrap();
        for view in views() {
            db.define(view).unwrap();
        }
        record(&db, 0..CHECKPOINTED - 2);
        stage(&db, CHECKPOINTED - 2..CHECKPOINTED);
        let former = std::fs::read(dir.join(STAGE)).unwrap();
        db.close().unwrap();
        let db = options().open(&dir).unwrap();
        db.define(super::late()).unwrap();
        db.backfill("late", |_| ControlFlow::Continue(())).unwrap();
        db.checkpoint().unwrap();
        record(&db, CHECKPOINTED..FRAMES);
        stage(&db, FRAMES..SYNCED);
        let brought_in = std::fs::read(dir.join(STAGE)).unwrap();
        db.sync().unwrap();
        stage(&db, SYNCED..SYNCED + staged.min(2));
        let two = std::fs::read(dir.join(STAGE)).unwrap();
        stage(&db, SYNCED + staged.min(2)..SYNCED + staged);
        let mut files = read(&dir);
        files.retain(|path, _| !path.to_string_lossy().ends_with(".new"));
        let last = db.position().get();
        // Upkeep in the background may have brought them in by then; then once more.
        let is_staged =
            staged == 0 || records(&files[Path::new(STAGE)]) == (last - staged + 1, staged);
        if is_staged {
            return (files, Stages { former, brought_in, two });
        }
    }
}

fn template(root: &Path) -> Template {
    let answers = |files: &Files| {
        let copy = root.join("copy");
        write(&copy, files);
        answers_of(&options().open(&copy).unwrap()).unwrap()
    };
    let known: BTreeMap<u64, String> =
        (0..=STAGED).map(|staged| (SYNCED + staged, answers(&build(root, staged).0))).collect();
    let (files, stages) = build(root, STAGED);
    let (other, _) = build(root, STAGED);
    assert!(answers(&files) == known[&ALL] && answers(&other) == known[&ALL]);
    assert!(known.values().zip(known.values().skip(1)).all(|(few, more)| few != more));
    // Where only the stage of another time is taken from.
    let older = [("former", stages.former), ("brought in", stages.brought_in), ("two", stages.two)];
    let older = older.map(|(name, bytes)| (PathBuf::from(name), bytes)).into();
    Template {
        files,
        older,
        other,
        answers: known,
        synced: SYNCED,
        all: ALL,
        options,
        ask: answers_of,
    }
}

fn with(matrix: &Matrix<'_>, bytes: &[u8]) -> Files {
    let mut files = matrix.template.files.clone();
    files.insert(PathBuf::from(STAGE), bytes.to_vec());
    files
}

/// What a reader of the directory says, and what its opening does: both refuse it, or both have the same
/// events.
fn reader_agrees(matrix: &Matrix<'_>, what: &str, files: &Files) {
    write(&matrix.dir, files);
    let read = ReadOnlyDb::open(&matrix.dir).map(|reader| {
        let totals = reader.query("by_user").unwrap().totals().unwrap();
        (reader.position(), totals)
    });
    assert!(super::read(&matrix.dir) == *files, "{what}");
    let opened = options().open(&matrix.dir).map(|db| {
        let totals = db.query("by_user").unwrap().totals().unwrap();
        (db.position(), totals)
    });
    match (read, opened) {
        (Ok(read), Ok(opened)) => assert!(read == opened, "{what}"),
        (Err(read), Err(opened)) => assert_eq!(read.to_string(), opened.to_string(), "{what}"),
        (read, opened) => panic!("{what}: {:?}, {:?}", read.map(|r| r.0), opened.map(|o| o.0)),
    }
}

#[test]
fn a_flipped_bit_in_the_header_of_the_stage_costs_nothing() {
    with_matrix_of(template, |matrix| {
        let files = matrix.template.files.clone();
        let mut none_needed = files.clone();
        none_needed.insert(STAGE.into(), matrix.template.older[Path::new("brought in")].clone());
        let synced = matrix.template.answers[&SYNCED].clone();
        for byte in 0..HEADER {
            for bit in 0..8 {
                let what = format!("stage, byte {byte}, bit {bit}");
                let damaged = flipped(&files, STAGE, byte, bit);
                matrix.case("stage, header", &what, &damaged, Loss::Synced);
                if (byte * 8 + bit as usize).is_multiple_of(7) || full() {
                    reader_agrees(matrix, &what, &damaged);
                    matrix.repaired(&what, &damaged, true);
                    write(&matrix.dir, &damaged);
                    let done = quipu::repair(&matrix.dir, Repair::Apply, |_| {}).unwrap();
                    assert_eq!((done.steps.len(), done.records_given_up()), (1, 0), "{what}");
                    let mended = read(&matrix.dir);
                    assert!(mended[Path::new(STAGE)] == files[Path::new(STAGE)], "{what}");
                }
                write(&matrix.dir, &flipped(&none_needed, STAGE, byte, bit));
                let db = options().open(&matrix.dir).unwrap();
                assert!(
                    answers_of(&db).unwrap() == synced,
                    "{what}, of a stage that is in the log"
                );
            }
        }
        let tally = matrix.tallies["stage, header"];
        assert_eq!((tally.cases, tally.verified_only), (512, 512));
    });
}

#[test]
fn a_stage_whose_header_is_lost_is_refused_and_the_error_says_what_to_do() {
    with_matrix_of(template, |matrix| {
        let whole = matrix.template.files[Path::new(STAGE)].clone();
        let salted = |at: usize| (at * 37 + 11) % (HEADER * 8);
        let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
        for at in 0..HEADER * 8 {
            let mut bytes = whole.clone();
            for bit in [at, salted(at)] {
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            if at != salted(at) {
                cases.push((format!("bits {at} and {} of the header", salted(at)), bytes));
            }
        }
        for fill in [0, 0xff, 0xa5] {
            let mut bytes = whole.clone();
            bytes[..512].fill(fill);
            cases.push((format!("a sector of {fill:#x}"), bytes));
        }
        let others = matrix.template.other[Path::new(STAGE)].clone();
        cases.push(("another directory's".to_owned(), others));
        for (what, bytes) in cases {
            let damaged = with(matrix, &bytes);
            matrix.case("stage, header lost", &what, &damaged, Loss::Synced);
            write(&matrix.dir, &damaged);
            let error = options().open(&matrix.dir).unwrap_err();
            let place = matrix.dir.join(STAGE);
            assert_eq!((error.path(), error.offset()), (Some(&*place), Some(0)), "{what}");
            assert!(error.to_string().contains("quipu repair"), "{error}");
            assert_eq!(
                error.to_string().contains("another directory's"),
                what.starts_with("another")
            );
        }
        let tally = matrix.tallies["stage, header lost"];
        assert_eq!(tally.reported, tally.cases);
        let mut bytes = whole.clone();
        bytes[..HEADER].fill(0);
        let damaged = with(matrix, &bytes);
        reader_agrees(matrix, "no header", &damaged);
        matrix.repaired("no header", &damaged, true);
    });
}

#[test]
fn a_flipped_bit_in_a_staged_event_cuts_it_and_those_behind_it() {
    with_matrix_of(template, |matrix| {
        let files = matrix.template.files.clone();
        let (end, used) = ends(&files[Path::new(STAGE)]);
        assert!(end < used, "records that are in the log lie behind");
        for byte in HEADER..used {
            for bit in bits_of(byte, full()) {
                let what = format!("stage, byte {byte}, bit {bit}");
                let damaged = flipped(&files, STAGE, byte, bit);
                let group = if byte < end { "stage, records" } else { "stage, behind them" };
                matrix.case(group, &what, &damaged, Loss::Synced);
                if byte % 29 == 0 {
                    reader_agrees(matrix, &what, &damaged);
                }
            }
        }
        let [records, behind] = ["stage, records", "stage, behind them"].map(|g| matrix.tallies[g]);
        assert_eq!(records.cut + records.recovered, records.cases);
        // Filled up with zeros they are, and that says nothing.
        assert!(records.recovered < records.cases / 10, "{records:?}");
        assert_eq!(behind.recovered, behind.cases);
    });
}

#[test]
fn a_stage_that_is_cut_lost_older_or_of_another_place_gives_no_wrong_answer() {
    with_matrix_of(template, |matrix| {
        let whole = matrix.template.files[Path::new(STAGE)].clone();
        let (end, used) = ends(&whole);
        for cut in 0..=used {
            let what = format!("stage cut at {cut}");
            let short = with(matrix, &whole[..cut]);
            let group = if cut < HEADER { "stage cut, header" } else { "stage cut" };
            matrix.case(group, &what, &short, Loss::Synced);
            if cut < HEADER {
                continue;
            }
            let mut zeros = whole[..cut].to_vec();
            zeros.resize(whole.len(), 0);
            matrix.case("stage cut to zeros", &what, &with(matrix, &zeros), Loss::Synced);
            if cut % 19 == 0 {
                reader_agrees(matrix, &what, &short);
            }
        }
        let header = matrix.tallies["stage cut, header"];
        assert_eq!(header.reported, HEADER as u64);
        let records = matrix.tallies["stage cut"];
        // From the padding of the last one on all are there.
        assert_eq!((records.reported, records.cases), (0, (used - HEADER) as u64 + 1));
        assert!(records.recovered > (used - end) as u64 && records.cut > 0, "{records:?}");

        let mut lost = matrix.template.files.clone();
        lost.remove(Path::new(STAGE));
        matrix.case("stage lost", "stage lost", &lost, Loss::Synced);
        assert_eq!(matrix.tallies["stage lost"].cut, 1);
        for name in ["former", "brought in", "two"] {
            let damaged = with(matrix, &matrix.template.older[Path::new(name)].clone());
            matrix.case("stage older", name, &damaged, Loss::Synced);
            reader_agrees(matrix, name, &damaged);
            matrix.repaired(name, &damaged, true);
        }
        assert_eq!(matrix.tallies["stage older"].cut, 3);
        // Two of five: a prefix, and no more is made of what lies behind.
        write(&matrix.dir, &with(matrix, &matrix.template.older[Path::new("two")].clone()));
        let db = options().open(&matrix.dir).unwrap();
        assert!(answers_of(&db).unwrap() == matrix.template.answers[&(SYNCED + 2)]);
        drop(db);
        let others = with(matrix, &matrix.template.other[Path::new(STAGE)].clone());
        write(&matrix.dir, &others);
        let error = options().open(&matrix.dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        matrix.repaired("another directory's", &others, true);
    });
}

/// Up to 128 events wait for each other: no more than these are lost with the stage.
#[test]
fn a_lost_stage_costs_at_most_a_group_of_events_and_none_that_was_synced() {
    let root = super::scratch();
    let (dir, image) = (root.path().join("db"), root.path().join("image"));
    let db = options().open(&dir).unwrap();
    for view in views() {
        db.define(view).unwrap();
    }
    let defined = db.position().get();
    for (recorded, step) in [(0, 127), (127, 1), (128, 1), (129, 300), (429, 3)] {
        let synced = db.durable_position().get();
        stage(&db, recorded..recorded + step);
        let mut files = read(&dir);
        files.remove(Path::new(STAGE));
        write(&image, &files);
        let again = options().open(&image).unwrap();
        assert!(again.position().get() >= synced);
        let lost = db.position().get() - again.position().get();
        assert!(lost <= 128, "{lost} of {step}");
        let count = again.query("by_user").unwrap().totals().unwrap().count;
        assert_eq!(count, again.position().get() - defined);
        drop(again);
        db.sync().unwrap();
    }
    assert!(quipu::verify(&image, Depth::Refold, |_| {}).unwrap().is_intact());
}
