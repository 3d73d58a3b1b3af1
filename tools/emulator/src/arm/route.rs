//! What the path of a management request addresses, and which call it is.

use hyper::Method;

use super::resource::{Kind, ResourceId};
use crate::call::Call;
use crate::error::Outcome;
use crate::request::{Target, decode};

/// What a management request addresses. An absent part is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) call: Call,
    pub(crate) subscription: String,
    pub(crate) group: String,
    /// The provider and its resource type, as they are spelt.
    pub(crate) resource_type: String,
    /// Of the resource; of an operation its id.
    pub(crate) name: String,
}

impl Route {
    /// Reads a path. Fixed parts are compared without case.
    pub(crate) fn parse(method: &Method, path: &str) -> Outcome<Route> {
        let parts = path.trim_matches('/').split('/').map(decode).collect::<Outcome<Vec<String>>>()?;
        let lower: Vec<String> = parts.iter().map(|part| part.to_ascii_lowercase()).collect();
        let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
        let at = |index: usize| parts.get(index).cloned().unwrap_or_default();
        let joined = |range: std::ops::Range<usize>| parts.get(range).unwrap_or_default().join("/");
        let (call, group, resource_type, name) = match lower[..] {
            ["msi", "token"] => (identity_call(method), String::new(), String::new(), String::new()),
            ["subscriptions", _, "providers", "microsoft.compute", "locations", _, "diskoperations", _] => {
                let call = if method == Method::GET { Call::ArmPoll } else { Call::Unsupported };
                (call, String::new(), joined(3..5), at(7))
            }
            ["subscriptions", _, "providers", provider, kind] => {
                (list_call(method, provider, kind), String::new(), joined(3..5), String::new())
            }
            ["subscriptions", _, "resourcegroups", _, "providers", provider, kind] => {
                (list_call(method, provider, kind), at(3), joined(5..7), String::new())
            }
            ["subscriptions", _, "resourcegroups", _, "providers", provider, kind, _] => {
                (resource_call(method, provider, kind, ""), at(3), joined(5..7), at(7))
            }
            ["subscriptions", _, "resourcegroups", _, "providers", provider, kind, _, action] => {
                (resource_call(method, provider, kind, action), at(3), joined(5..7), at(7))
            }
            _ => (Call::Unsupported, String::new(), String::new(), String::new()),
        };
        Ok(Route { call, subscription: at(1), group, resource_type, name })
    }

    /// The id of a disk or a snapshot, and the subscription that it names.
    pub(crate) fn parse_id(text: &str) -> Option<(String, ResourceId)> {
        let route = Route::parse(&Method::GET, text).ok()?;
        let kind = match route.call {
            Call::ArmGetDisk => Kind::Disks,
            Call::ArmGetSnapshot => Kind::Snapshots,
            _ => return None,
        };
        Some((route.subscription, ResourceId { kind, group: route.group, name: route.name }))
    }

    /// For faults and records.
    pub(crate) fn target(&self) -> Target {
        Target { account: String::new(), container: self.group.clone(), blob: self.name.clone() }
    }

    /// What whoever makes the call must be allowed to do.
    pub(super) fn action(&self) -> &'static str {
        match self.call {
            Call::ArmListSnapshots | Call::ArmGetSnapshot => "Microsoft.Compute/snapshots/read",
            Call::ArmPutSnapshot | Call::ArmPatchSnapshot => "Microsoft.Compute/snapshots/write",
            Call::ArmDeleteSnapshot => "Microsoft.Compute/snapshots/delete",
            Call::BeginGetAccess => "Microsoft.Compute/snapshots/beginGetAccess/action",
            Call::EndGetAccess => "Microsoft.Compute/snapshots/endGetAccess/action",
            Call::ArmListDisks | Call::ArmGetDisk => "Microsoft.Compute/disks/read",
            Call::ArmPutDisk | Call::ArmPatchDisk => "Microsoft.Compute/disks/write",
            Call::ArmDeleteDisk => "Microsoft.Compute/disks/delete",
            Call::DiskBeginGetAccess => "Microsoft.Compute/disks/beginGetAccess/action",
            Call::DiskEndGetAccess => "Microsoft.Compute/disks/endGetAccess/action",
            Call::ArmGetAccount => "Microsoft.Storage/storageAccounts/read",
            Call::ArmPoll => "Microsoft.Compute/locations/diskOperations/read",
            _ => "",
        }
    }
}

fn identity_call(method: &Method) -> Call {
    if method == Method::GET { Call::IdentityToken } else { Call::Unsupported }
}

fn list_call(method: &Method, provider: &str, kind: &str) -> Call {
    match (method.as_str(), provider, kind) {
        ("GET", "microsoft.compute", "snapshots") => Call::ArmListSnapshots,
        ("GET", "microsoft.compute", "disks") => Call::ArmListDisks,
        _ => Call::Unsupported,
    }
}

