//! Authorization: whether a caller may do what it asks for.
//!
//! A [`Caller`] is an identity that a credential proves, with the roles that the credential itself gives. The directory
//! view adds the roles that are bound to the identity. What a call needs is a [`Need`]; [`decide`] is the only place that
//! compares both. What is not allowed is denied.
//!
//! ```text
//! method -> Requirement -- before the message is read: could any role of the caller do? --+
//! message -> Need       -- before routing, and again at the node that serves  -----------+-> decide -> () | Denial
//! ```
//!
//! # Invariants
//!
//! 1. A key, and whether it exists, is shown only to a role that reads it, by whatever method.
//! 2. A range is allowed only where one role covers all of it.
//! 3. Every method of every service of the client listener has a row in [`requirement`]; one without is refused.

mod caller;
mod decision;
mod requirement;
mod role;

pub use caller::{Caller, InvalidSubject, SUBJECT_LEN_MAX, Subject};
pub use decision::{Denial, KeyAccess, KeyRange, Need, could_satisfy, decide, is_visible};
pub use requirement::{REQUIREMENTS, Requirement, requirement};
pub use role::{AccessRole, InvalidRole, KeyScope, ROLE_LEN_MAX, TenantScope};
