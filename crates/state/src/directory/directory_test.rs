//! Scripts and their transcripts, and random scripts against the invariants.

use std::collections::BTreeMap;

use proptest::prelude::*;
use stead_types::{
    DirectoryVersion, Durability, Epoch, Error, ErrorKind, GroupId, Incarnation, NodeId, Revision, TenantLimit,
    TenantLimits, TenantNumber,
};

use super::*;
use crate::{
    codec::Writer,
    rows::{directory as rows, directory_view as view_rows, memory::MemoryRows},
    shard::record::LeaseLossPolicy,
};

/// A directory, its rows, and a node's view of it.
#[derive(Default)]
pub(super) struct World {
    pub(super) directory: Directory,
    rows: MemoryRows,
    view: DirectoryView,
    view_rows: MemoryRows,
    pub(super) index: u64,
    /// Logged time of the next command, if it is not that of its index.
    pub(super) time: Option<u64>,
}

impl World {
    pub(super) fn begun() -> Self {
        let mut world = Self::default();
        assert_eq!(world.apply(Command::Bootstrap(initial())), Ok(DirectoryOutcome::Done));
        world
    }

    /// Applies a command as a replica does, from its bytes, and checks the invariants after it.
    pub(super) fn apply(&mut self, command: Command) -> DirectoryResult {
        let bytes = command.encode();
        assert_eq!(Command::decode(bytes[0], bytes.slice(1..)), Ok(command.clone()));
        self.index += 1;
        let before = self.directory.view().clone();
        let dry_run = self.dry_run(&command);
        self.directory.reach(self.index);
        let time = self.time.unwrap_or(1_000 + self.index);
        let applied = self.directory.apply(time, command);
        rows::write(&mut self.rows, &self.directory, &applied);
        for change in &applied.changes {
            assert_eq!(DirectoryChange::decode(change.encode()).as_ref(), Ok(change));
            self.view.apply(change.clone());
            view_rows::write(&mut self.view_rows, change);
        }
        self.view.reach(self.directory.view().version());
        view_rows::write_version(&mut self.view_rows, self.view.version());
        assert_eq!(
            decode_result(encode_result(&applied.result)).as_ref(),
            Ok(&applied.result)
        );
        if applied.result.is_err() {
            self.assert_unchanged(before);
        }
        if let Some(dry_run) = dry_run {
            self.assert_matches_dry_run(dry_run, &applied.result);
        }
        self.check();
        applied.result
    }

    /// Recovers the directory from the state of one voter, and checks the invariants after it.
    pub(super) fn recover(&mut self, request: &RecoveryRequest) -> Result<RecoveredDirectory, RecoveryRejection> {
        let recovered = self
            .directory
            .recover(self.time.unwrap_or(1_000 + self.index), request)?;
        self.directory = recovered.directory.clone();
        self.index = 0;
        self.rows = MemoryRows(rows::all(&self.directory).collect());
        self.view = self.directory.view().clone();
        self.view_rows = MemoryRows::default();
        for change in self.view.as_changes() {
            view_rows::write(&mut self.view_rows, &change);
        }
        view_rows::write_version(&mut self.view_rows, self.view.version());
        self.check();
        Ok(recovered)
    }

    fn dry_run(&self, command: &Command) -> Option<Result<(DirectoryOutcome, DirectoryView), Rejection>> {
        let is_about = matches!(
            command,
            Command::CreateTenant(..)
                | Command::UpdateTenant(..)
                | Command::EraseTenant(..)
                | Command::CreateRegion(..)
                | Command::MoveTenant(..)
        );
        let has_begun = self.directory.cluster().is_some();
        (is_about && has_begun).then(|| Directory::dry_run(self.directory.view().clone(), command.clone()))
    }

