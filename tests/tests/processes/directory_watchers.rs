//! Cost of many watchers of the directory, on a real node.

use std::{fs, time::Duration};

use futures::future::join_all;
use stead_api::proto::v1::{
    DirectoryServiceWatchRequest, DirectoryServiceWatchResponse, directory_service_client::DirectoryServiceClient,
};
use stead_client::{NewTenant, TenantChange};
use stead_testing::Fixture;
use stead_tests::process::{binary, exclusive_lock};
use tokio::time::timeout;
use tonic::{Streaming, transport::Channel};

const REGION: &str = "eu-west";
const TENANTS: usize = 200;
const WATCHERS: usize = 1_000;
const WATCHERS_PER_CONNECTION: usize = 100;
const CHANGES: u32 = 20;
/// CPU of the node for one change that reaches all watchers.
const CPU_MAX: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Returns the CPU time of a process so far, in steps of a hundredth of a second.
fn cpu_of(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u32>().unwrap());
    Duration::from_millis(10) * ticks.sum::<u32>()
}

type Watch = Streaming<DirectoryServiceWatchResponse>;

async fn next(watch: &mut Watch) -> DirectoryServiceWatchResponse {
    let message = timeout(WAIT_MAX, watch.message())
        .await
        .expect("a watch goes on in time");
    message.unwrap().expect("a watch does not end")
}

async fn open(address: &str) -> Vec<Watch> {
    let mut watches = Vec::with_capacity(WATCHERS);
    for _ in 0..WATCHERS / WATCHERS_PER_CONNECTION {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        let mut service = DirectoryServiceClient::new(channel.connect().await.unwrap());
        for _ in 0..WATCHERS_PER_CONNECTION {
            let request = DirectoryServiceWatchRequest::default();
            watches.push(service.watch(request).await.unwrap().into_inner());
        }
    }
    join_all(watches.iter_mut().map(async |watch| {
        let snapshot = next(watch).await;
        assert_eq!((snapshot.reset, snapshot.routes.len()), (true, TENANTS));
    }))
    .await;
    watches
}

#[tokio::test]
async fn change_reaches_many_directory_watchers_cheaply() {
    let _lock = exclusive_lock();
    let cluster = Fixture::builder()
        .binary(binary())
        .region(REGION, 1)
        .start()
        .await
        .unwrap();
    let admin = cluster.client(REGION).await.unwrap().admin();
    let create = |number: usize| NewTenant {
        name: format!("t{number}"),
        home_region: REGION.into(),
        ..NewTenant::default()
    };
    for number in 0..TENANTS {
        admin.create_tenant(create(number)).await.unwrap();
    }
    let mut watches = open(&cluster.endpoints(REGION).unwrap()[0]).await;
    let process = cluster.process(&cluster.nodes()[0].name).await.unwrap();
    let before = cpu_of(process);
    for number in 0..CHANGES {
        let change = TenantChange {
            name: "t7".into(),
            labels: Some([("number".to_owned(), number.to_string())].into()),
            ..TenantChange::default()
        };
        admin.update_tenant(change).await.unwrap();
        join_all(watches.iter_mut().map(async |watch| {
            let change = next(watch).await;
            assert_eq!((change.reset, change.routes.len(), change.regions.len()), (false, 1, 0));
        }))
        .await;
    }
    let cpu = (cpu_of(process) - before) / CHANGES;
    eprintln!(
        "one change to {WATCHERS} watchers: {} us of CPU at the node",
        cpu.as_micros()
    );
    assert!(cpu < CPU_MAX, "{cpu:?} for each change");
}
