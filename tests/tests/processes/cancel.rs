//! Cancelled operations and short deadlines in a pipeline: no effect if the operation has not begun, a response in any
//! case.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use futures::stream;
use stead_api::{
    proto::v1::{
        Answer, Operation, PipelineRequest, PipelineResponse, PutRequest, answer::Response,
        kv_service_client::KvServiceClient, operation::Request,
    },
    status,
};
use stead_client::ErrorKind;
use stead_testing::Fixture;
use stead_tests::process::{binary, exclusive_lock};
use tokio::sync::mpsc;
use tonic::{Streaming, transport::Channel};

/// Pipeline stream, driven by hand.
struct Pipeline {
    messages: mpsc::UnboundedSender<PipelineRequest>,
    answers: Streaming<PipelineResponse>,
    /// Answers that arrived in one message with others.
    ready: VecDeque<Answer>,
}

impl Pipeline {
    async fn open(cluster: &Fixture, node: usize) -> Self {
        let address = format!("http://{}", cluster.nodes()[node].client);
        let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
        let (messages, sent) = mpsc::unbounded_channel();
        let sent = stream::unfold(sent, |mut sent| async { Some((sent.recv().await?, sent)) });
        let answers = KvServiceClient::new(channel).pipeline(sent).await.unwrap();
        Self {
            messages,
            answers: answers.into_inner(),
            ready: VecDeque::new(),
        }
    }

    fn send(&self, operations: Vec<Operation>, cancel_ids: Vec<u64>) {
        let message = PipelineRequest { operations, cancel_ids };
        self.messages.send(message).unwrap();
    }

    /// Returns the next answer.
    async fn answer(&mut self) -> (u64, Result<Response, stead_client::Error>) {
        while self.ready.is_empty() {
            self.ready
                .extend(self.answers.message().await.unwrap().unwrap().answers);
        }
        let Answer { id, response } = self.ready.pop_front().unwrap();
        let response = response.unwrap();
        if let Response::Error(error) = response {
            return (id, Err(status::from_operation_error(error)));
        }
        (id, Ok(response))
    }

    async fn put(&mut self, id: u64, key: &'static str) -> Result<Response, stead_client::Error> {
        self.send(vec![put(id, key)], Vec::new());
        let (answered, answer) = self.answer().await;
        assert_eq!(answered, id);
        answer
    }
}

fn put(id: u64, key: &'static str) -> Operation {
    let request = PutRequest {
        tenant: "acme".into(),
        key: key.into(),
        ..PutRequest::default()
    };
    Operation {
        id,
        request: Some(Request::Put(request)),
        ..Operation::default()
    }
}

fn is_cancelled(answer: (u64, Result<Response, stead_client::Error>), id: u64) -> bool {
    let error = answer.1.unwrap_err();
    let is_expected = error.kind == ErrorKind::DeadlineExceeded && error.message.contains("cancelled");
    assert!(is_expected && answer.0 == id, "{}: {error}", answer.0);
    is_expected
}

#[tokio::test]
async fn operation_cancelled_before_start_has_no_effect() {
    let _lock = exclusive_lock();
    let builder = Fixture::builder().binary(binary());
    let cluster = builder.region("us-east", 1).region("eu-west", 1).start().await.unwrap();
    cluster.create_tenant("acme", "us-east").await.unwrap();
    let mut home = Pipeline::open(&cluster, 0).await;
    home.send(vec![put(1, "home"), put(2, "kept")], vec![1]);
    let mut first = [home.answer().await, home.answer().await];
    first.sort_by_key(|(id, _)| *id);
    let [one, two] = first;
    assert!(is_cancelled(one, 1) && two.1.is_ok());
    // An operation that took effect before it was cancelled stays, and its id can be used again.
    home.send(Vec::new(), vec![2]);
    home.put(2, "again").await.unwrap();

    // A write far from home, forwarded over a link that was lost and cannot be opened again yet.
    let mut far = Pipeline::open(&cluster, 1).await;
    far.put(3, "far").await.unwrap();
    cluster.kill("us-east-1").await.unwrap();
    far.put(4, "lost").await.unwrap_err();
    cluster.cut("us-east", "eu-west").unwrap();
    cluster.start("us-east-1").await.unwrap();
    far.send(vec![put(5, "on its way")], Vec::new());
    far.send(Vec::new(), vec![5]);
    assert!(is_cancelled(far.answer().await, 5));
    cluster.heal_all();
    let mut id = 5;
    while {
        id += 1;
        far.put(id, "after").await.is_err()
    } {}
    let acme = cluster.client("us-east").await.unwrap().tenant("acme").unwrap();
    for (key, is_there) in [
        ("home", false),
        ("kept", true),
        ("again", true),
        ("far", true),
        ("on its way", false),
        ("after", true),
    ] {
        assert_eq!(acme.get(key).await.unwrap().item.is_some(), is_there, "{key}");
    }
}

#[tokio::test]
async fn short_deadline_is_kept_beside_long_ones() {
    let _lock = exclusive_lock();
    let builder = Fixture::builder().binary(binary());
    let cluster = builder.region("us-east", 3).start().await.unwrap();
    cluster.create_tenant("acme", "us-east").await.unwrap();
    let first = Pipeline::open(&cluster, 0).await.put(1, "first").await.unwrap();
    let Response::Put(first) = first else {
        panic!("{first:?}")
    };
    let leader = usize::try_from(first.header.unwrap().node).unwrap() - 1;
    let mut home = Pipeline::open(&cluster, leader).await;
    home.put(2, "second").await.unwrap();
    let others = cluster.nodes().iter().enumerate();
    for (_, node) in others.filter(|(place, _)| *place != leader) {
        cluster.freeze(&node.name).await.unwrap();
    }
    let within = |deadline_ms, operation| Operation {
        deadline_ms,
        ..operation
    };
    let began = Instant::now();
    home.send(
        vec![within(300, put(3, "soon")), within(20_000, put(4, "later"))],
        vec![],
    );
    while home.answer().await.0 != 3 {}
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
