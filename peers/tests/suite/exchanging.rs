//! Export, import and merge. Quipu exchanges events, tiny-counter the states of counters; what each store
//! holds in the end is compared where both mean the same.
//!
//! Next: `together.rs`.

use crate::stores::{Quipu, Store, TinyCounter, tracked};
use crate::words::*;
use chrono::Duration;
use quipu_peers::adapter::EventStore;
use std::sync::Arc;

/// A store that was told these.
fn told(events: &[(&'static str, u64)]) -> EventStore {
    let quipu = Quipu::open(DEFAULT, seconds(NOW));
    for (name, n) in events {
        assert!(quipu.record(&Record(name, *n)));
    }
    quipu.store
}

fn tell(from: &EventStore, to: &EventStore) {
    to.merge_all(&from.export_all().expect("exported")).expect("imported");
}

fn sum(store: &EventStore, name: &str) -> Option<u64> {
    store.query(name).last_days(1).sum().expect("answered")
}

fn names_of(bundle: &quipu::Bundle) -> u64 {
    let store = EventStore::new().expect("opened");
    store.import_all(bundle).expect("imported");
    store.db().query("counters").expect("a view").key_count().expect("counted")
}

#[test]
fn an_export_has_all_names() {
    let store = told(&[("a", 10), ("b", 20), ("c", 30)]);
    let bundle = store.export_all().expect("exported");
    assert_eq!(names_of(&bundle), 3);
    assert_eq!(bundle.events(), 3);
    assert_eq!(told(&[]).export_all().expect("exported").events(), 0);
    // Also of what is in the snapshot only, as far as memory goes.
    store.persist().expect("persisted");
    assert_eq!(names_of(&store.export_all().expect("exported")), 3);
}

#[test]
fn an_export_of_changes_has_what_is_new() {
    let store = told(&[("a", 10), ("b", 20)]);
    assert_eq!(names_of(&store.export_dirty().expect("exported")), 2);
    store.reset_dirty();
    assert_eq!(store.export_dirty().expect("exported").events(), 0);
    store.record_count("a", 5).expect("recorded");
    let bundle = store.export_dirty().expect("exported");
    assert_eq!((names_of(&bundle), bundle.events()), (1, 1));
}

#[test]
fn an_import_brings_what_the_other_has() {
    let store = told(&[]);
    store
        .import_all(&told(&[("a", 10), ("b", 20), ("c", 30)]).export_all().expect("exported"))
        .expect("imported");
    assert_eq!(["a", "b", "c"].map(|name| sum(&store, name)), [Some(10), Some(20), Some(30)]);
    assert_eq!(sum(&store, "d"), None);
}

/// tiny-counter forgets the hundred that only were here.
#[test]
fn an_import_replaces_nothing() {
    let (here, there) = (told(&[("event", 100)]), told(&[("event", 50)]));
    here.import_all(&there.export_all().expect("exported")).expect("imported");
    assert_eq!(sum(&here, "event"), Some(150));

    let (here, there) =
        (TinyCounter::open(DEFAULT, seconds(NOW)), TinyCounter::open(DEFAULT, seconds(NOW)));
    here.store.record_count("event", 100);
    there.store.record_count("event", 50);
    here.store.import_all(there.store.export_all().expect("exported")).expect("imported");
    assert_eq!(here.ask(&Sum(&["event"], Last(1, Day))), Count(50));
}

#[test]
fn a_merge_adds_up() {
    let (a, b) = (told(&[("x", 10), ("y", 20)]), told(&[("x", 5), ("z", 30)]));
    tell(&b, &a);
    assert_eq!(["x", "y", "z"].map(|name| sum(&a, name)), [Some(15), Some(20), Some(30)]);
    a.merge(&told(&[("x", 100)])).expect("imported");
    assert_eq!(sum(&a, "x"), Some(115));
    // Of an empty one nothing comes.
    tell(&told(&[]), &a);
    assert_eq!(sum(&a, "x"), Some(115));
}

#[test]
fn a_merge_commutes_and_associates() {
    let three = || [told(&[("event", 10)]), told(&[("event", 20)]), told(&[("event", 30)])];
    let [a, b, c] = three();
    tell(&b, &a);
    tell(&c, &a);
    assert_eq!(sum(&a, "event"), Some(60));
    let [a, b, c] = three();
    tell(&c, &b);
    tell(&b, &a);
    assert_eq!(sum(&a, "event"), Some(60));
    let [a, b, _] = three();
    tell(&a, &b);
    tell(&b, &a);
    assert_eq!((sum(&a, "event"), sum(&b, "event")), (Some(30), Some(30)));
}

/// tiny-counter has three hundred after the second time.
#[test]
fn merging_twice_counts_once() {
    let (a, b) = (told(&[("event", 100)]), told(&[("event", 100)]));
    tell(&b, &a);
    tell(&b, &a);
    assert_eq!(sum(&a, "event"), Some(200));

    let open = || TinyCounter::open(DEFAULT, seconds(NOW));
    let (a, b) = (open(), open());
    a.store.record_count("event", 100);
    b.store.record_count("event", 100);
    for _ in 0..2 {
        a.store.merge_all(b.store.export_all().expect("exported")).expect("merged");
    }
    assert_eq!(a.ask(&Sum(&["event"], Last(1, Day))), Count(300));
}

#[test]
fn a_merge_keeps_when_it_was_first_seen() {
    let (old, new) = (Quipu::open(DEFAULT, seconds(NOW)), Quipu::open(DEFAULT, seconds(NOW)));
    old.record(&Record("event", 1));
    old.set(seconds(NOW) + 6 * HOUR);
    new.set(seconds(NOW) + 6 * HOUR);
    new.record(&Record("event", 1));
    tell(&new.store, &old.store);
    tell(&old.store, &new.store);
    for store in [&old, &new] {
        assert_eq!(store.ask(&FirstSeen("event")), Age(6 * HOUR));
        assert_eq!(store.ask(&LastSeen("event")), Age(0));
    }
}

#[test]
fn three_nodes_and_one_that_gathers() {
    let nodes = [
        told(&[("call", 100), ("view", 50)]),
        told(&[("call", 150), ("error", 10)]),
        told(&[("view", 75), ("error", 5)]),
    ];
    let all = told(&[]);
    for node in &nodes {
        tell(node, &all);
    }
    assert_eq!(["call", "view", "error"].map(|n| sum(&all, n)), [Some(250), Some(125), Some(15)]);
}

#[test]
fn a_bundle_serves_as_a_backup() {
    let bytes = told(&[("important", 999)]).export_all().expect("exported").to_bytes();
    let restored = told(&[]);
    restored.import_all(&quipu::Bundle::from_bytes(&bytes).expect("whole")).expect("imported");
    assert_eq!(sum(&restored, "important"), Some(999));
}

/// tiny-counter comes to 250: what changed is told as a whole and added to what was told before.
#[test]
fn changes_bring_another_up_to_date() {
    let (one, two) = (told(&[("event", 100)]), told(&[]));
    tell(&one, &two);
    one.reset_dirty();
    one.record_count("event", 50).expect("recorded");
    one.record_count("new", 25).expect("recorded");
    for _ in 0..2 {
        two.merge_all(&one.export_dirty().expect("exported")).expect("imported");
        assert_eq!((sum(&two, "event"), sum(&two, "new")), (Some(150), Some(25)));
    }
}

/// Between stores of other grains each event goes where it belongs.
#[test]
fn stores_of_other_grains_understand_each_other() {
    const KEPT: [(Unit, usize); 4] = [(Hour, 72), (Day, 7), (Hour, 10), (Week, 4)];
    for present in ["2024-12-31T23:00:00Z", "2025-01-01T01:00:00Z"] {
        for from in KEPT {
            for to in KEPT {
                let open =
                    |of: (Unit, usize)| Quipu::open(Box::leak(Box::new([of])), seconds(present));
                let (source, target, back) = (open(from), open(to), open(from));
                for hours in [0, 2, 18, 48, 480] {
                    source.record(&Ago("event", 1 + hours as u64, hours * HOUR));
                }
                tell(&source.store, &target.store);
                tell(&target.store, &back.store);
                for (store, (unit, kept)) in [(&target, to), (&back, from)] {
                    let direct = open((unit, kept));
                    for hours in [0, 2, 18, 48, 480] {
                        direct.record(&Ago("event", 1 + hours as u64, hours * HOUR));
                    }
                    for ask in [
                        Buckets("event", Last(kept, unit)),
                        Sum(&["event"], Ever),
                        FirstSeen("event"),
                        LastSeen("event"),
                    ] {
                        assert_eq!(store.ask(&ask), direct.ask(&ask), "{present} {from:?} {to:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_state_of_a_tiny_counter_is_taken_over() {
    crate::utc();
    let clock = tiny_counter::TestClock::build_for_testing_at(crate::stores::moment(seconds(NOW)));
    let builder = tiny_counter::EventStore::builder().with_clock(Arc::new(clock));
    let peer = tracked!(builder, DEFAULT).build().expect("opened");
    for (n, hours) in [(1, 0), (2, 30), (4, 24 * 20), (8, 24 * 200)] {
        peer.record_count_ago("event", n, Duration::hours(hours));
    }
    let states = peer.export_all().expect("exported");
    let text = serde_json::to_string(&states).expect("written");
    let states: std::collections::BTreeMap<String, quipu::TinyCounter> =
        serde_json::from_str(&text).expect("read");
    let bundle = quipu::Bundle::of_tiny_counters(states, quipu::TimeZone::UTC).expect("whole");
    let quipu = Quipu::open(DEFAULT, seconds(NOW));
    quipu.store.import_all(&bundle).expect("imported");
    for stretch in [Ever, Last(56, Day), Last(52, Week), Last(12, Month), Last(1, Day)] {
        let ask = Sum(&["event"], stretch);
        let theirs = peer.query("event");
        let theirs = match stretch {
            Ever => theirs.ever().sum(),
            Last(n, Day) => theirs.last_days(n).sum(),
            Last(n, Week) => theirs.last_weeks(n).sum(),
            _ => theirs.last_months(12).sum(),
        };
        assert_eq!(quipu.ask(&ask), count_or_nothing(theirs.map(u64::from)), "{stretch:?}");
    }
}
