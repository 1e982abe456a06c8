//! How many different items, and how many several sets have in common: laws to the byte, errors against
//! the theory over many trials, hostile bytes.

use proptest::prelude::*;
use quipu::Timestamp;
use quipu::aggregate::{Aggregate, Approx, Distinct, Theta};

/// What is common to the two.
trait Sketch: for<'a> Aggregate<Input<'a> = &'a [u8]> + std::fmt::Debug {
    /// Precisions, or sizes of a sample.
    const SIZES: &'static [u16];
    const DEFAULT: u16;

    fn of(size: u16) -> Self;
    fn answer(&self) -> Approx;

    fn add(&mut self, item: &[u8]) {
        self.observe(item, Timestamp::default());
    }
}

impl Sketch for Distinct {
    const SIZES: &'static [u16] = &[4, 9, 12, 13, 14];
    const DEFAULT: u16 = 12;

    fn of(size: u16) -> Self {
        let state = Distinct::new(u8::try_from(size).unwrap()).unwrap();
        assert_eq!(u16::from(state.precision()), size);
        state
    }

    fn answer(&self) -> Approx {
        self.estimate()
    }
}

impl Sketch for Theta {
    const SIZES: &'static [u16] = &[64, 200, 1_000, 4_096];
    const DEFAULT: u16 = 4_096;

    fn of(size: u16) -> Self {
        let state = Theta::new(size).unwrap();
        assert_eq!(state.k(), size);
        state
    }

    fn answer(&self) -> Approx {
        self.estimate()
    }
}

fn sketch<S: Sketch>(size: u16, items: impl Iterator<Item = u64>) -> S {
    let mut state = S::of(size);
    items.for_each(|item| state.add(&item.to_le_bytes()));
    state
}

fn bytes(state: &impl Aggregate) -> Vec<u8> {
    let mut out = Vec::new();
    state.encode(&mut out);
    out
}

fn decoded<S: Sketch>(bytes: &[u8]) -> S {
    let mut rest = bytes;
    let state = S::decode(&mut rest).unwrap();
    assert!(rest.is_empty(), "{} bytes left of {}", rest.len(), bytes.len());
    state
}

fn merged<S: Sketch>(a: &S, b: &S) -> S {
    let mut out = a.clone();
    out.merge(b);
    out
}

/// A generator for tests: `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Items some of which come again, in parts of their own sizes; and an order in which to merge them.
#[derive(Clone, Debug)]
struct Parts {
    items: Vec<(u64, usize)>,
    sizes: Vec<u16>,
    order: u64,
}

fn parts<S: Sketch>() -> impl Strategy<Value = Parts> {
    let number = prop_oneof![0..20_usize, 900..1_200_usize, 2_500..4_500_usize];
    let sizes = prop::collection::vec(prop::sample::select(S::SIZES), 1..6);
    (number, sizes, any::<u64>()).prop_map(|(number, sizes, order)| {
        let mut random = Random(order);
        let mut item = || (random.next() % (number as u64 * 8), random.next() as usize);
        let items = (0..number).map(|_| item()).map(|(item, part)| (item, part % sizes.len()));
        Parts { items: items.collect(), sizes, order }
    })
}

/// Whichever way the parts are observed, decoded and merged, the bytes are those of one state that has
/// observed everything with the least size.
fn any_way_gives_the_same_bytes<S: Sketch>(parts: Parts) {
    let Parts { items, sizes, order } = parts;
    let mut states: Vec<S> = sizes.iter().map(|size| S::of(*size)).collect();
    for (item, part) in items.iter().rev() {
        states[*part].add(&item.to_le_bytes());
    }
    // What was observed is in parts that count; an empty one counts if it is not the default.
    let counts = |part: usize| sizes[part] != S::DEFAULT || items.iter().any(|i| i.1 == part);
    let size = (0..sizes.len()).filter(|part| counts(*part)).map(|part| sizes[part]).min();
    let direct: S = sketch(size.unwrap_or(S::DEFAULT), items.iter().map(|item| item.0));
    let is = bytes(&direct);
    assert_eq!(decoded::<S>(&is), direct);

    let mut random = Random(order);
    let mut left = states.clone();
    while left.len() > 1 {
        let one = left.swap_remove(random.next() as usize % left.len());
        let at = random.next() as usize % left.len();
        let other = if order % 2 == 0 { left[at].clone() } else { decoded(&bytes(&left[at])) };
        left[at] = merged(&one, &other);
    }
    assert_eq!(left[0], direct);
    assert_eq!(bytes(&left[0]), is);
    // Decoded in the middle, and gone on with; what was there before changes nothing.
    let mut going_on: S = decoded(&bytes(&states[0]));
    going_on.merge(&direct);
    items.iter().take(50).for_each(|item| going_on.add(&item.0.to_le_bytes()));
    assert_eq!(bytes(&going_on), is);
    assert_eq!(merged(&S::default(), &direct), direct);
    assert_eq!(merged(&direct, &S::default()), direct);
    assert_eq!(merged(&direct, &direct), direct);
    assert_eq!(direct.answer(), left[0].answer());
}

