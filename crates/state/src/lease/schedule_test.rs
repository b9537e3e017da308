//! Random schedules of holders, leaders of the directory and a fence, with clocks of different rates, and L1 as the
//! only judge: what the unit tests say clause by clause must hold together.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;
use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, TenantNumber};

use super::{
    LeaseAnswer, Renewal,
    clock::NodeTime,
    grantor::{AppliedFence, DirectoryReading, LeaseGrantor},
    holder::{LeaseHolder, ServedTenant},
    waiter::{FenceWait, PossibleOwners, WaitState},
};
use crate::{
    serving::{self, BootTime},
    shard::record::{Role, TenantRecord},
};

const TENANT: TenantNumber = TenantNumber::new(7);
const HOME: GroupId = GroupId::new(1);
const TARGET: GroupId = GroupId::new(2);
/// Voters: of the home and of a move's target.
const VOTERS: [GroupId; 3] = [HOME, HOME, TARGET];
const LEADERS: usize = 2;
/// Unit of time of a schedule.
const TICK_MS: u64 = 500;
/// The fence of the tenant.
const FENCE: Epoch = Epoch::MAX;

/// One step of a schedule. Numbers choose a voter, a leader or a message.
#[derive(Clone, Debug)]
enum Step {
    /// Time passes.
    Pass(u8),
    /// A voter begins an attempt.
    Ask(u8),
    /// The read index of a request is confirmed and its version is read; it is granted later.
    Read(u8),
    /// A request whose version was read is granted.
    Grant(u8),
    /// An answer arrives.
    Arrive(u8),
    /// The view of a voter reaches a version.
    View(u8, u8),
    /// The tenant is fenced.
    Fence,
    /// Another directory voter is elected.
    Elect,
    /// The leader begins the wait.
    Wait,
    /// The ttl is changed.
    SetTtl(u8),
    /// An entry without meaning for leases.
    Other,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..40_u8).prop_map(Step::Pass),
        6 => any::<u8>().prop_map(Step::Ask),
        6 => any::<u8>().prop_map(Step::Read),
        6 => any::<u8>().prop_map(Step::Grant),
        6 => any::<u8>().prop_map(Step::Arrive),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(voter, lag)| Step::View(voter, lag)),
        1 => Just(Step::Fence),
        1 => Just(Step::Elect),
        3 => Just(Step::Wait),
        1 => (15..120_u8).prop_map(Step::SetTtl),
        2 => Just(Step::Other),
    ]
}

/// Clock whose rate differs from that of true time by up to half of the drift, in thousandths.
#[derive(Clone, Copy, Debug)]
struct Clock(i64);

impl Clock {
    fn boot(self, true_ms: u64) -> BootTime {
        let ahead = i64::try_from(true_ms).unwrap() * self.0 / 1_000;
        BootTime(true_ms.saturating_add_signed(ahead))
    }

    fn reading(self, true_ms: u64) -> NodeTime {
        let boot = self.boot(true_ms);
        NodeTime { boot, wall_ms: boot.0 }
    }
}

struct Voter {
    clock: Clock,
    group: GroupId,
    holder: LeaseHolder,
    view: DirectoryVersion,
}

/// A request under way: confirmed in a term, with the state that was read then.
struct Confirmed {
    voter: usize,
    renewal: Renewal,
    leader: usize,
    term: u64,
    version: DirectoryVersion,
}

/// Ttl in force from a version on.
struct Ttl {
    from: u64,
    since: u64,
    ttl: Duration,
}

struct World {
    now: u64,
    voters: Vec<Voter>,
    clocks: Vec<Clock>,
    grantors: Vec<LeaseGrantor>,
    leader: usize,
    term: u64,
    index: u64,
    ttls: Vec<Ttl>,
    fence: Option<DirectoryVersion>,
    fenced: u64,
    wait: Option<FenceWait>,
    is_over: bool,
    requests: Vec<(usize, Renewal)>,
    confirmed: Vec<Confirmed>,
    answers: Vec<(usize, LeaseAnswer)>,
}

