//! Needs of each method for operators, from what its message names. What a method needs whatever its message says, the
//! listener has checked: see [`stead_state::authorization::REQUIREMENTS`].

use stead_api::{
    convert,
    proto::admin::v1::{UpdateTenantRequest, promote_request},
};
use stead_state::{
    authorization::{KeyAccess, KeyRange, Need},
    directory::{DirectoryView, MoveTarget, Operation},
};
use stead_types::{Error, GroupId, RegionName, TenantName};
use tonic::Request;

use crate::{auth::Access, host::Host, services::call_metadata::access};

/// Checks that the caller sees a tenant.
pub(crate) fn inspect_tenant<T>(request: &Request<T>, name: &str) -> Result<(), Error> {
    access(request)?.check(&Need::InspectTenant(&tenant(name)?))
}

/// Checks that the caller sees a tenant, or everything if none is named.
pub(super) fn inspect_tenant_or_all<T>(request: &Request<T>, name: &str) -> Result<(), Error> {
    match name {
        "" => access(request)?.check(&Need::Inspect),
        name => inspect_tenant(request, name),
    }
}

/// Checks that the caller may change a tenant itself.
pub(super) fn administer_tenant<T>(request: &Request<T>, name: &str) -> Result<(), Error> {
    access(request)?.check(&Need::AdministerTenant(&tenant(name)?))
}

/// Checks that the caller may read all keys of a tenant.
pub(super) fn read_all_keys<T>(request: &Request<T>, name: &str) -> Result<(), Error> {
    check_all_keys(&access(request)?, &tenant(name)?, KeyAccess::Read)
}

/// Checks that the caller may write and read all keys of a tenant whose changes are written again.
pub(super) fn replay<T>(request: &Request<T>, name: &str) -> Result<(), Error> {
    let (access, tenant) = (access(request)?, tenant(name)?);
    access.check(&Need::AdministerTenant(&tenant))?;
    check_all_keys(&access, &tenant, KeyAccess::Read)?;
    check_all_keys(&access, &tenant, KeyAccess::Write)
}

fn check_all_keys(access: &Access, tenant: &TenantName, key_access: KeyAccess) -> Result<(), Error> {
    access.check(&Need::Keys {
        tenant,
        access: key_access,
        range: KeyRange::Range(b"", None),
    })
}

/// Checks that the caller operates a region.
pub(super) fn operate_region<T>(request: &Request<T>, name: &str) -> Result<(), Error> {
    let region = convert::id::region("region", name)?;
    access(request)?.check(&Need::OperateRegion(&region))
}

/// Checks that the caller operates the region of a group; the directory's is of no region.
pub(super) fn operate_group<T>(request: &Request<T>, host: &Host, group: u32) -> Result<(), Error> {
    let region = host.directory_view.read(|view| region_of(view, GroupId::new(group)));
    operate_all(&access(request)?, &[region])
}

/// Checks that the caller operates the regions of a tenant's home and of where it is to be moved.
pub(super) fn move_tenant<T>(
    request: &Request<T>,
    host: &Host,
    name: &TenantName,
    to: &MoveTarget,
) -> Result<(), Error> {
    let regions = host.directory_view.read(|view| {
        let home = home_region(view, name);
        let target = match to {
            MoveTarget::Region(region) => Some(region.clone()),
            MoveTarget::Group(group) => region_of(view, *group),
            MoveTarget::OtherGroup => home.clone(),
        };
        [home, target]
    });
    operate_all(&access(request)?, &regions)
}

/// Checks that the caller operates the regions that a promotion takes homes from.
pub(super) fn promote<T>(
    request: &Request<T>,
    host: &Host,
    selection: Option<&promote_request::Selection>,
) -> Result<(), Error> {
    use promote_request::Selection;
    let regions = match selection {
        None => Vec::new(),
        Some(Selection::Region(name)) => vec![Some(convert::id::region("region", name)?)],
        Some(Selection::Group(group)) => {
            vec![host.directory_view.read(|view| region_of(view, GroupId::new(*group)))]
        }
        Some(Selection::Tenants(named)) => {
            let names: Result<Vec<TenantName>, Error> = named.tenants.iter().map(|name| tenant(name)).collect();
            let names = names?;
            host.directory_view
                .read(|view| names.iter().map(|name| home_region(view, name)).collect())
        }
    };
    operate_all(&access(request)?, &regions)
}

/// Checks that the caller may cancel, pause or resume an operation: who may begin it now.
pub(crate) fn operation<T>(request: &Request<T>, host: &Host, operation: &Operation) -> Result<(), Error> {
    let regions = host.directory_view.read(|view| operation.operated_regions(view));
    let regions: Vec<Option<RegionName>> = regions.into_iter().flatten().map(Some).collect();
    operate_all(&access(request)?, &regions)
}

/// Checks that the caller may update a tenant as requested. Where it is, how durable it is and what it may use is for
/// those who operate the cluster; its labels, whether it is served, and its policies are for its administrators too.
pub(super) fn update_tenant(request: &Request<UpdateTenantRequest>) -> Result<(), Error> {
    let update = request.get_ref();
    let is_of_cluster = update.followers.is_some()
        || update.residency.is_some()
        || update.durability != 0
        || update.limits.is_some()
        || !update.default_limits.is_empty();
    match is_of_cluster {
        true => access(request)?.check(&Need::OperateCluster),
        false => administer_tenant(request, &update.name),
    }
}

/// An unknown region is one that only those may name who operate the cluster.
fn operate_all(access: &Access, regions: &[Option<RegionName>]) -> Result<(), Error> {
    if regions.is_empty() {
        return access.check(&Need::OperateCluster);
    }
    regions.iter().try_for_each(|region| match region {
        Some(region) => access.check(&Need::OperateRegion(region)),
        None => access.check(&Need::OperateCluster),
    })
}

fn region_of(view: &DirectoryView, group: GroupId) -> Option<RegionName> {
    view.region_of(group).map(|region| region.name.clone())
}

fn home_region(view: &DirectoryView, name: &TenantName) -> Option<RegionName> {
    region_of(view, view.tenant_named(name)?.home)
}

fn tenant(name: &str) -> Result<TenantName, Error> {
    convert::id::tenant("tenant", name)
}
