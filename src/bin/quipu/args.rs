//! The command line as clap sees it: the commands in the order that a person meets them, and the
//! options that several of them share.

use std::io::{self, BufWriter, IsTerminal, StdoutLock};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use quipu::{
    Bundle, Cursor, Db, Error, ErrorKind, Options, Policy, Query, ReadOnlyDb, Statistics, TimeZone,
    ViewStatus,
};

use crate::archive::{BackupArgs, RestoreArgs};
use crate::ask::{GetArgs, ListArgs, TopArgs, TotalsArgs};
use crate::check::{RepairArgs, VerifyArgs};
use crate::define::{DefineArgs, DropArgs};
use crate::exchange::{ExportArgs, ImportArgs};
use crate::failure::Failure;
use crate::limit::LimitArgs;
use crate::load::LoadArgs;
use crate::over_time::{RatioArgs, SeenArgs, SeriesArgs};
use crate::point::{ContainsArgs, CountOfArgs};
use crate::progress::say;
use crate::sheet::{Extent, Format, Sheet, SheetWriter};
use crate::sketch::{CommonArgs, DistinctArgs, HeavyArgs, QuantileArgs};
use crate::state::{CheckpointArgs, StatsArgs, ViewsArgs};

const ABOUT: &str = "\
Quipu records events and answers at once what has happened so far: counts, sums, the top products, \
when each user was last seen. A directory holds the events and the running answers (views).";

const START: &str = "\
Start here:
  quipu load sales.ndjson.gz --dir shop     record a file; shows what is in it
  quipu top by_product --by sum -n 10 --dir shop
  quipu get by_user 17850 --dir shop

Questions are answered while another process records into the directory; what changes it is not \
done then.

Exit codes: 0 ok, 1 error, 2 usage, 3 the directory is damaged, 4 another process has it open, \
5 a limit denied it, 130 and 143 a load was stopped by Ctrl-C or SIGTERM.";

/// Running answers over events, in a directory.
#[derive(Debug, Parser)]
#[command(name = "quipu", version, about = ABOUT, after_help = START, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Load(Box<LoadArgs>),
    Top(TopArgs),
    Get(GetArgs),
    List(ListArgs),
    Totals(TotalsArgs),
    Series(Box<SeriesArgs>),
    Seen(SeenArgs),
    Ratio(RatioArgs),
    Distinct(Box<DistinctArgs>),
    Common(Box<CommonArgs>),
    Heavy(Box<HeavyArgs>),
    Quantile(Box<QuantileArgs>),
    CountOf(Box<CountOfArgs>),
    Contains(Box<ContainsArgs>),
    Views(ViewsArgs),
    Define(Box<DefineArgs>),
    Drop(DropArgs),
    Limit(Box<LimitArgs>),
    Stats(StatsArgs),
    Checkpoint(CheckpointArgs),
    Verify(VerifyArgs),
    Repair(RepairArgs),
    Backup(BackupArgs),
    Restore(RestoreArgs),
    Export(ExportArgs),
    Import(ImportArgs),
}

/// Why a directory cannot be opened, and what to do.
fn advised(error: quipu::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => Failure::from(error)
            .because("quipu load makes a directory, and so does quipu define --create"),
        ErrorKind::Corruption | ErrorKind::MissingSegment => Failure::from(error)
            .because("quipu verify lists every damage; quipu repair says what can be kept"),
        _ => error.into(),
    }
}

/// Which directory.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The data directory
    #[arg(long, value_name = "DIR", env = "QUIPU_DIR")]
    pub(crate) dir: PathBuf,
}

impl Place {
    /// Opens a directory that is there; only `load` makes one, and `define --create`.
    pub(crate) fn open(&self) -> Result<Db, Failure> {
        self.open_with(Options::new())
    }

    /// Opens a directory that is there, with these options.
    pub(crate) fn open_with(&self, options: Options) -> Result<Db, Failure> {
        options.must_exist().open(&self.dir).map_err(advised)
    }

    /// The same; waits so long for a process that has it open to be done with it.
    pub(crate) fn open_within(&self, wait: Duration, options: &Options) -> Result<Db, Failure> {
        let (mut left, mut pause) = (wait, Duration::from_millis(1));
        loop {
            match options.clone().must_exist().open(&self.dir) {
                Err(error) if error.kind() == ErrorKind::Locked && !left.is_zero() => {
                    pause = (pause * 2).min(Duration::from_millis(20)).min(left);
                    thread::sleep(pause);
                    left -= pause;
                }
                opened => return opened.map_err(advised),
            }
        }
    }

