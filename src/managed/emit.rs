//! The same copy for people who deploy with a template of the resource manager, with `az` or with PowerShell. Nobody is
//! asked, so only what the request says of itself is checked.

use serde_json::{Map, Value, json};

use super::quote::{posix, powershell, template};
use super::request::{Request, Speed};
use crate::azure::arm::API_VERSION;
use crate::azure::reply::scrub;
use crate::error::{Error, ErrorKind, Result};

/// A template of Azure Resource Manager, to be deployed to the resource group of the target.
///
/// # Errors
/// When the request cannot be made.
pub fn arm_template(request: &Request) -> Result<Value> {
    request.check()?;
    let mut creation =
        json!({ "createOption": "CopyStart", "sourceResourceId": "[parameters('sourceSnapshotId')]" });
    if request.speed == Speed::Enhanced {
        creation["provisionedBandwidthCopySpeed"] = json!("Enhanced");
    }
    let tags: Map<String, Value> =
        request.tags.iter().map(|(key, value)| (template(key), json!(template(value)))).collect();
    let text = |value: &str| json!({ "type": "string", "defaultValue": template(value) });
    Ok(json!({
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "parameters": {
            "snapshotName": text(request.target.name()),
            "location": text(&request.region_name()),
            "sourceSnapshotId": text(&request.source.to_string()),
        },
        "resources": [{
            "type": "Microsoft.Compute/snapshots",
            "apiVersion": API_VERSION,
            "name": "[parameters('snapshotName')]",
            "location": "[parameters('location')]",
            "tags": tags,
            "properties": { "incremental": true, "creationData": creation },
        }],
        "outputs": {
            "snapshotId": {
                "type": "string",
                "value": "[resourceId('Microsoft.Compute/snapshots', parameters('snapshotName'))]",
            },
        },
    }))
}

/// Commands of the Azure CLI, for a POSIX shell.
///
/// # Errors
/// When the request cannot be made, or not with `az`.
pub fn az(request: &Request) -> Result<String> {
    request.check()?;
    // az reads @FILE in place of a word, and takes -x for an option: no quoting helps.
    if let Some(key) = request.tags.keys().find(|key| key.starts_with(['@', '-'])) {
        return Err(Error::new(
            ErrorKind::Usage,
            "write the tags for az",
            "az takes @ and - at their start for its own",
        )
        .on(scrub(key))
        .next("name the tag otherwise, or use --emit arm-template"));
    }
    let (source, target) = (&request.source, &request.target);
    let mut words = vec![
        "az snapshot create".to_owned(),
        format!("--subscription {}", posix(target.subscription())),
        format!("--resource-group {}", posix(target.group())),
        format!("--name {}", posix(target.name())),
        format!("--location {}", posix(&request.region_name())),
        format!("--source {}", posix(&source.to_string())),
        "--incremental true".to_owned(),
        "--copy-start true".to_owned(),
    ];
    if request.speed == Speed::Enhanced {
        words.push("--bandwidth-copy-speed Enhanced".to_owned());
    }
    if !request.tags.is_empty() {
        let tags: Vec<String> =
            request.tags.iter().map(|(key, value)| posix(&format!("{key}={value}"))).collect();
        words.push(format!("--tags {}", tags.join(" ")));
    }
    Ok(format!(
        "{}\n\n# How far is it?\naz snapshot show --ids {} --query completionPercent --output tsv",
        words.join(" \\\n  "),
        posix(&target.to_string())
    ))
}

/// A script for the Az module of PowerShell.
///
/// # Errors
/// When the request cannot be made.
pub fn az_powershell(request: &Request) -> Result<String> {
    request.check()?;
    let (source, target) = (&request.source, &request.target);
    let mut config = format!(
        "New-AzSnapshotConfig -Location {} -Incremental -CreateOption CopyStart -SourceResourceId {}",
        powershell(&request.region_name()),
        powershell(&source.to_string())
    );
    if !request.tags.is_empty() {
        let tags: Vec<String> = request
            .tags
            .iter()
            .map(|(key, value)| format!("{} = {}", powershell(key), powershell(value)))
            .collect();
        config = format!("{config} -Tag @{{ {} }}", tags.join("; "));
    }
    // The cmdlet has no parameter for it.
    let speed = match request.speed {
        Speed::Usual => "",
        Speed::Enhanced => "$config.CreationData.ProvisionedBandwidthCopySpeed = 'Enhanced'\n",
    };
    let place = format!(
        "-ResourceGroupName {} -SnapshotName {}",
        powershell(target.group()),
        powershell(target.name())
    );
    Ok(format!(
        "$ErrorActionPreference = 'Stop'\nSet-AzContext -Subscription {} | Out-Null\n$config = {config}\n{speed}New-AzSnapshot {place} -Snapshot $config\n\n# How far is it?\n(Get-AzSnapshot {place}).CompletionPercent",
        powershell(target.subscription())
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::request::tests::request;
    use super::*;

    fn with_tags() -> Request {
        let tags = [("owner", "it's (us) $HOME"), ("[x]", "[resourceGroup().id]")];
        Request {
            tags: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            speed: Speed::Enhanced,
            ..request()
        }
    }

    #[test]
    fn a_template_holds_no_expression_but_its_own() {
        let made = arm_template(&with_tags()).unwrap();
        let resource = &made["resources"][0];
        assert_eq!(resource["properties"]["creationData"]["provisionedBandwidthCopySpeed"], "Enhanced");
        assert_eq!(resource["tags"]["[[x]"], "[[resourceGroup().id]");
        assert_eq!(resource["tags"]["owner"], "it's (us) $HOME");
        assert_eq!(made["parameters"]["location"]["defaultValue"], "westeurope");
        assert_eq!(made["parameters"]["sourceSnapshotId"]["defaultValue"], request().source.to_string());
    }

    #[test]
    fn words_for_shells_are_quoted() {
        let made = az(&with_tags()).unwrap();
        assert!(made.contains(r"'owner=it'\''s (us) $HOME'"), "{made}");
        assert!(
            made.contains("--resource-group 'Prod(web)'") && made.contains("--bandwidth-copy-speed Enhanced")
        );
        let made = az_powershell(&with_tags()).unwrap();
        assert!(made.contains("'owner' = 'it''s (us) $HOME'"), "{made}");
        assert!(made.contains("-ResourceGroupName 'Prod(web)'"));
        assert!(made.contains("ProvisionedBandwidthCopySpeed = 'Enhanced'"));
    }

    #[test]
    fn a_tag_that_az_would_read_as_a_file_is_refused() {
        let mut request = request();
        request.tags.insert("@/etc/passwd".to_owned().replace('/', "_"), "x".to_owned());
        assert_eq!(az(&request).unwrap_err().kind(), ErrorKind::Usage);
        arm_template(&request).unwrap();
    }
}
