//! `TenantService`: creates, reads, updates and deletes tenants in the directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use stead_api::{
    convert,
    proto::{
        admin::v1::{
            self as admin, CreateTenantRequest, CreateTenantResponse, DeleteTenantRequest, DeleteTenantResponse,
            GetTenantRequest, GetTenantResponse, ListTenantLoadsRequest, ListTenantLoadsResponse, ListTenantsRequest,
            ListTenantsResponse, MoveTenantRequest, UpdateTenantRequest, UpdateTenantResponse, VerifyTenantRequest,
            VerifyTenantResponse, tenant_service_server,
        },
        google::longrunning,
        v1,
    },
};
use stead_state::authorization::Need;
use stead_state::directory::{
    Command, Directory, DirectoryOutcome, DirectoryView, Followers, LimitsUpdate, NewTenant, TenantUpdate,
};
use stead_state::shard::record::LeaseLossPolicy;
use stead_types::{Durability, Error, ErrorKind, Jurisdiction, RegionName, TenantName};
use tonic::{Request, Response, Status};

use super::{
    PAGE_DEFAULT, PAGE_MAX, authorize, by, etag, parse_etag, tenant_loads, tenant_message::message, tenant_move,
    tenant_verify, time, to_status,
};
use crate::{admin_peers::is_peer_request, auth::Access, host::Host, services::call_metadata::access};

/// Longest wait for this node's view to show a change that it has just made.
const VIEW_WAIT: Duration = Duration::from_secs(3);

/// The service.
#[derive(Clone)]
pub(crate) struct TenantService(Arc<Host>);

impl TenantService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }

    /// Proposes a command, waits until this node's view shows it, and returns the tenant.
    async fn change(&self, command: Command, name: &TenantName) -> Result<admin::Tenant, Error> {
        let (_, version) = self.0.directory.propose(&command).await?;
        if !self.0.directory_view.wait_for(version, VIEW_WAIT).await {
            let message = "done, but this node's view is behind: read it again in a moment";
            return Err(Error::new(ErrorKind::OutcomeUnknown { key: None }, message));
        }
        self.tenant_in_view(name)
    }

    fn tenant_in_view(&self, name: &TenantName) -> Result<admin::Tenant, Error> {
        let missing = || Error::new(ErrorKind::TenantNotFound, format!("there is no tenant {name}"));
        self.0
            .directory_view
            .read(|view| view.tenant_named(name).map(|tenant| message(view, tenant)))
            .ok_or_else(missing)
    }
}

fn unexpected_outcome() -> Error {
    Error::new(
        ErrorKind::Internal,
        "the directory returned no tenant: this is a bug, please report it",
    )
}

fn followers(message: admin::Followers) -> Result<Followers, Error> {
    if message.all_admitted && message.regions.is_empty() {
        return Ok(Followers::AllAdmitted);
    }
    if message.all_admitted {
        let field = "followers.regions";
        return Err(Error::invalid(
            field,
            "followers.regions: leave it empty together with all_admitted",
        ));
    }
    let region = |(at, name): (usize, &String)| convert::id::region(&format!("followers.regions[{at}]"), name);
    let regions: Result<Box<[RegionName]>, Error> = message.regions.iter().enumerate().map(region).collect();
    regions.map(Followers::Named)
}

/// Reads a residency; a jurisdiction without a region is a slip of the pen, which would keep copies away for good.
fn residency(host: &Host, names: &[String]) -> Result<Vec<Jurisdiction>, Error> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    host.check_view_loaded()?;
    let known: BTreeSet<Jurisdiction> = host
        .directory_view
        .read(|view| view.regions().map(|region| region.jurisdiction.clone()).collect());
    let jurisdiction = |(at, name): (usize, &String)| {
        let field = format!("residency[{at}]");
        let named: Jurisdiction = name
            .parse()
            .map_err(|why| Error::invalid(&field, format!("{field}: {why}")))?;
        if known.contains(&named) {
            return Ok(named);
        }
        let known = known.iter().map(Jurisdiction::as_str).collect::<Vec<_>>().join(", ");
        let message = format!("{field}: no region has the jurisdiction {named}; there are {known}");
        Err(Error::invalid(&field, message))
    };
    names.iter().enumerate().map(jurisdiction).collect()
}

