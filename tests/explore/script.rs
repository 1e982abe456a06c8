//! What an engine is made to do: acts, some in scripts written by hand, the others drawn by chance.

use crate::limits::{self, Call};
use crate::others;
use crate::run::DEFINITIONS;
use crate::truth::{CALLS, Fact, NOW, REFUNDS, SKETCHES, VIEWS, minute};
use quipu::simulation::{Random, Step};
use quipu::{Dedup, Durability, Options, Retention, TestClock, TimeZone, Timestamp};
use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Single(Fact, Durability),
    Batch(Vec<Fact>, Durability),
    Define(usize),
    Drop(usize),
    Backfill(usize),
    /// Gives a view another of its definitions; `true`: checkpoints and stops midway.
    Redefine(usize, usize, bool),
    Checkpoint,
    Sync,
    /// What a thread would do in the background.
    Run(Step),
    /// Asks for one key, which may make it resident.
    Ask(u8),
    /// Asks for everything there is.
    Check,
    /// Takes in what another device has told: which device, and which of its bundles.
    Import(usize, usize),
    /// Goes on as another replica.
    Rename,
    /// Sets a policy in place of the one of its name.
    SetPolicy(usize),
    /// By its name.
    RemovePolicy(usize),
    /// Records a call if the policy allows it.
    CheckAndRecord(Call, Durability),
    /// Gives back what was used.
    Refund(Call),
    /// Time goes by.
    Tick,
    /// Closes the engine and opens it again.
    Reopen,
}

/// How the engine is opened.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) durability: Durability,
    pub(crate) memory_budget: usize,
    pub(crate) segment_bytes: u64,
    pub(crate) retention: Retention,
    /// Which ids are remembered.
    pub(crate) ids: Dedup,
    /// Whose days and hours buckets are.
    pub(crate) zone: TimeZone,
}

#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) setup: Setup,
    pub(crate) acts: Vec<Act>,
}

pub(crate) const INTERVAL: Durability = Durability::Interval(Duration::from_millis(100));

impl Setup {
    /// What is asked for if nothing is to be hard.
    pub(crate) fn plain() -> Self {
        Setup {
            durability: INTERVAL,
            memory_budget: 1 << 30,
            segment_bytes: 4_096,
            retention: Retention::KeepAll,
            ids: Dedup::Off,
            zone: TimeZone::UTC,
        }
    }

    pub(crate) fn options(&self, clock: &TestClock) -> Options {
        let options = Options::new()
            .clock(clock.clone())
            .durability(self.durability)
            .memory_budget(self.memory_budget)
            .tiny_segments(self.segment_bytes)
            .retention(self.retention);
        let options =
            if self.zone == TimeZone::UTC { options } else { options.time_zone(self.zone) };
        if self.ids == Dedup::Off { options } else { options.dedup(self.ids) }
    }

    /// One that says this minute of the present.
    pub(crate) fn clock(minute: u32) -> TestClock {
        TestClock::at(Timestamp::from_secs(NOW + i64::from(minute) * 60))
    }

    /// A zone whose hours begin at half hours, and which sets its clocks back in the time of the facts.
    pub(crate) fn far_away() -> TimeZone {
        "America/St_Johns".parse().unwrap()
    }
}

fn fact(random: &mut Random) -> Fact {
    let mut some = |of: u64, n: u64| (random.below(4) < of).then(|| random.below(n));
    let (user, product, value) = (some(3, 8), some(3, 6), some(3, 1_000));
    let (visitor, id, is_cancelled) = (some(3, 400), some(1, 60), some(1, 2).is_some());
    // Few events are of several, or of a time that is known roughly.
    let (several, roughly) = (random.one_in(8), random.one_in(8));
    Fact {
        name: if is_cancelled { "cancel" } else { "sale" },
        user: user.map(|n| n as u8),
        product: product.map(|n| n as u8),
        visitor: visitor.map(|n| n as u16),
        value: value.map(|n| n as i32 - 500),
        id: id.map(|n| n as u8),
        time: minute(random.below(40_000) as i32 - 20_000),
        about: if roughly { 1 + random.below(300) as u16 } else { 0 },
        times: if several { 2 + random.below(6) } else { 1 },
    }
}

pub(crate) fn facts(random: &mut Random, n: u64) -> Vec<Fact> {
    (0..n).map(|_| fact(random)).collect()
}

/// Facts that no two visitors share, all under one name.
fn visits(random: &mut Random, visitors: std::ops::Range<u16>) -> Vec<Fact> {
    let visit = |visitor| Fact { name: "sale", visitor: Some(visitor), ..fact(random) };
    visitors.map(visit).collect()
}

