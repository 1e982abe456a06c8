//! An event that is too old for a bucket is said to be late, however it came and whatever waits.

use crate::directory::crash_image;
use proptest::prelude::*;
use quipu::{Db, Event, Grain, ImportOptions, Keep, Options, TestClock, Timestamp, View};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

const HOUR: i64 = 3_600_000_000;
/// 2026-01-01T00:00:00Z.
const BEGIN: i64 = 1_767_225_600_000_000;

fn open(dir: &Path) -> Db {
    let clock = TestClock::at(Timestamp::from_micros(BEGIN + 1_000 * HOUR));
    let view = View::new("by_user").by(["user"]).grain(Grain::Hour, Keep::Last(6));
    let counted = View::new("all").grain(Grain::Day, Keep::Last(3)).stats("value");
    Options::new().clock(clock).view(view).view(counted).open(dir).unwrap()
}

/// The newest bucket seen, and whether one is too far behind it.
#[derive(Default)]
struct Newest(HashMap<(usize, u8), i64>);

impl Newest {
    fn is_late(&mut self, user: u8, micros: i64) -> bool {
        let mut late = false;
        for (view, len, kept) in [(0, HOUR, 6), (1, 24 * HOUR, 3)] {
            let bucket = micros.div_euclid(len);
            let key = if view == 0 { (0, user) } else { (1, 0) };
            let newest = self.0.entry(key).or_insert(bucket);
            *newest = bucket.max(*newest);
            late |= bucket <= *newest - kept;
        }
        late
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_single_event_is_told_whether_it_is_late(
        steps in prop::collection::vec((0_u8..3, -9_i64..9, 0_i64..3_600, 0_u8..30), 1..120),
    ) {
        let root = tempfile::tempdir().unwrap();
        let mut dir = root.path().join("db");
        let mut db = open(&dir);
        let mut newest = Newest::default();
        let (mut present, mut late, mut killed) = (BEGIN, 0_u64, 0);
        for (user, hours, seconds, then) in steps {
            // Mostly forward, now and then far back.
            present += (hours + 3).max(0) * HOUR / 4;
            let back = if hours < -5 { hours * 11 * HOUR } else { hours.min(0) * HOUR / 3 };
            let micros = present + back + seconds * 1_000_000;
            let name = format!("u{user}");
            let event = Event::new("e").dim("user", &name).at(Timestamp::from_micros(micros));
            let expected = newest.is_late(user, micros);
            let told = if then == 1 {
                let mut batch = db.batch();
                batch.push(&event).unwrap();
                db.record_batch(&mut batch).unwrap().late == 1
            } else {
                db.record(&event).unwrap().late
            };
            prop_assert_eq!(told, expected);
            late += u64::from(expected);
            match then {
                2 => _ = db.query("by_user").unwrap().totals().unwrap(),
                3 => db.checkpoint().unwrap(),
                4 | 5 => {
                    if then == 4 {
                        db.close().unwrap();
                    } else {
                        // As after a kill: the log is read again.
                        killed += 1;
                        let image = root.path().join(format!("{killed}"));
                        crash_image(&dir, &image);
                        dir = image;
                    }
                    db = open(&dir);
                    // Of a series that is not in memory it is not known.
                    for user in ["u0", "u1", "u2"] {
                        db.query("by_user").unwrap().get(&[user]).unwrap();
                    }
                    db.query("all").unwrap().get(&[]).unwrap();
                }
                _ => {}
            }
        }
        // What is read from the log again is of series that are not in memory.
        if killed == 0 {
            prop_assert_eq!(db.statistics().late, late);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Batches in which one user has many events one after the other, in one bucket and in several, now
    /// and then at a time that is not known well.
    #[test]
    fn a_batch_is_told_how_many_of_it_are_late(
        batches in prop::collection::vec(
            prop::collection::vec((0_u8..4, 1_usize..20, -9_i64..9, 0_i64..7_200, 0_u8..12), 1..30),
            1..4,
        ),
    ) {
        let root = tempfile::tempdir().unwrap();
        let db = open(&root.path().join("db"));
        let mut newest = Newest::default();
        let mut present = BEGIN;
        // By user: events, and by bucket those that were not late there.
        let mut counts: HashMap<u8, (u64, HashMap<i64, u64>)> = HashMap::new();
        for steps in batches {
            let mut batch = db.batch();
            let mut late = 0;
            for (user, times, hours, apart, then) in steps {
                present += (hours + 3).max(0) * HOUR / 4;
                let back = if hours < -5 { hours * 11 * HOUR } else { hours.min(0) * HOUR / 3 };
                let name = format!("u{user}");
                for nth in 0..times {
                    let micros = present + back + nth as i64 * apart * 100_000;
                    let event = Event::new("e").dim("user", &name).value(0.5);
                    let event = match then {
                        // Within the bucket: half of a minute to both sides of its middle.
                        0 => event.at_about(
                            Timestamp::from_micros(micros.div_euclid(HOUR) * HOUR + HOUR / 2),
                            std::time::Duration::from_secs(30),
                        ),
                        _ => event.at(Timestamp::from_micros(micros)),
                    };
                    batch.push(&event).unwrap();
                    late += u64::from(newest.is_late(user, micros));
                    let bucket = micros.div_euclid(HOUR);
                    let (count, buckets) = counts.entry(user).or_default();
                    *count += 1;
                    if bucket > newest.0[&(0, user)] - 6 {
                        *buckets.entry(bucket).or_default() += 1;
                    }
                }
            }
            prop_assert_eq!(db.record_batch(&mut batch).unwrap().late, late);
        }
        let query = db.query("by_user").unwrap();
        for (user, (count, mut buckets)) in counts {
            let name = format!("u{user}");
            prop_assert_eq!(query.get(&[&name]).unwrap().unwrap().count, count);
            buckets.retain(|bucket, _| *bucket > newest.0[&(0, user)] - 6);
            let found = query.buckets(&[&name], Grain::Hour).unwrap();
            let found = found.iter().map(|b| (b.start.micros() / HOUR, b.count));
            prop_assert_eq!(found.collect::<HashMap<_, _>>(), buckets);
        }
        let all = query.totals().unwrap().count;
        let query = db.query("all").unwrap();
        let row = query.get(&[]).unwrap().unwrap();
        prop_assert_eq!((row.count, row.summary().unwrap().sum), (all, all as f64 / 2.0));
    }
}

fn at(hours: i64) -> Timestamp {
    Timestamp::from_micros(BEGIN + hours * HOUR)
}

/// Records an event by itself, in a batch, and as another replica's; says which of them were told late.
fn told(db: &Db, root: &Path, hours: i64) -> [bool; 3] {
    let event = || Event::new("e").dim("user", "u").at(at(hours));
    let before = db.statistics().late;
    let single = db.record(&event()).unwrap().late;
    let mut batch = db.batch();
    batch.push(&event()).unwrap();
    let batch = db.record_batch(&mut batch).unwrap().late;
    let other = tempfile::tempdir_in(root).unwrap();
    let other =
        Options::new().clock(TestClock::at(at(1_000))).open(other.path().join("db")).unwrap();
    other.record(&event()).unwrap();
    let bundle = other.export(&quipu::Cursor::beginning()).unwrap();
    let imported = db.import_with(&bundle, &ImportOptions::new()).unwrap().late;
    assert_eq!(db.statistics().late - before, u64::from(single) + batch + imported);
    [single, batch == 1, imported == 1]
}

#[test]
fn of_a_series_that_is_not_in_memory_it_is_told_once_that_was_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = open(&dir);
    db.record(&Event::new("e").dim("user", "u").at(at(500))).unwrap();
    assert_eq!(told(&db, root.path(), 400), [true; 3]);
    db.close().unwrap();
    let db = open(&dir);
    // What is stored is not read for it: of what came since, this is the newest.
    assert_eq!(told(&db, root.path(), 400), [false; 3]);
    assert_eq!(told(&db, root.path(), 300), [true; 3], "older than what came since");
    db.query("by_user").unwrap().get(&["u"]).unwrap();
    assert_eq!(told(&db, root.path(), 400), [true; 3]);
    // However it was told, it is in the totals, and in no bucket.
    let query = db.query("by_user").unwrap();
    assert_eq!(query.get(&["u"]).unwrap().unwrap().count, 1 + 4 * 3);
    assert_eq!(query.buckets(&["u"], Grain::Hour).unwrap().len(), 1);
}

#[test]
fn what_only_a_definition_to_come_does_not_keep_is_not_late() {
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(at(1_000));
    let view = |n| View::new("by_user").by(["user"]).grain(Grain::Hour, Keep::Last(n));
    let db = Options::new().clock(clock).view(view(200)).open(root.path().join("db")).unwrap();
    let newest = || db.record(&Event::new("e").dim("user", "u").at(at(500))).unwrap();
    newest();
    let mut asked = 0;
    db.redefine(view(6), |_| {
        asked += 1;
        newest();
        assert_eq!(told(&db, root.path(), 400), [false; 3]);
        assert_eq!(told(&db, root.path(), 300), [true; 3]);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(asked > 0);
    assert_eq!(told(&db, root.path(), 400), [true; 3]);
}
