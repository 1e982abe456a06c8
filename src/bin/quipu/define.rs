//! `quipu define` and `quipu drop`: views come and go.
//!
//! 1. A view that is defined in a directory with events starts with what comes after, unless it
//!    is backfilled; whoever did not ask for that is told.
//! 2. The same definition again is no error, and with `--backfill` takes up a backfill that was
//!    stopped.
//! 3. Another definition is refused, unless it is to take the place of the one that there is; the view
//!    then holds what it held, and answers by the old one until that is so.

use std::ops::ControlFlow;

use clap::Args;
use quipu::{Db, ErrorKind, Grain, Keep, Options, Progress, TimeZone, View};

use crate::args::Place;
use crate::ask;
use crate::failure::Failure;
use crate::number;
use crate::progress::{Measure, Meter, Show, say};
use crate::sketched::SketchedArgs;

const DEFINE_EXAMPLES: &str = "\
Examples:
  quipu define by_country --by country --stats value --backfill --dir shop
  quipu define sold --by product --events sale --stats value --dir shop
  quipu define france --by user --where country=France --count --dir shop
  quipu define eu_hours --where 'country in FR,DE' --grain hour=72 --dir shop
  quipu define shifts --grain 8h=21,day=400 --time-zone Europe/Paris --dir shop
  quipu define shifts --grain 8h=90,day=400 --replace --dir shop
  quipu define logins --by user --grain minute=61 --create --dir auth
  quipu define buyers --by country --distinct user --top product=500 --dir shop
  quipu define latency --by route --quantiles value --grain hour=48 --dir app
  quipu define urls --count-min url=0.01% --grain hour=48 --dir app
  quipu define cards --by user --membership card=1000:1000 --dir shop

Without --by the view has one series over all its events; where nothing is said of what it \
keeps it counts, and has the figures of `value`. The dimension `event` is the event's name.";

const DROP_EXAMPLES: &str = "\
Examples:
  quipu drop eu_hours --dir shop

The events stay in the log; the view can be defined again and backfilled.";

/// Define a view: which events, grouped by what, measured how
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of the command line")]
#[command(after_help = DEFINE_EXAMPLES)]
pub(crate) struct DefineArgs {
    /// The name of the view
    name: String,
    #[command(flatten)]
    place: Place,
    /// The dimensions of the key
    #[arg(long, value_name = "DIMS", value_delimiter = ',')]
    by: Vec<String>,
    /// Only events of these names
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    events: Vec<String>,
    /// Only events whose dimension is, or is one of: DIM=VALUE or 'DIM in A,B'; all must hold
    #[arg(long = "where", value_name = "CONDITION", value_parser = Condition::parse)]
    conditions: Vec<Condition>,
    /// Count the events, and keep when the first and the last was
    #[arg(long)]
    count: bool,
    /// Sum, extremes, mean and variance of these measures
    #[arg(long, value_name = "MEASURES", value_delimiter = ',')]
    stats: Vec<String>,
    #[command(flatten)]
    sketched: SketchedArgs,
    /// Keep buckets: GRAIN for all, or GRAIN=N for the last N (second, minute, hour, day, week, month,
    /// year, month30, year365, or a length: 100ms, 15m, 6h, 10d)
    #[arg(long, value_name = "GRAIN[=N]", value_delimiter = ',', value_parser = Buckets::parse)]
    grain: Vec<Buckets>,
    /// The IANA name of the time zone whose calendar days, weeks, months and years follow; the
    /// directory keeps the one with which its first view was defined [default: as it has it, or UTC]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<TimeZone>,
    /// Make the directory if there is none
    #[arg(long)]
    create: bool,
    /// Fold in the events that the log already has
    #[arg(long)]
    backfill: bool,
    /// Give the view this definition if it has another one. It holds the same events afterwards, read
    /// from the log, and answers by its old definition until that is done; when it was stopped, the same
    /// command goes on. Where the log no longer reaches back other grains can be kept all the same: the
    /// buckets that there are are converted, and it is said from when on those of each grain are exact
    #[arg(long)]
    replace: bool,
    /// No progress and no hints
    #[arg(long, short)]
    quiet: bool,
}

