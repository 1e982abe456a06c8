//! Reservations: what is held until it happens, is given up, or its time is over.

use crate::directory::crash_image;
use crate::gcra::now;
use crate::limits::{
    Api, MICRO, allowed, call, calls, denied, just_before, millis, minute, open_with, secs, series,
};
use proptest::prelude::*;
use quipu::{ErrorKind, Event, Grain, Limit, Reservation, Window};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

#[track_caller]
fn reserve(limit: &Limit, n: u64, lease: Duration) -> Reservation {
    limit.reserve(n, lease).unwrap().expect("there is room")
}

#[track_caller]
fn refused(limit: &Limit, n: u64) -> quipu::Denial {
    limit.reserve(n, secs(1)).unwrap().expect_err("there is no room")
}

fn used(limit: &Limit) -> u64 {
    limit.usage().unwrap()[0].used
}

/// Case A28.
#[test]
fn eight_threads_reserve_and_commit_exactly_as_often_as_the_limit_says() {
    let api = Api::new();
    let limit = api.at_most("alice", 1_000, minute());
    let committed: u64 = std::thread::scope(|scope| {
        let tries = || {
            let mut committed = 0;
            for n in 0..500 {
                let Ok(reservation) = limit.reserve(1, secs(30)).unwrap() else { continue };
                if n % 5 == 0 {
                    drop(reservation);
                    continue;
                }
                reservation.commit(&call("alice")).unwrap();
                committed += 1;
            }
            committed
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(tries)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((committed, api.recorded("alice")), (1_000, Some(1_000)));
    assert_eq!(refused(&limit, 1).used, 1_000);
}

/// Case A30; there the sum is 0 then, here it is that of a key that never had an event.
#[test]
fn what_is_dropped_or_cancelled_leaves_nothing_and_its_room_is_there_again() {
    let api = Api::new();
    let limit = api.at_most("alice", 2, minute());
    let (one, other) = (reserve(&limit, 1, secs(30)), reserve(&limit, 1, secs(30)));
    assert_eq!((used(&limit), refused(&limit, 1).used), (2, 2));
    drop(one);
    assert_eq!(used(&limit), 1);
    other.cancel();
    assert_eq!((used(&limit), api.recorded("alice")), (0, None));
    assert_eq!(allowed(limit.check_count(2)).0, Some(2));
    // Less than was reserved is enough.
    let both = reserve(&limit, 2, secs(30));
    both.commit(&call("alice")).unwrap();
    assert_eq!((used(&limit), api.recorded("alice")), (1, Some(1)));
    allowed(limit.check_and_record(&call("alice")));
}

#[test]
fn at_the_end_of_its_lease_a_reservation_is_over_and_not_before() {
    let api = Api::new();
    let limit = api.at_most("alice", 1, minute());
    let reservation = reserve(&limit, 1, secs(10));
    assert_eq!(refused(&limit, 1).retry_after, Some(secs(10)));
    api.clock.advance(just_before(secs(10)));
    assert_eq!(denied(limit.check_and_record(&call("alice"))).retry_after, Some(MICRO));
    api.clock.advance(MICRO);
    allowed(limit.check());
    let error = reservation.commit(&call("alice")).unwrap_err();
    assert_eq!((error.kind(), api.recorded("alice")), (ErrorKind::Expired, None));
    // Somebody else has it.
    let late = reserve(&limit, 1, secs(10));
    api.clock.advance(secs(10));
    allowed(limit.check_and_record(&call("alice")));
    assert_eq!(late.renew(secs(10)).unwrap_err().kind(), ErrorKind::Expired);
    assert_eq!(late.commit(&call("alice")).unwrap_err().kind(), ErrorKind::Expired);
    assert_eq!((api.recorded("alice"), used(&limit)), (Some(1), 1));
}

#[test]
fn a_lease_that_is_renewed_lasts_from_then_on() {
    let api = Api::new();
    let limit = api.at_most("alice", 1, minute());
    let reservation = reserve(&limit, 1, secs(10));
    api.clock.advance(secs(9));
    reservation.renew(secs(20)).unwrap();
    assert_eq!(refused(&limit, 1).retry_after, Some(secs(20)));
    for nothing in [Duration::ZERO, secs(400 * 86_400)] {
        assert_eq!(reservation.renew(nothing).unwrap_err().kind(), ErrorKind::Invalid);
    }
    api.clock.advance(just_before(secs(20)));
    reservation.commit(&call("alice")).unwrap();
    assert_eq!((api.recorded("alice"), used(&limit)), (Some(1), 1));
}

#[test]
fn a_lease_is_over_also_where_nothing_counts_what_is_reserved() {
    let api = Api::new();
    api.db.record(&call("alice")).unwrap();
    // Only what must have happened; only the calendar; nothing at all.
    for limit in [
        api.db.limit().at_least(api.series("alice"), 1, minute()).unwrap(),
        api.db.limit().outside_of("03:00-04:00".parse().unwrap()).unwrap(),
        api.db.limit(),
    ] {
        let (early, late) = (reserve(&limit, 1, secs(10)), reserve(&limit, 1, secs(10)));
        api.clock.advance(just_before(secs(10)));
        let before = api.recorded("alice").unwrap();
        early.commit(&call("alice")).unwrap();
        api.clock.advance(MICRO);
        assert_eq!(late.commit(&call("alice")).unwrap_err().kind(), ErrorKind::Expired);
        assert_eq!(api.recorded("alice"), Some(before + 1));
    }
}

#[test]
fn what_is_held_counts_for_every_constraint_of_its_series_and_for_other_limits() {
    let api = Api::new();
    let both = api.at_most("alice", 5, minute());
    let both = both.at_most(api.series("alice"), 3, Window::fixed(Grain::Hour)).unwrap();
    let other = api.at_most("alice", 4, minute());
    let reservation = reserve(&both, 3, secs(10));
    let usage = both.usage().unwrap();
    assert_eq!(usage.iter().map(|usage| usage.used).collect::<Vec<_>>(), [3, 3]);
    let denial = denied(both.check());
    assert_eq!((denial.index, denial.retry_after), (1, Some(secs(10))));
    // Of another limit.
    assert_eq!(allowed(other.check()).0, Some(1));
    assert_eq!(denied(other.check_count(2)).retry_after, Some(secs(10)));
    allowed(other.check_and_record(&call("alice")));
    assert_eq!(denied(other.check_and_record(&call("alice"))).retry_after, Some(secs(10)));
    // Not of another key; and prerequisites are not met by it.
    allowed(api.at_most("bob", 1, minute()).check());
    let at_least = api.db.limit().at_least(api.series("alice"), 2, minute()).unwrap();
    assert_eq!(denied(at_least.check()).used, 1);
    drop(reservation);
    assert_eq!(allowed(other.check()).0, Some(3));
}

#[test]
fn a_transfer_holds_room_under_both_its_keys_also_where_they_are_one() {
    let api = Api::new();
    let transfer = |from: &str, to: &str| {
        let limit = api.at_most(from, 2, minute());
        limit.at_most(api.series(to), 2, minute()).unwrap()
    };
    let (there, back) = (transfer("alice", "bob"), transfer("bob", "alice"));
    let reservation = reserve(&there, 2, secs(10));
    assert_eq!(refused(&back, 1).retry_after, Some(secs(10)));
    reservation.commit(&call("alice").times(2)).unwrap();
    // It is of alice alone now.
    assert_eq!(allowed(api.at_most("bob", 2, minute()).check()).0, Some(2));
    let denial = denied(back.check());
    assert_eq!((denial.index, denial.used), (1, 2));
    let twice = transfer("cem", "cem");
    let reservation = reserve(&twice, 1, secs(10));
    assert_eq!(twice.usage().unwrap().iter().map(|usage| usage.used).collect::<Vec<_>>(), [1, 1]);
    allowed(twice.check());
    assert_eq!(denied(twice.check_count(2)).used, 1);
    drop(reservation);
    assert_eq!(allowed(twice.check_count(2)).0, Some(2));
    // From threads, in both orders: nobody waits for ever, and what was reserved is given back.
    std::thread::scope(|scope| {
        for limit in [&there, &back, &there, &back] {
            scope.spawn(|| {
                for _ in 0..300 {
                    drop(limit.reserve(1, secs(10)).unwrap());
                }
            });
        }
    });
    assert_eq!(there.usage().unwrap().iter().map(|usage| usage.used).collect::<Vec<_>>(), [2, 0]);
}

#[test]
fn a_cooldown_begins_with_what_is_reserved() {
    let api = Api::new();
    let limit = api.db.limit().cooldown(api.series("alice"), secs(60)).unwrap();
    let reservation = reserve(&limit, 1, secs(10));
    // As long as the lease: then it did not happen.
    assert_eq!(denied(limit.check_and_record(&call("alice"))).retry_after, Some(secs(10)));
    api.clock.advance(secs(5));
    reservation.commit(&call("alice")).unwrap();
    assert_eq!(denied(limit.check()).retry_after, Some(secs(60)));
    api.clock.advance(secs(60));
    drop(reserve(&limit, 1, secs(10)));
    allowed(limit.check_and_record(&call("alice")));
}

#[test]
fn a_level_holds_room_for_what_is_reserved() {
    let api = Api::new();
    let limit = api.at_most("alice", 3, Window::gcra(3, secs(60)));
    let reservation = reserve(&limit, 3, secs(10));
    // It does not sink while nobody knows whether it happens.
    api.clock.advance(secs(5));
    assert_eq!(denied(limit.check()).retry_after, Some(secs(5)));
    reservation.commit(&call("alice").times(3)).unwrap();
    assert_eq!(denied(limit.check()).retry_after, Some(secs(20)));
}

#[test]
fn after_a_crash_what_was_reserved_is_gone_and_what_was_committed_is_counted_once() {
    let api = Api::new();
    let limit = api.at_most("alice", 3, minute());
    let (open, done) = (reserve(&limit, 1, secs(30)), reserve(&limit, 2, secs(30)));
    done.commit(&call("alice").times(2)).unwrap();
    assert_eq!(used(&limit), 3);
    let image = api.root.path().join("image");
    crash_image(api.db.directory(), &image);
    let again = open_with(calls(), &image, &api.clock);
    let limit = again.limit().at_most(series(&again, "alice"), 3, minute()).unwrap();
    assert_eq!(used(&limit), 2);
    allowed(limit.check_and_record(&call("alice")));
    assert_eq!(denied(limit.check()).retry_after, Some(secs(60)));
    drop(open);
    assert_eq!(used(&limit), 3);
}

#[test]
fn what_can_not_be_committed_is_refused_and_gives_its_room_back() {
    let api = Api::new();
    let limit = api.at_most("alice", 2, minute());
    for wrong in [
        call("alice").times(3),
        call("alice").times(0),
        call("alice").at(quipu::Clock::now(&api.clock)),
        Event::new(""),
    ] {
        let reservation = reserve(&limit, 2, secs(10));
        assert_eq!(reservation.commit(&wrong).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!((used(&limit), api.recorded("alice")), (0, None));
    }
    for (n, lease) in
        [(0, secs(1)), (1, Duration::ZERO), (1, secs(367 * 86_400)), (1, Duration::MAX)]
    {
        assert_eq!(limit.reserve(n, lease).unwrap_err().kind(), ErrorKind::Invalid);
    }
    let denial = limit.reserve(3, secs(1)).unwrap().unwrap_err();
    assert!(denial.is_too_much);
    assert_eq!(reserve(&limit, 1, Duration::from_nanos(1_500)).count(), 1);
}

#[test]
fn after_a_close_nothing_is_committed_and_dropping_does_no_harm() {
    let api = Api::new();
    let limit = api.at_most("alice", 3, minute());
    let [one, other, third] = [(); 3].map(|()| reserve(&limit, 1, secs(10)));
    api.db.close().unwrap();
    assert_eq!(one.commit(&call("alice")).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(other.renew(secs(10)).unwrap_err().kind(), ErrorKind::Closed);
    drop(other);
    third.cancel();
    assert_eq!(limit.reserve(1, secs(1)).unwrap_err().kind(), ErrorKind::Closed);
    let again = open_with(calls(), api.db.directory(), &api.clock);
    let limit = again.limit().at_most(series(&again, "alice"), 3, minute()).unwrap();
    assert_eq!(used(&limit), 0);
}

#[test]
fn threads_that_reserve_never_hold_more_than_the_limit() {
    let api = Api::new();
    let limit = api.at_most("alice", 3, minute());
    let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let Ok(reservation) = limit.reserve(1, secs(10)).unwrap() else { continue };
                    most.fetch_max(held.fetch_add(1, SeqCst) + 1, SeqCst);
                    std::thread::yield_now();
                    held.fetch_sub(1, SeqCst);
                    drop(reservation);
                }
            });
        }
    });
    assert!((1..=3).contains(&most.load(SeqCst)), "{most:?}");
    assert_eq!((used(&limit), api.recorded("alice")), (0, None));
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Reserve(u64, u64),
    Commit(usize, u64),
    Cancel(usize),
    Renew(usize, u64),
    Record(u64),
    Wait(u64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let which = 0_usize..4;
    let deed = prop_oneof![
        3 => (1_u64..4, 1_u64..40).prop_map(|(n, lease)| Deed::Reserve(n, lease)),
        2 => (which.clone(), 1_u64..4).prop_map(|(which, n)| Deed::Commit(which, n)),
        1 => which.clone().prop_map(Deed::Cancel),
        1 => (which, 1_u64..40).prop_map(|(which, lease)| Deed::Renew(which, lease)),
        3 => (1_u64..4).prop_map(Deed::Record),
        3 => (0_u64..25).prop_map(Deed::Wait),
    ];
    prop::collection::vec(deed, 1..60)
}

