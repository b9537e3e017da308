//! Call of any method: one message, and the code of the first answer.

use futures::{StreamExt, stream};
use stead_api::proto::v1::{PipelineResponse, WatchResponse, answer, watch_response};
use tonic::{Code, Request, codec::Codec, codegen::http::uri::PathAndQuery, transport::Channel};

/// Sends one message, whatever kind of method it is, and returns the code of the first answer.
pub(super) async fn call<T, C>(
    (channel, token): (Channel, String),
    path: &'static str,
    message: T,
    codec: C,
    code_of: fn(C::Decode) -> Code,
) -> Code
where
    T: Send + Sync + 'static,
    C: Codec<Encode = T> + Send + Sync + 'static,
    C::Decode: Send + Sync + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    if grpc.ready().await.is_err() {
        return Code::Unavailable;
    }
    let mut request = Request::new(stream::iter([message]));
    let header = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", header);
    let path: PathAndQuery = format!("/{path}").parse().unwrap();
    match grpc.streaming(request, path, codec).await {
        Err(status) => status.code(),
        Ok(answers) => match answers.into_inner().next().await {
            None => Code::Ok,
            Some(Ok(answer)) => code_of(answer),
            Some(Err(status)) => status.code(),
        },
    }
}

/// Code of an answer that is not looked into.
pub(super) fn answered(_answer: ()) -> Code {
    Code::Ok
}

/// Code of the first message of a watch.
pub(super) fn of_watch(message: WatchResponse) -> Code {
    match message.response {
        Some(watch_response::Response::Ended(ended)) => ended.error.map_or(Code::Ok, |error| Code::from(error.code)),
        _ => Code::Ok,
    }
}

/// Code of the first operation of a pipeline.
pub(super) fn of_pipeline(answers: PipelineResponse) -> Code {
    let first = answers.answers.into_iter().next().and_then(|answer| answer.response);
    match first {
        Some(answer::Response::Error(error)) => Code::from(error.code),
        _ => Code::Ok,
    }
}