fn version(index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index,
    }
}

fn choose<T>(from: &mut Vec<T>, number: u8) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(usize::from(number) % from.len()))
}

impl World {
    fn new(rates: &[i64]) -> Self {
        let voter = |(group, rate): (&GroupId, &i64)| Voter {
            clock: Clock(*rate),
            group: *group,
            holder: LeaseHolder::default(),
            view: version(1),
        };
        let mut world = Self {
            now: 1_000_000,
            voters: VOTERS.iter().zip(rates).map(voter).collect(),
            clocks: rates[VOTERS.len()..].iter().copied().map(Clock).collect(),
            grantors: vec![LeaseGrantor::default(); LEADERS],
            leader: 0,
            term: 0,
            index: 1,
            ttls: vec![Ttl {
                from: 1,
                since: 0,
                ttl: Duration::from_secs(60),
            }],
            fence: None,
            fenced: 0,
            wait: None,
            is_over: false,
            requests: Vec::new(),
            confirmed: Vec::new(),
            answers: Vec::new(),
        };
        world.elect();
        world
    }

    fn leader_clock(&self) -> BootTime {
        self.clocks[self.leader].boot(self.now)
    }

    fn ttl_at(&self, index: u64) -> Duration {
        let before = self.ttls.iter().rev().find(|ttl| ttl.from <= index);
        before.unwrap().ttl
    }

    /// Returns the largest ttl in force at the fence or within one such ttl before it, with the margin of a clock that
    /// is not the waiter's.
    fn longest_ttl(&self) -> Duration {
        let ends = self.ttls.iter().skip(1).map(|next| next.since).chain([u64::MAX]);
        let may_run = |(ttl, ended): &(&Ttl, u64)| {
            let margin = u64::try_from((ttl.ttl + ttl.ttl / 4).as_millis()).unwrap();
            self.fenced < ended.saturating_add(margin)
        };
        let running = self.ttls.iter().zip(ends).filter(may_run);
        running.map(|(ttl, _)| ttl.ttl).max().unwrap()
    }

    fn elect(&mut self) {
        // The one before does not know of it, and grants what was confirmed in its term.
        self.leader = (self.leader + 1) % LEADERS;
        self.term += 1;
        let now = self.leader_clock();
        self.grantors[self.leader].lead(now, self.term);
    }

    fn ask(&mut self, number: u8) {
        let at = usize::from(number) % self.voters.len();
        let voter = &mut self.voters[at];
        let now = voter.clock.reading(self.now);
        let renewal = voter.holder.begin(now, voter.view, BTreeSet::from([voter.group]));
        self.requests.push((at, renewal));
    }

    fn read(&mut self, number: u8) {
        if let Some((voter, renewal)) = choose(&mut self.requests, number) {
            self.confirmed.push(Confirmed {
                voter,
                renewal,
                leader: self.leader,
                term: self.term,
                version: version(self.index),
            });
        }
    }

    fn grant(&mut self, number: u8) {
        let Some(confirmed) = choose(&mut self.confirmed, number) else {
            return;
        };
        let Confirmed { renewal, version, .. } = &confirmed;
        let is_fenced = |fence: &DirectoryVersion| renewal.view < *fence && fence <= version;
        let fence = self.fence.filter(is_fenced);
        let reading = DirectoryReading {
            version: *version,
            ttl: self.ttl_at(version.index),
            fences: Some(fence.iter().map(|_| (TENANT, FENCE)).collect()),
        };
        let now = self.clocks[confirmed.leader].boot(self.now);
        let granted = self.grantors[confirmed.leader].grant(now, confirmed.term, renewal, reading);
        self.answers
            .extend(granted.into_iter().map(|answer| (confirmed.voter, answer)));
    }

