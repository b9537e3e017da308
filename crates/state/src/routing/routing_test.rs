use std::collections::BTreeMap;

use stead_types::{DirectoryVersion, Durability, TenantLimits};

use super::*;
use crate::{
    directory::{
        Addresses, AuditContext, Command, Directory, DirectoryChange, Followers, InitialCluster, InitialNode,
        NewTenant, TenantPromotion,
    },
    shard::record::OperationId,
};

/// Nodes 1 and 2 are in eu (group 1), 3 and 4 in us (group 2), 5 in ap (group 3). Tenant a is at home in eu and
/// followed everywhere, b is at home in us and followed nowhere. P is like a, and its members freeze for a promotion to
/// epoch 2.
fn view() -> DirectoryView {
    let mut directory = Directory::default();
    let region = |name: &str| (name.parse().unwrap(), name.to_uppercase().parse().unwrap());
    let node = |(at, region): (usize, &str)| InitialNode {
        name: format!("n{at}"),
        region: region.parse().unwrap(),
        addresses: Addresses {
            client: format!("{region}-{at}:7400"),
            ..Addresses::default()
        },
        witness: false,
    };
    let initial = InitialCluster {
        cluster: "test".into(),
        regions: vec![region("eu"), region("us"), region("ap")],
        nodes: ["eu", "eu", "us", "us", "ap"]
            .into_iter()
            .enumerate()
            .map(node)
            .collect(),
        groups_per_region: 1,
    };
    directory.apply(0, Command::Bootstrap(initial)).result.unwrap();
    for (name, home, followers) in [
        ("a", "eu", Followers::AllAdmitted),
        ("b", "us", Followers::Named(Box::new([]))),
        ("p", "eu", Followers::AllAdmitted),
    ] {
        let tenant = NewTenant {
            on_lease_loss: crate::shard::record::LeaseLossPolicy::Stop,
            name: name.parse().unwrap(),
            home: home.parse().unwrap(),
            followers,
            residency: Vec::new(),
            durability: Durability::Region,
            labels: BTreeMap::new(),
            limits: TenantLimits::default(),
        };
        directory
            .apply(0, Command::CreateTenant(AuditContext::default(), tenant))
            .result
            .unwrap();
    }
    let mut view = directory.view().clone();
    let mut promoted = Tenant::clone(view.tenant_named(&"p".parse().unwrap()).unwrap());
    promoted.fence_epoch = Epoch::new(2).unwrap();
    promoted.promoting = Some(Box::new(TenantPromotion {
        operation: OperationId(1),
        of: 9,
        epoch: promoted.fence_epoch,
        fence: DirectoryVersion::ZERO,
        phase: PromotionPhase::Freezing,
        reported: Box::new([]),
        replaced: Box::new([]),
        started: 0,
    }));
    view.apply(DirectoryChange::Tenant(Box::new(promoted)));
    view
}

fn ask(node: u64, request: &str, leaders: [u64; 3], forwarded: Option<(u32, u32, u32)>) -> String {
    ask_with(node, request, leaders, forwarded, &[])
}

fn home(group: u32, epoch: u32) -> Option<CurrentHome> {
    Some(CurrentHome {
        group: GroupId::new(group),
        epoch: Epoch::new(epoch).unwrap(),
    })
}

/// A record of the tenant in a group, with the home that it knows.
fn record(group: u32, epoch: u32, home: Option<CurrentHome>) -> (GroupId, LocalRecord) {
    let epoch = Epoch::new(epoch).unwrap();
    (GroupId::new(group), LocalRecord { epoch, home })
}

/// A request as words, routed at a node; `leaders` are of groups 1, 2 and 3, zero for none.
fn ask_with(
    node: u64,
    request: &str,
    leaders: [u64; 3],
    forwarded: Option<(u32, u32, u32)>,
    records: &[(GroupId, LocalRecord)],
) -> String {
    let view = view();
    let mut words = request.split(' ');
    let tenant = view.tenant_named(&words.next().unwrap().parse().unwrap()).unwrap();
    let serving_role = match words.next().unwrap() {
        "home" => ServingRole::Home,
        _ => ServingRole::Replica,
    };
    let node = NodeId::new(node);
    let voter = |group: GroupId| match view.group(group) {
        Some(found) if found.voters.contains(&node) => match leaders[group.get() as usize - 1] {
            0 => VoterStatus::LeaderUnknown,
            leader => VoterStatus::LedBy(NodeId::new(leader)),
        },
        Some(_) | None => VoterStatus::Absent,
    };
    let here = LocalNode {
        node,
        region: &view.node(node).unwrap().region,
        voter: &voter,
        records,
    };
    let forwarded = forwarded.map(|(hops, epoch, group)| ForwardInfo {
        hops,
        epoch: Epoch::new(epoch).unwrap(),
        group: GroupId::new(group),
    });
    let request = RouteRequest {
        tenant,
        serving_role,
        forwarded,
        direct: words.next() == Some("direct"),
    };
    match route(&view, &here, request) {
        RouteDecision::Local { group } => format!("here {group}"),
        RouteDecision::SameRegion { group, epoch, nodes } => format!("inside {group} {nodes:?}{}", later(epoch)),
        RouteDecision::OtherRegion {
            region,
            group,
            epoch,
            nodes,
        } => format!("away {region} {group} {nodes:?}{}", later(epoch)),
        RouteDecision::Wait { epoch } => format!("wait {epoch}"),
        RouteDecision::Refuse(error) => format!("{:?}", error.kind),
    }
}

/// Names an epoch after the first.
fn later(epoch: Epoch) -> String {
    if epoch == Epoch::FIRST {
        return String::new();
    }
    format!(" epoch {epoch}")
}

