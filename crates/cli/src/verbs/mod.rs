//! Verbs of the command line, one file each.

pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod backup;
pub(crate) mod cert;
pub(crate) mod cluster;
pub(crate) mod config;
pub(crate) mod dev;
pub(crate) mod directory;
pub(crate) mod fork;
pub(crate) mod group;
pub(crate) mod health;
pub(crate) mod kv;
pub(crate) mod manual;
pub(crate) mod node;
pub(crate) mod operation;
pub(crate) mod region;
pub(crate) mod role;
pub(crate) mod serve;
pub(crate) mod tenant;
mod topology;

use std::future::Future;

use crate::{
    args::{Cli, Noun},
    exit::{self, Code, CommandError},
    output,
};

/// Runs the verb of the command line.
pub(crate) fn run(Cli { target, noun }: Cli) -> Result<(), CommandError> {
    match noun {
        Noun::Serve(verb) => verb.run(),
        Noun::Health(verb) => interruptible(verb.run()),
        Noun::Dev(verb) => block_on(verb.run(target.output)),
        Noun::Config(verb) => verb.run(),
        Noun::Cert(verb) => verb.run(target.output),
        Noun::Tenant(verb) if verb.detaches() => block_on(verb.run(&target)),
        Noun::Operation(verb) if verb.detaches() => block_on(verb.run(&target)),
        Noun::Region(verb) if verb.detaches() => block_on(verb.run(&target)),
        Noun::Group(verb) if verb.detaches() => block_on(verb.run(&target)),
        Noun::Backup(verb) if verb.detaches() => block_on(verb.run(&target)),
        Noun::Backup(verb) => interruptible(verb.run(&target)),
        Noun::Kv(verb) if verb.detaches() => block_on(verb.run(&target)),
        Noun::Node(verb) if verb.detaches() => block_on(verb.run(&target)),
        Noun::Directory(verb) if verb.detaches() => block_on(verb.run(&target)),
        Noun::Operation(verb) => interruptible(verb.run(&target)),
        Noun::Tenant(verb) => interruptible(verb.run(&target)),
        Noun::Cluster(verb) => interruptible(verb.run(&target)),
        Noun::Region(verb) => interruptible(verb.run(&target)),
        Noun::Node(verb) => interruptible(verb.run(&target)),
        Noun::Group(verb) => interruptible(verb.run(&target)),
        Noun::Fork(verb) => interruptible(verb.run(&target)),
        Noun::Audit(verb) => interruptible(verb.run(&target)),
        Noun::Role(verb) => interruptible(verb.run(&target)),
        Noun::Auth(verb) => interruptible(verb.run(&target)),
        Noun::Kv(verb) => interruptible(verb.run(&target)),
        Noun::Directory(verb) => interruptible(verb.run(&target)),
        Noun::Completions(verb) => verb.run(),
        Noun::Man(verb) => verb.run(),
        Noun::ExitCodes => output::line(exit::TABLE),
    }
}

/// Runs a verb to its end.
pub(crate) fn block_on(verb: impl Future<Output = Result<(), CommandError>>) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(verb);
    // A thread that nobody can stop may wait for standard input.
    runtime.shutdown_background();
    outcome
}

/// Runs a verb until it ends or Ctrl-C.
fn interruptible(verb: impl Future<Output = Result<(), CommandError>>) -> Result<(), CommandError> {
    block_on(async {
        tokio::select! {
            outcome = verb => outcome,
            _ = tokio::signal::ctrl_c() => Err(CommandError::new(Code::Interrupted, "interrupted")),
        }
    })
}
