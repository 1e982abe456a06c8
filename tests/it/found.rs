//! What reviews and fuzzers found, each as small as it gets.

use quipu::{Db, Durability, Event, Grain, Keep, Options, Retention, Timestamp, View};
use std::ops::ControlFlow;
use std::time::Duration;

fn options() -> Options {
    Options::new().checkpoint_every(Duration::from_hours(1))
}

fn record(db: &Db, keys: usize) {
    let mut batch = db.batch();
    for key in 0..keys {
        let key = format!("k{key}");
        batch.push(&Event::new("e").dim("u", &key).measure("x", 1.0).measure("y", 1.0)).unwrap();
    }
    db.record_batch(&mut batch).unwrap();
}

/// Two checkpoints at one position of the log, with a backfill in between: the second one's deltas
/// were taken for part of the first one's rows by whoever asked meanwhile.
#[test]
fn a_backfill_between_two_checkpoints_at_one_position_loses_nothing() {
    const KEYS: usize = 3_000;
    const ROUNDS: usize = 6;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().open(&path).unwrap();
    for _ in 0..ROUNDS {
        record(&db, KEYS);
    }
    db.define(View::new("v").by(["u"])).unwrap();
    record(&db, KEYS);
    db.close().unwrap();
    let db = options().open(&path).unwrap();
    let half = (KEYS * ROUNDS / 2) as u64;
    let stop = |done| if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    db.backfill("v", |progress| stop(progress.done >= half)).unwrap();
    db.checkpoint().unwrap();
    db.close().unwrap();
    let db = options().open(&path).unwrap();
    std::thread::scope(|scope| {
        // Whoever asks completes entries, also while the backfill's own checkpoint is written.
        scope.spawn(|| {
            let mut asked = 0;
            while asked < 3 {
                match db.query("v") {
                    Ok(query) => {
                        query.key_count().unwrap();
                        asked += 1;
                    }
                    Err(_) => std::thread::yield_now(),
                }
            }
        });
        db.backfill("v", |_| ControlFlow::Continue(())).unwrap();
    });
    let total = |db: &Db| db.query("v").unwrap().totals().unwrap().count;
    assert_eq!(total(&db), (KEYS * (ROUNDS + 1)) as u64);
    record(&db, KEYS);
    db.close().unwrap();
    assert_eq!(total(&options().open(&path).unwrap()), (KEYS * (ROUNDS + 2)) as u64);
}

/// A first frame that could not be read let every older segment go.
#[test]
fn a_damaged_segment_retires_no_other() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    for _ in 0..4 {
        let db = options().open(&path).unwrap();
        record(&db, 1);
        db.close().unwrap();
    }
    let third = path.join("log/0000000003.qlog");
    let mut bytes = std::fs::read(&third).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&third, bytes).unwrap();
    let db = options().retention(Retention::Age(Duration::from_hours(9_000))).open(&path).unwrap();
    record(&db, 1);
    db.checkpoint().unwrap();
    for number in 1..=5 {
        assert!(path.join(format!("log/{number:010}.qlog")).exists(), "segment {number}");
    }
}

/// Cells of several measures lie on the heap from the start; rotation gave back more than was
/// counted.
#[test]
fn rings_of_several_measures_keep_their_account_of_memory() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    let view = View::new("v").by(["u"]).stats("x").stats("y").grain(Grain::Minute, Keep::Last(2));
    db.define(view).unwrap();
    let mut memory = 0;
    for minute in 0..400 {
        let at = Timestamp::from_secs(1_600_000_000 + minute * 60);
        db.record(&Event::new("e").at(at).dim("u", "a").measure("x", 1.0)).unwrap();
        if minute == 100 {
            memory = db.statistics().memory_bytes;
        }
    }
    assert_eq!(db.statistics().memory_bytes, memory);
}

/// Stopped at the very last record, a backfill was neither complete nor to be completed.
#[test]
fn a_backfill_stopped_at_its_last_record_can_be_completed() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    record(&db, 10);
    db.define(View::new("v").by(["u"])).unwrap();
    db.backfill("v", |progress| {
        if progress.done == progress.total {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .unwrap();
    db.backfill("v", |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(db.query("v").unwrap().totals().unwrap().count, 10);
}

/// It gave a position as acknowledged that a power cut would have taken.
#[test]
fn an_empty_batch_at_sync_makes_the_position_it_gives_durable() {
    let root = tempfile::tempdir().unwrap();
    let db = options().durability(Durability::Memory).open(root.path().join("db")).unwrap();
    record(&db, 3);
    let outcome = db.record_batch_with(&mut db.batch(), Durability::Sync).unwrap();
    assert_eq!((outcome.recorded, outcome.position.get()), (0, 3));
    assert_eq!(db.durable_position(), outcome.position);
}

/// A batch that is used again keeps its columns: a second frame of it began with those of the last time, got
/// more than a frame may have, and the log could not be read any more.
#[test]
fn columns_of_the_last_time_are_in_no_frame() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().view(View::new("all")).open(&path).unwrap();
    let mut batch = db.batch();
    let mut expected = 0;
    for round in 0..3 {
        for _ in 0..8_192 {
            batch.push(&Event::new("e").dim("a", "a")).unwrap();
        }
        let names: Vec<String> = (0..250).map(|n| format!("round {round} {n}")).collect();
        for names in names.chunks(10) {
            let event = names.iter().fold(Event::new("e"), |event, name| event.dim(name, "x"));
            let event = names.iter().take(3).fold(event, |event, name| event.measure(name, 1.0));
            batch.push(&event).unwrap();
        }
        expected += batch.len() as u64;
        db.record_batch(&mut batch).unwrap();
    }
    // What is rare is not written for ever.
    let names: Vec<String> = (0..30).map(|n| format!("rare {n}")).collect();
    let rare = names.iter().fold(Event::new("e"), |event, name| event.dim(name, "x"));
    let rare = names.iter().fold(rare, |event, name| event.measure(name, 1.0));
    let mut bytes = Vec::new();
    for event in [Event::new("e"), rare, Event::new("e"), Event::new("e")] {
        let before = db.statistics().log_bytes_since_checkpoint;
        batch.push(&event).unwrap();
        db.record_batch(&mut batch).unwrap();
        bytes.push(db.statistics().log_bytes_since_checkpoint - before);
    }
    assert!(bytes[1] > 500, "{bytes:?}");
    assert_eq!((bytes[2], bytes[3]), (bytes[0], bytes[0]));
    expected += 4;
    db.sync().unwrap();
    let image = root.path().join("image");
    crate::directory::crash_image(&path, &image);
    let db = options().open(&image).unwrap();
    assert_eq!(db.query("all").unwrap().totals().unwrap().count, expected);
}
