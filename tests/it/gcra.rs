//! The smooth kind of a limit, against a leaky bucket that has the time of every event.

use crate::limits::{Api, MICRO, allowed, call, denied, just_before, millis, secs};
use proptest::prelude::*;
use quipu::{Clock, Grain, Keep, Policy, View, Window};
use std::time::Duration;

/// A leaky bucket: `burst` at once, then `rate` in each `period` of microseconds.
struct Leaky {
    burst: u64,
    rate: u64,
    period: i64,
    /// In events times the period, at `at`.
    level: i128,
    at: i64,
}

impl Leaky {
    fn new(burst: u64, rate: u64, period: Duration) -> Self {
        Leaky { burst, rate, period: period.as_micros() as i64, level: 0, at: i64::MIN / 2 }
    }

    fn level(&self, now: i64) -> i128 {
        let sunk = i128::from(now - self.at) * i128::from(self.rate);
        (self.level - sunk).max(0)
    }

    fn has_room(&self, now: i64, cost: u64) -> bool {
        let cost = i128::from(cost) * i128::from(self.period);
        self.level(now) + cost <= i128::from(self.burst) * i128::from(self.period)
    }

    fn add(&mut self, now: i64, cost: u64) {
        self.level = self.level(now) + i128::from(cost) * i128::from(self.period);
        self.at = now;
    }
}

pub(crate) fn now(api: &Api) -> i64 {
    api.clock.now().micros()
}

/// Calls by key in so many buckets of this length.
pub(crate) fn kept(bucket: Duration, n: u32) -> View {
    let grain = Grain::every(bucket).unwrap();
    View::new("calls").by(["key"]).only_events(["call"]).grain(grain, Keep::Last(n))
}

#[test]
fn who_is_at_the_rate_does_not_get_the_burst_again() {
    // Of five, then one a second: five at once, one a second for a while, and then as many as there are.
    let api = Api::of(kept(millis(10), 502));
    let limit = api.at_most("alice", 5, Window::gcra(1, secs(1)));
    for _ in 0..5 {
        allowed(limit.check_and_record(&call("alice")));
    }
    for _ in 0..20 {
        api.clock.advance(millis(1_010));
        allowed(limit.check_and_record(&call("alice")));
    }
    let denial = denied(limit.check_and_record(&call("alice")));
    let retry = denial.retry_after.unwrap();
    assert!(denial.used == 5 && (millis(800)..=secs(1)).contains(&retry), "{denial}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Nothing is let through that a leaky bucket with the time of every event would not let through;
    /// denied until a microsecond before the time to come back, allowed at it.
    #[test]
    fn a_level_never_admits_what_an_exact_one_would_not_and_its_time_to_come_back_is_exact(
        burst in 1_u64..8,
        rate in 1_u64..4,
        bucket in prop::sample::select(vec![1_000_u64, 10_000, 100_000]),
        period in 1_u64..9,
        steps in prop::collection::vec((0.0..2.5_f64, 1_u64..3), 1..80),
    ) {
        let bucket = Duration::from_micros(bucket);
        let period = bucket * period as u32;
        let api = Api::of(kept(bucket, 80));
        let limit = api.at_most("alice", burst, Window::gcra(rate, period));
        let mut leaky = Leaky::new(burst, rate, period);
        for (wait, cost) in steps {
            let wait = wait * period.as_micros() as f64 / rate as f64;
            api.clock.advance(Duration::from_micros(wait as u64));
            match limit.check_and_record(&call("alice").times(cost)).unwrap() {
                quipu::Verdict::Allowed { .. } => {
                    prop_assert!(leaky.has_room(now(&api), cost));
                    leaky.add(now(&api), cost);
                }
                quipu::Verdict::Denied(denial) if cost > burst => prop_assert!(denial.is_too_much),
                quipu::Verdict::Denied(denial) => {
                    let retry = denial.retry_after.unwrap();
                    api.clock.advance(just_before(retry));
                    prop_assert!(!limit.check_count(cost).unwrap().is_allowed());
                    api.clock.advance(MICRO);
                    prop_assert!(limit.check_count(cost).unwrap().is_allowed());
                }
            }
        }
    }
}

#[test]
fn with_short_buckets_as_much_is_admitted_as_by_a_leaky_bucket_that_loses_their_length() {
    for (burst, rate, period) in [(5, 1, 10), (1, 1, 10), (20, 7, 100)] {
        let period = millis(period);
        let api = Api::of(kept(millis(1), 400));
        let limit = api.at_most("alice", burst, Window::gcra(rate, period));
        // Each comes back a bucket later than it does exactly.
        let mut coarse = Leaky::new(burst, rate, period + millis(1) * rate as u32);
        let (mut admitted, mut exact) = (0, 0);
        for _ in 0..4_000 {
            admitted += u64::from(limit.check_and_record(&call("alice")).unwrap().is_allowed());
            if coarse.has_room(now(&api), 1) {
                coarse.add(now(&api), 1);
                exact += 1;
            }
            api.clock.advance(Duration::from_micros(250));
        }
        assert!(admitted >= exact, "{admitted}, {exact} by the coarse one");
        let most = burst + (rate as f64 * 1_000.0 / period.as_millis() as f64) as u64 + 1;
        assert!(admitted <= most, "{admitted}, {most} at most");
    }
}

#[test]
fn who_uses_up_to_three_quarters_of_the_rate_has_the_burst_whenever_it_wants_it() {
    // Eight at once, a hundred a second; the burst is back in 80 ms, and four times that is kept.
    let api = Api::of(kept(millis(1), 322));
    let limit = api.at_most("alice", 8, Window::gcra(100, secs(1)));
    for round in 1..=300 {
        allowed(limit.check_and_record(&call("alice")));
        api.clock.advance(Duration::from_micros(13_400));
        if round % 100 == 0 {
            assert_eq!(allowed(limit.check_count(8)).0, Some(8), "{round}");
        }
    }
    // One that keeps no more than the time in which it comes back is on the strict side, not beyond.
    let api = Api::of(kept(millis(1), 82));
    let limit = api.at_most("alice", 8, Window::gcra(100, secs(1)));
    for _ in 0..300 {
        allowed(limit.check_and_record(&call("alice")));
        api.clock.advance(Duration::from_micros(13_400));
    }
    api.clock.advance(millis(80));
    assert_eq!(allowed(limit.check_count(8)).0, Some(8));
}

#[test]
fn a_rate_that_is_changed_keeps_what_was_used() {
    let api = Api::of(kept(millis(100), 62));
    let set = |burst, rate| {
        let policy = Policy::new("api").at_most("calls", burst, Window::gcra(rate, secs(1)));
        api.db.set_policy(policy).unwrap();
    };
    set(6, 2);
    let limiter = api.db.limiter("api").unwrap();
    let used = || limiter.usage(&call("alice")).unwrap()[0].used;
    allowed(limiter.check_and_record(&call("alice").times(6)));
    assert_eq!(used(), 6);
    // Faster: from the moment that they came on, by the new rate.
    set(6, 4);
    assert_eq!(used(), 6);
    api.clock.advance(secs(1));
    assert_eq!(used(), 2);
    // Slower, and less at once: what came back by the faster rate is taken back.
    set(4, 2);
    assert_eq!(used(), 4);
    let denial = denied(limiter.check(&call("alice")));
    assert_eq!((denial.limit, denial.used, denial.retry_after), (4, 4, Some(millis(500))));
    set(100, 50);
    assert_eq!(allowed(limiter.check(&call("alice"))).0, Some(100));
}
