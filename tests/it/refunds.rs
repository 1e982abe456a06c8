//! What is given back: no more than was used, the newest first, and never so that more than the limit is
//! used in any window.

use crate::directory::options;
use crate::gcra::now;
use crate::limits::{Api, MICRO, NOW, allowed, denied, just_before, millis, secs};
use proptest::prelude::*;
use quipu::{
    Constraint, Db, ErrorKind, Event, Grain, Keep, Limiter, Policy, TestClock, Timestamp, Verdict,
    View, Window,
};
use std::path::Path;
use std::time::Duration;

struct Place {
    root: tempfile::TempDir,
    clock: TestClock,
    db: Db,
}

/// Jobs and what was given back of them, by user, in these grains.
fn view(name: &str, grains: &[(Grain, u32)]) -> View {
    let view = View::new(name).by(["user"]).only_events([name]);
    grains.iter().fold(view, |view, (grain, n)| view.grain(*grain, Keep::Last(*n)))
}

fn open(dir: &Path, clock: &TestClock, grains: &[(Grain, u32)]) -> Db {
    let options = options().clock(clock.clone());
    options.view(view("job", grains)).view(view("back", grains)).open(dir).unwrap()
}

impl Place {
    fn new(grains: &[(Grain, u32)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let clock = TestClock::at(Timestamp::from_secs(NOW));
        let db = open(&root.path().join("db"), &clock, grains);
        Place { root, clock, db }
    }

    fn limiter(&self, constraints: impl IntoIterator<Item = Constraint>) -> Limiter {
        limiter(&self.db, constraints)
    }
}

fn limiter(db: &Db, constraints: impl IntoIterator<Item = Constraint>) -> Limiter {
    let net = |policy: Policy, constraint| policy.on_net("job", "back", constraint);
    db.set_policy(constraints.into_iter().fold(Policy::new("jobs"), net)).unwrap();
    db.limiter("jobs").unwrap()
}

fn job(n: u64) -> Event<'static> {
    Event::new("job").dim("user", "ann").times(n)
}

fn back(n: u64) -> Event<'static> {
    Event::new("back").dim("user", "ann").times(n)
}

fn used(limiter: &Limiter) -> Vec<u64> {
    limiter.usage(&job(1)).unwrap().iter().map(|usage| usage.used).collect()
}

fn at_most(n: u64, window: Window) -> Constraint {
    Constraint::at_most(n, window)
}

const SECONDS: &[(Grain, u32)] = &[(Grain::Second, 62)];

#[test]
fn what_is_given_back_is_the_newest_and_leaves_with_what_it_was_of() {
    let place = Place::new(SECONDS);
    let jobs = place.limiter([at_most(6, Window::rolling(secs(60)))]);
    for _ in 0..3 {
        allowed(jobs.check_and_record(&job(2)));
        place.clock.advance(secs(10));
    }
    // Of the newest two and one of those before.
    assert_eq!(jobs.refund(&back(3)).unwrap(), 3);
    assert_eq!(used(&jobs), [3]);
    allowed(jobs.check_and_record(&job(3)));
    // The oldest two leave first, then the one that is left of those ten seconds later; those that were
    // given back are gone with them, and not once more.
    let denial = denied(jobs.check_and_record(&job(1)));
    let first = Duration::from_micros(31_000_000 - 1);
    assert_eq!(denial.retry_after, Some(first));
    place.clock.advance(first);
    assert_eq!(used(&jobs), [4]);
    place.clock.advance(secs(10));
    assert_eq!(used(&jobs), [3]);
    place.clock.advance(secs(10));
    assert_eq!(used(&jobs), [3]);
    assert_eq!(jobs.refund(&back(9)).unwrap(), 3);
    assert_eq!(jobs.refund(&back(9)).unwrap(), 0);
}

#[test]
fn views_of_several_grains_take_back_in_each() {
    let place = Place::new(&[(Grain::Second, 62), (Grain::Hour, 3), (Grain::Day, 3)]);
    let jobs = place.limiter([
        at_most(5, Window::rolling(secs(60))),
        at_most(8, Window::fixed(Grain::Hour)),
        at_most(9, Window::fixed(Grain::Day)),
    ]);
    allowed(jobs.check_and_record(&job(3)));
    place.clock.advance(secs(100));
    allowed(jobs.check_and_record(&job(4)));
    assert_eq!(used(&jobs), [4, 7, 7]);
    // As much as counts against the one that most counts against.
    assert_eq!(jobs.refund(&back(5)).unwrap(), 5);
    assert_eq!(used(&jobs), [0, 2, 2]);
    assert_eq!(jobs.reset(&back(1)).unwrap(), 2);
    assert_eq!(used(&jobs), [0, 0, 0]);
    place.clock.advance(MICRO);
    allowed(jobs.check_and_record(&job(5)));
    assert_eq!(used(&jobs), [5, 5, 5]);
}

