//! How a process ends that works with clusters by itself: not because nobody reads what it prints, and at a signal with a
//! word on what it leaves behind.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use tokio::signal::unix::{SignalKind, signal};

/// Whether this process works with clusters by itself.
static WORKS: AtomicBool = AtomicBool::new(false);

/// What a signal leaves behind, once something was begun.
static LEFT: Mutex<Option<String>> = Mutex::new(None);

/// Whether this process works with clusters by itself.
pub fn is_at_work() -> bool {
    WORKS.load(Ordering::SeqCst)
}

/// Says what there is to know if a signal ends this process from now on: what goes on without it, or is half done.
pub fn leaves(what: String) {
    *LEFT.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
}

/// From now on this process works with clusters by itself, until a signal ends it.
pub fn begin_work() {
    WORKS.store(true, Ordering::SeqCst);
    for (kind, code) in [
        (SignalKind::interrupt(), 130),
        (SignalKind::terminate(), 143),
        (SignalKind::hangup(), 129),
    ] {
        let Ok(mut signals) = signal(kind) else { continue };
        tokio::spawn(async move {
            signals.recv().await;
            match LEFT.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(left) => eprintln!("\nStopped. {left}"),
                // Nothing was begun.
                None => eprintln!("\nStopped."),
            }
            std::process::exit(code);
        });
    }
}
