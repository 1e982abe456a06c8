//! Whether a directory is as it was written, and making the best of one that is not: `verify` and
//! `repair`.
//!
//! 1. The findings are the answer, one a row; what was looked at is told on standard error.
//! 2. An unsynced tail, and files that are not ours, are findings and no damages: exit 0.
//! 3. `repair` changes nothing without `--apply`; as long as damages are left it exits with 3.

use std::io::{self, BufWriter, Write};

use clap::Args;
use quipu::{Depth, Finding, Positions, Progress, Repair, RepairReport, VerifyReport};

use crate::args::{Output, Place};
use crate::failure::Failure;
use crate::number;
use crate::progress::{Measure, Meter, Show, say};
use crate::sheet::{self, Cell, Column, Extent, Format, Sheet};
use crate::table::Align;

const VERIFY_EXAMPLES: &str = "\
Examples:
  quipu verify --dir shop
  quipu verify --checksums-only --dir shop
  quipu verify --format json --dir shop | jq .views
  quipu verify --dir /mnt/backup/shop     a backup: every file against its hash

Nothing is written, and nothing needs to be writable. Exit code 0: intact; 3: damaged, \
and the damages are listed; 4: the directory is open. The end of the log that a crash left unsynced is no damage: the next opening cuts it.";

/// Check everything that is stored: checksums, order, and the views against the log
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// Do not read the records, nor fold them again to compare with the views
    #[arg(long)]
    checksums_only: bool,
    /// No progress, no summary
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

const REPAIR_EXAMPLES: &str = "\
Examples:
  quipu repair --dir shop           says what would be kept and given up
  quipu repair --apply --dir shop

Damaged files are put aside into quarantine/ in the directory, which needs room for \
them; nothing is deleted. Exit code 0: nothing is damaged, or all is repaired; 3: there is something to repair.";

/// Keep what is provably good of a damaged directory; says what is given up
#[derive(Debug, Args)]
#[command(after_help = REPAIR_EXAMPLES)]
pub(crate) struct RepairArgs {
    /// Do it; without this, nothing is written
    #[arg(long)]
    apply: bool,
    /// No progress, no summary
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

/// Runs `repair`.
pub(crate) fn repair(args: &RepairArgs) -> Result<(), Failure> {
    let mode = if args.apply { Repair::Apply } else { Repair::DryRun };
    let mut meter = Meter::start(Measure::Bytes, None, show(args.quiet));
    let report = quipu::repair(&args.place.dir, mode, |progress| tick(&mut meter, progress))?;
    meter.finish();
    if args.output.format() == Format::Json {
        document(&report)?;
    } else {
        steps(&args.output, &report)?;
    }
    let told = |line: &str| {
        if !args.quiet {
            say(line);
        }
    };
    let given_up = number::grouped(report.records_given_up());
    if report.steps.is_empty() {
        told("nothing is damaged");
    } else if let Some(place) = &report.quarantine {
        told(&format!(
            "repaired; {given_up} records given up; the damaged files are in {}",
            place.display()
        ));
    } else {
        return Err(Failure::damaged(format!(
            "{}: {given_up} records would be given up; nothing was changed (--apply does it)",
            args.place.dir.display()
        )));
    }
    Ok(())
}

fn steps(output: &Output, report: &RepairReport) -> Result<(), Failure> {
    if report.steps.is_empty() && output.format() == Format::Table {
        return Ok(());
    }
    let column = |name, align, rank| Column { name, align, rank };
    let columns = vec![
        column("action", Align::Left, 0),
        column("path", Align::Left, 0),
        column("records", Align::Right, 0),
        column("bytes", Align::Right, 2),
        column("positions", Align::Left, 1),
        column("views", Align::Left, 1),
        column("what", Align::Wrapped, 0),
    ];
    let mut writer = output.start(Sheet { key: None, columns }, Extent::Many)?;
    for step in &report.steps {
        let action = serde_json::to_value(step.action).unwrap_or_default();
        let cells = [
            Cell::Text(action.as_str().unwrap_or_default().replace('_', " ")),
            Cell::Text(step.path.display().to_string()),
            count(step.records),
            count(step.bytes),
            Cell::Texts(step.given_up.iter().copied().map(range).collect()),
            Cell::Texts(step.views.clone()),
            Cell::Text(step.what.clone()),
        ];
        writer.row(&[], &cells)?;
    }
    Ok(writer.finish()?)
}

fn count(n: u64) -> Cell {
    if n == 0 { Cell::Missing } else { Cell::Count(n) }
}

/// Runs `verify`.
pub(crate) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let depth = if args.checksums_only { Depth::Checksums } else { Depth::Refold };
    let mut meter = Meter::start(Measure::Bytes, None, show(args.quiet));
    let report = quipu::verify(&args.place.dir, depth, |progress| tick(&mut meter, progress))?;
    meter.finish();
    if args.output.format() == Format::Json {
        document(&report)?;
    } else {
        list(&args.output, &report.findings)?;
    }
    if !args.quiet {
        summary(&report, &meter);
    }
    let damages = report.damages().count();
    if damages > 0 {
        let dir = args.place.dir.display();
        let damages = number::counted(damages as u64, "damage");
        return Err(Failure::damaged(format!("{dir}: {damages}")));
    }
    Ok(())
}

