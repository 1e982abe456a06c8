//! Sketches in views: what they say is what a program that keeps everything would, within the bounds
//! that they give, and their bytes do not tell which way they came about.

use crate::directory::{NOW, crash_image, options};
use quipu::aggregate::{Aggregate, Approx};
use quipu::{
    Bucket, Db, Depth, ErrorKind, Event, Grain, Keep, Options, RangeQuery, ReadOnlyDb, Row,
    TestClock, Timestamp, View,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

pub(crate) const HOUR: i64 = 3_600;

pub(crate) fn view() -> View {
    View::new("sales")
        .by(["country"])
        .stats("value")
        .distinct_at("user", 8)
        .theta("user", 64)
        .top("product", 50)
        .top_by("product", "value", 50)
        .quantiles("value")
        .count_min("product", 50, 3)
        .membership("user", 500, 10)
        .grain(Grain::Hour, Keep::Last(48))
        .grain(Grain::Day, Keep::All)
}

/// An event as a model keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Sale {
    pub(crate) hour: i64,
    country: &'static str,
    user: Option<String>,
    product: String,
    value: f64,
}

/// Numbers that look drawn, and are the same each time.
fn drawn(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 11
}

/// One country has few users and products, one has more than the sketches keep as they are.
pub(crate) fn sales(n: std::ops::Range<u64>) -> Vec<Sale> {
    let sale = |n: u64| {
        let (a, b) = (drawn(2 * n), drawn(2 * n + 1));
        let country = if a % 3 == 0 { "FR" } else { "DE" };
        let many = if country == "FR" { 40 } else { 3_000 };
        // A few products are most of what is sold.
        let product = (a / 7 % 97) * (b / 11 % 97) / 100;
        Sale {
            hour: NOW / HOUR - 60 + (n * 60 / 12_000) as i64,
            country,
            user: (b % 50 != 0).then(|| format!("user {}", b % many)),
            product: format!("p{}", if country == "FR" { product % 20 } else { product }),
            value: ((a % 100_000) as f64 / 100.0).floor() - 20.0,
        }
    };
    n.map(sale).collect()
}

pub(crate) fn event(sale: &Sale) -> Event<'_> {
    let event = Event::new("sale")
        .at(Timestamp::from_secs(sale.hour * HOUR + 7))
        .dim("country", sale.country)
        .dim("product", &sale.product)
        .value(sale.value);
    match &sale.user {
        Some(user) => event.dim("user", user),
        None => event,
    }
}

/// One by one and in batches.
pub(crate) fn record(db: &Db, sales: &[Sale]) {
    let mut batch = db.batch();
    for (n, sales) in sales.chunks(100).enumerate() {
        if n % 3 == 0 {
            for sale in sales {
                db.record(&event(sale)).unwrap();
            }
        } else {
            for sale in sales {
                batch.push(&event(sale)).unwrap();
            }
            db.record_batch(&mut batch).unwrap();
        }
    }
}

/// The bytes of all that a row says by sketches whose bytes are a function of the events.
pub(crate) fn canonical(sketches: &quipu::aggregate::Sketches) -> Vec<u8> {
    let mut bytes = Vec::new();
    sketches.distinct("user").unwrap().encode(&mut bytes);
    sketches.theta("user").unwrap().encode(&mut bytes);
    sketches.quantiles("value").unwrap().encode(&mut bytes);
    sketches.count_min("product").unwrap().encode(&mut bytes);
    sketches.membership("user").unwrap().encode(&mut bytes);
    let top = sketches.top("product").unwrap();
    if top.is_exact() {
        top.encode(&mut bytes);
    }
    bytes
}

fn rows(db: &Db) -> Vec<(Row, Vec<u8>)> {
    let rows = db.query("sales").unwrap().rows().unwrap();
    rows.map(|row| row.unwrap()).map(|row| (row.clone(), canonical(&row.sketches))).collect()
}

fn hours(db: &Db, country: &str) -> Vec<(Bucket, Vec<u8>)> {
    let buckets = db.query("sales").unwrap().buckets(&[country], Grain::Hour).unwrap();
    buckets.into_iter().map(|bucket| (bucket.clone(), canonical(&bucket.sketches))).collect()
}

fn holds(answer: Approx, truth: f64) {
    assert!(answer.lower <= truth && truth <= answer.upper, "{answer:?} of {truth}");
}

