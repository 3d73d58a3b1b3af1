//! Disks and snapshots as Azure Resource Manager shows them (Microsoft.Compute, api-version 2024-03-02; fields as in
//! the models of azure-mgmt-compute).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::id::{ArmId, ArmKind};

/// A managed disk.
#[derive(Clone, Debug)]
pub struct ManagedDisk {
    /// Its id.
    pub id: ArmId,
    /// Tells it from a disk that had its name before.
    pub unique_id: Option<String>,
    /// Its region.
    pub location: String,
    /// Bytes, without a footer.
    pub size: Option<u64>,
    /// Bytes of a sector; 512 where the service says nothing.
    pub sector_size: u32,
    /// `ReadyToUpload`, `ActiveUpload`, `Unattached`, ...
    pub state: Option<String>,
    /// `Succeeded` when it can be used.
    pub provisioning_state: Option<String>,
    /// What its owner, and we, wrote on it.
    pub tags: BTreeMap<String, String>,
}

impl ManagedDisk {
    /// Whether it waits for its content.
    pub fn awaits_upload(&self) -> bool {
        let is = |state: &str| self.state.as_deref().is_some_and(|ours| ours.eq_ignore_ascii_case(state));
        is("ReadyToUpload") || is("ActiveUpload")
    }

    /// Whether the service is done with what was asked of it last.
    pub fn is_settled(&self) -> bool {
        self.provisioning_state.as_deref().is_none_or(|state| state.eq_ignore_ascii_case("Succeeded"))
    }

    /// Whether it will never be whole.
    pub fn has_failed(&self) -> bool {
        self.provisioning_state.as_deref().is_some_and(is_failure)
    }
}

/// A snapshot of a managed disk.
#[derive(Clone, Debug)]
pub struct ManagedSnapshot {
    /// Its id.
    pub id: ArmId,
    /// Tells it from a snapshot that had its name before.
    pub unique_id: Option<String>,
    /// Its region.
    pub location: String,
    /// When it was made: the order of a family.
    pub created: Option<Timestamp>,
    /// Bytes of the disk, without a footer.
    pub size: Option<u64>,
    /// Whether it is incremental; full snapshots cannot be diffed.
    pub incremental: bool,
    /// Snapshots of one family can be diffed.
    pub family: Option<String>,
    /// The id of the disk (or, of a managed copy, of the snapshot) that it was made of.
    pub source: Option<String>,
    /// The unique id of that disk.
    pub source_unique_id: Option<String>,
    /// `Copy`, `CopyStart`, ...
    pub create_option: Option<String>,
    /// Bytes of a sector; 512 where the service says nothing.
    pub sector_size: u32,
    /// `Succeeded` when it can be used.
    pub provisioning_state: Option<String>,
    /// `ActiveSAS` while a SAS is out.
    pub disk_state: Option<String>,
    /// Of a copy in the background; nothing or 100 when it is done.
    pub completion_percent: Option<f64>,
    /// Why that copy failed.
    pub copy_error: Option<String>,
}

impl ManagedSnapshot {
    /// Whether a SAS for it is out, whoever asked for it.
    pub fn has_active_sas(&self) -> bool {
        self.disk_state.as_deref().is_some_and(|state| state.to_ascii_lowercase().starts_with("activesas"))
    }

    /// Whether it is whole: made, and its copy in the background done.
    pub fn is_ready(&self) -> bool {
        let made =
            self.provisioning_state.as_deref().is_none_or(|state| state.eq_ignore_ascii_case("Succeeded"));
        made && self.completion_percent.is_none_or(|percent| percent >= 100.0)
    }

    /// Whether it will never be whole.
    pub fn has_failed(&self) -> bool {
        self.copy_error.is_some() || self.provisioning_state.as_deref().is_some_and(is_failure)
    }
}

fn is_failure(provisioning_state: &str) -> bool {
    ["failed", "canceled", "deleting"].iter().any(|bad| provisioning_state.eq_ignore_ascii_case(bad))
}

/// One page of a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    #[serde(default)]
    pub(super) value: Vec<serde_json::Value>,
    pub(super) next_link: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    id: String,
    #[serde(default)]
    location: String,
    tags: Option<BTreeMap<String, String>>,
    #[serde(default)]
    properties: Properties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Properties {
    time_created: Option<String>,
    disk_size_bytes: Option<u64>,
    unique_id: Option<String>,
    incremental: Option<bool>,
    incremental_snapshot_family_id: Option<String>,
    creation_data: CreationData,
    provisioning_state: Option<String>,
    disk_state: Option<String>,
    completion_percent: Option<f64>,
    copy_completion_error: Option<CopyError>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CreationData {
    create_option: Option<String>,
    source_resource_id: Option<String>,
    source_unique_id: Option<String>,
    logical_sector_size: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CopyError {
    error_code: String,
    error_message: String,
}

const USUAL_SECTOR: u32 = 512;

impl ManagedDisk {
    pub(super) fn read(value: serde_json::Value) -> Result<Self, String> {
        let wire: Wire = serde_json::from_value(value).map_err(|error| error.to_string())?;
        Ok(Self {
            id: ArmId::parse(ArmKind::Disk, &wire.id).map_err(|error| error.why().to_owned())?,
            unique_id: wire.properties.unique_id,
            location: wire.location,
            size: wire.properties.disk_size_bytes,
            sector_size: wire.properties.creation_data.logical_sector_size.unwrap_or(USUAL_SECTOR),
            state: wire.properties.disk_state,
            provisioning_state: wire.properties.provisioning_state,
            tags: wire.tags.unwrap_or_default(),
        })
    }
}

impl ManagedSnapshot {
    pub(super) fn read(value: serde_json::Value) -> Result<Self, String> {
        let wire: Wire = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let properties = wire.properties;
        let created = properties
            .time_created
            .map(|text| text.parse::<Timestamp>().map_err(|_| format!("timeCreated '{text}' is not a time")))
            .transpose()?;
        Ok(Self {
            id: ArmId::parse(ArmKind::Snapshot, &wire.id).map_err(|error| error.why().to_owned())?,
            unique_id: properties.unique_id,
            location: wire.location,
            created,
            size: properties.disk_size_bytes,
            incremental: properties.incremental.unwrap_or_default(),
            family: properties.incremental_snapshot_family_id,
            source: properties.creation_data.source_resource_id,
            source_unique_id: properties.creation_data.source_unique_id,
            create_option: properties.creation_data.create_option,
            sector_size: properties.creation_data.logical_sector_size.unwrap_or(USUAL_SECTOR),
            provisioning_state: properties.provisioning_state,
            disk_state: properties.disk_state,
            completion_percent: properties.completion_percent,
            copy_error: properties
                .copy_completion_error
                .map(|error| format!("{}: {}", error.error_code, error.error_message)),
        })
    }
}
