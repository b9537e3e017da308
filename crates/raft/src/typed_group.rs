//! Handle of a group for those that propose to it.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use stead_store::machine::Machine;

use crate::error::ProposeError;
use crate::group::Group;
use crate::proposal::Proposal;
use crate::proposer::Proposer;

/// Handle of a group whose machine's type is known, so that proposals return that machine's results. For all else it is
/// a [`Group`], to which it dereferences. Clones are the same group.
pub struct TypedGroup<M: Machine> {
    group: Group,
    proposer: Arc<Proposer<M::CommandResult>>,
}

impl<M: Machine> Clone for TypedGroup<M> {
    fn clone(&self) -> Self {
        Self {
            group: self.group.clone(),
            proposer: self.proposer.clone(),
        }
    }
}

impl<M: Machine> Deref for TypedGroup<M> {
    type Target = Group;

    fn deref(&self) -> &Group {
        &self.group
    }
}

impl<M: Machine> TypedGroup<M> {
    pub(crate) fn new(group: Group, proposer: Arc<Proposer<M::CommandResult>>) -> Self {
        Self { group, proposer }
    }

    /// Returns the handle without the type of the machine.
    pub fn untyped(&self) -> Group {
        self.group.clone()
    }

    /// Proposes commands, each starting with its kind byte, in one entry, and returns the machine's result of each once
    /// it is applied here. Classes share the group fairly by deficit round robin. Proposals that do not wait for each
    /// other may be applied in any order.
    ///
    /// # Errors
    ///
    /// Some of them leave the outcome open: [`ProposeError::has_no_effect`].
    pub async fn propose(&self, class: u64, commands: Vec<Bytes>) -> Result<Vec<M::CommandResult>, ProposeError> {
        self.proposer.propose(class, commands).await
    }

    /// Proposes commands as [`TypedGroup::propose`] does, each only until its deadline: an expired command is in no
    /// entry, has no effect, and its result is `None`. All results come together, by the latest deadline: propose a
    /// command with a deadline of its own separately. Split what may exceed one entry by
    /// [`split_into_entries`](crate::split_into_entries).
    ///
    /// # Errors
    ///
    /// As there; the last deadline may pass while the outcome of the entry is unknown.
    pub async fn propose_by(
        &self,
        class: u64,
        proposals: Vec<Proposal>,
    ) -> Result<Vec<Option<M::CommandResult>>, ProposeError> {
        self.proposer.propose_by(class, proposals).await
    }
}
