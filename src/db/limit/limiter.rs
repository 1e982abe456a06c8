//! Policies as they are set, and asked: a limiter makes a limit of a policy and of an event's key.
//!
//! Invariants
//! 1. What is set is in the log before it is here. Policies are changed while the gate is closed, as views
//!    are: a checkpoint has those of its cut.
//! 2. A limiter goes by the policy of now: one that was replaced says so.

use super::asking::{Asking, Whose};
use super::denials::{Asker, Denials};
use super::short::Short;
use super::{Limit, Reservation};
use crate::db::Db;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Limits, abridged};
use crate::limit::{Asked, Denial, Question, Usage, Verdict, Whom, back, evenly};
use crate::log::stage::AREAS;
use crate::options::Durability;
use crate::policy::{Constraint, Policy, Rule};
use crate::query::{AskedKey, Even, Keyed, Query, check_kept};
use crate::record::Control;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicBool, AtomicU64};
use crate::sync::{RwLock, STRIPES, stripe};
use crate::time::{TimeZone, Timestamp};
use crate::versions::Versions;
use crate::view::View;
use crossbeam::utils::CachePadded;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

/// The policies of an engine, by name.
#[derive(Clone, Default)]
pub(in crate::db) struct Policies(BTreeMap<String, Arc<Active>>);

/// A policy that is set, and what came of it since the store was opened.
pub(super) struct Active {
    pub(super) policy: Policy,
    pub(super) tallies: Arc<Tallies>,
    /// Invariant 2.
    has_left: AtomicBool,
}

/// What came of a policy's questions, in parts that are added up by who reads them.
#[derive(Default)]
pub(super) struct Tallies {
    striped: [CachePadded<Outcomes>; STRIPES],
    /// Each is written under the lock of a lane of the gathered events.
    lanes: [CachePadded<Outcomes>; AREAS],
}

#[derive(Default)]
struct Outcomes {
    allowed: AtomicU64,
    denied: AtomicU64,
    near: AtomicU64,
}

impl Tallies {
    /// What this thread adds to.
    #[inline]
    fn mine(&self) -> &Outcomes {
        &self.striped[stripe()]
    }

    #[inline]
    pub(super) fn deny(&self) {
        self.mine().denied.fetch_add(1, Relaxed);
    }

    #[inline]
    pub(super) fn allow(&self, is_near: bool) {
        self.mine().allowed.fetch_add(1, Relaxed);
        if is_near {
            self.mine().near.fetch_add(1, Relaxed);
        }
    }

    /// [`allow`](Tallies::allow), under the lock of a lane of the gathered events.
    #[inline]
    pub(super) fn allow_in(&self, lane: usize, is_near: bool) {
        let add = |to: &AtomicU64, n: u64| to.store(to.load(Relaxed) + n, Relaxed);
        add(&self.lanes[lane].allowed, 1);
        if is_near {
            add(&self.lanes[lane].near, 1);
        }
    }

    fn sum(&self, of: impl Fn(&Outcomes) -> &AtomicU64) -> u64 {
        let all = self.striped.iter().chain(&self.lanes);
        all.map(|outcomes| of(outcomes).load(Relaxed)).sum()
    }
}

impl Policies {
    /// As many are named by an error.
    const NAMED: usize = 10;

    /// Those that a catalog has.
    pub(in crate::db) fn of(policies: &[Policy]) -> Self {
        let mut set = Policies::default();
        policies.iter().cloned().for_each(|policy| set.set(policy));
        set
    }

    /// Sets one, as it was checked.
    pub(in crate::db) fn set(&mut self, policy: Policy) {
        let before = self.0.get(policy.name());
        let tallies = before.map(|before| before.tallies.clone()).unwrap_or_default();
        if let Some(before) = before {
            before.has_left.store(true, Release);
        }
        let name = policy.name().to_owned();
        self.0.insert(name, Arc::new(Active { policy, tallies, has_left: AtomicBool::new(false) }));
    }

