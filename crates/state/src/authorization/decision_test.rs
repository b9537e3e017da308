use bytes::Bytes;
use proptest::prelude::*;
use stead_types::TenantName;

use super::{
    super::{AccessRole, KeyScope, REQUIREMENTS, Requirement, TenantScope},
    *,
};

fn roles() -> Vec<AccessRole> {
    let texts = [
        "tenant-reader:acme",
        "tenant-reader:acme:a/",
        "tenant-reader:*",
        "tenant-writer:acme",
        "tenant-writer:acme:a/",
        "tenant-admin:acme",
        "region-operator:eu-west",
        "cluster-operator",
        "auditor",
    ];
    texts.map(|text| text.parse().unwrap()).into()
}

/// Names of the roles that allow a need, in the order of [`roles`], by their position.
fn allowed(need: &Need<'_>) -> String {
    let roles = roles();
    let letters = "RrSWwAOCU".chars().zip(&roles);
    let allowed = letters.filter(|(_, role)| decide([*role].into_iter(), need).is_ok());
    allowed.map(|(letter, _)| letter).collect()
}

/// Every role by every need: R reads acme, r its keys a/, S every tenant, W and w write, A administers acme, O operates
/// eu-west, C the cluster, U audits.
#[test]
fn decision_of_every_role_and_need_is_in_table() {
    let (acme, other): (TenantName, TenantName) = ("acme".parse().unwrap(), "other".parse().unwrap());
    let (west, east): (RegionName, RegionName) = ("eu-west".parse().unwrap(), "us-east".parse().unwrap());
    let keys = |tenant, access, range| Need::Keys { tenant, access, range };
    let (read, write) = (KeyAccess::Read, KeyAccess::Write);
    let inside = KeyRange::Range(b"a/", Some(b"a/z"));
    let table = [
        (Need::Credential, "RrSWwAOCU"),
        (keys(&acme, read, KeyRange::Key(b"a/1")), "RrS"),
        (keys(&acme, read, KeyRange::Key(b"b")), "RS"),
        (keys(&acme, read, KeyRange::Key(b"a")), "RS"),
        (keys(&acme, read, inside), "RrS"),
        (keys(&acme, read, KeyRange::Range(b"a/", Some(b"a0"))), "RrS"),
        (keys(&acme, read, KeyRange::Range(b"a/", Some(b"a0\0"))), "RS"),
        (keys(&acme, read, KeyRange::Range(b"a/", None)), "RS"),
        (keys(&acme, read, KeyRange::Range(b"a", Some(b"a/z"))), "RS"),
        (keys(&acme, read, KeyRange::Range(b"", None)), "RS"),
        (keys(&other, read, KeyRange::Key(b"a/1")), "S"),
        (keys(&acme, write, KeyRange::Key(b"a/1")), "Ww"),
        (keys(&acme, write, KeyRange::Key(b"b")), "W"),
        (keys(&acme, write, KeyRange::Range(b"", None)), "W"),
        (keys(&other, write, KeyRange::Key(b"a/1")), ""),
        (Need::Member(&acme), "RrSWwAOCU"),
        (Need::Member(&other), "SOCU"),
        (Need::InspectTenant(&acme), "AOCU"),
        (Need::InspectTenant(&other), "OCU"),
        (Need::AdministerTenant(&acme), "AC"),
        (Need::AdministerTenant(&other), "C"),
        (Need::OperateRegion(&west), "OC"),
        (Need::OperateRegion(&east), "C"),
        (Need::OperateCluster, "C"),
        (Need::Inspect, "OCU"),
        (Need::Audit, "CU"),
    ];
    for (need, expected) in table {
        assert_eq!(allowed(&need), expected, "{need:?}");
    }
}

