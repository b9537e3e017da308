//! Messages of leases between a node and the directory's leader.

use std::time::Duration;

use stead_api::proto::internal::v1::{FenceChange, RenewLeaseRequest, RenewLeaseResponse};
use stead_state::{
    directory::FEATURE_LEVEL_MAX,
    lease::{AttemptNumber, LeaseAnswer, Renewal},
};
use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, NodeId, TenantNumber};

/// Most fence changes of an answer: with more the lease counts by the view alone.
const FENCES_MAX: usize = 100_000;

/// Returns the request of a node's renewal.
pub(crate) fn from_renewal(node: NodeId, renewal: &Renewal) -> RenewLeaseRequest {
    RenewLeaseRequest {
        node: node.get(),
        attempt: renewal.attempt.0,
        incarnation: renewal.view.incarnation.0,
        index: renewal.view.index,
        groups: renewal.groups.iter().map(|group| group.get()).collect(),
        feature_level: FEATURE_LEVEL_MAX,
    }
}

/// Returns the renewal that a request asks for.
pub(crate) fn renewal(request: &RenewLeaseRequest) -> Renewal {
    Renewal {
        attempt: AttemptNumber(request.attempt),
        view: version(request.incarnation, request.index),
        groups: request.groups.iter().copied().map(GroupId::new).collect(),
    }
}

/// Returns the response with an answer.
pub(crate) fn from_answer(answer: LeaseAnswer) -> RenewLeaseResponse {
    let fences = answer.fences.filter(|fences| fences.len() <= FENCES_MAX);
    let change = |(tenant, epoch): (TenantNumber, Epoch)| FenceChange {
        tenant: tenant.get(),
        epoch: epoch.get(),
    };
    RenewLeaseResponse {
        attempt: answer.attempt.0,
        incarnation: answer.version.incarnation.0,
        index: answer.version.index,
        ttl_ms: u64::try_from(answer.ttl.as_millis()).unwrap_or(u64::MAX),
        has_all_fences: fences.is_some(),
        fences: fences.into_iter().flatten().map(change).collect(),
    }
}

/// Returns the answer in a response. A fence that is no epoch is above all of them.
pub(crate) fn answer(response: &RenewLeaseResponse) -> LeaseAnswer {
    let change = |change: &FenceChange| {
        let epoch = Epoch::new(change.epoch).unwrap_or(Epoch::MAX);
        (TenantNumber::new(change.tenant), epoch)
    };
    let fences = response
        .has_all_fences
        .then(|| response.fences.iter().map(change).collect());
    LeaseAnswer {
        attempt: AttemptNumber(response.attempt),
        version: version(response.incarnation, response.index),
        ttl: Duration::from_millis(response.ttl_ms),
        fences,
    }
}

fn version(incarnation: u32, index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation(incarnation),
        index,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sample(fences: Option<BTreeMap<TenantNumber, Epoch>>) -> LeaseAnswer {
        LeaseAnswer {
            attempt: AttemptNumber(3),
            version: version(2, 77),
            ttl: Duration::from_secs(60),
            fences,
        }
    }

    #[test]
    fn messages_carry_everything_over() {
        let sent = Renewal {
            attempt: AttemptNumber(3),
            view: version(2, 70),
            groups: [GroupId::new(1), GroupId::new(4)].into(),
        };
        assert_eq!(renewal(&from_renewal(NodeId::new(5), &sent)), sent);
        let known = BTreeMap::from([(TenantNumber::new(9), Epoch::MAX)]);
        for sent in [sample(None), sample(Some(BTreeMap::new())), sample(Some(known))] {
            assert_eq!(answer(&from_answer(sent.clone())), sent);
        }
    }

    #[test]
    fn too_many_fence_changes_are_left_out_as_a_whole() {
        let many = (0..=FENCES_MAX as u64).map(|number| (TenantNumber::new(number), Epoch::FIRST));
        let response = from_answer(sample(Some(many.collect())));
        assert!(response.fences.is_empty() && !response.has_all_fences);
    }
}
