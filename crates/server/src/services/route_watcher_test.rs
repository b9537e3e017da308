//! Tests of watches of routes, without a network.

use futures::FutureExt;
use stead_state::directory::{DirectoryChange, Group, Region};
use stead_types::{GroupId, Incarnation, TenantNumber};

use super::*;

const HOME: GroupId = GroupId::new(1);

/// A directory view that a test changes.
struct Fixture {
    view: SharedDirectoryView,
    index: u64,
}

impl Fixture {
    /// Returns a view with one region and tenants `t1`, `t2`, … at its group.
    fn of(tenants: u64) -> Self {
        let region = Region {
            name: "eu-west".parse().unwrap(),
            jurisdiction: "EU".parse().unwrap(),
            drains: Box::default(),
            rehearsed: None,
            leaving: false,
        };
        let group = Group {
            number: HOME,
            region: Some(region.name.clone()),
            voters: Vec::new(),
            incarnation: Incarnation::FIRST,
            change: None,
        };
        let mut changes = vec![DirectoryChange::Region(region), DirectoryChange::Group(group)];
        changes.extend((1..=tenants).map(|number| tenant(number, TenantState::Active)));
        let fixture = Self {
            view: SharedDirectoryView::new(DirectoryView::default()),
            index: 1,
        };
        fixture.view.apply(true, changes, version(1));
        fixture
    }

    fn apply(&mut self, changes: Vec<DirectoryChange>) {
        self.index += 1;
        self.view.apply(false, changes, version(self.index));
    }

    fn watch(&self, names: &[&str], from: Option<u64>) -> RouteWatcher {
        let filter = RouteFilter {
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            access: crate::auth::Access::node(),
        };
        RouteWatcher::new(self.view.clone(), filter, from.map(version), CancellationToken::new())
    }
}

fn version(index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index,
    }
}

fn tenant(number: u64, state: TenantState) -> DirectoryChange {
    named(number, &format!("t{number}"), state)
}

fn named(number: u64, name: &str, state: TenantState) -> DirectoryChange {
    let tenant = Tenant::new(TenantNumber::new(number), name.parse().unwrap(), HOME);
    DirectoryChange::Tenant(Box::new(Tenant { state, ..tenant }))
}

/// Returns the message that is there now, in words.
fn message(watcher: &mut RouteWatcher) -> Option<String> {
    let message = watcher.next().now_or_never()??;
    let mut words: Vec<String> = Vec::new();
    words.extend(message.reset.then(|| "reset".into()));
    words.extend((!message.regions.is_empty()).then(|| "regions".into()));
    words.extend(
        message
            .routes
            .iter()
            .map(|route| format!("{}={}", route.tenant, route.tenant_number)),
    );
    words.extend(message.removed_tenants.iter().map(|name| format!("no {name}")));
    words.extend(message.version.map(|version| format!("@{}", version.index)));
    Some(words.join(" "))
}

#[track_caller]
fn check(watcher: &mut RouteWatcher, messages: &[&str]) {
    let found: Vec<String> = std::iter::from_fn(|| message(watcher)).collect();
    assert_eq!(found, messages);
}

#[test]
fn watch_of_all_gets_snapshot_then_changes() {
    // Invariant 1.
    let mut directory = Fixture::of(2);
    let mut watcher = directory.watch(&[], None);
    check(&mut watcher, &["reset regions t1=1 t2=2 @1"]);
    directory.apply(vec![tenant(2, TenantState::Active), tenant(3, TenantState::Disabled)]);
    check(&mut watcher, &["t2=2 t3=3 @2"]);
    directory.apply(vec![tenant(1, TenantState::Deleting)]);
    directory.apply(vec![DirectoryChange::TenantGone(TenantNumber::new(1))]);
    check(&mut watcher, &["no t1 @4"]);
    directory.apply(vec![
        tenant(2, TenantState::Deleting),
        named(9, "t2", TenantState::Active),
    ]);
    check(&mut watcher, &["t2=9 @5"]);
    let region = Region {
        name: "us-east".parse().unwrap(),
        jurisdiction: "US".parse().unwrap(),
        drains: Box::default(),
        rehearsed: None,
        leaving: false,
    };
    directory.apply(vec![DirectoryChange::Region(region)]);
    check(&mut watcher, &["regions @6"]);
}

#[test]
fn filtered_watch_gets_its_tenants_only() {
    let mut directory = Fixture::of(3);
    let mut watcher = directory.watch(&["t2", "later"], None);
    check(&mut watcher, &["reset regions t2=2 @1"]);
    directory.apply(vec![tenant(1, TenantState::Deleting), tenant(3, TenantState::Disabled)]);
    check(&mut watcher, &[]);
    directory.apply(vec![
        named(9, "later", TenantState::Active),
        tenant(4, TenantState::Active),
    ]);
    check(&mut watcher, &["later=9 @3"]);
    directory.apply(vec![tenant(2, TenantState::Deleting)]);
    check(&mut watcher, &["no t2 @4"]);
}

