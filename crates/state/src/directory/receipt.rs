//! Receipt of an acknowledged revision of a tenant, from the directory.

use stead_types::Revision;

use super::Tenant;
use crate::lineage::RevisionStatus;

/// Fate of an acknowledged revision, as far as a directory view knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptState {
    /// It is on the tenant's lineage, and no promotion is under way that could cut it.
    Survived,
    /// A promotion has cut it.
    Cut,
    /// A promotion is in flight whose new home is not chosen, or the view does not know the epoch yet.
    Undecided,
    /// It lies in a closed run of the lineage.
    TooOld,
}

/// Returns what became of an acknowledged revision.
pub fn receipt_state(tenant: &Tenant, revision: Revision) -> ReceiptState {
    if revision.epoch() > tenant.epoch {
        return ReceiptState::Undecided;
    }
    match tenant.lineage.status_of(revision) {
        RevisionStatus::Cut { .. } => ReceiptState::Cut,
        RevisionStatus::TooOld => ReceiptState::TooOld,
        RevisionStatus::OnLineage if is_undecided(tenant) => ReceiptState::Undecided,
        RevisionStatus::OnLineage => ReceiptState::Survived,
    }
}

/// Tells whether a promotion is in flight whose new home is not chosen yet: it may keep less than any lineage says.
fn is_undecided(tenant: &Tenant) -> bool {
    let promoting = tenant.promoting.as_ref();
    promoting.is_some_and(|promoting| tenant.epoch < promoting.epoch)
}

#[cfg(test)]
mod tests {
    use stead_types::{Epoch, GroupId, Sequence, TenantNumber};

    use super::*;
    use crate::{
        directory::{PromotionPhase, TenantPromotion},
        shard::record::OperationId,
    };

    fn epoch(number: u32) -> Epoch {
        Epoch::new(number).unwrap()
    }

    #[test]
    fn receipt_is_told_by_lineage_and_open_while_promotion_has_no_home() {
        let mut tenant = Tenant::new(TenantNumber::new(1), "acme".parse().unwrap(), GroupId::new(1));
        tenant.epoch = epoch(3);
        tenant.lineage.record_promotion(epoch(3), Sequence::new(10).unwrap());
        let state = |tenant: &Tenant, revision: &str| receipt_state(tenant, revision.parse().unwrap());
        for (revision, expected) in [
            ("1.10", ReceiptState::Survived),
            ("1.11", ReceiptState::Cut),
            ("2.11", ReceiptState::Cut),
            ("3.11", ReceiptState::Survived),
            ("4.12", ReceiptState::Undecided),
        ] {
            assert_eq!(state(&tenant, revision), expected, "{revision}");
        }
        tenant.promoting = Some(Box::new(TenantPromotion {
            operation: OperationId(1),
            of: 1,
            epoch: epoch(4),
            fence: tenant.version,
            phase: PromotionPhase::Fenced,
            reported: Box::default(),
            replaced: Box::default(),
            started: 0,
        }));
        assert_eq!(state(&tenant, "3.11"), ReceiptState::Undecided);
        assert_eq!(state(&tenant, "1.11"), ReceiptState::Cut, "nothing brings it back");
        tenant.epoch = epoch(4);
        tenant.lineage.record_promotion(epoch(4), Sequence::new(12).unwrap());
        assert_eq!(state(&tenant, "3.11"), ReceiptState::Survived, "the home is chosen");
        assert_eq!(state(&tenant, "3.13"), ReceiptState::Cut);
    }
}
