//! The digest of a point: one number that changes when anything that snapferry says of the point does.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::azure::Metadata;

/// The digest of what stands in `metadata`, which names the digest of the point before.
pub(crate) fn of_metadata<'a>(fields: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let mut sha = Sha256::new();
    sha.update(b"snapferry point 1\n");
    for (name, value) in fields {
        // Lengths first: no two lists of fields read alike.
        sha.update(format!("{}:{name}{}:{value}", name.len(), value.len()));
    }
    hex(&sha.finalize())
}

/// Whether the digest in the metadata of a point is that of the rest; `None` when it carries none.
pub fn is_right(metadata: &Metadata) -> Option<bool> {
    let digest = metadata.get(FIELD)?;
    let rest = metadata.iter().filter(|(name, _)| name.starts_with("snapferry_") && *name != FIELD);
    Some(*digest == of_metadata(rest))
}

/// Where the digest stands.
pub(crate) const FIELD: &str = "snapferry_chain";

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
