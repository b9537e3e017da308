//! Confirmation before irreversible commands.

use std::io::{IsTerminal, Write};

use crate::exit::{Code, CommandError};

/// Prints the consequences and asks for a name to be typed. Without a terminal it fails at once.
pub(crate) async fn by_name(what: &str, name: &str) -> Result<(), CommandError> {
    if !std::io::stdin().is_terminal() {
        return Err(CommandError::new(Code::Usage, what).hint("pass --yes to confirm without a terminal"));
    }
    eprint!("{what}. Type {name} to go on: ");
    let _ = std::io::stderr().flush();
    let typed = tokio::task::spawn_blocking(|| {
        let mut typed = String::new();
        std::io::stdin().read_line(&mut typed).map(|_| typed)
    });
    let typed = typed.await.map_err(anyhow::Error::from)??;
    if typed.trim() == name {
        Ok(())
    } else {
        Err(CommandError::new(
            Code::Usage,
            "the typed name does not match; nothing was done",
        ))
    }
}
