//! Errors about credentials, without the credentials.

use kube::client::AuthError;
use towpath_types::with_causes;

/// A sentence on why credentials are not available.
///
/// Of a credential program (`exec` in a kubeconfig), it shows only the last line on standard error: standard output can hold
/// tokens, and so can the arguments.
pub(crate) fn why_unavailable(error: &AuthError) -> String {
    let AuthError::AuthExecRun { cmd, out } = error else {
        return with_causes(error);
    };
    let program = cmd.split_whitespace().next().unwrap_or_default().trim_matches('"');
    let stderr = String::from_utf8_lossy(&out.stderr);
    let last = stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    let last = match last.trim() {
        "" => "it printed nothing on standard error".to_string(),
        line => format!("it printed `{line}`"),
    };
    format!(
        "the kubeconfig's credential program `{program}` failed ({}): {last}",
        out.status
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_last_line_on_standard_error_of_a_credential_program_is_shown() {
        let run = |script: &str| {
            let out = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
            why_unavailable(&AuthError::AuthExecRun {
                cmd: r#""aws" "eks" "get-token" "--secret" "hunter2""#.into(),
                out: Box::new(out),
            })
        };
        let said = run("echo '{\"token\": \"hunter2\"}'; echo first >&2; echo 'the session has expired' >&2; exit 3");
        assert!(
            said.starts_with("the kubeconfig's credential program `aws` failed"),
            "{said}"
        );
        assert!(
            said.contains("`the session has expired`") && !said.contains("hunter2"),
            "{said}"
        );
        assert!(run("exit 1").contains("printed nothing"));
    }
}
