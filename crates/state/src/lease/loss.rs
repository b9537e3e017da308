//! Serving without a lease, where the policy of a tenant is to go on.

use stead_types::{Epoch, TenantNumber};

use crate::{
    serving::{Lease, NotServing, ServingState},
    shard::{
        command::SetLeaseLossPolicy,
        record::{LeaseLossPolicy, TenantRecord},
    },
};

/// Confirmation of an answer by a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// A lease counted: no other group served the tenant.
    Leased,
    /// There was none: another group may serve the tenant, and the answer says so.
    Unconfirmed,
}

/// Tells whether the owner of a tenant goes on without a lease: its log says so, and no peer or feed session has shown an
/// epoch above the owned one.
pub fn goes_on(record: &TenantRecord, epoch_seen: impl Fn() -> Epoch) -> bool {
    record.owned().is_some() && may_continue(record, epoch_seen)
}

/// Returns the entry by which the owner of a tenant notes in its log that it has heard of a later epoch, if it has and has
/// not noted that: what one node has heard is forgotten when it stops, and other nodes may lead the group. It is proposed
/// without a lease, and as of no newer view: to stop is always allowed.
pub fn stop_noted(tenant: TenantNumber, record: &TenantRecord, epoch_seen: Epoch) -> Option<SetLeaseLossPolicy> {
    let is_due = record.owned().is_some() && record.policy == LeaseLossPolicy::Continue && epoch_seen > record.epoch;
    is_due.then_some(SetLeaseLossPolicy {
        tenant,
        version: record.view_version,
        policy: LeaseLossPolicy::Stop,
    })
}

fn may_continue(record: &TenantRecord, epoch_seen: impl Fn() -> Epoch) -> bool {
    record.policy == LeaseLossPolicy::Continue && epoch_seen() <= record.epoch
}

/// Makes a serving check, [`serving::check`](crate::serving::check) or one of its kind, without a lease if need be: the
/// policy in the group's own log is [`LeaseLossPolicy::Continue`], and no peer or feed session has shown an epoch above
/// the owned one. Leadership, role and fence are checked all the same.
///
/// The policy of the view does not matter (protocol.md "Leases", on_lease_loss): it shows `stop` before a home that is
/// cut off has committed it, and `continue` before an heir has. `epoch_seen` is called only where it matters.
///
/// # Errors
///
/// Those of the check.
pub fn check_or_continue(
    record: &TenantRecord,
    state: &ServingState,
    epoch_seen: impl Fn() -> Epoch,
    check: impl Fn(&TenantRecord, &ServingState) -> Result<Epoch, NotServing>,
) -> Result<Confirmation, NotServing> {
    match check(record, state) {
        Ok(_) => Ok(Confirmation::Leased),
        Err(NotServing::NoLease | NotServing::LeasePending(_) | NotServing::LeaseExpired)
            if may_continue(record, &epoch_seen) =>
        {
            let without = ServingState {
                lease: Lease::Unbounded,
                ..*state
            };
            check(record, &without).map(|_| Confirmation::Unconfirmed)
        }
        Err(refused) => Err(refused),
    }
}

#[cfg(test)]
mod tests {
    use stead_types::DirectoryVersion;

    use super::*;
    use crate::{
        serving::{BootTime, check},
        shard::{ownership::set_lease_loss_policy, record::Role},
    };

    fn owner(policy: LeaseLossPolicy) -> TenantRecord {
        TenantRecord {
            role: Role::Owner,
            epoch: Epoch::FIRST,
            policy,
            ..TenantRecord::unknown()
        }
    }

    fn without_lease() -> ServingState {
        ServingState {
            leader_confirmed: true,
            lease: Lease::Absent,
            view_version: DirectoryVersion::ZERO,
            now: BootTime(0),
            fence_epoch: Epoch::FIRST,
        }
    }

    fn served(policy: LeaseLossPolicy, state: ServingState, epoch_seen: Epoch) -> Result<Confirmation, NotServing> {
        check_or_continue(&owner(policy), &state, || epoch_seen, check)
    }

    /// "The policy in force is the one in the owner's log": there is no other argument for it.
    #[test]
    fn policy_of_the_log_decides_without_lease() {
        let with = |policy| served(policy, without_lease(), Epoch::FIRST);
        assert_eq!(with(LeaseLossPolicy::Stop), Err(NotServing::NoLease));
        assert_eq!(with(LeaseLossPolicy::Continue), Ok(Confirmation::Unconfirmed));
        let unbounded = ServingState {
            lease: Lease::Unbounded,
            ..without_lease()
        };
        let leased = served(LeaseLossPolicy::Continue, unbounded, Epoch::FIRST);
        assert_eq!(leased, Ok(Confirmation::Leased));
    }

    /// "Until any peer or feed session shows a higher epoch."
    #[test]
    fn higher_epoch_seen_ends_service_without_lease() {
        let higher = Epoch::FIRST.next().unwrap();
        let refused = served(LeaseLossPolicy::Continue, without_lease(), higher);
        assert_eq!(refused, Err(NotServing::NoLease));
    }

    #[test]
    fn higher_epoch_seen_is_noted_once_by_owner_that_would_go_on() {
        let (tenant, higher) = (TenantNumber::new(7), Epoch::FIRST.next().unwrap());
        let mut record = owner(LeaseLossPolicy::Continue);
        assert_eq!(stop_noted(tenant, &record, Epoch::FIRST), None);
        let entry = stop_noted(tenant, &record, higher).unwrap();
        set_lease_loss_policy(&mut record, &entry).unwrap();
        assert!(!goes_on(&record, || Epoch::NONE), "whatever the next leader has heard");
        assert_eq!(stop_noted(tenant, &record, higher), None);
        let erased = TenantRecord {
            role: Role::Erased,
            ..owner(LeaseLossPolicy::Continue)
        };
        assert_eq!(stop_noted(tenant, &erased, higher), None);
    }

    #[test]
    fn only_owner_with_policy_goes_on_without_lease() {
        let higher = Epoch::FIRST.next().unwrap();
        assert!(goes_on(&owner(LeaseLossPolicy::Continue), || Epoch::FIRST));
        assert!(!goes_on(&owner(LeaseLossPolicy::Continue), || higher));
        assert!(!goes_on(&owner(LeaseLossPolicy::Stop), || Epoch::FIRST));
        let erased = TenantRecord {
            role: Role::Erased,
            ..owner(LeaseLossPolicy::Continue)
        };
        assert!(!goes_on(&erased, || Epoch::FIRST));
    }

    #[test]
    fn policy_replaces_neither_fence_nor_leadership() {
        let higher = Epoch::FIRST.next().unwrap();
        let fenced = ServingState {
            fence_epoch: higher,
            ..without_lease()
        };
        let deposed = ServingState {
            leader_confirmed: false,
            ..without_lease()
        };
        let refused = |state| served(LeaseLossPolicy::Continue, state, Epoch::FIRST);
        assert_eq!(refused(fenced), Err(NotServing::Fenced(higher)));
        assert_eq!(refused(deposed), Err(NotServing::NotLeader));
    }
}
