//! Policies as they are set and asked in a run.

use super::{History, Record, Run, refused};
use crate::limits::{self, Call};
use crate::truth::{CALLS, REFUNDS, view};
use quipu::{Durability, Error, ErrorKind, Event, Limiter, Policy, ViewStatus};

/// Compares the policies that are set with those that were.
pub(super) fn check_policies(history: &History, there: &[Policy]) {
    let set: Vec<_> = history.policies().into_values().map(limits::policy).collect();
    assert_eq!(there, set, "the policies that are set");
}

impl Run<'_> {
    pub(super) fn set_policy(&mut self, which: usize) -> Result<usize, Error> {
        let set = self.engine().db().set_policy(limits::policy(which));
        let views = self.history.views();
        let asked: Vec<_> =
            [CALLS, REFUNDS].into_iter().filter(|v| limits::asks(which, *v)).collect();
        if asked.iter().any(|view| !views.contains_key(view)) {
            return refused(set, ErrorKind::UnknownView).map(|()| 0);
        }
        // Two are asked of one that is net; their buckets are the same where their definitions are.
        if asked.windows(2).any(|two| views[&two[0]].definition != views[&two[1]].definition) {
            return refused(set, ErrorKind::Invalid).map(|()| 0);
        }
        let is_new = self.history.policies().get(limits::name(which)) != Some(&which);
        let chunk = if is_new { vec![Record::SetPolicy(which)] } else { Vec::new() };
        self.settle(chunk, &set);
        assert_eq!(set?, is_new);
        Ok(if is_new { self.acknowledged(self.setup.durability) } else { 0 })
    }

    pub(super) fn remove_policy(&mut self, name: usize) -> Result<usize, Error> {
        let there = self.history.policies().contains_key(limits::NAMES[name]);
        let chunk = if there { vec![Record::RemovePolicy(name)] } else { Vec::new() };
        let removed = self.engine().db().remove_policy(limits::NAMES[name]);
        self.settle(chunk, &removed);
        assert_eq!(removed?, there);
        Ok(if there { self.acknowledged(self.setup.durability) } else { 0 })
    }

    /// The policy that is asked, where it is set and can be: what is filled has no answers meanwhile.
    fn limited(&self, call: &Call) -> Result<Option<(usize, Limiter)>, Error> {
        let db = self.engine().db();
        let name = limits::NAMES[call.policy];
        let Some(which) = self.history.policies().get(name).copied() else {
            refused(db.limiter(name).map(drop), ErrorKind::UnknownPolicy)?;
            return Ok(None);
        };
        let is_filling = |status: &ViewStatus| {
            let asked = [CALLS, REFUNDS].map(|of| view(of).name().to_owned());
            status.backfill.is_some() && asked.contains(&status.view.name().to_owned())
        };
        if db.views()?.iter().any(is_filling) {
            return Ok(None);
        }
        Ok(Some((which, db.limiter(name)?)))
    }

    pub(super) fn check_and_record(
        &mut self,
        call: &Call,
        level: Durability,
    ) -> Result<usize, Error> {
        let Some((which, limiter)) = self.limited(call)? else { return Ok(0) };
        let (user, id) = (format!("u{}", call.user), call.id.map(|id| format!("id{id}")));
        let mut event = Event::new("call").dim("user", &user).times(call.times);
        if let Some(id) = &id {
            event = event.id(id);
        }
        let (minute, model) = (self.mark.minute, self.history.model());
        let is_allowed = call.is_allowed(which, &model, minute);
        // One that is a duplicate is judged all the same.
        let chunk = if is_allowed { self.fresh(&[call.fact(minute)]) } else { Vec::new() };
        let is_recorded = !chunk.is_empty();
        let verdict = limiter.check_and_record_with(&event, level);
        if let Ok(verdict) = &verdict {
            assert_eq!(verdict.is_allowed(), is_allowed, "{verdict:?}");
        }
        self.settle(chunk, &verdict);
        _ = verdict?;
        self.check_usage(which, &limiter, &[call.user])?;
        Ok(if is_recorded { self.acknowledged(level) } else { 0 })
    }

    pub(super) fn refund(&mut self, call: &Call) -> Result<usize, Error> {
        let Some((which, limiter)) = self.limited(call)? else { return Ok(0) };
        let user = format!("u{}", call.user);
        let given = limiter.refund(&Event::new("refund").dim("user", &user).times(call.times));
        if !limits::is_net(which) {
            return refused(given, ErrorKind::Invalid).map(|()| 0);
        }
        let minute = self.mark.minute;
        let facts = call.given_back(which, &self.history.model(), minute);
        let count: u64 = facts.iter().map(|fact| fact.times).sum();
        let chunk = facts.into_iter().map(|fact| Record::Fact(fact, minute)).collect();
        self.settle(chunk, &given);
        assert_eq!(given?, count, "given back");
        self.check_usage(which, &limiter, &[call.user])?;
        Ok(if count > 0 { self.acknowledged(self.setup.durability) } else { 0 })
    }

    /// Compares what users have used of a policy with what they should have.
    fn check_usage(&self, which: usize, limiter: &Limiter, users: &[u8]) -> Result<(), Error> {
        let model = self.history.model();
        for user in users {
            let text = format!("u{user}");
            let usage = limiter.usage(&Event::new("call").dim("user", &text))?;
            let told: Vec<u64> = usage.iter().map(|usage| usage.used).collect();
            let used: Vec<u64> = limits::used(which, &model, *user, self.mark.minute).collect();
            assert_eq!(told, used, "what {text} has used of {}", limits::name(which));
        }
        Ok(())
    }

    /// Compares the policies that are set, and what users have used of them, with what there should be.
    pub(super) fn check_limits(&self) -> Result<(), Error> {
        let there = self.engine().db().policies()?.into_iter().map(|status| status.policy);
        check_policies(&self.history, &there.collect::<Vec<_>>());
        for policy in 0..limits::NAMES.len() {
            if let Some((which, limiter)) = self.limited(&Call::plain(policy))? {
                self.check_usage(which, &limiter, &[0, 1, 2, 3])?;
            }
        }
        Ok(())
    }
}
