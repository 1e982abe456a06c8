//! Copies of texts, to which the texts that come next are compared.
//!
//! A text is compared to that of the event before for each name and each value of each event. So what a
//! short one consists of lies in place, and is copied and compared as its two ends, which overlap: words, of
//! lengths that the compiler knows.

use crate::dictionary::{same_ends, same_text};

/// A text that most often lies in place.
pub(super) struct Copied {
    /// The text if it is no longer than this; what is behind it is of earlier ones.
    short: [u8; SHORT_BYTES],
    len: usize,
    /// The text if it is longer.
    long: Option<Box<str>>,
}

const SHORT_BYTES: usize = 24;

impl Copied {
    pub(super) const EMPTY: Copied = Copied { short: [0; SHORT_BYTES], len: 0, long: None };
    /// What no text is equal to.
    pub(super) const NOTHING: Copied = Copied { len: usize::MAX, ..Copied::EMPTY };

    #[inline]
    pub(super) fn set(&mut self, text: &str) {
        /// Of the ends of a text of `N` bytes at least and twice that at most.
        fn copy_ends<const N: usize>(to: &mut [u8], from: &[u8]) {
            if let Some(first) = from.first_chunk::<N>() {
                to[..N].copy_from_slice(first);
            }
            if let Some(last) = from.last_chunk::<N>() {
                to[from.len() - N..from.len()].copy_from_slice(last);
            }
        }
        let (to, from) = (&mut self.short, text.as_bytes());
        match from.len() {
            4..=8 => copy_ends::<4>(to, from),
            9..=16 => copy_ends::<8>(to, from),
            len if len <= SHORT_BYTES => to[..len].copy_from_slice(from),
            _ => {}
        }
        self.len = from.len();
        if self.len > SHORT_BYTES || self.long.is_some() {
            self.set_long(text);
        }
    }

    #[cold]
    #[inline(never)]
    fn set_long(&mut self, text: &str) {
        self.long = (text.len() > SHORT_BYTES).then(|| text.into());
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "for each text of each event: a call costs as much")]
    pub(super) fn is(&self, text: &str) -> bool {
        let (text, len) = (text.as_bytes(), text.len());
        len == self.len
            && match len {
                4..=8 => same_ends::<4>(&self.short[..len], text),
                9..=16 => same_ends::<8>(&self.short[..len], text),
                _ => self.is_other(text),
            }
    }

    /// Of a text of its length.
    #[inline(never)]
    fn is_other(&self, text: &[u8]) -> bool {
        same_text(self.bytes(), text)
    }

    /// Of one that is a text.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.long {
            None => &self.short[..self.len],
            Some(long) => long.as_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of all lengths that are copied in ways of their own, few enough that some are equal.
    fn texts() -> impl Strategy<Value = String> {
        (0_usize..40, prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 0..2))
            .prop_map(|(len, changes)| {
                let mut text: Vec<char> = ('a'..='z').cycle().take(len).collect();
                for (at, char) in changes.iter().filter(|_| len > 0) {
                    text[at.index(len)] = *char;
                }
                text.into_iter().collect()
            })
    }

    proptest! {
        #[test]
        fn a_copy_is_the_text_that_was_set_last(texts in prop::collection::vec(texts(), 1..6)) {
            let mut copied = Copied::NOTHING;
            prop_assert!(texts.iter().all(|text| !copied.is(text)));
            for text in &texts {
                copied.set(text);
                prop_assert_eq!(copied.bytes(), text.as_bytes());
                for other in &texts {
                    prop_assert_eq!(copied.is(other), text == other, "{} {}", text, other);
                }
            }
        }
    }
}