    /// Asserts that a dry run gave what the command did, except numbers, versions and times.
    fn assert_matches_dry_run(
        &self,
        dry_run: Result<(DirectoryOutcome, DirectoryView), Rejection>,
        result: &DirectoryResult,
    ) {
        match (dry_run, result) {
            (Ok((DirectoryOutcome::Tenant(planned), view)), Ok(DirectoryOutcome::Tenant(done))) => {
                let done = self.directory.view().tenant(*done).unwrap().as_ref();
                let planned = Tenant {
                    number: done.number,
                    version: done.version,
                    created: done.created,
                    updated: done.updated,
                    ..view.tenant(planned).unwrap().as_ref().clone()
                };
                assert_eq!(&planned, done);
            }
            (Ok((DirectoryOutcome::Operation(_), view)), Ok(DirectoryOutcome::Operation(done))) => {
                let operation = self.directory.operations().get(*done).unwrap();
                let number = operation.tenants[0].tenant;
                let done = self.directory.view().tenant(number).unwrap();
                assert_eq!(view.tenant(number).unwrap().members, done.members);
            }
            (dry_run, result) => assert_eq!(dry_run.map(|(outcome, _)| outcome), *result),
        }
    }

    /// Invariant 5.
    fn assert_unchanged(&self, mut before: DirectoryView) {
        before.reach(self.directory.view().version());
        assert!(before == *self.directory.view());
    }

    /// Invariants 2 and 3, and that views, rows and snapshots are the directory's state.
    fn check(&self) {
        let view = self.directory.view();
        assert!(self.view == *view);
        assert_eq!(view_rows::load(&self.view_rows).unwrap(), self.view);
        assert_eq!(rows::load(&self.rows).unwrap(), self.directory);
        assert_eq!(rows::all(&self.directory).collect::<BTreeMap<_, _>>(), self.rows.0);
        for tenant in view.tenants_from(TenantNumber::new(0)) {
            assert!(tenant.members.windows(2).all(|pair| pair[0].group < pair[1].group));
            assert!(tenant.has(tenant.home) || tenant.state == TenantState::Deleting);
            for member in tenant.members.iter().filter(|member| member.state.stays()) {
                let region = view.region_of(member.group).unwrap();
                assert!(tenant.admits(&region.jurisdiction), "{tenant:?} in {region:?}");
            }
            if tenant.state != TenantState::Deleting {
                assert_eq!(placement::check_durability(view, tenant), Ok(()), "{tenant:?}");
            }
        }
        self.check_operations();
    }

    /// Moves of tenants and operations in flight are the same ones; a group that an operation needs is a member.
    fn check_operations(&self) {
        let (view, operations) = (self.directory.view(), self.directory.operations());
        let mut moves = 0;
        for tenant in view.tenants_from(TenantNumber::new(0)) {
            assert!(tenant.epoch <= tenant.last_epoch && tenant.fence_epoch <= tenant.last_epoch);
            if let Some(moving) = &tenant.moving {
                let of = operations.in_flight(tenant.number, moving.operation).unwrap();
                moves += usize::from(matches!(of.kind, OperationKind::Move { .. }));
                assert!(tenant.has(moving.to) && tenant.last_epoch == moving.epoch && tenant.op == moving.operation.0);
            }
        }
        let in_flight = operations
            .newest_first(None)
            .filter(|operation| operation.end.is_none() && matches!(operation.kind, OperationKind::Move { .. }));
        assert_eq!(in_flight.count(), moves);
        self.check_promotions();
        for id in operations.bulk_in_flight() {
            let bulk = operations.bulk_move(id).unwrap();
            let items = || operations.items_from(id, TenantNumber::new(0));
            let count = |is: fn(&ItemState) -> bool| items().filter(|(_, item)| is(&item.state)).count() as u64;
            assert_eq!(count(|state| matches!(state, ItemState::Moving(_))), bulk.moving);
            if let Some(progress) = bulk.rehearsal {
                let of = |is: fn(&RehearsalItem) -> bool| {
                    let rehearsed = items().filter_map(|(_, item)| item.rehearsal.as_deref());
                    rehearsed.filter(|item| is(item)).count() as u64
                };
                assert_eq!(of(|item| item.back.recorded > 0), bulk.moved);
                assert_eq!(of(RehearsalItem::is_away), progress.away);
            } else {
                assert_eq!(count(|state| matches!(state, ItemState::Moved(_))), bulk.moved);
            }
            assert_eq!(count(|state| matches!(state, ItemState::Failed { .. })), bulk.failed);
            for (number, item) in items() {
                if let ItemState::Moving(moving) = item.state {
                    let tenant = view.tenant(number).unwrap();
                    assert_eq!(tenant.moving.as_deref().unwrap().operation, moving.operation);
                }
            }
        }
    }

