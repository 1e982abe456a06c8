//! `quipu load`: files into the directory, and a report of what is in it now.
//!
//! 1. Nothing is created before every input was found, its format known and the fields clear.
//! 2. A directory without views gets the default ones. Where it has events already they are
//!    backfilled, so that the report never shows a part as the whole.
//! 3. Memory does not grow with the input: a line, a batch, a buffer.
//! 4. SIGINT and SIGTERM end it in order: what was read is recorded, the directory is closed, and the
//!    last line says how to go on.

use std::cell::RefCell;
use std::io::{self, BufWriter, Write};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use quipu::{Db, Dedup, Grain, Keep, Options, TimeZone, View};

use crate::args::Place;
use crate::define;
use crate::failure::Failure;
use crate::instant::{self, Reading, Unit, Zone};
use crate::intake::{Intake, OnBad, Tally};
use crate::interrupt::{Interrupt, Signal, Waited};
use crate::mapping::{Mapping, Name, Pair, Wanted};
use crate::progress::{Measure, Meter, Show, say};
use crate::reading::{self, Layout, Stop};
use crate::report::{Load, Report};
use crate::source::{BytesRead, InputFormat, Source};

/// How many event ids a new directory remembers unless the caller says otherwise.
const DEDUP_DEFAULT: u64 = 10_000_000;

const EXAMPLES: &str = "\
Examples:
  quipu load sales.ndjson.gz --dir shop
  quipu load orders.csv --dir shop --event-name sale --time ordered_at \\
      --dims user=customer,product=sku,country --measure value=amount --id order
  zcat *.gz | quipu load - --dir shop --input-format csv

An event is recorded within a second of its coming, however slowly standard input brings \
them. What is recorded is safe at every moment: a load that dies (a crash, a power cut) keeps the events \
up to that point, but for at most the last tenth of a second after a power cut. Ctrl-C and SIGTERM \
stop it in order (exit code 130 or 143); the last line then says from which line to go on.

Loading the same file again counts nothing twice if its events carry ids.";

/// Record the events of NDJSON and CSV files
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LoadArgs {
    /// Files to load: .ndjson, .jsonl, .json, .csv, .tsv, plain or .gz; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    place: Place,
    /// Stop at the first bad line; what stands before it stays recorded
    #[arg(long)]
    strict: bool,
    /// Define no views in a directory that has none
    #[arg(long)]
    no_default_views: bool,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    mapping: MappingArgs,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    dedup: DedupArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// How the files are written.
#[derive(Debug, Args)]
#[command(next_help_heading = "Input")]
struct InputArgs {
    /// The format of all files, instead of what their names tell [standard input: ndjson]
    #[arg(long, value_name = "FORMAT")]
    input_format: Option<InputFormat>,
    /// What separates the fields of a CSV file: one ASCII character
    #[arg(long, value_name = "CHAR", value_parser = delimiter)]
    delimiter: Option<u8>,
    /// The columns of CSV files that have no header
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns: Option<Vec<String>>,
}

/// Which field is what.
#[derive(Debug, Args)]
#[command(next_help_heading = "Fields")]
struct MappingArgs {
    /// The field with the event's name [default: event]
    #[arg(long, value_name = "FIELD", conflicts_with = "event_name")]
    event: Option<String>,
    /// The same name for every event
    #[arg(long, value_name = "NAME")]
    event_name: Option<String>,
    /// The field with the event's time [default: ts]
    #[arg(long, value_name = "FIELD")]
    time: Option<String>,
    /// Fields that are dimensions; NAME=FIELD renames [default: user,product,category]
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', value_parser = Pair::parse)]
    dims: Option<Vec<Pair>>,
    /// Fields that are measures; NAME=FIELD renames [default: value]
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', value_parser = Pair::parse)]
    measure: Option<Vec<Pair>>,
    /// The field with the event's id, for deduplication [default: id, where there is one]
    #[arg(long, value_name = "FIELD")]
    id: Option<String>,
    /// The field with the event's entity
    #[arg(long, value_name = "FIELD")]
    entity: Option<String>,
    /// The field with the number of events that a line stands for [default: each for one]
    #[arg(long, value_name = "FIELD")]
    times: Option<String>,
}

/// How times are read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Time")]
struct TimeArgs {
    /// What a number in the time field counts [default: ms, refusing what looks like another]
    #[arg(long, value_name = "UNIT")]
    time_unit: Option<Unit>,
    /// Take written times without a time zone as UTC instead of refusing them
    #[arg(long)]
    assume_utc: bool,
    /// How far ahead of the clock an event may be dated: 90s, 15m, 36h, 50d [default: 1d]
    #[arg(long, value_name = "DURATION", value_parser = instant::duration)]
    max_future: Option<Duration>,
    /// The IANA name of the time zone whose calendar days, weeks, months and years follow. The
    /// directory keeps it [default: UTC in a new directory]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<TimeZone>,
}

/// What happens to events that were recorded before.
#[derive(Debug, Args)]
#[command(next_help_heading = "Deduplication")]
struct DedupArgs {
    /// How many event ids are remembered; an event whose id is among them is passed over.
    /// The directory keeps this rule [default: 10000000 in a new directory]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    dedup: Option<u64>,
    /// Record every event, whatever its id
    #[arg(long, conflicts_with = "dedup")]
    no_dedup: bool,
}

/// What is shown.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// The form of the report
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: ReportFormat,
    /// No progress and no report; bad lines and errors are still told
    #[arg(long, short)]
    quiet: bool,
}

