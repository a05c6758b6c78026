//! Tests the store's contract on every implementation: SQLite in a file and in memory, PostgreSQL, and a store with
//! fault injection.

#![allow(clippy::unwrap_used)]

mod artifacts;
mod backends;
mod commits;
mod contexts;
mod environments;
mod faults;
mod gates;
mod jobs;
mod on_postgres;
mod on_sqlite;
mod orbs;
mod pipelines;
mod releases;
mod rows;
mod servers;
mod sessions;
mod work;
mod workflows;

/// Runs cases, each a function of a store, on every implementation.
macro_rules! contract {
    ($($case:path as $name:ident),* $(,)?) => {
        mod sqlite_file {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (_folder, store) = crate::backends::file().await;
                $case(store).await;
            })*
        }

        mod sqlite_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $case(crate::backends::memory().await).await;
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(store) = crate::backends::postgres(stringify!($name)).await {
                    $case(store).await;
                }
            })*
        }

        mod with_faults {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (_folder, store) = crate::backends::file().await;
                let faults = towpath_store::Faults::new();
                $case(store.with_faults(faults.clone())).await;
                crate::backends::check_plans(_folder.path(), &faults.statements()).await;
            })*
        }
    };
}

contract!(
    crate::artifacts::artifacts_are_replaced_by_path as artifacts_are_replaced_by_path,
    crate::artifacts::tests_are_replaced_by_file as tests_are_replaced_by_file,
    crate::artifacts::the_newest_cache_with_the_prefix_wins as the_newest_cache_with_the_prefix_wins,
    crate::artifacts::layers_are_sorted_and_replaced as layers_are_sorted_and_replaced,
    crate::commits::a_failed_write_undoes_its_commit as a_failed_write_undoes_its_commit,
    crate::commits::a_commit_happens_whole_without_its_caller as a_commit_happens_whole_without_its_caller,
    crate::commits::numbers_have_no_gaps_under_eight_writers as numbers_have_no_gaps_under_eight_writers,
    crate::commits::one_of_eight_writers_of_a_version_wins as one_of_eight_writers_of_a_version_wins,
    crate::commits::reads_see_what_was_answered as reads_see_what_was_answered,
    crate::commits::topics_follow_from_writes as topics_follow_from_writes,
    crate::commits::a_listener_that_lags_is_told_everything as a_listener_that_lags_is_told_everything,
    crate::commits::a_store_knows_its_name as a_store_knows_its_name,
    crate::contexts::a_contexts_rule_is_replaced as a_contexts_rule_is_replaced,
    crate::environments::every_sighting_is_read_back as every_sighting_is_read_back,
    crate::environments::environments_are_sorted_by_project_and_name as environments_are_sorted_by_project_and_name,
    crate::gates::gates_wait_in_order as gates_wait_in_order,
    crate::gates::a_plan_is_kept_once as a_plan_is_kept_once,
    crate::jobs::jobs_are_compared_and_keep_their_number as jobs_are_compared_and_keep_their_number,
    crate::jobs::jobs_come_in_the_order_asked_for as jobs_come_in_the_order_asked_for,
    crate::jobs::active_jobs_are_claimed_or_running as active_jobs_are_claimed_or_running,
    crate::jobs::nodes_count_their_reports as nodes_count_their_reports,
    crate::jobs::steps_are_replaced as steps_are_replaced,
    crate::orbs::orbs_are_found_and_listed as orbs_are_found_and_listed,
    crate::orbs::versions_are_published_once as versions_are_published_once,
    crate::pipelines::projects_are_compared_and_sorted as projects_are_compared_and_sorted,
    crate::pipelines::triggers_take_numbers as triggers_take_numbers,
    crate::pipelines::triggers_stay_open_until_they_are_done as triggers_stay_open_until_they_are_done,
    crate::pipelines::handled_refs_are_replaced_and_removed as handled_refs_are_replaced_and_removed,
    crate::pipelines::a_handled_ref_keeps_the_newest_push as a_handled_ref_keeps_the_newest_push,
    crate::pipelines::pipelines_are_listed_newest_first as pipelines_are_listed_newest_first,
    crate::pipelines::a_configuration_is_written_once as a_configuration_is_written_once,
    crate::releases::releases_are_numbered_and_listed as releases_are_numbered_and_listed,
    crate::releases::the_last_release_in_a_status_is_found as the_last_release_in_a_status_is_found,
    crate::releases::runs_are_listed_newest_first as runs_are_listed_newest_first,
    crate::releases::the_last_push_of_a_tag_is_found as the_last_push_of_a_tag_is_found,
    crate::servers::servers_are_seen_and_removed as servers_are_seen_and_removed,
    crate::sessions::sessions_are_seen_and_end as sessions_are_seen_and_end,
    crate::work::work_is_due_in_order as work_is_due_in_order,
    crate::work::a_project_with_much_work_hides_nobody_elses as a_project_with_much_work_hides_nobody_elses,
    crate::work::work_is_leased_to_one_server as work_is_leased_to_one_server,
    crate::work::an_ended_lease_is_claimed_with_a_higher_fence as an_ended_lease_is_claimed_with_a_higher_fence,
    crate::work::a_lost_lease_changes_nothing as a_lost_lease_changes_nothing,
    crate::work::fences_grow_even_when_work_is_made_anew as fences_grow_even_when_work_is_made_anew,
    crate::work::failed_work_is_retried_or_set_aside as failed_work_is_retried_or_set_aside,
    crate::work::returned_work_may_be_bound_to_an_engine as returned_work_may_be_bound_to_an_engine,
    crate::work::a_wish_makes_work_due_earlier as a_wish_makes_work_due_earlier,
    crate::work::a_wish_during_a_lease_is_not_lost as a_wish_during_a_lease_is_not_lost,
    crate::work::canceled_work_is_gone as canceled_work_is_gone,
    crate::work::a_server_that_is_gone_loses_its_leases as a_server_that_is_gone_loses_its_leases,
    crate::work::eight_servers_claim_each_piece_once as eight_servers_claim_each_piece_once,
    crate::workflows::a_stream_is_appended_to_at_its_end as a_stream_is_appended_to_at_its_end,
    crate::workflows::workflows_come_in_the_order_asked_for as workflows_come_in_the_order_asked_for,
    crate::workflows::unfinished_workflows_are_found as unfinished_workflows_are_found,
);
