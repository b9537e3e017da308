//! Directory of the table: the real state machine without a group of its own, whose answers and changes can be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stead_replication::{DirectoryAccess, SharedDirectoryView};
use stead_state::directory::{
    Addresses, AuditContext, Command, Directory, DirectoryChange, DirectoryOutcome, Followers, InitialCluster,
    InitialNode, MoveRequest, MoveTarget, NewTenant, OperationResult, Rejection, SourceAfterMove, Tenant,
};
use stead_state::shard::record::LeaseLossPolicy;
use stead_testing::MemoryNetwork;
use stead_types::{Durability, GroupId, NodeId, TenantLimits, TenantNumber};
use tokio::time::{Instant, sleep};

use super::world::{NAME, NODES_PER_REGION, REGIONS};

/// One-way delay between a node and the directory's leader.
const DELAY: Duration = Duration::from_millis(10);
/// Interval at which a request looks whether the directory can be reached again.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The directory. Clones share it.
#[derive(Clone)]
pub struct TestDirectory(Arc<Mutex<Inner>>);

struct Inner {
    directory: Directory,
    index: u64,
    started: Instant,
    views: BTreeMap<u64, NodeView>,
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
    /// Returns the directory of two regions of three nodes, at the feature level that has moves.
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
            is_down: false,
            loses_next_answer: false,
            cut: BTreeSet::new(),
        })));
        this.propose(Command::Bootstrap(initial)).unwrap();
        let all = nodes.map(NodeId::new).collect();
        this.propose(Command::RaiseFeatureLevel(AuditContext::default(), 2, all))
            .unwrap();
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

    /// Tells whether a node has a lease: one that is cut off has lost it.
    pub fn grants(&self, node: u64) -> bool {
        !self.0.lock().unwrap().cut.contains(&node)
    }

    /// Creates the tenant, with or without a follower elsewhere.
    pub fn create(&self, is_followed: bool) -> TenantNumber {
        let tenant = NewTenant {
            name: NAME.parse().unwrap(),
            home: REGIONS[0].parse().unwrap(),
            followers: if is_followed {
                Followers::AllAdmitted
            } else {
                Followers::Named(Box::new([]))
            },
            residency: Vec::new(),
            durability: Durability::Region,
            on_lease_loss: LeaseLossPolicy::Stop,
            labels: BTreeMap::new(),
            limits: TenantLimits::default(),
        };
        self.propose(Command::CreateTenant(AuditContext::default(), tenant))
            .unwrap();
        self.tenant().number
    }

    /// Begins a move to a region; returns its operation.
    pub fn begin_move(&self, region: &str) -> u64 {
        let request = MoveRequest {
            name: NAME.parse().unwrap(),
            etag: None,
            to: MoveTarget::Region(region.parse().unwrap()),
            source: SourceAfterMove::Policy,
            unreachable: Vec::new(),
        };
        let begun = self.propose(Command::MoveTenant(AuditContext::default(), request));
        let Ok(DirectoryOutcome::Operation(operation)) = begun else {
            panic!("the move does not begin: {begun:?}")
        };
        operation
    }

    /// Asks for a move to be given up. One that has succeeded already cannot be.
    pub fn abort(&self, operation: u64) {
        let asked = self.propose(Command::AbortMove(AuditContext::default(), operation));
        assert!(
            matches!(asked, Ok(_) | Err(Rejection::OperationSucceeded(_))),
            "{asked:?}"
        );
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

    /// Takes its leader away, or gives it another one.
    pub fn set_down(&self, is_down: bool) {
        let mut inner = self.0.lock().unwrap();
        inner.is_down = is_down;
        inner.loses_next_answer = false;
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

    fn propose(&self, command: Command) -> Result<DirectoryOutcome, Rejection> {
        self.0.lock().unwrap().apply(command)
    }

    /// Sends something to it: waits until it arrives.
    async fn reach(&self, node: u64) {
        sleep(DELAY).await;
        while !self.0.lock().unwrap().is_reachable(node) {
            sleep(LOOK_INTERVAL).await;
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

    fn apply(&mut self, command: Command) -> Result<DirectoryOutcome, Rejection> {
        self.index += 1;
        self.directory.reach(self.index);
        let time = 1_000_000 + self.started.elapsed().as_millis() as u64;
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
}

/// Returns the group of a region.
pub fn group_of(region: &str) -> GroupId {
    let at = REGIONS.iter().position(|name| *name == region).unwrap();
    GroupId::new(at as u32 + 1)
}
