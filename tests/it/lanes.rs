//! Events that limits let through come into the log by lanes where threads meet; nobody can tell, but by their order.

use crate::directory::{NOW, contents, crash_image, options};
use crate::limits::{allowed, call, denied, minute};
use quipu::simulation::{SimulatedDisk, Stepped, Survival};
use quipu::{
    Cursor, Db, Depth, Durability, ErrorKind, Event, Grain, Keep, Limiter, Options, Policy,
    ReadOnlyDb, Repair, TestClock, Timestamp, Upto, View,
};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

const AREA_BYTES: usize = 1_600;
/// So many events come before the first one that has a lane.
const WARM: u64 = 3;

/// With lanes to each group that could have some, and areas of [`AREA_BYTES`] in the stage.
fn laned() -> Options {
    unsynced().tiny_segments(64 << 10)
}

/// Nothing is brought in because time goes by.
fn unsynced() -> Options {
    options().durability(Durability::Memory)
}

fn view() -> View {
    View::new("calls").by(["key"]).only_events(["call"]).grain(Grain::Second, Keep::Last(62))
}

/// In a thread of its own: four that come one after the other have a lane each.
fn elsewhere<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

/// A limiter whose next event comes through a lane.
fn limiter(db: &Db, most: u64) -> Limiter {
    if db.query("calls").is_err() {
        db.define(view()).unwrap();
    }
    db.set_policy(Policy::new("calls").at_most("calls", most, minute())).unwrap();
    let limiter = db.limiter("calls").unwrap();
    for _ in 0..WARM {
        // It is told which view limits ask, and a group is brought in behind which there are lanes.
        allowed(limiter.check_and_record(&call("first")));
        count(db);
    }
    limiter
}

fn count(db: &Db) -> u64 {
    db.query("calls").unwrap().totals().unwrap().count
}

/// Every event of the log: its key, and what it says of its number.
fn log(db: &Db) -> Vec<(String, Option<u64>)> {
    let bundle = serde_json::to_value(db.export(&Cursor::beginning()).unwrap()).unwrap();
    let events = bundle["frames"].as_array().unwrap().iter();
    let events = events.flat_map(|frame| frame["events"].as_array().unwrap());
    let said = |event: &serde_json::Value| {
        let key = event["dims"]["key"].as_str().unwrap().to_owned();
        (key, event["dims"]["n"].as_str().map(|n| n.parse().unwrap()))
    };
    events.map(said).collect()
}

/// The records of the newest group in the areas of a stage: of each its offset and the bytes of its event.
fn staged(dir: &Path) -> Vec<Vec<(usize, usize)>> {
    let bytes = fs::read(dir.join("STAGE")).unwrap();
    let behind = |at: usize| u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap());
    let begin = |area: usize| 64 + area * AREA_BYTES;
    let newest = (0..5).map(|area| behind(begin(area))).max();
    let area = |area: usize| {
        let mut at = begin(area);
        let mut records = Vec::new();
        while at + 16 < begin(area + 1) && Some(behind(at)) == newest {
            let length = usize::from(u16::from_le_bytes(bytes[at + 4..at + 6].try_into().unwrap()));
            if length == 0 {
                break;
            }
            records.push((at, length));
            at += (16 + length).next_multiple_of(8);
        }
        records
    };
    (0..5).map(area).collect()
}

fn numbered<'a>(key: &'a str, n: &'a str) -> Event<'a> {
    call(key).dim("n", n)
}

#[test]
fn what_threads_record_through_lanes_is_there_when_the_process_dies_each_in_its_order() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = laned().open(&dir).unwrap();
    let limiter = limiter(&db, u64::MAX);
    let numbers: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let keys = ["a", "b", "c", "d", "e", "f"];
    std::thread::scope(|scope| {
        for key in keys {
            let (limiter, numbers) = (&limiter, &numbers);
            scope.spawn(move || {
                for n in numbers {
                    allowed(limiter.check_and_record(&numbered(key, n)));
                }
            });
        }
    });
    let position = db.statistics().position;
    assert_eq!(position.get(), db.statistics().events + 2, "a view and a policy");
    let image = root.path().join("image");
    crash_image(&dir, &image);
    for db in [db, laned().open(&image).unwrap()] {
        assert_eq!(count(&db), WARM + 6 * 300);
        let log = log(&db);
        for key in keys {
            let of = log.iter().filter(|(of, _)| of == key).filter_map(|(_, n)| *n);
            assert!(of.eq(0..300), "{key}");
        }
        let dir = db.directory();
        db.close().unwrap();
        assert!(quipu::verify(dir, Depth::Refold, |_| {}).unwrap().is_intact());
    }
}

