//! Records into a directory whose snapshot is in SQLite, closes it, and asks again. With the path of a
//! directory as argument; it is made if it is missing.
//!
//! ```sh
//! cargo run --manifest-path examples/sqlite/Cargo.toml -- /tmp/quipu-sqlite
//! ```

use quipu::{Component, Event, View};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("which directory?")?;
    let db = quipu_sqlite::options()
        .view(View::new("by_user").by(["user"]).stats("value"))
        .open(&dir)?;
    let mut batch = db.batch();
    for n in 0..10_000_u32 {
        let user = format!("user {}", n % 100);
        batch.push(&Event::new("sale").dim("user", &user).value(f64::from(n)))?;
    }
    db.record_batch(&mut batch)?;
    db.close()?;

    let db = quipu_sqlite::options().open(&dir)?;
    let statistics = db.statistics();
    println!("{} events, the snapshot is in {}", statistics.events, statistics.storage);
    for row in db.query("by_user")?.top(3, Component::Sum)? {
        let sum = row.summary().map_or(0.0, |stats| stats.sum);
        println!("{:>8}: {} sales, {sum:.2}", row.key[0], row.count);
    }
    db.close()?;
    Ok(())
}
