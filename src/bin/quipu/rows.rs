//! The engine's rows and buckets as the rows of a [`Sheet`].
//!
//! 1. The names are the interface: `count`, `count_value`, `sum`, `min`, `max`, `mean`, `var_pop`,
//!    `var_samp`, `first_seen`, `last_seen`, in every format.
//! 2. Where nothing was measured, the sum is missing and not zero, as it is in SQL.

use quipu::{Bucket, Component, Row, Summary};

use crate::sheet::{Cell, Column, Sheet};
use crate::table::Align;

/// The fields of a summary, and how early a narrow terminal does without them.
const MEASURED: [(&str, u8); 7] = [
    ("count_value", 7),
    ("sum", 1),
    ("min", 5),
    ("max", 4),
    ("mean", 2),
    ("var_pop", 9),
    ("var_samp", 8),
];

/// The sheet of a view's rows. The column that decides their order always stays.
pub(crate) fn row_sheet(key: &[String], order: Option<Component>) -> Sheet {
    let order = order.map(|component| component.to_string());
    let column = |(name, rank): (&'static str, u8)| Column {
        name,
        align: Align::Right,
        rank: if order.as_deref() == Some(name) { 0 } else { rank },
    };
    let fields = [("count", 0)].into_iter().chain(MEASURED);
    let columns = fields.chain([("first_seen", 6), ("last_seen", 3)]).map(column).collect();
    Sheet { key: Some(key.to_vec()), columns }
}

/// The cells of a row, with the first of its measures: a query puts the chosen one there.
pub(crate) fn row_cells(row: &Row) -> Vec<Cell> {
    let mut cells = vec![Cell::Count(row.count)];
    cells.extend(measured(row.summary()));
    // Of no event there is no time.
    let seen = |moment| if row.count > 0 { Cell::Time(moment) } else { Cell::Missing };
    cells.extend([seen(row.first_seen), seen(row.last_seen)]);
    cells
}

/// The sheet of a series' buckets.
pub(crate) fn bucket_sheet() -> Sheet {
    let fields = [("start", 0), ("end", 6), ("count", 0)].into_iter().chain(MEASURED);
    let column = |(name, rank)| Column { name, align: Align::Right, rank };
    Sheet { key: None, columns: fields.map(column).collect() }
}

/// The cells of a bucket.
pub(crate) fn bucket_cells(bucket: &Bucket) -> Vec<Cell> {
    let mut cells =
        vec![Cell::Time(bucket.start), Cell::Time(bucket.end), Cell::Count(bucket.count)];
    cells.extend(measured(bucket.summary()));
    cells
}

fn measured(summary: Option<&Summary>) -> [Cell; 7] {
    let number = |x: Option<f64>| x.map_or(Cell::Missing, Cell::Number);
    let Some(summary) = summary else { return [const { Cell::Missing }; 7] };
    [
        Cell::Count(summary.count_value),
        number((summary.count_value > 0).then_some(summary.sum)),
        number(summary.min),
        number(summary.max),
        number(summary.mean),
        number(summary.var_pop),
        number(summary.var_samp),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_the_interface() {
        let sheet = row_sheet(&["user".to_owned()], Some(Component::Max));
        let names: Vec<_> = sheet.columns.iter().map(|column| column.name).collect();
        let fields = "count count_value sum min max mean var_pop var_samp first_seen last_seen";
        assert_eq!(names.join(" "), fields);
        let max = sheet.columns.iter().find(|column| column.name == "max");
        assert_eq!(max.map(|column| column.rank), Some(0));
    }

    #[test]
    fn without_a_measure_nothing_is_zero() {
        assert!(measured(None).iter().all(|cell| *cell == Cell::Missing));
    }
}
