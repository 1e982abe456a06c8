//! Single events wait for each other before they go into the log and the views; nobody can tell.

use crate::directory::{NOW, contents, crash_image, options, segments};
use quipu::{
    Db, Dedup, Depth, Durability, ErrorKind, Event, Grain, Keep, Meaning, ReadOnlyDb, TestClock,
    Timestamp, Upto, View,
};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

fn by_user() -> View {
    View::new("by_user").by(["user"]).stats("value")
}

fn record(db: &Db, events: std::ops::Range<u64>) {
    for n in events {
        let user = format!("user{}", n % 7);
        let event = Event::new("sale").dim("user", &user).value(n as f64);
        db.record_with(&event, Durability::Memory).unwrap();
    }
}

fn count(db: &Db) -> u64 {
    db.query("by_user").unwrap().totals().unwrap().count
}

/// The bytes of the log that are not blank.
fn log_bytes(dir: &Path) -> usize {
    let filled = |path: &std::path::PathBuf| {
        fs::read(path).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
    };
    segments(dir).iter().map(filled).sum()
}

#[test]
fn a_question_answers_with_every_event_that_was_acknowledged() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    db.define(by_user()).unwrap();
    let query = db.query("by_user").unwrap();
    for n in 0..300 {
        record(&db, n..n + 1);
        if n % 5 == 0 {
            assert_eq!(query.totals().unwrap().count, n + 1);
        }
        let user = format!("user{}", n % 7);
        if n % 7 == 3 {
            assert_eq!(query.get(&[&user]).unwrap().unwrap().count, n / 7 + 1);
        }
        assert_eq!((db.position().get(), db.statistics().events), (n + 2, n + 1));
    }
    assert_eq!(query.rows().unwrap().count(), 7);
    assert_eq!(query.key_count().unwrap(), 7);
}

#[test]
fn events_that_come_one_by_one_take_the_log_little_more_than_a_batch() {
    let root = tempfile::tempdir().unwrap();
    let (singles, batch) = (root.path().join("singles"), root.path().join("batch"));
    let db = options().open(&singles).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..5_000);
    db.close().unwrap();
    let db = options().open(&batch).unwrap();
    db.define(by_user()).unwrap();
    let mut events = db.batch();
    for n in 0..5_000_u64 {
        let user = format!("user{}", n % 7);
        events.push(&Event::new("sale").dim("user", &user).value(n as f64)).unwrap();
    }
    db.record_batch(&mut events).unwrap();
    db.close().unwrap();
    assert!(log_bytes(&singles) < log_bytes(&batch) * 3 / 2);
}

#[test]
fn what_is_staged_when_the_process_dies_is_there_when_it_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    for events in [0, 1, 7, 127, 128, 129, 400] {
        record(&db, 0..events);
        let before = (count(&db), log_bytes(&dir));
        record(&db, 0..3);
        assert_eq!(log_bytes(&dir), before.1, "the three are in the stage");
        let image = root.path().join(format!("image{events}"));
        crash_image(&dir, &image);
        let again = options().open(&image).unwrap();
        assert_eq!(count(&again), before.0 + 3);
        assert_eq!(again.position(), db.position());
        assert!(!image.join("STAGE").exists(), "they are in the log now");
        // And stay so, whatever became of them since.
        record(&again, 0..2);
        let second = root.path().join(format!("second{events}"));
        crash_image(&image, &second);
        assert_eq!(count(&options().open(&second).unwrap()), before.0 + 5);
        assert_eq!(count(&db), before.0 + 3);
    }
    db.close().unwrap();
    assert!(!dir.join("STAGE").exists());
}

#[test]
fn a_stage_that_was_brought_in_is_not_counted_twice() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..50);
    let stage = fs::read(dir.join("STAGE")).unwrap();
    assert_eq!(count(&db), 50);
    db.sync().unwrap();
    let image = root.path().join("image");
    crash_image(&dir, &image);
    fs::write(image.join("STAGE"), &stage).unwrap();
    assert_eq!(count(&options().open(&image).unwrap()), 50);
    let again = root.path().join("again");
    crash_image(&dir, &again);
    fs::write(again.join("STAGE"), &stage[..70]).unwrap();
    assert_eq!(count(&options().open(&again).unwrap()), 50, "cut in a record: that one is none");
}