fn durability(random: &mut Random) -> Durability {
    [Durability::Memory, INTERVAL, INTERVAL, Durability::Sync][random.below(4) as usize]
}

/// A call by chance, of few users.
fn call(random: &mut Random) -> Call {
    Call {
        policy: random.below(limits::NAMES.len() as u64) as usize,
        user: random.below(3) as u8,
        times: 1 + random.below(4),
        id: random.one_in(4).then(|| random.below(20) as u8),
    }
}

/// One act by chance.
pub(crate) fn act(random: &mut Random) -> Act {
    let view = |random: &mut Random| random.below(VIEWS as u64) as usize;
    match random.below(57) {
        0..=9 => Act::Single(fact(random), durability(random)),
        10..=16 => {
            let n = 1 + random.below(30);
            Act::Batch(facts(random, n), durability(random))
        }
        17..=18 => Act::Define(view(random)),
        19 => Act::Drop(view(random)),
        20..=21 => Act::Backfill(view(random)),
        22..=24 => Act::Checkpoint,
        25 => Act::Sync,
        26..=28 => Act::Run(Step::Sync),
        29 => Act::Run(Step::Witness),
        30..=31 => Act::Run(Step::Segment),
        32 => Act::Run(Step::Budget),
        33..=35 => Act::Ask(random.below(10) as u8),
        36 => Act::Check,
        37..=39 => Act::Tick,
        40..=42 => {
            let device = random.below(others::DEVICES as u64) as usize;
            Act::Import(device, random.below(others::BUNDLES as u64) as usize)
        }
        43 => Act::Rename,
        44..=46 => {
            let definition = random.below(DEFINITIONS as u64) as usize;
            Act::Redefine(view(random), definition, random.one_in(2))
        }
        47 => Act::SetPolicy(random.below(limits::POLICIES as u64) as usize),
        48 if random.one_in(2) => {
            Act::RemovePolicy(random.below(limits::NAMES.len() as u64) as usize)
        }
        48..=53 => Act::CheckAndRecord(call(random), durability(random)),
        54 => Act::Refund(call(random)),
        _ => Act::Reopen,
    }
}

/// A script by chance; the same for the same seed.
pub(crate) fn random_script(seed: u64) -> Script {
    let random = &mut Random::new(seed);
    let bytes = 2_048 + random.below(4) * 3_000;
    let setup = Setup {
        durability: durability(random),
        memory_budget: [0, 3_000, 1 << 30][random.below(3) as usize],
        segment_bytes: bytes,
        retention: [
            Retention::KeepAll,
            Retention::Recovery,
            Retention::Bytes(8_000),
            Retention::Age(Duration::from_mins(3)),
        ][random.below(4) as usize],
        ids: match random.below(4) {
            0 => Dedup::Off,
            1 => Dedup::For(Duration::from_mins(1 + random.below(3))),
            _ => Dedup::Last(5 + random.below(30)),
        },
        zone: if random.one_in(3) { Setup::far_away() } else { TimeZone::UTC },
    };
    let mut begin = (0..=random.below(4)).map(|n| Act::Define(n as usize)).collect::<Vec<_>>();
    if random.one_in(2) {
        begin.push(Act::Define(SKETCHES));
    }
    if random.one_in(2) {
        begin.extend([Act::Define(CALLS), Act::Define(REFUNDS)]);
        begin.push(Act::SetPolicy(random.below(limits::POLICIES as u64) as usize));
    }
    let n = 8 + random.below(30);
    let acts = begin.into_iter().chain((0..n).map(|_| act(random))).collect();
    Script { name: seed.to_string(), setup, acts }
}

