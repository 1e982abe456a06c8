//! What a view keeps besides the count: which aggregate, of which measure or dimension, how fine.
//!
//! Next: `sketched.rs`, where a view is told to keep sketches.

use super::Name;
use crate::aggregate::{CountMin, Distinct, Membership, SketchKind, Theta, Top};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// An aggregate and what it is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[serde(rename_all = "snake_case")]
pub(super) enum Measured {
    /// [`Stats`](crate::aggregate::Stats) of a measure.
    Stats(String),
    /// [`Quantiles`](crate::aggregate::Quantiles) of a measure.
    Quantiles(String),
    /// The [`Top`](crate::aggregate::Top) values of a dimension.
    Top { dimension: String, by: Option<String>, capacity: u32 },
    /// How many [`Distinct`](crate::aggregate::Distinct) values a dimension has.
    Distinct { dimension: String, precision: u8 },
    /// A sample of these ([`Theta`](crate::aggregate::Theta)).
    Theta { dimension: String, k: u16 },
    /// How often each came ([`CountMin`](crate::aggregate::CountMin)).
    CountMin { dimension: String, width: u32, depth: u8 },
    /// Which there were ([`Membership`](crate::aggregate::Membership)).
    Membership { dimension: String, expected: u64, one_in: u32, size: u8 },
    /// The distribution of a measure by ranks (`aggregate::Kll`, of the feature `datasketches`).
    Kll { measure: String, k: u16 },
}

impl Measured {
    /// The name of the measure or dimension.
    pub(super) fn of(&self) -> &str {
        match self {
            Measured::Stats(of) | Measured::Quantiles(of) | Measured::Kll { measure: of, .. } => of,
            Measured::Top { dimension, .. }
            | Measured::Distinct { dimension, .. }
            | Measured::Theta { dimension, .. }
            | Measured::CountMin { dimension, .. }
            | Measured::Membership { dimension, .. } => dimension,
        }
    }

    /// What sketch it is; `None` where it is none, or none that this program knows ([`Self::is_known`]).
    pub(super) fn sketch(&self) -> Option<SketchKind> {
        match self {
            Measured::Stats(_) => None,
            Measured::Quantiles(_) => Some(SketchKind::Quantiles),
            Measured::Top { capacity, .. } => Some(SketchKind::Top { capacity: *capacity }),
            Measured::Distinct { precision, .. } => {
                Some(SketchKind::Distinct { precision: *precision })
            }
            Measured::Theta { k, .. } => Some(SketchKind::Theta { k: *k }),
            Measured::CountMin { width, depth, .. } => {
                Some(SketchKind::CountMin { width: *width, depth: *depth })
            }
            Measured::Membership { size, .. } => Some(SketchKind::Membership { size: *size }),
            #[cfg(feature = "datasketches")]
            Measured::Kll { k, .. } => Some(SketchKind::Kll { k: *k }),
            #[cfg(not(feature = "datasketches"))]
            Measured::Kll { .. } => None,
        }
    }

    /// The names of the dimensions and measures that it looks at.
    pub(super) fn names(&self) -> [Option<&str>; 2] {
        let by = match self {
            Measured::Top { by, .. } => by.as_deref(),
            _ => None,
        };
        [Some(self.of()), by]
    }

    /// Whether this program was built with what it takes.
    pub(super) fn is_known(&self) -> bool {
        cfg!(feature = "datasketches") || !matches!(self, Measured::Kll { .. })
    }

    /// Whether it is as fine as it can be.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Measured::Stats(_) | Measured::Quantiles(_) => Ok(()),
            Measured::Top { capacity, .. } => Top::new(*capacity).map(drop),
            Measured::Distinct { precision, .. } => Distinct::new(*precision).map(drop),
            Measured::Theta { k, .. } => Theta::new(*k).map(drop),
            Measured::CountMin { width, depth, .. } => CountMin::new(*width, *depth).map(drop),
            Measured::Membership { expected, one_in, size, .. } => {
                let set = Membership::new(*expected, 1.0 / f64::from(*one_in))?;
                if set.size() == *size {
                    Ok(())
                } else {
                    Err(Error::invalid("it has another size"))
                }
            }
            #[cfg(feature = "datasketches")]
            Measured::Kll { k, .. } => crate::aggregate::Kll::new(*k).map(drop),
            // What is not known is told before (`is_known`).
            #[cfg(not(feature = "datasketches"))]
            Measured::Kll { .. } => Err(Error::invalid("this program knows none")),
        }
    }

    /// Whether both are the same aggregate of the same, as fine or not.
    pub(super) fn is_same(&self, other: &Measured) -> bool {
        let kind = std::mem::discriminant;
        kind(self) == kind(other) && self.names() == other.names()
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Measured::Stats(measure) => write!(f, "stats of {}", Name(measure)),
            Measured::Quantiles(measure) => write!(f, "quantiles of {}", Name(measure)),
            Measured::Distinct { dimension, precision } => {
                write!(f, "distinct {}", Name(dimension))?;
                match *precision {
                    Distinct::PRECISION => Ok(()),
                    precision => write!(f, " at precision {precision}"),
                }
            }
            Measured::Theta { dimension, k } => {
                write!(f, "theta sketch {k} of {}", Name(dimension))
            }
            Measured::CountMin { dimension, width, depth } => {
                write!(f, "count-min sketch {width} by {depth} of {}", Name(dimension))
            }
            Measured::Membership { dimension, expected, one_in, .. } => {
                write!(f, "membership of {expected} values of {}", Name(dimension))?;
                write!(f, " to one in {one_in}")
            }
            Measured::Kll { measure, k } => write!(f, "kll sketch {k} of {}", Name(measure)),
            Measured::Top { dimension, by: None, capacity } => {
                write!(f, "top {capacity} of {}", Name(dimension))
            }
            Measured::Top { dimension, by: Some(by), capacity } => {
                write!(f, "top {capacity} of {} by {}", Name(dimension), Name(by))
            }
        }
    }
}
