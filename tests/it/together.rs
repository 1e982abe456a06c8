//! Backups, restored directories, readers and repairs together: what one of them leaves is what the
//! others find.

use crate::directory::{NOW, contents, crash_image, frames, options, refused, segments};
use crate::limits::{call, calls, minute, secs};
use crate::sketches::{self, HOUR, Sale};
use quipu::{
    Action, Db, Depth, ErrorKind, Event, Grain, Keep, Meaning, Policy, Position, Progress,
    ReadOnlyDb, Repair, TestClock, Timestamp, Upto, View, restore,
};
use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

fn quietly(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn by_user() -> View {
    View::new("by_user").by(["user"]).stats("value").grain(Grain::Hour, Keep::All)
}

/// Records batches of ten events each; batch `n` has the values from `10 n` on.
fn record(db: &Db, batches: Range<u64>) {
    for batch in batches {
        let mut events = db.batch();
        for n in batch * 10..batch * 10 + 10 {
            let user = format!("user {}", n % 7);
            let at = Timestamp::from_secs(1_600_000_000 + n as i64 * 600);
            let id = format!("id {n}");
            events
                .push(&Event::new("e").at(at).dim("user", &user).value(n as f64).id(&id))
                .unwrap();
        }
        db.record_batch(&mut events).unwrap();
    }
}

/// Events and the sum of their values.
fn sum(db: &Db) -> (u64, f64) {
    let totals = db.query("by_user").unwrap().totals().unwrap();
    (totals.count, totals.summary().unwrap().sum)
}

fn expected(batches: impl IntoIterator<Item = u64>) -> (u64, f64) {
    let values = batches.into_iter().flat_map(|batch| batch * 10..batch * 10 + 10);
    values.fold((0, 0.0), |(count, sum), value| (count + 1, sum + value as f64))
}

/// Overwrites a part of the frame that begins with `position`.
fn damage(segment: &Path, position: u64) {
    let mut bytes = fs::read(segment).unwrap();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let frame = (64..bytes.len() - 56)
        .step_by(8)
        .find(|at| bytes[*at..].starts_with(b"QFR1") && word(at + 24) == position)
        .unwrap();
    bytes[frame + 60..frame + 64].fill(0xee);
    fs::write(segment, bytes).unwrap();
}

/// A directory without snapshot, of which a repair has given up batch 5: the positions 52 to 61, for
/// the definition has the first one. Twelve batches are in it, and one behind.
fn with_a_hole(root: &Path, checkpointed: Option<u64>) -> PathBuf {
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
    record(&db, 12..13);
    crash_image(&live, &image);
    drop(db);
    damage(&segments(&image)[0], 52);
    let done = quipu::repair(&image, Repair::Apply, |_| {}).unwrap();
    assert_eq!(done.records_given_up(), 10);
    image
}

#[test]
fn a_backup_and_a_restore_that_was_interrupted_are_not_verified_and_not_repaired() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..5);
    db.backup(&backup, quietly).unwrap();
    let half = root.path().join("half");
    let mut calls = 0;
    let stopped = restore(&backup, &half, Upto::Everything, |_| {
        calls += 1;
        if calls > 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Stopped);
    let error = quipu::verify(&half, Depth::Refold, |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotQuipu, "{error}");
    for (place, word) in [(backup, "backup"), (half, "restore")] {
        let before = contents(&place);
        for mode in [Repair::DryRun, Repair::Apply] {
            let error = quipu::repair(&place, mode, |_| {}).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotQuipu, "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(contents(&place) == before);
    }
}

#[test]
fn a_backup_is_verified_against_its_list() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..400);
    db.backup(&backup, quietly).unwrap();
    let before = contents(&backup);
    let report = quipu::verify(&backup, Depth::Refold, |_| {}).unwrap();
    assert!(report.is_intact() && report.segments > 1, "{report:?}");
    assert_eq!(report.last_position, db.position());
    assert!(contents(&backup) == before);
    let store = fs::read_dir(&backup).unwrap().map(|entry| entry.unwrap().path());
    let store = store.into_iter().find(|path| path.extension().is_some()).unwrap();
    for path in [segments(&backup)[0].clone(), store, backup.join("BACKUP")] {
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[whole.len() / 2] ^= 8;
        for bytes in [Some(bytes), Some(whole[..whole.len() / 2].to_vec()), None] {
            match bytes {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None if path.ends_with("BACKUP") => continue,
                None => fs::remove_file(&path).unwrap(),
            }
            // A later backup copies what is new, and does not notice.
            let report = quipu::verify(&backup, Depth::Checksums, |_| {}).unwrap();
            let damages: Vec<&Path> = report.damages().map(|found| found.path.as_path()).collect();
            assert_eq!(damages, [path.as_path()]);
            let to = root.path().join("again");
            let error = restore(&backup, &to, Upto::Everything, quietly).unwrap_err();
            assert!(!matches!(error.kind(), ErrorKind::Io | ErrorKind::NotFound), "{error}");
        }
        fs::write(&path, whole).unwrap();
    }
    assert!(quipu::verify(&backup, Depth::Refold, |_| {}).unwrap().is_intact());
}

