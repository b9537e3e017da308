//! Fixture of a tenant for tests.

use stead_state::{
    directory::{Followers, Tenant, TenantState},
    lineage::Lineage,
};
use stead_types::{DirectoryVersion, Durability, Epoch, GroupId, TenantLimit, TenantLimits, TenantNumber};

/// Returns a tenant of group 1 with these limits of its own.
pub(crate) fn tenant(number: u64, own: &[(TenantLimit, u64)]) -> Tenant {
    let mut limits = TenantLimits::default();
    for (limit, value) in own {
        limits.set(*limit, *value).unwrap();
    }
    Tenant {
        number: TenantNumber::new(number),
        name: "acme".parse().unwrap(),
        home: GroupId::new(1),
        epoch: Epoch::FIRST,
        fence_epoch: Epoch::NONE,
        op: 0,
        state: TenantState::Active,
        durability: Durability::Region,
        followers: Followers::AllAdmitted,
        residency: Box::new([]),
        lineage: Lineage::starting(Epoch::FIRST),
        members: Box::new([]),
        labels: None,
        limits: (!own.is_empty()).then(|| Box::new(limits)),
        version: DirectoryVersion::ZERO,
        created: 0,
        updated: 0,
    }
}
