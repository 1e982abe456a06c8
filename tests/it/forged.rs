//! Files whose checksums are right and whose content cannot be: refused, and left as they were.
//!
//! What the fuzz targets `catalog`, `records`, `segments` and `snapshot_rows` are about; what they
//! found stands here by itself.

#[path = "../forge/catalog.rs"]
mod catalog;
#[path = "../forge/log.rs"]
#[allow(unreachable_pub, dead_code, reason = "the fuzz targets use all of it")]
mod log;
#[path = "../forge/stage.rs"]
#[allow(unreachable_pub, reason = "the fuzz targets use it, too")]
pub(crate) mod stage;
#[path = "../forge/store.rs"]
#[allow(unreachable_pub, dead_code, reason = "the fuzz targets use all of it")]
pub(crate) mod store;

use crate::directory;
use catalog::{Catalog, Filled};
use log::{Frame, frames, kind};
use quipu::{Db, Depth, Error, ErrorKind, Event, Options, Policy, Retention, View};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn options() -> Options {
    Options::new().segment_bytes(64 << 10).checkpoint_every(Duration::from_hours(1))
}

fn record(db: &Db, events: u64) {
    for number in 0..events {
        let user = format!("user{}", number % 3);
        db.record(&Event::new("e").dim("user", &user).value(1.0)).unwrap();
    }
}

/// A closed directory with two views and 20 events, of which the log has the last ones only: it
/// cannot make up for the snapshot.
fn closed(root: &Path) -> PathBuf {
    let dir = root.join("db");
    let db = options().open(&dir).unwrap();
    db.define(View::new("all")).unwrap();
    db.define(View::new("by_user").by(["user"]).stats("value")).unwrap();
    record(&db, 15);
    db.close().unwrap();
    drop(db);
    let db = options().retention(Retention::Recovery).open(&dir).unwrap();
    record(&db, 5);
    db.close().unwrap();
    assert!(!dir.join("log/0000000001.qlog").exists());
    dir
}

/// What the opening refuses, having changed nothing.
#[track_caller]
fn refused(dir: &Path, what: &str) -> Error {
    let error = directory::refused(dir, || options().open(dir));
    assert!(error.path().is_some(), "{what}: {error}");
    error
}

type Edit = fn(&mut Catalog);

#[test]
fn a_catalog_that_contradicts_itself_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let dir = closed(root.path());
    let path = dir.join("state.redb");
    let state = fs::read(&path).unwrap();
    let good = Catalog::read(&state);
    assert_eq!((good.position, good.events, good.next_view), (22, 20, 2));
    let changes: &[(&str, Edit)] = &[
        ("the last position there can be", |c| c.position = u64::MAX),
        ("the last number of a checkpoint", |c| c.sequence = u64::MAX),
        ("more events than positions", |c| c.events = c.position + 1),
        ("events beyond counting", |c| c.events = u64::MAX),
        ("more late events than positions", |c| c.late = c.position + 1),
        ("a view's id twice", |c| c.views[1].0 = c.views[0].0),
        ("a view's name twice", |c| c.views[1].1 = c.views[0].1.clone()),
        ("a view's id that is to be given next", |c| c.next_view = 1),
        ("more than is behind a successor's definition", |c| {
            c.views[1].3 = Filled::Succeeding(0, c.views[1].2 + 1);
        }),
        ("less than nothing in a successor", |c| c.views[1].3 = Filled::Succeeding(2, 1)),
        ("a grain that is not kept is known", |c| c.views[0].5 = Some(vec![0])),
        ("the last id of a view", |c| c.views[1].0 = u32::MAX),
        ("a live view to be purged", |c| c.purge.push(1)),
        ("a dropped view whose id is to be given next", |c| c.purge.push(2)),
        ("a view defined later", |c| c.views[0].2 = c.position + 1),
        ("more rows than positions", |c| c.views[1].4 = c.position + 1),
        ("rows beyond counting", |c| c.views[1].4 = u64::MAX),
        ("a policy without constraints", |c| c.policies.push(Policy::new("none"))),
        ("policies out of order", |c| {
            let of = |name| Policy::new(name).cooldown("all", Duration::from_secs(1));
            c.policies = vec![of("b"), of("a")];
        }),
        ("a first segment behind the last", |c| c.first_segment = c.segment + 1),
    ];
    for (what, change) in changes {
        let mut catalog = good.clone();
        change(&mut catalog);
        fs::write(&path, catalog.write(&state)).unwrap();
        let error = refused(&dir, what);
        assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
        assert_eq!(error.path(), Some(path.as_path()), "{what}");
    }
    // By itself it is right.
    fs::write(&path, good.write(&state)).unwrap();
    let db = options().open(&dir).unwrap();
    assert_eq!(db.query("by_user").unwrap().totals().unwrap().count, 20);
}

