//! `stead kv txn`: conditions and operations in a small text form.

use std::{path::Path, time::Duration};

use clap::{Args, Parser};
use serde_json::json;
use stead_client::{Condition, IdempotencyKey, Item, Op, OpResult, Operand, Relation, TxnResponse};

use super::{increment::IncrementArgs, put::lifetime, read, write};
use crate::{
    args::Target,
    exit::{Code, CommandError},
    output::{self, Output},
};

const VALUE_SHOWN_MAX: usize = 200;
const KEY_SHOWN_MAX: usize = 80;

#[derive(Debug, Args)]
#[command(after_help = "\
Conditions:  'exists KEY', 'absent KEY', 'value KEY = VALUE', 'version KEY = COUNT', 'modified KEY = REVISION',
             'created KEY = REVISION'; the relation is one of = != < >
Operations:  'get KEY', 'put KEY VALUE [--ttl TIME]', 'delete KEY', 'append KEY VALUE [--max-length BYTES]',
             'increment KEY [DELTA] [--floor N] [--ceiling N] [--window TIME]'; those that write can show the key
             as it was before, with --previous
A value @FILE is what the file holds; one that begins with @ is written @@. Words are quoted as in a shell.

  stead kv txn acme --when 'exists stock/7' --then 'increment stock/7 -1 --floor 0' --then 'put order/9 new'")]
pub(crate) struct Txn {
    /// Tenant of the keys
    tenant: String,
    /// Condition that must hold; may be given several times
    #[arg(long, value_name = "CONDITION")]
    when: Vec<String>,
    /// Operation if all conditions hold; may be given several times
    #[arg(long, value_name = "OPERATION")]
    then: Vec<String>,
    /// Operation if a condition does not hold; may be given several times
    #[arg(long = "else", value_name = "OPERATION")]
    otherwise: Vec<String>,
    /// The key that a failed command showed, to ask for its outcome; the transaction is executed once at most
    #[arg(long, value_name = "CLIENT/SEQUENCE/MS")]
    idempotency_key: Option<IdempotencyKey>,
}

/// Operation in its text form.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_version_flag = true)]
enum OperationArgs {
    Get {
        key: String,
    },
    Put {
        key: String,
        value: String,
        #[arg(long, value_parser = lifetime, allow_hyphen_values = true)]
        ttl: Option<Duration>,
        #[arg(long)]
        previous: bool,
    },
    Delete {
        key: String,
        #[arg(long)]
        previous: bool,
    },
    Increment {
        key: String,
        #[command(flatten)]
        increment: IncrementArgs,
        #[arg(long)]
        previous: bool,
    },
    Append {
        key: String,
        value: String,
        #[arg(long)]
        max_length: Option<u32>,
        #[arg(long)]
        previous: bool,
    },
}

impl Txn {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let whens: Vec<(String, Condition)> = self.when.iter().map(|input| when(input)).collect::<Result<_, _>>()?;
        let operations = |input: &[String]| {
            input
                .iter()
                .map(|input| operation(input))
                .collect::<Result<Vec<Op>, _>>()
        };
        let (then, otherwise) = (operations(&self.then)?, operations(&self.otherwise)?);
        let mut txn = write::tenant(target, &self.tenant).await?.txn();
        for (key, condition) in whens {
            txn = txn.when(key, condition);
        }
        for operation in then {
            txn = txn.then(operation);
        }
        for operation in otherwise {
            txn = txn.otherwise(operation);
        }
        if let Some(key) = self.idempotency_key {
            txn = txn.idempotency_key(key);
        }
        let lists = [
            ("compares", "--when", &self.when),
            ("then", "--then", &self.then),
            ("otherwise", "--else", &self.otherwise),
        ];
        let done = txn.send().await;
        let done = done.map_err(|error| CommandError::from(error).map_message(|message| in_flags(message, &lists)))?;
        show(&self.tenant, &done, target.output)?;
        match done.not_admitted {
            None => Ok(()),
            Some(refused) => {
                let what = format!(
                    "not admitted: operation {} would pass its bound, the number is {}; nothing happened",
                    refused.operation, refused.value
                );
                Err(CommandError::new(Code::Conflict, what))
            }
        }
    }
}

