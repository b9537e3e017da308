//! Kind byte of each command; never used for anything else again.

pub(super) const BOOTSTRAP: u8 = 1;
pub(super) const CREATE_REGION: u8 = 2;
pub(super) const JOIN: u8 = 3;
pub(super) const UPDATE_ADDRESSES: u8 = 4;
pub(super) const CREATE_TENANT: u8 = 5;
pub(super) const UPDATE_TENANT: u8 = 6;
pub(super) const ERASE_TENANT: u8 = 7;
pub(super) const REPORT: u8 = 8;
pub(super) const REFRESH_MEMBERS: u8 = 9;
pub(super) const MOVE_TENANT: u8 = 10;
pub(super) const ABORT_MOVE: u8 = 11;
pub(super) const SET_CLUSTER_SETTINGS: u8 = 12;
pub(super) const RAISE_FEATURE_LEVEL: u8 = 13;
pub(super) const BEGIN_BULK_MOVE: u8 = 20;
pub(super) const ADVANCE_BULK_MOVE: u8 = 21;
pub(super) const PAUSE_BULK_MOVE: u8 = 22;
pub(super) const RESUME_BULK_MOVE: u8 = 23;
pub(super) const BEGIN_PROMOTION: u8 = 30;
pub(super) const ADVANCE_PROMOTION: u8 = 31;
pub(super) const RECORD_FORK_DISCARD: u8 = 32;
pub(super) const BEGIN_REHEARSAL: u8 = 50;
pub(super) const SET_REGION_LOSS: u8 = 51;
pub(super) const RECORD_FORK_REPLAY: u8 = 38;
pub(super) const GRANT_ROLE: u8 = 60;
pub(super) const REVOKE_ROLE: u8 = 61;
pub(super) const RECORD_CALLS: u8 = 62;
