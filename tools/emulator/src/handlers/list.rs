//! List Blobs and List Containers.

use std::fmt::Write as _;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use quick_xml::escape::escape;

use super::Task;
use crate::clock::Moment;
use crate::error::{Failure, Outcome};
use crate::reply::Reply;
use crate::request::Request;
use crate::store::blob::{Blob, Content, Version};

/// The most entries of one reply.
const MAXRESULTS_LIMIT: usize = 5000;

/// An entry's place in the list: by name, snapshots from old to new before the blob itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    name: String,
    /// So that the blob itself comes last.
    is_live: bool,
    snapshot: Option<Moment>,
}

impl Place {
    fn new(name: &str, snapshot: Option<Moment>) -> Place {
        Place { name: name.to_owned(), is_live: snapshot.is_none(), snapshot }
    }

    fn marker(&self) -> String {
        let time = self.snapshot.map(Moment::snapshot_text).unwrap_or_default();
        let inner = BASE64_STANDARD.encode(format!("{}\n{time}", self.name));
        format!("2!{}!{inner}", inner.len())
    }

    fn from_marker(text: &str) -> Option<Place> {
        let (_, inner) = text.strip_prefix("2!")?.split_once('!')?;
        let inner = String::from_utf8(BASE64_STANDARD.decode(inner).ok()?).ok()?;
        let (name, time) = inner.rsplit_once('\n')?;
        let snapshot = if time.is_empty() { None } else { Some(Moment::from_iso(time)?) };
        Some(Place::new(name, snapshot))
    }
}

/// What entries show besides properties.
#[derive(Clone, Copy)]
struct Shown {
    metadata: bool,
    copy: bool,
}

/// One page of a list that is being filled.
struct Page {
    from: Option<Place>,
    most: usize,
    entries: String,
    count: usize,
    next: Option<Place>,
}

impl Page {
    fn of(request: &Request) -> Outcome<Page> {
        let from = match request.param("marker").filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => {
                let place = Place::from_marker(text);
                Some(
                    place
                        .ok_or_else(|| Failure::bad_parameter("marker", text, "The marker is malformed."))?,
                )
            }
        };
        let most = match request.param("maxresults") {
            None => MAXRESULTS_LIMIT,
            Some(text) => {
                let most = text.parse::<usize>().ok().filter(|most| *most > 0);
                let reason = "The value must be a positive number.";
                most.ok_or_else(|| Failure::bad_parameter("maxresults", text, reason))?.min(MAXRESULTS_LIMIT)
            }
        };
        Ok(Page { from, most, entries: String::new(), count: 0, next: None })
    }

    /// Adds an entry, unless it was on an earlier page or belongs on the next.
    fn add(&mut self, place: Place, entry: impl FnOnce() -> String) {
        let seen = self.from.as_ref().is_some_and(|from| place < *from);
        if seen || self.next.is_some() {
            return;
        }
        if self.count == self.most {
            self.next = Some(place);
            return;
        }
        self.count += 1;
        self.entries.push_str(&entry());
    }

    fn next_marker(&self) -> String {
        let marker = self.next.as_ref().map(Place::marker);
        marker
            .map_or_else(|| "<NextMarker/>".to_owned(), |marker| format!("<NextMarker>{marker}</NextMarker>"))
    }
}

pub(super) fn list_containers(task: &Task<'_>) -> Outcome<Reply> {
    let prefix = task.request.param("prefix").unwrap_or_default();
    let mut page = Page::of(task.request)?;
    for (name, container) in
        task.account.containers.read().iter().filter(|(name, _)| name.starts_with(prefix))
    {
        page.add(Place::new(name, None), || {
            let (time, etag) = (container.changed.http_text(), container.changed.etag_text());
            format!(
                "<Container><Name>{}</Name><Properties><Last-Modified>{time}</Last-Modified><Etag>\"{etag}\"</Etag>\
                 <LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState></Properties></Container>",
                escape(name.as_str())
            )
        });
    }
    let xml = format!(
        "<EnumerationResults ServiceEndpoint=\"{}/{}/\"><Prefix>{}</Prefix><Containers>{}</Containers>{}</EnumerationResults>",
        task.service.endpoint,
        task.account.name,
        escape(prefix),
        page.entries,
        page.next_marker()
    );
    Ok(Reply::listing(&xml))
}

pub(super) fn list_blobs(task: &Task<'_>) -> Outcome<Reply> {
    let request = task.request;
    let prefix = request.param("prefix").unwrap_or_default();
    let delimiter = request.param("delimiter").filter(|text| !text.is_empty());
    let includes: Vec<&str> = request.param("include").unwrap_or_default().split(',').collect();
    let with_snapshots = includes.contains(&"snapshots");
    let shown = Shown { metadata: includes.contains(&"metadata"), copy: includes.contains(&"copy") };
    if let Some(delimiter) = delimiter.filter(|_| with_snapshots) {
        return Err(Failure::bad_parameter(
            "delimiter",
            delimiter,
            "Snapshots cannot be listed with a delimiter.",
        ));
    }
    let mut page = Page::of(request)?;
    let mut last_group = String::new();
    for (name, blob) in task.container()?.blobs(prefix) {
        let blob = blob.lock();
        if let (Some(group), Some(_)) = (group(&name, prefix, delimiter), &blob.live) {
            if group != last_group {
                let entry = format!("<BlobPrefix><Name>{}</Name></BlobPrefix>", escape(group));
                group.clone_into(&mut last_group);
                page.add(Place::new(group, None), || entry);
            }
            continue;
        }
        if with_snapshots {
            for (time, version) in &blob.snapshots {
                page.add(Place::new(&name, Some(*time)), || {
                    entry(task, &name, Some(*time), &blob, version, shown)
                });
            }
        }
        if let Some(live) = &blob.live {
            page.add(Place::new(&name, None), || entry(task, &name, None, &blob, live, shown));
        }
        if page.next.is_some() {
            break;
        }
    }
    Ok(Reply::listing(&list_xml(task, prefix, delimiter, &page)))
}

