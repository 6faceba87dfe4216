//! Figures as a table for people or as lines of JSON for programs.

use std::fmt::Write;

/// The figures of one scenario against one target, in the order to print them.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) target: String,
    /// Name with unit, value.
    pub(crate) figures: Vec<(&'static str, f64)>,
}

/// The figures of one scenario against one target over all rounds.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    scenario: String,
    target: String,
    figures: Vec<Figure>,
}

/// One figure over all rounds.
#[derive(Clone, Debug)]
struct Figure {
    name: &'static str,
    median: f64,
    least: f64,
    most: f64,
}

/// Sums up `rows`, which must be of one kind.
pub(crate) fn summary(rows: &[Row]) -> Option<Summary> {
    let first = rows.first()?;
    let figure = |&(name, _): &(&'static str, f64)| {
        let all =
            rows.iter().flat_map(|row| row.figures.iter().filter(|(other, _)| *other == name));
        let mut all: Vec<f64> = all.map(|(_, value)| *value).collect();
        all.sort_by(f64::total_cmp);
        let [low, high] = [all.get(all.len().saturating_sub(1) / 2)?, all.get(all.len() / 2)?];
        let (least, most) = (*all.first()?, *all.last()?);
        Some(Figure { name, median: f64::midpoint(*low, *high), least, most })
    };
    Some(Summary {
        scenario: first.scenario.clone(),
        target: first.target.clone(),
        figures: first.figures.iter().filter_map(figure).collect(),
    })
}

/// For people: medians, and in brackets least and most where they differ.
pub(crate) fn table(rows: &[Summary]) -> String {
    let mut text = String::new();
    let mut begin = 0;
    while let Some(first) = rows.get(begin) {
        let same = |row: &&Summary| row.scenario == first.scenario;
        let rows: Vec<&Summary> = rows.iter().skip(begin).take_while(same).collect();
        begin += rows.len();
        let heading = first.figures.iter().map(|figure| figure.name.to_owned());
        let mut lines = vec![std::iter::once("target".to_owned()).chain(heading).collect()];
        lines.extend(rows.iter().map(|row| {
            std::iter::once(row.target.clone()).chain(row.figures.iter().map(cell)).collect()
        }));
        let _ = writeln!(text, "\n{}", first.scenario);
        write_lines(&mut text, &lines);
    }
    text
}

fn cell(figure: &Figure) -> String {
    let Figure { median, least, most, .. } = *figure;
    let decimals = if median.abs() >= 1000.0 { 0 } else { 3 };
    if least < most {
        return format!("{median:.decimals$} ({least:.decimals$}-{most:.decimals$})");
    }
    format!("{median:.decimals$}")
}

/// Columns as wide as their widest cell, the first to the left.
fn write_lines(text: &mut String, lines: &[Vec<String>]) {
    let width =
        |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max();
    for line in lines {
        text.push(' ');
        for (column, cell) in line.iter().enumerate() {
            let width = width(column).unwrap_or_default();
            let _ = match column {
                0 => write!(text, " {cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
}

/// For programs: medians under the figures' names, least and most with an ending.
pub(crate) fn json(rows: &[Summary]) -> String {
    let mut text = String::new();
    for row in rows {
        // Names are our own: plain ASCII without quotes.
        let _ = write!(text, "{{\"scenario\":\"{}\",\"target\":\"{}\"", row.scenario, row.target);
        for Figure { name, median, least, most } in &row.figures {
            for (ending, value) in [("", median), ("_least", least), ("_most", most)] {
                let value = if value.is_finite() { value.to_string() } else { "null".into() };
                let _ = write!(text, ",\"{name}{ending}\":{value}");
            }
        }
        text.push_str("}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summed(values: &[f64]) -> Option<Summary> {
        let row = |value: &f64| Row {
            scenario: "s".into(),
            target: "t".into(),
            figures: vec![("x_ms", *value)],
        };
        summary(&values.iter().map(row).collect::<Vec<_>>())
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let middle = |values: &[f64]| summed(values).map(|row| row.figures[0].median);
        assert_eq!(middle(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(middle(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(middle(&[]), None);
    }

    #[test]
    fn both_forms_hold_every_figure_and_its_spread() {
        let rows: Vec<_> =
            [&[1.5, 2.5, 1.0][..], &[2500.0]].into_iter().filter_map(summed).collect();
        assert_eq!(
            json(&rows),
            "{\"scenario\":\"s\",\"target\":\"t\",\"x_ms\":1.5,\"x_ms_least\":1,\"x_ms_most\":2.5}\n\
             {\"scenario\":\"s\",\"target\":\"t\",\"x_ms\":2500,\"x_ms_least\":2500,\"x_ms_most\":2500}\n"
        );
        assert_eq!(
            table(&rows),
            "\ns\n  target                 x_ms\n  t       1.500 (1.000-2.500)\n  t                      2500\n"
        );
    }
}
