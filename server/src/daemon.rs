//! The process around a node, if it belongs to the node: title, out-of-memory score, supervisor, background, crash
//! report.
//!
//! Only the program has a [`Daemon`]. The process of an embedded node belongs to the embedding program, and
//! directives that act on all of it are refused (`DirectiveFlags::PROCESS` in the table of directives).

#[expect(
    unsafe_code,
    reason = "a fork and a setting of the process; the rules are in its header"
)]
mod background;
#[expect(unsafe_code, reason = "signal handlers; the rules are in its header")]
mod crash;
mod descriptors;
mod oom_score;
mod supervisor;
#[expect(
    unsafe_code,
    reason = "it overwrites the process's arguments; the rules are in its header"
)]
mod title;

pub(crate) use background::{Branch, forbid_huge_pages, fork_to_background};
pub(crate) use crash::{
    Witness, call_commands, call_loop, describe_by, guard_thread, hides_data, report_crashes, set_hiding,
    set_reporting,
};
pub(crate) use descriptors::allow as allow_descriptors;
pub(crate) use oom_score::OomScore;
pub(crate) use supervisor::Supervisor;
pub(crate) use title::{Title, TitleWords};

use parking_lot::Mutex;

use crate::config::{SetError, Settings};
use crate::log::Log;

/// The process of the program.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// None when `set-proc-title` is off, or the system cannot change titles.
    title: Option<Mutex<Title>>,
    /// The name the program was started under, for the title.
    name: String,
    /// Path of the configuration file, for the title; empty without one.
    config_file: String,
    score: Mutex<OomScore>,
    /// The supervisor that is told the node's state.
    pub(crate) supervisor: Supervisor,
}

impl Daemon {
    /// The process, as the program found and prepared it.
    pub(crate) fn new(
        title: Option<Title>,
        name: String,
        config_file: String,
        supervisor: Supervisor,
    ) -> Self {
        Self {
            title: title.map(Mutex::new),
            name,
            config_file,
            score: Mutex::default(),
            supervisor,
        }
    }

    /// Applies the settings to the process at the start. A failure is logged, and does not stop the start.
    pub(crate) fn begin(&self, settings: &Settings, log: &Log) {
        self.show_title(settings);
        set_reporting(settings.crash_log_enabled);
        set_hiding(settings.hide_user_data_from_log);
        let _ = self.score.lock().follow(settings, log);
    }

    /// Applies a change of a directive, if it acts on the process.
    ///
    /// # Errors
    /// When the system refuses the change.
    pub(crate) fn apply(&self, name: &'static str, settings: &Settings, log: &Log) -> Result<(), SetError> {
        match name {
            "oom-score-adj" | "oom-score-adj-values" => {
                let followed = self.score.lock().follow(settings, log);
                followed.map_err(|_| {
                    SetError::failed(name, "Failed to set current oom_score_adj. Check server logs.")
                })?;
            }
            "maxclients" => descriptors::allow(settings.maxclients, settings.shard_count(), log).map_err(|possible| {
                SetError::failed(
                    name,
                    format!(
                        "The operating system is not able to handle the specified number of clients, try with {possible}"
                    ),
                )
            })?,
            "crash-log-enabled" => set_reporting(settings.crash_log_enabled),
            "hide-user-data-from-log" => set_hiding(settings.hide_user_data_from_log),
            "proc-title-template" | "port" | "bind" => self.show_title(settings),
            _ => {}
        }
        Ok(())
    }

    /// Shows the program and its addresses in the process's title.
    fn show_title(&self, settings: &Settings) {
        if let Some(title) = &self.title {
            let words = TitleWords {
                name: &self.name,
                config_file: &self.config_file,
            };
            title.lock().set(&words.fill(settings));
        }
    }
}
