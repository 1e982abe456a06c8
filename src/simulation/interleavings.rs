//! Threads in orders that a scheduler chooses (`sync.rs`), on a simulated disk.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test --features simulation --lib interleavings`. Each test runs
//! `QUIPU_INTERLEAVINGS` orders (300 if that is not set), half of them chosen evenly, half with few
//! changes of thread at the worst places (Burckhardt and others, "A randomized scheduler with
//! probabilistic guarantees of finding bugs", ASPLOS 2010). A failure prints the order as text, which
//! `shuttle::replay` repeats. A thread that waits for ever is a failure, too. All orders of smaller
//! scenarios: `models.rs`.

use super::{Fault, OperationKind, SimulatedDisk, Step, Stepped, Survival};
use crate::db::JOINED;
use crate::{
    Db, Durability, ErrorKind, Event, Grain, Keep, Limiter, Options, Policy, TestClock, View,
    Window,
};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::thread;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn orders() -> usize {
    let asked = std::env::var("QUIPU_INTERLEAVINGS").ok();
    asked.map_or(300, |n| n.parse().expect("QUIPU_INTERLEAVINGS is a number"))
}

fn explore(scenario: impl Fn() + Clone + Send + Sync + 'static) {
    fn run(scheduler: impl Scheduler + 'static, scenario: impl Fn() + Send + Sync + 'static) {
        let mut config = shuttle::Config::new();
        config.stack_size = 1 << 20;
        config.max_steps = shuttle::MaxSteps::FailAfter(10_000_000);
        shuttle::Runner::new(scheduler, config).run(scenario);
    }
    let half = orders().div_ceil(2);
    run(RandomScheduler::new(half), scenario.clone());
    run(PctScheduler::new(3, half), scenario);
}

fn options() -> Options {
    Options::new()
        .clock(TestClock::default())
        .durability(Durability::Memory)
        .tiny_segments(2_048)
        .memory_budget(0)
        .view(View::new("all"))
        .view(View::new("by_user").by(["user"]).stats("value"))
        .view(View::new("by_pair").by(["user", "item"]))
}

fn open(disk: &SimulatedDisk) -> Stepped {
    Stepped::open(options(), disk, "db").expect("opens")
}

/// An event of value 1; what all events say together is their number.
fn record(db: &Db, user: &str, item: &str, durability: Durability) -> crate::Result<u64> {
    let event = Event::new("e").dim("user", user).dim("item", item).value(1.0);
    db.record_with(&event, durability).map(|recorded| recorded.position.get())
}

/// How many events each view counts; all views the same, by its keys and by its sums.
fn count(db: &Db) -> u64 {
    let of = |view: &str| -> u64 {
        let rows = db.query(view).expect("a view").rows().expect("read");
        rows.map(|row| row.expect("read").count).sum()
    };
    let counts = [of("all"), of("by_user"), of("by_pair")];
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    let users = db.query("by_user").expect("a view").totals().expect("read");
    assert_eq!(users.summary().map_or(0.0, |summary| summary.sum), counts[0] as f64);
    counts[0]
}

/// Two threads that record two events each.
fn recorders(engine: &Arc<Stepped>) -> [thread::JoinHandle<()>; 2] {
    ["a", "b"].map(|user| {
        let engine = engine.clone();
        thread::spawn(move || {
            for _ in 0..2 {
                record(engine.db(), user, "x", Durability::Memory).expect("recorded");
            }
        })
    })
}

/// The events that a disk holds, once it has been recovered.
fn recovered(disk: &SimulatedDisk) -> u64 {
    let engine = open(disk);
    let events = count(engine.db());
    assert_eq!(events, engine.db().statistics().events, "every event once in every view");
    events
}

