//! Stores of one's own: what works with them, and what becomes of a store that fails.

mod change;
mod unhindered;

use crate::directory::{NOW, contents, crash_image, options, record_alone};
use quipu::storage::{self, Changes, MemoryStorage, Snapshot, Start, Storage, Table};
use quipu::{
    Db, Dedup, Depth, Error, ErrorKind, Event, Grain, Keep, Options, Progress, Result, Retention,
    Row, Timestamp, View,
};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// What a call of the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Snapshot,
    Get(Table),
    Range(Table),
    Commit,
    /// Behind a commit that has happened.
    Committed,
    Close,
}

type Plan = Box<dyn FnMut(Call) -> Result<()> + Send>;

/// Rows in memory, and a plan that may refuse calls, do something in the middle of them, or panic.
#[derive(Clone, Default)]
struct Planned {
    rows: MemoryStorage,
    plan: Arc<Mutex<Option<Plan>>>,
    commits: Arc<AtomicUsize>,
}

struct PlannedSnapshot<'a>(&'a Planned, Box<dyn Snapshot + 'a>);

impl Planned {
    fn plan(&self, plan: impl FnMut(Call) -> Result<()> + Send + 'static) {
        *self.plan.lock().unwrap() = Some(Box::new(plan));
    }

    fn heal(&self) {
        *self.plan.lock().unwrap() = None;
    }

    /// Fails the first so many of these calls.
    fn fail(&self, times: usize, call: Call) {
        let mut left = times;
        self.plan(move |now| {
            let fails = now == call && left > 0;
            left -= usize::from(fails);
            if fails { Err(failure()) } else { Ok(()) }
        });
    }

    fn before(&self, call: Call) -> Result<()> {
        // Not held while it runs: it may call the store in its turn.
        let Some(mut plan) = self.plan.lock().unwrap().take() else { return Ok(()) };
        let result = plan(call);
        self.plan.lock().unwrap().get_or_insert(plan);
        result
    }

    fn options(&self) -> Options {
        let shared = self.clone();
        options().storage("planned", move |_| Ok(shared.clone()))
    }

    /// One with the rows of this moment, for an image of the directory.
    fn fork(&self) -> Planned {
        let fork = Planned::default();
        fork.put_all(&self.all_rows());
        fork
    }

    fn put_all(&self, rows: &[(Table, Vec<u8>, Vec<u8>)]) {
        let mut changes = Changes::default();
        for (table, key, value) in rows {
            changes.put(*table, key.clone(), Some(value.clone()));
        }
        self.rows.commit(&changes).unwrap();
    }

    fn all_rows(&self) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
        let snapshot = self.rows.snapshot().unwrap();
        let rows_of = |table| {
            let rows = snapshot.range(table, Start::At(&[]), None, usize::MAX).unwrap();
            rows.into_iter().map(move |(key, value)| (table, key, value))
        };
        Table::ALL.into_iter().flat_map(rows_of).collect()
    }
}

fn failure() -> Error {
    Error::of_storage(ErrorKind::Io, "the moon is wrong").because(io::Error::other("moon"))
}

impl Storage for Planned {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        self.before(Call::Snapshot)?;
        Ok(Box::new(PlannedSnapshot(self, self.rows.snapshot()?)))
    }

    fn commit(&self, changes: &Changes) -> Result<()> {
        self.before(Call::Commit)?;
        self.rows.commit(changes)?;
        self.commits.fetch_add(1, SeqCst);
        self.before(Call::Committed)
    }

    fn close(&self) -> Result<()> {
        self.before(Call::Close)
    }
}

impl Snapshot for PlannedSnapshot<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.0.before(Call::Get(table))?;
        self.1.get(table, key)
    }

    fn range(
        &self,
        table: Table,
        from: Start<'_>,
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.0.before(Call::Range(table))?;
        self.1.range(table, from, to, limit)
    }
}

/// Changes the rows that `change` changes, behind the engine's back.
fn tamper(store: &Planned, mut change: impl FnMut(Table, &[u8], &mut Vec<u8>) -> bool) {
    let mut changes = Changes::default();
    for (table, key, mut value) in store.all_rows() {
        if change(table, &key, &mut value) {
            let value = (!value.is_empty()).then_some(value);
            changes.put(table, key, value);
        }
    }
    assert!(Table::ALL.iter().any(|table| !changes.of(*table).is_empty()), "there is such a row");
    store.rows.commit(&changes).unwrap();
}

