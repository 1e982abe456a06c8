//! Deduplication by event id: inside the window once, across batches, threads and restarts.

use crate::directory::{NOW, crash_image, options};
use quipu::{Db, Dedup, Event, Options, TestClock, Timestamp, View};
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::Duration;
use tempfile::TempDir;

const MINUTE: Duration = Duration::from_mins(1);

/// A directory that is opened again and again.
struct Place {
    root: TempDir,
    path: PathBuf,
    clock: TestClock,
    images: usize,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("db");
        Place { root, path, clock: TestClock::at(Timestamp::from_secs(NOW)), images: 0 }
    }

    fn open(&self, with: impl FnOnce(Options) -> Options) -> Db {
        with(options().clock(self.clock.clone())).open(&self.path).unwrap()
    }

    /// The process is killed; the next opening finds what it left.
    fn kill(&mut self, db: Db) {
        self.images += 1;
        let image = self.root.path().join(format!("image{}", self.images));
        crash_image(&self.path, &image);
        drop(db);
        self.path = image;
    }
}

fn last(n: u64) -> impl Fn(Options) -> Options {
    move |options| options.dedup(Dedup::Last(n))
}

fn within(window: Duration) -> impl Fn(Options) -> Options {
    move |options| options.dedup(Dedup::For(window))
}

fn as_it_is(options: Options) -> Options {
    options
}

/// Whether the id was new.
fn stored(db: &Db, id: &str) -> bool {
    let (before, events) = (db.position(), db.statistics().events);
    let recorded = db.record(&Event::new("e").id(id)).unwrap();
    assert_eq!(recorded.position, db.position());
    let new = u64::from(!recorded.duplicate);
    assert_eq!(db.position().get(), before.get() + new);
    assert_eq!(db.statistics().events, events + new);
    !recorded.duplicate
}

fn stored_of(db: &Db, ids: &str) -> String {
    ids.chars().filter(|id| stored(db, &id.to_string())).collect()
}

#[test]
fn ids_are_not_looked_at_unless_asked_for() {
    let place = Place::new();
    let db = place.open(as_it_is);
    assert_eq!(stored_of(&db, "aab"), "aab");
    assert_eq!(db.statistics().duplicates, 0);
    drop(db);
    assert_eq!(stored_of(&place.open(as_it_is), "a"), "a");
}

#[test]
fn the_last_n_ids_are_remembered_and_no_more() {
    let place = Place::new();
    let db = place.open(last(3));
    assert_eq!(stored_of(&db, "abcabc"), "abc");
    // A duplicate does not renew its place: the fourth id pushes the first out.
    assert_eq!(stored_of(&db, "d"), "d");
    assert_eq!(stored_of(&db, "bcd"), "");
    assert_eq!(stored_of(&db, "a"), "a");
    assert_eq!(stored_of(&db, "b"), "b");
    assert_eq!(db.statistics().duplicates, 6);
}

#[test]
fn events_without_an_id_are_recorded_and_take_no_room_in_the_window() {
    let place = Place::new();
    let db = place.open(last(2));
    assert_eq!(stored_of(&db, "ab"), "ab");
    for _ in 0..10 {
        assert!(!db.record(&Event::new("e")).unwrap().duplicate);
    }
    assert_eq!(stored_of(&db, "ab"), "");
    assert_eq!(db.statistics().events, 12);
}

#[test]
fn within_a_window_of_two_minutes_an_id_is_a_duplicate_at_one_and_stored_at_three() {
    for clean in [true, false] {
        for checkpoint in [true, false] {
            let mut place = Place::new();
            let mut db = place.open(within(MINUTE * 2));
            assert!(stored(&db, "x"));
            if checkpoint {
                db.checkpoint().unwrap();
            }
            place.clock.advance(MINUTE);
            if clean {
                drop(db);
            } else {
                place.kill(db);
            }
            db = place.open(within(MINUTE * 2));
            assert!(!stored(&db, "x"), "at +1 minute");
            place.clock.advance(MINUTE * 2);
            if clean {
                drop(db);
            } else {
                place.kill(db);
            }
            db = place.open(within(MINUTE * 2));
            assert!(stored(&db, "x"), "at +3 minutes");
            assert!(!stored(&db, "x"), "the window begins anew");
            place.clock.advance(MINUTE * 2);
            assert!(!stored(&db, "x"), "at its very end");
            place.clock.advance(Duration::from_micros(1));
            assert!(stored(&db, "x"), "behind it");
        }
    }
}

#[test]
fn an_id_stored_again_after_its_window_is_remembered_across_a_kill() {
    for checkpoint in [true, false] {
        let mut place = Place::new();
        let db = place.open(within(MINUTE * 2));
        assert!(stored(&db, "x"));
        if checkpoint {
            db.checkpoint().unwrap();
        }
        place.clock.advance(MINUTE * 3);
        assert!(stored(&db, "x"));
        place.clock.advance(MINUTE);
        place.kill(db);
        let db = place.open(within(MINUTE * 2));
        assert!(!stored(&db, "x"), "it was stored a minute ago; checkpoint: {checkpoint}");
    }
}

