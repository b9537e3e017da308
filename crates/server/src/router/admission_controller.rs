//! Admission of operations and watches: limits are checked before anything is queued.

use std::sync::Arc;

use stead_api::operation;
use stead_state::{
    directory::Tenant,
    shard::command::{Operation, Step},
};
use stead_types::Error;
use tokio::time::Instant;

use super::{
    call::{Call, STREAM_OPERATIONS_MAX},
    request::{Action, Mutation, WriteRequest},
};
use crate::{
    admission::{Admission, Cost, Growth, LimitExceeded, Permit, StoredUsage, WatchPermit, windows},
    host::HostedGroup,
    metrics::Metrics,
};

/// Divisor of one tenant's share of the operations in flight to another node.
const FORWARDED_DIVISOR: usize = 4;

/// Admission controller of a node: what operations and watches cost, and what is counted when one is refused.
pub(crate) struct AdmissionController {
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
}

impl AdmissionController {
    /// Returns a controller without any usage.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            admission: Arc::new(Admission::new()),
            metrics,
        }
    }

    /// Admits an operation that a group of this node serves. The permit is held by its responder.
    pub(super) fn admit(
        &self,
        call: &mut Call,
        tenant: &Tenant,
        action: &Action,
        hosted: Option<&HostedGroup>,
    ) -> Result<(), Error> {
        let admitted = self.permit(call, tenant, action, hosted);
        let permit = admitted.map_err(|refused| self.error(refused, tenant))?;
        call.responder.hold(permit);
        Ok(())
    }

    /// Admits an operation to its tenant's share of those that are in flight to another node.
    pub(super) fn admit_forwarded(&self, tenant: &Tenant, len: u64) -> Result<Permit, Error> {
        let share = (STREAM_OPERATIONS_MAX / FORWARDED_DIVISOR) as u64;
        let admitted = self.admission.admit_forwarded(Instant::now(), tenant, share, len);
        admitted.map_err(|refused| self.error(refused, tenant))
    }

    /// Checks that there is room for an answer with data of a tenant, among those that wait for their readers.
    pub(super) fn check_room(&self, call: &Call, tenant: &Tenant) -> Result<(), Error> {
        let checked = call.responder.check_room(tenant.number);
        checked.map_err(|full| {
            self.metrics.refused(full.name);
            full.error()
        })
    }

    /// Admits one more watch of a tenant at this node; it counts until the permit is dropped.
    ///
    /// # Errors
    ///
    /// `QUOTA_EXCEEDED`, if the tenant has as many as it may.
    pub(crate) fn admit_watch(&self, tenant: &Tenant) -> Result<WatchPermit, Error> {
        let admitted = self.admission.admit_watch(Instant::now(), tenant);
        admitted.map_err(|refused| self.error(refused, tenant))
    }

    fn error(&self, refused: LimitExceeded, tenant: &Tenant) -> Error {
        self.metrics.refused(refused.name());
        refused.error(&tenant.name)
    }

    fn permit(
        &self,
        call: &Call,
        tenant: &Tenant,
        action: &Action,
        hosted: Option<&HostedGroup>,
    ) -> Result<Permit, LimitExceeded> {
        let cost = match action {
            Action::Write(write) => Cost {
                bytes: operation::len(&call.operation) as u64,
                charges_response: answers_data(&write.mutation),
                seed_rate: hosted.and_then(|hosted| hosted.seeds.write_rate(tenant.number)),
            },
            Action::Read(_) => Cost {
                bytes: 0,
                charges_response: true,
                seed_rate: None,
            },
        };
        let mut permit = self.admission.admit(Instant::now(), tenant, cost)?;
        if let (Action::Write(write), Some(hosted)) = (action, hosted) {
            hosted.seeds.record_request(tenant.number, cost.bytes);
            let fits = store(&mut permit, hosted, tenant, &write.mutation);
            let fits = fits.and_then(|()| check_windows(hosted, tenant, write));
            // A retry of a write that was applied before the tenant was full gets its result.
            fits.or_else(|refused| {
                if is_repeat(hosted, tenant, write) {
                    Ok(())
                } else {
                    Err(refused)
                }
            })?;
        }
        Ok(permit)
    }
}

