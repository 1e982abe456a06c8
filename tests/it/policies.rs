//! Policies: set, changed and removed while they are asked, and there again after every kind of opening.

use crate::directory::{crash_image, options, segments};
use crate::limits::{
    Api, NOW, allowed, call, calls, denied, just_before, millis, minute, open_with, secs,
};
use quipu::{
    Constraint, Db, Dedup, Depth, Durability, ErrorKind, Event, Grain, Keep, Limiter, Options,
    Policy, PolicyStatus, Progress, Retention, TestClock, Timestamp, Upto, View, Window,
};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn three_a_minute() -> Policy {
    Policy::new("api").at_most("calls", 3, minute())
}

/// A store with that policy, and what enforces it.
fn limited() -> (Api, Limiter) {
    let api = Api::new();
    api.db.set_policy(three_a_minute()).unwrap();
    let limiter = api.db.limiter("api").unwrap();
    (api, limiter)
}

fn used(limiter: &Limiter, key: &str) -> u64 {
    limiter.usage(&call(key)).unwrap()[0].used
}

fn status(db: &Db) -> PolicyStatus {
    db.policies().unwrap().remove(0)
}

fn hit(limiter: &Limiter, key: &str) -> bool {
    limiter.check_and_record(&call(key)).unwrap().is_allowed()
}

#[test]
fn a_policy_that_is_removed_enforces_nothing_and_what_was_used_is_there_when_it_is_set_again() {
    let (api, limiter) = limited();
    assert!(hit(&limiter, "alice") && hit(&limiter, "alice"));
    assert!(api.db.remove_policy("api").unwrap());
    assert!(!api.db.remove_policy("api").unwrap());
    let refused = [
        limiter.check_and_record(&call("alice")).map(drop),
        limiter.check(&call("alice")).map(drop),
        limiter.usage(&call("alice")).map(drop),
        limiter.reserve(&call("alice"), secs(1)).map(drop),
        limiter.policy().map(drop),
        api.db.limiter("api").map(drop),
    ];
    for refused in refused {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::UnknownPolicy);
    }
    assert_eq!((api.db.policies().unwrap().len(), api.recorded("alice")), (0, Some(2)));
    assert!(api.db.set_policy(three_a_minute()).unwrap());
    assert_eq!(used(&limiter, "alice"), 2);
    assert!(hit(&limiter, "alice") && !hit(&limiter, "alice"));
    // A limit that was made for one key before goes by what was said then.
    let of_alice = limiter.of(&call("alice")).unwrap();
    api.db.set_policy(Policy::new("api").at_most("calls", 9, minute())).unwrap();
    assert!(!of_alice.check().unwrap().is_allowed());
    assert!(hit(&limiter, "alice"));
    assert_eq!(limiter.policy().unwrap().rules()[0].constraint().limit(), 9);
}

#[test]
fn in_shadow_nothing_is_refused_and_what_would_have_been_is_counted() {
    let (api, limiter) = limited();
    api.db.set_policy(three_a_minute().shadow(true)).unwrap();
    for _ in 0..5 {
        assert!(limiter.check(&call("alice")).unwrap().is_allowed());
        assert!(hit(&limiter, "alice"));
    }
    let counts = |db: &Db| (status(db).allowed, status(db).denied);
    assert_eq!((counts(&api.db), api.recorded("alice")), ((3, 2), Some(5)));
    // So is a key that was never seen, and what can never fit.
    assert!(limiter.check_and_record(&call("bob").times(4)).unwrap().is_allowed());
    let reservation = limiter.reserve(&call("cem").times(9), secs(1)).unwrap().unwrap();
    reservation.commit(&call("cem").times(9)).unwrap();
    assert_eq!((counts(&api.db), api.recorded("cem")), ((3, 4), Some(9)));
    // From the moment that it is in force, what was used counts.
    api.db.set_policy(three_a_minute()).unwrap();
    let denial = denied(limiter.check_and_record(&call("alice")));
    assert_eq!((denial.used, denial.limit, counts(&api.db)), (5, 3, (3, 5)));
}

