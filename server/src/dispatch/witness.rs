//! The part of a crash report about the commands that were running.

use std::fmt::Write;

use shardis_protocol::Arguments;

use super::account;
use crate::daemon::{Witness, hides_data};
use crate::shard::inbox::{Source, Task};
use crate::spec::Registered;

/// Number of commands of a batch that a report tells of.
const TOLD_MAX: usize = 16;

/// A command that runs by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running<'a> {
    /// The id of its client.
    pub(crate) client: u64,
    /// Its row.
    pub(crate) command: &'static Registered,
    /// Its arguments.
    pub(crate) args: Arguments<'a>,
}

impl Witness for Running<'_> {
    type Item = ();

    fn testify(&self, _: &[()]) -> String {
        let mut text = String::new();
        tell(&mut text, self.client, self.command, Some(self.args));
        text
    }
}

/// A batch: one of its commands was running.
impl Witness for Source {
    type Item = Task;

    fn testify(&self, tasks: &[Task]) -> String {
        let mut text = format!("one of {} commands:\n", tasks.len());
        for task in tasks.iter().take(TOLD_MAX) {
            // A big argument may have been moved into the keyspace already.
            let args = (task.detached == 0).then(|| self.arguments(task, &[]));
            tell(&mut text, u64::from(task.client), task.command, args);
        }
        text
    }
}

/// Describes a command like the slow log, without secrets.
fn tell(text: &mut String, client: u64, command: &Registered, args: Option<Arguments<'_>>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "client id={client} cmd={}", command.full_name);
    let Some(args) = args else { return };
    let _ = writeln!(text, "argc: {}", args.len());
    if hides_data() {
        return;
    }
    for (index, word) in account::words(command, args).iter().enumerate() {
        let _ = writeln!(text, "argv[{index}]: {}", word.escape_ascii());
    }
}
