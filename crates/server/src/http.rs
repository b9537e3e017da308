//! HTTP endpoints of a node: health, metrics and routes.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;

use crate::{
    auth,
    health::HealthReport,
    host::{self, Host},
    metrics_format::MetricsFormat,
};

/// Route of a tenant: its home and the endpoints that its traffic should go to.
#[derive(Serialize)]
struct Route {
    tenant: String,
    tenant_number: u64,
    home_region: String,
    home_group: u32,
    epoch: u32,
    endpoints: Vec<String>,
}

/// Returns the router of the HTTP listener.
pub(crate) fn router(host: Arc<Host>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/readyz/region", get(readyz_region))
        .route("/metrics", get(metrics))
        .route("/route/{tenant}", get(route))
        .layer(from_fn_with_state(host.auth.clone(), auth::http_access))
        .with_state(host)
}

async fn readyz(State(host): State<Arc<Host>>, RawQuery(query): RawQuery) -> Response {
    respond(&host.readiness.node.report(), query)
}

async fn readyz_region(State(host): State<Arc<Host>>, RawQuery(query): RawQuery) -> Response {
    respond(&host.readiness.region.report(), query)
}

fn respond(report: &HealthReport, query: Option<String>) -> Response {
    let status = if report.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let verbose = query.is_some_and(|query| {
        query
            .split('&')
            .any(|key| key == "verbose" || key.starts_with("verbose="))
    });
    (status, if verbose { report.verbose() } else { report.summary() }).into_response()
}

async fn metrics(State(host): State<Arc<Host>>, headers: HeaderMap) -> Response {
    // A client may split its list over several headers.
    let accept = headers.get_all(header::ACCEPT).iter();
    let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
    let format = MetricsFormat::accepted(&accept.join(","));
    let metrics = format.convert(host::metrics_text(&host));
    ([(header::CONTENT_TYPE, format.content_type())], metrics).into_response()
}

async fn route(State(host): State<Arc<Host>>, Path(tenant): Path<String>) -> Response {
    let name = match tenant.parse() {
        Ok(name) => name,
        Err(why) => {
            let why: stead_types::InvalidTenantName = why;
            return (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response();
        }
    };
    match host.resolve(&name).await {
        Ok(found) => {
            let region = host
                .directory_view
                .read(|view| view.region_of(found.home).map(|region| region.name.to_string()));
            Json(Route {
                tenant,
                tenant_number: found.number.get(),
                home_region: region.unwrap_or_default(),
                home_group: found.home.get(),
                epoch: found.epoch.get(),
                endpoints: host.client_addresses(found.home),
            })
            .into_response()
        }
        Err(error) => {
            let is_unknown = matches!(error.kind, stead_types::ErrorKind::TenantNotFound);
            let code = if is_unknown {
                StatusCode::NOT_FOUND
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            (code, format!("{error}\n")).into_response()
        }
    }
}