#[test]
fn a_damaged_end_and_a_damaged_header_behind_it_are_repaired_at_once() {
    let root = tempfile::tempdir().unwrap();
    let (live, dir) = (root.path().join("live"), root.path().join("image"));
    let db = options().open(&live).unwrap();
    db.define(by_user()).unwrap();
    let mut batches = 0;
    // The segment behind is made when half of the first is used.
    while segments(&live).len() < 2 {
        record(&db, batches..batches + 20);
        db.sync().unwrap();
        batches += 20;
        std::thread::yield_now();
    }
    record(&db, batches..batches + 1);
    crash_image(&live, &dir);
    drop(db);
    damage(&segments(&dir)[0], 52);
    let spare = segments(&dir).pop().unwrap();
    let mut bytes = fs::read(&spare).unwrap();
    bytes[20] ^= 1;
    fs::write(&spare, bytes).unwrap();
    quipu::repair(&dir, Repair::Apply, |_| {}).unwrap();
    let db = options().open(&dir).unwrap();
    assert_eq!(sum(&db), expected((0..=batches).filter(|batch| *batch != 5)));
    db.close().unwrap();
    assert!(quipu::verify(&dir, Depth::Refold, |_| {}).unwrap().is_intact());
}

#[test]
fn a_reader_does_not_take_a_log_with_a_hole_for_all_there_was() {
    let root = tempfile::tempdir().unwrap();
    let dir = with_a_hole(root.path(), None);
    // The repair has written a snapshot that says where it begins; with it all is well.
    let kept = || expected((0..13).filter(|batch| *batch != 5));
    let reader = ReadOnlyDb::open(&dir).unwrap();
    let totals = reader.query("by_user").unwrap().totals().unwrap();
    assert_eq!((totals.count, totals.summary().unwrap().sum), kept());
    fs::remove_file(dir.join("state.redb")).unwrap();
    let error = refused(&dir, || ReadOnlyDb::open(&dir));
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    assert!(error.to_string().contains("52 to 61"), "{error}");
    assert_eq!(refused(&dir, || options().open(&dir)).kind(), ErrorKind::Corruption);
}

/// What is refused last is the hole, when the end of the log was read and found to be torn.
#[test]
fn an_opening_that_is_refused_leaves_the_torn_end_of_the_log_and_no_lock() {
    let root = tempfile::tempdir().unwrap();
    let (dir, killed) = (with_a_hole(root.path(), None), root.path().join("killed"));
    let db = options().open(&dir).unwrap();
    record(&db, 13..15);
    crash_image(&dir, &killed);
    drop(db);
    let last = segments(&killed).into_iter().rfind(|path| has_frames(path)).unwrap();
    let mut bytes = fs::read(&last).unwrap();
    let frame = frames(&bytes).pop().unwrap();
    bytes[frame.start + 70..frame.end].fill(0);
    fs::write(&last, &bytes).unwrap();
    for name in ["state.redb", "LOCK"] {
        fs::remove_file(killed.join(name)).unwrap();
        let error = refused(&killed, || options().open(&killed));
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        assert!(error.to_string().contains("52 to 61"), "{error}");
    }
    // It was torn, and what is in front of it is there when the hole is said to be all right.
    quipu::repair(&killed, Repair::Apply, |_| {}).unwrap();
    let db = options().open(&killed).unwrap();
    assert_eq!(db.position().get(), 1 + 14 * 10);
}

