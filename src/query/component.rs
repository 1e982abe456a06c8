//! Components: the numbers of a row or a bucket by which rows are ranked and buckets compared, and of
//! which measure and dimension they are.
//!
//! Invariant: components are compared as what they are: counts as integers, times as times, numbers by
//! `f64::total_cmp`.

use super::answer::Row;
use crate::aggregate::{Approx, Distinct, Quantiles, Sketch, StatesRef, Stats, Theta};
use crate::error::{Error, Result};
use crate::series::CellRef;
use crate::time::Timestamp;
use crate::view::View;
use serde::{Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;

/// A number of a row by which rows can be ranked ([`Query::top`](crate::Query::top)), or one of each bucket
/// of a range ([`RangeQuery::across`](crate::RangeQuery::across)).
///
/// As text, and in JSON, it is its name: `count`, `last_seen`, `distinct`, `p99.9`.
///
/// ```
/// use quipu::Component;
///
/// assert_eq!("p99.9".parse::<Component>()?, Component::percentile(99.9)?);
/// assert_eq!(Component::LastSeen.to_string(), "last_seen");
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Component {
    /// The number of events.
    Count,
    /// The number of events that carried the measure.
    CountValue,
    /// The sum of the measure.
    Sum,
    /// Its mean.
    Mean,
    /// Its least value.
    Min,
    /// Its greatest value.
    Max,
    /// The time of the earliest event.
    FirstSeen,
    /// The time of the latest event.
    LastSeen,
    /// The number of different values of a dimension, as it is estimated. The view keeps it
    /// [distinct](View::distinct) or has a [theta](View::theta) sketch of it.
    Distinct,
    /// A percentile of the measure, of which the view keeps [quantiles](View::quantiles).
    Percentile(Percent),
}

/// A percentage from 0 to 100, to the thousandth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u32);

impl Percent {
    const ONE: u32 = 1_000;

    /// The percentage nearest to a number.
    ///
    /// # Errors
    /// `Invalid` for what is not from 0 to 100.
    pub fn new(percent: f64) -> Result<Self> {
        if (0.0..=100.0).contains(&percent) {
            Ok(Percent((percent * f64::from(Self::ONE)).round() as u32))
        } else {
            Err(Error::invalid(format!("{percent} is no percentage: those are 0 to 100")))
        }
    }

    /// As a number from 0 to 100.
    pub fn get(self) -> f64 {
        f64::from(self.0) / f64::from(Self::ONE)
    }
}

/// A component's value, in its own type: a count is never made a float to be compared.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Count(u64),
    Number(f64),
    Time(Timestamp),
}

impl Value {
    pub(super) fn total_cmp(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Count(a), Value::Count(b)) => a.cmp(b),
            (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
            (Value::Time(a), Value::Time(b)) => a.cmp(b),
            // One query compares one component, which has one type.
            _ => Ordering::Equal,
        }
    }
}

/// Which of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    First,
    At(u32),
    /// What was chosen has none.
    NoneOfIt,
}

impl Which {
    fn of(position: Option<usize>) -> Self {
        position.map_or(Which::NoneOfIt, |at| Which::At(at as u32))
    }

    fn of_these<T>(self, mut these: impl Iterator<Item = T>) -> Option<T> {
        match self {
            Which::First => these.next(),
            Which::At(at) => these.nth(at as usize),
            Which::NoneOfIt => None,
        }
    }
}

/// Of which measure and which dimension components are taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen {
    stats: Which,
    quantiles: Which,
    counted: Which,
}

/// What a cell keeps of the measure and the dimension that were chosen.
pub(super) struct Figures<'a> {
    stats: Option<&'a Stats>,
    quantiles: Option<&'a Quantiles>,
    counted: Option<Counted<'a>>,
}

