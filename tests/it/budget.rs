//! Memory: cold series leave when the budget is small, and every answer stays right.

use crate::directory::{NOW, options};
use quipu::{Component, Db, Event, Grain, Keep, Row, Timestamp, View};
use std::cmp::Reverse;

const KEYS: u64 = 20_000;
const HOUR: i64 = 3_600;

fn define_all(db: &Db) {
    let ring = View::new("ring").by(["user"]).stats("value").grain(Grain::Hour, Keep::Last(3));
    db.define(ring).unwrap();
    db.define(View::new("pair").by(["group", "user"])).unwrap();
}

/// In round `r` the keys that `r` does not divide are recorded to, in that hour; some twice.
fn takes_part(key: u64, round: u64) -> u64 {
    if key.is_multiple_of(round + 2) { 0 } else { 1 + u64::from(key % 5 == round) }
}

fn record(db: &Db, round: u64) {
    let mut batch = db.batch();
    let at = Timestamp::from_secs(NOW - 100 * HOUR + round as i64 * HOUR);
    for key in 0..KEYS {
        let (user, group) = (format!("u{key}"), format!("g{}", key % 100));
        for _ in 0..takes_part(key, round) {
            let event = Event::new("e").dim("user", &user).dim("group", &group).at(at);
            batch.push(&event.value((key + round) as f64)).unwrap();
        }
        if batch.len() >= 2_000 {
            db.record_batch(&mut batch).unwrap();
        }
    }
    db.record_batch(&mut batch).unwrap();
}

/// Count, sum, and the counts of the hours that are kept, after `rounds`.
fn expected(key: u64, rounds: u64) -> (u64, f64, Vec<(i64, u64)>) {
    let taken = (0..rounds).map(|round| (round, takes_part(key, round))).filter(|(_, n)| *n > 0);
    let taken: Vec<_> = taken.collect();
    let count = taken.iter().map(|(_, n)| n).sum();
    let sum = taken.iter().map(|(round, n)| (n * (key + round)) as f64).sum();
    let newest = taken.last().map_or(0, |(round, _)| *round);
    let kept = taken.iter().filter(|(round, _)| round + 3 > newest);
    let hours = kept.map(|(round, n)| (NOW / HOUR - 100 + *round as i64, *n)).collect();
    (count, sum, hours)
}

fn check_key(db: &Db, key: u64, rounds: u64) {
    let user = format!("u{key}");
    let (count, sum, hours) = expected(key, rounds);
    let query = db.query("ring").unwrap();
    let row = query.get(&[&user]).unwrap();
    let got = row.as_ref().map(|row| (row.count, row.summary().unwrap().sum));
    assert_eq!(got, (count > 0).then_some((count, sum)), "{user} after {rounds} rounds");
    let buckets = query.buckets(&[&user], Grain::Hour).unwrap();
    let buckets: Vec<_> =
        buckets.iter().map(|b| (b.start.micros() / HOUR / 1_000_000, b.count)).collect();
    assert_eq!(buckets, hours, "{user} after {rounds} rounds");
}

fn check_all(db: &Db, rounds: u64) {
    let mut keys: Vec<(u64, String)> = (0..KEYS).map(|key| (key, format!("u{key}"))).collect();
    keys.retain(|(key, _)| expected(*key, rounds).0 > 0);
    keys.sort_by(|a, b| a.1.cmp(&b.1));
    let query = db.query("ring").unwrap();
    let rows: Vec<Row> = query.rows().unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), keys.len());
    for (row, (key, user)) in rows.iter().zip(&keys) {
        let (count, sum, _) = expected(*key, rounds);
        assert_eq!((&row.key[0], row.count, row.summary().unwrap().sum), (user, count, sum));
    }
    assert_eq!(query.key_count().unwrap(), keys.len() as u64);
    let counted: u64 = rows.iter().map(|row| row.count).sum();
    assert_eq!(query.totals().unwrap().count, counted);
    assert_eq!(db.statistics().events, counted);
    let mut ranked: Vec<_> = rows.iter().collect();
    ranked.sort_by_key(|row| (Reverse(row.count), &row.key));
    let top = query.top(25, Component::Count).unwrap();
    assert_eq!(top.iter().collect::<Vec<_>>(), ranked[..25]);
    let group = db.query("pair").unwrap().prefix(&["g7"]).unwrap();
    let group: u64 = group.map(|row| row.unwrap().count).sum();
    let members = (0..KEYS).filter(|key| key % 100 == 7);
    assert_eq!(group, members.map(|key| expected(key, rounds).0).sum::<u64>());
}

