//! A node's access to the directory: the client of its leader, and the updater of this node's view.

mod bulk_moves;
mod client;
mod failback;
mod lease_grants;
mod local_voter;
mod operations;
mod promotions;
mod renewals;
mod view_updater;
mod voter_search;

pub(crate) use client::DirectoryClient;
pub(crate) use local_voter::{LocalVoter, VoterError};
pub(crate) use operations::OperationQuery;
pub(crate) use view_updater::ViewUpdater;
