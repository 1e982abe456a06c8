//! Sketches where they are kept: quantiles by themselves, recording into views that have sketches, and
//! ranges of 1,440 buckets that are asked again.
//!
//! Times are of the processor, the least of several rounds. Run as `cargo bench --bench sketches`; with
//! `--features datasketches` for KLL, too.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::disallowed_methods, reason = "the shared clocks of the benches")]

mod common;

use common::events::SplitMix64;
use common::measure::{cpu, wall};
use common::report::{Target, heading, line, ns_each};
use common::{Store, record_in_batches, without_checkpoints};
use quipu::aggregate::{Aggregate, Distinct, Quantiles};
use quipu::{Event, Grain, Keep, TestClock, Timestamp, View};
use std::hint::black_box;

const ROUNDS: usize = 9;
const MINUTES: u64 = 1_440;
const NOW: i64 = 1_700_000_000;

/// The least time of several rounds, each part in nanoseconds.
fn least(parts: usize, mut work: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| ns_each(cpu(&mut work).0, parts));
    rounds.fold(f64::INFINITY, f64::min)
}

/// Latencies about 20 ms: half of them between 10 and 40, one in a thousand above 250.
fn latencies(n: usize) -> Vec<f64> {
    let mut random = SplitMix64(3);
    let mut uniform = || (random.below(1 << 53) as f64 + 0.5) / (1_u64 << 53) as f64;
    let normal = |a: f64, b: f64| (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
    (0..n).map(|_| 20.0 * (normal(uniform(), uniform())).exp()).collect()
}

fn quantiles() {
    heading("quantiles of latencies");
    let values = latencies(1_000_000);
    let of = |values: &[f64]| {
        let mut state = Quantiles::default();
        for value in values {
            state.insert(*value);
        }
        state
    };
    let mut state = of(&values);
    let ns = least(values.len(), || {
        for value in black_box(&values) {
            state.insert(*value);
        }
    });
    line("a value", ns, "ns", Target::AtMost(2.0));
    let centred: Vec<f64> = values.iter().map(|value| value - 20.0).collect();
    let mut of_both = of(&centred);
    let ns = least(centred.len(), || {
        for value in black_box(&centred) {
            of_both.insert(*value);
        }
    });
    line("a value of either sign", ns, "ns", Target::None);
    let few = &values[..128];
    let ns = least(few.len() * 100, || {
        (0..100).for_each(|_| _ = black_box(of(black_box(few))));
    });
    line("a value while there are at most 128", ns, "ns", Target::None);
    let other = of(&values[..500_000]);
    let ns = least(1_000, || (0..1_000).for_each(|_| state.merge(black_box(&other))));
    line("merging two", ns, "ns", Target::AtMost(2_000.0));
    let ns = least(1_000, || (0..1_000).for_each(|_| _ = black_box(state.quantile(0.99))));
    line("p99", ns, "ns", Target::None);
    line("memory", state.heap_bytes() as f64, "bytes", Target::None);
    let mut sorted = values;
    sorted.sort_by(f64::total_cmp);
    let state = of(&sorted);
    let off = |rank: usize| {
        let told = state.value_at(rank as u64).expect("a rank").value;
        (told / sorted[rank] - 1.0).abs()
    };
    let worst = (0..sorted.len()).step_by(997).map(off).fold(0.0, f64::max);
    line("the greatest error of a thousand ranks", 100.0 * worst, "%", Target::AtMost(0.78));
}

/// The same values by ranks, whose error is in their number.
#[cfg(feature = "datasketches")]
fn kll() {
    use quipu::aggregate::Kll;
    heading("KLL sketches of latencies, k 200");
    let values = latencies(1_000_000);
    let of = |values: &[f64]| {
        let mut state = Kll::default();
        for value in values {
            state.insert(*value);
        }
        state
    };
    let ns = least(values.len(), || _ = black_box(of(black_box(&values))));
    line("a value", ns, "ns", Target::None);
    let few = &values[..200];
    let ns = least(few.len() * 100, || {
        (0..100).for_each(|_| _ = black_box(of(black_box(few))));
    });
    line("a value while there are at most 200", ns, "ns", Target::None);
    let (state, other) = (of(&values), of(&values[..500_000]));
    let copy = least(1_000, || (0..1_000).for_each(|_| _ = black_box(state.clone())));
    let ns = least(1_000, || {
        (0..1_000).for_each(|_| {
            let mut state = state.clone();
            state.merge(black_box(&other));
            black_box(&state);
        });
    });
    line("merging two", ns - copy, "ns", Target::None);
    let ns = least(1_000, || (0..1_000).for_each(|_| _ = black_box(state.quantile(0.99))));
    line("p99", ns, "ns", Target::None);
    line("memory, as it is counted", state.heap_bytes() as f64, "bytes", Target::None);
    line("stored", state.to_datasketches().len() as f64, "bytes", Target::None);
    let mut sorted = values;
    sorted.sort_by(f64::total_cmp);
    let off = |at: usize| {
        let told = state.share_up_to(sorted[at]).expect("values").value;
        (told - (at + 1) as f64 / sorted.len() as f64).abs()
    };
    let worst = (0..sorted.len()).step_by(997).map(off).fold(0.0, f64::max);
    line("the greatest error of a thousand ranks", 100.0 * worst, "%", Target::AtMost(1.33));
}

/// A view of one key with a sketch of some thousand users in each of 1,440 minutes.
fn sliding(what: &str, users: u64, minutes: u64, view: View) {
    heading(format!("{MINUTES} buckets, {what}"));
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let view = view.grain(Grain::Minute, Keep::Last(2_000));
    let store = Store::new(without_checkpoints().clock(clock.clone()), [view]);
    let mut random = SplitMix64(9);
    for minute in 0..minutes {
        let at = Timestamp::from_secs(NOW - 60 * (minutes - 1 - minute) as i64);
        let names: Vec<String> =
            (0..users).map(|_| format!("u{}", random.below(1 << 20))).collect();
        record_in_batches(&store.db, names.iter().map(|u| Event::new("e").at(at).dim("user", u)));
    }
    let series = store.db.query("users").expect("the view").series(&[]).expect("its key");
    let range = || series.last_minutes(MINUTES as u32);
    let ask = |range: &quipu::RangeQuery| black_box(range.total().expect("an answer"));
    let ns = least(3, || (0..3).for_each(|_| _ = ask(&range())));
    line("asked once", ns, "ns", Target::None);
    let kept = range();
    (0..2).for_each(|_| _ = ask(&kept));
    let ns = least(1_000, || (0..1_000).for_each(|_| _ = ask(&kept)));
    line("asked again", ns, "ns", Target::AtMost(3_000.0));
    // A minute goes by before each question, in which there are some events.
    // Events come, and minutes go by.
    let mut seconds = NOW;
    let mut after = |seconds_more: i64, events: u64, late: i64| {
        seconds += seconds_more;
        clock.set(Timestamp::from_secs(seconds));
        let names: Vec<String> =
            (0..events).map(|_| format!("u{}", random.below(1 << 20))).collect();
        let at = Timestamp::from_secs(seconds - late);
        let events = names.iter().map(|u| Event::new("e").at(at).dim("user", u));
        record_in_batches(&store.db, events);
        // (The clock of the processor would take longer than some of what it measures.)
        ns_each(wall(|| _ = ask(&kept)).0, 1)
    };
    let mut each = |what: &str, seconds: i64, events: u64, late: i64| {
        let mut times: Vec<f64> = (0..640).map(|_| after(seconds, events, late)).collect();
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        times.sort_by(f64::total_cmp);
        let target = Target::AtMost(3_000.0);
        line(format!("asked {what}, in the middle"), times[times.len() / 2], "ns", target);
        line("  the mean", mean, "ns", Target::None);
        line("  the longest", times[times.len() - 1], "ns", Target::None);
    };
    each("after each event", 0, 1, 0);
    each("each minute", 60, 10, 0);
    each("after an event a minute late", 0, 1, 60);
    let total = kept.total().expect("an answer").expect("events");
    let distinct = total.sketches.distinct("user").expect("a sketch");
    let ns = least(100, || (0..100).for_each(|_| _ = black_box(distinct.estimate())));
    line("its estimate", ns, "ns", Target::None);
}

fn recording() {
    heading("recording, 200,000 events of 20,000 users in batches, by ten countries");
    let mut random = SplitMix64(5);
    let users: Vec<String> = (0..200_000).map(|_| format!("u{}", random.below(20_000))).collect();
    let countries: Vec<String> = (0..10).map(|n| format!("c{n}")).collect();
    let values = latencies(users.len());
    let views: [(&str, View); 5] = [
        ("counting", View::new("users").by(["country"])),
        ("stats", View::new("users").by(["country"]).stats("value")),
        ("distinct", View::new("users").by(["country"]).distinct("user")),
        ("top 256", View::new("users").by(["country"]).top("user", 256)),
        ("quantiles", View::new("users").by(["country"]).quantiles("value")),
    ];
    for (what, view) in views {
        let rounds = (0..5).map(|_| {
            let store = Store::new(without_checkpoints(), [view.clone()]);
            let events = users.iter().zip(&values).enumerate().map(|(n, (user, value))| {
                Event::new("e").dim("user", user).dim("country", &countries[n % 10]).value(*value)
            });
            ns_each(cpu(|| record_in_batches(&store.db, events)).0, users.len())
        });
        line(what, rounds.fold(f64::INFINITY, f64::min), "ns an event", Target::None);
    }
}

fn main() {
    quantiles();
    #[cfg(feature = "datasketches")]
    kll();
    let distinct = View::new("users").distinct_at("user", Distinct::PRECISION);
    sliding("distinct, precision 12, 300 in each", 300, MINUTES, distinct.clone());
    sliding("distinct, precision 12, 1,500 in each", 1_500, MINUTES, distinct.clone());
    sliding("the same, none in the first 720", 1_500, MINUTES / 2, distinct);
    let fine = View::new("users").distinct_at("user", 14);
    sliding("distinct, precision 14, 5,000 in each", 5_000, MINUTES, fine);
    recording();
}
