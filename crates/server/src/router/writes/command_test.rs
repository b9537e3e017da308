//! Tests of the limits with which writes are proposed: the tenant's own, else the defaults.

use std::sync::Arc;

use stead_state::lease::loss::Confirmation;
use stead_state::shard::command::{Branches, Command};
use stead_types::{ClientId, IdempotencyKey, TenantLimit, TenantTime};
use tokio::time::Instant;

use super::*;
use crate::{
    router::{Call, Responder, ResponseSender},
    tenant_fixture::tenant,
};

/// Returns one mutation of each kind.
fn mutations() -> [Mutation; 3] {
    let delete = || Operation::new("key", Effect::Delete);
    let branches = Branches {
        then: vec![Step::Write(delete())],
        ..Branches::default()
    };
    [
        Mutation::SingleKey(delete()),
        Mutation::Txn(branches),
        Mutation::DeleteRange("a".into(), None),
    ]
}

/// Returns a write of a tenant that has these limits of its own.
fn job(mutation: Mutation, own: &[(TenantLimit, u64)]) -> Job<WriteRequest> {
    let (answers, _) = ResponseSender::channel();
    let key = IdempotencyKey {
        client: ClientId(1),
        sequence: 1,
        first_sent: TenantTime(0),
    };
    Job {
        call: Call {
            confirmation: Confirmation::Leased,
            operation: stead_api::proto::v1::Operation::default(),
            deadline: Instant::now(),
            is_retry: false,
            hops: 0,
            forwarded: None,
            responder: Responder::new(1, answers),
        },
        tenant: Arc::new(tenant(7, own)),
        request: WriteRequest {
            mutation,
            idempotency: Some(key),
        },
    }
}

/// Returns the limits of a command as a replica reads them.
fn limits(encoded: &Bytes) -> WindowLimits {
    let decoded = Command::decode(encoded[0], encoded.slice(1..)).unwrap();
    if let Command::Write(command::Write { limits, .. })
    | Command::Txn(command::Txn { limits, .. })
    | Command::DeleteRange(DeleteRange { limits, .. }) = decoded
    {
        return limits;
    }
    panic!("{decoded:?}")
}

fn default_of(limit: TenantLimit) -> u32 {
    u32::try_from(limit.default_value().unwrap()).unwrap()
}

#[tokio::test]
async fn proposed_write_has_default_limits_where_tenant_has_none() {
    let defaults = WindowLimits {
        clients: default_of(TenantLimit::Clients),
        outcomes: default_of(TenantLimit::Outcomes),
    };
    for mutation in mutations() {
        let job = job(mutation, &[]);
        assert_eq!(limits(&proposal(&job, 0).command), defaults, "{:?}", job.request);
        if let Some(next) = range(&job.tenant, &job.request) {
            assert_eq!(next.limits, defaults, "later steps");
        }
    }
}

/// A tenant that has set one limit keeps the default of the other.
#[tokio::test]
async fn proposed_write_has_own_limits_beside_defaults() {
    let own = [(TenantLimit::Clients, 3)];
    let expected = WindowLimits {
        clients: 3,
        outcomes: default_of(TenantLimit::Outcomes),
    };
    for mutation in mutations() {
        let job = job(mutation, &own);
        assert_eq!(limits(&proposal(&job, 0).command), expected, "{:?}", job.request);
        if let Some(next) = range(&job.tenant, &job.request) {
            assert_eq!(next.limits, expected, "later steps");
        }
    }
}

#[tokio::test]
async fn proposed_write_is_limited_by_room_in_group() {
    for mutation in mutations() {
        let job = job(mutation, &[]);
        let full = limits(&proposal(&job, usize::MAX).command);
        assert!(full.outcomes < default_of(TenantLimit::Outcomes), "{:?}", job.request);
    }
}
