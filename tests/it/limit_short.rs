//! The short way of a limit, on which the question and the recording are one hold of a lock: what goes it, and
//! what it leaves.
//!
//! Next: `limit_short/sides.rs`, where it goes beside the long one.

mod sides;

use crate::directory::{NOW, crash_image, options};
use crate::limits::{allowed, call, denied, just_before, minute, secs};
use quipu::{
    Bucket, Clock, Cursor, Db, Dedup, ErrorKind, Event, Grain, Keep, Limit, Limiter, Options,
    Policy, Query, Row, SeriesQuery, TestClock, Timestamp, Verdict, View, ViewStatus, Window,
};
use serde_json::{Value, json};
use sides::{Asked, CLIENTS, KEYS, ROUTES};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

// What is there.

/// The rows of a view, and all of their buckets.
type Rows = (Vec<Row>, Vec<Vec<Bucket>>);

/// What a store has: of each view its rows, and the events in the log, with all that they have.
#[derive(Debug, PartialEq)]
struct There {
    views: Vec<Rows>,
    log: Vec<Value>,
}

impl There {
    fn of(db: &Db) -> Self {
        let rows = |status: ViewStatus| rows(&db.query(status.view.name()).unwrap());
        let views = db.views().unwrap().into_iter().map(rows).collect();
        There { views, log: log(db) }
    }

    /// The views as the files of a directory have them by themselves.
    fn views_in(dir: &Path) -> Vec<Rows> {
        let db = options().open_read_only(dir).unwrap();
        let rows = |status: ViewStatus| rows(&db.query(status.view.name()).unwrap());
        db.views().unwrap().into_iter().map(rows).collect()
    }
}

fn rows(query: &Query) -> Rows {
    let rows: Vec<Row> = query.rows().unwrap().map(Result::unwrap).collect();
    let of_key = |row: &Row| {
        let key: Vec<&str> = row.key.iter().map(String::as_str).collect();
        let grains = query.view().grains().iter();
        grains.map(|(grain, _)| query.buckets(&key, *grain).unwrap()).collect::<Vec<_>>()
    };
    let buckets = rows.iter().flat_map(of_key).collect();
    (rows, buckets)
}

/// The events of each frame of the log.
fn frames(db: &Db) -> Vec<Vec<Value>> {
    let bundle = serde_json::to_value(db.export(&Cursor::beginning()).unwrap()).unwrap();
    let frames = bundle["frames"].as_array().unwrap();
    frames.iter().map(|frame| frame["events"].as_array().unwrap().clone()).collect()
}

fn log(db: &Db) -> Vec<Value> {
    frames(db).concat()
}

/// What came of the policies: allowed, denied, and near.
fn tallies(db: &Db) -> Vec<[u64; 3]> {
    let policies = db.policies().unwrap();
    policies.iter().map(|status| [status.allowed, status.denied, status.near]).collect()
}

// The short way by itself.

type Meddling = Box<dyn FnOnce() + Send>;

/// A clock that counts how often it is asked roughly, and does something before it says the time: what another
/// thread might do then. The long way asks so under the locks of its keys, once for each event that it records; the
/// short way does not.
#[derive(Clone, Default)]
struct Watched {
    clock: TestClock,
    roughly: Arc<AtomicU64>,
    meddling: Arc<Mutex<Option<Meddling>>>,
    meddling_roughly: Arc<Mutex<Option<Meddling>>>,
}

fn meddle(meddling: &Mutex<Option<Meddling>>) {
    let meddling = meddling.lock().unwrap().take();
    if let Some(meddling) = meddling {
        meddling();
    }
}

impl Clock for Watched {
    fn now(&self) -> Timestamp {
        meddle(&self.meddling);
        self.clock.now()
    }

    fn now_roughly(&self) -> Timestamp {
        self.roughly.fetch_add(1, SeqCst);
        meddle(&self.meddling_roughly);
        self.clock.now()
    }
}

struct Store {
    root: tempfile::TempDir,
    clock: Watched,
    db: Db,
}

impl Store {
    fn of(views: impl IntoIterator<Item = View>) -> Self {
        Store::with(options(), views)
    }

    fn with(options: Options, views: impl IntoIterator<Item = View>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let clock = Watched::default();
        clock.clock.set(Timestamp::from_secs(NOW));
        let views = views.into_iter().fold(options.clock(clock.clone()), Options::view);
        let db = views.open(root.path().join("db")).unwrap();
        Store { root, clock, db }
    }

