//! Going through the layers of a generated disk from some place on.

use std::ops::Range;

use super::layout::{Layer, Piece};

/// What one generation wrote and no later one wrote over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) range: Range<u64>,
    pub(crate) generation: u32,
    pub(crate) zeros: bool,
}

/// One layer and the cell of it that is being looked at.
#[derive(Clone, Debug)]
struct Cursor {
    layer: Layer,
    /// The bytes of the cell; none before the first look.
    cell: Range<u64>,
    pieces: Vec<Piece>,
    /// The first piece that does not lie before the last look.
    next: usize,
}

/// What a layer has at a place.
struct Look {
    /// Whether it is zeros, if there is anything.
    written: Option<bool>,
    /// Where that ends.
    until: u64,
}

impl Cursor {
    fn new(layer: Layer) -> Cursor {
        Cursor { layer, cell: 0..0, pieces: Vec::new(), next: 0 }
    }

    /// Looks at a place, which must not lie before the last one.
    fn look(&mut self, position: u64) -> Look {
        if position >= self.layer.bytes() {
            return Look { written: None, until: u64::MAX };
        }
        if position >= self.cell.end {
            let cell = self.layer.cell_at(position);
            self.cell = self.layer.cell(cell);
            self.layer.fill(cell, &mut self.pieces);
            self.next = 0;
        }
        while self.pieces.get(self.next).is_some_and(|piece| piece.range.end <= position) {
            self.next += 1;
        }
        match self.pieces.get(self.next) {
            Some(piece) if piece.range.start <= position => {
                Look { written: Some(piece.zeros), until: piece.range.end }
            }
            Some(piece) => Look { written: None, until: piece.range.start },
            None => Look { written: None, until: self.cell.end },
        }
    }
}

/// Where any of some layers wrote.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    cursors: Vec<Cursor>,
    window: Range<u64>,
}

impl Runs {
    pub(super) fn new(layers: Vec<Layer>, window: Range<u64>) -> Runs {
        Runs { cursors: layers.into_iter().map(Cursor::new).collect(), window }
    }
}

impl Iterator for Runs {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        while self.window.start < self.window.end {
            let start = self.window.start;
            // What the layer says that covers most, so that one long run is not looked at in small pieces.
            let mut covered = start;
            let mut gap = self.window.end;
            for cursor in &mut self.cursors {
                let look = cursor.look(start);
                match look.written {
                    Some(_) => covered = covered.max(look.until),
                    None => gap = gap.min(look.until),
                }
            }
            let end = if covered > start { covered.min(self.window.end) } else { gap };
            self.window.start = end;
            if covered > start {
                return Some(start..end);
            }
        }
        None
    }
}

/// What is there, and which generation wrote it.
#[derive(Clone, Debug)]
pub(crate) struct Stretches {
    /// The newest first.
    cursors: Vec<Cursor>,
    window: Range<u64>,
}

impl Stretches {
    pub(super) fn new(layers: Vec<Layer>, window: Range<u64>) -> Stretches {
        Stretches { cursors: layers.into_iter().map(Cursor::new).collect(), window }
    }
}

impl Iterator for Stretches {
    type Item = Stretch;

    fn next(&mut self) -> Option<Stretch> {
        while self.window.start < self.window.end {
            let start = self.window.start;
            let mut end = self.window.end;
            let mut found = None;
            for cursor in &mut self.cursors {
                let look = cursor.look(start);
                end = end.min(look.until);
                if let Some(zeros) = look.written {
                    found = Some((cursor.layer.generation, zeros));
                    break;
                }
            }
            self.window.start = end;
            if let Some((generation, zeros)) = found {
                return Some(Stretch { range: start..end, generation, zeros });
            }
        }
        None
    }
}
