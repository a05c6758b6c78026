//! Draws a workflow as text, DOT or SVG. Each job is in a column to the right of the jobs that it requires.

use crate::compiled::{JobKind, RequiredStatus, Requirement, Workflow, WorkflowJob};
use std::collections::HashMap;
use std::fmt::Write as _;

/// The format of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphFormat {
    /// One job per line, for a terminal.
    Text,
    /// For Graphviz. Source: <https://graphviz.org/doc/info/lang.html>
    Dot,
    /// A drawing for a browser, in the colours of the page that contains it.
    Svg,
}

/// Draws `workflow`.
pub fn graph(workflow: &Workflow, format: GraphFormat) -> String {
    match format {
        GraphFormat::Text => text(workflow),
        GraphFormat::Dot => dot(workflow),
        GraphFormat::Svg => svg(workflow),
    }
}

/// The column of each job: the length of the longest path to it. A compiled workflow has no cycles.
fn columns(workflow: &Workflow) -> Vec<usize> {
    let at: HashMap<&str, usize> = (0..)
        .zip(&workflow.jobs)
        .map(|(at, job)| (job.name.as_str(), at))
        .collect();
    let mut dependents = vec![Vec::new(); workflow.jobs.len()];
    let mut left = vec![0_usize; workflow.jobs.len()];
    for (job, node) in workflow.jobs.iter().enumerate() {
        for required in node
            .requires
            .iter()
            .filter_map(|required| at.get(required.job.as_str()))
        {
            dependents[*required].push(job);
            left[job] += 1;
        }
    }
    let mut columns = vec![0; workflow.jobs.len()];
    let mut ready: Vec<usize> = (0..left.len()).filter(|job| left[*job] == 0).collect();
    while let Some(job) = ready.pop() {
        for dependent in std::mem::take(&mut dependents[job]) {
            columns[dependent] = columns[dependent].max(columns[job] + 1);
            left[dependent] -= 1;
            if left[dependent] == 0 {
                ready.push(dependent);
            }
        }
    }
    columns
}

/// The type of a job that runs no steps.
fn kind(job: &WorkflowJob) -> Option<&'static str> {
    (!matches!(job.kind, JobKind::Build { .. })).then(|| job.kind.word())
}

/// The statuses with which a job starts, unless it starts on success only.
fn statuses(requirement: &Requirement) -> Option<String> {
    let is_default = requirement.statuses.len() == 1 && requirement.statuses.contains(&RequiredStatus::Success);
    let words: Vec<&str> = requirement.statuses.iter().map(|status| status.as_str()).collect();
    (!is_default).then(|| words.join(" or "))
}

fn text(workflow: &Workflow) -> String {
    let columns = columns(workflow);
    let mut order: Vec<usize> = (0..workflow.jobs.len()).collect();
    order.sort_by_key(|job| (columns[*job], *job));
    let title = |job: &WorkflowJob| match kind(job) {
        Some(kind) => format!("{} ({kind})", job.name),
        None => job.name.clone(),
    };
    let width = workflow
        .jobs
        .iter()
        .map(|job| title(job).chars().count())
        .max()
        .unwrap_or_default();
    if workflow.jobs.is_empty() {
        return format!("{}  (not for this branch or tag)\n", workflow.name);
    }
    let mut out = format!("{}\n", workflow.name);
    for at in order {
        let job = &workflow.jobs[at];
        let requires: Vec<String> = job
            .requires
            .iter()
            .map(|required| match statuses(required) {
                Some(statuses) => format!("{} ({statuses})", required.job),
                None => required.job.clone(),
            })
            .collect();
        let line = match requires.is_empty() {
            true => format!("  {:>2}  {}", columns[at] + 1, title(job)),
            false => format!(
                "  {:>2}  {:<width$}  after {}",
                columns[at] + 1,
                title(job),
                requires.join(", ")
            ),
        };
        let _ = writeln!(out, "{}", line.trim_end());
    }
    for name in &workflow.filtered {
        let _ = writeln!(out, "   -  {name}  (not for this branch or tag)");
    }
    out
}

fn quoted(text: &str) -> String {
    format!(
        "\"{}\"",
        text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
    )
}