fn durability(number: i32) -> Result<Option<Durability>, Error> {
    match convert::read::durability("durability", number)? {
        None => Ok(None),
        Some(v1::Durability::Region | v1::Durability::Unspecified) => Ok(Some(Durability::Region)),
        Some(v1::Durability::Remote) => Ok(Some(Durability::Remote)),
    }
}

fn on_lease_loss(number: i32) -> Result<Option<LeaseLossPolicy>, Error> {
    let field = "on_lease_loss";
    match admin::OnLeaseLoss::try_from(number) {
        Ok(admin::OnLeaseLoss::Unspecified) => Ok(None),
        Ok(admin::OnLeaseLoss::Stop) => Ok(Some(LeaseLossPolicy::Stop)),
        Ok(admin::OnLeaseLoss::Continue) => Ok(Some(LeaseLossPolicy::Continue)),
        Ok(admin::OnLeaseLoss::Stopping) => Err(Error::invalid(
            field,
            "on_lease_loss: STOPPING is only shown; ask for STOP or CONTINUE",
        )),
        Err(_) => Err(Error::invalid(
            field,
            format!("on_lease_loss: {number} is not a value that this node knows; ask for STOP or CONTINUE"),
        )),
    }
}

fn labels(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    convert::directory::labels(&labels)?;
    Ok(labels)
}

fn state(number: i32) -> Result<admin::tenant::State, Error> {
    let unknown = |_| Error::invalid("state", format!("state: {number} is no state that this node knows"));
    admin::tenant::State::try_from(number).map_err(unknown)
}

impl TenantService {
    async fn create(&self, request: Request<CreateTenantRequest>) -> Result<CreateTenantResponse, Error> {
        let by = by(&request, &request.get_ref().reason);
        let request = request.into_inner();
        convert::directory::reason(&request.reason)?;
        let name = convert::id::tenant("name", &request.name)?;
        let home = match request.home_region.as_str() {
            "" => self.0.config.node.region.clone(),
            region => convert::id::region("home_region", region)?,
        };
        let new = NewTenant {
            name: name.clone(),
            home,
            followers: request.followers.map_or(Ok(Followers::AllAdmitted), followers)?,
            residency: residency(&self.0, &request.residency)?,
            durability: self.durability(request.durability)?.unwrap_or(Durability::Region),
            labels: labels(request.labels)?,
            limits: convert::limits::limits(request.limits)?,
            on_lease_loss: self.on_lease_loss(request.on_lease_loss)?.unwrap_or_default(),
        };
        let command = Command::CreateTenant(by, new);
        let tenant = if request.validate_only {
            self.dry_run(command)?
        } else {
            self.change(command, &name).await?
        };
        Ok(CreateTenantResponse { tenant: Some(tenant) })
    }

    /// Reads what the home does without a lease; `None` if the request does not say. It is proposed only if all nodes can
    /// read it.
    fn on_lease_loss(&self, number: i32) -> Result<Option<LeaseLossPolicy>, Error> {
        let policy = on_lease_loss(number)?;
        if policy.is_some_and(|policy| policy != LeaseLossPolicy::Stop) {
            self.0.directory_view.read(|view| view.settings().check_moves())?;
        }
        Ok(policy)
    }

    /// Reads the durability of writes; `None` if the request does not say. `REMOTE` is proposed only if every home waits for
    /// other regions.
    fn durability(&self, number: i32) -> Result<Option<Durability>, Error> {
        let durability = durability(number)?;
        if durability == Some(Durability::Remote) {
            self.0.directory_view.read(|view| view.settings().check_region_loss())?;
        }
        Ok(durability)
    }

