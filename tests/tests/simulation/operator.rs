//! Operator of a run: creates tenants, starts the load, injects faults, ends them, and checks that all moves have ended
//! and all replicas are equal again.

use std::{collections::VecDeque, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use stead_client::{
    Admin, Client, Config, Consistency, Durability, Followers, Header, Item, NewTenant, ReadOptions, ScanOptions,
};
use stead_tests::history::{Level, Recorder};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    cluster::{self, ActionQueue, ClusterAction, NODES, NODES_PER_REGION, NodeIndex, REGIONS},
    faults::{self, FaultInjector, FaultRepair, pause},
    freshness::FreshnessChecker,
    leases::{LEASE_TTL, LeaseChecker},
    ledger::CounterLedger,
    load::{self, FEW_FOLLOWERS, Phase, REMOTE_TENANT, TENANTS, TenantSession},
    moves, network,
};

/// Longest time for the cluster to start, and for replicas to converge after the last fault.
const START_MAX: Duration = Duration::from_secs(20);
const CONVERGE_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// Lease ttl of a new cluster.
const FIRST_LEASE_TTL: Duration = Duration::from_secs(60);
/// Most faults at one time.
const FAULTS_AT_ONCE_MAX: usize = 2;
/// First session of the operator, after those of the load.
const LAST_SESSION: u32 = 1_000;

/// Client that drives a run.
pub(crate) struct Operator {
    pub(crate) seed: u64,
    pub(crate) recorder: Recorder,
    pub(crate) freshness: FreshnessChecker,
    pub(crate) leases: LeaseChecker,
    pub(crate) ledger: CounterLedger,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) actions: ActionQueue,
}

impl Operator {
    pub(crate) async fn run(self) -> turmoil::Result {
        let mut random = StdRng::seed_from_u64(self.seed);
        let client = Client::lazy(load::config(0, self.seed))?;
        let admin = client.admin();
        let plan = faults::plan(&mut random);
        if plan.iter().any(|fault| fault.outlasts_leases()) {
            moves::prepare_directory(LEASE_TTL).await;
            // Leases of the first ttl run on otherwise.
            (0..NODES).for_each(|node| self.actions.push(ClusterAction::Restart(node)));
            sleep(PAUSE).await;
        } else {
            moves::prepare_directory(FIRST_LEASE_TTL).await;
        }
        let groups = create_tenants(&admin).await;
        self.phase.send_replace(Phase::Working);
        let injector = FaultInjector {
            admin: &admin,
            groups: &groups,
            actions: &self.actions,
            leases: &self.leases,
        };
        let mut open: VecDeque<FaultRepair> = VecDeque::new();
        for fault in plan {
            pause(&mut random, 400..1_800).await;
            // In half of the cases a fault begins while another one is still there.
            let together = if random.random() { FAULTS_AT_ONCE_MAX } else { 1 };
            while open.len() >= together {
                let repair = open.pop_front().unwrap_or_default();
                injector.repair(repair).await;
                pause(&mut random, 0..1_000).await;
            }
            open.push_back(injector.inject(fault, &mut random).await);
        }
        pause(&mut random, 1_000..3_000).await;
        for repair in open {
            injector.repair(repair).await;
        }
        self.actions.push(ClusterAction::HealAll);
        injector.clear_residency().await;
        pause(&mut random, 1_500..2_500).await;
        self.phase.send_replace(Phase::Ending);
        moves::wait_until_ended(&admin).await;
        self.converge(&admin).await;
        self.read_all().await;
        for (tenant, _) in TENANTS {
            self.ledger.check(&client, tenant).await;
        }
        moves::check_homes(&client).await;
        Ok(())
    }

    /// Waits until the replicas of each tenant are equal: the revision, and every key with both revisions and version.
    async fn converge(&self, admin: &Admin) {
        let nodes: Vec<(NodeIndex, Client)> = (0..NODES).map(|index| (index, at(index))).collect();
        let until = Instant::now() + CONVERGE_MAX;
        for (tenant, _) in TENANTS {
            let replicas = admin.tenant(tenant).await.unwrap().replicas;
            let has_replica = |index: NodeIndex| {
                let (region, _) = REGIONS[index / NODES_PER_REGION];
                replicas.iter().any(|replica| replica.region == region)
            };
            loop {
                // A node that has lost its disk may find that out only now.
                let living = nodes.iter().filter(|(index, _)| !self.actions.is_lost(*index));
                let living: Vec<_> = living.filter(|(index, _)| has_replica(*index)).collect();
                let states = futures::future::join_all(living.iter().map(|(_, node)| state(node, tenant))).await;
                let differ = states.iter().any(|state| state.is_none() || *state != states[0]);
                if !differ {
                    tracing::info!(tenant, state = ?states[0], "all replicas are equal");
                    break;
                }
                if Instant::now() > until {
                    let indexes = living.iter().map(|(index, _)| *index);
                    panic!("replicas of {tenant} differ: {}", differences(indexes.zip(&states)));
                }
                sleep(PAUSE).await;
            }
        }
    }

