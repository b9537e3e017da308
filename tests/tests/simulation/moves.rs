//! Moves of tenants at random: begun and cancelled by operators who know nothing of each other or of faults, and what
//! must hold once all faults have ended.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use stead_api::{
    net::{Keepalive, channel},
    proto::internal::v1::{ProposeRequest, directory_service_client::DirectoryServiceClient},
};
use stead_client::{
    Admin, Client, Followers, MoveSource, MoveTarget, OperationFilter, OperationInfo, OperationOutcome, TenantInfo,
    TenantMove, WriteOptions,
};
use stead_state::directory::{AuditContext, Command, decode_result};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    cluster::{self, NODES, REGIONS},
    faults::pause,
    ledger,
    load::{self, Phase, TENANTS},
    network, promotions,
};

/// Pause between two moves of one operator, in milliseconds.
const BETWEEN_MS: std::ops::Range<u64> = 100..2_500;
/// One in so many moves is cancelled, after at most so long.
const CANCEL_ONE_IN: u32 = 4;
const CANCEL_AFTER_MS_MAX: u64 = 1_500;
/// One in so many moves names a group: also one of the home's region.
const GROUP_ONE_IN: u32 = 4;
/// Roles of a move's source afterwards. Where every region follows, and in the home's region, one of the last two
/// is refused.
const SOURCES: [MoveSource; 5] = [
    MoveSource::Policy,
    MoveSource::Policy,
    MoveSource::Policy,
    MoveSource::Follow,
    MoveSource::Leave,
];
/// Timeout of an operator's call.
pub(crate) const CALL_MAX: Duration = Duration::from_secs(4);
/// Longest time for operations to end after the last fault: a promotion may have to wait for the leases of a new cluster,
/// a minute.
const ENDED_MAX: Duration = Duration::from_secs(90);
/// Number of looks in a row that find everything at rest: what a client asked for last may still be on its way.
const LOOKS_AT_REST: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);
/// Longest time for the directory to support moves after the start.
const START_MAX: Duration = Duration::from_secs(20);
/// Prefix of the line that counts the moves of a run.
pub(crate) const MOVES_PREFIX: &str = "moves: ";

/// Client that moves tenants as long as there is load.
pub(crate) struct Mover {
    pub(crate) region: usize,
    pub(crate) seed: u64,
    pub(crate) groups_per_region: u32,
    pub(crate) phase: watch::Receiver<Phase>,
}

impl Mover {
    pub(crate) async fn run(mut self) -> turmoil::Result {
        self.phase.wait_for(|phase| *phase != Phase::Starting).await?;
        let mut random = StdRng::seed_from_u64(self.seed);
        let client = Client::lazy(load::config(self.region, self.seed))?;
        let admin = client.admin();
        while *self.phase.borrow() == Phase::Working {
            pause(&mut random, BETWEEN_MS).await;
            let (name, _) = TENANTS[random.random_range(0..TENANTS.len())];
            let to = self.target(&mut random);
            let request = TenantMove {
                name: name.to_owned(),
                etag: String::new(),
                to: to.clone(),
                source: SOURCES[random.random_range(0..SOURCES.len())],
                reason: "a test".to_owned(),
                dry_run: false,
            };
            let begun = timeout(CALL_MAX, admin.move_tenant(request)).await;
            let operation = match begun {
                Ok(Ok(operation)) => operation.name,
                Ok(Err(error)) => {
                    tracing::info!(name, ?to, %error, "move not begun");
                    continue;
                }
                Err(_) => continue,
            };
            tracing::info!(name, ?to, operation, "move begun");
            if random.random_range(0..CANCEL_ONE_IN) == 0 {
                pause(&mut random, 0..CANCEL_AFTER_MS_MAX).await;
                let cancelled = timeout(CALL_MAX, admin.cancel_operation(&operation)).await;
                tracing::info!(operation, ?cancelled, "cancellation asked for");
            }
        }
        Ok(())
    }

    fn target(&self, random: &mut StdRng) -> MoveTarget {
        let groups = REGIONS.len() as u32 * self.groups_per_region;
        let (region, group) = (random.random_range(0..REGIONS.len()), random.random_range(1..=groups));
        if random.random_range(0..GROUP_ONE_IN) == 0 {
            MoveTarget::Group(group)
        } else {
            MoveTarget::Region(REGIONS[region].0.to_owned())
        }
    }
}

