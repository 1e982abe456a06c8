//! Two threads on keys of their own against one thread that does the work of both.

use crate::common::measure::wall;
use crate::common::report::{Target, ns_each};
use crate::engines::{KEYS, calls, keys, quipu};
use crate::record::{batches, singly, tiny};
use crate::report::{Figures, alternate, heading};
use std::sync::Barrier;
use std::time::Duration;
use tiny_counter::EventStore;

/// Events of each of the two.
const EVENTS: usize = 500_000;
const ROUNDS: usize = 9;

pub(crate) fn run() {
    compare("a hot key each", 1);
    compare("5,000 keys each", KEYS / 2);
}

/// The wall time of `works`, each in a thread of its own, from when all are ready.
pub(crate) fn together(works: &[&(dyn Fn() + Sync)]) -> Duration {
    let barrier = Barrier::new(works.len() + 1);
    std::thread::scope(|scope| {
        let running: Vec<_> = works
            .iter()
            .map(|work| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    work();
                })
            })
            .collect();
        let (time, ()) = wall(|| {
            barrier.wait();
            for thread in running {
                thread.join().expect("recorded");
            }
        });
        time
    })
}

/// What one store takes in a round, recorded to by one thread, by two, and by two that have a store
/// each: what the machine gives at that moment to two threads that share nothing.
struct Contest {
    name: &'static str,
    one: Figures,
    two: Figures,
    apart: Figures,
}

impl Contest {
    fn new(name: &'static str) -> Self {
        let figures = |who: &str| Figures::new(format!("{name}: {who}"), "ns/event");
        Contest {
            name,
            one: figures("one thread"),
            two: figures("two threads"),
            apart: figures("two threads with a store each"),
        }
    }

    fn round<S: Sync>(
        &mut self,
        open: impl Fn() -> S,
        halves: [&[&str]; 2],
        record: impl Fn(&S, &[&str]) + Sync,
    ) {
        let [a, b] = halves;
        let ns = |time: Duration| ns_each(time, a.len() + b.len());
        let store = open();
        self.one.push(ns(together(&[&|| {
            record(&store, a);
            record(&store, b);
        }])));
        let store = open();
        self.two.push(ns(together(&[&|| record(&store, a), &|| record(&store, b)])));
        let (store, other) = (open(), open());
        self.apart.push(ns(together(&[&|| record(&store, a), &|| record(&other, b)])));
    }

    fn lines(&self, target: Target) {
        for figures in [&self.one, &self.two, &self.apart] {
            figures.line(Target::None);
        }
        // The best round of each: what others do on the machine can only make a round longer.
        let speed = |label: &str, of: &Figures, target| {
            let ratio = self.one.best().over(&of.best());
            ratio.called(format!("{}: {label}", self.name)).line(target);
        };
        speed("speed of two threads / one, at best", &self.two, target);
        speed("the same with a store each", &self.apart, Target::None);
    }
}

fn compare(what: &str, keys_each: usize) {
    let keys = keys(2 * keys_each);
    let halves: Vec<Vec<&str>> = keys.chunks(keys_each).map(|half| calls(half, EVENTS)).collect();
    let halves = [halves[0].as_slice(), halves[1].as_slice()];
    let mut single = Contest::new("Quipu, single events");
    let mut batch = Contest::new("Quipu, batches");
    let mut peer = Contest::new("tiny-counter");
    alternate(
        ROUNDS,
        &mut [
            &mut || single.round(quipu, halves, |store, calls| singly(&store.db, calls)),
            &mut || peer.round(EventStore::new, halves, tiny),
            &mut || batch.round(quipu, halves, |store, calls| batches(&store.db, calls)),
        ],
    );
    heading(&format!(
        "two threads, {what}: {} events, wall time, median of {ROUNDS} rounds",
        2 * EVENTS
    ));
    single.lines(Target::AtLeast(1.6));
    batch.lines(Target::AtLeast(1.6));
    peer.lines(Target::None);
    let ratio = |of: &Contest, label: &str| {
        peer.two.over(&of.two).called(label).line(Target::AtLeast(4.0));
    };
    ratio(&single, "two threads: tiny-counter / Quipu, single events");
    ratio(&batch, "two threads: tiny-counter / Quipu, batches");
}
