//! Asks before what cannot be undone.

use std::io::{IsTerminal, Write};

use crate::exit::{Code, Failure};

/// Says what would happen and asks for a name to be typed. A script is never kept waiting.
pub(crate) async fn by_name(what: &str, name: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Code::Usage, what).hint("say --yes where nobody can be asked"));
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
        Err(Failure::new(Code::Usage, "that is another name; nothing was done"))
    }
}
