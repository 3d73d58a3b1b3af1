//! A blob as the user named it: a URL whose SAS is a secret and is kept byte for byte.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use url::Url;

use super::reply::scrub;
use super::sas::{Rights, Sas};
use crate::error::{Error, ErrorKind, Result};

/// Which part a URL plays in a step; every message names it, because one step has up to three URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The newer snapshot, which is copied.
    Source,
    /// The older snapshot, against which the source is diffed.
    Previous,
    /// The base blob.
    Target,
    /// The host that a disk's content is uploaded to.
    Disk,
    /// Azure Resource Manager, which knows disks, snapshots and grants.
    Manager,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Previous => "previous",
            Self::Target => "target",
            Self::Disk => "disk",
            Self::Manager => "resource manager",
        })
    }
}

/// A blob or snapshot of a blob, with what is needed to reach it.
///
/// `Display` and `Debug` show scheme, host, path and snapshot time, never the rest of the query.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    role: Role,
    /// Scheme, host and path.
    base: Url,
    sas: Sas,
    snapshot: Option<String>,
    signed: bool,
}

/// Whether plain http may leave this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// Only to a loopback address (the default).
    #[default]
    LoopbackOnly,
    /// To any host: the user asked for it.
    Anywhere,
}

impl Resource {
    /// Reads a URL as the user gave it.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when it does not name one blob, or holds characters that would not reach the
    /// service as they are; [`ErrorKind::Insecure`] for plain http to another machine.
    pub fn parse(role: Role, text: &str, plain: PlainHttp) -> Result<Self> {
        let tried = format!("use the {role} URL");
        let usage = |why: &str| Error::new(ErrorKind::Usage, tried.clone(), why);
        let text = text.trim();
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        if scrub(address) != address {
            return Err(usage(
                "a signature stands in its path: the '?' before the SAS is missing or encoded",
            )
            .next("copy the URL again, and put it in quotes"));
        }
        let base = Url::parse(address)
            .map_err(|error| usage(&format!("it is not a URL: {error}")))
            .map_err(|error| {
                error.next("give the whole URL, https://<account>.blob.core.windows.net/<container>/<blob>, in quotes")
            })?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(usage("its scheme is neither https nor http"));
        }
        if base.host_str().is_none_or(str::is_empty) {
            return Err(usage("it names no host"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(usage("it holds a user name or a password; a SAS goes into the query"));
        }
        if address.contains('#') || query.contains('#') {
            return Err(usage("it holds a '#', which never reaches the service"));
        }
        // What the HTTP library would re-encode would no longer be the string that was signed.
        if !query.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>'`".contains(&byte)) {
            return Err(usage(
                "its query holds a blank, a quote or another character that must be percent-encoded",
            )
            .next("copy the SAS again: it was cut or changed on the way"));
        }
        let segments = base.path_segments().map_or(0, |parts| parts.filter(|part| !part.is_empty()).count());
        let path_style = is_address(&base);
        if segments < if path_style { 3 } else { 2 } {
            return Err(usage(
                "it names no blob: the path must hold a container and a blob (and before them the account, where the host is an address)",
            ));
        }
        if base.scheme() == "http" && plain == PlainHttp::LoopbackOnly && !is_loopback(&base) {
            return Err(Error::new(
                ErrorKind::Insecure,
                tried,
                "plain http would send the SAS and the disk in clear text to another machine",
            )
            .on(redact_url(&base))
            .next("use https://, or say --allow-http if the network between is trusted"));
        }
        let sas = Sas::fixed(query);
        let snapshots =
            url::form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == "snapshot").count();
        if snapshots > 1 {
            return Err(usage("it names more than one snapshot"));
        }
        let snapshot = sas.parameter("snapshot");
        let signed = sas.parameter("sig").is_some();
        if let Some(time) = &snapshot
            && !is_snapshot_time(time)
        {
            return Err(usage(
                "its snapshot parameter is not a snapshot time like 2026-01-31T12:00:00.1234567Z",
            ));
        }
        Ok(Self { role, base, sas, snapshot, signed })
    }

    /// The part that this URL plays.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The snapshot time in the URL, an opaque string as the service gave it; `None` for the blob itself.
    pub fn snapshot(&self) -> Option<&str> {
        self.snapshot.as_deref()
    }

    /// Whether the URL carries a SAS; without one, an Entra token is needed.
    pub fn is_signed(&self) -> bool {
        self.signed
    }

    /// Host (with port) and path without a scheme: what all snapshots of one disk have in common.
    pub fn location(&self) -> String {
        format!("{}{}", self.authority(), self.base.path())
    }

    /// The URL without its query.
    pub fn address(&self) -> &Url {
        &self.base
    }

    /// Whether this is the export of a managed disk: its host (or, with an IP address for a host, its account)
    /// begins with `md-`. (azcopy recognises them the same way.)
    pub fn is_managed_disk(&self) -> bool {
        let account = if is_address(&self.base) {
            self.base.path_segments().and_then(|mut parts| parts.next())
        } else {
            self.base.host_str()
        };
        account.is_some_and(|name| name.starts_with("md-"))
    }

    /// Whether requests stay on this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.base)
    }

    /// Whether an Entra token may be sent there: Azure's own host names over TLS, or this machine.
    ///
    /// The suffixes are those that azcopy trusts.
    pub fn may_see_token(&self) -> bool {
        const TRUSTED: [&str; 5] = [
            ".core.windows.net",
            ".core.chinacloudapi.cn",
            ".core.cloudapi.de",
            ".core.usgovcloudapi.net",
            ".storage.azure.net",
        ];
        let host = self.base.host_str().unwrap_or_default();
        self.is_loopback()
            || (self.base.scheme() == "https" && TRUSTED.iter().any(|suffix| host.ends_with(suffix)))
    }

    /// When the SAS says that it ends (`se`). Disk exports do not say (their end is kept by the service).
    pub fn expiry(&self) -> Option<jiff::Timestamp> {
        self.sas.parameter("se")?.parse().ok()
    }

    /// The URL of the container that the blob lies in, and the blob's name in it: what List Blobs asks for.
    pub(crate) fn container(&self) -> Option<(Url, String)> {
        let path = self.base.path().trim_start_matches('/');
        let parts = if is_address(&self.base) { 2 } else { 1 };
        let container: Vec<&str> = path.splitn(parts + 1, '/').collect();
        let (blob, container) = container.split_last()?;
        let mut url = self.base.clone();
        url.set_path(&container.join("/"));
        let name = percent_decode(blob)?;
        Some((url, name))
    }

    /// The blob's name in its container.
    pub(crate) fn blob_name(&self) -> String {
        self.container().map(|(_, name)| name).unwrap_or_default()
    }

    pub(crate) fn sas(&self) -> &Sas {
        &self.sas
    }

    /// The same snapshot with a SAS that `rights` renews when the service refuses it.
    #[must_use]
    pub fn kept_by(&self, rights: Arc<dyn Rights>) -> Self {
        Self { sas: Sas::kept(&self.sas.expose(), rights), ..self.clone() }
    }

    /// The same resource, with the same SAS, in another part.
    #[must_use]
    pub fn in_role(&self, role: Role) -> Self {
        Self { role, ..self.clone() }
    }

    /// The whole URL with its SAS. A secret: for the wire only.
    pub(crate) fn expose_url(&self) -> String {
        match &*self.sas.expose() {
            "" => self.base.to_string(),
            query => format!("{}?{query}", self.base),
        }
    }

    /// The same blob at one of its own snapshots. `self` must name the blob itself.
    #[must_use]
    pub fn at_snapshot(&self, time: &str) -> Self {
        let query = self.sas.expose();
        let separator = if query.is_empty() { "" } else { "&" };
        let encoded: String = url::form_urlencoded::byte_serialize(time.as_bytes()).collect();
        Self {
            sas: Sas::fixed(&format!("{query}{separator}snapshot={encoded}")),
            snapshot: Some(time.to_owned()),
            ..self.clone()
        }
    }

    /// Another blob of the same container, with the same SAS; `None` where the SAS is for this blob alone (`sr=b`, `bs`).
    pub(crate) fn beside(&self, name: &str) -> Option<Self> {
        if self.snapshot.is_some() || matches!(self.sas.parameter("sr").as_deref(), Some("b" | "bs" | "bv")) {
            return None;
        }
        let (mut base, _) = self.container()?;
        {
            let mut segments = base.path_segments_mut().ok()?;
            segments.pop_if_empty().extend(name.split('/'));
        }
        Some(Self { base, ..self.clone() })
    }

    fn authority(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        self.base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base.as_str())?;
        if let Some(time) = &self.snapshot {
            write!(f, "?snapshot={time}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resource({}: {self})", self.role)
    }
}

