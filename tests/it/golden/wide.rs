//! The scripts of the golden directories `wide` and `converted`: what the catalog, rows and records can
//! have besides what the first script writes. A time zone, sketches few and many, buckets of any length,
//! events that count for several and such whose time is known roughly, policies, views redefined and
//! being redefined, what another replica recorded; and buckets that were converted, for their log is
//! retired.

use super::{clock, options};
use quipu::aggregate::{Aggregate, Sketches};
use quipu::{
    Bundle, Constraint, Cursor, Date, Db, Event, Grain, Hours, Keep, Policy, Query, ReadOnlyDb,
    Retention, Schedule, TestClock, Upto, View, Window,
};
use serde_json::{Value, json};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

const HOUR: Duration = Duration::from_hours(1);

fn sketched() -> View {
    View::new("sketched")
        .by(["country"])
        .stats("value")
        .distinct("user")
        .distinct_at("product", 5)
        .theta("user", 64)
        .top("user", 40)
        .top_by("product", "cents", 40)
        .quantiles("value")
        .count_min("user", 30, 3)
        .membership("user", 400, 100)
        .grain(Grain::Hour, Keep::Last(48))
        .grain(Grain::every(Duration::from_secs(90)).unwrap(), Keep::Last(20))
}

fn views() -> [View; 5] {
    let days = |name| View::new(name).by(["country"]).stats("value").grain(Grain::Day, Keep::All);
    [
        sketched(),
        days("converted").distinct("user").grain(Grain::Hour, Keep::All),
        days("changing"),
        View::new("calls").by(["key"]).only_events(["call"]).rate_limit_grains(),
        View::new("returned").by(["key"]).only_events(["return"]).rate_limit_grains(),
    ]
}

/// The first key of the countries has few users, the second more than sketches keep as they are.
fn record(db: &Db, from: u64, to: u64) {
    let mut batch = db.batch();
    for n in from..to {
        let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let (few, many) = (format!("user {}", mixed % 9), format!("user {}", mixed % 3_000));
        let (country, user) = if n % 10 == 0 { ("FR", &few) } else { ("DE", &many) };
        let (product, ago) =
            (format!("p{}", mixed % 7 * (mixed % 11)), Duration::from_secs(mixed % 90_000));
        let mut event = Event::new("sale").dim("country", country).dim("product", &product);
        if n % 13 != 0 {
            event = event.dim("user", user);
        }
        let time = quipu::Clock::now(&clock()).saturating_sub(ago);
        let about =
            if n % 17 == 5 { Duration::from_secs(40 + mixed % 900) } else { Duration::ZERO };
        event = event.at_about(time, about).times(if n % 19 == 7 { 2 + mixed % 5 } else { 1 });
        event = event
            .value((mixed % 2_001) as f64 * 0.25 - 100.0)
            .measure("cents", (mixed % 500) as f64);
        batch.push(&event).unwrap();
        if n % 250 == 249 {
            db.record_batch(&mut batch).unwrap();
        }
    }
    db.record_batch(&mut batch).unwrap();
}

/// One that allows some and denies some, one of the calendar, one that refuses nothing.
fn limit(db: &Db) {
    let hours = Hours::between("22:00", "06:00").unwrap().weekdays();
    let holidays = Date::new(2026, 12, 24).unwrap()..=Date::new(2026, 12, 26).unwrap();
    let nights =
        Schedule::new([hours, Hours::all_day().weekends()]).unwrap().except(holidays).unwrap();
    let net = Constraint::at_most(9, Window::rolling(HOUR)).named("calls an hour");
    let policies = [
        Policy::new("api")
            .at_most("calls", 5, Window::fixed(Grain::Minute))
            .at_most("calls", 40, Window::gcra(20, HOUR))
            .on_net("calls", "returned", net)
            .near(60),
        Policy::new("nights").during(nights).cooldown("calls", Duration::from_millis(1)),
        Policy::new("tried")
            .within("calls", HOUR)
            .at_least("calls", 1_000, Window::last(2, Grain::Hour))
            .shadow(true),
        Policy::new("removed").at_most("calls", 1, Window::rolling(HOUR)),
    ];
    for policy in policies {
        db.set_policy(policy).unwrap();
    }
    db.remove_policy("removed").unwrap();
    let api = db.limiter("api").unwrap();
    let allowed = (0..8).filter(|_| {
        let call = Event::new("call").dim("key", "ann").id("none").entity("shop");
        api.check_and_record(&call).unwrap().is_allowed()
    });
    assert_eq!(allowed.count(), 5);
    db.record(&Event::new("return").dim("key", "ann")).unwrap();
}

