//! Where base blobs are kept: one blob, or a container in which each disk has its own.

use super::resource::{PlainHttp, Resource, Role, is_address};
use crate::error::Result;

/// A base blob, or the container for it.
#[derive(Clone, Debug)]
pub enum Destination {
    /// This blob.
    Blob(Resource),
    /// A blob in this container, named after the disk.
    Container(ContainerUrl),
}

/// The URL of a container with its SAS. `Debug` shows no SAS.
#[derive(Clone)]
pub struct ContainerUrl {
    /// Without a slash at its end.
    address: String,
    query: String,
    plain: PlainHttp,
}

impl std::fmt::Debug for ContainerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ContainerUrl({})", self.address)
    }
}

impl Destination {
    /// Reads the URL of a blob or of a container.
    ///
    /// # Errors
    /// As [`Resource::parse`].
    pub fn parse(text: &str, plain: PlainHttp) -> Result<Self> {
        let (address, query) = text.trim().split_once('?').unwrap_or((text.trim(), ""));
        let is_container = url::Url::parse(address).is_ok_and(|url| {
            let segments =
                url.path_segments().map_or(0, |parts| parts.filter(|part| !part.is_empty()).count());
            segments == if is_address(&url) { 2 } else { 1 }
        });
        if !is_container {
            return Resource::parse(Role::Target, text, plain).map(Self::Blob);
        }
        let container = ContainerUrl {
            address: address.trim_end_matches('/').to_owned(),
            query: query.to_owned(),
            plain,
        };
        // Everything that can be wrong with it is told now, and not after the disk was looked for.
        container.blob("name")?;
        Ok(Self::Container(container))
    }

    /// The base blob of the disk that is called `name` in a container.
    pub fn blob(&self, name: &str) -> Result<Resource> {
        match self {
            Self::Blob(blob) => Ok(blob.clone()),
            Self::Container(container) => container.blob(name),
        }
    }

    /// Whether the URL carries a SAS.
    pub fn is_signed(&self) -> bool {
        self.blob("name").is_ok_and(|blob| blob.is_signed())
    }
}

impl ContainerUrl {
    fn blob(&self, name: &str) -> Result<Resource> {
        let separator = if self.query.is_empty() { "" } else { "?" };
        let text = format!("{}/{name}{separator}{}", self.address, self.query);
        Resource::parse(Role::Target, &text, self.plain)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_container_gets_a_blob_for_each_disk_and_a_blob_stays_what_it_is() {
        let at = |text: &str| {
            Destination::parse(text, PlainHttp::LoopbackOnly).unwrap().blob("web-1.vhd").unwrap()
        };
        let host = "https://a.blob.core.windows.net";
        assert_eq!(at(&format!("{host}/disks?sig=x%2B")).to_string(), format!("{host}/disks/web-1.vhd"));
        assert_eq!(at(&format!("{host}/disks/?sig=x")).expose_url(), format!("{host}/disks/web-1.vhd?sig=x"));
        assert_eq!(at(&format!("{host}/disks/other?sig=x")).to_string(), format!("{host}/disks/other"));
        assert_eq!(
            at("http://127.0.0.1:1/acc/disks?sig=x").to_string(),
            "http://127.0.0.1:1/acc/disks/web-1.vhd"
        );
        for bad in
            ["https://a.blob.core.windows.net?sig=x", "http://127.0.0.1:1/acc", "disks", "http://far/disks"]
        {
            assert!(Destination::parse(bad, PlainHttp::LoopbackOnly).is_err(), "{bad}");
        }
        let shown = format!(
            "{:?}",
            Destination::parse(&format!("{host}/disks?sig=secret"), PlainHttp::LoopbackOnly).unwrap()
        );
        assert!(!shown.contains("secret"), "{shown}");
    }
}
