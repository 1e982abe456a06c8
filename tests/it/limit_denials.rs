//! Denials that are given again without a look at the series: they are what a look would say.

use crate::limits::{Api, MICRO, call, calls, denied, just_before, millis, minute, secs};
use proptest::prelude::*;
use quipu::{
    Clock, Constraint, Db, Durability, ErrorKind, Event, Grain, Keep, Limiter, Options, Policy,
    Progress, Reservation, TestClock, Timestamp, Verdict, View, Window,
};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const KEYS: [&str; 3] = ["alice", "bob", "a key of thirty-six bytes, like a uuid"];
/// Longer ones are not remembered.
const LONG: [&str; 2] = [
    "sixty-two bytes of text, which is what there is room for......",
    "sixty-three bytes of text, which is one more than is kept......",
];

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The policies that are asked: three of one view, in rolling and calendar windows, and one net of refunds.
fn policies(n: u64) -> [Policy; 4] {
    let net = Constraint::at_most(n, minute());
    [
        Policy::new("few").at_most("calls", n, minute()),
        Policy::new("more").at_most("calls", n + 2, Window::rolling(secs(7))),
        Policy::new("fixed").at_most("calls", n, Window::last(2, Grain::Minute)),
        Policy::new("net").on_net("jobs", "refunds", net),
    ]
}

fn jobs(name: &str, event: &str) -> View {
    View::new(name).by(["key"]).only_events([event]).grain(Grain::Second, Keep::Last(62))
}

#[derive(Clone, Debug)]
enum Step {
    /// By which limiter, which key, at which cost, how often, and whether in a thread that is new.
    Ask(usize, usize, u64, usize, bool),
    /// So many, so many seconds from now, and whether in a batch with one of every key.
    Record(usize, u64, i64, bool),
    GiveBack(usize, Option<u64>),
    Reserve(usize, usize, u64, u64),
    Commit,
    Cancel,
    Advance(u64),
    /// To where the last denial ends, and by so many microseconds beside it.
    Retry(i64),
    SetBack(u64),
    Set(u64),
    Remove(usize),
    Redefine(bool),
    Checkpoint,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (limiter, key) = (0_usize..4, 0_usize..KEYS.len());
    let cost = prop_oneof![6 => Just(1_u64), 1 => 2_u64..6];
    let ask = (limiter.clone(), key.clone(), cost.clone(), 1_usize..4, prop::bool::weighted(0.1))
        .prop_map(|(by, key, cost, n, apart)| Step::Ask(by, key, cost, n, apart));
    let from_now = prop_oneof![8 => Just(0_i64), 1 => -70_i64..0, 1 => 1_i64..40];
    let record = (key.clone(), 1_u64..4, from_now, any::<bool>())
        .prop_map(|(key, n, from_now, is_batch)| Step::Record(key, n, from_now, is_batch));
    let step = prop_oneof![
        24 => ask,
        4 => record,
        1 => (key.clone(), prop::option::of(1_u64..4)).prop_map(|(key, n)| Step::GiveBack(key, n)),
        1 => (limiter.clone(), key, 1_u64..3, 1_u64..20)
            .prop_map(|(by, key, n, lease)| Step::Reserve(by, key, n, lease)),
        1 => Just(Step::Commit),
        2 => Just(Step::Cancel),
        4 => prop_oneof![0_u64..2_000, 0_u64..20_000_000].prop_map(Step::Advance),
        2 => (-1_i64..2).prop_map(Step::Retry),
        1 => prop_oneof![1_u64..1_500, 1_u64..90_000_000].prop_map(Step::SetBack),
        1 => (1_u64..5).prop_map(Step::Set),
        1 => limiter.prop_map(Step::Remove),
        1 => any::<bool>().prop_map(Step::Redefine),
        1 => Just(Step::Checkpoint),
    ];
    prop::collection::vec(step, 1..90)
}

