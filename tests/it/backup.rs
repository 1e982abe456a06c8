//! Backups and what is restored of them: the state of one position, exactly, or an error.

use crate::directory::{contents, crash_image, options, refused, segments};
use quipu::{
    BackupOutcome, Db, Dedup, Durability, ErrorKind, Event, Grain, Keep, Position, Progress,
    ReadOnlyDb, Retention, Row, TestClock, Timestamp, Upto, View, restore,
};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

fn quietly(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn rows(db: &Db, view: &str) -> Vec<Row> {
    db.query(view).unwrap().rows().unwrap().map(Result::unwrap).collect()
}

/// All answers of all views.
fn answers(db: &Db) -> BTreeMap<String, String> {
    let views = db.views().unwrap();
    let answer = |status: &quipu::ViewStatus| {
        let query = db.query(status.view.name()).unwrap();
        let rows: Vec<Row> = query.rows().unwrap().map(Result::unwrap).collect();
        let mut text = format!("{:?} {} {rows:?}", status.view, status.keys);
        for row in &rows {
            let key: Vec<&str> = row.key.iter().map(String::as_str).collect();
            for (grain, _) in status.view.grains() {
                write!(text, " {:?}", query.buckets(&key, *grain).unwrap()).unwrap();
            }
        }
        (status.view.name().to_owned(), text)
    };
    views.iter().map(answer).collect()
}

/// Event `n` of the model.
fn event(n: u64) -> (String, f64, Timestamp) {
    let minutes = n * 7_919 % 4_000;
    (format!("u{}", n % 5), n as f64, Timestamp::from_secs(minutes as i64 * 60))
}

fn record(db: &Db, events: impl IntoIterator<Item = u64>) {
    let payload = [7; 300];
    for n in events {
        let (user, value, at) = event(n);
        db.record(&Event::new("sale").dim("user", &user).value(value).at(at).payload(&payload))
            .unwrap();
    }
}

fn record_batch(db: &Db, events: impl IntoIterator<Item = u64>) {
    let mut batch = db.batch();
    for n in events {
        let (user, value, at) = event(n);
        let (id, entity) = (format!("id{n}"), format!("order{}", n / 3));
        let event = Event::new("sale").dim("user", &user).value(value).at(at);
        batch.push(&event.id(&id).entity(&entity)).unwrap();
    }
    db.record_batch(&mut batch).unwrap();
}

fn by_user() -> View {
    View::new("by_user").by(["user"]).stats("value").grain(Grain::Hour, Keep::Last(20))
}

fn restored(backup: &Path, to: &Path, upto: Upto) -> (Db, Position) {
    let outcome = restore(backup, to, upto, quietly).unwrap();
    let db = options().open(to).unwrap();
    assert_eq!((outcome.position, outcome.events), (db.position(), db.statistics().events));
    assert_eq!(outcome.views, db.views().unwrap().len() as u64);
    (db, outcome.position)
}

#[test]
fn a_backup_under_concurrent_recording_is_a_prefix_of_it() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().checkpoint_every(Duration::from_millis(20)).open(&dir).unwrap();
    db.define(View::new("by_thread").by(["thread"]).stats("value")).unwrap();
    let stop = AtomicBool::new(false);
    let taken: Vec<BackupOutcome> = std::thread::scope(|scope| {
        for thread in 0..3 {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || {
                let name = format!("t{thread}");
                let mut next = 0_u32;
                while !stop.load(SeqCst) {
                    let mut batch = db.batch();
                    for _ in 0..=thread * 20 {
                        let event = Event::new("e").dim("thread", &name).value(f64::from(next));
                        batch.push(&event).unwrap();
                        next += 1;
                    }
                    db.record_batch(&mut batch).unwrap();
                }
            });
        }
        let taken = (0..6).map(|n| {
            std::thread::sleep(Duration::from_millis(30));
            // Two series: one that is added to, and one that is new each time.
            db.backup(root.path().join(format!("backup{n}")), quietly).unwrap();
            db.backup(&backup, quietly).unwrap()
        });
        let taken = taken.collect();
        stop.store(true, SeqCst);
        taken
    });
    assert!(taken.windows(2).all(|pair| pair[0].position < pair[1].position));
    for n in 0..7 {
        let from = if n == 6 { backup.clone() } else { root.path().join(format!("backup{n}")) };
        let (again, position) =
            restored(&from, &root.path().join(format!("again{n}")), Upto::Everything);
        let rows = rows(&again, "by_thread");
        let mut events = 0;
        for row in &rows {
            let (count, stats) = (row.count, row.summary().unwrap());
            assert_eq!(stats.sum, (count * (count - 1) / 2) as f64, "each is a prefix");
            events += count;
        }
        assert_eq!(events, position.get() - 1, "all up to the position, the definition is one");
        if n == 6 {
            assert_eq!(position, taken[5].position);
        }
        // It is a directory like any other.
        record(&again, 0..10);
        again.close().unwrap();
    }
}

