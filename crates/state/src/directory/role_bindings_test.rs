use stead_types::NodeId;

use super::{
    super::{
        CallRecord, Command, FEATURE_LEVEL_MAX, RecordedOutcome,
        directory_test::{World, by, hex},
    },
    *,
};

fn grant(subject: &str, role: &str) -> RoleGrant {
    RoleGrant {
        subject: subject.parse().unwrap(),
        role: role.parse().unwrap(),
    }
}

fn granted(subject: &str, role: &str) -> Command {
    Command::GrantRole(by(), grant(subject, role))
}

fn raised() -> World {
    let mut world = World::begun();
    let all = (1..=5).map(NodeId::new).collect();
    world
        .apply(Command::RaiseFeatureLevel(by(), FEATURE_LEVEL_MAX, all))
        .unwrap();
    world
}

#[test]
fn role_is_bound_until_it_is_revoked() {
    let mut world = World::begun();
    let early = world.apply(granted("client/billing", "auditor")).unwrap_err();
    assert!(matches!(early, Rejection::FeatureLevel { needed: 5, .. }), "{early}");
    let mut world = raised();
    for role in ["tenant-reader:acme", "auditor", "auditor"] {
        world.apply(granted("client/billing", role)).unwrap();
    }
    let subject: Subject = "client/billing".parse().unwrap();
    let roles = |world: &World| {
        let bindings = world.directory.view().role_bindings().clone();
        let roles = bindings.roles(&subject).iter().map(ToString::to_string);
        roles.collect::<Vec<_>>()
    };
    assert_eq!(roles(&world), ["tenant-reader:acme", "auditor"]);
    let revoke = |role| Command::RevokeRole(by(), grant("client/billing", role));
    let unbound = world.apply(revoke("cluster-operator")).unwrap_err();
    assert_eq!(unbound, Rejection::RoleNotBound("client/billing".into()));
    world.apply(revoke("auditor")).unwrap();
    assert_eq!(roles(&world), ["tenant-reader:acme"]);
    world.apply(revoke("tenant-reader:acme")).unwrap();
    assert_eq!(
        world.directory.view().role_bindings().after(None).count(),
        0,
        "invariant 1"
    );
    let records = world.directory.audit().newest_first();
    let actions: Vec<&str> = records.take(4).map(|record| &record.action[..]).collect();
    // A role that was there already changed nothing.
    assert_eq!(
        actions,
        [
            "revoke tenant-reader:acme",
            "revoke auditor",
            "grant auditor",
            "grant tenant-reader:acme"
        ]
    );
}

#[test]
fn roles_of_subject_are_bounded() {
    let mut world = raised();
    for number in 0..SUBJECT_ROLES_MAX {
        world
            .apply(granted("client/a", &format!("tenant-reader:t{number}")))
            .unwrap();
    }
    let full = world.apply(granted("client/a", "auditor")).unwrap_err();
    assert_eq!(full, Rejection::RoleBindingsFull);
    world.apply(granted("client/b", "auditor")).unwrap();
}

#[test]
fn calls_are_in_audit_and_displace_no_change() {
    let mut world = raised();
    let changes = world.directory.audit().newest_first().count();
    let refusal = |count| CallRecord {
        who: "client/billing".into(),
        method: "stead.admin.v1.PromotionService/Promote".into(),
        reason: "needs the role cluster-operator".into(),
        node: "eu-west-1".into(),
        count,
        outcome: RecordedOutcome::Refused,
    };
    for _ in 0..1_200 {
        world.apply(Command::RecordCalls(vec![refusal(1), refusal(7)])).unwrap();
    }
    let audit = world.directory.audit();
    let refused = audit.newest_first().filter(|record| record.is_of_calls).count();
    assert_eq!((refused, audit.newest_first().count() - refused), (2_000, changes));
    let newest = audit.newest_first().next().unwrap();
    assert_eq!(newest.action, "refused 7 times at eu-west-1");
    let numbers: Vec<u64> = audit.newest_first().map(|record| record.number).collect();
    assert!(numbers.is_sorted_by(|newer, older| newer > older));
}

#[test]
fn encoding_of_role_commands_stays() {
    let by_len = 1 + by().who.len() + 1 + by().reason.len();
    let bytes = granted("client/a", "auditor").encode();
    assert_eq!(bytes[0], 60);
    assert_eq!(hex(&bytes[1 + by_len..]), "08636c69656e742f610761756469746f72");
    let revoked = Command::RevokeRole(by(), grant("client/a", "auditor"));
    assert_eq!(revoked.encode()[0], 61);
    let refusal = CallRecord {
        who: "a".into(),
        method: "b".into(),
        reason: "c".into(),
        node: "d".into(),
        count: 300,
        outcome: RecordedOutcome::Emergency,
    };
    assert_eq!(
        hex(&Command::RecordCalls(vec![refusal]).encode()),
        "3e0101610162016301 64ac0201".replace(' ', "")
    );
    let binding = RoleBinding {
        subject: "client/a".parse().unwrap(),
        roles: vec!["auditor".parse().unwrap()],
    };
    let change = DirectoryChange::Roles(binding);
    assert_eq!(hex(&change.encode()), "0708636c69656e742f61010761756469746f72");
    assert_eq!(DirectoryChange::decode(change.encode()), Ok(change));
}
