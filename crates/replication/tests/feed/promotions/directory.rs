//! Directory of the promotions' tests: the real state machine and the real grantor of leases, with a leader that does what
//! promotions in flight need, and that can be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stead_replication::{DirectoryAccess, SharedDirectoryView};
use stead_state::directory::{
    Addresses, AuditContext, Command, Directory, DirectoryChange, DirectoryOutcome, FEATURE_LEVEL_MAX, Followers,
    InitialCluster, InitialNode, NewTenant, OperationResult, PromotionAdvance, PromotionItem, PromotionRequest,
    Rejection, Tenant, TenantUpdate,
};
use stead_state::lease::grantor::{DirectoryReading, LeaseGrantor};
use stead_state::lease::waiter::{FenceWait, WaitState};
use stead_state::lease::{AttemptNumber, Renewal};
use stead_state::serving::{BootTime, Lease};
use stead_state::shard::record::LeaseLossPolicy;
use stead_testing::MemoryNetwork;
use stead_types::{DirectoryVersion, Durability, GroupId, NodeId, TenantLimits, TenantNumber};
use tokio::time::{Instant, sleep};

use super::world::{NAME, NODES_PER_REGION, REGIONS};

/// One-way delay between a node and the directory's leader.
const DELAY: Duration = Duration::from_millis(10);
/// Interval at which a request looks whether the directory can be reached again, and the leader at promotions.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Time after which a group whose reports are due counts as silent.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// Interval of renewals: a quarter of the ttl.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(15);
/// Time that the directory's next leader takes to lead.
const ELECTION: Duration = Duration::from_secs(3);

/// The directory. Clones share it.
#[derive(Clone)]
pub struct TestDirectory(Arc<Mutex<Inner>>);

struct Inner {
    directory: Directory,
    index: u64,
    started: Instant,
    views: BTreeMap<u64, NodeView>,
    grantor: LeaseGrantor,
    term: u64,
    leases: BTreeMap<u64, Lease>,
    wait: Option<(DirectoryVersion, FenceWait)>,
    /// Since when a group's reports are due.
    due: BTreeMap<GroupId, Instant>,
    /// Whether it has no leader.
    is_down: bool,
    /// Whether the leader is lost with the next answer: the command is applied, and nobody is told.
    loses_next_answer: bool,
    /// Nodes that it cannot reach.
    cut: BTreeSet<u64>,
}

/// View of a node, with the changes that have not reached it.
struct NodeView {
    view: SharedDirectoryView,
    waiting: Vec<DirectoryChange>,
}

impl TestDirectory {
    /// Returns the directory of all regions, at the highest feature level, with its leader at work.
    pub fn new() -> Self {
        let node = |number: u64| InitialNode {
            name: format!("node-{number}"),
            region: REGIONS[((number - 1) / NODES_PER_REGION) as usize].parse().unwrap(),
            addresses: Addresses {
                peer: MemoryNetwork::address(number),
                ..Addresses::default()
            },
            witness: false,
        };
        let nodes = 1..=REGIONS.len() as u64 * NODES_PER_REGION;
        let initial = InitialCluster {
            cluster: "test".to_owned(),
            regions: REGIONS
                .map(|name| (name.parse().unwrap(), "EU".parse().unwrap()))
                .to_vec(),
            nodes: nodes.clone().map(node).collect(),
            groups_per_region: 1,
        };
        let this = Self(Arc::new(Mutex::new(Inner {
            directory: Directory::default(),
            index: 0,
            started: Instant::now(),
            views: BTreeMap::new(),
            grantor: LeaseGrantor::default(),
            term: 1,
            leases: BTreeMap::new(),
            wait: None,
            due: BTreeMap::new(),
            is_down: false,
            loses_next_answer: false,
            cut: BTreeSet::new(),
        })));
        this.propose(Command::Bootstrap(initial)).unwrap();
        let all: Vec<_> = nodes.clone().map(NodeId::new).collect();
        this.propose(Command::RaiseFeatureLevel(
            AuditContext::default(),
            FEATURE_LEVEL_MAX,
            all,
        ))
        .unwrap();
        tokio::spawn(this.clone().lead());
        for node in nodes {
            tokio::spawn(this.clone().renew(node));
        }
        this
    }

    /// Returns a node's access to it.
    pub fn access(&self, node: u64) -> DirectoryAccess {
        let (reading, submitting) = (self.clone(), self.clone());
        DirectoryAccess {
            read_version: Arc::new(move || {
                let this = reading.clone();
                Box::pin(async move {
                    this.reach(node).await;
                    let version = this.0.lock().unwrap().directory.view().version();
                    sleep(DELAY).await;
                    Some(version)
                })
            }),
            submit: Arc::new(move |command| {
                let this = submitting.clone();
                Box::pin(async move {
                    this.reach(node).await;
                    let is_taken = this.propose(command).is_ok();
                    let is_lost = this.0.lock().unwrap().lose_answer();
                    if is_lost {
                        std::future::pending::<()>().await;
                    }
                    this.reach(node).await;
                    is_taken
                })
            }),
        }
    }

