//! The name of a disk, snapshot or storage account in Azure Resource Manager. Compared without case, as the service does.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::error::{Error, ErrorKind, Result};

/// What an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArmKind {
    /// `Microsoft.Compute/disks`
    Disk,
    /// `Microsoft.Compute/snapshots`
    Snapshot,
    /// `Microsoft.Storage/storageAccounts`
    StorageAccount,
}

impl ArmKind {
    fn segment(self) -> &'static str {
        match self {
            Self::Disk => "disks",
            Self::Snapshot => "snapshots",
            Self::StorageAccount => "storageAccounts",
        }
    }

    fn provider(self) -> &'static str {
        if self == Self::StorageAccount { "Microsoft.Storage" } else { "Microsoft.Compute" }
    }
}

impl fmt::Display for ArmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "disk",
            Self::Snapshot => "snapshot",
            Self::StorageAccount => "storage account",
        })
    }
}

/// `/subscriptions/<id>/resourceGroups/<group>/providers/<Microsoft.Compute|...>/<disks|snapshots|...>/<name>`
#[derive(Clone)]
pub struct ArmId {
    kind: ArmKind,
    subscription: String,
    group: String,
    name: String,
}

impl ArmId {
    /// An id from its parts, which are taken as they are.
    pub fn new(kind: ArmKind, subscription: &str, group: &str, name: &str) -> Self {
        Self { kind, subscription: subscription.to_owned(), group: group.to_owned(), name: name.to_owned() }
    }

    /// Reads the id of what must be of `kind`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`], with what is wrong and how to ask for the right one.
    pub fn parse(kind: ArmKind, text: &str) -> Result<Self> {
        let refuse = |why: String| {
            Err(Error::new(ErrorKind::Usage, format!("use the id of a {kind}"), why)
                .on(super::super::reply::scrub(text))
                .next(format!("az {kind} show --resource-group <group> --name <name> --query id -o tsv")))
        };
        let mut parts = text.trim().trim_end_matches('/').split('/');
        let mut next = || parts.next().unwrap_or_default();
        let (blank, subscriptions, subscription) = (next(), next(), next());
        let (groups, group, providers, provider, found, name) =
            (next(), next(), next(), next(), next(), next());
        let has_form = blank.is_empty()
            && subscriptions.eq_ignore_ascii_case("subscriptions")
            && groups.eq_ignore_ascii_case("resourceGroups")
            && providers.eq_ignore_ascii_case("providers");
        if !has_form || [subscription, group, provider, found, name].contains(&"") {
            return refuse(format!(
                "it is not /subscriptions/<id>/resourceGroups/<group>/providers/{}/{}/<name>",
                kind.provider(),
                kind.segment()
            ));
        }
        if parts.next().is_some() {
            return refuse("it names something inside another resource".to_owned());
        }
        if !provider.eq_ignore_ascii_case(kind.provider()) || !found.eq_ignore_ascii_case(kind.segment()) {
            return refuse(format!("it names a {provider}/{found}, not a {kind}"));
        }
        // Resource groups may have letters of all languages in their names; names of disks and snapshots may not.
        let plain =
            |text: &str| !text.chars().any(|c| c.is_control() || c.is_whitespace() || "?#%\\\"'".contains(c));
        let is_name = |text: &str| {
            text.len() <= 80 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        if !plain(subscription) || !plain(group) || group.chars().count() > 90 || !is_name(name) {
            return refuse(
                "a name in it holds characters that no such resource has, or is too long".to_owned(),
            );
        }
        Ok(Self::new(kind, subscription, group, name))
    }

    /// The name of a resource group, if it can be one.
    pub fn group_named(subscription: &str, group: &str) -> Result<String> {
        let text = format!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/snapshots/x"
        );
        Self::parse(ArmKind::Snapshot, &text).map(|id| id.group).map_err(|_| {
            Error::new(ErrorKind::Usage, "use the resource group", "it is no name of one")
                .on(super::super::reply::scrub(group))
                .next("az group list --query '[].name' -o tsv")
        })
    }

    /// What it names.
    pub fn kind(&self) -> ArmKind {
        self.kind
    }

    /// The subscription's id.
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    /// The resource group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The name of the resource itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn folded(&self) -> String {
        self.to_string().to_lowercase()
    }
}

impl PartialEq for ArmId {
    fn eq(&self, other: &Self) -> bool {
        self.folded() == other.folded()
    }
}

impl Eq for ArmId {}

impl Hash for ArmId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.folded().hash(state);
    }
}

impl fmt::Display for ArmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "/subscriptions/{}/resourceGroups/{}/providers/{}/{}/{}",
            self.subscription,
            self.group,
            self.kind.provider(),
            self.kind.segment(),
            self.name
        )
    }
}

impl fmt::Debug for ArmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for ArmId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DISK: &str = "/subscriptions/0b1f/resourceGroups/Prod/providers/Microsoft.Compute/disks/web-1";

    #[test]
    fn ids_are_compared_without_case() {
        let disk = ArmId::parse(ArmKind::Disk, DISK).unwrap();
        assert_eq!(disk.to_string(), DISK);
        assert_eq!(disk, ArmId::parse(ArmKind::Disk, &DISK.to_uppercase()).unwrap());
        assert_ne!(disk, ArmId::parse(ArmKind::Disk, &DISK.replace("web-1", "web-2")).unwrap());
    }

    #[test]
    fn a_storage_account_is_of_another_provider() {
        let text = "/subscriptions/0b1f/resourceGroups/Prod/providers/Microsoft.Storage/storageAccounts/web1";
        assert_eq!(ArmId::parse(ArmKind::StorageAccount, text).unwrap().to_string(), text);
        assert!(ArmId::parse(ArmKind::StorageAccount, DISK).is_err());
        assert!(ArmId::parse(ArmKind::Disk, &text.replace("storageAccounts", "disks")).is_err());
    }

    #[test]
    fn what_is_not_the_id_of_such_a_resource_is_refused() {
        for text in [
            "",
            "web-1",
            "subscriptions/0b1f/resourceGroups/p/providers/Microsoft.Compute/disks/web-1",
            "/subscriptions/0b1f/resourceGroups/p/providers/Microsoft.Compute/disks",
            "/subscriptions/0b1f/resourceGroups/p/providers/Microsoft.Compute/disks/",
            "/subscriptions/0b1f/resourceGroups//providers/Microsoft.Compute/disks/web-1",
            "/subscriptions/0b1f/resourceGroups/p/providers/Microsoft.Compute/disks/web-1/extra",
            "/subscriptions/0b1f/resourceGroups/p/providers/Microsoft.Compute/virtualMachines/web-1",
            "/subscriptions/0b1f/resourceGroups/p/providers/Microsoft.Compute/snapshots/monday",
            "/subscriptions/0b1f/resourceGroups/p?x=1/providers/Microsoft.Compute/disks/web-1",
            "/subscriptions/0b1f/resourceGroups/p/providers/Microsoft.Compute/disks/web 1",
        ] {
            assert_eq!(ArmId::parse(ArmKind::Disk, text).unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
    }
}
