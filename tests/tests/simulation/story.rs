//! What happens in a run, told by its operator: tenants, load, faults, peace, and the proof that all replicas are equal
//! again.

use std::{collections::VecDeque, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use stead_client::{Admin, Client, Config, Consistency, Header, Item, NewTenant, Read, Scan};
use stead_tests::history::{Level, Recorder};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    cluster::{self, NODES, NODES_PER_REGION, Order, Orders, Place, REGIONS},
    faults::{self, Cure, Strikes, pause},
    freshness::Freshness,
    ledger::Ledger,
    load::{self, Phase, Session, TENANTS},
    network,
};

/// How long the cluster may take to begin, and to become equal after the last fault.
const START_MAX: Duration = Duration::from_secs(20);
const CONVERGE_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// Faults that there are at one time.
const FAULTS_AT_ONCE_MAX: usize = 2;
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
        let admin = client.admin();
        let groups = create_tenants(&admin).await;
        self.phase.send_replace(Phase::Working);
        let strikes = Strikes {
            admin: &admin,
            groups: &groups,
            orders: &self.orders,
        };
        let mut open: VecDeque<Cure> = VecDeque::new();
        let plan = faults::plan(&mut random);
        for fault in plan {
            pause(&mut random, 400..1_800).await;
            // Now and then something happens while something else is still wrong.
            let together = if random.random() { FAULTS_AT_ONCE_MAX } else { 1 };
            while open.len() >= together {
                let cure = open.pop_front().unwrap_or_default();
                strikes.cure(cure).await;
                pause(&mut random, 0..1_000).await;
            }
            open.push_back(strikes.strike(fault, &mut random).await);
        }
        pause(&mut random, 1_000..3_000).await;
        for cure in open {
            strikes.cure(cure).await;
        }
        self.orders.give(Order::Peace);
        strikes.admit_everywhere().await;
        pause(&mut random, 1_500..2_500).await;
        self.phase.send_replace(Phase::Ending);
        self.converge().await;
        self.read_all().await;
        for (tenant, _) in TENANTS {
            self.ledger.check(&client, tenant).await;
        }
        Ok(())
    }

    /// Waits until the replicas of each tenant are equal: revision, and every key with both revisions and version.
    async fn converge(&self) {
        let nodes: Vec<(Place, Client)> = (0..NODES).map(|place| (place, at(place))).collect();
        let until = Instant::now() + CONVERGE_MAX;
        for (tenant, _) in TENANTS {
            loop {
                // One that has lost its disk may find that out only now.
                let living = nodes.iter().filter(|(place, _)| !self.orders.is_gone(*place));
                let living: Vec<_> = living.collect();
                let states = futures::future::join_all(living.iter().map(|(_, node)| state(node, tenant))).await;
                let differ = states.iter().any(|state| state.is_none() || *state != states[0]);
                if !differ {
                    tracing::info!(tenant, state = ?states[0], "all replicas are equal");
                    break;
                }
                if Instant::now() > until {
                    let places = living.iter().map(|(place, _)| *place);
                    panic!("replicas of {tenant} differ: {}", differences(places.zip(&states)));
                }
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

/// Makes the tenants and returns the groups that are home to them.
pub(crate) async fn create_tenants(admin: &Admin) -> Vec<u32> {
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

/// Returns a client that reaches one node only, whatever address it dials.
fn at(place: Place) -> Client {
    let config = Config {
        connect: network::connect_to(cluster::client_address(place)),
        nearby: true,
        ..load::config(place / NODES_PER_REGION, place as u64)
    };
    Client::lazy(config).unwrap()
}

/// What a node holds of a tenant.
type State = Option<(stead_client::Revision, Vec<Item>)>;

/// Says in one line how nodes differ: where each is, and in the first key that it has otherwise than the first node.
fn differences<'a>(states: impl Iterator<Item = (Place, &'a State)>) -> String {
    let (mut text, mut first) = (String::new(), None);
    for (place, state) in states {
        let Some((revision, items)) = state else {
            text.push_str(&format!("{} does not answer; ", cluster::host(place)));
            continue;
        };
        text.push_str(&format!(
            "{} {revision} with {} keys",
            cluster::host(place),
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