    /// Adds the view of a node, which gets everything at once.
    pub fn add_view(&self, node: u64, view: SharedDirectoryView) {
        let mut inner = self.0.lock().unwrap();
        let all = inner.directory.view();
        view.apply(true, all.as_changes().collect(), all.version());
        let waiting = Vec::new();
        inner.views.insert(node, NodeView { view, waiting });
    }

    /// Returns a node's lease.
    pub fn lease(&self, node: u64) -> Lease {
        let inner = self.0.lock().unwrap();
        inner.leases.get(&node).copied().unwrap_or(Lease::Absent)
    }

    /// Returns how long a node's lease lasts.
    pub fn lease_left(&self, node: u64) -> Option<Duration> {
        let Lease::Until { expiry, .. } = self.lease(node) else {
            return None;
        };
        Some(expiry.since(now())).filter(|left| !left.is_zero())
    }

    /// Creates the tenant, followed in every other region.
    pub fn create(&self, durability: Durability) -> TenantNumber {
        let tenant = NewTenant {
            name: NAME.parse().unwrap(),
            home: REGIONS[0].parse().unwrap(),
            followers: Followers::AllAdmitted,
            residency: Vec::new(),
            durability,
            on_lease_loss: LeaseLossPolicy::Stop,
            labels: BTreeMap::new(),
            limits: TenantLimits::default(),
        };
        self.propose(Command::CreateTenant(AuditContext::default(), tenant))
            .unwrap();
        self.tenant().number
    }

    /// Lets only these regions follow the tenant.
    pub fn set_followers(&self, regions: &[&str]) {
        let name = self.tenant().name;
        let update = TenantUpdate {
            followers: Some(Followers::Named(
                regions.iter().map(|name| name.parse().unwrap()).collect(),
            )),
            ..TenantUpdate::new(name, None)
        };
        self.propose(Command::UpdateTenant(AuditContext::default(), update))
            .unwrap();
    }

    /// Begins a promotion; returns its operation.
    pub fn begin_promotion(&self, request: PromotionRequest) -> u64 {
        let begun = self.propose(Command::BeginPromotion(AuditContext::default(), request));
        let Ok(DirectoryOutcome::Operation(operation)) = begun else {
            panic!("the promotion does not begin: {begun:?}")
        };
        operation
    }

    /// Returns the directory's record of the tenant.
    pub fn tenant(&self) -> Tenant {
        let inner = self.0.lock().unwrap();
        let mut tenants = inner.directory.view().tenants_from(TenantNumber::new(0));
        Tenant::clone(tenants.next().unwrap())
    }

    /// Returns how an operation has ended.
    pub fn result(&self, operation: u64) -> Option<OperationResult> {
        let inner = self.0.lock().unwrap();
        let end = inner.directory.operations().get(operation).unwrap().end.clone();
        end.map(|end| end.result)
    }

    /// Returns what a promotion has noted of the tenant.
    pub fn item(&self, operation: u64) -> PromotionItem {
        let inner = self.0.lock().unwrap();
        let mut items = inner
            .directory
            .operations()
            .promotions()
            .from(operation, TenantNumber::new(0));
        items.next().unwrap().1.clone()
    }

    /// Returns the wall clock of nodes and directory at an instant.
    pub fn wall_at(&self, at: Instant) -> u64 {
        let started = self.0.lock().unwrap().started;
        1_000_000 + at.duration_since(started).as_millis() as u64
    }

    /// Takes its leader away; the next one leads a little later.
    pub async fn change_leader(&self) {
        self.0.lock().unwrap().is_down = true;
        sleep(ELECTION).await;
        let mut inner = self.0.lock().unwrap();
        inner.term += 1;
        inner.is_down = false;
        inner.loses_next_answer = false;
        inner.due.clear();
        inner.deliver();
    }

    /// Loses its leader with the next report, which is applied.
    pub fn lose_with_next_answer(&self) {
        self.0.lock().unwrap().loses_next_answer = true;
    }

    /// Cuts nodes off from it, or connects them again.
    pub fn set_cut(&self, nodes: impl Iterator<Item = u64>, is_cut: bool) {
        let mut inner = self.0.lock().unwrap();
        for node in nodes {
            if is_cut {
                inner.cut.insert(node);
            } else {
                inner.cut.remove(&node);
            }
        }
        inner.deliver();
    }

    pub fn propose(&self, command: Command) -> Result<DirectoryOutcome, Rejection> {
        self.0.lock().unwrap().apply(command)
    }

