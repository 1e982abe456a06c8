//! Heavy hitters, Count-Min and membership: updates, merges, questions, memory, beside plain maps; and
//! what a filter would be worth in the deduplication window and for segments of the log.
//!
//! Times are the least of several rounds, on one core. An update of 4,096 counters on a Zipf 1.05
//! stream is to take 15 ns at most, hash included. Run as `cargo bench --bench heavy`.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::disallowed_methods, reason = "the shared clocks of the benches")]

mod common;

use common::events::{SplitMix64, Zipf, retail};
use common::measure::cpu;
use common::report::{Target, heading, line, ns_each};
use quipu::Timestamp;
use quipu::aggregate::{Aggregate, CountMin, Heavy, Membership, Top};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Write;
use std::hint::black_box;

const DRAWS: usize = 1_000_000;
const ROUNDS: usize = 9;

/// A stream of texts, one behind the other as a program would read them.
struct Stream {
    texts: String,
    ends: Vec<usize>,
    numbers: Vec<u64>,
}

impl Stream {
    fn zipf(exponent: f64, seed: u64) -> Self {
        let (zipf, mut random) = (Zipf::new(100_000, exponent), SplitMix64(seed));
        Stream::of((0..DRAWS).map(|_| u64::from(zipf.draw(&mut random))))
    }

    fn of(numbers: impl Iterator<Item = u64>) -> Self {
        let mut stream = Stream { texts: String::new(), ends: vec![0], numbers: numbers.collect() };
        for number in &stream.numbers {
            write!(stream.texts, "product-{number}").expect("a string takes all");
            stream.ends.push(stream.texts.len());
        }
        stream
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.ends.windows(2).map(|ends| &self.texts[ends[0]..ends[1]])
    }

    fn top(&self, capacity: u32) -> Top {
        let mut top = Top::new(capacity).expect("a capacity");
        self.texts().for_each(|text| top.insert(text.as_bytes(), 1));
        top
    }
}

