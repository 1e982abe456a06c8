//! Recording does not wait for a checkpoint, a disk read or a query: while the store stands still in any
//! of its calls, another thread records in every way there is, and gets all of its answers.

use super::{Call, Planned, begin, count, go_on};
use quipu::storage::Table;
use quipu::{Db, Durability, Event, Grain, Keep, Policy, View, Window};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Longer than any machine takes for some events; who waits so long waits for the store.
const FOREVER: Duration = Duration::from_mins(2);

fn policy() -> Policy {
    Policy::new("calls").at_most("all", 1_000_000, Window::fixed(Grain::Hour))
}

/// What is recorded with each call: to a key that is stored, to one that is dirty, and to new ones.
const EVENTS: u64 = 11;

fn record_in_every_way(db: &Db, times: usize) {
    let new = format!("new {times}");
    let of = |user| Event::new("e").dim("user", user).value(1.0);
    for durability in [Durability::Memory, Durability::Sync] {
        for user in ["u001", "u002", &new] {
            db.record_with(&of(user), durability).unwrap();
        }
    }
    let mut batch = db.batch();
    for user in ["u001", "u003", &new] {
        batch.push(&of(user)).unwrap();
    }
    assert_eq!(db.record_batch(&mut batch).unwrap().recorded, 3);
    db.counter("e").unwrap().record().unwrap();
    assert!(db.limiter("calls").unwrap().check_and_record(&of("u001")).unwrap().is_allowed());
}

/// Has a thread of its own record, and waits for it.
fn others_record(db: &Db, times: &AtomicUsize) {
    let (done, is_done) = mpsc::channel();
    let (db, n) = (db.clone(), times.fetch_add(1, SeqCst));
    thread::spawn(move || {
        record_in_every_way(&db, n);
        done.send(()).unwrap();
    });
    is_done.recv_timeout(FOREVER).expect("recording waits for what stands still");
}

type Ask = fn(&Db);

fn open(store: &Planned, path: &Path) -> Db {
    let hours = |view: View| view.grain(Grain::Hour, Keep::Last(3));
    let options = store.options().view(hours(View::new("all"))).memory_budget(0);
    options.view(View::counters()).open(path).unwrap()
}

#[test]
fn recording_waits_for_no_checkpoint_no_disk_read_and_no_query() {
    let (root, store) = (tempfile::tempdir().unwrap(), Planned::default());
    let path = root.path().join("db");
    let db = open(&store, &path);
    db.define(super::views()[0].clone()).unwrap();
    db.set_policy(policy()).unwrap();
    super::record(&db, 0..600);
    db.close().unwrap();
    let mut recorded = 600;

    let cases: [(&str, &[Call], Ask); 5] = [
        ("a checkpoint", &[Call::Commit, Call::Committed], |db| db.checkpoint().unwrap()),
        ("a point query", &[Call::Snapshot, Call::Get(Table::Series)], |db| {
            assert!(count(db, "u007") > 0);
        }),
        ("buckets", &[Call::Get(Table::Buckets)], |db| {
            let buckets = db.query("by_user").unwrap().buckets(&["u009"], Grain::Hour).unwrap();
            assert!(!buckets.is_empty());
        }),
        ("a scan", &[Call::Snapshot, Call::Range(Table::Series)], |db| {
            assert!(super::rows(db).len() >= 600);
        }),
        ("totals", &[Call::Range(Table::Series)], |db| {
            assert!(db.query("by_user").unwrap().totals().unwrap().count >= 600);
        }),
    ];
    for (what, calls, ask) in cases {
        for call in calls {
            let db = open(&store, &path);
            record_in_every_way(&db, 1_000_000);
            recorded += EVENTS;
            let times = Arc::new(AtomicUsize::new(0));
            let (others, seen) = (db.clone(), Arc::clone(&times));
            let call = *call;
            store.plan(move |now| {
                // Of a scan's many calls the first few will do; a checkpoint makes one.
                if now == call && seen.load(SeqCst) < 3 {
                    others_record(&others, &seen);
                }
                Ok(())
            });
            ask(&db);
            store.heal();
            let times = times.load(SeqCst) as u64;
            assert!(times > 0, "{what} makes no {call:?}");
            recorded += times * EVENTS;
            let all = db.query("all").unwrap().totals().unwrap().count;
            assert_eq!(all, recorded, "{what} at {call:?}");
            db.close().unwrap();
        }
    }
    let db = open(&store, &path);
    assert_eq!(db.query("all").unwrap().totals().unwrap().count, recorded);
}

#[test]
fn recording_waits_for_nobody_who_is_told_of_rows_or_of_progress() {
    let (_root, _path, store, db) = begin(0..600);
    db.define(View::counters()).unwrap();
    db.redefine(View::new("all").grain(Grain::Hour, Keep::Last(3)), go_on).unwrap();
    db.set_policy(policy()).unwrap();
    let times = AtomicUsize::new(0);
    let once = |n: usize| {
        if times.load(SeqCst) < n {
            others_record(&db, &times);
        }
        ControlFlow::Continue(())
    };
    db.query("by_user").unwrap().for_each(|_| once(1)).unwrap();
    db.define(View::new("late").by(["user"])).unwrap();
    db.backfill("late", |_| once(2)).unwrap();
    db.redefine(View::new("late").by(["user"]).stats("value"), |_| once(3)).unwrap();
    assert_eq!(times.load(SeqCst), 3, "each of them told of something");
    let all = db.query("all").unwrap().totals().unwrap().count;
    assert_eq!(all, 600 + 3 * EVENTS);
    let late = db.query("late").unwrap().totals().unwrap();
    assert_eq!(late.count, all - 3, "all but the counter's, which have no user");
    drop(store);
}
