//! The taking end of a pull: a frozen group takes over what another one has more of a tenant, as a promotion orders.
//!
//! Level-triggered: which pulls are due follows from the directory view. Each goes on after the last change of the own
//! log, so that a new leader, or another voter of the source, continues where the last one was.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use stead_api::proto::internal::v1::{PullPage, PullRequest, pull_refused::Reason, pull_response::Message};
use stead_raft::ProposeError;
use stead_state::{
    codec::{Malformed, Reader},
    directory::{DirectoryView, PromotionPhase},
    lineage::Lineage,
    shard::{
        ApplyResult,
        apply_result::GuardFailure,
        command::{FeedRecords, Pull, PullHeader},
        feed_validation::{InvalidFeedData, check_changes},
        record::{OperationId, Role},
    },
};
use stead_types::{Epoch, GroupId, NodeId, Revision, TenantNumber};
use tokio::time::{error::Elapsed, sleep, timeout};
use tonic::Status;

use crate::{
    completed_pulls::PullOrigin,
    feed_clients::{FeedClients, RESPONSE_TIMEOUT},
    group_context::GroupContext,
    payload::PayloadDecompressor,
    proposal_class,
};

/// Most tenants that are pulled at the same time.
const PULLS_MAX: usize = 4;
/// Pause before a pull is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const PART: &str = "taking over what another frozen group has more";

/// Pull that the directory has ordered.
#[derive(Clone, Copy, Debug)]
struct PullOrder {
    tenant: TenantNumber,
    operation: OperationId,
    epoch: Epoch,
    from: GroupId,
}

impl PullOrder {
    fn origin(&self) -> PullOrigin {
        PullOrigin {
            operation: self.operation,
            from: self.from,
        }
    }
}

/// Reason why a pull from one node failed.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error("the node of group {0} could not be reached: {1}")]
    Unreachable(GroupId, Status),
    #[error("no answer from a node of group {0}")]
    Late(GroupId, #[source] Elapsed),
    #[error("group {0} refuses to be pulled from: {why}", why = refusal(*.1))]
    Refused(GroupId, Reason),
    #[error("what group {0} sends is invalid")]
    Invalid(GroupId, #[source] InvalidFeedData),
    #[error("the changes were not committed")]
    NotCommitted(#[from] ProposeError),
    #[error("the changes were void: {0:?}")]
    Void(GuardFailure),
    #[error("this group is not frozen for the promotion yet")]
    NotFrozen,
    #[error("group {0} has no node that is known here")]
    NoNode(GroupId),
}

/// Says why a group refuses to be pulled from, and what to do.
fn refusal(reason: Reason) -> &'static str {
    match reason {
        Reason::Compacted => {
            "it no longer keeps what is missing here: promote the tenant again with --replace and name that group's region \
             with --to, or accept losses"
        }
        Reason::Forked => {
            "its history has parted from the one here: promote the tenant again with --replace and name that group's region \
             with --to"
        }
        Reason::NotFrozen => "it is not frozen for the promotion, or its copy is not whole: it is tried again",
        Reason::NotAdmitted => "its view of the directory does not admit this group: it is tried again",
        Reason::Unspecified => "it does not say why: run one version on all nodes",
    }
}

/// Task that takes over what the directory orders. Never returns; it is dropped when leadership ends.
pub(crate) async fn run(context: Arc<GroupContext>, feed_clients: Arc<FeedClients>) {
    let mut versions = context.directory_view.watch();
    let mut seen = *versions.borrow_and_update();
    let mut due = ordered(&context, None);
    let mut pulled: BTreeSet<TenantNumber> = BTreeSet::new();
    let mut running: FuturesUnordered<BoxFuture<'_, (TenantNumber, bool)>> = FuturesUnordered::new();
    loop {
        while running.len() < PULLS_MAX
            && let Some(tenant) = due.difference(&pulled).next().copied()
        {
            due.remove(&tenant);
            pulled.insert(tenant);
            let pull = pull(&context, &feed_clients, tenant);
            running.push(pull.map(move |is_done| (tenant, is_done)).boxed());
        }
        tokio::select! {
            changed = versions.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                let now = *versions.borrow_and_update();
                due.extend(ordered(&context, context.directory_view.tenants_changed_since(seen)));
                seen = now;
            }
            Some((tenant, is_done)) = running.next(), if !running.is_empty() => {
                pulled.remove(&tenant);
                if !is_done {
                    due.insert(tenant);
                }
            }
        }
    }
}

