//! Policies, and what limits must answer: from the calls that are in the log, and what was given back of
//! them, minute by minute. What was refused is nowhere; so what is left after a cut says all.

use crate::truth::{CALLS, Fact, Model, NOW, REFUNDS};
use quipu::{Constraint, Grain, Policy, Timestamp, Window};
use std::collections::BTreeMap;
use std::time::Duration;

/// How many policies there are to be set, some of them under the same name.
pub(crate) const POLICIES: usize = 4;
pub(crate) const NAMES: [&str; 3] = ["burst", "pause", "watch"];

const MINUTE: i64 = 60_000_000;

/// What somebody would do who is limited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// Of which policy, by its name.
    pub(crate) policy: usize,
    pub(crate) user: u8,
    pub(crate) times: u64,
    pub(crate) id: Option<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    /// At most so many in the last so many minutes.
    AtMost(u64, u32),
    /// The same, but what was given back.
    Net(u64, u32),
    /// None for so many minutes.
    Cooldown(u32),
}

fn rules(which: usize) -> &'static [Rule] {
    match which {
        0 => &[Rule::AtMost(5, 3)],
        1 => &[Rule::Net(8, 10)],
        2 => &[Rule::Cooldown(2), Rule::AtMost(12, 30)],
        _ => &[Rule::AtMost(1, 5)],
    }
}

/// Whether it refuses nothing.
fn is_shadow(which: usize) -> bool {
    which == 3
}

pub(crate) fn name(which: usize) -> &'static str {
    NAMES[which.saturating_sub(1)]
}

pub(crate) fn policy(which: usize) -> Policy {
    let at_most = |n, minutes| Constraint::at_most(n, Window::last(minutes, Grain::Minute));
    let policy = Policy::new(name(which)).shadow(is_shadow(which));
    rules(which).iter().fold(policy, |policy, rule| match *rule {
        Rule::AtMost(n, minutes) => policy.on("calls", at_most(n, minutes)),
        Rule::Net(n, minutes) => policy.on_net("calls", "refunds", at_most(n, minutes)),
        Rule::Cooldown(minutes) => policy.cooldown("calls", Duration::from_mins(minutes.into())),
    })
}

/// Whether something is given back to it: then both its views have the same buckets.
pub(crate) fn is_net(which: usize) -> bool {
    rules(which).iter().any(|rule| matches!(rule, Rule::Net(..)))
}

/// Whether it asks a view.
pub(crate) fn asks(which: usize, view: usize) -> bool {
    view == CALLS || view == REFUNDS && is_net(which)
}

/// The moment of this minute of the present.
fn moment(minute: u32) -> Timestamp {
    Timestamp::from_secs(NOW + i64::from(minute) * 60)
}

impl Call {
    /// One of the same user as all of these.
    pub(crate) fn plain(policy: usize) -> Self {
        Call { policy, user: 1, times: 1, id: None }
    }

    /// What is recorded where it is allowed.
    pub(crate) fn fact(&self, minute: u32) -> Fact {
        Fact {
            name: "call",
            user: Some(self.user),
            product: None,
            visitor: None,
            value: None,
            time: moment(minute),
            about: 0,
            times: self.times,
            id: self.id,
        }
    }

    pub(crate) fn is_allowed(&self, which: usize, model: &Model, minute: u32) -> bool {
        let holds = |(rule, used): (&Rule, u64)| match *rule {
            Rule::AtMost(n, _) | Rule::Net(n, _) => used + self.times <= n,
            Rule::Cooldown(_) => used == 0,
        };
        let used = used(which, model, self.user, minute);
        is_shadow(which) || rules(which).iter().zip(used).all(holds)
    }

    /// What is recorded when so much of what was used is given back, the newest first.
    pub(crate) fn given_back(&self, which: usize, model: &Model, minute: u32) -> Vec<Fact> {
        let Some(Rule::Net(_, minutes)) = rules(which).iter().find(|r| matches!(r, Rule::Net(..)))
        else {
            return Vec::new();
        };
        let last = facts(model, CALLS, self.user).map(|fact| fact.time.micros()).max();
        let (mut left, mut given) = (self.times, Vec::new());
        let used = net(model, self.user, true, *minutes, minute);
        for (number, count) in used.into_iter().rev().filter(|(_, count)| *count > 0) {
            let times = count.min(left);
            // By the latest moment at which it can have happened.
            let at = ((number + 1) * MINUTE - 1).min(last.expect("it was used"));
            let time = Timestamp::from_micros(at);
            if times > 0 {
                given.push(Fact { name: "refund", times, time, id: None, ..self.fact(minute) });
            }
            left -= times;
        }
        given
    }
}

/// How much of each rule of a policy a user has used.
pub(crate) fn used(
    which: usize,
    model: &Model,
    user: u8,
    minute: u32,
) -> impl Iterator<Item = u64> + '_ {
    rules(which).iter().map(move |rule| match *rule {
        Rule::AtMost(_, minutes) => net(model, user, false, minutes, minute).values().sum(),
        Rule::Net(_, minutes) => net(model, user, true, minutes, minute).values().sum(),
        Rule::Cooldown(minutes) => {
            let last = facts(model, CALLS, user).map(|fact| fact.time.micros()).max();
            let is_over = |last| last + i64::from(minutes) * MINUTE <= moment(minute).micros();
            u64::from(!last.is_none_or(is_over))
        }
    })
}

/// What counts in the last so many minutes, by the minute. What is ahead of now counts, too.
fn net(model: &Model, user: u8, is_net: bool, last: u32, minute: u32) -> BTreeMap<i64, u64> {
    let number = |time: Timestamp| time.micros().div_euclid(MINUTE);
    let first = number(moment(minute)) + 1 - i64::from(last);
    let mut counts = BTreeMap::new();
    for fact in facts(model, CALLS, user).filter(|fact| number(fact.time) >= first) {
        *counts.entry(number(fact.time)).or_default() += fact.times;
    }
    for fact in facts(model, REFUNDS, user).filter(|_| is_net) {
        let count = counts.entry(number(fact.time)).or_default();
        *count = u64::saturating_sub(*count, fact.times);
    }
    counts
}

/// The facts of a user that are in a view.
fn facts(model: &Model, view: usize, user: u8) -> impl Iterator<Item = &Fact> {
    let name = if view == CALLS { "call" } else { "refund" };
    let counted = model.defined.get(&view).map_or(&[][..], |from| &model.facts[*from..]);
    counted.iter().filter(move |fact| fact.name == name && fact.user == Some(user))
}
