//! Scripts of changes of nodes and regions.

use super::{
    directory_test::{World, by, create, erased_everywhere, hex, named, new, uncounted, update},
    *,
};
use stead_types::{NodeId, RegionName};

const TOKEN: u128 = 7;

fn id(number: u64) -> NodeId {
    NodeId::new(number)
}

fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

/// Three regions, at the feature level of changes of the topology: nodes 1 and 4 in us-east, 2 and 5 in eu-west, 3 in
/// ap-south.
fn world() -> World {
    let mut world = World::begun();
    let all = world.directory.view().nodes().map(|node| node.number).collect();
    let raise = Command::RaiseFeatureLevel(by(), FEATURE_LEVEL_MAX, all);
    world.apply(raise).unwrap();
    world
}

fn begin(world: &mut World, request: TopologyRequest) -> Result<u64, Rejection> {
    let begun = world.apply(Command::Topology(TopologyCommand::Begin(by(), request)))?;
    let DirectoryOutcome::Operation(operation) = begun else {
        panic!("{begun:?}");
    };
    Ok(operation)
}

fn add(name: &str, of: &str) -> TopologyRequest {
    TopologyRequest::AddNode {
        name: name.into(),
        region: region(of),
        witness: false,
    }
}

fn replace(old: u64, name: &str) -> TopologyRequest {
    TopologyRequest::ReplaceNode {
        old: id(old),
        name: name.into(),
    }
}

fn remove(node: u64, accept_less: bool) -> TopologyRequest {
    let node = id(node);
    TopologyRequest::RemoveNode { node, accept_less }
}

fn join(world: &mut World, name: &str, token: u128) -> DirectoryResult {
    let node = NewNode {
        name: name.into(),
        region: region("us-east"),
        addresses: Addresses {
            client: format!("{name}:1"),
            peer: format!("{name}:2"),
            http: String::new(),
        },
        witness: false,
        token,
    };
    world.apply(Command::Join(by(), node))
}

fn advance(world: &mut World) -> bool {
    let due = world.directory.due_topology_change(&[]);
    if let Some(operation) = due {
        let command = TopologyCommand::Advance(operation, Vec::new());
        world.apply(Command::Topology(command)).unwrap();
    }
    due.is_some()
}

fn confirm(world: &mut World, group: GroupId, voters: Vec<NodeId>) -> DirectoryResult {
    let incarnation = world.directory.view().group(group).unwrap().incarnation;
    let confirmed = ConfirmVoters {
        group,
        incarnation,
        voters,
    };
    world.apply(Command::Topology(TopologyCommand::ConfirmVoters(confirmed)))
}

/// Does all that the directory's leader and the groups' leaders do, until nothing is due.
fn settle(world: &mut World) {
    loop {
        while advance(world) {}
        if world.directory.needs_member_refresh() {
            world.apply(Command::RefreshMembers).unwrap();
            continue;
        }
        let view = world.directory.view();
        let changing = view
            .groups()
            .find_map(|group| Some((group.number, group.change.clone()?)));
        let Some((group, change)) = changing else { return };
        let voters = if change.withdrawn {
            world.directory.view().group(group).unwrap().voters.clone()
        } else {
            change.voters
        };
        confirm(world, group, voters).unwrap();
    }
}

fn voters(world: &World, group: u32) -> Vec<u64> {
    let group = world.directory.view().group(GroupId::new(group)).unwrap();
    group.voters.iter().map(|voter| voter.get()).collect()
}

fn end(world: &World, operation: u64) -> Option<OperationResult> {
    let operation = world.directory.operations().get(operation).unwrap();
    operation.end.as_ref().map(|end| end.result.clone())
}

