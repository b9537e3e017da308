//! Pages of forks, and messages of their keys.

use stead_state::shard::read::{ForkClass, ForkEffect};
use stead_types::TenantTime;

use super::*;

fn listed(group: u32, tenant_number: u64, number: u32) -> admin::Fork {
    admin::Fork {
        group,
        tenant_number,
        number,
        ..admin::Fork::default()
    }
}

fn position(group: u32, tenant: u64, fork: u32) -> ForkPosition {
    ForkPosition { group, tenant, fork }
}

fn group_page(forks: &[(u32, u64, u32)], next: Option<ForkPosition>) -> Option<GroupPage> {
    let forks = forks.iter().map(|(group, tenant, fork)| listed(*group, *tenant, *fork));
    Some(GroupPage {
        forks: forks.collect(),
        next,
    })
}

#[test]
fn page_of_forks_ends_at_its_size_and_names_silent_groups() {
    let answers = || {
        vec![
            (1, group_page(&[(1, 7, 2), (1, 9, 1)], None)),
            (2, None),
            (3, group_page(&[(3, 1, 4), (3, 1, 5)], None)),
        ]
    };
    let numbers = |page: &GroupPage| page.forks.iter().map(ForkPosition::of).collect::<Vec<_>>();
    let all = [
        position(1, 7, 2),
        position(1, 9, 1),
        position(3, 1, 4),
        position(3, 1, 5),
    ];
    for size in 1..=5 {
        let (page, silent) = join(answers(), size);
        assert_eq!(numbers(&page), all[..size.min(4)], "{size}");
        assert_eq!(page.next, all.get(size).copied(), "{size}");
        assert_eq!(silent, [2]);
    }
    // A group that has more of them ends the page, whatever the next one has.
    let more = position(1, 9, 2);
    let answers = vec![
        (1, group_page(&[(1, 7, 2)], Some(more))),
        (3, group_page(&[(3, 1, 4)], None)),
    ];
    let (page, _) = join(answers, 5);
    assert_eq!((numbers(&page), page.next), (vec![position(1, 7, 2)], Some(more)));
}

#[test]
fn token_of_forks_is_read_by_same_request_only() {
    let request = admin::ListForksRequest {
        tenant: "acme".into(),
        ..Default::default()
    };
    assert_eq!(ForkPosition::from_token(&request), Ok(ForkPosition::default()));
    let at = position(3, 1 << 40, 5);
    let page_token = at.to_token(&request);
    let next = admin::ListForksRequest {
        page_token: page_token.clone(),
        page_size: 7,
        ..request.clone()
    };
    assert_eq!(ForkPosition::from_token(&next), Ok(at));
    let other = admin::ListForksRequest {
        group: Some(3),
        page_token,
        ..request
    };
    assert!(ForkPosition::from_token(&other).is_err());
}

#[test]
fn token_of_keys_is_read_by_same_request_only() {
    let request = admin::ListForkEntriesRequest {
        tenant: "acme".into(),
        group: 3,
        fork: 5,
        ..Default::default()
    };
    assert_eq!(place(&request), Ok(None));
    let at = ForkPlace {
        sequence: Sequence::new(1 << 33).unwrap(),
        effect: 511,
    };
    let next = admin::ListForkEntriesRequest {
        page_token: place_token(&request, at),
        ..request.clone()
    };
    assert_eq!(place(&next), Ok(Some(at)));
    assert!(place(&admin::ListForkEntriesRequest { fork: 6, ..next }).is_err());
    let short = convert::page::token(&entry_arguments(&request), b"short");
    let short = admin::ListForkEntriesRequest {
        page_token: short,
        ..request
    };
    assert!(place(&short).is_err());
}

fn value(bytes: &'static str) -> Value {
    Value {
        create: "1.2".parse().unwrap(),
        version: 2,
        expires: Some(TenantTime(9_500)),
        bytes: Bytes::from_static(bytes.as_bytes()),
    }
}

fn version(revision: &str, bytes: &'static str) -> Version {
    Version {
        revision: revision.parse().unwrap(),
        value: value(bytes),
    }
}

fn key(before: AtForkPoint, cut: Option<Value>, live: Option<Version>) -> ForkKey {
    ForkKey {
        revision: "1.6".parse().unwrap(),
        time: TenantTime(1_500),
        class: ForkClass::Conflict,
        found: None,
        effect: ForkEffect {
            key: Bytes::from_static(b"k"),
            before,
            cut,
            live,
        },
    }
}

#[test]
fn key_of_fork_shows_value_at_fork_point_cut_and_live() {
    let before = AtForkPoint::Known(Some(version("1.4", "before")));
    let shown = entry(key(before, Some(value("cut")), Some(version("2.6", "live"))), true);
    let item = |item: &Option<stead_api::proto::v1::KeyValue>| {
        let item = item.clone()?;
        let revision = item.mod_revision?;
        Some((item.key, item.value, revision.epoch, revision.sequence))
    };
    let expected = |value: &'static str, epoch, sequence| {
        let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(value.as_bytes()));
        Some((key, value, epoch, sequence))
    };
    assert_eq!(item(&shown.at_fork_point), expected("before", 1, 4));
    assert_eq!(item(&shown.cut), expected("cut", 1, 6));
    assert_eq!(item(&shown.live), expected("live", 2, 6));
    assert_eq!(shown.class(), admin::ForkClass::Conflict);
    assert!(!shown.at_fork_point_unknown);
    let time = shown.time.unwrap();
    assert_eq!((time.seconds, time.nanos), (1, 500_000_000));
    let delete = entry(key(AtForkPoint::Unknown, None, None), true);
    assert_eq!((delete.cut, delete.at_fork_point, delete.live), (None, None, None));
    assert!(delete.at_fork_point_unknown);
}

#[test]
fn key_of_fork_has_no_class_without_live_copy() {
    let live = Some(version("2.6", "live"));
    let shown = entry(key(AtForkPoint::Known(None), Some(value("cut")), live), false);
    assert_eq!((shown.class(), shown.live), (admin::ForkClass::Unspecified, None));
    assert!(shown.cut.is_some());
}
