//! The questions to sketches of all that there was: `distinct`, `common`, `heavy` and `quantile`.
//!
//! Next: `point.rs`, the questions about single items.

use clap::Args;
use quipu::aggregate::{Approx, Distinct, Heavy, Kll, Quantiles, Sketches, Theta, Top};

use crate::ask::ViewArgs;
use crate::failure::Failure;
use crate::number;
use crate::progress::say;
use crate::sheet::{Cell, Extent};
use crate::which::{BOUNDS, Kind, WhenArgs, WhichArgs, counted, start};

const DISTINCT_EXAMPLES: &str = "\
Examples:
  quipu distinct buyers --dir shop                    (all keys together)
  quipu distinct buyers France --last 30d --dir shop
  quipu distinct buyers --of user --each --format csv --dir shop

The view is defined with --distinct DIM, or --theta DIM.";

const COMMON_EXAMPLES: &str = "\
Examples:
  quipu common did cart sale --dir shop               (who did both)
  quipu common did cart --without sale --last 7d --dir shop

The view is defined with --theta DIM.";

const HEAVY_EXAMPLES: &str = "\
Examples:
  quipu heavy bestsellers -n 20 --dir shop
  quipu heavy bestsellers France --last 24h --dir shop
  quipu heavy clients --above 10000 --last 60m --dir app
  quipu heavy revenue --of product --by cents --dir shop

The view is defined with --top DIM.";

const QUANTILE_EXAMPLES: &str = "\
Examples:
  quipu quantile latency /home --at p50,p99 --last 24h --dir app
  quipu quantile latency --each --at p99.9 --dir app
  quipu quantile latency --edges 10,50,100,500 --dir app   (a histogram)

The view is defined with --quantiles MEASURE.";

/// How many different values a dimension has
#[derive(Debug, Args)]
#[command(after_help = DISTINCT_EXAMPLES)]
pub(crate) struct DistinctArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// The dimension, where the view counts several [default: its first]
    #[arg(long, value_name = "DIM")]
    of: Option<String>,
    /// Each key for itself, in key order
    #[arg(long)]
    each: bool,
}

/// How many values of a dimension some keys have in common
#[derive(Debug, Args)]
#[command(after_help = COMMON_EXAMPLES)]
pub(crate) struct CommonArgs {
    #[command(flatten)]
    view: ViewArgs,
    /// The parts of the first key, then those of the second, and so on
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    /// The parts of keys that must not have the value
    #[arg(long, value_name = "KEY", num_args = 1..)]
    without: Vec<String>,
    #[command(flatten)]
    when: WhenArgs,
    /// The dimension, where the view has samples of several [default: its first]
    #[arg(long, value_name = "DIM")]
    of: Option<String>,
}

/// The values of a dimension that most events have, or that weigh most
#[derive(Debug, Args)]
#[command(after_help = HEAVY_EXAMPLES)]
pub(crate) struct HeavyArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// The dimension, where the view has the top of several [default: its first]
    #[arg(long, value_name = "DIM")]
    of: Option<String>,
    /// The measure that they weigh by, where the view has the top by several
    #[arg(long, value_name = "MEASURE")]
    by: Option<String>,
    /// At most so many rows
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Only what counts, or may count, more than this
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    above: Option<u64>,
}

/// Medians, percentiles and histograms of a measure
///
/// Percentiles are said from p0 to p100, never as shares from 0 to 1: p99 is what a program asks for by
/// quantile(0.99) or percentile(99.0).
#[derive(Debug, Args)]
#[command(after_help = QUANTILE_EXAMPLES)]
pub(crate) struct QuantileArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// The measure, where the view has the quantiles of several [default: its first]
    #[arg(long, value_name = "MEASURE")]
    of: Option<String>,
    /// Which percentiles, in percent: p50 (or 50) is the value that half of all do not exceed, p0 the
    /// least and p100 the greatest of all. Answers are in the unit of the measure
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', value_parser = Percentile::parse,
        default_value = "p50,p90,p95,p99")]
    at: Vec<Percentile>,
    /// How many values there are up to each of these, and above the last, instead; in the unit of the
    /// measure, rising
    #[arg(
        long,
        value_name = "VALUES",
        value_delimiter = ',',
        allow_hyphen_values = true,
        conflicts_with = "at"
    )]
    edges: Vec<f64>,
    /// Each key for itself, in key order
    #[arg(long)]
    each: bool,
}

/// A percentile.
#[derive(Clone, Debug, PartialEq)]
struct Percentile {
    name: String,
    percent: f64,
}

impl Percentile {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no percentile: those are p0 to p100, as in p99.9");
        let digits = text.strip_prefix(['p', 'P']).unwrap_or(text);
        let percent: f64 = digits.parse().map_err(|_| wrong())?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(wrong());
        }
        if digits == text && percent > 0.0 && percent < 1.0 {
            let shares = format!("p{}", percent * 100.0);
            return Err(format!("say p{text} for {text} %, or {shares} for that share of all"));
        }
        Ok(Self { name: format!("p{digits}"), percent })
    }
}

