//! Limits: what is let through, what is held back and until when, by one thread and by many.

use crate::directory::{crash_image, options};
use proptest::prelude::*;
use quipu::{
    Db, Durability, ErrorKind, Event, Grain, Keep, Limit, SeriesQuery, TestClock, Timestamp,
    Verdict, View, Window,
};
use std::path::Path;
use std::time::Duration;

pub(crate) const NOW: i64 = 1_700_000_000;
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MICRO: Duration = Duration::from_micros(1);

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A microsecond less.
pub(crate) fn just_before(length: Duration) -> Duration {
    length.checked_sub(MICRO).unwrap()
}

pub(crate) fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Calls by key, in seconds of the last minute and hours of the last day.
pub(crate) fn calls() -> View {
    View::new("calls")
        .by(["key"])
        .only_events(["call"])
        .grain(Grain::Second, Keep::Last(62))
        .grain(Grain::Minute, Keep::Last(2))
        .grain(Grain::Hour, Keep::Last(25))
}

/// Calls by key in the last 62 buckets of this length alone.
pub(crate) fn calls_by(bucket: Duration) -> View {
    let grain = Grain::every(bucket).unwrap();
    View::new("calls").by(["key"]).only_events(["call"]).grain(grain, Keep::Last(62))
}

pub(crate) struct Api {
    pub(crate) root: tempfile::TempDir,
    pub(crate) clock: TestClock,
    pub(crate) db: Db,
}

impl Api {
    pub(crate) fn new() -> Self {
        Api::of(calls())
    }

    pub(crate) fn of(calls: View) -> Self {
        let root = tempfile::tempdir().unwrap();
        let clock = TestClock::at(Timestamp::from_secs(NOW));
        let db = open_with(calls, &root.path().join("db"), &clock);
        Api { root, clock, db }
    }

    pub(crate) fn series(&self, key: &str) -> SeriesQuery {
        series(&self.db, key)
    }

    pub(crate) fn at_most(&self, key: &str, n: u64, window: Window) -> Limit {
        self.db.limit().at_most(self.series(key), n, window).unwrap()
    }

    pub(crate) fn recorded(&self, key: &str) -> Option<u64> {
        self.series(key).ever().sum().unwrap()
    }
}

fn open(dir: &Path, clock: &TestClock) -> Db {
    open_with(calls(), dir, clock)
}

pub(crate) fn open_with(calls: View, dir: &Path, clock: &TestClock) -> Db {
    options().clock(clock.clone()).view(calls).view(View::counters()).open(dir).unwrap()
}

pub(crate) fn series(db: &Db, key: &str) -> SeriesQuery {
    db.query("calls").unwrap().series(&[key]).unwrap()
}

pub(crate) fn call(key: &str) -> Event<'_> {
    Event::new("call").dim("key", key)
}

pub(crate) fn minute() -> Window {
    Window::rolling(secs(60))
}

#[track_caller]
pub(crate) fn allowed(verdict: quipu::Result<Verdict>) -> (Option<u64>, Option<Duration>) {
    match verdict.unwrap() {
        Verdict::Allowed { remaining, resets_in } => (remaining, resets_in),
        Verdict::Denied(denial) => panic!("{denial}"),
    }
}

#[track_caller]
pub(crate) fn denied(verdict: quipu::Result<Verdict>) -> quipu::Denial {
    verdict.unwrap().denial().expect("it is denied").clone()
}

#[test]
fn a_rolling_minute_does_not_admit_twice_the_limit_at_the_turn_of_two_and_a_fixed_one_does() {
    for (window, admitted) in [(minute(), 10), (Window::fixed(Grain::Minute), 20)] {
        let api = Api::new();
        // 59 s of a minute, and the first seconds of the next.
        api.clock.set(Timestamp::from_secs(NOW / 60 * 60 + 59));
        let limit = api.at_most("alice", 10, window);
        let mut count = 0;
        for _ in 0..4 {
            for _ in 0..20 {
                count += u32::from(limit.check_and_record(&call("alice")).unwrap().is_allowed());
            }
            api.clock.advance(millis(500));
        }
        assert_eq!(count, admitted, "{window}");
        assert_eq!(api.recorded("alice"), Some(u64::from(admitted)));
    }
}

