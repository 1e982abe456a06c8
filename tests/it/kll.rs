//! KLL sketches: within their error in any merge tree, exact while small; in views, through every way of
//! coming about, where their bytes are not the same.

use crate::directory::{NOW, crash_image, options};
use quipu::aggregate::{Aggregate, Approx, Kll};
use quipu::{Db, Depth, ErrorKind, Event, Grain, Keep, ReadOnlyDb, TestClock, Timestamp, View};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

const HOUR: i64 = 3_600;

/// Numbers that look drawn, and are the same each time.
fn drawn(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 11
}

/// Streams whose values lie in ways that are hard for one sketch or another.
fn streams(n: u64) -> [Vec<f64>; 5] {
    [
        (0..n).map(|i| i as f64).collect(),
        (0..n).rev().map(|i| -(i as f64)).collect(),
        // A few values that are most of all.
        (0..n).map(|i| (1e6 / (1 + drawn(i) % 1_000_000) as f64).floor()).collect(),
        // Over hundreds of orders of magnitude, of either sign.
        (0..n).map(|i| if i % 3 == 0 { -1.0 } else { 1.0 } * (drawn(i) as f64).powi(9)).collect(),
        // Low and high in turn, closer and closer.
        (0..n).map(|i| if i % 2 == 0 { i as f64 } else { (2 * n - i) as f64 }).collect(),
    ]
}

fn kll(values: &[f64], k: u16) -> Kll {
    let mut state = Kll::new(k).unwrap();
    for value in values {
        state.insert(*value);
    }
    state
}

/// Of parts of different sizes, merged two by two.
fn merged(values: &[f64], k: u16) -> Kll {
    let mut parts: Vec<Kll> = Vec::new();
    let (mut rest, mut n) = (values, 0);
    while !rest.is_empty() {
        let (part, others) = rest.split_at((drawn(n) as usize % 700).min(rest.len()));
        (rest, n) = (others, n + 1);
        parts.push(kll(part, k));
    }
    while parts.len() > 1 {
        let other = parts.swap_remove(drawn(parts.len() as u64) as usize % parts.len());
        let at = drawn(parts.len() as u64 + 7) as usize % parts.len();
        parts[at].merge(&other);
    }
    parts.pop().unwrap()
}

/// How many of the sorted values are not greater.
fn rank(sorted: &[f64], value: f64) -> usize {
    sorted.partition_point(|other| *other <= value)
}

/// By what part of all values the sketch is off where it is off most, at values and between them.
fn greatest_error(state: &Kll, sorted: &[f64]) -> f64 {
    let n = sorted.len() as f64;
    let at = (0..=200).map(|i| sorted[i * (sorted.len() - 1) / 200]);
    let errors = at.map(|value| {
        (state.share_up_to(value).unwrap().value - rank(sorted, value) as f64 / n).abs()
    });
    errors.fold(0.0, f64::max)
}

#[test]
fn no_rank_is_further_off_than_is_said_in_any_merge_tree() {
    let (mut over, mut trials) = (0, 0);
    for values in streams(9_000) {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        for round in 0..40 {
            let k = [64, 200][round % 2];
            let state = if round % 4 < 2 { kll(&values, k) } else { merged(&values, k) };
            assert_eq!((state.count(), state.is_exact()), (9_000, false));
            assert_eq!(
                (state.min(), state.max()),
                (sorted.first().copied(), sorted.last().copied())
            );
            let error = state.rank_error();
            assert!((error - 2.296 / f64::from(k).powf(0.9723)).abs() < 1e-12, "{error}");
            let off = greatest_error(&state, &sorted);
            assert!(off < 2.0 * error, "{off} of {error}, k {k}: lots do not do that");
            over += usize::from(off > error);
            trials += 1;
        }
    }
    // One in a hundred at most; that six times as many come by chance has a probability of 1e-7.
    assert!(over <= trials * 6 / 100, "{over} of {trials}");
}

