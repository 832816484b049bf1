//! The same faults for longer, and more of them: not run by default (.config/nextest.toml), but by `make test-faults`.

use std::time::Duration;

use anyhow::Result;
use sightline_testkit::proxy::Link;

use super::kills::Story;
use super::{abuse, draining, killed, kills, outages, upgrade};

#[tokio::test(flavor = "multi_thread")]
async fn random_kills_of_everything_lose_and_double_nothing() -> Result<()> {
    kills::check(Story {
        seed: 11,
        length: Duration::from_secs(600),
        streams: 8,
        pause: 8,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_is_away_for_a_minute_costs_nothing() -> Result<()> {
    outages::check(Link::Cut, Duration::from_secs(60)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_is_silent_for_a_minute_costs_nothing() -> Result<()> {
    outages::check(Link::Swallows, Duration::from_secs(60)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_hands_over_within_two_seconds() -> Result<()> {
    draining::change_hands(Duration::from_secs(2), Duration::from_secs(15)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_watchers_cost_little() -> Result<()> {
    abuse::idle_watchers(10_000).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_upgraded_role_by_role_and_back() -> Result<()> {
    upgrade::up_and_back().await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_is_killed_before_and_after_its_side_effects() -> Result<()> {
    killed::everywhere_else().await
}
