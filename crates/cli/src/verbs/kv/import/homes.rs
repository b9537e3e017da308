//! Homes of the tenants that an import makes.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use stead_client::{Client, Error, ErrorKind, NewTenant, Tenant};
use stead_types::{RegionName, TenantName};
use tokio::sync::OnceCell;

use crate::exit::{Code, CommandError};

/// Homes by tenant.
#[derive(Clone, Debug, Default)]
pub(super) struct Homes {
    by_tenant: BTreeMap<TenantName, RegionName>,
    /// Home of tenants that the map does not name; absent: they are not made.
    other: Option<RegionName>,
}

impl Homes {
    /// Reads a map, CSV with the columns `tenant` and `home`.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or a line that names no tenant and region.
    pub(super) fn read(map: Option<&Path>, other: Option<RegionName>) -> Result<Self, CommandError> {
        let text = match map {
            Some(path) => std::fs::read_to_string(path).map_err(|error| {
                CommandError::new(
                    Code::Usage,
                    format!("--home-map: {} cannot be read: {error}", path.display()),
                )
            })?,
            None => String::new(),
        };
        let by_tenant = parse(&text).map_err(|why| CommandError::new(Code::Usage, format!("--home-map: {why}")))?;
        Ok(Self { by_tenant, other })
    }

    fn home(&self, tenant: &TenantName) -> Option<&RegionName> {
        self.by_tenant.get(tenant).or(self.other.as_ref())
    }
}

fn parse(text: &str) -> Result<BTreeMap<TenantName, RegionName>, String> {
    let mut homes = BTreeMap::new();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    if text.is_empty() {
        return Ok(homes);
    }
    let header = reader.headers().map_err(|error| error.to_string())?.clone();
    let column = |name: &str| {
        let index = header.iter().position(|column| column.trim() == name);
        index.ok_or_else(|| format!("its first line has no column {name:?}: it has the columns tenant and home"))
    };
    let (tenant, home) = (column("tenant")?, column("home")?);
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let name = |index: usize| record.get(index).unwrap_or_default().trim();
        let invalid = |what: &str, text: &str, why: String| format!("line {line}: {what} {text:?}: {why}");
        let of: TenantName = name(tenant)
            .parse()
            .map_err(|why| invalid("tenant", name(tenant), format!("{why}")))?;
        let at: RegionName = name(home)
            .parse()
            .map_err(|why| invalid("home", name(home), format!("{why}")))?;
        if homes.insert(of, at).is_some() {
            return Err(format!("line {line}: tenant {} is there twice", name(tenant)));
        }
    }
    Ok(homes)
}

/// Tenants that an import writes to: each is looked up, and made where it is missing, once.
#[derive(Debug)]
pub(super) struct Tenants {
    client: Client,
    homes: Homes,
    found: HashMap<TenantName, Arc<OnceCell<FoundTenant>>>,
}

/// Tenant that exists.
#[derive(Clone, Debug)]
pub(super) struct FoundTenant {
    pub(super) handle: Tenant,
    /// Whether this import has made it.
    pub(super) is_new: bool,
}

impl Tenants {
    pub(super) fn new(client: Client, homes: Homes) -> Self {
        Self {
            client,
            homes,
            found: HashMap::new(),
        }
    }

    /// Returns the look-up of a tenant, to be awaited by whoever writes to it.
    pub(super) fn get(&mut self, name: &TenantName) -> TenantLookup {
        let cell = self.found.entry(name.clone()).or_default();
        TenantLookup {
            client: self.client.clone(),
            name: name.clone(),
            home: self.homes.home(name).cloned(),
            cell: cell.clone(),
        }
    }

    /// Returns how many tenants this import has made.
    pub(super) fn created(&self) -> u64 {
        let found = self.found.values().filter_map(|cell| cell.get());
        found.filter(|tenant| tenant.is_new).count() as u64
    }
}

/// Look-up of one tenant.
#[derive(Debug)]
pub(super) struct TenantLookup {
    client: Client,
    name: TenantName,
    home: Option<RegionName>,
    cell: Arc<OnceCell<FoundTenant>>,
}

impl TenantLookup {
    /// Returns the tenant; makes it if it is missing and has a home.
    pub(super) async fn find(&self) -> Result<FoundTenant, Error> {
        let found = self.cell.get_or_try_init(async || self.look_up().await).await?;
        Ok(found.clone())
    }

    async fn look_up(&self) -> Result<FoundTenant, Error> {
        let handle = self.client.tenant(&self.name.to_string())?;
        // A service that may write need not be allowed to look: the write says whether the tenant is there.
        let Some(home) = &self.home else {
            return Ok(FoundTenant { handle, is_new: false });
        };
        let admin = self.client.admin();
        match admin.tenant(&self.name.to_string()).await {
            Err(error) if matches!(error.kind, ErrorKind::TenantNotFound | ErrorKind::NotFound) => {}
            found => return found.map(|_| FoundTenant { handle, is_new: false }),
        }
        let new = NewTenant {
            name: self.name.to_string(),
            home_region: home.to_string(),
            reason: "stead kv import".to_owned(),
            ..NewTenant::default()
        };
        let is_new = is_new(admin.create_tenant(new).await.map(drop))?;
        Ok(FoundTenant { handle, is_new })
    }
}

/// Returns whether an import has made a tenant that was missing. Where nobody knows, the next look-up finds out.
fn is_new(created: Result<(), Error>) -> Result<bool, Error> {
    match created {
        Ok(()) => Ok(true),
        Err(error) if error.kind == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::{Class, class};
    use super::*;

    #[test]
    fn map_names_homes_and_others_have_the_default() {
        let homes = parse("home,tenant\neu-west,de\nus-east, us\n").unwrap();
        let homes = Homes {
            by_tenant: homes,
            other: Some("ap-south".parse().unwrap()),
        };
        let home = |name: &str| homes.home(&name.parse().unwrap()).map(ToString::to_string);
        assert_eq!(home("de").unwrap(), "eu-west");
        assert_eq!(home("us").unwrap(), "us-east");
        assert_eq!(home("in").unwrap(), "ap-south");
    }

    #[test]
    fn tenant_that_may_have_been_made_is_looked_up_again() {
        let unknown = ErrorKind::OutcomeUnknown { key: None };
        let error = is_new(Err(Error::new(unknown, "create tenant"))).unwrap_err();
        assert_eq!(class(&error.kind), Class::Transient);
        assert_eq!(is_new(Ok(())), Ok(true));
        let others = Error::new(ErrorKind::AlreadyExists, "create tenant");
        assert_eq!(is_new(Err(others)), Ok(false));
    }

    #[test]
    fn map_with_a_fault_names_line_and_field() {
        let wrong = |text: &str| parse(text).unwrap_err();
        assert!(wrong("tenant,region\nde,eu\n").contains("no column \"home\""));
        assert!(wrong("tenant,home\nDE,eu\n").contains("line 2: tenant \"DE\""));
        assert!(wrong("tenant,home\nde,\n").contains("line 2: home \"\""));
        assert!(wrong("tenant,home\nde,eu\nde,us\n").contains("line 3: tenant de is there twice"));
    }
}