fn show(tenant: &str, done: &TxnResponse, format: Output) -> Result<(), CommandError> {
    if format == Output::Json {
        return output::json(&json!({
            "header": read::header(&done.header),
            "succeeded": done.succeeded,
            "results": done.results.iter().map(result_json).collect::<Vec<_>>(),
            "notAdmitted": done.not_admitted.map(|refused| json!({
                "operation": refused.operation,
                "value": refused.value.to_string(),
            })),
            "repeatedOutcome": done.repeated,
        }));
    }
    let which = if done.succeeded { "then" } else { "else" };
    output::line(&format!("{tenant}@{} {which}", done.header.revision))?;
    read::print_source(tenant, &done.header, false);
    for result in &done.results {
        output::line(&result_line(result))?;
    }
    Ok(())
}

fn result_line(result: &OpResult) -> String {
    let (line, previous) = match result {
        OpResult::Get(Some(item)) => {
            let key = output::display_bytes(&item.key, VALUE_SHOWN_MAX);
            let value = output::display_bytes(&item.value, VALUE_SHOWN_MAX);
            (format!("  {key} = {value}, {}", item.modified), &None)
        }
        OpResult::Get(None) => ("  there was no such key".to_owned(), &None),
        OpResult::Put { previous } => ("  put".to_owned(), previous),
        OpResult::Delete { existed, previous } => {
            let line = if *existed {
                "  deleted"
            } else {
                "  there was no such key to delete"
            };
            (line.to_owned(), previous)
        }
        OpResult::Increment { value, previous } => (format!("  {value}"), previous),
        OpResult::Append { length, previous } => (format!("  {length} bytes"), previous),
    };
    let before = previous.as_ref().map(|before| {
        let value = output::display_bytes(&before.value, VALUE_SHOWN_MAX);
        format!("; before, {}: {value}", before.modified)
    });
    line + &before.unwrap_or_default()
}

fn result_json(result: &OpResult) -> serde_json::Value {
    let before = |previous: &Option<Item>| previous.as_ref().map(read::item);
    match result {
        OpResult::Get(item) => json!({ "get": { "item": item.as_ref().map(read::item) } }),
        OpResult::Put { previous } => json!({ "put": { "previous": before(previous) } }),
        OpResult::Delete { existed, previous } => {
            json!({ "delete": { "deleted": existed, "previous": before(previous) } })
        }
        OpResult::Increment { value, previous } => {
            json!({ "increment": { "value": value.to_string(), "previous": before(previous) } })
        }
        OpResult::Append { length, previous } => {
            json!({ "append": { "length": length.to_string(), "previous": before(previous) } })
        }
    }
}

/// Replaces paths of the message's lists by the flags as typed: nobody has typed `then[0].put.value`.
fn in_flags(mut message: String, lists: &[(&str, &str, &Vec<String>)]) -> String {
    const VERBS: [&str; 5] = ["get", "put", "delete", "increment", "append"];
    for (list, flag, all) in lists {
        for (place, input) in all.iter().enumerate() {
            let at = format!("{list}[{place}]");
            let typed = format!("{flag} {:?}", output::display_bytes(input.as_bytes(), KEY_SHOWN_MAX));
            for verb in VERBS {
                message = message.replace(&format!("{at}.{verb}."), &format!("{typed}, "));
            }
            message = message.replace(&format!("{at}."), &format!("{typed}, "));
            message = message.replace(&at, &typed);
        }
    }
    message
}

fn usage(input: &str, why: impl std::fmt::Display) -> CommandError {
    CommandError::new(Code::Usage, format!("{input:?}: {why}")).hint("`stead kv txn --help` shows how they are written")
}

fn words(input: &str) -> Result<Vec<String>, CommandError> {
    shlex::split(input).ok_or_else(|| usage(input, "a quote is not closed"))
}

