//! What comes from outside is parsed: page lists, error replies, URLs, markers. Whatever the bytes are, the
//! parsers neither panic nor hang, and what they accept keeps its promises. Bounded in inputs, so that it runs
//! with the suite; seeds are kept by proptest when one fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fmt::Write;

use proptest::prelude::*;
use snapferry::azure::page_list::{ListKind, PageListReader};
use snapferry::azure::reply::{ServiceReply, error_elements, scrub};
use snapferry::azure::{PlainHttp, Resource, Role};
use snapferry::range::{Extent, ExtentKind, PAGE, PageRange};

const LENGTH: u64 = 1 << 20;

fn read(body: &[u8], kind: ListKind) -> Option<Vec<Extent>> {
    let window = PageRange::new(0, LENGTH).unwrap();
    futures::executor::block_on(async {
        let mut reader = PageListReader::new(body, kind, window, LENGTH);
        let mut extents = Vec::new();
        while let Some(extent) = reader.next().await.ok()? {
            extents.push(extent);
        }
        Some(extents)
    })
}

/// A well-formed list, from which mutations start: so the fuzzer reaches the inside of the parser.
fn page_list() -> impl Strategy<Value = (String, Vec<Extent>)> {
    proptest::collection::vec((0_u64..5, 1_u64..5, any::<bool>()), 0..30).prop_map(|parts| {
        let mut at = 0;
        let mut body = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<PageList>".to_owned();
        let mut extents = Vec::new();
        for (gap, pages, clear) in parts {
            let start = at + gap * PAGE;
            at = start + pages * PAGE;
            let (name, kind) =
                if clear { ("ClearRange", ExtentKind::Clear) } else { ("PageRange", ExtentKind::Data) };
            write!(body, "<{name}><Start>{start}</Start><End>{}</End></{name}>", at - 1).unwrap();
            extents.push(Extent { range: PageRange::new(start, at).unwrap(), kind });
        }
        (body + "<NextMarker/></PageList>", extents)
    })
}

#[derive(Clone, Debug)]
enum Mutation {
    Flip(usize, u8),
    Cut(usize),
    Remove(usize, usize),
    Repeat(usize, usize),
    Insert(usize, &'static str),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let pieces = prop::sample::select(vec![
        "<",
        ">",
        "</PageList>",
        "<PageRange>",
        "<Start>512</Start>",
        "&amp;",
        "<!--",
        "-->",
        "]]>",
        "<?x?>",
        "-1",
        "99999999999999999999",
        "\u{0}",
        " ",
    ]);
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        any::<usize>().prop_map(Mutation::Cut),
        (any::<usize>(), 1_usize..80).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (any::<usize>(), 1_usize..80).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        (any::<usize>(), pieces).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
    ]
}

fn mutate(body: &str, mutations: &[Mutation]) -> Vec<u8> {
    let mut bytes = body.as_bytes().to_vec();
    for mutation in mutations {
        let place = |at: usize| at % (bytes.len() + 1);
        match *mutation {
            Mutation::Flip(at, bits) => {
                let at = place(at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Mutation::Cut(at) => {
                let at = place(at);
                bytes.truncate(at);
            }
            Mutation::Remove(at, length) => {
                let at = place(at);
                bytes.drain(at..(at + length).min(bytes.len()));
            }
            Mutation::Repeat(at, length) => {
                let at = place(at);
                let part = bytes[at..(at + length).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
            Mutation::Insert(at, piece) => {
                let at = place(at);
                bytes.splice(at..at, piece.bytes());
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_page_list_is_refused_or_keeps_its_promises((body, extents) in page_list(), mutations in proptest::collection::vec(mutation(), 0..4)) {
        let bytes = mutate(&body, &mutations);
        let found = read(&bytes, ListKind::Difference);
        if mutations.is_empty() {
            prop_assert_eq!(found.as_ref(), Some(&extents));
        }
        let mut end = 0;
        for extent in found.iter().flatten() {
            prop_assert!(extent.range.start() >= end && extent.range.end() <= LENGTH);
            end = extent.range.end();
        }
    }

    #[test]
    fn any_bytes_may_come_as_a_page_list_or_an_error(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&body, ListKind::Allocated);
        let _ = error_elements(&body);
        let reply = ServiceReply::parse(400, |_| None, &body);
        prop_assert!(reply.message.chars().count() <= 400);
    }

    #[test]
    fn no_signature_survives_in_an_error_reply(secret in "[A-Za-z0-9%+/]{20,60}", before in ".{0,40}", after in "[ &\"<>'].{0,40}", form in 0..3) {
        let mark = ["sig=", "SIG%3D", "Bearer "][usize::try_from(form).unwrap()];
        let text = format!("{before}{mark}{secret}{after}");
        prop_assert!(!scrub(&text).contains(&secret), "{}", scrub(&text));
        let body = format!("<Error><Code>X</Code><Message>{}</Message></Error>", text.replace('&', "&amp;").replace('<', "&lt;"));
        let reply = ServiceReply::parse(403, |_| None, body.as_bytes());
        let shown = format!("{reply:?}");
        prop_assert!(!shown.contains(&secret));
    }

    #[test]
    fn any_text_may_come_as_a_url(text in ".{0,120}", query in "[a-z0-9=&%?#-]{0,60}") {
        for text in [text.clone(), format!("https://{text}"), format!("https://a.b/c/d?{query}"), format!("http://127.0.0.1:1/a/c/{text}?{query}")] {
            if let Ok(resource) = Resource::parse(Role::Source, &text, PlainHttp::LoopbackOnly) {
                let shown = format!("{resource:?}");
                prop_assert!(!shown.contains("sig="));
                let _ = (resource.is_managed_disk(), resource.location(), resource.expiry());
            }
        }
    }
}
