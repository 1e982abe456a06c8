//! The table: one row for each store and each way that its files were left.

use crate::trial::{Failure, Left, Outcome, Plan, Trials};
use std::fmt::Write as _;

const LOCK: &str = include_str!("../Cargo.lock");

/// The head, which says what was run and on what, and the table.
pub fn table(plan: Plan, rows: &[Trials]) -> String {
    let mut out = String::new();
    let Plan { records, trials, seed } = plan;
    let _ = writeln!(
        out,
        "# cargo run --release --manifest-path peers/flips/Cargo.toml -- {trials}\n\
         # {records} records, each synced; {trials} trials a row, one flipped bit each; \
         seed {seed}\n\
         # {}\n\
         # RocksDB is not among them: it needs a C++ build of many minutes.\n",
        versions(rows).join(", ")
    );
    let head = [
        "store",
        "files left by",
        "bytes",
        "no flip",
        "error at opening",
        "error when reading",
        "(of these panics)",
        "all right",
        "records lost",
        "median",
        "most",
        "wrong values",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows.iter().map(line));
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for line in &lines {
        let mut text = String::new();
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 | 1 => write!(text, "{cell:<width$}  "),
                _ => write!(text, "{cell:>width$}  "),
            };
        }
        let _ = writeln!(out, "{}", text.trim_end());
    }
    out
}

fn line(row: &Trials) -> [String; 12] {
    let count = |which: fn(&Outcome) -> bool| {
        row.outcomes.iter().filter(|outcome| which(outcome)).count().to_string()
    };
    let mut lost: Vec<usize> = row
        .outcomes
        .iter()
        .filter_map(|outcome| if let Outcome::Lost(lost) = outcome { Some(*lost) } else { None })
        .collect();
    lost.sort_unstable();
    let of_lost = |at: Option<usize>| {
        at.and_then(|at| lost.get(at)).map_or_else(|| "-".to_owned(), usize::to_string)
    };
    [
        row.store.name.to_owned(),
        match row.left {
            Left::Killed => "killing".to_owned(),
            Left::Closed => "closing".to_owned(),
        },
        row.bytes.to_string(),
        if row.control == Outcome::AllRight { "all right" } else { "not right" }.to_owned(),
        count(|outcome| matches!(outcome, Outcome::OpeningFailed(_))),
        count(|outcome| matches!(outcome, Outcome::ReadingFailed(_))),
        count(|outcome| {
            use Outcome::{OpeningFailed, ReadingFailed};
            matches!(outcome, OpeningFailed(Failure::Panic) | ReadingFailed(Failure::Panic))
        }),
        count(|outcome| *outcome == Outcome::AllRight),
        lost.len().to_string(),
        of_lost(Some(lost.len() / 2)),
        of_lost(lost.len().checked_sub(1)),
        count(|outcome| matches!(outcome, Outcome::Wrong(_))),
    ]
}

/// What was measured, each store once: `redb 4.4.0`.
fn versions(rows: &[Trials]) -> Vec<String> {
    let mut versions = Vec::new();
    for row in rows {
        let (name, package) = (row.store.name, row.store.package);
        let version = locked(package);
        let version = match name {
            "SQLite" => format!("{name} {} ({package} {version})", rusqlite::version()),
            _ => format!("{name} {version}"),
        };
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    versions
}

/// The version of a package in `Cargo.lock`, which is what was built.
fn locked(package: &str) -> &'static str {
    let mut lines = LOCK.lines().skip_while(|line| *line != format!("name = \"{package}\""));
    lines.nth(1).and_then(|line| line.split('"').nth(1)).unwrap_or("of unknown version")
}
