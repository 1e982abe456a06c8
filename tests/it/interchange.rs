//! Bytes of Apache DataSketches: what the Python package wrote is read with its answers, and what is written
//! here is what that package has read.
//!
//! `tests/data/datasketches/theirs` was written by `make.py` beside it, with answers; `ours` is written here
//! where `QUIPU_WRITE_GOLDEN` is set, and read by `make.py --check`.

use quipu::ErrorKind;
use quipu::aggregate::datasketches::{Hll, ThetaSketch};
use quipu::aggregate::{Aggregate, Distinct, Kll, Malformed, Theta, Top};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/datasketches").join(name)
}

fn theirs(name: &str) -> Vec<u8> {
    fs::read(folder("theirs").join(format!("{name}.sk"))).unwrap()
}

fn ours(name: &str) -> Vec<u8> {
    fs::read(folder("ours").join(format!("{name}.sk"))).unwrap()
}

/// Names of one kind, and what the package said of each.
fn answers(kind: &str) -> Vec<(String, Value)> {
    let text = fs::read_to_string(folder("theirs/answers.json")).unwrap();
    let answers: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    let answers: Vec<_> = answers.into_iter().filter(|(name, _)| name.starts_with(kind)).collect();
    assert!(answers.len() > 4);
    answers
}

fn users(of: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    of.map(|n| format!("user {n}"))
}

/// A few products are most of what is sold; as in `make.py`.
fn sold(n: u64) -> Vec<(String, u64)> {
    let sold = |i: u64| {
        let product = i * i * 7_919 % 997 * (i * 31 % 101) / 400;
        (format!("product {product}"), 1 + i % 3)
    };
    (0..n).map(sold).collect()
}

fn scattered(n: u32) -> impl Iterator<Item = f64> {
    (0..n).map(move |i| f64::from(i * 7_919 % n))
}

fn hll(lg_k: u8, users: impl Iterator<Item = String>) -> Hll {
    let mut sketch = Hll::new(lg_k).unwrap();
    users.for_each(|user| sketch.insert_text(&user));
    sketch
}

fn near(one: f64, two: f64) -> bool {
    (one - two).abs() <= 1e-9 * two.abs()
}

#[test]
fn hll_sketches_of_others_are_read_and_say_what_they_say_there() {
    for (name, told) in answers("hll") {
        let sketch = Hll::from_bytes(&theirs(&name)).unwrap();
        let answer = sketch.estimate();
        let bounds: Vec<f64> = serde_json::from_value(told["bounds"].clone()).unwrap();
        assert!(near(answer.value, bounds[0]), "{name}: {answer:?} {bounds:?}");
        assert!(
            near(answer.lower, bounds[1]) && near(answer.upper, bounds[2]),
            "{name}: {answer:?}"
        );
        assert_eq!(
            (sketch.lg_k(), sketch.is_empty()),
            (told["lg_k"].as_u64().unwrap() as u8, bounds[0] == 0.0)
        );
        // What is written of it is it, too.
        let again = Hll::from_bytes(&sketch.to_bytes()).unwrap();
        assert_eq!((again.estimate(), again.lg_k()), (answer, sketch.lg_k()), "{name}");
    }
    // The same items are the same here: together they are no more.
    for bits in [4, 6, 8] {
        for (form, n) in [("list", 5), ("set", 300), ("many", 60_000)] {
            let sketch = Hll::from_bytes(&theirs(&format!("hll{bits}_{form}"))).unwrap();
            let (mut once, same) = (sketch.clone(), hll(sketch.lg_k(), users(0..n)));
            // Of two that were merged the estimate is that of registers.
            once.merge(&sketch);
            let mut twice = once.clone();
            twice.merge(&same);
            assert_eq!(twice.estimate().value, once.estimate().value, "{bits} bits, {form}");
            let mut reduced = twice.clone();
            reduced.merge(&hll(7, users(0..10)));
            assert_eq!(reduced.lg_k(), 7);
            assert!((reduced.estimate().value / f64::from(n.max(10)) - 1.0).abs() < 0.4);
        }
    }
    let mut ints = Hll::from_bytes(&theirs("hll_ints")).unwrap();
    let alone = ints.estimate().value;
    (-500..1_500).for_each(|n| ints.insert_int(n));
    assert_eq!(ints.estimate().value, alone);
    let mut floats = Hll::from_bytes(&theirs("hll_floats")).unwrap();
    let alone = floats.estimate().value;
    (0..2_000).for_each(|n| floats.insert_float(f64::from(n) / 2.0 + 0.25));
    assert_eq!(floats.estimate().value, alone);
    floats.insert_text("");
    assert_eq!(floats.estimate().value, alone, "no text is no item");
    assert_eq!(Hll::new(22).unwrap_err().kind(), ErrorKind::Invalid);
}

