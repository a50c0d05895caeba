//! Commands about the append-only file.

use crate::append_only::Requested;
use crate::error::ReplyError;
use crate::exec::{CommandResult, Session};
use crate::spec::{Arity, Category, Command, Doc, Flags, Group, Runs};

pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "bgrewriteaof",
    arity: Arity::Exactly(1),
    flags: Flags::ADMIN.union(Flags::NOSCRIPT).union(Flags::NO_ASYNC_LOADING),
    acl: Category::ADMIN.union(Category::DANGEROUS),
    runs: Runs::OnSession(bgrewriteaof),
    doc: &Doc {
        since: "1.0.0",
        group: Group::Server,
        complexity: "O(1)",
        summary: "Begins to replace the append-only file by a shorter one for the same data.",
        ..Doc::BLANK
    },
    ..Command::BLANK
}];

fn bgrewriteaof(session: &mut Session<'_>) -> CommandResult {
    // A snapshot does not begin in the midst of a transaction.
    let is_in_exec = session.client.transaction_us.is_some();
    let answer = match session.node.append_only.request(is_in_exec) {
        Requested::Started => "Background append only file rewriting started",
        Requested::Scheduled => "Background append only file rewriting scheduled",
        Requested::UnderWay => {
            return Err(ReplyError::Fixed(
                "ERR Background append only file rewriting already in progress",
            ));
        }
    };
    session.reply.simple(answer);
    Ok(())
}
