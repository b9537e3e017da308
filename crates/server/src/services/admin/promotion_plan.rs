//! Dry run of a promotion: what it would do, from what the groups that answer hold now.
//!
//! # Invariants
//!
//! 1. Nothing is proposed.
//! 2. It is never better than the truth as long as the groups that answer go on answering: copies only grow until they are
//!    frozen, the wait is the longest possible, and a group that does not answer now counts as silent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::stream::{FuturesUnordered, StreamExt};
use stead_api::{
    convert,
    proto::{
        admin::v1::{
            self as admin, OperationMetadata, PlannedPromotion, PromoteResponse, PromotionPlan,
            operation_metadata::Kind, promotion_plan,
        },
        google::longrunning::{self, operation},
        internal::v1::{ReadCopiesRequest, copy_service_client::CopyServiceClient},
    },
    status,
};
use stead_state::directory::{
    AuditContext, CopyReport, DirectoryView, GroupReport, PromotionFacts, PromotionForecast, PromotionItem,
    PromotionRequest, Rejection,
};
use stead_types::{Error, GroupId, TenantNumber};

use super::{
    place,
    promotion_homes::{HomeStatus, home_message, home_statuses, planned_move, refusal, unreachable},
    promotion_message::{self, blocker, chosen},
    promotion_options::{Options, needed_options},
    promotion_wait, target_check,
};
use crate::{
    admin_peers::{await_response, peer_request},
    host::Host,
    services::copies,
};

/// Most tenants that a plan lists.
const ITEMS_MAX: usize = 1_000;

/// Returns what a promotion would do, as an operation that is over and has no name.
pub(super) async fn plan(
    host: &Arc<Host>,
    by: AuditContext,
    request: PromotionRequest,
    even_if_healthy: bool,
) -> longrunning::Operation {
    let view = host.directory_view.read(DirectoryView::clone);
    let mut plan = PromotionPlan {
        selection: request.selection.to_string(),
        ..PromotionPlan::default()
    };
    let result = match fill(host, &view, request, even_if_healthy, &mut plan).await {
        Ok(promoted) => {
            let response = PromoteResponse {
                promoted,
                ..PromoteResponse::default()
            };
            operation::Result::Response(convert::operation::pack_promote_response(&response))
        }
        Err(error) => {
            plan.blockers.push(error.message.clone());
            operation::Result::Error(status::to_rpc_status(&error))
        }
    };
    let metadata = OperationMetadata {
        kind: Kind::Promotion.into(),
        who: by.who,
        reason: by.reason,
        promotion_plan: Some(plan),
        ..OperationMetadata::default()
    };
    longrunning::Operation {
        name: String::new(),
        metadata: Some(convert::operation::pack_metadata(&metadata)),
        done: true,
        result: Some(result),
    }
}

/// Fills a plan, and returns how many tenants would be promoted.
///
/// # Errors
///
/// The promotion would be refused.
async fn fill(
    host: &Arc<Host>,
    view: &DirectoryView,
    request: PromotionRequest,
    even_if_healthy: bool,
    plan: &mut PromotionPlan,
) -> Result<u64, Error> {
    let begins = nothing_known((host.wall)());
    view.settings().check_promotions(begins.now)?;
    let selected = PromotionForecast::of(view, &request, &begins);
    let selected = selected.map_err(|rejection| refused(view, &request, &rejection, &begins, plan))?;
    let (homes, unreachable, gathered) = futures::future::join3(
        home_statuses(host, view, &request),
        unreachable(host, view),
        gather(host, view, &selected, &BTreeSet::new()),
    )
    .await;
    let request = PromotionRequest { unreachable, ..request };
    let facts = gathered;
    let forecast = PromotionForecast::of(view, &request, &facts)?;
    let options = needed_options(view, &request, &facts, &forecast);
    plan.wait_left = promotion_wait::left(host, view, &forecast.items, facts.now)
        .await
        .map(convert::read::duration);
    let warnings = {
        let targets: BTreeSet<GroupId> = forecast.items.iter().filter_map(|(_, item)| chosen(item)).collect();
        let targets: Vec<(GroupId, u64)> = targets.into_iter().map(|target| (target, 0)).collect();
        target_check::blockers(host, &targets).await
    };
    let is_graceful = request.graceful_ms > 0;
    let healthy: Vec<&HomeStatus> = homes.iter().filter(|home| home.healthy).collect();
    plan.advice = advice(view, &request, &healthy, warnings);
    plan.homes = homes.iter().map(|home| home_message(view, home)).collect();
    plan.wait_max = Some(convert::read::duration(Duration::from_millis(facts.wait_ms)));
    describe(view, &facts, &forecast, &options, plan);
    if !healthy.is_empty() && !even_if_healthy && !is_graceful {
        plan.options_needed.push("--even-if-healthy".into());
        let healthy: Vec<GroupId> = healthy.iter().map(|home| home.group).collect();
        return Err(refusal(view, &request, &healthy));
    }
    Ok(plan.tenants - plan.tenants_blocked)
}

