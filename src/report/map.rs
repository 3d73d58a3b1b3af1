//! The map of what was written: the disk from its first byte to its last, read like a page of text.

use crate::measure::BlockMap;

use super::course::Detail;
use super::page::{self, Width};
use super::plot::title_of;
use super::units::{percent, ratio, round_size, size};

const TITLE: &str = "Where on the disk";
const MOST_CELLS: usize = 4096;
const MOST_CELLS_COARSE: usize = 512;
const MOST_COLUMNS: usize = 128;
/// Cells that share what is shown while they are pointed at: one for each would be most of the page.
const POINTED_AT: usize = 8;

/// The colours of cells: nothing, four strengths of data, four of zeros. The style sheet has them.
const CLASSES: [&str; 9] = ["empty", "data1", "data2", "data3", "data4", "zero1", "zero2", "zero3", "zero4"];

/// Which of [`CLASSES`] a cell has: the hue of what there is more of, stronger the more of the cell is written.
fn class(cell: f64, data: f64, zero: f64) -> usize {
    if data + zero == 0.0 {
        return 0;
    }
    let part = ratio(data + zero, cell);
    let strength = match part {
        part if part < 0.05 => 0,
        part if part < 0.25 => 1,
        part if part < 0.75 => 2,
        _ => 3,
    };
    if data >= zero { 1 + strength } else { 5 + strength }
}

/// Draws the map; a coarse one has fewer cells, and nothing is shown of them while they are pointed at.
pub(super) fn card(id: &str, map: &BlockMap, detail: Detail) -> String {
    let grid = Grid::new(map, detail);
    if grid.cells.is_empty() || map.cell == 0 {
        let nothing = page::nothing(id, "Nothing was written.");
        return page::card(Width::Whole, TITLE, "Which parts of the disk were written.", &nothing);
    }
    let hits = if detail == Detail::Fine { grid.hits() } else { String::new() };
    let svg = format!(
        concat!(
            r#"<svg class="map" id="{id}" role="img" aria-label="Map of the disk" viewBox="0 0 {columns} {rows}" "#,
            r#"preserveAspectRatio="none" height="{height}"><g class="runs">{runs}</g><g class="hits">{hits}</g></svg>"#,
            "\n"
        ),
        id = id,
        columns = grid.columns,
        rows = grid.rows,
        height = (grid.rows * 8).clamp(16, 256),
        runs = grid.runs(),
        hits = hits,
    );
    let row = format!("{} a row", round_size(grid.cell.saturating_mul(grid.columns as u64)));
    let keys = [("empty block", "not written"), ("data4 block", "data"), ("zero4 block", "zeros and clears")];
    page::card(Width::Whole, TITLE, &grid.caption(), &(page::key(&row, &keys) + &svg))
}

/// What is drawn: bytes of data and of zeros in each cell, and how cells are laid out.
struct Grid {
    cells: Vec<(f64, f64)>,
    /// Bytes of the disk in a cell.
    cell: u64,
    columns: usize,
    rows: usize,
}

impl Grid {
    fn new(map: &BlockMap, detail: Detail) -> Self {
        let most = if detail == Detail::Fine { MOST_CELLS } else { MOST_CELLS_COARSE };
        let length = map.data.len().max(map.zero.len()).min(MOST_CELLS);
        let group = length.div_ceil(most).max(1);
        let mut cells = Vec::new();
        for from in (0..length).step_by(group) {
            let sum = |values: &[u64]| values.iter().skip(from).take(group).map(|bytes| *bytes as f64).sum();
            cells.push((sum(&map.data), sum(&map.zero)));
        }
        // About four times as wide as high, as a page has room for.
        let columns = (4 * cells.len()).isqrt().next_power_of_two().min(MOST_COLUMNS);
        Self {
            cell: map.cell.saturating_mul(group as u64),
            columns,
            rows: cells.len().div_ceil(columns),
            cells,
        }
    }

    fn class(&self, index: usize) -> usize {
        let (data, zero) = self.cells[index];
        class(self.cell as f64, data, zero)
    }

