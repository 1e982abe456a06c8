//! Cases of recording, counting and comparing. Each runs on the adapter, on tiny-counter and on the model.
//!
//! Next: `seen.rs`.

use crate::faults::Fault;
use crate::model::Model;
use crate::stores::{Quipu, Store, TinyCounter};
use crate::words::*;

/// Does what a case says on all three, and gives what was otherwise.
fn run(case: &Case, wrong: &mut Vec<String>) {
    let now = seconds(case.now);
    let (quipu, peer) = (Quipu::open(case.grains, now), TinyCounter::open(case.grains, now));
    let mut model = Model::new(case.grains, now);
    for line in &case.lines {
        let mut same = |who: &str, got: &dyn std::fmt::Debug, is_same: bool| {
            if !is_same {
                wrong.push(format!("{}: {line:?}: {who} {got:?}", case.name));
            }
        };
        let (ask, right, of_peer) = match line {
            Do(Advance(by)) => {
                model.set(model.now() + by);
                quipu.set(model.now());
                peer.set(model.now());
                continue;
            }
            Do(step) => {
                let is_recorded = quipu.record(step);
                same("recorded by Quipu:", &is_recorded, is_recorded == model.record(step));
                peer.record(step);
                continue;
            }
            Both(ask, answer) => (ask, answer, answer),
            Right(ask, answer) => (ask, answer, &peer.ask(ask)),
            PutRight(ask, right, of_peer, fault) => {
                same("no difference by", fault, right != of_peer);
                (ask, right, of_peer)
            }
        };
        let got = quipu.ask(ask);
        same("Quipu says", &got, got == *right);
        let got = peer.ask(ask);
        same("tiny-counter says", &got, got == *of_peer);
        if !matches!(ask, FirstSeenIn(..)) {
            let got = model.ask(ask);
            same("the model says", &got, got == *right);
        }
    }
}

pub fn run_all(cases: &[Case]) {
    let mut names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), cases.len(), "a case for each name");
    let mut wrong = Vec::new();
    for case in cases {
        run(case, &mut wrong);
    }
    assert!(wrong.is_empty(), "{} in all:\n{}", wrong.len(), wrong.join("\n"));
    let lines = || cases.iter().flat_map(|case| &case.lines);
    let asked = lines().filter(|line| !matches!(line, Do(_))).count();
    let put_right = lines().filter(|line| matches!(line, PutRight(..))).count();
    println!("{} cases, {asked} answers, {put_right} of them put right", cases.len());
}

const E: Names = &["event"];
const ONE_DAY: Stretch = Last(1, Day);

/// `n` of "event", now.
fn add(n: u64) -> Line {
    Do(Record("event", n))
}

fn ago(n: u64, seconds: i64) -> Line {
    Do(Ago("event", n, seconds))
}

/// The events of a range, on both.
fn sum(stretch: Stretch, count: u64) -> Line {
    Both(Sum(E, stretch), Count(count))
}

fn each_unit(count: u64) -> Vec<Line> {
    [Minute, Hour, Day, Week, Month, Year].map(|unit| sum(Last(1, unit), count)).to_vec()
}

const OF_SEVEN: Grains =
    &[(Second, 60), (Minute, 60), (Hour, 24), (Day, 7), (Week, 4), (Month, 12), (Year, 2)];