    /// Reads everything from each region, linearizably, as the end of the histories.
    async fn read_all(&self) {
        for region in 0..REGIONS.len() {
            let session = LAST_SESSION + region as u32;
            let client = Client::lazy(load::config(region, self.seed + u64::from(session))).unwrap();
            for (tenant, _) in TENANTS {
                let session = TenantSession {
                    recorder: &self.recorder,
                    freshness: &self.freshness,
                    leases: &self.leases,
                    session,
                    tenant: &client.tenant(tenant).unwrap(),
                    within: load::CALL_MAX[1],
                };
                session.scan("", Level::Linearizable).await;
            }
        }
    }
}

/// Creates the tenants and returns their home groups.
pub(crate) async fn create_tenants(admin: &Admin) -> Vec<u32> {
    let until = Instant::now() + START_MAX;
    let mut groups = Vec::new();
    for (name, home) in TENANTS {
        let made = loop {
            let new = NewTenant {
                name: name.to_owned(),
                home_region: REGIONS[home].0.to_owned(),
                followers: followers(name),
                durability: (name == REMOTE_TENANT).then_some(Durability::Remote),
                ..NewTenant::default()
            };
            match admin.create_tenant(new).await {
                Ok(made) => break made,
                Err(error) => {
                    assert!(Instant::now() < until, "{name} could not be created: {error}");
                    tracing::info!(name, %error, "not created yet");
                }
            }
            // It may have been created by an attempt of unknown outcome.
            if let Ok(made) = admin.tenant(name).await {
                break made;
            }
            sleep(PAUSE).await;
        };
        assert_eq!(made.home_region, REGIONS[home].0);
        groups.push(made.home_group);
    }
    groups
}

fn followers(tenant: &str) -> Followers {
    let (few, region) = FEW_FOLLOWERS;
    if tenant == few {
        Followers::Regions(vec![REGIONS[region].0.to_owned()])
    } else {
        Followers::AllAdmitted
    }
}

/// Returns a client that reaches only one node, whatever address it dials.
fn at(index: NodeIndex) -> Client {
    let config = Config {
        connect: network::connect_to(cluster::client_address(index)),
        nearest_only: true,
        ..load::config(index / NODES_PER_REGION, index as u64)
    };
    Client::lazy(config).unwrap()
}

/// Node's copy of a tenant: its revision and items; `None` if the node does not answer.
type State = Option<(stead_client::Revision, Vec<Item>)>;

/// Describes in one line how nodes differ: each one's revision, and its first key that differs from the first node's.
fn differences<'a>(states: impl Iterator<Item = (NodeIndex, &'a State)>) -> String {
    let (mut text, mut first) = (String::new(), None);
    for (index, state) in states {
        let Some((revision, items)) = state else {
            text.push_str(&format!("{} does not answer; ", cluster::host(index)));
            continue;
        };
        text.push_str(&format!(
            "{} {revision} with {} keys",
            cluster::host(index),
            items.len()
        ));
        let expected: &Vec<Item> = first.get_or_insert(items);
        if let Some((one, other)) = expected.iter().zip(items).find(|(one, other)| one != other) {
            text.push_str(&format!(" {:?} for {:?}", brief(other), brief(one)));
        }
        text.push_str("; ");
    }
    text
}

fn brief(item: &Item) -> (&[u8], &[u8], stead_client::Revision) {
    (&item.key, &item.value[..item.value.len().min(16)], item.modified)
}

async fn state(node: &Client, tenant: &str) -> State {
    let scan = ScanOptions {
        read: ReadOptions::at(Consistency::Local),
        ..ScanOptions::default()
    };
    let page = node.tenant(tenant).unwrap().scan(&scan).await.ok()?;
    let Header {
        revision, forwarded, ..
    } = page.header;
    (!forwarded).then_some((revision, page.items))
}
