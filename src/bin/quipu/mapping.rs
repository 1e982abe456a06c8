//! Which field of the input is what of an event.
//!
//! 1. Every field that is needed has one slot, whatever the number of its roles; a reader of a
//!    format fills the slots of a line, and [`Mapping::event`] makes the event of them.
//! 2. A dimension is a text, a number (as its text) or a truth value. A measure is a number, or a
//!    text that is one. Null and absent are the same: not in the event.
//! 3. A refusal names the field, what was there and what would have been right.

use std::borrow::Cow;

use quipu::Event;
use smallvec::SmallVec;

use crate::instant::{self, Reading};

/// What a line has in one slot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    /// Absent, null, or in CSV empty.
    Missing,
    Text(Cow<'a, str>),
    /// A number, as it was written.
    Number(&'a str),
    /// `true` or `false`.
    Truth(&'a str),
    /// An object or an array.
    Nested,
}

/// The slots of one line.
pub(crate) type Values<'a> = SmallVec<[Value<'a>; 8]>;

/// A name of ours and the field that it is read from: `NAME=FIELD`, or one word for both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) name: String,
    pub(crate) field: String,
}

impl Pair {
    /// One word for both.
    pub(crate) fn same(name: &str) -> Self {
        Self { name: name.to_owned(), field: name.to_owned() }
    }

    /// Reads `NAME=FIELD` or `FIELD`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, field) = text.split_once('=').unwrap_or((text, text));
        if name.is_empty() || field.is_empty() {
            return Err("expected FIELD or NAME=FIELD".to_owned());
        }
        Ok(Self { name: name.to_owned(), field: field.to_owned() })
    }
}

/// Where an event's name comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    /// The same for every line.
    Constant(String),
    /// A field.
    Field(String),
}

/// Whether a field may be missing from the whole input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// A default of ours: input without it is ordinary.
    Optional,
    /// Named on the command line: input without it is probably a mistake.
    Asked,
    /// No event can be made without it.
    Required,
}

/// The fields of the input, and what they are of an event.
#[derive(Debug)]
pub(crate) struct Mapping {
    fields: Vec<(String, Need)>,
    name: NameSlot,
    time: usize,
    reading: Reading,
    dims: Vec<(String, usize)>,
    measures: Vec<(String, usize)>,
    id: Option<usize>,
    entity: Option<usize>,
    times: Option<usize>,
}

#[derive(Debug)]
enum NameSlot {
    Constant(String),
    Slot(usize),
}

/// What was asked for, field by field; `None` is the default.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) name: Option<Name>,
    pub(crate) time: Option<String>,
    pub(crate) reading: Reading,
    pub(crate) dims: Option<Vec<Pair>>,
    pub(crate) measures: Option<Vec<Pair>>,
    pub(crate) id: Option<String>,
    pub(crate) entity: Option<String>,
    pub(crate) times: Option<String>,
}

impl Mapping {
    /// Gives every field its slot, with the defaults for what was not asked for; refuses two
    /// meanings for one name.
    pub(crate) fn new(wanted: Wanted) -> Result<Self, String> {
        let mut fields = Vec::new();
        let mut slot = |field: &str, need: Need| slot_of(&mut fields, field, need);
        let pairs = |pairs: Option<Vec<Pair>>, default: &[&str]| match pairs {
            Some(pairs) => (pairs, Need::Asked),
            None => (default.iter().map(|name| Pair::same(name)).collect(), Need::Optional),
        };
        let name = match wanted.name.unwrap_or_else(|| Name::Field("event".to_owned())) {
            Name::Constant(name) => NameSlot::Constant(name),
            Name::Field(field) => NameSlot::Slot(slot(&field, Need::Required)),
        };
        let time = slot(wanted.time.as_deref().unwrap_or("ts"), Need::Required);
        let (dims, need) = pairs(wanted.dims, &["user", "product", "category"]);
        let dims = dims.into_iter().map(|dim| (dim.name, slot(&dim.field, need))).collect();
        let (measures, need) = pairs(wanted.measures, &["value"]);
        let measures = measures.into_iter().map(|m| (m.name, slot(&m.field, need))).collect();
        let id = Some(match &wanted.id {
            Some(field) => slot(field, Need::Asked),
            None => slot("id", Need::Optional),
        });
        let entity = wanted.entity.map(|field| slot(&field, Need::Asked));
        let times = wanted.times.map(|field| slot(&field, Need::Asked));
        let reading = wanted.reading;
        let mapping = Self { fields, name, time, reading, dims, measures, id, entity, times };
        mapping.check()?;
        Ok(mapping)
    }

