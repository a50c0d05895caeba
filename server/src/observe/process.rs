//! Figures of the operating system about this process.

use std::fs;

/// Resident memory of this process, bytes; 0 where the system does not tell.
pub(crate) fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok().and_then(|text| {
        text.split_whitespace()
            .nth(1)
            .and_then(|pages| pages.parse::<u64>().ok())
    });
    // Linux reports in units of its page size; 4 KiB on all platforms that the allocator is built for here.
    pages.unwrap_or(0) * 4096
}

/// Seconds of processor time that this process has used: in user mode, in the kernel.
pub(crate) fn cpu_seconds() -> (f64, f64) {
    cpu_seconds_in(&fs::read_to_string("/proc/self/stat").unwrap_or_default())
}

/// The processor time in a line that the system tells of a process or thread.
fn cpu_seconds_in(text: &str) -> (f64, f64) {
    // The second field is the program's name in parentheses, and may contain spaces.
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    // The kernel counts in hundredths of a second towards programs, whatever its own clock.
    let seconds = |index: usize| {
        fields
            .get(index)
            .and_then(|ticks| ticks.parse::<f64>().ok())
            .unwrap_or(0.0)
            / 100.0
    };
    (seconds(11), seconds(12))
}

/// The number by which the system knows the calling thread; 0 where it does not say.
pub(crate) fn thread_number() -> u64 {
    let path = fs::read_link("/proc/thread-self").ok();
    path.as_deref()
        .and_then(|path| path.file_name()?.to_str()?.parse().ok())
        .unwrap_or(0)
}

/// Nanoseconds of processor time that a thread of this process has used, by its number; 0 where the system does not say.
pub(crate) fn thread_cpu_ns(thread: u64) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|nanos| nanos.parse().ok())
        .unwrap_or(0)
}

/// Seconds of processor time that a thread of this process has used, by its number: in user mode, in the kernel. Zero where
/// the system does not say.
pub(crate) fn thread_cpu_seconds(thread: u64) -> (f64, f64) {
    cpu_seconds_in(&fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default())
}

/// Name and release of the operating system, and the machine's architecture.
pub(crate) fn operating_system() -> String {
    let read = |path: &str| {
        fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let kind = read("/proc/sys/kernel/ostype");
    let release = read("/proc/sys/kernel/osrelease");
    let kind = if kind.is_empty() {
        std::env::consts::OS.to_owned()
    } else {
        kind
    };
    format!("{kind} {release} {}", std::env::consts::ARCH)
}

/// Path of the program.
pub(crate) fn executable() -> String {
    std::env::current_exe()
        .map(|path| path.display().to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_memory() {
        assert!(resident_bytes() > 100_000);
    }

    #[test]
    fn a_thread_knows_its_number_and_its_time() {
        let number = thread_number();
        // The system books time when it takes the processor away.
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(number > 0 && thread_cpu_ns(number) > 0 && thread_cpu_ns(u64::MAX) == 0);
    }

    #[test]
    fn processor_time_only_grows() {
        let before = cpu_seconds();
        let sum: u64 = (0..50_000_000_u64).fold(0, |sum, number| std::hint::black_box(sum ^ number));
        std::hint::black_box(sum);
        let after = cpu_seconds();
        assert!(after.0 + after.1 >= before.0 + before.1);
        assert!(after.0 + after.1 > 0.0);
    }
}
