//! The faults of tiny-counter 0.1.0 by which its answers differ from the right ones. A difference that
//! belongs to none of them is a failure of a test.
//!
//! Next: `cases.rs`.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// First and last times are guessed: the middle of a bucket, or of a gap between two grains. Of one
    /// event the two guesses can differ, and the first can be the younger.
    GuessesWhen,
    /// Ever is what the coarsest grain keeps: an event that it has let go is in no total, and one that
    /// every grain has let go was never seen.
    EverIsWhatIsKept,
    /// A range that is longer than what is kept is answered for what is kept.
    SilentlyShorter,
    /// A unit that is not kept answers as a counter that nobody ever recorded.
    UnitUnknown,
    /// An event recorded late goes into the second, minute or hour behind the one that it was in, unless
    /// it was on its first moment: the distance is counted from the begin of the present one, rounded
    /// down.
    NextBucket,
    /// Years of 53 ISO weeks are taken for 52, and the week with the first of January in it begins there.
    TurnOfTheYear,
    /// A range of no buckets has an answer.
    NoBuckets,
    /// An open range (`ever`, `days_from`) is divided by the greatest number of buckets that there can be.
    DividedByEver,
    /// The first and the last bucket of a range are looked for in all that is kept.
    OutsideOfTheRange,
    /// None at once makes a counter known that nobody recorded; so does an event that was refused, of which
    /// some grains can have counted before another one refused it.
    NoneIsSomething,
    /// Counts stop at the end of 32 bits.
    StopsAt32Bits,
    /// A merge adds what is already there, and an import replaces what only was here. A counter that is
    /// named twice in one question counts twice.
    CountsTwice,
    /// The clock was put back, and the age of an event is less than nothing.
    NegativeAge,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
