//! Copies that a transition takes from service.

use stead_types::{Revision, Sequence};

use crate::{
    lineage::{Lineage, RevisionStatus},
    shard::record::{CopyState, Fork, Tail, TenantRecord},
};

/// Look-up of the revision of the live copy's change with a sequence: `None` where the versions as of that change are
/// gone, so that the copy cannot be rewound to it.
pub type RevisionAt<'a> = &'a dyn Fn(Sequence) -> Option<Revision>;

/// Copy or tail that a transition took from service: the caller brings rows, windows and indexes to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Number of the fork. Where nothing was rewound it is that of the live copy, and a new, empty one took its place.
    pub fork: Option<u32>,
    /// Revision that the live copy is rewound to: its rows above are to move to the fork, and digests and counters to be
    /// brought to it.
    pub rewound_to: Option<Revision>,
    /// Whether the live copy lacked outcomes before it was rewound.
    pub lacked_outcomes: bool,
    /// The shadow copy that was dropped.
    pub shadow: Option<CopyState>,
}

/// Makes what the live copy holds after the fork point a fork. Where the copy's versions allow it the live copy keeps its
/// number and goes back to the fork point; else it becomes the fork as a whole, under its number, and an empty one takes
/// its place.
pub(super) fn cut_live(record: &mut TenantRecord, point: Sequence, revision_at: RevisionAt<'_>) -> Cut {
    let rewound_to = revision_at(point).filter(|revision| revision.sequence() == point && point > Sequence::ZERO);
    let number = record.next_copy();
    let mut copy = record.live.clone();
    // Only the windows of a live copy count.
    let lacked_outcomes = std::mem::take(&mut copy.rewound);
    match rewound_to {
        Some(revision) => {
            copy.number = number;
            record.live.revision = revision;
            record.live.rewound = true;
            record.live.retention_floor = record.live.retention_floor.min(revision);
        }
        None => {
            record.live = CopyState {
                number,
                ..CopyState::default()
            };
            // An empty copy is never suspect.
            record.suspect = false;
        }
    }
    let fork = Some(copy.number);
    record.forks.push(Fork {
        copy,
        lineage: record.lineage.clone(),
        point,
        tail: rewound_to.map(|after| Tail { after, len: 0 }),
    });
    Cut {
        fork,
        rewound_to,
        lacked_outcomes,
        shadow: None,
    }
}

/// Drops the shadow copy if the lineage does not hold its last change.
pub(super) fn drop_shadow_off(record: &mut TenantRecord, lineage: &Lineage) -> Option<CopyState> {
    let is_off = |shadow: &CopyState| lineage.status_of(shadow.revision) != RevisionStatus::OnLineage;
    let dropped = record.shadow.take_if(|shadow| is_off(&shadow.state));
    dropped.map(|shadow| shadow.state)
}
