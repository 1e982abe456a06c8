//! Opening again after a clean close, and the first question to each of 10,000 keys.
//!
//! The files are in the page cache. Opening and asking change nothing in either directory, so each
//! round finds what the first one did. tiny-counter does nothing when it is opened; it reads a key's
//! file at the first question.

use crate::common::measure::{cpu, wall};
use crate::common::report::{Target, millis};
use crate::engines::{
    KEYS, agree, fill_quipu, fill_tiny, keys, last_seven_days, last_seven_days_of_tiny, quipu,
    temporary_directory, ten_instants, tiny_on,
};
use crate::report::{Figures, alternate, heading};
use chrono::{DateTime, Utc};
use quipu::Db;
use std::hint::black_box;

const ROUNDS: usize = 9;

pub(crate) fn run() {
    let now = Utc::now();
    let ten = ten_instants(now);
    compare("one event", &ten[9..]);
    compare("ten events", &ten);
}

/// Opening, asking, and both together, in milliseconds.
struct Times {
    open: Figures,
    ask: Figures,
    both: Figures,
    cpu: Figures,
}

impl Times {
    fn new(name: &str) -> Self {
        let figures = |what: &str| Figures::new(format!("{name}, {what}"), "ms");
        Times {
            open: figures("opening, wall"),
            ask: figures("the first question to each key, wall"),
            both: figures("both, wall"),
            cpu: figures("both, CPU time"),
        }
    }

    /// What is opened is dropped outside of the time.
    fn round<S>(&mut self, open: impl FnOnce() -> S, ask: impl FnOnce(&S)) {
        let (cpu, (opening, asking, _store)) = cpu(|| {
            let (opening, store) = wall(open);
            let (asking, ()) = wall(|| ask(&store));
            (opening, asking, store)
        });
        self.open.push(millis(opening));
        self.ask.push(millis(asking));
        self.both.push(millis(opening + asking));
        self.cpu.push(millis(cpu));
    }

    fn lines(&self, most: Target) {
        self.open.line(Target::None);
        self.ask.line(Target::None);
        self.both.line(most);
        self.cpu.line(most);
    }
}

fn compare(what: &str, instants: &[DateTime<Utc>]) {
    let keys = keys(KEYS);
    let store = quipu();
    fill_quipu(&store.db, &keys, instants, 1);
    let dir = temporary_directory();
    let peer = tiny_on(dir.path());
    fill_tiny(&peer, &keys, instants, 1);
    agree(&store.db, &peer, &keys);
    store.db.close().expect("closed");
    peer.close().expect("written");

    let mut ours = Times::new("Quipu");
    let mut theirs = Times::new("tiny-counter");
    let ask_ours = |db: &Db| {
        let query = db.query("counters").expect("a view");
        for key in &keys {
            black_box(last_seven_days(&query, key));
        }
    };
    alternate(
        ROUNDS,
        &mut [
            &mut || ours.round(|| Db::open(store.db.directory()).expect("opened"), ask_ours),
            &mut || {
                theirs.round(
                    || tiny_on(dir.path()),
                    |peer| {
                        for key in &keys {
                            black_box(last_seven_days_of_tiny(peer, key));
                        }
                    },
                );
            },
        ],
    );
    heading(&format!("reopening, {KEYS} keys with {what} each, median of {ROUNDS} rounds"));
    ours.lines(Target::AtMost(30.0));
    theirs.lines(Target::None);
    theirs.both.over(&ours.both).called("tiny-counter / Quipu, wall").line(Target::None);
    theirs.cpu.over(&ours.cpu).called("tiny-counter / Quipu, CPU time").line(Target::None);
}
