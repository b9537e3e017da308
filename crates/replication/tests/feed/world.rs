//! The test world: a home group and a follower group, their nodes, and the steps and checks of the tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use stead_api::peer_codec::PeerAlarms;
use stead_raft::{BlockingMode, Clocks, Config, CopyBandwidth, GroupConfig, Timing, TypedGroup};
use stead_replication::{
    Dependencies, DirectoryAccess, EpochsSeen, GroupTasks, LeaseLeft, Replication, RetentionLimits, RoomCheck,
    SeedLimits, SharedDirectoryView, SubmitCommand,
};
use stead_state::directory::{
    self, Addresses, Command, DirectoryChange, DirectoryView, GroupReport, MemberState, Region, ReplicaSetMember,
    Tenant,
};
use stead_state::rows::feed::TouchedTenant;
use stead_state::shard::command::{Effect, Operation, Write};
use stead_state::shard::record::{CopyState, TenantRecord};
use stead_state::shard::{ApplyResult, apply_result::WriteResult};
use stead_store::background::Background;
use stead_store::engine::memory as rows;
use stead_store::log::memory as log;
use stead_store::sent_log::SentLog;
use stead_store::shard::ShardMachine;
use stead_testing::MemoryNetwork;
use stead_types::{
    DirectoryVersion, Error, ErrorKind, FeedOffset, GroupId, Incarnation, Jurisdiction, NodeId, Revision, TenantLimit,
    TenantLimits, TenantNumber,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

pub const HOME: GroupId = GroupId::new(1);
pub const FOLLOWER: GroupId = GroupId::new(2);
/// One-way delay between the regions.
pub const FAR: Duration = Duration::from_millis(1);
/// One-way delays of neighbours, of a continent and around the world: round trips of 2, 80 and 200 ms.
pub const DISTANCES: [Duration; 3] = [FAR, Duration::from_millis(40), Duration::from_millis(100)];
/// Longest wait for a condition: longer than the longest backoff and an election.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    pub net: MemoryNetwork,
    pub nodes: BTreeMap<u64, Node>,
    directory: Arc<AtomicU64>,
    handler: Arc<Mutex<ReportHandler>>,
    reported: Arc<Mutex<Vec<GroupReport>>>,
    entries: Vec<DirectoryChange>,
    tenants: BTreeMap<TenantNumber, Tenant>,
    seeds: SeedLimits,
    /// Whether the disks of the follower's group are full.
    pub follower_is_full: Arc<AtomicBool>,
    /// Acknowledged writes: time, tenant and revision.
    acknowledged: Vec<(Instant, TenantNumber, Revision)>,
}

pub struct Node {
    pub group: TypedGroup<ShardMachine>,
    pub machine: Arc<ShardMachine>,
    pub tasks: GroupTasks,
    pub alarms: PeerAlarms,
    pub directory_view: SharedDirectoryView,
    pub epochs_seen: EpochsSeen,
}

/// Decides what the directory does with reports.
type ReportHandler = Box<dyn Fn(&[GroupReport]) -> ReportResult + Send>;

#[derive(Clone, Copy, Debug)]
pub enum ReportResult {
    Taken,
    Refused,
    /// There is no response.
    Never,
}

impl World {
    /// Starts a home group of `homes` nodes from number 1 on, and a follower group of `followers` nodes from 11 on.
    pub async fn start(homes: u64, followers: u64, limits: RetentionLimits) -> Self {
        Self::start_far(homes, followers, limits, FAR).await
    }

    /// Starts the groups with a one-way delay of `far` between them.
    pub async fn start_far(homes: u64, followers: u64, limits: RetentionLimits, far: Duration) -> Self {
        Self::start_seeding(homes, followers, limits, far, SeedLimits::default()).await
    }

