//! Last beats of the demo: the home region is gone, another one takes over after the lease, and the region returns with
//! writes that nobody else had.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use stead_api::{
    net::{Keepalive, Request},
    proto::v1::{GetRequest, PutRequest, kv_service_client::KvServiceClient},
    status,
};
use stead_client::{
    Admin, ErrorKind, ForkName, LossWindow, PromotionRequest, PromotionSelection, ReceiptStatus, ReplayOutcome,
    Revision, Tenant,
};
use stead_testing::{
    Link,
    load::{Load, LoadReport},
    promotions::{Promotion, first_in, promote},
};
use stead_types::Epoch;
use tokio::time::sleep;

use super::{HOME, KEY, NEXT_HOME, WARM_UP, WRITES_PER_SECOND, print_step};
use crate::{
    output,
    verbs::dev::{
        lost_region::{kill_region, leases_are_short, links, newest_fork, replay, restart},
        world::{World, until},
    },
};

const TENANT: &str = "acme";
/// Time for which the region acknowledges writes that no other region receives, before its nodes are killed.
const ALONE: Duration = Duration::from_millis(300);
const REASON: &str = "demo: the region is gone";
/// Time after which the promotion is given up.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// Writes of the region that is lost, and its last one, of a key that its successor writes too.
struct LostWrites {
    load: Load,
    conflict: Revision,
}

/// Loses the home of acme; returns once each of its acknowledged writes is known to be live or in the fork.
pub(super) async fn run(world: &mut World) -> anyhow::Result<()> {
    println!(
        "7 {NEXT_HOME}, now acme's home, is cut off and then gone: SIGKILL of its nodes, {WRITES_PER_SECOND} writes/s running"
    );
    let admin = world.client(HOME).await?.admin();
    let survivor = world.tenant(TENANT, HOME, HOME).await?;
    leases_are_short(world, &admin, NEXT_HOME, TENANT).await?;
    let lost = lose(world).await?;
    let request = PromotionRequest {
        reason: REASON.into(),
        to: Some(HOME.into()),
        ..PromotionRequest::new(PromotionSelection::Tenants(vec![TENANT.into()]))
    };
    print_plan(&admin, &request).await?;
    let promotion = promote(&admin, request, GIVEN_UP).await?;
    let epoch = print_promotion(&promotion, &lost.load, &survivor).await?;
    println!("8 {NEXT_HOME} returns");
    restart(world).await?;
    old_home_refuses(world).await?;
    let writes = lost.load.finish().await?;
    let tail = replay_tail(&admin).await?;
    account_for_all(&survivor, epoch, writes, lost.conflict).await?;
    println!("  the conflict is left to you: stead fork show {tail}");
    Ok(())
}

/// Has the region write what nobody else receives, and kills its nodes.
async fn lose(world: &mut World) -> anyhow::Result<LostWrites> {
    let near = world.client(NEXT_HOME).await?.tenant(TENANT)?;
    let load = Load::start(near.clone(), format!("lost/{}", world.run), WRITES_PER_SECOND);
    sleep(WARM_UP).await;
    let links = links(world, NEXT_HOME).await?;
    links.iter().for_each(Link::cut);
    let written = async {
        // What was under way when the links were cut may arrive; what is written last does not.
        sleep(ALONE).await;
        let put = near.put(KEY, "ann, 98 credits").await?;
        anyhow::Ok(put.header.revision)
    };
    let written = written.await;
    let killed = kill_region(world, NEXT_HOME).await;
    links.iter().for_each(Link::heal);
    killed?;
    Ok(LostWrites {
        load,
        conflict: written?,
    })
}

/// Shows what a promotion would do, before anything is decided.
async fn print_plan(admin: &Admin, request: &PromotionRequest) -> anyhow::Result<()> {
    let mut plan = None;
    until("a dry run answers", async || {
        let asked = PromotionRequest {
            dry_run: true,
            ..request.clone()
        };
        plan = admin.promote(asked).await?.promotion_plan;
        Ok(plan.is_some())
    })
    .await?;
    let plan = plan.context("there is a plan")?;
    let item = plan.items.iter().find(|item| item.tenant == TENANT);
    let item = item.context("the plan lacks the tenant")?;
    ensure!(item.blocker.is_empty(), "the plan is blocked: {}", item.blocker);
    let to = item.to.as_ref().context("the plan has no new home")?;
    let kept = item.kept.context("the plan has no position")?;
    print_step(
        "dry run: the longest wait for its lease",
        &seconds(plan.wait_max.unwrap_or_default()),
        &format!(
            "then {}, from {TENANT}@{kept} on; at risk: {}",
            to.region,
            window(item.loss)
        ),
    );
    Ok(())
}