/// Scripts that meet each thing an engine does with its files, in the order that makes it hard.
#[expect(clippy::too_many_lines, reason = "a list, to be read from top to bottom")]
pub(crate) fn fixed_scripts() -> Vec<Script> {
    let base = Setup::plain();
    let random = &mut Random::new(42);
    let mut batch = |n, level| Act::Batch(facts(random, n), level);
    let (memory, sync) = (Durability::Memory, Durability::Sync);
    let flush = Act::Run(Step::Sync);
    let spare = Act::Run(Step::Segment);
    let calls =
        |policy, times, level| Act::CheckAndRecord(Call { times, ..Call::plain(policy) }, level);
    let script =
        |name: &str, setup: Setup, acts: Vec<Act>| Script { name: name.to_owned(), setup, acts };
    vec![
        // A life without a checkpoint: segments made in advance and in need, syncs of several.
        script(
            "log",
            base.clone(),
            vec![
                Act::Define(0),
                batch(20, INTERVAL),
                Act::Define(3),
                flush.clone(),
                batch(40, memory),
                spare.clone(),
                batch(30, INTERVAL),
                batch(30, sync),
                batch(1, memory),
                batch(50, memory),
                flush.clone(),
                Act::Run(Step::Witness),
                spare.clone(),
                batch(3, memory),
                Act::Drop(0),
                Act::Define(4),
                batch(25, INTERVAL),
                flush.clone(),
                batch(2, sync),
            ],
        ),
        // A tail that no sync has reached lies in several segments.
        script(
            "tail",
            Setup { segment_bytes: 2_048, ..base.clone() },
            vec![
                Act::Define(0),
                batch(20, sync),
                batch(40, memory),
                batch(60, memory),
                spare.clone(),
                batch(60, memory),
                batch(60, memory),
                batch(20, memory),
            ],
        ),
        // Checkpoints over and over, of whole and of partial series, with nothing kept in memory.
        script(
            "snapshot",
            Setup { memory_budget: 0, ..base.clone() },
            vec![
                Act::Define(1),
                Act::Define(3),
                batch(20, memory),
                Act::Checkpoint,
                batch(10, INTERVAL),
                Act::Checkpoint,
                Act::Ask(3),
                batch(10, sync),
                Act::Define(4),
                batch(15, memory),
                Act::Checkpoint,
                Act::Checkpoint,
                Act::Drop(1),
                batch(5, memory),
                Act::Run(Step::Checkpoint),
                Act::Run(Step::Budget),
                batch(5, INTERVAL),
            ],
        ),
        // Segments are retired while the log goes on, and ids leave their window.
        script(
            "retire",
            Setup {
                retention: Retention::Recovery,
                ids: Dedup::Last(15),
                segment_bytes: 2_048,
                ..base.clone()
            },
            vec![
                Act::Define(0),
                batch(40, INTERVAL),
                batch(40, INTERVAL),
                Act::Checkpoint,
                batch(30, sync),
                spare.clone(),
                batch(30, memory),
                Act::Checkpoint,
                batch(30, INTERVAL),
                Act::Checkpoint,
                batch(8, memory),
            ],
        ),
        // Views that come late are filled, and openings follow each other.
        script(
            "late views",
            Setup { segment_bytes: 3_000, ids: Dedup::Last(10), ..base.clone() },
            vec![
                batch(30, memory),
                batch(30, INTERVAL),
                Act::Define(2),
                Act::Backfill(2),
                batch(10, memory),
                Act::Reopen,
                batch(10, INTERVAL),
                Act::Define(4),
                Act::Backfill(4),
                Act::Reopen,
                Act::Reopen,
                batch(10, sync),
                Act::Drop(2),
                Act::Define(2),
                batch(10, memory),
                Act::Backfill(2),
            ],
        ),
        // Others tell what they have recorded, some of it twice, while views come and segments go. It is
        // far away, time goes by, and what came in the last two minutes does not come again.
        script(
            "exchange",
            Setup {
                retention: Retention::Bytes(6_000),
                ids: Dedup::For(Duration::from_mins(2)),
                zone: Setup::far_away(),
                segment_bytes: 2_048,
                ..base.clone()
            },
            vec![
                Act::Define(0),
                batch(10, memory),
                Act::Import(0, 0),
                Act::Import(0, 1),
                Act::Tick,
                batch(5, INTERVAL),
                Act::Checkpoint,
                Act::Import(1, 2),
                Act::Rename,
                Act::Tick,
                Act::Define(4),
                Act::Import(1, 1),
                batch(30, memory),
                Act::Reopen,
                Act::Tick,
                Act::Import(0, 1),
                Act::Import(1, 1),
                Act::Checkpoint,
                Act::Rename,
                batch(5, memory),
            ],
        ),
        // Views get other definitions, at once and in parts, and openings follow each other.
        script(
            "other definitions",
            Setup { segment_bytes: 3_000, retention: Retention::Recovery, ..base.clone() },
            vec![
                Act::Define(3),
                Act::Define(4),
                batch(30, memory),
                batch(30, INTERVAL),
                Act::Redefine(3, 1, false),
                batch(10, memory),
                Act::Redefine(4, 1, true),
                batch(20, memory),
                Act::Reopen,
                batch(10, memory),
                Act::Redefine(4, 1, false),
                Act::Define(2),
                batch(10, INTERVAL),
                Act::Redefine(2, 2, true),
                Act::Redefine(2, 1, true),
                batch(10, memory),
                Act::Redefine(2, 1, false),
                Act::Redefine(2, 2, true),
                Act::Redefine(2, 1, false),
                Act::Redefine(2, 0, true),
                batch(5, memory),
                Act::Drop(2),
                Act::Reopen,
            ],
        ),
        // The log no longer reaches back to where views begin: what they keep is converted.
        script(
            "conversions",
            Setup {
                segment_bytes: 2_048,
                retention: Retention::Recovery,
                memory_budget: 0,
                ..base.clone()
            },
            vec![
                Act::Define(3),
                Act::Define(4),
                batch(150, memory),
                batch(150, INTERVAL),
                Act::Checkpoint,
                batch(60, memory),
                Act::Checkpoint,
                Act::Redefine(3, 1, false),
                batch(5, memory),
                Act::Redefine(4, 1, true),
                Act::Redefine(4, 2, false),
                batch(5, INTERVAL),
                Act::Redefine(4, 0, false),
                batch(20, memory),
                Act::Redefine(3, 0, false),
                Act::Drop(3),
                Act::Redefine(4, 1, false),
            ],
        ),
        // Sketches are evicted and merged with what is stored of them, and the view gets others.
        script(
            "sketches",
            Setup { memory_budget: 0, zone: Setup::far_away(), ..base.clone() },
            vec![
                Act::Define(SKETCHES),
                batch(40, memory),
                Act::Checkpoint,
                batch(20, INTERVAL),
                Act::Checkpoint,
                Act::Redefine(SKETCHES, 2, true),
                batch(10, memory),
                Act::Redefine(SKETCHES, 2, false),
                batch(5, sync),
            ],
        ),
        // Policies come and go, and what they allow is asked for by one more than they do.
        script(
            "limits",
            Setup {
                retention: Retention::Recovery,
                segment_bytes: 2_048,
                ids: Dedup::Last(3),
                ..base.clone()
            },
            vec![
                Act::Define(CALLS),
                Act::SetPolicy(0),
                calls(0, 3, INTERVAL),
                calls(0, 3, memory),
                calls(0, 2, memory),
                Act::Define(REFUNDS),
                Act::Checkpoint,
                Act::SetPolicy(1),
                calls(0, 3, sync),
                calls(0, 1, sync),
                Act::Refund(Call { times: 4, ..Call::plain(0) }),
                Act::Tick,
                calls(0, 3, memory),
                Act::Drop(REFUNDS),
                Act::Redefine(CALLS, 1, false),
                Act::SetPolicy(2),
                Act::Checkpoint,
                calls(1, 1, INTERVAL),
                Act::Reopen,
                calls(0, 2, INTERVAL),
                Act::RemovePolicy(0),
                calls(0, 2, memory),
                Act::Tick,
                Act::Tick,
                calls(1, 1, memory),
                flush.clone(),
            ],
        ),
        // Each call waits for the disk.
        script(
            "sync",
            Setup { durability: sync, retention: Retention::Bytes(6_000), ..base },
            vec![
                Act::Define(0),
                batch(10, sync),
                batch(1, sync),
                Act::Define(1),
                batch(1, memory),
                batch(30, sync),
                spare,
                batch(30, sync),
                Act::Checkpoint,
                batch(30, sync),
                batch(30, sync),
                Act::Run(Step::Witness),
                Act::Checkpoint,
                Act::Reopen,
                batch(5, sync),
            ],
        ),
    ]
}

/// Sketches of one key outgrow what they can keep as it is: in memory, in the store, and in both together.
/// What that takes is much, so it is cut in some places only.
pub(crate) fn many_visitors() -> Script {
    let setup = Setup { memory_budget: 0, segment_bytes: 40_000, ..Setup::plain() };
    let random = &mut Random::new(43);
    let mut visits = |visitors| Act::Batch(visits(random, visitors), Durability::Sync);
    let acts = vec![
        Act::Define(SKETCHES),
        visits(0..700),
        Act::Checkpoint,
        visits(500..1_100),
        Act::Check,
        Act::Checkpoint,
        Act::Check,
    ];
    Script { name: "many visitors".to_owned(), setup, acts }
}

/// A fixed script by its name, a random one by its seed.
pub(crate) fn named(name: &str) -> Script {
    if let Ok(seed) = name.parse() {
        return random_script(seed);
    }
    let mut scripts = fixed_scripts().into_iter().chain([many_visitors()]);
    scripts.find(|script| script.name == name).expect("a script")
}
