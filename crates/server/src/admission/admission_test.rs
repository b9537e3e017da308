//! Tests at, below and above each limit, with the time as an argument.

use stead_state::shard::command::{Effect, Increment, Operation};
use stead_types::TenantTime;

use super::*;
use crate::tenant_fixture::tenant;

const READ: Cost = Cost {
    bytes: 0,
    charges_response: true,
    seed_rate: None,
};

fn write(bytes: u64) -> Cost {
    Cost {
        bytes,
        charges_response: false,
        seed_rate: None,
    }
}

fn admission() -> (Arc<Admission>, Instant) {
    (Arc::new(Admission::new()), Instant::now())
}

/// Returns the limit that is exceeded, and the wait.
fn refused<T>(outcome: Result<T, LimitExceeded>) -> (TenantLimit, Option<Duration>) {
    let refused = outcome.map(drop).unwrap_err();
    (refused.limit, refused.wait)
}

#[tokio::test]
async fn operation_rate_refuses_over_limit_admits_after_wait() {
    let (admission, now) = admission();
    let tenant = tenant(5, &[(TenantLimit::OperationsPerSecond, 4)]);
    for _ in 0..4 {
        admission.admit(now, &tenant, READ).unwrap();
    }
    let (limit, wait) = refused(admission.admit(now, &tenant, READ));
    assert_eq!(limit, TenantLimit::OperationsPerSecond);
    let wait = wait.unwrap();
    assert_eq!(wait, Duration::from_millis(250));
    assert!(admission.admit(now + wait, &tenant, READ).is_ok());
    assert!(admission.admit(now + wait, &tenant, READ).is_err());
}

#[tokio::test]
async fn byte_rate_charges_writes_on_arrival_reads_on_response() {
    let (admission, now) = admission();
    let tenant = tenant(5, &[(TenantLimit::BytesPerSecond, 1_000)]);
    let half = admission.admit(now, &tenant, write(500)).unwrap();
    half.charge_response(now, 1_000_000);
    let read = admission.admit(now, &tenant, READ).unwrap();
    admission.admit(now, &tenant, write(499)).unwrap();
    read.charge_response(now, 501);
    let (limit, wait) = refused(admission.admit(now, &tenant, READ));
    assert_eq!(
        (limit, wait),
        (TenantLimit::BytesPerSecond, Some(Duration::from_millis(501)))
    );
}

#[tokio::test]
async fn seeded_tenant_writes_at_the_slowed_rate_and_reads_freely() {
    let (admission, now) = admission();
    let tenant = tenant(5, &[]);
    let slowed = |bytes| Cost {
        seed_rate: Some(1_000),
        ..write(bytes)
    };
    admission.admit(now, &tenant, slowed(1_000)).unwrap();
    let refused = admission.admit(now, &tenant, slowed(500)).map(drop).unwrap_err();
    assert_eq!(refused.name(), "seed.history");
    let wait_ms = refused.wait.unwrap().as_millis();
    assert!((499..=500).contains(&wait_ms), "{wait_ms}");
    let error = refused.error(&tenant.name);
    assert!(matches!(&error.kind, ErrorKind::RateLimited { limit, .. } if limit == "seed.history"));
    assert!(
        error
            .message
            .contains("slowed to 1000 bytes a second until the copy has caught up"),
        "{error}"
    );
    admission.admit(now, &tenant, READ).unwrap();
    admission.admit(now, &tenant, write(500)).unwrap();
    admission
        .admit(now + Duration::from_millis(500), &tenant, slowed(500))
        .unwrap();
}

#[tokio::test]
async fn refused_operation_charges_no_other_rate() {
    let (admission, now) = admission();
    let set = [(TenantLimit::OperationsPerSecond, 1), (TenantLimit::BytesPerSecond, 10)];
    let tenant = tenant(5, &set);
    admission.admit(now, &tenant, write(10)).unwrap();
    for _ in 0..1_000 {
        assert!(admission.admit(now, &tenant, write(10)).is_err());
    }
    assert!(
        admission
            .admit(now + Duration::from_secs(1), &tenant, write(10))
            .is_ok()
    );
}

#[tokio::test]
async fn in_flight_limit_holds_until_permit_is_dropped() {
    let (admission, now) = admission();
    let tenant = tenant(5, &[(TenantLimit::InFlight, 2)]);
    let first = admission.admit(now, &tenant, READ).unwrap();
    let _second = admission.admit(now, &tenant, READ).unwrap();
    assert_eq!(
        refused(admission.admit(now, &tenant, READ)),
        (TenantLimit::InFlight, Some(BUSY_RETRY_DELAY))
    );
    drop(first);
    let _third = admission.admit(now, &tenant, READ).unwrap();
    assert!(admission.admit(now, &tenant, READ).is_err());
}