/// Returns those of some tenants, or of all, that this group is to take changes over of.
fn ordered(context: &GroupContext, among: Option<BTreeSet<TenantNumber>>) -> BTreeSet<TenantNumber> {
    let group = context.id();
    context.directory_view.read(|view| match among {
        Some(among) => {
            let is_ordered = |tenant: &TenantNumber| order(view, *tenant, group).is_some();
            among.into_iter().filter(is_ordered).collect()
        }
        None => {
            let all = view.tenants_from(TenantNumber::new(0));
            let promoted = all.filter(|tenant| tenant.promoting.is_some());
            promoted
                .filter_map(|tenant| Some(order(view, tenant.number, group)?.tenant))
                .collect()
        }
    })
}

/// Returns the pull that the directory has ordered this group to make of a tenant.
fn order(view: &DirectoryView, tenant: TenantNumber, group: GroupId) -> Option<PullOrder> {
    let promotion = view.tenant(tenant)?.promoting.as_deref()?;
    let PromotionPhase::Pulling { from, to } = promotion.phase else {
        return None;
    };
    let (operation, epoch) = (promotion.operation, promotion.epoch);
    (to == group).then_some(PullOrder {
        tenant,
        operation,
        epoch,
        from,
    })
}

/// Takes over what is ordered of a tenant; returns whether nothing is left to do. After a failure it returns only when
/// another attempt is due.
async fn pull(context: &GroupContext, feed_clients: &FeedClients, tenant: TenantNumber) -> bool {
    let Some(order) = context.directory_view.read(|view| order(view, tenant, context.id())) else {
        return true;
    };
    match pull_from_any(context, feed_clients, &order).await {
        Ok(last) => {
            context.succeeded(PART);
            let (group, from) = (context.id(), order.from);
            tracing::info!(%group, %tenant, %from, %last, "the rest of the tenant's history is taken over");
            context.pulls.complete(tenant, order.origin());
            context.taken_over.send_replace(());
            true
        }
        Err(error) => {
            context.record_retry(PART, &error);
            sleep(RETRY_PAUSE).await;
            false
        }
    }
}