/// The form of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    /// For people, 80 columns wide
    #[value(alias = "table")]
    Text,
    /// One JSON object
    #[value(alias = "ndjson")]
    Json,
}

/// Runs the command.
pub(crate) fn run(args: LoadArgs) -> Result<(), Failure> {
    let sources = args.files.iter().map(|file| Source::find(file, args.input.input_format));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let show = if args.output.quiet { Show::Nobody } else { Show::Terminal };
    let on_bad = if args.strict { OnBad::Stop } else { OnBad::Count };
    let mapping = args.mapping.mapping(&args.time).map_err(Failure::usage)?;

    let listening = Interrupt::listen();
    let interrupt = listening.map_err(|error| Failure::new(format!("signals: {error}")))?;
    let db = open(&args.place, &args.time, &args.dedup)?;
    if !args.no_default_views {
        define_default_views(&db, &mapping, show, &interrupt)?;
    }

    let bytes: Option<u64> = sources.iter().map(|source| source.bytes).sum();
    let meter = Meter::start(Measure::Bytes, bytes, show);
    let intake = RefCell::new(Intake::new(&db, &mapping, on_bad, meter));
    let bytes_read = BytesRead::default();
    for source in &sources {
        read(source, &args.input, &mapping, &intake, &bytes_read, &interrupt)?;
    }
    let mut intake = intake.into_inner();
    intake.flush()?;
    db.sync()?;
    let elapsed = intake.meter.elapsed();
    intake.meter.finish();
    complain(&intake);
    let Tally { read, bad, .. } = intake.tally;
    let every_line_was_bad = bad == read && read > 0;

    let files = sources.iter().map(|source| source.name.clone()).collect();
    let load = Load::new(files, bytes_read.get(), intake.tally, elapsed);
    let report = if args.output.quiet { None } else { Some(Report::gather(&db, load)?) };
    db.close().map_err(|error| {
        Failure::from(error).because(&format!(
            "all {} events were recorded and are kept; what was not done is made up for when the \
             directory is opened next",
            intake.tally.recorded
        ))
    })?;
    if let Some(report) = report {
        let mut out = BufWriter::new(io::stdout().lock());
        match args.output.format {
            ReportFormat::Text => report.write_text(&mut out)?,
            ReportFormat::Json => report.write_json(&mut out)?,
        }
        out.flush()?;
    }
    if every_line_was_bad {
        let why = "every line was bad, nothing was recorded; see quipu load --help for the fields";
        return Err(Failure::new(why));
    }
    Ok(())
}

