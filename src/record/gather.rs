//! Events of several columns put into one.

use super::{Blobs, Column, Columns};
use crate::dictionary::Sym;
use crate::event::Times;

/// Which events come first where those of several sequences are to be one: in turn the sequence whose next event has the
/// least time, the first of them. So each keeps its order; and where all times rise, all do.
pub(crate) fn order_of(sequences: &[&[i64]]) -> Vec<(usize, usize)> {
    let mut next = vec![0; sequences.len()];
    let mut order = Vec::with_capacity(sequences.iter().map(|times| times.len()).sum());
    loop {
        let heads = sequences.iter().zip(&next).map(|(times, at)| times.get(*at));
        let least = heads.enumerate().filter_map(|(of, time)| Some((*time?, of))).min();
        let Some((_, of)) = least else { return order };
        order.push((of, next[of]));
        next[of] += 1;
    }
}

impl Columns {
    /// Takes the events of others, which are square, in [their order](order_of). It is empty before, and square after.
    pub(crate) fn gather(&mut self, parts: &[&Columns]) {
        let times: Vec<&[i64]> = parts.iter().map(|part| part.times.as_slice()).collect();
        let order = order_of(&times);
        self.names.extend(order.iter().map(|(part, row)| parts[*part].names[*row]));
        self.times.extend(order.iter().map(|(part, row)| parts[*part].times[*row]));
        gather(&mut self.dims, parts, &order, |part| &part.dims, Sym::NONE);
        gather(&mut self.measures, parts, &order, |part| &part.measures, f64::NAN);
        if parts.iter().any(|part| part.has_rare()) {
            for (to, (part, row)) in order.iter().enumerate() {
                self.take_rare(to, parts[*part], *row);
            }
        }
        self.text_bytes += parts.iter().map(|part| part.text_bytes).sum::<usize>();
        self.square();
    }

    fn has_rare(&self) -> bool {
        let Columns { entities, ids, payloads, extras, .. } = self;
        !(entities.is_empty() && ids.is_empty() && payloads.is_empty() && extras.is_plain())
    }

    /// Takes what few events have, for the event `to`, from one of another.
    fn take_rare(&mut self, to: usize, part: &Columns, row: usize) {
        if let Some(entity) = part.entities.get(row).filter(|entity| **entity != Sym::NONE) {
            self.put_entity(to, *entity);
        }
        let blobs: [(&mut Blobs, &Blobs); 2] =
            [(&mut self.ids, &part.ids), (&mut self.payloads, &part.payloads)];
        for (mine, theirs) in blobs {
            if let Some(blob) = theirs.get(row) {
                mine.set(to, blob);
            }
        }
        self.extras.put(to, Times(part.extras.times(row)), part.extras.half_width(row));
    }
}

/// Takes the named columns of one kind.
fn gather<T: Copy>(
    all: &mut Vec<Column<T>>,
    parts: &[&Columns],
    order: &[(usize, usize)],
    of: impl Fn(&Columns) -> &Vec<Column<T>>,
    none: T,
) {
    for name in parts.iter().flat_map(|part| of(part)).map(|column| column.name) {
        if all.iter().any(|column| column.name == name && !column.values.is_empty()) {
            continue;
        }
        let place = |part: &&Columns| of(part).iter().position(|column| column.name == name);
        let places: Vec<_> = parts.iter().map(place).collect();
        let value = |(part, row): &(usize, usize)| -> T {
            places[*part].map_or(none, |at| of(parts[*part])[at].values[*row])
        };
        let values = order.iter().map(value);
        match all.iter_mut().find(|column| column.name == name) {
            Some(column) => column.values.extend(values),
            None => all.push(Column { name, values: values.collect() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::columns;
    use proptest::prelude::*;

    /// Event `row`, whatever the order of its columns.
    fn said(columns: &Columns, row: usize) -> String {
        let dims = columns.dims.iter().map(|column| (column.name, column.values[row]));
        let mut dims: Vec<_> = dims.filter(|(_, value)| *value != Sym::NONE).collect();
        let measures =
            columns.measures.iter().map(|column| (column.name, column.values[row].to_bits()));
        let mut measures: Vec<_> =
            measures.filter(|(_, bits)| !f64::from_bits(*bits).is_nan()).collect();
        dims.sort_unstable();
        measures.sort_unstable();
        let entity = columns.entities.get(row).filter(|entity| **entity != Sym::NONE);
        let extras = (columns.extras.times(row), columns.extras.half_width(row));
        let blobs = (columns.ids.get(row), columns.payloads.get(row));
        let event = (columns.names[row], columns.times[row], entity, blobs, extras);
        format!("{event:?} {dims:?} {measures:?}")
    }

    proptest! {
        #[test]
        fn gathered_events_are_all_there_are_by_time_and_each_part_in_its_order(
            mut parts in prop::collection::vec(columns(), 0..5),
            rising in any::<bool>(),
            before in columns(),
        ) {
            // Where few times are different many are the same.
            for part in &mut parts {
                part.times.iter_mut().for_each(|time| *time = time.rem_euclid(20));
                if rising {
                    part.times.sort_unstable();
                }
                part.payloads = part.ids.clone();
                part.square();
            }
            let refs: Vec<&Columns> = parts.iter().collect();
            let times: Vec<&[i64]> = parts.iter().map(|part| part.times.as_slice()).collect();
            let order = order_of(&times);
            let (mut fresh, mut again) = (Columns::default(), before);
            again.clear();
            for gathered in [&mut fresh, &mut again] {
                gathered.gather(&refs);
                prop_assert_eq!(gathered.len(), parts.iter().map(Columns::len).sum::<usize>());
                for (to, (part, row)) in order.iter().enumerate() {
                    prop_assert_eq!(said(gathered, to), said(&parts[*part], *row));
                }
                prop_assert!(gathered.dims.iter().all(|column| column.values.len() == gathered.len()));
                prop_assert!(gathered.measures.iter().all(|c| c.values.len() == gathered.len()));
            }
            for (part, times) in times.iter().enumerate() {
                let rows = order.iter().filter(|(of, _)| *of == part).map(|(_, row)| *row);
                prop_assert!(rows.eq(0..times.len()));
            }
            if rising {
                prop_assert!(fresh.times.is_sorted());
            }
        }
    }
}
