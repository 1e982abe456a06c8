//! Scripts drawn by chance, run on both. Quipu says what is right, as the model has it; tiny-counter says
//! that, or what its faults make of it.
//!
//! Next: `exchanging.rs`.

use crate::faults::Fault;
use crate::model::Model;
use crate::stores::{Quipu, Store, TinyCounter};
use crate::words::*;
use std::collections::BTreeMap;

/// A generator of numbers (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "never"];

const GRAINS: [Grains; 8] = [
    DEFAULT,
    &[(Second, 90), (Minute, 5), (Hour, 3)],
    &[(Minute, 45), (Hour, 24), (Day, 7)],
    &[(Hour, 36), (Day, 7)],
    &[(Day, 10), (Week, 6), (Month, 3)],
    &[(Month, 24), (Year, 2)],
    &[(Second, 10), (Day, 3)],
    &[(Minute, 30), (Week, 60)],
];

/// In the middle of a year, about the turn of one of 53 weeks and of one of 52, on a leap day.
const STARTS: [&str; 6] = [
    "2025-06-18T10:20:30Z",
    "2020-12-30T23:59:50Z",
    "2024-12-30T06:00:00Z",
    "2024-02-29T12:00:01Z",
    "2026-12-31T23:00:00Z",
    "2025-11-30T00:00:00Z",
];

fn duration(chance: &mut Chance) -> i64 {
    let unit = chance.one_of(&[1, 20, MINUTE, 7 * MINUTE, HOUR, 5 * HOUR, DAY, 3 * DAY, 40 * DAY]);
    // On the first moment of a bucket now and then.
    let odd = if chance.below(3) == 0 { 0 } else { chance.below(unit as u64) as i64 };
    chance.below(8) as i64 * unit + odd
}

fn step(chance: &mut Chance) -> Step {
    let name = chance.one_of(&NAMES[..3]);
    let count = if chance.below(30) == 0 { 0 } else { 1 + chance.below(5) };
    match chance.below(10) {
        0..3 => Record(name, count),
        3..7 => Ago(name, count, duration(chance)),
        7 => Balance(name, chance.one_of(&NAMES[..3])),
        _ => Advance(duration(chance)),
    }
}

fn stretch(chance: &mut Chance, grains: Grains, of_several: bool) -> Stretch {
    let n = |chance: &mut Chance| match chance.below(4) {
        0 => 1,
        1 => chance.below(3) as usize,
        _ => 1 + chance.below(70) as usize,
    };
    match chance.below(if of_several { 7 } else { 10 }) {
        0 => Ever,
        1 => Last(n(chance), chance.one_of(&[Second, Minute, Hour, Day, Week, Month, Year])),
        2..7 => {
            let (unit, kept) = chance.one_of(grains);
            Last(if chance.below(3) == 0 { kept } else { n(chance).min(kept + 1) }, unit)
        }
        7 => {
            let from = n(chance);
            Days(from, from + n(chance))
        }
        8 => DaysFrom(n(chance)),
        _ => DaysFromTake(n(chance), n(chance)),
    }
}

fn ask(chance: &mut Chance, grains: Grains) -> Ask {
    const SEVERAL: [Names; 4] =
        [&["a", "b"], &["b", "never"], &["a", "b", "c"], &["never", "none"]];
    const ONE: [Names; 4] = [&["a"], &["b"], &["c"], &["never"]];
    let name = chance.one_of(&NAMES);
    // tiny-counter waits for itself where both are the same.
    let other = NAMES[(NAMES.iter().position(|n| *n == name).expect("there") + 1) % NAMES.len()];
    match chance.below(14) {
        0..3 => Sum(chance.one_of(&ONE), stretch(chance, grains, false)),
        3 => Sum(chance.one_of(&SEVERAL), stretch(chance, grains, true)),
        4 => Average(chance.one_of(&ONE), stretch(chance, grains, false)),
        5 => Average(chance.one_of(&SEVERAL), stretch(chance, grains, true)),
        6 => AverageActive(name, stretch(chance, grains, false)),
        7 => Active(name, stretch(chance, grains, false)),
        8 => Buckets(name, stretch(chance, grains, false)),
        9 => LastBack(name, stretch(chance, grains, false)),
        10 => FirstBack(name, stretch(chance, grains, false)),
        11 => chance.one_of(&[LastSeen(name), FirstSeen(name)]),
        12 => Ratio(name, other, stretch(chance, grains, true)),
        _ => {
            let stretch = stretch(chance, grains, true);
            chance.one_of(&[Delta(name, other, stretch), DeltaAverage(name, other, stretch)])
        }
    }
}