fn theta_texts(lg_k: u8, users: impl Iterator<Item = String>) -> ThetaSketch {
    let mut sketch = ThetaSketch::new(lg_k).unwrap();
    users.for_each(|user| sketch.insert_text(&user));
    sketch
}

#[test]
fn theta_sketches_of_others_are_read_and_say_what_they_say_there() {
    for (name, told) in answers("theta") {
        let read = ThetaSketch::from_bytes(&theirs(&name));
        if name == "theta_foreign_seed" {
            assert!(read.unwrap_err().to_string().contains("seed"));
            continue;
        }
        let sketch = read.unwrap();
        let answer = sketch.estimate();
        assert!(near(answer.value, told["estimate"].as_f64().unwrap()), "{name}: {answer:?}");
        assert!(answer.lower <= answer.value && answer.value <= answer.upper && !sketch.is_ours());
        let again = ThetaSketch::from_bytes(&sketch.to_bytes().unwrap()).unwrap();
        assert_eq!(again.estimate(), answer, "{name}");
        if matches!(&*name, "theta_one" | "theta_exact" | "theta_many" | "theta_ints") {
            assert_eq!(sketch.to_bytes().unwrap(), theirs(&name), "{name}");
        }
    }
    // Made here of the same items they have the same bytes.
    let own = |users| theta_texts(8, users).to_bytes().unwrap();
    assert_eq!(own(users(0..20_000)), theirs("theta_many"));
    let many = ThetaSketch::from_bytes(&theirs("theta_many")).unwrap();
    let packed = ThetaSketch::from_bytes(&theirs("theta_packed")).unwrap();
    let unordered = ThetaSketch::from_bytes(&theirs("theta_unordered")).unwrap();
    let both = many.intersection(&packed).unwrap();
    assert_eq!(both.estimate(), many.intersection(&unordered).unwrap().estimate());
    assert!((both.estimate().value / 10_000.0 - 1.0).abs() < 0.5, "{:?}", both.estimate());
    let only = many.difference(&packed).unwrap().estimate();
    assert!(near(only.value + both.estimate().value, many.estimate().value) || only.value > 0.0);
    let mut all = ThetaSketch::from_bytes(&theirs("theta_exact")).unwrap();
    all.merge(&ThetaSketch::from_bytes(&theirs("theta_packed_exact")).unwrap()).unwrap();
    assert_eq!(all.estimate().value, 300.0);
    users(290..310).for_each(|user| all.insert_text(&user));
    all.insert_text("");
    assert_eq!(all.estimate().value, 310.0);
    all.merge(&many).unwrap();
    assert!((all.estimate().value / 20_000.0 - 1.0).abs() < 0.2);
    assert_eq!(ThetaSketch::new(4).unwrap_err().kind(), ErrorKind::Invalid);
}

fn theta(k: u16, users: impl Iterator<Item = String>) -> Theta {
    let mut state = Theta::new(k).unwrap();
    users.for_each(|user| state.insert(user.as_bytes()));
    state
}