/// Remove a view and what it has counted
#[derive(Debug, Args)]
#[command(after_help = DROP_EXAMPLES)]
pub(crate) struct DropArgs {
    /// The name of the view
    name: String,
    #[command(flatten)]
    place: Place,
}

/// One condition on a dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    dimension: String,
    values: Vec<String>,
}

impl Condition {
    /// Reads `DIM=VALUE` or `DIM in A,B`, whichever word comes first.
    fn parse(text: &str) -> Result<Self, String> {
        let equal = text.find('=').unwrap_or(usize::MAX);
        let within = text.find(" in ").unwrap_or(usize::MAX);
        let (dimension, values) = match () {
            () if equal < within => (&text[..equal], vec![&text[equal + 1..]]),
            () if within < equal => (&text[..within], text[within + 4..].split(',').collect()),
            () => return Err("expected DIM=VALUE or 'DIM in A,B'".to_owned()),
        };
        let dimension = dimension.trim().to_owned();
        if dimension.is_empty() {
            return Err("a condition begins with the name of a dimension".to_owned());
        }
        let values = values.into_iter().map(|value| value.trim().to_owned()).collect();
        Ok(Self { dimension, values })
    }
}

/// A grain and how many buckets of it are kept.
#[derive(Debug, Clone, Copy)]
struct Buckets {
    grain: Grain,
    keep: Keep,
}

impl Buckets {
    fn parse(text: &str) -> Result<Self, String> {
        let (grain, keep) = text.split_once('=').unwrap_or((text, "all"));
        let grain = ask::grain(grain)?;
        let keep = match keep {
            "all" => Keep::All,
            number => match number.parse() {
                Ok(number) if number > 0 => Keep::Last(number),
                _ => return Err("how many buckets: a number from 1, or all".to_owned()),
            },
        };
        Ok(Self { grain, keep })
    }
}

impl DefineArgs {
    fn view(&self) -> View {
        let mut view = View::new(&self.name);
        if !self.by.is_empty() {
            view = view.by(&self.by);
        }
        if !self.events.is_empty() {
            view = view.only_events(&self.events);
        }
        for condition in &self.conditions {
            view = match condition.values.as_slice() {
                [value] => view.where_equal(&condition.dimension, value),
                values => view.where_in(&condition.dimension, values),
            };
        }
        let neither = !self.count && self.stats.is_empty() && self.sketched.is_empty();
        if self.count || neither {
            view = view.count();
        }
        if neither {
            view = view.stats("value");
        }
        view = self.sketched.of(self.stats.iter().fold(view, View::stats));
        self.grain.iter().fold(view, |view, buckets| view.grain(buckets.grain, buckets.keep))
    }
}

/// What is said of a view that was redefined.
const NOW: &str = "has this definition now";

/// Runs `define`.
pub(crate) fn define(args: &DefineArgs) -> Result<(), Failure> {
    let options = args.time_zone.map_or_else(Options::new, |zone| Options::new().time_zone(zone));
    let db =
        if args.create { options.open(&args.place.dir)? } else { args.place.open_with(options)? };
    let show = if args.quiet { Show::Nobody } else { Show::Terminal };
    let (is_new, what) = match db.define(args.view()) {
        Ok(true) => (true, "defined"),
        // The definition that there is gives up another one that was under way.
        Ok(false) if args.replace && !replace(&db, args, show)? => (false, "was there already"),
        Err(error) if error.kind() == ErrorKind::ViewConflict && args.replace => {
            replace(&db, args, show)?;
            (false, NOW)
        }
        Ok(false) => (false, "was there already"),
        Err(error) if error.kind() == ErrorKind::ViewConflict => {
            return Err(Failure::from(error).because("hint: --replace redefines it"));
        }
        Err(error) => return Err(error.into()),
    };
    let events = db.statistics().events;
    let told = |line: String| {
        if !args.quiet {
            say(&line);
        }
    };
    told(format!("view {}: {what}", args.name));
    if what == NOW {
        converted(&db, &args.name)?.into_iter().for_each(&told);
    }
    if args.backfill {
        let events = backfill(&db, &args.name, show, || true)?;
        told(format!("{} events read from the log", number::grouped(events)));
    } else if is_new && events > 0 {
        told(
            "hint: it starts with what is recorded from now on; the same command with --backfill\n\
             folds in what the log already has"
                .to_owned(),
        );
    }
    Ok(db.close()?)
}

