//! Columns as wide as their widest cell.

use super::plain;

/// Rows of text under headings. Painting happens after measuring, so colours never shift a column.
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(headings: &[&'static str]) -> Table {
        Table { headings: headings.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: &[&str]) {
        assert_eq!(cells.len(), self.headings.len(), "a cell for every heading");
        self.rows.push(cells.iter().map(|c| plain(c)).collect());
    }

    /// The lines, each ended and without trailing spaces; `paint` gets the column's number and the cell.
    pub fn render(&self, paint_heading: impl Fn(&str) -> String, paint: impl Fn(usize, &str) -> String) -> String {
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|c| self.rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0).max(self.headings[c].len()))
            .collect();
        let mut text = String::new();
        let mut line = |cells: Vec<(&str, String)>| {
            let last = cells.iter().rposition(|(plain, _)| !plain.is_empty()).unwrap_or(0);
            for (column, (plain, painted)) in cells.iter().enumerate().take(last + 1) {
                text.push_str(painted);
                if column < last {
                    text.extend(std::iter::repeat_n(' ', widths[column] - plain.chars().count() + 2));
                }
            }
            text.push('\n');
        };
        line(self.headings.iter().map(|h| (*h, paint_heading(h))).collect());
        for row in &self.rows {
            line(row.iter().enumerate().map(|(c, cell)| (cell.as_str(), paint(c, cell))).collect());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut table = Table::new(&["KEY", "VALUE", "NOTE"]);
        table.row(&["a", "über", ""]);
        table.row(&["longer", "x", "y"]);
        assert_eq!(table.render(str::to_owned, |_, cell| cell.to_owned()), "KEY     VALUE  NOTE\na       über\nlonger  x      y\n");
        let painted = table.render(|h| format!("<{h}>"), |_, c| format!("[{c}]"));
        assert_eq!(painted.lines().last(), Some("[longer]  [x]      [y]"));
    }
}