#[test]
fn checking_creates_nothing_and_what_is_denied_leaves_nothing() {
    let api = Api::new();
    let limit = api.at_most("alice", 2, minute());
    assert_eq!(allowed(limit.check()), (Some(2), Some(Duration::ZERO)));
    assert_eq!(api.db.query("calls").unwrap().key_count().unwrap(), 0);
    assert_eq!(api.recorded("alice"), None);

    assert_eq!(allowed(limit.check_and_record(&call("alice"))).0, Some(1));
    assert_eq!(allowed(limit.check_and_record(&call("alice"))).0, Some(0));
    let position = api.db.position();
    let denial = denied(limit.check_and_record(&call("alice")));
    assert_eq!((denial.index, denial.limit, denial.used, denial.is_too_much), (0, 2, 2, false));
    assert_eq!((api.db.position(), api.recorded("alice")), (position, Some(2)));
    // Another key has its own.
    assert_eq!(allowed(api.at_most("bob", 2, minute()).check()).0, Some(2));
    // The words say which, how much, and when.
    let words = denial.to_string();
    assert_eq!(words, "at most 2 in any 1m: 2 of 2; again in 1m");
}

#[test]
fn weights_are_all_or_nothing_and_what_never_fits_is_said_so() {
    let api = Api::new();
    let limit = api.at_most("alice", 10, minute());
    let cost = |n: u64| limit.check_and_record(&call("alice").times(n));
    assert_eq!(allowed(cost(5)).0, Some(5));
    assert_eq!(denied(cost(6)).used, 5);
    assert_eq!(allowed(cost(5)).0, Some(0));
    let denial = denied(cost(11));
    assert_eq!((denial.is_too_much, denial.retry_after), (true, None));
    let denial = denied(limit.check_count(u64::MAX));
    assert_eq!((denial.is_too_much, denial.used), (true, 10));
    assert!(denial.to_string().ends_with("it can never fit"), "{denial}");
    assert_eq!(limit.check_count(0).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(cost(0).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(api.recorded("alice"), Some(10));
}

#[test]
fn several_constraints_are_one_step_and_the_last_to_hold_again_is_named() {
    let api = Api::new();
    let limit = api
        .at_most("alice", 3, minute())
        .at_most(api.series("alice"), 4, Window::fixed(Grain::Hour))
        .unwrap();
    for _ in 0..3 {
        allowed(limit.check_and_record(&call("alice")));
    }
    let denial = denied(limit.check_and_record(&call("alice")));
    assert_eq!((denial.index, denial.retry_after), (0, Some(secs(60))));
    api.clock.advance(secs(61));
    // Of the hour there is one left, of the minute there are three.
    assert_eq!(allowed(limit.check_and_record(&call("alice"))).0, Some(0));
    let denial = denied(limit.check_and_record(&call("alice")));
    let hour = 3_600 - (NOW as u64 + 61) % 3_600;
    assert_eq!((denial.index, denial.retry_after), (1, Some(secs(hour))));
    let usage = limit.usage().unwrap();
    assert_eq!(usage.iter().map(|usage| usage.used).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(usage.iter().map(quipu::Usage::remaining).collect::<Vec<_>>(), [2, 0]);
    assert_eq!(usage[1].resets_in, secs(hour));
    assert_eq!(api.recorded("alice"), Some(4));
}

#[test]
fn prerequisites_want_what_certainly_happened() {
    let api = Api::new();
    let logins = api.db.counter("login").unwrap();
    let limit = api.db.limit().at_least(&logins, 10, Window::rolling(secs(7_200))).unwrap();
    for (more, is_allowed) in [(0, false), (5, false), (4, false), (1, true)] {
        if more > 0 {
            logins.record_count(more).unwrap();
        }
        assert_eq!(limit.check().unwrap().is_allowed(), is_allowed);
    }
    assert_eq!(
        denied(api.db.limit().at_least(&logins, 11, two_hours()).unwrap().check()).retry_after,
        None
    );
    // Two hours later they may be older than that: the hour that they are in is cut.
    api.clock.advance(just_before(secs(7_200)));
    let denial = denied(limit.check());
    assert_eq!((denial.used, denial.retry_after), (0, None));
}

fn two_hours() -> Window {
    Window::last(2, Grain::Hour)
}

#[test]
fn cooldowns_and_what_must_be_recent_are_exact_to_the_microsecond() {
    let api = Api::new();
    let saves = api.db.counter("save").unwrap();
    let cooldown = api.db.limit().cooldown(&saves, secs(3_600)).unwrap();
    let recent = api.db.limit().within(&saves, secs(60)).unwrap();
    let save = Event::new("save");
    assert_eq!(denied(recent.check()).retry_after, None);
    assert_eq!(allowed(cooldown.check_and_record(&save)), (None, None));
    assert!(recent.check().unwrap().is_allowed());
    assert_eq!(denied(cooldown.check_and_record(&save)).retry_after, Some(secs(3_600)));
    api.clock.advance(just_before(secs(60)));
    assert!(recent.check().unwrap().is_allowed());
    api.clock.advance(MICRO);
    assert!(!recent.check().unwrap().is_allowed());
    api.clock.advance(just_before(secs(3_540)));
    assert_eq!(denied(cooldown.check()).retry_after, Some(MICRO));
    api.clock.advance(MICRO);
    assert!(cooldown.check_and_record(&save).unwrap().is_allowed());
    // Both at once: when the cooldown is over the other does not hold any more.
    let both = cooldown.clone().within(&saves, secs(60)).unwrap();
    let denial = denied(both.check());
    assert_eq!((denial.index, denial.retry_after), (0, None));
}

#[test]
fn a_time_to_come_back_is_one_at_which_schedules_and_counts_both_allow_it() {
    let api = Api::new();
    // 22:13:20 on a Tuesday.
    let nights = || "23:00-00:30".parse::<quipu::Schedule>().unwrap();
    let limit = api.at_most("alice", 1, Window::rolling(secs(7_200))).during(nights()).unwrap();
    let denial = denied(limit.check_and_record(&call("alice")));
    let words = "only daily 23:00-00:30 in UTC; again in 46m40s";
    assert_eq!((denial.index, denial.to_string().as_str()), (1, words));
    // Then full for two hours, and closed when those are over.
    api.clock.advance(secs(2_800));
    allowed(limit.check_and_record(&call("alice")));
    let denial = denied(limit.check_and_record(&call("alice")));
    assert_eq!((denial.index, denial.retry_after), (0, Some(secs(24 * 3_600))));
    let days = api.db.limit().outside_of(nights()).unwrap();
    assert_eq!(denied(days.check()).retry_after, Some(secs(5_400)));
    let never = "2020-02-03 00:00-24:00".parse::<quipu::Schedule>().unwrap();
    let denial = denied(api.db.limit().during(never).unwrap().check());
    assert_eq!((denial.retry_after, denial.is_too_much, denial.limit), (None, false, 0));
    assert_eq!(days.usage().unwrap()[0].used, 0);
}

#[test]
fn what_means_nothing_is_refused_where_it_is_said() {
    let api = Api::new();
    let limit = || api.db.limit();
    let (alice, all) = (api.series("alice"), api.db.query("calls").unwrap().all_series());
    let fine = minute();
    let invalid = [
        limit().at_most(&alice, 0, fine),
        limit().at_least(&alice, 0, fine),
        limit().at_most(&alice, 1, Window::rolling(Duration::ZERO)),
        limit().at_most(&alice, 1, Window::rolling(Duration::MAX)),
        limit().at_most(&alice, 1, Window::last(0, Grain::Hour)),
        limit().at_most(&alice, 1, Window::last(u32::MAX, Grain::Hour)),
        limit().cooldown(&alice, Duration::ZERO),
        limit().within(&alice, Duration::ZERO),
        limit().at_most(&all, 1, fine),
    ];
    for refused in invalid {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    }
    for window in [
        Window::fixed(Grain::Day),
        Window::last(26, Grain::Hour),
        Window::rolling(secs(25 * 3_600)),
    ] {
        let error = limit().at_most(&alice, 1, window).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotKept, "{error}");
        assert!(error.to_string().contains("25 hours"), "{error}");
    }
    let timed = call("alice").at(Timestamp::from_secs(NOW));
    let error = api.at_most("alice", 1, fine).check_and_record(&timed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    // A limit without constraints allows everything, and an event that is none is refused.
    assert_eq!(allowed(limit().check_and_record(&call("alice"))), (None, None));
    assert_eq!(limit().check_and_record(&Event::new("")).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(api.recorded("alice"), Some(1));
}

#[test]
fn eight_threads_are_let_through_exactly_as_often_as_the_limit_says() {
    for durability in [Durability::Memory, Durability::Interval(millis(100))] {
        let api = Api::new();
        let admitted: u64 = std::thread::scope(|scope| {
            let tries = || {
                let limit = api.at_most("alice", 5_000, minute());
                let mut admitted = 0;
                for _ in 0..2_000 {
                    let verdict = limit.check_and_record_with(&call("alice"), durability);
                    admitted += u64::from(verdict.unwrap().is_allowed());
                }
                admitted
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(tries)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((admitted, api.recorded("alice")), (5_000, Some(5_000)));
    }
}

#[test]
fn constraints_on_several_keys_in_any_order_hold_together_and_do_not_lock_each_other_out() {
    let api = Api::new();
    let keys = ["alice", "bob", "cem"];
    let admitted: u64 = std::thread::scope(|scope| {
        let api = &api;
        let tries = |turn: usize| {
            move || {
                // Each thread has them in another order, one of them twice.
                let order = [turn, turn + 1, turn + 2, turn].map(|at| keys[at % 3]);
                let limit = order.iter().fold(api.db.limit(), |limit, key| {
                    limit.at_most(api.series(key), 300, minute()).unwrap()
                });
                let mut admitted = 0;
                for n in 0..400 {
                    let event = call(keys[(turn + n) % 3]);
                    admitted += u64::from(limit.check_and_record(&event).unwrap().is_allowed());
                }
                admitted
            }
        };
        let threads: Vec<_> = (0..6).map(|turn| scope.spawn(tries(turn))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let counts = keys.map(|key| api.recorded(key).unwrap_or(0));
    assert_eq!(counts.iter().sum::<u64>(), admitted);
    // Full as soon as one of them is.
    assert_eq!(counts.iter().max(), Some(&300), "{counts:?}");
}

#[test]
fn what_others_record_counts_and_batches_do() {
    let api = Api::new();
    let limit = api.at_most("alice", 10, minute());
    allowed(limit.check_and_record(&call("alice")));
    api.db.record(&call("alice").times(3)).unwrap();
    let mut batch = api.db.batch();
    for _ in 0..5 {
        batch.push(&call("alice")).unwrap();
    }
    api.db.record_batch(&mut batch).unwrap();
    assert_eq!(allowed(limit.check()).0, Some(1));
    // Beside a view that is not asked by limits, in one store: both have everything.
    api.db.define(View::new("all")).unwrap();
    allowed(limit.check_and_record(&call("alice")));
    assert_eq!(denied(limit.check()).used, 10);
    assert_eq!(api.db.query("all").unwrap().totals().unwrap().count, 1);
    assert_eq!(api.db.counter("call").unwrap().ever().sum().unwrap(), Some(10));
}

#[test]
fn after_a_crash_what_was_denied_is_denied_until_the_same_moment() {
    let api = Api::new();
    let limit = api.at_most("alice", 3, minute());
    for _ in 0..3 {
        allowed(limit.check_and_record(&call("alice")));
        api.clock.advance(SECOND);
    }
    let retry = denied(limit.check()).retry_after.unwrap();
    // With the events in the stage, then in the log, then in the snapshot and evicted.
    for step in 0..3 {
        let image = api.root.path().join(format!("image {step}"));
        crash_image(api.db.directory(), &image);
        let again = open(&image, &api.clock);
        let limit = again.limit().at_most(series(&again, "alice"), 3, minute()).unwrap();
        let denial = denied(limit.check_and_record(&call("alice")));
        assert_eq!((denial.used, denial.retry_after), (3, Some(retry)), "{step}");
        match step {
            0 => drop(api.db.sync().unwrap()),
            _ => api.db.checkpoint().map(drop).unwrap(),
        }
    }
    api.clock.advance(retry);
    allowed(limit.check_and_record(&call("alice")));
}

#[test]
fn a_clock_that_is_set_back_gives_no_refill_and_locks_nobody_out_for_longer_than_the_window() {
    // By seconds, so that the ring has the window still, and by hours, so that it has not.
    for back in [30, 3 * 3_600] {
        let api = Api::new();
        let limit = api.at_most("alice", 3, minute());
        for _ in 0..3 {
            allowed(limit.check_and_record(&call("alice")));
        }
        let start = quipu::Clock::now(&api.clock);
        api.clock.set(start.saturating_sub(secs(back)));
        for _ in 0..6 {
            let denial = denied(limit.check_and_record(&call("alice")));
            assert!(denial.retry_after.unwrap() <= secs(60), "{denial}");
            api.clock.advance(secs(8));
        }
        // Others, who were never ahead, are limited all the while.
        let of_bob = api.at_most("bob", 1, minute());
        allowed(of_bob.check_and_record(&call("bob")));
        assert_eq!(denied(of_bob.check()).retry_after, Some(secs(60)));
        // Until the very moment.
        let retry = denied(limit.check()).retry_after.unwrap();
        assert_eq!(retry, secs(60 - 6 * 8));
        api.clock.advance(just_before(retry));
        let _ = denied(limit.check_and_record(&call("alice")));
        api.clock.advance(Duration::from_micros(1));
        allowed(limit.check_and_record(&call("alice")));
        api.clock.advance(secs(1));
        for _ in 0..2 {
            allowed(limit.check_and_record(&call("alice")));
        }
        let denial = denied(limit.check_and_record(&call("alice")));
        assert_eq!(denial.retry_after, Some(just_before(secs(60))));
        // And forth: time has passed as it did.
        api.clock.set(start.saturating_add(secs(61)));
        let denial = denied(limit.check_and_record(&call("alice")));
        assert_eq!(denial.retry_after, Some(just_before(secs(60))), "{back}");
        api.clock.advance(secs(60));
        allowed(limit.check_and_record(&call("alice")));
        assert_eq!(api.recorded("alice"), Some(7));
    }
}

#[test]
fn under_a_clock_that_was_set_back_what_others_record_is_not_missed() {
    // Logins that fail are asked about, and recorded by somebody else.
    let api = Api::new();
    let limit = api.at_most("alice", 3, minute());
    let fails = || api.db.record(&call("alice")).unwrap();
    allowed(limit.check());
    fails();
    api.clock.set(quipu::Clock::now(&api.clock).saturating_sub(secs(3 * 3_600)));
    let mut let_in = 0;
    for _ in 0..50 {
        if limit.check().unwrap().is_allowed() {
            let_in += 1;
            fails();
        }
        api.clock.advance(secs(1));
    }
    // The first of the three was before; in batches, too.
    assert!(let_in <= 2, "{let_in}");
    let api = Api::new();
    let limit = api.at_most("alice", 3, minute());
    allowed(limit.check_and_record(&call("alice")));
    api.clock.set(quipu::Clock::now(&api.clock).saturating_sub(secs(3 * 3_600)));
    allowed(limit.check());
    api.db.record_all(vec![call("alice"); 3], quipu::OnInvalid::Refuse).unwrap();
    let _ = denied(limit.check());
}

#[test]
fn under_a_clock_that_was_set_back_limits_record_by_their_own_however_they_record() {
    let api = Api::new();
    let limit = api.at_most("alice", 3, minute());
    allowed(limit.check_and_record(&call("alice")));
    api.clock.set(quipu::Clock::now(&api.clock).saturating_sub(secs(3 * 3_600)));
    // What waits for the disk goes another way than what does not.
    allowed(limit.check_and_record_with(&call("alice"), quipu::Durability::Sync));
    allowed(limit.check_and_record_with(&call("alice"), quipu::Durability::Sync));
    let denial = denied(limit.check());
    assert!(denial.retry_after.unwrap() <= secs(60), "{denial}");
}

#[test]
fn under_a_clock_that_was_set_back_limits_of_one_series_and_of_several_agree() {
    let api = Api::new();
    let of = |key| api.at_most(key, 5, minute());
    allowed(of("global").check_and_record(&call("global")));
    api.clock.set(quipu::Clock::now(&api.clock).saturating_sub(secs(3 * 3_600)));
    // A lease is over when it is, whichever limit asks: of two, one goes by the other clock.
    allowed(of("bob").check_and_record(&call("bob")));
    let held = of("bob").reserve(2, secs(90)).unwrap().unwrap();
    let both = of("bob").at_most(api.series("global"), 5, minute()).unwrap();
    allowed(both.check());
    assert_eq!(of("bob").usage().unwrap()[0].used, 3);
    // New under both: recorded by the steady clock, and asked by it by itself.
    let both = of("new").at_most(api.series("global"), 5, minute()).unwrap();
    for _ in 0..4 {
        allowed(both.check_and_record(&call("new")));
    }
    allowed(of("new").check_and_record(&call("new")));
    let denial = denied(of("new").check());
    assert!(denial.retry_after.unwrap() <= secs(60), "{denial}");
    api.clock.advance(secs(80));
    held.commit(&call("bob").times(2)).unwrap();
}

#[test]
fn an_opening_under_a_clock_that_was_set_back_gives_no_refill() {
    let api = Api::new();
    let limit = api.at_most("alice", 3, minute());
    for _ in 0..3 {
        allowed(limit.check_and_record(&call("alice")));
    }
    let back = 3 * 3_600;
    api.clock.set(quipu::Clock::now(&api.clock).saturating_sub(secs(back)));
    let image = api.root.path().join("image");
    crash_image(api.db.directory(), &image);
    let again = open(&image, &api.clock);
    let limit = again.limit().at_most(series(&again, "alice"), 3, minute()).unwrap();
    let retry = denied(limit.check_and_record(&call("alice"))).retry_after.unwrap();
    // An hour is what still has all of it.
    assert!(retry <= secs(back + 2 * 3_600), "{retry:?}");
    for _ in 0..10 {
        api.clock.advance(secs(back) / 11);
        let _ = denied(limit.check_and_record(&call("alice")));
    }
    api.clock.advance(retry);
    allowed(limit.check_and_record(&call("alice")));
}

#[test]
fn events_ahead_of_now_do_not_free_what_is_used_nor_let_through_what_is_not_counted() {
    let ahead = |api: &Api, length: u64| {
        let time = quipu::Clock::now(&api.clock).saturating_add(secs(length));
        api.db.record(&call("alice").at(time)).unwrap();
    };
    // A part of the seconds is pushed out; all of them; and the hours, too.
    for length in [30, 3_599, 24 * 3_600 - 1] {
        let api = Api::new();
        let limit = api.at_most("alice", 4, minute());
        for _ in 0..3 {
            allowed(limit.check_and_record(&call("alice")));
        }
        ahead(&api, length);
        for _ in 0..3 {
            assert!(!limit.check_and_record(&call("alice")).unwrap().is_allowed(), "{length}");
        }
        assert_eq!(api.recorded("alice"), Some(4));
        // Where nothing coarser is kept, nothing is known.
        let seconds = View::new("seconds").by(["key"]).grain(Grain::Second, Keep::Last(62));
        api.db.define(seconds).unwrap();
        let of_bob = api.db.query("seconds").unwrap().series(&["bob"]).unwrap();
        let limit = api.db.limit().at_most(&of_bob, 100, minute()).unwrap();
        allowed(limit.check_and_record(&call("bob")));
        let time = quipu::Clock::now(&api.clock).saturating_add(secs(3_600));
        api.db.record(&call("bob").at(time)).unwrap();
        let denial = denied(limit.check_and_record(&call("bob")));
        assert_eq!((denial.used, denial.retry_after), (1, Some(secs(3_600 - 1))));
    }
    // A cooldown counts from the last event, also one ahead; what must be recent has to happen first.
    let api = Api::new();
    let cooldown = api.db.limit().cooldown(api.series("alice"), secs(300)).unwrap();
    let recent = api.db.limit().within(api.series("alice"), secs(300)).unwrap();
    ahead(&api, 3_600);
    assert_eq!(denied(cooldown.check()).retry_after, Some(secs(3_900)));
    assert_eq!(denied(recent.check()).retry_after, Some(secs(3_600)));
    // Only what certainly happened is enough.
    let at_least = api.db.limit().at_least(api.series("alice"), 1, two_hours()).unwrap();
    assert_eq!(denied(at_least.check()).used, 0);
}

#[test]
fn a_limit_that_was_made_can_be_asked_in_every_season() {
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::parse_rfc3339("2026-01-15T10:00:00Z").unwrap());
    let days = |name: &str, n: u32| View::new(name).by(["key"]).grain(Grain::Day, Keep::Last(n));
    let options = options().clock(clock.clone()).time_zone("Europe/Paris".parse().unwrap());
    let options = options.view(days("few", 31)).view(days("enough", 32));
    let db = options.open(root.path().join("db")).unwrap();
    let window = Window::rolling(secs(30 * 24 * 3_600));
    let limit = |view: &str| {
        let series = db.query(view).unwrap().series(&["alice"]).unwrap();
        db.limit().at_most(&series, 3, window)
    };
    assert_eq!(limit("few").unwrap_err().kind(), ErrorKind::NotKept);
    let limit = limit("enough").unwrap();
    for _ in 0..800 {
        assert!(limit.check_and_record(&call("alice")).is_ok());
        clock.advance(secs(11 * 3_600));
    }
}

#[test]
fn a_limit_is_of_now_and_of_its_own_store() {
    let (api, other) = (Api::new(), Api::new());
    let error = api.db.limit().at_most(other.series("alice"), 1, minute()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let then = api.series("alice").at(Timestamp::from_secs(NOW));
    let error = api.db.limit().at_most(then, 1, minute()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let [mondays, tuesdays] =
        ["mon 09:00-10:00", "tue 09:00-10:00"].map(|text| text.parse::<quipu::Schedule>().unwrap());
    let never = api.db.limit().during(mondays).unwrap().during(tuesdays).unwrap();
    assert_eq!(denied(never.check()).retry_after, None);
}

/// A limit that remembers every event.
#[derive(Default)]
struct Reference(Vec<i64>);

impl Reference {
    /// Events in the window of so many microseconds that ends at `at`.
    fn in_window(&self, at: i64, length: i64) -> u64 {
        self.0.iter().filter(|time| at - length < **time && **time <= at).count() as u64
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Never more than the limit in any window, and a time to come back that is the first one: denied a
    /// microsecond before it, allowed at it.
    #[test]
    fn a_rolling_limit_never_admits_too_much_and_its_time_to_come_back_is_exact(
        n in 1_u64..6,
        bucket in prop::sample::select(vec![1_000_u64, 10_000, 100_000, 1_000_000]),
        buckets in 2_u64..60,
        steps in prop::collection::vec((0.0..9.0_f64, 1_u64..3), 1..60),
    ) {
        let api = Api::of(calls_by(Duration::from_micros(bucket)));
        let length = Duration::from_micros(buckets * bucket);
        let limit = api.at_most("alice", n, Window::rolling(length));
        let mut reference = Reference::default();
        let length = length.as_micros() as i64;
        for (wait, cost) in steps {
            api.clock.advance(Duration::from_micros((wait * bucket as f64) as u64));
            let now = quipu::Clock::now(&api.clock).micros();
            let event = call("alice").times(cost);
            match limit.check_and_record(&event).unwrap() {
                Verdict::Allowed { remaining, .. } => {
                    reference.0.extend((0..cost).map(|_| now));
                    let used = reference.in_window(now, length);
                    prop_assert!(used <= n, "{used} of {n}");
                    prop_assert!(remaining.unwrap() <= n - used);
                }
                Verdict::Denied(denial) if cost > n => prop_assert!(denial.is_too_much),
                Verdict::Denied(denial) => {
                    // Not stricter than by the bucket that is cut.
                    let used = reference.in_window(now, length + bucket as i64);
                    prop_assert!(used + cost > n, "{used} + {cost} of {n} in the longer window");
                    let retry = denial.retry_after.unwrap();
                    api.clock.advance(just_before(retry));
                    prop_assert!(!limit.check_count(cost).unwrap().is_allowed());
                    api.clock.advance(MICRO);
                    prop_assert!(limit.check_count(cost).unwrap().is_allowed());
                }
            }
        }
        // Every window that ends at an event.
        for at in reference.0.clone() {
            prop_assert!(reference.in_window(at, length) <= n);
        }
        prop_assert_eq!(api.recorded("alice").unwrap_or(0), reference.0.len() as u64);
    }
}

#[test]
fn in_the_long_run_a_rolling_limit_admits_the_share_that_it_says() {
    // Ten and sixty seconds in seconds, a second in tenths, and most of one in hundredths.
    let (tenth, hundredth) = (millis(100), millis(10));
    for (bucket, length, n) in
        [(SECOND, 10, 100), (SECOND, 60, 100), (tenth, 10, 10), (hundredth, 61, 10)]
    {
        let api = Api::of(calls_by(bucket));
        let window = bucket * length;
        let limit = api.at_most("alice", n, Window::rolling(window));
        let mut reference = Reference::default();
        // As often as it goes, for twenty windows.
        for _ in 0..20 * length * 20 {
            if limit.check_and_record(&call("alice")).unwrap().is_allowed() {
                reference.0.push(quipu::Clock::now(&api.clock).micros());
            }
            api.clock.advance(bucket / 20);
        }
        for at in &reference.0 {
            assert!(reference.in_window(*at, window.as_micros() as i64) <= n);
        }
        let share = reference.0.len() as f64 / (20 * n) as f64;
        let least = f64::from(length) / f64::from(length + 1);
        assert!(share >= least && share <= 1.06, "{share} of the limit, at least {least}");
    }
}
