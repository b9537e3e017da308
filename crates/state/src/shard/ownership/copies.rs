//! Copies that a transition takes from service.

use stead_types::{Revision, Sequence};

use crate::{
    lineage::{Lineage, RevisionStatus},
    shard::record::{CopyState, Fork, TenantRecord},
};

/// Look-up of the revision of the live copy's change with a sequence: `None` where the versions as of that change are
/// gone, so that the copy cannot be rewound to it.
pub type RevisionAt<'a> = &'a dyn Fn(Sequence) -> Option<Revision>;

/// What a transition took from service: the caller brings rows, windows and indexes to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Number of the live copy that became a fork. A new live copy took its place: empty, or rewound.
    pub fork: Option<u32>,
    /// Revision that the new live copy was rewound to: its rows, digests and counters are to be made from the fork's.
    pub rewound_to: Option<Revision>,
    /// The shadow copy that was dropped.
    pub shadow: Option<CopyState>,
}

/// Makes the live copy a fork under its number, with what it holds after the fork point, and puts another in its
/// place: rewound to the fork point where the copy's versions allow it, else empty.
pub(super) fn cut_live(record: &mut TenantRecord, point: Sequence, revision_at: RevisionAt<'_>) -> Cut {
    let rewound_to = revision_at(point).filter(|revision| revision.sequence() == point && point > Sequence::ZERO);
    let copy = std::mem::take(&mut record.live);
    let number = record.next_copy();
    record.live = match rewound_to {
        Some(revision) => CopyState {
            number,
            revision,
            rewound: true,
            retention_floor: copy.retention_floor.min(revision),
            ..copy
        },
        None => CopyState {
            number,
            ..CopyState::default()
        },
    };
    // An empty copy is never suspect.
    record.suspect &= rewound_to.is_some();
    let fork = Some(copy.number);
    record.forks.push(Fork {
        copy,
        lineage: record.lineage.clone(),
        point,
    });
    Cut {
        fork,
        rewound_to,
        shadow: None,
    }
}

/// Drops the shadow copy if the lineage does not hold its last change.
pub(super) fn drop_shadow_off(record: &mut TenantRecord, lineage: &Lineage) -> Option<CopyState> {
    let is_off = |shadow: &CopyState| lineage.status_of(shadow.revision) != RevisionStatus::OnLineage;
    let dropped = record.shadow.take_if(|shadow| is_off(&shadow.state));
    dropped.map(|shadow| shadow.state)
}
