//! The two ways of a limit side by side: what they say, and what they leave.
//!
//! The long way is forced by one more constraint, which always holds.

use super::{There, tallies};
use crate::directory::{NOW, crash_image, options};
use crate::limits::secs;
use proptest::prelude::*;
use quipu::{
    Clock, Db, Dedup, Error, Event, Grain, Keep, Limit, Limiter, Options, Policy, Reservation,
    TestClock, Timestamp, Verdict, View, Window,
};
use std::collections::HashMap;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One is the name of an event, too, and a route.
pub(super) const KEYS: [&str; 3] = ["alice", "bob", "call"];
pub(super) const ROUTES: [&str; 2] = ["alice", "/search"];
pub(super) const CLIENTS: [&str; 4] = ["c0", "c1", "c2", "bob"];

/// An event.
#[derive(Clone, Debug)]
struct Fact {
    name: &'static str,
    key: Option<&'static str>,
    route: Option<&'static str>,
    zone: Option<&'static str>,
    client: Option<&'static str>,
    value: Option<i16>,
    weight: Option<u8>,
    times: u64,
    /// Of its dimensions the last one comes first.
    is_backwards: bool,
    entity: Option<&'static str>,
    id: Option<&'static str>,
    payload: Option<&'static [u8]>,
}

impl Fact {
    fn event(&self) -> Event<'static> {
        let mut dims: Vec<(&str, &str)> = Vec::new();
        let parts = [("key", self.key), ("route", self.route), ("zone", self.zone)];
        for (name, value) in parts.into_iter().chain([("client", self.client)]) {
            dims.extend(value.map(|value| (name, value)));
        }
        if self.is_backwards {
            dims.reverse();
        }
        let mut event = Event::new(self.name).times(self.times);
        for (name, value) in dims {
            event = event.dim(name, value);
        }
        if let Some(value) = self.value {
            event = event.value(f64::from(value) / 8.0);
        }
        if let Some(weight) = self.weight {
            event = event.measure("weight", weight.into());
        }
        if let Some(entity) = self.entity {
            event = event.entity(entity);
        }
        if let Some(id) = self.id {
            event = event.id(id);
        }
        if let Some(payload) = self.payload {
            event = event.payload(payload);
        }
        event
    }

    /// Its key by these parts.
    fn key_of(&self, parts: &[&str]) -> Option<Vec<&'static str>> {
        let part = |part: &&str| match *part {
            "event" => Some(self.name),
            "key" => self.key,
            _ => self.route,
        };
        parts.iter().map(part).collect()
    }
}

fn facts() -> impl Strategy<Value = Fact> {
    let one_of = |texts: &'static [&'static str]| prop::sample::select(texts);
    let dims = (
        prop::option::weighted(0.97, prop_oneof![3 => Just(KEYS[0]), 2 => one_of(&KEYS)]),
        prop::option::weighted(0.97, prop_oneof![3 => Just(ROUTES[0]), 2 => one_of(&ROUTES)]),
        prop::option::weighted(0.95, prop_oneof![9 => Just("eu"), 1 => Just("us")]),
        prop::option::weighted(0.6, one_of(&CLIENTS)),
    );
    let name = prop_oneof![9 => Just("call"), 1 => Just("job")];
    let measures = (prop::option::of(any::<i16>()), prop::option::weighted(0.2, any::<u8>()));
    let times = prop_oneof![6 => Just(1_u64), 1 => 2_u64..6];
    let rare = (
        prop::option::weighted(0.03, Just("cart")),
        prop::option::weighted(0.05, one_of(&["id 1", "id 2", "id 3"])),
        prop::option::weighted(0.03, Just(&[1_u8, 2, 3][..])),
    );
    (name, dims, measures, times, prop::bool::weighted(0.1), rare).prop_map(
        |(name, (key, route, zone, client), (value, weight), times, is_backwards, rare)| {
            let (entity, id, payload) = rare;
            let parts = (name, key, route, zone, client, value, weight);
            let (name, key, route, zone, client, value, weight) = parts;
            #[rustfmt::skip]
            let fact = Fact {
                name, key, route, zone, client, value, weight, times, is_backwards, entity, id, payload,
            };
            fact
        },
    )
}

/// A view, and what may happen in it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) key: &'static [&'static str],
    pub(super) only_calls: bool,
    pub(super) only_in_eu: bool,
    pub(super) states: usize,
    pub(super) grains: usize,
    pub(super) n: u64,
    pub(super) window: Window,
    pub(super) is_shadow: bool,
}

