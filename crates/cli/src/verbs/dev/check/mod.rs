//! `stead dev --check`: the acceptance steps, one line each, with figures and budgets.

mod backup;
mod big_values;
mod bounded_read;
mod check_finds;
mod clock_leap;
mod command_line;
mod contention;
mod credits;
mod descriptors;
mod directory_recover;
mod disk_full;
mod drain;
mod forks;
mod frozen_node;
mod groups;
mod growth;
mod idempotent_retry;
mod idle;
mod import;
mod lag;
mod leader_kill;
mod lease_loss;
mod limits;
mod lost_majority;
mod moves;
mod noisy_neighbour;
mod outage_ttl;
mod own_cluster;
mod pause_resume;
mod promote;
mod queue_head;
mod reads;
mod replace_disk;
mod replace_node;
mod residency_evidence;
mod restart_all;
mod roles;
mod rotate;
mod scan_consistent;
mod seeds;
mod silent_node;
mod slow_reader;
mod start;
mod strangers;
mod tls;
mod topologies;
mod ttl;
mod verdict;
mod wan;
mod watch_resume;
mod watch_storm;
mod writes;

use std::path::Path;

use clap::{Args, ValueEnum};
use stead_testing::SyncProbe;

pub(super) use self::verdict::Verdict;
use super::{airports, world::World};
use crate::{
    exit::{Code, CommandError},
    output,
    verbs::tenant,
};

/// Acceptance step, in the order of a full run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Step {
    /// From nothing to the first write accepted in each region
    Start,
    /// A put in its home region, without other load
    WriteAtHome,
    /// A put that another region's node forwards
    ForwardedWrite,
    /// A follower's read stays in its region
    FollowerRead,
    /// A read with the writer's token sees the write
    SessionToken,
    /// A bounded read is served within its bound, or at home
    BoundedRead,
    /// 64 clients count, change one record and move units while leaders die
    Txn,
    /// Credit checks on one hot key
    Credits,
    /// 64 clients append to one key while leaders die
    Append,
    /// Watchers in three regions while a leader dies and a line is cut
    WatchResume,
    /// 500 watches that resume 60 MiB behind are at the head soon, beside 500 puts a second
    WatchStorm,
    /// Keys with a time to live expire soon after it, and never before
    Ttl,
    /// A leader's clock two hours ahead, then one behind: no key expires early, none late, and it is reported
    ClockLeap,
    /// All nodes of a home killed for longer than its keys live: keys that are renewed survive
    OutageTtl,
    /// Increments over a link that is cut again and again
    IdempotentRetry,
    /// 700 increments a second of one client while a follower of the home is frozen
    FrozenNode,
    /// A quiet tenant beside one that floods its home
    NoisyNeighbour,
    /// Calls beyond a limit are refused quickly, with its name
    Limits,
    /// 900 scans of 10,000 keys at a node that is not the leader, whose caller does not read, beside another tenant
    SlowReader,
    /// The first key of a queue is found as fast after 60,000 removed keys as before
    QueueHead,
    /// No connection is in plain text, and no port takes it; an operator's certificate opens no peer port
    Tls,
    /// Certificates, keys and the CA are replaced under load, with watches in three regions
    Rotate,
    /// A thousand connections a second that do not belong, beside a tenant that works
    Strangers,
    /// 700 connections that say nothing are closed, and others are served beside them
    Descriptors,
    /// The node of a watch is frozen: the watch goes on at another one
    SilentNode,
    /// Two of three nodes of a home killed: the third says so, and refuses with certainty
    LostMajority,
    /// Disks of a home below their reserve: writes are refused by name, the rest goes on
    DiskFull,
    /// 200,000 keys scanned while they are rewritten
    ScanConsistent,
    /// Replication lag of followers under load
    Lag,
    /// 28,298 airports of 234 tenants, equal in three regions
    Airports,
    /// The airports by `stead kv import`, killed five times
    Import,
    /// A tenant backed up under load is restored as it was at one revision, and a damaged backup is found
    Backup,
    /// Values of 1 MiB; a replica past the log's tail returns
    BigValues,
    /// Tokens, conditions, repeats, times to live and watches go on across a move
    Move,
    /// A tenant moves 20 times while clients beside both homes write
    MoveUnderLoad,
    /// Leaders of home, target and directory are killed during moves
    MoveLeaderKill,
    /// A move whose target is cut off is cancelled, and succeeds later
    MoveAbort,
    /// A tenant moves, and the region that was its home keeps no copy
    RegionLeave,
    /// A large tenant that is written to moves over a narrow link that is cut in the middle of the copy
    MoveLarge,
    /// A follower and a voter far behind a large tenant catch up beside its writes, whoever is killed meanwhile
    SeedLarge,
    /// A copy that cannot catch up with the writers ends with figures, and changes nothing
    SeedUnderLoad,
    /// A region of a thousand tenants is drained in waves, and opened again
    Drain,
    /// A region cut off from the directory goes on while its leases last, then stops, and comes back
    LeaseLoss,
    /// A leader frozen for longer than its lease serves nothing old once it wakes
    PauseResume,
    /// All nodes of a region killed under load: its tenants get other homes, and it follows when it is back
    Promote,
    /// A region cut off and alive: its tenants get other homes, and no two regions ever acknowledge
    PromoteCutOff,
    /// Both regions of a cluster of two lost in turn: with `--regions 2`
    PromoteTwoRegions,
    /// A promotion of a region that answers moves its tenants instead, and loses nothing
    PromoteGraceful,
    /// All nodes of a region killed: a tenant whose policy says so gets another home by itself, one that is observed stays
    PromoteByPolicy,
    /// Tenants that a promotion has taken return under load, in one operation
    Failback,
    /// A tenant goes away and comes back under load, as if its region were lost
    Rehearse,
    /// Show the forecast of a promotion if a region were lost now
    Readiness,
    /// Writes that only a lost region had are kept, told apart, and written again, each once
    ForkReplay,
    /// Tokens, conditions and watches of what a promotion has cut are answered so, exactly, and go on
    ForkedToken,
    /// A region killed under writes that another region confirms: none of those that were acknowledged is lost
    RemoteDurability,
    /// Roles of callers hold by every way in every region; one that is taken away ends what runs with it
    Roles,
    /// Changes and refusals are in the audit log, with who and why
    Audit,
    /// Evidence of what was sent of a tenant to which region under which policy, and of its erasure, beside what was really sent
    ResidencyEvidence,
    /// A leader killed 20 times under load
    LeaderKill,
    /// All nine nodes killed at once
    RestartAll,
    /// Resource usage of nine idle nodes
    Idle,
    /// A node, a clock, a link, a disk and a certificate go wrong in turn: `stead cluster check` names each, and nothing else
    CheckFinds,
    /// The disk of a node is lost three times under load: the same machine takes its place under another number
    ReplaceDisk,
    /// One region grows to two with a witness and to three under load, in a cluster of its own
    Grow,
    /// Three regions and a witness become one again under load, in a cluster of its own
    Shrink,
    /// Nodes are lost and replaced by other machines under load, `--rounds` times; then one is lost while another is replaced
    ReplaceNode,
    /// A region gets another group under load, and its tenants are spread over both
    Groups,
    /// A noisy tenant goes to another group of its region under load
    Isolate,
    /// Each topology of docs/topologies.md loses what its line of the table says
    Topologies,
    /// A region is cut off for `--cut-for`: both sides go on within their bounds, and are equal afterwards
    RegionCut,
    /// Links of a region at a hundredth of their speed: writes at home are as fast as before
    SlowLink,
    /// The directory's majority lost for good, and recovered from the voter that is left; it has one voter from then on
    DirectoryRecover,
}