    pub(in crate::db) fn remove(&mut self, name: &str) {
        if let Some(active) = self.0.remove(name) {
            active.has_left.store(true, Release);
        }
    }

    /// All of them, by name.
    pub(in crate::db) fn all(&self) -> Vec<Policy> {
        self.0.values().map(|active| active.policy.clone()).collect()
    }

    /// All of them, by name, and what came of them.
    pub(in crate::db) fn status(&self) -> Vec<PolicyStatus> {
        let status = |active: &Arc<Active>| PolicyStatus {
            policy: active.policy.clone(),
            allowed: active.tallies.sum(|outcomes| &outcomes.allowed),
            denied: active.tallies.sum(|outcomes| &outcomes.denied),
            near: active.tallies.sum(|outcomes| &outcomes.near),
        };
        self.0.values().map(status).collect()
    }

    /// The name of one that asks this view.
    pub(in crate::db) fn asking(&self, view: &str) -> Option<String> {
        let asks = |rule: &Rule| rule.view() == Some(view) || rule.refunds() == Some(view);
        let asking = self.0.values().find(|active| active.policy.rules().iter().any(asks));
        asking.map(|active| active.policy.name().to_owned())
    }

    /// Checks that the policies could be asked if a view had another definition.
    ///
    /// # Errors
    /// `Invalid`, naming the policy that could not.
    pub(in crate::db) fn check_redefined(
        &self,
        before: &View,
        view: &View,
        zone: TimeZone,
        now: Timestamp,
    ) -> Result<()> {
        let asks = |rule: &&Rule| [rule.view(), rule.refunds()].contains(&Some(view.name()));
        for active in self.0.values() {
            for rule in active.policy.rules().iter().filter(asks) {
                let refuse = |why: String| {
                    let name = active.policy.name();
                    let which = format!("the policy {name:?} asks the view {:?}", view.name());
                    Err(Error::invalid(format!(
                        "{which}: {why}; change or remove the policy first"
                    )))
                };
                if view.key() != before.key() {
                    return refuse(format!("its key is to be {}", before.key().join(", ")));
                }
                if rule.refunds().is_some() && view.grains() != before.grains() {
                    return refuse(
                        "what is used and what is given back keep the same buckets".into(),
                    );
                }
                if let Some(back) = back(rule.constraint())
                    && let Err(error) = check_kept(view, zone, back, now)
                {
                    return refuse(error.message().to_owned());
                }
            }
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Result<Arc<Active>> {
        self.0.get(name).cloned().ok_or_else(|| {
            let mut names: Vec<String> =
                self.0.keys().take(Self::NAMED).map(|name| abridged(name)).collect();
            if self.0.len() > names.len() {
                names.push(format!("and {} more", self.0.len() - names.len()));
            }
            let there = match names.as_slice() {
                [] => "none is set".to_owned(),
                names => format!("there are: {}", names.join(", ")),
            };
            let message = format!("there is no policy {}; {there}", abridged(name));
            Error::new(ErrorKind::UnknownPolicy, message)
        })
    }
}

/// A policy as it stands ([`Db::policies`]).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyStatus {
    /// What it says.
    pub policy: Policy,
    /// How often [`Limiter::check_and_record`] and [`Limiter::reserve`] allowed something since the store
    /// was opened.
    pub allowed: u64,
    /// How often they denied it, or, of a policy that refuses nothing, would have.
    pub denied: u64,
    /// How often what they allowed was near a limit ([`Policy::near`]).
    pub near: u64,
}

impl Db {
    /// Sets a policy, in place of the one that has its name. Limiters go by the new one from now on; what
    /// was used is what it was. `false`: it was set so already.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, Policy, View};
    /// use std::time::Duration;
    ///
    /// let db = Options::new().view(View::counters()).open(dir.path().join("app"))?;
    /// let policy = Policy::new("resets").cooldown("counters", Duration::from_hours(1));
    /// assert!(db.set_policy(policy.clone())?);
    /// assert!(!db.set_policy(policy)?);
    /// assert_eq!(db.policies()?[0].policy.name(), "resets");
    /// assert!(db.remove_policy("resets")?);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid` for one that means nothing; `UnknownView` for a view that there is not; `NotKept` for a
    /// view that keeps no buckets for its windows; as [`Db::define`].
    pub fn set_policy(&self, policy: Policy) -> Result<bool> {
        policy.check()?;
        let engine = self.engine();
        policy.rules().iter().try_for_each(|rule| self.bind(rule, &policy).map(drop))?;
        let mut live = engine.close_gate()?;
        let before = live.policies.get(policy.name()).ok();
        if before.as_ref().is_some_and(|before| before.policy == policy) {
            return Ok(false);
        }
        if before.is_none() && live.policies.0.len() >= Limits::POLICIES {
            let most = Limits::POLICIES;
            return Err(Error::invalid(format!("a directory has at most {most} policies")));
        }
        for rule in policy.rules() {
            // It may have been dropped a moment ago.
            for view in rule.view().into_iter().chain(rule.refunds()) {
                if live.named(view).is_none() {
                    return Err(engine.unknown_view(view));
                }
            }
        }
        let position = engine.append_control(&Control::PolicySet { policy: policy.clone() })?;
        live.policies.set(policy);
        drop(live);
        engine.acknowledge(position, engine.options.durability)?;
        Ok(true)
    }