/// Opens the directory. One that has no events remembers ids from now on; another goes on with
/// the rule that it has, unless the caller has one.
fn open(place: &Place, time: &TimeArgs, dedup: &DedupArgs) -> Result<Db, Failure> {
    let dir = &place.dir;
    let with = |rule: Option<Dedup>| {
        let options = rule.map_or_else(Options::new, |rule| Options::new().dedup(rule));
        let options = match time.time_zone {
            Some(zone) => options.time_zone(zone),
            None => options,
        };
        match time.max_future {
            Some(skew) => options.future_skew(skew).open(dir),
            None => options.open(dir),
        }
    };
    let asked = match (dedup.no_dedup, dedup.dedup) {
        (true, _) => Some(Dedup::Off),
        (false, ids) => ids.map(Dedup::Last),
    };
    let is_new = std::fs::read_dir(dir).map_or(true, |mut files| files.next().is_none());
    let db = with(asked.or(is_new.then_some(Dedup::Last(DEDUP_DEFAULT))))?;
    if asked.is_some() || is_new || db.statistics().events > 0 {
        return Ok(db);
    }
    // Made by somebody, or by a load that died, before the first event.
    db.close()?;
    Ok(with(Some(Dedup::Last(DEDUP_DEFAULT)))?)
}

impl MappingArgs {
    fn mapping(self, time: &TimeArgs) -> Result<Mapping, String> {
        let zone = if time.assume_utc { Zone::Utc } else { Zone::Required };
        Mapping::new(Wanted {
            name: self.event_name.map(Name::Constant).or(self.event.map(Name::Field)),
            time: self.time,
            reading: Reading { unit: time.time_unit, zone },
            dims: self.dims,
            measures: self.measure,
            id: self.id,
            entity: self.entity,
            times: self.times,
        })
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
        b"\\t" => Ok(b'\t'),
        _ => Err("expected one ASCII character, or \\t".to_owned()),
    }
}

/// Reads one input to its end.
fn read(
    source: &Source,
    input: &InputArgs,
    mapping: &Mapping,
    intake: &RefCell<Intake<'_>>,
    bytes_read: &BytesRead,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    intake.borrow_mut().begin();
    let delimited = |usual| Layout::Delimited {
        delimiter: input.delimiter.unwrap_or(usual),
        columns: input.columns.as_deref(),
    };
    let layout = match source.format {
        InputFormat::Ndjson => Layout::Ndjson,
        InputFormat::Csv => delimited(b','),
        InputFormat::Tsv => delimited(b'\t'),
    };
    // What came up while input was waited for, and is no fault of the input's.
    let meanwhile = RefCell::new(None);
    let ask = |input: BorrowedFd<'_>| {
        let waited = wait(input, intake, interrupt);
        waited.map_err(|Refusal { failure, error }| {
            *meanwhile.borrow_mut() = failure;
            error
        })
    };
    let read = source.open(bytes_read, &ask).map_err(|error| Stop::Unreadable(1, error));
    let read = read.and_then(|reader| {
        reading::read(reader, layout, mapping, &mut |line, values| {
            let mut intake = intake.borrow_mut();
            if intake.line(&source.name, line, values)? {
                let read = intake.tally.read;
                intake.meter.tick(bytes_read.get(), read);
            }
            Ok(())
        })
    });
    let mut intake = intake.borrow_mut();
    read.map_err(|stop| match (stop, meanwhile.take(), interrupt.signal()) {
        (Stop::Unreadable(..), None, Some(signal)) => stopped(source, signal, &mut intake),
        (Stop::Unreadable(line, error), None, None) => broken(source, line, &error, &mut intake),
        (Stop::Columns(why), ..) => Failure::new(format!("{}: {why}", source.name)),
        (Stop::Unreadable(..), Some(failure), _) | (Stop::Taker(failure), ..) => failure,
    })
}

/// Why an input is not read on.
struct Refusal {
    failure: Option<Failure>,
    error: io::Error,
}

