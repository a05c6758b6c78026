//! The paths of objects on an API server.

use towpath_manifest::Kind;
use towpath_types::percent_encoded;

/// A kind of object as one API version serves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resource {
    /// `apps/v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// `deployments`; empty if the cluster does not serve the kind yet.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl Resource {
    /// One of Kubernetes' own kinds, which every cluster serves. Needs no request.
    #[must_use]
    pub fn of(kind: &Kind) -> Self {
        Self {
            api_version: kind.api_version.into(),
            kind: kind.name.into(),
            plural: kind.plural.into(),
            namespaced: kind.namespaced,
        }
    }

    /// A kind that the cluster does not serve yet, because its definition is applied together with its first objects. Its
    /// paths are known only when it is served.
    #[must_use]
    pub fn unserved(api_version: &str, kind: &str) -> Self {
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            plural: String::new(),
            namespaced: Kind::of(kind).namespaced,
        }
    }

    /// Whether the cluster does not serve the kind yet.
    #[must_use]
    pub fn is_unserved(&self) -> bool {
        self.plural.is_empty()
    }

    /// `apps`; empty for the core group.
    #[must_use]
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The path of all objects in `namespace`; of all objects in the cluster for a cluster-wide kind.
    #[must_use]
    pub fn collection(&self, namespace: &str) -> String {
        let version = version_path(&self.api_version);
        match self.namespaced {
            true => format!("{version}/namespaces/{}/{}", percent_encoded(namespace), self.plural),
            false => format!("{version}/{}", self.plural),
        }
    }

    /// The path of one object.
    #[must_use]
    pub fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.collection(namespace), percent_encoded(name))
    }
}

/// The path of an API version: `/apis/apps/v1`, `/api/v1`.
pub(crate) fn version_path(api_version: &str) -> String {
    let root = if api_version.contains('/') { "apis" } else { "api" };
    let version: Vec<String> = api_version.split('/').map(percent_encoded).collect();
    format!("/{root}/{}", version.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_objects_are_escaped() {
        assert_eq!(
            Resource::of(&Kind::SECRET).object("a b", "c/d"),
            "/api/v1/namespaces/a%20b/secrets/c%2Fd"
        );
        assert_eq!(
            Resource::of(Kind::of("ClusterRole")).object("ignored", "x"),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/x"
        );
    }
}
