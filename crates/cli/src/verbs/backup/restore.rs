//! `stead backup restore`: a tenant of a backup under a new name, beside the live one; or all tenants of a backup.

use std::{collections::BTreeSet, path::PathBuf, time::SystemTime};

use clap::Args;
use serde_json::json;
use stead_client::{Client, Revision};
use stead_types::{TenantName, TenantTime};

use super::{
    catalog::Catalog, chain::Moment, from::FromArgs, kept, manifest::Manifest, restoration::Restoration,
    restored::Restored,
};
use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output::{self, Output, OutputTable},
};

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// Tenant of the backup
    #[arg(required_unless_present = "all")]
    tenant: Option<String>,
    #[command(flatten)]
    from: FromArgs,
    /// Backup; else the newest
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Name of the tenant that is made; it must not exist, unless an interrupted restore has made it
    #[arg(long = "as", value_name = "NAME", required_unless_present = "all")]
    name: Option<TenantName>,
    /// All tenants of the backup under their own names, none of which may exist: for an empty cluster
    #[arg(long, conflicts_with_all = ["tenant", "name", "at_revision"])]
    all: bool,
    /// Exactly this revision of the tenant, which a chain of backups keeps
    #[arg(long, value_name = "REVISION", conflicts_with = "at_time")]
    at_revision: Option<Revision>,
    /// The tenant as it was at this time, such as 2026-12-01T02:40:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    at_time: Option<TenantTime>,
    /// Home of what is made; else the home in the backup
    #[arg(long, value_name = "REGION")]
    home: Option<String>,
    /// File with the progress; else NAME.progress, or ID.restored of all, in the working directory
    #[arg(long, value_name = "FILE")]
    progress: Option<PathBuf>,
}

fn time(text: &str) -> Result<TenantTime, String> {
    let time = humantime::parse_rfc3339_weak(text).map_err(|error| error.to_string())?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(TenantTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

impl Restore {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let catalog = self.from.catalog()?;
        match (&self.tenant, &self.name) {
            (Some(tenant), Some(name)) => self.one(tenant, name, &catalog, target).await,
            (_, _) => self.all(&catalog, target).await,
        }
    }

    fn moment(&self) -> Moment {
        match (self.at_revision, self.at_time) {
            (Some(revision), _) => Moment::Revision(revision),
            (None, Some(time)) => Moment::Time(time),
            (None, None) => Moment::Newest,
        }
    }

    async fn one(
        &self,
        tenant: &str,
        name: &TenantName,
        catalog: &Catalog,
        target: &Target,
    ) -> Result<(), CommandError> {
        let (chain, at) = kept::find(catalog, tenant, self.id.as_deref(), self.moment())?;
        let client = context::connect(target).await?;
        let progress = self.progress.clone();
        let progress = progress.unwrap_or_else(|| PathBuf::from(format!("{name}.progress")));
        let restoration = Restoration {
            client: &client,
            name: name.clone(),
            home: self.home.clone(),
            is_resumed: progress.exists(),
            progress,
            output: target.output,
        };
        let id = chain.tip().id.clone();
        let summary = Box::pin(restoration.run(chain, at)).await?;
        if target.output == Output::Json {
            return output::json(&json!({
                "tenant": name.to_string(),
                "keys": summary.lasting_keys.to_string(),
                "content": summary.content,
                "revision": at.revision.to_string(),
                "backup": id,
            }));
        }
        output::line(&format!(
            "tenant {name}: {} keys without a time to live, equal to {tenant} at revision {} of backup {id}",
            summary.lasting_keys, at.revision
        ))
    }

    async fn all(&self, catalog: &Catalog, target: &Target) -> Result<(), CommandError> {
        let manifest = catalog.find(self.id.as_deref())?;
        manifest.check_open()?;
        let path = self.progress.clone();
        let path = path.unwrap_or_else(|| PathBuf::from(format!("{}.restored", manifest.id)));
        let mut restored = Restored::load(path, &manifest.id)?;
        let client = context::connect(target).await?;
        self.check_all(&client, &manifest, &restored).await?;
        let mut table = OutputTable::new(&["TENANT", "KEYS", "REVISION"], 3);
        let count = manifest.tenants.len();
        for (place, tenant) in manifest.tenants.keys().enumerate() {
            if restored.is_done(tenant) {
                continue;
            }
            if target.output != Output::Json {
                eprintln!("{} of {count}: {tenant}", place + 1);
            }
            let of_tenant = |error: CommandError| error.map_message(|text| format!("tenant {tenant}: {text}"));
            let (chain, at) = kept::find(catalog, tenant, Some(&manifest.id), self.moment())?;
            let name: TenantName = tenant.parse().map_err(|error| {
                CommandError::new(Code::Failed, format!("the manifest has the tenant {tenant:?}: {error}"))
            })?;
            let is_resumed = restored.is_begun(tenant);
            restored.begin(tenant)?;
            let restoration = Restoration {
                client: &client,
                progress: restored.progress_of(tenant),
                name,
                home: self.home.clone(),
                is_resumed,
                output: target.output,
            };
            let summary = Box::pin(restoration.run(chain, at)).await.map_err(of_tenant)?;
            restored.end(tenant)?;
            let (keys, revision) = (summary.keys.to_string(), at.revision.to_string());
            let value = json!({ "tenant": tenant, "keys": keys, "content": summary.content, "revision": revision });
            table.push(vec![tenant.clone(), keys, revision], value);
        }
        restored.remove()?;
        table.print(target.output)
    }

    /// Refuses before anything is made: names in use, and homes that are not there.
    async fn check_all(&self, client: &Client, manifest: &Manifest, restored: &Restored) -> Result<(), CommandError> {
        let admin = client.admin();
        let tenants = admin.tenants("", "").await?.into_iter().map(|tenant| tenant.name);
        let names: BTreeSet<String> = tenants.filter(|name| !restored.is_begun(name)).collect();
        let used: Vec<&str> = manifest
            .tenants
            .keys()
            .filter(|name| names.contains(*name))
            .map(String::as_str)
            .collect();
        if !used.is_empty() {
            let what = format!("these tenants exist: {}", used.join(", "));
            let error = CommandError::new(Code::Conflict, what);
            return Err(error.hint("restore one by one with --as NAME, or into an empty cluster"));
        }
        let regions: BTreeSet<String> = admin.regions().await?.into_iter().map(|region| region.name).collect();
        let homes = manifest.tenants.values().map(|tenant| tenant.home.as_str());
        let homes: BTreeSet<&str> = match &self.home {
            Some(home) => BTreeSet::from([home.as_str()]),
            None => homes.collect(),
        };
        let missing: Vec<&str> = homes.into_iter().filter(|home| !regions.contains(*home)).collect();
        if !missing.is_empty() {
            let what = format!("the cluster has no region {}", missing.join(", "));
            return Err(CommandError::new(Code::NotFound, what).hint("--home names another home for all tenants"));
        }
        Ok(())
    }
}
