//! Promotions of tenants at random, while their homes answer sooner or later: nothing that was acknowledged may be lost
//! then, whatever faults and moves they meet.
//!
//! In runs with faults that outlast leases only the tenant with durability REMOTE: a home that is silent for so long may
//! lose writes that are durable in its region, which the operator accepts by promoting, but none that another region had.

use rand::{Rng, SeedableRng, rngs::StdRng};
use stead_api::{
    net::{Channel, Keepalive, channel},
    proto::internal::v1::{ProposeRequest, directory_service_client::DirectoryServiceClient},
};
use stead_state::directory::{AuditContext, Command, PromotionRequest, PromotionSelection, decode_result};
use tokio::{sync::watch, time::timeout};

use crate::{
    cluster::{self, NODES, REGIONS},
    faults::{self, pause},
    load::{Phase, REMOTE_TENANT, TENANTS},
    moves::CALL_MAX,
    network,
};

/// Pause between two promotions, in milliseconds.
const BETWEEN_MS: std::ops::Range<u64> = 1_500..6_000;
/// One in so many promotions names the region of the new home, replaces one in flight, or tries planned moves first.
const NAMED_ONE_IN: u32 = 2;
const REPLACES_ONE_IN: u32 = 3;
const GRACEFUL_ONE_IN: u32 = 4;
const GRACEFUL_MS: u64 = 2_000;

/// Client that promotes tenants as long as there is load.
pub(crate) struct Promoter {
    pub(crate) seed: u64,
    pub(crate) phase: watch::Receiver<Phase>,
}

impl Promoter {
    pub(crate) async fn run(mut self) -> turmoil::Result {
        let is_remote_only = faults::outlast_leases(self.seed);
        self.phase.wait_for(|phase| *phase != Phase::Starting).await?;
        let mut random = StdRng::seed_from_u64(self.seed * 1_000 + 800);
        let voters = voters();
        while *self.phase.borrow() == Phase::Working {
            pause(&mut random, BETWEEN_MS).await;
            if *self.phase.borrow() != Phase::Working {
                break;
            }
            let (drawn, _) = TENANTS[random.random_range(0..TENANTS.len())];
            let name = if is_remote_only { REMOTE_TENANT } else { drawn };
            begin(&voters, name, request(name, &mut random)).await;
        }
        Ok(())
    }
}

/// Promotes a tenant again whose promotion is blocked, as an operator does: to any region, and still without loss.
pub(crate) async fn promote_again(name: &str) {
    let request = PromotionRequest {
        replace: true,
        ..without_loss(name)
    };
    begin(&voters(), name, request).await;
}

fn voters() -> Vec<DirectoryServiceClient<Channel>> {
    let connect = network::connect();
    (0..NODES)
        .map(|node| channel(&connect, &cluster::peer_address(node), Keepalive::PEER).unwrap())
        .map(DirectoryServiceClient::new)
        .collect()
}

/// Asks one voter after the other, until one knows the answer.
async fn begin(voters: &[DirectoryServiceClient<Channel>], name: &str, request: PromotionRequest) {
    let by = AuditContext {
        who: "a test".to_owned(),
        reason: String::new(),
    };
    let command = Command::BeginPromotion(by, request).encode();
    for voter in voters {
        let request = ProposeRequest {
            command: command.clone(),
        };
        let proposed = timeout(CALL_MAX, voter.clone().propose(request)).await;
        if let Ok(Ok(answer)) = proposed {
            let begun = decode_result(answer.into_inner().answer).unwrap();
            tracing::info!(name, ?begun, "promotion asked for");
            return;
        }
    }
}

fn request(name: &str, random: &mut StdRng) -> PromotionRequest {
    let mut one_in = |count| random.random_range(0..count) == 0;
    let (is_named, replace, is_graceful) = (one_in(NAMED_ONE_IN), one_in(REPLACES_ONE_IN), one_in(GRACEFUL_ONE_IN));
    let (to, _) = REGIONS[random.random_range(0..REGIONS.len())];
    PromotionRequest {
        to: is_named.then(|| to.parse().unwrap()),
        replace,
        graceful_ms: if is_graceful { GRACEFUL_MS } else { 0 },
        ..without_loss(name)
    }
}

fn without_loss(name: &str) -> PromotionRequest {
    PromotionRequest {
        selection: PromotionSelection::Tenants(vec![name.parse().unwrap()]),
        to: None,
        allow_loss: false,
        replace: false,
        durability: None,
        graceful_ms: 0,
        is_down: false,
        unreachable: Vec::new(),
    }
}
