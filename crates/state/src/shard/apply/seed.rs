//! A copy is built anew beside the old one, which keeps its position until the swap.

use stead_types::{
    Revision,
    planted::{self, Bug},
};

use super::{
    super::{
        Shard,
        answer::Void,
        append::{append, current},
        clients::Clients,
        command::{Chunk, Part, Seed, Swap, WindowPart},
        record::{ClientRange, CopyState, Shadow},
        tenant::Tenant,
    },
    Context,
    ownership::follows,
    view,
};
use crate::rows::{Copy, RowsMut, Unreadable, change::Change};

impl Shard {
    pub(super) fn seed(&mut self, context: &mut Context<'_>, seed: Seed) -> Result<(), Void> {
        let tenant = self.tenants.get_mut(&seed.tenant).ok_or(Void::NoRecord)?;
        let record = &mut tenant.record;
        follows(record, seed.home, seed.epoch)?;
        view(record, seed.version)?;
        if seed.number <= record.seeds {
            return Err(Void::Seed);
        }
        record.seeds = seed.number;
        let old = record.shadow.take();
        let number = record.next_copy();
        // What is at or below the seed's first revision comes without its history: versions there are not kept.
        let state = CopyState {
            number,
            revision: seed.first,
            floor: seed.first,
            swept: seed.first.sequence(),
            trimmed: seed.first.sequence(),
            ..CopyState::default()
        };
        record.shadow = Some(Shadow {
            state,
            number: seed.number,
            seed: seed.first,
            loaded: stead_types::Sequence::ZERO,
            clients: Vec::new(),
            read_at: seed.first,
        });
        record.session = None;
        tenant.shadow_clients = Clients::default();
        tenant.dirty = true;
        if let Some(old) = old {
            self.discard(context.rows, seed.tenant, &old.state);
        }
        Ok(())
    }

    pub(super) fn chunk(&mut self, context: &mut Context<'_>, chunk: Chunk) -> Result<Result<(), Void>, Unreadable> {
        let place = self.place;
        let Some(tenant) = self.tenants.get_mut(&chunk.tenant) else {
            return Ok(Err(Void::NoRecord));
        };
        if let Err(void) = follows(&tenant.record, chunk.home, chunk.epoch) {
            return Ok(Err(void));
        }
        let Tenant {
            record,
            shadow_clients,
            dirty,
            ..
        } = tenant;
        let Some(shadow) = record.shadow.as_mut().filter(|shadow| shadow.number == chunk.number) else {
            return Ok(Err(Void::Seed));
        };
        let copy = place.copy(chunk.tenant, shadow.state.number);
        *dirty = true;
        let loaded = match chunk.part {
            Part::Changes { after, up_to, changes } => {
                if after != shadow.loaded {
                    return Ok(Err(Void::Seed));
                }
                for change in changes {
                    let newer = load(context.rows, copy, &mut shadow.state, change)?;
                    shadow.read_at = shadow.read_at.max(newer);
                }
                shadow.loaded = up_to;
                Ok(())
            }
            clients @ Part::Clients { .. } => load_clients(shadow, shadow_clients, clients, chunk.read_at),
        };
        if loaded.is_ok() {
            shadow.read_at = shadow.read_at.max(chunk.read_at);
        }
        Ok(loaded)
    }

    pub(super) fn swap(&mut self, context: &mut Context<'_>, swap: Swap) -> Result<(), Void> {
        let tenant = self.tenants.get_mut(&swap.tenant).ok_or(Void::NoRecord)?;
        let record = &mut tenant.record;
        follows(record, swap.home, swap.epoch)?;
        view(record, swap.version)?;
        let shadow = record
            .shadow
            .as_ref()
            .filter(|shadow| shadow.number == swap.number && shadow.is_whole())
            .ok_or(Void::Seed)?;
        if shadow.state.revision != swap.revision {
            return Err(Void::Position {
                revision: shadow.state.revision,
            });
        }
        if let Some(differs) = shadow.state.digests.differ(&swap.digests)
            && !planted::is(Bug::SwapDigestNotCompared)
        {
            return Err(Void::DigestDiffers(differs));
        }
        let shadow = record.shadow.take().expect("it was there a line ago");
        let old = std::mem::replace(&mut record.live, shadow.state);
        // What it holds came in many entries; it is there to be read from this one on.
        record.live.index = context.index;
        record.live.floor = record.live.floor.max(shadow.read_at);
        record.suspect = false;
        tenant.clients = std::mem::take(&mut tenant.shadow_clients);
        tenant.dirty = true;
        self.index_maintenance(swap.tenant);
        self.discard(context.rows, swap.tenant, &old);
        Ok(())
    }
}

/// Takes a chunk's change into the shadow, unless the feed has brought a newer version of its key, or its tombstone.
/// Returns that version's revision: history from before it lacks this change, so it begins there.
fn load(rows: &mut dyn RowsMut, copy: Copy, state: &mut CopyState, change: Change) -> Result<Revision, Unreadable> {
    state.time = state.time.max(change.time);
    match current(rows, copy, &change.key)? {
        Some(newer) => Ok(newer.revision),
        None => {
            append(rows, copy, state, None, change);
            Ok(Revision::ZERO)
        }
    }
}

fn load_clients(shadow: &mut Shadow, clients: &mut Clients, part: Part, read_at: Revision) -> Result<(), Void> {
    let Part::Clients {
        after,
        up_to,
        time,
        edge,
        windows,
    } = part
    else {
        return Err(Void::Seed);
    };
    let loaded = shadow.loaded_clients(clients);
    let continues = loaded == after && !loaded.is_all() && after.whole <= up_to;
    let is_behind = |part: &WindowPart| after.whole < Some(part.client);
    // The last window may be a part of the one behind the range.
    let whole = windows.len().saturating_sub(1);
    let is_inside = windows.iter().take(whole).all(|part| Some(part.client) <= up_to);
    if !continues || !windows.iter().all(is_behind) || !is_inside {
        return Err(Void::Seed);
    }
    // What the feed brought before the windows were read is in them; what it brought later would have been missed.
    if shadow.state.revision > read_at {
        return Err(Void::Position {
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
    // A window that the feed began in a range read before may have begun with too low an edge: what was forgotten with
    // clients of ranges not read by then was not seen.
    clients.raise_edges(edge, |id, revision| shadow.must_remember(id, revision));
    Ok(())
}