/// Runs `distinct`.
pub(crate) fn distinct(args: &DistinctArgs) -> Result<(), Failure> {
    let asked = args.which.view.ask()?;
    let kind = Kind {
        name: "distinct count",
        option: "--distinct DIM",
        of: |view| view.distinct_dimensions().chain(view.theta_dimensions()).collect(),
    };
    let of = kind.chosen(&asked, args.of.as_ref())?;
    let columns = [&[("distinct", 0)][..], &BOUNDS].concat();
    let extent = Extent::One;
    args.which.write(asked, args.each, &columns, extent, |sketches, take| {
        let distinct = sketches.distinct(&of).map(Distinct::estimate);
        let approx = distinct.or_else(|| sketches.theta(&of).map(Theta::estimate));
        approx.map_or(Ok(()), |approx| Ok(take(&counted(approx))?))
    })
}

/// Runs `common`.
pub(crate) fn common(args: &CommonArgs) -> Result<(), Failure> {
    let asked = args.view.ask()?;
    let query = &asked.query;
    let kind = Kind {
        name: "theta sketch",
        option: "--theta DIM",
        of: |view| view.theta_dimensions().collect(),
    };
    let of = kind.chosen(&asked, args.of.as_ref())?;
    let name = args.view.name();
    let parts = match query.view().key().len() {
        0 => {
            return Err(Failure::usage(format!(
                "the view {name} has no key, so there is nothing to compare; its {of} are told by \
                 quipu distinct"
            )));
        }
        parts if args.keys.len() % parts + args.without.len() % parts == 0 => parts,
        parts => {
            return Err(Failure::usage(format!(
                "keys of {name} have {parts} parts each: {}",
                query.view().key().join(", ")
            )));
        }
    };
    let sets = |keys: &[String]| -> Result<Vec<Theta>, Failure> {
        let set = |key: &[String]| {
            let series: Vec<&str> = key.iter().map(String::as_str).collect();
            let total = args.when.total_of(&asked, key, &query.series(&series)?)?;
            Ok(total.sketches.theta(&of).cloned().unwrap_or_default())
        };
        keys.chunks(parts).map(set).collect()
    };
    let (all, none) = (sets(&args.keys)?, sets(&args.without)?);
    let [all, none] = [&all, &none].map(|sets| sets.iter().collect::<Vec<_>>());
    let columns = [&[("common", 0)][..], &BOUNDS].concat();
    let mut answer = start(args.view.output(), None, &columns, Extent::One)?;
    answer.row(&[], &counted(Theta::in_all_and_none(&all, &none)))?;
    asked.finish(answer)
}

/// Runs `heavy`.
pub(crate) fn heavy(args: &HeavyArgs) -> Result<(), Failure> {
    let asked = args.which.view.ask()?;
    let kind = Kind {
        name: "top",
        option: "--top DIM",
        of: |view| view.top_dimensions().map(|(of, _)| of).collect(),
    };
    let view = asked.query.view();
    let tops: Vec<(&str, Option<&str>)> = view.top_dimensions().collect();
    let is_by = |by: Option<&str>| args.by.is_none() || by == args.by.as_deref();
    let fitting = tops.iter().filter(|(_, by)| is_by(*by));
    let of = match (&args.of, fitting.clone().next()) {
        (None, Some((of, _))) => (*of).to_owned(),
        (of, _) => kind.chosen(&asked, of.as_ref())?,
    };
    // Where nothing is said how often they came, if the view has that, else by what they weigh.
    let mut fitting = fitting.filter(|(name, _)| *name == of);
    let Some(by) = fitting.clone().find(|(_, by)| by.is_none()).or_else(|| fitting.next()) else {
        return Err(Failure::new(format!(
            "the view {} keeps no top of {of} by {}; it keeps the top of: {}",
            view.name(),
            args.by.as_deref().unwrap_or_default(),
            told(&tops)
        )));
    };
    let by = by.1.map(ToOwned::to_owned);
    let columns = [
        ("item", 0),
        ("count", 0),
        ("lower", 1),
        ("upper", 2),
        ("exact", 4),
        ("share", 5),
        ("above", 1),
    ];
    let columns = if args.above.is_some() { &columns[..] } else { &columns[..6] };
    args.which.write(asked, false, columns, Extent::Many, |sketches, take| {
        let top = match &by {
            Some(by) => sketches.top_by(&of, by),
            None => sketches.top(&of),
        };
        for cells in top.map_or_else(Vec::new, |top| heavy_rows(top, args)) {
            take(&cells)?;
        }
        Ok(())
    })
}

/// Each top by what it is of and by what it weighs.
fn told(tops: &[(&str, Option<&str>)]) -> String {
    let told = |(of, by): &(&str, Option<&str>)| match by {
        Some(by) => format!("{of} by {by}"),
        None => (*of).to_owned(),
    };
    tops.iter().map(told).collect::<Vec<_>>().join(", ")
}

