//! A real RTSP server for tests: GStreamer's, with a file as its camera.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use gstreamer as gst;
use gstreamer::glib;
use gstreamer_rtsp_server as server;
use gstreamer_rtsp_server::prelude::*;

use crate::LONG;

/// Where the file is mounted.
const MOUNT: &str = "/stream";
/// The role of a client that knows the credentials.
const ROLE: &str = "viewer";

/// Between two tries to have a port.
const PAUSE: Duration = Duration::from_millis(100);

/// How a client proves who it is.
#[derive(Debug, Clone, Copy)]
pub enum Auth {
    /// The password itself.
    Basic,
    /// A hash of it.
    Digest,
}

/// A camera that sends a file's H.264 and AAC in real time, from its start for every client. Dropping it breaks all connections.
///
/// Its first track is the sound, as with some cameras.
pub struct RtspServer {
    server: server::RTSPServer,
    listening: Option<glib::SourceId>,
    context: glib::MainContext,
    main_loop: glib::MainLoop,
    thread: Option<JoinHandle<()>>,
    port: u16,
}

impl RtspServer {
    /// Serves a file on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When the server can't be started.
    pub fn start(file: &Path) -> Result<Self> {
        Self::start_on(file, 0)
    }

    /// Serves a file on this port of 127.0.0.1; 0 takes a free one.
    ///
    /// # Errors
    /// When the server can't be started.
    pub fn start_on(file: &Path, port: u16) -> Result<Self> {
        let deadline = Instant::now() + LONG;
        loop {
            match Self::start_with(file, "h264", port, None) {
                // One that was given back may be the near end of somebody's connection for a moment.
                Err(_) if port != 0 && Instant::now() < deadline => {
                    std::thread::park_timeout(PAUSE);
                }
                started => return started,
            }
        }
    }

    /// Serves a file with H.265 instead on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When the server can't be started.
    pub fn start_h265(file: &Path) -> Result<Self> {
        Self::start_with(file, "h265", 0, None)
    }

    /// Serves a file to those who know these credentials.
    ///
    /// # Errors
    /// When the server can't be started.
    pub fn start_guarded(file: &Path, auth: Auth, user: &str, password: &str) -> Result<Self> {
        Self::start_with(file, "h264", 0, Some((auth, user, password)))
    }

    fn start_with(
        file: &Path,
        coding: &str,
        port: u16,
        guard: Option<(Auth, &str, &str)>,
    ) -> Result<Self> {
        gst::init()?;
        let server = server::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service(&port.to_string());
        let factory = camera(file, coding)?;
        if let Some((auth, user, password)) = guard {
            server.set_auth(Some(&authentication(auth, user, password)));
            factory.add_role_from_structure(
                &gst::Structure::builder(ROLE)
                    .field("media.factory.access", true)
                    .field("media.factory.construct", true)
                    .build(),
            );
        }
        let mounts = server.mount_points().context("a server has mount points")?;
        mounts.add_factory(MOUNT, factory);
        let context = glib::MainContext::new();
        let listening = server.attach(Some(&context))?;
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let running = main_loop.clone();
        let thread = std::thread::Builder::new()
            .name("rtsp-server".to_owned())
            .spawn(move || running.run())?;
        Ok(Self {
            port: u16::try_from(server.bound_port()).context("it listens")?,
            server,
            listening: Some(listening),
            context,
            main_loop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The stream's address, without credentials.
    pub fn url(&self) -> String {
        format!("rtsp://127.0.0.1:{}{MOUNT}", self.port)
    }
}

impl Drop for RtspServer {
    fn drop(&mut self) {
        let (server, main_loop) = (self.server.clone(), self.main_loop.clone());
        let listening = self.listening.take();
        if let Some(source) = listening.and_then(|id| self.context.find_source_by_id(&id)) {
            source.destroy();
        }
        // Clients belong to the server's own thread.
        self.context.invoke(move || {
            server.client_filter(Some(&mut |_, _| server::RTSPFilterResult::Remove));
            main_loop.quit();
        });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn camera(file: &Path, coding: &str) -> Result<server::RTSPMediaFactory> {
    let path = file
        .to_str()
        .filter(|path| !path.contains(['"', '\\']))
        .ok_or_else(|| anyhow!("{} is no plain path", file.display()))?;
    let factory = server::RTSPMediaFactory::new();
    factory.set_launch(&format!(
        "( filesrc location=\"{path}\" ! qtdemux name=demuxer \
         demuxer.audio_0 ! queue ! aacparse ! rtpmp4gpay name=pay0 pt=97 \
         demuxer.video_0 ! queue ! {coding}parse ! rtp{coding}pay name=pay1 pt=96 config-interval=-1 )"
    ));
    Ok(factory)
}

fn authentication(auth: Auth, user: &str, password: &str) -> server::RTSPAuth {
    let token = server::RTSPToken::builder()
        .field("media.factory.role", ROLE)
        .build();
    let asked = server::RTSPAuth::new();
    match auth {
        Auth::Basic => {
            let basic = server::RTSPAuth::make_basic(user, password);
            asked.add_basic(&basic, &token);
        }
        Auth::Digest => {
            asked.set_supported_methods(server::gst_rtsp::RTSPAuthMethod::Digest);
            asked.add_digest(user, password, &token);
        }
    }
    asked
}
