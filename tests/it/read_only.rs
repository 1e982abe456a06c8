//! Reading beside the process that owns a directory: always the state of one position, and nothing of
//! the directory is changed.

use crate::directory::{contents, crash_image, options, refused, segments};
use crate::model::copy_dir;
use quipu::{
    Component, Db, Dedup, Durability, ErrorKind, Event, Grain, Keep, Options, Query, ReadOnlyDb,
    Retention, Row, Timestamp, View,
};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

fn by_user() -> View {
    View::new("by_user").by(["user"]).stats("value").grain(Grain::Hour, Keep::All)
}

/// Event `n` of the model: user `n % 7`, value `n`.
fn record(db: &Db, events: std::ops::Range<u64>, payload: usize) {
    let payload = vec![7; payload];
    for n in events {
        let user = format!("u{}", n % 7);
        let event = Event::new("sale").dim("user", &user).value(n as f64).payload(&payload);
        db.record(&event.at(Timestamp::from_secs(n as i64 * 60))).unwrap();
    }
}

fn rows(query: &Query) -> Vec<Row> {
    query.rows().unwrap().map(Result::unwrap).collect()
}

/// The view says what the first `events` events of the model say.
#[track_caller]
fn check(query: &Query, events: u64) {
    let rows = rows(query);
    assert_eq!(rows.len() as u64, events.min(7));
    for row in &rows {
        let user: u64 = row.key[0][1..].parse().unwrap();
        let mine = || (user..events).step_by(7);
        let sum = row.summary().unwrap().sum;
        assert_eq!((row.count, sum), (mine().count() as u64, mine().sum::<u64>() as f64));
        assert_eq!(row.last_seen.micros(), mine().last().unwrap() as i64 * 60_000_000);
    }
    let totals = query.totals().unwrap();
    assert_eq!(totals.count, events);
    let first = query.get(&["u0"]).unwrap();
    assert_eq!(first.map(|row| row.count), rows.first().map(|row| row.count));
}

/// Everything that can be asked of a reader is what can be asked of the owner.
#[track_caller]
fn same(reader: &ReadOnlyDb, owner: &Db) {
    assert_eq!(reader.position(), owner.position());
    assert_eq!(reader.statistics().events, owner.statistics().events);
    let names = |views: Vec<quipu::ViewStatus>| {
        views.into_iter().map(|v| (v.view, v.keys, v.backfill, v.defined_at)).collect::<Vec<_>>()
    };
    assert_eq!(names(reader.views().unwrap()), names(owner.views().unwrap()));
    for status in owner.views().unwrap() {
        let name = status.view.name();
        let (here, there) = (reader.query(name).unwrap(), owner.query(name).unwrap());
        assert_eq!(rows(&here), rows(&there), "{name}");
        assert_eq!(here.totals().unwrap(), there.totals().unwrap());
        assert_eq!(here.key_count().unwrap(), there.key_count().unwrap());
        let top = |query: &Query| query.top(3, Component::Count).unwrap();
        assert_eq!(top(&here), top(&there));
        for (grain, _) in status.view.grains() {
            for row in rows(&there) {
                let key: Vec<&str> = row.key.iter().map(String::as_str).collect();
                let (a, b) = (here.buckets(&key, *grain), there.buckets(&key, *grain));
                assert_eq!(a.unwrap(), b.unwrap());
            }
        }
    }
}

#[test]
fn a_reader_shows_one_position_until_it_is_refreshed() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let owner = options().open(&dir).unwrap();
    owner.define(by_user()).unwrap();
    record(&owner, 0..100, 10);
    let reader = ReadOnlyDb::open(&dir).unwrap();
    let query = reader.query("by_user").unwrap();
    check(&query, 100);
    record(&owner, 100..200, 10);
    owner.checkpoint().unwrap();
    check(&query, 100);
    check(&reader.query("by_user").unwrap(), 100);
    assert_eq!(reader.refresh().unwrap(), owner.position());
    check(&reader.query("by_user").unwrap(), 200);
    same(&reader, &owner);
    // A clone is the same opening.
    let clone = reader.clone();
    record(&owner, 200..201, 10);
    clone.refresh().unwrap();
    check(&reader.query("by_user").unwrap(), 201);
}