#[test]
fn a_second_backup_copies_what_is_new() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..1_000);
    let mut told = Vec::new();
    let first = db
        .backup(&backup, |progress| {
            told.push(progress);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(first.position, db.position());
    assert_eq!((first.copied_bytes, first.segments_copied), (first.bytes, first.segments));
    assert!(first.segments > 4 && told.len() > 10);
    assert!(told.windows(2).all(|pair| pair[0].done <= pair[1].done));
    let last = told.last().unwrap();
    assert_eq!(last.done, last.total);
    assert_eq!(last.total, 2 * first.bytes);
    // Some more in the segment that is open, nothing (but a witness perhaps), some segments more.
    let mut before = first;
    for (events, grown) in [(1_000..1_010, 1), (1_010..1_010, 1), (1_010..1_500, 4)] {
        record(&db, events.clone());
        let then = db.backup(&backup, quietly).unwrap();
        assert_eq!(then.position.get(), events.end + 1);
        assert!(then.segments_copied <= grown, "{then:?}");
        let snapshot = fs::metadata(dir.join("state.redb")).unwrap().len();
        let log = then.copied_bytes - snapshot;
        assert!(log < 700 * (events.end - events.start + 1), "{log} bytes for {events:?}");
        before = then;
        let again = root.path().join(format!("again{events:?}"));
        let (again, position) = restored(&backup, &again, Upto::Everything);
        assert_eq!(position, before.position);
        assert_eq!(answers(&again), answers(&db));
    }
    // What the directory has retired goes from the backup, too.
    db.close().unwrap();
    drop(db);
    let db = options().retention(Retention::Recovery).open(&dir).unwrap();
    record(&db, 1_500..1_501);
    db.checkpoint().unwrap();
    let then = db.backup(&backup, quietly).unwrap();
    assert!(then.segments < 4 && then.bytes < before.bytes, "{then:?}");
    assert_eq!(segments(&backup).len() as u64, then.segments);
    let (again, _) = restored(&backup, &root.path().join("last"), Upto::Everything);
    assert_eq!(answers(&again), answers(&db));
    // Beside an owner, and of a closed directory, it goes on in the same way.
    record(&db, 1_501..1_510);
    let beside = ReadOnlyDb::open(&dir).unwrap();
    let then = beside.backup(&backup, quietly).unwrap();
    assert_eq!(then.position, db.position());
    assert!(then.segments_copied <= 2);
    db.close().unwrap();
    let closed = contents(&dir);
    let then = ReadOnlyDb::open(&dir).unwrap().backup(&backup, quietly).unwrap();
    assert_eq!(then.position.get(), 1_511);
    assert!(contents(&dir) == closed);
    let (again, _) = restored(&backup, &root.path().join("beside"), Upto::Everything);
    assert_eq!(rows(&again, "by_user").iter().map(|row| row.count).sum::<u64>(), 1_510);
}

#[test]
fn every_earlier_position_can_be_restored() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().open(&dir).unwrap();
    let mut n = 0;
    let mut next = |count: u64| {
        n += count;
        n - count..n
    };
    // Batches, single events, definitions, a dropped view, more than one segment, two openings.
    db.define(by_user()).unwrap();
    record_batch(&db, next(9));
    record(&db, next(3));
    db.define(View::new("gone").by(["user"])).unwrap();
    record_batch(&db, next(5));
    db.drop_view("gone").unwrap();
    db.checkpoint().unwrap();
    db.close().unwrap();
    drop(db);
    let db = options().open(&dir).unwrap();
    record(&db, next(250));
    db.define(View::new("late").stats("value")).unwrap();
    record_batch(&db, next(9));
    assert!(segments(&dir).len() > 2);
    let last = db.backup(&backup, quietly).unwrap().position.get();
    assert_eq!(db.position().get(), last);
    // The same, recorded up to a position only.
    let mut expected: BTreeMap<u64, BTreeMap<String, String>> = BTreeMap::new();
    let model = options().open(root.path().join("model")).unwrap();
    let mut events = 0..;
    for position in 0..=last {
        match position {
            0 => {}
            1 => drop(model.define(by_user()).unwrap()),
            14 => drop(model.define(View::new("gone").by(["user"])).unwrap()),
            20 => model.drop_view("gone").unwrap(),
            271 => drop(model.define(View::new("late").stats("value")).unwrap()),
            _ => record(&model, events.next()),
        }
        assert_eq!(model.position().get(), position);
        expected.insert(position, answers(&model));
    }
    assert_eq!(answers(&db), expected[&last]);
    let every = (0..30).chain((30..260).step_by(41)).chain(265..=last);
    for position in every {
        let to = root.path().join(format!("at{position}"));
        let (at, got) = restored(&backup, &to, Upto::Position(position.into()));
        assert_eq!(got.get(), position);
        assert_eq!(answers(&at), expected[&position], "position {position}");
        // Recording goes on there.
        record(&at, 0..1);
        at.close().unwrap();
        let at = options().open(&to).unwrap();
        // Behind the record that it is another replica.
        assert_eq!(at.position().get(), position + 2);
        fs::remove_dir_all(&to).unwrap();
    }
    let to = root.path().join("to");
    let error = restore(&backup, &to, Upto::Position((last + 1).into()), quietly).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains(&format!("ends at position {last}")), "{error}");
    assert!(!to.exists());
}