    /// Opens a directory to ask it: beside the process that has it open, if there is one, or where
    /// nothing can be written.
    pub(crate) fn open_to_ask(&self) -> Result<Opened, Failure> {
        match Options::new().must_exist().open(&self.dir) {
            Err(error) if error.kind() == ErrorKind::Locked || cannot_write(&error) => {
                Ok(Opened::Beside(ReadOnlyDb::open(&self.dir).map_err(advised)?))
            }
            opened => Ok(Opened::Owned(opened.map_err(advised)?)),
        }
    }
}

/// Whether there is no right, or no room, to write.
fn cannot_write(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<io::Error>());
    let is_protected = source.is_some_and(|e| {
        matches!(e.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
    });
    is_protected || error.kind() == ErrorKind::NoSpace
}

/// A directory opened to be asked.
pub(crate) enum Opened {
    Owned(Db),
    Beside(ReadOnlyDb),
}

impl Opened {
    pub(crate) fn query(&self, view: &str) -> quipu::Result<Query> {
        match self {
            Self::Owned(db) => db.query(view),
            Self::Beside(db) => db.query(view),
        }
    }

    pub(crate) fn views(&self) -> quipu::Result<Vec<ViewStatus>> {
        match self {
            Self::Owned(db) => db.views(),
            Self::Beside(db) => db.views(),
        }
    }

    pub(crate) fn policies(&self) -> quipu::Result<Vec<Policy>> {
        match self {
            Self::Owned(db) => Ok(db.policies()?.into_iter().map(|status| status.policy).collect()),
            Self::Beside(db) => db.policies(),
        }
    }

    pub(crate) fn time_zone(&self) -> TimeZone {
        match self {
            Self::Owned(db) => db.time_zone(),
            Self::Beside(db) => db.time_zone(),
        }
    }

    pub(crate) fn export_some(&self, since: &Cursor, bytes_max: u64) -> quipu::Result<Bundle> {
        match self {
            Self::Owned(db) => db.export_some(since, bytes_max),
            Self::Beside(db) => db.export_some(since, bytes_max),
        }
    }

    pub(crate) fn statistics(&self) -> Statistics {
        match self {
            Self::Owned(db) => db.statistics(),
            Self::Beside(db) => db.statistics(),
        }
    }

    /// The answers were given: that there was no room, or no right, to keep what was replayed for them
    /// takes nothing from them.
    pub(crate) fn close(self) -> quipu::Result<()> {
        let Self::Owned(db) = self else { return Ok(()) };
        match db.close() {
            Err(error) if cannot_write(&error) => {
                say(&format!("quipu: answered, and no checkpoint could be made: {error}"));
                Ok(())
            }
            closed => closed,
        }
    }
}

/// In which form.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// The form of the answer [default: table on a terminal, ndjson elsewhere]
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<Format>,
}

impl Output {
    /// The form that was asked for, or the one that suits standard output.
    pub(crate) fn format(&self) -> Format {
        let is_terminal = io::stdout().is_terminal();
        self.format.unwrap_or(if is_terminal { Format::Table } else { Format::Ndjson })
    }

    /// Starts an answer on standard output.
    pub(crate) fn start(
        &self,
        sheet: Sheet,
        extent: Extent,
    ) -> Result<SheetWriter<BufWriter<StdoutLock<'static>>>, Failure> {
        let out = io::stdout();
        let width = comfy_table::Table::new().width().filter(|_| out.is_terminal());
        Ok(SheetWriter::new(BufWriter::new(out.lock()), self.format(), sheet, extent, width)?)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// All commands, those of commands too, and how they are called.
    fn commands(call: &str, of: &clap::Command) -> Vec<(String, clap::Command)> {
        let mut all = Vec::new();
        for command in of.get_subcommands() {
            let call = format!("{call} {}", command.get_name());
            all.extend(commands(&call, command));
            all.push((call, command.clone()));
        }
        all
    }

    #[test]
    fn every_command_has_an_example() {
        for (call, command) in commands("quipu", &Cli::command()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&call), "{call}: {help}");
            assert!(command.get_about().is_some(), "{call}");
        }
    }

    #[test]
    fn help_is_wrapped_once() {
        let command = Cli::command();
        let commands = commands("quipu", &command).into_iter().map(|(_, command)| command);
        for help in commands.chain([command.clone()]).filter_map(|c| c.get_after_help().cloned()) {
            let help = help.to_string();
            for (line, next) in help.lines().zip(help.lines().skip(1).chain([""])) {
                // Calls are copied by people, and stand in one line; the width of the terminal
                // wraps the rest, where a break of our own would leave a ragged line.
                let is_call = |line: &str| line.starts_with(' ');
                let stands = if is_call(line) {
                    line.chars().count() <= 80
                } else {
                    next.is_empty() || line.is_empty() || line.ends_with(':')
                };
                assert!(stands, "{line}");
            }
        }
        assert!(!ABOUT.contains('\n'), "{ABOUT}");
    }
}