/// Invariant 4.
#[tokio::test]
async fn forwarded_operations_are_bounded_by_share_and_limit() {
    let (admission, now) = admission();
    let (loud, quiet) = (tenant(5, &[]), tenant(5 + PARTITIONS as u64, &[]));
    let under_way: Vec<_> = (0..3).map(|_| admission.admit_forwarded(now, &loud, 3, 0)).collect();
    assert!(under_way.iter().all(Result::is_ok));
    let refusal = admission.admit_forwarded(now, &loud, 3, 0).unwrap_err();
    assert_eq!(
        (refusal.limit, refusal.wait),
        (TenantLimit::InFlight, Some(BUSY_RETRY_DELAY))
    );
    let message = refusal.error(&loud.name).message;
    assert!(message.contains("at most 3 operations in flight from this node") && !message.contains("raise"));
    assert!(admission.admit_forwarded(now, &quiet, 3, 0).is_ok());
    assert!(
        admission.admit(now, &loud, READ).is_ok(),
        "what is served here is not under way"
    );
    drop(under_way);
    assert!(admission.admit_forwarded(now, &loud, 3, 0).is_ok());

    let whole = admission.admit_forwarded(now, &loud, 9, 2 * FORWARDED_LEN_MAX).unwrap();
    let refusal = admission.admit_forwarded(now, &loud, 9, 1).unwrap_err();
    assert_eq!(
        (refusal.name(), refusal.wait),
        ("tenant.forwarded", Some(BUSY_RETRY_DELAY))
    );
    assert!(admission.admit_forwarded(now, &quiet, 9, FORWARDED_LEN_MAX).is_ok());
    drop(whole);
    assert!(admission.admit_forwarded(now, &loud, 9, FORWARDED_LEN_MAX).is_ok());

    let limited = tenant(6, &[(TenantLimit::InFlight, 1)]);
    let _here = admission.admit(now, &limited, READ).unwrap();
    assert!(admission.admit_forwarded(now, &limited, 3, 0).is_err());
}

#[tokio::test]
async fn watch_limit_holds_until_closed_and_may_be_zero() {
    let (admission, now) = admission();
    let two = tenant(5, &[(TenantLimit::Watches, 2)]);
    let first = admission.admit_watch(now, &two).unwrap();
    let _second = admission.admit_watch(now, &two).unwrap();
    assert_eq!(refused(admission.admit_watch(now, &two)), (TenantLimit::Watches, None));
    drop(first);
    assert!(admission.admit_watch(now, &two).is_ok());
    let none = tenant(6, &[(TenantLimit::Watches, 0)]);
    let refusal = admission.admit_watch(now, &none).unwrap_err().error(&none.name);
    assert_eq!(
        refusal.kind,
        ErrorKind::QuotaExceeded {
            limit: "watches".into()
        }
    );
    assert!(
        refusal.message.starts_with("watches: tenant acme has at most 0"),
        "{refusal}"
    );
    assert!(refusal.message.contains("--limit watches="), "{refusal}");
}

/// The initial state of a watch costs the tenant its rate.
#[tokio::test]
async fn watch_is_charged_for_what_it_reads() {
    let (admission, now) = admission();
    let tenant = tenant(5, &[(TenantLimit::BytesPerSecond, 1_000)]);
    let watch = admission.admit_watch(now, &tenant).unwrap();
    assert_eq!(watch.charge(now, 999), None);
    assert_eq!(watch.charge(now, 500), Some(Duration::from_millis(500)));
    assert!(admission.admit(now, &tenant, write(1)).is_err());
    assert_eq!(watch.charge(now + Duration::from_millis(500), 0), None);
}

fn put(key: &str, value: &str) -> Operation {
    Operation::new(key.to_owned(), Effect::put(value.to_owned()))
}

/// A full tenant gets no new keys or bytes, and may change what it has.
#[tokio::test]
async fn quota_full_tenant_may_only_overwrite() {
    let (admission, now) = admission();
    let tenant = tenant(5, &[(TenantLimit::Keys, 3), (TenantLimit::StoredBytes, 20)]);
    let reserve_growth = |stored: (u64, u64), growth| {
        let (keys, bytes) = stored;
        let mut permit = admission.admit(now, &tenant, write(0)).unwrap();
        permit
            .reserve_growth(&tenant, StoredUsage { keys, bytes }, growth)
            .map(|()| permit)
    };
    let new = Growth::of(&put("abc", "12345"), None);
    assert_eq!(new, Growth { keys: 1, bytes: 8 });
    assert!(reserve_growth((2, 12), new).is_ok(), "exactly full");
    assert_eq!(refused(reserve_growth((2, 13), new)), (TenantLimit::StoredBytes, None));
    assert_eq!(refused(reserve_growth((3, 5), new)), (TenantLimit::Keys, None));
    for nothing in [
        Growth::of(&put("abc", "12345"), Some(5)),
        Growth::of(&put("abc", ""), Some(5)),
        Growth::at_most(&Operation::new("abc", Effect::Delete)),
        Growth::of(&Operation::new("n", Effect::Increment(Increment::default())), Some(1)),
    ] {
        assert!(nothing.is_nothing());
        assert!(
            reserve_growth((9, 999), nothing).is_ok(),
            "also beyond a limit that was lowered"
        );
    }
    let longer = Growth::of(&put("abc", "123456"), Some(5));
    assert_eq!(
        refused(reserve_growth((3, 20), longer)),
        (TenantLimit::StoredBytes, None)
    );
}

