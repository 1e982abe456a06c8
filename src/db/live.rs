//! What only changes while the gate is closed: the views, and the facts about a directory that each event
//! is recorded by.
//!
//! Next: `db/redefine.rs`.

use super::Engine;
use super::limit::Policies;
use crate::dictionary::Dictionary;
use crate::tier::{Backfill, ViewTier};
use crate::time::TimeZone;
use crate::view::View;
use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

#[derive(Clone)]
pub(super) struct Live {
    /// In the order of their definition. Of two of one name the later one is to take the place of the
    /// other (`db/redefine.rs`).
    pub(super) views: Vec<Arc<ViewTier>>,
    pub(super) next_view: u32,
    /// Views that were dropped and whose rows are still in the store.
    pub(super) purge: Vec<u32>,
    /// Those of them that somebody may still be reading.
    pub(super) leaving: Vec<(u32, Weak<ViewTier>)>,
    /// The time zone that the directory was given; `None` is UTC, until it is given one.
    pub(super) zone: Option<TimeZone>,
    /// The policies that are set.
    pub(super) policies: Policies,
    /// The views that single events are applied to when they come, for limits ask them.
    pub(super) at_once: Vec<Arc<ViewTier>>,
    /// The others, to which they are applied together.
    pub(super) gathering: Vec<Arc<ViewTier>>,
    /// For how long behind the newest event an event is late in none of those; `None`: for ever.
    pub(super) reach: Option<Duration>,
}

impl Live {
    /// Whether nothing here depends on a time zone yet.
    pub(super) fn may_take_zone(&self) -> bool {
        self.zone.is_none() && self.views.is_empty()
    }

    /// To be called when the views have changed.
    pub(super) fn views_changed(&mut self) {
        let views = self.views.iter().cloned();
        (self.at_once, self.gathering) = views.partition(|view| view.is_at_once());
        let calendars = self.gathering.iter().map(|view| &view.plan.shape.calendar);
        self.reach = calendars.filter_map(|calendar| calendar.reach()).min();
    }

    pub(super) fn of_name<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Arc<ViewTier>> {
        self.views.iter().filter(move |tier| tier.view.name() == name)
    }

    /// The view that answers under this name.
    pub(super) fn named(&self, name: &str) -> Option<&Arc<ViewTier>> {
        self.of_name(name).next()
    }

    /// The one that is to take its place.
    pub(super) fn successor(&self, name: &str) -> Option<&Arc<ViewTier>> {
        self.of_name(name).nth(1)
    }

    /// The views that answer: one of each name.
    pub(super) fn answering(&self) -> impl Iterator<Item = &Arc<ViewTier>> {
        let mut names = HashSet::new();
        self.views.iter().filter(move |tier| names.insert(tier.view.name()))
    }

    pub(super) fn define(&mut self, id: u32, view: View, position: u64, engine: &Engine) {
        let (dictionary, expected) = (&engine.dictionary, engine.options.expected_keys);
        let zone = self.zone.unwrap_or_default();
        let tier =
            ViewTier::new(id, view, zone, position, Backfill::NotAsked, dictionary, 0, expected);
        self.next_view = self.next_view.max(id + 1);
        let tier = Arc::new(tier);
        engine.by_name.insert(tier.view.name().into(), tier.clone());
        self.views.push(tier);
        self.views_changed();
    }

    /// Begins with a view that is to take the place of the one of its name, of which the records behind
    /// `since` are to be in it; so many of its rows are, or may be, in the store.
    pub(super) fn define_successor(
        &mut self,
        (id, view): (u32, View),
        position: u64,
        since: u64,
        rows: u64,
        (dictionary, expected): (&Arc<Dictionary>, usize),
    ) -> Arc<ViewTier> {
        if let Some(id) = self.successor(view.name()).map(|earlier| earlier.id) {
            self.remove(|tier| tier.id == id);
        }
        let zone = self.zone.unwrap_or_default();
        let backfill = Backfill::Succeeding { since, done: since };
        let tier = ViewTier::new(id, view, zone, position, backfill, dictionary, rows, expected);
        let tier = Arc::new(tier);
        self.next_view = self.next_view.max(id + 1);
        self.views.push(tier.clone());
        self.views_changed();
        tier
    }

    /// A view takes the place of the one of its name.
    pub(super) fn succeed(&mut self, tier: &ViewTier) {
        self.remove(|other| other.view.name() == tier.view.name() && other.id < tier.id);
    }

    /// Drops a view, and with one that answers what was to take its place.
    pub(super) fn drop_view(&mut self, id: u32) {
        let Some(tier) = self.views.iter().find(|tier| tier.id == id).cloned() else { return };
        let name = tier.view.name();
        let answers = self.named(name).is_some_and(|first| first.id == id);
        self.remove(|tier| tier.id == id || answers && tier.view.name() == name);
    }

    pub(super) fn remove(&mut self, is_gone: impl Fn(&ViewTier) -> bool) {
        let (purge, leaving) = (&mut self.purge, &mut self.leaving);
        self.views.retain(|tier| {
            let is_gone = is_gone(tier);
            if is_gone {
                tier.leave();
                purge.push(tier.id);
                leaving.push((tier.id, Arc::downgrade(tier)));
            }
            !is_gone
        });
        self.views_changed();
    }
}