/// Holds the sketches of some sales to those sales.
fn check(sketches: &quipu::aggregate::Sketches, sales: &[&Sale]) {
    let users: BTreeSet<_> = sales.iter().filter_map(|sale| sale.user.as_ref()).collect();
    let distinct = sketches.distinct("user").unwrap().estimate();
    if users.len() <= 1_000 {
        assert_eq!((distinct.value, distinct.is_exact()), (users.len() as f64, true));
    } else {
        // Four standard errors of this precision, and one seed: no chance is taken.
        let error = sketches.distinct("user").unwrap().standard_error();
        assert!((distinct.value / users.len() as f64 - 1.0).abs() < 4.0 * error, "{distinct:?}");
    }
    let members = sketches.membership("user").unwrap();
    assert!(users.iter().all(|user| members.contains(user.as_bytes())));
    let theta = sketches.theta("user").unwrap().estimate();
    assert!((theta.value - users.len() as f64).abs() <= 5.0 / 8.0 * users.len() as f64);
    assert!(users.len() > 64 || theta.value == users.len() as f64);

    let mut products = BTreeMap::<&str, (u64, u64)>::new();
    for sale in sales {
        let sold = products.entry(&sale.product).or_default();
        *sold = (sold.0 + 1, sold.1 + sale.value.round().max(0.0) as u64);
    }
    let top = sketches.top("product").unwrap();
    assert_eq!(top.total(), sales.len() as u64);
    for heavy in top.top(usize::MAX) {
        let (count, _) = products[&*heavy.text()];
        assert!(heavy.lower <= count && count <= heavy.upper, "{heavy:?} of {count}");
    }
    for (product, (count, _)) in &products {
        assert!(top.count_of(product.as_bytes()).upper >= *count);
        let counted = sketches.count_min("product").unwrap().count_of(product.as_bytes());
        assert!(counted.upper >= *count as f64);
        assert!(products.len() > 50 || top.count_of(product.as_bytes()).lower == *count);
    }

    let mut values: Vec<f64> = sales.iter().map(|sale| sale.value).collect();
    values.sort_by(f64::total_cmp);
    let quantiles = sketches.quantiles("value").unwrap();
    for share in [0.0, 0.01, 0.5, 0.9, 0.999, 1.0] {
        let rank = ((share * values.len() as f64).ceil() as usize).clamp(1, values.len());
        holds(quantiles.quantile(share).unwrap().unwrap(), values[rank - 1]);
    }
}

fn of(sales: &[Sale], is: impl Fn(&Sale) -> bool) -> Vec<&Sale> {
    sales.iter().filter(|sale| is(sale)).collect()
}

#[test]
fn what_sketches_say_is_what_a_program_would_that_keeps_everything() {
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let db = options().clock(clock).view(view()).open(root.path().join("db")).unwrap();
    let sales = sales(0..12_000);
    record(&db, &sales);
    let query = db.query("sales").unwrap();
    for country in ["FR", "DE"] {
        let row = query.get(&[country]).unwrap().unwrap();
        check(&row.sketches, &of(&sales, |sale| sale.country == country));
        let day = query.series(&[country]).unwrap().last_hours(24).total().unwrap().unwrap();
        let is_in = |sale: &Sale| sale.country == country && sale.hour > NOW / HOUR - 24;
        check(&day.sketches, &of(&sales, is_in));
        for bucket in query.buckets(&[country], Grain::Hour).unwrap() {
            let hour = bucket.start.micros() / 1_000_000 / HOUR;
            check(&bucket.sketches, &of(&sales, |s| s.country == country && s.hour == hour));
        }
    }
    // All keys together.
    check(&query.totals().unwrap().sketches, &of(&sales, |_| true));
    let day = query.all_series().last_hours(24).total().unwrap().unwrap();
    check(&day.sketches, &of(&sales, |sale| sale.hour > NOW / HOUR - 24));
    // What two countries have in common.
    let of_country = |country| query.get(&[country]).unwrap().unwrap().sketches;
    let (fr, de) = (of_country("FR"), of_country("DE"));
    let users = |country: &str| -> BTreeSet<String> {
        let sales = of(&sales, |sale| sale.country == country);
        sales.iter().filter_map(|sale| sale.user.clone()).collect()
    };
    let both = users("FR").intersection(&users("DE")).count() as f64;
    let told = fr.theta("user").unwrap().intersection(de.theta("user").unwrap());
    assert!(
        (told.value - both).abs() <= 3.0 * (told.upper - told.lower).max(1.0),
        "{told:?} {both}"
    );
    // By revenue: a weight for each event, nothing where it is negative.
    let by_value = View::new("by_value").top_by("product", "value", 500);
    db.define(by_value).unwrap();
    db.backfill("by_value", |_| ControlFlow::Continue(())).unwrap();
    let top = db.query("by_value").unwrap().totals().unwrap();
    let mut revenue = BTreeMap::<&str, u64>::new();
    for sale in &sales {
        *revenue.entry(&sale.product).or_default() += sale.value.round().max(0.0) as u64;
    }
    let best = revenue.iter().max_by_key(|(product, sum)| (**sum, std::cmp::Reverse(**product)));
    let heavy = &top.sketches.top_by("product", "value").unwrap().top(1)[0];
    assert_eq!((&*heavy.text(), heavy.value), (*best.unwrap().0, *best.unwrap().1));
    assert!(heavy.is_exact());
}

