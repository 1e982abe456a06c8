//! Whether a directory is as it was written: `verify`.
//!
//! 1. The findings are the answer, one a row; what was looked at is told on standard error.
//! 2. An unsynced tail, and files that are not ours, are findings and no damages: exit 0.

use std::io::{self, BufWriter, Write};

use clap::Args;
use quipu::{Depth, Finding, Positions, Progress, VerifyReport};

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
Nothing is written. Exit code 0: intact; 3: damaged, and the damages are listed; 4: the directory is
open. The end of the log that a crash left unsynced is no damage: the next opening cuts it.";

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
        let s = if damages == 1 { "" } else { "s" };
        return Err(Failure::damaged(format!(
            "{dir}: {} damage{s}",
            number::grouped(damages as u64)
        )));
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
        column("what", Align::Left, 0),
    ];
    let mut writer = output.start(Sheet { key: None, columns }, Extent::Many)?;
    for finding in findings {
        let count = |n: u64| if n == 0 { Cell::Missing } else { Cell::Count(n) };
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
    let records = number::grouped(report.records);
    let reach = match report.first_position {
        Some(first) => format!("positions {first} to {}", report.last_position),
        None => "no records".to_owned(),
    };
    let segments = number::grouped(report.segments);
    say(&format!("log: {segments} segments, {records} records, {reach}"));
    match report.snapshot_position {
        Some(position) => say(&format!(
            "snapshot: position {position}, {} rows",
            number::grouped(report.rows)
        )),
        None => say("snapshot: none"),
    }
    let refolded = report.views.iter().filter(|view| view.refolded).count();
    say(&format!("views: {refolded} of {} compared with the log", report.views.len()));
    for view in &report.views {
        if let Some(why) = &view.why_not {
            say(&format!("  {}: by checksums only, {why}", view.name));
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
