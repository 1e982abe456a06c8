//! A directory with a snapshot and a log behind it, and what must hold of any that opens.
//!
//! 1. What is refused is left as it was, byte for byte.
//! 2. Answers do not contradict each other, and not those of the same directory opened again.
//! 3. A view filled from the log now says what one says that counted from the beginning.
//! 4. Of some, by chance: `verify` and a reader change nothing; what is refused as damaged is not intact to
//!    `verify`; a reader has the owner's answers; what `repair` leaves of damage that no checksum hides is
//!    intact, and opens.
//!
//! Errors are fine anywhere, panics are not.

use quipu::{
    Bucket, Component, Db, Dedup, Depth, Durability, ErrorKind, Event, Grain, Keep, Meaning,
    Options, Query, ReadOnlyDb, Repair, Result, TestClock, Timestamp, VerifyReport, View,
    ViewStatus,
};
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// Events in the template.
pub const EVENTS: u64 = 60;
/// As many of them are covered by its snapshot.
pub const STORED: u64 = 31;

/// As many ids are remembered.
pub const IDS: usize = 20;

/// Bytes of a segment of the template.
const SEGMENT_BYTES: usize = 64 << 10;

/// A file of a directory: its path below it, and its bytes.
pub type Files = Vec<(PathBuf, Vec<u8>)>;

/// Small segments, no background work, a clock that stands still.
pub fn options() -> Options {
    Options::new()
        .clock(TestClock::at(Timestamp::from_secs(1_700_000_000)))
        .durability(Durability::Memory)
        .checkpoint_every(Duration::from_secs(1 << 30))
        .segment_bytes(SEGMENT_BYTES as u64)
        .dedup(Dedup::Last(IDS as u64))
}

/// A new directory, in memory where the system has such a place.
pub fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("room for a directory")
}

/// The views of the template; each sees every event of it.
pub fn views() -> [View; 3] {
    [
        View::new("all").stats("value").grain(Grain::Hour, Keep::Last(3)),
        View::new("by_user").by(["user"]).stats("value").grain(Grain::Day, Keep::All),
        View::new("sketched")
            .distinct_at("user", 4)
            .theta("user", 64)
            .quantiles("value")
            .count_min("user", 8, 2)
            .membership("user", 100, 10)
            // More than there are users in an input, so that the same bytes come from any order.
            .top("user", 1_000)
            .grain(Grain::Hour, Keep::Last(3)),
    ]
}

fn user(number: u64) -> String {
    format!("user {}", number % 5)
}

fn value(number: u64) -> f64 {
    number as f64 * 0.5
}

/// For how many events the event stands.
fn times(number: u64) -> u64 {
    if number % 4 == 3 { number } else { 1 }
}

/// redb panics on some damaged pages; the engine catches that and makes an error of it. libFuzzer's
/// hook would end the process before: it is left to the panics of everybody else. (One of redb's
/// that nobody catches still ends the run, when it has unwound.)
pub fn forgive_what_is_caught() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|place| place.file().contains("/redb-")) {
            hook(panic);
        }
    }));
}

/// A directory as a crash leaves it: a checkpoint in the middle, then some more, all of it synced.
pub fn template() -> &'static Files {
    static TEMPLATE: OnceLock<Files> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        forgive_what_is_caught();
        let home = scratch();
        let db = options().open(home.path().join("db")).expect("opens");
        for view in views() {
            db.define(view).expect("defines");
        }
        for number in 0..EVENTS {
            let (user, id) = (user(number), format!("event {number}"));
            let about = Duration::from_secs(if number % 10 == 9 { 30 } else { 0 });
            let event = Event::new("sale")
                .at_about(Timestamp::from_secs(1_699_990_000 + number as i64 * 60), about)
                .times(times(number))
                .dim("user", &user)
                .value(value(number))
                .entity("cart")
                .id(&id)
                .payload(&[7; 9]);
            if number % 3 == 0 {
                db.record(&event).expect("records");
            } else {
                let mut batch = db.batch();
                batch.push(&event).expect("is valid");
                db.record_batch(&mut batch).expect("records");
            }
            if number + 1 == STORED {
                db.checkpoint().expect("checkpoints");
            }
        }
        db.sync().expect("syncs");
        let mut files = Vec::new();
        read(&home.path().join("db"), Path::new(""), &mut files);
        // A segment made in advance may be there or not.
        files.retain(|(path, _)| !path.ends_with("0000000002.qlog"));
        for (path, bytes) in &mut files {
            // What lies behind the frames is zero anyway, and more of it makes nothing harder.
            if path.ends_with("0000000001.qlog") {
                bytes.truncate(SEGMENT_BYTES / 4);
            }
        }
        files.sort();
        files
    })
}

