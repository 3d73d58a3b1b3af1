//! Reads the body of Get Page Ranges and its diff form as a stream of events.
//!
//! The body begins with a byte-order mark; `PageRange` and `ClearRange` come interleaved in one ascending
//! order; `End` is inclusive; `NextMarker` is absent, empty or a token (all seen in recorded traffic). The
//! order, the alignment and the bounds are checked, because a range that is lost or misplaced here is a wrong
//! disk: what does not fit is an error, never a guess.

use quick_xml::Reader;
use quick_xml::events::Event;
use tokio::io::{AsyncBufRead, AsyncReadExt, Take};

use crate::range::{Extent, ExtentKind, PageRange};

/// Why a body is not a page list.
#[derive(Debug, thiserror::Error)]
pub enum PageListError {
    /// The body ended before the list did, or could not be read: asking again can help.
    #[error("the page list is cut off: {0}")]
    Cut(String),
    /// The body is not what the protocol allows.
    #[error("the page list is malformed: {0}")]
    Malformed(String),
}

/// Which kinds of range a list may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Ranges with data only.
    Allocated,
    /// Changes between two snapshots: clear ranges too.
    Difference,
}

/// Longest tag, text or declaration that is read.
const LONGEST_EVENT: u64 = 64 << 10;
/// Longest text of an element that is looked at (numbers have at most 20 digits, markers are short).
const LONGEST_TEXT: usize = 4096;

/// A page list while it is being read.
pub struct PageListReader<R> {
    /// Limited to the length of one event at a time: no element of a reply can fill the memory.
    reader: Reader<Take<R>>,
    buffer: Vec<u8>,
    /// Name or text of the token that was read last. Kept, like `buffer` and `value`: a list of a million elements has
    /// eight million tokens, and memory of its own for each was a fifth of the work.
    text: String,
    /// Text of the element that was read last.
    value: String,
    kind: ListKind,
    /// Where the list was asked for.
    window: PageRange,
    /// Every range must lie below this: the blob's length.
    limit: u64,
    /// Everything below was reported, or is known to be unchanged.
    position: u64,
    started: bool,
    finished: bool,
    next_marker: Option<String>,
}

impl<R: AsyncBufRead + Unpin> PageListReader<R> {
    /// Reads a list that was asked for `window` of a blob of `blob_length` bytes.
    pub fn new(body: R, kind: ListKind, window: PageRange, blob_length: u64) -> Self {
        let mut reader = Reader::from_reader(body.take(LONGEST_EVENT));
        // `<PageList/>` and `<NextMarker/>` are then a start tag and an end tag like the others.
        reader.config_mut().expand_empty_elements = true;
        Self {
            reader,
            buffer: Vec::new(),
            text: String::new(),
            value: String::new(),
            kind,
            window,
            limit: blob_length,
            position: 0,
            started: false,
            finished: false,
            next_marker: None,
        }
    }

    /// The next range inside the window, or `None` at the end of a complete list.
    pub async fn next(&mut self) -> Result<Option<Extent>, PageListError> {
        while !self.finished {
            match self.event().await? {
                Token::Open => match (self.started, self.text.as_str()) {
                    (false, "PageList") => self.started = true,
                    (true, "PageRange") => {
                        let range = self.range().await?;
                        if let Some(extent) = self.accept(range, ExtentKind::Data)? {
                            return Ok(Some(extent));
                        }
                    }
                    (true, "ClearRange") if self.kind == ListKind::Difference => {
                        let range = self.range().await?;
                        if let Some(extent) = self.accept(range, ExtentKind::Clear)? {
                            return Ok(Some(extent));
                        }
                    }
                    (true, "NextMarker") => {
                        self.read_value("NextMarker").await?;
                        let marker = self.value.trim();
                        self.next_marker = (!marker.is_empty()).then(|| marker.to_owned());
                    }
                    _ => return Err(malformed(format!("unexpected element <{}>", self.text))),
                },
                Token::Close if self.started && self.text == "PageList" => self.finished = true,
                Token::Text if self.is_blank() => {}
                Token::Close | Token::Text => return Err(malformed("text or an end tag out of place")),
                Token::End => return Err(PageListError::Cut("it ends before </PageList>".to_owned())),
            }
        }
        Ok(None)
    }

    /// The token with which the list goes on; `None` when it is complete. Valid after [`Self::next`] gave `None`.
    pub fn next_marker(&self) -> Option<&str> {
        self.next_marker.as_deref()
    }

