//! Which store a directory has, how it goes over to another one, and who is given it to look at.

use super::{Planned, answers, begin, damage, define, failure, go_on, record, tamper};
use crate::directory::{contents, options, record_alone, segments};
use quipu::storage::{MemoryStorage, Table};
use quipu::{
    Db, Dedup, Depth, ErrorKind, Event, Meaning, OnInvalid, ReadOnlyDb, Repair, Retention, Upto,
};
use std::path::Path;

#[test]
fn a_store_that_has_forgotten_is_made_again_from_the_log_or_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    for (retention, comes_back) in [(Retention::KeepAll, true), (Retention::Recovery, false)] {
        let path = root.path().join(format!("db {comes_back}"));
        // Each opening has an empty store.
        let with = || {
            let memory = |_: &Path| Ok(MemoryStorage::default());
            options().retention(retention).storage("memory", memory)
        };
        let db = with().open(&path).unwrap();
        define(&db);
        for n in 0..200 {
            let user = format!("u{n:03}");
            record_alone(&db, Event::new("e").dim("user", &user).payload(&[1; 1_000]));
        }
        db.checkpoint().unwrap();
        let expected = answers(&db);
        db.close().unwrap();
        assert_eq!(path.join("log/0000000001.qlog").exists(), comes_back);
        let before = contents(&path);
        match with().open(&path) {
            Ok(db) => {
                assert!(comes_back);
                assert_eq!(answers(&db), expected);
                assert!(db.is_dirty(), "what was replayed is in no store");
            }
            Err(error) => {
                assert!(!comes_back);
                assert_eq!(error.kind(), ErrorKind::MissingSegment, "{error}");
                assert!(contents(&path) == before, "not a byte was changed");
            }
        }
    }
}

#[test]
fn a_directory_is_opened_with_the_store_it_has() {
    let (root, path, store, db) = begin(0..10);
    let expected = answers(&db);
    db.close().unwrap();
    let before = contents(&path);
    let other = || options().storage("other", |_| Ok(MemoryStorage::default()));
    for (opened, has, asked) in
        [(options().open(&path), "planned", "redb"), (other().open(&path), "planned", "other")]
    {
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageConflict);
        let told = error.to_string();
        assert!(told.contains(has) && told.contains(asked), "{told}");
        assert!(told.contains("change_storage"), "what can be done: {told}");
    }
    for error in [
        ReadOnlyDb::open(&path).unwrap_err(),
        store.options().open_read_only(&path).unwrap_err(),
        quipu::verify(&path, Depth::Refold, |_| {}).unwrap_err(),
        quipu::repair(&path, Repair::Apply, |_| {}).unwrap_err(),
        other().verify(&path, Depth::Refold, |_| {}).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::StorageConflict, "{error}");
        assert!(error.to_string().contains("planned"), "{error}");
    }
    assert!(contents(&path) == before, "not a byte was changed");
    assert_eq!(answers(&store.options().open(&path).unwrap()), expected);
    // The other way round.
    let path = root.path().join("redb");
    let db = options().open(&path).unwrap();
    define(&db);
    db.close().unwrap();
    let before = contents(&path);
    assert_eq!(store.options().open(&path).unwrap_err().kind(), ErrorKind::StorageConflict);
    assert!(contents(&path) == before, "not a byte was changed");
    for name in ["", "redb", "Planned", "a name", "ninechars", "ä"] {
        let path = root.path().join("never made");
        let named = options().storage(name, |_| Ok(MemoryStorage::default()));
        let error = named.open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{name:?}: {error}");
        assert!(!path.exists(), "{name:?}");
    }
}

