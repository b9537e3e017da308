//! Conversions between messages and values. Requests are validated here, once, and never again.
//!
//! An error names the request's field, the limit and what to do about it.

pub mod condition;
pub mod directory;
pub mod id;
pub mod key;
pub mod limits;
pub mod operation;
pub mod page;
pub mod range;
pub mod read;
#[cfg(test)]
mod tests;
