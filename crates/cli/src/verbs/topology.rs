//! Changes of nodes and regions: begun, then shown until they are over.

use clap::Args;
use stead_client::{Client, OperationInfo, TopologyRequest};

use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output::Output,
    verbs::operation::{display, follow},
};

#[derive(Debug, Args)]
pub(crate) struct TopologyArgs {
    /// Reason for the audit log
    #[arg(long, default_value = "", value_name = "TEXT")]
    reason: String,
    /// Only begin, and name the operation
    #[arg(long)]
    no_wait: bool,
}

/// Begins a change and shows it to its end. `hint` is what the operator does meanwhile.
pub(super) async fn run(
    target: &Target,
    args: &TopologyArgs,
    request: TopologyRequest,
    hint: Option<String>,
) -> Result<(), CommandError> {
    let unknown = "`stead operation list --in-flight` shows whether it has begun";
    let begun = async {
        let client = context::connect(target).await?;
        let begun = client.admin().change_topology(request, &args.reason).await;
        let operation = begun.map_err(|error| CommandError::from(error).if_unknown(unknown))?;
        Ok((client, operation))
    };
    let begun: Result<(Client, OperationInfo), CommandError> = tokio::select! {
        begun = begun => begun,
        _ = tokio::signal::ctrl_c() => return Err(CommandError::new(Code::Interrupted, "interrupted").hint(unknown)),
    };
    let (client, operation) = begun?;
    let name = operation.name.clone();
    if target.output != Output::Json {
        eprintln!("{name} has begun");
        if let Some(hint) = hint {
            eprintln!("{hint}");
        }
    }
    if args.no_wait {
        return display::table(&[operation]).print_one(target.output);
    }
    follow::to_the_end(&client.admin(), &name, target.output).await
}