#[test]
fn an_id_that_came_again_behind_n_others_is_remembered_across_a_kill() {
    for checkpoint in ["", "xy", "xyz"] {
        let mut place = Place::new();
        let db = place.open(last(2));
        assert_eq!(stored_of(&db, "seed"), "sed");
        db.checkpoint().unwrap();
        for id in ["x", "y", "z", "x"] {
            assert!(stored(&db, id));
            if checkpoint.ends_with(id) {
                db.checkpoint().unwrap();
            }
        }
        place.kill(db);
        let db = place.open(as_it_is);
        assert_eq!(
            stored_of(&db, "wx"),
            "w",
            "the window is w and x; checkpoint at {checkpoint:?}"
        );
    }
}

#[test]
fn the_window_is_as_narrow_after_a_kill_as_before() {
    let mut place = Place::new();
    let db = place.open(last(2));
    assert_eq!(stored_of(&db, "a"), "a");
    db.checkpoint().unwrap();
    assert_eq!(stored_of(&db, "bcd"), "bcd");
    place.kill(db);
    let db = place.open(as_it_is);
    assert!(stored(&db, "a"), "it was pushed out before the kill");
}

#[test]
fn a_window_made_narrower_at_opening_is_narrower_at_once() {
    let place = Place::new();
    let db = place.open(last(10));
    assert_eq!(stored_of(&db, "abcdef"), "abcdef");
    drop(db);
    let db = place.open(last(2));
    assert_eq!(stored_of(&db, "ef"), "");
    assert!(stored(&db, "a"), "only e and f are in the window of two");
}

#[test]
fn the_window_survives_a_close_and_a_kill() {
    let mut place = Place::new();
    let mut db = place.open(last(100));
    assert_eq!(stored_of(&db, "abc"), "abc");
    db.checkpoint().unwrap();
    assert_eq!(stored_of(&db, "def"), "def");
    place.kill(db);
    db = place.open(last(100));
    assert_eq!(stored_of(&db, "abcdefg"), "g");
    drop(db);
    db = place.open(last(100));
    assert_eq!(stored_of(&db, "abcdefgh"), "h");
    place.kill(db);
    db = place.open(last(100));
    // The window is not read before the first id is; a checkpoint in between keeps it whole.
    db.record(&Event::new("e")).unwrap();
    db.checkpoint().unwrap();
    place.kill(db);
    db = place.open(last(100));
    assert_eq!(stored_of(&db, "abcdefgh"), "");
}

#[test]
fn the_directory_remembers_the_rule() {
    let place = Place::new();
    let db = place.open(last(2));
    assert_eq!(stored_of(&db, "abc"), "abc");
    drop(db);
    let db = place.open(as_it_is);
    assert_eq!(stored_of(&db, "bca"), "a", "after a close");
    drop(db);
    let db = place.open(|options| options.dedup(Dedup::Off));
    assert_eq!(stored_of(&db, "aa"), "aa", "switched off");
    drop(db);
    assert_eq!(stored_of(&place.open(as_it_is), "aa"), "aa", "and off it stays");
}

#[test]
fn the_first_opening_s_rule_outlives_a_kill_before_any_checkpoint() {
    let mut place = Place::new();
    let db = place.open(last(2));
    assert_eq!(stored_of(&db, "ab"), "ab");
    place.kill(db);
    assert_eq!(stored_of(&place.open(as_it_is), "abc"), "c", "the second opening does not say");
}

#[test]
fn a_rule_given_at_a_later_opening_outlives_a_kill() {
    let mut place = Place::new();
    drop(place.open(as_it_is));
    let db = place.open(last(5));
    assert_eq!(stored_of(&db, "a"), "a");
    place.kill(db);
    assert_eq!(stored_of(&place.open(as_it_is), "a"), "", "the later opening does not say");
}

#[test]
fn the_window_begins_with_the_rule_whether_the_process_was_killed_before_or_not() {
    for killed in [false, true] {
        let mut place = Place::new();
        let db = place.open(as_it_is);
        assert_eq!(stored_of(&db, "xx"), "xx", "no rule yet");
        if killed {
            place.kill(db);
        } else {
            drop(db);
        }
        let db = place.open(last(3));
        assert_eq!(stored_of(&db, "yzx"), "yzx", "killed: {killed}");
        assert_eq!(stored_of(&db, "xyz"), "", "killed: {killed}");
        // The twice recorded x of before pushes nothing out.
        place.kill(db);
        assert_eq!(stored_of(&place.open(as_it_is), "xyzw"), "w", "killed: {killed}");
    }
}

