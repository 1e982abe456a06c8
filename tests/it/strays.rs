//! What has the name of a segment and is none of the directory's is named, and is never read, removed
//! or taken for one that was lost.

use crate::directory::contents;
use quipu::{
    Action, Db, Depth, ErrorKind, Event, Meaning, Options, ReadOnlyDb, Repair, Retention, View,
};
use std::fs;
use std::path::{Path, PathBuf};

fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

fn record(dir: &Path, events: u64) {
    let db = options().open(dir).unwrap();
    db.define(View::new("all")).unwrap();
    for _ in 0..events {
        db.record(&Event::new("e").payload(&[7; 100])).unwrap();
    }
    db.close().unwrap();
}

fn count(dir: &Path) -> u64 {
    options().open(dir).unwrap().query("all").unwrap().totals().unwrap().count
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("log/{number:010}.qlog"))
}

/// A directory of some segments, the number of the last of them, and a segment of another directory.
fn setting(root: &Path) -> (PathBuf, u64, PathBuf) {
    let (dir, other) = (root.join("db"), root.join("other"));
    record(&dir, 2_000);
    record(&other, 10);
    let last = (1..100).take_while(|number| segment(&dir, *number).exists()).last().unwrap();
    assert!(last > 2, "{last}");
    (dir, last, segment(&other, 1))
}

/// Everybody says of the file what it is, and a repair moves it away and nothing else.
fn check_told_and_put_aside(dir: &Path, stray: &Path, said: &str) {
    let before = contents(dir);
    for error in [options().open(dir).unwrap_err(), ReadOnlyDb::open(dir).unwrap_err()] {
        assert_eq!((error.kind(), error.path()), (ErrorKind::Corruption, Some(stray)), "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.to_string().contains("move it away"), "{error}");
    }
    let report = quipu::verify(dir, Depth::Refold, |_| {}).unwrap();
    let damages: Vec<_> = report.damages().collect();
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert_eq!(damages[0].path, stray);
    assert!(damages[0].what.contains(said), "{damages:?}");
    let plan = quipu::repair(dir, Repair::DryRun, |_| {}).unwrap();
    assert_eq!((plan.steps.len(), plan.records_given_up()), (1, 0), "{plan:?}");
    assert_eq!((plan.steps[0].action, &*plan.steps[0].path), (Action::PutAside, stray));
    assert!(contents(dir) == before, "nothing was changed so far");
    let done = quipu::repair(dir, Repair::Apply, |_| {}).unwrap();
    assert!(!stray.exists());
    let kept = done.quarantine.unwrap().join(stray.file_name().unwrap());
    assert_eq!(Some(fs::read(kept).unwrap()), before[stray]);
    assert!(quipu::verify(dir, Depth::Refold, |_| {}).unwrap().is_intact());
    assert_eq!(count(dir), 2_000);
}

#[test]
fn a_segment_of_another_directory_is_named_wherever_it_is_put() {
    let root = tempfile::tempdir().unwrap();
    let (dir, last, other) = setting(root.path());
    let end = u64::MAX;
    for number in [last + 1, last + 2, last + 70, 9_999_999_999, end] {
        let stray = segment(&dir, number);
        fs::copy(&other, &stray).unwrap();
        check_told_and_put_aside(&dir, &stray, "segment 1 of another directory");
    }
}

#[test]
fn a_copy_of_a_segment_under_another_number_is_named() {
    let root = tempfile::tempdir().unwrap();
    let (dir, last, _) = setting(root.path());
    let stray = segment(&dir, last + 5);
    fs::copy(segment(&dir, 2), &stray).unwrap();
    check_told_and_put_aside(&dir, &stray, "segment 2 of this directory");
    // A segment that was renamed is not put aside: it is needed.
    fs::rename(segment(&dir, 2), &stray).unwrap();
    let error = options().open(&dir).unwrap_err();
    assert!(error.to_string().contains("rename it to 0000000002.qlog"), "{error}");
    let error = quipu::repair(&dir, Repair::Apply, |_| {}).unwrap_err();
    assert!(error.to_string().contains("rename it to log/0000000002.qlog"), "{error}");
    fs::rename(&stray, segment(&dir, 2)).unwrap();
    assert_eq!(count(&dir), 2_000);
}

#[test]
fn a_file_that_is_no_segment_at_all_costs_no_time_and_no_records() {
    let root = tempfile::tempdir().unwrap();
    let (dir, _, _) = setting(root.path());
    let stray = segment(&dir, 9_999_999_999);
    fs::write(&stray, "holiday").unwrap();
    check_told_and_put_aside(&dir, &stray, "the last segment that was made");
}

#[test]
fn a_stray_is_told_from_a_lost_manifest() {
    let root = tempfile::tempdir().unwrap();
    let (dir, last, other) = setting(root.path());
    let stray = segment(&dir, last + 3);
    fs::copy(&other, &stray).unwrap();
    fs::remove_file(dir.join("MANIFEST")).unwrap();
    let done = quipu::repair(&dir, Repair::Apply, |_| {}).unwrap();
    let actions: Vec<Action> = done.steps.iter().map(|step| step.action).collect();
    assert_eq!(actions, [Action::Mend, Action::PutAside], "{done:?}");
    assert_eq!((done.records_given_up(), count(&dir)), (0, 2_000));
}

#[test]
fn a_foreign_segment_is_not_removed_with_the_retired_ones() {
    let root = tempfile::tempdir().unwrap();
    let (dir, last, other) = setting(root.path());
    let retiring = || options().retention(Retention::Recovery).open(&dir).unwrap();
    let db = retiring();
    db.record(&Event::new("e")).unwrap();
    db.close().unwrap();
    drop(db);
    assert!(!segment(&dir, last - 1).exists(), "it was retired");
    let db = retiring();
    // Put there while the directory is open.
    let stray = segment(&dir, 1);
    fs::copy(&other, &stray).unwrap();
    db.record(&Event::new("e")).unwrap();
    db.close().unwrap();
    drop(db);
    assert_eq!(fs::read(&stray).unwrap(), fs::read(&other).unwrap());
    let error = options().open(&dir).unwrap_err();
    assert!(error.to_string().contains("segment 1 of another directory"), "{error}");
    quipu::repair(&dir, Repair::Apply, |_| {}).unwrap();
    assert_eq!(count(&dir), 2_002);
}

#[test]
fn a_name_that_is_almost_a_segments_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let (dir, _, other) = setting(root.path());
    for name in ["7.qlog", "+0000000007.qlog", "copy of 0000000001.qlog"] {
        let path = dir.join("log").join(name);
        fs::copy(&other, &path).unwrap();
        assert_eq!(Db::open(&dir).unwrap().query("all").unwrap().totals().unwrap().count, 2_000);
        let report = quipu::verify(&dir, Depth::Refold, |_| {}).unwrap();
        let foreign = report.findings.iter().find(|finding| finding.path == path).unwrap();
        assert_eq!((foreign.meaning, report.is_intact()), (Meaning::Foreign, true));
        fs::remove_file(path).unwrap();
    }
}
