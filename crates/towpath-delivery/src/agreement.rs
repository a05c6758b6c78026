//! Compares the plan that somebody agreed to with the plan that would be carried out now.

use crate::{
    error::DeliveryError,
    plan::{Plan, read_plan},
};
use towpath_store::Store;
use towpath_types::Digest;

/// What somebody agreed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Agreed {
    /// Nobody named a plan.
    Nothing,
    /// They agreed to exactly this plan.
    This,
    /// They agreed to another plan; the phrases describe the differences.
    Other(Vec<String>),
}

/// Parses the full digest of a plan: `sha256:` and 64 digits, or the digits alone.
///
/// A prefix is not enough: two plans with the same prefix can be found within minutes.
///
/// # Errors
/// `Invalid` for any other text.
pub fn plan_digest(text: &str) -> Result<Digest, DeliveryError> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    format!("sha256:{digits}").parse().map_err(|_| {
        DeliveryError::invalid(format!(
            "`{}` does not name a plan: give its whole digest, `sha256:` and 64 digits",
            text.escape_debug()
        ))
    })
}

/// Compares the plan with the digest `shown` with the current plan.
///
/// # Errors
/// When the store does not work.
pub(crate) async fn agreed(store: &dyn Store, shown: Option<&Digest>, current: &Plan) -> Result<Agreed, DeliveryError> {
    let Some(digest) = shown else {
        return Ok(Agreed::Nothing);
    };
    if *digest == current.digest() {
        return Ok(Agreed::This);
    }
    let row = store.plan(digest).await?;
    let shown = row
        .filter(|row| row.environment == current.place.id)
        .and_then(|row| read_plan(row.plan).ok())
        // A stored plan counts only if its content matches its digest.
        .filter(|plan| plan.digest() == *digest);
    let differences = match shown {
        Some(shown) => shown.differences(current),
        None => vec!["the one that you were shown is not known here".to_string()],
    };
    Ok(match differences.as_slice() {
        [] => Agreed::This,
        _ => Agreed::Other(differences),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_plan_is_named_by_the_whole_of_its_digest() {
        let plan = Digest::of(b"plan");
        let hex = plan.hex();
        for whole in [plan.as_str(), hex] {
            assert_eq!(plan_digest(whole).unwrap(), plan);
        }
        for part in [
            "",
            "sha256:",
            &hex[..12],
            &hex[..63],
            &format!("{hex}0"),
            &format!("sha512:{hex}"),
        ] {
            let error = plan_digest(part).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{part}");
        }
    }
}
