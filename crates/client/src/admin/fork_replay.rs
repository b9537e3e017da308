//! Operators' calls that write changes of forks again.

use std::time::Duration;

use bytes::Bytes;
use stead_api::proto::admin::v1::{self, fork_service_client::ForkServiceClient as Service};
use stead_types::{Error, Revision};

use super::{
    Admin,
    fork::{ForkClass, ForkName, revision},
};
use crate::response::malformed;

/// Least time for a page, which waits for the directory and for the home.
const REPLAY_MIN: Duration = Duration::from_secs(15);

/// Which changes of a fork are written again, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayOptions {
    /// Classes that are written; none: clean and commutative changes.
    pub classes: Vec<ForkClass>,
    /// Only changes of this key; empty: of all. A change of several keys is written whole.
    pub key: Bytes,
    /// Only changes of keys that begin with this; empty: of all.
    pub prefix: Bytes,
    /// Whether to tell only what would be done.
    pub dry_run: bool,
    /// Reason, for the audit log.
    pub reason: String,
    /// Most changes of a page; 0: the node's default.
    pub page_size: u32,
}

/// Page of changes of a fork that were written again, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayPage {
    /// The changes that were selected, in the order of the fork.
    pub changes: Vec<ReplayedChange>,
    /// Token of the next page; empty on the last one.
    pub next_page_token: String,
    /// Group at which it was done: the tenant's home.
    pub home_group: u32,
    /// Region of that group.
    pub home_region: String,
}

/// Change of a fork that was to be written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedChange {
    /// The change in the fork.
    pub revision: Revision,
    /// Its class, as the tenant's home says.
    pub class: ForkClass,
    /// Outcome.
    pub outcome: ReplayOutcome,
    /// Revision that it has on the tenant's history, if it was written or found.
    pub live: Option<Revision>,
    /// Its keys.
    pub keys: Vec<Bytes>,
    /// Those of its keys that were changed since the fork point, with their last change; none: the key is gone.
    pub touched: Vec<(Bytes, Option<Revision>)>,
    /// Why it could not be written; empty otherwise.
    pub failure: String,
}

/// Outcome of the replay of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// It was written again; in a dry run: it would be.
    Written,
    /// It is there already.
    Found,
    /// Its class is not among those that are to be written.
    Left,
    /// There is nothing to write: it deleted keys that do not exist.
    Nothing,
    /// It cannot be applied to what is there.
    Failed,
    /// The node is of a later version.
    Unknown,
}

impl Admin {
    /// Writes a page of a fork's changes again, each once for ever, and returns what became of them; an empty token stands
    /// for the first page. A page that failed may be asked for again: what was written is found.
    ///
    /// # Errors
    ///
    /// No such fork, the tenant is on its way to another home, no leader of the fork's group or of the home answers, or the
    /// cluster is below feature level 4.
    pub async fn replay_fork(
        &self,
        fork: &ForkName,
        replay: &ReplayOptions,
        page_token: &str,
    ) -> Result<ReplayPage, Error> {
        let classes = replay.classes.iter().map(|class| class.message().into());
        let request = v1::ReplayForkRequest {
            page_size: i32::try_from(replay.page_size).unwrap_or(i32::MAX),
            page_token: page_token.to_owned(),
            tenant: fork.tenant.clone(),
            group: fork.group,
            fork: fork.number,
            classes: classes.collect(),
            key: replay.key.clone(),
            prefix: replay.prefix.clone(),
            dry_run: replay.dry_run,
            reason: replay.reason.clone(),
        };
        let call = async |channel, request| Service::new(channel).replay_fork(request).await;
        let state = self.0.state();
        let deadline = state.deadline(None).max(state.deadline(Some(REPLAY_MIN)));
        // Whatever an attempt has written the next one finds.
        let page = state.unary(request, deadline, true, call).await?;
        let changes = page.changes.into_iter().map(ReplayedChange::read);
        Ok(ReplayPage {
            changes: changes.collect::<Result<_, _>>()?,
            next_page_token: page.next_page_token,
            home_group: page.home_group,
            home_region: page.home_region,
        })
    }
}

impl ReplayedChange {
    fn read(change: v1::ReplayedChange) -> Result<Self, Error> {
        let outcome = match change.outcome() {
            v1::ReplayOutcome::Unspecified => ReplayOutcome::Unknown,
            v1::ReplayOutcome::Written => ReplayOutcome::Written,
            v1::ReplayOutcome::Found => ReplayOutcome::Found,
            v1::ReplayOutcome::Left => ReplayOutcome::Left,
            v1::ReplayOutcome::Nothing => ReplayOutcome::Nothing,
            v1::ReplayOutcome::Failed => ReplayOutcome::Failed,
        };
        let class = ForkClass::read(change.class());
        let touched = change.touched.into_iter();
        let touched = touched.map(|key| Ok((key.key, key.live_revision.map(revision).transpose()?)));
        Ok(Self {
            revision: revision(change.revision.ok_or_else(|| malformed("revision"))?)?,
            class,
            outcome,
            live: change.live_revision.map(revision).transpose()?,
            keys: change.keys,
            touched: touched.collect::<Result<_, Error>>()?,
            failure: change.failure,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replayed_change_is_read_and_malformed_one_refused() {
        let at = |epoch, sequence| Some(stead_api::proto::v1::Revision { epoch, sequence });
        let message = v1::ReplayedChange {
            revision: at(1, 8),
            class: v1::ForkClass::Conflict.into(),
            outcome: v1::ReplayOutcome::Written.into(),
            live_revision: at(2, 30),
            keys: vec!["k".into()],
            touched: vec![v1::TouchedKey {
                key: "k".into(),
                live_revision: None,
            }],
            failure: String::new(),
        };
        let change = ReplayedChange::read(message.clone()).unwrap();
        assert_eq!(
            (change.class, change.outcome),
            (ForkClass::Conflict, ReplayOutcome::Written)
        );
        assert_eq!(change.live, "2.30".parse().ok());
        assert_eq!(change.touched, [("k".into(), None)]);
        let later = v1::ReplayedChange {
            outcome: 99,
            class: 99,
            ..message.clone()
        };
        let later = ReplayedChange::read(later).unwrap();
        assert_eq!(
            (later.class, later.outcome),
            (ForkClass::Unknown, ReplayOutcome::Unknown)
        );
        let nameless = v1::ReplayedChange {
            revision: None,
            ..message
        };
        assert!(ReplayedChange::read(nameless).is_err());
    }
}