    /// Invariant 7, and that promotions count their tenants.
    fn check_promotions(&self) {
        let (view, operations) = (self.directory.view(), self.directory.operations());
        for operation in operations.newest_first(None) {
            let Some(promotion) = operations.promotion(operation.id) else {
                continue;
            };
            let mut counts = PromotionCounts::default();
            for (number, item) in operations.promotions().from(operation.id, TenantNumber::new(0)) {
                *counts.of(&item.state) += 1;
                let promoting = view.tenant(number).and_then(|tenant| tenant.promoting.as_deref());
                let is_promoted = promoting.is_some_and(|promoting| promoting.of == operation.id);
                let is_before = matches!(item.state, PromotionState::Waiting { .. } | PromotionState::Moving);
                assert_eq!(is_promoted, !item.state.is_over() && !is_before, "{item:?}");
                if let Some(promoting) = promoting.filter(|_| is_promoted) {
                    assert_eq!((promoting.operation, promoting.epoch), (item.operation, item.epoch));
                    assert!(promoting.reported.iter().all(|group| item.reports.contains_key(group)));
                }
            }
            assert_eq!(counts, promotion.counts);
            assert_eq!(operation.end.is_some(), counts.in_flight() == 0);
            assert_eq!(
                operations.promotions().in_flight().any(|id| id == operation.id),
                operation.end.is_none()
            );
        }
    }

    pub(super) fn tenant(&self, name: &str) -> &Tenant {
        self.directory.view().tenant_named(&name.parse().unwrap()).unwrap()
    }

    pub(super) fn erased(&mut self, group: u32, number: u64) -> DirectoryResult {
        let reports = vec![GroupReport::Erased(TenantNumber::new(number))];
        self.apply(Command::Report(GroupId::new(group), Incarnation::FIRST, reports))
    }
}

/// Reports, by the home of a tenant, that it counts none of the members that leave any more.
pub(super) fn uncounted(world: &mut World, number: u64) {
    let tenant = world
        .directory
        .view()
        .tenant(TenantNumber::new(number))
        .unwrap()
        .clone();
    let leaving = tenant
        .members
        .iter()
        .filter(|member| member.state == MemberState::Leaving);
    let reports = leaving.map(|member| GroupReport::Uncounted {
        tenant: TenantNumber::new(number),
        epoch: tenant.epoch,
        group: member.group,
        version: tenant.version,
        revision: Revision::ZERO,
    });
    let report = Command::Report(tenant.home, Incarnation::FIRST, reports.collect());
    world.apply(report).unwrap();
}

/// Reports, by each group that erases a tenant or has to, that it has done so.
pub(super) fn erased_everywhere(world: &mut World, number: u64) {
    let Some(tenant) = world.directory.view().tenant(TenantNumber::new(number)).cloned() else {
        return;
    };
    for member in tenant.members.iter().filter(|member| !member.state.stays()) {
        let home = tenant.home.get();
        if member.state == MemberState::Leaving {
            let reports = vec![GroupReport::Uncounted {
                tenant: TenantNumber::new(number),
                epoch: tenant.epoch,
                group: member.group,
                version: tenant.version,
                revision: Revision::ZERO,
            }];
            world
                .apply(Command::Report(GroupId::new(home), Incarnation::FIRST, reports))
                .unwrap();
        }
        world.erased(member.group.get(), number).unwrap();
    }
}