#[test]
fn a_stage_with_a_damaged_header_is_named_and_put_aside_by_a_repair() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..50);
    db.sync().unwrap();
    record(&db, 50..60);
    let killed = root.path().join("killed");
    crash_image(&dir, &killed);
    // Upkeep in the background may have brought them in by then.
    let bare = root.path().join("bare");
    crash_image(&killed, &bare);
    fs::remove_file(bare.join("STAGE")).unwrap();
    let in_log = count(&options().open(&bare).unwrap());
    let mut flipped = fs::read(killed.join("STAGE")).unwrap();
    // One flipped bit is turned back.
    flipped[33] ^= 5;
    for (n, bytes) in [&flipped[..], &flipped[64..], b"", &[7; 5_000]].into_iter().enumerate() {
        let image = root.path().join(format!("image{n}"));
        crash_image(&killed, &image);
        let stage = image.join("STAGE");
        fs::write(&stage, bytes).unwrap();
        let before = contents(&image);
        let error = options().open(&image).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Corruption, Some(&*stage)));
        let error = ReadOnlyDb::open(&image).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Corruption, Some(&*stage)));
        let report = quipu::verify(&image, Depth::Refold, |_| {}).unwrap();
        assert_eq!(report.damages().map(|found| found.path.clone()).collect::<Vec<_>>(), [stage]);
        assert!(contents(&image) == before);
        let done = quipu::repair(&image, quipu::Repair::Apply, |_| {}).unwrap();
        assert_eq!(done.steps.len(), 1);
        let kept = done.quarantine.unwrap().join("STAGE");
        assert_eq!(fs::read(kept).unwrap(), bytes);
        assert_eq!(count(&options().open(&image).unwrap()), in_log);
    }
}

#[test]
fn a_staged_event_that_has_a_right_checksum_and_is_none_is_named_where_it_is() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..10);
    let image = root.path().join("image");
    crash_image(&dir, &image);
    let stage = image.join("STAGE");
    let mut bytes = fs::read(&stage).unwrap();
    // The second record: its flags say what no version knows, and its checksum is made anew.
    let length = |bytes: &[u8], at: usize| {
        usize::from(u16::from_le_bytes(bytes[at + 4..at + 6].try_into().unwrap()))
    };
    let at = 64 + (16 + length(&bytes, 64)).next_multiple_of(8);
    bytes[at + 16 + 8] |= 0x80;
    let event_bytes = length(&bytes, at);
    crate::forged::stage::seal(&mut bytes, at, event_bytes);
    fs::write(&stage, &bytes).unwrap();
    let before = contents(&image);
    let error = options().open(&image).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Corruption, Some(&*stage)));
    assert_eq!(error.offset(), Some(at as u64), "{error}");
    let report = quipu::verify(&image, Depth::Refold, |_| {}).unwrap();
    let damages: Vec<_> = report.damages().collect();
    assert_eq!(damages.len(), 1, "{report:?}");
    assert_eq!(damages[0].path, stage);
    assert!(damages[0].what.contains("the staged event of position"), "{report:?}");
    let error = ReadOnlyDb::open(&image).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Corruption, Some(&*stage)));
    assert!(contents(&image) == before);
    let done = quipu::repair(&image, quipu::Repair::Apply, |_| {}).unwrap();
    assert_eq!((done.steps.len(), done.records_given_up()), (1, 9), "{done:?}");
    assert!(fs::read(done.quarantine.unwrap().join("STAGE")).unwrap() == bytes);
    assert!(quipu::verify(&image, Depth::Refold, |_| {}).unwrap().is_intact());
    assert_eq!(count(&options().open(&image).unwrap()), 1);
}

#[test]
fn readers_see_what_is_staged_and_what_became_of_it_once() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..10);
    let reader = ReadOnlyDb::open(&dir).unwrap();
    let seen = |reader: &ReadOnlyDb| reader.query("by_user").unwrap().totals().unwrap().count;
    assert_eq!((seen(&reader), reader.position()), (10, db.position()));
    let mut recorded = 10;
    for step in 0..40 {
        record(&db, recorded..recorded + step);
        recorded += step;
        match step % 4 {
            0 => drop(db.sync().unwrap()),
            1 => db.checkpoint().unwrap(),
            _ => {}
        }
        assert_eq!(reader.refresh().unwrap(), db.position());
        assert_eq!((seen(&reader), reader.statistics().events), (recorded, recorded));
    }
    record(&db, 0..5);
    let backup = root.path().join("backup");
    let go_on = |_| ControlFlow::Continue(());
    reader.refresh().unwrap();
    let taken = reader.backup(&backup, go_on).unwrap();
    assert_eq!(taken.position, db.position());
    for (n, upto) in [
        Upto::Everything,
        Upto::Position(taken.position),
        Upto::Position((taken.position.get() - 2).into()),
        Upto::EventTime(Timestamp::MAX),
    ]
    .into_iter()
    .enumerate()
    {
        let to = root.path().join(format!("to{n}"));
        quipu::restore(&backup, &to, upto, go_on).unwrap();
        let left_out = if n == 2 { 2 } else { 0 };
        assert_eq!(count(&options().open(&to).unwrap()), recorded + 5 - left_out);
    }
    assert!(quipu::verify(&backup, Depth::Refold, |_| {}).unwrap().findings.is_empty());
    // A flipped bit in the backup's stage is damage, and an owner's backup has none.
    let staged = |dir: &Path| {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.to_string_lossy().contains("stage-")).collect::<Vec<_>>()
    };
    let [path] = &staged(&backup)[..] else { panic!("one stage is in the backup") };
    let mut bytes = fs::read(path).unwrap();
    bytes[100] ^= 1;
    fs::write(path, bytes).unwrap();
    assert_eq!(quipu::verify(&backup, Depth::Refold, |_| {}).unwrap().findings.len(), 1);
    let error = quipu::restore(&backup, root.path().join("no"), Upto::Everything, go_on);
    assert_eq!(error.unwrap_err().kind(), quipu::ErrorKind::Corruption);
    db.backup(&backup, go_on).unwrap();
    assert!(staged(&backup).is_empty());
}

