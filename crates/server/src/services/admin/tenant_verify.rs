//! Verification of a tenant: the nodes that hold copies are sampled, and compared with the home's leader.

use std::time::Duration;

use futures::future::join_all;
use stead_api::{
    convert,
    proto::{
        admin::v1::{VerifiedCopy, VerifyTenantRequest, VerifyTenantResponse, verified_copy::Result as CopyResult},
        internal::v1::{SampleDigestsRequest, SampleDigestsResponse, digest_service_client::DigestServiceClient},
    },
};
use stead_state::{
    directory::{DirectoryView, Tenant},
    verification::{Comparison, CopyHolder, DigestSample, Verification},
};
use stead_types::{Error, ErrorKind, Revision};
use tokio::time::{Instant, timeout};

use crate::{
    host::Host,
    services::digests::{self, SAMPLED_FOR, WAIT_MAX},
};

/// Default for how long copies that are behind are waited for, and the longest such time.
const WAIT_DEFAULT: Duration = Duration::from_secs(10);
const WAIT_LONGEST: Duration = Duration::from_secs(60);
/// Longest time for one node's samples, beyond what it may wait.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Copy that is verified.
struct HeldCopy {
    holder: CopyHolder,
    region: String,
    peer: String,
    /// Why it has no samples, after the last round.
    missing: String,
}

/// Verifies a tenant.
pub(super) async fn verify(host: &Host, request: &VerifyTenantRequest) -> Result<VerifyTenantResponse, Error> {
    let name = convert::id::tenant("name", &request.name)?;
    let wait = wait(request.wait)?;
    let tenant = host.resolve(&name).await?;
    let mut copies = host.directory_view.read(|view| copies(view, &tenant));
    let deadline = Instant::now() + wait;
    let mut verification = Verification::default();
    let mut reference = None;
    loop {
        let is_due = |copy: &HeldCopy| {
            let is_decided = !matches!(verification.compare(copy.holder), Comparison::NotCompared(_));
            reference.is_none() || reference == Some(copy.holder) || !is_decided
        };
        let due: Vec<usize> = (0..copies.len()).filter(|at| is_due(&copies[*at])).collect();
        let from = verification.first();
        let round = due.iter().map(|at| {
            let copy = &copies[*at];
            ask(host, &tenant, copy, from, reference == Some(copy.holder))
        });
        let answers = join_all(round).await;
        for (at, answer) in due.iter().zip(answers) {
            let copy = &mut copies[*at];
            let is_reference = answer.leads_home && reference.is_none_or(|reference| reference == copy.holder);
            if is_reference {
                reference = Some(copy.holder);
                verification.add_home(read(&answer));
            } else {
                verification.add_copy(copy.holder, read(&answer));
            }
            copy.missing = answer.missing;
        }
        let is_pending = |copy: &&HeldCopy| {
            reference != Some(copy.holder) && matches!(verification.compare(copy.holder), Comparison::NotCompared(_))
        };
        if (reference.is_some() && !copies.iter().any(|copy| is_pending(&copy))) || Instant::now() >= deadline {
            break;
        }
    }
    let Some(reference) = reference else {
        let message = format!(
            "no node that leads the home of {name} has answered within {} s: try again",
            wait.as_secs()
        );
        return Err(Error::new(ErrorKind::NoLeader, message));
    };
    let first = verification.first();
    let shown = |copy: &HeldCopy| message(copy, reference, &verification, first);
    let mut copies: Vec<VerifiedCopy> = copies.iter().map(shown).collect();
    copies.sort_by_key(|copy| copy.result != i32::from(CopyResult::Reference));
    let time = convert::read::timestamp_ms(host.leases.wall_ms());
    Ok(VerifyTenantResponse {
        copies,
        time: Some(time),
    })
}

fn wait(wait: Option<prost_types::Duration>) -> Result<Duration, Error> {
    let Some(wait) = wait else {
        return Ok(WAIT_DEFAULT);
    };
    let wait = convert::read::to_duration(wait).filter(|wait| *wait <= WAIT_LONGEST);
    wait.ok_or_else(|| {
        let message = format!("wait: from 0 s to {} s", WAIT_LONGEST.as_secs());
        Error::invalid("wait", message)
    })
}

