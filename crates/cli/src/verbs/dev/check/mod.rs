//! `stead dev --check`: the acceptance steps, one line each, with figures and budgets.

mod bounded_read;
mod idle;
mod lag;
mod leader_kill;
mod reads;
mod restart_all;
mod start;
mod verdict;
mod writes;

use std::path::Path;

use clap::ValueEnum;

pub(super) use self::verdict::Verdict;
use super::{airports, disk::Disk, world::World};
use crate::{
    exit::{Code, Failure},
    output,
};

/// An acceptance step, in the order in which all of them are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Step {
    /// From nothing to the first write accepted in each region
    Start,
    /// A put in its home region; nothing else is on its way
    WriteAtHome,
    /// A put that another region's node hands on
    ForwardedWrite,
    /// A follower's read leaves no region
    FollowerRead,
    /// A read with the writer's token sees the write
    SessionToken,
    /// A bounded read is served within its bound, or at home
    BoundedRead,
    /// How far followers are behind under load
    Lag,
    /// 28,298 airports of 234 tenants, equal in three regions
    Airports,
    /// A leader killed 20 times under load
    LeaderKill,
    /// All nine nodes killed at once
    RestartAll,
    /// What nine idle nodes cost
    Idle,
}

/// Runs steps, all if none is named.
pub(super) async fn run(world: &mut World, steps: &[Step], data: &Path) -> Result<(), Failure> {
    let steps = if steps.is_empty() {
        Step::value_variants()
    } else {
        steps
    };
    let disk = Disk::watch(data)?;
    let mut failed = 0;
    for step in steps {
        disk.p99().await;
        let verdict = one(world, *step).await.unwrap_or_else(|error| Verdict::failed(&error));
        let value = step.to_possible_value();
        let name = value.as_ref().map_or("", |value| value.get_name());
        let fdatasync_p99 = disk.p99().await;
        println!("{}", verdict.line(name, fdatasync_p99));
        failed += usize::from(!verdict.passed(fdatasync_p99));
    }
    if failed == 0 {
        return Ok(());
    }
    Err(
        Failure::new(Code::Failed, format!("{failed} of {} steps failed", steps.len())).hint(format!(
            "the nodes' logs are in {}; logs and data are kept",
            output::shown(data.as_os_str().as_encoded_bytes(), 200)
        )),
    )
}

async fn one(world: &mut World, step: Step) -> anyhow::Result<Verdict> {
    if step != Step::Start {
        world.ready().await?;
    }
    match step {
        Step::Start => start::run(world).await,
        Step::WriteAtHome => writes::at_home(world).await,
        Step::ForwardedWrite => writes::forwarded(world).await,
        Step::FollowerRead => reads::follower(world).await,
        Step::SessionToken => reads::session_token(world).await,
        Step::BoundedRead => bounded_read::run(world).await,
        Step::Lag => lag::run(world).await,
        Step::Airports => airports::run(world).await,
        Step::LeaderKill => leader_kill::run(world).await,
        Step::RestartAll => restart_all::run(world).await,
        Step::Idle => idle::run(world).await,
    }
}