    /// Removes a policy; its limiters then fail. `false`: there was none. What was used stays in the views.
    ///
    /// # Errors
    /// As [`Db::define`].
    pub fn remove_policy(&self, name: &str) -> Result<bool> {
        let engine = self.engine();
        let mut live = engine.close_gate()?;
        if live.policies.get(name).is_err() {
            return Ok(false);
        }
        let position = engine.append_control(&Control::PolicyRemoved { name: name.to_owned() })?;
        live.policies.remove(name);
        drop(live);
        engine.acknowledge(position, engine.options.durability)?;
        Ok(true)
    }

    /// The policies that are set, by name, and what came of them.
    ///
    /// # Errors
    /// `Closed` when the engine is closed.
    pub fn policies(&self) -> Result<Vec<PolicyStatus>> {
        Ok(self.engine().enter()?.policies.status())
    }

    /// What enforces a policy.
    ///
    /// # Errors
    /// `UnknownPolicy`; `UnknownView` where a view that it asks was dropped.
    pub fn limiter(&self, policy: &str) -> Result<Limiter> {
        let engine = self.engine();
        let active = engine.enter()?.policies.get(policy)?;
        let bound = self.bind_all(active)?;
        Ok(Limiter { db: self.clone(), made: Arc::new(bound), renewed: Arc::default() })
    }

    fn bind_all(&self, active: Arc<Active>) -> Result<Bound> {
        let rules = active.policy.rules().iter().map(|rule| self.bind(rule, &active.policy));
        Ok(Bound { rules: rules.collect::<Result<_>>()?, active, denials: Denials::new() })
    }

