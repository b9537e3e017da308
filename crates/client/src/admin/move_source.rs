//! Part of the home before a move.

use stead_api::proto::admin::v1::move_tenant_request::Source;

/// Role of the home before a move, afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MoveSource {
    /// It follows where the tenant's followers name its region, else it leaves.
    #[default]
    Policy,
    /// It follows.
    Follow,
    /// It leaves.
    Leave,
}

impl MoveSource {
    pub(super) fn message(self) -> Source {
        match self {
            Self::Policy => Source::Unspecified,
            Self::Follow => Source::Follow,
            Self::Leave => Source::Leave,
        }
    }

    pub(super) fn read(source: Source) -> Self {
        match source {
            Source::Unspecified => Self::Policy,
            Source::Follow => Self::Follow,
            Source::Leave => Self::Leave,
        }
    }
}
