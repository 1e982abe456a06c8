//! What a recording caller waits while checkpoints of 200,000 dirty series are written by another
//! thread, against the same calls without a checkpoint: the difference is the engine's, the rest
//! the machine's. Rounds with and without alternate.
//!
//! Wall time of each call; run as `cargo bench --bench pause`.
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod common;

use common::events::{Sale, synthetic};
use common::measure::percentile;
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

struct Waits {
    during: Vec<Duration>,
    quiet: Vec<Duration>,
    checkpoints: Vec<Duration>,
    series: u64,
}

/// Waits of the calls during checkpoints, and of as many directly after each.
fn measure(db: &Db, stream: &mut Stream<'_>, call: Call) -> Waits {
    let mut batch = db.batch();
    let mut waits = Waits { during: vec![], quiet: vec![], checkpoints: vec![], series: u64::MAX };
    for _ in 0..ROUNDS {
        make_dirty(db, stream);
        let written = AtomicBool::new(false);
        let mut calls = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                db.checkpoint().expect("written");
                written.store(true, Release);
            });
            while !written.load(Acquire) {
                waits.during.push(call.make(db, stream, &mut batch));
                calls += 1;
            }
        });
        let last = db.statistics().last_checkpoint.expect("one was made");
        waits.series = waits.series.min(last.series);
        waits.checkpoints.push(Duration::from_micros(last.duration_micros));
        waits.quiet.extend((0..calls).map(|_| call.make(db, stream, &mut batch)));
        // What became dirty meanwhile is not to be part of the next round's checkpoint.
        db.checkpoint().expect("written");
    }
    waits.during.sort_unstable();
    waits.quiet.sort_unstable();
    waits.checkpoints.sort_unstable();
    waits
}

fn report(what: &str, waits: &Waits) {
    let checkpoint = millis(percentile(&waits.checkpoints, 0.5));
    heading(format!(
        "{what}: {} calls during {ROUNDS} checkpoints of at least {} series ({checkpoint:.0} ms each)",
        waits.during.len(),
        waits.series,
    ));
    let shares = [
        ("median", 0.5, Target::None),
        ("99 %", 0.99, Target::None),
        ("99.9 %", 0.999, Target::None),
        ("99.99 %", 0.9999, Target::AtMost(5_000.0)),
        ("longest", 1.0, Target::None),
    ];
    for (name, share, target) in shares {
        let micros = |of: &[Duration]| percentile(of, share).as_nanos() as f64 / 1e3;
        line(format!("{name}, during checkpoints"), micros(&waits.during[..]), "us", target);
        line(format!("{name}, without"), micros(&waits.quiet[..]), "us", Target::None);
    }
}

fn main() {
    let sales = synthetic(1_000_000);
    let store = Store::new(without_checkpoints(), five_views());
    record_in_batches(&store.db, sales.iter().map(Sale::event));
    store.db.checkpoint().expect("written");
    let mut stream = Stream { sales: &sales, at: 0 };
    report("single records", &measure(&store.db, &mut stream, Call::Single));
    report("batches of 1,000", &measure(&store.db, &mut stream, Call::Batch));
}
