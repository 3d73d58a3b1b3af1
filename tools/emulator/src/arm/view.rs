//! Disks and snapshots as their replies show them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::resource::{Creation, DiskEntry, Kind, ResourceId, SnapshotEntry};
use crate::clock::Moment;
use crate::service::Service;

const GIB: u64 = 1 << 30;

pub(super) fn disk(service: &Service, entry: &DiskEntry, now: Moment) -> Value {
    let properties = json!({
        "creationData": creation(&entry.creation, entry.sector_size),
        "diskSizeGB": entry.bytes().div_ceil(GIB),
        "diskSizeBytes": entry.bytes(),
        "diskState": entry.state_text(now),
        "encryption": { "type": "EncryptionAtRestWithPlatformKey" },
        "networkAccessPolicy": "AllowAll",
        "publicNetworkAccess": "Enabled",
        "provisioningState": "Succeeded",
        "timeCreated": entry.created.offset_text(),
        "uniqueId": entry.unique_id.to_string(),
    });
    resource(service, &entry.id, &entry.location, &entry.sku, &entry.tags(), properties)
}

pub(super) fn snapshot(service: &Service, entry: &SnapshotEntry, now: Moment) -> Value {
    let state = entry.state();
    let family: Option<String> = entry.family.as_ref().map(Uuid::to_string);
    let with_token = service.knobs().export_needs_bearer.then(|| "AzureActiveDirectory".to_owned());
    let error =
        state.copy_error.map(|text| json!({ "errorCode": "CopySourceNotFound", "errorMessage": text }));
    let enabled = if state.public_network_access { "Enabled" } else { "Disabled" };
    let disk_state = if entry.has_managed_access(now) { "ActiveSAS" } else { "Unattached" };
    let properties = json!({
        "creationData": creation(&entry.creation, state.sector_size),
        "diskSizeGB": entry.disk_bytes().div_ceil(GIB),
        "diskSizeBytes": entry.disk_bytes(),
        "diskState": disk_state,
        "encryption": { "type": "EncryptionAtRestWithPlatformKey" },
        "incremental": entry.family.is_some(),
        "incrementalSnapshotFamilyId": family,
        "completionPercent": state.completion,
        "copyCompletionError": error,
        "networkAccessPolicy": state.network_access_policy,
        "publicNetworkAccess": enabled,
        "dataAccessAuthMode": state.data_access_auth_mode.or(with_token),
        "provisioningState": "Succeeded",
        "timeCreated": entry.created.offset_text(),
        "uniqueId": entry.unique_id.to_string(),
    });
    resource(service, &entry.id, &entry.location, &entry.sku, &state.tags, properties)
}

/// A resource that is still in the making.
pub(super) fn in_the_making(mut resource: Value) -> Value {
    resource["properties"]["provisioningState"] = json!("Updating");
    resource
}

fn resource(
    service: &Service,
    id: &ResourceId,
    location: &str,
    sku: &str,
    tags: &BTreeMap<String, String>,
    properties: Value,
) -> Value {
    let tier = sku.split('_').next().unwrap_or_default();
    json!({
        "name": id.name,
        "id": service.arm.id_of(id),
        "type": match id.kind {
            Kind::Disks => "Microsoft.Compute/disks",
            Kind::Snapshots => "Microsoft.Compute/snapshots",
        },
        "location": location,
        "tags": tags,
        "sku": { "name": sku, "tier": tier },
        "properties": without_nulls(properties),
    })
}

fn creation(creation: &Creation, sector_size: u32) -> Value {
    let (id, unique_id) = creation.source.clone().unzip();
    let (blob, account) = creation.blob.clone().unzip();
    without_nulls(json!({
        "createOption": creation.option,
        "sourceResourceId": id,
        "sourceUniqueId": unique_id.map(|id| id.to_string()),
        "sourceUri": blob,
        "storageAccountId": account,
        "uploadSizeBytes": creation.upload_size,
        "logicalSectorSize": sector_size,
    }))
}

/// The service leaves out what is not there.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let there: Map<String, Value> =
                fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
            Value::Object(there)
        }
        other => other,
    }
}
