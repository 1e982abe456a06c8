//! Sketches: states that answer within bounds, of a size that is bounded whatever they observe.
//!
//! A sketch has a heap of its own, so that it is a word or two where it lies in an array; statistics
//! lie there whole. That is why a cell keeps the two apart (`states.rs`).

#[cfg(feature = "datasketches")]
use super::Kll;
use super::{Aggregate, CountMin, Distinct, Malformed, Membership, Quantiles, Theta, Top};
use crate::dictionary::{Dictionary, Sym};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// Which sketch, and how fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SketchKind {
    Distinct {
        precision: u8,
    },
    Theta {
        k: u16,
    },
    Top {
        capacity: u32,
    },
    CountMin {
        width: u32,
        depth: u8,
    },
    Membership {
        size: u8,
    },
    Quantiles,
    #[cfg(feature = "datasketches")]
    Kll {
        k: u16,
    },
}

/// A sketch of a key or of a bucket.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sketch {
    Distinct(Distinct),
    Theta(Theta),
    Top(Top),
    CountMin(Box<CountMin>),
    Membership(Box<Membership>),
    Quantiles(Quantiles),
    #[cfg(feature = "datasketches")]
    Kll(Kll),
}

/// What a sketch observes of an event.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    /// The event has not what the sketch is of.
    Nothing,
    Value(f64),
    /// A value of a dimension, and what it weighs.
    Item(Item<'a>, u64),
}

/// The value of a dimension.
#[derive(Clone, Copy)]
pub(crate) struct Item<'a> {
    /// Of its text ([`hash`](super::hash::hash)).
    pub(crate) hash: u64,
    pub(crate) sym: Sym,
    pub(crate) texts: &'a Dictionary,
}

impl SketchKind {
    pub(crate) fn empty(self) -> Sketch {
        match self {
            SketchKind::Distinct { precision } => {
                Sketch::Distinct(Distinct::of_precision(precision))
            }
            SketchKind::Theta { k } => Sketch::Theta(Theta::of_k(k)),
            SketchKind::Top { capacity } => Sketch::Top(Top::of_capacity(capacity)),
            SketchKind::CountMin { width, depth } => {
                Sketch::CountMin(Box::new(CountMin::new(width, depth).unwrap_or_default()))
            }
            SketchKind::Membership { size } => {
                Sketch::Membership(Box::new(Membership::of_size(size)))
            }
            SketchKind::Quantiles => Sketch::Quantiles(Quantiles::default()),
            #[cfg(feature = "datasketches")]
            SketchKind::Kll { k } => Sketch::Kll(Kll::of_k(k)),
        }
    }

    pub(crate) fn decode(self, bytes: &mut &[u8]) -> Result<Sketch, Malformed> {
        let sketch = match self {
            SketchKind::Distinct { .. } => Sketch::Distinct(Distinct::decode(bytes)?),
            SketchKind::Theta { .. } => Sketch::Theta(Theta::decode(bytes)?),
            SketchKind::Top { .. } => Sketch::Top(Top::decode(bytes)?),
            SketchKind::CountMin { .. } => Sketch::CountMin(Box::new(CountMin::decode(bytes)?)),
            SketchKind::Membership { .. } => {
                Sketch::Membership(Box::new(Membership::decode(bytes)?))
            }
            SketchKind::Quantiles => Sketch::Quantiles(Quantiles::decode(bytes)?),
            #[cfg(feature = "datasketches")]
            SketchKind::Kll { .. } => Sketch::Kll(Kll::decode(bytes)?),
        };
        if sketch.emptied() == self.empty() {
            Ok(sketch)
        } else {
            Err(Malformed("a sketch is finer or coarser than its view's definition says"))
        }
    }
}

/// The state of a sketch, whichever it is, as an [`Aggregate`].
macro_rules! state {
    ($sketch:expr, $state:ident => $what:expr) => {
        match $sketch {
            Sketch::Distinct($state) => $what,
            Sketch::Theta($state) => $what,
            Sketch::Top($state) => $what,
            Sketch::CountMin($state) => $what,
            Sketch::Membership($state) => $what,
            Sketch::Quantiles($state) => $what,
            #[cfg(feature = "datasketches")]
            Sketch::Kll($state) => $what,
        }
    };
}

