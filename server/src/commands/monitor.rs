//! MONITOR: a connection that sees every command of the node. The event loops make the lines.

use crate::error::ReplyError;
use crate::exec::{CommandResult, Session};
use crate::spec::{Arity, Command, Doc, Flags, Group, Runs};

pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "monitor",
    arity: Arity::Exactly(1),
    flags: Flags::ADMIN
        .union(Flags::NOSCRIPT)
        .union(Flags::LOADING)
        .union(Flags::STALE),
    runs: Runs::OnSession(monitor),
    doc: &Doc {
        since: "1.0.0",
        group: Group::Server,
        summary: "Shows every command that the server runs from now on, as it runs.",
        ..Doc::BLANK
    },
    ..Command::BLANK
}];

fn monitor(session: &mut Session<'_>) -> CommandResult {
    if session.client.denies_blocking() {
        return Err(ReplyError::Fixed(
            "ERR MONITOR isn't allowed for DENY BLOCKING client",
        ));
    }
    // A client that is a monitor already gets no reply.
    if !session.client.monitor {
        session.client.monitor = true;
        session.reply.ok();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Shell;

    #[test]
    fn a_client_becomes_a_monitor_once() {
        let mut shell = Shell::new();
        shell.check(&[("MONITOR", "+OK"), ("MONITOR", "")]);
        assert!(shell.client.monitor && shell.run("CLIENT INFO").reply.contains(" flags=O "));
        shell.check(&[("RESET", "+RESET")]);
        assert!(!shell.client.monitor);
    }

    #[test]
    fn not_within_a_transaction() {
        let mut shell = Shell::new();
        shell.client.transaction_us = Some(0);
        shell.check(&[("MONITOR", "-ERR MONITOR isn't allowed for DENY BLOCKING client")]);
        assert!(!shell.client.monitor);
    }
}
