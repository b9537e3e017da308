//! The binary `stead`: parse, run one verb, exit with a documented code.

mod args;
mod confirm;
mod context;
mod exit;
mod output;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

/// glibc's allocator keeps what a burst of writes has taken: several hundred MiB that stay with an idle node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let output = cli.target.output;
    match verbs::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(output),
    }
}