fn has_frames(segment: &Path) -> bool {
    fs::read(segment).unwrap()[64..].starts_with(b"QFR1")
}

#[test]
fn a_repaired_directory_is_backed_up_and_restored_with_its_hole() {
    let root = tempfile::tempdir().unwrap();
    // Batch 5 is in the snapshot and no longer in the log.
    let dir = with_a_hole(root.path(), Some(8));
    let backup = root.path().join("backup");
    let reader = ReadOnlyDb::open(&dir).unwrap();
    reader.backup(&backup, quietly).unwrap();
    let at = |upto: Upto, name: &str| {
        let to = root.path().join(name);
        let restored = restore(&backup, &to, upto, quietly);
        let restored = match restored {
            Ok(restored) => restored,
            Err(error) => {
                let opened = options().open(&to).map(drop);
                assert_eq!(opened.unwrap_err().kind(), ErrorKind::NotQuipu, "{upto:?}");
                return Err(error);
            }
        };
        let report = quipu::verify(&to, Depth::Refold, |_| {}).unwrap();
        assert!(report.is_intact(), "{upto:?}: {report:?}");
        let db = options().open(&to).unwrap();
        assert_eq!(db.position(), restored.position, "{upto:?}");
        Ok(sum(&db))
    };
    assert_eq!(at(Upto::Everything, "all").unwrap(), expected(0..13));
    assert_eq!(at(Upto::Position(101.into()), "ten").unwrap(), expected(0..10));
    // Before the hole the log says all.
    assert_eq!(at(Upto::Position(51.into()), "five").unwrap(), expected(0..5));
    // Between the hole and the snapshot nothing does.
    for (n, upto) in
        [Upto::Position(61.into()), Upto::Position(71.into()), Upto::EventTime(Timestamp::MAX)]
            .into_iter()
            .enumerate()
    {
        let error = at(upto, &format!("none{n}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LogRetired, "{upto:?}: {error}");
        assert!(error.to_string().contains("52 to 61"), "{upto:?}: {error}");
    }
}

#[test]
fn a_position_inside_of_a_hole_behind_the_snapshot_can_be_restored() {
    let root = tempfile::tempdir().unwrap();
    let dir = with_a_hole(root.path(), Some(3));
    let backup = root.path().join("backup");
    ReadOnlyDb::open(&dir).unwrap().backup(&backup, quietly).unwrap();
    for (position, batches) in [(51, 0..5), (52, 0..5), (55, 0..5), (61, 0..5)] {
        let to = root.path().join(format!("at{position}"));
        let outcome = restore(&backup, &to, Upto::Position(position.into()), quietly).unwrap();
        assert_eq!(outcome.position, Position::from(position));
        let db = options().open(&to).unwrap();
        assert_eq!((db.position().get(), sum(&db)), (position, expected(batches)));
        record(&db, 0..1);
        db.close().unwrap();
        assert!(quipu::verify(&to, Depth::Refold, |_| {}).unwrap().is_intact());
    }
}

#[test]
fn a_reader_goes_on_after_a_repair() {
    let root = tempfile::tempdir().unwrap();
    let (live, dir) = (root.path().join("live"), root.path().join("image"));
    let db = options().open(&live).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..12);
    db.sync().unwrap();
    record(&db, 12..13);
    crash_image(&live, &dir);
    drop(db);
    let reader = ReadOnlyDb::open(&dir).unwrap();
    let read = |reader: &ReadOnlyDb| reader.query("by_user").unwrap().totals().unwrap().count;
    assert_eq!(read(&reader), 130);
    damage(&segments(&dir)[0], 52);
    quipu::repair(&dir, Repair::Apply, |_| {}).unwrap();
    let db = options().open(&dir).unwrap();
    record(&db, 13..15);
    db.sync().unwrap();
    record(&db, 15..16);
    assert_eq!(reader.refresh().unwrap(), db.position());
    assert_eq!(read(&reader), sum(&db).0);
}

#[test]
fn a_backup_from_before_a_repair_says_that_it_has_another_history() {
    let root = tempfile::tempdir().unwrap();
    let (live, dir) = (root.path().join("live"), root.path().join("image"));
    let backup = root.path().join("backup");
    let db = options().open(&live).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..12);
    db.backup(&backup, quietly).unwrap();
    record(&db, 12..13);
    crash_image(&live, &dir);
    drop(db);
    damage(&segments(&dir)[0], 52);
    quipu::repair(&dir, Repair::Apply, |_| {}).unwrap();
    let before = contents(&backup);
    let db = options().open(&dir).unwrap();
    let error = db.backup(&backup, quietly).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("repaired"), "{error}");
    let named = |all: &std::collections::BTreeMap<PathBuf, _>| {
        all.keys().filter(|path| path.ends_with("BACKUP")).count()
    };
    assert_eq!(named(&before), 1);
    let to = root.path().join("again");
    assert_eq!(restore(&backup, &to, Upto::Everything, quietly).unwrap().position.get(), 121);
}

