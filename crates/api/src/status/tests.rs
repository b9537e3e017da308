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
    assert_eq!(reasons.len(), 26);
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