#[test]
fn a_reader_follows_its_owner_through_everything() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let options = || options().dedup(Dedup::Last(50)).segment_bytes(64 << 10);
    let owner = options().open(&dir).unwrap();
    owner.define(by_user()).unwrap();
    let reader = ReadOnlyDb::open(&dir).unwrap();
    let follow = |owner: &Db| {
        reader.refresh().unwrap();
        same(&reader, owner);
        same(&ReadOnlyDb::open(&dir).unwrap(), owner);
    };
    follow(&owner);
    // Several segments.
    record(&owner, 0..600, 400);
    assert!(segments(&dir).len() > 3);
    follow(&owner);
    owner.checkpoint().unwrap();
    follow(&owner);
    // Definitions, also under a name that was dropped.
    owner.define(View::new("late").by(["user"])).unwrap();
    record(&owner, 600..650, 10);
    follow(&owner);
    owner.drop_view("late").unwrap();
    owner.define(View::new("late").stats("value")).unwrap();
    record(&owner, 650..700, 10);
    follow(&owner);
    // A backfill has no answers until it is complete, and then all.
    let mut steps = 0;
    owner
        .backfill("late", |_| {
            steps += 1;
            if steps < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
    reader.refresh().unwrap();
    assert_eq!(reader.query("late").unwrap_err().kind(), ErrorKind::Backfilling);
    owner.backfill("late", |_| ControlFlow::Continue(())).unwrap();
    follow(&owner);
    assert_eq!(reader.query("late").unwrap().totals().unwrap().count, 700);
    // Another opening.
    owner.close().unwrap();
    drop(owner);
    reader.refresh().unwrap();
    let owner = options().open(&dir).unwrap();
    follow(&owner);
    record(&owner, 700..750, 10);
    let event = Event::new("sale").dim("user", "u0").id("x").at(Timestamp::from_secs(0));
    owner.record(&event).unwrap();
    assert!(owner.record(&event).unwrap().duplicate);
    follow(&owner);
    owner.close().unwrap();
    drop(owner);
    // Segments that were retired while nobody looked.
    let owner = options().retention(Retention::Recovery).open(&dir).unwrap();
    for round in 0..3 {
        record(&owner, 750 + round * 300..1_050 + round * 300, 400);
        owner.checkpoint().unwrap();
    }
    assert!(segments(&dir).len() < 4);
    follow(&owner);
}

/// The owner records and checkpoints without a pause, its segments are small and go at once; readers
/// open and refresh all the while. Each answer is that of an exact prefix.
#[test]
fn every_answer_beside_a_busy_owner_is_an_exact_prefix() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let owner = options().retention(Retention::Recovery).durability(Durability::Memory);
    let owner = owner.open(&dir).unwrap();
    owner.define(by_user()).unwrap();
    owner.define(View::new("all").stats("value")).unwrap();
    let (stop, checkpoints) = (AtomicBool::new(false), AtomicU64::new(0));
    let looked = std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(|| {
            for n in 0.. {
                record(&owner, n * 20..(n + 1) * 20, 200);
                if stop.load(SeqCst) {
                    return;
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                owner.checkpoint().unwrap();
                checkpoints.fetch_add(1, SeqCst);
            }
        });
        let look = |reader: &ReadOnlyDb| {
            let events = reader.position().get() - 2;
            check(&reader.query("by_user").unwrap(), events);
            let all = reader.query("all").unwrap().totals().unwrap();
            let sum = if events == 0 { 0 } else { events * (events - 1) / 2 };
            assert_eq!((all.count, all.summary().unwrap().sum), (events, sum as f64));
            assert_eq!(reader.statistics().events, events);
        };
        let (dir, checkpoints) = (&dir, &checkpoints);
        let refreshing = scope.spawn(move || {
            let reader = ReadOnlyDb::open(dir).unwrap();
            let mut last = reader.position();
            let busy = |round| round < 300 || checkpoints.load(SeqCst) < 40;
            for round in (0..).take_while(|round| busy(*round)) {
                let position = reader.refresh().unwrap();
                assert!(position >= last);
                last = position;
                look(&reader);
                if round % 4 == 0 {
                    look(&ReadOnlyDb::open(dir).unwrap());
                }
            }
            last
        });
        let last = refreshing.join();
        stop.store(true, SeqCst);
        last.unwrap()
    });
    assert!(looked.get() > 100, "{looked}");
}

/// Opens, asks and refreshes; gives the events shown.
fn look_around(dir: &Path) -> u64 {
    let reader = ReadOnlyDb::open(dir).unwrap();
    reader.refresh().unwrap();
    let query = reader.query("by_user").unwrap();
    rows(&query);
    query.get(&["u1"]).unwrap();
    query.get(&["nobody"]).unwrap();
    reader.views().unwrap();
    let _ = reader.statistics();
    query.totals().unwrap().count
}