/// Whoever was told that a record is durable finds it after a power cut at that moment, whoever
/// led the sync, and nobody waits for ever.
#[test]
fn a_shared_sync_is_acknowledged_when_it_is_done() {
    explore(|| {
        let disk = SimulatedDisk::new(1);
        let engine = open(&disk);
        let before = engine.db().sync().expect("synced").get();
        let cuts = Arc::new(Mutex::new(Vec::new()));
        let threads = ["a", "b", "c"].map(|user| {
            let (db, disk, cuts) = (engine.db().clone(), disk.clone(), cuts.clone());
            thread::spawn(move || {
                for _ in 0..2 {
                    let position = record(&db, user, "x", Durability::Sync).expect("recorded");
                    assert!(db.durable_position().get() >= position);
                    let cut = (position, disk.power_cut(Survival::None));
                    cuts.lock().expect("no panic").push(cut);
                }
            })
        });
        for thread in threads {
            thread.join().expect("done");
        }
        assert_eq!(count(engine.db()), 6);
        let cuts = std::mem::take(&mut *cuts.lock().expect("no panic"));
        // One of them each time: opening takes as long as the rest.
        let (position, cut) = &cuts[disk.operations() as usize % cuts.len()];
        assert!(recovered(cut) >= position - before);
    });
}

/// A sync that fails is nobody's success, is not tried again, and ends every wait.
#[test]
fn a_failed_sync_fails_everybody_who_waits() {
    explore(|| {
        let disk = SimulatedDisk::new(2);
        let engine = open(&disk);
        engine.db().sync().expect("synced");
        let syncs = Arc::new(AtomicU64::new(0));
        let counted = syncs.clone();
        disk.plan(move |operation| {
            let is_second = operation.kind == OperationKind::Sync
                && operation.path.extension().is_some_and(|extension| extension == "qlog")
                && counted.fetch_add(1, SeqCst) == 1;
            is_second.then_some(Fault::Error(std::io::ErrorKind::Other))
        });
        let acknowledged = Arc::new(AtomicU64::new(0));
        let threads = ["a", "b", "c"].map(|user| {
            let (db, acknowledged) = (engine.db().clone(), acknowledged.clone());
            thread::spawn(move || {
                let mut failed = false;
                for _ in 0..2 {
                    match record(&db, user, "x", Durability::Sync) {
                        Ok(_) => {
                            assert!(!failed, "nothing is acknowledged after a failure");
                            acknowledged.fetch_add(1, SeqCst);
                        }
                        Err(error) => {
                            let kind = error.kind();
                            assert!(matches!(kind, ErrorKind::Io | ErrorKind::Poisoned), "{error}");
                            failed = true;
                        }
                    }
                }
            })
        });
        for thread in threads {
            thread.join().expect("done");
        }
        assert!(syncs.load(SeqCst) <= 2, "a second sync behind one that failed");
        disk.heal();
        assert!(recovered(&disk.power_cut(Survival::None)) >= acknowledged.load(SeqCst));
    });
}