/// Which fault it is that makes a wrong answer of a right one.
fn fault(model: &Model, ask: &Ask, right: &Answer, wrong: &Answer) -> Fault {
    let stretch = match *ask {
        LastSeen(_) | FirstSeen(_) | FirstSeenIn(..) => {
            let is_gone = *wrong == Nothing;
            return if is_gone { Fault::EverIsWhatIsKept } else { Fault::GuessesWhen };
        }
        Sum(_, stretch)
        | Average(_, stretch)
        | AverageActive(_, stretch)
        | Active(_, stretch)
        | Buckets(_, stretch)
        | LastBack(_, stretch)
        | FirstBack(_, stretch)
        | Ratio(_, _, stretch)
        | Delta(_, _, stretch)
        | DeltaAverage(_, _, stretch) => stretch,
    };
    let is_mean = matches!(ask, Average(..) | DeltaAverage(..));
    let is_open = matches!(stretch, Ever | DaysFrom(_));
    match (right, stretch) {
        (Refused, Last(0, _) | DaysFromTake(_, 0)) => Fault::NoBuckets,
        (Refused, Days(from, to)) if from >= to => Fault::NoBuckets,
        (Refused, _) if !model.has_unit(stretch) => Fault::UnitUnknown,
        (Refused, _) => Fault::SilentlyShorter,
        _ if is_mean && is_open => Fault::DividedByEver,
        (Nothing, _) => Fault::NoneIsSomething,
        (_, Ever) => Fault::EverIsWhatIsKept,
        _ if matches!(ask, LastBack(..) | FirstBack(..)) => Fault::OutsideOfTheRange,
        _ => Fault::NextBucket,
    }
}

#[test]
fn where_the_two_differ_a_named_fault_is_why() {
    let scripts: u64 = std::env::var("QUIPU_SCRIPTS").map_or(100, |n| n.parse().expect("a number"));
    let mut differences: BTreeMap<Fault, u64> = BTreeMap::new();
    let (mut asked, mut agreed) = (0_u64, 0_u64);
    for seed in 0..scripts {
        let chance = &mut Chance(seed);
        let (grains, now) = (chance.one_of(&GRAINS), seconds(chance.one_of(&STARTS)));
        let (quipu, peer) = (Quipu::open(grains, now), TinyCounter::open(grains, now));
        let mut model = Model::new(grains, now);
        for _ in 0..60 {
            match step(chance) {
                Advance(by) => {
                    model.set(model.now() + by);
                    quipu.set(model.now());
                    peer.set(model.now());
                }
                // Each balances what it knows; only what both know is alike.
                Balance(a, b) if !model.knows_alike(a, b) => {}
                step => {
                    assert_eq!(quipu.record(&step), model.record(&step), "{seed}: {step:?}");
                    peer.record(&step);
                }
            }
            for _ in 0..4 {
                let ask = ask(chance, grains);
                let what = || format!("script {seed}, {grains:?}: {ask:?}");
                let (right, wrong) = (model.ask(&ask), peer.ask(&ask));
                assert_eq!(quipu.ask(&ask), right, "{}", what());
                asked += 1;
                let foreseen = model.tiny_counter(&ask).is_none_or(|foreseen| foreseen == wrong);
                assert!(foreseen || model.has_odd_weeks(), "tiny-counter: {wrong:?}, {}", what());
                if right == wrong {
                    agreed += 1;
                } else {
                    let fault = if foreseen {
                        fault(&model, &ask, &right, &wrong)
                    } else {
                        Fault::TurnOfTheYear
                    };
                    *differences.entry(fault).or_default() += 1;
                }
            }
        }
    }
    println!("{scripts} scripts, {asked} questions, {agreed} answered alike, {differences:?}");
    assert!(
        agreed * 3 > asked,
        "{agreed} of {asked}: the scripts ask for too little that both know"
    );
    // Every fault that such scripts can meet is met.
    let met = [
        Fault::GuessesWhen,
        Fault::EverIsWhatIsKept,
        Fault::SilentlyShorter,
        Fault::UnitUnknown,
        Fault::NextBucket,
        Fault::NoBuckets,
        Fault::DividedByEver,
        Fault::OutsideOfTheRange,
        Fault::NoneIsSomething,
        Fault::TurnOfTheYear,
    ];
    assert!(met.iter().all(|fault| differences.contains_key(fault)), "{differences:?}");
}
