//! Wait of a promotion that would begin now: what is left of the leases of the groups that may own its tenants.

use std::{collections::BTreeSet, time::Duration};

use stead_state::{
    directory::{DirectoryView, PromotionItem},
    lease::clock::wait_time,
};
use stead_types::{GroupId, TenantNumber};

use crate::host::Host;

/// Returns the longest wait after a fence at this time, in milliseconds.
pub(super) fn longest_ms(view: &DirectoryView, now: u64) -> u64 {
    super::promotion_message::wait_ms(view.settings().longest_lease_ttl_ms(now))
}

/// Returns what is left of the wait now; `None` if the directory's leader does not tell, or there is no tenant.
pub(super) async fn left(
    host: &Host,
    view: &DirectoryView,
    items: &[(TenantNumber, PromotionItem)],
    now: u64,
) -> Option<Duration> {
    let tenants = items.iter().filter_map(|(number, _)| view.tenant(*number));
    let owners: BTreeSet<GroupId> = tenants.flat_map(|tenant| tenant.needed_groups()).collect();
    let owners: Vec<GroupId> = owners.into_iter().collect();
    if owners.is_empty() {
        return None;
    }
    let since = host.directory.since_renewals(&owners).await?;
    let ttl = Duration::from_millis(view.settings().longest_lease_ttl_ms(now));
    after(ttl, &since)
}

/// Returns the wait that is left so long after each group's last renewal.
fn after(ttl: Duration, since: &[Duration]) -> Option<Duration> {
    let last = since.iter().min()?;
    Some(wait_time(ttl).saturating_sub(*last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_is_shorter_by_time_since_last_renewal_of_any_group() {
        let ttl = Duration::from_secs(60);
        let seconds = |list: &[u64]| list.iter().map(|at| Duration::from_secs(*at)).collect::<Vec<_>>();
        assert_eq!(after(ttl, &seconds(&[])), None);
        let left = after(ttl, &seconds(&[30, 20])).unwrap();
        assert_eq!(left, wait_time(ttl) - Duration::from_secs(20));
        assert_eq!(after(ttl, &seconds(&[3_600])), Some(Duration::ZERO));
    }
}
