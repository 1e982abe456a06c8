//! Positions, durability, closing, and many threads at once.

use crate::directory::{crash_image, options};
use quipu::{Db, Durability, ErrorKind, Event, OnInvalid, Options, Position, Progress, Row, View};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// Turns after which something in the background should have happened long ago.
const PATIENCE: usize = 50_000_000;

fn patiently(mut happened: impl FnMut() -> bool) -> bool {
    (0..PATIENCE).any(|_| {
        std::thread::yield_now();
        happened()
    })
}

/// Nothing is synced but on demand.
fn lazy() -> Options {
    options().durability(Durability::Memory)
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn positions_count_records_without_gaps_over_openings() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let mut expected = 0;
    for _ in 0..3 {
        let db = options().open(&path).unwrap();
        assert_eq!(db.position().get(), expected);
        assert_eq!(db.durable_position(), db.position(), "what was found is durable");
        for _ in 0..5 {
            expected += 1;
            assert_eq!(db.record(&Event::new("e")).unwrap().position.get(), expected);
        }
        let outcome = db.record_all(vec![Event::new("e"); 10], OnInvalid::Refuse).unwrap();
        expected += 10;
        assert_eq!(outcome.position.get(), expected);
        db.define(View::new(format!("v{expected}"))).unwrap();
        expected += 1;
        assert_eq!(db.position().get(), expected);
        db.checkpoint().unwrap();
        assert_eq!(db.position().get(), expected, "a checkpoint is no record");
        assert_eq!(db.statistics().position, db.position());
    }
    let image = root.path().join("image");
    let db = options().open(&path).unwrap();
    db.record(&Event::new("e")).unwrap();
    crash_image(&path, &image);
    assert_eq!(options().open(&image).unwrap().position().get(), expected + 1);
}

#[test]
fn a_synced_call_returns_when_its_record_is_durable() {
    let root = tempfile::tempdir().unwrap();
    let db = lazy().open(root.path().join("db")).unwrap();
    let position = db.record(&Event::new("e")).unwrap().position;
    assert!(db.durable_position() < position, "nobody asked for a sync");
    let position = db.record_with(&Event::new("e"), Durability::Sync).unwrap().position;
    assert!(db.durable_position() >= position);
    let mut batch = db.batch();
    for _ in 0..10 {
        batch.push(&Event::new("e")).unwrap();
    }
    let position = db.record_batch_with(&mut batch, Durability::Sync).unwrap().position;
    assert!(db.durable_position() >= position);
    assert_eq!(db.statistics().durable_position, db.durable_position());
}

#[test]
fn a_sync_makes_all_durable_and_a_wait_its_position() {
    let root = tempfile::tempdir().unwrap();
    let db = lazy().open(root.path().join("db")).unwrap();
    let first = db.record(&Event::new("e")).unwrap().position;
    assert!(db.durable_position() < first);
    db.wait_durable(first).unwrap();
    assert!(db.durable_position() >= first);
    let second = db.record(&Event::new("e")).unwrap().position;
    db.wait_durable(first).unwrap();
    assert_eq!(db.sync().unwrap(), second);
    assert_eq!(db.durable_position(), second);
    assert_eq!(db.sync().unwrap(), second, "again costs nothing");
    db.wait_durable(Position::default()).unwrap();
    let future: Position = {
        let other = lazy().open(root.path().join("other")).unwrap();
        other.record_all(vec![Event::new("e"); 5], OnInvalid::Refuse).unwrap().position
    };
    let error = db.wait_durable(future).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains('5') && error.to_string().contains('2'), "{error}");
    // A checkpoint is never ahead of the durable log.
    let third = db.record(&Event::new("e")).unwrap().position;
    db.checkpoint().unwrap();
    assert!(db.durable_position() >= third);
    assert_eq!(db.statistics().last_checkpoint.unwrap().position, third);
}

