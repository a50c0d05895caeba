//! Commands about data on disk.

use crate::exec::{CommandResult, Session};
use crate::spec::{Arity, Category, Command, Doc, Flags, Group, Runs};

pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "lastsave",
    arity: Arity::Exactly(1),
    flags: Flags::LOADING.union(Flags::STALE).union(Flags::FAST),
    acl: Category::ADMIN.union(Category::DANGEROUS),
    tips: &["nondeterministic_output"],
    runs: Runs::OnSession(lastsave),
    doc: &Doc {
        since: "1.0.0",
        group: Group::Server,
        complexity: "O(1)",
        summary: "Tells when the data was last saved, in seconds of Unix time.",
        ..Doc::BLANK
    },
    ..Command::BLANK
}];

/// Replies with the time of the last save; before the first one, with the time of the start.
fn lastsave(session: &mut Session<'_>) -> CommandResult {
    session.reply.integer(session.node.started_us / 1_000_000);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::{START_MS, Shell};

    #[test]
    fn nothing_was_saved_since_the_start() {
        let mut shell = Shell::new();
        shell.advance(5000);
        shell.check(&[("LASTSAVE", &format!(":{}", START_MS / 1000))]);
    }
}
