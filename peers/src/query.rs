//! Asking how many events the last seven days had, of keys that are in memory.

use crate::common::measure::cpu;
use crate::common::report::{Target, ns_each};
use crate::engines::{
    KEYS, agree, all_buckets, calls, fill_quipu, fill_tiny, keys, last_seven_days,
    last_seven_days_of_tiny, quipu, ten_instants,
};
use crate::report::{Figures, alternate, heading};
use chrono::{DateTime, Utc};
use std::hint::black_box;
use tiny_counter::EventStore;

const QUESTIONS: usize = 50_000;
const ROUNDS: usize = 9;

pub(crate) fn run() {
    // The system's clock, which both ask for each question.
    let now = Utc::now();
    let (ten, all) = (ten_instants(now), all_buckets(now));
    compare("one hot key with ten events over two months", 1, &ten);
    compare("one hot key with all 256 buckets busy", 1, &all);
    compare("10,000 keys with ten events each", KEYS, &ten);
    compare("10,000 keys with all 256 buckets busy", KEYS, &all);
}

fn compare(what: &str, n: usize, instants: &[DateTime<Utc>]) {
    let keys = keys(n);
    let (store, peer) = (quipu(), EventStore::new());
    fill_quipu(&store.db, &keys, instants, 1);
    fill_tiny(&peer, &keys, instants, 1);
    agree(&store.db, &peer, &keys);

    let calls = calls(&keys, QUESTIONS);
    let ask = |question: &dyn Fn(&str) -> u64| {
        let (time, ()) = cpu(|| {
            for key in &calls {
                black_box(question(black_box(key)));
            }
        });
        ns_each(time, QUESTIONS)
    };
    let query = store.db.query("counters").expect("a view");
    let mut kept = Figures::new("Quipu, one query() for all questions", "ns");
    let mut anew = Figures::new("Quipu, a query() for each question", "ns");
    let mut tiny = Figures::new("tiny-counter", "ns");
    alternate(
        ROUNDS,
        &mut [
            &mut || kept.push(ask(&|key| last_seven_days(&query, key))),
            &mut || tiny.push(ask(&|key| last_seven_days_of_tiny(&peer, key))),
            &mut || {
                anew.push(ask(&|key| {
                    last_seven_days(&store.db.query("counters").expect("a view"), key)
                }));
            },
        ],
    );
    heading(&format!(
        "the last seven days of {what}: CPU time a question, median of {ROUNDS} rounds"
    ));
    for figures in [&kept, &anew, &tiny] {
        figures.line(Target::None);
    }
    tiny.over(&kept).called("tiny-counter / Quipu").line(Target::AtLeast(4.0));
    tiny.over(&anew).called("tiny-counter / Quipu, a query() for each").line(Target::AtLeast(4.0));
}
