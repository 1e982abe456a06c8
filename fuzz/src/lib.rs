//! What the targets share: a directory to be damaged, and what must hold of one that opens.
//!
//! A target is run by `cargo +nightly fuzz run TARGET`. Built without cargo-fuzz (as CI does, on the
//! stable toolchain) the targets lack coverage and only show that they still compile.

use quipu::{Db, Durability, Event, Grain, Keep, Options, Result, TestClock, Timestamp, View};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// Events in the template: as many are covered by its snapshot, as many are only in the log.
pub const EVENTS: u64 = 60;

/// A file of a directory: its path below it, and its bytes.
pub type Files = Vec<(PathBuf, Vec<u8>)>;

/// Small segments, no background work, a clock that stands still.
pub fn options() -> Options {
    Options::new()
        .clock(TestClock::at(Timestamp::from_secs(1_700_000_000)))
        .durability(Durability::Memory)
        .checkpoint_every(Duration::from_secs(1 << 30))
        .segment_bytes(64 << 10)
}

/// A new directory, in memory where the system has such a place.
pub fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("room for a directory")
}

/// The views that see every event of the template.
pub fn define_views(db: &Db) {
    db.define(View::new("all").stats("value").grain(Grain::Hour, Keep::Last(3))).expect("defines");
    db.define(View::new("by_user").by(["user"]).stats("value")).expect("defines");
}

/// redb panics on some damaged pages; the engine catches that and makes an error of it. libFuzzer's
/// hook would end the process before: it is left to the panics of everybody else. (One of redb's
/// that nobody catches still ends the run, when it has unwound.)
fn forgive_what_is_caught() {
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
        define_views(&db);
        for number in 0..EVENTS {
            let user = format!("user {}", number % 5);
            let id = format!("event {number}");
            let event = Event::new("sale")
                .at(Timestamp::from_secs(1_699_990_000 + number as i64 * 60))
                .dim("user", &user)
                .value(number as f64 * 0.1)
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
            if number == EVENTS / 2 {
                db.checkpoint().expect("checkpoints");
            }
        }
        db.sync().expect("syncs");
        let mut files = Vec::new();
        read(&home.path().join("db"), Path::new(""), &mut files);
        files.sort();
        files
    })
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

/// Opens it, asks everything, records, closes, opens again. Errors are fine anywhere; a panic is
/// not, nor is an answer that contradicts another one.
pub fn exercise(root: &Path) -> Result<()> {
    let db = options().must_exist().open(root)?;
    let totals = agree(&db)?;
    db.record(&Event::new("sale").dim("user", "new").value(1.0))?;
    assert_eq!(agree(&db)?, totals + 1, "a record counts once");
    db.close()?;
    let db = options().must_exist().open(root)?;
    assert_eq!(agree(&db)?, totals + 1, "reopening changes nothing");
    Ok(())
}

/// Every event of the template is in both views or in none; gives how many are.
fn agree(db: &Db) -> Result<u64> {
    let all = db.query("all")?.totals()?;
    let by_user = db.query("by_user")?;
    let rows = by_user.rows()?.collect::<Result<Vec<_>>>()?;
    assert_eq!(rows.len() as u64, by_user.key_count()?);
    assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), all.count);
    assert_eq!(by_user.totals()?.summary(), all.summary());
    for row in &rows {
        let key: Vec<&str> = row.key.iter().map(String::as_str).collect();
        assert_eq!(by_user.get(&key)?.as_ref(), Some(row));
    }
    db.query("all")?.buckets(&[], Grain::Hour)?;
    Ok(all.count)
}