/// Asks, and compares with what a limiter says that never denied anything, and looks for every answer.
fn ask(db: &Db, limiter: &Limiter, event: &Event<'_>, name: &str) -> Option<Duration> {
    let wanted = db.limiter(name).and_then(|fresh| fresh.check(event));
    match (limiter.check_and_record(event), wanted) {
        (Ok(Verdict::Denied(got)), Ok(wanted)) => {
            assert_eq!(Verdict::Denied(got.clone()), wanted, "{name}");
            got.retry_after
        }
        (Ok(Verdict::Allowed { remaining, .. }), Ok(wanted)) => {
            let Verdict::Allowed { remaining: before, .. } = wanted else {
                panic!("{name} allowed {event:?}: {wanted:?}");
            };
            assert_eq!(remaining, before.map(|before| before - event.count()), "{name}");
            None
        }
        (Err(got), Err(wanted)) => {
            assert_eq!(got.kind(), wanted.kind(), "{name}");
            None
        }
        (got, wanted) => panic!("{name}: {got:?}, {wanted:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever happens in between, by whichever way.
    #[test]
    fn what_a_limit_denies_again_is_what_a_look_would_say(n in 1_u64..4, steps in steps()) {
        let api = Api::new();
        let db = &api.db;
        db.define(jobs("jobs", "call")).unwrap();
        db.define(jobs("refunds", "refund")).unwrap();
        for policy in policies(n) {
            db.set_policy(policy).unwrap();
        }
        let names = ["few", "more", "fixed", "net"];
        let limiters = names.map(|name| db.limiter(name).unwrap());
        let mut reservations: Vec<(Reservation, Event<'_>)> = Vec::new();
        let mut retry = Duration::ZERO;
        let now = || api.clock.now();
        for step in steps {
            match step {
                Step::Ask(by, key, cost, times, is_apart) => {
                    let event = call(KEYS[key]).times(cost);
                    let ask = || {
                        let ask = || ask(db, &limiters[by], &event, names[by]);
                        (0..times).fold(None, |_, _| ask())
                    };
                    let apart = || std::thread::scope(|scope| scope.spawn(ask).join().unwrap());
                    let denied = if is_apart { apart() } else { ask() };
                    retry = denied.unwrap_or(retry);
                }
                Step::Record(key, times, from_now, is_batch) => {
                    let at = Timestamp::from_micros(now().micros() + from_now * 1_000_000);
                    let event = call(KEYS[key]).times(times).at(at);
                    if is_batch {
                        let mut batch = db.batch();
                        batch.push(&event).unwrap();
                        for key in KEYS {
                            batch.push(&call(key).at(at)).unwrap();
                        }
                        db.record_batch(&mut batch).unwrap();
                    } else {
                        db.record(&event).unwrap();
                    }
                }
                Step::GiveBack(key, n) => {
                    let event = Event::new("refund").dim("key", KEYS[key]);
                    let _ = match n {
                        Some(n) => limiters[3].refund(&event.times(n)),
                        None => limiters[3].reset(&event),
                    };
                }
                Step::Reserve(by, key, n, lease) => {
                    let event = call(KEYS[key]).times(n);
                    if let Ok(Ok(held)) = limiters[by].reserve(&event, secs(lease)) {
                        reservations.push((held, event));
                    }
                }
                Step::Commit => {
                    if let Some((held, event)) = reservations.pop() {
                        let _ = held.commit(&event);
                    }
                }
                Step::Cancel => reservations.clear(),
                Step::Advance(micros) => api.clock.advance(Duration::from_micros(micros)),
                Step::Retry(beside) => {
                    let to = now().micros() + retry.as_micros() as i64 + beside;
                    api.clock.set(Timestamp::from_micros(to));
                }
                Step::SetBack(micros) => {
                    api.clock.set(now().saturating_sub(Duration::from_micros(micros)));
                }
                Step::Set(n) => {
                    for policy in policies(n) {
                        db.set_policy(policy).unwrap();
                    }
                }
                Step::Remove(by) => _ = db.remove_policy(names[by]).unwrap(),
                Step::Redefine(is_finer) => {
                    let tenths = Grain::every(millis(100)).unwrap();
                    let finer = || calls().grain(tenths, Keep::Last(700));
                    db.redefine(if is_finer { finer() } else { calls() }, go_on).unwrap();
                }
                Step::Checkpoint => db.checkpoint().unwrap(),
            }
        }
    }
}

#[test]
fn a_denial_that_is_given_again_counts_down_and_ends_when_it_says() {
    for key in KEYS.into_iter().chain(LONG) {
        let api = Api::new();
        api.db.set_policy(Policy::new("api").at_most("calls", 2, minute())).unwrap();
        let limiter = api.db.limiter("api").unwrap();
        let hit = || limiter.check_and_record(&call(key));
        assert!(hit().unwrap().is_allowed());
        api.clock.advance(secs(10));
        assert!(hit().unwrap().is_allowed());
        let first = denied(hit()).retry_after.unwrap();
        let rest = first.checked_sub(secs(5)).unwrap();
        api.clock.advance(secs(5));
        let again = denied(hit());
        assert_eq!((again.limit, again.used, again.retry_after), (2, 2, Some(rest)));
        // Another cost is another question.
        let two = denied(limiter.check_and_record(&call(key).times(2)));
        assert_eq!(two.retry_after, Some(secs(55)), "when both have left");
        assert!(denied(limiter.check_and_record(&call(key).times(3))).is_too_much);
        api.clock.advance(just_before(rest));
        assert_eq!(denied(hit()).retry_after, Some(MICRO));
        api.clock.advance(MICRO);
        assert!(hit().unwrap().is_allowed());
        assert_eq!(denied(hit()).used, 2);
        let status = &api.db.policies().unwrap()[0];
        assert_eq!((status.allowed, status.denied), (3, 6));
    }
}

/// One that is over its limit by what others recorded: what is used gets less while it is denied.
fn over_the_limit(view: View) -> (Api, Limiter) {
    let api = Api::of(view);
    api.db.set_policy(Policy::new("api").at_most("calls", 2, minute())).unwrap();
    let limiter = api.db.limiter("api").unwrap();
    api.db.record(&call("alice")).unwrap();
    api.clock.advance(secs(10));
    api.db.record(&call("alice").times(2)).unwrap();
    (api, limiter)
}

#[test]
fn what_is_used_gets_less_while_a_limit_denies() {
    let (api, limiter) = over_the_limit(calls());
    let hit = || denied(limiter.check_and_record(&call("alice")));
    let both = |denial: quipu::Denial| (denial.used, denial.retry_after.unwrap());
    assert_eq!(both(hit()), (3, secs(60)));
    // A microsecond before the first one's second has left; and then.
    api.clock.advance(millis(50_999) + MICRO * 998);
    assert_eq!(both(hit()), (3, millis(9_000) + MICRO * 2));
    api.clock.advance(MICRO);
    assert_eq!(both(hit()), (2, millis(9_000) + MICRO));
    // Set back by less than is noticed.
    api.clock.set(api.clock.now().saturating_sub(MICRO));
    assert_eq!(both(hit()), (3, millis(9_000) + MICRO * 2));
}

#[test]
fn under_a_clock_that_was_set_back_a_limit_denies_by_the_steady_one() {
    // Where enough is kept that nothing of the minute is pushed out.
    let view = View::new("calls").by(["key"]).only_events(["call"]);
    let (api, limiter) = over_the_limit(view.grain(Grain::Second, Keep::Last(200)));
    // Ahead of all that comes, so that the series is asked by the steady clock.
    api.db.record(&call("alice").at(api.clock.now().saturating_add(secs(40)))).unwrap();
    let hit = |key| limiter.check_and_record(&call(key));
    // The first question of all has the view take events at once.
    let first = [hit("alice"), hit("alice")].map(denied).map(|denial| denial.retry_after.unwrap());
    assert_eq!(first[0], first[1]);
    api.clock.advance(secs(10));
    assert!(hit("bob").unwrap().is_allowed());
    api.clock.set(api.clock.now().saturating_sub(secs(5)));
    let again = denied(hit("alice"));
    assert_eq!(again.retry_after, first[0].checked_sub(secs(10)));
    assert_eq!(again.used, 4);
}

#[test]
fn a_closed_engine_denies_nothing() {
    let api = Api::new();
    api.db.set_policy(Policy::new("api").at_most("calls", 1, minute())).unwrap();
    let limiter = api.db.limiter("api").unwrap();
    assert!(limiter.check_and_record(&call("alice")).unwrap().is_allowed());
    for _ in 0..2 {
        let _ = denied(limiter.check_and_record(&call("alice")));
    }
    let wrong = call("alice").at(Timestamp::from_secs(7));
    assert_eq!(limiter.check_and_record(&wrong).unwrap_err().kind(), ErrorKind::Invalid);
    api.db.close().unwrap();
    let error = limiter.check_and_record(&call("alice")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

type Meddling = Box<dyn FnOnce() + Send>;

/// A clock that does something before it says the time: what another thread might do then.
#[derive(Clone, Default)]
struct Meddler {
    clock: TestClock,
    meddle: Arc<Mutex<Option<Meddling>>>,
}

impl Clock for Meddler {
    fn now(&self) -> Timestamp {
        let meddle = self.meddle.lock().unwrap().take();
        if let Some(meddle) = meddle {
            meddle();
        }
        self.clock.now()
    }

    fn now_roughly(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Who looks at the series does so behind the clock, and finds what was recorded meanwhile.
#[test]
fn the_second_denial_of_a_limit_is_given_without_a_look_and_the_one_behind_a_change_is_not() {
    let root = tempfile::tempdir().unwrap();
    let clock = Meddler::default();
    let options = Options::new().clock(clock.clone()).view(calls());
    let db = options.open(root.path().join("db")).unwrap();
    db.set_policy(Policy::new("api").at_most("calls", 1, minute())).unwrap();
    let limiter = db.limiter("api").unwrap();
    // How much is used where somebody else records one more of a key while the clock is asked.
    let used = |key: &'static str| {
        let other = db.clone();
        let record = move || _ = other.record(&call(key)).unwrap();
        *clock.meddle.lock().unwrap() = Some(Box::new(record));
        let denial = denied(limiter.check_and_record(&call(key)));
        assert!(clock.meddle.lock().unwrap().is_none());
        denial.used
    };
    for key in [KEYS[0], KEYS[2], LONG[0]] {
        assert!(limiter.check_and_record(&call(key)).unwrap().is_allowed());
        assert_eq!(used(key), 2, "nothing was denied before");
        assert_eq!(used(key), 2, "it is given again, as if it came just before");
        assert_eq!(used(key), 4, "there was a change since");
        assert_eq!(used(key), 4);
        // A thread that never denied it looks.
        std::thread::scope(|scope| scope.spawn(|| assert_eq!(used(key), 6)).join().unwrap());
    }
    assert!(limiter.check_and_record(&call(LONG[1])).unwrap().is_allowed());
    assert_eq!((used(LONG[1]), used(LONG[1])), (2, 3), "too long to be remembered");
    // The limiter that was kept goes by a policy that was set since as it did by the first.
    db.set_policy(Policy::new("api").at_most("calls", 2, minute())).unwrap();
    let first = used(KEYS[0]);
    assert_eq!(used(KEYS[0]), first, "it is given again");
    assert_eq!(used(KEYS[0]), first + 2, "there was a change since");
}

/// More keys than a thread remembers, twice; some of them all the time.
#[test]
fn a_limit_of_more_keys_than_are_remembered_denies_them_all() {
    let api = Api::new();
    api.db.set_policy(Policy::new("api").at_most("calls", 1, minute())).unwrap();
    let limiter = api.db.limiter("api").unwrap();
    let keys: Vec<String> = (0..20_000).map(|n| format!("key {n}")).collect();
    let mut batch = api.db.batch();
    for key in &keys {
        batch.push(&call(key)).unwrap();
        if batch.len() >= 1_000 {
            api.db.record_batch(&mut batch).unwrap();
        }
    }
    api.db.record_batch(&mut batch).unwrap();
    for _ in 0..3 {
        for (n, key) in keys.iter().enumerate() {
            for key in [key, &keys[n % 100]] {
                assert_eq!(denied(limiter.check_and_record(&call(key))).used, 1);
            }
        }
    }
    api.db.record(&call(&keys[7])).unwrap();
    assert_eq!(denied(limiter.check_and_record(&call(&keys[7]))).used, 2);
    api.clock.advance(secs(61));
    assert!(keys.iter().all(|key| limiter.check_and_record(&call(key)).unwrap().is_allowed()));
}

/// The event would wait for the disk, so what is asked goes the long way.
#[test]
fn a_denial_that_was_found_out_at_length_is_remembered_the_next_time() {
    let root = tempfile::tempdir().unwrap();
    let clock = Meddler::default();
    let options = Options::new().clock(clock.clone()).durability(Durability::Sync).view(calls());
    let db = options.open(root.path().join("db")).unwrap();
    db.set_policy(Policy::new("api").at_most("calls", 1, minute())).unwrap();
    let limiter = db.limiter("api").unwrap();
    assert!(limiter.check_and_record(&call("alice")).unwrap().is_allowed());
    let used = [(); 4].map(|()| {
        let other = db.clone();
        let record = move || _ = other.record(&call("alice")).unwrap();
        *clock.meddle.lock().unwrap() = Some(Box::new(record));
        denied(limiter.check_and_record(&call("alice"))).used
    });
    assert_eq!(used, [2, 3, 3, 5], "at length, by a look, again from memory, by a look");
}
