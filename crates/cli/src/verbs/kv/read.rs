//! How to read, and how what was read is shown.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use stead_client::{Consistency, Header, InvalidTokenText, Item, Read, Revision, Role, SessionToken};

use crate::{
    exit::{Code, Failure},
    output::{self, Sheet},
};

const VALUE_SHOWN_MAX: usize = 60;
const KEY_SHOWN_MAX: usize = 80;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Level {
    /// The newest state, from the home
    #[default]
    Linearizable,
    /// At least what --token has seen
    Session,
    /// At most --max-staleness behind the home
    Bounded,
    /// Whatever the nearest node holds
    Local,
}

/// Flags of a read.
#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    /// How fresh the answer must be
    #[arg(short, long, value_enum, default_value_t)]
    consistency: Level,
    /// Of an earlier answer; with it the consistency is session
    #[arg(long)]
    token: Option<String>,
    /// Of a bounded read, such as 500ms; with it the consistency is bounded
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME", conflicts_with = "token")]
    max_staleness: Option<Duration>,
    /// As of this revision, such as 1.42
    #[arg(long)]
    revision: Option<Revision>,
}

/// Shows a key as it was before a write, if that is known.
pub(super) fn show_before(previous: Option<&Item>) -> Result<(), Failure> {
    let Some(previous) = previous else { return Ok(()) };
    let value = output::shown(&previous.value, 200);
    output::line(&format!("before, {}: {value}", previous.modified))
}

impl ReadArgs {
    pub(super) fn read(&self) -> Result<Read, Failure> {
        let needs = |what: &str| Failure::new(Code::Usage, format!("this consistency needs {what}"));
        let consistency = match (self.consistency, &self.token, self.max_staleness) {
            (Level::Linearizable | Level::Session, Some(text), _) => Consistency::Token(parse(text)?),
            (Level::Linearizable | Level::Bounded, None, Some(bound)) => Consistency::Bounded(bound),
            (Level::Linearizable, None, None) => Consistency::Linearizable,
            (Level::Local, None, None) => Consistency::Local,
            (Level::Session, None, _) => return Err(needs("--token")),
            (Level::Bounded, _, _) => return Err(needs("--max-staleness")),
            (Level::Local, _, _) => return Err(needs("neither --token nor --max-staleness")),
        };
        Ok(Read {
            consistency,
            revision: self.revision,
            timeout: None,
        })
    }
}

pub(super) fn parse(text: &str) -> Result<SessionToken, Failure> {
    let invalid = |why| {
        let failure = Failure::new(Code::Usage, format!("--token: not a token of this store: {why}"));
        failure.hint("`stead kv put … -o json` prints one")
    };
    text.parse().map_err(|why: InvalidTokenText| invalid(why))
}

/// Returns a token as text for command lines.
pub(super) fn token(header: &Header) -> Option<String> {
    header.token.map(|token| token.to_string())
}

/// Returns where an answer comes from, as JSON.
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
    })
}

/// Returns where an answer comes from, for people.
pub(super) fn source(header: &Header) -> String {
    let region = header.region.as_ref().map_or("?", |region| region.as_str());
    let role = match (header.role, header.staleness) {
        (Role::Home, _) => "home".to_owned(),
        (Role::Follower, Some(staleness)) => format!("follower, at most {} stale", output::duration(staleness)),
        (Role::Follower, None) => "follower, staleness unknown".to_owned(),
    };
    let via = if header.forwarded { ", forwarded" } else { "" };
    format!("{region} {}{via}, {role}", header.node)
}

/// Returns a table for keys.
pub(super) fn sheet() -> Sheet {
    Sheet::new(&["KEY", "VALUE", "REVISION", "VERSION", "CREATED"], 4)
}

/// Adds a key to a table for keys.
pub(super) fn push(sheet: &mut Sheet, item: &Item) {
    let cells = vec![
        output::shown(&item.key, KEY_SHOWN_MAX),
        output::shown(&item.value, VALUE_SHOWN_MAX),
        item.modified.to_string(),
        item.version.to_string(),
        item.created.to_string(),
    ];
    sheet.push(cells, self::item(item));
}

/// Returns a key as JSON.
pub(super) fn item(item: &Item) -> Value {
    json!({
        "key": output::base64(&item.key),
        "value": output::base64(&item.value),
        "createRevision": item.created.to_string(),
        "modRevision": item.modified.to_string(),
        "version": item.version.to_string(),
        "expireTimeMs": item.expires.map(|time| time.0.to_string()),
    })
}
