//! A torn tail is cut; damage is reported; nothing is overwritten.

use crate::directory::{frames, record_alone, refused};
use crate::model::copy_dir;
use quipu::{Db, ErrorKind, Event, Options, Timestamp, View};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn options() -> Options {
    Options::new().segment_bytes(64 << 10).checkpoint_every(Duration::from_hours(1))
}

fn record(db: &Db, from: u64, to: u64) {
    for n in from..to {
        let user = format!("user{}", n % 7);
        let at = Timestamp::from_secs(n as i64);
        record_alone(db, Event::new("e").at(at).dim("user", &user).value(n as f64));
    }
}

fn count(db: &Db) -> u64 {
    let rows = db.query("by_user").unwrap().rows().unwrap();
    rows.map(|row| row.unwrap().count).sum()
}

/// A directory as a killed process leaves it: no checkpoint, everything but the last few records
/// synced.
fn image(root: &Path, synced: u64, unsynced: u64) -> PathBuf {
    let (live, image) = (root.join("live"), root.join("image"));
    let db = options().durability(quipu::Durability::Memory).open(&live).unwrap();
    db.define(View::new("by_user").by(["user"]).stats("value")).unwrap();
    record(&db, 0, synced);
    db.sync().unwrap();
    // The next frame claims the sync.
    record(&db, synced, synced + unsynced);
    copy_dir(&live, &image);
    image
}

fn last_segment(dir: &Path) -> PathBuf {
    let mut names: Vec<PathBuf> =
        fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| frames_in(path));
    names.sort();
    names.pop().unwrap()
}

fn frames_in(path: &Path) -> bool {
    fs::read(path).unwrap()[64..].starts_with(b"QFR1")
}

#[test]
fn a_torn_tail_is_cut_at_every_length_of_the_last_records() {
    let root = tempfile::tempdir().unwrap();
    let image = image(root.path(), 40, 6);
    let segment = last_segment(&image);
    let original = fs::read(&segment).unwrap();
    let frames = frames(&original);
    let last_three = &frames[frames.len() - 3..];
    for cut in last_three[0].start..last_three[2].end {
        // Short file, and zeros behind the cut.
        for zeros in [false, true] {
            let mut torn = original[..cut].to_vec();
            if zeros {
                torn.resize(original.len(), 0);
            }
            let whole = last_three.iter().filter(|frame| {
                // A frame ends in up to seven bytes of padding, zeros like those behind the cut.
                let behind_cut = &original[cut.min(frame.end)..frame.end];
                let blank = behind_cut.iter().all(|byte| *byte == 0);
                frame.start < cut && (frame.end <= cut || (zeros && blank))
            });
            let expected = 46 - 3 + whole.count() as u64;
            fs::write(&segment, &torn).unwrap();
            let copy = root.path().join("copy");
            copy_dir(&image, &copy);
            let db = options().open(&copy).unwrap();
            assert_eq!(count(&db), expected, "cut at {cut}, zeros {zeros}");
            if cut % 16 == 0 {
                // What is recorded next is there after the next opening.
                record(&db, 100, 103);
                drop(db);
                assert_eq!(count(&options().open(&copy).unwrap()), expected + 3);
            }
            fs::remove_dir_all(&copy).unwrap();
        }
    }
}

#[test]
fn a_flipped_bit_in_what_was_synced_is_reported_and_nothing_is_changed() {
    let root = tempfile::tempdir().unwrap();
    let image = image(root.path(), 40, 2);
    let segment = last_segment(&image);
    let original = fs::read(&segment).unwrap();
    let frames = frames(&original);
    let synced_end = frames[frames.len() - 2].start;
    for at in 0..synced_end {
        let mut flipped = original.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&segment, &flipped).unwrap();
        let error = refused(&image, || options().open(&image));
        assert_eq!(error.kind(), ErrorKind::Corruption, "byte {at}: {error}");
        assert_eq!(error.path(), Some(segment.as_path()), "byte {at}");
    }
    fs::write(&segment, &original).unwrap();
    assert_eq!(count(&options().open(&image).unwrap()), 42);
}

