//! Gates that Towpath adds: a job that deploys to a protected environment without an approval in front of it gets one.
//! Pure.

use crate::pipeline::compile::{CompiledWorkflow, CompiledWorkflowJob};
use std::collections::BTreeSet;
use towpath_types::JobKind;
use towpath_workflow::{Definition, DefinitionError, JobDefinition, Requirement};
use towpath_yaml::Diagnostic;

/// The environments to which the jobs of `workflows` deploy.
pub(crate) fn environments(workflows: &[CompiledWorkflow]) -> BTreeSet<String> {
    let jobs = workflows.iter().flat_map(|workflow| &workflow.jobs);
    jobs.filter(|job| job.kind == JobKind::Build)
        .filter_map(|job| job.environment.clone())
        .collect()
}

/// A workflow with its gates.
pub(crate) struct Gated {
    pub workflow: CompiledWorkflow,
    /// One for each gate that was added.
    pub warnings: Vec<Diagnostic>,
}

/// A workflow in which each deployment to an environment in `protected` waits at a gate that shows its plan.
///
/// # Errors
/// Never for jobs that already make a workflow.
pub(crate) fn with_own_gates(
    workflow: CompiledWorkflow,
    protected: &BTreeSet<String>,
) -> Result<Gated, DefinitionError> {
    let mut names: BTreeSet<String> = workflow.jobs.iter().map(|job| job.name.clone()).collect();
    let gates: BTreeSet<(&str, &str)> = workflow
        .jobs
        .iter()
        .filter(|job| job.kind == JobKind::Approval)
        .filter_map(|job| Some((job.name.as_str(), job.environment.as_deref()?)))
        .collect();
    let needs_gate = |job: &CompiledWorkflowJob, known: &JobDefinition| {
        let environment = job.environment.as_deref().filter(|name| protected.contains(*name))?;
        let is_deployment = job.kind == JobKind::Build && known.cannot_run.is_none();
        let has_gate = workflow
            .definition
            .ancestors(&job.name)
            .iter()
            .any(|(before, _)| gates.contains(&(before.as_str(), environment)));
        (is_deployment && !has_gate).then(|| environment.to_string())
    };
    let own: Vec<Option<String>> = workflow
        .jobs
        .iter()
        .zip(workflow.definition.jobs())
        .map(|(job, known)| needs_gate(job, known))
        .collect();
    let (mut jobs, mut definitions, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let known = workflow.definition.jobs().to_vec();
    for ((job, mut definition), own) in workflow.jobs.into_iter().zip(known).zip(own) {
        if let Some(environment) = own {
            let name = unused(&job.name, &mut names);
            let message = format!(
                "workflow `{}`: job `{}` deploys to `{environment}`, which is protected, and no approval is in front of it: it \
                 waits at the gate `{name}`",
                workflow.name, job.name
            );
            warnings.push(Diagnostic::warning("towpath::gate", message));
            jobs.push(CompiledWorkflowJob {
                name: name.clone(),
                kind: JobKind::Approval,
                environment: Some(environment),
                stored: None,
            });
            let requires = definition.requires.clone();
            let kind = towpath_workflow::JobKind::Approval;
            definitions.push(JobDefinition::new(name.clone(), kind, requires));
            definition.requires.push(Requirement::success(name));
        }
        jobs.push(job);
        definitions.push(definition);
    }
    Ok(Gated {
        workflow: CompiledWorkflow {
            name: workflow.name,
            definition: Definition::new(definitions)?,
            jobs,
        },
        warnings,
    })
}

/// A name for the gate of `job` that no other job uses.
fn unused(job: &str, names: &mut BTreeSet<String>) -> String {
    let first = format!("approve-{job}");
    let later = (2..).map(|number| format!("{first}-{number}"));
    let name = std::iter::once(first.clone())
        .chain(later)
        .find(|name| !names.contains(name));
    let name = name.unwrap_or(first);
    names.insert(name.clone());
    name
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Builds a workflow from jobs by name, kind, environment and required jobs.
    fn workflow(jobs: &[(&str, JobKind, Option<&str>, &[&str])]) -> CompiledWorkflow {
        let definitions = jobs.iter().map(|(name, kind, _, requires)| {
            let kind = match kind {
                JobKind::Build => towpath_workflow::JobKind::Build { nodes: 1 },
                JobKind::Approval => towpath_workflow::JobKind::Approval,
                JobKind::NoOp => towpath_workflow::JobKind::NoOp,
            };
            let requires = requires.iter().map(|name| Requirement::success(*name)).collect();
            JobDefinition::new(*name, kind, requires)
        });
        CompiledWorkflow {
            name: "main".into(),
            definition: Definition::new(definitions.collect()).unwrap(),
            jobs: jobs
                .iter()
                .map(|(name, kind, environment, _)| CompiledWorkflowJob {
                    name: (*name).into(),
                    kind: *kind,
                    environment: environment.map(str::to_string),
                    stored: None,
                })
                .collect(),
        }
    }

    fn gated(workflow: CompiledWorkflow) -> Vec<String> {
        let gated = with_own_gates(workflow, &BTreeSet::from(["production".to_string()])).unwrap();
        let workflow = gated.workflow;
        let own = workflow
            .jobs
            .iter()
            .filter(|job| job.name.starts_with("approve-") && job.kind == JobKind::Approval);
        assert_eq!(own.count(), gated.warnings.len());
        let shown = workflow
            .definition
            .jobs()
            .iter()
            .zip(&workflow.jobs)
            .map(|(known, job)| {
                assert_eq!(known.name, job.name);
                let requires: Vec<&str> = known.requires.iter().map(|one| one.job.as_str()).collect();
                format!("{} < {}", known.name, requires.join(" "))
            });
        shown.collect()
    }

    const BUILD: JobKind = JobKind::Build;
    const HOLD: JobKind = JobKind::Approval;

    #[test]
    fn a_deployment_without_an_approval_gets_a_gate_of_its_own() {
        let jobs = gated(workflow(&[
            ("build", BUILD, None, &[]),
            ("deploy-dev", BUILD, Some("dev"), &["build"]),
            ("ship", BUILD, Some("production"), &["build", "deploy-dev"]),
        ]));
        assert_eq!(
            jobs,
            [
                "build < ",
                "deploy-dev < build",
                "approve-ship < build deploy-dev",
                "ship < build deploy-dev approve-ship"
            ]
        );
    }

    #[test]
    fn an_approval_of_the_same_environment_is_enough_and_another_is_not() {
        let jobs = gated(workflow(&[
            ("hold", HOLD, Some("production"), &[]),
            ("prepare", BUILD, None, &["hold"]),
            ("ship", BUILD, Some("production"), &["prepare"]),
        ]));
        assert_eq!(jobs, ["hold < ", "prepare < hold", "ship < prepare"]);
        let jobs = gated(workflow(&[
            ("hold", HOLD, Some("dev"), &[]),
            ("approve-ship", BUILD, Some("dev"), &["hold"]),
            ("ship", BUILD, Some("production"), &["hold"]),
        ]));
        assert_eq!(
            jobs,
            [
                "hold < ",
                "approve-ship < hold",
                "approve-ship-2 < hold",
                "ship < hold approve-ship-2"
            ]
        );
    }

    #[test]
    fn the_environments_are_those_of_deployments() {
        let workflows = [workflow(&[
            ("hold", HOLD, Some("staging"), &[]),
            ("ship", BUILD, Some("production"), &[]),
            ("test", BUILD, None, &[]),
        ])];
        assert_eq!(environments(&workflows), BTreeSet::from(["production".to_string()]));
    }
}
