//! The questions to sketches: `distinct`, `common`, `heavy` and `quantile`.
//!
//! 1. No key is all keys together, a part of one those that begin with it; with `--each` every key
//!    answers for itself.
//! 2. Every figure has its bounds beside it, in every form.

use clap::Args;
use quipu::aggregate::{Approx, Distinct, Quantiles, Sketches, Theta, Top};
use quipu::{RangeQuery, SeriesQuery, Timestamp, Total};

use crate::args::Output;
use crate::ask::{Asked, ViewArgs, grain};
use crate::failure::Failure;
use crate::over_time::{Units, advised, moment, no_such_key};
use crate::progress::say;
use crate::sheet::{Cell, Column, Extent, Sheet};
use crate::table::Align;

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
    #[arg(long, value_name = "COUNT")]
    above: Option<u64>,
}

/// Medians, percentiles and histograms of a measure
#[derive(Debug, Args)]
#[command(after_help = QUANTILE_EXAMPLES)]
pub(crate) struct QuantileArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// The measure, where the view has the quantiles of several [default: its first]
    #[arg(long, value_name = "MEASURE")]
    of: Option<String>,
    /// Which percentiles
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', value_parser = Percentile::parse,
        default_value = "p50,p90,p95,p99")]
    at: Vec<Percentile>,
    /// How many values there are up to each of these, and above the last, instead
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

/// Which keys, and when.
#[derive(Debug, Args)]
struct WhichArgs {
    #[command(flatten)]
    view: ViewArgs,
    /// The parts of the key, in the order of the view's dimensions; the first ones for all keys that
    /// begin so, none for all
    #[arg(value_name = "KEY")]
    key: Vec<String>,
    #[command(flatten)]
    when: WhenArgs,
}

/// Which time; all of it where nothing is said.
#[derive(Debug, Args)]
struct WhenArgs {
    /// The last so many units, the present one so far included: 500ms, 90s, 60m, 24h, 7d, 4w, 12mo, 2y
    /// [default: since ever]
    #[arg(long, value_name = "TIME", value_parser = Units::parse, conflicts_with = "from")]
    last: Option<Units>,
    /// The buckets from this time on (RFC 3339, or milliseconds since 1970)
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "to")]
    from: Option<Timestamp>,
    /// Up to this time, which is not in it
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "from")]
    to: Option<Timestamp>,
    /// In buckets of this grain [default: the unit of --last; of a span the view's finest]
    #[arg(long, value_name = "GRAIN", value_parser = grain)]
    grain: Option<quipu::Grain>,
    /// Take what is kept where that is less
    #[arg(long)]
    kept: bool,
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

impl WhenArgs {
    fn of(&self, series: &SeriesQuery) -> Result<RangeQuery, Failure> {
        let range = match (self.last, self.from, self.to) {
            (Some(last), ..) => series.last(last.n, last.grain),
            (None, Some(from), Some(to)) => {
                let finest = series.view().grains().first().map(|(grain, _)| *grain);
                let grain = self.grain.or(finest).ok_or_else(|| {
                    Failure::usage(format!(
                        "the view {} keeps no buckets: it can be asked about all time only",
                        series.view().name()
                    ))
                })?;
                series.between(from, to).by(grain)
            }
            _ if self.grain.is_some() => {
                return Err(Failure::usage("--grain is of --last, or of --from and --to"));
            }
            _ => series.ever(),
        };
        let range = match self.grain {
            Some(grain) if self.last.is_some() => range.by(grain),
            _ => range,
        };
        Ok(if self.kept { range.kept() } else { range })
    }

    fn total(&self, series: &SeriesQuery) -> Result<Option<Total>, Failure> {
        let total = self.of(series)?.total().map_err(|error| advised(error, self.kept))?;
        if let Some(total) = total.as_ref().filter(|total| total.is_partial()) {
            say(&format!("what is kept begins with {}", total.known_from));
        }
        Ok(total)
    }
}

impl WhichArgs {
    /// The answer of all keys that are meant together, or the key and the answer of each.
    fn totals(&self, asked: &Asked, each: bool) -> Result<Vec<(Vec<String>, Total)>, Failure> {
        let query = &asked.query;
        let mut key: Vec<&str> = self.key.iter().map(String::as_str).collect();
        if each {
            let mut totals = Vec::new();
            for row in query.prefix(&key)? {
                let row = row?;
                let parts: Vec<&str> = row.key.iter().map(String::as_str).collect();
                let total = self.when.total(&query.series(&parts)?)?;
                totals.extend(total.map(|total| (row.key.clone(), total)));
            }
            if totals.is_empty() {
                return Err(no_such_key(self.view.name(), &self.key));
            }
            return Ok(totals);
        }
        let parts = query.view().key().len();
        let series = if key.len() == parts {
            query.series(&key)?
        } else if key.is_empty() {
            query.all_series()
        } else {
            if key.len() < parts {
                // Of the next part nothing is said.
                key.push("");
            }
            query.series_starting_with(&key)?
        };
        let total = self.when.total(&series)?;
        let total = total.ok_or_else(|| no_such_key(self.view.name(), &self.key))?;
        Ok(vec![(Vec::new(), total)])
    }

