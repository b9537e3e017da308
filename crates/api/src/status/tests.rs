use std::collections::BTreeSet;

use super::*;

fn samples() -> Vec<ErrorKind> {
    let mut kinds = table::samples();
    kinds.push(ErrorKind::OutcomeUnknown { key: None });
    kinds.push(ErrorKind::StaleBeyondBound { staleness: None });
    kinds.push(ErrorKind::RateLimited {
        limit: "bytes_per_second".into(),
        wait: std::time::Duration::from_millis(37),
    });
    kinds
}

/// S1.
#[test]
fn every_kind_round_trips_through_both_forms() {
    for kind in samples() {
        let error = Error::new(kind, "it did not work: try something else");
        assert_eq!(from_status(&to_status(&error)), error);
        assert_eq!(from_operation_error(to_operation_error(&error)), error);
        assert_eq!(from_rpc_status(&to_rpc_status(&error)), error);
    }
}

/// S2, and that the samples leave no kind out: their reasons are as many as the kinds.
#[test]
fn every_kind_has_a_unique_reason() {
    let reasons: BTreeSet<_> = table::samples().iter().map(|kind| table::row(kind).reason).collect();
    assert_eq!(reasons.len(), table::samples().len());
    assert_eq!(reasons.len(), 28);
    for reason in reasons {
        assert!(reason.len() <= 63 && reason.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
    }
}

#[test]
fn retry_delay_is_in_details_and_trailer() {
    for kind in samples() {
        let status = to_status(&Error::new(kind.clone(), "no"));
        let waits = retry_after(&status).map(|delay| delay.as_millis().to_string());
        let trailer = status
            .metadata()
            .get(PUSHBACK)
            .map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(waits.is_some(), trailer.is_some(), "{kind:?}");
        if status.code() == Code::Unavailable {
            let four: u64 = 4 * trailer.unwrap().parse::<u64>().unwrap();
            assert!(
                four >= 1_500,
                "{kind:?}: four waits of a stock client outlast an election"
            );
        } else {
            assert_eq!(waits, trailer, "{kind:?}");
        }
        assert_eq!(waits.is_some(), Error::new(kind, "no").is_transient());
    }
}

/// Returns the kind with these texts in place of its own.
fn with_texts(mut kind: ErrorKind, text: &str) -> ErrorKind {
    if let ErrorKind::Invalid { field }
    | ErrorKind::RateLimited { limit: field, .. }
    | ErrorKind::QuotaExceeded { limit: field }
    | ErrorKind::Residency { region: field, .. } = &mut kind
    {
        text.clone_into(field);
    }
    if let ErrorKind::NotHome { endpoints: list, .. } | ErrorKind::Residency { allowed: list, .. } = &mut kind {
        *list = vec![text[..100].to_owned(); 100];
    }
    kind
}

/// S3, with texts of a key's length and more: plain, percent-encoded whole, and in several bytes a character.
#[test]
fn trailers_of_longest_texts_stay_below_limit() {
    for text in ["k".repeat(16_384), "\u{1}".repeat(4_096), "\u{df}".repeat(4_096)] {
        for kind in samples() {
            let error = Error::new(with_texts(kind, &text), text.clone());
            let status = to_status(&error);
            assert!(trailers::len(&status) <= trailers::LEN_MAX, "{status:?}");
            assert!(status.message().ends_with("..."));
            let (sent, read) = (table::row(&error.kind), table::row(&from_status(&status).kind));
            assert_eq!(sent, read);
        }
    }
}

#[test]
fn list_in_long_trailers_keeps_its_first_whole_items() {
    let kind = ErrorKind::NotHome {
        region: "eu-west".parse().unwrap(),
        epoch: stead_types::Epoch::FIRST,
        endpoints: (1..=999).map(|node| format!("10.0.0.{node}:7401")).collect(),
    };
    let kind = from_status(&to_status(&Error::new(kind, "no"))).kind;
    let ErrorKind::NotHome { endpoints, .. } = &kind else {
        panic!("{kind:?}")
    };
    assert_eq!(endpoints[1], "10.0.0.2:7401");
    assert!(endpoints.len() < 100);
    assert!(endpoints.iter().all(|endpoint| endpoint.ends_with(":7401")));
}

/// Stock clients retry no more after a pushback that is no number.
#[test]
fn retry_delay_trailer_is_a_plain_number() {
    let limit = "clients".to_owned();
    let wait = std::time::Duration::MAX;
    let longest = ErrorKind::RateLimited { limit, wait };
    for kind in samples().into_iter().chain([longest]) {
        let status = to_status(&Error::new(kind, "no"));
        if let Some(pushback) = status.metadata().get(PUSHBACK) {
            let text = pushback.to_str().unwrap();
            assert!(
                text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty(),
                "{text}"
            );
        }
    }
}

#[test]
fn retry_delay_trailer_is_rounded_up_to_milliseconds() {
    let wait = std::time::Duration::from_micros(2_001);
    let limit = "operations_per_second".to_owned();
    let status = to_status(&Error::new(ErrorKind::RateLimited { limit, wait }, "no"));
    assert_eq!(retry_after(&status), Some(wait));
    assert_eq!(status.metadata().get(PUSHBACK).unwrap(), "3");
}

#[test]
fn invalid_field_is_named_in_bad_request_detail() {
    let status = to_status(&Error::invalid("key", "a key has at most 4096 bytes"));
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "key");
}

#[test]
fn foreign_status_maps_by_its_code() {
    let kind = |status: Status| from_status(&status).kind;
    assert_eq!(kind(Status::unavailable("tcp")), ErrorKind::Unavailable);
    assert_eq!(
        kind(Status::unknown("broken pipe")),
        ErrorKind::OutcomeUnknown { key: None }
    );
    assert_eq!(
        kind(Status::deadline_exceeded("late")),
        ErrorKind::OutcomeUnknown { key: None }
    );
    let newer = OperationError {
        code: Code::Aborted as i32,
        reason: "NOT_YET_KNOWN".into(),
        ..Default::default()
    };
    assert_eq!(from_operation_error(newer).kind, ErrorKind::Conflict);
}
