//! Pictures that stand still, black ones and silence: measured in windows of 5 s, whatever else is wanted.

use anyhow::Result;
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::measured_window::What;
use sightline_proto::internal::{MeasuredPictures, MeasuredSound, TakeFrom};

use crate::support::*;

/// Five seconds each of pictures that move, stand still twice, are black and move again; a tone, silence twice, a soft tone and
/// the tone again.
const STORY: &str = "testsrc2=s=320x240:r=10:d=5[moving];\
    testsrc2=s=320x240:r=10:d=0.1,loop=99:1[still];\
    color=black:s=320x240:r=10:d=5[black];\
    testsrc2=s=320x240:r=10:d=5[again];\
    [moving][still][black][again]concat=n=4[out0];\
    sine=d=25,volume='if(between(t,4.8,15.2),0,if(between(t,15.2,20.2),0.002,1))':eval=frame[out1]";

type Measured = (Vec<(u64, MeasuredPictures)>, Vec<(u64, MeasuredSound)>);

fn measured(played: &Played) -> Measured {
    let (mut pictures, mut sound) = (Vec::new(), Vec::new());
    for report in &played.reports {
        let Report::Measured(window) = report else {
            continue;
        };
        assert!(window.captured_us > 0 && window.sampled_us >= window.captured_us);
        match window.what.expect("something") {
            What::Pictures(measured) => pictures.push((window.window, measured)),
            What::Sound(measured) => sound.push((window.window, measured)),
        }
    }
    (pictures, sound)
}

fn everything(from_window: u64) -> TakeFrom {
    TakeFrom {
        measure_pictures: true,
        pictures_from_window: from_window,
        measure_sound: true,
        sound_from_window: from_window,
        ..TakeFrom::default()
    }
}

fn check_story((pictures, sound): &Measured, from: u64) {
    let windows: Vec<u64> = pictures.iter().map(|(window, _)| *window).collect();
    assert_eq!(windows, (from..5).collect::<Vec<_>>());
    for (window, measured) in pictures {
        assert_eq!(measured.count, 2, "{window}");
        let still = (1..=3).contains(window);
        assert_eq!(measured.change < 0.1, still, "{window}: {measured:?}");
        let black = measured.brightness < 24.0 && measured.deviation < 8.0;
        assert_eq!(black, *window == 3, "{window}: {measured:?}");
    }
    let windows: Vec<u64> = sound.iter().map(|(window, _)| *window).collect();
    assert_eq!(windows, (from..5).collect::<Vec<_>>());
    for (window, measured) in sound {
        let heard = measured.heard_us;
        assert!(
            (4_900_000..=5_100_000).contains(&heard),
            "{window}: {heard}"
        );
        // A tone of an eighth, which is 0.088 at its root of the mean square.
        let expected = match window {
            1 | 2 => 0.0..0.000_1,
            3 => 0.000_1..0.000_3,
            _ => 0.08..0.1,
        };
        assert!(expected.contains(&measured.level), "{window}: {measured:?}");
    }
}

#[test]
fn what_stands_still_is_black_or_silent_is_measured_as_that() -> Result<()> {
    let dir = tempfile::tempdir()?;
    // Keyframes that are close, and so far apart that what lies between has to be decoded; 8 and 10 bits.
    for (name, keyframes, format) in [("close", "20", "yuv420p"), ("far", "250", "yuv420p10le")] {
        let path = dir.path().join(format!("{name}.mp4"));
        let coded = ["-g", keyframes, "-pix_fmt", format];
        let sound = ["-c:v", "libx264", "-c:a", "aac"];
        clip(&path, STORY, &[&coded[..], &sound].concat())?;
        let played = play_all(&file(&path), everything(0));
        assert!(played.windows().is_empty() && played.utterances().is_empty());
        let alone = measured(&played);
        check_story(&alone, 0);
        // Beside a sampling and transcription, which change nothing of it and are not changed by it.
        let beside = TakeFrom {
            audio: true,
            ..take(&[(USUAL, 0)])
        };
        let times = play_all(&file(&path), beside.clone()).times(&USUAL);
        let both = TakeFrom {
            samplings: beside.samplings,
            audio: true,
            ..everything(2)
        };
        let played = play_all(&file(&path), both);
        check_story(&measured(&played), 2);
        assert_eq!(played.times(&USUAL), times);
    }
    Ok(())
}

#[test]
fn a_track_that_is_not_there_or_not_wanted_is_not_measured() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("mute.mp4");
    clip(&path, "testsrc2=s=320x240:r=10:d=6", &["-c:v", "libx264"])?;
    let (pictures, sound) = measured(&play_all(&file(&path), everything(0)));
    assert_eq!((pictures.len(), sound.len()), (2, 0));
    // The second window has less than a second, and one picture.
    assert_eq!((pictures[1].1.count, pictures[1].1.change), (1, 0.0));
    let played = play_all(&file(&path), take(&[(USUAL, 0)]));
    assert_eq!(measured(&played), (vec![], vec![]));
    Ok(())
}
