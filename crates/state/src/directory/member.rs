//! Members of a tenant's replica set, and the states in which a member leaves and returns.
//!
//! ```text
//! Staying -> Leaving -> Erasing -> (gone, by its own report)
//!    ^          |
//!    +- Returning
//! ```

use stead_types::GroupId;

use super::text;
use crate::codec::{Malformed, Reader, Writer};

/// Member of a tenant's replica set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaSetMember {
    /// The group.
    pub group: GroupId,
    /// Whether it stays.
    pub state: MemberState,
}

/// State of a member of a replica set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// Stays.
    Staying,
    /// Leaves, and is still consulted: the home must commit that it no longer counts its acknowledgements.
    Leaving,
    /// Must erase the tenant, and stays listed until it has reported that.
    Erasing,
    /// Was leaving and stays after all. The home counts its acknowledgements again once it has reported an entry of
    /// its own as of a view that shows this.
    Returning,
}

impl MemberState {
    /// Tells whether the member stays.
    pub fn stays(self) -> bool {
        match self {
            Self::Staying | Self::Returning => true,
            Self::Leaving | Self::Erasing => false,
        }
    }
}

impl ReplicaSetMember {
    /// Returns a member that stays.
    pub fn staying(group: GroupId) -> Self {
        Self {
            group,
            state: MemberState::Staying,
        }
    }

    pub(super) fn encode(self, w: &mut Writer) {
        w.varint(u64::from(self.group.get())).u8(match self.state {
            MemberState::Staying => 0,
            MemberState::Erasing => 1,
            MemberState::Leaving => 2,
            MemberState::Returning => 3,
        });
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            group: text::group(r)?,
            state: match r.u8()? {
                0 => MemberState::Staying,
                1 => MemberState::Erasing,
                2 => MemberState::Leaving,
                3 => MemberState::Returning,
                4.. => return Err(r.malformed()),
            },
        })
    }
}
