//! Repair: what is good is kept, what is not is given up by name, and views are what the kept records
//! make of them.

use crate::directory::{contents, crash_image, frames, options, refused, segments};
use crate::model::copy_dir;
use quipu::{
    Action, Component, Db, Depth, ErrorKind, Event, Grain, Keep, Meaning, Repair, Retention,
    Timestamp, View,
};
use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::Path;

fn by_user() -> View {
    View::new("by_user").by(["user"]).stats("value").grain(Grain::Hour, Keep::All)
}

/// Records batches of ten events each.
fn record(db: &Db, batches: Range<u64>) {
    for batch in batches {
        let mut events = db.batch();
        for n in batch * 10..batch * 10 + 10 {
            let user = format!("user {}", n % 7);
            let at = Timestamp::from_secs(1_600_000_000 + n as i64 * 600);
            events.push(&Event::new("e").at(at).dim("user", &user).value(n as f64)).unwrap();
        }
        db.record_batch(&mut events).unwrap();
    }
}

/// Key, count and sum of every series, and the number of its buckets.
fn rows(db: &Db) -> Vec<(String, u64, f64, usize)> {
    let query = db.query("by_user").unwrap();
    let rows = query.rows().unwrap().map(Result::unwrap);
    rows.map(|row| {
        let buckets = query.buckets(&[&row.key[0]], Grain::Hour).unwrap();
        assert_eq!(buckets.iter().map(|bucket| bucket.count).sum::<u64>(), row.count);
        (row.key[0].clone(), row.count, row.summary().unwrap().sum, buckets.len())
    })
    .collect()
}

/// What the batches of these numbers make of the view.
fn model(root: &Path, batches: impl Iterator<Item = u64>) -> Vec<(String, u64, f64, usize)> {
    let dir = root.join("model");
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    batches.for_each(|batch| record(&db, batch..batch + 1));
    let rows = rows(&db);
    drop(db);
    fs::remove_dir_all(dir).unwrap();
    rows
}

/// Overwrites a part of the frame that holds `position`, whose records are ten.
fn damage(segment: &Path, position: u64) {
    let mut bytes = fs::read(segment).unwrap();
    let frame = (64..bytes.len() - 56)
        .step_by(8)
        .find(|at| {
            let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            bytes[*at..].starts_with(b"QFR1") && word(at + 24) == position
        })
        .unwrap();
    bytes[frame + 60..frame + 64].fill(0xee);
    fs::write(segment, bytes).unwrap();
}

/// A directory killed after twelve batches, all synced; the checkpoint is behind `checkpointed`.
fn killed(root: &Path, checkpointed: Option<u64>) -> std::path::PathBuf {
    let (live, image) = (root.join("live"), root.join("image"));
    let db = options().open(&live).unwrap();
    db.define(by_user()).unwrap();
    let middle = checkpointed.unwrap_or(0);
    record(&db, 0..middle);
    if checkpointed.is_some() {
        db.checkpoint().unwrap();
    }
    record(&db, middle..12);
    db.sync().unwrap();
    // The next frame says that it was synced.
    record(&db, 12..13);
    crash_image(&live, &image);
    image
}

#[test]
fn a_batch_that_is_damaged_is_given_up_and_the_views_are_those_of_the_others() {
    let root = tempfile::tempdir().unwrap();
    let dir = killed(root.path(), None);
    // Position 1 is the view's definition.
    let (batch, position) = (5, 52);
    damage(&segments(&dir)[0], position);
    let error = refused(&dir, || options().open(&dir));
    assert_eq!(error.kind(), ErrorKind::Corruption);
    let before = contents(&dir);
    let plan = quipu::repair(&dir, Repair::DryRun, |_| {}).unwrap();
    assert!(contents(&dir) == before, "a dry run changes nothing");
    assert!(!plan.applied && plan.quarantine.is_none());
    let step = &plan.steps[0];
    assert_eq!((step.action, step.records, plan.records_given_up()), (Action::GiveUp, 10, 10));
    assert_eq!((step.given_up[0].first.get(), step.given_up[0].last.get()), (52, 61));

    let done = quipu::repair(&dir, Repair::Apply, |_| {}).unwrap();
    assert_eq!(done.steps, plan.steps);
    let expected = model(root.path(), (0..13).filter(|n| *n != batch));
    let db = options().open(&dir).unwrap();
    assert_eq!(rows(&db), expected);
    // Positions go on where they were; none is given twice.
    let last = db.position().get();
    assert_eq!(last, 1 + 13 * 10);
    record(&db, 13..14);
    assert_eq!(db.position().get(), last + 10);
    // A later view is filled with what the log has.
    db.define(View::new("late").by(["user"])).unwrap();
    assert_eq!(db.backfill("late", |_| ControlFlow::Continue(())).unwrap(), 130);
    db.close().unwrap();
    let report = quipu::verify(&dir, Depth::Refold, |_| {}).unwrap();
    assert!(report.is_intact());
    let given_up: Vec<_> =
        report.findings.iter().filter(|f| f.meaning == Meaning::GivenUp).collect();
    assert_eq!(given_up.len(), 1);
    assert_eq!(given_up[0].positions.unwrap().first.get(), position);
    // Without the snapshot the log could no longer say all that was in it.
    fs::rename(dir.join("state.redb"), root.path().join("aside")).unwrap();
    let error = refused(&dir, || options().open(&dir));
    assert!(error.to_string().contains("52 to 61"), "{error}");
    assert!(!quipu::verify(&dir, Depth::Refold, |_| {}).unwrap().is_intact());
    quipu::repair(&dir, Repair::Apply, |_| {}).unwrap();
    let kept = (0..14).filter(|n| *n != batch);
    assert_eq!(rows(&options().open(&dir).unwrap()), model(root.path(), kept));
}

