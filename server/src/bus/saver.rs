//! [`Saver`]: saves the file of nodes, on threads that may wait for the disk, or at once what the system only has to take over.

use std::io;

use shardis_cluster::nodes_file;
use tokio::task::{JoinHandle, spawn_blocking};

use super::driver::{Driver, Fatal};
use super::file::NodesFile;

/// Ticks between two syncs of what needs not be on the disk at once.
const TICKS_PER_SYNC: u32 = 10;

/// The file of nodes, and the state of what is to be saved.
#[derive(Debug)]
pub(super) struct Saver {
    /// The file; none while a thread saves it.
    file: Option<NodesFile>,
    /// The thread that saves it.
    saving: Option<JoinHandle<(NodesFile, io::Result<()>)>>,
    /// The view has changed since it was saved.
    is_dirty: bool,
    /// The file is not on the disk.
    is_unsynced: bool,
    /// Ticks since the last sync.
    ticks: u32,
}

impl Saver {
    /// The saver of a file that is as the view is.
    pub(super) fn new(file: NodesFile) -> Self {
        Self {
            file: Some(file),
            saving: None,
            is_dirty: false,
            is_unsynced: false,
            ticks: 0,
        }
    }
}

impl Driver {
    /// Saves the view. It is on the disk afterwards if it `is_durable`; else it may be saved later, unless a client `awaits` it.
    pub(super) async fn save(&mut self, is_durable: bool, awaits: bool) -> Result<(), Fatal> {
        self.saver.is_dirty = true;
        if is_durable {
            self.end_saving().await?;
            self.begin_saving(true);
            self.end_saving().await?;
        } else if awaits {
            self.end_saving().await?;
            self.save_here()?;
        }
        Ok(())
    }

    /// Saves the view without a sync. The system takes over a few KiB in less time than it takes to wake another thread: a tool that
    /// moves slots waits for some thousand of these.
    fn save_here(&mut self) -> Result<(), Fatal> {
        let text = self.print();
        let Some(file) = &mut self.saver.file else {
            return Ok(());
        };
        self.saver.is_dirty = false;
        self.saver.is_unsynced = true;
        let saved = file
            .save(&text, false)
            .map_err(|error| (file.path().display().to_string(), error));
        saved.map_err(|(file, error)| self.give_up(&file, &error))
    }

    /// The text of the file as the view is now.
    fn print(&self) -> String {
        self.cluster()
            .read(|machine, now| nodes_file::print(machine.view(), now, machine.options().is_tls))
    }

    /// Saves, beside other work, what needs not be saved at once.
    pub(super) async fn save_what_can_wait(&mut self) -> Result<(), Fatal> {
        let is_over = self.saver.saving.as_ref().is_none_or(JoinHandle::is_finished);
        self.saver.ticks += 1;
        if !is_over {
            return Ok(());
        }
        // Nothing is waited for: the thread has ended, and gives the file back.
        self.end_saving().await?;
        let is_sync_due = self.saver.ticks >= TICKS_PER_SYNC;
        if self.saver.is_dirty || self.saver.is_unsynced && is_sync_due {
            self.begin_saving(is_sync_due);
        }
        Ok(())
    }

    /// Begins to save the view as it is now, if the file is here.
    fn begin_saving(&mut self, is_durable: bool) {
        let text = self.print();
        let Some(mut file) = self.saver.file.take() else {
            return;
        };
        self.saver.is_dirty = false;
        self.saver.is_unsynced = !is_durable;
        if is_durable {
            self.saver.ticks = 0;
        }
        self.saver.saving = Some(spawn_blocking(move || {
            let outcome = file.save(&text, is_durable);
            (file, outcome)
        }));
    }

    /// Waits until the view is saved, if it is being saved.
    async fn end_saving(&mut self) -> Result<(), Fatal> {
        let Some(saving) = self.saver.saving.take() else {
            return Ok(());
        };
        let (file, error) = match saving.await {
            Ok((file, Ok(()))) => {
                self.saver.file = Some(file);
                return Ok(());
            }
            Ok((file, Err(error))) => (file.path().display().to_string(), error),
            Err(panic) => (String::new(), io::Error::other(panic)),
        };
        Err(self.give_up(&file, &error))
    }

    /// Ends the node, whose file could not be saved.
    fn give_up(&self, file: &str, error: &io::Error) -> Fatal {
        self.node.log.warning(format_args!(
            "Could not save the cluster configuration file {file}: {error}. Exiting: after a restart this node would not know what it \
             has promised to others."
        ));
        self.node.fail();
        Fatal
    }
}