    fn advance(&self, by: Duration) {
        self.clock.clock.advance(by);
    }

    /// The limiter of a policy that has the name of the view that it asks.
    fn limiter(&self, view: &str, n: u64) -> Limiter {
        self.db.set_policy(Policy::new(view).at_most(view, n, minute())).unwrap();
        self.db.limiter(view).unwrap()
    }

    fn series(&self, view: &str, key: &[&str]) -> SeriesQuery {
        self.db.query(view).unwrap().series(key).unwrap()
    }

    fn limit(&self, view: &str, key: &[&str], n: u64) -> Limit {
        self.db.limit().at_most(self.series(view, key), n, minute()).unwrap()
    }

    fn count(&self, view: &str, key: &[&str]) -> u64 {
        self.db.query(view).unwrap().get(key).unwrap().map_or(0, |row| row.count)
    }

    fn rows(&self, view: &str) -> Rows {
        rows(&self.db.query(view).unwrap())
    }

    /// Whether that goes the short way, which is allowed.
    #[track_caller]
    fn is_short(&self, ask: impl FnOnce() -> quipu::Result<Verdict>) -> bool {
        let before = self.clock.roughly.load(SeqCst);
        allowed(ask());
        self.clock.roughly.load(SeqCst) == before
    }

    /// The views are of one definition, and each has what the others have; and so has, of the same directory, who
    /// finds it as it is if this process dies now.
    #[track_caller]
    fn agrees(&self) {
        let image = self.root.path().join("image");
        crash_image(self.db.directory(), &image);
        let views = There::of(&self.db).views;
        assert!(views.iter().all(|view| *view == views[0]), "{views:?}");
        assert_eq!(There::views_in(&image), views);
    }
}

/// The view, and another one of its definition that nobody asks.
fn twins(view: impl Fn(&str) -> View) -> [View; 2] {
    [view("calls"), view("twin")]
}

fn kept(view: View) -> View {
    view.grain(Grain::Second, Keep::Last(62)).grain(Grain::Minute, Keep::Last(2))
}

fn by_key(name: &str) -> View {
    kept(View::new(name).by(["key"]).only_events(["call"]))
}

fn by_key_and_route(name: &str) -> View {
    kept(View::new(name).by(["key", "route"]).only_events(["call"]))
}

fn routed<'a>(key: &'a str, route: &'a str) -> Event<'a> {
    call(key).dim("route", route)
}

#[test]
fn one_at_most_of_the_key_that_the_event_has_goes_the_short_way() {
    let keys: [&[&str]; 4] = [&["key"], &["event"], &["route", "key"], &["key", "route", "event"]];
    let windows = [minute(), Window::fixed(Grain::Minute), Window::last(2, Grain::Minute)];
    let event = routed("alice", "/search").dim("client", "c1").value(1.5);
    for at in 0..20 {
        let (key, window) = (keys[at % 4], windows[at % 3]);
        let (states, grains, n) = (at % 5, at / 5, 9);
        let (only_calls, only_in_eu, is_shadow) = (at % 2 == 0, false, false);
        let asked = Asked { key, only_calls, only_in_eu, states, grains, n, window, is_shadow };
        let store = Store::of(twins(|name| asked.view(name)));
        store.db.set_policy(asked.policy("calls", n)).unwrap();
        let limiter = store.db.limiter("calls").unwrap();
        let parts = key.iter().map(|part| match *part {
            "key" => "alice",
            "route" => "/search",
            _ => "call",
        });
        let parts: Vec<&str> = parts.collect();
        let limit = store.db.limit().at_most(store.series("calls", &parts), n, window).unwrap();
        // The first question has the view take events at once, and the key is not known.
        assert!(!store.is_short(|| limiter.check_and_record(&event)), "{asked:?}");
        let of = limiter.of(&event).unwrap();
        for left in [7, 6] {
            assert!(store.is_short(|| limiter.check_and_record(&event)), "{asked:?}");
            store.advance(secs(1));
            assert_eq!(limiter.usage(&event).unwrap()[0].remaining(), left);
        }
        assert!(store.is_short(|| limit.check_and_record(&event)), "{asked:?}");
        assert!(store.is_short(|| of.check_and_record(&event)), "{asked:?}");
        assert!(store.is_short(|| limiter.check_and_record(&event.clone().times(4))), "{asked:?}");
        let _ = denied(limiter.check_and_record(&event));
        let _ = denied(limit.check_and_record(&event));
        assert_eq!((store.count("calls", &parts), tallies(&store.db)), (9, vec![[5, 1, 1]]));
        store.agrees();
    }
}

