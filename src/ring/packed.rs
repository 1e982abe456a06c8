//! Packed rings: all buckets of a series that only counts, in one run of bytes.
//!
//! A counter with minutes, hours, days, weeks, months and years has six rings, and mostly few events. As
//! cells they would take hundreds of bytes before the first bucket; here a bucket takes as many bytes
//! as its count needs, mostly one, and a gap of any length two. The bytes in memory are those of the row.
//!
//! ```text
//! ring    length of what follows (2) · newest bucket's number (zigzag) · tokens; or length 0 alone
//! token   a count (LEB128): of the newest bucket, of the one before it, ...
//!         0 · n: n buckets (LEB128) without events
//! ```
//! Invariants
//! 1. There is a ring for each grain, or there are no bytes: nothing was observed.
//! 2. The first and the last token of a ring are counts, and between two runs of empty buckets is a
//!    count: the same buckets are always the same bytes.
//! 3. As every ring's: the newest number seen, and nothing else, decides which buckets are kept.
//!
//! A bucket that is full for its bytes, a new newest one and a late one move the bytes behind them, of
//! which there are some hundreds ([`BUCKETS_MAX`]). The newest bucket, into which nearly every event falls,
//! is found without looking at others of its ring.

use crate::codec::{self, Malformed};
use crate::time::{Grain, Keep};
use smallvec::SmallVec;
use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};

/// Buckets that the rings of a packed series keep together, at most.
pub(crate) const BUCKETS_MAX: u32 = 1_024;
/// The bytes of a ring's length.
const LEN_BYTES: usize = 2;
/// So few bytes lie in place, where they cost no more than the words that would say where others lie.
const IN_PLACE: usize = 16;
/// What an allocation grows by.
const STEP: usize = 16;

/// The room that is made for so many bytes on the heap: what a block of the usual allocators has behind its
/// own word.
#[inline]
fn room(bytes: usize) -> usize {
    const WORD: usize = 8;
    (WORD + bytes).next_multiple_of(STEP) - WORD
}

/// The rings of a series that only counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Packed(SmallVec<[u8; IN_PLACE]>);

/// What came of counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Added {
    /// Whether a ring does not keep the bucket any more.
    pub(crate) late: bool,
    /// So many bytes more are held on the heap.
    pub(crate) grown: isize,
}

/// A number as it is written.
type Written = SmallVec<[u8; 24]>;