/// Waits for input. Events that are to be recorded meanwhile are.
fn wait(
    input: BorrowedFd<'_>,
    intake: &RefCell<Intake<'_>>,
    interrupt: &Interrupt,
) -> Result<(), Refusal> {
    let refused = |failure, why: &str| Refusal { failure, error: io::Error::other(why) };
    loop {
        let left = intake.borrow_mut().flush_due();
        let left = left.map_err(|failure| refused(Some(failure), "not recorded"))?;
        match interrupt.wait(input, left) {
            Ok(Waited::Ready) => return Ok(()),
            Ok(Waited::Signalled) => return Err(refused(None, "a signal")),
            Ok(Waited::TimedOut) => {}
            Err(error) => return Err(Refusal { failure: None, error }),
        }
    }
}

/// Ends a load in order (4).
fn stopped(source: &Source, signal: Signal, intake: &mut Intake<'_>) -> Failure {
    intake.meter.finish();
    match intake.flush().and_then(|()| intake.close()) {
        Ok(()) => signal.stopped(&intake.how_to_go_on(&source.name)),
        Err(failure) => failure,
    }
}

/// An input that cannot be opened, or read to its end. What was read of it is recorded.
fn broken(source: &Source, line: u64, error: &io::Error, intake: &mut Intake<'_>) -> Failure {
    if let Err(failure) = intake.flush() {
        return failure;
    }
    let why = match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ends in the middle of what is compressed".to_owned(),
        _ => error.to_string(),
    };
    Failure::new(format!("{}: cannot be read from line {line} on: {why}", source.name))
        .because(&intake.so_far())
}

/// Says what a person should know of a load that went through.
fn complain(intake: &Intake<'_>) {
    for field in intake.unmet() {
        say(&format!("warning: no line has the field {field:?}"));
    }
}

/// Gives a directory without views the default ones (2).
fn define_default_views(
    db: &Db,
    mapping: &Mapping,
    show: Show,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let defaults = default_views(mapping);
    let has_events = db.statistics().events > 0;
    let views = db.views()?;
    // An earlier load may have died while it defined or filled them.
    let only_defaults = views.iter().all(|status| defaults.contains(&status.view));
    let unfinished = views.iter().any(|status| status.backfill.is_some());
    if !views.is_empty() && !(only_defaults && (unfinished || !has_events)) {
        return Ok(());
    }
    for view in defaults {
        let name = view.name().to_owned();
        db.define(view)?;
        if has_events {
            let filled = define::backfill(db, &name, show, || interrupt.signal().is_none());
            if let (Err(_), Some(signal)) = (&filled, interrupt.signal()) {
                db.close()?;
                let message = "nothing of the input is recorded yet; the same command goes on";
                return Err(signal.stopped(message));
            }
            filled?;
        }
    }
    Ok(())
}

/// The views of a directory whose owner defined none: by event, by every dimension, by user and
/// product together, and by hour.
fn default_views(mapping: &Mapping) -> Vec<View> {
    let dims: Vec<&str> = mapping.dims().collect();
    let mut views = vec![View::new("by_event").by(["event"])];
    views.extend(dims.iter().map(|dim| View::new(format!("by_{dim}")).by([*dim])));
    if dims.contains(&"user") && dims.contains(&"product") {
        views.push(View::new("by_user_product").by(["user", "product"]));
    }
    views.push(View::new("by_hour").grain(Grain::Hour, Keep::All));
    let complete = |view: View| mapping.measures().fold(view.count(), View::stats);
    views.into_iter().map(complete).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_views_follow_the_dimensions() {
        let names = |wanted| {
            let views = default_views(&Mapping::new(wanted).unwrap());
            views.iter().map(|view| view.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            names(Wanted::default()),
            ["by_event", "by_user", "by_product", "by_category", "by_user_product", "by_hour"]
        );
        let dims = Some(vec![Pair::parse("country=c").unwrap()]);
        assert_eq!(
            names(Wanted { dims, ..Wanted::default() }),
            ["by_event", "by_country", "by_hour"]
        );
    }

    #[test]
    fn a_delimiter_is_one_character() {
        assert_eq!(delimiter(";"), Ok(b';'));
        assert_eq!(delimiter("\\t"), Ok(b'\t'));
        for text in ["", "ab", "\"", "é"] {
            assert!(delimiter(text).is_err(), "{text}");
        }
    }
}