#[test]
fn what_can_not_be_decided_by_the_short_way_goes_the_long_one() {
    let store = Store::of(twins(by_key));
    let limiter = store.limiter("calls", 100);
    let alice = store.limit("calls", &["alice"], 100);
    for key in KEYS {
        allowed(limiter.check_and_record(&call(key)));
    }
    let by_limiter = || store.is_short(|| limiter.check_and_record(&call("alice")));
    let by_limit = |event: Event<'_>| store.is_short(|| alice.check_and_record(&event));
    let by_either = || [by_limiter(), by_limit(call("alice"))];
    assert_eq!(by_either(), [true; 2]);
    // Of another key, of another view, or more than one question.
    assert!(!by_limit(call("bob")) && !by_limit(Event::new("job").dim("key", "alice")));
    let longer = alice.clone().only_if("always", || true).unwrap();
    assert!(!store.is_short(|| longer.check_and_record(&call("alice"))));
    // Something is reserved under the key. Under others that matters where they share a lock.
    let held = alice.reserve(1, secs(10)).unwrap().unwrap();
    assert_eq!(by_either(), [false; 2]);
    let others = ["bob", "call"].map(|key| store.is_short(|| limiter.check_and_record(&call(key))));
    assert!(others.contains(&true));
    held.cancel();
    assert_eq!(by_either(), [true; 2]);
    // The clock was set back, until it has caught up.
    store.clock.clock.set(Timestamp::from_secs(NOW - 5));
    assert_eq!(by_either(), [false; 2]);
    store.advance(secs(6));
    assert_eq!(by_either(), [true; 2]);
    // What is recorded may be too old for a view that nobody asks, by one that is ahead.
    store.db.record(&call("far").at(Timestamp::from_secs(NOW + 100))).unwrap();
    assert_eq!(by_either(), [false; 2]);
    store.advance(secs(100));
    assert_eq!(by_either(), [true; 2]);
    // Another view that is asked, too, has the events as well.
    allowed(store.limit("twin", &["alice"], 1_000).check_and_record(&call("alice")));
    assert_eq!(by_either(), [true; 2]);
    store.agrees();
}

#[test]
fn a_limit_does_not_count_an_event_of_another_key() {
    let store = Store::of(twins(by_key));
    let alice = store.limit("calls", &["alice"], 2);
    for key in ["alice", "bob"] {
        allowed(alice.check_and_record(&call(key)));
    }
    for _ in 0..5 {
        assert_eq!(allowed(alice.check_and_record(&call("bob"))).0, Some(0));
    }
    assert_eq!((store.count("calls", &["alice"]), store.count("calls", &["bob"])), (1, 6));
    allowed(alice.check_and_record(&call("alice")));
    let _ = denied(alice.check_and_record(&call("alice")));
    // Who is asked has no more room, whoever it would be.
    let _ = denied(alice.check_and_record(&call("bob")));
    store.agrees();

    let store = Store::of(twins(by_key_and_route));
    let asked = store.limit("calls", &["a", "b"], 2);
    let others = [("a", "a"), ("b", "b"), ("b", "a"), ("a", "c"), ("c", "b")];
    for _ in 0..3 {
        for (key, route) in others {
            allowed(asked.check_and_record(&routed(key, route)));
        }
        // Without the second part, in no group.
        allowed(asked.check_and_record(&call("a")));
    }
    for (key, route) in others {
        assert_eq!(store.count("calls", &[key, route]), 3);
    }
    assert_eq!(store.count("calls", &["a", "b"]), 0);
    for _ in 0..2 {
        allowed(asked.check_and_record(&routed("a", "b")));
    }
    let _ = denied(asked.check_and_record(&routed("a", "b")));
    store.agrees();
}

