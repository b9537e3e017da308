//! Keys that an operation shows or changes, by each way that it has, and whether its caller may.

use stead_state::{
    authorization::{KeyAccess, KeyRange, Need},
    shard::command::{Branches, Effect, Operation, Step},
};
use stead_types::{Error, TenantName};

use super::request::{Action, Mutation, Query, Request};
use crate::auth::Access;

/// Checks that a caller may do all that an operation does. A transaction is checked as a whole, whichever branch runs.
///
/// # Errors
///
/// `UNAUTHENTICATED` or `PERMISSION_DENIED`.
pub(super) fn check(access: &Access, request: &Request) -> Result<(), Error> {
    if !access.is_required() {
        return Ok(());
    }
    each_need(&request.tenant, &request.action, &mut |need| access.check(&need))
}

/// Calls a function with each need of an action, until one fails.
fn each_need<'a>(
    tenant: &'a TenantName,
    action: &'a Action,
    check: &mut impl FnMut(Need<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut need = |access, range| check(Need::Keys { tenant, access, range });
    match action {
        Action::Read(read) => match &read.query {
            Query::Get(key) => need(KeyAccess::Read, KeyRange::Key(key)),
            Query::BatchGet(keys) => keys
                .iter()
                .try_for_each(|key| need(KeyAccess::Read, KeyRange::Key(key))),
            Query::Scan(range) => {
                let (start, end) = range.bounds();
                need(KeyAccess::Read, KeyRange::Range(start, end))
            }
        },
        Action::Write(write) => match &write.mutation {
            Mutation::SingleKey(operation) => each_access(operation, &mut need),
            Mutation::DeleteRange(start, end) => need(KeyAccess::Write, KeyRange::Range(start, end.as_deref())),
            Mutation::Txn(branches) => each_access_of_txn(branches, &mut need),
        },
    }
}

fn each_access_of_txn<'a>(
    branches: &'a Branches,
    need: &mut impl FnMut(KeyAccess, KeyRange<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    for compare in &branches.compares {
        need(KeyAccess::Read, KeyRange::Key(&compare.key))?;
    }
    for step in branches.then.iter().chain(&branches.otherwise) {
        match step {
            Step::Get(key) => need(KeyAccess::Read, KeyRange::Key(key))?,
            Step::Write(operation) => each_access(operation, need)?,
        }
    }
    Ok(())
}

fn each_access<'a>(
    operation: &'a Operation,
    need: &mut impl FnMut(KeyAccess, KeyRange<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    let key = KeyRange::Key(&operation.key);
    need(KeyAccess::Write, key)?;
    // The responses of these show the value or its length.
    let shows_value = match operation.effect {
        Effect::Increment(_) | Effect::Append { .. } => true,
        Effect::Put { .. } | Effect::Delete => false,
    };
    if shows_value || operation.previous || operation.condition.is_some() {
        need(KeyAccess::Read, key)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "key_access_test.rs"]
mod key_access_test;
