//! Cases of the tests of other limiters, each by its number in a list of them (A2 to A50): what goes in,
//! and what has to come out. Where what they want is another policy than ours, ours stands, and it is said why.
//!
//! Elsewhere: reservations (A28, A30) in `reservations.rs`; counters of several devices, merged twice, stale
//! or in any order (A44), in `exchange.rs`; the fields of HTTP (A50) in `http.rs`.

use crate::gcra::kept;
use crate::limits::{Api, MICRO, allowed, call, denied, just_before, millis, minute, secs};
use quipu::{Constraint, Event, Grain, Limit, Policy, Verdict, Window};
use std::time::Duration;

/// A limit of calls of alice, whose buckets are short beside it.
fn limited(bucket: Duration, buckets: u32, n: u64, window: Window) -> (Api, Limit) {
    let api = Api::of(kept(bucket, buckets));
    let limit = api.at_most("alice", n, window);
    (api, limit)
}

fn hit(limit: &Limit, n: u64) -> quipu::Result<Verdict> {
    limit.check_and_record(&call("alice").times(n))
}

fn is_allowed(limit: &Limit, n: u64) -> bool {
    hit(limit, n).unwrap().is_allowed()
}

/// What is left, of the first constraint.
fn left(limit: &Limit) -> u64 {
    limit.usage().unwrap()[0].remaining()
}

/// Five a second, and what is a second's worth, by both kinds.
fn per_second(n: u64) -> [Window; 2] {
    [Window::rolling(secs(1)), Window::gcra(n, secs(1))]
}

#[test]
fn a02_a_pause_that_is_longer_than_the_refill_gives_no_more_than_the_limit() {
    for window in per_second(5) {
        let (api, limit) = limited(millis(10), 102, 5, window);
        for round in 0..3 {
            let admitted = (0..6).map(|_| is_allowed(&limit, 1)).collect::<Vec<_>>();
            assert_eq!(admitted, [true, true, true, true, true, false], "{window}, {round}");
            api.clock.advance(secs(2));
        }
    }
}

#[test]
fn a04_weights_fit_whole_or_not_at_all() {
    for window in per_second(4) {
        let (api, limit) = limited(millis(1), 1_002, 4, window);
        let mut admitted = Vec::new();
        for wait in [0, 0, 1, 1_000, 1, 1] {
            api.clock.advance(millis(wait));
            admitted.push(is_allowed(&limit, 2));
        }
        assert_eq!(admitted, [true, true, false, true, true, false], "{window}");
    }
}

