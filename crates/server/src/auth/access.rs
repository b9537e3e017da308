//! Access: who asks, with what a decision about it needs. It goes with a request wherever that goes.

use std::{fmt, sync::Arc, time::Duration};

use stead_api::proto::internal::v1::ForwardedCaller;
use stead_replication::SharedDirectoryView;
use stead_state::{
    authorization::{Caller, Need, could_satisfy, decide, requirement},
    directory::{DirectoryView, RecordedOutcome},
};
use stead_types::{Error, ErrorKind};

use super::{call_log::CallLog, config::AuthMode};
use crate::metrics::Metrics;

/// Prefixes of the methods whose refusals are in the audit log.
const OPERATORS_SERVICES: [&str; 2] = ["stead.admin.v1.", "google.longrunning."];

/// Verified credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credential {
    /// The caller; `None` if there was no credential.
    pub(crate) caller: Option<Caller>,
    /// Its end, in milliseconds since 1970.
    pub(crate) expires_ms: Option<u64>,
}

impl Credential {
    /// Tells whether it counts at this time.
    pub(crate) fn counts_at(&self, now_ms: u64) -> bool {
        self.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)
    }
}

/// Facts for decisions beside the caller, the same for all of a node.
pub(crate) struct AccessContext {
    /// Whether callers need a credential.
    pub(crate) mode: AuthMode,
    /// The directory view, for the roles that are bound.
    pub(crate) view: SharedDirectoryView,
    /// Wall clock, in milliseconds since 1970.
    pub(crate) wall: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Calls for the audit log.
    pub(crate) calls: CallLog,
    /// Metrics of the node.
    pub(crate) metrics: Arc<Metrics>,
}

/// Caller and method.
#[derive(Clone)]
pub(crate) struct Access {
    who: Who,
    method: &'static str,
}

#[derive(Clone)]
enum Who {
    /// Another node, or this one, on its own account.
    Node,
    /// A caller.
    Caller(Arc<Credential>, Arc<AccessContext>),
}

impl Access {
    /// Returns the access of a node on its own account.
    pub(crate) fn node() -> Self {
        Self {
            who: Who::Node,
            method: "",
        }
    }

    /// Returns the access of a caller.
    pub(crate) fn of_caller(credential: Arc<Credential>, context: Arc<AccessContext>) -> Self {
        Self {
            who: Who::Caller(credential, context),
            method: "",
        }
    }

    /// Returns the access of whom another node names, or of the node itself where it names nobody.
    pub(crate) fn of_forwarded(caller: Option<ForwardedCaller>, context: &Arc<AccessContext>) -> Result<Self, Error> {
        let credential = match caller {
            None => Credential {
                caller: None,
                expires_ms: None,
            },
            Some(message) => read_caller(message)?,
        };
        Ok(Self::of_caller(Arc::new(credential), context.clone()))
    }

    /// Returns the caller for another node, which trusts this one.
    pub(crate) fn to_forwarded(&self) -> ForwardedCaller {
        let credential = match &self.who {
            Who::Node => None,
            Who::Caller(credential, _) => Some(credential),
        };
        let caller = credential.and_then(|credential| credential.caller.as_ref());
        ForwardedCaller {
            subject: caller.map(|caller| caller.subject.to_string()).unwrap_or_default(),
            roles: caller.map_or_else(Vec::new, |caller| {
                caller.roles.iter().map(ToString::to_string).collect()
            }),
            emergency: caller.is_some_and(|caller| caller.is_emergency),
            expires_ms: credential.and_then(|credential| credential.expires_ms).unwrap_or(0),
        }
    }

    /// Tells whether both are of one credential, so that one message for another node names it once.
    pub(crate) fn is_same_caller(&self, other: &Self) -> bool {
        match (&self.who, &other.who) {
            (Who::Node, Who::Node) => true,
            (Who::Caller(one, _), Who::Caller(two, _)) => Arc::ptr_eq(one, two),
            (Who::Node | Who::Caller(..), _) => false,
        }
    }

    /// Returns the caller, if a credential proves one.
    pub(crate) fn caller(&self) -> Option<&Caller> {
        match &self.who {
            Who::Node => None,
            Who::Caller(credential, _) => credential.caller.as_ref(),
        }
    }

    /// Tells whether a node asks on its own account.
    pub(crate) fn is_node(&self) -> bool {
        matches!(self.who, Who::Node)
    }

    /// Tells whether callers need a credential; a node never does.
    pub(crate) fn is_required(&self) -> bool {
        matches!(&self.who, Who::Caller(_, context) if context.mode == AuthMode::Required)
    }

    /// Checks that the caller may call the method at all, and remembers the method.
    pub(crate) fn for_method(mut self, path: &str) -> Result<Self, Error> {
        let row = requirement(path);
        self.method = row.map_or("", |row| row.0);
        let Who::Caller(credential, context) = &self.who else {
            return Ok(self);
        };
        if let Some(caller) = credential.caller.as_ref().filter(|caller| caller.is_emergency) {
            context.metrics.auth.emergency();
            context
                .calls
                .record(RecordedOutcome::Emergency, caller, self.method, "");
            tracing::warn!(who = %caller.subject, method = self.method, "emergency credential used");
        }
        if context.mode == AuthMode::Open {
            return Ok(self);
        }
        let Some((_, requirement)) = row else {
            let message = "this method is not known here";
            return Err(Error::new(ErrorKind::Unimplemented, message));
        };
        let caller = Self::check_credential(credential, context)?;
        let is_possible = context.view.read(|view| {
            let bound = view.role_bindings().roles(&caller.subject);
            could_satisfy(caller.roles.iter().chain(bound), *requirement)
        });
        if is_possible {
            return Ok(self);
        }
        Err(self.deny(caller, context, "has no role that could allow this"))
    }