    fn check(&self) -> Result<(), String> {
        if self.dims().any(|dim| dim == "event") {
            let why = "the dimension \"event\" is always there: it is the event's name (--event)";
            return Err(why.to_owned());
        }
        for names in [&self.dims, &self.measures] {
            for (i, (name, _)) in names.iter().enumerate() {
                if names[..i].iter().any(|(earlier, _)| earlier == name) {
                    return Err(format!("{name:?} is named twice; NAME=FIELD gives another name"));
                }
            }
        }
        Ok(())
    }

    /// Whether these values have an id for their event.
    pub(crate) fn identifies(&self, values: &Values<'_>) -> bool {
        self.id.is_some_and(|slot| match &values[slot] {
            Value::Missing => false,
            Value::Text(text) => !text.is_empty(),
            _ => true,
        })
    }

    /// How many slots a line has.
    pub(crate) fn slots(&self) -> usize {
        self.fields.len()
    }

    /// The slot of a field, where it is needed at all.
    pub(crate) fn slot(&self, field: &str) -> Option<usize> {
        self.fields.iter().position(|(name, _)| name == field)
    }

    /// Every field with its need, in slot order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, Need)> {
        self.fields.iter().map(|(field, need)| (field.as_str(), *need))
    }

    /// The names of the dimensions.
    pub(crate) fn dims(&self) -> impl Iterator<Item = &str> {
        self.dims.iter().map(|(name, _)| name.as_str())
    }

    /// The names of the measures.
    pub(crate) fn measures(&self) -> impl Iterator<Item = &str> {
        self.measures.iter().map(|(name, _)| name.as_str())
    }

    /// Makes the event of a line, or says why there is none.
    pub(crate) fn event<'a>(&'a self, values: &'a [Value<'a>]) -> Result<Event<'a>, String> {
        let name = match &self.name {
            NameSlot::Constant(name) => name.as_str(),
            NameSlot::Slot(slot) => self
                .text(values, *slot)?
                .ok_or_else(|| self.missing(*slot, "--event FIELD or --event-name NAME"))?,
        };
        let time = match &values[self.time] {
            Value::Missing => return Err(self.missing(self.time, "--time FIELD")),
            Value::Number(text) => instant::parse(text, self.reading),
            Value::Text(text) => instant::parse(text, self.reading),
            Value::Truth(_) | Value::Nested => Err("it is no time".to_owned()),
        };
        let time = time.map_err(|why| format!("field {:?}: {why}", self.fields[self.time].0))?;
        let mut event = Event::new(name).at(time);
        for (name, slot) in &self.dims {
            if let Some(text) = self.text(values, *slot)? {
                event = event.dim(name, text);
            }
        }
        for (name, slot) in &self.measures {
            if let Some(x) = self.number(values, *slot)? {
                event = event.measure(name, x);
            }
        }
        // An empty text identifies nothing.
        let identity = |slot: Option<usize>| {
            let text = slot.map_or(Ok(None), |slot| self.text(values, slot))?;
            Ok::<_, String>(text.filter(|text| !text.is_empty()))
        };
        if let Some(entity) = identity(self.entity)? {
            event = event.entity(entity);
        }
        if let Some(id) = identity(self.id)? {
            event = event.id(id);
        }
        if let Some(slot) = self.times
            && let Some(text) = self.text(values, slot)?
        {
            event = event.times(self.whole(text, slot)?);
        }
        Ok(event)
    }

    fn whole(&self, text: &str, slot: usize) -> Result<u64, String> {
        let times = text.trim().parse::<u64>().ok().filter(|times| *times > 0);
        times.ok_or_else(|| {
            let field = &self.fields[slot].0;
            format!("field {field:?}: {text} is no number of events: 1 to {}", u64::MAX)
        })
    }

    fn text<'a>(&self, values: &'a [Value<'a>], slot: usize) -> Result<Option<&'a str>, String> {
        match &values[slot] {
            Value::Missing => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            Value::Number(text) | Value::Truth(text) => Ok(Some(text)),
            Value::Nested => Err(format!(
                "field {:?} holds an object or array; a text or a number is needed",
                self.fields[slot].0
            )),
        }
    }

    fn number(&self, values: &[Value<'_>], slot: usize) -> Result<Option<f64>, String> {
        let text = match &values[slot] {
            Value::Missing => return Ok(None),
            Value::Number(text) | Value::Truth(text) => text,
            Value::Text(text) => text.as_ref(),
            Value::Nested => "an object or array",
        };
        let refused = |why: &str| Err(format!("field {:?}: {text} {why}", self.fields[slot].0));
        match text.trim().parse::<f64>() {
            Ok(x) if x.is_finite() => Ok(Some(x)),
            Ok(_) if text.bytes().any(|b| b.is_ascii_digit()) => {
                refused("is out of the range of a 64-bit float")
            }
            Ok(_) => refused("cannot be summed; leave a missing value out, or null"),
            Err(_) => refused("is not a number"),
        }
    }

    fn missing(&self, slot: usize, options: &str) -> String {
        format!("no field {:?} here; name another with {options}", self.fields[slot].0)
    }
}

/// The slot of a field, made where it has none; the strongest need holds.
fn slot_of(fields: &mut Vec<(String, Need)>, field: &str, need: Need) -> usize {
    let slot = fields.iter().position(|(name, _)| name == field).unwrap_or_else(|| {
        fields.push((field.to_owned(), need));
        fields.len() - 1
    });
    fields[slot].1 = fields[slot].1.max(need);
    slot
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(values: &[(&str, Value<'_>)]) -> String {
        let mapping = Mapping::new(Wanted::default()).unwrap();
        let mut slots = vec![Value::Missing; mapping.slots()];
        slots[0] = Value::Text("sale".into());
        slots[1] = Value::Number("1291191960000");
        for (field, value) in values {
            slots[mapping.slot(field).unwrap()] = value.clone();
        }
        mapping.event(&slots).map(drop).unwrap_err()
    }

    #[test]
    fn defaults_are_the_shape_of_the_shared_data() {
        let mapping = Mapping::new(Wanted::default()).unwrap();
        let fields: Vec<_> = mapping.fields().map(|(field, _)| field).collect();
        assert_eq!(fields, ["event", "ts", "user", "product", "category", "value", "id"]);
    }

    #[test]
    fn one_field_may_play_two_roles() {
        let mapping = Mapping::new(Wanted {
            name: Some(Name::Field("type".into())),
            dims: Some(vec![Pair::same("type"), Pair::parse("user=customer").unwrap()]),
            measures: Some(vec![Pair::parse("price=amount").unwrap()]),
            ..Wanted::default()
        })
        .unwrap();
        assert_eq!(mapping.slots(), 5);
        assert_eq!(mapping.dims().collect::<Vec<_>>(), ["type", "user"]);
        assert_eq!(mapping.measures().collect::<Vec<_>>(), ["price"]);
        assert_eq!(mapping.fields().next(), Some(("type", Need::Required)));
    }

    #[test]
    fn a_name_has_one_meaning() {
        let refused = |dims: &[&str]| {
            let dims = Some(dims.iter().map(|dim| Pair::parse(dim).unwrap()).collect());
            Mapping::new(Wanted { dims, ..Wanted::default() }).map(drop).unwrap_err()
        };
        assert!(refused(&["a", "b", "a=c"]).contains("twice"));
        assert!(refused(&["event"]).contains("--event"));
    }

    #[test]
    fn refusals_name_the_field_and_what_would_be_right() {
        let text = |text: &'static str| Value::Text(text.into());
        assert!(refusal(&[("event", Value::Missing)]).contains("--event-name"));
        assert!(refusal(&[("ts", Value::Missing)]).contains("--time"));
        assert!(refusal(&[("ts", Value::Truth("true"))]).contains("\"ts\""));
        assert!(refusal(&[("user", Value::Nested)]).contains("\"user\""));
        assert!(refusal(&[("value", text("12,5"))]).contains("not a number"));
        assert!(refusal(&[("value", text(""))]).contains("not a number"));
        assert!(refusal(&[("value", Value::Truth("true"))]).contains("not a number"));
        assert!(refusal(&[("value", text("NaN"))]).contains("cannot be summed"));
        assert!(refusal(&[("value", text("inf"))]).contains("cannot be summed"));
        assert!(refusal(&[("value", Value::Number("1e999"))]).contains("out of the range"));
    }

    #[test]
    fn a_line_may_stand_for_several_events() {
        let wanted = Wanted { times: Some("n".into()), ..Wanted::default() };
        let mapping = Mapping::new(wanted).unwrap();
        let mut slots = vec![Value::Missing; mapping.slots()];
        slots[0] = Value::Text("sale".into());
        slots[1] = Value::Number("1291191960000");
        let slot = mapping.slot("n").unwrap();
        assert_eq!(mapping.event(&slots).unwrap().count(), 1);
        for (value, times) in [(Value::Number("3"), 3), (Value::Text(" 12 ".into()), 12)] {
            slots[slot] = value;
            assert_eq!(mapping.event(&slots).unwrap().count(), times);
        }
        for value in ["0", "-1", "2.5", "18446744073709551616", "many"] {
            slots[slot] = Value::Text(value.into());
            let refused = mapping.event(&slots).map(drop).unwrap_err();
            assert!(refused.contains("\"n\"") && refused.contains(value), "{refused}");
        }
    }

    #[test]
    fn pairs_need_both_sides() {
        assert_eq!(Pair::parse("a=b").unwrap(), Pair { name: "a".into(), field: "b".into() });
        assert_eq!(Pair::parse("a").unwrap(), Pair::same("a"));
        assert!(Pair::parse("=b").is_err());
        assert!(Pair::parse("").is_err());
    }
}