#[test]
fn what_a_policy_asks_can_not_be_dropped_and_may_be_redefined() {
    let (api, limiter) = limited();
    assert!(hit(&limiter, "alice") && hit(&limiter, "alice"));
    let error = api.db.drop_view("calls").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("\"api\""), "{error}");
    // Other grains that reach as far: it goes on, whoever asks.
    let tenths = calls().grain(Grain::every(millis(100)).unwrap(), Keep::Last(700));
    assert!(api.db.redefine(tenths, go_on).unwrap());
    assert_eq!(used(&limiter, "alice"), 2);
    assert!(hit(&limiter, "alice") && !hit(&limiter, "alice"));
    // Grains that do not, or another key: refused, and nothing is changed.
    let day = View::new("calls").by(["key"]).only_events(["call"]).grain(Grain::Day, Keep::Last(1));
    let by_route =
        View::new("calls").by(["route"]).only_events(["call"]).grain(Grain::Second, Keep::Last(62));
    for view in [day, by_route] {
        let error = api.db.redefine(view, go_on).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(
            error.to_string().contains("the policy \"api\" asks the view \"calls\""),
            "{error}"
        );
    }
    assert!(!hit(&limiter, "alice"));
    assert_eq!((used(&limiter, "alice"), api.recorded("alice")), (3, Some(3)));
    // Changed, the policy asks it no more.
    api.db.set_policy(Policy::new("api").during("00:00-24:00".parse().unwrap())).unwrap();
    api.db.drop_view("calls").unwrap();
    allowed(api.db.limiter("api").unwrap().check_and_record(&call("alice")));
}

