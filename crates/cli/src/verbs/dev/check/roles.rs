//! Steps: roles of callers hold in every region, for reads, writes, scans and watches; changes and refusals are in the audit
//! log.

use std::time::Duration;

use anyhow::Context;
use stead_client::{Client, Error, ErrorKind, ScanOptions, TokenSource, WatchOptions, Watcher};
use stead_testing::cluster::credentials::ISSUER;
use tokio::time::{Instant, sleep};

use super::verdict::Verdict;
use crate::verbs::dev::{plan::REGIONS, world::World};

const HOME: &str = "eu-west";
const TENANT: &str = "check-roles";
/// Longest wait for a role to count, or to count no more, in every region.
const EVERYWHERE_MAX: Duration = Duration::from_secs(2);
/// Longest wait for the end of a watch: a quiet one is told with its next progress message.
const WATCH_END_MAX: Duration = Duration::from_secs(15);
/// Longest wait for records in the audit log.
const RECORD_MAX: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Client of a region with a token of its own.
struct TokenHolder {
    client: Client,
    identity: String,
}

async fn caller(world: &World, region: &str, roles: &[&str]) -> anyhow::Result<TokenHolder> {
    let cluster = world.cluster.lock().await;
    let credentials = cluster.credentials().context("it needs a cluster without --plain")?;
    drop(cluster);
    let subject = format!("check-{region}-{:08x}", rand::random::<u32>());
    let file = credentials
        .private_key(ISSUER)
        .with_file_name(format!("{subject}.token"));
    credentials.make_token(&subject, roles, &file)?;
    let token = TokenSource::file(&file)?;
    Ok(TokenHolder {
        client: world.client_with_token(region, token).await?,
        identity: format!("token/{ISSUER}/{subject}"),
    })
}

fn is_denied<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(error) if error.kind == ErrorKind::PermissionDenied)
}

/// Roles, by every way, in every region; one that is granted and taken away.
pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let home = world.tenant(TENANT, HOME, HOME).await?;
    for key in ["a/1", "b/1"] {
        home.put(key, "1").await?;
    }
    let (mut leaked, mut refused) = (0, 0);
    let mut without = 0;
    for (region, _) in REGIONS {
        let reader = caller(world, region, &[&format!("tenant-reader:{TENANT}:a/")]).await?;
        let tenant = reader.client.tenant(TENANT)?;
        let inside = ScanOptions {
            prefix: "a/".into(),
            ..ScanOptions::default()
        };
        refused += usize::from(tenant.get("a/1").await.is_err()) + usize::from(tenant.scan(&inside).await.is_err());
        let outside = [
            is_denied(&tenant.get("b/1").await),
            is_denied(&tenant.scan(&ScanOptions::default()).await),
            is_denied(&tenant.put("a/1", "2").await),
            is_denied(&tenant.watch(WatchOptions::default()).await),
            is_denied(&reader.client.admin().tenants("", "").await),
        ];
        leaked += outside.iter().filter(|denied| !**denied).count();
        let nobody = world.client_with_token(region, TokenSource::default()).await;
        without += usize::from(nobody.is_ok());
    }
    let verdict = Verdict::default()
        .none("leaked", leaked)
        .none("refused wrongly", refused)
        .none("served without a credential", without);
    grant_and_revoke(world, verdict).await
}

async fn grant_and_revoke(world: &mut World, verdict: Verdict) -> anyhow::Result<Verdict> {
    let (role, admin) = (format!("tenant-reader:{TENANT}"), world.client(HOME).await?.admin());
    let mut readers = Vec::new();
    for (region, _) in REGIONS {
        // A role that it has anyway lets it find its way.
        readers.push(caller(world, region, &[&format!("tenant-writer:{TENANT}:none/")]).await?);
    }
    let began = Instant::now();
    for reader in &readers {
        admin.grant_role(&reader.identity, &role, "dev --check").await?;
    }
    let mut watches = Vec::new();
    for reader in &readers {
        wait(RECORD_MAX, async || reads(&reader.client).await).await?;
        watches.push(reader.client.tenant(TENANT)?.watch(WatchOptions::default()).await?);
    }
    let granted = began.elapsed();
    let began = Instant::now();
    for reader in &readers {
        admin.revoke_role(&reader.identity, &role, "dev --check").await?;
    }
    for reader in &readers {
        wait(RECORD_MAX, async || !reads(&reader.client).await).await?;
    }
    let revoked = began.elapsed();
    let mut running = 0;
    for watch in &mut watches {
        running += usize::from(!ends_denied(watch).await);
    }
    Ok(verdict
        .time("granted everywhere", granted, EVERYWHERE_MAX)
        .time("revoked everywhere", revoked, EVERYWHERE_MAX)
        .time("watches ended", began.elapsed(), WATCH_END_MAX)
        .none("watches go on", running))
}

async fn reads(client: &Client) -> bool {
    match client.tenant(TENANT) {
        Ok(tenant) => tenant.get("b/1").await.is_ok(),
        Err(_) => false,
    }
}

async fn ends_denied(watch: &mut Watcher) -> bool {
    let ended = async {
        loop {
            if let Err(error) = watch.next().await {
                return error.kind == ErrorKind::PermissionDenied;
            }
        }
    };
    tokio::time::timeout(2 * WATCH_END_MAX, ended).await.unwrap_or(false)
}

/// Changes with who and why, refusals with who and what was missing, and an emergency credential's use.
pub(super) async fn audit(world: &mut World) -> anyhow::Result<Verdict> {
    let admin = world.client(HOME).await?.admin();
    let stranger = caller(world, "us-east", &["tenant-reader:none"]).await?;
    let reason = format!("dev --check {:08x}", rand::random::<u32>());
    admin.grant_role(&stranger.identity, "auditor", &reason).await?;
    admin.revoke_role(&stranger.identity, "auditor", &reason).await?;
    let began = Instant::now();
    wait(RECORD_MAX, async || {
        // Before the revocation is known there, an auditor may.
        is_denied(&stranger.client.admin().role_bindings().await)
    })
    .await?;
    wait(RECORD_MAX, async || {
        let records = admin.audit("", 200).await.unwrap_or_default();
        records
            .iter()
            .any(|record| record.of_calls && record.who == stranger.identity)
    })
    .await?;
    let recorded = began.elapsed();
    let changes = admin.audit(&stranger.identity, 10).await?;
    let explained = changes
        .iter()
        .filter(|record| record.reason == reason && record.who.starts_with("token/"));
    let missing = 2_usize.saturating_sub(explained.count());
    Ok(Verdict::default()
        .none("changes without author and reason", missing)
        .time("refusal recorded", recorded, RECORD_MAX))
}

async fn wait(within: Duration, mut holds: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    while !holds().await {
        anyhow::ensure!(
            Instant::now() < deadline,
            "a role or a record did not come in {} s",
            within.as_secs()
        );
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}
