//! `stead backup create`: every tenant at one revision each, in a new folder.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::Args;
use serde_json::json;
use stead_client::{Client, Durability, Followers, ScanOptions, TenantInfo};

use super::{
    manifest::{Manifest, TenantBackup},
    parts::PartsWriter,
};
use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output::{self, Output},
};

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Folder of backups; this one gets a folder of its own in it
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Only this tenant; may be given several times
    #[arg(long = "tenant", value_name = "NAME")]
    tenants: Vec<String>,
    /// Jurisdiction of the place of the folder: needed for tenants whose residency is limited
    #[arg(long, value_name = "NAME")]
    jurisdiction: Option<String>,
}

impl Create {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let client = context::connect(target).await?;
        let tenants = self.selected(&client).await?;
        for tenant in &tenants {
            self.check_residency(tenant)?;
        }
        let id = format!("{}-{:08x}", stamp(), rand::random::<u32>());
        let folder = self.to.join(&id);
        let unwritable = |error: io::Error| CommandError::new(Code::Failed, format!("{}: {error}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(unwritable)?;
        let mut manifest = Manifest::new(id.clone(), now(), self.jurisdiction.clone());
        let (mut keys, mut bytes) = (0, 0);
        for (done, tenant) in tenants.iter().enumerate() {
            if target.output != Output::Json {
                eprintln!("{} of {}: {}", done + 1, tenants.len(), tenant.name);
            }
            let backup = back_up(&client, tenant, &folder).await?;
            (keys, bytes) = (keys + backup.keys, bytes + backup.bytes);
            manifest.tenants.insert(tenant.name.clone(), backup);
        }
        manifest.ended = now();
        manifest.store(&folder).map_err(unwritable)?;
        if target.output == Output::Json {
            return output::json(&json!({
                "id": id,
                "folder": folder.display().to_string(),
                "tenants": tenants.len(),
                "keys": keys.to_string(),
                "bytes": bytes.to_string(),
            }));
        }
        let count = output::count(tenants.len() as u64, "tenant");
        output::line(&format!("backup {id}: {count}, {keys} keys, {}", output::size(bytes)))
    }

    async fn selected(&self, client: &Client) -> Result<Vec<TenantInfo>, CommandError> {
        let admin = client.admin();
        if self.tenants.is_empty() {
            return Ok(admin.tenants("", "").await?);
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
                Err(CommandError::new(Code::NotAllowed, what).hint("--jurisdiction says where the folder lies"))
            }
        }
    }
}

/// Writes a tenant's keys at one revision.
async fn back_up(client: &Client, tenant: &TenantInfo, folder: &Path) -> Result<TenantBackup, CommandError> {
    let unwritable = |error: io::Error| CommandError::new(Code::Failed, format!("{}: {error}", folder.display()));
    let mut backup = TenantBackup {
        number: tenant.number.get(),
        home: tenant.home_region.clone(),
        followers: match &tenant.followers {
            Followers::AllAdmitted => None,
            Followers::Regions(regions) => Some(regions.clone()),
        },
        residency: tenant.residency.clone(),
        remote: tenant.durability == Durability::Remote,
        labels: tenant.labels.clone(),
        limits: tenant
            .limits
            .iter()
            .map(|(limit, value)| (limit.name().to_owned(), value))
            .collect(),
        revision: String::new(),
        keys: 0,
        bytes: 0,
        lasting_keys: 0,
        content: String::new(),
        parts: Vec::new(),
    };
    let mut parts = PartsWriter::create(folder, &tenant.name).map_err(unwritable)?;
    let mut items = client.tenant(&tenant.name)?.scan_stream(&ScanOptions::default());
    let of_tenant = |error: CommandError| error.map_message(|message| format!("tenant {}: {message}", tenant.name));
    while let Some(item) = items.next().await.map_err(|error| of_tenant(error.into()))? {
        let now = items.time().unwrap_or_default();
        parts.push(&item, now).map_err(unwritable)?;
    }
    backup.revision = items.revision().unwrap_or_default().to_string();
    parts.finish(&mut backup).map_err(unwritable)?;
    Ok(backup)
}

fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// Returns the time as it stands in names, which sort by it.
fn stamp() -> String {
    now().replace(['-', ':'], "")
}
