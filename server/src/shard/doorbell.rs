//! [`Doorbell`]: wakes a loop if it sleeps, without a system call if it does not.
//!
//! The sleeper declares that it is about to sleep and *then* checks its inbox a last time; a sender puts its message
//! into the inbox and *then* rings. In any order of the two, one of them notices the other.

use super::sync::{AtomicBool, Ordering};

/// Ends a loop's wait.
pub(crate) trait Wake {
    /// Makes the current wait return, or else the next one.
    fn wake(&self);
}

/// Doorbell in front of a waker.
#[derive(Debug)]
pub(crate) struct Doorbell<W> {
    asleep: AtomicBool,
    waker: W,
}

impl<W: Wake> Doorbell<W> {
    /// A doorbell of a loop that is awake.
    pub(crate) fn new(waker: W) -> Self {
        Self {
            asleep: AtomicBool::new(false),
            waker,
        }
    }

    /// Wakes the loop if it sleeps or is about to. Must be called after the message is in the inbox.
    #[inline]
    pub(crate) fn ring(&self) {
        // Loom models the total order of fences, but not that of other sequentially consistent operations.
        #[cfg(shardis_loom)]
        loom::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// Declares that the loop is about to sleep, unless `is_idle` finds work. True when it may sleep; it must call
    /// [`awake`](Self::awake) after its wait.
    #[inline]
    pub(crate) fn may_sleep(&self, is_idle: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        #[cfg(shardis_loom)]
        loom::sync::atomic::fence(Ordering::SeqCst);
        let idle = is_idle();
        if !idle {
            self.awake();
        }
        idle
    }

    /// Declares that the loop is awake.
    #[inline]
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }
}

#[cfg(all(test, not(shardis_loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[derive(Default)]
    struct Count(Cell<u32>);

    impl Wake for Count {
        fn wake(&self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn only_a_sleeper_is_woken_and_only_once() {
        let bell = Doorbell::new(Count::default());
        bell.ring();
        assert_eq!(bell.waker.0.get(), 0);
        assert!(bell.may_sleep(|| true));
        bell.ring();
        bell.ring();
        assert_eq!(bell.waker.0.get(), 1);
        assert!(!bell.may_sleep(|| false));
        bell.ring();
        assert_eq!(bell.waker.0.get(), 1);
    }
}

#[cfg(all(test, shardis_loom))]
mod loom_tests {
    use loom::sync::atomic::AtomicBool as LoomBool;
    use loom::sync::{Arc, Mutex, Notify};
    use loom::thread;

    use super::*;

    struct Bell(Arc<Notify>);

    impl Wake for Bell {
        fn wake(&self) {
            self.0.notify();
        }
    }

    /// A message that was sent is never slept over: if the loop sleeps, it is woken (loom reports a deadlock otherwise).
    #[test]
    fn no_message_is_slept_over() {
        loom::model(|| {
            let notify = Arc::new(Notify::new());
            let bell = Arc::new(Doorbell::new(Bell(Arc::clone(&notify))));
            let inbox = Arc::new(Mutex::new(None));
            let rang = Arc::new(LoomBool::new(false));
            let sender = {
                let (bell, inbox, rang) = (Arc::clone(&bell), Arc::clone(&inbox), Arc::clone(&rang));
                thread::spawn(move || {
                    *inbox.lock().unwrap() = Some(5);
                    bell.ring();
                    rang.store(true, Ordering::SeqCst);
                })
            };
            let got = loop {
                if let Some(message) = inbox.lock().unwrap().take() {
                    break message;
                }
                if bell.may_sleep(|| inbox.lock().unwrap().is_none()) {
                    notify.wait();
                    bell.awake();
                }
            };
            assert_eq!(got, 5);
            sender.join().unwrap();
        });
    }
    /// A loop that has looked at the state before it changed does not sleep over the change.
    #[test]
    fn no_news_is_slept_over() {
        loom::model(|| {
            let notify = Arc::new(Notify::new());
            let bell = Arc::new(Doorbell::new(Bell(Arc::clone(&notify))));
            let news = Arc::new(loom::sync::atomic::AtomicU64::new(0));
            let teller = {
                let (bell, news) = (Arc::clone(&bell), Arc::clone(&news));
                thread::spawn(move || {
                    news.fetch_add(1, Ordering::SeqCst);
                    bell.ring();
                })
            };
            loop {
                let seen = news.load(Ordering::SeqCst);
                if seen == 1 {
                    break;
                }
                if bell.may_sleep(|| news.load(Ordering::SeqCst) == seen) {
                    notify.wait();
                    bell.awake();
                }
            }
            teller.join().unwrap();
        });
    }
}
