//! Shows the plan of a protected environment, and waits for a person to agree to it.

use super::plan::print_plan;
use crate::{cli::Agreement, client::Unagreed};
use anyhow::{Context, Result, bail};
use std::io::{IsTerminal, Write};
use towpath_delivery::{DeliveryError, PlanView, plan_digest};
use towpath_types::{Digest, visible};

/// The plan that a person has to see before the same request goes through, if that is why the request failed.
fn to_look_at(error: &anyhow::Error) -> Option<&PlanView> {
    let from_server = error.downcast_ref::<Unagreed>().map(|unagreed| &unagreed.plan);
    from_server.or_else(|| error.downcast_ref::<DeliveryError>()?.plan())
}

/// How to react to a plan that a person has to see.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Agree,
    Ask,
    /// The user agreed to another plan.
    Refuse,
}

/// Decides how to react. `named` is the plan that the failed request named.
fn answer(agreement: &Agreement, named: Option<&Digest>) -> Answer {
    match (named, &agreement.plan, agreement.yes) {
        (_, Some(_), _) | (Some(_), None, true) => Answer::Refuse,
        (None, None, true) => Answer::Agree,
        (_, None, false) => Answer::Ask,
    }
}

/// Sends the request `ask`. If its environment is protected, shows the plan, and sends the request again once a person has
/// agreed.
///
/// # Errors
/// The errors of `ask`, and when nobody agrees.
pub async fn agreed<T>(agreement: &Agreement, mut ask: impl AsyncFnMut(Option<Digest>) -> Result<T>) -> Result<T> {
    let mut named = agreement.plan.as_deref().map(plan_digest).transpose()?;
    loop {
        let error = match ask(named.clone()).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let Some(plan) = to_look_at(&error) else {
            return Err(error);
        };
        print_plan(plan);
        let plan = plan.id.clone();
        match answer(agreement, named.as_ref()) {
            Answer::Refuse => return Err(error),
            Answer::Agree => {}
            Answer::Ask => {
                eprintln!("{}", visible(&error.to_string()));
                if !asked_and_answered("Do this?")? {
                    bail!("nothing was done");
                }
            }
        }
        named = Some(plan);
    }
}

/// Asks a person a question.
///
/// # Errors
/// When there is no terminal to ask on.
pub fn asked_and_answered(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!(
            "nobody is there to ask: name the plan that you saw with --plan DIGEST, or take whatever it is now with --yes"
        );
    }
    out!("{question} [y/N] ");
    std::io::stdout().flush().context("failed to ask")?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("failed to read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_person_or_their_word_agrees_and_yes_means_the_first_plan_that_is_shown() {
        let agreement = |plan: Option<&str>, yes| Agreement {
            plan: plan.map(str::to_string),
            yes,
        };
        let named = Digest::of(b"plan");
        let asked = agreement(None, false);
        assert_eq!(answer(&asked, None), Answer::Ask);
        assert_eq!(answer(&asked, Some(&named)), Answer::Ask);
        let yes = agreement(None, true);
        assert_eq!(answer(&yes, None), Answer::Agree);
        assert_eq!(answer(&yes, Some(&named)), Answer::Refuse);
        let by_name = agreement(Some("sha256:…"), false);
        assert_eq!(answer(&by_name, Some(&named)), Answer::Refuse);
    }
}