/// Pulls from one voter of the source after the other, until one has sent all; returns the last change.
async fn pull_from_any(
    context: &GroupContext,
    feed_clients: &FeedClients,
    order: &PullOrder,
) -> Result<Revision, PullError> {
    let mut failure = PullError::NoNode(order.from);
    for node in feed_clients.voters(order.from) {
        match Box::pin(pull_from(context, feed_clients, node, order)).await {
            Ok(last) => return Ok(last),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn pull_from(
    context: &GroupContext,
    feed_clients: &FeedClients,
    node: NodeId,
    order: &PullOrder,
) -> Result<Revision, PullError> {
    let from = order.from;
    let unknown = || PullError::Unreachable(from, Status::unavailable("the node is not known here"));
    let mut client = feed_clients.dedicated_client(node).ok_or_else(unknown)?;
    let broken = |status: Status| {
        context.alarms.record_status(&status);
        PullError::Unreachable(from, status)
    };
    let mut after = position(context, order).ok_or(PullError::NotFrozen)?;
    let request = PullRequest {
        to_group: context.id().get(),
        from_group: from.get(),
        tenant: order.tenant.get(),
        operation: order.operation.0,
        epoch: order.epoch.get(),
        after: after.to_u64(),
    };
    let late = |late: Elapsed| PullError::Late(from, late);
    let asked = timeout(RESPONSE_TIMEOUT, client.pull(request)).await.map_err(late)?;
    let mut responses = asked.map_err(broken)?.into_inner();
    let mut decompressor = PayloadDecompressor::new();
    loop {
        let next = timeout(RESPONSE_TIMEOUT, responses.message()).await.map_err(late)?;
        match next.map_err(broken)?.and_then(|response| response.message) {
            Some(Message::Page(page)) => {
                let page = TakenPage::read(order, after, page, &mut decompressor);
                let page = page.map_err(|invalid| PullError::Invalid(from, invalid))?;
                after = page.last;
                propose(context, order, page).await?;
                if context.pulls.progress(order.tenant, order.origin()) {
                    context.taken_over.send_replace(());
                }
            }
            Some(Message::Refused(refused)) => return Err(PullError::Refused(from, refused.reason())),
            Some(Message::End(end)) if Revision::from_u64(end.last) == after => return Ok(after),
            Some(Message::End(_)) | None => return Err(broken(Status::cancelled("the pull ended before its end"))),
        }
    }
}

/// Returns the last change of the own copy, if it is frozen for the promotion.
fn position(context: &GroupContext, order: &PullOrder) -> Option<Revision> {
    let found = context.machine.read(|held| {
        let record = held.record(order.tenant)?;
        let is_frozen = matches!(
            record.role,
            Role::Frozen { operation, epoch, .. } if operation == order.operation && epoch == order.epoch
        );
        is_frozen.then_some(record.live.revision)
    });
    found.ok().flatten()
}

/// Page of a pull, checked before every replica reads it from the log.
#[derive(Debug)]
struct TakenPage {
    after: Revision,
    last: Revision,
    lineage: Lineage,
    records: FeedRecords,
}

impl TakenPage {
    fn read(
        order: &PullOrder,
        after: Revision,
        page: PullPage,
        decompressor: &mut PayloadDecompressor,
    ) -> Result<Self, InvalidFeedData> {
        let malformed = Malformed {
            what: "compressed page of a pull",
        };
        let payload = decompressor
            .decompress(page.payload, page.raw_len)
            .map_err(|_| InvalidFeedData::Unreadable(malformed))?;
        let records = FeedRecords::decode(payload)?;
        let mut reader = Reader::new(page.lineage, "lineage");
        let lineage = Lineage::decode(&mut reader)?;
        reader.end()?;
        let found = records.changes.first().map_or(Revision::ZERO, |first| first.revision);
        if after.sequence().next() != Some(found.sequence()) {
            return Err(InvalidFeedData::NotContiguous { after, found });
        }
        let last = check_changes(&records.changes, order.epoch, Some(after))?;
        if last != Some(Revision::from_u64(page.last)) || lineage.epoch() >= order.epoch {
            return Err(InvalidFeedData::OtherSession);
        }
        Ok(Self {
            after,
            last: Revision::from_u64(page.last),
            lineage,
            records,
        })
    }
}

async fn propose(context: &GroupContext, order: &PullOrder, page: TakenPage) -> Result<(), PullError> {
    let head = PullHeader {
        tenant: order.tenant,
        version: context.directory_view.version(),
        operation: order.operation,
        epoch: order.epoch,
        from: order.from,
        after: page.after,
        last: page.last,
        lineage: page.lineage,
    };
    let records = page.records;
    let pull = Pull { head, records };
    let answers = context.group.propose(proposal_class::PULL, vec![pull.encode()]).await?;
    match answers.first() {
        Some(ApplyResult::GuardFailed(failure)) => Err(PullError::Void(*failure)),
        Some(ApplyResult::Data(taken)) if taken.detached.is_some() => {
            let (group, tenant, from) = (context.id(), order.tenant, order.from);
            tracing::error!(%group, %tenant, %from, "a copy's digest does not match that of the group it was taken over from");
            Ok(())
        }
        Some(_) | None => Ok(()),
    }
}