#[test]
fn resumed_watch_gets_changes_since_its_version() {
    let mut directory = Fixture::of(2);
    directory.apply(vec![tenant(3, TenantState::Active)]);
    directory.apply(vec![tenant(2, TenantState::Deleting)]);
    check(&mut directory.watch(&[], Some(1)), &["t3=3 no t2 @3"]);
    check(&mut directory.watch(&[], Some(2)), &["no t2 @3"]);
    check(&mut directory.watch(&["t1"], Some(3)), &["@3"]);
    let before_ring = ["reset regions t1=1 t3=3 @3"];
    check(&mut directory.watch(&[], Some(0)), &before_ring);
}

/// A node whose view is behind its caller's waits for it, and does not go back.
#[tokio::test(start_paused = true)]
async fn resumed_watch_waits_for_view() {
    let mut directory = Fixture::of(1);
    let mut ahead = directory.watch(&[], Some(3));
    assert_eq!(message(&mut ahead), None);
    directory.apply(vec![tenant(2, TenantState::Active)]);
    directory.apply(vec![tenant(3, TenantState::Active)]);
    directory.apply(vec![tenant(4, TenantState::Active)]);
    check(&mut ahead, &["t4=4 @4"]);
    let mut never = directory.watch(&[], Some(99));
    assert!(
        never.next().await.is_some_and(|message| message.reset),
        "a version of no directory"
    );
}

#[test]
fn snapshot_in_pages_misses_no_change_between_them() {
    // Invariants 1 and 3.
    const TENANTS: u64 = 2_500;
    let mut directory = Fixture::of(TENANTS);
    let mut watcher = directory.watch(&[], None);
    let mut held = std::collections::BTreeMap::new();
    let mut pages = Vec::new();
    for round in 0..10 {
        // The names are sent in their order: `t1` first.
        if round == 1 {
            directory.apply(vec![
                tenant(1, TenantState::Deleting),
                named(9_000, "a", TenantState::Active),
            ]);
        }
        let Some(Some(message)) = watcher.next().now_or_never() else {
            break;
        };
        assert_eq!(message.reset, round == 0);
        pages.push((message.routes.len(), message.version.map(|version| version.index)));
        held.extend(
            message
                .routes
                .into_iter()
                .map(|route| (route.tenant, route.tenant_number)),
        );
        held.retain(|name, _| !message.removed_tenants.contains(name));
    }
    assert_eq!(pages, [(1_000, None), (1_000, None), (500, Some(1)), (1, Some(2))]);
    let all = directory.view.read(|view| {
        let all = view.tenants_after(None);
        all.map(|tenant| (tenant.name.to_string(), tenant.number.get()))
            .collect()
    });
    assert_eq!(held, all);
}

/// The cost of a watcher of the directory is counted in the tenants that it looks at.
#[test]
fn change_costs_watchers_what_changed() {
    // Invariant 2.
    const TENANTS: u64 = 20_000;
    const WATCHERS: usize = 1_000;
    let mut directory = Fixture::of(TENANTS);
    let mut watchers: Vec<RouteWatcher> = (0..WATCHERS)
        .map(|at| directory.watch(if at % 2 == 0 { &[] } else { &["t7"] }, Some(1)))
        .collect();
    watchers.iter_mut().for_each(|watcher| check(watcher, &["@1"]));
    directory.apply(vec![tenant(7, TenantState::Disabled)]);
    let looked_at = directory.view.read_changes(version(1), MESSAGE_ROUTES_MAX, |_, delta| {
        delta.map(|delta| delta.tenants.len())
    });
    assert_eq!(looked_at, Some(1));
    watchers.iter_mut().for_each(|watcher| check(watcher, &["t7=7 @2"]));
}

#[test]
fn watcher_behind_ring_gets_new_snapshot() {
    let mut directory = Fixture::of(1);
    let mut watcher = directory.watch(&[], None);
    check(&mut watcher, &["reset regions t1=1 @1"]);
    for _ in 0..20_000 {
        directory.apply(vec![tenant(1, TenantState::Active)]);
    }
    check(&mut watcher, &["reset regions t1=1 @20001"]);
}

#[test]
fn many_changes_of_one_version_are_sent_in_parts() {
    // Invariant 3.
    let mut directory = Fixture::of(1);
    let mut watcher = directory.watch(&[], None);
    check(&mut watcher, &["reset regions t1=1 @1"]);
    directory.apply((10..2_510).map(|number| tenant(number, TenantState::Active)).collect());
    directory.apply(vec![tenant(1, TenantState::Disabled)]);
    let mut sizes = Vec::new();
    while let Some(Some(message)) = watcher.next().now_or_never() {
        sizes.push((message.routes.len(), message.version.map(|version| version.index)));
    }
    assert_eq!(sizes, [(1_000, None), (1_000, None), (500, Some(2)), (1, Some(3))]);
}