#[test]
fn earlier_positions_are_on_top_of_the_snapshot_where_the_log_was_retired() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().retention(Retention::Recovery).open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..600);
    db.checkpoint().unwrap();
    record(&db, 600..650);
    // Beside the owner: a backup by the owner begins with a checkpoint.
    let last = ReadOnlyDb::open(&dir).unwrap().backup(&backup, quietly).unwrap().position;
    assert_eq!(last.get(), 651);
    let model = options().open(root.path().join("model")).unwrap();
    model.define(by_user()).unwrap();
    record(&model, 0..600);
    for position in 601..=651 {
        let to = root.path().join(format!("at{position}"));
        let (at, _) = restored(&backup, &to, Upto::Position(position.into()));
        assert_eq!(answers(&at), answers(&model), "position {position}");
        record(&model, [position - 1]);
    }
    for upto in [
        Upto::Position(600.into()),
        Upto::Position(0.into()),
        Upto::EventTime(Timestamp::MAX),
        Upto::RecordedAt(Timestamp::from_secs(1)),
    ] {
        let to = root.path().join("to");
        let error = restore(&backup, &to, upto, quietly).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LogRetired, "{upto:?}: {error}");
        assert!(error.to_string().contains("from position 601 to 651"), "{error}");
        // What an attempt leaves is not opened, and is restored into.
        if to.exists() {
            assert_eq!(refused(&to, || options().open(&to)).kind(), ErrorKind::NotQuipu);
            restore(&backup, &to, Upto::Everything, quietly).unwrap();
            fs::remove_dir_all(&to).unwrap();
        }
    }
}