#[test]
fn a_group_has_lanes_where_threads_meet_and_none_where_one_is_told_a_position() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = laned().open(&dir).unwrap();
    let limiter = limiter(&db, 99);
    let lengths = |dir: &Path| staged(dir).iter().map(Vec::len).collect::<Vec<_>>();
    for n in ["0", "1", "2"] {
        allowed(limiter.check_and_record(&numbered("a", n)));
    }
    let there = lengths(&dir);
    assert_eq!((there[1..].iter().sum::<usize>(), there[1..].iter().max()), (3, Some(&3)));
    assert_eq!(db.statistics().position.get(), 8);
    // Who is told a position is told the one behind what came before.
    let event = numbered("a", "3");
    assert_eq!(db.record(&event).unwrap().position.get(), 9);
    assert_eq!(lengths(&dir)[0], 1);
    // What limits let through joins that, and is told in order, too.
    allowed(limiter.check_and_record(&numbered("a", "4")));
    assert_eq!(db.record(&numbered("a", "5")).unwrap().position.get(), 11);
    assert_eq!(lengths(&dir)[0], 3);
    assert_eq!((db.position().get(), db.statistics().events), (11, 9));
    let image = root.path().join("image");
    crash_image(&dir, &image);
    for db in [db, laned().open(&image).unwrap()] {
        assert_eq!(count(&db), WARM + 6);
        assert!(log(&db)[WARM as usize..].iter().map(|(_, n)| n.unwrap()).eq(0..6));
    }
    // Without threads that meet there are none.
    let dir = root.path().join("alone");
    let db = unsynced().open(&dir).unwrap();
    let limiter = self::limiter(&db, 99);
    (0..9).for_each(|_| _ = allowed(limiter.check_and_record(&call("a"))));
    let bytes = fs::read(dir.join("STAGE")).unwrap();
    let area = u32::from_le_bytes(bytes[40..44].try_into().unwrap()) as usize;
    assert!(bytes[64 + area..].iter().all(|byte| *byte == 0));
}