fn node(name: &str, region: &str) -> InitialNode {
    InitialNode {
        name: name.into(),
        region: region.parse().unwrap(),
        addresses: Addresses {
            client: format!("{name}:1"),
            peer: format!("{name}:2"),
            http: String::new(),
        },
        witness: false,
    }
}

/// Three regions of two nodes; groups 1 and 2 are in us-east, 3 and 4 in eu-west, 5 and 6 in ap-south.
fn initial() -> InitialCluster {
    let region = |name: &str, jurisdiction: &str| (name.parse().unwrap(), jurisdiction.parse().unwrap());
    let nodes = [
        ("a", "us-east"),
        ("b", "eu-west"),
        ("c", "ap-south"),
        ("d", "us-east"),
        ("e", "eu-west"),
    ];
    InitialCluster {
        cluster: "test".into(),
        regions: vec![
            region("us-east", "US"),
            region("eu-west", "EU"),
            region("ap-south", "IN"),
        ],
        nodes: nodes.map(|(name, region)| node(name, region)).to_vec(),
        groups_per_region: 2,
    }
}

pub(super) fn new(name: &str, home: &str) -> NewTenant {
    NewTenant {
        on_lease_loss: LeaseLossPolicy::Stop,
        name: name.parse().unwrap(),
        home: home.parse().unwrap(),
        followers: Followers::AllAdmitted,
        residency: Vec::new(),
        durability: Durability::Region,
        labels: BTreeMap::new(),
        limits: TenantLimits::default(),
    }
}

pub(super) fn by() -> AuditContext {
    AuditContext {
        who: "ann".into(),
        reason: "test".into(),
    }
}

pub(super) fn create(tenant: NewTenant) -> Command {
    Command::CreateTenant(by(), tenant)
}

pub(super) fn update(name: &str) -> TenantUpdate {
    TenantUpdate::new(name.parse().unwrap(), None)
}

pub(super) fn members(tenant: &Tenant) -> Vec<(u32, bool)> {
    tenant
        .members
        .iter()
        .map(|member| (member.group.get(), !member.state.stays()))
        .collect()
}

pub(super) fn named(regions: &[&str]) -> Followers {
    Followers::Named(regions.iter().map(|region| region.parse().unwrap()).collect())
}

#[test]
fn bootstrap_is_accepted_once_with_one_list() {
    let mut world = World::default();
    assert_eq!(
        world.apply(create(new("acme", "eu-west"))),
        Err(Rejection::NotBootstrapped)
    );
    assert_eq!(world.apply(Command::Bootstrap(initial())), Ok(DirectoryOutcome::Done));
    assert_eq!(world.apply(Command::Bootstrap(initial())), Ok(DirectoryOutcome::Done));
    let mut other = initial();
    other.nodes.pop();
    assert_eq!(world.apply(Command::Bootstrap(other)), Err(Rejection::OtherCluster));
    let view = world.directory.view();
    let groups: Vec<_> = view
        .groups()
        .map(|group| (group.number.get(), group.voters.len()))
        .collect();
    assert_eq!(groups, [(0, 3), (1, 2), (2, 2), (3, 2), (4, 2), (5, 1), (6, 1)]);
}

