//! The fake.

use super::{Change, Subject};
use towpath_forge::{Forge, fake::FakeForge};
use towpath_types::{CommitId, ProjectName};

#[derive(Default)]
pub struct Fake(FakeForge);

impl Subject for Fake {
    fn forge(&self) -> &dyn Forge {
        &self.0
    }

    fn commit(&self, project: &ProjectName, branch: &str, message: &str, changes: &[Change<'_>]) -> CommitId {
        let mut draft = self
            .0
            .commit_to(project, branch)
            .message(message)
            .author("Ada Lovelace");
        for change in changes {
            draft = match change {
                Change::File(path, content) => draft.file(path, content),
                Change::Link(path, target) => draft.link(path, target),
                Change::Submodule(path) => draft.submodule(path),
                Change::Removed(path) => draft.without(path),
            };
        }
        draft.push()
    }

    fn set_ref(&self, project: &ProjectName, name: &str, commit: Option<&CommitId>) {
        self.0.set_ref(project, name, commit);
    }

    fn annotated_tag(&self, project: &ProjectName, name: &str, commit: &CommitId) {
        self.0.annotate(project, name, commit);
    }
}