enum Counted<'a> {
    Distinct(&'a Distinct),
    Theta(&'a Theta),
}

impl Chosen {
    /// The first measure and the first dimension that the view keeps something of.
    pub(super) const FIRST: Chosen =
        Chosen { stats: Which::First, quantiles: Which::First, counted: Which::First };

    /// Another measure than the first.
    pub(super) fn measure(&mut self, view: &View, measure: &str) -> Result<()> {
        let stats = Which::of(view.measures().position(|name| name == measure));
        let quantiles = Which::of(view.quantile_measures().position(|name| name == measure));
        if stats == Which::NoneOfIt && quantiles == Which::NoneOfIt {
            let mut kept: Vec<&str> = view.measures().chain(view.quantile_measures()).collect();
            kept.sort_unstable();
            kept.dedup();
            return Err(nothing_of(view, "statistics or quantiles", measure, &kept));
        }
        (self.stats, self.quantiles) = (stats, quantiles);
        Ok(())
    }

    /// Another dimension than the first.
    pub(super) fn dimension(&mut self, view: &View, dimension: &str) -> Result<()> {
        self.counted = Which::of(view.counted_dimensions().position(|name| name == dimension));
        if self.counted == Which::NoneOfIt {
            let kept: Vec<&str> = view.counted_dimensions().collect();
            return Err(nothing_of(view, "distinct count", dimension, &kept));
        }
        Ok(())
    }

    /// The same of another definition of the view, as far as it keeps them.
    pub(super) fn renewed(self, before: &View, now: &View) -> Result<Self> {
        let mut chosen = Chosen::FIRST;
        let named = |which| if which == Which::First { Which::NoneOfIt } else { which };
        let stats = named(self.stats).of_these(before.measures());
        if let Some(measure) =
            stats.or_else(|| named(self.quantiles).of_these(before.quantile_measures()))
        {
            chosen.measure(now, measure)?;
        }
        if let Some(dimension) = named(self.counted).of_these(before.counted_dimensions()) {
            chosen.dimension(now, dimension)?;
        }
        Ok(chosen)
    }

    /// Where the statistics of the measure are, if it is not the first.
    pub(super) fn stats_at(self) -> Option<usize> {
        match self.stats {
            Which::At(at) => Some(at as usize),
            Which::First | Which::NoneOfIt => None,
        }
    }

    /// Whether the measure that was chosen has no statistics, so that those of another would be taken for its.
    pub(super) fn has_no_stats(self) -> bool {
        self.stats == Which::NoneOfIt
    }

    /// Checks that the view keeps what a component is of.
    pub(super) fn check(self, view: &View, component: Component) -> Result<()> {
        let (kept, what) = match component {
            Component::Count | Component::FirstSeen | Component::LastSeen => return Ok(()),
            Component::Distinct => {
                (self.counted.of_these(view.counted_dimensions()), "distinct count")
            }
            Component::Percentile(_) => {
                (self.quantiles.of_these(view.quantile_measures()), "quantiles")
            }
            _ => (self.stats.of_these(view.measures()), "statistics"),
        };
        if kept.is_some() {
            return Ok(());
        }
        let of = match (self.stats, self.quantiles) {
            (Which::NoneOfIt, Which::At(_)) | (Which::At(_), Which::NoneOfIt)
                if component != Component::Distinct =>
            {
                " of the measure that was chosen"
            }
            _ => "",
        };
        Err(Error::invalid(format!(
            "the view {:?} keeps no {what}{of}, so it has no {component}",
            view.name()
        )))
    }

    /// A component of a row, with its bounds.
    pub(super) fn figure(self, view: &View, row: &Row, component: Component) -> Option<Approx> {
        let summary = row.summary();
        let measured = summary.filter(|summary| summary.count_value > 0);
        match component {
            Component::Count => Some(Approx::exact(row.count as f64)),
            Component::CountValue => summary.map(|s| Approx::exact(s.count_value as f64)),
            Component::Sum => measured.map(|summary| Approx::exact(summary.sum)),
            Component::Mean => measured.and_then(|summary| summary.mean).map(Approx::exact),
            Component::Min => measured.and_then(|summary| summary.min).map(Approx::exact),
            Component::Max => measured.and_then(|summary| summary.max).map(Approx::exact),
            Component::FirstSeen | Component::LastSeen => None,
            Component::Distinct => {
                let dimension = self.counted.of_these(view.counted_dimensions())?;
                let distinct = row.sketches.distinct(dimension).map(Distinct::estimate);
                distinct.or_else(|| row.sketches.theta(dimension).map(Theta::estimate))
            }
            Component::Percentile(percent) => {
                let measure = self.quantiles.of_these(view.quantile_measures())?;
                row.sketches.quantiles(measure)?.percentile(percent.get()).ok()?
            }
        }
    }

    #[inline]
    pub(super) fn figures(self, states: StatesRef<'_>) -> Figures<'_> {
        let quantiles = states.sketches.iter().filter_map(|sketch| match sketch {
            Sketch::Quantiles(state) => Some(state),
            _ => None,
        });
        let counted = states.sketches.iter().filter_map(|sketch| match sketch {
            Sketch::Distinct(state) => Some(Counted::Distinct(state)),
            Sketch::Theta(state) => Some(Counted::Theta(state)),
            _ => None,
        });
        Figures {
            stats: self.stats.of_these(states.stats.iter()),
            quantiles: self.quantiles.of_these(quantiles),
            counted: self.counted.of_these(counted),
        }
    }
}

fn nothing_of(view: &View, what: &str, name: &str, kept: &[&str]) -> Error {
    let does = if kept.is_empty() { "nothing".to_owned() } else { kept.join(", ") };
    Error::invalid(format!(
        "the view {:?} keeps no {what} of {}; it does of: {does}",
        view.name(),
        crate::event::abridged(name),
    ))
}

impl Figures<'_> {
    /// The number of different values, as it is estimated.
    fn distinct(&self) -> Option<f64> {
        self.counted.as_ref().map(|counted| match counted {
            Counted::Distinct(state) => state.estimate().value,
            Counted::Theta(state) => state.estimate().value,
        })
    }

    fn percentile(&self, percent: Percent) -> Option<f64> {
        let found = self.quantiles?.percentile(percent.get()).ok()?;
        found.map(|approx| approx.value)
    }
}

impl Component {
    /// Every component but the percentiles.
    pub const ALL: [Component; 9] = [
        Component::Count,
        Component::CountValue,
        Component::Sum,
        Component::Mean,
        Component::Min,
        Component::Max,
        Component::FirstSeen,
        Component::LastSeen,
        Component::Distinct,
    ];

    /// A percentile of the measure, which `percent` of a hundred values do not exceed: the median is that
    /// of 50.
    ///
    /// # Errors
    /// `Invalid` for what is not from 0 to 100.
    pub fn percentile(percent: f64) -> Result<Self> {
        Percent::new(percent).map(Component::Percentile)
    }

    pub(super) fn is_time(self) -> bool {
        matches!(self, Component::FirstSeen | Component::LastSeen)
    }

    /// Whether it is read off a sketch.
    pub(super) fn is_of_sketch(self) -> bool {
        matches!(self, Component::Distinct | Component::Percentile(_))
    }

    /// Its number in a bucket: 0 for the count and the sum of nothing, none for what nothing has not.
    pub(super) fn number(self, count: u64, figures: &Figures<'_>) -> Option<f64> {
        match self {
            Component::Count => Some(count as f64),
            Component::CountValue => figures.stats.map(|stats| stats.measured() as f64),
            Component::Sum => figures.stats.map(Stats::sum),
            Component::Mean => figures.stats.and_then(Stats::mean),
            Component::Min => figures.stats.and_then(Stats::min),
            Component::Max => figures.stats.and_then(Stats::max),
            Component::FirstSeen | Component::LastSeen => None,
            Component::Distinct => figures.distinct(),
            Component::Percentile(percent) => figures.percentile(percent),
        }
    }

    /// Its value in a row: none where nothing was measured.
    pub(super) fn of(self, cell: CellRef<'_>, figures: &Figures<'_>) -> Option<Value> {
        match self {
            Component::Count => Some(Value::Count(cell.count())),
            Component::FirstSeen => Some(Value::Time(cell.first())),
            Component::LastSeen => Some(Value::Time(cell.last())),
            Component::CountValue => figures.stats.map(|stats| Value::Count(stats.measured())),
            Component::Sum if figures.stats.is_none_or(|stats| stats.measured() == 0) => None,
            _ => self.number(cell.count(), figures).map(Value::Number),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Component::Count => "count",
            Component::CountValue => "count_value",
            Component::Sum => "sum",
            Component::Mean => "mean",
            Component::Min => "min",
            Component::Max => "max",
            Component::FirstSeen => "first_seen",
            Component::LastSeen => "last_seen",
            Component::Distinct => "distinct",
            Component::Percentile(percent) => return write!(f, "p{}", percent.get()),
        })
    }
}

impl std::str::FromStr for Component {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(percent) = text.strip_prefix('p')
            && let Ok(percent) = percent.parse()
        {
            return Component::percentile(percent);
        }
        Component::ALL.into_iter().find(|component| component.to_string() == text).ok_or_else(
            || {
                let names: Vec<String> = Component::ALL.iter().map(ToString::to_string).collect();
                Error::invalid(format!(
                    "{text:?} is not a component; there are {}, and percentiles as p50 and p99.9",
                    names.join(", ")
                ))
            },
        )
    }
}

impl Serialize for Component {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