fn put(out: &mut Written, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_signed(out: &mut Written, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// The tokens of a ring, from the newest bucket back.
#[derive(Clone)]
struct Tokens<'a>(&'a [u8]);

enum Token {
    Count(u64),
    Empty(u64),
}

impl Tokens<'_> {
    #[inline]
    fn number(&mut self) -> u64 {
        // What is here was written here, or checked.
        codec::take_u64(&mut self.0).unwrap_or(0)
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call costs as much as a token")]
    fn next(&mut self) -> Option<Token> {
        if self.0.is_empty() {
            return None;
        }
        match self.number() {
            0 => Some(Token::Empty(self.number())),
            count => Some(Token::Count(count)),
        }
    }
}

/// What the buckets of a ring sum to from one of them on.
pub(crate) struct SumFrom {
    /// The newest bucket of the ring.
    pub(crate) newest: i64,
    pub(crate) sum: u64,
    /// The bucket, counted from the newest one back, with which the sum is more than was asked about.
    pub(crate) full: Option<i64>,
    /// The oldest of them; the newest of the ring where there are none.
    pub(crate) oldest: i64,
}

/// Whether all of `grains` together are few enough buckets to be packed.
pub(crate) fn is_packable(grains: &[(Grain, Keep)]) -> bool {
    let buckets = grains.iter().try_fold(0_u32, |sum, (_, keep)| match keep {
        Keep::All => None,
        Keep::Last(n) => sum.checked_add(*n),
    });
    !grains.is_empty() && buckets.is_some_and(|buckets| buckets <= BUCKETS_MAX)
}

impl Packed {
    /// The rings of these buckets, each newest first.
    pub(crate) fn of<B: Iterator<Item = (i64, u64)>>(rings: impl Iterator<Item = B>) -> Self {
        let mut bytes = Vec::new();
        for ring in rings {
            put_ring(&mut bytes, &ring.collect::<SmallVec<[_; 64]>>());
        }
        let mut packed = Packed::default();
        packed.set(&bytes);
        packed
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(crate) fn heap_bytes(&self) -> usize {
        if self.0.len() <= IN_PLACE { 0 } else { room(self.0.len()) }
    }

    #[inline]
    fn len_at(&self, at: usize) -> usize {
        len_of(&self.0[at..])
    }

    /// Counts `times` events in bucket `number` of each grain.
    #[inline]
    pub(crate) fn add(
        &mut self,
        grains: &[(Grain, Keep)],
        numbers: impl Iterator<Item = i64>,
        times: u64,
    ) -> Added {
        let (mut at, mut added) = (0, Added::default());
        if self.0.is_empty() {
            self.0.resize(grains.len() * LEN_BYTES, 0);
            added.grown = self.heap_bytes() as isize;
        }
        for ((_, keep), number) in grains.iter().zip(numbers) {
            let ring = &mut self.0[at..];
            let len = LEN_BYTES + len_of(ring);
            if count_in_newest(ring, number, times) {
                at += len;
                continue;
            }
            let before = self.heap_bytes() as isize;
            added.late |= !self.add_elsewhere(at, *keep, number, times);
            added.grown += self.heap_bytes() as isize - before;
            at += LEN_BYTES + self.len_at(at);
        }
        added
    }

    /// Counts in the ring that begins at `at`; false where it does not keep the bucket.
    #[cold]
    fn add_elsewhere(&mut self, at: usize, keep: Keep, number: i64, times: u64) -> bool {
        let is_kept = self.add_to(at, keep, number, times);
        if self.0.len() <= IN_PLACE && self.0.spilled() {
            self.0.shrink_to_fit();
        }
        is_kept
    }

    fn add_to(&mut self, at: usize, keep: Keep, number: i64, times: u64) -> bool {
        let ring = at + LEN_BYTES..at + LEN_BYTES + self.len_at(at);
        let mut bytes = &self.0[ring.clone()];
        let Ok(newest) = codec::take_i64(&mut bytes) else {
            let mut written = Written::new();
            put_signed(&mut written, number);
            put(&mut written, times);
            self.splice(at, ring, &written);
            return true;
        };
        if number < keep.oldest(newest.max(number)) {
            return false;
        }
        let first = ring.end - bytes.len();
        match number.cmp(&newest) {
            Ordering::Equal => self.raise(at, first, times),
            Ordering::Greater => {
                self.advance(at, ring.start..first, keep, (newest, number), times);
            }
            Ordering::Less => self.add_behind(at, first, newest.abs_diff(number), times),
        }
        true
    }

    /// Adds to the count at `place`.
    fn raise(&mut self, at: usize, place: usize, times: u64) {
        let mut tokens = Tokens(&self.0[place..]);
        let count = tokens.number();
        let end = self.0.len() - tokens.0.len();
        let mut written = Written::new();
        put(&mut written, count.saturating_add(times));
        self.splice(at, place..end, &written);
    }

    /// Makes a bucket newer than the newest one; what is not kept beside it goes.
    fn advance(
        &mut self,
        at: usize,
        head: Range<usize>,
        keep: Keep,
        (newest, number): (i64, i64),
        times: u64,
    ) {
        let gap = number.abs_diff(newest);
        let end = head.start + self.len_at(at);
        // How many of the buckets there are stay.
        let stay = newest.saturating_sub(keep.oldest(number)).saturating_add(1).max(0) as u64;
        let mut tokens = Tokens(&self.0[head.end..end]);
        let (mut age, mut kept_to) = (0_u64, head.end);
        while let Some(token) = tokens.next() {
            age = match token {
                Token::Count(_) if age >= stay => break,
                Token::Count(_) => age + 1,
                Token::Empty(n) => {
                    age = age.saturating_add(n);
                    continue;
                }
            };
            kept_to = end - tokens.0.len();
        }
        let mut written = Written::new();
        put_signed(&mut written, number);
        put(&mut written, times);
        if kept_to > head.end && gap > 1 {
            written.push(0);
            put(&mut written, gap - 1);
        }
        self.splice(at, kept_to..end, &[]);
        self.splice(at, head, &written);
    }

    /// Counts in the bucket that is so many behind the newest, whose count is at `first`.
    fn add_behind(&mut self, at: usize, first: usize, behind: u64, times: u64) {
        let end = at + LEN_BYTES + self.len_at(at);
        let mut left = behind;
        let mut tokens = Tokens(&self.0[first..end]);
        loop {
            let place = end - tokens.0.len();
            match tokens.next() {
                Some(Token::Count(_)) if left == 0 => return self.raise(at, place, times),
                Some(Token::Count(_)) => left -= 1,
                Some(Token::Empty(n)) if left < n => {
                    let mut written = Written::new();
                    for (empty, count) in [(left, times), (n - left - 1, 0)] {
                        if empty > 0 {
                            written.push(0);
                            put(&mut written, empty);
                        }
                        if count > 0 {
                            put(&mut written, count);
                        }
                    }
                    let behind = end - tokens.0.len();
                    return self.splice(at, place..behind, &written);
                }
                Some(Token::Empty(n)) => left -= n,
                None => {
                    let mut written = Written::new();
                    if left > 0 {
                        written.push(0);
                        put(&mut written, left);
                    }
                    put(&mut written, times);
                    return self.splice(at, end..end, &written);
                }
            }
        }
    }

    /// Puts `with` in place of some bytes of the ring that begins at `at`.
    fn splice(&mut self, at: usize, place: Range<usize>, with: &[u8]) {
        let (old_len, bytes) = (self.0.len(), &mut self.0);
        let behind = place.start + with.len();
        if behind > place.end {
            let grown = behind - place.end;
            if bytes.capacity() < old_len + grown {
                bytes.reserve_exact(room(old_len + grown) - old_len);
            }
            bytes.resize(old_len + grown, 0);
        }
        bytes.copy_within(place.end..old_len, behind);
        bytes[place.start..behind].copy_from_slice(with);
        bytes.truncate(old_len + with.len() - place.len());
        let len = self.len_at(at) + with.len() - place.len();
        // 1,024 buckets of 11 bytes each.
        self.0[at..at + LEN_BYTES].copy_from_slice(&(len as u16).to_le_bytes());
    }

    /// The newest bucket of the `nth` ring, if it has one, and its tokens.
    #[inline]
    fn tokens(&self, nth: usize) -> Option<(i64, Tokens<'_>)> {
        let mut rings = self.0.get(LEN_BYTES..).map(|_| &*self.0)?;
        for _ in 0..nth {
            rings = &rings[LEN_BYTES + len_of(rings)..];
        }
        let (newest, behind) = newest_of(rings)?;
        Some((newest, Tokens(&rings[behind..LEN_BYTES + len_of(rings)])))
    }

    /// The newest bucket seen in the `nth` grain.
    pub(crate) fn newest(&self, nth: usize) -> Option<i64> {
        self.tokens(nth).map(|(newest, _)| newest)
    }

    /// The buckets of the `nth` grain with events in them, newest first.
    #[inline]
    pub(crate) fn buckets_back(&self, nth: usize) -> impl Iterator<Item = (i64, u64)> {
        let (mut number, tokens) = self.tokens(nth).unwrap_or((0, Tokens(&[])));
        tokens.filter_map(move |token| match token {
            Token::Count(count) => {
                let bucket = (number, count);
                number = number.wrapping_sub(1);
                Some(bucket)
            }
            Token::Empty(n) => {
                number = number.wrapping_sub(n as i64);
                None
            }
        })
    }

    /// The sum of the counts of the `nth` grain's buckets from `first` on.
    #[inline]
    pub(crate) fn sum_from(&self, nth: usize, first: i64, most: u64) -> Option<SumFrom> {
        let (newest, mut tokens) = self.tokens(nth)?;
        let mut found = SumFrom { newest, sum: 0, full: None, oldest: newest };
        let mut number = newest;
        while number >= first
            && let Some(token) = tokens.next()
        {
            match token {
                Token::Count(count) => {
                    found.sum = found.sum.saturating_add(count);
                    found.oldest = number;
                    if found.sum > most && found.full.is_none() {
                        found.full = Some(number);
                    }
                    number = number.wrapping_sub(1);
                }
                Token::Empty(n) => number = number.saturating_sub_unsigned(n),
            }
        }
        Some(found)
    }

    /// Calls `see` with them until it breaks: the same in less time than one by one.
    #[inline]
    pub(crate) fn each_back(&self, nth: usize, mut see: impl FnMut(i64, u64) -> ControlFlow<()>) {
        let Some((mut number, tokens)) = self.tokens(nth) else { return };
        for token in tokens {
            let step = match token {
                Token::Empty(n) => n,
                Token::Count(count) if see(number, count).is_break() => return,
                Token::Count(_) => 1,
            };
            number = number.wrapping_sub_unsigned(step);
        }
    }

    pub(crate) fn merge(&mut self, other: &Packed, grains: &[(Grain, Keep)]) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            self.clone_from(other);
            return;
        }
        let mut merged = Vec::with_capacity(self.0.len() + other.0.len());
        for (nth, (_, keep)) in grains.iter().enumerate() {
            let Some(newest) = self.newest(nth).max(other.newest(nth)) else {
                merged.extend_from_slice(&[0; LEN_BYTES]);
                continue;
            };
            let oldest = keep.oldest(newest);
            let mut buckets: SmallVec<[(i64, u64); 64]> = SmallVec::new();
            let (mut mine, mut theirs) =
                (self.buckets_back(nth).peekable(), other.buckets_back(nth).peekable());
            loop {
                let next = mine.peek().map(|(n, _)| *n).max(theirs.peek().map(|(n, _)| *n));
                let Some(number) = next.filter(|number| *number >= oldest) else { break };
                let mut count = 0_u64;
                for side in
                    [mine.next_if(|(n, _)| *n == number), theirs.next_if(|(n, _)| *n == number)]
                {
                    count = count.saturating_add(side.map_or(0, |(_, count)| count));
                }
                buckets.push((number, count));
            }
            put_ring(&mut merged, &buckets);
        }
        self.set(&merged);
    }

    fn set(&mut self, bytes: &[u8]) {
        self.0 = SmallVec::new();
        if bytes.len() > IN_PLACE {
            self.0.reserve_exact(room(bytes.len()));
        }
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    pub(crate) fn decode(bytes: &mut &[u8], grains: &[(Grain, Keep)]) -> Result<Self, Malformed> {
        let whole = *bytes;
        for (_, keep) in grains {
            let len = usize::from(u16::from_le_bytes(codec::take_array(bytes)?));
            check(codec::take(bytes, len)?, *keep)?;
        }
        let mut packed = Packed::default();
        packed.set(&whole[..whole.len() - bytes.len()]);
        Ok(packed)
    }
}

/// The length of the ring that some bytes begin with.
#[inline]
fn len_of(rings: &[u8]) -> usize {
    rings.first_chunk().map_or(0, |len| usize::from(u16::from_le_bytes(*len)))
}

/// The number of the newest bucket of the ring that some bytes begin with, if it has one, and where its tokens
/// begin.
#[inline]
fn newest_of(rings: &[u8]) -> Option<(i64, usize)> {
    let len = len_of(rings);
    if len == 0 {
        return None;
    }
    // Mostly there are as many bytes as a word has, with the length in front of it.
    if let Some(word) = rings.first_chunk()
        && let Some((newest, bytes)) =
            codec::short_i64(u64::from_le_bytes(*word) >> (8 * LEN_BYTES))
        && bytes <= 8 - LEN_BYTES
    {
        return Some((newest, LEN_BYTES + bytes));
    }
    let mut bytes = &rings[LEN_BYTES..LEN_BYTES + len];
    let newest = codec::take_i64(&mut bytes).ok()?;
    Some((newest, LEN_BYTES + len - bytes.len()))
}

/// Counts in the newest bucket of the ring that some bytes begin with, if that is the one of this number and the
/// bytes of its count stay as many.
#[inline]
fn count_in_newest(rings: &mut [u8], number: i64, times: u64) -> bool {
    let Some((newest, first)) = newest_of(rings) else { return false };
    let Some(count) = rings.get_mut(first..).filter(|_| newest == number) else { return false };
    // Most counts, and most sums, are of one byte, and of those that are not most of two.
    match count {
        [low, ..] if *low < 0x80 => {
            let sum = u64::from(*low).saturating_add(times);
            if sum < 0x80 {
                *low = sum as u8;
            }
            sum < 0x80
        }
        [low, high, ..] if *high < 0x80 => {
            let sum = (u64::from(*low & 0x7f) | u64::from(*high) << 7).saturating_add(times);
            if sum < 1 << 14 {
                (*low, *high) = (sum as u8 | 0x80, (sum >> 7) as u8);
            }
            sum < 1 << 14
        }
        _ => false,
    }
}

/// Writes a ring of these buckets, newest first.
pub(crate) fn put_ring(out: &mut Vec<u8>, buckets: &[(i64, u64)]) {
    let start = out.len();
    out.extend_from_slice(&[0; LEN_BYTES]);
    let Some((newest, _)) = buckets.first() else { return };
    codec::put_i64(out, *newest);
    let mut next = *newest;
    for (number, count) in buckets {
        if *number < next {
            out.push(0);
            codec::put_u64(out, next.abs_diff(*number));
        }
        codec::put_u64(out, *count);
        next = number.wrapping_sub(1);
    }
    let len = (out.len() - start - LEN_BYTES) as u16;
    out[start..start + LEN_BYTES].copy_from_slice(&len.to_le_bytes());
}

/// Whether the bytes of a ring are as [`put_ring`] leaves them.
fn check(mut ring: &[u8], keep: Keep) -> Result<(), Malformed> {
    if ring.is_empty() {
        return Ok(());
    }
    let newest = codec::take_i64(&mut ring)?;
    let kept = newest.wrapping_sub(keep.oldest(newest)) as u64;
    let (mut age, mut empty_before) = (0_u64, true);
    while !ring.is_empty() {
        if codec::take_u64(&mut ring)? > 0 {
            if age > kept {
                return Err(Malformed("a ring has more buckets than are kept"));
            }
            (age, empty_before) = (age + 1, false);
            continue;
        }
        let empty = codec::take_u64(&mut ring)?;
        if empty == 0 || empty_before || ring.is_empty() {
            return Err(Malformed("a ring has empty buckets where none can be"));
        }
        (age, empty_before) = (age.saturating_add(empty), true);
    }
    if age == 0 {
        return Err(Malformed("a ring has a newest bucket and no count"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers whose sums take one byte, two, and three, and those between.
    fn times() -> impl Strategy<Value = u64> {
        prop_oneof![1_u64..3, 1_u64..400, 125_u64..130, 16_200_u64..16_400]
    }

    proptest! {
        #[test]
        fn counts_go_where_a_map_has_them(
            begin in prop_oneof![any::<i64>(), -300_i64..300],
            shift in 0_u32..64,
            keep in prop::collection::vec(1_u32..40, 1..4),
            events in prop::collection::vec((-50_i64..9, times()), 1..60),
        ) {
            let grains: Vec<_> = keep.iter().map(|n| (Grain::Hour, Keep::Last(*n))).collect();
            let begin = (begin >> shift).clamp(i64::MIN / 4, i64::MAX / 4);
            let mut packed = Packed::default();
            let mut grown = 0;
            let mut maps = vec![std::collections::BTreeMap::<i64, u64>::new(); grains.len()];
            for (n, (ago, times)) in events.into_iter().enumerate() {
                // One ring beside the other, each at its own numbers.
                let number = |nth: usize| begin + n as i64 / 3 - ago + nth as i64 * 1_000_000;
                let added = packed.add(&grains, (0..grains.len()).map(number), times);
                grown += added.grown;
                let mut is_late = false;
                for (nth, ((_, keep), map)) in grains.iter().zip(&mut maps).enumerate() {
                    *map.entry(number(nth)).or_default() += times;
                    let newest = *map.keys().next_back().unwrap();
                    is_late |= number(nth) < keep.oldest(newest);
                    map.retain(|number, _| *number >= keep.oldest(newest));
                    let buckets: Vec<_> = packed.buckets_back(nth).collect();
                    let wanted: Vec<_> = map.iter().rev().map(|(n, count)| (*n, *count)).collect();
                    prop_assert_eq!(buckets, wanted);
                    prop_assert_eq!(packed.newest(nth), Some(newest));
                }
                prop_assert_eq!(added.late, is_late);
                prop_assert_eq!(packed.heap_bytes() as isize, grown);
                let on_heap = packed.0.spilled();
                prop_assert_eq!(packed.heap_bytes() > 0, on_heap, "{} bytes", packed.0.len());
                let mut bytes = Vec::new();
                packed.encode(&mut bytes);
                prop_assert_eq!(Packed::decode(&mut &*bytes, &grains), Ok(packed.clone()));
            }
        }

        /// Rings whose newest bucket's number takes any number of bytes, alone and behind each other.
        #[test]
        fn sums_are_those_of_the_buckets(
            rings in prop::collection::vec(
                (any::<i64>(), 0_u32..64, prop::collection::vec((1_u64..5, 1_u64..400), 0..6)),
                1..4,
            ),
            back in -3_i64..40,
            most in 0_u64..900,
        ) {
            let buckets = |(newest, shift, gaps): &(i64, u32, Vec<(u64, u64)>)| {
                let mut number = newest >> shift;
                let bucket = |(gap, count): &(u64, u64)| {
                    let bucket = (number, *count);
                    number = number.saturating_sub_unsigned(*gap);
                    bucket
                };
                gaps.iter().map(bucket).collect::<Vec<_>>()
            };
            let rings: Vec<_> = rings.iter().map(buckets).collect();
            let packed = Packed::of(rings.iter().map(|ring| ring.iter().copied()));
            prop_assume!(rings.iter().flatten().all(|(number, _)| *number > i64::MIN + 99));
            for (nth, ring) in rings.iter().enumerate() {
                let newest = ring.first().map(|(number, _)| *number);
                prop_assert_eq!(packed.newest(nth), newest);
                let first = newest.unwrap_or(0).saturating_sub(back);
                let found = packed.sum_from(nth, first, most);
                prop_assert_eq!(found.as_ref().map(|found| found.newest), newest);
                let Some(found) = found else { continue };
                let (mut sum, mut full) = (0, None);
                for (number, count) in ring.iter().filter(|(number, _)| *number >= first) {
                    sum += count;
                    full = full.or((sum > most).then_some(*number));
                }
                prop_assert_eq!((found.sum, found.full), (sum, full));
            }
        }
    }
}
