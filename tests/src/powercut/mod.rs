//! Power cuts: nodes whose data directories stand on disks that know what a cut would leave, and a ledger of what the
//! nodes had acknowledged before.
//!
//! ```text
//!   writers ──put──> three `stead serve` ──files──> FUSE ──> Disk: what processes see | what a cut would leave
//!      └──> Ledger <──watch and scans of each node──┘            └── cut, lost and torn sectors, failed and slow syncs
//! ```
//!
//! [`disk`] knows files and faults and no file system, [`mount`] shows a disk to processes, [`ledger`] judges what is
//! found, [`rounds`] cuts and looks.

pub mod disk;
pub mod ledger;
pub mod mount;
pub mod rounds;