#[test]
fn as_of_an_event_time_there_are_the_events_up_to_it_and_no_others() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let dedup = || options().dedup(Dedup::Last(1_000));
    let db = dedup().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record_batch(&db, 0..200);
    db.define(View::new("late").by(["user"]).stats("value")).unwrap();
    record(&db, 200..600);
    db.backfill("late", quietly).unwrap();
    db.define(View::new("gone")).unwrap();
    db.drop_view("gone").unwrap();
    record_batch(&db, 600..900);
    db.backup(&backup, quietly).unwrap();
    for minute in [-1, 0, 7, 1_200, 2_500, 3_999] {
        let time = Timestamp::from_secs(minute * 60);
        let to = root.path().join(format!("at{minute}"));
        let (at, _) = restored(&backup, &to, Upto::EventTime(time));
        let model = dedup().open(root.path().join(format!("model{minute}"))).unwrap();
        model.define(by_user()).unwrap();
        model.define(View::new("late").by(["user"]).stats("value")).unwrap();
        record(&model, (0..900).filter(|n| event(*n).2 <= time));
        assert_eq!(at.statistics().events, model.statistics().events, "minute {minute}");
        assert_eq!(answers(&at), answers(&model), "minute {minute}");
        // The ids are known, those that were left out are not.
        let (user, value, _) = event(0);
        let twice = Event::new("sale").dim("user", &user).value(value).id("id0");
        assert_eq!(at.record(&twice).unwrap().duplicate, event(0).2 <= time);
        at.close().unwrap();
        ReadOnlyDb::open(&to).unwrap();
    }
    let (at, _) = restored(&backup, &root.path().join("all"), Upto::EventTime(Timestamp::MAX));
    assert_eq!(answers(&at), answers(&db));
}

#[test]
fn as_of_a_time_of_recording_there_is_what_was_recorded_then() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let clock = TestClock::at(Timestamp::from_secs(1_000_000));
    let db = options().clock(clock.clone()).open(&dir).unwrap();
    db.define(by_user()).unwrap();
    for n in 0..20 {
        record(&db, n * 10..(n + 1) * 10);
        clock.advance(Duration::from_mins(1));
    }
    db.backup(&backup, quietly).unwrap();
    for minutes in [-1, 0, 7, 19, 100] {
        let time = Timestamp::from_secs(1_000_000 + minutes * 60);
        let to = root.path().join(format!("at{minutes}"));
        let (at, position) = restored(&backup, &to, Upto::RecordedAt(time));
        let events = (minutes + 1).clamp(0, 20) as u64 * 10;
        assert_eq!(at.statistics().events, events);
        assert_eq!(position.get(), if minutes < 0 { 0 } else { events + 1 });
    }
}

