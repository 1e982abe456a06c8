//! `quipu limit set`, `remove` and `list`: policies, whose rules are text.
//!
//! 1. The text of a rule is the engine's; what `list` shows of it, `set` takes.
//! 2. What was used is in the views: a policy that is changed or removed takes nothing of it along.

use clap::Args;
use quipu::{ErrorKind, Policy, Rule};

use crate::args::{Output, Place};
use crate::failure::Failure;
use crate::number;
use crate::progress::say;
use crate::sheet::{Cell, Column, Extent, Sheet};
use crate::table::Align;

const SET_EXAMPLES: &str = "\
Examples:
  quipu limit set free 'calls: at most 9 in any 60s' 'calls: at most 99 per day'
  quipu limit set login 'failures: at most 5 in any 1h' --shadow
  quipu limit set mails 'only mon-fri 08:00-20:00' 'mails: none for 24h'

Rules (`calls` is a view; what an event has of its key is who is limited):
  calls: at most 100 in any 60s        rolling, whenever the 60s begin
  calls: at most 10000 per day         of the calendar: minute, week, month, 6h
  calls: at most 20 at once, then 10 in each 1s    as they come back
  launches: at least 3 in the last 7 days      what must have been before
  resets: none for 1h                  not before the last one is so long ago
  logins: one in the last 5m           only if there was one
  only mon-fri 08:00-20:00             by the clock; `in Europe/Paris` behind it
  not 22:00-06:00
  jobs but refunds: at most 5 per hour     what `refunds` counts is back
  burst = calls: at most 20 in any 1s           with a name

A view answers rolling windows and rates by buckets that are short beside them, one more than \
they are long:
  quipu define calls --by user --events call --grain second=61,day=2";

const REMOVE_EXAMPLES: &str = "\
Examples:
  quipu limit remove free --dir shop

What was used stays in the views.";

const LIST_EXAMPLES: &str = "\
Examples:
  quipu limit list --dir shop
  quipu limit list --format ndjson --dir shop | jq -r .rule";

/// Set a policy: rules under a name, in place of those that it had
///
/// What was used still counts, under the new rules.
#[derive(Debug, Args)]
#[command(after_help = SET_EXAMPLES)]
pub(crate) struct SetArgs {
    /// The name of the policy
    #[arg(value_name = "POLICY")]
    name: String,
    /// What has to hold, all of it
    #[arg(value_name = "RULE", required = true)]
    rules: Vec<String>,
    #[command(flatten)]
    place: Place,
    /// Refuse nothing, and say what would have been refused
    #[arg(long)]
    shadow: bool,
    /// From how much of a limit on something counts as near it
    #[arg(long, value_name = "PERCENT", default_value_t = 80,
        value_parser = clap::value_parser!(u8).range(1..=100))]
    near: u8,
    /// No hints
    #[arg(long, short)]
    quiet: bool,
}

/// Remove a policy
#[derive(Debug, Args)]
#[command(after_help = REMOVE_EXAMPLES)]
pub(crate) struct RemoveArgs {
    /// The name of the policy
    #[arg(value_name = "POLICY")]
    name: String,
    #[command(flatten)]
    place: Place,
}

/// The policies and their rules
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(crate) struct PoliciesArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

fn rule(text: &str) -> Result<Rule, Failure> {
    let hint = "hint: quipu limit set --help shows rules of every kind";
    text.parse().map_err(|error: quipu::Error| Failure::usage(error.to_string()).because(hint))
}

/// A failure, and what to do about it.
pub(crate) fn advised(error: quipu::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::UnknownPolicy => "hint: quipu limit set makes one, quipu limit list shows them",
        ErrorKind::UnknownView => "hint: quipu define makes a view, quipu views shows them",
        ErrorKind::NotKept => {
            "hint: quipu define VIEW .. --grain GRAIN=N --replace gives a view other buckets"
        }
        _ => return error.into(),
    };
    Failure::from(error).because(hint)
}

/// Runs `limit set`.
pub(crate) fn set(args: &SetArgs) -> Result<(), Failure> {
    let rules: Vec<Rule> = args.rules.iter().map(|text| rule(text)).collect::<Result<_, _>>()?;
    let db = args.place.open()?;
    let was_there = db.policies()?.iter().any(|status| status.policy.name() == args.name);
    let policy = Policy::new(&args.name).shadow(args.shadow).near(args.near);
    let policy = rules.into_iter().fold(policy, Policy::rule);
    let is_changed = db.set_policy(policy).map_err(advised)?;
    if !args.quiet {
        let what = match (is_changed, was_there) {
            (false, _) => "was set so already",
            (true, true) => "changed; what was used still counts",
            (true, false) => "set",
        };
        say(&format!("policy {}: {what}", number::visible(&args.name)));
    }
    Ok(db.close()?)
}

/// Runs `limit remove`.
pub(crate) fn remove(args: &RemoveArgs) -> Result<(), Failure> {
    let db = args.place.open()?;
    if db.remove_policy(&args.name)? {
        say(&format!("policy {}: removed", number::visible(&args.name)));
    } else {
        // Says that there is none, and which there are.
        db.limiter(&args.name).map_err(advised)?;
    }
    Ok(db.close()?)
}

/// Runs `limit list`.
pub(crate) fn list(args: &PoliciesArgs) -> Result<(), Failure> {
    let db = args.place.open_to_ask()?;
    let column = |name, align, rank| Column { name, align, rank };
    let columns = vec![
        column("policy", Align::Left, 0),
        column("mode", Align::Left, 1),
        column("near_percent", Align::Right, 2),
        column("rule", Align::Wrapped, 0),
    ];
    let mut writer = args.output.start(Sheet { key: None, columns }, Extent::Many)?;
    for policy in db.policies()? {
        let mode = if policy.is_shadow() { "shadow" } else { "enforced" };
        for rule in policy.rules() {
            let cells = [
                Cell::Text(policy.name().to_owned()),
                Cell::Text(mode.to_owned()),
                Cell::Count(policy.near_percent().into()),
                Cell::Text(rule.to_string()),
            ];
            writer.row(&[], &cells)?;
        }
    }
    writer.finish()?;
    Ok(db.close()?)
}