#[test]
fn directory_voters_span_regions() {
    let voters = |count: usize, witness: bool, nodes: &[&str]| {
        let mut initial = initial();
        initial.regions.truncate(count);
        initial.nodes = nodes.iter().map(|region| node("n", region)).collect();
        if witness {
            let mut third = node("w", "elsewhere");
            third.witness = true;
            initial.nodes.push(third);
        }
        initial
            .directory_voters()
            .into_iter()
            .map(NodeId::get)
            .collect::<Vec<_>>()
    };
    let (us, eu, ap) = ("us-east", "eu-west", "ap-south");
    assert_eq!(voters(1, false, &[us]), [1]);
    assert_eq!(voters(1, false, &[us, us]), [1]);
    assert_eq!(voters(1, false, &[us, us, us, us]), [1, 2, 3]);
    assert_eq!(voters(2, true, &[us, us, eu]), [1, 3, 4]);
    assert_eq!(voters(2, false, &[us, us, eu]), [1, 3, 2]);
    assert_eq!(voters(2, false, &[us, eu]), [1]);
    assert_eq!(voters(3, false, &[us, us, eu, ap, ap]), [1, 3, 4]);
}

#[test]
fn tenants_are_placed_by_load_within_residency() {
    let mut world = World::begun();
    assert_eq!(
        world.apply(create(new("one", "eu-west"))),
        Ok(DirectoryOutcome::Tenant(TenantNumber::new(1)))
    );
    assert_eq!(
        world.apply(create(new("two", "eu-west"))),
        Ok(DirectoryOutcome::Tenant(TenantNumber::new(2)))
    );
    assert_eq!(members(world.tenant("one")), [(1, false), (3, false), (5, false)]);
    assert_eq!(members(world.tenant("two")), [(2, false), (4, false), (6, false)]);
    let bound = NewTenant {
        residency: vec!["EU".parse().unwrap(), "IN".parse().unwrap()],
        ..new("bound", "eu-west")
    };
    world.apply(create(bound)).unwrap();
    assert_eq!(members(world.tenant("bound")), [(3, false), (5, false)]);
    let alone = NewTenant {
        followers: named(&[]),
        ..new("alone", "us-east")
    };
    world.apply(create(alone)).unwrap();
    assert_eq!(members(world.tenant("alone")), [(1, false)]);
    assert_eq!(world.tenant("alone").epoch, Epoch::FIRST);
}

#[test]
fn commands_against_policy_are_rejected() {
    let mut world = World::begun();
    world.apply(create(new("acme", "eu-west"))).unwrap();
    let refused = |world: &mut World, tenant: NewTenant| world.apply(create(tenant)).unwrap_err();
    assert!(matches!(
        refused(&mut world, new("acme", "us-east")),
        Rejection::TenantExists(_)
    ));
    assert!(matches!(
        refused(&mut world, new("b", "mars")),
        Rejection::RegionUnknown(_)
    ));
    let residency = vec!["EU".parse().unwrap()];
    let outside = NewTenant {
        residency: residency.clone(),
        ..new("b", "us-east")
    };
    let error = Error::from(refused(&mut world, outside));
    let expected = ErrorKind::Residency {
        allowed: vec!["EU".into()],
        region: "US".into(),
    };
    assert_eq!(error.kind, expected);
    let follows = NewTenant {
        followers: named(&["eu-west"]),
        ..new("b", "eu-west")
    };
    assert!(matches!(refused(&mut world, follows), Rejection::HomeFollows(_)));
    let remote = NewTenant {
        durability: Durability::Remote,
        residency: residency.clone(),
        ..new("b", "eu-west")
    };
    assert_eq!(refused(&mut world, remote), Rejection::RemoteAlone);
    let remote = NewTenant {
        durability: Durability::Remote,
        ..new("b", "eu-west")
    };
    world.apply(create(remote)).unwrap();
    let last = TenantUpdate {
        residency: Some(residency),
        ..update("b")
    };
    assert_eq!(
        world.apply(Command::UpdateTenant(by(), last)),
        Err(Rejection::RemoteAlone)
    );
}