/// Recording, checkpoints, eviction and questions at once: an answer is between what was recorded
/// before it was asked for and after, and the snapshot with the log behind it is everything once.
#[test]
fn a_checkpoint_among_recorders_has_everything_once() {
    explore(|| {
        let disk = SimulatedDisk::new(3);
        let engine = Arc::new(open(&disk));
        // Stored and evicted: what comes now is recorded into partial series.
        for user in ["a", "b"] {
            record(engine.db(), user, "x", Durability::Memory).expect("recorded");
        }
        engine.db().checkpoint().expect("written");
        engine.run(Step::Budget).expect("evicted");
        let (begun, done) = (Arc::new(AtomicU64::new(2)), Arc::new(AtomicU64::new(2)));
        let recorders = [["a", "x"], ["b", "y"]].map(|[user, item]| {
            let (engine, begun, done) = (engine.clone(), begun.clone(), done.clone());
            thread::spawn(move || {
                for i in 0..3 {
                    begun.fetch_add(1, SeqCst);
                    let item = if i == 1 { "x" } else { item };
                    record(engine.db(), user, item, Durability::Memory).expect("recorded");
                    done.fetch_add(1, SeqCst);
                }
            })
        });
        let (keeper, asker) = (engine.clone(), engine.clone());
        let keeper = thread::spawn(move || {
            keeper.run(Step::Segment).expect("made");
            keeper.run(Step::Checkpoint).expect("written");
            keeper.run(Step::Budget).expect("evicted");
            keeper.run(Step::Checkpoint).expect("written");
        });
        let asker = thread::spawn(move || {
            for user in ["a", "b"] {
                let least = done.load(SeqCst);
                let totals = asker.db().query("all").expect("a view").totals().expect("read");
                assert!((least..=begun.load(SeqCst)).contains(&totals.count));
                let row = asker.db().query("by_user").expect("a view").get(&[user]).expect("read");
                let row = row.expect("recorded");
                assert!((1..=4).contains(&row.count), "{}", row.count);
                assert_eq!(row.summary().expect("stats").sum, row.count as f64);
            }
        });
        for thread in recorders {
            thread.join().expect("done");
        }
        keeper.join().expect("done");
        asker.join().expect("done");
        assert_eq!(recovered(&disk.kill()), 8);
        assert_eq!(count(engine.db()), 8);
    });
}

/// A view counts by itself exactly what is behind its definition in the log; its backfill brings
/// the rest, and nothing twice.
#[test]
fn a_view_defined_and_filled_among_recorders_counts_each_event_once() {
    explore(|| {
        let disk = SimulatedDisk::new(4);
        let engine = Arc::new(open(&disk));
        record(engine.db(), "a", "x", Durability::Memory).expect("recorded");
        let recorders = recorders(&engine);
        let definer = engine.clone();
        let definer = thread::spawn(move || {
            definer.db().define(View::new("late").by(["item"])).expect("defined");
            definer.db().backfill("late", |_| std::ops::ControlFlow::Continue(())).expect("filled");
        });
        let keeper = engine.clone();
        let keeper = thread::spawn(move || keeper.run(Step::Checkpoint).expect("written"));
        for thread in recorders {
            thread.join().expect("done");
        }
        definer.join().expect("done");
        keeper.join().expect("done");
        let late = |db: &Db| {
            let row = db.query("late").expect("a view").get(&["x"]).expect("read");
            row.map_or(0, |row| row.count)
        };
        assert_eq!(late(engine.db()), 5);
        let again = open(&disk.kill());
        assert_eq!((late(again.db()), count(again.db())), (5, 5));
    });
}

/// A view that is redefined among recorders has each event once, by the old definition or the new one.
#[test]
fn a_view_redefined_among_recorders_and_askers_answers_for_each_event_once() {
    explore(|| {
        let disk = SimulatedDisk::new(6);
        let engine = Arc::new(open(&disk));
        let count_of = |db: &Db| db.query("items").and_then(|items| Ok(items.totals()?.count));
        engine.db().define(View::new("items").by(["item"])).expect("defined");
        record(engine.db(), "a", "x", Durability::Memory).expect("recorded");
        let recorders = recorders(&engine);
        let definer = engine.clone();
        let definer = thread::spawn(move || {
            let view = View::new("items").by(["item", "user"]);
            let go_on = |_| std::ops::ControlFlow::Continue(());
            assert!(definer.db().redefine(view, go_on).expect("filled"));
        });
        let asker = engine.clone();
        let asker = thread::spawn(move || {
            let items = asker.db().query("items").expect("a view");
            let before = count_of(asker.db()).expect("answers");
            let after = items.totals().expect("answers").count;
            assert!(1 <= before && before <= after, "{before}, then {after}");
        });
        let keeper = engine.clone();
        let keeper = thread::spawn(move || keeper.run(Step::Checkpoint).expect("written"));
        for thread in recorders {
            thread.join().expect("done");
        }
        definer.join().expect("done");
        asker.join().expect("done");
        keeper.join().expect("done");
        let items = |db: &Db| db.query("items").expect("a view");
        assert_eq!(count_of(engine.db()).expect("answers"), 5);
        assert_eq!(items(engine.db()).view().key().len(), 2);
        let again = open(&disk.kill());
        assert_eq!((count_of(again.db()).expect("answers"), count(again.db())), (5, 5));
    });
}

