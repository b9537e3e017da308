//! What is served here is admitted first: what it may cost its tenant is decided before it is queued.

use stead_api::operation;
use stead_state::shard::command::{Operation, Step};
use stead_types::{Error, GroupId};
use tokio::time::Instant;

use super::{Ask, Call, Router, Write, request::Change};
use crate::{
    admission::{Cost, Growth, Permit, Refused, Stored, WatchPermit, windows},
    host::Hosted,
};
use stead_state::directory::Tenant;

impl Router {
    /// Admits an operation that is served by a group of this node. The permit goes with its reply.
    pub(super) fn admit(&self, call: &mut Call, tenant: &Tenant, ask: &Ask, group: GroupId) -> Result<(), Error> {
        let admitted = self.permit(call, tenant, (ask, group));
        let permit = admitted.map_err(|refused| self.refused(refused, tenant))?;
        call.reply.hold(permit);
        Ok(())
    }

    /// Admits one more watch of a tenant at this node; it counts until the permit is dropped.
    ///
    /// # Errors
    ///
    /// `QUOTA_EXCEEDED`, if the tenant has as many as it may.
    pub(crate) fn admit_watch(&self, tenant: &Tenant) -> Result<WatchPermit, Error> {
        let admitted = self.admission.admit_watch(Instant::now(), tenant);
        admitted.map_err(|refused| self.refused(refused, tenant))
    }

    pub(super) fn refused(&self, refused: Refused, tenant: &Tenant) -> Error {
        self.host.counts.refused(refused.name());
        refused.error(&tenant.name)
    }

    fn permit(&self, call: &Call, tenant: &Tenant, (ask, group): (&Ask, GroupId)) -> Result<Permit, Refused> {
        let cost = match ask {
            Ask::Write(write) => Cost {
                bytes: operation::len(&call.operation) as u64,
                charges_answer: answers_data(&write.change),
            },
            Ask::Read(_) => Cost {
                bytes: 0,
                charges_answer: true,
            },
        };
        let mut permit = self.admission.admit(Instant::now(), tenant, cost)?;
        if let (Ask::Write(write), Some(hosted)) = (ask, self.host.groups.get(&group)) {
            let fits = store(&mut permit, hosted, tenant, &write.change);
            let fits = fits.and_then(|()| self.check_windows(hosted, tenant, write));
            // What happened before the tenant was full is answered, not refused.
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

    /// Refuses a write with an idempotency key whose outcome would find no room.
    fn check_windows(&self, hosted: &Hosted, tenant: &Tenant, write: &Write) -> Result<(), Refused> {
        let Some(key) = write.idempotency else { return Ok(()) };
        let logged = hosted.raft.logged_time();
        let held = hosted.machine.read(|view| {
            let clients = view.shard().clients(tenant.number)?;
            Some(windows::Remembered {
                clients: clients.windows().len(),
                is_kept: clients.windows().contains_key(&key.client),
                outcomes: clients.outcomes(),
                oldest: clients.oldest(),
                quietest: clients.quietest(),
                of_group: view.shard().outcomes(),
                now: view.record(tenant.number)?.live.time_at(logged),
            })
        });
        held.ok().flatten().map_or(Ok(()), |held| windows::check(tenant, &held))
    }
}

/// Tells whether the outcome of a write is remembered here: it adds nothing.
fn is_repeat(hosted: &Hosted, tenant: &Tenant, write: &Write) -> bool {
    write.idempotency.is_some_and(|key| {
        let is_repeat = hosted.machine.read(|view| {
            let clients = view.shard().clients(tenant.number);
            let window = clients.and_then(|clients| clients.windows().get(&key.client));
            window.is_some_and(|window| window.find(key.sequence).is_some())
        });
        is_repeat.unwrap_or(false)
    })
}

/// Admits what a write adds to what its tenant stores. What the key holds now is looked up only where it matters.
fn store(permit: &mut Permit, hosted: &Hosted, tenant: &Tenant, change: &Change) -> Result<(), Refused> {
    let at_most = growth(change, Growth::at_most);
    if at_most.is_nothing() {
        return Ok(());
    }
    let stored = |(keys, bytes)| Stored { keys, bytes };
    let held = hosted.reading(tenant.number, |reading| {
        reading.map(|reading| (reading.state().keys, reading.state().len))
    });
    // What is not held here, or cannot be read, is refused where it is proposed.
    let Ok(Some(held)) = held else { return Ok(()) };
    if permit.grow(tenant, stored(held), at_most).is_ok() {
        return Ok(());
    }
    let exact = hosted.reading(tenant.number, |reading| {
        growth(change, |operation| {
            let version = reading.and_then(|reading| reading.get(&operation.key, None).ok()?);
            Growth::of(operation, version.map(|version| version.value.bytes.len() as u64))
        })
    });
    permit.grow(tenant, stored(held), exact.unwrap_or(at_most))
}

/// Returns what a change adds, given what each of its writes does: of a transaction the branch that adds more.
fn growth(change: &Change, mut of: impl FnMut(&Operation) -> Growth) -> Growth {
    let mut branch = |steps: &[Step]| {
        let writes = steps.iter().filter_map(write_of);
        writes.map(&mut of).fold(Growth::default(), Growth::plus)
    };
    match change {
        Change::One(operation) => of(operation),
        Change::Txn(branches) => branch(&branches.then).max(branch(&branches.otherwise)),
        Change::DeleteRange(..) => Growth::default(),
    }
}

fn write_of(step: &Step) -> Option<&Operation> {
    match step {
        Step::Write(operation) => Some(operation),
        Step::Get(_) => None,
    }
}

/// Tells whether a write is answered with what keys hold.
fn answers_data(change: &Change) -> bool {
    match change {
        Change::One(operation) => operation.previous,
        Change::Txn(_) => true,
        Change::DeleteRange(..) => false,
    }
}