#[test]
fn an_interval_makes_records_durable_in_the_background() {
    let root = tempfile::tempdir().unwrap();
    let every = Duration::from_millis(5);
    for (name, level) in
        [("short", Durability::Interval(every)), ("default", Durability::default())]
    {
        let db = options().durability(level).open(root.path().join(name)).unwrap();
        for _ in 0..3 {
            let position = db.record(&Event::new("e")).unwrap().position;
            assert!(patiently(|| db.durable_position() >= position), "{name}");
        }
    }
    // An interval of one call, where the engine's own is none.
    let db = lazy().open(root.path().join("one")).unwrap();
    let position = db.record_with(&Event::new("e"), Durability::Interval(every)).unwrap().position;
    assert!(patiently(|| db.durable_position() >= position));
    // A shorter promise comes while a longer one is waited out.
    let hour = Duration::from_hours(1);
    let db =
        options().durability(Durability::Interval(hour)).open(root.path().join("two")).unwrap();
    db.record(&Event::new("e")).unwrap();
    let position = db.record_with(&Event::new("e"), Durability::Interval(every)).unwrap().position;
    assert!(patiently(|| db.durable_position() >= position));
}

#[test]
fn checkpoints_are_made_in_the_background_by_time_and_by_size() {
    let root = tempfile::tempdir().unwrap();
    let checkpointed = |db: &Db, position: Position| {
        patiently(|| {
            let last = db.statistics().last_checkpoint;
            last.is_some_and(|last| last.position >= position)
        })
    };
    let by_time = options().checkpoint_every(Duration::from_millis(10));
    let db = by_time.open(root.path().join("time")).unwrap();
    let position = db.record(&Event::new("e")).unwrap().position;
    assert!(checkpointed(&db, position));
    let by_size = options().checkpoint_log_bytes(20_000);
    let db = by_size.open(root.path().join("size")).unwrap();
    let payload = [1; 1_000];
    let small = db.record(&Event::new("e")).unwrap().position;
    for _ in 0..50 {
        db.record(&Event::new("e").payload(&payload)).unwrap();
    }
    assert!(checkpointed(&db, small));
    assert_eq!(db.statistics().checkpoint_failures, 0);
}

#[test]
fn after_a_close_every_call_on_every_clone_says_so() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().open(&path).unwrap();
    db.define(View::new("v").by(["k"])).unwrap();
    for i in 0..1_500 {
        db.record(&Event::new("e").dim("k", &i.to_string())).unwrap();
    }
    let clone = db.clone();
    let query = clone.query("v").unwrap();
    let mut rows = query.rows().unwrap();
    rows.next().unwrap().unwrap();
    let mut batch = clone.batch();
    batch.push(&Event::new("e")).unwrap();
    let position = db.position();
    db.close().unwrap();
    clone.close().unwrap();
    db.close().unwrap();

    let event = Event::new("e");
    let mut results = vec![
        ("record", clone.record(&event).map(|_| ())),
        ("record_with Memory", clone.record_with(&event, Durability::Memory).map(|_| ())),
        ("record_with Sync", clone.record_with(&event, Durability::Sync).map(|_| ())),
        ("record_batch", clone.record_batch(&mut batch).map(|_| ())),
        ("record_batch, empty", clone.record_batch(&mut clone.batch()).map(|_| ())),
        ("record_all", clone.record_all([event.clone()], OnInvalid::Skip).map(|_| ())),
        ("define", clone.define(View::new("w")).map(|_| ())),
        ("define again", clone.define(View::new("v").by(["k"])).map(|_| ())),
        ("drop_view", clone.drop_view("v")),
        ("views", clone.views().map(|_| ())),
        ("backfill", clone.backfill("v", go_on).map(|_| ())),
        ("query", clone.query("v").map(|_| ())),
        ("checkpoint", clone.checkpoint()),
        ("get", query.get(&["1"]).map(|_| ())),
        ("get of a stranger", query.get(&["nobody"]).map(|_| ())),
        ("rows", query.rows().map(|_| ())),
        ("prefix", query.prefix(&["1"]).map(|_| ())),
        ("totals", query.totals().map(|_| ())),
        ("top", query.top(1, quipu::Component::Count).map(|_| ())),
        ("for_each", query.for_each(|_| std::ops::ControlFlow::Continue(()))),
        ("key_count", query.key_count().map(|_| ())),
    ];
    assert_eq!(batch.len(), 1, "the batch keeps its events");
    // What was read may still be given; what must be read now is not.
    results.push(("a scan begun before", rows.try_for_each(|row| row.map(|_| ()))));
    results.push(("sync", clone.sync().map(|_| ())));
    results.push(("wait_durable", clone.wait_durable(position)));
    let open: Vec<_> = results
        .iter()
        .map(|(call, result)| (call, result.as_ref().map_err(quipu::Error::kind)))
        .filter(|(_, result)| *result != Err(ErrorKind::Closed))
        .collect();
    assert!(open.is_empty(), "not closed: {open:?}");

    // What only reports goes on.
    assert_eq!((clone.position(), clone.directory()), (position, path.as_path()));
    assert_eq!(clone.statistics().events, 1_500);
    let again = options().open(&path).unwrap();
    assert_eq!((again.statistics().events, again.statistics().replayed), (1_500, 0));
    drop(clone);
    drop(db);
    drop(query);
    again.record(&event).unwrap();
}