fn dot(workflow: &Workflow) -> String {
    let mut out = format!(
        "digraph {} {{\n  rankdir=LR;\n  node [shape=box];\n",
        quoted(&workflow.name)
    );
    for job in &workflow.jobs {
        let style = match kind(job) {
            Some(kind) => format!(" [style=dashed, xlabel={}]", quoted(kind)),
            None => String::new(),
        };
        let _ = writeln!(out, "  {}{style};", quoted(&job.name));
    }
    for job in &workflow.jobs {
        for required in &job.requires {
            let label = statuses(required)
                .map(|statuses| format!(" [label={}]", quoted(&statuses)))
                .unwrap_or_default();
            let _ = writeln!(out, "  {} -> {}{label};", quoted(&required.job), quoted(&job.name));
        }
    }
    out.push_str("}\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

// Sizes in the units of the drawing, which are about a pixel.
const CHARACTER: usize = 8;
const BOX_HEIGHT: usize = 32;
const ROW: usize = 48;
const GAP: usize = 56;
const MARGIN: usize = 16;
/// Longer names are cut. The title of the box has the whole name.
const MOST_CHARACTERS: usize = 40;

fn svg(workflow: &Workflow) -> String {
    let columns = columns(workflow);
    let at: HashMap<&str, usize> = (0..)
        .zip(&workflow.jobs)
        .map(|(at, job)| (job.name.as_str(), at))
        .collect();
    let many = columns.iter().max().map_or(0, |last| last + 1);
    let mut rows = vec![0_usize; workflow.jobs.len()];
    let (mut widths, mut heights) = (vec![0_usize; many], 0);
    for (column, width) in widths.iter_mut().enumerate() {
        let mut members: Vec<usize> = (0..columns.len()).filter(|job| columns[*job] == column).collect();
        // Sort by the mean height of the required jobs, so that few lines cross.
        let height = |job: &usize| {
            let before: Vec<usize> = workflow.jobs[*job]
                .requires
                .iter()
                .filter_map(|required| at.get(required.job.as_str()).map(|at| rows[*at]))
                .collect();
            (before.iter().sum::<usize>() * 16)
                .checked_div(before.len())
                .unwrap_or_default()
        };
        members.sort_by_key(|job| (height(job), *job));
        for (row, job) in members.iter().enumerate() {
            rows[*job] = row;
            let characters = workflow.jobs[*job].name.chars().count().min(MOST_CHARACTERS);
            *width = (*width).max(characters * CHARACTER + 24);
        }
        heights = heights.max(members.len());
    }
    let left: Vec<usize> = (0..many)
        .map(|column| MARGIN + widths[..column].iter().sum::<usize>() + column * GAP)
        .collect();
    let width = 2 * MARGIN + widths.iter().sum::<usize>() + many.saturating_sub(1) * GAP;
    let height = 2 * MARGIN + heights * ROW;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-label=\"{name}\">\n<title>{name}</title>\n\
         <g fill=\"none\" stroke=\"currentColor\" font-family=\"ui-monospace, monospace\" font-size=\"13\">\n",
        name = escaped(&workflow.name)
    );
    let middle = |job: usize| MARGIN + rows[job] * ROW + ROW / 2;
    for (job, node) in workflow.jobs.iter().enumerate() {
        for required in &node.requires {
            let Some(from) = at.get(required.job.as_str()).copied() else {
                continue;
            };
            let (x1, x2) = (left[columns[from]] + widths[columns[from]], left[columns[job]]);
            let (y1, y2) = (middle(from), middle(job));
            let bend = (x1 + x2) / 2;
            let dashes = if statuses(required).is_some() {
                " stroke-dasharray=\"4 3\""
            } else {
                ""
            };
            let _ = write!(
                out,
                "<path opacity=\"0.5\" d=\"M{x1} {y1} C{bend} {y1} {bend} {y2} {x2} {y2}\"{dashes}>"
            );
            let label = statuses(required).unwrap_or_else(|| "success".to_owned());
            let title = format!("{} after {} ({label})", node.name, required.job);
            let _ = writeln!(out, "<title>{}</title></path>", escaped(&title));
        }
    }
    for (job, node) in workflow.jobs.iter().enumerate() {
        let (x, y) = (left[columns[job]], middle(job) - BOX_HEIGHT / 2);
        let dashes = if kind(node).is_some() {
            " stroke-dasharray=\"6 4\""
        } else {
            ""
        };
        let title = match kind(node) {
            Some(kind) => format!("{} ({kind})", node.name),
            None => node.name.clone(),
        };
        let mut name: String = node.name.chars().take(MOST_CHARACTERS).collect();
        if name.len() < node.name.len() {
            name.pop();
            name.push('…');
        }
        let _ = writeln!(
            out,
            "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{BOX_HEIGHT}\" rx=\"5\"{dashes}/>\
             <text x=\"{}\" y=\"{}\" fill=\"currentColor\" stroke=\"none\">{}</text></g>",
            escaped(&title),
            widths[columns[job]],
            x + 12,
            middle(job) + 4,
            escaped(&name),
        );
    }
    out.push_str("</g>\n</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::compile;
    use crate::document::Document;
    use crate::options::CompileOptions;

    fn workflow() -> Workflow {
        let text = "version: 2.1\njobs:\n  job: {docker: [{image: a:1}], steps: [checkout]}\nworkflows:\n  all:\n    jobs:\n      - job: {name: test}\n      - job: {name: 'a <b>', requires: [test]}\n      - hold: {type: approval, requires: [test]}\n      - job: {name: after, requires: [hold, 'a <b>']}\n      - job: {name: cry, requires: [test: [failed, canceled]]}\n";
        let (config, diagnostics) = compile(&Document::parse("config.yml", text), &CompileOptions::default());
        let workflow = config.and_then(|mut config| config.workflows.pop());
        workflow.unwrap_or_else(|| panic!("{diagnostics:?}"))
    }

    #[test]
    fn text_has_one_job_per_line_in_the_order_of_their_columns() {
        let expected = "all\n   1  test\n   2  a <b>            after test\n   2  hold (approval)  after test\n   2  cry              after test (failed or canceled)\n   3  after            after hold, a <b>\n";
        assert_eq!(graph(&workflow(), GraphFormat::Text), expected);
    }

    #[test]
    fn dot_has_all_jobs_and_all_requirements() {
        let dot = graph(&workflow(), GraphFormat::Dot);
        assert!(dot.contains("\"hold\" [style=dashed, xlabel=\"approval\"];"), "{dot}");
        assert!(
            dot.contains("\"test\" -> \"cry\" [label=\"failed or canceled\"];"),
            "{dot}"
        );
        assert_eq!(dot.matches(" -> ").count(), 5, "{dot}");
    }

    #[test]
    fn svg_escapes_names_and_has_all_jobs_and_all_requirements() {
        let svg = graph(&workflow(), GraphFormat::Svg);
        assert_eq!(
            (svg.matches("<rect ").count(), svg.matches("<path ").count()),
            (5, 5),
            "{svg}"
        );
        assert!(svg.contains("a &lt;b&gt;") && !svg.contains("<b>"), "{svg}");
    }
}
