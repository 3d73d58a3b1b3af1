//! What can be set: where to listen, and knobs for behaviour that is unknown or that differs between accounts.

use std::net::{Ipv4Addr, SocketAddr};

use crate::link::Link;

/// How to start an emulator.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; only a loopback address is taken. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// Account keys, the names of exported disks, request ids and the chances of faults are derived from this.
    pub seed: u64,
    /// Behaviour where the service's own is unknown, or to be made hard for a client.
    pub knobs: Knobs,
    /// How far away and how limited the service is.
    pub link: Link,
    /// Keep a record of the latest requests, see `Emulator::requests`.
    pub record: bool,
    /// Serve HTTPS instead of HTTP, with a certificate made at the start, see `Emulator::certificate_pem`.
    pub tls: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            seed: 0,
            knobs: Knobs::default(),
            link: Link::default(),
            record: false,
            tls: false,
        }
    }
}

/// Behaviour where two answers of the service are plausible, and behaviour that a careless client trips over.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is an independent switch of the service")]
pub struct Knobs {
    /// Bytes in which a diff tracks changes: a multiple of 512, other values are rounded up. A granule with any change
    /// is reported whole: as clear if nothing of it is left, as data otherwise.
    pub diff_granularity: u64,
    /// Whether a page that was cleared since the older snapshot, and held nothing there, is reported as clear.
    pub clear_of_unwritten_reported: bool,
    /// Whether a diff over a growth reports the page of the old footer, which became empty.
    pub old_footer_reported: bool,
    /// Whether a diff over a growth reports the page of the new footer.
    pub new_footer_reported: bool,
    /// Whether export accounts serve `x-ms-range-get-content-crc64` (else 400 `UnsupportedHeader`).
    pub range_crc_on_export: bool,
    /// Whether Put Page without a checksum returns `Content-MD5` instead of `x-ms-content-crc64`.
    pub put_page_returns_md5: bool,
    /// Whether Put Page From URL without a checksum returns `x-ms-content-crc64` instead of `Content-MD5`.
    pub put_page_from_url_returns_crc64: bool,
    /// Whether Put Page From URL and Copy Blob refuse the snapshots of managed disks as a source, because those look like
    /// incremental copies (409 `CopySourceCannotBeIncrementalCopyBlob`).
    pub copy_from_incremental_refused: bool,
    /// Whether bearer tokens have no rights on ordinary accounts (403 `AuthorizationPermissionMismatch`).
    pub bearer_without_rights: bool,
    /// Cut ranges of page lists at multiples of this many bytes, so that clients cannot rely on merged ranges.
    pub page_list_cut: Option<u64>,
    /// A page list that would hold more elements than this fails with 500 `OperationTimedOut`.
    pub page_list_timeout_elements: Option<usize>,
    /// How many elements of a page list one reply holds if the client did not ask for a number.
    pub default_maxresults: Option<usize>,
    /// Whether a page list refuses a range that is not made of whole pages (400), instead of rounding it outwards.
    pub page_list_range_must_align: bool,
    /// Whether a page list refuses a range that ends past the blob's end (416), instead of cutting it.
    pub page_list_range_must_fit: bool,
    /// Whether the host of a disk's upload takes `x-ms-content-crc64`, and returns it (else 400 `UnsupportedHeader`, and
    /// replies without a checksum). What the service does is not known, of this and of the next.
    pub upload_takes_crc64: bool,
    /// Whether what was uploaded to a disk can be read with the SAS for writing: Get Blob, Get Blob Properties, Get Page
    /// Ranges (else 403 `AuthorizationPermissionMismatch`).
    pub upload_can_be_read: bool,
    /// Whether export accounts ask for a bearer token besides the SAS, as Entra-secured disks do.
    pub export_needs_bearer: bool,
}

impl Default for Knobs {
    fn default() -> Knobs {
        Knobs {
            diff_granularity: 512,
            clear_of_unwritten_reported: false,
            old_footer_reported: false,
            new_footer_reported: true,
            range_crc_on_export: true,
            put_page_returns_md5: false,
            put_page_from_url_returns_crc64: false,
            copy_from_incremental_refused: false,
            bearer_without_rights: false,
            page_list_cut: None,
            page_list_timeout_elements: None,
            default_maxresults: None,
            page_list_range_must_align: false,
            page_list_range_must_fit: false,
            upload_takes_crc64: true,
            upload_can_be_read: false,
            export_needs_bearer: false,
        }
    }
}
