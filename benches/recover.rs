//! Coming back: how fast the log is replayed after a crash, how long it takes to open a
//! directory after a clean close, and how fast one is verified.
//!
//! The crash is a copy of the directory taken while the engine is open, no checkpoint having been
//! made: everything has to come from the log. Run as `cargo bench --bench recover`.
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod common;

use common::events::{Sale, retail, synthetic};
use common::measure::{bytes_under, copy, cpu, make_cold, median, wall};
use common::report::{Target, heading, line, millis};
use common::{Store, five_views, record_in_batches, without_checkpoints};
use quipu::{Component, Db, Depth, Event, View};
use std::path::Path;

const ROUNDS: usize = 5;
const SERIES: usize = 1_000_000;

fn replay(name: &str, sales: &[Sale], record: fn(&Db, &[Sale])) {
    let store = Store::new(without_checkpoints(), five_views());
    record(&store.db, sales);
    store.db.sync().expect("synced");
    let frames = store.db.statistics().log_bytes_since_checkpoint as f64;
    let top = |db: &Db| {
        let view = db.query("by_user_product").expect("a view");
        view.top(10, Component::Sum).expect("answered")
    };
    let before = top(&store.db);
    let (mut by_cpu, mut by_wall) = (vec![], vec![]);
    for round in 0..ROUNDS {
        let crashed = store.dir.path().join(format!("crashed-{round}"));
        copy(store.db.directory(), &crashed);
        let (time, (cpu_time, db)) =
            wall(|| cpu(|| without_checkpoints().open(&crashed).expect("recovered")));
        let replayed = db.statistics().replayed;
        assert!(replayed >= sales.len() as u64, "{replayed} replayed");
        assert_eq!(top(&db), before, "the same answers as before the crash");
        by_cpu.push(replayed as f64 / cpu_time.as_secs_f64() / 1e6);
        by_wall.push(replayed as f64 / time.as_secs_f64() / 1e6);
        drop(db);
        std::fs::remove_dir_all(&crashed).expect("removed");
    }
    heading(format!("replay of {} {name}, five views, median of {ROUNDS}", sales.len()));
    line("events a second of CPU time", median(&by_cpu), "M/s", Target::AtLeast(2.0));
    line("events a second of wall time", median(&by_wall), "M/s", Target::None);
    line("bytes of log an event", frames / sales.len() as f64, "bytes", Target::None);
}

fn in_batches(db: &Db, sales: &[Sale]) {
    record_in_batches(db, sales.iter().map(Sale::event));
}

fn singly(db: &Db, sales: &[Sale]) {
    for sale in sales {
        db.record(&sale.event()).expect("recorded");
    }
}

fn open_after_close() {
    let store = Store::new(without_checkpoints(), [View::new("by_key").by(["key"]).stats("value")]);
    let keys: Vec<String> = (0..SERIES).map(|i| format!("key-{i:07}")).collect();
    let events = keys.iter().map(|key| Event::new("e").dim("key", key).value(1.25));
    record_in_batches(&store.db, events);
    let dir = store.db.directory().to_owned();
    let (closing, ()) = wall(|| store.db.close().expect("closed"));
    let log = bytes_under(&dir.join("log"));
    let all = bytes_under(&dir);

    let open = |dir: &Path| {
        let (time, (cpu_time, db)) =
            wall(|| cpu(|| without_checkpoints().must_exist().open(dir).expect("opened")));
        let row = db.query("by_key").and_then(|view| view.get(&["key-0000042"])).expect("answered");
        assert_eq!(row.map(|row| row.count), Some(1));
        assert_eq!(db.statistics().replayed, 0, "a clean close leaves nothing to replay");
        db.close().expect("closed");
        (millis(time), millis(cpu_time))
    };
    let (warm, warm_cpu): (Vec<_>, Vec<_>) = (0..9).map(|_| open(&dir)).unzip();
    let (cold, cold_cpu): (Vec<_>, Vec<_>) = (0..9)
        .map(|_| {
            make_cold(&dir);
            open(&dir)
        })
        .unzip();
    heading(format!("opening a directory of {SERIES} series after a clean close, median of 9"));
    line("with its files in the page cache", median(&warm), "ms", Target::AtMost(20.0));
    line("  of that CPU time", median(&warm_cpu), "ms", Target::None);
    line("with its files on the disk only", median(&cold), "ms", Target::AtMost(20.0));
    line("  of that CPU time", median(&cold_cpu), "ms", Target::None);
    line("the close before, with its checkpoint", millis(closing), "ms", Target::None);
    line("log after the close", log as f64 / 1e6, "MB", Target::None);
    line("snapshot and the rest", (all - log) as f64 / 1e6, "MB", Target::None);
    line("snapshot, a series", (all - log) as f64 / SERIES as f64, "bytes", Target::None);
}

/// How fast a closed directory is verified.
fn verify(name: &str, sales: &[Sale]) {
    let store = Store::new(without_checkpoints(), five_views());
    in_batches(&store.db, sales);
    store.db.close().expect("closed");
    let megabytes = bytes_under(store.db.directory()) as f64 / 1e6;
    heading(format!("verifying {name}, {megabytes:.0} MB, CPU time, median of {ROUNDS} rounds"));
    for (what, depth, target) in [
        ("every checksum and every order", Depth::Checksums, Target::AtLeast(500.0)),
        ("and every series against the log", Depth::Refold, Target::None),
    ] {
        let rate = |_| {
            let (time, report) = cpu(|| quipu::verify(store.db.directory(), depth, |_| {}));
            assert!(report.expect("verified").is_intact());
            megabytes / time.as_secs_f64()
        };
        line(what, median(&(0..ROUNDS).map(rate).collect::<Vec<_>>()), "MB/s", target);
    }
}

fn main() {
    replay("synthetic events of batches of 1,000", &synthetic(1_500_000), in_batches);
    let shop = retail();
    replay("retail events of batches of 1,000", &shop, in_batches);
    replay("retail events recorded singly", &shop, singly);
    verify("synthetic events", &synthetic(1_500_000));
    verify("retail events", &shop);
    open_after_close();
}
