//! Recording against the plain loop: five `HashMap`s in memory on one side, on the other the
//! durable engine with five views, log written and synced at its interval.
//!
//! Both sides get the same events by reference. Time is CPU time of the whole process, background
//! threads included, up to and including [`Db::sync`]; opening and dropping are outside. Rounds of
//! all contestants alternate and medians are compared, because the machine may be busy otherwise.
//!
//! Run as `cargo bench --bench record`; with `-- retail` or `-- synthetic` behind it one set only.
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod common;

use common::events::{Sale, retail, synthetic};
use common::measure::{cpu, median, wall};
use common::report::{Target, heading, line, ns_each};
use common::{Store, five_views, record_each_in_batches};
use quipu::{Db, Options};
use std::collections::HashMap;
use std::hash::Hash;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Duration;

const ROUNDS: usize = 9;

/// What one would write instead.
#[derive(Default)]
struct PlainLoop {
    users: HashMap<String, Running>,
    products: HashMap<String, Running>,
    categories: HashMap<String, Running>,
    pairs: HashMap<(String, String), Running>,
    /// The hour is a number here, in the loop's favour: a text would have to be formatted.
    hours: HashMap<i64, Running>,
}

struct Running {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Running {
    fn of(value: f64) -> Self {
        Running { count: 1, sum: value, min: value, max: value }
    }

    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }
}

fn count<K: Eq + Hash>(map: &mut HashMap<K, Running>, key: K, value: f64) {
    map.entry(key).and_modify(|running| running.add(value)).or_insert_with(|| Running::of(value));
}

impl PlainLoop {
    fn record(&mut self, sale: &Sale) {
        let Sale { time, user, product, category, value, .. } = sale;
        count(&mut self.products, product.clone(), *value);
        count(&mut self.categories, category.clone(), *value);
        count(&mut self.hours, time.micros().div_euclid(3_600_000_000), *value);
        if let Some(user) = user {
            count(&mut self.users, user.clone(), *value);
            count(&mut self.pairs, (user.clone(), product.clone()), *value);
        }
    }
}

fn record_singly(db: &Db, sales: &[Sale]) {
    for sale in sales {
        db.record(&sale.event()).expect("recorded");
    }
}

fn plain_loop(sales: &[Sale]) -> (Duration, PlainLoop) {
    cpu(|| {
        let mut plain = PlainLoop::default();
        for sale in sales {
            plain.record(black_box(sale));
        }
        black_box(plain)
    })
}

fn durable(sales: &[Sale], record: impl FnOnce(&Db, &[Sale])) -> (Duration, Store) {
    let store = Store::new(Options::new(), five_views());
    let (time, ()) = cpu(|| {
        record(&store.db, black_box(sales));
        store.db.sync().expect("synced");
    });
    (time, store)
}

fn batches(db: &Db, sales: &[Sale]) {
    record_each_in_batches(db, sales, Sale::event);
}

/// What the checksums of so many pieces of so many bytes take; for an event, in nanoseconds.
fn checksums(of: impl Fn(&[u8]) -> u32, events: usize, pieces: usize, bytes_each: usize) -> f64 {
    let (bytes, mut sum) = (vec![0x5a; bytes_each], 0);
    let (time, ()) = cpu(|| (0..pieces).for_each(|_| sum ^= of(black_box(&bytes))));
    black_box(sum);
    ns_each(time, events)
}

/// That the two sides did the same work.
fn agree(plain: &PlainLoop, db: &Db) {
    let view = db.query("by_user_product").expect("a view");
    assert_eq!(view.key_count().expect("counted"), plain.pairs.len() as u64);
    for ((user, product), running) in plain.pairs.iter().take(1_000) {
        let row = view.get(&[user, product]).expect("read").expect("recorded");
        let summary = row.summary().expect("stats");
        assert_eq!((row.count, summary.min), (running.count, Some(running.min)));
        assert_eq!(summary.max, Some(running.max));
        assert!((summary.sum - running.sum).abs() < 1e-6 * running.sum.abs().max(1.0));
    }
}

