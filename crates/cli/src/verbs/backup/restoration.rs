//! Restoring of one tenant: made, filled, and compared with what was backed up.

use std::path::PathBuf;

use stead_client::{Client, Durability, ErrorKind, Followers, NewTenant, OnLeaseLoss, ScanOptions};
use stead_types::{TenantLimit, TenantLimits, TenantName};

use super::{
    chain::{Chain, Point},
    compose::{Composition, Summary},
    manifest::TenantBackup,
    parts::ContentDigest,
};
use crate::{
    exit::{Code, CommandError},
    output::Output,
    verbs::kv::{self, Rows},
};

/// Tenant to be made.
pub(super) struct Restoration<'a> {
    pub(super) client: &'a Client,
    pub(super) name: TenantName,
    /// Home; else that of the backup.
    pub(super) home: Option<String>,
    /// File with the progress.
    pub(super) progress: PathBuf,
    /// Whether an interrupted attempt may have made the tenant.
    pub(super) is_resumed: bool,
    pub(super) output: Output,
}

impl Restoration<'_> {
    /// Makes the tenant, and returns what it has.
    ///
    /// # Errors
    ///
    /// A file is damaged, and nothing was made; the tenant exists; or its content differs in the end.
    pub(super) async fn run(self, chain: Chain, at: Point) -> Result<Summary, CommandError> {
        chain.verify()?;
        let backup = chain.tip().backup.clone();
        let summary = match chain.has_changes() {
            true => Composition::open(&chain, at)?.summarize()?,
            false => Summary {
                bytes: backup.bytes,
                keys: backup.keys,
                lasting_keys: backup.lasting_keys,
                content: backup.content.clone(),
            },
        };
        self.make_tenant(&chain.tenant, &backup).await?;
        let rows = Rows {
            identity: format!(
                "composed {} {} {} {} {}",
                chain.tip().id,
                chain.tenant,
                self.name,
                at.revision,
                at.time.unwrap_or_default().0
            ),
            tenant: self.name.clone(),
            len: summary.bytes,
            open: Box::new(move |skip| {
                let composition = Composition::open(&chain, at);
                let composition = composition.map_err(|error| std::io::Error::other(error.text().to_owned()))?;
                composition.lines(skip)
            }),
            progress: self.progress.clone(),
        };
        kv::write_rows(self.client, rows, self.output).await?;
        let (keys, content) = contents(self.client, &self.name).await?;
        if (keys, &content) != (summary.lasting_keys, &summary.content) {
            let what = format!(
                "tenant {} has {keys} keys without a time to live, and the backup {}, or their content differs: others \
                 write to it",
                self.name, summary.lasting_keys
            );
            return Err(CommandError::new(Code::Failed, what));
        }
        if let Some(policy) = backup.region_loss {
            let (name, admin) = (self.name.to_string(), self.client.admin());
            admin.set_on_region_loss(&name, policy.policy(), REASON, false).await?;
        }
        Ok(summary)
    }

    async fn make_tenant(&self, source: &str, backup: &TenantBackup) -> Result<(), CommandError> {
        let new = NewTenant {
            name: self.name.to_string(),
            home_region: self.home.clone().unwrap_or_else(|| backup.home.clone()),
            followers: backup
                .followers
                .clone()
                .map_or(Followers::AllAdmitted, Followers::Regions),
            residency: backup.residency.clone(),
            durability: backup.remote.then_some(Durability::Remote),
            labels: backup.labels.clone(),
            limits: limits(backup)?,
            on_lease_loss: backup.continues_without_lease.then_some(OnLeaseLoss::Continue),
            reason: format!("{REASON} {source}"),
            ..NewTenant::default()
        };
        match self.client.admin().create_tenant(new).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == ErrorKind::AlreadyExists && self.is_resumed => Ok(()),
            Err(error) => Err(CommandError::from(error)),
        }
    }
}

/// Reason in the audit log.
const REASON: &str = "stead backup restore";

fn limits(backup: &TenantBackup) -> Result<TenantLimits, CommandError> {
    let mut limits = TenantLimits::default();
    for (name, value) in &backup.limits {
        // A limit that this version does not know any more bounds nothing.
        let Some(limit) = TenantLimit::ALL.into_iter().find(|limit| limit.name() == name) else {
            continue;
        };
        let set = limits.set(limit, *value);
        set.map_err(|error| CommandError::new(Code::Failed, format!("limit {name} of the backup: {error}")))?;
    }
    Ok(limits)
}

/// Returns the number of a tenant's keys without a time to live, and the digest of their content.
async fn contents(client: &Client, name: &TenantName) -> Result<(u64, String), CommandError> {
    let mut items = client.tenant(&name.to_string())?.scan_stream(&ScanOptions::default());
    let mut content = ContentDigest::default();
    while let Some(item) = items.next().await? {
        content.push(&item.key, &item.value, item.expires.is_some());
    }
    Ok(content.finish())
}
