//! The command line of Quipu: it parses, dispatches, and turns what went wrong into an exit code.
//!
//! 1. It reaches nothing of the engine but its public interface.
//! 2. Answers go to standard output, everything else to standard error.
//! 3. Exit codes: 0 ok, 1 error, 2 usage, 3 corruption, 4 locked, 5 the answer is no (denied, not seen), 130 and 143
//!    stopped by a signal; a closed pipe is no error.
//!
//! `args` has the command line; `load` and what it reads with come first, then the questions (`ask`,
//! `over_time`, `which`, `sketch`, `point`), the views (`define`, `sketched`), limits (`limit`,
//! `policy`), the state (`state`), its checks (`check`), backups (`archive`), other replicas
//! (`exchange`); `sheet` is the way out of them all.

mod args;
mod failure;

mod define;
mod load;
mod sketched;

mod delimited;
mod instant;
mod intake;
mod interrupt;
mod lines;
mod mapping;
mod ndjson;
mod reading;
mod source;

mod report;
mod report_text;

mod archive;
mod ask;
mod check;
mod exchange;
mod limit;
mod over_time;
mod point;
mod policy;
mod sketch;
mod state;
mod which;

mod number;
mod progress;
mod rows;
mod sheet;
mod spark;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    // The snapshot store panics on some damaged pages; the engine makes that an error, which is
    // told below. Any other panic is a fault of ours and is shown.
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|location| location.file().contains("redb")) {
            shown(panic);
        }
    }));
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        // That was said as the answer.
        Err(Failure::Denied) => ExitCode::from(Failure::Denied.code()),
        Err(failure) => {
            progress::say(&format!("quipu: {failure}"));
            ExitCode::from(failure.code())
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Load(args) => load::run(*args),
        Command::Top(args) => ask::top(&args),
        Command::Get(args) => ask::get(&args),
        Command::List(args) => ask::list(&args),
        Command::Totals(args) => ask::totals(&args),
        Command::Series(args) => over_time::series(&args),
        Command::Seen(args) => over_time::seen(&args),
        Command::Ratio(args) => over_time::ratio(&args),
        Command::Distinct(args) => sketch::distinct(&args),
        Command::Common(args) => sketch::common(&args),
        Command::Heavy(args) => sketch::heavy(&args),
        Command::Quantile(args) => sketch::quantile(&args),
        Command::CountOf(args) => point::count_of(&args),
        Command::Contains(args) => point::contains(&args),
        Command::Views(args) => state::views(&args),
        Command::Define(args) => define::define(&args),
        Command::Drop(args) => define::drop_view(&args),
        Command::Limit(args) => limit::run(&args),
        Command::Stats(args) => state::stats(&args),
        Command::Checkpoint(args) => state::checkpoint(&args),
        Command::Verify(args) => check::verify(&args),
        Command::Repair(args) => check::repair(&args),
        Command::Backup(args) => archive::backup(&args),
        Command::Restore(args) => archive::restore(&args),
        Command::Export(args) => exchange::export(&args),
        Command::Import(args) => exchange::import(&args),
    }
}