    /// Sends something to it: waits until it arrives.
    async fn reach(&self, node: u64) {
        sleep(DELAY).await;
        while !self.0.lock().unwrap().is_reachable(node) {
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Renews the lease of a node, for all groups: each node votes in one.
    async fn renew(self, node: u64) {
        for attempt in 0.. {
            let asked = now();
            self.reach(node).await;
            let granted = self.0.lock().unwrap().grant(node, attempt);
            if let Some((version, ttl)) = granted {
                self.reach(node).await;
                let expiry = asked.after(ttl);
                self.0
                    .lock()
                    .unwrap()
                    .leases
                    .insert(node, Lease::Until { expiry, version });
                sleep(RENEWAL_INTERVAL).await;
            } else {
                sleep(LOOK_INTERVAL).await;
            }
        }
    }

    /// Does what the directory's leader does for promotions.
    async fn lead(self) {
        loop {
            sleep(LOOK_INTERVAL).await;
            let mut inner = self.0.lock().unwrap();
            while !inner.is_down
                && let Some((operation, action)) = inner.due_advance()
            {
                let advance = Command::AdvancePromotion { operation, action };
                inner.apply(advance).unwrap();
            }
        }
    }
}

impl Inner {
    fn is_reachable(&self, node: u64) -> bool {
        !self.is_down && !self.cut.contains(&node)
    }

    fn lose_answer(&mut self) -> bool {
        self.is_down |= self.loses_next_answer;
        std::mem::take(&mut self.loses_next_answer)
    }

    fn logged_time(&self) -> u64 {
        1_000_000 + self.started.elapsed().as_millis() as u64
    }

    fn apply(&mut self, command: Command) -> Result<DirectoryOutcome, Rejection> {
        self.index += 1;
        self.directory.reach(self.index);
        let time = self.logged_time();
        let output = self.directory.apply(time, command);
        for view in self.views.values_mut() {
            view.waiting.extend(output.changes.iter().cloned());
        }
        if !self.loses_next_answer {
            self.deliver();
        }
        output.result
    }

    /// Brings every change to the nodes that it can reach.
    fn deliver(&mut self) {
        let version = self.directory.view().version();
        let reached: Vec<u64> = self
            .views
            .keys()
            .copied()
            .filter(|node| self.is_reachable(*node))
            .collect();
        for node in reached {
            let known = self.views.get_mut(&node).unwrap();
            known.view.apply(false, std::mem::take(&mut known.waiting), version);
        }
    }

    fn grant(&mut self, node: u64, attempt: u64) -> Option<(DirectoryVersion, Duration)> {
        let group = GroupId::new(1 + ((node - 1) / NODES_PER_REGION) as u32);
        let version = self.directory.view().version();
        let reading = DirectoryReading {
            version,
            ttl: Duration::from_millis(self.directory.view().settings().lease_ttl_ms),
            fences: None,
        };
        let renewal = Renewal {
            attempt: AttemptNumber(attempt),
            view: DirectoryVersion::ZERO,
            groups: [group].into(),
        };
        self.grantor.lead(now(), self.term);
        let answer = self.grantor.grant(now(), self.term, &renewal, reading).ok()?;
        Some((answer.version, answer.ttl))
    }

    /// Returns what promotions in flight need now.
    fn due_advance(&mut self) -> Option<(u64, PromotionAdvance)> {
        let all: Vec<_> = self.directory.promotions_in_flight().collect();
        self.grantor.lead(now(), self.term);
        for needs in all {
            if let Some(fence) = &needs.fence {
                let known = self.wait.filter(|(version, _)| *version == fence.version);
                let state = known.map(|(_, wait)| self.grantor.wait_state(now(), &wait));
                match state {
                    Some(WaitState::Over) => {
                        let fence = fence.version;
                        return Some((needs.operation, PromotionAdvance::WaitOver { fence }));
                    }
                    Some(WaitState::Left(_)) => {}
                    Some(WaitState::Void) | None => {
                        let wait = self.grantor.begin_wait(now(), fence).unwrap();
                        self.wait = Some((fence.version, wait));
                    }
                }
            }
            self.due.retain(|group, _| needs.due.contains_key(group));
            for group in needs.due.keys() {
                self.due.entry(*group).or_insert_with(Instant::now);
            }
            let late = self.due.iter().filter(|(_, since)| since.elapsed() >= SILENT_AFTER);
            let silent: Vec<GroupId> = late.map(|(group, _)| *group).collect();
            if needs.examines || !silent.iter().eq(needs.silent.iter()) {
                return Some((needs.operation, PromotionAdvance::Silent(silent)));
            }
        }
        None
    }
}

/// Returns the boot clock, which all nodes share.
pub fn now() -> BootTime {
    thread_local! {
        static ORIGIN: std::cell::OnceCell<Instant> = const { std::cell::OnceCell::new() };
    }
    BootTime::new(ORIGIN.with(|origin| origin.get_or_init(Instant::now).elapsed()))
}
