//! Sources as they are: the sample clip, clips made for the case, a real RTSP server, and hostile ones.

mod bad;
mod hearing;
mod sampling;
mod support;