#[test]
fn what_is_given_back_is_given_back_after_a_reopening() {
    let place = Place::new(SECONDS);
    let minute = || [at_most(5, Window::rolling(secs(60)))];
    let jobs = place.limiter(minute());
    allowed(jobs.check_and_record(&job(2)));
    place.clock.advance(secs(20));
    allowed(jobs.check_and_record(&job(3)));
    assert_eq!(jobs.refund(&back(1)).unwrap(), 1);
    for step in 0..2 {
        let image = place.root.path().join(format!("image {step}"));
        crate::directory::crash_image(place.db.directory(), &image);
        let again = open(&image, &place.clock, SECONDS);
        let jobs = again.limiter("jobs").unwrap();
        assert_eq!(used(&jobs), [4], "{step}");
        assert_eq!(jobs.refund(&back(3)).unwrap(), 3);
        assert_eq!(used(&jobs), [1]);
        allowed(jobs.check_and_record(&job(4)));
        let denial = denied(jobs.check_and_record(&job(1)));
        assert_eq!(denial.retry_after, Some(Duration::from_micros(41_000_000 - 1)));
        place.db.checkpoint().unwrap();
    }
}

#[test]
fn of_a_level_no_more_is_given_back_than_is_in_it() {
    let grain = Grain::every(millis(10)).unwrap();
    let place = Place::new(&[(grain, 4_100)]);
    let jobs = place.limiter([at_most(5, Window::gcra(1, secs(2)))]);
    for _ in 0..4 {
        allowed(jobs.check_and_record(&job(1)));
        place.clock.advance(secs(1));
    }
    // Of the four two have come back.
    assert_eq!(used(&jobs), [3]);
    place.clock.advance(millis(100));
    assert_eq!(used(&jobs), [2]);
    assert_eq!(jobs.refund(&back(9)).unwrap(), 2);
    assert_eq!(used(&jobs), [0]);
    assert_eq!(jobs.reset(&back(1)).unwrap(), 0);
    allowed(jobs.check_and_record(&job(5)));
    assert_eq!(denied(jobs.check_and_record(&job(1))).retry_after, Some(secs(2)));
}

#[test]
fn what_is_reserved_is_not_given_back() {
    let place = Place::new(SECONDS);
    let jobs = place.limiter([at_most(5, Window::rolling(secs(60)))]);
    allowed(jobs.check_and_record(&job(1)));
    let reservation = jobs.reserve(&job(3), secs(30)).unwrap().unwrap();
    assert_eq!(jobs.reset(&back(1)).unwrap(), 1);
    assert_eq!(used(&jobs), [3]);
    reservation.commit(&job(3)).unwrap();
    assert_eq!(jobs.reset(&back(1)).unwrap(), 3);
    assert_eq!(used(&jobs), [0]);
}