fn refused(result: Result<u64, Rejection>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn replaced_node_passes_its_votes_to_a_new_number() {
    let mut world = world();
    let operation = begin(&mut world, replace(1, "")).unwrap();
    assert!(!advance(&mut world), "it waits for the node");
    let old = world.directory.view().node(id(1)).unwrap().name.clone();
    assert_eq!(old, "a~n1");
    assert_eq!(world.directory.view().node(id(1)).unwrap().given_name(), "a");
    assert_eq!(join(&mut world, "a", TOKEN), Ok(DirectoryOutcome::Node(id(6))));
    settle(&mut world);
    assert_eq!(end(&world, operation), Some(OperationResult::Succeeded));
    assert_eq!((voters(&world, 0), voters(&world, 1)), (vec![2, 3, 6], vec![4, 6]));
    assert_eq!(world.directory.view().node(id(1)), None);
    let again = begin(&mut world, replace(6, "")).unwrap();
    assert_eq!(
        join(&mut world, "a", TOKEN + 1),
        Ok(DirectoryOutcome::Node(id(7))),
        "no number twice"
    );
    settle(&mut world);
    assert_eq!(end(&world, again), Some(OperationResult::Succeeded));
}

#[test]
fn row_of_a_node_stays_until_no_group_has_it() {
    let mut world = world();
    begin(&mut world, replace(1, "")).unwrap();
    join(&mut world, "a", TOKEN).unwrap();
    while advance(&mut world) {}
    for group in [1, 2] {
        assert!(world.directory.view().node(id(1)).is_some(), "invariant 3");
        let change = world
            .directory
            .view()
            .group(GroupId::new(group))
            .unwrap()
            .change
            .clone();
        let stale = confirm(&mut world, GroupId::new(group), vec![id(4)]);
        assert_eq!(stale, Err(Rejection::StaleReport), "voters that nobody asked for");
        confirm(&mut world, GroupId::new(group), change.unwrap().voters).unwrap();
        while advance(&mut world) {}
    }
    let directory = world.directory.view().group(GroupId::DIRECTORY).unwrap();
    assert!(directory.change.is_some(), "the directory is last");
    assert!(world.directory.view().node(id(1)).is_some());
    settle(&mut world);
    assert!(world.directory.view().node(id(1)).is_none());
}

#[test]
fn join_needs_an_announcement_and_its_token() {
    let mut world = world();
    let unknown = join(&mut world, "x", TOKEN).unwrap_err().to_string();
    assert!(unknown.contains("node x was not announced"), "{unknown}");
    begin(&mut world, add("x", "ap-south")).unwrap();
    assert_eq!(join(&mut world, "x", TOKEN), Ok(DirectoryOutcome::Node(id(6))));
    assert_eq!(
        join(&mut world, "x", TOKEN),
        Ok(DirectoryOutcome::Node(id(6))),
        "asked again"
    );
    let other = join(&mut world, "x", TOKEN + 1).unwrap_err().to_string();
    assert!(other.contains("from another data directory"), "{other}");
    let region = &world.directory.view().node(id(6)).unwrap().region;
    assert_eq!(region.as_str(), "ap-south", "as it was announced");
    for name in ["x", "a", "", "Ü", "a b"] {
        assert!(begin(&mut world, add(name, "ap-south")).is_err(), "{name:?}");
    }
    assert!(refused(begin(&mut world, add("y", "nowhere"))).contains("no region nowhere"));
}

#[test]
fn region_of_one_grows_to_three_and_the_second_node_waits() {
    let mut world = world();
    for (name, expected) in [("x", vec![3]), ("y", vec![3, 6, 7])] {
        let operation = begin(&mut world, add(name, "ap-south")).unwrap();
        join(&mut world, name, TOKEN).unwrap();
        settle(&mut world);
        assert_eq!(end(&world, operation), Some(OperationResult::Succeeded));
        assert_eq!(voters(&world, 5), expected);
    }
    assert_eq!(voters(&world, 0), [1, 2, 3], "the directory keeps its voters");
}

#[test]
fn removal_that_costs_redundancy_is_refused_unless_accepted() {
    let mut world = world();
    for name in ["x", "y"] {
        begin(&mut world, add(name, "ap-south")).unwrap();
        join(&mut world, name, TOKEN).unwrap();
        settle(&mut world);
    }
    let less = refused(begin(&mut world, remove(6, false)));
    assert!(
        less.contains("without node n6 group g5 has 2 voters and may lose 0"),
        "{less}"
    );
    begin(&mut world, remove(6, true)).unwrap();
    assert!(refused(begin(&mut world, remove(6, true))).contains("changes node n6 already"));
    settle(&mut world);
    assert_eq!(voters(&world, 5), [3, 7]);
    begin(&mut world, remove(3, true)).unwrap();
    settle(&mut world);
    assert_eq!((voters(&world, 5), voters(&world, 0)), (vec![7], vec![1, 2, 7]));
    let last = refused(begin(&mut world, remove(7, true)));
    assert!(last.contains("the last one of region ap-south"), "{last}");
    assert!(begin(&mut world, remove(99, true)).is_err());
}

#[test]
fn change_is_cancelled_until_a_group_has_changed() {
    let cancel = |world: &mut World, operation| world.apply(Command::AbortMove(by(), operation));
    let mut world = world();
    let waiting = begin(&mut world, replace(1, "z")).unwrap();
    cancel(&mut world, waiting).unwrap();
    settle(&mut world);
    assert_eq!(end(&world, waiting), Some(OperationResult::Cancelled));
    assert!(
        world.directory.view().node(id(6)).is_none(),
        "what was announced is gone"
    );
    let changing = begin(&mut world, replace(1, "z")).unwrap();
    join(&mut world, "z", TOKEN).unwrap();
    while advance(&mut world) {}
    cancel(&mut world, changing).unwrap();
    let change = world.directory.view().group(GroupId::new(1)).unwrap().change.clone();
    assert!(change.unwrap().withdrawn);
    settle(&mut world);
    assert_eq!(end(&world, changing), Some(OperationResult::Cancelled));
    assert_eq!(
        (voters(&world, 1), world.directory.view().node(id(7))),
        (vec![1, 4], None)
    );
    let late = begin(&mut world, replace(1, "z")).unwrap();
    join(&mut world, "z", TOKEN).unwrap();
    while advance(&mut world) {}
    let voters = world
        .directory
        .view()
        .group(GroupId::new(1))
        .unwrap()
        .change
        .clone()
        .unwrap()
        .voters;
    confirm(&mut world, GroupId::new(1), voters).unwrap();
    let begun = cancel(&mut world, late).unwrap_err();
    assert_eq!(begun, TopologyRejection::Begun(late).into());
    settle(&mut world);
    assert_eq!(end(&world, late), Some(OperationResult::Succeeded));
}

#[test]
fn region_is_added_followed_and_removed() {
    let mut world = world();
    world.apply(create(new("acme", "eu-west"))).unwrap();
    let request = |nodes: &[&str]| TopologyRequest::AddRegion {
        region: region("sa-east"),
        jurisdiction: "BR".parse().unwrap(),
        nodes: nodes.iter().map(|name| (*name).to_owned()).collect(),
        witness: false,
    };
    assert!(begin(&mut world, request(&[])).is_err());
    assert!(begin(&mut world, request(&["s", "s"])).is_err());
    let added = begin(&mut world, request(&["s"])).unwrap();
    assert!(refused(begin(&mut world, request(&["t"]))).contains("region sa-east exists already"));
    join(&mut world, "s", TOKEN).unwrap();
    settle(&mut world);
    assert_eq!(end(&world, added), Some(OperationResult::Succeeded));
    assert_eq!((voters(&world, 7), voters(&world, 0)), (vec![6], vec![1, 2, 3, 6]));
    assert!(world.tenant("acme").has(GroupId::new(7)), "followed there");

    let leave = || TopologyRequest::RemoveRegion {
        region: region("sa-east"),
        lost: false,
    };
    world.apply(create(new("there", "sa-east"))).unwrap();
    assert!(refused(begin(&mut world, leave())).contains("1 tenants are at home in region sa-east"));
    world
        .apply(Command::UpdateTenant(
            by(),
            TenantUpdate {
                enabled: Some(false),
                ..update("there")
            },
        ))
        .unwrap();
    world
        .apply(Command::EraseTenant(by(), "there".parse().unwrap(), None))
        .unwrap();
    erased_everywhere(&mut world, 2);
    let follow = |followers| TenantUpdate {
        followers: Some(followers),
        ..update("acme")
    };
    world
        .apply(Command::UpdateTenant(by(), follow(named(&["sa-east"]))))
        .unwrap();
    assert!(refused(begin(&mut world, leave())).contains("tenant acme names region sa-east"));
    world
        .apply(Command::UpdateTenant(by(), follow(Followers::AllAdmitted)))
        .unwrap();
    let removed = begin(&mut world, leave()).unwrap();
    assert!(begin(&mut world, add("u", "sa-east")).is_err(), "it is being removed");
    settle(&mut world);
    assert_eq!(end(&world, removed), None, "it waits until its copies are erased");
    erased_everywhere(&mut world, 1);
    settle(&mut world);
    assert_eq!(end(&world, removed), Some(OperationResult::Succeeded));
    let view = world.directory.view();
    assert!(view.region(&region("sa-east")).is_none() && view.node(id(6)).is_none());
    assert_eq!(voters(&world, 0), [1, 2, 3]);
}

#[test]
fn region_of_witnesses_votes_with_two_regions_and_leaves() {
    let mut world = world();
    let leave = |name: &str| TopologyRequest::RemoveRegion {
        region: region(name),
        lost: false,
    };
    begin(&mut world, leave("ap-south")).unwrap();
    settle(&mut world);
    let request = TopologyRequest::AddRegion {
        region: region("witness"),
        jurisdiction: "XX".parse().unwrap(),
        nodes: vec!["w".into()],
        witness: true,
    };
    let added = begin(&mut world, request.clone()).unwrap();
    join(&mut world, "w", TOKEN).unwrap();
    settle(&mut world);
    assert_eq!(end(&world, added), Some(OperationResult::Succeeded));
    assert_eq!(voters(&world, 0), [1, 2, 6], "one of each region, and the witness");
    assert!(world.directory.view().groups_of(&region("witness")).next().is_none());
    assert!(refused(begin(&mut world, TopologyRequest::AddGroup(region("witness")))).contains("witness"));
    assert!(world.apply(create(new("acme", "witness"))).is_err());
    let removed = begin(&mut world, leave("witness")).unwrap();
    settle(&mut world);
    assert_eq!(end(&world, removed), Some(OperationResult::Succeeded));
    let view = world.directory.view();
    assert!(view.region(&region("witness")).is_none() && view.node(id(6)).is_none());
    assert_eq!(voters(&world, 0).len(), 3, "a node of the two regions is the third");
    // Cancelled before the node has joined: nothing is left.
    let waiting = begin(&mut world, request).unwrap();
    world.apply(Command::AbortMove(by(), waiting)).unwrap();
    settle(&mut world);
    assert!(world.directory.view().region(&region("witness")).is_none());
}

#[test]
fn group_is_added_and_over_once_its_leader_has_confirmed_it() {
    let mut world = world();
    for name in ["x", "y", "z"] {
        begin(&mut world, add(name, "ap-south")).unwrap();
        join(&mut world, name, TOKEN).unwrap();
        settle(&mut world);
    }
    assert_eq!(voters(&world, 5), [3, 6, 7]);
    let request = || TopologyRequest::AddGroup(region("ap-south"));
    let added = begin(&mut world, request()).unwrap();
    while advance(&mut world) {}
    assert_eq!(voters(&world, 7), [3, 6, 8], "nodes with fewer groups come first");
    assert_eq!(end(&world, added), None, "it has not formed yet");
    world.apply(create(new("zeroth", "ap-south"))).unwrap();
    world.apply(create(new("first", "ap-south"))).unwrap();
    world.apply(create(new("zero", "ap-south"))).unwrap();
    assert!(
        ["zeroth", "first", "zero"]
            .iter()
            .all(|name| world.tenant(name).home.get() < 7)
    );
    world.apply(create(new("there", "eu-west"))).unwrap();
    assert!(!world.tenant("there").has(GroupId::new(7)), "nothing is placed in it");
    let into = MoveRequest {
        name: "first".parse().unwrap(),
        etag: None,
        to: MoveTarget::Group(GroupId::new(7)),
        source: SourceAfterMove::Policy,
        unreachable: Vec::new(),
    };
    let moved = world.apply(Command::MoveTenant(by(), into)).unwrap_err().to_string();
    assert!(moved.contains("group 7 has not formed"), "{moved}");
    let (region_of_group, lost) = (region("ap-south"), true);
    let removal = TopologyRequest::RemoveRegion {
        region: region_of_group,
        lost,
    };
    let removed = refused(begin(&mut world, removal));
    assert!(removed.contains("group 7 has not formed"), "{removed}");
    world.apply(Command::AbortMove(by(), added)).unwrap();
    settle(&mut world);
    assert_eq!(end(&world, added), Some(OperationResult::Cancelled));
    assert_eq!(world.directory.view().group(GroupId::new(7)), None);
    let added = begin(&mut world, request()).unwrap();
    settle(&mut world);
    assert_eq!(end(&world, added), Some(OperationResult::Succeeded));
    assert!(world.apply(Command::AbortMove(by(), added)).is_err(), "it is over");
    world.apply(create(new("second", "ap-south"))).unwrap();
    world.apply(create(new("third", "ap-south"))).unwrap();
    let homes = ["second", "third"].map(|name| world.tenant(name).home.get());
    assert_eq!(
        homes,
        [8, 6],
        "new tenants come to the group with the fewest, whose number is new"
    );
    for _ in 3..16 {
        begin(&mut world, request()).unwrap();
    }
    assert!(refused(begin(&mut world, request())).contains("has 16 groups"));
    assert!(refused(begin(&mut world, TopologyRequest::AddGroup(region("nowhere")))).contains("no region nowhere"));
}

#[test]
fn lost_region_is_removed_without_its_word_while_none_of_its_nodes_answers() {
    let begun = |lost| {
        let mut world = world();
        world.apply(create(new("acme", "eu-west"))).unwrap();
        let region = region("ap-south");
        let operation = begin(&mut world, TopologyRequest::RemoveRegion { region, lost }).unwrap();
        settle(&mut world);
        (world, operation)
    };
    let advance = |world: &mut World, unreachable: &[NodeId]| {
        let due = world.directory.due_topology_change(unreachable);
        if let Some(operation) = due {
            let command = TopologyCommand::Advance(operation, unreachable.to_vec());
            world.apply(Command::Topology(command)).unwrap();
        }
        due
    };
    let (mut world, _) = begun(false);
    uncounted(&mut world, 1);
    assert_eq!(
        advance(&mut world, &[id(3)]),
        None,
        "its copies are erased by its own word"
    );
    let (mut world, lost) = begun(true);
    assert_eq!(
        advance(&mut world, &[id(3)]),
        None,
        "invariant 4: the home counts the copy"
    );
    uncounted(&mut world, 1);
    assert_eq!(advance(&mut world, &[id(4)]), None, "invariant 4: a node answers");
    assert_eq!(advance(&mut world, &[id(3)]), Some(lost));
    assert!(!world.tenant("acme").has(GroupId::new(5)));
    let evidence = world.directory.evidence().tenant(world.tenant("acme").number);
    assert!(
        evidence.is_none_or(|of| of.erased.is_empty()),
        "a lost disk is no erased one"
    );
    while advance(&mut world, &[id(3)]).is_some() {}
    settle(&mut world);
    assert_eq!(end(&world, lost), Some(OperationResult::Succeeded));
    let view = world.directory.view();
    assert!(view.region(&region("ap-south")).is_none() && view.node(id(3)).is_none());
}

#[test]
fn recovered_directory_gets_its_voters_back() {
    let mut world = world();
    let nothing = refused(begin(&mut world, TopologyRequest::RestoreDirectory));
    assert!(nothing.contains("nothing is to be restored"), "{nothing}");
    let request = RecoveryRequest {
        founder: id(2),
        lease_ttl_ms: 0,
        by: by(),
    };
    world.recover(&request).unwrap();
    assert_eq!(voters(&world, 0), [2]);
    let operation = begin(&mut world, TopologyRequest::RestoreDirectory).unwrap();
    settle(&mut world);
    assert_eq!(end(&world, operation), Some(OperationResult::Succeeded));
    assert_eq!(voters(&world, 0), [1, 2, 3]);
}

#[test]
fn earlier_feature_level_refuses_changes() {
    let mut world = World::begun();
    let early = refused(begin(&mut world, add("x", "ap-south")));
    assert!(early.contains("this needs feature level 5"), "{early}");
    let early = refused(begin(&mut world, TopologyRequest::AddGroup(region("ap-south"))));
    assert!(early.contains("this needs feature level 6"), "{early}");
}

/// Bytes of feature level 6.
#[test]
fn encoding_of_growth_is_fixed() {
    let author = "03616e6e0474657374";
    let request = |request| {
        let command = Command::Topology(TopologyCommand::Begin(by(), request));
        let bytes = command.encode();
        assert_eq!(Command::decode(bytes[0], bytes.slice(1..)), Ok(command.clone()));
        hex(&command.encode())
    };
    let witnesses = TopologyRequest::AddRegion {
        region: region("eu"),
        jurisdiction: "EU".parse().unwrap(),
        nodes: vec!["w".into()],
        witness: true,
    };
    assert_eq!(request(witnesses), format!("3f00{author}06026575024555010177"));
    assert_eq!(
        request(TopologyRequest::AddGroup(region("eu"))),
        format!("3f00{author}07026575")
    );
}

/// Bytes that logs, rows and views of feature level 5 may hold: a changed form needs a new kind.
#[test]
fn encoding_of_topology_is_fixed() {
    let author = "03616e6e0474657374";
    let command = |command| hex(&Command::Topology(command).encode());
    assert_eq!(
        command(TopologyCommand::Begin(by(), remove(7, true))),
        format!("3f00{author}020701")
    );
    assert_eq!(
        command(TopologyCommand::Begin(by(), replace(7, "x"))),
        format!("3f00{author}01070178")
    );
    assert_eq!(command(TopologyCommand::Advance(7, vec![id(3)])), "3f01070103");
    let confirmed = ConfirmVoters {
        group: GroupId::new(1),
        incarnation: Incarnation::FIRST,
        voters: vec![id(2), id(3)],
    };
    assert_eq!(command(TopologyCommand::ConfirmVoters(confirmed)), "3f020101020203");
    let group = Group {
        number: GroupId::new(1),
        region: Some(region("eu")),
        voters: vec![id(1), id(2)],
        incarnation: Incarnation::FIRST,
        change: Some(VoterChange {
            voters: vec![id(1), id(5)],
            operation: 9,
            withdrawn: false,
        }),
    };
    let leaving = Region {
        leaving: true,
        ..Region::new(region("eu"), "EU".parse().unwrap())
    };
    for (change, bytes) in [
        (DirectoryChange::Group(group), "030101026575020102010201050900"),
        (DirectoryChange::Region(leaving), "010265750245550000 0001"),
        (DirectoryChange::NodeGone(id(3)), "080000000000000003"),
        (DirectoryChange::GroupGone(GroupId::new(7)), "0900000007"),
        (DirectoryChange::RegionGone(region("eu")), "0a026575"),
    ] {
        assert_eq!(hex(&change.encode()), bytes.replace(' ', ""), "{change:?}");
        assert_eq!(DirectoryChange::decode(change.encode()), Ok(change));
    }
}
