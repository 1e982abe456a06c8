//! Views: which events are counted, by what, how, and in which buckets.
//!
//! Invariants
//! 1. A [`View`] that [`View::checked`] passed is stored as it is and never changes; another
//!    definition under its name is an error that shows both.
//! 2. A [`Plan`] is the same view in syms; it decides for a column of events which of them the
//!    view takes and under which key. It reads no clock and no file.
//!
//! Next: `view/measured.rs`.

mod measured;
mod plan;
mod sketched;

use crate::aggregate::Kinds;
use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{EVENT_DIMENSION, Limits, abridged};
use crate::series::Shape;
use crate::time::{Calendar, Grain, Keep, TimeZone};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;

use measured::Measured;
pub(crate) use plan::{Part, Plan, Sketched};

/// A stored definition: which events (filter), grouped by which dimensions (key), measured how
/// (aggregates), kept in which time buckets (grains).
///
/// Every view counts and keeps the first and last event time of each key; [`View::stats`] adds
/// sum, least, greatest, mean and variance of a measure. An event without one of the key's
/// dimensions is in no group of the view; one without a measure is counted, not measured.
///
/// ```
/// use quipu::{Grain, Keep, View};
///
/// let view = View::new("revenue_by_country")
///     .by(["country"])
///     .only_events(["sale"])
///     .stats("value")
///     .grain(Grain::Day, Keep::Last(56));
/// assert_eq!(
///     view.to_string(),
///     "revenue_by_country: by country, events sale, count, stats of value, 56 days",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct View {
    name: String,
    key: Vec<String>,
    events: Vec<String>,
    conditions: Vec<Condition>,
    aggregates: Vec<Measured>,
    grains: Vec<(Grain, Keep)>,
}

/// "This dimension is one of these."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
struct Condition {
    dimension: String,
    values: Vec<String>,
}

impl View {
    /// The name of the view that [`Db::counter`](crate::Db::counter) asks.
    pub const COUNTERS: &str = "counters";

