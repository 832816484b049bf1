//! A real RTSP server for tests.
