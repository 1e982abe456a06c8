//! Counts of different items, and samples of sets: what an item, an answer and a merge cost, the memory, and
//! the errors that were measured.
//!
//! Times are of the processor, the least of several rounds. Errors are of so many trials with items of their own,
//! beside the standard error of the theory. Run as `cargo bench --bench distinct`; with `-- fast` without
//! the trials of ten million.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::disallowed_methods, reason = "the shared clocks of the benches")]

mod common;

use common::events::SplitMix64;
use common::measure::cpu;
use common::report::{Target, heading, line, ns_each};
use quipu::aggregate::{Aggregate, Approx, Distinct, Theta};
use std::collections::HashSet;
use std::hint::black_box;

const ROUNDS: usize = 9;

/// The least time of several rounds, each part in nanoseconds.
fn least(parts: usize, mut work: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| ns_each(cpu(&mut work).0, parts));
    rounds.fold(f64::INFINITY, f64::min)
}

/// Items of eight bytes, from a number on.
fn items(from: u64, number: usize) -> Vec<[u8; 8]> {
    (from..).take(number).map(u64::to_le_bytes).collect()
}

fn distinct(precision: u8, items: &[[u8; 8]]) -> Distinct {
    let mut state = Distinct::new(precision).expect("a precision");
    for item in items {
        state.insert(item);
    }
    state
}

fn theta(k: u16, items: &[[u8; 8]]) -> Theta {
    let mut state = Theta::new(k).expect("a size");
    for item in items {
        state.insert(item);
    }
    state
}

/// A hash without the cost of one, a nanosecond or two.
fn hash(item: [u8; 8]) -> u64 {
    let hash = u64::from_le_bytes(item).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash ^ hash >> 32).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// The hashes in order, put in one by one: what a table of them is compared with.
fn sorted(items: &[[u8; 8]]) -> Vec<u64> {
    let mut sorted = Vec::new();
    for hash in items.iter().copied().map(hash) {
        if let Err(at) = sorted.binary_search(&hash) {
            sorted.insert(at, hash);
        }
    }
    sorted
}

/// Which item each of so many inserts is of, in no order.
fn picks(number: usize, of: usize) -> Vec<usize> {
    let mut random = SplitMix64(7);
    (0..number).map(|_| random.below(of as u64) as usize).collect()
}

fn registers() {
    let many = items(0, 1_000_000);
    let others = items(500_000, 1_000_000);
    for (precision, merging) in [(12, 500.0), (14, 2_000.0)] {
        heading(format!("registers, precision {precision}"));
        let mut state = distinct(precision, &many);
        let ns = least(many.len(), || many.iter().for_each(|item| state.insert(item)));
        line("an item of 8 bytes, hash included", ns, "ns", Target::AtMost(4.0));
        let ns = least(many.len(), || {
            state = distinct(precision, &many);
        });
        line("the same from an empty state to a million", ns, "ns", Target::AtMost(4.0));
        let other = distinct(precision, &others);
        let ns = least(1_000, || (0..1_000).for_each(|_| state.merge(black_box(&other))));
        line("merging another one in", ns, "ns", Target::AtMost(merging));
        let ns = least(100, || {
            (0..100).for_each(|_| {
                black_box(black_box(&state).estimate());
            });
        });
        line("an estimate", ns, "ns", Target::None);
        let lower = distinct(precision - 2, &others);
        let ns = least(100, || {
            (0..100).for_each(|_| black_box(other.clone()).merge(black_box(&lower)));
        });
        line("to a precision lower by two, and merging", ns, "ns", Target::None);
        line("memory", state.heap_bytes() as f64, "bytes", Target::None);
    }
}