    fn bind(&self, rule: &Rule, policy: &Policy) -> Result<BoundRule> {
        let engine = self.engine();
        let of = |error: Error| error.about(&format!("policy {:?}", policy.name()));
        let query = |view: Option<&str>| view.map(|view| self.query(view)).transpose().map_err(of);
        let (query, refunds) = (query(rule.view())?, query(rule.refunds())?);
        if let Some(query) = &query {
            let now = engine.options.clock.now_roughly();
            if let Some(back) = back(rule.constraint()) {
                query.check_back(back, now).map_err(of)?;
            }
            if let Some(refunds) = &refunds {
                Asked::check_refunds(rule.constraint(), query, refunds).map_err(of)?;
                if refunds.view().key() != query.view().key() {
                    return Err(of(Error::invalid(format!(
                        "the view {:?} of what is given back has another key than {:?}: {} and {}",
                        refunds.view().name(),
                        query.view().name(),
                        refunds.view().key().join(", "),
                        query.view().key().join(", "),
                    ))));
                }
            }
        }
        let constraint = rule.constraint().clone().in_zone(engine.zone());
        let even = query.as_ref().and_then(|query| evenly(&constraint, query));
        let constraints = std::array::from_fn(|_| Arc::new(constraint.clone()));
        let part = query.as_ref().and_then(|query| match query.view().key() {
            [part] => Some(part.clone()),
            _ => None,
        });
        let versions = query.as_ref().map(|query| query.versions().clone());
        Ok(BoundRule { constraints, query, refunds, even, part, versions })
    }
}

/// Enforces a [`Policy`] for whatever key an event has: what [`Db::limiter`] gives. It can be kept, and
/// goes by the policy of now when that is changed.
#[derive(Clone)]
pub struct Limiter {
    db: Db,
    made: Arc<Bound>,
    /// In place of it, where the policy was changed since.
    renewed: Arc<RwLock<Option<Arc<Bound>>>>,
}

/// A policy with the views that it asks.
struct Bound {
    active: Arc<Active>,
    rules: SmallVec<[BoundRule; 2]>,
    denials: Denials,
}

pub(super) struct BoundRule {
    /// All the same: who is denied gets one, and threads that are denied need not count the owners of the
    /// same one.
    constraints: [Arc<Constraint>; STRIPES],
    query: Option<Query>,
    refunds: Option<Query>,
    even: Option<Even>,
    /// Where the view's key is of one part: which.
    part: Option<String>,
    /// Of the view's series.
    versions: Option<Arc<Versions>>,
}

impl Limiter {
    /// The limit of this event's key by the policy of now, to be given more constraints. It stays as it is when
    /// the policy is changed. Of a policy that refuses nothing it refuses nothing either, but for what
    /// [`Limit::only_if`] says.
    ///
    /// # Errors
    /// `Invalid` for an event without a dimension of a view's key; `UnknownPolicy` when the policy was
    /// removed, `UnknownView` when a view was dropped.
    pub fn of(&self, event: &Event<'_>) -> Result<Limit> {
        let bound = self.current()?;
        let series = |query: &Query| bound.key(query, event).map(|key| query.series_of_key(key));
        let mut asked = SmallVec::new();
        for rule in &bound.rules {
            let BoundRule { query, refunds, even, .. } = rule;
            let whom = match query {
                None => Whom::Calendar,
                Some(query) => Whom::Series {
                    series: series(query)?,
                    refunds: refunds.as_ref().map(series).transpose()?.map(Box::new),
                },
            };
            asked.push(Asked { constraint: rule.constraint().clone(), whom, even: *even });
        }
        Ok(Limit { db: self.db.clone(), asked, policy: Some(bound.active.clone()) })
    }

    /// Asks for the key of this event. Nothing that threads share is written for it.
    #[inline]
    fn ask<R>(&self, event: &Event<'_>, ask: impl FnOnce(Asking<'_>) -> Result<R>) -> Result<R> {
        let bound = self.current()?;
        let policy = Some(&bound.active);
        let asking =
            |keys| Asking { db: &self.db, whose: Whose::Limiter(&bound.rules, keys), policy };
        if let [BoundRule { query: Some(query), .. }] = &*bound.rules {
            return ask(asking(&[bound.key(query, event)?]));
        }
        let key = |rule: &BoundRule| match &rule.query {
            Some(query) => bound.key(query, event),
            None => Ok(AskedKey::NONE),
        };
        let keys = bound.rules.iter().map(key).collect::<Result<SmallVec<[_; 4]>>>()?;
        ask(asking(&keys))
    }

