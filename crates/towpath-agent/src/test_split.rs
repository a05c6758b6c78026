//! Divides tests among the nodes of a job.
//!
//! Source: <https://circleci.com/docs/guides/optimize/use-the-circleci-cli-to-split-tests/>

/// The share of node `index` of `total`.
///
/// Without weights, deals the sorted names out one by one. With weights, takes the heaviest name first and gives each to the
/// node with the lightest load so far. Every node computes the same result.
pub(crate) fn share(
    mut names: Vec<String>,
    weight: Option<&dyn Fn(&str) -> f64>,
    index: usize,
    total: usize,
) -> Vec<String> {
    names.sort();
    let total = total.max(1);
    let Some(weight) = weight else {
        return names
            .into_iter()
            .enumerate()
            .filter(|(at, _)| at % total == index)
            .map(|(_, name)| name)
            .collect();
    };
    let mut weighed: Vec<(f64, String)> = names.into_iter().map(|name| (weight(&name), name)).collect();
    // The sort is stable: equal weights stay sorted by name.
    weighed.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut loads = vec![0.0; total];
    let mut share = Vec::new();
    for (weight, name) in weighed {
        let lightest = (0..total)
            .min_by(|a, b| f64::total_cmp(&loads[*a], &loads[*b]))
            .unwrap_or(0);
        loads[lightest] += weight;
        if lightest == index {
            share.push(name);
        }
    }
    share.sort();
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    #[test]
    fn names_are_dealt_out_in_order() {
        assert_eq!(share(names("d b a c e"), None, 0, 2), names("a c e"));
        assert_eq!(share(names("d b a c e"), None, 1, 2), names("b d"));
        assert_eq!(share(names("a"), None, 1, 2), names(""));
        assert_eq!(share(names("a b"), None, 0, 0), names("a b"));
    }

    #[test]
    fn weights_make_even_shares_and_every_test_runs_once() {
        let weight = |name: &str| match name {
            "slow" => 10.0,
            "half" => 5.0,
            _ => 1.0,
        };
        let all = names("a b c d e half slow");
        let (first, second) = (
            share(all.clone(), Some(&weight), 0, 2),
            share(all.clone(), Some(&weight), 1, 2),
        );
        assert_eq!(first, names("slow"));
        assert_eq!(second, names("a b c d e half"));
        let mut together = [first, second].concat();
        together.sort();
        assert_eq!(together, all);
    }
}
