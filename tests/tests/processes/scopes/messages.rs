//! Messages of the rows: they only validate, name what does not exist, or write what is there.

use stead_api::proto::{
    admin::v1 as admin,
    v1::{self, operation, txn_operation, watch_request},
};

/// Group of us-east, whose node is the first of the cluster; the directory's is 0.
pub(super) const US_EAST: u32 = 1;
/// Group of eu-west.
pub(super) const EU_WEST: u32 = 2;
/// Name of no operation.
pub(super) const NO_OPERATION: &str = "operations/99999";

pub(super) fn acme() -> String {
    "acme".to_owned()
}

pub(super) fn get(tenant: &str, key: &'static str) -> v1::GetRequest {
    v1::GetRequest {
        tenant: tenant.to_owned(),
        key: key.into(),
        ..Default::default()
    }
}

pub(super) fn batch_get(keys: &[&'static str]) -> v1::BatchGetRequest {
    v1::BatchGetRequest {
        tenant: acme(),
        keys: keys.iter().map(|key| (*key).into()).collect(),
        ..Default::default()
    }
}

pub(super) fn scan(prefix: &'static str, count_only: bool) -> v1::ScanRequest {
    v1::ScanRequest {
        tenant: acme(),
        prefix: prefix.into(),
        count_only,
        ..Default::default()
    }
}

pub(super) fn scan_stream(prefix: &'static str) -> v1::ScanStreamRequest {
    v1::ScanStreamRequest {
        tenant: acme(),
        prefix: prefix.into(),
        ..Default::default()
    }
}

pub(super) fn put(key: &'static str, want_previous: bool) -> v1::PutRequest {
    v1::PutRequest {
        tenant: acme(),
        key: key.into(),
        value: "1".into(),
        want_previous,
        ..Default::default()
    }
}

pub(super) fn delete(key: &'static str, want_previous: bool) -> v1::DeleteRequest {
    v1::DeleteRequest {
        tenant: acme(),
        key: key.into(),
        want_previous,
        ..Default::default()
    }
}

pub(super) fn increment(key: &'static str) -> v1::IncrementRequest {
    v1::IncrementRequest {
        tenant: acme(),
        key: key.into(),
        delta: 0,
        ..Default::default()
    }
}

pub(super) fn append(key: &'static str) -> v1::AppendRequest {
    v1::AppendRequest {
        tenant: acme(),
        key: key.into(),
        value: "1".into(),
        ..Default::default()
    }
}

pub(super) fn delete_range(prefix: &'static str) -> v1::DeleteRangeRequest {
    v1::DeleteRangeRequest {
        tenant: acme(),
        prefix: prefix.into(),
        ..Default::default()
    }
}

pub(super) fn step_get(key: &'static str) -> v1::TxnOperation {
    let get = txn_operation::Get { key: key.into() };
    v1::TxnOperation {
        operation: Some(txn_operation::Operation::Get(get)),
    }
}

pub(super) fn step_put(key: &'static str) -> v1::TxnOperation {
    let put = txn_operation::Put {
        key: key.into(),
        value: "1".into(),
        ..Default::default()
    };
    v1::TxnOperation {
        operation: Some(txn_operation::Operation::Put(put)),
    }
}

pub(super) fn compare(key: &'static str) -> v1::Compare {
    v1::Compare {
        key: key.into(),
        relation: v1::Relation::Unspecified.into(),
        target: Some(v1::compare::Target::Exists(true)),
    }
}

pub(super) fn txn(
    compares: Vec<v1::Compare>,
    then: Vec<v1::TxnOperation>,
    otherwise: Vec<v1::TxnOperation>,
) -> v1::TxnRequest {
    v1::TxnRequest {
        tenant: acme(),
        compares,
        then,
        otherwise,
        ..Default::default()
    }
}

pub(super) fn pipeline(request: operation::Request) -> v1::PipelineRequest {
    let operation = v1::Operation {
        id: 1,
        request: Some(request),
        ..Default::default()
    };
    v1::PipelineRequest {
        operations: vec![operation],
        cancel_ids: Vec::new(),
    }
}

pub(super) fn watch(tenant: &str, prefix: &'static str, initial_state: bool) -> v1::WatchRequest {
    let range = v1::KeyRange {
        prefix: prefix.into(),
        ..Default::default()
    };
    let create = v1::WatchCreate {
        id: 1,
        tenant: tenant.to_owned(),
        ranges: vec![range],
        initial_state,
        ..Default::default()
    };
    v1::WatchRequest {
        request: Some(watch_request::Request::Create(create)),
    }
}

pub(super) fn receipts(tenant: &str) -> v1::CheckReceiptsRequest {
    v1::CheckReceiptsRequest {
        tenant: tenant.to_owned(),
        revisions: Vec::new(),
    }
}

pub(super) fn update(tenant: &str, changes_limits: bool) -> admin::UpdateTenantRequest {
    admin::UpdateTenantRequest {
        name: tenant.to_owned(),
        validate_only: true,
        labels: Some(admin::update_tenant_request::Labels::default()),
        default_limits: changes_limits.then(|| "keys".to_owned()).into_iter().collect(),
        ..Default::default()
    }
}

pub(super) fn move_tenant(to: &str) -> admin::MoveTenantRequest {
    admin::MoveTenantRequest {
        name: acme(),
        to: Some(admin::move_tenant_request::To::Region(to.to_owned())),
        validate_only: true,
        ..Default::default()
    }
}

pub(super) fn region_loss(tenant: &str) -> admin::SetRegionLossPolicyRequest {
    admin::SetRegionLossPolicyRequest {
        tenant: tenant.to_owned(),
        validate_only: true,
        ..Default::default()
    }
}

pub(super) fn residency(tenant: &str) -> admin::ListResidencyRecordsRequest {
    admin::ListResidencyRecordsRequest {
        tenant: tenant.to_owned(),
        ..Default::default()
    }
}

pub(super) fn forks(tenant: &str) -> admin::ListForksRequest {
    admin::ListForksRequest {
        tenant: tenant.to_owned(),
        ..Default::default()
    }
}

pub(super) fn fork_entries(tenant: &str) -> admin::ListForkEntriesRequest {
    admin::ListForkEntriesRequest {
        tenant: tenant.to_owned(),
        group: US_EAST,
        fork: 9,
        ..Default::default()
    }
}

pub(super) fn discard(tenant: &str) -> admin::DiscardForkRequest {
    admin::DiscardForkRequest {
        tenant: tenant.to_owned(),
        group: 99,
        fork: 9,
        ..Default::default()
    }
}

pub(super) fn replay(tenant: &str) -> admin::ReplayForkRequest {
    admin::ReplayForkRequest {
        tenant: tenant.to_owned(),
        group: US_EAST,
        fork: 9,
        dry_run: true,
        ..Default::default()
    }
}

pub(super) fn drain(region: &str) -> admin::DrainRegionRequest {
    admin::DrainRegionRequest {
        region: region.to_owned(),
        validate_only: true,
        ..Default::default()
    }
}

pub(super) fn undrain(region: &str) -> admin::UndrainRegionRequest {
    admin::UndrainRegionRequest {
        region: region.to_owned(),
        validate_only: true,
        ..Default::default()
    }
}

pub(super) fn failback(region: &str) -> admin::FailbackRegionRequest {
    admin::FailbackRegionRequest {
        region: region.to_owned(),
        validate_only: true,
        ..Default::default()
    }
}

pub(super) fn rehearse(region: &str) -> admin::RehearseRegionRequest {
    admin::RehearseRegionRequest {
        region: region.to_owned(),
        validate_only: true,
        ..Default::default()
    }
}

/// To a node that there is not: nothing moves.
pub(super) fn move_leader(group: u32) -> admin::MoveLeaderRequest {
    admin::MoveLeaderRequest {
        group,
        to: Some(99),
        ..Default::default()
    }
}

pub(super) fn promote(selection: admin::promote_request::Selection) -> admin::PromoteRequest {
    admin::PromoteRequest {
        selection: Some(selection),
        validate_only: true,
        ..Default::default()
    }
}
