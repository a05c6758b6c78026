//! The board: what runs where, what waits, what happened.

use super::{
    layout::status,
    text::{ago, image},
};
use maud::{Markup, html};
use towpath_control::{Board, EnvironmentView, GateView, PipelineView, ReleaseView};

pub(super) fn board(board: &Board) -> Markup {
    html! {
        h1 { "Board" }
        @if board.projects.is_empty() {
            section.card {
                h2 { "No project yet" }
                p { "In your repository, run " code { "towpath init" } " and then " code { "git push towpath HEAD" } "." }
            }
        }
        @if !board.gates.is_empty() {
            section aria-labelledby="gates" {
                h2 #gates { "Waiting for approval" }
                ul.cards { @for gate in &board.gates { (gate_card(gate)) } }
            }
        }
        @for project in &board.projects {
            section aria-label=(format!("Environments of {}", project.name)) {
                h2 { (project.name) }
                @if project.environments.is_empty() { p.quiet { "No environment: nothing was pushed, or there is nothing below .k8s/." } }
                ul.cards { @for environment in &project.environments { (environment_card(environment)) } }
            }
        }
        section aria-labelledby="pipelines" {
            h2 #pipelines { "Pipelines" }
            @if board.pipelines.is_empty() { p.quiet { "None yet." } }
            ul.rows { @for pipeline in &board.pipelines { (pipeline_row(pipeline)) } }
        }
    }
}

fn gate_card(gate: &GateView) -> Markup {
    html! {
        li.card.hold {
            a.title href=(format!("/gates/{}", gate.job.id)) { (gate.job.name) }
            p { (gate.project) " · pipeline " (gate.pipeline_number) " · " (gate.branch.as_deref().unwrap_or("tag")) }
            p.quiet { code { (gate.commit.short()) } " " (gate.subject) }
            @match (&gate.plan, &gate.plan_error) {
                (Some(plan), _) => p { (plan.changes.len()) " objects would change in " strong { (plan.environment) } },
                (None, Some(_)) => p.problem { "No plan can be made" },
                (None, None) => {},
            }
        }
    }
}

fn environment_card(environment: &EnvironmentView) -> Markup {
    let unwell = environment
        .workloads
        .iter()
        .any(|workload| workload.ready < workload.desired);
    html! {
        li.card {
            a.title href=(format!("/projects/{}/environments/{}", environment.project, environment.name)) { (environment.name) }
            @if let Some(release) = &environment.deploying { p { (status("running")) " release " (release.number) " is being deployed" } }
            @if let Some(between) = &environment.between { p.problem { (between) } }
            @if let Some(hold) = &environment.hold { p.problem { (hold) } }
            @if let Some(drift) = environment.drift.as_ref().filter(|drift| !drift.objects.is_empty()) {
                p.problem { (drift.objects.len()) " objects have drifted from the release" }
            }
            @match &environment.release {
                Some(release) => {
                    p { (image(&release.image)) @if let Some(commit) = &release.commit { " from " code { (commit.short()) } } }
                    p.quiet { "release " (release.number) " by " (release.by) ", " (ago(release.at)) }
                    @if unwell { p.problem { "Not everything is ready" } }
                }
                None => p.quiet { "Nothing deployed yet" },
            }
            @for address in &environment.addresses { p { a href=(address) rel="noreferrer" { (address) } } }
        }
    }
}

fn pipeline_row(pipeline: &PipelineView) -> Markup {
    let of = pipeline
        .branch
        .as_deref()
        .or(pipeline.tag.as_deref())
        .unwrap_or_default();
    html! {
        li {
            a href=(format!("/projects/{}/pipelines/{}", pipeline.project, pipeline.number)) { (pipeline.project) " #" (pipeline.number) }
            span { code { (pipeline.commit.short()) } " " (pipeline.subject) }
            span.quiet { (of) " · " (ago(pipeline.created_at)) }
            span.statuses {
                @if pipeline.state == "errored" { (status("errored")) }
                @for workflow in &pipeline.workflows { span { (workflow.name) " " (status(&workflow.status)) } }
            }
        }
    }
}

pub(super) fn environment(view: &EnvironmentView, history: &[ReleaseView]) -> Markup {
    html! {
        p.crumbs { a href="/" { "Board" } " / " (view.project) }
        h1 { (view.name) }
        @for address in &view.addresses { p { "Answers at " a href=(address) rel="noreferrer" { (address) } } }
        @if let Some(between) = &view.between { p.problem { (between) } }
        @if let Some(hold) = &view.hold { p.problem { (hold) } }
        @if let (None, Some(elsewhere)) = (&view.deploying, &view.under_way) {
            p { (status("running")) " " (elsewhere.by) " is deploying: " (elsewhere.what) ", since " (ago(elsewhere.since)) }
        }
        @if let Some(drift) = view.drift.as_ref().filter(|drift| !drift.objects.is_empty()) {
            section aria-labelledby="drift" {
                h2 #drift { "Drifted from the release" }
                p.quiet { "Looked at " (ago(drift.at)) ". Deploying again puts right what the release says; what others put in beside it stays." }
                @for object in &drift.objects {
                    details.change open {
                        summary {
                            (object.action) " " (object.kind) " " strong { (object.name) }
                            @for writer in &object.writers { " · " (writer.manager) @if let Some(at) = writer.at { " " (ago(at)) } }
                        }
                        (super::gate::diff(&object.diff))
                    }
                }
            }
        }
        section aria-labelledby="workloads" {
            h2 #workloads { "What runs" }
            @if view.workloads.is_empty() { p.quiet { "Nothing." } }
            div.scroll { table {
                thead { tr { th { "Workload" } th { "Ready" } th { "Restarts" } th { "Image" } th { "State" } } }
                tbody { @for workload in &view.workloads { tr {
                    td { (workload.kind) " " strong { (workload.name) } }
                    td { @if workload.kind == "CronJob" { "–" } @else { (workload.ready) "/" (workload.desired) } }
                    td { (workload.restarts) }
                    td { (image(&workload.image)) }
                    td { (workload.message) }
                } } }
            } }
        }
        section aria-labelledby="releases" {
            h2 #releases { "Releases" }
            @if history.is_empty() { p.quiet { "None yet." } }
            ul.rows.releases { @for release in history { (release_row(view, release)) } }
        }
    }
}

fn release_row(view: &EnvironmentView, release: &ReleaseView) -> Markup {
    let current = view.release.as_ref().is_some_and(|current| current.id == release.id);
    html! {
        li {
            strong { "#" (release.number) }
            span { (status(&release.state)) @if current { " · runs now" } }
            span { (image(&release.image)) @if let Some(commit) = &release.commit { " from " code { (commit.short()) } } }
            span.quiet { (release.cause) ", by " (release.by) ", " (ago(release.at)) }
            @if !current && release.state == "succeeded" {
                form method="post" action=(format!("/projects/{}/environments/{}/rollback", view.project, view.name)) {
                    input type="hidden" name="to" value=(release.number);
                    button type="submit" { "Go back to this" }
                }
            }
            @if let Some(message) = &release.message { pre.message { (message) } }
        }
    }
}
