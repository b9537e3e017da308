//! `stead backup create`: every tenant at one revision each, in a new folder.

use std::{path::PathBuf, time::SystemTime};

use clap::Args;
use serde_json::{Value, json};
use stead_client::{Client, ErrorKind, TenantInfo, TenantState};

use super::{
    bucket::BucketArgs,
    catalog::{Catalog, Listed},
    collect,
    files::Sink,
    manifest::{Manifest, TenantBackup},
};
use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output::{self, Output},
};

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Folder of backups, or s3://BUCKET/PREFIX; this one gets a folder of its own in it
    #[arg(long, value_name = "PLACE")]
    pub(super) to: String,
    #[command(flatten)]
    pub(super) bucket: BucketArgs,
    /// Only this tenant; may be given several times
    #[arg(long = "tenant", value_name = "NAME")]
    tenants: Vec<String>,
    /// Jurisdiction of the place of the backups: needed for tenants whose residency is limited
    #[arg(long, value_name = "NAME")]
    jurisdiction: Option<String>,
    /// Only what has changed since the newest backup of each tenant; all keys where history does not reach back so far
    #[arg(long)]
    pub(super) incremental: bool,
    /// Encrypt with the key of this file, which `stead backup keygen` makes
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
}

/// Backup that was made.
pub(super) struct Created {
    pub(super) manifest: Manifest,
    /// Tenants that serve nothing, or were deleted meanwhile.
    left_out: Vec<String>,
}

impl Create {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let catalog = Catalog::open(&self.to, &self.bucket, self.key_file.as_deref())?;
        let client = context::connect(target).await?;
        let created = self.create(&client, &catalog, self.incremental, target.output).await?;
        let manifest = &created.manifest;
        if target.output == Output::Json {
            return output::json(&created.json(&catalog));
        }
        let count = output::count(manifest.tenants.len() as u64, "tenant");
        let sum = |of: fn(&TenantBackup) -> u64| manifest.tenants.values().map(of).sum::<u64>();
        let changes = match sum(|tenant| tenant.changes) {
            0 if !self.incremental => String::new(),
            changes => format!(", {}", output::count(changes, "change")),
        };
        output::line(&format!(
            "backup {}: {count}, {} keys{changes}, {}",
            manifest.id,
            sum(|tenant| tenant.keys),
            output::size(sum(|tenant| tenant.bytes))
        ))
    }

    /// Makes a backup.
    ///
    /// # Errors
    ///
    /// A tenant or the place failed: the files written until then have no manifest, and are no backup.
    pub(super) async fn create(
        &self,
        client: &Client,
        catalog: &Catalog,
        incremental: bool,
        output: Output,
    ) -> Result<Created, CommandError> {
        let mut left_out = Vec::new();
        let tenants = self.selected(client, &mut left_out).await?;
        for tenant in &tenants {
            self.check_residency(tenant)?;
        }
        let id = format!("{}-{:08x}", stamp(), rand::random::<u32>());
        let sink = Sink {
            place: catalog.place.clone(),
            id: id.clone(),
            key: catalog.key.clone(),
        };
        let mut manifest = Manifest::new(id, now(), self.jurisdiction.clone());
        let earlier = if incremental { earlier(catalog)? } else { Vec::new() };
        for (done, tenant) in tenants.iter().enumerate() {
            if output != Output::Json {
                eprintln!("{} of {}: {}", done + 1, tenants.len(), tenant.name);
            }
            let base = incremental.then(|| collect::base(&earlier, tenant)).transpose()?;
            let on = base.as_ref().and_then(|base| base.as_ref().ok());
            let on = on.map(|base| (base.manifest.id.clone(), base.manifest.digest.clone()));
            let folder = match sink.key {
                // Names of folders would tell which tenants an encrypted backup has.
                Some(_) => format!("{:06}", done + 1),
                None => tenant.name.clone(),
            };
            let backed_up = collect::back_up(client, tenant, &sink, &folder, base).await;
            if backed_up.is_err() && self.tenants.is_empty() && is_gone(client, tenant).await {
                left_out.push(tenant.name.clone());
                continue;
            }
            let backup = backed_up?;
            if let Some(reason) = backup.full_because.as_deref().filter(|_| output != Output::Json) {
                eprintln!("tenant {}: all keys, as {reason}", tenant.name);
            }
            manifest.bases.extend(on.filter(|_| backup.since.is_some()));
            manifest.tenants.insert(tenant.name.clone(), backup);
        }
        for name in left_out.iter().filter(|_| output != Output::Json) {
            eprintln!("tenant {name} is left out: it is disabled or deleted");
        }
        manifest.ended = now();
        manifest.store(&sink)?;
        Ok(Created { manifest, left_out })
    }

    async fn selected(&self, client: &Client, left_out: &mut Vec<String>) -> Result<Vec<TenantInfo>, CommandError> {
        let admin = client.admin();
        if self.tenants.is_empty() {
            let (active, others): (Vec<_>, Vec<_>) = admin
                .tenants("", "")
                .await?
                .into_iter()
                .partition(|tenant| tenant.state == TenantState::Active);
            left_out.extend(others.into_iter().map(|tenant| tenant.name));
            return Ok(active);
        }
        let mut tenants = Vec::new();
        for name in &self.tenants {
            tenants.push(admin.tenant(name).await?);
        }
        Ok(tenants)
    }

    /// Refuses a tenant that may not be stored where the backup is kept.
    fn check_residency(&self, tenant: &TenantInfo) -> Result<(), CommandError> {
        let name = &tenant.name;
        let admitted = tenant.residency.join(", ");
        match &self.jurisdiction {
            _ if tenant.residency.is_empty() => Ok(()),
            Some(here) if tenant.residency.contains(here) => Ok(()),
            Some(here) => {
                let what = format!("tenant {name} may be stored in {admitted} only, and --jurisdiction is {here}");
                Err(CommandError::new(Code::NotAllowed, what).hint("--tenant names those that may be stored there"))
            }
            None => {
                let what = format!("tenant {name} may be stored in {admitted} only");
                Err(CommandError::new(Code::NotAllowed, what).hint("--jurisdiction says where the backups lie"))
            }
        }
    }
}