#[test]
fn dropping_the_last_handle_closes_whatever_else_is_held() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().open(&path).unwrap();
    db.define(View::new("v").by(["k"])).unwrap();
    db.record(&Event::new("e").dim("k", "x")).unwrap();
    let (query, batch) = (db.query("v").unwrap(), db.batch());
    let rows = query.rows().unwrap();
    let clone = db.clone();
    drop(db);
    clone.record(&Event::new("e").dim("k", "x")).unwrap();
    drop(clone);
    let again = options().open(&path).unwrap();
    assert_eq!(again.statistics().replayed, 0, "it was checkpointed when it was closed");
    assert_eq!(again.query("v").unwrap().get(&["x"]).unwrap().unwrap().count, 2);
    assert_eq!(query.get(&["x"]).unwrap_err().kind(), ErrorKind::Closed);
    drop((rows, batch));
}

#[test]
fn a_close_waits_for_those_who_record_and_loses_nothing_they_were_told() {
    let root = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let path = root.path().join(format!("{round}"));
        let db = options().open(&path).unwrap();
        db.define(View::new("v")).unwrap();
        let acknowledged: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let db = db.clone();
                    scope.spawn(move || {
                        let mut n = 0;
                        loop {
                            match db.record(&Event::new("e")) {
                                Ok(_) => n += 1,
                                Err(error) => {
                                    assert_eq!(error.kind(), ErrorKind::Closed);
                                    return n;
                                }
                            }
                        }
                    })
                })
                .collect();
            while db.statistics().events < 1_000 {
                std::thread::yield_now();
            }
            db.close().unwrap();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let db = options().open(&path).unwrap();
        assert_eq!(db.statistics().replayed, 0);
        assert_eq!(db.query("v").unwrap().totals().unwrap().count, acknowledged);
        assert_eq!(db.statistics().events, acknowledged);
    }
}

const THREADS: usize = 4;

fn define_all(db: &Db) {
    db.define(View::new("by_thread").by(["thread"]).stats("value")).unwrap();
    db.define(View::new("pairs").by(["thread", "slot"]).stats("value")).unwrap();
    db.define(View::new("all").stats("value")).unwrap();
}

/// What each thread has recorded, which must be a prefix: numbers 1, 2, 3 ... up to the count.
fn prefixes(db: &Db) -> [u64; THREADS] {
    let mut counts = [0; THREADS];
    let rows: Vec<Row> =
        db.query("by_thread").unwrap().rows().unwrap().map(Result::unwrap).collect();
    for row in &rows {
        let summary = row.summary().unwrap();
        assert_eq!(summary.max, Some(row.count as f64), "a prefix has no holes: {row:?}");
        assert_eq!(summary.sum, (row.count * (row.count + 1) / 2) as f64, "{row:?}");
        counts[row.key[0].parse::<usize>().unwrap()] = row.count;
    }
    let mut by_pair = [0; THREADS];
    for row in db.query("pairs").unwrap().rows().unwrap().map(Result::unwrap) {
        by_pair[row.key[0].parse::<usize>().unwrap()] += row.count;
    }
    assert_eq!(by_pair, counts, "a record is in every view or in none");
    let all: u64 = counts.iter().sum();
    assert_eq!(db.query("all").unwrap().totals().unwrap().count, all);
    assert_eq!(db.statistics().events, all);
    counts
}

