//! Several threads on one store: nothing is lost, and nothing counts twice.

use quipu_peers::adapter::EventStore;
use std::sync::atomic::{AtomicBool, Ordering};

const THREADS: u64 = 8;
const EACH: u64 = 400;

fn ever(store: &EventStore, name: &str) -> Option<u64> {
    store.query(name).ever().sum().expect("answered")
}

/// Records from several threads while `ask` is called again and again.
fn while_recording(
    store: &EventStore,
    name: impl Fn(u64, u64) -> String + Sync,
    ask: impl Fn() + Sync,
) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                ask();
            }
            ask();
        });
        let recording: Vec<_> = (0..THREADS)
            .map(|thread| {
                let name = &name;
                scope.spawn(move || {
                    for n in 0..EACH {
                        store.record(name(thread, n)).expect("recorded");
                    }
                })
            })
            .collect();
        for thread in recording {
            thread.join().expect("recorded all");
        }
        done.store(true, Ordering::Release);
        asking.join().expect("answered all");
    });
}

#[test]
fn threads_on_one_counter_lose_nothing() {
    let store = EventStore::new().expect("opened");
    while_recording(&store, |_, _| "event".to_owned(), || {});
    assert_eq!(ever(&store, "event"), Some(THREADS * EACH));
}

#[test]
fn threads_on_many_counters_lose_nothing() {
    let store = EventStore::new().expect("opened");
    while_recording(&store, |thread, n| format!("{thread}:{}", n % 20), || {});
    for thread in 0..THREADS {
        assert!((0..20).all(|n| ever(&store, &format!("{thread}:{n}")) == Some(EACH / 20)));
    }
    let all = store.db().query("counters").expect("a view");
    assert_eq!(all.all_series().ever().sum().expect("answered"), Some(THREADS * EACH));
}

#[test]
fn answers_grow_while_others_record() {
    let store = EventStore::new().expect("opened");
    let last = std::sync::atomic::AtomicU64::new(0);
    while_recording(
        &store,
        |_, _| "event".to_owned(),
        || {
            let count = ever(&store, "event").unwrap_or(0);
            assert!(last.swap(count, Ordering::AcqRel) <= count);
        },
    );
    assert_eq!(ever(&store, "event"), Some(THREADS * EACH));
}

/// Of tiny-counter one of the two can replace what the other has just made.
#[test]
fn the_first_question_and_the_first_event_meet() {
    let store = EventStore::new().expect("opened");
    for n in 0..200 {
        let name = format!("new{n}");
        std::thread::scope(|scope| {
            scope.spawn(|| store.record(&name).expect("recorded"));
            scope.spawn(|| ever(&store, &name));
            scope.spawn(|| store.record(&name).expect("recorded"));
        });
        assert_eq!(ever(&store, &name), Some(2), "{name}");
    }
}

#[test]
fn questions_of_several_counters_go_on_while_others_record() {
    let store = EventStore::new().expect("opened");
    let name = |_, n| ["a", "b", "c"][n as usize % 3].to_owned();
    while_recording(&store, name, || {
        let all = store.query_many(&["a", "b", "c"]).last_days(2).sum().expect("answered");
        assert!(all.unwrap_or(0) <= THREADS * EACH);
        let ratio = store.query_ratio("a", "b").last_days(2).expect("answered");
        assert!(ratio.is_none_or(|ratio| ratio >= 0.0));
        store.query_ratio("b", "a").ever().expect("answered");
        store.query_delta("a", "b").last_days(2).sum().expect("answered");
    });
    let all = store.query_many(&["a", "b", "c"]).ever().sum().expect("answered");
    assert_eq!(all, Some(THREADS * EACH));
}

#[test]
fn persisting_while_others_record_loses_nothing() {
    let root = tempfile::tempdir().expect("a folder");
    let dir = root.path().join("db");
    let store = EventStore::builder().with_storage(&dir).build().expect("opened");
    let name = |thread, _| format!("of {thread}");
    while_recording(&store, name, || store.persist().expect("persisted"));
    store.close().expect("closed");
    let store = EventStore::builder().with_storage(&dir).build().expect("opened");
    assert!((0..THREADS).all(|thread| ever(&store, &format!("of {thread}")) == Some(EACH)));
}
