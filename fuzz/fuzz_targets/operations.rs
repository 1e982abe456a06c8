//! Any operations on a simulated disk, the power cut at any of its operations with any of the rest
//! kept, again while that is recovered, and again: what is there equals the model's records up to
//! a frame's end, everything acknowledged as durable among them, each once in every view.
//!
//! The engine, the model and the cuts are those of the crash exploration (`tests/explore`); there
//! scripts are drawn by chance, here by what they reach.
#![no_main]
#![allow(dead_code, reason = "the exploration has more ways to go than are gone here")]
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "as in the tests it shares files with")]

#[path = "../../tests/explore/cuts.rs"]
mod cuts;
#[path = "../../tests/explore/limits.rs"]
mod limits;
#[path = "../../tests/explore/others.rs"]
mod others;
#[path = "../../tests/explore/run.rs"]
mod run;
#[path = "../../tests/explore/script.rs"]
mod script;
#[path = "../../tests/model/mod.rs"]
mod truth;

use arbitrary::Arbitrary;
use cuts::{Cut, Explorer, Moments, Path};
use libfuzzer_sys::fuzz_target;
use limits::Call;
use quipu::simulation::Step;
use quipu::{Dedup, Durability, Retention, TimeZone};
use run::DEFINITIONS;
use script::{Act, INTERVAL, Script, Setup};
use std::sync::Once;
use std::time::Duration;
use truth::{Fact, VIEWS, minute};

