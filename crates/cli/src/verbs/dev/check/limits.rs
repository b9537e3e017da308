//! Step: limits. Calls within them succeed; calls beyond them are refused quickly, with the limit's name, and have no
//! effect.

use std::time::Duration;

use anyhow::ensure;
use stead_client::{ErrorKind, Op, ScanOptions, Tenant, TenantLimit, WriteOptions};
use tokio::time::Instant;

use super::verdict::Verdict;
use crate::verbs::dev::world::World;

const HOME: &str = "eu-west";
const KEY_LEN_MAX: usize = 4 << 10;
const VALUE_LEN_MAX: usize = 1 << 20;
const TXN_STEPS_MAX: usize = 512;
const KEYS_MAX: u64 = 20;
const CALLERS: usize = 64;
const REFUSALS_EACH: usize = 200;
/// Most CPU and waiting time of a refusal, client and server together.
const REFUSAL: Duration = Duration::from_micros(100);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let tenant = world
        .limited_tenant("check-limits", HOME, &[(TenantLimit::Keys, KEYS_MAX)])
        .await?;
    let run = world.run.clone();
    let sizes = sizes(&tenant, &run).await?;
    let quota = quota(&tenant, &run).await?;
    let refusal = refusals(&tenant).await?;
    Ok(Verdict::default()
        .none("sizes that are not as promised", sizes)
        .none("wrong answers of a full tenant", quota)
        .time("a refusal, both ends,", refusal, REFUSAL))
}

/// Counts calls that are refused within a limit, or not refused with its field beyond it.
async fn sizes(tenant: &Tenant, run: &str) -> anyhow::Result<usize> {
    let mut wrong = 0;
    let mut expect = |outcome: Result<(), stead_client::Error>, field: Option<&str>| {
        let refused = outcome.err().map(|error| error.kind);
        let expected = field.map(|field| ErrorKind::Invalid { field: field.into() });
        wrong += usize::from(refused != expected);
    };
    for (len, field) in [
        (KEY_LEN_MAX - 1, None),
        (KEY_LEN_MAX, None),
        (KEY_LEN_MAX + 1, Some("key")),
    ] {
        let key = format!("{run:0<len$}");
        expect(tenant.put(key.clone(), "v").await.map(drop), field);
        if field.is_none() {
            tenant.delete(key).await?;
        }
    }
    for (len, field) in [
        (VALUE_LEN_MAX - 1, None),
        (VALUE_LEN_MAX, None),
        (VALUE_LEN_MAX + 1, Some("value")),
    ] {
        expect(tenant.put(format!("{run}/value"), vec![0; len]).await.map(drop), field);
    }
    tenant.delete(format!("{run}/value")).await?;
    for (steps, field) in [(TXN_STEPS_MAX, None), (TXN_STEPS_MAX + 1, Some("then"))] {
        let reads = (0..steps).map(|step| Op::get(format!("{run}/{step}")));
        let txn = reads.fold(tenant.txn(), stead_client::Txn::then);
        expect(txn.send().await.map(drop), field);
    }
    Ok(wrong)
}

/// Counts wrong outcomes of a full tenant: it refuses new keys; existing ones can be read, changed and deleted.
async fn quota(tenant: &Tenant, run: &str) -> anyhow::Result<usize> {
    let mut wrong = 0;
    for at in 0..KEYS_MAX {
        tenant.put(format!("{run}/{at}"), "v").await?;
    }
    let full = tenant.put(format!("{run}/more"), "v").await;
    let is_named = |limit: &str| limit == TenantLimit::Keys.name();
    wrong += usize::from(
        !matches!(full.map_err(|error| error.kind), Err(ErrorKind::QuotaExceeded { limit }) if is_named(&limit)),
    );
    wrong += usize::from(tenant.put(format!("{run}/0"), "w").await.is_err());
    wrong += usize::from(tenant.get(format!("{run}/0")).await?.item.is_none());
    tenant.delete(format!("{run}/0")).await?;
    wrong += usize::from(tenant.put(format!("{run}/more"), "v").await.is_err());
    let count = ScanOptions {
        count_only: true,
        ..ScanOptions::default()
    };
    wrong += usize::from(tenant.scan(&count).await?.count != KEYS_MAX);
    Ok(wrong)
}

/// Returns the time of one refusal, of many concurrent ones.
async fn refusals(tenant: &Tenant) -> anyhow::Result<Duration> {
    let asked = Instant::now();
    let caller = async |caller: usize| {
        let mut refused = 0;
        for at in 0..REFUSALS_EACH {
            let put = tenant
                .put_with(format!("over/{caller}/{at}"), "v", &WriteOptions::default())
                .await;
            refused += usize::from(put.is_err());
        }
        refused
    };
    let refused: usize = futures::future::join_all((0..CALLERS).map(caller))
        .await
        .into_iter()
        .sum();
    ensure!(refused == CALLERS * REFUSALS_EACH, "a full tenant took a key more");
    Ok(asked.elapsed() / (CALLERS * REFUSALS_EACH) as u32)
}