/// Overwrites a part of a file.
fn overwrite(path: &Path, bytes: Range<usize>) {
    let mut content = fs::read(path).unwrap();
    content[bytes].iter_mut().for_each(|byte| *byte ^= 0x5a);
    fs::write(path, content).unwrap();
}

/// The first batch defines the strings that all of them use.
#[test]
fn a_damaged_batch_costs_those_behind_it_only_where_its_definitions_are_damaged() {
    const EACH: u64 = 500;
    let root = tempfile::tempdir().unwrap();
    let (live, dir) = (root.path().join("live"), root.path().join("image"));
    let db = options().open(&live).unwrap();
    db.define(by_user()).unwrap();
    for batch in 0..7 {
        if batch == 6 {
            db.sync().unwrap();
        }
        let users = (0..EACH).map(|n| format!("user {}", n % 7));
        let mut events = db.batch();
        for user in users {
            let at = Timestamp::from_secs(0);
            events.push(&Event::new("e").at(at).dim("user", &user).value(1.0)).unwrap();
        }
        db.record_batch(&mut events).unwrap();
    }
    crash_image(&live, &dir);
    let segment = segments(&dir).remove(0);
    let whole = fs::read(&segment).unwrap();
    let frame = frames(&whole)[1].clone();
    let word = |at: usize| u32::from_le_bytes(whole[at..at + 4].try_into().unwrap()) as usize;
    let body = frame.start + 56..frame.start + 56 + word(frame.start + 12);
    let definitions = body.end..body.end + word(frame.start + 16);
    assert!(body.len() >= 4_096 && definitions.len() > 11);
    let all = 7 * EACH;
    for (what, bytes, lost) in [
        ("the body", body.clone(), EACH),
        ("two bytes of it", body.start + 100..body.start + 102, EACH),
        ("the definitions", definitions.clone(), all),
        ("their seal", definitions.end - 3..definitions.end, all),
        ("the header", frame.start + 8..frame.start + 40, all),
    ] {
        fs::write(&segment, &whole).unwrap();
        overwrite(&segment, bytes);
        let copy = root.path().join("copy");
        copy_dir(&dir, &copy);
        let done = quipu::repair(&copy, Repair::Apply, |_| {}).unwrap();
        assert_eq!(done.records_given_up(), lost, "{what}: {:?}", done.steps);
        assert!(quipu::verify(&copy, Depth::Refold, |_| {}).unwrap().is_intact(), "{what}");
        let db = options().open(&copy).unwrap();
        let totals = db.query("by_user").unwrap().totals().unwrap();
        let sum = totals.summary().map_or(0.0, |summary| summary.sum);
        assert_eq!((totals.count, sum), (all - lost, (all - lost) as f64), "{what}");
        assert_eq!(db.position().get(), 1 + all, "{what}");
        drop(db);
        fs::remove_dir_all(&copy).unwrap();
    }
}

