//! Options of reads, and the output of their results.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use stead_client::{Consistency, Header, InvalidTokenText, Item, ReadOptions, Revision, Role, SessionToken};

use crate::{
    exit::{Code, CommandError},
    output::{self, OutputTable},
};

const VALUE_SHOWN_MAX: usize = 60;
const KEY_SHOWN_MAX: usize = 80;

/// Consistency level of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// The newest state, from the home
    Linearizable,
    /// At least the revision of --token
    Session,
    /// At most --max-staleness behind the home
    Bounded,
    /// The state of the nearest replica
    Local,
}

/// Flags of a read.
#[derive(Debug, Default, Args)]
pub(super) struct ReadArgs {
    /// Consistency level; linearizable, unless --token or --max-staleness says otherwise
    #[arg(short, long, value_enum)]
    consistency: Option<Level>,
    /// Session token of an earlier response; with it the consistency is session
    #[arg(long)]
    token: Option<String>,
    /// Staleness bound, such as 500ms; with it the consistency is bounded
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME", conflicts_with = "token")]
    max_staleness: Option<Duration>,
    /// Revision to read at, such as 1.42
    #[arg(long)]
    revision: Option<Revision>,
}

/// Prints the source of a response on standard error, if it is asked for. What is unconfirmed is always told.
pub(super) fn print_source(tenant: &str, header: &Header, verbose: bool) {
    if verbose || header.unconfirmed {
        eprintln!("{tenant}@{} from {}", header.revision, source(header));
    }
}

/// Prints the key before a write, if it is known.
pub(super) fn print_previous(previous: Option<&Item>) -> Result<(), CommandError> {
    let Some(previous) = previous else { return Ok(()) };
    let value = output::display_bytes(&previous.value, 200);
    output::line(&format!("before, {}: {value}", previous.modified))
}

impl ReadArgs {
    pub(super) fn read(&self) -> Result<ReadOptions, CommandError> {
        let needs = |what: &str| CommandError::new(Code::Usage, format!("this consistency needs {what}"));
        let consistency = match (self.consistency, &self.token, self.max_staleness) {
            (None | Some(Level::Session), Some(text), _) => Consistency::Token(parse(text)?),
            (None | Some(Level::Bounded), None, Some(bound)) => Consistency::Bounded(bound),
            (None | Some(Level::Linearizable), None, None) => Consistency::Linearizable,
            (Some(Level::Local), None, None) => Consistency::Local,
            (Some(Level::Session), None, _) => return Err(needs("--token")),
            (Some(Level::Bounded), _, _) => return Err(needs("--max-staleness")),
            (Some(Level::Linearizable | Level::Local), _, _) => {
                return Err(needs("neither --token nor --max-staleness"));
            }
        };
        Ok(ReadOptions {
            consistency,
            revision: self.revision,
            timeout: None,
        })
    }
}

impl ReadArgs {
    /// Rejects a response for which the token was ignored, because it is another tenant's.
    pub(super) fn check(&self, header: &Header) -> Result<(), CommandError> {
        let Some(text) = &self.token else { return Ok(()) };
        let token = parse(text)?;
        if token.tenant == header.tenant {
            return Ok(());
        }
        let what = format!(
            "--token: belongs to tenant number {}, and this tenant has number {}: it does not apply here",
            token.tenant.get(),
            header.tenant.get()
        );
        Err(CommandError::new(Code::Usage, what).hint("a token of an answer about this tenant"))
    }
}

pub(super) fn parse(text: &str) -> Result<SessionToken, CommandError> {
    let invalid = |why| {
        let failure = CommandError::new(Code::Usage, format!("--token: not a token of this store: {why}"));
        failure.hint("`stead kv put … -o json` prints one")
    };
    text.parse().map_err(|why: InvalidTokenText| invalid(why))
}

/// Returns the session token as text for command lines.
pub(super) fn token(header: &Header) -> Option<String> {
    header.token.map(|token| token.to_string())
}

/// Returns the metadata of a response as JSON.
pub(super) fn header(header: &Header) -> Value {
    let role = match header.role {
        Role::Home => "ROLE_HOME",
        Role::Follower => "ROLE_FOLLOWER",
    };
    json!({
        "revision": header.revision.to_string(),
        "tenantNumber": header.tenant.get().to_string(),
        "tenantTimeMs": header.tenant_time.0.to_string(),
        "sessionToken": token(header),
        "region": header.region.as_ref().map(|region| region.as_str()),
        "node": header.node.get().to_string(),
        "role": role,
        "staleness": header.staleness.map(|staleness| format!("{:.6}s", staleness.as_secs_f64())),
        "via": if header.forwarded { "VIA_FORWARDED" } else { "VIA_DIRECT" },
        "unconfirmed": header.unconfirmed,
    })
}