    /// The view of counters: every event by its name, counted, in the [grains of
    /// counters](View::counter_grains). [`Db::counter`](crate::Db::counter) asks it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Options, View};
    ///
    /// let db = Options::new().view(View::counters()).open(dir.path().join("app"))?;
    /// db.counter("app_launch")?.record()?;
    /// assert_eq!(db.counter("app_launch")?.today().sum()?, Some(1));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn counters() -> Self {
        View::new(View::COUNTERS).by([EVENT_DIMENSION]).counter_grains()
    }

    /// A view of all events under one empty key, counting them.
    pub fn new(name: impl Into<String>) -> Self {
        View {
            name: name.into(),
            key: Vec::new(),
            events: Vec::new(),
            conditions: Vec::new(),
            aggregates: Vec::new(),
            grains: Vec::new(),
        }
    }

    /// Groups by these dimensions, in this order. The dimension `event` is the event's name.
    pub fn by<T: Into<String>>(mut self, dimensions: impl IntoIterator<Item = T>) -> Self {
        self.key = dimensions.into_iter().map(Into::into).collect();
        self
    }

    /// Takes only events of these names.
    pub fn only_events<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.events = names.into_iter().map(Into::into).collect();
        self
    }

    /// Takes only events whose `dimension` is `value`. Several conditions must all hold.
    pub fn where_equal(self, dimension: impl Into<String>, value: impl Into<String>) -> Self {
        self.where_in(dimension, [value])
    }

    /// Takes only events whose `dimension` is one of `values`.
    pub fn where_in<T: Into<String>>(
        mut self,
        dimension: impl Into<String>,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        self.conditions.push(Condition {
            dimension: dimension.into(),
            values: values.into_iter().map(Into::into).collect(),
        });
        self
    }

    /// Counts. Every view does; saying so is for the reader.
    pub fn count(self) -> Self {
        self
    }

    /// Keeps [`Stats`](crate::aggregate::Stats) of a measure; `value` is the default one's name.
    pub fn stats(mut self, measure: impl Into<String>) -> Self {
        self.aggregates.push(Measured::Stats(measure.into()));
        self
    }

    /// Keeps buckets of a grain, of all that the view counts and measures.
    pub fn grain(mut self, grain: Grain, keep: Keep) -> Self {
        self.grains.push((grain, keep));
        self
    }

    /// Keeps buckets of several grains.
    fn preset(self, grains: &[(Grain, u32)]) -> Self {
        grains.iter().fold(self, |view, (grain, n)| view.grain(*grain, Keep::Last(*n)))
    }

    /// Keeps what a counter is asked for most: 60 minutes, 72 hours, 56 days, 52 weeks, 12 months and
    /// 4 years.
    ///
    /// ```
    /// use quipu::View;
    ///
    /// let view = View::new("by_event").by(["event"]).counter_grains();
    /// assert_eq!(
    ///     view.to_string(),
    ///     "by_event: by event, count, \
    ///      60 minutes, 72 hours, 56 days, 52 weeks, 12 months, 4 years",
    /// );
    /// ```
    pub fn counter_grains(self) -> Self {
        self.preset(&[
            (Grain::Minute, 60),
            (Grain::Hour, 72),
            (Grain::Day, 56),
            (Grain::Week, 52),
            (Grain::Month, 12),
            (Grain::Year, 4),
        ])
    }

    /// Keeps what limits on rates need: 120 seconds, 120 minutes and 48 hours. Each reaches twice as
    /// far as a limit per minute, per hour or per day, so that one of them can be asked to the second,
    /// minute or hour. A limit per second wants a finer one besides: `.grain("100ms".parse()?, Keep::Last(20))`.
    ///
    /// ```
    /// use quipu::View;
    ///
    /// let view = View::new("requests").by(["client"]).rate_limit_grains();
    /// assert_eq!(view.grains().len(), 3);
    /// ```
    pub fn rate_limit_grains(self) -> Self {
        self.preset(&[(Grain::Second, 120), (Grain::Minute, 120), (Grain::Hour, 48)])
    }

    /// Keeps what reports compare: 168 hours (a week), 400 days (a year and the month before it), 106
    /// ISO weeks and 36 months (this year against the ones before), and all years.
    ///
    /// ```
    /// use quipu::View;
    ///
    /// let view = View::new("revenue").by(["country"]).stats("value").analytics_grains();
    /// assert_eq!(view.grains().len(), 5);
    /// ```
    pub fn analytics_grains(self) -> Self {
        self.preset(&[
            (Grain::Hour, 168),
            (Grain::Day, 400),
            (Grain::Week, 106),
            (Grain::Month, 36),
        ])
        .grain(Grain::Year, Keep::All)
    }

    /// The view's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The dimensions of its key.
    pub fn key(&self) -> &[String] {
        &self.key
    }

    /// The names of the events it takes; none for all.
    pub fn events(&self) -> &[String] {
        &self.events
    }

    /// The measures it keeps statistics of.
    pub fn measures(&self) -> impl ExactSizeIterator<Item = &str> {
        let is_stats = |measured: &&Measured| matches!(measured, Measured::Stats(_));
        let stats = self.aggregates.iter().filter(is_stats);
        stats.map(Measured::of).collect::<SmallVec<[_; 4]>>().into_iter()
    }

    /// The grains it keeps buckets of.
    pub fn grains(&self) -> &[(Grain, Keep)] {
        &self.grains
    }

    /// Whether it takes every event that has its key.
    pub(crate) fn takes_all(&self) -> bool {
        self.events.is_empty() && self.conditions.is_empty()
    }

    /// Checks the definition and puts its sets in order, so that equal views are equal.
    pub(crate) fn checked(mut self) -> Result<Self> {
        let refuse = |what: String| Err(Error::invalid(format!("view {:?}: {what}", self.name)));
        let bad_name = |text: &str| text.is_empty() || text.len() > Limits::NAME_BYTES;
        if bad_name(&self.name) {
            return Err(Error::invalid(format!(
                "a view's name has 1 to {} bytes, {} has {}",
                Limits::NAME_BYTES,
                abridged(&self.name),
                self.name.len()
            )));
        }
        if self.key.len() > Limits::KEY_PARTS {
            return refuse(format!(
                "a key has at most {} dimensions, this one {}",
                Limits::KEY_PARTS,
                self.key.len()
            ));
        }
        let stats = self.measures().len();
        if stats > Limits::VIEW_MEASURES || self.aggregates.len() - stats > Limits::VIEW_SKETCHES {
            return refuse(format!(
                "at most {} measures and {} sketches are kept",
                Limits::VIEW_MEASURES,
                Limits::VIEW_SKETCHES
            ));
        }
        let dimensions = self.conditions.iter().map(|condition| condition.dimension.as_str());
        let names = self.key.iter().chain(&self.events).map(String::as_str);
        let aggregates = self.aggregates.iter().flat_map(Measured::names).flatten();
        let name = names.chain(aggregates).chain(dimensions).find(|name| bad_name(name));
        if let Some(name) = name {
            return refuse(format!(
                "names have 1 to {} bytes, {} has {}",
                Limits::NAME_BYTES,
                abridged(name),
                name.len()
            ));
        }
        if let Some(twice) = repeated(&self.key) {
            return refuse(format!("the key has the dimension {twice:?} twice"));
        }
        self.check_known()?;
        for (i, measured) in self.aggregates.iter().enumerate() {
            if let Err(error) = measured.check() {
                return refuse(format!("{measured}: {error}"));
            }
            if self.aggregates[..i].iter().any(|other| other.is_same(measured)) {
                return refuse(format!("{measured} is asked for twice"));
            }
        }
        self.grains.iter_mut().for_each(|(grain, _)| *grain = grain.canonical());
        for (i, (grain, keep)) in self.grains.iter().enumerate() {
            if self.grains[..i].iter().any(|(other, _)| other == grain) {
                return refuse(format!("the grain {grain} is given twice"));
            }
            if let Keep::Last(n) = keep
                && !(1..=Keep::MAX).contains(n)
            {
                return refuse(format!("{n} buckets of {grain}; 1 to {} can be kept", Keep::MAX));
            }
        }
        for condition in &self.conditions {
            let values = &condition.values;
            if values.is_empty() || values.len() > Limits::CONDITION_VALUES {
                return refuse(format!(
                    "the condition on {:?} has {} values; 1 to {} are allowed",
                    condition.dimension,
                    values.len(),
                    Limits::CONDITION_VALUES
                ));
            }
            if let Some(value) = values.iter().find(|v| v.len() > Limits::VALUE_BYTES) {
                return refuse(format!("the value {} is too long", abridged(value)));
            }
        }
        if self.events.len() > Limits::CONDITION_VALUES {
            return refuse(format!("at most {} event names", Limits::CONDITION_VALUES));
        }
        if self.conditions.len() > Limits::DIMENSIONS {
            return refuse(format!("at most {} conditions", Limits::DIMENSIONS));
        }
        let bytes = codec::encode(&self).len();
        if bytes > Limits::VIEW_BYTES {
            return refuse(format!(
                "the definition has {bytes} bytes; {} are allowed",
                Limits::VIEW_BYTES
            ));
        }
        sort_set(&mut self.events);
        self.conditions.iter_mut().for_each(|condition| sort_set(&mut condition.values));
        self.conditions.sort_by(|a, b| (&a.dimension, &a.values).cmp(&(&b.dimension, &b.values)));
        self.conditions.dedup();
        self.grains.sort_by_key(|(grain, _)| *grain);
        Ok(self)
    }

    /// Refuses what this program was built without.
    fn check_known(&self) -> Result<()> {
        let Some(unknown) = self.aggregates.iter().find(|measured| !measured.is_known()) else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::NewerFormat,
            format!(
                "the view {:?} keeps a {unknown}, which this program was built without; build it with \
                 the feature `datasketches` of quipu",
                self.name
            ),
        ))
    }

    /// What it keeps besides the count.
    pub(crate) fn kinds(&self) -> Kinds {
        Kinds {
            stats: self.measures().len(),
            sketches: self.aggregates.iter().filter_map(Measured::sketch).collect(),
        }
    }

    /// The buckets it keeps, in words: `60 minutes, 72 hours`.
    pub(crate) fn kept(&self) -> String {
        let kept: Vec<String> = self.grains.iter().map(kept_text).collect();
        if kept.is_empty() { "none".to_owned() } else { kept.join(", ") }
    }

    /// What its series are made of where the store has this time zone.
    pub(crate) fn shape(&self, zone: TimeZone) -> Shape {
        Shape::new(self.kinds(), Arc::new(Calendar { zone, grains: self.grains.clone() }))
    }

    /// What another definition of this view has otherwise, besides its grains.
    pub(crate) fn differs_besides_grains(&self, other: &View) -> Option<&'static str> {
        if self.key != other.key {
            Some("another key")
        } else if (&self.events, &self.conditions) != (&other.events, &other.conditions) {
            Some("other conditions on its events")
        } else if self.aggregates != other.aggregates {
            Some("other aggregates")
        } else {
            None
        }
    }

    /// Whether it is the view of counters: it counts every event by its name.
    pub(crate) fn counts_events(&self) -> bool {
        self.name == View::COUNTERS && self.key == [EVENT_DIMENSION] && self.takes_all()
    }

    /// What was asked for as it was `before` is not what it is now.
    pub(crate) fn redefined(&self, before: &View) -> Error {
        Error::new(
            ErrorKind::ViewConflict,
            format!(
                "the view {:?} was redefined since this was made, and means something else by now; ask it \
                 anew\n  before: {before}\n  now:    {self}",
                self.name
            ),
        )
    }

    pub(crate) fn conflict(&self, asked: &View) -> Error {
        Error::new(
            ErrorKind::ViewConflict,
            format!(
                "the view {:?} is already defined otherwise; redefine it, or choose another name\n  stored: {self}\n  asked:  {asked}",
                self.name
            ),
        )
    }
}

