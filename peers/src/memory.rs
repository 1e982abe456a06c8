//! Memory a key, as the bytes that the allocator was asked for: key, counts, tables and whatever
//! else grew. What the allocator adds to each block is not counted, nor is the mapped part of the log.
//!
//! Both clocks stand at 2026-06-30 12:34:56 UTC, and so does every figure from run to run, but for
//! what Quipu's threads do meanwhile. Quipu makes no checkpoint unless told and has a budget that
//! keeps everything in memory.

use crate::common::report::Target;
use crate::common::without_checkpoints;
use crate::engines::{
    agree_on_buckets, all_buckets, fill_quipu, fill_tiny, keys, quipu_with, ten_instants, timestamp,
};
use crate::heap;
use crate::report::{Figures, heading};
use chrono::{DateTime, TimeZone, Utc};
use tiny_counter::EventStore;

pub(crate) fn run() {
    heap::count();
    let now = Utc.with_ymd_and_hms(2026, 6, 30, 12, 34, 56).single().expect("a moment");
    for n in [10_000, 100_000] {
        compare("ten events over two months", n, now, &ten_instants(now), 1, 300.0);
    }
    let all = all_buckets(now);
    for n in [10_000, 100_000] {
        compare("all 256 buckets busy, an event at each of 256 instants", n, now, &all, 1, 1_200.0);
    }
    compare("the same, 1,000 events at each instant", 10_000, now, &all, 1_000, 1_200.0);
}

fn compare(
    what: &str,
    n: usize,
    now: DateTime<Utc>,
    instants: &[DateTime<Utc>],
    count: u32,
    most: f64,
) {
    let keys = keys(n);
    let each = |bytes: i64| bytes as f64 / n as f64;
    heading(&format!("memory, {what}: {n} keys"));

    let options =
        without_checkpoints().memory_budget(usize::MAX).clock(quipu::TestClock::at(timestamp(now)));
    let store = quipu_with(options);
    // What the first calls make once for all is not the keys'.
    fill_quipu(&store.db, &["first".to_owned()], instants, 4);
    let before = heap::bytes();
    fill_quipu(&store.db, &keys, instants, count);
    store.db.sync().expect("synced");
    let ours = heap::bytes() - before;
    let told = store.db.statistics();
    Figures::exact("Quipu, after recording", "bytes", each(ours)).line(Target::AtMost(most));
    let told = (told.memory_bytes + told.dictionary_bytes) as i64;
    Figures::exact("  what statistics() says: series, dictionary", "bytes", each(told))
        .line(Target::None);

    let clock = tiny_counter::TestClock::new_at(now);
    let peer = EventStore::builder().with_clock(clock).build().expect("a valid configuration");
    fill_tiny(&peer, &["first".to_owned()], instants, 1);
    let before = heap::bytes();
    fill_tiny(&peer, &keys, instants, count);
    let theirs = heap::bytes() - before;
    Figures::exact("tiny-counter, after recording", "bytes", each(theirs)).line(Target::None);
    Figures::exact("tiny-counter / Quipu", "", theirs as f64 / ours as f64).line(Target::None);

    if cfg!(feature = "calendar") {
        agree_on_buckets(&store.db, &peer, &keys[0]);
    }
    let before = heap::bytes();
    store.db.checkpoint().expect("written");
    let grown = heap::bytes() - before + ours;
    Figures::exact("Quipu, after a checkpoint, with the store's cache", "bytes", each(grown))
        .line(Target::None);
}