/// Invariant 2.
#[tokio::test]
async fn quota_counts_writes_in_flight_as_retryable() {
    let (admission, now) = admission();
    let tenant = tenant(5, &[(TenantLimit::Keys, 3)]);
    let stored = StoredUsage { keys: 1, bytes: 0 };
    let one = Growth { keys: 1, bytes: 1 };
    let permits: Vec<_> = std::iter::repeat_with(|| {
        let mut permit = admission.admit(now, &tenant, write(1)).unwrap();
        permit.reserve_growth(&tenant, stored, one).map(|()| permit)
    })
    .take_while(Result::is_ok)
    .collect();
    assert_eq!(permits.len(), 2);
    let mut more = admission.admit(now, &tenant, write(1)).unwrap();
    assert_eq!(
        refused(more.reserve_growth(&tenant, stored, one)),
        (TenantLimit::Keys, Some(BUSY_RETRY_DELAY))
    );
    drop(permits);
    assert_eq!(more.reserve_growth(&tenant, stored, one), Ok(()));
}

#[tokio::test]
async fn limit_error_names_wait_limit_and_remedy() {
    let (admission, now) = admission();
    let tenant = tenant(5, &[(TenantLimit::OperationsPerSecond, 3)]);
    let refusal = loop {
        if let Err(refused) = admission.admit(now, &tenant, READ) {
            break refused.error(&tenant.name);
        }
    };
    let limit = "operations_per_second".to_owned();
    let wait = Duration::from_millis(334);
    assert_eq!(refusal.kind, ErrorKind::RateLimited { limit, wait });
    for words in [
        "operations_per_second: tenant acme has at most 3 ",
        "wait 334 ms",
        "--limit operations-per-second=",
    ] {
        assert!(refusal.message.contains(words), "{refusal}");
    }
}

#[test]
fn limits_match_operations_document() {
    let document = include_str!("../../../../docs/operations.md");
    for limit in TenantLimit::ALL {
        let row = format!("| `{}` |", limit.name().replace('_', "-"));
        let row = document.lines().find(|line| line.starts_with(&row));
        let row = row.unwrap_or_else(|| panic!("docs/operations.md has no row of {limit}"));
        let default = row.split('|').nth(2).unwrap().trim();
        let shown = |value: u64| match limit {
            TenantLimit::HistoryAge => format!("`{}m`", value / 60_000),
            TenantLimit::BytesPerSecond => format!("{} MiB", value >> 20),
            TenantLimit::StoredBytes => format!("{} GiB", value >> 30),
            TenantLimit::OperationsPerSecond
            | TenantLimit::Keys
            | TenantLimit::Watches
            | TenantLimit::Clients
            | TenantLimit::InFlight
            | TenantLimit::HistoryCount
            | TenantLimit::Outcomes => value.to_string(),
        };
        let expected = limit.default_value().map_or("none".to_owned(), shown);
        assert_eq!(default, expected, "{limit}");
    }
}

/// Returns the usage of a tenant with all outcomes of one age.
fn usage(clients: usize, outcomes: usize, age_ms: u64) -> windows::IdempotencyUsage {
    let now = TenantTime(1_000_000);
    let time = Some(TenantTime(now.0 - age_ms));
    windows::IdempotencyUsage {
        clients,
        is_known_client: false,
        outcomes,
        oldest: time,
        idlest_client: time,
        group_outcomes: outcomes,
        now,
    }
}

