//! The directory from a node's side: asking its leader, and keeping this node's view.

mod ask;
mod follow;
mod seat;

pub(crate) use ask::Directory;
pub(crate) use follow::ViewFollower;
pub(crate) use seat::{Refusal, Seat};