/// The bytes of the template's file of this name.
pub fn file<'a>(files: &'a mut Files, name: &str) -> &'a mut Vec<u8> {
    let found = files.iter_mut().find(|(path, _)| path.ends_with(name));
    &mut found.expect("the template has it").1
}

/// The template's identity, as it is written in the manifest.
pub fn identity() -> [u8; 16] {
    let manifest = file(&mut template().clone(), "MANIFEST").clone();
    manifest[16..32].try_into().expect("sixteen bytes")
}

fn read(root: &Path, below: &Path, files: &mut Files) {
    for entry in fs::read_dir(root.join(below)).expect("lists") {
        let entry = entry.expect("lists");
        let path = below.join(entry.file_name());
        if entry.file_type().expect("is a file or a directory").is_dir() {
            read(root, &path, files);
        } else {
            let bytes = fs::read(entry.path()).expect("reads");
            files.push((path, bytes));
        }
    }
}

/// Lays the files out below `root`.
pub fn lay(root: &Path, files: &Files) {
    for (path, bytes) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a file has a directory")).expect("makes");
        fs::write(path, bytes).expect("writes");
    }
}

/// Opens what was laid out. What is refused is as it was (1), and is refused again.
fn open(root: &Path, files: &Files) -> Option<Db> {
    let refused = match options().must_exist().open(root) {
        Ok(db) => return Some(db),
        Err(error) => error,
    };
    is_as_it_was(root, files, &refused.to_string());
    let again = options().must_exist().open(root).map(|_| ()).expect_err("it was refused before");
    assert_eq!(again.to_string(), refused.to_string());
    None
}

/// What the log and the snapshot hold of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whatever opens has the events of the template up to some number, in this order, and nothing
    /// else: what was damaged could not get a right checksum.
    Prefix,
    /// Anything may be in the log, which reaches back to the beginning.
    Log,
    /// Anything may be in the snapshot.
    Nothing,
}

/// Lays the files out, opens them, asks everything, records, closes, opens again.
pub fn exercise(files: &Files, trust: Trust) {
    let home = scratch();
    let root = home.path().join("db");
    lay(&root, files);
    if !root.is_dir() {
        return;
    }
    by_another_way(home.path(), files, trust);
    if let Some(db) = open(&root, files) {
        // An error is the end of it: that row, or that segment, is damaged.
        let _ = use_it(&root, db, trust);
    }
}

