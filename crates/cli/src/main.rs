//! The binary `stead`: parse, run one verb, exit with a documented code.

mod args;
mod confirm;
mod context;
#[cfg(test)]
mod documents_test;
mod exit;
mod output;
mod verbs;

use std::process::ExitCode;

use clap::Parser;
use exit::CommandError;
use output::Output;

/// glibc's allocator keeps the memory of a burst of writes: several hundred MiB that stay with an idle node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(wrong) if wrong.use_stderr() && Output::is_json_asked(std::env::args_os()) => {
            return CommandError::from(wrong).report(Output::Json);
        }
        Err(wrong) => wrong.exit(),
    };
    let output = cli.target.output;
    match verbs::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(output),
    }
}