/// Returns the source of a response, for people.
pub(super) fn source(header: &Header) -> String {
    let region = header.region.as_ref().map_or("?", |region| region.as_str());
    let role = match (header.role, header.staleness) {
        (Role::Home, Some(Duration::ZERO)) => "home".to_owned(),
        (Role::Home, Some(staleness)) => format!("home, at most {} stale", output::duration(staleness)),
        (Role::Home, None) => "home, staleness unknown".to_owned(),
        (Role::Follower, Some(staleness)) => format!("follower, at most {} stale", output::duration(staleness)),
        (Role::Follower, None) => "follower, staleness unknown".to_owned(),
    };
    let via = if header.forwarded { ", forwarded" } else { "" };
    let unconfirmed = if header.unconfirmed {
        ", unconfirmed: without a lease, another region may serve the tenant too"
    } else {
        ""
    };
    format!("{region} {}{via}, {role}{unconfirmed}", header.node)
}

/// Returns an empty table for keys.
pub(super) fn table() -> OutputTable {
    OutputTable::new(&["KEY", "VALUE", "REVISION", "VERSION", "CREATED"], 4)
}

/// Adds a key to a table for keys.
pub(super) fn push(table: &mut OutputTable, item: &Item) {
    let cells = vec![
        output::display_bytes(&item.key, KEY_SHOWN_MAX),
        output::display_bytes(&item.value, VALUE_SHOWN_MAX),
        item.modified.to_string(),
        item.version.to_string(),
        item.created.to_string(),
    ];
    table.push(cells, self::item(item));
}

/// Returns a key as JSON.
pub(in crate::verbs) fn item(item: &Item) -> Value {
    json!({
        "key": output::base64(&item.key),
        "value": output::base64(&item.value),
        "createRevision": item.created.to_string(),
        "modRevision": item.modified.to_string(),
        "version": item.version.to_string(),
        "expireTimeMs": item.expires.map(|time| time.0.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use stead_types::{NodeId, TenantNumber, TenantTime};

    use super::*;

    fn token(tenant: u64) -> SessionToken {
        SessionToken {
            tenant: TenantNumber::new(tenant),
            revision: "1.4".parse().unwrap(),
        }
    }

    fn args(consistency: Option<Level>, token: Option<SessionToken>, max_staleness: Option<Duration>) -> ReadArgs {
        ReadArgs {
            consistency,
            token: token.map(|token| token.to_string()),
            max_staleness,
            revision: None,
        }
    }

    #[test]
    fn token_and_bound_choose_consistency_level() {
        let (seen, bound) = (token(1), Duration::from_secs(1));
        let level = |args: ReadArgs| args.read().map(|read| read.consistency).ok();
        assert_eq!(level(args(None, None, None)), Some(Consistency::Linearizable));
        assert_eq!(level(args(None, Some(seen), None)), Some(Consistency::Token(seen)));
        assert_eq!(level(args(None, None, Some(bound))), Some(Consistency::Bounded(bound)));
        for level_flag in [Level::Linearizable, Level::Local] {
            assert_eq!(level(args(Some(level_flag), Some(seen), None)), None);
            assert_eq!(level(args(Some(level_flag), None, Some(bound))), None);
        }
        assert_eq!(level(args(Some(Level::Session), None, None)), None);
        assert_eq!(level(args(Some(Level::Bounded), None, None)), None);
    }

    #[test]
    fn token_of_another_tenant_is_rejected_and_stale_home_shown() {
        let header = Header {
            revision: "1.4".parse().unwrap(),
            tenant: TenantNumber::new(1),
            tenant_time: TenantTime(0),
            token: None,
            region: None,
            node: NodeId::new(1),
            role: Role::Home,
            staleness: Some(Duration::from_millis(3)),
            forwarded: false,
            unconfirmed: false,
        };
        assert!(args(None, Some(token(1)), None).check(&header).is_ok());
        let refused = args(None, Some(token(2)), None).check(&header).unwrap_err();
        assert!(refused.text().contains("number 2"), "{}", refused.text());
        assert!(
            source(&header).ends_with("home, at most 3.0 ms stale"),
            "{}",
            source(&header)
        );
        let unconfirmed = Header {
            unconfirmed: true,
            ..header
        };
        assert!(source(&unconfirmed).contains("unconfirmed"), "{}", source(&unconfirmed));
    }
}