#[test]
fn a_state_in_the_middle_of_a_backfill_is_restored_as_the_state_of_that_position() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..5);
    db.define(View::new("late").by(["user"]).stats("value")).unwrap();
    let asked = db.position().get() + 1;
    db.backfill("late", quietly).unwrap();
    let done = db.position().get();
    assert_eq!(done, asked + 1);
    record(&db, 5..6);
    db.backup(&backup, quietly).unwrap();
    for position in asked - 1..=done + 1 {
        let to = root.path().join(format!("at{position}"));
        let outcome = restore(&backup, &to, Upto::Position(position.into()), quietly).unwrap();
        let at = options().open(&to).unwrap();
        assert_eq!((outcome.position, at.position().get()), (at.position(), position));
        let count = at.query("late").map(|query| query.totals().unwrap().count);
        if position == asked {
            assert_eq!(count.unwrap_err().kind(), ErrorKind::Backfilling);
            assert_eq!(at.backfill("late", quietly).unwrap(), 50);
        } else {
            assert_eq!(count.unwrap(), [0, 0, 50, 51][(position + 1 - asked) as usize]);
        }
        at.close().unwrap();
        assert!(quipu::verify(&to, Depth::Refold, |_| {}).unwrap().is_intact());
    }
}

#[test]
fn what_a_repair_that_died_leaves_is_not_taken_for_another_program_s() {
    let root = tempfile::tempdir().unwrap();
    let dir = with_a_hole(root.path(), None);
    fs::write(dir.join("state.repaired"), "half").unwrap();
    let report = quipu::verify(&dir, Depth::Refold, |_| {}).unwrap();
    let of = |name: &str| report.findings.iter().find(|finding| finding.path.ends_with(name));
    assert_eq!(of("state.repaired").unwrap().meaning, Meaning::Leftover);
}

