//! What a recording caller waits while checkpoints of 200,000 dirty series are written by another
//! thread, against the same calls without a checkpoint: the difference is the engine's, the rest
//! the machine's. Rounds with and without alternate.
//!
//! On a machine with other work the longest calls are those that the scheduler interrupted to let
//! somebody else run. Such a call is known by the kernel's count of involuntary switches, and the
//! last line leaves them out; a call that waits for a lock switches voluntarily and stays in.
//!
//! Wall time of each call; run as `cargo bench --bench pause`.
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod common;

use common::events::{Sale, synthetic};
use common::measure::{percentile, preemptions};
use common::report::{Target, heading, line, millis};
use common::{BATCH, Store, five_views, record_in_batches, without_checkpoints};
use quipu::{Batch, Db};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

const DIRTY: u64 = 200_000;
const ROUNDS: usize = 12;

/// The events over and over: no keys are new, so no table grows while it is measured.
struct Stream<'a> {
    sales: &'a [Sale],
    at: usize,
}

impl<'a> Stream<'a> {
    fn next(&mut self) -> &'a Sale {
        self.at = (self.at + 1) % self.sales.len();
        &self.sales[self.at]
    }
}

fn make_dirty(db: &Db, stream: &mut Stream<'_>) {
    while db.statistics().series_dirty < DIRTY {
        record_in_batches(db, (0..20_000).map(|_| stream.next().event()));
    }
}

#[derive(Clone, Copy)]
enum Call {
    Single,
    Batch,
}

impl Call {
    fn make(self, db: &Db, stream: &mut Stream<'_>, batch: &mut Batch) -> Duration {
        match self {
            Call::Single => {
                let event = stream.next().event();
                let begin = Instant::now();
                db.record(&event).expect("recorded");
                begin.elapsed()
            }
            Call::Batch => {
                for _ in 0..BATCH {
                    batch.push(&stream.next().event()).expect("a valid event");
                }
                let begin = Instant::now();
                db.record_batch(batch).expect("recorded");
                begin.elapsed()
            }
        }
    }
}

/// How long calls took.
#[derive(Default)]
struct Waits {
    all: Vec<Duration>,
    /// Those of them that were not interrupted by the scheduler.
    uninterrupted: Vec<Duration>,
    preemptions: u64,
}

impl Waits {
    fn add(&mut self, wait: Duration) {
        self.all.push(wait);
        // An interruption takes long, so only long calls are looked into.
        let before = self.preemptions;
        if wait > Duration::from_micros(200) {
            self.preemptions = preemptions();
        }
        if self.preemptions == before {
            self.uninterrupted.push(wait);
        }
    }
}

struct Measured {
    during: Waits,
    quiet: Waits,
    checkpoints: Vec<Duration>,
    series: u64,
}

/// Waits of the calls during checkpoints, and of as many directly after each.
fn measure(db: &Db, stream: &mut Stream<'_>, call: Call) -> Measured {
    let mut batch = db.batch();
    let (mut during, mut quiet) = (Waits::default(), Waits::default());
    let (mut checkpoints, mut series) = (vec![], u64::MAX);
    for _ in 0..ROUNDS {
        make_dirty(db, stream);
        let written = AtomicBool::new(false);
        let mut calls = 0;
        during.preemptions = preemptions();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                db.checkpoint().expect("written");
                written.store(true, Release);
            });
            while !written.load(Acquire) {
                during.add(call.make(db, stream, &mut batch));
                calls += 1;
            }
        });
        let last = db.statistics().last_checkpoint.expect("one was made");
        series = series.min(last.series);
        checkpoints.push(Duration::from_micros(last.duration_micros));
        quiet.preemptions = preemptions();
        for _ in 0..calls {
            quiet.add(call.make(db, stream, &mut batch));
        }
        // What became dirty meanwhile is not to be part of the next round's checkpoint.
        db.checkpoint().expect("written");
    }
    Measured { during, quiet, checkpoints, series }
}

fn report(what: &str, measured: &mut Measured) {
    let Measured { during, quiet, checkpoints, series } = measured;
    for waits in [&mut *during, &mut *quiet] {
        waits.all.sort_unstable();
        waits.uninterrupted.sort_unstable();
    }
    checkpoints.sort_unstable();
    let calls = during.all.len();
    let each = millis(percentile(checkpoints, 0.5));
    heading(format!(
        "{what}: {calls} calls during {ROUNDS} checkpoints of {series} or more series, {each:.0} ms each"
    ));
    let shares = [
        ("median", 0.5, Target::None),
        ("99 %", 0.99, Target::None),
        ("99.9 %", 0.999, Target::None),
        ("99.99 %", 0.9999, Target::AtMost(5_000.0)),
        ("longest", 1.0, Target::None),
    ];
    let micros = |waits: &[Duration], share| percentile(waits, share).as_nanos() as f64 / 1e3;
    for (name, share, target) in shares {
        line(format!("{name}, during checkpoints"), micros(&during.all, share), "us", target);
        line(format!("{name}, without"), micros(&quiet.all, share), "us", Target::None);
    }
    let [during, quiet] = [during, quiet].map(|waits| micros(&waits.uninterrupted, 0.9999));
    line("99.99 % of the uninterrupted, during checkpoints", during, "us", Target::None);
    line("99.99 % of the uninterrupted, without", quiet, "us", Target::None);
}

fn main() {
    let sales = synthetic(1_000_000);
    let store = Store::new(without_checkpoints(), five_views());
    record_in_batches(&store.db, sales.iter().map(Sale::event));
    store.db.checkpoint().expect("written");
    let mut stream = Stream { sales: &sales, at: 0 };
    report("single records", &mut measure(&store.db, &mut stream, Call::Single));
    report("batches of 1,000", &mut measure(&store.db, &mut stream, Call::Batch));
}
