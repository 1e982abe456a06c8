//! What is recorded is answered, now and after reopening.

use quipu::{Component, Db, Event, Grain, Keep, Options, TestClock, Timestamp, View};

fn define_all(db: &Db) {
    db.define(View::new("by_event").by(["event"]).stats("value")).unwrap();
    db.define(View::new("by_user").by(["user"]).stats("value")).unwrap();
    db.define(View::new("by_user_product").by(["user", "product"]).stats("value")).unwrap();
    db.define(View::new("by_hour").stats("value").grain(Grain::Hour, Keep::All)).unwrap();
}

#[test]
fn what_was_recorded_is_answered_before_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let check = |db: &Db, n: u64| {
        let user = db.query("by_user").unwrap();
        let row = user.get(&["u1"]).unwrap().unwrap();
        assert_eq!(row.count, n);
        assert_eq!(row.summary().unwrap().sum, n as f64 * 0.5);
        assert_eq!(user.key_count().unwrap(), 10);
        assert_eq!(user.rows().unwrap().map(|r| r.unwrap().count).sum::<u64>(), 10 * n);
        assert_eq!(db.query("by_user_product").unwrap().prefix(&["u1"]).unwrap().count(), 3);
        assert_eq!(
            db.query("by_event").unwrap().top(1, Component::Count).unwrap()[0].count,
            10 * n
        );
        let hours = db.query("by_hour").unwrap().buckets(&[], Grain::Hour).unwrap();
        assert_eq!(hours.iter().map(|b| b.count).sum::<u64>(), 10 * n);
    };
    let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    let open = || Options::new().clock(clock.clone()).open(&path).unwrap();
    for round in 1..=4_u64 {
        let db = open();
        if round == 1 {
            define_all(&db);
        } else {
            check(&db, (round - 1) * 30);
        }
        let mut batch = db.batch();
        for i in 0..300 {
            let (user, product) = (format!("u{}", i % 10), format!("p{}", i % 3));
            let at = Timestamp::from_secs(1_699_990_000 + i * 60);
            let event = Event::new("sale").dim("user", &user).dim("product", &product).value(0.5);
            if i % 2 == 0 {
                batch.push(&event.at(at)).unwrap();
            } else {
                db.record(&event.at(at)).unwrap();
            }
        }
        assert_eq!(db.record_batch(&mut batch).unwrap().recorded, 150);
        if round % 2 == 0 {
            db.checkpoint().unwrap();
        }
        check(&db, round * 30);
        if round == 3 {
            db.close().unwrap();
        }
    }
}