    fn begin_wait(&mut self) {
        let Some(fence) = self.fence else { return };
        let now = self.leader_clock();
        let grantor = &self.grantors[self.leader];
        match self.wait.map(|wait| grantor.wait_state(now, &wait)) {
            Some(WaitState::Over) => self.is_over = true,
            Some(WaitState::Left(_)) => {}
            Some(WaitState::Void) | None => {
                let fence = AppliedFence {
                    version: fence,
                    owners: PossibleOwners::new(HOME, Some(TARGET), []),
                    ttl: self.longest_ttl(),
                };
                self.wait = self.grantors[self.leader].begin_wait(now, &fence);
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Pass(ticks) => self.now += TICK_MS * u64::from(ticks),
            Step::Ask(number) => self.ask(number),
            Step::Read(number) => self.read(number),
            Step::Grant(number) => self.grant(number),
            Step::Arrive(number) => {
                if let Some((voter, answer)) = choose(&mut self.answers, number) {
                    self.voters[voter].holder.answer(answer);
                }
            }
            Step::View(number, lag) => {
                let at = usize::from(number) % self.voters.len();
                let reached = version(self.index.saturating_sub(u64::from(lag % 4)));
                let view = &mut self.voters[at].view;
                *view = reached.max(*view);
            }
            Step::Fence if self.fence.is_none() => {
                self.index += 1;
                self.fence = Some(version(self.index));
                self.fenced = self.now;
            }
            Step::Fence | Step::Other => self.index += 1,
            Step::Elect => self.elect(),
            Step::Wait => self.begin_wait(),
            Step::SetTtl(seconds) => {
                self.index += 1;
                self.ttls.push(Ttl {
                    from: self.index,
                    since: self.now,
                    ttl: Duration::from_secs(u64::from(seconds)),
                });
            }
        }
    }

    /// Tells whether a voter that leads its group, which owns the tenant, would answer.
    fn serves(&mut self, at: usize) -> bool {
        let Voter {
            clock,
            group,
            holder,
            view,
        } = &mut self.voters[at];
        let is_fenced = self.fence.is_some_and(|fence| fence <= *view);
        let served = ServedTenant {
            group: *group,
            tenant: TENANT,
            fence: if is_fenced { FENCE } else { Epoch::FIRST },
            view: *view,
        };
        let record = TenantRecord {
            role: Role::Owner,
            epoch: Epoch::FIRST,
            ..TenantRecord::unknown()
        };
        let state = holder.serving_state(clock.reading(self.now), served, true);
        serving::check(&record, &state).is_ok()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// L1, with any two clocks within 1 % of each other.
    #[test]
    fn nobody_serves_below_fence_once_wait_is_over(
        rates in prop::collection::vec(-5..=4_i64, VOTERS.len() + LEADERS),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(&rates);
        for step in steps {
            world.take(step);
            for at in 0..VOTERS.len() {
                let serves = world.serves(at);
                prop_assert!(!(world.is_over && serves), "voter {} serves after the wait", at);
            }
        }
    }
}

/// The schedules are not vacuous: a voter serves before the fence, and a wait comes to its end.
#[test]
fn schedule_serves_then_waits() {
    let mut world = World::new(&[0; VOTERS.len() + LEADERS]);
    let before = [
        Step::Ask(0),
        Step::Pass(2),
        Step::Read(0),
        Step::Grant(0),
        Step::Arrive(0),
    ];
    before.into_iter().for_each(|step| world.take(step));
    assert!(world.serves(0));
    let after = [Step::Fence, Step::Wait, Step::Pass(116), Step::Wait];
    after.into_iter().for_each(|step| world.take(step));
    assert!(world.serves(0) && !world.is_over, "58 s after the grant");
    [Step::Pass(6), Step::Wait]
        .into_iter()
        .for_each(|step| world.take(step));
    assert!(!world.serves(0) && world.is_over);
}
