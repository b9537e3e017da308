use stead_api::proto::v1::{
    AppendRequest, BatchGetRequest, Compare, DeleteRangeRequest, DeleteRequest, GetRequest, IncrementRequest,
    Operation, Precondition, PutRequest, ScanRequest, TxnOperation, TxnRequest, compare, operation::Request as Message,
    precondition, txn_operation,
};

use super::*;
use crate::{auth::access_fixture, router::request};

fn parsed(message: Message) -> Request {
    request::parse(&Operation {
        request: Some(message),
        ..Operation::default()
    })
    .unwrap()
}

fn tenant() -> String {
    "acme".into()
}

fn put(key: &'static str) -> PutRequest {
    PutRequest {
        tenant: tenant(),
        key: key.into(),
        ..PutRequest::default()
    }
}

fn txn(change: impl FnOnce(&mut TxnRequest)) -> Message {
    let mut txn = TxnRequest {
        tenant: tenant(),
        ..TxnRequest::default()
    };
    change(&mut txn);
    Message::Txn(txn)
}

fn scan(start: &'static str, end: &'static str) -> Message {
    Message::Scan(ScanRequest {
        tenant: tenant(),
        start: start.into(),
        end: end.into(),
        ..ScanRequest::default()
    })
}

fn step(operation: txn_operation::Operation) -> TxnOperation {
    TxnOperation {
        operation: Some(operation),
    }
}

fn get_step(key: &'static str) -> TxnOperation {
    step(txn_operation::Operation::Get(txn_operation::Get { key: key.into() }))
}

fn put_step(key: &'static str, want_previous: bool) -> TxnOperation {
    step(txn_operation::Operation::Put(txn_operation::Put {
        key: key.into(),
        want_previous,
        ..txn_operation::Put::default()
    }))
}

fn exists() -> Option<Precondition> {
    Some(Precondition {
        condition: Some(precondition::Condition::MustExist(true)),
        ..Precondition::default()
    })
}

/// Every way to a key, and who may go it: `r` reads what begins with a/, `w` writes it, `b` does both; what is outside of
/// it nobody may.
fn ways() -> Vec<(&'static str, Message, &'static str)> {
    [reads(), writes(), range_deletions(), txns()].concat()
}

fn reads() -> Vec<(&'static str, Message, &'static str)> {
    let get = |key: &'static str| GetRequest {
        tenant: tenant(),
        key: key.into(),
        ..GetRequest::default()
    };
    let batch = |keys: &[&'static str]| {
        Message::BatchGet(BatchGetRequest {
            tenant: tenant(),
            keys: keys.iter().map(|key| (*key).into()).collect(),
            ..BatchGetRequest::default()
        })
    };
    vec![
        ("get", Message::Get(get("a/1")), "rb"),
        ("get outside", Message::Get(get("b")), ""),
        ("batch", batch(&["a/1", "a/2"]), "rb"),
        ("batch, one outside", batch(&["a/1", "b"]), ""),
        ("scan", scan("a/", "a0"), "rb"),
        ("scan beyond the end", scan("a/", "a1"), ""),
        ("scan from before", scan("a", "a0"), ""),
        ("scan to the end of the tenant", scan("a/", ""), ""),
        (
            "count",
            Message::Scan(ScanRequest {
                tenant: tenant(),
                count_only: true,
                ..ScanRequest::default()
            }),
            "",
        ),
    ]
}

fn writes() -> Vec<(&'static str, Message, &'static str)> {
    let delete = |key: &'static str, want_previous| {
        Message::Delete(DeleteRequest {
            tenant: tenant(),
            key: key.into(),
            want_previous,
            ..DeleteRequest::default()
        })
    };
    vec![
        ("put", Message::Put(put("a/1")), "wb"),
        ("put outside", Message::Put(put("b")), ""),
        (
            "put with previous value",
            Message::Put(PutRequest {
                want_previous: true,
                ..put("a/1")
            }),
            "b",
        ),
        (
            "put with precondition",
            Message::Put(PutRequest {
                precondition: exists(),
                ..put("a/1")
            }),
            "b",
        ),
        ("delete", delete("a/1", false), "wb"),
        ("delete with previous value", delete("a/1", true), "b"),
        ("delete outside", delete("b", false), ""),
        (
            "increment, whose response is the value",
            Message::Increment(IncrementRequest {
                tenant: tenant(),
                key: "a/1".into(),
                delta: 1,
                ..IncrementRequest::default()
            }),
            "b",
        ),
        (
            "append, whose response is the length",
            Message::Append(AppendRequest {
                tenant: tenant(),
                key: "a/1".into(),
                value: "x".into(),
                ..AppendRequest::default()
            }),
            "b",
        ),
    ]
}