/// Rejects a write with an idempotency key whose record would exceed a limit.
fn check_windows(hosted: &HostedGroup, tenant: &Tenant, write: &WriteRequest) -> Result<(), LimitExceeded> {
    let Some(key) = write.idempotency else { return Ok(()) };
    let logged = hosted.raft.logged_time();
    let held = hosted.machine.read(|view| {
        let clients = view.shard().clients(tenant.number)?;
        Some(windows::IdempotencyUsage {
            clients: clients.clients(),
            is_known_client: clients.windows().contains_key(&key.client),
            outcomes: clients.outcomes(),
            oldest: clients.oldest(),
            idlest_client: clients.longest_idle(),
            group_outcomes: view.shard().outcomes(),
            now: view.record(tenant.number)?.live.time_at(logged),
        })
    });
    held.ok().flatten().map_or(Ok(()), |held| windows::check(tenant, &held))
}

/// Tells whether the group has the idempotency record of a write, so that executing it adds nothing.
fn is_repeat(hosted: &HostedGroup, tenant: &Tenant, write: &WriteRequest) -> bool {
    write.idempotency.is_some_and(|key| {
        let is_repeat = hosted.machine.read(|view| {
            let clients = view.shard().clients(tenant.number);
            let window = clients.and_then(|clients| clients.windows().get(&key.client));
            window.is_some_and(|window| window.find(key.sequence).is_some())
        });
        is_repeat.unwrap_or(false)
    })
}

/// Admits the growth of a tenant's stored data by a write. The key's present size is looked up only where it matters.
fn store(permit: &mut Permit, hosted: &HostedGroup, tenant: &Tenant, mutation: &Mutation) -> Result<(), LimitExceeded> {
    let at_most = growth(mutation, Growth::at_most);
    if at_most.is_nothing() {
        return Ok(());
    }
    let stored = |(keys, bytes)| StoredUsage { keys, bytes };
    let held = hosted.read_tenant(tenant.number, |reading| {
        reading.map(|reading| (reading.state().keys, reading.state().len))
    });
    // A tenant that is not held here, or cannot be read, is rejected when the write is proposed.
    let Ok(Some(held)) = held else { return Ok(()) };
    if permit.reserve_growth(tenant, stored(held), at_most).is_ok() {
        return Ok(());
    }
    let exact = hosted.read_tenant(tenant.number, |reading| {
        growth(mutation, |operation| {
            let version = reading.and_then(|reading| reading.get(&operation.key, None).ok()?);
            Growth::of(operation, version.map(|version| version.value.bytes.len() as u64))
        })
    });
    permit.reserve_growth(tenant, stored(held), exact.unwrap_or(at_most))
}

/// Returns the growth by a mutation; for a transaction that of the branch that adds more.
fn growth(mutation: &Mutation, mut of: impl FnMut(&Operation) -> Growth) -> Growth {
    let mut branch = |steps: &[Step]| {
        let writes = steps.iter().filter_map(write_of);
        writes.map(&mut of).fold(Growth::default(), Growth::plus)
    };
    match mutation {
        Mutation::SingleKey(operation) => of(operation),
        Mutation::Txn(branches) => branch(&branches.then).max(branch(&branches.otherwise)),
        Mutation::DeleteRange(..) => Growth::default(),
    }
}

fn write_of(step: &Step) -> Option<&Operation> {
    match step {
        Step::Write(operation) => Some(operation),
        Step::Get(_) => None,
    }
}

/// Tells whether the response to an operation carries data.
pub(super) fn responds_with_data(action: &Action) -> bool {
    match action {
        Action::Read(_) => true,
        Action::Write(write) => answers_data(&write.mutation),
    }
}

/// Tells whether the response to a write carries data.
fn answers_data(mutation: &Mutation) -> bool {
    match mutation {
        Mutation::SingleKey(operation) => operation.previous,
        Mutation::Txn(_) => true,
        Mutation::DeleteRange(..) => false,
    }
}
