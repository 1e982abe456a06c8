//! A bundle as text: what its bytes hold, for people and for other software, through serde.
//!
//! ```json
//! {"format": 1, "since": "beginning", "upto": "0123456789abcdef0123456789abcdef:3", "frames": [
//!   {"replica": "0123456789abcdef0123456789abcdef", "first": 2, "empty": 1, "events": [
//!     {"event": "sale", "at": "2010-12-01T08:26:00.000Z", "dims": {"user": "alice"},
//!      "measures": {"value": "15.3"}, "times": 3, "about_micros": 500000, "id": "o1",
//!      "entity": "cart 7", "payload": "00ff"}]}]}
//! ```
//! What an event has not is not there. Measures are texts, because a number would be rounded by some
//! readers; a number is read, too. A payload is hexadecimal. Fields that are not known are refused.

use super::bundle::Packer;
use super::{Bundle, Cursor, ReplicaId};
use crate::dictionary::Sym;
use crate::event::{Event, Times};
use crate::record::{Columns, Origin};
use crate::time::Timestamp;
use serde::de::Error as _;
use serde::ser::{Error as _, SerializeSeq as _, SerializeStruct as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

const FORMAT: u32 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BundleText {
    format: u32,
    since: Cursor,
    upto: Cursor,
    frames: Vec<FrameText<'static>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrameText<'a> {
    replica: ReplicaId,
    first: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    empty: u64,
    events: Vec<EventText<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventText<'a> {
    event: Cow<'a, str>,
    at: Timestamp,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    dims: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    measures: BTreeMap<Cow<'a, str>, Exact>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    times: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    about_micros: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Hexadecimal<'a>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_one(number: &u64) -> bool {
    *number == 1
}

fn one() -> u64 {
    1
}

/// A float as the shortest text that is read as the same one.
#[derive(Clone, Copy)]
struct Exact(f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:?}", self.0))
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Exact;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or the text of one")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Exact, E> {
                text.parse().map(Exact).map_err(|_| E::custom(format!("{text:?} is no number")))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Exact, E> {
                Ok(Exact(number))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Exact, E> {
                Ok(Exact(number as f64))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Exact, E> {
                Ok(Exact(number as f64))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// Bytes as hexadecimal digits.
struct Hexadecimal<'a>(Cow<'a, [u8]>);

impl Serialize for Hexadecimal<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let digits = digits.filter_map(|digit| char::from_digit(digit.into(), 16));
        serializer.serialize_str(&digits.collect::<String>())
    }
}

impl<'de> Deserialize<'de> for Hexadecimal<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let pair = |pair: &[u8]| match pair {
            [high, low] => Some((digit(*high)? << 4 | digit(*low)?) as u8),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
        let bytes = bytes.ok_or_else(|| D::Error::custom("a payload is hexadecimal digits"))?;
        Ok(Hexadecimal(Cow::Owned(bytes)))
    }
}

impl<'a> EventText<'a> {
    fn of(event: &Event<'a>) -> Self {
        EventText {
            event: event.name.into(),
            at: event.time.unwrap_or_default(),
            dims: event
                .dims
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            measures: event.measures.iter().map(|(name, x)| ((*name).into(), Exact(*x))).collect(),
            times: event.times.0,
            about_micros: event.half_width,
            id: event.id.map(Cow::from),
            entity: event.entity.map(Cow::from),
            payload: event.payload.map(|payload| Hexadecimal(payload.into())),
        }
    }

    fn event(&self) -> Event<'_> {
        let mut event = Event::new(&self.event).at(self.at);
        for (name, value) in &self.dims {
            event = event.dim(name, value);
        }
        for (name, Exact(x)) in &self.measures {
            event = event.measure(name, *x);
        }
        event.id = self.id.as_deref();
        event.entity = self.entity.as_deref();
        event.payload = self.payload.as_ref().map(|payload| &*payload.0);
        (event.times, event.half_width) = (Times(self.times), self.about_micros);
        event
    }
}

/// The frames of a bundle, one after the other.
struct Frames<'a>(&'a Bundle);

impl Frames<'_> {
    fn frame<'a>(&'a self, columns: &'a Columns) -> Option<FrameText<'a>> {
        let Origin { replica, first, empty } = columns.extras.origin?;
        let text = |sym: Sym| self.0.text(sym);
        let events = (0..columns.len()).map(|row| columns.event(row, &text).ok());
        let events = events.map(|event| event.as_ref().map(EventText::of));
        Some(FrameText {
            replica: ReplicaId(replica),
            first,
            empty,
            events: events.collect::<Option<_>>()?,
        })
    }
}

impl Serialize for Frames<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut frames = serializer.serialize_seq(Some(self.0.frames()))?;
        let mut failed = None;
        let walked = self.0.each_frame(|columns| {
            // One whose events cannot be shown does not come into being.
            let frame = self.frame(columns).ok_or_else(|| S::Error::custom("a frame is damaged"));
            if failed.is_none() {
                failed = frame.and_then(|frame| frames.serialize_element(&frame)).err();
            }
            Ok(())
        });
        walked.map_err(S::Error::custom)?;
        failed.map_or(Ok(()), Err)?;
        frames.end()
    }
}

impl Serialize for Bundle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Bundle", 4)?;
        fields.serialize_field("format", &FORMAT)?;
        fields.serialize_field("since", &self.since)?;
        fields.serialize_field("upto", &self.upto)?;
        fields.serialize_field("frames", &Frames(self))?;
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Bundle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = BundleText::deserialize(deserializer)?;
        if text.format != FORMAT {
            let found = text.format;
            let why = format!(
                "a bundle of format {found}; this software knows {FORMAT}; use a newer one"
            );
            return Err(D::Error::custom(why));
        }
        let mut packer = Packer::new(text.since);
        for frame in &text.frames {
            let FrameText { replica, first, empty, events } = frame;
            let origin = Origin { replica: replica.0, first: *first, empty: *empty };
            let pushed = packer.push_events(origin, events.iter().map(EventText::event));
            pushed.map_err(D::Error::custom)?;
        }
        Ok(packer.finish(text.upto))
    }
}