/// It goes on behind segments that nobody has; what was recorded next would not be found again.
#[test]
fn a_catalog_that_names_a_segment_that_was_never_made_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let dir = closed(root.path());
    let path = dir.join("state.redb");
    let state = fs::read(&path).unwrap();
    for segment in [4, 9, u64::MAX] {
        for offset in [0, 64] {
            let catalog = Catalog { segment, offset, ..Catalog::read(&state) };
            fs::write(&path, catalog.write(&state)).unwrap();
            let error = refused(&dir, &format!("segment {segment}, offset {offset}"));
            assert_eq!(error.kind(), ErrorKind::MissingSegment, "{error}");
        }
    }
}

/// A snapshot beside an older copy of its log: every frame is valid, and the last ones are gone.
#[test]
fn a_sealed_log_that_ends_before_the_snapshot_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let dir = closed(root.path());
    let path = dir.join("state.redb");
    let state = fs::read(&path).unwrap();
    let good = Catalog::read(&state);
    let catalog = Catalog { position: good.position + 5, ..good };
    fs::write(&path, catalog.write(&state)).unwrap();
    let error = refused(&dir, "positions that the log has not");
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    assert!(error.to_string().contains("27"), "{error}");
}

/// A directory as a kill leaves it, without a snapshot, and its segment.
fn killed(root: &Path) -> (PathBuf, PathBuf, Vec<u8>) {
    let (live, dir) = (root.join("live"), root.join("db"));
    let db = options().open(&live).unwrap();
    db.define(View::new("all")).unwrap();
    record(&db, 5);
    db.sync().unwrap();
    crate::model::copy_dir(&live, &dir);
    let segment = dir.join("log/0000000001.qlog");
    let bytes = fs::read(&segment).unwrap();
    (dir, segment, bytes)
}

/// The segment with one frame more behind its last record.
fn with_frame(segment: &[u8], frame: Frame) -> Vec<u8> {
    let mut segment = segment.to_vec();
    let records = |range: &std::ops::Range<usize>| Frame::read(&segment[range.clone()]).records > 0;
    let last = frames(&segment).into_iter().rfind(records).unwrap();
    let bytes = Frame { position: log::next_position(&segment[..last.end]), ..frame }.bytes();
    segment[last.end..].fill(0);
    segment[last.end..last.end + bytes.len()].copy_from_slice(&bytes);
    log::mend(&mut segment);
    segment
}

fn control(bytes: impl bincode::Encode) -> Frame {
    let body = bincode::encode_to_vec(bytes, bincode::config::standard()).unwrap();
    Frame { kind: kind::CONTROL, records: 1, body, ..Frame::default() }
}

#[test]
fn an_id_of_a_view_that_cannot_be_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (dir, path, segment) = killed(root.path());
    let defined = |id: u32, view: View| control((0_u32, id, view));
    let cases = [
        ("the same id", defined(0, View::new("other"))),
        ("the last id there can be", defined(u32::MAX, View::new("other"))),
        ("a view without a name", defined(1, View::new(""))),
        ("the last id is dropped", control((1_u32, u32::MAX))),
        (
            "a successor's id is that of the view",
            control((7_u32, 0_u32, View::new("all").by(["a"]))),
        ),
        ("a successor without a name", control((7_u32, 1_u32, View::new("")))),
        ("the last id is a successor's", control((8_u32, u32::MAX))),
        ("a converted one's id is that of the view", control((9_u32, 0_u32, View::new("all")))),
        ("the last id is a converted one's", control((9_u32, u32::MAX, View::new("all")))),
    ];
    for (what, frame) in cases {
        fs::write(&path, with_frame(&segment, frame)).unwrap();
        let error = refused(&dir, what);
        assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
        assert_eq!(error.path(), Some(path.as_path()), "{what}: {error}");
        assert!(error.offset().is_some(), "{what}: {error}");
    }
    fs::write(&path, with_frame(&segment, defined(1, View::new("other")))).unwrap();
    assert_eq!(options().open(&dir).unwrap().views().unwrap().len(), 2);
}

#[test]
fn a_frame_that_counts_records_it_cannot_have_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (dir, path, segment) = killed(root.path());
    let cases = [
        ("a witness", Frame { kind: kind::WITNESS, records: 1, ..Frame::default() }),
        ("a seal", Frame { kind: kind::SEAL, records: u32::MAX, ..Frame::default() }),
        ("a control record", Frame { records: 2, ..control((3_u32, 0_u32)) }),
        ("a control record", Frame { records: 0, ..control((3_u32, 0_u32)) }),
    ];
    for (what, frame) in cases {
        fs::write(&path, with_frame(&segment, frame)).unwrap();
        let error = refused(&dir, what);
        assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
    }
}

