//! Finds the deployments in a job's steps: the commands that say `towpath deploy`.

use towpath_yaml::Place;

use crate::compiled::{CompiledJob, Step, StepAction};

/// A deployment that a step's command names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deployment {
    /// `towpath deploy ENVIRONMENT`.
    To(String),
    /// `towpath deploy` with arguments that name no fixed environment: it is known only at run time.
    Unclear(String),
}

/// The environment to which a job deploys. `None` if its steps deploy nowhere, or if no gate could show what they deploy: then
/// [`crate::check`] finds that the job cannot run.
pub fn deploys_to(job: &CompiledJob) -> Option<String> {
    let mut found = in_steps(&job.steps).into_iter().map(|(_, deployment)| deployment);
    match (found.next()?, found) {
        (Deployment::To(environment), mut others) => others
            .all(|other| other == Deployment::To(environment.clone()))
            .then_some(environment),
        (Deployment::Unclear(_), _) => None,
    }
}

/// The deployments in a list of steps, each with the place of its step.
pub(crate) fn in_steps(steps: &[Step]) -> Vec<(&Place, Deployment)> {
    steps.iter().flat_map(in_step).collect()
}

fn in_step(step: &Step) -> Vec<(&Place, Deployment)> {
    match &step.action {
        StepAction::Run(run) | StepAction::Deploy(run) => {
            let found = in_command(&run.command).into_iter();
            found.map(|one| (&step.place, one)).collect()
        }
        StepAction::WithToolCache { steps } => in_steps(steps),
        StepAction::Checkout { .. }
        | StepAction::SaveCache { .. }
        | StepAction::RestoreCache { .. }
        | StepAction::PersistToWorkspace { .. }
        | StepAction::AttachWorkspace { .. }
        | StepAction::StoreArtifacts { .. }
        | StepAction::StoreTestResults { .. }
        | StepAction::SetupRemoteDocker { .. }
        | StepAction::AddSshKeys { .. }
        | StepAction::InstallSigningBundle { .. } => Vec::new(),
    }
}

/// The deployments in a step's command, in order.
///
/// Splitting on blanks is enough for real configurations.
fn in_command(command: &str) -> Vec<Deployment> {
    let mut found = Vec::new();
    for line in command.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim_start();
        if line.starts_with('#') {
            continue;
        }
        for part in line.split([';', '&', '|', '(', ')']) {
            let words: Vec<&str> = part
                .split(|c: char| c.is_whitespace() || matches!(c, '"' | '\''))
                .filter(|word| !word.is_empty())
                .collect();
            let Some(at) = words.windows(2).position(|two| two == ["towpath", "deploy"]) else {
                continue;
            };
            let rest = &words[at + 2..];
            let is_name = |word: &str| {
                word.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            };
            let one = match rest {
                ["--help" | "-h", ..] => continue,
                [environment] if is_name(environment) && !environment.starts_with('-') => {
                    Deployment::To((*environment).to_string())
                }
                rest => Deployment::Unclear(rest.join(" ")),
            };
            if !found.contains(&one) {
                found.push(one);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_command_names_the_environments_it_deploys_to() {
        let to = |name: &str| Deployment::To(name.into());
        let unclear = |text: &str| Deployment::Unclear(text.into());
        let check = |command: &str, expected: &[Deployment]| assert_eq!(in_command(command), expected, "{command}");
        check("towpath deploy dev", &[to("dev")]);
        check("set -e\nif true; then towpath deploy \"staging\"; fi", &[to("staging")]);
        check(
            "towpath deploy dev && towpath deploy dev2 # towpath deploy never",
            &[to("dev"), to("dev2")],
        );
        check("# towpath deploy dev", &[]);
        check("towpath deploy $ENVIRONMENT", &[unclear("$ENVIRONMENT")]);
        check(
            "towpath deploy --on-failure stop dev",
            &[unclear("--on-failure stop dev")],
        );
        check("towpath deploy dev latest", &[unclear("dev latest")]);
        check("towpath deploy", &[unclear("")]);
        check("towpath deploy --help", &[]);
        check("echo towpath", &[]);
    }
}
