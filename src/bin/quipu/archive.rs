//! Backups and what is made of them: `backup` and `restore`.
//!
//! 1. A backup is taken beside the process that has the directory open, and writes nothing into the
//!    directory if there is none.
//! 2. What was made is the answer, one row; what it means is told on standard error.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use quipu::{ErrorKind, Progress, ReadOnlyDb, Timestamp, Upto};

use crate::args::{Output, Place};
use crate::failure::Failure;
use crate::instant;
use crate::number;
use crate::progress::{Measure, Meter, Show, say};
use crate::sheet::{Cell, Column, Extent, Sheet};
use crate::table::Align;

const BACKUP_EXAMPLES: &str = "\
Examples:
  quipu backup /mnt/backup/shop --dir shop    also while another one records
  quipu backup /mnt/backup/shop --dir shop    again: copies what is new only

What was copied is read back and compared. The earlier backup stays what it was until \
the end.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  quipu restore /mnt/backup/shop shop-again
  quipu restore /mnt/backup/shop before --at-position 245000
  quipu restore /mnt/backup/shop june --at-time 2011-06-30T23:59:59Z
  quipu restore /mnt/backup/shop before --recorded-until '2011-07-01 09:00'

An earlier state needs the log from its beginning, or a snapshot that is not of a later state.";

/// Copy a directory, as of one position, while it is in use
///
/// The target is a new or empty directory, or an earlier backup of the same one; then only what is new
/// is copied. `restore` makes a directory of it again.
#[derive(Debug, Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub(crate) struct BackupArgs {
    /// Where the backup is kept
    #[arg(value_name = "BACKUP")]
    to: PathBuf,
    #[command(flatten)]
    place: Place,
    /// No progress and no summary
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    output: Output,
}

/// Make a directory of a backup, as it was or as of an earlier moment
///
/// Everything is checked against the backup's hashes. Nothing is overwritten: the new directory must
/// not exist or be empty.
#[derive(Debug, Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "BACKUP")]
    from: PathBuf,
    /// The new directory
    #[arg(value_name = "TO")]
    to: PathBuf,
    #[command(flatten)]
    moment: Moment,
    /// No progress and no summary
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    output: Output,
}

/// Up to when.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Moment {
    /// Only the records up to this position
    #[arg(long, value_name = "N")]
    at_position: Option<u64>,
    /// Only the events that happened up to this time, whenever they were recorded (gives a log of
    /// its own, with other positions)
    #[arg(long, value_name = "TIME", value_parser = instant::argument)]
    at_time: Option<Timestamp>,
    /// Only what had been recorded at this time
    #[arg(long, value_name = "TIME", value_parser = instant::argument)]
    recorded_until: Option<Timestamp>,
}

impl Moment {
    fn upto(&self) -> Upto {
        let position = self.at_position.map(|number| Upto::Position(number.into()));
        let time = self.at_time.map(Upto::EventTime);
        let recorded = self.recorded_until.map(Upto::RecordedAt);
        position.or(time).or(recorded).unwrap_or_default()
    }
}

/// Runs `backup`.
pub(crate) fn backup(args: &BackupArgs) -> Result<(), Failure> {
    let db = ReadOnlyDb::open(&args.place.dir).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::from(error).because("there is nothing to back up"),
        _ => error.into(),
    })?;
    let outcome = db.backup(&args.to, bar(args.quiet))?;
    let figures = [
        ("position", outcome.position.get()),
        ("bytes", outcome.bytes),
        ("copied_bytes", outcome.copied_bytes),
        ("segments", outcome.segments),
        ("segments_copied", outcome.segments_copied),
    ];
    answer(&args.output, &figures)?;
    if !args.quiet {
        say(&format!(
            "backup of position {}: {}, with {} of the log; {} copied",
            number::grouped(outcome.position.get()),
            number::bytes(outcome.bytes),
            number::counted(outcome.segments, "segment"),
            number::bytes(outcome.copied_bytes),
        ));
    }
    Ok(())
}

/// Runs `restore`.
pub(crate) fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let outcome = quipu::restore(&args.from, &args.to, args.moment.upto(), bar(args.quiet))?;
    let figures = [
        ("position", outcome.position.get()),
        ("events", outcome.events),
        ("views", outcome.views),
    ];
    answer(&args.output, &figures)?;
    if !args.quiet {
        say(&format!(
            "restored {}: position {}, {} events, {} views",
            args.to.display(),
            number::grouped(outcome.position.get()),
            number::grouped(outcome.events),
            number::grouped(outcome.views),
        ));
    }
    Ok(())
}

/// What was made, in one row (2).
pub(crate) fn answer(output: &Output, figures: &[(&'static str, u64)]) -> Result<(), Failure> {
    let column = |(name, _): &(&'static str, u64)| Column { name, align: Align::Right, rank: 0 };
    let columns = figures.iter().map(column).collect();
    let mut writer = output.start(Sheet { key: None, columns }, Extent::One)?;
    let cells: Vec<Cell> = figures.iter().map(|(_, figure)| Cell::Count(*figure)).collect();
    writer.row(&[], &cells)?;
    Ok(writer.finish()?)
}

/// Draws a bar of bytes.
fn bar(quiet: bool) -> impl FnMut(Progress) -> ControlFlow<()> {
    let show = if quiet { Show::Nobody } else { Show::Terminal };
    let mut meter: Option<Meter> = None;
    move |progress| {
        let total = Some(progress.total);
        let meter = meter.get_or_insert_with(|| Meter::start(Measure::Bytes, total, show));
        meter.tick_bytes(progress.done);
        ControlFlow::Continue(())
    }
}
