//! Recording, on one hot key and over 10,000, events one by one and in batches.

use crate::common::measure::cpu;
use crate::common::record_in_batches;
use crate::common::report::{Target, ns_each};
use crate::engines::{KEYS, agree, calls, keys, quipu, temporary_directory, tiny_on};
use crate::report::{Figures, alternate, heading};
use quipu::{Db, Event};
use std::hint::black_box;
use tiny_counter::EventStore;

const EVENTS: usize = 1_000_000;
const ROUNDS: usize = 7;

pub(crate) fn run() {
    compare("one hot key", &keys(1));
    compare("10,000 keys, 100 events each", &keys(KEYS));
}

pub(crate) fn singly(db: &Db, calls: &[&str]) {
    for key in calls {
        db.record(&Event::new(black_box(key))).expect("recorded");
    }
}

pub(crate) fn batches(db: &Db, calls: &[&str]) {
    record_in_batches(db, calls.iter().map(|key| Event::new(black_box(key))));
}

pub(crate) fn tiny(store: &EventStore, calls: &[&str]) {
    for key in calls {
        store.record(*black_box(key));
    }
}

fn quipu_ns(calls: &[&str], record: fn(&Db, &[&str])) -> f64 {
    let store = quipu();
    let (time, ()) = cpu(|| {
        record(&store.db, calls);
        store.db.sync().expect("synced");
    });
    ns_each(time, calls.len())
}

fn tiny_ns(calls: &[&str], persist: bool) -> f64 {
    let dir = temporary_directory();
    let store = if persist { tiny_on(dir.path()) } else { EventStore::new() };
    let (time, ()) = cpu(|| {
        tiny(&store, calls);
        if persist {
            store.persist().expect("written");
        }
    });
    ns_each(time, calls.len())
}

fn compare(what: &str, keys: &[String]) {
    let calls = calls(keys, EVENTS);
    let (store, peer) = (quipu(), EventStore::new());
    singly(&store.db, &calls);
    tiny(&peer, &calls);
    agree(&store.db, &peer, keys);
    drop((store, peer));

    let mut single = Figures::new("Quipu, single events, with sync()", "ns/event");
    let mut batch = Figures::new("Quipu, batches of 1,000, with sync()", "ns/event");
    let mut memory = Figures::new("tiny-counter, in memory only", "ns/event");
    let mut persisted = Figures::new("tiny-counter, with one persist() at the end", "ns/event");
    alternate(
        ROUNDS,
        &mut [
            &mut || single.push(quipu_ns(&calls, singly)),
            &mut || memory.push(tiny_ns(&calls, false)),
            &mut || batch.push(quipu_ns(&calls, batches)),
            &mut || persisted.push(tiny_ns(&calls, true)),
        ],
    );
    heading(&format!("recording, {what}: {EVENTS} events, CPU time, median of {ROUNDS} rounds"));
    for figures in [&single, &batch, &memory, &persisted] {
        figures.line(Target::None);
    }
    let ratio = |of: &Figures, to: &Figures, label: &str| {
        of.over(to).called(label).line(Target::AtLeast(4.0));
    };
    ratio(&memory, &single, "tiny-counter in memory / Quipu, single events");
    ratio(&memory, &batch, "tiny-counter in memory / Quipu, batches");
    ratio(&persisted, &single, "tiny-counter with persist() / Quipu, single events");
    ratio(&persisted, &batch, "tiny-counter with persist() / Quipu, batches");
}
