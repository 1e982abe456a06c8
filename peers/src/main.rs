//! Quipu beside tiny-counter 0.1.0, in one run: recording, two threads, asking, limits (there beside
//! governor, too), memory, disk, coming back.
//!
//! Run as `cargo run --release --manifest-path peers/Cargo.toml -- SUBJECT...` with subjects out of
//! `record`, `threads`, `query`, `limit`, `memory`, `disk`, `reopen`, or `all`. With `--no-default-features`
//! tiny-counter is built without its feature `calendar`: it then counts spans of 1, 7, 30 and 365
//! days, which costs it less, and Quipu goes on with the calendar.
//!
//! How it is kept fair
//! 1. Both count the same events under the same keys in the same buckets: 60 minutes, 72 hours, 56
//!    days, 52 weeks, 12 months, 4 years. For tiny-counter that is its default; for Quipu the view
//!    `View::new("counters").by(["event"]).counter_grains()`. Both count by the calendar of UTC: the
//!    program sets `TZ` for itself, which is where tiny-counter gets its zone from. Where both can
//!    answer, the answers are compared before they are timed.
//! 2. Each has the options that it has by default, tiny-counter its default features, too (calendar,
//!    `FilePerEvent`, bincode), Quipu its default durability, retention and budget; exceptions stand
//!    where they are made.
//! 3. Contestants alternate in rounds, every second round the other way round; a ratio is of one
//!    round. What is shown is the median, and the least and the greatest behind it. Time is CPU time
//!    of the whole process, background threads and the kernel's part included, unless it says wall.
//!
//! What they do for that time
//! - **Quipu** writes every event before the call returns so that the death of the process does not
//!   lose it, and syncs at most 100 ms later; its time ends after `sync()`. It keeps the events
//!   themselves, exact totals, and the first and last time of each key; counts have 64
//!   bits. A batch is acknowledged as a whole.
//! - **tiny-counter** counts in memory. It loses everything since the last `persist()` when the
//!   process dies, and `persist()` writes a file for each changed key without syncing it, so that a
//!   power cut can take those, too. It keeps counts of 32 bits in buckets and no total, no event and
//!   no exact time. "In memory only" never persists.
//! - Opening and dropping are outside of the time but where they are what is timed.

#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

mod engines;
mod heap;
mod report;

mod disk;
mod limit;
mod memory;
mod query;
mod record;
mod reopen;
mod threads;

#[path = "../../benches/common/mod.rs"]
mod common;

use std::process::ExitCode;

const SUBJECTS: [(&str, fn()); 7] = [
    ("record", record::run),
    ("threads", threads::run),
    ("query", query::run),
    ("memory", memory::run),
    ("limit", limit::run),
    ("disk", disk::run),
    ("reopen", reopen::run),
];

fn main() -> ExitCode {
    // SAFETY: no other thread was started yet, so nobody reads the environment meanwhile.
    unsafe { std::env::set_var("TZ", "UTC") };
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_known = |name: &String| name == "all" || SUBJECTS.iter().any(|(known, _)| known == name);
    if wanted.is_empty() || !wanted.iter().all(is_known) {
        let names: Vec<&str> = SUBJECTS.iter().map(|(name, _)| *name).collect();
        eprintln!("usage: quipu-peers SUBJECT...\nsubjects: {}, all", names.join(", "));
        return ExitCode::FAILURE;
    }
    let spans = if cfg!(feature = "calendar") { "the calendar" } else { "uniform spans" };
    println!("tiny-counter counts by {spans}, Quipu by the calendar, both in UTC.");
    for (name, run) in SUBJECTS {
        if wanted.iter().any(|wanted| wanted == name || wanted == "all") {
            run();
        }
    }
    ExitCode::SUCCESS
}