#[test]
fn a_reader_of_a_damaged_snapshot_is_right_or_says_so() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..400);
    db.close().unwrap();
    let all = |reader: &ReadOnlyDb| -> quipu::Result<Vec<quipu::Row>> {
        let query = reader.query("by_user")?;
        let rows: Vec<quipu::Row> = query.rows()?.collect::<quipu::Result<_>>()?;
        for row in &rows {
            assert!(query.get(&[&row.key[0]])?.as_ref() == Some(row));
            let buckets = query.buckets(&[&row.key[0]], Grain::Hour)?;
            assert_eq!(buckets.iter().map(|bucket| bucket.count).sum::<u64>(), row.count);
        }
        Ok(rows)
    };
    let right = all(&ReadOnlyDb::open(&dir).unwrap()).unwrap();
    let store = dir.join("state.redb");
    let whole = fs::read(&store).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let (mut told, mut wrong) = (0, Vec::new());
    for at in (0..used)
        .step_by(97)
        .filter(|at| whole[at / 4096 * 4096..].iter().take(4096).any(|b| *b != 0))
    {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&store, &bytes).unwrap();
        match ReadOnlyDb::open(&dir).and_then(|reader| all(&reader)) {
            Ok(rows) if rows == right => {}
            Ok(rows) => wrong.push((at, rows.len())),
            Err(error) => {
                told += 1;
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
                assert_eq!(error.path(), Some(store.as_path()), "{error}");
            }
        }
        assert!(!dir.join("quarantine").exists());
    }
    assert!(wrong.is_empty(), "{wrong:?}, {told} told");
    assert!(told > 0);
}

#[test]
fn a_snapshot_that_rots_while_it_is_used_is_not_backed_up() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..40);
    db.backup(&backup, quietly).unwrap();
    record(&db, 40..41);
    db.checkpoint().unwrap();
    // A bit of an old row, wherever it lies.
    let store = dir.join("state.redb");
    let mut bytes = fs::read(&store).unwrap();
    let key = b"user 3";
    let places = (0..bytes.len() - key.len()).filter(|at| bytes[*at..].starts_with(key));
    for at in places.collect::<Vec<_>>() {
        bytes[at + 5] ^= 1;
    }
    fs::write(&store, bytes).unwrap();
    for error in [
        ReadOnlyDb::open(&dir).and_then(|reader| reader.backup(&backup, quietly)).unwrap_err(),
        db.backup(&backup, quietly).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        assert_eq!(error.path(), Some(store.as_path()), "{error}");
    }
    let to = root.path().join("again");
    assert_eq!(restore(&backup, &to, Upto::Everything, quietly).unwrap().position.get(), 401);
}

/// Everything that a directory with sketches and policies says, sketches by their bytes.
fn sketches_and_policies(db: &Db) -> Vec<String> {
    let mut out = Vec::new();
    let query = db.query("sales").unwrap();
    for row in query.rows().unwrap().map(Result::unwrap) {
        let hours = query.buckets(&[&row.key[0]], Grain::Hour).unwrap();
        let summary = (&row.key, row.count, &row.stats);
        out.push(format!("{summary:?} {:?}", sketches::canonical(&row.sketches)));
        out.extend(hours.iter().map(|hour| {
            let summary = (hour.start, hour.count, &hour.stats);
            format!("{summary:?} {:?}", sketches::canonical(&hour.sketches))
        }));
    }
    out.push(format!("{:?}", query.totals().unwrap().count));
    for status in db.policies().unwrap() {
        let limiter = db.limiter(status.policy.name()).unwrap();
        let asked = ["alice", "bob"]
            .map(|key| (limiter.usage(&call(key)).unwrap(), limiter.check(&call(key)).unwrap()));
        out.push(format!("{} {asked:?}", status.policy));
    }
    out
}

fn assert_same(got: &[String], want: &[String], what: &str) {
    let wrong = got.iter().zip(want).position(|(got, want)| got != want);
    assert!(wrong.is_none(), "{what}: {} for {}", got[wrong.unwrap()], want[wrong.unwrap()]);
    assert_eq!(got.len(), want.len(), "{what}");
}

