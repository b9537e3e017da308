//! Figures of a bulk move's plan: what would be copied, how far the targets are behind, and how long writes pause. The homes
//! measure them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use stead_api::{
    convert,
    proto::admin::v1::{BulkMovePlan, ListForksRequest, MovePlan},
};
use stead_state::directory::{BulkMovePreview, DirectoryView, PreviewedMove, Selection};
use stead_types::{GroupId, RegionName};

use super::{fork::ForkService, tenant_move};
use crate::host::Host;

/// Most tenants whose homes are asked for the bytes that a copy takes.
const COPIES_ASKED_MAX: usize = 50;
/// Most forks of the region that are looked at.
const FORKS_ASKED_MAX: i32 = 1_000;

/// Adds the figures to a plan, and what is to be known first.
pub(super) async fn add(
    host: &Arc<Host>,
    view: &DirectoryView,
    selection: &Selection,
    preview: &BulkMovePreview,
    plan: &mut BulkMovePlan,
) {
    let mut pairs = BTreeMap::<(GroupId, GroupId), &PreviewedMove>::new();
    for one in &preview.moves {
        pairs.entry((one.from, one.to)).or_insert(one);
    }
    let copied: Vec<&PreviewedMove> = preview.moves.iter().filter(|one| one.joined).collect();
    let asked = copied.iter().take(COPIES_ASKED_MAX).map(|one| figures(host, view, one));
    let of_pairs = pairs.into_values().map(|one| figures(host, view, one));
    let (of_pairs, of_copies) = futures::future::join(join_all(of_pairs), join_all(asked)).await;
    let longest = |of: fn(&MovePlan) -> Option<prost_types::Duration>| {
        let known = of_pairs.iter().map(|figures| duration(of(figures.as_ref()?)?));
        known.collect::<Option<Vec<Duration>>>()?.into_iter().max()
    };
    plan.lag = longest(|figures| figures.lag).map(convert::read::duration);
    plan.pause = longest(|figures| figures.pause).map(convert::read::duration);
    let bytes = of_copies.iter().map(|figures| figures.as_ref()?.cross_region_bytes);
    let bytes = bytes.sum::<Option<u64>>();
    plan.copy_bytes = bytes.filter(|_| copied.len() <= COPIES_ASKED_MAX);
    if let Selection::Failback { region } = selection {
        plan.advice.extend(forks(host, region, preview).await);
    }
}

fn duration(duration: prost_types::Duration) -> Option<Duration> {
    Duration::try_from(duration).ok()
}

async fn figures(host: &Arc<Host>, view: &DirectoryView, one: &PreviewedMove) -> Option<MovePlan> {
    let tenant = view.tenant(one.tenant)?;
    tenant_move::figures_at_home(host, tenant, one.to).await
}

/// Says which tenants have a fork in the group to which they return. That is no obstacle: the fork stays beside the live copy,
/// and can be looked at, exported and discarded there as before.
async fn forks(host: &Arc<Host>, region: &RegionName, preview: &BulkMovePreview) -> Option<String> {
    let returning: BTreeSet<&str> = preview.moves.iter().map(|one| one.name.as_str()).collect();
    let request = ListForksRequest {
        region: region.to_string(),
        page_size: FORKS_ASKED_MAX,
        ..ListForksRequest::default()
    };
    let listed = ForkService::new(host.clone()).list(request, false).await;
    let listed = listed.ok()?;
    let held: BTreeSet<&str> = listed.forks.iter().map(|fork| fork.tenant.as_str()).collect();
    let count = held.intersection(&returning).count();
    let at_least = if listed.next_page_token.is_empty() {
        ""
    } else {
        "at least "
    };
    (count > 0).then(|| {
        format!(
            "{at_least}{count} of them have a fork in the region to which they return: what a promotion has cut stays there \
             until it is discarded; `stead fork list --of {region}` names them"
        )
    })
}
