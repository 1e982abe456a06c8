//! When a counter was first and last seen: kept to the microsecond by Quipu, guessed by tiny-counter. The
//! guesses that are shown are those of tiny-counter's own tests, where they have one.
//!
//! Next: `keeping.rs`.

use crate::cases::run_all;
use crate::faults::Fault;
use crate::words::*;

const NOON: &str = "2025-12-05T12:00:00Z";
const MARCH: &str = "2025-03-01T12:00:00Z";

fn first(right: i64, guess: i64) -> Line {
    seen(FirstSeen("event"), right, guess)
}

fn last(right: i64, guess: i64) -> Line {
    seen(LastSeen("event"), right, guess)
}

fn seen(ask: Ask, right: i64, guess: i64) -> Line {
    if right == guess {
        return Both(ask, Age(right));
    }
    PutRight(ask, Age(right), Age(guess), Fault::GuessesWhen)
}

const NOW_ONCE: Line = Do(Record("event", 1));

fn ago(seconds: i64) -> Line {
    Do(Ago("event", 1, seconds))
}

#[test]
fn first_seen() {
    run_all(&[
        with(
            "at the last hour that is kept",
            &[(Day, 7), (Hour, 36)],
            NOON,
            vec![NOW_ONCE, Do(Advance(36 * HOUR)), NOW_ONCE, first(36 * HOUR, 42 * HOUR)],
        ),
        with(
            "two days ago, at midnight",
            &[(Day, 10), (Hour, 48)],
            "2025-12-05T00:00:00Z",
            vec![ago(48 * HOUR), first(48 * HOUR, 48 * HOUR)],
        ),
        with(
            "a day ago and now",
            &[(Day, 7), (Hour, 24)],
            NOON,
            vec![ago(DAY), NOW_ONCE, first(DAY, 30 * HOUR)],
        ),
        with(
            "three days ago, at midnight",
            &[(Day, 5), (Hour, 72)],
            "2025-12-01T00:00:00Z",
            vec![ago(72 * HOUR), first(72 * HOUR, 72 * HOUR)],
        ),
        with(
            "five weeks ago",
            &[(Hour, 48), (Day, 30), (Week, 52)],
            "2025-01-15T10:00:00Z",
            vec![ago(5 * WEEK), first(5 * WEEK, 814 * HOUR)],
        ),
        with(
            "ten minutes ago",
            &[(Minute, 60), (Hour, 24), (Day, 7)],
            "2025-01-15T14:30:00Z",
            vec![ago(10 * MINUTE), first(600, 630)],
        ),
        with(
            "two hours ago, of which one is kept by the minute",
            &[(Minute, 60), (Hour, 24)],
            "2025-01-15T16:00:00Z",
            vec![ago(2 * HOUR), first(2 * HOUR, 5_400)],
        ),
        with(
            "eighteen months ago",
            &[(Day, 30), (Week, 52), (Month, 24)],
            "2025-06-01T12:00:00Z",
            vec![ago(540 * DAY), first(540 * DAY, 13_524 * HOUR)],
        ),
        with(
            "one event half an hour ago",
            &[(Minute, 60), (Hour, 24)],
            "2025-02-10T09:00:00Z",
            vec![ago(30 * MINUTE), first(1_800, 1_830), last(1_800, 1_830)],
        ),
        with(
            "three days ago and two hours ago",
            &[(Hour, 48), (Day, 7)],
            "2025-03-20T15:00:00Z",
            vec![ago(3 * DAY), ago(2 * HOUR), first(3 * DAY, 243_000), last(7_200, 9_000)],
        ),
        with(
            "six hours ago, and now",
            &[(Day, 7), (Hour, 24)],
            NOON,
            vec![NOW_ONCE, Do(Advance(6 * HOUR)), NOW_ONCE, first(6 * HOUR, 6 * HOUR + 1_800)],
        ),
        with(
            "five hours ago, by grains that touch",
            &[(Day, 7), (Hour, 24), (Minute, 60)],
            NOON,
            vec![
                NOW_ONCE,
                Do(Advance(5 * HOUR)),
                NOW_ONCE,
                first(5 * HOUR, 5 * HOUR + 1_800),
                last(0, 0),
            ],
        ),
        with(
            "five hours ago, by grains that overlap",
            &[(Day, 7), (Hour, 24), (Minute, 60 * 24)],
            NOON,
            vec![NOW_ONCE, Do(Advance(5 * HOUR)), NOW_ONCE, first(5 * HOUR, 18_030), last(0, 0)],
        ),
        with(
            "five hours ago, between two grains",
            &[(Day, 7), (Minute, 60)],
            NOON,
            vec![NOW_ONCE, Do(Advance(5 * HOUR)), NOW_ONCE, first(5 * HOUR, 9 * HOUR), last(0, 0)],
        ),
        with(
            "25 hours ago",
            &[(Day, 7), (Hour, 36)],
            NOON,
            vec![NOW_ONCE, Do(Advance(25 * HOUR)), NOW_ONCE, first(25 * HOUR, 91_800), last(0, 0)],
        ),
        with(
            "37 hours ago, and 39",
            &[(Day, 7), (Hour, 36)],
            "2025-12-05T10:00:00Z",
            vec![
                NOW_ONCE,
                Do(Advance(37 * HOUR)),
                NOW_ONCE,
                first(37 * HOUR, 41 * HOUR + 1_800),
                last(0, 0),
                Do(Advance(2 * HOUR)),
                first(39 * HOUR, 42 * HOUR + 1_800),
                last(2 * HOUR, 2 * HOUR + 1_800),
            ],
        ),
        case(
            "never",
            vec![
                Both(FirstSeen("nothing"), Nothing),
                Both(LastSeen("nothing"), Nothing),
                Both(FirstSeenIn("nothing", Hour), Nothing),
            ],
        ),
        case(
            "in a unit",
            vec![
                NOW_ONCE,
                Do(Advance(5 * HOUR)),
                NOW_ONCE,
                Both(FirstSeenIn("event", Hour), Age(5 * HOUR)),
                Both(FirstSeenIn("event", Day), Age(0)),
                PutRight(FirstSeenIn("event", Second), Refused, Nothing, Fault::UnitUnknown),
            ],
        ),
        with(
            "this moment",
            &[(Year, 2), (Month, 12), (Day, 28), (Hour, 24)],
            NOON,
            vec![NOW_ONCE, first(0, 0), last(0, 0)],
        ),
        with(
            "ten days ago and now",
            DEFAULT,
            "2025-06-18T10:00:00Z",
            vec![
                NOW_ONCE,
                Do(Advance(10 * DAY)),
                NOW_ONCE,
                first(10 * DAY, 10 * DAY - 2 * HOUR),
                last(0, 0),
            ],
        ),
        with(
            "two days ago, in all grains",
            DEFAULT,
            NOON,
            vec![ago(2 * DAY), first(2 * DAY, 2 * DAY + 1_800), last(2 * DAY, 2 * DAY + 1_800)],
        ),
    ]);
}