#[test]
fn under_a_tiny_budget_series_are_evicted_and_every_answer_stays_right() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let open = || options().memory_budget(100_000).open(&path).unwrap();
    let mut db = open();
    define_all(&db);
    // What the series need where there is room. The background keeps the budget, too, so that the
    // state before the checkpoint is not known.
    let roomy = {
        let db = options().open(root.path().join("roomy")).unwrap();
        define_all(&db);
        (0..6).for_each(|round| record(&db, round));
        db.checkpoint().unwrap();
        db.statistics()
    };
    for round in 0..6 {
        let before = db.statistics();
        assert_eq!(before.memory_budget_bytes, 100_000);
        record(&db, round);
        // Hot and cold, before the checkpoint and behind it.
        for key in (0..KEYS).step_by(1_777) {
            check_key(&db, key, round + 1);
        }
        db.checkpoint().unwrap();
        let lean = db.statistics();
        // Later on most series hold only what came since they left; written, they are gone without
        // being evicted.
        let least = if round == 0 { KEYS / 2 } else { 0 };
        assert!(lean.evictions >= before.evictions + least, "round {round}: {lean:?}");
        assert!(lean.series_resident < roomy.series_resident / 10, "round {round}: {lean:?}");
        // Tables and slots stay for what comes next; the series themselves are gone.
        assert!(lean.memory_bytes < roomy.memory_bytes, "round {round}: {lean:?} {roomy:?}");
        for key in (0..KEYS).step_by(577) {
            check_key(&db, key, round + 1);
        }
        if round == 1 || round == 4 {
            check_all(&db, round + 1);
        }
        if round == 3 {
            db.close().unwrap();
            db = open();
        }
    }
    for key in 0..KEYS {
        check_key(&db, key, 6);
    }
    db.checkpoint().unwrap();
    check_all(&db, 6);
    drop(db);
    check_all(&options().open(&path).unwrap(), 6);
}

#[test]
fn with_room_enough_nothing_is_evicted() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    define_all(&db);
    record(&db, 0);
    db.checkpoint().unwrap();
    let statistics = db.statistics();
    assert_eq!(statistics.evictions, 0);
    assert_eq!(statistics.series_dirty, 0);
    assert_eq!(statistics.series_resident, 2 * db.query("ring").unwrap().key_count().unwrap());
    assert!(statistics.memory_bytes > 0 && statistics.memory_bytes < 1 << 30);
}

#[test]
fn a_scan_leaves_cold_series_cold_and_a_look_brings_one_back() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().open(&path).unwrap();
    define_all(&db);
    record(&db, 0);
    drop(db);
    let db = options().open(&path).unwrap();
    assert_eq!(db.statistics().series_resident, 0, "opening reads no series");
    check_all(&db, 1);
    assert_eq!(db.statistics().series_resident, 0, "neither do scans keep them");
    check_key(&db, 1, 1);
    let one = db.statistics();
    assert_eq!((one.series_resident, one.series_dirty, one.series_partial), (1, 0, 0));
    assert_eq!(db.query("ring").unwrap().get(&["nobody"]).unwrap(), None);
    record(&db, 1);
    assert!(db.statistics().series_partial > 10_000, "recording reads no series either");
    check_all(&db, 2);
}

#[test]
fn tables_made_for_the_expected_keys_do_not_grow() {
    let root = tempfile::tempdir().unwrap();
    for (name, keys) in [("hinted", KEYS as usize), ("not", 0)] {
        let db = options().expected_keys(keys).open(root.path().join(name)).unwrap();
        define_all(&db);
        record(&db, 0);
        let statistics = db.statistics();
        assert_eq!(statistics.resizes == 0, keys > 0, "{name}: {statistics:?}");
        check_all(&db, 1);
    }
}