    /// Writes an answer: rows for what there is of each key.
    fn write(
        &self,
        asked: Asked,
        each: bool,
        columns: &[(&'static str, u8)],
        rows: impl Fn(&Sketches) -> Result<Vec<Vec<Cell>>, Failure>,
        extent: Extent,
    ) -> Result<(), Failure> {
        let totals = self.totals(&asked, each)?;
        let key = each.then(|| asked.query.view().key().to_vec());
        let extent = if each { Extent::Many } else { extent };
        let mut answer = start(self.view.output(), key, columns, extent)?;
        for (key, total) in &totals {
            for cells in rows(&total.sketches)? {
                answer.row(key, &cells)?;
            }
        }
        asked.finish(answer)
    }
}

fn start(
    output: &Output,
    key: Option<Vec<String>>,
    columns: &[(&'static str, u8)],
    extent: Extent,
) -> Result<crate::ask::Answer, Failure> {
    let align = |name| if matches!(name, "item" | "quantile") { Align::Left } else { Align::Right };
    let column = |&(name, rank)| Column { name, align: align(name), rank };
    output.start(Sheet { key, columns: columns.iter().map(column).collect() }, extent)
}

/// Which of some names is meant, the first by default.
fn chosen(
    asked: &Asked,
    of: Option<&String>,
    names: &[&str],
    what: &str,
) -> Result<String, Failure> {
    let view = asked.query.view();
    let listed = || names.join(", ");
    match of {
        Some(of) if names.contains(&of.as_str()) => Ok(of.clone()),
        Some(of) if !names.is_empty() => Err(Failure::new(format!(
            "the view {} keeps no {what} of {of}; it does of: {}",
            view.name(),
            listed()
        ))),
        None if !names.is_empty() => Ok(names[0].to_owned()),
        _ => Err(Failure::new(format!(
            "the view {} keeps no {what}; quipu define {} --replace with it adds it",
            view.name(),
            view.name()
        ))),
    }
}

fn approx(answer: Approx) -> [Cell; 3] {
    [answer.value, answer.lower, answer.upper].map(Cell::Number)
}

const APPROX: [(&str, u8); 3] = [("lower", 1), ("upper", 1), ("confidence", 2)];

/// A number of things, as whole ones.
fn counted(answer: Approx) -> Vec<Cell> {
    let whole = |number: f64| Cell::Count(number as u64);
    let certain = if answer.is_exact() { 1.0 } else { answer.confidence };
    let (lower, upper) = (whole(answer.lower.floor()), whole(answer.upper.ceil()));
    vec![whole(answer.value.round()), lower, upper, Cell::Number(certain)]
}

/// Runs `distinct`.
pub(crate) fn distinct(args: &DistinctArgs) -> Result<(), Failure> {
    let asked = args.which.view.ask()?;
    let view = asked.query.view();
    let mut names: Vec<&str> = view.distinct_dimensions().collect();
    for of in view.theta_dimensions() {
        if !names.contains(&of) {
            names.push(of);
        }
    }
    let of = chosen(&asked, args.of.as_ref(), &names, "distinct count")?;
    let rows = |sketches: &Sketches| {
        let distinct = sketches.distinct(&of).map(Distinct::estimate);
        let approx = distinct.or_else(|| sketches.theta(&of).map(Theta::estimate));
        Ok(approx.map(counted).into_iter().collect())
    };
    let columns = [&[("distinct", 0)][..], &APPROX].concat();
    args.which.write(asked, args.each, &columns, rows, Extent::One)
}

/// Runs `common`.
pub(crate) fn common(args: &CommonArgs) -> Result<(), Failure> {
    let asked = args.view.ask()?;
    let query = &asked.query;
    let names: Vec<&str> = query.view().theta_dimensions().collect();
    let of = chosen(&asked, args.of.as_ref(), &names, "theta sketch")?;
    let parts = query.view().key().len();
    if parts == 0 || args.keys.len() % parts + args.without.len() % parts > 0 {
        return Err(Failure::usage(format!(
            "keys of {} have {parts} parts each",
            args.view.name()
        )));
    }
    let sets = |keys: &[String]| -> Result<Vec<Theta>, Failure> {
        let set = |key: &[String]| {
            let series: Vec<&str> = key.iter().map(String::as_str).collect();
            let total = args.when.total(&query.series(&series)?)?;
            let total = total.ok_or_else(|| no_such_key(args.view.name(), key))?;
            Ok(total.sketches.theta(&of).cloned().unwrap_or_default())
        };
        keys.chunks(parts).map(set).collect()
    };
    let (all, none) = (sets(&args.keys)?, sets(&args.without)?);
    let [all, none] = [&all, &none].map(|sets| sets.iter().collect::<Vec<_>>());
    let columns = [&[("common", 0)][..], &APPROX].concat();
    let mut answer = start(args.view.output(), None, &columns, Extent::One)?;
    answer.row(&[], &counted(Theta::in_all_and_none(&all, &none)))?;
    asked.finish(answer)
}

/// Runs `heavy`.
pub(crate) fn heavy(args: &HeavyArgs) -> Result<(), Failure> {
    let asked = args.which.view.ask()?;
    let tops: Vec<(&str, Option<&str>)> = asked.query.view().top_dimensions().collect();
    let by_measure =
        |(_, by): &&(&str, Option<&str>)| args.by.is_none() || *by == args.by.as_deref();
    let names: Vec<&str> = tops.iter().filter(by_measure).map(|(of, _)| *of).collect();
    let what = args.by.as_ref().map_or_else(|| "top".to_owned(), |by| format!("top by {by}"));
    let of = chosen(&asked, args.of.as_ref(), &names, &what)?;
    // Where nothing is said how often they came, if the view has that, else by what they weigh.
    let mut of_name = tops.iter().filter(by_measure).filter(|(name, _)| *name == of);
    let by = of_name.clone().find(|(_, by)| by.is_none()).or_else(|| of_name.next());
    let by = by.and_then(|(_, by)| by.map(ToOwned::to_owned));
    let rows = |sketches: &Sketches| {
        let top = match &by {
            Some(by) => sketches.top_by(&of, by),
            None => sketches.top(&of),
        };
        Ok(top.map_or_else(Vec::new, |top| heavy_rows(top, args)))
    };
    let columns =
        [("item", 0), ("count", 0), ("lower", 1), ("upper", 1), ("share", 2), ("above", 3)];
    let columns = if args.above.is_some() { &columns[..] } else { &columns[..5] };
    args.which.write(asked, false, columns, rows, Extent::Many)
}

fn heavy_rows(top: &Top, args: &HeavyArgs) -> Vec<Vec<Cell>> {
    let row = |heavy: &quipu::aggregate::Heavy, above: Option<&str>| {
        let mut cells = vec![Cell::Text(heavy.text().into_owned())];
        cells.extend([heavy.value, heavy.lower, heavy.upper].map(Cell::Count));
        cells.push(Cell::Number(heavy.value as f64 / top.total().max(1) as f64));
        cells.extend(above.map(|above| Cell::Text(above.to_owned())));
        cells
    };
    let Some(threshold) = args.above else {
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
    let guaranteed = above.guaranteed.iter().map(|heavy| row(heavy, Some("surely")));
    let possible = above.possible.iter().map(|heavy| row(heavy, Some("maybe")));
    guaranteed.chain(possible).take(args.limit).collect()
}

/// Runs `quantile`.
pub(crate) fn quantile(args: &QuantileArgs) -> Result<(), Failure> {
    let asked = args.which.view.ask()?;
    let names: Vec<&str> = asked.query.view().quantile_measures().collect();
    let of = chosen(&asked, args.of.as_ref(), &names, "quantiles")?;
    let of_measure = |sketches: &Sketches| sketches.quantiles(&of).cloned().unwrap_or_default();
    if !args.edges.is_empty() {
        let rows = |sketches: &Sketches| histogram_rows(&of_measure(sketches), &args.edges);
        let columns = [("above", 0), ("up_to", 0), ("count", 0), ("lower", 1), ("upper", 1)];
        return args.which.write(asked, args.each, &columns, rows, Extent::Many);
    }
    let rows = |sketches: &Sketches| {
        let quantiles = of_measure(sketches);
        let row = |percentile: &Percentile| {
            let mut cells = vec![Cell::Text(percentile.name.clone())];
            match quantiles.percentile(percentile.percent)? {
                Some(answer) => cells.extend(approx(answer)),
                None => cells.extend([Cell::Missing, Cell::Missing, Cell::Missing]),
            }
            Ok(cells)
        };
        args.at.iter().map(row).collect()
    };
    let columns = [("quantile", 0), ("value", 0), ("lower", 1), ("upper", 1)];
    args.which.write(asked, args.each, &columns, rows, Extent::Many)
}

fn histogram_rows(quantiles: &Quantiles, edges: &[f64]) -> Result<Vec<Vec<Cell>>, Failure> {
    let counts = quantiles.histogram(edges)?;
    let edge = |at: Option<usize>| {
        at.and_then(|at| edges.get(at)).map_or(Cell::Missing, |edge| Cell::Number(*edge))
    };
    let row = |(at, count): (usize, &Approx)| {
        let mut cells = vec![edge(at.checked_sub(1)), edge(Some(at))];
        cells.extend(counted(*count).into_iter().take(3));
        cells
    };
    Ok(counts.iter().enumerate().map(row).collect())
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
