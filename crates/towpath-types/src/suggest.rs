//! Suggestions for misspelled names.

/// The candidate that is most similar to `name`, if at most a third of the letters (and at most four) differ.
#[must_use]
pub fn nearest<T: AsRef<str>>(name: &str, candidates: impl IntoIterator<Item = T>) -> Option<String> {
    let limit = (name.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .filter(|candidate| candidate.as_ref() != name && candidate.as_ref().len().abs_diff(name.len()) <= limit)
        .map(|candidate| (distance(name, candidate.as_ref()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.as_ref().to_owned())
}

/// The number of insertions, deletions, replacements and swaps of neighbours between two names.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in right.iter().enumerate() {
            let mut best = (previous[column] + usize::from(a != b))
                .min(previous[column + 1] + 1)
                .min(current[column] + 1);
            if row > 0 && column > 0 && *a == right[column - 1] && left[row - 1] == *b {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_suggested_and_others_are_not() {
        let check = |name: &str, expect: Option<&str>| {
            assert_eq!(
                nearest(name, ["build", "test", "deploy-staging"]).as_deref(),
                expect,
                "{name}"
            );
        };
        check("biuld", Some("build"));
        check("tests", Some("test"));
        check("deploy-stagng", Some("deploy-staging"));
        check("lint", None);
        check("build", None);
    }
}
