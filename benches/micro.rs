//! The parts that every event pays for, alone: statistics of a measure, and their bytes.
//!
//! The exact sums may cost 10 ns an observation. Run as `cargo bench --bench micro`.

use criterion::{BatchSize, Criterion, Throughput};
use quipu::aggregate::{Aggregate, Stats};
use quipu::{Event, Grain, TimeZone, Timestamp};
use std::hint::black_box;

const VALUES: usize = 4_096;

/// Values that differ in what they cost.
fn values() -> [(&'static str, Vec<f64>); 4] {
    let cents = |i: usize| (i * 7_919 % 1_000_000) as f64 / 100.0;
    [
        ("amounts", (0..VALUES).map(cents).collect()),
        ("amounts_of_both_signs", {
            (0..VALUES).map(|i| if i % 3 == 0 { -cents(i) } else { cents(i) }).collect()
        }),
        ("integers", (0..VALUES).map(|i| (i * 7_919 % 10_000) as f64).collect()),
        ("wide", (0..VALUES).map(|i| cents(i) * 10_f64.powi((i % 41) as i32 * 10 - 200)).collect()),
    ]
}

fn stats_of(values: &[f64]) -> Stats {
    let mut stats = Stats::default();
    for value in values {
        stats.observe(*value, Timestamp::default());
    }
    stats
}

fn stats(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stats/observe");
    group.throughput(Throughput::Elements(VALUES as u64));
    for (name, values) in values() {
        group.bench_function(name, |bench| bench.iter(|| black_box(stats_of(black_box(&values)))));
    }
    group.finish();

    let mut group = criterion.benchmark_group("stats");
    for (name, values) in
        values().into_iter().filter(|(name, _)| matches!(*name, "amounts" | "wide"))
    {
        let (one, other) = (stats_of(&values), stats_of(&values[1_000..]));
        let mut bytes = Vec::new();
        one.encode(&mut bytes);
        group.bench_function(format!("merge/{name}"), |bench| {
            bench.iter_batched_ref(
                || one.clone(),
                |one| one.merge(black_box(&other)),
                BatchSize::SmallInput,
            );
        });
        group.bench_function(format!("encode/{name}"), |bench| {
            let mut out = Vec::with_capacity(bytes.len());
            bench.iter(|| {
                out.clear();
                black_box(&one).encode(&mut out);
            });
        });
        group.bench_function(format!("decode/{name}"), |bench| {
            bench.iter(|| Stats::decode(&mut black_box(bytes.as_slice())));
        });
        group.bench_function(format!("summary/{name}"), |bench| {
            bench.iter(|| black_box(&one).summary());
        });
    }
    group.finish();
}

fn words(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event");
    let time = Timestamp::from_secs(1_700_000_000);
    group.bench_function("build", |bench| {
        bench.iter(|| {
            Event::new(black_box("sale"))
                .at(time)
                .dim("user", black_box("alice"))
                .dim("product", black_box("teapot"))
                .dim("category", black_box("kitchen"))
                .value(black_box(15.3))
        });
    });
    let event = Event::new("sale").at(time).dim("user", "alice").dim("product", "pot").value(15.3);
    group.bench_function("check", |bench| bench.iter(|| black_box(&event).check()));
    for grain in [Grain::Hour, Grain::Month] {
        group.bench_function(format!("bucket/{grain:?}"), |bench| {
            bench.iter(|| grain.bucket(black_box(time)));
        });
    }
    // Near a change of the clocks nothing can be had from the rule of the day.
    let paris: TimeZone = "Europe/Paris".parse().expect("a zone of the database");
    let change = Timestamp::from_secs(1_711_846_800);
    for (name, time) in [("any_day", time), ("day_of_a_change", change)] {
        group.bench_function(format!("span/Day/Europe_Paris/{name}"), |bench| {
            bench.iter(|| paris.span(Grain::Day, paris.bucket(Grain::Day, black_box(time))));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    stats(&mut criterion);
    words(&mut criterion);
    criterion.final_summary();
}
