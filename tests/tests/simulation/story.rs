//! What happens in a run, told by its operator: tenants, load, a leader struck, a region struck, peace, and the proof
//! that all replicas are equal again.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use stead_client::{Admin, Client, Config, Consistency, Header, Item, NewTenant, Read, Scan};
use stead_tests::history::{Level, Recorder};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    cluster::{self, NODES_PER_REGION, Order, Orders, Place, REGIONS},
    freshness::Freshness,
    ledger::Ledger,
    load::{self, Phase, Session, TENANTS},
    network,
};

/// How long the cluster may take to begin, and to become equal after the last fault.
const START_MAX: Duration = Duration::from_secs(20);
const CONVERGE_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// Sessions of the operator, behind those of the load.
const LAST_SESSION: u32 = 1_000;

/// Who tells the story.
pub(crate) struct Operator {
    pub(crate) seed: u64,
    pub(crate) recorder: Recorder,
    pub(crate) freshness: Freshness,
    pub(crate) ledger: Ledger,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) orders: Orders,
}

impl Operator {
    pub(crate) async fn run(self) -> turmoil::Result {
        let mut random = StdRng::seed_from_u64(self.seed);
        let client = Client::lazy(load::config(0, self.seed))?;
        let groups = create_tenants(&client.admin()).await;
        self.phase.send_replace(Phase::Working);
        pause(&mut random, 1_000..2_500).await;
        let group = groups[random.random_range(0..groups.len())];
        let leader = leader(&client.admin(), group).await;
        let cure = self.strike_leader(leader, &mut random).await;
        pause(&mut random, 1_000..4_000).await;
        // In half of the runs a region is struck while that node is still away.
        let early = random.random();
        if early {
            self.orders.give(cure);
            pause(&mut random, 0..1_500).await;
        }
        let cures = self.strike_region(&mut random).await;
        pause(&mut random, 3_000..6_000).await;
        if !early {
            self.orders.give(cure);
            pause(&mut random, 0..500).await;
        }
        cures.into_iter().for_each(|cure| self.orders.give(cure));
        pause(&mut random, 2_000..3_000).await;
        self.phase.send_replace(Phase::Ending);
        self.converge().await;
        self.read_all().await;
        for (tenant, _) in TENANTS {
            self.ledger.check(&client, tenant).await;
        }
        Ok(())
    }

    /// Lets something happen to the node that leads a group. Returns what ends it.
    async fn strike_leader(&self, leader: Place, random: &mut StdRng) -> Order {
        if random.random() {
            self.orders.give(Order::Isolate(leader));
            return Order::Join(leader);
        }
        self.orders.give(Order::Stall(leader));
        pause(random, 10..300).await;
        let silent = random.random();
        self.orders.give(if silent {
            Order::Silence(leader)
        } else {
            Order::PowerLoss(leader)
        });
        Order::Restart(leader)
    }

    /// Lets something happen to a region. Returns what ends it.
    async fn strike_region(&self, random: &mut StdRng) -> Vec<Order> {
        let region = random.random_range(0..REGIONS.len());
        let nodes = || (region * NODES_PER_REGION..).take(NODES_PER_REGION);
        match random.random_range(0..3) {
            0 => {
                nodes().for_each(|node| self.orders.give(Order::Stall(node)));
                pause(random, 100..500).await;
                nodes().for_each(|node| self.orders.give(Order::PowerLoss(node)));
                nodes().map(Order::Restart).collect()
            }
            1 => {
                self.orders.give(Order::Hold(region));
                vec![Order::Release(region)]
            }
            _ => {
                self.orders.give(Order::Cut(region));
                vec![Order::Heal(region)]
            }
        }
    }

    /// Waits until the replicas of each tenant are equal: revision, and every key with both revisions and version.
    async fn converge(&self) {
        let nodes = (0..REGIONS.len() * NODES_PER_REGION).map(|place| (place, at(place)));
        let nodes: Vec<(Place, Client)> = nodes.collect();
        let until = Instant::now() + CONVERGE_MAX;
        for (tenant, _) in TENANTS {
            loop {
                let states = futures::future::join_all(nodes.iter().map(|(_, node)| state(node, tenant))).await;
                let differ = states.iter().any(|state| state.is_none() || *state != states[0]);
                if !differ {
                    tracing::info!(tenant, state = ?states[0], "all replicas are equal");
                    break;
                }
                assert!(Instant::now() < until, "replicas of {tenant} differ: {states:#?}");
                sleep(PAUSE).await;
            }
        }
    }

    /// Reads everything from each region, linearizably: the last word of the history.
    async fn read_all(&self) {
        for region in 0..REGIONS.len() {
            let session = LAST_SESSION + region as u32;
            let client = Client::lazy(load::config(region, self.seed + u64::from(session))).unwrap();
            for (tenant, _) in TENANTS {
                let session = Session {
                    recorder: &self.recorder,
                    freshness: &self.freshness,
                    session,
                    tenant: &client.tenant(tenant).unwrap(),
                    within: load::CALL_MAX[1],
                };
                session.scan("", Level::Linearizable).await;
            }
        }
    }
}

async fn pause(random: &mut StdRng, ms: std::ops::Range<u64>) {
    sleep(Duration::from_millis(random.random_range(ms))).await;
}

/// Makes the tenants and returns the groups that are home to them.
async fn create_tenants(admin: &Admin) -> Vec<u32> {
    let until = Instant::now() + START_MAX;
    let mut groups = Vec::new();
    for (name, home) in TENANTS {
        let made = loop {
            let new = NewTenant {
                name: name.to_owned(),
                home_region: REGIONS[home].0.to_owned(),
                ..NewTenant::default()
            };
            match admin.create_tenant(new).await {
                Ok(made) => break made,
                Err(error) => {
                    assert!(Instant::now() < until, "{name} could not be made: {error}");
                    tracing::info!(name, %error, "not made yet");
                }
            }
            // It may have been made without our knowing.
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

/// Returns the node that leads a group.
async fn leader(admin: &Admin, group: u32) -> Place {
    loop {
        let leader = admin.group(group).await.ok().and_then(|group| group.status?.leader);
        if let Some(number) = leader {
            return usize::try_from(number).unwrap() - 1;
        }
        sleep(PAUSE).await;
    }
}

/// Returns a client that reaches one node only, whatever address it dials.
fn at(place: Place) -> Client {
    let config = Config {
        connect: network::connect_to(cluster::client_address(place)),
        nearby: true,
        ..load::config(place / NODES_PER_REGION, place as u64)
    };
    Client::lazy(config).unwrap()
}

/// Returns what a node holds of a tenant.
async fn state(node: &Client, tenant: &str) -> Option<(stead_client::Revision, Vec<Item>)> {
    let scan = Scan {
        read: Read::at(Consistency::Local),
        ..Scan::default()
    };
    let page = node.tenant(tenant).unwrap().scan(&scan).await.ok()?;
    let Header {
        revision, forwarded, ..
    } = page.header;
    (!forwarded).then_some((revision, page.items))
}