/// Segments are entered in the order of their numbers, whoever makes them, and closing among
/// recorders loses nothing that was acknowledged.
#[test]
fn an_engine_closed_among_recorders_keeps_what_it_acknowledged() {
    explore(|| {
        let disk = SimulatedDisk::new(5);
        let engine = Arc::new(open(&disk));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let recorders = ["a", "b"].map(|user| {
            let (engine, acknowledged) = (engine.clone(), acknowledged.clone());
            thread::spawn(move || {
                for i in 0..4 {
                    let item = format!("{i}{}", "x".repeat(300));
                    match record(engine.db(), user, &item, Durability::Memory) {
                        Ok(_) => acknowledged.fetch_add(1, SeqCst),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                            break;
                        }
                    };
                }
            })
        });
        let (maker, closer) = (engine.clone(), engine.clone());
        let maker = thread::spawn(move || match maker.run(Step::Segment) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
        });
        let closer = thread::spawn(move || closer.db().close().expect("closed"));
        for thread in recorders {
            thread.join().expect("done");
        }
        maker.join().expect("done");
        closer.join().expect("done");
        assert_eq!(recovered(&disk.power_cut(Survival::None)), acknowledged.load(SeqCst));
    });
}

/// Whoever comes first, as much is let through as the limit says, and counted: by those who record at
/// once, and by those who reserve, and then commit or give up.
#[test]
fn a_limit_lets_through_what_it_says_among_recorders_and_reservations() {
    explore(|| {
        let disk = SimulatedDisk::new(7);
        let engine = Arc::new(open(&disk));
        let calls = View::new("calls").by(["user"]).grain(Grain::Second, Keep::Last(12));
        engine.db().define(calls).expect("defined");
        let limit = |db: &Db| {
            let series = db.query("calls").and_then(|calls| calls.series(&["a"])).expect("a view");
            let window = Window::rolling(Duration::from_secs(10));
            db.limit().at_most(&series, 3, window).expect("kept")
        };
        let event = || Event::new("e").dim("user", "a").dim("item", "x").value(1.0);
        let admitted = Arc::new(AtomicU64::new(0));
        let recorders = [(); 2].map(|()| {
            let (engine, admitted) = (engine.clone(), admitted.clone());
            thread::spawn(move || {
                let limit = limit(engine.db());
                for _ in 0..2 {
                    let verdict = limit.check_and_record(&event()).expect("asked");
                    admitted.fetch_add(u64::from(verdict.is_allowed()), SeqCst);
                }
            })
        });
        let reserver = {
            let (engine, admitted) = (engine.clone(), admitted.clone());
            thread::spawn(move || {
                let limit = limit(engine.db());
                for is_committed in [false, true] {
                    let lease = Duration::from_secs(5);
                    let Ok(reservation) = limit.reserve(1, lease).expect("asked") else { continue };
                    if is_committed {
                        reservation.commit(&event()).expect("held");
                        admitted.fetch_add(1, SeqCst);
                    } else {
                        drop(reservation);
                    }
                }
            })
        };
        for thread in recorders.into_iter().chain([reserver]) {
            thread.join().expect("done");
        }
        // What is given up is there for the reservation after it, at the latest.
        let admitted = admitted.load(SeqCst);
        assert_eq!(admitted, 3);
        let limit = limit(engine.db());
        assert_eq!(limit.usage().expect("asked")[0].used, admitted);
        assert!(!limit.check_and_record(&event()).expect("asked").is_allowed());
        assert_eq!((count(engine.db()), recovered(&disk.kill())), (admitted, admitted));
    });
}