fn tokens() {
    for number in [10, 50, 300, 1_000] {
        heading(format!("tokens: {number} items at precision 12"));
        let known = items(0, number);
        let mut state = distinct(12, &known);
        let picked: Vec<[u8; 8]> =
            picks(100_000, number).into_iter().map(|pick| known[pick]).collect();
        let ns =
            least(picked.len(), || picked.iter().for_each(|item| state.insert(black_box(item))));
        line("a known item", ns, "ns", Target::None);
        let mut set: HashSet<[u8; 8]> = known.iter().copied().collect();
        let ns = least(picked.len(), || {
            for item in &picked {
                black_box(set.insert(*item));
            }
        });
        line("  in a HashSet", ns, "ns", Target::None);
        let array = sorted(&known);
        let ns = least(picked.len(), || {
            for item in &picked {
                let _ = black_box(array.binary_search(&hash(*item)));
            }
        });
        line("  in a sorted array, by binary search", ns, "ns", Target::None);
        let many = items(0, 100_000 / number * number);
        let ns = least(many.len(), || {
            many.chunks(number).for_each(|items| drop(black_box(distinct(12, items))));
        });
        line("a new item, making the state included", ns, "ns", Target::None);
        let ns = least(many.len(), || {
            many.chunks(number).for_each(|items| drop(black_box(sorted(items))));
        });
        line("  in a sorted array, by binary search", ns, "ns", Target::None);
        let other = distinct(12, &items(number as u64 / 2, number));
        let ns = least(200, || {
            (0..200).for_each(|_| black_box(black_box(&state).clone()).merge(&other));
        });
        line("merging as many, half of them known", ns, "ns", Target::None);
        let most = match number {
            10 => Target::AtMost(120.0),
            50 => Target::AtMost(300.0),
            _ => Target::None,
        };
        let allocated = (state.heap_bytes() + 8).next_multiple_of(16);
        line("memory, all in all", (size_of::<Distinct>() + allocated) as f64, "bytes", most);
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        line("stored", bytes.len() as f64, "bytes", Target::None);
        let ns = least(200, || {
            (0..200).for_each(|_| {
                bytes.clear();
                black_box(&state).encode(&mut bytes);
            });
        });
        line("encoding", ns, "ns", Target::None);
        let ns = least(200, || {
            (0..200).for_each(|_| {
                black_box(Distinct::decode(&mut black_box(bytes.as_slice())).expect("own bytes"));
            });
        });
        line("decoding", ns, "ns", Target::None);
    }
}

fn samples() {
    heading("a sample of 4,096");
    let many = items(0, 1_000_000);
    let mut state = theta(4_096, &many);
    let ns = least(many.len(), || many.iter().for_each(|item| state.insert(black_box(item))));
    line("an item of 8 bytes, of a million that were there", ns, "ns", Target::AtMost(4.0));
    for number in [4_000, 100_000, 1_000_000] {
        let ns = least(number, || drop(black_box(theta(4_096, &many[..number]))));
        line(format!("an item, from an empty state to {number}"), ns, "ns", Target::None);
    }
    let ns = least(4_000, || drop(black_box(sorted(&many[..4_000]))));
    line("  in a sorted array, by binary search, to 4,000", ns, "ns", Target::None);
    let few = theta(4_096, &many[..4_000]);
    let picked: Vec<[u8; 8]> = picks(100_000, 4_000).into_iter().map(|pick| many[pick]).collect();
    let mut known = few.clone();
    let ns = least(picked.len(), || picked.iter().for_each(|item| known.insert(black_box(item))));
    line("a known item, of 4,000", ns, "ns", Target::None);
    let other = theta(4_096, &items(500_000, 1_000_000));
    let ns = least(50, || {
        (0..50).for_each(|_| black_box(state.clone()).merge(black_box(&other)));
    });
    line("a union of two", ns, "ns", Target::None);
    let ns = least(50, || {
        (0..50).for_each(|_| {
            black_box(black_box(&state).intersection(&other));
        });
    });
    line("an intersection of two", ns, "ns", Target::None);
    line("memory", state.heap_bytes() as f64, "bytes", Target::None);
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    line("stored", bytes.len() as f64, "bytes", Target::None);
}

/// Relative errors of so many trials.
struct Errors(Vec<f64>, usize);