#[test]
fn rules_of_several_keys_are_one_step_and_want_all_their_dimensions() {
    let root = tempfile::tempdir().unwrap();
    let by = |name: &str, key: &[&str]| {
        let view = View::new(name).by(key.iter().copied()).only_events(["login"]);
        view.grain(Grain::Second, Keep::Last(62))
    };
    let options = options().view(by("by_user", &["user"])).view(by("by_both", &["ip", "user"]));
    let db = options.view(by("all", &[])).open(root.path().join("db")).unwrap();
    let named = |name: &str, n| Constraint::at_most(n, minute()).named(name);
    let policy = Policy::new("logins")
        .on("by_user", named("user", 3))
        .on("by_both", named("pair", 2))
        .on("all", named("all", 5));
    db.set_policy(policy).unwrap();
    let logins = db.limiter("logins").unwrap();
    let login = |ip: &'static str, user: &'static str| {
        let verdict = logins.check_and_record(&Event::new("login").dim("ip", ip).dim("user", user));
        let denial = verdict.unwrap().denial().cloned();
        denial.map(|denial| denial.constraint.name().unwrap().to_owned())
    };
    assert_eq!([login("a", "ann"), login("a", "ann")], [None, None]);
    assert_eq!(login("a", "ann").as_deref(), Some("pair"));
    assert_eq!(login("b", "ann"), None);
    assert_eq!(login("b", "ann").as_deref(), Some("user"));
    assert_eq!([login("a", "bob"), login("a", "bob")], [None, None]);
    assert_eq!(login("c", "cem").as_deref(), Some("all"));
    assert_eq!(db.query("all").unwrap().totals().unwrap().count, 5);
    let error = logins.check_and_record(&Event::new("login").dim("user", "ann")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    for word in ["\"ip\"", "by_both", "logins"] {
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn what_means_nothing_is_refused_and_leaves_what_is_set() {
    let (api, limiter) = limited();
    let db = &api.db;
    let new = || Policy::new("api");
    let with = |constraint| new().on("calls", constraint);
    let seventeen = (0..17).fold(new(), |policy, n| policy.at_most("calls", n + 1, minute()));
    let named = |name: &str| Constraint::at_most(1, minute()).named(name);
    let long = "x".repeat(256);
    let schedule = || "09:00-17:00".parse().unwrap();
    let invalid = [
        new(),
        Policy::new("").at_most("calls", 1, minute()),
        Policy::new(&*long).at_most("calls", 1, minute()),
        seventeen,
        with(named("")),
        with(named(&long)),
        with(named("one")).on("calls", named("one")),
        with(Constraint::at_most(0, minute())),
        with(Constraint::at_least(0, minute())),
        with(Constraint::at_least(1, Window::gcra(1, secs(1)))),
        with(Constraint::at_most(1, Window::rolling(Duration::ZERO))),
        with(Constraint::at_most(1, Window::rolling(Duration::MAX))),
        with(Constraint::at_most(1, Window::gcra(0, secs(1)))),
        with(Constraint::at_most(1, Window::gcra(1, Duration::ZERO))),
        with(Constraint::at_most(1, Window::gcra(1, Duration::MAX))),
        with(Constraint::at_most(1, Window::last(0, Grain::Hour))),
        with(Constraint::at_most(1, Window::last(u32::MAX, Grain::Hour))),
        with(Constraint::cooldown(Duration::ZERO)),
        with(Constraint::within(Duration::MAX)),
        with(Constraint::during(schedule())),
        new().of_calendar(Constraint::at_most(1, minute())),
        new().on_net("calls", "calls", Constraint::within(secs(1))),
        new().on_net("calls", "counters", Constraint::at_most(1, minute())),
        three_a_minute().near(0),
        three_a_minute().near(101),
    ];
    for policy in invalid {
        let words = policy.to_string();
        assert_eq!(db.set_policy(policy).unwrap_err().kind(), ErrorKind::Invalid, "{words}");
    }
    let error = db.set_policy(new().at_most("missing", 1, minute())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownView);
    let error = db.set_policy(new().at_most("calls", 1, Window::fixed(Grain::Year))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotKept);
    assert!(error.to_string().contains("policy \"api\""), "{error}");
    let error = db.limiter("apis").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownPolicy);
    assert!(error.to_string().contains("there are: \"api\""), "{error}");
    // What was set is there, and sixteen rules are not too many.
    assert_eq!(limiter.policy().unwrap(), three_a_minute());
    let sixteen = (0..16).fold(new(), |policy, n| policy.at_most("calls", n + 1, minute()));
    assert!(db.set_policy(sixteen).unwrap());
    assert!(hit(&limiter, "alice"));
    let denial = denied(limiter.check_and_record(&call("alice")));
    assert_eq!((denial.index, denial.limit), (0, 1));
}

/// The policy is there, and who was denied is denied until the same moment.
#[track_caller]
fn goes_on(db: &Db, retry: Duration) {
    assert_eq!(status(db).policy, three_a_minute());
    let limiter = db.limiter("api").unwrap();
    let denial = denied(limiter.check_and_record(&call("alice")));
    assert_eq!((denial.used, denial.retry_after), (3, Some(retry)));
    assert!(limiter.check(&call("bob")).unwrap().is_allowed());
}

#[test]
fn a_policy_is_there_after_every_kind_of_opening() {
    let (api, limiter) = limited();
    for name in ["other", "gone"] {
        api.db.set_policy(Policy::new(name).at_most("calls", 9, minute())).unwrap();
    }
    api.db.remove_policy("gone").unwrap();
    api.db.set_policy(Policy::new("other").at_most("calls", 8, minute()).shadow(true)).unwrap();
    for _ in 0..3 {
        assert!(hit(&limiter, "alice"));
    }
    api.clock.advance(secs(7));
    let names = |db: &Db| {
        let policies = db.policies().unwrap();
        policies.iter().map(|status| status.policy.to_string()).collect::<Vec<_>>()
    };
    let expected = names(&api.db);
    assert_eq!(expected.len(), 2);
    let again = |dir: &Path| {
        let db = open_with(calls(), dir, &api.clock);
        goes_on(&db, secs(53));
        assert_eq!(names(&db), expected);
        db
    };
    let dir = |name: &str| api.root.path().join(name);
    // From the log, from the snapshot, and from both.
    for name in ["killed", "stored"] {
        crash_image(api.db.directory(), &dir(name));
        let db = again(&dir(name));
        db.backup(dir(&format!("backup of {name}")), go_on).unwrap();
        db.close().unwrap();
        let report = quipu::verify(dir(name), Depth::Refold, |_| {}).unwrap();
        assert!(report.is_intact(), "{report:?}");
        let restored = dir(&format!("restored from {name}"));
        quipu::restore(dir(&format!("backup of {name}")), &restored, Upto::Everything, go_on)
            .unwrap();
        again(&restored);
        // Who only reads sees the events, and leaves policies to who records.
        let reader = options().clock(api.clock.clone()).open_read_only(dir(name)).unwrap();
        assert_eq!(reader.query("calls").unwrap().get(&["alice"]).unwrap().unwrap().count, 3);
        api.db.checkpoint().unwrap();
    }
}

#[test]
fn a_policy_outlives_the_log_that_it_was_set_in() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let open = || {
        let options = options().clock(clock.clone()).retention(Retention::Recovery);
        options.view(calls()).segment_bytes(64 << 10).open(&dir).unwrap()
    };
    let db = open();
    db.set_policy(three_a_minute()).unwrap();
    let payload = vec![7; 8 << 10];
    for _ in 0..40 {
        db.record(&Event::new("other").payload(&payload)).unwrap();
    }
    let limiter = db.limiter("api").unwrap();
    (0..3).for_each(|_| assert!(hit(&limiter, "alice")));
    db.checkpoint().unwrap();
    db.close().unwrap();
    assert!(!segments(&dir)[0].ends_with("0000000001.qlog"));
    let db = open();
    goes_on(&db, secs(60));
    drop(db);
    let report = quipu::verify(&dir, Depth::Refold, |_| {}).unwrap();
    assert!(report.is_intact(), "{report:?}");
}

#[test]
fn an_id_that_was_seen_is_judged_and_not_recorded_again() {
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let options = options().clock(clock.clone()).view(calls()).dedup(Dedup::For(secs(120)));
    let db = options.open(root.path().join("db")).unwrap();
    db.set_policy(three_a_minute()).unwrap();
    let limiter = db.limiter("api").unwrap();
    let again = call("alice").id("one");
    allowed(limiter.check_and_record(&again));
    let (position, of_alice) = (db.position(), || used(&limiter, "alice"));
    assert_eq!(allowed(limiter.check_and_record(&again)).0, Some(1));
    assert_eq!((of_alice(), db.position()), (1, position));
    let reservation = limiter.reserve(&again, secs(5)).unwrap().unwrap();
    assert!(reservation.commit(&again).unwrap().duplicate);
    assert_eq!(of_alice(), 1);
    // Full: denied, also what is there already.
    allowed(limiter.check_and_record(&call("alice").id("two").times(2)));
    assert_eq!(denied(limiter.check_and_record(&again)).used, 3);
    // It is new again when the window of ids is over.
    clock.advance(secs(121));
    allowed(limiter.check_and_record(&again));
    assert_eq!(of_alice(), 1);
}

#[test]
fn eight_threads_that_wait_for_the_disk_are_let_through_as_often_as_the_limit_says() {
    let (api, limiter) = limited();
    api.db.set_policy(Policy::new("api").at_most("calls", 40, minute())).unwrap();
    let admitted: usize = std::thread::scope(|scope| {
        let tries = || {
            let ask = |_: &i32| {
                let verdict = limiter.check_and_record_with(&call("alice"), Durability::Sync);
                verdict.unwrap().is_allowed()
            };
            (0..8).filter(ask).count()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(tries)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 40);
    assert_eq!(api.db.durable_position(), api.db.position());
    assert_eq!((status(&api.db).allowed, status(&api.db).denied), (40, 24));
    let image = api.root.path().join("image");
    crash_image(api.db.directory(), &image);
    let again = open_with(calls(), &image, &api.clock);
    assert_eq!(used(&again.limiter("api").unwrap(), "alice"), 40);
}

#[test]
fn days_of_a_zone_are_limited_by_the_day_there_also_when_its_clocks_change() {
    // The day of 23 hours, the one of 25, and those around them.
    for (evening, hours) in [("2026-03-28T23:30:00+01:00", 23), ("2026-10-24T23:30:00+02:00", 25)] {
        let root = tempfile::tempdir().unwrap();
        let clock = TestClock::at(Timestamp::parse_rfc3339(evening).unwrap());
        let view = View::new("calls").by(["key"]).grain(Grain::Day, Keep::Last(3));
        let options = options().clock(clock.clone()).time_zone("Europe/Paris".parse().unwrap());
        let db = options.view(view).open(root.path().join("db")).unwrap();
        db.set_policy(Policy::new("daily").at_most("calls", 2, Window::fixed(Grain::Day))).unwrap();
        let daily = db.limiter("daily").unwrap();
        let fill = || {
            allowed(daily.check_and_record(&call("alice").times(2)));
            denied(daily.check_and_record(&call("alice"))).retry_after.unwrap()
        };
        let mut wait = fill();
        assert_eq!(wait, secs(1_800));
        // As long as each of the days is, to the second.
        for length in [hours, 24, 24] {
            clock.advance(just_before(wait));
            let _ = denied(daily.check_and_record(&call("alice")));
            clock.advance(Duration::from_micros(1));
            wait = fill();
            assert_eq!(wait, secs(length * 3_600), "{evening}");
        }
        // Two of them: those of the day before count, too.
        let two_days = Policy::new("daily").at_most("calls", 5, Window::last(2, Grain::Day));
        db.set_policy(two_days).unwrap();
        assert_eq!(allowed(daily.check_and_record(&call("alice"))).0, Some(0));
        assert_eq!(denied(daily.check(&call("alice"))).retry_after, Some(wait));
    }
}

#[test]
fn policies_are_set_while_others_ask() {
    let (api, limiter) = limited();
    let n = 200;
    let admitted: u64 = std::thread::scope(|scope| {
        let tries = || (0..300).filter(|_| hit(&limiter, "alice")).count() as u64;
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(tries)).collect();
        for limit in (4..=n).step_by(4) {
            api.db.set_policy(Policy::new("api").at_most("calls", limit, minute())).unwrap();
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // Never more than the greatest of them, and all of it is counted.
    assert!((3..=n).contains(&admitted), "{admitted}");
    assert_eq!((api.recorded("alice"), used(&limiter, "alice")), (Some(admitted), admitted));
    assert_eq!(status(&api.db).allowed, admitted);
    let rest = n - admitted;
    assert_eq!((0..rest + 5).filter(|_| hit(&limiter, "alice")).count() as u64, rest);
}

#[cfg(feature = "simulation")]
mod faults {
    use super::*;
    use quipu::simulation::{Fault, OperationKind, SimulatedDisk, Survival};

    /// Where nothing can be recorded any more, who may not record is told that, and until when.
    #[test]
    fn who_is_over_a_limit_is_denied_though_nothing_can_be_recorded() {
        let disk = SimulatedDisk::new(1);
        let db = Options::new().view(calls()).open_on(&disk, "db").unwrap();
        db.set_policy(Policy::new("api").at_most("calls", 1, minute())).unwrap();
        let limiter = db.limiter("api").unwrap();
        assert!(limiter.check_and_record(&call("alice")).unwrap().is_allowed());
        db.record(&call("bob")).unwrap();
        disk.plan(|operation| {
            (operation.kind == OperationKind::Sync)
                .then_some(Fault::Error(std::io::ErrorKind::Other))
        });
        assert!(db.sync().is_err());
        disk.heal();
        let error = limiter.check_and_record(&call("carol")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned);
        for key in ["alice", "bob", "alice"] {
            assert_eq!(denied(limiter.check_and_record(&call(key))).used, 1);
        }
    }

    /// A log that can not be written: an error, nothing is let through uncounted, and after a reopening what
    /// was acknowledged is used.
    #[test]
    fn a_log_that_fails_lets_nothing_through() {
        let clock = TestClock::at(Timestamp::from_secs(NOW));
        let open = |disk: &SimulatedDisk| {
            let options = Options::new().clock(clock.clone()).view(calls());
            options.durability(Durability::Sync).open_on(disk, "db").unwrap()
        };
        for kind in [OperationKind::Sync, OperationKind::Write] {
            let disk = SimulatedDisk::new(5);
            let db = open(&disk);
            db.set_policy(Policy::new("api").at_most("calls", 10, minute())).unwrap();
            let limiter = db.limiter("api").unwrap();
            for _ in 0..4 {
                assert!(hit(&limiter, "alice"));
            }
            disk.plan(move |operation| {
                (operation.kind == kind).then_some(Fault::Error(std::io::ErrorKind::Other))
            });
            let mut failed = 0;
            let mut acknowledged = 4;
            for _ in 0..30 {
                match limiter.check_and_record_with(&call("alice"), Durability::Sync) {
                    Ok(verdict) => acknowledged += u64::from(verdict.is_allowed()),
                    Err(_) => failed += 1,
                }
            }
            assert!(failed > 0, "{kind:?}");
            assert_eq!(acknowledged, 4, "{kind:?}");
            disk.heal();
            let again = open(&disk.power_cut(Survival::None));
            let limiter = again.limiter("api").unwrap();
            let there = used(&limiter, "alice");
            assert!((4..=10).contains(&there), "{there}");
            let more = (0..20).filter(|_| hit(&limiter, "alice")).count() as u64;
            assert_eq!(there + more, 10, "{kind:?}");
        }
    }
}

#[test]
fn the_name_of_an_event_can_be_the_key() {
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    let view = View::new("names").by(["event"]).grain(Grain::Second, Keep::Last(62));
    let options = Options::new().clock(clock.clone()).view(view);
    let db = options.open(root.path().join("db")).unwrap();
    let minute = Window::rolling(Duration::from_mins(1));
    db.set_policy(Policy::new("calls").at_most("names", 2, minute)).unwrap();
    let limiter = db.limiter("calls").unwrap();
    let ask = |name: &str| limiter.check_and_record(&Event::new(name)).unwrap();
    for name in ["a", "b", "a"] {
        assert!(ask(name).is_allowed());
        clock.advance(Duration::from_secs(1));
    }
    assert!(!ask("a").is_allowed() && !ask("a").is_allowed() && ask("b").is_allowed());
    // The first one's second is over at its end, and so long ago a minute later.
    clock.advance(Duration::from_secs(57));
    assert!(!ask("a").is_allowed());
    clock.advance(Duration::from_secs(1));
    assert!(ask("a").is_allowed());
    // What is wrong, or says a time, is told as by any other way.
    for wrong in [Event::new(""), Event::new("a").at(Timestamp::from_secs(7))] {
        assert_eq!(limiter.check_and_record(&wrong).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(limiter.usage(&Event::new("a")).unwrap()[0].used, 2);
    assert_eq!((status(&db).allowed, status(&db).denied), (5, 3));
}