impl Sketch {
    /// One of the same kind that has observed nothing.
    pub(crate) fn emptied(&self) -> Sketch {
        match self {
            Sketch::Distinct(state) => Sketch::Distinct(Distinct::of_precision(state.precision())),
            Sketch::Theta(state) => Sketch::Theta(Theta::of_k(state.k())),
            Sketch::Top(state) => Sketch::Top(Top::of_capacity(state.capacity())),
            Sketch::CountMin(state) => Sketch::CountMin(Box::new(state.emptied())),
            Sketch::Membership(state) => {
                Sketch::Membership(Box::new(Membership::of_size(state.size())))
            }
            Sketch::Quantiles(_) => Sketch::Quantiles(Quantiles::default()),
            #[cfg(feature = "datasketches")]
            Sketch::Kll(state) => Sketch::Kll(Kll::of_k(state.k())),
        }
    }

    /// Folds in an event that counts for so many.
    #[inline]
    pub(crate) fn observe(&mut self, input: Input<'_>, times: u64) {
        match (self, input) {
            (Sketch::Distinct(state), Input::Item(item, _)) => {
                state.insert_hash(item.hash);
            }
            (Sketch::Theta(state), Input::Item(item, _)) => {
                state.insert_hash(item.hash);
            }
            (Sketch::Top(state), Input::Item(item, weight)) => {
                let weight = weight.saturating_mul(times);
                state.insert_with(item.texts.text(item.sym).as_bytes(), || item.hash, weight);
            }
            (Sketch::CountMin(state), Input::Item(item, _)) => {
                // What is more than half of all that there can be would be taken for a removal.
                let half = i64::try_from(times / 2).unwrap_or(i64::MAX);
                for part in [half, half, i64::from(times % 2 == 1)] {
                    state.add_hashed(item.hash, part);
                }
            }
            (Sketch::Membership(state), Input::Item(item, _)) => {
                state.insert_hashed(item.hash);
            }
            (Sketch::Quantiles(state), Input::Value(value)) => state.insert_times(value, times),
            #[cfg(feature = "datasketches")]
            (Sketch::Kll(state), Input::Value(value)) => state.insert_times(value, times),
            // A view's definition says what its sketches are of.
            _ => {}
        }
    }

    pub(crate) fn merge(&mut self, other: &Sketch) {
        match (self, other) {
            (Sketch::Distinct(state), Sketch::Distinct(other)) => state.merge(other),
            (Sketch::Theta(state), Sketch::Theta(other)) => state.merge(other),
            (Sketch::Top(state), Sketch::Top(other)) => state.merge(other),
            (Sketch::CountMin(state), Sketch::CountMin(other)) => state.merge(other),
            (Sketch::Membership(state), Sketch::Membership(other)) => state.merge(other),
            (Sketch::Quantiles(state), Sketch::Quantiles(other)) => state.merge(other),
            #[cfg(feature = "datasketches")]
            (Sketch::Kll(state), Sketch::Kll(other)) => state.merge(other),
            // All cells of a view have the same kinds.
            _ => {}
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        state!(self, state => state.encode(out));
    }

    #[inline]
    pub(crate) fn heap_bytes(&self) -> usize {
        let boxed = match self {
            Sketch::CountMin(state) => size_of_val(&**state),
            Sketch::Membership(state) => size_of_val(&**state),
            _ => 0,
        };
        boxed + state!(self, state => state.heap_bytes())
    }

    /// Whether both can have observed the same. They are equal then, but where what is kept depends on
    /// the order and the grouping in which it was observed: then no bounds contradict each other.
    pub(crate) fn agrees(&self, other: &Sketch) -> bool {
        match (self, other) {
            (Sketch::Top(state), Sketch::Top(other)) => state.agrees(other),
            #[cfg(feature = "datasketches")]
            (Sketch::Kll(state), Sketch::Kll(other)) => state.agrees(other),
            _ => self == other,
        }
    }
}

/// The sketches of a key, a bucket or a range, each by what it is of.
///
/// They are whole states, not only numbers of them: those of several keys or ranges can be
/// [merged](Aggregate::merge), which gives what one of both would have been.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{Db, Event, View};
///
/// let db = Db::open(dir.path().join("app"))?;
/// db.define(View::new("latency").by(["route"]).quantiles("value"))?;
/// for millis in [12.0, 15.0, 900.0] {
///     db.record(&Event::new("call").dim("route", "/home").value(millis))?;
/// }
/// let home = db.query("latency")?.get(&["/home"])?.unwrap();
/// let p50 = home.sketches.quantiles("value").unwrap().median().unwrap();
/// assert_eq!((p50.value, p50.is_exact()), (15.0, true));
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sketches(Vec<Named>);

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Named {
    /// The dimension or measure that it is of.
    of: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(flatten)]
    sketch: Sketch,
}