fn resource_call(method: &Method, provider: &str, kind: &str, action: &str) -> Call {
    match (provider, method.as_str(), kind, action) {
        ("microsoft.compute", "GET", "snapshots", "") => Call::ArmGetSnapshot,
        ("microsoft.compute", "PUT", "snapshots", "") => Call::ArmPutSnapshot,
        ("microsoft.compute", "PATCH", "snapshots", "") => Call::ArmPatchSnapshot,
        ("microsoft.compute", "DELETE", "snapshots", "") => Call::ArmDeleteSnapshot,
        ("microsoft.compute", "POST", "snapshots", "begingetaccess") => Call::BeginGetAccess,
        ("microsoft.compute", "POST", "snapshots", "endgetaccess") => Call::EndGetAccess,
        ("microsoft.compute", "GET", "disks", "") => Call::ArmGetDisk,
        ("microsoft.compute", "PUT", "disks", "") => Call::ArmPutDisk,
        ("microsoft.compute", "PATCH", "disks", "") => Call::ArmPatchDisk,
        ("microsoft.compute", "DELETE", "disks", "") => Call::ArmDeleteDisk,
        ("microsoft.compute", "POST", "disks", "begingetaccess") => Call::DiskBeginGetAccess,
        ("microsoft.compute", "POST", "disks", "endgetaccess") => Call::DiskEndGetAccess,
        ("microsoft.storage", "GET", "storageaccounts", "") => Call::ArmGetAccount,
        _ => Call::Unsupported,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_are_calls_whatever_their_case() {
        let group = "/subscriptions/s/resourceGroups/G/providers/Microsoft.Compute";
        for (method, path, call, name) in [
            (
                "GET",
                "/subscriptions/s/providers/Microsoft.Compute/snapshots".to_owned(),
                Call::ArmListSnapshots,
                "",
            ),
            ("GET", format!("{group}/snapshots"), Call::ArmListSnapshots, ""),
            ("GET", format!("{group}/disks"), Call::ArmListDisks, ""),
            ("GET", format!("{group}/snapshots/a%20b"), Call::ArmGetSnapshot, "a b"),
            ("PUT", format!("{group}/SNAPSHOTS/A"), Call::ArmPutSnapshot, "A"),
            ("PATCH", format!("{group}/snapshots/a"), Call::ArmPatchSnapshot, "a"),
            ("DELETE", format!("{group}/snapshots/a"), Call::ArmDeleteSnapshot, "a"),
            ("POST", format!("{group}/snapshots/a/beginGetAccess"), Call::BeginGetAccess, "a"),
            ("POST", format!("{group}/snapshots/a/ENDgetaccess"), Call::EndGetAccess, "a"),
            ("PUT", format!("{group}/disks/a"), Call::ArmPutDisk, "a"),
            ("DELETE", format!("{group}/disks/a"), Call::ArmDeleteDisk, "a"),
            ("PATCH", format!("{group}/disks/a"), Call::ArmPatchDisk, "a"),
            ("POST", format!("{group}/disks/a/beginGetAccess"), Call::DiskBeginGetAccess, "a"),
            ("POST", format!("{group}/disks/a/endGetAccess"), Call::DiskEndGetAccess, "a"),
            ("POST", format!("{group}/disks/a/restart"), Call::Unsupported, "a"),
            ("GET", format!("{group}/images"), Call::Unsupported, ""),
            ("POST", format!("{group}/snapshots/a"), Call::Unsupported, "a"),
            (
                "GET",
                "/subscriptions/s/providers/Microsoft.Compute/locations/here/DiskOperations/7".to_owned(),
                Call::ArmPoll,
                "7",
            ),
            (
                "GET",
                "/subscriptions/s/resourceGroups/G/providers/Microsoft.Storage/storageAccounts/a".to_owned(),
                Call::ArmGetAccount,
                "a",
            ),
            ("GET", "/msi/token".to_owned(), Call::IdentityToken, ""),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let route = Route::parse(&method, &path).unwrap();
            assert_eq!((route.call, route.name.as_str()), (call, name), "{method} {path}");
        }
    }

    #[test]
    fn ids_are_read() {
        let id = "/Subscriptions/S/resourcegroups/G/providers/microsoft.compute/Disks/D";
        let (subscription, name) = Route::parse_id(id).unwrap();
        assert_eq!(subscription, "S");
        assert_eq!(name, ResourceId { kind: Kind::Disks, group: "G".into(), name: "D".into() });
        assert_eq!(name.key(), ("g".into(), "d".into()));
        for wrong in ["", "/", "D", &format!("{id}/beginGetAccess"), "/subscriptions/S"] {
            assert_eq!(Route::parse_id(wrong), None, "{wrong}");
        }
    }
}
