//! The questions: `top`, `get`, `list` and `totals`.
//!
//! 1. Rows are written as the engine gives them; a list of a million keys is never held, except
//!    a page of a table.
//! 2. The rows of an answer are those of the engine, in its order; nothing is sorted here.

use std::io::{self, BufWriter, StdoutLock};
use std::ops::ControlFlow;

use clap::Args;
use quipu::{Component, Grain, Query, Row, TimeZone, ViewStatus};

use crate::args::{Opened, Output, Place};
use crate::failure::Failure;
use crate::over_time::no_such_key;
use crate::rows;
use crate::sheet::{Cell, Column, Extent, SheetWriter};
use crate::table::Align;

const TOP_EXAMPLES: &str = "\
Examples:
  quipu top by_product --by sum -n 10 --dir shop
  quipu top by_user --by last_seen --ascending --dir shop     (longest not seen)
  quipu top routes --by p99 --dir app            (where it keeps --quantiles)
  quipu top sold --by distinct --dimension user --dir shop";

const FIGURES: &str = "\
The figure that decides: count, count_value, sum, mean, min, max, first_seen, last_seen; distinct, where the \
view counts the different values of a dimension; p50, p99.9 and other percentiles, where it keeps quantiles";

const GET_EXAMPLES: &str = "\
Examples:
  quipu get by_user 17850 --dir shop
  quipu get by_user_product 17850 85123A --format json --dir shop
  quipu get by_hour --buckets hour --dir shop    (a view without a key)";

const LIST_EXAMPLES: &str = "\
Examples:
  quipu list by_category --dir shop
  quipu list by_user -n 20 --dir shop
  quipu list by_user_product --prefix 17850 --dir shop   (one user's products)
  quipu list by_user --unordered --format csv --dir shop > users.csv";

const TOTALS_EXAMPLES: &str = "\
Examples:
  quipu totals by_category --dir shop";

/// The first keys of a view by a figure
///
/// Equal figures are ordered by key. Keys that have nothing of the figure are left out.
#[derive(Debug, Args)]
#[command(after_help = TOP_EXAMPLES)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    view: MeasuredArgs,
    #[arg(long, value_name = "FIGURE", default_value = "count", value_parser = component, help = FIGURES)]
    by: Component,
    /// The dimension whose different values decide, where the view counts those of several [default:
    /// its first]
    #[arg(long, value_name = "NAME")]
    dimension: Option<String>,
    /// At most so many rows
    #[arg(short = 'n', long, alias = "n", value_name = "N", default_value_t = 10)]
    limit: usize,
    /// The lowest first
    #[arg(long)]
    ascending: bool,
}

/// One key of a view
///
/// Exit code 1 where there is no such key.
#[derive(Debug, Args)]
#[command(after_help = GET_EXAMPLES)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    view: MeasuredArgs,
    /// The parts of the key, in the order of the view's dimensions
    #[arg(value_name = "KEY")]
    key: Vec<String>,
    /// The buckets of the key's series in this grain, instead of its totals
    #[arg(long, value_name = "GRAIN", value_parser = grain)]
    buckets: Option<Grain>,
}

/// The keys of a view in key order
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    view: MeasuredArgs,
    /// Only keys that begin with these parts
    #[arg(long, value_name = "PART", num_args = 1..)]
    prefix: Vec<String>,
    /// At most so many rows [default: all]
    #[arg(short = 'n', long, alias = "n", value_name = "N")]
    limit: Option<usize>,
    /// In any order, which is faster
    #[arg(long, conflicts_with = "prefix")]
    unordered: bool,
}

/// All keys of a view as one row
#[derive(Debug, Args)]
#[command(after_help = TOTALS_EXAMPLES)]
pub(crate) struct TotalsArgs {
    #[command(flatten)]
    view: MeasuredArgs,
}

/// What every question needs.
#[derive(Debug, Args)]
pub(crate) struct ViewArgs {
    /// The view to ask
    #[arg(value_name = "VIEW")]
    view: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

/// What questions need that show the figures of a measure.
#[derive(Debug, Args)]
pub(crate) struct MeasuredArgs {
    #[command(flatten)]
    view: ViewArgs,
    /// The measure to show, where the view has several [default: its first]
    #[arg(long, value_name = "NAME")]
    measure: Option<String>,
}

impl MeasuredArgs {
    /// The name of the view.
    pub(crate) fn name(&self) -> &str {
        self.view.name()
    }

    pub(crate) fn output(&self) -> &Output {
        self.view.output()
    }

    pub(crate) fn ask(&self) -> Result<Asked, Failure> {
        let asked = self.view.ask()?;
        let Some(measure) = &self.measure else { return Ok(asked) };
        Ok(Asked { query: asked.query.measure(measure)?, ..asked })
    }

    /// The same for counts and statistics alone, which are all that a row shows.
    fn ask_for_figures(&self) -> Result<Asked, Failure> {
        let asked = self.ask()?;
        Ok(Asked { query: asked.query.without_sketches(), ..asked })
    }
}

fn component(text: &str) -> Result<Component, String> {
    text.parse().map_err(|error: quipu::Error| error.to_string())
}

/// A view that was opened to be asked.
pub(crate) struct Asked {
    db: Opened,
    pub(crate) query: Query,
}

impl ViewArgs {
    /// The name of the view.
    pub(crate) fn name(&self) -> &str {
        &self.view
    }

