//! Reports progress to whoever waits.

/// Takes the lines of a release or a run while it is carried out.
///
/// # Contract
/// Lines come in order, each without a line break at its end, from one task at a time. `line` must not block: hand the
/// line on and return. A line holds no value of a Secret.
pub trait Progress: Send + Sync {
    /// Takes one line.
    fn line(&self, line: &str);
}

/// Drops every line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unheard;

impl Progress for Unheard {
    fn line(&self, _: &str) {}
}

impl<F: Fn(&str) + Send + Sync> Progress for F {
    fn line(&self, line: &str) {
        self(line);
    }
}
