//! Constraints: what is asked for something to happen.

use super::window::Window;
use crate::error::{Error, Result};
use crate::event::{Limits, abridged};
use crate::time::{Schedule, TimeZone};
use std::sync::Arc;
use std::time::Duration;

/// A question that has to be answered with yes for something to happen: of a series
/// ([`Limit::on`](crate::Limit::on)), of a view, whatever the key ([`Policy::on`](crate::Policy::on)), or of
/// the calendar. It can have a name, by which answers, statistics and HTTP headers call it. What it
/// displays as is read as the same constraint; the form is described at [`Rule`](crate::Rule).
///
/// ```
/// use quipu::{Constraint, Window};
/// use std::time::Duration;
///
/// let burst = Constraint::at_most(100, Window::rolling(Duration::from_mins(1))).named("burst");
/// assert_eq!(burst.to_string(), "burst = at most 100 in any 1m");
/// assert_eq!("burst = at most 100 in any 60s".parse::<Constraint>()?, burst);
/// assert_eq!(burst.name(), Some("burst"));
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
pub struct Constraint {
    pub(super) name: Option<String>,
    pub(crate) bound: Bound,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
pub(crate) enum Bound {
    AtMost(u64, Window),
    AtLeast(u64, Window),
    /// So long ago, or never.
    Cooldown(Duration),
    /// Less than so long ago.
    Within(Duration),
    /// Only while it is open.
    During(Arc<Schedule>),
    /// Only while it is closed.
    OutsideOf(Arc<Schedule>),
    /// Only while the caller says so; the words are for who is denied.
    Said(String),
}

impl Constraint {
    fn new(bound: Bound) -> Self {
        Constraint { name: None, bound }
    }

    /// Only while the caller says so.
    pub(crate) fn said(words: String) -> Self {
        Constraint::new(Bound::Said(words))
    }

    /// Whether it can be kept.
    pub(crate) fn is_said(&self) -> bool {
        matches!(self.bound, Bound::Said(_))
    }

    /// At most `n` events in a window. One that stands for many ([`Event::times`](crate::Event::times))
    /// counts for as many.
    pub fn at_most(n: u64, window: Window) -> Self {
        Constraint::new(Bound::AtMost(n, window))
    }

    /// Not before there were at least `n` events in a window: what must have happened first.
    pub fn at_least(n: u64, window: Window) -> Self {
        Constraint::new(Bound::AtLeast(n, window))
    }

    /// Not before the last event is so long ago, to the microsecond; none yet is long enough.
    pub fn cooldown(length: Duration) -> Self {
        Constraint::new(Bound::Cooldown(length))
    }

    /// Only while the last event is less than so long ago: what must have happened lately.
    pub fn within(length: Duration) -> Self {
        Constraint::new(Bound::Within(length))
    }

    /// Only while a schedule is open.
    pub fn during(schedule: Schedule) -> Self {
        Constraint::new(Bound::During(Arc::new(schedule)))
    }

    /// Only while a schedule is closed.
    pub fn outside_of(schedule: Schedule) -> Self {
        Constraint::new(Bound::OutsideOf(Arc::new(schedule)))
    }

    /// Gives it a name, of 1 to 255 bytes.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Its name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The number that it allows or wants; 0 where it is about a time.
    pub fn limit(&self) -> u64 {
        match self.bound {
            Bound::AtMost(n, _) | Bound::AtLeast(n, _) => n,
            _ => 0,
        }
    }

    /// The window that it counts in, where it does.
    pub fn window(&self) -> Option<Window> {
        match self.bound {
            Bound::AtMost(_, window) | Bound::AtLeast(_, window) => Some(window),
            _ => None,
        }
    }

    /// Whether it bounds how much may happen, and so has something left or not.
    pub fn is_at_most(&self) -> bool {
        matches!(self.bound, Bound::AtMost(..))
    }

    /// Whether it is of the calendar, and no series is asked.
    pub(crate) fn is_of_calendar(&self) -> bool {
        matches!(self.bound, Bound::During(_) | Bound::OutsideOf(_))
    }

    /// Whether what happens, or is reserved, counts against it: "at most", and cooldowns.
    pub fn counts_against(&self) -> bool {
        matches!(self.bound, Bound::AtMost(..) | Bound::Cooldown(_))
    }

    /// Whether it can be net of what was given back: "at most" can. (Which event a cooldown counts from can
    /// not be told once the last one is taken away.)
    pub fn takes_back(&self) -> bool {
        self.is_at_most()
    }

    /// The same, its schedule in this zone where it has none of its own.
    pub(crate) fn in_zone(mut self, zone: TimeZone) -> Self {
        if let Bound::During(schedule) | Bound::OutsideOf(schedule) = &mut self.bound {
            *schedule = Arc::new(Schedule::clone(schedule).or_in_zone(zone));
        }
        self
    }

    /// Checks that it means something, by itself.
    ///
    /// # Errors
    /// `Invalid`.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(name) = &self.name
            && (name.is_empty() || name.len() > Limits::NAME_BYTES)
        {
            return Err(Error::invalid(format!(
                "a constraint's name has 1 to {} bytes, {} has {}",
                Limits::NAME_BYTES,
                abridged(name),
                name.len()
            )));
        }
        match &self.bound {
            Bound::AtMost(0, _) => {
                Err(Error::invalid("at most 0 never allows anything; a limit is 1 at least"))
            }
            Bound::AtLeast(0, _) => {
                Err(Error::invalid("at least 0 always holds; it is 1 at least"))
            }
            Bound::AtLeast(_, window) if !window.is_window() => Err(Error::invalid(
                "at least so many is of a window; what comes back at a rate has none",
            )),
            Bound::AtMost(_, window) | Bound::AtLeast(_, window) => window.check(),
            Bound::Cooldown(length) | Bound::Within(length) => {
                // The same bounds as a window's.
                Window::rolling(*length).check()
            }
            Bound::During(_) | Bound::OutsideOf(_) | Bound::Said(_) => Ok(()),
        }
    }
}
