//! DEBUG RELOAD and LOADAOF: the data goes to its file and comes back.

use shardis_storage::entry::Entry;

use super::digest;
use crate::error::ReplyError;
use crate::exec::arguments::is;
use crate::exec::cut::content_of;
use crate::exec::view::Held;
use crate::exec::{CommandResult, Errand, Reload, Reloading, Session, View};
use crate::saving::{Job, Plan, Purpose, SaveError, write_at_once};
use crate::state::Node;

/// DEBUG RELOAD [MERGE] [NOFLUSH] [NOSAVE]: all partitions are held from the save to the end of the load.
pub(super) fn reload(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let (mut saves, mut how) = (
        true,
        Reloading {
            keeps: false,
            merges: false,
        },
    );
    for word in session.args.tail(2).iter() {
        match word {
            word if is(word, "MERGE") => how.merges = true,
            word if is(word, "NOFLUSH") => how.keeps = true,
            word if is(word, "NOSAVE") => saves = false,
            _ => {
                return Err(ReplyError::Fixed(
                    "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
                ));
            }
        }
    }
    leave(session, keyspace, move |node, reload, held| {
        if saves {
            save(node, held).map_err(|_| ReplyError::Fixed("ERR"))?;
        }
        telling_replicas(node, held, |held| reload.snapshot(node, held, how))
            .map_err(|_| ReplyError::Fixed("ERR Error trying to load the RDB dump, check server logs"))?;
        node.log.warning(format_args!("DB reloaded by DEBUG RELOAD"));
        Ok(())
    })
}

/// DEBUG LOADAOF: all that was appended goes to the file, which then replaces the data.
pub(super) fn load_append_only(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    leave(session, keyspace, |node, reload, held| {
        node.reporting(&node.settings.load(), |reporter| {
            node.append_only.finish(reporter);
        });
        telling_replicas(node, held, |held| reload.append_only(node, held))
            .map_err(|_| ReplyError::Fixed("ERR Error trying to load the AOF files, check server logs"))?;
        node.log
            .warning(format_args!("Append Only File loaded by DEBUG LOADAOF"));
        Ok(())
    })
}

/// Loads data. If it is not what replicas have, they are to get it anew.
fn telling_replicas<T>(
    node: &Node,
    held: &mut Held<'_>,
    load: impl FnOnce(&mut Held<'_>) -> Result<T, String>,
) -> Result<T, String> {
    if node.journal.backlog().is_none() {
        return load(held);
    }
    let before = digest::of_replicated(held);
    let loaded = load(held)?;
    if digest::of_replicated(held) != before {
        node.journal.break_backlog();
        node.control_bell.notify_one();
    }
    Ok(loaded)
}

/// Leaves work to a thread. In a transaction, whose next command must find it done, it is done at once.
fn leave(
    session: &mut Session<'_>,
    keyspace: &mut View<'_>,
    work: impl FnOnce(&Node, &dyn Reload, &mut Held<'_>) -> CommandResult + Send + 'static,
) -> CommandResult {
    if session.client.transaction_us.is_none() {
        session.client.errand = Some(Errand::new(work));
        return Ok(());
    }
    let reload = session.reload.ok_or(ReplyError::Internal)?;
    work(session.node, reload, keyspace.held())?;
    session.reply.ok();
    Ok(())
}

/// Saves the data while all partitions are held.
fn save(node: &Node, held: &mut Held<'_>) -> Result<(), SaveError> {
    let settings = node.settings.load();
    let content = content_of(held, node);
    let (job, plan) = (
        Job::dump(Purpose::Command, &settings),
        Plan::new(&settings, &content),
    );
    let saved = write_at_once(&job, plan, &content, |save: &mut dyn FnMut(u16, &Entry)| {
        held.each(|partition| {
            for db in 0..partition.keyspace.databases() {
                partition
                    .keyspace
                    .database(db)
                    .for_each(|entry| save(db as u16, entry));
            }
        });
    });
    match &saved {
        Ok(()) => node.log.notice(format_args!("DB saved on disk")),
        Err(error) => node.log.warning(format_args!("{}", job.describe(error))),
    }
    saved
}
