//! Applies `Freeze`, `Pull` and `Activate`: the decision is [`crate::shard::ownership`]'s, here rows, idempotency windows
//! and indexes follow the record.

use stead_types::TenantNumber;

use super::{
    super::{
        Shard,
        apply_result::{ApplyResult, DataResult, DetachReason, GuardFailure},
        client_windows::ClientWindows,
        command::{Activate, DiscardFork, Freeze, Pull, PullHeader},
        digest::DigestMismatch,
        ownership::{self, Cut},
        record::TenantRecord,
    },
    EntryContext,
    data::TargetCopy,
    rewind,
};
use crate::rows::{Unreadable, change::Change};

impl Shard {
    pub(super) fn freeze(
        &mut self,
        context: &mut EntryContext<'_>,
        freeze: Freeze,
    ) -> Result<Result<(), GuardFailure>, Unreadable> {
        let (number, stamp) = (freeze.tenant, context.stamp());
        let done = self.cutting(context, number, &freeze.lineage, |record, revision_at| {
            ownership::freeze(record, &freeze, stamp, revision_at)
        })?;
        Ok(done.map(|cut| {
            self.take_from_service(context, number, cut);
            self.not_due(number);
        }))
    }

    /// Brings rows, windows and indexes to what a transition took from service.
    pub(super) fn take_from_service(&mut self, context: &mut EntryContext<'_>, number: TenantNumber, cut: Cut) {
        let Some(tenant) = self.tenants.get_mut(&number) else {
            return;
        };
        tenant.dirty = true;
        if let (Some(fork), Some(_)) = (cut.fork, cut.rewound_to) {
            tenant.record.begin_rewind(fork, cut.lacked_outcomes);
        } else if let Some(fork) = cut.fork {
            // The fork's windows are in rows from the next checkpoint on, and in no snapshot that was cut before.
            let clients = std::mem::take(&mut tenant.clients);
            tenant.fork_clients.push((fork, clients));
        }
        if let Some(shadow) = cut.shadow {
            tenant.shadow_clients = ClientWindows::default();
            self.discard(context.rows, number, &shadow);
        }
        self.index_maintenance(number);
    }

    pub(super) fn pull(&mut self, context: &mut EntryContext<'_>, pull: Pull) -> Result<ApplyResult, Unreadable> {
        let Pull { head, records } = pull;
        let prefix = self.prefix;
        let Some(tenant) = self.tenants.get_mut(&head.tenant) else {
            return Ok(ApplyResult::GuardFailed(GuardFailure::NoRecord));
        };
        let record = &mut tenant.record;
        if let Err(failure) = check(record, &head, &records.changes) {
            return Ok(ApplyResult::GuardFailed(failure));
        }
        let target = TargetCopy {
            copy: prefix.copy(head.tenant, record.live.number),
            state: &mut record.live,
            clients: &mut tenant.clients,
        };
        target.apply(context, &records, |_, _| true)?;
        ownership::pulled(record, &head);
        let live = &mut record.live;
        live.retention_floor = live.retention_floor.max(records.retention_floor.min(live.revision));
        let differs = records.digests.and_then(|source| live.digests.mismatch(&source));
        // The windows of one of the two lack outcomes, because it was rewound; which one is not known here.
        live.rewound |= differs == Some(DigestMismatch::Outcomes);
        let differs = differs.filter(|differs| *differs == DigestMismatch::Keys);
        record.suspect |= differs.is_some();
        let revision = live.revision;
        tenant.dirty = true;
        self.index_maintenance(head.tenant);
        let detached = differs.map(DetachReason::DigestMismatch);
        Ok(ApplyResult::Data(DataResult { revision, detached }))
    }

    pub(super) fn discard_fork(
        &mut self,
        context: &mut EntryContext<'_>,
        discard: DiscardFork,
    ) -> Result<(), GuardFailure> {
        let copy = ownership::discard_fork(self.record_mut(discard.tenant)?, &discard)?;
        self.discard(context.rows, discard.tenant, &copy);
        self.index_maintenance(discard.tenant);
        Ok(())
    }

    pub(super) fn activate(
        &mut self,
        context: &mut EntryContext<'_>,
        activate: Activate,
    ) -> Result<Result<(), GuardFailure>, Unreadable> {
        let (number, group) = (activate.tenant, self.prefix.group);
        let stamp = context.stamp();
        let prefix = self.prefix;
        let record = match self.record_mut(number) {
            Ok(record) => record,
            Err(failure) => return Ok(Err(failure)),
        };
        let at = rewind::change_revision(context.rows, prefix, number, record, activate.kept.sequence())?;
        let revision_at = |sequence| at.filter(|at| at.sequence() == sequence);
        let done = match ownership::activate(record, group, &activate, stamp, &revision_at) {
            Ok(done) => done,
            Err(failure) => return Ok(Err(failure)),
        };
        self.take_from_service(context, number, done.cut);
        if let Some(tenant) = self.tenants.get_mut(&number)
            && let Some(edge) = done.raised_edge
        {
            tenant.clients.raise_edges(edge, |_, _| true);
        }
        self.index_owner(context.rows, number)?;
        // The entry makes a batch of the feed, so that a wait for its index ends without another write.
        self.touch(number, activate.kept, 0);
        Ok(Ok(()))
    }
}

/// Checks the guard of a pull, and that its changes are those that it names.
fn check(record: &TenantRecord, head: &PullHeader, changes: &[Change]) -> Result<(), GuardFailure> {
    ownership::check_pull(record, head)?;
    let failure = GuardFailure::Position {
        revision: record.live.revision,
    };
    let first = changes.first().map(|change| Some(change.revision.sequence()));
    let last = changes.last().map_or(head.after, |change| change.revision);
    let continues = first.is_none_or(|first| first == head.after.sequence().next());
    if continues && last == head.last {
        Ok(())
    } else {
        Err(failure)
    }
}
