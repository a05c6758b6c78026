//! What the containers of a Job print.

use crate::target::JobLine;
use bytes::Bytes;
use futures::StreamExt;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::{
    sync::mpsc,
    time::{Duration, sleep},
};
use towpath_kube::{Client, Resource};
use towpath_manifest::Kind;
use towpath_types::{Mask, percent_encoded};

/// The pause before a broken log stream is opened again.
const PAUSE: Duration = Duration::from_millis(500);

/// A container that has started.
pub(super) struct StartedContainer {
    pub pod: String,
    pub name: String,
    /// How often it has restarted.
    pub restart: i64,
    pub has_ended: bool,
}

/// Where the output of one container goes.
pub(super) struct Output {
    pub lines: mpsc::Sender<JobLine>,
    /// Whether several pods print at the same time, so that each line needs the name of its pod.
    pub has_several_pods: Arc<AtomicBool>,
    pub pod: String,
    /// Whether the next byte starts a line.
    pub is_at_line_start: bool,
}

impl Output {
    /// Sends what was printed. Returns `false` if nobody listens any more.
    async fn send(&mut self, printed: Vec<u8>) -> bool {
        if printed.is_empty() {
            return true;
        }
        let printed = match self.has_several_pods.load(Ordering::Relaxed) {
            true => with_pod_names(&self.pod, &printed, self.is_at_line_start),
            false => printed,
        };
        self.is_at_line_start = printed.ends_with(b"\n");
        self.lines.send(JobLine::Output(Bytes::from(printed))).await.is_ok()
    }
}

/// Reads the logs of containers.
#[derive(Clone)]
pub(super) struct LogReader {
    pub client: Arc<Client>,
    pub namespace: String,
    pub mask: Mask,
}

impl LogReader {
    /// Sends what a container prints to `output`, masked, until it ends. Continues a broken stream after the last line that
    /// came.
    pub(super) async fn read(self, container: StartedContainer, mut output: Output) {
        let path = Resource::of(&Kind::POD).object(&self.namespace, &container.pod);
        let base = format!(
            "{path}/log?container={}&timestamps=true&follow=true",
            percent_encoded(&container.name)
        );
        // The time of the last line, and how many lines have that time.
        let (mut last, mut count_of_last) = (String::new(), 0_usize);
        let mut masker = self.mask.masker();
        loop {
            let path = match last.as_str() {
                "" => base.clone(),
                last => format!("{base}&sinceTime={}", percent_encoded(last)),
            };
            let mut pieces = match self.client.stream(&path).await {
                Ok(pieces) => pieces,
                Err(error) => {
                    let why = match error.is_missing() {
                        true if last.is_empty() => "its pod was deleted before anybody read it".to_string(),
                        true => break,
                        false => error.to_string(),
                    };
                    let note = format!("cannot show the output of `{}`: {why}", container.name);
                    let _ = output.lines.send(JobLine::Note(self.mask.text(&note))).await;
                    break;
                }
            };
            // The stream starts again with the lines of that time.
            let mut skip = count_of_last;
            let mut rest: Vec<u8> = Vec::new();
            let mut is_broken = false;
            while let Some(piece) = pieces.next().await {
                let Ok(piece) = piece else {
                    is_broken = true;
                    break;
                };
                rest.extend_from_slice(&piece);
                let mut printed = Vec::new();
                while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=at).collect();
                    let Some((time, text)) = split_time(&line) else {
                        continue;
                    };
                    if time < last.as_str() {
                        continue;
                    }
                    if time == last && skip > 0 {
                        skip -= 1;
                        continue;
                    }
                    if time == last {
                        count_of_last += 1;
                    } else {
                        (last, count_of_last, skip) = (time.to_string(), 1, 0);
                    }
                    masker.push(text, &mut printed);
                }
                if !output.send(printed).await {
                    return;
                }
            }
            // The last line may have no line break.
            if let Some((time, text)) = split_time(&rest)
                && !is_broken
                && time > last.as_str()
            {
                let mut printed = Vec::new();
                masker.push(text, &mut printed);
                masker.push(b"\n", &mut printed);
                output.send(printed).await;
            }
            if !is_broken || container.has_ended {
                break;
            }
            sleep(PAUSE).await;
        }
        let mut printed = Vec::new();
        masker.finish(&mut printed);
        output.send(printed).await;
    }
}

/// Puts the name of the pod before each line that starts in `printed`.
fn with_pod_names(pod: &str, printed: &[u8], mut is_at_line_start: bool) -> Vec<u8> {
    let mut lines = Vec::with_capacity(printed.len() + pod.len() + 3);
    for piece in printed.split_inclusive(|byte| *byte == b'\n') {
        if is_at_line_start {
            lines.extend_from_slice(format!("[{pod}] ").as_bytes());
        }
        lines.extend_from_slice(piece);
        is_at_line_start = piece.ends_with(b"\n");
    }
    lines
}

/// Splits a line into its time (RFC 3339) and its text, which keeps its line break.
fn split_time(line: &[u8]) -> Option<(&str, &[u8])> {
    let at = line.iter().position(|byte| *byte == b' ')?;
    let (time, text) = line.split_at(at);
    Some((std::str::from_utf8(time).ok()?, &text[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_starts_with_the_name_of_its_pod() {
        let named = |printed: &str, is_at_line_start| {
            String::from_utf8_lossy(&with_pod_names("p", printed.as_bytes(), is_at_line_start)).into_owned()
        };
        assert_eq!(named("a\nb\n", true), "[p] a\n[p] b\n");
        assert_eq!(named("rest\nb", false), "rest\n[p] b");
        assert_eq!(named("\n\n", true), "[p] \n[p] \n");
    }
}
