//! What kind of call a request is, and which kind of account it reaches.

use std::fmt;
use std::str::FromStr;

macro_rules! calls {
    ($($(#[$doc:meta])* $variant:ident $text:literal,)*) => {
        /// The calls that the emulator tells apart: the unit of statistics, of the request log and of scripted faults.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Call {
            $($(#[$doc])* $variant,)*
        }

        impl Call {
            /// All calls.
            pub const ALL: &'static [Call] = &[$(Call::$variant,)*];

            /// The call's name in text, such as `put-page`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Call::$variant => $text,)*
                }
            }
        }
    };
}

calls! {
    /// List Containers of an account.
    ListContainers "list-containers",
    /// Create Container.
    CreateContainer "create-container",
    /// Get Container Properties.
    ContainerProperties "container-properties",
    /// Delete Container.
    DeleteContainer "delete-container",
    /// List Blobs of a container.
    ListBlobs "list-blobs",
    /// Put Blob: create or replace a page blob or a block blob.
    PutBlob "put-blob",
    /// Put Block: send a block of a block blob.
    PutBlock "put-block",
    /// Put Block List: make a block blob of blocks.
    PutBlockList "put-block-list",
    /// Get Block List.
    GetBlockList "get-block-list",
    /// Put Page with `x-ms-page-write: update`.
    PutPage "put-page",
    /// Put Page with `x-ms-page-write: clear`.
    ClearPages "clear-pages",
    /// Put Page From URL.
    PutPageFromUrl "put-page-from-url",
    /// Get Blob.
    GetBlob "get-blob",
    /// Get Blob Properties.
    HeadBlob "head-blob",
    /// Get Page Ranges.
    PageRanges "page-ranges",
    /// Get Page Ranges against an older snapshot.
    PageRangesDiff "page-ranges-diff",
    /// Set Blob Properties: size, sequence number, content headers.
    SetProperties "set-properties",
    /// Set Blob Metadata.
    SetMetadata "set-metadata",
    /// Snapshot Blob.
    SnapshotBlob "snapshot-blob",
    /// Lease Blob, whatever the action.
    Lease "lease",
    /// Delete Blob.
    DeleteBlob "delete-blob",
    /// Copy Blob, and Copy Blob From URL.
    CopyBlob "copy-blob",
    /// Abort Copy Blob.
    AbortCopy "abort-copy",
    /// Incremental Copy Blob.
    IncrementalCopy "incremental-copy",
    /// List the managed snapshots of a resource group or of the subscription.
    ArmListSnapshots "arm-list-snapshots",
    /// Get a managed snapshot.
    ArmGetSnapshot "arm-get-snapshot",
    /// Create a managed snapshot.
    ArmPutSnapshot "arm-put-snapshot",
    /// Change a managed snapshot's tags.
    ArmPatchSnapshot "arm-patch-snapshot",
    /// Delete a managed snapshot.
    ArmDeleteSnapshot "arm-delete-snapshot",
    /// Ask for a SAS of a managed snapshot.
    BeginGetAccess "begin-get-access",
    /// End all SAS of a managed snapshot.
    EndGetAccess "end-get-access",
    /// List the managed disks of a resource group or of the subscription.
    ArmListDisks "arm-list-disks",
    /// Get a managed disk.
    ArmGetDisk "arm-get-disk",
    /// Create a managed disk.
    ArmPutDisk "arm-put-disk",
    /// Change a managed disk's tags.
    ArmPatchDisk "arm-patch-disk",
    /// Delete a managed disk.
    ArmDeleteDisk "arm-delete-disk",
    /// Ask for a SAS of a managed disk itself, to read it or to write an upload.
    DiskBeginGetAccess "disk-begin-get-access",
    /// End all SAS of a managed disk itself; of an upload, finish it.
    DiskEndGetAccess "disk-end-get-access",
    /// Get a storage account.
    ArmGetAccount "arm-get-account",
    /// Ask how a management operation is getting on.
    ArmPoll "arm-poll",
    /// Get a token of the managed identity.
    IdentityToken "identity-token",
    /// Anything else: answered with 501 `NotImplemented` or 405 `UnsupportedHttpVerb`.
    Unsupported "unsupported",
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The text names no call.
#[derive(Debug, thiserror::Error)]
#[error("no call is named '{0}'")]
pub struct UnknownCall(String);

impl FromStr for Call {
    type Err = UnknownCall;

    fn from_str(text: &str) -> Result<Call, UnknownCall> {
        let named = Call::ALL.iter().find(|call| call.name() == text);
        named.copied().ok_or_else(|| UnknownCall(text.to_owned()))
    }
}

/// What a request is made to: one of the two kinds of account, or the management of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// An `md-` account: it holds one managed disk's hidden blob, and lets clients read its snapshots.
    DiskExport,
    /// A storage account.
    Account,
    /// The Azure Resource Manager, and the endpoint that gives tokens for it.
    Management,
}

impl Role {
    /// The role that a request's path tells.
    pub(crate) fn of_path(path: &str) -> Role {
        let path = path.strip_prefix('/').unwrap_or(path);
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        let is_resource = first.eq_ignore_ascii_case("subscriptions") && !rest.is_empty();
        if is_resource || path.eq_ignore_ascii_case("msi/token") {
            return Role::Management;
        }
        Role::of_account(first)
    }

    /// The role that an account's name tells.
    pub fn of_account(name: &str) -> Role {
        if name.starts_with("md-") { Role::DiskExport } else { Role::Account }
    }
}