#[test]
fn a_batch_knows_its_own_ids() {
    let place = Place::new();
    let db = place.open(last(100));
    db.define(View::new("by_user").by(["user"]).stats("value")).unwrap();
    db.define(View::new("all").stats("value").stats("other")).unwrap();
    let mut batch = db.batch();
    // The third and fourth columns begin where others are passed over.
    for (i, id) in ["a", "b", "a", "", "c", "b", "", "d"].into_iter().enumerate() {
        let user = format!("u{i}");
        let mut event = Event::new("e").value(f64::from(1 << i)).payload(id.as_bytes());
        if i != 1 {
            event = event.dim("user", &user);
        }
        if i > 4 {
            event = event.measure("other", f64::from(1 << i)).dim("late", "x").entity(&user);
        }
        batch.push(&if id.is_empty() { event } else { event.id(id) }).unwrap();
    }
    let outcome = db.record_batch(&mut batch).unwrap();
    assert_eq!((outcome.recorded, outcome.duplicates), (6, 2));
    assert_eq!(outcome.position, db.position());
    let check = |db: &Db| {
        let users = db.query("by_user").unwrap().rows().unwrap();
        let users: Vec<_> = users.map(|row| row.unwrap().key[0].clone()).collect();
        assert_eq!(users, ["u0", "u3", "u4", "u6", "u7"]);
        let all = db.query("all").unwrap().get(&[]).unwrap().unwrap();
        assert_eq!(all.stats("value").unwrap().sum, f64::from(1 + 2 + 8 + 16 + 64 + 128));
        assert_eq!(all.stats("other").unwrap().sum, f64::from(64 + 128));
        assert_eq!(db.statistics().events, 6);
    };
    check(&db);
    for id in ["a", "b", "c", "d"] {
        batch.push(&Event::new("e").id(id).value(1e9)).unwrap();
    }
    let outcome = db.record_batch(&mut batch).unwrap();
    assert_eq!((outcome.recorded, outcome.duplicates), (0, 4));
    assert_eq!(outcome.position, db.position());
    assert_eq!(db.statistics().duplicates, 6);
    check(&db);
    drop(db);
    let db = place.open(as_it_is);
    check(&db);
    assert_eq!(db.statistics().duplicates, 6);
}

/// The window ends by the time of recording, not by that at which a batch was begun.
#[test]
fn a_batch_begun_before_is_judged_when_it_is_recorded() {
    let place = Place::new();
    let db = place.open(within(MINUTE * 2));
    let mut batch = db.batch();
    batch.push(&Event::new("e").id("other")).unwrap();
    batch.push(&Event::new("e").id("x")).unwrap();
    place.clock.advance(MINUTE);
    assert!(stored(&db, "x"));
    place.clock.advance(MINUTE * 9);
    let outcome = db.record_batch(&mut batch).unwrap();
    assert_eq!((outcome.recorded, outcome.duplicates), (2, 0), "x is nine minutes old");
    place.clock.advance(MINUTE);
    assert!(!stored(&db, "other"), "it was recorded a minute ago");
}

#[test]
fn a_clock_that_steps_back_forgets_nothing_early() {
    let place = Place::new();
    let db = place.open(within(MINUTE * 2));
    assert!(stored(&db, "a"));
    place.clock.set(Timestamp::from_secs(NOW - 600));
    assert!(!stored(&db, "a"));
    assert!(stored(&db, "b"));
    assert!(!stored(&db, "b"));
    place.clock.set(Timestamp::from_secs(NOW + 60));
    assert!(!stored(&db, "a"));
}

#[test]
fn two_threads_that_record_the_same_ids_record_each_once() {
    let place = Place::new();
    let db = place.open(last(100_000));
    db.define(View::new("by_id").by(["id"])).unwrap();
    let ids: Vec<String> = (0..2_000).map(|i| format!("id{i}")).collect();
    let start = Barrier::new(2);
    let (mut recorded, mut duplicates) = (0, 0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|thread| {
                let (db, ids, start) = (db.clone(), &ids, &start);
                scope.spawn(move || {
                    start.wait();
                    let mut counts = (0, 0);
                    for (i, some) in ids.chunks(20).enumerate() {
                        if (i + thread) % 2 == 0 {
                            let events = some.iter().map(|id| Event::new("e").dim("id", id).id(id));
                            let outcome = db.record_all(events, quipu::OnInvalid::Refuse).unwrap();
                            counts.0 += outcome.recorded;
                            counts.1 += outcome.duplicates;
                        } else {
                            for id in some {
                                let event = Event::new("e").dim("id", id).id(id);
                                let duplicate = db.record(&event).unwrap().duplicate;
                                counts.0 += u64::from(!duplicate);
                                counts.1 += u64::from(duplicate);
                            }
                        }
                    }
                    counts
                })
            })
            .collect();
        for thread in threads {
            let counts = thread.join().unwrap();
            recorded += counts.0;
            duplicates += counts.1;
        }
    });
    assert_eq!((recorded, duplicates), (2_000, 2_000));
    let once = |db: &Db| {
        let rows = db.query("by_id").unwrap().rows().unwrap().map(Result::unwrap);
        let counts: Vec<u64> = rows.map(|row| row.count).collect();
        assert_eq!(counts, vec![1; 2_000]);
    };
    once(&db);
    assert_eq!((db.statistics().events, db.statistics().duplicates), (2_000, 2_000));
    drop(db);
    once(&place.open(as_it_is));
}
