//! Steps of the attach model.

use stead_state::{
    lineage::Lineage,
    shard::{
        command::{Attach, BeginAttach, DataHeader, Detach},
        ownership,
        record::AttachNumber,
    },
};
use stead_types::{Epoch, Incarnation, Revision, Sequence};

use super::{
    Attaching, Mutant,
    state::{Acknowledgement, Action, Answer, Batch, Change, HOME, Part, Records, Request, State, TENANT, VERSION},
};

fn revision(writes: u8) -> Revision {
    let sequence = Sequence::new(u64::from(writes)).expect("a few writes");
    if writes == 0 {
        Revision::ZERO
    } else {
        Revision::new(Epoch::FIRST, sequence)
    }
}

impl Attaching {
    /// Adds the actions that may happen in a state.
    pub(super) fn enabled(&self, state: &State, out: &mut Vec<Action>) {
        let bounds = &self.bounds;
        let has_room = state.batches.len() < bounds.in_flight;
        if has_room && state.home.writes.len() < usize::from(bounds.writes) {
            out.push(Action::Write);
        }
        if has_room && state.others < bounds.others {
            out.push(Action::WriteOther);
        }
        let record = &state.follower.record;
        let is_attached = record.session.is_some_and(|session| session.attached);
        if !is_attached && record.attach.0 < u64::from(bounds.attempts) && state.requests.len() < bounds.in_flight {
            out.push(Action::Begin);
        }
        for request in state.requests.iter().filter(|_| has_room && state.home.is_open) {
            out.extend([Action::Answer(*request, true), Action::Answer(*request, false)]);
        }
        out.extend((!state.batches.is_empty()).then_some(Action::Apply));
        out.extend(record.session.is_some().then_some(Action::Detach));
        out.extend(state.answers.iter().copied().map(Action::Take));
        let hears = state.home.is_open || self.is(Mutant::CountsBeforeOpening);
        if state.acknowledgements.len() < bounds.in_flight && hears {
            out.push(Action::Acknowledge);
        }
        out.extend((!state.acknowledgements.is_empty()).then_some(Action::Hear));
        if state.crashes < bounds.crashes {
            out.push(Action::Crash);
        }
        out.extend((!state.home.is_open).then_some(Action::Open));
    }