fn repeated<T: PartialEq>(names: &[T]) -> Option<&T> {
    names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)).map(|(_, name)| name)
}

fn sort_set(names: &mut Vec<String>) {
    names.sort();
    names.dedup();
}

/// A name as it is, in quotes where it could be mistaken for something else.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_alphanumeric() || "_-.:/#@+".contains(c);
        if !self.0.is_empty() && self.0.chars().all(plain) {
            f.write_str(self.0)
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, names: &[String], between: &str) -> fmt::Result {
    for (i, name) in names.iter().enumerate() {
        write!(f, "{}{}", if i == 0 { "" } else { between }, Name(name))?;
    }
    Ok(())
}

/// `72 hours`, `all days`.
fn kept_text((grain, keep): &(Grain, Keep)) -> String {
    match keep {
        Keep::All => grain.counted("all", false),
        Keep::Last(n) => grain.counted(&n.to_string(), *n == 1),
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", Name(&self.name))?;
        if self.key.is_empty() {
            f.write_str("all in one")?;
        } else {
            f.write_str("by ")?;
            list(f, &self.key, ", ")?;
        }
        if !self.events.is_empty() {
            f.write_str(", events ")?;
            list(f, &self.events, " ")?;
        }
        for Condition { dimension, values } in &self.conditions {
            let is = if values.len() == 1 { "=" } else { "in" };
            write!(f, ", {} {is} ", Name(dimension))?;
            list(f, values, " ")?;
        }
        f.write_str(", count")?;
        for measured in &self.aggregates {
            write!(f, ", {measured}")?;
        }
        for kept in &self.grains {
            write!(f, ", {}", kept_text(kept))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_that_mean_the_same_are_equal() {
        let a = View::new("v").only_events(["b", "a", "b"]).where_in("x", ["2", "1"]);
        let b = View::new("v").where_in("x", ["1", "2", "2"]).only_events(["a", "b"]);
        assert_eq!(a.checked().unwrap(), b.checked().unwrap());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |view: View, expect: &str| {
            let error = view.checked().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(expect), "{error}");
        };
        check(View::new(""), "name");
        check(View::new("v").by(["a", "a"]), "twice");
        check(View::new("v").by(["a", ""]), "1 to 255");
        check(View::new("v").by((0..9).map(|i| i.to_string())), "at most 8");
        check(View::new("v").stats("x").stats("x"), "twice");
        check(View::new("v").where_in("x", [""; 0]), "0 values");
        check(View::new("v").where_in("x", (0..900).map(|i| format!("{i:050}"))), "bytes");
        check(View::new("v").grain(Grain::Day, Keep::Last(0)), "0 buckets");
        check(View::new("v").grain(Grain::Day, Keep::Last(100_001)), "100001 buckets");
        let twice = View::new("v").grain(Grain::Day, Keep::All).grain(Grain::Day, Keep::Last(2));
        check(twice, "given twice");
    }
}
