//! Applies feed records: to the live copy, and to the shadow copy where one is being seeded.

use stead_types::{
    ClientId, Revision, TenantNumber,
    planted::{self, Bug},
};

use super::{
    super::{
        Shard,
        append::{append, current},
        apply_result::{ApplyResult, DataResult, DetachReason, GuardFailure},
        client_windows::ClientWindows,
        command::{Data, DataHeader, FeedRecords},
        digest::DigestMismatch,
        ownership,
        record::{CopyState, TenantRecord},
        tenant::LoadedTenant,
    },
    EntryContext,
};
use crate::rows::{CopyPrefix, GroupPrefix, Unreadable, change::Change};

impl Shard {
    pub(super) fn data(&mut self, context: &mut EntryContext<'_>, data: Data) -> Result<ApplyResult, Unreadable> {
        let Data { head, records } = data;
        let Some(tenant) = self.tenants.get_mut(&head.tenant) else {
            return Ok(ApplyResult::GuardFailed(GuardFailure::NoRecord));
        };
        let record = &mut tenant.record;
        tenant.dirty = true;
        if let Err(failure) = ownership::admit_data(record, &head) {
            self.index_detached(head.tenant);
            return Ok(ApplyResult::GuardFailed(failure));
        }
        let detached = apply_records(context, self.prefix, tenant, &head, &records)?;
        let record = &mut tenant.record;
        if detached.is_some() {
            record.session = None;
            record.suspect |= matches!(detached, Some(DetachReason::DigestMismatch(_)));
        }
        record.live.retention_floor = record
            .live
            .retention_floor
            .max(records.retention_floor.min(record.live.revision));
        let revision = record.live.revision;
        self.index_maintenance(head.tenant);
        if detached.is_some() {
            self.index_detached(head.tenant);
        }
        Ok(ApplyResult::Data(DataResult { revision, detached }))
    }
}

/// Applies records to the copies of a tenant. Returns the reason for detaching the tenant, if they end its session.
fn apply_records(
    context: &mut EntryContext<'_>,
    prefix: GroupPrefix,
    tenant: &mut LoadedTenant,
    head: &DataHeader,
    records: &FeedRecords,
) -> Result<Option<DetachReason>, Unreadable> {
    let number = head.tenant;
    let has_shadow = tenant.record.shadow.as_ref().is_some_and(|shadow| !shadow.windows_only);
    let shadow_lacks = has_shadow && !apply_to_shadow(context, prefix, number, tenant, records)?;
    let mut live_ends = None;
    // A suspect copy is not changed.
    if !tenant.record.suspect {
        let state = &mut tenant.record.live;
        let target = TargetCopy {
            copy: prefix.copy(number, state.number),
            state,
            clients: &mut tenant.clients,
        };
        let is_gapless = target.apply(context, records, |_, _| true)?;
        apply_outcomes_to_shadow(tenant, records);
        live_ends = match digest_mismatch(&mut tenant.record, head, records) {
            Some(differs) => Some(DetachReason::DigestMismatch(differs)),
            // While a shadow copy is seeded, the live one may have a gap.
            None => (!is_gapless && !has_shadow).then_some(DetachReason::Gap),
        };
    }
    Ok(live_ends.or(shadow_lacks.then_some(DetachReason::Gap)))
}

/// Applies records to the shadow copy; tells whether no records before them are missing.
fn apply_to_shadow(
    context: &mut EntryContext<'_>,
    prefix: GroupPrefix,
    number: TenantNumber,
    tenant: &mut LoadedTenant,
    records: &FeedRecords,
) -> Result<bool, Unreadable> {
    let Some(mut shadow) = tenant.record.shadow.take() else {
        return Ok(true);
    };
    let mut state = std::mem::take(&mut shadow.state);
    let target = TargetCopy {
        copy: prefix.copy(number, state.number),
        state: &mut state,
        clients: &mut tenant.shadow_clients,
    };
    let is_gapless = target.apply(context, records, |client, revision| {
        shadow.lacks_outcome(client, revision)
    })?;
    shadow.state = state;
    tenant.record.shadow = Some(shadow);
    Ok(is_gapless)
}

/// Applies the outcomes of changes that the live copy has now to windows that are seeded for it.
fn apply_outcomes_to_shadow(tenant: &mut LoadedTenant, records: &FeedRecords) {
    let Some(mut shadow) = tenant.record.shadow.take_if(|shadow| shadow.windows_only) else {
        return;
    };
    let live = &tenant.record.live;
    let mut state = std::mem::take(&mut shadow.state);
    let is_new = |change: &&Change| state.revision < change.revision && change.revision <= live.revision;
    for change in records.changes.iter().filter(is_new).collect::<Vec<_>>() {
        state.time = state.time.max(change.time);
        let applies = |client| shadow.lacks_outcome(client, change.revision);
        tenant.shadow_clients.apply_outcome(&mut state, change, applies);
    }
    shadow.state = state;
    shadow.follow_keys(live);
    tenant.record.shadow = Some(shadow);
}

/// Copy that changes are applied to.
pub(super) struct TargetCopy<'a> {
    pub(super) copy: CopyPrefix,
    pub(super) state: &'a mut CopyState,
    pub(super) clients: &'a mut ClientWindows,
}

impl TargetCopy<'_> {
    /// Applies the changes that are new. Returns false, with nothing applied, if changes before them are missing.
    pub(super) fn apply(
        self,
        context: &mut EntryContext<'_>,
        records: &FeedRecords,
        applies: impl Fn(ClientId, Revision) -> bool,
    ) -> Result<bool, Unreadable> {
        let Self { copy, state, clients } = self;
        let start = records
            .changes
            .partition_point(|change| change.revision <= state.revision);
        let new: &[Change] = &records.changes[start..];
        let next = state.revision.sequence().next();
        let is_gap = new.first().is_some_and(|first| Some(first.revision.sequence()) != next);
        if is_gap && !planted::is(Bug::FeedGapIgnored) {
            return Ok(false);
        }
        context.effects += new.len();
        for change in new {
            let before = current(context.rows, copy, &change.key)?;
            state.revision = change.revision;
            state.index = context.index;
            state.time = state.time.max(change.time);
            clients.apply_outcome(state, change, |client| applies(client, change.revision));
            append(context.rows, copy, state, before, change.clone());
        }
        Ok(true)
    }
}

/// Compares the copy with the home, at the revision at which the home's digests were taken, and returns the digest in which
/// it differs. Idempotency records are compared only if every batch since an attach was applied: evictions have no
/// revision.
///
/// They may differ where a copy was rewound, this one or, before it took over in a promotion, the home's: the changes that
/// were cut had evicted outcomes, which nothing restores. Then the copy's windows count as incomplete until both have the
/// same outcomes.
fn digest_mismatch(record: &mut TenantRecord, head: &DataHeader, records: &FeedRecords) -> Option<DigestMismatch> {
    let end = records.changes.last()?.revision;
    let is_comparable = end == record.live.revision && !planted::is(Bug::FeedDigestNotCompared);
    let home = records.digests.filter(|_| is_comparable)?;
    let differs = record.live.digests.mismatch(&home);
    if differs == Some(DigestMismatch::Keys) {
        return differs;
    }
    let session = record.session_of(head.home, head.attach);
    if !session.is_some_and(|session| session.attached && session.epoch == head.epoch) {
        return None;
    }
    let may_differ = record.live.rewound || record.lineage.begins_with_promotion(record.epoch);
    record.live.rewound = differs.is_some() && may_differ;
    differs.filter(|_| !may_differ)
}
