//! `stead kv txn`: conditions and operations as they would be said.

use std::{path::Path, time::Duration};

use clap::{Args, Parser};
use serde_json::json;
use stead_client::{Condition, Op, OpResult, Operand, Relation, TxnDone};

use super::{increment::IncrementArgs, read};
use crate::{
    args::Target,
    context,
    exit::{Code, Failure},
    output::{self, Output},
};

const VALUE_SHOWN_MAX: usize = 200;

#[derive(Debug, Args)]
#[command(after_help = "\
Conditions:  'exists KEY', 'absent KEY', 'value KEY = VALUE', 'version KEY = COUNT', 'modified KEY = REVISION',
             'created KEY = REVISION'; the relation is one of = != < >
Operations:  'get KEY', 'put KEY VALUE [--ttl TIME]', 'delete KEY', 'append KEY VALUE [--max-length BYTES]',
             'increment KEY [DELTA] [--floor N] [--ceiling N] [--window TIME]'
A value @FILE is what the file holds. Words are quoted as in a shell.

  stead kv txn acme --when 'exists stock/7' --then 'increment stock/7 -1 --floor 0' --then 'put order/9 new'")]
pub(crate) struct Txn {
    /// Whose keys
    tenant: String,
    /// What must hold
    #[arg(long, value_name = "CONDITION")]
    when: Vec<String>,
    /// What is done if it holds
    #[arg(long, value_name = "OPERATION")]
    then: Vec<String>,
    /// What is done if it does not
    #[arg(long = "else", value_name = "OPERATION")]
    otherwise: Vec<String>,
}

/// An operation as it is said.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_version_flag = true)]
enum Said {
    Get {
        key: String,
    },
    Put {
        key: String,
        value: String,
        #[arg(long, value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
    },
    Delete {
        key: String,
    },
    Increment {
        key: String,
        #[command(flatten)]
        increment: IncrementArgs,
    },
    Append {
        key: String,
        value: String,
        #[arg(long)]
        max_length: Option<u32>,
    },
}

impl Txn {
    pub(super) async fn run(self, target: &Target) -> Result<(), Failure> {
        let whens: Vec<(String, Condition)> = self.when.iter().map(|said| when(said)).collect::<Result<_, _>>()?;
        let operations = |said: &[String]| said.iter().map(|said| operation(said)).collect::<Result<Vec<Op>, _>>();
        let (then, otherwise) = (operations(&self.then)?, operations(&self.otherwise)?);
        let mut txn = context::connect(target).await?.tenant(&self.tenant)?.txn();
        for (key, condition) in whens {
            txn = txn.when(key, condition);
        }
        for operation in then {
            txn = txn.then(operation);
        }
        for operation in otherwise {
            txn = txn.otherwise(operation);
        }
        let done = txn.send().await?;
        show(&self.tenant, &done, target.output)?;
        match done.not_admitted {
            None => Ok(()),
            Some(refused) => {
                let what = format!(
                    "not admitted: operation {} would pass its bound, the number is {}; nothing happened",
                    refused.operation, refused.value
                );
                Err(Failure::new(Code::Conflict, what))
            }
        }
    }
}

fn show(tenant: &str, done: &TxnDone, shown: Output) -> Result<(), Failure> {
    if shown == Output::Json {
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
    for result in &done.results {
        output::line(&result_line(result))?;
    }
    Ok(())
}

fn result_line(result: &OpResult) -> String {
    match result {
        OpResult::Got(Some(item)) => {
            let key = output::shown(&item.key, VALUE_SHOWN_MAX);
            format!(
                "  {key} = {}, {}",
                output::shown(&item.value, VALUE_SHOWN_MAX),
                item.modified
            )
        }
        OpResult::Got(None) => "  there was no such key".to_owned(),
        OpResult::Put { .. } => "  put".to_owned(),
        OpResult::Deleted { existed: true, .. } => "  deleted".to_owned(),
        OpResult::Deleted { existed: false, .. } => "  there was no such key to delete".to_owned(),
        OpResult::Incremented { value, .. } => format!("  {value}"),
        OpResult::Appended { length, .. } => format!("  {length} bytes"),
    }
}

fn result_json(result: &OpResult) -> serde_json::Value {
    match result {
        OpResult::Got(item) => json!({ "get": { "item": item.as_ref().map(read::item) } }),
        OpResult::Put { .. } => json!({ "put": {} }),
        OpResult::Deleted { existed, .. } => json!({ "delete": { "deleted": existed } }),
        OpResult::Incremented { value, .. } => json!({ "increment": { "value": value.to_string() } }),
        OpResult::Appended { length, .. } => json!({ "append": { "length": length.to_string() } }),
    }
}

fn usage(said: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Usage, format!("{said:?}: {why}")).hint("`stead kv txn --help` shows how they are said")
}

fn words(said: &str) -> Result<Vec<String>, Failure> {
    shlex::split(said).ok_or_else(|| usage(said, "a quote is not closed"))
}

fn when(said: &str) -> Result<(String, Condition), Failure> {
    let words = words(said)?;
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
                other => return Err(usage(said, format!("{other} is none of =, !=, < and >"))),
            };
            let revision = || operand.parse().map_err(|why| usage(said, why));
            let operand = match *what {
                "value" => Operand::Value(value(operand)?.into()),
                "version" => Operand::Version(operand.parse().map_err(|why| usage(said, why))?),
                "modified" => Operand::Modified(revision()?),
                "created" => Operand::Created(revision()?),
                other => return Err(usage(said, format!("{other} is nothing that can be compared"))),
            };
            Ok(((*key).to_owned(), Condition::Compared(relation, operand)))
        }
        _other => Err(usage(said, "no condition")),
    }
}

fn operation(said: &str) -> Result<Op, Failure> {
    let parsed = Said::try_parse_from(words(said)?);
    let parsed = parsed.map_err(|error| {
        let text = error.to_string();
        usage(
            said,
            text.lines().next().unwrap_or_default().trim_start_matches("error: "),
        )
    })?;
    Ok(match parsed {
        Said::Get { key } => Op::get(key),
        Said::Put { key, value: said, ttl } => match ttl {
            Some(ttl) => Op::put_expiring(key, value(&said)?, ttl),
            None => Op::put(key, value(&said)?),
        },
        Said::Delete { key } => Op::delete(key),
        Said::Increment { key, increment } => Op::increment(key, increment.into()),
        Said::Append {
            key,
            value: said,
            max_length,
        } => Op::append(key, value(&said)?, max_length),
    })
}

/// Returns a value, or what a file holds.
fn value(said: &str) -> Result<Vec<u8>, Failure> {
    match said.strip_prefix('@') {
        None => Ok(said.as_bytes().to_vec()),
        Some(path) => std::fs::read(Path::new(path))
            .map_err(|error| Failure::new(Code::Usage, format!("{path} cannot be read: {error}"))),
    }
}