#[test]
fn states_are_the_same_to_the_byte_whichever_way_they_came_about() {
    let root = tempfile::tempdir().unwrap();
    let sales = sales(0..6_000);
    let direct = options().view(view()).open(root.path().join("direct")).unwrap();
    record(&direct, &sales);
    let (want, want_hours) = (rows(&direct), hours(&direct, "DE"));
    let same = |db: &Db, how: &str| {
        for (got, want) in rows(db).iter().zip(&want) {
            assert_eq!(got.1, want.1, "{how}");
            assert_eq!((got.0.count, &got.0.stats), (want.0.count, &want.0.stats), "{how}");
        }
        let (got, want) = (hours(db, "DE"), &want_hours);
        assert!(got.iter().map(|hour| &hour.1).eq(want.iter().map(|hour| &hour.1)), "{how}");
    };
    // From the log alone, and from a snapshot and what came after it.
    for (n, checkpoint) in [None, Some(0), Some(2_000), Some(6_000)].into_iter().enumerate() {
        let path = root.path().join(format!("reopened {n}"));
        let db = options().view(view()).open(&path).unwrap();
        record(&db, &sales[..checkpoint.unwrap_or(0)]);
        if checkpoint.is_some() {
            db.checkpoint().unwrap();
        }
        record(&db, &sales[checkpoint.unwrap_or(0)..]);
        let image = root.path().join(format!("image {n}"));
        crash_image(&path, &image);
        same(
            &options().open(&image).unwrap(),
            &format!("after a crash, checkpoint {checkpoint:?}"),
        );
        let reader = ReadOnlyDb::open(&image).unwrap();
        let row = reader.query("sales").unwrap().get(&["DE"]).unwrap().unwrap();
        assert_eq!(canonical(&row.sketches), want[0].1);
    }
    // Series that leave the memory, and come back in parts.
    let path = root.path().join("small");
    let small = options().memory_budget(1).view(view()).open(&path).unwrap();
    for sales in sales.chunks(500) {
        record(&small, sales);
        small.checkpoint().unwrap();
    }
    same(&small, "in little memory");
    drop(small);
    assert!(quipu::verify(&path, Depth::Refold, |_| {}).unwrap().is_intact());
    // Another order, and two threads.
    let backwards = options().view(view()).open(root.path().join("backwards")).unwrap();
    let mut reversed = sales.clone();
    reversed.reverse();
    let (one, two) = reversed.split_at(3_333);
    std::thread::scope(|scope| {
        scope.spawn(|| record(&backwards, one));
        scope.spawn(|| record(&backwards, two));
    });
    same(&backwards, "in another order");
    // Filled from the log.
    let late = options().open(root.path().join("late")).unwrap();
    late.define(View::new("other")).unwrap();
    record(&late, &sales);
    late.define(view()).unwrap();
    late.backfill("sales", |_| ControlFlow::Continue(())).unwrap();
    same(&late, "filled from the log");
}

fn buyers(keep: u32) -> View {
    View::new("buyers")
        .by(["country"])
        .distinct_at("user", 6)
        .quantiles("value")
        .grain(Grain::Minute, Keep::Last(keep))
}

