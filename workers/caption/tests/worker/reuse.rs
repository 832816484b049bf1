//! Descriptions that are taken over from an earlier window.

use anyhow::Result;
use sightline_proto::v1::{Index, alert};

use crate::harness::{CALM, ENTERS, Platform, RESTRICTED, scene, window};

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_window_takes_over_the_description_and_is_judged_afresh() -> Result<()> {
    let platform = Platform::start().await?;
    // Between these two sets of pictures 0.5 % of the brightness change.
    let thrifty = |index: &mut Index| index.reuse_below = 0.003;
    let prompt = "Describe the scene";
    platform.index_with("idx-a", prompt, thrifty).await?;
    platform.event("evt-enters", ENTERS).await?;
    let enabled = alert::State::Enabled;
    platform
        .alert("alr-1", "idx-a", "evt-enters", enabled)
        .await?;
    let first = platform.described(&window(0, CALM)?, 1).await?;
    let second = platform.described(&window(1, CALM)?, 2).await?;
    let other = platform.described(&window(2, RESTRICTED)?, 3).await?;
    assert_eq!(
        [&first, &second, &other].map(|s| s.reused),
        [false, true, false]
    );
    assert_eq!(second.text, first.text);
    assert_ne!(other.text, first.text);
    assert_eq!(platform.model.asked(), [3, 3, 2]);
    platform
        .counted("sightline_caption_scenes_reused_total 1")
        .await?;

    // An index that wants every window described lends its text to the other one.
    platform.index("idx-b", prompt).await?;
    platform.publish(&window(3, RESTRICTED)?).await?;
    let scenes = platform.held("scene", 5).await?;
    for observation in &scenes[3..] {
        assert!(!scene(observation)?.reused);
    }
    platform
        .change("idx-b", |index| index.reuse_below = 0.003)
        .await?;
    let other_words =
        |index: &mut Index| index.prompt = "Describe activity and detect unusual behavior".into();
    platform.change("idx-a", other_words).await?;
    platform.publish(&window(4, RESTRICTED)?).await?;
    let scenes = platform.held("scene", 7).await?;
    for observation in &scenes[5..] {
        let body = scene(observation)?;
        // Nothing was kept for idx-b while it had every window described.
        assert!(!body.reused, "{body:?}");
    }
    platform.publish(&window(5, RESTRICTED)?).await?;
    let scenes = platform.held("scene", 9).await?;
    assert!(scene(&scenes[7])?.reused && scene(&scenes[8])?.reused);
    assert_eq!(platform.held("verdict", 6).await?.len(), 6);
    platform.stop().await
}
