//! Policies: constraints under a name, of whatever key an event has, as the catalog keeps them.
//!
//! Invariants
//! 1. A policy holds no usage: what was used is in the views that it asks. So it can be changed, removed
//!    and set again, and everybody's usage is what it was.
//! 2. What [`Policy::check`] passed is stored as it is; views are looked for when it is set, and when it is
//!    asked.

mod constraint;
mod text;
mod window;

pub(crate) use constraint::Bound;
pub use constraint::Constraint;
pub(crate) use window::Kind;
pub use window::Window;

use crate::error::{Error, Result};
use crate::event::{Limits, abridged};
use crate::time::Schedule;
use std::time::Duration;

/// Constraints under a name, kept in the store ([`Db::set_policy`](crate::Db::set_policy)) and changed
/// while it runs. They are of views, and the event that is asked about has the key: with a view by `user`,
/// each user is limited by itself, whoever comes.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{Event, Grain, Keep, Options, Policy, TestClock, Timestamp, View, Window};
/// use std::time::Duration;
///
/// let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
/// let calls = View::new("calls")
///     .by(["key"])
///     .only_events(["call"])
///     .grain(Grain::Second, Keep::Last(61))
///     .grain(Grain::Day, Keep::Last(1));
/// let db = Options::new().clock(clock).view(calls).open(dir.path().join("api"))?;
/// db.set_policy(
///     Policy::new("free")
///         .at_most("calls", 2, Window::rolling(Duration::from_mins(1)))
///         .at_most("calls", 1_000, Window::fixed(Grain::Day)),
/// )?;
///
/// let free = db.limiter("free")?;
/// let call = |key| Event::new("call").dim("key", key);
/// assert!(free.check_and_record(&call("alice"))?.is_allowed());
/// assert!(free.check_and_record(&call("alice"))?.is_allowed());
/// assert!(!free.check_and_record(&call("alice"))?.is_allowed());
/// assert!(free.check_and_record(&call("bob"))?.is_allowed());
///
/// // Three a minute from now on; the two that alice had count.
/// db.set_policy(Policy::new("free").at_most("calls", 3, Window::rolling(Duration::from_mins(1))))?;
/// assert!(free.check_and_record(&call("alice"))?.is_allowed());
/// assert!(!free.check_and_record(&call("alice"))?.is_allowed());
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
pub struct Policy {
    name: String,
    rules: Vec<Rule>,
    is_shadow: bool,
    /// In percent of a limit.
    near: u8,
}

/// A constraint of a policy, and the view that it asks.
///
/// ```
/// use quipu::{Policy, Rule};
///
/// let rule: Rule = "calls: at most 100 in any 60s".parse()?;
/// assert_eq!(rule.view(), Some("calls"));
/// assert_eq!(rule.to_string(), "calls: at most 100 in any 1m");
/// let policy = Policy::new("free").rule(rule).rule("only mon-fri 08:00-20:00".parse()?);
/// assert_eq!(policy.rules().len(), 2);
///
/// let error = "calls: at most 100 per fortnight".parse::<Rule>().unwrap_err();
/// assert!(error.to_string().contains("grains are second, minute, hour, day"));
/// # Ok::<(), quipu::Error>(())
/// ```
///
/// # As text
///
/// [`Display`](std::fmt::Display) writes and `FromStr` reads the form in which a rule is written on a
/// command line. A [`Constraint`] is a rule without views, a [`Window`] the end of one.
///
/// ```text
/// rule     = [ name "=" ] view [ "but" view ] ":" counted     of what was used, but what was given back
///          | [ name "=" ] calendar
/// counted  = "at most" n window  |  "at least" n window  |  "none for" length  |  "one in the last" length
/// window   = "in any" length                 rolling           at most 100 in any 60s
///          | "per" grain                     fixed             at most 10000 per day
///          | "in the last" n grains          last              at least 3 in the last 7 days
///          | "at once, then" n "in each" length    gcra        at most 20 at once, then 10 in each 1s
/// calendar = "only" schedule  |  "not" schedule                only mon-fri 08:00-20:00
/// ```
///
/// Lengths are those of [`Length`](crate::Length), grains those of [`Grain`](crate::Grain), schedules
/// those of [`Schedule`]. Names that are not of letters, digits and `_-./#@+` alone, or
/// that are `only`, `not` or `but`, stand in double quotes, as text does in Rust. Also read are capitals
/// in words, and `in 7 days` for `in the last 7 days`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
pub struct Rule {
    constraint: Constraint,
    view: Option<String>,
    refunds: Option<String>,
}

impl Rule {
    fn of_view(view: String, refunds: Option<String>, constraint: Constraint) -> Self {
        Rule { constraint, view: Some(view), refunds }
    }

    fn of_calendar(constraint: Constraint) -> Self {
        Rule { constraint, view: None, refunds: None }
    }

    /// The constraint.
    pub fn constraint(&self) -> &Constraint {
        &self.constraint
    }

    /// The view that it asks; none of the calendar.
    pub fn view(&self) -> Option<&str> {
        self.view.as_deref()
    }

    /// The view of what was given back, where there is one.
    pub fn refunds(&self) -> Option<&str> {
        self.refunds.as_deref()
    }

