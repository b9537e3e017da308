//! Every decision of Stead, as deterministic machines without IO, clocks or random numbers.

pub mod authorization;
pub mod codec;
pub mod directory;
pub mod disk_room;
pub mod freshness;
pub mod lease;
pub mod lineage;
pub mod logged_time;
pub mod membership;
pub mod reconcile;
pub mod routing;
pub mod rows;
pub mod seed_pace;
pub mod sent_ledger;
pub mod serving;
pub mod shard;
pub mod verification;