#[test]
fn recording() {
    let hours_of_a_day = (0..24).map(|hour| {
        let midnight = seconds(NOW) - seconds("2024-06-15T00:00:00Z");
        Do(Ago("event", 1, midnight - hour * HOUR))
    });
    let mut on_the_hour: Vec<Line> = hours_of_a_day.collect();
    on_the_hour.push(sum(Ever, 24));
    on_the_hour.push(Both(Active("event", Last(24, Month)), Count(1)));
    run_all(&[
        case("one event", vec![add(1), sum(ONE_DAY, 1)]),
        case("events add up", vec![add(1), add(1), add(1), sum(ONE_DAY, 3)]),
        case("several at once add up", vec![add(10), add(20), sum(ONE_DAY, 30)]),
        case(
            "names are counted apart",
            vec![
                Do(Record("a", 2)),
                Do(Record("b", 3)),
                Both(Sum(&["a"], ONE_DAY), Count(2)),
                Both(Sum(&["b"], ONE_DAY), Count(3)),
            ],
        ),
        case(
            "interleaved names are counted apart",
            ["a", "b", "a", "c", "b", "a"]
                .map(|name| Do(Record(name, 1)))
                .into_iter()
                .chain([
                    Both(Sum(&["a"], ONE_DAY), Count(3)),
                    Both(Sum(&["b"], ONE_DAY), Count(2)),
                    Both(Sum(&["c"], ONE_DAY), Count(1)),
                ])
                .collect(),
        ),
        case("a name is there with its first event", vec![add(1), sum(Last(1, Minute), 1)]),
        case(
            "none at once is no event",
            vec![add(0), PutRight(Sum(E, ONE_DAY), Nothing, Count(0), Fault::NoneIsSomething)],
        ),
        case(
            "at a time two days ago",
            vec![Do(At("event", 1, "2025-06-16T10:20:30Z")), sum(ONE_DAY, 0), sum(Last(7, Day), 1)],
        ),
        case(
            "several at a time of yesterday",
            vec![Do(At("event", 50, "2025-06-17T10:20:30Z")), sum(Last(7, Day), 50)],
        ),
        case(
            "some time ago",
            vec![
                ago(1, 3 * HOUR),
                sum(Last(24, Hour), 1),
                Do(Ago("older", 1, 2 * DAY)),
                Both(Sum(&["older"], Last(3, Day)), Count(1)),
            ],
        ),
        case(
            "several some time ago",
            vec![
                ago(25, 12 * HOUR),
                sum(Last(24, Hour), 25),
                Do(Ago("older", 10, 2 * DAY)),
                Both(Sum(&["older"], Last(3, Day)), Count(10)),
            ],
        ),
        case(
            "a day ahead is refused",
            vec![
                Do(At("event", 1, "2025-06-19T10:20:30Z")),
                // Years of tiny-counter may have counted it before its days refused it.
                Right(Sum(E, Ever), Nothing),
            ],
        ),
        case(
            "several an hour ahead are refused",
            vec![
                Do(At("event", 10, "2025-06-18T11:20:30Z")),
                Right(Sum(E, Ever), Nothing),
                Right(Sum(E, ONE_DAY), Nothing),
                Do(Record("event", 1)),
                Right(Sum(E, ONE_DAY), Count(1)),
            ],
        ),
        with(
            "midnight",
            &[(Month, 24)],
            NOW,
            vec![Do(At("event", 1, "2024-06-15T00:00:00Z")), sum(Ever, 1)],
        ),
        with("each hour of a day", &[(Month, 24)], NOW, on_the_hour),
        with(
            "the two sides of midnight",
            &[(Day, 400), (Month, 24)],
            NOW,
            vec![
                Do(At("event", 1, "2024-06-15T23:59:59Z")),
                Do(At("event", 1, "2024-06-16T00:00:01Z")),
                sum(Ever, 2),
                sum(Last(24, Month), 2),
                sum(Days(367, 368), 1),
                sum(Days(368, 369), 1),
            ],
        ),
        case(
            "nearly all that 32 bits hold",
            vec![add(u64::from(u32::MAX) - 1_000), sum(ONE_DAY, u64::from(u32::MAX) - 1_000)],
        ),
        case(
            "twice half of what 32 bits hold",
            vec![
                add(u64::from(u32::MAX / 2)),
                add(u64::from(u32::MAX / 2)),
                sum(ONE_DAY, u64::from(u32::MAX) - 1),
            ],
        ),
        case(
            "more than 32 bits hold",
            vec![
                add(u64::from(u32::MAX)),
                add(5),
                PutRight(
                    Sum(E, ONE_DAY),
                    Count(u64::from(u32::MAX) + 5),
                    Count(u64::from(u32::MAX)),
                    Fault::StopsAt32Bits,
                ),
            ],
        ),
        case(
            "a name with every kind of sign",
            vec![
                Do(Record("event:with/special.chars-and_numbers123!@#$%", 1)),
                Both(Sum(&["event:with/special.chars-and_numbers123!@#$%"], ONE_DAY), Count(1)),
            ],
        ),
        case(
            "a name of many scripts",
            vec![
                Do(Record("событие_事件_🎉", 1)),
                Both(Sum(&["событие_事件_🎉"], ONE_DAY), Count(1)),
            ],
        ),
        case(
            "in the hour that it was in",
            vec![
                Do(At("event", 1, "2025-06-18T08:45:00Z")),
                // Of 8 o'clock; it is 10:20.
                PutRight(
                    Buckets("event", Last(3, Hour)),
                    Counts(vec![0, 0, 1]),
                    Counts(vec![0, 1, 0]),
                    Fault::NextBucket,
                ),
            ],
        ),
    ]);
}