    /// `<Start>n</Start><End>m</End>` up to the end tag of the range.
    async fn range(&mut self) -> Result<PageRange, PageListError> {
        let (mut start, mut end) = (None, None);
        loop {
            match self.event().await? {
                Token::Open => {
                    let (name, slot) = match self.text.as_str() {
                        "Start" => ("Start", &mut start),
                        "End" => ("End", &mut end),
                        other => return Err(malformed(format!("unexpected element <{other}> in a range"))),
                    };
                    if slot.is_some() {
                        return Err(malformed(format!("a range has two <{name}>")));
                    }
                    self.read_value(name).await?;
                    let number = decimal(self.value.trim())
                        .ok_or_else(|| malformed(format!("<{name}> is not a decimal number")))?;
                    *slot = Some(number);
                }
                Token::Close => break,
                Token::Text if self.is_blank() => {}
                Token::Text => return Err(malformed("text in a range")),
                Token::End => return Err(PageListError::Cut("it ends inside a range".to_owned())),
            }
        }
        let (Some(start), Some(last)) = (start, end) else {
            return Err(malformed("a range lacks its <Start> or <End>"));
        };
        let end = last.checked_add(1).ok_or_else(|| malformed("<End> is too large"))?;
        PageRange::new(start, end).map_err(|error| malformed(error.to_string()))
    }

    fn accept(&mut self, range: PageRange, kind: ExtentKind) -> Result<Option<Extent>, PageListError> {
        if range.start() < self.position {
            return Err(malformed(format!("{range} overlaps or precedes what ended at {}", self.position)));
        }
        if range.end() > self.limit {
            return Err(malformed(format!("{range} lies past the end of the blob, {} bytes", self.limit)));
        }
        self.position = range.end();
        // A range that reaches over the edge of the window is cut: its rest belongs to the neighbour.
        match range.intersection(self.window) {
            Some(range) => Ok(Some(Extent { range, kind })),
            None => Err(malformed(format!(
                "{range} lies outside of the window {} that was asked for",
                self.window
            ))),
        }
    }

    /// Reads the text of the element `name`, whose start tag was just read, to `value`.
    async fn read_value(&mut self, name: &str) -> Result<(), PageListError> {
        self.value.clear();
        loop {
            match self.event().await? {
                Token::Text if self.value.len() + self.text.len() <= LONGEST_TEXT => {
                    self.value.push_str(&self.text);
                }
                Token::Text => return Err(malformed(format!("<{name}> is too long"))),
                Token::Close => return Ok(()),
                Token::Open => return Err(malformed(format!("<{}> inside of <{name}>", self.text))),
                Token::End => return Err(PageListError::Cut(format!("it ends inside of <{name}>"))),
            }
        }
    }

    fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// Reads the next token; its name or text is in `text` then.
    async fn event(&mut self) -> Result<Token, PageListError> {
        loop {
            self.buffer.clear();
            self.reader.get_mut().set_limit(LONGEST_EVENT);
            let event = self.reader.read_event_into_async(&mut self.buffer).await;
            self.text.clear();
            return Ok(match event.map_err(|error| read_error(&error))? {
                Event::Start(tag) => {
                    self.text.push_str(tag.name().as_ref());
                    Token::Open
                }
                Event::End(tag) => {
                    self.text.push_str(tag.name().as_ref());
                    Token::Close
                }
                Event::Text(text) => {
                    self.text.push_str(&text);
                    Token::Text
                }
                Event::Eof => Token::End,
                Event::Decl(_) | Event::Comment(_) => continue,
                Event::Empty(_)
                | Event::CData(_)
                | Event::PI(_)
                | Event::DocType(_)
                | Event::GeneralRef(_) => return Err(malformed("a construct that page lists do not have")),
            });
        }
    }
}

enum Token {
    Open,
    Close,
    Text,
    End,
}

fn malformed(why: impl Into<String>) -> PageListError {
    PageListError::Malformed(why.into())
}

/// A connection that breaks, and a document that stops in the middle of a tag, are cut; the rest is malformed.
fn read_error(error: &quick_xml::Error) -> PageListError {
    match error {
        quick_xml::Error::Io(why) => PageListError::Cut(super::reply::scrub(&why.to_string())),
        quick_xml::Error::Syntax(why) => PageListError::Cut(why.to_string()),
        other => malformed(other.to_string()),
    }
}

