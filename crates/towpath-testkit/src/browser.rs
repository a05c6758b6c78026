//! A browser that a test can control.

use crate::{Absent, Probe, parts, until};
use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Map, Value, json};
use std::{fs::File, path::Path, process::Stdio, time::Duration};
use tokio::process::{Child, Command};

/// How long the driver may take until it listens.
const TO_START: Duration = Duration::from_secs(30);

/// Chromium's WebDriver server. Dropping it ends it and its browsers.
pub struct ChromeDriver {
    child: Child,
    url: String,
}

impl ChromeDriver {
    /// Checks that this machine has the browser and its driver.
    ///
    /// # Errors
    /// When one of them is not installed.
    pub fn present() -> Result<(), Absent> {
        parts::program("chromium")
            .and_then(|_| parts::program("chromedriver"))
            .map(drop)
    }

    /// Starts the server on a free port. Its log is `<folder>/chromedriver.log`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(folder: &Path) -> Result<Self> {
        let log = folder.join("chromedriver.log");
        let output = File::create(&log).with_context(|| format!("failed to create `{}`", log.display()))?;
        let errors = output.try_clone().context("failed to open the log twice")?;
        let child = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("failed to start chromedriver")?;
        let mut driver = Self {
            child,
            url: String::new(),
        };
        let port = until("chromedriver to print its port", TO_START, async || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if let Some(status) = driver.child.try_wait()? {
                return Ok(Probe::Never(format!("it ended with {status}: {text}")));
            }
            let port = text
                .split_once("started successfully on port ")
                .and_then(|(_, rest)| rest.split_once('.'));
            Ok(match port {
                Some((port, _)) => Probe::Found(port.to_string()),
                None => Probe::NotYet(text),
            })
        });
        let port = port.await?;
        driver.url = format!("http://127.0.0.1:{port}");
        Ok(driver)
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Capabilities for a browser without a window that runs as root, and with a small `/dev/shm`.
    pub fn capabilities() -> Map<String, Value> {
        let arguments = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--window-size=1280,1000"
        ]);
        Map::from_iter([("goog:chromeOptions".to_string(), json!({ "args": arguments }))])
    }
}

impl Drop for ChromeDriver {
    fn drop(&mut self) {
        if let Some(id) = self.child.id() {
            // The browsers are in its process group. If the group is gone already, all is well.
            let _ = killpg(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_driver_listens_on_the_port_that_it_prints() {
        if let Err(absent) = ChromeDriver::present() {
            return parts::skipped("the_driver_listens_on_the_port_that_it_prints", &absent);
        }
        let folder = tempfile::tempdir().unwrap();
        let driver = ChromeDriver::start(folder.path()).await.unwrap();
        let http = crate::api::plain_client().unwrap();
        let status = http.get(format!("{}/status", driver.url())).send().await.unwrap();
        assert!(status.text().await.unwrap().contains("\"ready\":true"));
    }
}