/// An error, or a state whose bytes are these.
fn only_own_bytes_are_taken<S: Sketch>(bytes_of: &[u8]) -> Option<S> {
    let mut rest = bytes_of;
    let state = S::decode(&mut rest).ok()?;
    assert_eq!(bytes(&state), bytes_of[..bytes_of.len() - rest.len()]);
    assert!(state.heap_bytes() <= 2 * bytes_of.len() + (64 << 10));
    let answer = state.answer();
    assert!(0.0 <= answer.lower && answer.lower <= answer.value && answer.value <= answer.upper);
    Some(state)
}

fn damage_is_told<S: Sketch>(size: u16, number: u64, at: prop::sample::Index, with: u8) {
    let whole = bytes(&sketch::<S>(size, 0..number));
    let cut = &whole[..at.index(whole.len())];
    assert!(S::decode(&mut &*cut).is_err(), "{} of {} bytes", cut.len(), whole.len());
    let mut changed = whole.clone();
    *at.get_mut(&mut changed) ^= with;
    only_own_bytes_are_taken::<S>(&changed);
    changed.push(with);
    only_own_bytes_are_taken::<S>(&changed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_count_is_the_same_whichever_way_it_came(parts in parts::<Distinct>()) {
        any_way_gives_the_same_bytes::<Distinct>(parts);
    }

    #[test]
    fn a_sample_is_the_same_whichever_way_it_came(parts in parts::<Theta>()) {
        any_way_gives_the_same_bytes::<Theta>(parts);
    }

    #[test]
    fn damaged_bytes_are_errors_or_what_they_say(
        number in prop_oneof![0..40_u64, 1_000..1_100_u64], at: prop::sample::Index, with in 1..=255_u8,
    ) {
        damage_is_told::<Distinct>(11, number, at, with);
        damage_is_told::<Theta>(100, number, at, with);
    }

    #[test]
    fn any_bytes_are_errors_or_what_they_say(
        mut input in prop::collection::vec(any::<u8>(), 0..200), precision in 4..=6_u8, form: bool,
    ) {
        only_own_bytes_are_taken::<Distinct>(&input);
        only_own_bytes_are_taken::<Theta>(&input);
        if let Some(head) = input.first_mut() {
            *head = precision | u8::from(form) << 7;
        }
        only_own_bytes_are_taken::<Distinct>(&input);
        if let [first, second, ..] = &mut input[..] {
            (*first, *second) = (64, *second & 0x7f);
        }
        only_own_bytes_are_taken::<Theta>(&input);
    }
}

/// Tokens one beside the other, at the least and at the greatest: as many as fit, in as few bytes as
/// can say them. (Items could be made whose hashes are like that.)
#[test]
fn crowded_bytes_take_neither_memory_nor_time() {
    let crowd = |first: u64, number: u64, low: u32, head: &[u8]| {
        let (mut bits, gap) = (Vec::new(), first - 1);
        bits.extend((0..gap >> low).map(|_| true));
        bits.push(false);
        bits.extend((0..low).map(|bit| gap >> bit & 1 == 1));
        bits.extend((1..number).flat_map(|_| (0..=low).map(|_| false)));
        let of = |bits: &[bool]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
        let mut bytes = head.to_vec();
        bytes.extend(bits.chunks(8).map(of));
        bytes
    };
    let number = (1 << 18) / 6;
    let head = [18, number as u8 | 0x80, (number >> 7) as u8 | 0x80, (number >> 14) as u8];
    for first in [64, (1 << 40) - number] {
        let bytes = crowd(first, number, 24, &head);
        let state = only_own_bytes_are_taken::<Distinct>(&bytes).unwrap();
        assert_eq!(state.answer().value, number as f64);
        let of = [number as f64, number as f64 + 1.0];
        assert_eq!([state.answer().lower, state.answer().upper], of, "two may have one token");
        let mut more = sketch::<Distinct>(18, 0..1_000);
        more.merge(&decoded(&bytes));
        assert!(more.heap_bytes() == 1 << 18);
    }
    let bytes = crowd(1, 16_385, 24, &[0x80, 0x80, 1, 0x81, 0x80, 1, 49]);
    let state = only_own_bytes_are_taken::<Theta>(&bytes).unwrap();
    assert_eq!(state.k(), 16_384);
}

#[test]
fn what_no_state_encodes_is_refused() {
    let refused = |bytes: &[u8]| Distinct::decode(&mut &*bytes).unwrap_err().to_string();
    assert!(refused(&[]).contains("cut short"));
    assert!(refused(&[3, 0]).contains("precision of 4 to 18"));
    assert!(refused(&[19, 0]).contains("precision of 4 to 18"));
    assert!(refused(&[12, 0x81, 0x08]).contains("more tokens than the precision has"));
    assert!(refused(&[12, 1, 0xfe, 0xff, 0x7f, 0, 0]).contains("keys"), "a token that no hash has");
    let one = bytes(&sketch::<Distinct>(12, 0..1));
    let mut padded = one.clone();
    *padded.last_mut().unwrap() |= 0x80;
    assert!(refused(&padded).contains("padded"), "{one:?}");
    // A register of a level that does not exist, one of nothing below it, and no item at all.
    assert!(refused(&[&[4 | 128, 1][..], &[0; 15]].concat()).contains("registers"));
    assert!(refused(&[&[4 | 128, 13][..], &[0; 15]].concat()).contains("registers"));
    assert!(refused(&[&[4 | 128][..], &[0; 16]].concat()).contains("registers"));
    assert!(refused(&[&[4 | 128][..], &[12; 15]].concat()).contains("cut short"));

    let refused = |bytes: &[u8]| Theta::decode(&mut &*bytes).unwrap_err().to_string();
    assert!(refused(&[63, 0]).contains("64 to 16,384"));
    assert!(refused(&[64, 66]).contains("more hashes"));
    let full = bytes(&sketch::<Theta>(64, 0..500));
    assert_eq!(full[..2], [64, 65]);
    let mut zeros = full.clone();
    zeros[2] -= 1;
    assert!(Theta::decode(&mut zeros.as_slice()).is_err(), "the greatest hash has more zeros");
    for wrong in [3, 19] {
        assert!(Distinct::new(wrong).unwrap_err().to_string().contains("4 to 18"));
    }
    assert!(Theta::new(63).unwrap_err().to_string().contains("64 to 16384"));
}

/// The bytes as `guide/format.md` has them; a change of these is a change of the format.
#[test]
fn bytes_are_what_they_ever_were() {
    let hex =
        |bytes: &[u8]| bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let items = |names: &[&str]| {
        let (mut distinct, mut theta) = (Distinct::default(), Theta::default());
        for name in names {
            distinct.insert(name.as_bytes());
            theta.insert(name.as_bytes());
        }
        [hex(&bytes(&distinct)), hex(&bytes(&theta))]
    };
    assert_eq!(items(&[]), ["0c00", "802000"]);
    let two = ["0c021c888107283c84c82834", "802002c871931e88810728e2a9733d84c82834"];
    assert_eq!(items(&["ann", "bob"]), two);
    let xxh3 = |bytes: &[u8]| format!("{} {:016x}", bytes.len(), xxhash_rust::xxh3::xxh3_64(bytes));
    assert_eq!(xxh3(&bytes(&sketch::<Distinct>(14, 0..1_000))), "3953 9d37a0d900a10255");
    assert_eq!(xxh3(&bytes(&sketch::<Distinct>(12, 0..100_000))), "4097 19dedffdd6d29e6e");
    assert_eq!(xxh3(&bytes(&sketch::<Theta>(1_000, 0..100_000))), "6173 a2ef5949f49adac8");
}

/// What an allocator takes for so many bytes: steps of 16, 8 of them its own.
fn allocated(heap: usize) -> usize {
    if heap == 0 { 0 } else { ((heap + 8).next_multiple_of(16)).max(32) }
}

#[test]
fn a_small_count_takes_little_memory() {
    assert_eq!(size_of::<Distinct>(), 24);
    for (number, most) in [(0, 32), (1, 64), (10, 120), (50, 300), (1_024, 9_000), (5_000, 4_200)] {
        for precision in [12, 14].into_iter().filter(|p| *p == 12 || number <= 1_024) {
            let state = sketch::<Distinct>(precision, 0..number);
            let all = size_of::<Distinct>() + allocated(state.heap_bytes());
            assert!(all <= most, "{number} items at {precision}: {all} bytes");
            assert!(bytes(&state).len() <= 3 + 5 * number as usize || number > 1_024);
        }
    }
    // Tokens never take more than the registers would, from precision 13 on.
    for precision in 13..=18 {
        let mut state = Distinct::new(precision).unwrap();
        for item in 0_u64.. {
            state.insert(&item.to_le_bytes());
            assert!(state.heap_bytes() <= 1 << precision, "{item} items at {precision}");
            if !state.estimate().is_exact() && state.heap_bytes() == 1 << precision {
                assert!(item as usize >= (1 << precision) / 6);
                break;
            }
        }
    }
}

/// Exact to a thousand at every precision; behind that no step that the error does not explain.
#[test]
fn a_count_goes_on_where_it_was_exact() {
    for precision in [4, 8, 12, 14, 18] {
        let mut state = Distinct::new(precision).unwrap();
        for number in 1..=1_024_u64 {
            state.insert(&number.to_le_bytes());
            state.insert(&(1 + number / 2).to_le_bytes());
            let estimate = state.estimate();
            assert!(
                estimate.is_exact()
                    && estimate.value == number as f64
                    && estimate.confidence == 1.0
            );
        }
        for number in 1_025..=10_000_u64 {
            state.insert(&number.to_le_bytes());
            let (estimate, number) = (state.estimate(), number as f64);
            let off = (estimate.value / number - 1.0).abs();
            assert!(estimate.is_exact() || off <= 4.5 * state.standard_error(), "{estimate:?}");
            assert!(!estimate.is_exact() || estimate.value == number);
            assert!(estimate.lower > 1_024.0 || estimate.is_exact());
        }
    }
}

/// After a public suite: random doubles, asked every hundred.
#[test]
fn a_hundred_thousand_doubles_are_within_five_parts_in_a_hundred() {
    let (mut state, mut random) = (Distinct::default(), Random(8));
    for number in 1..=100_000_u32 {
        state.insert(&random.unit().to_le_bytes());
        if number % 100 == 0 {
            let estimate = state.estimate();
            let off = (estimate.value / f64::from(number) - 1.0).abs();
            assert!(off < 0.05, "{number}: {estimate:?}");
            assert!(number > 1_000 || estimate.is_exact());
            assert!(number < 10_000 || state.heap_bytes() == 4_096);
        }
    }
}

/// Trials: relative errors, and how many of the bounds held.
#[derive(Default)]
struct Trials {
    errors: Vec<f64>,
    held: usize,
}

impl Trials {
    fn add(&mut self, answer: Approx, truth: f64) {
        self.errors.push(answer.value / truth - 1.0);
        self.held += usize::from(answer.lower <= truth && truth <= answer.upper);
    }

    /// Root of the mean square against the theory's, bias, and coverage of 95 %, each within 3.5 times
    /// what so many trials leave open.
    fn check(&self, case: &str, standard_error: f64) {
        let n = self.errors.len() as f64;
        let rmse = (self.errors.iter().map(|error| error * error).sum::<f64>() / n).sqrt();
        let bias = self.errors.iter().sum::<f64>() / n;
        let held = self.held as f64 / n;
        let told = format!("{case}: rmse {rmse:.4}, bias {bias:+.5}, held {held:.3}");
        let open = 3.5 / (2.0 * n).sqrt();
        assert!((rmse / standard_error - 1.0).abs() <= open, "{told}, theory {standard_error:.4}");
        assert!(bias.abs() <= 3.5 * standard_error / n.sqrt(), "{told}");
        assert!(held >= 0.95 - 3.5 * (0.95 * 0.05 / n).sqrt(), "{told}");
        let furthest = self.errors.iter().fold(0.0, |most: f64, error| most.max(error.abs()));
        assert!(furthest <= 5.0 * standard_error, "{told}, {furthest:.4} at most");
    }
}

/// Adds `number` items of a kind of stream to two; gives how many different ones there were.
fn stream(kind: &str, trial: u64, number: u64, mut add: impl FnMut(&[u8])) -> f64 {
    let mut random = Random(trial ^ number << 20);
    match kind {
        "sequential" => (0..number).for_each(|i| add(&(trial << 32 | i).to_le_bytes())),
        "texts" => (0..number).for_each(|_| add(format!("user-{:016x}", random.next()).as_bytes())),
        // Item k comes about as often as 1 / k.
        _ => {
            let mut seen = Vec::new();
            for _ in 0..number {
                let rank = (number as f64).powf(random.unit()) as u64;
                let item = trial << 32 | ((rank << 8) | (random.next() % 64));
                seen.push(item);
                add(&item.to_le_bytes());
            }
            seen.sort_unstable();
            seen.dedup();
            return seen.len() as f64;
        }
    }
    number as f64
}

/// The theory's errors at every size, without a bias; 0.761 / √registers and 1 / √k. A small state has
/// large errors, which trials of few items show.
#[test]
fn errors_are_those_of_the_theory() {
    for kind in ["sequential", "texts", "zipf"] {
        for (number, trials, precision) in [
            (10_000, 150, 8),
            (100_000, 30, 8),
            (100_000, 20, 12),
            (1_000_000, 3, 14),
            (10_000_000, 2, 14),
        ] {
            let mut of = (Trials::default(), Trials::default());
            for trial in 0..trials {
                let (mut distinct, mut theta) = (Distinct::of(precision), Theta::of(256));
                let truth = stream(kind, trial, number, |item| {
                    distinct.insert(item);
                    theta.insert(item);
                });
                of.0.add(distinct.estimate(), truth);
                of.1.add(theta.estimate(), truth);
            }
            let case = format!("{number} of {kind} at {precision}");
            let registers = f64::from(1 << precision);
            of.0.check(&case, 0.7609 / registers.sqrt());
            of.1.check(&case, 1.0 / 16.0);
        }
    }
}

/// The estimate of registers has no bias where there are few of them to an item or an item has many, either.
#[test]
fn errors_are_those_of_the_theory_just_behind_the_exact() {
    for (precision, number) in [(6, 1_100), (13, 1_500), (14, 3_000), (16, 11_500)] {
        let mut of = Trials::default();
        for trial in 0..200 {
            let state: Distinct = sketch(precision, (0..number).map(|item| trial << 32 | item));
            assert!(state.heap_bytes() == 1 << precision);
            of.add(state.estimate(), number as f64);
        }
        // With few items to a register the error is less than it will be.
        let theory = 0.7609 / f64::from(1 << precision).sqrt();
        let n = of.errors.len() as f64;
        let rmse = (of.errors.iter().map(|error| error * error).sum::<f64>() / n).sqrt();
        let bias = of.errors.iter().sum::<f64>() / n;
        assert!(rmse <= theory * 1.2, "{precision}, {number}: {rmse} above {theory}");
        assert!(bias.abs() <= 3.5 * rmse / n.sqrt(), "{precision}, {number}: {bias}");
        assert!(of.held as f64 >= 0.9 * n, "{precision}, {number}: {}", of.held);
    }
}

#[test]
fn small_sets_are_compared_exactly() {
    fn answers(a: &impl Fn(u64, u64) -> [Approx; 3]) {
        for (from, common, own, part) in [(0, 1_000, 0, 1.0), (900, 100, 900, 100.0 / 1_900.0)] {
            let [intersection, difference, jaccard] = a(from, from + 1_000);
            assert_eq!(intersection.value, f64::from(common));
            assert_eq!(difference.value, f64::from(own));
            assert_eq!(jaccard.value, part);
            assert!([intersection, difference, jaccard].iter().all(Approx::is_exact));
        }
    }
    answers(&|from, to| {
        let (a, b): (Distinct, Distinct) = (sketch(12, 0..1_000), sketch(14, from..to));
        [a.intersection(&b), a.difference(&b), a.jaccard(&b)]
    });
    answers(&|from, to| {
        let (a, b): (Theta, Theta) = (sketch(4_096, 0..1_000), sketch(1_000, from..to));
        [a.intersection(&b), a.difference(&b), a.jaccard(&b)]
    });
    let none = Distinct::default();
    assert_eq!(none.jaccard(&none), none.intersection(&none));
    assert_eq!(Theta::in_all_and_none(&[], &[&Theta::default()]).value, 0.0);
    assert!(Theta::default().jaccard(&Theta::default()).value == 0.0);
}

/// Bounds of what sets have in common hold as often as they say, from nothing in common to everything,
/// for sets of one size and of very different sizes.
#[test]
fn bounds_on_sets_in_common_hold() {
    for (a, b, common) in [
        (20_000_u64, 20_000_u64, 10_000_u64),
        (20_000, 20_000, 200),
        (20_000, 20_000, 0),
        (20_000, 20_000, 20_000),
        (500, 30_000, 100),
        (30_000, 300, 300),
        (3_000, 30_000, 3_000),
    ] {
        let names = ["intersection", "difference", "jaccard"];
        let mut of: [[Trials; 3]; 2] = Default::default();
        for trial in 0..60_u64 {
            let one = || (0..a).map(|item| trial << 32 | item);
            let two = || (a - common..a - common + b).map(|item| trial << 32 | item);
            let truth =
                [common as f64, (a - common) as f64, common as f64 / (a + b - common) as f64];
            let (x, y): (Distinct, Distinct) = (sketch(10, one()), sketch(10, two()));
            let by_registers = [x.intersection(&y), x.difference(&y), x.jaccard(&y)];
            let (x, y): (Theta, Theta) = (sketch(512, one()), sketch(512, two()));
            let by_sample = [x.intersection(&y), x.difference(&y), x.jaccard(&y)];
            for (of, answers) in of.iter_mut().zip([by_registers, by_sample]) {
                for i in 0..3 {
                    of[i].add(answers[i], truth[i]);
                }
            }
        }
        for (of, which) in of.iter().zip(["registers", "sample"]) {
            for (of, name) in of.iter().zip(names) {
                let held = of.held as f64 / of.errors.len() as f64;
                assert!(held >= 0.85, "{name} of {a} and {b}, {common} common, by {which}: {held}");
            }
        }
    }
}

/// "Did A and B, but not C", of samples of different sizes.
#[test]
fn several_samples_answer_together() {
    let mut of = Trials::default();
    let mut widths = 0.0;
    for trial in 0..100_u64 {
        let set = |k: u16, from: u64, to: u64| -> Theta {
            sketch(k, (from..to).map(|item| trial << 32 | item))
        };
        let (a, b) = (set(1_024, 0, 30_000), set(700, 10_000, 40_000));
        let (c, d) = (set(1_024, 15_000, 50_000), set(600, 0, 500));
        let answer = Theta::in_all_and_none(&[&a, &b], &[&c, &d]);
        of.add(answer, 5_000.0);
        widths += (answer.upper - answer.lower) / 5_000.0 / 100.0;
        let union = merged(&merged(&a, &b), &c);
        assert_eq!(union.k(), 700);
        assert!((union.estimate().value / 50_000.0 - 1.0).abs() < 4.5 / 700_f64.sqrt());
    }
    // The sample has 5,000 · 600 / 35,000 of them, about: θ is that of C, with 1,024, or of B.
    let theta = (1_024.0_f64 / 35_000.0).min(700.0 / 30_000.0);
    let standard_error = ((1.0 - theta) / (5_000.0 * theta)).sqrt();
    of.check("A and B and not C", standard_error);
    assert!((widths / (2.0 * 1.96 * standard_error) - 1.0).abs() < 0.1, "{widths}");
}

/// Forty bits of so many are not all different for certain.
#[test]
fn what_many_tokens_have_in_common_is_not_told_as_certain() {
    let many: Distinct = sketch(18, 0..40_000);
    for told in [many.intersection(&many), many.difference(&Distinct::of(18)), many.jaccard(&many)]
    {
        assert!(!told.is_exact() && told.confidence > 0.999, "{told:?}");
        assert!(told.lower <= told.value && told.value <= told.upper, "{told:?}");
    }
    assert_eq!(many.intersection(&many).value, 40_000.0);
    let few: Distinct = sketch(18, 0..10_000);
    assert!(few.intersection(&few).is_exact() && few.jaccard(&few).is_exact());
}

/// Bounds of a few registers hold as often as they say.
#[test]
fn bounds_hold_at_the_least_precisions_too() {
    for precision in [4, 5, 6] {
        let mut held = 0;
        for trial in 0..600 {
            let state: Distinct = sketch(precision, (0..5_000).map(|item| trial << 32 | item));
            let told = state.estimate();
            held += usize::from(told.lower <= 5_000.0 && 5_000.0 <= told.upper);
        }
        assert!(
            held as f64 / 600.0 > 0.95 - 2.0 * (0.95_f64 * 0.05 / 600.0).sqrt(),
            "{precision}: {held}"
        );
    }
}
