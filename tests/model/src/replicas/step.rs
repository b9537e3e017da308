//! Steps of the replica model.

use bytes::Bytes;
use stead_state::{
    rows::change::Change,
    shard::{
        ApplyResult,
        command::{
            Attach, BeginAttach, Chunk, ChunkContent, Data, DataHeader, Effect, FeedRecords, Increment,
            Operation as ShardOperation, Relinquish, Seed, Swap, WindowLimits, Write,
        },
        ownership,
        record::{OperationId, Role},
    },
};
use stead_types::{ClientId, Epoch, IdempotencyKey, Incarnation, Revision, TenantTime};

use super::{
    Mutant, Operation, Replicas,
    group::{Group, TENANT},
    state::{Action, InFlight, Sent, State, VERSION},
};

/// Time after which an outcome may be evicted.
const PAUSE_MS: u64 = 61_000;
/// Limits of the windows: one outcome, so that each write evicts what is old enough.
const LIMITS: WindowLimits = WindowLimits {
    clients: 1,
    outcomes: 1,
};

impl Replicas {
    /// Adds the actions that may happen in a state.
    pub(super) fn enabled(&self, state: &State, out: &mut Vec<Action>) {
        let bounds = &self.bounds;
        let follower = state.follower.record();
        if state.sent.len() < bounds.script.len() {
            out.push(Action::Send);
        }
        if state.repeats < bounds.repeats {
            out.extend((0..state.sent.len() as u8).map(Action::Repeat));
        }
        if state.pauses < bounds.pauses {
            out.push(Action::Pause);
        }
        if state.has_moved() {
            return;
        }
        if follower.session.is_none() && follower.attach.0 < u64::from(bounds.attempts) {
            out.push(Action::Begin);
        }
        if follower.seeds.0 < u64::from(bounds.seeds) {
            out.push(Action::Seed);
        }
        out.extend([Action::Attach, Action::Feed, Action::Swap]);
        match &state.chunk {
            Some(_) => out.push(Action::Load),
            None if follower.shadow.is_some() => out.extend([Action::Read(true), Action::Read(false)]),
            None => {}
        }
        if bounds.moves {
            out.push(Action::Move);
        }
    }

