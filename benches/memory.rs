//! Memory of a series with statistics of one measure and no grains, its key included: what the
//! process has grown by, and beside it what the engine says of itself.
//!
//! Each case runs in a process of its own, so that none finds memory that another has given back.
//! Run as `cargo bench --bench memory`.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::disallowed_methods, reason = "the shared clocks of the benches")]

mod common;

use common::events::SplitMix64;
use common::measure::{Resident, resident};
use common::report::{Target, heading, line};
use common::{BATCH, Store, without_checkpoints};
use quipu::{Db, Event, View};
use std::process::Command;

const SERIES: u32 = 1_000_000;
/// Each series gets so many events, so that its sums are those of several values.
const EVENTS: u32 = 2;

const CASES: [(&str, fn()); 3] = [("single", single), ("pairs", pairs), ("expected", expected)];

fn record(db: &Db, key: impl Fn(u32) -> [String; 2]) {
    let mut random = SplitMix64(3);
    let mut batch = db.batch();
    for i in (0..EVENTS).flat_map(|_| 0..SERIES) {
        let [a, b] = key(i);
        let value = random.below(100_000) as f64 / 100.0;
        let event = Event::new("e").dim("a", &a).dim("b", &b).value(value);
        batch.push(&event).expect("a valid event");
        if batch.len() == BATCH {
            db.record_batch(&mut batch).expect("recorded");
        }
    }
    db.record_batch(&mut batch).expect("recorded");
}

fn measure(title: &str, options: quipu::Options, view: View, key: impl Fn(u32) -> [String; 2]) {
    let store = Store::new(options, [view]);
    // What the first calls allocate once for all is not the series'.
    store.db.record(&Event::new("e").value(1.0)).expect("recorded");
    let before = resident();
    record(&store.db, key);
    let after = resident();
    let told = store.db.statistics();
    assert_eq!(told.series_resident, u64::from(SERIES));
    store.db.checkpoint().expect("written");
    let clean = resident();

    let each = |bytes: u64| bytes as f64 / f64::from(SERIES);
    let grown = |now: Resident| each(now.anonymous - before.anonymous);
    heading(format!("{title}: {SERIES} series, {EVENTS} events each"));
    line("memory of the process, after recording", grown(after), "bytes", Target::AtMost(250.0));
    line("the same after a checkpoint", grown(clean), "bytes", Target::None);
    line("with the log's mapped pages", each(after.all - before.all), "bytes", Target::None);
    let total = told.memory_bytes + told.dictionary_bytes;
    line("told by statistics(): series and dictionary", each(total), "bytes", Target::None);
    line("  of that the series and their tables", each(told.memory_bytes), "bytes", Target::None);
    line("  of that the dictionary", each(told.dictionary_bytes), "bytes", Target::None);
}

fn single() {
    let view = View::new("by_a").by(["a"]).stats("value");
    let key = |i| [format!("user-{i:07}"), String::new()];
    measure("keys of one part, 12 bytes of text", without_checkpoints(), view, key);
}

fn pairs() {
    let view = View::new("by_a_b").by(["a", "b"]).stats("value");
    let key = |i| [format!("user-{:07}", i / 1_000), format!("product-{:04}", i % 1_000)];
    measure("keys of two parts out of 1,000 x 1,000", without_checkpoints(), view, key);
}

fn expected() {
    let view = View::new("by_a").by(["a"]).stats("value");
    let key = |i| [format!("user-{i:07}"), String::new()];
    let options = without_checkpoints().expected_keys(SERIES as usize);
    measure("keys of one part, expected_keys(1,000,000)", options, view, key);
}

fn main() {
    let wanted = std::env::args().nth(1);
    if let Some((_, case)) = CASES.iter().find(|(name, _)| wanted.as_deref() == Some(*name)) {
        return case();
    }
    let this = std::env::current_exe().expect("a path");
    for (name, _) in CASES {
        let status = Command::new(&this).arg(name).status().expect("started");
        assert!(status.success(), "{name}");
    }
}