#[test]
fn a_caller_is_told_that_its_event_was_late_also_where_events_wait() {
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let db = options().clock(clock.clone()).open(root.path().join("db")).unwrap();
    db.define(View::new("hours").grain(Grain::Hour, Keep::Last(2))).unwrap();
    let at = |hours: u64| {
        let time = Timestamp::from_secs(NOW).saturating_sub(Duration::from_secs(hours * 3_600));
        db.record(&Event::new("e").at(time)).unwrap().late
    };
    assert_eq!([5, 1, 0, 1, 2, 0].map(at), [false, false, false, false, true, false]);
    assert_eq!(db.statistics().late, 1);
    assert_eq!(db.query("hours").unwrap().totals().unwrap().count, 6);
}

#[test]
fn a_duplicate_is_durable_with_what_was_gathered_before_it() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().dedup(Dedup::Last(100)).open(&dir).unwrap();
    db.define(by_user()).unwrap();
    db.record(&Event::new("sale").id("one").dim("user", "a")).unwrap();
    record(&db, 0..5);
    let again = Event::new("sale").id("one").dim("user", "a");
    let twice = db.record_with(&again, Durability::Sync).unwrap();
    assert!(twice.duplicate);
    assert_eq!((twice.position, db.durable_position()), (db.position(), db.position()));
}

#[test]
fn a_restore_as_of_a_time_of_recording_parts_events_that_came_apart() {
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let dir = root.path().join("db");
    let db = options().clock(clock.clone()).open(&dir).unwrap();
    db.define(by_user()).unwrap();
    for second in 0..10 {
        clock.set(Timestamp::from_secs(NOW + second));
        record(&db, 0..4);
    }
    let (backup, to) = (root.path().join("backup"), root.path().join("to"));
    db.backup(&backup, |_| ControlFlow::Continue(())).unwrap();
    let upto = Upto::RecordedAt(Timestamp::from_secs(NOW + 4));
    quipu::restore(&backup, &to, upto, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(count(&options().open(&to).unwrap()), 20);
}

#[test]
fn single_events_of_many_dimensions_and_measures_fit_into_frames() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    db.define(View::new("all").stats("value")).unwrap();
    for n in 0..40 {
        let names: Vec<String> = (0..28).map(|part| format!("part{n}of{part}")).collect();
        let event = Event::new("wide").value(1.0);
        let event = names.iter().fold(event, |event, name| match n % 2 {
            0 => event.dim(name, "x"),
            _ => event.measure(name, 1.0),
        });
        db.record_with(&event, Durability::Memory).unwrap();
    }
    let image = root.path().join("image");
    crash_image(&dir, &image);
    for db in [db, options().open(&image).unwrap()] {
        assert_eq!(db.query("all").unwrap().totals().unwrap().count, 40);
        db.close().unwrap();
    }
}

#[test]
fn a_stage_that_a_dead_process_left_is_not_taken_for_another_program_s() {
    let root = tempfile::tempdir().unwrap();
    let (dir, image) = (root.path().join("db"), root.path().join("image"));
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..5);
    crash_image(&dir, &image);
    fs::write(image.join("STAGE.new"), "half").unwrap();
    // Called foreign, it might be deleted, and what was acknowledged with it.
    let report = quipu::verify(&image, Depth::Refold, |_| {}).unwrap();
    let of = |name: &str| report.findings.iter().find(|finding| finding.path.ends_with(name));
    assert!(of("STAGE").is_none(), "{report:?}");
    assert_eq!(of("STAGE.new").unwrap().meaning, Meaning::Leftover);
}
