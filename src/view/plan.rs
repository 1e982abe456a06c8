//! A view in syms: which events it takes, under which key, and what is observed of them.
//!
//! Next: `record.rs`.

use super::View;
use super::measured::Measured;
use crate::dictionary::{Dictionary, Sym};
use crate::event::EVENT_DIMENSION;
use crate::series::Shape;
use crate::time::TimeZone;
use smallvec::SmallVec;
use std::cell::RefCell;

/// A view in syms, ready to be asked about columns of events.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) names: SmallVec<[Sym; 4]>,
    pub(crate) conditions: Vec<(Part, SmallVec<[Sym; 4]>)>,
    pub(crate) key: SmallVec<[Part; 4]>,
    pub(crate) measures: SmallVec<[Sym; 2]>,
    /// What each sketch is of.
    pub(crate) sketched: SmallVec<[Sketched; 1]>,
    pub(crate) shape: Shape,
}

/// What a key part, a condition or a sketch looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    EventName,
    Dimension(Sym),
}

/// What a sketch observes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sketched {
    Measure(Sym),
    Part(Part),
    /// A part that weighs what a measure says.
    Weighed(Part, Sym),
}

impl Plan {
    pub(crate) fn new(view: &View, zone: TimeZone, dictionary: &Dictionary) -> Self {
        let reader = RefCell::new(dictionary.reader());
        let sym = |text: &str| dictionary.intern(&mut reader.borrow_mut(), text);
        let part = |name: &String| match name.as_str() {
            EVENT_DIMENSION => Part::EventName,
            _ => Part::Dimension(sym(name)),
        };
        let key = view.key.iter().map(part).collect();
        let dimensions: Vec<Part> =
            view.conditions.iter().map(|condition| part(&condition.dimension)).collect();
        let sketched = view.aggregates.iter().filter_map(|measured| {
            Some(match measured {
                Measured::Stats(_) => return None,
                Measured::Quantiles(measure) | Measured::Kll { measure, .. } => {
                    Sketched::Measure(sym(measure))
                }
                Measured::Top { dimension, by: None, .. }
                | Measured::Distinct { dimension, .. }
                | Measured::Theta { dimension, .. }
                | Measured::CountMin { dimension, .. }
                | Measured::Membership { dimension, .. } => Sketched::Part(part(dimension)),
                Measured::Top { dimension, by: Some(by), .. } => {
                    let dimension = part(dimension);
                    Sketched::Weighed(dimension, sym(by))
                }
            })
        });
        let sketched = sketched.collect();
        let sets = view.conditions.iter().map(|c| c.values.iter().map(|text| sym(text)).collect());
        let conditions = dimensions.into_iter().zip(sets.collect::<Vec<_>>()).collect();
        Plan {
            names: view.events.iter().map(|text| sym(text)).collect(),
            conditions,
            key,
            sketched,
            measures: view.measures().map(sym).collect(),
            shape: view.shape(zone),
        }
    }
}
