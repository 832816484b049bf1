//! Cameras for `make bench-scale`: one file of H.264, sent in real time to any number of clients.
//!
//!     cameras FILE CAMERAS
//!
//! serves rtsp://127.0.0.1:PORT/0 and so on over TCP, prints the port, and runs until its standard input closes. Clients of one address
//! share its pipeline and see the same picture at the same time; each address begins with its first client, so that keyframes of
//! different ones fall apart as those of cameras do.

use std::io::Read;

use anyhow::{Context, Result, ensure};
use gstreamer as gst;
use gstreamer::glib;
use gstreamer_rtsp_server as server;
use gstreamer_rtsp_server::prelude::*;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, cameras] = arguments.as_slice() else {
        anyhow::bail!("say: cameras FILE CAMERAS");
    };
    ensure!(
        !file.contains(['"', '\\']) && std::path::Path::new(file).is_file(),
        "{file} is no plain path of a file"
    );
    let cameras: u32 = cameras.parse().context("how many cameras")?;
    gst::init()?;
    let server = server::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service("0");
    // All clients of the benchmark may come in the same moment.
    server.set_backlog(128);
    let mounts = server.mount_points().context("a server has mount points")?;
    for camera in 0..cameras {
        let factory = server::RTSPMediaFactory::new();
        factory.set_launch(&format!(
            "( filesrc location=\"{file}\" ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
        ));
        factory.set_shared(true);
        factory.set_protocols(server::gst_rtsp::RTSPLowerTrans::TCP);
        mounts.add_factory(&format!("/{camera}"), factory);
    }
    let main_loop = glib::MainLoop::new(None, false);
    let _listening = server.attach(None)?;
    println!("{}", server.bound_port());
    let running = main_loop.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        running.quit();
    });
    main_loop.run();
    Ok(())
}