#[test]
fn many_events_and_many_names() {
    let (quipu, peer) =
        (Quipu::open(DEFAULT, seconds(NOW)), TinyCounter::open(DEFAULT, seconds(NOW)));
    for _ in 0..10_000 {
        quipu.record(&Record("rapid", 1));
        peer.record(&Record("rapid", 1));
    }
    let all = Sum(&["rapid"], ONE_DAY);
    assert_eq!((quipu.ask(&all), peer.ask(&all)), (Count(10_000), Count(10_000)));
    for n in 0..1_000 {
        quipu.store.record(format!("event{n}")).expect("recorded");
        peer.store.record(format!("event{n}"));
    }
    for n in 0..1_000 {
        let name = format!("event{n}");
        assert_eq!(quipu.store.query(&name).last_days(1).sum().expect("answered"), Some(1));
        assert_eq!(peer.store.query(&name).last_days(1).sum(), Some(1));
    }
}

#[test]
fn a_name_has_at_most_255_bytes() {
    let (quipu, peer) =
        (Quipu::open(DEFAULT, seconds(NOW)), TinyCounter::open(DEFAULT, seconds(NOW)));
    let (long, longer) = ("a".repeat(255), "a".repeat(256));
    quipu.store.record(&long).expect("recorded");
    assert_eq!(quipu.store.query(&long).last_days(1).sum().expect("answered"), Some(1));
    let error = quipu.store.record(&longer).expect_err("refused").to_string();
    assert!(error.contains("255"), "{error}");
    peer.store.record(&longer);
    assert_eq!(peer.store.query(&longer).last_days(1).sum(), Some(1));
}

