//! The doorbell of a loop: wakes it if it sleeps, and costs no system call if it does not.
//!
//! The sleeper says that it is about to sleep and *then* looks into its inbox a last time; who sends puts the message into
//! the inbox and *then* rings. Whatever the order of the two, one of them sees the other.

use super::sync::{AtomicBool, Ordering};

/// Ends a loop's wait.
pub(crate) trait Wake {
    /// Makes the wait that is going on, or else the next one, return.
    fn wake(&self);
}

/// A doorbell in front of something that can be woken.
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

    /// To be called after the message is in the inbox: wakes the loop if it sleeps or is about to.
    #[inline]
    pub(crate) fn ring(&self) {
        // Loom knows the total order of fences, and not that of other operations that are sequentially consistent.
        #[cfg(shardis_loom)]
        loom::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// Says that the loop is about to sleep, unless `is_idle` finds that there is something to do after all. True when
    /// it may sleep; it then calls [`awake`](Self::awake) when its wait is over.
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

    /// Says that the loop is awake.
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
