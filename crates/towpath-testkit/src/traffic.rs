//! Clients that keep sending requests to an application while it changes.

use anyhow::Result;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// After this time, a missing answer is a failure.
const PATIENCE: Duration = Duration::from_secs(10);

/// One request without a good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The time since the traffic began.
    pub after: Duration,
    /// The error, or the status and body.
    pub what: String,
}

/// The result of the traffic.
#[derive(Debug, Clone, Default)]
pub struct TrafficReport {
    /// The number of requests. Each has an answer or a failure.
    pub sent: u64,
    /// Requests without a good answer (a status from 200 to 299), in order.
    pub failures: Vec<Failure>,
    /// The number of good answers, by the reader's name for their bodies.
    pub answers: BTreeMap<String, u64>,
    /// The longest time that an answer took.
    pub slowest: Duration,
}

/// Two clients that send requests at the same rate. One keeps its connection, as a browser does; the other makes a new one for
/// each request.
pub struct Traffic {
    report: Arc<Mutex<TrafficReport>>,
    stop: watch::Sender<bool>,
    clients: JoinHandle<()>,
}

/// Names an answer by its body, to count it.
type Reader = Arc<dyn Fn(&str) -> String + Send + Sync>;

impl Traffic {
    /// Starts requests for `url`, one from each client every `rhythm`. `read` names an answer by its body.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn start(url: &str, rhythm: Duration, read: impl Fn(&str) -> String + Send + Sync + 'static) -> Result<Self> {
        let report = Arc::new(Mutex::new(TrafficReport::default()));
        let (stop, stopped) = watch::channel(false);
        let read: Reader = Arc::new(read);
        let began = Instant::now();
        let mut set = JoinSet::new();
        for idle_connections in [1, 0] {
            let http = crate::api::client_builder()
                .pool_max_idle_per_host(idle_connections)
                .timeout(PATIENCE)
                .build()?;
            let (url, report, read, stopped) = (url.to_string(), report.clone(), read.clone(), stopped.clone());
            set.spawn(ask(http, url, rhythm, read, report, stopped, began));
        }
        let clients = tokio::spawn(async move { while set.join_next().await.is_some() {} });
        Ok(Self { report, stop, clients })
    }

    /// The result so far.
    pub fn so_far(&self) -> TrafficReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the outstanding answers and stops.
    pub async fn stop(self) -> TrafficReport {
        // This fails only if the clients have ended already.
        let _ = self.stop.send(true);
        let _ = self.clients.await;
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn ask(
    http: reqwest::Client,
    url: String,
    rhythm: Duration,
    read: Reader,
    report: Arc<Mutex<TrafficReport>>,
    mut stopped: watch::Receiver<bool>,
    began: Instant,
) {
    let mut ticks = tokio::time::interval(rhythm);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        let sent = Instant::now();
        let answer = get(&http, &url).await;
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        report.sent += 1;
        report.slowest = report.slowest.max(sent.elapsed());
        match answer {
            Ok(body) => *report.answers.entry(read(&body)).or_default() += 1,
            Err(what) => report.failures.push(Failure {
                after: sent - began,
                what,
            }),
        }
    }
}

async fn get(http: &reqwest::Client, url: &str) -> Result<String, String> {
    let chain = |error: reqwest::Error| {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    };
    let response = http.get(url).send().await.map_err(chain)?;
    let status = response.status();
    let body = response.text().await.map_err(chain)?;
    if status.is_success() {
        Ok(body)
    } else {
        Err(format!("{status}: {}", body.trim()))
    }
}

impl TrafficReport {
    /// `412 requests, none failed, slowest 31 ms`, or the number of failures and the first one.
    pub fn summary(&self) -> String {
        let slowest = self.slowest.as_millis();
        let Some(first) = self.failures.first() else {
            return format!("{} requests, none failed, slowest {slowest} ms", self.sent);
        };
        format!(
            "{} requests, {} FAILED (the first after {:.1} s: {}), slowest {slowest} ms",
            self.sent,
            self.failures.len(),
            first.after.as_secs_f64(),
            first.what
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    #[tokio::test]
    async fn good_answers_bad_answers_and_none_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let answers = [
                "200 OK\r\nContent-Length: 3\r\n\r\none",
                "503 No\r\nContent-Length: 0\r\n\r\n",
                "",
            ];
            for answer in answers.iter().cycle() {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await.unwrap();
                if !answer.is_empty() {
                    let head = format!("HTTP/1.1 {answer}").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
                    stream.write_all(head.as_bytes()).await.unwrap();
                }
            }
        });
        let traffic = Traffic::start(&url, Duration::from_millis(1), str::to_uppercase).unwrap();
        crate::until("some of each", Duration::from_secs(20), async || {
            let report = traffic.so_far();
            let enough = report.failures.len() >= 4 && report.answers.get("ONE") >= Some(&2);
            Ok(if enough {
                crate::Probe::Found(())
            } else {
                crate::Probe::NotYet(report.summary())
            })
        })
        .await
        .unwrap();
        let report = traffic.stop().await;
        assert_eq!(report.sent, report.answers["ONE"] + report.failures.len() as u64);
        assert!(
            report.failures.iter().any(|failure| failure.what.starts_with("503")),
            "{report:?}"
        );
        assert!(
            report.failures.iter().any(|failure| !failure.what.starts_with("503")),
            "{report:?}"
        );
        assert!(report.summary().contains("FAILED"), "{}", report.summary());
    }
}
