use stead_types::{DirectoryVersion, GroupId, Incarnation, NodeId, TenantNumber};

use super::{
    Command, FEATURE_LEVEL_MAX, GroupReport, Rejection, SentData, SentReport, TenantEvidence, TenantState,
    directory_test::{World, by, create, hex, new, update},
};

const DAY_MS: u64 = 86_400_000;
const TENANT: TenantNumber = TenantNumber::new(1);

fn raised() -> World {
    let mut world = World::begun();
    let all = (1..=5).map(NodeId::new).collect();
    world
        .apply(Command::RaiseFeatureLevel(by(), FEATURE_LEVEL_MAX, all))
        .unwrap();
    world.apply(create(new("acme", "eu-west"))).unwrap();
    world
}

fn version(index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index,
    }
}

fn sent(region: &str, policy: u64, first_ms: u64, bytes: u64) -> SentData {
    SentData {
        tenant: TENANT,
        region: region.parse().unwrap(),
        policy: version(policy),
        first_ms,
        last_ms: first_ms + 10,
        bytes,
    }
}

fn report(node: u64, number: u64, sent: Vec<SentData>) -> Command {
    Command::RecordSent(SentReport {
        node: NodeId::new(node),
        number,
        sent,
    })
}

fn of(world: &World) -> TenantEvidence {
    world.directory.evidence().tenant(TENANT).unwrap().clone()
}

/// Returns region, first and last policy, and bytes of each record.
fn rows(world: &World) -> Vec<(String, u64, u64, u64)> {
    let records = of(world).sent.into_iter();
    let row = records.map(|of| {
        (
            of.region.to_string(),
            of.policy_first.index,
            of.policy_last.index,
            of.bytes,
        )
    });
    row.collect()
}

fn erase(world: &mut World) {
    let mut disabled = update("acme");
    disabled.enabled = Some(false);
    world.apply(Command::UpdateTenant(by(), disabled)).unwrap();
    world
        .apply(Command::EraseTenant(by(), "acme".parse().unwrap(), None))
        .unwrap();
    assert_eq!(
        world.directory.view().tenant(TENANT).unwrap().state,
        TenantState::Deleting
    );
}

fn erased(world: &mut World, group: u32) {
    let erased = vec![GroupReport::Erased(TENANT)];
    let by_group = Command::Report(GroupId::new(group), Incarnation::FIRST, erased);
    world.apply(by_group).unwrap();
}

/// Invariant 1.
#[test]
fn repeated_report_counts_once() {
    let mut world = raised();
    for _ in 0..3 {
        world.apply(report(1, 70, vec![sent("us-east", 4, 5, 100)])).unwrap();
    }
    world.apply(report(1, 69, vec![sent("us-east", 4, 5, 100)])).unwrap();
    world.apply(report(2, 1, vec![sent("us-east", 4, 3, 20)])).unwrap();
    assert_eq!(rows(&world), [("us-east".to_owned(), 4, 4, 120)]);
    let record = &of(&world).sent[0];
    assert_eq!((record.first_ms, record.last_ms), (3, 15));
}

#[test]
fn policies_regions_and_days_are_apart() {
    let mut world = raised();
    let parts = vec![
        sent("us-east", 4, 5, 1),
        sent("us-east", 6, 5, 2),
        sent("ap-south", 6, 5, 4),
        sent("us-east", 6, DAY_MS, 8),
        sent("us-east", 6, DAY_MS + 5, 16),
    ];
    world.apply(report(1, 1, parts)).unwrap();
    let bytes: Vec<u64> = rows(&world).into_iter().map(|row| row.3).collect();
    assert_eq!(bytes, [1, 2, 4, 24]);
}

/// Invariant 2.
#[test]
fn records_of_tenant_are_merged_and_lose_no_byte() {
    let mut world = raised();
    for day in 0..100 {
        let parts = vec![
            sent("us-east", 4 + day, day * DAY_MS, 3),
            sent("ap-south", 4, day * DAY_MS, 5),
        ];
        world.apply(report(1, day + 1, parts)).unwrap();
    }
    let rows = rows(&world);
    assert_eq!(rows.len(), 64);
    let of_region = |region: &str| rows.iter().filter(|row| row.0 == region).map(|row| row.3).sum::<u64>();
    assert_eq!((of_region("us-east"), of_region("ap-south")), (300, 500));
    let us: Vec<_> = rows.iter().filter(|row| row.0 == "us-east").collect();
    assert_eq!(us.len(), 32);
    assert_eq!((us[0].1, us[0].2), (4, 72), "the oldest record is of many versions");
    assert_eq!(rows.last(), Some(&("ap-south".to_owned(), 4, 4, 5)));
}

#[test]
fn evidence_outlives_the_tenant_and_shows_where_it_was_erased() {
    let mut world = raised();
    world.apply(report(1, 1, vec![sent("us-east", 4, 5, 100)])).unwrap();
    let groups: Vec<u32> = {
        let tenant = world.directory.view().tenant(TENANT).unwrap();
        tenant.members.iter().map(|member| member.group.get()).collect()
    };
    assert!(groups.len() > 1);
    erase(&mut world);
    for group in &groups {
        assert_eq!(of(&world).gone_ms, None);
        erased(&mut world, *group);
        // A group repeats its report until it has seen that it was taken.
        erased(&mut world, *group);
    }
    let evidence = of(&world);
    assert_eq!((&evidence.name.to_string()[..], evidence.sent.len()), ("acme", 1));
    let of_groups: Vec<u32> = evidence.erased.iter().map(|erased| erased.group.get()).collect();
    assert_eq!(of_groups, groups);
    assert!(evidence.gone_ms.is_some() && evidence.erased[0].time_ms > 1_000);
    // A node may report later what it has sent before.
    world.apply(report(1, 2, vec![sent("us-east", 4, 5, 11)])).unwrap();
    assert_eq!(rows(&world), [("us-east".to_owned(), 4, 4, 111)]);
}

#[test]
fn unknown_tenant_has_no_evidence() {
    let mut world = raised();
    let mut unknown = sent("us-east", 4, 5, 100);
    unknown.tenant = TenantNumber::new(77);
    world.apply(report(1, 1, vec![unknown])).unwrap();
    assert_eq!(world.directory.evidence().from(TenantNumber::new(0)).count(), 0);
}

/// Older voters read neither the command nor the rows.
#[test]
fn evidence_needs_feature_level() {
    let mut world = World::begun();
    world.apply(create(new("acme", "eu-west"))).unwrap();
    let early = world.apply(report(1, 1, vec![sent("us-east", 4, 5, 100)])).unwrap_err();
    assert!(matches!(early, Rejection::FeatureLevel { needed: 5, .. }), "{early}");
    erase(&mut world);
    erased(&mut world, 2);
    assert!(world.directory.evidence().tenant(TENANT).is_none());
}

#[test]
fn encoding_of_evidence_stays() {
    let command = report(3, 300, vec![sent("us", 5, 1, 128)]);
    assert_eq!(
        hex(&command.encode()),
        "4003ac020101027573 0105 010b8001".replace(' ', "")
    );
    let mut world = raised();
    world.apply(report(1, 1, vec![sent("us", 5, 1, 128)])).unwrap();
    let row = of(&world).encode();
    assert_eq!(hex(&row), "0461636d65000102757301050105010b800100");
    assert_eq!(TenantEvidence::decode(row), Ok(of(&world)));
}