fn when(input: &str) -> Result<(String, Condition), CommandError> {
    let words = words(input)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["exists", key] => Ok(((*key).to_owned(), Condition::Exists)),
        ["absent", key] => Ok(((*key).to_owned(), Condition::Absent)),
        [what, key, relation, operand] => {
            let relation = match *relation {
                "=" => Relation::Equal,
                "!=" => Relation::NotEqual,
                "<" => Relation::Less,
                ">" => Relation::Greater,
                other => return Err(usage(input, format!("{other} is none of =, !=, < and >"))),
            };
            let revision = || operand.parse().map_err(|why| usage(input, why));
            let operand = match *what {
                "value" => Operand::Value(value(operand)?.into()),
                "version" => Operand::Version(operand.parse().map_err(|why| usage(input, why))?),
                "modified" => Operand::Modified(revision()?),
                "created" => Operand::Created(revision()?),
                other => return Err(usage(input, format!("{other} is nothing that can be compared"))),
            };
            Ok(((*key).to_owned(), Condition::Compared(relation, operand)))
        }
        _other => Err(usage(input, "no condition")),
    }
}

fn operation(input: &str) -> Result<Op, CommandError> {
    let parsed = OperationArgs::try_parse_from(words(input)?);
    let parsed = parsed.map_err(|error| {
        let text = error.to_string();
        // The error may take several lines; the parser's usage does not matter here.
        let lines = text
            .lines()
            .map(str::trim)
            .take_while(|line| !line.starts_with("Usage"));
        let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        usage(input, lines.join(" ").trim_start_matches("error: "))
    })?;
    let (operation, previous) = match parsed {
        OperationArgs::Get { key } => (Op::get(key), false),
        OperationArgs::Put {
            key,
            value: input,
            ttl,
            previous,
        } => match ttl {
            Some(ttl) => (Op::put_expiring(key, value(&input)?, ttl), previous),
            None => (Op::put(key, value(&input)?), previous),
        },
        OperationArgs::Delete { key, previous } => (Op::delete(key), previous),
        OperationArgs::Increment {
            key,
            increment,
            previous,
        } => (Op::increment(key, increment.into()), previous),
        OperationArgs::Append {
            key,
            value: input,
            max_length,
            previous,
        } => (Op::append(key, value(&input)?, max_length), previous),
    };
    Ok(if previous { operation.with_previous() } else { operation })
}

/// Returns a value, or the content of a file.
fn value(input: &str) -> Result<Vec<u8>, CommandError> {
    match input.strip_prefix('@') {
        None => Ok(input.as_bytes().to_vec()),
        Some(value) if value.starts_with('@') => Ok(value.as_bytes().to_vec()),
        Some(path) => std::fs::read(Path::new(path))
            .map_err(|error| CommandError::new(Code::Usage, format!("{path} cannot be read: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_operation_argument_is_named() {
        let lacks = operation("put a").unwrap_err();
        assert!(lacks.text().contains("<VALUE>"), "{}", lacks.text());
        assert!(!lacks.text().contains("Usage"), "{}", lacks.text());
        for whole in [
            "put a b --ttl 1h --previous",
            "delete a --previous",
            "increment a -1 --floor 0 --previous",
        ] {
            operation(whole).unwrap();
        }
    }

    #[test]
    fn double_at_sign_escapes_value() {
        assert_eq!(value("@@home").unwrap(), b"@home");
        assert_eq!(value("home").unwrap(), b"home");
        assert!(value("@/no/such/file").is_err());
    }

    #[test]
    fn error_names_flags_as_typed() {
        let (when, then) = (
            vec!["absent a".to_owned()],
            vec!["get b".to_owned(), "put a x".to_owned()],
        );
        let lists = [("compares", "--when", &when), ("then", "--then", &then)];
        let translated = |message: &str| in_flags(message.to_owned(), &lists);
        assert_eq!(
            translated("then[1].put.value: too long"),
            "--then \"put a x\", value: too long"
        );
        assert_eq!(translated("compares[0].key: empty"), "--when \"absent a\", key: empty");
        assert_eq!(
            translated("then[1]: as then[0]"),
            "--then \"put a x\": as --then \"get b\""
        );
    }
}