/// Writes the directory as it is closed.
pub(super) fn script(dir: &Path, clock: &TestClock) -> Db {
    let go_on = |_| ControlFlow::Continue(());
    let db = options(clock).time_zone("Europe/Paris".parse().unwrap()).open(dir).unwrap();
    for view in views() {
        db.define(view).unwrap();
    }
    record(&db, 0, 1_500);
    limit(&db);
    db.checkpoint().unwrap();
    record(&db, 1_500, 2_000);

    let other = tempfile::tempdir().unwrap();
    let other = options(clock).open(other.path().join("other")).unwrap();
    record(&other, 5_000, 5_100);
    let bundle = other.export(&Cursor::beginning()).unwrap();
    fs::write(bundle_of(dir), bundle.to_bytes()).unwrap();
    db.import(&bundle).unwrap();
    db.new_replica().unwrap();

    // By hand the grains alone are changed, which converts the buckets; more is found in the log.
    let weeks = View::new("converted").by(["country"]).stats("value").distinct("user");
    let weeks = weeks.grain(Grain::Week, Keep::All).grain(Grain::Hour, Keep::Last(30));
    assert!(db.redefine(weeks, go_on).unwrap());
    let mut steps = 0;
    let some = |_| {
        steps += 1;
        if steps < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    db.redefine(View::new("changing").by(["product"]).quantiles("value"), some).unwrap_err();
    db.checkpoint().unwrap();
    record(&db, 2_000, 2_200);
    clock.advance(Duration::from_secs(30));
    db
}

/// Writes one whose log is retired when a view gets other grains.
pub(super) fn converted(dir: &Path, clock: &TestClock) -> Db {
    let db = options(clock).retention(Retention::Recovery).open(dir).unwrap();
    let view = || View::new("converted").by(["country"]).stats("value").distinct("user");
    db.define(view().grain(Grain::Hour, Keep::All).grain(Grain::Minute, Keep::Last(90))).unwrap();
    for n in 0..12 {
        record(&db, n * 250, n * 250 + 250);
        db.checkpoint().unwrap();
    }
    let days = view().grain(Grain::Day, Keep::All).grain(Grain::Hour, Keep::Last(30));
    assert!(db.redefine(days, |_| ControlFlow::Continue(())).unwrap());
    assert!(!db.views().unwrap()[0].exact_from.is_empty(), "its buckets were converted");
    record(&db, 3_000, 3_100);
    db
}

/// The bytes of the sketches of a row, by a sum of them.
fn digest(sketches: &Sketches) -> String {
    let mut bytes = Vec::new();
    sketches.distinct("user").unwrap().encode(&mut bytes);
    sketches.distinct("product").unwrap().encode(&mut bytes);
    sketches.theta("user").unwrap().encode(&mut bytes);
    sketches.top("user").unwrap().encode(&mut bytes);
    sketches.top_by("product", "cents").unwrap().encode(&mut bytes);
    sketches.quantiles("value").unwrap().encode(&mut bytes);
    sketches.count_min("user").unwrap().encode(&mut bytes);
    sketches.membership("user").unwrap().encode(&mut bytes);
    format!("{} bytes, {:x}", bytes.len(), crc32fast::hash(&bytes))
}

/// What the other replica told lies beside it.
pub(super) fn bundle_of(dir: &Path) -> PathBuf {
    dir.with_extension("bundle")
}

/// How many events of the bundle are known already, and how many are new.
pub(super) fn told_again(db: &Db, dir: &Path) -> Value {
    let bundle = Bundle::from_bytes(&fs::read(bundle_of(dir)).unwrap()).unwrap();
    let outcome = db.import(&bundle).unwrap();
    json!([outcome.already_there, outcome.imported])
}

/// What there is to ask besides rows and buckets.
pub(super) fn answers(db: &Db) -> Value {
    let call = Event::new("call").dim("key", "ann");
    let policy = |status: &quipu::PolicyStatus| {
        let limiter = db.limiter(status.policy.name()).unwrap();
        let usage = limiter.usage(&call).unwrap();
        let usage = usage.iter().map(|usage| json!([usage.used, usage.limit])).collect::<Vec<_>>();
        json!([status.policy.to_string(), limiter.check(&call).unwrap().is_allowed(), usage])
    };
    let policies: Vec<Value> = db.policies().unwrap().iter().map(policy).collect();
    let view = |status: &quipu::ViewStatus| {
        let exact = status.exact_from.iter();
        let exact: Vec<_> = exact.map(|(grain, from)| json!([grain.to_string(), from])).collect();
        json!([status.successor.as_ref().map(|to| to.view.to_string()), exact])
    };
    let views: Vec<Value> = db.views().unwrap().iter().map(view).collect();
    let sketched = db.query("sketched").map_or(Value::Null, |query| sketched_answers(&query));
    json!([db.time_zone().name(), policies, views, sketched])
}

fn sketched_answers(query: &Query) -> Value {
    let rows = query.rows().unwrap().map(Result::unwrap);
    let digests: Vec<Value> = rows.map(|row| json!([row.key, digest(&row.sketches)])).collect();
    let to = quipu::Clock::now(&clock());
    let span = |country| {
        let series = query.series(&[country]).unwrap();
        json!(series.between(to.saturating_sub(20 * HOUR), to).sum().unwrap())
    };
    json!([digests, (["FR", "DE"].map(span))])
}

#[test]
fn a_backup_of_it_is_restored_with_everything() {
    let root = tempfile::tempdir().unwrap();
    let [dir, backup, back] = ["db", "backup", "back"].map(|name| root.path().join(name));
    let clock = clock();
    let db = script(&dir, &clock);
    let is_exact = |country| {
        let row = db.query("sketched").unwrap().get(&[country]).unwrap().unwrap();
        let users = row.sketches.distinct("user").unwrap();
        users.estimate().is_exact() && row.sketches.top("user").unwrap().is_exact()
    };
    assert!(is_exact("FR") && !is_exact("DE"), "one has few users, one many");
    db.close().unwrap();
    let go_on = |_| ControlFlow::Continue(());
    ReadOnlyDb::open(&dir).unwrap().backup(&backup, go_on).unwrap();
    quipu::restore(&backup, &back, Upto::Everything, go_on).unwrap();
    fs::copy(bundle_of(&dir), bundle_of(&back)).unwrap();
    let (expected, got) = (super::answers(&dir), super::answers(&back));
    assert!(expected == got, "{got}");
}