#[test]
fn a_limit_does_not_count_an_event_that_its_view_does_not_take() {
    let view = |name: &str| by_key(name).where_in("zone", ["eu", "us"]).where_equal("kind", "new");
    let everything = View::new("everything").by(["key"]);
    let store = Store::of([view("calls"), view("twin"), everything]);
    let limiter = store.limiter("calls", 3);
    let limit = store.limit("calls", &["alice"], 3);
    let taken = |zone| call("alice").dim("zone", zone).dim("kind", "new");
    for zone in ["eu", "us"] {
        allowed(limiter.check_and_record(&taken(zone)));
    }
    let others = [
        Event::new("job").dim("key", "alice").dim("zone", "eu").dim("kind", "new"),
        call("alice").dim("zone", "asia").dim("kind", "new"),
        call("alice").dim("zone", "eu").dim("kind", "old"),
        call("alice").dim("kind", "new"),
        call("alice"),
    ];
    for event in others.iter().chain(&others) {
        assert_eq!(allowed(limiter.check_and_record(event)).0, Some(0));
        assert_eq!(allowed(limit.check_and_record(event)).0, Some(0));
    }
    assert_eq!((store.count("calls", &["alice"]), store.count("everything", &["alice"])), (2, 22));
    assert!(store.is_short(|| limiter.check_and_record(&taken("eu"))));
    let _ = denied(limiter.check_and_record(&taken("us")));
    assert_eq!(store.rows("calls"), store.rows("twin"));
}

#[test]
fn a_view_with_states_has_them_by_the_short_way_as_by_the_long_one() {
    let with_states = |view: View| {
        let view = view.stats("value").stats("weight").distinct("client").quantiles("value");
        view.top("client", 8).top_by("client", "weight", 8)
    };
    let [one, two] =
        [by_key, by_key_and_route].map(|view| move |name: &str| with_states(view(name)));
    for store in [Store::of(twins(one)), Store::of(twins(two))] {
        let limiter = store.limiter("calls", 1_000);
        let mut shorts = 0;
        for n in 0..60_u32 {
            let client = CLIENTS[n as usize % 3];
            let mut event = routed(KEYS[n as usize % 2], "/search").dim("client", client);
            event = event.times(1 + u64::from(n % 3));
            if n % 4 != 1 {
                event = event.value(f64::from(n) / 4.0);
            }
            if n % 5 == 2 {
                event = event.measure("weight", f64::from(n));
            }
            let limit = limiter.of(&event).unwrap();
            shorts += u32::from(store.is_short(|| match n % 3 {
                0 => limit.check_and_record(&event),
                _ => limiter.check_and_record(&event),
            }));
            store.advance(Duration::from_millis(130));
            if n % 20 == 19 {
                store.db.record(&event).unwrap();
            }
        }
        assert!(shorts >= 50, "{shorts}");
        let query = store.db.query("calls").unwrap();
        let row = query.rows().unwrap().next().unwrap().unwrap();
        assert_eq!((row.key[0].as_str(), row.count, row.stats.len()), ("alice", 60, 2));
        let summed =
            (0..60).step_by(2).filter(|n| n % 4 != 1).map(|n| n * (1 + n % 3)).sum::<u32>();
        assert_eq!(row.stats("value").unwrap().sum, f64::from(summed) / 4.0);
        assert_eq!(row.sketches.top("client").unwrap().total(), 60);
        store.agrees();
    }
}

#[test]
fn two_limits_of_two_views_each_count_what_the_other_one_lets_through() {
    let by_route = |name: &str| kept(View::new(name).by(["route"]).only_events(["call"]));
    let store =
        Store::of([by_key("by_key"), by_route("by_route"), by_key("twin"), by_route("other")]);
    let [by_key, by_route] =
        [("by_key", 4), ("by_route", 6)].map(|(view, n)| store.limiter(view, n));
    let hit = |limiter: &Limiter, key, route| {
        limiter.check_and_record(&routed(key, route)).unwrap().is_allowed()
    };
    // Only one is asked, and goes the short way.
    assert!(hit(&by_key, "alice", "/a") && hit(&by_key, "alice", "/a"));
    assert_eq!(by_route.usage(&routed("bob", "/a")).unwrap()[0].used, 2);
    for n in 0..3 {
        assert!(hit(&by_route, "bob", "/a"));
        assert_eq!(store.count("by_key", &["bob"]), n + 1);
        assert_eq!(store.count("by_route", &["/a"]), n + 3);
    }
    assert!(hit(&by_key, "bob", "/a") && !hit(&by_key, "bob", "/b"));
    assert!(!hit(&by_route, "alice", "/a") && hit(&by_route, "alice", "/b"));
    assert!(hit(&by_key, "alice", "/a") && !hit(&by_key, "alice", "/c"));
    let counts = [("by_key", "alice"), ("by_key", "bob"), ("by_route", "/a"), ("by_route", "/b")];
    assert_eq!(counts.map(|(view, key)| store.count(view, &[key])), [4, 4, 7, 1]);
    assert_eq!(tallies(&store.db), [[4, 2, 2], [4, 1, 1]]);
    for [asked, other] in [["by_key", "twin"], ["by_route", "other"]] {
        assert_eq!(store.rows(asked), store.rows(other));
    }
}

