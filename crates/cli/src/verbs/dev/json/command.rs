//! Commands on standard input.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::super::control::ControlRequest;

/// Command of one line.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Command {
    /// Returns nodes and links.
    Status {},
    /// Creates a tenant.
    CreateTenant {
        name: String,
        home: String,
    },
    /// Verbs of `stead dev`.
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

/// Action of a command.
#[derive(Debug)]
pub(super) enum CommandAction {
    Status,
    CreateTenant { name: String, home: String },
    Control(ControlRequest),
}

impl Command {
    /// Parses a line: the command, and the `id` of the response.
    pub(super) fn read(line: &str) -> (Option<Value>, Result<CommandAction, String>) {
        let mut value: Value = match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => return (None, Err(format!("a command is one line of JSON: {error}"))),
        };
        let id = value.as_object_mut().and_then(|object| object.remove("id"));
        let command = serde_json::from_value::<Self>(value);
        (id, command.map_err(|error| error.to_string()).and_then(Self::action))
    }

    fn action(self) -> Result<CommandAction, String> {
        let (verb, names, round_trip) = match self {
            Self::Status {} => return Ok(CommandAction::Status),
            Self::CreateTenant { name, home } => return Ok(CommandAction::CreateTenant { name, home }),
            Self::Kill(Names { names }) => ("kill", names, None),
            Self::Start(Names { names }) => ("start", names, None),
            Self::Stop(Names { names }) => ("stop", names, None),
            Self::Cont(Names { names }) => ("cont", names, None),
            Self::Cut(Names { names }) => ("cut", names, None),
            Self::Heal(MaybeNames { names }) => ("heal", names, None),
            Self::Delay(Delay { names, round_trip }) => ("delay", names.to_vec(), Some(duration(&round_trip)?)),
        };
        Ok(CommandAction::Control(ControlRequest {
            verb: verb.to_owned(),
            names,
            round_trip,
            json: false,
        }))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("round_trip {text:?}: {error}; write it as \"150ms\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> ControlRequest {
        match Command::read(line).1.unwrap() {
            CommandAction::Control(request) => request,
            other @ (CommandAction::Status | CommandAction::CreateTenant { .. }) => panic!("{other:?}"),
        }
    }

    fn refused(line: &str) -> String {
        Command::read(line).1.unwrap_err()
    }

    #[test]
    fn commands_match_dev_verbs() {
        for verb in ["kill", "start", "stop", "cont", "cut", "heal"] {
            let request = request(&format!("{{\"command\":\"{verb}\",\"names\":[\"a\",\"b\"]}}"));
            assert_eq!(
                (request.verb.as_str(), request.names.join(" ")),
                (verb, "a b".to_owned())
            );
        }
        assert!(request("{\"command\":\"heal\"}").names.is_empty());
        let delay = request("{\"command\":\"delay\",\"names\":[\"a\",\"b\"],\"round_trip\":\"150ms\"}");
        assert_eq!(delay.round_trip, Some(Duration::from_millis(150)));
        let (id, status) = Command::read("{\"id\":7,\"command\":\"status\"}");
        assert_eq!(id, Some(Value::from(7)));
        assert!(matches!(status, Ok(CommandAction::Status)));
    }

    #[test]
    fn invalid_command_is_explained() {
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