#[test]
fn what_a_lost_frame_defined_is_missed_for_four_mebibytes_at_the_most() {
    const EPOCH_BYTES: u64 = 4 << 20;
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().segment_bytes(64 << 20).open(&dir).unwrap();
    db.define(View::new("all")).unwrap();
    let payload = vec![7; 8 << 10];
    for _ in 0..80 {
        let event = Event::new("sale").at(Timestamp::from_secs(0)).payload(&payload);
        db.record_all(vec![event; 100], quipu::OnInvalid::Refuse).unwrap();
    }
    db.close().unwrap();
    let large = |path: &Path| fs::metadata(path).unwrap().len() > EPOCH_BYTES * 3 / 2;
    let segment = segments(&dir).into_iter().rfind(|path| large(path)).unwrap();
    let frame_bytes = 100 * (8 << 10) + 4_096;
    overwrite(&segment, 64 + 8..64 + 40);
    let plan = quipu::repair(&dir, Repair::DryRun, |_| {}).unwrap();
    let step = &plan.steps[0];
    assert_eq!((plan.steps.len(), step.action), (1, Action::GiveUp));
    assert!((EPOCH_BYTES..EPOCH_BYTES + frame_bytes).contains(&step.bytes), "{}", step.bytes);
}

#[test]
fn what_the_snapshot_has_of_a_damaged_batch_stays_in_the_views() {
    let root = tempfile::tempdir().unwrap();
    let dir = killed(root.path(), Some(8));
    damage(&segments(&dir)[0], 52);
    damage(&segments(&dir)[0], 102);
    quipu::repair(&dir, Repair::Apply, |_| {}).unwrap();
    let db = options().open(&dir).unwrap();
    // Batch 5 is in the snapshot, batch 10 was behind it.
    assert_eq!(rows(&db), model(root.path(), (0..13).filter(|n| *n != 10)));
}

#[test]
fn a_segment_that_is_lost_leaves_a_hole_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    for session in 0..4 {
        let db = options().open(&dir).unwrap();
        db.define(by_user()).unwrap();
        record(&db, session * 3..session * 3 + 3);
        db.sync().unwrap();
        let copy = root.path().join("copy");
        copy_dir(&dir, &copy);
        drop(db);
        fs::remove_dir_all(&dir).unwrap();
        fs::rename(copy, &dir).unwrap();
    }
    let _ = fs::remove_file(dir.join("state.redb"));
    let with_records: Vec<_> =
        segments(&dir).into_iter().filter(|path| holds_records(path)).collect();
    fs::remove_file(&with_records[1]).unwrap();
    assert_eq!(refused(&dir, || options().open(&dir)).kind(), ErrorKind::MissingSegment);
    let done = quipu::repair(&dir, Repair::Apply, |_| {}).unwrap();
    assert_eq!(done.records_given_up(), 30);
    let kept = (0..12).filter(|batch| !(3..6).contains(batch));
    assert_eq!(rows(&options().open(&dir).unwrap()), model(root.path(), kept));
}

fn holds_records(segment: &Path) -> bool {
    let bytes = fs::read(segment).unwrap();
    let kind = bytes.get(64 + 52).copied();
    matches!(kind, Some(1 | 2))
}

#[test]
fn a_damaged_snapshot_is_rebuilt_when_it_is_opened_and_the_evidence_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..5);
    db.define(View::new("late").by(["user"]).stats("value")).unwrap();
    assert_eq!(db.backfill("late", |_| ControlFlow::Continue(())).unwrap(), 50);
    record(&db, 5..8);
    let expected = rows(&db);
    let late = db.query("late").unwrap().top(9, Component::Count).unwrap();
    db.close().unwrap();
    let store = dir.join("state.redb");
    let whole = fs::read(&store).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for what in ["flipped", "cut", "lost"] {
        let mut bytes = whole.clone();
        match what {
            "flipped" => (8_192..used).step_by(4_096).for_each(|page| bytes[page + 16] ^= 4),
            "cut" => bytes.truncate(used / 2),
            _ => bytes.clear(),
        }
        fs::write(&store, &bytes).unwrap();
        if what == "lost" {
            fs::remove_file(&store).unwrap();
        }
        let db = options().open(&dir).unwrap();
        assert_eq!(rows(&db), expected, "{what}");
        // Filled as it was, without being asked again.
        assert_eq!(db.query("late").unwrap().top(9, Component::Count).unwrap(), late, "{what}");
        assert_eq!(db.statistics().snapshots_rebuilt, u64::from(what != "lost"));
        db.close().unwrap();
        if what != "lost" {
            let places = fs::read_dir(dir.join("quarantine")).unwrap();
            let kept = places.map(|place| fs::read(place.unwrap().path().join("state.redb")));
            assert!(kept.into_iter().any(|kept| kept.unwrap() == bytes), "{what}");
        }
        assert!(quipu::verify(&dir, Depth::Refold, |_| {}).unwrap().is_intact(), "{what}");
    }
}

