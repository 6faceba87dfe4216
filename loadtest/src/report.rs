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

/// The row whose every figure is the median of that figure in `rows`, which must be of one kind.
pub(crate) fn median(rows: &[Row]) -> Option<Row> {
    let mut middle = rows.first()?.clone();
    for (name, value) in &mut middle.figures {
        let mut all: Vec<f64> = rows
            .iter()
            .flat_map(|row| row.figures.iter().filter(|(other, _)| other == name))
            .map(|(_, value)| *value)
            .collect();
        all.sort_by(f64::total_cmp);
        *value = match (all.get((all.len().saturating_sub(1)) / 2), all.get(all.len() / 2)) {
            (Some(low), Some(high)) => f64::midpoint(*low, *high),
            _ => *value,
        };
    }
    Some(middle)
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut heading = "";
    for row in rows {
        if row.scenario != heading {
            heading = &row.scenario;
            let _ = writeln!(text, "\n{heading}");
            let _ = write!(text, "  {:<10}", "target");
            for (name, _) in &row.figures {
                let _ = write!(text, " {name:>width$}", width = width(name));
            }
            text.push('\n');
        }
        let _ = write!(text, "  {:<10}", row.target);
        for (name, value) in &row.figures {
            let decimals = if value.abs() >= 1000.0 { 0 } else { 3 };
            let _ = write!(text, " {value:>width$.decimals$}", width = width(name));
        }
        text.push('\n');
    }
    text
}

fn width(name: &str) -> usize {
    name.len().max(10)
}

pub(crate) fn json(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        // Names are our own: plain ASCII without quotes.
        let _ = write!(text, "{{\"scenario\":\"{}\",\"target\":\"{}\"", row.scenario, row.target);
        for (name, value) in &row.figures {
            let value = if value.is_finite() { value.to_string() } else { "null".into() };
            let _ = write!(text, ",\"{name}\":{value}");
        }
        text.push_str("}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: f64) -> Row {
        Row { scenario: "s".into(), target: "t".into(), figures: vec![("x_ms", value)] }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let middle = |values: &[f64]| {
            median(&values.iter().copied().map(row).collect::<Vec<_>>()).map(|row| row.figures[0].1)
        };
        assert_eq!(middle(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(middle(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(middle(&[]), None);
    }

    #[test]
    fn both_forms_hold_every_figure() {
        assert_eq!(json(&[row(1.5)]), "{\"scenario\":\"s\",\"target\":\"t\",\"x_ms\":1.5}\n");
        let text = table(&[row(1.5), row(2500.0)]);
        assert!(text.contains("x_ms") && text.contains("1.500") && text.contains("2500"), "{text}");
    }
}
