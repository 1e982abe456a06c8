//! Rounds in which contestants alternate, and the table that comes of them.

use crate::common::measure::median;
use crate::common::report::{Target, short};

/// What a contestant took in each round, in `unit`.
pub(crate) struct Figures {
    label: String,
    unit: &'static str,
    values: Vec<f64>,
}

impl Figures {
    pub(crate) fn new(label: impl Into<String>, unit: &'static str) -> Self {
        Figures { label: label.into(), unit, values: Vec::new() }
    }

    /// A figure that is the same whenever it is taken.
    pub(crate) fn exact(label: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Figures { label: label.into(), unit, values: vec![value] }
    }

    pub(crate) fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    /// How many times this is of the other, round by round.
    pub(crate) fn over(&self, other: &Figures) -> Figures {
        let values = self.values.iter().zip(&other.values).map(|(a, b)| a / b).collect();
        Figures { label: format!("{} / {}", self.label, other.label), unit: "", values }
    }

    pub(crate) fn called(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// The least of the rounds alone.
    pub(crate) fn best(&self) -> Figures {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        Figures::exact(self.label.clone(), self.unit, least)
    }

    /// Prints the median, and from the least to the greatest.
    pub(crate) fn line(&self, target: Target) {
        let value = median(&self.values);
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let spread = match self.values.len() {
            1 => String::new(),
            _ => format!("{} to {}", short(least), short(greatest)),
        };
        let Figures { label, unit, .. } = self;
        let (value, verdict) = (short(value), target.verdict(value));
        let text = format!("  {label:<60} {value:>9} {unit:<9} {spread:<18} {verdict}");
        println!("{}", text.trim_end());
    }
}

pub(crate) fn heading(title: &str) {
    println!("\n{title}");
    println!("  {:<60} {:>9} {:<9} {:<18} target", "", "measured", "", "least to greatest");
}

/// Runs the contestants `rounds` times, in their order and in the other by turns.
pub(crate) fn alternate(rounds: usize, contestants: &mut [&mut dyn FnMut()]) {
    for round in 0..rounds {
        if round % 2 == 0 {
            for contestant in contestants.iter_mut() {
                contestant();
            }
        } else {
            for contestant in contestants.iter_mut().rev() {
                contestant();
            }
        }
    }
}
