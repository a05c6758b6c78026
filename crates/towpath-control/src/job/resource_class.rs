//! The capacity of each resource class, limited by the machine. Pure.

use crate::capacity::Capacity;

/// The capacity that a job without a resource class counts as in the queue. It does not limit the job.
const DEFAULT: Capacity = size(1, 1);

const fn size(processors: u64, gibibytes: u64) -> Capacity {
    Capacity {
        cpu_millis: processors * 1000,
        memory_bytes: gibibytes << 30,
    }
}

/// The size of a resource class; `None` for an unknown class.
///
/// Source: <https://circleci.com/docs/guides/execution-managed/resource-class-overview/#docker-execution-environment>
#[must_use]
pub(crate) fn size_of(class: &str) -> Option<Capacity> {
    Some(match class.strip_prefix("arm.").unwrap_or(class) {
        "small" => size(1, 2),
        "medium" => size(2, 4),
        "medium+" => size(3, 6),
        "large" => size(4, 8),
        "xlarge" => size(8, 16),
        "2xlarge" => size(16, 32),
        "2xlarge+" => size(20, 40),
        _ => return None,
    })
}

/// The capacity that a job counts as in the queue, all nodes together.
#[must_use]
pub(crate) fn needs(class: Option<&str>, nodes: u32) -> Capacity {
    let one = class.and_then(size_of).unwrap_or(DEFAULT);
    Capacity {
        cpu_millis: one.cpu_millis.saturating_mul(u64::from(nodes)),
        memory_bytes: one.memory_bytes.saturating_mul(u64::from(nodes)),
    }
}

/// The limits of one container: its class, or the whole machine if the class is larger, with a warning that says so.
#[must_use]
pub(crate) fn limits(class: Option<&str>, machine: Capacity) -> (Option<Capacity>, Option<String>) {
    let Some(class) = class else { return (None, None) };
    let Some(wanted) = size_of(class) else {
        let warning = format!(
            "resource class `{class}` is not known, so the job may use all of this machine ({})",
            text(machine)
        );
        return (None, Some(warning));
    };
    let given = wanted.at_most(machine);
    let warning = (given != wanted).then(|| {
        format!(
            "resource class `{class}` has {}, and this machine has {}: the job gets {}",
            text(wanted),
            text(machine),
            text(given)
        )
    });
    (Some(given), warning)
}

fn text(size: Capacity) -> String {
    #[allow(clippy::cast_precision_loss, reason = "for people, with one digit")]
    let (processors, gibibytes) = (
        size.cpu_millis as f64 / 1000.0,
        size.memory_bytes as f64 / f64::from(1 << 30),
    );
    format!("{processors:.1} CPUs and {gibibytes:.1} GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_larger_than_the_machine_is_reduced_and_said() {
        let machine = size(2, 24);
        assert_eq!(limits(Some("medium"), machine), (Some(size(2, 4)), None));
        assert_eq!(limits(None, machine), (None, None));
        let (given, warning) = limits(Some("xlarge"), machine);
        assert_eq!(given, Some(size(2, 16)));
        assert_eq!(
            warning.as_deref(),
            Some(
                "resource class `xlarge` has 8.0 CPUs and 16.0 GiB, and this machine has 2.0 CPUs and 24.0 GiB: the job gets 2.0 CPUs and 16.0 GiB"
            )
        );
        let (given, warning) = limits(Some("team/gpu"), machine);
        assert_eq!(given, None);
        assert!(warning.is_some_and(|warning| warning.contains("`team/gpu` is not known")));
    }

    #[test]
    fn a_job_counts_with_all_its_nodes() {
        assert_eq!(needs(None, 1), size(1, 1));
        assert_eq!(needs(Some("small"), 4), size(4, 8));
        assert_eq!(needs(Some("arm.large"), 1), size(4, 8));
    }
}