#[test]
fn theta_states_go_out_and_are_not_taken_for_hashes_of_others() {
    for (k, of) in
        [(64, 0..0), (64, 0..1), (64, 0..64), (64, 0..65), (100, 0..5_000), (4_096, 0..9_000)]
    {
        let state = theta(k, users(of.clone()));
        let there = ThetaSketch::from_bytes(&state.to_datasketches()).unwrap();
        let (one, two) = (state.estimate(), there.estimate());
        assert!(
            near(one.value, two.value) || one.value == two.value,
            "{k} {of:?}: {one:?} {two:?}"
        );
        assert!(near(one.lower, two.lower) && near(one.upper, two.upper), "{one:?} {two:?}");
        assert_eq!(there.is_ours(), of.end > 0);
        assert_eq!(there.to_bytes().unwrap(), state.to_datasketches(), "{k} {of:?}");
    }
    // Set operations say what those of states do, whether a state or its bytes.
    let (a, b) = (theta(512, users(0..20_000)), theta(512, users(10_000..30_000)));
    let there = |state: &Theta| ThetaSketch::try_from(state).unwrap();
    let both =
        there(&a).intersection(&ThetaSketch::from_bytes(&b.to_datasketches()).unwrap()).unwrap();
    assert!(near(both.estimate().value, a.intersection(&b).value));
    let only = there(&a).difference(&there(&b)).unwrap();
    assert!(near(only.estimate().value, a.difference(&b).value));
    let (mut union, mut merged) = (a.clone(), there(&a));
    union.merge(&b);
    merged.merge(&there(&b)).unwrap();
    assert!(near(merged.estimate().value, union.estimate().value));
    // What is observed then is hashed as here.
    let mut few = there(&theta(512, users(0..30)));
    users(20..40).for_each(|user| few.insert_text(&user));
    assert_eq!(few.estimate().value, 40.0);
    let mut others = theta_texts(12, users(0..10));
    for error in [
        others.merge(&few).unwrap_err(),
        few.intersection(&others).unwrap_err(),
        few.difference(&others).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("MurmurHash3"), "{error}");
    }
    assert_eq!(others.estimate().value, 10.0);
    // Nothing is of either kind.
    for mut none in [there(&Theta::default()), theta_texts(12, users(0..0))] {
        assert!(none.is_empty() && others.intersection(&none).unwrap().is_empty());
        assert_eq!(few.difference(&none).unwrap().estimate().value, 40.0);
        assert!(none.difference(&few).unwrap().is_empty());
        none.merge(&few).unwrap();
        assert_eq!((none.estimate().value, none.is_ours()), (40.0, true));
    }
}

#[test]
fn frequent_items_of_others_are_read_with_their_bounds() {
    for (name, told) in answers("frequent") {
        let top = Top::from_datasketches(&theirs(&name)).unwrap();
        assert_eq!(
            (top.total(), top.error()),
            (told["total"].as_u64().unwrap(), told["error"].as_u64().unwrap())
        );
        let rows: Vec<(String, u64, u64)> = serde_json::from_value(told["rows"].clone()).unwrap();
        for (item, lower, upper) in &rows {
            let heavy = top.count_of(item.as_bytes());
            assert_eq!((heavy.lower, heavy.upper), (*lower, *upper), "{name}: {item}");
        }
        assert!(rows.len() >= top.len(), "{name}");
        // It is a state like any other.
        let mut bytes = Vec::new();
        top.encode(&mut bytes);
        assert_eq!(Top::decode(&mut bytes.as_slice()), Ok(top.clone()), "{name}");
        let again = Top::from_datasketches(&top.to_datasketches().unwrap()).unwrap();
        assert_eq!(
            (again.top(999), again.total(), again.error()),
            (top.top(999), top.total(), top.error())
        );
        assert!(top.error() <= top.total() / (u64::from(top.capacity()) + 1), "{name}");
    }
    let mut merged = Top::from_datasketches(&theirs("frequent_purged")).unwrap();
    let mut here = Top::new(30).unwrap();
    for (product, number) in sold(20_000) {
        here.insert(product.as_bytes(), number);
    }
    merged.merge(&here);
    let mut truth = BTreeMap::<String, u64>::new();
    for (product, number) in sold(20_000) {
        *truth.entry(product).or_default() += 2 * number;
    }
    for (product, count) in truth {
        let heavy = merged.count_of(product.as_bytes());
        assert!(heavy.lower <= count && count <= heavy.upper, "{heavy:?} of {count}");
    }
}