/// The part of a name up to the first delimiter after the prefix, if it has one.
fn group<'n>(name: &'n str, prefix: &str, delimiter: Option<&str>) -> Option<&'n str> {
    let delimiter = delimiter?;
    let at = name.get(prefix.len()..)?.find(delimiter)?;
    name.get(..prefix.len() + at + delimiter.len())
}

fn list_xml(task: &Task<'_>, prefix: &str, delimiter: Option<&str>, page: &Page) -> String {
    let marker = task.request.param("marker").unwrap_or_default();
    let mut xml = format!(
        "<EnumerationResults ServiceEndpoint=\"{}/{}/\" ContainerName=\"{}\"><Prefix>{}</Prefix><Marker>{}</Marker>",
        task.service.endpoint,
        task.account.name,
        escape(task.request.target.container.as_str()),
        escape(prefix),
        escape(marker),
    );
    if task.request.param("maxresults").is_some() {
        // Writing to a string cannot fail, here and below.
        let _ = write!(xml, "<MaxResults>{}</MaxResults>", page.most);
    }
    if let Some(delimiter) = delimiter {
        let _ = write!(xml, "<Delimiter>{}</Delimiter>", escape(delimiter));
    }
    let _ = write!(xml, "<Blobs>{}</Blobs>{}</EnumerationResults>", page.entries, page.next_marker());
    xml
}

fn entry(
    task: &Task<'_>,
    name: &str,
    snapshot: Option<Moment>,
    blob: &Blob,
    version: &Version,
    shown: Shown,
) -> String {
    let mut xml = format!("<Blob><Name>{}</Name>", escape(name));
    if let Some(time) = snapshot {
        let _ = write!(xml, "<Snapshot>{}</Snapshot>", time.snapshot_text());
    }
    let _ = write!(
        xml,
        "<Properties><Creation-Time>{}</Creation-Time><Last-Modified>{}</Last-Modified><Etag>{}</Etag>\
         <Content-Length>{}</Content-Length>",
        version.created.http_text(),
        version.last_modified.http_text(),
        version.etag.etag_text(),
        version.content.len(),
    );
    let headers = &version.content_headers;
    let optional = [
        ("Content-Type", headers.content_type.as_deref().or(Some("application/octet-stream"))),
        ("Content-Encoding", headers.encoding.as_deref()),
        ("Content-Language", headers.language.as_deref()),
        ("Content-MD5", headers.md5.as_deref()),
        ("Cache-Control", headers.cache_control.as_deref()),
        ("Content-Disposition", headers.disposition.as_deref()),
    ];
    for (name, value) in optional {
        let _ = write!(xml, "<{name}>{}</{name}>", escape(value.unwrap_or_default()));
    }
    if let Content::Pages(_) = version.content {
        let number = version.sequence_number;
        let _ = write!(xml, "<x-ms-blob-sequence-number>{number}</x-ms-blob-sequence-number>");
    }
    let _ = write!(xml, "<BlobType>{}</BlobType>", version.content.type_text());
    if snapshot.is_none() {
        let state = blob.lease.state(task.now);
        let (status, state) = (state.status_text(), state.text());
        let _ = write!(xml, "<LeaseStatus>{status}</LeaseStatus><LeaseState>{state}</LeaseState>");
        if let Some(duration) = blob.lease.duration_text(task.now) {
            let _ = write!(xml, "<LeaseDuration>{duration}</LeaseDuration>");
        }
    }
    if let Some(copy) = version.copy.as_ref().filter(|_| shown.copy) {
        let (id, bytes, time) = (copy.id, copy.bytes, copy.completed.http_text());
        let source = escape(copy.source.as_str());
        let _ = write!(
            xml,
            "<CopyId>{id}</CopyId><CopyStatus>success</CopyStatus><CopySource>{source}</CopySource>\
             <CopyProgress>{bytes}/{bytes}</CopyProgress><CopyCompletionTime>{time}</CopyCompletionTime>",
        );
    }
    xml.push_str("<ServerEncrypted>true</ServerEncrypted></Properties>");
    if shown.metadata {
        xml.push_str("<Metadata>");
        for (name, value) in &version.metadata {
            let _ = write!(xml, "<{name}>{}</{name}>", escape(value.as_str()));
        }
        xml.push_str("</Metadata>");
    }
    xml.push_str("</Blob>");
    xml
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn snapshots_come_before_their_blob() {
        let time = |text| Moment::from_iso(text);
        let places = [
            Place::new("a", time("2026-01-01")),
            Place::new("a", time("2026-01-02")),
            Place::new("a", None),
            Place::new("a/b", time("2025-01-01")),
            Place::new("b", None),
        ];
        assert!(places.is_sorted());
        for place in places {
            assert_eq!(Place::from_marker(&place.marker()).unwrap(), place);
        }
    }

    #[test]
    fn names_are_grouped_at_the_first_delimiter() {
        assert_eq!(group("dir/a/b", "", Some("/")), Some("dir/"));
        assert_eq!(group("dir/a/b", "dir/", Some("/")), Some("dir/a/"));
        assert_eq!(group("dir/a", "dir/", Some("/")), None);
        assert_eq!(group("dir/a", "", None), None);
    }
}
