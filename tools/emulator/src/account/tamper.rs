//! Tools of tests: damage that no call did, and that nothing tells of.

use super::Account;
use crate::clock::Moment;
use crate::store::blob::Version;

impl Account {
    /// Bit rot: flips bit `bit` (0 to 7, the lowest is 0) of a byte of a blob, or of the snapshot of it with that time.
    ///
    /// Only the stored bytes of that one version differ afterwards. No ETag, time, sequence number or stored checksum
    /// changes, and no difference of page lists tells of it; the other versions keep their bytes although they share
    /// pages with it. A page that held nothing is allocated by it, in that version only.
    ///
    /// Returns whether there is such a byte and such a bit; if not, nothing is changed.
    pub fn flip_bit(&self, container: &str, blob: &str, snapshot: Option<&str>, byte: u64, bit: u8) -> bool {
        let flip = |version: &mut Version| version.content.flip_bit(byte, bit);
        bit < 8 && self.tamper(container, blob, snapshot, flip).unwrap_or(false)
    }

    /// Changes or adds a value of the metadata of a blob, or of the snapshot of it with that time, as silently as
    /// [`Account::flip_bit`] does, and without a look at whether it is one that could be sent. The key is in lower case.
    ///
    /// Returns whether there is such a blob.
    pub fn set_metadata_raw(
        &self,
        container: &str,
        blob: &str,
        snapshot: Option<&str>,
        key: &str,
        value: &str,
    ) -> bool {
        let set = |version: &mut Version| drop(version.metadata.insert(key.to_owned(), value.to_owned()));
        self.tamper(container, blob, snapshot, set).is_some()
    }

    fn tamper<T>(
        &self,
        container: &str,
        blob: &str,
        snapshot: Option<&str>,
        act: impl FnOnce(&mut Version) -> T,
    ) -> Option<T> {
        let time = match snapshot {
            Some(text) => Some(Moment::from_iso(text)?),
            None => None,
        };
        let blob = self.entry.container(container)?.blob(blob)?;
        blob.lock().version_mut(time).map(act)
    }
}
