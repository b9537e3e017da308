//! Acceptance step of `stead backup`: under load a backup has exactly one revision, it is restored beside the live tenant,
//! and a flipped bit is found and named.

use std::path::Path;

use anyhow::{Context, ensure};
use bytes::Bytes;
use stead_client::{Consistency, ErrorKind, Op, ReadOptions, ScanOptions, Tenant};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Verdict, command_line::CommandLine};
use crate::verbs::dev::world::{World, ensure_tenant};

const TENANT: &str = "acme";
/// Keys that a transaction writes together: at one revision they are equal.
const KEYS: usize = 100;
/// Keys that nobody writes meanwhile, so that a backup takes several pages.
const OTHER_KEYS: usize = 20_000;
const KEYS_OF_TRANSACTION: usize = 500;

pub(super) async fn run(world: &mut World, data: &Path) -> anyhow::Result<Verdict> {
    let home = "eu-west";
    let client = world.client(home).await?;
    let source = format!("{TENANT}-{}", world.run);
    ensure_tenant(client.clone(), source.clone(), home).await?;
    let tenant = client.tenant(&source)?;
    fill(&tenant).await?;
    let command_line = CommandLine::prepare(world, data, "backup").await?;
    let stop = CancellationToken::new();
    let load = tokio::spawn(write_together(tenant.clone(), stop.clone()));
    let started = Instant::now();
    let created = command_line
        .run(&["backup", "create", "--to", "backups", "--tenant", &source, "-o", "json"])
        .await;
    let took = started.elapsed();
    stop.cancel();
    let written = load.await??;
    let created: serde_json::Value = serde_json::from_str(&created?)?;
    command_line.run(&["backup", "verify", "--from", "backups"]).await?;
    let restored = format!("{source}-restored");
    command_line
        .run(&["backup", "restore", &source, "--from", "backups", "--as", &restored])
        .await?;
    let (keys, values) = written_together(&client.tenant(&restored)?).await?;
    let folder = created["folder"].as_str().context("the backup has no folder")?;
    let damaged = flip_bit(&command_line.folder.join(folder))?;
    let found = command_line.refused(&["backup", "verify", "--from", "backups"]).await?;
    let again = format!("{source}-again");
    let refused = command_line
        .refused(&["backup", "restore", &source, "--from", "backups", "--as", &again])
        .await?;
    let is_made = !matches!(
        client.admin().tenant(&again).await,
        Err(error) if matches!(error.kind, ErrorKind::TenantNotFound | ErrorKind::NotFound)
    );
    Ok(Verdict::default()
        .note(format!(
            "{} keys in {:.1} s beside {written} writes",
            KEYS + OTHER_KEYS,
            took.as_secs_f64()
        ))
        .none("keys missing", (KEYS + OTHER_KEYS).abs_diff(keys))
        .none("other revisions", values.abs_diff(1))
        .none(
            "damages not named",
            usize::from(!found.contains(&damaged) || !refused.contains(&damaged)),
        )
        .none("tenants made of a damaged backup", usize::from(is_made)))
}

async fn fill(tenant: &Tenant) -> anyhow::Result<()> {
    for first in (0..OTHER_KEYS).step_by(KEYS_OF_TRANSACTION) {
        let puts = (first..first + KEYS_OF_TRANSACTION).map(|key| Op::put(format!("other/{key:06}"), vec![b'v'; 100]));
        puts.fold(tenant.txn(), stead_client::Txn::then).send().await?;
    }
    Ok(())
}

/// Writes the same number to all keys, one transaction after the other; returns how many.
async fn write_together(tenant: Tenant, stop: CancellationToken) -> anyhow::Result<u64> {
    for number in 0_u64.. {
        let puts = (0..KEYS).map(|key| {
            // The first and the last key of all are among them.
            let name = if key % 2 == 0 { "a" } else { "z" };
            Op::put(format!("{name}/{key:03}"), number.to_string())
        });
        puts.fold(tenant.txn(), stead_client::Txn::then).send().await?;
        if stop.is_cancelled() {
            return Ok(number);
        }
    }
    Ok(0)
}

/// Returns the number of all keys, and of the different values of those that are written together.
async fn written_together(tenant: &Tenant) -> anyhow::Result<(usize, usize)> {
    let scan = ScanOptions {
        read: ReadOptions::at(Consistency::Linearizable),
        ..ScanOptions::default()
    };
    let (mut keys, mut values) = (0, std::collections::BTreeSet::<Bytes>::new());
    let mut items = tenant.scan_stream(&scan);
    while let Some(item) = items.next().await? {
        keys += 1;
        if !item.key.starts_with(b"other/") {
            values.insert(item.value);
        }
    }
    Ok((keys, values.len()))
}

/// Flips one bit in the middle of the first part; returns the part's name.
fn flip_bit(folder: &Path) -> anyhow::Result<String> {
    let mut tenants = std::fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    let tenant = tenants.find(|path| path.is_dir()).context("the backup has no tenant")?;
    let part = std::fs::read_dir(tenant)?
        .next()
        .context("the tenant has no part")??
        .path();
    let mut bytes = std::fs::read(&part)?;
    ensure!(!bytes.is_empty(), "the part is empty");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&part, bytes)?;
    Ok(part.file_name().unwrap_or_default().to_string_lossy().into_owned())
}