#[test]
fn sums() {
    let mut units = vec![add(5)];
    units.extend(each_unit(5));
    let mut seven = vec![add(1)];
    seven.extend([Second, Minute, Hour, Day, Week, Month, Year].map(|unit| sum(Last(1, unit), 1)));
    let three = [("a", 10), ("b", 20), ("c", 30)].map(|(name, n)| Do(Record(name, n)));
    let three = |more: Vec<Line>| three.clone().into_iter().chain(more).collect::<Vec<Line>>();
    let yesterday = [
        (Last(60, Minute), 0),
        (Last(25, Hour), 5),
        (Last(56, Day), 5),
        (Last(1, Week), 5),
        (Last(1, Month), 5),
        (Last(1, Year), 5),
    ];
    let yesterday = yesterday.map(|(stretch, n)| sum(stretch, n));
    run_all(&[
        case("of a day", vec![add(10), add(20), add(30), sum(ONE_DAY, 60)]),
        with(
            "of an hour and of three",
            &[(Hour, 24)],
            NOW,
            vec![
                add(1),
                Do(Advance(2 * HOUR)),
                add(1),
                sum(Last(1, Hour), 1),
                sum(Last(3, Hour), 2),
            ],
        ),
        case("of three counters", three(vec![Both(Sum(&["a", "b", "c"], ONE_DAY), Count(60))])),
        case(
            "of two counters and one that is not there",
            three(vec![Both(Sum(&["a", "b", "nothing"], ONE_DAY), Count(30))]),
        ),
        case(
            "of counters that are not there",
            three(vec![Both(Sum(&["nothing", "neither"], ONE_DAY), Nothing)]),
        ),
        case(
            "of one counter named twice",
            vec![
                Do(Record("a", 4)),
                PutRight(Sum(&["a", "a"], ONE_DAY), Count(4), Count(8), Fault::CountsTwice),
            ],
        ),
        case("since ever", vec![add(100), sum(Ever, 100)]),
        case("since ever, of two", three(vec![Both(Sum(&["a", "c"], Ever), Count(40))])),
        case("in each unit of the default ones", units),
        with("in each unit that there is", OF_SEVEN, NOW, seven),
        with("in seconds", &[(Second, 60)], NOW, vec![add(1), sum(Last(60, Second), 1)]),
        case("of a counter that is not there", vec![Both(Sum(E, ONE_DAY), Nothing)]),
        case(
            "of an empty store",
            vec![
                Both(Sum(&["any"], ONE_DAY), Nothing),
                Both(Sum(&["any"], Last(1, Hour)), Nothing),
                Both(Sum(&["any"], Ever), Nothing),
            ],
        ),
        with(
            "of what is over",
            &[(Hour, 24)],
            NOW,
            vec![add(1), Do(Advance(48 * HOUR)), sum(Last(24, Hour), 0)],
        ),
        case(
            "of ten years ago",
            vec![
                ago(1, 3_650 * DAY),
                PutRight(Sum(E, Ever), Count(1), Count(0), Fault::EverIsWhatIsKept),
                sum(Last(4, Year), 0),
            ],
        ),
        case(
            "of a hundred of ten years ago",
            vec![
                ago(100, 3_650 * DAY),
                PutRight(Sum(E, Ever), Count(100), Count(0), Fault::EverIsWhatIsKept),
            ],
        ),
        with(
            "of three years",
            &[(Year, 4)],
            NOW,
            vec![
                ago(1, 0),
                ago(1, 365 * DAY),
                ago(1, 730 * DAY),
                sum(Ever, 3),
                sum(Last(3, Year), 3),
            ],
        ),
        case(
            "of no days",
            vec![add(1), PutRight(Sum(E, Last(0, Day)), Refused, Count(0), Fault::NoBuckets)],
        ),
        case(
            "of a year of days, of which eight weeks are kept",
            vec![
                add(1),
                ago(1, 100 * DAY),
                PutRight(Sum(E, Last(365, Day)), Refused, Count(1), Fault::SilentlyShorter),
                sum(Last(12, Month), 2),
            ],
        ),
        with(
            "of a unit that is not kept",
            &[(Day, 7)],
            NOW,
            vec![
                add(1),
                PutRight(Sum(E, Last(1, Hour)), Refused, Nothing, Fault::UnitUnknown),
                PutRight(Sum(&["nothing"], Last(1, Hour)), Refused, Nothing, Fault::UnitUnknown),
            ],
        ),
        case(
            "of days of the week before",
            vec![
                add(3),
                sum(Last(7, Day), 3),
                sum(Days(7, 14), 0),
                ago(2, 9 * DAY),
                sum(Days(7, 14), 2),
            ],
        ),
        case(
            "of days from so many back on",
            vec![
                add(5),
                ago(1, 20 * DAY),
                sum(DaysFromTake(0, 1), 5),
                sum(DaysFrom(1), 1),
                sum(DaysFromTake(1, 19), 0),
                sum(DaysFromTake(1, 20), 1),
            ],
        ),
        with(
            "of yesterday, in each unit",
            DEFAULT,
            "2025-06-18T10:20:30Z",
            std::iter::once(ago(5, DAY)).chain(yesterday).collect(),
        ),
        case(
            "of yesterday's 24 hours",
            vec![
                // The hour from ten to eleven of yesterday is the 25th.
                ago(5, DAY),
                PutRight(Sum(E, Last(24, Hour)), Count(0), Count(5), Fault::NextBucket),
            ],
        ),
        case(
            "of three counters that are full",
            vec![
                Do(Record("a", u64::from(u32::MAX))),
                Do(Record("b", u64::from(u32::MAX))),
                Do(Record("c", u64::from(u32::MAX))),
                PutRight(
                    Sum(&["a", "b", "c"], ONE_DAY),
                    Count(3 * u64::from(u32::MAX)),
                    Count(u64::from(u32::MAX)),
                    Fault::StopsAt32Bits,
                ),
            ],
        ),
        with(
            "of weeks through a week 53",
            &[(Week, 60), (Day, 20)],
            "2020-12-30T12:00:00Z",
            vec![
                add(1),
                Do(Advance(WEEK)),
                add(10),
                sum(Last(2, Day), 10),
                sum(Days(7, 8), 1),
                PutRight(
                    Buckets("event", Last(2, Week)),
                    Counts(vec![10, 1]),
                    Counts(vec![11, 0]),
                    Fault::TurnOfTheYear,
                ),
            ],
        ),
    ]);
}