#[test]
fn a_damaged_backup_is_not_restored_and_the_place_is_named() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..300);
    db.backup(&backup, quietly).unwrap();
    let to = root.path().join("to");
    let mut files: Vec<PathBuf> = contents(&backup)
        .into_iter()
        .filter(|(path, bytes)| bytes.is_some() && !path.ends_with("LOCK"))
        .map(|(path, _)| path)
        .collect();
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    for path in files {
        let whole = fs::read(&path).unwrap();
        let step = if whole.len() < 1_000 { 1 } else { whole.len() / 40 };
        let flipped = (0..whole.len()).step_by(step).map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            (format!("byte {at}"), Some(bytes))
        });
        let cut = whole[..whole.len() - 1].to_vec();
        for (what, bytes) in
            flipped.chain([("cut".to_owned(), Some(cut)), ("gone".to_owned(), None)])
        {
            match bytes {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let error = restore(&backup, &to, Upto::Everything, quietly).unwrap_err();
            let kind = error.kind();
            let told = match what.as_str() {
                "gone" if path.ends_with("BACKUP") => kind == ErrorKind::NotQuipu,
                "gone" => matches!(kind, ErrorKind::Corruption | ErrorKind::MissingSegment),
                _ => kind == ErrorKind::Corruption,
            };
            assert!(told, "{what} of {}: {error}", path.display());
            if kind == ErrorKind::Corruption {
                assert_eq!(error.path(), Some(path.as_path()), "{what}: {error}");
            }
            if to.exists() {
                assert_eq!(refused(&to, || options().open(&to)).kind(), ErrorKind::NotQuipu);
            }
        }
        fs::write(&path, whole).unwrap();
    }
    let (again, _) = restored(&backup, &to, Upto::Everything);
    assert_eq!(answers(&again), answers(&db));
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    // Nothing is synced in the background: what is compared below stands still.
    let options = || options().durability(Durability::Memory);
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..50);
    db.backup(&backup, quietly).unwrap();
    let other = root.path().join("other");
    let second = options().open(&other).unwrap();
    second.define(by_user()).unwrap();
    let home = root.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("letter.txt"), "dear").unwrap();
    let before = contents(root.path());
    let invalid = |call: &dyn Fn() -> quipu::Result<()>| {
        let error = refused(root.path(), call);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        error.to_string()
    };
    // A backup goes into an empty place or its own.
    assert!(invalid(&|| db.backup(&home, quietly).map(drop)).contains("letter.txt"));
    assert!(invalid(&|| db.backup(&other, quietly).map(drop)).contains("MANIFEST"));
    assert!(invalid(&|| db.backup(&dir, quietly).map(drop)).contains("no backup"));
    assert!(invalid(&|| second.backup(&backup, quietly).map(drop)).contains("another directory"));
    // So does what is restored.
    for to in [&home, &other, &backup] {
        invalid(&|| restore(&backup, to, Upto::Everything, quietly).map(drop));
    }
    let not_a_backup = |from: &Path| {
        restore(from, root.path().join("to"), Upto::Everything, quietly).unwrap_err().kind()
    };
    assert_eq!(not_a_backup(&dir), ErrorKind::NotQuipu);
    assert_eq!(not_a_backup(&home), ErrorKind::NotQuipu);
    assert_eq!(not_a_backup(&root.path().join("none")), ErrorKind::NotFound);
    // And a backup is not opened.
    let error = refused(&backup, || options().open(&backup));
    assert_eq!(error.kind(), ErrorKind::NotQuipu);
    assert!(error.to_string().contains("restore it"), "{error}");
    assert_eq!(refused(&backup, || ReadOnlyDb::open(&backup)).kind(), ErrorKind::NotQuipu);
    assert!(contents(root.path()) == before);
}

#[test]
fn a_directory_with_another_history_does_not_go_on_with_a_backup() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..400);
    db.backup(&backup, quietly).unwrap();
    record(&db, 400..410);
    let whole = db.backup(&backup, quietly).unwrap().position;
    let kept = contents(&backup);
    // As of an earlier moment, and then something else happened, less and more of it.
    for (position, more) in [(401, 0), (401, 5), (401, 300), (20, 900), (405, 6)] {
        let to = root.path().join(format!("to{position}-{more}"));
        let (other, _) = restored(&backup, &to, Upto::Position(position.into()));
        record(&other, 1_000..1_000 + more);
        let error = other.backup(&backup, quietly).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{position} {more}: {error}");
        let (again, position) = restored(&backup, &to.join("again"), Upto::Everything);
        assert_eq!(position, whole);
        assert_eq!(answers(&again), answers(&db));
        other.backup(root.path().join(format!("b{position}-{more}")), quietly).unwrap();
    }
    // What an attempt left is in nobody's way.
    record(&db, 410..420);
    db.backup(&backup, quietly).unwrap();
    assert_eq!(contents(&backup).len(), kept.len());
    let (again, _) = restored(&backup, &root.path().join("last"), Upto::Everything);
    assert_eq!(answers(&again), answers(&db));
}

