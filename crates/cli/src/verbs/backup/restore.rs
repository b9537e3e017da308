//! `stead backup restore`: a tenant of a backup under a new name, beside the live one.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use stead_client::{Client, Durability, ErrorKind, Followers, NewTenant, ScanOptions};
use stead_types::{TenantLimit, TenantLimits, TenantName};

use super::{
    manifest::{self, Manifest, TenantBackup},
    parts::{self, ContentDigest},
};
use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output::{self, Output},
    verbs::kv::{self, Rows},
};

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// Tenant of the backup
    tenant: String,
    /// Folder of backups
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,
    /// Backup; else the newest
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Name of the tenant that is made; it must not exist, unless an interrupted restore has made it
    #[arg(long = "as", value_name = "NAME")]
    name: TenantName,
    /// Home of the tenant that is made; else the home in the backup
    #[arg(long, value_name = "REGION")]
    home: Option<String>,
    /// File with the progress; else NAME.progress in the working directory
    #[arg(long, value_name = "FILE")]
    progress: Option<PathBuf>,
}

impl Restore {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let folder = manifest::find(&self.from, self.id.as_deref())?;
        let manifest = Manifest::load(&folder)?;
        let backup = manifest.tenant(&self.tenant)?;
        for part in &backup.parts {
            parts::verify(&folder, part)?;
        }
        let client = context::connect(target).await?;
        let progress = self.progress.clone();
        let progress = progress.unwrap_or_else(|| PathBuf::from(format!("{}.progress", self.name)));
        self.make_tenant(&client, backup, progress.exists()).await?;
        let rows = Rows {
            identity: format!("{} {} {}", manifest.id, self.tenant, self.name),
            tenant: self.name.clone(),
            len: backup.bytes,
            open: Box::new({
                let parts = backup.parts.clone();
                move |skip| parts::lines(&folder, &parts, skip)
            }),
            progress,
        };
        kv::write_rows(&client, rows, target.output).await?;
        let (keys, content) = contents(&client, &self.name).await?;
        if (keys, &content) != (backup.lasting_keys, &backup.content) {
            let what = format!(
                "tenant {} has {keys} keys without a time to live, and the backup {}, or their content differs: others \
                 write to it",
                self.name, backup.lasting_keys
            );
            return Err(CommandError::new(Code::Failed, what));
        }
        if target.output == Output::Json {
            return output::json(&json!({
                "tenant": self.name.to_string(),
                "keys": keys.to_string(),
                "content": content,
                "revision": backup.revision,
            }));
        }
        output::line(&format!(
            "tenant {}: {keys} keys without a time to live, equal to {} at revision {} of backup {}",
            self.name, self.tenant, backup.revision, manifest.id
        ))
    }

    async fn make_tenant(&self, client: &Client, backup: &TenantBackup, is_resumed: bool) -> Result<(), CommandError> {
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
            reason: format!("stead backup restore {}", self.tenant),
            ..NewTenant::default()
        };
        match client.admin().create_tenant(new).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == ErrorKind::AlreadyExists && is_resumed => Ok(()),
            Err(error) => Err(CommandError::from(error)),
        }
    }
}

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
        content.push(&item);
    }
    Ok(content.finish())
}
