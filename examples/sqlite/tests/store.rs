//! The store against its contract, and an engine on it: closed, killed, moved and backed up.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends there")]

use quipu::storage::{self, Storage, Table};
use quipu::{Db, Depth, ErrorKind, Event, Grain, Keep, Options, Retention, Row, Upto, View};
use quipu_sqlite::SqliteStorage;
use std::ops::ControlFlow;
use std::path::Path;

fn options() -> Options {
    quipu_sqlite::options().retention(Retention::Recovery).memory_budget(0).segment_bytes(64 << 10)
}

fn record(db: &Db, n: u32) {
    let view = View::new("by_user").by(["user"]).stats("value").grain(Grain::Day, Keep::Last(9));
    db.define(view).unwrap();
    for n in 0..n {
        let user = format!("user {}", n % 300);
        let event = Event::new("sale").dim("user", &user).value(f64::from(n));
        db.record(&event.payload(&[1; 300])).unwrap();
    }
}

fn rows(db: &Db) -> Vec<Row> {
    db.query("by_user").unwrap().rows().unwrap().map(Result::unwrap).collect()
}

#[test]
fn it_does_what_a_store_promises() {
    let dir = tempfile::tempdir().unwrap();
    storage::check(|| SqliteStorage::open(dir.path())).unwrap();
}

#[test]
fn an_engine_goes_on_where_it_was_closed_or_killed() {
    let root = tempfile::tempdir().unwrap();
    let (dir, image) = (root.path().join("db"), root.path().join("image"));
    let db = options().open(&dir).unwrap();
    record(&db, 1_000);
    db.checkpoint().unwrap();
    record(&db, 700);
    db.checkpoint().unwrap();
    record(&db, 500);
    assert!(!dir.join("log/0000000001.qlog").exists(), "the store has what is no longer there");
    let expected = rows(&db);
    copy(&dir, &image);
    db.close().unwrap();
    for dir in [&dir, &image] {
        let db = options().open(dir).unwrap();
        assert_eq!(rows(&db), expected);
        db.close().unwrap();
        let report = options().verify(dir, Depth::Refold, |_| {}).unwrap();
        assert!(report.is_intact() && report.rows > 300);
        let error = Options::new().open(dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageConflict);
    }
}

#[test]
fn a_directory_comes_from_redb_and_goes_back_by_way_of_a_backup() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup, again) =
        (root.path().join("db"), root.path().join("backup"), root.path().join("again"));
    let db = Options::new().open(&dir).unwrap();
    record(&db, 1_000);
    let expected = rows(&db);
    db.close().unwrap();
    let db = options().change_storage().open(&dir).unwrap();
    assert_eq!(db.statistics().replayed, 0);
    assert_eq!(rows(&db), expected);
    db.backup(&backup, |_| ControlFlow::Continue(())).unwrap();
    quipu::restore(&backup, &again, Upto::Everything, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(rows(&Db::open(&again).unwrap()), expected);
}

#[test]
fn a_damaged_file_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    record(&db, 1_000);
    db.close().unwrap();
    let file = dir.join("state.sqlite");
    let whole = std::fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    damaged[100..].fill(0xa5);
    std::fs::write(&file, &damaged).unwrap();
    let error = options().open(&dir).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    std::fs::write(&file, &whole).unwrap();
    let db = options().open(&dir).unwrap();
    assert_eq!(rows(&db).len(), 300);
    let store = SqliteStorage::open(root.path()).unwrap();
    assert_eq!(store.snapshot().unwrap().get(Table::Meta, b"catalog").unwrap(), None);
}

/// The directory as a process that is killed leaves it; nothing is written meanwhile.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
