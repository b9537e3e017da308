//! `stead role grant` and `stead role revoke`.

use clap::Args;

use crate::{args::Target, context, exit::CommandError};

/// Forms of roles, for the help.
const ROLES: &str = "\
Roles:
  tenant-reader:TENANT[:PREFIX]  reads keys of a tenant
  tenant-writer:TENANT[:PREFIX]  writes keys; what a response shows of them needs the reader too
  tenant-admin:TENANT            sees and changes the tenant itself
  region-operator:REGION         operates a region
  cluster-operator               operates the cluster
  auditor                        sees the audit log, and what operators see
`*` for TENANT stands for every tenant. Identities are client/NAME and operator/NAME, by certificate, and
token/ISSUER/SUBJECT.";

#[derive(Debug, Args)]
#[command(after_long_help = ROLES)]
pub(crate) struct Grant {
    /// Identity, such as client/billing or token/corp/ada
    subject: String,
    /// Role, such as tenant-reader:acme
    role: String,
    /// Reason, for the audit log
    #[arg(long, default_value = "")]
    reason: String,
}

impl Grant {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let admin = context::connect(target).await?.admin();
        let granted = admin.grant_role(&self.subject, &self.role, &self.reason).await;
        let granted = granted.map_err(|error| CommandError::from(error).if_unknown("`stead role list`"))?;
        super::print(vec![granted], target)
    }
}

#[derive(Debug, Args)]
#[command(after_long_help = ROLES)]
pub(crate) struct Revoke {
    /// Identity that has the role
    subject: String,
    /// Role to take
    role: String,
    /// Reason, for the audit log
    #[arg(long, default_value = "")]
    reason: String,
}

impl Revoke {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let admin = context::connect(target).await?.admin();
        let revoked = admin.revoke_role(&self.subject, &self.role, &self.reason).await;
        let revoked = revoked.map_err(|error| CommandError::from(error).if_unknown("`stead role list`"))?;
        super::print(vec![revoked], target)
    }
}
