//! Receipts of acknowledged writes.

use stead_api::{
    convert::id,
    proto::v1::{self, receipt_service_client::ReceiptServiceClient},
};
use stead_types::{Error, Revision};

use super::Tenant;
use crate::response::malformed;

/// Most revisions of one request.
const REVISIONS_MAX: usize = 1_000;

/// Receipts of acknowledged revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipts {
    /// One for each revision, in the order that they were asked for.
    pub receipts: Vec<Receipt>,
    /// Whether the home did not answer: what was cut may have been written again all the same.
    pub replays_unknown: bool,
    /// Groups that did not answer: they may hold what was cut.
    pub silent_groups: Vec<u32>,
}

/// Receipt of one acknowledged revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The revision.
    pub revision: Revision,
    /// Outcome.
    pub status: ReceiptStatus,
    /// Forks that hold it, where it was cut: group, region, number of the fork.
    pub forks: Vec<(u32, String, u32)>,
}

/// Fate of an acknowledged revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptStatus {
    /// It is part of the tenant's history.
    Survived,
    /// A promotion has cut it.
    Cut,
    /// A promotion has cut it, and it was written again under this revision.
    Replayed(Revision),
    /// It is not decided yet: a promotion is in flight, or the node does not know the revision's epoch yet.
    Undecided,
    /// It is older than what the tenant's history tells apart.
    TooOld,
    /// The node is of a later version.
    Unknown,
}

impl Tenant {
    /// Returns what became of revisions that responses have named: which have survived, were cut by a promotion, or were
    /// written again from a fork. Any node answers.
    ///
    /// # Errors
    ///
    /// No such tenant, or no node answers.
    pub async fn check_receipts(&self, revisions: &[Revision]) -> Result<Receipts, Error> {
        let state = self.client.state();
        let call = async |channel, request| ReceiptServiceClient::new(channel).check_receipts(request).await;
        let mut all = Receipts::default();
        for part in revisions.chunks(REVISIONS_MAX) {
            let request = v1::CheckReceiptsRequest {
                tenant: self.text(),
                revisions: part.iter().copied().map(id::from_revision).collect(),
            };
            let answer = state.unary(request, state.deadline(None), true, call).await?;
            if answer.receipts.len() != part.len() {
                return Err(malformed("receipts"));
            }
            let receipts = answer.receipts.into_iter().map(Receipt::read);
            all.receipts.extend(receipts.collect::<Result<Vec<_>, _>>()?);
            all.replays_unknown |= answer.replays_unknown;
            all.silent_groups.extend(answer.silent_groups);
        }
        all.silent_groups.sort_unstable();
        all.silent_groups.dedup();
        Ok(all)
    }
}

impl Receipt {
    fn read(receipt: v1::Receipt) -> Result<Self, Error> {
        let read = |revision: Option<v1::Revision>| {
            let revision = revision.ok_or_else(|| malformed("revision"))?;
            id::revision("revision", revision).map_err(|_| malformed("revision"))
        };
        let status = match receipt.status() {
            v1::ReceiptStatus::Survived => ReceiptStatus::Survived,
            v1::ReceiptStatus::Cut => ReceiptStatus::Cut,
            v1::ReceiptStatus::Replayed => ReceiptStatus::Replayed(read(receipt.replayed_revision)?),
            v1::ReceiptStatus::Undecided => ReceiptStatus::Undecided,
            v1::ReceiptStatus::TooOld => ReceiptStatus::TooOld,
            v1::ReceiptStatus::Unspecified => ReceiptStatus::Unknown,
        };
        let forks = receipt.forks.into_iter();
        Ok(Self {
            revision: read(receipt.revision)?,
            status,
            forks: forks.map(|fork| (fork.group, fork.region, fork.fork)).collect(),
        })
    }
}
