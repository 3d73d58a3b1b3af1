//! Whether a management request is one that may be made: its token, its version, its subscription, the action.

use uuid::Uuid;

use super::route::Route;
use super::token;
use crate::call::Call;
use crate::error::{ErrorCode, Failure, Outcome};
use crate::request::Request;
use crate::service::Service;

/// The versions of the disks' provider.
pub(super) const API_VERSIONS: [&str; 21] = [
    "2018-04-01",
    "2018-06-01",
    "2018-09-30",
    "2019-03-01",
    "2019-07-01",
    "2019-11-01",
    "2020-05-01",
    "2020-06-30",
    "2020-09-30",
    "2020-12-01",
    "2021-04-01",
    "2021-08-01",
    "2021-12-01",
    "2022-03-02",
    "2022-07-02",
    "2023-01-02",
    "2023-04-02",
    "2023-10-02",
    "2024-03-02",
    "2025-01-02",
    "2026-03-02",
];

/// Some versions of the storage accounts' provider.
const STORAGE_API_VERSIONS: [&str; 4] = ["2021-09-01", "2022-09-01", "2023-01-01", "2024-01-01"];

pub(crate) fn authorise(service: &Service, request: &Request) -> Outcome<()> {
    if request.call == Call::IdentityToken {
        return token::check_identity(service, request);
    }
    token::check(service, request)?;
    let Some(route) = &request.route else { return Err(ErrorCode::NotFound.into()) };
    check_version(request, route)?;
    check_subscription(service, route)?;
    check_action(service, request, route)
}

fn check_version(request: &Request, route: &Route) -> Outcome<()> {
    let Some(version) = request.param("api-version").filter(|version| !version.is_empty()) else {
        return Err(ErrorCode::MissingApiVersionParameter.into());
    };
    let versions: &[&str] =
        if request.call == Call::ArmGetAccount { &STORAGE_API_VERSIONS } else { &API_VERSIONS };
    if versions.contains(&version) {
        return Ok(());
    }
    let kind = route.resource_type.rsplit('/').next().unwrap_or_default();
    let supported = versions.join(", ");
    let text = format!(
        "No registered resource provider found for location 'westeurope' and API version '{version}' \
         for type '{kind}'. The supported api-versions are '{supported}'."
    );
    Err(Failure::from(ErrorCode::NoRegisteredProviderFound).saying(text))
}

fn check_subscription(service: &Service, route: &Route) -> Outcome<()> {
    if Uuid::try_parse(&route.subscription).is_ok_and(|id| id == service.arm.subscription) {
        return Ok(());
    }
    let text = format!("The subscription '{}' could not be found.", route.subscription);
    Err(Failure::from(ErrorCode::SubscriptionNotFound).saying(text))
}

fn check_action(service: &Service, request: &Request, route: &Route) -> Outcome<()> {
    let action = route.action();
    if !service.arm.lock().denied.contains(&action.to_ascii_lowercase()) {
        return Ok(());
    }
    let path = request.path_and_query.split('?').next().unwrap_or_default();
    // What is asked of a resource is no part of its scope.
    let scope = match request.call {
        Call::BeginGetAccess | Call::EndGetAccess | Call::DiskBeginGetAccess | Call::DiskEndGetAccess => {
            path.rsplit_once('/').map_or(path, |(id, _)| id)
        }
        _ => path,
    };
    let (client, object) = (service.arm.client_id, service.arm.object_id);
    let text = format!(
        "The client '{client}' with object id '{object}' does not have authorization to perform action \
         '{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh \
         your credentials."
    );
    Err(Failure::from(ErrorCode::AuthorizationFailed).saying(text))
}
