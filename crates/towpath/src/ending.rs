//! How a process that deploys to clusters without a server ends. A closed pipe does not end it. At a signal, it says what it
//! leaves behind.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use tokio::signal::unix::{SignalKind, signal};

/// Whether this process deploys to clusters without a server.
static WORKS: AtomicBool = AtomicBool::new(false);

/// What a signal would leave behind, once something was begun.
static LEFT: Mutex<Option<String>> = Mutex::new(None);

/// Whether this process deploys to clusters without a server.
pub fn is_at_work() -> bool {
    WORKS.load(Ordering::SeqCst)
}

/// Sets what to say if a signal ends this process from now on: what continues without it, or is half done.
pub fn leaves(what: String) {
    *LEFT.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
}

/// Marks this process as one that deploys to clusters without a server, and handles the signals that end it.
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
                // No work was begun.
                None => eprintln!("\nStopped."),
            }
            std::process::exit(code);
        });
    }
}
