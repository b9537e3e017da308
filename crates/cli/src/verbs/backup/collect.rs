//! Reading of one tenant for a backup: all its keys at one revision, or the changes since a backup.

use std::rc::Rc;

use stead_client::{
    Client, Durability, ErrorKind, Followers, OnLeaseLoss, Revision, ScanOptions, Tenant, TenantInfo, WatchFrom,
    WatchMessage, WatchOptions, Watcher,
};
use stead_types::TenantTime;

use super::{
    catalog::Listed,
    files::Sink,
    manifest::{Manifest, Since, TenantBackup},
    parts::{ChangesWriter, KeysWriter, PartsWriter},
    policy::RegionLoss,
};
use crate::exit::CommandError;

/// Backup of a tenant on which changes build.
pub(super) struct Base {
    pub(super) manifest: Rc<Manifest>,
    revision: Revision,
    text: String,
}

/// Reads a tenant: the changes since its base where there is one, else all keys; `Err` of the base: why it has none.
pub(super) async fn back_up(
    client: &Client,
    tenant: &TenantInfo,
    sink: &Sink,
    folder: &str,
    base: Option<Result<Base, String>>,
) -> Result<TenantBackup, CommandError> {
    let of_tenant = |error: CommandError| error.map_message(|message| format!("tenant {}: {message}", tenant.name));
    let mut full_because = None;
    match base {
        Some(Ok(base)) => match changes(client, tenant, sink, folder, &base).await.map_err(of_tenant)? {
            Ok(backup) => return Ok(backup),
            Err(reason) => full_because = Some(reason),
        },
        Some(Err(reason)) => full_because = Some(reason),
        None => {}
    }
    let backup = keys(client, tenant, sink, folder).await.map_err(of_tenant)?;
    Ok(TenantBackup { full_because, ..backup })
}

/// Finds the newest backup of a tenant on which changes can build, or says why there is none.
pub(super) fn base(earlier: &[Listed], tenant: &TenantInfo) -> Result<Result<Base, String>, CommandError> {
    for Listed { id, manifest } in earlier.iter().rev() {
        let manifest = match manifest {
            Ok(manifest) if manifest.is_open() => Rc::clone(manifest),
            Ok(_) => return Ok(Err(format!("backup {id} is encrypted, and no key is given"))),
            Err(error) => return Ok(Err(format!("backup {id} is damaged: {}", error.text()))),
        };
        let Some(backup) = manifest.tenants.get(&tenant.name) else {
            continue;
        };
        if backup.number != tenant.number.get() {
            return Ok(Err(format!(
                "backup {id} is of another tenant of this name, which was deleted"
            )));
        }
        if backup.time.is_none() {
            return Ok(Err(format!("backup {id} was made by an earlier version")));
        }
        return Ok(Ok(Base {
            revision: backup.revision()?,
            text: backup.revision.clone(),
            manifest,
        }));
    }
    Ok(Err("there is no backup of it".to_owned()))
}

/// Writes all keys at one revision.
async fn keys(client: &Client, tenant: &TenantInfo, sink: &Sink, folder: &str) -> Result<TenantBackup, CommandError> {
    let mut writer = KeysWriter::new(PartsWriter::new(sink, folder.to_owned()));
    let mut items = client.tenant(&tenant.name)?.scan_stream(&ScanOptions::default());
    while let Some(item) = items.next().await? {
        writer.push(&item, items.time().unwrap_or_default())?;
    }
    let written = writer.finish()?;
    Ok(TenantBackup {
        revision: items.revision().unwrap_or_default().to_string(),
        time: items.time().map(|time| time.0),
        keys: written.keys,
        bytes: written.bytes,
        lasting_keys: written.lasting_keys,
        content: written.content,
        parts: written.parts,
        ..settings(tenant)
    })
}

/// Writes the changes since the base, or says why there is not every one of them.
async fn changes(
    client: &Client,
    tenant: &TenantInfo,
    sink: &Sink,
    folder: &str,
    base: &Base,
) -> Result<Result<TenantBackup, String>, CommandError> {
    let handle = client.tenant(&tenant.name)?;
    let (revision, time) = end(&handle).await?;
    let mut writer = ChangesWriter::new(PartsWriter::new(sink, folder.to_owned()));
    if revision > base.revision {
        let from = WatchOptions {
            from: WatchFrom::After(base.revision),
            ..WatchOptions::default()
        };
        let copied = match handle.watch(from).await {
            Ok(mut watcher) => copy(&mut watcher, tenant, revision, &mut writer).await?,
            Err(error) => Err(incomplete(&error).ok_or_else(|| CommandError::from(error))?),
        };
        if let Err(reason) = copied {
            writer.parts.discard()?;
            return Ok(Err(reason));
        }
    } else if revision < base.revision {
        let what = format!(
            "the tenant is at revision {revision}, before that of backup {}",
            base.manifest.id
        );
        return Ok(Err(what));
    }
    let (changes, bytes, parts) = writer.finish()?;
    let since = Since {
        backup: base.manifest.id.clone(),
        revision: base.text.clone(),
    };
    Ok(Ok(TenantBackup {
        revision: revision.to_string(),
        time: Some(time.0),
        bytes,
        parts,
        since: Some(since),
        changes,
        ..settings(tenant)
    }))
}

/// Copies changes up to a revision.
async fn copy(
    watcher: &mut Watcher,
    tenant: &TenantInfo,
    last: Revision,
    writer: &mut ChangesWriter<'_>,
) -> Result<Result<(), String>, CommandError> {
    loop {
        let message = match watcher.next().await {
            Ok(message) => message,
            Err(error) => return Ok(Err(incomplete(&error).ok_or_else(|| CommandError::from(error))?)),
        };
        match message {
            WatchMessage::Changes(events) => {
                writer.push(&events, last)?;
                if events.last().is_some_and(|event| event.item.modified >= last) {
                    return Ok(Ok(()));
                }
            }
            WatchMessage::Progress => {}
            WatchMessage::Forked { first, .. } => {
                return Ok(Err(format!("a promotion has cut revisions from {first} on")));
            }
            WatchMessage::State { .. } => return Ok(Err("history has gaps".to_owned())),
        }
        let Some(header) = watcher.header() else { continue };
        if header.tenant != tenant.number {
            return Ok(Err("another tenant has got its name".to_owned()));
        }
        if header.revision >= last {
            return Ok(Ok(()));
        }
    }
}

/// Returns the tenant's newest revision and its time.
async fn end(tenant: &Tenant) -> Result<(Revision, TenantTime), CommandError> {
    let one = ScanOptions {
        page_size: 1,
        keys_only: true,
        ..ScanOptions::default()
    };
    let header = tenant.scan(&one).await?.header;
    Ok((header.revision, header.tenant_time))
}

/// Returns why a watch does not have every change, if that is its error.
fn incomplete(error: &stead_client::Error) -> Option<String> {
    if let ErrorKind::Compacted { oldest } = &error.kind {
        return Some(format!("its history begins at {oldest} only"));
    }
    if let ErrorKind::Forked { first, .. } = &error.kind {
        return Some(format!("a promotion has cut revisions from {first} on"));
    }
    None
}

/// Returns what a backup has of a tenant beside its keys.
fn settings(tenant: &TenantInfo) -> TenantBackup {
    TenantBackup {
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
        continues_without_lease: tenant.on_lease_loss == OnLeaseLoss::Continue,
        region_loss: RegionLoss::of(tenant.on_region_loss),
        ..TenantBackup::default()
    }
}