#[test]
fn a_flipped_bit_in_the_unsynced_tail_loses_that_tail_only() {
    let root = tempfile::tempdir().unwrap();
    let image = image(root.path(), 40, 1);
    let segment = last_segment(&image);
    let original = fs::read(&segment).unwrap();
    for at in frames(&original).pop().unwrap() {
        let mut flipped = original.clone();
        flipped[at] ^= 0x10;
        fs::write(&segment, &flipped).unwrap();
        let copy = root.path().join("copy");
        copy_dir(&image, &copy);
        assert_eq!(count(&options().open(&copy).unwrap()), 40, "byte {at}");
        fs::remove_dir_all(&copy).unwrap();
    }
}

#[test]
fn each_segment_that_is_lost_swapped_or_foreign_is_named() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    for round in 0..3 {
        let db = options().open(&dir).unwrap();
        db.define(View::new("by_user").by(["user"]).stats("value")).unwrap();
        record(&db, round * 2_000, (round + 1) * 2_000);
        db.sync().unwrap();
        // A kill: the next opening replays everything.
        let copy = root.path().join(format!("killed{round}"));
        copy_dir(&dir, &copy);
        drop(db);
        fs::remove_dir_all(&dir).unwrap();
        fs::rename(copy, &dir).unwrap();
    }
    let log = dir.join("log");
    let mut segments: Vec<PathBuf> =
        fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    // A segment that was made in advance may be there that the manifest does not name yet.
    while segments.last().is_some_and(|last| !frames_in(last)) {
        segments.pop();
    }
    assert!(segments.len() > 6, "{segments:?}");
    let aside = root.path().join("aside");
    for segment in &segments {
        fs::rename(segment, &aside).unwrap();
        let error = refused(&dir, || options().open(&dir));
        assert_eq!(error.kind(), ErrorKind::MissingSegment, "{error}");
        assert_eq!(error.path(), Some(segment.as_path()));
        fs::rename(&aside, segment).unwrap();
    }
    let swap = |a: &Path, b: &Path| {
        fs::rename(a, &aside).unwrap();
        fs::rename(b, a).unwrap();
        fs::rename(&aside, b).unwrap();
    };
    swap(&segments[1], &segments[2]);
    assert_eq!(refused(&dir, || options().open(&dir)).kind(), ErrorKind::Corruption);
    swap(&segments[1], &segments[2]);
    let other = root.path().join("other");
    options().open(&other).unwrap().define(View::new("by_user").by(["user"])).unwrap();
    let own = fs::read(&segments[0]).unwrap();
    fs::copy(other.join("log/0000000001.qlog"), &segments[0]).unwrap();
    let error = refused(&dir, || options().open(&dir));
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("another directory"), "{error}");
    fs::write(&segments[0], own).unwrap();
    assert_eq!(count(&options().open(&dir).unwrap()), 6_000);
}

#[test]
fn a_damaged_snapshot_is_rebuilt_or_right_and_never_a_wrong_answer() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    db.define(View::new("by_user").by(["user"]).stats("value")).unwrap();
    record(&db, 0, 500);
    db.close().unwrap();
    let store = dir.join("state.redb");
    let original = fs::read(&store).unwrap();
    let (mut reported, mut rebuilt) = (0, 0);
    for at in (0..original.len()).step_by(977) {
        let mut flipped = original.clone();
        flipped[at] ^= 1 << (at % 8);
        let copy = root.path().join("copy");
        copy_dir(&dir, &copy);
        fs::write(copy.join("state.redb"), &flipped).unwrap();
        let answers = (|| {
            let db = options().open(&copy)?;
            let query = db.query("by_user")?;
            let mut rows = Vec::new();
            for row in query.rows()? {
                let row = row?;
                rows.push((row.key[0].clone(), row.count, row.summary().unwrap().sum));
            }
            rebuilt += db.statistics().snapshots_rebuilt;
            Ok::<_, quipu::Error>(rows)
        })();
        match answers {
            Ok(rows) => {
                assert_eq!(rows.len(), 7, "byte {at}");
                assert_eq!(rows.iter().map(|row| row.1).sum::<u64>(), 500, "byte {at}");
                assert_eq!(rows.iter().map(|row| row.2).sum::<f64>(), f64::from(499 * 500 / 2));
            }
            Err(error) => {
                reported += 1;
                assert!(error.path().is_some(), "byte {at}: {error}");
            }
        }
        fs::remove_dir_all(&copy).unwrap();
    }
    assert_eq!(reported, 0, "the log has everything");
    assert!(rebuilt > 0, "no flip was seen: the test does not reach anything");
}