#[test]
fn what_is_reserved_of_a_key_counts_against_it_while_others_go_on() {
    let store = Store::of(twins(by_key));
    let limiter = store.limiter("calls", 3);
    let hit = |key| limiter.check_and_record(&call(key));
    for key in ["alice", "bob"] {
        allowed(hit(key));
    }
    let held = limiter.reserve(&call("alice").times(2), secs(10)).unwrap().unwrap();
    let denial = denied(hit("alice"));
    assert_eq!((denial.used, denial.retry_after), (3, Some(secs(10))));
    assert_eq!(allowed(hit("bob")).0, Some(1));
    assert_eq!(allowed(hit("bob")).0, Some(0));
    assert_eq!(denied(hit("bob")).retry_after, Some(secs(60)));
    // Whoever asks for the same series by another limit.
    let _ = denied(store.limit("calls", &["alice"], 3).check_and_record(&call("alice")));
    store.advance(secs(4));
    held.commit(&call("alice")).unwrap();
    assert!(store.is_short(|| hit("alice")));
    assert_eq!(denied(hit("alice")).retry_after, Some(just_before(secs(57))));
    // A lease that is over counts no more, though nobody came to say so.
    store.advance(secs(61));
    let over = limiter.reserve(&call("alice").times(3), secs(5)).unwrap().unwrap();
    assert_eq!(denied(hit("alice")).used, 3);
    store.advance(secs(5));
    assert_eq!(allowed(hit("alice")).0, Some(2));
    assert_eq!(over.commit(&call("alice")).unwrap_err().kind(), ErrorKind::Expired);
    assert!(store.is_short(|| hit("alice")));
    assert_eq!((store.count("calls", &["alice"]), store.count("calls", &["bob"])), (5, 3));
    store.agrees();
}

/// From before it reads until it has recorded.
#[test]
fn who_has_the_lock_of_a_key_is_waited_for_by_the_short_way() {
    let store = Store::of(twins(by_key));
    let limiter = store.limiter("calls", 2);
    let hit = |key| limiter.check_and_record(&call(key));
    for key in ["alice", "bob", "call"] {
        allowed(hit(key));
    }
    // One that was found to fit, and is not recorded yet.
    let longer = limiter.of(&call("alice")).unwrap().only_if("always", || true).unwrap();
    let (said, heard) = mpsc::channel();
    let other = limiter.clone();
    *store.clock.meddling_roughly.lock().unwrap() = Some(Box::new(move || {
        let ask = |key: &'static str| {
            let (limiter, said) = (other.clone(), said.clone());
            std::thread::spawn(move || {
                let verdict = limiter.check_and_record(&call(key)).unwrap();
                said.send((key, verdict.is_allowed())).unwrap();
            });
        };
        ask("alice");
        // As long as it takes who does not wait.
        std::thread::sleep(Duration::from_millis(100));
        ask("bob");
        ask("call");
    }));
    allowed(longer.check_and_record(&call("alice")));
    assert!(store.clock.meddling_roughly.lock().unwrap().is_none(), "it went the long way");
    let mut all: Vec<_> = heard.iter().collect();
    all.sort_unstable();
    assert_eq!(all, [("alice", false), ("bob", true), ("call", true)]);
    assert_eq!(store.count("calls", &["alice"]), 2);
    store.agrees();
}

