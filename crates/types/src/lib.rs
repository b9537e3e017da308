//! Value types that are valid by construction.
//!
//! Parse at the edge, never check again: every id here can only be built from text or numbers that keep its rules.
//! This crate knows no wire format, no clock and no disk.

mod condition;
mod durability;
mod epoch;
mod error;
mod group;
mod idempotency;
mod jurisdiction;
pub mod limits;
pub mod planted;
mod region;
mod revision;
mod tenant;
mod tenant_limit;
mod token;
mod version;

pub use condition::{Condition, Operand, Relation};
pub use durability::Durability;
pub use epoch::Epoch;
pub use error::{Error, ErrorKind};
pub use group::{GroupId, NodeId};
pub use idempotency::{ClientId, IdempotencyKey, InvalidIdempotencyKey, TenantTime};
pub use jurisdiction::{InvalidJurisdiction, Jurisdiction};
pub use region::{InvalidRegionName, RegionName};
pub use revision::{InvalidRevision, Revision, Sequence};
pub use tenant::{InvalidTenantName, TenantName, TenantNumber};
pub use tenant_limit::{InvalidTenantLimit, LimitUnit, TenantLimit, TenantLimits};
pub use token::{InvalidSessionToken, InvalidTokenText, SessionToken, SessionTokens, TooManyTokens};
pub use version::{DirectoryVersion, FeedOffset, Incarnation};