    /// Starts the groups with limits of their seeds.
    pub async fn start_seeding(
        homes: u64,
        followers: u64,
        limits: RetentionLimits,
        far: Duration,
        seed_limits: SeedLimits,
    ) -> Self {
        if std::env::var_os("RUST_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            tracing_subscriber::fmt().with_env_filter(filter).try_init().ok();
        }
        let group = |id, region, voters| TestGroup { id, region, voters };
        let groups = [
            group(HOME, "home", (1..=homes).collect::<Vec<_>>()),
            group(FOLLOWER, "far", (11..11 + followers).collect()),
        ];
        let mut world = Self {
            net: MemoryNetwork::default(),
            nodes: BTreeMap::new(),
            directory: Arc::default(),
            handler: Arc::new(Mutex::new(Box::new(|_| ReportResult::Taken))),
            reported: Arc::default(),
            entries: groups.iter().flat_map(entries).collect(),
            tenants: BTreeMap::new(),
            seeds: seed_limits,
            follower_is_full: Arc::default(),
            acknowledged: Vec::new(),
        };
        for home in &groups[0].voters {
            for follower in &groups[1].voters {
                world.net.delay(*home, *follower, far);
            }
        }
        for TestGroup { id: group, voters, .. } in &groups {
            for id in voters {
                let node = world.node(*group, *id, voters, limits).await;
                world.nodes.insert(*id, node);
            }
        }
        world.publish(world.entries.clone());
        world.leader(HOME).await;
        world.leader(FOLLOWER).await;
        world
    }

    async fn node(&self, group: GroupId, id: u64, voters: &[u64], limits: RetentionLimits) -> Node {
        let version = self.directory.clone();
        let setup = NodeSetup {
            group,
            id,
            voters: voters.to_vec(),
            limits,
            directory: DirectoryAccess {
                read_version: Arc::new(move || {
                    let version = at(version.load(Ordering::Relaxed));
                    Box::pin(async move { Some(version) })
                }),
                submit: self.report_handler(),
            },
            seeds: self.seeds,
            lease_left: Arc::new(|_| Some(Duration::from_secs(60))),
            room: self.room_of(group),
        };
        Node::start(&self.net, setup).await
    }

