//! What comes before the first write: both snapshots and the base are looked at, and it is decided what is to be
//! done. A step and its dry run share this.

use std::sync::Arc;

use crate::azure::{Client, Endpoint, PageBlob, Resource, Role};
use crate::base::decide::{Decision, Wish, decide};
use crate::base::marker::StepId;
use crate::base::{self, Look, Opening};
use crate::chain::{Origin, Survey, survey};
use crate::copy::chunk::Source;
use crate::diff::Listing;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Phase, Progress};
use crate::range::PageRange;
use crate::record::compare::{self, Held};
use crate::restore::check::Check;
use crate::step::{Settings, Step};

/// Everything that is known before the first write.
pub(crate) struct Prepared {
    pub(crate) survey: Survey,
    pub(crate) target: PageBlob,
    pub(crate) opening: Opening,
    pub(crate) decision: Decision,
    /// For a restore: the record of the point that is copied.
    pub(crate) check: Option<Check>,
}

pub(crate) async fn prepare(
    step: &Step,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
) -> Result<Prepared> {
    progress.enter(Phase::Checking);
    let target = connect_target(&step.target, client, settings, progress)?;
    let sources = look_at_sources(step, client, settings, progress);
    let (survey, look) = tokio::try_join!(sources, base::look(&target))?;
    let opening = opening_of(&survey, step.origin.clone(), settings);
    decided(survey, target, opening, &look)
}

/// Decides what is to be done with a base blob that was looked at.
pub(crate) fn decided(survey: Survey, target: PageBlob, opening: Opening, look: &Look) -> Result<Prepared> {
    let decision = decide(look, &wish(&survey, &opening)).map_err(|error| error.on(target.resource()))?;
    Ok(Prepared { survey, target, opening, decision, check: None })
}

pub(crate) fn connect_target(
    target: &Resource,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
) -> Result<PageBlob> {
    if let Some(time) = target.snapshot() {
        let why = format!("it names a snapshot ({time}); only the blob itself can be written to");
        return Err(Error::new(ErrorKind::Usage, "use the target URL", why)
            .on(target)
            .next("leave snapshot= out of the URL"));
    }
    let pace = client.pace(Role::Target, settings.caps);
    Ok(PageBlob::new(Endpoint::new(target.clone(), client, pace, Arc::clone(&progress.target)))?)
}

pub(crate) fn opening_of(survey: &Survey, origin: Option<Origin>, settings: &Settings) -> Opening {
    Opening {
        step: StepId {
            from: survey.previous.as_ref().map(|previous| previous.id.clone()),
            to: survey.source.id.clone(),
        },
        length: survey.source.length,
        run: uuid::Uuid::new_v4().to_string(),
        across_hosts: settings.across_hosts,
        origin,
        rebase: settings.rebase,
        lease: settings.lease,
    }
}

/// Both snapshots, with one pace and one meter.
pub(crate) async fn look_at_sources(
    step: &Step,
    client: &Client,
    settings: &Settings,
    progress: &Progress,
) -> Result<Survey> {
    let pace = client.pace(Role::Source, settings.caps);
    let connect = |resource: &Resource| {
        let meter = Arc::clone(&progress.source);
        PageBlob::new(Endpoint::new(resource.clone(), client, Arc::clone(&pace), meter)).map_err(Error::from)
    };
    let source = connect(&step.source)?;
    let previous = step.previous.as_ref().map(connect).transpose()?;
    survey(source, previous, settings.across_hosts).await
}

pub(crate) fn wish<'a>(survey: &Survey, opening: &'a Opening) -> Wish<'a> {
    Wish {
        step: &opening.step,
        from_length: survey.previous.as_ref().map(|previous| previous.length),
        to_length: opening.length,
        across_hosts: opening.across_hosts,
        rebase: opening.rebase,
    }
}

pub(crate) fn resume_offset(decision: &Decision) -> u64 {
    if let Decision::GoOn(checkpoint) = decision { checkpoint.offset } else { 0 }
}

pub(crate) fn start_listing(survey: &Survey, from: u64, settings: &Settings, progress: &Progress) -> Listing {
    let length = survey.source.length;
    let listing = match &survey.source.at {
        Source::Blob { blob, .. } => {
            // Both are multiples of a page (the marker and the survey see to it), so only "nothing left" is no range.
            let range = PageRange::new(from, length).ok();
            let forced = survey.forced_pages().into_iter().filter(|page| page.start() >= from).collect();
            Listing::start(blob, &survey.against(), range, length, forced, settings.listing)
        }
        Source::Image(image) => {
            compare::changes(Held::Source(image.clone()), survey.compared_with.clone(), from, length)
        }
    };
    progress.follow(listing.progress());
    listing
}
