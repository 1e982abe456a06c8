//! Rows laid out in columns for people.
//!
//! 1. A table never exceeds the terminal while columns of rank above 0 are left to hide; what is
//!    hidden is named in a last line. A column of sentences is broken into lines before.
//! 2. The numbers of a column have the same decimals, so that their points stand in one line.

use comfy_table::{CellAlignment, ColumnConstraint, Table, TableComponent, Width, presets};

use crate::number;
use crate::sheet::{self, Cell, Sheet};

/// Where the cells of a column stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    /// Left; a text of any length, which a terminal shows as much of as of a part of a key.
    Key,
    Right,
    /// Left; a sentence, which may take several lines.
    Wrapped,
}

/// For whom a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// A terminal so many columns wide, or of unknown width.
    Terminal(Option<u16>),
    Markdown,
}

/// How many characters of a key part a terminal of known width shows.
const KEY_CHARS_MAX: usize = 40;

/// How narrow a column of sentences gets before others are hidden for it.
const SENTENCE_CHARS: usize = 40;
/// How narrow it gets when there is nothing more to hide.
const SENTENCE_CHARS_MIN: usize = 20;

/// The whole table, header first, each line ended.
pub(crate) fn layout(sheet: &Sheet, rows: &[Vec<Cell>], style: Style) -> String {
    let key_parts = sheet.key.as_ref().map_or(0, Vec::len);
    let mut table = Table::new();
    match style {
        Style::Markdown => _ = table.load_preset(presets::ASCII_MARKDOWN),
        Style::Terminal(_) => {
            table.load_preset(presets::NOTHING);
            table.set_style(TableComponent::HeaderLines, '─');
        }
    }
    table.force_no_tty();
    let key_names = sheet.key.iter().flatten().map(String::as_str);
    table.set_header(key_names.chain(sheet.columns.iter().map(|column| title(column.name))));

    let decimals: Vec<usize> = (0..key_parts + sheet.columns.len())
        .map(|i| number::decimals(rows.iter().filter_map(|row| number_of(&row[i]))))
        .collect();
    let is_key =
        |i: usize| i.checked_sub(key_parts).is_none_or(|i| sheet.columns[i].align == Align::Key);
    for row in rows {
        let texts = row.iter().zip(&decimals).enumerate();
        table.add_row(texts.map(|(i, (cell, decimals))| {
            let text = cell_text(cell, *decimals);
            match style {
                Style::Markdown => markdown_text(&text),
                Style::Terminal(Some(_)) if is_key(i) => {
                    number::shortened(&text, KEY_CHARS_MAX).into_owned()
                }
                Style::Terminal(_) => text,
            }
        }));
    }
    for (i, column) in sheet.columns.iter().enumerate() {
        if let (Align::Right, Some(column)) = (column.align, table.column_mut(key_parts + i)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let hidden = match style {
        Style::Terminal(Some(width)) => hide_until(&mut table, sheet, key_parts, width),
        _ => Vec::new(),
    };
    let mut text = match style {
        Style::Markdown => table.to_string(),
        Style::Terminal(_) => table.trim_fmt(),
    };
    text.push('\n');
    if !hidden.is_empty() {
        text.extend([" (no room for ", &hidden.join(", "), ": see --format csv)\n"]);
    }
    text
}

/// Hides the columns that are missed least until the table fits; returns their names (1).
fn hide_until(table: &mut Table, sheet: &Sheet, key_parts: usize, width: u16) -> Vec<&'static str> {
    let widths = table.column_max_content_widths();
    let sentence = sheet.columns.iter().position(|column| column.align == Align::Wrapped);
    let sentence = sentence.map(|i| key_parts + i);
    // One space on either side of every cell.
    let taken = |(i, width): (usize, &u16)| match usize::from(*width) {
        width if Some(i) == sentence => width.min(SENTENCE_CHARS) + 2,
        width => width + 2,
    };
    let mut total: usize = widths.iter().enumerate().map(taken).sum();
    let mut by_rank: Vec<usize> = (0..sheet.columns.len()).collect();
    by_rank.sort_by_key(|i| std::cmp::Reverse(sheet.columns[*i].rank));
    let mut hidden = Vec::new();
    for i in by_rank {
        if total <= usize::from(width) || sheet.columns[i].rank == 0 {
            break;
        }
        if let Some(column) = table.column_mut(key_parts + i) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
        total -= usize::from(widths[key_parts + i]) + 2;
        hidden.push(title(sheet.columns[i].name));
    }
    if let Some((i, column)) = sentence.and_then(|i| Some((i, table.column_mut(i)?))) {
        let others = total - taken((i, &widths[i]));
        let room = usize::from(width).saturating_sub(others + 2).max(SENTENCE_CHARS_MIN);
        column.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(room as u16 + 2)));
    }
    hidden
}