#[test]
fn nothing_is_written_whatever_state_the_directory_is_in() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let owner = options().open(&dir).unwrap();
    owner.define(by_user()).unwrap();
    record(&owner, 0..300, 200);
    owner.checkpoint().unwrap();
    record(&owner, 300..600, 200);
    let killed = root.path().join("killed");
    crash_image(&dir, &killed);
    owner.close().unwrap();
    // A frame that was being written when the process died.
    let last = segments(&killed).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let torn = (end + 8).next_multiple_of(8);
    bytes[torn..torn + 30].copy_from_slice(&[0xab; 30]);
    fs::write(&last, bytes).unwrap();
    let no_snapshot = root.path().join("no_snapshot");
    crash_image(&killed, &no_snapshot);
    fs::remove_file(no_snapshot.join("state.redb")).unwrap();
    for dir in [&dir, &killed, &no_snapshot] {
        let before = contents(dir);
        assert_eq!(look_around(dir), 600);
        assert!(contents(dir) == before, "{}", dir.display());
    }
    // And nobody is locked out.
    let reader = ReadOnlyDb::open(&dir).unwrap();
    let owner = options().open(&dir).unwrap();
    record(&owner, 600..601, 0);
    reader.refresh().unwrap();
    same(&reader, &owner);
}

#[test]
fn a_frame_that_is_being_written_is_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let (dir, copy) = (root.path().join("db"), root.path().join("copy"));
    let owner = options().durability(Durability::Memory).open(&dir).unwrap();
    owner.define(by_user()).unwrap();
    record(&owner, 0..10, 100);
    let upto = |dir: &Path| {
        let path = segments(dir).remove(0);
        let bytes = fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        (path, bytes, end)
    };
    let (_, _, before) = upto(&dir);
    record(&owner, 10..11, 100);
    crash_image(&dir, &copy);
    let (path, whole, end) = upto(&copy);
    let mut reader = None;
    // The copy as it grows byte by byte, or rather by some.
    for at in (before..=end).step_by(13).chain([end]) {
        let mut bytes = whole.clone();
        bytes[at..].fill(0);
        fs::write(&path, &bytes).unwrap();
        let reader = reader.get_or_insert_with(|| ReadOnlyDb::open(&copy).unwrap());
        reader.refresh().unwrap();
        let events = if at == end { 11 } else { 10 };
        check(&reader.query("by_user").unwrap(), events);
    }
}

#[test]
fn damage_of_what_had_been_synced_is_reported_with_its_place() {
    let root = tempfile::tempdir().unwrap();
    let (dir, copy) = (root.path().join("db"), root.path().join("copy"));
    let owner = options().durability(Durability::Sync).open(&dir).unwrap();
    owner.define(by_user()).unwrap();
    record(&owner, 0..20, 50);
    crash_image(&dir, &copy);
    let reader = ReadOnlyDb::open(&copy).unwrap();
    check(&reader.query("by_user").unwrap(), 20);
    record(&owner, 20..40, 50);
    fs::remove_dir_all(&copy).unwrap();
    crash_image(&dir, &copy);
    let path = segments(&copy).remove(0);
    let whole = fs::read(&path).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut frames = (64..end).step_by(8).filter(|at| whole[*at..].starts_with(b"QFR1"));
    // In the middle of the log, where other frames vouch for this one.
    let at = frames.nth(15).unwrap();
    for (what, change) in [("one bit", 100..101), ("a blank frame", 0..400)] {
        let mut bytes = whole.clone();
        for byte in &mut bytes[at..][change.clone()] {
            *byte = if change.len() == 1 { *byte ^ 1 } else { 0 };
        }
        fs::write(&path, &bytes).unwrap();
        let error = refused(&copy, || ReadOnlyDb::open(&copy));
        assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
        assert_eq!(error.path(), Some(path.as_path()), "{what}");
        assert_eq!(error.offset(), Some(at as u64), "{what}");
        let owners = refused(&copy, || options().open(&copy));
        assert_eq!((owners.kind(), owners.offset()), (error.kind(), error.offset()), "{what}");
    }
    fs::write(&path, &whole).unwrap();
    check(&ReadOnlyDb::open(&copy).unwrap().query("by_user").unwrap(), 40);
}

