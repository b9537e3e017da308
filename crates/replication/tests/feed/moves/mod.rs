//! Table of moves: every step of a move, with every fault in it.
//!
//! A row is a test, a cell is one run of it, under load. When a step is reached the fault happens, and ends some time
//! later. Then the move has ended, moved or not moved: the recorded home serves in the recorded epoch, replicas are
//! equal, no acknowledged write is lost, and the next move finds nothing left over.
//!
//! ```text
//!            planned seeding caught-up heir relinquished accepted recorded following leaving
//! no fault
//! source, target or directory leader killed; an answer of the directory lost
//! link between the groups cut, or broken; either group cut off from the directory
//! abort
//! ```

mod directory;
mod world;

use std::time::Duration;

use futures::future::{Either, select};
use stead_state::directory::{MemberState, OperationResult};
use stead_state::shard::record::{Role, TenantRecord};
use tokio::time::sleep;

use world::{SOURCE, TARGET, World, nodes_of};

/// Time for which a link is cut, or the directory has no leader.
const FAULT_TIME: Duration = Duration::from_secs(7);

/// Step of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The directory has planned it.
    Planned,
    /// The target is being seeded.
    Seeding,
    /// The target follows, attached.
    CaughtUp,
    /// The target is the heir.
    Heir,
    /// The source has handed the tenant over.
    Relinquished,
    /// The target owns it.
    Accepted,
    /// The directory has recorded that.
    Recorded,
    /// The source follows the target.
    Following,
    /// The source leaves the replica set.
    Leaving,
}

/// Steps of a move to a follower, after which the source follows.
const TO_FOLLOWER: [Step; 7] = [
    Step::Planned,
    Step::CaughtUp,
    Step::Heir,
    Step::Relinquished,
    Step::Accepted,
    Step::Recorded,
    Step::Following,
];
/// Steps of a move to a group that joins for it, after which the source leaves.
const TO_NEWCOMER: [Step; 8] = [
    Step::Planned,
    Step::Seeding,
    Step::CaughtUp,
    Step::Heir,
    Step::Relinquished,
    Step::Accepted,
    Step::Recorded,
    Step::Leaving,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    SourceLeaderKilled,
    TargetLeaderKilled,
    /// The directory's leader is killed; requests wait for the next one.
    DirectoryLeaderKilled,
    /// The directory's leader is killed once it has applied the next report, before anybody is told.
    ReportLost,
    LinkCut,
    LinkBroken,
    /// The source's nodes and the directory cannot reach each other, and the source loses its leases.
    SourceCutOff,
    TargetCutOff,
    Aborted,
}

impl Step {
    /// Tells whether it is reached.
    fn is_reached(self, world: &World) -> bool {
        let (source, target) = (world.record(SOURCE), world.record(TARGET));
        let is = |record: Option<TenantRecord>, of: fn(&TenantRecord) -> bool| record.as_ref().is_some_and(of);
        let tenant = world.directory.tenant();
        match self {
            Self::Planned => tenant.moving.is_some(),
            Self::Seeding => is(target, |record| record.shadow.is_some()),
            Self::CaughtUp => is(target, |record| {
                record.shadow.is_none() && record.session.is_some_and(|session| session.attached)
            }),
            Self::Heir => is(target, |record| matches!(record.role, Role::Heir { .. })),
            Self::Relinquished => is(source, |record| matches!(record.role, Role::Relinquished { .. })),
            Self::Accepted => is(target, |record| record.owned().is_some()),
            Self::Recorded => tenant.home == TARGET,
            Self::Following => is(source, |record| record.home() == Some(TARGET)),
            Self::Leaving => {
                let source = tenant.member(SOURCE);
                source.is_none_or(|member| member.state != MemberState::Staying)
            }
        }
    }

    /// Tells whether a move that is given up at this step certainly does not happen.
    fn is_before_heir(self) -> bool {
        matches!(self, Self::Planned | Self::Seeding | Self::CaughtUp)
    }
}