#[test]
fn what_a_policy_allows_and_denies_by_the_short_way_is_counted_once() {
    for view in [by_key, by_key_and_route] {
        let store = Store::of(twins(view));
        let policy = Policy::new("calls").at_most("calls", 10, minute());
        store.db.set_policy(policy.clone()).unwrap();
        let limiter = store.db.limiter("calls").unwrap();
        let event = |times| routed("alice", "/search").times(times);
        allowed(limiter.check_and_record(&event(1)));
        let of = limiter.of(&event(1)).unwrap();
        assert_eq!(tallies(&store.db), [[1, 0, 0]]);
        // Near it is what is used of it behind the event, from eight tenths on.
        for (n, times, near) in [(2, 1, 0), (3, 4, 0), (4, 2, 0), (5, 1, 1), (6, 1, 2)] {
            assert!(store.is_short(|| match n % 2 {
                0 => limiter.check_and_record(&event(times)),
                _ => of.check_and_record(&event(times)),
            }));
            assert_eq!(tallies(&store.db), [[n, 0, near]]);
        }
        for n in 1..4 {
            let _ = denied(limiter.check_and_record(&event(1)));
            let _ = denied(of.check_and_record(&event(1)));
            assert_eq!(tallies(&store.db), [[6, 2 * n, 2]]);
        }
        // One that refuses nothing counts what it would have.
        store.db.set_policy(policy.shadow(true)).unwrap();
        allowed(limiter.check_and_record(&event(1)));
        assert_eq!(tallies(&store.db), [[6, 7, 2]]);
        store.advance(secs(61));
        assert!(store.is_short(|| limiter.check_and_record(&event(9))));
        assert_eq!(tallies(&store.db), [[7, 7, 3]]);
        let parts = view("calls").key().len();
        assert_eq!(store.count("calls", &["alice", "/search"][..parts]), 20);
        store.agrees();
    }
}

#[test]
fn all_that_an_event_has_is_recorded_by_the_short_way() {
    for view in [by_key, by_key_and_route] {
        let store = Store::of(twins(|name| view(name).stats("value").stats("weight")));
        let limiter = store.limiter("calls", 50);
        allowed(limiter.check_and_record(&routed("alice", "/search")));
        let plain = routed("alice", "/search").dim("client", "alice");
        let all = plain.clone().value(0.1).measure("weight", -3.0).times(2);
        let all = all.entity("cart 7").id("order 3").payload(&[0, 255, 7]);
        let limit = limiter.of(&plain).unwrap();
        store.advance(Duration::from_millis(1_250));
        assert!(store.is_short(|| limit.check_and_record(&all)));
        assert!(store.is_short(|| limiter.check_and_record(&plain)));
        // Whose id was there before: nobody looks at ids here.
        assert!(store.is_short(|| limit.check_and_record(&plain.clone().id("order 3"))));
        allowed(limiter.check_and_record(&all));
        let position = store.db.position();
        let at = store.clock.now();
        let about = plain.clone().at_about(at, secs(1));
        for wrong in [plain.clone().at(at), about, plain.clone().dim("key", "b"), call("").times(0)]
        {
            let both = [limit.check_and_record(&wrong), limiter.check_and_record(&wrong)];
            assert_eq!(both.map(|it| it.unwrap_err().kind()), [ErrorKind::Invalid; 2]);
        }
        assert_eq!(store.db.position(), position);
        let dims = json!({"key": "alice", "route": "/search", "client": "alice"});
        let at = "2023-11-14T22:13:21.250Z";
        let plain = json!({"event": "call", "at": at, "dims": dims});
        let mut with_id = plain.clone();
        with_id["id"] = json!("order 3");
        let mut all = with_id.clone();
        all["measures"] = json!({"value": "0.1", "weight": "-3.0"});
        all["times"] = json!(2);
        all["entity"] = json!("cart 7");
        all["payload"] = json!("00ff07");
        assert_eq!(log(&store.db)[1..], [all.clone(), plain, with_id, all]);
        store.agrees();
    }
}

#[test]
fn an_event_that_is_late_for_a_bucket_of_the_view_that_is_asked_is_counted_so() {
    let view = |name: &str| {
        let view = View::new(name).by(["key"]).only_events(["call"]);
        view.grain(Grain::Second, Keep::Last(5)).grain(Grain::Minute, Keep::All)
    };
    let store = Store::of([view("calls")]);
    let limiter = store.limiter("calls", 9);
    allowed(limiter.check_and_record(&call("alice")));
    assert!(store.is_short(|| limiter.check_and_record(&call("alice"))));
    assert_eq!(store.db.statistics().late, 0);
    store.db.record(&call("alice").at(Timestamp::from_secs(NOW + 10))).unwrap();
    assert_eq!(store.db.statistics().late, 0);
    for late in 1..4 {
        assert!(store.is_short(|| limiter.check_and_record(&call("alice"))));
        assert_eq!(store.db.statistics().late, late);
    }
    assert_eq!(limiter.usage(&call("alice")).unwrap()[0].used, 6);
    store.agrees();
}