    /// Checks that it means something, by itself.
    ///
    /// # Errors
    /// `Invalid`.
    fn check(&self) -> Result<()> {
        self.constraint.check()?;
        let words = &self.constraint.bound;
        let refuse = |what: String| Err(Error::invalid(what));
        for name in self.view.iter().chain(&self.refunds) {
            if name.is_empty() {
                return refuse(format!("the view that is asked \"{words}\" has no name"));
            }
        }
        let is_of_calendar = self.constraint.is_of_calendar();
        if is_of_calendar && self.view.is_some() {
            return refuse(format!("\"{words}\" is of the calendar, and asks no view"));
        }
        if self.constraint.is_said() || !is_of_calendar && self.view.is_none() {
            return refuse(format!("\"{words}\" has no view to ask"));
        }
        if self.refunds.is_some() && self.refunds == self.view {
            return refuse(format!("\"{words}\" counts and gives back by the same view"));
        }
        if self.refunds.is_some() && !self.constraint.takes_back() {
            return refuse(format!("nothing is given back to \"{words}\""));
        }
        Ok(())
    }
}

impl Policy {
    /// Constraints of a policy at most.
    pub const RULES_MAX: usize = 16;

    /// A policy that allows everything; add constraints.
    pub fn new(name: impl Into<String>) -> Self {
        Policy { name: name.into(), rules: Vec::new(), is_shadow: false, near: 80 }
    }

    /// Adds a constraint on a view, for the key that the event has there.
    pub fn on(self, view: impl Into<String>, constraint: Constraint) -> Self {
        self.rule(Rule::of_view(view.into(), None, constraint))
    }

    /// The same, net of what was given back: events of the view `refunds`, which has the same key and
    /// keeps the same buckets. See [`Limiter::refund`](crate::Limiter::refund).
    pub fn on_net(
        self,
        view: impl Into<String>,
        refunds: impl Into<String>,
        constraint: Constraint,
    ) -> Self {
        self.rule(Rule::of_view(view.into(), Some(refunds.into()), constraint))
    }

    /// At most `n` events of a view in a window.
    pub fn at_most(self, view: impl Into<String>, n: u64, window: Window) -> Self {
        self.on(view, Constraint::at_most(n, window))
    }

    /// Not before there were at least `n` events of a view in a window.
    pub fn at_least(self, view: impl Into<String>, n: u64, window: Window) -> Self {
        self.on(view, Constraint::at_least(n, window))
    }

    /// Not before the last event of a view is so long ago.
    pub fn cooldown(self, view: impl Into<String>, length: Duration) -> Self {
        self.on(view, Constraint::cooldown(length))
    }

    /// Only while the last event of a view is less than so long ago.
    pub fn within(self, view: impl Into<String>, length: Duration) -> Self {
        self.on(view, Constraint::within(length))
    }

    /// Only while a schedule is open; one without a time zone is in the store's.
    pub fn during(self, schedule: Schedule) -> Self {
        self.of_calendar(Constraint::during(schedule))
    }

    /// Only while a schedule is closed.
    pub fn outside_of(self, schedule: Schedule) -> Self {
        self.of_calendar(Constraint::outside_of(schedule))
    }

    /// Adds a constraint that asks no view.
    pub fn of_calendar(self, constraint: Constraint) -> Self {
        self.rule(Rule::of_calendar(constraint))
    }

    /// Adds a rule: one that was read from text, say.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Makes it refuse nothing, and count what it would have refused
    /// ([`PolicyStatus::denied`](crate::PolicyStatus)): to try a limit on real traffic.
    pub fn shadow(mut self, is_shadow: bool) -> Self {
        self.is_shadow = is_shadow;
        self
    }

    /// From how much of a limit on something is counted as near it, in percent; 80 if nothing is said.
    pub fn near(mut self, percent: u8) -> Self {
        self.near = percent;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its constraints, in the order in which they were added.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether it refuses nothing.
    pub fn is_shadow(&self) -> bool {
        self.is_shadow
    }

    /// From how much of a limit on something is near it, in percent.
    pub fn near_percent(&self) -> u8 {
        self.near
    }

    /// Whether so many of `limit` are near it.
    pub(crate) fn is_near(&self, used: u64, limit: u64) -> bool {
        u128::from(used) * 100 > u128::from(limit) * u128::from(self.near)
    }

    /// Checks that it means something, by itself.
    ///
    /// # Errors
    /// `Invalid`.
    pub(crate) fn check(&self) -> Result<()> {
        let named = |name: &str| !name.is_empty() && name.len() <= Limits::NAME_BYTES;
        if !named(&self.name) {
            return Err(Error::invalid(format!(
                "a policy's name has 1 to {} bytes, {} has {}",
                Limits::NAME_BYTES,
                abridged(&self.name),
                self.name.len()
            )));
        }
        let refuse = |what: String| Err(Error::invalid(format!("policy {:?}: {what}", self.name)));
        if self.rules.is_empty() {
            return refuse("it has no constraint, and would allow everything; add one".to_owned());
        }
        if self.rules.len() > Self::RULES_MAX {
            return refuse(format!(
                "it has {} constraints; there are {} at most",
                self.rules.len(),
                Self::RULES_MAX
            ));
        }
        if self.near == 0 || self.near > 100 {
            return refuse(format!("near a limit is 1 to 100 percent of it, not {}", self.near));
        }
        let mut names: Vec<&str> = Vec::new();
        for rule in &self.rules {
            if let Err(error) = rule.check() {
                return refuse(error.message().to_owned());
            }
            if let Some(name) = rule.constraint.name() {
                if names.contains(&name) {
                    return refuse(format!("two of its constraints are called {name:?}"));
                }
                names.push(name);
            }
        }
        Ok(())
    }
}