    /// The policy of now, and its views.
    #[inline]
    fn current(&self) -> Result<Current<'_>> {
        if self.made.active.has_left.load(Acquire) {
            self.renewed().map(Current::Renewed)
        } else {
            Ok(Current::Made(&self.made))
        }
    }

    #[cold]
    fn renewed(&self) -> Result<Arc<Bound>> {
        let known = self.renewed.read().clone();
        if let Some(bound) = known.filter(|bound| !bound.active.has_left.load(Acquire)) {
            return Ok(bound);
        }
        let active = self.db.engine().enter()?.policies.get(self.made.active.policy.name())?;
        let bound = Arc::new(self.db.bind_all(active)?);
        *self.renewed.write() = Some(bound.clone());
        Ok(bound)
    }

    /// The policy, as it is now.
    ///
    /// # Errors
    /// `UnknownPolicy` when it was removed.
    pub fn policy(&self) -> Result<Policy> {
        let name = self.made.active.policy.name();
        Ok(self.db.engine().enter()?.policies.get(name)?.policy.clone())
    }

    /// Whether the event may happen now. See [`Limit::check`].
    ///
    /// # Errors
    /// As there, and as [`Limiter::of`].
    pub fn check(&self, event: &Event<'_>) -> Result<Verdict> {
        event.check()?;
        self.ask(event, |asking| asking.check(event.count()))
    }

    /// Records the event if it may happen now. See [`Limit::check_and_record`].
    ///
    /// # Errors
    /// As there, and as [`Limiter::of`].
    pub fn check_and_record(&self, event: &Event<'_>) -> Result<Verdict> {
        self.check_and_record_with(event, self.db.engine().options.durability)
    }

    /// The same at a durability of its own. See [`Limit::check_and_record_with`].
    ///
    /// # Errors
    /// As there, and as [`Limiter::of`].
    pub fn check_and_record_with(
        &self,
        event: &Event<'_>,
        durability: Durability,
    ) -> Result<Verdict> {
        let otherwise = || self.ask(event, |asking| asking.check_and_record(event, durability));
        match self.current()? {
            Current::Made(bound) => bound.decide(&self.db, event, durability, &otherwise),
            Current::Renewed(bound) => bound.decide(&self.db, event, durability, &otherwise),
        }
    }

    /// How much is used of each constraint, for the key of this event. See [`Limit::usage`].
    ///
    /// # Errors
    /// As there, and as [`Limiter::of`].
    pub fn usage(&self, event: &Event<'_>) -> Result<Vec<Usage>> {
        self.ask(event, |asking| asking.usage())
    }

    /// Reserves what the event counts for. See [`Limit::reserve`].
    ///
    /// # Errors
    /// As there, and as [`Limiter::of`].
    pub fn reserve(
        &self,
        event: &Event<'_>,
        lease: Duration,
    ) -> Result<std::result::Result<Reservation, Denial>> {
        self.of(event)?.reserve(event.count(), lease)
    }

    /// Gives back what was used, the newest first. See [`Limit::refund`]. The event is the one that gives
    /// back, and has the key.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Constraint, Event, Grain, Keep, Options, Policy, View, Window};
    ///
    /// let view = |name, event| {
    ///     View::new(name).by(["user"]).only_events([event]).grain(Grain::Day, Keep::Last(31))
    /// };
    /// let options = Options::new().view(view("exports", "export")).view(view("refunds", "refund"));
    /// let db = options.open(dir.path().join("app"))?;
    /// let monthly = Constraint::at_most(100, Window::last(30, Grain::Day));
    /// db.set_policy(Policy::new("exports").on_net("exports", "refunds", monthly))?;
    ///
    /// let exports = db.limiter("exports")?;
    /// let of_ann = |event| Event::new(event).dim("user", "ann");
    /// exports.check_and_record(&of_ann("export").times(5))?;
    /// assert_eq!(exports.refund(&of_ann("refund").times(2))?, 2);
    /// assert_eq!(exports.usage(&of_ann("export"))?[0].used, 3);
    /// assert_eq!(exports.reset(&of_ann("refund"))?, 3);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there, and as [`Limiter::of`].
    pub fn refund(&self, event: &Event<'_>) -> Result<u64> {
        self.of(event)?.refund(event)
    }

    /// Gives back all that is used. See [`Limit::reset`].
    ///
    /// # Errors
    /// As there, and as [`Limiter::of`].
    pub fn reset(&self, event: &Event<'_>) -> Result<u64> {
        self.of(event)?.reset(event)
    }
}

