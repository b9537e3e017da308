//! Condition for showing changes of a tenant with durability `REMOTE` to a watch.

use stead_replication::{RemoteWait, SharedDirectoryView};
use stead_state::shard::{apply_result::EvaluationPoint, read::TenantReader};
use stead_types::{Durability, Error, ErrorKind, GroupId, TenantNumber};
use tokio::time::Instant;

use crate::{host::HostedGroup, router::shows_only_remote};

/// Confirmation that changes of a copy need before they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RemoteNeed {
    /// Nothing: the tenant's durability is `REGION`, or the copy is in another region than the home.
    Nothing,
    /// Another region must have the tenant's changes up to here.
    Confirmation(EvaluationPoint),
    /// Another copy: this one does not know what other regions have.
    OtherCopy,
}

impl RemoteNeed {
    /// Returns what a copy needs in a group, as of this read and view.
    pub(super) fn of(
        view: &SharedDirectoryView,
        group: GroupId,
        number: TenantNumber,
        reading: &TenantReader<'_>,
    ) -> Self {
        view.read(|view| {
            let Some(tenant) = view
                .tenant(number)
                .filter(|tenant| tenant.durability == Durability::Remote)
            else {
                return Self::Nothing;
            };
            if reading.record().owned().is_some() {
                Self::Confirmation(reading.evaluation_point())
            } else if shows_only_remote(view, tenant, group, reading.record()) {
                Self::Nothing
            } else {
                Self::OtherCopy
            }
        })
    }

    /// Waits until it is fulfilled; false if it is not in time.
    pub(super) async fn wait(self, hosted: &HostedGroup, tenant: TenantNumber, until: Instant) -> Result<bool, Error> {
        let resume = |why| Error::new(ErrorKind::TenantMoving, format!("{why}: resume the watch"));
        let at = match self {
            Self::Nothing => return Ok(true),
            Self::Confirmation(at) => at,
            Self::OtherCopy => return Err(resume("the copy that is watched may show what no other region has")),
        };
        match hosted.remote.wait(tenant, at, until).await {
            RemoteWait::Confirmed => Ok(true),
            RemoteWait::TimedOut => Ok(false),
            RemoteWait::LeaderChanged => Err(resume("the home's leader changed")),
            RemoteWait::NotOwner => Err(resume("the tenant's home changed")),
        }
    }
}
