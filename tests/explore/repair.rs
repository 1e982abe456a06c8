//! Repairs, and openings that rebuild a damaged snapshot, cut and failed at every place.
//!
//! However they end, the damaged bytes are still somewhere, in their place or in `quarantine/`, and
//! the next repair leaves what an undisturbed one does.

use crate::calls::Call;
use quipu::simulation::{SimulatedDisk, Stepped, repair_on, verify_on};
use quipu::{
    Db, Depth, Durability, Error, Event, Grain, Keep, Options, Position, Repair, Retention,
    TestClock, Timestamp, View,
};
use std::collections::BTreeMap;
use std::path::PathBuf;

const NOW: i64 = 1_700_000_000;
const SEGMENTS: [&str; 3] =
    ["db/log/0000000001.qlog", "db/log/0000000002.qlog", "db/log/0000000003.qlog"];
const STORE: &str = "db/state.redb";
const MANIFEST: &str = "db/MANIFEST";

/// The last position that was.
const SYNCED: u64 = 181;
/// Batches of ten that nobody has synced.
const UNSYNCED: u64 = 3;

fn now() -> Timestamp {
    Timestamp::from_secs(NOW)
}

fn options() -> Options {
    Options::new().clock(TestClock::at(now())).durability(Durability::Memory).tiny_segments(4_096)
}

fn record(db: &Db, batches: u64) {
    let mut batch = db.batch();
    for _ in 0..batches {
        for n in 0..10_u32 {
            let user = format!("u{}", n % 7);
            let at = Timestamp::from_secs(NOW + i64::from(n) * 600);
            let event = Event::new("e").at(at).dim("user", &user).value(f64::from(n));
            batch.push(&event).unwrap();
        }
        db.record_batch(&mut batch).unwrap();
    }
}

/// Two closed openings, and a third whose last so many batches nobody has synced.
fn directory(retention: Retention, unsynced: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let open = || Stepped::open(options().retention(retention), &disk, "db").unwrap();
    let engine = open();
    let view = View::new("v").by(["user"]).stats("value").grain(Grain::Hour, Keep::Last(50));
    engine.db().define(view).unwrap();
    record(engine.db(), 6);
    engine.db().close().unwrap();
    let engine = open();
    record(engine.db(), 6);
    engine.db().close().unwrap();
    let engine = open();
    record(engine.db(), 6);
    engine.db().sync().unwrap();
    record(engine.db(), unsynced);
    // The witness of the sync is in these; they are in the page cache only.
    disk.kill()
}

/// Spoils the body of the frame that holds `position` in a segment.
fn spoil_frame(disk: &SimulatedDisk, segment: &str, position: u64) {
    let mut bytes = disk.files()[&PathBuf::from(segment)].clone();
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let frames = (64..bytes.len() - 56).step_by(8);
    let is_it = |at: &usize| {
        bytes[*at..].starts_with(b"QFR1")
            && word(&bytes, at + 24) == position
            && bytes[at + 52] <= 2
    };
    let at = frames.clone().find(is_it).unwrap();
    bytes[at + 60..at + 64].fill(0xee);
    disk.replace(segment, Some(&bytes));
}

fn spoil(disk: &SimulatedDisk, file: &str, at: impl Fn(&[u8]) -> Vec<usize>) {
    let mut bytes = disk.files()[&PathBuf::from(file)].clone();
    let places = at(&bytes);
    assert!(!places.is_empty());
    for place in places {
        bytes[place] ^= 0xff;
    }
    disk.replace(file, Some(&bytes));
}

fn find(bytes: &[u8], what: &[u8]) -> Vec<usize> {
    (0..bytes.len() - what.len()).filter(|at| bytes[*at..].starts_with(what)).collect()
}

/// The catalog, without which nothing of the snapshot can be kept.
fn spoil_catalog(disk: &SimulatedDisk) {
    spoil(disk, STORE, |bytes| find(bytes, b"\x01v\x01\x04user"));
}

/// The row of one series.
fn spoil_series(disk: &SimulatedDisk) {
    spoil(disk, STORE, |bytes| find(bytes, b"\0\0\0\0u3\0\x01"));
}

type Damage<'a> = &'a dyn Fn(&SimulatedDisk);

/// What there is to be asked.
fn answers(disk: &SimulatedDisk) -> (Vec<String>, u64, Position) {
    let engine = Stepped::open(options().must_exist(), &disk.kill(), "db").unwrap();
    let db = engine.db();
    let rows = db.query("v").map(|query| {
        query.rows().unwrap().map(|row| format!("{:?}", row.unwrap())).collect::<Vec<_>>()
    });
    (rows.unwrap_or_default(), db.statistics().events, db.position())
}

/// The bytes of each of these are in a file of the directory, whatever its name.
fn is_there(disk: &SimulatedDisk, evidence: &BTreeMap<PathBuf, Vec<u8>>) {
    let files = disk.files();
    for (path, bytes) in evidence {
        assert!(files.values().any(|there| there == bytes), "{} is gone", path.display());
    }
}

/// The files that differ from those of the undamaged directory.
fn evidence(damaged: &SimulatedDisk, whole: &SimulatedDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let before = whole.files();
    let differs = |path: &PathBuf, bytes: &Vec<u8>| before.get(path) != Some(bytes);
    damaged.files().into_iter().filter(|(path, bytes)| differs(path, bytes)).collect()
}

