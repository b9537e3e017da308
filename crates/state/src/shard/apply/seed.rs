//! Applies `Seed`, `SeedWindows`, `Chunk` and `Swap`: a shadow copy is built beside the live one, which keeps its position
//! until the swap. A seed of windows alone builds only these, for a live copy that keeps its keys.

use stead_types::{
    Revision,
    planted::{self, Bug},
};

use super::{
    super::{
        Shard,
        append::{append, current},
        apply_result::GuardFailure,
        client_windows::ClientWindows,
        command::{Chunk, ChunkContent, Seed, SeedWindows, Swap, WindowPart},
        ownership::{check_follows, check_view},
        record::{ClientRange, CopyState, ShadowCopy},
        tenant::LoadedTenant,
    },
    EntryContext,
};
use crate::rows::{CopyPrefix, RowsMut, Unreadable, change::Change};

impl Shard {
    pub(super) fn seed(&mut self, context: &mut EntryContext<'_>, seed: Seed) -> Result<(), GuardFailure> {
        let tenant = self.tenants.get_mut(&seed.tenant).ok_or(GuardFailure::NoRecord)?;
        let record = &mut tenant.record;
        check_follows(record, seed.home, seed.epoch)?;
        check_view(record, seed.version)?;
        if seed.number <= record.seeds {
            return Err(GuardFailure::Seed);
        }
        record.seeds = seed.number;
        let old = record.shadow.take();
        let number = record.next_copy();
        // Changes at or below the seed's first revision come without history: older versions cannot be read.
        let state = CopyState {
            number,
            revision: seed.first,
            retention_floor: seed.first,
            swept: seed.first.sequence(),
            trimmed: seed.first.sequence(),
            ..CopyState::default()
        };
        record.shadow = Some(ShadowCopy {
            state,
            number: seed.number,
            seed: seed.first,
            loaded: stead_types::Sequence::ZERO,
            clients: Vec::new(),
            read_at: seed.first,
            windows_only: false,
        });
        record.session = None;
        tenant.shadow_clients = ClientWindows::default();
        tenant.dirty = true;
        if let Some(old) = old {
            self.discard(context.rows, seed.tenant, &old.state);
        }
        Ok(())
    }

    pub(super) fn seed_windows(&mut self, seed: SeedWindows) -> Result<(), GuardFailure> {
        let tenant = self.tenants.get_mut(&seed.tenant).ok_or(GuardFailure::NoRecord)?;
        let record = &mut tenant.record;
        check_follows(record, seed.home, seed.epoch)?;
        check_view(record, seed.version)?;
        if record.suspect {
            return Err(GuardFailure::Suspect);
        }
        if seed.number <= record.seeds || record.shadow.is_some() || !record.live.rewound {
            return Err(GuardFailure::Seed);
        }
        record.seeds = seed.number;
        let number = record.next_copy();
        record.shadow = Some(ShadowCopy::of_windows(&record.live, number, seed.number));
        record.session = None;
        tenant.shadow_clients = ClientWindows::default();
        tenant.dirty = true;
        self.index_detached(seed.tenant);
        Ok(())
    }

    pub(super) fn chunk(
        &mut self,
        context: &mut EntryContext<'_>,
        chunk: Chunk,
    ) -> Result<Result<(), GuardFailure>, Unreadable> {
        let prefix = self.prefix;
        let Some(tenant) = self.tenants.get_mut(&chunk.tenant) else {
            return Ok(Err(GuardFailure::NoRecord));
        };
        if let Err(failure) = check_follows(&tenant.record, chunk.home, chunk.epoch) {
            return Ok(Err(failure));
        }
        let LoadedTenant {
            record,
            shadow_clients,
            dirty,
            ..
        } = tenant;
        let Some(shadow) = record.shadow.as_mut().filter(|shadow| shadow.number == chunk.number) else {
            return Ok(Err(GuardFailure::Seed));
        };
        let copy = prefix.copy(chunk.tenant, shadow.state.number);
        *dirty = true;
        let loaded = match chunk.part {
            ChunkContent::Changes { after, up_to, changes } => {
                if after != shadow.loaded || shadow.windows_only {
                    return Ok(Err(GuardFailure::Seed));
                }
                for change in changes {
                    let newer = load(context.rows, copy, &mut shadow.state, change)?;
                    shadow.read_at = shadow.read_at.max(newer);
                }
                shadow.loaded = up_to;
                Ok(())
            }
            clients @ ChunkContent::Clients { .. } => load_clients(shadow, shadow_clients, clients, chunk.read_at),
        };
        if loaded.is_ok() {
            shadow.read_at = shadow.read_at.max(chunk.read_at);
        }
        Ok(loaded)
    }