fn one_thread(name: &str, sales: &[Sale]) {
    let n = sales.len();
    let (mut by_loop, mut by_batch, mut by_single) = (vec![], vec![], vec![]);
    let (mut by_close, mut bytes) = (vec![], 0);
    for round in 0..ROUNDS {
        let (time, plain) = plain_loop(sales);
        by_loop.push(time);
        let (time, store) = durable(sales, batches);
        by_batch.push(time);
        if round == 0 {
            agree(&plain, &store.db);
            bytes = store.db.statistics().log_bytes_since_checkpoint as usize;
        }
        by_close.push(cpu(|| store.db.close().expect("closed")).0);
        drop((plain, store));
        by_single.push(durable(sales, record_singly).0);
    }
    // A ratio within a round is of the same moment of the machine.
    let ratio = |of: &[Duration]| {
        let ratios: Vec<f64> =
            of.iter().zip(&by_loop).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect();
        median(&ratios)
    };
    heading(format!("{name}, {n} events, one thread, CPU time, median of {ROUNDS} rounds"));
    let ns = |times: &[Duration]| ns_each(median(times), n);
    line("five HashMaps in memory", ns(&by_loop), "ns/event", Target::None);
    line("quipu, batches of 1,000, with sync()", ns(&by_batch), "ns/event", Target::None);
    line("quipu, single records, with sync()", ns(&by_single), "ns/event", Target::None);
    line("batches / HashMaps", ratio(&by_batch), "", Target::AtMost(0.5));
    line("single records / HashMaps", ratio(&by_single), "", Target::AtMost(1.0));
    // An event of a batch is checked with its frame, one by itself in the stage before.
    let each = bytes / n;
    let by_frame = checksums(crc32fast::hash, n, n / 1_000, 1_000 * each);
    let share = |of: f64, times: &[Duration]| 100.0 * of / ns(times);
    let of_record = |bytes: &[u8]| xxhash_rust::xxh3::xxh3_64_with_seed(bytes, 7) as u32;
    let singly = by_frame + checksums(of_record, n, n, each);
    line("checksums, of batches", share(by_frame, &by_batch), "%", Target::AtMost(3.0));
    line("checksums, of single records", share(singly, &by_single), "%", Target::AtMost(3.0));
    line("close() after that, with its checkpoint", ns(&by_close), "ns/event", Target::None);
}

/// The wall and CPU time of `threads` that record disjoint parts into `engines`, one by one, from
/// when all are ready.
fn together(sales: &[Sale], threads: usize, engines: usize) -> (Duration, Duration) {
    let stores: Vec<_> = (0..engines).map(|_| Store::new(Options::new(), five_views())).collect();
    let barrier = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        let running: Vec<_> = sales
            .chunks(sales.len().div_ceil(threads))
            .zip(stores.iter().cycle())
            .map(|(part, store)| {
                let (db, barrier) = (store.db.clone(), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    batches(&db, part);
                })
            })
            .collect();
        let (wall, (cpu, ())) = wall(|| {
            cpu(|| {
                barrier.wait();
                for thread in running {
                    thread.join().expect("recorded");
                }
            })
        });
        (wall, cpu)
    })
}

fn two_threads(name: &str, sales: &[Sale]) {
    let n = sales.len();
    let (mut one, mut two, mut apart) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        one.push(together(sales, 1, 1));
        two.push(together(sales, 2, 1));
        apart.push(together(sales, 2, 2));
    }
    let best = |of: &[(Duration, Duration)]| of.iter().map(|(wall, _)| *wall).min().expect("some");
    let rate = |time: Duration| n as f64 / time.as_secs_f64() / 1e6;
    let cpu = |of: &[(Duration, Duration)]| {
        median(&of.iter().map(|(_, cpu)| ns_each(*cpu, n)).collect::<Vec<_>>())
    };
    let (fast_one, fast_two) = (rate(best(&one)), rate(best(&two)));
    heading(format!("{name}, two threads in batches, wall time, best of {ROUNDS} rounds"));
    line("one thread", fast_one, "M/s", Target::None);
    line("two threads, half of the events each", fast_two, "M/s", Target::None);
    line("two threads / one", fast_two / fast_one, "", Target::AtLeast(1.6));
    // What the machine gives at this moment to two threads that share nothing.
    let ceiling = rate(best(&apart)) / fast_one;
    line("two threads with an engine each / one", ceiling, "", Target::None);
    // The best round of one thread may have had memory that was known to the processor from the one before.
    let in_pairs = |of: &[(Duration, Duration)]| {
        let ratio =
            |(one, of): (&(Duration, _), &(Duration, _))| one.0.as_secs_f64() / of.0.as_secs_f64();
        median(&one.iter().zip(of).map(ratio).collect::<Vec<f64>>())
    };
    line("two threads / one, median of the rounds", in_pairs(&two), "", Target::AtLeast(1.6));
    line("engines apart / one, median of the rounds", in_pairs(&apart), "", Target::None);
    line("CPU time of one thread, median", cpu(&one), "ns/event", Target::None);
    line("CPU time of two threads, median", cpu(&two), "ns/event", Target::None);
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for name in ["retail", "synthetic"] {
        if wanted.is_empty() || wanted.iter().any(|set| set == name) {
            let sales = if name == "retail" { retail() } else { synthetic(1_000_000) };
            one_thread(name, &sales);
            two_threads(name, &sales);
        }
    }
}
