//! Group with its region, as operations name homes.

use stead_api::proto::admin::v1;

/// Group, with its region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Region of the group.
    pub region: String,
    /// Number of the group.
    pub group: u32,
}

/// Reads a group with its region.
pub(super) fn place(place: v1::Place) -> Place {
    let v1::Place { region, group } = place;
    Place { region, group }
}