/// Returns facts of which only the time is known.
pub(super) fn nothing_known(now: u64) -> PromotionFacts {
    PromotionFacts {
        now,
        ..PromotionFacts::default()
    }
}

/// Notes which options a refused promotion lacks, and returns the error.
fn refused(
    view: &DirectoryView,
    request: &PromotionRequest,
    rejection: &Rejection,
    begins: &PromotionFacts,
    plan: &mut PromotionPlan,
) -> Error {
    let needed = lacking(view, request, begins);
    plan.options_needed = needed.as_ref().map(Options::names).unwrap_or_default();
    rejection.clone().into()
}

/// Returns the fewest options with which a refused promotion would begin.
pub(super) fn lacking(view: &DirectoryView, request: &PromotionRequest, begins: &PromotionFacts) -> Option<Options> {
    let helps = |options: &Options| PromotionForecast::of(view, &options.added_to(request), begins).is_ok();
    Options::sets(request).into_iter().find(helps)
}

fn advice(
    view: &DirectoryView,
    request: &PromotionRequest,
    healthy: &[&HomeStatus],
    warnings: Vec<String>,
) -> Vec<String> {
    let mut advice = Vec::new();
    if !healthy.is_empty() {
        let groups: Vec<String> = healthy
            .iter()
            .map(|home| promotion_message::named(view, home.group))
            .collect();
        let answer = if groups.len() == 1 { "answers" } else { "answer" };
        advice.push(format!(
            "{} {answer}: {}; --graceful-for 10s tries that first",
            groups.join(", "),
            planned_move(request)
        ));
    }
    if request.graceful_ms > 0 {
        advice.push(format!(
            "planned moves are tried for {:.1} s first and lose nothing; what follows is for tenants that have not moved then",
            Duration::from_millis(request.graceful_ms).as_secs_f64()
        ));
    }
    advice.extend(
        warnings
            .into_iter()
            .map(|warning| format!("a new home is not at its best: {warning}")),
    );
    advice
}

/// Asks the leaders of all members of the tenants of a forecast for their copies. The `lost` groups are taken for silent.
pub(super) async fn gather(
    host: &Host,
    view: &DirectoryView,
    selected: &PromotionForecast,
    lost: &BTreeSet<GroupId>,
) -> PromotionFacts {
    let mut members = BTreeMap::<GroupId, Vec<TenantNumber>>::new();
    for (number, _) in &selected.items {
        let tenant = view.tenant(*number);
        let groups = tenant.iter().flat_map(|tenant| tenant.members.iter());
        for member in groups {
            members.entry(member.group).or_default().push(*number);
        }
    }
    let ask = members.iter().map(async |(group, tenants)| {
        if lost.contains(group) {
            return (*group, None);
        }
        let mut reports = Vec::new();
        for tenants in tenants.chunks(copies::TENANTS_MAX) {
            match ask_leader(host, view, *group, tenants).await {
                Some(told) => reports.extend(told),
                None => return (*group, None),
            }
        }
        (*group, Some(reports))
    });
    let mut facts = nothing_known(0);
    for (group, told) in futures::future::join_all(ask).await {
        match told {
            Some(reports) => facts
                .copies
                .extend(reports.into_iter().filter_map(|report| copy(group, report))),
            None => drop(facts.silent.insert(group)),
        }
    }
    facts.now = (host.wall)();
    facts.wait_ms = promotion_wait::longest_ms(view, facts.now);
    facts
}

fn copy(group: GroupId, report: GroupReport) -> Option<((GroupId, TenantNumber), CopyReport)> {
    let GroupReport::Frozen {
        tenant,
        report,
        fresh_as_of,
        ..
    } = report
    else {
        return None;
    };
    Some(((group, tenant), CopyReport { report, fresh_as_of }))
}