/// An engine with a limiter that lets everything through, whose view is applied at once.
fn limited(disk: &SimulatedDisk) -> (Arc<Stepped>, Limiter) {
    let engine = Arc::new(open(disk));
    let calls = View::new("calls").by(["user"]).grain(Grain::Second, Keep::Last(12));
    engine.db().define(calls).expect("defined");
    let window = Window::rolling(Duration::from_secs(10));
    engine.db().set_policy(Policy::new("calls").at_most("calls", 99, window)).expect("set");
    let limiter = engine.db().limiter("calls").expect("a policy");
    (engine, limiter)
}

fn call(limiter: &Limiter, user: &str) -> crate::Result<u64> {
    let event = Event::new("e").dim("user", user).dim("item", "x").value(1.0);
    limiter.check_and_record(&event).map(|verdict| u64::from(verdict.is_allowed()))
}

/// What is let through by limiters that do not enter the gate is before a cut or behind it, and of a view
/// that is defined meanwhile, like what others record.
#[test]
fn limited_events_among_a_checkpoint_and_a_definition_are_in_every_view_once() {
    explore(|| {
        let disk = SimulatedDisk::new(8);
        let (engine, limiter) = limited(&disk);
        // The view is asked, and a group begun.
        let first = call(&limiter, "a").expect("asked") + call(&limiter, "a").expect("asked");
        assert_eq!(first, 2);
        let callers = ["a", "b"].map(|user| {
            let limiter = limiter.clone();
            thread::spawn(move || {
                (0..3).for_each(|_| assert_eq!(call(&limiter, user).expect("asked"), 1))
            })
        });
        let recorder = engine.clone();
        let recorder = thread::spawn(move || {
            _ = record(recorder.db(), "a", "x", Durability::Memory).expect("recorded")
        });
        let definer = engine.clone();
        let definer = thread::spawn(move || {
            definer.db().define(View::new("late").by(["item"])).expect("defined");
            definer.db().backfill("late", |_| std::ops::ControlFlow::Continue(())).expect("filled");
        });
        let keeper = engine.clone();
        let keeper = thread::spawn(move || keeper.run(Step::Checkpoint).expect("written"));
        for thread in callers.into_iter().chain([recorder, definer, keeper]) {
            thread.join().expect("done");
        }
        let counts = |db: &Db| {
            ["late", "calls"]
                .map(|view| db.query(view).and_then(|view| view.totals()).expect("read").count)
        };
        assert_eq!((count(engine.db()), counts(engine.db())), (9, [9, 9]));
        let again = open(&disk.kill());
        assert_eq!((count(again.db()), counts(again.db())), (9, [9, 9]));
    });
    assert!(
        JOINED.iter().all(|joined| joined.load(SeqCst) > 0),
        "no event joined a group without the gate, or through a lane"
    );
}

