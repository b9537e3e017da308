//! Power-cut tests: nodes whose data directories are on simulated disks that lose unsynced data at a power cut, and a
//! ledger of the writes that the nodes had acknowledged before.
//!
//! ```text
//!   writers ──put──> three `stead serve` ──files──> FUSE ──> FaultInjectionDisk: visible image | durable image
//!      └──> WriteLedger <──watch and scans──┘      faults: power cut, lost and torn sectors, failed and slow syncs
//! ```
//!
//! [`disk`] implements files and faults, [`mount`] mounts a disk by FUSE, [`ledger`] checks the changes that are found,
//! [`rounds`] cuts power and verifies.

pub mod disk;
pub mod ledger;
pub mod mount;
pub mod rounds;
