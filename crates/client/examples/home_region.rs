//! HTTP service in several regions that serves each tenant's requests in the tenant's home region: an instance that
//! receives a request for a tenant of another region forwards it to the instance there.
//!
//! ```text
//! cargo run -- dev                                  # three regions on this machine; prints their addresses
//! cargo run -p stead-client --example home_region -- eu-west 127.0.0.1:7401 eu-west=127.0.0.1:8001 us-east=127.0.0.1:8002
//! curl -H 'x-tenant: acme' http://127.0.0.1:8001/
//! ```
//!
//! The first argument is this instance's region, the second a node of Stead, the others are the service's instances.
//!
//! A request is forwarded once at most, so that two instances of which one knows of a move and the other does not yet
//! never send it back and forth: the second one serves it, from further away.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use http::{HeaderValue, Request, Response, StatusCode, Uri, header::HeaderName};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use stead_client::{Client, Config, ErrorKind};
use tokio::net::TcpListener;
use tonic::body::Body;

const TENANT: HeaderName = HeaderName::from_static("x-tenant");
/// Header of a forwarded request; its value is the region that forwarded it.
const FORWARDED_BY: HeaderName = HeaderName::from_static("x-came-from");

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Middleware that forwards requests to the home region of their tenant.
struct Middleware {
    stead: Client,
    region: String,
    /// The service's instances by region, `host:port`.
    instances: BTreeMap<String, String>,
    http: Http<HttpConnector, Incoming>,
}

impl Middleware {
    async fn handle(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let handled = match self.other_instance(&request).await {
            Ok(Some(instance)) => self.forward(request, &instance).await,
            Ok(None) => self.serve(&request).await,
            Err(response) => return Ok(response),
        };
        Ok(handled.unwrap_or_else(|error| response(StatusCode::BAD_GATEWAY, format!("{error}\n"))))
    }

    /// Returns the instance that should serve the request, if it is another one.
    async fn other_instance(&self, request: &Request<Incoming>) -> Result<Option<String>, Response<Body>> {
        let tenant = request.headers().get(TENANT).and_then(|name| name.to_str().ok());
        let tenant = tenant.ok_or_else(|| response(StatusCode::BAD_REQUEST, "x-tenant names no tenant\n".into()))?;
        let home = self.stead.home(tenant).map_err(error_response)?;
        // Only the first lookup asks the directory. A name that no tenant has ends here, and the client keeps nothing
        // of it.
        let route = home.now().await.map_err(error_response)?;
        if route.home_region.as_str() == self.region || request.headers().contains_key(FORWARDED_BY) {
            return Ok(None);
        }
        // A region without an instance is served from here.
        Ok(self.instances.get(route.home_region.as_str()).cloned())
    }

    async fn forward(&self, mut request: Request<Incoming>, instance: &str) -> Result<Response<Body>, BoxError> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = format!("http://{instance}{path}").parse::<Uri>()?;
        let here = HeaderValue::from_str(&self.region)?;
        request.headers_mut().insert(FORWARDED_BY, here);
        Ok(self.http.request(request).await?.map(Body::new))
    }

    /// The service itself: it counts a tenant's requests, with one round trip inside the region when the tenant's home
    /// is here.
    async fn serve(&self, request: &Request<Incoming>) -> Result<Response<Body>, BoxError> {
        let name = request.headers()[TENANT].to_str()?;
        let counted = self.stead.tenant(name)?.increment("requests", 1).await?;
        let text = format!(
            "{name}: request {} served in {}\n",
            counted.value.unwrap_or_default(),
            self.region
        );
        Ok(response(StatusCode::OK, text))
    }
}

fn response(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::new(text));
    *response.status_mut() = status;
    response
}

fn error_response(error: stead_client::Error) -> Response<Body> {
    let status = if error.kind == ErrorKind::TenantNotFound {
        StatusCode::NOT_FOUND
    } else if matches!(error.kind, ErrorKind::Invalid { .. }) {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    response(status, format!("{error}\n"))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let (Some(region), Some(node)) = (arguments.next(), arguments.next()) else {
        return Err("usage: home_region REGION NODE REGION=HOST:PORT...".into());
    };
    let instance = |text: String| {
        let (region, address) = text.split_once('=')?;
        Some((region.to_owned(), address.to_owned()))
    };
    let instances: BTreeMap<String, String> = arguments.filter_map(instance).collect();
    let own = instances
        .get(&region)
        .ok_or("this region's own instance is not among them")?;
    let listener = TcpListener::bind(own).await?;
    let middleware = Arc::new(Middleware {
        stead: Client::connect(Config::new([node])).await?,
        region,
        instances,
        http: Http::builder(TokioExecutor::new()).build_http(),
    });
    loop {
        let (connection, _) = listener.accept().await?;
        let middleware = middleware.clone();
        let handle = move |request| {
            let middleware = middleware.clone();
            async move { middleware.handle(request).await }
        };
        tokio::spawn(async move {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let service = hyper::service::service_fn(handle);
            if let Err(error) = server.serve_connection(TokioIo::new(connection), service).await {
                eprintln!("a connection broke: {error}");
            }
        });
    }
}