/// Records numbers from `n + 1` on, in batches and one by one; gives the last.
fn record_some(db: &Db, thread: &str, mut n: u64) -> u64 {
    let slots: Vec<String> = (0..50).map(|slot| slot.to_string()).collect();
    let event = |n: u64| {
        let slot = &slots[(n % 50) as usize];
        Event::new("e").dim("thread", thread).dim("slot", slot).value(n as f64)
    };
    if n.is_multiple_of(3) {
        let mut batch = db.batch();
        for _ in 0..40 {
            n += 1;
            batch.push(&event(n)).unwrap();
        }
        db.record_batch(&mut batch).unwrap();
    }
    for _ in 0..20 {
        n += 1;
        db.record(&event(n)).unwrap();
    }
    n
}

/// Recorders run until `work` is done; gives what each has recorded.
fn while_recording<R>(
    db: &Db,
    gate: &RwLock<()>,
    work: impl FnOnce(&[std::sync::atomic::AtomicU64]) -> R,
) -> ([u64; THREADS], R) {
    let done = AtomicBool::new(false);
    let progress: Vec<_> =
        std::iter::repeat_with(std::sync::atomic::AtomicU64::default).take(THREADS).collect();
    std::thread::scope(|scope| {
        let recorders: Vec<_> = progress
            .iter()
            .enumerate()
            .map(|(thread, progress)| {
                let (db, done) = (db.clone(), &done);
                scope.spawn(move || {
                    let mut n = 0;
                    while !done.load(SeqCst) || n < 1_000 {
                        let pass = gate.read().unwrap();
                        n = record_some(&db, &thread.to_string(), n);
                        progress.store(n, SeqCst);
                        drop(pass);
                    }
                    n
                })
            })
            .collect();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&progress)));
        done.store(true, SeqCst);
        let mut counts = [0; THREADS];
        for (count, thread) in counts.iter_mut().zip(recorders) {
            *count = thread.join().unwrap();
        }
        (counts, result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn reopened(path: &Path) -> [u64; THREADS] {
    let db = options().open(path).unwrap();
    let counts = prefixes(&db);
    db.checkpoint().unwrap();
    assert_eq!(prefixes(&db), counts);
    counts
}

#[test]
fn four_threads_record_while_checkpoints_and_queries_run_and_every_count_is_exact() {
    for budget in [usize::MAX, 10_000] {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("db");
        let db = options().memory_budget(budget).open(&path).unwrap();
        define_all(&db);
        let gate = RwLock::new(());
        let (counts, ()) = while_recording(&db, &gate, |_| {
            for round in 0..30 {
                db.checkpoint().unwrap();
                let query = db.query("pairs").unwrap();
                let before = db.statistics().events;
                let total = query.totals().unwrap().count;
                assert!(total >= before, "round {round}: {total} of at least {before}");
                let thread = (round % THREADS).to_string();
                let row = db.query("by_thread").unwrap().get(&[&thread]).unwrap();
                if let Some(row) = row {
                    // One series is read in one moment.
                    let sum = (row.count * (row.count + 1) / 2) as f64;
                    let summary = row.summary().unwrap();
                    assert_eq!((summary.sum, summary.max), (sum, Some(row.count as f64)));
                }
                query.top(5, quipu::Component::Sum).unwrap();
            }
        });
        assert_eq!(prefixes(&db), counts);
        drop(db);
        assert_eq!(reopened(&path), counts);
    }
}

#[test]
fn a_crash_image_from_the_middle_holds_everything_acknowledged_and_replays_to_it() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().open(&path).unwrap();
    define_all(&db);
    let gate = RwLock::new(());
    let (counts, acknowledged) = while_recording(&db, &gate, |progress| {
        (0..6)
            .map(|image| {
                if image % 2 == 1 {
                    db.checkpoint().unwrap();
                }
                let start = db.statistics().events;
                while db.statistics().events < start + 500 {
                    std::thread::yield_now();
                }
                // Nobody is inside a call; a copy takes longer than an instant.
                let still = gate.write().unwrap();
                crash_image(&path, &root.path().join(format!("{image}")));
                let told: Vec<u64> = progress.iter().map(|n| n.load(SeqCst)).collect();
                drop(still);
                told
            })
            .collect::<Vec<_>>()
    });
    assert_eq!(prefixes(&db), counts);
    for (image, told) in acknowledged.iter().enumerate() {
        assert_eq!(reopened(&root.path().join(format!("{image}")))[..], told[..], "image {image}");
    }
    drop(db);
    assert_eq!(reopened(&path), counts);
}