/// Asks all voters of a group at once, and returns what its leader tells.
async fn ask_leader(
    host: &Host,
    view: &DirectoryView,
    group: GroupId,
    tenants: &[TenantNumber],
) -> Option<Vec<GroupReport>> {
    if let Some(own) = copies::read(host, group, tenants) {
        return Some(own);
    }
    let voters = view
        .group(group)?
        .voters
        .iter()
        .filter(|voter| **voter != host.config.node.id);
    let mut asked: FuturesUnordered<_> = voters
        .map(async |voter| {
            let address = view.node(*voter)?.addresses.peer.clone();
            let request = ReadCopiesRequest {
                group: group.get(),
                tenants: tenants.iter().map(|tenant| tenant.get()).collect(),
            };
            let mut client = CopyServiceClient::new(host.admin_peers.channel(&address)?);
            let answer = await_response(client.read_copies(peer_request(request))).await?;
            copies::read_answer(answer)
        })
        .collect();
    while let Some(answer) = asked.next().await {
        if answer.is_some() {
            return answer;
        }
    }
    None
}

/// Writes what a forecast says into a plan.
pub(super) fn describe(
    view: &DirectoryView,
    facts: &PromotionFacts,
    forecast: &PromotionForecast,
    options: &BTreeMap<TenantNumber, Options>,
    plan: &mut PromotionPlan,
) {
    let mut targets = BTreeMap::<GroupId, u64>::new();
    let mut needed = Options::default();
    let mut items = Vec::new();
    for (number, item) in &forecast.items {
        let is_blocked = blocker(item).is_some();
        let decision = item.decision.as_ref().filter(|_| !is_blocked);
        let is_at_risk = decision.is_some_and(|decision| decision.loss.is_some());
        plan.tenants += 1;
        plan.tenants_blocked += u64::from(is_blocked);
        plan.tenants_at_risk += u64::from(is_at_risk);
        if let Some(target) = chosen(item) {
            *targets.entry(target).or_default() += 1;
        }
        let own = options.get(number).copied().unwrap_or_default();
        needed = needed.and(own);
        items.push((!is_blocked, !is_at_risk, *number, item, own));
    }
    items.sort_by_key(|(is_free, is_safe, number, ..)| (*is_free, *is_safe, *number));
    plan.options_needed = needed.names();
    let target = |(group, tenants): (GroupId, u64)| promotion_plan::Target {
        place: Some(place(view, group)),
        tenants,
    };
    plan.targets = targets.into_iter().map(target).collect();
    let shown = items.into_iter().take(ITEMS_MAX);
    let planned = shown.map(|(_, _, number, item, own)| planned(view, facts, (number, item), own));
    plan.items = planned.collect();
}

fn planned(
    view: &DirectoryView,
    facts: &PromotionFacts,
    (number, item): (TenantNumber, &PromotionItem),
    options: Options,
) -> PlannedPromotion {
    let decision = item.decision.as_ref().filter(|_| chosen(item).is_some());
    let (loss_from, loss_to) = promotion_message::loss(decision.and_then(|decision| decision.loss));
    let members = view
        .tenant(number)
        .map(|tenant| tenant.members.to_vec())
        .unwrap_or_default();
    let copies = members
        .iter()
        .map(|member| copy_message(view, facts, member.group, number));
    PlannedPromotion {
        tenant: item.name.to_string(),
        from: Some(place(view, item.home)),
        to: decision.map(|decision| place(view, decision.home)),
        kept: decision.map(|decision| convert::id::from_revision(decision.kept)),
        loss_from,
        loss_to,
        nothing_lost: decision.is_some_and(|decision| decision.loss.is_none()),
        blocker: blocker(item).unwrap_or_default(),
        options_needed: options.names(),
        copies: copies.collect(),
    }
}

fn copy_message(
    view: &DirectoryView,
    facts: &PromotionFacts,
    group: GroupId,
    number: TenantNumber,
) -> admin::TenantCopy {
    let Some(held) = facts.copies.get(&(group, number)) else {
        return admin::TenantCopy {
            place: Some(place(view, group)),
            silent: true,
            ..admin::TenantCopy::default()
        };
    };
    let age = held
        .fresh_as_of
        .map(|fresh| Duration::from_millis(facts.now.saturating_sub(fresh)));
    admin::TenantCopy {
        place: Some(place(view, group)),
        silent: false,
        role: promotion_message::role(held.report.previous).into(),
        epoch: held.report.followed.get(),
        revision: Some(convert::id::from_revision(held.report.revision)),
        staleness: age.map(convert::read::duration),
        suspect: held.report.suspect,
    }
}