impl Step {
    /// Returns the number of regions that it needs.
    fn regions(self) -> usize {
        if self == Self::PromoteTwoRegions { 2 } else { 3 }
    }

    /// Tells whether it starts a cluster of its own, while the nodes of the other steps are down.
    fn has_own_cluster(self) -> bool {
        matches!(
            self,
            Self::Grow | Self::Shrink | Self::ReplaceNode | Self::Groups | Self::Isolate | Self::Topologies
        )
    }
}

/// Options of single steps.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct StepOptions {
    /// How often the step replace-node replaces a node
    #[arg(long, default_value_t = 4, requires = "check", value_name = "N")]
    rounds: usize,
    /// How long the step region-cut cuts a region off
    #[arg(long, default_value = "20s", requires = "check", value_name = "TIME")]
    cut_for: humantime::Duration,
    /// Size of the tenants of the steps seed-large and move-large, such as 5GiB [default: 256MiB and 1GiB, 128MiB of a
    /// debug build]
    #[arg(long, requires = "check", value_name = "BYTES", value_parser = tenant::bytes)]
    copied: Option<u64>,
}

/// Runs steps, all if none is named.
pub(super) async fn run(
    world: &mut World,
    steps: &[Step],
    data: &Path,
    options: &StepOptions,
) -> Result<(), CommandError> {
    let regions = world.data_regions().await;
    let steps: Vec<Step> = if steps.is_empty() {
        let all = Step::value_variants().iter().copied();
        all.filter(|step| step.regions() == regions).collect()
    } else {
        steps.to_vec()
    };
    let sync_probe = SyncProbe::start(data)?;
    let mut failed = 0;
    for step in &steps {
        sync_probe.p99().await;
        let verdict = run_step(world, *step, data, options)
            .await
            .unwrap_or_else(|error| Verdict::failed(&error));
        let value = step.to_possible_value();
        let name = value.as_ref().map_or("", |value| value.get_name());
        let fdatasync_p99 = sync_probe.p99().await;
        println!("{}", verdict.line(name, fdatasync_p99));
        failed += usize::from(!verdict.passed(fdatasync_p99));
    }
    if failed == 0 {
        return Ok(());
    }
    Err(
        CommandError::new(Code::Failed, format!("{failed} of {} steps failed", steps.len())).hint(format!(
            "the nodes' logs are in {}; logs and data are kept",
            output::display_bytes(data.as_os_str().as_encoded_bytes(), 200)
        )),
    )
}

