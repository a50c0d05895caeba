//! Checks of system settings that harm a server.

use std::fs;

use crate::config::Settings;
use crate::daemon::forbid_huge_pages;

/// A setting, and the problem with it; none if it is fine.
pub(super) type Finding = (&'static str, Option<String>);

/// Checks all settings. Disables huge pages for this process if `disable-thp` says so.
pub(super) fn check(settings: &Settings) -> [Finding; 3] {
    [
        ("overcommit", overcommit(&read("/proc/sys/vm/overcommit_memory"))),
        (
            "THP",
            huge_pages(
                &read("/sys/kernel/mm/transparent_hugepage/enabled"),
                settings.disable_thp,
            ),
        ),
        (
            "backlog",
            backlog(&read("/proc/sys/net/core/somaxconn"), settings.tcp_backlog),
        ),
    ]
}

/// The text of a setting; empty where the system has none.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The problem with `vm.overcommit_memory`. Nothing is forked here, so that only the strict mode, which refuses
/// allocations, is one.
fn overcommit(setting: &str) -> Option<String> {
    (setting == "2").then(|| {
        "WARNING Memory overcommit is off (vm.overcommit_memory = 2): memory may be refused although some is free. To fix \
         this, set vm.overcommit_memory to 0 or 1, in /etc/sysctl.conf for good"
            .to_owned()
    })
}

fn huge_pages(setting: &str, forbid: bool) -> Option<String> {
    if !setting.contains("[always]") {
        return None;
    }
    let why = if !forbid {
        "'disable-thp no' leaves them on".to_owned()
    } else if let Err(error) = forbid_huge_pages() {
        format!("they could not be switched off for this process: {error}")
    } else {
        return None;
    };
    Some(format!(
        "WARNING You have Transparent Huge Pages (THP) support enabled in your kernel, and {why}. Memory that was freed \
         goes back late with them. To fix this, write 'madvise' to /sys/kernel/mm/transparent_hugepage/enabled"
    ))
}

fn backlog(setting: &str, wanted: u32) -> Option<String> {
    let most: u32 = setting.parse().ok()?;
    (most < wanted).then(|| {
        format!(
            "WARNING: The TCP backlog setting of {wanted} cannot be enforced because /proc/sys/net/core/somaxconn is set \
             to the lower value of {most}."
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_harms_is_found() {
        assert!(overcommit("0").is_none() && overcommit("1").is_none() && overcommit("").is_none());
        assert!(overcommit("2").is_some());
        assert!(huge_pages("always [madvise] never", false).is_none());
        assert!(huge_pages("[always] madvise never", false).is_some_and(|text| text.contains("disable-thp")));
        assert!(backlog("4096", 511).is_none() && backlog("", 511).is_none());
        assert!(backlog("128", 511).is_some_and(|text| text.contains("of 511") && text.contains("of 128.")));
    }
}
