//! Put Block List and Get Block List: which blocks a block blob is made of.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::StatusCode;
use quick_xml::Reader;
use quick_xml::events::Event;

use super::Task;
use super::metadata::sent_metadata;
use super::put_page::{check_body, show_checksum};
use super::set_properties::sent_content_headers;
use crate::body::RequestBody;
use crate::conditions::Conditions;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::reply::Reply;
use crate::store::blob::{Blob, Content, Version};
use crate::store::blocks::{BlockContent, BlockId, Wanted};

/// The most blocks of a blob.
const LIST_LIMIT: usize = 50_000;

/// Makes the blob of the blocks that the body names. Blocks that waited and are not named are gone then.
pub(super) fn put_block_list(task: &Task<'_>, body: &RequestBody) -> Outcome<Reply> {
    check_body(task.request, body)?;
    let wanted = parse_list(&body.joined())?;
    let metadata = sent_metadata(task.request)?;
    let content_headers = sent_content_headers(task.request)?;
    let conditions = Conditions::of(task.request)?;
    task.refuse_snapshot()?;

    let blob = task.container()?.blob_or_new(&task.request.target.blob);
    let mut blob = blob.lock();
    task.check_overwrite(&blob, &conditions)?;
    blob.refuse_pages()?;
    let content = Content::Block(chosen(&blob, &wanted)?);
    let tick = task.service.clock.tick();
    let version = Version {
        content,
        content_headers,
        metadata,
        sequence_number: 0,
        created: blob.live.as_ref().map_or(tick, |live| live.created),
        etag: tick,
        last_modified: tick,
        incarnation: tick,
        copy: None,
    };
    let mut reply = Reply::new(StatusCode::CREATED)
        .with_validators(&version)
        .with("x-ms-request-server-encrypted", "true");
    show_checksum(&mut reply, task.request, body, false);
    blob.overwrite(version, task.now);
    Ok(reply)
}

/// The blocks that are wanted, from where they are wanted.
fn chosen(blob: &Blob, wanted: &[(Wanted, BlockId)]) -> Outcome<BlockContent> {
    let committed = match blob.live.as_ref().map(|live| &live.content) {
        Some(Content::Block(content)) => content.blocks(),
        _ => BTreeMap::new(),
    };
    let find = |(from, id): &(Wanted, BlockId)| {
        let (old, new) = (committed.get(id), blob.staged.get(id));
        let found = match from {
            Wanted::Committed => old,
            Wanted::Uncommitted => new,
            Wanted::Latest => new.or(old),
        };
        found.map(|data| (id.clone(), data.clone())).ok_or_else(|| ErrorCode::InvalidBlockList.into())
    };
    let blocks = wanted.iter().map(find).collect::<Outcome<Vec<_>>>()?;
    Ok(BlockContent::of_blocks(blocks))
}

/// Reads the body of Put Block List.
fn parse_list(body: &[u8]) -> Outcome<Vec<(Wanted, BlockId)>> {
    let malformed = || Failure::from(ErrorCode::InvalidXmlDocument);
    let text = std::str::from_utf8(body).map_err(|_| malformed())?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let (mut wanted, mut content, mut closed) = (Vec::new(), String::new(), false);
    loop {
        match reader.read_event().map_err(|_| malformed())? {
            Event::Start(_) => content.clear(),
            Event::Text(text) => content.push_str(&text),
            Event::End(element) => match element.name().as_ref() {
                "BlockList" => closed = true,
                name => wanted.push((wanted_from(name).ok_or_else(malformed)?, parse_id(&content)?)),
            },
            Event::Empty(element) if element.name().as_ref() == "BlockList" => closed = true,
            Event::Eof if closed => break,
            Event::Empty(_) | Event::GeneralRef(_) | Event::CData(_) | Event::Eof => return Err(malformed()),
            _ => {}
        }
    }
    if wanted.len() > LIST_LIMIT {
        return Err(ErrorCode::BlockListTooLong.into());
    }
    if wanted.iter().any(|(_, id)| id.len() != wanted[0].1.len()) {
        return Err(ErrorCode::InvalidBlobOrBlock.into());
    }
    Ok(wanted)
}

fn wanted_from(name: &str) -> Option<Wanted> {
    match name {
        "Committed" => Some(Wanted::Committed),
        "Uncommitted" => Some(Wanted::Uncommitted),
        "Latest" => Some(Wanted::Latest),
        _ => None,
    }
}

