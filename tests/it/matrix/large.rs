//! The same with a snapshot so large that an opening does not look at all of it, but only at what it
//! reads, and redb does not compare that with its checksums.

use super::retired::{STORE, retired_options};
use super::{Files, forgive_what_is_caught, full, read, scratch, write};
use quipu::{Db, ErrorKind, Event, Query, ReadOnlyDb, Row, View};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

const PAGE: usize = 4_096;
/// Above this size an opening does not look at the whole file.
const LARGE: usize = 16 << 20;
const KEYS: u64 = 26_000;

fn large_views() -> [View; 2] {
    // Keys that are long make the file large, and its tree high.
    [View::new("long").by(["name"]).stats("value"), View::new("short").by(["user"]).stats("value")]
}

fn record_large(db: &Db, numbers: impl Iterator<Item = u64>) {
    let mut batch = db.batch();
    for n in numbers {
        let (name, user) = (long(n), short(n));
        let event = Event::new("sale").dim("name", &name).dim("user", &user);
        batch.push(&event.value(n as f64)).unwrap();
        if batch.len() == 500 {
            db.record_batch(&mut batch).unwrap();
        }
    }
    db.record_batch(&mut batch).unwrap();
}

fn long(n: u64) -> String {
    format!("{n:06}{}", "of the long ones ".repeat(20 + n as usize % 30))
}

fn short(n: u64) -> String {
    format!("u{n:06}")
}

fn large(root: &Path) -> Files {
    let dir = root.join("large");
    let db = retired_options().segment_bytes(4 << 20).open(&dir).unwrap();
    for view in large_views() {
        db.define(view).unwrap();
    }
    record_large(&db, 0..KEYS);
    db.checkpoint().unwrap();
    // Pages of before lie beside those in use.
    for step in 0..6 {
        record_large(&db, (step..KEYS).step_by(997));
        db.checkpoint().unwrap();
        record_large(&db, KEYS / 7 * step..KEYS / 7 * step + 200);
        db.checkpoint().unwrap();
    }
    let mut files = read(&dir);
    files.retain(|path, _| !path.to_string_lossy().ends_with(".new"));
    assert!(!files.contains_key(Path::new("log/0000000001.qlog")), "the beginning is retired");
    assert!(files[Path::new(STORE)].len() > LARGE);
    files
}

/// What both views say of every key, asked one by one and all together.
fn large_say(
    query: &dyn Fn(&str) -> quipu::Result<Query>,
    numbers: &mut dyn Iterator<Item = u64>,
) -> quipu::Result<String> {
    let mut out = String::new();
    let [long_ones, short_ones] = [query("long")?, query("short")?];
    for n in numbers {
        let of = |row: Option<Row>| row.map(|row| (row.count, row.summary().unwrap().sum));
        let long = of(long_ones.get(&[&long(n)])?);
        writeln!(out, "{long:?} {:?}", of(short_ones.get(&[&short(n)])?)).unwrap();
    }
    for query in [long_ones, short_ones] {
        let mut hash = 0_u64;
        query.for_each(|row| {
            let sum = row.summary().unwrap().sum.to_bits();
            let words = [row.count, sum, row.key[0].len() as u64];
            let mixed = words.iter().fold(0_u64, |hash, word| {
                (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
            });
            // In any order.
            hash = hash.wrapping_add(mixed);
            ControlFlow::Continue(())
        })?;
        writeln!(out, "{hash} {}", query.key_count()?).unwrap();
    }
    Ok(out)
}

/// The numbers of the keys that lie in a page.
fn numbers_in(page: &[u8]) -> BTreeSet<u64> {
    let digits = |at: usize| std::str::from_utf8(&page[at..at + 6]).ok()?.parse().ok();
    let keys =
        (0..page.len() - 8).filter(|at| page[*at] == b'u' || page[at + 6..].starts_with(b"of"));
    let mut numbers: BTreeSet<u64> =
        keys.filter_map(|at| digits(if page[at] == b'u' { at + 1 } else { at })).collect();
    numbers.retain(|n| *n < KEYS);
    numbers
}

#[test]
fn a_flipped_bit_in_a_large_snapshot_without_its_log_gives_no_wrong_answer() {
    forgive_what_is_caught();
    let root = scratch();
    let files = large(root.path());
    let dir = root.path().join("case");
    let store = dir.join(STORE);
    let bytes = &files[Path::new(STORE)];
    write(&dir, &files);
    let db = retired_options().open(&dir).unwrap();
    let ask = |numbers: &mut dyn Iterator<Item = u64>| large_say(&|view| db.query(view), numbers);
    let all: Vec<String> = ask(&mut (0..KEYS)).unwrap().lines().map(str::to_owned).collect();
    drop(db);
    let expected = |numbers: &[u64]| {
        let each = numbers.iter().map(|n| &all[*n as usize]).chain(&all[KEYS as usize..]);
        each.fold(String::new(), |out, line| out + line + "\n")
    };
    let (mut told, mut right) = (0, 0);
    let mut wrong = Vec::new();
    let mut flip = |byte: usize, bit: u32| {
        let page = &bytes[byte / PAGE * PAGE..][..PAGE];
        let mut numbers = numbers_in(page);
        if page[0] == 2 {
            // What it leads to, and more.
            let (first, last) = (numbers.first().copied(), numbers.last().copied());
            let (first, last) = (first.unwrap_or(0), last.unwrap_or(KEYS - 1));
            let step = ((last - first) / 400).max(1) as usize;
            numbers.extend((first.saturating_sub(20)..(last + 20).min(KEYS)).step_by(step));
        }
        let numbers: Vec<u64> = numbers.into_iter().collect();
        let mut damaged = bytes.clone();
        damaged[byte] ^= 1 << bit;
        for reads_only in [false, true] {
            std::fs::write(&store, &damaged).unwrap();
            let asked = &mut numbers.iter().copied();
            let said = if reads_only {
                ReadOnlyDb::open(&dir)
                    .and_then(|reader| large_say(&|view| reader.query(view), asked))
            } else {
                retired_options().open(&dir).and_then(|db| large_say(&|view| db.query(view), asked))
            };
            match said {
                Ok(said) if said == expected(&numbers) => right += 1,
                Ok(_) => wrong.push((byte, bit, reads_only)),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corruption, "{byte}, {bit}: {error}");
                    assert_eq!(error.path(), Some(&*store), "{byte}, {bit}: {error}");
                    told += 1;
                }
            }
        }
    };
    let of_kind = |kind: u8| (0..bytes.len()).step_by(PAGE).filter(move |at| bytes[*at] == kind);
    assert!(of_kind(2).count() > 20 && of_kind(1).count() > 1_000);
    // redb's header.
    for byte in (0..320).filter(|byte| bytes[*byte] != 0).step_by(if full() { 1 } else { 9 }) {
        flip(byte, byte as u32 % 8);
    }
    // What leads to other pages, then what has the rows.
    for page in of_kind(2).step_by(if full() { 1 } else { 29 }) {
        for byte in (page + page / PAGE % 7..page + PAGE).step_by(if full() { 149 } else { 911 }) {
            flip(byte, (byte % 8) as u32);
        }
    }
    for page in of_kind(1).step_by(if full() { 3 } else { 199 }) {
        flip(page + page / PAGE * 61 % PAGE, (page / PAGE % 8) as u32);
    }
    assert!(wrong.is_empty(), "{} wrong of {right} right, {told} told: {wrong:?}", wrong.len());
    assert!(told > 0 && right > 0);
}