/// One country's, and another's sale, so that nothing but the key tells them apart.
fn sell(db: &Db, at: i64, user: u64, value: f64) {
    let user = format!("u{user}");
    let event = Event::new("sale").at(Timestamp::from_secs(at)).dim("user", &user).value(value);
    db.record(&event.clone().dim("country", "FR")).unwrap();
    db.record(&event.dim("country", "DE")).unwrap();
}

#[test]
fn a_range_that_is_kept_and_asked_again_says_what_a_new_one_does() {
    keep_and_ask(options(), 97);
}

#[test]
fn so_does_one_of_a_key_that_leaves_memory_and_comes_back_in_between() {
    keep_and_ask(options().memory_budget(0), 3);
}

fn keep_and_ask(options: Options, checkpoint_every: u64) {
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let db = options.clock(clock.clone()).view(buyers(200)).open(root.path().join("db")).unwrap();
    let series = db.query("buyers").unwrap().series(&["FR"]).unwrap();
    let made = |n| [series.last_minutes(n), series.last_minutes(n).previous().kept()];
    let kept = [1, 2, 31, 32, 33, 100, 199].map(|n| (n, made(n)));
    let mut now = NOW;
    for round in 0..400_u64 {
        // Most events are of now, some late, some so late that no bucket is left for them; now and then
        // nothing happens for a while.
        now += match drawn(round) % 100 {
            0 => 60 * 40,
            n if n < 50 => 60,
            _ => 0,
        };
        // And now and then the clock is set back for a while.
        let back =
            if drawn(round + 5_000).is_multiple_of(4) { drawn(round) as i64 % 200 } else { 0 };
        clock.set(Timestamp::from_secs(now - back));
        for n in 0..drawn(round + 1_000) % 4 {
            let late = if drawn(round * 7 + n).is_multiple_of(3) {
                drawn(round + n) as i64 % 15_000
            } else {
                0
            };
            sell(&db, now - late, drawn(round * 5 + n) % 700, (drawn(n + round) % 900) as f64);
        }
        if round.is_multiple_of(checkpoint_every) {
            db.checkpoint().unwrap();
        }
        for (n, kept) in &kept {
            for (kept, new) in kept.iter().zip(made(*n)) {
                let answer = |range: &RangeQuery| range.total().map_err(|error| error.kind());
                assert_eq!(answer(kept), answer(&new), "{n} minutes, round {round}");
            }
        }
    }
    let total = kept[6].1[0].total().unwrap().unwrap();
    assert!(total.count > 200 && total.sketches.distinct("user").unwrap().estimate().value > 90.0);
}

#[test]
fn a_definition_that_cannot_be_kept_is_refused_and_says_what_could() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    let none = || View::new("v");
    for (view, told) in [
        (none().distinct_at("user", 3), "4 to 18"),
        (none().distinct_at("user", 255), "4 to 18"),
        (none().theta("user", 63), "64 to 16384"),
        (none().top("product", 0), "1 to 65536"),
        (none().count_min("product", 0, 4), "1 to 32 rows"),
        (none().count_min("product", u32::MAX, 32), "cells"),
        (none().membership("user", 0, 100), "one item at least"),
        (none().membership("user", 10, 0), "between 0 and 1"),
        (none().membership("user", u64::MAX, 100), "gigabyte"),
        (none().distinct("user").distinct_at("user", 14), "asked for twice"),
        (none().quantiles("value").quantiles("value"), "asked for twice"),
        (none().top_by("a", "b", 9).top_by("a", "b", 10), "asked for twice"),
        (none().distinct(""), "1 to 255 bytes"),
        (none().top_by("product", "", 9), "1 to 255 bytes"),
        ((0..17).fold(none(), |view, n| view.distinct(format!("d{n}"))), "16 sketches"),
    ] {
        let error = db.define(view).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(told), "{error}");
    }
    assert!(db.views().unwrap().is_empty());
    // Of one dimension there can be several, if they are not the same.
    db.define(none().distinct("a").theta("a", 64).top("a", 9).top_by("a", "b", 9)).unwrap();
    // Another fineness is another definition.
    let other = none().distinct_at("a", 13).theta("a", 64).top("a", 9).top_by("a", "b", 9);
    assert_eq!(db.define(other).unwrap_err().kind(), ErrorKind::ViewConflict);
}

