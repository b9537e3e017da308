//! CPU cost of an operation for a client and the node that it calls, over a real connection.
//!
//! `cargo bench -p stead-benches --bench front` runs one node on a disk in memory, in one process with its client, and
//! prints a table in Markdown. A read with `LOCAL` passes the client, the connection and the node's front end
//! (listener, service, router), and looks up a row; a put passes Raft, of one voter, and its machine as well. The cost
//! of the front end is at most that of the read.

use std::time::Instant;

use anyhow::Result;
use stead_benches::{one_node, process_cpu};
use stead_client::{Client, Consistency, NewTenant, ReadOptions, Tenant, TenantLimit, TenantLimits};
use stead_server::environment::Environment;
use stead_store::Disk;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Operations of each measurement.
const OPERATIONS: usize = 400_000;
const CALLERS: [usize; 4] = [1, 16, 64, 256];
const VALUE: [u8; 256] = [7; 256];

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
    // The front end is measured, not the default limit.
    let mut limits = TenantLimits::default();
    limits.set(TenantLimit::OperationsPerSecond, 1_000_000_000)?;
    limits.set(TenantLimit::BytesPerSecond, 1 << 40)?;
    let new = NewTenant {
        name: "bench".into(),
        limits,
        ..NewTenant::default()
    };
    client.admin().create_tenant(new).await?;
    let tenant = client.tenant("bench")?;
    println!("| operation | callers | per second | us of CPU each, client and node |");
    println!("| --- | --- | --- | --- |");
    for callers in CALLERS {
        for operation in [Operation::Put, Operation::GetLocal] {
            measure(operation, &tenant, callers).await?;
        }
    }
    stop.cancel();
    node.await??;
    Ok(())
}

/// Operation that is measured.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Put,
    GetLocal,
}

impl Operation {
    async fn run(self, tenant: &Tenant, key: String) -> Result<()> {
        match self {
            Self::Put => tenant.put(key, VALUE.as_slice()).await.map(drop)?,
            Self::GetLocal => tenant
                .get_with(key, &ReadOptions::at(Consistency::Local))
                .await
                .map(drop)?,
        }
        Ok(())
    }
}

async fn measure(operation: Operation, tenant: &Tenant, callers: usize) -> Result<()> {
    let each = if callers == 1 {
        OPERATIONS / 20
    } else {
        OPERATIONS / callers
    };
    let (began, cpu) = (Instant::now(), process_cpu());
    let mut running = JoinSet::new();
    for caller in 0..callers {
        let tenant = tenant.clone();
        running.spawn(async move {
            for at in 0..each {
                operation
                    .run(&tenant, format!("caller/{caller}/{}", at % 1_000))
                    .await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    let count = (each * callers) as f64;
    let rate = count / began.elapsed().as_secs_f64();
    let each = (process_cpu() - cpu).as_secs_f64() * 1e6 / count;
    println!("| {operation:?} | {callers} | {rate:.0} | {each:.1} |");
    Ok(())
}