#[test]
fn readers_see_what_is_in_lanes_and_what_became_of_it_once() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let db = laned().clock(clock.clone()).open(&dir).unwrap();
    let limiter = limiter(&db, u64::MAX);
    let reader = ReadOnlyDb::open(&dir).unwrap();
    let seen = |reader: &ReadOnlyDb| reader.query("calls").unwrap().totals().unwrap().count;
    let mut recorded = WARM;
    for step in 0..60_u64 {
        for n in 0..step % 11 {
            // Some are alike, some have their dimensions the other way round, and some come late.
            let n = (n % 3).to_string();
            let event = match step % 3 {
                0 => numbered("a", &n),
                1 => Event::new("call").dim("n", &n).dim("key", "b").measure("m", 0.1),
                _ => call("c").times(3),
            };
            elsewhere(|| allowed(limiter.check_and_record(&event)));
            recorded += if step % 3 == 2 { 3 } else { 1 };
            clock.advance(Duration::from_micros(step % 5));
        }
        match step % 7 {
            0 => drop(db.sync().unwrap()),
            1 => db.checkpoint().unwrap(),
            2 => {
                db.record_with(&numbered("d", "9"), Durability::Memory).unwrap();
                recorded += 1;
            }
            _ => {}
        }
        if step % 2 == 0 {
            let there = db.statistics();
            assert_eq!(reader.refresh().unwrap(), there.position);
            assert_eq!((seen(&reader), reader.statistics().events), (recorded, there.events));
        }
        if step % 5 == 0 {
            let other = ReadOnlyDb::open(&dir).unwrap();
            assert_eq!((seen(&other), other.position()), (recorded, db.statistics().position));
        }
    }
    count(&db);
    for n in 0..5 {
        clock.advance(Duration::from_micros(1));
        elsewhere(|| allowed(limiter.check_and_record(&numbered("z", &n.to_string()))));
    }
    let lengths: Vec<_> = staged(&dir)[1..].iter().map(Vec::len).collect();
    assert_eq!((lengths.iter().sum::<usize>(), lengths.iter().max()), (5, Some(&2)));
    reader.refresh().unwrap();
    assert_eq!(seen(&reader), recorded + 5);
    // Others know events by their positions, which those in lanes have not yet: the backup is without them.
    let taken = reader.backup(&backup, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(taken.position.get(), db.statistics().position.get() - 5);
    assert!(quipu::verify(&backup, Depth::Refold, |_| {}).unwrap().findings.is_empty());
    quipu::restore(
        &backup,
        root.path().join("to"),
        Upto::Everything,
        |_| ControlFlow::Continue(()),
    )
    .unwrap();
    assert_eq!(count(&laned().open(root.path().join("to")).unwrap()), recorded);
    // What was recorded behind them, and told its position, comes with all.
    db.record_with(&numbered("d", "9"), Durability::Memory).unwrap();
    reader.refresh().unwrap();
    let taken = reader.backup(&backup, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(taken.position, db.position());
    let to = root.path().join("again");
    quipu::restore(&backup, &to, Upto::Everything, |_| ControlFlow::Continue(())).unwrap();
    let restored = laned().open(&to).unwrap();
    assert_eq!(count(&restored), recorded + 6);
    let log = log(&restored);
    let last = log.iter().filter(|(key, _)| key == "z").map(|(_, n)| n.unwrap());
    assert!(last.eq(0..5));
}

#[test]
fn a_reader_begins_anew_where_what_it_shows_of_lanes_did_not_come_into_the_log() {
    let root = tempfile::tempdir().unwrap();
    let (dir, image) = (root.path().join("db"), root.path().join("image"));
    let db = laned().open(&dir).unwrap();
    let limiter = limiter(&db, 99);
    allowed(limiter.check_and_record(&numbered("a", "0")));
    crash_image(&dir, &image);
    let reader = ReadOnlyDb::open(&image).unwrap();
    let seen = || reader.query("calls").unwrap().totals().unwrap().count;
    assert_eq!(seen(), WARM + 1);
    // The power went, and the stage with it.
    fs::remove_file(image.join("STAGE")).unwrap();
    let again = laned().open(&image).unwrap();
    let limiter = self::limiter(&again, 99);
    (1..3).for_each(|n| _ = allowed(limiter.check_and_record(&numbered("b", &n.to_string()))));
    again.sync().unwrap();
    reader.refresh().unwrap();
    assert_eq!((seen(), reader.position()), (count(&again), again.position()));
    assert_eq!(reader.query("calls").unwrap().get(&["a"]).unwrap(), None);
}

#[test]
fn an_event_in_a_lane_that_has_a_right_checksum_and_is_none_is_cut_with_those_behind_it() {
    let root = tempfile::tempdir().unwrap();
    let (dir, image) = (root.path().join("db"), root.path().join("image"));
    let db = laned().open(&dir).unwrap();
    let limiter = limiter(&db, 99);
    (0..6).for_each(|n| _ = allowed(limiter.check_and_record(&numbered("a", &n.to_string()))));
    crash_image(&dir, &image);
    let stage = image.join("STAGE");
    let (area, records) =
        staged(&image).into_iter().enumerate().skip(1).find(|(_, r)| !r.is_empty()).unwrap();
    assert_eq!(records.len(), 6);
    let mut bytes = fs::read(&stage).unwrap();
    // The other lanes have some, too: copies of these.
    let other = 64 + (if area == 1 { 2 } else { 1 }) * AREA_BYTES;
    let copied = records[0].0..records[2].0;
    let length = copied.len();
    bytes.copy_within(copied, other);
    let (at, event_bytes) = records[3];
    bytes[at + 16 + 8] |= 0x80;
    crate::forged::stage::seal(&mut bytes, at, event_bytes);
    fs::write(&stage, &bytes).unwrap();
    assert!(length > 0);
    let before = contents(&image);
    let error = laned().open(&image).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Corruption, Some(&*stage)));
    assert_eq!(error.offset(), Some(at as u64), "{error}");
    assert_eq!(ReadOnlyDb::open(&image).unwrap_err().offset(), Some(at as u64));
    assert!(contents(&image) == before);
    let done = quipu::repair(&image, Repair::Apply, |_| {}).unwrap();
    assert_eq!((done.steps.len(), done.records_given_up()), (1, 3), "{done:?}");
    assert!(quipu::verify(&image, Depth::Refold, |_| {}).unwrap().is_intact());
    let db = laned().open(&image).unwrap();
    let numbers: Vec<_> = log(&db)[WARM as usize..].iter().map(|(_, n)| n.unwrap()).collect();
    // By their times, which are one: area by area.
    assert_eq!(numbers, if area == 1 { [0, 1, 2, 0, 1] } else { [0, 1, 0, 1, 2] });
}

