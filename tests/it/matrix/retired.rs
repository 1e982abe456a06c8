//! Snapshots damaged where the log was retired: nothing can be made again there, so what is read wrong is
//! not hidden by a rebuilding. The answers are right, or an error names the file.

use super::{
    Files, Loss, Template, answers_of, bits_of, flipped, full, late, options, read, record, views,
    views_say, with_matrix_of, write,
};
use quipu::{Db, ErrorKind, Event, Options, Query, ReadOnlyDb, Repair, Retention, Row};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub(super) const STORE: &str = "state.redb";
const PAGE: usize = 4_096;
/// Events before the last checkpoint, synced behind it, and not synced.
const PARTS: [u64; 3] = [36, 5, 2];
const ALL: u64 = PARTS[0] + PARTS[1] + PARTS[2];

pub(super) fn retired_options() -> Options {
    options().retention(Retention::Recovery)
}

/// Fills a segment.
fn fill(db: &Db) {
    let payload = vec![7; 8 << 10];
    for _ in 0..9 {
        db.record(&Event::new("other").payload(&payload)).unwrap();
    }
}

/// Killed after some checkpoints, so that pages of earlier ones lie beside those in use.
fn build(root: &Path) -> (Files, String) {
    let dir = root.join("build");
    let _ = std::fs::remove_dir_all(&dir);
    let db = retired_options().open(&dir).unwrap();
    for view in views().into_iter().chain([late()]) {
        db.define(view).unwrap();
    }
    for step in 0..6 {
        record(&db, step * PARTS[0] / 6..(step + 1) * PARTS[0] / 6);
        fill(&db);
        db.checkpoint().unwrap();
    }
    record(&db, PARTS[0]..PARTS[0] + PARTS[1]);
    db.sync().unwrap();
    record(&db, PARTS[0] + PARTS[1]..ALL);
    let mut files = read(&dir);
    files.retain(|path, _| !path.to_string_lossy().ends_with(".new"));
    assert!(!files.contains_key(Path::new("log/0000000001.qlog")), "the beginning is retired");
    let copy = root.join("copy");
    write(&copy, &files);
    let answers = answers_of(&retired_options().open(&copy).unwrap()).unwrap();
    (files, answers)
}

fn template(root: &Path) -> Template {
    let (files, answers) = build(root);
    let answers = BTreeMap::from([(ALL, answers)]);
    Template {
        files,
        older: Files::new(),
        other: Files::new(),
        answers,
        synced: ALL,
        all: ALL,
        options: retired_options,
        ask: answers_of,
    }
}

/// The bytes to flip: of pages that hold anything, one in `step`, and one at least.
fn places(bytes: &[u8], step: usize) -> impl Iterator<Item = usize> {
    let in_use = |at: &usize| {
        let page = at / PAGE * PAGE;
        bytes[page..(page + PAGE).min(bytes.len())].iter().any(|byte| *byte != 0)
    };
    let chosen = move |at: &usize| at.is_multiple_of(PAGE) || at.is_multiple_of(step);
    (0..bytes.len()).filter(chosen).filter(in_use)
}

/// Of views of which nothing is said to be lost every row is there.
fn keeps_what_it_does_not_name(dir: &Path, whole: &BTreeMap<String, Vec<Row>>, what: &str) {
    let done = quipu::repair(dir, Repair::Apply, |_| {}).unwrap();
    let lost: BTreeSet<&String> = done.steps.iter().flat_map(|step| &step.views).collect();
    let db = retired_options().open(dir).unwrap();
    for (view, whole) in whole {
        match rows(&|view| db.query(view), view) {
            Ok(rows) => {
                let keys: BTreeSet<&Vec<String>> = whole.iter().map(|row| &row.key).collect();
                assert!(rows.iter().all(|row| keys.contains(&row.key)), "{what}: {view}");
                assert!(rows == *whole || lost.contains(view), "{what}: {view} of {done:?}");
            }
            // The catalog is gone, and with it all.
            Err(error) => assert_eq!(error.kind(), ErrorKind::UnknownView, "{what}: {error}"),
        }
    }
}

fn rows(query: &dyn Fn(&str) -> quipu::Result<Query>, view: &str) -> quipu::Result<Vec<Row>> {
    query(view)?.rows()?.collect()
}

#[test]
fn a_flipped_bit_in_a_snapshot_without_its_log_gives_no_wrong_answer() {
    with_matrix_of(template, |matrix| {
        let files = matrix.template.files.clone();
        let store = matrix.dir.join(STORE);
        let bytes = &files[Path::new(STORE)];
        write(&matrix.dir, &files);
        let db = retired_options().open(&matrix.dir).unwrap();
        let said = views_say(&|view| db.query(view)).unwrap();
        let names = views().into_iter().chain([late()]).map(|view| view.name().to_owned());
        let whole: BTreeMap<_, _> = names
            .map(|name| (name.clone(), rows(&|view| db.query(view), &name).unwrap()))
            .collect();
        drop(db);
        for byte in places(bytes, if full() { 1 } else { 47 }) {
            for bit in bits_of(byte, byte < 512 && full()) {
                let what = format!("{STORE}, byte {byte}, bit {bit}");
                let damaged = flipped(&files, STORE, byte, bit);
                let named = matrix.case("snapshot alone", &what, &damaged, Loss::Synced);
                assert!(named.is_none_or(|path| path == store), "{what}");
                if byte % 5 == 0 {
                    // Who only reads does not look at the whole file before.
                    write(&matrix.dir, &damaged);
                    let reader = ReadOnlyDb::open(&matrix.dir);
                    match reader.and_then(|reader| views_say(&|view| reader.query(view))) {
                        Ok(answers) => assert!(answers == said, "{what}: a reader's wrong answer"),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
                            assert_eq!(error.path(), Some(&*store), "{what}: {error}");
                        }
                    }
                }
                if byte % 17 == 0 {
                    matrix.repaired(&what, &damaged, false);
                    write(&matrix.dir, &damaged);
                    keeps_what_it_does_not_name(&matrix.dir, &whole, &what);
                }
            }
        }
        let tally = matrix.tallies["snapshot alone"];
        assert_eq!(tally.cut, 0);
        assert!(tally.reported > 0 && tally.recovered > 0);
    });
}

#[test]
fn a_snapshot_without_its_log_that_is_lost_is_told() {
    with_matrix_of(template, |matrix| {
        let files = matrix.template.files.clone();
        let mut lost = files.clone();
        lost.remove(Path::new(STORE));
        let mut emptied = files.clone();
        emptied.insert(PathBuf::from(STORE), Vec::new());
        for (what, damaged) in [("lost", lost), ("emptied", emptied)] {
            matrix.case("snapshot alone, gone", what, &damaged, Loss::Synced);
            matrix.repaired(what, &damaged, false);
        }
        assert_eq!(matrix.tallies["snapshot alone, gone"].reported, 2);
    });
}
