//! DEBUG RELOAD and LOADAOF: the data goes to its file and comes back.

use shardis_storage::entry::Entry;

use crate::error::ReplyError;
use crate::exec::arguments::is;
use crate::exec::cut::content_of;
use crate::exec::view::Held;
use crate::exec::{CommandResult, Reloading, Session, View};
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
    let node = session.node;
    if saves {
        save(node, keyspace.held()).map_err(|_| ReplyError::Fixed("ERR"))?;
    }
    let reload = session.reload.ok_or(ReplyError::Internal)?;
    reload
        .snapshot(node, keyspace.held(), how)
        .map_err(|_| ReplyError::Fixed("ERR Error trying to load the RDB dump, check server logs"))?;
    node.log.warning(format_args!("DB reloaded by DEBUG RELOAD"));
    session.reply.ok();
    Ok(())
}

/// DEBUG LOADAOF: all that was appended goes to the file, which then replaces the data.
pub(super) fn load_append_only(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let node = session.node;
    node.reporting(&node.settings.load(), |reporter| {
        node.append_only.finish(reporter);
    });
    let reload = session.reload.ok_or(ReplyError::Internal)?;
    reload
        .append_only(node, keyspace.held())
        .map_err(|_| ReplyError::Fixed("ERR Error trying to load the AOF files, check server logs"))?;
    node.log
        .warning(format_args!("Append Only File loaded by DEBUG LOADAOF"));
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