/// Whether all that is asked of a sketch is within the bounds of its answers.
fn is_within_bounds(state: &Kll, sorted: &[f64]) -> bool {
    let n = sorted.len() as f64;
    let is_in = |answer: Approx, truth: f64| {
        assert!(answer.lower <= answer.value && answer.value <= answer.upper, "{answer:?}");
        assert!(answer.confidence == if answer.is_exact() { answer.confidence } else { 0.99 });
        answer.lower <= truth && truth <= answer.upper
    };
    let mut is_within = true;
    for percent in 0..=100 {
        let share = f64::from(percent) / 100.0;
        let at = ((share * n).ceil() as usize).clamp(1, sorted.len()) - 1;
        let quantile = state.quantile(share).unwrap().unwrap();
        is_within &= is_in(quantile, sorted[at]);
        // What lies between is no more than the error says, in the sketch and of the sketch.
        let between = sorted.partition_point(|value| *value < quantile.upper);
        let between = between.saturating_sub(rank(sorted, quantile.lower));
        assert!((between as f64) < 6.0 * state.rank_error() * n, "{quantile:?}");
        is_within &= is_in(state.count_up_to(sorted[at]), rank(sorted, sorted[at]) as f64);
    }
    let mut edges: Vec<f64> = [2, 25, 26, 95].map(|part| sorted[part * sorted.len() / 100]).into();
    edges.dedup();
    for (span, count) in state.histogram(&edges).unwrap().into_iter().enumerate() {
        let until = |at: Option<&f64>| at.map_or(n, |edge| rank(sorted, *edge) as f64);
        let before = if span == 0 { 0.0 } else { until(edges.get(span - 1)) };
        is_within &= is_in(count, until(edges.get(span)) - before);
    }
    is_within
}

#[test]
fn answers_are_within_their_bounds_and_bounds_are_not_wide() {
    let mut outside = 0;
    for values in streams(4_000) {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        outside += (0..20).filter(|_| !is_within_bounds(&kll(&values, 100), &sorted)).count();
    }
    // One in a hundred at most.
    assert!(outside <= 8, "{outside} of 100");
}