    pub(crate) fn output(&self) -> &Output {
        &self.output
    }

    pub(crate) fn ask(&self) -> Result<Asked, Failure> {
        let db = self.place.open_to_ask()?;
        let query = db.query(&self.view)?;
        Ok(Asked { db, query })
    }
}

/// An answer on its way out.
pub(crate) type Answer = SheetWriter<BufWriter<StdoutLock<'static>>>;

impl Asked {
    fn answer(&self, output: &Output, extent: Extent) -> Result<Answer, Failure> {
        output.start(rows::row_sheet(self.query.view().key(), None), extent)
    }

    /// All views of the directory.
    pub(crate) fn views(&self) -> quipu::Result<Vec<ViewStatus>> {
        self.db.views()
    }

    pub(crate) fn time_zone(&self) -> TimeZone {
        self.db.time_zone()
    }

    pub(crate) fn finish(self, answer: Answer) -> Result<(), Failure> {
        answer.finish()?;
        Ok(self.db.close()?)
    }
}

fn write(answer: &mut Answer, row: &Row) -> io::Result<()> {
    answer.row(&row.key, &rows::row_cells(row))
}

/// Runs `top`.
pub(crate) fn top(args: &TopArgs) -> Result<(), Failure> {
    let mut asked = args.view.ask()?;
    if let Some(dimension) = &args.dimension {
        if args.by != Component::Distinct {
            return Err(Failure::usage("--dimension is of --by distinct"));
        }
        asked.query = asked.query.dimension(dimension)?;
    }
    let is_of_sketch = matches!(args.by, Component::Distinct | Component::Percentile(_));
    if !is_of_sketch {
        asked.query = asked.query.without_sketches();
    }
    let rows = if args.ascending {
        asked.query.bottom(args.limit, args.by)?
    } else {
        asked.query.top(args.limit, args.by)?
    };
    let mut sheet = rows::row_sheet(asked.query.view().key(), Some(args.by));
    if is_of_sketch {
        // The one name that is not of the program; it answers one question.
        let name = args.by.to_string().leak();
        for (at, (name, rank)) in
            [(name as &str, 0), ("lower", 1), ("upper", 1)].into_iter().enumerate()
        {
            sheet.columns.insert(1 + at, Column { name, align: Align::Right, rank });
        }
    }
    let mut answer = args.view.output().start(sheet, Extent::Many)?;
    for row in rows {
        let mut cells = rows::row_cells(&row);
        if is_of_sketch {
            let figure = asked.query.figure(&row, args.by);
            let bounds = figure.map(|figure| [figure.value, figure.lower, figure.upper]);
            let bounds = match bounds {
                Some(bounds) if args.by == Component::Distinct => {
                    bounds.map(|n| Cell::Count(n.round() as u64))
                }
                Some(bounds) => bounds.map(Cell::Number),
                None => [const { Cell::Missing }; 3],
            };
            cells.splice(1..1, bounds);
        }
        answer.row(&row.key, &cells)?;
    }
    asked.finish(answer)
}

/// A grain by its name or its length, in whatever case.
pub(crate) fn grain(text: &str) -> Result<Grain, String> {
    text.to_ascii_lowercase().parse().map_err(|error: quipu::Error| error.to_string())
}

/// Runs `get`.
pub(crate) fn get(args: &GetArgs) -> Result<(), Failure> {
    let asked = args.view.ask_for_figures()?;
    let key: Vec<&str> = args.key.iter().map(String::as_str).collect();
    let Some(row) = asked.query.get(&key)? else {
        return Err(no_such_key(args.view.name(), &args.key));
    };
    let Some(grain) = args.buckets else {
        let mut answer = asked.answer(args.view.output(), Extent::One)?;
        write(&mut answer, &row)?;
        return asked.finish(answer);
    };
    let buckets = asked.query.buckets(&key, grain)?;
    let mut answer = args.view.output().start(rows::bucket_sheet(), Extent::Many)?;
    for bucket in buckets {
        answer.row(&[], &rows::bucket_cells(&bucket))?;
    }
    asked.finish(answer)
}

/// Runs `list`.
pub(crate) fn list(args: &ListArgs) -> Result<(), Failure> {
    let asked = args.view.ask_for_figures()?;
    let prefix: Vec<&str> = args.prefix.iter().map(String::as_str).collect();
    let mut left = args.limit.unwrap_or(usize::MAX);
    if args.unordered {
        let mut answer = asked.answer(args.view.output(), Extent::Many)?;
        let mut written = Ok(());
        asked.query.for_each(|row| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            written = write(&mut answer, &row);
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        written?;
        return asked.finish(answer);
    }
    let rows = asked.query.prefix(&prefix)?;
    let mut answer = asked.answer(args.view.output(), Extent::Many)?;
    for row in rows.take(left) {
        write(&mut answer, &row?)?;
    }
    asked.finish(answer)
}

/// Runs `totals`.
pub(crate) fn totals(args: &TotalsArgs) -> Result<(), Failure> {
    let asked = args.view.ask_for_figures()?;
    let row = asked.query.totals()?;
    let mut answer = args.view.output().start(rows::row_sheet(&[], None), Extent::One)?;
    write(&mut answer, &row)?;
    asked.finish(answer)
}
