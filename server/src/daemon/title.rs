//! The title of the process in `ps`: it overwrites the arguments of the program, so that passwords among them are not
//! visible to everybody.
//!
//! Linux shows a part of the process's own memory as its command line: the arguments, directly followed by the
//! environment. A title longer than the arguments may extend into the environment's part if the last byte of the
//! arguments is not zero. So the variables are first set anew, which moves them elsewhere, and then both parts are
//! one area.
//!
//! Soundness of the unsafe code: the kernel tells the addresses of the two parts, and that memory exists and is
//! writable as long as the process lives. [`Title::claim`] does nothing unless there is only one thread, so that no
//! thread reads a variable that moves. From then on, this program does not read the area: `main` has copied the
//! arguments, and the environment is elsewhere. Other readers of the arguments would still find texts that end with a
//! zero inside the area, as its last byte stays zero.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use super::background::is_single_threaded;
use crate::config::Settings;

/// The memory that holds the title.
#[derive(Debug)]
pub(crate) struct Title {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the area belongs to the process, not to a thread, and is written through `&mut self` only.
unsafe impl Send for Title {}

impl Title {
    /// Joins the memory of the arguments and the environment into one area for the title. `None` where the system
    /// does not tell the addresses, once the process has other threads, and on a second call. The arguments must not
    /// be needed any more.
    pub(crate) fn claim() -> Option<Self> {
        static IS_CLAIMED: AtomicBool = AtomicBool::new(false);
        if !is_single_threaded() || IS_CLAIMED.swap(true, Ordering::Relaxed) {
            return None;
        }
        let (start, len) = area(&std::fs::read_to_string("/proc/self/stat").ok()?)?;
        for (name, value) in std::env::vars_os() {
            // SAFETY: there is no other thread that could read the environment.
            unsafe { std::env::set_var(name, value) };
        }
        Some(Self { start, len })
    }

    /// Shows this title, cut off at the size of the area.
    pub(crate) fn set(&mut self, text: &str) {
        // SAFETY: the area exists and is writable as long as the process lives, and there is no other reference into
        // it.
        let area = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) };
        let shown = text.len().min(self.len - 1);
        area[..shown].copy_from_slice(&text.as_bytes()[..shown]);
        area[shown..].fill(0);
    }
}

/// The area of arguments and environment, from the line of `/proc/self/stat`, whose fields 48 to 51 are begin and end
/// of both.
fn area(stat: &str) -> Option<(NonNull<u8>, usize)> {
    // The second field, the program's name, may contain spaces; it ends with the last parenthesis.
    let fields = stat.rsplit(')').next()?;
    let places: Vec<usize> = fields
        .split_whitespace()
        .skip(45)
        .take(4)
        .map_while(|field| field.parse().ok())
        .collect();
    let [arguments, arguments_end, environment, environment_end] = places[..] else {
        return None;
    };
    let is_one_area =
        arguments < arguments_end && arguments_end == environment && environment <= environment_end;
    let start = NonNull::new(std::ptr::with_exposed_provenance_mut(arguments))?;
    is_one_area.then_some((start, environment_end - arguments))
}

/// Values that `proc-title-template` may use besides the settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TitleWords<'a> {
    /// Name of the program.
    pub(crate) name: &'a str,
    /// Path of the configuration file; empty without one.
    pub(crate) config_file: &'a str,
}

impl TitleWords<'_> {
    /// The text of the template with its variables filled in.
    pub(crate) fn fill(&self, settings: &Settings) -> String {
        let mut text = String::new();
        let mut rest = settings.proc_title_template.as_str();
        while let Some((plain, (variable, after))) = rest
            .split_once('{')
            .and_then(|(plain, after)| Some((plain, after.split_once('}')?)))
        {
            text.push_str(plain);
            text.push_str(&self.variable(variable, settings));
            rest = after;
        }
        text.push_str(rest);
        text.trim_end_matches(' ').to_owned()
    }

    fn variable(&self, name: &str, settings: &Settings) -> String {
        match name {
            "title" => self.name.to_owned(),
            "listen-addr" if settings.port == 0 && settings.tls_port == 0 => settings.unixsocket.clone(),
            "listen-addr" => {
                let address = settings.bind.0.first().map_or("*", String::as_str);
                let port = [settings.port, settings.tls_port]
                    .into_iter()
                    .find(|port| *port > 0);
                format!("{address}:{}", port.unwrap_or_default())
            }
            "server-mode" if settings.cluster_enabled => "[cluster]".to_owned(),
            "port" => settings.port.to_string(),
            "tls-port" => settings.tls_port.to_string(),
            "unixsocket" => settings.unixsocket.clone(),
            "config-file" => self.config_file.to_owned(),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_found_behind_any_name() {
        let numbers = (4..48)
            .map(|field| field.to_string())
            .collect::<Vec<_>>()
            .join(" ");
        let stat = |places: &str| format!("7 (a) b) S {numbers} {places} 0\n");
        let (start, len) = area(&stat("4096 4100 4100 4200")).unwrap();
        assert_eq!((start.as_ptr() as usize, len), (4096, 104));
        for places in ["0 0 0 0", "4096 4100 4101 4200", "4096 4100", "x y z w"] {
            assert!(area(&stat(places)).is_none(), "{places}");
        }
    }

    #[test]
    fn templates_are_filled_in() {
        let mut settings = Settings {
            port: 7000,
            unixsocket: "/tmp/s".to_owned(),
            ..Settings::default()
        };
        let words = TitleWords {
            name: "shardis-server",
            config_file: "/etc/x.conf",
        };
        assert_eq!(words.fill(&settings), "shardis-server *:7000");
        settings.cluster_enabled = true;
        assert_eq!(words.fill(&settings), "shardis-server *:7000 [cluster]");
        settings.port = 0;
        settings.proc_title_template =
            "{title} {listen-addr} p={port} t={tls-port} {unixsocket} {config-file} ".to_owned();
        assert_eq!(
            words.fill(&settings),
            "shardis-server /tmp/s p=0 t=0 /tmp/s /etc/x.conf"
        );
    }
}