#[test]
fn few_values_are_exact_and_ends_always() {
    let values: Vec<f64> = (0..200).map(|n| (drawn(n) % 50) as f64 / 4.0).collect();
    let mut sorted = values.clone();
    sorted.sort_by(f64::total_cmp);
    let state = merged(&values, 200);
    assert!(state.is_exact() && state.rank_error() == 0.0);
    for n in 1..=200 {
        let answer = state.quantile(f64::from(n) / 200.0).unwrap().unwrap();
        assert_eq!(
            (answer.value, answer.is_exact(), answer.confidence),
            (sorted[n as usize - 1], true, 1.0)
        );
        let count = state.count_up_to(answer.value);
        assert_eq!((count.value, count.is_exact()), (rank(&sorted, answer.value) as f64, true));
    }
    assert_eq!(state.quantile(0.0).unwrap().unwrap().value, sorted[0]);
    // Below and above all there is nothing to estimate.
    let many = kll(&(0..5_000).map(f64::from).collect::<Vec<_>>(), 16);
    for (value, count) in
        [(-0.5, 0.0), (f64::NEG_INFINITY, 0.0), (4_999.0, 5_000.0), (9e9, 5_000.0)]
    {
        let answer = many.count_up_to(value);
        assert_eq!((answer.value, answer.is_exact()), (count, true), "{value}");
    }
    assert_eq!(many.quantile(1.0).unwrap().unwrap().upper, 4_999.0);
    let counts = many.histogram(&[-1.0, 5_000.0]).unwrap();
    assert_eq!(counts.iter().map(|count| count.value).collect::<Vec<_>>(), [0.0, 5_000.0, 0.0]);

    let none = Kll::default();
    assert_eq!((none.count(), none.min(), none.median()), (0, None, None));
    assert_eq!((none.quantile(0.5).unwrap(), none.count_up_to(1.0).value), (None, 0.0));
    assert_eq!(none.share_up_to(1.0), None);
    assert!(none.quantile(1.5).is_err() && none.histogram(&[2.0, 1.0]).is_err());
    assert_eq!(Kll::new(7).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn the_empty_state_changes_nothing_and_sizes_differ_in_peace() {
    let state = kll(&(0..900).map(f64::from).collect::<Vec<_>>(), 64);
    let mut empty = Kll::default();
    empty.merge(&state);
    assert_eq!((&empty, empty.k()), (&state, 64));
    let mut same = state.clone();
    same.merge(&Kll::default());
    assert_eq!(same, state);
    // The error is that of the coarser one, whichever is merged into which.
    let fine = kll(&(900..1_800).map(f64::from).collect::<Vec<_>>(), 400);
    for (mut one, two) in [(state.clone(), &fine), (fine.clone(), &state)] {
        let k = one.k();
        one.merge(two);
        assert_eq!((one.k(), one.count(), one.rank_error()), (k, 1_800, state.rank_error()));
        let sorted: Vec<f64> = (0..1_800).map(f64::from).collect();
        assert!(greatest_error(&one, &sorted) < 2.0 * state.rank_error());
    }
}

fn bytes(state: &Kll) -> Vec<u8> {
    let mut out = Vec::new();
    state.encode(&mut out);
    out
}

#[test]
fn a_state_comes_back_and_other_bytes_are_refused() {
    for n in [0, 1, 2, 63, 64, 65, 400, 30_000] {
        let state = kll(&(0..n).map(f64::from).collect::<Vec<_>>(), 64);
        let own = bytes(&state);
        let mut rest = own.as_slice();
        assert_eq!(Kll::decode(&mut rest).unwrap(), state);
        assert!(rest.is_empty());
        for length in 0..own.len() {
            assert!(Kll::decode(&mut &own[..length]).is_err(), "{n} values, {length} bytes");
        }
        for at in 0..own.len() {
            for bit in 0..8 {
                let mut other = own.clone();
                other[at] ^= 1 << bit;
                let mut rest = other.as_slice();
                if let Ok(mut other_state) = Kll::decode(&mut rest) {
                    assert_eq!(bytes(&other_state), other[..other.len() - rest.len()]);
                    (0..200).for_each(|n| other_state.insert(f64::from(n)));
                    other_state.merge(&state);
                    assert!(other_state.median().is_some());
                }
            }
        }
    }
    assert_eq!(bytes(&Kll::default()), [0]);
    assert_eq!(bytes(&Kll::new(200).unwrap()), [200, 1, 0]);
}

fn view() -> View {
    View::new("scores")
        .by(["game"])
        .kll("value", 100)
        .kll("rating", 32)
        .quantiles("value")
        .grain(Grain::Hour, Keep::Last(48))
        .grain(Grain::Day, Keep::All)
}

#[derive(Clone)]
struct Played {
    hour: i64,
    game: &'static str,
    value: f64,
    rating: Option<f64>,
}

fn played(n: std::ops::Range<u64>) -> Vec<Played> {
    let play = |n: u64| {
        let a = drawn(n);
        Played {
            hour: NOW / HOUR - 60 + (n * 60 / 6_000) as i64,
            game: if a.is_multiple_of(20) { "go" } else { "chess" },
            value: (a % 90_000) as f64 - 45_000.0,
            rating: (!a.is_multiple_of(7)).then_some((a % 3_000) as f64),
        }
    };
    n.map(play).collect()
}

fn record(db: &Db, played: &[Played]) {
    for play in played {
        let at = Timestamp::from_secs(play.hour * HOUR + 7);
        let event = Event::new("played").at(at).dim("game", play.game).value(play.value);
        let event =
            if let Some(rating) = play.rating { event.measure("rating", rating) } else { event };
        db.record(&event).unwrap();
    }
}

/// Holds a sketch to the values.
fn check(state: &Kll, mut values: Vec<f64>, how: &str) {
    values.sort_by(f64::total_cmp);
    assert_eq!(state.count(), values.len() as u64, "{how}");
    assert_eq!(
        (state.min(), state.max()),
        (values.first().copied(), values.last().copied()),
        "{how}"
    );
    assert_eq!(state.is_exact(), values.len() <= usize::from(state.k()), "{how}");
    if !values.is_empty() {
        assert!(greatest_error(state, &values) <= 2.0 * state.rank_error(), "{how}");
    }
}

fn check_all(db: &Db, played: &[Played], how: &str) {
    let values = |is: &dyn Fn(&Played) -> bool| -> (Vec<f64>, Vec<f64>) {
        let of: Vec<&Played> = played.iter().filter(|play| is(play)).collect();
        (of.iter().map(|p| p.value).collect(), of.iter().filter_map(|p| p.rating).collect())
    };
    let held = |sketches: &quipu::aggregate::Sketches, is: &dyn Fn(&Played) -> bool| {
        let (of_value, of_rating) = values(is);
        check(sketches.kll("value").unwrap(), of_value, how);
        check(sketches.kll("rating").unwrap(), of_rating, how);
        assert_eq!(sketches.kll("nothing"), None);
    };
    let query = db.query("scores").unwrap();
    for game in ["go", "chess"] {
        held(&query.get(&[game]).unwrap().unwrap().sketches, &|play| play.game == game);
        for bucket in query.buckets(&[game], Grain::Hour).unwrap() {
            let hour = bucket.start.micros() / 1_000_000 / HOUR;
            held(&bucket.sketches, &|play| play.game == game && play.hour == hour);
        }
        let day = query.series(&[game]).unwrap().last_hours(24).total().unwrap().unwrap();
        held(&day.sketches, &|play| play.game == game && play.hour > NOW / HOUR - 24);
    }
    held(&query.totals().unwrap().sketches, &|_| true);
}

#[test]
fn views_keep_them_through_crashes_little_memory_and_backfills() {
    let root = tempfile::tempdir().unwrap();
    let clock = || TestClock::at(Timestamp::from_secs(NOW));
    let played = played(0..6_000);
    let path = root.path().join("direct");
    let direct = options().clock(clock()).view(view()).open(&path).unwrap();
    record(&direct, &played[..4_000]);
    direct.checkpoint().unwrap();
    record(&direct, &played[4_000..]);
    check_all(&direct, &played, "as recorded");
    let image = root.path().join("image");
    crash_image(&path, &image);
    check_all(&options().clock(clock()).open(&image).unwrap(), &played, "after a crash");
    let reader = ReadOnlyDb::open(&image).unwrap();
    assert!(reader.query("scores").unwrap().get(&["go"]).unwrap().is_some());
    direct.close().unwrap();
    drop(direct);
    // Folded again it has other bytes, and is none the worse.
    let report = quipu::verify(&path, Depth::Refold, |_| {}).unwrap();
    assert!(report.is_intact(), "{report:?}");

    let path = root.path().join("small");
    let small = options().clock(clock()).memory_budget(1).view(view()).open(&path).unwrap();
    for played in played.chunks(500) {
        record(&small, played);
        small.checkpoint().unwrap();
    }
    check_all(&small, &played, "in little memory");
    drop(small);
    assert!(quipu::verify(&path, Depth::Refold, |_| {}).unwrap().is_intact());

    let late = options().clock(clock()).open(root.path().join("late")).unwrap();
    record(&late, &played);
    late.define(view()).unwrap();
    late.backfill("scores", |_| ControlFlow::Continue(())).unwrap();
    check_all(&late, &played, "filled from the log");
}

#[test]
fn other_grains_are_had_of_what_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let path = root.path().join("db");
    let db = options().clock(clock).view(view()).open(&path).unwrap();
    let played = played(0..6_000);
    record(&db, &played);
    let more = view().grain(Grain::Week, Keep::All);
    db.redefine(more, |_| ControlFlow::Continue(())).unwrap();
    check_all(&db, &played, "redefined");
    let weeks = db.query("scores").unwrap().buckets(&["go"], Grain::Week).unwrap();
    let counted: u64 = weeks.iter().map(|week| week.sketches.kll("value").unwrap().count()).sum();
    assert_eq!(counted, played.iter().filter(|play| play.game == "go").count() as u64);
}

#[test]
fn an_event_that_stands_for_many_is_as_many_values() {
    let root = tempfile::tempdir().unwrap();
    let db = options().view(View::new("v").kll("value", 64)).open(root.path().join("db")).unwrap();
    for (value, times) in [(1.0, 3_000), (2.0, 1), (3.0, 5_999)] {
        db.record(&Event::new("e").value(value).times(times)).unwrap();
    }
    let state = || db.query("v").unwrap().totals().unwrap().sketches.kll("value").unwrap().clone();
    assert_eq!((state().count(), state().max()), (9_000, Some(3.0)));
    let below = state().count_up_to(1.0);
    assert!(below.lower <= 3_000.0 && 3_000.0 <= below.upper, "{below:?}");
    // More than there can be: as many as there can, and no panic.
    for _ in 0..3 {
        db.record(&Event::new("e").value(9.0).times(u64::MAX / 3)).unwrap();
    }
    assert_eq!((state().count(), state().max()), (1 << 60, Some(9.0)));
    let mut twice = state();
    twice.merge(&state());
    assert_eq!(twice.count(), 1 << 60);
    assert_eq!(twice.median().unwrap().value, 9.0);
    assert_eq!(Kll::decode(&mut bytes(&twice).as_slice()).unwrap(), twice);
}

#[test]
fn a_definition_says_what_it_keeps_and_what_cannot_be_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    assert_eq!(
        view().to_string().split(", 48").next(),
        Some(
            "scores: by game, count, kll sketch 100 of value, kll sketch 32 of rating, quantiles of value"
        )
    );
    assert_eq!(view().kll_measures().collect::<Vec<_>>(), ["value", "rating"]);
    assert_eq!(view().measures().len(), 0);
    for (view, told) in [
        (View::new("v").kll("value", 7), "8 to 65535"),
        (View::new("v").kll("value", 9).kll("value", 10), "twice"),
        (View::new("v").kll("", 9), "1 to 255"),
    ] {
        let error = db.define(view).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(told), "{error}");
    }
    // Another k is another view.
    db.define(View::new("v").kll("value", 9)).unwrap();
    let conflict = db.define(View::new("v").kll("value", 10)).unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::ViewConflict);
}

#[test]
fn as_json_it_is_its_quantiles() {
    let root = tempfile::tempdir().unwrap();
    let db = options().view(View::new("v").kll("value", 64)).open(root.path().join("db")).unwrap();
    for n in 1..=10 {
        db.record(&Event::new("e").value(f64::from(n))).unwrap();
    }
    let totals = serde_json::to_value(db.query("v").unwrap().totals().unwrap()).unwrap();
    let sketch: BTreeMap<String, serde_json::Value> =
        serde_json::from_value(totals["sketches"][0].clone()).unwrap();
    assert_eq!(sketch["of"], "value");
    assert_eq!(
        (&sketch["kll"]["count"], &sketch["kll"]["p50"]["value"]),
        (&10.into(), &5.0.into())
    );
}