#[test]
fn a06_threads_at_one_instant_get_what_there_is() {
    for window in per_second(20) {
        let (api, limit) = limited(millis(1), 1_002, 20, window);
        let admitted: usize = std::thread::scope(|scope| {
            let ask = || usize::from(is_allowed(&limit, 1));
            let threads: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 20, "{window}");
        api.clock.advance(millis(2));
        assert!(!is_allowed(&limit, 1), "{window}");
        api.clock.advance(millis(998));
        assert!(is_allowed(&limit, 1), "{window}");
    }
}

#[test]
fn a08_what_is_denied_takes_nothing() {
    let (_api, limit) = limited(secs(1), 62, 10, Window::gcra(10, secs(60)));
    assert_eq!(allowed(hit(&limit, 5)).0, Some(5));
    assert_eq!(denied(hit(&limit, 6)).used, 5);
    assert_eq!(left(&limit), 5);
    assert_eq!(allowed(hit(&limit, 5)).0, Some(0));
}

#[test]
fn a10_numbers_that_are_as_great_as_can_be_do_not_overflow() {
    let most = i64::MAX as u64;
    let (_api, limit) = limited(secs(1), 62, 10, Window::gcra(10, secs(60)));
    assert!(denied(limit.check_count(most / 2)).is_too_much);
    assert!(denied(limit.check_count(u64::MAX)).is_too_much);
    for window in [Window::gcra(most / 1_000, secs(60)), Window::gcra(u64::MAX, secs(60)), minute()]
    {
        let (_api, limit) = limited(secs(1), 62, most / 1_000, window);
        allowed(hit(&limit, 1));
    }
    for window in [Window::gcra(u64::MAX, secs(60)), minute()] {
        let (_api, limit) = limited(secs(1), 62, u64::MAX, window);
        allowed(hit(&limit, 1));
        allowed(limit.check_count(u64::MAX - 1));
        assert!(limit.usage().unwrap()[0].used >= 1, "{window}");
    }
    // A burst that takes longer to come back than anything is kept for.
    let api = Api::new();
    let slow = api.db.limit().at_most(api.series("alice"), u64::MAX, Window::gcra(1, secs(60)));
    assert_eq!(slow.unwrap_err().kind(), quipu::ErrorKind::NotKept);
}

#[test]
fn a12_one_in_two_seconds_and_no_burst() {
    let (api, limit) = limited(secs(1), 4, 1, Window::gcra(1, secs(2)));
    assert_eq!(allowed(hit(&limit, 1)), (Some(0), Some(secs(2))));
    let denial = denied(hit(&limit, 1));
    assert_eq!((denial.limit, denial.used, denial.retry_after), (1, 1, Some(secs(2))));
    assert_eq!(limit.usage().unwrap()[0].resets_in, secs(2));
    api.clock.advance(denial.retry_after.unwrap());
    assert_eq!(allowed(hit(&limit, 1)), (Some(0), Some(secs(2))));
}

#[test]
fn a14_who_asks_for_too_much_does_not_drain_what_is_left() {
    // There, 100 of 10 take the 9 that are left away, and are refused. Here what is denied leaves nothing;
    // who wants to drain a limit records what is left of it.
    let (_api, limit) = limited(secs(1), 62, 10, minute());
    assert_eq!(left(&limit), 10);
    assert_eq!(allowed(hit(&limit, 1)).0, Some(9));
    assert!(denied(hit(&limit, 100)).is_too_much);
    assert_eq!(left(&limit), 9);
    assert_eq!(allowed(hit(&limit, left(&limit))).0, Some(0));
    assert_eq!(left(&limit), 0);
}

#[test]
fn a16_a_bucket_leaks_evenly() {
    let (api, limit) = limited(millis(100), 302, 10, Window::gcra(10, secs(30)));
    // How much, what is left then, and how long after that the next one comes.
    let steps = [
        (1, Some(9), 1_000),
        (1, Some(8), 1_000),
        (1, Some(7), 1_500),
        (0, Some(8), 3_000),
        (0, Some(9), 0),
        (9, Some(0), 0),
        (1, None, 3_000),
        (0, Some(1), 60_000),
        (0, Some(10), 60_000),
        (10, Some(0), 29_000),
        (9, Some(0), 3_000),
        (1, Some(0), 0),
    ];
    for (at, (cost, expected, wait)) in steps.into_iter().enumerate() {
        let found = match cost {
            0 => Some(left(&limit)),
            cost => match hit(&limit, cost).unwrap() {
                Verdict::Allowed { remaining, resets_in } => {
                    // All is back when what is used has come back: three seconds for each.
                    let longest = secs(3 * (10 - remaining.unwrap()));
                    assert!(resets_in.unwrap() <= longest, "step {at}: {resets_in:?}");
                    remaining
                }
                Verdict::Denied(_) => None,
            },
        };
        assert_eq!(found, expected, "step {at}");
        api.clock.advance(millis(wait));
    }
}

/// Jobs at most so many in an hour, net of what was given back.
fn net(api: &Api, n: u64) -> (Limit, Event<'static>, Event<'static>) {
    let counter = |name| api.db.counter(name).unwrap();
    let constraint = Constraint::at_most(n, Window::fixed(Grain::Hour));
    let limit = api.db.limit().on_net(counter("job"), counter("job_refund"), constraint).unwrap();
    (limit, Event::new("job"), Event::new("job_refund"))
}

#[test]
fn a18_a_reset_gives_all_of_it_back() {
    let api = Api::new();
    let (limit, job, refund) = net(&api, 100);
    assert_eq!(allowed(limit.check_and_record(&job)).0, Some(99));
    assert_eq!(allowed(limit.check_and_record(&job)).0, Some(98));
    assert_eq!(limit.reset(&refund).unwrap(), 2);
    assert_eq!(left(&limit), 100);
    assert_eq!(allowed(limit.check_and_record(&job)).0, Some(99));
    // What happened is counted all the same.
    assert_eq!(api.db.counter("job").unwrap().ever().sum().unwrap(), Some(3));
}

#[test]
fn a20_a_minute_of_the_calendar_begins_anew() {
    let api = Api::new();
    let limit = api.at_most("alice", 60, Window::fixed(Grain::Minute));
    let hits = [1, 1, 58].map(|n| allowed(hit(&limit, n)).0);
    assert_eq!(hits, [Some(59), Some(58), Some(0)]);
    assert_eq!(denied(hit(&limit, 1)).used, 60);
    api.clock.advance(secs(61));
    assert_eq!(left(&limit), 60);
}

#[test]
fn a22_the_first_of_an_idle_key_is_allowed() {
    for (bucket, window) in
        [(secs(1), Window::rolling(secs(10))), (secs(1), Window::gcra(1, secs(10)))]
    {
        let (api, limit) = limited(bucket, 12, 1, window);
        assert!(is_allowed(&limit, 1), "{window}");
        assert!(!is_allowed(&limit, 1), "{window}");
        // And of one that was idle for long.
        for idle in [11, 60, 86_400, 400 * 86_400] {
            api.clock.advance(secs(idle));
            assert!(is_allowed(&limit, 1), "{window}, {idle}");
        }
    }
}

#[test]
fn a24_no_more_is_given_back_than_was_used() {
    // There 12 of 10 are left then. Here a limit is never above itself: what would be left over could be
    // spent in one go, and more than the limit would be there in one window.
    let api = Api::new();
    let (limit, job, refund) = net(&api, 10);
    allowed(limit.check_and_record(&job.clone().times(3)));
    assert_eq!(limit.refund(&refund.clone().times(5)).unwrap(), 3);
    assert_eq!(left(&limit), 10);
    // Nothing at all is no event.
    let nothing = limit.check_and_record(&job.times(0)).unwrap_err();
    assert_eq!(nothing.kind(), quipu::ErrorKind::Invalid);
    assert_eq!(limit.refund(&refund.times(0)).unwrap_err().kind(), quipu::ErrorKind::Invalid);
    assert_eq!(left(&limit), 10);
}

#[test]
fn a26_who_asks_always_gets_the_share_of_buckets() {
    // With more lengths: `in_the_long_run_a_rolling_limit_admits_the_share_that_it_says`.
    for buckets in [10_u32, 50] {
        let n = u64::from(buckets);
        let (api, limit) =
            limited(millis(100), buckets + 2, n, Window::rolling(millis(100) * buckets));
        let mut admitted = 0;
        for _ in 0..20 * buckets * 4 {
            admitted += u64::from(is_allowed(&limit, 1));
            api.clock.advance(millis(25));
        }
        assert!(admitted * (n + 1) >= 20 * n * n, "{admitted} of {}", 20 * n);
        assert!(admitted <= 21 * n, "{admitted} of {}", 20 * n);
    }
}

#[test]
fn a32_what_is_only_asked_is_not_recorded() {
    let api = Api::new();
    let limit = api.at_most("alice", 10, minute());
    allowed(limit.check());
    assert_eq!(api.recorded("alice"), None);
    allowed(hit(&limit, 10));
    let _ = denied(hit(&limit, 1));
    assert_eq!(api.recorded("alice"), Some(10));
}

#[test]
fn a34_a_cooldown_is_over_when_it_says() {
    let api = Api::new();
    let limit = api.db.limit().cooldown(api.series("alice"), secs(3_600)).unwrap();
    allowed(hit(&limit, 1));
    api.clock.advance(secs(600));
    assert_eq!(denied(hit(&limit, 1)).retry_after, Some(secs(3_000)));
    api.clock.advance(secs(6_600));
    allowed(hit(&limit, 1));
}

#[test]
fn a36_a_prerequisite_holds_from_its_number_on() {
    let api = Api::new();
    let limit = api.db.limit().at_least(api.series("alice"), 10, minute()).unwrap();
    assert_eq!(denied(limit.check()).used, 0);
    api.db.record(&call("alice").times(5)).unwrap();
    assert_eq!(denied(limit.check()).used, 5);
    api.db.record(&call("alice").times(5)).unwrap();
    allowed(limit.check());
}

#[test]
fn a38_of_two_constraints_the_one_that_fails_is_named_and_nothing_is_recorded() {
    let api = Api::new();
    let limit = api.at_most("alice", 10, minute());
    let limit = limit.on(api.series("bob"), Constraint::at_most(1, minute()).named("bob")).unwrap();
    api.db.record(&call("bob")).unwrap();
    api.clock.advance(secs(20));
    let denial = denied(hit(&limit, 1));
    assert_eq!((denial.index, denial.constraint.name()), (1, Some("bob")));
    assert_eq!(denial.retry_after, Some(secs(40)));
    assert_eq!((api.recorded("alice"), api.recorded("bob")), (None, Some(1)));
}

#[test]
fn a40_deltas_count_as_they_are() {
    let api = Api::new();
    let limit = api.at_most("alice", 10, minute());
    assert_eq!([5, 5, 1].map(|n| is_allowed(&limit, n)), [true, true, false]);
    let fresh = api.at_most("bob", 10, minute());
    assert!(denied(fresh.check_and_record(&call("bob").times(11))).is_too_much);
}

#[test]
fn a42_a_limit_that_is_changed_counts_what_was_used() {
    let api = Api::new();
    let set = |n| {
        api.db.set_policy(Policy::new("api").at_most("calls", n, minute())).unwrap();
    };
    set(10);
    let limiter = api.db.limiter("api").unwrap();
    let used = || limiter.usage(&call("alice")).unwrap().remove(0);
    allowed(limiter.check_and_record(&call("alice").times(10)));
    for (n, remaining) in [(15, 5), (10, 0), (3, 0), (1, 0), (u64::MAX, u64::MAX - 10)] {
        set(n);
        assert_eq!((used().limit, used().used, used().remaining()), (n, 10, remaining));
        assert_eq!(limiter.check(&call("alice")).unwrap().is_allowed(), remaining > 0, "{n}");
    }
}

#[test]
fn a46_a_clock_that_is_set_back_neither_refills_nor_locks_out() {
    // Of rolling windows: `a_clock_that_is_set_back_gives_no_refill_..`.
    let (api, limit) = limited(secs(1), 62, 3, Window::gcra(3, secs(60)));
    allowed(hit(&limit, 3));
    let start = quipu::Clock::now(&api.clock);
    api.clock.set(start.saturating_sub(secs(3 * 3_600)));
    let denial = denied(hit(&limit, 1));
    assert_eq!(denial.retry_after, Some(secs(20)));
    api.clock.advance(just_before(secs(20)));
    let _ = denied(hit(&limit, 1));
    api.clock.advance(MICRO);
    allowed(hit(&limit, 1));
    // The first three as late as they can have been, in their second.
    assert!(denied(hit(&limit, 1)).retry_after.unwrap() < secs(21));
    // And forth: what came meanwhile has come back since.
    api.clock.set(start.saturating_add(secs(200)));
    assert!(is_allowed(&limit, 3));
    let _ = denied(hit(&limit, 1));
}

#[test]
fn a48_what_is_near_a_limit_is_counted() {
    let api = Api::new();
    api.db.set_policy(Policy::new("api").at_most("calls", 15, minute()).near(80)).unwrap();
    let limiter = api.db.limiter("api").unwrap();
    let counts = |hits: u64| {
        (0..hits).for_each(|_| drop(limiter.check_and_record(&call("alice")).unwrap()));
        let status = api.db.policies().unwrap().remove(0);
        (status.allowed, status.near, status.denied)
    };
    assert_eq!(counts(12), (12, 0, 0));
    assert_eq!(counts(1), (13, 1, 0));
    assert_eq!(counts(2), (15, 3, 0));
    // What is denied is counted as that alone.
    assert_eq!(counts(1), (15, 3, 1));
    assert_eq!(counts(1), (15, 3, 2));
}
