//! Who a snapshot is in Azure Resource Manager. The URL of an export names snapshots too, but not in the words in which
//! the resource manager lists them; a base blob that remembers both can be brought up to date by `sync`.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Serialize;

/// The snapshot that a step leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// Its ARM id.
    pub snapshot: String,
    /// Its unique id: another snapshot of the same name has another one.
    pub unique_id: String,
    /// When the resource manager says that it was made: the order of a chain. The time in its URL is another one.
    pub created: Option<String>,
    /// The unique id of the snapshot that the step began at; `None` for a full copy.
    pub previous_unique_id: Option<String>,
    /// The unique id of the disk: a disk that was made anew under the same name has another one.
    pub disk_unique_id: Option<String>,
    /// The family.
    pub family: Option<String>,
}

impl Origin {
    /// Resource groups may have letters of any language in their names; metadata may not.
    pub(crate) fn encoded_snapshot(&self) -> String {
        const PLAIN: &percent_encoding::AsciiSet =
            &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.');
        utf8_percent_encode(&self.snapshot, PLAIN).to_string()
    }

    pub(crate) fn decoded_snapshot(text: &str) -> String {
        percent_decode_str(text).decode_utf8_lossy().into_owned()
    }
}
