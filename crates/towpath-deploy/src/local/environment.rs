//! The environment variables of a container, and where their values come from.

use super::{
    context::Context,
    model::{Container, EnvSource, PodTemplate, Source, VolumeSource},
    start_error::StartError,
};
use std::collections::BTreeSet;
use towpath_types::{Mask, SecretString};

/// A container's variables. A later variable overrides an earlier one, and `$(NAME)` refers to an earlier one.
///
/// Source: <https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/>
pub(crate) async fn variables(
    context: &Context,
    container: &Container,
) -> Result<Vec<(String, SecretString)>, StartError> {
    let mut variables: Vec<(String, SecretString)> = Vec::new();
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
            set(&mut variables, format!("{prefix}{key}"), value);
        }
    }
    for (name, source) in &container.environment.variables {
        let value = match source {
            Source::Value(text) => Some(SecretString::new(expand(text, &variables))),
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
                value
            }
        };
        if let Some(value) = value {
            set(&mut variables, name.clone(), value);
        }
    }
    Ok(variables)
}

/// Masks the values of every Secret that pods of `template` read.
pub(crate) async fn mask(context: &Context, template: &PodTemplate) -> Mask {
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

fn set(variables: &mut Vec<(String, SecretString)>, name: String, value: SecretString) {
    match variables.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => variables.push((name, value)),
    }
}

/// Replaces `$(NAME)` by the variable's value. An unknown one stays, and `$$` is a dollar sign.
///
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#environment-variables>
pub(crate) fn expand(text: &str, variables: &[(String, SecretString)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix("$(").and_then(|inside| inside.split_once(')')) {
            match variables.iter().find(|(known, _)| known == name) {
                Some((_, value)) => out.push_str(value.expose()),
                None => out.push_str(&rest[..name.len() + 3]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
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
        let variables = [
            ("A".to_string(), SecretString::new("one".into())),
            ("B_C".to_string(), SecretString::new("2".into())),
        ];
        for (text, expect) in [
            ("$(A)/$(B_C)", "one/2"),
            ("$$(A)", "$(A)"),
            ("$(NO) $A ${A} $", "$(NO) $A ${A} $"),
            ("$(A", "$(A"),
            ("plain", "plain"),
        ] {
            assert_eq!(expand(text, &variables), expect, "{text}");
        }
    }
}