#[test]
fn what_can_not_be_given_back_is_refused() {
    let place = Place::new(SECONDS);
    let jobs = place.limiter([at_most(5, Window::rolling(secs(60)))]);
    allowed(jobs.check_and_record(&job(2)));
    let now = quipu::Clock::now(&place.clock);
    for wrong in [back(1).at(now), back(1).id("one"), back(0), Event::new("").dim("user", "ann")] {
        assert_eq!(jobs.refund(&wrong).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(jobs.refund(&Event::new("back")).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(used(&jobs), [2]);
    place.db.set_policy(Policy::new("gross").at_most("job", 5, Window::rolling(secs(60)))).unwrap();
    let gross = place.db.limiter("gross").unwrap();
    assert_eq!(gross.refund(&back(1)).unwrap_err().kind(), ErrorKind::Invalid);
    // Another key, and other buckets.
    let other = View::new("other").by(["item"]).grain(Grain::Second, Keep::Last(62));
    place.db.define(other).unwrap();
    place.db.define(view("short", &[(Grain::Second, 61)])).unwrap();
    for refunds in ["other", "short"] {
        let policy =
            Policy::new("jobs").on_net("job", refunds, at_most(5, Window::rolling(secs(60))));
        assert_eq!(
            place.db.set_policy(policy).unwrap_err().kind(),
            ErrorKind::Invalid,
            "{refunds}"
        );
    }
    // The view of what is given back can not be dropped either.
    assert_eq!(place.db.drop_view("back").unwrap_err().kind(), ErrorKind::Invalid);
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Use(u64),
    GiveBack(u64),
    Reset,
    Wait(u64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        5 => (1_u64..4).prop_map(Deed::Use),
        2 => (1_u64..6).prop_map(Deed::GiveBack),
        1 => Just(Deed::Reset),
        4 => (0_u64..4_000).prop_map(Deed::Wait),
    ];
    prop::collection::vec(deed, 1..80)
}

/// Events that were used and not given back, with their times.
#[derive(Default)]
struct Net(Vec<i64>);

impl Net {
    fn in_window(&self, end: i64, length: i64) -> u64 {
        self.0.iter().filter(|at| end - length < **at && **at <= end).count() as u64
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn net_of_what_is_given_back_no_window_has_more_than_the_limit(
        n in 1_u64..7,
        is_level in any::<bool>(),
        deeds in deeds(),
    ) {
        let (grain, length) = (Grain::every(millis(100)).unwrap(), 10_000_000);
        let place = Place::new(&[(grain, 402)]);
        let window =
            if is_level { Window::gcra(n, secs(10)) } else { Window::rolling(secs(10)) };
        let jobs = place.limiter([at_most(n, window)]);
        let mut net = Net::default();
        for deed in deeds {
            let now = quipu::Clock::now(&place.clock).micros();
            let before = used(&jobs)[0];
            match deed {
                Deed::Wait(length) => {
                    place.clock.advance(millis(length));
                }
                Deed::Use(count) => match jobs.check_and_record(&job(count)).unwrap() {
                    Verdict::Allowed { .. } => {
                        prop_assert!(before + count <= n);
                        net.0.extend((0..count).map(|_| now));
                        // Of a level: what is over is what came back meanwhile.
                        let most = if is_level { 2 * n } else { n };
                        prop_assert!(net.in_window(now, length) <= most);
                    }
                    Verdict::Denied(denial) if count > n => prop_assert!(denial.is_too_much),
                    Verdict::Denied(denial) => {
                        prop_assert!(before + count > n);
                        let retry = denial.retry_after.unwrap();
                        place.clock.advance(just_before(retry));
                        prop_assert!(!jobs.check(&job(count)).unwrap().is_allowed());
                        place.clock.advance(MICRO);
                        prop_assert!(jobs.check(&job(count)).unwrap().is_allowed());
                    }
                },
                Deed::GiveBack(_) | Deed::Reset => {
                    let given = match deed {
                        Deed::GiveBack(count) => {
                            let given = jobs.refund(&back(count)).unwrap();
                            prop_assert_eq!(given, count.min(before));
                            given
                        }
                        _ => jobs.reset(&back(1)).unwrap(),
                    };
                    prop_assert!(given <= before);
                    // Of a level that its coarse times brought above the limit the rest is there again.
                    let after = used(&jobs)[0];
                    let most = if is_level { before } else { before - given };
                    prop_assert!((before - given..=most).contains(&after), "{after}");
                    // The newest.
                    net.0.truncate(net.0.len() - given as usize);
                }
            }
        }
    }
}

#[test]
fn a_limit_of_series_gives_back_as_a_policy_does() {
    let api = Api::new();
    let (jobs, refunds) = (api.db.counter("job").unwrap(), api.db.counter("back").unwrap());
    let hourly = at_most(3, Window::fixed(Grain::Hour));
    let limit = api.db.limit().on_net(&jobs, &refunds, hourly).unwrap();
    allowed(limit.check_and_record(&Event::new("job").times(3)));
    let start = now(&api);
    assert_eq!(limit.refund(&Event::new("back").times(2)).unwrap(), 2);
    assert_eq!(allowed(limit.check_and_record(&Event::new("job").times(2))).0, Some(0));
    let last = api.db.query("counters").unwrap().get(&["back"]).unwrap().unwrap().last_seen;
    assert_eq!(last.micros(), start);
}