#[test]
fn a_limit_is_kept_and_lanes_grow_old_and_full() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let db = laned().clock(clock.clone()).open(&dir).unwrap();
    let limiter = limiter(&db, 99);
    db.set_policy(Policy::new("calls").at_most("calls", 40, minute())).unwrap();
    let text = "x".repeat(1_000);
    for n in 0..60_u32 {
        // Some large ones, some with many dimensions, some behind a pause.
        let names: Vec<String> = (0..28).map(|part| format!("part{n}of{part}")).collect();
        let event = match n % 4 {
            0 => call("a").dim("text", &text),
            1 => names.iter().fold(call("a"), |event, name| event.dim(name, "x")),
            2 => names.iter().fold(call("a"), |event, name| event.measure(name, 1.0)),
            _ => call("a"),
        };
        if n % 5 == 0 {
            clock.advance(Duration::from_millis(101));
        }
        let verdict = limiter.check_and_record(&event);
        if n < 40 {
            allowed(verdict);
        } else {
            assert_eq!(denied(verdict).used, 40);
        }
    }
    let image = root.path().join("image");
    crash_image(&dir, &image);
    for db in [db, laned().open(&image).unwrap()] {
        assert_eq!(count(&db), WARM + 40);
        assert_eq!(log(&db).len() as u64, WARM + 40);
    }
}

/// The areas of a stage are not read in one instant: what was shown of one may be overwritten in it, when another one
/// still has what it had.
#[test]
fn a_reader_does_not_mix_what_areas_had_with_what_they_have() {
    let root = tempfile::tempdir().unwrap();
    let (dir, image) = (root.path().join("db"), root.path().join("image"));
    let db = laned().open(&dir).unwrap();
    let limiter = limiter(&db, 99);
    let one = |n: u64| {
        elsewhere(|| allowed(limiter.check_and_record(&numbered("a", &n.to_string()))));
    };
    (0..4).for_each(one);
    crash_image(&dir, &image);
    let reader = ReadOnlyDb::open(&image).unwrap();
    let seen = || reader.query("calls").unwrap().totals().unwrap().count;
    assert_eq!((seen(), reader.position()), (WARM + 4, db.statistics().position));
    // The next group is begun in one area, or more of them.
    let former = fs::read(image.join("STAGE")).unwrap();
    let position = db.position();
    (4..6).for_each(one);
    let present = fs::read(dir.join("STAGE")).unwrap();
    for area in 0..5 {
        let at = 64 + area * AREA_BYTES;
        let mut mixed = former.clone();
        mixed[at..at + AREA_BYTES].copy_from_slice(&present[at..at + AREA_BYTES]);
        fs::write(image.join("STAGE"), &mixed).unwrap();
        reader.refresh().unwrap();
    }
    crash_image(&dir, &image);
    assert_eq!(reader.refresh().unwrap(), position.get().checked_add(2).unwrap().into());
    assert_eq!((seen(), reader.statistics().events), (WARM + 6, WARM + 6));
}

#[test]
fn a_position_is_that_of_all_that_came_before_it_also_through_lanes() {
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let db = laned().clock(clock.clone()).open(root.path().join("db")).unwrap();
    let limiter = limiter(&db, 99);
    let record =
        |n: u64| elsewhere(|| allowed(limiter.check_and_record(&numbered("a", &n.to_string()))));
    clock.advance(Duration::from_micros(9));
    record(0);
    let (cursor, position) = (db.cursor(), db.position());
    // The clock is set back by little.
    clock.set(Timestamp::from_secs(NOW));
    record(1);
    db.wait_durable(db.position()).unwrap();
    assert_eq!(db.position().get(), position.get() + 1);
    let bundle = serde_json::to_value(db.export(&cursor).unwrap()).unwrap();
    let events = bundle["frames"].as_array().unwrap().iter();
    let numbers = events.flat_map(|frame| frame["events"].as_array().unwrap());
    let numbers: Vec<_> = numbers.map(|event| event["dims"]["n"].as_str().unwrap()).collect();
    assert_eq!(numbers, ["1"]);
}