fn show(quiet: bool) -> Show {
    if quiet { Show::Nobody } else { Show::Terminal }
}

fn tick(meter: &mut Meter, progress: Progress) {
    meter.set_total(progress.total);
    meter.tick_bytes(progress.done);
}

/// A report as one JSON document.
fn document(report: &impl serde::Serialize) -> Result<(), Failure> {
    let report =
        serde_json::to_value(report).map_err(|error| Failure::new(format!("report: {error}")))?;
    let mut out = BufWriter::new(io::stdout().lock());
    sheet::json(&mut out, &report)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

fn list(output: &Output, findings: &[Finding]) -> Result<(), Failure> {
    if findings.is_empty() && output.format() == Format::Table {
        return Ok(());
    }
    let column = |name, align, rank| Column { name, align, rank };
    let columns = vec![
        column("meaning", Align::Left, 0),
        column("path", Align::Left, 0),
        column("offset", Align::Right, 0),
        column("bytes", Align::Right, 3),
        column("positions", Align::Left, 1),
        column("what", Align::Wrapped, 0),
    ];
    let mut writer = output.start(Sheet { key: None, columns }, Extent::Many)?;
    for finding in findings {
        let meaning = serde_json::to_value(finding.meaning).unwrap_or_default();
        let cells = [
            Cell::Text(meaning.as_str().unwrap_or_default().replace('_', " ")),
            Cell::Text(finding.path.display().to_string()),
            finding.offset.map_or(Cell::Missing, Cell::Count),
            count(finding.bytes),
            finding.positions.map_or(Cell::Missing, |lost| Cell::Text(range(lost))),
            Cell::Text(finding.what.clone()),
        ];
        writer.row(&[], &cells)?;
    }
    Ok(writer.finish()?)
}

fn range(Positions { first, last }: Positions) -> String {
    if first == last { first.to_string() } else { format!("{first} to {last}") }
}

fn summary(report: &VerifyReport, meter: &Meter) {
    let reach = match report.first_position {
        Some(first) => format!("positions {first} to {}", report.last_position),
        None => "no records".to_owned(),
    };
    let segments = number::counted(report.segments, "segment");
    // An intact log with a position in it has a frame, too: this one's frames were not asked for,
    // because it is a backup's, and to count what was not looked at as none would frighten.
    let is_hashed = report.is_intact() && report.frames == 0 && report.first_position.is_some();
    let or_hashed = |what: String| if is_hashed { "by its hash".to_owned() } else { what };
    let records = or_hashed(number::counted(report.records, "record"));
    say(&format!("log: {segments}, {records}, {reach}"));
    match report.snapshot_position {
        Some(position) => {
            let rows = or_hashed(number::counted(report.rows, "row"));
            say(&format!("snapshot: position {position}, {rows}"));
        }
        None => say("snapshot: none"),
    }
    if !is_hashed {
        let refolded = report.views.iter().filter(|view| view.refolded).count();
        say(&format!("views: {refolded} of {} compared with the log", report.views.len()));
    }
    for view in &report.views {
        if let Some(why) = &view.why_not {
            let what = if view.is_successor { ", its definition under way" } else { "" };
            say(&format!("  {}{what}: by checksums only, {why}", view.name));
        }
    }
    let elapsed = meter.elapsed();
    let rate = crate::progress::rate(report.bytes, elapsed);
    say(&format!(
        "{} in {:.1} s, {}/s",
        number::bytes(report.bytes),
        elapsed.as_secs_f64(),
        number::bytes(rate)
    ));
    if report.is_intact() {
        say("intact");
    }
}
