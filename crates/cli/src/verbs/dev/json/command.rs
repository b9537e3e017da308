//! What can be asked for on standard input.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::super::control::Order;

/// One line.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Command {
    /// Shows nodes and links.
    Status {},
    /// Makes a tenant.
    CreateTenant {
        name: String,
        home: String,
    },
    /// The verbs of `stead dev`.
    Kill(Names),
    Start(Names),
    Stop(Names),
    Cont(Names),
    Cut(Names),
    Heal(MaybeNames),
    Delay(Delay),
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Names {
    names: Vec<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MaybeNames {
    #[serde(default)]
    names: Vec<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delay {
    names: [String; 2],
    /// Such as `150ms`.
    round_trip: String,
}

/// What a command is to the cluster.
#[derive(Debug)]
pub(super) enum Asked {
    Status,
    CreateTenant { name: String, home: String },
    Order(Order),
}

impl Command {
    /// Reads a line: the command, and the `id` to answer with.
    pub(super) fn read(line: &str) -> (Option<Value>, Result<Asked, String>) {
        let mut value: Value = match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => return (None, Err(format!("a command is one line of JSON: {error}"))),
        };
        let id = value.as_object_mut().and_then(|object| object.remove("id"));
        let command = serde_json::from_value::<Self>(value);
        (id, command.map_err(|error| error.to_string()).and_then(Self::asked))
    }

    fn asked(self) -> Result<Asked, String> {
        let (verb, names, round_trip) = match self {
            Self::Status {} => return Ok(Asked::Status),
            Self::CreateTenant { name, home } => return Ok(Asked::CreateTenant { name, home }),
            Self::Kill(Names { names }) => ("kill", names, None),
            Self::Start(Names { names }) => ("start", names, None),
            Self::Stop(Names { names }) => ("stop", names, None),
            Self::Cont(Names { names }) => ("cont", names, None),
            Self::Cut(Names { names }) => ("cut", names, None),
            Self::Heal(MaybeNames { names }) => ("heal", names, None),
            Self::Delay(Delay { names, round_trip }) => ("delay", names.to_vec(), Some(duration(&round_trip)?)),
        };
        Ok(Asked::Order(Order {
            verb: verb.to_owned(),
            names,
            round_trip,
        }))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("round_trip {text:?}: {error}; write it as \"150ms\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(line: &str) -> Order {
        match Command::read(line).1.unwrap() {
            Asked::Order(order) => order,
            other @ (Asked::Status | Asked::CreateTenant { .. }) => panic!("{other:?}"),
        }
    }

    fn refused(line: &str) -> String {
        Command::read(line).1.unwrap_err()
    }

    #[test]
    fn commands_are_the_verbs_of_dev() {
        for verb in ["kill", "start", "stop", "cont", "cut", "heal"] {
            let order = order(&format!("{{\"command\":\"{verb}\",\"names\":[\"a\",\"b\"]}}"));
            assert_eq!((order.verb.as_str(), order.names.join(" ")), (verb, "a b".to_owned()));
        }
        assert!(order("{\"command\":\"heal\"}").names.is_empty());
        let delay = order("{\"command\":\"delay\",\"names\":[\"a\",\"b\"],\"round_trip\":\"150ms\"}");
        assert_eq!(delay.round_trip, Some(Duration::from_millis(150)));
        let (id, status) = Command::read("{\"id\":7,\"command\":\"status\"}");
        assert_eq!(id, Some(Value::from(7)));
        assert!(matches!(status, Ok(Asked::Status)));
    }

    #[test]
    fn what_is_wrong_with_a_command_is_said() {
        assert!(refused("cut us-east eu-west").contains("one line of JSON"));
        assert!(
            refused("{\"command\":\"slice\"}").contains("`kill`, `start`"),
            "the verbs there are"
        );
        assert!(refused("{\"command\":\"cut\"}").contains("missing field `names`"));
        assert!(refused("{\"command\":\"cut\",\"names\":[\"a\"],\"name\":1}").contains("`name`"));
        let delay = refused("{\"command\":\"delay\",\"names\":[\"a\",\"b\"],\"round_trip\":\"soon\"}");
        assert!(delay.contains("150ms"), "{delay}");
    }
}