/// Flips a bit of the series of this user.
fn damage(store: &Planned, user: &str) {
    tamper(store, |table, key, value| {
        let is_it = table == Table::Series && key.windows(user.len()).any(|w| w == user.as_bytes());
        value[9] ^= u8::from(is_it) << 4;
        is_it
    });
}

fn views() -> [View; 2] {
    [
        View::new("by_user").by(["user"]).stats("value").grain(Grain::Hour, Keep::Last(40)),
        View::new("all"),
    ]
}

fn define(db: &Db) {
    for view in views() {
        db.define(view).unwrap();
    }
}

fn record(db: &Db, users: std::ops::Range<u64>) {
    for n in users {
        let user = format!("u{n:03}");
        db.record(&Event::new("e").dim("user", &user).value(n as f64)).unwrap();
    }
}

fn rows(db: &Db) -> Vec<Row> {
    db.query("by_user").unwrap().rows().unwrap().map(Result::unwrap).collect()
}

/// A directory with a store of one's own, open, and these users in it.
fn begin(users: std::ops::Range<u64>) -> (TempDir, PathBuf, Planned, Db) {
    let (root, store) = (tempfile::tempdir().unwrap(), Planned::default());
    let path = root.path().join("db");
    let db = store.options().open(&path).unwrap();
    define(&db);
    record(&db, users);
    (root, path, store, db)
}

fn count(db: &Db, user: &str) -> u64 {
    db.query("by_user").unwrap().get(&[user]).unwrap().map_or(0, |row| row.count)
}

/// Everything that this module asks of an engine.
fn answers(db: &Db) -> impl PartialEq + std::fmt::Debug + use<> {
    let by_user = db.query("by_user").unwrap();
    let buckets: Vec<_> =
        rows(db).iter().map(|row| by_user.buckets(&[&row.key[0]], Grain::Hour).unwrap()).collect();
    let prefix: Vec<_> = by_user.prefix(&[]).unwrap().map(Result::unwrap).collect();
    let totals = [by_user.totals().unwrap(), db.query("all").unwrap().totals().unwrap()];
    let statistics = db.statistics();
    (
        (rows(db), buckets, prefix, totals, by_user.key_count().unwrap()),
        (statistics.events, statistics.duplicates, db.position()),
    )
}

#[test]
fn everything_works_on_a_store_of_ones_own() {
    let root = tempfile::tempdir().unwrap();
    let store = Planned::default();
    let with = |guest: Option<&Planned>| {
        let options = guest.map_or_else(options, Planned::options);
        options.memory_budget(0).retention(Retention::Recovery).dedup(Dedup::Last(50))
    };
    let mut all = Vec::new();
    for (name, guest) in [("redb", None), ("planned", Some(&store))] {
        let path = root.path().join(name);
        let db = with(guest).open(&path).unwrap();
        define(&db);
        for round in 0..4 {
            for n in 0..300 {
                let user = format!("u{:03}", n * 7 % 200 + round);
                let id = format!("id {}", n % 290);
                let event = Event::new("e").dim("user", &user).value(f64::from(n)).id(&id);
                record_alone(&db, event.payload(&[7; 500]));
            }
            db.checkpoint().unwrap();
            assert!(count(&db, "u007") > 0);
        }
        db.define(View::new("dropped").by(["user"])).unwrap();
        record(&db, 0..20);
        db.checkpoint().unwrap();
        db.drop_view("dropped").unwrap();
        record(&db, 0..20);
        let expected = answers(&db);
        let evictions = db.statistics().evictions;
        assert!(evictions > 0, "series were evicted and came back from the store");
        assert!(!path.join("log/0000000001.qlog").exists(), "segments were retired");
        assert_eq!(path.join("state.redb").exists(), guest.is_none());
        // A kill, whose replay goes on from the store, and a close.
        let image = root.path().join(format!("image of {name}"));
        crash_image(&path, &image);
        let fork = guest.map(Planned::fork);
        let db_of_image = with(fork.as_ref()).open(&image).unwrap();
        assert!(db_of_image.statistics().replayed > 0);
        assert_eq!(answers(&db_of_image), expected);
        db.close().unwrap();
        let db = with(guest).open(&path).unwrap();
        assert_eq!(db.statistics().replayed, 0);
        assert_eq!(db.statistics().storage, name);
        assert_eq!(answers(&db), expected);
        all.push(expected);
    }
    assert!(all[0] == all[1], "the answers are those of redb's store");
}