    /// Waits until the credential has ended; for ever where it has no end.
    pub(crate) fn wait_for_end(&self) -> impl Future<Output = ()> + Send + use<> {
        let end = match &self.who {
            Who::Caller(credential, context) if context.mode == AuthMode::Required => {
                let left = |expires_ms: u64| expires_ms.saturating_sub((context.wall)());
                credential.expires_ms.map(left).map(Duration::from_millis)
            }
            Who::Node | Who::Caller(..) => None,
        };
        async move {
            match end {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Decides whether the caller may do what is needed, by the roles that this node's view shows now.
    ///
    /// # Errors
    ///
    /// `UNAUTHENTICATED` where the credential does not count any more, `PERMISSION_DENIED` where a role is missing.
    pub(crate) fn check(&self, need: &Need<'_>) -> Result<(), Error> {
        let Who::Caller(credential, context) = &self.who else {
            return Ok(());
        };
        if context.mode == AuthMode::Open {
            return Ok(());
        }
        let caller = Self::check_credential(credential, context)?;
        Self::decide(caller, context, need).map_err(|denial| self.deny(caller, context, &denial.to_string()))
    }

    /// Tells whether the caller may do something, for what is left out of a list where it may not.
    pub(crate) fn allows(&self, need: &Need<'_>) -> bool {
        let Who::Caller(credential, context) = &self.who else {
            return true;
        };
        context.mode == AuthMode::Open
            || Self::known(credential, context).is_some_and(|caller| Self::decide(caller, context, need).is_ok())
    }

    /// Tells the same by a view whose lock is held: it must not be taken twice.
    pub(crate) fn allows_in(&self, view: &DirectoryView, need: &Need<'_>) -> bool {
        let Who::Caller(credential, context) = &self.who else {
            return true;
        };
        let is_allowed = |caller: &Caller| {
            let bound = view.role_bindings().roles(&caller.subject);
            decide(caller.roles.iter().chain(bound), need).is_ok()
        };
        context.mode == AuthMode::Open || Self::known(credential, context).is_some_and(is_allowed)
    }

    fn known<'a>(credential: &'a Credential, context: &AccessContext) -> Option<&'a Caller> {
        credential
            .caller
            .as_ref()
            .filter(|_| credential.counts_at((context.wall)()))
    }

    fn decide(
        caller: &Caller,
        context: &AccessContext,
        need: &Need<'_>,
    ) -> Result<(), stead_state::authorization::Denial> {
        context.view.read(|view| {
            let bound = view.role_bindings().roles(&caller.subject);
            decide(caller.roles.iter().chain(bound), need)
        })
    }

    fn check_credential<'a>(credential: &'a Credential, context: &AccessContext) -> Result<&'a Caller, Error> {
        if !credential.counts_at((context.wall)()) {
            context.metrics.auth.unauthenticated();
            let message = "claim exp: the token has ended: send the call again with a new one";
            return Err(Error::new(ErrorKind::Unauthenticated, message));
        }
        credential.caller.as_ref().ok_or_else(|| {
            context.metrics.auth.unauthenticated();
            Error::new(
                ErrorKind::Unauthenticated,
                "this cluster needs a credential: send `authorization: Bearer TOKEN`, or a client certificate",
            )
        })
    }

    fn deny(&self, caller: &Caller, context: &AccessContext, why: &str) -> Error {
        context.metrics.auth.denied();
        if OPERATORS_SERVICES.iter().any(|prefix| self.method.starts_with(prefix)) {
            context.calls.record(RecordedOutcome::Refused, caller, self.method, why);
        }
        Error::new(ErrorKind::PermissionDenied, format!("{} {why}", caller.subject))
    }
}

fn read_caller(message: ForwardedCaller) -> Result<Credential, Error> {
    let expires_ms = Some(message.expires_ms).filter(|expires_ms| *expires_ms > 0);
    if message.subject.is_empty() {
        return Ok(Credential {
            caller: None,
            expires_ms,
        });
    }
    let invalid = |what: &str| {
        let message = format!("the node that passed the call on names a caller whose {what} this node cannot read");
        Error::new(ErrorKind::Internal, message)
    };
    let roles = message.roles.iter().map(|role| role.parse());
    Ok(Credential {
        caller: Some(Caller {
            subject: message.subject.parse().map_err(|_| invalid("identity"))?,
            roles: roles.collect::<Result<_, _>>().map_err(|_| invalid("roles"))?,
            is_emergency: message.emergency,
        }),
        expires_ms,
    })
}

/// Shows who asks, and no credential.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.caller() {
            Some(caller) => write!(f, "access of {}", caller.subject),
            None => f.write_str("access of nobody"),
        }
    }
}