/// The least of several rounds, in ns for each of `n`.
fn least<R>(n: usize, mut work: impl FnMut() -> R) -> f64 {
    let round = |_| {
        let (time, result) = cpu(&mut work);
        black_box(result);
        ns_each(time, n)
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

fn bytes(state: &impl Aggregate) -> Vec<u8> {
    let mut out = Vec::new();
    state.encode(&mut out);
    out
}

fn map_of(stream: &Stream) -> HashMap<String, u64> {
    let mut map: HashMap<String, u64> = HashMap::new();
    for text in stream.texts() {
        match map.get_mut(text) {
            Some(count) => *count += 1,
            None => {
                map.insert(text.to_owned(), 1);
            }
        }
    }
    map
}

fn heavy() {
    let stream = Stream::zipf(1.05, 7);
    let other = Stream::zipf(1.05, 8);
    for (capacity, counters) in [(256, 384), (2_730, 4_095), (4_096, 6_144)] {
        heading(format!(
            "heavy hitters of capacity {capacity} ({counters} counters), {DRAWS} of 100,000 items, Zipf 1.05"
        ));
        let top = stream.top(capacity);
        let numbers = least(DRAWS, || {
            let mut top = Top::new(capacity).expect("a capacity");
            stream.numbers.iter().for_each(|number| top.insert(&number.to_le_bytes(), 1));
            top
        });
        let target = if counters == 4_095 { Target::AtMost(15.0) } else { Target::None };
        line("insert, items of 8 bytes", numbers, "ns", target);
        line("insert, texts", least(DRAWS, || stream.top(capacity)), "ns", target);
        let second = other.top(capacity);
        let copy = least(1, || top.clone());
        let merge = least(1, || {
            let mut merged = top.clone();
            merged.merge(&second);
            merged
        });
        line("merge of two, with its copy", merge / 1e3, "us", Target::None);
        line("the copy", copy / 1e3, "us", Target::None);
        line("top(10)", least(1, || top.top(10)) / 1e3, "us", Target::None);
        let asked = least(DRAWS, || {
            stream.texts().filter(|text| top.count_of(text.as_bytes()).is_exact()).count()
        });
        line("count_of", asked, "ns", Target::None);
        let encoded = bytes(&top);
        line("encode", least(1, || bytes(&top)) / 1e3, "us", Target::None);
        let decode = least(1, || Top::decode(&mut encoded.as_slice()).expect("own bytes"));
        line("decode", decode / 1e3, "us", Target::None);
        line("bytes, encoded", encoded.len() as f64, "", Target::None);
        line("bytes in memory", (size_of::<Top>() + top.heap_bytes()) as f64, "", Target::None);
        let limit = top.total() / (u64::from(capacity) + 1);
        line("error", top.error() as f64, "", Target::AtMost(limit as f64));
        let exact = top.top(usize::MAX).iter().take_while(|heavy| heavy.is_exact()).count();
        line("the heaviest that are known exactly", exact as f64, "", Target::None);
    }
    heading("the same in a HashMap<String, u64>");
    line("insert", least(DRAWS, || map_of(&stream)), "ns", Target::None);
    let map = map_of(&stream);
    let texts: usize = map.keys().map(|text| text.len().max(16) + 16).sum();
    let table = (map.capacity() * 8 / 7).next_power_of_two() * (size_of::<(String, u64)>() + 1);
    line("bytes in memory, as counted", (texts + table) as f64, "", Target::None);

    heading("heavy hitters with few items, 16 bytes for an empty state");
    for n in [1, 10, 50, 256] {
        let mut top = Top::default();
        (0..n).for_each(|i| top.insert(format!("product-{i}").as_bytes(), 1));
        let memory = size_of::<Top>() + top.heap_bytes();
        line(format!("{n} items: bytes in memory"), memory as f64, "", Target::None);
        line(format!("{n} items: encoded"), bytes(&top).len() as f64, "", Target::None);
    }
}

/// How far the bounds and the estimates of all items that a state names are from the truth.
fn estimates() {
    heading("heavy hitters: root of the mean squared error of lower bounds, values, upper bounds");
    for exponent in [0.8, 1.05, 1.3] {
        let stream = Stream::zipf(exponent, 7);
        let truth = map_of(&stream);
        for capacity in [256, 2_730, 4_096] {
            let named = stream.top(capacity).top(usize::MAX);
            for (what, of) in [
                ("lower", (|heavy: &Heavy| heavy.lower) as fn(&Heavy) -> u64),
                ("value", |heavy| heavy.value),
                ("upper", |heavy| heavy.upper),
            ] {
                let error = |heavy: &Heavy| of(heavy) as f64 - truth[&*heavy.text()] as f64;
                let squares: f64 = named.iter().map(|heavy| error(heavy).powi(2)).sum();
                let root = (squares / named.len() as f64).sqrt();
                line(
                    format!("Zipf {exponent}, capacity {capacity}: {what}"),
                    root,
                    "",
                    Target::None,
                );
            }
        }
    }
}

fn point_counts() {
    heading("Count-Min of 0.1 % with 99 % (2,000 x 7)");
    let stream = Stream::zipf(1.05, 7);
    let empty = CountMin::with_error(0.001, 0.01).expect("a shape");
    let fold = || {
        let mut counts = empty.clone();
        for text in stream.texts() {
            counts.observe((text.as_bytes(), 1), Timestamp::default());
        }
        counts
    };
    line("insert", least(DRAWS, fold), "ns", Target::None);
    let counts = fold();
    let ask = || stream.texts().map(|text| counts.count_of(text.as_bytes()).value).sum::<f64>();
    line("count_of", least(DRAWS, ask), "ns", Target::None);
    let merge = least(1, || {
        let mut merged = counts.clone();
        merged.merge(&counts);
        merged
    });
    line("merge of two, with its copy", merge / 1e3, "us", Target::None);
    line("bytes in memory", (size_of::<CountMin>() + counts.heap_bytes()) as f64, "", Target::None);
    line("bytes, encoded", bytes(&counts).len() as f64, "", Target::None);
    let (truth, mut worst, mut sum) = (map_of(&stream), 0.0_f64, 0.0);
    for (item, count) in &truth {
        let over = counts.count_of(item.as_bytes()).value - *count as f64;
        worst = worst.max(over);
        sum += over;
    }
    line("too high, at most", worst, "", Target::AtMost(counts.error()));
    line("too high, in the mean", sum / truth.len() as f64, "", Target::None);
}

/// What the engine keeps for a window of ids: the positions of their hashes, and their order.
type Window = (HashMap<u128, u64, foldhash::fast::RandomState>, VecDeque<(u64, i64, u128)>);

fn membership() {
    const ITEMS: usize = 1_000_000;
    heading("membership, 1,000,000 items expected at 1 %");
    let items = Stream::of(0..2 * ITEMS as u64);
    let fold = || {
        let mut seen = Membership::new(ITEMS as u64, 0.01).expect("fits");
        for text in items.texts().take(ITEMS) {
            seen.insert(text.as_bytes());
        }
        seen
    };
    line("insert, from empty on", least(ITEMS, fold), "ns", Target::None);
    let mut seen = fold();
    let again = least(ITEMS, || {
        items.texts().take(ITEMS).filter(|text| seen.insert(text.as_bytes())).count()
    });
    line("insert, into the filter", again, "ns", Target::None);
    let hits = || items.texts().take(ITEMS).filter(|text| seen.contains(text.as_bytes())).count();
    line("contains, of those that are", least(ITEMS, hits), "ns", Target::None);
    let misses = || items.texts().skip(ITEMS).filter(|text| seen.contains(text.as_bytes())).count();
    line("contains, of those that are not", least(ITEMS, misses), "ns", Target::None);
    let rate = misses() as f64 / ITEMS as f64;
    line("false yeses, measured", rate * 100.0, "%", Target::AtMost(1.0));
    line("false yeses, as it says", seen.false_positive_rate() * 100.0, "%", Target::None);
    let memory = size_of::<Membership>() + seen.heap_bytes();
    line("bytes in memory", memory as f64, "", Target::None);
    let other = fold();
    let merge = least(1, || {
        let mut merged = seen.clone();
        merged.merge(&other);
        merged
    });
    line("merge of two, with its copy", merge / 1e3, "us", Target::None);

    heading("the deduplication window: 1,000,000 ids in it, as it is, and a filter before it");
    let mut window = Window::default();
    let take_in = |window: &mut Window, texts: &mut dyn Iterator<Item = &str>| {
        let mut new = 0;
        for (position, text) in texts.enumerate() {
            let hash = xxhash_rust::xxh3::xxh3_128(text.as_bytes());
            let entry = window.0.entry(hash).or_insert_with(|| {
                new += 1;
                position as u64
            });
            if *entry == position as u64 {
                window.1.push_back((position as u64, 0, hash));
            }
        }
        new
    };
    let (time, _) = cpu(|| take_in(&mut window, &mut items.texts().take(ITEMS)));
    line("new ids into the window", ns_each(time, ITEMS), "ns", Target::None);
    let (time, _) = cpu(|| take_in(&mut window, &mut items.texts().take(ITEMS)));
    line("ids that are in it", ns_each(time, ITEMS), "ns", Target::None);
    line("a filter before it, for new ids, on top", least(ITEMS, fold), "ns", Target::None);
    line("and for ids that are in it, on top", least(ITEMS, hits), "ns", Target::None);
}

fn segments() {
    const EVENTS: usize = 20_000;
    let sales = retail();
    heading(format!(
        "a filter for each {EVENTS} events of the shop's log, at 1 %, over users and products"
    ));
    let mut filters = Vec::new();
    let (mut values, mut texts) = (0, 0);
    for part in sales.chunks(EVENTS) {
        let of = part.iter().flat_map(|sale| sale.user.iter().chain([&sale.product]));
        let distinct: HashSet<&String> = of.collect();
        let mut filter = Membership::new(distinct.len() as u64, 0.01).expect("fits");
        for value in &distinct {
            filter.insert(value.as_bytes());
        }
        values += distinct.len();
        texts += distinct.iter().map(|value| value.len() + 3).sum::<usize>();
        filters.push((filter, distinct));
    }
    let stored: usize = filters.iter().map(|(filter, _)| bytes(filter).len()).sum();
    line("values in a part", values as f64 / filters.len() as f64, "", Target::None);
    line("bytes of its filter", stored as f64 / filters.len() as f64, "", Target::None);
    line(
        "bytes of its definitions, which say it exactly",
        texts as f64 / filters.len() as f64,
        "",
        Target::None,
    );
    for (what, wanted) in [
        ("a user", sales.iter().filter_map(|sale| sale.user.as_ref()).collect::<HashSet<_>>()),
        ("a product", sales.iter().map(|sale| &sale.product).collect()),
    ] {
        let (mut has, mut says) = (0, 0);
        for value in &wanted {
            has += filters.iter().filter(|(_, distinct)| distinct.contains(value)).count();
            says += filters.iter().filter(|(filter, _)| filter.contains(value.as_bytes())).count();
        }
        let parts = (wanted.len() * filters.len()) as f64 / 100.0;
        line(format!("parts that have {what}"), has as f64 / parts, "%", Target::None);
        line(format!("parts that are read for {what}"), says as f64 / parts, "%", Target::None);
    }
}

fn main() {
    heavy();
    estimates();
    point_counts();
    membership();
    segments();
}