/// Waits until every node supports moves, and sets the lease ttl.
pub(crate) async fn prepare_directory(lease_ttl: Duration) {
    let ttl_ms = u64::try_from(lease_ttl.as_millis()).unwrap();
    let by = AuditContext {
        who: "a test".to_owned(),
        reason: String::new(),
    };
    let command = Command::SetClusterSettings(by, ttl_ms).encode();
    let connect = network::connect();
    let voters: Vec<_> = (0..NODES)
        .map(|node| channel(&connect, &cluster::peer_address(node), Keepalive::PEER).unwrap())
        .map(DirectoryServiceClient::new)
        .collect();
    let until = Instant::now() + START_MAX;
    loop {
        for voter in &voters {
            let request = ProposeRequest {
                command: command.clone(),
            };
            let proposed = timeout(CALL_MAX, voter.clone().propose(request)).await;
            if let Ok(Ok(answer)) = proposed {
                match decode_result(answer.into_inner().answer).unwrap() {
                    Ok(_) => return,
                    Err(rejection) => tracing::info!(%rejection, "settings not changed yet"),
                }
            }
        }
        assert!(Instant::now() < until, "the directory supports no moves in time");
        sleep(PAUSE).await;
    }
}

/// Waits until every operation has ended and no tenant is between two states: each has one home and a follower in every
/// other region that its policy names.
pub(crate) async fn wait_until_ended(admin: &Admin) {
    let until = Instant::now() + ENDED_MAX;
    let mut at_rest = 0;
    while at_rest < LOOKS_AT_REST {
        replace_blocked_promotions(admin).await;
        let left = unfinished(admin).await;
        at_rest = if left.is_empty() { at_rest + 1 } else { 0 };
        assert!(
            left.is_empty() || Instant::now() < until,
            "left over after all faults have ended: {left:#?}"
        );
        sleep(PAUSE).await;
    }
    let operations = admin.operations(&OperationFilter::default()).await.unwrap();
    let count = |of: fn(&OperationInfo) -> bool| operations.iter().filter(|operation| of(operation)).count();
    let moved = count(|operation| matches!(operation.outcome, Some(OperationOutcome::Moved { .. })));
    let cancelled = count(|operation| matches!(operation.outcome, Some(OperationOutcome::Cancelled(_))));
    let failed = count(|operation| matches!(operation.outcome, Some(OperationOutcome::Failed(_))));
    println!("{MOVES_PREFIX}{moved} moved, {cancelled} cancelled, {failed} failed");
}

/// Promotes again where a promotion asks for it: one that named a region whose copy is incomplete waits for an operator,
/// because nobody else may choose another region. Promotions that are blocked for another reason must end by themselves.
async fn replace_blocked_promotions(admin: &Admin) {
    let filter = OperationFilter {
        done: Some(false),
        ..OperationFilter::default()
    };
    let operations = admin.operations(&filter).await.unwrap_or_default();
    for operation in operations.iter().filter(|operation| operation.promotion.is_some()) {
        let Ok(report) = admin.promotion_report(&operation.name).await else {
            continue;
        };
        for tenant in report.tenants {
            if tenant.reason.contains("promote again and name that group's region") {
                promotions::promote_again(&tenant.tenant).await;
            }
        }
    }
}

/// Describes what has not ended.
async fn unfinished(admin: &Admin) -> Vec<String> {
    let mut left = Vec::new();
    let filter = OperationFilter {
        done: Some(false),
        ..OperationFilter::default()
    };
    match admin.operations(&filter).await {
        Ok(operations) => {
            for operation in &operations {
                left.push(format!("{operation:?}"));
                if operation.promotion.is_some() {
                    left.push(format!("{:?}", admin.promotion_report(&operation.name).await));
                }
            }
        }
        Err(error) => left.push(format!("operations cannot be read: {error}")),
    }
    for (name, _) in TENANTS {
        match admin.tenant(name).await {
            Ok(tenant) if is_at_rest(&tenant) => {}
            Ok(tenant) => left.push(format!("{tenant:?}")),
            Err(error) => left.push(format!("{name} cannot be read: {error}")),
        }
    }
    left
}

fn is_at_rest(tenant: &TenantInfo) -> bool {
    let replicas = &tenant.replicas;
    let in_region = |name: &str| replicas.iter().filter(|replica| replica.region == name).count();
    let is_wanted = |name: &str| match &tenant.followers {
        Followers::AllAdmitted => true,
        Followers::Regions(regions) => tenant.home_region == name || regions.iter().any(|region| region == name),
    };
    tenant.moving.is_none()
        && replicas.iter().all(|replica| !replica.leaving)
        && REGIONS
            .iter()
            .all(|(name, _)| in_region(name) == usize::from(is_wanted(name)))
}

/// Checks that each tenant is served by its recorded home, in its recorded epoch.
pub(crate) async fn check_homes(client: &Client) {
    for (name, _) in TENANTS {
        let tenant = client.admin().tenant(name).await.unwrap();
        let write = WriteOptions {
            timeout: Some(load::CALL_MAX[1]),
            ..WriteOptions::default()
        };
        let written = client.tenant(name).unwrap().put_with(ledger::SERVED, "x", &write).await;
        let header = written
            .unwrap_or_else(|error| panic!("{tenant:?} is not served: {error}"))
            .header;
        assert_eq!(header.revision.epoch(), tenant.epoch, "{tenant:?}: {header:?}");
        let region = header.region.map(|region| region.to_string());
        assert_eq!(region, Some(tenant.home_region), "{name} was served elsewhere");
    }
}
