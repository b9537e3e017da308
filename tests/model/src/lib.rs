//! Models of the ownership protocol of docs/protocol.md, explored exhaustively within small bounds.
//!
//! They check the functions of `stead_state`: the transitions of a tenant's record in a group and of a tenant
//! in the directory, the serving check, lineages. A mutant breaks one rule by wrapping or bypassing such a function
//! here; the product has no switch for it.

pub mod attach;
pub mod catalogue;
pub mod explore;
pub mod leases;
pub mod ownership;
pub mod replicas;
