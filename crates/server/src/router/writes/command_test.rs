//! Tests of the limits with which writes are proposed: the tenant's own, else the defaults.

use std::sync::Arc;

use stead_state::lease::loss::Confirmation;
use stead_state::shard::command::{Branches, Command, Txn, Write};
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
    let (answers, _) = ResponseSender::channel(Arc::default());
    let key = IdempotencyKey {
        client: ClientId(1),
        sequence: 1,
        first_sent: TenantTime(0),
    };
    Job {
        call: Call {
            access: crate::auth::Access::node(),
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
            is_remote: false,
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
        assert_eq!(limits(&proposal(&job, 0, false).command), defaults, "{:?}", job.request);
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
        assert_eq!(limits(&proposal(&job, 0, false).command), expected, "{:?}", job.request);
        if let Some(next) = range(&job.tenant, &job.request) {
            assert_eq!(next.limits, expected, "later steps");
        }
    }
}

#[tokio::test]
async fn proposed_write_is_limited_by_room_in_group() {
    for mutation in mutations() {
        let job = job(mutation, &[]);
        let full = limits(&proposal(&job, usize::MAX, false).command);
        assert!(full.outcomes < default_of(TenantLimit::Outcomes), "{:?}", job.request);
    }
}

/// Nodes of earlier versions cannot read the notes, and a put has none.
#[tokio::test]
async fn increment_notes_its_operation_where_feature_level_allows() {
    let increment = || {
        let by = stead_state::shard::command::Increment::default();
        Operation::new("key", Effect::Increment(by))
    };
    let txn = Branches {
        then: vec![Step::Write(increment())],
        ..Branches::default()
    };
    for (mutation, notes) in [
        (Mutation::SingleKey(increment()), true),
        (Mutation::SingleKey(Operation::new("key", Effect::put("v"))), false),
        (Mutation::Txn(txn), true),
    ] {
        let job = job(mutation, &[]);
        for allowed in [false, true] {
            let encoded = proposal(&job, 0, allowed).command;
            let decoded = Command::decode(encoded[0], encoded.slice(1..)).unwrap();
            let is_noted = matches!(
                &decoded,
                Command::Write(Write {
                    notes_operation: true,
                    ..
                }) | Command::Txn(Txn {
                    notes_operations: true,
                    ..
                })
            );
            assert_eq!(is_noted, allowed && notes, "{decoded:?}");
        }
    }
}
