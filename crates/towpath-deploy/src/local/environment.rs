//! The environment variables of a container, and where their values come from.

use super::{
    local_environment::LocalEnvironment,
    model::{Container, EnvSource, PodTemplate, Source, VolumeSource},
    start_error::StartError,
};
use std::collections::BTreeSet;
use towpath_types::{Mask, SecretBytes, SecretString};

/// A variable, and where its value comes from.
struct Variable {
    name: String,
    value: SecretBytes,
    from: String,
}

/// A container's variables. A later variable overrides an earlier one, and `$(NAME)` refers to an earlier one.
///
/// Source: <https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/>
pub(crate) async fn variables(
    context: &LocalEnvironment,
    container: &Container,
) -> Result<Vec<(String, SecretString)>, StartError> {
    let mut variables: Vec<Variable> = Vec::new();
    for EnvSource {
        secret,
        name,
        prefix,
        optional,
    } in &container.environment.from
    {
        let values = context.source(*secret, name).await?;
        if values.is_none() && !optional {
            return Err(missing(*secret, name, None));
        }
        for (key, value) in values.unwrap_or_default() {
            let from = of_key(*secret, name, &key);
            set(&mut variables, format!("{prefix}{key}"), value, from);
        }
    }
    for (name, source) in &container.environment.variables {
        let (value, from) = match source {
            Source::Value(text) => (
                Some(SecretBytes::new(expand(text, value_in(&variables)))),
                "the manifest".to_string(),
            ),
            Source::Key {
                secret,
                name: from,
                key,
                optional,
            } => {
                let value = context
                    .source(*secret, from)
                    .await?
                    .and_then(|mut values| values.remove(key));
                if value.is_none() && !optional {
                    return Err(missing(*secret, from, Some(key)));
                }
                (value, of_key(*secret, from, key))
            }
        };
        if let Some(value) = value {
            set(&mut variables, name.clone(), value, from);
        }
    }
    let as_text = |Variable { name, value, from }: Variable| match value.to_variable() {
        Ok(value) => Ok((name, value)),
        Err(why) => Err(StartError::Passing(format!(
            "the container `{}` cannot have the variable `{name}`: its value, from {from}, {why}",
            container.name
        ))),
    };
    variables.into_iter().map(as_text).collect()
}

fn of_key(secret: bool, name: &str, key: &str) -> String {
    let kind = if secret { "Secret" } else { "ConfigMap" };
    format!("`{key}` of the {kind} `{name}`")
}

/// Masks the values of every Secret that pods of `template` read.
pub(crate) async fn mask(context: &LocalEnvironment, template: &PodTemplate) -> Mask {
    let mut values = Vec::new();
    for name in secrets_of(template) {
        match context.source(true, &name).await {
            Ok(found) => values.extend(found.unwrap_or_default().into_values()),
            // A value that cannot be read now was not given to a container just now either. Earlier output is masked by today's
            // value.
            Err(error) => {
                tracing::warn!(environment = %context.id, secret = name, %error, "a Secret's values are not masked")
            }
        }
    }
    Mask::new(&values)
}

/// The error for a source or key that does not exist.
pub(crate) fn missing(secret: bool, name: &str, key: Option<&str>) -> StartError {
    let kind = if secret { "Secret" } else { "ConfigMap" };
    StartError::Passing(match key {
        Some(key) => format!("the {kind} `{name}` has no key `{key}`"),
        None => format!("there is no {kind} `{name}`"),
    })
}

fn set(variables: &mut Vec<Variable>, name: String, value: SecretBytes, from: String) {
    match variables.iter_mut().find(|known| known.name == name) {
        Some(known) => (known.value, known.from) = (value, from),
        None => variables.push(Variable { name, value, from }),
    }
}

fn value_in<'v>(variables: &'v [Variable]) -> impl Fn(&str) -> Option<&'v [u8]> {
    |name| {
        let known = variables.iter().find(|known| known.name == name);
        known.map(|known| known.value.expose())
    }
}

/// A word of a command with its variables.
pub(crate) fn expand_word(word: &str, variables: &[(String, SecretString)]) -> String {
    let value = |name: &str| {
        let known = variables.iter().find(|(known, _)| known == name);
        known.map(|(_, value)| value.expose().as_bytes())
    };
    // The template and all values are text, so this loses nothing.
    String::from_utf8_lossy(&expand(word, value)).into_owned()
}

/// Replaces `$(NAME)` by the variable's value. An unknown one stays, and `$$` is a dollar sign.
///
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#environment-variables>
fn expand<'v>(text: &str, variable: impl Fn(&str) -> Option<&'v [u8]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.extend(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push(b'$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix("$(").and_then(|inside| inside.split_once(')')) {
            match variable(name) {
                Some(value) => out.extend(value),
                None => out.extend(&rest.as_bytes()[..name.len() + 3]),
            }
            rest = after;
        } else {
            out.push(b'$');
            rest = &rest[1..];
        }
    }
    out.extend(rest.as_bytes());
    out
}

fn secrets_of(template: &PodTemplate) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for container in template.init_containers.iter().chain(&template.containers) {
        let whole = container.environment.from.iter().filter(|from| from.secret);
        names.extend(whole.map(|from| from.name.clone()));
        for (_, source) in &container.environment.variables {
            if let Source::Key { secret: true, name, .. } = source {
                names.insert(name.clone());
            }
        }
    }
    for volume in &template.volumes {
        if let VolumeSource::Files { secret: true, name, .. } = &volume.source {
            names.insert(name.clone());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_expand_as_on_a_cluster() {
        let mut variables = Vec::new();
        for (name, value) in [("A", "one"), ("B_C", "2")] {
            set(
                &mut variables,
                name.into(),
                SecretBytes::new(value.into()),
                String::new(),
            );
        }
        for (text, expect) in [
            ("$(A)/$(B_C)", "one/2"),
            ("$$(A)", "$(A)"),
            ("$(NO) $A ${A} $", "$(NO) $A ${A} $"),
            ("$(A", "$(A"),
            ("plain", "plain"),
        ] {
            assert_eq!(expand(text, value_in(&variables)), expect.as_bytes(), "{text}");
        }
    }
}
