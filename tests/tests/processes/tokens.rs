//! Session tokens, carried from one process to another as text, and the look-up of a tenant's home.

use std::time::Duration;

use stead_client::{Consistency, ReadOptions, SessionTokens};
use stead_testing::Fixture;
use stead_tests::process::{binary, exclusive_lock};

#[tokio::test]
async fn session_tokens_carry_reads_to_another_region() {
    let _lock = exclusive_lock();
    let builder = Fixture::builder().binary(binary());
    let regions = builder.region("us-east", 1).region("eu-west", 1);
    let distance = Duration::from_millis(200);
    let cluster = regions
        .round_trip("us-east", "eu-west", distance)
        .start()
        .await
        .unwrap();
    let names = ["acme", "brix"];
    for name in names {
        cluster.create_tenant(name, "us-east").await.unwrap();
    }
    let near = cluster.client("us-east").await.unwrap();
    let session = ReadOptions::at(Consistency::Session);
    for round in 0..5 {
        for name in names {
            let key = format!("{name}/{round}");
            near.tenant(name).unwrap().put(key, "x").await.unwrap();
        }
        let cookie = near.export_tokens().unwrap().to_string();
        assert_eq!(cookie.len(), 48, "two tenants");
        // A client that has no tokens of these tenants; the copy there is half a round trip behind.
        let far = cluster.client("eu-west").await.unwrap();
        let tokens: SessionTokens = cookie.parse().unwrap();
        let carried = ReadOptions::at(Consistency::Tokens(tokens.clone()));
        far.import_tokens(&tokens).unwrap();
        for (name, read) in [("acme", &session), ("brix", &carried)] {
            let tenant = far.tenant(name).unwrap();
            let got = tenant.get_with(format!("{name}/{round}"), read).await.unwrap();
            assert!(got.item.is_some(), "{name} in round {round}");
            let again = tenant.get_with(format!("{name}/{round}"), &session).await.unwrap();
            assert!(again.header.revision >= got.header.revision);
        }
    }
    let home = cluster.client("eu-west").await.unwrap().home("acme").unwrap();
    assert_eq!(home.now().await.unwrap().home_region.as_str(), "us-east");
}
