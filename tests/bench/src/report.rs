//! The table at the end of a run.

use std::fmt::Write as _;

/// Figures of one kind, of everything that was measured.
pub(crate) struct Row {
    /// What was measured, with its unit.
    pub(crate) what: String,
    /// Without any server in between, where that makes sense.
    pub(crate) direct: Option<f64>,
    /// One figure per server, in the order of the report's servers.
    pub(crate) servers: Vec<f64>,
    /// What the figure of a server with an agent should be.
    pub(crate) goal: &'static str,
}

/// All rows of a run.
pub(crate) struct Report {
    servers: Vec<&'static str>,
    rows: Vec<Row>,
}

impl Report {
    /// An empty report on these servers; the first one is what the others are compared with.
    pub(crate) fn new(servers: Vec<&'static str>) -> Self {
        Self { servers, rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The table as text, in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut table = String::from("| what | direct |");
        for server in &self.servers {
            let _ = write!(table, " {server} |");
        }
        for server in self.servers.iter().skip(1) {
            let _ = write!(table, " {server} / {} |", self.servers[0]);
        }
        table.push_str(" goal |\n|---|");
        table.push_str(&"---:|".repeat(self.servers.len() * 2));
        table.push_str("---|\n");
        for row in &self.rows {
            self.put_row(&mut table, row);
        }
        table
    }

    fn put_row(&self, table: &mut String, row: &Row) {
        let direct = row.direct.map_or_else(|| "–".to_owned(), figure);
        let _ = write!(table, "| {} | {direct} |", row.what);
        for value in &row.servers {
            let _ = write!(table, " {} |", figure(*value));
        }
        for value in row.servers.iter().skip(1) {
            let _ = write!(table, " {} |", ratio(*value, row.servers[0]));
        }
        let _ = writeln!(table, " {} |", row.goal);
    }
}

/// Three significant digits, and whole thousands where there are that many.
fn figure(value: f64) -> String {
    match value.abs() {
        100_000.0.. => format!("{:.0} k", value / 1000.0),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A ratio to something too small to measure says nothing.
fn ratio(value: f64, floor: f64) -> String {
    if floor > 0.0 { format!("{:.2}", value / floor) } else { "–".to_owned() }
}

/// The value that `share` of all values are below, from 0 to 1. Sorts the values.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let index = ((values.len() - 1) as f64 * share).round() as usize;
    values[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_unsorted_values_is_found() {
        let mut values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert!((percentile(&mut values, 0.5) - 3.0).abs() < f64::EPSILON);
        assert!((percentile(&mut values, 1.0) - 5.0).abs() < f64::EPSILON);
    }

    #[test]
    fn every_line_of_the_table_has_as_many_columns() {
        let mut report = Report::new(vec!["relay", "jackfield"]);
        report.add(Row { what: "a".to_owned(), direct: None, servers: vec![0.0, 2.0], goal: "" });
        report.add(Row { what: "b".to_owned(), direct: Some(1.0), servers: vec![1.0, 250_000.0], goal: "≤ 3" });
        let table = report.table();
        let columns: Vec<usize> = table.lines().map(|line| line.matches('|').count()).collect();
        assert_eq!(columns, vec![7, 7, 7, 7], "{table}");
    }
}
