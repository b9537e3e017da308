//! Floors: an RPC that returns its message, with the transport that Stead has, and a sync of the disk.
//!
//! The server of the echo is in the process of the load generator: its CPU is not told apart.

use std::{
    convert::Infallible,
    fs::File,
    io::{Seek, SeekFrom, Write},
    sync::Arc,
    task::{self, Poll},
    time::Instant,
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, Ready, ready},
};
use tempfile::TempDir;
use tokio::task::AbortHandle;
use tonic::{
    Request as Rpc, Response, Status,
    body::Body,
    client::Grpc,
    codegen::{Service, http, http::uri::PathAndQuery},
    server::{NamedService, UnaryService},
    transport::{Channel, Server},
};
use tonic_prost::ProstCodec;

use super::{Caller, System, Watcher};
use crate::{
    processes::{Usage, eventually},
    work::{self, Request, Values, Work},
};

const PORT: u16 = 32_600;
const PATH: &str = "/bench.Echo/Echo";
const BLOCK: [u8; 4_096] = [7; 4_096];

/// Message of a put's size.
#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// Running echo server, and a folder on the disk.
pub(super) struct Floor {
    channel: Channel,
    folder: TempDir,
    values: Values,
    server: AbortHandle,
}

impl Floor {
    pub(super) async fn start() -> Result<Self> {
        let address = ([127, 0, 0, 1], PORT).into();
        let server = tokio::spawn(Server::builder().add_service(EchoService).serve(address)).abort_handle();
        let connect = async || {
            let endpoint = Channel::from_shared(format!("http://127.0.0.1:{PORT}"))?;
            Ok(endpoint.connect().await?)
        };
        Ok(Self {
            channel: eventually("an echo server", connect).await?,
            folder: tempfile::tempdir()?,
            values: Values::new(),
            server,
        })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl System for Floor {
    fn description(&self) -> String {
        "floor: an echo of 256 bytes by tonic, unary, one connection; fdatasync of 4 KiB, one after the other"
            .to_owned()
    }

    fn does(&self, work: Work) -> bool {
        matches!(work, Work::Echo | Work::Sync)
    }

    fn fill(&self) -> BoxFuture<'_, Result<()>> {
        ready(Ok(())).boxed()
    }

    fn caller(&self, _: Instant) -> BoxFuture<'_, Result<Box<dyn Caller>>> {
        async {
            let caller = FloorCaller {
                grpc: Grpc::new(self.channel.clone()),
                file: Arc::new(File::create(self.folder.path().join("synced"))?),
                values: self.values.clone(),
                sent: 0,
            };
            Ok(Box::new(caller) as Box<dyn Caller>)
        }
        .boxed()
    }

    fn watcher(&self, _: Instant) -> BoxFuture<'_, Result<Box<dyn Watcher>>> {
        ready(Err(super::unsupported())).boxed()
    }

    fn usage(&self) -> Result<Usage> {
        Ok(Usage::default())
    }
}

struct FloorCaller {
    grpc: Grpc<Channel>,
    file: Arc<File>,
    values: Values,
    sent: u64,
}

impl FloorCaller {
    async fn run(&mut self, request: Request) -> Result<()> {
        self.sent += 1;
        if matches!(request, Request::Sync) {
            let file = self.file.clone();
            return tokio::task::spawn_blocking(move || sync(&file)).await?;
        }
        let message = Message {
            key: work::key_name(self.sent),
            value: self.values.get(self.sent),
        };
        self.grpc.ready().await?;
        let codec = ProstCodec::<Message, Message>::default();
        let path = PathAndQuery::from_static(PATH);
        let answer = self
            .grpc
            .unary(Rpc::new(message.clone()), path, codec)
            .await?
            .into_inner();
        ensure!(answer == message, "the echo is another message");
        Ok(())
    }
}

fn sync(mut file: &File) -> Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&BLOCK)?;
    Ok(file.sync_data()?)
}

impl Caller for FloorCaller {
    fn call(&mut self, request: Request) -> BoxFuture<'_, Result<()>> {
        self.run(request).boxed()
    }
}

/// Service as the code generator would make it.
#[derive(Clone, Debug)]
struct EchoService;

impl NamedService for EchoService {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for EchoService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        async move {
            let mut server = tonic::server::Grpc::new(ProstCodec::<Message, Message>::default());
            Ok(server.unary(EchoMethod, request).await)
        }
        .boxed()
    }
}

struct EchoMethod;

impl UnaryService<Message> for EchoMethod {
    type Response = Message;
    type Future = Ready<Result<Response<Message>, Status>>;

    fn call(&mut self, request: Rpc<Message>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}
