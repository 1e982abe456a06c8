//! Asking whether something may happen and recording it, with one limit a key.

use crate::common::Store;
use crate::common::measure::cpu;
use crate::common::report::{Target, ns_each};
use crate::engines::{KEYS, calls, keys};
use crate::report::{Figures, alternate, heading};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use quipu::{Event, Grain, Keep, Options, Query, View, Window};
use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;
use tiny_counter::{EventStore, TimeUnit};

const CALLS: usize = 200_000;
const ROUNDS: usize = 7;
/// Never reached, or reached at once.
const MANY: u32 = 1_000_000_000;

pub(crate) fn run() {
    let keys = keys(KEYS);
    let calls = calls(&keys, CALLS);
    // The seconds that a rolling minute needs.
    let view = View::new("counters").by(["event"]).grain(Grain::Second, Keep::Last(62));
    let store = Store::new(Options::new(), [view]);
    let query = store.db.query("counters").expect("a view");
    let minute = Window::rolling(Duration::from_mins(1));
    let ask = |query: &Query, key: &str, n: u64| {
        let series = query.series(&[key]).expect("a key");
        let limit = store.db.limit().at_most(&series, n, minute).expect("a limit");
        limit.check_and_record(&Event::new(key)).expect("answered").is_allowed()
    };
    let quota = |n: u32| Quota::per_minute(NonZeroU32::new(n).expect("some"));
    let open: DefaultKeyedRateLimiter<String> = RateLimiter::keyed(quota(MANY));
    let shut: DefaultKeyedRateLimiter<String> = RateLimiter::keyed(quota(1));
    let peer = EventStore::new();

    let time = |question: &dyn Fn(&str) -> bool, is_allowed: bool| {
        let (time, ()) = cpu(|| {
            for key in &calls {
                assert_eq!(question(black_box(key)), is_allowed);
            }
        });
        ns_each(time, CALLS)
    };
    let keyed = |limiter: &DefaultKeyedRateLimiter<String>, key: &str| {
        limiter.check_key(&key.to_owned()).is_ok()
    };
    for key in &keys {
        assert!(ask(&query, key, u64::from(MANY)) && keyed(&shut, key));
    }
    let mut quipu = Figures::new("Quipu, allowed, recorded and logged", "ns");
    let mut quipu_denied = Figures::new("Quipu, denied", "ns");
    let mut governor = Figures::new("governor, allowed, in memory", "ns");
    let mut governor_denied = Figures::new("governor, denied", "ns");
    let mut tiny = Figures::new("tiny-counter, allowed, in memory", "ns");
    alternate(
        ROUNDS,
        &mut [
            &mut || quipu.push(time(&|key| ask(&query, key, u64::from(MANY)), true)),
            &mut || governor.push(time(&|key| keyed(&open, key), true)),
            &mut || {
                let limited = |key: &str| {
                    let limiter = peer.limit().at_most(key, MANY, TimeUnit::Minutes);
                    limiter.check_and_record(key).is_ok()
                };
                tiny.push(time(&limited, true));
            },
            &mut || quipu_denied.push(time(&|key| ask(&query, key, 1), false)),
            &mut || governor_denied.push(time(&|key| keyed(&shut, key), false)),
        ],
    );
    heading(&format!(
        "at most n in any minute, {KEYS} keys, a limit made for each call: CPU time a call, median of \
         {ROUNDS} rounds"
    ));
    for figures in [&quipu, &quipu_denied, &governor, &governor_denied, &tiny] {
        figures.line(Target::None);
    }
    quipu.over(&governor).called("Quipu / governor, allowed").line(Target::AtMost(3.0));
    quipu_denied
        .over(&governor_denied)
        .called("Quipu / governor, denied")
        .line(Target::AtMost(1.5));
    tiny.over(&quipu).called("tiny-counter / Quipu, allowed").line(Target::AtLeast(4.0));
}
