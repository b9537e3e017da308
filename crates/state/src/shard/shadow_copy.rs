//! Shadow copy: what a seed builds of a tenant beside the live copy, and how far it is.

use stead_types::{ClientId, Revision, Sequence};

use super::{
    client_windows::ClientWindows,
    command::WindowPart,
    digest::Digests,
    record::{CopyState, SeedNumber},
};

/// A copy that is seeded beside the live one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShadowCopy {
    /// State of the copy; its revision is that of the last feed record, the seed's first revision before it.
    pub state: CopyState,
    /// The seed that builds it: chunks of another seed are rejected.
    pub number: SeedNumber,
    /// First revision of the seed: chunks carry changes at or below it, the feed those above.
    pub seed: Revision,
    /// All changes up to this sequence have been loaded from chunks.
    pub loaded: Sequence,
    /// Ranges of clients loaded from chunks, in order; the last one ends at the highest id.
    pub clients: Vec<ClientRange>,
    /// Highest revision at which a chunk was read: the copy is consistent from there on.
    pub read_at: Revision,
    /// Whether only idempotency windows are seeded, for a live copy that was rewound. The copy has no rows of keys then;
    /// what it says of them, its revision too, is what the live copy says.
    pub windows_only: bool,
}

/// Range of clients whose idempotency windows a chunk carried: those above the previous range, up to `up_to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientRange {
    /// Last client of the range.
    pub up_to: ClientId,
    /// Outcomes up to this revision are in the chunk; later ones come by the feed.
    pub read_at: Revision,
}

/// Progress of loading the idempotency windows of a copy that is being seeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientsLoaded {
    /// Windows of all clients up to this one are complete.
    pub whole: Option<ClientId>,
    /// The window of a client after `whole` is loaded up to this revision.
    pub part: Option<(ClientId, Revision)>,
}

impl ClientsLoaded {
    /// Tells whether all windows are loaded.
    pub fn is_complete(&self) -> bool {
        self.whole == Some(ClientId(u128::MAX))
    }

    /// Returns the progress after a chunk that was read from here on has been loaded.
    pub fn after_chunk(self, up_to: Option<ClientId>, parts: &[WindowPart]) -> Self {
        let behind = |part: &&WindowPart| up_to.is_none_or(|up_to| up_to < part.client);
        let part = parts.last().filter(behind).and_then(|part| {
            let last = part.outcomes.last().map(|outcome| outcome.revision);
            let before = self.part.filter(|(client, _)| *client == part.client);
            Some((part.client, last.or(before.map(|(_, revision)| revision))?))
        });
        Self { whole: up_to, part }
    }
}

impl ShadowCopy {
    /// Returns the begin of a seed of idempotency windows for a live copy. Number is that of the rows of the windows.
    pub(crate) fn of_windows(live: &CopyState, number: u32, seed: SeedNumber) -> Self {
        let mut shadow = Self {
            state: CopyState {
                number,
                index: live.index,
                ..CopyState::default()
            },
            number: seed,
            seed: live.revision,
            loaded: live.revision.sequence(),
            clients: Vec::new(),
            read_at: live.revision,
            windows_only: true,
        };
        shadow.follow_keys(live);
        shadow
    }

    /// Takes over what a live copy says of keys.
    pub(crate) fn follow_keys(&mut self, live: &CopyState) {
        let outcomes = self.state.digests.outcomes;
        self.state = CopyState {
            number: self.state.number,
            index: self.state.index,
            time: self.state.time.max(live.time),
            edge: self.state.edge,
            digests: Digests {
                outcomes,
                ..live.digests
            },
            rewound: false,
            ..live.clone()
        };
    }

    /// Tells whether all chunks are loaded and the feed has reached the revision at which they were read.
    pub fn is_complete(&self) -> bool {
        self.has_all_clients() && self.loaded >= self.seed.sequence() && self.state.revision >= self.read_at
    }

    /// Returns the last client whose window is complete.
    fn clients_loaded_to(&self) -> Option<ClientId> {
        self.clients.last().map(|range| range.up_to)
    }

    /// Returns the progress of loading windows; `clients` are the windows held.
    pub fn loaded_clients(&self, clients: &ClientWindows) -> ClientsLoaded {
        let whole = self.clients_loaded_to();
        // The feed creates no window after the ranges that are loaded.
        let part = clients.partial_after(whole);
        ClientsLoaded { whole, part }
    }

    /// Tells whether the windows of all clients are loaded.
    pub fn has_all_clients(&self) -> bool {
        self.clients_loaded_to() == Some(ClientId(u128::MAX))
    }

    /// Tells whether the loaded window of a client lacks the outcome of this change: the change was made after the
    /// window was read.
    pub(crate) fn lacks_outcome(&self, client: ClientId, revision: Revision) -> bool {
        let at = self.clients.partition_point(|range| range.up_to < client);
        self.clients.get(at).is_some_and(|range| range.read_at < revision)
    }
}
