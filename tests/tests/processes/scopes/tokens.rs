//! Tokens of pages and sessions: whoever holds one may do no more than without it.

use bytes::Bytes;
use stead_api::{
    message_codec::MessageCodec,
    proto::v1::{self, Consistency, consistency},
};
use stead_tests::process::exclusive_lock;
use tonic::{Code, transport::Channel};

use super::{
    World,
    call::{answered, call},
    messages::{get, scan, scan_stream},
    table::{Row, row},
};

/// Tokens of the scan of a caller who reads all of a tenant.
#[derive(Clone)]
struct Tokens {
    page: String,
    session: Bytes,
}

/// Scans the first page of all keys, and returns the tokens of the answer.
async fn first_page(channel: Channel, token: &str) -> Tokens {
    let mut client = v1::kv_service_client::KvServiceClient::new(channel);
    let mut request = tonic::Request::new(v1::ScanRequest {
        page_size: 1,
        ..scan("", false)
    });
    let header = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", header);
    let page = client.scan(request).await.unwrap().into_inner();
    assert!(!page.next_page_token.is_empty(), "the tenant has two keys");
    Tokens {
        page: page.next_page_token,
        session: page.header.unwrap().session_token,
    }
}

fn with_page(scan: v1::ScanRequest, tokens: &Tokens) -> v1::ScanRequest {
    let (page_size, page_token) = (1, tokens.page.clone());
    v1::ScanRequest {
        page_size,
        page_token,
        ..scan
    }
}

fn in_session(tokens: &Tokens) -> Option<Consistency> {
    let session = consistency::Session {
        tokens: vec![tokens.session.clone()],
    };
    Some(Consistency {
        level: Some(consistency::Level::Session(session)),
    })
}

/// Rows as those of the table, with tokens of a caller who may read all of `acme`.
fn rows(tokens: &Tokens) -> Vec<Row> {
    let [all, below, other, one, foreign, stream] = std::array::from_fn(|_| tokens.clone());
    vec![
        row!("stead.v1.KvService/Scan", "RZ", with_page(scan("", false), &all)),
        row!("stead.v1.KvService/Scan", "RrxZ", with_page(scan("a/", false), &below)),
        row!(
            "stead.v1.KvService/Scan",
            "",
            v1::ScanRequest {
                tenant: "other".to_owned(),
                ..with_page(scan("", false), &other)
            }
        ),
        row!(
            "stead.v1.KvService/Get",
            "RZ",
            v1::GetRequest {
                consistency: in_session(&one),
                ..get("acme", "b")
            }
        ),
        row!(
            "stead.v1.KvService/Get",
            "",
            v1::GetRequest {
                consistency: in_session(&foreign),
                ..get("other", "b")
            }
        ),
        row!(
            "stead.v1.KvService/ScanStream",
            "RZ",
            v1::ScanStreamRequest {
                consistency: in_session(&stream),
                ..scan_stream("")
            }
        ),
    ]
}

#[tokio::test]
async fn tokens_of_pages_and_sessions_give_no_rights() {
    let _lock = exclusive_lock();
    let world = World::start().await;
    let [reader, below_a] = ['R', 'r'].map(|caller| {
        let of_caller = world.tokens.iter().find(|(letter, _)| *letter == caller);
        &of_caller.unwrap().1
    });
    let mut wrong = Vec::new();
    for (region, channel) in &world.channels {
        let tokens = first_page(channel.clone(), reader).await;
        for row in rows(&tokens) {
            let allowed = world.allowed(&row, channel).await;
            if allowed != row.allowed {
                let expected = row.allowed;
                wrong.push(format!(
                    "{} at {region}: {allowed:?} instead of {expected:?} for {}",
                    row.path, row.message
                ));
            }
        }
        // The token of a scan of all keys goes on with that scan only: within their prefix it shows nobody the others.
        let below = with_page(scan("a/", false), &tokens);
        let (path, codec) = ("stead.v1.KvService/Scan", MessageCodec::default());
        let caller = (channel.clone(), below_a.clone());
        assert_eq!(
            call(caller, path, below, codec, answered).await,
            Code::InvalidArgument,
            "at {region}"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