#[test]
fn a_failed_commit_leaves_series_dirty() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let store = Planned::default();
    let db = store.options().open(&path).unwrap();
    assert!(!db.is_dirty(), "there is nothing yet");
    define(&db);
    assert!(db.is_dirty(), "a definition");
    db.checkpoint().unwrap();
    assert!(!db.is_dirty());
    record(&db, 0..10);
    assert_eq!((db.is_dirty(), db.dirty_series()), (true, 11));
    // A commit that makes none of it, and one that makes all of it and says that it did not.
    for (call, round) in [(Call::Commit, 1), (Call::Committed, 2)] {
        store.fail(3, call);
        for failed in 1..=3 {
            let error = db.checkpoint().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            let told = error.to_string();
            assert!(told.contains("\"planned\"") && told.contains("the moon is wrong"), "{told}");
            assert_eq!(error.path(), Some(&*path), "{told}");
            assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "moon");
            assert!(db.is_dirty());
            // Some of them change once more, and are counted once.
            record(&db, 0..5);
            assert_eq!(db.dirty_series(), 11, "after {failed} of {call:?}");
            assert_eq!(db.statistics().series_dirty, 11);
            assert_eq!(count(&db, "u000"), 1 + failed + (round - 1) * 4);
            assert_eq!(count(&db, "u009"), round);
        }
        // What a kill leaves now comes from the log.
        let image = root.path().join(format!("image {round}"));
        crash_image(&path, &image);
        let fork = store.fork();
        db.checkpoint().unwrap();
        assert_eq!((db.is_dirty(), db.dirty_series()), (false, 0));
        let expected = answers(&db);
        assert_eq!(answers(&fork.options().open(&image).unwrap()), expected);
        record(&db, 0..10);
        assert_eq!(db.dirty_series(), 11);
    }
    let expected = answers(&db);
    db.close().unwrap();
    let db = store.options().open(&path).unwrap();
    assert!(!db.is_dirty());
    assert_eq!(db.statistics().replayed, 0);
    assert_eq!(answers(&db), expected);
}

/// Cold keys that are recorded to hold only what came since; a checkpoint reads their rows.
#[test]
fn a_store_that_fails_while_it_is_read_costs_an_answer_and_no_record() {
    let (_root, path, store, db) = begin(0..20);
    db.close().unwrap();
    let db = store.options().memory_budget(0).open(&path).unwrap();
    record(&db, 0..10);
    let calls = [
        Call::Snapshot,
        Call::Get(Table::Series),
        Call::Get(Table::Buckets),
        Call::Range(Table::Series),
    ];
    for (call, round) in calls.into_iter().zip(1..) {
        // One that nobody has asked for yet.
        let cold = format!("u{:03}", 10 + round);
        record(&db, 10 + round..11 + round);
        store.fail(usize::MAX, call);
        let asked = db.query("by_user").unwrap();
        let answers = match call {
            Call::Range(_) => {
                asked.rows().and_then(|mut rows| rows.try_for_each(|row| row.map(|_| ())))
            }
            _ => asked.get(&[&cold]).map(|_| ()),
        };
        assert_eq!(answers.unwrap_err().kind(), ErrorKind::Io, "{call:?}");
        if !matches!(call, Call::Range(_)) {
            assert_eq!(db.checkpoint().unwrap_err().kind(), ErrorKind::Io, "{call:?}");
        }
        assert!(db.is_dirty() && db.dirty_series() >= 2, "{call:?}");
        record(&db, 0..10);
        store.heal();
        assert_eq!(count(&db, &cold), 2, "{call:?}");
        assert_eq!(count(&db, "u005"), 2 + round, "{call:?}");
        db.checkpoint().unwrap();
        assert_eq!(count(&db, "u005"), 2 + round, "{call:?}");
    }
    let expected = answers(&db);
    db.close().unwrap();
    let db = store.options().open(&path).unwrap();
    assert_eq!(db.statistics().replayed, 0);
    assert_eq!(answers(&db), expected);
}

