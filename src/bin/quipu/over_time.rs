//! The questions about time: `series`, `seen` and `ratio`.
//!
//! 1. "Now" is the clock's; what is kept, and what an answer may say, the engine decides.
//! 2. A terminal sees bars beside the counts; every other form has the numbers only.

use std::time::Duration;

use clap::Args;
use quipu::{Estimate, Grain, RangeQuery, Seen, SeriesQuery, SpanQuery};

use crate::ask::{Asked, MeasuredArgs, ViewArgs, grain};
use crate::failure::Failure;
use crate::instant::Moment;
use crate::number;
use crate::rows;
use crate::sheet::{Cell, Column, Extent, Format, Sheet};
use crate::spark;
use crate::table::Align;

const SERIES_EXAMPLES: &str = "\
Examples:
  quipu series by_user 17850 --last 24h --dir shop
  quipu series by_product 85123A --last 12w --measure value --dir shop
  quipu series by_hour --last 24h --trailing --dir shop    (exactly 24 hours)
  quipu series by_hour --from 2011-05-01 --to 2011-05-03 --grain hour --dir shop
  quipu series by_hour --from 2011-05-01T06:30:00Z --to 2011-05-01T18:00:00Z \\
      --dir shop";

const SEEN_EXAMPLES: &str = "\
Examples:
  quipu seen by_user 17850 --dir shop
  quipu seen counters backup --within 1d --dir shop     (exit code 1 if not)";

const RATIO_EXAMPLES: &str = "\
Examples:
  quipu ratio counters error request --last 24h --dir app
  quipu ratio by_country_event FR refund FR sale --last 30d --dir shop";

/// A key's buckets over a time, with bars; or how many events a span of time has
///
/// The last 24h are the present hour so far and the 23 before it; with --trailing they are exactly 24
/// hours ending now, counted between two bounds where buckets are cut.
#[derive(Debug, Args)]
#[command(after_help = SERIES_EXAMPLES)]
pub(crate) struct SeriesArgs {
    #[command(flatten)]
    view: MeasuredArgs,
    /// The parts of the key, in the order of the view's dimensions
    #[arg(value_name = "KEY")]
    key: Vec<String>,
    #[command(flatten)]
    stretch: StretchArgs,
    /// Buckets of this grain [default: the unit of --last; of a span none, but its count]
    #[arg(long, value_name = "GRAIN", value_parser = grain)]
    grain: Option<Grain>,
}

/// When a key's first and last events were
///
/// Exit code 1 where there is no such key.
#[derive(Debug, Args)]
#[command(after_help = SEEN_EXAMPLES)]
pub(crate) struct SeenArgs {
    #[command(flatten)]
    view: ViewArgs,
    /// The parts of the key, in the order of the view's dimensions
    #[arg(value_name = "KEY")]
    key: Vec<String>,
    /// Exit with code 1 unless its last event was less than so long ago: 500ms, 90s, 15m, 6h, 7d, 2w
    #[arg(long, value_name = "TIME", value_parser = Units::parse)]
    within: Option<Units>,
}

/// The events of one key as a part of another's
///
/// Exit code 1 where there is no ratio: one of the two is not there, or the second has no events.
#[derive(Debug, Args)]
#[command(after_help = RATIO_EXAMPLES)]
pub(crate) struct RatioArgs {
    #[command(flatten)]
    view: ViewArgs,
    /// The parts of the first key, then those of the second
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    /// The last so many units, the present one so far included: 500ms, 90s, 60m, 24h, 7d, 4w, 12mo, 2y
    #[arg(long, value_name = "TIME", value_parser = Units::parse)]
    last: Units,
    /// Take what is kept of both keys where that is less
    #[arg(long)]
    kept: bool,
}

/// Which time.
#[derive(Debug, Args)]
struct StretchArgs {
    /// The last so many units, the present one so far included: 500ms, 90s, 60m, 24h, 7d, 4w, 12mo, 2y
    #[arg(long, value_name = "TIME", value_parser = Units::parse, required_unless_present = "from")]
    last: Option<Units>,
    /// Exactly so long, ending now
    #[arg(long, requires = "last", conflicts_with = "from")]
    trailing: bool,
    /// From this time on: RFC 3339, a date in the directory's time zone, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = Moment::parse, requires = "to",
        conflicts_with = "last")]
    from: Option<Moment>,
    /// Up to this time, which is not in it
    #[arg(long, value_name = "TIME", value_parser = Moment::parse, requires = "from")]
    to: Option<Moment>,
    /// Take what is kept where that is less
    #[arg(long)]
    kept: bool,
}

/// So many units of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Units {
    pub(crate) n: u32,
    pub(crate) grain: Grain,
}