#[test]
fn of_a_damaged_snapshot_whose_log_was_retired_the_good_rows_are_kept() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..6);
    db.close().unwrap();
    let db = options().retention(Retention::Recovery).open(&dir).unwrap();
    record(&db, 6..7);
    db.checkpoint().unwrap();
    let expected = rows(&db);
    db.close().unwrap();
    assert!(!segments(&dir)[0].ends_with("0000000001.qlog"));
    let store = dir.join("state.redb");
    let mut bytes = fs::read(&store).unwrap();
    // The text of one key, wherever it stands in the rows of series and of buckets.
    let key = b"user 3";
    let places: Vec<usize> =
        (0..bytes.len() - key.len()).filter(|at| bytes[*at..].starts_with(key)).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at + 5] ^= 1;
    }
    fs::write(&store, bytes).unwrap();
    let error = refused(&dir, || options().open(&dir));
    assert_eq!((error.kind(), error.path()), (ErrorKind::Corruption, Some(store.as_path())));
    let report = quipu::verify(&dir, Depth::Refold, |_| {}).unwrap();
    assert!(report.damages().count() > 1, "{report:?}");
    let done = quipu::repair(&dir, Repair::Apply, |_| {}).unwrap();
    assert_eq!(done.steps[0].views, ["by_user"], "{done:?}");
    let left: Vec<_> = expected.into_iter().filter(|row| row.0 != "user 3").collect();
    let db = options().open(&dir).unwrap();
    assert_eq!(rows(&db), left);
    db.close().unwrap();
    assert!(quipu::verify(&dir, Depth::Refold, |_| {}).unwrap().is_intact());
}

#[test]
fn nothing_is_verified_or_repaired_that_is_open_or_not_ours() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    let verified = quipu::verify(&dir, Depth::Refold, |_| {});
    assert_eq!(verified.unwrap_err().kind(), ErrorKind::Locked);
    let repaired = quipu::repair(&dir, Repair::Apply, |_| {});
    assert_eq!(repaired.unwrap_err().kind(), ErrorKind::Locked);
    drop(db);
    let other = root.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.txt"), "x").unwrap();
    for dir in [other.clone(), root.path().join("nowhere")] {
        let verified = quipu::verify(&dir, Depth::Refold, |_| {});
        assert_eq!(verified.unwrap_err().kind(), ErrorKind::NotFound);
        let repaired = quipu::repair(&dir, Repair::Apply, |_| {});
        assert_eq!(repaired.unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
    assert!(!root.path().join("nowhere").exists());
}

#[test]
fn files_that_are_not_ours_are_mentioned_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let dir = killed(root.path(), Some(3));
    fs::write(dir.join("log/notes.txt"), "mine").unwrap();
    fs::write(dir.join("state.redb.new"), "half").unwrap();
    damage(&segments(&dir)[0], 52);
    let done = quipu::repair(&dir, Repair::Apply, |_| {}).unwrap();
    let meanings: Vec<Meaning> = done.findings.iter().map(|finding| finding.meaning).collect();
    assert!(meanings.contains(&Meaning::Foreign) && meanings.contains(&Meaning::Leftover));
    assert_eq!(fs::read(dir.join("log/notes.txt")).unwrap(), b"mine");
}

#[test]
fn what_a_repair_gave_up_is_not_taken_for_nothing_by_who_reads_the_log_again() {
    let root = tempfile::tempdir().unwrap();
    let dir = killed(root.path(), Some(12));
    damage(&segments(&dir)[0], 52);
    quipu::repair(&dir, Repair::Apply, |_| {}).unwrap();
    let db = options().open(&dir).unwrap();
    // The snapshot has them.
    let before = rows(&db);
    assert_eq!(before, model(root.path(), 0..13));

    let others = View::new("by_user").by(["user"]).stats("value").stats("other");
    let error = db.redefine(others, |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LogRetired, "{error}");
    assert!(error.to_string().contains("52 to 61"), "{error}");
    assert_eq!(rows(&db), before);

    // A new view holds what there is.
    db.define(View::new("all")).unwrap();
    db.backfill("all", |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(db.query("all").unwrap().totals().unwrap().count, 120);

    // Other grains are made of what the view holds.
    let days = View::new("by_user").by(["user"]).stats("value").grain(Grain::Day, Keep::All);
    assert!(db.redefine(days, |_| ControlFlow::Continue(())).unwrap());
    let query = db.query("by_user").unwrap();
    for (user, count, sum, _) in before {
        let row = query.get(&[&user]).unwrap().unwrap();
        assert_eq!((row.count, row.summary().unwrap().sum), (count, sum));
        let days = query.buckets(&[&user], Grain::Day).unwrap();
        assert_eq!(days.iter().map(|day| day.count).sum::<u64>(), count);
    }
}