#[test]
fn a_store_that_fails_in_the_middle_of_a_checkpoint_fails_it_as_a_whole() {
    let (_root, path, store, db) = begin(0..30);
    db.close().unwrap();
    let mut recorded = 1;
    for fails_at in 0..12 {
        let db = store.options().open(&path).unwrap();
        record(&db, 0..30);
        recorded += 1;
        // The n-th call, whatever it is; cold rows are read one by one.
        let mut calls = 0;
        store.plan(move |_| {
            calls += 1;
            if calls == fails_at * 5 + 1 { Err(failure()) } else { Ok(()) }
        });
        assert!(db.checkpoint().is_err(), "there are as many calls");
        assert!(db.is_dirty());
        assert_eq!(db.dirty_series(), 31);
        store.heal();
        for user in ["u000", "u015", "u029"] {
            assert_eq!(count(&db, user), recorded);
        }
        match fails_at % 3 {
            // Closed, killed after another checkpoint, killed without.
            0 => db.close().unwrap(),
            1 => db.checkpoint().unwrap(),
            _ => {
                store.fail(usize::MAX, Call::Commit);
                drop(db);
                store.heal();
            }
        }
    }
    let db = store.options().open(&path).unwrap();
    assert!(rows(&db).iter().all(|row| row.count == recorded));
}

#[test]
fn a_panic_in_a_store_is_an_error() {
    let (_root, path, store, db) = begin(0..10);
    store.plan(|call| if call == Call::Commit { panic!("deep in the store") } else { Ok(()) });
    for _ in 0..2 {
        let error = db.checkpoint().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("deep in the store"), "{error}");
        assert_eq!(db.dirty_series(), 11);
        // The plan was lost with the panic.
        store.plan(|call| if call == Call::Commit { panic!("deep in the store") } else { Ok(()) });
    }
    store.heal();
    db.checkpoint().unwrap();
    assert!(!db.is_dirty());
    let expected = answers(&db);
    db.close().unwrap();
    assert_eq!(answers(&store.options().open(&path).unwrap()), expected);
    let shared = store.clone();
    let panicking = options().storage("planned", move |_| -> Result<Planned> {
        let _ = &shared;
        panic!("while it is opened")
    });
    let error = panicking.open(&path).unwrap_err();
    assert!(error.to_string().contains("while it is opened"), "{error}");
    assert_eq!(answers(&store.options().open(&path).unwrap()), expected);
}

#[test]
fn closing_says_what_could_not_be_stored_and_the_next_opening_has_it() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let store = Planned::default();
    let mut recorded = 0;
    for call in [Call::Commit, Call::Committed, Call::Close] {
        let db = store.options().open(&path).unwrap();
        define(&db);
        record(&db, 0..10);
        recorded += 1;
        let expected = answers(&db);
        store.fail(1, call);
        let error = db.close().unwrap_err();
        assert!(error.to_string().contains("the moon is wrong"), "{call:?}: {error}");
        db.close().unwrap();
        assert_eq!(db.record(&Event::new("e")).unwrap_err().kind(), ErrorKind::Closed);
        store.heal();
        let db = store.options().open(&path).unwrap();
        assert_eq!(db.is_dirty(), call == Call::Commit, "{call:?}: what is not stored is replayed");
        assert_eq!(answers(&db), expected, "{call:?}");
        assert_eq!(count(&db, "u003"), recorded);
    }
}

/// Turns after which something in the background should have happened long ago.
fn patiently(mut happened: impl FnMut() -> bool) -> bool {
    (0..50_000_000).any(|_| {
        std::thread::yield_now();
        happened()
    })
}

#[test]
fn what_fails_in_the_background_is_in_the_statistics_and_is_tried_again() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let store = Planned::default();
    let often = std::time::Duration::from_millis(5);
    let db = store.options().checkpoint_every(often).open(&path).unwrap();
    assert_eq!(db.statistics().background_error, None);
    store.fail(usize::MAX, Call::Commit);
    define(&db);
    record(&db, 0..10);
    assert!(patiently(|| db.statistics().background_failures >= 2));
    let statistics = db.statistics();
    let error = statistics.background_error.unwrap();
    assert_eq!(error.work, "checkpoint");
    assert!(error.error.contains("the moon is wrong"), "{}", error.error);
    assert_eq!(error.time, Timestamp::from_secs(NOW));
    assert!(statistics.checkpoint_failures >= statistics.background_failures);
    assert!(db.is_dirty());
    assert_eq!(db.dirty_series(), 11);
    store.heal();
    assert!(patiently(|| !db.is_dirty()), "nobody asked for it");
    db.close().unwrap();
}

