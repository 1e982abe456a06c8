//! A process that dies loses nothing that it acknowledged, and counts nothing twice: neither in a count nor
//! in a sketch, and it knows the ids of what it has.
//!
//! The child is this test binary again, running `child_records_until_it_is_killed` with a directory
//! in its environment; without one that test has nothing to do.

use quipu::aggregate::{Aggregate as _, Distinct};
use quipu::{Db, Dedup, Durability, Event, Options, Timestamp, View};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const DIR: &str = "QUIPU_TEST_CRASH_DIR";
const LEVEL: &str = "QUIPU_TEST_CRASH_LEVEL";
const THREADS: usize = 3;

/// More ids than are recorded in a round are remembered.
fn options() -> Options {
    Options::new()
        .dedup(Dedup::Last(50_000))
        .segment_bytes(256 << 10)
        .checkpoint_log_bytes(100 << 10)
        .checkpoint_every(Duration::from_millis(5))
        .memory_budget(20_000)
}

fn define(db: &Db) {
    let by_thread = View::new("by_thread").by(["thread"]).stats("value");
    db.define(by_thread.distinct("number").quantiles("value")).unwrap();
    let by_key = View::new("by_key").by(["thread", "key"]).stats("value");
    db.define(by_key.distinct("number")).unwrap();
}

/// The id of a number; without one it waits in the stage if it comes by itself.
fn id(thread: &str, number: u64) -> Option<String> {
    (!number.is_multiple_of(3)).then(|| format!("{thread} {number}"))
}

/// Each thread records the numbers 1, 2, 3 ... and, once a call has returned, prints its name and
/// the last number acknowledged.
#[test]
fn child_records_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let durability = match std::env::var(LEVEL).as_deref() {
        Ok("sync") => Durability::Sync,
        Ok("memory") => Durability::Memory,
        _ => Durability::default(),
    };
    let db = options().open(dir).unwrap();
    define(&db);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let db = &db;
            scope.spawn(move || {
                let name = format!("t{thread}");
                let query = db.query("by_thread").unwrap();
                let mut next = query.get(&[&name]).unwrap().map_or(1, |row| row.count + 1);
                let mut batch = db.batch();
                for round in 0_u64.. {
                    let n = if round % 3 == 0 { 1 } else { round % 50 };
                    for _ in 0..n {
                        let (key, number) = (format!("k{}", next % 300), next.to_string());
                        let event = Event::new("n")
                            .at(Timestamp::from_secs(next as i64))
                            .dim("thread", &name)
                            .dim("key", &key)
                            .dim("number", &number)
                            .value(next as f64);
                        let id = id(&name, next);
                        let event = match &id {
                            Some(id) => event.id(id),
                            None => event,
                        };
                        if n == 1 {
                            db.record_with(&event, durability).unwrap();
                        } else {
                            batch.push(&event).unwrap();
                        }
                        next += 1;
                    }
                    db.record_batch_with(&mut batch, durability).unwrap();
                    let mut out = std::io::stdout().lock();
                    if writeln!(out, "ack {thread} {}", next - 1).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

fn bytes(sketch: &Distinct) -> Vec<u8> {
    let mut bytes = Vec::new();
    sketch.encode(&mut bytes);
    bytes
}

/// The numbers that the directory holds: for each thread 1..=n, each once in every view, by sum and count
/// and by the sketch that just these numbers leave; and what had an id is known by it.
fn recovered(dir: &Path) -> [u64; THREADS] {
    let db = options().open(dir).unwrap();
    let by_thread = db.query("by_thread").unwrap();
    let by_key = db.query("by_key").unwrap();
    let numbers = std::array::from_fn(|thread| {
        let name = format!("t{thread}");
        let row = by_thread.get(&[&name]).unwrap();
        let count = row.as_ref().map_or(0, |row| row.count);
        let sum = row.as_ref().map_or(0.0, |row| row.summary().unwrap().sum);
        assert_eq!(sum, (count * (count + 1) / 2) as f64, "the numbers 1..={count}, each once");
        let keys: Vec<_> = by_key.prefix(&[&name]).unwrap().map(Result::unwrap).collect();
        assert_eq!(keys.iter().map(|row| row.count).sum::<u64>(), count);
        assert_eq!(keys.iter().map(|row| row.summary().unwrap().sum).sum::<f64>(), sum);
        let Some(row) = row else { return 0 };
        let mut numbers = Distinct::new(Distinct::PRECISION).unwrap();
        (1..=count).for_each(|number| numbers.insert(number.to_string().as_bytes()));
        let distinct = row.sketches.distinct("number").unwrap();
        assert!(bytes(distinct) == bytes(&numbers), "of 1..={count}: {:?}", distinct.estimate());
        let mut of_keys = Distinct::new(Distinct::PRECISION).unwrap();
        for row in &keys {
            of_keys.merge(row.sketches.distinct("number").unwrap());
        }
        assert!(bytes(&of_keys) == bytes(&numbers));
        assert_eq!(row.sketches.quantiles("value").unwrap().count(), count);
        for id in (1..=count).rev().take(20).filter_map(|number| id(&name, number)) {
            assert!(db.record(&Event::new("n").id(&id)).unwrap().duplicate, "{id}");
        }
        count
    });
    assert_eq!(db.statistics().events, numbers.iter().sum::<u64>());
    numbers
}

fn kill_and_recover(level: &str, rounds: u64) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_records_until_it_is_killed", "--nocapture"])
            .env(DIR, &dir)
            .env(LEVEL, level)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acknowledged = [0_u64; THREADS];
        // Killed after so many lines: at another place in each round, at no time by the clock.
        let lines = 40 + (round * 97) % 400;
        let mut seen = 0;
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap() == 0 {
                break;
            }
            // What the pipe still holds after the kill was acknowledged, too; a last line that was
            // cut short was not.
            if let ["ack", thread, number] = line.split_whitespace().collect::<Vec<_>>()[..]
                && line.ends_with('\n')
            {
                acknowledged[thread.parse::<usize>().unwrap()] = number.parse().unwrap();
                seen += 1;
                if seen == lines {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(seen >= lines, "the child stopped by itself after {seen} lines");
        let recovered = recovered(&dir);
        if level == "memory" {
            // It promises nothing about how much is there.
            continue;
        }
        for thread in 0..THREADS {
            assert!(
                recovered[thread] >= acknowledged[thread],
                "round {round}, thread {thread}: acknowledged up to {}, recovered {}",
                acknowledged[thread],
                recovered[thread]
            );
        }
    }
}

fn rounds() -> u64 {
    std::env::var("QUIPU_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10)
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    kill_and_recover("interval", rounds());
}

#[test]
fn a_killed_process_that_waits_for_nothing_leaves_a_prefix_of_each_thread_once_in_every_view() {
    kill_and_recover("memory", rounds());
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged_as_synced() {
    kill_and_recover("sync", rounds());
}