/// Its rows would have been deleted as those of the dropped one.
/// Only of what is up to it can a frame say that it was synced.
#[test]
fn a_frame_that_says_more_was_synced_than_there_was_says_no_more_than_that() {
    let root = tempfile::tempdir().unwrap();
    let (dir, path, segment) = killed(root.path());
    for synced in [u64::MAX, u64::MAX - 1, 7] {
        let witness = Frame { kind: kind::WITNESS, synced, ..Frame::default() };
        fs::write(&path, with_frame(&segment, witness)).unwrap();
        let report = quipu::verify(&dir, Depth::Refold, |_| {}).unwrap();
        assert!(report.is_intact(), "{synced}: {report:?}");
        assert_eq!(report.last_position.get(), 6, "{synced}");
        let other = root.path().join(synced.to_string());
        crate::model::copy_dir(&dir, &other);
        let db = options().open(&other).unwrap();
        assert_eq!(db.query("all").unwrap().totals().unwrap().count, 5, "{synced}");
        record(&db, 1);
        assert_eq!(db.position().get(), 7, "{synced}");
    }
}

#[test]
fn a_drop_of_what_nobody_defined_takes_no_later_view_with_it() {
    let root = tempfile::tempdir().unwrap();
    let (dir, path, segment) = killed(root.path());
    fs::write(&path, with_frame(&segment, control((1_u32, 1_u32)))).unwrap();
    let db = options().open(&dir).unwrap();
    db.define(View::new("by_user").by(["user"])).unwrap();
    record(&db, 6);
    db.close().unwrap();
    drop(db);
    let db = options().open(&dir).unwrap();
    assert_eq!(db.query("by_user").unwrap().totals().unwrap().count, 6);
    assert_eq!(db.query("all").unwrap().totals().unwrap().count, 11);
}

/// Two views of one name answered in turn.
#[test]
fn a_name_that_is_defined_twice_is_the_later_view() {
    let root = tempfile::tempdir().unwrap();
    let (dir, path, segment) = killed(root.path());
    let frame = control((0_u32, 1_u32, View::new("all").by(["user"])));
    fs::write(&path, with_frame(&segment, frame)).unwrap();
    for events in [3, 6] {
        let db = options().open(&dir).unwrap();
        record(&db, 3);
        assert_eq!(db.views().unwrap().len(), 1);
        let rows: Vec<_> = db.query("all").unwrap().rows().unwrap().map(Result::unwrap).collect();
        assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), events);
        assert_eq!(rows[0].key, ["user0"]);
        db.close().unwrap();
    }
}

/// What it was to succeed is not there: it is a view that is being filled.
#[test]
fn a_successor_of_nobody_is_filled_like_any_view() {
    let root = tempfile::tempdir().unwrap();
    let (dir, path, segment) = killed(root.path());
    let view = |key: &str| View::new("other").by([key]);
    fs::write(&path, with_frame(&segment, control((7_u32, 1_u32, view("user"))))).unwrap();
    let go_on = |_| std::ops::ControlFlow::Continue(());
    for way in ["backfill", "the same", "another"] {
        let copy = root.path().join(way);
        crate::model::copy_dir(&dir, &copy);
        let db = options().open(&copy).unwrap();
        let status = db.views().unwrap().pop().unwrap();
        assert_eq!((status.view, status.successor), (view("user"), None));
        assert!(status.backfill.is_some());
        assert_eq!(db.query("other").unwrap_err().kind(), ErrorKind::Backfilling);
        match way {
            "backfill" => assert_eq!(db.backfill("other", go_on).unwrap(), 5),
            "the same" => assert!(db.redefine(view("user"), go_on).unwrap()),
            _ => assert!(db.redefine(view("event"), go_on).unwrap()),
        }
        assert_eq!(db.query("other").unwrap().totals().unwrap().count, 5);
        db.close().unwrap();
        drop(db);
        let db = options().open(&copy).unwrap();
        assert_eq!((db.views().unwrap().len(), db.views().unwrap()[1].backfill), (2, None));
        assert_eq!(db.query("other").unwrap().totals().unwrap().count, 5);
        db.define(View::new("next")).unwrap();
    }
    // That it is complete is no record of a view that is known.
    fs::write(&path, with_frame(&segment, control((8_u32, 1_u32)))).unwrap();
    let db = options().open(&dir).unwrap();
    assert_eq!(db.views().unwrap().len(), 1);
    db.define(view("user")).unwrap();
    assert_eq!(db.query("other").unwrap().totals().unwrap().count, 0);
}
