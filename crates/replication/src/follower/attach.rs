//! Attach attempts of detached tenants on a stream: which tenants are detached, where an attempt starts, and what the
//! home is asked.

use futures::FutureExt;
use stead_api::proto::internal::v1::{FeedAck, FeedAttach};
use stead_state::shard::record::{AttachNumber, TenantRecord};
use stead_store::group_rows::IncompleteChange;
use stead_types::{Revision, TenantNumber};
use tokio::time::Instant;

use super::{
    connect::position,
    queue::Item,
    seed::{self, SeedTarget},
    stream::{FollowerStream, StreamEnd},
};
use crate::wire::{self, MessageToHome, TenantPosition};

impl FollowerStream {
    /// Reads which tenants are detached, if that has changed, and tells the home of new ones: entries of other origin
    /// than this stream end sessions, too.
    pub(super) fn refresh_detached(&mut self) -> Result<(), StreamEnd> {
        let (seen, scheduler, home) = (&mut self.detached_seen, &mut self.scheduler, self.home);
        let (offset, detached) = self.context.machine.read(|held| {
            let shard = held.shard();
            let mut detached = Vec::new();
            let now = Some(shard.detachment_version());
            if std::mem::replace(seen, now) != now {
                let new = scheduler.set_detached(shard.detached(home));
                let over = |record: &&TenantRecord| record.session.is_none() && record.attach > AttachNumber::default();
                let records = new
                    .into_iter()
                    .filter_map(|tenant| Some((tenant, shard.record(tenant).filter(over)?)));
                detached.extend(records.map(|(tenant, record)| position(tenant, record).to_message()));
            }
            (shard.stream(home), detached)
        })?;
        if detached.is_empty() {
            return Ok(());
        }
        self.send(MessageToHome::Ack(FeedAck {
            offset: Some(wire::offset_to(offset)),
            batches: 0,
            attached: Vec::new(),
            detached,
        }))
    }

    /// Queues the begin of an attempt to attach a tenant, if there is a copy to begin with.
    pub(super) fn begin(&mut self, tenant: TenantNumber) -> Result<(), StreamEnd> {
        match self.attach_start(tenant)? {
            Some((_, AttachStart::At(_))) => self.queue.push(Item::Begin(tenant)),
            Some((_, AttachStart::InSeed)) => self.scheduler.schedule_seed(tenant, Instant::now()),
            Some((_, AttachStart::Suspect)) => self.scheduler.retry_later(tenant, Instant::now()),
            // It is not detached; once it is, the refresh finds it.
            None => self.scheduler.remove(tenant),
        }
        Ok(())
    }

    /// Asks the home to attach a tenant, in the attempt that has begun.
    pub(super) fn ask(&mut self, tenant: TenantNumber) -> Result<(), StreamEnd> {
        let is_begun = self.context.machine.read(|held| {
            let record = held.record(tenant);
            record.is_some_and(|record| record.session_of(self.home, record.attach).is_some())
        })?;
        let Some((position, AttachStart::At(revision))) = self.attach_start(tenant)?.filter(|_| is_begun) else {
            // The attempt has ended meanwhile.
            self.scheduler.retry_later(tenant, Instant::now());
            return Ok(());
        };
        let position = Some(TenantPosition { revision, ..position }.to_message());
        self.send(MessageToHome::Attach(FeedAttach { position }))
    }

    /// Returns the position of a detached tenant of this home, and where its attach starts.
    fn attach_start(&self, tenant: TenantNumber) -> Result<Option<(TenantPosition, AttachStart)>, IncompleteChange> {
        let home = self.home;
        self.context.machine.read(|held| {
            let detached = held.record(tenant).filter(|record| record.home() == Some(home));
            let record = detached.filter(|record| !held.shard().is_attached(record))?;
            Some((position(tenant, record), attach_start(record)))
        })
    }

    /// Starts the seed of a tenant beside the stream.
    pub(super) fn start_seed(&mut self, tenant: TenantNumber) {
        let (context, feed_clients, home) = (self.context.clone(), self.feed_clients.clone(), self.home);
        let fresh = self.needs_fresh_seed.remove(&tenant);
        let target = SeedTarget { home, tenant, fresh };
        let seed = async move { (tenant, seed::seed(context, feed_clients, target).await) };
        self.seeds.push(seed.boxed());
    }
}

/// Start of a tenant's attach attempt.
enum AttachStart {
    /// After this revision.
    At(Revision),
    /// A copy is being seeded; its chunks come first.
    InSeed,
    /// Its digest does not match: it waits for an operator.
    Suspect,
}

fn attach_start(record: &TenantRecord) -> AttachStart {
    match &record.shadow {
        Some(shadow) => {
            let chunks = shadow.loaded >= shadow.seed.sequence();
            let clients = shadow.has_all_clients();
            if chunks && clients {
                AttachStart::At(shadow.state.revision)
            } else {
                AttachStart::InSeed
            }
        }
        None if record.suspect => AttachStart::Suspect,
        None => AttachStart::At(record.live.revision),
    }
}