    /// Returns the state after an action; `None` if it does nothing.
    pub(super) fn step(&self, before: &State, action: &Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Write => write(&mut state),
            Action::WriteOther => {
                state.others += 1;
                state.home.index += 1;
                if state.home.is_open {
                    state.batches.push_back(Batch {
                        offset: state.home.index,
                        records: None,
                    });
                }
            }
            Action::Begin => begin(&mut state)?,
            Action::Answer(request, takes) => answer(&mut state, *request, *takes),
            Action::Apply => self.apply(&mut state)?,
            Action::Detach => detach(&mut state)?,
            Action::Take(answer) => self.take(&mut state, *answer)?,
            Action::Acknowledge => self.acknowledge(&mut state),
            Action::Hear => self.hear(&mut state)?,
            Action::Crash => self.crash(&mut state),
            Action::Open => self.open(&mut state),
        }
        self.count(&mut state);
        state.requests.sort_unstable();
        state.answers.sort_unstable();
        (state != *before).then_some(state)
    }

    /// Applies the next batch: the tenant's records, then the offset; a gap detaches in the same step.
    fn apply(&self, state: &mut State) -> Option<()> {
        let batch = state.batches.pop_front()?;
        let follower = &mut state.follower;
        follower.offset = batch.offset;
        let Some(records) = batch.records else {
            return Some(());
        };
        let head = DataHeader {
            tenant: TENANT,
            home: HOME,
            epoch: Epoch::FIRST,
            version: VERSION,
            attach: records.attempt,
        };
        let loose = self.is(Mutant::DataWithoutNumber) && follower.record.session.is_some();
        if ownership::admit_data(&mut follower.record, &head).is_err() && !loose {
            return Some(());
        }
        let held = follower.held();
        if records.after > held && !loose {
            follower.record.session = None;
            return Some(());
        }
        follower.has_gap |= records.after > held;
        follower.record.live.revision = revision(records.last.max(held));
        Some(())
    }

    /// Takes an answer of the home: `Attached` once the position is reached, or a refusal.
    fn take(&self, state: &mut State, answer: Answer) -> Option<()> {
        let record = &mut state.follower.record;
        let current = record.attach;
        let loose = self.is(Mutant::AttachedWithoutNumber);
        let number = if loose { current } else { answer.attempt };
        match answer.attached {
            // It waits for the records before it, which come by the feed.
            Some(position) if number == current && record.session.is_some() => {
                let position = if loose {
                    record.live.revision
                } else {
                    revision(position)
                };
                if record.live.revision < position {
                    return None;
                }
                let attach = Attach {
                    tenant: TENANT,
                    home: HOME,
                    epoch: Epoch::FIRST,
                    version: VERSION,
                    number,
                    position,
                    lineage: Lineage::starting(Epoch::FIRST),
                };
                ownership::attach(record, &attach).ok();
            }
            Some(_) => {}
            None => {
                let detach = Detach {
                    tenant: TENANT,
                    home: HOME,
                    number,
                };
                ownership::detach(record, &detach).ok();
            }
        }
        let place = state.answers.iter().position(|other| *other == answer)?;
        state.answers.remove(place);
        Some(())
    }

    fn acknowledge(&self, state: &mut State) {
        let session = state.follower.record.session.filter(|session| session.attached);
        let attached = session.map(|session| session.number);
        let change = match (state.follower.told, attached) {
            (told, attached) if told == attached => None,
            (_, Some(attempt)) => Some(Change::Attached(attempt)),
            (told, None) => told.map(Change::Detached),
        };
        state.follower.told = attached;
        let whole = Acknowledgement {
            offset: state.follower.offset,
            change,
            part: Part::Whole,
        };
        if self.is(Mutant::AcknowledgesInTwoSteps) {
            let parts = [Part::Offset, Part::Attached].map(|part| Acknowledgement { part, ..whole });
            state.acknowledgements.extend(parts);
        } else {
            state.acknowledgements.push_back(whole);
        }
    }

    fn hear(&self, state: &mut State) -> Option<()> {
        let acknowledgement = state.acknowledgements.pop_front()?;
        let home = &mut state.home;
        if acknowledgement.part != Part::Offset {
            match acknowledgement.change {
                Some(Change::Attached(attempt)) if home.session == Some(attempt) => home.is_attached = true,
                Some(Change::Detached(attempt)) if home.session == Some(attempt) => home.is_attached = false,
                Some(_) | None => {}
            }
        }
        if acknowledgement.part != Part::Attached {
            home.offset = home.offset.max(acknowledgement.offset);
        }
        Some(())
    }

    fn crash(&self, state: &mut State) {
        state.crashes += 1;
        state.batches.clear();
        state.answers.clear();
        state.requests.clear();
        state.acknowledgements.clear();
        state.home.is_open = false;
        if !self.is(Mutant::CountsBeforeOpening) {
            state.home.session = None;
            state.home.is_attached = false;
            state.home.offset = 0;
        }
    }

    /// Opens the feed: it goes on from the follower's offset, with what the follower lists as attached.
    fn open(&self, state: &mut State) {
        let session = state.follower.record.session.filter(|session| session.attached);
        state.follower.told = session.map(|session| session.number);
        let home = &mut state.home;
        home.is_open = true;
        home.session = session.map(|session| session.number);
        home.is_attached = session.is_some();
        if session.is_none() && self.is(Mutant::UnlistedIsAttached) {
            home.session = Some(AttachNumber(0));
            home.is_attached = true;
        }
        home.offset = state.follower.offset;
        let (from, held) = (state.follower.offset, home.writes.len() as u8);
        let after = home.writes.iter().filter(|index| **index <= from).count() as u8;
        if home.index > from {
            let records = home.session.filter(|_| after < held).map(|attempt| Records {
                attempt,
                after,
                last: held,
            });
            state.batches.push_back(Batch {
                offset: home.index,
                records,
            });
        }
    }

    /// Counts what the home takes for remote.
    fn count(&self, state: &mut State) {
        let home = &mut state.home;
        if home.is_attached || self.is(Mutant::OffsetCoversAll) {
            let reached = home.writes.iter().filter(|index| **index <= home.offset).count() as u8;
            home.covered = home.covered.max(reached);
        }
    }
}

fn write(state: &mut State) {
    let home = &mut state.home;
    home.index += 1;
    home.writes.push(home.index);
    let last = home.writes.len() as u8;
    let records = home.session.map(|attempt| Records {
        attempt,
        after: last - 1,
        last,
    });
    if home.is_open {
        state.batches.push_back(Batch {
            offset: home.index,
            records,
        });
    }
}

fn begin(state: &mut State) -> Option<()> {
    let record = &mut state.follower.record;
    let attempt = record.attach.next();
    let begin = BeginAttach {
        tenant: TENANT,
        home: HOME,
        incarnation: Incarnation::FIRST,
        epoch: Epoch::FIRST,
        version: VERSION,
        number: attempt,
    };
    ownership::begin_attach(record, &begin).ok()?;
    let position = state.follower.held();
    state.requests.push(Request { attempt, position });
    Some(())
}

fn detach(state: &mut State) -> Option<()> {
    let record = &mut state.follower.record;
    let detach = Detach {
        tenant: TENANT,
        home: HOME,
        number: record.session?.number,
    };
    ownership::detach(record, &detach).ok()
}

/// Takes an attempt: the records after its position are sent, then those that come; or refuses it. An attempt below
/// the one that is on the feed is of the past.
fn answer(state: &mut State, request: Request, takes: bool) {
    state.requests.retain(|other| *other != request);
    let home = &mut state.home;
    let is_past = home.session.is_some_and(|session| request.attempt < session);
    if is_past || !takes {
        state.answers.push(Answer {
            attempt: request.attempt,
            attached: None,
        });
        return;
    }
    home.session = Some(request.attempt);
    home.is_attached = false;
    let held = home.writes.len() as u8;
    if request.position < held {
        state.batches.push_back(Batch {
            offset: home.index,
            records: Some(Records {
                attempt: request.attempt,
                after: request.position,
                last: held,
            }),
        });
    }
    state.answers.push(Answer {
        attempt: request.attempt,
        attached: Some(held),
    });
}
