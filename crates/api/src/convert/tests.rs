use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use stead_types::{Error, ErrorKind, SessionToken, TenantNumber, limits::TTL_MS_MAX};

use super::{
    condition, id, key, page,
    read::{self, Consistency},
};
use crate::proto::v1;

/// Checks that a request was refused with this field and a message that contains `says`.
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, field: &str, says: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid { field: field.into() });
    assert!(error.message.contains(says), "{}", error.message);
}

#[test]
fn invalid_value_error_names_field_and_limit() {
    refused(id::tenant("tenant", &"a".repeat(65)), "tenant", "1 to 64 characters");
    refused(id::tenant("tenant", "Acme"), "tenant", "only a-z, 0-9 and -");
    refused(key::key("key", &[0; 5 << 10]), "key", "at most 4096 bytes");
    refused(key::key("key", b""), "key", "at least one byte");
    refused(key::value("value", &vec![0; 2 << 20]), "value", "at most 1048576 bytes");
    refused(key::keys(&[]), "keys", "at least one");
    refused(key::keys(&vec![Bytes::from_static(b"k"); 1001]), "keys", "at most 1000");
    refused(key::keys(&["k".into(), Bytes::new()]), "keys[1]", "at least one byte");
    refused(page::size(-1, 100, 1000), "page_size", "1 to 1000");
    refused(
        condition::precondition(Some(v1::Precondition::default())),
        "precondition",
        "no condition",
    );
    let far = v1::Revision {
        epoch: 1,
        sequence: 1 << 40,
    };
    refused(
        id::revision("revision", far),
        "revision.sequence",
        "at most 1099511627775",
    );
    refused(read::durability("durability", 9), "durability", "9");
    let client = v1::IdempotencyKey {
        client_id: Bytes::from_static(b"me"),
        ..Default::default()
    };
    refused(id::idempotency_key(&client), "idempotency_key.client_id", "16");
}

#[test]
fn page_size_has_default_and_cap() {
    assert_eq!(page::size(0, 100, 1000), Ok(100));
    assert_eq!(page::size(7, 100, 1000), Ok(7));
    assert_eq!(page::size(i32::MAX, 100, 1000), Ok(1000));
}

#[test]
fn consistency_round_trips_and_forged_token_is_refused() {
    let token = |tenant, revision: &str| SessionToken {
        tenant: TenantNumber::new(tenant),
        revision: revision.parse().unwrap(),
    };
    let session: read::Tokens = [token(1, "1.4"), token(1, "2.5"), token(2, "1.9")]
        .into_iter()
        .collect();
    assert_eq!(session.of(TenantNumber::new(1)), Some("2.5".parse().unwrap()));
    assert_eq!(session.of(TenantNumber::new(3)), None);
    let all = [
        Consistency::Linearizable,
        Consistency::Session(session),
        Consistency::Bounded(Duration::from_millis(250)),
        Consistency::Local,
    ];
    for one in all {
        assert_eq!(read::consistency(Some(read::from_consistency(&one))), Ok(one));
    }
    assert_eq!(read::consistency(None), Ok(Consistency::Linearizable));
    let forged = v1::consistency::Session {
        tokens: vec![Bytes::from_static(b"forged")],
    };
    let forged = v1::Consistency {
        level: Some(v1::consistency::Level::Session(forged)),
    };
    refused(
        read::consistency(Some(forged)),
        "consistency.session.tokens[0]",
        "header",
    );
}

proptest! {
    #[test]
    fn page_token_is_valid_for_its_request_only(request: Vec<u8>, other: Vec<u8>, position: Vec<u8>) {
        let token = page::token(&request, &position);
        prop_assert_eq!(page::position(&request, &token), Ok(Some(position)));
        if request != other {
            refused(page::position(&other, &token), "page_token", "another request");
        }
    }

    #[test]
    fn malformed_page_token_is_refused(text in "[A-Za-z0-9_!-]{1,40}") {
        prop_assert!(page::position(b"request", &text).is_err());
    }
}

#[test]
fn empty_page_token_is_the_first_page() {
    assert_eq!(page::position(b"request", ""), Ok(None));
}

#[test]
fn windows_bounds_and_lengths_are_checked_at_limits() {
    let window = |seconds, nanos| key::window("window", Some(prost_types::Duration { seconds, nanos }));
    let longest = 366 * 24 * 3600;
    assert_eq!(key::window("window", None), Ok(None));
    assert_eq!(window(0, 1_000_000), Ok(Some(1)));
    assert_eq!(window(longest, 0), Ok(Some(longest as u64 * 1_000)));
    for (seconds, nanos) in [
        (0, 0),
        (-1, 0),
        (0, 999_999),
        (1, 1),
        (longest, 1_000_000),
        (i64::MAX, 0),
    ] {
        refused(
            window(seconds, nanos),
            "window",
            "whole number of milliseconds, 1 to 31622400000",
        );
    }

    assert_eq!(key::increment_bounds("ceiling", Some(3), Some(3)), Ok(()));
    assert_eq!(key::increment_bounds("ceiling", Some(3), None), Ok(()));
    refused(
        key::increment_bounds("ceiling", Some(4), Some(3)),
        "ceiling",
        "3 is below the floor, 4",
    );

    assert_eq!(key::append("", b"x", 0), Ok(1 << 20));
    assert_eq!(key::append("", b"x", 1 << 20), Ok(1 << 20));
    refused(key::append("", b"x", (1 << 20) + 1), "max_length", "at most 1048576");
    refused(key::append("", b"", 0), "value", "at least one byte");
    refused(key::append("", &vec![0; (1 << 20) + 1], 0), "value", "at most 1048576");
}

#[test]
fn duration_beyond_message_range_is_refused() {
    for too_long in [Duration::MAX, Duration::from_millis(TTL_MS_MAX + 1)] {
        let error = key::ttl("ttl", Some(read::duration(too_long))).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid { field: "ttl".into() });
    }
    let longest = Duration::from_millis(TTL_MS_MAX);
    assert_eq!(key::ttl("ttl", Some(read::duration(longest))), Ok(Some(TTL_MS_MAX)));
}

/// The lowest numbers are negative, too.
#[test]
fn duration_of_any_size_is_read_or_refused() {
    let read = |seconds, nanos| read::to_duration(prost_types::Duration { seconds, nanos });
    assert_eq!(read(0, 0), Some(Duration::ZERO));
    assert_eq!(read(1, 500_000_000), Some(Duration::from_millis(1_500)));
    let longest = Duration::new(i64::MAX as u64, 999_999_999);
    assert_eq!(read(i64::MAX, 999_999_999), Some(longest));
    for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MIN, 0), (i64::MIN, i32::MIN), (i64::MIN, -1)] {
        assert_eq!(read(seconds, nanos), None, "{seconds} s {nanos} ns");
    }
}