/// Invariant 4.
#[test]
fn leaving_follower_is_kept_until_it_reports() {
    let mut world = World::begun();
    world.apply(create(new("acme", "eu-west"))).unwrap();
    let only = |regions: &[&str]| {
        let update = TenantUpdate {
            followers: Some(named(regions)),
            ..update("acme")
        };
        Command::UpdateTenant(by(), update)
    };
    world.apply(only(&["us-east"])).unwrap();
    assert_eq!(members(world.tenant("acme")), [(1, false), (3, false), (5, true)]);
    world.erased(1, 1).unwrap();
    assert_eq!(
        members(world.tenant("acme")),
        [(1, false), (3, false), (5, true)],
        "it was not leaving"
    );
    world.apply(only(&["us-east", "ap-south"])).unwrap();
    let again = members(world.tenant("acme"));
    assert_eq!(
        again,
        [(1, false), (3, false), (5, true), (6, false)],
        "another group of the region"
    );
    world.erased(5, 1).unwrap();
    world.erased(5, 1).unwrap();
    assert_eq!(members(world.tenant("acme")), [(1, false), (3, false), (6, false)]);
    let stale = Command::Report(GroupId::new(6), Incarnation(9), Vec::new());
    assert_eq!(world.apply(stale), Err(Rejection::StaleIncarnation));
}

#[test]
fn erased_tenant_frees_name_but_not_number() {
    let mut world = World::begun();
    world.apply(create(new("acme", "eu-west"))).unwrap();
    let erase = || Command::EraseTenant(by(), "acme".parse().unwrap(), None);
    assert!(matches!(world.apply(erase()), Err(Rejection::NotDisabled(_))));
    let disable = TenantUpdate {
        enabled: Some(false),
        ..update("acme")
    };
    world.apply(Command::UpdateTenant(by(), disable)).unwrap();
    assert_eq!(world.tenant("acme").fence(), Epoch::MAX);
    world.apply(erase()).unwrap();
    assert!(matches!(world.apply(erase()), Err(Rejection::TenantUnknown(_))));
    assert_eq!(
        world.apply(create(new("acme", "us-east"))),
        Ok(DirectoryOutcome::Tenant(TenantNumber::new(2)))
    );
    for group in [1, 3, 5] {
        assert!(world.directory.view().tenant(TenantNumber::new(1)).is_some());
        world.erased(group, 1).unwrap();
    }
    assert!(world.directory.view().tenant(TenantNumber::new(1)).is_none());
    assert_eq!(world.tenant("acme").number, TenantNumber::new(2));
    assert_eq!(world.directory.view().load(GroupId::new(4)).members, 1);
}

#[test]
fn stale_etag_is_rejected() {
    let mut world = World::begun();
    world.apply(create(new("acme", "eu-west"))).unwrap();
    let read = world.tenant("acme").version;
    let with = |etag| TenantUpdate {
        etag: Some(etag),
        labels: Some([("tier".to_owned(), "gold".to_owned())].into()),
        ..update("acme")
    };
    world.apply(Command::UpdateTenant(by(), with(read))).unwrap();
    assert!(matches!(
        world.apply(Command::UpdateTenant(by(), with(read))),
        Err(Rejection::Changed(_))
    ));
    let records: Vec<_> = world
        .directory
        .audit()
        .newest_first()
        .map(|record| &record.action[..])
        .collect();
    assert_eq!(records, ["update tenant", "create tenant"]);
}