/// Whoever has no role at all may do nothing but ask who it is.
#[test]
fn caller_without_roles_is_denied() {
    let open: Vec<_> = REQUIREMENTS
        .iter()
        .filter(|(_, requirement)| could_satisfy([].into_iter(), *requirement))
        .map(|(path, _)| path.split_once('/').unwrap().1)
        .collect();
    let needless = ["Check", "Watch"];
    let with_credential = [
        "ServerReflectionInfo",
        "ServerReflectionInfo",
        "GetCaller",
        "ListRegions",
    ];
    assert_eq!(open, [&needless[..], &with_credential[..]].concat());
}

/// A method that the first look refuses, no message could make allowed; one that it lets pass, some message could.
#[test]
fn first_look_agrees_with_decision() {
    let acme: TenantName = "acme".parse().unwrap();
    let west: RegionName = "eu-west".parse().unwrap();
    let key = |access| Need::Keys {
        tenant: &acme,
        access,
        range: KeyRange::Key(b"a/1"),
    };
    let needs = |requirement| match requirement {
        Requirement::Nothing | Requirement::Credential => vec![Need::Credential],
        Requirement::ReadKeys => vec![key(KeyAccess::Read)],
        Requirement::WriteKeys => vec![key(KeyAccess::Write)],
        Requirement::AccessKeys => vec![key(KeyAccess::Read), key(KeyAccess::Write)],
        Requirement::Member => vec![Need::Member(&acme)],
        Requirement::InspectTenant => vec![Need::InspectTenant(&acme)],
        Requirement::AdministerTenant => vec![Need::AdministerTenant(&acme)],
        Requirement::OperateRegion => vec![Need::OperateRegion(&west)],
        Requirement::OperateCluster => vec![Need::OperateCluster],
        Requirement::Inspect => vec![Need::Inspect],
        Requirement::Audit => vec![Need::Audit],
    };
    for (path, requirement) in REQUIREMENTS {
        for role in &roles() {
            let possible = needs(*requirement)
                .iter()
                .any(|need| decide([role].into_iter(), need).is_ok());
            assert_eq!(
                could_satisfy([role].into_iter(), *requirement),
                possible,
                "{path} as {role}"
            );
        }
    }
}

#[test]
fn denial_names_role_and_no_key() {
    let acme: TenantName = "acme".parse().unwrap();
    let need = Need::Keys {
        tenant: &acme,
        access: KeyAccess::Read,
        range: KeyRange::Key(b"secret-key"),
    };
    let denial = decide([].into_iter(), &need).unwrap_err();
    assert_eq!(
        denial.to_string(),
        "needs the role tenant-reader:acme with a prefix that covers the keys"
    );
    assert!(!format!("{denial:?} {need:?}").contains("secret"));
}

proptest! {
    /// Invariant 2: a range is allowed exactly if no key outside the prefix could be in it.
    #[test]
    fn range_is_allowed_only_inside_prefix(
        prefix in prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..3),
        start in prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..4),
        end in prop::option::of(prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..4)),
        key in prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(8), Just(255)], 0..5),
    ) {
        let acme: TenantName = "acme".parse().unwrap();
        let scope = KeyScope { tenant: TenantScope::Named(acme.clone()), prefix: Bytes::from(prefix.clone()) };
        let role = AccessRole::TenantReader(scope);
        let range = KeyRange::Range(&start, end.as_deref());
        let need = Need::Keys { tenant: &acme, access: KeyAccess::Read, range };
        let is_allowed = decide([&role].into_iter(), &need).is_ok();
        let contains = start <= key && end.as_ref().is_none_or(|end| &key < end);
        prop_assert!(!(is_allowed && contains && !key.starts_with(&prefix)));
        // The whole prefix is allowed.
        let after = prefix_end(&prefix);
        let whole = KeyRange::Range(&prefix, after.as_deref());
        let need = Need::Keys { tenant: &acme, access: KeyAccess::Read, range: whole };
        prop_assert!(decide([&role].into_iter(), &need).is_ok());
    }
}

fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}