/// What an input's bytes decide, alike in every run.
fn chance(files: &Files) -> u64 {
    files.iter().flat_map(|(_, bytes)| bytes).fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn verified(root: &Path) -> Result<VerifyReport> {
    quipu::verify(root, Depth::Refold, |_| {})
}

fn is_intact(report: &Result<VerifyReport>) -> bool {
    report.as_ref().is_ok_and(|report| {
        report.findings.iter().all(|finding| finding.meaning != Meaning::Corruption)
    })
}

/// Goes another way in than an owner who opens, which each has its share of the runs (4).
fn by_another_way(home: &Path, files: &Files, trust: Trust) {
    let copy = home.join("copy");
    let laid = || {
        lay(&copy, files);
        options().must_exist().open(&copy)
    };
    match chance(files) % 8 {
        0 => {
            lay(&copy, files);
            let report = verified(&copy);
            is_as_it_was(&copy, files, "verify");
            match laid() {
                Ok(_) => {}
                Err(error) => {
                    let is_damage = error.kind() == ErrorKind::Corruption;
                    assert!(!is_damage || !is_intact(&report), "verify finds it intact: {error}");
                }
            }
        }
        1 => {
            lay(&copy, files);
            let Ok(reader) = ReadOnlyDb::open(&copy) else { return };
            let read = reader.views().and_then(|views| said(&views, |v| reader.query(v), trust));
            drop(reader);
            is_as_it_was(&copy, files, "a reader");
            let Ok(owner) = laid() else { return };
            if let (Ok(read), Ok(owned)) = (read, answers(&owner, trust)) {
                assert_eq!(read, owned, "a reader and the owner");
            }
        }
        2 => {
            lay(&copy, files);
            if quipu::repair(&copy, Repair::DryRun, |_| {}).is_ok() {
                is_as_it_was(&copy, files, "a dry run");
            }
            let repaired = quipu::repair(&copy, Repair::Apply, |_| {});
            // Strange content with a right checksum is no damage: it is told, and left.
            if repaired.is_ok() && trust == Trust::Prefix {
                let report = verified(&copy);
                assert!(is_intact(&report), "it was repaired: {report:?}");
                let db = options().must_exist().open(&copy).expect("it was repaired");
                let _ = answers(&db, trust).expect("it was repaired");
            }
        }
        _ => {}
    }
    let _ = fs::remove_dir_all(&copy);
}

/// The files are what they were, and no others.
fn is_as_it_was(root: &Path, files: &Files, who: &str) {
    let mut found = Vec::new();
    read(root, Path::new(""), &mut found);
    let content = |files: &Files| -> BTreeMap<PathBuf, Vec<u8>> {
        // The lock is a name to hold on to, without content; it may have been made.
        files.iter().filter(|(path, _)| !path.ends_with("LOCK")).cloned().collect()
    };
    let (before, after) = (content(files), content(&found));
    for (path, bytes) in &before {
        assert!(after.get(path) == Some(bytes), "{} is not what it was: {who}", path.display());
    }
    assert_eq!(before.len(), after.len(), "files were made: {who}");
}

fn use_it(root: &Path, db: Db, trust: Trust) -> Result<()> {
    let before = answers(&db, trust)?;
    if trust == Trust::Prefix {
        is_a_prefix(&db, &before)?;
    }
    if trust != Trust::Nothing {
        fill_twins(&db)?;
    }
    let events = db.statistics().events;
    // Touches every row there is of the users, so that they are written anew.
    let mut users: Vec<String> = vec!["new".to_owned()];
    if let Some(by_user) = before.get("by_user") {
        users.extend(by_user.rows.iter().take(16).filter_map(|row| row.key.first().cloned()));
    }
    let mut recorded = 0;
    for user in &users {
        let event = Event::new("sale").dim("user", user).value(1.0);
        recorded += u64::from(!db.record(&event)?.duplicate);
    }
    assert_eq!(db.statistics().events, events + recorded, "a record counts once");
    let now = answers(&db, trust)?;
    for (name, view) in &before {
        let (was, is) = (view.total, now[name].total);
        assert!(is >= was && is - was <= recorded, "{name} had {was} events and has {is}");
    }
    db.close()?;
    drop(db);
    let db = options().must_exist().open(root)?;
    assert_eq!(answers(&db, trust)?, now, "reopening changes nothing");
    Ok(())
}

/// Everything that a view answers.
#[derive(Debug, PartialEq)]
struct Answers {
    rows: Vec<quipu::Row>,
    total: u64,
    buckets: Vec<Vec<Bucket>>,
}

/// Everything that there is to be asked (2).
fn answers(db: &Db, trust: Trust) -> Result<BTreeMap<String, Answers>> {
    said(&db.views()?, |view| db.query(view), trust)
}

fn said(
    views: &[ViewStatus],
    ask: impl Fn(&str) -> Result<Query>,
    trust: Trust,
) -> Result<BTreeMap<String, Answers>> {
    let mut all = BTreeMap::new();
    for status in views {
        if status.backfill.is_some() {
            continue;
        }
        let query = ask(status.view.name())?;
        let rows = query.rows()?.collect::<Result<Vec<_>>>()?;
        assert!(rows.windows(2).all(|pair| pair[0].key < pair[1].key), "rows are in order");
        let mut unordered = Vec::new();
        query.for_each(|row| {
            unordered.push(row);
            ControlFlow::Continue(())
        })?;
        unordered.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(unordered, rows, "the same rows, unordered");
        let keys = query.key_count()?;
        // The snapshot's number of rows is one of the things that it is believed.
        assert!(trust == Trust::Nothing || keys == rows.len() as u64, "{keys} keys, {rows:?}");
        let totals = query.totals()?;
        assert_eq!(
            totals.count,
            rows.iter().fold(0, |sum: u64, row| sum.saturating_add(row.count))
        );
        let top = query.top(usize::MAX, Component::Count)?;
        assert_eq!(top.len(), rows.len(), "all of them, ranked");
        let mut buckets = Vec::new();
        for row in &rows {
            let key: Vec<&str> = row.key.iter().map(String::as_str).collect();
            assert_eq!(query.get(&key)?.as_ref(), Some(row));
            for (grain, _) in status.view.grains() {
                let of_key = query.buckets(&key, *grain)?;
                assert!(of_key.windows(2).all(|pair| pair[0].end <= pair[1].start));
                buckets.push(of_key);
            }
        }
        all.insert(status.view.name().to_owned(), Answers { rows, total: totals.count, buckets });
    }
    Ok(all)
}

/// What is there are the first events of the template, in every view.
fn is_a_prefix(db: &Db, found: &BTreeMap<String, Answers>) -> Result<()> {
    let events = db.statistics().events;
    assert!(events <= EVENTS, "{events} events");
    let mut want: BTreeMap<String, (u64, f64)> = BTreeMap::new();
    for number in 0..events {
        let row = want.entry(user(number)).or_default();
        *row = (row.0 + times(number), row.1 + times(number) as f64 * value(number));
    }
    if let Some(by_user) = found.get("by_user") {
        let rows: BTreeMap<String, (u64, f64)> = by_user
            .rows
            .iter()
            .map(|row| (row.key[0].clone(), (row.count, row.summary().map_or(0.0, |s| s.sum))))
            .collect();
        assert_eq!(rows, want);
    }
    if let Some(all) = found.get("all") {
        assert_eq!(all.total, (0..events).map(times).sum::<u64>());
        let summed: u64 = db.query("all")?.buckets(&[], Grain::Hour)?.iter().map(|b| b.count).sum();
        assert!(summed <= all.total);
    }
    Ok(())
}

/// Defines every view once more, under another name, and fills both from the log (3).
fn fill_twins(db: &Db) -> Result<()> {
    let filled = |name: &str| db.backfill(name, |_| ControlFlow::Continue(()));
    for status in db.views()?.into_iter().take(3) {
        let view = status.view;
        let mut twin = serde_json::to_value(&view).expect("a view is plain");
        twin["name"] = "twin".into();
        let twin: View = serde_json::from_value(twin).expect("a view is plain");
        db.define(twin.clone())?;
        filled(twin.name())?;
        filled(view.name())?;
        let (one, other) = (db.query(view.name())?, db.query(twin.name())?);
        let rows = |query: &quipu::Query| query.rows()?.collect::<Result<Vec<_>>>();
        assert_eq!(rows(&one)?, rows(&other)?, "{view}");
        db.drop_view(twin.name())?;
    }
    Ok(())
}