impl Asked {
    pub(super) fn view(&self, name: &str) -> View {
        let mut view = View::new(name).by(self.key.iter().copied());
        if self.only_calls {
            view = view.only_events(["call", "never"]);
        }
        if self.only_in_eu {
            view = view.where_equal("zone", "eu");
        }
        view = match self.states {
            0 => view,
            1 => view.stats("value"),
            2 => view.distinct("client"),
            3 => view.top("client", 16).stats("weight").stats("value"),
            _ => view.top_by("client", "weight", 16).quantiles("value"),
        };
        let [seconds, minutes] = match self.grains {
            // Packed where there are no states; in blocks.
            0 => [Keep::Last(62), Keep::Last(2)],
            1 => [Keep::Last(2_000), Keep::Last(2)],
            2 => [Keep::All; 2],
            // Seconds for which an event may be late.
            _ => [Keep::Last(5), Keep::Last(62)],
        };
        view.grain(Grain::Second, seconds).grain(Grain::Minute, minutes)
    }

    pub(super) fn policy(&self, name: &str, n: u64) -> Policy {
        let policy = Policy::new(name).near(60).shadow(self.is_shadow);
        policy.at_most(name, n, self.window)
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    let parts: Vec<&'static [&'static str]> = vec![
        &["key"],
        &["event"],
        &["key", "route"],
        &["event", "key"],
        &["route", "key"],
        &["key", "route", "event"],
    ];
    let window = prop_oneof![
        (1_u64..61).prop_map(|n| Window::rolling(secs(n))),
        Just(Window::fixed(Grain::Minute)),
        Just(Window::last(2, Grain::Minute)),
    ];
    let is_rare = || prop::bool::weighted(0.3);
    let n = prop_oneof![5 => 1_u64..7, 1 => Just(1_000_u64)];
    let of = (prop::sample::select(parts), is_rare(), is_rare());
    let kept = (0_usize..5, 0_usize..4);
    (of, kept, n, window, prop::bool::weighted(0.1)).prop_map(
        |((key, only_calls, only_in_eu), (states, grains), n, window, is_shadow)| Asked {
            key,
            only_calls,
            only_in_eu,
            states,
            grains,
            n,
            window,
            is_shadow,
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    /// By the limiter, or by the limit of the key that another event has; of the second view; so often.
    Ask(Option<Fact>, bool, Fact, usize),
    Check(Option<Fact>, bool, Fact),
    /// So many seconds from now.
    Record(Fact, i64),
    Batch(Vec<Fact>),
    Reserve(bool, Fact, u64),
    /// One of those that are held, by an event of its own, or by another one.
    Commit(usize, Option<Fact>),
    Cancel(usize),
    Advance(u64),
    /// To where the last denial ends, and by so many microseconds beside it.
    Retry(i64),
    SetBack(u64),
    Set(bool, u64),
    /// With other buckets.
    Redefine(bool, usize),
    Checkpoint,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let second = || prop::bool::weighted(0.15);
    // Mostly by the limiter, or by a limit of the key that the event has.
    let ask = || {
        let by = prop_oneof![3 => Just(0), 2 => Just(1), 1 => Just(2)];
        (by, facts(), second(), facts()).prop_map(|(by, other, second, fact)| {
            let of = [None, Some(fact.clone()), Some(other)][by].clone();
            (of, second, fact)
        })
    };
    let often = prop_oneof![30 => 1_usize..4, 1 => 100_usize..150];
    let from_now = prop_oneof![8 => Just(0_i64), 1 => -70_i64..0, 1 => 1_i64..20];
    let step = prop_oneof![
        40 => (ask(), often).prop_map(|((of, second, fact), n)| Step::Ask(of, second, fact, n)),
        2 => ask().prop_map(|(of, second, fact)| Step::Check(of, second, fact)),
        5 => (facts(), from_now).prop_map(|(fact, from_now)| Step::Record(fact, from_now)),
        2 => prop::collection::vec(facts(), 1..5).prop_map(Step::Batch),
        2 => (second(), facts(), 1_u64..20).prop_map(|(second, fact, n)| Step::Reserve(second, fact, n)),
        2 => (0_usize..4, prop::option::weighted(0.2, facts())).prop_map(|(n, fact)| Step::Commit(n, fact)),
        3 => (0_usize..4).prop_map(Step::Cancel),
        8 => prop_oneof![0_u64..2_000, 0_u64..3_000_000, 0_u64..40_000_000].prop_map(Step::Advance),
        2 => (-1_i64..2).prop_map(Step::Retry),
        2 => prop_oneof![2 => 1_u64..1_500, 1 => 1_u64..9_000_000].prop_map(Step::SetBack),
        1 => (any::<bool>(), 1_u64..7).prop_map(|(second, n)| Step::Set(second, n)),
        1 => prop_oneof![
            Just(Step::Checkpoint),
            Just(Step::Reopen),
            (any::<bool>(), 0_usize..4).prop_map(|(second, grains)| Step::Redefine(second, grains)),
        ],
    ];
    prop::collection::vec(step, 1..120)
}

const NAMES: [&str; 2] = ["main", "second"];

/// An engine whose limits go one of the ways.
struct Side<'a> {
    asked: &'a [Asked; 2],
    options: Options,
    is_long: bool,
    dir: PathBuf,
    db: Db,
    limiters: [Limiter; 2],
    limits: HashMap<(usize, Vec<&'static str>), Limit>,
    held: Vec<(Reservation, Fact)>,
}

impl<'a> Side<'a> {
    fn new(asked: &'a [Asked; 2], options: Options, dir: PathBuf, is_long: bool) -> Self {
        let views = [asked[0].view(NAMES[0]), asked[1].view(NAMES[1])];
        let db = views.into_iter().fold(options.clone(), Options::view).open(&dir).unwrap();
        for (asked, name) in asked.iter().zip(NAMES) {
            db.set_policy(asked.policy(name, asked.n)).unwrap();
        }
        let limiters = NAMES.map(|name| db.limiter(name).unwrap());
        let (limits, held) = (HashMap::new(), Vec::new());
        Side { asked, options, is_long, dir, db, limiters, limits, held }
    }

    fn reopen(&mut self) {
        self.held.clear();
        self.limits.clear();
        self.db.close().unwrap();
        self.db = self.options.clone().open(&self.dir).unwrap();
        self.limiters = NAMES.map(|name| self.db.limiter(name).unwrap());
    }

    /// The limit of a key; `None`: the event has no such key.
    fn limit(&mut self, of: &Fact, second: bool) -> Option<Limit> {
        let at = usize::from(second);
        let (asked, db) = (&self.asked[at], &self.db);
        let key = of.key_of(asked.key)?;
        let limit = self.limits.entry((at, key.clone())).or_insert_with(|| {
            let series = db.query(NAMES[at]).unwrap().series(&key).unwrap();
            db.limit().at_most(&series, asked.n, asked.window).unwrap()
        });
        Some(limit.clone())
    }

    /// Asks one that goes the way of this side.
    fn ask(&mut self, of: Option<&Fact>, second: bool, fact: &Fact) -> quipu::Result<Verdict> {
        let event = fact.event();
        let longer = |limit: Limit| limit.only_if("always", || true)?.check_and_record(&event);
        if let Some(of) = of {
            return match self.limit(of, second) {
                Some(limit) if self.is_long => longer(limit),
                Some(limit) => limit.check_and_record(&event),
                None => Err(nothing()),
            };
        }
        let limiter = &self.limiters[usize::from(second)];
        if self.is_long { longer(limiter.of(&event)?) } else { limiter.check_and_record(&event) }
    }

    /// What a step gives, but for [`Step::Ask`] and those of the clock.
    fn step(&mut self, step: &Step, now: Timestamp) -> String {
        let outcome = match step {
            Step::Check(of, second, fact) => {
                let limit = match of {
                    Some(of) => self.limit(of, *second).ok_or_else(nothing),
                    None => self.limiters[usize::from(*second)].of(&fact.event()),
                };
                told(limit.and_then(|limit| Ok((limit.check_count(fact.times)?, limit.usage()?))))
            }
            Step::Record(fact, from_now) => {
                let at = Timestamp::from_micros(now.micros() + from_now * 1_000_000);
                let event = fact.event();
                told(self.db.record(&if *from_now == 0 { event } else { event.at(at) }))
            }
            Step::Batch(facts) => {
                let mut batch = self.db.batch();
                for fact in facts {
                    batch.push(&fact.event()).unwrap();
                }
                told(self.db.record_batch(&mut batch))
            }
            Step::Reserve(second, fact, lease) => {
                let limiter = &self.limiters[usize::from(*second)];
                let held = limiter.reserve(&fact.event(), secs(*lease));
                told(held.map(|held| {
                    held.map(|reservation| self.held.push((reservation, fact.clone())))
                }))
            }
            Step::Commit(n, other) if *n < self.held.len() => {
                let (reservation, fact) = self.held.remove(*n);
                told(reservation.commit(&other.as_ref().unwrap_or(&fact).event()))
            }
            Step::Cancel(n) if *n < self.held.len() => {
                self.held.remove(*n).0.cancel();
                String::new()
            }
            Step::Set(second, n) => {
                let at = usize::from(*second);
                told(self.db.set_policy(self.asked[at].policy(NAMES[at], *n)))
            }
            Step::Redefine(second, grains) => {
                let at = usize::from(*second);
                let asked = Asked { grains: *grains, ..self.asked[at].clone() };
                told(self.db.redefine(asked.view(NAMES[at]), |_| ControlFlow::Continue(())))
            }
            Step::Checkpoint => told(self.db.checkpoint()),
            Step::Reopen => {
                self.reopen();
                String::new()
            }
            _ => String::new(),
        };
        format!("{outcome}, then at {}", self.db.position())
    }

    /// What there is and what is counted; it is in the directory, as that is if this process dies, or closed.
    fn everything(&self, root: &Path, is_killed: bool) -> (There, Vec<[u64; 3]>, u64) {
        let image = root.join(if self.is_long { "long image" } else { "short image" });
        if is_killed {
            crash_image(&self.dir, &image);
        }
        let now = There::of(&self.db);
        let counted = (tallies(&self.db), self.db.statistics().late);
        if !is_killed {
            self.db.close().unwrap();
        }
        assert_eq!(There::views_in(if is_killed { &image } else { &self.dir }), now.views);
        (now, counted.0, counted.1)
    }
}

fn nothing() -> Error {
    Event::new("").check().unwrap_err()
}

/// What came of something, to be compared.
fn told<T: Debug>(outcome: quipu::Result<T>) -> String {
    format!("{:?}", outcome.map_err(|error| error.kind()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 216, ..ProptestConfig::default() })]

    /// Whatever happens in between.
    #[test]
    fn the_short_way_of_a_limit_says_and_leaves_what_the_long_way_does(
        asked in [asked(), asked()],
        dedup in prop::bool::weighted(0.2),
        // Of whom only one is asked limits ask one view.
        is_two in prop::bool::weighted(0.3),
        is_set_back in prop::bool::weighted(0.2),
        is_stored in prop::bool::weighted(0.3),
        is_killed in any::<bool>(),
        steps in steps(),
    ) {
        let root = tempfile::tempdir().unwrap();
        let clock = TestClock::at(Timestamp::from_secs(NOW));
        let dedup = if dedup { Dedup::Last(100) } else { Dedup::Off };
        let options = options().clock(clock.clone()).dedup(dedup);
        let options = options.view(View::new("everything").by(["event", "zone"]).stats("value"));
        let side = |name: &str, is_long| {
            Side::new(&asked, options.clone(), root.path().join(name), is_long)
        };
        let [mut short, mut long] = [side("short", false), side("long", true)];
        let mut retry = Duration::ZERO;
        for step in &steps {
            let now = clock.now();
            match step {
                Step::Ask(of, second, fact, often) => {
                    let second = *second && is_two;
                    for _ in 0..*often {
                        let [got, wanted] = [&mut short, &mut long]
                            .map(|side| side.ask(of.as_ref(), second, fact));
                        if let Ok(Verdict::Denied(denial)) = &got {
                            retry = denial.retry_after.unwrap_or(retry);
                        }
                        let [got, wanted] = [got, wanted].map(|it| it.map_err(|e| e.kind()));
                        prop_assert_eq!(got, wanted, "{:?}", step);
                    }
                }
                Step::Check(_, true, _) | Step::Reserve(true, ..) if !is_two => {}
                Step::SetBack(_) if !is_set_back => {}
                Step::Redefine(..) | Step::Checkpoint | Step::Reopen if !is_stored => {}
                Step::Advance(micros) => clock.advance(Duration::from_micros(*micros)),
                Step::Retry(beside) => {
                    let to = now.micros() + retry.as_micros() as i64 + beside;
                    clock.set(Timestamp::from_micros(to));
                }
                Step::SetBack(micros) => {
                    clock.set(now.saturating_sub(Duration::from_micros(*micros)));
                }
                step => {
                    let [got, wanted] = [&mut short, &mut long].map(|side| side.step(step, now));
                    prop_assert_eq!(got, wanted, "{:?}", step);
                }
            }
            prop_assert_eq!(short.db.position(), long.db.position(), "{:?}", step);
        }
        let everything = |side: &Side<'_>| side.everything(root.path(), is_killed);
        prop_assert_eq!(everything(&short), everything(&long));
    }
}