    /// Returns the tenant as a command would leave it, according to this node's view. Number, etag and times stay
    /// unchanged: only the directory assigns new ones.
    fn dry_run(&self, command: Command) -> Result<admin::Tenant, Error> {
        let before = self.0.directory_view.read(DirectoryView::clone);
        let (outcome, after) = Directory::dry_run(before.clone(), command)?;
        let DirectoryOutcome::Tenant(number) = outcome else {
            return Err(unexpected_outcome());
        };
        let planned = after.tenant(number).ok_or_else(unexpected_outcome)?;
        let planned = message(&after, planned);
        Ok(match before.tenant(number) {
            Some(now) => admin::Tenant {
                etag: etag(now.version),
                update_time: Some(time(now.updated)),
                ..planned
            },
            None => admin::Tenant {
                number: 0,
                etag: String::new(),
                create_time: None,
                update_time: None,
                ..planned
            },
        })
    }

    fn list(&self, request: &ListTenantsRequest, access: &Access) -> Result<ListTenantsResponse, Error> {
        self.0.check_view_loaded()?;
        let size = convert::page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX)? as usize;
        let filter = format!("{}/{}/{}", request.home_region, request.name_prefix, request.state);
        let after = convert::page::position(filter.as_bytes(), &request.page_token)?;
        let invalid = || Error::invalid("page_token", "page_token: not a token of this store");
        let after: Option<TenantName> = match after {
            Some(name) => Some(
                String::from_utf8(name)
                    .ok()
                    .and_then(|name| name.parse().ok())
                    .ok_or_else(invalid)?,
            ),
            None => None,
        };
        let wanted = state(request.state)?;
        let mut tenants: Vec<admin::Tenant> = self.0.directory_view.read(|view| {
            let tenants = view.tenants_after(after.as_ref());
            let visible = tenants.filter(|tenant| access.allows_in(view, &Need::InspectTenant(&tenant.name)));
            let tenants = visible.map(|tenant| message(view, tenant));
            let tenants = tenants.filter(|tenant| {
                (request.home_region.is_empty() || tenant.home_region == request.home_region)
                    && tenant.name.starts_with(&request.name_prefix)
                    && (wanted == admin::tenant::State::Unspecified || tenant.state == i32::from(wanted))
            });
            tenants.take(size + 1).collect()
        });
        let more = tenants.len() > size;
        tenants.truncate(size);
        let last = tenants.last().filter(|_| more);
        let next_page_token = last.map(|last| convert::page::token(filter.as_bytes(), last.name.as_bytes()));
        Ok(ListTenantsResponse {
            tenants,
            next_page_token: next_page_token.unwrap_or_default(),
        })
    }

    async fn update(&self, request: Request<UpdateTenantRequest>) -> Result<UpdateTenantResponse, Error> {
        let by = by(&request, &request.get_ref().reason);
        let request = request.into_inner();
        convert::directory::reason(&request.reason)?;
        let name = convert::id::tenant("name", &request.name)?;
        let enabled = match state(request.state)? {
            admin::tenant::State::Unspecified => None,
            admin::tenant::State::Active => Some(true),
            admin::tenant::State::Disabled => Some(false),
            admin::tenant::State::Deleting => {
                return Err(Error::invalid(
                    "state",
                    "state: a tenant is erased with DeleteTenant, not here",
                ));
            }
        };
        let set = convert::limits::limits(request.limits)?;
        let update = TenantUpdate {
            name: name.clone(),
            etag: parse_etag(&request.etag)?,
            followers: request.followers.map(followers).transpose()?,
            residency: request
                .residency
                .map(|wanted| residency(&self.0, &wanted.jurisdictions))
                .transpose()?,
            durability: self.durability(request.durability)?,
            labels: request.labels.map(|wanted| labels(wanted.labels)).transpose()?,
            limits: LimitsUpdate {
                clear: convert::limits::default_limits(&request.default_limits, &set)?,
                set,
            },
            enabled,
            on_lease_loss: self.on_lease_loss(request.on_lease_loss)?,
        };
        let command = Command::UpdateTenant(by, update);
        let tenant = if request.validate_only {
            self.dry_run(command)?
        } else {
            self.change(command, &name).await?
        };
        Ok(UpdateTenantResponse { tenant: Some(tenant) })
    }

    async fn delete(&self, request: Request<DeleteTenantRequest>) -> Result<DeleteTenantResponse, Error> {
        let by = by(&request, &request.get_ref().reason);
        let request = request.into_inner();
        convert::directory::reason(&request.reason)?;
        let name = convert::id::tenant("name", &request.name)?;
        let etag = parse_etag(&request.etag)?;
        let command = if request.erase {
            Command::EraseTenant(by, name.clone(), etag)
        } else {
            let disable = TenantUpdate {
                enabled: Some(false),
                ..TenantUpdate::new(name.clone(), etag)
            };
            Command::UpdateTenant(by, disable)
        };
        let tenant = match (request.validate_only, request.erase) {
            (true, _) => self.dry_run(command)?,
            (false, true) => self.erase(&command, &name).await?,
            (false, false) => self.change(command, &name).await?,
        };
        Ok(DeleteTenantResponse { tenant: Some(tenant) })
    }

    /// Proposes to erase a tenant, and returns it as it was before; afterwards this node's view no longer has its
    /// name.
    async fn erase(&self, command: &Command, name: &TenantName) -> Result<admin::Tenant, Error> {
        let before = self.tenant_in_view(name)?;
        let (_, version) = self.0.directory.propose(command).await?;
        self.0.directory_view.wait_for(version, VIEW_WAIT).await;
        Ok(admin::Tenant {
            state: admin::tenant::State::Deleting.into(),
            ..before
        })
    }
}

