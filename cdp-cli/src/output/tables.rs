//! Tables for people: a heading, columns as wide as they need, numbers to the right.

use std::fmt::Write;

/// Rows below a heading.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a heading.
    pub fn new<const COLUMNS: usize>(heading: [&str; COLUMNS]) -> Self {
        Self { rows: vec![heading.map(str::to_owned).to_vec()] }
    }

    /// Adds a row.
    pub fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells.to_vec());
    }

    /// The text, each row a line; nothing but the heading when there are no rows.
    pub fn text(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let cell = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().map(|row| cell(row, column)).max().unwrap_or(0))
            .collect();
        let numeric: Vec<bool> = (0..columns).map(|column| self.is_numeric(column)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), numeric) in row.iter().zip(&widths).zip(&numeric) {
                // Writing to a string cannot fail.
                let _ = if *numeric {
                    write!(line, "{cell:>width$}  ")
                } else {
                    write!(line, "{cell:<width$}  ")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn is_numeric(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().skip(1).filter_map(|row| row.get(column)).peekable();
        cells.peek().is_some()
            && cells.all(|cell| {
                cell.starts_with(|first: char| first.is_ascii_digit()) && !cell.contains(['T', ':'])
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: columns line up, numbers to the right. Method: a small table.
    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["name", "size"]);
        table.row(["disk".to_owned(), "1".to_owned()]);
        table.row(["l\u{f6}g".to_owned(), "100".to_owned()]);
        assert_eq!(table.text(), "name  size\ndisk     1\nl\u{f6}g    100\n");
    }
}