#[derive(Arbitrary, Debug)]
struct Input {
    durability: Level,
    budget: Budget,
    /// Kibibytes of a segment, from 2 on.
    segment: u8,
    retention: Kept,
    ids: Ids,
    is_far_away: bool,
    acts: Vec<Operation>,
    /// Cuts of the script, and of the recovery from each one.
    cuts: Vec<(u16, u8, Option<(u16, u8)>)>,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Level {
    Memory,
    Interval,
    Sync,
}

#[derive(Arbitrary, Debug)]
enum Budget {
    None,
    Some,
    Any,
}

#[derive(Arbitrary, Debug)]
enum Kept {
    All,
    Recovery,
    Bytes,
    Minutes,
}

/// Which ids are remembered.
#[derive(Arbitrary, Debug)]
enum Ids {
    None,
    Last(u8),
    Minutes(u8),
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Single(AnyFact, Level),
    Batch(Vec<AnyFact>, Level),
    /// As many copies of a fact, each of another user, visitor and minute.
    Run(AnyFact, u8, Level),
    Define(u8),
    Drop(u8),
    Backfill(u8),
    Checkpoint,
    Sync,
    Background(Task),
    Ask(u8),
    Check,
    Tick,
    Reopen,
    Import(u8, u8),
    Rename,
    /// Which view, which of its definitions, and whether it stops midway.
    Redefine(u8, u8, bool),
    SetPolicy(u8),
    RemovePolicy(u8),
    CheckAndRecord(AnyCall, Level),
    Refund(AnyCall),
}

#[derive(Arbitrary, Debug)]
enum Task {
    Sync,
    Witness,
    Segment,
    Budget,
    Checkpoint,
}

#[derive(Arbitrary, Debug, Clone)]
struct AnyFact {
    cancel: bool,
    user: Option<u8>,
    product: Option<u8>,
    visitor: Option<u16>,
    value: Option<i16>,
    minute: i16,
    /// So many minutes earlier or later it may have been.
    about: Option<u8>,
    /// It stands for so many, and one.
    more: Option<u8>,
    id: Option<u8>,
}

#[derive(Arbitrary, Debug, Clone)]
struct AnyCall {
    policy: u8,
    user: u8,
    more: Option<u8>,
    id: Option<u8>,
}

/// For how many something stands.
fn times(more: Option<u8>) -> u64 {
    1 + u64::from(more.unwrap_or(0) % 8)
}

impl AnyCall {
    fn call(&self) -> Call {
        Call {
            policy: usize::from(self.policy) % limits::NAMES.len(),
            user: self.user % 4,
            times: times(self.more),
            id: self.id.map(|id| id % 64),
        }
    }
}

impl AnyFact {
    fn fact(&self) -> Fact {
        Fact {
            name: if self.cancel { "cancel" } else { "sale" },
            user: self.user.map(|user| user % 16),
            product: self.product.map(|product| product % 8),
            visitor: self.visitor.map(|visitor| visitor % 2_048),
            value: self.value.map(i32::from),
            time: minute(i32::from(self.minute) % 20_000),
            about: self.about.unwrap_or(0).into(),
            times: times(self.more),
            id: self.id.map(|id| id % 64),
        }
    }
}

impl Level {
    fn durability(self) -> Durability {
        match self {
            Level::Memory => Durability::Memory,
            Level::Interval => INTERVAL,
            Level::Sync => Durability::Sync,
        }
    }
}

impl Operation {
    fn act(&self) -> Act {
        let view = |which: &u8| usize::from(*which) % VIEWS;
        match self {
            Operation::Single(fact, level) => Act::Single(fact.fact(), level.durability()),
            Operation::Batch(facts, level) => {
                let facts = facts.iter().take(100).map(AnyFact::fact).collect();
                Act::Batch(facts, level.durability())
            }
            Operation::Run(fact, many, level) => {
                let nth = |n: u8| {
                    let fact = fact.fact();
                    let id = fact.id.map(|id| id.wrapping_add(n) % 64);
                    let user = fact.user.map(|u| (u + n) % 16);
                    let visitor = fact.visitor.map(|visitor| visitor + u16::from(n));
                    let later = Duration::from_mins(n.into());
                    Fact { user, id, visitor, time: fact.time.saturating_add(later), ..fact }
                };
                Act::Batch((0..(*many).min(100)).map(nth).collect(), level.durability())
            }
            Operation::Define(which) => Act::Define(view(which)),
            Operation::Drop(which) => Act::Drop(view(which)),
            Operation::Backfill(which) => Act::Backfill(view(which)),
            Operation::Checkpoint => Act::Checkpoint,
            Operation::Sync => Act::Sync,
            Operation::Background(task) => Act::Run(match task {
                Task::Sync => Step::Sync,
                Task::Witness => Step::Witness,
                Task::Segment => Step::Segment,
                Task::Budget => Step::Budget,
                Task::Checkpoint => Step::Checkpoint,
            }),
            Operation::Ask(user) => Act::Ask(user % 16),
            Operation::Check => Act::Check,
            Operation::Tick => Act::Tick,
            Operation::Reopen => Act::Reopen,
            Operation::Import(device, bundle) => {
                let of = |number: &u8, n| usize::from(*number) % n;
                Act::Import(of(device, others::DEVICES), of(bundle, others::BUNDLES))
            }
            Operation::Rename => Act::Rename,
            Operation::Redefine(which, other, midway) => {
                Act::Redefine(view(which), usize::from(*other) % DEFINITIONS, *midway)
            }
            Operation::SetPolicy(which) => Act::SetPolicy(usize::from(*which) % limits::POLICIES),
            Operation::RemovePolicy(name) => {
                Act::RemovePolicy(usize::from(*name) % limits::NAMES.len())
            }
            Operation::CheckAndRecord(call, level) => {
                Act::CheckAndRecord(call.call(), level.durability())
            }
            Operation::Refund(call) => Act::Refund(call.call()),
        }
    }
}

impl Input {
    fn script(&self) -> Script {
        let setup = Setup {
            durability: self.durability.durability(),
            memory_budget: match self.budget {
                Budget::None => 0,
                Budget::Some => 3_000,
                Budget::Any => 1 << 30,
            },
            segment_bytes: 2_048 + u64::from(self.segment % 16) * 1_024,
            retention: match self.retention {
                Kept::All => Retention::KeepAll,
                Kept::Recovery => Retention::Recovery,
                Kept::Bytes => Retention::Bytes(8_000),
                Kept::Minutes => Retention::Age(Duration::from_mins(3)),
            },
            ids: match self.ids {
                Ids::None => Dedup::Off,
                Ids::Last(most) => Dedup::Last(u64::from(most) + 1),
                Ids::Minutes(minutes) => {
                    Dedup::For(Duration::from_mins(u64::from(minutes % 8) + 1))
                }
            },
            zone: if self.is_far_away { Setup::far_away() } else { TimeZone::UTC },
        };
        let acts = self.acts.iter().take(48).map(Operation::act).collect();
        Script { name: "fuzz".to_owned(), setup, acts }
    }
}

fuzz_target!(|input: Input| {
    // What was done is told while a panic unwinds; libFuzzer's hook would end the process before.
    static UNWIND: Once = Once::new();
    UNWIND.call_once(|| drop(std::panic::take_hook()));
    let cut = |moment: u16, kept: u8, moments: Moments| Cut {
        moment: usize::from(moment) % moments.all,
        kept: kept.into(),
    };
    // The cuts of the recovery that is next, of the one behind it ...
    let mut again = input.cuts.iter().take(6).map(|(_, _, again)| *again);
    let mut plan = |_: &Script, path: &Path, moments: Moments| match path.depth() {
        0 => input.cuts.iter().take(6).map(|(m, k, _)| cut(*m, *k, moments)).collect(),
        1 => again.next().flatten().map(|(m, k)| cut(m, k, moments)).into_iter().collect(),
        _ => Vec::new(),
    };
    Explorer { plan: &mut plan, lie: None, images: 0 }.explore(&input.script());
});
