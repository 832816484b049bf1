//! Writes each utterance of a file as a WAV file, as ingest workers cut them: `utterances FILE FOLDER`.

use std::fs;
use std::sync::Arc;

use sightline_media::{Control, Policy, play};
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{OpenSource, TakeFrom};
use sightline_service::clock::SystemClock;

fn main() {
    let mut args = std::env::args().skip(1);
    let path = fs::canonicalize(args.next().expect("a file")).expect("a file");
    let folder = args.next().expect("a folder");
    let open = OpenSource {
        url: format!("file://{}", path.display()),
        ..OpenSource::default()
    };
    let control = Arc::new(Control::default());
    control.take(TakeFrom {
        audio: true,
        ..TakeFrom::default()
    });
    let report = move |report| {
        if let Report::Utterance(utterance) = report {
            let name = format!("{folder}/{:012}.wav", utterance.start_position_us);
            let wav = [&header(utterance.pcm.len())[..], &utterance.pcm].concat();
            fs::write(name, wav).expect("written");
        }
    };
    let ended = play(
        &open,
        &Policy::default(),
        &control,
        Arc::new(SystemClock),
        Box::new(report),
    );
    println!("{ended:?}");
}

/// Of 16 kHz mono in 16 bits.
fn header(bytes: usize) -> Vec<u8> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut header = b"RIFF".to_vec();
    header.extend((bytes + 36).to_le_bytes());
    header.extend(b"WAVEfmt ");
    for number in [16, 0x0001_0001, 16_000, 32_000, 0x0010_0002] {
        header.extend(u32::to_le_bytes(number));
    }
    header.extend(b"data");
    header.extend(bytes.to_le_bytes());
    header
}