/// Seven fractional digits and a Z, as on the wire; fewer digits are let through, anything else is not.
fn is_snapshot_time(text: &str) -> bool {
    text.len() <= 40 && text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()
}

pub(super) fn is_address(url: &Url) -> bool {
    matches!(url.host(), Some(url::Host::Ipv4(_) | url::Host::Ipv6(_))) || url.host_str() == Some("localhost")
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(url::Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

fn redact_url(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

fn percent_decode(text: &str) -> Option<String> {
    let encoded = text.replace('+', "%2B");
    let pair = format!("x={encoded}");
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DISK: &str = "https://md-s1.z33.blob.storage.azure.net/htk1/abcd?snapshot=2021-08-05T20%3A58%3A06.9075559Z&sv=2018-11-09&sr=bs&si=00ff&sig=a%2Bb%3D";

    fn parse(text: &str) -> Result<Resource> {
        Resource::parse(Role::Source, text, PlainHttp::LoopbackOnly)
    }

    #[test]
    fn a_sas_query_is_kept_byte_for_byte() {
        let disk = parse(DISK).unwrap();
        assert_eq!(disk.expose_url(), DISK);
        assert_eq!(disk.snapshot(), Some("2021-08-05T20:58:06.9075559Z"));
        assert!(disk.is_managed_disk() && disk.is_signed() && disk.may_see_token());
        assert_eq!(disk.location(), "md-s1.z33.blob.storage.azure.net/htk1/abcd");
    }

    #[test]
    fn neither_display_nor_debug_shows_the_signature() {
        let disk = parse(DISK).unwrap();
        let shown = format!("{disk} {disk:?} {:?}", disk.sas());
        assert!(!shown.contains("a%2Bb") && !shown.contains("00ff"), "{shown}");
        assert!(shown.contains("snapshot=2021-08-05T20:58:06.9075559Z"));
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        let error = parse("http://account.blob.core.windows.net/c/b?sig=x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Insecure);
        assert!(parse("http://127.0.0.1:10000/account/c/b").is_ok());
        assert!(parse("http://[::1]:10000/account/c/b").is_ok());
        assert!(Resource::parse(Role::Source, "http://host/c/b", PlainHttp::Anywhere).is_ok());
    }

    #[test]
    fn what_is_not_the_url_of_a_blob_is_refused() {
        for text in [
            "",
            "md-s1/abcd",
            "ftp://host/c/b",
            "https://host/container",
            "http://127.0.0.1:1/account/container",
            "https://user:pass@host/c/b",
            "https://host/c/b?sig=a b",
            "https://host/c/b?snapshot=yesterday",
            "https://host/c/b?snapshot=2021-08-05T20:58:06.9075559Z&snapshot=2021-08-05T20:58:06.9075559Z",
            "https://host/c/b#x",
            "https://host/c/b&sv=1&sig=s3cr3t",
            "https://host/c/b%3Fsig%3Ds3cr3t",
        ] {
            assert_eq!(parse(text).unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
    }

    #[test]
    fn the_container_of_a_blob_is_found_in_both_url_styles() {
        let (url, name) =
            parse("https://a.blob.core.windows.net/c/dir/my%20b+c?sig=x").unwrap().container().unwrap();
        assert_eq!((url.as_str(), name.as_str()), ("https://a.blob.core.windows.net/c", "dir/my b+c"));
        let (url, name) = parse("http://127.0.0.1:1/a/c/b").unwrap().container().unwrap();
        assert_eq!((url.as_str(), name.as_str()), ("http://127.0.0.1:1/a/c", "b"));
    }
}