#[test]
fn last_seen() {
    run_all(&[
        with(
            "now, by the second",
            &[(Second, 60), (Minute, 60)],
            MARCH,
            vec![NOW_ONCE, last(0, 0), Do(Advance(30)), last(30, 30)],
        ),
        with(
            "five minutes ago",
            &[(Minute, 60), (Hour, 24), (Day, 7)],
            MARCH,
            vec![ago(5 * MINUTE), last(300, 330)],
        ),
        with(
            "the most recent of three",
            &[(Hour, 48), (Day, 7)],
            MARCH,
            vec![ago(3 * DAY), ago(2 * HOUR), ago(30 * MINUTE), last(1_800, 5_400)],
        ),
        with(
            "two hours ago, by the hour",
            &[(Minute, 60), (Hour, 48)],
            MARCH,
            vec![ago(2 * HOUR), last(7_200, 9_000)],
        ),
        with(
            "sixty days ago",
            &[(Day, 30), (Week, 52), (Month, 24)],
            MARCH,
            vec![ago(60 * DAY), last(60 * DAY, 1_560 * HOUR)],
        ),
        with(
            "half a day ago, between two grains",
            &[(Minute, 60), (Day, 7)],
            MARCH,
            vec![ago(12 * HOUR), last(12 * HOUR, 18 * HOUR + 1_800)],
        ),
        with(
            "a day ago to the hour",
            &[(Hour, 24), (Day, 7)],
            MARCH,
            vec![ago(DAY), last(DAY, 42 * HOUR)],
        ),
        with(
            "two days ago, and nothing is kept so long",
            &[(Hour, 24)],
            MARCH,
            vec![
                NOW_ONCE,
                Do(Advance(48 * HOUR)),
                Do(Record("other", 1)),
                PutRight(LastSeen("event"), Age(48 * HOUR), Nothing, Fault::EverIsWhatIsKept),
            ],
        ),
        with(
            "a quarter of an hour ago, first and last",
            &[(Minute, 60), (Hour, 24)],
            MARCH,
            vec![ago(15 * MINUTE), first(900, 930), last(900, 930)],
        ),
        with(
            "three days ago and two hours ago, at noon",
            &[(Hour, 48), (Day, 7)],
            MARCH,
            vec![ago(3 * DAY), ago(2 * HOUR), first(3 * DAY, 237_600), last(7_200, 9_000)],
        ),
        with(
            "longer and longer ago",
            &[(Minute, 60)],
            MARCH,
            vec![NOW_ONCE, last(0, 0), Do(Advance(600)), last(600, 630)],
        ),
        with(
            "an hour and a half ago",
            &[(Hour, 24)],
            MARCH,
            vec![NOW_ONCE, Do(Advance(90 * MINUTE)), last(5_400, 7_200)],
        ),
        with(
            "ten minutes after the one before",
            &[(Day, 7), (Hour, 24), (Minute, 60)],
            NOON,
            vec![NOW_ONCE, Do(Advance(600)), NOW_ONCE, last(0, 0)],
        ),
        with(
            "ten minutes after the one before, by grains that overlap",
            &[(Day, 7), (Hour, 24), (Minute, 60 * 24)],
            NOON,
            vec![NOW_ONCE, Do(Advance(600)), NOW_ONCE, last(0, 0)],
        ),
        with(
            "fifty minutes ago, of which 45 are kept",
            &[(Day, 7), (Hour, 24), (Minute, 45)],
            NOON,
            vec![NOW_ONCE, Do(Advance(50 * MINUTE)), last(3_000, 3_150)],
        ),
        with(
            "forty minutes ago, of which 30 are kept",
            &[(Day, 7), (Hour, 24), (Minute, 30)],
            NOON,
            vec![NOW_ONCE, Do(Advance(40 * MINUTE)), last(2_400, 2_700)],
        ),
        with(
            "half an hour ago, by the hour",
            &[(Hour, 24)],
            NOON,
            vec![NOW_ONCE, Do(Advance(30 * MINUTE)), last(1_800, 900)],
        ),
        with(
            "ten and twenty days ago",
            DEFAULT,
            NOON,
            vec![ago(10 * DAY), ago(20 * DAY), last(10 * DAY, 10 * DAY)],
        ),
        with("a day ago", DEFAULT, NOON, vec![ago(DAY), last(DAY, DAY + 1_800)]),
        with("a week ago", DEFAULT, NOON, vec![ago(WEEK), last(WEEK, WEEK)]),
        with(
            "four seconds ago, across a minute",
            &[(Minute, 60)],
            "2025-12-05T12:01:58Z",
            vec![NOW_ONCE, Do(Advance(4)), last(4, 92)],
        ),
        with(
            "first and last of one event, in two grains",
            &[(Minute, 60), (Hour, 24)],
            "2025-12-05T12:50:00Z",
            vec![NOW_ONCE, Do(Advance(70 * MINUTE)), first(4_200, 5_400), last(4_200, 9_000)],
        ),
        with(
            "a clock that was put back two days",
            &[(Hour, 72), (Day, 7)],
            NOON,
            vec![
                NOW_ONCE,
                Do(Advance(-2 * DAY)),
                PutRight(LastSeen("event"), Age(0), Age(-DAY), Fault::NegativeAge),
            ],
        ),
    ]);
}