#[expect(clippy::too_many_lines, reason = "one line a step")]
async fn run_step(world: &mut World, step: Step, data: &Path, options: &StepOptions) -> anyhow::Result<Verdict> {
    let regions = world.data_regions().await;
    anyhow::ensure!(
        step.has_own_cluster() || step.regions() == regions,
        "it needs {} regions, and this cluster has {regions}: `--regions` of dev says how many",
        step.regions()
    );
    if step != Step::Start && !step.has_own_cluster() {
        world.ready().await?;
        world.set_lease_ttl().await?;
    }
    match step {
        Step::Start => start::run(world).await,
        Step::WriteAtHome => writes::at_home(world).await,
        Step::ForwardedWrite => writes::forwarded(world).await,
        Step::FollowerRead => reads::follower(world).await,
        Step::SessionToken => reads::session_token(world).await,
        Step::BoundedRead => bounded_read::run(world).await,
        Step::Txn => contention::txn(world).await,
        Step::Credits => credits::run(world).await,
        Step::Append => contention::append(world).await,
        Step::WatchResume => watch_resume::run(world).await,
        Step::WatchStorm => watch_storm::run(world).await,
        Step::Ttl => ttl::run(world).await,
        Step::ClockLeap => clock_leap::run(world).await,
        Step::OutageTtl => outage_ttl::run(world).await,
        Step::IdempotentRetry => idempotent_retry::run(world).await,
        Step::FrozenNode => frozen_node::run(world).await,
        Step::ScanConsistent => scan_consistent::run(world).await,
        Step::NoisyNeighbour => noisy_neighbour::run(world).await,
        Step::Limits => limits::run(world).await,
        Step::SlowReader => slow_reader::run(world).await,
        Step::QueueHead => queue_head::run(world).await,
        Step::Tls => tls::run(world).await,
        Step::Rotate => rotate::run(world).await,
        Step::Strangers => strangers::run(world).await,
        Step::Descriptors => descriptors::run(world).await,
        Step::SilentNode => silent_node::run(world).await,
        Step::LostMajority => lost_majority::run(world).await,
        Step::DiskFull => disk_full::run(world).await,
        Step::Lag => lag::run(world).await,
        Step::Airports => airports::run(world).await,
        Step::Import => import::run(world, data).await,
        Step::Backup => backup::run(world, data).await,
        Step::BigValues => big_values::run(world).await,
        Step::Move => moves::carried(world).await,
        Step::MoveUnderLoad => moves::under_load(world).await,
        Step::MoveLeaderKill => moves::leader_kill(world).await,
        Step::MoveAbort => moves::abort(world).await,
        Step::RegionLeave => moves::leave(world).await,
        Step::MoveLarge => seeds::large(world, options.copied).await,
        Step::SeedLarge => seeds::far_behind(world, options.copied).await,
        Step::SeedUnderLoad => seeds::hopeless(world).await,
        Step::Drain => drain::run(world).await,
        Step::LeaseLoss => lease_loss::run(world).await,
        Step::PauseResume => pause_resume::run(world).await,
        Step::Promote => promote::kill(world).await,
        Step::PromoteCutOff => promote::cut_off(world).await,
        Step::PromoteTwoRegions => promote::two_regions(world).await,
        Step::PromoteGraceful => promote::graceful(world).await,
        Step::PromoteByPolicy => promote::by_policy(world).await,
        Step::Failback => promote::failback(world).await,
        Step::Rehearse => promote::rehearse(world).await,
        Step::Readiness => promote::readiness(world).await,
        Step::ForkReplay => forks::replay(world).await,
        Step::ForkedToken => forks::token(world).await,
        Step::RemoteDurability => promote::remote(world).await,
        Step::Roles => roles::run(world).await,
        Step::Audit => roles::audit(world).await,
        Step::ResidencyEvidence => residency_evidence::run(world).await,
        Step::LeaderKill => leader_kill::run(world).await,
        Step::RestartAll => restart_all::run(world).await,
        Step::Idle => idle::run(world).await,
        Step::CheckFinds => check_finds::run(world, data).await,
        Step::ReplaceDisk => replace_disk::run(world, data).await,
        Step::Grow => growth::grow(world, data).await,
        Step::Shrink => growth::shrink(world, data).await,
        Step::ReplaceNode => replace_node::run(world, data, options.rounds).await,
        Step::Groups => groups::add(world, data).await,
        Step::Isolate => groups::isolate(world, data).await,
        Step::Topologies => topologies::run(world, data).await,
        Step::RegionCut => wan::region_cut(world, options.cut_for.into()).await,
        Step::SlowLink => wan::slow_link(world).await,
        Step::DirectoryRecover => directory_recover::run(world, data).await,
    }
}