/// Returns the copies of a tenant: those of every voter of its home and of its followers.
fn copies(view: &DirectoryView, tenant: &Tenant) -> Vec<HeldCopy> {
    let groups = std::iter::once(tenant.home).chain(tenant.follower_groups());
    let groups = groups.filter_map(|group| view.group(group));
    let voters = groups.flat_map(|group| group.voters.iter().map(move |node| (group, *node)));
    let copy = |(group, node): (&stead_state::directory::Group, stead_types::NodeId)| HeldCopy {
        holder: CopyHolder {
            group: group.number,
            node,
        },
        region: group.region.as_ref().map(ToString::to_string).unwrap_or_default(),
        peer: view
            .node(node)
            .map(|node| node.addresses.peer.clone())
            .unwrap_or_default(),
        missing: String::new(),
    };
    voters.map(copy).collect()
}

/// Asks a node for samples of its copy; without an answer in time there are none.
async fn ask(
    host: &Host,
    tenant: &Tenant,
    copy: &HeldCopy,
    from: Option<Revision>,
    is_reference: bool,
) -> SampleDigestsResponse {
    let request = SampleDigestsRequest {
        tenant: tenant.number.get(),
        group: copy.holder.group.get(),
        from: from.filter(|_| !is_reference).map_or(0, Revision::to_u64),
        wait_ms: u32::try_from(WAIT_MAX.as_millis()).unwrap_or(u32::MAX),
    };
    if copy.holder.node == host.config.node.id {
        return digests::sample(host, &request).await;
    }
    let answer = async {
        let mut client = DigestServiceClient::new(host.admin_peers.channel(&copy.peer)?);
        let answer = client.sample_digests(request).await.ok()?;
        Some(answer.into_inner())
    };
    let answer = timeout(WAIT_MAX + SAMPLED_FOR + ANSWER_MAX, answer).await;
    answer.ok().flatten().unwrap_or_else(|| SampleDigestsResponse {
        missing: "the node does not answer, or runs a version that cannot be asked".to_owned(),
        ..SampleDigestsResponse::default()
    })
}

fn read(answer: &SampleDigestsResponse) -> Vec<DigestSample> {
    let sample = |sample: &stead_api::proto::internal::v1::DigestSample| {
        let keys: [u8; 16] = sample.keys.as_ref().try_into().ok()?;
        Some(DigestSample {
            revision: Revision::from_u64(sample.revision),
            keys: u128::from_be_bytes(keys),
        })
    };
    answer.samples.iter().filter_map(sample).collect()
}

fn message(
    copy: &HeldCopy,
    reference: CopyHolder,
    verification: &Verification,
    first: Option<Revision>,
) -> VerifiedCopy {
    let of = |result: CopyResult, revision: Option<Revision>, reason: String| VerifiedCopy {
        region: copy.region.clone(),
        group: copy.holder.group.get(),
        node: copy.holder.node.get(),
        result: result.into(),
        revision: revision.map(convert::id::from_revision),
        reason,
    };
    if copy.holder == reference {
        return of(CopyResult::Reference, verification.last(), String::new());
    }
    match verification.compare(copy.holder) {
        Comparison::Equal(revision) => of(CopyResult::Equal, Some(revision), String::new()),
        Comparison::Different(revision) => {
            let reason = "its digest of live keys differs from that of the home's leader at this revision";
            of(CopyResult::Different, Some(revision), reason.to_owned())
        }
        Comparison::NotCompared(reached) => {
            let is_behind = reached.is_some_and(|reached| first.is_some_and(|first| reached < first));
            let reason = match is_behind {
                true if copy.missing.is_empty() => "it is behind".to_owned(),
                false if copy.missing.is_empty() => {
                    "no revision was seen that both had: try again, or when less is written".to_owned()
                }
                true | false => copy.missing.clone(),
            };
            of(CopyResult::NotCompared, reached, reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_is_within_limits() {
        let of = |seconds, nanos| wait(Some(prost_types::Duration { seconds, nanos })).ok();
        assert_eq!(wait(None).unwrap(), WAIT_DEFAULT);
        assert_eq!(of(0, 0), Some(Duration::ZERO));
        assert_eq!(of(60, 0), Some(WAIT_LONGEST));
        assert_eq!(of(60, 1), None);
        assert_eq!(of(-1, 0), None);
    }
}
