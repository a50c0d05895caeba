//! Commands about data on disk.

use crate::error::ReplyError;
use crate::exec::arguments::is;
use crate::exec::client::AwaitedSave;
use crate::exec::cut::make_cut;
use crate::exec::view::View;
use crate::exec::{CommandResult, Session};
use crate::saving::{Job, Purpose, Refused};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, Runs};

/// Permissions that saving needs.
const ADMIN: Category = Category::ADMIN.union(Category::DANGEROUS);

pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "lastsave",
        arity: Arity::Exactly(1),
        flags: Flags::LOADING.union(Flags::STALE).union(Flags::FAST),
        acl: ADMIN,
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
    },
    Command {
        name: "save",
        arity: Arity::Exactly(1),
        flags: SAVING.union(Flags::NO_MULTI),
        acl: ADMIN,
        runs: Runs::OnSessionAndAllShards(save),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Server,
            complexity: "O(N) for N keys in all databases",
            summary: "Saves the data, and replies when it is on the disk.",
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "bgsave",
        arity: Arity::AtLeast(1),
        flags: SAVING,
        acl: ADMIN,
        runs: Runs::OnSessionAndAllShards(bgsave),
        doc: &Doc {
            since: "1.0.0",
            group: Group::Server,
            complexity: "O(1)",
            summary: "Begins to save the data in the background.",
            history: &[("3.2.2", "The option `SCHEDULE`.")],
            args: &[Arg::flag("schedule", "SCHEDULE").optional().since("3.2.2")],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// Flags of the commands that save.
const SAVING: Flags = Flags::ADMIN.union(Flags::NOSCRIPT).union(Flags::NO_ASYNC_LOADING);

const IN_PROGRESS: ReplyError = ReplyError::Fixed("ERR Background save already in progress");
const ANOTHER: ReplyError = ReplyError::Fixed(
    "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to schedule a BGSAVE \
     whenever possible.",
);
const NOTHING_TO_CANCEL: ReplyError =
    ReplyError::Fixed("ERR Background saving is currently not in progress or scheduled");

/// Replies with the time of the last save; before the first one, with the time of the start.
fn lastsave(session: &mut Session<'_>) -> CommandResult {
    session.reply.integer(session.node.persistence.last_save_s());
    Ok(())
}

/// Begins a job, and makes its cut if that is possible at once. Returns its number.
fn begin(session: &Session<'_>, keyspace: &mut View<'_>, purpose: Purpose) -> Result<u64, Refused> {
    let (node, settings) = (session.node, session.node.settings.load());
    let job = Job::dump(purpose, &settings);
    let number = node.persistence.begin(job, node.clock.now_us())?;
    // The cut of a replica is made between two rounds of its primary's stream, by the loop that applies them.
    if !node.replication.following.is_replica() {
        make_cut(keyspace.held(), node, &settings);
    }
    Ok(number)
}

fn save(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let number = begin(session, keyspace, Purpose::Command).map_err(|_| IN_PROGRESS)?;
    session.client.awaits_save = Some(AwaitedSave {
        number,
        failure: Some(ReplyError::Fixed("ERR")),
    });
    session.reply.ok();
    Ok(())
}

/// BGSAVE [SCHEDULE | CANCEL]
fn bgsave(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let schedules = match (session.args.len(), session.args.get(1)) {
        (1, _) => false,
        (2, Some(word)) if is(word, "SCHEDULE") => true,
        (2, Some(word)) if is(word, "CANCEL") => return cancel(session),
        _ => return Err(ReplyError::Syntax),
    };
    let persistence = &session.node.persistence;
    // A snapshot does not begin in the midst of a transaction.
    let is_in_exec = session.client.transaction_us.is_some();
    // A rewrite that was asked for begins before anything else.
    let is_rewriting = session.node.append_only.status().rewriting_since_us.is_some();
    let purpose = persistence.purpose().or(is_rewriting.then_some(Purpose::AofBase));
    let started = match purpose {
        Some(Purpose::AofBase) if !schedules && !is_in_exec => return Err(ANOTHER),
        Some(Purpose::AofBase) => false,
        // The one that this transaction has scheduled waits for its end.
        Some(Purpose::Background) if is_in_exec && persistence.is_awaited() => false,
        Some(_) => return Err(IN_PROGRESS),
        None if is_in_exec => false,
        None => begin(session, keyspace, Purpose::Background).map_err(|_| IN_PROGRESS)? > 0,
    };
    if started {
        session.reply.simple("Background saving started");
    } else {
        session.node.persistence.schedule();
        session.reply.simple("Background saving scheduled");
    }
    Ok(())
}

fn cancel(session: &mut Session<'_>) -> CommandResult {
    let persistence = &session.node.persistence;
    let given_up = persistence.give_up(|purpose| purpose == Purpose::Background);
    if given_up || persistence.unschedule() {
        session.node.log.notice(format_args!(
            "Background saving will be aborted due to user request"
        ));
        session.reply.simple("Background saving cancelled");
        return Ok(());
    }
    Err(NOTHING_TO_CANCEL)
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

    #[test]
    fn wrong_words_begin_nothing() {
        let mut shell = Shell::over(2);
        shell.check(&[
            ("BGSAVE now", "-ERR syntax error"),
            ("BGSAVE SCHEDULE x", "-ERR syntax error"),
            (
                "BGSAVE CANCEL",
                "-ERR Background saving is currently not in progress or scheduled",
            ),
            ("SAVE x", "-ERR wrong number of arguments for 'save' command"),
        ]);
    }
}