    pub(super) fn swap(&mut self, context: &mut EntryContext<'_>, swap: Swap) -> Result<(), GuardFailure> {
        let tenant = self.tenants.get_mut(&swap.tenant).ok_or(GuardFailure::NoRecord)?;
        let record = &mut tenant.record;
        check_follows(record, swap.home, swap.epoch)?;
        check_view(record, swap.version)?;
        let shadow = record
            .shadow
            .as_ref()
            .filter(|shadow| shadow.number == swap.number && shadow.is_complete())
            .ok_or(GuardFailure::Seed)?;
        if shadow.state.revision != swap.revision {
            return Err(GuardFailure::Position {
                revision: shadow.state.revision,
            });
        }
        if let Some(differs) = shadow.state.digests.mismatch(&swap.digests)
            && !planted::is(Bug::SwapDigestNotCompared)
        {
            return Err(GuardFailure::DigestMismatch(differs));
        }
        if shadow.windows_only && record.suspect {
            return Err(GuardFailure::Suspect);
        }
        let shadow = record.shadow.take().expect("it was there a line ago");
        tenant.dirty = true;
        if shadow.windows_only {
            let live = &mut record.live;
            (live.digests.outcomes, live.edge) = (shadow.state.digests.outcomes, shadow.state.edge);
            (live.time, live.index) = (live.time.max(shadow.state.time), context.index);
            live.rewound = false;
            tenant.clients.replace(std::mem::take(&mut tenant.shadow_clients));
            self.discard(context.rows, swap.tenant, &shadow.state);
            return Ok(());
        }
        let old = std::mem::replace(&mut record.live, shadow.state);
        // The copy was loaded by many entries; it can be read from this one on.
        record.live.index = context.index;
        record.live.retention_floor = record.live.retention_floor.max(shadow.read_at);
        record.suspect = false;
        tenant.clients = std::mem::take(&mut tenant.shadow_clients);
        self.index_maintenance(swap.tenant);
        self.discard(context.rows, swap.tenant, &old);
        Ok(())
    }
}

/// Loads a chunk's change into the shadow copy, unless the feed has brought a newer version of its key, or its
/// tombstone. Returns the revision of that newer version: history from before it lacks this change, so it begins
/// there.
fn load(
    rows: &mut dyn RowsMut,
    copy: CopyPrefix,
    state: &mut CopyState,
    change: Change,
) -> Result<Revision, Unreadable> {
    state.time = state.time.max(change.time);
    match current(rows, copy, &change.key)? {
        Some(newer) => Ok(newer.revision),
        None => {
            append(rows, copy, state, None, change);
            Ok(Revision::ZERO)
        }
    }
}

fn load_clients(
    shadow: &mut ShadowCopy,
    clients: &mut ClientWindows,
    part: ChunkContent,
    read_at: Revision,
) -> Result<(), GuardFailure> {
    let ChunkContent::Clients {
        after,
        up_to,
        time,
        edge,
        windows,
    } = part
    else {
        return Err(GuardFailure::Seed);
    };
    let loaded = shadow.loaded_clients(clients);
    let continues = loaded == after && !loaded.is_complete() && after.whole <= up_to;
    let is_behind = |part: &WindowPart| after.whole < Some(part.client);
    // The last window may be a part of the one after the range.
    let whole = windows.len().saturating_sub(1);
    let is_inside = windows.iter().take(whole).all(|part| Some(part.client) <= up_to);
    if !continues || !windows.iter().all(is_behind) || !is_inside {
        return Err(GuardFailure::Seed);
    }
    // Outcomes that the feed brought before the windows were read are in them; later ones would be lost.
    if shadow.state.revision > read_at {
        return Err(GuardFailure::Position {
            revision: shadow.state.revision,
        });
    }
    if let Some((client, _)) = after.part
        && windows.first().is_none_or(|part| part.client != client)
    {
        clients.unload(&mut shadow.state, client);
    }
    for part in windows {
        clients.load(&mut shadow.state, part);
    }
    shadow.state.time = shadow.state.time.max(time);
    shadow.state.edge = shadow.state.edge.max(edge);
    if let Some(up_to) = up_to.filter(|_| after.whole < up_to) {
        shadow.clients.push(ClientRange { up_to, read_at });
    }
    // A window that the feed created in a range read before may have too low an edge: evictions of clients in ranges
    // not read by then were not seen.
    clients.raise_edges(edge, |id, revision| shadow.lacks_outcome(id, revision));
    Ok(())
}