/// A copy of a directory that is closed.
fn copy_of(from: &Path, to: &Path) {
    for (path, content) in contents(from) {
        let path = to.join(path.strip_prefix(from).unwrap());
        match content {
            None => std::fs::create_dir_all(path).unwrap(),
            Some(bytes) => {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
}

#[test]
fn a_directory_goes_over_to_another_store_when_it_is_told_to() {
    let root = tempfile::tempdir().unwrap();
    for retention in [Retention::KeepAll, Retention::Recovery] {
        let keeps = retention == Retention::KeepAll;
        let path = root.path().join(format!("db {keeps}"));
        let (a, b) = (Planned::default(), MemoryStorage::default());
        let with_a = || a.options().retention(retention).dedup(Dedup::Last(100));
        let with_redb = || options().retention(retention);
        let with_b = || {
            let b = b.clone();
            options().retention(retention).storage("b", move |_| Ok(b.clone()))
        };
        let db = with_redb().dedup(Dedup::Last(100)).open(&path).unwrap();
        define(&db);
        let more = |db: &Db| {
            for n in 0..150 {
                let (user, id) = (format!("u{n:03}"), format!("{} {n}", db.position()));
                let event = Event::new("e").dim("user", &user).value(0.5).id(&id);
                record_alone(db, event.payload(&[1; 1_000]));
            }
            db.checkpoint().unwrap();
        };
        more(&db);
        let mut expected = answers(&db);
        db.close().unwrap();

        // From redb's the rows are copied, whatever the log has.
        let db = with_a().change_storage().open(&path).unwrap();
        assert_eq!(db.statistics().replayed, 0);
        assert!(!db.is_dirty());
        assert_eq!(answers(&db), expected);
        assert!(!path.join("state.redb").exists());
        let quarantine = contents(&path.join("quarantine"));
        assert!(quarantine.keys().any(|path| path.ends_with("state.redb")), "it is put aside");
        more(&db);
        expected = answers(&db);
        db.close().unwrap();
        assert_eq!(answers(&with_a().change_storage().open(&path).unwrap()), expected);
        assert_eq!(with_redb().open(&path).unwrap_err().kind(), ErrorKind::StorageConflict);

        // Out of a store that is not there the log is all there is.
        let before = contents(&path);
        match with_b().change_storage().open(&path) {
            Ok(db) => {
                assert!(keeps);
                assert_eq!(answers(&db), expected);
                more(&db);
                expected = answers(&db);
                db.close().unwrap();
                assert_eq!(answers(&with_b().open(&path).unwrap()), expected);
            }
            Err(error) => {
                assert!(!keeps);
                assert_eq!(error.kind(), ErrorKind::StorageConflict);
                assert!(error.to_string().contains("backup"), "what can be done: {error}");
                assert!(contents(&path) == before, "not a byte was changed");
                assert_eq!(
                    with_redb().change_storage().open(&path).unwrap_err().kind(),
                    error.kind()
                );
                // The way that it says.
                let (backup, again) = (root.path().join("backup"), root.path().join("again"));
                let db = with_a().open(&path).unwrap();
                db.backup(&backup, go_on).unwrap();
                quipu::restore(&backup, &again, Upto::Everything, go_on).unwrap();
                assert_eq!(answers(&with_redb().open(&again).unwrap()), expected);
                assert_eq!(answers(&with_b().change_storage().open(&again).unwrap()), expected);
                continue;
            }
        }
        // Back to the first one, which still has what it had then: not believed.
        let db = with_a().change_storage().open(&path).unwrap();
        assert_eq!(answers(&db), expected);
        db.close().unwrap();
        let db = with_redb().change_storage().open(&path).unwrap();
        assert_eq!(answers(&db), expected);
        more(&db);
        expected = answers(&db);
        db.close().unwrap();
        assert_eq!(answers(&with_redb().open(&path).unwrap()), expected);
        assert!(quipu::verify(&path, Depth::Refold, |_| {}).unwrap().is_intact());
    }
}

#[test]
fn a_damaged_snapshot_goes_over_by_way_of_the_log() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().open(&path).unwrap();
    define(&db);
    record(&db, 0..50);
    let expected = answers(&db);
    db.close().unwrap();
    std::fs::write(path.join("state.redb"), "not what it was").unwrap();
    let store = Planned::default();
    let db = store.options().change_storage().open(&path).unwrap();
    assert_eq!(db.statistics().snapshots_rebuilt, 1);
    assert_eq!(answers(&db), expected);
    db.close().unwrap();
    let quarantine = contents(&path.join("quarantine"));
    let kept = quarantine.values().flatten().any(|bytes| bytes == b"not what it was");
    assert!(kept && !path.join("state.redb").exists());
    assert_eq!(answers(&store.options().open(&path).unwrap()), expected);
}

#[test]
fn a_change_of_stores_that_fails_leaves_the_one_there_was() {
    let root = tempfile::tempdir().unwrap();
    let original = root.path().join("original");
    let db = options().open(&original).unwrap();
    define(&db);
    record(&db, 0..50);
    let expected = answers(&db);
    db.close().unwrap();
    // Rows of an earlier stay, which would count twice.
    let store = Planned::default();
    let earlier = root.path().join("earlier");
    copy_of(&original, &earlier);
    let db = store.options().change_storage().open(&earlier).unwrap();
    record(&db, 40..90);
    db.close().unwrap();
    let left = store.all_rows();
    let mut failed = 0;
    for fails_at in 0.. {
        let path = root.path().join(format!("db {fails_at}"));
        copy_of(&original, &path);
        let store = Planned::default();
        store.put_all(&left);
        let mut calls = 0;
        store.plan(move |_| {
            calls += 1;
            if calls == fails_at + 1 { Err(failure()) } else { Ok(()) }
        });
        let opened = store.options().change_storage().open(&path);
        store.heal();
        if let Err(error) = opened {
            failed += 1;
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            let db = options().open(&path).unwrap();
            assert_eq!(answers(&db), expected, "call {fails_at}");
            db.close().unwrap();
            let db = store.options().change_storage().open(&path).unwrap();
            assert_eq!(answers(&db), expected, "call {fails_at}");
        } else {
            assert_eq!(answers(&opened.unwrap()), expected);
            break;
        }
    }
    assert!(failed > 10, "{failed}");
}

#[test]
fn a_backup_of_a_store_of_ones_own_is_restored_with_redbs() {
    let root = tempfile::tempdir().unwrap();
    let (path, backup) = (root.path().join("db"), root.path().join("backup"));
    let store = Planned::default();
    let db = store.options().retention(Retention::Recovery).open(&path).unwrap();
    define(&db);
    record(&db, 0..50);
    let first = db.backup(&backup, go_on).unwrap();
    assert_eq!(first.position, db.position());
    assert!(quipu::verify(&backup, Depth::Refold, |_| {}).unwrap().is_intact());
    record(&db, 0..70);
    let second = db.backup(&backup, go_on).unwrap();
    assert!(second.bytes > 0 && second.copied_bytes > 0);
    let expected = answers(&db);
    let restored = root.path().join("restored");
    quipu::restore(&backup, &restored, Upto::Everything, go_on).unwrap();
    let reopened = options().open(&restored).unwrap();
    assert_eq!(answers(&reopened), expected);
    reopened.close().unwrap();
    assert!(quipu::verify(&restored, Depth::Refold, |_| {}).unwrap().is_intact());
    // What is damaged is not backed up; the backup before stays.
    damage(&store, "u003");
    assert_eq!(db.backup(&backup, go_on).unwrap_err().kind(), ErrorKind::Corruption);
    let again = root.path().join("again");
    quipu::restore(&backup, &again, Upto::Everything, go_on).unwrap();
    assert_eq!(answers(&options().open(&again).unwrap()), expected);
    drop(db);
}

/// Nothing but the manifest says which store a directory has.
#[test]
fn a_repair_without_the_store_and_the_manifest_says_that_there_may_be_one() {
    let (_root, path, store, db) = begin(0..10);
    for n in 0..200 {
        let user = format!("u{n:03}");
        record_alone(&db, Event::new("e").dim("user", &user).payload(&[1; 1_000]));
    }
    db.close().unwrap();
    let with = || store.options().retention(Retention::Recovery);
    let db = with().open(&path).unwrap();
    db.checkpoint().unwrap();
    let expected = answers(&db);
    db.close().unwrap();
    assert!(!path.join("log/0000000001.qlog").exists(), "the log does not say all");
    std::fs::remove_file(path.join("MANIFEST")).unwrap();
    let plan = quipu::repair(&path, Repair::DryRun, |_| {}).unwrap();
    let told = |step: &quipu::RepairStep| step.what.contains("Options::repair");
    assert!(plan.steps.iter().any(told), "{:?}", plan.steps);
    with().repair(&path, Repair::Apply, |_| {}).unwrap();
    assert_eq!(answers(&with().open(&path).unwrap()), expected);
}

#[test]
fn verify_and_repair_look_at_the_store_that_they_are_given() {
    let (_root, path, store, db) = begin(0..10);
    db.checkpoint().unwrap();
    let events: Vec<Event<'_>> = (0..40).map(|_| Event::new("e").dim("user", "u003")).collect();
    db.record_all(events, OnInvalid::Refuse).unwrap();
    let expected = answers(&db);
    db.close().unwrap();
    let verify = || store.options().verify(&path, Depth::Refold, |_| {}).unwrap();
    let report = verify();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert!(report.views.iter().all(|view| view.refolded && view.series > 0));
    assert_eq!(report.snapshot_position, Some(report.last_position));

    // A flipped bit in the log: mended, the store being as it was.
    let segment = &segments(&path)[0];
    let mut flipped = std::fs::read(segment).unwrap();
    flipped[200] ^= 4;
    std::fs::write(segment, &flipped).unwrap();
    assert!(!verify().is_intact());
    let report = store.options().repair(&path, Repair::Apply, |_| {}).unwrap();
    assert!(report.applied && report.records_given_up() == 0);
    assert!(verify().is_intact());
    assert_eq!(answers(&store.options().open(&path).unwrap()), expected);

    // The manifest is lost: the store says whose directory it is, the caller which store it has.
    std::fs::remove_file(path.join("MANIFEST")).unwrap();
    store.options().repair(&path, Repair::Apply, |_| {}).unwrap();
    assert_eq!(answers(&store.options().open(&path).unwrap()), expected);

    // A series that is missing, and one that is damaged.
    let rows = store.all_rows();
    for gone in [true, false] {
        tamper(&store, |table, key, value| {
            let is_it = table == Table::Series && key.windows(4).any(|w| w == b"u003");
            match (is_it, gone) {
                (true, true) => value.clear(),
                (true, false) => value[12] ^= 1,
                (false, _) => {}
            }
            is_it
        });
        let report = verify();
        assert!(report.damages().count() > 0 && report.damages().all(|f| f.path == path));
        let error = store.options().repair(&path, Repair::Apply, |_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.to_string().contains("planned"), "{error}");
        store.put_all(&rows);
        assert!(verify().is_intact());
    }

    // An empty store, as the errors advise: the log says all.
    let empty = Planned::default();
    assert!(empty.options().verify(&path, Depth::Refold, |_| {}).unwrap().is_intact());
    assert_eq!(answers(&empty.options().open(&path).unwrap()), expected);
    // But not where the first part of it is lost: then the store begins with what there is.
    std::fs::remove_file(&segments(&path)[0]).unwrap();
    let empty = Planned::default();
    let error = empty.options().open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingSegment);
    let report = empty.options().verify(&path, Depth::Refold, |_| {}).unwrap();
    assert!(report.findings.iter().any(|finding| finding.meaning == Meaning::Corruption));
    empty.options().repair(&path, Repair::Apply, |_| {}).unwrap();
    let db = empty.options().open(&path).unwrap();
    assert_eq!(db.query("by_user").unwrap_err().kind(), ErrorKind::UnknownView);
}