#[test]
fn a_damaged_log_is_not_backed_up_and_the_backup_before_stays() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..100);
    let position = db.backup(&backup, quietly).unwrap().position;
    for n in 100..600 {
        record(&db, [n]);
        db.sync().unwrap(); // as a frame of its own
    }
    db.checkpoint().unwrap();
    let sealed = segments(&dir).remove(1);
    let mut bytes = fs::read(&sealed).unwrap();
    bytes[30_000] ^= 1;
    fs::write(&sealed, bytes).unwrap();
    let error = db.backup(&backup, quietly).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert_eq!(error.path(), Some(sealed.as_path()));
    let offset = error.offset().unwrap();
    assert!((29_000..=30_000).contains(&offset), "{error}");
    let (_, got) = restored(&backup, &root.path().join("to"), Upto::Everything);
    assert_eq!(got, position);
}

#[test]
fn of_two_restores_into_one_directory_the_second_is_refused_and_damages_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup, to) =
        (root.path().join("db"), root.path().join("backup"), root.path().join("to"));
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..300);
    db.backup(&backup, quietly).unwrap();
    let mut met = 0;
    let outcome = restore(&backup, &to, Upto::Everything, |_| {
        met += 1;
        for upto in [Upto::Everything, Upto::EventTime(Timestamp::from_secs(1_000))] {
            let error = refused(&to, || restore(&backup, &to, upto, quietly));
            assert_eq!((error.kind(), error.path()), (ErrorKind::Locked, Some(to.as_path())));
            assert!(error.to_string().contains("another restore"), "{error}");
        }
        // Nobody takes it for a directory meanwhile.
        assert_eq!(refused(&to, || options().open(&to)).kind(), ErrorKind::NotQuipu);
        ControlFlow::Continue(())
    });
    assert!(met > 3);
    assert_eq!(outcome.unwrap().position, db.position());
    let error = refused(&to, || restore(&backup, &to, Upto::Everything, quietly));
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(answers(&options().open(&to).unwrap()), answers(&db));
}

#[test]
fn a_stopped_backup_and_a_stopped_restore_leave_nothing_that_is_taken_for_whole() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..300);
    let stopping = |after: usize| {
        let mut calls = 0;
        move |_: Progress| {
            calls += 1;
            if calls > after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    };
    let mut taken = None;
    for after in 0.. {
        match db.backup(&backup, stopping(after)) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Stopped);
                let to = root.path().join("to");
                let error = restore(&backup, &to, Upto::Everything, quietly).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NotQuipu);
            }
            Ok(outcome) => {
                taken = Some((after, outcome.position));
                break;
            }
        }
    }
    let (steps, position) = taken.unwrap();
    assert!(steps > 5);
    let to = root.path().join("to");
    for after in 0.. {
        match restore(&backup, &to, Upto::Everything, stopping(after)) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Stopped);
                let error = refused(&to, || options().open(&to));
                assert!(error.to_string().contains("interrupted"), "{error}");
                assert_eq!(refused(&to, || ReadOnlyDb::open(&to)).kind(), ErrorKind::NotQuipu);
            }
            Ok(outcome) => {
                assert_eq!(outcome.position, position);
                break;
            }
        }
    }
    assert_eq!(answers(&options().open(&to).unwrap()), answers(&db));
}

/// However often the owner retires what is being copied: it was open before.
#[test]
fn a_backup_beside_its_owner_copies_what_is_retired_meanwhile() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let owner = options().retention(Retention::Recovery).open(&dir).unwrap();
    owner.define(View::new("all")).unwrap();
    let payload = [7; 2_000];
    let retire = || {
        for _ in 0..100 {
            owner.record(&Event::new("e").payload(&payload)).unwrap();
        }
        owner.checkpoint().unwrap();
    };
    retire();
    // Segments behind the snapshot, which the reader has and the next checkpoint retires.
    for _ in 0..100 {
        owner.record(&Event::new("e").payload(&payload)).unwrap();
    }
    owner.sync().unwrap();
    let reader = ReadOnlyDb::open(&dir).unwrap();
    let shown = reader.position();
    let mut calls = 0;
    let taken = reader.backup(&backup, |_| {
        calls += 1;
        retire();
        ControlFlow::Continue(())
    });
    let taken = taken.unwrap();
    assert_eq!(
        taken.position, shown,
        "the first attempt succeeded; progress was told {calls} times"
    );
    assert!(calls > 1);
    let to = root.path().join("to");
    let (again, position) = restored(&backup, &to, Upto::Everything);
    assert_eq!(position, shown);
    assert_eq!(again.query("all").unwrap().totals().unwrap().count, 200);
}