impl Sketches {
    pub(crate) fn new<'a>(sketches: impl Iterator<Item = ([Option<&'a str>; 2], Sketch)>) -> Self {
        let named = sketches.map(|([of, by], sketch)| Named {
            of: of.unwrap_or_default().to_owned(),
            by: by.map(ToOwned::to_owned),
            sketch,
        });
        Sketches(named.collect())
    }

    /// Whether the view keeps none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many different values of a dimension there were ([`View::distinct`](crate::View::distinct)).
    pub fn distinct(&self, dimension: &str) -> Option<&Distinct> {
        self.find(dimension, None, |sketch| match sketch {
            Sketch::Distinct(state) => Some(state),
            _ => None,
        })
    }

    /// A sample of the values of a dimension ([`View::theta`](crate::View::theta)).
    pub fn theta(&self, dimension: &str) -> Option<&Theta> {
        self.find(dimension, None, |sketch| match sketch {
            Sketch::Theta(state) => Some(state),
            _ => None,
        })
    }

    /// The values of a dimension that most events have ([`View::top`](crate::View::top)).
    pub fn top(&self, dimension: &str) -> Option<&Top> {
        self.top_of(dimension, None)
    }

    /// The values of a dimension that weigh most by a measure ([`View::top_by`](crate::View::top_by)).
    pub fn top_by(&self, dimension: &str, measure: &str) -> Option<&Top> {
        self.top_of(dimension, Some(measure))
    }

    fn top_of(&self, dimension: &str, by: Option<&str>) -> Option<&Top> {
        self.find(dimension, by, |sketch| match sketch {
            Sketch::Top(state) => Some(state),
            _ => None,
        })
    }

    /// How often each value of a dimension came ([`View::count_min`](crate::View::count_min)).
    pub fn count_min(&self, dimension: &str) -> Option<&CountMin> {
        self.find(dimension, None, |sketch| match sketch {
            Sketch::CountMin(state) => Some(&**state),
            _ => None,
        })
    }

    /// Which values of a dimension there were ([`View::membership`](crate::View::membership)).
    pub fn membership(&self, dimension: &str) -> Option<&Membership> {
        self.find(dimension, None, |sketch| match sketch {
            Sketch::Membership(state) => Some(&**state),
            _ => None,
        })
    }

    /// The distribution of a measure ([`View::quantiles`](crate::View::quantiles)).
    pub fn quantiles(&self, measure: &str) -> Option<&Quantiles> {
        self.find(measure, None, |sketch| match sketch {
            Sketch::Quantiles(state) => Some(state),
            _ => None,
        })
    }

    /// The distribution of a measure by ranks ([`View::kll`](crate::View::kll)).
    #[cfg(feature = "datasketches")]
    pub fn kll(&self, measure: &str) -> Option<&Kll> {
        self.find(measure, None, |sketch| match sketch {
            Sketch::Kll(state) => Some(state),
            _ => None,
        })
    }

    fn find<T>(&self, name: &str, by: Option<&str>, is: fn(&Sketch) -> Option<&T>) -> Option<&T> {
        let named = self.0.iter().filter(|named| named.of == name && named.by.as_deref() == by);
        named.map(|named| &named.sketch).find_map(is)
    }
}

/// As its estimate.
impl Serialize for Distinct {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.estimate().serialize(serializer)
    }
}

/// As the weight of all, and by how much it may be off.
impl Serialize for CountMin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("CountMin", 2)?;
        fields.serialize_field("total", &(self.total() as f64))?;
        fields.serialize_field("error", &self.error())?;
        fields.end()
    }
}

/// As its rate of false yeses.
impl Serialize for Membership {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Membership", 1)?;
        fields.serialize_field("false_positive_rate", &self.false_positive_rate())?;
        fields.end()
    }
}

/// As its estimate.
impl Serialize for Theta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.estimate().serialize(serializer)
    }
}

/// As a list of what each is of and what it says, since several can be of the same.
impl Serialize for Sketches {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}