const LEADERS: [u64; 3] = [2, 3, 5];

#[test]
fn write_is_routed_to_leader_of_home() {
    assert_eq!(ask(2, "a home", LEADERS, None), "here g1");
    assert_eq!(ask(1, "a home", LEADERS, None), "inside g1 [NodeId(2)]");
    assert_eq!(ask(3, "a home", LEADERS, None), "away eu g1 [NodeId(1), NodeId(2)]");
    assert_eq!(ask(1, "a home", [0, 3, 5], None), "NoLeader");
}

#[test]
fn read_stays_in_region_with_replica() {
    assert_eq!(
        ask(1, "a replica", LEADERS, None),
        "here g1",
        "also on a node that does not lead"
    );
    assert_eq!(ask(4, "a replica", [2, 0, 5], None), "here g2", "also without a leader");
    assert_eq!(ask(5, "a replica", LEADERS, None), "here g3");
    assert_eq!(ask(5, "b replica", LEADERS, None), "away us g2 [NodeId(3), NodeId(4)]");
}

#[test]
fn direct_request_is_refused_with_route() {
    let told = ask(5, "b home direct", LEADERS, None);
    assert_eq!(
        told,
        "NotHome { region: \"us\", epoch: Epoch(1), endpoints: [\"us-2:7400\", \"us-3:7400\"] }"
    );
    assert_eq!(
        ask(4, "b home direct", LEADERS, None),
        "inside g2 [NodeId(3)]",
        "the region is home"
    );
}

/// Invariant 1.
#[test]
fn forwarding_stops_at_hop_limit() {
    assert_eq!(
        ask(3, "a home", LEADERS, Some((3, 1, 1))),
        "away eu g1 [NodeId(1), NodeId(2)]"
    );
    assert_eq!(ask(3, "a home", LEADERS, Some((4, 1, 1))), "TenantMoving");
    assert_eq!(
        ask(2, "a home", LEADERS, Some((4, 1, 1))),
        "here g1",
        "the last hop may serve"
    );
}

/// Invariant 2.
#[test]
fn request_of_later_epoch_waits() {
    assert_eq!(ask(3, "a home", LEADERS, Some((1, 2, 2))), "wait 2");
    assert_eq!(
        ask(2, "a home", LEADERS, Some((1, 2, 1))),
        "wait 2",
        "also at what was the home"
    );
}

#[test]
fn forwarded_read_is_served_by_target_group_or_home() {
    assert_eq!(ask(4, "a replica", LEADERS, Some((1, 1, 2))), "here g2");
    assert_eq!(
        ask(4, "a replica", LEADERS, Some((1, 1, 1))),
        "away eu g1 [NodeId(1), NodeId(2)]"
    );
}

#[test]
fn relinquished_source_forwards_to_heir_before_directory_records_it() {
    let relinquished = [record(1, 1, home(2, 4))];
    assert_eq!(
        ask_with(2, "a home", LEADERS, None, &relinquished),
        "away us g2 [NodeId(3), NodeId(4)] epoch 4"
    );
    assert_eq!(
        ask_with(2, "a home", LEADERS, Some((1, 1, 1)), &relinquished),
        "away us g2 [NodeId(3), NodeId(4)] epoch 4",
        "also what another node sent to the old home"
    );
    let told = ask_with(2, "a home direct", LEADERS, None, &relinquished);
    assert!(told.starts_with("NotHome { region: \"us\", epoch: Epoch(4)"), "{told}");
}

#[test]
fn heir_keeps_forwarded_request_until_it_owns_and_never_sends_it_back() {
    let (heir, owner) = ([record(2, 1, None)], [record(2, 4, home(2, 4))]);
    let forwarded = Some((1, 4, 2));
    assert_eq!(ask_with(3, "a home", LEADERS, forwarded, &heir), "wait 4");
    assert_eq!(ask_with(3, "a home", LEADERS, forwarded, &owner), "here g2");
    assert_eq!(
        ask_with(4, "a home", LEADERS, forwarded, &heir),
        "inside g2 [NodeId(3)] epoch 4",
        "a voter that does not lead hands it to the leader, without waiting for its view"
    );
    assert_eq!(ask_with(3, "a home", [2, 0, 5], forwarded, &heir), "wait 4");
}

#[test]
fn owner_serves_before_directory_records_it() {
    let owner = [record(2, 4, home(2, 4))];
    assert_eq!(ask_with(3, "a home", LEADERS, None, &owner), "here g2");
    assert_eq!(
        ask_with(3, "a replica", LEADERS, None, &owner),
        "here g2",
        "reads without a level prefer the home"
    );
}

#[test]
fn view_outranks_record_of_earlier_epoch() {
    let stale = [record(2, 1, home(2, 1))];
    assert_eq!(
        ask_with(3, "a home", LEADERS, None, &stale),
        "away eu g1 [NodeId(1), NodeId(2)]",
        "a directory that records the same epoch elsewhere decides"
    );
}

#[test]
fn promoted_tenant_has_no_home_until_this_node_knows_it() {
    assert_eq!(ask(2, "p home", LEADERS, None), "TenantMoving", "at the old home");
    assert_eq!(ask(3, "p home", LEADERS, Some((1, 1, 1))), "TenantMoving");
    assert_eq!(
        ask(3, "p replica", LEADERS, None),
        "here g2",
        "copies are read meanwhile"
    );
    let activated = [record(2, 2, home(2, 2))];
    assert_eq!(
        ask_with(3, "p home", LEADERS, None, &activated),
        "here g2",
        "a record is ahead of the view"
    );
}