/// The owner checkpoints and retires while others back its directory up.
#[test]
fn a_backup_beside_a_busy_owner_is_a_prefix() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let owner = options().retention(Retention::Recovery).durability(Durability::Memory);
    let owner = owner.open(&dir).unwrap();
    owner.define(View::new("all").stats("value")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, owner) = (&stop, &owner);
        scope.spawn(|| {
            let payload = [7; 200];
            for n in 0.. {
                let event = Event::new("e").value(f64::from(n)).payload(&payload);
                owner.record(&event).unwrap();
                if stop.load(SeqCst) {
                    return;
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                owner.checkpoint().unwrap();
            }
        });
        let root = root.path();
        let backups = scope.spawn(move || {
            for n in 0..20 {
                let (backup, to) = (root.join("backup"), root.join(format!("to{n}")));
                let taken = ReadOnlyDb::open(&dir).unwrap().backup(&backup, quietly).unwrap();
                let (again, position) = restored(&backup, &to, Upto::Everything);
                assert_eq!(position, taken.position);
                let all = again.query("all").unwrap().totals().unwrap();
                let events = position.get() - 1;
                assert_eq!(all.count, events);
                let sum = all.summary().unwrap().sum;
                assert_eq!(sum, (events * events.saturating_sub(1) / 2) as f64);
                drop(again);
                fs::remove_dir_all(&to).unwrap();
            }
        });
        let done = backups.join();
        stop.store(true, SeqCst);
        done.unwrap();
    });
}

/// A directory whose process was killed is backed up as it would be recovered.
#[test]
fn a_backup_of_a_killed_directory_is_what_recovery_gives() {
    let root = tempfile::tempdir().unwrap();
    let (dir, killed) = (root.path().join("db"), root.path().join("killed"));
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..300);
    db.checkpoint().unwrap();
    record(&db, 300..500);
    crash_image(&dir, &killed);
    let before = contents(&killed);
    let backup = root.path().join("backup");
    ReadOnlyDb::open(&killed).unwrap().backup(&backup, quietly).unwrap();
    assert!(contents(&killed) == before);
    let (again, _) = restored(&backup, &root.path().join("to"), Upto::Everything);
    assert_eq!(answers(&again), answers(&db));
    assert_eq!(answers(&options().open(&killed).unwrap()), answers(&db));
}

#[test]
fn an_empty_directory_has_a_backup_too() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().open(&dir).unwrap();
    let beside = ReadOnlyDb::open(&dir).unwrap();
    let taken = beside.backup(root.path().join("first"), quietly).unwrap();
    assert_eq!((taken.position.get(), taken.bytes, taken.segments), (0, 0, 0));
    assert_eq!(db.backup(&backup, quietly).unwrap().position.get(), 0);
    for (n, from) in [root.path().join("first"), backup].iter().enumerate() {
        for (m, upto) in [
            Upto::Everything,
            Upto::Position(0.into()),
            Upto::EventTime(Timestamp::MAX),
            Upto::RecordedAt(Timestamp::MAX),
        ]
        .into_iter()
        .enumerate()
        {
            let (again, position) = restored(from, &root.path().join(format!("to{n}{m}")), upto);
            assert_eq!(position.get(), 0);
            again.define(by_user()).unwrap();
            record(&again, 0..1);
        }
    }
}
