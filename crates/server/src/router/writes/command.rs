//! Commands of writes: what goes into the log, its weight, and the limits that it carries. Pure.

use bytes::Bytes;
use stead_raft::{PROPOSAL_LEN_MAX, Proposal};
use stead_state::{
    directory::Tenant,
    shard::command::{self, DeleteRange, Effect, Operation, REMOVAL_WORK, Step, WindowLimits},
};
use stead_types::{
    TenantNumber,
    limits::{REQUEST_LEN_MAX, TXN_STEPS_MAX},
};

use crate::{
    admission::windows,
    router::{
        job::Job,
        request::{Mutation, WriteRequest},
    },
};

/// Work of a comparison or a step of a transaction beyond its bytes.
const TXN_STEP_WORK: usize = 64;

/// Work of an append beyond its bytes: it rewrites the value, up to 1 MiB. It bounds the appends of one entry so that
/// the entry's effect stays below 64 MiB.
const APPEND_WORK: usize = 4 << 10;

// The command of a request is no longer than the request, apart from the head that every command has.
const _: () = assert!(
    REQUEST_LEN_MAX + 3 * TXN_STEPS_MAX * TXN_STEP_WORK + TXN_STEPS_MAX * APPEND_WORK <= PROPOSAL_LEN_MAX
        && REMOVAL_WORK + REQUEST_LEN_MAX <= PROPOSAL_LEN_MAX,
    "a request must fit into one proposal"
);

/// Returns the proposal of a write, in a group that remembers `group_outcomes` of all its tenants. Its change notes the
/// operation that made it, where the cluster's feature level allows that.
pub(super) fn proposal(job: &Job<WriteRequest>, group_outcomes: usize, notes_operations: bool) -> Proposal {
    let limits = windows::limits(&job.tenant, group_outcomes);
    Proposal {
        command: command(&job.request, job.tenant.number, limits, notes_operations),
        work: work(&job.request.mutation),
        deadline: job.call.deadline,
    }
}

/// Returns the work of a write on each replica beyond what its length tells.
fn work(mutation: &Mutation) -> usize {
    match mutation {
        Mutation::SingleKey(operation) => operation_work(operation),
        Mutation::Txn(branches) => {
            let work = |steps: &[Step]| steps.iter().map(step_work).sum::<usize>();
            TXN_STEP_WORK * branches.compares.len() + work(&branches.then).max(work(&branches.otherwise))
        }
        Mutation::DeleteRange(..) => REMOVAL_WORK,
    }
}

fn step_work(step: &Step) -> usize {
    TXN_STEP_WORK
        + match step {
            Step::Get(_) => 0,
            Step::Write(operation) => operation_work(operation),
        }
}

fn operation_work(operation: &Operation) -> usize {
    match operation.effect {
        Effect::Append { .. } => APPEND_WORK,
        Effect::Put { .. } | Effect::Delete | Effect::Increment(_) => 0,
    }
}

/// Encodes the command of a write; of a range deletion the first one.
fn command(write: &WriteRequest, number: TenantNumber, limits: WindowLimits, notes_operations: bool) -> Bytes {
    let key = write.idempotency;
    match &write.mutation {
        Mutation::SingleKey(operation) => {
            let write = command::Write::new(number, key, operation.clone());
            // A put says all that there is to note.
            let notes_operation =
                notes_operations && matches!(operation.effect, Effect::Increment(_) | Effect::Append { .. });
            command::Write {
                limits,
                notes_operation,
                ..write
            }
            .encode()
        }
        Mutation::Txn(branches) => {
            let txn = command::Txn::new(number, key, branches.clone());
            command::Txn {
                limits,
                notes_operations,
                ..txn
            }
            .encode()
        }
        Mutation::DeleteRange(start, end) => {
            let range = DeleteRange::new(number, key, start.clone(), end.clone());
            DeleteRange { limits, ..range }.encode()
        }
    }
}

/// Returns the range deletion of a write, if it is one.
pub(super) fn range(tenant: &Tenant, write: &WriteRequest) -> Option<DeleteRange> {
    match &write.mutation {
        Mutation::DeleteRange(start, end) => {
            let limits = WindowLimits::of(|limit| tenant.limit(limit));
            let range = DeleteRange::new(tenant.number, write.idempotency, start.clone(), end.clone());
            Some(DeleteRange { limits, ..range })
        }
        Mutation::SingleKey(_) | Mutation::Txn(_) => None,
    }
}

#[cfg(test)]
#[path = "command_test.rs"]
mod command_test;