impl Units {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no number of units: a whole number and ms, s, m, h, d, w, mo or y, as in \
                 24h"
            )
        };
        let end = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let n = text[..end].parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
        let grain = match text[end..].trim() {
            "ms" => Grain::every(Duration::from_millis(1)).map_err(|error| error.to_string())?,
            "s" => Grain::Second,
            "m" => Grain::Minute,
            "h" => Grain::Hour,
            "d" => Grain::Day,
            "w" => Grain::Week,
            "mo" => Grain::Month,
            "y" => Grain::Year,
            _ => return Err(wrong()),
        };
        Ok(Units { n, grain })
    }

    /// How long they are, if they are always as long.
    fn length(self) -> Result<Duration, Failure> {
        let unit = match self.grain {
            Grain::Second => Duration::from_secs(1),
            Grain::Minute => Duration::from_mins(1),
            Grain::Hour => Duration::from_hours(1),
            Grain::Day => Duration::from_hours(24),
            Grain::Week => Duration::from_hours(7 * 24),
            Grain::Every(period) => period.length(),
            _ => {
                let message = format!(
                    "a {} has no length of its own: say it in days, weeks or hours",
                    self.grain
                );
                return Err(Failure::usage(message));
            }
        };
        Ok(unit.saturating_mul(self.n))
    }
}

/// What is asked of a series.
enum Stretch {
    Range(RangeQuery),
    Span(SpanQuery),
}

impl StretchArgs {
    fn of(
        &self,
        asked: &Asked,
        series: &SeriesQuery,
        grain: Option<Grain>,
    ) -> Result<Stretch, Failure> {
        let span = match (self.last, self.from, self.to) {
            (Some(last), ..) if !self.trailing => {
                let range = series.last(last.n, last.grain);
                let range = if self.kept { range.kept() } else { range };
                return Ok(Stretch::Range(grain.map_or(range.clone(), |grain| range.by(grain))));
            }
            (Some(last), ..) => series.trailing(last.length()?),
            (None, Some(from), Some(to)) => {
                let zone = asked.time_zone();
                series.between(from.in_zone(zone), to.in_zone(zone))
            }
            (None, ..) => return Err(Failure::usage("say --last, or --from and --to")),
        };
        let span = if self.kept { span.kept() } else { span };
        Ok(match grain {
            Some(grain) => Stretch::Range(span.by(grain)),
            None => Stretch::Span(span),
        })
    }
}

pub(crate) fn no_such_key(view: &str, key: &[String]) -> Failure {
    Failure::new(match key {
        [] => format!("the view {view} has no events"),
        key => format!("no such key in {view}: {}", number::key(key)),
    })
}

fn series_of(asked: &Asked, key: &[String]) -> quipu::Result<SeriesQuery> {
    let key: Vec<&str> = key.iter().map(String::as_str).collect();
    asked.query.series(&key)
}

/// Runs `series`.
pub(crate) fn series(args: &SeriesArgs) -> Result<(), Failure> {
    let asked = args.view.ask()?;
    let missing = || no_such_key(args.view.name(), &args.key);
    let series = series_of(&asked, &args.key)?;
    let advised = |error| advised(error, args.stretch.kept);
    match args.stretch.of(&asked, &series, args.grain)? {
        Stretch::Range(range) => {
            let buckets = range.buckets().map_err(advised)?.ok_or_else(missing)?;
            let output = args.view.output();
            let has_bars = output.format() == Format::Table;
            let mut sheet = rows::bucket_sheet();
            if has_bars {
                sheet.columns.push(Column { name: "", align: Align::Left, rank: 0 });
            }
            let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(0);
            let mut answer = output.start(sheet, Extent::Many)?;
            for bucket in &buckets {
                let mut cells = rows::bucket_cells(bucket);
                if has_bars {
                    let share = bucket.count as f64 / most.max(1) as f64;
                    cells.push(Cell::Text(spark::bar(share, BAR_CHARS)));
                }
                answer.row(&[], &cells)?;
            }
            asked.finish(answer)
        }
        Stretch::Span(span) => {
            let estimate = span.sum().map_err(advised)?.ok_or_else(missing)?;
            let mut answer = args.view.output().start(estimate_sheet(), Extent::One)?;
            answer.row(&[], &estimate_cells(&estimate))?;
            asked.finish(answer)
        }
    }
}

/// How long the longest bar is.
const BAR_CHARS: usize = 24;

/// What to do where more was asked for than is kept, if something of it may be.
pub(crate) fn advised(error: quipu::Error, kept: bool) -> Failure {
    let helps = error.kind() == quipu::ErrorKind::NotKept
        && !kept
        && error.to_string().contains("for what is kept");
    let failure = Failure::from(error);
    if helps { failure.because("--kept takes what there is") } else { failure }
}

