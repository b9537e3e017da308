//! Middleware of the listeners, which puts an [`Access`] into each request's extensions or refuses the request.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use stead_api::{caller_metadata, status};
use stead_state::authorization::{Need, Requirement, requirement};
use stead_types::{Error, ErrorKind, TenantName};

use super::{access::Access, authenticator::Authenticator};
use crate::certificate_identity::CertificateIdentity;

/// Lets a request of the client listener pass if its caller could be allowed what the method does.
pub(crate) async fn client_access(
    State(auth): State<Arc<Authenticator>>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let is_free = requirement(path).is_some_and(|row| row.1 == Requirement::Nothing);
    if !is_free {
        match access(&auth, &request).and_then(|access| access.for_method(path)) {
            Ok(access) => drop(request.extensions_mut().insert(access)),
            Err(error) => return status::to_status(&error).into_http(),
        }
    }
    next.run(request).await
}

fn access(auth: &Authenticator, request: &Request) -> Result<Access, Error> {
    let certificate = request.extensions().get::<CertificateIdentity>();
    let credential = auth.authenticate(certificate, request.headers())?;
    Ok(Access::of_caller(credential, auth.context().clone()))
}

/// Reads from a request of the peer listener who has asked the node on its other end; without that, the node itself asks.
pub(crate) async fn peer_access(State(auth): State<Arc<Authenticator>>, mut request: Request, next: Next) -> Response {
    let access = match caller_metadata::read(request.headers()) {
        None => Ok(Access::node()),
        Some(Ok(caller)) => Access::of_forwarded(Some(caller), auth.context()),
        Some(Err(_)) => Err(Error::new(
            ErrorKind::Internal,
            "the caller that the other node names cannot be read",
        )),
    };
    match access.and_then(|access| access.for_method(request.uri().path())) {
        Ok(access) => {
            request.extensions_mut().insert(access);
            next.run(request).await
        }
        Err(error) => status::to_status(&error).into_http(),
    }
}

/// Lets a request of the HTTP listener pass if its path is open, or its caller may see what it shows.
pub(crate) async fn http_access(State(auth): State<Arc<Authenticator>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_health = ["/livez", "/readyz", "/readyz/region"].contains(&path);
    if is_health || auth.is_open_path(path) {
        return next.run(request).await;
    }
    match access(&auth, &request).and_then(|access| check_path(&access, path)) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            let code = if error.kind == ErrorKind::Unauthenticated {
                StatusCode::UNAUTHORIZED
            } else {
                StatusCode::FORBIDDEN
            };
            (code, format!("{error}\n")).into_response()
        }
    }
}

fn check_path(access: &Access, path: &str) -> Result<(), Error> {
    match path
        .strip_prefix("/route/")
        .and_then(|name| name.parse::<TenantName>().ok())
    {
        Some(tenant) => access.check(&Need::Member(&tenant)),
        None => access.check(&Need::Inspect),
    }
}