    /// Returns the state after an action; `None` if it does nothing.
    pub(super) fn step(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Send => self.send(&mut state),
            Action::Repeat(number) => self.repeat(&mut state, usize::from(number)),
            Action::Pause => {
                state.pauses += 1;
                state.passed += PAUSE_MS;
            }
            Action::Begin => begin(&mut state),
            Action::Attach => attach(&mut state)?,
            Action::Feed => self.feed(&mut state)?,
            Action::Seed => seed(&mut state),
            Action::Read(of_changes) => self.read(&mut state, of_changes)?,
            Action::Load => self.load(&mut state)?,
            Action::Swap => self.swap(&mut state)?,
            Action::Move => self.hand_over(&mut state)?,
        }
        for (old, new) in [(&before.home, &state.home), (&before.follower, &state.follower)] {
            let (old, new) = (old.record(), new.record());
            state.seen.lower |= new.promised < old.promised || new.view_version < old.view_version;
        }
        Some(state)
    }

    fn send(&self, state: &mut State) {
        let number = state.sent.len();
        let client = usize::from(self.bounds.script[number].client);
        state.sent.push(Sent {
            stamp: state.seen.times[client],
            revision: None,
        });
        self.deliver(state, number);
    }

    fn repeat(&self, state: &mut State, number: usize) {
        state.repeats += 1;
        if self.is(Mutant::StampsAnew) {
            let client = usize::from(self.bounds.script[number].client);
            state.sent[number].stamp = state.seen.times[client];
        }
        self.deliver(state, number);
    }

    /// Delivers a write to the owner, and its answer to the client.
    fn deliver(&self, state: &mut State, number: usize) {
        let request = self.bounds.script[number];
        let key = IdempotencyKey {
            client: ClientId(u128::from(request.client) + 1),
            sequence: number as u64,
            first_sent: state.sent[number].stamp,
        };
        let mut write = Write::new(TENANT, Some(key), operation(request.operation));
        write.limits = LIMITS;
        let (home_time, follower_time) = (state.home_time(), state.follower_time());
        let result = if state.has_moved() {
            state.follower.apply(follower_time, write.encode())
        } else {
            state.home.apply(home_time, write.encode())
        };
        let before = state.sent[number].revision;
        if let ApplyResult::Write(done) = &result {
            if done.repeated {
                state.seen.differs |= before != Some(done.revision);
            } else {
                state.seen.twice |= before.is_some();
                state.sent[number].revision = Some(done.revision);
            }
        }
        state.seen.refused |= matches!(result, ApplyResult::Expired { .. });
        // What had no effect may be evaluated again.
        state.seen.differs |= before.is_some() && matches!(result, ApplyResult::KeyReused(_));
        if let Some(at) = result.evaluation_point() {
            let client = usize::from(request.client);
            state.seen.back |= at.time < state.seen.latest;
            state.seen.latest = state.seen.latest.max(at.time);
            state.seen.times[client] = state.seen.times[client].max(at.time);
        }
    }

    /// Lets the follower apply the home's next change.
    fn feed(&self, state: &mut State) -> Option<()> {
        let (home, follower) = (state.home.record(), state.follower.record());
        let session = follower.session?;
        let shadow = follower.shadow.as_ref().map(|shadow| shadow.state.revision);
        let after = shadow.unwrap_or(follower.live.revision);
        let shard = state.home.shard();
        let reader = shard.reading(state.home.rows(), TENANT)?;
        let page = reader.changes(after, after.sequence().next()?, usize::MAX).ok()?;
        let last = page.changes.last()?.revision;
        let digests = (last == home.live.revision).then_some(home.live.digests);
        let mut changes = page.changes;
        let drops_outcomes = self.is(Mutant::FeedWithoutOutcomes);
        changes
            .iter_mut()
            .filter(|_| drops_outcomes)
            .for_each(|change: &mut Change| change.outcome = None);
        let data = Data {
            head: DataHeader {
                tenant: TENANT,
                home: state.home.id(),
                epoch: follower.epoch,
                version: VERSION,
                attach: session.number,
            },
            records: FeedRecords {
                changes,
                digests: digests.filter(|_| !drops_outcomes),
                retention_floor: Revision::ZERO,
            },
        };
        let time = state.follower_time();
        state.follower.apply(time, data.encode());
        Some(())
    }

    fn read(&self, state: &mut State, of_changes: bool) -> Option<()> {
        let follower = state.follower.record();
        let shadow = follower.shadow.as_ref()?;
        let shard = state.home.shard();
        let reader = shard.reading(state.home.rows(), TENANT)?;
        let mut part = if of_changes {
            if shadow.loaded >= shadow.seed.sequence() {
                return None;
            }
            reader.chunk_of_changes(shadow.loaded, shadow.seed, 1).ok()?
        } else {
            let loaded = state.follower.shard().clients_loaded(TENANT)?;
            if loaded.is_complete() {
                return None;
            }
            reader.chunk_of_clients(loaded, usize::MAX)
        };
        self.mutate(&mut part);
        let read_at = state.home.record().live.revision;
        let number = shadow.number;
        let encoded = chunk(&state.home, &follower, number, read_at, part.clone());
        state.chunk = Some(InFlight {
            number,
            read_at,
            part,
            encoded,
        });
        Some(())
    }

    fn mutate(&self, part: &mut ChunkContent) {
        match part {
            ChunkContent::Changes { changes, .. } => {
                if self.is(Mutant::SwapWithoutDigests) {
                    changes.pop();
                }
            }
            ChunkContent::Clients { edge, windows, .. } => {
                if self.is(Mutant::SeedWithoutWindows) {
                    windows.clear();
                    *edge = TenantTime(0);
                }
                if self.is(Mutant::SeedWithoutEdges) {
                    *edge = TenantTime(0);
                    windows.iter_mut().for_each(|window| window.edge = TenantTime(0));
                }
            }
        }
    }

    fn load(&self, state: &mut State) -> Option<()> {
        let flight = state.chunk.take()?;
        let follower = state.follower.record();
        let is_late = self.is(Mutant::WindowsReadEarlier) && matches!(flight.part, ChunkContent::Clients { .. });
        let shadow = follower.shadow.as_ref().map(|shadow| shadow.state.revision);
        let read_at = if is_late {
            shadow.unwrap_or_default().max(flight.read_at)
        } else {
            flight.read_at
        };
        let command = chunk(&state.home, &follower, flight.number, read_at, flight.part);
        let time = state.follower_time();
        state.follower.apply(time, command);
        Some(())
    }

    fn swap(&self, state: &mut State) -> Option<()> {
        let (home, follower) = (state.home.record(), state.follower.record());
        let shadow = follower.shadow?;
        let is_loose = matches!(
            self.mutant,
            Some(Mutant::SwapWithoutDigests | Mutant::SeedWithoutWindows | Mutant::WindowsReadEarlier)
        );
        let swap = Swap {
            tenant: TENANT,
            home: state.home.id(),
            epoch: follower.epoch,
            version: VERSION,
            number: shadow.number,
            revision: home.live.revision,
            digests: if is_loose {
                shadow.state.digests
            } else {
                home.live.digests
            },
        };
        let time = state.follower_time();
        let result = state.follower.apply(time, swap.encode());
        state.seen.swapped |= result == ApplyResult::Done;
        (result == ApplyResult::Done).then_some(())
    }

    /// Moves the tenant: `Relinquish` at the home, then `Accept` at the follower.
    fn hand_over(&self, state: &mut State) -> Option<()> {
        let follower = state.follower.record();
        let session = follower.session.filter(|session| session.attached)?;
        if follower.live.revision != state.home.record().live.revision {
            return None;
        }
        let relinquish = Relinquish {
            tenant: TENANT,
            version: VERSION,
            operation: OperationId(1),
            to: state.follower.id(),
            recorded_epoch: Epoch::FIRST,
            epoch: Epoch::FIRST.next()?,
        };
        let time = state.home_time();
        state.home.apply(time, relinquish.encode());
        let mut baton = ownership::baton(&state.home.record())?;
        if self.is(Mutant::BatonWithoutTime) {
            baton.time = TenantTime(0);
        }
        if matches!(
            self.mutant,
            Some(Mutant::SeedWithoutWindows | Mutant::WindowsReadEarlier | Mutant::FeedWithoutOutcomes)
        ) {
            baton.digests = follower.live.digests;
        }
        let head = DataHeader {
            tenant: TENANT,
            home: state.home.id(),
            epoch: follower.epoch,
            version: VERSION,
            attach: session.number,
        };
        let accept = baton.accept(head, Incarnation::FIRST);
        let time = state.follower_time();
        let result = state.follower.apply(time, accept.encode());
        let (source, target) = (state.home.record(), state.follower.record());
        state.seen.back |= result == ApplyResult::Done && target.live.time < source.live.time;
        Some(())
    }
}

