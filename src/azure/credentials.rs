//! Where Entra tokens come from: the environment of a service, a workload identity, a managed identity, or
//! the Azure CLI that a person is signed in with.

use std::str::FromStr;
use std::sync::Arc;

use azure_core::credentials::{Secret, TokenCredential};
use azure_identity::{
    AzureCliCredential, ClientSecretCredential, ManagedIdentityCredential, WorkloadIdentityCredential,
};

use crate::error::{Error, ErrorKind, Result};

/// Which sign-in to use. The names are those of azcopy's `--login-type` (`AZCOPY_AUTO_LOGIN_TYPE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignIn {
    /// The first that the environment speaks for: service principal, workload identity, else the Azure CLI.
    #[default]
    Auto,
    /// `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET`.
    ServicePrincipal,
    /// `AZURE_FEDERATED_TOKEN_FILE` and its companions, as Kubernetes sets them.
    Workload,
    /// The identity of the machine. Never tried unless asked for: elsewhere the question is not answered.
    ManagedIdentity,
    /// `az login`.
    AzureCli,
}

impl FromStr for SignIn {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "auto" => Self::Auto,
            "spn" => Self::ServicePrincipal,
            "workload" => Self::Workload,
            "msi" => Self::ManagedIdentity,
            "azcli" => Self::AzureCli,
            _ => return Err("expected auto, spn, workload, msi or azcli".to_owned()),
        })
    }
}

impl SignIn {
    /// The source of tokens. `Auto` looks at the environment only, and asks nobody before a token is needed.
    pub fn credential(self) -> Result<Arc<dyn TokenCredential>> {
        let made: azure_core::Result<Arc<dyn TokenCredential>> = match self {
            Self::Auto => return Self::detect().credential(),
            Self::ServicePrincipal => return service_principal(),
            Self::Workload => WorkloadIdentityCredential::new(None).map(|made| made as _),
            Self::ManagedIdentity => ManagedIdentityCredential::new(None).map(|made| made as _),
            Self::AzureCli => AzureCliCredential::new(None).map(|made| made as _),
        };
        made.map_err(|error| {
            Error::new(
                ErrorKind::Usage,
                format!("sign in ({self:?})"),
                super::reply::scrub(&error.to_string()),
            )
        })
    }

    fn detect() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if set("AZURE_CLIENT_SECRET") {
            Self::ServicePrincipal
        } else if set("AZURE_FEDERATED_TOKEN_FILE") {
            Self::Workload
        } else {
            Self::AzureCli
        }
    }
}

fn service_principal() -> Result<Arc<dyn TokenCredential>> {
    let need = |name: &str| {
        std::env::var(name).map_err(|_| {
            Error::new(ErrorKind::Usage, "sign in as a service principal", format!("{name} is not set"))
                .next("set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET")
        })
    };
    let secret = Secret::new(need("AZURE_CLIENT_SECRET")?);
    ClientSecretCredential::new(&need("AZURE_TENANT_ID")?, need("AZURE_CLIENT_ID")?, secret, None)
        .map(|made| made as _)
        .map_err(|error| {
            Error::new(
                ErrorKind::Usage,
                "sign in as a service principal",
                super::reply::scrub(&error.to_string()),
            )
        })
}