#[test]
fn new_region_gets_followers_in_bounded_steps() {
    let mut world = World::begun();
    let count = REFRESH_MEMBERS_MAX + 5;
    for number in 0..count {
        world.index += 1;
        world.directory.reach(world.index);
        let applied = world.directory.apply(0, create(new(&format!("t{number}"), "eu-west")));
        rows::write(&mut world.rows, &world.directory, &applied);
        for change in applied.changes {
            view_rows::write(&mut world.view_rows, &change);
            world.view.apply(change);
        }
    }
    let region = Region::new("sa-east".parse().unwrap(), "BR".parse().unwrap());
    world.apply(Command::CreateRegion(by(), region)).unwrap();
    let join = |token| NewNode {
        name: "z".into(),
        region: "sa-east".parse().unwrap(),
        addresses: Addresses::default(),
        witness: false,
        token,
    };
    let number = Ok(DirectoryOutcome::Node(NodeId::new(6)));
    assert_eq!(world.apply(Command::Join(by(), join(7))), number);
    assert_eq!(world.apply(Command::Join(by(), join(7))), number, "asked again");
    assert!(matches!(
        world.apply(Command::Join(by(), join(8))),
        Err(Rejection::NodeExists(_))
    ));
    let mut steps = 0;
    while world.directory.needs_member_refresh() {
        world.apply(Command::RefreshMembers).unwrap();
        steps += 1;
    }
    assert_eq!(steps, 2);
    assert_eq!(world.directory.view().load(GroupId::new(7)).members, count as u64);
}

pub(super) fn commands() -> impl Strategy<Value = Command> {
    let name = || prop::sample::select(vec!["a", "b", "c", "d"]);
    let region = || prop::sample::select(vec!["us-east", "eu-west", "ap-south", "mars"]);
    let residency = || {
        let some = prop::sample::subsequence(vec!["US", "EU", "IN"], 0..=3);
        some.prop_map(|names| names.into_iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>())
    };
    let followers = || {
        let some = prop::sample::subsequence(vec!["us-east", "eu-west", "ap-south"], 0..=2);
        prop_oneof![Just(Followers::AllAdmitted), some.prop_map(|regions| named(&regions))]
    };
    let durability = || prop::sample::select(vec![Durability::Region, Durability::Remote]);
    let created = (name(), region(), followers(), residency(), durability());
    let created = created.prop_map(|(name, region, followers, residency, durability)| {
        create(NewTenant {
            followers,
            residency,
            durability,
            ..new(name, region)
        })
    });
    let limit = || prop::sample::select(TenantLimit::ALL.to_vec());
    let limits_update = (
        prop::collection::vec((limit(), 1_000u64..1_024), 0..3),
        prop::collection::vec(limit(), 0..3),
    );
    let limits_update = limits_update.prop_map(|(set, clear)| LimitsUpdate {
        set: limits(&set),
        clear,
    });
    let updated = (
        name(),
        prop::option::of(followers()),
        prop::option::of(residency()),
        prop::option::of(durability()),
        prop::option::of(any::<bool>()),
        limits_update,
        prop::option::weighted(
            0.3,
            prop::sample::select(vec![LeaseLossPolicy::Stop, LeaseLossPolicy::Continue]),
        ),
    );
    let updated = updated.prop_map(
        |(name, followers, residency, durability, enabled, limits, on_lease_loss)| {
            let update = TenantUpdate {
                followers,
                residency,
                durability,
                limits,
                enabled,
                on_lease_loss,
                ..update(name)
            };
            Command::UpdateTenant(by(), update)
        },
    );
    let erased = name().prop_map(|name| Command::EraseTenant(by(), name.parse().unwrap(), None));
    let reported = (1u32..7, 1u64..8).prop_map(|(group, number)| {
        let reports = vec![GroupReport::Erased(TenantNumber::new(number))];
        Command::Report(GroupId::new(group), Incarnation::FIRST, reports)
    });
    let addresses = (1u64..7).prop_map(|node| Command::UpdateAddresses(NodeId::new(node), Addresses::default()));
    prop_oneof![4 => created, 4 => updated, 2 => erased, 4 => reported, 1 => addresses, 1 => Just(Command::RefreshMembers)]
}

fn limits(set: &[(TenantLimit, u64)]) -> TenantLimits {
    let mut limits = TenantLimits::default();
    for (limit, value) in set {
        limits.set(*limit, *value).unwrap();
    }
    limits
}

