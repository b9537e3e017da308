//! Operators' call that verifies a tenant's copies.

use std::time::{Duration, SystemTime};

use stead_api::proto::admin::v1::{
    self, tenant_service_client::TenantServiceClient as Service, verified_copy::Result as CopyResult,
};
use stead_types::{Error, NodeId, Revision};

use super::Admin;
use crate::response::malformed;

/// Time for the call beyond the one for which copies are waited for.
const CALL_MARGIN: Duration = Duration::from_secs(15);

/// Verification of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantVerification {
    /// Its copies, that of the home's leader first.
    pub copies: Vec<VerifiedCopy>,
    /// When the comparison was over.
    pub time: SystemTime,
}

/// Copy of a tenant on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCopy {
    /// The region.
    pub region: String,
    /// The group.
    pub group: u32,
    /// The node.
    pub node: NodeId,
    /// How it compares with the copy of the home's leader.
    pub result: CopyComparison,
    /// Revision at which it was compared; of one that was not compared, what it has reached.
    pub revision: Option<Revision>,
    /// Reason, for people; empty where it is equal.
    pub reason: String,
}

/// How a copy compares with that of the home's leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyComparison {
    /// It is the copy of the home's leader.
    Reference,
    /// Its live keys are the same.
    Equal,
    /// Its live keys differ.
    Different,
    /// It was not compared.
    NotCompared,
}

impl Admin {
    /// Compares the copies of a tenant by digest at one revision each; copies that are behind are waited for.
    ///
    /// # Errors
    ///
    /// An error response, or no node answers.
    pub async fn verify_tenant(&self, name: &str, wait: Duration) -> Result<TenantVerification, Error> {
        let request = v1::VerifyTenantRequest {
            name: name.to_owned(),
            wait: Some(stead_api::convert::read::duration(wait)),
        };
        let call = async |channel, request| Service::new(channel).verify_tenant(request).await;
        let state = self.0.state();
        let deadline = state.deadline(Some(wait + CALL_MARGIN));
        let answer = state.unary(request, deadline, true, call).await?;
        let time = answer.time.and_then(|time| SystemTime::try_from(time).ok());
        Ok(TenantVerification {
            copies: answer.copies.into_iter().map(copy).collect::<Result<_, _>>()?,
            time: time.ok_or_else(|| malformed("time"))?,
        })
    }
}

fn copy(copy: v1::VerifiedCopy) -> Result<VerifiedCopy, Error> {
    let revision = copy
        .revision
        .map(|revision| stead_api::convert::id::revision("revision", revision));
    Ok(VerifiedCopy {
        result: match copy.result() {
            CopyResult::Reference => CopyComparison::Reference,
            CopyResult::Equal => CopyComparison::Equal,
            CopyResult::Different => CopyComparison::Different,
            CopyResult::NotCompared | CopyResult::Unspecified => CopyComparison::NotCompared,
        },
        region: copy.region,
        group: copy.group,
        node: NodeId::new(copy.node),
        revision: revision.transpose()?,
        reason: copy.reason,
    })
}
