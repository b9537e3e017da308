//! CPU cost of a refused operation, and latency of a quiet tenant beside a tenant that floods.
//!
//! `cargo bench -p stead-benches --bench limits` runs one node on a disk in memory, in one process with its client, and
//! prints two tables in Markdown. The CPU of a refused operation is that of both ends: the node's part is less.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use stead_benches::{one_node, process_cpu};
use stead_client::{
    Client, Consistency, ErrorKind, NewTenant, ReadOptions, Tenant, TenantLimit, TenantLimits, WriteOptions,
};
use stead_server::environment::Environment;
use stead_store::Disk;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Operations of each measurement.
const OPERATIONS: usize = 100_000;
const CALLERS: [usize; 3] = [1, 16, 64];
const VALUE: [u8; 256] = [7; 256];
/// Timeout shorter than the retry delay of a refusal, so that the client returns the refusal instead of a retry.
const SHORT_TIMEOUT: Duration = Duration::from_millis(100);
/// Writes of the quiet tenant that are timed.
const QUIET_WRITES: usize = 3_000;
/// Limit of the loud tenant, and the load that exceeds it.
const LOUD_OPERATIONS_PER_SECOND: u64 = 500;
const LOUD_CALLERS: usize = 64;
const LOUD_PAUSE: Duration = Duration::from_millis(10);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(bench())
}

async fn bench() -> Result<()> {
    let stop = CancellationToken::new();
    let (config, client_address) = one_node()?;
    let environment = Environment::real(config.dial.clone());
    let node = stead_server::node::run(
        config,
        environment,
        Some(Disk::default()),
        stop.clone(),
        Box::new(|| ()),
    );
    let node = tokio::spawn(node);
    let client = Client::connect(stead_client::Config::new([client_address])).await?;
    println!("| refused | callers | per second | us of CPU each, client and node |");
    println!("| --- | --- | --- | --- |");
    let spent = tenant(&client, "spent", TenantLimit::OperationsPerSecond, 1).await?;
    let full = tenant(&client, "full", TenantLimit::Keys, 0).await?;
    for callers in CALLERS {
        measure(RefusalKind::Rate, &spent, callers).await?;
        measure(RefusalKind::Keys, &full, callers).await?;
    }
    println!("\n| writes of a quiet tenant | p50, us | p99, us |");
    println!("| --- | --- | --- |");
    let limit = TenantLimit::OperationsPerSecond;
    let loud = tenant(&client, "loud", limit, LOUD_OPERATIONS_PER_SECOND).await?;
    let quiet = tenant(&client, "quiet", TenantLimit::Keys, 1_000).await?;
    latencies("alone", &quiet).await?;
    let flood = flood(&loud);
    latencies("beside a flood", &quiet).await?;
    drop(flood);
    latencies("alone again", &quiet).await?;
    stop.cancel();
    node.await??;
    Ok(())
}

async fn tenant(client: &Client, name: &str, limit: TenantLimit, value: u64) -> Result<Tenant> {
    let mut limits = TenantLimits::default();
    limits.set(limit, value)?;
    let new = NewTenant {
        name: name.into(),
        limits,
        ..NewTenant::default()
    };
    client.admin().create_tenant(new).await?;
    Ok(client.tenant(name)?)
}

/// Limit that refuses an operation.
#[derive(Clone, Copy, Debug)]
enum RefusalKind {
    Rate,
    Keys,
}

impl RefusalKind {
    /// Runs an operation that the limit refuses; returns whether it was refused.
    async fn run(self, tenant: &Tenant, key: String) -> Result<bool> {
        let refused = match self {
            Self::Rate => {
                let read = ReadOptions {
                    timeout: Some(SHORT_TIMEOUT),
                    ..ReadOptions::at(Consistency::Local)
                };
                tenant.get_with(key, &read).await.map(drop)
            }
            Self::Keys => tenant.put(key, VALUE.as_slice()).await.map(drop),
        };
        match refused.map_err(|error| error.kind) {
            Ok(()) => Ok(false),
            Err(ErrorKind::RateLimited { .. } | ErrorKind::QuotaExceeded { .. }) => Ok(true),
            Err(other) => bail!("{other:?}"),
        }
    }
}

async fn measure(refused: RefusalKind, tenant: &Tenant, callers: usize) -> Result<()> {
    let each = OPERATIONS / callers.max(10);
    let (began, cpu) = (Instant::now(), process_cpu());
    let mut running = JoinSet::new();
    for caller in 0..callers {
        let tenant = tenant.clone();
        running.spawn(async move {
            let mut count = 0_usize;
            for at in 0..each {
                count += usize::from(refused.run(&tenant, format!("{caller}/{at}")).await?);
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(done) = running.join_next().await {
        count += done??;
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    let each = (process_cpu() - cpu).as_secs_f64() * 1e6 / count as f64;
    println!("| {refused:?} | {callers} | {rate:.0} | {each:.1} |");
    Ok(())
}

/// Sends far more operations than the tenant's limit, until the returned set is dropped.
fn flood(tenant: &Tenant) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for caller in 0..LOUD_CALLERS {
        let tenant = tenant.clone();
        callers.spawn(async move {
            let write = WriteOptions {
                timeout: Some(Duration::from_millis(5)),
                ..WriteOptions::default()
            };
            loop {
                // The next one follows, whether it was refused or not.
                let _ = tenant.put_with(format!("{caller}"), VALUE.as_slice(), &write).await;
                tokio::time::sleep(LOUD_PAUSE).await;
            }
        });
    }
    callers
}

async fn latencies(name: &str, tenant: &Tenant) -> Result<()> {
    let mut times = Histogram::<u64>::new(3)?;
    for at in 0..QUIET_WRITES {
        let began = Instant::now();
        tenant
            .put(format!("{}", at % 100), VALUE.as_slice())
            .await
            .context("a quiet write")?;
        times.record(u64::try_from(began.elapsed().as_micros())?)?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let at = |quantile| times.value_at_quantile(quantile);
    println!("| {name} | {} | {} |", at(0.5), at(0.99));
    Ok(())
}