/// Runs `drop`.
pub(crate) fn drop_view(args: &DropArgs) -> Result<(), Failure> {
    let db = args.place.open()?;
    db.drop_view(&args.name)?;
    Ok(db.close()?)
}

/// Folds the log into a view, with a progress bar, as long as it `may_go_on`; returns how many events
/// were read.
pub(crate) fn backfill(
    db: &Db,
    name: &str,
    show: Show,
    may_go_on: impl Fn() -> bool,
) -> Result<u64, Failure> {
    Ok(db.backfill(name, metered(show, may_go_on))?)
}

/// What there is to be said of a view whose buckets were converted, if they were.
fn converted(db: &Db, name: &str) -> Result<Vec<String>, Failure> {
    let views = db.views()?;
    let exact = views.into_iter().filter(|status| status.view.name() == name);
    let exact: Vec<_> = exact.flat_map(|status| status.exact_from).collect();
    let mut lines = Vec::new();
    if !exact.is_empty() {
        lines.push(
            "the log no longer reaches back to where it begins: the buckets it kept were converted"
                .to_owned(),
        );
    }
    lines.extend(exact.into_iter().map(|(grain, from)| match from {
        Some(from) => format!("  by {grain}: exact from {from} on, and not kept before"),
        None => format!("  by {grain}: exact"),
    }));
    Ok(lines)
}

/// Gives a view the definition that was asked for, with a progress bar; `false`: it has it.
fn replace(db: &Db, args: &DefineArgs, show: Show) -> Result<bool, Failure> {
    Ok(db.redefine(args.view(), metered(show, || true))?)
}

fn metered(show: Show, may_go_on: impl Fn() -> bool) -> impl FnMut(Progress) -> ControlFlow<()> {
    let mut meter: Option<Meter> = None;
    move |progress| {
        let meter =
            meter.get_or_insert_with(|| Meter::start(Measure::Events, Some(progress.total), show));
        meter.tick(progress.done, progress.done);
        if may_go_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_equal_or_in() {
        let read = |text| {
            let Condition { dimension, values } = Condition::parse(text).unwrap();
            format!("{dimension}:{}", values.join("|"))
        };
        assert_eq!(read("country=FR"), "country:FR");
        assert_eq!(read("country = United Kingdom"), "country:United Kingdom");
        assert_eq!(read("country in FR, DE"), "country:FR|DE");
        assert_eq!(read("note=made in Japan"), "note:made in Japan");
        assert_eq!(read("x in a=b"), "x:a=b");
        for text in ["country", "", "=x", " in x"] {
            assert!(Condition::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn grains_are_kept_whole_or_for_a_while() {
        assert!(matches!(Buckets::parse("hour").unwrap().keep, Keep::All));
        assert!(matches!(Buckets::parse("hour=all").unwrap().keep, Keep::All));
        assert!(matches!(Buckets::parse("Day=72").unwrap().keep, Keep::Last(72)));
        let shifts = Buckets::parse("8H=21").unwrap();
        assert_eq!((shifts.grain.to_string().as_str(), shifts.keep), ("8h", Keep::Last(21)));
        for text in ["", "hours", "hour=0", "hour=-1", "hour=", "ever", "0s", "400d"] {
            assert!(Buckets::parse(text).is_err(), "{text}");
        }
    }
}
