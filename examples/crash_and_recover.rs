//! A process dies in the middle of recording, and nothing that it had acknowledged is lost.
//!
//! The program starts itself again as a child, which records in a loop and tells each acknowledged
//! position. The parent kills it (SIGKILL) after some of them, opens the directory and compares:
//! the last position must be no less than the last one told, and every view must hold exactly the
//! events up to it. Which event stands at which position is a function of its number, so the
//! answers can be computed.
//!
//! `cargo run --example crash_and_recover [DIRECTORY]`; exits with 1 when anything is missing.
#![allow(clippy::print_stdout, reason = "an example shows what it found")]

use quipu::{Db, Event, View};
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const ROUNDS: u64 = 5;
const CHILD: &str = "--record-until-killed";
/// A child that nobody kills stops here.
const EVENTS_MAX: u64 = 5_000_000;

/// Definitions take a position, too: the first event stands behind them.
const VIEWS: [(&str, &[&str]); 3] =
    [("all", &[]), ("by_user", &["user"]), ("by_user_product", &["user", "product"])];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, path] = arguments.as_slice()
        && flag == CHILD
    {
        record_until_killed(Path::new(path))?;
        return Ok(ExitCode::SUCCESS);
    }
    let scratch = tempfile::tempdir()?;
    let path = arguments.first().map_or(scratch.path().join("data"), PathBuf::from);
    let mut lost = 0;
    for round in 1..=ROUNDS {
        let acknowledged = record_and_kill(&path, 3_000 * round)?;
        let db = Db::open(&path)?;
        let (position, replayed) = (db.position().get(), db.statistics().replayed);
        let faults = faults(&db, acknowledged)?;
        println!(
            "round {round}: killed after position {acknowledged} was acknowledged; recovered \
             {position}, {replayed} of them replayed from the log: {}",
            if faults.is_empty() { "every count is right" } else { "WRONG" }
        );
        for fault in &faults {
            println!("  {fault}");
        }
        lost += faults.len();
        db.close()?;
    }
    Ok(if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The child: records one event after the other, at the default durability.
fn record_until_killed(path: &Path) -> Result<(), Box<dyn Error>> {
    let db = Db::open(path)?;
    for (name, key) in VIEWS {
        db.define(View::new(name).by(key.iter().copied()).stats("value"))?;
    }
    let mut out = std::io::stdout().lock();
    for _ in 0..EVENTS_MAX {
        let number = number_at(db.position().get() + 1);
        let (user, product) = (user_of(number), product_of(number));
        let event = Event::new("sale").dim("user", &user).dim("product", &product).value(0.1);
        let position = db.record(&event)?.position;
        // Told only now: the record was acknowledged.
        writeln!(out, "{position}")?;
        if number.is_multiple_of(2_000) {
            db.checkpoint()?;
        }
    }
    Ok(())
}

/// Lets a child record, kills it behind `many` acknowledgements, gives the last one it told.
fn record_and_kill(path: &Path, many: u64) -> Result<u64, Box<dyn Error>> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(CHILD)
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()?;
    let told = BufReader::new(child.stdout.take().ok_or("the child has an output")?);
    let (mut last, mut lines) = (0, 0);
    for line in told.lines() {
        // The kill cuts the last line anywhere; a whole one is a number.
        let Ok(position) = line?.parse::<u64>() else { break };
        (last, lines) = (position.max(last), lines + 1);
        if lines == many {
            child.kill()?;
        }
    }
    child.wait()?;
    if lines < many {
        return Err(format!("the child stopped by itself behind position {last}").into());
    }
    Ok(last)
}

/// What is not as it must be.
fn faults(db: &Db, acknowledged: u64) -> Result<Vec<String>, Box<dyn Error>> {
    let mut faults = Vec::new();
    let position = db.position().get();
    if position < acknowledged {
        faults.push(format!("position {acknowledged} was acknowledged, {position} is the last"));
    }
    let events = number_at(position);
    let mut expect = |what: &str, got: (u64, f64), count: u64| {
        let sum = exact_sum(count);
        if got != (count, sum) {
            faults.push(format!("{what}: {got:?}, must be {:?}", (count, sum)));
        }
    };
    for (name, _) in VIEWS {
        let totals = db.query(name)?.totals()?;
        let sum = totals.summary().map_or(0.0, |summary| summary.sum);
        expect(name, (totals.count, sum), events);
    }
    let mut by_user = [0_u64; 7];
    (1..=events).for_each(|number| by_user[(number % 7) as usize] += 1);
    for (user, count) in (0..).zip(by_user) {
        let row = db.query("by_user")?.get(&[&user_of(user)])?;
        let got = row.map_or((0, 0.0), |row| (row.count, row.summary().map_or(0.0, |s| s.sum)));
        expect(&user_of(user), got, count);
    }
    Ok(faults)
}

/// The number of the event at a position, from 1.
fn number_at(position: u64) -> u64 {
    position - VIEWS.len() as u64
}

fn user_of(number: u64) -> String {
    format!("user {}", number % 7)
}

fn product_of(number: u64) -> String {
    format!("product {}", number % 500)
}

/// The sum of `count` times the `f64` nearest to 0.1, rounded once, at the end: that number is
/// m / 2^55 with an integer m, and integers add without error.
fn exact_sum(count: u64) -> f64 {
    const MANTISSA: u128 = 3_602_879_701_896_397;
    (MANTISSA * u128::from(count)) as f64 / (1_u64 << 55) as f64
}
