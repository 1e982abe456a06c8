//! The shortest way through: open, define two views, record, ask. `README.md` shows the same lines.
//!
//! `cargo run --example quickstart [DIRECTORY]`
#![allow(clippy::print_stdout, reason = "an example shows what it found")]

use quipu::{Component, Db, Event, Grain, Keep, View};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scratch = tempfile::tempdir()?;
    let path = std::env::args_os().nth(1).map_or(scratch.path().join("shop"), Into::into);

    let db = Db::open(path)?;
    db.define(View::new("by_user").by(["user"]).stats("value"))?;
    db.define(
        View::new("sales").only_events(["sale"]).stats("value").grain(Grain::Hour, Keep::All),
    )?;

    db.record(&Event::new("sale").dim("user", "alice").value(12.50))?;
    db.record(&Event::new("sale").dim("user", "bob").value(3.25))?;
    let mut batch = db.batch(); // the fast path: many events, one frame of the log
    for i in 0..1_000 {
        let user = if i % 3 == 0 { "alice" } else { "carol" };
        batch.push(&Event::new("sale").dim("user", user).value(0.1))?;
    }
    db.record_batch(&mut batch)?;

    for row in db.query("by_user")?.top(2, Component::Sum)? {
        let sum = row.summary().map_or(0.0, |stats| stats.sum);
        println!("{:>6}: {} sales, {sum:.2}", row.key[0], row.count);
    }
    let sales = db.query("sales")?;
    println!("in all: {}", sales.totals()?.count);
    for hour in sales.buckets(&[], Grain::Hour)? {
        println!("from {}: {} sales", hour.start, hour.count);
    }
    db.close()?; // checkpoints; a crash instead would lose nothing that was recorded
    Ok(())
}
