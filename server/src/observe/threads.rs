//! The threads of one node and their processor time, which in an embedding process is not that of the process.

use parking_lot::Mutex;

use super::process;

/// Processor time, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CpuTime {
    /// In user mode.
    pub(crate) user_s: f64,
    /// In the kernel.
    pub(crate) system_s: f64,
}

impl CpuTime {
    /// The time of the whole process.
    pub(crate) fn of_process() -> Self {
        let (user_s, system_s) = process::cpu_seconds();
        Self { user_s, system_s }
    }

    /// The time of a running thread, by its number.
    pub(crate) fn of_thread(thread: u64) -> Self {
        let (user_s, system_s) = process::thread_cpu_seconds(thread);
        Self { user_s, system_s }
    }

    fn and(self, other: Self) -> Self {
        Self {
            user_s: self.user_s + other.user_s,
            system_s: self.system_s + other.system_s,
        }
    }
}

impl std::iter::Sum for CpuTime {
    fn sum<I: Iterator<Item = Self>>(times: I) -> Self {
        times.fold(Self::default(), Self::and)
    }
}

/// The threads of a node: those that run, by their numbers, and the time of those that have ended.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    running: Vec<u64>,
    ended: CpuTime,
}

impl Threads {
    /// Counts the calling thread as one of the node's until the returned guard is dropped, at the thread's end.
    pub(crate) fn enter(&self) -> Entered<'_> {
        let thread = process::thread_number();
        self.known.lock().running.push(thread);
        Entered {
            threads: self,
            thread,
        }
    }

    /// Processor time of all threads, including those that have ended.
    pub(crate) fn cpu_time(&self) -> CpuTime {
        let known = self.known.lock();
        let running = known.running.iter();
        running
            .map(|&thread| CpuTime::of_thread(thread))
            .sum::<CpuTime>()
            .and(known.ended)
    }
}

/// Guard of a thread that counts as one of its node's.
#[derive(Debug)]
pub(crate) struct Entered<'a> {
    threads: &'a Threads,
    thread: u64,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut known = self.threads.known.lock();
        known.running.retain(|&thread| thread != self.thread);
        known.ended = known.ended.and(CpuTime::of_thread(self.thread));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps the processor busy for so many hundredths of a second of this thread's time.
    fn burn(hundredths: f64) {
        let thread = process::thread_number();
        let taken = || {
            let time = CpuTime::of_thread(thread);
            time.user_s + time.system_s
        };
        let begin = taken();
        while taken() - begin < hundredths / 100.0 {
            std::hint::black_box((0..10_000_u64).fold(0, |sum, number| sum ^ number));
        }
    }

    #[test]
    fn the_time_of_threads_counts_when_they_have_ended_and_that_of_others_never() {
        let threads = Threads::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _entered = threads.enter();
                burn(5.0);
            });
        });
        let taken = threads.cpu_time();
        assert!(taken.user_s + taken.system_s >= 0.05, "{taken:?}");
        burn(5.0);
        assert_eq!(threads.cpu_time(), taken);
    }
}