/// Shows what a promotion has done, and returns the epoch of the new home once that takes writes.
async fn print_promotion(promotion: &Promotion, load: &Load, survivor: &Tenant) -> anyhow::Result<Epoch> {
    let decided = promotion.tenant(TENANT).context("the report lacks the tenant")?;
    let epoch = Epoch::new(decided.epoch).with_context(|| format!("acme was not promoted: {}", decided.reason))?;
    let (to, kept) = (decided.to.as_ref(), decided.kept);
    let to = to.context("the report has no new home")?;
    print_step(
        &format!("promoted to {}, epoch {epoch}", to.region),
        &seconds(promotion.longest().unwrap_or_default()),
        &format!(
            "kept up to {TENANT}@{}; at risk: {}",
            kept.context("the report has no position")?,
            window(decided.loss)
        ),
    );
    // The successor writes the key that the lost region has written last.
    survivor.put(KEY, "ann, 97 credits").await?;
    until("callers of the lost region write to its successor", async || {
        Ok(first_in(&load.acknowledged_since(0).await, epoch).is_some())
    })
    .await?;
    Ok(epoch)
}

/// Sends a write to a node of the old home, which is not to pass it on.
async fn old_home_refuses(world: &World) -> anyhow::Result<()> {
    let address = {
        let cluster = world.cluster.lock().await;
        let node = cluster.nodes().iter().find(|node| node.region == NEXT_HOME);
        node.context("the region has no node")?.client.clone()
    };
    let mut kv = KvServiceClient::new(world.channel(NEXT_HOME, &address, Keepalive::CLIENT)?);
    // A write that comes before the node knows its successor could get into its log, and into the fork.
    until("the old home knows its successor", async || {
        let get = GetRequest {
            tenant: TENANT.into(),
            key: KEY.into(),
            ..GetRequest::default()
        };
        let answer = kv.clone().get(direct(get)?).await;
        let refusal = answer.err().context("the old home has answered a read")?;
        Ok(matches!(status::from_status(&refusal).kind, ErrorKind::NotHome { .. }))
    })
    .await?;
    let put = PutRequest {
        tenant: TENANT.into(),
        key: KEY.into(),
        value: "ann, 96 credits".into(),
        ..PutRequest::default()
    };
    let answer = kv.put(direct(put)?).await;
    let refusal = answer.err().context("the old home has taken a write")?;
    let ErrorKind::NotHome { region, .. } = status::from_status(&refusal).kind else {
        bail!("the old home has not refused a write, but {refusal}");
    };
    print_step(
        "a write for the old home alone",
        "",
        &format!("refused: NOT_HOME, the home is {region}"),
    );
    Ok(())
}

/// Returns a request that a node is not to pass on.
fn direct<T>(message: T) -> anyhow::Result<Request<T>> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-stead-routing", "direct".parse()?);
    Ok(request)
}

/// Writes again what can be, and returns the fork, as arguments of commands.
async fn replay_tail(admin: &Admin) -> anyhow::Result<String> {
    let fork = newest_fork(admin, TENANT).await?;
    let name = ForkName {
        tenant: TENANT.into(),
        group: fork.group,
        number: fork.number,
    };
    let replayed = replay(admin, &name, REASON).await?;
    let count = |outcome| replayed.iter().filter(|change| change.outcome == outcome).count();
    print_step(
        &format!("writes that nobody else had: {}", fork.changes),
        "",
        &format!(
            "{} written again, {} already sent again by their callers, {} left: the key was written since",
            count(ReplayOutcome::Written),
            count(ReplayOutcome::Found),
            count(ReplayOutcome::Left)
        ),
    );
    Ok(format!("{TENANT} --group {} --fork {}", name.group, name.number))
}

/// Checks that each write that the lost home has acknowledged is live or in the fork.
async fn account_for_all(
    survivor: &Tenant,
    epoch: Epoch,
    writes: LoadReport,
    conflict: Revision,
) -> anyhow::Result<()> {
    let acknowledged = writes.acknowledged.iter().map(|write| write.revision);
    let mut of_lost_home: Vec<Revision> = acknowledged.filter(|revision| revision.epoch() < epoch).collect();
    of_lost_home.push(conflict);
    let receipts = survivor.check_receipts(&of_lost_home).await?.receipts;
    let (mut live, mut again, mut left, mut neither) = (0, 0, 0, 0);
    for receipt in receipts {
        match receipt.status {
            ReceiptStatus::Survived => live += 1,
            ReceiptStatus::Replayed(_) => again += 1,
            ReceiptStatus::Cut if !receipt.forks.is_empty() => left += 1,
            ReceiptStatus::Cut | ReceiptStatus::Undecided | ReceiptStatus::TooOld | ReceiptStatus::Unknown => {
                neither += 1
            }
        }
    }
    println!(
        "  of {} acknowledged writes {live} survived, {again} were written again, {left} in the fork · {neither} lost · {} twice",
        of_lost_home.len(),
        writes.twice
    );
    ensure!(
        neither == 0,
        "{neither} acknowledged writes are neither live nor in the fork"
    );
    ensure!(writes.twice == 0, "{} writes happened twice", writes.twice);
    Ok(())
}

fn window(loss: LossWindow) -> String {
    match (loss, loss.length()) {
        (LossWindow::None, _) => "nothing".to_owned(),
        (_, Some(length)) => format!("acknowledgements of {}", output::duration(length)),
        (_, None) => "acknowledgements of an unknown time".to_owned(),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