impl Errors {
    fn of(trials: u64, truth: f64, mut trial: impl FnMut(u64) -> Approx) -> Self {
        let answers: Vec<Approx> = (0..trials).map(&mut trial).collect();
        let held = answers.iter().filter(|a| a.lower <= truth && truth <= a.upper).count();
        Errors(answers.iter().map(|answer| answer.value / truth - 1.0).collect(), held)
    }

    fn line(&self, what: &str, theory: f64) {
        let trials = self.0.len() as f64;
        let rmse = (self.0.iter().map(|error| error * error).sum::<f64>() / trials).sqrt();
        let bias = self.0.iter().sum::<f64>() / trials;
        let held = 100.0 * self.1 as f64 / trials;
        let told = format!("{what} (bias {:+.2} %, bounds held {held:.0} %)", 100.0 * bias);
        // As far as so many trials can tell.
        let most = theory * (1.0 + 3.0 / (2.0 * trials).sqrt());
        line(told, 100.0 * rmse, "%", Target::AtMost(100.0 * most));
    }
}

fn errors(fast: bool) {
    heading("root mean square of the relative error");
    let numbers = [(100, 200), (1_000, 200), (10_000, 400), (100_000, 100), (1_000_000, 24)];
    for (number, trials) in numbers.into_iter().chain((!fast).then_some((10_000_000, 8))) {
        for precision in [12, 14] {
            let errors = Errors::of(trials, f64::from(number), |trial| {
                let mut state = Distinct::new(precision).expect("a precision");
                (0..number as u64).for_each(|i| state.insert(&(trial << 32 | i).to_le_bytes()));
                state.estimate()
            });
            let theory = 0.7609 / f64::from(1 << precision).sqrt();
            errors.line(&format!("{number} at {precision}, {trials} trials"), theory);
        }
        let errors = Errors::of(trials, f64::from(number), |trial| {
            let mut state = Theta::default();
            (0..number as u64).for_each(|i| state.insert(&(trial << 32 | i).to_le_bytes()));
            state.estimate()
        });
        errors.line(&format!("{number} in a sample of 4,096, {trials} trials"), 1.0 / 64.0);
    }
}

/// What two sets of a million have in common, by either sketch.
fn sets_of_several() {
    const SIZE: u64 = 1_000_000;
    heading("what two sets of a million have in common: root mean square of the error, in % of it");
    for common in [500_000, 100_000, 10_000, 1_000] {
        let trials = 16;
        let sets = |trial: u64| {
            let range =
                |from: u64| (from..from + SIZE).map(move |i| (trial << 32 | i).to_le_bytes());
            (range(0), range(SIZE - common))
        };
        let by_registers = Errors::of(trials, common as f64, |trial| {
            let (one, two) = sets(trial);
            let fill = |items: &mut dyn Iterator<Item = [u8; 8]>| {
                let mut state = Distinct::new(14).expect("a precision");
                items.for_each(|item| state.insert(&item));
                state
            };
            fill(&mut { one }).intersection(&fill(&mut { two }))
        });
        let by_sample = Errors::of(trials, common as f64, |trial| {
            let (one, two) = sets(trial);
            let fill = |items: &mut dyn Iterator<Item = [u8; 8]>| {
                let mut state = Theta::default();
                items.for_each(|item| state.insert(&item));
                state
            };
            fill(&mut { one }).intersection(&fill(&mut { two }))
        });
        let all = (2 * SIZE - common) as f64;
        let of_sample = (all / (common as f64 * 4_096.0)).sqrt();
        by_sample.line(&format!("{common} common, samples of 4,096 (37 KB)"), of_sample);
        let of_registers = 3_f64.sqrt() * 0.7609 / 128.0 * all / common as f64;
        by_registers.line(&format!("{common} common, registers at 14 (16 KB)"), of_registers);
    }
}

fn main() {
    let fast = std::env::args().any(|argument| argument == "fast");
    registers();
    tokens();
    samples();
    errors(fast);
    sets_of_several();
}