/// A column's name here, where lengths of time have units of their own.
fn title(name: &'static str) -> &'static str {
    name.strip_suffix("_seconds").unwrap_or(name)
}

fn number_of(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Number(x) => Some(*x),
        _ => None,
    }
}

fn cell_text(cell: &Cell, decimals: usize) -> String {
    match cell {
        Cell::Missing => "-".to_owned(),
        Cell::Count(n) => number::grouped(*n),
        Cell::Number(x) => number::fixed(*x, decimals),
        Cell::Flag(is) => if *is { "yes" } else { "no" }.to_owned(),
        Cell::Time(at) => number::instant(&sheet::millis(*at).to_string()),
        Cell::Length(length) => number::length(*length),
        Cell::Text(text) => number::visible(text).into_owned(),
        Cell::Texts(texts) => number::visible(&texts.join(", ")).into_owned(),
    }
}

/// What would end a Markdown cell, escaped.
fn markdown_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::Column;

    fn example() -> (Sheet, Vec<Vec<Cell>>) {
        let column = |name, rank| Column { name, align: Align::Right, rank };
        let sheet = Sheet {
            key: Some(vec!["user".to_owned()]),
            columns: vec![column("count", 0), column("sum", 1), column("mean", 2)],
        };
        let row = |key: &str, n, sum, mean| {
            vec![Cell::Text(key.to_owned()), Cell::Count(n), Cell::Number(sum), mean]
        };
        let rows = vec![
            row("al|ice", 1_234, 4_826_466.491, Cell::Number(15.3)),
            row("bob", 1, 22.0, Cell::Missing),
        ];
        (sheet, rows)
    }

    #[test]
    fn numbers_stand_under_each_other() {
        let (sheet, rows) = example();
        assert_eq!(
            layout(&sheet, &rows, Style::Terminal(None)),
            " user    count           sum  mean\n\
             ───────────────────────────────────\n \
             al|ice  1,234  4,826,466.49  15.3\n \
             bob         1         22.00     -\n"
        );
    }

    #[test]
    fn a_narrow_terminal_hides_what_is_missed_least() {
        let (sheet, rows) = example();
        let text = layout(&sheet, &rows, Style::Terminal(Some(32)));
        assert!(text.ends_with(" (no room for mean: see --format csv)\n"), "{text}");
        assert!(text.lines().next().is_some_and(|header| header.contains("sum")));
        let text = layout(&sheet, &rows, Style::Terminal(Some(5)));
        assert!(text.contains("mean, sum"), "{text}");
        assert!(text.contains("1,234"), "{text}");
    }

    #[test]
    fn a_long_item_is_shortened_as_a_key_is_where_there_is_a_width() {
        let columns = vec![Column { name: "item", align: Align::Key, rank: 0 }];
        let sheet = Sheet { key: Some(vec!["user".to_owned()]), columns };
        let rows = [vec![Cell::Text("u".repeat(50)), Cell::Text("i".repeat(50))]];
        let text = layout(&sheet, &rows, Style::Terminal(Some(90)));
        assert!(text.contains(&format!(" {}…  {}…\n", "u".repeat(39), "i".repeat(39))), "{text}");
        let text = layout(&sheet, &rows, Style::Terminal(None));
        assert!(text.contains(&"i".repeat(50)), "{text}");
    }

    #[test]
    fn a_sentence_is_broken_into_lines_before_a_column_goes() {
        let column = |name, align, rank| Column { name, align, rank };
        let columns = vec![
            column("name", Align::Left, 0),
            column("state", Align::Left, 1),
            column("definition", Align::Wrapped, 0),
        ];
        let sheet = Sheet { key: None, columns };
        let text = "by country and currency, events sale refund, count, stats of value, 72 hours";
        let cells = ["eu", "ready", text].map(|text| Cell::Text(text.to_owned()));
        let rows = [cells.to_vec()];
        for (width, lines, shown) in [(60, 4, true), (50, 4, false), (20, 7, false)] {
            let laid = layout(&sheet, &rows, Style::Terminal(Some(width)));
            let table: Vec<&str> = laid.lines().filter(|line| !line.contains("no room")).collect();
            let widest = table.iter().map(|line| line.chars().count()).max();
            assert!(widest <= Some(usize::from(width.max(30))), "{laid}");
            assert_eq!((table.len(), laid.contains("ready")), (lines, shown), "{laid}");
        }
        assert!(layout(&sheet, &rows, Style::Markdown).contains(text), "it is one cell");
    }

    #[test]
    fn markdown_escapes_what_ends_a_cell() {
        let (sheet, rows) = example();
        let text = layout(&sheet, &rows, Style::Markdown);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("|--"), "{text}");
        assert!(lines[2].contains("al\\|ice"), "{text}");
    }
}