#[test]
fn what_frequent_items_cannot_hold_is_said() {
    let mut top = Top::default();
    top.insert(&[0xff, 0xfe], 1);
    let error = top.to_datasketches().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("UTF-8"), "{error}");
    let mut top = Top::default();
    top.insert(b"tea", u64::MAX / 2 + 1);
    assert!(top.to_datasketches().unwrap_err().to_string().contains("2^63 - 1"));
    // A greater map than there are states of: what it has more is given up, bounds hold.
    let mut top = Top::new(Top::CAPACITY_MAX).unwrap();
    (0..90_000_u32).for_each(|n| top.insert(format!("{n:x}").as_bytes(), 1 + u64::from(n % 3)));
    let back = Top::from_datasketches(&top.to_datasketches().unwrap()).unwrap();
    assert_eq!((back.capacity(), back.top(99_999)), (Top::CAPACITY_MAX, top.top(99_999)));
}

#[test]
fn kll_sketches_of_others_are_read_and_say_what_they_say_there() {
    for (name, told) in answers("kll") {
        let read = Kll::from_datasketches(&theirs(&name));
        if name == "kll_floats" {
            assert!(read.is_err(), "of floats of four bytes");
            continue;
        }
        let state = read.unwrap();
        let number = |key: &str| told[key].as_u64();
        assert_eq!(
            (Some(u64::from(state.k())), Some(state.count())),
            (number("k"), number("n")),
            "{name}"
        );
        assert_eq!(Kll::from_datasketches(&state.to_datasketches()).unwrap(), state, "{name}");
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        assert_eq!(Kll::decode(&mut bytes.as_slice()), Ok(state.clone()), "{name}");
        if state.is_empty() {
            continue;
        }
        let list = |key: &str| -> Vec<f64> { serde_json::from_value(told[key].clone()).unwrap() };
        assert_eq!([state.min().unwrap(), state.max().unwrap()].as_slice(), list("ends"), "{name}");
        // At its ends it has the least and the greatest value here, there the next that was kept.
        let asked = list("quantiles").into_iter().zip(list("ranks")).enumerate();
        for (at, (value, rank)) in asked.filter(|(at, _)| (1..16).contains(at)) {
            let quantile = state.quantile(at as f64 / 16.0).unwrap().unwrap();
            assert_eq!(quantile.value, value, "{name}, {at} of 16");
            assert!(near(state.share_up_to(value).unwrap().value, rank), "{name}, {at} of 16");
        }
        assert!(
            state.is_exact() || near(state.rank_error(), told["error"].as_f64().unwrap()),
            "{name}"
        );
    }
    let mut merged = Kll::from_datasketches(&theirs("kll_many")).unwrap();
    scattered(20_000).for_each(|value| merged.insert(20_000.0 + value));
    let share = merged.share_up_to(19_999.5).unwrap();
    assert!((share.value - 0.5).abs() < 2.0 * merged.rank_error(), "{share:?}");
}

fn distinct(precision: u8, users: impl Iterator<Item = String>) -> Distinct {
    let mut state = Distinct::new(precision).unwrap();
    users.for_each(|user| state.insert(user.as_bytes()));
    state
}