#[test]
fn a_view_gets_a_sketch_later_and_buckets_of_another_grain_from_those_that_it_has() {
    let root = tempfile::tempdir().unwrap();
    let db = options().view(buyers(500)).open(root.path().join("db")).unwrap();
    for n in 0..600_u64 {
        sell(&db, NOW - 400 * 60 + n as i64 * 40, n % 70, (n % 30) as f64);
    }
    // From the log: what it did not keep before.
    let more = buyers(500).top("user", 100);
    db.redefine(more.clone(), |_| ControlFlow::Continue(())).unwrap();
    let row = db.query("buyers").unwrap().get(&["FR"]).unwrap().unwrap();
    assert_eq!(row.sketches.top("user").unwrap().len(), 70);
    assert_eq!(row.sketches.distinct("user").unwrap().estimate().value, 70.0);
    // Hours of minutes: merged, not recorded anew.
    let hours = more.grain(Grain::Hour, Keep::All);
    db.redefine(hours, |_| ControlFlow::Continue(())).unwrap();
    let query = db.query("buyers").unwrap();
    let hours = query.buckets(&["FR"], Grain::Hour).unwrap();
    assert_eq!(hours.iter().map(|hour| hour.count).sum::<u64>(), 600);
    for hour in &hours {
        let minutes = query.buckets(&["FR"], Grain::Minute).unwrap();
        let mut merged = quipu::aggregate::Distinct::new(6).unwrap();
        for minute in minutes.iter().filter(|m| hour.start <= m.start && m.start < hour.end) {
            merged.merge(minute.sketches.distinct("user").unwrap());
        }
        assert_eq!(hour.sketches.distinct("user").unwrap(), &merged);
    }
}

#[test]
fn what_sketches_hold_counts_as_memory_and_goes_when_it_leaves() {
    let root = tempfile::tempdir().unwrap();
    let view = View::new("buyers").by(["country"]).distinct_at("user", 14);
    let db = options().memory_budget(1 << 20).view(view).open(root.path().join("db")).unwrap();
    let mut batch = db.batch();
    for country in 0..200_u64 {
        let country = format!("c{country}");
        for user in 0..3_000 {
            let user = format!("u{user}");
            batch.push(&Event::new("sale").dim("country", &country).dim("user", &user)).unwrap();
        }
        db.record_batch(&mut batch).unwrap();
        db.checkpoint().unwrap();
    }
    // 200 of 16 KiB are 3.1 MiB: they were counted, and went.
    assert!(db.statistics().evictions > 0);
    let memory = db.statistics().memory_bytes;
    assert!(memory < 5 << 19, "{memory}");
    let rows = db.query("buyers").unwrap().rows().unwrap();
    let mut n = 0;
    for row in rows {
        let estimate = row.unwrap().sketches.distinct("user").unwrap().estimate();
        assert!((estimate.value / 3_000.0 - 1.0).abs() < 0.03, "{estimate:?}");
        n += 1;
    }
    assert_eq!(n, 200);
    // Where there is room they stay, and are counted as what they take.
    let view = View::new("buyers").by(["country"]).distinct_at("user", 14);
    let roomy = options().view(view).open(root.path().join("roomy")).unwrap();
    let before = roomy.statistics().memory_bytes;
    for user in 0..3_000 {
        roomy
            .record(&Event::new("sale").dim("country", "FR").dim("user", &format!("u{user}")))
            .unwrap();
    }
    roomy.query("buyers").unwrap().get(&["FR"]).unwrap();
    let grown = roomy.statistics().memory_bytes - before;
    assert!((16 << 10..64 << 10).contains(&grown), "{grown}");
}

#[test]
fn heavy_hitters_beyond_their_capacity_are_verified_by_their_bounds() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let view = || View::new("top").top("user", 10).grain(Grain::Day, Keep::All);
    {
        let db = options().view(view()).open(&path).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..2_u64 {
                let db = &db;
                scope.spawn(move || {
                    for n in 0..4_000_u64 {
                        let user = format!("u{}", drawn(thread * 10_000 + n) % (1 + n % 300));
                        db.record(&Event::new("e").dim("user", &user)).unwrap();
                    }
                });
            }
        });
        db.checkpoint().unwrap();
    }
    let report = quipu::verify(&path, Depth::Refold, |_| {}).unwrap();
    assert!(report.is_intact(), "{:?}", report.damages().collect::<Vec<_>>());
}
