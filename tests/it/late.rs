//! An event that is too old for a bucket is said to be late, however it came and whatever waits.

use crate::directory::crash_image;
use proptest::prelude::*;
use quipu::{Db, Event, Grain, Keep, Options, TestClock, Timestamp, View};
use std::collections::HashMap;
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
