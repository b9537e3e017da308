//! One step of the ownership model: what an action does, and the normal form of the state after it.

use stead_state::shard::record::AttachNumber;

use super::{
    Ownership,
    action::Action,
    directory::version,
    state::{Group, Place, State},
    symmetry,
};

impl Ownership {
    /// Returns the state after an action; `None` if the action does nothing.
    pub(super) fn step(&self, before: &State, action: &Action) -> Option<State> {
        let mut state = before.clone();
        self.act(&mut state, action)?;
        self.normalise(&mut state);
        if self.is_symmetric {
            state = symmetry::canonical(state);
        }
        (state != *before).then_some(state)
    }

    fn act(&self, state: &mut State, action: &Action) -> Option<()> {
        match *action {
            Action::Tick => tick(state),
            Action::Advance(place) => state.group_mut(place).view += 1,
            Action::Crash(place, view) => crash(state, place, view),
            Action::Write(place, remote) => self.write(state, place, remote)?,
            Action::Acknowledge(place) => Self::acknowledge(state, place)?,
            Action::Read(place) => state.seen.shown |= state.group(place).history.writes(),
            Action::LogRemote(home, follower) => Self::log_remote(state, home, follower),
            Action::Attach(place) => self.attach(state, place)?,
            Action::Send(place) => {
                let message = self.next_message(state, place)?;
                state.group_mut(place).feed = Some(message);
            }
            Action::SendBaton(place) => {
                let message = self.overtaking_baton(state, place)?;
                state.group_mut(place).feed = Some(message);
            }
            Action::Receive(place) => self.receive(state, place)?,
            Action::Break(place) => state.group_mut(place).feed = None,
            Action::Ready(place) => hear_ready(state, place)?,
            Action::Ping(place) => Self::ping(state, place),
            Action::Pong => Self::pong(state)?,
            Action::Proof => Self::prove(state)?,
            Action::Propose(place, proposal) if self.bounds.pending_entries == 0 => {
                self.apply(state, place, proposal)?;
            }
            Action::Propose(place, proposal) => {
                let entries = &mut state.group_mut(place).entries;
                entries.push(proposal);
                entries.sort();
            }
            Action::Apply(place, index) => {
                let proposal = state.group_mut(place).entries.remove(usize::from(index));
                let mut applied = state.clone();
                if self.apply(&mut applied, place, proposal).is_some() {
                    *state = applied;
                }
            }
            Action::Pull(place, source) => self.pull(state, place, source)?,
            Action::Plan(to) => self.plan(state, to)?,
            Action::Abort => self.abort(state)?,
            Action::RecordRefused => self.record_refused(state)?,
            Action::RecordAccepted(from) => self.record_accepted(state, from)?,
            Action::Promote => self.promote(state)?,
            Action::EndWait => self.end_wait(state)?,
            Action::RecordActivated => Self::record_activated(state)?,
            Action::Choose(place, with_loss) => self.choose(state, place, with_loss)?,
            Action::Leave(member) => self.leave(state, member)?,
            Action::RecordUncounted(member) => self.record_uncounted(state, member)?,
            Action::RecordErased(member) => self.record_erased(state, member)?,
            Action::TakeBack(member) => self.take_back(state, member)?,
            Action::TakeIn(group) => self.take_in(state, group)?,
            Action::RecordRejoined(member) => self.record_rejoined(state, member)?,
            Action::Disable => self.disable(state)?,
            Action::Delete => self.delete(state)?,
            Action::ChangePolicy => self.change_policy(state)?,
            Action::LogPolicy(place) => self.log_policy(state, place)?,
            Action::RecordPolicy => self.record_policy(state)?,
        }
        Some(())
    }

    /// Brings a state into its normal form: numbers of which only the order counts become small, versions that nobody
    /// can look at are dropped.
    fn normalise(&self, state: &mut State) {
        let is_exact = self.bounds.older_views || self.bounds.pending_entries > 0 || self.bounds.changes_members();
        for place in Place::all() {
            let group = state.group(place);
            if is_normal(group, is_exact) {
                continue;
            }
            let group = state.group_mut(place);
            renumber_attempts(group);
            if !is_exact {
                // Entries are derived from the view that the group has now, so none can be older.
                group.record.view_version = version(group.view);
                group.lease = if group.view >= group.lease { 0 } else { group.lease };
            }
        }
        if self.bounds.older_views {
            return;
        }
        let views = state.groups().map(|(_, group)| group.view);
        let entries = state
            .groups()
            .flat_map(|(_, group)| group.entries.iter().map(|entry| entry.version));
        let oldest = views.chain(entries).min().unwrap_or(0);
        if state.directory.versions().len() > 1 && oldest > state.directory.oldest() {
            state.directory_mut().keep_from(oldest);
        }
    }
}

fn is_normal(group: &Group, is_exact: bool) -> bool {
    let record = &group.record;
    let number = record.session.map_or(AttachNumber(0), |session| session.number);
    let attempts_are = group.feed.is_none() && number == record.attach && number <= AttachNumber(1);
    let lease_is = group.lease == 0 || group.view < group.lease;
    attempts_are && (is_exact || record.view_version == version(group.view) && lease_is)
}

/// Renumbers attempts to attach, in their order, from 1 on.
fn renumber_attempts(group: &mut Group) {
    let record = &mut group.record;
    let session = record.session.map(|session| session.number);
    let message = group.feed.as_ref().map(|message| message.attach);
    if session.is_none() && message.is_none() {
        record.attach = AttachNumber(0);
        return;
    }
    let mut numbers: Vec<AttachNumber> = session.into_iter().chain(message).chain([record.attach]).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let first = u64::from(numbers[0] != AttachNumber(0));
    let small = |number: AttachNumber| {
        let rank = numbers
            .iter()
            .position(|known| *known == number)
            .expect("it is among them");
        AttachNumber(rank as u64 + first)
    };
    record.attach = small(record.attach);
    if let Some(session) = &mut record.session {
        session.number = small(session.number);
    }
    if let Some(message) = &mut group.feed {
        message.attach = small(message.attach);
    }
}

/// Lets every lease that was granted before run out.
fn tick(state: &mut State) {
    let newest = state.directory.newest_version();
    let directory = state.directory_mut();
    directory.wait = directory.wait.saturating_sub(1);
    for left in state.seen.fences.values_mut() {
        *left = left.saturating_sub(1);
    }
    for place in Place::all() {
        state.group_mut(place).lease = newest;
    }
}

fn crash(state: &mut State, place: Place, view: u8) {
    let newest = state.directory.newest_version();
    let group = state.group_mut(place);
    group.forget_volatile();
    group.view = view;
    group.lease = newest;
    if state
        .ping
        .is_some_and(|ping| ping.from == place || ping.answer.is_some_and(|answer| answer.home == place))
    {
        state.ping = None;
    }
}

fn hear_ready(state: &mut State, heir: Place) -> Option<()> {
    let stead_state::shard::record::Role::Heir { home, operation, .. } = state.group(heir).record.role else {
        return None;
    };
    state.group_mut(Place::of(home)).ready = Some(operation);
    Some(())
}
