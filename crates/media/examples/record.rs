//! Records a file into a folder, or only plays it: `record FILE [FOLDER]`. What recording costs is told by running both.

use std::sync::Arc;

use sightline_media::{Control, Policy, play};
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{OpenSource, TakeFrom};
use sightline_service::clock::SystemClock;

fn main() {
    let mut args = std::env::args().skip(1);
    let path = std::fs::canonicalize(args.next().expect("a file")).expect("a file");
    let folder = args.next();
    let open = OpenSource {
        url: format!("file://{}", path.display()),
        ..OpenSource::default()
    };
    let control = Arc::new(Control::default());
    control.take(TakeFrom {
        record: folder.is_some(),
        ..TakeFrom::default()
    });
    let report = move |report| {
        if let (Some(folder), Report::Segment(segment)) = (&folder, report) {
            let (start, length) = (segment.start_position_us, segment.duration_us);
            let name = format!("{folder}/{start:012}-{length}.ts");
            std::fs::write(name, &segment.ts).expect("written");
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
