//! Turns an engine's output into lines.

use std::collections::BTreeMap;

/// Turns pieces of text into lines, and remembers which instruction the engine is at.
pub(super) struct Printer<'a> {
    progress: &'a mut (dyn FnMut(&str) + Send),
    line: String,
    last_status: BTreeMap<String, String>,
    /// The Dockerfile's instruction that the engine is executing; empty before the first.
    pub(super) instruction: String,
}

impl<'a> Printer<'a> {
    pub(super) fn new(progress: &'a mut (dyn FnMut(&str) + Send)) -> Self {
        Self {
            progress,
            line: String::new(),
            last_status: BTreeMap::new(),
            instruction: String::new(),
        }
    }

    pub(super) fn print(&mut self, text: &str) {
        let mut rest = text;
        while let Some((head, tail)) = rest.split_once('\n') {
            self.line.push_str(head);
            self.end();
            rest = tail;
        }
        self.line.push_str(rest);
        self.notice_instruction();
    }

    /// The progress of one of several parts (a layer that is pulled, by its id). Printed only when it changes.
    pub(super) fn status(&mut self, id: Option<&str>, status: &str) {
        let id = id.unwrap_or_default();
        if !id.is_empty() && self.last_status.get(id).is_some_and(|last| last == status) {
            return;
        }
        self.last_status.insert(id.to_string(), status.to_string());
        let line = if id.is_empty() {
            status.to_string()
        } else {
            format!("{id}: {status}")
        };
        self.end();
        self.print(&line);
        self.end();
    }

    /// Ends an unfinished line.
    pub(super) fn end(&mut self) {
        self.notice_instruction();
        let line = std::mem::take(&mut self.line);
        let line = line.trim_end();
        if !line.is_empty() {
            (self.progress)(line);
        }
    }

    /// `Step 2/5 : COPY a b`
    fn notice_instruction(&mut self) {
        if let Some(step) = self.line.strip_prefix("Step ")
            && let Some((_, instruction)) = step.split_once(" : ")
        {
            self.instruction = instruction.trim().to_string();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines() {
        let mut lines = Vec::new();
        let mut progress = |line: &str| lines.push(line.to_string());
        let mut printer = Printer::new(&mut progress);
        printer.print("Step 1/2 : COPY a");
        printer.print(" b\n");
        printer.print("\n ---> abc\nhalf");
        printer.status(Some("layer"), "Downloading");
        printer.status(Some("layer"), "Downloading");
        printer.status(None, "Digest: x");
        printer.print("rest");
        printer.end();
        assert_eq!(printer.instruction, "COPY a b");
        assert_eq!(
            lines,
            [
                "Step 1/2 : COPY a b",
                " ---> abc",
                "half",
                "layer: Downloading",
                "Digest: x",
                "rest"
            ]
        );
    }
}