/// The background prepares the next segment while the last one fills; whoever comes first, it is
/// made once, and no caller hears of it. More engines than processors, so that threads are
/// interrupted at every place.
#[test]
fn a_next_segment_is_made_once_whoever_comes_first() {
    let root = tempfile::tempdir().unwrap();
    let payload = [7; 1_200];
    let go = &|thread: usize, round: usize| {
        let path = root.path().join(format!("{thread}-{round}"));
        let image = path.with_extension("image");
        let db = lazy().open(&path).unwrap();
        db.define(View::new("v")).unwrap();
        for n in 1..=1_000 {
            let recorded = db.record(&Event::new("e").payload(&payload));
            recorded.unwrap_or_else(|error| panic!("{thread}, {round}, event {n}: {error}"));
        }
        crash_image(&path, &image);
        drop(db);
        for (path, what) in [(&path, "closed"), (&image, "killed")] {
            let db = options().open(path);
            let db = db.unwrap_or_else(|error| panic!("{thread}, {round}, {what}: {error}"));
            assert_eq!(db.statistics().events, 1_000, "{thread}, {round}, {what}");
            let counted = db.query("v").unwrap().totals().unwrap().count;
            assert_eq!(counted, 1_000, "{thread}, {round}, {what}");
        }
        std::fs::remove_dir_all(&image).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
    };
    std::thread::scope(|scope| {
        for thread in 0..6 {
            scope.spawn(move || (0..10).for_each(|round| go(thread, round)));
        }
    });
}

/// The log is cut at any place of its unsynced tail: each thread's events are still a prefix.
#[test]
fn what_a_cut_of_the_unsynced_tail_leaves_is_a_prefix_of_each_thread() {
    let root = tempfile::tempdir().unwrap();
    let (path, image) = (root.path().join("db"), root.path().join("image"));
    let db = lazy().segment_bytes(64 << 20).open(&path).unwrap();
    define_all(&db);
    db.sync().unwrap();
    let gate = RwLock::new(());
    while_recording(&db, &gate, |_| {
        while db.statistics().events < 6_000 && db.statistics().segments < 2 {
            std::thread::yield_now();
        }
        let _still = gate.write().unwrap();
        crash_image(&path, &image);
    });
    let segment = &crate::directory::segments(&image)[0];
    let whole = std::fs::read(segment).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let mut seen = Vec::new();
    for part in 1..=12 {
        let mut torn = whole.clone();
        torn[end * part / 13..].fill(0);
        let copy = root.path().join(format!("cut{part}"));
        crash_image(&image, &copy);
        std::fs::write(copy.join("log").join(segment.file_name().unwrap()), torn).unwrap();
        let db = options().open(&copy).unwrap();
        if db.views().unwrap().len() == 3 {
            seen.push(prefixes(&db).iter().sum::<u64>());
        }
    }
    assert!(seen.len() > 6 && seen.is_sorted() && seen[0] < *seen.last().unwrap(), "{seen:?}");
}
