//! Fixture of a tenant for tests.

use stead_state::directory::{OwnSettings, Tenant};
use stead_types::{GroupId, TenantLimit, TenantLimits, TenantNumber};

/// Returns a tenant of group 1 with these limits of its own.
pub(crate) fn tenant(number: u64, own: &[(TenantLimit, u64)]) -> Tenant {
    let mut limits = TenantLimits::default();
    for (limit, value) in own {
        limits.set(*limit, *value).unwrap();
    }
    Tenant {
        own: (!own.is_empty()).then(|| {
            Box::new(OwnSettings {
                limits,
                ..OwnSettings::default()
            })
        }),
        ..Tenant::new(TenantNumber::new(number), "acme".parse().unwrap(), GroupId::new(1))
    }
}