fn range_deletions() -> Vec<(&'static str, Message, &'static str)> {
    let prefix = |prefix: &'static str| {
        Message::DeleteRange(DeleteRangeRequest {
            tenant: tenant(),
            prefix: prefix.into(),
            ..DeleteRangeRequest::default()
        })
    };
    vec![
        ("delete range", prefix("a/x"), "wb"),
        ("delete range outside", prefix("b"), ""),
        (
            "delete all",
            Message::DeleteRange(DeleteRangeRequest {
                tenant: tenant(),
                all: true,
                ..DeleteRangeRequest::default()
            }),
            "",
        ),
    ]
}

fn txns() -> Vec<(&'static str, Message, &'static str)> {
    let compare = |key: &'static str| Compare {
        key: key.into(),
        target: Some(compare::Target::Exists(true)),
        ..Compare::default()
    };
    vec![
        ("txn that reads", txn(|txn| txn.then = vec![get_step("a/1")]), "rb"),
        (
            "txn that reads otherwise",
            txn(|txn| txn.otherwise = vec![get_step("b")]),
            "",
        ),
        (
            "txn that compares",
            txn(|txn| txn.compares = vec![compare("a/1")]),
            "rb",
        ),
        (
            "txn that compares outside",
            txn(|txn| txn.compares = vec![compare("b")]),
            "",
        ),
        (
            "txn that writes",
            txn(|txn| txn.then = vec![put_step("a/1", false)]),
            "wb",
        ),
        (
            "txn that shows a previous value",
            txn(|txn| txn.then = vec![put_step("a/1", true)]),
            "b",
        ),
        (
            "txn that writes outside otherwise",
            txn(|txn| txn.otherwise = vec![put_step("b", false)]),
            "",
        ),
        (
            "txn that compares and writes",
            txn(|txn| {
                txn.compares = vec![compare("a/1")];
                txn.then = vec![put_step("a/2", false)];
            }),
            "b",
        ),
    ]
}

/// Invariant 1 of [`stead_state::authorization`], for every operation.
#[test]
fn operation_is_allowed_to_whom_every_of_its_keys_is() {
    let context = access_fixture::required();
    let (read, write) = ("tenant-reader:acme:a/", "tenant-writer:acme:a/");
    let callers = [("r", vec![read]), ("w", vec![write]), ("b", vec![read, write])];
    for (name, message, expected) in ways() {
        let request = parsed(message);
        let is_allowed = |roles: &[&str]| check(&access_fixture::access(&context, roles), &request).is_ok();
        let allowed = callers.iter().filter(|(_, roles)| is_allowed(roles));
        let allowed: String = allowed.map(|(letter, _)| *letter).collect();
        assert_eq!(allowed, expected, "{name}");
        // Of another tenant, and without a role, never; with both roles for every key, always.
        for other in [
            &["tenant-reader:other", "tenant-writer:other"][..],
            &["cluster-operator", "auditor"],
            &[],
        ] {
            assert!(!is_allowed(other), "{name} as {other:?}");
        }
        assert!(is_allowed(&["tenant-reader:*", "tenant-writer:acme"]), "{name}");
    }
}

#[test]
fn role_that_is_bound_counts_until_it_is_revoked() {
    let context = access_fixture::required();
    let access = access_fixture::access(&context, &[]);
    let request = parsed(Message::Put(put("a/1")));
    assert!(check(&access, &request).is_err());
    access_fixture::bind(&context, &["tenant-writer:acme"]);
    check(&access, &request).unwrap();
    access_fixture::bind(&context, &[]);
    assert!(check(&access, &request).is_err());
}

#[test]
fn caller_that_another_node_names_is_decided_again() {
    let context = access_fixture::required();
    let request = parsed(Message::Put(put("a/1")));
    let forwarded = |access: &Access| Access::of_forwarded(Some(access.to_forwarded()), &context).unwrap();
    let writer = access_fixture::access(&context, &["tenant-writer:acme"]);
    check(&forwarded(&writer), &request).unwrap();
    let nobody = access_fixture::access(&context, &[]);
    assert!(check(&forwarded(&nobody), &request).is_err());
    let unnamed = Access::of_forwarded(None, &context).unwrap();
    let refused = check(&unnamed, &request).unwrap_err();
    assert_eq!(refused.kind, stead_types::ErrorKind::Unauthenticated);
    // A node that asks for no credentials cannot vouch for anybody.
    let open = access_fixture::access(&access_fixture::open(), &["tenant-writer:acme"]);
    check(&open, &request).unwrap();
    let node = forwarded(&Access::node());
    assert!(check(&node, &request).is_err());
}