impl Created {
    fn json(&self, catalog: &Catalog) -> Value {
        let manifest = &self.manifest;
        let sum = |of: fn(&TenantBackup) -> u64| manifest.tenants.values().map(of).sum::<u64>().to_string();
        let full = manifest.tenants.iter().filter_map(|(name, tenant)| {
            let reason = tenant.full_because.as_ref()?;
            Some((name.clone(), reason.clone().into()))
        });
        json!({
            "id": manifest.id,
            "folder": catalog.place.address(&manifest.id),
            "tenants": manifest.tenants.len(),
            "keys": sum(|tenant| tenant.keys),
            "changes": sum(|tenant| tenant.changes),
            "bytes": sum(|tenant| tenant.bytes),
            "bases": manifest.bases.keys().collect::<Vec<_>>(),
            "full": Value::Object(full.collect()),
            "leftOut": self.left_out,
        })
    }
}

/// Returns the backups on which this one may build. A place that cannot be read is refused: every tenant would be taken as a
/// whole unnoticed.
fn earlier(catalog: &Catalog) -> Result<Vec<Listed>, CommandError> {
    catalog.all().map_err(|error| match error.code() == Code::Usage {
        true => error.hint("without --incremental the first backup is made"),
        false => error,
    })
}

/// Tells whether a tenant was deleted or disabled meanwhile.
async fn is_gone(client: &Client, tenant: &TenantInfo) -> bool {
    match client.admin().tenant(&tenant.name).await {
        Ok(found) => found.number != tenant.number || found.state != TenantState::Active,
        Err(error) => matches!(error.kind, ErrorKind::TenantNotFound | ErrorKind::NotFound),
    }
}

/// Returns the time as manifests have it.
fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// Returns the time as it stands in names, which sort by it.
fn stamp() -> String {
    let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    now.replace(['-', ':'], "")
}