#[test]
fn a_view_that_lanes_asked_leaves_with_its_rows_when_it_is_dropped() {
    let root = tempfile::tempdir().unwrap();
    let db = laned().open(root.path().join("db")).unwrap();
    let limiter = limiter(&db, 99);
    for n in 0..4 {
        elsewhere(|| allowed(limiter.check_and_record(&numbered("a", &n.to_string()))));
    }
    db.checkpoint().unwrap();
    drop(limiter);
    db.remove_policy("calls").unwrap();
    db.drop_view("calls").unwrap();
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    let dir = db.directory();
    db.close().unwrap();
    let report = quipu::verify(dir, Depth::Refold, |_| {}).unwrap();
    assert!(report.is_intact());
    assert_eq!(report.rows, 1, "the catalog's: {report:?}");
}

#[test]
fn what_many_columns_take_goes_into_one_frame_at_an_opening_as_well() {
    let root = tempfile::tempdir().unwrap();
    let (dir, image) = (root.path().join("db"), root.path().join("image"));
    let db = unsynced().tiny_segments(1 << 20).open(&dir).unwrap();
    let limiter = limiter(&db, 999);
    for n in 0..40 {
        let names: Vec<String> = (0..20).map(|part| format!("d{}", n * 20 + part)).collect();
        let event = names.iter().fold(call("a"), |event, name| event.dim(name, "x"));
        elsewhere(|| allowed(limiter.check_and_record(&event)));
        fs::remove_dir_all(&image).ok();
        crash_image(&dir, &image);
        let again = laned().open(&image).unwrap();
        assert_eq!(count(&again), WARM + n + 1);
        let bundle = serde_json::to_value(again.export(&Cursor::beginning()).unwrap()).unwrap();
        let staged = staged(&dir)[1..].iter().map(Vec::len).sum::<usize>();
        if staged > 1 {
            let last = bundle["frames"].as_array().unwrap().last().unwrap();
            assert_eq!(last["events"].as_array().unwrap().len(), staged);
        }
    }
}

#[test]
fn what_lanes_take_has_room_in_the_log_when_the_disk_is_full() {
    for (bytes, length) in [(4 << 10, 150), (6 << 10, 900), (8 << 10, 900), (9 << 10, 700)] {
        let disk = SimulatedDisk::new(1);
        let open = |disk: &SimulatedDisk| {
            Stepped::open(unsynced().tiny_segments(bytes), disk, "/quipu").unwrap()
        };
        let engine = open(&disk);
        let db = engine.db();
        let limiter = limiter(db, u64::MAX);
        disk.set_capacity(Some(disk.allocated()));
        let text = "x".repeat(length);
        let mut recorded = WARM;
        let error = loop {
            // Texts that are new take room in the log; and each comes through another lane.
            let (n, text) = (recorded.to_string(), format!("{recorded}{text}"));
            let event = numbered("a", &n).dim("text", &text);
            match elsewhere(|| limiter.check_and_record(&event)) {
                Ok(verdict) => assert!(verdict.is_allowed()),
                Err(error) => break error,
            }
            recorded += 1;
        };
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        assert!(recorded > WARM, "{recorded}");
        let killed = disk.kill();
        killed.set_capacity(None);
        db.sync().unwrap();
        let cut = disk.power_cut(Survival::Some(3));
        cut.set_capacity(None);
        for db in [db, open(&killed).db(), open(&cut).db()] {
            assert_eq!(count(db), recorded, "{bytes}");
        }
    }
}

#[test]
fn who_is_late_behind_what_came_through_lanes_is_told() {
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let db = laned().clock(clock.clone()).open(root.path().join("db")).unwrap();
    db.define(View::new("hours").grain(Grain::Hour, Keep::Last(2))).unwrap();
    let limiter = limiter(&db, 99);
    clock.set(Timestamp::from_secs(NOW + 5 * 3_600));
    allowed(limiter.check_and_record(&call("first")));
    let record = |hours: i64| {
        let event = Event::new("other").at(Timestamp::from_secs(NOW + hours * 3_600));
        db.record(&event).unwrap().late
    };
    assert_eq!([3, 5, 4, 0].map(record), [true, false, false, true]);
    assert_eq!(db.statistics().late, 2);
}