fn repair(disk: &SimulatedDisk) -> Result<(), Error> {
    repair_on(disk, "db", Repair::Apply, now(), |_| {}).map(|_| ())
}

fn cut_a_repair(name: &str, retention: Retention, damage: Damage<'_>) {
    cut_a_repair_of(name, &directory(retention, UNSYNCED), damage);
}

fn cut_a_repair_of(name: &str, whole: &SimulatedDisk, damage: Damage<'_>) {
    let disk = whole.kill();
    damage(&disk);
    let evidence = evidence(&disk, whole);
    let plan = repair_on(&disk.kill(), "db", Repair::DryRun, now(), |_| {}).unwrap();
    assert!(!plan.steps.is_empty(), "{plan:?}");
    let expected = {
        let disk = disk.kill();
        repair(&disk).unwrap();
        answers(&disk)
    };
    Call {
        name,
        prepare: &|_| (),
        spared: &|_| false,
        make: &|(), disk| repair(disk),
        interrupted: &|disk| is_there(disk, &evidence),
        complete: &|disk| {
            is_there(disk, &evidence);
            let report = verify_on(disk, "db", Depth::Refold, |_| {}).unwrap();
            assert!(report.is_intact(), "{:?}", report.findings);
            let answers = answers(disk);
            // The tail that nobody had synced may be there or not.
            assert!(
                answers == expected || answers.2 < expected.2,
                "{:?} in place of {:?}",
                (answers.1, answers.2),
                (expected.1, expected.2)
            );
            assert!(answers.2.get() >= SYNCED, "{:?}", answers.2);
        },
    }
    .everywhere(&disk);
}

#[test]
fn a_repair_of_a_frame_in_the_middle_can_be_cut() {
    cut_a_repair("repair of a frame", Retention::KeepAll, &|disk| {
        spoil_frame(disk, SEGMENTS[1], 82);
        spoil_frame(disk, SEGMENTS[2], 132);
    });
}

/// The unsynced tail begins in a segment that is damaged before it, and goes on in the next.
#[test]
fn a_repair_in_front_of_a_long_tail_can_be_cut() {
    let whole = directory(Retention::KeepAll, 30);
    assert!(whole.files().contains_key(&PathBuf::from("db/log/0000000004.qlog")));
    cut_a_repair_of("repair in front of a tail", &whole, &|disk| {
        spoil_frame(disk, SEGMENTS[2], 132);
        spoil_frame(disk, SEGMENTS[2], 202);
    });
}

#[test]
fn a_repair_of_the_manifest_can_be_cut() {
    cut_a_repair("repair of a lost manifest", Retention::KeepAll, &|disk| {
        disk.replace(MANIFEST, None);
    });
    cut_a_repair("repair of a damaged manifest", Retention::KeepAll, &|disk| {
        spoil(disk, MANIFEST, |_| vec![20, 21]);
    });
}

#[test]
fn a_repair_of_the_snapshot_can_be_cut() {
    cut_a_repair("rebuild of a snapshot", Retention::KeepAll, &spoil_catalog);
    cut_a_repair("repair of a row", Retention::Recovery, &spoil_series);
    cut_a_repair("repair of a lost snapshot", Retention::Recovery, &|disk| {
        disk.replace(STORE, None);
    });
}

#[test]
fn a_repair_of_a_missing_segment_can_be_cut() {
    cut_a_repair("repair of a missing segment", Retention::KeepAll, &|disk| {
        disk.replace(SEGMENTS[1], None);
    });
}

#[test]
fn a_repair_of_everything_can_be_cut() {
    cut_a_repair("repair of everything", Retention::KeepAll, &|disk| {
        spoil(disk, MANIFEST, |_| vec![20, 21]);
        spoil(disk, SEGMENTS[0], |_| vec![30]);
        spoil_frame(disk, SEGMENTS[0], 32);
        spoil_frame(disk, SEGMENTS[2], 132);
        spoil_catalog(disk);
    });
}

#[test]
fn an_opening_that_rebuilds_the_snapshot_can_be_cut() {
    let whole = directory(Retention::KeepAll, UNSYNCED);
    let damages: [(&str, Damage<'_>); 2] = [
        ("opening with a damaged catalog", &spoil_catalog),
        ("opening with an empty snapshot", &|disk| disk.replace(STORE, Some(b""))),
    ];
    for (name, damage) in damages {
        let disk = whole.kill();
        damage(&disk);
        let evidence = evidence(&disk, &whole);
        let expected = answers(&whole);
        let events = |disk: &SimulatedDisk| {
            is_there(disk, &evidence);
            let (_, events, _) = answers(disk);
            // The tail that nobody had synced may be there or not, and so may what came since.
            assert!((expected.1 - 30..).contains(&events), "{events} of {}", expected.1);
        };
        Call {
            name,
            prepare: &|_| (),
            spared: &|_| false,
            make: &|(), disk| {
                let engine = Stepped::open(options(), disk, "db")?;
                let db = engine.db();
                db.record_with(&Event::new("e").dim("user", "u0"), Durability::Sync)?;
                db.checkpoint()?;
                db.close()
            },
            interrupted: &events,
            complete: &events,
        }
        .everywhere(&disk);
    }
}
