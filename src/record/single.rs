//! An event by itself, as it lies in the stage (`log/stage.rs`). Integers are LEB128, texts
//! `length · UTF-8`:
//!
//! ```text
//! time (8) · flags (1): 1 entity, 2 id, 4 payload, 8 count, 16 half width · name
//! number · (dimension · value)* · number · (measure · 8-byte float)*
//! entity · id · payload · count · half width, those of the flags
//! ```

use crate::codec::{self, Malformed};
use crate::event::{Event, Times};
use crate::time::Timestamp;

const HAS_ENTITY: u8 = 1;
const HAS_ID: u8 = 2;
const HAS_PAYLOAD: u8 = 4;
const HAS_COUNT: u8 = 8;
const HAS_HALF_WIDTH: u8 = 16;

/// Appends the bytes of an event by itself, which happened at `time`.
#[inline]
pub(crate) fn put_event(out: &mut Vec<u8>, event: &Event<'_>, time: Timestamp) {
    let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
    out.extend_from_slice(&time.micros().to_le_bytes());
    out.push(
        flag(event.entity.is_some(), HAS_ENTITY)
            | flag(event.id.is_some(), HAS_ID)
            | flag(event.payload.is_some(), HAS_PAYLOAD)
            | flag(event.times != Times::default(), HAS_COUNT)
            | flag(event.half_width > 0, HAS_HALF_WIDTH),
    );
    codec::put_short(out, event.name.as_bytes());
    out.push(event.dims.len() as u8);
    for (name, value) in event.dims.iter() {
        codec::put_short(out, name.as_bytes());
        codec::put_short(out, value.as_bytes());
    }
    out.push(event.measures.len() as u8);
    for (name, value) in event.measures.iter() {
        codec::put_short(out, name.as_bytes());
        out.extend_from_slice(&value.to_le_bytes());
    }
    for text in [event.entity, event.id].into_iter().flatten() {
        codec::put_short(out, text.as_bytes());
    }
    event.payload.iter().for_each(|payload| codec::put_bytes(out, payload));
    if event.times != Times::default() {
        codec::put_u64(out, event.times.0);
    }
    if event.half_width > 0 {
        codec::put_u64(out, event.half_width);
    }
}

/// Reads what [`put_event`] wrote. The event is one that its own checks accept.
pub(crate) fn take_event(mut bytes: &[u8]) -> Result<Event<'_>, Malformed> {
    fn text<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, Malformed> {
        std::str::from_utf8(codec::take_bytes(bytes)?).map_err(|_| Malformed("a text is not UTF-8"))
    }
    let bytes = &mut bytes;
    let time = Timestamp::from_micros(i64::from_le_bytes(codec::take_array(bytes)?));
    let [flags] = codec::take_array(bytes)?;
    if flags & !(HAS_ENTITY | HAS_ID | HAS_PAYLOAD | HAS_COUNT | HAS_HALF_WIDTH) != 0 {
        return Err(Malformed("an event has parts of an unknown kind"));
    }
    let mut event = Event::new(text(bytes)?).at(time);
    let [dims] = codec::take_array(bytes)?;
    for _ in 0..dims {
        event = event.dim(text(bytes)?, text(bytes)?);
    }
    let [measures] = codec::take_array(bytes)?;
    for _ in 0..measures {
        event = event.measure(text(bytes)?, f64::from_le_bytes(codec::take_array(bytes)?));
    }
    if flags & HAS_ENTITY != 0 {
        event = event.entity(text(bytes)?);
    }
    if flags & HAS_ID != 0 {
        event = event.id(text(bytes)?);
    }
    if flags & HAS_PAYLOAD != 0 {
        event = event.payload(codec::take_bytes(bytes)?);
    }
    if flags & HAS_COUNT != 0 {
        event.times = Times(codec::take_u64(bytes)?);
    }
    if flags & HAS_HALF_WIDTH != 0 {
        event.half_width = codec::take_u64(bytes)?;
    }
    codec::finished(bytes)?;
    if event.check().is_err() || !(Timestamp::MIN..=Timestamp::MAX).contains(&time) {
        return Err(Malformed("an event is none that is accepted"));
    }
    Ok(event)
}