fn heavy_rows(top: &Top, args: &HeavyArgs) -> Vec<Vec<Cell>> {
    let row = |heavy: &Heavy, above: Option<&str>| {
        let mut cells = vec![Cell::Text(heavy.text().into_owned())];
        cells.extend([heavy.value, heavy.lower, heavy.upper].map(Cell::Count));
        cells.push(Cell::Flag(heavy.is_exact()));
        cells.push(Cell::Number(heavy.value as f64 / top.total().max(1) as f64));
        cells.extend(above.map(|above| Cell::Text(above.to_owned())));
        cells
    };
    let Some(threshold) = args.above else {
        if top.error() > 0 {
            say(&format!("hint: what is not named here may count up to {}", top.error()));
        }
        return top.top(args.limit).iter().map(|heavy| row(heavy, None)).collect();
    };
    let above = top.above(threshold);
    if !above.complete {
        say(&format!(
            "others may count more than {threshold}, too: of what is not named no more is known than \
             that none counts more than {}",
            top.error()
        ));
    }
    let named = above.guaranteed.len() + above.possible.len();
    if named > args.limit {
        let more = number::grouped((named - args.limit) as u64);
        say(&format!("hint: there are {more} more; -n {named} shows all"));
    }
    let guaranteed = above.guaranteed.iter().map(|heavy| row(heavy, Some("surely")));
    let possible = above.possible.iter().map(|heavy| row(heavy, Some("maybe")));
    guaranteed.chain(possible).take(args.limit).collect()
}

/// Runs `quantile`.
pub(crate) fn quantile(args: &QuantileArgs) -> Result<(), Failure> {
    let asked = args.which.view.ask()?;
    let kind = Kind {
        name: "quantiles",
        option: "--quantiles MEASURE",
        of: |view| view.quantile_measures().chain(view.kll_measures()).collect(),
    };
    let of = kind.chosen(&asked, args.of.as_ref())?;
    let by_value = asked.query.view().quantile_measures().any(|measure| measure == of);
    let of_measure = |sketches: &Sketches| {
        if by_value {
            Distribution::ByValue(sketches.quantiles(&of).cloned().unwrap_or_default())
        } else {
            Distribution::ByRank(sketches.kll(&of).cloned().unwrap_or_default())
        }
    };
    // Bounds by value hold always.
    let bounds = &BOUNDS[..if by_value { 3 } else { 4 }];
    if !args.edges.is_empty() {
        let columns = [&[("above", 0), ("up_to", 0), ("count", 0)], bounds].concat();
        return args.which.write(asked, args.each, &columns, Extent::Many, |sketches, take| {
            let counts = of_measure(sketches).histogram(&args.edges)?;
            let edge = |at: Option<usize>| {
                let edge = at.and_then(|at| args.edges.get(at));
                edge.map_or(Cell::Missing, |edge| Cell::Number(*edge))
            };
            for (at, count) in counts.iter().enumerate() {
                let mut cells = vec![edge(at.checked_sub(1)), edge(Some(at))];
                cells.extend(counted(*count).into_iter().take(1 + bounds.len()));
                take(&cells)?;
            }
            Ok(())
        });
    }
    let columns = [&[("percentile", 0), ("value", 0)], bounds].concat();
    args.which.write(asked, args.each, &columns, Extent::Many, |sketches, take| {
        let distribution = of_measure(sketches);
        for at in &args.at {
            let mut cells = vec![Cell::Text(at.name.clone())];
            match distribution.percentile(at.percent)? {
                Some(answer) => cells.extend(measured(answer).into_iter().take(1 + bounds.len())),
                None => cells.resize(2 + bounds.len(), Cell::Missing),
            }
            take(&cells)?;
        }
        Ok(())
    })
}

/// A distribution, whichever guarantees it has.
enum Distribution {
    ByValue(Quantiles),
    ByRank(Kll),
}

impl Distribution {
    fn percentile(&self, percent: f64) -> quipu::Result<Option<Approx>> {
        match self {
            Distribution::ByValue(quantiles) => quantiles.percentile(percent),
            Distribution::ByRank(kll) => kll.quantile(percent / 100.0),
        }
    }

    fn histogram(&self, edges: &[f64]) -> quipu::Result<Vec<Approx>> {
        match self {
            Distribution::ByValue(quantiles) => quantiles.histogram(edges),
            Distribution::ByRank(kll) => kll.histogram(edges),
        }
    }
}

/// The cells of an answer in the measure's unit.
fn measured(answer: Approx) -> [Cell; 5] {
    let [value, lower, upper] = [answer.value, answer.lower, answer.upper].map(Cell::Number);
    [value, lower, upper, Cell::Flag(answer.is_exact()), Cell::Number(answer.confidence)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_read_and_what_is_none_is_refused() {
        let parsed = |text| Percentile::parse(text).map(|p| (p.name, p.percent));
        assert_eq!(parsed("p50"), Ok(("p50".to_owned(), 50.0)));
        assert_eq!(parsed("75"), Ok(("p75".to_owned(), 75.0)));
        assert_eq!(parsed("p0.5"), Ok(("p0.5".to_owned(), 0.5)));
        assert!(parsed("0.99").unwrap_err().contains("p99 for that share"));
        for wrong in ["", "p", "p101", "-1", "median", "pNaN", "inf"] {
            assert!(parsed(wrong).unwrap_err().contains("p0 to p100"), "{wrong}");
        }
    }
}
