//! Tests of dry runs and of operations, against the directory's own machine.

use std::collections::BTreeMap;

use stead_api::{
    convert,
    proto::{admin::v1::operation_metadata::StepName, google::longrunning::operation},
    status,
};
use stead_state::directory::{
    Addresses, AuditContext, Command, Directory, DirectoryOutcome, DirectoryResult, Followers, GroupReport,
    InitialCluster, InitialNode, MoveRequest, MoveTarget, NewTenant, OperationResult, Rejection, SourceAfterMove,
};
use stead_types::{Durability, Error, ErrorKind, Incarnation, TenantLimits, TenantName};

use super::{operation::message, tenant_message, tenant_move::dry_run};

/// Directory with a tenant `acme` at home in `eu-west`, followed everywhere.
struct World {
    directory: Directory,
    index: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            directory: Directory::default(),
            index: 0,
        };
        world.apply(Command::Bootstrap(initial())).unwrap();
        let nodes = world.directory.view().nodes().map(|node| node.number).collect();
        world.apply(Command::RaiseFeatureLevel(by(), 2, nodes)).unwrap();
        let new = NewTenant {
            on_lease_loss: stead_state::shard::record::LeaseLossPolicy::Stop,
            name: acme(),
            home: "eu-west".parse().unwrap(),
            followers: Followers::AllAdmitted,
            residency: vec!["EU".parse().unwrap(), "US".parse().unwrap()],
            durability: Durability::Region,
            labels: BTreeMap::new(),
            limits: TenantLimits::default(),
        };
        world.apply(Command::CreateTenant(by(), new)).unwrap();
        world
    }

    fn apply(&mut self, command: Command) -> DirectoryResult {
        self.index += 1;
        self.directory.reach(self.index);
        self.directory.apply(1_000 * self.index, command).result
    }

    /// Begins a move and returns its number.
    fn begin(&mut self, region: &str) -> u64 {
        match self.apply(move_to(region)) {
            Ok(DirectoryOutcome::Operation(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Reports that the target of the tenant's move has accepted the baton.
    fn accept(&mut self) {
        let tenant = self.directory.view().tenant_named(&acme()).unwrap().clone();
        let moving = tenant.moving.as_deref().copied().unwrap();
        let report = GroupReport::Accepted {
            tenant: tenant.number,
            operation: moving.operation,
            epoch: moving.epoch,
        };
        self.apply(Command::Report(moving.to, Incarnation::FIRST, vec![report]))
            .unwrap();
    }

    /// Reports that the home has refused the tenant's move.
    fn refuse(&mut self) {
        let tenant = self.directory.view().tenant_named(&acme()).unwrap().clone();
        let operation = tenant.moving.as_deref().unwrap().operation;
        let report = GroupReport::Refused {
            tenant: tenant.number,
            operation,
        };
        self.apply(Command::Report(tenant.home, Incarnation::FIRST, vec![report]))
            .unwrap();
    }

    fn result(&self, id: u64) -> Option<operation::Result> {
        let operation = self.directory.operations().get(id).unwrap();
        message(self.directory.view(), operation).result
    }
}

fn initial() -> InitialCluster {
    let node = |(name, region): (&str, &str)| InitialNode {
        name: name.into(),
        region: region.parse().unwrap(),
        addresses: Addresses {
            client: format!("{name}:1"),
            peer: format!("{name}:2"),
            http: String::new(),
        },
        witness: false,
    };
    let regions = [("eu-west", "EU"), ("us-east", "US"), ("ap-south", "IN")];
    InitialCluster {
        cluster: "test".into(),
        regions: regions
            .map(|(name, jurisdiction)| (name.parse().unwrap(), jurisdiction.parse().unwrap()))
            .to_vec(),
        nodes: [("a", "eu-west"), ("b", "us-east"), ("c", "ap-south")]
            .map(node)
            .to_vec(),
        groups_per_region: 2,
    }
}

fn acme() -> TenantName {
    "acme".parse().unwrap()
}

fn by() -> AuditContext {
    AuditContext {
        who: "ann".into(),
        reason: "test".into(),
    }
}

fn move_to(region: &str) -> Command {
    let request = MoveRequest {
        name: acme(),
        etag: None,
        to: MoveTarget::Region(region.parse().unwrap()),
        source: SourceAfterMove::Policy,
        unreachable: Vec::new(),
    };
    Command::MoveTenant(by(), request)
}

#[test]
fn dry_run_has_replicas_after_move_and_changes_nothing() {
    let world = World::new();
    let view = world.directory.view().clone();
    let tenant = view.tenant_named(&acme()).unwrap().clone();
    let planned = dry_run(view.clone(), &tenant, move_to("us-east")).unwrap();
    assert!(!planned.moving.joined, "us-east follows already");
    let after = planned.view.tenant(tenant.number).unwrap();
    let replicas = tenant_message::replicas(&planned.view, after);
    let home = replicas
        .iter()
        .find(|replica| replica.group == after.home.get())
        .unwrap();
    assert_eq!(home.region, "us-east");
    assert!(
        replicas
            .iter()
            .any(|replica| replica.region == "eu-west" && !replica.leaving)
    );
    assert_eq!(*world.directory.view(), view);
}

#[test]
fn dry_run_is_refused_as_the_move_would_be() {
    let mut world = World::new();
    let refused = |world: &World, region: &str| {
        let view = world.directory.view().clone();
        let tenant = view.tenant_named(&acme()).unwrap().clone();
        match dry_run(view, &tenant, move_to(region)) {
            Ok(planned) => panic!("{:?}", planned.moving),
            Err(rejection) => rejection,
        }
    };
    assert!(matches!(refused(&world, "ap-south"), Rejection::Residency { .. }));
    assert_eq!(refused(&world, "eu-west"), Rejection::AlreadyHome(acme()));
    assert!(matches!(refused(&world, "nowhere"), Rejection::RegionUnknown(_)));
    world.begin("us-east");
    assert_eq!(refused(&world, "us-east"), Rejection::AlreadyMoving(acme()));
}

#[test]
fn move_keeps_its_epoch_after_the_next_move() {
    let mut world = World::new();
    let first = world.begin("us-east");
    assert_eq!(world.result(first), None);
    world.accept();
    let second = world.begin("eu-west");
    world.accept();
    let response = |id| match world.result(id) {
        Some(operation::Result::Response(response)) => convert::operation::unpack_move_response(&response).unwrap(),
        other => panic!("{other:?}"),
    };
    let (first, second) = (response(first), response(second));
    assert_eq!(first.home.unwrap().region, "us-east");
    assert_eq!(second.home.unwrap().region, "eu-west");
    assert!(first.epoch < second.epoch);
}

#[test]
fn cancelled_move_ends_by_whichever_outcome_comes_first() {
    let mut world = World::new();
    let cancelled = world.begin("us-east");
    assert_eq!(
        world.apply(Command::AbortMove(by(), cancelled)),
        Ok(DirectoryOutcome::Done)
    );
    let operation = world.directory.operations().get(cancelled).unwrap();
    let in_flight = message(world.directory.view(), operation);
    let metadata = convert::operation::unpack_metadata(in_flight.metadata.as_ref().unwrap()).unwrap();
    assert!(!in_flight.done && metadata.cancel_requested);
    assert_eq!(metadata.steps.last().unwrap().name(), StepName::CancelRequested);
    world.refuse();
    match world.result(cancelled) {
        Some(operation::Result::Error(error)) => assert!(status::is_cancelled(&error), "{error:?}"),
        other => panic!("{other:?}"),
    }

    let late = world.begin("us-east");
    world.apply(Command::AbortMove(by(), late)).unwrap();
    world.accept();
    let end = world.directory.operations().get(late).unwrap().end.clone();
    assert_eq!(end.unwrap().result, OperationResult::Succeeded);
    let again = world.apply(Command::AbortMove(by(), late)).unwrap_err();
    let error = Error::from(again);
    assert_eq!(error.kind, ErrorKind::NotCancellable);
    assert!(
        error.message.contains("reverse it by another move"),
        "{}",
        error.message
    );
}
