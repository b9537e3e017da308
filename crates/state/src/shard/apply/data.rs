//! What a home's stream brings: into the live copy, and into the shadow where one is being built.

use stead_types::{
    ClientId, Revision,
    planted::{self, Bug},
};

use super::{
    super::{
        Shard,
        answer::{Answer, Detached, Fed, Void},
        append::{append, current},
        clients::Clients,
        command::Data,
        digest::Differs,
        record::{CopyState, Record},
        tenant::Tenant,
    },
    Context,
    ownership::follows,
};
use crate::rows::{Copy, Place, Unreadable, change::Change};

impl Shard {
    pub(super) fn data(&mut self, context: &mut Context<'_>, data: Data) -> Result<Answer, Unreadable> {
        let Some(tenant) = self.tenants.get_mut(&data.tenant) else {
            return Ok(Answer::Void(Void::NoRecord));
        };
        if let Err(void) = follows(&tenant.record, data.home, data.epoch) {
            return Ok(Answer::Void(void));
        }
        tenant.dirty = true;
        to_shadow(context, self.place, tenant, &data)?;
        if tenant.record.suspect {
            return Ok(Answer::Void(Void::Suspect));
        }
        let detached = to_live(context, self.place, tenant, &data)?;
        let record = &mut tenant.record;
        if detached.is_some() {
            record.session = None;
            record.suspect = matches!(detached, Some(Detached::DigestDiffers(_)));
        }
        record.live.floor = record.live.floor.max(data.floor.min(record.live.revision));
        let revision = record.live.revision;
        self.index_maintenance(data.tenant);
        if detached.is_some() {
            self.index_detached(data.tenant);
        }
        Ok(Answer::Fed(Fed { revision, detached }))
    }
}

fn to_live(
    context: &mut Context<'_>,
    place: Place,
    tenant: &mut Tenant,
    data: &Data,
) -> Result<Option<Detached>, Unreadable> {
    let state = &mut tenant.record.live;
    let target = Target {
        copy: place.copy(data.tenant, state.number),
        state,
        clients: &mut tenant.clients,
    };
    if !target.take_in(context, data, |_, _| true)? {
        return Ok(Some(Detached::Gap));
    }
    Ok(differs(&tenant.record, data).map(Detached::DigestDiffers))
}

fn to_shadow(context: &mut Context<'_>, place: Place, tenant: &mut Tenant, data: &Data) -> Result<(), Unreadable> {
    let Some(mut shadow) = tenant.record.shadow.take() else {
        return Ok(());
    };
    let mut state = std::mem::take(&mut shadow.state);
    let target = Target {
        copy: place.copy(data.tenant, state.number),
        state: &mut state,
        clients: &mut tenant.shadow_clients,
    };
    // A gap leaves the shadow where it is: the stream that builds it resumes from there.
    target.take_in(context, data, |client, revision| shadow.must_remember(client, revision))?;
    shadow.state = state;
    tenant.record.shadow = Some(shadow);
    Ok(())
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
        data: &Data,
        applies: impl Fn(ClientId, Revision) -> bool,
    ) -> Result<bool, Unreadable> {
        let Self { copy, state, clients } = self;
        let start = data.changes.partition_point(|change| change.revision <= state.revision);
        let new: &[Change] = &data.changes[start..];
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
fn differs(record: &Record, data: &Data) -> Option<Differs> {
    let end = data.changes.last()?.revision;
    let is_comparable = end == record.live.revision && !planted::is(Bug::FeedDigestNotCompared);
    let home = data.digests.filter(|_| is_comparable)?;
    let differs = record.live.digests.differ(&home)?;
    let is_attached = record
        .session
        .is_some_and(|session| session.home == data.home && session.epoch == data.epoch);
    (differs == Differs::Keys || is_attached).then_some(differs)
}