#[test]
fn new_outcome_waits_only_while_all_are_young() {
    let tenant = tenant(7, &[(TenantLimit::Clients, 2), (TenantLimit::Outcomes, 1_000)]);
    let refused = |held: windows::IdempotencyUsage| {
        let refused = windows::check(&tenant, &held).unwrap_err();
        let ErrorKind::RateLimited { limit, wait } = refused.error(&tenant.name).kind else {
            panic!("{refused:?}")
        };
        (limit, wait.as_millis())
    };
    assert_eq!(windows::check(&tenant, &usage(1, 999, 0)), Ok(()));
    assert_eq!(refused(usage(2, 2, 59_000)), ("clients".into(), 1_001));
    assert_eq!(refused(usage(1, 1_000, 0)), ("outcomes".into(), 60_001));
    assert_eq!(refused(usage(1, 1_000, 60_000)), ("outcomes".into(), 10));
    assert_eq!(
        windows::check(&tenant, &usage(2, 1_000, 60_001)),
        Ok(()),
        "an old outcome is evicted"
    );
    let kept = windows::IdempotencyUsage {
        is_known_client: true,
        ..usage(2, 2, 0)
    };
    assert_eq!(windows::check(&tenant, &kept), Ok(()));
}

#[test]
fn tenant_outcomes_are_bounded_by_room_in_group() {
    let tenant = tenant(7, &[(TenantLimit::Outcomes, 2_000_000)]);
    let max = windows::GROUP_OUTCOMES_MAX;
    let outcomes = |group_outcomes| windows::limits(&tenant, group_outcomes).outcomes;
    assert_eq!(outcomes(0), 2_000_000);
    assert_eq!(outcomes(max - 1_000_000), 1_000_000);
    assert_eq!((outcomes(max), outcomes(2 * max)), (65_536, 65_536));
}

#[test]
fn group_outcome_limit_refuses_only_large_tenant() {
    let tenant = tenant(7, &[(TenantLimit::Outcomes, 8 << 20)]);
    let held = |outcomes, group_outcomes| windows::IdempotencyUsage {
        group_outcomes,
        ..usage(1, outcomes, 0)
    };
    let max = windows::GROUP_OUTCOMES_MAX;
    assert_eq!(windows::check(&tenant, &held(max / 2 - 1, max / 2 - 1)), Ok(()));
    let refused = windows::check(&tenant, &held(max / 2, max / 2)).unwrap_err();
    assert_eq!(refused.name(), "group.outcomes");
    assert!(windows::check(&tenant, &held(100_000, max - 50_000)).is_err());
    assert_eq!(windows::check(&tenant, &held(50_000, max)), Ok(()));
}

/// Invariant 3.
#[tokio::test]
async fn idle_accounts_are_swept() {
    let (admission, now) = admission();
    let _open = admission.admit_watch(now, &tenant(0, &[])).unwrap();
    for number in 0..100_000 {
        let at = now + Duration::from_millis(number);
        admission.admit(at, &tenant(number, &[]), READ).unwrap();
    }
    let partitions = admission.partitions.iter();
    let accounts: usize = partitions.map(|partition| partition.lock().accounts.len()).sum();
    assert!(accounts <= PARTITIONS * SWEEP_ACCOUNTS_MIN, "{accounts} are left");
    assert!(
        admission
            .partition(TenantNumber::new(0))
            .lock()
            .accounts
            .contains_key(&TenantNumber::new(0))
    );
}

/// A tenant without limits of its own is not without limits.
#[tokio::test]
async fn tenant_without_own_limits_has_defaults() {
    let (admission, now) = admission();
    let tenant = tenant(5, &[]);
    let default = |limit: TenantLimit| limit.default_value().unwrap();
    let watches: Vec<_> = (0..default(TenantLimit::Watches))
        .map(|_| admission.admit_watch(now, &tenant).unwrap())
        .collect();
    let beyond = admission.admit_watch(now, &tenant);
    assert_eq!(refused(beyond), (TenantLimit::Watches, None), "{}", watches.len());
    let in_flight: Vec<_> = (0..default(TenantLimit::InFlight))
        .map(|_| admission.admit(now, &tenant, READ).unwrap())
        .collect();
    let (limit, _) = refused(admission.admit(now, &tenant, READ));
    assert_eq!(limit, TenantLimit::InFlight, "{}", in_flight.len());
    drop(in_flight);
    let too_much = write(2 * default(TenantLimit::BytesPerSecond));
    let _charged = admission.admit(now, &tenant, too_much).unwrap();
    let (limit, _) = refused(admission.admit(now, &tenant, write(1)));
    assert_eq!(limit, TenantLimit::BytesPerSecond);
}

#[tokio::test]
async fn tenant_flood_leaves_other_tenant_unaffected() {
    let (admission, now) = admission();
    let set = [(TenantLimit::OperationsPerSecond, 10), (TenantLimit::InFlight, 5)];
    let (loud, quiet) = (tenant(5, &set), tenant(5 + PARTITIONS as u64, &set));
    let flood: Vec<_> = (0..10_000).map(|_| admission.admit(now, &loud, write(1_000))).collect();
    assert_eq!(flood.iter().filter(|admitted| admitted.is_ok()).count(), 5);
    assert!(admission.admit(now, &quiet, write(1_000)).is_ok());
}