    fn room_of(&self, group: GroupId) -> RoomCheck {
        let is_full = self.follower_is_full.clone();
        Arc::new(move |_| match group == FOLLOWER && is_full.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Unavailable, "the disk is full")),
            false => Ok(()),
        })
    }

    fn report_handler(&self) -> SubmitCommand {
        let (handler, reported) = (self.handler.clone(), self.reported.clone());
        Arc::new(move |command| {
            let Command::Report(_, _, reports) = command else {
                panic!("not a report: {command:?}")
            };
            let result = (handler.lock().unwrap())(&reports);
            if matches!(result, ReportResult::Taken) {
                reported.lock().unwrap().extend(reports);
            }
            Box::pin(async move {
                match result {
                    ReportResult::Taken => true,
                    ReportResult::Refused => false,
                    ReportResult::Never => std::future::pending().await,
                }
            })
        })
    }

    /// Sets what the directory does with reports from now on.
    pub fn on_report(&self, handler: impl Fn(&[GroupReport]) -> ReportResult + Send + 'static) {
        *self.handler.lock().unwrap() = Box::new(handler);
    }

    /// Tells whether the directory has taken a report that a tenant was erased.
    pub fn has_report(&self, tenant: TenantNumber) -> bool {
        self.reported.lock().unwrap().contains(&GroupReport::Erased(tenant))
    }

    /// Tells whether the directory has taken a report.
    pub fn has_taken(&self, report: &GroupReport) -> bool {
        self.reported.lock().unwrap().contains(report)
    }

    /// Changes the directory's record of a tenant.
    pub fn change<T>(&mut self, tenant: TenantNumber, change: impl FnOnce(&mut Tenant) -> T) -> T {
        let version = at(1 + self.directory.load(Ordering::Relaxed));
        let tenant = self.tenants.get_mut(&tenant).unwrap();
        let result = change(tenant);
        tenant.version = version;
        let changes = vec![DirectoryChange::Tenant(Box::new(tenant.clone()))];
        self.publish(changes);
        result
    }

    /// Removes the follower from the replica sets of some tenants.
    pub fn remove_follower(&mut self, tenants: &[TenantNumber]) {
        let mut changes = Vec::new();
        for tenant in tenants {
            let tenant = self.tenants.get_mut(tenant).unwrap();
            for member in tenant.members.iter_mut().filter(|member| member.group == FOLLOWER) {
                member.state = MemberState::Erasing;
            }
            changes.push(DirectoryChange::Tenant(Box::new(tenant.clone())));
        }
        self.publish(changes);
    }

    /// Creates many tenants at their home, with a follower, in one directory version.
    pub fn many_tenants(&mut self, numbers: std::ops::RangeInclusive<u64>) {
        let mut changes = Vec::new();
        for number in numbers.map(TenantNumber::new) {
            let tenant = tenant(number, true);
            changes.push(DirectoryChange::Tenant(Box::new(tenant.clone())));
            self.tenants.insert(number, tenant);
        }
        self.publish(changes);
    }

    /// Publishes a new version of the directory to every node.
    pub fn publish(&self, changes: Vec<DirectoryChange>) {
        let version = at(1 + self.directory.fetch_add(1, Ordering::Relaxed));
        for node in self.nodes.values() {
            node.directory_view.apply(false, changes.clone(), version);
        }
    }

    /// Creates a tenant at its home, with or without a follower.
    pub fn tenant(&mut self, number: u64, is_followed: bool) -> TenantNumber {
        let number = TenantNumber::new(number);
        let tenant = tenant(number, is_followed);
        self.publish(vec![DirectoryChange::Tenant(Box::new(tenant.clone()))]);
        self.tenants.insert(number, tenant);
        number
    }

    /// Sets or removes a tenant's own limits.
    pub fn limit(&mut self, tenant: TenantNumber, set: &[(TenantLimit, u64)]) {
        let mut limits = TenantLimits::default();
        for (limit, value) in set {
            limits.set(*limit, *value).unwrap();
        }
        let tenant = self.tenants.get_mut(&tenant).unwrap();
        let own = directory::OwnSettings {
            limits,
            ..directory::OwnSettings::default()
        };
        tenant.own = Some(Box::new(own)).filter(|own| !own.limits.is_empty());
        let changes = vec![DirectoryChange::Tenant(Box::new(tenant.clone()))];
        self.publish(changes);
    }

    /// Admits a tenant to the follower's region, or not, in the directory views of the home's nodes.
    pub fn set_admitted(&mut self, tenant: TenantNumber, is_admitted: bool) {
        let tenant = self.tenants.get_mut(&tenant).unwrap();
        let elsewhere: Box<[Jurisdiction]> = Box::new(["XX".parse().unwrap()]);
        tenant.residency = if is_admitted { Box::new([]) } else { elsewhere };
        let version = at(1 + self.directory.fetch_add(1, Ordering::Relaxed));
        for (id, node) in &self.nodes {
            let changes = if *id < 10 {
                vec![DirectoryChange::Tenant(Box::new(tenant.clone()))]
            } else {
                Vec::new()
            };
            node.directory_view.apply(false, changes, version);
        }
    }

    /// Waits for a group's leader.
    pub async fn leader(&self, group: GroupId) -> u64 {
        self.eventually("a leader", || {
            let mut of_group = self.nodes.iter().filter(|(_, node)| node.group.id() == group);
            of_group.find(|(_, node)| node.group.is_leader()).map(|(id, _)| *id)
        })
        .await
    }

    pub async fn leader_node(&self, group: GroupId) -> &Node {
        &self.nodes[&self.leader(group).await]
    }

    /// Breaks the connections between the leaders of the groups.
    pub async fn break_streams(&self) {
        let (home, follower) = (self.leader(HOME).await, self.leader(FOLLOWER).await);
        self.net.break_all(home, follower);
    }

    /// Puts a value at home, until it is acknowledged.
    pub async fn put(&mut self, tenant: TenantNumber, key: &str, value: &[u8]) -> Revision {
        let value = Bytes::copy_from_slice(value);
        self.write(tenant, key, Effect::put(value)).await
    }

    /// Writes at home, until it is acknowledged.
    pub async fn write(&mut self, tenant: TenantNumber, key: &str, effect: Effect) -> Revision {
        self.write_at(HOME, tenant, key, effect).await
    }

    /// Writes at the leader of a group, until it is acknowledged.
    pub async fn write_at(&mut self, group: GroupId, tenant: TenantNumber, key: &str, effect: Effect) -> Revision {
        let operation = Operation::new(key.to_owned(), effect);
        let command = Write::new(tenant, None, operation).encode();
        let writing = async {
            loop {
                let home = self.leader_node(group).await;
                let answers = home.group.propose(tenant.get(), vec![command.clone()]).await;
                let answer = answers.map(|mut answers| answers.remove(0));
                match answer {
                    Ok(ApplyResult::Write(WriteResult { revision, .. })) => return revision,
                    Ok(_) | Err(_) => sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let revision = timeout(PATIENCE, writing).await.expect("a write succeeds");
        self.acknowledged.push((Instant::now(), tenant, revision));
        revision
    }

    /// Waits until the follower's leader has a revision and a staleness bound of its copy.
    pub async fn wait_until_replicated(&self, tenant: TenantNumber, revision: Revision) {
        let what = format!("tenant {tenant} to reach {revision}");
        self.eventually(&what, || {
            let mut of_group = self.nodes.values().filter(|node| node.group.id() == FOLLOWER);
            let leader_node = of_group.find(|node| node.group.is_leader())?;
            let state = leader_node.state(tenant)?;
            let is_fresh = leader_node.tasks.freshness().staleness(tenant).is_some();
            (state.revision >= revision && is_fresh).then_some(())
        })
        .await;
    }

    /// Checks the invariants that hold at any time.
    pub async fn check(&self) {
        self.check_freshness();
        self.check_offsets().await;
    }

    /// Checks the staleness bounds: a copy has every write that was acknowledged before its bound.
    pub fn check_freshness(&self) {
        let now = Instant::now();
        for node in self.nodes.values().filter(|node| node.group.id() == FOLLOWER) {
            for tenant in self.tenants.keys() {
                let Some(staleness) = node.tasks.freshness().staleness(*tenant) else {
                    continue;
                };
                let held = node.state(*tenant).map_or(Revision::ZERO, |state| state.revision);
                let before = |(at, of, _): &&(Instant, TenantNumber, Revision)| of == tenant && *at + staleness < now;
                let due = self.acknowledged.iter().filter(before).map(|(.., revision)| *revision);
                let due = due.max().unwrap_or(Revision::ZERO);
                assert!(
                    due <= held,
                    "tenant {tenant} is at {held}, {due} is older than {staleness:?}"
                );
            }
        }
    }

    /// Checks that offsets cover only data that is there: of a tenant that is attached, in the follower's log or
    /// according to its acknowledgements at the home, nothing is missing up to the offset.
    async fn check_offsets(&self) {
        for home in self.nodes.values().filter(|node| node.group.id() == HOME) {
            let entries = home.machine.read(|held| held.feed(0, usize::MAX)).unwrap().unwrap();
            let last = |tenant: TenantNumber, offset: FeedOffset| {
                let until = entries.iter().take_while(|(index, _)| *index <= offset.index);
                let touched = until.flat_map(|(_, entry)| &entry.touched);
                touched
                    .filter(|touched| touched.tenant == tenant)
                    .map(TouchedTenant::revision)
                    .last()
            };
            let progress = home.tasks.acknowledgements().of(FOLLOWER);
            for node in self.nodes.values().filter(|node| node.group.id() == FOLLOWER) {
                // Other nodes, and a new leader for a moment, may be behind what a leader has acknowledged.
                let has_all = node.group.is_leader() && node.group.read_index().await.is_ok();
                let offset = node.offset();
                for tenant in self.tenants.keys().copied() {
                    let Some(record) = node.record(tenant) else { continue };
                    let is_attached = node.machine.read(|held| held.shard().is_attached(&record)).unwrap();
                    if is_attached && offset.index <= entries.last().map_or(0, |(index, _)| *index) {
                        let due = last(tenant, offset).unwrap_or_default();
                        assert!(due <= record.live.revision, "{tenant} lacks {due} at {offset:?}");
                    }
                    if let Some(progress) = progress.as_ref().filter(|progress| has_all && progress.covers(tenant)) {
                        let due = last(tenant, progress.offset).unwrap_or_default();
                        let has = record.live.revision;
                        assert!(due <= has, "{tenant}: {due} was acknowledged, the copy has {has}");
                    }
                }
            }
        }
    }

    /// Checks that the follower's copy is the home's.
    pub async fn check_equal(&self, tenant: TenantNumber) {
        let home = self.leader_node(HOME).await.state(tenant).unwrap();
        let copy = self.leader_node(FOLLOWER).await.state(tenant).unwrap();
        assert_eq!((copy.revision, copy.digests), (home.revision, home.digests), "{tenant}");
    }

    /// Waits for a condition.
    pub async fn eventually<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let waiting = async {
            loop {
                if let Some(found) = condition() {
                    return found;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("timed out waiting for {what}"))
    }
}

/// Arguments of a node's start.
pub struct NodeSetup {
    pub group: GroupId,
    pub id: u64,
    /// Voters of its group.
    pub voters: Vec<u64>,
    pub limits: RetentionLimits,
    pub seeds: SeedLimits,
    pub directory: DirectoryAccess,
    pub lease_left: LeaseLeft,
    pub room: RoomCheck,
}

impl Node {
    /// Starts a node with one group.
    pub async fn start(net: &MemoryNetwork, setup: NodeSetup) -> Self {
        let NodeSetup { group, id, voters, .. } = setup;
        let started = Instant::now();
        let clocks = Clocks {
            wall: Arc::new(move || 1_000_000 + started.elapsed().as_millis() as u64),
            boot: Arc::new(move || started.elapsed()),
        };
        let wall = clocks.wall.clone();
        let node = stead_raft::Node::new(Config {
            node: NodeId::new(id),
            log: log::Disk::default().open(),
            connect: net.connect(id),
            resolve: Arc::new(|node| Some(MemoryNetwork::address(node.get()))),
            clocks,
            blocking: BlockingMode::Inline,
            spool: None,
            copies: Arc::new(CopyBandwidth::new(setup.seeds.bytes_per_second_max)),
            limits: stead_raft::LogLimits::default(),
            may_rebuild: Arc::new(|| true),
            may_send: Arc::new(|_, _, _| true),
        });
        let directory_view = SharedDirectoryView::new(DirectoryView::default());
        let epochs_seen = EpochsSeen::default();
        let replication = Replication::new(Dependencies {
            directory_view: directory_view.clone(),
            connect: net.connect(id),
            directory: setup.directory,
            limits: setup.limits,
            seeds: setup.seeds,
            alarms: node.alarms(),
            lease_left: setup.lease_left,
            epochs_seen: epochs_seen.clone(),
            wall,
            room: setup.room,
            sent: Arc::new(SentLog::in_memory(NodeId::new(id), 1)),
        });
        let incoming = UnboundedReceiverStream::new(net.listen(id)).map(Ok::<_, std::io::Error>);
        let server = tonic::transport::Server::builder().add_service(node.service());
        let server = server.add_service(replication.service());
        tokio::spawn(server.serve_with_incoming(incoming));
        let background = Arc::new(Background::inline());
        let machine = Arc::new(ShardMachine::open(rows::Disk::default().open(), background, group).unwrap());
        let config = GroupConfig {
            group,
            incarnation: Incarnation::FIRST,
            voters: voters.into_iter().map(NodeId::new).collect(),
            timing: Timing::Region,
        };
        let group = node.create_group(config, machine.clone()).await.unwrap();
        let tasks = replication.group(group.clone(), machine.clone());
        tokio::spawn(tasks.clone().run(CancellationToken::new()));
        Self {
            group,
            machine,
            tasks,
            alarms: node.alarms(),
            directory_view,
            epochs_seen,
        }
    }

    pub fn record(&self, tenant: TenantNumber) -> Option<TenantRecord> {
        self.machine.read(|held| held.record(tenant).cloned()).unwrap()
    }

    pub fn state(&self, tenant: TenantNumber) -> Option<CopyState> {
        self.record(tenant).map(|record| record.live)
    }

    /// Returns the offset of the home's stream in its group's log.
    pub fn offset(&self) -> FeedOffset {
        self.machine.read(|held| held.shard().stream(HOME)).unwrap()
    }
}

fn at(index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index,
    }
}

struct TestGroup {
    id: GroupId,
    region: &'static str,
    voters: Vec<u64>,
}

/// Returns the directory entries of a group, its region and its nodes.
fn entries(group: &TestGroup) -> Vec<DirectoryChange> {
    let name: stead_types::RegionName = group.region.parse().unwrap();
    let mut entries = vec![
        DirectoryChange::Region(Region::new(name.clone(), "EU".parse().unwrap())),
        DirectoryChange::Group(directory::Group {
            number: group.id,
            region: Some(name.clone()),
            voters: group.voters.iter().copied().map(NodeId::new).collect(),
            incarnation: Incarnation::FIRST,
            change: None,
        }),
    ];
    entries.extend(group.voters.iter().map(|id| {
        let peer = MemoryNetwork::address(*id);
        DirectoryChange::Node(directory::Node {
            number: NodeId::new(*id),
            name: format!("node-{id}"),
            region: name.clone(),
            addresses: Addresses {
                peer,
                ..Addresses::default()
            },
            witness: false,
            token: 0,
        })
    }));
    entries
}

fn tenant(number: TenantNumber, is_followed: bool) -> Tenant {
    let members = [HOME, FOLLOWER].map(ReplicaSetMember::staying);
    let name = format!("tenant-{}", number.get()).parse().unwrap();
    Tenant {
        members: members[..1 + usize::from(is_followed)].into(),
        ..Tenant::new(number, name, HOME)
    }
}