#[test]
fn what_is_not_there_is_said() {
    let root = tempfile::tempdir().unwrap();
    let open = |dir: &Path| ReadOnlyDb::open(dir).unwrap_err().kind();
    assert_eq!(open(&root.path().join("none")), ErrorKind::NotFound);
    assert!(!root.path().join("none").exists());
    let empty = root.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(open(&empty), ErrorKind::NotFound);
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    fs::write(empty.join("letter.txt"), "").unwrap();
    assert_eq!(open(&empty), ErrorKind::NotQuipu);
    let dir = root.path().join("db");
    let owner = options().open(&dir).unwrap();
    let reader = ReadOnlyDb::open(&dir).unwrap();
    assert_eq!((reader.position().get(), reader.views().unwrap().len()), (0, 0));
    assert_eq!(reader.query("x").unwrap_err().kind(), ErrorKind::UnknownView);
    owner.define(by_user()).unwrap();
    record(&owner, 0..600, 400);
    owner.checkpoint().unwrap();
    owner.close().unwrap();
    // In the middle of the log behind the snapshot, once there is one that is lost.
    let segments = segments(&dir);
    fs::remove_file(dir.join("state.redb")).unwrap();
    fs::remove_file(&segments[1]).unwrap();
    let error = refused(&dir, || ReadOnlyDb::open(&dir));
    assert_eq!(error.kind(), ErrorKind::MissingSegment);
    assert_eq!(error.path(), Some(segments[1].as_path()));
}

#[test]
fn a_reader_keeps_its_memory_budget() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let owner = options().open(&dir).unwrap();
    owner.define(View::new("wide").by(["key"]).stats("value")).unwrap();
    let mut batch = owner.batch();
    for n in 0..20_000 {
        batch.push(&Event::new("e").dim("key", &format!("key{n}")).value(1.0)).unwrap();
    }
    owner.record_batch(&mut batch).unwrap();
    let budget = 400 << 10;
    let reader = Options::new().memory_budget(budget).open_read_only(&dir).unwrap();
    // All of it is behind the snapshot, and has to be in memory.
    assert!(reader.statistics().memory_bytes > 4 * budget as u64);
    owner.checkpoint().unwrap();
    reader.refresh().unwrap();
    assert!(reader.statistics().memory_bytes < budget as u64);
    for n in 0..20_000 {
        let key = format!("key{n}");
        let row = reader.query("wide").unwrap().get(&[&key]).unwrap().unwrap();
        assert_eq!(row.count, 1);
    }
    let statistics = reader.statistics();
    assert!(statistics.evictions > 10_000, "{statistics:?}");
}

/// What the owner has filled a view with is in its next snapshot. It can die before that: when it had not
/// begun at the last checkpoint (`steps` 0), or had come so far.
fn check_a_backfill_that_died_before_its_checkpoint(steps: u64) {
    let root = tempfile::tempdir().unwrap();
    let (dir, image) = (root.path().join("db"), root.path().join("image"));
    let owner = options().segment_bytes(64 << 10).open(&dir).unwrap();
    owner.define(by_user()).unwrap();
    record(&owner, 0..600, 400);
    assert!(segments(&dir).len() > 3);
    owner.define(View::new("late").by(["user"]).stats("value")).unwrap();
    record(&owner, 600..650, 10);
    if steps > 0 {
        let mut step = 0;
        let part = |_| {
            step += 1;
            if step < steps { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        owner.backfill("late", part).unwrap();
    }
    owner.checkpoint().unwrap();
    let snapshot = fs::read(dir.join("state.redb")).unwrap();
    copy_dir(&dir, &image);
    let reader = ReadOnlyDb::open(&image).unwrap();
    match reader.query("late") {
        Ok(query) => assert_eq!((steps, query.totals().unwrap().count), (0, 50)),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Backfilling, "{steps} steps"),
    }
    owner.backfill("late", |_| ControlFlow::Continue(())).unwrap();
    record(&owner, 650..700, 10);
    owner.sync().unwrap();
    // As a kill leaves it: the log has all of it, the snapshot does not.
    for path in segments(&dir) {
        fs::copy(&path, image.join("log").join(path.file_name().unwrap())).unwrap();
    }
    fs::copy(dir.join("MANIFEST"), image.join("MANIFEST")).unwrap();
    assert!(fs::read(image.join("state.redb")).unwrap() == snapshot);
    let late = ReadOnlyDb::open(&image).unwrap();
    same(&late, &owner);
    check(&late.query("late").unwrap(), 700);
    // One that was there before, too, and again.
    for _ in 0..2 {
        reader.refresh().unwrap();
        same(&reader, &owner);
    }
    drop((reader, late));
    let successor = options().segment_bytes(64 << 10).open(&image).unwrap();
    check(&successor.query("late").unwrap(), 700);
}

#[test]
fn a_backfill_whose_owner_died_before_its_checkpoint_is_completed_by_readers() {
    check_a_backfill_that_died_before_its_checkpoint(0);
    check_a_backfill_that_died_before_its_checkpoint(3);
}