impl Fault {
    /// Makes it happen, and end.
    async fn happen(self, world: &World, operation: u64) {
        let directory = &world.directory;
        match self {
            Self::None => {}
            Self::SourceLeaderKilled => world.kill_leader(SOURCE),
            Self::TargetLeaderKilled => world.kill_leader(TARGET),
            Self::DirectoryLeaderKilled => {
                directory.set_down(true);
                sleep(FAULT_TIME).await;
                directory.set_down(false);
            }
            Self::ReportLost => {
                directory.lose_with_next_answer();
                sleep(FAULT_TIME).await;
                directory.set_down(false);
            }
            Self::LinkCut => {
                world.set_link_cut(true);
                sleep(FAULT_TIME).await;
                world.set_link_cut(false);
            }
            Self::LinkBroken => world.break_streams(),
            Self::SourceCutOff | Self::TargetCutOff => {
                let group = if self == Self::SourceCutOff { SOURCE } else { TARGET };
                directory.set_cut(nodes_of(group), true);
                sleep(FAULT_TIME).await;
                directory.set_cut(nodes_of(group), false);
            }
            Self::Aborted => directory.abort(operation),
        }
    }
}

/// Runs a row: this fault in each step.
async fn check_row(fault: Fault) {
    let cells = TO_FOLLOWER.map(|step| (true, step));
    for (is_followed, step) in cells.into_iter().chain(TO_NEWCOMER.map(|step| (false, step))) {
        check_cell(is_followed, step, fault).await;
    }
}

/// Runs a cell. Its name is printed, for a failure.
async fn check_cell(is_followed: bool, step: Step, fault: Fault) {
    println!("{fault:?} in {step:?}, target follows before: {is_followed}");
    let world = World::start(is_followed).await;
    let operation = world.begin_move();
    let scenario = async {
        let name = format!("{step:?}");
        world
            .eventually(&name, |world| step.is_reached(world).then_some(()))
            .await;
        fault.happen(&world, operation).await;
        world
            .eventually("the outcome", |world| world.directory.result(operation))
            .await
    };
    let (scenario, load) = (std::pin::pin!(scenario), std::pin::pin!(world.load()));
    let Either::Left((result, _)) = select(scenario, load).await else {
        unreachable!("the load never ends")
    };
    if fault == Fault::Aborted {
        if step.is_before_heir() {
            assert_eq!(result, OperationResult::Cancelled);
        }
    } else {
        assert_eq!(result, OperationResult::Succeeded);
    }
    world.wait_until_settled(operation).await;
    let next = world.begin_move();
    assert_eq!(world.wait_until_settled(next).await, OperationResult::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn move_without_fault_succeeds() {
    check_row(Fault::None).await;
}

#[tokio::test(start_paused = true)]
async fn move_survives_source_leader_in_each_step() {
    check_row(Fault::SourceLeaderKilled).await;
}

#[tokio::test(start_paused = true)]
async fn move_survives_target_leader_in_each_step() {
    check_row(Fault::TargetLeaderKilled).await;
}

#[tokio::test(start_paused = true)]
async fn move_survives_directory_leader_in_each_step() {
    check_row(Fault::DirectoryLeaderKilled).await;
}

#[tokio::test(start_paused = true)]
async fn move_survives_lost_answer_to_report_in_each_step() {
    check_row(Fault::ReportLost).await;
}

#[tokio::test(start_paused = true)]
async fn move_survives_cut_link_in_each_step() {
    check_row(Fault::LinkCut).await;
}

#[tokio::test(start_paused = true)]
async fn move_survives_broken_streams_in_each_step() {
    check_row(Fault::LinkBroken).await;
}

#[tokio::test(start_paused = true)]
async fn move_survives_source_without_directory_in_each_step() {
    check_row(Fault::SourceCutOff).await;
}

#[tokio::test(start_paused = true)]
async fn move_survives_target_without_directory_in_each_step() {
    check_row(Fault::TargetCutOff).await;
}

#[tokio::test(start_paused = true)]
async fn move_aborted_in_each_step_is_moved_or_not_moved() {
    check_row(Fault::Aborted).await;
}