/// A question for a cold key reads its row; meanwhile the key is recorded to, and a checkpoint made.
#[test]
fn a_first_query_racing_a_record_loses_no_record() {
    let (_root, path, store, db) = begin(0..10);
    db.close().unwrap();
    let mut expected = 1;
    for checkpoints in [false, true] {
        for call in [Call::Snapshot, Call::Get(Table::Series), Call::Get(Table::Buckets)] {
            let db = store.options().open(&path).unwrap();
            let (racing, mut left) = (db.clone(), 1);
            store.plan(move |now| {
                if now == call && left > 0 {
                    left -= 1;
                    record(&racing, 3..4);
                    if checkpoints {
                        racing.checkpoint()?;
                    }
                }
                Ok(())
            });
            let asked = count(&db, "u003");
            assert!((expected..=expected + 1).contains(&asked), "{call:?}: {asked} of {expected}");
            expected += 1;
            store.heal();
            assert_eq!(count(&db, "u003"), expected, "{call:?}");
            db.checkpoint().unwrap();
            assert_eq!(count(&db, "u003"), expected, "{call:?}");
            db.close().unwrap();
            let db = store.options().open(&path).unwrap();
            assert_eq!((count(&db, "u003"), count(&db, "u004")), (expected, 1), "{call:?}");
            db.close().unwrap();
        }
    }
}

#[test]
fn a_damaged_row_is_neither_answered_with_zero_nor_overwritten() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let store = Planned::default();
    let with = || store.options().retention(Retention::Recovery);
    let db = with().open(&path).unwrap();
    define(&db);
    record(&db, 0..10);
    db.close().unwrap();
    damage(&store, "u003");
    let damaged = store.all_rows();
    let db = with().open(&path).unwrap();
    let by_user = db.query("by_user").unwrap();
    let error = by_user.get(&["u003"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("u003"), "{error}");
    assert_eq!(by_user.totals().unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(count(&db, "u004"), 1);
    record(&db, 3..5);
    assert_eq!(by_user.get(&["u003"]).unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(db.checkpoint().unwrap_err().kind(), ErrorKind::Corruption);
    assert!(db.is_dirty());
    assert_eq!(count(&db, "u004"), 2);
    assert_eq!(db.close().unwrap_err().kind(), ErrorKind::Corruption);
    assert!(store.all_rows() == damaged, "not a byte of the store was changed");
    let report = with().verify(&path, Depth::Refold, |_| {}).unwrap();
    let finding = report.damages().next().unwrap();
    assert!(finding.what.contains("u003"), "{finding:?}");
    // The row comes back: nothing that was recorded meanwhile is lost.
    damage(&store, "u003");
    let db = with().open(&path).unwrap();
    assert_eq!((count(&db, "u003"), count(&db, "u004")), (2, 2));
    db.checkpoint().unwrap();
}

#[test]
fn a_damaged_file_is_neither_answered_with_zero_nor_overwritten() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let with = || options().retention(Retention::Recovery);
    let db = with().open(&path).unwrap();
    define(&db);
    for n in 0..300 {
        let user = format!("u{n:03}");
        record_alone(&db, Event::new("e").dim("user", &user).payload(&[1; 1_000]));
    }
    db.close().unwrap();
    with().open(&path).unwrap().checkpoint().unwrap();
    assert!(!path.join("log/0000000001.qlog").exists(), "the log does not say all");
    let file = path.join("state.redb");
    let whole = std::fs::read(&file).unwrap();
    let zeros = [&whole[..4_096], &vec![0; whole.len() - 4_096]].concat();
    for bytes in [zeros, Vec::new(), whole[..9_000].to_vec()] {
        std::fs::write(&file, &bytes).unwrap();
        let before = contents(&path);
        for _ in 0..2 {
            assert_eq!(with().open(&path).unwrap_err().kind(), ErrorKind::Corruption);
            assert!(contents(&path) == before, "not a byte was changed");
        }
    }
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(rows(&with().open(&path).unwrap()).len(), 300);
}

/// A store whose ranges are backwards.
#[derive(Clone)]
struct Backwards(MemoryStorage);
struct BackwardsSnapshot<'a>(Box<dyn Snapshot + 'a>);
impl Storage for Backwards {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        Ok(Box::new(BackwardsSnapshot(self.0.snapshot()?)))
    }
    fn commit(&self, changes: &Changes) -> Result<()> {
        self.0.commit(changes)
    }
    fn close(&self) -> Result<()> {
        Ok(())
    }
}
impl Snapshot for BackwardsSnapshot<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.0.get(table, key)
    }
    fn range(
        &self,
        table: Table,
        from: Start<'_>,
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut rows = self.0.range(table, from, to, limit)?;
        rows.reverse();
        Ok(rows)
    }
}

