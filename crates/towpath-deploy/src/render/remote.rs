//! What kustomizations may take from elsewhere than the repository.

use towpath_manifest::RemoteReference;

/// Those of the references that begin with none of the allowed prefixes, each with its place.
pub(super) fn refused(references: &[RemoteReference], allowed: &[String]) -> Vec<String> {
    let is_allowed = |reference: &&RemoteReference| {
        let url = reference.url();
        // Encoded or relative parts could lead out of what is allowed.
        let is_plain = !url.contains(['%', '\\', '@']) && !url.split('/').any(|part| part == "..");
        is_plain && allowed.iter().any(|prefix| url.starts_with(prefix))
    };
    let refused = references.iter().filter(|reference| !is_allowed(reference));
    refused
        .map(|reference| format!("  {}: `{}`", reference.place, reference.text))
        .collect()
}

/// A sentence for each reference that may mean something else tomorrow.
pub(super) fn unpinned(references: &[RemoteReference]) -> Vec<String> {
    let loose = references.iter().filter(|reference| !reference.is_pinned());
    loose
        .map(|reference| {
            format!(
                "{}: `{}` names no commit (`?ref=` and 40 digits), so a plan can change without one of this repository",
                reference.place, reference.text
            )
        })
        .collect()
}
