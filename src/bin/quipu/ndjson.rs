//! One line of NDJSON into the slots of a [`Mapping`].
//!
//! 1. Only the mapped fields are looked at; the others are checked to be JSON and passed over.
//! 2. Strings are borrowed from the line unless they contain an escape.
//! 3. A number is kept as it was written: a dimension's text loses no digit, and a measure is
//!    rounded once, correctly, by the standard library.
//! 4. A mapped field that stands twice in a line makes it bad: it has no one meaning.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::mapping::{Mapping, Value, Values};

/// Reads a line, or says why it is bad.
pub(crate) fn parse<'a>(line: &'a [u8], mapping: &Mapping) -> Result<Values<'a>, String> {
    let text = std::str::from_utf8(line)
        .map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to() + 1))?;
    let mut json = serde_json::Deserializer::from_str(text);
    let values = LineVisitor(mapping).deserialize(&mut json).and_then(|values| {
        json.end()?;
        Ok(values)
    });
    values.map_err(|error| reason(text, &error))
}

/// The parser's message without its line number, which is always 1.
fn reason(text: &str, error: &serde_json::Error) -> String {
    if text.trim_start().starts_with('[') {
        return "a JSON array; each line must be one object (jq -c '.[]' makes them)".to_owned();
    }
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    if error.is_data() {
        return message.to_owned();
    }
    format!("not valid JSON: {message} (column {})", error.column())
}

struct LineVisitor<'m>(&'m Mapping);

impl<'de> DeserializeSeed<'de> for LineVisitor<'_> {
    type Value = Values<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Values<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for LineVisitor<'_> {
    type Value = Values<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object a line")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values<'de>, A::Error> {
        let mut values: Values<'de> = smallvec::smallvec![Value::Missing; self.0.slots()];
        // Which slots were met, so that a second null is noticed too.
        let mut met = 0_u128;
        while let Some(slot) = map.next_key_seed(SlotVisitor(self.0))? {
            let Some(slot) = slot else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let bit = 1_u128.checked_shl(slot as u32).unwrap_or(0);
            if met & bit != 0 {
                let field = self.0.fields().nth(slot).map_or("", |(field, _)| field);
                return Err(A::Error::custom(format!("field {field:?} stands twice")));
            }
            met |= bit;
            values[slot] = value(map.next_value()?).map_err(A::Error::custom)?;
        }
        Ok(values)
    }
}

struct SlotVisitor<'m>(&'m Mapping);

impl<'de> DeserializeSeed<'de> for SlotVisitor<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for SlotVisitor<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, field: &str) -> Result<Option<usize>, E> {
        Ok(self.0.slot(field))
    }
}

fn value(raw: &RawValue) -> Result<Value<'_>, String> {
    let raw = raw.get();
    Ok(match raw.as_bytes().first() {
        Some(b'"') => Value::Text(if raw.contains('\\') {
            let error = |error: serde_json::Error| format!("a string with a bad escape: {error}");
            Cow::Owned(serde_json::from_str(raw).map_err(error)?)
        } else {
            Cow::Borrowed(&raw[1..raw.len() - 1])
        }),
        Some(b'{' | b'[') => Value::Nested,
        Some(b't' | b'f') => Value::Truth(raw),
        Some(b'n') | None => Value::Missing,
        Some(_) => Value::Number(raw),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Wanted;

    fn read<'a>(line: &'a str, field: &str) -> Result<Value<'a>, String> {
        let mapping = Mapping::new(Wanted::default()).unwrap();
        let slot = mapping.slot(field).unwrap();
        parse(line.as_bytes(), &mapping).map(|mut values| values.swap_remove(slot))
    }

    #[test]
    fn strings_are_borrowed_and_escapes_undone() {
        let user = read(r#" {"x":{"user":1},"user":"älice","product":null} "#, "user");
        assert!(matches!(user, Ok(Value::Text(Cow::Borrowed("älice")))), "{user:?}");
        let user = read(r#"{"user":"a\"\u00e4\ud83d\ude00"}"#, "user");
        assert!(matches!(&user, Ok(Value::Text(Cow::Owned(text))) if text == "a\"ä😀"), "{user:?}");
        assert_eq!(read(r#"{"\u0075ser":"a"}"#, "user"), Ok(Value::Text("a".into())));
        assert_eq!(read(r#"{"user":null}"#, "user"), Ok(Value::Missing));
        assert_eq!(read("{}\r", "user"), Ok(Value::Missing));
        assert_eq!(read(r#"{"user":""}"#, "user"), Ok(Value::Text("".into())));
    }

    #[test]
    fn numbers_keep_every_digit() {
        let long = "123456789012345678901234567890.10";
        let line = format!(r#"{{"user": {long} ,"value":-1e5}}"#);
        assert_eq!(read(&line, "user"), Ok(Value::Number(long)));
        assert_eq!(read(&line, "value"), Ok(Value::Number("-1e5")));
        assert_eq!(read(r#"{"user":false}"#, "user"), Ok(Value::Truth("false")));
        assert_eq!(read(r#"{"user":[1]}"#, "user"), Ok(Value::Nested));
    }

    #[test]
    fn bad_lines_say_what_is_wrong_and_where() {
        let bad = |line: &str, part: &str| {
            let error = read(line, "user").unwrap_err();
            assert!(error.contains(part) && !error.contains("line 1"), "{line}: {error}");
        };
        bad(r#"{"user":"a""#, "column 11");
        bad(r#"{"user":"a"} x"#, "trailing");
        bad(r#"{"user":NaN}"#, "not valid JSON");
        bad(r#"{"user":01}"#, "not valid JSON");
        bad(r#"{"other":nul}"#, "not valid JSON");
        bad(r#"{"user":"a","user":"b"}"#, "\"user\" stands twice");
        bad(r#"{"user":null,"user":null}"#, "\"user\" stands twice");
        bad(r#"{"user":"\ud800"}"#, "bad escape");
        bad("[{}]", "jq -c");
        bad("7", "one JSON object");
        let mapping = Mapping::new(Wanted::default()).unwrap();
        let error = parse(b"{\"user\":\"\xff\"}", &mapping).unwrap_err();
        assert_eq!(error, "not UTF-8 at byte 10");
        let deep = format!("{{\"x\":{}", "[".repeat(100_000));
        bad(&deep, "not valid JSON");
    }
}