/// Every event, and what is held until when.
#[derive(Default)]
struct Model {
    events: Vec<i64>,
    held: Vec<(u64, i64)>,
}

impl Model {
    /// What counts in the window that ends now, the bucket that its edge cuts being whole.
    fn used(&self, now: i64, length: i64, bucket: i64) -> u64 {
        let last = self.events.last().copied().unwrap_or(i64::MIN);
        let counts = |at: &&i64| {
            let in_last = **at / bucket == last / bucket;
            let latest = if in_last { last } else { **at / bucket * bucket + bucket - 1 };
            latest + length > now
        };
        let held = self.held.iter().filter(|(_, until)| *until > now);
        self.events.iter().filter(counts).count() as u64 + held.map(|(n, _)| n).sum::<u64>()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is done, what counts is what happened and what is held, each once.
    #[test]
    fn reservations_do_what_a_list_of_them_does(n in 1_u64..7, deeds in deeds()) {
        // Half a minute in seconds; half seconds pass.
        let api = Api::new();
        let (length, bucket) = (30_000_000, 1_000_000);
        let limit = api.at_most("alice", n, Window::rolling(secs(30)));
        let mut model = Model::default();
        let mut reservations: Vec<(Reservation, usize)> = Vec::new();
        for deed in deeds {
            let now = now(&api);
            let before = model.used(now, length, bucket);
            prop_assert_eq!(used(&limit), before, "before {:?}", deed);
            match deed {
                Deed::Wait(halves) => {
                    api.clock.advance(millis(500 * halves));
                }
                Deed::Record(count) => {
                    let verdict = limit.check_and_record(&call("alice").times(count)).unwrap();
                    prop_assert_eq!(verdict.is_allowed(), before + count <= n);
                    if verdict.is_allowed() {
                        model.events.extend((0..count).map(|_| now));
                    }
                }
                Deed::Reserve(count, halves) => {
                    let reserved = limit.reserve(count, millis(500 * halves)).unwrap();
                    prop_assert_eq!(reserved.is_ok(), before + count <= n);
                    match reserved {
                        Ok(reservation) => {
                            let until = now + 500_000 * halves as i64;
                            reservations.push((reservation, model.held.len()));
                            model.held.push((count, until));
                        }
                        Err(denial) if count > n => prop_assert!(denial.is_too_much),
                        Err(denial) => {
                            // The first moment at which there is room, by trying each that is one.
                            let at = now + denial.retry_after.unwrap().as_micros() as i64;
                            prop_assert!(model.used(at - 1, length, bucket) + count > n);
                            prop_assert!(model.used(at, length, bucket) + count <= n);
                        }
                    }
                }
                Deed::Commit(which, count) if which < reservations.len() => {
                    let (reservation, place) = reservations.remove(which);
                    let (most, until) = model.held[place];
                    model.held[place].0 = 0;
                    match reservation.commit(&call("alice").times(count)) {
                        Ok(_) => {
                            prop_assert!(count <= most && until > now);
                            model.events.extend((0..count).map(|_| now));
                        }
                        Err(error) if count > most => {
                            prop_assert_eq!(error.kind(), ErrorKind::Invalid);
                        }
                        Err(error) => {
                            prop_assert_eq!(error.kind(), ErrorKind::Expired);
                            prop_assert!(until <= now);
                        }
                    }
                }
                Deed::Cancel(which) if which < reservations.len() => {
                    let (reservation, place) = reservations.remove(which);
                    model.held[place].0 = 0;
                    reservation.cancel();
                }
                Deed::Renew(which, halves) if which < reservations.len() => {
                    let (reservation, place) = &reservations[which];
                    let is_held = model.held[*place].1 > now;
                    prop_assert_eq!(reservation.renew(millis(500 * halves)).is_ok(), is_held);
                    if is_held {
                        model.held[*place].1 = now + 500_000 * halves as i64;
                    }
                }
                Deed::Commit(..) | Deed::Cancel(_) | Deed::Renew(..) => {}
            }
        }
        prop_assert_eq!(api.recorded("alice").unwrap_or(0), model.events.len() as u64);
    }
}