fn parse_id(text: &str) -> Outcome<BlockId> {
    let id = BASE64_STANDARD.decode(text.trim()).ok().filter(|id| !id.is_empty());
    id.ok_or_else(|| ErrorCode::InvalidBlockId.into())
}

/// Shows the blocks of a blob or a snapshot, those that wait, or both. A blob that has only blocks that wait is shown.
pub(super) fn get_block_list(task: &Task<'_>) -> Outcome<Reply> {
    let name = "blocklisttype";
    let kind = task.request.param(name).filter(|kind| !kind.is_empty()).unwrap_or("committed").to_lowercase();
    let (with_committed, with_staged) = match kind.as_str() {
        "committed" => (true, false),
        "uncommitted" => (false, true),
        "all" => (true, true),
        _ => return Err(Failure::bad_parameter(name, &kind, "The kind of list is unknown.")),
    };
    let is_snapshot = task.request.snapshot()?.is_some();
    let blob = task.blob()?;
    let blob = blob.lock();
    let only_staged = blob.live.is_none() && !blob.staged.is_empty() && !is_snapshot;
    let version = if only_staged { None } else { Some(task.readable(&blob)?) };
    let content = match version.map(|version| &version.content) {
        Some(Content::Pages(_)) => return Err(ErrorCode::InvalidBlobType.into()),
        Some(Content::Block(content)) => Some(content),
        None => None,
    };
    let mut xml = "<BlockList>".to_owned();
    if with_committed {
        let blocks = content.into_iter().flat_map(BlockContent::list);
        add_blocks(&mut xml, "CommittedBlocks", blocks.map(|(id, length)| (id, *length)));
    }
    if with_staged {
        let blocks = blob.staged.iter().filter(|_| !is_snapshot);
        add_blocks(&mut xml, "UncommittedBlocks", blocks.map(|(id, data)| (id, data.len())));
    }
    xml.push_str("</BlockList>");
    let mut reply = Reply::listing(&xml);
    if let Some(version) = version {
        reply = reply.with_validators(version);
    }
    Ok(reply.with("x-ms-blob-content-length", content.map_or(0, BlockContent::len).to_string()))
}

fn add_blocks<'b>(xml: &mut String, name: &str, blocks: impl Iterator<Item = (&'b BlockId, usize)>) {
    // Writing to a string cannot fail.
    let _ = write!(xml, "<{name}>");
    for (id, length) in blocks {
        let id = BASE64_STANDARD.encode(id);
        let _ = write!(xml, "<Block><Name>{id}</Name><Size>{length}</Size></Block>");
    }
    let _ = write!(xml, "</{name}>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<(Wanted, BlockId)>, ErrorCode> {
        parse_list(text.as_bytes()).map_err(|failure| failure.code)
    }

    #[test]
    fn a_block_list_is_read_in_its_order() {
        let xml = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<BlockList>\n<Latest>AQ==</Latest>\
             <Committed>Ag==</Committed>\n <Uncommitted>AQ==</Uncommitted></BlockList>";
        let expected =
            [(Wanted::Latest, vec![1]), (Wanted::Committed, vec![2]), (Wanted::Uncommitted, vec![1])];
        assert_eq!(parse(xml), Ok(expected.to_vec()));
        assert_eq!(parse("<BlockList/>"), Ok(vec![]));
        assert_eq!(parse("<BlockList></BlockList>"), Ok(vec![]));
    }

    #[test]
    fn what_is_no_block_list_is_refused() {
        let list = |inside: &str| format!("<BlockList>{inside}</BlockList>");
        for (xml, code) in [
            (String::new(), ErrorCode::InvalidXmlDocument),
            ("<BlockList>".to_owned(), ErrorCode::InvalidXmlDocument),
            ("<BlockList><Latest>AQ==</Latest>".to_owned(), ErrorCode::InvalidXmlDocument),
            (list("<Newest>AQ==</Newest>"), ErrorCode::InvalidXmlDocument),
            (list("<Latest/>"), ErrorCode::InvalidXmlDocument),
            (list("<Latest></Latest>"), ErrorCode::InvalidBlockId),
            (list("<Latest>x</Latest>"), ErrorCode::InvalidBlockId),
            (list("<Latest>AQ==</Latest><Latest>AQE=</Latest>"), ErrorCode::InvalidBlobOrBlock),
            (list(&"<Latest>AQ==</Latest>".repeat(50_001)), ErrorCode::BlockListTooLong),
        ] {
            assert_eq!(parse(&xml), Err(code), "{}", xml.get(..80).unwrap_or(&xml));
        }
    }
}