#[test]
fn strange_rows_of_a_store_are_corruption_and_no_answers() {
    let root = tempfile::tempdir().unwrap();
    let store = Planned::default();
    let db = store.options().open(root.path().join("a")).unwrap();
    define(&db);
    record(&db, 0..10);
    db.close().unwrap();
    // Rows of two keys that have changed places, one that is gone, and a catalog that is gone.
    let taken = store.all_rows();
    let value_of = |user: &str| {
        let is_it = |key: &[u8]| key.windows(user.len()).any(|w| w == user.as_bytes());
        let row = taken.iter().find(|(table, key, _)| *table == Table::Series && is_it(key));
        row.unwrap().2.clone()
    };
    let (three, four) = (value_of("u003"), value_of("u004"));
    tamper(&store, |table, _, value| {
        let swapped = if *value == three { &four } else { &three };
        let is_one = table == Table::Series && (*value == three || *value == four);
        if is_one {
            value.clone_from(swapped);
        }
        is_one
    });
    let db = store.options().open(root.path().join("a")).unwrap();
    for user in ["u003", "u004"] {
        let error = db.query("by_user").unwrap().get(&[user]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    }
    assert_eq!(count(&db, "u005"), 1);
    db.close().unwrap();
    // The store of another directory, for a new one and for one that is there.
    let b = root.path().join("b");
    for _ in ["new", "there"] {
        let error = store.options().open(&b).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        assert!(error.to_string().contains("another directory"), "{error}");
    }
    Planned::default().options().open(&b).unwrap().close().unwrap();
    let before = contents(&b);
    assert_eq!(store.options().open(&b).unwrap_err().kind(), ErrorKind::Corruption);
    assert!(contents(&b) == before, "not a byte was changed");
    // One that gives rows which are out of order.
    let backwards = Backwards(MemoryStorage::default());
    let shared = backwards.clone();
    let with = || {
        let shared = shared.clone();
        options().storage("back", move |_| Ok(shared.clone()))
    };
    let db = with().open(root.path().join("c")).unwrap();
    define(&db);
    record(&db, 0..10);
    db.close().unwrap();
    let db = with().open(root.path().join("c")).unwrap();
    let error = db.query("by_user").unwrap().totals().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    assert_eq!(
        storage::check(|| Ok(Backwards(MemoryStorage::default()))).unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn dirty_is_what_no_checkpoint_has() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().open(&path).unwrap();
    define(&db);
    db.checkpoint().unwrap();
    assert_eq!((db.is_dirty(), db.dirty_series()), (false, 0));
    // Single events are seen at once, also those that wait for others.
    db.record(&Event::new("e").dim("user", "a")).unwrap();
    assert!(db.is_dirty());
    db.record(&Event::new("e").dim("user", "a")).unwrap();
    db.record(&Event::new("e").dim("user", "b")).unwrap();
    assert_eq!(db.dirty_series(), 3, "two users, and the view without a key");
    db.query("by_user").unwrap().totals().unwrap();
    assert_eq!(db.dirty_series(), 3, "asking changes nothing");
    let image = root.path().join("image");
    db.sync().unwrap();
    assert!(db.is_dirty(), "durable in the log, and not in the snapshot");
    crash_image(&path, &image);
    db.checkpoint().unwrap();
    assert!(!db.is_dirty());
    // No view has it, and the next opening would read it again.
    db.drop_view("all").unwrap();
    assert!(db.is_dirty());
    assert_eq!(db.dirty_series(), 0);
    db.close().unwrap();
    let replayed = options().open(&image).unwrap();
    assert_eq!((replayed.is_dirty(), replayed.dirty_series()), (true, 3));
    replayed.checkpoint().unwrap();
    assert!(!replayed.is_dirty());
    assert!(!options().open(&path).unwrap().is_dirty(), "it was closed");
}

#[test]
fn the_store_in_memory_does_what_a_store_promises() {
    let rows = MemoryStorage::default();
    storage::check(|| Ok(rows.clone())).unwrap();
    // Of which rows there were some already.
    let error = storage::check(|| Ok(rows.clone())).unwrap_err();
    assert!(error.to_string().contains("never committed to"), "{error}");
}
