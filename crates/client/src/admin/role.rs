//! Operators' calls about roles of callers.

use stead_api::proto::admin::v1::{self, role_service_client::RoleServiceClient as Service};
use stead_types::Error;

use super::{Admin, PAGE_SIZE};
use crate::{paging::ListPage, response::malformed};

/// Roles of one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleBinding {
    /// The identity.
    pub subject: String,
    /// Its roles.
    pub roles: Vec<String>,
}

/// Identity of a client, as the node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerInfo {
    /// The identity.
    pub subject: String,
    /// Roles that its credential gives.
    pub credential_roles: Vec<String>,
    /// Roles that are bound to it.
    pub bound_roles: Vec<String>,
    /// Whether the cluster asks callers for credentials.
    pub required: bool,
}

impl Admin {
    /// Binds a role to an identity.
    ///
    /// # Errors
    ///
    /// An error response, such as `INVALID` for what is no role.
    pub async fn grant_role(&self, subject: &str, role: &str, reason: &str) -> Result<RoleBinding, Error> {
        let request = v1::GrantRoleRequest {
            subject: subject.to_owned(),
            role: role.to_owned(),
            reason: reason.to_owned(),
        };
        let call = async |channel, request| Service::new(channel).grant_role(request).await;
        let state = self.0.state();
        let answer = state.unary(request, state.deadline(None), false, call).await?;
        answer.binding.map(binding).ok_or_else(|| malformed("binding"))
    }

    /// Takes a role from an identity.
    ///
    /// # Errors
    ///
    /// An error response, such as `NOT_FOUND` where it does not have the role.
    pub async fn revoke_role(&self, subject: &str, role: &str, reason: &str) -> Result<RoleBinding, Error> {
        let request = v1::RevokeRoleRequest {
            subject: subject.to_owned(),
            role: role.to_owned(),
            reason: reason.to_owned(),
        };
        let call = async |channel, request| Service::new(channel).revoke_role(request).await;
        let state = self.0.state();
        let answer = state.unary(request, state.deadline(None), false, call).await?;
        answer.binding.map(binding).ok_or_else(|| malformed("binding"))
    }

    /// Lists all roles that are bound to identities.
    ///
    /// # Errors
    ///
    /// An error response.
    pub async fn role_bindings(&self) -> Result<Vec<RoleBinding>, Error> {
        let state = self.0.state();
        let request = v1::ListRoleBindingsRequest {
            page_size: PAGE_SIZE,
            page_token: String::new(),
        };
        let listed = state
            .list(
                request,
                state.deadline(None),
                async |channel, request| Service::new(channel).list_role_bindings(request).await,
                |request, page_token| request.page_token = page_token,
                |answer: v1::ListRoleBindingsResponse| ListPage {
                    items: answer.bindings,
                    next_page_token: answer.next_page_token,
                },
            )
            .await?;
        Ok(listed.into_iter().map(binding).collect())
    }

    /// Returns who the client is, and its roles.
    ///
    /// # Errors
    ///
    /// An error response.
    pub async fn caller(&self) -> Result<CallerInfo, Error> {
        let call = async |channel, request| Service::new(channel).get_caller(request).await;
        let state = self.0.state();
        let answer = state
            .unary(v1::GetCallerRequest {}, state.deadline(None), true, call)
            .await?;
        Ok(CallerInfo {
            subject: answer.subject,
            credential_roles: answer.credential_roles,
            bound_roles: answer.bound_roles,
            required: answer.required,
        })
    }
}

fn binding(message: v1::RoleBinding) -> RoleBinding {
    RoleBinding {
        subject: message.subject,
        roles: message.roles,
    }
}
