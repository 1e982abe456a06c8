//! Backups, restored directories, readers and repairs together: what one of them leaves is what the
//! others find.

use crate::directory::{contents, crash_image, options, segments};
use quipu::{
    Db, Depth, ErrorKind, Event, Grain, Keep, Meaning, Position, Progress, ReadOnlyDb, Repair,
    Timestamp, Upto, View, restore,
};
use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

fn quietly(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn by_user() -> View {
    View::new("by_user").by(["user"]).stats("value").grain(Grain::Hour, Keep::All)
}

/// Records batches of ten events each; batch `n` has the values from `10 n` on.
fn record(db: &Db, batches: Range<u64>) {
    for batch in batches {
        let mut events = db.batch();
        for n in batch * 10..batch * 10 + 10 {
            let user = format!("user {}", n % 7);
            let at = Timestamp::from_secs(1_600_000_000 + n as i64 * 600);
            let id = format!("id {n}");
            events
                .push(&Event::new("e").at(at).dim("user", &user).value(n as f64).id(&id))
                .unwrap();
        }
        db.record_batch(&mut events).unwrap();
    }
}

/// Events and the sum of their values.
fn sum(db: &Db) -> (u64, f64) {
    let totals = db.query("by_user").unwrap().totals().unwrap();
    (totals.count, totals.summary().unwrap().sum)
}

fn expected(batches: impl IntoIterator<Item = u64>) -> (u64, f64) {
    let values = batches.into_iter().flat_map(|batch| batch * 10..batch * 10 + 10);
    values.fold((0, 0.0), |(count, sum), value| (count + 1, sum + value as f64))
}

/// Overwrites a part of the frame that begins with `position`.
fn damage(segment: &Path, position: u64) {
    let mut bytes = fs::read(segment).unwrap();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let frame = (64..bytes.len() - 56)
        .step_by(8)
        .find(|at| bytes[*at..].starts_with(b"QFR1") && word(at + 24) == position)
        .unwrap();
    bytes[frame + 60..frame + 64].fill(0xee);
    fs::write(segment, bytes).unwrap();
}

/// A directory without snapshot, of which a repair has given up batch 5: the positions 52 to 61, for
/// the definition has the first one. Twelve batches are in it, and one behind.
fn with_a_hole(root: &Path, checkpointed: Option<u64>) -> PathBuf {
    let (live, image) = (root.join("live"), root.join("image"));
    let db = options().open(&live).unwrap();
    db.define(by_user()).unwrap();
    let middle = checkpointed.unwrap_or(0);
    record(&db, 0..middle);
    if checkpointed.is_some() {
        db.checkpoint().unwrap();
    }
    record(&db, middle..12);
    db.sync().unwrap();
    record(&db, 12..13);
    crash_image(&live, &image);
    drop(db);
    damage(&segments(&image)[0], 52);
    let done = quipu::repair(&image, Repair::Apply, |_| {}).unwrap();
    assert_eq!(done.records_given_up(), 10);
    image
}

#[test]
fn a_backup_and_a_restore_that_was_interrupted_are_not_verified_and_not_repaired() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().open(&dir).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..5);
    db.backup(&backup, quietly).unwrap();
    let half = root.path().join("half");
    let mut calls = 0;
    let stopped = restore(&backup, &half, Upto::Everything, |_| {
        calls += 1;
        if calls > 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Stopped);
    for (place, word) in [(backup, "backup"), (half, "restore")] {
        let before = contents(&place);
        let verified = quipu::verify(&place, Depth::Refold, |_| {});
        let error = verified.map(|report| format!("{report:?}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotQuipu, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        for mode in [Repair::DryRun, Repair::Apply] {
            let error = quipu::repair(&place, mode, |_| {}).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotQuipu, "{error}");
        }
        assert!(contents(&place) == before);
    }
}

