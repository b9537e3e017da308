//! `RoleService`: roles of callers.

use std::{sync::Arc, time::Duration};

use stead_api::{
    convert,
    proto::admin::v1::{
        GetCallerRequest, GetCallerResponse, GrantRoleRequest, GrantRoleResponse, ListRoleBindingsRequest,
        ListRoleBindingsResponse, RevokeRoleRequest, RevokeRoleResponse, RoleBinding, role_service_server,
    },
};
use stead_state::{
    authorization::Subject,
    directory::{Command, RoleGrant},
};
use stead_types::{Error, ErrorKind};
use tonic::{Request, Response, Status};

use super::{PAGE_DEFAULT, PAGE_MAX, by, to_status};
use crate::{host::Host, services::call_metadata::access};

/// Longest wait for this node's view to show a change that it has just made.
const VIEW_WAIT: Duration = Duration::from_secs(3);

/// The service.
#[derive(Clone)]
pub(crate) struct RoleService(Arc<Host>);

impl RoleService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }

    /// Proposes a change of a subject's roles, and returns them once this node's view shows it.
    async fn change(&self, subject: &Subject, command: &Command) -> Result<RoleBinding, Error> {
        // Older voters cannot read the command.
        self.0.directory_view.read(|view| view.settings().check_roles())?;
        let (_, version) = self.0.directory.propose(command).await?;
        if !self.0.directory_view.wait_for(version, VIEW_WAIT).await {
            let message = "done, but this node's view is behind: read it again in a moment";
            return Err(Error::new(ErrorKind::OutcomeUnknown { key: None }, message));
        }
        Ok(self.binding(subject))
    }

    fn binding(&self, subject: &Subject) -> RoleBinding {
        let bindings = self.0.directory_view.read(|view| view.role_bindings().clone());
        RoleBinding {
            subject: subject.to_string(),
            roles: bindings.roles(subject).iter().map(ToString::to_string).collect(),
        }
    }

    async fn grant(&self, request: Request<GrantRoleRequest>) -> Result<GrantRoleResponse, Error> {
        let by = by(&request, &request.get_ref().reason);
        let request = request.into_inner();
        convert::directory::reason(&request.reason)?;
        let grant = grant(&request.subject, &request.role)?;
        let subject = grant.subject.clone();
        let binding = self.change(&subject, &Command::GrantRole(by, grant)).await?;
        Ok(GrantRoleResponse { binding: Some(binding) })
    }

    async fn revoke(&self, request: Request<RevokeRoleRequest>) -> Result<RevokeRoleResponse, Error> {
        let by = by(&request, &request.get_ref().reason);
        let request = request.into_inner();
        convert::directory::reason(&request.reason)?;
        let grant = grant(&request.subject, &request.role)?;
        let subject = grant.subject.clone();
        let binding = self.change(&subject, &Command::RevokeRole(by, grant)).await?;
        Ok(RevokeRoleResponse { binding: Some(binding) })
    }

    fn list(&self, request: &ListRoleBindingsRequest) -> Result<ListRoleBindingsResponse, Error> {
        self.0.check_view_loaded()?;
        let size = convert::page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX)? as usize;
        let after = convert::page::position(b"roles", &request.page_token)?;
        let invalid = || Error::invalid("page_token", "page_token: not a token of this store");
        let read = |name: Vec<u8>| String::from_utf8(name).ok().and_then(|name| name.parse().ok());
        let after: Option<Subject> = after.map(|name| read(name).ok_or_else(invalid)).transpose()?;
        let bindings = self.0.directory_view.read(|view| view.role_bindings().clone());
        let mut rest = bindings.after(after.as_ref()).map(|(subject, roles)| RoleBinding {
            subject: subject.to_string(),
            roles: roles.iter().map(ToString::to_string).collect(),
        });
        let page: Vec<RoleBinding> = rest.by_ref().take(size).collect();
        let last = page.last().filter(|_| rest.next().is_some());
        let next = last.map(|last| convert::page::token(b"roles", last.subject.as_bytes()));
        Ok(ListRoleBindingsResponse {
            next_page_token: next.unwrap_or_default(),
            bindings: page,
        })
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<GetCallerResponse, Error> {
        let access = access(request)?;
        let required = access.is_required();
        let Some(caller) = access.caller() else {
            return Ok(GetCallerResponse {
                subject: "anonymous".to_owned(),
                required,
                ..GetCallerResponse::default()
            });
        };
        Ok(GetCallerResponse {
            subject: caller.subject.to_string(),
            credential_roles: caller.roles.iter().map(ToString::to_string).collect(),
            bound_roles: self.binding(&caller.subject).roles,
            required,
        })
    }
}

fn grant(subject: &str, role: &str) -> Result<RoleGrant, Error> {
    Ok(RoleGrant {
        subject: subject
            .parse()
            .map_err(|why| Error::invalid("subject", format!("subject: {why}")))?,
        role: role
            .parse()
            .map_err(|why: stead_state::authorization::InvalidRole| Error::invalid("role", format!("role: {why}")))?,
    })
}

fn respond<T>(result: Result<T, Error>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| to_status(&error))
}

#[tonic::async_trait]
impl role_service_server::RoleService for RoleService {
    async fn grant_role(&self, request: Request<GrantRoleRequest>) -> Result<Response<GrantRoleResponse>, Status> {
        respond(self.grant(request).await)
    }

    async fn revoke_role(&self, request: Request<RevokeRoleRequest>) -> Result<Response<RevokeRoleResponse>, Status> {
        respond(self.revoke(request).await)
    }

    async fn list_role_bindings(
        &self,
        request: Request<ListRoleBindingsRequest>,
    ) -> Result<Response<ListRoleBindingsResponse>, Status> {
        respond(self.list(request.get_ref()))
    }

    async fn get_caller(&self, request: Request<GetCallerRequest>) -> Result<Response<GetCallerResponse>, Status> {
        respond(self.caller(&request))
    }
}