#[test]
fn sketches_and_policies_are_the_same_after_a_repair_and_in_what_was_restored() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    // Thirty hours before the last sale.
    let began = NOW - 31 * HOUR;
    let clock = TestClock::at(Timestamp::from_secs(began));
    let opened = |dir: &Path| {
        let views = options().view(calls()).view(sketches::view());
        views.clock(clock.clone()).open(dir).unwrap()
    };
    let with_policies = |dir: &Path| {
        let db = opened(dir);
        db.set_policy(Policy::new("api").at_most("calls", 3, minute())).unwrap();
        db.set_policy(Policy::new("next").at_most("calls", 2, minute()).shadow(true)).unwrap();
        db
    };
    let called = |db: &Db, key: &str| {
        let verdict = db.limiter("api").unwrap().check_and_record(&call(key)).unwrap();
        assert!(verdict.is_allowed());
    };
    let sales = sketches::sales(0..9_000);
    let db = with_policies(&path("db"));
    sketches::record(&db, &sales[..5_000]);
    called(&db, "alice");
    called(&db, "alice");
    db.checkpoint().unwrap();
    clock.advance(secs(20));
    let moment = Timestamp::from_secs(began + 10);
    called(&db, "alice");
    sketches::record(&db, &sales[5_000..]);
    called(&db, "bob");
    db.sync().unwrap();
    let said = sketches_and_policies(&db);
    assert!(said.len() > 40 && said.iter().any(|line| line.contains("Denied")));

    // Killed, with a flipped bit in the log and half of the snapshot.
    crash_image(&path("db"), &path("killed"));
    let damaged = segments(&path("killed")).remove(0);
    let mut bytes = fs::read(&damaged).unwrap();
    let all = frames(&bytes);
    let frame = all[all.len() / 2].clone();
    bytes[frame.start + frame.len() / 2] ^= 1 << 5;
    fs::write(&damaged, &bytes).unwrap();
    let store = path("killed").join("state.redb");
    let whole = fs::read(&store).unwrap();
    fs::write(&store, &whole[..whole.len() / 2]).unwrap();
    let done = quipu::repair(path("killed"), Repair::Apply, |_| {}).unwrap();
    let actions: Vec<Action> = done.steps.iter().map(|step| step.action).collect();
    assert_eq!((actions, done.records_given_up()), (vec![Action::Mend, Action::Rebuild], 0));
    let repaired = opened(&path("killed"));
    assert_same(&sketches_and_policies(&repaired), &said, "after a repair");
    drop(repaired);
    assert!(quipu::verify(path("killed"), Depth::Refold, |_| {}).unwrap().is_intact());

    // What the owner and a reader back up, restored as a whole and up to its end.
    db.backup(path("backup"), quietly).unwrap();
    let reader = ReadOnlyDb::open(path("killed")).unwrap();
    reader.backup(path("backup of the repaired"), quietly).unwrap();
    for backup in ["backup", "backup of the repaired"] {
        for (n, upto) in [Upto::Everything, Upto::Position(db.position())].into_iter().enumerate() {
            let to = path(&format!("{backup} {n}"));
            restore(path(backup), &to, upto, quietly).unwrap();
            let restored = sketches_and_policies(&opened(&to));
            assert_same(&restored, &said, &format!("{backup}, {upto:?}"));
            assert!(quipu::verify(&to, Depth::Refold, |_| {}).unwrap().is_intact());
        }
    }

    // As of an earlier event time: as if what came later had not been recorded.
    restore(path("backup"), path("earlier"), Upto::EventTime(moment), quietly).unwrap();
    clock.set(Timestamp::from_secs(began));
    let fresh = with_policies(&path("fresh"));
    let is_before = |sale: &&Sale| sale.hour * HOUR + 7 <= began + 10;
    let before: Vec<Sale> = sales.iter().filter(is_before).cloned().collect();
    assert!((1_000..8_000).contains(&before.len()));
    sketches::record(&fresh, &before);
    called(&fresh, "alice");
    called(&fresh, "alice");
    clock.set(Timestamp::from_secs(began + 20));
    let earlier = opened(&path("earlier"));
    let want = sketches_and_policies(&fresh);
    assert_same(&sketches_and_policies(&earlier), &want, "as of an earlier time");
    assert!(want != said);
}