/// The policy that a limiter goes by.
enum Current<'a> {
    Made(&'a Bound),
    Renewed(Arc<Bound>),
}

impl Deref for Current<'_> {
    type Target = Bound;

    fn deref(&self) -> &Bound {
        match self {
            Current::Made(bound) => bound,
            Current::Renewed(bound) => bound,
        }
    }
}

impl BoundRule {
    #[inline]
    fn constraint(&self) -> &Arc<Constraint> {
        &self.constraints[stripe()]
    }

    /// How it is asked of a key, which the view of what is given back has, too.
    #[inline]
    pub(super) fn question<'a>(&'a self, key: &'a [AskedKey]) -> Question<'a> {
        let of = |query| Keyed::new(query, key);
        Question {
            constraint: self.constraint(),
            series: self.query.as_ref().map(of),
            refunds: self.refunds.as_ref().map(of),
            even: self.even.as_ref(),
        }
    }
}

impl Bound {
    /// Records an event if it may happen now, by the [short way](Short::decide) where there is one.
    #[inline]
    fn decide(
        &self,
        db: &Db,
        event: &Event<'_>,
        durability: Durability,
        otherwise: &impl Fn() -> Result<Verdict>,
    ) -> Result<Verdict> {
        let [rule] = self.rules.as_slice() else { return otherwise() };
        let (Some(query), None, Some(even)) = (&rule.query, &rule.refunds, &rule.even) else {
            return otherwise();
        };
        let Some(part) = rule.part.as_ref().and_then(|part| event.part(part)) else {
            return otherwise();
        };
        if event.time.is_some() || !event.is_plainly_valid() {
            return otherwise();
        }
        let asker = Asker { denials: &self.denials, text: part };
        if let Some(verdict) = self.deny_again(db, rule, asker, event.count()) {
            return Ok(verdict);
        }
        let engine = db.engine();
        let near = engine.dictionary.near(part);
        let now = engine.now();
        let Some(sym) = engine.dictionary.find_near(near, part) else { return otherwise() };
        let key = AskedKey::One(sym);
        let (constraint, series) = (rule.constraint(), Keyed::new(query, slice::from_ref(&key)));
        let (policy, asker) = (Some(&self.active), Some(asker));
        let short = Short { db, constraint, series, even, policy, asker };
        short.decide(event, (now, durability), otherwise)
    }

    /// Denies what was denied before, where that is the answer still (`db/limit/denials.rs`).
    #[inline]
    fn deny_again(
        &self,
        db: &Db,
        rule: &BoundRule,
        asker: Asker<'_>,
        cost: u64,
    ) -> Option<Verdict> {
        let engine = db.engine();
        let limits = &engine.limits;
        if limits.has_held() || engine.check_open().is_err() {
            return None;
        }
        let denied = asker.recall(cost, rule.versions.as_ref()?)?;
        let now = engine.now();
        if limits.steady(now) > now {
            return None;
        }
        let constraint = rule.constraint();
        let plain = denied.at(now, constraint.limit())?;
        self.active.tallies.deny();
        Some(Verdict::Denied(plain.denial(constraint, now)))
    }

    /// The event's key in a view.
    #[inline]
    fn key(&self, query: &Query, event: &Event<'_>) -> Result<AskedKey> {
        if let [part] = query.view().key()
            && let Some(value) = event.part(part)
        {
            return query.key(&[value]);
        }
        let mut key = SmallVec::<[&str; 4]>::new();
        for part in query.view().key() {
            match event.part(part) {
                Some(value) => key.push(value),
                None => return Err(self.no_such_part(part, query, event)),
            }
        }
        query.key(&key)
    }

    #[cold]
    fn no_such_part(&self, part: &str, query: &Query, event: &Event<'_>) -> Error {
        let name = self.active.policy.name();
        let view = query.view().name();
        Error::invalid(format!(
            "the policy {name:?} counts by {part:?} (view {view:?}), which the event {} does not have",
            abridged(event.name)
        ))
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Limiter").field(&self.made.active.policy.name()).finish()
    }
}
