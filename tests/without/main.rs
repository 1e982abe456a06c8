//! What a program says that was built without a feature which a directory needs. Where the feature is there, this
//! is empty: `cargo test --test without`.
#![cfg(not(feature = "datasketches"))]

#[path = "../forge/catalog.rs"]
#[allow(dead_code, reason = "other tests change more of it")]
mod catalog;
#[path = "../forge/store.rs"]
#[allow(unreachable_pub, dead_code, reason = "the fuzz targets use all of it")]
mod store;

use catalog::Catalog;
use quipu::{Db, Error, ErrorKind, Event, ReadOnlyDb, View};
use std::fs;

/// A view that keeps what only other builds know.
fn unknown(name: &str) -> View {
    serde_json::from_str(&format!(
        r#"{{"name": "{name}", "key": [], "events": [], "conditions": [], "grains": [],
            "aggregates": [{{"kll": {{"measure": "value", "k": 200}}}}]}}"#
    ))
    .unwrap()
}

#[track_caller]
fn assert_told(error: &Error, name: &str) {
    assert_eq!(error.kind(), ErrorKind::NewerFormat, "{error}");
    let keeps = format!("the view {name:?} keeps a kll sketch 200 of value, which");
    assert!(error.to_string().contains(&keeps), "{error}");
    assert!(error.to_string().contains("the feature `datasketches`"), "{error}");
}

#[test]
fn what_a_view_keeps_is_told_and_the_directory_left_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = Db::open(&dir).unwrap();
    db.define(View::new("all")).unwrap();
    db.record(&Event::new("e")).unwrap();
    db.close().unwrap();
    drop(db);
    // From a snapshot,
    let path = dir.join("state.redb");
    let state = fs::read(&path).unwrap();
    let mut catalog = Catalog::read(&state);
    catalog.views[0].1 = unknown("all");
    let forged = catalog.write(&state);
    fs::write(&path, &forged).unwrap();
    assert_told(&Db::open(&dir).unwrap_err(), "all");
    assert_told(&ReadOnlyDb::open(&dir).unwrap_err(), "all");
    assert!(fs::read(&path).unwrap() == forged);
    // and from a program.
    fs::write(&path, &state).unwrap();
    let db = Db::open(&dir).unwrap();
    assert_told(&db.define(unknown("new")).unwrap_err(), "new");
    assert_eq!(db.query("all").unwrap().totals().unwrap().count, 1);
}