#[test]
fn limits_are_set_and_reset_one_by_one() {
    use TenantLimit::{HistoryCount, Keys, StoredBytes};
    let mut world = World::begun();
    let own = limits(&[(Keys, 10), (StoredBytes, 1_000)]);
    let tenant = NewTenant {
        limits: own,
        ..new("acme", "eu-west")
    };
    world.apply(create(tenant)).unwrap();
    world.apply(create(new("other", "eu-west"))).unwrap();
    assert_eq!(world.tenant("acme").own_limits(), own);
    assert_eq!(world.tenant("acme").limit(Keys), Some(10));
    assert_eq!(world.tenant("other").own, None, "none of its own, no memory");
    assert_eq!(world.tenant("other").limit(Keys), Keys.default_value());

    let change = LimitsUpdate {
        set: limits(&[(HistoryCount, 5)]),
        clear: vec![Keys],
    };
    let update = TenantUpdate {
        limits: change,
        ..update("acme")
    };
    world.apply(Command::UpdateTenant(by(), update.clone())).unwrap();
    let left = limits(&[(StoredBytes, 1_000), (HistoryCount, 5)]);
    assert_eq!(world.tenant("acme").own_limits(), left);

    let none = LimitsUpdate {
        set: TenantLimits::default(),
        clear: TenantLimit::ALL.into(),
    };
    let update = TenantUpdate { limits: none, ..update };
    world.apply(Command::UpdateTenant(by(), update)).unwrap();
    assert_eq!(world.tenant("acme").own, None);
}

proptest! {
    #[test]
    fn views_rows_and_snapshots_equal_directory(script in prop::collection::vec(commands(), 0..40)) {
        let mut world = World::begun();
        let mut numbers = 0;
        for command in script {
            let creates = matches!(command, Command::CreateTenant(..));
            if let (Ok(DirectoryOutcome::Tenant(number)), true) = (world.apply(command), creates) {
                prop_assert!(number.get() > numbers, "invariant 1");
                numbers = number.get();
            }
        }
        prop_assert_eq!(world.view.version(), DirectoryVersion { incarnation: Incarnation::FIRST, index: world.index });
    }

    #[test]
    fn decoders_never_panic_on_arbitrary_bytes(kind: u8, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        drop(Command::decode(kind, bytes.clone().into()));
        drop(DirectoryChange::decode(bytes.clone().into()));
        drop(decode_result(bytes.into()));
    }
}

/// Bytes that data directories of earlier versions may hold: a changed form needs a new kind, or is left out where it
/// is empty.
#[test]
fn tenant_encoding_is_fixed() {
    let mut limits = TenantLimits::default();
    limits.set(TenantLimit::Keys, 3).unwrap();
    let limited = NewTenant {
        limits,
        ..new("acme", "eu-west")
    };
    let mut update_limits = update("acme");
    update_limits.limits.set = limits;
    let commands = [
        (
            create(new("acme", "eu-west")),
            "0503616e6e04746573740461636d650765752d7765737400000000",
        ),
        (
            create(limited.clone()),
            "0503616e6e04746573740461636d650765752d7765737400000000010403",
        ),
        (
            Command::UpdateTenant(by(), update("acme")),
            "0603616e6e04746573740461636d65000000000000",
        ),
        (
            Command::UpdateTenant(by(), update_limits),
            "0603616e6e04746573740461636d6500000000000001040300",
        ),
    ];
    for (command, bytes) in commands {
        assert_eq!(hex(&command.encode()), bytes, "{command:?}");
    }
    for (tenant, bytes) in [
        (
            new("acme", "eu-west"),
            "010461636d650301000000000000010101ffffffffff1f0003010003000500000102ea07ea07",
        ),
        (
            limited,
            "010461636d650301000010000000010101ffffffffff1f0003010003000500000104030102ea07ea07",
        ),
    ] {
        let mut world = World::begun();
        world.apply(create(tenant)).unwrap();
        let mut w = Writer::default();
        world.tenant("acme").encode(&mut w);
        assert_eq!(hex(&w.finish()), bytes);
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
