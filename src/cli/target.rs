//! `snapferry status`: what a base blob says of itself.

use serde_json::json;

use super::args::TargetArgs;
use super::output::{Output, size};
use super::settings;
use crate::azure::{PageBlob, Role};
use crate::base::marker::{Marker, State};
use crate::base::{self, Look};
use crate::error::{Error, ErrorKind, Result};

pub(super) async fn status(args: TargetArgs, output: Output) -> Result<()> {
    let blob = connect(&args)?;
    let look = base::look(&blob).await?;
    let Look { properties: Some(properties), marker } = look else {
        return Err(missing(&blob));
    };
    let state = marker.as_ref().map_or("no-marker", Marker::state_name);
    let document = json!({
        "target": blob.resource().to_string(),
        "state": state,
        "length": properties.length,
        "lease": properties.lease_state,
        "from": marker.as_ref().and_then(|marker| marker.step.from.as_ref()).map(ToString::to_string),
        "to": marker.as_ref().map(|marker| marker.step.to.to_string()),
        "checkpoint": marker.as_ref().map(|marker| marker.checkpoint.offset),
        "generation": properties.sequence_number,
        "point": marker.as_ref().and_then(|marker| marker.point.clone()),
        "owner": marker.as_ref().map(|marker| marker.owner.clone()),
        "written_at": marker.as_ref().map(|marker| marker.written_at.clone()),
    });
    let text = match &marker {
        None => "it carries no marker of snapferry: not a base blob".to_owned(),
        Some(marker) => describe(marker),
    };
    output.result(
        &document,
        &format!(
            "{text}\nlength        {}\nlease         {}",
            size(properties.length),
            properties.lease_state
        ),
    )
}

fn describe(marker: &Marker) -> String {
    let told = format!("written       {} by {}", marker.written_at, marker.owner);
    match marker.state {
        State::Clean => format!(
            "clean at      {}\nnewest point  {}\n{told}",
            marker.step.to,
            marker.point.as_deref().unwrap_or_default()
        ),
        State::Sealing => {
            format!("torn          {} is written and not sealed: run its command again\n{told}", marker.step)
        }
        State::Applying if marker.repairs.is_some() => format!(
            "torn          in the middle of a repair: run snapferry repair again, or give it up with snapferry rollback\n{told}"
        ),
        State::Applying => format!(
            "torn          {} is written up to byte {} of {}: run its command again to go on\n{told}",
            marker.step, marker.checkpoint.offset, marker.length
        ),
    }
}

fn missing(blob: &PageBlob) -> Error {
    Error::new(ErrorKind::BaseMissing, "show the base blob", "it does not exist")
        .on(blob.resource())
        .next("check the name; a full copy creates it: snapferry copy --source <SAS URL> --target <URL>")
}

pub(super) fn connect(args: &TargetArgs) -> Result<PageBlob> {
    let target = settings::resource(Role::Target, args.target.as_deref().unwrap_or_default(), &args.access)?;
    if target.snapshot().is_some() {
        return Err(Error::new(ErrorKind::Usage, "use the target URL", "it names a snapshot")
            .on(&target)
            .next("leave snapshot= out of --target"));
    }
    let client = settings::target_client(args, &target)?;
    Ok(PageBlob::connect(target, &client)?)
}
