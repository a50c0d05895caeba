//! Takes an append-only file of the old form, one file beside the data, into the directory of the new one, as Redis 7 does.

use std::fs;
use std::io;

use crate::config::Settings;
use crate::journal::directory::Directory;
use crate::journal::manifest::{Manifest, Part};
use crate::log::Log;

/// Moves the old file into the directory, of which it becomes the base, if there is one and nothing has taken its place yet. The
/// manifest is written first: if the node ends in between, its next start finds a base that is missing, and moves it then.
/// Returns the manifest that is in force.
///
/// # Errors
/// The error of the system call.
pub(super) fn take_in_old_file(
    directory: &Directory,
    manifest: Option<Manifest>,
    settings: &Settings,
    log: &Log,
) -> io::Result<Option<Manifest>> {
    let name = &settings.appendfilename;
    let old = settings.dir.path().join(name);
    if !old.is_file() || !is_awaited(directory, manifest.as_ref(), name) {
        return Ok(manifest);
    }
    let manifest = Manifest {
        base: Some(Part {
            name: name.into(),
            sequence: 1,
        }),
        ..Manifest::default()
    };
    directory.make()?;
    directory.replace_manifest(&manifest)?;
    fs::rename(&old, directory.path_of(name))?;
    directory.sync()?;
    fs::File::open(settings.dir.path())?.sync_all()?;
    log.notice(format_args!(
        "Successfully migrated an old-style AOF configuration ({name}) into the AOF directory ({}).",
        settings.appenddirname
    ));
    Ok(Some(manifest))
}

/// Whether the directory has nothing yet, or names the old file and does not have it.
fn is_awaited(directory: &Directory, manifest: Option<&Manifest>, name: &str) -> bool {
    let Some(manifest) = manifest.filter(|manifest| !manifest.is_empty()) else {
        return true;
    };
    let is_base = manifest
        .base
        .as_ref()
        .is_some_and(|base| base.name.as_os_str() == name);
    is_base && manifest.increments.is_empty() && !directory.path_of(name).exists()
}