#[test]
fn averages_and_active_buckets() {
    const WEEK_OF_DAYS: Grains = &[(Day, 7)];
    run_all(&[
        case(
            "average of a day",
            vec![add(10), add(20), add(30), Both(Average(E, ONE_DAY), Number(60.0))],
        ),
        case(
            "average of seven days",
            vec![
                add(3),
                Both(Average(E, Last(7, Day)), Number(3.0 / 7.0)),
                Both(Average(E, ONE_DAY), Number(3.0)),
            ],
        ),
        case("average of two days", vec![add(10), Both(Average(E, Last(2, Day)), Number(5.0))]),
        case(
            "average of two counters",
            vec![
                Do(Record("a", 10)),
                Do(Record("b", 4)),
                Both(Average(&["a", "b"], Last(2, Day)), Number(7.0)),
            ],
        ),
        case(
            "average of nothing in the range",
            vec![ago(1, 3 * DAY), Both(Average(E, Last(2, Day)), Number(0.0))],
        ),
        case(
            "average of large counts",
            vec![
                add(u64::from(u32::MAX / 2)),
                Both(Average(E, ONE_DAY), Number(f64::from(u32::MAX / 2))),
            ],
        ),
        case(
            "average of ever",
            vec![
                add(6),
                ago(2, 365 * DAY),
                PutRight(
                    Average(E, Ever),
                    Number(4.0),
                    Number(8.0 / usize::MAX as f64),
                    Fault::DividedByEver,
                ),
            ],
        ),
        with(
            "average of active days",
            WEEK_OF_DAYS,
            NOW,
            vec![add(14), Both(AverageActive("event", Last(7, Day)), Number(14.0))],
        ),
        with(
            "average of active days, of large counts",
            &[(Day, 5)],
            NOW,
            vec![
                add(u64::from(u32::MAX / 3)),
                add(u64::from(u32::MAX / 3)),
                add(u64::from(u32::MAX / 3)),
                Both(AverageActive("event", Last(5, Day)), Number(f64::from(u32::MAX))),
            ],
        ),
        with(
            "average of active days where there are none",
            WEEK_OF_DAYS,
            NOW,
            vec![
                ago(1, 5 * DAY),
                Both(AverageActive("event", Last(3, Day)), Nothing),
                Both(AverageActive("nothing", Last(3, Day)), Nothing),
            ],
        ),
        with(
            "active days",
            WEEK_OF_DAYS,
            NOW,
            vec![add(1), Both(Active("event", Last(7, Day)), Count(1))],
        ),
        with(
            "active days of several",
            WEEK_OF_DAYS,
            NOW,
            vec![
                add(2),
                ago(1, DAY),
                ago(1, DAY),
                ago(1, 4 * DAY),
                Both(Active("event", Last(7, Day)), Count(3)),
                Both(Active("event", Last(4, Day)), Count(2)),
                Both(Active("nothing", Last(7, Day)), Nothing),
            ],
        ),
        case(
            "all of them on one day",
            vec![
                add(10),
                add(20),
                add(30),
                sum(ONE_DAY, 60),
                Both(Average(E, ONE_DAY), Number(60.0)),
                Both(AverageActive("event", ONE_DAY), Number(60.0)),
                Both(Active("event", ONE_DAY), Count(1)),
            ],
        ),
        case(
            "buckets, the present one first",
            vec![
                add(100),
                Both(Buckets("event", Last(7, Day)), Counts(vec![100, 0, 0, 0, 0, 0, 0])),
                ago(7, 2 * DAY),
                Both(Buckets("event", Last(3, Day)), Counts(vec![100, 0, 7])),
                Both(Buckets("nothing", Last(3, Day)), Counts(vec![])),
            ],
        ),
        case(
            "buckets of more than is kept",
            vec![
                add(1),
                PutRight(
                    Buckets("event", Last(5, Year)),
                    Refused,
                    Counts(vec![1, 0, 0, 0]),
                    Fault::SilentlyShorter,
                ),
            ],
        ),
        case(
            "buckets of ever",
            vec![
                add(100),
                // From the first event on, there is one.
                PutRight(
                    Buckets("event", Ever),
                    Counts(vec![100]),
                    Counts(vec![100, 0, 0, 0]),
                    Fault::EverIsWhatIsKept,
                ),
            ],
        ),
        case(
            "the place of the first bucket and of the last",
            vec![
                add(1),
                Do(Advance(5 * HOUR)),
                add(1),
                Both(FirstBack("event", Last(24, Hour)), Count(5)),
                Both(LastBack("event", Last(24, Hour)), Count(0)),
                Do(Advance(2 * HOUR)),
                Both(LastBack("event", Last(24, Hour)), Count(2)),
                PutRight(
                    FirstBack("event", Last(3, Hour)),
                    Count(2),
                    Count(7),
                    Fault::OutsideOfTheRange,
                ),
            ],
        ),
    ]);
}

