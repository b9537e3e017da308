//! Room on the disks of this node and of the voters of the groups that it leads.
//!
//! ```text
//!   free >= reserve              all writes
//!   free <  reserve              deletes, reads, trimming; writes that need room are refused, leadership goes elsewhere
//!   free <  BALLAST_NEEDED       the ballast is removed, so that elections, deletes and a start have room
//!   none                         the log waits; a failure of the rows ends this run of the node, not the process
//! ```

mod ballast;
mod metrics;
mod restarts;
mod room;
mod watcher;

pub(crate) use ballast::Ballast;
pub(crate) use metrics::{DiskMetrics, DiskSample};
pub use restarts::{RunState, run_through_full_disks};
pub(crate) use room::{DiskRoom, LIMIT as DISK_RESERVE_LIMIT};
pub(crate) use watcher::spawn;
