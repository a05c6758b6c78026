//! Waiting for a value.

use anyhow::{Result, bail};
use std::{
    fmt::Display,
    time::{Duration, Instant},
};

/// The pause between two probes, short compared with what they wait for.
const PAUSE: Duration = Duration::from_millis(50);

/// What one probe found.
#[derive(Debug)]
pub enum Probe<T> {
    /// The awaited value.
    Found(T),
    /// Not yet, and what it saw instead.
    NotYet(String),
    /// It can no longer happen, and why.
    Never(String),
}

/// Calls `probe` until it finds something, for at most `bound`.
///
/// # Errors
/// When the probe answers `Never` or fails, and when the time is up. The message says what was awaited, for how long, and what
/// was seen last.
pub async fn until<T>(
    what: impl Display,
    bound: Duration,
    mut probe: impl AsyncFnMut() -> Result<Probe<T>>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        match probe().await? {
            Probe::Found(value) => return Ok(value),
            Probe::Never(why) => bail!("{what} will not happen: {why}"),
            Probe::NotYet(seen) if began.elapsed() > bound => {
                bail!("waited {} s for {what}; last seen: {seen}", bound.as_secs())
            }
            Probe::NotYet(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_error_says_what_was_seen_last() {
        let mut looks = 0;
        let found = until("three looks", Duration::from_secs(5), async || {
            looks += 1;
            Ok(if looks == 3 {
                Probe::Found(looks)
            } else {
                Probe::NotYet(format!("{looks} looks"))
            })
        });
        assert_eq!(found.await.unwrap(), 3);
        let waited = until("a miracle", Duration::ZERO, async || {
            Ok(Probe::<()>::NotYet("a shrug".into()))
        })
        .await;
        assert_eq!(
            waited.unwrap_err().to_string(),
            "waited 0 s for a miracle; last seen: a shrug"
        );
        let never = until("rain", Duration::MAX, async || {
            Ok(Probe::<()>::Never("it is a desert".into()))
        })
        .await;
        assert_eq!(never.unwrap_err().to_string(), "rain will not happen: it is a desert");
    }
}