    /// Cells of one class that follow each other in a row are one dashed line, a dash for each of them: so the largest
    /// map is a few kilobytes.
    fn runs(&self) -> String {
        let mut paths = [const { String::new() }; CLASSES.len()];
        let mut from = 0;
        while from < self.cells.len() {
            let class = self.class(from);
            let row_end = (from / self.columns + 1) * self.columns;
            let mut to = from + 1;
            while to < self.cells.len() && to < row_end && self.class(to) == class {
                to += 1;
            }
            let (x, y) = (from % self.columns, from / self.columns);
            paths[class].push_str(&format!("M{x} {y}.5h{}", to - from));
            from = to;
        }
        let mut out = String::new();
        for (class, path) in CLASSES.iter().zip(&paths) {
            if !path.is_empty() {
                out.push_str(&format!(r#"<path class="{class}" d="{path}"/>"#));
            }
        }
        out
    }

    fn hits(&self) -> String {
        let mut out = String::new();
        let step = POINTED_AT.min(self.columns);
        for from in (0..self.cells.len()).step_by(step) {
            let to = (from + step).min(self.cells.len());
            let (data, zero) = sum(&self.cells[from..to]);
            if data + zero == 0.0 {
                continue;
            }
            let title = format!(
                "{} to {}\n{} of data, {} of zeros",
                size(self.cell as f64 * from as f64),
                size(self.cell as f64 * to as f64),
                size(data),
                size(zero)
            );
            let (x, y) = (from % self.columns, from / self.columns);
            let width = to - from;
            out.push_str(&format!(
                r#"<rect x="{x}" y="{y}" width="{width}" height="1">{}</rect>"#,
                title_of(&title)
            ));
        }
        out
    }

    fn caption(&self) -> String {
        let (mut with_data, mut with_zeros) = (0_u32, 0_u32);
        for index in 0..self.cells.len() {
            match self.class(index) {
                0 => {}
                1..=4 => with_data += 1,
                _ => with_zeros += 1,
            }
        }
        let (data, zero) = sum(&self.cells);
        let part = |cells: u32| percent(f64::from(cells) / self.cells.len() as f64);
        format!(
            "Each cell is {} of the disk, the stronger the more of it was written: {} in {} of the cells, and {} of zeros or clears, which fill most of {}.",
            round_size(self.cell),
            size(data),
            part(with_data),
            size(zero),
            part(with_zeros)
        )
    }
}

fn sum(cells: &[(f64, f64)]) -> (f64, f64) {
    cells.iter().fold((0.0, 0.0), |sum, (data, zero)| (sum.0 + data, sum.1 + zero))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_the_colour_of_what_there_is_more_of() {
        assert_eq!(CLASSES[class(100.0, 0.0, 0.0)], "empty");
        assert_eq!(CLASSES[class(100.0, 1.0, 0.0)], "data1");
        assert_eq!(CLASSES[class(100.0, 90.0, 10.0)], "data4");
        assert_eq!(CLASSES[class(100.0, 10.0, 40.0)], "zero3");
        // The last cell of a disk can be cut short, and a cell written twice.
        assert_eq!(CLASSES[class(100.0, 1e18, 1e18)], "data4");
        assert_eq!(CLASSES[class(0.0, 1.0, 0.0)], "data1");
    }

    #[test]
    fn every_cell_is_drawn_once() {
        for cells in [1, 2, 63, 100, 1000, 4096] {
            let mut map = BlockMap { cell: 1 << 20, data: vec![5; cells], zero: vec![0; cells] };
            map.zero[cells / 2] = 1 << 20;
            for detail in [Detail::Fine, Detail::Coarse] {
                let grid = Grid::new(&map, detail);
                let runs = grid.runs();
                let drawn: usize = runs
                    .split(".5h")
                    .skip(1)
                    .map(|run| run.split(['M', '"']).next().unwrap_or_default().parse().unwrap_or(0))
                    .sum();
                assert_eq!(drawn, grid.cells.len());
                let (data, zero) = sum(&grid.cells);
                assert!((data - 5.0 * cells as f64).abs() < 0.5 && (zero - 1_048_576.0).abs() < 0.5);
            }
        }
    }
}