#[tonic::async_trait]
impl tenant_service_server::TenantService for TenantService {
    async fn create_tenant(
        &self,
        request: Request<CreateTenantRequest>,
    ) -> Result<Response<CreateTenantResponse>, Status> {
        self.create(request)
            .await
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }

    async fn get_tenant(&self, request: Request<GetTenantRequest>) -> Result<Response<GetTenantResponse>, Status> {
        authorize::inspect_tenant(&request, &request.get_ref().name).map_err(|error| to_status(&error))?;
        let name = convert::id::tenant("name", &request.get_ref().name).map_err(|error| to_status(&error))?;
        self.0.resolve(&name).await.map_err(|error| to_status(&error))?;
        let tenant = self.tenant_in_view(&name).map_err(|error| to_status(&error))?;
        Ok(Response::new(GetTenantResponse { tenant: Some(tenant) }))
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        let access = access(&request).map_err(|error| to_status(&error))?;
        self.list(request.get_ref(), &access)
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }

    async fn update_tenant(
        &self,
        request: Request<UpdateTenantRequest>,
    ) -> Result<Response<UpdateTenantResponse>, Status> {
        authorize::update_tenant(&request).map_err(|error| to_status(&error))?;
        self.update(request)
            .await
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }

    async fn delete_tenant(
        &self,
        request: Request<DeleteTenantRequest>,
    ) -> Result<Response<DeleteTenantResponse>, Status> {
        self.delete(request)
            .await
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }

    async fn verify_tenant(
        &self,
        request: Request<VerifyTenantRequest>,
    ) -> Result<Response<VerifyTenantResponse>, Status> {
        authorize::inspect_tenant(&request, &request.get_ref().name).map_err(|error| to_status(&error))?;
        let verified = tenant_verify::verify(&self.0, request.get_ref()).await;
        verified.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn list_tenant_loads(
        &self,
        request: Request<ListTenantLoadsRequest>,
    ) -> Result<Response<ListTenantLoadsResponse>, Status> {
        let is_local = is_peer_request(&request);
        let access = access(&request).map_err(|error| to_status(&error))?;
        let listed = tenant_loads::list(&self.0, request.get_ref(), is_local, &access).await;
        listed.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn move_tenant(
        &self,
        request: Request<MoveTenantRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        tenant_move::begin(&self.0, request)
            .await
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }
}
