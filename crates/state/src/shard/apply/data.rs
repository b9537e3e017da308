//! What a home's stream brings: into the live copy, and into the shadow where one is being built.

use stead_types::{
    ClientId, Revision, TenantNumber,
    planted::{self, Bug},
};

use super::{
    super::{
        Shard,
        answer::{Answer, Detached, Fed, Void},
        append::{append, current},
        clients::Clients,
        command::{Data, DataHead, Records},
        digest::Differs,
        record::{CopyState, Record},
        tenant::Tenant,
    },
    Context,
    ownership::follows,
    view,
};
use crate::rows::{Copy, Place, Unreadable, change::Change};

impl Shard {
    pub(super) fn data(&mut self, context: &mut Context<'_>, data: Data) -> Result<Answer, Unreadable> {
        let Data { head, records } = data;
        let Some(tenant) = self.tenants.get_mut(&head.tenant) else {
            return Ok(Answer::Void(Void::NoRecord));
        };
        let record = &mut tenant.record;
        if record.session_of(head.home, head.attach).is_none() {
            return Ok(Answer::Void(Void::Session));
        }
        tenant.dirty = true;
        if let Err(void) = follows(record, head.home, head.epoch).and_then(|()| view(record, head.version)) {
            // What it would have brought is missing from here on.
            record.session = None;
            self.index_detached(head.tenant);
            return Ok(Answer::Void(void));
        }
        let detached = take_in(context, self.place, tenant, (&head, &records))?;
        let record = &mut tenant.record;
        if detached.is_some() {
            record.session = None;
            record.suspect |= matches!(detached, Some(Detached::DigestDiffers(_)));
        }
        record.live.floor = record.live.floor.max(records.floor.min(record.live.revision));
        let revision = record.live.revision;
        self.index_maintenance(head.tenant);
        if detached.is_some() {
            self.index_detached(head.tenant);
        }
        Ok(Answer::Fed(Fed { revision, detached }))
    }
}

/// Takes records into the copies of a tenant. Returns why its session is over with them, if it is.
fn take_in(
    context: &mut Context<'_>,
    place: Place,
    tenant: &mut Tenant,
    (head, records): (&DataHead, &Records),
) -> Result<Option<Detached>, Unreadable> {
    let number = head.tenant;
    let has_shadow = tenant.record.shadow.is_some();
    let shadow_lacks = has_shadow && !to_shadow(context, (place, number), tenant, records)?;
    let mut live_ends = None;
    // What differed from its home stays as it is.
    if !tenant.record.suspect {
        let state = &mut tenant.record.live;
        let target = Target {
            copy: place.copy(number, state.number),
            state,
            clients: &mut tenant.clients,
        };
        let is_gapless = target.take_in(context, records, |_, _| true)?;
        live_ends = match differs(&tenant.record, head, records) {
            Some(differs) => Some(Detached::DigestDiffers(differs)),
            // While another copy is built beside it the live one stays where it is.
            None => (!is_gapless && !has_shadow).then_some(Detached::Gap),
        };
    }
    Ok(live_ends.or(shadow_lacks.then_some(Detached::Gap)))
}

/// Takes records into the copy that is being built; tells whether none were missing before them.
fn to_shadow(
    context: &mut Context<'_>,
    (place, number): (Place, TenantNumber),
    tenant: &mut Tenant,
    records: &Records,
) -> Result<bool, Unreadable> {
    let Some(mut shadow) = tenant.record.shadow.take() else {
        return Ok(true);
    };
    let mut state = std::mem::take(&mut shadow.state);
    let target = Target {
        copy: place.copy(number, state.number),
        state: &mut state,
        clients: &mut tenant.shadow_clients,
    };
    let is_gapless = target.take_in(context, records, |client, revision| {
        shadow.must_remember(client, revision)
    })?;
    shadow.state = state;
    tenant.record.shadow = Some(shadow);
    Ok(is_gapless)
}

/// The copy that changes go to.
struct Target<'a> {
    copy: Copy,
    state: &'a mut CopyState,
    clients: &'a mut Clients,
}

impl Target<'_> {
    /// Takes in the changes that are new. Returns false, with nothing taken in, if some are missing before them.
    fn take_in(
        self,
        context: &mut Context<'_>,
        records: &Records,
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
            clients.remember(state, change, |client| applies(client, change.revision));
            append(context.rows, copy, state, before, change.clone());
        }
        Ok(true)
    }
}

/// Tells whether the copy differs from the home, where it stands at the revision at which the home's digests were taken.
/// What windows hold is compared only if every batch since an attach came here: what is forgotten has no revision.
fn differs(record: &Record, head: &DataHead, records: &Records) -> Option<Differs> {
    let end = records.changes.last()?.revision;
    let is_comparable = end == record.live.revision && !planted::is(Bug::FeedDigestNotCompared);
    let home = records.digests.filter(|_| is_comparable)?;
    let differs = record.live.digests.differ(&home)?;
    let session = record.session_of(head.home, head.attach);
    let is_attached = session.is_some_and(|session| session.attached && session.epoch == head.epoch);
    (differs == Differs::Keys || is_attached).then_some(differs)
}
