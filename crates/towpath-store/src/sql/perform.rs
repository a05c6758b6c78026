//! Carries an operation out within a transaction.

use super::{
    artifacts::{self, TestFile},
    contexts,
    database::Transaction,
    environments, gates, jobs,
    operation::{Done, Operation},
    orbs, pipelines, releases, servers, sessions, triggers, work, workflows,
};
use crate::{Commit, Committed, StoreError, Write};

/// Carries out `operation`. Roll the transaction back if this fails.
pub(crate) async fn perform(to: &mut Transaction<'_>, operation: &Operation) -> Result<Done, StoreError> {
    Ok(match operation {
        Operation::Commit(commit) => Done::Committed(write_all(to, commit).await?),
        Operation::Claim {
            wanted,
            server,
            now,
            lasts,
        } => Done::Claimed(work::claim(to, wanted, server, *now, *lasts).await?),
        Operation::Renew { server, now, lasts } => Done::Renewed(work::renew(to, server, *now, *lasts).await?),
        Operation::ForgetServer(server) => {
            work::forget(to, server).await?;
            Done::Nothing
        }
        Operation::PutServer(row) => {
            servers::put(to, row).await?;
            Done::Nothing
        }
        Operation::RemoveServer(id) => {
            servers::remove(to, id).await?;
            Done::Nothing
        }
    })
}

async fn write_all(to: &mut Transaction<'_>, commit: &Commit) -> Result<Committed, StoreError> {
    let mut committed = Committed::default();
    for guard in &commit.guards {
        work::check(to, guard).await?;
    }
    for one in &commit.writes {
        write(to, one, &mut committed).await?;
    }
    Ok(committed)
}

async fn write(to: &mut Transaction<'_>, write: &Write, committed: &mut Committed) -> Result<(), StoreError> {
    match write {
        Write::Project(row, expect) => pipelines::put_project(to, row, *expect).await,
        Write::Trigger(row, expect) => {
            let number = triggers::put_trigger(to, row, *expect).await?;
            committed.pipelines.extend(number.map(|number| (row.pipeline, number)));
            Ok(())
        }
        Write::HandledRef(row) => triggers::put_handled_ref(to, row).await,
        Write::Pipeline(row, expect) => pipelines::put_pipeline(to, row, *expect).await,
        Write::PipelineConfig(row) => pipelines::add_config(to, row).await,
        Write::Events {
            stream,
            expected,
            events,
        } => workflows::append(to, stream, *expected, events).await,
        Write::Workflow(row, expect) => workflows::put_workflow(to, row, *expect).await,
        Write::Job(row, expect) => jobs::put_job(to, row, *expect).await,
        Write::JobGoesOn { job, attempt } => jobs::check_goes_on(to, *job, *attempt).await,
        Write::JobSpec(row) => jobs::add_spec(to, row).await,
        Write::NumberJob(job) => {
            let number = jobs::number_job(to, *job).await?;
            committed.jobs.extend(number.map(|number| (*job, number)));
            Ok(())
        }
        Write::Node(row, expect) => jobs::put_node(to, row, *expect).await,
        Write::Step(row) => jobs::put_step(to, row).await,
        Write::Artifact(project, row) => artifacts::put_artifact(to, project, row).await,
        Write::Tests {
            project,
            job,
            attempt,
            node,
            path,
            tests,
        } => {
            let file = TestFile {
                project,
                job: *job,
                attempt: *attempt,
                node: *node,
                path,
            };
            artifacts::put_tests(to, &file, tests).await
        }
        Write::Cache(row) => {
            committed.caches_saved.push(artifacts::add_cache(to, row).await?);
            Ok(())
        }
        Write::WorkspaceLayer(row) => artifacts::put_layer(to, row).await,
        Write::Gate(row, expect) => gates::put_gate(to, row, *expect).await,
        Write::Plan(row) => gates::keep_plan(to, row).await,
        Write::Release(row, expect) => {
            let number = releases::put_release(to, row, *expect).await?;
            committed.releases.extend(number.map(|number| (row.id, number)));
            Ok(())
        }
        Write::Run(row, expect) => releases::put_run(to, row, *expect).await,
        Write::ImagePush(row) => releases::put_push(to, row).await,
        Write::Environment(row, expect) => environments::put_environment(to, row, *expect).await,
        Write::OrbNamespace(row) => orbs::add_namespace(to, row).await,
        Write::Orb(row, expect) => orbs::put_orb(to, row, *expect).await,
        Write::OrbVersion(row) => orbs::put_version(to, row).await,
        Write::FetchedOrb(row) => orbs::keep_fetched(to, row).await,
        Write::ContextRule(row) => contexts::put_rule(to, row).await,
        Write::Session(row) => sessions::add_session(to, row).await,
        Write::SessionSeen { digest, at } => sessions::seen(to, digest, *at).await,
        Write::EndSession(digest) => sessions::end(to, digest).await,
        Write::Work(row) => work::enqueue(to, row).await,
        Write::WorkDone(guard) => work::done(to, guard).await,
        Write::CancelWork(key) => work::cancel(to, key).await,
        Write::WorkFailed { guard, reason, retry } => work::failed(to, guard, reason, *retry).await,
        Write::WorkBound { guard, engine } => work::bound(to, guard, engine).await,
        Write::WorkReturned { guard, due, engine } => work::returned(to, guard, *due, engine.as_ref()).await,
    }
}