fn operation(operation: Operation) -> ShardOperation {
    let (key, effect) = match operation {
        Operation::Put(key) => {
            let value = Bytes::from_static(b"v");
            (key, Effect::Put { value, ttl: None })
        }
        Operation::Delete(key) => (key, Effect::Delete),
        Operation::Increment(key) => {
            let increment = Increment {
                delta: 1,
                ..Increment::default()
            };
            (key, Effect::Increment(increment))
        }
    };
    ShardOperation {
        key: Bytes::copy_from_slice(&[b'k', key]),
        condition: None,
        previous: false,
        effect,
    }
}

fn begin(state: &mut State) {
    let record = state.follower.record();
    let begin = BeginAttach {
        tenant: TENANT,
        home: state.home.id(),
        incarnation: Incarnation::FIRST,
        epoch: record.epoch,
        version: VERSION,
        number: record.attach.next(),
    };
    let time = state.follower_time();
    state.follower.apply(time, begin.encode());
}

fn attach(state: &mut State) -> Option<()> {
    let (home, record) = (state.home.record(), state.follower.record());
    let session = record.session.filter(|session| !session.attached)?;
    if record.live.revision != home.live.revision || record.shadow.is_some() || record.role == Role::Owner {
        return None;
    }
    let attach = Attach {
        tenant: TENANT,
        home: state.home.id(),
        epoch: record.epoch,
        version: VERSION,
        number: session.number,
        position: home.live.revision,
        lineage: home.lineage,
    };
    let time = state.follower_time();
    state.follower.apply(time, attach.encode());
    Some(())
}

fn seed(state: &mut State) {
    let (home, record) = (state.home.record(), state.follower.record());
    let seed = Seed {
        tenant: TENANT,
        home: state.home.id(),
        epoch: record.epoch,
        version: VERSION,
        number: record.seeds.next(),
        first: home.live.revision,
        lineage: home.lineage,
    };
    state.chunk = None;
    let time = state.follower_time();
    state.follower.apply(time, seed.encode());
}

fn chunk(
    home: &Group,
    follower: &stead_state::shard::record::TenantRecord,
    number: stead_state::shard::record::SeedNumber,
    read_at: Revision,
    part: ChunkContent,
) -> Bytes {
    let chunk = Chunk {
        tenant: TENANT,
        home: home.id(),
        epoch: follower.epoch,
        number,
        read_at,
        part,
    };
    chunk.encode()
}