#[test]
fn an_id_that_was_seen_is_counted_once_where_others_go_the_short_way() {
    let store = Store::with(options().dedup(Dedup::Last(9)), twins(by_key_and_route));
    let limiter = store.limiter("calls", 9);
    let event = routed("alice", "/search");
    allowed(limiter.check_and_record(&event));
    for id in ["one", "two", "one", "two", "one"] {
        assert!(!store.is_short(|| limiter.check_and_record(&event.clone().id(id))));
        assert!(store.is_short(|| limiter.check_and_record(&event)) || id == "one");
    }
    assert_eq!(store.count("calls", &["alice", "/search"]), 8);
    store.agrees();
}

/// A group is brought in by who finds no room in it, and that one comes first in the next.
#[test]
fn more_events_than_wait_together_are_recorded_once_and_in_their_order() {
    let store = Store::of(twins(by_key_and_route));
    let limiter = store.limiter("calls", 1_000);
    for route in ROUTES {
        allowed(limiter.check_and_record(&routed("alice", route)));
    }
    let routes: Vec<&str> = (0..600).map(|n| ROUTES[n % 7 % 2]).collect();
    let agent = "a".repeat(700);
    for (n, route) in routes.iter().enumerate() {
        // Many, large ones, and some that come apart.
        let event = routed("alice", route);
        let event = if n < 300 { event } else { event.dim("agent", &agent) };
        assert!(store.is_short(|| limiter.check_and_record(&event)));
        if n >= 500 {
            store.advance(Duration::from_millis(9));
        }
    }
    let frames = frames(&store.db);
    let at = |event: &Value| Timestamp::parse_rfc3339(event["at"].as_str().unwrap()).unwrap();
    for frame in &frames {
        let length = at(&frame[frame.len() - 1]).micros() - at(&frame[0]).micros();
        assert!(length <= 100_000 && frame.len() <= 128, "{length} {}", frame.len());
    }
    let recorded = frames.iter().flatten().skip(2).map(|event| event["dims"]["route"].as_str());
    assert_eq!(recorded.collect::<Option<Vec<_>>>().unwrap(), routes);
    assert_eq!(store.db.statistics().events, 602);
    store.agrees();
}

/// Buckets of what was a view's first grain are not looked for among those that are by now.
#[test]
fn a_view_that_gets_other_buckets_while_it_is_asked_is_asked_for_those() {
    let store = Store::of([by_key("calls")]);
    let limiter = store.limiter("calls", 2);
    for _ in 0..2 {
        allowed(limiter.check_and_record(&call("alice")));
    }
    let (db, other) = (store.db.clone(), limiter.clone());
    *store.clock.meddling.lock().unwrap() = Some(Box::new(move || {
        let minutes = View::new("calls").by(["key"]).only_events(["call"]);
        let minutes = minutes.grain(Grain::Minute, Keep::Last(62));
        assert!(db.redefine(minutes, |_| ControlFlow::Continue(())).unwrap());
        // Whom limits ask from now on.
        allowed(other.check_and_record(&call("bob")));
    }));
    assert_eq!(denied(limiter.check_and_record(&call("alice"))).used, 2);
    assert!(store.clock.meddling.lock().unwrap().is_none());
    assert_eq!((store.count("calls", &["alice"]), store.count("calls", &["bob"])), (2, 1));
    store.agrees();
}

#[test]
fn nothing_is_recorded_by_the_short_way_when_the_engine_is_closed() {
    let store = Store::of(twins(by_key));
    let limiter = store.limiter("calls", 9);
    let limit = store.limit("calls", &["alice"], 9);
    for n in 0..4 {
        assert!(store.is_short(|| limiter.check_and_record(&call("alice"))) || n == 0);
    }
    let (position, there) = (store.db.position(), There::of(&store.db));
    store.db.close().unwrap();
    for event in [call("alice"), call("bob"), call("alice")] {
        let both = [limiter.check_and_record(&event), limit.check_and_record(&event)];
        assert_eq!(both.map(|verdict| verdict.unwrap_err().kind()), [ErrorKind::Closed; 2]);
    }
    assert_eq!(store.db.position(), position);
    assert_eq!(There::views_in(store.db.directory()), there.views);
}