#[test]
fn counts_of_different_items_go_out_as_hll_sketches() {
    for precision in [4, 7, 8, 12, 14] {
        for n in [0, 1, 7, 8, 25, 384, 385, 1_024, 1_025, 50_000] {
            let state = distinct(precision, users(0..n));
            for lg_k in 4..=precision {
                let image = state.to_datasketches(lg_k).unwrap();
                let there = Hll::from_bytes(&image).unwrap();
                let (one, two) = (state.estimate(), there.estimate());
                let what = format!("{n} at {precision} as {lg_k}: {one:?}, {two:?}");
                assert!((one.value - two.value).abs() <= 0.001 * one.value, "{what}");
                assert_eq!(there.lg_k(), lg_k);
                // Its own estimate it has until it is merged; then that of its registers.
                let mut merged = there.clone();
                merged.merge(&Hll::new(lg_k).unwrap());
                let off = (merged.estimate().value - f64::from(n)).abs();
                let error = 1.04 / f64::from(1_u32 << lg_k).sqrt();
                assert!(off <= 5.0 * error * f64::from(n), "{what}: {off}");
                // It can be merged with what was made so of other items, and of the same.
                let mut all = there.clone();
                let other = distinct(precision, users(n / 2..n + n / 2));
                all.merge(&Hll::from_bytes(&other.to_datasketches(lg_k).unwrap()).unwrap());
                let off = (all.estimate().value - 1.5 * f64::from(n)).abs();
                assert!(off <= 5.0 * error * 1.5 * f64::from(n) + 1.0, "{what}: {off} merged");
                if n > 0 && lg_k < precision {
                    let again = Hll::from_bytes(&state.to_datasketches(lg_k).unwrap()).unwrap();
                    all.merge(&again);
                    let twice = all.estimate().value;
                    all.merge(&again);
                    assert_eq!(all.estimate().value, twice, "{what}");
                }
            }
        }
        let error = distinct(precision, users(0..9)).to_datasketches(precision + 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(
            error.to_string().contains(&format!("4 to the precision of the state, {precision}"))
        );
    }
}

/// What `make.py --check` reads.
fn written() -> Vec<(&'static str, Vec<u8>)> {
    let as_hll =
        |precision, of, lg_k| distinct(precision, users(of)).to_datasketches(lg_k).unwrap();
    let mut merged = hll(10, users(0..2_000));
    merged.merge(&hll(11, users(1_500..2_500)));
    let (mut hll_ints, mut hll_floats) = (Hll::new(10).unwrap(), Hll::new(10).unwrap());
    let (mut theta_ints, mut theta_floats) =
        (ThetaSketch::new(8).unwrap(), ThetaSketch::new(8).unwrap());
    for n in -500..1_500 {
        hll_ints.insert_int(n);
        theta_ints.insert_int(n);
    }
    for n in 0..2_000 {
        hll_floats.insert_float(f64::from(n) / 2.0 + 0.25);
        theta_floats.insert_float(f64::from(n) / 2.0 + 0.25);
    }
    let as_theta = |k, of| theta(k, users(of)).to_datasketches();
    let top = |capacity, items: &[(String, u64)]| {
        let mut top = Top::new(capacity).unwrap();
        for (item, weight) in items {
            top.insert(item.as_bytes(), *weight);
        }
        top.to_datasketches().unwrap()
    };
    let few = [("tea", 90), ("", 3), ("Krüge \u{1f375}", 7), ("tea", 10)];
    let few = few.map(|(item, weight)| (item.to_owned(), weight));
    let kll = |k, values: &mut dyn Iterator<Item = f64>| {
        let mut state = Kll::new(k).unwrap();
        values.for_each(|value| state.insert(value));
        state.to_datasketches()
    };
    vec![
        ("distinct_none", as_hll(12, 0..0, 12)),
        ("distinct_few", as_hll(12, 0..5, 12)),
        ("distinct_some", as_hll(12, 0..300, 12)),
        ("distinct_some_11", as_hll(12, 0..300, 11)),
        ("distinct_tokens", as_hll(12, 0..1_000, 10)),
        ("distinct_many", as_hll(12, 0..100_000, 11)),
        ("distinct_more", as_hll(11, 50_000..150_000, 11)),
        ("hll_texts", hll(10, users(0..2_000)).to_bytes()),
        ("hll_ints", hll_ints.to_bytes()),
        ("hll_floats", hll_floats.to_bytes()),
        ("hll_merged", merged.to_bytes()),
        ("theta_none", as_theta(4_096, 0..0)),
        ("theta_one", as_theta(4_096, 0..1)),
        ("theta_few", as_theta(4_096, 0..300)),
        ("theta_some", as_theta(4_096, 200..500)),
        ("theta_many", as_theta(512, 0..20_000)),
        ("theta_more", as_theta(512, 10_000..30_000)),
        ("theta_texts", theta_texts(8, users(0..5_000)).to_bytes().unwrap()),
        ("theta_ints", theta_ints.to_bytes().unwrap()),
        ("theta_floats", theta_floats.to_bytes().unwrap()),
        ("top_none", top(20, &[])),
        ("top_exact", top(20, &few)),
        ("top_purged", top(20, &sold(20_000))),
        ("kll_none", kll(200, &mut std::iter::empty())),
        ("kll_one", kll(200, &mut [-2.5].into_iter())),
        ("kll_few", kll(200, &mut [3.0, -1.0, 2.0, 2.0].into_iter())),
        ("kll_many", kll(64, &mut scattered(20_000))),
    ]
}

#[test]
fn what_is_written_is_what_others_have_read() {
    let written = written();
    if std::env::var_os("QUIPU_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(folder("ours")).unwrap();
        for (name, image) in &written {
            let path = folder("ours").join(format!("{name}.sk"));
            if !path.exists() {
                fs::write(path, image).unwrap();
            }
        }
    }
    for (name, image) in &written {
        if *name == "kll_many" {
            // Lots are drawn.
            let of = |image: &[u8]| Kll::from_datasketches(image).unwrap();
            let (one, two) = (of(image), of(&ours(name)));
            assert_eq!((one.k(), one.count(), one.max()), (two.k(), two.count(), two.max()));
        } else {
            assert_eq!(*image, ours(name), "{name}; see make.py");
        }
    }
    let there: BTreeSet<_> =
        fs::read_dir(folder("ours")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(there.len(), written.len());
}

/// A reader of an image, and what may be done with what it gives.
type Reader = fn(&[u8]) -> Result<(), Malformed>;

fn readers() -> [Reader; 4] {
    [
        |image| {
            let mut sketch = Hll::from_bytes(image)?;
            let answer = sketch.estimate();
            assert!(answer.lower <= answer.value && answer.value <= answer.upper, "{answer:?}");
            Hll::from_bytes(&sketch.to_bytes()).unwrap();
            let other = hll(8, users(0..200));
            users(0..300).for_each(|user| sketch.insert_text(&user));
            sketch.merge(&other);
            assert!(sketch.estimate().value > 100.0);
            Ok(())
        },
        |image| {
            let mut sketch = ThetaSketch::from_bytes(image)?;
            let answer = sketch.estimate();
            assert!(answer.lower <= answer.value && answer.value <= answer.upper, "{answer:?}");
            ThetaSketch::from_bytes(&sketch.to_bytes().unwrap()).unwrap();
            users(0..100).for_each(|user| sketch.insert_text(&user));
            let other = if sketch.is_ours() {
                ThetaSketch::try_from(&theta(64, users(50..100))).unwrap()
            } else {
                theta_texts(8, users(50..100))
            };
            sketch.intersection(&other).unwrap().estimate();
            sketch.difference(&other).unwrap().estimate();
            sketch.merge(&other).unwrap();
            assert!(sketch.estimate().value > 0.0 || sketch.estimate().upper > 0.0);
            Ok(())
        },
        |image| {
            let mut top = Top::from_datasketches(image)?;
            Top::from_datasketches(&top.to_datasketches().unwrap()).unwrap();
            let mut bytes = Vec::new();
            top.encode(&mut bytes);
            assert_eq!(Top::decode(&mut bytes.as_slice()), Ok(top.clone()));
            top.merge(&top.clone());
            for (item, weight) in sold(200) {
                top.insert(item.as_bytes(), weight);
            }
            top.top(9);
            Ok(())
        },
        |image| {
            let mut state = Kll::from_datasketches(image)?;
            let mut bytes = Vec::new();
            state.encode(&mut bytes);
            assert_eq!(Kll::decode(&mut bytes.as_slice()), Ok(state.clone()));
            state.merge(&state.clone());
            scattered(500).for_each(|value| state.insert(value));
            assert!(state.quantiles(&[0.0, 0.3, 1.0]).unwrap().len() == 3);
            Ok(())
        },
    ]
}

fn images() -> Vec<(String, Vec<u8>)> {
    let named = ["hll", "theta", "frequent", "kll"].into_iter().flat_map(answers);
    let theirs = named.map(|(name, _)| (name.clone(), theirs(&name)));
    theirs.chain(written().into_iter().map(|(name, image)| (name.to_owned(), image))).collect()
}

#[test]
fn an_image_is_read_by_its_own_reader_and_whole_or_not_at_all() {
    for (name, image) in images() {
        let readable = readers().iter().filter(|reader| reader(&image).is_ok()).count();
        let is_refused = matches!(&*name, "theta_foreign_seed" | "kll_floats");
        assert_eq!(readable, usize::from(!is_refused), "{name}");
        for reader in readers() {
            for length in (0..image.len()).filter(|length| *length < 100 || length % 37 == 0) {
                assert!(reader(&image[..length]).is_err(), "{name}, {length} bytes");
            }
            let more = [&image[..], &[1]].concat();
            assert!(reader(&more).is_err(), "{name}, and a byte");
        }
    }
}

/// Cells that no look-up comes to would be counted again, and one that is there twice is.
#[test]
fn a_set_has_each_coupon_once_where_it_is_looked_for() {
    let image = theirs("hll8_set_updatable");
    let cells: Vec<usize> = (12..image.len()).step_by(4).collect();
    let cell = |at: usize| &image[at..at + 4];
    let taken: Vec<usize> = cells.iter().copied().filter(|at| cell(*at) != [0; 4]).collect();
    assert_eq!((image[7] & 3, taken.len()), (1, 40));
    let mut twice = image.clone();
    twice.copy_within(taken[0]..taken[0] + 4, taken[1]);
    assert!(Hll::from_bytes(&twice).is_err());
    let free = cells.iter().copied().filter(|at| cell(*at) == [0; 4]);
    let elsewhere = free.filter(|free| {
        let mut moved = image.clone();
        moved.copy_within(taken[0]..taken[0] + 4, *free);
        moved[taken[0]..taken[0] + 4].fill(0);
        Hll::from_bytes(&moved).is_ok()
    });
    assert_eq!(elsewhere.count(), 0);
}

/// A cell of a list behind those that it says are taken: it would be taken and not counted.
#[test]
fn a_list_has_no_more_coupons_than_it_says() {
    let mut image = vec![2, 1, 7, 9, 3, 0, 1, 8];
    image.extend_from_slice(&0x0440_342e_u32.to_le_bytes());
    image.resize(40, 0);
    assert!(Hll::from_bytes(&image).is_ok());
    for coupon in [0x0006_e000_u32, 0x1406_e000] {
        image[12..16].copy_from_slice(&coupon.to_le_bytes());
        assert!(Hll::from_bytes(&image).is_err(), "{coupon:x}");
    }
}

#[test]
fn no_flipped_bits_make_a_reader_panic() {
    for (name, image) in images() {
        let mut refused = 0;
        // All bits of the header and of what is behind it, some of the rest.
        for at in (0..image.len()).filter(|at| *at < 80 || at % 53 == 0) {
            for bit in 0..8 {
                let mut other = image.clone();
                other[at] ^= 1 << bit;
                refused += usize::from(readers().iter().all(|reader| reader(&other).is_err()));
            }
            for byte in [0x00, 0x7f, 0xff] {
                let mut other = image.clone();
                other[at] = byte;
                for reader in readers() {
                    let _refused = reader(&other);
                }
            }
        }
        assert!(refused > 8, "{name}: {refused}");
    }
}

/// What an image says of itself but cannot be.
#[test]
fn forged_images_are_refused() {
    let list = theirs("hll8_list_updatable");
    let used = usize::from(list[6]);
    let (first, free) = (8, 8 + 4 * used);
    assert!(Hll::from_bytes(&list).is_ok() && list.len() > free);
    let mut in_a_free_cell = list.clone();
    in_a_free_cell[free] = 1;
    let mut twice = list.clone();
    twice.copy_within(first..first + 4, first + 4);
    for image in [in_a_free_cell, twice] {
        assert!(Hll::from_bytes(&image).is_err());
    }
    let mut few = Kll::default();
    few.insert(1.0);
    few.insert(4.0);
    let image = few.to_datasketches();
    let at = image.windows(8).position(|bytes| bytes == 4_f64.to_le_bytes()).unwrap();
    let mut ends = image.clone();
    ends[at..at + 8].copy_from_slice(&9_f64.to_le_bytes());
    assert!(Kll::from_datasketches(&image).is_ok());
    assert!(Kll::from_datasketches(&ends).is_err(), "the greatest of 1 and 4 is not 9");
}

#[test]
fn zeros_are_one_number_in_a_sketch_of_ours_too() {
    let mut ours = ThetaSketch::from_bytes(&Theta::default().to_datasketches()).unwrap();
    for number in [0.0, -0.0, f64::NAN, -f64::NAN] {
        ours.insert_float(number);
    }
    assert_eq!(ours.estimate().value, 2.0);
}
