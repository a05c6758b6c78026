use towpath_store::{Commit, ContextRule, ContextStore, SqlStore, Store, Write};

pub async fn a_contexts_rule_is_replaced(store: SqlStore) {
    let rule = |context: &str, branches: &[&str]| ContextRule {
        context: context.into(),
        projects: vec!["claims".into()],
        branches: branches.iter().map(ToString::to_string).collect(),
    };
    for row in [rule("b", &[]), rule("a", &["main"]), rule("b", &["main", "release/*"])] {
        store.commit(Commit::new().with(Write::ContextRule(row))).await.unwrap();
    }
    let b = rule("b", &["main", "release/*"]);
    assert_eq!(store.context_rule("b").await.unwrap(), Some(b.clone()));
    assert_eq!(store.context_rule("c").await.unwrap(), None);
    assert_eq!(store.context_rules().await.unwrap(), [rule("a", &["main"]), b]);
}
