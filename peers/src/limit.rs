//! Asking whether something may happen and recording it, with one limit a key.

use crate::common::measure::cpu;
use crate::common::report::{Target, ns_each};
use crate::common::{Store, without_checkpoints};
use crate::engines::{KEYS, calls, keys};
use crate::heap;
use crate::report::{Figures, alternate, heading};
use crate::threads::together;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use quipu::{Event, Grain, Keep, Limiter, Options, Policy, View, Window};
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
    let minute = Window::rolling(Duration::from_mins(1));
    let limiter = |name: &str, n: u32| {
        store
            .db
            .set_policy(Policy::new(name).at_most("counters", u64::from(n), minute))
            .expect("set");
        store.db.limiter(name).expect("a policy")
    };
    let (ours_open, ours_shut) = (limiter("open", MANY), limiter("shut", 1));
    let ask = |limiter: &Limiter, key: &str| {
        limiter.check_and_record(&Event::new(key)).expect("answered").is_allowed()
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
        assert!(ask(&ours_open, key) && keyed(&shut, key));
    }
    let mut quipu = Figures::new("Quipu, allowed, recorded and logged", "ns");
    let mut quipu_denied = Figures::new("Quipu, denied", "ns");
    let mut governor = Figures::new("governor, allowed, in memory", "ns");
    let mut governor_denied = Figures::new("governor, denied", "ns");
    let mut tiny = Figures::new("tiny-counter, allowed, in memory", "ns");
    alternate(
        ROUNDS,
        &mut [
            &mut || quipu.push(time(&|key| ask(&ours_open, key), true)),
            &mut || governor.push(time(&|key| keyed(&open, key), true)),
            &mut || {
                let allows = |key: &str| {
                    let limiter = peer.limit().at_most(key, MANY, TimeUnit::Minutes);
                    limiter.check_and_record(key).is_ok()
                };
                tiny.push(time(&allows, true));
            },
            &mut || quipu_denied.push(time(&|key| ask(&ours_shut, key), false)),
            &mut || governor_denied.push(time(&|key| keyed(&shut, key), false)),
        ],
    );
    heading(&format!(
        "at most n in any minute, {KEYS} keys: CPU time a call, median of {ROUNDS} rounds"
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

    two_threads(&store.db, &keys);
    memory();
}

/// Two threads of different keys against one that does the work of both.
fn two_threads(db: &quipu::Db, keys: &[String]) {
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    let (a, b) = names.split_at(names.len() / 2);
    for (policy, what, is_allowed) in [("open", "allowed", true), ("shut", "denied", false)] {
        let limiter = db.limiter(policy).expect("a policy");
        let work = |keys: &[&str]| {
            for _ in 0..CALLS / names.len() {
                for key in keys {
                    let verdict = limiter.check_and_record(&Event::new(key)).expect("answered");
                    assert_eq!(verdict.is_allowed(), is_allowed);
                }
            }
        };
        let mut one = Figures::new(format!("{what}, one thread"), "ns");
        let mut two = Figures::new(format!("{what}, two threads"), "ns");
        let each = |time| ns_each(time, CALLS);
        alternate(
            ROUNDS,
            &mut [
                &mut || {
                    one.push(each(together(&[&|| {
                        work(a);
                        work(b);
                    }])));
                },
                &mut || two.push(each(together(&[&|| work(a), &|| work(b)]))),
            ],
        );
        heading(&format!("{what}, two threads with 5,000 keys each: wall time a call"));
        one.line(Target::None);
        two.line(Target::None);
        one.over(&two).called("one / two").line(Target::AtLeast(1.6));
    }
}

/// What a limited key takes, of which ten seconds of the minute have something.
fn memory() {
    heap::count();
    let keys = keys(KEYS);
    let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
    let options = without_checkpoints().memory_budget(usize::MAX).clock(clock.clone());
    let view = View::new("counters").by(["event"]).grain(Grain::Second, Keep::Last(62));
    let store = Store::new(options, [view]);
    let minute = Window::rolling(Duration::from_mins(1));
    store.db.set_policy(Policy::new("open").at_most("counters", 1_000, minute)).expect("set");
    let limiter = store.db.limiter("open").expect("a policy");
    let all = || {
        for _ in 0..10 {
            for key in &keys {
                let verdict = limiter.check_and_record(&Event::new(key)).expect("answered");
                assert!(verdict.is_allowed());
            }
            clock.advance(Duration::from_secs(6));
        }
    };
    let first = limiter.check_and_record(&Event::new("first")).expect("answered");
    assert!(first.is_allowed());
    let before = heap::bytes();
    all();
    store.db.sync().expect("synced");
    let ours = heap::bytes() - before;
    heading(&format!("memory of {KEYS} limited keys, used in ten seconds of a minute each"));
    Figures::exact("Quipu, a key", "bytes", ours as f64 / KEYS as f64).line(Target::AtMost(200.0));
}