fn columns(names: &[(&'static str, u8)]) -> Sheet {
    let column = |&(name, rank)| Column { name, align: Align::Right, rank };
    Sheet { key: None, columns: names.iter().map(column).collect() }
}

fn estimate_sheet() -> Sheet {
    columns(&[
        ("start", 2),
        ("end", 3),
        ("known_from", 4),
        ("lower", 0),
        ("upper", 0),
        ("estimate", 1),
    ])
}

fn estimate_cells(estimate: &Estimate) -> Vec<Cell> {
    vec![
        Cell::Time(estimate.start),
        Cell::Time(estimate.end),
        Cell::Time(estimate.known_from),
        Cell::Count(estimate.lower),
        Cell::Count(estimate.upper),
        Cell::Number(estimate.estimate),
    ]
}

/// Runs `seen`.
pub(crate) fn seen(args: &SeenArgs) -> Result<(), Failure> {
    let asked = args.view.ask()?;
    let series = series_of(&asked, &args.key)?;
    let (Some(first), Some(last)) = (series.first_seen()?, series.last_seen()?) else {
        return Err(no_such_key(args.view.name(), &args.key));
    };
    let within = args.within.map(Units::length).transpose()?;
    let sheet = columns(&[
        ("first_seen", 1),
        ("first_within_s", 5),
        ("last_seen", 0),
        ("last_within_s", 4),
        ("age_s", 0),
    ]);
    let mut answer = args.view.output().start(sheet, Extent::One)?;
    let cells = |seen: &Seen| [Cell::Time(seen.time), Cell::Number(seen.half_width.as_secs_f64())];
    let age = Cell::Number(last.age.as_secs_f64());
    let cells: Vec<Cell> = cells(&first).into_iter().chain(cells(&last)).chain([age]).collect();
    answer.row(&[], &cells)?;
    asked.finish(answer)?;
    match within {
        Some(within) if last.age >= within => {
            let digits = if within.subsec_nanos() == 0 { 0 } else { 3 };
            Err(Failure::new(format!(
                "it was last seen {:.digits$} s ago, which is not within {:.digits$} s",
                last.age.as_secs_f64(),
                within.as_secs_f64()
            )))
        }
        _ => Ok(()),
    }
}

/// Runs `ratio`.
pub(crate) fn ratio(args: &RatioArgs) -> Result<(), Failure> {
    let asked = args.view.ask()?;
    let parts = asked.query.view().key().len();
    if parts == 0 || args.keys.len() != 2 * parts {
        return Err(Failure::usage(format!(
            "two keys of {} are {} parts, and {} were given",
            args.view.name(),
            2 * parts,
            args.keys.len()
        )));
    }
    let (first, second) = args.keys.split_at(parts);
    let range = series_of(&asked, first)?.last(args.last.n, args.last.grain);
    let range = if args.kept { range.kept() } else { range };
    let second_series = series_of(&asked, second)?;
    let (of, to) = range.both(second_series).map_err(|error| advised(error, args.kept))?;
    let of = of.ok_or_else(|| no_such_key(args.view.name(), first))?;
    let to = to.ok_or_else(|| no_such_key(args.view.name(), second))?;
    let sheet = columns(&[("count", 0), ("of", 0), ("ratio", 0)]);
    let ratio = if to == 0 { Cell::Missing } else { Cell::Number(of as f64 / to as f64) };
    let mut answer = args.view.output().start(sheet, Extent::One)?;
    answer.row(&[], &[Cell::Count(of), Cell::Count(to), ratio])?;
    asked.finish(answer)?;
    if to == 0 {
        let key = number::key(second);
        return Err(Failure::new(format!("{key} has no events in that time: there is no ratio")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_what_is_none_is_refused() {
        let units = |n, grain| Ok(Units { n, grain });
        assert_eq!(Units::parse("24h"), units(24, Grain::Hour));
        assert_eq!(Units::parse("90s"), units(90, Grain::Second));
        let millis = Units::parse("250ms").unwrap();
        assert_eq!((millis.n, millis.grain.to_string().as_str()), (250, "1ms"));
        assert_eq!(millis.length().unwrap(), Duration::from_millis(250));
        assert_eq!(Units::parse("12mo"), units(12, Grain::Month));
        assert_eq!(Units::parse("60m"), units(60, Grain::Minute));
        for wrong in ["", "h", "24", "0d", "-1d", "1.5h", "3x", "99999999999d", "1é"] {
            assert!(Units::parse(wrong).unwrap_err().contains("as in 24h"), "{wrong}");
        }
        assert!(Units { n: 2, grain: Grain::Month }.length().is_err());
        assert_eq!(Units { n: 36, grain: Grain::Hour }.length().unwrap(), Duration::from_hours(36));
    }
}