/// Two views that are asked, by a limiter each and by one that asks both, and a reservation of one: as many are let
/// through as the limits say, and each is in both views.
#[test]
fn limits_of_two_views_let_through_what_they_say() {
    explore(|| {
        let disk = SimulatedDisk::new(10);
        let (engine, by_user) = limited(&disk);
        let window = Window::rolling(Duration::from_secs(10));
        let items = View::new("items").by(["item"]).grain(Grain::Second, Keep::Last(12));
        engine.db().define(items).expect("defined");
        let (users, both) = (Policy::new("users"), Policy::new("both"));
        engine.db().set_policy(users.at_most("calls", 4, window)).expect("set");
        let both = both.at_most("calls", 4, window).at_most("items", 99, window);
        engine.db().set_policy(both).expect("set");
        let [few, both] = ["users", "both"].map(|name| engine.db().limiter(name).expect("set"));
        assert_eq!(call(&by_user, "a").expect("asked"), 1);
        let admitted = Arc::new(AtomicU64::new(1));
        let callers = [few.clone(), both.clone(), few.clone()].map(|limiter| {
            let admitted = admitted.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    admitted.fetch_add(call(&limiter, "a").expect("asked"), SeqCst);
                }
            })
        });
        let admitted_too = admitted.clone();
        let reserver = thread::spawn(move || {
            let event = Event::new("e").dim("user", "a").dim("item", "x").value(1.0);
            if let Ok(held) = both.reserve(&event, Duration::from_secs(5)).expect("asked") {
                held.commit(&event).expect("held");
                admitted_too.fetch_add(1, SeqCst);
            }
        });
        for thread in callers.into_iter().chain([reserver]) {
            thread.join().expect("done");
        }
        let admitted = admitted.load(SeqCst);
        let count_of = |db: &Db, view: &str| {
            db.query(view).and_then(|view| view.totals()).expect("read").count
        };
        assert_eq!(admitted, 4);
        let again = open(&disk.kill());
        for db in [engine.db(), again.db()] {
            assert_eq!(["calls", "items"].map(|view| count_of(db, view)), [4, 4]);
            assert_eq!(count(db), 4);
        }
    });
    assert!(
        JOINED.iter().all(|joined| joined.load(SeqCst) > 0),
        "no event joined a group without the gate, or through a lane"
    );
}

/// Whoever was let through is in what he asks for next, in a view that waits, too; and positions only rise, and are
/// there to be waited for.
#[test]
fn who_was_let_through_finds_it_in_what_he_asks_for_next() {
    explore(|| {
        let disk = SimulatedDisk::new(11);
        let (engine, limiter) = limited(&disk);
        engine.db().define(View::new("items").by(["item"])).expect("defined");
        assert_eq!(call(&limiter, "a").expect("asked") + call(&limiter, "a").expect("asked"), 2);
        let callers = ["a", "b"].map(|user| {
            let (limiter, engine) = (limiter.clone(), engine.clone());
            thread::spawn(move || {
                let db = engine.db();
                let mut last = 0;
                for n in 1..=3 {
                    assert_eq!(call(&limiter, user).expect("asked"), 1);
                    if user == "a" {
                        let items = db.query("items").and_then(|view| view.totals());
                        assert!(items.expect("read").count >= 2 + n);
                    } else {
                        let position = db.statistics().position;
                        assert!(
                            position.get() > last + u64::from(n > 1) && position.get() >= 2 + n
                        );
                        db.wait_durable(position).expect("there");
                        last = position.get() - 1;
                    }
                }
            })
        });
        let asker = engine.clone();
        let asker = thread::spawn(move || {
            for _ in 0..2 {
                asker.db().sync().expect("synced");
            }
        });
        for thread in callers.into_iter().chain([asker]) {
            thread.join().expect("done");
        }
        assert_eq!((count(engine.db()), recovered(&disk.kill())), (8, 8));
    });
    assert!(JOINED[1].load(SeqCst) > 0, "no event joined a group through a lane");
}

/// Closing among limiters loses nothing that was let through.
#[test]
fn an_engine_closed_among_limiters_keeps_what_it_let_through() {
    explore(|| {
        let disk = SimulatedDisk::new(9);
        let (engine, limiter) = limited(&disk);
        let admitted = Arc::new(AtomicU64::new(call(&limiter, "a").expect("asked")));
        let callers = ["a", "b"].map(|user| {
            let (limiter, admitted) = (limiter.clone(), admitted.clone());
            thread::spawn(move || {
                for _ in 0..3 {
                    match call(&limiter, user) {
                        Ok(n) => _ = admitted.fetch_add(n, SeqCst),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                            break;
                        }
                    }
                }
            })
        });
        let closer = engine.clone();
        let closer = thread::spawn(move || closer.db().close().expect("closed"));
        for thread in callers.into_iter().chain([closer]) {
            thread.join().expect("done");
        }
        assert_eq!(recovered(&disk.power_cut(Survival::None)), admitted.load(SeqCst));
    });
}