/// Decimal digits only: no sign, no blank inside.
fn decimal(text: &str) -> Option<u64> {
    let mut number: u64 = 0;
    for byte in text.bytes() {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
    }
    (!text.is_empty()).then_some(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const WINDOW: u64 = 1 << 20;

    fn read(body: &str, kind: ListKind) -> Result<(Vec<Extent>, Option<String>), PageListError> {
        let window = PageRange::new(0, WINDOW).unwrap();
        futures::executor::block_on(async {
            let mut reader = PageListReader::new(body.as_bytes(), kind, window, WINDOW);
            let mut extents = Vec::new();
            while let Some(extent) = reader.next().await? {
                extents.push(extent);
            }
            Ok((extents, reader.next_marker().map(str::to_owned)))
        })
    }

    fn list(inner: &str) -> String {
        format!("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<PageList>{inner}</PageList>")
    }

    fn element(extent: &Extent) -> String {
        let name = if extent.kind == ExtentKind::Data { "PageRange" } else { "ClearRange" };
        let (start, last) = (extent.range.start(), extent.range.end() - 1);
        format!("<{name}><Start>{start}</Start><End>{last}</End></{name}>")
    }

    fn extent(start: u64, end: u64, kind: ExtentKind) -> Extent {
        Extent { range: PageRange::new(start, end).unwrap(), kind }
    }

    #[test]
    fn interleaved_ranges_keep_their_order() {
        use ExtentKind::{Clear, Data};
        let expected = [
            extent(0, 512, Data),
            extent(512, 1024, Clear),
            extent(1024, 1536, Data),
            extent(1536, 2048, Clear),
        ];
        let body = list(&expected.iter().map(element).collect::<String>());
        assert_eq!(read(&body, ListKind::Difference).unwrap().0, expected);
    }

    #[test]
    fn an_empty_list_and_all_forms_of_the_marker_are_read() {
        for body in ["<PageList/>", "<PageList></PageList>", "\u{feff}<PageList><NextMarker/></PageList>"] {
            assert_eq!(read(body, ListKind::Difference).unwrap(), (vec![], None), "{body}");
        }
        let body = list("<NextMarker>2!16!MDAwMDA0ITIwNDgh</NextMarker>");
        assert_eq!(read(&body, ListKind::Allocated).unwrap().1.as_deref(), Some("2!16!MDAwMDA0ITIwNDgh"));
    }

    #[test]
    fn what_does_not_fit_is_a_protocol_error() {
        use ExtentKind::Data;
        let two = |a: Extent, b: Extent| list(&(element(&a) + &element(&b)));
        for body in [
            two(extent(1024, 2048, Data), extent(0, 512, Data)),
            two(extent(0, 1024, Data), extent(512, 2048, Data)),
            list(&element(&extent(WINDOW, WINDOW + 512, Data))),
            list("<PageRange><Start>1</Start><End>511</End></PageRange>"),
            list("<PageRange><Start>0</Start><End>512</End></PageRange>"),
            list("<PageRange><Start>512</Start><End>0</End></PageRange>"),
            list("<PageRange><Start>0</Start></PageRange>"),
            list("<PageRange><Start>-0</Start><End>511</End></PageRange>"),
            list("<PageRange><Start>0</Start><End>18446744073709551615</End></PageRange>"),
            list("<PageRange><Start>0</Start><Start>0</Start><End>511</End></PageRange>"),
            list("<ShiftRange><Start>0</Start><End>511</End></ShiftRange>"),
            "<Error><Code>x</Code></Error>".to_owned(),
        ] {
            assert!(matches!(read(&body, ListKind::Difference), Err(PageListError::Malformed(_))), "{body}");
        }
        let clear = list(&element(&extent(0, 512, ExtentKind::Clear)));
        assert!(matches!(read(&clear, ListKind::Allocated), Err(PageListError::Malformed(_))));
    }

    #[test]
    fn a_list_that_is_cut_anywhere_is_never_taken_for_whole() {
        let body = list(
            &(0..4).map(|i| element(&extent(i * 1024, i * 1024 + 512, ExtentKind::Data))).collect::<String>(),
        );
        for end in 0..body.len() {
            if body.is_char_boundary(end) {
                assert!(read(&body[..end], ListKind::Difference).is_err(), "cut at {end}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_bytes_make_the_parser_panic_or_break_its_order(body in "(<PageList>|</PageList>|<PageRange>|</PageRange>|<ClearRange>|</ClearRange>|<Start>|</Start>|<End>|</End>|[0-9]{1,6}|0|511|512|1023|<NextMarker/>|&amp;|<!--|.){0,40}") {
            if let Ok((extents, _)) = read(&body, ListKind::Difference) {
                prop_assert!(extents.is_sorted_by_key(|extent| extent.range.start()));
            }
        }

        #[test]
        fn any_ordered_list_is_read_back(lengths in proptest::collection::vec((0_u64..4, 1_u64..4, any::<bool>()), 0..50)) {
            let mut at = 0;
            let mut expected = Vec::new();
            for (gap, pages, clear) in lengths {
                let start = at + gap * 512;
                at = start + pages * 512;
                expected.push(extent(start, at, if clear { ExtentKind::Clear } else { ExtentKind::Data }));
            }
            let body = list(&expected.iter().map(element).collect::<String>());
            prop_assert_eq!(read(&body, ListKind::Difference).unwrap().0, expected);
        }
    }
}
