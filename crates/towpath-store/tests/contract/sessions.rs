use crate::rows::at;
use towpath_store::{Commit, SessionRow, SessionStore, SqlStore, Store, Write};
use towpath_types::Digest;

pub async fn sessions_are_seen_and_end(store: SqlStore) {
    let session = |name: &str, made| SessionRow {
        digest: Digest::of(name.as_bytes()),
        browser: format!("browser of {name}"),
        made_at: at(made),
        seen_at: at(made),
    };
    let write = async |write: Write| store.commit(Commit::new().with(write)).await.unwrap();
    let (ann, bob) = (session("ann", 2), session("bob", 1));
    write(Write::Session(ann.clone())).await;
    write(Write::Session(bob.clone())).await;
    assert_eq!(store.session(&ann.digest).await.unwrap(), Some(ann.clone()));
    assert_eq!(store.session(&Digest::of(b"nobody")).await.unwrap(), None);
    let seen = |row: &SessionRow| Write::SessionSeen {
        digest: row.digest.clone(),
        at: at(9),
    };
    write(seen(&ann)).await;
    let ann = SessionRow { seen_at: at(9), ..ann };
    assert_eq!(store.sessions().await.unwrap(), [bob.clone(), ann.clone()]);
    write(Write::EndSession(bob.digest.clone())).await;
    write(Write::EndSession(bob.digest.clone())).await;
    write(seen(&bob)).await;
    assert_eq!(store.sessions().await.unwrap(), [ann]);
}