#[test]
fn ratios_and_differences() {
    let two = |a, b, more: Vec<Line>| -> Vec<Line> {
        [Do(Record("a", a)), Do(Record("b", b))].into_iter().chain(more).collect()
    };
    let delta = |n| Both(Delta("a", "b", ONE_DAY), Difference(n));
    let balanced = |n| {
        vec![
            Do(Balance("a", "b")),
            delta(0),
            Both(Sum(&["a"], ONE_DAY), Count(n)),
            Both(Sum(&["b"], Ever), Count(n)),
        ]
    };
    run_all(&[
        case("a ratio", two(25, 100, vec![Both(Ratio("a", "b", ONE_DAY), Number(0.25))])),
        case(
            "a ratio above one",
            two(6, 3, vec![Both(Ratio("a", "b", Last(1, Hour)), Number(2.0))]),
        ),
        case("a ratio of ever", two(100, 25, vec![Both(Ratio("a", "b", Ever), Number(4.0))])),
        case(
            "a ratio to what is not there",
            vec![Do(Record("a", 25)), Both(Ratio("a", "b", ONE_DAY), Nothing)],
        ),
        case(
            "a ratio of what is not there",
            vec![Do(Record("b", 100)), Both(Ratio("a", "b", ONE_DAY), Nothing)],
        ),
        case(
            "a ratio to none in the range",
            vec![
                Do(Record("a", 1)),
                Do(Ago("b", 1, 3 * DAY)),
                Both(Ratio("a", "b", ONE_DAY), Nothing),
                Both(Ratio("b", "a", ONE_DAY), Number(0.0)),
            ],
        ),
        case("a difference", two(50, 30, vec![delta(20)])),
        case("a difference below nothing", two(30, 50, vec![delta(-20)])),
        case("no difference", two(10, 10, vec![delta(0)])),
        case(
            "a difference of ever",
            two(150, 50, vec![Both(Delta("a", "b", Ever), Difference(100))]),
        ),
        case(
            "a difference to what is not there",
            vec![Do(Record("a", 50)), delta(50), Both(Delta("b", "a", ONE_DAY), Difference(-50))],
        ),
        case(
            "a difference on average",
            two(50, 30, vec![Both(DeltaAverage("a", "b", Last(4, Day)), Number(5.0))]),
        ),
        case(
            "a difference on average of ever",
            two(
                50,
                30,
                vec![PutRight(
                    DeltaAverage("a", "b", Ever),
                    Number(20.0),
                    Number(20.0 / usize::MAX as f64),
                    Fault::DividedByEver,
                )],
            ),
        ),
        case("balanced from below", two(100, 30, balanced(100))),
        case("balanced from above", two(30, 100, balanced(100))),
        case("balanced already", two(10, 10, balanced(10))),
    ]);
}

/// tiny-counter locks itself out here, so it is not asked.
#[test]
fn a_ratio_with_itself_comes_to_an_end() {
    let quipu = Quipu::open(DEFAULT, seconds(NOW));
    quipu.record(&Record("a", 7));
    quipu.record(&Record("b", 7));
    assert_eq!(quipu.ask(&Ratio("a", "a", ONE_DAY)), Number(1.0));
    std::thread::scope(|scope| {
        for (a, b) in [("a", "b"), ("b", "a")] {
            let quipu = &quipu;
            scope.spawn(move || {
                for _ in 0..500 {
                    assert_eq!(quipu.ask(&Ratio(a, b, ONE_DAY)), Number(1.0));
                }
            });
        }
    });
}

/// What a store was told as it happened, so long ago, and at a time is the same to it.
#[test]
fn three_ways_of_recording_leave_the_same() {
    const NOON: i64 = 1_735_732_800; // 2025-01-01
    for (unit, length) in [(Minute, MINUTE), (Hour, HOUR), (Day, DAY)] {
        for kept in [10_usize, 37, 99] {
            let grains: Grains = Box::leak(Box::new([(unit, kept)]));
            for back in [1, 2, 9, 23, 49] {
                let back = i64::from(back).min(kept as i64 - 1);
                let start = if unit == Day { NOON - 12 * HOUR } else { NOON };
                let stores: Vec<Quipu> = (0..3).map(|_| Quipu::open(grains, start)).collect();
                stores[0].record(&Record("event", 1));
                for store in &stores {
                    store.set(start + back * length);
                }
                stores[1].record(&Ago("event", 1, back * length));
                let at = crate::stores::moment(start);
                stores[2].store.record_at("event", at).expect("recorded");
                for store in &stores {
                    let asked = [FirstSeen("event"), LastSeen("event")].map(|ask| store.ask(&ask));
                    assert_eq!(asked, [Age(back * length), Age(back * length)]);
                    assert_eq!(store.ask(&Sum(E, Last(kept, unit))), Count(1));
                    let place = FirstBack("event", Last(kept, unit));
                    assert_eq!(store.ask(&place), Count(back as u64));
                }
            }
        }
    }
}
